"""Whether a file is FOCUS, checked in plain SQL over what was really written: raw text or typed columns alike.

Written from the specification (1.2; for 1.4 the columns that changed), and knows nothing of our exporter on purpose:
what both were to say wrongly, neither would notice.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from billing_core.errors import BadParameter
from billing_core.types import plain_decimal


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: its name, the column, how many rows break it (0: the column itself does), and what it says."""

    rule: str
    column: str
    rows: int
    says: str


DECIMALS = frozenset(
    {
        "BilledCost",
        "CommitmentDiscountQuantity",
        "ConsumedQuantity",
        "ContractedCost",
        "ContractedUnitPrice",
        "EffectiveCost",
        "ListCost",
        "ListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "PricingQuantity",
    }
)

DATES = frozenset({"BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"})

_ALWAYS = {
    "BilledCost": False,
    "BillingAccountId": False,
    "BillingAccountName": True,
    "BillingCurrency": False,
    "BillingPeriodEnd": False,
    "BillingPeriodStart": False,
    "ChargeCategory": False,
    "ChargeClass": True,
    "ChargeDescription": True,
    "ChargePeriodEnd": False,
    "ChargePeriodStart": False,
    "ContractedCost": False,
    "EffectiveCost": False,
    "InvoiceIssuerName": False,
    "ListCost": False,
    "PricingQuantity": True,
    "PricingUnit": True,
    "ServiceCategory": False,
    "ServiceName": False,
}

MANDATORY: Mapping[str, Mapping[str, bool]] = {
    "1.2": {**_ALWAYS, "ProviderName": False, "PublisherName": False},
    "1.4": {**_ALWAYS, "ServiceProviderName": False, "HostProviderName": False},
}
"""The 21 columns every file has, and whether they may be null."""

_CONDITIONAL = frozenset(
    {
        "AvailabilityZone",
        "BillingAccountType",
        "CapacityReservationId",
        "CapacityReservationStatus",
        "ChargeFrequency",
        "CommitmentDiscountCategory",
        "CommitmentDiscountId",
        "CommitmentDiscountName",
        "CommitmentDiscountQuantity",
        "CommitmentDiscountStatus",
        "CommitmentDiscountType",
        "CommitmentDiscountUnit",
        "ConsumedQuantity",
        "ConsumedUnit",
        "ContractedUnitPrice",
        "InvoiceId",
        "ListUnitPrice",
        "PricingCategory",
        "PricingCurrency",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "RegionId",
        "RegionName",
        "ResourceId",
        "ResourceName",
        "ResourceType",
        "ServiceSubcategory",
        "SkuId",
        "SkuMeter",
        "SkuPriceDetails",
        "SkuPriceId",
        "SubAccountId",
        "SubAccountName",
        "SubAccountType",
        "Tags",
    }
)
_SINCE_1_3 = frozenset(
    {
        "AllocatedMethodDetails",
        "AllocatedMethodId",
        "AllocatedResourceId",
        "AllocatedResourceName",
        "AllocatedTags",
        "ContractApplied",
        "InvoiceDetailId",
    }
)

COLUMNS: Mapping[str, frozenset[str]] = {
    "1.2": frozenset(MANDATORY["1.2"]) | _CONDITIONAL,
    "1.4": frozenset(MANDATORY["1.4"]) | _CONDITIONAL | _SINCE_1_3,
}
"""Every column the specification knows; what else there is begins with `x_`."""

_CATEGORIES = (
    "AI and Machine Learning",
    "Analytics",
    "Business Applications",
    "Compute",
    "Databases",
    "Developer Tools",
    "Identity",
    "Integration",
    "Internet of Things",
    "Management and Governance",
    "Media",
    "Migration",
    "Mobile",
    "Multicloud",
    "Networking",
    "Other",
    "Security",
    "Storage",
    "Web",
)

