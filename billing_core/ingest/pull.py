"""One pull: read Langfuse, roll up, rate, book. The service calls it; nothing here knows a page or a command."""

from __future__ import annotations

import gc
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BillingError, UpstreamError
from billing_core.ledger.customer_mapping import booked_on_a_bill
from billing_core.ledger.directory import mapped_customers
from billing_core.ledger.engine import BookingCounts, Rows
from billing_core.ledger.journal import Ledger
from billing_core.ledger.missing import SEEN, mark_missing, unseen_events
from billing_core.ledger.policies import on_a_bill_under_another, remember_facts, remember_policy
from billing_core.ledger.schema import FLAG_SEPARATOR
from billing_core.rating.card import LEGACY_VERSION, RateCard, RateCardFile
from billing_core.rating.events import Policy
from billing_core.rating.policy import Rated, rate_under
from billing_core.types import Flag, SyncStatus, plain_decimal, utc_text
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import PullProgress, RejectedRow, Window

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider
    from billing_core.langfuse.reading import UpstreamRead

logger = logging.getLogger(__name__)

FIRST_PULL_DAYS = 30
"""How far back the first pull reads when nobody names a window."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """The result of a pull: `observations` and `duplicates` are rows, the other counts are events.

    `policy_differs` are sent events that stay as they are although the settings now would bill them otherwise, and
    `policy_differs_credits` what that is about. `notes` are sentences about rows that were not looked for.
    """

    api: str
    window: Window
    observations: int = 0
    duplicates: int = 0
    counts: BookingCounts = field(default_factory=BookingCounts)
    unpriced: int = 0
    excluded: int = 0
    rejected: tuple[RejectedRow, ...] = ()
    policy_differs: int = 0
    policy_differs_credits: Decimal = Decimal(0)
    missing_at_source: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `pull`)."""
        return {
            "api": self.api,
            "from": utc_text(self.window.start),
            "to": utc_text(self.window.end),
            "observations": self.observations,
            "duplicates": self.duplicates,
            "events_new": self.counts.new,
            "events_changed": self.counts.changed,
            "events_unchanged": self.counts.unchanged,
            "unpriced": self.unpriced,
            "excluded": self.excluded,
            "missing_at_source": self.missing_at_source,
            "rejected": [asdict(row) for row in self.rejected],
            "notes": list(self.notes),
            "policy_differs": {"events": self.policy_differs, "credits": plain_decimal(self.policy_differs_credits)},
        }


def incremental_window(
    covered_until: datetime | None, *, now: datetime, lookback: timedelta, first_days: int = FIRST_PULL_DAYS
) -> Window:
    """The window of an incremental pull: from a look-back before what was read, for late and growing traces."""
    if covered_until is None:
        return Window(now - timedelta(days=first_days), now)
    return Window(min(covered_until, now - timedelta(seconds=1)) - lookback, now)


def within_retention(window: Window, retention_days: int | None, *, now: datetime) -> Window:
    """A pull's default window within the project's retention: traces deleted in part look complete."""
    if retention_days is None:
        return window
    oldest = now - timedelta(days=retention_days)
    return window if window.start >= oldest else replace(window, start=oldest)


def pull(
    provider: LangfuseProvider,
    ledger: Ledger,
    cards: RateCardFile,
    policy: Policy,
    window: Window,
    *,
    actor: str,
    spool: Path,
    incremental: bool,
    ended_since: datetime | None = None,
    progress: Callable[[PullProgress], None] | None = None,
) -> PullResult:
    """Read `window` from Langfuse and book every trace with a row in it, complete. Run twice, the second changes
    nothing.

    Whatever stops it, what was booked stays booked and the run log says how it ended; pages read so far
    wait in `spool` for the next try.
    """
    ledger.register_cards(cards.cards, actor=actor)
    run_id = uuid.uuid4().hex
    ledger.start_run(run_id, actor=actor, window=window, incremental=incremental)
    result = PullResult(provider.api(), window)
    gc.freeze()  # what is loaded by now stays: walking it again and again would cost a tenth of the pull
    try:
        with closing(provider.read(window, spool=spool, progress=progress, ended_since=ended_since)) as reading:
            result = replace(
                result,
                observations=reading.observations,
                duplicates=reading.duplicates,
                rejected=tuple(reading.rejected),
                notes=tuple(reading.notes),
            )
            for so_far in _book(provider, reading, ledger, cards, policy, run_id, result):
                result = so_far
                if progress is not None:
                    progress(PullProgress(1.0, result.observations, f"saved {count_of(result.counts.total, 'event')}"))
            result = replace(result, missing_at_source=_mark_missing(provider, ledger, reading, window, run_id))
            reading.discard()
    except BaseException as error:
        reason = str(error) if isinstance(error, BillingError) else f"stopped by {type(error).__name__}"
        _log(ledger, run_id, actor, result, outcome="failed", error=reason)
        raise
    finally:
        gc.unfreeze()  # in a dashboard that pulls every hour, garbage caught in between must not stay for ever
    _log(ledger, run_id, actor, result, outcome="partial" if result.rejected else "done", error=None)
    return result


def _book(
    provider: LangfuseProvider,
    reading: UpstreamRead,
    ledger: Ledger,
    cards: RateCardFile,
    policy: Policy,
    run_id: str,
    result: PullResult,
) -> Iterator[PullResult]:
    """The result so far after each booked batch."""
    versions = ledger.card_versions()
    for usage in reading.batches():
        if reading.api == "legacy":
            usage = _completed(provider, ledger, usage)
        rated, booked = book_rated(ledger, usage, cards_for(usage, ledger, cards, versions), policy, run_id=run_id)
        events = rated.events
        result = replace(
            result,
            policy_differs=result.policy_differs + int(rated.differs.sum()),
            policy_differs_credits=EXACT.add(
                result.policy_differs_credits, pc.sum(rated.at_stake).as_py() or Decimal(0)
            ),
            counts=result.counts + booked,
            duplicates=reading.duplicates,
            unpriced=result.unpriced + _flagged(events, Flag.UNPRICED),
            excluded=result.excluded + _count(pc.equal(events["sync_status"], SyncStatus.EXCLUDED)),
        )
        yield result
    yield replace(result, duplicates=reading.duplicates, rejected=tuple(reading.rejected))


