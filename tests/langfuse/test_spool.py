"""Pages survive a killed read, for as long as they may be trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from billing_core.langfuse.decode import DecodedPage, FactReader
from billing_core.langfuse.spans import DAY, ReadKind, ReadSlice, TimeRange, milliseconds
from billing_core.langfuse.spool import Spool
from billing_core.values.usage_frame import MetadataNames
from tests.langfuse.fake import observation

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD = milliseconds(NOW) - 10 * DAY
SLICE = ReadSlice(ReadKind.WINDOW, (TimeRange(OLD, OLD + DAY),))
REST = TimeRange(OLD, OLD + DAY, cursor="c1", newest=OLD + 5)


def page(*ids: str) -> DecodedPage:
    rows = [observation(identity, "t", "2026-11-12T12:00:00.000Z") for identity in ids]
    return FactReader(MetadataNames()).observations(json.dumps({"data": [*rows, {"id": "odd"}], "meta": {}}).encode())


def spool(root: Path, now: datetime = NOW) -> Spool:
    return Spool(root, ["host", "project"], lambda: now)


def test_a_killed_read_continues_from_its_last_cursor(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page("a", "b"), [REST])
    first.release()

    part = spool(tmp_path).part(SLICE)
    assert part.remaining == [REST]
    assert (part.rows, [row.row for row in part.rejected]) == (3, ["observation odd of trace ?"])
    part.write(page("c"), [])
    assert [row for table in part.tables(["id"]) for row in table["id"].to_pylist()] == ["a", "b", "c"]


def test_a_finished_slice_is_not_read_again(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page(), [])
    first.release()
    assert spool(tmp_path).part(SLICE).remaining == []


@pytest.mark.parametrize(
    ("piece", "later"),
    [
        (SLICE, timedelta(hours=6, seconds=1)),
        (SLICE, timedelta(hours=-1)),
        (ReadSlice(ReadKind.WINDOW, (TimeRange(OLD, milliseconds(NOW - timedelta(hours=47))),)), timedelta(minutes=1)),
    ],
    ids=["read too long ago", "the clock went back", "data that still moves"],
)
def test_pages_that_cannot_be_trusted_are_read_anew(tmp_path: Path, piece: ReadSlice, later: timedelta) -> None:
    first = spool(tmp_path)
    first.part(piece).write(page("a"), [])
    first.release()
    part = spool(tmp_path, NOW + later).part(piece)
    assert (part.rows, part.remaining) == (0, list(piece.spans))
    assert list(part.tables()) == []


def test_a_page_torn_by_a_power_cut_is_read_anew(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page("a"), [])
    first.release()
    [file] = tmp_path.rglob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    assert spool(tmp_path).part(SLICE).remaining == list(SLICE.spans)


def test_an_unfinished_draft_is_not_a_page(tmp_path: Path) -> None:
    first = spool(tmp_path)
    part = first.part(SLICE)
    part.write(page("a"), [REST])
    (next(tmp_path.rglob("*.arrow")).parent / "000001.tmp").write_bytes(b"half")
    first.release()
    assert spool(tmp_path).part(SLICE).remaining == [REST]


def test_another_project_or_other_metadata_names_share_nothing(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page("a"), [])
    first.release()
    other = Spool(tmp_path, ["host", "other project"], lambda: NOW)
    assert other.part(SLICE).remaining == list(SLICE.spans)


def test_two_readers_at_once_do_not_share_a_lane(tmp_path: Path) -> None:
    first, second = spool(tmp_path), spool(tmp_path)
    first.part(SLICE).write(page("a"), [])
    assert second.part(SLICE).rows == 0
    second.discard()
    assert first.part(SLICE).rows == 2


def test_a_killed_process_frees_its_lane(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from billing_core.runtime.clock import now; from billing_core.langfuse.spool import Spool\n"
        "s = Spool(Path(sys.argv[1]), ['host', 'project'], now)\n"
        "print(s.work_folder, flush=True); time.sleep(600)"
    )
    held = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert held.stdout is not None
        lane = Path(held.stdout.readline().strip()).parent
        assert spool(tmp_path).work_folder.parent != lane
    finally:
        held.kill()
        held.wait()
        held.stdout.close()
    assert spool(tmp_path).work_folder.parent == lane


def test_discarding_leaves_no_page_behind(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page("a"), [])
    first.discard()
    first.discard()
    assert list(tmp_path.rglob("*.arrow")) == []


def test_pages_of_forgotten_reads_are_cleared_away(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.part(SLICE).write(page("a"), [])
    folder = next(tmp_path.rglob("*.arrow")).parent
    first.release()
    long_ago = folder.stat().st_mtime - 7 * 3600
    os.utime(folder, (long_ago, long_ago))
    spool(tmp_path)
    assert not folder.exists()


def test_only_the_asked_columns_are_read(tmp_path: Path) -> None:
    part = spool(tmp_path).part(SLICE)
    part.write(page("a"), [])
    [table] = part.tables(["trace_id", "cut"])
    assert table.column_names == ["trace_id", "cut"]
