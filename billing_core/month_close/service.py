"""The close of a month: check, freeze, prove, reopen. Part of `BillingService`; finance and admins, for everything.

A close reads all three books anew first, so that what is frozen is what Langfuse and Stripe say as well. Afterwards
the month is what its manifest says for ever: what comes late counts in the open month.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from billing_core.access import Principal, Role, scope_of
from billing_core.errors import BadParameter, BillingError, NotFound, UpstreamError, WarehouseError
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.ledger import queries
from billing_core.ledger.closes import Close, CloseStore
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.ledger.settlements import SettlementStore
from billing_core.ledger.verification import HASHED_COLUMNS, EntrySet
from billing_core.month_close.checks import unfinished_events
from billing_core.month_close.manifest import settlement_line, status_line, stripe_part, together, totals_of
from billing_core.month_close.model import (
    FROZEN_SETTINGS,
    Checklist,
    Closing,
    Difference,
    Month,
    MonthState,
    Verification,
    canonical,
    digest,
    window_of,
)
from billing_core.month_close.rules import (
    NOT_CONNECTED,
    Acceptance,
    AcceptedObstacle,
    Obstacle,
    ObstacleGroup,
    from_reconciliation,
    from_unfinished_events,
    judge,
    not_over,
)
from billing_core.month_close.verification import (
    GONE,
    in_bookings,
    in_cards,
    in_entries,
    in_journals,
    in_manifest,
    in_totals,
    manifest_of,
)
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.locks import exclusive
from billing_core.settings import Settings
from billing_core.types import Credits, GetUsageEventsParams, plain_decimal, utc_text
from billing_core.usage_events.totals import DayTotals, Sums, add_up, by_day
from billing_core.values.usage_frame import Window

if TYPE_CHECKING:
    from billing_core.exports.service import ExportService
    from billing_core.reconcile.report import Reconciliation
    from billing_core.stripe_sync.service import StripeSyncService

READERS = (Role.FINANCE, Role.ADMIN)

EXPORTED = (
    (Dataset.USAGE_EVENTS, Format.CSV),
    (Dataset.USAGE_EVENTS, Format.JOURNAL),
    (Dataset.USAGE_EVENTS, Format.FOCUS),
    (Dataset.ORGANIZATIONS, Format.CSV),
)
"""Exports whose hashes a manifest holds: text, because a library's next version may write other binary files."""

A_DAY = timedelta(days=1)
"""Timezones are at most so far apart that two months of them leave a gap."""

ATTEMPTS = 3
"""How often a close starts anew because the ledger changed meanwhile."""

RECONCILED, EXPORTS_HASHED = 0.6, 0.9
"""Where the parts of a close end, as fractions of the whole."""

UNREADABLE = (BillingError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError)
"""What reading back raises where somebody put into the file what no program writes: that is what was looked for."""

Progress = Callable[[float, str], None]


