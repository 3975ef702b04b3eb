"""A backup holds what cannot be read anew, as of one moment; restored, everything is as it was then."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from billing_core.access import Principal, Role
from billing_core.auth.sessions import SessionRegistry
from billing_core.auth.store import Store
from billing_core.auth.tokens import TokenFile
from billing_core.auth.users import UserFile
from billing_core.backups.backup import back_up
from billing_core.backups.restore import restore
from billing_core.cli import main as cli
from billing_core.errors import AccessDenied, BadParameter, NotFound, SettingsError, WarehouseError
from billing_core.exports.hashing_file import HashingSink
from billing_core.ledger.audit_chain import check
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.journal import Ledger
from billing_core.settings import load_settings
from tests.browser.server import DASHBOARD, serving
from tests.examples import examples
from tests.factories import EVERYONE, ledger_at, usage_row
from tests.month_close.world import MonthWorld, trace
from tests.stripe_sync.push.kill_at_step import start_push
from tests.stripe_sync.push_world import World, at, use

ROOT = os.getcwd()
MADE_AT = datetime(2026, 11, 3, 9, tzinfo=UTC)


@dataclass
class Place:
    """Where an installation keeps its files."""

    folder: Path

    @property
    def environment(self):
        return {
            "BILLING_MODE": "live",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{self.folder}/data/billing.duckdb",
            "BILLING_CREDENTIALS": f"{self.folder}/config/credentials.yaml",
            "BILLING_API_TOKENS": f"{self.folder}/config/tokens.json",
        }

    @property
    def settings(self):
        return load_settings(self.environment, env_file=None)

    @property
    def books(self):
        return self.settings.warehouse_path

    def files(self):
        """Name and content of what is there, locks apart."""
        found = (file for file in self.folder.rglob("*") if file.is_file())
        return {str(f.relative_to(self.folder)): f.read_bytes() for f in found if f.suffix not in {".lock", ".waiting"}}


def furnished(folder):
    """An installation with an account, a token, a session and two traces."""
    place = Place(folder)
    (folder / "data").mkdir(parents=True)
    ledger_at(place.books, [usage_row(), usage_row(id="trace-2", customer_id="cus_b")]).engine.close()
    users = UserFile(place.settings.credentials)
    user = users.add("ada", password="correct horse battery", role="finance")
    token = TokenFile(place.settings.api_tokens).add("ci", role="analyst")
    store = Store(place.books.with_name("sessions.sqlite3"))
    session = SessionRegistry(store).create(user, "127.0.0.1")
    store.close()
    return place, token, session


def made(place, path, **more):
    ledger = Ledger(DuckDBEngine(place.books))
    try:
        return back_up(place.settings, ledger, more.get("who", EVERYONE), path, MADE_AT)
    finally:
        ledger.engine.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A backup of a furnished installation, which nobody may change."""
    folder = tmp_path_factory.mktemp("furnished")
    place, token, session = furnished(folder / "old")
    path = folder / "backup.zip"
    return made(place, path), token, session


def test_restored_everything_is_as_it_was(archive, tmp_path):
    done, token, session = archive
    place = Place(tmp_path / "new")
    found = restore(place.settings, done.path)
    assert (found.sha256, found.bytes) == (done.sha256, done.bytes) == (done.sha256, done.path.stat().st_size)
    assert found.manifest.tables == done.manifest.tables
    assert {table.name: table.rows for table in found.manifest.tables}["events"] == 2
    ledger = Ledger(DuckDBEngine(place.books))
    assert [row[0] for row in ledger.engine.rows("SELECT id FROM events ORDER BY id")] == ["trace-1", "trace-2"]
    ledger.engine.close()
    users = UserFile(place.settings.credentials).users()
    assert users["ada"].role is Role.FINANCE
    assert TokenFile(place.settings.api_tokens).authenticate(f"Bearer {token}").name == "token:ci"
    store = Store(place.books.with_name("sessions.sqlite3"))
    assert SessionRegistry(store).check(session, users.get).name == "ada"
    store.close()
    assert {oct(path.stat().st_mode & 0o077) for path in place.folder.rglob("*")} == {"0o0"}


