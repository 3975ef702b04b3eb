"""Writes limits and notices as CSV: exact figures, unknown is empty, no cell that a spreadsheet would run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from billing_core.ledger.notices import Notice, Reached
from billing_core.notify.state import Delivery
from billing_core.organizations.limits import Limit, percent_of
from billing_core.values.csv_cells import csv_line

LIMIT_COLUMNS = (
    "organization_id",
    "organization_name",
    "customer_id",
    "plan",
    "state",
    "credits_included",
    "credits_used",
    "own_credits_used",
    "percent_used",
    "credits_pace",
    "period_start",
    "period_end",
    "shared_with",
)

NOTICE_COLUMNS = (
    "organization_id",
    "organization_name",
    "customer_id",
    "plan",
    "threshold",
    "percent_used",
    "credits_included",
    "credits_used",
    "period_start",
    "period_end",
    "raised_at",
    "webhook",
    "webhook_tries",
    "seen_at",
    "seen_by",
)


def limits_csv(rows: Iterable[Limit], names: Mapping[str, str], now: datetime) -> Iterator[bytes]:
    """Limits as CSV, a record per organization and customer."""
    yield csv_line(LIMIT_COLUMNS).encode()
    yield "".join(csv_line(_limit(row, names, now)) for row in rows).encode()


def _limit(row: Limit, names: Mapping[str, str], now: datetime) -> list[Any]:
    return [
        row.organization_id,
        names.get(row.organization_id or ""),
        row.customer_id,
        row.plan,
        row.state,
        row.included,
        row.used,
        row.own_used,
        row.percent_used,
        row.pace(now),
        row.period_start,
        row.period_end,
        list(row.shared_with),
    ]


def notices_csv(notices: Iterable[tuple[Reached, Delivery | None]], names: Mapping[str, str]) -> Iterator[bytes]:
    """Notices as CSV; readers of some organizations do not get what people and the webhook did about them."""
    yield csv_line(NOTICE_COLUMNS).encode()
    yield "".join(csv_line(_notice(one, delivery, names)) for one, delivery in notices).encode()


def _notice(one: Reached, delivery: Delivery | None, names: Mapping[str, str]) -> list[Any]:
    raised_at, seen_at, seen_by = (
        (one.raised_at, one.seen_at, one.seen_by) if isinstance(one, Notice) else (None, None, None)
    )
    webhook = (None, None) if delivery is None else (delivery.state.value, delivery.tries)
    return [
        one.organization_id,
        names.get(one.organization_id or ""),
        one.customer_id,
        one.plan,
        one.threshold,
        percent_of(one.used, one.included),
        one.included,
        one.used,
        one.period_start,
        one.period_end,
        raised_at,
        *webhook,
        seen_at,
        seen_by,
    ]
