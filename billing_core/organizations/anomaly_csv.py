"""Writes anomalies as CSV: exact figures, no cell that a spreadsheet would run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from billing_core.organizations.anomalies import Anomaly
from billing_core.values.csv_cells import csv_line

HEADER = (
    "organization_id",
    "day",
    "credits",
    "expected_credits",
    "expected_low",
    "expected_high",
    "credits_at_stake",
    "usd_at_stake",
    "baseline_credits",
    "volume_credits",
    "price_credits",
    "mix_credits",
    "state",
    "seen_at",
    "seen_by",
    "note",
)


def csv_document(pieces: Iterable[Sequence[Anomaly]]) -> Iterator[bytes]:
    """The CSV file of anomalies, in pieces: the header, then one piece of bytes per piece of rows."""
    yield csv_line(HEADER).encode()
    for rows in pieces:
        yield "".join(csv_line(_values(row)) for row in rows).encode()


def _values(row: Anomaly) -> list[Any]:
    expected, split, mark = row.expected, row.split, row.mark
    parts = [None] * 4 if split is None else [split.baseline, split.volume, split.price, split.mix]
    seen = [None, None, None] if mark is None else [mark.seen_at, mark.seen_by, mark.note]
    return [
        row.organization_id,
        row.day.isoformat(),
        row.credits,
        expected.level,
        expected.low,
        expected.high,
        row.credits_at_stake,
        row.usd_at_stake,
        *parts,
        state(row),
        *seen,
    ]


def state(row: Anomaly) -> str:
    """The state of an anomaly as a CSV cell: `new`, `seen` or `changed since seen`."""
    if row.has_changed:
        return "changed since seen"
    return "seen" if row.is_seen else "new"
