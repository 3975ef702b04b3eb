"""Tables of the Stripe Sync page: values in, columns of text out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from billing_core.values.decimals import EXACT
from components.shared.formats import UNKNOWN, count, duration, moment, rounded, signed_rounded
from components.stripe_sync.marks import cause_words
from components.stripe_sync.texts import outcome_word

if TYPE_CHECKING:
    from billing_core.ledger.push_log import PushRun
    from billing_core.reconcile.report import CrossCheck, CustomerDay, Reconciliation
    from billing_core.stripe_sync.pipeline import CarriedFraction

Rows = dict[str, list[str]]

NOBODY = "no customer"
"""What stands for usage that names nobody."""

MOST_CUSTOMERS = 25
"""Rows of the heat map; the table has everybody."""


SHOWN_PROBLEMS = 2
"""Of a push, in its line of the log."""


class Measure(StrEnum):
    """The two sources that are compared; the value is the label."""

    LANGFUSE_STRIPE = "Langfuse − Stripe"
    LANGFUSE_LEDGER = "Langfuse − ledger"
    LEDGER_SENT = "Ledger − sent"
    SENT_STRIPE = "Sent − Stripe"
    UNEXPLAINED = "Unexplained"


def difference(row: CustomerDay, measure: Measure) -> Decimal | None:
    """Credits the earlier source has more than the later one; `None`: one of them is unknown."""
    match measure:
        case Measure.LANGFUSE_STRIPE:
            pair = row.langfuse_credits, row.stripe_credits
        case Measure.LANGFUSE_LEDGER:
            pair = row.langfuse_credits, row.ledger_credits
        case Measure.LEDGER_SENT:
            pair = row.ledger_credits, row.sent_credits
        case Measure.SENT_STRIPE:
            pair = row.sent_credits, row.stripe_credits
        case Measure.UNEXPLAINED:
            return row.unexplained_credits
    earlier, later = pair
    return None if earlier is None or later is None else EXACT.subtract(earlier, later)


def _whole(values: Iterable[Decimal | None]) -> Decimal | None:
    """The sum; `None` as soon as one part is unknown."""
    total = Decimal(0)
    for value in values:
        if value is None:
            return None
        total = EXACT.add(total, value)
    return total


def book_totals(found: Reconciliation) -> dict[str, Decimal | None]:
    """The credits of each source in the whole window; unknown if it is unknown for anybody."""
    rows = found.rows
    return {
        "Langfuse": _whole(row.langfuse_credits for row in rows),
        "Ledger": _whole(row.ledger_credits for row in rows),
        "Sent": _whole(row.sent_credits for row in rows),
        "Stripe": _whole(row.stripe_credits for row in rows),
    }


@dataclass(frozen=True, slots=True)
class HeatGrid:
    """Differences of customers, largest first, by UTC days; places without activity have no row.

    `left_out` counts customers beyond the first ones.
    """

    customers: tuple[str | None, ...]
    days: tuple[date, ...]
    rows: Mapping[tuple[str | None, date], CustomerDay]
    left_out: int


def heat_grid(found: Reconciliation, measure: Measure, shown: int = MOST_CUSTOMERS) -> HeatGrid:
    """The differences of a reconciliation as a grid; who differs most comes first."""
    sizes: dict[str | None, Decimal] = {}
    for row in found.rows:
        size = abs(difference(row, measure) or Decimal(0)) + row.unexplained_credits
        sizes[row.customer_id] = EXACT.add(sizes.get(row.customer_id, Decimal(0)), size)
    customers = sorted(sizes, key=lambda one: (-sizes[one], one is None, one or ""))
    first = found.window.start.astimezone(UTC).date()
    last = (found.window.end.astimezone(UTC) - timedelta(microseconds=1)).date()
    days = tuple(first + timedelta(days=n) for n in range((last - first).days + 1))
    kept = customers[:shown]
    return HeatGrid(
        tuple(kept),
        days,
        {(row.customer_id, row.day): row for row in found.rows if row.customer_id in set(kept)},
        max(0, len(customers) - shown),
    )


def rows_with_differences(found: Reconciliation, measure: Measure) -> list[CustomerDay]:
    """Rows whose sources differ: unexplained ones first, then by the size of the difference."""
    return sorted(
        (row for row in found.rows if row.differs),
        key=lambda row: (-row.unexplained_credits, -abs(difference(row, measure) or Decimal(0)), row.day),
    )


def difference_rows(rows: Sequence[CustomerDay]) -> Rows:
    """A table of every row with the credits of its sources side by side."""
    return {
        "Customer": [row.customer_id or NOBODY for row in rows],
        "Day (UTC)": [row.day.isoformat() for row in rows],
        "Langfuse": [rounded(row.langfuse_credits) for row in rows],
        "Ledger": [rounded(row.ledger_credits) for row in rows],
        "Sent": [rounded(row.sent_credits) for row in rows],
        "Stripe": [rounded(row.stripe_credits) for row in rows],
        "Langfuse − Stripe": [signed_rounded(difference(row, Measure.LANGFUSE_STRIPE)) for row in rows],
        "Unexplained": [rounded(row.unexplained_credits) for row in rows],
        "Causes": [
            ", ".join(dict.fromkeys(cause_words(part.cause or "contradiction").label for part in row.parts))
            for row in rows
        ],
    }


def cause_rows(row: CustomerDay) -> Rows:
    """The causes of one customer's difference on a day, as a table."""
    return {
        "Cause": [cause_words(part.cause or "contradiction").label for part in row.parts],
        "Credits": [signed_rounded(part.credits) for part in row.parts],
        "Events": [count(len(part.event_ids)) for part in row.parts],
        "Meter events": [count(len(part.meter_events)) for part in row.parts],
        "What it means": [cause_words(part.cause or "contradiction").meaning for part in row.parts],
    }


