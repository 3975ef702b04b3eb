"""The result of a reconciliation: rows, causes, findings; as a document and back. Light: pages import it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from typing import Any

from billing_core.types import plain_decimal, utc_text
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import Window


class Cause(StrEnum):
    """The cause of a difference between two sources: the closed list of CONTRACT section 4."""

    LATE = "late"
    CHANGED_AFTER_SENDING = "changed_after_sending"
    POLICY_DIFFERS = "policy_differs"
    WRITTEN_OFF = "written_off"
    INVOICED_SEPARATELY = "invoiced_separately"
    NO_CUSTOMER = "no_customer"
    HELD = "held"
    TOO_OLD = "too_old"
    REJECTED = "rejected"
    UNKNOWN_OUTCOME = "unknown_outcome"
    CARRIED_FRACTION = "carried_fraction"
    SUMMARY_LAG = "summary_lag"
    SENT_ELSEWHERE = "sent_elsewhere"
    MISSING_AT_SOURCE = "missing_at_source"
    EXCLUDED = "excluded"
    UNPRICED = "unpriced"
    LEGACY_BILLED = "legacy_billed"
    NOT_OURS = "not_ours"
    LOST_AT_STRIPE = "lost_at_stripe"


UNEXPLAINED = frozenset({Cause.NOT_OURS, Cause.LOST_AT_STRIPE})
"""Nobody on this side can explain these: a person has to look."""

INFORMATIONAL = frozenset({Cause.EXCLUDED, Cause.UNPRICED})
"""Worth 0 credits: they name events that every book counts as nothing."""


class ComparisonStep(StrEnum):
    """The two neighbouring sources (Langfuse, ledger, sent, Stripe) between which a difference lies."""

    LANGFUSE_LEDGER = "langfuse_ledger"
    LEDGER_SENT = "ledger_sent"
    SENT_STRIPE = "sent_stripe"


_ORDER = {cause: position for position, cause in enumerate(Cause)}
_STEPS = {step: position for position, step in enumerate(ComparisonStep)}


@dataclass(frozen=True, slots=True)
class DifferencePart:
    """One part of a difference between neighbouring sources: its cause, credits and events.

    cause: `None` where the ledger contradicts itself: such a part is unexplained as well.
    credits: What the earlier book has more than the later one. Opposite parts of one cause stay apart, except the
        fractions that every intent rounds down.
    event_ids, meter_events: Which usage events and which identifiers at Stripe it is about, sorted; empty where nobody
        can know.
    """

    step: ComparisonStep
    cause: Cause | None
    credits: Decimal
    event_ids: tuple[str, ...] = ()
    meter_events: tuple[str, ...] = ()

    @property
    def is_unexplained(self) -> bool:
        """Whether this part counts as `unexplained_credits`."""
        return self.cause is None or self.cause in UNEXPLAINED

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """The sort key of parts: by step from Langfuse to Stripe, then in the order of the list of causes."""
        position = len(_ORDER) if self.cause is None else _ORDER[self.cause]
        return _STEPS[self.step], position, self.credits < 0, self.event_ids, self.meter_events


@dataclass(frozen=True, slots=True)
class CustomerDay:
    """The credits of one customer (`None`: usage of nobody) on one UTC day in each source; `None` credits are unknown,
    not zero.

    The parts of a step add up to the difference of its two books, exactly.
    """

    customer_id: str | None
    day: date
    langfuse_credits: Decimal | None
    ledger_credits: Decimal
    sent_credits: Decimal
    stripe_credits: Decimal | None
    parts: tuple[DifferencePart, ...] = ()

    @property
    def unexplained_credits(self) -> Decimal:
        """The unexplained credits of the day, added up as sizes, so that losses and excesses never cancel out."""
        return added(abs(part.credits) for part in self.parts if part.is_unexplained)

    @property
    def differs(self) -> bool:
        """Whether any two known sources differ."""
        books = (self.langfuse_credits, self.ledger_credits, self.sent_credits, self.stripe_credits)
        return len({book for book in books if book is not None}) > 1 or self.unexplained_credits != 0


@dataclass(frozen=True, slots=True)
class UnbilledFinding:
    """Credits that Stripe counts but no invoice will bill. `says` is a sentence for people."""

    kind: str
    customer_id: str
    credits: Decimal
    says: str
    meter_events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DayDifference:
    """Langfuse's own daily sums minus those of the rows that were read."""

    day: date
    observations: int
    tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """A check, by Langfuse's own sums, that everything was read. No `days`: `reason` says why."""

    days: tuple[DayDifference, ...] | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result of a reconciliation: a window of Langfuse, ledger and Stripe compared row by row.

    rows: Sorted by customer (nobody last) and day.
    problems: Which book could not be read, in sentences; its credits are unknown in the rows concerned.
    """

    window: Window
    made_at: datetime
    rows: tuple[CustomerDay, ...]
    findings: tuple[UnbilledFinding, ...] = ()
    cross_check: CrossCheck = CrossCheck(None, "not asked for")
    problems: tuple[str, ...] = ()

    @property
    def unexplained_credits(self) -> Decimal:
        """The unexplained credits of all rows together."""
        return added(row.unexplained_credits for row in self.rows)

    @property
    def is_complete(self) -> bool:
        """Whether every source could be read; a note on something beside them makes none incomplete."""
        if not self.rows:
            return not self.problems
        return not any(row.langfuse_credits is None or row.stripe_credits is None for row in self.rows)

    def only_differences(self) -> Reconciliation:
        """The reconciliation without rows whose sources agree, and without causes worth nothing."""
        rows = (
            replace(row, parts=tuple(part for part in row.parts if part.cause not in INFORMATIONAL))
            for row in self.rows
            if row.differs
        )
        return replace(self, rows=tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `reconcile`): exact numbers as text, UTC days."""
        check = self.cross_check
        return {
            "from": utc_text(self.window.start),
            "to": utc_text(self.window.end),
            "made_at": utc_text(self.made_at),
            "rows": [_row_to_json(row) for row in self.rows],
            "unexplained_credits": plain_decimal(self.unexplained_credits) if self.is_complete else None,
            "findings": [_texts(asdict(finding)) for finding in self.findings],
            "cross_check": {
                "days": None if check.days is None else [_texts(asdict(day)) for day in check.days],
                "reason": check.reason,
            },
            "problems": list(self.problems),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reconciliation:
        """The reconciliation from the document of `to_json`."""
        check = document["cross_check"]
        days = None if check["days"] is None else tuple(_day_from_json(day) for day in check["days"])
        return cls(
            Window(_time(document["from"]), _time(document["to"])),
            _time(document["made_at"]),
            tuple(_row_from_json(row) for row in document["rows"]),
            tuple(
                UnbilledFinding(**{**f, "credits": Decimal(f["credits"]), "meter_events": tuple(f["meter_events"])})
                for f in document["findings"]
            ),
            CrossCheck(days, check["reason"]),
            tuple(document["problems"]),
        )


def added(values: Iterable[Decimal]) -> Decimal:
    """The exact sum of decimals."""
    return reduce(EXACT.add, values, Decimal(0))


def waterfall(reconciliation: Reconciliation) -> list[tuple[str, Decimal]]:
    """The steps of a waterfall chart in credits, from what Langfuse says was used to what Stripe counts: first and last
    are totals, the rest are differences.

    The first total and the steps add up to the last one, exactly. A book that is unknown in any row is no end to
    start from or arrive at: then the ledger, or what was sent, stands there. A cause that works both ways is two steps.
    """
    rows = reconciliation.rows
    has_langfuse = all(row.langfuse_credits is not None for row in rows)
    has_stripe = all(row.stripe_credits is not None for row in rows)
    steps = [ComparisonStep.LEDGER_SENT]
    first, last = ("ledger", [row.ledger_credits for row in rows]), ("sent", [row.sent_credits for row in rows])
    if has_langfuse:
        steps.append(ComparisonStep.LANGFUSE_LEDGER)
        first = "langfuse", [row.langfuse_credits or Decimal(0) for row in rows]
    if has_stripe:
        steps.append(ComparisonStep.SENT_STRIPE)
        last = "stripe", [row.stripe_credits or Decimal(0) for row in rows]
    sums: dict[tuple[int, str, bool], Decimal] = {}
    for part in (part for row in rows for part in row.parts if part.step in steps and part.credits):
        rank = len(_ORDER) if part.cause is None else _ORDER[part.cause]
        splits = part.cause is not Cause.CARRIED_FRACTION and part.credits < 0
        key = (rank, "contradiction" if part.cause is None else part.cause.value, splits)
        sums[key] = EXACT.subtract(sums.get(key, Decimal(0)), part.credits)
    both_ways = {name for _, name, splits in sums if splits} & {name for _, name, splits in sums if not splits}
    named = [
        (f"{name} {'+' if splits else '−'}" if name in both_ways else name, sums[rank, name, splits])
        for rank, name, splits in sorted(sums)
    ]
    return [(first[0], added(first[1])), *(step for step in named if step[1]), (last[0], added(last[1]))]


def _row_to_json(row: CustomerDay) -> dict[str, Any]:
    return {
        "customer_id": row.customer_id,
        "day": row.day.isoformat(),
        "langfuse_credits": _text(row.langfuse_credits),
        "ledger_credits": _text(row.ledger_credits),
        "sent_credits": _text(row.sent_credits),
        "stripe_credits": _text(row.stripe_credits),
        "causes": [_part_to_json(part) for part in row.parts if part.cause is not None],
        "contradictions": [_part_to_json(part) for part in row.parts if part.cause is None],
        "unexplained_credits": _text(row.unexplained_credits),
    }


def _row_from_json(row: Mapping[str, Any]) -> CustomerDay:
    parts = [_part_from_json(part) for part in (*row["causes"], *row["contradictions"])]
    return CustomerDay(
        row["customer_id"],
        date.fromisoformat(row["day"]),
        _number(row["langfuse_credits"]),
        Decimal(row["ledger_credits"]),
        Decimal(row["sent_credits"]),
        _number(row["stripe_credits"]),
        tuple(sorted(parts, key=lambda part: part.sort_key)),
    )


def _part_to_json(part: DifferencePart) -> dict[str, Any]:
    return {
        "cause": part.cause,
        "credits": _text(part.credits),
        "event_ids": list(part.event_ids),
        "step": part.step,
        "meter_events": list(part.meter_events),
    }


def _part_from_json(part: Mapping[str, Any]) -> DifferencePart:
    cause = None if part["cause"] is None else Cause(part["cause"])
    return DifferencePart(
        ComparisonStep(part["step"]),
        cause,
        Decimal(part["credits"]),
        tuple(part["event_ids"]),
        tuple(part["meter_events"]),
    )


def _day_from_json(day: Mapping[str, Any]) -> DayDifference:
    return DayDifference(date.fromisoformat(day["day"]), day["observations"], day["tokens"], Decimal(day["cost_usd"]))


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Decimals and days as JSON has them."""
    return {
        name: plain_decimal(value)
        if isinstance(value, Decimal)
        else value.isoformat()
        if isinstance(value, date)
        else value
        for name, value in values.items()
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain_decimal(value)


def _number(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