def test_a_backup_is_a_zip_with_a_manifest_and_no_secret(archive):
    done, token, session = archive
    with zipfile.ZipFile(done.path) as opened:
        assert opened.testzip() is None
        manifest = json.loads(opened.read("manifest.json"))
    names = [entry["name"] for entry in manifest["files"]]
    assert names == ["credentials.yaml", "sessions.sqlite3", "tokens.json", "books.duckdb"]
    content = done.path.read_bytes()
    assert token.encode() not in content
    assert session.encode() not in content
    assert done.path.stat().st_mode & 0o777 == 0o600


def test_the_audit_log_names_who_made_it(tmp_path):
    place, *_ = furnished(tmp_path / "old")
    done = made(place, tmp_path / "backup.zip")
    ledger = Ledger(DuckDBEngine(place.books))
    entry = ledger.audit_entries(1)[0]
    ledger.engine.close()
    assert (entry["actor"], entry["action"]) == ("tester", "backup")
    assert done.sha256 in str(entry["detail"])


LIMITED = Principal("al", Role.ADMIN, frozenset({"org_a"}))


@pytest.mark.parametrize("who", [Principal("fay", Role.FINANCE), LIMITED], ids=lambda who: who.name)
def test_a_backup_is_for_admins_who_see_everything(who, archive, tmp_path):
    place, *_ = furnished(tmp_path / "old")
    with pytest.raises(AccessDenied):
        made(place, tmp_path / "backup.zip", who=who)
    assert not (tmp_path / "backup.zip").exists()


def test_what_was_committed_while_the_backup_ran_is_in_it_whole_or_not_at_all(tmp_path):
    place, *_ = furnished(tmp_path / "old")
    ledger = Ledger(DuckDBEngine(place.books))  # as a running dashboard: it writes and never closes
    for number in range(20):
        ledger.audit("before", "note", {"number": number})
    stop = threading.Event()

    def work():
        number = 0
        while not stop.wait(0.01):
            ledger.audit("during", "note", {"number": number})
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    done = subprocess.run(
        [sys.executable, "-m", "billing_core", "backup", str(tmp_path / "backup.zip"), "--json"],
        env={**os.environ, **place.environment, "PYTHONPATH": ROOT},
        capture_output=True,
        check=False,
        timeout=120,
    )
    stop.set()
    worker.join()
    written = ledger.engine.rows("SELECT count(*) FROM audit WHERE actor = 'during'")[0][0]
    ledger.engine.close()
    assert done.returncode == 0, done.stderr
    new = Place(tmp_path / "new")
    restore(new.settings, tmp_path / "backup.zip")
    restored = Ledger(DuckDBEngine(new.books))
    actors = [row[0] for row in restored.engine.rows("SELECT actor FROM audit WHERE action = 'note' ORDER BY seq")]
    numbers = [row[0] for row in restored.engine.rows("SELECT seq FROM audit ORDER BY seq")]
    restored.engine.close()
    assert actors[:20] == ["before"] * 20
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(actors) - 20 <= written


def test_a_closed_month_is_proven_after_a_restore(tmp_path):
    old = Place(tmp_path / "old")
    (tmp_path / "old" / "data").mkdir(parents=True)
    world = MonthWorld(old.books, [trace("a"), trace("b", 6)])
    assert world.close().ok
    world.service.close()
    made(old, tmp_path / "backup.zip")
    new = Place(tmp_path / "new")
    restore(new.settings, tmp_path / "backup.zip")
    again = MonthWorld.__new__(MonthWorld)
    again.service = cli.open_service.__wrapped__(new.settings).__next__()
    again.months = again.service.months
    assert again.verify() == []
    again.service.close()


