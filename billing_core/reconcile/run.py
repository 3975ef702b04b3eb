"""Runs one reconciliation: read Langfuse, ledger and Stripe, compare, look for unbilled usage. The service calls it.

The order matters: Stripe is read before the ledger. What is pushed in between is then merely not in the summary yet,
which is lag; the other way round it would look like somebody else's usage. A book that cannot be read is unknown in
every row it concerns, and said; the rest is compared all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BadParameter, NotFound, UpstreamError
from billing_core.ingest.pull import cards_for, rate_as_billed
from billing_core.ledger.journal import Ledger
from billing_core.ledger.reconcile_queries import active_customers, late_candidates, read_ledger, sent_to
from billing_core.ledger.schema import FLAG_SEPARATOR
from billing_core.rating.card import RateCardFile
from billing_core.rating.events import Policy
from billing_core.rating.policy import Rated
from billing_core.reconcile.books import UPSTREAM, ComparisonInput
from billing_core.reconcile.compare import compare
from billing_core.reconcile.findings import after_finalization, billed_lines, no_metered_item, several_subscriptions
from billing_core.reconcile.report import CrossCheck, DayDifference, Reconciliation, UnbilledFinding
from billing_core.runtime.clock import Clock, now
from billing_core.types import Flag
from billing_core.values.counts import count_of
from billing_core.values.usage_frame import PullProgress, Window, whole_hours

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider
    from billing_core.langfuse.rollup import DailyTotal
    from billing_core.stripe.model import Invoice, Subscription, SummaryBucket
    from billing_core.stripe.provider import StripeProvider

READERS = 4
"""Customers whose summaries are read at the same time."""

GIVE_UP_AFTER = 3
"""Failed reads in a row after which Stripe counts as out of reach: each has been tried several times already."""

LANGFUSE_SHARE, STRIPE_SHARE, LEDGER_SHARE = 0.6, 0.85, 0.9
"""Where the parts of the work end, as fractions of the whole."""

NOT_CONNECTED = CrossCheck(None, "Langfuse is not connected")

Progress = Callable[[float, str], None]
OnSumsRead = Callable[[str, "list[SummaryBucket]"], None]


@dataclass(slots=True)
class _Fresh:
    """What Langfuse said; `events` as `UPSTREAM`, `None` if it said nothing."""

    events: pa.Table | None = None
    cross_check: CrossCheck = NOT_CONNECTED
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Counted:
    """What Stripe said; `hours` is `None` if it is not connected or out of reach."""

    hours: dict[tuple[str, datetime], Decimal] | None = None
    read_at: datetime | None = None
    unknown: set[str] = field(default_factory=set)
    subscriptions: Sequence[Subscription] | None = None
    invoices: Sequence[Invoice] | None = None
    problems: list[str] = field(default_factory=list)


def reconcile(
    ledger: Ledger,
    cards: RateCardFile,
    policy: Policy,
    window: Window,
    *,
    langfuse: LangfuseProvider | None,
    spool: Path,
    stripe: StripeProvider | None,
    meter_id: str | None,
    clock: Clock = now,
    progress: Progress | None = None,
    on_sums_read: OnSumsRead | None = None,
) -> Reconciliation:
    """The comparison of Langfuse (read anew), ledger and Stripe over a window widened to whole UTC hours.

    Nothing is written but the pages that `spool` holds while Langfuse is read. The caller sees to it that only
    people who may see every organization get the result.

    langfuse, stripe: `None` if not connected: that book is unknown.
    meter_id: The meter whose summaries are read; needed with `stripe`.
    progress: Called with the part done, from 0 to 1, and what is being done; now and then from this thread only.
    on_sums_read: Called with a customer and what Stripe counts for it per hour, from any thread.

    Raises WarehouseError: if the ledger cannot be read. Langfuse or Stripe out of reach becomes one of `problems`.
    """
    say = progress or (lambda _fraction, _doing: None)
    window = whole_hours(window)
    fresh = _Fresh() if langfuse is None else _read_langfuse(langfuse, ledger, cards, policy, window, spool, say)
    counted = _Counted()
    if stripe is not None and meter_id is not None:
        customers = _named(fresh.events) | _named(ledger.engine.read(active_customers(window)))
        counted = _read_stripe(stripe, meter_id, window, customers, clock, say, on_sums_read)
    say(STRIPE_SHARE, "reading the ledger")
    read = read_ledger(ledger.engine, window, fresh.events)
    say(LEDGER_SHARE, "comparing")
    books = ComparisonInput(window, fresh.events, read, counted.hours, counted.read_at, frozenset(counted.unknown))
    found = compare(books, now=clock())
    findings = () if meter_id is None else tuple(_findings(ledger, counted, meter_id, window, clock()))
    say(1.0, "done")
    return replace(
        found, findings=findings, cross_check=fresh.cross_check, problems=(*fresh.problems, *counted.problems)
    )


# ── Langfuse ─────────────────────────────────────────────────────────────────────────────────────


def _read_langfuse(
    provider: LangfuseProvider,
    ledger: Ledger,
    cards: RateCardFile,
    policy: Policy,
    window: Window,
    spool: Path,
    say: Progress,
) -> _Fresh:
    def see(at: PullProgress) -> None:
        say(LANGFUSE_SHARE * at.fraction, at.doing)

    try:
        reading = provider.read(window, spool=spool, progress=see)
    except (UpstreamError, BadParameter) as error:  # a window beyond the project's retention is unknown as well
        return _Fresh(cross_check=CrossCheck(None, "Langfuse could not be read"), problems=[str(error)])
    try:
        versions = ledger.card_versions()
        tables = [
            _narrowed(rate_as_billed(ledger.engine.rows, usage, cards_for(usage, ledger, cards, versions), policy))
            for usage in reading.batches()
        ]
        events = pa.concat_tables(tables) if tables else UPSTREAM.empty_table()
        fresh = _Fresh(events, _cross_checked(provider, reading.daily, window))
        if reading.rejected:
            first = reading.rejected[0]
            fresh.problems.append(
                f"Langfuse: {count_of(len(reading.rejected), 'row')} could not be read, in no sum, "
                f"the first is {first.row}: {first.reason}"
            )
        return fresh
    finally:
        reading.discard()


def _narrowed(rated: Rated) -> pa.Table:
    """What the settings now make of usage; what they would bill otherwise than it was sent is flagged."""
    events, differs = rated.now, pa.array(rated.differs)
    flags = pc.binary_join(events["flags"], FLAG_SEPARATOR)
    flags = pc.if_else(differs, pc.binary_join_element_wise(flags, Flag.POLICY_DIFFERS, FLAG_SEPARATOR), flags)
    columns = [flags if name == "flags" else events[name] for name in UPSTREAM.names]
    return pa.Table.from_arrays(columns, names=UPSTREAM.names).cast(UPSTREAM)


def _cross_checked(provider: LangfuseProvider, own: Iterable[DailyTotal], window: Window) -> CrossCheck:
    from billing_core.langfuse.metrics import compare_daily

    try:
        upstream = provider.daily_totals(window)
    except UpstreamError as error:
        return CrossCheck(None, str(error))
    if upstream is None:
        return CrossCheck(None, "this Langfuse server offers no daily sums")
    found = compare_daily(own, upstream)
    return CrossCheck(tuple(DayDifference(day.day, day.observations, day.tokens, day.cost_usd) for day in found))


def _named(table: pa.Table | None) -> set[str]:
    return set() if table is None else set(pc.unique(table["customer_id"]).to_pylist()) - {None}


# ── Stripe ───────────────────────────────────────────────────────────────────────────────────────


def _read_stripe(
    provider: StripeProvider,
    meter_id: str,
    window: Window,
    customers: set[str],
    clock: Clock,
    say: Progress,
    on_sums_read: OnSumsRead | None,
) -> _Counted:
    counted = _Counted(read_at=clock())
    say(LANGFUSE_SHARE, "reading subscriptions and invoices")
    try:
        counted.subscriptions = provider.subscriptions()
        counted.invoices = provider.invoices(created_since=window.start)
    except UpstreamError as error:
        counted.problems.append(str(error))
    customers = customers | {
        found.customer_id
        for found in counted.subscriptions or ()
        if any(item.meter_id == meter_id for item in found.items)
    }  # somebody else's usage may be all there is of a customer
    failures: list[str] = []
    hours: dict[tuple[str, datetime], Decimal] = {}
    answers = _summaries(provider, meter_id, window, sorted(customers), on_sums_read)
    for number, (customer, answer) in enumerate(answers, start=1):
        if isinstance(answer, UpstreamError):
            counted.unknown.add(customer)
            failures.append(str(answer))
        else:
            hours.update({(customer, row.start.astimezone(UTC)): row.value for row in answer})
        share = (STRIPE_SHARE - LANGFUSE_SHARE) * number / len(customers)
        say(LANGFUSE_SHARE + share, f"reading what Stripe counts, {number:,} of {len(customers):,} customers")
    counted.hours = hours
    if counted.subscriptions is not None and not provider.is_live:
        counted.subscriptions = [*counted.subscriptions, *_unlisted(provider, counted)]
    if failures:
        scope = f"{len(counted.unknown):,} of {len(customers):,} customers"
        counted.problems.append(f"{failures[0]}; what Stripe counts is unknown for {scope}")
    return counted


def _unlisted(provider: StripeProvider, counted: _Counted) -> Iterator[Subscription]:
    """Subscriptions of customers with usage that Stripe's lists leave out: those on a test clock."""
    listed = {found.customer_id for found in counted.subscriptions or ()}
    used = {customer for (customer, _), amount in (counted.hours or {}).items() if amount}
    for customer in sorted(used - listed):
        try:
            yield from provider.subscriptions(customer)
        except NotFound:
            continue
        except UpstreamError as error:
            counted.problems.append(str(error))


