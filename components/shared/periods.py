"""Named periods (today, last 7 days …) as windows of the reporting timezone. Pure: the present day comes in as an
argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing_core.errors import BadParameter
from components.shared.formats import day_text


class Period(StrEnum):
    """The choices of the period filter; the value is both the label and what the URL has."""

    TODAY = "Today"
    YESTERDAY = "Yesterday"
    LAST_7_DAYS = "Last 7 days"
    LAST_30_DAYS = "Last 30 days"
    LAST_90_DAYS = "Last 90 days"
    THIS_MONTH = "This month"
    LAST_MONTH = "Last month"
    THIS_QUARTER = "This quarter"
    YEAR_TO_DATE = "Year to date"
    ALL_TIME = "All time"
    CUSTOM = "Custom"


@dataclass(frozen=True, slots=True)
class Days:
    """A span of whole days, both ends included; `None` leaves that end open."""

    first: date | None
    last: date | None

    def __str__(self) -> str:
        if self.first is None and self.last is None:
            return "all days"
        if self.first is None and self.last is not None:
            return f"until {day_text(self.last)}"
        if self.first is not None and self.last is None:
            return f"since {day_text(self.first)}"
        assert self.first is not None  # noqa: S101 - for the type checker, the cases above leave nothing else
        assert self.last is not None  # noqa: S101
        return day_text(self.first) if self.first == self.last else f"{day_text(self.first)} – {day_text(self.last)}"


def days_of(period: Period, today: date, first: date | None = None, last: date | None = None) -> Days:
    """The days of a period as of the day `today`; `first` and `last` are those of `Period.CUSTOM`.

    The last 7, 30 or 90 days end with today. Raises `BadParameter` if a custom period ends before it starts.
    """
    if period is Period.CUSTOM:
        if first is not None and last is not None and last < first:
            raise EndBeforeStart("end date", last.isoformat(), first.isoformat())
        return Days(first, last)
    this_month, yesterday = today.replace(day=1), today - timedelta(days=1)
    end_of_last_month = this_month - timedelta(days=1)
    return {
        Period.TODAY: Days(today, today),
        Period.YESTERDAY: Days(yesterday, yesterday),
        Period.LAST_7_DAYS: Days(today - timedelta(days=6), today),
        Period.LAST_30_DAYS: Days(today - timedelta(days=29), today),
        Period.LAST_90_DAYS: Days(today - timedelta(days=89), today),
        Period.THIS_MONTH: Days(this_month, today),
        Period.LAST_MONTH: Days(end_of_last_month.replace(day=1), end_of_last_month),
        Period.THIS_QUARTER: Days(this_month.replace(month=(today.month - 1) // 3 * 3 + 1), today),
        Period.YEAR_TO_DATE: Days(today.replace(month=1, day=1), today),
        Period.ALL_TIME: Days(None, None),
    }[period]


class EndBeforeStart(BadParameter):
    """A custom period whose end date is before its start date, told in the words of its two fields."""

    def __str__(self) -> str:
        return f"End date must be on or after the start date: {self.value} is before {self.accepted}."


def window_of(days: Days, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """The half-open window from the first midnight of `days` to the one after, in `zone`.

    A day on which clocks change has 23 or 25 hours: each midnight carries its own offset.
    """
    start = None if days.first is None else datetime.combine(days.first, time.min, zone)
    end = None if days.last is None else datetime.combine(days.last + timedelta(days=1), time.min, zone)
    return start, end


@dataclass(frozen=True)
class PeriodChoice:
    """The period that a page is about; `first_day` and `last_day` are those of `Period.CUSTOM`."""

    period: Period = Period.LAST_30_DAYS
    first_day: date | None = None
    last_day: date | None = None

    def days(self, today: date) -> Days:
        """The days asked for as of the day `today`; raises `BadParameter` if they end before they start."""
        return days_of(self.period, today, self.first_day, self.last_day)

    def window(self, at: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
        """The days asked for as a half-open window; `at` is the present. Raises as `days`."""
        return window_of(self.days(at.astimezone(zone).date()), zone)


def window_or_open(choice: PeriodChoice, at: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """The window of a choice; without ends where its days are in the wrong order, which is told elsewhere."""
    try:
        return choice.window(at, zone)
    except BadParameter:
        return None, None


def month_before(moment: datetime, zone: ZoneInfo) -> datetime:
    """The same day and time of day a month earlier on the clocks of `zone`; the last day of a shorter month."""
    local = moment.astimezone(zone)
    last = local.replace(day=1, tzinfo=None) - timedelta(days=1)
    earlier = last.replace(day=min(local.day, last.day), hour=local.hour, minute=local.minute, second=local.second)
    return earlier.replace(microsecond=local.microsecond, tzinfo=zone)
