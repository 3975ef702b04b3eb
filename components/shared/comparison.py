"""What a page compares its period with: the one before, the same days last month, chosen days, or nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing_core.errors import BadParameter
from billing_core.types import PREVIOUS
from components.shared.periods import Days, EndBeforeStart, month_before, window_of
from components.shared.url_codec import day, one_of


class Comparison(StrEnum):
    """The choices; the value is what the URL has."""

    NOTHING = "nothing"
    PREVIOUS = "previous"
    LAST_MONTH = "last-month"
    DAYS = "days"


LABELS = {
    Comparison.PREVIOUS: "vs. period before",
    Comparison.LAST_MONTH: "vs. last month",
    Comparison.DAYS: "vs. chosen days",
    Comparison.NOTHING: "No comparison",
}


@dataclass(frozen=True)
class ComparisonChoice:
    """What a page's period is compared with; `against_from` and `against_to` are the days of `Comparison.DAYS`, both
    included.
    """

    against: Comparison = Comparison.PREVIOUS
    against_from: date | None = None
    against_to: date | None = None

    def asked(self, window: tuple[datetime | None, datetime | None], zone: ZoneInfo) -> str | None:
        """What the service is asked to compare a window with; `None`: with nothing, as there is nothing before a window
        without a beginning.

        Raises BadParameter: if the days are incomplete or in the wrong order, or a window without both ends is to be
            compared with last month.
        """
        start, end = window
        match self.against:
            case Comparison.PREVIOUS:
                return PREVIOUS if start is not None else None
            case Comparison.LAST_MONTH:
                if start is None or end is None:
                    raise CannotCompare("Choose a period with a start date and an end date to compare with last month.")
                return _text(month_before(start, zone), month_before(end, zone))
            case Comparison.DAYS:
                return _text(*window_of(self.compared_days(), zone))
        return None

    def compared_days(self) -> Days:
        """The days of `Comparison.DAYS`; raises `BadParameter` unless both are there, in order."""
        first, last = self.against_from, self.against_to
        if first is None or last is None:
            raise CannotCompare("Choose the first and the last day to compare with.")
        if last < first:
            raise EndBeforeStart("end date", last.isoformat(), first.isoformat())
        return Days(first, last)


class CannotCompare(BadParameter):
    """A comparison that lacks something, told in the words of its fields."""

    def __init__(self, says: str) -> None:
        super().__init__("compare", "", says)

    def __str__(self) -> str:
        return str(self.accepted)


COMPARISON_VALUES = {"against": one_of(Comparison), "against_from": day(), "against_to": day()}
"""How the fields of a `ComparisonChoice` stand in a URL."""


def _text(start: datetime | None, end: datetime | None) -> str:
    assert start is not None  # noqa: S101 - for the type checker: days have both ends
    assert end is not None  # noqa: S101
    return f"{start.isoformat()}..{end.isoformat()}"


def days_text(window: tuple[datetime | None, datetime | None] | None, zone: ZoneInfo) -> str:
    """The window that something is compared with, in words: `1 Oct 2026 – 31 Oct 2026`."""
    if window is None:
        return ""
    start, end = window
    return str(
        Days(
            None if start is None else start.astimezone(zone).date(),
            None if end is None else (end - timedelta(microseconds=1)).astimezone(zone).date(),
        )
    )
