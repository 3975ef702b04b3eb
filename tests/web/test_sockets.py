from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

import app
from billing_core.web import sockets as limits
from billing_core.web.sockets import SIGNED_IN_BYTES, STRANGER_BYTES, STRANGERS_IN_ALL, STRANGERS_PER_ADDRESS, Sockets

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["9.9.9.9", "8.8.8.8", "2001:db8::1", "2001:db8::2", "127.0.0.1"]), st.sampled_from("aaaasx")
    ),
    max_size=120,
)


@given(STEPS)
def test_whoever_comes_and_goes_strangers_never_hold_more_than_they_may(steps):
    sockets, strangers = Sockets(), []
    for address, step in steps:
        if step == "x" and strangers:
            sockets.leave(strangers.pop(0))
        elif step == "s":
            assert sockets.admit(address, is_signed_in=True) is not None
        elif (socket := sockets.admit(address, is_signed_in=False)) is not None:
            strangers.append(socket)
        per_place = [sum(socket.address == place for socket in strangers) for place in ("9.9.9.9", "2001:db8::/64")]
        assert max(per_place) <= STRANGERS_PER_ADDRESS
        assert len(strangers) <= STRANGERS_IN_ALL


def test_this_machines_address_has_the_limit_of_all_because_a_proxy_may_stand_there():
    sockets = Sockets()
    admitted = [sockets.admit("127.0.0.1", is_signed_in=False) for _ in range(STRANGERS_IN_ALL + 5)]
    assert sum(socket is not None for socket in admitted) == STRANGERS_IN_ALL
    assert sockets.admit("9.9.9.9", is_signed_in=False) is None
    assert sockets.admit("9.9.9.9", is_signed_in=True) is not None
    sockets.mark(admitted[0].id, is_signed_in=True)
    assert sockets.admit("9.9.9.9", is_signed_in=False) is not None


def test_a_new_connection_to_the_dashboard_begins_with_a_strangers_limit():
    """The first message may arrive before the door has seen the handshake."""
    assert app.MIDDLEWARE  # importing the entry is what does it

    async def made():
        config = Config(app.app, ws_max_size=200_000_000, lifespan="off", interface="asgi3")
        config.loaded, config.loaded_app = True, app.app
        protocol = WebSocketsSansIOProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(Mock(get_extra_info=lambda *_: None))
        return protocol.conn.max_message_size

    assert asyncio.run(made()) == STRANGER_BYTES


@pytest.mark.parametrize("signs_in", [False, True])
def test_a_strangers_socket_ends_after_its_time_and_a_persons_does_not(monkeypatch, signs_in):
    monkeypatch.setattr(limits, "STRANGER_SECONDS", 0.05)
    ended, set_limits = [], []

    async def end(code):
        ended.append(code)

    async def living():
        sockets = Sockets()
        socket = sockets.admit("9.9.9.9", is_signed_in=False)
        socket.open(end, set_limits.append)
        if signs_in:
            await asyncio.to_thread(sockets.mark, socket.id, is_signed_in=True)
        await asyncio.sleep(0.3)
        sockets.leave(socket)
        sockets.mark(socket.id, is_signed_in=not signs_in)

    asyncio.run(living())
    assert ended == ([] if signs_in else [1001])
    assert set_limits == [STRANGER_BYTES] + [SIGNED_IN_BYTES] * signs_in


@pytest.mark.parametrize(("heard_every", "lives"), [(0.02, 0.25), (0.1, 0.25)])
def test_whoever_is_just_signing_in_is_given_twice_the_time_and_no_more(monkeypatch, heard_every, lives):
    monkeypatch.setattr(limits, "STRANGER_SECONDS", 0.2)
    monkeypatch.setattr(limits, "BUSY_SECONDS", 0.15)
    ended = []

    async def living():
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def end(_code):
            ended.append(loop.time() - began)

        sockets = Sockets()
        socket = sockets.admit("9.9.9.9", is_signed_in=False)
        socket.open(end, lambda _size: None)
        while not ended and loop.time() - began < 20:
            socket.on_message()
            await asyncio.sleep(heard_every)
        sockets.leave(socket)

    asyncio.run(living())
    assert lives < ended[0]
    assert len(ended) == 1


def test_a_closed_socket_is_ended_no_more(monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_SECONDS", 0.05)
    ended = []

    async def end(code):
        ended.append(code)

    async def living():
        sockets = Sockets()
        socket = sockets.admit("9.9.9.9", is_signed_in=False)
        socket.open(end, lambda _size: None)
        sockets.leave(socket)
        await asyncio.sleep(0.2)

    asyncio.run(living())
    assert ended == []
