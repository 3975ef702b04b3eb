"""Plans meter events from usage: which intents to write down. Pure, columnar and exact.

Per customer, in the order of their times, credits not covered by an earlier intent are added up; whenever the
running sum (with the fraction carried along from before) passes whole credits, those are sent and the rest is
carried on. So what was sent is always the rounded-down sum of what is owed: nothing is rounded up, nothing lost.
What is too old, or belongs to a billing period that is over, is held with the reason; nothing is re-dated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.settings import Granularity
from billing_core.values.decimals import from_integers, to_integers

OLDEST = timedelta(days=35)
"""Stripe takes no older timestamp."""

UNIT = 10**6
"""Credits have six decimal places."""

HOUR_US = 3_600 * UNIT
CREDITS = pa.decimal128(18, 6)
TIME = pa.timestamp("us")
LARGEST_SUM = 4 * 10**18
"""Up to here sums fit 64 bits for certain; beyond (only absurd usage gets there) Python's integers add up."""

CANDIDATES = pa.schema(
    {
        "id": pa.string(),
        "customer_id": pa.string(),
        "timestamp": TIME,
        "credits_total": CREDITS,
        "sync_status": pa.string(),
        "marks": pa.string(),
    }
)
"""Settled events that may owe something: pending ones, and sent ones that changed since."""

COVERED = pa.schema(
    {"event_id": pa.string(), "customer_id": pa.string(), "credits": CREDITS, "written_off": CREDITS, "stamp": TIME}
)
"""What valid intents and invoice items cover of those events, and what was written off, per event and customer; `stamp`
is the newest one's."""

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class BillingPeriods(Protocol):
    """What planning needs to know of a customer's billing periods."""

    def edges(self, start: datetime, end: datetime) -> tuple[datetime, ...]:
        """Beginnings and ends of billing periods strictly inside `(start, end)`, ascending."""

    def closed(self, at: datetime) -> str | None:
        """The reason why usage at a time can no longer be billed in its period; `None` while it can."""


@dataclass(frozen=True, slots=True)
class PlanningRules:
    """The rules for one plan of intents. `environment` keeps live and test identifiers apart; `now` is aware UTC.

    `taken` are identifiers that another ledger gave: Stripe would take an intent with one of them for a repetition.
    """

    event_name: str
    environment: str
    granularity: Granularity
    now: datetime
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hold:
    """An event to be held back: `cause` as the ledger stores it, `reason` for people."""

    event_id: str
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class PushPlan:
    """The result of planning a push: intents and holds to write down.

    intents: identifier, event_name, customer_id, source, revision, stamp, credits, carried_before, value, events.
    coverage: identifier, event_id, customer_id, credits: every intent's credits are the sum of its rows here.
    carried: Ids of pending events that wait because their customer has less than a whole credit so far.
    complete: Ids of pending events whose credits are covered already: nothing is owed for them.
    """

    intents: pa.Table
    coverage: pa.Table
    carried: list[str]
    complete: list[str]
    holds: list[Hold]


def identifier_of(rules: PlanningRules, customer_id: str, source: str, revision: int) -> str:
    """The identifier of a meter event: 70 characters, the same for the same fact whoever computes it, whenever."""
    fact = json.dumps([rules.environment, rules.event_name, customer_id, source, revision])
    return "usage_" + hashlib.sha256(fact.encode()).hexdigest()


def plan(
    candidates: pa.Table,
    covered: pa.Table,
    carried: Mapping[str, Decimal],
    calendars: Mapping[str, BillingPeriods],
    revisions: Mapping[tuple[str, str], int],
    rules: PlanningRules,
) -> PushPlan:
    """The intents for everything that `candidates` owe beyond what is `covered`.

    candidates, covered: As `CANDIDATES` and `COVERED` say.
    carried: Customer → credits covered by earlier valid intents minus whole credits they carry; absent means 0.
    revisions: (customer, source) → number of intents there have been, whatever became of them.
    """
    rows, complete = owed(candidates, covered)
    entries = _Entries.of(rows, calendars, rules)
    keep, holds = _sendable(entries, calendars, rules)
    entries = entries.take(np.flatnonzero(keep))
    cut = _cut(entries, carried, rules)
    intents, coverage = _tables(entries, cut, revisions, rules)
    loose = entries.ids.filter(pa.array((cut.intent_of_row < 0) & entries.is_pending))
    return PushPlan(intents, coverage, loose.to_pylist(), complete, holds)


