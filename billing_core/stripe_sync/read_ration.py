"""Rations reads (GETs) from Stripe: how many were made this month, and how many may still be made.

Stripe grants a small account 10,000 GETs a month (Stripe notes, fact 10). A month's reads of customers' sums and its
other reads each have their share, so that neither uses up the other's. The ledger keeps the counts. Times are UTC.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.runtime.clock import Clock

if TYPE_CHECKING:
    from billing_core.stripe.provider import StripeProvider

MONTHLY_READS = 10_000
"""What Stripe grants a small account."""

SUM_READS_A_DAY = 150
"""Reads of customers' sums that can wait. Those without which usage could be billed twice are made anyway."""

OTHER_READS = MONTHLY_READS - 31 * SUM_READS_A_DAY
"""A month's share of meters, error reports, customers, subscriptions and drafts."""

HEAD_START = timedelta(days=2)
"""Of a month's share that may be used before its time, for a first day with much to read."""

KIND = "reads"
SUM_READS = "looks "


def other_reads_are_due(used: int, now: datetime) -> bool:
    """Whether this month's other reads are within the part of the month that has passed."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    whole = timedelta(days=monthrange(now.year, now.month)[1])
    return used < OTHER_READS * min((now - start + HEAD_START) / whole, 1.0)


class ReadRation:
    """The reads of one connection to Stripe, added to the counts in the ledger."""

    def __init__(self, snapshots: StripeSnapshots, provider: StripeProvider, clock: Clock) -> None:
        self._snapshots = snapshots
        self._provider = provider
        self._clock = clock
        self._written = provider.calls
        self._sum_reads = 0

    def count_sum_reads(self, reads: int) -> None:
        """Count some of the reads made since as reads of customers' sums."""
        self._sum_reads += reads

    def may_read_sums(self, share: float = 1.0) -> bool:
        """Whether a share of the day's ration of reads of customers' sums is left."""
        today = self._kept().get(f"{SUM_READS}{self._clock():%Y-%m-%d}", 0)
        return today + self._sum_reads < SUM_READS_A_DAY * share

    def is_tight(self) -> bool:
        """Whether reads other than those of customers' sums must be avoided now."""
        kept = self._kept()
        month = f"{self._clock():%Y-%m}"
        sum_reads = kept.get(f"{SUM_READS}{month}", 0) + self._sum_reads
        return not other_reads_are_due(kept.get(month, 0) + self._unwritten - sum_reads, self._clock())

    @property
    def _unwritten(self) -> int:
        return self._provider.calls - self._written

    def write_down(self) -> None:
        """Add the reads made since to the counts in the ledger; counts of other months are dropped."""
        reads, sum_reads, now = self._unwritten, self._sum_reads, self._clock()
        if not reads:
            return
        counts = self._kept()
        for name, more in (
            (f"{now:%Y-%m}", reads),
            (f"{SUM_READS}{now:%Y-%m}", sum_reads),
            (f"{SUM_READS}{now:%Y-%m-%d}", sum_reads),
        ):
            counts[name] = counts.get(name, 0) + more
        kept = {name: count for name, count in counts.items() if f"{now:%Y-%m}" in name}
        rows = [StoredObject(name, None, str(count), now) for name, count in sorted(kept.items())]
        self._snapshots.store(KIND, rows)
        self._written, self._sum_reads = self._provider.calls, 0

    def _kept(self) -> dict[str, int]:
        return {row.id: int(row.content) for row in self._snapshots.read(KIND)}


def reads_this_month(snapshots: StripeSnapshots, now: datetime) -> int:
    """How many GETs all commands and pages over this ledger have made since the month began (UTC)."""
    return sum(int(row.content) for row in snapshots.read(KIND) if row.id == f"{now:%Y-%m}")
