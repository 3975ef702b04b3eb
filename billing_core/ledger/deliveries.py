"""The log of deliveries: which notice or alert was tried to be sent to which address, when, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from billing_core.ledger.engine import Engine, Writer


class DeliveryOutcome(StrEnum):
    """How one try to deliver a notice or alert ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"
    COVERED = "covered"
    """Not sent: another message of the same check says it."""


FINAL = tuple(outcome.value for outcome in DeliveryOutcome if outcome is not DeliveryOutcome.FAILED)
"""Outcomes after which an address is not tried again."""


@dataclass(frozen=True, slots=True)
class DeliveryTry:
    """One try in the delivery log. `status` is the receiver's HTTP status, `error` what was wrong.

    `number` counts the tries from 1; 0 stands for a decision without one. `address` is the key of an address of
    BILLING_NOTIFY_URLS; `None`: the signed webhook.
    """

    notice_id: str
    number: int
    at: datetime
    outcome: DeliveryOutcome
    status: int | None = None
    error: str | None = None
    address: str | None = None


class DeliveryLog:
    """The table `webhook_attempts`, over an `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tries(self, ids: Iterable[str]) -> dict[str, list[DeliveryTry]]:
        """The tries of some notices and alerts, to whichever address, oldest first."""
        query = """SELECT notice_id, attempt, attempted_at, outcome, status, error, address FROM webhook_attempts
                   WHERE notice_id IN (SELECT unnest(?)) ORDER BY attempted_at, attempt"""
        found: dict[str, list[DeliveryTry]] = {}
        for notice_id, number, at, outcome, *rest in self._engine.rows(query, [[*ids]]):
            one = DeliveryTry(notice_id, number, at.replace(tzinfo=UTC), DeliveryOutcome(outcome), *rest)
            found.setdefault(notice_id, []).append(one)
        return found

    def record(self, one: DeliveryTry) -> None:
        """Append a try to the delivery log."""
        with self._engine.transaction() as writer:
            insert_try(writer, one)


def insert_try(writer: Writer, one: DeliveryTry) -> None:
    """Append a try inside a transaction."""
    writer.insert(
        "webhook_attempts",
        {
            "notice_id": one.notice_id,
            "attempt": one.number,
            "attempted_at": one.at,
            "outcome": one.outcome.value,
            "status": one.status,
            "error": one.error,
            "address": one.address,
        },
    )
