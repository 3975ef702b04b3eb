"""Finds usage that an invoice item of another copy of this ledger may bill: it must not be metered as well.

A ledger that was restored from a backup, or lost and pulled anew, does not remember what it settled since. Its items at
Stripe name their settlement and month; what is unsent of that customer and month waits until a person decides.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.engine import Engine
from billing_core.ledger.settlements import SettlementStore
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.runtime.clock import Clock
from billing_core.stripe.intents import OLDEST
from billing_core.stripe.invoice_items import MONTH, InvoiceItem, InvoiceItems
from billing_core.stripe.reading import ReadFailed
from billing_core.stripe_sync.account_cache import AccountCache
from billing_core.values.money import money

ITEMS_READ, FOREIGN_ITEMS = "items_read", "foreign_item"
"""Kinds of stored objects: up to when Stripe's invoice items were read, and those this ledger does not know."""

OVERLAP = timedelta(hours=1)
A_DAY = timedelta(days=1)
NOT_OURS_TO_READ = frozenset({401, 403, 404})


def invoiced_elsewhere(
    engine: Engine,
    items: InvoiceItems,
    reads: AccountCache,
    events: pa.Table,
    decided: Collection[str],
    *,
    zone: ZoneInfo,
    clock: Clock,
    keep: bool,
) -> dict[str, str]:
    """Those of some unsent events that an invoice item of another copy of this ledger may bill already → why.

    `decided` are events somebody released in spite of it; `keep`: remember what was read.

    Raises UpstreamError: if the items could not be read.
    """
    by_customer: dict[str, list[InvoiceItem]] = {}
    for item in _made_elsewhere(engine, items, reads, clock(), keep=keep) if events.num_rows else ():
        by_customer.setdefault(item.customer_id, []).append(item)
    if not by_customer:
        return {}
    chosen = events.filter(pc.is_in(events["customer_id"], pa.array(list(by_customer), pa.string())))
    found = {}
    for row in chosen.select(["id", "customer_id", "timestamp"]).to_pylist():
        at = row["timestamp"].replace(tzinfo=UTC)
        for one in by_customer[row["customer_id"]]:
            if row["id"] not in decided and _may_bill(one, at, zone):
                found[row["id"]] = (
                    f"Stripe has the invoice item {one.id} over {money(one.amount, one.currency)} of "
                    f"{one.metadata.get(MONTH)}, which this ledger does not know; another copy of it may have "
                    "invoiced this usage. Release it if it did not"
                )
    return found


def _made_elsewhere(
    engine: Engine, items: InvoiceItems, reads: AccountCache, now: datetime, *, keep: bool
) -> list[InvoiceItem]:
    """Invoice items for usage young enough to be metered that this ledger does not know.

    What was read before is remembered, so that one read a push (or an hour, while reads are spared) brings what is new.
    A key that may not read them has made none.
    """
    snapshots = StripeSnapshots(engine)
    read = snapshots.read(ITEMS_READ)
    since = read[0].read_at - OVERLAP if read else now - OLDEST - A_DAY
    is_spared = bool(read) and reads.is_spared(read[0].read_at)
    try:
        new = [] if is_spared else items.of_settlements(None, since=since)
    except ReadFailed as error:
        if error.status in NOT_OURS_TO_READ:
            return []
        raise
    before = [msgspec.json.decode(row.content, type=InvoiceItem) for row in snapshots.read(FOREIGN_ITEMS)]
    found = {item.id: item for item in [*before, *new]}
    ours = SettlementStore(engine).known([item.settlement or "" for item in found.values()])
    foreign = [item for item in found.values() if item.settlement not in ours]
    if keep and not is_spared:
        rows = [StoredObject(i.id, i.customer_id, msgspec.json.encode(i).decode(), now) for i in foreign]
        snapshots.store(FOREIGN_ITEMS, rows)
        snapshots.store(ITEMS_READ, [StoredObject("cursor", None, "{}", now)])
    return foreign


def _may_bill(item: InvoiceItem, at: datetime, zone: ZoneInfo) -> bool:
    """Whether an item may be of usage of a time: of its month, and not after it was made."""
    is_before = item.created is None or at < item.created + OVERLAP
    return is_before and f"{at.astimezone(zone):%Y-%m}" == item.metadata.get(MONTH)
