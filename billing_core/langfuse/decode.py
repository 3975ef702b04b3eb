"""From the bytes of a page to observation facts.

The fast path decodes a whole page into typed rows. If that fails, the page is taken apart and only the odd rows
go through the tolerant path; a row that cannot be placed at all is named, never dropped in silence.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa

from billing_core.langfuse.amounts import NO_COST, NO_TOKENS, exact, read_cost, read_tokens
from billing_core.langfuse.client import BrokenBody
from billing_core.langfuse.facts import FACTS_SCHEMA, MARKED_ROOT, NOT_ROOT, ROOT, TRACE_RECORD, VALUE_NAMES
from billing_core.langfuse.metadata import NO_FACTS, MetadataFacts, MetadataReader
from billing_core.usage import TIME, MetadataNames, RejectedRow

__all__ = ["Envelope", "FactReader", "Facts", "ObservationRow", "TraceRow", "WholeTrace"]

_NO_METADATA = msgspec.Raw(b"")

ERROR_LEVEL = "ERROR"
"""The `level` of an observation that failed. DEBUG, DEFAULT, WARNING and levels yet to be invented are none."""

METADATA_COLUMNS = MetadataFacts._fields.index("cut") + 1
"""How many fields of the metadata's facts are columns."""


class ObservationRow(msgspec.Struct, gc=False):
    """An observation of either API generation; keys are Langfuse's own, everything else is skipped unread."""

    id: str
    traceId: str  # noqa: N815
    startTime: str  # noqa: N815
    endTime: str | None = None  # noqa: N815
    updatedAt: str | None = None  # noqa: N815
    projectId: str | None = None  # noqa: N815
    parentObservationId: str | None = None  # noqa: N815
    isRootObservation: bool | None = None  # noqa: N815
    environment: str | None = None
    level: str | None = None
    name: str | None = None
    traceName: str | None = None  # noqa: N815
    userId: str | None = None  # noqa: N815
    sessionId: str | None = None  # noqa: N815
    model: str | None = None
    providedModelName: str | None = None  # noqa: N815
    metadata: msgspec.Raw = _NO_METADATA
    usageDetails: dict[str, Any] | None = None  # noqa: N815
    costDetails: dict[str, Decimal] | None = None  # noqa: N815
    totalCost: Decimal | None = None  # noqa: N815
    # legacy only
    usage: dict[str, Any] | None = None
    calculatedTotalCost: Decimal | None = None  # noqa: N815


class TraceRow(msgspec.Struct, gc=False):
    """A legacy trace record; `totalCost` and `latency` (seconds) are -1 when they were not requested."""

    id: str
    timestamp: str
    projectId: str | None = None  # noqa: N815
    updatedAt: str | None = None  # noqa: N815
    name: str | None = None
    userId: str | None = None  # noqa: N815
    sessionId: str | None = None  # noqa: N815
    environment: str | None = None
    metadata: msgspec.Raw = _NO_METADATA
    totalCost: Decimal | None = None  # noqa: N815
    latency: float | None = None


class WholeTrace(TraceRow, gc=False):
    """`GET /traces/{id}`: the record with its observations."""

    observations: list[msgspec.Raw] = []


Row = TypeVar("Row", ObservationRow, TraceRow)


class Meta(msgspec.Struct):
    """Where the page stands: a cursor (v2) or counts (legacy)."""

    cursor: str | None = None
    totalItems: int | None = None  # noqa: N815
    totalPages: int | None = None  # noqa: N815


class Envelope(msgspec.Struct, Generic[Row]):
    """A page as it came."""

    data: list[Row]
    meta: Meta | None = None


class _Loose(msgspec.Struct):
    data: list[msgspec.Raw]
    meta: Meta | None = None


class Facts(msgspec.Struct):
    """A decoded page.

    Attributes
    ----------
    rows:
        How many rows came, unreadable ones included.
    newest_left:
        One more than the oldest start time (milliseconds) if the rows came newest first, else `None`.
    """

    table: pa.Table
    rejected: list[RejectedRow]
    rows: int
    meta: Meta
    newest_left: int | None = None


