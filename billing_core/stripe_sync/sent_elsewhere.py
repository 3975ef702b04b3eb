"""Finds usage that Stripe may already count although this ledger did not send it, and keeps it back.

A ledger that was restored from a backup, lost and pulled anew, or filled from a file does not remember what was sent
since, and Stripe recognises an identifier for about a day only. Its hourly sums tell: what they hold of an hour beyond
what is known here was sent by somebody else, and what they lack was taken back by somebody else. Then what the customer
has unsent up to that hour is kept back, with both figures, until a person decides. `docs/stripe.md` says what is asked
when, and what it costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import NotFound, UpstreamError
from billing_core.ledger import sent_elsewhere as known
from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import DUPLICATE
from billing_core.ledger.sent_elsewhere import WHOLE, Billed, Difference, DifferingHour, KeepBack, UntriedEvent
from billing_core.ledger.sync import Candidates
from billing_core.stripe import intents as planning
from billing_core.stripe.delivery import IDEMPOTENCY_ERROR
from billing_core.stripe_sync.confirmation import SETTLED_AFTER
from billing_core.values.time_columns import cut_to
from billing_core.values.usage_frame import HOUR, Window, hour_of

MEMORY = timedelta(hours=20)
"""Stripe recognises an identifier for at least 24 hours; this leaves a margin."""

PAGE = 100 * HOUR
"""Hours of sums that one read brings."""

MOST_UNREAD = 3
"""Customers whose sums cannot be read, until Stripe counts as out of reach for this push."""

Place = tuple[str, datetime]
"""A customer and the UTC hour that begins then."""

ReadSums = Callable[[str, datetime, datetime], Mapping[datetime, Decimal]]
"""What Stripe counts for a customer in `[start, end)`: UTC hour → credits; what is not there is 0."""


class Owed(NamedTuple):
    """What one usage event owes a customer in a UTC hour, in credits; negative: what the customer gets back.

    Of usage that moved there is another one for each hour and customer it was booked for before, `has_moved`: nothing
    will be sent there, but another copy of this ledger may have.
    """

    event_id: str
    customer_id: str
    hour: datetime
    credits: Decimal
    has_moved: bool = False

    @property
    def place(self) -> Place:
        """The customer and UTC hour it is, or was, booked for."""
        return self.customer_id, self.hour


@dataclass(frozen=True, slots=True)
class ClearedToSend:
    """Which customers' hours a push may send usage for, and which events it must keep back.

    places: Where usage may be sent to.
    keep_back: What may not, because Stripe may count it already.
    unread: Customer → why Stripe's sums could not be read: nothing is sent for it into the places that are missing.
    """

    places: frozenset[Place] = frozenset()
    keep_back: KeepBack = field(default_factory=KeepBack)
    unread: Mapping[str, str] = field(default_factory=dict)

    def sendable(self, given: Candidates, now: datetime) -> pa.Table:
        """Those of `given.events` with a cleared customer and hour; a pull may have added others meanwhile."""
        rows = _owed(given)
        missing = _places_of_a_push(_by_place(rows), given.carried, now) - self.places
        if not missing:
            return given.events
        not_yet = _in_places(rows, missing)["id"]
        return given.events.filter(pc.invert(pc.is_in(given.events["id"], not_yet.combine_chunks())))


class Sums(NamedTuple):
    """Credits owed for a customer's hour, and credits given back there (negative)."""

    up: Decimal
    down: Decimal


def _places_of_a_push(owed: Mapping[Place, Sums], carried: Mapping[str, Decimal], now: datetime) -> set[Place]:
    """Where a push would send to or take back from: hours that Stripe still takes, of customers with whole credits.

    The running sum of what a customer owes begins at the carried fraction; it neither reaches a whole credit nor falls
    below zero if not even all usage, or all corrections, do that.
    """
    up, down = defaultdict[str, Decimal](Decimal), defaultdict[str, Decimal](Decimal)
    for (customer, _), sums in owed.items():
        up[customer] += sums.up
        down[customer] += sums.down
    rest = {customer: carried.get(customer, Decimal(0)) for customer in up}
    moving = {c for c in rest if up[c] + max(rest[c], Decimal(0)) >= WHOLE or (down[c] and rest[c] + down[c] < 0)}
    oldest = now - planning.OLDEST - HOUR
    return {(customer, hour) for customer, hour in owed if customer in moving and hour > oldest}


