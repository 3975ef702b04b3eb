"""Decodes pages of Langfuse's API (bytes) into observation facts.

The fast path decodes a whole page into typed rows. If that fails, the page is cut into pieces (`pieces.py`) and only
the odd rows go through the tolerant path, value by value: a value that cannot be read is left out and the trace is
flagged, a row that cannot be placed at all is named, and nothing is dropped in silence.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
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
from billing_core.langfuse.pieces import (
    BrokenJson,
    Unreadable,
    elements,
    is_readable,
    members,
    readable,
    shown,
    value_of,
)
from billing_core.langfuse.texts import Texts
from billing_core.values.usage_frame import TIME, MetadataNames, RejectedRow

_NO_METADATA = msgspec.Raw(b"")

ERROR_LEVEL = "ERROR"
"""The `level` of an observation that failed. DEBUG, DEFAULT, WARNING and levels yet to be invented are none."""

METADATA_COLUMNS = MetadataFacts._fields.index("user_id") + 1
"""How many fields of the metadata's facts are columns."""

UNREADABLE = (ValueError, ArithmeticError, RecursionError, TypeError, LookupError, MemoryError)
"""What decoders raise: msgspec's errors, those of codecs and of Arrow are ValueErrors, of decimals ArithmeticErrors."""


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
    type: str | None = None
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
    faults: tuple[str, ...] = msgspec.field(default=(), name="$faults")  # of the tolerant path, never sent


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
    faults: tuple[str, ...] = msgspec.field(default=(), name="$faults")


class WholeTrace(TraceRow, gc=False, kw_only=True):
    """A legacy trace (`GET /traces/{id}`): the record with its observations."""

    observations: list[msgspec.Raw]


Row = TypeVar("Row", ObservationRow, TraceRow)


class Envelope(msgspec.Struct, Generic[Row]):
    """A page of the API as it came, its rows not yet decoded."""

    data: list[Row]
    meta: msgspec.Raw


class Meta(msgspec.Struct):
    """The position of a page in the whole answer: a cursor (v2) or counts (legacy)."""

    cursor: str | None = None
    page: int | None = None
    total_items: int | None = None
    total_pages: int | None = None


class DecodedPage(msgspec.Struct):
    """A decoded page of observations or traces.

    rows: How many rows came, unreadable ones included.
    newest_left: One more than the oldest start time (milliseconds) if the rows came newest first, else `None`.
    """

    table: pa.Table
    rejected: list[RejectedRow]
    rows: int
    meta: Meta
    newest_left: int | None = None


