"""The audit log through the door: who may read it, what is found in it, what leaves, and what a proof says."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from billing_core.access import Principal, Role
from billing_core.audit.service import AuditQuery, AuditService
from billing_core.errors import AccessDenied, BadParameter
from billing_core.ledger.audit_chain import entry_hash
from tests.factories import EVERYONE, ledger_at

FINANCE = Principal("fay", Role.FINANCE)
ONLY_A = Principal("ada", Role.ADMIN, frozenset({"org_a"}))


@pytest.fixture
def ledger(tmp_path):
    """A log of five entries: the rate card's and four more."""
    ledger = ledger_at(tmp_path / "billing.duckdb")
    ledger.audit("ann", "pull", {"events_new": 3})
    ledger.audit("ben", "push", {"sent": 2, "note": "100% of_it"})
    ledger.audit("ann", "sign-in", {"detail": "from 127.0.0.1"})
    ledger.audit("=ann", "push", {"sent": 0, "note": "Über"})
    yield ledger
    ledger.engine.close()


@pytest.fixture
def desk(ledger):
    return AuditService(ledger, ZoneInfo("Europe/Berlin"))


def numbers(desk, **query):
    return [entry.seq for entry in desk.page(EVERYONE, AuditQuery(**query)).entries]


def change(ledger, statement, values=()):
    with ledger.engine.transaction() as writer:
        writer.rows(statement, values)


def times(ledger, **by_number):
    """Entries at given times; the chain does not matter to the filter."""
    for name, time in by_number.items():
        change(ledger, "UPDATE audit SET happened_at = ? WHERE seq = ?", [time, int(name[1:])])


@pytest.mark.parametrize("who", [FINANCE, ONLY_A], ids=lambda who: who.name)
def test_only_admins_who_see_everything_may_read_prove_or_take_it_out(desk, ledger, who):
    for ask in (desk.page, desk.csv):
        with pytest.raises(AccessDenied):
            ask(who, AuditQuery())
    with pytest.raises(AccessDenied):
        desk.verify(who)
    assert len(ledger.audit_entries()) == 5


def test_the_newest_entry_comes_first_and_says_who_when_what_and_which_hash(desk, ledger):
    page = desk.page(EVERYONE, AuditQuery(limit=2))
    assert [(e.seq, e.actor, e.action) for e in page.entries] == [(5, "=ann", "push"), (4, "ann", "sign-in")]
    newest = page.entries[0]
    assert newest.happened_at.tzinfo is UTC
    assert json.loads(newest.detail) == {"sent": 0, "note": "Über"}
    assert newest.previous_hash == page.entries[1].hash
    assert page.total_items == 5


def test_pages_follow_each_other_and_the_filter_offers_everybody_whatever_is_chosen(desk):
    assert numbers(desk, limit=2, page=2) == [3, 2]
    assert numbers(desk, limit=2, page=9) == []
    page = desk.page(EVERYONE, AuditQuery(actor=("ben",)))
    assert (page.actors, page.actions) == (("=ann", "ann", "ben", "tester"), ("pull", "push", "rate_card", "sign-in"))
    assert page.total_items == 1


def test_filters_are_anded_and_values_of_one_are_ored(desk):
    assert numbers(desk, actor=("ann", "ben")) == [4, 3, 2]
    assert numbers(desk, action=("push",)) == [5, 3]
    assert numbers(desk, actor=("ann", "ben"), action=("push",)) == [3]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("EVENTS_new", [2]),
        ("100% of_it", [3]),
        ("%", [3]),
        ("of.it", []),
        ("sign-IN", [4]),
        ("über", [5]),
        ("ÜBER", [5]),
        ('"sent": 2', [3]),
        ("  ", [5, 4, 3, 2, 1]),
    ],
)
def test_the_search_looks_into_everything_case_blind_and_knows_no_patterns(desk, text, found):
    assert numbers(desk, search=text) == found


