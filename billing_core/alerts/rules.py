"""Rules of alerts, pure: rolling windows, what is told once, and every rule in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from billing_core.alerts.model import Found, Kind, Measure, Process, Terms
from billing_core.types import plain_decimal
from billing_core.usage_events.explore_model import Dimension
from billing_core.values.counts import count_of
from billing_core.values.decimals import exact_sum

DAY = timedelta(days=1)


def day_window(first: date, last: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The half-open window of whole days of `zone`, both included: 23 or 25 hours where clocks change."""
    return datetime.combine(first, time.min, zone), datetime.combine(last + DAY, time.min, zone)


def passing(
    per_day: Mapping[date, Decimal], days: int, above: Decimal, first: date, last: date
) -> Iterator[tuple[date, Decimal]]:
    """The last days, from `last` back to `first`, of windows of `days` days whose sum is above the limit."""
    end = last
    while end >= first:
        total = exact_sum(per_day.get(end - DAY * back, Decimal(0)) for back in range(days))
        if total > above:
            yield end, total
        end -= DAY


def overlaps(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    """Whether two half-open windows have a moment in common."""
    return one[0] < other[1] and other[0] < one[1]


Told = tuple[str | None, str, datetime, datetime]
"""Subject, occasion and window of something that was told."""


def untold(found: Iterable[Found], told: Iterable[Told]) -> list[Found]:
    """What is to be told now, in the order given: of one subject and occasion, nothing whose window overlaps one told
    before, or taken already.
    """
    windows: dict[tuple[str | None, str], list[tuple[datetime, datetime]]] = {}
    for subject, occasion, start, end in told:
        windows.setdefault((subject, occasion), []).append((start, end))
    taken = []
    for one in found:
        known = windows.setdefault((one.subject, one.occasion), [])
        if not any(overlaps((one.start, one.end), other) for other in known):
            known.append((one.start, one.end))
            taken.append(one)
    return taken


def largest_first(found: Iterable[Found]) -> list[Found]:
    """Newest window first, and of one window the largest value: of windows that overlap the newest is told."""
    return sorted(found, key=lambda one: (-one.end.timestamp(), -(one.value or Decimal(0)), one.subject or ""))


def iso_week_before(today: date) -> date:
    """The Monday of the newest ISO week that is over."""
    return today - DAY * today.weekday() - 7 * DAY


def week_name(monday: date) -> str:
    """An ISO week by name: `2026-W47`."""
    year, week, _ = monday.isocalendar()
    return f"{year}-W{week:02}"


# ── in words ─────────────────────────────────────────────────────────────────────────────────────

PROCESS_WORDS = {
    Process.PULL: "pull",
    Process.PUSH: "push",
    Process.RECONCILE: "reconciliation",
    Process.CLOSE: "month close",
}


def measured(value: Decimal, measure: Measure) -> str:
    """An exact amount or number of credits: `$1,234.50`, `1,234 credits`."""
    text = f"{Decimal(plain_decimal(value)):,f}"
    if measure is Measure.AMOUNT_USD and len(text.partition(".")[2]) < 2:
        text = f"{value:,.2f}"
    return f"${text}" if measure is Measure.AMOUNT_USD else f"{text} credits"


def shown(value: Decimal, measure: Measure, *, above: Decimal = Decimal(0)) -> str:
    """An amount or number of credits for a title, to two decimals; exact where that would hide that it is `above`."""
    rounded = value.quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return measured(rounded if rounded > above else value, measure)


def in_words(terms: Terms) -> str:
    """When a rule alerts, as a sentence without its end."""
    who = f"any {terms.by}" if terms.subject is None else f"{terms.by} {terms.subject}"
    match terms.kind:
        case Kind.THRESHOLD:
            above = measured(terms.above or Decimal(0), terms.measure)
            within = "in one day" if terms.days == 1 else f"in {terms.days} days"
            return f"{_first_up(who)} uses more than {above} {within}"
        case Kind.UNUSUAL:
            return f"{_first_up(who)} uses more or less in a day than usual"
        case Kind.FAILURE:
            return f"A {or_list([PROCESS_WORDS[one] for one in terms.processes])} fails"
        case Kind.UNSENT:
            return f"Credits stay unsent for more than {count_of(terms.hours, 'hour')}"
        case Kind.DEADLINE:
            return f"Usage must reach Stripe within {count_of(terms.hours, 'hour')}"
        case Kind.SUMMARY:
            return f"Every week: figures of {who.replace('any ', 'each ')}"


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def or_list(words: Sequence[str]) -> str:
    """Words as a list: `a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


USUAL = (
    "Usual is the median of the same weekday in up to eight weeks (with less history: of the last 28 days), give or "
    "take the largest of 3.5 robust standard deviations, a quarter of the median, and 1,000 credits."
)

SUBJECT_WORDS: Mapping[Dimension, str] = {
    Dimension.ORGANIZATION: "Organization",
    Dimension.CUSTOMER: "Customer",
    Dimension.USER: "User",
    Dimension.CHATFLOW: "Chatflow",
    Dimension.MODEL: "Model",
}
