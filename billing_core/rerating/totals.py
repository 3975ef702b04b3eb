"""Adds up a re-rating, slice by slice: exact, and the same in whatever order the slices come. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.schema import SENT
from billing_core.organizations.limits import Limit, reached
from billing_core.rerating.model import CardVersion, CustomerDelta, NotRerated, OrganizationDelta, PlanCrossing, ToSend
from billing_core.values.decimals import EXACT

Periods = Mapping[str, tuple[datetime, datetime]]
"""Customer → the half-open billing period that runs now, aware UTC."""

ALL_OF_IT = (100,)
"""The threshold, in percent of what a plan includes, at which a limit is crossed."""


class RerateTotals:
    """The totals of a re-rating over all slices added so far.

    events, changed: Looked at, and different afterwards.
    customers: Everybody who would pay something else.
    in_period: Customer → the difference in credits of its events inside its current period.
    """

    def __init__(self, periods: Periods) -> None:
        self.events = 0
        self.changed = 0
        self.customers: set[str] = set()
        self.in_period: dict[str, Decimal] = defaultdict(Decimal)
        self._periods = _period_table(periods)
        self._counts: Counter[str | None] = Counter()
        self._changed: Counter[str | None] = Counter()
        self._credits: dict[str, dict[str | None, Decimal]] = {"old": defaultdict(Decimal), "new": defaultdict(Decimal)}
        self._usd: dict[str, dict[str | None, Decimal]] = {"old": defaultdict(Decimal), "new": defaultdict(Decimal)}
        self._paid: dict[str, dict[str | None, Decimal]] = {"old": defaultdict(Decimal), "new": defaultdict(Decimal)}
        self._versions: dict[str, Counter[str]] = {"old": Counter(), "new": Counter()}
        self._reasons: Counter[str] = Counter()
        self._sent_events = 0
        self._sent_credits = Decimal(0)
        self._sent_customers: set[str] = set()

    def add(self, events: pa.Table, rerated: pa.Table, after: pa.Table | None = None) -> None:
        """Add stored events (columns `rerate.NEEDED`) and, row for row, what they would be (`rerate.RERATED`).

        `after` are the events as they would be where that changes more than what they cost: whose they are, who pays.
        """
        if not events.num_rows:
            return
        after = events if after is None else after
        self.events += events.num_rows
        for when, whose, table in (("old", events, events), ("new", after, rerated)):
            self._add_credits(when, whose["organization_id"], table)
            paid = pa.table({"customer": whose["customer_id"], "delta": table["credits_total"]})
            for customer, part in _per_customer(paid):
                self._paid[when][customer] = EXACT.add(self._paid[when][customer], part)
            self._versions[when].update(_counts(table["rate_card_version"]))
        changed = events["organization_id"].filter(rerated["is_changed"])
        self.changed += len(changed)
        self._changed.update(_counts(changed))
        self._reasons.update(_counts(rerated["not_rerated"].drop_null()))
        self._add_differences(events, rerated, after)

    def _add_credits(self, when: str, organizations: pa.ChunkedArray, table: pa.Table) -> None:
        facts = pa.table({"of": organizations, "price": table["credit_price_usd"], "credits": table["credits_total"]})
        grouped = facts.group_by(["of", "price"]).aggregate([("credits", "sum"), ("credits", "count")])
        for row in grouped.to_pylist():
            one, part = row["of"], row["credits_sum"]
            self._credits[when][one] = EXACT.add(self._credits[when][one], part)
            self._usd[when][one] = EXACT.add(self._usd[when][one], EXACT.multiply(part, row["price"]))
            if when == "old":
                self._counts[one] += row["credits_count"]

    def _add_differences(self, events: pa.Table, rerated: pa.Table, after: pa.Table) -> None:
        """Who pays less or more: the former customer gets the old credits back and the new one pays the new ones."""
        one, other = events["customer_id"], after["customer_id"]
        same_payer = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
        differs = pc.or_(pc.not_equal(events["credits_total"], rerated["credits_total"]), pc.invert(same_payer))
        status = events["sync_status"].cast(pa.string())
        sides = [
            pa.table({"customer": whose["customer_id"], "time": events["timestamp"], "status": status, "delta": amount})
            for whose, amount in ((events, pc.negate(events["credits_total"])), (after, rerated["credits_total"]))
        ]
        facts = pa.concat_tables([side.filter(differs) for side in sides])
        if not facts.num_rows:
            return
        self.customers.update(facts["customer"].drop_null().unique().to_pylist())
        is_sent = pc.is_in(status, pa.array(SENT))
        self._sent_events += int(pc.sum(pc.and_(differs, is_sent)).as_py() or 0)
        sent = facts.filter(pc.is_in(facts["status"], pa.array(SENT)))
        self._sent_customers.update(sent["customer"].drop_null().unique().to_pylist())
        for _, delta in _per_customer(sent):
            self._sent_credits = EXACT.add(self._sent_credits, delta)
        for customer, delta in _per_customer(self._inside(facts)):
            self.in_period[customer or ""] = EXACT.add(self.in_period[customer or ""], delta)

    def _inside(self, facts: pa.Table) -> pa.Table:
        """The rows inside their customer's current period."""
        place = pc.index_in(facts["customer"], self._periods["customer"].combine_chunks())
        known = facts.filter(pc.is_valid(place))
        periods = self._periods.take(place.drop_null())
        after = pc.greater_equal(known["time"], periods["start"])
        return known.filter(pc.and_(after, pc.less(known["time"], periods["end"])))

    @property
    def organizations(self) -> tuple[OrganizationDelta, ...]:
        """The change of every organization with events, largest difference first."""
        rows = [
            OrganizationDelta(
                one,
                count,
                self._changed[one],
                self._credits["old"][one],
                self._credits["new"][one],
                self._usd["old"][one],
                self._usd["new"][one],
            )
            for one, count in {**dict.fromkeys(self._credits["new"], 0), **self._counts}.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-abs(row.delta), row.organization_id is None, row.organization_id)))

    @property
    def paying(self) -> tuple[CustomerDelta, ...]:
        """The change of every customer that pays before or after, and of nobody, largest difference first."""
        old, new = self._paid["old"], self._paid["new"]
        rows = [CustomerDelta(one, old.get(one, Decimal(0)), new.get(one, Decimal(0))) for one in {**old, **new}]
        return tuple(sorted(rows, key=lambda row: (-abs(row.delta), row.customer_id is None, row.customer_id)))

    @property
    def to_send(self) -> ToSend:
        """The credits a push would have to send, or give back, for events sent before."""
        return ToSend(self._sent_events, self._sent_credits, len(self._sent_customers))

    @property
    def not_rerated(self) -> dict[NotRerated, int]:
        """How many events are not re-rated, by reason."""
        return {reason: self._reasons[reason] for reason in NotRerated if self._reasons[reason]}

    @property
    def card_versions(self) -> tuple[CardVersion, ...]:
        """Every card version that events name before or after, with their numbers."""
        old, new = self._versions["old"], self._versions["new"]
        return tuple(CardVersion(version, old[version], new[version]) for version in sorted(old | new))


