"""A closed month is frozen: what comes or changes later counts in the open month, and every edit is found."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role, scope_of
from billing_core.errors import BadParameter
from billing_core.ledger.closes import CloseStore
from billing_core.ledger.directory import DirectoryStore, Line
from billing_core.ledger.queries import Selection
from billing_core.ledger.sync import SyncStore
from billing_core.ledger.verification import HASHED_COLUMNS, unbooked
from billing_core.rating.events import Policy
from billing_core.types import GetUsageEventsParams
from tests.examples import examples
from tests.factories import EVERYONE, events_table, service_over, usage_row

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 2, tzinfo=UTC)
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A ledger in November, whatever the day: what comes late counts in the month it is booked in."""
    made = service_over(tmp_path / "billing.duckdb", [trace("a"), trace("b"), usage_row(id="open")])
    monkeypatch.setattr(made._ledger.engine, "_clock", lambda: NOW)
    yield made
    made.close()


def trace(trace_id, **facts):
    """150 credits in October unless `facts` say otherwise."""
    return usage_row(id=trace_id, timestamp=facts.pop("timestamp", NOON), **facts)


def book(service, *rows):
    service._ledger.book(events_table(rows), run_id="test")


def close(service, window=OCTOBER, period="2026-10", now=NOW):
    ledger = service._ledger
    selection = Selection(scope_of(EVERYONE), ledger.snapshot(), *window)
    return CloseStore(ledger.engine).close(
        selection, lambda seq, sets, head: ("{}", "0" * 64), period=period, timezone="UTC", actor="fay", now=now
    )


def shown(service, window=None, who=EVERYONE, **more):
    asked = {} if window is None else {"from": window[0], "to": window[1]}
    params = GetUsageEventsParams.parse({**asked, "sort": "timestamp", "order": "asc", "limit": 1000, **more})
    events = service.get_usage_events(params, who).events
    return sorted((e.id, f"{e.credits.total.normalize():f}", "late_after_close" in e.flags) for e in events)


def credits_of(service, window=None):
    asked = {} if window is None else {"from": window[0], "to": window[1]}
    return service.get_usage_events(GetUsageEventsParams.parse(asked), EVERYONE).totals.credits.total


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


def test_a_late_trace_counts_in_the_open_month_with_its_own_time(service):
    close(service)
    book(service, trace("late"))
    assert shown(service, OCTOBER) == [("a", "150", False), ("b", "150", False)]
    assert shown(service, NOVEMBER) == [("late", "150", True), ("open", "150", False)]
    late = service.get_usage_events(GetUsageEventsParams(**{"from": NOVEMBER[0], "search": "late"}), EVERYONE).events
    assert [event.timestamp for event in late] == [NOON]


def test_a_changed_trace_is_taken_back_and_booked_anew_in_the_open_month(service):
    close(service)
    book(service, trace("a", latency_seconds=120))
    assert shown(service, OCTOBER) == [("a", "150", False), ("b", "150", False)]
    assert shown(service, NOVEMBER) == [("a", "-150", True), ("a", "200", True), ("open", "150", False)]
    assert credits_of(service) == credits_of(service, OCTOBER) + credits_of(service, NOVEMBER) == Decimal(500)


def test_what_changes_again_replaces_the_correction_while_the_month_is_open(service):
    close(service)
    book(service, trace("a", latency_seconds=120))
    book(service, trace("a", latency_seconds=180))
    assert shown(service, NOVEMBER) == [("a", "-150", True), ("a", "250", True), ("open", "150", False)]


