"""Pulls end to end over HTTP: sandbox → reader → rating → ledger, compared with what the generator meant."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from billing_core.errors import BadParameter, RateCardError, UpstreamError
from billing_core.ingest.pull import incremental_window, within_retention
from billing_core.ledger.engine import BookingCounts
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from billing_core.values.usage_frame import Window
from tests.addresses import UNREACHABLE
from tests.factories import EVERYONE, NOON, ledger_at

EVENTS, DAYS, SEED = 3000, 12, 11
THEN = datetime(2026, 11, 10, 12, tzinfo=UTC)
FACTS = (
    "timestamp",
    "ended_at",
    "organization_id",
    "customer_id",
    "user_id",
    "session_id",
    "chatflow_id",
    "chatflow_name",
    "environment",
    "ai_credentials_ownership",
    "tokens_in",
    "tokens_out",
    "tokens_total",
    "cost_usd",
    "storage_gb",
)
WHOLE = {"start": THEN - timedelta(days=DAYS + 5), "end": THEN + timedelta(days=5)}


@pytest.fixture(scope="module")
def langfuse():
    with SandboxProcess(events=EVENTS, days=DAYS, seed=SEED, now=THEN) as running:
        yield running


def service_for(langfuse, path, **environment):
    variables = {
        **langfuse.environment,
        "BILLING_MODE": "live",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{path}",
        **environment,
    }
    return BillingService(load_settings(variables, env_file=None))


@pytest.fixture(scope="module")
def pulled(langfuse, tmp_path_factory):
    service = service_for(langfuse, tmp_path_factory.mktemp("pulled") / "billing.duckdb")
    service.result = service.pull(EVERYONE, **WHOLE)
    yield service
    service.close()


def everything(service, **params):
    """Every event of a service, page by page."""
    first = service.get_usage_events(GetUsageEventsParams.parse({"limit": 1000, **params}), EVERYONE)
    for page in range(2, first.pagination.total_pages + 1):
        more = service.get_usage_events(GetUsageEventsParams.parse({"limit": 1000, "page": page, **params}), EVERYONE)
        first.events.extend(more.events)
    return first


def test_every_trace_becomes_one_event_with_the_facts_the_generator_meant(pulled):
    truth = SandboxDataset(SEED, EVENTS, DAYS, now=THEN).truth()
    events = {event.id: event for event in everything(pulled).events}
    assert len(events) == EVENTS == len(truth)
    for trace_id, meant in truth.items():
        event = events[trace_id]
        found = {name: getattr(event, name) for name in FACTS}
        assert found == {name: getattr(meant, name) for name in FACTS}, meant.oddity
        assert event.models == sorted(meant.models)
        assert meant.flags <= set(event.flags)


def test_credits_follow_from_the_facts_by_the_contracts_arithmetic(pulled):
    for event in everything(pulled).events:
        if {"legacy_billed", "excluded_environment"} & set(event.flags):
            continue
        tokens = Decimal(0) if "own_key" in event.flags else Decimal(event.tokens_total or 0) / 10
        compute = (event.latency_seconds * 50 / 60).quantize(Decimal("0.000001"))
        assert event.credits.ai_tokens == tokens
        assert event.credits.compute == compute
        assert event.amount_usd == event.credits.total * Decimal("0.00004")


def test_every_oddity_is_flagged_and_nothing_is_lost(pulled):
    flags = Counter(flag for event in everything(pulled).events for flag in event.flags)
    assert set(flags) >= {
        "own_key",
        "unpriced",
        "excluded_environment",
        "no_customer",
        "bad_usage",
        "conflicting_attributes",
        "double_count_suspect",
        "legacy_billed",
    }
    assert pulled.result.duplicates > 0
    assert pulled.result.unpriced == flags["unpriced"]


def test_a_second_pull_changes_nothing(pulled):
    before = everything(pulled)
    again = pulled.pull(EVERYONE, **WHOLE)
    assert again.counts == BookingCounts(unchanged=EVENTS)
    assert everything(pulled).totals == before.totals


def test_any_cut_into_windows_books_the_same_events(langfuse, pulled, tmp_path):
    """Each trace is booked complete whichever window met it first, so later windows find it unchanged."""
    service = service_for(langfuse, tmp_path / "billing.duckdb")
    cuts = [WHOLE["start"] + (WHOLE["end"] - WHOLE["start"]) * n / 4 for n in range(5)]
    changed = sum(service.pull(EVERYONE, start=a, end=b).counts.changed for a, b in pairwise(cuts))
    assert changed == 0
    assert [e.model_dump() for e in everything(service, sort="id").events] == [
        e.model_dump() for e in everything(pulled, sort="id").events
    ]
    service.close()


def test_the_legacy_api_gives_the_same_credits_for_ordinary_traces(pulled, tmp_path):
    with SandboxProcess(events=EVENTS, days=DAYS, seed=SEED, now=THEN, mode="v3") as v3:
        service = service_for(v3, tmp_path / "billing.duckdb")
        window = {"start": THEN - timedelta(days=2), "end": THEN - timedelta(days=1)}
        result = service.pull(EVERYONE, **window)
        assert result.api == "legacy"
        plain = {e.id: e for e in everything(pulled).events if not e.flags}
        same = [e for e in everything(service).events if e.id in plain and not e.flags]
        assert len(same) > 20
        for event in same:
            assert event.credits.ai_tokens == plain[event.id].credits.ai_tokens
            assert event.customer_id == plain[event.id].customer_id
        service.close()


def test_the_run_log_and_the_audit_log_name_who_pulled_what(pulled):
    run = pulled.runs()[-1]
    assert (run.actor, run.api, run.outcome, run.counts.new) == ("tester", "v2", "done", EVENTS)
    assert (run.window.start, run.window.end) == (WHOLE["start"], WHOLE["end"])
    entries = pulled._ledger.audit_entries()
    assert {"pull", "rate_card"} <= {entry["action"] for entry in entries}
    assert "sk-lf" not in str(entries)


def test_an_outage_leaves_the_ledger_as_it_was_and_says_that_data_is_partial(langfuse, tmp_path):
    path = tmp_path / "billing.duckdb"
    service = service_for(langfuse, path, LANGFUSE_HOST=UNREACHABLE)
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:9"):
        service.pull(EVERYONE, **WHOLE)
    assert everything(service).pagination.total_items == 0
    service.close()


def test_a_changed_card_file_needs_a_new_id_and_history_keeps_its_card(langfuse, tmp_path):
    path = tmp_path / "billing.duckdb"
    card = tmp_path / "card.yaml"
    text = """
