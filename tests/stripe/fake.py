"""A scripted Stripe: every request is recorded, every answer is what the test says, real HTTP in between."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from billing_core.settings import load_settings
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.provider import StripeProvider

KEY = "rk_test_do_not_show_me"

QUICK = RetryLimits(
    connect_seconds=2.0,
    answer_seconds=10.0,
    first_backoff_seconds=0.002,
    longest_backoff_seconds=0.01,
    limited_send_seconds=0.5,
    limited_read_seconds=0.3,
)
"""The same rules in milliseconds; only answers may take long, on a machine that is busy."""

HASTY = replace(QUICK, answer_seconds=0.5)
"""For a Stripe that hangs."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, Any]
    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any]

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


@dataclass(frozen=True)
class Reply:
    """An answer; `hang` waits for the test's end before it, `reset` cuts the connection instead."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False


def patience_with(reply: Reply) -> RetryLimits:
    """Nobody needs to wait long for an answer that will not come."""
    return HASTY if reply.hang else QUICK


def error(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **details: str) -> Reply:
    kind = details.pop("type", "invalid_request_error")
    return Reply(status, {"error": {"type": kind, "message": message, **details}}, headers or {})


def html(status: int = 200, **headers: str) -> Reply:
    return Reply(status, b"<html><body>Sorry</body></html>", {"Content-Type": "text/html", **headers})


def page(*rows: dict[str, Any], has_more: bool = False) -> Reply:
    return Reply(body={"object": "list", "data": list(rows), "has_more": has_more, "url": "/v1/x"})


def unflatten(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`payload[value]=5`, `types[0]=a` as nested objects and lists."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        keys = name.replace("]", "").split("[")
        inner = result
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
    return {key: _listed(value) for key, value in result.items()}


def _listed(value: Any) -> Any:
    is_list = isinstance(value, dict) and all(key.isdecimal() for key in value)
    return [value[key] for key in sorted(value, key=int)] if is_list else value


class FakeStripe:
    """`answer` is asked for every request, from several threads at once."""

    def __init__(self, answer: Callable[[Asked], Reply], base: str = "") -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self.base = base

    def keys(self) -> list[str | None]:
        return [asked.key for asked in self.asked]

    def provider(self, patience: RetryLimits = QUICK, key: str = KEY, **environment: str) -> StripeProvider:
        given = {"BILLING_MODE": "live", "STRIPE_API_KEY": key, "STRIPE_API_BASE": self.base, **environment}
        return StripeProvider.from_settings(load_settings(given, env_file=None), patience)


@contextlib.contextmanager
def stripe_that(answer: Callable[[Asked], Reply]) -> Iterator[FakeStripe]:
    fake = FakeStripe(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise every answer waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            is_json = (self.headers.get("Content-Type") or "").startswith("application/json")
            body = json.loads(raw or b"{}") if is_json else unflatten(parse_qsl(raw.decode(), keep_blank_values=True))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, unflatten(parse_qsl(parts.query)), headers, raw, body)
            fake.asked.append(asked)
            self._send(fake.answer(asked))

        def _send(self, reply: Reply) -> None:
            if reply.hang:
                fake.ended.wait(5)
            if reply.hang or reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", "Request-Id": "req_1", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    fake.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def nobody_listening() -> Iterator[str]:
    """A base URL whose port is taken and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def receipt(asked: Asked) -> Reply:
    """What Stripe answers to a meter event it takes."""
    return Reply(body={"object": "billing.meter_event", "livemode": False, "created": 1_790_000_000, **asked.body})


def duplicate(asked: Asked) -> Reply:
    """v1 names no code for it, only a message."""
    text = f"An event already exists with identifier {asked.body['identifier']}."
    return error(400, text, headers={"Stripe-Should-Retry": "false"})
