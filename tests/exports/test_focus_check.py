"""The rule checks find what is wrong, name it, and find nothing in a file that is right."""

import csv
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
import pytest

from billing_core.errors import BadParameter
from tests.exports.focus_check import MANDATORY, check, check_file, read_focus

ROW = {
    "BilledCost": "0.004000",
    "BillingAccountId": "cus_a",
    "BillingAccountName": None,
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": None,
    "ChargeDescription": "AI tokens",
    "ChargePeriodEnd": "2026-10-03T12:01:00Z",
    "ChargePeriodStart": "2026-10-03T12:00:00Z",
    "ContractedCost": "0.004000",
    "EffectiveCost": "0.004000",
    "InvoiceIssuerName": "Answer AI",
    "ListCost": "0.004000",
    "PricingQuantity": "100.000000",
    "PricingUnit": "Credits",
    "ProviderName": "Answer AI",
    "PublisherName": "Answer AI",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Answer AI",
    "ChargeFrequency": "Usage-Based",
    "ConsumedQuantity": "1000.0",
    "ConsumedUnit": "Tokens",
    "ContractedUnitPrice": "0.00004",
    "InvoiceId": "in_1",
    "ListUnitPrice": "0.00004",
    "PricingCurrency": "Credits",
    "PricingCurrencyContractedUnitPrice": "1",
    "PricingCurrencyEffectiveCost": "100",
    "PricingCurrencyListUnitPrice": "1",
    "ServiceSubcategory": "Generative AI",
    "ResourceId": "flow-1",
    "ResourceName": "Support",
    "ResourceType": "Chatflow",
    "SkuId": "ai",
    "SkuPriceDetails": '{"x_Price":0.00004}',
    "SkuPriceId": "ai:1",
    "SubAccountId": "org_a",
    "SubAccountName": "Acme",
    "Tags": '{"billing/user":"u"}',
    "x_EventId": "trace-1",
}


def text_table(*rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})


def broken(*rows, **given):
    """The rules a file of these rows breaks: (rule, column, rows)."""
    return [(found.rule, found.column, found.rows) for found in check(text_table(*rows), **given)]


def test_a_file_that_is_right_breaks_nothing():
    assert broken(ROW, ROW | {"x_EventId": "trace-2"}) == []


def test_a_version_nobody_knows_is_refused():
    with pytest.raises(BadParameter, match=r"version: '2.0' is not accepted; expected 1.2 or 1.4"):
        broken(ROW, version="2.0")


def test_the_mandatory_columns_are_twenty_one():
    assert {version: len(columns) for version, columns in MANDATORY.items()} == {"1.2": 21, "1.4": 21}


@pytest.mark.parametrize("name", MANDATORY["1.2"])
def test_a_missing_mandatory_column_is_named(name):
    row = {key: value for key, value in ROW.items() if key != name}
    assert ("mandatory", name, 0) in broken(row)


