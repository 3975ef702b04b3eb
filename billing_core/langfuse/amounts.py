"""Reads what one observation used (tokens) and cost (US dollars) from its `usageDetails` and `costDetails`.

Source: sections 1.4 and 2.1 of the Langfuse notes. Keys are free-form, units are tokens and US dollars, and the
same rule serves both API generations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

from billing_core.values.usage_frame import TOKEN_CLASSES
from billing_core.values.usage_keys import CACHE_WRITE, IN, OUT, REST, KeyMeaning, read_key

MAXIMUM_TOKENS = 1_000_000_000
"""More in one bucket of one observation is a mistake, not usage."""

MAXIMUM_COST_USD = Decimal(1_000_000)

PICO = Decimal("1e-12")
CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)

DEEPEST = 5
"""Levels of nested objects; a provider's have two."""

MOST_KEYS_SHOWN = 12
LONGEST_KEY_SHOWN = 200

_BAD = -1


class Tokens(NamedTuple):
    """Token counts of one observation; `None` where it names none.

    classes: They follow `TOKEN_CLASSES` and always sum to `total`.
    overlap: The keys contradict each other: parts sent beside their whole, more tokens named than the total, two
        totals.
    unknown: Some tokens stand behind a key of no known kind.
    keys, counts: What a rate card prices: tokens as the classes hold them, by key, and other units than tokens.
    """

    tokens_in: int | None
    tokens_out: int | None
    total: int | None
    classes: tuple[int, ...]
    bad: bool
    overlap: bool
    problems: tuple[str, ...]
    unknown: bool = False
    keys: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


class Cost(NamedTuple):
    """US dollars of one observation, twelve decimal places; `None` is unknown, which is not zero."""

    usd: Decimal | None
    bad: bool
    problems: tuple[str, ...]


NO_TOKENS = Tokens(None, None, None, (0,) * len(TOKEN_CLASSES), bad=False, overlap=False, problems=())
NO_COST = Cost(None, bad=False, problems=())


def exact(value: Decimal) -> Decimal:
    """An amount rounded half-even to the twelve decimal places Langfuse stores."""
    return value.quantize(PICO, context=CONTEXT)


def _count(value: object) -> int | None:
    """A token count, `None` if absent, `_BAD` if it cannot be one."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and 0 <= value <= MAXIMUM_TOKENS and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAXIMUM_TOKENS:
        return value
    return _BAD


def read_tokens(observation_id: str, details: Mapping[str, object]) -> Tokens:
    """The token counts of one observation, by the rule that `Tokens` explains."""
    plain = _plain(tuple(details))
    if plain is not None and (tokens := _added_up(plain, details)) is not None:
        return tokens
    good: dict[str, int] = {}
    problems: list[str] = []
    for name, value in _flat(details):
        key = name if name.isascii() else _storable(name)
        count = value if type(value) is int and 0 <= value <= MAXIMUM_TOKENS else _count(value)
        if count == _BAD:
            problems.append(
                f"observation {observation_id}: usage {key[:LONGEST_KEY_SHOWN]} = {_show(value)} is not a token count "
                f"from 0 to {MAXIMUM_TOKENS}; not rated"
            )
        elif count is not None:
            good[key] = count
    if not good:
        return NO_TOKENS._replace(bad=True, problems=tuple(problems)) if problems else NO_TOKENS

    return _counted(observation_id, good, problems)


def _flat(details: Mapping[str, object], before: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Counts one by one: a provider's nested objects by dotted keys, its lists of counts by modality."""
    for name, value in details.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and depth < DEEPEST:
            yield from _flat(value, f"{key}.", depth + 1)
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "modality" in one for one in value):
            for one in value:
                counts = {inner: count for inner, count in one.items() if inner != "modality"}
                yield from _flat(counts, f"{key}.{one['modality']}.", depth + 1)
        else:
            yield key, value


class _Plain(NamedTuple):
    """Keys that stand beside each other: nothing in them can be a repetition or a contradiction."""

    keys: tuple[str, ...]
    class_of: tuple[int, ...]
    side_of: tuple[int, ...]


@lru_cache(maxsize=4096)
def _plain(keys: tuple[str, ...]) -> _Plain | None:
    """Of nearly all rows: known keys of tokens, each of its own meaning, and perhaps `total`."""
    named = tuple(key for key in keys if key != "total")
    kinds = [read_key(key) for key in named]
    meanings = {kind.meaning for kind in kinds}
    is_plain = (
        len(meanings) == len(kinds) > 0
        and not (meanings & _LIFETIMES and (CACHE_WRITE,) in meanings)
        and all(
            kind.counted is KeyMeaning.TOKENS and kind.is_known and not kind.is_detail and not kind.is_side_total
            for kind in kinds
        )
        and all(key.isascii() and key for key in named)
    )
    if not is_plain:
        return None
    return _Plain(named, tuple(kind.token_class for kind in kinds), tuple(kind.side for kind in kinds))


