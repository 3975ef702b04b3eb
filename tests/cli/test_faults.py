"""Whatever breaks, every command ends with one line, a documented exit code and, under --json, one document."""

import argparse
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfoNotFoundError

import duckdb
import httpx
import pyarrow as pa
import pytest

from billing_core.cli import main as cli
from billing_core.errors import UpstreamError
from billing_core.ledger import duckdb_engine
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.sandbox.data.catalog import STRIPE_KEY
from tests.addresses import UNREACHABLE
from tests.bound_by_modes import run_bound
from tests.factories import ledger_at, usage_row
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, FakeLangfuse, observation
from tests.stripe_sync.push_world import Stripe

ROOT = os.getcwd()


def every_command(parser=None, words=()):
    """Each command with the least it needs on its command line; new ones are here by themselves."""
    parser = parser or cli._parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from every_command(below, (*words, name))
            return
    needed = []
    one_of_several = [group._group_actions[0] for group in parser._mutually_exclusive_groups if group.required]
    for action in parser._actions:
        value = next(iter(action.choices)) if action.choices else "1" if action.type is int else "x"
        if not action.option_strings:
            needed.append(value)
        elif action.required or action in one_of_several:
            needed += [action.option_strings[0], value]
    says_json = ["--json"] if "--json" in parser._option_string_actions else []
    yield [*words, *needed, *says_json]


COMMANDS = list(every_command())
WITH_LEDGER = [words for words in COMMANDS if words[0] not in {"sandbox", "bench", "restore"} and words[1] != "list"]


def raised_by(code):
    error = OSError(code, os.strerror(code), "/data/billing.duckdb")
    return pytest.param(error, "/data/billing.duckdb", id=errno.errorcode[code])