class FactReader:
    """Turns pages into facts under one set of metadata names; safe to share between threads.

    Threads take turns page by page: the interpreter runs one at a time anyway, and changing in the middle of a page
    costs a third of the speed.
    """

    def __init__(self, names: MetadataNames) -> None:
        self.metadata = MetadataReader(names)
        self._turn = threading.Lock()
        self._pages = msgspec.json.Decoder(Envelope[ObservationRow])
        self._trace_pages = msgspec.json.Decoder(Envelope[TraceRow])
        self._loose = msgspec.json.Decoder(_Loose)
        self._rows = msgspec.json.Decoder(ObservationRow)
        self._traces = msgspec.json.Decoder(TraceRow)
        self._whole = msgspec.json.Decoder(WholeTrace)

    # -- pages ---------------------------------------------------------------------------------------------

    def observations(self, body: bytes, *, expanded: bool = False, repeat: bool = False) -> Facts:
        """A page of observations, v2 or v1.

        Raises
        ------
        BrokenBody
            If it is not the JSON of a page at all.
        """
        with self._turn:
            rows, rejected, meta = self._page(body, self._pages, self._rows, ObservationRow)
            return self._facts(
                [self._observation(row) for row in rows],
                [(row.startTime, row.endTime, row.updatedAt) for row in rows],
                rejected,
                meta,
                expanded=expanded,
                repeat=repeat,
            )

    def traces(self, body: bytes, *, repeat: bool = False) -> Facts:
        """A page of legacy trace records."""
        with self._turn:
            rows, rejected, meta = self._page(body, self._trace_pages, self._traces, TraceRow)
            return self._trace_facts(rows, rejected, meta, repeat=repeat)

    def whole_trace(self, body: bytes) -> list[Facts]:
        """A legacy trace with its observations."""
        try:
            trace = self._whole.decode(body)
            record: TraceRow | None = trace
            raws = trace.observations
            rejected: list[RejectedRow] = []
        except msgspec.DecodeError:
            loose = _loads(body)
            if not isinstance(loose, dict):
                raise BrokenBody("a trace is not an object") from None
            found = loose.pop("observations", None)
            raws = [msgspec.Raw(json.dumps(row, default=str).encode()) for row in found or [] if isinstance(row, dict)]
            record, rejected = _one(loose, TraceRow)
        page = msgspec.json.encode({"data": raws, "meta": {}})
        facts = [self.observations(page, repeat=True)]
        if record is not None or rejected:
            with self._turn:
                facts.append(self._trace_facts([record] if record else [], rejected, Meta(), repeat=True))
        return facts

    def _trace_facts(self, rows: Sequence[TraceRow], rejected: list[RejectedRow], meta: Meta, *, repeat: bool) -> Facts:
        return self._facts(
            [self._trace(row) for row in rows],
            [(row.timestamp, None, row.updatedAt) for row in rows],
            rejected,
            meta,
            expanded=False,
            repeat=repeat,
        )

    def _page(
        self,
        body: bytes,
        whole: msgspec.json.Decoder[Envelope[Row]],
        single: msgspec.json.Decoder[Row],
        kind: type[Row],
    ) -> tuple[list[Row], list[RejectedRow], Meta]:
        try:
            page = whole.decode(body)
        except msgspec.DecodeError:
            return self._tolerant_page(body, single, kind)
        return page.data, [], page.meta or Meta()

    def _tolerant_page(
        self, body: bytes, single: msgspec.json.Decoder[Row], kind: type[Row]
    ) -> tuple[list[Row], list[RejectedRow], Meta]:
        """Row by row, so that one odd row costs only itself."""
        rows: list[Row] = []
        rejected: list[RejectedRow] = []
        raws: Iterable[msgspec.Raw | dict[str, Any]]
        try:
            page = self._loose.decode(body)
            raws, meta = page.data, page.meta or Meta()
        except msgspec.DecodeError:
            raws, meta = _loose_page(body)
        for raw in raws:
            if isinstance(raw, msgspec.Raw):
                try:
                    rows.append(single.decode(raw))
                    continue
                except msgspec.DecodeError:
                    raw = _loads(bytes(raw))
            row, faults = _one(raw, kind)
            rejected += faults
            if row is not None:
                rows.append(row)
        return rows, rejected, meta

    # -- rows ----------------------------------------------------------------------------------------------

    def _observation(self, row: ObservationRow) -> tuple[object, ...]:
        """The values of one row, in the order of `VALUE_NAMES`. The hot loop: plain and flat on purpose."""
        identity = row.id
        trace_id = row.traceId
        parent = row.parentObservationId or None
        rank = ROOT if parent is None else MARKED_ROOT if row.isRootObservation else NOT_ROOT
        raw = bytes(row.metadata)
        facts = self.metadata.read(raw) if len(raw) > 4 else NO_FACTS  # not absent, {} or null
        usage = row.usageDetails or (row.usage and _older_usage(row.usage))
        tokens = read_tokens(identity, usage) if usage else NO_TOKENS
        bare = row.totalCost if row.totalCost is not None else row.calculatedTotalCost
        cost = read_cost(identity, row.costDetails or {}, bare) if row.costDetails or bare else NO_COST
        problems = None
        if facts.problems or tokens.problems or cost.problems:
            # Metadata is shared by many rows of a trace: its sentences name no row, so that they appear once.
            problems = [*facts.problems, *tokens.problems, *cost.problems]
        return (
            row.projectId or None,
            trace_id,
            identity,
            crc32(trace_id.encode()) & 0xFF,
            rank,
            parent,
            row.environment or None,
            row.name or None,
            row.traceName or None,
            row.sessionId or None,
            row.model or row.providedModelName or None,
            raw.decode() if rank != NOT_ROOT and raw.startswith(b"{") and len(raw) > 2 else None,
            row.userId or facts.user_id,
            *facts[:METADATA_COLUMNS],
            *tokens[:3],
            *tokens.classes,
            cost.usd,
            bool(tokens.total) and cost.usd is None and not cost.bad,
            tokens.bad or cost.bad or facts.bad,
            tokens.overlap,
            row.level == ERROR_LEVEL if row.level else None,
            problems,
            None,
            None,
        )

    def _trace(self, row: TraceRow) -> tuple[object, ...]:
        """A trace record as the row that newer servers would write for it: id `t-<trace id>`, no end, no usage."""
        stand_in = ObservationRow(
            id=f"t-{row.id}" if row.id else "",
            traceId=row.id,
            startTime=row.timestamp,
            projectId=row.projectId,
            environment=row.environment,
            name=row.name,
            traceName=row.name,
            userId=row.userId,
            sessionId=row.sessionId,
            metadata=row.metadata,
        )
        values = dict(zip(VALUE_NAMES, self._observation(stand_in), strict=True))
        values["rank"] = TRACE_RECORD
        values["record_cost"] = _record_number(row.totalCost)
        values["record_latency"] = row.latency if row.latency is not None and row.latency >= 0 else None
        return tuple(values.values())

    # -- columns -------------------------------------------------------------------------------------------

    def _facts(
        self,
        values: list[tuple[object, ...]],
        times: list[tuple[str, str | None, str | None]],
        rejected: list[RejectedRow],
        meta: Meta,
        *,
        expanded: bool,
        repeat: bool,
    ) -> Facts:
        count = len(values)
        if not count:
            return Facts(FACTS_SCHEMA.empty_table(), rejected, len(rejected), meta)
        columns = list(zip(*values, strict=True))
        starts, ends, updates = zip(*times, strict=True)
        start_column = _times(starts)
        arrays = [
            *(pa.array(column, field.type) for column, field in zip(columns, FACTS_SCHEMA, strict=False)),
            start_column,
            _times(ends),
            _times(updates),
            pa.repeat(expanded, count),
            pa.repeat(repeat, count),
        ]
        table = pa.Table.from_arrays(arrays, schema=FACTS_SCHEMA)
        rows = count + len(rejected)
        if start_column.null_count or not (all(columns[1]) and all(columns[2])):  # trace_id and id
            keep = [
                bool(readable and row[1] and row[2])
                for readable, row in zip(start_column.is_valid().to_pylist(), values, strict=True)
            ]
            rejected = rejected + [
                RejectedRow(_label({"id": row[2], "traceId": row[1]}), _reason(row[2], row[1], start))
                for good, row, start in zip(keep, values, starts, strict=True)
                if not good
            ]
            table = table.filter(pa.array(keep))
        return Facts(table, rejected, rows, meta, _newest_left(table["start_time"]))


