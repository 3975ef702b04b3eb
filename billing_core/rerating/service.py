"""Re-rating: what past usage would have cost under another card or the settings in force, and booking the difference.
Part of `BillingService`.

Nothing changes until it is applied. Applying books every event that comes out different as a change of that event: its
former state is kept, the next push sends or takes back the difference of what was sent, and what lies in a closed
month counts in the open one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.access import Principal, Role, scope_of, system_principal
from billing_core.errors import BadParameter
from billing_core.ledger.compiled import Question
from billing_core.ledger.directory import mapped_customers
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.journal import Ledger, append_audit
from billing_core.ledger.policies import forget_facts, known_policies, remember_policy, reread_under
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.ledger.rerate_queries import part_of, per_quarter_hour
from billing_core.ledger.schema import QUARTER_HOUR_SECONDS, SETTINGS_RUN
from billing_core.organizations.limits import Limit
from billing_core.organizations.limits_service import LimitsService
from billing_core.rating.card import RateCard, RateCardFile
from billing_core.rating.events import Policy
from billing_core.rating.policy import fingerprint, policy_json
from billing_core.rerating.model import Rerating
from billing_core.rerating.rebooking import Waiting, to_book, waiting_now
from billing_core.rerating.rules import NEEDED, CardCalendar, rerate
from billing_core.rerating.settings_rules import SETTINGS_NEEDED, UnderSettings, under_settings
from billing_core.rerating.totals import RerateTotals, crossings, current_periods, unknown_plans
from billing_core.runtime.locks import exclusive
from billing_core.settings import Settings
from billing_core.types import Flag, utc_text
from billing_core.values.counts import count_of
from billing_core.values.usage_frame import aware_in

READ_AT_ONCE = 100_000
"""Events per read: what is in memory at a time."""

BOOKED_TOGETHER = 500_000
"""Events per transaction and booking: other processes get their turn in between, and a booking looks through the
whole ledger however few it books."""

Progress = Callable[[float, str], None]
"""Share done, from 0 to 1, and what is done now."""

WHY_EVERYTHING = "a rate card is for all of them, and so are the settings"
AUDITED_CUSTOMERS = 500
"""Customers that an audit entry names at most."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventSlice:
    """About `events` events of a selection: those of its times, or the `part`-th of `parts` of those."""

    selection: Selection
    events: int
    part: int = 0
    parts: int = 1

    def rows(self, columns: Sequence[str] = ()) -> Question:
        """The stored events of the slice, with some columns or all."""
        return part_of(self.selection, columns, part=self.part, parts=self.parts)


