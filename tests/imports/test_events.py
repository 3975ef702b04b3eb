"""Importing usage events: what a file does to the ledger, and what it never does."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter
from billing_core.imports.model import FileKind, ImportOutcome, OrganizationEffect
from billing_core.ledger.sync_queries import candidates
from billing_core.types import FLAT_FIELDS
from tests.factories import EVERYONE, NOON, events_table, usage_row
from tests.imports.world import NOW, ImportWorld, as_csv, as_json, as_parquet, booked, free, line, reasons

CORRECTED = {"credits_ai_tokens": "40", "credits_total": "90", "amount_usd": "0.0036"}


@pytest.fixture
def empty(tmp_path):
    return ImportWorld(tmp_path)


@pytest.fixture
def world(tmp_path):
    """Two events, 150 credits each."""
    return ImportWorld(tmp_path, [booked("a"), booked("b", organization_id="org_b")])


def candidate_ids(world):
    return sorted(world.ledger.engine.read(candidates(NOW + timedelta(days=1)))["id"].to_pylist())


# ── what a dry run says ──────────────────────────────────────────────────────────────────────────


def test_a_dry_run_says_what_is_new_changed_and_unchanged_and_whose_sums_change(world):
    plan = world.plan_lines(line("a"), line("b", organization_id="org_b", **CORRECTED), line("c", organization_id=""))
    assert plan.to_json() | {"sha256": "", "bytes": 0} == {
        "kind": "usage-events",
        "file": "lines.csv",
        "bytes": 0,
        "sha256": "",
        "columns": list(FLAT_FIELDS),
        "timezone": None,
        "rows": 3,
        "new": 1,
        "changed": 1,
        "unchanged": 1,
        "organizations": [
            {"organization_id": "org_b", "events": 0, "credits": "-60", "amount_usd": "-0.0024"},
            {"organization_id": None, "events": 1, "credits": "150", "amount_usd": "0.006"},
        ],
        "rejected": [],
        "rejected_rows": 0,
        "warnings": [
            (
                "1 event with 150 credits is pending in the file and would be sent to Stripe by the next push. "
                "Import it only if nobody else sends it."
            ),
            (
                "1 event that waits here changes what it costs or which customer is billed: the next push sends it as "
                "the file has it."
            ),
        ],
    }


def test_a_dry_run_changes_nothing(world):
    before = world.content()
    world.plan_lines(line("a", **CORRECTED), line("c"), line("d", sync_status="processed"))
    assert world.content() == before


def test_an_event_that_moves_to_another_organization_leaves_the_old_one(world):
    plan = world.plan_lines(line("a", organization_id="org_z"))
    assert plan.outcome.organizations == (
        OrganizationEffect("org_a", -1, Decimal(-150), Decimal("-0.006")),
        OrganizationEffect("org_z", 1, Decimal(150), Decimal("0.006")),
    )


def test_what_bad_rows_would_be_without_them_is_said_too(empty):
    plan = empty.plan_lines(line("a"), line("b", tokens_in="-1"))
    assert (plan.rows, plan.outcome.new, plan.rejected_rows, plan.can_apply) == (2, 1, 1, False)
    assert reasons(plan) == [(2, "tokens_in")]


def test_at_most_a_thousand_rejections_are_listed_and_all_are_counted(empty):
    plan = empty.plan_lines(*(line(f"t{n}", tokens_in="-1") for n in range(1200)))
    assert (len(plan.rejected), plan.rejected_rows) == (1000, 1200)
    assert plan.to_json()["rejected_rows"] == 1200


LOCAL = {"timestamp": "2026-11-01 13:00:00", "ended_at": "2026-11-01 13:01:00"}


@pytest.mark.parametrize("write", [as_csv, as_json, as_parquet])
def test_times_without_an_offset_are_refused_whatever_the_reporting_timezone_is(tmp_path, write):
    world = ImportWorld(tmp_path, BILLING_TIMEZONE="Europe/Berlin")
    plan = world.plan(write(tmp_path / "f", [line(**LOCAL), line("b")]))
    assert reasons(plan) == [(1, "timestamp"), (1, "ended_at")]
    assert (plan.can_apply, plan.without_offset, plan.rejected_rows) == (False, 2, 1)
    assert "has no offset" in plan.rejected[0].reason
    assert "--timezone" in plan.rejected[0].reason


@pytest.mark.parametrize("write", [as_csv, as_json, as_parquet])
def test_whoever_imports_may_say_whose_times_those_are(empty, tmp_path, write):
    plan = empty.plan(write(tmp_path / "f", [line(**LOCAL)]), timezone="Europe/Berlin")
    assert plan.warnings[0] == "2 times have no offset; they are read as Europe/Berlin, as asked."
    empty.desk.apply(plan, EVERYONE)
    assert empty.event().timestamp == NOON


def test_a_timezone_that_does_not_exist_is_named(empty):
    with pytest.raises(BadParameter, match=r"timezone: 'Europe/Berlon' is not accepted; expected an IANA timezone"):
        empty.plan_lines(line(), timezone="Europe/Berlon")


# ── applying ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("write", [as_csv, as_json, as_parquet])
def test_an_exported_event_comes_in_as_it_went_out(tmp_path, write):
    there = ImportWorld(tmp_path, [booked()], "there")
    here = ImportWorld(tmp_path, (), "here")
    here.bring(write(tmp_path / "f", [line()]))
    assert here.published() == there.published()


def test_applying_a_file_twice_changes_nothing_and_leaves_no_second_record(empty):
    first = empty.bring_lines(line("a"), line("b", sync_status="processed", meter_event_identifier="usage_1"))
    before = empty.content()
    second = empty.bring_lines(line("a"), line("b", sync_status="processed", meter_event_identifier="usage_1"))
    assert first.outcome.new == 2
    assert (second.outcome, second.import_ids) == (ImportOutcome(0, 0, 2), ())
    assert empty.content() == before


def test_an_import_is_remembered_with_its_hash_and_in_the_audit_log(empty):
    result = empty.bring_lines(line())
    [record] = empty.desk.imports(EVERYONE)
    assert (record.import_id, record.kind, record.new) == (result.import_ids[0], FileKind.USAGE_EVENTS, 1)
    assert (record.sha256, record.imported_by, record.imported_at) == (result.plan.sha256, "tester", NOW)
    entry = empty.ledger.audit_entries()[0]
    assert (entry["action"], entry["actor"]) == ("import", "tester")
    assert result.plan.sha256 in entry["detail"]


def test_bad_rows_stop_everything_unless_they_may_be_skipped(empty):
    path = as_csv(empty.folder / "f", [line("a"), line("b", sync_status="sent"), line("c")])
    with pytest.raises(
        BadParameter, match=r"1 cannot be used, the first is row 2, sync_status: 'sent' is not accepted"
    ):
        empty.bring(path)
    assert empty.statuses() == {}
    assert empty.bring(path, skip_bad_rows=True).outcome.new == 2
    assert empty.statuses() == {"a": "pending", "c": "pending"}


def test_a_file_that_breaks_off_is_never_imported_not_even_its_good_rows(empty):
    path = as_csv(empty.folder / "f", [line("a"), line("b")])
    path.write_bytes(path.read_bytes() + b'"cut')
    plan = empty.plan(path, skip_bad_rows=True)
    assert (plan.is_whole, reasons(plan)) == (False, [(3, "row")])
    with pytest.raises(BadParameter):
        empty.desk.apply(plan, EVERYONE)
    assert empty.statuses() == {}


def test_a_plan_that_no_longer_holds_is_refused(world):
    plan = world.plan_lines(line("a", **CORRECTED), line("c"))
    world.ledger.book(events_table([booked("c")]), run_id="meanwhile")
    before = world.content()
    with pytest.raises(BadParameter, match="preview the file again"):
        world.desk.apply(plan, EVERYONE)
    assert world.content() == before


def test_a_plan_is_applied_once(empty):
    plan = empty.plan_lines(line())
    empty.desk.apply(plan, EVERYONE)
    with pytest.raises(BadParameter, match="already applied"):
        empty.desk.apply(plan, EVERYONE)


def test_what_a_pull_does_elsewhere_meanwhile_does_not_matter(world):
    plan = world.plan_lines(line("c"))
    world.ledger.book(events_table([booked("x")]), run_id="meanwhile")
    assert world.desk.apply(plan, EVERYONE).outcome.new == 1


def test_the_cards_that_events_name_are_remembered_with_them(tmp_path):
    from billing_core.ledger.duckdb_engine import DuckDBEngine
    from billing_core.service import BillingService
    from billing_core.settings import load_settings

    path = tmp_path / "fresh.duckdb"
    service = BillingService(
        load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "live"}, env_file=None)
    )
    plan = service.imports.plan(as_csv(tmp_path / "f", [line()]), EVERYONE)
    service.imports.apply(plan, EVERYONE)
    assert DuckDBEngine(path).rows("SELECT card_id FROM rate_cards") == [("builtin-1",)]
    assert service.explain("trace-1", EVERYONE).event.id == "trace-1"


def test_a_ledger_of_the_other_mode_is_not_written_to(empty):
    from billing_core.errors import SettingsError
    from billing_core.settings import Mode

    empty.ledger.claim(Mode.DEMO)
    with pytest.raises(SettingsError, match="demo data"):
        empty.bring_lines(line())


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "who",
    [
        Principal("ann", Role.ANALYST),
        Principal("fay", Role.FINANCE),
        Principal("adam", Role.ADMIN, frozenset({"org_a"})),
    ],
)
def test_only_an_admin_without_limits_imports(empty, who):
    path = as_csv(empty.folder / "f", [line()])
    plan = empty.plan(path)
    for act in (
        lambda: empty.desk.plan(path, who),
        lambda: empty.desk.apply(plan, who),
        lambda: empty.desk.imports(who),
        lambda: empty.desk.undo("x", who),
    ):
        with pytest.raises(AccessDenied):
            act()


# ── what a file does not say ─────────────────────────────────────────────────────────────────────


def test_an_exported_file_that_comes_back_changes_nothing_although_it_says_less_than_the_ledger_knows(tmp_path):
    rows = [
        booked(
            "a", timestamp=NOON + timedelta(microseconds=1), latency_seconds="0.000777", user_id="", models=["x", "y"]
        ),
        booked("b", chatflow_name="'=1+1", session_id="=1+1", problems=["odd"], bad_usage=True, metadata='{"a": 1}'),
        booked("c", has_error=True, observations=9, customer_id=None),
    ]
    world = ImportWorld(tmp_path, rows)
    before = world.content()
    result = world.bring(world.export())
    assert result.outcome == ImportOutcome(0, 0, 3)
    assert world.content() == before


def test_an_event_the_ledger_lacks_gets_one_line_of_usage_from_its_tokens(empty):
    empty.bring_lines(line(tokens_in="600", tokens_out="300", tokens_total="1000"))
    [(usage, observations, base)] = empty.rows("SELECT usage, observations, trace_base FROM events")
    assert usage == [
        {
            "model": "gpt-5",
            "input": 600,
            "output": 300,
            "cache_read": 0,
            "cache_write": 0,
            "reasoning": 0,
            "other": 100,
            "cost_usd": Decimal("0.010000000000"),
        }
    ]
    assert (observations, base) == (0, "http://langfuse.test/project/project/traces/")


def test_usage_of_several_models_is_nobodys_in_particular(empty):
    empty.bring_lines(
        line(models='["gpt-5", "gpt-5-mini"]'),
        free("b", tokens_in="", tokens_out="", tokens_total="", cost_usd="", models="[]"),
    )
    found = dict(empty.rows("SELECT id, usage FROM events"))
    assert [one["model"] for one in found["trace-1"]] == [None]
    assert found["b"] == []


def test_usage_by_model_stays_while_tokens_agree_and_is_derived_anew_when_they_do_not(world):
    world.bring_lines(
        line("a", user_id="another"), line("b", organization_id="org_b", tokens_in="601", tokens_total="1001")
    )
    found = dict(world.rows("SELECT id, usage FROM events"))
    assert found["a"][0]["input"] == 600
    assert found["b"][0]["input"] == 601
    assert world.event("a").user_id == "another"


def test_a_bundles_extra_columns_are_taken_over(empty):
    extra = {
        "project_id": "p",
        "trace_base": "http://langfuse.test/project/project/traces/",
        "observations": "7",
        "has_error": "true",
        "problems": '["odd"]',
        "updated_at": "2026-11-01T13:00:00.123456Z",
        "credit_price_usd": "0.00004",
        "usage": '[{"model": "m", "cache_read": 5, "cost_usd": null}]',
    }
    empty.bring(as_csv(empty.folder / "f", [line(**extra)], header=(*FLAT_FIELDS, *extra)))
    [row] = empty.rows("SELECT project_id, observations, has_error, problems, usage[1].cache_read FROM events")
    assert row == ("p", 7, True, "odd", 5)


def test_an_older_state_of_an_event_does_not_replace_a_newer_one(tmp_path):
    world = ImportWorld(tmp_path, [booked("a", updated_at=NOON + timedelta(days=2))])
    header = (*FLAT_FIELDS, "updated_at")
    older = line("a", user_id="before", updated_at="2026-11-02T12:00:00Z")
    assert world.bring(as_csv(world.folder / "f", [older], header=header)).outcome == ImportOutcome(0, 0, 1)


# ── never sent twice ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["sending", "processed", "confirmed"])
def test_what_was_billed_elsewhere_keeps_its_status_and_is_never_sent(empty, status):
    cells = {
        "sync_status": status,
        "meter_event_identifier": "usage_1",
        "synced_at": "2026-11-02T00:00:00.000Z",
        "flags": '["changed_after_sending"]',
    }
    empty.bring_lines(line(**cells))
    event = empty.event()
    assert (event.sync_status, event.meter_event_identifier, event.flags) == (
        status,
        "usage_1",
        ["changed_after_sending"],
    )
    assert event.synced_at.isoformat() == "2026-11-02T00:00:00+00:00"
    assert candidate_ids(empty) == []


def test_it_is_not_sent_either_once_a_pull_reads_it_with_other_usage(empty):
    empty.bring_lines(line(sync_status="processed", meter_event_identifier="usage_1"))
    empty.ledger.book(events_table([booked(tokens_in=900, tokens_total=1300)]), run_id="pull")
    assert empty.event().tokens_in == 900
    assert (empty.event().sync_status, empty.event().flags) == ("processed", [])
    assert candidate_ids(empty) == []


def test_a_push_leaves_imported_statuses_alone(empty):
    empty.bring_lines(line(sync_status="processed", flags='["changed_after_sending"]'))
    from billing_core.ledger.sync import SyncStore

    SyncStore(empty.ledger.engine).hold_hopeless(now=NOW, push_id="p")
    assert empty.statuses() == {"trace-1": "processed"}


def test_an_intent_of_ours_with_the_same_identifier_does_not_touch_what_was_billed_elsewhere(empty):
    """Identifiers follow from customer and hour: the other ledger's and ours may be the same text."""
    from billing_core.ledger.sync import IntentUpdate, SyncStore

    empty.bring_lines(line(sync_status="processed", meter_event_identifier="usage_1"))
    SyncStore(empty.ledger.engine).settle([IntentUpdate("usage_1", "rejected", NOW, text="no")], push_id="p")
    assert empty.statuses() == {"trace-1": "processed"}