class FactReader:
    """Decodes pages into observation facts, with one set of metadata names; safe to share between threads.

    Threads take turns page by page: the interpreter runs one at a time anyway, and changing in the middle of a page
    costs a third of the speed.
    """

    def __init__(self, names: MetadataNames) -> None:
        self.metadata = MetadataReader(names)
        self._clean = Texts().clean
        self._turn = threading.Lock()
        self._pages = msgspec.json.Decoder(Envelope[ObservationRow])
        self._trace_pages = msgspec.json.Decoder(Envelope[TraceRow])
        self._rows = msgspec.json.Decoder(ObservationRow)
        self._traces = msgspec.json.Decoder(TraceRow)
        self._whole = msgspec.json.Decoder(WholeTrace)

    # -- pages ---------------------------------------------------------------------------------------------

    def observations(self, body: bytes, *, expanded: bool = False, repeat: bool = False) -> DecodedPage:
        """The facts of a page of observations, v2 or v1.

        Raises BrokenBody: if it is not the JSON of a page at all.
        """
        with self._turn:
            rows, rejected, meta = self._page(body, self._pages, self._rows, ObservationRow)
            return self._facts(rows, rejected, meta, expanded=expanded, repeat=repeat)

    def traces(self, body: bytes, *, repeat: bool = False) -> DecodedPage:
        """The facts of a page of legacy trace records."""
        with self._turn:
            rows, rejected, meta = self._page(body, self._trace_pages, self._traces, TraceRow)
            return self._facts(rows, rejected, meta, expanded=False, repeat=repeat)

    def whole_trace(self, body: bytes) -> list[DecodedPage]:
        """The facts of a legacy trace with its observations."""
        try:
            trace = self._whole.decode(body)
            record: TraceRow | None = trace
            pieces = [bytes(raw) for raw in trace.observations]
            rejected: list[RejectedRow] = []
        except UNREADABLE:
            try:
                pieces = elements(members(body).get("observations", b""))
            except BrokenJson as error:
                raise BrokenBody(f"a trace without a list of observations: {error}") from None
            record, rejected = _one(body, TraceRow)
        facts = [self.observations(b'{"data":[%s],"meta":{}}' % b",".join(pieces), repeat=True)]
        if record is not None or rejected:
            with self._turn:
                rows = [record] if record else []
                facts.append(self._facts(rows, rejected, Meta(), expanded=False, repeat=True))
        return facts

    def _page(
        self,
        body: bytes,
        whole: msgspec.json.Decoder[Envelope[Row]],
        single: msgspec.json.Decoder[Row],
        kind: type[Row],
    ) -> tuple[list[Row], list[RejectedRow], Meta]:
        if _NUL not in body:
            try:
                page = whole.decode(body)
            except UNREADABLE:
                pass
            else:
                return page.data, [], read_meta(bytes(page.meta))
        return self._tolerant_page(body, single, kind)

    def _tolerant_page(
        self, body: bytes, single: msgspec.json.Decoder[Row], kind: type[Row]
    ) -> tuple[list[Row], list[RejectedRow], Meta]:
        """Row by row, so that one odd row costs only itself."""
        rows: list[Row] = []
        rejected: list[RejectedRow] = []
        try:
            page = members(body.removeprefix(_MARK))
        except BrokenJson as error:
            raise BrokenBody(str(error)) from None
        meta = read_meta(page.get("meta", b""))
        try:
            pieces = elements(page.get("data", b""))
        except BrokenJson as error:
            raise BrokenBody(f"a page without a data list: {error}") from None
        for piece in pieces:
            if _NUL not in piece:
                try:
                    rows.append(single.decode(piece))
                    continue
                except UNREADABLE:
                    pass
            row, faults = _one(piece, kind)
            rejected += faults
            if row is not None:
                rows.append(row)
        return rows, rejected, meta

    # -- rows ----------------------------------------------------------------------------------------------

    def _observation(self, row: ObservationRow) -> tuple[object, ...]:
        """The values of one row, in the order of `VALUE_NAMES`. The hot loop: plain and flat on purpose."""
        clean = self._clean
        identity = row.id
        trace_id = row.traceId
        parent = row.parentObservationId or None
        rank = ROOT if parent is None else MARKED_ROOT if row.isRootObservation else NOT_ROOT
        raw = bytes(row.metadata)
        facts = self.metadata.read(raw) if len(raw) > 4 else NO_FACTS  # not absent, {} or null
        usage = row.usageDetails or (row.usage and _older_usage(row.usage))
        if usage and row.usage and (unit := row.usage.get("unit")) and str(unit).upper() != TOKENS:
            usage = _in_units(usage, str(unit).lower())
        tokens = read_tokens(identity, usage) if usage else NO_TOKENS
        bare = row.totalCost if row.totalCost is not None else row.calculatedTotalCost
        cost = read_cost(identity, row.costDetails or {}, bare) if row.costDetails or bare else NO_COST
        problems = None
        if facts.problems or tokens.problems or cost.problems or row.faults:
            # Metadata is shared by many rows of a trace: its sentences name no row, so that they appear once.
            problems = [*facts.problems, *tokens.problems, *cost.problems, *row.faults]
        return (
            row.projectId or None,
            trace_id,
            identity,
            crc32(trace_id.encode()) & 0xFF,
            rank,
            parent,
            clean(row.environment),
            clean(row.name),
            clean(row.type),
            clean(row.level),
            clean(row.traceName),
            clean(row.sessionId),
            clean(row.model) or clean(row.providedModelName),
            (facts.stored or raw.decode("utf-8", "replace"))
            if rank != NOT_ROOT and raw.startswith(b"{") and len(raw) > 2
            else None,
            clean(row.userId),
            *facts[:METADATA_COLUMNS],
            *tokens[:3],
            *tokens.classes,
            tokens.keys,
            tokens.counts,
            cost.usd,
            bool(tokens.total) and cost.usd is None and not cost.bad,
            tokens.bad or cost.bad or facts.bad,
            tokens.overlap,
            facts.unreadable or bool(row.faults),
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
            faults=row.faults,
        )
        values = dict(zip(VALUE_NAMES, self._observation(stand_in), strict=True))
        values["rank"] = TRACE_RECORD
        values["record_cost"] = _record_number(row.totalCost)
        values["record_latency"] = row.latency if row.latency is not None and row.latency >= 0 else None
        return tuple(values.values())

    # -- columns -------------------------------------------------------------------------------------------

    def _facts(
        self, rows: Sequence[Row], rejected: list[RejectedRow], meta: Meta, *, expanded: bool, repeat: bool
    ) -> DecodedPage:
        """Rows as columns. What no column can hold costs the row it is in, which is named."""
        try:
            return self._columns(rows, rejected, meta, expanded=expanded, repeat=repeat)
        except UNREADABLE as error:
            if len(rows) == 1:
                return _nothing([*rejected, RejectedRow(_name_of(rows[0]), shown(f"unreadable: {error}"))], meta)
        parts = [self._facts([row], [], meta, expanded=expanded, repeat=repeat) for row in rows]
        faults = [fault for part in parts for fault in part.rejected]
        table = pa.concat_tables([part.table for part in parts])
        return DecodedPage(table, rejected + faults, len(rows) + len(rejected), meta, _newest_left(table["start_time"]))

    def _columns(
        self, rows: Sequence[Row], rejected: list[RejectedRow], meta: Meta, *, expanded: bool, repeat: bool
    ) -> DecodedPage:
        count = len(rows)
        if not count:
            return _nothing(rejected, meta)
        values: list[tuple[object, ...]]
        times: list[tuple[str, str | None, str | None]]
        if isinstance(rows[0], TraceRow):
            values = [self._trace(row) for row in rows if isinstance(row, TraceRow)]
            times = [(row.timestamp, None, row.updatedAt) for row in rows if isinstance(row, TraceRow)]
        else:
            values = [self._observation(row) for row in rows if isinstance(row, ObservationRow)]
            times = [(row.startTime, row.endTime, row.updatedAt) for row in rows if isinstance(row, ObservationRow)]
        starts, ends, updates = zip(*times, strict=True)
        start_column, end_column = _times(starts), _times(ends)
        if end_column.null_count > sum(not end for end in ends):
            known = end_column.is_valid().to_pylist()
            values = [
                row
                if good or not end
                else _with_fault(row, f"observation {shown(row[2])}: endTime {shown(end)!r} is not a time")
                for row, good, end in zip(values, known, ends, strict=True)
            ]
        columns: list[tuple[object, ...]] = list(zip(*values, strict=True))
        arrays = [
            *(pa.array(column, field.type) for column, field in zip(columns, FACTS_SCHEMA, strict=False)),
            start_column,
            end_column,
            _times(updates),
            pa.repeat(expanded, count),
            pa.repeat(repeat, count),
        ]
        table = pa.Table.from_arrays(arrays, schema=FACTS_SCHEMA)
        total = count + len(rejected)
        if start_column.null_count or not (all(columns[1]) and all(columns[2])):  # trace_id and id
            keep = [
                bool(readable and row[1] and row[2])
                for readable, row in zip(start_column.is_valid().to_pylist(), values, strict=True)
            ]
            rejected = rejected + [
                RejectedRow(_label(row[2], row[1]), _reason(row[2], row[1], start))
                for good, row, start in zip(keep, values, starts, strict=True)
                if not good
            ]
            table = table.filter(pa.array(keep))
        return DecodedPage(table, rejected, total, meta, _newest_left(table["start_time"]))