ALLOWED: Mapping[str, Sequence[str]] = {
    "ChargeCategory": ("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargeClass": ("Correction",),
    "ChargeFrequency": ("One-Time", "Recurring", "Usage-Based"),
    "ServiceCategory": _CATEGORIES,
}
"""Closed lists, letter by letter."""

_NUMBER = r"-?[0-9]+(\.[0-9]+)?(E-?[0-9]+)?"
_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
_OWN_NAME = re.compile(r"x_[A-Z][A-Za-z0-9]*")

_REAL = "coalesce(ChargeClass, '') != 'Correction'"
"""A row that is no correction: corrections may address quantity, price and cost independently."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A predicate in SQL that is true of rows which break the rule; skipped where a column it needs is absent."""

    name: str
    column: str
    broken: str
    says: str
    needs: tuple[str, ...] = ()


_ROW_RULES = (
    _Rule(
        "currency",
        "BillingCurrency",
        "NOT regexp_full_match(BillingCurrency, '[A-Z]{3}')",
        "a national currency in three letters, never credits",
    ),
    _Rule(
        "period",
        "BillingPeriodEnd",
        "BillingPeriodEnd <= BillingPeriodStart",
        "ends after it starts",
        ("BillingPeriodStart",),
    ),
    _Rule(
        "period",
        "ChargePeriodEnd",
        "ChargePeriodEnd <= ChargePeriodStart",
        "ends after it starts",
        ("ChargePeriodStart",),
    ),
    _Rule(
        "quantity",
        "PricingQuantity",
        f"PricingQuantity IS NULL AND ChargeCategory IN ('Usage', 'Purchase') AND {_REAL}",
        "not null for usage and purchases",
        ("ChargeCategory", "ChargeClass"),
    ),
    _Rule(
        "quantity",
        "PricingQuantity",
        "PricingQuantity IS NOT NULL AND ChargeCategory = 'Tax'",
        "null for tax",
        ("ChargeCategory",),
    ),
    _Rule(
        "unit",
        "PricingUnit",
        "(PricingUnit IS NULL) != (PricingQuantity IS NULL)",
        "null exactly where PricingQuantity is null",
        ("PricingQuantity",),
    ),
    _Rule(
        "quantity",
        "ConsumedQuantity",
        f"ConsumedQuantity IS NULL AND ChargeCategory = 'Usage' AND {_REAL}",
        "not null for usage",
        ("ChargeCategory", "ChargeClass"),
    ),
    _Rule(
        "quantity",
        "ConsumedQuantity",
        "ConsumedQuantity IS NOT NULL AND ChargeCategory != 'Usage'",
        "null for what is not usage",
        ("ChargeCategory",),
    ),
    _Rule(
        "quantity",
        "ConsumedQuantity",
        f"number(ConsumedQuantity) <= 0 AND {_REAL}",
        "positive unless it corrects",
        ("ChargeClass",),
    ),
    _Rule(
        "unit",
        "ConsumedUnit",
        "(ConsumedUnit IS NULL) != (ConsumedQuantity IS NULL)",
        "null exactly where ConsumedQuantity is null",
        ("ConsumedQuantity",),
    ),
    *(
        _Rule("price", name, f"number({name}) < 0", "not negative")
        for name in (
            "ListUnitPrice",
            "ContractedUnitPrice",
            "PricingCurrencyListUnitPrice",
            "PricingCurrencyContractedUnitPrice",
        )
    ),
    *(
        _Rule(
            "price",
            name,
            f"{name} IS NULL AND ChargeCategory IN ('Usage', 'Purchase') AND {_REAL}",
            "not null for usage and purchases",
            ("ChargeCategory", "ChargeClass"),
        )
        for name in (
            "ListUnitPrice",
            "ContractedUnitPrice",
            "PricingCurrencyListUnitPrice",
            "PricingCurrencyContractedUnitPrice",
            "SkuId",
            "SkuPriceId",
        )
    ),
    *(
        _Rule("not-null", name, f"{name} IS NULL", "never null where the column is there")
        for name in ("ChargeFrequency", "PricingCurrency", "PricingCurrencyEffectiveCost", "ServiceSubcategory")
    ),
    _Rule(
        "belongs",
        "SkuPriceDetails",
        "SkuPriceDetails IS NOT NULL AND SkuPriceId IS NULL",
        "null where SkuPriceId is null",
        ("SkuPriceId",),
    ),
    _Rule(
        "belongs",
        "ResourceType",
        "(ResourceType IS NULL) != (ResourceId IS NULL)",
        "null exactly where ResourceId is null",
        ("ResourceId",),
    ),
    _Rule(
        "belongs",
        "ResourceName",
        "ResourceName IS NOT NULL AND ResourceId IS NULL",
        "null where ResourceId is null",
        ("ResourceId",),
    ),
    _Rule(
        "belongs",
        "SubAccountName",
        "SubAccountName IS NOT NULL AND SubAccountId IS NULL",
        "null where SubAccountId is null",
        ("SubAccountId",),
    ),
    _Rule(
        "key-value",
        "SkuPriceDetails",
        "NOT all_keys_begin(SkuPriceDetails, 'x_')",
        "properties of our own begin with x_",
    ),
    *(
        _Rule("key-value", name, f"NOT is_flat_object({name})", "a JSON object with unique keys and scalar values")
        for name in ("Tags", "SkuPriceDetails")
    ),
)

_ONE_FOR_EACH = (
    ("ServiceName", "ServiceCategory", "one category for each service"),
    ("SkuPriceId", "SkuId", "one SKU for each SKU price"),
    ("InvoiceId", "BillingAccountId", "one billing account for each invoice"),
)

_MACROS = """
CREATE MACRO number(text) AS TRY_CAST(text AS DECIMAL(38, 18));
CREATE MACRO is_flat_object(text) AS CASE
    WHEN text IS NULL THEN true
    WHEN NOT json_valid(text) THEN false
    WHEN json_type(text) != 'OBJECT' THEN false
    ELSE len(json_keys(text)) = len(list_distinct(json_keys(text)))
        AND NOT list_has_any(list_transform(json_extract(text, '$.*'), lambda value: json_type(value)),
                             ['OBJECT', 'ARRAY'])
    END;
CREATE MACRO all_keys_begin(text, prefix) AS CASE
    WHEN text IS NULL OR NOT json_valid(text) THEN true
    WHEN json_type(text) != 'OBJECT' THEN true
    ELSE len(list_filter(json_keys(text), lambda key: NOT starts_with(key, prefix))) = 0
    END;
"""


def read_focus(path: Path) -> pa.Table:
    """A FOCUS file as it is: Parquet with its types, CSV as raw text, an empty field as null."""
    if path.suffix.lower() == ".parquet":
        return pq.read_table(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file))
    return pc_csv.read_csv(
        path,
        parse_options=pc_csv.ParseOptions(newlines_in_values=True),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def check_file(
    path: Path,
    *,
    version: str = "1.2",
    credits: Decimal | None = None,  # noqa: A002  (the ledger's word)
    invoices: Mapping[str, Decimal] | None = None,
) -> list[Violation]:
    """`check` over a written file, CSV (comma) or Parquet."""
    return check(read_focus(path), version=version, credits=credits, invoices=invoices)


def check(
    table: pa.Table,
    *,
    version: str = "1.2",
    credits: Decimal | None = None,  # noqa: A002  (the ledger's word)
    invoices: Mapping[str, Decimal] | None = None,
) -> list[Violation]:
    """Every rule a FOCUS table breaks; empty if it breaks none.

    `credits` is the sum of the credits of the exported events: the file must hold them all, and no more. `invoices`
    are the payable amounts of invoice ids in US dollars: the sum of BilledCost per InvoiceId must equal them.

    Raises
    ------
    BadParameter
        If `version` is none that is known here.
    """
    if version not in MANDATORY:
        raise BadParameter("version", version, " or ".join(MANDATORY))
    found = [*_columns(table, version), *_types(table)]
    if any(violation.rule == "duplicate" for violation in found):
        return found  # SQL could not tell the columns apart
    with duckdb.connect() as connection:
        connection.execute(_MACROS)
        _as_text(connection, table)
        present = set(table.schema.names)
        found += _row_rules(connection, present, version)
        found += _costs(connection, present)
        found += _groups(connection, present)
        found += _sums(connection, present, credits, invoices or {})
    return found


def _columns(table: pa.Table, version: str) -> Iterator[Violation]:
    names = table.schema.names
    lowered = [name.lower() for name in names]
    for name in sorted({name for name in names if lowered.count(name.lower()) > 1}):
        yield Violation("duplicate", name, 0, "every column once, whatever the case")
    for name in MANDATORY[version]:
        if name not in names:
            yield Violation("mandatory", name, 0, f"a mandatory column of FOCUS {version}")
    own = False
    for name in names:
        is_own = name not in COLUMNS[version]
        if is_own and not _OWN_NAME.fullmatch(name):
            yield Violation("name", name, 0, "a column of the specification, or x_ and a name in PascalCase")
        if own and not is_own:
            yield Violation("order", name, 0, "columns of the specification come before our own")
        own = own or is_own


def _types(table: pa.Table) -> Iterator[Violation]:
    """Types of a typed file; where everything is text, the text itself is checked instead."""
    if all(pa.types.is_string(column.type) for column in table.schema):
        return
    for column in table.schema:
        kind = column.type
        if column.name in DECIMALS and not pa.types.is_decimal(kind):
            yield Violation("type", column.name, 0, "an exact decimal, not " + str(kind))
        elif column.name in DATES and not (pa.types.is_timestamp(kind) and kind.tz == "UTC"):
            yield Violation("type", column.name, 0, "a timestamp in UTC, not " + str(kind))
        elif column.name not in DECIMALS | DATES and not column.name.startswith("x_") and not pa.types.is_string(kind):
            yield Violation("type", column.name, 0, "text, not " + str(kind))


def _as_text(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
    """The table as a CSV of it would read, in the view `charges`."""
    plain, texts = [], []
    for position, column in enumerate(table.schema):
        values = table.column(position)
        name = '"' + column.name.replace('"', '""') + '"'
        text = f"CAST({name} AS VARCHAR)"
        if pa.types.is_decimal(column.type):  # as narrow as its scale it would have no digit before the point
            text = f"CAST(CAST({name} AS DECIMAL(38, {column.type.scale})) AS VARCHAR)"
        elif pa.types.is_timestamp(column.type):
            values = values.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.timestamp("us"))
            to_seconds, finer = "'%Y-%m-%dT%H:%M:%SZ'", "'%Y-%m-%dT%H:%M:%S.%fZ'"
            is_whole = f"date_trunc('second', {name}) = {name}"
            text = f"CASE WHEN {is_whole} THEN strftime({name}, {to_seconds}) ELSE strftime({name}, {finer}) END"
        plain.append(values)
        texts.append(f"{text} AS {name}")
    connection.register("given", pa.Table.from_arrays(plain, names=table.schema.names))
    connection.execute(f"CREATE TABLE charges AS SELECT {', '.join(texts)} FROM given")


def _row_rules(connection: duckdb.DuckDBPyConnection, present: set[str], version: str) -> Iterator[Violation]:
    rules = [
        rule
        for rule in (*_format_rules(present, version), *_ROW_RULES)
        if present.issuperset((rule.column, *rule.needs))
    ]
    if not rules:
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules)
    row = connection.execute(f"SELECT {counts} FROM charges").fetchone()
    for rule, rows in zip(rules, row or (), strict=True):
        if rows:
            yield Violation(rule.name, rule.column, rows, rule.says)


