"""What rules tell: once, exactly, about what the rule's owner may see, whoever looks and however often."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.alerts import service as alert_service
from billing_core.alerts.model import Rule, Terms
from billing_core.errors import AccessDenied, BadParameter, NotFound, UpstreamError
from billing_core.ledger.push_log import PushLog
from billing_core.ledger.reconciliations import keep_reconciliation
from billing_core.runtime import notify_addresses
from billing_core.stripe_sync.pipeline import Action
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.explore_model import Dimension, ExploreQuestion, Metric
from tests.alerts.world import FINANCE, NOW, ONLY_A, AlertWorld, used
from tests.examples import examples
from tests.factories import EVERYONE, model_usage, usage_row
from tests.lived_in import copied, service_at
from tests.notify.mail_server import MailServer
from tests.notify.receiver import Receiver

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
WEEK = 7 * DAY


@pytest.fixture
def world(tmp_path):
    world = AlertWorld(tmp_path)
    yield world
    world.service.close()


@pytest.fixture
def receiver():
    with Receiver(b"") as running:
        yield running


def telling(world, *receivers):
    world.reopen(BILLING_NOTIFY_URLS=",".join(one.url.replace("http:", "json:") for one in receivers))


def audited(world, action):
    entries = world.service._ledger.audit_entries(1000)
    return [(one["actor"], json.loads(one["detail"])) for one in reversed(entries) if one["action"] == action]


# ── thresholds ───────────────────────────────────────────────────────────────────────────────────


def test_a_threshold_is_told_when_it_is_passed_and_then_once_in_its_window(world):
    world.rule()
    world.book(used("1", 100))
    assert world.check() == []
    world.book(used("2", "0.000001"))
    assert world.check() == ["org_a used 100.000001 credits in a day, more than 100 credits"]
    world.book(used("3", 500))
    assert world.check() == []
    world.now += DAY
    world.book(used("4", 101, days_ago=-1))
    assert world.check() == ["org_a used 101 credits in a day, more than 100 credits"]


def test_a_rolling_window_is_told_again_only_when_it_has_moved_on_as_a_whole(world):
    world.rule(days=3)
    world.book(*(used(f"{day}", 101, days_ago=-day) for day in range(7)))
    told = []
    for _ in range(7):
        told.append(len(world.check()))
        world.now += DAY
    assert told == [1, 0, 0, 1, 0, 0, 1]


def test_late_usage_counts_on_its_own_day_as_long_as_pulls_look_for_it(world):
    world.now -= 3 * DAY
    world.rule()
    world.now += 3 * DAY
    world.book(used("late", 150, days_ago=2))
    assert world.check() == ["org_a used 150 credits in a day, more than 100 credits"]
    world.book(used("too late", 150, days_ago=3, organization="org_b"))
    assert world.check() == []


def test_days_before_the_rule_are_not_told(world):
    world.book(used("1", 150, days_ago=1))
    world.rule()
    assert world.check() == []


def test_a_threshold_in_dollars_is_the_amount_that_pages_show(world):
    world.rule(measure="amount_usd", above="0.004")
    world.book(used("1", "100"), used("2", "0.5"))
    assert world.check() == ["org_a used $0.00402 in a day, more than $0.004"]


def test_one_subject_and_every_dimension(world):
    world.book(used("1", 150, user_id="ann"), used("2", 150, user_id="bob", customer="cus_b", organization="org_b"))
    for by, subject in (("user", "bob"), ("customer", None), ("chatflow", None), ("organization", "org_b")):
        world.rule(by=by, subject=subject, name=by)
    assert sorted(world.check()) == [
        "bob used 150 credits in a day, more than 100 credits",
        "cus_a used 150 credits in a day, more than 100 credits",
        "cus_b used 150 credits in a day, more than 100 credits",
        "flow-1 used 300 credits in a day, more than 100 credits",
        "org_b used 150 credits in a day, more than 100 credits",
    ]


def test_a_model_counts_with_its_own_part_of_an_event(world):
    usage = [model_usage("big", input=900), model_usage("small", input=100)]
    tokens = {"tokens_in": 1000, "tokens_out": 0, "tokens_total": 1000, "latency_seconds": 0}
    world.book(usage_row(id="both", timestamp=NOW, models=["big", "small"], usage=usage, **tokens))
    world.rule(above=50, by="model")
    assert world.check() == ["big used 90 credits in a day, more than 50 credits"]
    (told,) = world.alerts.history(FINANCE)
    assert told.link.startswith("https://billing.example.com/?period=Custom&first_day=2026-11-20")
    assert "view=explore&by=model" in told.link


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    """A ledger with closes, late usage, corrections and undone imports, across the end of daylight saving time."""
    path = copied(tmp_path_factory, tmp_path_factory.mktemp("alerts"))
    service = service_at(path, BILLING_LOOKBACK_HOURS=str(24 * 90))
    yield service
    service.close()


@settings(max_examples=examples(6))
@given(
    st.sampled_from(["organization", "customer", "user", "chatflow", "model"]),
    st.integers(1, 31),
    st.sampled_from(["credits", "amount_usd"]),
    st.sampled_from([None, frozenset({"org_acme"})]),
    st.decimals(0, 2000, places=2),
)
def test_what_passes_is_what_usage_events_shows_for_the_linked_view(lived_in, by, days, measure, reach, above):
    reader = Principal("r", Role.ADMIN, reach)
    long_ago = datetime(2026, 8, 1, tzinfo=UTC)
    terms = Terms.parse({"kind": "threshold", "by": by, "days": days, "measure": measure, "above": above}).of(reader)
    found = lived_in.alerts._watcher.find(Rule("id", 1, "r", terms, long_ago, "r", long_ago, "r"))
    for one in found[:: max(1, len(found) // 2)]:
        query = {k: v for k, v in one.query.items() if k in {"organization", "customer", "user", "chatflow", "model"}}
        first, last = (datetime.fromisoformat(one.query[name]) for name in ("first_day", "last_day"))
        params = GetUsageEventsParams.parse({"from": first, "to": last + DAY, **query})
        if by == "model":
            rows = lived_in.explore(params, ExploreQuestion((Dimension.MODEL,), Metric(measure)), reader).rows
            shown = next(row.value for row in rows if row.values == (one.subject,))
        else:
            totals = lived_in.get_usage_events(params, reader).totals
            shown = totals.amount_usd if measure == "amount_usd" else totals.credits.total
        assert one.value == shown > above


# ── once ─────────────────────────────────────────────────────────────────────────────────────────


def test_many_looks_at_once_tell_once(world, receiver):
    telling(world, receiver)
    world.rule()
    world.book(used("1", 150), used("2", 150, organization="org_b"))
    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda _: len(world.alerts.check(FINANCE).fired), range(6)))
    assert sum(counts) == 2
    assert len(receiver.calls) == 2


def test_a_rule_with_other_terms_starts_anew_and_one_with_another_name_does_not(world):
    rule = world.rule()
    world.book(used("1", 300))
    assert len(world.check()) == 1
    terms = Terms.parse({"kind": "threshold", "measure": "credits", "above": 100})
    world.alerts.edit(FINANCE, rule.id, "another name", terms)
    assert world.check() == []
    world.alerts.edit(EVERYONE, rule.id, "another name", Terms.parse({**terms.to_json(), "above": 200}))
    assert world.check() == ["org_a used 300 credits in a day, more than 200 credits"]
    assert [who for who, _ in audited(world, "alert_rule_changed")] == ["fay", "tester"]


def test_of_a_rule_that_matches_everything_the_count_is_told_before_it_is_saved(world):
    world.book(*(used(f"{n}", 150 + n, organization=f"org_{n:02}") for n in range(30)))
    terms = Terms.parse({"kind": "threshold", "measure": "credits", "above": 0})
    preview = world.alerts.preview(FINANCE, terms)
    assert (preview.now, preview.subjects, preview.is_too_much) == (30, 30, True)
    with pytest.raises(BadParameter, match="it would send 30 alerts about 30 organizations now"):
        world.alerts.add(FINANCE, "everything", terms)
    assert world.alerts.rules(FINANCE) == []


def test_too_many_alerts_at_once_are_summed_up_and_none_is_told_twice(world, receiver):
    telling(world, receiver)
    world.book(*(used(f"{n}", 150 + n, organization=f"org_{n:02}") for n in range(30)))
    world.rule(above=0, anyway=True, name="everything")
    found = world.alerts.check(FINANCE)
    assert (len(found.fired), found.delivery.delivered, found.delivery.failed) == (31, 21, ())
    told = [json.loads(body)["title"] for _, body, _ in receiver.calls]
    assert told.count("10 more of everything") == 1
    assert "org_29 used 179 credits in a day, more than 0 credits" in told
    (rest,) = [json.loads(body)["message"] for _, body, _ in receiver.calls if b"10 more" in body]
    assert "- org_00 used 150 credits in a day" in rest
    assert world.check() == []
    states = [one.delivery.state.value for one in world.alerts.history(FINANCE)]
    assert (states.count("delivered"), states.count("covered")) == (21, 10)


# ── delivery ─────────────────────────────────────────────────────────────────────────────────────


def test_a_message_says_what_where_and_which_rule(world, receiver):
    telling(world, receiver)
    world.rule(name="Big <spenders>", days=7)
    world.book(used("1", 150, days_ago=2))
    world.check()
    ((_, body, _),) = receiver.calls
    told = json.loads(body)
    assert told["title"] == "org_a used 150 credits in 7 days, more than 100 credits"
    link = "https://billing.example.com/?period=Custom&first_day=2026-11-14&last_day=2026-11-20&organization=org_a"
    span = "from 14 Nov 2026 to 20 Nov 2026"
    assert told["message"].splitlines() == [
        f"Organization org_a used 150 credits {span} (Europe/Berlin) so far. The limit is 100 credits.",
        "Rule: Big <spenders>",
        f"View: {link}",
    ]


def test_a_receiver_that_refuses_holds_up_no_other_and_is_tried_again(world, receiver):
    with Receiver(b"") as broken:
        broken.answers[:] = [500, 500, 500]
        telling(world, broken, receiver)
        world.rule()
        world.book(used("1", 150))
        found = world.alerts.check(FINANCE)
        (one,) = world.alerts.history(FINANCE)
        assert found.delivery.delivered == 1
        (line,) = found.delivery.failed
        assert line == f"the rule: {one.title} ({one.id}): json://127…: the receiver answered 500"
        assert {label: each.state.value for label, each in one.deliveries} in (
            {"json://127…": "delivered"},
            {"json://127…": "failed"},
        )
        assert one.delivery.state.value == "failed"
        world.now += 4 * timedelta(minutes=1)
        assert world.alerts.check(FINANCE).delivery.delivered == 0
        world.now += timedelta(minutes=2)
        assert world.alerts.check(FINANCE).delivery.delivered == 1
        assert (len(broken.calls), len(receiver.calls)) == (4, 1)


def test_a_receiver_that_hangs_costs_bounded_time_and_holds_up_no_other(world, receiver, monkeypatch):
    with Receiver(b"") as hanging:
        telling(world, hanging, receiver)
        monkeypatch.setattr(notify_addresses, "TIMEOUT_SECONDS", 0.2)
        hanging.answers[:] = ["hang"] * 9
        world.rule()
        world.book(used("1", 150), used("2", 150, organization="org_b"))
        found = world.alerts.check(FINANCE)
        assert found.delivery.delivered == 2
        (line,) = found.delivery.failed  # the second alert waits: nobody seems to be there
        assert line.endswith("json://127…: no answer within 0.2 seconds")


def test_an_address_that_is_set_later_does_not_get_what_was_told_before(world, receiver):
    world.rule()
    world.book(used("1", 150))
    assert len(world.check()) == 1
    telling(world, receiver)
    assert world.alerts.check(FINANCE).delivery.delivered == 0
    assert receiver.calls == []


def test_what_could_not_be_delivered_within_a_day_is_given_up(world, receiver):
    telling(world, receiver)
    receiver.answers[:] = [500] * 3
    world.rule()
    world.book(used("1", 150))
    world.check()
    world.now += 25 * HOUR
    found = world.alerts.check(FINANCE)
    assert (found.delivery.given_up, found.delivery.delivered) == (1, 0)
    assert found.delivery.failed[0].endswith("json://127…: not delivered within 24 hours, given up")


def test_the_signed_webhook_gets_alerts_as_documents(world):
    secret = "a-secret-of-enough-characters"
    with Receiver(secret.encode()) as hook:
        world.reopen(BILLING_WEBHOOK_URL=hook.url, BILLING_WEBHOOK_SECRET=secret)
        world.rule()
        world.book(used("1", "150.5"))
        world.check()
        (document,) = hook.verified()
    (one,) = world.alerts.history(FINANCE)
    assert (document["type"], hook.ids()) == ("alert.fired", [one.id])
    data = document["data"]
    assert (data["subject"], data["value"], data["limit"], data["kind"]) == ("org_a", "150.5", "100", "threshold")
    assert data["window"] == {"from": "2026-11-19T23:00:00.000Z", "to": "2026-11-20T23:00:00.000Z"}


def test_a_test_message_reaches_every_address_and_is_audited(world, receiver):
    with Receiver(b"") as broken:
        broken.answers[:] = [503]
        telling(world, receiver, broken)
        assert world.alerts.test(FINANCE) == [("json://127…", None), ("json://127…", "the receiver answered 503")]
    assert audited(world, "alert_test") == [("fay", {"failed": 1, "receivers": 2})]
    with pytest.raises(AccessDenied):
        world.alerts.test(ONLY_A)


def test_after_a_pull_alerts_are_told_if_there_is_somebody_to_tell(world, receiver, caplog):
    world.rule()
    world.book(used("1", 150))
    world.service._after_pull(EVERYONE)
    assert world.alerts.history(FINANCE) == []
    telling(world, receiver)
    world.service._after_pull(EVERYONE)
    assert len(receiver.calls) == 1


# ── muting, removing ─────────────────────────────────────────────────────────────────────────────


def test_a_muted_rule_tells_nothing_until_then_and_afterwards_what_still_holds(world):
    rule = world.rule(days=3)
    world.book(used("1", 150))
    world.alerts.mute(FINANCE, rule.id, NOW + DAY, "month end")
    assert world.check() == []
    assert world.alerts.rules(FINANCE)[0].rule.mute.by == "fay"
    world.now += DAY
    assert len(world.check()) == 1
    (entry,) = audited(world, "alert_rule_muted")
    assert entry[1]["until"] == "2026-11-21T09:30:00.000Z"
    assert entry[1]["reason"] == "month end"


def test_a_muted_rule_can_be_let_tell_again(world):
    rule = world.rule()
    world.book(used("1", 150))
    world.alerts.mute(FINANCE, rule.id, NOW + DAY, "noise")
    world.alerts.mute(FINANCE, rule.id, None)
    assert len(world.check()) == 1
    assert len(audited(world, "alert_rule_unmuted")) == 1


@pytest.mark.parametrize(("until", "reason"), [(NOW, "x"), (NOW + 400 * DAY, "x"), (NOW + DAY, "  ")])
def test_a_mute_needs_a_reason_and_a_time_within_a_year(world, until, reason):
    rule = world.rule()
    with pytest.raises(BadParameter):
        world.alerts.mute(FINANCE, rule.id, until, reason)


def test_a_removed_rule_tells_nothing_and_its_history_stays(world):
    rule = world.rule()
    world.book(used("1", 150))
    world.check()
    world.alerts.remove(FINANCE, rule.id)
    world.now += DAY
    world.book(used("2", 150, days_ago=-1))
    assert world.check() == []
    assert [one.rule_name for one in world.alerts.history(FINANCE)] == ["the rule"]
    with pytest.raises(NotFound):
        world.alerts.remove(FINANCE, rule.id)


# ── who may see what ─────────────────────────────────────────────────────────────────────────────


def test_a_limited_account_sees_its_own_rules_and_counts_its_own_usage(world):
    mine = world.rule(ONLY_A, by="customer")
    everybodys = world.rule(name="everybody's")
    world.book(used("1", 90), used("2", 90, organization="org_b"))
    assert world.check() == []
    world.book(used("3", 20), used("4", 20, organization="org_b"))
    assert sorted(world.check()) == [
        "cus_a used 110 credits in a day, more than 100 credits",
        "org_a used 110 credits in a day, more than 100 credits",
        "org_b used 110 credits in a day, more than 100 credits",
    ]
    assert [one.rule.id for one in world.alerts.rules(ONLY_A)] == [mine.id]
    (told,) = world.alerts.history(ONLY_A)
    assert (told.rule_id, told.query["organization"]) == (mine.id, ["org_a"])
    for act in (
        lambda: world.alerts.rule(ONLY_A, everybodys.id),
        lambda: world.alerts.remove(ONLY_A, everybodys.id),
        lambda: world.alerts.mute(ONLY_A, everybodys.id, NOW + DAY, "x"),
        lambda: world.alerts.edit(ONLY_A, everybodys.id, "x", everybodys.terms),
    ):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(AccessDenied):
        world.alerts.check(ONLY_A)
    assert {one.rule.id for one in world.alerts.rules(EVERYONE)} == {mine.id, everybodys.id}


def test_analysts_neither_see_nor_change_rules(world):
    ann = Principal("ann", Role.ANALYST)
    for act in (world.alerts.rules, world.alerts.history, world.alerts.check, world.alerts.test):
        with pytest.raises(AccessDenied):
            act(ann)
    with pytest.raises(AccessDenied):
        world.rule(ann)


# ── the usual range ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["organization", "customer", "user", "chatflow"])
def test_a_day_outside_the_usual_range_is_told_with_the_range_in_words(world, by):
    world.now -= 2 * DAY
    world.rule(kind="unusual", by=by)
    world.now += 2 * DAY
    world.book(*(used(f"{day}", 200_000, days_ago=day) for day in range(2, 40)), used("odd", 900_000, days_ago=1))
    world.book(used("today", 1))
    (title,) = world.check()
    assert title.endswith("used 900,000 credits on 19 Nov 2026, unusually many")
    (told,) = world.alerts.history(FINANCE)
    assert "The usual range of the same weekday in 5 weeks is 150,000 credits to 250,000 credits." in told.text
    assert world.check() == []


# ── work that failed ─────────────────────────────────────────────────────────────────────────────


def failed_pull(world, number, outcome="failed"):
    from billing_core.values.usage_frame import Window

    ledger = world.service._ledger
    ledger.start_run(f"run-{number}", actor="cron", window=Window(NOW - DAY, NOW), incremental=True)
    if outcome != "running":
        values = {"outcome": outcome, "error": "Langfuse answered 502" if outcome == "failed" else None}
        ledger.end_run(f"run-{number}", actor="cron", action="pull", values=values)


def test_a_failed_pull_is_told_once_a_day_until_one_works(world):
    world.rule(kind="failure")
    failed_pull(world, 1)
    assert world.check() == ["A pull failed"]
    world.now += HOUR
    failed_pull(world, 2)
    assert world.check() == []
    world.now += DAY
    failed_pull(world, 3)
    assert world.check() == ["A pull failed"]
    newest = world.alerts.history(FINANCE)[0]
    assert "failed: Langfuse answered 502 (3 times in a row)" in newest.text
    world.now += HOUR
    failed_pull(world, 4, "done")
    failed_pull(world, 5, "done")
    world.now += HOUR
    failed_pull(world, 6, "running")  # nobody runs it: it was killed
    assert world.check() == ["A pull failed"]
    assert "it was stopped before it finished" in world.alerts.history(FINANCE)[0].text


def test_a_failed_push_is_told_with_its_reason(world):
    world.rule(kind="failure", process=["push"])
    log = PushLog(world.service._ledger.engine)
    log.start("push-1", actor="cron", now=world.now)
    log.end("push-1", now=world.now, outcome="failed", result="{}", error="Stripe answered 503")
    assert world.check() == ["A push failed"]
    (one,) = world.alerts.history(FINANCE)
    assert one.text.endswith("failed: Stripe answered 503")
    assert one.link == "https://billing.example.com/stripe_sync"


def test_work_that_failed_before_its_log_began_is_told_with_its_reason(world, monkeypatch):
    world.rule(kind="failure", process=["pull", "push", "reconcile"])
    unreachable = UpstreamError("the other side could not be reached")

    def connect(*_):
        return SimpleNamespace(close=lambda: None, project=raises, preflight=raises)

    def raises(*_, **__):
        raise unreachable

    monkeypatch.setattr(world.service.pulls, "_connect", connect)
    monkeypatch.setattr(world.service.stripe, "_connect", connect)
    monkeypatch.setattr("billing_core.stripe_sync.push.push", raises)
    monkeypatch.setattr("billing_core.reconcile.run.reconcile", raises)
    world.now += HOUR
    for work in (
        lambda: world.service.pull(EVERYONE),
        lambda: world.service.stripe.push(EVERYONE),
        lambda: world.service.stripe.push(EVERYONE, dry_run=True),
        lambda: world.service.stripe.reconcile(EVERYONE, NOW - DAY, NOW),
    ):
        with pytest.raises(UpstreamError):
            work()
    assert world.check() == ["A pull failed", "A push failed", "A reconciliation failed"]
    assert world.check() == []
    told = world.alerts.history(FINANCE)
    assert all("failed: the other side could not be reached" in one.text for one in told)
    assert len(audited(world, "push_failed")) == 1


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"problems": ["Stripe could not be read"], "unexplained_credits": None}, "Stripe could not be read"),
        ({"problems": [], "unexplained_credits": "12.5"}, "12.5 credits are unexplained"),
        ({"problems": [], "unexplained_credits": "0"}, None),
    ],
)
def test_a_reconciliation_with_an_unread_source_or_unexplained_credits_is_told_once(world, found, why):
    world.rule(kind="failure", process=["reconcile"])
    engine, window = world.service._ledger.engine, (NOW - DAY, NOW)
    document = json.dumps({"made_at": (NOW + HOUR).isoformat(), **found})
    keep_reconciliation(engine, actor="cron", now=NOW, start=window[0], end=window[1], result=document)
    world.now += 2 * HOUR
    assert world.check() == ([] if why is None else ["A reconciliation failed"])
    assert why is None or world.alerts.history(FINANCE)[0].text.endswith(why)
    world.now += DAY
    assert world.check() == []


def test_a_month_that_could_not_be_closed_is_told(world):
    world.rule(kind="failure", process=["close"])
    world.now += HOUR
    with pytest.raises(UpstreamError):
        world.service.months.close("2026-10", FINANCE)
    assert world.check() == ["A month close failed"]
    assert world.check() == []
    assert "2026-10: " in world.alerts.history(FINANCE)[0].text


# ── on the way to Stripe ─────────────────────────────────────────────────────────────────────────


def test_credits_unsent_for_too_long_are_told_once_a_day(world):
    world.rule(kind="unsent", hours=24)
    world.book(used("young", 10, days_ago=0.9), used("old", "150.5", days_ago=1.1), used("free", 0, days_ago=9))
    assert world.check() == ["150.5 credits unsent for more than 24 hours"]
    world.now += HOUR
    assert world.check() == []
    world.now += DAY
    assert world.check() == ["160.5 credits unsent for more than 24 hours"]


def test_what_a_person_put_on_hold_is_not_unsent(world):
    world.rule(kind="unsent", hours=24)
    world.book(used("disputed", 500, days_ago=3), used("waiting", 20, days_ago=3))
    preview = world.service.stripe.preview(EVERYONE, Action.HOLD, event_ids=["disputed"])
    world.service.stripe.decide(EVERYONE, preview, reason="disputed")
    assert world.check() == ["20 credits unsent for more than 24 hours"]


def test_a_deadline_that_nears_is_told_with_what_is_at_stake(world):
    world.rule(kind="deadline", hours=48)
    world.book(used("far", 10, days_ago=30))
    assert world.check() == []
    world.book(used("near", "150.5", days_ago=33.5), used("past", 70, days_ago=36))
    (title,) = world.check()
    assert title == "Usage must reach Stripe by 2026-11-21 22:30 Europe/Berlin"
    assert "Stripe accepts nothing older than 35 days" in world.alerts.history(FINANCE)[0].text
    assert world.check() == []


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────


def test_a_rule_that_cannot_be_looked_at_is_one_line_and_the_others_go_on(world, monkeypatch):
    world.rule(kind="deadline", name="first")
    world.rule(name="second")
    world.book(used("1", 150))

    def breaks(*_):
        raise UpstreamError("Stripe answered 502")

    monkeypatch.setattr(world.service.stripe, "problems", breaks)
    found = world.alerts.check(FINANCE)
    assert len(found.fired) == 1
    (problem,) = found.problems
    assert problem.startswith("rule first (")
    assert problem.endswith("): Stripe answered 502")


# ── weekly summaries ─────────────────────────────────────────────────────────────────────────────


def test_a_summary_is_sent_once_for_each_organization_and_week(world, receiver):
    telling(world, receiver)
    world.rule(kind="summary", name="weekly")
    world.book(used("1", 150, days_ago=1), used("2", 50, days_ago=8), used("3", 70, organization="org_b"))
    assert world.check() == []
    world.now = datetime(2026, 11, 22, 22, 59, tzinfo=UTC)
    assert world.check() == []
    world.now = datetime(2026, 11, 22, 23, 1, tzinfo=UTC)  # Monday in Berlin
    assert world.check() == ["org_a: week 2026-W47", "org_b: week 2026-W47"]
    assert world.check() == []
    world.now += WEEK
    assert world.check() == []
    message = json.loads(receiver.calls[0][1])["message"]
    assert "Usage from Monday, 16 Nov 2026 to Sunday, 22 Nov 2026 (Europe/Berlin)" in message


def test_a_summary_arrives_as_html_mail_with_the_figures_and_the_link(world):
    with MailServer() as mail:
        world.reopen(BILLING_NOTIFY_URLS=mail.address)
        world.rule(kind="summary")
        world.book(used("1", "1150.25", days_ago=1))
        world.now = datetime(2026, 11, 23, 9, tzinfo=UTC)
        assert world.alerts.check(FINANCE).delivery.delivered == 1
        (arrived,) = mail.messages
    page = arrived.get_body(("html",)).get_content()
    assert arrived["subject"] == "org_a: week 2026-W47"
    assert "<table" in page
    assert ">1,150.25</td>" in page
    assert "first_day=2026-11-16&amp;last_day=2026-11-22&amp;organization=org_a" in page


def test_a_summary_has_the_figures_of_organization_stats_and_unknown_stays_unknown(world):
    world.book(used("1", "150.25", days_ago=8), used("2", 50, days_ago=15), used("other", 70, 8, organization="org_b"))
    found = world.alerts.summary(FINANCE, "org_a")
    window = GetUsageEventsParams.parse({"from": "2026-11-09", "to": "2026-11-16"})
    (row,) = [
        one
        for one in world.service.organizations.statistics(window, EVERYONE).organizations
        if one.organization_id == "org_a"
    ]
    assert Decimal(found.facts["credits"]) == row.now.credits.total
    assert Decimal(found.facts["amount_usd"]) == row.now.amount_usd
    lines = found.text.splitlines()
    assert "Credits: 150.25 (+200 %)" in lines
    assert "Cost: unknown" in lines
    assert "Tokens: unknown" in lines
    assert "<td" in found.html
    assert "Cost" in found.html


def test_a_summary_for_a_limited_account_has_no_cost_and_no_margin(world):
    world.book(usage_row(timestamp=NOW - 8 * DAY))
    whole, limited = world.alerts.summary(FINANCE, "org_a"), world.alerts.summary(ONLY_A, "org_a")
    assert "Margin: " in whole.text
    for text in (limited.text, limited.html):
        assert "Margin" not in text
        assert "Cost" not in text
    with pytest.raises(AccessDenied):
        world.alerts.summary(ONLY_A, "org_b")
    with pytest.raises(NotFound):
        world.alerts.summary(FINANCE, "org_zzz")


def test_names_from_outside_are_text_in_a_summary(world):
    world.book(used("1", 150, days_ago=8, organization="<script>alert(1)</script>"))
    found = world.alerts.summary(FINANCE, "<script>alert(1)</script>")
    assert "<script>" not in found.html
    assert "&lt;script&gt;" in found.html


def test_no_more_than_a_certain_number_of_rules_is_kept(world, monkeypatch):
    monkeypatch.setattr(alert_service, "MOST_RULES", 1)
    world.rule()
    with pytest.raises(BadParameter, match="at most 1 rules"):
        world.rule(name="second")
