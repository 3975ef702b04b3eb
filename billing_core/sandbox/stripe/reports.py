"""Error reports: the events by which Stripe takes back what it had accepted.

Rejections of ten seconds and one meter go into one report. A report never changes once somebody could have read it,
because readers remember which ones they have seen.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from billing_core.sandbox.langfuse.wire import iso
from billing_core.sandbox.stripe.events import ASYNC_MESSAGES, ReceivedEvent
from billing_core.sandbox.stripe.switches import Switches

REPORT_TRIGGERED = "v1.billing.meter.error_report_triggered"
NO_METER_FOUND = "v1.billing.meter.no_meter_found"

WINDOW_MILLISECONDS = 10_000


class Rejection(msgspec.Struct, frozen=True):
    """One event in a report."""

    event_name: str
    identifier: str
    code: str
    message: str
    idempotency_key: str | None = None


class Report(msgspec.Struct, frozen=True):
    """A report as it went out; times in milliseconds since 1970."""

    id: str
    type: str
    created: int
    start: int
    end: int
    meter_id: str | None
    rejections: list[Rejection]


def group(due: Iterable[ReceivedEvent], meter_ids: dict[str, str]) -> list[Report]:
    """Reports about rejected events whose time has come, oldest first; `meter_ids` is by event name."""
    groups: dict[tuple[int, str, str | None], list[ReceivedEvent]] = defaultdict(list)
    for event in due:
        assert event.due is not None  # noqa: S101 - due
        meter_id = None if event.code == "no_meter" else meter_ids.get(event.event_name)
        kind = REPORT_TRIGGERED if meter_id is not None else NO_METER_FOUND
        groups[(event.due // WINDOW_MILLISECONDS, kind, meter_id)].append(event)
    reports = []
    for (window, kind, meter_id), events in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1])):
        start = window * WINDOW_MILLISECONDS
        name = f"{kind}/{start}/{events[0].received}/{events[0].identifier}"
        reports.append(
            Report(
                id=f"evt_test_{hashlib.sha256(name.encode()).hexdigest()[:32]}",
                type=kind,
                created=max(event.due or 0 for event in events),
                start=start,
                end=start + WINDOW_MILLISECONDS,
                meter_id=meter_id,
                rejections=[_rejection(event) for event in events],
            )
        )
    return reports


def _rejection(event: ReceivedEvent) -> Rejection:
    code = event.code or ""
    message = event.message or ASYNC_MESSAGES.get(code, f"The event was rejected: {code}.")
    return Rejection(event.event_name, event.identifier, code, message, event.idempotency_key)


def shown(report: Report, switches: Switches) -> dict[str, Any]:
    """The event as `/v2/core/events` answers it, data included."""
    by_code: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in report.rejections:
        by_code[rejection.code].append(rejection)
    count = len(report.rejections)
    summary = f"There {'is 1 invalid event' if count == 1 else f'are {count} invalid events'}"
    event: dict[str, Any] = {
        "id": report.id,
        "object": "v2.core.event",
        "type": report.type,
        "created": iso(report.created),
        "livemode": False,
        "context": None,
        "reason": None,
        "changes": None,
        "snapshot_event": None,
        "data": {
            "developer_message_summary": summary,
            "validation_start": iso(report.start),
            "validation_end": iso(report.end),
            "reason": {
                "error_count": count,
                "error_types": [
                    {
                        "code": code,
                        "error_count": len(rejections),
                        "sample_errors": [_sample(one, switches) for one in rejections[: switches.error_sample_cap]],
                    }
                    for code, rejections in by_code.items()
                ],
            },
        },
    }
    if report.meter_id is not None:
        url = f"/v1/billing/meters/{report.meter_id}"
        event["related_object"] = {"id": report.meter_id, "type": "billing.meter", "url": url}
    return event


def _sample(rejection: Rejection, switches: Switches) -> dict[str, Any]:
    key = rejection.idempotency_key or rejection.identifier
    if switches.old_error_shape:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return {"error_message": rejection.message, "request": {"id": f"req_{digest[:14]}", "idempotency_key": key}}
    named = key if switches.report_idempotency_key else rejection.identifier
    return {"error_message": rejection.message, "request": {"identifier": named}}