class MonthCloseService:
    """What finance and admins can do with months: check, close, verify, reopen. Thread-safe."""

    def __init__(
        self, settings: Settings, ledger: Ledger, stripe: StripeSyncService, exports: ExportService, clock: Clock = now
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._book = CloseStore(ledger.engine)
        self._stripe = stripe
        self._exports = exports
        self._clock = clock

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def months(self, principal: Principal) -> tuple[Month, ...]:
        """Every month from the first event to now, newest first, with the sums of what counts in it."""
        _require(principal)
        zone, now = self._settings.zone, self._clock()
        figures = self._by_month(principal, zone)
        closes: dict[str, Close] = {}
        for close in self._book.all():
            closes[close.period] = close  # the newest one
        names = {*figures, *closes, _name(now, zone)}
        found, name = [], min(names)
        while name <= max(names):
            found.append(_month(name, window_of(name, zone), figures.get(name), closes.get(name), now))
            name = _following(name)
        return tuple(reversed(found))

    def manifest(self, period: str, principal: Principal) -> str:
        """The manifest of a closed month, as the exact text that was hashed.

        Raises NotFound: if the month is not closed.
        """
        _require(principal)
        return self._closed(period).manifest

    def checklist(self, period: str, principal: Principal, *, progress: Progress | None = None) -> Checklist:
        """What prevents closing a month now: Langfuse, ledger and Stripe are compared anew.

        Raises UpstreamError: if Langfuse or Stripe could not be read. BadParameter: if `period` is no month, or has not
        begun.
        """
        _require(principal)
        return self._check(period, principal, progress or _silent)[0]

    # ── closing ──────────────────────────────────────────────────────────────────────────────────

    def close(
        self,
        period: str,
        principal: Principal,
        *,
        accept: Iterable[str] = (),
        reason: str = "",
        progress: Progress | None = None,
    ) -> Closing:
        """Close a month, freezing its figures, unless an unaccepted obstacle prevents it; a closed one stays as it is.

        A close that is refused or fails is in the audit log. Raises as `checklist`; BadParameter also for a cause that
        does not exist.
        """
        _require(principal)
        with self._ledger.failure_audited(principal.name, "close_failed", {"period": period}):
            closing = self._close(period, principal, accept=accept, reason=reason, progress=progress)
        if closing.manifest is None:
            why = ", ".join(sorted({obstacle.cause for obstacle in closing.obstacles}))
            self._ledger.audit(principal.name, "close_failed", {"period": period, "why": f"not closed: {why}"})
        return closing

    def _close(
        self, period: str, principal: Principal, *, accept: Iterable[str], reason: str, progress: Progress | None
    ) -> Closing:
        acceptance = Acceptance.parse(accept, by=principal.name, reason=reason)
        say = progress or _silent
        with exclusive(self._lock):
            if (known := self._book.of(period)) is not None:
                return Closing(json.loads(known.manifest), was_closed=True)
            if period in self._book.audited():
                raise WarehouseError(f"{GONE.format(period)}: its file was edited; restore it from a backup")
            for attempt in range(1, ATTEMPTS + 1):
                checklist, reconciliation = self._check(period, principal, say)
                standing, accepted = judge(checklist.obstacles, acceptance)
                if standing or reconciliation is None:
                    return Closing(None, tuple(standing), tuple(accepted))
                try:
                    close = self._freeze(checklist, reconciliation, accepted, principal, say)
                except _Changed:
                    if attempt == ATTEMPTS:
                        raise BadParameter(
                            "period",
                            period,
                            "a ledger at rest: pulls or pushes change it all the time, close again later",
                        ) from None
                    continue
                return Closing(json.loads(close.manifest), exceptions=tuple(accepted))
        raise AssertionError("unreachable")

    def reopen(self, period: str, principal: Principal, reason: str) -> None:
        """Reopen a closed month. The manifest stays; the audit log says who reopened the month, and why.

        Raises BadParameter: without a reason, or if another month was closed after it.
        """
        _require(principal)
        text = " ".join(reason.split())[:500]
        if not text:
            raise BadParameter("reason", reason, "a few words on why the month is reopened")
        with exclusive(self._lock):
            self._book.reopen(self._closed(period), actor=principal.name, reason=text, now=self._clock())

    # ── proving ──────────────────────────────────────────────────────────────────────────────────

    def verify(self, period: str, principal: Principal, *, progress: Progress | None = None) -> Verification:
        """Recompute everything a closed month's manifest says and name what differs, edits of the file included."""
        _require(principal)
        if self._book.of(period) is None and (sha256 := self._book.audited().get(period)) is not None:
            return Verification({}, (Difference("manifest", GONE.format(period), sha256),), ("audit log",))
        close, say = self._closed(period), progress or _silent
        manifest, ledger, book = manifest_of(close), self._ledger, self._book
        found = _careful("manifest", in_manifest(close, manifest, ledger))
        say(0.1, "comparing entries")
        found += _careful("entries", in_entries(close, manifest, book))
        say(0.3, "comparing bookings and meter events")
        found += _careful("bookings", in_bookings(ledger))
        say(0.4, "comparing sums and journals")
        found += _careful("totals", self._in_totals(close, manifest, principal))
        found += _careful("rate cards", in_cards(manifest, ledger))
        found += _careful("journals", in_journals(close, manifest, ledger, book))
        found += _careful("exports", self._in_exports(close, manifest, principal, say))
        checked = (
            "manifest",
            "entries",
            "events",
            "bookings",
            "meter events",
            "totals",
            "rate cards",
            "reconciliation",
            "audit log",
            "earlier closes",
            "exports",
        )
        return Verification(manifest, tuple(found), checked)

    def _in_totals(self, close: Close, manifest: Mapping[str, Any], principal: Principal) -> Iterator[Difference]:
        now = totals_of(self._by_status(self._selection(close.start, close.end, principal)))
        yield from in_totals(manifest, now)

    def _in_exports(
        self, close: Close, manifest: Mapping[str, Any], principal: Principal, say: Progress
    ) -> Iterator[Difference]:
        """Every export the manifest holds the hash of, made anew."""
        noted = manifest.get("exports", ())
        for number, one in enumerate(noted):
            name = f"{one['dataset']} as {one['format']}"
            say(RECONCILED + (1 - RECONCILED) * number / len(noted), f"remaking {name}")
            request = _request(Dataset(one["dataset"]), Format(one["format"]), close.start, close.end, close.timezone)
            try:
                made = self._digest(request, principal)
            except UNREADABLE as error:
                yield Difference("exports", f"the export {name} cannot be made any more: {error}", one["sha256"])
                continue
            if made["sha256"] != one["sha256"]:
                says = f"the export {name} is another file now: {one['rows']:,} rows then, {made['rows']:,} now"
                yield Difference("exports", says, one["sha256"], made["sha256"])

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _lock(self) -> Path:
        path = self._settings.warehouse_path
        return path.with_name(path.name + ".close")

    def _closed(self, period: str) -> Close:
        window_of(period, self._settings.zone)
        close = self._book.of(period)
        if close is None:
            raise NotFound(f"{period} is not closed; close it first, or name a month that is")
        return close

    def _selection(self, start: datetime, end: datetime, principal: Principal) -> Selection:
        return Selection(scope_of(principal), self._ledger.snapshot(), start, end)

    def _check(self, period: str, principal: Principal, say: Progress) -> tuple[Checklist, Reconciliation | None]:
        window, now = window_of(period, self._settings.zone), self._clock()
        if now < window.start:
            raise BadParameter("period", period, "a month that has begun")
        settle = timedelta(minutes=self._settings.settle_minutes)
        obstacles: list[Obstacle] = []
        early = not_over(period, window.end, window.end + settle, now)
        if early is not None:
            obstacles.append(early)
            if early.group is ObstacleGroup.NOT_OVER:
                return Checklist(period, window, tuple(obstacles), (), self._ledger.version(), now), None
        found = self._stripe.reconcile(
            principal, window.start, window.end, progress=lambda share, doing: say(share * RECONCILED, doing)
        )
        obstacles += self._unread(found)
        obstacles += from_reconciliation(found)
        version = self._ledger.version()
        obstacles += from_unfinished_events(
            unfinished_events(self._ledger.engine, window.start, window.end, now, settle)
        )
        notes = (*self._gap_before(window), *(finding.says for finding in found.findings))
        return Checklist(period, window, tuple(obstacles), notes, version, now), found

    def _gap_before(self, window: Window) -> Iterator[str]:
        """Hours between a month that was closed in another timezone and this one: no close would ever hold them."""
        earlier = (close for close in self._book.all() if close.counts and close.end <= window.start)
        last = max(earlier, key=lambda close: close.end, default=None)
        if last is not None and timedelta(0) < window.start - last.end < A_DAY:
            yield (
                f"usage from {utc_text(last.end)} to {utc_text(window.start)} is in no closed month: {last.period} was "
                f"closed in {last.timezone}, and this month begins in {self._settings.timezone}"
            )

    def _unread(self, found: Reconciliation) -> list[Obstacle]:
        """Stripe may be missing for want of a key, which somebody may accept; a book that fails to answer may not."""
        if found.is_complete:
            return []
        langfuse_read = all(row.langfuse_credits is not None for row in found.rows)
        only_stripe = not found.rows and len(found.problems) == 1
        if not self._stripe.is_connected and (only_stripe or (found.rows and langfuse_read)):
            says = "Stripe is not connected: what it counts is unknown"
            return [Obstacle(NOT_CONNECTED, ObstacleGroup.UNEXPLAINED, says, credits=None)]
        raise UpstreamError(found.problems[0])

    def _freeze(
        self,
        checklist: Checklist,
        reconciliation: Reconciliation,
        accepted: Sequence[AcceptedObstacle],
        principal: Principal,
        say: Progress,
    ) -> Close:
        zone, window = self._settings.timezone, checklist.window
        selection = self._selection(window.start, window.end, principal)
        if selection.snapshot.as_of != checklist.version:
            raise _Changed
        by_status = self._by_status(selection)
        exports = []
        for number, (dataset, form) in enumerate(EXPORTED):
            share = (EXPORTS_HASHED - RECONCILED) * number / len(EXPORTED)
            say(RECONCILED + share, f"hashing {dataset} as {form}")
            exports.append(self._digest(_request(dataset, form, window.start, window.end, zone), principal))
        say(EXPORTS_HASHED, "freezing")
        earlier = self._book.all()
        now = self._clock()
        body = {
            "manifest": "billing-close/1",
            "from": utc_text(window.start),
            "to": utc_text(window.end),
            "columns": list(HASHED_COLUMNS),
            "totals": totals_of(by_status),
            "by_status": [status_line(status, sums) for status, sums in by_status.items()],
            "rate_cards": self._cards_of(selection),
            "settlements": self._settlements(checklist.period, now),
            "stripe": stripe_part(reconciliation, self._stripe.is_connected),
            "exports": exports,
            "exceptions": [one.to_json() for one in accepted],
            "settings": {name: getattr(self._settings, name) for name in FROZEN_SETTINGS},
            "notes": list(checklist.notes),
            "previous": {"period": earlier[-1].period, "sha256": earlier[-1].sha256} if earlier else None,
        }

        def make(seq: int, sets: dict[str, EntrySet], head: dict[str, Any]) -> tuple[str, str]:
            noted = {name: {"entries": one.entries, "sha256": one.sha256} for name, one in sets.items()}
            own = {
                "period": checklist.period,
                "timezone": zone,
                "closed_at": utc_text(now),
                "closed_by": principal.name,
                "booking": seq,
                "sets": noted,
                "audit_head": head,
            }
            text = canonical({**body, **own})
            return text, digest(text)

        if self._ledger.version() != checklist.version:
            raise _Changed
        return self._book.close(selection, make, period=checklist.period, timezone=zone, actor=principal.name, now=now)

    def _settlements(self, period: str, now: datetime) -> list[dict[str, Any]]:
        """What of the month was written off, or invoiced separately, so far."""
        store = SettlementStore(self._ledger.engine)
        counts = store.event_counts()
        return [settlement_line(one, counts[one.id]) for one in store.of_month(period, self._settings.timezone, now)]

    def _digest(self, request: ExportRequest, principal: Principal) -> dict[str, Any]:
        made = self._exports.digest(request, principal)
        totals = {name: plain_decimal(v) if isinstance(v, Decimal) else v for name, v in made.totals.items()}
        return {
            "dataset": request.dataset.value,
            "format": request.format.value if request.format else None,
            "rows": made.rows,
            "bytes": made.bytes,
            "sha256": made.sha256,
            "totals": totals,
        }

    def _by_status(self, selection: Selection) -> dict[str, Sums]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self._ledger.read_rows(queries.totals(selection)):
            rows.setdefault(row["sync_status"], []).append(row)
        return {status: add_up(rows[status]) for status in sorted(rows)}

    def _cards_of(self, selection: Selection) -> list[dict[str, Any]]:
        versions = self._ledger.read_rows(queries.distinct_values(selection, "rate_card_version"))
        names = [row["rate_card_version"] for row in versions]
        cards = {name: self._ledger.card(name) for name in sorted(names)}
        return [{"id": name, "sha256": None if card is None else card.fingerprint()} for name, card in cards.items()]

    def _by_month(self, principal: Principal, zone: ZoneInfo) -> dict[str, tuple[Sums, Sums | None]]:
        """Month → everything that counts in it, and what of it came late."""
        whole = Selection(scope_of(principal), self._ledger.snapshot())
        extent = self._ledger.read_rows(queries.extent(whole))[0]
        if extent["first"] is None:
            return {}
        bounds = extent["first"], extent["last"] + timedelta(microseconds=1)
        all_days = by_day(self._ledger.read_rows(queries.daily(whole, zone, *bounds)))
        late_days: tuple[DayTotals, ...] = ()
        if whole.snapshot.closed:
            late_days = by_day(self._ledger.read_rows(queries.daily(whole, zone, *bounds, only_late=True)))
        late = _per_month(late_days)
        return {name: (sums, late.get(name)) for name, sums in _per_month(all_days).items()}


class _Changed(Exception):
    """The ledger changed between the check and the freeze."""


def _require(principal: Principal) -> None:
    principal.require(*READERS)
    principal.require_everything("a month is closed for all of them")


def _careful(what: str, checks: Iterator[Difference]) -> list[Difference]:
    """Differences; one that keeps the rest from being looked for is the last of its kind."""
    found: list[Difference] = []
    try:
        found.extend(checks)  # keeps what came before a fault
    except UNREADABLE as error:
        says = " ".join(str(error).split())[:200]
        found.append(
            Difference(what, f"{what} can no longer be checked, the ledger contains what no program writes: {says}")
        )
    return found


def _silent(_share: float, _doing: str) -> None:
    """Nobody watches."""


def _request(dataset: Dataset, form: Format, start: datetime, end: datetime, zone: str) -> ExportRequest:
    return ExportRequest(dataset, form, GetUsageEventsParams(**{"from": start, "to": end}), timezone=zone)


def _per_month(days: Iterable[Any]) -> dict[str, Sums]:
    grouped: dict[str, list[Sums]] = {}
    for day in days:
        grouped.setdefault(f"{day.day:%Y-%m}", []).append(day)
    return {name: together(ones) for name, ones in grouped.items()}


def _month(
    name: str, window: Window, figures: tuple[Sums, Sums | None] | None, close: Close | None, now: datetime
) -> Month:
    whole, late = figures or (together(()), None)
    late_events = 0 if late is None else late.events
    late_credits = Decimal(0) if late is None else late.totals.credits.total
    totals = whole.totals
    month = Month(
        name, window, MonthState.OPEN, whole.events, totals.credits, totals.amount_usd, late_events, late_credits
    )
    if close is None:
        return month if now < window.end else replace(month, state=MonthState.OVER)
    month = replace(
        month,
        state=MonthState.REOPENED,
        closed_at=close.closed_at,
        closed_by=close.closed_by,
        sha256=close.sha256,
        timezone=close.timezone,
        reopened_at=close.reopened_at,
        reopened_by=close.reopened_by,
        reopen_reason=close.reopen_reason,
    )
    return _as_closed(month, close) if close.counts else month


def _as_closed(month: Month, close: Close) -> Month:
    """With the figures of the manifest: they are of the timezone it was closed in, whatever days are cut by now."""
    month = replace(month, state=MonthState.CLOSED, window=Window(close.start, close.end))
    totals = manifest_of(close).get("totals")
    if not totals or digest(close.manifest) != close.sha256:  # edited: what the rows say is nearer to the truth
        return month
    parts = {part: Decimal(totals[f"credits_{part}"]) for part in Credits.model_fields}
    return replace(month, events=totals["events"], credits=Credits(**parts), amount_usd=Decimal(totals["amount_usd"]))


def _name(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m}"


def _following(name: str) -> str:
    year, month = int(name[:4]), int(name[5:])
    return f"{year + month // 12:04}-{month % 12 + 1:02}"
