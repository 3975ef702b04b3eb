"""The format of a FOCUS file: its columns, how values are written as text, and its metadata."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BadParameter

FOCUS_VERSIONS = ("1.2", "1.4")
"""1.2 is the default: the newest version that the public validator has an offline rule model of."""

NO_CUSTOMER_ID = "(no customer)"
"""BillingAccountId of usage that names no customer: the specification allows no null there."""

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
CREDITS = pa.decimal128(38, 6)
"""As the ledger rounds them."""
PRICE = pa.decimal128(38, 12)
QUANTITY = pa.decimal128(38, 12)
MONEY = pa.decimal128(38, 18)
"""Credits × price has at most 6 + 12 places: the product is exact."""


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of resource that credits pay for (AI tokens, compute, storage), with FOCUS's words for it."""

    part: str
    sku: str
    meter: str
    unit: str
    used: str


KINDS = (
    ResourceKind("ai_tokens", "ai", "AI Tokens", "Tokens", "AI tokens used"),
    ResourceKind("compute", "compute", "Compute Time", "Minutes", "Compute time used"),
    ResourceKind("storage", "storage", "Storage", "GB", "Storage used"),
)
"""In the order of an event's rows."""

CREDITS_UNIT = "Credits"
"""The virtual currency, and what is priced: rates per token or minute are rounded per event, credits are not again."""

CORRECTION = "Correction"
RESOURCE_TYPE = "Chatflow"
SELLER_COLUMNS = ("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName", "HostProviderName")

CONSTANTS: Mapping[str, str] = {
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Usage-Based",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": "Generative AI",
    "PricingUnit": CREDITS_UNIT,
    "PricingCurrency": CREDITS_UNIT,
}
"""What every row says alike."""

SCHEMA_IDS = uuid.UUID("6f0b2c1e-6a57-5d0e-9a4e-0d9f1b8c7a35")
"""Namespace of schema ids: equal columns give the equal id, whoever writes the file and whenever."""


