"""Checks of single usage events for a person to review. Pure: one stored row in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from billing_core.rating.card import RateCard
from billing_core.rating.rate import rate
from billing_core.types import Flag, plain_decimal
from billing_core.values.usage_frame import USAGE_SCHEMA

IMPLAUSIBLE_LATENCY_SECONDS = Decimal(24 * 3600)
"""A trace longer than a day is more often a reused trace id than one long request."""

_NEVER_RERATED = {Flag.LEGACY_BILLED, Flag.EXCLUDED_ENVIRONMENT, Flag.BAD_USAGE}


@dataclass(frozen=True, slots=True)
class LintFinding:
    """Something doubtful about one event: `rule` names the check in one word, `says` is a sentence with the values."""

    event_id: str
    rule: str
    says: str


def lint_event(row: Mapping[str, Any], card: RateCard | None) -> Iterator[LintFinding]:
    """The doubtful things about one ledger row (all stored columns), checked against the card it names."""
    flags = set((row["flags"] or "").split(","))
    if Flag.UNPRICED in flags and (row["tokens_total"] or 0) > 0:
        yield LintFinding(row["id"], "unpriced", f"{row['tokens_total']:,} tokens, and not all of them have a price")
    if row["latency_seconds"] > IMPLAUSIBLE_LATENCY_SECONDS:
        hours = row["latency_seconds"] / 3600
        yield LintFinding(
            row["id"], "latency", f"lasts {hours:,.1f} h, {plain_decimal(row['credits_compute'])} compute credits"
        )
    if card is not None and not flags & _NEVER_RERATED:
        yield from _not_from_the_card(row, card)


def _not_from_the_card(row: Mapping[str, Any], card: RateCard) -> Iterator[LintFinding]:
    usage = pa.Table.from_pylist([_usage_row(row)], schema=USAGE_SCHEMA)
    given = rate(usage, card).to_pylist()[0]
    for name in ("credits_ai_tokens", "credits_compute", "credits_storage"):
        if given[name] != row[name]:
            booked, due = plain_decimal(row[name]), plain_decimal(given[name])
            yield LintFinding(row["id"], "credits", f"{name} is {booked}, but card {card.id} gives {due}")


def _usage_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a stored row as rating reads them; what rating does not read is filled in harmlessly."""
    filled = {
        "models": [],
        "problems": [],
        "unpriced": Flag.UNPRICED in (row["flags"] or "").split(","),
        "bad_usage": False,
        "conflicting_attributes": False,
        "double_count_suspect": Flag.DOUBLE_COUNT_SUSPECT in (row["flags"] or "").split(","),
    }
    return {name: filled.get(name, row.get(name)) for name in USAGE_SCHEMA.names}
