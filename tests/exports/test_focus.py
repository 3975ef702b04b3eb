"""FOCUS rows of usage events: what each column says, and that no credit and no cent gets lost."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role, scope_of
from billing_core.errors import BadParameter
from billing_core.exports.csv_file import csv_header, csv_pieces
from billing_core.exports.focus import focus_table
from billing_core.exports.focus_schema import focus_metadata, focus_schema, focus_text
from billing_core.ledger import queries
from billing_core.ledger.queries import Selection
from billing_core.values.decimals import EXACT
from tests.examples import examples
from tests.exports.focus_check import check, check_file, read_focus
from tests.exports.focus_events import LATER, NOON, focus, late, profile, stored, table_of, written
from tests.factories import ledger_at, model_usage, usage_row
from tests.month_close.world import MonthWorld, october, trace


def only(rows, **conditions):
    """The one row that meets `conditions`."""
    [row] = [row for row in rows if all(row[name] == value for name, value in conditions.items())]
    return row


def test_an_event_is_a_row_for_each_kind_of_resource_that_cost_credits():
    rows = focus(stored(credits_storage="7", storage_gb="0.014"), stored(id="trace-2"))
    assert [(row["x_EventId"], row["SkuMeter"], row["PricingQuantity"]) for row in rows] == [
        ("trace-1", "AI Tokens", 100),
        ("trace-1", "Compute Time", 50),
        ("trace-1", "Storage", 7),
        ("trace-2", "AI Tokens", 100),
        ("trace-2", "Compute Time", 50),
    ]


def test_an_event_that_cost_nothing_is_not_charged():
    assert focus(stored(credits_ai_tokens="0", credits_compute="0", sync_status="excluded")) == []


def test_every_column_of_a_charge():
    [row] = written(stored(credits_compute="0"), organization_names={"org_a": "Acme"})
    assert row == {
        "BillingAccountId": "cus_a",
        "BillingAccountName": None,
        "SubAccountId": "org_a",
        "SubAccountName": "Acme",
        "BillingCurrency": "USD",
        "BillingPeriodStart": "2026-10-01T00:00:00Z",
        "BillingPeriodEnd": "2026-11-01T00:00:00Z",
        "ChargePeriodStart": "2026-10-03T12:00:00Z",
        "ChargePeriodEnd": "2026-10-03T12:01:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": "AI tokens used by Support",
        "ChargeFrequency": "Usage-Based",
        "InvoiceId": None,
        "InvoiceIssuerName": "Answer AI Inc.",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "Answer AI",
        "SkuId": "ai:gpt-5",
        "SkuPriceId": "ai:gpt-5:builtin-1",
        "SkuMeter": "AI Tokens",
        "SkuPriceDetails": '{"x_CreditPriceUsd":0.00004,"x_Models":"gpt-5","x_RateCardVersion":"builtin-1"}',
        "ResourceId": "flow-1",
        "ResourceName": "Support",
        "ResourceType": "Chatflow",
        "ConsumedQuantity": "1000.000000000000",
        "ConsumedUnit": "Tokens",
        "PricingQuantity": "100.000000",
        "PricingUnit": "Credits",
        "PricingCurrency": "Credits",
        "PricingCurrencyListUnitPrice": "1.000000",
        "PricingCurrencyContractedUnitPrice": "1.000000",
        "PricingCurrencyEffectiveCost": "100.000000",
        "ListUnitPrice": "0.000040000000",
        "ListCost": "0.004000000000000000",
        "ContractedUnitPrice": "0.000040000000",
        "ContractedCost": "0.004000000000000000",
        "EffectiveCost": "0.004000000000000000",
        "BilledCost": "0.004000000000000000",
        "Tags": '{"billing/environment":"production","billing/models":"gpt-5"}',
        "ProviderName": "Answer AI Inc.",
        "PublisherName": "Answer AI Inc.",
        "x_EventId": "trace-1",
        "x_EventTimestamp": "2026-10-03T12:00:00.000Z",
        "x_CountedAt": "2026-10-03T12:00:00.000Z",
        "x_ResourceKind": "ai_tokens",
        "x_Models": '["gpt-5"]',
        "x_Environment": "production",
        "x_AiCredentialsOwnership": None,
        "x_RateCardVersion": "builtin-1",
        "x_SyncStatus": "processed",
        "x_SyncError": None,
        "x_SyncedAt": None,
        "x_MeterEventId": None,
        "x_Flags": None,
    }


def test_the_cost_is_exact_to_the_last_of_eighteen_places():
    [row] = written(stored(credits_ai_tokens="123456.789012", credit_price_usd="0.000041234567", credits_compute="0"))
    assert row["BilledCost"] == "5.090687238120177804"
    assert row["ListUnitPrice"] == "0.000041234567"


def test_small_amounts_are_written_without_an_exponent_and_taken_back_ones_with_a_sign():
    [row] = written(stored(credits_ai_tokens="-0.000001", credit_price_usd="0.000000000001", credits_compute="0"))
    assert row["BilledCost"] == "-0.000000000000000001"
    assert row["PricingQuantity"] == "-0.000001"


@pytest.mark.parametrize(
    ("zone", "moment", "start", "end"),
    [
        ("UTC", "2026-10-31T23:30:00+00:00", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("Europe/Berlin", "2026-10-31T23:30:00+00:00", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
        ("Europe/Berlin", "2026-10-31T22:59:59.999999+00:00", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"),
        ("Asia/Kolkata", "2026-12-31T18:30:00+00:00", "2026-12-31T18:30:00Z", "2027-01-31T18:30:00Z"),
        ("America/New_York", "1970-01-01T00:00:00+00:00", "1969-12-01T05:00:00Z", "1970-01-01T05:00:00Z"),
    ],
)
def test_a_billing_period_is_the_month_of_the_zone_in_which_the_event_counts(zone, moment, start, end):
    time = datetime.fromisoformat(moment)
    [row] = written(stored(timestamp=time, ended_at=time, credits_compute="0"), zone=zone)
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (start, end)


def test_months_of_one_table_are_told_apart():
    moments = [datetime(2026, month, 1, tzinfo=UTC) for month in (12, 1, 2, 11)]
    rows = focus(*(stored(timestamp=time, ended_at=time, credits_compute="0") for time in moments))
    assert [row["BillingPeriodStart"] for row in rows] == moments


def test_late_usage_was_used_in_october_and_is_billed_in_november():
    [row] = focus(late())
    assert row["ChargePeriodStart"] == NOON
    assert row["BillingPeriodStart"] == datetime(2026, 11, 1, tzinfo=UTC)
    assert (row["x_EventTimestamp"], row["x_CountedAt"]) == (NOON, LATER)


def test_a_charge_lasts_whole_seconds_and_at_least_one():
    instant = NOON.replace(microsecond=400_000)
    for time in (NOON, instant):
        [short] = focus(stored(timestamp=time, ended_at=time, credits_compute="0"))
        assert (short["ChargePeriodStart"], short["ChargePeriodEnd"]) == (NOON, NOON + timedelta(seconds=1))
    [longer] = focus(stored(timestamp=instant, ended_at=instant + timedelta(seconds=2), credits_compute="0"))
    assert longer["ChargePeriodEnd"] == NOON + timedelta(seconds=3)


def test_an_event_that_came_late_corrects_nothing():
    assert (
        only(focus(late(), stored(id="trace-2")), x_EventId="trace-1", x_ResourceKind="ai_tokens")["ChargeClass"]
        is None
    )


def test_both_rows_of_a_changed_event_are_corrections():
    before, after = focus(late(credits="-100"), late(credits="80"))
    assert (before["ChargeClass"], after["ChargeClass"]) == ("Correction", "Correction")
    assert before["ChargeDescription"] == "Correction: AI tokens used by Support"
    assert before["BilledCost"] + after["BilledCost"] == Decimal("-0.0008")


def test_what_is_taken_back_of_a_free_event_makes_the_other_row_a_correction_too():
    [row] = focus(late(credits="0"), late(credits="80"))
    assert row["ChargeClass"] == "Correction"


def test_a_late_event_that_changed_after_its_second_month_was_closed_is_corrected_there_only():
    december = datetime(2026, 12, 5, tzinfo=UTC)
    rows = focus(late(), late(credits="-100", accounted_at=december), late(credits="80", accounted_at=december))
    assert [row["ChargeClass"] for row in rows] == [None, "Correction", "Correction"]


def test_rows_with_one_id_that_are_not_late_correct_nothing():
    assert {row["ChargeClass"] for row in focus(stored(), stored(), stored(credits_ai_tokens="-1"))} == {None}


def test_usage_nobody_pays_for_is_told_by_the_account_and_the_description():
    [row] = focus(stored(customer_id="", chatflow_name=None, credits_compute="0"))
    assert row["BillingAccountId"] == "(no customer)"
    assert row["ChargeDescription"] == "AI tokens used by flow-1 (no customer)"


def test_a_chatflow_without_an_id_is_no_resource_but_is_still_described():
    [row] = focus(stored(chatflow_id=None, chatflow_name="Support\r\nline", credits_compute="0"))
    assert (row["ResourceId"], row["ResourceName"], row["ResourceType"]) == (None, None, None)
    assert row["ChargeDescription"] == "AI tokens used by Support line"


def test_an_empty_text_is_null_never_an_empty_field():
    [row] = focus(stored(organization_id="", environment="", models="", user_id="", credits_compute="0"), user_ids=True)
    assert (row["SubAccountId"], row["x_Environment"], row["x_Models"], row["Tags"]) == (None, None, None, None)
    assert row["SkuId"] == "ai"


def test_several_models_are_one_sku():
    [row] = focus(stored(models="\x1fgpt-5\x1ftext-embedding-3\x1f", credits_compute="0"))
    assert row["SkuId"] == "ai:gpt-5+text-embedding-3"
    assert json.loads(row["x_Models"]) == ["gpt-5", "text-embedding-3"]


def test_compute_and_storage_do_not_depend_on_models():
    rows = focus(stored(credits_storage="7", storage_gb="0.014"))
    assert [row["SkuPriceId"] for row in rows[1:]] == ["compute:builtin-1", "storage:builtin-1"]
    assert all("x_Models" not in row["SkuPriceDetails"] for row in rows[1:])


@pytest.mark.parametrize(
    ("kind", "facts", "quantity", "unit"),
    [
        ("ai_tokens", {"tokens_total": 1000}, "1000", "Tokens"),
        ("ai_tokens", {"tokens_total": None}, "100", "Credits"),
        ("ai_tokens", {"tokens_total": 0}, "100", "Credits"),
        ("compute", {"latency_seconds": "60.2"}, "1.003333333333", "Minutes"),
        ("compute", {"latency_seconds": "0"}, "50", "Credits"),
        ("compute", {"latency_seconds": "600000000000"}, "10000000000", "Minutes"),
        ("storage", {"credits_storage": "7", "storage_gb": "0.014"}, "0.014", "GB"),
        ("storage", {"credits_storage": "7", "storage_gb": None}, "7", "Credits"),
    ],
)
def test_what_was_consumed_is_measured_where_it_is_known_and_credits_where_not(kind, facts, quantity, unit):
    row = only(focus(stored(**facts)), x_ResourceKind=kind)
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (Decimal(quantity), unit)


def test_time_taken_back_is_as_long_as_the_event_lasted():
    taken_back = late(credits="0", credits_compute="-50", latency_seconds="0")
    [row] = focus(taken_back)
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (-1, "Minutes")


def test_who_used_it_is_left_out_unless_asked_for():
    [row] = focus(stored(credits_compute="0"))
    assert "user-1" not in str(row)
    assert "session-1" not in str(row)
    [row] = focus(stored(credits_compute="0"), user_ids=True)
    assert (row["x_UserId"], row["x_SessionId"]) == ("user-1", "session-1")
    assert json.loads(row["Tags"])["billing/user"] == "user-1"


def test_our_cost_and_margin_are_left_out_unless_asked_for_and_stand_once_per_event():
    assert "x_ProviderCostUsd" not in focus(stored())[0]
    margins = {"builtin-1": Decimal("1.25")}
    ai, compute = focus(stored(), internal=True, margins=margins)
    assert (ai["x_ProviderCostUsd"], ai["x_MarginMultiplier"]) == (Decimal("0.01"), Decimal("1.25"))
    assert (compute["x_ProviderCostUsd"], compute["x_MarginMultiplier"]) == (None, None)
    [unknown, _] = focus(stored(rate_card_version="older"), internal=True, margins=margins)
    assert unknown["x_MarginMultiplier"] is None


def test_version_1_4_names_service_and_host_instead_of_provider_and_publisher():
    [row] = focus(stored(credits_compute="0"), version="1.4")
    assert (row["ServiceProviderName"], row["HostProviderName"]) == ("Answer AI Inc.", "Answer AI Inc.")
    assert row["InvoiceDetailId"] is None
    assert not {"ProviderName", "PublisherName"} & set(row)


def test_a_tag_prefix_of_our_own_begins_every_tag():
    [row] = focus(stored(credits_compute="0"), tag_prefix="acme/", user_ids=True)
    assert set(json.loads(row["Tags"])) == {"acme/environment", "acme/models", "acme/user"}


def test_no_events_are_an_empty_table_with_every_column():
    table = focus_table(table_of(), profile())
    assert table.num_rows == 0
    assert table.schema == focus_schema(profile())
    assert focus_text(table).schema.names == table.schema.names
    assert check(focus_text(table)) == []


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"version": "1.3"}, "focus_version: '1.3' is not accepted; expected 1.2 or 1.4"),
        ({"tag_prefix": " "}, "focus_tag_prefix: ' ' is not accepted; expected text that is not blank"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_in_one_line(choices, says):
    with pytest.raises(BadParameter, match=says.replace(".", r"\.")):
        profile(**choices)


def test_flags_of_rating_and_of_the_ledger_stand_together():
    [row] = focus(stored(flags="unpriced,bad_usage", marks="carried", credits_compute="0"))
    assert row["x_Flags"] == "unpriced,bad_usage,carried"


def test_stored_events_of_a_ledger_become_focus_rows(tmp_path):
    rows = [usage_row(), usage_row(id="trace-2", organization_id=None, customer_id=None, storage_gb=Decimal("0.5"))]
    ledger = ledger_at(tmp_path / "ledger.duckdb", rows)
    everything = Selection(scope_of(Principal("tester", Role.ADMIN)), ledger.snapshot(None))
    stored = ledger.engine.read(queries.in_time_order(everything, limit=9, offset=0))
    table = focus_table(stored, profile(user_ids=True, internal=True))
    assert check(table, credits=Decimal(150 + 400)) == []
    storage = only(table.to_pylist(), x_ResourceKind="storage")
    assert (storage["PricingQuantity"], storage["ConsumedQuantity"]) == (250, Decimal("0.5"))


def test_what_came_and_changed_after_a_close_is_told_apart_in_the_open_month(tmp_path):
    world = MonthWorld(tmp_path / "ledger.duckdb", [trace("changed"), trace("as it was")])
    try:
        assert world.close().ok
        world.book(trace("changed", tokens_total=3000, usage=[model_usage(input=3000)]), trace("new"))
        everyone = scope_of(Principal("tester", Role.ADMIN))
        november = Selection(everyone, world.ledger.snapshot(None), start=datetime(2026, 11, 1, tzinfo=UTC))
        table = focus_table(world.ledger.engine.read(queries.in_time_order(november, limit=9, offset=0)), profile())
    finally:
        world.service.close()
    assert check(table, credits=Decimal(300 - 150 + 50 + 150)) == []
    rows = sorted(table.to_pylist(), key=lambda row: (row["x_EventId"], row["x_ResourceKind"], row["BilledCost"]))
    assert [
        (row["x_EventId"], row["PricingQuantity"], row["ConsumedQuantity"], row["ChargeClass"]) for row in rows
    ] == [
        ("changed", -100, -1000, "Correction"),
        ("changed", 300, 3000, "Correction"),
        ("changed", -50, -1, "Correction"),
        ("changed", 50, 1, "Correction"),
        ("new", 100, 1000, None),
        ("new", 50, 1, None),
    ]
    assert {row["ChargePeriodStart"] for row in rows} == {october(5)}
    assert {row["BillingPeriodStart"] for row in rows} == {datetime(2026, 11, 1, tzinfo=UTC)}


def test_written_as_csv_it_keeps_every_rule_and_runs_in_no_spreadsheet(tmp_path):
    rows = (stored(chatflow_name='=1+1;"a"\r\nb', organization_id="@org"), late(credits="-100", id="-trace"))
    table = focus_table(table_of(*rows), profile(user_ids=True))
    path = tmp_path / "focus.csv"
    pieces = [csv_header(table.schema.names), *csv_pieces([table], as_text=focus_text)]
    path.write_bytes(b"".join(pieces))
    assert check_file(path, credits=Decimal(50)) == []
    text = read_focus(path).to_pylist()
    assert (text[0]["ResourceName"], text[0]["SubAccountId"]) == ('\'=1+1;"a"\r\nb', "'@org")
    assert (text[2]["x_EventId"], text[2]["BilledCost"]) == ("'-trace", "-0.004000000000000000")


def test_written_as_parquet_it_keeps_its_types_and_every_rule(tmp_path):
    table = focus_table(table_of(stored(), late(credits="-100")), profile())
    path = tmp_path / "focus.parquet"
    pq.write_table(table, path)
    assert pq.read_schema(path).remove_metadata() == focus_schema(profile())
    assert check_file(path, credits=Decimal(50)) == []


# properties

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
credit_amounts = st.just(Decimal(0)) | st.integers(0, 10**17).map(lambda n: Decimal(n).scaleb(-6))
prices = st.integers(1, 10**17).map(lambda n: Decimal(n).scaleb(-12))
moments = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=st.just(UTC))


@st.composite
def stored_events(draw):
    start = draw(moments)
    lasted = draw(st.timedeltas(timedelta(0), timedelta(days=400)))
    is_late = draw(st.booleans())
    return stored(
        id=draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)),
        timestamp=start,
        ended_at=start + lasted,
        latency_seconds=Decimal(lasted // timedelta(microseconds=1)).scaleb(-6),
        **{
            name: draw(texts)
            for name in (
                "organization_id",
                "customer_id",
                "user_id",
                "session_id",
                "chatflow_id",
                "chatflow_name",
                "environment",
                "ai_credentials_ownership",
                "sync_error",
                "meter_event_identifier",
            )
        },
        models="".join(f"\x1f{name}" for name in draw(st.lists(texts.filter(bool), max_size=2))),
        **{f"credits_{part}": draw(credit_amounts) for part in ("ai_tokens", "compute", "storage")},
        tokens_total=draw(st.none() | st.integers(0, 10**12)),
        storage_gb=draw(st.none() | st.integers(0, 10**20).map(lambda n: Decimal(n).scaleb(-12))),
        credit_price_usd=draw(prices),
        accounted_at=draw(moments) if is_late else None,
        marks="late_after_close" if is_late else draw(st.sampled_from(["", "carried"])),
    )


@settings(max_examples=examples(30))  # each example is checked twice by an engine of its own
@given(st.lists(stored_events(), max_size=6), st.sampled_from(["1.2", "1.4"]), st.booleans())
def test_whatever_events_say_no_credit_is_lost_and_the_file_keeps_every_rule(rows, version, everything):
    """Typed and as text; costs are price × quantity, any text is text, sums are the events' sums."""
    total = sum((row[f"credits_{part}"] for row in rows for part in ("ai_tokens", "compute", "storage")), Decimal(0))
    names = {row["organization_id"]: "Acme" for row in rows if row["organization_id"]}
    made = profile(version, "Europe/Berlin", user_ids=everything, internal=everything, organization_names=names)
    table = focus_table(table_of(*rows), made)
    table.validate(full=True)
    assert check(table, version=version, credits=total) == []
    assert check(focus_text(table), version=version, credits=total) == []


