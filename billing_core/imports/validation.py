"""The rules for usage events in imported files: what each cell may hold, and how the cells of a row must agree. Pure.

Text columns go in (`import_rows`), typed columns and reasons come out. Everything is computed on exact integers; a row
that breaks a rule is left out and named, it never stops the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.imports.bounds import shown
from billing_core.imports.detection import EXTRA_FIELDS, TIMES
from billing_core.imports.model import MOST_LISTED, RejectedLine
from billing_core.imports.readers import RowBatch
from billing_core.imports.times import Unclear, has_offset, instant_of
from billing_core.ledger.schema import FLAG_SEPARATOR, MODEL_SEPARATOR
from billing_core.rating.card import LEGACY_VERSION
from billing_core.rating.events import EVENT_SCHEMA, in_order, matches_any
from billing_core.rating.rate import CREDITS, LARGEST_COMPONENT, OWN_KEY, PRICE
from billing_core.types import FLAT_FIELDS, Flag, SyncStatus
from billing_core.values.decimals import from_integers, multiply, to_integers
from billing_core.values.time_columns import microseconds_between
from billing_core.values.usage_frame import COST, MODEL_USAGE, SECONDS, TIME, TOKEN_CLASSES, USAGE_LINE

LONGEST_TEXT = 10_000
LONGEST_ID = 1_000
MOST_IN_A_LIST = 200

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)
"""How far a clock may be ahead of ours."""

NO_CARD = "none"
"""Card version of events for whose time no card was in force."""

MARKS = (Flag.CARRIED, Flag.CHANGED_AFTER_SENDING, Flag.WRITTEN_OFF, Flag.INVOICED_SEPARATELY)
"""Flags that the ledger puts on events, and keeps apart from those of rating. `late_after_close` follows from when;
`sent_elsewhere` and `missing_at_source` are asked anew."""

AMOUNT = pa.decimal128(38, 18)
SAFE_ID = re.compile(r"[A-Za-z0-9_.~-]*\Z")
DECIMAL = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?\Z", re.ASCII)
UTC_TEXT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)$"

MILLISECOND = 1_000
"""Microseconds. CSV and JSON have no finer times, so a latency may differ from them by less than this."""

Mask = npt.NDArray[np.bool_]

TEXTS = (
    "organization_id",
    "customer_id",
    "user_id",
    "session_id",
    "chatflow_id",
    "chatflow_name",
    "environment",
    "ai_credentials_ownership",
    "sync_error",
    "meter_event_identifier",
    "project_id",
)
LARGEST_COUNT = 10**14
"""Tokens of an event: no trace has so many, and sums of what is below stay within 64 bits."""

COUNTS = ("tokens_in", "tokens_out", "tokens_total")
PARTS = ("credits_ai_tokens", "credits_compute", "credits_storage")
MEASURES = (*COUNTS, *PARTS, "credits_total", "storage_gb", "cost_usd")
"""What a row that takes another back has with the opposite sign."""

_REQUIRED = {
    "id",
    "timestamp",
    "ended_at",
    "latency_seconds",
    *PARTS,
    "credits_total",
    "amount_usd",
    "rate_card_version",
    "sync_status",
}

STAGED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        *(EVENT_SCHEMA.field(name).with_nullable(True) for name in EVENT_SCHEMA.names if name != "metadata"),
        pa.field("meter_event_identifier", pa.string()),
        pa.field("synced_at", TIME),
        pa.field("marks", pa.string()),
        pa.field("is_late", pa.bool_()),
        pa.field("is_reversal", pa.bool_()),
    ]
)
"""An event of a file. What the file does not say is null; `marks` as the ledger stores them. A row `is_late` if it is
of what came after its month was closed, and `is_reversal` if it takes back what the closed month says."""


@dataclass(frozen=True, slots=True)
class ValidationRules:
    """What the rules for cells need beyond the cells: timezone, present time, credit prices, unbilled environments.

    zone: Of times without an offset; without it they are refused.
    now: Aware UTC: nothing was used later.
    prices: Card version → its credit price, of every card that is known.
    not_billed: Globs of environments whose usage costs nothing here.
    """

    zone: ZoneInfo | None
    now: datetime
    prices: Mapping[str, Decimal]
    not_billed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of a file that keep every rule (`STAGED`), reasons and count of the others, and times without an offset."""

    table: pa.Table
    rejected: list[RejectedLine]
    rejected_rows: int
    without_offset: int


