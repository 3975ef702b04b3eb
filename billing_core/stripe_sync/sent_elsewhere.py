"""Usage that Stripe may count already although this ledger did not send it.

A ledger that was restored from a backup, lost and pulled anew, or filled from a file does not remember what was sent
since, and Stripe recognises an identifier for about a day only. Its hourly sums tell: what they hold of an hour beyond
what is known here was sent by somebody else. Then the customer's unsent usage up to that hour is kept back, with both
figures, until a person decides. `docs/stripe.md` says what is asked when, and what it costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import NotFound, UpstreamError
from billing_core.ledger import sent_elsewhere as known
from billing_core.ledger.engine import Engine
from billing_core.ledger.sent_elsewhere import WHOLE, ExcessHour, UntriedEvent
from billing_core.ledger.sync import DUPLICATE, Candidates, Excess, KeepBack
from billing_core.stripe import intents as planning
from billing_core.stripe.delivery import IDEMPOTENCY_ERROR
from billing_core.stripe_sync.confirmation import SETTLED_AFTER
from billing_core.values.time_columns import cut_to
from billing_core.values.usage_frame import HOUR, Window

__all__ = ["MEMORY", "ClearedToSend", "Sums", "clear", "excesses", "hours_to_clear", "reason_of", "usage_to_keep_back"]

MEMORY = timedelta(hours=20)
"""Stripe recognises an identifier for at least 24 hours; this leaves a margin."""

MOST_UNREAD = 3
"""Customers whose sums cannot be read, until Stripe counts as out of reach for this push."""

Place = tuple[str, datetime]
"""A customer and the UTC hour that begins then."""

Sums = Callable[[str, datetime, datetime], Mapping[datetime, Decimal]]
"""What Stripe counts for a customer in `[start, end)`: UTC hour → credits; what is not there is 0."""


@dataclass(frozen=True, slots=True)
class ClearedToSend:
    """What may be sent now.

    Attributes
    ----------
    places:
        Where usage may be sent to.
    keep_back:
        What may not, because Stripe may count it already.
    unread:
        Customer → why Stripe's sums could not be read: nothing is sent for it into the places that are missing.
    """

    places: frozenset[Place] = frozenset()
    keep_back: KeepBack = field(default_factory=KeepBack)
    unread: Mapping[str, str] = field(default_factory=dict)

    def sendable(self, given: Candidates, now: datetime) -> pa.Table:
        """Of `given.events` those whose place is cleared: a pull may have brought others since Stripe was asked."""
        rows = planning.owed(given.events, given.covered)[0]
        missing = hours_to_clear(_by_place(rows), given.carried, now) - self.places
        if not missing:
            return given.events
        not_yet = _in_places(rows, missing)
        return given.events.filter(pc.invert(pc.is_in(given.events["id"], not_yet.combine_chunks())))


def hours_to_clear(owed: Mapping[Place, Decimal], carried: Mapping[str, Decimal], now: datetime) -> set[Place]:
    """Where a push would send usage to: hours that Stripe still takes, of customers who owe a whole credit.

    `owed` holds what is owed and not covered; what is given back never bills anything twice and is not in it.
    """
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for (customer, _), credits_ in owed.items():
        totals[customer] += credits_
    oldest = now - planning.OLDEST - HOUR
    return {
        (customer, hour)
        for customer, hour in owed
        if hour > oldest and totals[customer] + max(carried.get(customer, Decimal(0)), Decimal(0)) >= WHOLE
    }


def excesses(
    customer_id: str,
    counted: Mapping[datetime, Decimal],
    delivered: Mapping[datetime, Decimal],
    before: Iterable[ExcessHour],
) -> list[Excess]:
    """Hours in which Stripe counts a whole credit or more beyond what is known, and more than was found before."""
    known_already: dict[datetime, Decimal] = defaultdict(Decimal)
    for found in before:
        if found.excess.customer_id == customer_id:
            known_already[found.excess.hour] = max(known_already[found.excess.hour], found.excess.credits)
    seen = (
        Excess(customer_id, hour, total, delivered.get(hour, Decimal(0))) for hour, total in sorted(counted.items())
    )
    return [one for one in seen if one.credits - known_already[one.hour] >= WHOLE]


def usage_to_keep_back(
    usage: Iterable[tuple[str, datetime]], found: Iterable[ExcessHour], decided: Mapping[str, datetime]
) -> dict[str, Excess]:
    """Of one customer's unsent usage (event, UTC hour) what Stripe may count, with the hour that says so.

    Whoever sends in the order of time and carries fractions on may have counted usage of an hour in a later one: so all
    usage up to an hour with more than is known is kept back. What somebody released waits for what was found since.
    """
    undecided = sorted((one for one in found if not one.is_decided), key=lambda one: one.excess.hour)
    kept: dict[str, Excess] = {}
    for event_id, hour in usage:
        released = decided.get(event_id)
        later = [one for one in undecided if one.excess.hour >= hour and (released is None or one.found_at > released)]
        if later:
            kept[event_id] = later[0].excess if later[0].excess.hour == hour else later[-1].excess
    return kept


def clear(
    engine: Engine, given: Candidates, sums: Sums, *, now: datetime, may_ask: Callable[[], bool] = lambda: True
) -> ClearedToSend:
    """Find out where a push may send to, asking Stripe's sums where this ledger cannot know.

    An hour this ledger sent into within `MEMORY` needs no look: whoever sends the same is recognised. When `may_ask`
    says that the ration of reads is used up, neither does one that began within `MEMORY`, of a customer this ledger
    sent something to within that time: what somebody else sent into it lies within Stripe's memory too.
    """
    now_at = planning.owed(given.events, given.covered)[0]
    rows = _with_told_times(now_at, known.told_times(engine))
    untried = [one for one in known.untried_intents(engine) if one.value > 0]
    owed: dict[Place, Decimal] = defaultdict(Decimal, _by_place(rows) | _by_place(now_at))
    for one in untried:
        owed[one.customer_id, one.hour] += Decimal(one.value)
    wanted = hours_to_clear(owed, given.carried, now)
    before, since = known.found_before(engine), now - MEMORY
    sent_into = known.sent_into_since(engine, since)
    in_touch = {customer for customer, _ in sent_into}
    refused = _not_looked_at(known.conflicting_hours(engine, "rejected", IDEMPOTENCY_ERROR), before)
    conflicts = refused | _not_looked_at(known.conflicting_hours(engine, "void", DUPLICATE), before)
    sent_into -= conflicts
    cleared = wanted & sent_into
    new: list[Excess] = []
    unread: dict[str, str] = {}
    for customer, hours in _by_customer(wanted - sent_into).items():
        places = {(customer, hour) for hour in hours}
        must = customer not in in_touch or min(hours) < since or bool(places & conflicts)
        if not must and not may_ask():
            cleared |= places
            continue
        if len(unread) >= MOST_UNREAD and must:
            unread[customer] = next(iter(unread.values()))
            continue
        window = Window(min(hours), max(hours) + HOUR)
        try:
            counted = sums(customer, window.start, window.end)
        except NotFound:  # no such customer: nothing is counted for it
            counted = {}
        except UpstreamError as error:
            if must:
                unread[customer] = str(error)
            else:
                cleared |= places
            continue
        cleared |= places
        delivered = known.billed_by_hour(engine, customer, window, recent=now - SETTLED_AFTER)
        more = excesses(customer, counted, delivered, before)
        new += more
        shown, nothing = {one.hour for one in more}, Decimal(0)
        new += [  # Stripe said that it has something else under our identifier, and its sums do not show it yet
            Excess(customer, hour, counted.get(hour, nothing), delivered.get(hour, nothing))
            for hour in hours
            if (customer, hour) in refused and hour not in shown
        ]
    found = [*before, *(ExcessHour(excess, now, is_decided=False) for excess in new)]
    return ClearedToSend(
        frozenset(cleared), _keep_back(rows, untried, found, new, known.decided_events(engine)), unread
    )


def _not_looked_at(conflicts: Mapping[Place, datetime], before: Iterable[ExcessHour]) -> set[Place]:
    """Of hours in which Stripe has other bytes under an identifier of ours those without a finding since it said so."""
    looked: dict[Place, datetime] = {}
    for one in before:
        looked[one.excess.customer_id, one.excess.hour] = one.found_at  # the newest is last
    return {place for place, said in conflicts.items() if place not in looked or looked[place] < said}


def _keep_back(
    rows: pa.Table,
    untried: Iterable[UntriedEvent],
    found: Iterable[ExcessHour],
    new: list[Excess],
    decided: Mapping[str, datetime],
) -> KeepBack:
    by_customer: dict[str, list[ExcessHour]] = defaultdict(list)
    for one in found:
        by_customer[one.excess.customer_id].append(one)
    waiting: dict[str, list[UntriedEvent]] = defaultdict(list)
    for intent in untried:
        waiting[intent.customer_id].append(intent)
    reasons: dict[str, str] = {}
    withdrawn: list[str] = []
    for customer, places in by_customer.items():
        if all(place.is_decided for place in places):
            continue
        mine = rows.filter(pc.and_(pc.equal(rows["customer_id"], customer), pc.greater(rows["delta"], 0)))
        usage = [(id_, hour.replace(tzinfo=UTC)) for id_, hour in zip(
            mine["id"].to_pylist(), _hours_of(mine).to_pylist(), strict=True
        )]  # fmt: skip
        kept = usage_to_keep_back(usage, places, decided)
        for intent in waiting[customer]:
            carries = usage_to_keep_back(((id_, intent.hour) for id_ in intent.event_ids), places, decided)
            if carries:
                kept |= carries
                withdrawn.append(intent.identifier)
        reasons |= {event_id: reason_of(excess) for event_id, excess in kept.items()}
    return KeepBack(reasons, tuple(new), tuple(withdrawn))


def reason_of(excess: Excess) -> str:
    """Why usage is kept back, with both figures."""
    hour = f"the hour from {excess.hour:%Y-%m-%d %H:%M} UTC"
    if excess.credits < WHOLE:
        said = f"Stripe has another value under an identifier of {hour} than was to be sent from here"
    else:
        counted, delivered = f"{excess.counted.normalize():,f}", f"{excess.delivered.normalize():,f}"
        said = f"Stripe counts {counted} credits in {hour}, of which {delivered} are known to this ledger"
    return f"{said}; another copy of it may have sent this usage. Release it if it was not sent"


def _with_told_times(rows: pa.Table, told: pa.Table | None) -> pa.Table:
    """Imported usage lies where its file had it, if that is earlier: there another ledger may have sent it."""
    if told is None:
        return rows
    joined = rows.join(told, "id", join_type="left outer")
    at = pc.min_element_wise(joined["at"], joined["told_at"])
    return joined.set_column(joined.schema.get_field_index("at"), "at", at).drop_columns(["told_at"])


def _hours_of(rows: pa.Table) -> Any:
    return cut_to(rows["at"], HOUR)


def _by_place(rows: pa.Table) -> dict[Place, Decimal]:
    """What is owed by customer and hour; what is given back left out."""
    owing = rows.filter(pc.greater(rows["delta"], 0))
    places = pa.table({"customer": owing["customer_id"], "hour": _hours_of(owing), "delta": owing["delta"]})
    sums = places.group_by(["customer", "hour"]).aggregate([("delta", "sum")])
    return {
        (row["customer"], row["hour"].replace(tzinfo=UTC)): Decimal(row["delta_sum"]) / planning.UNIT
        for row in sums.to_pylist()
    }


def _in_places(rows: pa.Table, places: set[Place]) -> pa.ChunkedArray:
    """Ids of what is owed in these places."""
    wanted = pa.table(
        {
            "customer_id": pa.array([customer for customer, _ in places], pa.string()),
            "hour": pa.array([hour.replace(tzinfo=None) for _, hour in places], pa.timestamp("us")),
        }
    )
    placed = rows.append_column("hour", _hours_of(rows)).filter(pc.greater(rows["delta"], 0))
    return placed.join(wanted, ["customer_id", "hour"], join_type="left semi")["id"]


def _by_customer(places: Iterable[Place]) -> dict[str, list[datetime]]:
    hours: dict[str, list[datetime]] = defaultdict(list)
    for customer, hour in sorted(places):
        hours[customer].append(hour)
    return dict(hours)