def _nothing(rejected: list[RejectedRow], meta: Meta) -> DecodedPage:
    return DecodedPage(FACTS_SCHEMA.empty_table(), rejected, len(rejected), meta)


NOTHING = _nothing([], Meta())
"""A page without rows that is the last."""


def _with_fault(values: tuple[object, ...], sentence: str) -> tuple[object, ...]:
    """The values of a row with one more thing that could not be read."""
    named = dict(zip(VALUE_NAMES, values, strict=True))
    problems = named["problems"]
    named["problems"] = [*(problems if isinstance(problems, list) else []), sentence]
    named["incomplete"] = True
    return tuple(named.values())


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


TOKENS = "TOKENS"
"""What the legacy `usage.unit` says of tokens; others are CHARACTERS, MILLISECONDS, SECONDS, REQUESTS, IMAGES."""


def _in_units(usage: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Counts of another unit than tokens under keys that say so: `input` → `input_characters`."""
    named = {f"{key}_{unit}": value for key, value in usage.items() if key != "total"}
    return named or {unit: usage.get("total")}


def _older_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The `usage` object of servers that predate `usageDetails`."""
    # 0/0/0 is how those servers say that nothing was named.
    counts = {key: usage.get(key) for key in ("input", "output", "total")}
    return counts if any(counts.values()) else {}


def _record_number(value: Decimal | None) -> Decimal | None:
    """-1 means the metrics were not requested: unknown, never a sum."""
    return None if value is None or not value.is_finite() or value < 0 or value >= 10**12 else exact(value)


# -- the tolerant path -----------------------------------------------------------------------------------------

_NUL = b"\\u0000"
"""The one character that is valid JSON and that neither engines nor files take."""

_MARK = b"\xef\xbb\xbf"
"""A byte order mark."""

_IDENTITIES = ("projectId", "userId", "sessionId", "endTime", "updatedAt")
"""Half an identity is another one: absent when it cannot be read."""

_WORDS = ("environment", "type", "name", "traceName", "model", "providedModelName")
"""Texts that stay useful with a character missing."""


def _one(piece: bytes, kind: type[Row]) -> tuple[Row | None, list[RejectedRow]]:
    """A row whatever its values look like; amounts are judged later by the same rules as all others."""
    try:
        loose = members(piece)
    except BrokenJson:
        return None, [RejectedRow("a row that is not an object", f"found {_kind_of(piece)}")]
    start = "timestamp" if kind is TraceRow else "startTime"
    keys = ("id", start) if kind is TraceRow else ("id", "traceId", start)
    values: dict[str, Any] = {key: _scalar(loose.get(key)) for key in keys}
    trace_key = "id" if kind is TraceRow else "traceId"
    label = _label(values["id"], values[trace_key])
    if missing := [key for key, value in values.items() if not value]:
        return None, [RejectedRow(label, f"{' and '.join(missing)} missing or unreadable")]
    if not is_readable(values[trace_key]):
        return None, [RejectedRow(label, f"{trace_key} holds half a character or NUL: nothing can be kept under it")]
    faults: list[str] = []
    values["id"], values["parentObservationId"] = (
        None if text is None else text if is_readable(text) else shown(text, 1000)
        for text in (values["id"], _scalar(loose.get("parentObservationId")))
    )
    for key in (*_IDENTITIES, *_WORDS):
        if key not in kind.__struct_fields__:
            continue
        text = _scalar(loose.get(key))
        if text is not None and not is_readable(text):
            faults.append(f"{label}: {key} {shown(text)} holds half a character or NUL")
            text = readable(text) if key in _WORDS else None
        elif text is None and _is_cut_off(loose.get(key)):
            faults.append(f"{label}: {key} cannot be read; left out")
        values[key] = text
    if "metadata" in loose:
        values["metadata"] = msgspec.Raw(loose["metadata"])
    if kind is TraceRow:
        del values["parentObservationId"]
        cost, latency = _value(loose.get("totalCost")), _value(loose.get("latency"))
        values["totalCost"] = Decimal(cost) if isinstance(cost, (int, Decimal)) and not isinstance(cost, bool) else None
        values["latency"] = _seconds(latency)
    else:
        for key in ("usageDetails", "costDetails", "usage"):
            values[key] = _amounts(key, loose.get(key))
        values["isRootObservation"] = loose.get("isRootObservation") == b"true"
        level = _value(loose.get("level"))
        values["level"] = level if isinstance(level, str) else None
        values["totalCost"] = _value(loose.get("totalCost"))
        values["calculatedTotalCost"] = _value(loose.get("calculatedTotalCost"))
    return kind(**values, faults=tuple(faults)), []


def _value(piece: bytes | None) -> Any:
    """A decoded value; one that cannot be decoded is a text saying so, which no rule takes for an amount."""
    if piece is None:
        return None
    try:
        return value_of(piece)
    except Unreadable as error:
        return f"unreadable: {error}"


def _scalar(piece: bytes | None) -> str | None:
    """Text as it is, a number as text, nothing else."""
    try:
        value = None if piece is None else value_of(piece)
    except Unreadable:
        return None
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def _is_cut_off(piece: bytes | None) -> bool:
    """Whether something stands there that cannot be decoded at all."""
    try:
        value_of(piece or b"null")
    except Unreadable:
        return True
    return False


def _amounts(key: str, piece: bytes | None) -> dict[str, Any] | None:
    """The members of an object of amounts, each for itself.

    Something else than an object becomes one bad value of that name, so that it is flagged, not lost.
    """
    if piece is None or piece == b"null":
        return None
    try:
        return {name: _value(amount) for name, amount in members(piece).items()}
    except BrokenJson:
        return {key: _value(piece)}


def _seconds(value: object) -> float | None:
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if seconds < 1e12 else None


def _kind_of(piece: bytes) -> str:
    return type(_value(piece)).__name__


def _name_of(row: ObservationRow | TraceRow) -> str:
    return _label(row.id, row.traceId if isinstance(row, ObservationRow) else row.id)


def _label(identity: object, trace_id: object) -> str:
    return f"observation {shown(identity or '?')} of trace {shown(trace_id or '?')}"


def _reason(identity: object, trace_id: object, start: str) -> str:
    missing = [name for name, value in (("id", identity), ("traceId", trace_id)) if not value]
    return f"{' and '.join(missing)} missing" if missing else f"startTime {shown(start, 60)!r} is not a time"


# -- where a page stands ---------------------------------------------------------------------------------------

_MORE = re.compile("cursor|next|more", re.IGNORECASE)
_NOTHING = {b"null", b'""', b"false", b"0", b"[]", b"{}"}
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*")


def read_meta(piece: bytes) -> Meta:
    """The position of a page in the whole answer; an unknown shape is an error, never "the last page".

    Raises BrokenBody: if there is no meta, its cursor is neither text nor a number, a count is no count, or the
    position of the next page seems to be given under another name.
    """
    try:
        found = members(piece)
    except BrokenJson:
        raise BrokenBody("a page without meta, which says whether more follow") from None
    cursor = _cursor(found.pop("cursor", b"null"))
    if cursor is None:
        for key, value in found.items():
            if _MORE.search(key) and value not in _NOTHING:
                raise BrokenBody(f"the position of the next page under the unknown name {shown(key)}")
    return Meta(cursor, *(_meta_count(key, found.get(key, b"null")) for key in ("page", "totalItems", "totalPages")))


def _cursor(piece: bytes) -> str | None:
    if piece in {b"null", b'""'}:
        return None
    if _NUMBER.fullmatch(piece):
        return piece.decode()
    text = _value(piece)
    if not isinstance(text, str) or not piece.startswith(b'"') or not is_readable(text):
        raise BrokenBody("a cursor that is neither text nor a number")
    return text


def _meta_count(key: str, piece: bytes) -> int | None:
    if piece == b"null":
        return None
    text = piece.strip(b'"')
    if not text.isdigit() or len(text) > 18:
        raise BrokenBody(f"{key} = {shown(_value(piece))}, which is no count")
    return int(text)
