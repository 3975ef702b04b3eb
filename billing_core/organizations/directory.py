"""The organization directory: names of organizations, and who pays for their events that name no customer. Part of
`BillingService`.

Reading needs an admin, who sees the organizations they may see. Changing decides about bills of everybody: it needs an
admin without limits, and is previewed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from billing_core.access import Principal, Role, Scope, scope_of
from billing_core.errors import BadParameter
from billing_core.ledger.customer_mapping import MovedEvents, moved_by
from billing_core.ledger.directory import (
    DirectoryChange,
    DirectoryStore,
    Line,
    Source,
    mapped_customers,
    names_in,
    payers,
    who_pays,
)
from billing_core.ledger.engine import Writer
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.ledger.stripe_snapshots import StripeSnapshots
from billing_core.organizations.directory_file import Change, Parsed, can_be_written, csv_lines, faults, parse, shown
from billing_core.rating.events import Policy
from billing_core.runtime.clock import Clock, now
from billing_core.settings import Settings
from billing_core.stripe.intents import OLDEST
from billing_core.stripe_sync.account_cache import stored_snapshot
from billing_core.stripe_sync.pipeline import Amounts
from billing_core.values.decimals import EXACT

if TYPE_CHECKING:
    from billing_core.stripe.model import Customer

REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """An organization's line of the directory, with what its events say of it.

    name, customer_id: What the directory says; `None` if nothing.
    named_customers: Customers its events name themselves, sorted; a default customer is not among them.
    at_stake: Its unsent events of all time that nobody pays for.
    """

    organization_id: str
    name: str | None
    customer_id: str | None
    named_customers: tuple[str, ...]
    at_stake: Amounts


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """One line of a directory preview: an organization before and after, and its events that move.

    `moved` are unsent events with something to bill that `after` decides about from then on; `seq` is the number of
    the line's row that the preview saw, 0 if there was none; `warnings` are sentences.
    """

    organization_id: str
    before: Line
    after: Line
    seq: int
    moved: MovedEvents
    warnings: tuple[str, ...] = ()

    @property
    def changes_customer(self) -> bool:
        """Whether another customer pays after the change."""
        return self.before.customer_id != self.after.customer_id

    @property
    def is_new(self) -> bool:
        """Whether the directory has no line of the organization so far."""
        return self.before == Line()


@dataclass(frozen=True, slots=True)
class DirectoryPreview:
    """What changes of the directory would do; nothing is changed. `unchanged` lines are as they are wanted already.

    `notes` concern all of it. `file_sha256` names the file an import came from.
    """

    steps: tuple[PreviewLine, ...]
    unchanged: int
    source: Source
    notes: tuple[str, ...] = ()
    file_sha256: str | None = None

    @property
    def moved(self) -> MovedEvents:
        """The unsent events that move to another customer, all lines together."""
        parts = [step.moved for step in self.steps]
        amounts = sum((Amounts(part.events, part.credits, part.amount_usd) for part in parts), Amounts())
        return MovedEvents(amounts.events, amounts.credits, amounts.amount_usd, sum(part.old_events for part in parts))


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of changing the directory: lines written, and unsent events that another customer pays for now."""

    lines: int
    events_moved: int


