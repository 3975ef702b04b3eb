"""Texts and table cells of anomalies. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from billing_core.organizations.anomalies import Anomaly, AnomalyReport, PeriodAnomaly, UsualRange
from billing_core.organizations.table import label
from billing_core.values.counts import count_of
from components.shared.formats import UNKNOWN, credits_text, day_text, moment, usd

CENT = Decimal("0.01")


def amount(value: Decimal) -> str:
    """Credits of a range or a part as text: two decimals are enough for people, the CSV has every digit."""
    return credits_text(value if abs(value) < 1 else value.quantize(CENT, ROUND_HALF_EVEN))


def part(value: Decimal) -> str:
    """A part of a difference in credits as text, with its sign."""
    return f"+{amount(value)}" if value > 0 else amount(value)


def range_text(expected: UsualRange) -> str:
    """A usual range as text: `7,500.00 – 12,500.00`."""
    return f"{amount(expected.low)} – {amount(expected.high)}"


def what(row: Anomaly | PeriodAnomaly) -> str:
    """The kind of an anomaly in two words."""
    if row.credits == 0:
        return "no usage"
    return "more than usual" if row.credits > row.expected.level else "less than usual"


def state_text(row: Anomaly) -> str:
    """Whether somebody has seen an anomaly, and who."""
    if row.mark is None:
        return "new"
    return f"changed since seen by {row.mark.seen_by}" if row.has_changed else f"seen by {row.mark.seen_by}"


class AnomalyFilter:
    """The choices of the anomalies filter; the value is both the label and what the URL has."""

    NEW = "Not seen"
    SEEN = "Seen"
    ALL = "All"
    CHOICES = (NEW, SEEN, ALL)


def chosen(rows: Sequence[Anomaly], shown: str) -> list[Anomaly]:
    """The anomalies of a filter choice; one that changed since somebody saw it counts as not seen."""
    if shown == AnomalyFilter.ALL:
        return list(rows)
    return [row for row in rows if row.is_seen == (shown == AnomalyFilter.SEEN)]


def summary_text(report: AnomalyReport, zone: ZoneInfo) -> str:
    """How many anomalies there are, of which days, and how many nobody has seen."""
    if report.first_day is None or report.last_day is None:
        return report.note or ""
    days = f"{day_text(report.first_day)} – {day_text(report.last_day)}, complete days in {zone.key}"
    found = (
        f"{count_of(len(report.rows), 'unusual day')}, {report.unseen:,} not seen" if report.rows else "no unusual day"
    )
    return " ".join(text for text in (f"{found}. Days assessed: {days}.", report.note) if text)


def anomaly_rows(rows: Sequence[Anomaly], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The table of anomalies, column by column."""
    return {
        "Organization": [label(row.organization_id, names) for row in rows],
        "Day": [row.day.isoformat() for row in rows],
        "What": [what(row) for row in rows],
        "Deviation (credits)": [amount(row.credits_at_stake) for row in rows],
        "Deviation (USD)": [usd(row.usd_at_stake) for row in rows],
        "Credits": [amount(row.credits) for row in rows],
        "Usual range": [range_text(row.expected) for row in rows],
        "State": [state_text(row) for row in rows],
    }


def period_rows(rows: Sequence[PeriodAnomaly], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The table of organizations whose whole period is unusual, column by column."""
    return {
        "Organization": [label(row.organization_id, names) for row in rows],
        "What": [what(row) for row in rows],
        "Deviation (credits)": [amount(row.credits_at_stake) for row in rows],
        "Deviation (USD)": [usd(row.usd_at_stake) for row in rows],
        "Credits": [amount(row.credits) for row in rows],
        "Usual range": [range_text(row.expected) for row in rows],
        "Compared periods": [str(len(row.expected.sample)) for row in rows],
    }


def split_rows(rows: Sequence[Anomaly], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The figures of the chart of parts as a table."""
    parts = [row.split for row in rows]
    return {
        "Organization": [label(row.organization_id, names) for row in rows],
        "Day": [row.day.isoformat() for row in rows],
        "Volume": [UNKNOWN if one is None else part(one.volume) for one in parts],
        "Price": [UNKNOWN if one is None else part(one.price) for one in parts],
        "Mix": [UNKNOWN if one is None else part(one.mix) for one in parts],
        "Difference": [UNKNOWN if one is None else part(one.difference) for one in parts],
        "Average day before": [UNKNOWN if one is None else amount(one.baseline) for one in parts],
    }


def story(row: Anomaly, names: Mapping[str, str], zone: ZoneInfo) -> list[str]:
    """An anomaly in sentences: what happened, what was usual, what the difference is made of, who has seen it."""
    expected = row.expected
    compared = (
        f"the same weekday of the {count_of(len(row.compared), 'week')} before"
        if expected.is_weekday
        else f"the {count_of(len(row.compared), 'day')} before"
    )
    used = f"{label(row.organization_id, names)} used {amount(row.credits)} credits on {day_text(row.day)}."
    usual = (
        f"By {compared}, {amount(expected.low)} to {amount(expected.high)} is usual; the median is "
        f"{amount(expected.level)}."
    )
    told = [f"{used} {usual}"]
    if row.split is not None:
        parts = ", ".join(f"{name} {part(getattr(row.split, name))}" for name in ("volume", "price", "mix"))
        told.append(
            f"Compared with an average of those days ({amount(row.split.baseline)} credits) the "
            f"difference is {part(row.split.difference)}: {parts}."
        )
    if row.mark is not None:
        then = f"Seen by {row.mark.seen_by} at {moment(row.mark.seen_at, zone)} {zone.key}"
        if row.has_changed:
            then += f", when it was {amount(row.mark.credits)} credits"
        told.append(f"{then}: {row.mark.note}" if row.mark.note else f"{then}.")
    return told
