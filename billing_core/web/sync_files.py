"""CSV of the Stripe Sync page: stuck usage by cause, and the rows of the last reconciliation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from billing_core.types import plain_decimal

if TYPE_CHECKING:  # the sign-in form must not wait for the engine they bring
    from billing_core.reconcile.report import CustomerDay, Reconciliation
    from billing_core.stripe_sync.pipeline import Problem

PROBLEM_COLUMNS = ("cause", "title", "what_to_do", "example", "events", "customers", "credits", "amount_usd", "actions")

ROW_COLUMNS = (
    "customer_id",
    "day_utc",
    "langfuse_credits",
    "ledger_credits",
    "sent_credits",
    "stripe_credits",
    "unexplained_credits",
    "causes",
    "causes_credits",
    "event_ids",
    "meter_events",
)
"""`causes`, `causes_credits`, `event_ids` and `meter_events` are JSON lists, one entry per cause in the same order."""

CONTRADICTION = "contradiction"


def problems_lines(problems: Sequence[Problem]) -> Iterable[str]:
    """The CSV of stuck usage, line by line; exact numbers, and no cell that a spreadsheet would run."""
    yield _line(PROBLEM_COLUMNS)
    for one in problems:
        yield _line(
            (
                one.cause,
                one.title,
                one.what_to_do,
                one.example,
                one.amounts.events,
                one.customers,
                one.amounts.credits,
                one.amounts.amount_usd,
                [str(action) for action in one.actions],
            )
        )


def reconciliation_lines(found: Reconciliation) -> Iterable[str]:
    """The CSV of a reconciliation, line by line; credits that are unknown are an empty cell, never 0."""
    yield _line(ROW_COLUMNS)
    for row in found.rows:
        yield _line(_cells(row))


def _cells(row: CustomerDay) -> tuple[Any, ...]:
    return (
        row.customer_id,
        row.day.isoformat(),
        row.langfuse_credits,
        row.ledger_credits,
        row.sent_credits,
        row.stripe_credits,
        row.unexplained_credits,
        [part.cause or CONTRADICTION for part in row.parts],
        [plain_decimal(part.credits) for part in row.parts],
        [list(part.event_ids) for part in row.parts],
        [list(part.meter_events) for part in row.parts],
    )


def _line(values: Iterable[Any]) -> str:
    from billing_core.values.csv_cells import csv_line  # brings Arrow

    return csv_line(values)
