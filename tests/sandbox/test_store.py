from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.langfuse.filters import equals
from billing_core.sandbox.langfuse.store import BadCursor, Query
from billing_core.sandbox.langfuse.wire import iso, milliseconds

FOREVER = 2**62


@pytest.fixture
def store(now):
    return SandboxDataset(5, 150, now=now).store()


def pages(store, query, now=FOREVER):
    while True:
        page = store.page(query, now)
        yield [row.whole for row in page.rows]
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_paging_covers_every_row_once_in_the_fixed_order(store, limit):
    read = [row for page in pages(store, Query(limit=limit)) for row in page]

    assert read == [row.whole for row in store.rows]
    starts = [row.start for row in store.rows]
    assert starts == sorted(starts, reverse=True)


def test_every_page_but_the_last_is_full_and_an_exactly_full_last_page_has_no_cursor(store):
    total = len(store.rows)
    sizes = [len(page) for page in pages(store, Query(limit=7))]
    assert set(sizes[:-1]) == {7}
    assert store.page(Query(limit=total), FOREVER).cursor is None
    assert store.page(Query(limit=total - 1), FOREVER).cursor is not None


def test_the_window_is_half_open(store):
    starts = sorted({row.start for row in store.rows})
    first, last = starts[10], starts[20]

    found = store.page(Query(start=(first, last), limit=1000), FOREVER).rows

    assert {row.start for row in found} == set(starts[10:20])


def test_rows_added_while_paging_neither_repeat_nor_skip_the_others(store):
    before = {(row.whole.id, row.whole.updated_at) for row in store.rows}
    query = Query(limit=40)
    read = []
    for step in range(1000):
        page = store.page(query, FOREVER)
        read += [row.whole for row in page.rows]
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
        somewhere = store.rows[(step * 97) % len(store.rows)].start
        store.append([{"id": f"new{step}", "traceId": f"new{step}", "startTime": iso(somewhere)}], FOREVER // 10**9)

    ids = [(row.id, row.updated_at) for row in read]
    assert before <= set(ids)
    assert len(ids) == len(set(ids))
    assert len(ids) > len(before)  # late rows below the cursor are picked up


def test_added_rows_stand_in_the_fixed_order_too(store):
    middle = store.rows[len(store.rows) // 2].start
    store.append([{"id": f"new{n}", "traceId": f"new{n}", "startTime": iso(middle + n)} for n in range(3)], middle)

    assert [row.order for row in store.rows] == sorted(row.order for row in store.rows)
    assert next(pages(store, Query(limit=1000), FOREVER)) == [row.whole for row in store.rows][:1000]


def test_rows_stay_hidden_until_they_are_written(store):
    written = [row.written for row in store.rows]
    moment = sorted(written)[len(store.rows) // 2]

    read = [row for page in pages(store, Query(limit=20), moment) for row in page]

    assert len(read) == sum(time <= moment for time in written) < len(store.rows)
    assert all(milliseconds(row.created_at) <= moment for row in read)


def test_the_rows_of_given_traces_come_from_the_index(store):
    wanted = [row.whole.trace_id for row in store.rows[3:6]]

    found = store.page(Query(traces=frozenset((*wanted, "unknown")), limit=1000), FOREVER).rows

    assert found == [row for row in store.rows if row.whole.trace_id in wanted]


def test_filters_page_like_everything_else(store):
    query = Query(checks=(equals("type", "GENERATION"), lambda row: not row.is_root_observation), limit=9)

    read = [row for page in pages(store, query) for row in page]

    rows = [row.whole for row in store.rows]
    assert len(read) == sum(row.type == "GENERATION" and not row.is_root_observation for row in rows)


def test_a_cursor_from_elsewhere_is_refused(store):
    for cursor in ("nonsense", "e30=", "!"):
        with pytest.raises(BadCursor):
            store.page(Query(cursor=cursor), FOREVER)


def test_a_known_id_that_is_added_again_is_served_twice(store):
    row = msgspec.to_builtins(store.rows[0].whole)

    store.append([{**row, "updatedAt": "2026-03-11T00:00:00.000Z", "usageDetails": {"input": 1}}], FOREVER // 10**9)

    twice = [one.whole for one in store.rows_of_trace(row["traceId"], FOREVER) if one.whole.id == row["id"]]
    assert [version.usage_details for version in twice] == [row["usageDetails"], {"input": 1}]


def test_an_added_row_needs_id_trace_and_start(store):
    before = len(store.rows)
    good = {"id": "a", "traceId": "b", "startTime": "2026-03-01T00:00:00Z"}
    with pytest.raises(ValueError, match="startTime: missing"):
        store.append([good, {"id": "a", "traceId": "b"}], 0)
    assert len(store.rows) == before


def test_traces_started_in_a_window_come_oldest_first(store, now):
    truth = SandboxDataset(5, 150, now=now).truth()
    expected = [trace.id for trace in sorted(truth.values(), key=lambda trace: trace.timestamp)]

    assert store.traces_started((-FOREVER, FOREVER), FOREVER) == expected