@dataclass(frozen=True, slots=True)
class FocusProfile:
    """Settings of one FOCUS file: its version, seller and timezone, and which personal or internal columns it has.

    version: `1.2` or `1.4`.
    seller, service: The legal entity that issues invoices and provides the service, and the product's name.
    zone: Billing periods are its calendar months.
    user_ids: Whether user and session ids, personal data, are in it.
    internal: Whether our own cost and margin are in it: not for customers.
    organization_names: Organization id to name, as the directory has them.
    tag_prefix: Begins every tag key, as tags that a provider sets must have one.
    margins: Rate card id to its margin; used with `internal`.

    Raises BadParameter: if the version is another, or seller, service or prefix are blank.
    """

    version: str
    seller: str
    service: str
    zone: ZoneInfo
    user_ids: bool = False
    internal: bool = False
    organization_names: Mapping[str, str] = field(default_factory=dict)
    tag_prefix: str = "billing/"
    margins: Mapping[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.version not in FOCUS_VERSIONS:
            raise BadParameter("focus_version", self.version, " or ".join(FOCUS_VERSIONS))
        for name in ("seller", "service", "tag_prefix"):
            if not getattr(self, name).strip():
                raise BadParameter(f"focus_{name}", getattr(self, name), "text that is not blank")


_STANDARD: tuple[tuple[str, pa.DataType, bool], ...] = (
    ("BillingAccountId", TEXT, False),
    ("BillingAccountName", TEXT, True),
    ("SubAccountId", TEXT, True),
    ("SubAccountName", TEXT, True),
    ("BillingCurrency", TEXT, False),
    ("BillingPeriodStart", TIME, False),
    ("BillingPeriodEnd", TIME, False),
    ("ChargePeriodStart", TIME, False),
    ("ChargePeriodEnd", TIME, False),
    ("ChargeCategory", TEXT, False),
    ("ChargeClass", TEXT, True),
    ("ChargeDescription", TEXT, False),
    ("ChargeFrequency", TEXT, False),
    ("InvoiceId", TEXT, True),
    ("InvoiceIssuerName", TEXT, False),
    ("ServiceCategory", TEXT, False),
    ("ServiceSubcategory", TEXT, False),
    ("ServiceName", TEXT, False),
    ("SkuId", TEXT, False),
    ("SkuPriceId", TEXT, False),
    ("SkuMeter", TEXT, False),
    ("SkuPriceDetails", TEXT, False),
    ("ResourceId", TEXT, True),
    ("ResourceName", TEXT, True),
    ("ResourceType", TEXT, True),
    ("ConsumedQuantity", QUANTITY, False),
    ("ConsumedUnit", TEXT, False),
    ("PricingQuantity", CREDITS, False),
    ("PricingUnit", TEXT, False),
    ("PricingCurrency", TEXT, False),
    ("PricingCurrencyListUnitPrice", CREDITS, False),
    ("PricingCurrencyContractedUnitPrice", CREDITS, False),
    ("PricingCurrencyEffectiveCost", CREDITS, False),
    ("ListUnitPrice", PRICE, False),
    ("ListCost", MONEY, False),
    ("ContractedUnitPrice", PRICE, False),
    ("ContractedCost", MONEY, False),
    ("EffectiveCost", MONEY, False),
    ("BilledCost", MONEY, False),
    ("Tags", TEXT, True),
)

_OF_VERSION: Mapping[str, tuple[tuple[str, pa.DataType, bool], ...]] = {
    "1.2": (("ProviderName", TEXT, False), ("PublisherName", TEXT, False)),
    "1.4": (("ServiceProviderName", TEXT, False), ("HostProviderName", TEXT, False), ("InvoiceDetailId", TEXT, True)),
}
"""Never both pairs: a column the version does not know is a violation."""

_OURS: tuple[tuple[str, pa.DataType, bool], ...] = (
    ("x_EventId", TEXT, False),
    ("x_EventTimestamp", TIME, False),
    ("x_CountedAt", TIME, False),
    ("x_ResourceKind", TEXT, False),
    ("x_Models", TEXT, True),
    ("x_Environment", TEXT, True),
    ("x_AiCredentialsOwnership", TEXT, True),
    ("x_RateCardVersion", TEXT, False),
    ("x_SyncStatus", TEXT, False),
    ("x_SyncError", TEXT, True),
    ("x_SyncedAt", TIME, True),
    ("x_MeterEventId", TEXT, True),
    ("x_Flags", TEXT, True),
)
_OF_USERS: tuple[tuple[str, pa.DataType, bool], ...] = (("x_UserId", TEXT, True), ("x_SessionId", TEXT, True))
_INTERNAL: tuple[tuple[str, pa.DataType, bool], ...] = (
    ("x_ProviderCostUsd", QUANTITY, True),
    ("x_MarginMultiplier", PRICE, True),
)


def focus_schema(profile: FocusProfile) -> pa.Schema:
    """The columns of every FOCUS file of a profile: the specification's first, ours (`x_`) last."""
    columns = (
        *_STANDARD,
        *_OF_VERSION[profile.version],
        *_OURS,
        *(_OF_USERS if profile.user_ids else ()),
        *(_INTERNAL if profile.internal else ()),
    )
    return pa.schema([pa.field(name, kind, nullable=nullable) for name, kind, nullable in columns])


def focus_text(table: pa.Table) -> pa.Table:
    """A FOCUS table as text for CSV: `null` is an empty field, decimals keep their fixed scale, times end in `Z`.

    Whole numbers must not lose their places (`412.000000`): readers that guess types would take the column for
    integers. The specification's times are whole seconds, ours (`x_`) have milliseconds. Only what is text in `table`
    may need neutralising for spreadsheets: a negative number begins with a minus sign and stays a number.
    """
    columns = []
    for position, column in enumerate(table.schema):
        values = table.column(position)
        if pa.types.is_decimal(column.type):
            chunks = [_fixed_text(chunk) for chunk in values.chunks]
            values = pa.chunked_array(chunks, TEXT)
        elif pa.types.is_timestamp(column.type):
            values = _time_text(values, "ms" if column.name.startswith("x_") else "s")
        columns.append(values)
    return pa.Table.from_arrays(columns, names=table.schema.names)


def _fixed_text(values: pa.Array) -> pa.Array:
    """Decimals with all their places and never an exponent, which Arrow's own text has for small values."""
    scale = values.type.scale
    whole = pa.Array.from_buffers(pa.decimal128(38, 0), len(values), values.buffers(), offset=values.offset)
    digits = whole.cast(TEXT)
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    digits = pc.utf8_lpad(pc.utf8_ltrim(digits, "-"), scale + 1, "0")
    units, places = pc.utf8_slice_codeunits(digits, 0, -scale), pc.utf8_slice_codeunits(digits, -scale)
    return pc.binary_join_element_wise(sign, units, ".", places, "")


def _time_text(values: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """ISO 8601 out of Arrow's own text, which is several times faster than `strftime`; places as the unit has."""
    plain = values.cast(pa.timestamp(values.type.unit)).cast(pa.timestamp(unit), safe=False)
    date_and_time = pc.utf8_replace_slice(
        plain.cast(TEXT), start=len("2026-11-01"), stop=len("2026-11-01 "), replacement="T"
    )
    return pc.binary_join_element_wise(date_and_time, "Z", "")


def focus_metadata(schema: pa.Schema, profile: FocusProfile, *, created: datetime) -> dict[str, Any]:
    """The metadata object that FOCUS wants beside the data: who made it, which version, which columns.

    `created` is when this schema was first used, aware; nothing else here depends on a clock. `SchemaId` follows from
    the columns alone: files of equal structure name the same one. `StringMaxLength` stands where the text is ours
    or the seller's; the ledger sets no limit to names and ids, so none is claimed for them.
    """
    known = _longest(profile)
    columns = [_definition(column, profile, known) for column in schema]
    structure = json.dumps([profile.version, columns], sort_keys=True, ensure_ascii=False)
    return {
        "DataGenerator": profile.seller,
        "SchemaId": str(uuid.uuid5(SCHEMA_IDS, structure)),
        "FocusVersion": profile.version,
        "CreationDate": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ColumnDefinition": columns,
    }


def _definition(column: pa.Field, profile: FocusProfile, longest: Mapping[str, int]) -> dict[str, Any]:
    name, kind = column.name, column.type
    if pa.types.is_decimal(kind):
        return {
            "ColumnName": name,
            "DataType": "DECIMAL",
            "NumericPrecision": kind.precision,
            "NumberScale": kind.scale,
        }
    if pa.types.is_timestamp(kind):
        return {"ColumnName": name, "DataType": "DATETIME"}
    definition: dict[str, Any] = {"ColumnName": name, "DataType": "STRING", "StringEncoding": "UTF-8"}
    if name in {"Tags", "SkuPriceDetails"}:
        definition["DataType"] = "JSON"
    if name in longest:
        definition["StringMaxLength"] = longest[name]
    if name == "Tags":
        definition["ProviderTagPrefixes"] = [profile.tag_prefix]
    return definition


def _longest(profile: FocusProfile) -> dict[str, int]:
    """Characters of the columns whose every value is known beforehand."""
    values = {
        **dict.fromkeys(SELLER_COLUMNS, (profile.seller,)),
        "ServiceName": (profile.service,),
        **{name: (text,) for name, text in CONSTANTS.items()},
        "ChargeClass": (CORRECTION,),
        "ResourceType": (RESOURCE_TYPE,),
        "SkuMeter": tuple(kind.meter for kind in KINDS),
        "ConsumedUnit": (*(kind.unit for kind in KINDS), CREDITS_UNIT),
        "x_ResourceKind": tuple(kind.part for kind in KINDS),
    }
    return {name: max(map(len, texts)) for name, texts in values.items()}
