"""A tiny scripted Langfuse on real HTTP: rows in memory, faults by script, every request remembered."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PUBLIC_KEY, SECRET_KEY = "pk-lf-test", "sk-lf-test-secret"

JSON = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str  # without /api/public/
    query: dict[str, str]
    authorized: bool

    @property
    def ids(self) -> list[str]:
        """The trace ids of an `any of` filter."""
        return next((c["value"] for c in json.loads(self.query.get("filter", "[]")) if c["column"] == "traceId"), [])

    @property
    def is_astray(self) -> bool:
        """Whether it looks for rows dated when nothing can have been used."""
        return self.query.get("fromStartTime") == "1970-01-01T00:00:00.000Z" or self.query.get(
            "toStartTime", ""
        ).startswith("2200")

    @property
    def hours(self) -> float:
        """Length of the window asked for."""
        return (moment(self.query["toStartTime"]) - moment(self.query["fromStartTime"])).total_seconds() / 3600


@dataclass(frozen=True)
class Answer:
    """What the server says; `cut` breaks the connection in the middle of the body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


Script = Callable[[Request], Answer | None]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def observation(identity: str, trace: str, start: str, end: str | None = None, **more: Any) -> JSON:
    """A v2 row with the billing field groups, as quiet as the server would send it."""
    row: JSON = {
        "id": identity,
        "traceId": trace,
        "startTime": start,
        "endTime": end,
        "projectId": "p1",
        "parentObservationId": None,
        "type": "SPAN",
        "isRootObservation": more.get("parentObservationId") is None,
        "name": "",
        "level": "DEFAULT",
        "environment": "default",
        "userId": "",
        "sessionId": "",
        "createdAt": start,
        "updatedAt": start,
        "model": "",
        "metadata": {},
        "usageDetails": {},
        "costDetails": {},
        "totalCost": None,
        "latency": 123456,
        "traceName": None,
    }
    return row | more


