"""Finds days and periods outside an organization's usual range of credits. Pure and exact.

The range is the median of comparable days, give or take the largest of: 3.5 robust standard deviations (the median
distance from the median, times 1.4826, which makes it one where days scatter normally), a quarter of the median, and
a thousand credits, below which nobody should be called. Both do not care about a few odd days among the compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing_core.ledger.anomaly_marks import AnomalyMark
from billing_core.organizations.variance import Variance
from billing_core.values.decimals import EXACT, exact_sum

WEEK = 7
WEEKS = 8
FEWEST_WEEKS = 4
"""The same weekday of the last 8 weeks, if at least 4 of them lie within the organization's life."""

RECENT_DAYS = 28
FEWEST_DAYS = 14
"""Else all of the last 28 days; with fewer than 14 days of history nothing is judged."""

PERIODS = 4
FEWEST_PERIODS = 3

SPREADS = EXACT.multiply(Decimal("3.5"), Decimal("1.4826"))
QUARTER = Decimal("0.25")
HALF = Decimal("0.5")

SMALLEST_MARGIN = Decimal(1000)
"""Credits. At the built-in card 4 US cents."""


@dataclass(frozen=True, slots=True)
class UsualRange:
    """The usual range of a day or a period in credits; `low` is never below 0.

    `sample` are positions of the compared days (or the number of the period back, 1 being the last); `is_weekday`
    says that they are the same weekday.
    """

    level: Decimal
    low: Decimal
    high: Decimal
    sample: tuple[int, ...]
    is_weekday: bool

    def has(self, held: Decimal) -> bool:
        """Whether so many credits lie within the usual range."""
        return self.low <= held <= self.high


def range_around(values: Sequence[Decimal]) -> tuple[Decimal, Decimal, Decimal]:
    """The usual range of some earlier sums: their median, and bounds around it."""
    level = _median(values)
    spread = _median([abs(EXACT.subtract(value, level)) for value in values])
    margin = max(EXACT.multiply(SPREADS, spread), EXACT.multiply(QUARTER, level), SMALLEST_MARGIN)
    return level, max(EXACT.subtract(level, margin), Decimal(0)), EXACT.add(level, margin)


def _median(values: Sequence[Decimal]) -> Decimal:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return EXACT.multiply(EXACT.add(ordered[middle - 1], ordered[middle]), HALF)


def expected_day(days: Sequence[Decimal], position: int) -> UsualRange | None:
    """The usual range of `days[position]`, from the days before it; `None` while there are too few.

    `days` are consecutive, the first one being the organization's first day.
    """
    if position < FEWEST_DAYS:
        return None
    sample = [at for week in range(1, WEEKS + 1) if (at := position - week * WEEK) >= 0]
    is_weekday = len(sample) >= FEWEST_WEEKS
    if not is_weekday:
        sample = list(range(max(0, position - RECENT_DAYS), position))
    level, low, high = range_around([days[at] for at in sample])
    return UsualRange(level, low, high, tuple(sample), is_weekday)


def expected_period(days: Sequence[Decimal], start: int, length: int) -> UsualRange | None:
    """The usual range of the sum of `length` days from `days[start]`: from up to 4 equally long periods before.

    `None` where fewer than 3 of them lie within the organization's life.
    """
    whole = [back for back in range(1, PERIODS + 1) if start - back * length >= 0]
    if len(whole) < FEWEST_PERIODS:
        return None
    sums = [exact_sum(days[start - back * length : start - (back - 1) * length]) for back in whole]
    level, low, high = range_around(sums)
    return UsualRange(level, low, high, tuple(whole), is_weekday=False)


# ── what people see ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An anomaly: a day of an organization (`None`: events that name none) outside its usual range.

    `credits_at_stake` is the distance from the expected level; `usd_at_stake` its price at what a credit cost on that
    day and the compared ones, to twelve places. `compared` are the days the level came from.
    """

    organization_id: str | None
    day: date
    credits: Decimal
    expected: UsualRange
    compared: tuple[date, ...]
    credits_at_stake: Decimal
    usd_at_stake: Decimal | None
    mark: AnomalyMark | None = None
    split: Variance | None = None

    @property
    def is_seen(self) -> bool:
        """Whether somebody marked the anomaly as seen, and the day has the same credits as then."""
        return self.mark is not None and not self.has_changed

    @property
    def has_changed(self) -> bool:
        """Whether somebody marked the anomaly as seen, but the day's credits changed since."""
        return self.mark is not None and self.mark.credits != self.credits


@dataclass(frozen=True, slots=True)
class PeriodAnomaly:
    """An organization whose credits in the whole period lie outside the range of equally long periods before."""

    organization_id: str | None
    first_day: date
    last_day: date
    credits: Decimal
    expected: UsualRange
    credits_at_stake: Decimal
    usd_at_stake: Decimal | None


@dataclass(frozen=True, slots=True)
class NotJudged:
    """An organization none of whose days could be checked for anomalies, and why."""

    organization_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class AnomalyReport:
    """The anomalies of a period: days and periods outside their usual range, most credits at stake first.

    `first_day` to `last_day` were judged (`None`: no complete day lies in the window); `note` says where these are not
    all days that were asked for. `as_of` is the ledger's booking number the report was made from. `minor` counts the
    days outside their range that nobody needs to act on (see `ActOn`) and that `rows` leave out.
    """

    rows: tuple[Anomaly, ...]
    periods: tuple[PeriodAnomaly, ...]
    not_judged: tuple[NotJudged, ...]
    first_day: date | None
    last_day: date | None
    as_of: int
    note: str | None = None
    minor: int = 0

    @property
    def unseen(self) -> int:
        """The anomalies nobody marked as seen, or whose credits changed since."""
        return sum(not row.is_seen for row in self.rows)


@dataclass(frozen=True, slots=True)
class ActOn:
    """What is worth a person's time: a deviation of so many US dollars, and of one day the largest ones only.

    A deviation whose price is unknown is always worth it.
    """

    minimum_usd: Decimal = Decimal(0)
    per_day: int | None = None

    def is_large(self, row: Anomaly | PeriodAnomaly) -> bool:
        """Whether the deviation has the money, or an unknown amount of it."""
        return row.usd_at_stake is None or row.usd_at_stake >= self.minimum_usd

    def of(self, rows: Sequence[Anomaly]) -> list[Anomaly]:
        """Those of `rows` that are worth it, largest first; what is taken of a day depends on that day alone."""
        taken: Counter[date] = Counter()
        found = []
        for row in sorted(filter(self.is_large, rows), key=rank):
            if self.per_day is None or taken[row.day] < self.per_day:
                taken[row.day] += 1
                found.append(row)
        return found


def rank(row: Anomaly | PeriodAnomaly) -> tuple[Decimal, int, str]:
    """The sort key of anomalies: most credits at stake first, then newest, then by organization."""
    day = row.day if isinstance(row, Anomaly) else row.last_day
    return -row.credits_at_stake, -day.toordinal(), row.organization_id or ""
