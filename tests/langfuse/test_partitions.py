"""Regrouping by trace, so that memory is bounded by the partition."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from billing_core.langfuse import partitions as module
from billing_core.langfuse.decode import FactReader
from billing_core.langfuse.partitions import Partitions
from billing_core.values.usage_frame import MetadataNames
from tests.langfuse.fake import observation


def page(ids: range, traces: int) -> pa.Table:
    rows = [observation(f"o{i}", f"trace {i % traces}", "2026-11-10T12:00:00.000Z") for i in ids]
    return FactReader(MetadataNames()).observations(json.dumps({"data": rows, "meta": {}}).encode()).table


def test_all_rows_of_a_trace_meet_in_one_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARTITION_ROWS", 100)
    monkeypatch.setattr(module, "GROUP_ROWS", 150)
    partitions = Partitions(tmp_path / "p", 400)
    partitions.add(page(range(start, start + 100), 30) for start in (0, 100, 200))
    partitions.add([page(range(300, 400), 30)])  # pages that came later
    tables = list(partitions)
    assert partitions.count == 4
    assert sorted(identity for table in tables for identity in table["id"].to_pylist()) == sorted(
        f"o{i}" for i in range(400)
    )
    homes = [set(table["trace_id"].to_pylist()) for table in tables]
    assert sum(len(home) for home in homes) == 30
    partitions.remove()
    assert list(partitions) == []


def test_nothing_has_no_partitions(tmp_path: Path) -> None:
    partitions = Partitions(tmp_path / "p", 0)
    partitions.add([])
    assert list(partitions) == []
