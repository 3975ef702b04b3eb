"""Writes values as cells of CSV files, in this one place: exact, nothing a spreadsheet would run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from billing_core.types import plain_decimal, utc_text

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", *"＝＋－＠﹦﹢﹣﹫")
"""What a spreadsheet may take for a formula at the beginning of a cell, or skip before one. East Asian ones read the
full-width and the small forms of the signs as the signs."""

APOSTROPHE = "'"
"""Before a formula it makes a spreadsheet show it instead of running it."""

FORMULA_START = "[" + "".join(map(re.escape, FORMULA_STARTS)) + "]"
NEUTRALISED = f"^{APOSTROPHE}+{FORMULA_START}"
"""The start of a cell that got an apostrophe so that no spreadsheet runs it, as a regular expression."""

QUOTED = ',"\n\r;'
"""A cell that holds one of these is put into quotation marks; the separator in use is another one."""


IN_UTC = " (UTC)"
"""What follows the name of a column of times where a heading says their timezone: `timestamp (UTC)`."""

EXACT = "_exact"
"""What follows the name of a number column in that of a further one, of text, with the digits it has no room for."""


def looks_like_formula(text: str) -> bool:
    """Whether a text needs an apostrophe in a cell: also where apostrophes stand before the formula, so that one can be
    taken off again whatever the text was.
    """
    return text.lstrip(APOSTROPHE).startswith(FORMULA_STARTS)


def neutralised(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return APOSTROPHE + text if looks_like_formula(text) else text


def read_back(cell: str) -> str:
    """The text that `neutralised` made a cell of."""
    return cell[1:] if cell.startswith(APOSTROPHE) and looks_like_formula(cell) else cell


def quoted(text: str, separator: str = ",") -> str:
    """A text as RFC 4180 writes it: in quotation marks where it has to be."""
    if separator not in text and not any(character in text for character in QUOTED):
        return text
    return '"' + text.replace('"', '""') + '"'


def csv_cell(value: Any) -> str:
    """One value as CSV text that no spreadsheet runs: exact numbers, UTC times, lists as JSON."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if hasattr(value, "isoformat"):
        return utc_text(value)
    if isinstance(value, list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
        if isinstance(value, (int, float)):
            return text
    return quoted(neutralised(text))


def csv_line(values: Iterable[Any]) -> str:
    """One CSV record with its line end, from values."""
    return ",".join(map(csv_cell, values)) + "\r\n"