def _newest_left(starts: pa.ChunkedArray) -> int | None:
    """One past the oldest start, in milliseconds, if the rows are in the documented order."""
    if not len(starts):
        return None
    values = starts.cast(pa.int64()).to_numpy()
    if not bool(np.all(values[:-1] >= values[1:])):
        return None
    return int(values[-1]) // 1000 + 1


def _times(texts: Sequence[str | None]) -> pa.Array:
    """ISO 8601 texts as UTC times; what cannot be read becomes null."""
    try:
        return pa.array(texts, pa.string()).cast(TIME)
    except pa.ArrowInvalid:
        return pa.array([_time_text(text) for text in texts], pa.string()).cast(TIME)


def _time_text(text: str | None) -> str | None:
    """A spelling Arrow reads: at most microseconds, with an offset. Without one, times are UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat().replace("+00:00", "Z")


def _older_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The `usage` object of servers that predate `usageDetails`; other units than tokens are left alone."""
    if usage.get("unit") not in {None, "", "TOKENS"}:
        return {}
    # 0/0/0 is how those servers say that nothing was named.
    counts = {key: usage.get(key) for key in ("input", "output", "total")}
    return counts if any(counts.values()) else {}


def _record_number(value: Decimal | None) -> Decimal | None:
    """-1 means the metrics were not requested: unknown, never a sum."""
    return None if value is None or not value.is_finite() or value < 0 or value >= 10**12 else exact(value)


