"""Routes: downloads of the Stripe Sync page: stuck usage by cause, and the rows of the last reconciliation, as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from billing_core.access import Principal
from billing_core.errors import NotFound
from billing_core.types import plain_decimal
from billing_core.web import wiring
from billing_core.web.usage_api import csv_download

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


async def problems_csv(request: Request) -> Response:
    """Route: stuck usage as CSV, every cause with its events, credits and US dollars, for a person who may see
    everything.
    """

    def lines(principal: Principal) -> Iterable[str]:
        return problems_lines(wiring.service().stripe.problems(principal))

    return await csv_download(request, "sync-problems.csv", lines)


async def reconciliation_csv(request: Request) -> Response:
    """Route: the newest reconciliation as CSV, row by row with its causes."""

    def lines(principal: Principal) -> Iterable[str]:
        found = wiring.service().stripe.last_reconciliation(principal)
        if found is None:
            raise NotFound("nothing has been reconciled yet; press Reconcile on the Stripe Sync page first")
        return reconciliation_lines(found)

    return await csv_download(request, "reconciliation.csv", lines)


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