@pytest.mark.parametrize("status", ["processed", "confirmed"])
def test_what_was_on_its_way_elsewhere_is_settled_by_a_newer_export_and_never_sent(empty, status):
    empty.bring_lines(line(sync_status="sending", meter_event_identifier="usage_1"), line("other"))
    newer = line(sync_status=status, meter_event_identifier="usage_2", synced_at="2026-11-02T00:00:00.000Z")
    plan = empty.plan_lines(newer)
    assert plan.outcome == ImportOutcome(0, 1, 0, (OrganizationEffect("org_a", 0, Decimal(0), Decimal(0)),))
    assert "whose outcome was not known, was billed according to the file" in plan.warnings[0]
    result = empty.desk.apply(plan, EVERYONE)
    assert (empty.event().sync_status, empty.event().meter_event_identifier) == (status, "usage_2")
    assert candidate_ids(empty) == ["other"]
    assert empty.plan_lines(newer).outcome == ImportOutcome(0, 0, 1)
    assert empty.plan_lines(line(sync_status="sending")).outcome == ImportOutcome(0, 0, 1)
    empty.undo(result)
    assert (empty.event().sync_status, empty.event().meter_event_identifier) == ("sending", "usage_1")
    assert candidate_ids(empty) == ["other"]


def test_a_newer_export_that_changes_usage_as_well_settles_it_too(empty):
    empty.bring_lines(line(sync_status="sending"))
    empty.bring_lines(line(sync_status="processed", user_id="somebody else"))
    assert (empty.event().sync_status, empty.event().user_id) == ("processed", "somebody else")
    assert candidate_ids(empty) == []