class Directory:
    """What people can do with the organization directory, for one principal per call. Thread-safe."""

    def __init__(self, ledger: Ledger, settings: Settings, clock: Clock = now) -> None:
        self._ledger = ledger
        self._book = DirectoryStore(ledger.engine)
        self._policy = Policy(settings.default_customer_id, settings.override_customer_id)
        self._clock = clock
        self._entries = lru_cache(REMEMBERED)(self._read_entries)
        self._lines = lru_cache(1)(self._read_lines)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def names(self, principal: Principal) -> Mapping[str, str]:
        """Organization → name, of the named organizations that the principal may see."""
        principal.require(Role.ADMIN, Role.FINANCE)
        scope = scope_of(principal)
        return {one: name for one, name in names_in(self._lines(self._ledger.version())).items() if scope.holds(one)}

    def customers(self, principal: Principal) -> Mapping[str, str]:
        """Organization → who pays for events whose trace names no customer, as far as the principal may see."""
        principal.require(Role.ADMIN)
        scope = scope_of(principal)
        mapped = mapped_customers(self._ledger.engine.rows)
        return {one: customer for one, customer in mapped.items() if scope.holds(one)}

    def entries(self, principal: Principal) -> list[DirectoryEntry]:
        """The directory entry of every organization in ledger or directory that the principal may see.

        Most credits that nobody pays for first, then those that are not mapped, then by id.
        """
        principal.require(Role.ADMIN)
        return list(self._entries(scope_of(principal), self._ledger.version()))

    def history(self, principal: Principal, limit: int = 200) -> list[DirectoryChange]:
        """Changes of the directory, newest first; `seq` is 0 for whom gaps in it would count others' changes."""
        principal.require(Role.ADMIN)
        scope = scope_of(principal)
        rows = self._book.history(limit=limit, organizations=scope.organizations)
        return rows if scope.organizations is None else [replace(row, seq=0) for row in rows]

    def stripe_customers(self, principal: Principal) -> tuple[Customer, ...] | None:
        """Stripe's customers as last read, to choose from; `None`: never read."""
        _require_everything(principal)
        known = stored_snapshot(StripeSnapshots(self._ledger.engine)).customers
        return None if known is None else tuple(one for one in known if not one.is_deleted)

    def csv_lines(self, principal: Principal) -> Iterator[str]:
        """The directory as a CSV file in exactly the form of an import, unmapped organizations included; access is
        checked at once.

        An id that no file can hold (control characters, more than 200 characters) is left out.
        """
        entries = self.entries(principal)
        return csv_lines(
            (e.organization_id, e.name, e.customer_id) for e in entries if can_be_written(e.organization_id)
        )

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def parse_import(data: bytes) -> Parsed:
        """The changes that a file asks for, or what is wrong with each of its rows."""
        return parse(data)

    def preview(
        self, principal: Principal, changes: Iterable[Change] | Parsed, *, source: Source = "page"
    ) -> DirectoryPreview:
        """What changes of the directory would do; nothing is written.

        Raises AccessDenied: unless the principal is an admin without limits. BadParameter: if a change cannot be made,
        naming the part and why; or an organization is named twice.
        """
        _require_everything(principal)
        file_sha256 = None
        if isinstance(changes, Parsed):
            source, file_sha256 = "import", changes.sha256
            asked = _usable(changes)
        else:
            asked = _checked(changes)
        present = self._book.newest()
        steps = []
        for change in asked:
            row = present.get(change.organization_id)
            before = Line() if row is None else row.after
            after = Line(_part(change.name, before.name), _part(change.customer_id, before.customer_id))
            if after != before:
                steps.append(
                    PreviewLine(change.organization_id, before, after, 0 if row is None else row.seq, MovedEvents())
                )
        moved = moved_by(
            self._ledger.engine.rows,
            payers({step.organization_id: (step.before, step.after) for step in steps}),
            self._policy,
            old_before=self._clock() - OLDEST,
        )
        known = self._known_customers()
        finished = tuple(
            PreviewLine(
                s.organization_id,
                s.before,
                s.after,
                s.seq,
                m := moved.get(s.organization_id, MovedEvents()),
                tuple(_warnings(s, m, known)),
            )
            for s in steps
        )
        return DirectoryPreview(finished, len(asked) - len(steps), source, tuple(self._notes(finished)), file_sha256)

    def apply(
        self, principal: Principal, preview: DirectoryPreview, also: Callable[[Writer], object] | None = None
    ) -> Applied:
        """Make the previewed changes of the directory and move unsent events with them, in one transaction; all or
        nothing.

        `also` writes what belongs to it, in the same transaction.

        Raises AccessDenied: unless the principal is an admin without limits. BadParameter: if somebody changed one of
        the lines since the preview.
        """
        _require_everything(principal)
        if not preview.steps:
            return Applied(0, 0)
        moved = self._book.change(
            {step.organization_id: step.after for step in preview.steps},
            seen={step.organization_id: step.seq for step in preview.steps},
            policy=self._policy,
            actor=principal.name,
            source=preview.source,
            now=self._clock(),
            file_sha256=preview.file_sha256,
            also=also,
        )
        return Applied(len(preview.steps), sum(moved.values()))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _read_lines(self, _version: int) -> Mapping[str, DirectoryChange]:
        return MappingProxyType(self._book.newest())

    def _read_entries(self, scope: Scope, version: int) -> tuple[DirectoryEntry, ...]:
        lines = self._lines(version)
        named: dict[str, set[str]] = {}
        at_stake: dict[str, Amounts] = {}
        selection = Selection(scope, Snapshot(version, version))
        for row in self._ledger.engine.read(who_pays(selection)).to_pylist():
            customers = named.setdefault(row["organization_id"], set())
            if row["customer_id"] is not None:
                if not row["is_mapped"] and row["customer_id"] != self._policy.default_customer_id:
                    customers.add(row["customer_id"])
            elif row["is_unsent"]:
                amount = EXACT.multiply(row["credits"], row["credit_price_usd"])
                found = Amounts(row["events"], row["credits"], amount)
                at_stake[row["organization_id"]] = at_stake.get(row["organization_id"], Amounts()) + found
        known = named.keys() | {one for one in lines if scope.holds(one)}
        entries = [self._entry(one, lines.get(one), named.get(one, ()), at_stake.get(one, Amounts())) for one in known]
        return tuple(sorted(entries, key=lambda e: (-e.at_stake.credits, e.customer_id is not None, e.organization_id)))

    @staticmethod
    def _entry(
        organization_id: str, row: DirectoryChange | None, named: Iterable[str], at_stake: Amounts
    ) -> DirectoryEntry:
        line = Line() if row is None else row.after
        return DirectoryEntry(organization_id, line.name, line.customer_id, tuple(sorted(named)), at_stake)

    def _known_customers(self) -> Mapping[str, Customer] | None:
        known = stored_snapshot(StripeSnapshots(self._ledger.engine)).customers
        return None if known is None else {one.id: one for one in known}

    def _notes(self, steps: Sequence[PreviewLine]) -> Iterator[str]:
        if not any(step.changes_customer for step in steps):
            return
        if self._policy.overrides:
            yield (
                f"BILLING_OVERRIDE_CUSTOMER_ID bills everything to {self._policy.default_customer_id}: the map has no "
                "effect while it is on."
            )
        elif self._policy.default_customer_id is not None:
            yield (
                f"Unsent events assigned to the default customer {self._policy.default_customer_id} stay there "
                "until a pull reads them again."
            )
        yield "What was sent, or is on its way, stays with the customer it was sent to."