def test_a_correction_of_a_correction_takes_back_only_the_newest_frozen_state(service):
    close(service)
    book(service, trace("a", latency_seconds=120))
    with service._ledger.engine.transaction() as writer:  # as if it had been booked in November
        writer.rows("UPDATE events SET accounted_at = TIMESTAMP '2026-11-10' WHERE id = 'a'")
        writer.advance("test")
    close(service, NOVEMBER, "2026-11", NOW + timedelta(days=30))
    book(service, trace("a", latency_seconds=240))
    assert shown(service, NOVEMBER) == [("a", "-150", True), ("a", "200", True), ("open", "150", False)]
    after = (datetime(2026, 12, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    with service._ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET accounted_at = TIMESTAMP '2026-12-05' WHERE id = 'a'")
        writer.advance("test")
    assert shown(service, after) == [("a", "-200", True), ("a", "300", True)]
    assert credits_of(service) == Decimal(150 + 300 + 150)


def test_a_trace_that_moves_to_another_organization_is_taken_back_from_the_first(service):
    close(service)
    book(service, trace("a", organization_id="org_b"))
    of_a = Principal("ann", Role.ANALYST, frozenset({"org_a"}))
    of_b = Principal("bob", Role.ANALYST, frozenset({"org_b"}))
    assert shown(service, NOVEMBER, of_a) == [("a", "-150", True), ("open", "150", False)]
    assert shown(service, NOVEMBER, of_b) == [("a", "150", True)]


def test_a_trace_whose_beginning_moves_out_of_the_closed_month_counts_when_it_began(service):
    close(service)
    book(service, trace("a", timestamp=datetime(2026, 11, 1, 1, tzinfo=UTC)))
    assert shown(service, NOVEMBER) == [("a", "-150", True), ("a", "150", True), ("open", "150", False)]


def test_the_status_of_a_closed_month_stays_and_the_ledger_goes_on(service):
    close(service)
    with service._ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'processed'")
        writer.advance("push")
    asked = GetUsageEventsParams(**{"from": OCTOBER[0], "to": OCTOBER[1]})
    assert {e.sync_status.value for e in service.get_usage_events(asked, EVERYONE).events} == {"pending"}
    assert shown(service, OCTOBER, status=["processed"]) == []
    assert service._ledger.engine.rows("SELECT DISTINCT sync_status FROM events") == [("processed",)]


def test_pages_asked_before_the_close_stay_what_they_were(service):
    before = service.version()
    close(service)
    book(service, trace("late"), trace("a", latency_seconds=120))
    assert shown(service, OCTOBER, as_of=before) == [("a", "150", False), ("b", "150", False)]
    assert shown(service, NOVEMBER, as_of=before) == [("open", "150", False)]


def test_days_charts_and_totals_of_an_open_month_tie_out_with_what_came_late(service):
    close(service)
    book(service, trace("late"), trace("a", latency_seconds=120))
    for window in (OCTOBER, NOVEMBER, None):
        asked = {} if window is None else {"from": window[0], "to": window[1]}
        summary = service.summary(GetUsageEventsParams.parse(asked), EVERYONE)
        assert summary.ties_out
        assert sum(day.totals.credits.total for day in summary.days) == credits_of(service, window)


def test_a_reopened_month_has_its_late_usage_in_its_own_time(service):
    frozen = close(service)
    book(service, trace("late"), trace("a", latency_seconds=120))
    CloseStore(service._ledger.engine).reopen(frozen, actor="fay", reason="wrong card", now=NOW)
    assert shown(service, OCTOBER) == [("a", "200", False), ("b", "150", False), ("late", "150", False)]
    assert shown(service, NOVEMBER) == [("open", "150", False)]
    close(service)
    assert shown(service, OCTOBER) == [("a", "200", False), ("b", "150", False), ("late", "150", False)]


def test_only_the_month_that_was_closed_last_can_be_reopened(service):
    october = close(service)
    close(service, NOVEMBER, "2026-11")
    with pytest.raises(BadParameter, match="2026-11 was closed after it"):
        CloseStore(service._ledger.engine).reopen(october, actor="fay", reason="x", now=NOW)


def test_months_of_two_timezones_do_not_overlap(service):
    close(service)
    berlin = (datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 30, 23, tzinfo=UTC))
    with pytest.raises(BadParameter, match="2026-10 was closed in UTC"):
        close(service, berlin, "2026-11")


def test_a_ledger_that_changed_since_it_was_checked_is_not_closed(service):
    selection = Selection(scope_of(EVERYONE), service._ledger.snapshot(), *OCTOBER)
    book(service, trace("late"))
    with pytest.raises(BadParameter, match="at rest"):
        CloseStore(service._ledger.engine).close(
            selection, lambda *_: ("", ""), period="2026-10", timezone="UTC", actor="fay", now=NOW
        )
    assert service._ledger.engine.rows("SELECT count(*) FROM closed_events") == [(0,)]


latencies = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.sampled_from("abcd"), latencies, st.sampled_from(["org_a", "org_b"])),
        st.tuples(st.just("close"), st.sampled_from(["2026-09", "2026-10"])),
        st.tuples(st.just("reopen")),
    ),
    max_size=6,
)


