from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.langfuse.store import BadCursor, Query
from billing_core.sandbox.langfuse.wire import iso, milliseconds

FOREVER = 2**62


@pytest.fixture
def store(now):
    return SandboxDataset(5, 150, now=now).store()


def pages(store, query, now=FOREVER):
    while True:
        page = store.page(query, now)
        yield [store.text(p) for p in page.positions.tolist()]
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_paging_covers_every_row_once_in_the_fixed_order(store, limit):
    read = [text for page in pages(store, Query(limit=limit)) for text in page]

    assert read == [store.text(p) for p in range(len(store))]
    starts = store.columns["start"].tolist()
    assert starts == sorted(starts, reverse=True)


def test_every_page_but_the_last_is_full_and_an_exactly_full_last_page_has_no_cursor(store):
    total = len(store)
    sizes = [len(page) for page in pages(store, Query(limit=7))]
    assert set(sizes[:-1]) == {7}
    assert store.page(Query(limit=total), FOREVER).cursor is None
    assert store.page(Query(limit=total - 1), FOREVER).cursor is not None


def test_the_window_is_half_open(store):
    starts = sorted(set(store.columns["start"].tolist()))
    first, last = starts[10], starts[20]

    found = store.page(Query(start=(first, last), limit=1000), FOREVER).positions

    assert set(store.columns["start"][found].tolist()) == set(starts[10:20])


def test_rows_added_while_paging_neither_repeat_nor_skip_the_others(store):
    before = {store.text(p) for p in range(len(store))}
    query = Query(limit=40)
    read = []
    for step in range(1000):
        page = store.page(query, FOREVER)
        read += [store.text(p) for p in page.positions.tolist()]
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
        somewhere = int(store.columns["start"][(step * 97) % len(store)])
        store.append([{"id": f"new{step}", "traceId": f"new{step}", "startTime": iso(somewhere)}], FOREVER // 10**9)

    old = [text for text in read if text in before]
    assert len(old) == len(before)
    assert set(old) == before
    assert len(read) == len(set(read))
    assert len(read) > len(before)  # late rows below the cursor are picked up


def test_a_page_over_added_rows_is_served_in_order_too(store):
    middle = int(store.columns["start"][len(store) // 2])
    store.append([{"id": f"new{n}", "traceId": f"new{n}", "startTime": iso(middle + n)} for n in range(3)], middle)

    every = np.arange(len(store))

    assert json.loads(b"[%s]" % store.joined(every)) == [json.loads(store.text(p)) for p in every.tolist()]
    assert store.joined(every[5:8]) == b",".join(store.text(p) for p in (5, 6, 7))
    assert store.joined(every[::3]) == b",".join(store.text(p) for p in every[::3].tolist())
    assert store.joined(every[:0]) == b""


def test_rows_stay_hidden_until_they_are_written(store):
    written = store.columns["written"]
    moment = int(sorted(written.tolist())[len(store) // 2])

    read = [text for page in pages(store, Query(limit=20), moment) for text in page]

    assert len(read) == int((written <= moment).sum()) < len(store)
    assert all(milliseconds(json.loads(text)["createdAt"]) <= moment for text in read)


def test_the_rows_of_given_traces_come_from_the_index(store):
    wanted = store.traces.texts[3:6]

    found = store.page(Query(traces=frozenset((*wanted, "unknown")), limit=1000), FOREVER).positions

    every = [p for p in range(len(store)) if store.row(p)["traceId"] in wanted]
    assert found.tolist() == every


def test_filters_page_like_everything_else(store):
    query = Query(types=frozenset({"GENERATION"}), is_root=False, limit=9)

    read = [text for page in pages(store, query) for text in page]

    rows = [store.row(p) for p in range(len(store))]
    assert len(read) == sum(row["type"] == "GENERATION" and not row["isRootObservation"] for row in rows)


def test_a_cursor_from_elsewhere_is_refused(store):
    for cursor in ("nonsense", "e30=", "!"):
        with pytest.raises(BadCursor):
            store.page(Query(cursor=cursor), FOREVER)


def test_a_known_id_that_is_added_again_is_served_twice(store):
    row = store.row(0)

    store.append([{**row, "updatedAt": "2026-03-11T00:00:00.000Z", "usageDetails": {"input": 1}}], FOREVER // 10**9)

    twice = [store.row(p) for p in store.rows_of_trace(row["traceId"]).tolist() if store.row(p)["id"] == row["id"]]
    assert [version["usageDetails"] for version in twice] == [row["usageDetails"], {"input": 1}]


def test_an_added_row_needs_id_trace_and_start(store):
    before = len(store)
    good = {"id": "a", "traceId": "b", "startTime": "2026-03-01T00:00:00Z"}
    with pytest.raises(ValueError, match="startTime: missing"):
        store.append([good, {"id": "a", "traceId": "b"}], 0)
    assert len(store) == before


def test_traces_started_in_a_window_come_oldest_first(store, now):
    truth = SandboxDataset(5, 150, now=now).truth()
    expected = [trace.id for trace in sorted(truth.values(), key=lambda trace: trace.timestamp)]

    assert store.traces_started((-FOREVER, FOREVER), FOREVER) == expected