id: mine-1
effective_from: 2020-01-01
credit_price_usd: 0.00004
ai: {basis: tokens, rates: [{credits_per_1000_tokens: 100}]}
compute: {credits_per_minute: 50}
storage: {credits_per_gb_month: 500}
"""
    window = {"start": THEN - timedelta(days=2), "end": THEN}
    card.write_text(text)
    service = service_for(langfuse, path, BILLING_RATE_CARD=str(card))
    first = service.pull(EVERYONE, **window)
    before = everything(service).totals
    service.close()

    card.write_text(text.replace("per_minute: 50", "per_minute: 70"))
    edited = service_for(langfuse, path, BILLING_RATE_CARD=str(card))
    with pytest.raises(RateCardError, match=r"mine-1.*new id"):
        edited.pull(EVERYONE, **window)
    edited.close()

    card.write_text(text.replace("per_minute: 50", "per_minute: 70").replace("mine-1", "mine-2"))
    renewed = service_for(langfuse, path, BILLING_RATE_CARD=str(card))
    assert renewed.pull(EVERYONE, **window).counts == BookingCounts(unchanged=first.counts.new)
    assert everything(renewed).totals == before
    earlier = renewed.pull(EVERYONE, start=THEN - timedelta(days=4), end=THEN - timedelta(days=2))
    assert earlier.counts.new > 0
    versions = {event.rate_card_version for event in everything(renewed).events}
    assert {"mine-1", "mine-2"} <= versions
    renewed.close()


def test_an_end_without_a_beginning_is_refused(langfuse, tmp_path):
    service = service_for(langfuse, tmp_path / "billing.duckdb")
    with pytest.raises(BadParameter, match="from"):
        service.pull(EVERYONE, end=THEN)
    service.close()


# ── windows ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_incremental_pull_reads_thirty_days():
    assert incremental_window(None, now=NOON, lookback=timedelta(hours=48)) == Window(NOON - timedelta(days=30), NOON)


def test_later_ones_look_back_from_where_the_last_ended():
    covered = NOON - timedelta(days=3)
    window = incremental_window(covered, now=NOON, lookback=timedelta(hours=48))
    assert window == Window(covered - timedelta(hours=48), NOON)


def test_a_clock_that_went_back_still_makes_a_window():
    window = incremental_window(NOON + timedelta(hours=1), now=NOON, lookback=timedelta(0))
    assert window.start < window.end == NOON


def test_a_window_nobody_named_is_shortened_to_the_retention():
    window = Window(NOON - timedelta(days=30), NOON)
    assert within_retention(window, 14, now=NOON).start == NOON - timedelta(days=14)
    assert within_retention(window, None, now=NOON) == window


def test_an_interrupted_pull_is_shown_as_partial(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger = ledger_at(path)
    ledger.start_run("dead", actor="cron", window=Window(NOON, NOON + timedelta(days=1)), incremental=True)
    ledger.engine.close()
    service = BillingService(
        load_settings({"BILLING_MODE": "live", "BILLING_WAREHOUSE_URL": f"duckdb:///{path}"}, env_file=None)
    )
    freshness = service.freshness()
    assert (freshness.running, freshness.problem) == (False, "it was stopped before it finished")
    service.close()
