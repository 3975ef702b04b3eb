"""Cuts JSON text at its brackets and commas without recursion and without decoding.

What one value holds (half a surrogate, thousands of levels, a number of thousands of digits) does not keep its
neighbours from being read. Only pages that the fast decoder refuses come here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},:]', re.DOTALL)
_ODD = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

MOST_BYTES = 1_000_000
"""A single value of a bill that is longer is no value of a bill."""

SHOWN = 120


class BrokenJson(ValueError):
    """A text is not JSON: brackets or quotation marks do not match."""


class Unreadable(ValueError):
    """A JSON value cannot be decoded; the text says what is wrong with it."""


def members(body: bytes) -> dict[str, bytes]:
    """The members of a JSON object, undecoded; of a repeated key the last counts.

    Raises BrokenJson: if `body` is not one object.
    """
    found: dict[str, bytes] = {}
    for piece in _parts(body, b"{", b"}"):
        match = _TOKEN.match(piece)
        if match is None or not match[0].startswith(b'"') or len(match[0]) < 2:
            raise BrokenJson("an object's key is not text")
        rest = piece[match.end() :].lstrip()
        if not rest.startswith(b":"):
            raise BrokenJson("a key without a value")
        found[text_of(match[0])] = rest[1:].strip()
    return found


def elements(body: bytes) -> list[bytes]:
    """The elements of a JSON list, undecoded.

    Raises BrokenJson: if `body` is not one list.
    """
    return list(_parts(body, b"[", b"]"))


def _parts(body: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    """What stands between the commas of the outermost level."""
    body = body.strip()
    if not body.startswith(opening):
        raise BrokenJson(f"{opening.decode()} expected")
    depth, begin = 0, 1
    for match in _TOKEN.finditer(body):
        token = match[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
            if depth == 0:
                if token != closing or body[match.end() :].strip():
                    raise BrokenJson("brackets do not match")
                last = body[begin : match.start()].strip()
                if last:
                    yield last
                elif begin > 1:
                    raise BrokenJson("a comma without a value")
                return
        elif token == b"," and depth == 1:
            piece = body[begin : match.start()].strip()
            if not piece:
                raise BrokenJson("a comma without a value")
            yield piece
            begin = match.end()
        elif token == b'"':
            raise BrokenJson("a text does not end")
    raise BrokenJson("brackets do not match")


def value_of(piece: bytes) -> Any:
    """The value of a piece of JSON; numbers with a fraction or exponent as `Decimal`, NaN and infinities as binary
    floats.

    Raises Unreadable: if it cannot be decoded: too deep, too long, no JSON.
    """
    if len(piece) > MOST_BYTES:
        raise Unreadable(f"{len(piece):,} bytes")
    try:
        return json.loads(
            piece.decode("utf-8", "surrogateescape"), parse_float=Decimal, parse_constant=_constant, strict=False
        )
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except (ValueError, ArithmeticError) as error:
        raise Unreadable(shown(str(error))) from None


def _constant(name: str) -> float:
    return {"NaN": math.nan, "Infinity": math.inf}.get(name, -math.inf)


def text_of(piece: bytes) -> str:
    """The text of a piece of JSON, to compare only: what cannot be read of it is replaced."""
    try:
        value = json.loads(piece.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return piece.decode("utf-8", "replace")
    return readable(str(value))


def readable(text: str) -> str:
    """The text with U+FFFD in the place of NUL and of halves of surrogate pairs, which nothing can store."""
    return _ODD.sub("\ufffd", text)


def is_readable(text: str) -> bool:
    """Whether every character of a text can be stored and compared."""
    return _ODD.search(text) is None


def shown(value: object, limit: int = SHOWN) -> str:
    """A value from outside for one line of a message: no control characters, no half characters, bounded."""
    try:
        text = value if isinstance(value, str) else str(value)
    except (ValueError, ArithmeticError):  # an integer of more digits than Python writes out
        text = f"a {type(value).__name__} too long to show"
    text = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