def _format_rules(present: set[str], version: str) -> Iterator[_Rule]:
    for name in sorted(present & COLUMNS[version]):
        yield _Rule("null", name, f"{name} = ''", "null is nothing at all, not an empty text")
        if name in DECIMALS:
            yield _Rule(
                "number",
                name,
                f"NOT regexp_full_match({name}, '{_NUMBER}')",
                "digits, a point, a minus sign; no sign of plus, separator or currency",
            )
        if name in DATES:
            yield _Rule(
                "date", name, f"NOT regexp_full_match({name}, '{_DATE}')", "UTC as YYYY-MM-DDTHH:MM:SSZ, whole seconds"
            )
        if name in ALLOWED:
            listed = ", ".join(f"'{value}'" for value in ALLOWED[name])
            yield _Rule("allowed", name, f"{name} NOT IN ({listed})", f"one of {', '.join(ALLOWED[name])}")
        if MANDATORY[version].get(name) is False:
            yield _Rule("not-null", name, f"{name} IS NULL", "never null")


def _costs(connection: duckdb.DuckDBPyConnection, present: set[str]) -> Iterator[Violation]:
    """Unit price × quantity = cost, to the last place: each number is read with as many places as it needs."""
    for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
        if not present.issuperset((price, cost, "PricingQuantity", "ChargeClass")):
            continue
        first, second = (_exactly(connection, name) for name in (price, "PricingQuantity"))
        rows = _one(
            connection,
            f"SELECT count(*) FROM (SELECT TRY({first} * {second}) AS product, number({cost}) AS cost FROM charges "
            f"WHERE {price} IS NOT NULL AND {_REAL}) WHERE product IS NULL OR product IS DISTINCT FROM cost",
        )
        if rows:
            yield Violation("cost", cost, rows, f"{price} × PricingQuantity, exactly")