# -- the tolerant path -----------------------------------------------------------------------------------------


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=lambda _: math.nan)
    except (ValueError, RecursionError) as error:
        raise BrokenBody(str(error)[:80]) from None


def _loose_page(body: bytes) -> tuple[list[dict[str, Any]], Meta]:
    page = _loads(body)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise BrokenBody("a page without a data list")
    meta = page.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    cursor = meta.get("cursor")
    counts = {key: meta[key] for key in ("totalItems", "totalPages") if isinstance(meta.get(key), int)}
    return page["data"], Meta(cursor=cursor if isinstance(cursor, str) else None, **counts)


_TEXTS = (
    "endTime",
    "updatedAt",
    "projectId",
    "parentObservationId",
    "environment",
    "name",
    "traceName",
    "userId",
    "sessionId",
    "model",
    "providedModelName",
)


def _one(loose: Any, kind: type[Row]) -> tuple[Row | None, list[RejectedRow]]:
    """A row whatever its values look like; amounts are judged later by the same rules as all others."""
    if not isinstance(loose, dict):
        return None, [RejectedRow("a row that is not an object", f"found {type(loose).__name__}")]
    start = "timestamp" if kind is TraceRow else "startTime"
    keys = ("id", start) if kind is TraceRow else ("id", "traceId", start)
    values: dict[str, Any] = {key: _plain(loose.get(key)) for key in keys}
    missing = [key for key, value in values.items() if not value]
    if missing:
        return None, [RejectedRow(_label(loose), f"{' and '.join(missing)} missing or unreadable")]
    values |= {key: _plain(loose.get(key)) for key in _TEXTS if key in kind.__struct_fields__}
    metadata = loose.get("metadata")
    if isinstance(metadata, dict):
        values["metadata"] = msgspec.Raw(json.dumps(metadata, default=_number_text, allow_nan=True).encode())
    if kind is TraceRow:
        values["totalCost"] = cost if isinstance(cost := loose.get("totalCost"), Decimal) else None
        values["latency"] = float(latency) if isinstance(latency := loose.get("latency"), (int, Decimal)) else None
    else:
        for key in ("usageDetails", "costDetails", "usage"):
            # Something else than an object becomes one bad value of that name, so that it is flagged, not lost.
            value = loose.get(key)
            values[key] = value if isinstance(value, dict) or value is None else {key: value}
        values["isRootObservation"] = loose.get("isRootObservation") is True
        values["level"] = level if isinstance(level := loose.get("level"), str) else None
        values["totalCost"] = loose.get("totalCost")
        values["calculatedTotalCost"] = loose.get("calculatedTotalCost")
    return kind(**values), []


def _plain(value: object) -> str | None:
    """Text as it is, a number as text, nothing else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def _number_text(value: object) -> object:
    """JSON for a Decimal that the tolerant path read out of a number."""
    return float(value) if isinstance(value, Decimal) else str(value)


def _label(loose: dict[str, Any]) -> str:
    return f"observation {_plain(loose.get('id')) or '?'} of trace {_plain(loose.get('traceId')) or '?'}"


def _reason(identity: object, trace_id: object, start: str) -> str:
    missing = [name for name, value in (("id", identity), ("traceId", trace_id)) if not value]
    return f"{' and '.join(missing)} missing" if missing else f"startTime {start[:60]!r} is not a time"