def _require_everything(principal: Principal) -> None:
    principal.require(Role.ADMIN)
    principal.require_everything("customers are assigned by admins who may see all")


def _usable(parsed: Parsed) -> tuple[Change, ...]:
    if parsed.rejected:
        first = parsed.rejected[0]
        count = f"{len(parsed.rejected):,} of its rows cannot be used, the first is row {first.row:,}, {first.field}: "
        raise BadParameter("file", f"{parsed.sha256[:12]}…", f"a file without errors; {count}{first.reason}")
    return parsed.changes


def _checked(changes: Iterable[Change]) -> tuple[Change, ...]:
    asked: dict[str, Change] = {}
    for change in changes:
        for field, expected in faults(change):
            raise BadParameter(field, shown(getattr(change, field)), expected)
        if change.organization_id in asked:
            raise BadParameter("organization_id", change.organization_id, "each organization once")
        asked[change.organization_id] = change
    return tuple(asked.values())


def _part(wanted: str | None, present: str | None) -> str | None:
    return present if wanted is None else wanted or None


def _warnings(step: PreviewLine, moved: MovedEvents, known: Mapping[str, Customer] | None) -> Iterator[str]:
    if not step.changes_customer:
        return
    customer_id = step.after.customer_id
    if customer_id is not None:
        if known is None:
            yield f"Stripe's customers were never read: whether it knows {customer_id} is unknown."
        elif customer_id not in known:
            yield f"Stripe did not know {customer_id} when its customers were last read: it will reject the usage."
        elif known[customer_id].is_deleted:
            yield f"{customer_id} was deleted at Stripe: it will reject the usage."
    if moved.old_events and customer_id is not None:
        yield (
            f"{moved.old_events:,} of the events are older than {OLDEST.days} days: Stripe no longer accepts them, "
            "and the next push holds them as too old. Events of a period whose invoice is final are held as well."
        )