@pytest.mark.slow
@given(steps)
@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_booked_closed_and_reopened_all_windows_add_up_to_what_is_known(tmp_path_factory, steps):
    """Nothing is lost, nothing counts twice, and a closed month never moves."""
    service = service_over(tmp_path_factory.mktemp("ledger") / "billing.duckdb")
    windows = {"2026-09": (datetime(2026, 9, 1, tzinfo=UTC), OCTOBER[0]), "2026-10": OCTOBER}
    frozen, book_of = {}, CloseStore(service._ledger.engine)
    try:
        for step in steps:
            match step:
                case ("book", name, minutes, organization):
                    day = datetime(2026, 9 if name in "ab" else 10, 9, tzinfo=UTC)
                    book(
                        service, trace(name, timestamp=day, latency_seconds=minutes * 60, organization_id=organization)
                    )
                case ("close", period) if book_of.of(period) is None:
                    close(service, windows[period], period)
                    frozen[period] = (shown(service, windows[period]), credits_of(service, windows[period]))
                case ("reopen",) if counting := [one for one in book_of.all() if one.counts]:
                    book_of.reopen(counting[-1], actor="fay", reason="x", now=NOW)
                    del frozen[counting[-1].period]
            for period, state in frozen.items():
                assert (shown(service, windows[period]), credits_of(service, windows[period])) == state
        known = service._ledger.engine.rows("SELECT coalesce(sum(credits_total), 0) FROM events")[0][0]
        rest = (OCTOBER[1], datetime(2100, 1, 1, tzinfo=UTC))
        assert credits_of(service) == known == sum(credits_of(service, one) for one in (*windows.values(), rest))
        assert [book_of.tampered(book_of.of(period)) for period in frozen] == [[] for _ in frozen]
        assert list(unbooked(service._ledger.engine.rows)) == []
    finally:
        service.close()


# ── what is proved ───────────────────────────────────────────────────────────────────────────────


def edited(service, close_row, statement):
    with service._ledger.engine.transaction() as writer:
        writer.rows(statement)
    book_of = CloseStore(service._ledger.engine)
    return [one.says for one in book_of.tampered(close_row)], book_of.sets_of(close_row)


def test_an_untouched_month_shows_no_difference_also_after_late_usage_and_pushes(service):
    frozen = close(service)
    sets = CloseStore(service._ledger.engine).sets_of(frozen)
    book(service, trace("late"), trace("a", latency_seconds=120))
    found, now = edited(service, frozen, "UPDATE events SET sync_status = 'processed', meter_event_identifier = 'x'")
    assert (found, now) == ([], sets)


REPLACED = """UPDATE events SET revision = 7, seq = 9, credits_total = 9 WHERE id = 'a';
              INSERT INTO event_revisions BY NAME SELECT * EXCLUDE (close_seq, moment, is_reversal)
              FROM closed_events WHERE id = 'a'"""
ASIDE = """INSERT INTO events SELECT * REPLACE ('aside' AS id, TIMESTAMP '2026-11-20' AS accounted_at)
           FROM events WHERE id = 'a'"""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE events SET credits_total = 1 WHERE id = 'a'", "event a is not as it was closed: credits_total"),
        ("UPDATE events SET customer_id = 'cus_x' WHERE id = 'b'", "event b is not as it was closed: customer_id"),
        ("UPDATE events SET latency_seconds = 1 WHERE id = 'a'", "event a is not as it was closed: latency_seconds"),
        ("DELETE FROM events WHERE id = 'a'", "event a was closed and the ledger does not know it any more"),
        (
            "INSERT INTO events SELECT * REPLACE ('smuggled' AS id) FROM events WHERE id = 'a'",
            "event smuggled was put into the closed month without being booked",
        ),
        (
            "UPDATE events SET billed_elsewhere = true WHERE id = 'b'",
            "event b is not as it was closed: billed_elsewhere",
        ),
        (REPLACED, "event a was put into the closed month without being booked"),
        (
            "INSERT INTO events SELECT * REPLACE ('later' AS id, 9 AS seq) FROM events WHERE id = 'a'",
            "event later was put into the closed month without being booked",
        ),
        (ASIDE, "event aside was taken out of the closed month"),
    ],
)
def test_an_edit_of_the_ledgers_own_rows_is_named(service, statement, says):
    frozen = close(service)
    assert edited(service, frozen, statement)[0] == [says]


def test_an_event_that_left_a_closed_month_without_being_taken_back_is_named(service):
    frozen = close(service)
    book(service, trace("a", timestamp=datetime(2026, 11, 1, 1, tzinfo=UTC)))
    says = "event a changed after the close and was not carried into an open month: it counts twice"
    assert edited(service, frozen, "UPDATE events SET accounted_at = NULL WHERE id = 'a'")[0] == [says]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("INSERT INTO events SELECT * FROM events WHERE id = 'a'", "event a is there 2 times; every event is once"),
        (
            "INSERT INTO events SELECT * REPLACE ('x' AS id) FROM events WHERE id = 'open'",
            "booking 1 wrote 3 states of events and there are 4",
        ),
        (
            "INSERT INTO events SELECT * REPLACE ('x' AS id, 77 AS seq) FROM events WHERE id = 'open'",
            "1 states of events name the booking 77, which the journal does not list",
        ),
        ("DELETE FROM events WHERE id = 'open'", "booking 1 wrote 3 states of events and there are 2"),
    ],
)
def test_an_event_that_no_booking_wrote_is_named_in_whatever_month_it_is(service, statement, says):
    assert list(unbooked(service._ledger.engine.rows)) == []
    with service._ledger.engine.transaction() as writer:
        writer.rows(statement)
    assert says in list(unbooked(service._ledger.engine.rows))


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE closed_events SET credits_total = 1 WHERE id = 'a'", "events"),
        ("UPDATE closed_events SET sync_status = 'processed'", "events"),
        ("DELETE FROM closed_events WHERE id = 'a'", "events"),
        ("UPDATE bookings SET run_id = 'other' WHERE seq = 1", "bookings"),
        (
            "INSERT INTO organization_directory VALUES (1, 'org_a', 'x', NULL, TIMESTAMP '2026-10-01', 'x', 'page')",
            "organization_map",
        ),
    ],
)
def test_an_edit_of_frozen_rows_or_of_what_stands_behind_them_changes_the_hash_of_their_set(service, statement, name):
    frozen = close(service)
    before = CloseStore(service._ledger.engine).sets_of(frozen)
    after = edited(service, frozen, statement)[1]
    assert {one for one in before if before[one] != after[one]} == {name}


