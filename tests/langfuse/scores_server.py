"""A scripted `POST /scores` on real HTTP: by default an older Langfuse, which wants single objects."""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIST_REFUSED = {
    "message": "Invalid request data",
    "error": [{"code": "invalid_type", "path": [], "message": "Expected object, received array"}],
}

Answer = tuple[int, Any]


class ScoresServer:
    """Remembers every body in `bodies`; answers from `script` first, then refuses `refused` traces and all lists."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.script: deque[Answer] = deque()
        self.refused: set[str] = set()
        self.headers: dict[str, str] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                status, answer = server.script.popleft() if server.script else server.older(body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**server.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def older(self, body: Any) -> Answer:
        if isinstance(body, list):
            return 400, LIST_REFUSED
        if body["traceId"] in self.refused:
            return 400, {"message": "Invalid request data", "error": [{"message": f"{body['traceId']} is odd"}]}
        return 200, {"id": body["id"]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
