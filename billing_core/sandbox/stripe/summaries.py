"""Meter event summaries: what one customer used in aligned windows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import reduce
from typing import Any

import msgspec

from billing_core.sandbox.stripe.book import EXACT, ReceivedEvents
from billing_core.sandbox.stripe.events import ReceivedEvent
from billing_core.sandbox.stripe.wire import decimal_text, invalid

MINUTE, HOUR, DAY = 60, 3600, 86_400
WINDOWS = {"hour": HOUR, "day": DAY}
BOUNDARIES = {None: (MINUTE, "minute"), "hour": (HOUR, "hour"), "day": (DAY, "UTC day")}


def summaries(
    book: ReceivedEvents,
    meter: Mapping[str, Any],
    customer: str,
    start: int,
    end: int,
    grouping: str | None,
    as_of: int,
) -> list[dict[str, Any]]:
    """Rows for `[start, end)` (Unix seconds), newest first; windows without events are left out.

    Raises Refusal: 400 for an unknown grouping, or times that are not on its boundaries.
    """
    _check_alignment(start, end, grouping)
    windows: dict[tuple[int, int], list[ReceivedEvent]] = defaultdict(list)
    for event in book.counted(meter["event_name"], customer, start, end, as_of):
        size = WINDOWS.get(grouping or "")
        first = start if size is None else event.timestamp - event.timestamp % size
        windows[(first, end if size is None else first + size)].append(event)
    return [_row(meter, customer, window, windows[window]) for window in sorted(windows, reverse=True)]


def _check_alignment(start: int, end: int, grouping: str | None) -> None:
    if grouping not in BOUNDARIES:
        message = f"Invalid value_grouping_window: must be one of day or hour, not '{grouping}'."
        raise invalid(message, "value_grouping_window")
    size, name = BOUNDARIES[grouping]
    for value, param in ((start, "start_time"), (end, "end_time")):
        if value % size:
            raise invalid(f"Invalid {param}: must be aligned with {name} boundaries.", param)
    if end <= start:
        raise invalid("Invalid end_time: must be after start_time.", "end_time")


def _row(
    meter: Mapping[str, Any], customer: str, window: tuple[int, int], events: Iterable[ReceivedEvent]
) -> dict[str, Any]:
    name = f"{meter['id']}/{customer}/{window[0]}/{window[1]}"
    text = decimal_text(aggregate(events, meter))
    return {
        "id": f"mtrusg_test_{hashlib.sha256(name.encode()).hexdigest()[:24]}",
        "object": "billing.meter_event_summary",
        "aggregated_value": msgspec.Raw((text if "." in text else f"{text}.0").encode()),
        "end_time": window[1],
        "livemode": meter["livemode"],
        "meter": meter["id"],
        "start_time": window[0],
    }


def aggregate(events: Iterable[ReceivedEvent], meter: Mapping[str, Any]) -> Decimal:
    """By the meter's formula. With an `event_time_window` the last received event of a window replaces the others."""
    chosen = list(events)
    if (size := WINDOWS.get(meter["event_time_window"] or "")) is not None:
        latest: dict[int, ReceivedEvent] = {}
        for event in sorted(chosen, key=lambda event: event.received):
            latest[event.timestamp // size] = event
        chosen = list(latest.values())
    match meter["default_aggregation"]["formula"]:
        case "count":
            return Decimal(len(chosen))
        case "last":
            last = max(chosen, key=lambda event: (event.timestamp, event.received), default=None)
            return Decimal(0) if last is None or last.amount is None else last.amount
        case _:
            return reduce(EXACT.add, (event.amount for event in chosen if event.amount is not None), Decimal(0))
