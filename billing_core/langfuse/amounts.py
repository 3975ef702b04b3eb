"""What one observation used and cost: the rules over its `usageDetails` and `costDetails`.

Source: sections 1.4 and 2.1 of the Langfuse notes. Keys are free-form, units are tokens and US dollars, and the
same rule serves both API generations.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

from billing_core.usage import TOKEN_CLASSES

__all__ = ["NO_COST", "NO_TOKENS", "Cost", "Tokens", "exact", "read_cost", "read_tokens", "token_class"]

MAXIMUM_TOKENS = 1_000_000_000
"""More in one bucket of one observation is a mistake, not usage."""

MAXIMUM_COST_USD = Decimal(1_000_000)

PICO = Decimal("1e-12")
CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)

INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, REASONING, OTHER = range(len(TOKEN_CLASSES))

_BAD = -1


class Tokens(NamedTuple):
    """Token counts of one observation; `None` where it names none.

    `classes` follow `TOKEN_CLASSES` and always sum to `total`. `overlap` says that the named buckets were more
    than the total sent with them.
    """

    tokens_in: int | None
    tokens_out: int | None
    total: int | None
    classes: tuple[int, ...]
    bad: bool
    overlap: bool
    problems: tuple[str, ...]


class Cost(NamedTuple):
    """US dollars of one observation, twelve decimal places; `None` is unknown, which is not zero."""

    usd: Decimal | None
    bad: bool
    problems: tuple[str, ...]


NO_TOKENS = Tokens(None, None, None, (0,) * len(TOKEN_CLASSES), bad=False, overlap=False, problems=())
NO_COST = Cost(None, bad=False, problems=())


def exact(value: Decimal) -> Decimal:
    """Half-even to the twelve places Langfuse stores."""
    return value.quantize(PICO, context=CONTEXT)


@lru_cache(maxsize=4096)
def token_class(key: str) -> int:
    """The index in `TOKEN_CLASSES` a usage key belongs to."""
    key = key.lower()
    if "cache" in key:
        return CACHE_WRITE if "creation" in key or "write" in key else CACHE_READ
    for words, index in (
        (("reasoning", "thinking"), REASONING),
        (("input", "prompt"), INPUT),
        (("output", "completion"), OUTPUT),
    ):
        if any(word in key for word in words):
            return index
    return OTHER


@lru_cache(maxsize=4096)
def _side(key: str) -> int:
    """Which sum of the event a usage key counts into: 0 tokens in, 1 tokens out, 2 neither."""
    key = key.lower()
    return 0 if "input" in key else 1 if "output" in key else 2


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
    """Apply the one rule for tokens; see `Tokens`."""
    good: dict[str, int] = {}
    problems: list[str] = []
    for key, value in details.items():
        count = value if type(value) is int and 0 <= value <= MAXIMUM_TOKENS else _count(value)
        if count == _BAD:
            problems.append(
                f"observation {observation_id}: usage {key} = {_show(value)} is not a token count "
                f"from 0 to {MAXIMUM_TOKENS}; not rated"
            )
        elif count is not None:
            good[key] = count
    if not good:
        return NO_TOKENS._replace(bad=True, problems=tuple(problems)) if problems else NO_TOKENS

    sent_total = good.pop("total", None)
    classes = [0] * len(TOKEN_CLASSES)
    sides: list[int | None] = [None, None, None]
    for key, count in good.items():
        classes[token_class(key)] += count
        side = _side(key)
        sides[side] = count + (sides[side] or 0)
    named = sum(classes)
    total = sent_total if sent_total is not None and (not problems or not good) else named
    bad = bool(problems)
    overlap = _fit(classes, total)
    if overlap:
        problems.append(
            f"observation {observation_id}: its usage keys name {named} tokens, its total {total}: "
            "the keys overlap, the total counts"
        )
    return Tokens(sides[0], sides[1], total, tuple(classes), bad, overlap, tuple(problems))


def _fit(classes: list[int], total: int) -> bool:
    """Make the classes sum to the total, in place; true if buckets had to give tokens back.

    Instrumentations that overlap count cached tokens inside input and reasoning inside output.
    """
    excess = sum(classes) - total
    if excess <= 0:
        classes[OTHER] -= excess
        return False
    for index, limit in (
        (INPUT, classes[CACHE_READ] + classes[CACHE_WRITE]),
        (OUTPUT, classes[REASONING]),
    ):
        given = min(excess, classes[index], limit)
        classes[index] -= given
        excess -= given
    while excess:
        index = classes.index(max(classes))
        given = min(excess, classes[index])
        classes[index] -= given
        excess -= given
    return True


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
    """`total` if it is there, else the sum of the rest, else the row's bare `totalCost` if that is above 0.

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