@settings(max_examples=examples(50))
@given(st.lists(stored_events(), max_size=4))
def test_what_is_taken_back_cancels_out_to_the_last_place(rows):
    """A frozen event and its reversal leave nothing in any measure that is summed."""
    negative = ("credits_ai_tokens", "credits_compute", "credits_storage", "tokens_total", "storage_gb")
    back = [
        {**row, "latency_seconds": Decimal(0), "marks": "late_after_close", "accounted_at": LATER}
        | {name: None if row[name] is None else -row[name] for name in negative}
        for row in rows
    ]
    lines = focus(*rows, *back)
    for measure in ("BilledCost", "ListCost", "PricingQuantity", "ConsumedQuantity"):
        assert reduce(EXACT.add, (line[measure] for line in lines), Decimal(0)) == 0


@settings(max_examples=examples(50))
@given(st.lists(stored_events(), max_size=5), st.integers(0, 5))
def test_slices_give_the_rows_of_the_whole(rows, cut):
    """As long as both rows of a correction stay together; here no two events are booked late with one id."""
    unique = {row["id"]: row for row in rows}
    rows = list(unique.values())
    whole = focus_table(table_of(*rows), profile())
    parts = [focus_table(table_of(*part), profile()) for part in (rows[:cut], rows[cut:])]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()


