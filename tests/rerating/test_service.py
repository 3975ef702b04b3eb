"""Re-rating through the door: nothing changes until it is applied, and applying books exactly what was shown."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, RateCardError
from billing_core.ingest.pull import book_rated, cards_for
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.ledger.sync import SyncStore
from billing_core.rating.card import builtin_cards
from billing_core.rating.events import Policy
from billing_core.rerating import service as rerating
from billing_core.rerating.service import slices
from billing_core.runtime.locks import exclusive
from billing_core.types import GetUsageEventsParams
from tests.factories import CARD, EVERYONE, NOON, model_usage, service_over, usage_row, usage_table
from tests.rerating.world import BY_COST, DEAR, card, only
from tests.stripe_sync.push_world import at, use

FINANCE, ANALYST = Principal("fay", Role.FINANCE), Principal("ann", Role.ANALYST)
ONLY_A = Principal("ada", Role.ADMIN, frozenset({"org_a"}))
FREE = card(
    "free", ai=CARD.ai.model_dump() | {"rates": [{"credits_per_1000_tokens": 0}]}, compute={"credits_per_minute": 0}
)
ROWS = [
    usage_row(id="a-1"),
    usage_row(id="a-2", timestamp=NOON + timedelta(days=1)),
    usage_row(id="b-1", organization_id="org_b", customer_id="cus_b", timestamp=NOON + timedelta(days=2)),
    usage_row(id="none", organization_id=None, customer_id=None, timestamp=NOON + timedelta(days=3)),
]


@pytest.fixture
def make(tmp_path):
    """Services over ledgers that hold some rows; closed afterwards."""
    made = []

    def one(rows=ROWS, name="billing", **environment):
        service = service_over(tmp_path / f"{name}.duckdb", rows, **environment)
        made.append(service)
        return service

    yield one
    for service in made:
        service.close()


@pytest.fixture
def service(make):
    return make()


def content(service):
    engine = service._ledger.engine
    tables = [row[0] for row in engine.rows("SELECT table_name FROM duckdb_tables() ORDER BY 1")]
    return {table: sorted(map(str, engine.rows(f"SELECT * FROM {table}"))) for table in tables}


def events(service):
    answer = service.get_usage_events(GetUsageEventsParams(limit=1000), EVERYONE)
    return {event.id: event for event in answer.events}


def credits_of(service):
    return {id_: str(event.credits.total.normalize()) for id_, event in sorted(events(service).items())}


def booked(service, what="*", table="events", where="TRUE"):
    return service._ledger.engine.rows(f"SELECT {what} FROM {table} WHERE {where} ORDER BY 1")


def audited(service):
    return [row for row in service._ledger.audit_entries() if row["action"] == "rerate"]


# ── who may ───────────────────────────────────────────────────────────────────────────────────────


def test_finance_may_ask_and_only_admins_apply(service):
    assert service.rerating.what_if(FINANCE, only(DEAR)).events == 4
    for who in (FINANCE, ANALYST):
        with pytest.raises(AccessDenied, match="this needs the admin role"):
            service.rerating.apply(who, only(DEAR))
    with pytest.raises(AccessDenied, match="this needs the finance or admin role"):
        service.rerating.what_if(ANALYST, only(DEAR))


def test_whoever_sees_some_organizations_only_may_do_neither(service):
    for do in (service.rerating.what_if, service.rerating.apply):
        with pytest.raises(AccessDenied, match="some organizations only"):
            do(ONLY_A, only(DEAR))


# ── what if ───────────────────────────────────────────────────────────────────────────────────────


def test_another_card_is_shown_per_organization_and_changes_nothing(service):
    before = content(service)
    found = service.rerating.what_if(FINANCE, only(DEAR)).to_json()
    assert content(service) == before
    assert [(row["organization_id"], row["old"], row["new"], row["delta"]) for row in found["organizations"]] == [
        ("org_a", "300", "500", "200"),
        ("org_b", "150", "250", "100"),
        (None, "150", "250", "100"),
    ]
    assert {name: found[name] for name in ("events", "events_changed", "delta_credits", "delta_usd", "applied")} == {
        "events": 4,
        "events_changed": 4,
        "delta_credits": "400",
        "delta_usd": "0.016",
        "applied": False,
    }
    assert found["cards"] == [{"id": "dear", "sha256": DEAR.fingerprint()}]
    assert (found["from"], found["to"], found["not_rerated"], found["plan_limits_unknown"]) == (None, None, [], 2)


def test_the_card_they_were_rated_with_changes_nothing(service):
    found = service.rerating.what_if(EVERYONE, builtin_cards())
    assert (found.events, found.events_changed, found.delta_credits, found.to_send.events) == (4, 0, 0, 0)


def test_the_window_is_about_when_events_began_half_open_and_in_the_reporting_timezone(make):
    service = make(BILLING_TIMEZONE="Europe/Berlin")
    noon_in_berlin = datetime(2026, 11, 1, 13)
    window = (noon_in_berlin + timedelta(days=1), noon_in_berlin + timedelta(days=2))
    found = service.rerating.what_if(EVERYONE, only(DEAR), *window).to_json()
    assert (found["events"], found["from"], found["to"]) == (1, "2026-11-02T12:00:00.000Z", "2026-11-03T12:00:00.000Z")
    assert service.rerating.what_if(EVERYONE, only(DEAR), window[0]).events == 3
    assert service.rerating.what_if(EVERYONE, only(DEAR), None, window[0]).events == 1
    with pytest.raises(BadParameter, match="to:"):
        service.rerating.what_if(EVERYONE, only(DEAR), *window[::-1])


def test_an_empty_ledger_has_nothing_to_rate(make):
    service = make([])
    for do in (service.rerating.what_if, service.rerating.apply):
        assert do(EVERYONE, only(DEAR)).to_json()["organizations"] == []


def test_reasons_are_given_for_what_keeps_its_credits(make):
    service = make([*ROWS, usage_row(id="old", legacy_status="processed"), usage_row(id="sum", usage=[])])
    later = card(effective_from=NOON + timedelta(days=2))
    found = service.rerating.what_if(EVERYONE, only(later)).to_json()
    assert [(row["reason"], row["events"]) for row in found["not_rerated"]] == [
        ("legacy_billed", 1),
        ("no_card_in_force", 3),
    ]
    found = service.rerating.what_if(EVERYONE, only(DEAR)).to_json()
    assert [(row["reason"], row["events"]) for row in found["not_rerated"]] == [
        ("legacy_billed", 1),
        ("usage_unknown", 1),
    ]


def test_progress_ends_with_all_of_it(service, monkeypatch):
    monkeypatch.setattr(rerating, "READ_AT_ONCE", 1)
    told = []
    service.rerating.what_if(EVERYONE, only(DEAR), progress=lambda share, text: told.append((share, text)))
    assert told == [(0.25, "rated 1 event"), (0.5, "rated 2 events"), (0.75, "rated 3 events"), (1.0, "rated 4 events")]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_slices_hold_every_event_once_also_where_many_began_at_the_same_moment(make, monkeypatch, size):
    monkeypatch.setattr(rerating, "READ_AT_ONCE", size)
    crowd = [usage_row(id=f"crowd-{n}") for n in range(9)]
    service = make([*crowd, *ROWS])
    whole = service.rerating._selection(EVERYONE, NOON, NOON + timedelta(days=3))
    pieces = service.rerating._slices(whole)
    found = [row["id"] for piece in pieces for row in service._ledger.read_rows(piece.rows())]
    assert sorted(found) == sorted(["a-1", "a-2", "b-1", *(row["id"] for row in crowd)])
    assert service.rerating.what_if(EVERYONE, only(DEAR)).delta_credits == 1300


def test_slices_are_as_large_as_memory_allows(monkeypatch):
    monkeypatch.setattr(rerating, "READ_AT_ONCE", 10)
    whole = Selection(None, Snapshot(0, 0), start=NOON)  # type: ignore[arg-type]
    found = slices(whole, [0, 1, 5, 6, 9], [4, 6, 11, 9, 1])
    assert [(piece.events, piece.part, piece.parts) for piece in found] == [
        (10, 0, 1),
        (5, 0, 2),
        (5, 1, 2),
        (10, 0, 1),
    ]
    edges = [(piece.selection.start, piece.selection.end) for piece in found]
    assert edges[0] == (NOON, datetime(1970, 1, 1, 0, 30, tzinfo=UTC))
    assert edges[1] == edges[2] == (edges[0][1], datetime(1970, 1, 1, 1, 30, tzinfo=UTC))
    assert edges[3] == (edges[2][1], None)


# ── applying ──────────────────────────────────────────────────────────────────────────────────────


def test_applying_books_what_was_shown_with_its_history_and_an_audit_entry(service):
    shown = service.rerating.what_if(EVERYONE, only(DEAR))
    done = service.rerating.apply(EVERYONE, only(DEAR))
    assert done.to_json() == {**shown.to_json(), "applied": True}
    assert credits_of(service) == dict.fromkeys(("a-1", "a-2", "b-1", "none"), "2.5E+2")
    assert booked(service, "id, credits_total, rate_card_version, changed_columns", "event_revisions")[0] == (
        "a-1",
        Decimal(150),
        "builtin-1",
        "credits_ai_tokens,credits_total,rate_card_version",
    )
    (entry,) = audited(service)
    assert (entry["actor"], json.loads(entry["detail"])) == (
        "tester",
        {
            "cards": {"dear": DEAR.fingerprint()},
            "from": None,
            "to": None,
            "events": 4,
            "events_changed": 4,
            "delta_credits": "400.000000",
            "delta_usd": "0.016000000000000000",
        },
    )
    assert service._ledger.card("dear") == DEAR


def test_applied_a_second_time_it_changes_nothing(service):
    service.rerating.apply(EVERYONE, only(DEAR))
    before = content(service)
    again = service.rerating.apply(EVERYONE, only(DEAR))
    assert (again.events, again.events_changed, again.delta_credits) == (4, 0, 0)
    assert content(service) == before
    assert service.rerating.what_if(EVERYONE, only(DEAR)).events_changed == 0


def test_facts_are_never_touched(make):
    odd = usage_row(
        id="odd",
        storage_gb=Decimal("0.000000000001"),
        has_error=True,
        metadata='{"a": 1}',
        models=["b", "a\nc"],
        problems=["one", "two"],
        bad_usage=True,
        latency_seconds="0.000001",
        cost_usd=None,
        updated_at=NOON,
    )
    service = make([*ROWS, odd])
    made_anew = (
        "credits_ai_tokens, credits_compute, credits_storage, credits_total, credit_price_usd, rate_card_version"
    )
    ledgers_own = "seq, revision, booked_at, run_id"
    facts = f"id, * EXCLUDE (id, {made_anew}, {ledgers_own})"
    before = booked(service, facts)
    service.rerating.apply(EVERYONE, only(DEAR))
    assert booked(service, facts) == before


def test_a_pull_afterwards_keeps_the_new_card(service):
    service.rerating.apply(EVERYONE, only(DEAR))
    ledger, file = service._ledger, builtin_cards()
    usage = usage_table([*ROWS[1:], usage_row(id="a-1", usage=[], tokens_total=None), usage_row(id="fresh")])
    cards = cards_for(usage, ledger, file, ledger.card_versions())
    _, counts = book_rated(ledger, usage, cards, Policy(), run_id="pull")
    assert (counts.new, counts.changed, counts.unchanged) == (1, 1, 3)
    assert {id_: event.rate_card_version for id_, event in events(service).items()} == {
        "a-1": "dear",
        "a-2": "dear",
        "b-1": "dear",
        "none": "dear",
        "fresh": "builtin-1",
    }


def test_a_card_under_a_name_that_events_know_with_other_prices_is_refused(service):
    before = content(service)
    with pytest.raises(RateCardError, match="give the changed card a new id"):
        service.rerating.apply(EVERYONE, only(card(CARD.id, margin=2)))
    assert content(service) == before
    assert service.rerating.what_if(EVERYONE, only(card(CARD.id, margin=2))).delta_credits == 400


def test_stopped_in_the_middle_nothing_is_booked_while_it_is_one_transaction(service):
    before = (credits_of(service), booked(service, table="event_revisions"), service.version())

    def stop(*_entry):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerating, "append_audit", stop)  # the last step: all is booked but not committed
        with pytest.raises(KeyboardInterrupt):
            service.rerating.apply(EVERYONE, only(DEAR))
    assert (credits_of(service), booked(service, table="event_revisions"), service.version()) == before
    assert audited(service) == []
    assert service.rerating.apply(EVERYONE, only(DEAR)).events_changed == 4


def test_stopped_between_transactions_the_next_call_books_the_rest(service, monkeypatch):
    monkeypatch.setattr(rerating, "READ_AT_ONCE", 1)
    monkeypatch.setattr(rerating, "BOOKED_TOGETHER", 2)

    def stop(share, _text):
        if share == 0.75:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.rerating.apply(EVERYONE, only(DEAR), progress=stop)
    assert credits_of(service) == {"a-1": "2.5E+2", "a-2": "2.5E+2", "b-1": "1.5E+2", "none": "1.5E+2"}
    (first,) = audited(service)
    assert json.loads(first["detail"])["events_changed"] == 2
    rest = service.rerating.apply(EVERYONE, only(DEAR))
    assert (rest.events_changed, rest.delta_credits) == (2, 200)
    assert [json.loads(row["detail"])["events_changed"] for row in audited(service)] == [2, 2]
    assert set(credits_of(service).values()) == {"2.5E+2"}


def test_several_transactions_come_to_the_same_as_one(make, monkeypatch):
    together, apart = make(name="together"), make(name="apart")
    one = together.rerating.apply(EVERYONE, only(DEAR))
    monkeypatch.setattr(rerating, "READ_AT_ONCE", 1)
    monkeypatch.setattr(rerating, "BOOKED_TOGETHER", 1)
    assert apart.rerating.apply(EVERYONE, only(DEAR)) == one
    assert events(apart) == events(together)


def test_it_waits_for_a_running_pull(service, tmp_path):
    waiting, done = threading.Event(), threading.Event()

    def apply():
        service.rerating.apply(EVERYONE, only(DEAR), on_wait=waiting.set)
        done.set()

    thread = threading.Thread(target=apply)
    with exclusive(tmp_path / "billing.duckdb.pull"):
        thread.start()
        assert waiting.wait(10)
        assert credits_of(service)["a-1"] == "1.5E+2"
        assert not done.is_set()
    thread.join(10)
    assert credits_of(service)["a-1"] == "2.5E+2"


def test_what_lies_in_a_closed_month_counts_in_the_open_one(service):
    with service._ledger.engine.transaction() as writer:
        writer.insert(
            "closes",
            {"seq": 1, "period": "2026-11", "start_at": NOON - timedelta(days=1), "end_at": NOON + timedelta(days=1)},
        )
    service.rerating.apply(EVERYONE, only(DEAR))
    carried = dict(booked(service, "id, accounted_at IS NOT NULL"))
    assert carried == {"a-1": True, "a-2": False, "b-1": False, "none": False}


# ── how events stand afterwards ───────────────────────────────────────────────────────────────────


def test_what_becomes_free_is_excluded_and_what_becomes_billable_is_pending_or_lacks_a_customer(service):
    service.rerating.apply(EVERYONE, only(FREE))
    assert {(e.sync_status.value, e.sync_error) for e in events(service).values()} == {("excluded", None)}
    assert [flag.value for flag in events(service)["none"].flags] == ["no_customer", "no_usage"]
    service.rerating.apply(EVERYONE, builtin_cards())
    stands = {id_: (e.sync_status.value, e.sync_error) for id_, e in events(service).items()}
    assert stands["a-1"] == ("pending", None)
    assert stands["none"][0] == "error"
    assert stands["none"][1].startswith("no customer")
    assert events(service)["none"].flags == ["no_customer"]


def test_what_a_person_keeps_back_stays_kept_back_and_what_failed_before_waits_for_a_retry(make):
    service = make([*ROWS, usage_row(id="failed", legacy_error="card declined")])
    SyncStore(service._ledger.engine).hold(["a-1"], reason="wait", actor="ben", now=NOON)
    service.rerating.apply(EVERYONE, only(DEAR))
    stands = {id_: (e.sync_status.value, e.sync_error) for id_, e in events(service).items()}
    assert stands["a-1"] == ("pending", "on hold by ben: wait")
    assert stands["failed"] == ("error", "card declined")


def test_what_failed_before_waits_for_a_person_also_after_it_was_free_for_a_while(make):
    failed = usage_row(id="failed", legacy_error="card declined")
    nobodys = usage_row(id="nobodys", legacy_error="card declined", customer_id=None)
    service = make([usage_row(id="fine"), failed, nobodys, usage_row(id="retried", legacy_error="card declined")])
    SyncStore(service._ledger.engine).retry(["retried"], actor="ben", now=NOON)
    before = {id_: (e.sync_status.value, e.sync_error) for id_, e in events(service).items()}
    assert before["nobodys"][1].endswith("card declined")
    service.rerating.apply(EVERYONE, only(FREE))
    assert {e.sync_status.value for e in events(service).values()} == {"excluded"}
    service.rerating.apply(EVERYONE, only(DEAR))
    assert {id_: (e.sync_status.value, e.sync_error) for id_, e in events(service).items()} == before


def test_what_stripe_rejected_is_tried_again_with_its_new_credits(world, stripe):
    world.book(use("1", at(0), "150", customer="cus_unknown"))
    world.push()
    assert world.statuses() == {"1": "error"}
    double = only(card("double", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month * 2}))
    world.service.rerating.apply(EVERYONE, double)
    assert world.statuses() == {"1": "pending"}


def test_the_next_push_sends_the_difference_of_what_was_sent_and_no_more(world, stripe):
    desk = world.service.rerating
    world.book(use("sent", at(0), "150"), use("other", at(0), "10", customer="cus_b"))
    world.push()
    assert (stripe.sums()["cus_a"], stripe.sums()["cus_b"]) == (150, 10)
    double = only(card("double", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month * 2}))
    assert desk.what_if(EVERYONE, double).to_send.to_json() == {"events": 2, "credits": "160", "customers": 2}
    desk.apply(EVERYONE, double)
    assert [flag.value for flag in world.events()["sent"].flags] == ["changed_after_sending"]
    assert world.statuses() == {"other": "confirmed", "sent": "confirmed"}
    world.push()
    assert (stripe.sums()["cus_a"], stripe.sums()["cus_b"]) == (300, 20)
    assert world.push().sent == 0


def test_what_was_sent_and_costs_less_is_given_back(world, stripe):
    world.book(use("sent", at(0), "150"))
    world.push()
    half = only(card("half", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month / 2}))
    world.service.rerating.apply(EVERYONE, half)
    world.push()
    assert stripe.sums()["cus_a"] == 75


def test_who_crosses_a_plan_limit_is_named_in_both_directions(world):
    limits = world.service.organizations.limits
    limits.refresh(EVERYONE)
    world.book(
        use("a", at(0), "300000"), use("b", at(0), "600000", customer="cus_b"), use("c", at(0), "1", customer="cus_c")
    )
    double = only(card("double", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month * 2}))
    found = world.service.rerating.what_if(FINANCE, double)
    (one,) = found.plan_limits
    assert (one.customer_id, one.plan, one.included, one.old_used, one.new_used, one.direction) == (
        "cus_a",
        "Pro",
        500_000,
        Decimal(300_000),
        Decimal(600_000),
        "up",
    )
    assert found.plan_limits_unknown == 0
    half = only(card("half", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month / 2}))
    (other,) = world.service.rerating.what_if(FINANCE, half).plan_limits
    assert (other.customer_id, other.new_used, other.direction) == ("cus_b", Decimal(300_000), "down")


def test_a_limit_that_is_reached_by_applying_raises_its_notice(world):
    limits = world.service.organizations.limits
    limits.refresh(EVERYONE)
    world.book(use("a", at(0), "300000"))
    assert limits.notices.due_notices(EVERYONE).open == ()
    double = only(card("double", storage={"credits_per_gb_month": CARD.storage.credits_per_gb_month * 2}))
    world.service.rerating.apply(EVERYONE, double)
    assert {one.notice.customer_id for one in limits.notices.due_notices(EVERYONE).open} == {"cus_a"}


def test_before_stripe_was_read_nothing_is_known_of_any_plan(world):
    world.book(use("a", at(0), "600000"), use("b", at(0), "1", customer="cus_b"))
    found = world.service.rerating.what_if(EVERYONE, only(card("dear", storage={"credits_per_gb_month": 1})))
    assert (found.plan_limits, found.plan_limits_unknown) == ((), 2)


def test_a_card_that_goes_by_cost_prices_history_by_what_langfuse_said(service):
    found = service.rerating.what_if(EVERYONE, only(BY_COST))
    assert found.delta_credits == 4 * (Decimal("0.01") / Decimal("0.00004") - 100)


# ── observations, usage keys and active time ─────────────────────────────────────────────────────


def used(quantity, key, **more):
    rest = {"level": "DEFAULT", "cost_usd": None, "repeats": False, "unpriced": False}
    return {"model": "gpt-5", "name": "call", "type": "GENERATION", "key": key, "quantity": quantity, **rest, **more}


AGENT = {"model": None, "name": "agent run", "type": "AGENT", "repeats": True}
DOUBLED = {
    "double_count_suspect": True,
    "tokens_total": 2000,
    "usage": [model_usage(None, None, input=1000), model_usage(input=1000)],
    "usage_lines": [used(1000, "input", **AGENT), used(1000, "input"), used(3, "web_search_requests")],
    "active_seconds": Decimal(6),
}
RULES = card(
    "rules",
    exclude=[{"name": "agent *", "type": "AGENT"}],
    units={"web_search_requests": 10},
    compute={"credits_per_minute": 50, "basis": "active"},
)


def totals(service):
    return {id_: event.credits.total for id_, event in events(service).items()}


def test_what_a_card_leaves_out_maps_and_prices_is_shown_and_booked(make):
    """200 + 50 credits become 100 of what is left, 30 of searches and 5 of the time in which something ran."""
    service = make([usage_row(id="a", **DOUBLED)])
    assert totals(service) == {"a": 250}
    found = service.rerating.what_if(EVERYONE, only(RULES))
    assert [(str(row.old), str(row.new)) for row in found.organizations] == [("250.000000", "135.000000")]
    assert totals(service) == {"a": 250}
    service.rerating.apply(EVERYONE, only(RULES))
    assert totals(service) == {"a": 135}
    assert booked(service, "flags") == [("",)]
    again = service.rerating.what_if(EVERYONE, only(RULES))
    assert again.events_changed == 0
    back = service.rerating.what_if(EVERYONE, only(card("back")))
    assert [str(row.new) for row in back.organizations] == ["250.000000"]
    service.rerating.apply(EVERYONE, only(card("back")))
    assert booked(service, "flags") == [("unpriced,double_count_suspect",)]


def test_the_passport_writes_out_what_was_left_out_and_what_a_unit_costs(make):
    service = make([usage_row(id="a", **DOUBLED)])
    service.rerating.apply(EVERYONE, only(RULES))
    steps = {step.name: step for step in service.explain("a", EVERYONE).steps}
    assert list(steps["AI tokens"].lines) == [
        "gpt-5, input: 1,000 × 100 ÷ 1,000 = 100",
        "gpt-5, web_search_requests: 3 × 10 each = 30",
        "AGENT agent run, input: 1,000 left out by the card's exclude",
        "= 130, rounded once half-even to 6 places = 130",
    ]
    assert steps["Compute"].lines[0] == "6 s in which an observation ran ÷ 60 × 50 per minute"


def test_events_read_before_observations_were_kept_keep_their_credits_and_say_why(make):
    service = make([usage_row(id="old"), usage_row(id="new", **DOUBLED)])
    found = service.rerating.what_if(EVERYONE, only(RULES))
    assert dict(found.not_rerated) == {"lines_unknown": 1}
    assert dict(service.rerating.what_if(EVERYONE, only(DEAR)).not_rerated) == {}