@pytest.mark.parametrize("status", ["pending", "error"])
def test_what_failed_elsewhere_is_not_sent_from_here_as_long_as_the_first_import_stands(empty, status):
    first = empty.bring_lines(line(sync_status="sending"))
    newer = line(sync_status=status)
    assert empty.plan_lines(newer).outcome == ImportOutcome(0, 0, 1)
    empty.undo(first)
    empty.bring_lines(newer)
    assert empty.statuses() == {"trace-1": status}


def test_what_is_on_its_way_from_here_is_not_settled_by_a_file(world):
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'sending' WHERE id = 'a'")
    assert world.plan_lines(line("a", sync_status="processed")).outcome == ImportOutcome(0, 0, 1)


def test_pending_events_of_a_file_are_sent_by_the_next_push(empty):
    empty.bring_lines(line("a"), line("b", sync_status="error", sync_error="no customer", customer_id=""))
    assert candidate_ids(empty) == ["a"]


def test_unsent_events_that_a_file_says_were_billed_are_lifted_and_never_sent(world):
    plan = world.plan_lines(line("a", sync_status="processed", meter_event_identifier="usage_9"))
    assert plan.outcome == ImportOutcome(0, 1, 0, (OrganizationEffect("org_a", 0, Decimal(0), Decimal(0)),))
    assert "1 event that is not sent here, or whose outcome was not known, was billed according to" in plan.warnings[0]
    world.desk.apply(plan, EVERYONE)
    assert (world.event("a").sync_status, world.event("a").meter_event_identifier) == ("processed", "usage_9")
    assert candidate_ids(world) == ["b"]
    assert world.rows("SELECT sync_status, changed_columns FROM event_revisions") == [("pending", "sync_status")]
    assert world.plan_lines(line("a", sync_status="processed")).outcome == ImportOutcome(0, 0, 1)