def header_faults(header: Sequence[str]) -> list[RejectedLine]:
    """Faults in the column names of a file of usage events."""
    known = {*FLAT_FIELDS, *EXTRA_FIELDS}
    missing = "the column is missing; export every column of the usage events"
    found = [RejectedLine(0, name, missing) for name in FLAT_FIELDS if name not in header]
    for name in dict.fromkeys(header):
        if name not in known:
            found.append(
                RejectedLine(0, shown(name), "no such column; expected " + ", ".join((*FLAT_FIELDS, *EXTRA_FIELDS)))
            )
        elif (times := list(header).count(name)) > 1:
            found.append(RejectedLine(0, name, f"the column is there {times} times; keep one of them"))
    return found


def check(batch: RowBatch, rules: ValidationRules) -> Checked:
    """Check rows of a file by every rule."""
    return _Check(batch, rules).done()


@dataclass(slots=True)
class _Faults:
    """Which rows are bad, and why."""

    numbers: list[int]
    bad: Mask
    found: list[RejectedLine] = field(default_factory=list)

    def add(self, mask: Mask, name: str, reason: Callable[[int], str]) -> None:
        self.bad |= mask
        for place in np.flatnonzero(mask)[:MOST_LISTED]:
            self.found.append(RejectedLine(self.numbers[place], name, reason(int(place))))