def differences(
    customer_id: str,
    counted: Mapping[datetime, Decimal],
    billed: Mapping[datetime, Billed],
    before: Iterable[DifferingHour],
) -> list[Difference]:
    """Hours in which Stripe counts a whole credit more, or less, than is known here and found before."""
    most, least = defaultdict[datetime, Decimal](Decimal), defaultdict[datetime, Decimal](Decimal)
    for found in before:
        one = found.difference
        if one.customer_id == customer_id:
            most[one.hour], least[one.hour] = max(most[one.hour], one.credits), min(least[one.hour], one.credits)
    nothing = Decimal(0)
    new = []
    for hour in sorted({*counted, *billed}):
        known_here = billed.get(hour, Billed(nothing, nothing))
        more = Difference(customer_id, hour, counted.get(hour, nothing), known_here.most)
        less = Difference(customer_id, hour, counted.get(hour, nothing), known_here.least)
        if more.credits - most[hour] >= WHOLE:
            new.append(more)
        elif less.credits - least[hour] <= -WHOLE:
            new.append(less)
    return new


def events_to_keep_back(
    owed: Iterable[Owed], found: Iterable[DifferingHour], decided: Mapping[str, datetime]
) -> dict[str, Difference]:
    """Unsent events of one customer that Stripe may already count: event → the differing hour that is the reason.

    Whoever sends in the order of time and carries fractions on may have counted usage of an hour in a later one: so
    everything up to an hour with a difference is kept back: usage where Stripe counts more, corrections where it counts
    less. One meter event may have carried both: with the one of them goes the other. What somebody released waits for
    what was found since.
    """
    kept: dict[str, Difference] = {}
    rows, open_ones = list(owed), [one for one in found if not one.is_decided]
    for sign in (1, -1):
        said = sorted(
            (one for one in open_ones if one.difference.credits * sign > -WHOLE), key=lambda one: one.difference.hour
        )
        if not any(_reason_for(one, said, decided) for one in rows if one.credits * sign > 0):
            continue
        for one in rows:
            if (difference := _reason_for(one, said, decided)) is not None:
                kept.setdefault(one.event_id, difference)
    return kept


def _reason_for(one: Owed, said: Iterable[DifferingHour], decided: Mapping[str, datetime]) -> Difference | None:
    """Its own hour if that is among the differences, else the last of those after it."""
    released = decided.get(one.event_id)
    later = [
        found.difference
        for found in said
        if found.difference.hour >= one.hour and (released is None or found.found_at > released)
    ]
    if not later:
        return None
    return later[0] if later[0].hour == one.hour else later[-1]


