"""Notices of reached usage limits, each unique, ensured in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing_core.ledger.deliveries import FINAL, DeliveryOutcome, DeliveryTry, insert_try
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.journal import append_audit
from billing_core.types import plain_decimal, utc_text

_COLUMNS = (
    "organization_id, customer_id, plan, threshold, period_start, period_end, included, used, raised_at, seen_at, "
    "seen_by"
)


@dataclass(frozen=True, slots=True)
class Reached:
    """A threshold (percent of the credits included) that a customer has reached in a period. Times are aware UTC.

    `organization_id` is the one with the largest part of the use, `used` what was used at that look.
    """

    organization_id: str | None
    customer_id: str
    plan: str | None
    threshold: int
    period_start: datetime
    period_end: datetime
    included: int
    used: Decimal

    @property
    def id(self) -> str:
        """Id of the notice, computed from customer, period, credits included and threshold: every check and copy of the
        ledger finds the same. A change of plan inside a period is another limit.
        """
        parts = [self.customer_id, utc_text(self.period_start), self.included, self.threshold]
        return f"limit_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Notice(Reached):
    """A notice that a customer reached a usage limit, and who has seen it."""

    raised_at: datetime
    seen_at: datetime | None = None
    seen_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has marked the notice as seen."""
        return self.seen_at is None


class NoticeStore:
    """The notices in the ledger, over an `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def raise_new(self, found: Sequence[Reached], *, actor: str, now: datetime) -> list[Reached]:
        """Store reached thresholds that have no notice yet, with an audit entry each; returns them.

        Of several for one customer and limit only the highest threshold waits for the webhook. Two processes that
        look at the same moment raise a notice once: transactions take turns.
        """
        if not found or not _missing(self._engine, found):
            return []
        with self._engine.transaction() as writer:
            fresh = _missing(writer, found)
            highest: dict[tuple[str, datetime, int], int] = {}
            for one in fresh:
                limit = (one.customer_id, one.period_start, one.included)
                highest[limit] = max(one.threshold, highest.get(limit, 0))
            for one in fresh:
                writer.insert("limit_notices", _row(one, now))
                append_audit(writer, actor, "limit_notice", _circumstances(one))
                top = highest[one.customer_id, one.period_start, one.included]
                if one.threshold < top:
                    text = f"covered by the notice of {top} %"
                    insert_try(writer, DeliveryTry(one.id, 0, now, DeliveryOutcome.COVERED, error=text))
        return fresh

    def mark_seen(self, ids: Sequence[str], *, actor: str, now: datetime) -> int:
        """Mark notices as seen that nobody has marked yet; returns how many. One audit entry for all of them."""
        query = "SELECT id FROM limit_notices WHERE id IN (SELECT unnest(?)) AND seen_at IS NULL ORDER BY id"
        with self._engine.transaction() as writer:
            still_open = [row[0] for row in writer.rows(query, [list(ids)])]
            for id_ in still_open:
                writer.update("limit_notices", {"id": id_, "seen_at": now, "seen_by": actor}, key="id")
            if still_open:
                append_audit(writer, actor, "limit_notices_seen", {"notices": len(still_open), "ids": still_open})
        return len(still_open)

    def open(self) -> list[Notice]:
        """Notices that nobody has marked as seen: newest period first, then highest threshold."""
        return self._read("seen_at IS NULL", ())

    def seen(self, limit: int | None = None) -> list[Notice]:
        """Notices marked as seen, newest period first; the first `limit` of them."""
        return self._read("seen_at IS NOT NULL", (), limit=limit)

    def undelivered(self, address: str | None = None) -> list[Notice]:
        """Notices still to be delivered to an address: never tried, or every try failed."""
        done = "address IS NOT DISTINCT FROM ? AND outcome IN (SELECT unnest(?)) OR outcome = ?"
        query = f"id NOT IN (SELECT notice_id FROM webhook_attempts WHERE {done})"
        return self._read(query, (address, list(FINAL), DeliveryOutcome.COVERED.value))

    def _read(self, condition: str, values: Sequence[Any], *, limit: int | None = None) -> list[Notice]:
        query = (
            f"SELECT {_COLUMNS} FROM limit_notices WHERE {condition} "
            f"ORDER BY period_start DESC, customer_id, threshold DESC, id{'' if limit is None else f' LIMIT {limit}'}"
        )
        return [_notice(row) for row in self._engine.rows(query, values)]


def _missing(source: Engine | Writer, found: Sequence[Reached]) -> list[Reached]:
    query = "SELECT id FROM limit_notices WHERE id IN (SELECT unnest(?))"
    known = {row[0] for row in source.rows(query, [[one.id for one in found]])}
    return [one for one in found if one.id not in known]


def _row(one: Reached, now: datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "organization_id": one.organization_id,
        "customer_id": one.customer_id,
        "plan": one.plan,
        "threshold": one.threshold,
        "period_start": one.period_start,
        "period_end": one.period_end,
        "included": one.included,
        "used": one.used,
        "raised_at": now,
    }


def _circumstances(one: Reached) -> dict[str, Any]:
    return {
        "notice": one.id,
        "organization": one.organization_id,
        "customer": one.customer_id,
        "plan": one.plan,
        "threshold": one.threshold,
        "used": plain_decimal(one.used),
        "included": one.included,
        "period_start": utc_text(one.period_start),
        "period_end": utc_text(one.period_end),
    }


def _notice(row: tuple[Any, ...]) -> Notice:
    (organization, customer, plan, threshold, start, end, included, used, raised_at, seen_at, seen_by) = row
    return Notice(
        organization,
        customer,
        plan,
        threshold,
        start.replace(tzinfo=UTC),
        end.replace(tzinfo=UTC),
        included,
        used,
        raised_at.replace(tzinfo=UTC),
        seen_at and seen_at.replace(tzinfo=UTC),
        seen_by,
    )
