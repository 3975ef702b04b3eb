"""Importing a bundle: checked through before anything of it is used, then prices, who pays, and usage."""

from __future__ import annotations

import json
import struct
import zipfile
from hashlib import sha256

import pytest

from billing_core.errors import BadParameter
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.imports import bundle as import_bundle
from billing_core.imports.model import FileKind
from tests.factories import EVERYONE
from tests.imports.test_cards import ACME
from tests.imports.world import ImportWorld, as_csv, booked, line

CARD = ACME.encode()
MAP = b"organization_id,name,customer_id\norg_a,Acme,cus_1\n"
CELLS = {"rate_card_version": "acme-2026-12", "amount_usd": "0.0075"}


@pytest.fixture
def world(tmp_path):
    return ImportWorld(tmp_path)


def events(folder, *rows):
    return as_csv(folder / "events", rows or [line()]).read_bytes()


def zipped(folder, members, *, manifest=None, compression=zipfile.ZIP_DEFLATED):
    """A zip of members; unless given, the manifest says the truth of each."""
    path = folder / "bundle.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if manifest is None:
            manifest = {"members": [{"file": n, "sha256": sha256(c).hexdigest()} for n, c in members.items()]}
        archive.writestr("manifest.json", json.dumps(manifest) if isinstance(manifest, dict) else manifest)
    return path


def refused(world, path):
    plan = world.plan(path)
    assert (plan.is_whole, plan.can_apply) == (False, False)
    with pytest.raises(BadParameter):
        world.desk.apply(plan, EVERYONE)
    assert world.statuses() == {}
    return plan.rejected[0].reason


def test_a_bundle_as_exported_comes_in_as_it_went_out(tmp_path):
    there = ImportWorld(
        tmp_path, [booked("a", problems=["odd"], observations=5), booked("b", customer_id=None)], "there"
    )
    there.bring(
        as_csv(
            tmp_path / "map",
            [{"organization_id": "org_a", "name": "Acme", "customer_id": "cus_1"}],
            header=("organization_id", "name", "customer_id"),
        )
    )
    path = tmp_path / "bundle.zip"
    there.service.exports.write(ExportRequest(Dataset.BUNDLE, None), EVERYONE, path)
    here = ImportWorld(tmp_path, (), "here")
    result = here.bring(path)
    assert [part.plan.kind for part in result.parts] == [FileKind.RATE_CARD, FileKind.CUSTOMERS, FileKind.USAGE_EVENTS]
    assert here.published() == there.published()
    assert here.rows("SELECT id, usage, observations, problems FROM events ORDER BY id") == there.rows(
        "SELECT id, usage, observations, problems FROM events ORDER BY id"
    )
    assert (here.bring(path).outcome.changes, here.bring(path).import_ids) == (0, ())


def test_a_manifest_that_is_read_in_pieces_is_read_whole(world, tmp_path):
    manifest = {"members": [{"file": "customers.csv", "sha256": sha256(MAP).hexdigest()}], "more": "x" * 3_000_000}
    path = zipped(tmp_path, {"customers.csv": MAP}, manifest=manifest, compression=zipfile.ZIP_STORED)
    assert world.plan(path).can_apply


def test_cards_come_before_the_events_that_name_them(world, tmp_path):
    cards = tmp_path / "cards.json"
    there = ImportWorld(tmp_path, (), "there")
    (tmp_path / "acme.yaml").write_bytes(CARD)
    there.bring(tmp_path / "acme.yaml")
    there.service.exports.write(ExportRequest(Dataset.RATE_CARD, Format.JSON), EVERYONE, cards)
    members = {
        "usage-events.csv": events(tmp_path, line(**CELLS)),
        "customers.csv": MAP,
        "rate-card.json": cards.read_bytes(),
    }
    plan = world.plan(zipped(tmp_path, members))
    assert (plan.rejected, plan.outcome.new) == ((), 4)
    result = world.desk.apply(plan, EVERYONE)
    assert len(result.import_ids) == 3
    assert {record.kind for record in world.desk.imports(EVERYONE)} == set(list(FileKind)[:3])
    assert world.desk.imports(EVERYONE)[0].file_name.startswith("bundle.zip: ")
    document = result.to_json()
    assert [part["kind"] for part in document["parts"]] == ["rate-card", "customers", "usage-events"]


def test_the_parquet_file_is_read_rather_than_the_csv_and_others_are_only_checked(world, tmp_path):
    members = {"usage-events.csv": events(tmp_path), "closes.json": b"[]", "organizations.csv": b"x"}
    assert world.plan(zipped(tmp_path, members)).columns == ("usage-events.csv",)


