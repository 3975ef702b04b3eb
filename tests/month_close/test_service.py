"""Closing a month through the one door: what refuses, what is frozen, what proves it, what a reopening does."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from shutil import copyfile
from zoneinfo import ZoneInfo

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, UpstreamError, WarehouseError
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.imports.model import FileKind, ImportRecord
from billing_core.imports.undo import undo_events
from billing_core.ledger import verification
from billing_core.month_close.model import MonthState, window_of
from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE, events_table, usage_row
from tests.imports.world import as_csv, line
from tests.month_close.world import FINANCE, NOVEMBER, OCTOBER, MonthWorld, october, trace

ANALYST = Principal("ann", Role.ANALYST)
LIMITED = Principal("lim", Role.FINANCE, frozenset({"org_a"}))


@pytest.fixture
def world(tmp_path):
    """October with two sent events, November with one."""
    made = MonthWorld(tmp_path / "billing.duckdb", [trace("a"), trace("b", 6), usage_row(id="open")])
    yield made
    made.service.close()


@pytest.fixture(scope="module")
def closed_ledger(tmp_path_factory):
    """That ledger with October closed and found to be as it was."""
    made = MonthWorld(
        tmp_path_factory.mktemp("closed") / "billing.duckdb", [trace("a"), trace("b", 6), usage_row(id="open")]
    )
    assert made.close().ok
    assert made.verify() == []
    made.service.close()
    return made.path


@pytest.fixture
def closed(closed_ledger, tmp_path):
    """A copy of it for one test."""
    copyfile(closed_ledger, tmp_path / "billing.duckdb")
    made = MonthWorld(tmp_path / "billing.duckdb", [])
    yield made
    made.service.close()


def row_with(*parts, **books):
    values = dict.fromkeys(("langfuse", "ledger", "sent", "stripe"), Decimal(300)) | books
    return CustomerDay("cus_a", date(2026, 10, 5), *values.values(), parts)


# ── refusing ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["pending", "sending", "error"])
def test_unsent_usage_keeps_the_month_open_until_it_is_accepted_by_name(world, status):
    world.send(status, "a")
    refused = world.close()
    assert (refused.ok, [(o.events, o.credits, o.event_ids) for o in refused.obstacles]) == (
        False,
        [(1, Decimal(150), ("a",))],
    )
    assert world.ledger.engine.rows("SELECT count(*) FROM closes") == [(0,)]
    closed = world.close(accept=[refused.obstacles[0].cause], reason="customer left")
    assert closed.ok
    exception = closed.manifest["exceptions"][0]
    assert (exception["accepted_by"], exception["reason"], exception["events"]) == ("fay", "customer left", 1)


def test_what_was_on_its_way_where_it_was_imported_from_is_accepted_or_settled_by_a_newer_export(world, tmp_path):
    times = {"timestamp": "2026-10-07T12:00:00.000Z", "ended_at": "2026-10-07T12:01:00.000Z"}

    def bring(status):
        path = as_csv(tmp_path / "f", [line("away", **times, sync_status=status)])
        world.service.imports.apply(world.service.imports.plan(path, EVERYONE), EVERYONE)

    bring("sending")
    world.send("sending", "a")
    ours, theirs = sorted(world.close().obstacles, key=lambda one: one.event_ids)
    assert (ours.cause, ours.event_ids) == ("unknown_outcome", ("a",))
    assert "push again" in ours.says
    assert (theirs.cause, theirs.event_ids) == ("unknown_outcome", ("away",))
    assert "known only there: import a newer export of it, or accept unknown_outcome" in theirs.says
    assert world.close(accept=["unknown_outcome"], reason="the other ledger is gone").ok
    world.now += timedelta(hours=1)
    bring("processed")
    assert world.verify() == []
    world.months.reopen("2026-10", FINANCE, reason="settled")
    world.send("processed", "a")
    assert world.close().ok


def test_a_carried_fraction_does_not_keep_the_month_open(world):
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'pending', marks = 'carried' WHERE id = 'a'")
        writer.advance("test")
    assert world.close().ok


def test_what_is_unsent_is_named_without_the_fractions_that_wait_by_rule(world):
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'pending', marks = CASE id WHEN 'a' THEN 'carried' ELSE '' END")
        writer.advance("test")
    [unsent] = world.close().obstacles
    assert (unsent.cause, unsent.events, unsent.event_ids) == ("unsent", 1, ("b",))


def test_what_stripe_counts_and_nobody_sent_keeps_the_month_open(world):
    world.books.rows = (
        row_with(DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, Decimal(-7)), stripe=Decimal(307)),
    )
    assert [(o.cause, o.credits) for o in world.close().obstacles] == [("not_ours", Decimal(7))]
    manifest = world.close(accept=["unexplained"]).manifest
    assert (manifest["stripe"]["unexplained_credits"], manifest["stripe"]["stripe_credits"]) == ("7", "307")


def test_usage_that_langfuse_has_and_the_ledger_has_not_keeps_the_month_open(world):
    world.books.rows = (
        row_with(
            DifferencePart(ComparisonStep.LANGFUSE_LEDGER, Cause.LATE, Decimal(5), ("new",)), langfuse=Decimal(305)
        ),
    )
    assert [(o.cause, o.group.value) for o in world.close().obstacles] == [("late", "unsettled")]


def test_a_month_that_lasts_on_is_not_even_compared(world):
    refused = world.close("2026-11", accept=["unsettled", "unsent", "error", "unexplained"])
    assert ([o.cause for o in refused.obstacles], world.books.asked) == (["not_over"], [])


def test_right_after_its_end_a_month_is_unsettled(world):
    world.now = datetime(2026, 11, 1, 0, 10, tzinfo=UTC)
    assert [o.cause for o in world.close().obstacles] == ["unsettled"]


@pytest.mark.parametrize("period", ["2026-13", "2026", "october", "２０２６-10", "2026-1", "26-10", "2026-10-01", ""])
def test_what_is_no_month_is_refused_by_name(world, period):
    with pytest.raises(BadParameter, match="a month such as 2026-10"):
        world.close(period)


def test_a_month_that_has_not_begun_is_refused(world):
    with pytest.raises(BadParameter, match="a month that has begun"):
        world.close("2027-01")


def test_without_stripe_a_close_has_to_accept_that_its_counts_are_unknown(world):
    world.books.is_connected, world.books.problems = False, ("Stripe is not connected",)
    assert [o.cause for o in world.close().obstacles] == ["not_connected"]
    assert world.close(accept=["not_connected"]).ok


def test_a_book_that_cannot_be_read_closes_nothing(world):
    world.books.rows, world.books.problems = (row_with(stripe=None),), ("Stripe did not answer",)
    with pytest.raises(UpstreamError, match="Stripe did not answer"):
        world.close(accept=["unexplained", "not_connected"])
    assert world.months.months(FINANCE)[-1].state is MonthState.OVER


@pytest.mark.parametrize("who", [ANALYST, LIMITED], ids=lambda who: who.name)
def test_who_is_no_finance_or_limited_to_organizations_neither_sees_nor_closes_months(world, who):
    for ask in (
        lambda: world.months.months(who),
        lambda: world.months.checklist("2026-10", who),
        lambda: world.months.close("2026-10", who),
        lambda: world.months.verify("2026-10", who),
        lambda: world.months.reopen("2026-10", who, "x"),
        lambda: world.months.manifest("2026-10", who),
    ):
        with pytest.raises(AccessDenied):
            ask()


# ── freezing ─────────────────────────────────────────────────────────────────────────────────────


def exports_of(world, window):
    asked = GetUsageEventsParams.parse(window)
    kinds = [(Dataset.USAGE_EVENTS, form) for form in Format] + [(Dataset.ORGANIZATIONS, Format.CSV)]
    return {
        (dataset.value, form.value): world.service.exports.digest(ExportRequest(dataset, form, asked), FINANCE).sha256
        for dataset, form in kinds
    }


def test_after_the_close_the_month_and_its_exports_never_change(world):
    before, events = exports_of(world, OCTOBER), world.shown(OCTOBER)
    world.close()
    world.book(trace("late"), trace("a", latency_seconds=120), trace("b", 6, organization_id="org_b"))
    world.send("confirmed")
    assert world.shown(OCTOBER) == events
    assert exports_of(world, OCTOBER) == before
    assert [one for one in world.shown(NOVEMBER) if one[3]] == [
        ("a", "-150", "confirmed", True),
        ("a", "200", "confirmed", True),
        ("late", "150", "confirmed", True),
        ("b", "-150", "processed", True),
        ("b", "150", "confirmed", True),
    ]
    assert world.verify() == []


def test_the_manifest_says_what_was_closed_and_ties_out(world):
    manifest = world.close().manifest
    totals = world.service.get_usage_events(GetUsageEventsParams.parse(OCTOBER), EVERYONE).totals
    assert (manifest["totals"]["events"], manifest["totals"]["credits_total"]) == (2, "300")
    assert Decimal(manifest["totals"]["amount_usd"]) == totals.amount_usd
    assert [line["credits"] for line in manifest["by_status"]] == ["300"]
    assert {(one["dataset"], one["totals"]["credits_total"]) for one in manifest["exports"]} == {
        ("usage-events", "300"),
        ("organizations", "300"),
    }
    assert {(one["dataset"], one["format"]): one["sha256"] for one in manifest["exports"]}.items() <= exports_of(
        world, OCTOBER
    ).items()
    text = world.months.manifest("2026-10", FINANCE)
    assert json.loads(text) == manifest
    assert hashlib.sha256(text.encode()).hexdigest() == world.months.months(FINANCE)[-1].sha256


def test_closing_twice_changes_nothing(world):
    first = world.close()
    again = world.close(accept=["unsent"])
    assert (again.manifest, again.was_closed) == (first.manifest, True)
    assert world.ledger.engine.rows("SELECT count(*) FROM closes") == [(1,)]
    assert world.ledger.engine.rows("SELECT count(*) FROM closed_events") == [(2,)]


def test_a_close_starts_anew_when_the_ledger_changes_meanwhile(world):
    world.books.meanwhile = lambda: (world.book(trace("c", 7)), world.send())
    assert world.close().manifest["totals"]["events"] == 3


def test_a_pull_between_check_and_freeze_is_part_of_the_month_or_stops_the_close(world, monkeypatch):
    digest, once = world.service.exports.digest, [lambda: world.book(trace("c", 7))]

    def meddled(*given):
        if once:
            once.pop()()
        return digest(*given)

    monkeypatch.setattr(world.service.exports, "digest", meddled)
    refused = world.close()
    assert [(o.cause, o.event_ids) for o in refused.obstacles] == [("unsent", ("c",))]
    assert len(world.books.asked) == 2


def test_months_are_those_of_the_reporting_timezone(tmp_path):
    world = MonthWorld(
        tmp_path / "billing.duckdb",
        [
            trace("a", timestamp=datetime(2026, 10, 31, 22, 30, tzinfo=UTC)),
            trace("b", timestamp=datetime(2026, 10, 31, 23, 30, tzinfo=UTC)),
        ],
        BILLING_TIMEZONE="Europe/Berlin",
    )
    try:
        manifest = world.close().manifest
        assert (manifest["totals"]["events"], manifest["from"], manifest["to"], manifest["timezone"]) == (
            1,
            "2026-09-30T22:00:00.000Z",
            "2026-10-31T23:00:00.000Z",
            "Europe/Berlin",
        )
        assert [(month.period, month.events, month.state.value) for month in world.months.months(FINANCE)] == [
            ("2026-11", 1, "open"),
            ("2026-10", 1, "closed"),
        ]
    finally:
        world.service.close()


def test_hours_that_no_month_would_hold_are_said(tmp_path):
    path = tmp_path / "billing.duckdb"
    berlin = MonthWorld(path, [trace("a"), usage_row(id="open")], BILLING_TIMEZONE="Europe/Berlin")
    assert berlin.close().ok
    berlin.service.close()
    utc = MonthWorld(path, [])
    utc.now = datetime(2026, 12, 3, tzinfo=UTC)
    try:
        [note] = utc.months.checklist("2026-11", FINANCE).notes
        assert note.startswith("usage from 2026-10-31T23:00:00.000Z to 2026-11-01T00:00:00.000Z is in no closed month:")
    finally:
        utc.service.close()


def test_the_list_of_months_adds_up_and_says_what_came_late(closed):
    world = closed
    world.book(trace("late"), trace("a", latency_seconds=120))
    november, closed = world.months.months(FINANCE)
    assert (closed.state, closed.events, closed.credits.total, closed.closed_by) == (
        MonthState.CLOSED,
        2,
        Decimal(300),
        "fay",
    )
    assert (november.state, november.events, november.credits.total) == (MonthState.OPEN, 4, Decimal(350))
    assert (november.late_events, november.late_credits) == (3, Decimal(200))
    whole = world.service.get_usage_events(GetUsageEventsParams(), EVERYONE).totals
    assert closed.amount_usd + november.amount_usd == whole.amount_usd


def test_what_came_late_is_closed_with_the_month_it_counts_in(closed):
    world = closed
    world.book(trace("late"))
    with world.ledger.engine.transaction() as writer:  # the tests' clock stands in November, the computer's does not
        writer.rows("UPDATE events SET accounted_at = TIMESTAMP '2026-11-20' WHERE id = 'late'")
        writer.advance("test")
    world.send()
    world.now = datetime(2026, 12, 2, tzinfo=UTC)
    assert world.close("2026-11").manifest["totals"]["credits_total"] == "300"
    assert world.close("2026-11").manifest["previous"]["period"] == "2026-10"
    assert (world.verify("2026-10"), world.verify("2026-11")) == ([], [])


# ── proving ──────────────────────────────────────────────────────────────────────────────────────

SMUGGLED = """INSERT INTO events SELECT * REPLACE ('x' AS id, TIMESTAMP '2026-11-20' AS accounted_at,
              'pending' AS sync_status) FROM events WHERE id = 'a'"""
"""The next push would bill it."""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE events SET credits_total = 1 WHERE id = 'a'", "event a is not as it was closed"),
        ("UPDATE closed_events SET credits_total = 1 WHERE id = 'a'", "2 now, with another content"),
        ("DELETE FROM closed_events WHERE id = 'b'", "2 entries when it was closed, 1 now"),
        ("DELETE FROM events WHERE id = 'b'", "event b was closed and the ledger does not know it any more"),
        ("UPDATE closes SET manifest = replace(manifest, '300', '301')", "the manifest's text was edited"),
        ("UPDATE closes SET closed_by = 'somebody'", "closed_by is somebody in the ledger's journal"),
        ("UPDATE closes SET sha256 = repeat('0', 64)", "no entry of the audit log tells of this manifest"),
        ("DELETE FROM audit WHERE action = 'close'", "no entry of the audit log tells of this manifest"),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", "entry 1"),
        ("INSERT INTO events SELECT * FROM events WHERE id = 'a'", "event a is there 2 times"),
        (SMUGGLED, "event x was taken out of the closed month"),
        ("INSERT INTO coverage VALUES ('none', 'a', 'cus_a', 150)", "meter event none carries None credits"),
        (
            "INSERT INTO intents (identifier, credits, push_id) VALUES ('m', 0, 'nobody')",
            "meter event m names the push nobody, which the journal does not list",
        ),
        ("INSERT INTO coverage VALUES ('none', 'ghost', 'cus_a', 0)", "covers ghost, which is no event the ledger"),
        ("UPDATE rate_cards SET content = replace(content, '0.00004', '0.00005')", "rate card builtin-1 was edited"),
        ("DELETE FROM reconciliations", "the reconciliation it was closed on is gone or edited"),
        ("DELETE FROM closes", "the audit log tells of a close of 2026-10 that the ledger does not hold any more"),
        ("UPDATE closes SET reopened_at = closed_at", "the audit log tells of a close of 2026-10"),
        ("DELETE FROM bookings WHERE seq = 1", "bookings: 2 entries when it was closed, 1 now"),
    ],
)
def test_verify_names_what_somebody_edited_in_the_ledgers_file(closed, statement, says):
    world = closed
    with world.ledger.engine.transaction() as writer:
        writer.rows(statement)
    assert any(says in text for text in world.verify())


def test_verify_sees_that_the_newest_entries_of_the_audit_log_are_gone(closed):
    world = closed
    world.service.audit("ada", "signed in", {})
    with world.ledger.engine.transaction() as writer:
        writer.rows("DELETE FROM audit WHERE action = 'signed in'")
    assert [text for text in world.verify() if "the last are missing" in text]


def test_verify_finds_nothing_after_everything_that_may_happen(world):
    world.send("pending", "b")
    world.close(accept=["unsent"])
    world.send("processed", "b")
    world.book(trace("late"), trace("a", latency_seconds=120), usage_row(id="open", latency_seconds=1))
    world.books.reconcile(FINANCE, october(1), october(2))
    world.service.audit("ada", "signed in", {})
    assert world.verify() == []


def test_a_month_that_is_not_closed_cannot_be_verified(world):
    with pytest.raises(NotFound, match="2026-10 is not closed"):
        world.verify()


# ── reopening ────────────────────────────────────────────────────────────────────────────────────


def test_a_reopened_month_takes_its_late_usage_back_and_may_be_closed_again(world):
    first = world.close().manifest
    world.book(trace("late"))
    world.send()
    world.months.reopen("2026-10", FINANCE, "  wrong   card ")
    month = world.months.months(FINANCE)[-1]
    assert (month.state, month.events, month.reopened_by, month.reopen_reason) == (
        MonthState.REOPENED,
        3,
        "fay",
        "wrong card",
    )
    again = world.close().manifest
    assert (again["totals"]["events"], again["previous"]["period"]) == (3, "2026-10")
    assert first["totals"]["events"] == 2
    assert world.verify() == []
    actions = [entry["action"] for entry in world.ledger.audit_entries()]
    assert [one for one in actions if one in {"close", "reopen"}] == ["close", "reopen", "close"]


def test_a_month_is_not_reopened_without_a_reason(closed):
    world = closed
    with pytest.raises(BadParameter, match="a few words on why"):
        world.months.reopen("2026-10", FINANCE, "  ")
    assert world.months.months(FINANCE)[-1].state is MonthState.CLOSED


def test_a_window_is_the_month_in_its_timezone_over_a_change_of_clocks():
    window = window_of("2026-10", ZoneInfo("Europe/Berlin"))
    assert window.end - window.start == timedelta(days=31, hours=1)


def test_the_reconciliation_of_a_closed_month_is_the_one_it_was_closed_on(world):
    asked = ExportRequest(Dataset.RECONCILIATION, Format.JSON, GetUsageEventsParams.parse(OCTOBER))
    world.close()
    before = world.service.exports.digest(asked, FINANCE).sha256
    world.books.rows = (
        row_with(DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, Decimal(-7)), stripe=Decimal(307)),
    )
    world.books.made_at = datetime(2026, 12, 1, tzinfo=UTC)
    world.books.reconcile(FINANCE, datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    assert world.service.exports.digest(asked, FINANCE).sha256 == before


@pytest.mark.parametrize(
    "environment",
    [
        {"BILLING_SELLER_NAME": "Other"},
        {"BILLING_SERVICE_NAME": "Other"},
        {"BILLING_JOURNAL_ACCOUNTS": "receivable=1300"},
        {"BILLING_TIMEZONE": "Asia/Tokyo"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_other_settings_change_no_closed_month(tmp_path, environment):
    path = tmp_path / "billing.duckdb"
    world = MonthWorld(path, [trace("a"), trace("edge", timestamp=datetime(2026, 10, 31, 20, tzinfo=UTC))])
    world.close()
    figures = [(m.period, m.events, m.credits.total) for m in world.months.months(FINANCE) if m.sha256]
    window = {"from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
    exports = exports_of(world, window)
    world.service.close()
    other = MonthWorld(path, [], **environment)
    try:
        assert other.verify() == []
        assert exports_of(other, window) == exports
        assert [(m.period, m.events, m.credits.total) for m in other.months.months(FINANCE) if m.sha256] == figures
    finally:
        other.service.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE closed_events SET sync_status = NULL",
        "UPDATE closed_events SET credit_price_usd = NULL",
        "UPDATE closes SET manifest = '[]'",
        "UPDATE closes SET manifest = 'x'",
        "UPDATE rate_cards SET content = 'x'",
        "UPDATE rate_cards SET content = NULL",
        "UPDATE closes SET manifest = replace(manifest, 'usage-events', 'zzz')",
    ],
)
def test_verify_says_so_where_the_file_holds_what_no_program_writes(closed, statement):
    world = closed
    with world.ledger.engine.transaction() as writer:
        writer.rows(statement)
    assert world.verify()


def test_an_import_that_is_undone_after_a_close_leaves_no_event_out_of_every_month(world, tmp_path):
    """The import had moved it out of the month that is closed by now."""
    world.book(trace("x", 31))
    world.send()
    imported = trace("x", timestamp=datetime(2026, 11, 1, 0, 1, tzinfo=UTC))
    world.ledger.book(events_table([imported]), run_id="import:one")
    world.close()
    with world.ledger.engine.transaction() as writer:
        undo_events(
            writer,
            ImportRecord("one", FileKind.USAGE_EVENTS, "f.csv", "0", 0, 1, 0, 0, world.now, "ada"),
            now=world.now,
        )
    assert [one for one in world.shown(NOVEMBER) if one[0] == "x"] == [("x", "150", "processed", True)]
    assert world.verify() == []


@pytest.mark.parametrize("again", ["import", "pull"])
def test_an_event_that_came_back_after_its_import_was_undone_is_proven_like_any_other(world, tmp_path, again):
    def bring(status):
        times = {"timestamp": "2026-10-07T12:00:00.000Z", "ended_at": "2026-10-07T12:01:00.000Z"}
        file = as_csv(tmp_path / "f.csv", [line("x", sync_status=status, **times)])
        return world.service.imports.apply(world.service.imports.plan(file, EVERYONE), EVERYONE)

    world.service.imports.undo(bring("pending").import_ids[0], EVERYONE)
    if again == "import":
        bring("processed")
    else:
        world.book(trace("x", 7))
        world.send()
    world.now += timedelta(hours=1)
    assert world.close().ok
    assert world.verify() == []


def test_late_usage_that_is_found_to_be_of_the_next_month_is_no_difference_when_that_one_is_closed(world):
    assert world.close("2026-09").ok
    world.book(trace("late", timestamp=datetime(2026, 9, 30, 23, tzinfo=UTC)))
    world.book(trace("late", timestamp=datetime(2026, 10, 1, 1, tzinfo=UTC)))
    world.send()
    world.now += timedelta(hours=1)
    assert world.close().ok
    assert (world.verify("2026-09"), world.verify()) == ([], [])


def test_a_close_that_somebody_removed_is_not_made_again_over_it(closed):
    world = closed
    with world.ledger.engine.transaction() as writer:
        writer.rows("DELETE FROM closes")
        writer.rows("DELETE FROM closed_events")
    with pytest.raises(WarehouseError, match="tells of a close of 2026-10"):
        world.close()


# ── settlements ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_settled_closes_the_month_which_names_it_and_stays_as_it_was_closed(world):
    world.send("error", "a")
    assert [one.group.value for one in world.close().obstacles] == ["error"]
    (settlement,) = world.service.stripe.settle(EVERYONE, ["a"], SettlementKind.WRITE_OFF, reason="agreed").settlements
    assert world.close().ok
    manifest = json.loads(world.months.manifest("2026-10", FINANCE))
    (line_,) = manifest["settlements"]
    assert {name: line_[name] for name in ("id", "as", "customer_id", "events", "credits", "amount_usd", "reason")} == {
        "id": settlement,
        "as": "write_off",
        "customer_id": "cus_a",
        "events": 1,
        "credits": "150",
        "amount_usd": "0.006",
        "reason": "agreed",
    }
    assert world.verify() == []
    then = world.shown(OCTOBER), world.csv(OCTOBER)
    assert ("a", "150", "excluded", False) in then[0]
    world.now += timedelta(days=1)
    assert world.service.stripe.take_back(EVERYONE, settlement, reason="they pay")[0].state == "taken_back"
    assert (world.shown(OCTOBER), world.csv(OCTOBER)) == then
    assert world.verify() == []
    assert world.ledger.engine.rows("SELECT sync_status FROM events WHERE id = 'a'") == [("error",)]


def test_a_settlement_after_the_close_is_no_part_of_it(world):
    world.send("error", "a")
    assert world.close(accept=["error"], reason="later").ok
    then = world.shown(OCTOBER), world.csv(OCTOBER)
    world.now += timedelta(days=1)
    assert world.service.stripe.settle(EVERYONE, ["a"], SettlementKind.WRITE_OFF, reason="now").event_ids == ("a",)
    assert (world.shown(OCTOBER), world.csv(OCTOBER)) == then
    assert world.verify() == []
    (step,) = [one for one in world.service.explain("a", EVERYONE).steps if one.name == "Settle"]
    assert "after the close of 2026-10: now" in step.lines[1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE settlements SET reason = 'another'",
        "UPDATE settlements SET credits = credits + 1",
        "DELETE FROM settlement_events",
        "UPDATE settlement_events SET credits = 1",
    ],
)
def test_verify_names_what_somebody_edited_in_a_settlement(world, statement):
    world.send("error", "a")
    world.service.stripe.settle(EVERYONE, ["a"], SettlementKind.WRITE_OFF, reason="agreed")
    assert world.close().ok
    with world.ledger.engine.transaction() as writer:
        writer.rows(statement)
    assert any("settle" in says for says in world.verify())


def test_a_month_closed_before_settlements_were_known_is_still_proven(world, monkeypatch):
    monkeypatch.setattr(
        verification, "_sets", lambda columns: {k: v for k, v in SETS(columns).items() if k not in LATER}
    )
    assert world.close().ok
    monkeypatch.undo()
    assert world.verify() == []


SETS, LATER = verification._sets, verification.SETS_ADDED_LATER
