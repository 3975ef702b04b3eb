from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME
from billing_core.web.upload_guard import UploadGuard
from tests.web.client import Client

PATH = "/_stcore/upload_file/session/file"


@pytest.fixture
def received(demo):
    return []


@pytest.fixture
def client(received):
    async def take(request):
        received.append(await request.body())
        return Response(status_code=204)

    routes = [Route("/{path:path}", take, methods=["PUT", "DELETE", "OPTIONS"])]
    return Client(Starlette(routes=routes, middleware=[Middleware(UploadGuard)]))


def cookie_of(name: str) -> dict[str, str]:
    gatekeeper = wiring.gatekeeper()
    session_id = gatekeeper.sign_in(name, "any", "127.0.0.1", lambda *_: True)
    return {"Cookie": f"{COOKIE_NAME}={gatekeeper.cookie_for(gatekeeper.ticket(session_id))}"}


@pytest.mark.parametrize("name", ["admin", "finance"])
def test_the_file_of_somebody_who_is_offered_an_upload_gets_through(client, received, name):
    assert client.request("PUT", PATH, content=b"rows", headers=cookie_of(name)).status_code == 204
    assert received == [b"rows"]


@pytest.mark.parametrize("path", [PATH, "/base" + PATH, "/_stcore//upload_file/session/file"])
@pytest.mark.parametrize("name", [None, "analyst", "analyst-acme"])
def test_nobody_elses_file_is_read(client, received, name, path):
    headers = cookie_of(name) if name else {"Cookie": f"{COOKIE_NAME}=forged"}
    assert client.request("PUT", path, content=b"rows", headers=headers).status_code == 403
    assert client.request("DELETE", path, headers=headers).status_code == 403
    assert received == []


def test_a_file_is_refused_while_the_sign_in_file_cannot_be_read(client, received, monkeypatch):
    headers = cookie_of("admin")
    monkeypatch.setenv("BILLING_TIMEZONE", "Nowhere/Land")
    wiring.close()
    assert client.request("PUT", PATH, content=b"rows", headers=headers).status_code == 403
    assert received == []


def test_other_requests_are_left_alone(client):
    for method, path in (("OPTIONS", PATH), ("PUT", "/elsewhere")):
        assert client.request(method, path).status_code == 204