def _added_up(plain: _Plain, details: Mapping[str, object]) -> Tokens | None:
    """The short way to what `_counted` finds, of sound counts that agree with their total; `None` for all others."""
    counts: list[int] = []
    total: int | None = None
    for key, value in details.items():
        if type(value) is not int or not 0 <= value <= MAXIMUM_TOKENS:
            return None
        if key == "total":
            total = value
        else:
            counts.append(value)
    named = sum(counts)
    if total is not None and total != named:
        return None
    classes = [0] * len(TOKEN_CLASSES)
    sides: list[int | None] = [None, None, None]
    for count, token_class, side in zip(counts, plain.class_of, plain.side_of, strict=True):
        classes[token_class] += count
        sides[side] = count + (sides[side] or 0)
    keys = plain.keys
    if 0 in counts:
        keys = tuple(key for key, count in zip(keys, counts, strict=True) if count)
        counts = [count for count in counts if count]
    return Tokens(sides[IN], sides[OUT], named, tuple(classes), False, False, (), False, keys, tuple(counts))


def _counted(observation_id: str, good: Mapping[str, int], problems: list[str]) -> Tokens:
    """Sort readable counts by what they count, and settle what contradicts each other."""
    bad = bool(problems)
    named: dict[str, int] = {}
    units: dict[str, int] = {}
    totals: dict[str, int] = {}
    for key, count in good.items():
        counted = read_key(key).counted
        (named if counted is KeyMeaning.TOKENS else units if counted is KeyMeaning.UNITS else totals)[key] = count
    beside, contradiction = _each_once(named)
    parts = _without_repeats(beside)
    total, believed, disputed = _total(good, totals, beside, parts, is_bad=bad)
    contradiction |= disputed or believed != beside
    counts = dict(believed)
    if total is not None:
        contradiction |= _fit(counts, total)
    if contradiction:
        problems.append(
            f"observation {observation_id}: its usage keys contradict each other ({_listed(good)}): "
            f"counted as {total} tokens"
        )
    unknown = [key for key, count in counts.items() if count and not read_key(key).is_known]
    problems += [
        f"usage key {_show(key)} is of no known kind: its tokens count as {TOKEN_CLASSES[read_key(key).token_class]}"
        for key in unknown
    ]
    classes = [0] * len(TOKEN_CLASSES)
    sides: list[int | None] = [None, None, None]
    for key, count in counts.items():
        kind = read_key(key)
        classes[kind.token_class] += count
        if key in believed:
            # Langfuse's rule is about the keys as they were sent; what it does not cover never exceeds the total.
            small = key.lower()
            said = believed[key] if "input" in small or "output" in small else count
            sides[kind.side] = said + (sides[kind.side] or 0)
    lines = {key: count for key, count in (*counts.items(), *units.items()) if count}
    return Tokens(
        sides[IN],
        sides[OUT],
        total,
        tuple(classes),
        bad,
        contradiction,
        tuple(problems),
        bool(unknown),
        tuple(lines),
        tuple(lines.values()),
    )


def _each_once(named: Mapping[str, int]) -> tuple[dict[str, int], bool]:
    """Each number once, though several spellings of its key were sent; true if those say different numbers."""
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, int] = {}
    contradiction = False
    side_totals: list[str] = []
    for key, count in named.items():
        kind = read_key(key)
        if kind.is_side_total:
            side_totals.append(key)
            continue
        known = first.setdefault(kind.meaning, key)
        contradiction |= known != key and found[known] != count
        found[known] = max(count, found.get(known, 0))
    for key in side_totals:
        kind = read_key(key)
        others = sum(count for other, count in found.items() if read_key(other).side == kind.side)
        whole = next((other for other in found if read_key(other).meaning == kind.meaning), None)
        contradiction |= named[key] < others
        if whole is None and named[key] > others:
            found[key] = named[key] - others
        elif whole is not None and named[key] != others:
            contradiction |= found[whole] != named[key]  # the same again: everything beside it is a part of it
    return found, contradiction


def _without_repeats(beside: Mapping[str, int]) -> dict[str, int]:
    """What is left if parts that were sent beside their whole are taken out of it, by the names of the keys.

    A `…_details` object holds parts; uncached input beside input means that input contains everything; cache writes by
    lifetime that add up to the cache writes without one are the same again.
    """
    found = dict(beside)
    kinds = {key: read_key(key) for key in found}
    for side in (IN, OUT):
        whole = next((key for key, kind in kinds.items() if kind.is_whole and kind.side == side), None)
        parts = {key: kind for key, kind in kinds.items() if kind.side == side and key != whole}
        is_all = any("fresh" in kind.meaning for kind in parts.values())
        inside = sum(found[key] for key, kind in parts.items() if kind.is_detail or is_all)
        if whole is not None and 0 < inside <= found[whole]:
            found[whole] -= inside
    plain = next((key for key, kind in kinds.items() if kind.meaning == (CACHE_WRITE,)), None)
    timed = sum(found[key] for key, kind in kinds.items() if len(kind.meaning) == 2 and kind.meaning in _LIFETIMES)
    if plain is not None and found[plain] == timed > 0:
        found[plain] = 0
    return found