def test_nothing_is_billed_twice_after_a_backup_from_before_a_push_that_was_killed(tmp_path, stripe):
    places = {"BILLING_CREDENTIALS": str(tmp_path / "none.yaml")}
    (tmp_path / "old").mkdir()
    world = World(tmp_path / "old", stripe, **places)
    world.book(use("a", at(), "150"), use("b", at(-2), "50", "cus_b"), use("c", at(-3), "70", "cus_c"))
    backed = back_up(world.service.settings, world.ledger, EVERYONE, tmp_path / "backup.zip", MADE_AT)
    stripe.fault("after_success_cut", times=2)
    stripe.fault("reset", times=50)
    world.push()
    stripe.no_faults()
    world.close()
    (tmp_path / "new").mkdir()
    again = World(tmp_path / "new", stripe, **places)
    again.close()
    for file in (tmp_path / "new").iterdir():
        file.unlink()
    restore(again.service.settings, backed.path)
    again.reopen()
    for _ in range(3):
        again.push()
    assert stripe.sums() == {"cus_a": 150, "cus_b": 50, "cus_c": 70}
    again.close()


def attached(server):
    """A browser's connection that stays, and answers the server's pings: what a page of the dashboard opens."""
    return connect(server.url.replace("http://", "ws://") + "/_stcore/stream", origin=server.url, open_timeout=60)


def written(path, until=None):
    """The audit log as it lies in the books, and what was written down for Stripe."""
    ledger = Ledger(DuckDBEngine(path))
    audit = ledger.engine.rows("SELECT * FROM audit ORDER BY seq")
    intents = ledger.engine.rows("SELECT * FROM intents ORDER BY identifier")
    broken = check(ledger.audit_chain(), [*ledger.audit_head()]).broken_at
    ledger.engine.close()
    return [row for row in audit if until is None or row[0] <= until], intents, broken


