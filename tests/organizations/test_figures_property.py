"""Whatever the events are, every figure equals a plain recount of the events that Usage Events shows."""

from datetime import timedelta
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.types import GetUsageEventsParams, SyncStatus
from tests.examples import examples
from tests.factories import EVERYONE, NOON, service_over, usage_row

UNSYNCED = {SyncStatus.PENDING, SyncStatus.SENDING, SyncStatus.ERROR}

ids = st.sampled_from([None, "", "one", "two"])
event = st.fixed_dictionaries(
    {
        "organization_id": st.sampled_from([None, "org_a", "org_b"]),
        "customer_id": st.sampled_from([None, "cus_a"]),
        "user_id": ids,
        "session_id": ids,
        "chatflow_id": ids,
        "chatflow_name": ids,
        "cost_usd": st.none() | st.decimals(0, 5, places=6),
        "storage_gb": st.none() | st.decimals(0, 3, places=3),
        "ai_credentials_ownership": st.sampled_from([None, "user", "platform"]),
        "latency_seconds": st.integers(0, 500),
        "has_error": st.sampled_from([None, True, False]),
        "timestamp": st.integers(0, 72).map(lambda hours: NOON + timedelta(hours=hours)),
    }
)


def present(values):
    return {value for value in values if value}


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(event, max_size=12))
def test_every_figure_is_what_a_recount_gives(events, tmp_path_factory):
    rows = [usage_row(**facts, id=f"e{n}") for n, facts in enumerate(events)]
    failed = {f"e{n}": facts["has_error"] for n, facts in enumerate(events)}
    path = tmp_path_factory.mktemp("recount") / "billing.duckdb"
    service = service_over(path, rows)
    shown = service.get_usage_events(GetUsageEventsParams(limit=1000), EVERYONE).events
    statistics = service.organizations.statistics(GetUsageEventsParams(), EVERYONE)
    service.close()

    assert statistics.ties_out
    assert {one.organization_id for one in statistics.organizations} == {e.organization_id for e in shown}
    for one in statistics.organizations:
        mine, now = [e for e in shown if e.organization_id == one.organization_id], one.now
        theirs = {e.id for e in mine if "own_key" in e.flags}
        judged = [failed[e.id] for e in mine if failed[e.id] is not None]
        costs = [e.cost_usd for e in mine if e.cost_usd is not None]
        known = [e for e in mine if e.cost_usd is not None or e.id in theirs]
        borne = sum(((e.cost_usd or Decimal(0)) for e in known if e.id not in theirs), Decimal(0))
        assert now.events == now.messages_sent == len(mine)
        assert now.chats == len(present(e.session_id for e in mine))
        assert now.users == len(present(e.user_id for e in mine))
        assert now.chatflows == len(present(e.chatflow_id or e.chatflow_name for e in mine))
        assert now.messages_generated == sum(1 for e in mine if e.tokens_out)
        assert now.credits.total == sum(e.credits.total for e in mine)
        assert now.amount_usd == sum(e.amount_usd for e in mine)
        assert now.cost_usd == (sum(costs) if costs else None)
        assert now.margin_usd == (sum(e.amount_usd for e in known) - borne if known else None)
        assert now.latency_sum == sum(Decimal(str(e.latency_seconds)) for e in mine)
        assert (now.failed_events, now.judged_events) == (sum(judged), len(judged))
        assert now.unsynced_credits == sum(e.credits.total for e in mine if e.sync_status in UNSYNCED)
        assert now.failed_credits == sum(e.credits.total for e in mine if e.sync_status is SyncStatus.ERROR)
        assert sum(one.daily) == now.credits.total
        assert set(one.customer_ids) == present(e.customer_id for e in mine)
