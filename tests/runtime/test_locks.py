"""Waiting for a lock has an end, and says who holds it."""

import fcntl
import os
import re
import threading

import pytest

from billing_core.errors import WarehouseError
from billing_core.ledger.process_lock import Lease
from billing_core.runtime import locks
from billing_core.runtime.locks import LockHeld, exclusive, holder, is_held
from tests.addresses import UNREACHABLE

NAMED = re.compile(rf"process {os.getpid()} \(.+\) since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


def test_whoever_waits_too_long_learns_which_process_holds_it_and_since_when(tmp_path):
    waited = []
    path = tmp_path / "pull.lock"
    with (
        exclusive(path),
        pytest.raises(LockHeld) as caught,
        exclusive(path, on_wait=lambda: waited.append(1), patience_seconds=0.1),
    ):
        pytest.fail("two hold it")
    assert NAMED.search(str(caught.value))
    assert (caught.value.exit_code, waited) == (3, [1])
    assert "\n" not in str(caught.value)


def test_a_holder_that_lets_go_in_time_is_waited_for(tmp_path):
    path = tmp_path / "push.lock"
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with exclusive(path):
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with exclusive(path, on_wait=let_go.set, patience_seconds=10):
        assert is_held(path)
    thread.join()
    assert not is_held(path)


@pytest.mark.parametrize("note", [b"", b"\xff\x1b[31m", b"x" * 10_000])
def test_a_lock_whose_holder_left_no_name_or_an_odd_one_is_told_in_one_printable_line(tmp_path, note):
    path = tmp_path / "lock"
    path.write_bytes(note)
    handle = os.open(path, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(LockHeld) as caught, exclusive(path, patience_seconds=0):
        pass
    os.close(handle)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_command_is_named_without_arguments_that_may_be_secret(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/billing_core/__main__.py", "pull", "--key", "sk_live_1"])
    assert locks._command() == "billing_core pull"
    monkeypatch.setattr("sys.argv", ["/usr/bin/streamlit", "sk_live-1/2"])
    assert locks._command() == "streamlit"


def test_the_ledgers_lock_names_its_holder_too(tmp_path):
    ledger = tmp_path / "billing.duckdb"
    holding, waiting = (Lease(ledger, lambda: None, patience_seconds=0.2) for _ in range(2))
    with holding.using(), pytest.raises(WarehouseError) as caught, waiting.using():
        pytest.fail("two hold it")
    assert NAMED.search(str(caught.value))
    assert NAMED.search(holder(f"{ledger}.lock"))


def test_a_pull_that_waits_in_vain_is_one_line_and_exit_3(tmp_path, run_command, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.1)
    environment = {
        "LANGFUSE_HOST": UNREACHABLE,
        "LANGFUSE_PUBLIC_KEY": "pk",
        "LANGFUSE_SECRET_KEY": "sk",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/billing.duckdb",
    }
    run_command(environment, "events")
    with exclusive(tmp_path / "billing.duckdb.pull"):
        code, out, err = run_command(environment, "pull", "--from", "2026-11-01", "--to", "2026-11-02", "--json")
    assert (code, out.count("error")) == (3, 1)
    assert NAMED.search(err)
