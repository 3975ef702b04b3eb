"""Every row of the sandbox in memory, in the API's fixed order, ready to be served.

One long text holds all rows one after the other; numpy arrays hold what queries select by. A page without
filters is then a slice of that text, whatever the size of the data.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from billing_core.sandbox.data.plan import TracePlan
from billing_core.sandbox.langfuse.wire import encode_mapping, encode_plan, iso, milliseconds

Positions: TypeAlias = npt.NDArray[np.int64]
Check: TypeAlias = Callable[[dict[str, Any]], bool]

OPEN_END = -1
"""Stands for "no end time" among milliseconds."""

ALL_TIME = (-(2**62), 2**62)


class BadCursor(ValueError):
    """The cursor did not come from this API."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows are asked for; times are milliseconds since 1970, windows half open."""

    start: tuple[int, int] = ALL_TIME
    ended: tuple[int, int] = ALL_TIME
    """Inclusive bounds of the end time; rows without an end match only if both are open."""
    traces: frozenset[str] | None = None
    environments: frozenset[str] | None = None
    types: frozenset[str] | None = None
    is_root: bool | None = None
    checks: tuple[Check, ...] = ()
    """Further conditions on the decoded row: exact, and slow."""
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Positions of the rows of one page; `cursor` leads to the next one."""

    positions: Positions
    cursor: str | None


class Codes:
    """Small numbers for repeated texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        """The number of `text`, a new one for a new text."""
        if (code := self._codes.get(text)) is None:
            code = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return code

    def known(self, texts: frozenset[str]) -> list[int]:
        """Numbers of those texts that occur at all."""
        return [self._codes[text] for text in texts if text in self._codes]


@dataclass(slots=True)
class Columns:
    """What queries select by, one entry per row."""

    start: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    written: array[int] = field(default_factory=lambda: array("q"))
    hash: array[int] = field(default_factory=lambda: array("q"))
    trace: array[int] = field(default_factory=lambda: array("i"))
    environment: array[int] = field(default_factory=lambda: array("i"))
    type: array[int] = field(default_factory=lambda: array("i"))
    model: array[int] = field(default_factory=lambda: array("i"))
    root: array[int] = field(default_factory=lambda: array("b"))
    synthetic: array[int] = field(default_factory=lambda: array("b"))
    tokens: array[int] = field(default_factory=lambda: array("q"))
    cost: array[int] = field(default_factory=lambda: array("q"))
    """USD × 10⁻¹² of the row's total; 0 where there is no total."""
    version: array[int] = field(default_factory=lambda: array("b"))


COLUMN_NAMES = tuple(Columns.__dataclass_fields__)


def trace_hash(trace_id: str) -> int:
    """Decides the order of traces within a millisecond; the real server uses another hash with the same effect."""
    return crc32(trace_id.encode())


class StoreBuilder:
    """Collects rows, then sorts them once."""

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._whole: dict[int, bytes] = {}
        self._columns = Columns()
        self._traces, self._environments, self._types, self._models = Codes(), Codes(), Codes(), Codes()

    def add(self, plan: TracePlan) -> None:
        """Take in the rows of one trace."""
        columns = self._columns
        trace = self._traces.code(plan.trace_id)
        environment = self._environments.code(plan.environment)
        hashed = trace_hash(plan.trace_id)
        # rows of a trace that share their start come in order of id; the sort over all rows below is stable
        plan.rows.sort(key=lambda row: row.version)
        plan.rows.sort(key=lambda row: row.id, reverse=True)
        for row, text, whole in encode_plan(plan):
            if whole is not None:
                self._whole[len(self._texts)] = whole
            self._texts.append(text)
            columns.start.append(row.start)
            columns.end.append(OPEN_END if row.end is None else row.end)
            columns.written.append(row.written)
            columns.hash.append(hashed)
            columns.trace.append(trace)
            columns.environment.append(environment)
            columns.type.append(self._types.code(row.type))
            columns.model.append(self._models.code("" if row.model is None else row.model.name))
            columns.root.append(row.is_root)
            columns.synthetic.append(row.id.startswith("t-"))
            columns.tokens.append(row.usage.get("total", 0))
            columns.cost.append(row.cost.get("total", 0))
            columns.version.append(row.version)

    def build(self) -> RowStore:
        """The store; the builder is spent afterwards."""
        raw = {name: np.array(getattr(self._columns, name), dtype=np.int64) for name in COLUMN_NAMES}
        order = np.lexsort((-raw["hash"], -raw["start"]))
        texts = self._texts
        lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))[order]
        offsets = np.concatenate(([0], np.cumsum(lengths + 1)[:-1])) if len(texts) else np.empty(0, dtype=np.int64)
        ordered = order.tolist()
        blob = bytearray()
        for begin in range(0, len(ordered), 50_000):  # in parts, so that no second copy of everything exists
            part = ordered[begin : begin + 50_000]
            blob += b",".join([texts[i] for i in part])
            blob += b","
            for i in part:
                texts[i] = b""
        place = np.empty(len(ordered), dtype=np.int64)
        place[order] = np.arange(len(ordered))
        whole = {int(offsets[place[i]]): text for i, text in self._whole.items()}
        return RowStore(
            blob,
            offsets,
            lengths,
            {name: values[order] for name, values in raw.items()},
            whole,
            self._traces,
            self._environments,
            self._types,
            self._models,
        )


