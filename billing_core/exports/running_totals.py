"""Adds up a file's totals from its rows while they are written, and compares them with the screen's. Exact."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import WarehouseError
from billing_core.types import Credits, Totals, plain_decimal
from billing_core.values.decimals import EXACT

Value = Decimal | int | None

CREDIT_COLUMNS = tuple(f"credits_{part}" for part in Credits.model_fields)
TOKEN_COLUMNS = ("tokens_in", "tokens_out", "tokens_total")

TOTALLED = (*CREDIT_COLUMNS, "amount_usd", "cost_usd", *TOKEN_COLUMNS)
"""What is summed over rows; cost and tokens are `None` where no row knows any."""


class RunningTotals:
    """Counts, sums and rate card versions of the tables written so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.versions: set[str] = set()
        self._sums: dict[str, Value] = {
            name: Decimal(0) if name in (*CREDIT_COLUMNS, "amount_usd") else None for name in TOTALLED
        }

    def add(self, table: pa.Table) -> None:
        """Add a table, which has the columns of `TOTALLED`, to the totals."""
        self.rows += table.num_rows
        for name in TOTALLED:
            value = pc.sum(table[name]).as_py()
            if value is not None:
                self._sums[name] = _added(self._sums[name], value)
        if "rate_card_version" in table.column_names:
            self.versions.update(text for text in pc.unique(table["rate_card_version"]).to_pylist() if text is not None)

    @property
    def sums(self) -> dict[str, Value]:
        """The exact sums so far, by the names of `TOTALLED`."""
        return dict(self._sums)


def _added(before: Value, value: Decimal | int) -> Value:
    if before is None:
        return value
    return before + value if isinstance(before, int) and isinstance(value, int) else EXACT.add(Decimal(before), value)


def totals_of(totals: Totals) -> dict[str, Value]:
    """The screen's totals, by the names of `TOTALLED`."""
    parts = {f"credits_{part}": getattr(totals.credits, part) for part in Credits.model_fields}
    others = ("amount_usd", "cost_usd", *TOKEN_COLUMNS)
    return {**parts, **{name: getattr(totals, name) for name in others}}


def compare(written: Mapping[str, Value], shown: Mapping[str, Value], rows: int, events: int) -> None:
    """Check that a file's totals are those of the screen.

    Raises WarehouseError: naming the first figure that differs: such a file must not leave.
    """
    for name, expected in ({"rows": events} | dict(shown)).items():
        found = rows if name == "rows" else written[name]
        if found != expected:
            raise WarehouseError(
                f"export: {name} is {as_text(found)} in the file and {as_text(expected)} on the screen; nothing was "
                "written. Export again, and report this if it stays"
            )


def as_text(value: Value) -> Any:
    """A total as JSON has it: exact numbers as text, counts as numbers."""
    return plain_decimal(value) if isinstance(value, Decimal) else value
