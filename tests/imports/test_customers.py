"""Importing the customer map: the directory's own rules, from every form a map is exported in."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_core.errors import BadParameter
from billing_core.imports.model import FileKind, ImportOutcome
from tests.factories import EVERYONE, usage_row
from tests.imports.world import ImportWorld

MAP = "organization_id,name,customer_id\norg_a,Acme,cus_1\norg_b,,cus_2\n"


@pytest.fixture
def world(tmp_path):
    """An event of an organization that nobody pays for."""
    return ImportWorld(tmp_path, [usage_row(id="a", customer_id=None)])


def file(world, content, name="map.csv"):
    path = world.folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(world):
    found = world.service.organizations.directory.entries(EVERYONE)
    return {e.organization_id: (e.name, e.customer_id) for e in found if (e.name, e.customer_id) != (None, None)}


def test_a_map_says_who_pays_and_unsent_events_follow_at_once(world):
    result = world.bring(file(world, MAP))
    assert (result.plan.kind, result.outcome) == (FileKind.CUSTOMERS, ImportOutcome(2, 0, 0))
    assert any("1 unsent events move" in warning for warning in result.plan.warnings)
    assert lines(world) == {"org_a": ("Acme", "cus_1"), "org_b": (None, "cus_2")}
    assert (world.event("a").customer_id, world.event("a").sync_status) == ("cus_1", "pending")


def test_the_same_map_again_changes_nothing(world):
    world.bring(file(world, MAP))
    before = world.content()
    assert world.bring(file(world, MAP)).outcome == ImportOutcome(0, 0, 2)
    assert world.content() == before


def test_lines_that_are_there_already_count_as_changed_or_unchanged(world):
    world.bring(file(world, MAP))
    assert world.plan(file(world, MAP.replace("cus_1", "cus_9"))).outcome == ImportOutcome(0, 1, 1)


@pytest.mark.parametrize("form", ["csv", "utf-16", "json", "parquet"])
def test_every_form_of_a_map_is_understood(world, form):
    rows = [
        {"organization_id": "org_a", "name": "=Acme", "customer_id": "cus_1"},
        {"organization_id": "org_b", "name": None, "customer_id": "cus_2"},
    ]
    path = world.folder / "map"
    if form == "csv":
        path.write_text("organization_id\tname\tcustomer_id\norg_a\t'=Acme\tcus_1\norg_b\t\tcus_2\n")
    elif form == "utf-16":
        path.write_bytes("organization_id;name;customer_id\r\norg_a;'=Acme;cus_1\r\norg_b;;cus_2\r\n".encode("utf-16"))
    elif form == "json":
        path.write_text(json.dumps({"meta": {"dataset": "customers"}, "rows": rows}))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    world.bring(path)
    assert lines(world) == {"org_a": ("=Acme", "cus_1"), "org_b": (None, "cus_2")}


def test_bad_rows_are_named_by_the_rows_of_data_and_stop_everything(world):
    content = MAP + "org_c,x,has space\n,No id,cus_3\norg_a,Again,cus_4\n"
    plan = world.plan(file(world, content))
    assert [(one.row, one.field) for one in plan.rejected] == [
        (3, "customer_id"),
        (4, "organization_id"),
        (5, "organization_id"),
    ]
    with pytest.raises(BadParameter):
        world.desk.apply(plan, EVERYONE)
    assert lines(world) == {}
    assert world.bring(file(world, content), skip_bad_rows=True).outcome == ImportOutcome(2, 0, 0)


def test_a_map_with_wrong_columns_or_without_end_is_never_imported(world):
    wrong = world.plan(file(world, "organization_id,name,colour\norg_a,x,y\n"), skip_bad_rows=True)
    assert (wrong.can_apply, [(one.row, one.field) for one in wrong.rejected]) == (False, [(0, "colour")])
    assert not world.plan(file(world, MAP + 'org_c,"x\n'), skip_bad_rows=True).can_apply


def test_lines_somebody_changed_since_the_preview_are_not_overwritten(world):
    plan = world.plan(file(world, MAP))
    world.bring(file(world, MAP.replace("cus_1", "cus_9")))
    with pytest.raises(BadParameter, match="preview again"):
        world.desk.apply(plan, EVERYONE)
    assert len(world.desk.imports(EVERYONE)) == 1


def test_taking_a_map_back_makes_its_lines_as_they_were(world):
    world.bring(file(world, "organization_id,name,customer_id\norg_a,Old,\n"))
    before = lines(world)
    result = world.bring(file(world, MAP))
    found = world.undo(result)
    assert (found.removed, found.restored) == (1, 1)
    assert lines(world) == before
    assert world.event("a").customer_id is None
    with pytest.raises(BadParameter, match="undid this one"):
        world.undo(result)


def test_a_map_whose_lines_were_changed_since_stays(world):
    result = world.bring(file(world, MAP))
    world.bring(file(world, MAP.replace("cus_1", "cus_9"), "later.csv"))
    with pytest.raises(BadParameter, match="1 of its lines were changed since"):
        world.undo(result)


def test_a_map_that_repeats_one_name_very_often_is_not_unpacked(world):
    names = pa.array(["x" * 50_000] * 1_000)
    pq.write_table(pa.table({"organization_id": names, "name": names}), world.folder / "map", compression="zstd")
    plan = world.plan(world.folder / "map")
    assert (plan.kind, plan.can_apply) == (FileKind.CUSTOMERS, False)
    assert "unpacks to more than 5,242,880 characters" in plan.rejected[0].reason