def clear_to_send(
    engine: Engine, given: Candidates, sums: ReadSums, *, now: datetime, may_ask: Callable[[], bool] = lambda: True
) -> ClearedToSend:
    """Which customers' hours a push may send usage for, reading Stripe's sums where this ledger cannot know.

    An hour this ledger sent into within `MEMORY` needs no look: whoever sends the same is recognised. When `may_ask`
    says that the ration of reads is used up, neither does one that began within `MEMORY`, of a customer this ledger
    sent something to within that time: what somebody else sent into it lies within Stripe's memory too. Usage that
    moved would get another identifier: where it was before is always looked at.
    """
    rows, untried = _owed(given), known.untried_intents(engine)
    wanted = _places_of_a_push(_with_untried(_by_place(rows), untried), given.carried, now)
    former = _former(engine, given, rows, wanted, now)
    moved_from = {one.place for one in former}
    before, since = known.found_before(engine), now - MEMORY
    sent_into = known.sent_into_since(engine, since)
    in_touch = {customer for customer, _ in sent_into}
    refused = _unexamined(known.conflicting_hours(engine, "rejected", IDEMPOTENCY_ERROR), before)
    conflicts = refused | _unexamined(known.conflicting_hours(engine, "void", DUPLICATE), before)
    sent_into -= conflicts | moved_from
    cleared = wanted & sent_into
    new: list[Difference] = []
    unread: dict[str, str] = {}
    for customer, hours in _by_customer((wanted | moved_from) - sent_into).items():
        places = {(customer, hour) for hour in hours}
        must = customer not in in_touch or min(hours) < since or bool(places & (conflicts | moved_from))
        if not must and not may_ask():
            cleared |= places
            continue
        if len(unread) >= MOST_UNREAD and must:
            unread[customer] = next(iter(unread.values()))
            continue
        window = _window(hours, now)
        try:
            counted = sums(customer, window.start, window.end)
            billed = known.billed_by_hour(engine, customer, window, recent=now - SETTLED_AFTER)
        except NotFound:  # no such customer: Stripe's own refusal follows
            counted, billed = {}, {}
        except UpstreamError as error:
            if must:
                unread[customer] = str(error)
            else:
                cleared |= places
            continue
        cleared |= places
        more = differences(customer, counted, billed, before)
        new += more
        shown, nothing = {one.hour for one in more}, Decimal(0)
        new += [  # Stripe said that it has something else under our identifier, and its sums do not show it yet
            Difference(customer, hour, counted.get(hour, nothing), billed.get(hour, Billed(nothing, nothing)).most)
            for hour in hours
            if (customer, hour) in refused and hour not in shown
        ]
    unknown = {one.event_id for one in former if one.place not in cleared}
    waiting = {one.place for one in _as_owed(_of(rows, "id", unknown))} if unknown else set()
    found = [*before, *(DifferingHour(one, now, is_decided=False) for one in new)]
    kept = _keep_back(rows, former, untried, found, new, known.decided_events(engine))
    return ClearedToSend(frozenset(cleared - waiting), kept, unread)


