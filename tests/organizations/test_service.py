"""Organization statistics through the door: what is counted, who may ask, and that everything ties out."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied
from billing_core.organizations.figures import TokensByClass, movers
from billing_core.types import GetUsageEventsParams, SyncStatus
from tests.factories import EVERYONE, NOON, model_usage, service_over, usage_row

DAY = timedelta(days=1)
WEEK = {"from": NOON.replace(hour=0), "to": NOON.replace(hour=0) + 7 * DAY}
ONLY_A = Principal("ada", Role.ADMIN, frozenset({"org_a"}))

ROWS = [
    # Organization A: two people in two chats, three requests, one of them not answered by a model.
    usage_row(id="a1", session_id="s1", user_id="ann", latency_seconds=60),
    usage_row(id="a2", session_id="s1", user_id="ann", latency_seconds=120, timestamp=NOON + DAY, has_error=True),
    usage_row(
        id="a3",
        session_id="s2",
        user_id="bob",
        latency_seconds=0,
        timestamp=NOON + 2 * DAY,
        models=[],
        usage=[],
        tokens_in=None,
        tokens_out=None,
        tokens_total=None,
        cost_usd=None,
        chatflow_id=None,
        chatflow_name="Search",
        storage_gb=Decimal(2),
        has_error=None,
    ),
    # Organization B: the same user id is another person; its own key, so Langfuse's cost is not ours.
    usage_row(
        id="b1",
        organization_id="org_b",
        customer_id="cus_b",
        session_id=None,
        user_id="ann",
        ai_credentials_ownership="user",
        cost_usd=Decimal("0.03"),
        chatflow_id="flow-2",
        usage=[model_usage("gpt-5", input=100, output=50, cache_read=30, reasoning=20, other=5)],
        models=["claude", "gpt-5"],
    ),
    # Nobody's: neither organization nor customer.
    usage_row(id="n1", organization_id=None, customer_id=None, user_id=None, session_id="s1", timestamp=NOON + DAY),
    # The week before, of A alone.
    usage_row(id="a0", timestamp=NOON - 5 * DAY, latency_seconds=0),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = service_over(tmp_path_factory.mktemp("figures") / "billing.duckdb", ROWS)
    yield service
    service.close()


def ask(service, principal=EVERYONE, **asked):
    return service.organizations.statistics(GetUsageEventsParams.parse({**WEEK, **asked}), principal)


def of(statistics, organization_id):
    return next(one for one in statistics.organizations if one.organization_id == organization_id)


def test_an_organization_counts_its_own_people_chats_requests_and_answers(service):
    now = of(ask(service), "org_a").now
    assert (now.events, now.chats, now.users, now.messages_sent, now.messages_generated) == (3, 2, 2, 3, 2)
    assert (now.chatflows, now.models) == (2, ("gpt-5",))


def test_credits_are_summed_by_type_and_priced(service):
    now = of(ask(service), "org_a").now
    assert now.credits.model_dump() == {
        "ai_tokens": Decimal(200),
        "compute": Decimal(150),
        "storage": Decimal(1000),
        "total": Decimal(1350),
    }
    assert now.amount_usd == Decimal("0.054")


def test_the_margin_is_over_events_whose_cost_is_known(service):
    # a3 has no known cost: its 1000 credits are in the amount but not in the margin.
    now = of(ask(service), "org_a").now
    assert now.cost_usd == Decimal("0.02")
    assert now.margin_usd == Decimal(350) * Decimal("0.00004") - Decimal("0.02")


def test_with_the_customers_own_key_the_cost_is_not_ours(service):
    now = of(ask(service), "org_b").now
    assert now.cost_usd == Decimal("0.03")
    assert now.margin_usd == now.amount_usd == Decimal("0.002")


def test_an_unknown_cost_makes_the_margin_unknown_and_not_the_whole_amount(tmp_path):
    service = service_over(tmp_path / "b.duckdb", [usage_row(cost_usd=None)])
    now = of(ask(service), "org_a").now
    assert (now.cost_usd, now.margin_usd) == (None, None)
    service.close()


def test_tokens_are_told_apart_by_class(service):
    assert of(ask(service), "org_b").now.tokens_by_class == TokensByClass(100, 50, 30, 0, 20, 5)


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "answers"), [(10, 0, 0), (100, None, 0), (None, None, 0), (10, 1, 1)]
)
def test_only_output_tokens_make_an_answer(tmp_path, tokens_in, tokens_out, answers):
    row = usage_row(tokens_in=tokens_in, tokens_out=tokens_out, tokens_total=100)
    service = service_over(tmp_path / "b.duckdb", [row])
    assert of(ask(service), "org_a").now.messages_generated == answers
    service.close()


def test_what_no_event_names_is_unknown(service):
    rows = ask(service, search="a3").organizations
    assert [one.organization_id for one in rows if one.now.events] == ["org_a"]
    now = rows[0].now
    assert (now.tokens_total, now.tokens_by_class, now.cost_usd, now.error_share) == (None, TokensByClass(), None, None)


def test_latency_has_an_average_and_a_95th_percentile_in_seconds(service):
    now = of(ask(service), "org_a").now
    assert now.latency_average == Decimal(60)
    assert now.latency_p95 == Decimal("114.000000")  # between 60 and 120, nine tenths of the way


def test_the_error_share_is_over_events_of_which_it_is_known(service):
    now = of(ask(service), "org_a").now
    assert (now.failed_events, now.judged_events, now.error_share) == (1, 2, Decimal("0.5"))


def test_events_without_an_organization_are_a_row_of_their_own(service):
    statistics = ask(service)
    assert [one.organization_id for one in statistics.organizations] == ["org_a", None, "org_b"]
    nobody = of(statistics, None).now
    assert (nobody.events, nobody.credits.total, nobody.failed_credits) == (1, Decimal(150), Decimal(150))


def test_the_total_is_the_sum_of_the_rows_and_ties_out_with_usage_events(service):
    statistics = ask(service)
    usage = service.get_usage_events(GetUsageEventsParams.parse(WEEK), EVERYONE)
    total = statistics.total
    assert statistics.ties_out
    assert total.credits == usage.totals.credits
    assert (total.amount_usd, total.cost_usd) == (usage.totals.amount_usd, usage.totals.cost_usd)
    assert total.events == usage.pagination.total_items == 5
    for name in ("events", "chats", "users", "messages_sent", "messages_generated", "chatflows", "unsynced_credits"):
        assert getattr(total, name) == sum(getattr(one.now, name) for one in statistics.organizations), name


def test_unsynced_and_failed_credits_follow_the_sync_status(service):
    statistics = ask(service)
    for status, name in ((SyncStatus.ERROR, "failed_credits"), (SyncStatus.PENDING, "unsynced_credits")):
        shown = service.get_usage_events(GetUsageEventsParams.parse({**WEEK, "status": status}), EVERYONE)
        assert getattr(statistics.total, name) >= shown.totals.credits.total > 0
    assert statistics.total.unsynced_credits == statistics.total.credits.total


def test_each_day_has_its_credits_and_quiet_days_have_none(service):
    statistics = ask(service)
    assert statistics.first_day == "2026-11-01"
    assert of(statistics, "org_a").daily[:4] == (Decimal(150), Decimal(200), Decimal(1000), Decimal(0))
    assert len({len(one.daily) for one in statistics.organizations}) == 1


def test_the_period_before_is_compared(service):
    statistics = ask(service)
    assert of(statistics, "org_a").previous.credits.total == Decimal(100)
    assert of(statistics, "org_b").previous.events == 0
    assert statistics.previous_total.credits.total == Decimal(100)
    assert [(m.organization_id, m.change, m.relative) for m in movers(statistics.organizations)] == [
        ("org_a", Decimal(1250), Decimal("12.5")),
        (None, Decimal(150), None),
        ("org_b", Decimal(50), None),
    ]


def test_an_organization_that_fell_silent_still_has_its_row(service):
    later = ask(service, **{"from": NOON + 5 * DAY, "to": NOON + 10 * DAY})
    assert of(later, "org_a").now.events == 0
    assert of(later, "org_a").previous.events == 3


def test_without_a_beginning_there_is_nothing_before(service):
    statistics = service.organizations.statistics(GetUsageEventsParams(), EVERYONE)
    assert statistics.previous_window is None
    assert statistics.previous_total is None
    assert all(one.previous is None for one in statistics.organizations)


def test_a_question_without_answers_is_empty_and_ties_out(service):
    statistics = ask(service, search="nothing-has-this")
    assert (statistics.organizations, statistics.first_day, statistics.ties_out) == ((), None, True)
    assert statistics.total.events == 0
    assert statistics.total.cost_usd is None


@pytest.mark.parametrize("role", [Role.ANALYST, Role.FINANCE])
def test_only_admins_may_ask(service, role):
    with pytest.raises(AccessDenied, match="needs the admin role"):
        service.organizations.statistics(GetUsageEventsParams(), Principal("eve", role))
    with pytest.raises(AccessDenied, match="needs the admin role"):
        service.organizations.active_users(GetUsageEventsParams(), Principal("eve", role))


def test_an_admin_limited_to_an_organization_sees_it_alone(service):
    statistics = ask(service, ONLY_A)
    assert [one.organization_id for one in statistics.organizations] == ["org_a"]
    assert statistics.total.credits.total == Decimal(1350)
    assert statistics.ties_out
    with pytest.raises(AccessDenied, match="ada has no access to"):
        ask(service, ONLY_A, organization="org_b")


def test_active_and_new_users_are_counted_per_day(service):
    users = service.organizations.active_users(GetUsageEventsParams.parse(WEEK), EVERYONE)
    # "user-1" of the week before never returns; "ann" of A and "ann" of B are two people, new on the first day.
    assert [(one.day.isoformat(), one.active, one.new) for one in users] == [
        ("2026-11-01", 2, 2),
        ("2026-11-02", 1, 0),
        ("2026-11-03", 1, 1),
    ]


def test_the_published_document_has_exact_text_and_skips_who_did_nothing(service):
    document = ask(service).to_json()
    first = document["organizations"][0]
    assert first["organization_id"] == "org_a"
    assert first["credits"] == {"ai_tokens": "200", "compute": "150", "storage": "1000", "total": "1350"}
    assert (first["amount_usd"], first["cost_usd"], first["tokens_total"]) == ("0.054", "0.02", 2000)
    assert document["totals"]["credits"]["total"] == "1550"
    later = ask(service, **{"from": NOON + 5 * DAY, "to": NOON + 10 * DAY}).to_json()
    assert later["organizations"] == []