def current_periods(limits: Iterable[Limit]) -> dict[str, tuple[datetime, datetime]]:
    """The customers whose current billing period is known, with that period."""
    return {
        row.customer_id: (row.period_start, row.period_end)
        for row in limits
        if row.customer_id is not None and row.period_start is not None and row.period_end is not None
    }


def crossings(limits: Iterable[Limit], in_period: Mapping[str, Decimal]) -> tuple[PlanCrossing, ...]:
    """Customers who use up their plan only before or only after `in_period` is added to their use."""
    found = {}
    for row in limits:
        delta = in_period.get(row.customer_id or "", Decimal(0))
        if row.customer_id is None or row.used is None or row.included is None or not delta:
            continue
        new = EXACT.add(row.used, delta)
        if reached(row.used, row.included, ALL_OF_IT) == reached(new, row.included, ALL_OF_IT):
            continue
        assert row.period_start is not None and row.period_end is not None  # noqa: S101, PT018  (`used` is of it)
        found[row.customer_id] = PlanCrossing(
            row.customer_id, row.sharing, row.plan, row.included, row.used, new, row.period_start, row.period_end
        )
    return tuple(sorted(found.values(), key=lambda one: (-abs(one.new_used - one.old_used), one.customer_id)))


def unknown_plans(limits: Iterable[Limit], customers: set[str], *, was_read: bool) -> int:
    """How many of these customers may have a plan whose credits or use are unknown.

    Before plans `was_read` that is everybody; afterwards a customer without a limit used nothing that could count.
    """
    if not was_read:
        return len(customers)
    unknown = {row.customer_id for row in limits if not row.is_without and (row.included is None or row.used is None)}
    return len(customers & unknown)


def _period_table(periods: Periods) -> pa.Table:
    kind = pa.timestamp("us")
    naive = [(start.astimezone(UTC), end.astimezone(UTC)) for start, end in periods.values()]
    return pa.table(
        {
            "customer": pa.array(list(periods), pa.string()),
            "start": pa.array([start.replace(tzinfo=None) for start, _ in naive], kind),
            "end": pa.array([end.replace(tzinfo=None) for _, end in naive], kind),
        }
    )


def _counts(column: Any) -> dict[Any, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def _per_customer(facts: pa.Table) -> list[tuple[str | None, Decimal]]:
    grouped = facts.group_by("customer").aggregate([("delta", "sum")])
    return list(zip(grouped["customer"].to_pylist(), grouped["delta_sum"].to_pylist(), strict=True))