def test_what_is_wrong_in_a_member_is_named_with_the_member(world, tmp_path):
    plan = world.plan(
        zipped(tmp_path, {"usage-events.csv": events(tmp_path, line(tokens_in="-1")), "customers.csv": MAP})
    )
    assert [(one.row, one.field) for one in plan.rejected] == [(1, "usage-events.csv: tokens_in")]
    assert not plan.can_apply


def test_a_member_that_is_not_what_the_manifest_says_is_refused(world, tmp_path):
    manifest = {"members": [{"file": "usage-events.csv", "sha256": "0" * 64}]}
    path = zipped(tmp_path, {"usage-events.csv": events(tmp_path)}, manifest=manifest)
    assert "is not the file its manifest describes" in refused(world, path)


def test_members_the_manifest_does_not_name_or_that_are_missing_are_refused(world, tmp_path):
    path = zipped(tmp_path, {"usage-events.csv": events(tmp_path)}, manifest={"members": []})
    assert "which its manifest does not name" in refused(world, path)
    manifest = {"members": [{"file": "usage-events.csv", "sha256": "0"}]}
    assert "lacks 'usage-events.csv'" in refused(world, zipped(tmp_path, {}, manifest=manifest))


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        "[]",
        '{"members": [{"file": "a"}]}',
        "[" * 100_000,
        '{"members": [{"file": "a", "sha256": "0"}, {"file": "a", "sha256": "0"}]}',
    ],
)
def test_a_manifest_that_is_none_is_refused(world, tmp_path, manifest):
    assert "manifest" in refused(world, zipped(tmp_path, {}, manifest=manifest))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..\\evil", "c:evil"])
def test_names_that_lead_elsewhere_are_refused(world, tmp_path, name):
    assert "plain names without folders" in refused(world, zipped(tmp_path, {name: b"x"}))


def test_zips_inside_are_refused_whatever_they_are_called(world, tmp_path):
    inner = zipped(tmp_path, {"x": b"x"}).read_bytes()
    assert "zip inside a zip" in refused(world, zipped(tmp_path, {"inner.zip": b"x"}))
    assert "zip inside a zip" in refused(world, zipped(tmp_path, {"usage-events.csv": inner}))


def test_a_bomb_is_refused_by_what_it_says_it_unpacks_to(world, tmp_path):
    assert "says it unpacks from" in refused(world, zipped(tmp_path, {"usage-events.csv": b"0" * 40_000_000}))


def test_a_bomb_that_lies_about_its_size_is_refused_while_it_unpacks(world, tmp_path):
    path = zipped(tmp_path, {"usage-events.csv": b"0" * 40_000_000})
    content = path.read_bytes()
    lied = content.replace(struct.pack("<L", 40_000_000), struct.pack("<L", 1000))
    assert lied != content
    path.write_bytes(lied)
    assert "damaged" in refused(world, path)


def test_too_many_members_encrypted_ones_and_damage_are_refused(world, tmp_path):
    assert "holds 201 files" in refused(world, zipped(tmp_path, {f"f{n}": b"" for n in range(200)}))
    path = zipped(tmp_path, {"usage-events.csv": events(tmp_path)}, compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refused(world, path)
    path = zipped(tmp_path, {"usage-events.csv": events(tmp_path)}, compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in refused(world, path)


def test_a_bundle_with_nothing_to_import_is_refused(world, tmp_path):
    assert "nothing that can be imported" in refused(world, zipped(tmp_path, {"closes.json": b"[]"}))


def test_a_member_of_another_kind_than_its_name_says_is_refused(world, tmp_path):
    plan = world.plan(zipped(tmp_path, {"usage-events.csv": MAP}))
    assert plan.rejected[0].reason == "holds customers where usage-events are expected"


def test_a_bundle_of_which_the_first_parts_are_there_brings_the_rest(world, tmp_path):
    """As if it had been killed in between."""
    members = {"customers.csv": MAP, "usage-events.csv": events(tmp_path)}
    (tmp_path / "map.csv").write_bytes(MAP)
    world.bring(tmp_path / "map.csv")
    assert world.bring(zipped(tmp_path, members)).outcome.new == 1


def test_a_bundle_that_no_longer_holds_is_refused_before_its_first_part(world, tmp_path):
    plan = world.plan(zipped(tmp_path, {"customers.csv": MAP, "usage-events.csv": events(tmp_path)}))
    world.bring_lines(line())
    with pytest.raises(BadParameter, match="preview the file again"):
        world.desk.apply(plan, EVERYONE)
    assert world.service.organizations.directory.names(EVERYONE) == {}


def test_nothing_unpacked_is_left_on_disk(world, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    plan = world.plan(zipped(tmp_path, {"usage-events.csv": events(tmp_path)}))
    world.desk.apply(plan, EVERYONE)
    del plan
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_largest_member_is_bounded():
    assert import_bundle.LARGEST_MEMBER >= 10 * 1024**3
