"""Reads billing facts (organization, customer, chatflow …) from an observation's metadata.

Metadata arrives as an object whose keys may be dotted (`billing_details.total_credits`), nested, or both, and whose
values were JSON-decoded by the server: `"12345"` comes as a number. Values longer than 200 characters come cut.
Source: section 1.3 of the Langfuse notes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec

from billing_core.langfuse.amounts import exact
from billing_core.langfuse.pieces import BrokenJson, Unreadable, is_readable, members, readable, shown, value_of
from billing_core.langfuse.texts import present
from billing_core.values.usage_frame import MetadataNames

CUT_AT_BYTES = 200
"""The default API cuts values here; a text this long may be a piece of a longer one."""

MAXIMUM_STORAGE_GB = Decimal(1_000_000_000)
MAXIMUM_LEGACY_CREDITS = Decimal(1_000_000_000_000)

REMEMBERED = 8192
"""Distinct metadata texts remembered per reader: rows of one trace usually share theirs."""

LEGACY_LEAVES = (
    "breakdown.ai_tokens.base_credits",
    "breakdown.compute.base_credits",
    "breakdown.storage.base_credits",
    "total_credits",
)


class MetadataFacts(NamedTuple):
    """The billing facts in one row's metadata; `cut` asks for the values in full.

    The fields up to `user_id` are columns of the facts, in their order. `unreadable` says that a value of ours was
    left out, `stored` is the metadata's text without the values that cannot be read (`None`: as it came).
    """

    customer_id: str | None = None
    organization_id: str | None = None
    chatflow_id: str | None = None
    chatflow_name: str | None = None
    ownership: str | None = None
    legacy_status: str | None = None
    legacy_error: str | None = None
    storage_gb: Decimal | None = None
    legacy_ai_tokens: Decimal | None = None
    legacy_compute: Decimal | None = None
    legacy_storage: Decimal | None = None
    legacy_total: Decimal | None = None
    cut: bool = False
    user_id: str | None = None
    bad: bool = False
    problems: tuple[str, ...] = ()
    unreadable: bool = False
    stored: str | None = None


NO_FACTS = MetadataFacts()

LEFT_OUT = "(unreadable)"
"""What is kept in the place of a value that cannot be read."""

LONGEST_TEXT = 4096
"""More is no id and no name."""

LEVELS = 8
"""How deep a value is taken apart to save what can be read of it."""


class _Left(NamedTuple):
    """Stands where a value was that cannot be read."""

    why: str


class _Path(NamedTuple):
    """One place a name may stand: the top-level key and the keys below it."""

    field: str
    rest: tuple[str, ...]


_Group = tuple[tuple[str, tuple[_Path, ...]], ...]
"""The names of one fact in order of preference, each with its places."""


class MetadataReader:
    """Reads the configured metadata keys and nothing else; not shared between threads.

    keys: Every top-level key a configured name can stand under, for `expandMetadata`.
    """

    def __init__(self, names: MetadataNames) -> None:
        texts = (
            names.customer,
            names.organization,
            names.chatflow_id,
            names.chatflow_name,
            names.ai_credentials_ownership,
            names.legacy_status,
            names.legacy_error,
        )
        legacy = [tuple(f"{name}.{leaf}" for name in names.legacy_details) for leaf in LEGACY_LEAVES]
        wanted = (*texts, names.user, names.storage_gb, *legacy)
        self.keys = tuple(dict.fromkeys(key for group in wanted for name in group for key in _prefixes(name)))
        fields = {key: f"k{index}" for index, key in enumerate(self.keys)}
        self._fields = tuple(fields.values())
        groups = [tuple((name, _places(name, fields)) for name in group) for group in wanted]
        self._texts, (self._user, self._storage, *self._legacy) = groups[: len(texts)], groups[len(texts) :]
        shape = msgspec.defstruct(
            "Wanted",
            [(field, Any, msgspec.UNSET) for field in self._fields],
            rename={field: key for key, field in fields.items()},
        )
        self._decoder = msgspec.json.Decoder(shape, float_hook=Decimal)
        self._remembered: dict[bytes, MetadataFacts] = {}

    def read(self, raw: bytes) -> MetadataFacts:
        """The billing facts in a metadata object's JSON text; anything but an object holds none."""
        facts = self._remembered.get(raw)
        if facts is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            facts = self._remembered[raw] = self._read(raw)
        return facts

    def _read(self, raw: bytes) -> MetadataFacts:
        stored: str | None = None
        try:
            top: object = self._decoder.decode(raw)
            values = [getattr(top, field) for field in self._fields]
        except (ValueError, ArithmeticError, RecursionError):
            try:
                found = members(raw)
            except BrokenJson:
                if not raw.lstrip().startswith(b"{"):
                    return NO_FACTS  # text, a number or a list: no names in it
                return NO_FACTS._replace(problems=("metadata is not JSON; left out",), unreadable=True, stored="{}")
            values = [_saved(found[key], LEVELS) if key in found else msgspec.UNSET for key in self.keys]
            stored = json.dumps({key: _kept(piece) for key, piece in found.items()})
        if all(value is msgspec.UNSET for value in values):
            return NO_FACTS._replace(stored=stored)
        search = _Search(dict(zip(self._fields, values, strict=True)))
        texts = [search.first(group)[1] for group in self._texts]
        storage, bad = search.amount(self._storage, MAXIMUM_STORAGE_GB, "a number of GB-months; not rated")
        credits_ = [
            search.amount(group, MAXIMUM_LEGACY_CREDITS, "a number of credits; ignored")[0] for group in self._legacy
        ]
        cut = any(isinstance(value, str) and len(value.encode("utf-8", "replace")) >= CUT_AT_BYTES for value in values)
        user = search.first(self._user)[1]
        named = MetadataFacts._make((*texts, storage, *credits_, cut, user, False, (), False, None))
        return named._replace(bad=bad, problems=tuple(search.problems), unreadable=search.unreadable, stored=stored)


