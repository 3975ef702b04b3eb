"""Cases out of public bug reports (`cases/*.json`): a server that holds what each describes, and what a pull must make.

`rows` are observations, `traces` the legacy API's trace records; `server` says how the server misbehaves. `expected`
names, per trace, the outcomes of which one must be met.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.langfuse.fake import JSON, Answer, FakeLangfuse, Request, observation

CASES = Path(__file__).parent / "cases"
CARD = CASES / "card.yaml"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))

ROW_KEYS = {"trace": "traceId", "start": "startTime", "end": "endTime", "parent": "parentObservationId"} | {
    "usage": "usageDetails",
    "cost": "costDetails",
    "md": "metadata",
    "user": "userId",
}
"""What a case calls the keys of a row; all others are Langfuse's own."""


def load(name: str) -> JSON:
    """A case by its file's name."""
    case: JSON = json.loads((CASES / f"{name}.json").read_text())
    return case


def serve(server: FakeLangfuse, case: Mapping[str, Any]) -> None:
    """Make the server hold the case's rows and misbehave as it says."""
    server.offers_v2, server.offers_legacy = case["mode"] == "v2", case["mode"] == "v3"
    server.version = "4.16.0" if server.offers_v2 else "3.225.4"
    server.rows = [_row(row, server.raw) for row in case["rows"]]
    server.traces = [_trace(trace, server.raw) for trace in case.get("traces", [])]
    misbehaves = case.get("server", {})
    if "lie" in misbehaves:
        lie = Answer(misbehaves["lie"], b"<html>plain text</html>", {"Content-Encoding": "gzip"})
        server.answer_times(1, lie)
    if "number_cursor" in misbehaves:
        _number_cursors(server, misbehaves["number_cursor"])


def _row(row: JSON, raw: dict[str, str]) -> JSON:
    values = {ROW_KEYS.get(key, key): _inert(value, raw) for key, value in row.items()}
    start = values.pop("startTime", "2026-10-10T10:00:00.000Z")
    end = values.pop("endTime", "2026-10-10T10:01:00.000Z")
    return observation(values.pop("id"), values.pop("traceId"), start, end, **values)


def _trace(trace: JSON, raw: dict[str, str]) -> JSON:
    names = {"ts": "timestamp", "md": "metadata", "cost": "totalCost", "user": "userId"}
    values = {names.get(key, key): _inert(value, raw) for key, value in trace.items()}
    return {"projectId": "p1", "name": None, "userId": None, "sessionId": None, "environment": "default"} | values


def _inert(value: Any, raw: dict[str, str]) -> Any:
    """The value with what Python will not write as JSON replaced by marks that the server writes out."""
    if isinstance(value, list):
        return [_inert(item, raw) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$deep"}:
        return _marked('{"x":' * value["$deep"] + "1" + "}" * value["$deep"], raw)
    if set(value) == {"$digits"}:
        return _marked("7" * value["$digits"], raw)
    return {key: _inert(item, raw) for key, item in value.items()}


def _marked(text: str, raw: dict[str, str]) -> str:
    mark = f"@{len(raw)}@"
    raw[mark] = text
    return mark


def _number_cursors(server: FakeLangfuse, rows: int) -> None:
    """Pages of `rows`, and the number of rows so far as the position of the next."""

    def script(request: Request) -> Answer | None:
        if request.path != "v2/observations":
            return None
        whole = dict(request.query)
        first = int(whole.pop("cursor", "0"))
        found = server.find(Request(request.method, request.path, whole, request.authorized))
        rest = len(found) - first - rows
        return Answer(body={"data": found[first : first + rows], "meta": {"cursor": first + rows} if rest > 0 else {}})

    server.scripts.append(script)


def unmet(case: JSON, events: Iterable[JSON], named: Iterable[str]) -> list[str]:
    """What of the case's expectations a pull did not meet; `named` are the texts of what it rejected."""
    booked = {event["id"]: event for event in events}
    texts = list(named)
    faults: list[str] = []
    for trace, outcomes in case["expected"].items():
        event, is_named = booked.get(trace), any(re.search(rf"\b{re.escape(trace)}\b", text) for text in texts)
        if not any(_is_met(outcome, event, is_named) for outcome in outcomes):
            faults.append(f"{trace}: none of {outcomes}; booked {event}, rejected {texts}")
    return faults


def _is_met(outcome: JSON, event: JSON | None, is_named: bool) -> bool:
    return all(_holds(key, value, event, is_named) for key, value in outcome.items())


def _holds(key: str, value: Any, event: JSON | None, is_named: bool) -> bool:
    if key == "named":
        return is_named
    if key == "absent":
        return event is None
    if event is None:
        return False
    if key == "flag":
        return value in event["flags"]
    if key in {"flagged", "unflagged"}:
        return bool(event["flags"]) is (key == "flagged")
    found: Any = event
    for part in key.split("."):
        found = found[part]
    return bool(found == value)