def _completed(provider: LangfuseProvider, ledger: Ledger, usage: pa.Table) -> pa.Table:
    """Rows of the older API, those replaced whose trace is booked with an earlier start: they are read whole.

    That API cannot be asked for rows before the window, and the sums of its trace records leave them out: the part
    seen now would take the place of the whole.
    """
    starts = dict(zip(usage["id"].to_pylist(), usage["timestamp"].to_pylist(), strict=True))
    whole = pa.concat_tables([usage.slice(0, 0), *map(provider.read_trace, ledger.begun_before(starts))])
    if not whole.num_rows:
        return usage
    rest = usage.filter(pc.invert(pc.is_in(usage["id"], whole["id"])))
    return pa.concat_tables([rest, whole]).sort_by([("timestamp", "ascending"), ("id", "ascending")])


def _mark_missing(
    provider: LangfuseProvider, ledger: Ledger, reading: UpstreamRead, window: Window, run_id: str
) -> int:
    """Mark what the ledger booked in the window and Langfuse no longer has; how many events those are.

    Whoever is not seen in the window is asked for by its id first: its rows may have moved, or cannot be read.
    """
    seen = pa.concat_tables([SEEN.empty_table(), *(usage.select(["id"]).cast(SEEN) for usage in reading.batches())])
    unseen = unseen_events(ledger.engine, window, provider.project().id or None, seen)
    fresh = [event_id for event_id, is_known in unseen.items() if not is_known]
    try:
        gone = provider.absent(fresh, saw_anything=reading.observations > 0) if fresh else set()
    except UpstreamError as error:  # everything is booked; the next pull asks again
        logger.warning("which traces are missing at Langfuse: %s", error)
        gone = set()
    with ledger.engine.transaction() as writer:
        mark_missing(writer, sorted(gone), seen, run_id=run_id)
    return len(gone) + len(unseen) - len(fresh)


def book_rated(
    ledger: Ledger, usage: pa.Table, cards: Sequence[RateCard | None], policy: Policy, *, run_id: str
) -> tuple[Rated, BookingCounts]:
    """Rate and book rows of `USAGE_SCHEMA`; returns everything rating decided and the counts of the booking.

    Who pays is decided in the transaction that books it, by the organization directory as it is then and not as
    `policy` has it: a pull takes long, and neither a push nor a change of the map may come in between. What is on a
    bill stays under the policy it was booked with; the rest follows `policy`.
    """
    with ledger.engine.transaction() as writer:
        current = replace(policy, customers=mapped_customers(writer.rows))
        remember_policy(writer, current)
        rated = rate_as_billed(writer.rows, usage, cards, current)
        remember_facts(writer, usage, rated, current)
        counts = writer.book(rated.events, run_id=run_id)
    left = usage.num_rows - rated.events.num_rows
    return rated, replace(counts, unchanged=counts.unchanged + left)


def rate_as_billed(rows: Rows, usage: pa.Table, cards: Sequence[RateCard | None], policy: Policy) -> Rated:
    """Rate rows of `USAGE_SCHEMA`; events already billed keep the customer and policy they were billed under."""
    others = on_a_bill_under_another(rows, usage["id"].to_pylist(), policy)
    return rate_under(usage, cards, policy, booked_on_a_bill(rows, usage), others)


def cards_for(usage: pa.Table, ledger: Ledger, cards: RateCardFile, versions: set[str]) -> list[RateCard | None]:
    """The rate card of each row: the one an event was booked with, else the one in force at its time.

    A new card file never changes what history cost; `rerate` does that, on purpose and audited.
    """
    if len(cards.cards) == 1 and versions <= {cards.cards[0].id, LEGACY_VERSION}:
        ends = pc.min_max(usage["timestamp"]).as_py()
        if (only := cards.in_force(ends["min"])) is not None and cards.in_force(ends["max"]) is only:
            return [only] * usage.num_rows
    times = usage["timestamp"].to_pylist()
    booked = ledger.versions_of(usage["id"].to_pylist())
    known: dict[str, RateCard | None] = {card.id: card for card in cards.cards}
    for version in set(booked.values()) - known.keys():
        known[version] = ledger.card(version)
    return [
        known.get(booked.get(event_id, "")) or cards.in_force(time)
        for event_id, time in zip(usage["id"].to_pylist(), times, strict=True)
    ]


def _flagged(events: pa.Table, flag: Flag) -> int:
    joined = pc.binary_join(events["flags"], FLAG_SEPARATOR)
    return _count(pc.match_substring(joined, flag))


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _log(ledger: Ledger, run_id: str, actor: str, result: PullResult, *, outcome: str, error: str | None) -> None:
    values = {
        "api": result.api,
        "observations": result.observations,
        "duplicates": result.duplicates,
        "events_new": result.counts.new,
        "events_changed": result.counts.changed,
        "events_unchanged": result.counts.unchanged,
        "rejected": len(result.rejected),
        "outcome": outcome,
        "error": error,
    }
    kept = {"policy_differs": result.policy_differs, "policy_differs_credits": result.policy_differs_credits}
    detail = {**(kept if result.policy_differs else {}), **({"notes": list(result.notes)} if result.notes else {})}
    ledger.end_run(run_id, actor=actor, action="pull", values=values, detail=detail)