def test_version_1_4_wants_other_providers_and_does_not_know_the_old_ones():
    assert broken(ROW, version="1.4")[:4] == [
        ("mandatory", "ServiceProviderName", 0),
        ("mandatory", "HostProviderName", 0),
        ("name", "ProviderName", 0),
        ("name", "PublisherName", 0),
    ]
    row = {name: value for name, value in ROW.items() if name not in {"ProviderName", "PublisherName", "x_EventId"}}
    both = {"ServiceProviderName": "Answer AI", "HostProviderName": "Answer AI", "InvoiceDetailId": None}
    assert broken(row | both, version="1.4") == []


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("BillingCurrency", "Credits", "currency"),
        ("BillingCurrency", "usd", "currency"),
        ("ChargeCategory", "usage", "allowed"),
        ("ChargeClass", "Refund", "allowed"),
        ("ChargeFrequency", "Monthly", "allowed"),
        ("ServiceCategory", "AI", "allowed"),
        ("BillingAccountId", None, "not-null"),
        ("BillingAccountId", "", "null"),
        ("BillingAccountName", "", "null"),
        ("ChargePeriodStart", "2026-10-03 12:00:00", "date"),
        ("ChargePeriodStart", "2026-10-03T12:00:00", "date"),
        ("ChargePeriodStart", "2026-10-03T12:00:00.000Z", "date"),
        ("ChargePeriodStart", "2026-10-03T11:00:00+00:00", "date"),
        ("ChargePeriodStart", "2026-10-03T24:00:00Z", "date"),
        ("ChargePeriodStart", None, "not-null"),
        ("ChargePeriodEnd", "2026-10-03T12:00:00Z", "period"),
        ("BillingPeriodEnd", "2026-09-01T00:00:00Z", "period"),
        ("EffectiveCost", "+0.004", "number"),
        ("EffectiveCost", "1,000.00", "number"),
        ("EffectiveCost", "$0.004", "number"),
        ("EffectiveCost", "NaN", "number"),
        ("EffectiveCost", ".5", "number"),
        ("BilledCost", None, "not-null"),
        ("ListCost", "0.004001", "cost"),
        ("ListCost", "0.004000000000000001", "cost"),
        ("ContractedCost", "0.005", "cost"),
        ("ListUnitPrice", None, "price"),
        ("SkuId", None, "price"),
        ("PricingQuantity", None, "quantity"),
        ("PricingUnit", None, "unit"),
        ("ConsumedQuantity", None, "quantity"),
        ("ConsumedQuantity", "0.000", "quantity"),
        ("ConsumedQuantity", "-1", "quantity"),
        ("ConsumedUnit", None, "unit"),
        ("PricingCurrency", None, "not-null"),
        ("PricingCurrencyEffectiveCost", None, "not-null"),
        ("ListUnitPrice", "-1", "price"),
        ("ContractedUnitPrice", "-1", "price"),
        ("ContractedUnitPrice", None, "price"),
        ("PricingCurrencyListUnitPrice", "-1", "price"),
        ("PricingCurrencyListUnitPrice", None, "price"),
        ("PricingCurrencyContractedUnitPrice", "-1", "price"),
        ("PricingCurrencyContractedUnitPrice", None, "price"),
        ("ChargeFrequency", None, "not-null"),
        ("ServiceSubcategory", None, "not-null"),
        ("SkuPriceId", None, "price"),
        ("ResourceType", None, "belongs"),
        ("Tags", "billing/user=u", "key-value"),
        ("Tags", '["u"]', "key-value"),
        ("Tags", "null", "key-value"),
        ("Tags", '{"billing/user":["u"]}', "key-value"),
        ("Tags", '{"billing/user":{"id":"u"}}', "key-value"),
        ("Tags", '{"billing/user":"u","billing/user":"v"}', "key-value"),
        ("SkuPriceDetails", '{"Price":1}', "key-value"),
        ("SkuPriceDetails", '{"x_Price":[1]}', "key-value"),
    ],
)
def test_a_wrong_value_is_found_and_counted(column, value, rule):
    assert (rule, column, 1) in broken(ROW, ROW | {column: value})


def test_what_describes_another_column_is_null_where_that_is_null():
    assert ("belongs", "SubAccountName", 1) in broken(ROW | {"SubAccountId": None})
    assert ("belongs", "SkuPriceDetails", 1) in broken(ROW | {"SkuPriceId": None})


def test_a_resource_without_an_id_has_neither_name_nor_type():
    assert broken(ROW | {"ResourceId": None}) == [("belongs", "ResourceType", 1), ("belongs", "ResourceName", 1)]


@pytest.mark.parametrize(("value", "is_right"), [("4.0E-2", False), ("4.0E-3", True), ("0.0040000000", True)])
def test_numbers_are_compared_by_what_they_are_not_by_how_they_are_written(value, is_right):
    assert (broken(ROW | {"ListCost": value}) == []) is is_right


def test_a_product_of_thirty_digits_is_still_exact():
    row = ROW | {"ListUnitPrice": "100000.000000000001", "PricingQuantity": "123456789.123456"}
    row |= {"ContractedUnitPrice": "0", "ContractedCost": "0", "ListCost": "12345678912345.600123456789123456"}
    assert broken(row) == []
    assert broken(row | {"ListCost": "12345678912345.600123456789123457"}) == [("cost", "ListCost", 1)]


def test_a_product_nobody_can_hold_is_not_taken_for_right():
    huge = {"ListUnitPrice": "99999999999999999999", "PricingQuantity": "99999999999999999999", "ListCost": "1"}
    assert ("cost", "ListCost", 1) in broken(ROW | huge)


def test_corrections_may_address_price_quantity_and_cost_on_their_own():
    row = ROW | {"ChargeClass": "Correction", "ListCost": "-1", "ConsumedQuantity": "-3", "PricingQuantity": "-100"}
    assert broken(row) == []


def test_tax_has_no_quantity():
    row = ROW | {"ChargeCategory": "Tax", "ConsumedQuantity": None, "ConsumedUnit": None, "ListUnitPrice": None}
    row |= {"ContractedUnitPrice": None}
    assert broken(row) == [("quantity", "PricingQuantity", 1)]
    consumed = row | {"ConsumedQuantity": "1", "ConsumedUnit": "Tokens"}
    assert ("quantity", "ConsumedQuantity", 1) in broken(consumed)