def test_an_event_on_a_bill_of_ours_is_not_lifted(world):
    with world.ledger.engine.transaction() as writer:
        writer.insert("intents", {"identifier": "ours", "customer_id": "cus_a", "state": "accepted", "created_at": NOW})
        writer.insert("coverage", {"identifier": "ours", "event_id": "a", "customer_id": "cus_a", "credits": 50})
    assert world.plan_lines(line("a", sync_status="processed")).outcome == ImportOutcome(0, 0, 1)


def test_the_ledgers_own_sync_state_stays_whatever_a_file_says(tmp_path):
    world = ImportWorld(tmp_path, [booked("a"), booked("b")])
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'confirmed', meter_event_identifier = 'ours' WHERE id = 'a'")
    world.bring_lines(line("a", sync_status="pending"), line("b", sync_status="error", sync_error="elsewhere"))
    assert world.statuses() == {"a": "confirmed", "b": "pending"}


def test_a_correction_of_what_was_sent_from_here_is_sent_with_a_warning(tmp_path):
    world = ImportWorld(tmp_path, [booked("a")])
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'processed', meter_event_identifier = 'ours'")
    plan = world.plan_lines(line("a", **CORRECTED, sync_status="processed"))
    [warning] = plan.warnings
    assert warning == (
        "1 event that was sent from here changes what it costs or which customer is billed: the next push sends "
        "Stripe the "
        "difference, in whole credits; what is too old or on a final invoice is held."
    )
    world.desk.apply(plan, EVERYONE)
    assert world.event("a").flags == ["changed_after_sending"]
    assert candidate_ids(world) == ["a"]