class FakeLangfuse:
    """Serves `rows` (v2) and, if `legacy`, `traces` and `rows` in the old shape.

    A script sees each request first and may answer in the server's place; `once` and `times` build such scripts.
    """

    def __init__(self) -> None:
        self.rows: list[JSON] = []
        self.traces: list[JSON] = []
        self.offers_v2 = True
        self.offers_legacy = False
        self.version = "4.16.0"
        self.project: JSON = {"id": "p1", "name": "Shop", "organization": {"id": "o1", "name": "O"}, "metadata": {}}
        self.scripts: list[Script] = []
        self.requests: list[Request] = []
        self.page_limit = 1000
        self.raw: dict[str, str] = {}  # texts in rows → the JSON that is sent in their place
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake._serve(self)

            def do_POST(self) -> None:
                fake._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- scripts -----------------------------------------------------------------------------------------------

    def answer_times(self, times: int, answer: Answer, path: str = "v2/observations") -> None:
        """The next `times` requests to `path` get `answer`."""
        left = [times]

        def script(request: Request) -> Answer | None:
            if request.path == path and left[0] > 0:
                left[0] -= 1
                return answer
            return None

        self.scripts.append(script)

    def answer_when(self, condition: Callable[[Request], bool], answer: Answer) -> None:
        """Every request that meets `condition` gets `answer`."""
        self.scripts.append(lambda request: answer if condition(request) else None)

    def asked(self, path: str = "v2/observations") -> list[Request]:
        """The requests to one path, in order of arrival, without detection's probe and the looks for astray rows."""
        return [r for r in self.requests if r.path == path and r.query.get("limit") != "1" and not r.is_astray]

    # -- serving -----------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        token = base64.b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()
        authorized = handler.headers.get("Authorization") == f"Basic {token}"
        path = unquote(parts.path.removeprefix("/api/public/"))
        request = Request(handler.command, path, query, authorized)
        with self._lock:
            self.requests.append(request)
            answer = next((a for script in self.scripts if (a := script(request)) is not None), None)
            answer = answer or self._route(request)
        body = answer.body if isinstance(answer.body, bytes) else self._text(answer.body).encode()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if answer.cut else body)
        handler.close_connection = answer.cut

    def _text(self, body: Any) -> str:
        text = json.dumps(body)
        for mark, raw in self.raw.items():
            text = text.replace(f'"{mark}"', raw)
        return text

    def _route(self, request: Request) -> Answer:
        if request.path == "health":
            return Answer(body={"status": "OK", "version": self.version})
        if not request.authorized:
            return Answer(401, {"message": f"Invalid credentials {SECRET_KEY}"})
        if request.path == "projects":
            return Answer(body={"data": [self.project]})
        if request.path == "v2/observations" and self.offers_v2:
            return self._v2(request)
        if self.offers_legacy and request.path in {"traces", "observations"}:
            return self._legacy_page(request)
        if self.offers_legacy and request.path.startswith("traces/"):
            return self._whole_trace(request.path.removeprefix("traces/"))
        return Answer(404, {"message": "not here"})

    def find(self, request: Request) -> list[JSON]:
        """The rows a question is about, newest first."""
        query = request.query
        found = [
            row
            for row in self.rows
            if query["fromStartTime"] <= iso(moment(row["startTime"])) < query["toStartTime"]
            and all(_meets(row, condition) for condition in json.loads(query.get("filter", "[]")))
        ]
        found.sort(key=lambda row: (row["startTime"], row["traceId"], row["id"]), reverse=True)
        return found

    def _v2(self, request: Request) -> Answer:
        query = request.query
        found = self.find(request)
        if "cursor" in query:
            position = tuple(json.loads(base64.b64decode(query["cursor"])))
            found = [row for row in found if (row["startTime"], row["traceId"], row["id"]) < position]
        limit = min(int(query["limit"]), self.page_limit)
        page, meta = found[:limit], {}
        if len(found) > limit:
            last = page[-1]
            position = [last["startTime"], last["traceId"], last["id"]]
            meta = {"cursor": base64.b64encode(json.dumps(position).encode()).decode()}
        if not query.get("expandMetadata"):
            page = [row | {"metadata": _shortened(row["metadata"])} for row in page]
        return Answer(body={"data": page, "meta": meta})

    def _legacy_page(self, request: Request) -> Answer:
        query = request.query
        if request.path == "traces":
            found = [t for t in self.traces if _between(t["timestamp"], query, "fromTimestamp", "toTimestamp")]
            found.sort(key=lambda trace: trace["timestamp"])
        else:
            found = [r for r in self.rows if _between(r["startTime"], query, "fromStartTime", "toStartTime")]
            conditions = json.loads(query.get("filter", "[]"))
            found = [r for r in found if all(_meets(r, condition) for condition in conditions)]
            if "traceId" in query:
                found = [r for r in found if r["traceId"] == query["traceId"]]
            found.sort(key=lambda row: row["startTime"], reverse=True)
        page, limit = int(query.get("page", "1")), int(query["limit"])
        pages = -(-len(found) // limit)
        meta = {"page": page, "limit": limit, "totalItems": len(found), "totalPages": pages}
        return Answer(body={"data": found[(page - 1) * limit : page * limit], "meta": meta})

    def _whole_trace(self, trace_id: str) -> Answer:
        trace = next((t for t in self.traces if t["id"] == trace_id), None)
        if trace is None:
            return Answer(404, {"message": "Trace not found", "error": "LangfuseNotFoundError"})
        return Answer(body=trace | {"observations": [r for r in self.rows if r["traceId"] == trace_id]})


def _meets(row: JSON, condition: JSON) -> bool:
    if condition["column"] == "traceId":
        return row["traceId"] in condition["value"]
    assert condition["column"] == "endTime"
    return row["endTime"] is not None and row["endTime"] >= condition["value"]


def _between(time: str, query: dict[str, str], start: str, end: str) -> bool:
    return query.get(start, "") <= time < query.get(end, "9999")


def _shortened(metadata: Any) -> Any:
    """The default API's cut at 200 characters; what was an object becomes a piece of its text."""
    if not isinstance(metadata, dict):
        return metadata
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    return {k: texts[k][:200] if len(texts[k]) > 200 else v for k, v in metadata.items()}
