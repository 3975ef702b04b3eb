"""Slices of time: every event in exactly one, in order, and not too many in one."""

from datetime import timedelta
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from billing_core.access import Scope
from billing_core.exports.event_slices import TimeSpan, in_order, pinned, plan, read_at, sorted_slice, spans_of, within
from billing_core.ledger.queries import ClosedSpan, Selection, Snapshot
from tests.factories import NOON, events_table, ledger_at, usage_row

CELLS = st.dictionaries(st.integers(0, 500), st.integers(1, 50)).map(
    lambda found: [TimeSpan(900 * at, 900 * (at + 1), rows) for at, rows in found.items()]
)


@given(CELLS, st.integers(1, 60))
def test_slices_hold_every_cell_once_in_order_and_only_a_single_cell_is_larger_than_asked(cells, most):
    slices = plan(cells, most)
    assert sum(one.rows for one in slices) == sum(cell.rows for cell in cells)
    assert all(before.end <= after.start for before, after in pairwise(slices))
    for one in slices:
        inside = [cell for cell in cells if one.start <= cell.start and cell.end <= one.end]
        assert sum(cell.rows for cell in inside) == one.rows
        assert one.rows <= most or len(inside) == 1


def test_slices_of_a_ledger_give_every_event_in_the_order_of_one_question(tmp_path):
    rows = [usage_row(id=f"e{n:02}", timestamp=NOON + timedelta(seconds=37 * (n % 7), hours=n % 3)) for n in range(50)]
    ledger = ledger_at(tmp_path / "billing.duckdb", rows)
    selection = pinned(Selection(Scope(None), ledger.snapshot()))
    spans = spans_of(ledger, selection, most=5)
    assert max(span.rows for span in spans) < 10  # a crowded quarter of an hour is cut by seconds
    found = [
        table["id"].to_pylist()
        for table in (ledger.engine.read(in_order(within(selection, span), ["id"], len(rows))) for span in spans)
    ]
    assert [len(ids) for ids in found] == [span.rows for span in spans]
    whole = ledger.engine.read(in_order(selection, ["id"], len(rows)))["id"].to_pylist()
    assert [one for ids in found for one in ids] == whole
    assert sorted(whole) == [row["id"] for row in rows]
    ledger.engine.close()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.text("aäZ~", max_size=2), st.integers(-2, 2)), max_size=30), st.booleans()
)
def test_a_slice_that_comes_in_any_order_is_put_into_that_of_files(found, some_month_is_closed):
    span = ClosedSpan(1, NOON, NOON + timedelta(days=1))
    snapshot = Snapshot(1, 1, (span,) if some_month_is_closed else ())
    unique = (
        found if some_month_is_closed else list({(moment, one): (moment, one, 0) for moment, one, _ in found}.values())
    )
    columns = [*zip(*unique, strict=True)] or [(), (), ()]
    table = pa.table(
        {
            "moment": pa.array(columns[0], pa.int64()).cast(pa.timestamp("us")),
            "id": pa.array(columns[1], pa.string()),
            "credits_total": pa.array(columns[2], pa.int64()),
            "latency_seconds": pa.array([0] * len(unique)),
            "tokens_total": pa.array([None] * len(unique), pa.int64()),
            "customer_id": pa.array(["c"] * len(unique), pa.string()),
        }
    )
    rows = sorted_slice(table, Selection(Scope(None), snapshot)).to_pylist()
    expected = sorted(unique, key=lambda row: (row[0], row[1].encode(), row[2]))
    got = [(row["moment"], row["id"], row["credits_total"]) for row in rows]
    assert [one[1:] for one in got] == [one[1:] for one in expected]


def test_a_booking_in_the_middle_of_a_read_does_not_change_the_answer(tmp_path, monkeypatch):
    ledger = ledger_at(tmp_path / "billing.duckdb", [usage_row(id="first")])
    selection = pinned(Selection(Scope(None), ledger.snapshot()))
    read = ledger.engine.read

    def books_before_it_reads(expression):
        monkeypatch.setattr(ledger.engine, "read", read)
        ledger.book(
            events_table([usage_row(id="second"), usage_row(id="first", latency_seconds=9)]), run_id="meanwhile"
        )
        return read(expression)

    monkeypatch.setattr(ledger.engine, "read", books_before_it_reads)
    found = read_at(ledger, selection, lambda asked: in_order(asked, ["id", "latency_seconds"], 9))
    assert found.select(["id", "latency_seconds"]).to_pylist() == [{"id": "first", "latency_seconds": 60}]
    again = read_at(ledger, selection, lambda asked: in_order(asked, ["id", "latency_seconds"], 9))
    assert again.equals(found)
    ledger.engine.close()
