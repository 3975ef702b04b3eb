"""What a cell of an imported event may hold, and what the cells of a row must agree in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.imports.readers import RowBatch
from billing_core.imports.validation import ValidationRules, check, header_faults
from billing_core.rating.rate import CREDITS
from billing_core.types import FLAT_FIELDS, Flag
from tests.factories import CARD, events_table, model_usage, usage_row
from tests.imports.world import NOW, ImportWorld, free, line

RULES = ValidationRules(ZoneInfo("Europe/Berlin"), NOW, {"builtin-1": Decimal("0.00004"), "dear": Decimal("0.5")})


def checked(*rows, rules=RULES):
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row[name] or None for row in rows], pa.string()) for name in names}
    return check(RowBatch(list(range(1, len(rows) + 1)), columns), rules)


def fault(**cells):
    """Field and reason of the one thing that is wrong with an event."""
    found = checked(line(**cells))
    assert found.rejected_rows == 1
    assert found.table.num_rows == 0
    return found.rejected[0].field, found.rejected[0].reason


def test_an_exported_event_is_what_it_was():
    [event] = checked(line()).table.to_pylist()
    assert event["timestamp"] == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert event["latency_seconds"] == 60
    assert event["models"] == ["gpt-5"]
    assert event["credits_total"] == 150
    assert event["credit_price_usd"] == Decimal("0.00004")
    assert event["trace_base"] == "http://langfuse.test/project/project/traces/"
    assert (event["is_late"], event["is_reversal"], event["marks"]) == (False, False, "")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("credits_total", "NaN"),
        ("credits_total", "Infinity"),
        ("credits_total", "1_000"),
        ("credits_total", "0,5"),
        ("credits_total", "150.0000001"),
        ("credits_total", "1e400"),
        ("credits_total", "9999999999999"),
        ("credits_total", "１５０"),
        ("amount_usd", "-0.006"),
        ("tokens_in", "-600"),
        ("tokens_in", "600.5"),
        ("tokens_in", "9" * 19),
        ("latency_seconds", "-60"),
        ("latency_seconds", "nan"),
        ("storage_gb", "-1"),
        ("cost_usd", "-0.01"),
        ("credits_ai_tokens", ""),
        ("id", ""),
        ("id", "x" * 1001),
        ("user_id", "x" * 10_001),
        ("user_id", "a\0b"),
        ("timestamp", "yesterday"),
        ("timestamp", "2026-02-30T00:00:00Z"),
        ("timestamp", "1999-12-31T23:59:59Z"),
        ("timestamp", "2026-11-21T12:00:01Z"),
        ("timestamp", "0001-01-01T00:00:00+14:00"),
        ("ended_at", "2026-11-01T11:59:59Z"),
        ("synced_at", "2027-01-01T00:00:00Z"),
        ("sync_status", "sent"),
        ("sync_status", "excluded"),
        ("flags", '["vip"]'),
        ("flags", "own_key"),
        ("flags", '{"own_key": true}'),
        ("flags", "[" * 100_000),
        ("models", '["a", "a"]'),
        ("models", '["\\ud800"]'),
        ("models", '["a\\u001fb"]'),
        ("rate_card_version", "acme-2"),
        ("trace_url", "javascript:alert(1)//trace-1"),
        ("trace_url", "http://langfuse.test/traces/another"),
    ],
)
def test_what_a_cell_may_not_hold_is_named_with_its_field_and_value(cell, text):
    field, reason = fault(**{cell: text})
    assert field == cell
    assert "expected" in reason or "at most" in reason


def test_reasons_say_the_value_and_what_is_accepted():
    assert fault(tokens_in="many") == ("tokens_in", "'many' is not accepted; expected a whole number")
    assert fault(rate_card_version="acme-2")[1] == (
        "'acme-2' is not accepted; expected a rate card that is known here; import the rate card first"
    )
    assert fault(credits_total="151")[1] == (
        "'151' is not accepted; ai_tokens, compute and storage add up to 150.000000"
    )
    assert fault(amount_usd="0.0061") == (
        "amount_usd",
        "'0.0061' is not accepted; expected credits_total × 0.000040000000 USD",
    )
    assert fault(latency_seconds="61") == (
        "latency_seconds",
        "'61' is not accepted; ended_at is 60 seconds after timestamp",
    )


def test_a_bad_row_does_not_stop_the_others():
    found = checked(line("a"), line("b", credits_total="7"), line("c"))
    assert found.table["id"].to_pylist() == ["a", "c"]
    assert [(one.row, one.field) for one in found.rejected] == [(2, "credits_total")]


def test_a_row_with_several_faults_counts_once_and_names_them_all():
    found = checked(line(tokens_in="-1", storage_gb="-1", sync_status="sent"))
    assert found.rejected_rows == 1
    assert {one.field for one in found.rejected} == {"tokens_in", "storage_gb", "sync_status"}


def test_times_with_an_offset_are_converted_and_those_without_are_of_the_timezone_that_was_named():
    found = checked(
        line("a", timestamp="2026-11-01T13:00:00+01:00"),
        line("b", timestamp="2026-11-01 13:00:00", ended_at="2026-11-01T13:01"),
        line("c"),
    )
    assert set(found.table["timestamp"].to_pylist()) == {datetime(2026, 11, 1, 12, tzinfo=UTC)}
    assert found.without_offset == 2


def test_times_are_cut_to_milliseconds_by_an_export_so_a_latency_may_differ_by_less_than_one():
    assert checked(line(latency_seconds="60.000999")).rejected_rows == 0
    assert checked(line(latency_seconds="60.0011")).rejected_rows == 1


def test_numbers_may_be_spelt_with_zeros_a_plus_or_an_exponent_as_long_as_they_are_exact():
    found = checked(
        line(credits_total="+1.50e2", storage_gb="0E-12", cost_usd="1E-12", amount_usd="0.006000000000000000")
    )
    assert found.rejected == []
    [event] = found.table.to_pylist()
    assert event["cost_usd"] == Decimal("1E-12")
    assert event["credits_total"] == 150


@given(st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=6))
def test_credits_are_read_exactly_or_refused(value):
    found = checked(line(credits_ai_tokens=f"{value:f}"))
    wrong = [one.field for one in found.rejected]
    if not 0 <= value <= 10**11:
        assert "credits_ai_tokens" in wrong
    else:
        assert "credits_ai_tokens" not in wrong
        total = value + 50
        if total < 10**12:
            amount = total * Decimal("0.00004")
            again = checked(line(credits_ai_tokens=f"{value:f}", credits_total=f"{total:f}", amount_usd=f"{amount:f}"))
            assert pa.scalar(value, CREDITS) == again.table["credits_ai_tokens"][0]


def test_marks_of_the_ledger_are_kept_apart_from_the_flags_of_rating():
    [event] = checked(
        line(flags='["mapped_customer", "double_count_suspect", "carried", "changed_after_sending"]')
    ).table.to_pylist()
    assert event["flags"] == ["double_count_suspect", "mapped_customer"]
    assert event["marks"] == "carried,changed_after_sending"


def test_records_of_the_earlier_system_name_no_card_and_their_price_follows_from_the_amount():
    cells = {"rate_card_version": "legacy", "flags": '["legacy_billed"]', "sync_status": "processed"}
    prices = [
        checked(line(**cells, amount_usd=amount)).table["credit_price_usd"].to_pylist()[0]
        for amount in ("0.006", "75", "0.0003")
    ]
    assert prices == [Decimal("0.00004"), Decimal("0.5"), Decimal("0.000002")]
    assert fault(**cells, amount_usd="0.0000000000001")[0] == "amount_usd"


def test_an_event_without_a_card_is_worth_nothing():
    assert checked(free(rate_card_version="none", flags='["unpriced"]')).rejected == []
    assert fault(rate_card_version="none")[0] == "amount_usd"


def test_a_price_that_is_not_the_cards_is_refused():
    assert checked({**line(), "credit_price_usd": "0.00004"}).rejected == []
    assert [one.field for one in checked({**line(), "credit_price_usd": "0.5"}).rejected] == ["credit_price_usd"]


def test_usage_by_model_is_whole_numbers_and_exact_costs():
    good = '[{"model": "gpt-5", "input": 600, "output": 400, "cost_usd": "0.01"}]'
    [event] = checked({**line(), "usage": good}).table.to_pylist()
    assert event["usage"][0]["input"] == 600
    assert event["usage"][0]["cost_usd"] == Decimal("0.01")
    for bad in ('[{"input": -1}]', '[{"input": 1.5}]', '[{"secret": 1}]', "[1]", "{}", '[{"cost_usd": "NaN"}]'):
        assert [one.field for one in checked({**line(), "usage": bad}).rejected] == ["usage"]


def test_only_what_came_after_a_close_may_take_usage_back():
    back = {
        "credits_ai_tokens": "-100",
        "credits_compute": "-50",
        "credits_total": "-150",
        "amount_usd": "-0.006",
        "tokens_in": "-600",
        "tokens_out": "-400",
        "tokens_total": "-1000",
        "cost_usd": "-0.01",
        "latency_seconds": "0",
    }
    assert checked(line(**back)).rejected_rows == 1
    [event] = checked(line(**back, flags='["late_after_close"]')).table.to_pylist()
    assert (event["is_late"], event["is_reversal"], event["flags"]) == (True, True, [])


def test_columns_that_are_missing_double_or_unknown_are_named():
    names = [name for name in FLAT_FIELDS if name != "user_id"]
    assert header_faults(FLAT_FIELDS) == []
    assert [one.field for one in header_faults(names)] == ["user_id"]
    assert [one.field for one in header_faults([*FLAT_FIELDS, "id"])] == ["id"]
    assert [one.field for one in header_faults([*FLAT_FIELDS, "secret"])] == ["'secret'"]


def test_what_no_rating_gives_is_refused(tmp_path):
    world = ImportWorld(tmp_path, LANGFUSE_EXCLUDED_ENVIRONMENTS="langfuse-*")
    own = {"tokens_in": "", "tokens_out": "", "tokens_total": "", "models": "[]"}
    plan = world.plan_lines(
        line("eval", environment="langfuse-experiment"),
        line("huge", credits_ai_tokens="100000000001", credits_total="100000000051", amount_usd="4000000.00204", **own),
    )
    assert [(one.row, one.field) for one in plan.rejected] == [(1, "environment"), (2, "credits_ai_tokens")]


NO_TOKENS = {"tokens_in": "", "tokens_out": "0", "tokens_total": "", "models": "[]"}
UNUSED = {**NO_TOKENS, "cost_usd": "0"}
LASTS_NOTHING = {"latency_seconds": "0", "ended_at": "2026-11-01T12:00:00.000Z"}
NO_AI = {"credits_ai_tokens": "0", "credits_total": "50", "amount_usd": "0.002"}
STORED = {"credits_storage": "5", "credits_total": "155", "amount_usd": "0.0062"}


@pytest.mark.parametrize(
    ("cells", "field", "expected"),
    [
        ({"flags": '["excluded_environment"]'}, "credits_total", "0 of what is flagged excluded_environment"),
        (
            {"flags": '["excluded_environment", "no_customer"]', "sync_status": "error"},
            "credits_total",
            "0 of what is flagged excluded_environment",
        ),
        ({"flags": '["own_key"]'}, "credits_ai_tokens", "0 where the customer brought the key (own_key)"),
        ({"ai_credentials_ownership": "User"}, "credits_ai_tokens", "0 where the customer brought the key (own_key)"),
        ({"ai_credentials_ownership": "user", "sync_status": "processed"}, "credits_ai_tokens", "0 where the customer"),
        (UNUSED, "credits_ai_tokens", "0 without tokens and without cost_usd"),
        ({**UNUSED, "usage": '[{"model": "m", "input": 0}]'}, "credits_ai_tokens", "0 without tokens"),
        (LASTS_NOTHING, "credits_compute", "0 at latency_seconds of 0"),
        (STORED, "credits_storage", "0 without storage_gb"),
        ({**STORED, "storage_gb": "0"}, "credits_storage", "0 without storage_gb"),
    ],
)
def test_credits_of_what_costs_nothing_are_refused(cells, field, expected):
    name, reason = fault(**cells)
    assert name == field
    assert reason.split("; ")[0].endswith("is not accepted")
    assert f"expected {expected}" in reason


@pytest.mark.parametrize(
    "cells",
    [
        {"flags": '["own_key"]', "ai_credentials_ownership": "user", **NO_AI},
        {"flags": '["own_key", "legacy_billed"]', "rate_card_version": "legacy", "sync_status": "processed"},
        {"flags": '["legacy_billed"]', "rate_card_version": "legacy", "sync_status": "processed", **UNUSED},
        {"flags": '["excluded_environment", "legacy_billed"]', "sync_status": "processed"},
        {"flags": '["excluded_environment"]', "sync_status": "processed"},
        NO_TOKENS,
        {**UNUSED, "tokens_total": "1000"},
        {**UNUSED, "usage": '[{"model": "m", "input": 1000}]'},
        {**STORED, "storage_gb": "0.01"},
    ],
)
def test_credits_of_what_was_used_or_recorded_are_taken_as_they_are(cells):
    assert checked(line(**cells)).rejected == []


def cards():
    priced = st.decimals("0.01", 500, places=2)
    tokens = st.builds(lambda rate: {"basis": "tokens", "rates": [{"credits_per_1000_tokens": rate}]}, priced.map(str))
    return st.builds(
        lambda margin, ai: CARD.model_validate({**CARD.model_dump(), "margin": str(margin), "ai": ai}),
        priced,
        tokens | st.just({"basis": "cost"}),
    )


@given(
    cards(),
    st.none() | st.integers(0, 10**6),
    st.none() | st.decimals(0, 100, places=12),
    st.integers(0, 10**9),
    st.none() | st.decimals(0, 100, places=12),
    st.sampled_from([None, "user", "USER", "platform"]),
    st.sampled_from([None, "production", "langfuse-evals"]),
    st.booleans(),
)
def test_no_rating_gives_what_is_refused(card, tokens, cost, microseconds, storage, ownership, environment, bad):
    usage = [] if tokens is None and cost is None else [model_usage(cost_usd=cost, input=tokens or 0)]
    row = usage_row(
        tokens_in=tokens,
        tokens_out=None,
        tokens_total=tokens,
        usage=usage,
        cost_usd=cost,
        storage_gb=storage,
        latency_seconds=Decimal(microseconds) / 10**6,
        ai_credentials_ownership=ownership,
        environment=environment,
        bad_usage=bad,
    )
    [event] = events_table([row], card=card).to_pylist()
    ai, compute, stored = (event[f"credits_{part}"] for part in ("ai_tokens", "compute", "storage"))
    assert not (ai and (Flag.OWN_KEY in event["flags"] or (ownership or "").lower() == "user"))
    assert not (ai and not tokens and not cost)
    assert not (compute and not event["latency_seconds"])
    assert not (stored and not storage)
    assert not (event["credits_total"] and Flag.EXCLUDED_ENVIRONMENT in event["flags"])