class ReratingService:
    """What finance and admins can do with re-rating, for one principal per call. Thread-safe."""

    def __init__(
        self, settings: Settings, ledger: Ledger, limits: LimitsService, policy: Callable[[], Policy] = Policy
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._ledger = ledger
        self._limits = limits

    def what_if(
        self,
        principal: Principal,
        cards: RateCardFile,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        progress: Progress | None = None,
    ) -> Rerating:
        """The change if the events that began in `[start, end)` were rated with `cards`. Nothing is written.

        Times without an offset are in the reporting timezone; `None` is open.

        Raises AccessDenied: unless the principal works in finance or is an admin, without a limit to organizations.
        BadParameter: if nothing lies between the times.
        """
        return self._rerate_slices(principal, start, end, self._by_cards(cards), progress)

    def under_settings(
        self,
        principal: Principal,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        progress: Progress | None = None,
    ) -> Rerating:
        """The change if the events that began in `[start, end)` were billed under the settings in force.

        These are the default customer and whether it overrides, excluded environments, metadata names and the
        organization map. Nothing is written; errors are those of `what_if`.
        """
        return self._rerate_slices(principal, start, end, self._by_settings(), progress)

    def _rerate_slices(
        self,
        principal: Principal,
        start: datetime | None,
        end: datetime | None,
        rule: _ByCards | _BySettings,
        progress: Progress | None,
    ) -> Rerating:
        principal.require(Role.FINANCE, Role.ADMIN)
        principal.require_everything(WHY_EVERYTHING)
        whole = self._selection(principal, start, end)
        known = self._known(principal)
        tally = RerateTotals(current_periods(known.limits))
        pieces = self._slices(whole)
        for number, events in enumerate(self._read_ahead(pieces, rule.needed)):
            found = rule.of(events, known, self._ledger.engine.rows)
            tally.add(events, found.rerated, found.events)
            _report(progress, number + 1, pieces, "rated")
        return _result(whole, rule, known, tally, applied=False)

    def apply(
        self,
        principal: Principal,
        cards: RateCardFile,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> Rerating:
        """Rate past events with other cards and apply the differences `what_if` shows. Waits for a running pull, after
        calling `on_wait`.

        Up to half a million events are one transaction; more are booked in several, oldest first, each complete with
        its audit entry. Killed anywhere, what is booked stays, and the same call books the rest; once all is booked,
        it changes nothing.

        Raises AccessDenied: unless the principal is an admin without a limit to organizations. BadParameter: if nothing
        lies between the times. RateCardError: if a card has the id of another one that events were rated with.
        """
        return self._book(principal, start, end, self._by_cards(cards), progress, on_wait)

    def apply_settings(
        self,
        principal: Principal,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> Rerating:
        """Bill past events by the settings in force: books what `under_settings` shows, the next push sends it."""
        return self._book(principal, start, end, self._by_settings(), progress, on_wait)

    def _book(
        self,
        principal: Principal,
        start: datetime | None,
        end: datetime | None,
        rule: _ByCards | _BySettings,
        progress: Progress | None,
        on_wait: Callable[[], None] | None,
    ) -> Rerating:
        principal.require(Role.ADMIN)
        principal.require_everything(WHY_EVERYTHING)
        # A pull decides by what is booked which card an event keeps: it must not do so while that changes.
        with exclusive(self._pull_lock, on_wait=on_wait):
            whole = replace(self._selection(principal, start, end), snapshot=Snapshot(0, 0))
            self._ledger.register_cards(rule.cards, actor=principal.name)
            known = self._known(principal)
            tally = RerateTotals(current_periods(known.limits))
            pieces = self._slices(whole)
            done = 0
            for together in _groups(pieces):
                with self._ledger.engine.transaction() as writer:
                    own, changed = RerateTotals({}), []
                    waiting = waiting_now(writer.rows)
                    current = rule.in_transaction(writer)
                    for piece in together:
                        changed.append(_changed(writer, piece, current, known, waiting, (own, tally)))
                        done += 1
                        _report(progress, done, pieces, "booking")
                    booked = pa.concat_tables(changed)
                    if booked.num_rows:
                        writer.book(booked, run_id=f"{rule.run} by {principal.name}")
                        detail = _audited(_result(whole, rule, known, own, applied=True), together)
                        append_audit(writer, principal.name, "rerate", detail)
        self._limits.notices.check_limits_quietly(principal.name)
        return _result(whole, rule, known, tally, applied=True)

    @staticmethod
    def _by_cards(cards: RateCardFile) -> _ByCards:
        return _ByCards(cards.cards, CardCalendar.of(cards))

    def _by_settings(self) -> _BySettings:
        return _BySettings(self._policy(), known_policies(self._ledger.engine.rows))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _pull_lock(self) -> Path:
        path = self._settings.warehouse_path
        return path.with_name(path.name + ".pull")

    def _selection(self, principal: Principal, start: datetime | None, end: datetime | None) -> Selection:
        """The events as they are known now, each in its own time: what closed months show of them does not matter."""
        zone = self._settings.zone
        first = None if start is None else aware_in(zone, start).astimezone(UTC)
        last = None if end is None else aware_in(zone, end).astimezone(UTC)
        if first is not None and last is not None and first >= last:
            raise BadParameter("to", last.isoformat(), f"a time after from ({first.isoformat()})")
        version = self._ledger.version()
        return Selection(scope_of(principal), Snapshot(version, version), start=first, end=last)

    def _known(self, principal: Principal) -> _Known:
        """What does not change from slice to slice.

        Plans are read for whoever may re-rate: who crosses a limit is part of the answer, also for finance.
        """
        booked = {version: self._ledger.card(version) for version in self._ledger.card_versions()}
        limits = self._limits.read(system_principal(principal.name))
        return _Known(booked, limits.rows, limits.read_at is not None)

    def _slices(self, selection: Selection) -> list[EventSlice]:
        """The selection in order of time, cut so that each part fits in memory."""
        rows = self._ledger.engine.read(per_quarter_hour(selection))
        return slices(selection, rows["quarter_hour"].to_pylist(), rows["events"].to_pylist())

    def _read_ahead(self, pieces: Sequence[EventSlice], needed: Sequence[str]) -> Iterator[pa.Table]:
        """The events of each slice as they were when the first was read; the next is read while one is rated."""
        with ThreadPoolExecutor(1, thread_name_prefix="rerate") as reader:
            coming = None
            for piece in (*pieces, None):
                ready, coming = coming, piece and reader.submit(self._read, piece, needed)
                if ready is not None:
                    yield ready.result()

    def _read(self, piece: EventSlice, needed: Sequence[str]) -> pa.Table:
        then = replace(piece.selection.snapshot, latest=self._ledger.version())
        as_of = replace(piece, selection=replace(piece.selection, snapshot=then))
        return self._ledger.engine.read(as_of.rows(needed))


@dataclass(frozen=True, slots=True)
class _Known:
    """The cards events were rated with, and the limits before, if plans were ever read."""

    booked_with: Mapping[str, RateCard | None]
    limits: Sequence[Limit]
    plans_were_read: bool


def slices(whole: Selection, quarter_hours: Sequence[int], counts: Sequence[int]) -> list[EventSlice]:
    """The slices of a selection, between quarter hours (since 1970, ascending, with counts) or by ids."""
    found: list[EventSlice] = []
    first, events = whole.start, 0
    for place, (quarter, count) in enumerate(zip(quarter_hours, counts, strict=True)):
        events += count
        is_last = place + 1 == len(counts)
        if not is_last and events + counts[place + 1] <= READ_AT_ONCE:
            continue
        end = whole.end if is_last else EPOCH + timedelta(seconds=(quarter + 1) * QUARTER_HOUR_SECONDS)
        parts = -(-events // READ_AT_ONCE)
        selection = replace(whole, start=first, end=end)
        found += [EventSlice(selection, events // parts, part, parts) for part in range(parts)]
        first, events = end, 0
    return found


def _groups(pieces: Sequence[EventSlice]) -> Iterator[list[EventSlice]]:
    """Slices that are booked in one transaction."""
    group: list[EventSlice] = []
    for piece in pieces:
        if group and sum(one.events for one in group) + piece.events > BOOKED_TOGETHER:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _changed(
    writer: Writer,
    piece: EventSlice,
    rule: _ByCards | _BySettings,
    known: _Known,
    waiting: Waiting,
    tallies: Sequence[RerateTotals],
) -> pa.Table:
    """What of a slice comes out different, as it is inside the transaction, to be booked; all of it is added up."""
    events = writer.read(piece.rows())
    found = rule.of(events, known, writer.rows)
    for tally in tallies:
        tally.add(events, found.rerated, found.events)
    chosen = rule.chosen(events, found)
    payers = events["customer_id"].filter(chosen)
    after = found.events.filter(chosen)
    return rule.beside(writer, to_book(after, found.rerated.filter(chosen), waiting, payers), after)


@dataclass(frozen=True, slots=True)
class _ByCards:
    """Another card over history. Who pays stays as it is."""

    cards: tuple[RateCard, ...]
    calendar: CardCalendar
    needed = NEEDED
    run = "rerate"
    settings: Mapping[str, object] | None = None

    def in_transaction(self, _writer: Writer) -> _ByCards:
        return self

    def of(self, events: pa.Table, known: _Known, _rows: Rows) -> UnderSettings:
        return UnderSettings(events, rerate(events, self.calendar, known.booked_with.get))

    def chosen(self, _events: pa.Table, found: UnderSettings) -> pa.ChunkedArray:
        return found.rerated["is_changed"]

    def beside(self, _writer: Writer, booked: pa.Table, _after: pa.Table) -> pa.Table:
        return booked


@dataclass(frozen=True, slots=True)
class _BySettings:
    """The settings in force over history. Cards stay as they are."""

    policy: Policy
    policies: Mapping[str, Policy]
    cards: tuple[RateCard, ...] = ()
    needed = SETTINGS_NEEDED
    run = SETTINGS_RUN

    @property
    def settings(self) -> Mapping[str, object]:
        found: Mapping[str, object] = json.loads(policy_json(self.policy))
        return found

    def in_transaction(self, writer: Writer) -> _BySettings:
        """With the organization map as it is by now."""
        remember_policy(writer, self.policy)
        return replace(self, policy=replace(self.policy, customers=mapped_customers(writer.rows)))

    def of(self, events: pa.Table, known: _Known, rows: Rows) -> UnderSettings:
        reread = reread_under(rows, events["id"].to_pylist(), self.policy)
        return under_settings(events, self.policy, self.policies, reread, known.booked_with.get)

    def chosen(self, events: pa.Table, found: UnderSettings) -> pa.ChunkedArray:
        """What differs, and what is flagged as if it did."""
        flagged = pc.match_substring(events["marks"], Flag.POLICY_DIFFERS)
        settled = pc.and_(pc.fill_null(flagged, False), pc.is_null(found.rerated["not_rerated"]))
        return pc.or_(found.rerated["is_changed"], settled)

    def beside(self, writer: Writer, booked: pa.Table, after: pa.Table) -> pa.Table:
        """With the policy these events are booked under from now on."""
        forget_facts(writer, booked["id"].to_pylist())
        rows = booked.num_rows
        booked = booked.append_column("named_customer_id", after["named_customer_id"])
        booked = booked.append_column("policy", pa.array([fingerprint(self.policy)] * rows, pa.string()))
        return booked.append_column("policy_differs", pa.array([False] * rows, pa.bool_()))


def _result(
    whole: Selection, rule: _ByCards | _BySettings, known: _Known, tally: RerateTotals, *, applied: bool
) -> Rerating:
    return Rerating(
        start=whole.start,
        end=whole.end,
        cards={card.id: card.fingerprint() for card in rule.cards},
        organizations=tally.organizations,
        events=tally.events,
        events_changed=tally.changed,
        plan_limits=crossings(known.limits, tally.in_period),
        plan_limits_unknown=unknown_plans(known.limits, tally.customers, was_read=known.plans_were_read),
        to_send=tally.to_send,
        not_rerated=tally.not_rerated,
        card_versions=tally.card_versions,
        applied=applied,
        customers=tally.paying,
        settings=rule.settings,
    )


def _audited(done: Rerating, together: Sequence[EventSlice]) -> dict[str, object]:
    """Who books what is told beside it; `from` and `to` are of the events in this transaction."""
    start, end = together[0].selection.start, together[-1].selection.end
    return {
        **({"cards": dict(done.cards)} if done.settings is None else {"settings": dict(done.settings)}),
        "from": None if start is None else utc_text(start),
        "to": None if end is None else utc_text(end),
        "events": done.events,
        "events_changed": done.events_changed,
        "delta_credits": done.delta_credits,
        "delta_usd": done.delta_usd,
        **({} if done.settings is None else {"customers": _moved(done)}),
    }


def _moved(done: Rerating) -> list[dict[str, object]]:
    """Whom it moves credits from and to, as the audit entry has it."""
    return [row.to_json() for row in done.customers if row.delta][:AUDITED_CUSTOMERS]


def _report(progress: Progress | None, done: int, pieces: Sequence[EventSlice], what: str) -> None:
    if progress is not None:
        events = sum(piece.events for piece in pieces[:done])
        progress(done / len(pieces), f"{what} {count_of(events, 'event')}")