FAULTS = [
    *map(raised_by, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE, errno.EFBIG)),
    *map(raised_by, (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENOMEM)),
    pytest.param(OSError(errno.ENOSPC, "No space left on device"), "No space left", id="no name"),
    pytest.param(OSError("an error of a library without a number"), "without a number", id="no number"),
    pytest.param(ConnectionResetError(errno.ECONNRESET, "reset"), "connection", id="connection"),
    pytest.param(duckdb.IOException("IO Error: Could not write file"), "engine", id="duckdb"),
    pytest.param(
        duckdb.OutOfMemoryException("Out of Memory Error:\n\ntoo much"), "out of memory (too much)", id="duckdb memory"
    ),
    pytest.param(duckdb.FatalException("FATAL Error: invalidated"), "engine", id="duckdb fatal"),
    pytest.param(duckdb.ConversionException("Conversion Error"), "engine", id="duckdb data"),
    pytest.param(sqlite3.OperationalError("database or disk is full"), "full", id="sqlite"),
    pytest.param(pa.ArrowMemoryError("malloc of size 1 failed"), "memory", id="arrow memory"),
    pytest.param(UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"), "UTF-8", id="half emoji"),
    pytest.param(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UTF-8", id="bytes"),
    pytest.param(RecursionError("maximum recursion depth exceeded"), "nested", id="depth"),
    pytest.param(MemoryError(), "memory", id="memory"),
    pytest.param(ModuleNotFoundError("No module named 'psutil'", name="psutil"), "psutil", id="package"),
    pytest.param(ZoneInfoNotFoundError("No time zone found with key UTC"), "UTC", id="time zones"),
    pytest.param(httpx.DecodingError("Error -3 while decompressing"), "Langfuse or Stripe", id="httpx"),
    pytest.param(zipfile.BadZipFile("bad magic"), "bad magic", id="zip"),
    pytest.param(UpstreamError("Langfuse answered 502"), "Langfuse answered 502", id="expected"),
    pytest.param(ZeroDivisionError("division by zero"), "ZeroDivisionError", id="unforeseen"),
    pytest.param(ValueError("a text\nof\nmany lines"), "a text of many lines", id="lines"),
]


@pytest.mark.parametrize(("fault", "named"), FAULTS)
def test_whatever_breaks_a_command_says_it_in_one_line(fault, named, monkeypatch, capsys):
    def breaks():
        raise fault

    monkeypatch.setattr(cli, "load_settings", breaks)
    parser = cli._parser()
    monkeypatch.setattr(cli, "_parser", lambda: parser)
    for words in COMMANDS:
        code = cli.main(words)
        said = capsys.readouterr()
        assert code in {2, 3}, words
        assert said.err.startswith("error: "), words
        assert named in said.err
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
        if "--json" in words:
            assert json.loads(said.out) == {"error": said.err.removeprefix("error: ").rstrip("\n")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_every_command_says_so(number, monkeypatch, capsys):
    def stops():
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)
        except KeyboardInterrupt:
            raise RuntimeError("Query interrupted") from None  # as a library makes of it

    monkeypatch.setattr(cli, "load_settings", stops)
    before = signal.getsignal(number)
    for words in COMMANDS:
        assert cli.main(words) == 128 + number
        said = capsys.readouterr()
        assert said.err == "stopped; the ledger is consistent, run the command again to go on\n"
        assert "--json" not in words or list(json.loads(said.out)) == ["error"]
    assert signal.getsignal(number) is before


def test_no_line_repeats_a_secret(monkeypatch, capsys):
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_0123456789")

    def breaks(*_):
        raise ValueError("GET https://ada:hunter2@example.org with rk_test_0123456789 failed")

    monkeypatch.setattr(cli, "_events", breaks)
    assert cli.main(["events"]) == 3
    said = capsys.readouterr().err
    assert "rk_test" not in said
    assert "hunter2" not in said


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A live set-up of its own whose servers nobody can reach."""
    for name in list(os.environ):
        if name.startswith(("LANGFUSE", "STRIPE", "BILLING")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    values = {
        "LANGFUSE_HOST": UNREACHABLE,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-1",
        "STRIPE_API_KEY": "rk_test_1",
        "STRIPE_API_BASE": UNREACHABLE,
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/books/billing.duckdb",
        "BILLING_API_TOKENS": str(tmp_path / "tokens.json"),
        "BILLING_COOKIE_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "books").mkdir()
    return tmp_path


def a_folder(path):
    path.mkdir()


def a_text(path):
    path.write_text("customer;credits\n" * 500)


def a_torn_file(path):
    ledger_at(path, [usage_row()]).engine.close()
    path.write_bytes(path.read_bytes()[:5000])


def a_later_version(path):
    ledger_at(path, [usage_row()]).engine.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '9999' WHERE name = 'schema_version'")


def another_program(path):
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE events (id INTEGER)")


def a_log_alone(path):
    path.with_name(path.name + ".wal").write_bytes(b"entries of a ledger that is gone")


def a_second_name(path):
    ledger_at(path, [usage_row()]).engine.close()
    os.link(path, path.with_name("another name"))


BAD_PLACES = {
    a_folder: (2, "is a folder"),
    a_text: (3, "not a valid DuckDB"),
    a_torn_file: (3, "the ledger"),
    a_later_version: (3, "update the program"),
    another_program: (3, "another program"),
    a_log_alone: (3, "billing.duckdb.wal"),
    a_second_name: (2, "hard links"),
}


@pytest.mark.parametrize("make", BAD_PLACES, ids=lambda make: make.__name__)
def test_a_place_that_holds_no_ledger_is_named_and_left_alone(make, live, capsys, monkeypatch):
    path = live / "books" / "billing.duckdb"
    make(path)
    files = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    code, says = BAD_PLACES[make]
    reached = 0
    for words in WITH_LEDGER:
        ended = cli.main(words)
        said = capsys.readouterr()
        assert ended in {1, 2, 3}, words
        assert "Traceback" not in said.err
        assert "error" in json.loads(said.out), words
        if says in said.err:
            assert ended == code, words
            reached += 1
    assert reached > len(WITH_LEDGER) / 2
    assert not (live / "tokens.json").exists()  # what could not be written down was not done
    assert all(file.read_bytes() == was for file, was in files.items() if not file.name.endswith((".lock", ".waiting")))


@pytest.mark.parametrize("url", ["duckdb:///:memory:", "duckdb:////:memory:", "duckdb:///:memory:books"])
def test_books_that_would_be_gone_with_the_process_are_refused(url, live, capsys, monkeypatch):
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", url)
    for words in COMMANDS:
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert "BILLING_WAREHOUSE_URL" in said.err
        assert "--json" not in words or "BILLING_WAREHOUSE_URL" in json.loads(said.out)["error"]


def test_all_names_of_a_ledger_share_what_lies_beside_it(live, monkeypatch, capsys):
    (live / "links").mkdir()
    (live / "links" / "to_file").symlink_to(live / "books" / "billing.duckdb")
    (live / "links" / "to_link").symlink_to("to_file")
    (live / "links" / "to_folder").symlink_to(live / "books")
    for name in ("to_file", "to_link", "to_folder/billing.duckdb", "../links/to_link"):
        monkeypatch.setenv("BILLING_WAREHOUSE_URL", f"duckdb:///links/{name}")
        assert cli.load_settings().warehouse_path == live / "books" / "billing.duckdb"
        assert cli.main(["stats", "--json"]) == 0
    assert sorted(file.name for file in (live / "links").iterdir()) == ["to_file", "to_folder", "to_link"]
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", "duckdb:///books/billing.duckdb")
    assert str(cli.load_settings().warehouse_path) == "books/billing.duckdb"  # no link: as it was written


def test_what_is_created_is_for_this_account_only_whatever_the_umask(live, capsys, monkeypatch):
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", "duckdb:///new/books/billing.duckdb")
    monkeypatch.setenv("BILLING_CREDENTIALS", "new/config/credentials.yaml")
    before = os.umask(0)
    try:
        assert cli.main(["tokens", "add", "ci", "--role", "analyst"]) == 0
        assert cli.main(["export", "--dataset", "usage-events", "--format", "csv", "--out", "usage.csv"]) == 0
        assert cli.main(["pull"]) == 3
        engine = DuckDBEngine(live / "further" / "billing.duckdb")
        with engine.transaction() as writer:
            writer.insert("meta", {"name": "a", "value": "b"})
        modes = {p: p.stat().st_mode & 0o777 for p in live.rglob("*") if p != live / "books"}
        engine.close()
    finally:
        os.umask(before)
    assert {"usage.csv", "tokens.json", "billing.duckdb", "billing.duckdb.wal", "billing.duckdb.lock"} <= {
        path.name for path in modes
    }
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def test_a_ledger_that_could_not_be_begun_is_no_ledger(live, capsys, monkeypatch):
    real = duckdb.connect

    def full(path, **options):
        Path(path).touch()
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr(duckdb, "connect", full)
    assert cli.main(["stats", "--json"]) == 3
    assert "No space left" in json.loads(capsys.readouterr().out)["error"]
    monkeypatch.setattr(duckdb, "connect", real)
    assert not (live / "books" / "billing.duckdb").exists()
    (live / "books" / "billing.duckdb").touch()  # as an earlier version left it
    assert cli.main(["stats", "--json"]) == 0


def started(live, *words, before=(), **options):
    environment = {**os.environ, "PYTHONPATH": ROOT, **options.pop("env", {})}
    return subprocess.run(
        [*before, sys.executable, "-m", "billing_core", *words],
        env=environment,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
        **options,
    )


def files_up_to(size):
    """Words before a command: no file of it may grow beyond the size in bytes.

    Set by a process of its own: `preexec_fn` would fork this one, which late in a run is larger than the memory free.
    """
    limited = (
        "import os, resource, sys; size = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))"
    )
    return sys.executable, "-c", f"{limited}; os.execv(sys.argv[2], sys.argv[2:])", str(size)


@pytest.mark.parametrize(("limit", "count"), [(20_000, 400), (100, 2)], ids=["while it writes", "as it ends"])
def test_a_full_disk_is_one_line_and_files_stay_as_they_were(limit, count, live):
    rows = [usage_row(id=f"trace-{n}", customer_id=f"cus_{n}") for n in range(count)]
    ledger_at(live / "books" / "billing.duckdb", rows).engine.close()
    (live / "usage.csv").write_text("the export of last month")
    words = ("export", "--dataset", "usage-events", "--format", "csv", "--out", "usage.csv", "--json")
    done = started(live, *words, stdout=subprocess.PIPE, before=files_up_to(limit))
    assert done.returncode == 2
    assert b"usage.csv" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert list(json.loads(done.stdout)) == ["error"]
    assert (live / "usage.csv").read_text() == "the export of last month"
    assert not list(live.glob(".*.part"))


def test_a_reader_that_leaves_changes_nothing_and_a_full_output_is_told(live):
    (live / "rows.csv").write_text("nonsense\n1\n")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = started(live, "import", "rows.csv", "--json", stdout=pipe)
    assert done.returncode == 2  # what the import ended with, not that nobody read it
    assert b"Traceback" not in done.stderr
    with Path("/dev/full").open("wb") as full:
        done = started(live, "stats", "--json", stdout=full)
    assert done.returncode == 3
    assert done.stderr == b"error: standard output: No space left on device; the answer could not be written\n"


def test_closed_streams_are_nobodys_ledger(live):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m billing_core stats --json <&- >&- 2>&-"],
        env={**os.environ, "PYTHONPATH": ROOT},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    DuckDBEngine(live / "books" / "billing.duckdb").close()


def test_json_suits_every_terminal_and_arguments_are_utf8(live):
    rows = [usage_row(id="ünïcode-😀", user_id="Зоя")]
    ledger_at(live / "books" / "billing.duckdb", rows).engine.close()
    terminal = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = started(live, "events", "--json", "--user", "Зоя", stdout=subprocess.PIPE, env=terminal)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert [event["id"] for event in json.loads(done.stdout)["events"]] == ["ünïcode-😀"]


def test_bench_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda package: None if package == "psutil" else object())
    assert cli.main(["bench", "--json"]) == 2
    said = capsys.readouterr()
    assert (
        said.err
        == "error: bench: psutil not installed; run `make bench`, or `pip install -r requirements-dev.txt` first\n"
    )
    assert "psutil" in json.loads(said.out)["error"]


RUN_ALL = """
import contextlib, io, json, sys
from billing_core.cli import main as cli
ends = []
for words in json.loads(sys.argv[1]):
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = cli.main(words)
    ends.append([words, code, said.getvalue(), complained.getvalue()])
print(json.dumps(ends))
"""


@pytest.mark.parametrize("closed", [0o500, 0], ids=["read only", "no access"])
def test_a_folder_that_is_closed_to_this_account_is_one_line_and_nothing_changes(closed, live):
    books = live / "books"
    ledger_at(books / "billing.duckdb", [usage_row()]).engine.close()
    kept = {file: file.read_bytes() for file in books.iterdir()}
    for file in books.iterdir():
        file.chmod(0o400)
    books.chmod(closed)
    commands = WITH_LEDGER if closed else WITH_LEDGER[::4]
    done = run_bound(RUN_ALL, json.dumps(commands))
    books.chmod(0o700)
    assert done.returncode == 0, done.stderr
    named = 0
    for words, code, said, complained in json.loads(done.stdout):
        assert code in {2, 3}, (words, complained)
        assert "Traceback" not in complained
        assert complained.count("\n") == 1, (words, complained)
        assert "error" in json.loads(said), words
        named += str(books) in complained and "Permission denied" in complained
    assert named > len(commands) / 2
    assert {file: file.read_bytes() for file in books.iterdir()} == kept


PULL = ["pull", "--from", "2026-11-01", "--to", "2026-11-02", "--json"]


def test_an_engine_that_runs_out_of_memory_is_one_line_and_the_ledger_stays_whole(live, capsys, monkeypatch):
    """At every size of memory a command does its work or says that it could not: never a part of it."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    facts = [usage_row(id=f"trace-{n:05}" + "x" * 150, timestamp=start + timedelta(seconds=n)) for n in range(4000)]
    ledger_at(live / "books" / "billing.duckdb", facts).engine.close()
    before = live / "before.duckdb"
    before.write_bytes((live / "books" / "billing.duckdb").read_bytes())
    (live / "usage.csv").write_text("the export of last month")
    export = ["export", "--dataset", "usage-events", "--format", "csv", "--out", "usage.csv", "--json"]
    langfuse, stripe = FakeLangfuse(), Stripe()
    langfuse.rows = [
        observation("o" * 40, f"new-{n}" + "y" * 200, "2026-11-01T12:00:00.000Z", usageDetails={"input": 10})
        for n in range(900)
    ]
    stripe.start()
    stripe.switch(extra_customers=[usage_row()["customer_id"]])
    monkeypatch.setenv("LANGFUSE_HOST", langfuse.url)
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("STRIPE_API_BASE", stripe.url)
    monkeypatch.setenv("STRIPE_API_KEY", STRIPE_KEY)
    ends = set()
    try:
        for megabytes in (1, 4, 4000):
            for words in (["events", "--json", "--sort", "user_id"], export, ["push", "--dry-run", "--json"], PULL):
                shutil.copy(before, live / "books" / "billing.duckdb")
                monkeypatch.setattr(duckdb_engine, "MEMORY_LIMIT", f"{megabytes}MB")
                code = cli.main(words)
                said = capsys.readouterr()
                ends.add((words[0], code))
                monkeypatch.setattr(duckdb_engine, "MEMORY_LIMIT", "4GB")
                with closing(DuckDBEngine(live / "books" / "billing.duckdb")) as engine:
                    [[held]] = engine.rows("SELECT count(*) FROM events")
                if code == 3:
                    assert said.err.count("\n") == 1, said.err
                    assert "out of memory" in said.err
                    assert "ask for less at once" in said.err
                    assert list(json.loads(said.out)) == ["error"]
                    assert held == len(facts)
                    assert words is not export or (live / "usage.csv").read_text() == "the export of last month"
                else:
                    assert code in {0, 1}, said.err
                    assert held == len(facts) + (len(langfuse.rows) if words is PULL else 0)
                (live / "usage.csv").write_text("the export of last month")
    finally:
        langfuse.close()
        stripe.stop()
    assert {(command, 3) for command in ("events", "export", "pull")} <= ends
    assert {command for command, code in ends if code in {0, 1}} == {"events", "export", "push", "pull"}