# metadata


def described(**choices):
    made = profile(**choices)
    return focus_metadata(focus_schema(made), made, created=LATER)


def column(metadata, name):
    return only(metadata["ColumnDefinition"], ColumnName=name)


def test_the_metadata_says_who_made_the_file_and_which_columns_it_has():
    metadata = described()
    assert metadata["DataGenerator"] == "Answer AI Inc."
    assert metadata["FocusVersion"] == "1.2"
    assert metadata["CreationDate"] == "2026-11-05T08:00:00Z"
    assert [entry["ColumnName"] for entry in metadata["ColumnDefinition"]] == focus_schema(profile()).names
    assert column(metadata, "BilledCost") == {
        "ColumnName": "BilledCost",
        "DataType": "DECIMAL",
        "NumericPrecision": 38,
        "NumberScale": 18,
    }
    assert column(metadata, "ChargePeriodEnd") == {"ColumnName": "ChargePeriodEnd", "DataType": "DATETIME"}
    assert column(metadata, "Tags")["ProviderTagPrefixes"] == ["billing/"]
    assert column(metadata, "BillingCurrency")["StringMaxLength"] == 3
    assert "StringMaxLength" not in column(metadata, "ResourceName")
    json.dumps(metadata)


def test_equal_columns_have_the_equal_schema_id_and_others_another():
    assert described()["SchemaId"] == described()["SchemaId"]
    ids = {
        described(**choices)["SchemaId"] for choices in ({}, {"user_ids": True}, {"internal": True}, {"version": "1.4"})
    }
    assert len(ids) == 4