def test_times_are_half_open_and_without_an_offset_in_the_reporting_timezone(desk, ledger):
    times(ledger, n2=datetime(2026, 11, 1, 22, 59, 59), n3=datetime(2026, 11, 1, 23), n4=datetime(2026, 11, 2, 23))
    window = {"start": datetime(2026, 11, 2), "end": datetime(2026, 11, 3)}
    assert numbers(desk, **window) == [3]
    assert numbers(desk, start=datetime(2026, 11, 1, 22, 59, 59, tzinfo=UTC), end=window["end"]) == [3, 2]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"page": 0}, "page"),
        ({"search": "a\0b"}, "search"),
        ({"start": datetime(2026, 11, 2), "end": datetime(2026, 11, 2)}, "to"),
    ],
)
def test_what_is_not_accepted_is_named(desk, query, named):
    with pytest.raises(BadParameter) as caught:
        desk.page(EVERYONE, AuditQuery(**query))
    assert caught.value.parameter == named


def test_a_log_as_it_was_written_is_proven(desk):
    found = desk.verify(EVERYONE)
    assert (found.ok, found.entries, found.broken_at) == (True, 5, None)


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit SET detail = '{}' WHERE seq = 3", 3),
        ("UPDATE audit SET actor = 'eve' WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("UPDATE audit SET seq = 9 WHERE seq = 5", 5),
        ("INSERT INTO audit SELECT * FROM audit WHERE seq = 3", 4),
        ("UPDATE audit SET seq = NULL WHERE seq = 5", 5),
        ("UPDATE audit SET happened_at = NULL WHERE seq = 2", 2),
    ],
)
def test_what_was_done_to_the_table_is_found(desk, ledger, statement, broken_at):
    change(ledger, statement)
    found = desk.verify(EVERYONE)
    assert (found.ok, found.broken_at) == (False, broken_at)


def test_entries_that_a_month_was_closed_with_cannot_be_cut_off(desk, ledger):
    newest = ledger.audit_entries(1)[0]
    manifest = json.dumps({"audit_head": {"seq": 5, "hash": newest["hash"]}})
    change(
        ledger,
        "INSERT INTO closes (seq, period, start_at, end_at, manifest) VALUES (1, '2026-10', ?, ?, ?)",
        [datetime(2026, 10, 1), datetime(2026, 11, 1), manifest],
    )
    assert desk.verify(EVERYONE).ok
    change(ledger, "DELETE FROM audit WHERE seq >= 4")
    found = desk.verify(EVERYONE)
    assert (found.ok, found.broken_at) == (False, 4)
    assert "the close of 2026-10 knows entry 5" in found.says


@pytest.mark.parametrize(
    "manifest", [None, "", "no json", "[]", "{}", '{"audit_head": {}}', '{"audit_head": {"seq": 0, "hash": "x"}}']
)
def test_a_manifest_that_knows_nothing_of_the_log_proves_nothing_about_it(desk, ledger, manifest):
    change(
        ledger,
        "INSERT INTO closes (seq, period, start_at, end_at, manifest) VALUES (1, '2026-10', ?, ?, ?)",
        [datetime(2026, 10, 1), datetime(2026, 11, 1), manifest],
    )
    assert desk.verify(EVERYONE).ok


def test_the_csv_is_enough_to_follow_the_chain_elsewhere(desk, ledger, monkeypatch):
    monkeypatch.setattr("billing_core.ledger.audit_log.READ_AT_ONCE", 2)
    rows = list(csv.DictReader(io.StringIO(b"".join(desk.csv(EVERYONE, AuditQuery(page=7, limit=1))).decode())))
    assert [row["seq"] for row in rows] == ["1", "2", "3", "4", "5"]
    previous = "0" * 64
    for row in rows:
        at = datetime.fromisoformat(row["happened_at"])
        actor = row["actor"].removeprefix("'")  # a spreadsheet must not take it for a formula
        assert row["previous_hash"] == previous
        assert row["hash"] == entry_hash(int(row["seq"]), at, actor, row["action"], row["detail"], previous)
        previous = row["hash"]
    assert rows[4]["actor"] == "'=ann"


def test_that_the_log_was_taken_out_is_in_the_log_and_not_in_the_file(desk, ledger):
    head = ledger.audit_entries(1)[0]["hash"]
    document = b"".join(desk.csv(EVERYONE, AuditQuery(action=("push",)))).decode()
    assert len(document.splitlines()) == 3
    newest = ledger.audit_entries(1)[0]
    assert (newest["actor"], newest["action"]) == ("tester", "export")
    assert json.loads(newest["detail"]) == {
        "dataset": "audit-log",
        "format": "csv",
        "filter": {"action": ["push"]},
        "rows": 2,
        "head": head,
    }
    assert desk.verify(EVERYONE).ok
