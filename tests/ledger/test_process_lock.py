"""Two real processes on one ledger file: nobody sees a lock error, nothing is lost."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import duckdb
import pytest

from billing_core.errors import WarehouseError
from billing_core.ledger.duckdb_engine import DuckDBEngine
from tests.factories import ledger_at

pytestmark = pytest.mark.slow


def child(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )


WRITER = """
    import sys
    from pathlib import Path
    from tests.factories import events_table, ledger_at, usage_row
    ledger = ledger_at(Path(sys.argv[1]))
    print("ready", flush=True)
    for batch in range(int(sys.argv[3])):
        rows = [usage_row(id=f"{sys.argv[2]}-{batch}-{n}") for n in range(20)]
        ledger.book(events_table(rows), run_id=sys.argv[2])
    ledger.engine.close()
"""


def count(engine):
    return engine.rows("SELECT count(*), count(DISTINCT id) FROM events")[0]


def test_a_dashboard_reads_on_while_two_commands_write(tmp_path):
    path = tmp_path / "billing.duckdb"
    dashboard = ledger_at(path).engine
    writers = [child(WRITER, path, name, 15) for name in ("a", "b")]
    seen = []
    writers[0].stdout.readline()  # it has begun to write; what it imports before needs no reader
    while any(w.poll() is None for w in writers):
        seen.append(count(dashboard)[0])
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr.read()
    assert count(dashboard) == (600, 600)
    assert seen == sorted(seen)
    dashboard.close()


def test_an_idle_dashboard_hands_the_file_over_without_being_asked_anything(tmp_path):
    path = tmp_path / "billing.duckdb"
    dashboard = ledger_at(path).engine
    assert count(dashboard) == (0, 0)
    writer = child(WRITER, path, "a", 1)
    assert writer.wait(60) == 0, writer.stderr.read()
    assert count(dashboard) == (20, 20)
    dashboard.close()


def test_busy_threads_of_a_dashboard_do_not_starve_a_command(tmp_path):
    path = tmp_path / "billing.duckdb"
    dashboard = ledger_at(path).engine
    stop, failures = threading.Event(), []

    def read():
        try:
            while not stop.is_set():
                dashboard.rows("SELECT count(*) FROM range(2000000) r(i) WHERE i % 7 = 1")
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer = child(WRITER, path, "a", 3)
    try:
        assert writer.wait(60) == 0, writer.stderr.read()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert count(dashboard) == (60, 60)
    dashboard.close()


def test_a_killed_writer_leaves_the_ledger_usable_and_whole(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger_at(path).engine.close()
    writer = child(WRITER, path, "a", 10_000)
    assert writer.stdout.readline() == "ready\n"
    reader = DuckDBEngine(path)
    deadline = time.monotonic() + 30
    while count(reader)[0] < 40 and time.monotonic() < deadline:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    rows, distinct = count(reader)
    assert rows == distinct >= 40
    assert rows % 20 == 0, "a batch is booked whole or not at all"
    reader.close()


def test_a_program_that_never_hands_over_is_named_after_the_patience(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger_at(path).engine.close()
    holder = child(
        """
        import sys, duckdb
        connection = duckdb.connect(sys.argv[1])
        print("ready", flush=True)
        import time
        time.sleep(60)
        """,
        path,
    )
    try:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(WarehouseError, match=r"billing\.duckdb"):
            DuckDBEngine(path, patience_seconds=0.3).rows("SELECT 1")
    finally:
        holder.kill()
        holder.wait()


def test_a_stranger_who_leaves_in_time_is_waited_for(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger_at(path).engine.close()
    stranger = duckdb.connect(str(path))
    threading.Timer(0.3, stranger.close).start()
    reader = child(
        """
        import sys
        from pathlib import Path
        from billing_core.ledger.duckdb_engine import DuckDBEngine
        print(DuckDBEngine(Path(sys.argv[1])).rows("SELECT 41 + 1"))
        """,
        path,
    )
    assert reader.wait(60) == 0, reader.stderr.read()
    assert reader.stdout.read() == "[(42,)]\n"


def test_statements_of_one_thread_may_nest(tmp_path):
    engine = ledger_at(tmp_path / "billing.duckdb").engine
    with engine.transaction():
        assert engine.rows("SELECT 1") == [(1,)]
    engine.close()
