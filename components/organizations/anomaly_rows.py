"""Tables of anomalies, and the choice of which to show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billing_core.organizations.anomalies import Anomaly, PeriodAnomaly
from billing_core.organizations.table import label
from components.organizations.formats import amount, range_text, signed_amount
from components.organizations.texts import anomaly_word, mark_text
from components.shared.formats import UNKNOWN, short_usd


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


def anomaly_rows(rows: Sequence[Anomaly], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The table of anomalies, column by column."""
    return {
        "Organization": [label(row.organization_id, names) for row in rows],
        "Day": [row.day.isoformat() for row in rows],
        "What": [anomaly_word(row) for row in rows],
        "Deviation (credits)": [amount(row.credits_at_stake) for row in rows],
        "Deviation (USD)": [short_usd(row.usd_at_stake) for row in rows],
        "Credits": [amount(row.credits) for row in rows],
        "Usual range": [range_text(row.expected) for row in rows],
        "State": [mark_text(row) for row in rows],
    }


def period_rows(rows: Sequence[PeriodAnomaly], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The table of organizations whose whole period is unusual, column by column."""
    return {
        "Organization": [label(row.organization_id, names) for row in rows],
        "What": [anomaly_word(row) for row in rows],
        "Deviation (credits)": [amount(row.credits_at_stake) for row in rows],
        "Deviation (USD)": [short_usd(row.usd_at_stake) for row in rows],
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
        "Volume": [UNKNOWN if one is None else signed_amount(one.volume) for one in parts],
        "Price": [UNKNOWN if one is None else signed_amount(one.price) for one in parts],
        "Mix": [UNKNOWN if one is None else signed_amount(one.mix) for one in parts],
        "Difference": [UNKNOWN if one is None else signed_amount(one.difference) for one in parts],
        "Average day before": [UNKNOWN if one is None else amount(one.baseline) for one in parts],
    }