class _Check:
    """One batch on its way through the rules."""

    def __init__(self, batch: RowBatch, rules: ValidationRules) -> None:
        self.rows = len(batch.numbers)
        self.rules = rules
        self.cells = batch.columns
        self.faults = _Faults(batch.numbers, np.zeros(self.rows, dtype=bool), list(batch.rejected))
        self.misshapen = len(batch.rejected)
        self.made: dict[str, pa.Array] = {"row": pa.array(batch.numbers, pa.int64())}
        self.flagged: dict[Flag, Mask] = {}
        self.without_offset = 0

    def done(self) -> Checked:
        if self.rows:
            self._cells()
            self._together()
        bad = self.faults.bad
        columns = [self._column(f.name, f.type) for f in STAGED]
        table = pa.Table.from_arrays(columns, schema=STAGED).filter(pa.array(~bad))
        rejected = sorted(self.faults.found, key=lambda one: one.row)
        return Checked(table, rejected, int(bad.sum()) + self.misshapen, self.without_offset)

    def _column(self, name: str, kind: pa.DataType) -> pa.Array:
        return self.made[name] if name in self.made else pa.nulls(self.rows, kind)

    # ── cell by cell ─────────────────────────────────────────────────────────────────────────────

    def _cells(self) -> None:
        for name in _REQUIRED:
            empty = _mask(pc.is_null(self.cells[name])) | _mask(pc.equal(self.cells[name], ""))
            self.faults.add(empty, name, lambda _: "is empty; expected a value")
        self.made["id"] = self._text("id", LONGEST_ID)
        for name in TEXTS:
            if name in self.cells:
                self.made[name] = self._text(name, LONGEST_TEXT)
        for name in TIMES:
            if name in self.cells:
                self.made[name] = self._time(name)
        for name in (*COUNTS, "observations"):
            if name in self.cells:
                self.made[name] = self._count(name)
        for name, kind in (
            *((name, CREDITS) for name in (*PARTS, "credits_total")),
            *((name, EVENT_SCHEMA.field(name).type) for name in ("latency_seconds", "storage_gb", "cost_usd")),
            ("active_seconds", SECONDS),
            ("amount_usd", AMOUNT),
            ("credit_price_usd", PRICE),
        ):
            if name in self.cells:
                self.made[name] = self._decimal(name, kind)
        self._lists()
        statuses = {status.value: status.value for status in SyncStatus}
        self.made["sync_status"] = self._mapped("sync_status", statuses.get, "one of " + ", ".join(statuses))
        self.made["has_error"] = self._truth("has_error")
        self._links()

    def _text(self, name: str, longest: int) -> pa.Array:
        column = self.cells[name]
        too_long = _mask(pc.greater(pc.utf8_length(column), longest))
        lengths = pc.utf8_length(column)
        self.faults.add(
            too_long, name, lambda i: f"has {lengths[i].as_py():,} characters; at most {longest:,} are accepted"
        )
        nul = _mask(pc.match_substring(column, "\0"))
        self.faults.add(nul, name, self._not_accepted(name, "text without NUL characters"))
        return column

    def _not_accepted(self, name: str, expected: str) -> Callable[[int], str]:
        column = self.cells[name]
        return lambda i: f"{shown(column[i].as_py())} is not accepted; expected {expected}"

    def _count(self, name: str) -> pa.Array:
        column = _or_null(self.cells[name])
        number = _mask(pc.match_substring_regex(column, r"^-?\d{1,18}$"))
        self.faults.add(~number & _mask(column.is_valid()), name, self._not_accepted(name, "a whole number"))
        values = pc.if_else(pa.array(number), column, None).cast(pa.int64())
        kind = STAGED.field(name).type
        most = 2**31 - 1 if pa.types.is_int32(kind) else LARGEST_COUNT
        self.faults.add(_mask(pc.greater(values, most)), name, self._not_accepted(name, f"at most {most:,}"))
        return pc.min_element_wise(values, pa.scalar(most, pa.int64()), skip_nulls=False).cast(kind)

    def _decimal(self, name: str, kind: pa.Decimal128Type) -> pa.Array:
        column = _or_null(self.cells[name])
        whole, places = kind.precision - kind.scale, kind.scale
        plain = _mask(pc.match_substring_regex(column, rf"^-?\d{{1,{whole}}}(\.\d{{1,{places}}})?$"))
        values = pc.if_else(pa.array(plain), column, None).cast(kind)
        rest = np.flatnonzero(~plain & _mask(column.is_valid()))
        if not len(rest):
            return values
        spelt = {int(place): _exact(column[int(place)].as_py(), kind) for place in rest}
        unreadable = np.zeros(self.rows, dtype=bool)
        unreadable[[place for place, value in spelt.items() if value is None]] = True
        expected = (
            f"a decimal number with at most {whole} digits before and {places} after the point, and no other separators"
        )
        self.faults.add(unreadable, name, self._not_accepted(name, expected))
        found = values.to_pylist()
        for place, value in spelt.items():
            found[place] = value
        return pa.array(found, kind)

    def _time(self, name: str) -> pa.Array:
        column = _or_null(self.cells[name])
        fast = pc.match_substring_regex(column, UTC_TEXT).fill_null(False)
        trimmed = pc.replace_substring_regex(pc.if_else(fast, column, None), r"(Z|\+00:00)$", "")
        try:
            values = trimmed.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:  # such as the 30th of February: find out which
            values, fast = pa.nulls(self.rows, pa.timestamp("us")), pa.array([False] * self.rows)
        values = values.cast(TIME)
        slow = np.flatnonzero(~_mask(fast) & _mask(column.is_valid()))
        if len(slow):
            values = self._slowly(name, column, values, slow)
        early = _mask(pc.less(values, pa.scalar(EARLIEST, TIME)))
        self.faults.add(early, name, self._not_accepted(name, "a time from the year 2000 on"))
        latest = self.rules.now + AHEAD
        late = _mask(pc.greater(values, pa.scalar(latest, TIME)))
        self.faults.add(
            late, name, self._not_accepted(name, f"a time that has passed (now is {self.rules.now:%Y-%m-%d})")
        )
        return values

    def _slowly(self, name: str, column: pa.Array, values: pa.Array, places: npt.NDArray[Any]) -> pa.Array:
        found = values.to_pylist()
        unreadable, unclear = np.zeros(self.rows, dtype=bool), np.zeros(self.rows, dtype=bool)
        why: dict[int, str] = {}
        for place in map(int, places):
            text = column[place].as_py()
            try:
                self.without_offset += not has_offset(text)
                found[place] = instant_of(text, self.rules.zone)
            except Unclear as reason:
                unclear[place], why[place] = True, str(reason)
            except (ValueError, OverflowError):
                unreadable[place] = True
        expected = "an ISO 8601 time such as 2026-11-01T00:00:00Z or 2026-11-01T01:00:00+01:00"
        self.faults.add(unreadable, name, self._not_accepted(name, expected))
        self.faults.add(unclear, name, lambda i: f"{shown(column[i].as_py())} {why[i]}")
        return pa.array(found, TIME)

    def _mapped(
        self, name: str, read: Callable[[str], Any], expected: str, kind: pa.DataType | None = None
    ) -> pa.Array:
        """A column with few distinct texts, each read once; what `read` gives as `None` is not accepted."""
        encoded = self.cells[name].dictionary_encode()
        values = [read(text) for text in encoded.dictionary.to_pylist()]
        wrong = pa.array([value is None for value in values], pa.bool_()).take(encoded.indices)
        self.faults.add(_mask(wrong), name, self._not_accepted(name, expected))
        return pa.array(values, kind or pa.string()).take(encoded.indices)

    def _truth(self, name: str) -> pa.Array:
        if name not in self.cells:
            return pa.nulls(self.rows, pa.bool_())
        self.cells[name] = _or_null(self.cells[name])
        read = {"true": True, "false": False, "True": True, "False": False}.get
        return self._mapped(name, read, "true or false", pa.bool_())

    def _lists(self) -> None:
        lists = pa.list_(pa.string())
        expected = f"a JSON list of at most {MOST_IN_A_LIST} names"
        self.made["models"] = _no_null(self._mapped("models", _names, expected, lists))
        accepted = "a JSON list of flags: " + ", ".join(flag.value for flag in Flag)
        flags = self._mapped("flags", _flags, accepted, lists)
        encoded = self.cells["flags"].dictionary_encode()
        found = [_flags(text) or [] for text in encoded.dictionary.to_pylist()]

        def each(values: list[Any], kind: pa.DataType) -> pa.Array:
            return pa.array(values, kind).take(encoded.indices)

        rated = each([in_order(names) for names in found], lists)
        self.made["flags"] = _no_null(pc.if_else(flags.is_valid(), rated, pa.scalar(None, lists)))
        marks = [FLAG_SEPARATOR.join(m.value for m in MARKS if m in names) for names in found]
        self.made["marks"] = each(marks, pa.string()).fill_null("")
        self.flagged = {
            flag: _mask(each([flag in names for names in found], pa.bool_()))
            for flag in (Flag.LEGACY_BILLED, Flag.OWN_KEY, Flag.EXCLUDED_ENVIRONMENT, Flag.WRITTEN_OFF)
        }
        self.made["is_late"] = each([Flag.LATE_AFTER_CLOSE in names for names in found], pa.bool_()).fill_null(False)
        if "problems" in self.cells:
            self.made["problems"] = self._mapped("problems", _sentences, "a JSON list of sentences", lists)
        if "usage" in self.cells:
            self.made["usage"] = self._mapped("usage", _usage, _USAGE_EXPECTED, pa.list_(MODEL_USAGE))
        if "usage_lines" in self.cells:
            expected = "a JSON list of objects with " + ", ".join(field.name for field in USAGE_LINE)
            self.made["usage_lines"] = self._mapped("usage_lines", _usage_lines, expected, pa.list_(USAGE_LINE))

    def _links(self) -> None:
        """`trace_base` from the address of the trace, which is the base and the id."""
        urls = self._text("trace_url", LONGEST_TEXT).to_pylist()
        ids = self.cells["id"].to_pylist()
        bases: list[str | None] = []
        wrong = np.zeros(self.rows, dtype=bool)
        for place, (url, event_id) in enumerate(zip(urls, ids, strict=True)):
            end = "" if event_id is None else event_id if SAFE_ID.match(event_id) else quote(event_id, safe="")
            if url and (not url.endswith(end) or not url.startswith(("http://", "https://"))):
                wrong[place] = True
            bases.append(url[: len(url) - len(end)] if url else None)
        self.faults.add(wrong, "trace_url", self._not_accepted("trace_url", "an http address that ends with the id"))
        self.made["trace_base"] = pa.array(bases, pa.string())

    # ── what the cells of a row must agree in ────────────────────────────────────────────────────

    def _together(self) -> None:
        self._reversals()
        self._times()
        self._prices(self._sums())
        excluded = _mask(pc.equal(self.made["sync_status"], SyncStatus.EXCLUDED))
        billable = to_integers(self.made["credits_total"]) != 0
        wrong = excluded & billable & ~_mask(self.made["is_reversal"]) & ~self.flagged[Flag.WRITTEN_OFF]
        self.faults.add(
            wrong, "sync_status", lambda _: "is excluded, but there are credits to bill; expected 0 credits"
        )
        self._never_billed(billable)

    def _never_billed(self, billable: Mask) -> None:
        """What no rating gives: credits of usage that costs nothing here and was not billed elsewhere, absurd parts.

        Records of the earlier system are taken as they are (no push takes them), and so is what takes others back.
        """
        rated = ~self.flagged[Flag.LEGACY_BILLED] & ~_mask(self.made["is_reversal"])
        environment = pa.chunked_array([self.made["environment"]])
        unsent = _mask(pc.is_in(self.made["sync_status"], pa.array([SyncStatus.PENDING, SyncStatus.ERROR])))
        self.faults.add(
            matches_any(environment, self.rules.not_billed) & unsent & billable & rated,
            "environment",
            self._not_accepted("environment", "0 credits of what LANGFUSE_EXCLUDED_ENVIRONMENTS excludes"),
        )
        self.faults.add(
            self.flagged[Flag.EXCLUDED_ENVIRONMENT] & unsent & billable & rated,
            "credits_total",
            self._not_accepted("credits_total", f"0 of what is flagged {Flag.EXCLUDED_ENVIRONMENT}"),
        )
        own = self.flagged[Flag.OWN_KEY] | _mask(
            pc.equal(pc.utf8_lower(self.made["ai_credentials_ownership"]), OWN_KEY)
        )
        for name, nothing, expected in (
            ("credits_ai_tokens", own, f"0 where the customer brought the key ({Flag.OWN_KEY})"),
            ("credits_ai_tokens", ~own & ~self._has_used(), "0 without tokens and without cost_usd"),
            ("credits_compute", to_integers(self.made["latency_seconds"]) == 0, "0 at latency_seconds of 0"),
            ("credits_storage", to_integers(self.made["storage_gb"]) == 0, "0 without storage_gb"),
        ):
            costs = to_integers(self.made[name]) != 0
            self.faults.add(nothing & costs & rated, name, self._not_accepted(name, expected))
        for name in PARTS:
            absurd = np.abs(to_integers(self.made[name])) > LARGEST_COMPONENT
            self.faults.add(absurd, name, self._not_accepted(name, f"at most {LARGEST_COMPONENT // 10**6:,}"))

    def _has_used(self) -> Mask:
        """Rows with something that AI credits can follow from: tokens or a cost, in sum or of a model."""
        used: Mask = np.logical_or.reduce([to_integers(self.made[name]) != 0 for name in (*COUNTS, "cost_usd")])
        if "usage" in self.made:
            lines = self.made["usage"].flatten()
            some = [to_integers(lines.field(name)) != 0 for name in (*TOKEN_CLASSES, "cost_usd")]
            used[pc.list_parent_indices(self.made["usage"]).to_numpy()[np.logical_or.reduce(some)]] = True
        return used

    def _reversals(self) -> None:
        """Rows of closed months that take others back: the only ones that may be negative."""
        late = _mask(self.made["is_late"])
        negative = np.zeros(self.rows, dtype=bool)
        for name in MEASURES:
            below = _below_zero(self.made[name])
            expected = f"0 or more; only rows flagged {Flag.LATE_AFTER_CLOSE} may take usage back"
            self.faults.add(below & ~late, name, self._not_accepted(name, expected))
            negative |= below
        below = _below_zero(self.made["latency_seconds"])
        self.faults.add(below, "latency_seconds", self._not_accepted("latency_seconds", "0 or more"))
        timeless = (to_integers(self.made["latency_seconds"]) == 0) & (self._lasting() >= MILLISECOND)
        self.made["is_reversal"] = pa.array(late & (negative | timeless))

    def _lasting(self) -> npt.NDArray[np.int64]:
        """Microseconds from beginning to end; 0 where one of them is not known."""
        between = microseconds_between(self.made["timestamp"], self.made["ended_at"]).fill_null(0)
        found: npt.NDArray[np.int64] = between.to_numpy(zero_copy_only=False)
        return found

    def _times(self) -> None:
        lasting = self._lasting()
        self.faults.add(lasting < 0, "ended_at", self._not_accepted("ended_at", "a time that is not before timestamp"))
        off = np.abs(lasting - to_integers(self.made["latency_seconds"])) > MILLISECOND
        off &= ~_mask(self.made["is_reversal"]) & (lasting >= 0) & _mask(self.made["latency_seconds"].is_valid())
        off &= _mask(self.made["timestamp"].is_valid()) & _mask(self.made["ended_at"].is_valid())
        self.faults.add(
            off,
            "latency_seconds",
            lambda i: (
                f"{shown(self.cells['latency_seconds'][i].as_py())} is not accepted; ended_at is "
                f"{Decimal(int(lasting[i])) / 10**6} seconds after timestamp"
            ),
        )

    def _sums(self) -> Mask:
        """Rows whose credits do not add up."""
        parts = [to_integers(self.made[name]) for name in PARTS]
        known = np.logical_and.reduce([_mask(self.made[name].is_valid()) for name in (*PARTS, "credits_total")])
        off: Mask = known & (parts[0] + parts[1] + parts[2] != to_integers(self.made["credits_total"]))
        sums = from_integers(parts[0] + parts[1] + parts[2], CREDITS)
        self.faults.add(
            off,
            "credits_total",
            lambda i: (
                f"{shown(self.cells['credits_total'][i].as_py())} is not accepted; ai_tokens, compute and "
                f"storage add up to {sums[i].as_py()}"
            ),
        )
        return off

    def _prices(self, does_not_add_up: Mask) -> None:
        """The credit price of each row: its card's, or of the earlier system's records the one that fits the amount."""
        versions = self._text("rate_card_version", LONGEST_ID)
        self.made["rate_card_version"] = versions
        encoded = versions.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        prices = {**self.rules.prices, NO_CARD: Decimal(0)}
        unknown = pa.array([name not in prices and name != LEGACY_VERSION for name in names], pa.bool_())
        self.faults.add(
            _mask(unknown.take(encoded.indices)),
            "rate_card_version",
            self._not_accepted("rate_card_version", "a rate card that is known here; import the rate card first"),
        )
        price = pa.array([prices.get(name) for name in names], PRICE).take(encoded.indices)
        said = self.made.get("credit_price_usd", pa.nulls(self.rows, PRICE))
        self.faults.add(
            _mask(pc.not_equal(said, price)),
            "credit_price_usd",
            lambda i: (
                f"{said[i].as_py()} is not accepted; the rate card {shown(versions[i].as_py())} has {price[i].as_py()}"
            ),
        )
        price = pc.coalesce(price, said)
        billed, amount = to_integers(self.made["credits_total"]), self.made["amount_usd"]
        price = self._recorded(price, billed, to_integers(amount), prices)
        self.made["credit_price_usd"] = price
        off = ~_fits(billed, price, to_integers(amount)) & _mask(price.is_valid()) & _mask(amount.is_valid())
        self.faults.add(
            off & ~does_not_add_up & _mask(self.made["credits_total"].is_valid()),
            "amount_usd",
            lambda i: (
                f"{shown(self.cells['amount_usd'][i].as_py())} is not accepted; expected credits_total × "
                f"{price[i].as_py()} USD"
            ),
        )

    def _recorded(
        self, price: pa.Array, billed: npt.NDArray[Any], amount: npt.NDArray[Any], prices: Mapping[str, Decimal]
    ) -> pa.Array:
        """Prices of the earlier system's records, which name no card: one that is known, else amount ÷ credits."""
        open_ones = (
            _mask(price.is_null()) & _mask(pc.equal(self.made["rate_card_version"], LEGACY_VERSION)) & (billed != 0)
        )
        for value in sorted(set(prices.values())):
            if not open_ones.any():
                return price
            fits = open_ones & _fits(billed, pa.repeat(pa.scalar(value, PRICE), self.rows), amount)
            price = pc.if_else(pa.array(fits), pa.scalar(value, PRICE), price)
            open_ones &= ~fits
        found = {int(i): divmod(int(amount[i]), int(billed[i])) for i in np.flatnonzero(open_ones)}
        values = price.to_pylist()
        odd = np.zeros(self.rows, dtype=bool)
        for place, (quotient, rest) in found.items():
            if rest or not 0 <= quotient < 10**18:
                odd[place] = True
            else:
                values[place] = Decimal(quotient).scaleb(-12)
        self.faults.add(odd, "amount_usd", self._not_accepted("amount_usd", "credits_total × a price of a credit"))
        return pa.array(values, PRICE)