def test_columns_are_the_specifications_or_begin_with_x():
    row = {"x_Own": "1", **ROW, "Customer": "a", "x_event": "b"}
    assert [found for found in broken(row) if found[0] in {"name", "order"}][:3] == [
        ("order", "BilledCost", 0),
        ("order", "BillingAccountId", 0),
        ("order", "BillingAccountName", 0),
    ]
    assert [found for found in broken(row) if found[0] == "name"] == [("name", "Customer", 0), ("name", "x_event", 0)]


def test_a_column_is_there_once():
    table = text_table(ROW).append_column("tags", pa.array(["{}"]))
    assert {found.rule for found in check(table)} == {"duplicate", "name"}


@pytest.mark.parametrize(
    ("key", "value"), [("ServiceName", "ServiceCategory"), ("SkuPriceId", "SkuId"), ("InvoiceId", "BillingAccountId")]
)
def test_one_key_has_one_parent(key, value):
    other = {"ServiceCategory": "Analytics"}.get(value, "other")
    assert broken(ROW, ROW | {value: other}) == [("one-for-each", key, 2)]


def test_a_file_that_lacks_an_event_or_holds_one_twice_is_not_complete():
    assert broken(ROW, ROW, credits=Decimal(200)) == []
    assert broken(ROW, credits=Decimal(200)) == [("complete", "PricingQuantity", 1)]
    [violation] = check(text_table(ROW, ROW, ROW), credits=Decimal("200.5"))
    assert violation.says == "sums to 300; the events hold 200.5"


def test_the_rows_of_an_invoice_sum_to_its_payable_amount():
    assert broken(ROW, ROW, invoices={"in_1": Decimal("0.008")}) == []
    [violation] = check(text_table(ROW), invoices={"in_1": Decimal("0.01")})
    assert violation.says == "of invoice in_1 sums to 0.004; its payable amount is 0.01"
    assert broken(ROW, invoices={"in_2": Decimal(5)}) == [("invoice", "BilledCost", 0)]


def typed_table(**columns):
    table = text_table(ROW)
    for name, column in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, name, column)
    return table


def test_a_typed_file_has_exact_decimals_and_times_in_utc():
    table = typed_table(
        BilledCost=pa.array([0.004]),
        BillingPeriodStart=pa.array(["2026-10-01T00:00:00Z"]).cast(pa.timestamp("us", tz="UTC")),
        BillingPeriodEnd=pa.array(["2026-11-01T00:00:00"]).cast(pa.timestamp("us")),
        SkuId=pa.array([1]),
    )
    found = {(violation.column, violation.says) for violation in check(table) if violation.rule == "type"}
    assert {("BilledCost", "an exact decimal, not double"), ("SkuId", "text, not int64")} <= found
    assert ("BillingPeriodEnd", "a timestamp in UTC, not timestamp[us]") in found
    assert "BillingPeriodStart" not in {column for column, _ in found}


def test_a_typed_time_with_parts_of_a_second_is_no_date():
    half_past = pa.array(["2026-10-03T12:00:00.5Z"]).cast(pa.timestamp("us", tz="UTC"))
    assert ("date", "ChargePeriodStart", 1) in {
        (found.rule, found.column, found.rows) for found in check(typed_table(ChargePeriodStart=half_past))
    }


def test_csv_is_read_as_the_text_it_is(tmp_path):
    path = tmp_path / "focus.csv"
    row = {name: "" if value is None else value for name, value in ROW.items()} | {"SubAccountName": 'A "b",\r\nc'}
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    table = read_focus(path)
    assert table["SubAccountName"].to_pylist() == ['A "b",\r\nc']
    assert table["BilledCost"].to_pylist() == ["0.004000"]
    assert table["ChargeClass"].to_pylist() == [None]
    assert check_file(path, credits=Decimal(100)) == []


def test_a_quoted_empty_text_in_csv_is_not_null(tmp_path):
    path = tmp_path / "focus.csv"
    pc_csv.write_csv(text_table(ROW | {"BillingAccountName": ""}), path)
    assert [(found.rule, found.column) for found in check_file(path)] == [("null", "BillingAccountName")]


def test_parquet_is_read_with_its_types(tmp_path):
    path = tmp_path / "focus.parquet"
    pq.write_table(typed_table(BilledCost=pa.array([Decimal("0.004")])), path)
    assert read_focus(path).schema.field("BilledCost").type == pa.decimal128(3, 3)
    assert "BilledCost" not in {found.column for found in check_file(path)}