def _exactly(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The column as a decimal of its own smallest scale, so that a product of two keeps within 38 digits."""
    plain = f"CASE WHEN contains({name}, 'E') THEN CAST(number({name}) AS VARCHAR) ELSE {name} END"
    places = f"length(rtrim(split_part({plain}, '.', 2), '0'))"
    scale = _one(connection, f"SELECT least(coalesce(max({places}), 0), 38) FROM charges")
    return f"TRY_CAST({name} AS DECIMAL(38, {scale}))"


def _groups(connection: duckdb.DuckDBPyConnection, present: set[str]) -> Iterator[Violation]:
    for key, value, says in _ONE_FOR_EACH:
        if key in present and value in present:
            many = f"SELECT {key} FROM charges WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(DISTINCT {value}) > 1"
            rows = _one(connection, f"SELECT count(*) FROM charges WHERE {key} IN ({many})")
            if rows:
                yield Violation("one-for-each", key, rows, says)


def _sums(
    connection: duckdb.DuckDBPyConnection, present: set[str], given: Decimal | None, invoices: Mapping[str, Decimal]
) -> list[Violation]:
    found = []
    if given is not None and {"PricingQuantity", "PricingUnit"} <= present:
        row = connection.execute(
            "SELECT coalesce(sum(number(PricingQuantity)), 0), count(*) FROM charges WHERE PricingUnit = 'Credits'"
        ).fetchone()
        held, rows = row or (Decimal(0), 0)
        if held != given:
            says = f"sums to {plain_decimal(held)}; the events hold {plain_decimal(given)}"
            found.append(Violation("complete", "PricingQuantity", rows, says))
    if invoices and {"InvoiceId", "BilledCost"} <= present:
        billed = {
            invoice: (cost, rows)
            for invoice, cost, rows in connection.execute(
                "SELECT InvoiceId, sum(number(BilledCost)), count(*) FROM charges "
                "WHERE InvoiceId IS NOT NULL GROUP BY 1"
            ).fetchall()
        }
        for invoice, payable in sorted(invoices.items()):
            cost, rows = billed.get(invoice, (Decimal(0), 0))
            if cost != payable:
                sums = f"sums to {plain_decimal(cost)}; its payable amount is {plain_decimal(payable)}"
                says = f"of invoice {invoice} {sums}"
                found.append(Violation("invoice", "BilledCost", rows, says))
    return found


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return 0 if row is None else int(row[0])
