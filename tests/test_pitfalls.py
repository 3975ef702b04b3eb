"""The mistakes of the system this one replaces, one test each, by the name the issue gives them."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from billing_core.access import Principal, Role
from billing_core.rating.card import AiRates, Basis
from billing_core.rating.rate import rate
from billing_core.types import GetUsageEventsParams
from tests.factories import CARD, EVERYONE, model_usage, service_over, usage_row, usage_table


def only(tmp_path, **facts):
    service = service_over(tmp_path / "billing.duckdb", [usage_row(**facts)])
    event = service.get_usage_events(GetUsageEventsParams(), EVERYONE).events[0]
    service.close()
    return event


def test_seconds_are_not_divided_as_if_they_were_milliseconds(tmp_path):
    event = only(tmp_path, latency_seconds=60)
    assert (event.latency_seconds, event.credits.compute) == (60, 50)


def test_there_is_one_source_of_rates_and_no_second_one_to_contradict_it():
    """The built-in figures stand in the card file and nowhere in the code."""
    package = Path("billing_core")
    for figure in ("0.00004", "0.00005", "0.000025"):
        found = [
            str(p)
            for p in package.rglob("*.py")
            if "sandbox" not in p.parts and figure in p.read_text(encoding="utf-8")
        ]
        assert found == []
    assert "0.00004" in (package / "rating" / "builtin.yaml").read_text(encoding="utf-8")


def test_nothing_is_rounded_up_per_trace_and_part(tmp_path):
    event = only(tmp_path, usage=[model_usage(input=1)], latency_seconds=0.6, storage_gb=Decimal("0.000001"))
    assert (event.credits.ai_tokens, event.credits.compute, event.credits.storage) == (
        Decimal("0.1"),
        Decimal("0.5"),
        Decimal("0.0005"),
    )


def test_the_margin_is_applied_once():
    card = CARD.model_copy(update={"ai": AiRates(basis=Basis.COST), "margin": Decimal(2)})
    row = rate(usage_table([usage_row(cost_usd=Decimal("0.01"))]), card).to_pylist()[0]
    assert row["credits_ai_tokens"] == Decimal("0.01") * 2 / Decimal("0.00004")


def test_token_counts_are_what_was_used_not_0(tmp_path):
    event = only(tmp_path)
    assert (event.tokens_in, event.tokens_out, event.tokens_total) == (600, 400, 1000)


def test_storage_is_rated(tmp_path):
    event = only(tmp_path, storage_gb=Decimal("1.5"))
    assert (event.storage_gb, event.credits.storage) == (Decimal("1.5"), Decimal(750))


def test_processed_events_do_not_vanish_from_the_list(tmp_path):
    rows = [usage_row(id="new"), usage_row(id="billed", legacy_status="processed", legacy_total=Decimal(9))]
    service = service_over(tmp_path / "billing.duckdb", rows)
    found = service.get_usage_events(GetUsageEventsParams(), EVERYONE)
    assert {(event.id, str(event.sync_status)) for event in found.events} == {
        ("new", "pending"),
        ("billed", "processed"),
    }
    service.close()


def test_the_filter_comes_before_paging_and_the_totals_follow_it(tmp_path):
    rows = [usage_row(id=f"{n:02}", organization_id="org_rare" if n == 0 else "org_a") for n in range(30)]
    service = service_over(tmp_path / "billing.duckdb", rows)
    found = service.get_usage_events(GetUsageEventsParams(organization="org_rare", limit=10), EVERYONE)
    assert [event.id for event in found.events] == ["00"]
    assert (found.pagination.total_items, found.totals.credits.total) == (1, Decimal(150))
    service.close()


def test_sort_and_filter_are_obeyed_not_accepted_and_ignored(tmp_path):
    rows = [usage_row(id=name, latency_seconds=s) for name, s in (("a", 5), ("b", 1), ("c", 9))]
    service = service_over(tmp_path / "billing.duckdb", rows)
    found = service.get_usage_events(GetUsageEventsParams(sort="latency_seconds", order="asc"), EVERYONE)
    assert [event.id for event in found.events] == ["b", "a", "c"]
    service.close()


def test_the_status_is_part_of_every_event(tmp_path):
    assert str(only(tmp_path, customer_id=None).sync_status) == "error"


def test_missing_ids_do_not_compare_equal_and_grant_access(tmp_path):
    service = service_over(tmp_path / "billing.duckdb", [usage_row(organization_id=None)])
    nobody = Principal("nobody", Role.ANALYST, frozenset())
    assert service.get_usage_events(GetUsageEventsParams(), nobody).events == []
    service.close()


def test_days_are_not_shifted_by_the_timezone(tmp_path):
    late = usage_row(timestamp=datetime(2026, 11, 1, 3, 30, tzinfo=UTC))
    service = service_over(tmp_path / "billing.duckdb", [late], BILLING_TIMEZONE="America/New_York")
    assert [str(day.day) for day in service.summary(GetUsageEventsParams(), EVERYONE).days] == ["2026-10-31"]
    october = GetUsageEventsParams.parse({"from": "2026-10-01", "to": "2026-11-01"})
    assert service.get_usage_events(october, EVERYONE).pagination.total_items == 1
    service.close()
