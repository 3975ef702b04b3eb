import hashlib
import json
from datetime import UTC, timedelta
from decimal import Decimal

import pytest

from billing_core.errors import RateCardError, SettingsError
from billing_core.ledger.journal import contiguous_end
from billing_core.runtime import clock
from billing_core.settings import Mode
from billing_core.values.usage_frame import Window
from tests.factories import CARD, NOON, ledger_at, usage_row


@pytest.fixture
def ledger(tmp_path):
    made = ledger_at(tmp_path / "billing.duckdb")
    yield made
    made.engine.close()


def run(ledger, start, end, *, incremental=True, outcome="done", name="run"):
    ledger.start_run(name, actor="tester", window=Window(start, end), incremental=incremental)
    ledger.end_run(name, actor="tester", action="pull", values={"outcome": outcome})


def test_a_ledger_belongs_to_demo_or_live_data_for_good(ledger):
    ledger.claim(Mode.LIVE)
    ledger.claim(Mode.LIVE)
    assert ledger.kind() is Mode.LIVE
    with pytest.raises(SettingsError, match="holds live data and BILLING_MODE is demo"):
        ledger.claim(Mode.DEMO)


def test_a_card_is_immutable_once_an_event_names_it(tmp_path):
    ledger = ledger_at(tmp_path / "l.duckdb", [usage_row()])
    edited = CARD.model_copy(update={"credit_price_usd": Decimal(1)})
    with pytest.raises(RateCardError, match=r"builtin-1.*1 event;.*new id"):
        ledger.register_cards([edited], actor="tester")
    assert ledger.card("builtin-1") == CARD
    ledger.engine.close()


def test_a_card_nobody_used_yet_may_be_corrected(ledger):
    edited = CARD.model_copy(update={"credit_price_usd": Decimal(1)})
    ledger.register_cards([edited], actor="tester")
    assert ledger.card("builtin-1") == edited


def test_a_new_id_is_a_new_card(tmp_path):
    ledger = ledger_at(tmp_path / "l.duckdb", [usage_row()])
    other = CARD.model_copy(update={"id": "builtin-2", "credit_price_usd": Decimal(1)})
    ledger.register_cards([CARD, other], actor="tester")
    assert ledger.card("builtin-2") == other
    ledger.engine.close()


def test_nothing_is_covered_before_the_first_pull(ledger):
    assert ledger.covered_until() is None


def test_coverage_ends_where_finished_pulls_end_and_never_in_the_future(ledger):
    run(ledger, NOON, NOON + timedelta(days=1))
    assert ledger.covered_until() == NOON + timedelta(days=1)
    run(ledger, NOON + timedelta(hours=3), clock.now() + timedelta(days=9), outcome="failed", name="b")
    assert ledger.covered_until() == NOON + timedelta(days=1)
    run(ledger, NOON + timedelta(hours=3), clock.now() + timedelta(days=9), name="c")
    assert ledger.covered_until() <= clock.now()


def at(hour):
    return NOON + timedelta(hours=hour)


@pytest.mark.parametrize(
    ("windows", "covered"),
    [
        ([], None),
        ([(0, 5, False)], None),
        ([(0, 5, True)], 5),
        ([(0, 5, True), (3, 9, True)], 9),
        ([(0, 5, True), (7, 9, False)], 5),
        ([(0, 5, True), (7, 9, False), (4, 8, True)], 8),
        ([(0, 5, True), (5, 9, False)], 9),
        ([(0, 5, True), (1, 3, False)], 5),
    ],
)
def test_a_gap_is_never_counted_as_read(windows, covered):
    found = contiguous_end((at(start), at(end), incremental) for start, end, incremental in windows)
    assert found == (None if covered is None else at(covered))


def test_the_run_log_keeps_window_counts_and_outcome(ledger):
    window = Window(NOON, at(1))
    ledger.start_run("r", actor="os:ada", window=window, incremental=True)
    assert ledger.last_runs()[0].outcome == "running"
    ledger.end_run("r", actor="os:ada", action="pull", values={"outcome": "failed", "error": "no route", "api": "v2"})
    newest = ledger.last_runs()[0]
    assert (newest.actor, newest.window, newest.outcome, newest.error, newest.api) == (
        "os:ada",
        window,
        "failed",
        "no route",
        "v2",
    )
    assert newest.ended_at >= newest.started_at


def test_audit_entries_are_chained_by_their_hashes(ledger):
    for number in range(3):
        ledger.audit("os:ada", "test", {"n": number})
    newest, middle, *_ = ledger.audit_entries()
    assert newest["previous_hash"] == middle["hash"]
    text = [
        str(newest["seq"]),
        newest["happened_at"].replace(tzinfo=UTC).isoformat(timespec="microseconds"),
        "os:ada",
        "test",
        newest["detail"],
        newest["previous_hash"],
    ]
    assert newest["hash"] == hashlib.sha256(json.dumps(text).encode()).hexdigest()


def test_card_versions_of_booked_events_are_found_by_id(tmp_path):
    ledger = ledger_at(tmp_path / "l.duckdb", [usage_row(id="a"), usage_row(id="b")])
    assert ledger.versions_of(["a", "x"]) == {"a": "builtin-1"}
    assert ledger.card_versions() == {"builtin-1"}
    ledger.engine.close()