def _fits(billed: npt.NDArray[Any], price: pa.Array, amount: npt.NDArray[Any]) -> Mask:
    """Whether credits × price is the amount, to the last digit."""
    encoded = price.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    fits = np.zeros(len(billed), dtype=bool)
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        rows = codes == code
        fits[rows] = multiply(billed[rows], int(value.scaleb(12))) == amount[rows]
    return fits


def _mask(column: pa.Array | pa.ChunkedArray) -> Mask:
    """True where true; unknown is false."""
    found: Mask = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
    return found.astype(bool)


def _below_zero(column: pa.Array) -> Mask:
    zero = Decimal(0) if pa.types.is_decimal(column.type) else 0
    return _mask(pc.less(column, pa.scalar(zero, column.type)))


def _or_null(column: pa.Array) -> pa.Array:
    """Empty text says nothing of a number or a time."""
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _no_null(column: pa.Array) -> pa.Array:
    """No list is an empty one."""
    empty = pa.array([[]], column.type)
    return pc.if_else(column.is_valid(), column, empty.take(pa.array([0] * len(column))))


def _exact(text: str, kind: pa.Decimal128Type) -> Decimal | None:
    """A number spelt in another way (exponent, zeros, plus), if the column can hold it exactly."""
    if len(text) > LONGEST_ID or not DECIMAL.match(text):
        return None
    sign, digits, exponent = Decimal(text).as_tuple()
    plain = int("".join(map(str, digits)))
    shift = kind.scale + int(exponent)
    if shift >= 0:
        scaled = plain * 10**shift if shift < 100 or not plain else 10**100
    else:
        scaled, rest = divmod(plain, 10**-shift)
        if rest:
            return None
    return Decimal((sign, Decimal(scaled).as_tuple().digits, -kind.scale)) if scaled < 10**kind.precision else None