def _summaries(
    provider: StripeProvider, meter_id: str, window: Window, customers: Sequence[str], on_sums_read: OnSumsRead | None
) -> Iterator[tuple[str, list[SummaryBucket] | UpstreamError]]:
    """What Stripe counts per customer, or why that is not known, as the answers come."""

    def read(customer: str) -> list[SummaryBucket]:
        try:
            rows = provider.summaries(meter_id, customer, window.start, window.end, "hour")
        except NotFound:
            return []  # nothing can be counted for a customer that does not exist
        if on_sums_read is not None:
            on_sums_read(customer, rows)
        return rows

    pool = ThreadPoolExecutor(READERS, thread_name_prefix="summaries")
    try:
        waiting = {pool.submit(read, customer): customer for customer in customers}
        in_a_row, last = 0, UpstreamError("Stripe is out of reach")
        for done in as_completed(waiting):
            if done.cancelled():
                yield waiting[done], last
                continue
            try:
                answer = done.result()
            except UpstreamError as error:
                in_a_row, last = in_a_row + 1, error
                yield waiting[done], error
            else:
                in_a_row = 0
                yield waiting[done], answer
            if in_a_row == GIVE_UP_AFTER:
                for future in waiting:
                    future.cancel()
    finally:
        pool.shutdown(cancel_futures=True)


# ── money nobody bills ───────────────────────────────────────────────────────────────────────────


def _findings(
    ledger: Ledger, counted: _Counted, meter_id: str, window: Window, now: datetime
) -> Iterator[UnbilledFinding]:
    if counted.subscriptions is None:
        return
    yield from no_metered_item(counted.hours or {}, counted.subscriptions, meter_id, now)
    yield from several_subscriptions(counted.hours or {}, counted.subscriptions, meter_id, now)
    lines = billed_lines(counted.invoices or (), counted.subscriptions, meter_id, window)
    if not lines:
        return
    late = ledger.engine.read(late_candidates(window, min(line.end for line in lines)))
    rows: list[dict[str, Any]] = [_aware(row) for row in late.to_pylist()]

    def sent_in(customer: str, start: datetime, end: datetime) -> int:
        return int(ledger.engine.read(sent_to(customer, start, end)).to_pylist()[0]["value"])

    yield from after_finalization(lines, rows, sent_in)


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for name, value in row.items()}
