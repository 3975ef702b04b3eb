"""Times in columns: the same as Arrow's own functions where the machine has a timezone database, and without one."""

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.time_columns import cut_to, microseconds, microseconds_between

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.lists(
    st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
)
ASKS_THE_SYSTEM = (
    "_between",
    "floor_temporal",
    "ceil_temporal",
    "round_temporal",
    "assume_timezone",
    "local_timestamp",
    "strftime",
    "iso_calendar",
    "day_of_week",
    "is_dst",
)


def column(times):
    return pa.chunked_array([pa.array(times, pa.timestamp("us", tz="UTC"))])


@given(TIMES)
def test_an_instant_is_microseconds_since_1970(times):
    expected = [None if time is None else (time - EPOCH) // timedelta(microseconds=1) for time in times]
    assert microseconds(column(times)).to_pylist() == expected
    backwards = microseconds_between(column(times), column(times[::-1])).to_pylist()
    assert backwards == [
        None if None in pair else pair[1] - pair[0] for pair in zip(expected, expected[::-1], strict=True)
    ]


@pytest.mark.parametrize(("step", "unit"), [(timedelta(hours=1), "hour"), (timedelta(milliseconds=1), "millisecond")])
@given(times=TIMES)
def test_cut_is_never_later(step, unit, times):
    cut = cut_to(column(times), step)
    assert cut.type == column(times).type
    assert cut.to_pylist() == pc.floor_temporal(column(times), unit=unit).to_pylist()


def test_nobody_asks_arrow_for_what_needs_the_systems_timezone_database():
    found = [
        f"{file}:{node.lineno}: pc.{node.attr}"
        for file in sorted(Path("billing_core").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pc"
        if node.attr.endswith(ASKS_THE_SYSTEM)
    ]
    assert found == []