_LIFETIMES = {(CACHE_WRITE, lifetime) for lifetime in ("5m", "1h", "24h")}


def _total(
    good: Mapping[str, int], totals: Mapping[str, int], beside: dict[str, int], parts: dict[str, int], *, is_bad: bool
) -> tuple[int | None, dict[str, int], bool]:
    """The total, the counts that go with it, and whether totals contradict each other.

    Where nobody sends one, Langfuse makes `total` the sum of everything sent, totals of other spellings and units
    included: such a sum says nothing.
    """
    sent = dict(totals)
    made = sum(count for key, count in good.items() if key != "total")
    if sent.get("total") == made != sum(parts.values()):
        del sent["total"]
    if not sent or (is_bad and beside):
        return (sum(parts.values()) if beside else None), parts, False
    for counts in (parts, beside):
        if sum(counts.values()) in sent.values():
            return sum(counts.values()), counts, len(set(sent.values())) > 1
    # An overlap is settled by the total itself: it is told apart from a whole and its parts by the numbers alone.
    own = sum(beside.values())
    return min(sent.values(), key=lambda total: (abs(total - own), total)), beside, len(set(sent.values())) > 1


def _fit(counts: dict[str, int], total: int) -> bool:
    """Make the counts sum to the total, in place; true if keys had to give tokens back.

    Instrumentations that overlap count cached tokens inside input and reasoning inside output.
    """
    excess = sum(counts.values()) - total
    if excess < 0:
        counts[REST] = counts.get(REST, 0) - excess
    if excess <= 0:
        return False
    for side in (IN, OUT):
        of_side = [key for key in counts if read_key(key).side == side]
        for key in of_side:
            if read_key(key).is_whole:
                given = min(excess, counts[key], sum(counts[other] for other in of_side if other != key))
                counts[key] -= given
                excess -= given
    while excess:
        key = max(counts, key=lambda one: counts[one])
        given = min(excess, counts[key])
        counts[key] -= given
        excess -= given
    return True


def _storable(key: str) -> str:
    """Half a surrogate pair, which no file can hold, as a question mark."""
    return key.encode(errors="replace").decode()


def _listed(good: Mapping[str, int]) -> str:
    shown = ", ".join(f"{_show(key)} {count}" for key, count in list(good.items())[:MOST_KEYS_SHOWN])
    return shown if len(good) <= MOST_KEYS_SHOWN else f"{shown} and {len(good) - MOST_KEYS_SHOWN} more"


def _amount(value: object) -> Decimal | None:
    """US dollars from 0 to below `MAXIMUM_COST_USD`; `None` if the value cannot be that."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        amount = value if isinstance(value, Decimal) else Decimal(str(value).replace("_", "?"))  # 1_0 is only Python's
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < MAXIMUM_COST_USD else None


def read_cost(observation_id: str, details: Mapping[str, object], bare_total: object) -> Cost:
    """The cost of one observation in US dollars: `total` if it is there, else the sum of the rest, else the row's bare
    `totalCost` if that is above 0.

    A bare 0 beside empty details is how older servers say "unknown", and -1 is how they say "not requested".
    """
    problems: list[str] = []
    good: dict[str, Decimal] = {}
    for key, value in details.items():
        if value is None:
            continue
        if type(value) is Decimal and value.is_finite() and not value.is_signed() and value < MAXIMUM_COST_USD:
            good[key] = value  # the way of nearly every value
            continue
        amount = _amount(value)
        if amount is None:
            problems.append(_bad_cost(observation_id, f"cost {key}", value))
        else:
            good[key] = amount
    if good:
        usd = good["total"] if "total" in good else sum(good.values(), Decimal(0))
        return Cost(exact(usd), bool(problems), tuple(problems))
    if not problems and bare_total is not None and bare_total not in (0, -1):
        amount = _amount(bare_total)
        if amount is not None:
            return Cost(exact(amount), bad=False, problems=())
        problems.append(_bad_cost(observation_id, "totalCost", bare_total))
    return Cost(None, bad=True, problems=tuple(problems)) if problems else NO_COST


def _bad_cost(observation_id: str, name: str, value: object) -> str:
    return (
        f"observation {observation_id}: {name} = {_show(value)} is not an amount from 0 to below "
        f"{MAXIMUM_COST_USD} USD; treated as unknown"
    )


def _show(value: object) -> str:
    text = str(value) if isinstance(value, (int, float, Decimal)) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