def _window(hours: Iterable[datetime], now: datetime) -> Window:
    """From the first hour to the last, and as many more as the last page of sums has room for."""
    start, end = min(hours), max(hours) + HOUR
    pages = -((start - end) // PAGE)
    return Window(start, max(end, min(start + pages * PAGE, hour_of(now) + HOUR)))


def _unexamined(conflicts: Mapping[Place, datetime], before: Iterable[DifferingHour]) -> set[Place]:
    """Of hours in which Stripe has other bytes under an identifier of ours those without a finding since it said so."""
    looked: dict[Place, datetime] = {}
    for one in before:
        looked[one.difference.customer_id, one.difference.hour] = one.found_at  # the newest is last
    return {place for place, said in conflicts.items() if place not in looked or looked[place] < said}


def _keep_back(
    rows: pa.Table,
    former: Iterable[Owed],
    untried: Iterable[UntriedEvent],
    found: Iterable[DifferingHour],
    new: list[Difference],
    decided: Mapping[str, datetime],
) -> KeepBack:
    by_customer = defaultdict[str, list[DifferingHour]](list)
    for one in found:
        by_customer[one.difference.customer_id].append(one)
    reasons: dict[str, str] = {}
    withdrawn: list[str] = []
    for customer, places in by_customer.items():
        if all(place.is_decided for place in places):
            continue
        moved = [row for row in former if row.customer_id == customer]
        kept = events_to_keep_back([*_as_owed(_of(rows, "customer_id", {customer})), *moved], places, decided)
        for intent in untried:
            if intent.customer_id == customer and (
                carries := events_to_keep_back(_carried_by(intent), places, decided)
            ):
                kept |= carries
                withdrawn.append(intent.identifier)
        ids = {row.event_id for row in moved}
        reasons |= {event_id: reason_of(one, of_another=event_id in ids) for event_id, one in kept.items()}
    return KeepBack(reasons, tuple(new), tuple(withdrawn))


def reason_of(difference: Difference, *, of_another: bool = False) -> str:
    """The reason for keeping usage back, with both figures; `of_another`: counted where it was before."""
    hour = f"the hour from {difference.hour:%Y-%m-%d %H:%M} UTC"
    if of_another:
        hour += f" of {difference.customer_id}, where this usage was before"
    counted, delivered = (f"{value.normalize():,f}" for value in (difference.counted, difference.delivered))
    if difference.credits <= -WHOLE:
        return (
            f"Stripe counts {counted} credits in {hour}, of which this ledger sent {delivered}; another copy of it may "
            "have taken this usage back. Release it if it did not"
        )
    if difference.credits < WHOLE:
        said = f"Stripe has another value under an identifier of {hour} than was to be sent from here"
    else:
        said = f"Stripe counts {counted} credits in {hour}, of which {delivered} are known to this ledger"
    return f"{said}; another copy of it may have sent this usage. Release it if it was not sent"


# ── what is owed, and where ──────────────────────────────────────────────────────────────────────


def _owed(given: Candidates) -> pa.Table:
    """What events owe and get back (`id`, `customer_id`, `hour`, `delta` in millionths of a credit)."""
    rows = planning.owed(given.events, given.covered)[0]
    return rows.append_column("hour", cut_to(rows["at"], HOUR)).select(["id", "customer_id", "hour", "delta"])


def _as_owed(rows: pa.Table) -> list[Owed]:
    return [
        Owed(row["id"], row["customer_id"], row["hour"].replace(tzinfo=UTC), Decimal(row["delta"]) / planning.UNIT)
        for row in rows.to_pylist()
    ]


def _by_place(rows: pa.Table) -> dict[Place, Sums]:
    signed = {
        "customer": rows["customer_id"],
        "hour": rows["hour"],
        "up": pc.max_element_wise(rows["delta"], 0),
        "down": pc.min_element_wise(rows["delta"], 0),
    }
    sums = pa.table(signed).group_by(["customer", "hour"]).aggregate([("up", "sum"), ("down", "sum")])
    return {
        (row["customer"], row["hour"].replace(tzinfo=UTC)): Sums(
            Decimal(row["up_sum"]) / planning.UNIT, Decimal(row["down_sum"]) / planning.UNIT
        )
        for row in sums.to_pylist()
    }


def _with_untried(owed: Mapping[Place, Sums], untried: Iterable[UntriedEvent]) -> dict[Place, Sums]:
    both = defaultdict[Place, Sums](lambda: Sums(Decimal(0), Decimal(0)), owed)
    for one in untried:
        sums, place = both[one.customer_id, one.hour], (one.customer_id, one.hour)
        both[place] = Sums(sums.up + max(one.value, 0), sums.down + min(one.value, 0))
    return both


def _of(rows: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows[column], pa.array(sorted(values), pa.string())))


def _in_places(rows: pa.Table, places: set[Place]) -> pa.Table:
    wanted = pa.table(
        {
            "customer_id": pa.array([customer for customer, _ in places], pa.string()),
            "hour": pa.array([hour.replace(tzinfo=None) for _, hour in places], pa.timestamp("us")),
        }
    )
    return rows.join(wanted, ["customer_id", "hour"], join_type="left semi")


def _carried_by(intent: UntriedEvent) -> Iterator[Owed]:
    """A meter event as what it covers; nobody needs to know which part is whose."""
    for event_id in intent.event_ids:
        yield Owed(event_id, intent.customer_id, intent.hour, Decimal(intent.value))


def _former(engine: Engine, given: Candidates, rows: pa.Table, wanted: set[Place], now: datetime) -> list[Owed]:
    """Where usage was that is to be sent now. What this ledger sent for another customer before, it knows of."""
    places = known.former_places(engine)
    if not places:
        return []
    covered = set(zip(given.covered["event_id"].to_pylist(), given.covered["customer_id"].to_pylist(), strict=True))
    oldest = now - planning.OLDEST - HOUR
    return [
        Owed(one.event_id, customer, hour, one.credits, has_moved=True)
        for one in _as_owed(_of(rows, "id", places))
        if one.credits > 0 and one.place in wanted
        for customer, hour in places[one.event_id]
        if hour > oldest and (customer == one.customer_id or (one.event_id, customer) not in covered)
    ]


def _by_customer(places: Iterable[Place]) -> dict[str, list[datetime]]:
    hours: dict[str, list[datetime]] = defaultdict(list)
    for customer, hour in sorted(places):
        hours[customer].append(hour)
    return dict(hours)