def test_how_an_unsent_event_stands_follows_from_its_new_facts(tmp_path):
    rows = [booked("paid"), usage_row(id="unpaid", customer_id=None), booked("free")]
    world = ImportWorld(tmp_path, rows)
    world.bring_lines(line("paid", customer_id="", flags='["no_customer"]'), line("unpaid"), free("free"))
    assert world.statuses() == {"paid": "error", "unpaid": "pending", "free": "excluded"}
    world.bring_lines(line("free"))
    assert world.event("free").sync_status == "pending"


def test_an_overriding_customer_is_warned_about(tmp_path):
    world = ImportWorld(tmp_path, BILLING_DEFAULT_CUSTOMER_ID="cus_all", BILLING_OVERRIDE_CUSTOMER_ID="true")
    assert any("BILLING_OVERRIDE_CUSTOMER_ID" in warning for warning in world.plan_lines(line()).warnings)


# ── cards ────────────────────────────────────────────────────────────────────────────────────────


def test_records_of_the_earlier_system_that_are_worth_nothing_get_the_price_of_their_time(empty):
    empty.bring_lines(free(rate_card_version="legacy", sync_status="processed", flags='["legacy_billed"]'))
    assert empty.rows("SELECT credit_price_usd FROM events") == [(Decimal("0.000040000000"),)]


def test_events_of_a_card_nobody_knows_are_rejected(empty):
    plan = empty.plan_lines(line(rate_card_version="acme-2"))
    assert plan.rejected[0].reason.endswith("import the rate card first")