def waterfall_rows(steps: Sequence[tuple[str, Decimal]]) -> Rows:
    """The steps of a waterfall as a table: the first and the last are totals."""
    ends = {0, len(steps) - 1}
    return {
        "Step": [step_label(name, is_end=place in ends) for place, (name, _) in enumerate(steps)],
        "Credits": [
            rounded(value) if place in ends else signed_rounded(value) for place, (_, value) in enumerate(steps)
        ],
    }


def step_label(name: str, *, is_end: bool) -> str:
    """The label of a waterfall's step: a source by its name, a cause by its words."""
    return name.capitalize() if is_end else cause_words(name).label


def cross_check_rows(check: CrossCheck) -> Rows:
    """A table of days whose sums differ from Langfuse's own."""
    days = [day for day in check.days or () if day.observations or day.tokens or day.cost_usd]
    return {
        "Day (UTC)": [day.day.isoformat() for day in days],
        "Observations": [signed_rounded(day.observations) for day in days],
        "Tokens": [signed_rounded(day.tokens) for day in days],
        "Cost (USD)": [signed_rounded(day.cost_usd) for day in days],
    }


def carried_rows(carried: Sequence[CarriedFraction]) -> Rows:
    """A table of the fractions of a credit carried forward per customer."""
    return {"Customer": [one.customer_id for one in carried], "Credits": [rounded(one.credits) for one in carried]}


# ── push ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Request:
    """One meter event of a dry run, as it would be sent."""

    identifier: str
    customer_id: str
    time: str
    credits: int
    path: str
    idempotency_key: str


def requests_of(requests: Iterable[Mapping[str, Any]]) -> list[Request]:
    """The meter events in the requests of a dry run, whichever API they are for."""
    found = []
    for request in requests:
        for event in request["body"].get("events", [request["body"]]):
            payload, time = event["payload"], event["timestamp"]
            shown = time if isinstance(time, str) else f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"
            found.append(
                Request(
                    event["identifier"],
                    payload["stripe_customer_id"],
                    shown,
                    int(payload["value"]),
                    request["path"],
                    str(request["idempotency_key"]),
                )
            )
    return found


def request_rows(requests: Sequence[Request]) -> Rows:
    """The meter events of a dry run as a table."""
    return {
        "Customer": [one.customer_id for one in requests],
        "Time (UTC)": [one.time for one in requests],
        "Credits": [rounded(one.credits) for one in requests],
        "Identifier": [one.identifier for one in requests],
        "Path": [one.path for one in requests],
        "Idempotency key": [one.idempotency_key for one in requests],
    }


def push_log_rows(runs: Sequence[PushRun], zone: ZoneInfo, *, is_pushing: bool) -> Rows:
    """The push log as a table. Only the newest run can be running."""
    words = [outcome_word(run, is_pushing=is_pushing and place == 0) for place, run in enumerate(runs)]
    marks = {"done": "✓", "failed": "✕", "running": "↑", "interrupted": "‖"}
    columns = ("Sent", "Duplicates", "Rejected", "Held", "Newly held", "Unknown", "Confirmed")
    return {
        f"Started ({zone.key})": [moment(run.started_at, zone) for run in runs],
        "Took": [_took(run) for run in runs],
        "By": [run.actor for run in runs],
        "Outcome": [f"{marks.get(word, '')} {word}".strip() for word in words],
        "Credits delivered": [rounded(_number(run.result.get("credits_sent"))) for run in runs],
        **{name: [_counted(run, name.lower().replace(" ", "_")) for run in runs] for name in columns},
        "Problem": [_problem(run) for run in runs],
    }


def _took(run: PushRun) -> str:
    return UNKNOWN if run.ended_at is None else duration(Decimal(str((run.ended_at - run.started_at).total_seconds())))


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _counted(run: PushRun, key: str) -> str:
    value = run.result.get(key)
    return count(value if isinstance(value, int) else None)


def _problem(run: PushRun) -> str:
    said = [run.error, *run.result.get("problems", ()), *run.result.get("failures", ())]
    texts = list(dict.fromkeys(text for text in said if text))
    more = f" · and {len(texts) - SHOWN_PROBLEMS:,} more" if len(texts) > SHOWN_PROBLEMS else ""
    return " · ".join(texts[:SHOWN_PROBLEMS]) + more