def test_hashes_of_a_close_are_of_the_columns_that_there_were(service):
    """A later version may add columns: what was closed before is proven without them."""
    frozen, book_of = close(service), CloseStore(service._ledger.engine)
    fewer = [name for name in HASHED_COLUMNS if name != "chatflow_name"]
    then = book_of.sets_of(frozen, fewer)
    now = edited(service, frozen, "UPDATE closed_events SET chatflow_name = 'x'")
    assert book_of.sets_of(frozen, fewer) == then
    assert now[1]["events"] != then["events"]


# ── what an attacker found ───────────────────────────────────────────────────────────────────────


def test_a_trace_that_moved_to_the_next_month_counts_once_after_that_one_is_reopened(service):
    close(service)
    book(service, trace("a", timestamp=datetime(2026, 11, 2, 12, tzinfo=UTC)))
    november = close(service, NOVEMBER, "2026-11", NOW + timedelta(days=30))
    CloseStore(service._ledger.engine).reopen(november, actor="fay", reason="x", now=NOW + timedelta(days=31))
    assert credits_of(service) == Decimal(450)
    close(service, NOVEMBER, "2026-11", NOW + timedelta(days=32))
    assert credits_of(service) == Decimal(450)


def test_who_may_see_the_former_organization_only_does_not_read_how_the_event_fares_in_the_new_one(service):
    close(service)
    book(service, trace("a", organization_id="org_b"))
    with service._ledger.engine.transaction() as writer:
        writer.rows(
            "UPDATE events SET sync_error = 'secret of org_b', meter_event_identifier = 'm', sync_status = 'error' "
            "WHERE id = 'a'"
        )
        writer.advance("test")
    of_a = Principal("ann", Role.ANALYST, frozenset({"org_a"}))
    events = service.get_usage_events(GetUsageEventsParams(search="a"), of_a).events
    assert {event.sync_error for event in events} == {None}
    assert {event.meter_event_identifier for event in events} == {None}


def test_what_says_when_a_frozen_row_counts_and_whether_it_takes_one_back_is_hashed_too(service):
    frozen = close(service)
    before = CloseStore(service._ledger.engine).sets_of(frozen)
    for statement in (
        "UPDATE closed_events SET is_reversal = true",
        "UPDATE closed_events SET moment = TIMESTAMP '2026-10-06'",
    ):
        assert edited(service, frozen, statement)[1]["events"] != before["events"]


def test_entries_whose_time_was_taken_before_a_close_they_waited_for_are_no_part_of_it(service):
    frozen = close(service)
    book_of = CloseStore(service._ledger.engine)
    before = book_of.sets_of(frozen)
    directory = DirectoryStore(service._ledger.engine)
    earlier = NOW - timedelta(seconds=1)
    directory.change({"org_a": Line("Acme")}, seen={}, policy=Policy(), actor="ada", source="page", now=earlier)
    SyncStore(service._ledger.engine).hold(["a"], reason="x", actor="ada", now=earlier)
    assert book_of.sets_of(frozen) == before


def test_what_an_event_of_a_closed_month_teaches_when_it_is_read_again_is_no_edit(service):
    """What rating by observation and active time needs may come to be known later; nothing about the event changes."""
    frozen = close(service)
    line = {"model": "gpt-5", "key": "input", "quantity": 1000, "repeats": False, "unpriced": False}
    book(service, trace("a", active_seconds=Decimal(7), usage_lines=[line]))
    engine = service._ledger.engine
    known = engine.rows("SELECT active_seconds, usage_lines[1].quantity, revision FROM events WHERE id = 'a'")
    assert known == [(Decimal(7), 1000, 1)]
    assert engine.rows("SELECT count(*) FROM event_revisions") == [(0,)]
    assert edited(service, frozen, "SELECT 1")[0] == []