def test_with_people_at_the_dashboard_and_a_push_killed_before_the_audit_log_comes_back_byte_for_byte(tmp_path, stripe):
    config = {"BILLING_CREDENTIALS": str(tmp_path / "users.yaml"), "BILLING_API_TOKENS": str(tmp_path / "tokens.json")}
    UserFile(tmp_path / "users.yaml").add("ada", password="correct horse battery", role="admin")
    token = TokenFile(tmp_path / "tokens.json").add("ci", role="analyst", organizations=("*",))
    (tmp_path / "old").mkdir()
    world = World(tmp_path / "old", stripe, **config, BILLING_COOKIE_KEY="0123456789abcdefghijklmnopqrstuvwxyz")
    world.book(use("a", at(), "150"), use("b", at(-2), "50", "cus_b"), use("c", at(-3), "70", "cus_c"))
    world.close()

    def events(server):
        address = f"{server.url}/api/billing/usage/events"
        return httpx.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=60).json()

    with serving(DASHBOARD, world.environment) as server, attached(server) as line:
        assert events(server)["pagination"]["total_items"] == 3  # the dashboard holds the books from here on
        for step in range(14, 40, 2):  # until it dies with something sent
            push = start_push(world.environment, stripe.now(), kill_at=step)
            push.join(60)
            assert push.exitcode == -signal.SIGKILL
            if stripe.posts():
                break
        done = subprocess.run(
            [sys.executable, "-m", "billing_core", "backup", str(tmp_path / "backup.zip"), "--json"],
            env={**os.environ, **world.environment, "PYTHONPATH": ROOT},
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert events(server)["pagination"]["total_items"] == 3
        assert line.ping().wait(60)  # nobody was thrown out
    new = tmp_path / "new"
    settings = load_settings(
        {
            **world.environment,
            "BILLING_WAREHOUSE_URL": f"duckdb:///{new}/billing.duckdb",
            "BILLING_CREDENTIALS": f"{new}/users.yaml",
            "BILLING_API_TOKENS": f"{new}/tokens.json",
        },
        env_file=None,
    )
    restore(settings, tmp_path / "backup.zip")
    audit, intents, broken = written(new / "billing.duckdb")
    last = max(row[0] for row in audit)
    assert broken is None
    assert (audit, intents) == written(world.path, until=last)[:2]
    assert intents
    again = World.__new__(World)
    again.__dict__.update(world.__dict__, path=new / "billing.duckdb")
    again.environment = {**world.environment, "BILLING_WAREHOUSE_URL": f"duckdb:///{new}/billing.duckdb"}
    again.service = again._service()
    for _ in range(3):
        again.push()
    again.close()
    assert stripe.sums() == {"cus_a": 150, "cus_b": 50, "cus_c": 70}


def test_an_earlier_backup_is_replaced_and_nothing_else_is(tmp_path):
    place, *_ = furnished(tmp_path / "old")
    path = tmp_path / "backup.zip"
    path.touch()  # as `mktemp` leaves it
    made(place, path)
    assert made(place, path).sha256
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as photos:
        photos.writestr("manifest.json", "{}")
    (tmp_path / "letter").write_text("dear")
    theirs = [
        tmp_path / "photos.zip",
        tmp_path / "letter",
        *(file for file in place.folder.rglob("*") if file.is_file()),
    ]
    before = {file: file.read_bytes() for file in theirs}
    for file in (*theirs, place.folder, place.books.with_name("billing.duckdb.wal"), tmp_path / "no" / "where.zip"):
        with pytest.raises(BadParameter, match="path"):
            made(place, file)
    assert {file: file.read_bytes() for file in theirs} == before


def test_a_backup_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    place, *_ = furnished(tmp_path / "old")
    path = tmp_path / "backup.zip"
    before = made(place, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HashingSink, "write", full)
    with pytest.raises(BadParameter, match="No space left"):
        made(place, path)
    monkeypatch.undo()
    assert restore(Place(tmp_path / "new").settings, path).sha256 == before.sha256
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup.zip", "new", "old"]


def test_no_books_are_no_backup(tmp_path):
    place = Place(tmp_path)
    with pytest.raises(NotFound, match="BILLING_WAREHOUSE_URL"):
        made(place, tmp_path / "backup.zip")
    assert not (tmp_path / "backup.zip").exists()


# ── restoring ────────────────────────────────────────────────────────────────────────────────────


OTHERS = (
    "data/billing.duckdb",
    "data/billing.duckdb.wal",
    "data/billing.duckdb.demo-stripe",
    "data/sessions.sqlite3",
    "config/credentials.yaml",
    "config/tokens.json",
)


def test_a_place_that_is_not_empty_is_refused_and_left_alone(archive, tmp_path):
    done, *_ = archive
    for number, name in enumerate(OTHERS):
        place = Place(tmp_path / str(number))
        theirs = place.folder / name
        theirs.parent.mkdir(parents=True)
        theirs.write_text("theirs")
        with pytest.raises(SettingsError, match="is there already"):
            restore(place.settings, done.path)
        assert place.files() == {name: b"theirs"}


def test_books_in_use_are_refused(archive, tmp_path):
    done, *_ = archive
    place = Place(tmp_path / "new")
    engine = DuckDBEngine(place.books)
    engine.rows("SELECT 1")
    place.books.unlink()
    with pytest.raises(SettingsError, match="in use"):
        restore(place.settings, done.path)
    engine.close()


@pytest.mark.parametrize("moved", range(4))
def test_killed_anywhere_the_same_command_ends_it(moved, archive, tmp_path, monkeypatch):
    done, *_ = archive
    place = Place(tmp_path / "new")
    left = moved
    real = Path.replace

    def replace(self, target):
        nonlocal left
        if left == 0:
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # whoever is killed cleans nothing
            raise KeyboardInterrupt
        left -= 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        restore(place.settings, done.path)
    monkeypatch.undo()
    assert not place.books.exists()
    assert len([name for name in place.files() if "restoring" in name]) == 4 - moved
    found = restore(place.settings, done.path)
    assert set(place.files()) == {
        "config/credentials.yaml",
        "config/tokens.json",
        "data/sessions.sqlite3",
        "data/billing.duckdb",
    }
    assert restore(place.settings, done.path) == found  # nothing was opened yet: it is all there already


def test_tokens_need_a_place(archive, tmp_path):
    done, *_ = archive
    environment = {name: value for name, value in Place(tmp_path).environment.items() if "TOKENS" not in name}
    with pytest.raises(SettingsError, match="BILLING_API_TOKENS"):
        restore(load_settings(environment, env_file=None), done.path)
    assert list(tmp_path.iterdir()) == []


def test_settings_under_which_the_books_were_kept_are_told_if_they_differ(archive, tmp_path):
    done, *_ = archive
    environment = {**Place(tmp_path / "new").environment, "BILLING_TIMEZONE": "Europe/Berlin"}
    found = restore(load_settings(environment, env_file=None), done.path)
    assert found.differs == (("BILLING_TIMEZONE", "UTC", "Europe/Berlin"),)


def rewritten(path, target, change, compression=zipfile.ZIP_STORED):
    """The archive with its members and manifest as `change` makes them."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    members = change(members, manifest) or members
    with zipfile.ZipFile(target, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
        out.writestr("manifest.json", manifest if isinstance(manifest, str) else json.dumps(manifest))
    return target


def with_traversal(members, manifest):
    members["../../etc/cron.d/evil"] = b"x"
    manifest["files"].append({"name": "../../etc/cron.d/evil", "bytes": 1, "sha256": "0" * 64})


def without_books(members, manifest):
    del members["books.duckdb"]
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] != "books.duckdb"]


def with_a_member_more(members, manifest):
    members["books.duckdb.wal"] = b"entries nobody wrote"


def with_other_accounts(members, manifest):
    members["credentials.yaml"] = bytes(reversed(members["credentials.yaml"]))


def with_fewer_rows(members, manifest):
    manifest["tables"][3]["rows"] += 1


def of_a_later_version(members, manifest):
    manifest["version"] = 2


def of_later_books(members, manifest):
    manifest["schema_version"] = 9999


def of_another_program(members, manifest):
    manifest["format"] = "photos"


def with_a_wrong_field(members, manifest):
    manifest["files"][0]["bytes"] = "many"


def with_negative_sizes(members, manifest):
    manifest["files"][0]["bytes"] = -1


def with_the_same_twice(members, manifest):
    manifest["files"].append(manifest["files"][0])


HOSTILE = [
    with_traversal,
    without_books,
    with_a_member_more,
    with_other_accounts,
    with_fewer_rows,
    of_a_later_version,
    of_later_books,
    of_another_program,
    with_a_wrong_field,
    with_negative_sizes,
    with_the_same_twice,
]


def refused(path, tmp_path):
    place = Place(tmp_path / "new")
    with pytest.raises(BadParameter) as caught:
        restore(place.settings, path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert place.files() == {}
    return str(caught.value)


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_an_archive_that_is_not_what_it_says_is_refused(change, archive, tmp_path):
    done, *_ = archive
    refused(rewritten(done.path, tmp_path / "hostile.zip", change), tmp_path)


def test_what_is_compressed_or_linked_is_refused(archive, tmp_path):
    done, *_ = archive
    bomb = rewritten(done.path, tmp_path / "bomb.zip", lambda *_: None, zipfile.ZIP_DEFLATED)
    assert "manifest" in refused(bomb, tmp_path) or "stored" in refused(bomb, tmp_path)
    with zipfile.ZipFile(done.path) as source, zipfile.ZipFile(tmp_path / "link.zip", "w") as out:
        for member in source.infolist():
            entry = zipfile.ZipInfo(member.filename)
            entry.create_system = 3
            entry.external_attr = (0o120777 if member.filename == "credentials.yaml" else 0o100600) << 16
            out.writestr(entry, source.read(member))
    assert "not a plain stored file" in refused(tmp_path / "link.zip", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"hello", bytes(5000)], ids=len)
def test_other_files_are_no_backup(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", tmp_path)
    refused(tmp_path / "nowhere", tmp_path)
    refused(tmp_path, tmp_path)


@hypothesis_settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999999), is_cut=st.booleans())
def test_a_damaged_archive_restores_what_was_backed_up_or_nothing(share, is_cut, archive, tmp_path_factory):
    done, *_ = archive
    content = bytearray(done.path.read_bytes())
    where = int(len(content) * share)
    if is_cut:
        content = content[:where]
    else:
        content[where] ^= 0x40
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "backup.zip").write_bytes(content)
    place = Place(folder / "new")
    try:
        restore(place.settings, folder / "backup.zip")
    except BadParameter:
        assert place.files() == {}
    else:
        whole = Place(folder / "whole")
        restore(whole.settings, done.path)
        assert place.files() == whole.files()


def test_the_commands_print_what_the_contract_says(tmp_path, monkeypatch, capsys):
    place, *_ = furnished(tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["backup", "backup.zip", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert cli.main(["export", "--dataset", "usage-events", "--format", "csv", "--out", str(place.books)]) == 2
    assert cli.main(["restore", "backup.zip", "--json"]) == 2
    capsys.readouterr()
    for name, value in Place(tmp_path / "new").environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["restore", "backup.zip", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for key in ("sha256", "bytes", "tables"):
        assert found[key] == made[key]
    assert cli.main(["events", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pagination"]["total_items"] == 2
    ledger = Ledger(DuckDBEngine(Place(tmp_path / "new").books))
    assert ledger.audit_entries(1)[0]["action"] == "restore"
    ledger.engine.close()


def test_entries_that_are_only_in_the_log_are_restored(archive, tmp_path):
    done, *_ = archive
    (tmp_path / "live").mkdir()
    ledger = ledger_at(tmp_path / "live" / "billing.duckdb", [usage_row()])
    ledger.engine.close()
    ledger.audit("late", "note", {})
    books = (tmp_path / "live" / "billing.duckdb").read_bytes()
    log = (tmp_path / "live" / "billing.duckdb.wal").read_bytes()
    rows = [list(row) for row in ledger.engine.rows("SELECT actor FROM audit ORDER BY seq")]
    counts = {
        name: ledger.engine.rows(f"SELECT count(*) FROM {name}")[0][0]
        for (name,) in ledger.engine.rows("SELECT table_name FROM duckdb_tables()")
    }
    ledger.engine.close()

    def as_on_a_full_disk(members, manifest):
        members |= {"books.duckdb": books, "books.duckdb.wal": log}
        files = [entry for entry in manifest["files"] if entry["name"] != "books.duckdb"]
        digests = ((name, hashlib.sha256(members[name]).hexdigest()) for name in ("books.duckdb", "books.duckdb.wal"))
        manifest["files"] = files + [{"name": n, "bytes": len(members[n]), "sha256": digest} for n, digest in digests]
        for table in manifest["tables"]:
            table["rows"] = counts[table["name"]]

    place = Place(tmp_path / "new")
    restore(place.settings, rewritten(done.path, tmp_path / "with_log.zip", as_on_a_full_disk))
    restored = DuckDBEngine(place.books)
    assert [list(row) for row in restored.rows("SELECT actor FROM audit ORDER BY seq")] == rows
    restored.close()


def test_a_backup_on_a_full_disk_is_made_and_told(tmp_path, monkeypatch):
    place, *_ = furnished(tmp_path / "old")

    def full(*_):
        raise WarehouseError("No space left on device")

    monkeypatch.setattr(Ledger, "audit", full)
    assert "No space left" in made(place, tmp_path / "backup.zip").problem
    monkeypatch.undo()
    restore(Place(tmp_path / "new").settings, tmp_path / "backup.zip")


def test_what_the_demonstration_was_sent_is_in_it(tmp_path):
    place, *_ = furnished(tmp_path / "old")
    journal = place.books.with_name("billing.duckdb.demo-stripe")
    journal.write_text("accepted")
    made(place, tmp_path / "backup.zip")
    new = Place(tmp_path / "new")
    restore(new.settings, tmp_path / "backup.zip")
    assert new.files()["data/billing.duckdb.demo-stripe"] == b"accepted"