def owed(candidates: pa.Table, covered: pa.Table) -> tuple[pa.Table, list[str]]:
    """What each event owes each customer beyond what is covered, and pending events that owe nothing any more.

    Columns: id, customer_id, at, delta (millionths of a credit), pending, waited. An event that was sent for another
    customer than it has now owes that one its credits back.
    """
    covered = covered.select(COVERED.names)
    mine = candidates.join(
        covered.rename_columns(["id", "customer_id", "covered", "written_off", "stamp"]),
        ["id", "customer_id"],
        join_type="left outer",
    )
    already, written_off = to_integers(mine["covered"]), to_integers(mine["written_off"])
    delta = without_written_off(to_integers(mine["credits_total"]) - already, written_off)
    pending = pc.equal(mine["sync_status"], "pending").to_numpy()
    is_covered = (already != 0) | (written_off != 0)
    complete = mine["id"].filter(pa.array((delta == 0) & is_covered & pending)).to_pylist()
    known = mine["customer_id"].is_valid().to_numpy()
    rows = pa.table(
        {
            "id": mine["id"],
            "customer_id": mine["customer_id"],
            "at": mine["timestamp"],
            "delta": pa.array(delta),
            "pending": pa.array(pending),
            "waited": pc.match_substring(mine["marks"], "carried"),
        }
    ).filter(pa.array((delta != 0) & known))
    now_of = candidates.select(["id", "customer_id"])
    back = covered.join(now_of, ["event_id", "customer_id"], ["id", "customer_id"], "left anti")
    back_delta = without_written_off(-to_integers(back["credits"]), to_integers(back["written_off"]))
    no = pa.array(np.zeros(back.num_rows, dtype=bool))
    returned = pa.table(
        {
            "id": back["event_id"],
            "customer_id": back["customer_id"],
            "at": back["stamp"],
            "delta": pa.array(back_delta),
            "pending": no,
            "waited": no,
        }
    ).filter(pa.array(back_delta != 0))
    return pa.concat_tables([rows, returned]), complete


def without_written_off(owed: Ints, written_off: Ints) -> Ints:
    """What is still owed once credits were written off (both in millionths of a credit, elementwise).

    A write-off takes at most what is owed: usage that shrinks afterwards gives nobody back what nobody paid.
    """
    most, least = np.maximum(owed, 0), np.minimum(owed, 0)
    return owed - np.clip(written_off, least, most)


@dataclass(frozen=True, slots=True)
class _Entries:
    """Owed rows sorted by customer and time. Times in microseconds since 1970, `delta` in millionths of a credit."""

    ids: pa.Array
    customers: pa.Array
    codes: Ints
    at: Ints
    slots: Ints
    stamps: Ints
    delta: Ints
    is_pending: Mask
    waited: Mask

    @classmethod
    def of(cls, owed: pa.Table, calendars: Mapping[str, BillingPeriods], rules: PlanningRules) -> _Entries:
        owed = owed.sort_by([("customer_id", "ascending"), ("at", "ascending"), ("id", "ascending")]).combine_chunks()
        customers = _only(owed["customer_id"]).dictionary_encode()
        at = _only(owed["at"]).cast(pa.int64()).to_numpy(zero_copy_only=False)
        codes = customers.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        slots = _slots(at, codes, customers.dictionary.to_pylist(), calendars)
        by_event = rules.granularity is Granularity.EVENT
        return cls(
            _only(owed["id"]),
            customers.dictionary,
            codes,
            at,
            slots,
            at // UNIT * UNIT if by_event else slots,
            _only(owed["delta"]).to_numpy(zero_copy_only=False),
            _only(owed["pending"]).to_numpy(zero_copy_only=False),
            _only(owed["waited"]).to_numpy(zero_copy_only=False),
        )

    def take(self, rows: Ints) -> _Entries:
        return _Entries(
            self.ids.take(pa.array(rows)),
            self.customers,
            self.codes[rows],
            self.at[rows],
            self.slots[rows],
            self.stamps[rows],
            self.delta[rows],
            self.is_pending[rows],
            self.waited[rows],
        )