def _loaded(text: str | None) -> Any:
    if text is None or not text.strip():
        return []
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _names(text: str | None) -> list[str] | None:
    found = _loaded(text)
    if not isinstance(found, list) or len(found) > MOST_IN_A_LIST or len(set(map(str, found))) < len(found):
        return None
    is_sound = all(
        isinstance(name, str) and name and len(name) <= LONGEST_ID and MODEL_SEPARATOR not in name and _is_text(name)
        for name in found
    )
    return found if is_sound else None


def _is_text(text: str) -> bool:
    """No NUL, and no half of a character, which JSON can spell and nothing can store."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))


def _flags(text: str | None) -> list[str] | None:
    found = _loaded(text)
    known = {flag.value for flag in Flag}
    return found if isinstance(found, list) and all(isinstance(one, str) and one in known for one in found) else None


def _sentences(text: str | None) -> list[str] | None:
    found = _loaded(text)
    if not isinstance(found, list) or len(found) > MOST_IN_A_LIST:
        return None
    is_sound = all(isinstance(one, str) and len(one) <= LONGEST_TEXT and _is_text(one) for one in found)
    return found if is_sound else None


MOST_LINES = 100_000
"""Lines of one event: an observation may have a name and keys of its own."""


def _usage_lines(text: str | None) -> list[dict[str, Any]] | None:
    """What observations used, as exported; every field there, of its own type or null."""
    if text is None or not text.strip():
        return None
    lines = _loaded(text)
    if not isinstance(lines, list) or len(lines) > MOST_LINES:
        return None
    found = []
    for line in lines:
        if not isinstance(line, dict) or line.keys() != {wanted.name for wanted in USAGE_LINE}:
            return None
        for wanted in USAGE_LINE:
            value = line[wanted.name]
            if value is None:
                continue
            if pa.types.is_string(wanted.type):
                is_sound = isinstance(value, str) and len(value) <= LONGEST_TEXT and _is_text(value)
            elif pa.types.is_boolean(wanted.type):
                is_sound = isinstance(value, bool)
            elif pa.types.is_decimal(wanted.type):
                line[wanted.name] = value = _exact(str(value), COST)
                is_sound = value is not None and value >= 0
            else:
                is_sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
            if not is_sound:
                return None
        found.append(line)
    return found


_USAGE_EXPECTED = "a JSON list of objects with model, " + ", ".join(TOKEN_CLASSES) + " and cost_usd"


def _usage(text: str | None) -> list[dict[str, Any]] | None:
    """What each model used: whole numbers of tokens, never negative; an exact cost, or none."""
    if text is None or not text.strip():
        return None
    lines = _loaded(text)
    if not isinstance(lines, list) or len(lines) > MOST_IN_A_LIST:
        return None
    found = []
    for line in lines:
        if not isinstance(line, dict) or not line.keys() <= {"model", *TOKEN_CLASSES, "cost_usd"}:
            return None
        tokens = {name: line.get(name, 0) for name in TOKEN_CLASSES}
        if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**62 for n in tokens.values()):
            return None
        model, cost = line.get("model"), line.get("cost_usd")
        if model is not None and _names(json.dumps([model])) is None:
            return None
        if cost is not None and (cost := _exact(str(cost), COST)) is None:
            return None
        found.append({"model": model, **tokens, "cost_usd": cost})
    return found
