"""Decides from Stripe's hourly sums whether single intents were counted. `resolve` and `agreeing` are pure.

A meter event cannot be read back; only sums per customer can. Every intent lies in one UTC hour, so the sum of
that hour is either what is known to have arrived, or that plus some of what is not known (Stripe notes, 4 and 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

from billing_core.ledger.schema import DELIVERED, DUPLICATE
from billing_core.ledger.sync import IntentUpdate
from billing_core.stripe.model import HourlySum
from billing_core.values.usage_frame import hour_of

MOST_UNKNOWN = 12
"""Unknown intents of one hour that are told apart by their sums; more stay unknown."""

SETTLED_AFTER = timedelta(hours=4)
"""By then a sum contains what was taken, and what Stripe rejects after taking it has been reported. Stripe names no
lag (Stripe notes, section 4: allow an hour at least)."""


def agreeing(intents: Iterable[Mapping[str, Any]], buckets: Iterable[HourlySum]) -> list[str]:
    """Identifiers of accepted intents that Stripe counted: their hour's sum is what was delivered, all known."""
    sums = {bucket.start: bucket.value for bucket in buckets}
    chosen: list[str] = []
    for hour, rows in _by_hour(intents).items():
        if any(row["state"] not in DELIVERED for row in rows):
            continue
        if sums.get(hour, Decimal(0)) == sum(row["value"] for row in rows):
            chosen += [row["identifier"] for row in rows if row["state"] == "accepted"]
    return chosen


def resolve(
    intents: Iterable[Mapping[str, Any]], buckets: Iterable[HourlySum], *, older_than: datetime, now: datetime
) -> list[IntentUpdate]:
    """Updates for intents whose outcome has been unknown since before `older_than`, where the hour's sum decides it.

    Within an hour, exactly one set of unknown intents must explain the sum: those arrived (`accepted`), the
    others never did (`void`). Several sets, or none: they stay unknown. So do those of an hour in which something
    happened so lately (answers `answered_at`, tries `last_attempt_at`) that its sum may still change.
    """
    sums = {bucket.start: bucket.value for bucket in buckets}
    answers: list[IntentUpdate] = []
    for hour, rows in _by_hour(intents).items():
        unknown = [row for row in rows if row["state"] not in DELIVERED]
        if not unknown or any(row["unknown_since"] is None or row["unknown_since"] >= older_than for row in unknown):
            continue  # one of them may still be repeated: that settles it better than arithmetic
        if any(_touched(row) >= now - SETTLED_AFTER for row in rows):
            continue
        missing = sums.get(hour, Decimal(0)) - sum(row["value"] for row in rows if row["state"] in DELIVERED)
        arrived = _explained(unknown, missing)
        if arrived is None:
            continue
        shown = f"{hour:%Y-%m-%d %H:%M} UTC"
        for row in unknown:
            if row["identifier"] in arrived:
                text = f"no answer came, but Stripe's sum for the hour from {shown} contains it"
                answers.append(IntentUpdate(row["identifier"], "accepted", now, text=text))
            else:
                text = f"never arrived: Stripe's sum for the hour from {shown} does not contain it"
                answers.append(IntentUpdate(row["identifier"], "void", now, text=text))
    return answers


@dataclass(frozen=True, slots=True)
class ValueMismatch:
    """An hour in which Stripe counts another value under our identifiers than was to be sent: what it `counted`, what
    of it was `delivered` from here, and which intents never arrived.
    """

    hour: datetime
    counted: Decimal
    delivered: Decimal
    identifiers: tuple[str, ...]


def judge_duplicates(
    intents: Iterable[Mapping[str, Any]], buckets: Iterable[HourlySum], *, now: datetime
) -> tuple[list[IntentUpdate], list[ValueMismatch]]:
    """Updates for intents that Stripe called duplicates although they were new here, and hours in which Stripe has
    another value.

    "Already there" says nothing of the value that is there; the hour's sum does. While it may lag, or another outcome
    in the hour is unknown, nothing is said.
    """
    sums = {bucket.start: bucket.value for bucket in buckets}
    same: list[IntentUpdate] = []
    other: list[ValueMismatch] = []
    for hour, rows in _by_hour(intents).items():
        doubtful = [row for row in rows if row["state"] == "sending" and row.get("code") == DUPLICATE]
        if not doubtful or any(row["state"] not in DELIVERED and row not in doubtful for row in rows):
            continue
        counted = sums.get(hour, Decimal(0))
        delivered = sum((Decimal(row["value"]) for row in rows if row["state"] in DELIVERED), Decimal(0))
        expected = delivered + sum(row["value"] for row in doubtful)
        if counted == expected:
            text = (
                f"Stripe had it before, and its sum for the hour from {hour:%Y-%m-%d %H:%M} UTC is what was to be sent"
            )
            same += [IntentUpdate(row["identifier"], "accepted", now, text=text, code=DUPLICATE) for row in doubtful]
        elif not _may_lag(rows, expected - counted, now) or (len(rows) == 1 and counted):
            other.append(ValueMismatch(hour, counted, delivered, tuple(row["identifier"] for row in doubtful)))
    return same, other


def _may_lag(intents: Iterable[Mapping[str, Any]], missing: Decimal, now: datetime) -> bool:
    """Whether a sum may come to contain what it is `missing`: some of what happened since sums are settled."""
    values: list[int] = [row["value"] for row in intents if _touched(row) >= now - SETTLED_AFTER]
    return sum(min(value, 0) for value in values) <= missing <= sum(max(value, 0) for value in values)


def _touched(row: Mapping[str, Any]) -> datetime:
    """When something last happened to an intent."""
    times = (row.get("answered_at"), row.get("last_attempt_at"), row["unknown_since"])
    return max((time for time in times if time is not None), default=datetime.min.replace(tzinfo=UTC))


def _by_hour(intents: Iterable[Mapping[str, Any]]) -> dict[datetime, list[Mapping[str, Any]]]:
    hours: dict[datetime, list[Mapping[str, Any]]] = {}
    for row in intents:
        hours.setdefault(hour_of(row["stamp"]), []).append(row)
    return hours


def _explained(unknown: Sequence[Mapping[str, Any]], missing: Decimal) -> set[str] | None:
    """The one set of unknown intents whose values add up to `missing`; `None` if there is none or more than one."""
    if all(row["value"] > 0 for row in unknown):  # then "none" and "all" have no rival, however many there are
        if missing == 0:
            return set()
        if missing == sum(row["value"] for row in unknown):
            return {row["identifier"] for row in unknown}
    if len(unknown) > MOST_UNKNOWN:
        return None
    found = [
        {row["identifier"] for row in chosen}
        for size in range(len(unknown) + 1)
        for chosen in combinations(unknown, size)
        if sum(row["value"] for row in chosen) == missing
    ]
    return found[0] if len(found) == 1 else None
