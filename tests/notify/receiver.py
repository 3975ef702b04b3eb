"""A webhook receiver on a free port that answers as it is told, and checks signatures on its own.

The check follows the text of the Standard Webhooks specification and shares no code with the sender.
"""

from __future__ import annotations

import base64
import hmac
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """`answers`: status codes for the next calls, `"hang"` for one that never answers; then 204 for ever."""

    secret: bytes
    answers: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    url: str = ""

    def __enter__(self):
        self.let_go = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body, self.path))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                if answer == "hang":
                    receiver.let_go.wait(30)
                    return
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=in-the-address"
        return self

    def __exit__(self, *_):
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def verified(self):
        """The documents received, each after its signature was checked."""
        return [json.loads(verify(self.secret, headers, body)) for headers, body, _ in self.calls]

    def ids(self):
        return [headers["webhook-id"] for headers, _, _ in self.calls]


def verify(secret, headers, body):
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.digest(secret, signed, "sha256"))
    versions = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    assert any(version == "v1" and hmac.compare_digest(given.encode(), expected) for version, given in versions)
    return body