class _Search:
    """Looks up names in the values of one metadata object and keeps what is wrong with them."""

    def __init__(self, values: dict[str, object]) -> None:
        self.problems: list[str] = []
        self.unreadable = False
        self._values = values

    def amount(self, group: _Group, below: Decimal, expected: str) -> tuple[Decimal | None, bool]:
        """A number from 0 to below `below`; and whether something else stood there."""
        before = len(self.problems)
        name, text, was_nan = self._find(group)
        if text is None:
            if was_nan:
                self.problems.append(f"metadata {name} is NaN, which is not {expected}")
            return None, was_nan or len(self.problems) > before
        number = _number(text, below)
        if number is None:
            self.problems.append(f"metadata {name} = {shown(text, 60)!r} is not {expected}")
        return number, number is None

    def first(self, group: _Group) -> tuple[str, str | None]:
        """The first name of the group that holds a scalar, and that scalar as text."""
        return self._find(group)[:2]

    def _find(self, group: _Group) -> tuple[str, str | None, bool]:
        was_nan = ""
        for name, places in group:
            for place in places:
                value = self._values[place.field]
                if value is msgspec.UNSET or value is None:
                    continue
                for found in _descend(value, place.rest):
                    if isinstance(found, (dict, list)):
                        shape = "an object" if isinstance(found, dict) else "a list"
                        self._leave_out(f"metadata {name} is {shape} where one value is expected; ignored")
                    elif isinstance(found, (_Left, float)):  # NaN and infinities are floats, numbers are not
                        why = found.why if isinstance(found, _Left) else f"{found}"
                        self._leave_out(f"metadata {name} cannot be read ({why}); left out")
                    elif (text := _text(found)) is None:
                        was_nan = was_nan or (name if str(found).strip().casefold() == "nan" else "")
                    elif len(text) > LONGEST_TEXT:
                        self._leave_out(f"metadata {name} is {len(text):,} characters long; left out")
                    elif not is_readable(text):
                        self._leave_out(f"metadata {name} = {shown(text)} holds half a character or NUL; left out")
                    else:
                        return name, text, False
        return was_nan or (group[0][0] if group else ""), None, bool(was_nan)

    def _leave_out(self, sentence: str) -> None:
        self.problems.append(sentence)
        self.unreadable = True


def _saved(piece: bytes, levels: int) -> object:
    """The value, without those parts of it that cannot be read."""
    try:
        return value_of(piece)
    except Unreadable as error:
        try:
            return {key: _saved(below, levels - 1) for key, below in members(piece if levels else b"").items()}
        except BrokenJson:
            return _Left(str(error))


def _kept(piece: bytes) -> object:
    """A value for people to look at."""
    try:
        return json.loads(readable(json.dumps(value_of(piece), default=str, allow_nan=False, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return LEFT_OUT


def _prefixes(name: str) -> list[str]:
    """`a.b.c` → `a`, `a.b`, `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: size + 1]) for size in range(len(parts))]


def _places(name: str, fields: dict[str, str]) -> tuple[_Path, ...]:
    """Where a dotted name may stand, the exact key first."""
    parts = name.split(".")
    return tuple(_Path(fields[".".join(parts[:size])], tuple(parts[size:])) for size in range(len(parts), 0, -1))


def _descend(value: object, rest: tuple[str, ...]) -> Iterator[object]:
    """Every value under the remaining keys, which may be dotted or nested at each level."""
    if not rest:
        yield value
        return
    if isinstance(value, str) and value.startswith("{"):
        value = _object(value)
    if not isinstance(value, dict):
        return
    for size in range(len(rest), 0, -1):
        below = value.get(".".join(rest[:size]))
        if below is not None:
            yield from _descend(below, rest[size:])


def _object(text: str) -> object:
    """An object that was stored as JSON text; one that was cut stays text and holds nothing."""
    piece = text.encode("utf-8", "surrogatepass")
    try:
        members(piece)
    except BrokenJson:
        return text
    return _saved(piece, LEVELS)


def _text(value: object) -> str | None:
    """A scalar as it would be written: ids that look like numbers were numbers only on the wire."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f") if abs(value.adjusted()) < 40 else str(value)
    return present(str(value))


def _number(text: str, below: Decimal) -> Decimal | None:
    try:
        number = Decimal(text.strip().replace("_", "?"))  # Python alone reads 1_000 as a number
    except InvalidOperation:
        return None
    return exact(number) if number.is_finite() and 0 <= number < below else None