class RowStore:
    """Rows in the fixed order: start, hash of the trace, id, all descending (reference, section 1.7)."""

    def __init__(
        self,
        blob: bytearray,
        offsets: Positions,
        lengths: Positions,
        columns: dict[str, Positions],
        whole: dict[int, bytes],
        traces: Codes,
        environments: Codes,
        types: Codes,
        models: Codes,
    ) -> None:
        self._blob = blob
        self._offsets = offsets
        self._lengths = lengths
        self.columns = columns
        self._whole = whole
        self.traces, self.environments, self.types, self.models = traces, environments, types, models
        self._rows_of_traces: tuple[Positions, Positions] | None = None
        self._settle()

    def __len__(self) -> int:
        return len(self._offsets)

    def _settle(self) -> None:
        """Rebuild what is derived from the columns."""
        self._falling = -self.columns["start"]
        self._rows_of_traces = None
        self._of_several_versions = set(self.columns["trace"][self.columns["version"] != 0].tolist())
        self._latest_written = int(self.columns["written"].max(initial=0))
        self._breaks = np.flatnonzero(np.diff(self._offsets) != self._lengths[:-1] + 1) if len(self) else self._offsets

    # ---- reading ----------------------------------------------------------------------------------------

    def text(self, position: int) -> bytes:
        """The stored text of one row."""
        offset = int(self._offsets[position])
        return bytes(self._blob[offset : offset + int(self._lengths[position])])

    def whole_text(self, position: int) -> bytes:
        """The row's text with uncut metadata."""
        return self._whole.get(int(self._offsets[position])) or self.text(position)

    def row(self, position: int) -> dict[str, Any]:
        """The row decoded, metadata uncut; what should be an object and is not (odd test rows) is empty here."""
        decoded: dict[str, Any] = msgspec.json.decode(self.whole_text(position))
        for key in ("metadata", "usageDetails", "costDetails"):
            if not isinstance(decoded[key], dict):
                decoded[key] = {}
        return decoded

    def has_versions(self, position: int) -> bool:
        """Whether the row's trace holds some row in more than one version."""
        return int(self.columns["trace"][position]) in self._of_several_versions

    def joined(self, positions: Positions) -> bytes:
        """The stored texts of rows with commas between; rows that lie side by side are taken in one piece."""
        if not len(positions):
            return b""
        ends = np.flatnonzero(np.diff(positions) != 1)
        if len(self._breaks):
            ends = np.union1d(ends, np.flatnonzero(np.isin(positions[:-1], self._breaks)))
        firsts = positions[np.concatenate(([0], ends + 1))]
        lasts = positions[np.append(ends, len(positions) - 1)]
        begins = self._offsets[firsts].tolist()
        stops = (self._offsets[lasts] + self._lengths[lasts]).tolist()
        with memoryview(self._blob) as view:
            return b",".join([view[begin:stop].tobytes() for begin, stop in zip(begins, stops, strict=True)])

    def window(self, start: tuple[int, int]) -> tuple[int, int]:
        """Positions [low, high) of the rows whose start lies in the half-open window."""
        low = int(np.searchsorted(self._falling, -start[1], side="right"))
        high = int(np.searchsorted(self._falling, -start[0], side="right"))
        return low, max(low, high)

    def rows_of_trace(self, trace_id: str) -> Positions:
        """Positions of one trace's rows, in order; empty if there is none."""
        return self._rows_of(self.traces.known(frozenset((trace_id,))))

    def traces_started(self, start: tuple[int, int], now: int) -> list[str]:
        """Traces whose first row starts in the half-open window and that have a row by `now`, oldest first."""
        order, bounds = self._by_trace()
        firsts = self.columns["start"][order[bounds[1:] - 1]]
        codes = np.flatnonzero((firsts >= start[0]) & (firsts < start[1]))
        if now < self._latest_written:
            there = self.visible(np.arange(len(self)), now)
            codes = codes[np.isin(codes, self.columns["trace"][there])]
        return [self.traces.texts[code] for code in codes[np.argsort(firsts[codes], kind="stable")].tolist()]

    def _by_trace(self) -> tuple[Positions, Positions]:
        """Positions grouped by trace, and where each group begins (one more bound than traces)."""
        if self._rows_of_traces is None:
            order = np.argsort(self.columns["trace"], kind="stable")
            bounds = np.searchsorted(self.columns["trace"][order], np.arange(len(self.traces.texts) + 1))
            self._rows_of_traces = (order, bounds)
        return self._rows_of_traces

    def _rows_of(self, codes: Sequence[int]) -> Positions:
        order, bounds = self._by_trace()
        if not codes:
            return np.empty(0, dtype=np.int64)
        return np.sort(np.concatenate([order[bounds[code] : bounds[code + 1]] for code in codes]))

    def visible(self, positions: Positions, now: int) -> Positions:
        """Those rows that have been written by `now`."""
        if now >= self._latest_written:
            return positions
        return positions[self.columns["written"][positions] <= now]

    def page(self, query: Query, now: int) -> Page:
        """The next rows for `query` that are visible at `now`.

        Raises
        ------
        BadCursor
            If the cursor cannot be read.
        """
        low, high = self.window(query.start)
        if query.cursor is not None:
            low = max(low, self._after(query.cursor))
        found = self._matching(query, low, max(low, high), now)
        if len(found) <= query.limit:
            return Page(found, None)
        found = found[: query.limit]
        return Page(found, self._cursor(int(found[-1])))

    def _matching(self, query: Query, low: int, high: int, now: int) -> Positions:
        """At least the first `limit` + 1 matches in [low, high), if there are as many."""
        wanted = query.limit + 1
        if query.traces is not None:
            found = self._rows_of(self.traces.known(query.traces))
            found = found[(found >= low) & (found < high)]
            return self._checked(query, self._selected(query, found, now))
        matches: list[Positions] = []
        step = max(4 * wanted, 4096)
        if not (query.environments or query.types or query.checks or query.ended != ALL_TIME) and query.is_root is None:
            step = wanted
        while low < high and wanted > 0:
            part = np.arange(low, min(low + step, high))
            part = self._checked(query, self._selected(query, part, now))
            matches.append(part)
            wanted -= len(part)
            low += step
            step *= 2
        return np.concatenate(matches) if matches else np.empty(0, dtype=np.int64)

    def _selected(self, query: Query, found: Positions, now: int) -> Positions:
        found = self.visible(found, now)
        columns = self.columns
        for name, codes, texts in (
            ("environment", self.environments, query.environments),
            ("type", self.types, query.types),
        ):
            if texts is not None:
                found = found[np.isin(columns[name][found], codes.known(texts))]
        if query.is_root is not None:
            found = found[columns["root"][found] == int(query.is_root)]
        if query.ended != ALL_TIME:
            ends = columns["end"][found]
            found = found[(ends != OPEN_END) & (ends >= query.ended[0]) & (ends <= query.ended[1])]
        return found

    def _checked(self, query: Query, found: Positions) -> Positions:
        if not query.checks:
            return found
        passed = [p for p in found.tolist() if all(check(row) for row in (self.row(p),) for check in query.checks)]
        return np.array(passed, dtype=np.int64)

    # ---- cursors ----------------------------------------------------------------------------------------

    def _key(self, position: int) -> tuple[str, str, int]:
        """Id, trace and version: what orders rows of one millisecond beside the trace's hash."""
        row = msgspec.json.decode(self.text(position), type=_Identity)
        return row.id, row.trace_id, int(self.columns["version"][position])

    def _cursor(self, position: int) -> str:
        id_, trace_id, version = self._key(position)
        content = {
            "lastStartTimeTo": int(self.columns["start"][position]),
            "lastTraceId": trace_id,
            "lastId": id_,
            "lastVersion": version,
        }
        return base64.b64encode(msgspec.json.encode(content)).decode()

    def _after(self, cursor: str) -> int:
        """The first position behind the row the cursor names, whether or not that row still exists."""
        try:
            last = msgspec.json.decode(base64.b64decode(cursor, validate=True), type=_CursorContent)
        except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
            raise BadCursor(cursor) from None
        return self._place(last.start, last.trace_id, last.id, last.version, behind_equal=True)

    def _place(self, start: int, trace_id: str, id_: str, version: int, *, behind_equal: bool) -> int:
        """Where a row with this key stands, or would stand: start, hash and id fall, versions rise."""
        low, high = self.window((start, start + 1))
        hashed = trace_hash(trace_id)
        while low < high:
            other_hash = int(self.columns["hash"][low])
            if other_hash < hashed:
                return low
            if other_hash == hashed:
                other_id, _, other_version = self._key(low)
                if other_id < id_ or (other_id == id_ and other_version > version):
                    return low
                if other_id == id_ and other_version == version and not behind_equal:
                    return low
            low += 1
        return low

    # ---- writing ----------------------------------------------------------------------------------------

    def append(self, rows: Sequence[Mapping[str, Any]], now: int) -> None:
        """Add rows given by their wire keys; `id`, `traceId` and `startTime` are needed.

        `createdAt` and `updatedAt` default to `now`. A row with a known id is one more version of it: like the
        real server, the sandbox serves both.

        Raises
        ------
        ValueError
            Naming what is missing or unreadable; nothing is added then.
        """
        prepared = [self._prepared(row, now) for row in rows]
        for row in prepared:
            self._insert(row)
        self._settle()

    @staticmethod
    def _prepared(row: Mapping[str, Any], now: int) -> dict[str, Any]:
        for key in ("id", "traceId", "startTime"):
            if not isinstance(row.get(key), str) or not row[key]:
                raise ValueError(f"{key}: missing; a row needs id, traceId and startTime as texts")
        complete = {"createdAt": iso(now), **row}
        complete.setdefault("updatedAt", complete["createdAt"])
        for key in ("startTime", "endTime", "createdAt", "updatedAt"):
            if complete.get(key) is not None:
                milliseconds(complete[key])
        return complete

    def _insert(self, row: Mapping[str, Any]) -> None:
        text, whole = encode_mapping(row)
        start = milliseconds(row["startTime"])
        known = sum(self._key(p)[0] == row["id"] for p in self.rows_of_trace(row["traceId"]).tolist())
        version = min(known + 1, 127) if known else 0
        position = self._place(start, row["traceId"], row["id"], version, behind_equal=False)
        offset = len(self._blob)
        self._blob += text + b","
        if whole is not None:
            self._whole[offset] = whole
        cost, usage = row.get("costDetails") or {}, row.get("usageDetails") or {}
        values = {
            "start": start,
            "end": OPEN_END if row.get("endTime") is None else milliseconds(row["endTime"]),
            "written": milliseconds(row["createdAt"]),
            "hash": trace_hash(row["traceId"]),
            "trace": self.traces.code(row["traceId"]),
            "environment": self.environments.code(str(row.get("environment", "default"))),
            "type": self.types.code(str(row.get("type", "SPAN"))),
            "model": self.models.code(str(row.get("model", ""))),
            "root": int(bool(row.get("isRootObservation"))),
            "synthetic": int(row["id"] == f"t-{row['traceId']}"),
            "tokens": _whole_number(usage.get("total"), 1),
            "cost": _whole_number(cost.get("total"), 10**12),
            "version": version,
        }
        self._offsets = np.insert(self._offsets, position, offset)
        self._lengths = np.insert(self._lengths, position, len(text))
        self.columns = {name: np.insert(column, position, values[name]) for name, column in self.columns.items()}
        self._falling = -self.columns["start"]
        self._rows_of_traces = None


class _Identity(msgspec.Struct):
    id: str
    trace_id: str = msgspec.field(name="traceId")


class _CursorContent(msgspec.Struct):
    start: int = msgspec.field(name="lastStartTimeTo")
    trace_id: str = msgspec.field(name="lastTraceId")
    id: str = msgspec.field(name="lastId")
    version: int = msgspec.field(name="lastVersion")


def _whole_number(value: object, factor: int) -> int:
    """What the metrics endpoint can add up; odd values of test rows count nothing there."""
    return round(value * factor) if isinstance(value, (int, float)) and abs(value) * factor < 2**60 else 0
