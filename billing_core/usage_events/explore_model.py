"""Explore: what can be asked (`ExploreQuestion`) and what is answered (`Exploration`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import Any, TypeVar

from billing_core.errors import BadParameter
from billing_core.types import plain_decimal, utc_text
from billing_core.values.decimals import EXACT


class Dimension(StrEnum):
    """What usage is grouped by. The last two and `model` are parts of events; the others are facts about them."""

    ORGANIZATION = "organization"
    CUSTOMER = "customer"
    USER = "user"
    CHATFLOW = "chatflow"
    MODEL = "model"
    ENVIRONMENT = "environment"
    STATUS = "status"
    TOKEN_CLASS = "token_class"  # noqa: S105  (a dimension, not a secret)
    CREDIT_TYPE = "credit_type"


class Metric(StrEnum):
    """What is measured per group."""

    CREDITS = "credits"
    AMOUNT_USD = "amount_usd"
    COST_USD = "cost_usd"
    MARGIN_USD = "margin_usd"
    EVENTS = "events"
    TOKENS = "tokens"
    USERS = "users"
    LATENCY = "latency"


class PeriodLength(StrEnum):
    """How long the periods are that usage is cut into: days, ISO weeks or months of the reporting timezone."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


METRICS_OF_PARTS: dict[Dimension, tuple[Metric, ...]] = {
    Dimension.TOKEN_CLASS: (Metric.CREDITS, Metric.AMOUNT_USD, Metric.TOKENS),
    Dimension.CREDIT_TYPE: (Metric.CREDITS, Metric.AMOUNT_USD),
}
"""Metrics that can be told per part of an event; every other dimension goes with every metric."""

COSTS = frozenset({Metric.COST_USD, Metric.MARGIN_USD})
COUNTS = frozenset({Metric.EVENTS, Metric.TOKENS, Metric.USERS})
KEY_OF = {Metric.LATENCY: "latency_seconds"}
"""The key of a metric in JSON, where it is not its name: of latency, the average."""

MOST_DIMENSIONS = 2
MOST_TOP = 1000
SHARE = Decimal("0.000001")

_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class ExploreQuestion:
    """What is asked of the usage events of a filter.

    by: One or two dimensions.
    grain: The periods that groups are cut into; `None`: one row per group.
    compare: `previous` (the equally long period before) or `FROM..TO`; `None`: with nothing.
    top: How many groups are listed, by the metric; the rest is one row. `None`: all.
    """

    by: tuple[Dimension, ...]
    metric: Metric = Metric.CREDITS
    grain: PeriodLength | None = None
    compare: str | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.by) <= MOST_DIMENSIONS or len(set(self.by)) < len(self.by):
            raise BadParameter("by", ",".join(self.by), "one dimension or two different ones")
        for dimension in self.by:
            accepted = METRICS_OF_PARTS.get(dimension)
            if accepted is not None and self.metric not in accepted:
                named = " or ".join((", ".join(accepted[:-1]), accepted[-1]))
                raise BadParameter("metric", str(self.metric), f"{named} by {dimension}")
        if self.top is not None and not 1 <= self.top <= MOST_TOP:
            raise BadParameter("top", self.top, f"a number from 1 to {MOST_TOP:,}")

    @classmethod
    def parse(cls, values: Mapping[str, str | None]) -> ExploreQuestion:
        """A question from outside input: `by` (comma-separated), `metric`, `grain`, `compare`, `top`.

        Raises BadParameter: naming the first wrong one and what is accepted.
        """
        given = {name: value for name, value in values.items() if value is not None}
        words = [word for word in given.get("by", "").split(",") if word.strip()]
        if not words:
            raise BadParameter("by", given.get("by"), f"one or two of {', '.join(Dimension)}")
        top = given.get("top")
        if top is not None and not (top.isascii() and top.isdigit()):
            raise BadParameter("top", top, f"a number from 1 to {MOST_TOP:,}")
        return cls(
            tuple(_word("by", word, Dimension) for word in words),
            _word("metric", given.get("metric", Metric.CREDITS), Metric),
            _word("grain", given["grain"], PeriodLength) if "grain" in given else None,
            given.get("compare"),
            None if top is None else int(top[:9]),
        )

    @property
    def is_additive(self) -> bool:
        """Whether rows add up to the totals.

        Not so for users and latency, and for events by model, because an event counts for each model it used.
        """
        if self.metric is Metric.EVENTS:
            return Dimension.MODEL not in self.by
        return self.metric not in {Metric.USERS, Metric.LATENCY}


