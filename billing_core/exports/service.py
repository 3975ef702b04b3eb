"""Exports: what people take out of the ledger as files. Part of `BillingService`; every call takes a `Principal`.

A file is written under a temporary name and renamed: it is there as a whole or not at all. Nothing in it depends on a
clock: the same ledger and the same request give the same bytes, and of closed months for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter, NotFound, WarehouseError
from billing_core.exports import datasets, usage_source
from billing_core.exports.arrow_text import texts, whole
from billing_core.exports.atomic_file import replacing
from billing_core.exports.bookkeeping_files import ROWS, BookkeepingSettings
from billing_core.exports.bundle import Member, write_bundle
from billing_core.exports.csv_file import csv_header, csv_pieces, write_csv
from billing_core.exports.day_grain import DAY_SCHEMA
from billing_core.exports.excel_csv import SEPARATOR, for_excel
from billing_core.exports.flat_schema import FLAT_SCHEMA
from billing_core.exports.focus_schema import FocusProfile, focus_metadata, focus_schema
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.json_file import write_json
from billing_core.exports.model import (
    BOOKKEEPING,
    MAY_EXPORT,
    OF_EVERYTHING,
    OUR_COSTS,
    Dataset,
    ExportPreview,
    ExportProgress,
    ExportRequest,
    ExportResult,
    Format,
    Grain,
    may_export,
)
from billing_core.exports.parquet_file import write_parquet
from billing_core.exports.request import checked, concerning, file_name, meta_of, zone_of
from billing_core.exports.running_totals import as_text
from billing_core.exports.source import ExportWatch, RowSource, keeping
from billing_core.exports.usage_source import RequestedUsage
from billing_core.exports.xlsx_file import refuse_too_many, write_xlsx
from billing_core.ledger.closes import CloseStore
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.ledger.reconciliations import newest_reconciliation
from billing_core.month_close.model import FROZEN_SETTINGS
from billing_core.rating.card import RateCardFile
from billing_core.reconcile.report import Reconciliation
from billing_core.runtime.clock import Clock, now
from billing_core.settings import Settings
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.selection import select
from billing_core.values.journal_accounts import DatevClient, JournalAccounts
from billing_core.values.usage_frame import Window, aware_in, whole_hours, window_in

MANIFEST_SUFFIX = ".manifest.json"
FOCUS_METADATA_SUFFIX = ".focus-metadata.json"

FOCUS_SINCE = datetime(2026, 11, 1, tzinfo=UTC)
"""When the form of our FOCUS files was first used: what its metadata calls the creation of the schema."""

SEEN_EVERY = {Format.XLSX: 5_000, Format.PARQUET: 200_000}
"""Rows between two looks at whether somebody wants an export to stop; of other forms as many as are written at once."""

USUAL_ROWS = 50_000

_READERS = (Role.ADMIN, Role.FINANCE)

Progress = Callable[[ExportProgress], None]


@dataclass(frozen=True, slots=True)
class _Made:
    """A file in the making: what writes it, and what will be known of it."""

    rows: int
    source: RowSource
    write: Callable[[HashingSink, ExportWatch], None]
    beside: tuple[tuple[str, dict[str, Any]], ...] = ()


class ExportService:
    """What people can do with exports, for one principal per call. Thread-safe.

    `cards` gives the rate cards as they are now.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Callable[[], RateCardFile],
        stripe: StripeSyncService,
        clock: Clock = now,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._close_store = CloseStore(ledger.engine)
        self._cards = cards
        self._stripe = stripe
        self._clock = clock

    def usage_csv(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[bytes]:
        """Every usage event of a filter as CSV, in time order, in pieces; access is checked before the first one."""
        zone = self._settings.zone
        source = usage_source.by_event(
            RequestedUsage.of(self._ledger, select(self._ledger, zone, params, principal), zone, {})
        )
        return chain((csv_header(source.names),), csv_pieces(source.tables()))

    def columns(self, request: ExportRequest) -> tuple[str, ...]:
        """The columns that may be chosen for a request, in order; local times of `csv-europe` come with theirs.

        Raises BadParameter: if there is no such file or column.
        """
        schema = self._schema(checked(request))
        empty = RowSource(schema, 0, {}, {}, lambda: iter(()))
        return keeping(empty, request.columns).names

    def file_name(self, request: ExportRequest) -> str:
        """A name for the file of a request, such as `usage-events_2026-10_UTC.csv`."""
        return self._name(self._asked(request))

    def preview(self, request: ExportRequest, principal: Principal, rows: int = 20) -> ExportPreview:
        """What the file of a request would hold; nothing is written, and Stripe and Langfuse are not asked.

        Raises AccessDenied: if the principal may not export this. BadParameter: if there is no such file. NotFound: if
        the window was never reconciled: the export does that first.
        """
        request = self._pinned(self._asked(request))
        if request.dataset is Dataset.BUNDLE:
            source = self._bundle_contents(request, principal)
        else:
            source = self._source(request, principal, None)
        if request.format is Format.XLSX:
            refuse_too_many(source.rows)
        table = source.first(rows)
        shown = table if source.text is None else source.text(table)
        cells = [texts(whole(column)).to_pylist() for column in shown.columns]
        lines = tuple(zip(*cells, strict=True)) if table.num_rows else ()
        as_of = request.params.as_of
        if as_of is None:
            raise ValueError("a preview belongs to a state of the ledger")
        return ExportPreview(source.names, lines, source.rows, dict(source.totals), as_of, self._clock())

    def write(
        self,
        request: ExportRequest,
        principal: Principal,
        path: Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ExportResult:
        """Write the file of a request, and its manifest beside it; adds one entry to the audit log.

        Twice the same is the same file. Killed anywhere, the old file is there, or the new one: a manifest that names
        another hash than the file has belongs to the older of the two, and the next run sets it right.

        Raises AccessDenied: if the principal may not export this. BadParameter: if there is no such file, or it cannot
        be written there. Cancelled: when `cancelled` says so; nothing is left behind. WarehouseError: if the rows do
        not add up to what the screen shows: such a file is not left behind either.
        """
        watch = ExportWatch(None, progress, cancelled)
        request = self._asked(request)
        made = self._made(request, principal, watch)
        watch.set_total(made.rows)
        with ExitStack() as files:  # none takes its place before the audit log has the line; the file itself does first
            manifest, *others = [
                files.enter_context(replacing(path.with_name(path.name + suffix)))
                for suffix in (MANIFEST_SUFFIX, *(suffix for suffix, _ in made.beside))
            ]
            sink = HashingSink(files.enter_context(replacing(path)))
            made.write(sink, watch)
            watch.report("finishing")
            result = _result(path.name, made, sink)
            documents = (result.to_json(), *(document for _, document in made.beside))
            for file, document in zip((manifest, *others), documents, strict=True):
                file.write((json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())
            self._ledger.audit(principal.name, "export", _audited(request, result))
        return result

    def digest(self, request: ExportRequest, principal: Principal) -> ExportResult:
        """The result `write` would return (hash, rows, totals), without a file or an audit entry; raises as it does."""
        watch = ExportWatch(None, None, None)
        request = self._asked(request)
        made = self._made(request, principal, watch)
        sink = HashingSink()
        made.write(sink, watch)
        return _result(self._name(request), made, sink)

    # ── what a file is made of ───────────────────────────────────────────────────────────────────

    def _pinned(self, request: ExportRequest) -> ExportRequest:
        """The request about the ledger as it is now, unless it names a state itself."""
        if request.params.as_of is not None:
            return request
        as_of = self._ledger.version()
        return replace(request, params=request.params.model_copy(update={"as_of": as_of}))

    def _zone(self, request: ExportRequest) -> ZoneInfo:
        return zone_of(request, self._settings.timezone)

    def _name(self, request: ExportRequest) -> str:
        return file_name(request, self._zone(request))

    def _asked(self, request: ExportRequest) -> ExportRequest:
        """The request, checked. Of exactly a closed month, in the timezone it was closed in unless another is asked
        for: its files stay as they were, whatever the reporting timezone is by now."""
        request = checked(request)
        params = request.params
        if request.timezone is not None or params.from_ is None or params.to is None:
            return request
        start, end = (aware_in(self._zone(request), at) for at in (params.from_, params.to))
        months = self._ledger.snapshot(params.as_of).closed
        close = next((one.seq for one in months if (one.start, one.end) == (start, end)), None)
        if close is None:
            return request
        zone = self._close_store.numbered(close).timezone
        return replace(request, timezone=zone, params=params.model_copy(update={"from_": start, "to": end}))

    def _selection(self, request: ExportRequest, principal: Principal) -> Selection:
        return select(self._ledger, self._zone(request), request.params, principal)

    def _meta(self, request: ExportRequest, selection: Selection | None) -> dict[str, Any]:
        return meta_of(request, self._zone(request), selection)

    def _made(self, request: ExportRequest, principal: Principal, watch: ExportWatch) -> _Made:
        if request.dataset is Dataset.BUNDLE:
            return self._bundle(self._pinned(request), principal)
        source = self._source(request, principal, watch)
        beside: tuple[tuple[str, dict[str, Any]], ...] = ()
        if request.format is Format.FOCUS:
            profile = self._profile(request, {})
            document = focus_metadata(focus_schema(profile), profile, created=FOCUS_SINCE)
            beside = ((FOCUS_METADATA_SUFFIX, document),)
        return _Made(source.rows, source, lambda sink, seen: _write(request, source, sink, seen), beside)

    def _source(self, request: ExportRequest, principal: Principal, watch: ExportWatch | None) -> RowSource:
        """Rows of any data set but the bundle. Without a `watch` nothing outside the ledger is asked."""
        principal.require(*MAY_EXPORT[request.dataset])
        if (why := OF_EVERYTHING.get(request.dataset)) is not None:
            principal.require_everything(why)
        match request.dataset:
            case Dataset.USAGE_EVENTS:
                source = self._usage(request, principal)
            case Dataset.ORGANIZATIONS:
                selection = self._selection(request, principal)
                source = datasets.organizations(self._ledger, selection, self._meta(request, selection))
            case Dataset.CUSTOMERS:
                selection = self._selection(request, principal)
                source = datasets.customers(self._ledger, selection, self._meta(request, selection))
            case Dataset.RECONCILIATION:
                found = self._reconciliation(request, principal, watch)
                source = datasets.reconciliation(found, request.params.customer, self._meta(request, None))
            case Dataset.RATE_CARD:
                source = datasets.rate_cards(self._cards(), self._ledger, self._meta(request, None))
            case other:
                raise ValueError(f"{other} has no rows of its own")
        source = keeping(source, request.columns)
        return for_excel(source, self._zone(request)) if request.format is Format.CSV_EUROPE else source

    def _usage(self, request: ExportRequest, principal: Principal) -> RowSource:
        selection = self._selection(request, principal)
        usage = RequestedUsage.of(self._ledger, selection, self._zone(request), self._meta(request, selection))
        if request.format is Format.FOCUS:
            if request.internal:
                principal.require(*_READERS)
                principal.require_everything(OUR_COSTS)
            names = {}
            if principal.role in _READERS:
                lines = datasets.directory_lines(self._ledger, selection)
                names = {one: line.name for one, line in lines.items() if line.name}
            return usage_source.focus(usage, self._profile(request, names, selection))
        if request.format is Format.JOURNAL:
            accounts = JournalAccounts.parse(self._made_with(selection)["journal_accounts"])
            return usage_source.journal(usage, accounts)
        if request.format in BOOKKEEPING:
            return usage_source.bookkeeping(usage, request.format, self._bookkeeping(selection))
        return usage_source.by_day(usage) if request.grain is Grain.DAY else usage_source.by_event(usage)

    def _profile(
        self, request: ExportRequest, names: dict[str, str], selection: Selection | None = None
    ) -> FocusProfile:
        margins, made_with = {card.id: card.margin for card in self._cards().cards}, self._made_with(selection)
        return FocusProfile(
            request.focus_version,
            made_with["seller_name"],
            made_with["service_name"],
            self._zone(request),
            request.user_ids,
            request.internal,
            names,
            margins=margins,
        )

    def _bookkeeping(self, selection: Selection | None) -> BookkeepingSettings:
        accounts = JournalAccounts.parse(self._made_with(selection)["journal_accounts"])
        return BookkeepingSettings(accounts, self._settings.journal_tax, DatevClient.parse(self._settings.datev))

    def _made_with(self, selection: Selection | None) -> dict[str, str]:
        """The settings a file is made with: of closed months those of then, so that their files stay as they were."""
        close = None if selection is None else datasets.last_close(selection)
        now = {name: str(getattr(self._settings, name)) for name in FROZEN_SETTINGS}
        if close is None:
            return now
        manifest = self._close_store.numbered(close).manifest
        return {**now, **json.loads(manifest).get("settings", {})}

    def _schema(self, request: ExportRequest) -> pa.Schema:
        match request.dataset, request.format:
            case Dataset.USAGE_EVENTS, Format.FOCUS:
                return focus_schema(self._profile(request, {}))
            case Dataset.USAGE_EVENTS, Format.JOURNAL:
                return usage_source.JOURNAL_SCHEMA
            case Dataset.USAGE_EVENTS, form if form in BOOKKEEPING:
                return pa.schema([pa.field(name, pa.string()) for name in ROWS[form][0]])
            case Dataset.USAGE_EVENTS, _:
                return DAY_SCHEMA if request.grain is Grain.DAY else FLAT_SCHEMA
            case Dataset.BUNDLE, _:
                return BUNDLE_SCHEMA
            case other, _:
                return datasets.SCHEMAS[other]

    # ── reconciliation ───────────────────────────────────────────────────────────────────────────

    def _window(self, request: ExportRequest) -> Window | None:
        params = request.params
        if params.from_ is None and params.to is None:
            return None
        for name, at in (("from", params.from_), ("to", params.to)):
            if at is None:
                raise BadParameter(name, None, "both ends of the window to reconcile, or none for the newest one")
        assert params.from_ is not None and params.to is not None  # noqa: S101, PT018  (for the type checker)
        return whole_hours(window_in(self._zone(request), params.from_, params.to))

    def _reconciliation(
        self, request: ExportRequest, principal: Principal, watch: ExportWatch | None
    ) -> Reconciliation:
        """The newest one of exactly this window, made now if there is none; without a window the newest of all."""
        window = self._window(request)
        kept = self._kept_reconciliation(window)
        if kept is not None:
            return kept
        if window is None:
            raise NotFound("nothing has been reconciled yet; name a window with from and to, or reconcile first")
        if watch is None:
            raise NotFound("this window has not been reconciled yet; the export does that first, then it has rows")
        self._stripe.reconcile(
            principal, window.start, window.end, progress=lambda _, doing: watch.report(f"reconciling: {doing}")
        )
        made = self._kept_reconciliation(window)
        if made is None:
            raise WarehouseError("the reconciliation that was just made is not in the ledger; export again")
        return made

    def _kept_reconciliation(self, window: Window | None) -> Reconciliation | None:
        """The newest one; of a window within a closed month the one it was closed on: its files stay as they were."""
        text = newest_reconciliation(self._ledger.engine.rows, None if window is None else (window.start, window.end))
        return None if text is None else Reconciliation.from_json(json.loads(text))

    # ── the bundle ───────────────────────────────────────────────────────────────────────────────

    def _parts(self, request: ExportRequest, principal: Principal) -> list[tuple[str, Format, RowSource]]:
        """The tables of a bundle: file name, form and rows of each."""
        principal.require(*MAY_EXPORT[Dataset.BUNDLE])

        def part(dataset: Dataset, form: Format) -> ExportRequest:
            params: GetUsageEventsParams = concerning(dataset, request.params)
            return replace(request, dataset=dataset, format=form, params=params)

        found = []
        usage = part(Dataset.USAGE_EVENTS, Format.CSV)
        selection = self._selection(usage, principal)
        events = RequestedUsage.of(self._ledger, selection, self._zone(request), self._meta(usage, selection))
        found.append(("usage-events.csv", Format.CSV, usage_source.by_event(events)))
        # What an import reads are the events as they are known: a closed month may call pending what was sent since.
        known = replace(selection, snapshot=replace(selection.snapshot, closed=()))
        extended = RequestedUsage.of(self._ledger, known, self._zone(request), self._meta(usage, known))
        extended = replace(extended, meta={**extended.meta, "format": Format.PARQUET.value})
        found.append(("usage-events.parquet", Format.PARQUET, usage_source.by_event(extended, extras=True)))
        further = [(Dataset.ORGANIZATIONS, Format.CSV), (Dataset.CUSTOMERS, Format.CSV)]
        if Dataset.RATE_CARD in may_export(principal):
            further.append((Dataset.RATE_CARD, Format.JSON))
        for dataset, form in further:
            source = self._source(part(dataset, form), principal, None)
            found.append((f"{dataset.value}.{form.value}", form, source))
        if principal.organizations is None:
            asked = part(Dataset.RECONCILIATION, Format.JSON)
            kept = self._kept_reconciliation(self._whole_window(asked))
            if kept is not None:
                source = datasets.reconciliation(kept, asked.params.customer, self._meta(asked, None))
                found.append(("reconciliation.json", Format.JSON, source))
        return found

    def _whole_window(self, request: ExportRequest) -> Window | None:
        """Of a bundle whose window has one end only, the newest reconciliation is taken along."""
        params = request.params
        return None if params.from_ is None or params.to is None else self._window(request)

    def _bundle(self, request: ExportRequest, principal: Principal) -> _Made:
        parts = self._parts(request, principal)
        usage = parts[0][2]
        meta = {**self._meta(request, self._selection(request, principal)), "left_out": []}
        meta["rate_card_versions"] = usage.meta["rate_card_versions"]
        if principal.organizations is not None:
            meta["left_out"] = [
                f"reconciliation.json and closes.json: {OF_EVERYTHING[Dataset.RECONCILIATION]}",
                f"rate-card.json: {OF_EVERYTHING[Dataset.RATE_CARD]}",
            ]
        source = RowSource(usage.schema, usage.rows, usage.totals, meta, lambda: iter(()))

        def write(sink: HashingSink, watch: ExportWatch) -> None:
            members = [_member(name, form, part, watch) for name, form, part in parts]
            if principal.organizations is None:
                members.append(self._closes())
            totals = {name: as_text(value) for name, value in usage.totals.items()}
            write_bundle(sink, members, {**meta, "rows": usage.rows, "totals": totals})

        return _Made(sum(part.rows for _, _, part in parts), source, write)

    def _bundle_contents(self, request: ExportRequest, principal: Principal) -> RowSource:
        """The bundle's files as the rows of a preview; totals are those of its usage events."""
        parts = self._parts(request, principal)
        rows = [{"file": name, "rows": part.rows} for name, _, part in parts]
        table = pa.Table.from_pylist(rows, schema=BUNDLE_SCHEMA)
        return RowSource(BUNDLE_SCHEMA, parts[0][2].rows, parts[0][2].totals, {}, lambda: iter((table,)))

    def _closes(self) -> Member:
        closes = [
            {"period": one.period, "timezone": one.timezone, "sha256": one.sha256, "manifest": one.manifest}
            for one in self._close_store.counting()
        ]
        text = json.dumps({"closes": closes}, ensure_ascii=False, indent=1) + "\n"
        return Member("closes.json", len(closes), {}, {}, lambda sink: sink.write(text.encode()))


BUNDLE_SCHEMA = pa.schema([pa.field("file", pa.string()), pa.field("rows", pa.int64())])
"""What a preview says of a bundle."""


def _member(name: str, form: Format, source: RowSource, watch: ExportWatch) -> Member:
    request = ExportRequest(Dataset.USAGE_EVENTS, form)
    return Member(name, source.rows, source.totals, source.meta, lambda sink: _write(request, source, sink, watch))


def _write(request: ExportRequest, source: RowSource, sink: HashingSink, watch: ExportWatch) -> None:
    """The source in its form."""
    form = Format.PARQUET if request.format is Format.FOCUS and request.parquet else request.format or Format.CSV
    totals = {name: as_text(value) for name, value in source.totals.items()}
    document = {"rows": source.rows, "totals": totals, **source.meta}
    written = [0]
    watched = watch.observe(source.tables(), SEEN_EVERY.get(form, USUAL_ROWS), "writing")
    tables = _counted(watched, written)
    match form:
        case _ if source.file is not None:
            for _ in tables:  # checked and counted as they come
                pass
            sink.write(source.file())
        case Format.XLSX:
            write_xlsx(sink, source, tables, document)
        case Format.PARQUET:
            write_parquet(sink, source, tables, document)
        case Format.JSON:
            write_json(sink, source, tables, document)
        case Format.CSV_EUROPE:
            write_csv(sink, source, tables, SEPARATOR, bom=True)
        case Format.JOURNAL | Format.FOCUS | Format.CSV:
            write_csv(sink, source, tables, request.separator, bom=request.bom)
    if written[0] != source.rows:
        raise WarehouseError(
            f"export: {written[0]:,} rows came where {source.rows:,} were counted; nothing was written. Export again"
        )


def _counted(tables: Iterator[pa.Table], rows: list[int]) -> Iterator[pa.Table]:
    for table in tables:
        rows[0] += table.num_rows
        yield table


def _result(name: str, made: _Made, sink: HashingSink) -> ExportResult:
    return ExportResult(
        name, made.source.rows, sink.bytes, sink.sha256, dict(made.source.totals), dict(made.source.meta)
    )


def _audited(request: ExportRequest, result: ExportResult) -> dict[str, Any]:
    """Who took what along: never where to, which may say something of a person's machine."""
    names = ("dataset", "format", "grain", "filter", "window", "timezone")
    return {
        "file": result.name,
        **{name: result.meta[name] for name in names if name in result.meta},
        "columns": list(request.columns),
        "rows": result.rows,
        "bytes": result.bytes,
        "sha256": result.sha256,
    }
