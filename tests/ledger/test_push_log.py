"""The log of pushes, and the one meter a ledger is pushed to."""

from datetime import timedelta

import pytest

from billing_core.errors import SettingsError
from billing_core.ledger.push_log import PushLog
from tests.factories import NOON, ledger_at


@pytest.fixture
def log(tmp_path):
    ledger = ledger_at(tmp_path / "billing.duckdb")
    yield PushLog(ledger.engine)
    ledger.engine.close()


def test_a_ledger_belongs_to_the_meter_it_was_first_pushed_to(log):
    log.bind("mtr_1", livemode=False, keep=True)
    log.bind("mtr_1", livemode=False, keep=True)
    with pytest.raises(SettingsError) as refused:
        log.bind("mtr_2", livemode=False, keep=True)
    assert "\n" not in str(refused.value)
    assert "mtr_1" in str(refused.value)
    assert "mtr_2" in str(refused.value)


def test_the_same_meter_in_the_other_mode_is_another_account(log):
    log.bind("mtr_1", livemode=False, keep=True)
    with pytest.raises(SettingsError, match="livemode True"):
        log.bind("mtr_1", livemode=True, keep=True)


def test_looking_binds_nothing(log):
    log.bind("mtr_1", livemode=False, keep=False)
    log.bind("mtr_2", livemode=False, keep=True)


def test_the_push_log_tells_the_newest_first_and_which_never_ended(log):
    log.start("a", actor="ada", now=NOON)
    log.end("a", now=NOON + timedelta(minutes=1), outcome="done", result='{"sent": 2}', error=None)
    log.start("b", actor="ben", now=NOON + timedelta(hours=1))
    newest, older = log.newest()
    assert (newest.push_id, newest.outcome, newest.ended_at) == ("b", "running", None)
    assert (older.actor, older.outcome, older.result) == ("ada", "done", {"sent": 2})
    assert older.ended_at == NOON + timedelta(minutes=1)