def _word(parameter: str, text: str, words: type[_Word]) -> _Word:
    """A word of an enumeration; blanks and hyphens stand for underscores."""
    spelled = text.strip().lower().replace(" ", "_").replace("-", "_")
    try:
        return words(spelled)
    except ValueError:
        raise BadParameter(parameter, text, f"one of {', '.join(words)}") from None


@dataclass(frozen=True, slots=True)
class ExploreRow:
    """The metric of one group, in one period if there is a grain; of all of them in `totals`.

    values: One per dimension; `None`: the events, or parts of them, that have no value (no organization, no model).
    period: The first day of the period, in the reporting timezone.
    value, previous: Credits, US dollars, counts, or average seconds; `None` is unknown, never zero. `previous` is also
        `None` where the group was not there.
    p95: Of latency, the 95th percentile in seconds.
    amount_usd, unknown_cost_amount_usd: Of cost and margin: the amount of the group's usage, and of that part of it
        whose cost is not known, so that neither metric counts it.
    others: How many groups this row stands for, if it is the rest below `top`; its `values` are `None`.
    """

    values: tuple[str | None, ...] = ()
    period: date | None = None
    value: Decimal | None = None
    p95: Decimal | None = None
    amount_usd: Decimal | None = None
    unknown_cost_amount_usd: Decimal | None = None
    previous: Decimal | None = None
    others: int | None = None

    @property
    def change(self) -> Decimal | None:
        """The value minus the previous one, in the metric's unit; unknown if one of them is."""
        if self.value is None or self.previous is None:
            return None
        return EXACT.subtract(self.value, self.previous)

    @property
    def change_share(self) -> Decimal | None:
        """The change as a share of the previous value, to six places; unknown if that is 0 or unknown."""
        if self.change is None or not self.previous:
            return None
        return (self.change / abs(self.previous)).quantize(SHARE, ROUND_HALF_EVEN)

    @property
    def unknown_cost_share(self) -> Decimal | None:
        """The share of the amount whose cost is not known, to six places; unknown without an amount."""
        if self.unknown_cost_amount_usd is None or not self.amount_usd:
            return None
        return (self.unknown_cost_amount_usd / self.amount_usd).quantize(SHARE, ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Exploration:
    """Usage of a filter, grouped: rows, largest group first (of equal ones by name, no value last), periods in order.

    start, end: The window, aware UTC; `None` is open. previous_start, previous_end: what is compared with.
    is_additive: The rows add up to `totals`; else `totals` are over all events of the filter.
    """

    question: ExploreQuestion
    zone: str
    start: datetime | None
    end: datetime | None
    previous_start: datetime | None
    previous_end: datetime | None
    rows: tuple[ExploreRow, ...]
    totals: ExploreRow
    as_of: int

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `explore`): exact numbers as text, counts as numbers."""
        asked = self.question
        window = {"from": _time(self.start), "to": _time(self.end)}
        compared = {"from": _time(self.previous_start), "to": _time(self.previous_end)}
        return {
            "by": list(asked.by),
            "metric": asked.metric,
            "grain": asked.grain,
            "timezone": self.zone,
            **window,
            "compare": compared if asked.compare else None,
            "additive": asked.is_additive,
            "as_of": self.as_of,
            "rows": [self._row(row) for row in self.rows],
            "totals": self._figures(self.totals),
        }

    def _row(self, row: ExploreRow) -> dict[str, Any]:
        named: dict[str, Any] = dict(zip(self.question.by, row.values, strict=True))
        if self.question.grain:
            named["period"] = None if row.period is None else row.period.isoformat()
        if row.others is not None:
            named["others"] = row.others
        return {**named, **self._figures(row)}

    def _figures(self, row: ExploreRow) -> dict[str, Any]:
        metric = self.question.metric
        shown = _count if metric in COUNTS else _text
        figures: dict[str, Any] = {KEY_OF.get(metric, metric): shown(row.value)}
        if metric is Metric.LATENCY:
            figures["latency_p95_seconds"] = _text(row.p95)
        if metric in COSTS:
            figures["unknown_cost_amount_usd"] = _text(row.unknown_cost_amount_usd)
            figures["unknown_cost_share"] = _text(row.unknown_cost_share)
        if self.question.compare:
            figures["previous"], figures["change"] = shown(row.previous), shown(row.change)
            figures["change_share"] = _text(row.change_share)
        return figures


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain_decimal(value)


def _count(value: Decimal | None) -> int | None:
    return None if value is None else int(value)


def _time(value: datetime | None) -> str | None:
    return None if value is None else utc_text(value)