def _only(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _slots(at: Ints, codes: Ints, customers: list[str], calendars: Mapping[str, BillingPeriods]) -> Ints:
    """The start of each row's UTC hour, or of the billing period that begins inside it."""
    slots = at // HOUR_US * HOUR_US
    bounds = np.searchsorted(codes, np.arange(len(customers) + 1))
    for code, customer in enumerate(customers):
        first, last = int(bounds[code]), int(bounds[code + 1])
        calendar = calendars.get(customer)
        if calendar is None or first == last:
            continue
        # From the beginning of the first hour: its edge may lie before the first row, which is then behind it.
        for edge in calendar.edges(_moment(int(slots[first])), _moment(int(at[last - 1]) + 1)):
            edge_us = _microseconds(edge)
            begin, end = np.searchsorted(at[first:last], [edge_us, edge_us // HOUR_US * HOUR_US + HOUR_US])
            slots[first + int(begin) : first + int(end)] = edge_us
    return slots


def _sendable(
    entries: _Entries, calendars: Mapping[str, BillingPeriods], rules: PlanningRules
) -> tuple[Mask, list[Hold]]:
    """Which rows may be sent with their true time, and why the others may not.

    Fractions that waited already are exempt: they were in time, and are carried into whatever comes next.
    """
    keep = np.ones(len(entries.at), dtype=bool)
    if not len(keep):
        return keep, []
    starts = np.flatnonzero(_changes(entries.codes, entries.slots))
    ends = np.append(starts[1:], len(keep))
    oldest = _microseconds(rules.now - OLDEST)
    exempt = entries.waited & (np.abs(entries.delta) < UNIT)
    customers = entries.customers.to_pylist()
    causes: dict[int, tuple[str, str]] = {}
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        customer, slot = customers[entries.codes[first]], int(entries.slots[first])
        fresh, calendar = first, calendars.get(customer)
        if (stamp := int(entries.stamps[first])) < oldest:
            fresh += int(np.searchsorted(entries.stamps[first:last], oldest))
            old = f"older than {OLDEST.days} days: Stripe no longer accepts usage of {_shown(stamp)}"
            causes.update(dict.fromkeys(_without(exempt, first, fresh), ("too_old", old)))
        if fresh < last and calendar is not None and (closed := calendar.closed(_moment(slot))) is not None:
            causes.update(dict.fromkeys(_without(exempt, fresh, last), ("closed_period", closed)))
    keep[list(causes)] = False
    ids = entries.ids.take(pa.array(list(causes), pa.int64())).to_pylist()
    return keep, [Hold(event_id, *cause) for event_id, cause in zip(ids, causes.values(), strict=True)]


def _without(exempt: Mask, first: int, last: int) -> list[int]:
    """The rows of `[first, last)` that are not exempt."""
    rows: list[int] = (first + np.flatnonzero(~exempt[first:last])).tolist()
    return rows


@dataclass(frozen=True, slots=True)
class _Cut:
    """Groups (one per bucket) with what each sends; `intent_of_row` is a group number, -1: carried."""

    starts: Ints
    values: Ints
    carried_before: Ints
    intent_of_row: Ints


def _cut(entries: _Entries, carried: Mapping[str, Decimal], rules: PlanningRules) -> _Cut:
    rows = len(entries.at)
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return _Cut(nothing, nothing, nothing, nothing)
    if rules.granularity is Granularity.EVENT:
        starts = np.arange(rows, dtype=np.int64)
    else:
        starts = np.flatnonzero(_changes(entries.codes, entries.stamps)).astype(np.int64)
    delta = entries.delta
    if float(np.abs(delta.astype(np.float64)).sum()) > LARGEST_SUM:
        delta = delta.astype(object)
    sums = np.add.reduceat(delta, starts)
    group_codes = entries.codes[starts]
    values = np.zeros(len(starts), dtype=np.int64)
    before = np.zeros(len(starts), dtype=np.int64)
    bounds = np.searchsorted(group_codes, np.arange(len(entries.customers) + 1))
    for code, customer in enumerate(entries.customers.to_pylist()):
        first, last = int(bounds[code]), int(bounds[code + 1])
        if first < last:
            rest = int(carried.get(customer, Decimal(0)) * UNIT)
            values[first:last], before[first:last] = _whole(sums[first:last], rest)
    groups = np.where(values != 0, np.arange(len(values)), len(values))
    following = np.minimum.accumulate(groups[::-1])[::-1]
    reached = np.append(group_codes, -1)[following] == group_codes
    target = np.where(reached, following, -1)
    sizes = np.diff(np.append(starts, rows))
    return _Cut(starts, values, before, np.repeat(target, sizes))


def _whole(sums: Ints, rest: int) -> tuple[Ints, Ints]:
    """Whole credits each group of one customer sends, and what was carried when its intent begins.

    With nothing owed back, the running sum's rounded-down steps. A negative rest (an earlier intent was rejected
    after its neighbour had used its fraction) is first made up for: group by group.
    """
    if rest >= 0:
        running = rest + np.cumsum(sums)
        floors = running // UNIT
        values = np.diff(floors, prepend=0)
        last = np.maximum.accumulate(np.where(values != 0, np.arange(len(values)), -1))
        previous = np.append([-1], last[:-1])
        after = running - floors * UNIT
        return values, np.where(previous >= 0, after[previous], rest)
    values, before = np.zeros_like(sums), np.zeros_like(sums)
    open_sum, owes_back = 0, False
    for position, amount in enumerate(sums.tolist()):
        open_sum += amount
        owes_back = owes_back or amount < 0
        whole = (rest + open_sum) // UNIT
        before[position] = rest
        if whole > 0 or (whole < 0 and owes_back):
            values[position] = whole
            rest, open_sum, owes_back = rest + open_sum - whole * UNIT, 0, False
    return values, before


def _next(rules: PlanningRules, customer_id: str, source: str, number: int) -> tuple[int, str]:
    """The first number from `number` on whose identifier nobody else has used, and that identifier."""
    while (identifier := identifier_of(rules, customer_id, source, number)) in rules.taken:
        number += 1
    return number, identifier


def _tables(
    entries: _Entries, cut: _Cut, revisions: Mapping[tuple[str, str], int], rules: PlanningRules
) -> tuple[pa.Table, pa.Table]:
    chosen = np.flatnonzero(cut.values)
    first_rows = cut.starts[chosen]
    by_event = rules.granularity is Granularity.EVENT
    customers = entries.customers.take(pa.array(entries.codes[first_rows])).to_pylist()
    stamps = entries.stamps[first_rows]
    if by_event:
        sources = [f"event:{event_id}" for event_id in entries.ids.take(pa.array(first_rows)).to_pylist()]
    else:
        sources = [f"hour:{_shown(stamp)}" for stamp in stamps.tolist()]
    numbered = [
        _next(rules, customer, source, revisions.get((customer, source), 0) + 1)
        for customer, source in zip(customers, sources, strict=True)
    ]
    numbers, identifiers = [number for number, _ in numbered], [identifier for _, identifier in numbered]
    covered_rows = np.flatnonzero(cut.intent_of_row >= 0)
    position = np.searchsorted(chosen, cut.intent_of_row[covered_rows])
    sums = np.zeros(len(chosen), dtype=np.int64)
    np.add.at(sums, position, entries.delta[covered_rows])
    intents = pa.table(
        {
            "identifier": pa.array(identifiers, pa.string()),
            "event_name": pa.array([rules.event_name] * len(chosen), pa.string()),
            "customer_id": pa.array(customers, pa.string()),
            "source": pa.array(sources, pa.string()),
            "revision": pa.array(numbers, pa.int64()),
            "stamp": pa.array(stamps, pa.int64()).cast(TIME),
            "credits": from_integers(sums, CREDITS),
            "carried_before": from_integers(cut.carried_before[chosen], CREDITS),
            "value": pa.array(cut.values[chosen], pa.int64()),
            "events": pa.array(np.bincount(position, minlength=len(chosen)), pa.int64()),
        }
    )
    coverage = pa.table(
        {
            "identifier": intents["identifier"].combine_chunks().take(pa.array(position)),
            "event_id": entries.ids.take(pa.array(covered_rows)),
            "customer_id": entries.customers.take(pa.array(entries.codes[covered_rows])),
            "credits": from_integers(entries.delta[covered_rows], CREDITS),
        }
    )
    return intents, coverage


def _changes(*keys: Ints) -> Mask:
    """True where a row differs from the one before in any key."""
    changed = np.ones(len(keys[0]), dtype=bool)
    changed[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return changed


def _microseconds(time: datetime) -> int:
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _shown(microseconds: int) -> str:
    return _moment(microseconds).strftime("%Y-%m-%dT%H:%M:%SZ")
