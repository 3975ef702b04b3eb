"""Usage events as FOCUS, the FinOps Open Cost and Usage Specification: credits are a virtual currency.

Pure and columnar. One row per event and kind of resource (AI tokens, compute, storage) that cost credits; every
decision behind a column is in docs/focus.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.exports.focus_schema import (
    CONSTANTS,
    CORRECTION,
    CREDITS,
    CREDITS_UNIT,
    KINDS,
    MONEY,
    NO_CUSTOMER_ID,
    PRICE,
    QUANTITY,
    RESOURCE_TYPE,
    SELLER_COLUMNS,
    TEXT,
    TIME,
    FocusProfile,
    focus_schema,
)
from billing_core.ledger.queries import LATE, split_flags, split_models
from billing_core.types import plain_decimal
from billing_core.values.decimals import Integers, from_integers, round_half_even, to_integers

_STORED_CREDITS = pa.decimal128(18, 6)
_STORED_PRICE = pa.decimal128(18, 12)
_SECONDS = pa.decimal128(18, 6)
_AMOUNT = pa.decimal128(24, 12)

FOCUS_INPUT: dict[str, pa.DataType] = {
    **dict.fromkeys(
        (
            "id",
            "organization_id",
            "customer_id",
            "user_id",
            "session_id",
            "chatflow_id",
            "chatflow_name",
            "environment",
            "models",
            "ai_credentials_ownership",
            "rate_card_version",
            "sync_status",
            "sync_error",
            "meter_event_identifier",
            "flags",
            "marks",
        ),
        TEXT,
    ),
    **dict.fromkeys(("timestamp", "ended_at", "synced_at", "accounted_at"), TIME),
    "tokens_total": pa.int64(),
    "latency_seconds": _SECONDS,
    **dict.fromkeys(("storage_gb", "cost_usd"), _AMOUNT),
    **dict.fromkeys(("credits_ai_tokens", "credits_compute", "credits_storage"), _STORED_CREDITS),
    "credit_price_usd": _STORED_PRICE,
}
"""The stored columns that are read, whatever else is there; times without an offset are UTC, as they are stored."""

_SECOND = 10**6
"""Microseconds."""


def focus_table(flat: pa.Table, profile: FocusProfile) -> pa.Table:
    """FOCUS rows of events, in their order: one each for AI tokens, compute and storage, where not 0 credits.

    Both rows of a correction (what a closed month said, taken back, and what is true now) must be in the same `flat`:
    they share `accounted_at`, so slices of time keep them together. Memory is about 2 KB per row: hand over slices.

    Raises KeyError: if a column of `FOCUS_INPUT` is missing.
    """
    events = pa.Table.from_arrays([_typed(flat, name, kind) for name, kind in FOCUS_INPUT.items()], list(FOCUS_INPUT))
    events = events.append_column("is_correction", pa.array(_corrections(events)))
    credits_by_kind = np.stack([to_integers(events[f"credits_{kind.part}"]) for kind in KINDS], axis=1)
    event, kind = np.nonzero(credits_by_kind)
    charges = events.take(pa.array(event))
    quantity = from_integers(credits_by_kind[event, kind], _STORED_CREDITS)
    columns = {
        **_constant_columns(profile, len(event)),
        **_who(charges, profile),
        **_when(charges, profile.zone),
        **_what(charges, kind, profile),
        **_how_much(charges, kind, quantity),
        **_ours(charges, kind, profile),
    }
    schema = focus_schema(profile)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _typed(flat: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """One column in one piece, in the type that is reckoned with; an empty text is no text."""
    column = flat.column(name).cast(kind).combine_chunks()
    array = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, TEXT), array) if kind == TEXT else array


def _corrections(events: pa.Table) -> npt.NDArray[np.bool_]:
    """Which events correct a closed month: those taken back, and those that stand for one that is.

    A changed event comes as two late rows with one id, booked at one moment. A wholly new late event stands alone: it
    corrects nothing that was said before.
    """
    late = pc.match_substring(events["marks"], LATE).fill_null(False).to_numpy(zero_copy_only=False)
    ids = _codes(events["id"])
    moments = _codes(events["accounted_at"].cast(pa.int64()))
    key = np.where(late, ids * (int(moments.max(initial=0)) + 1) + moments, -1 - np.arange(len(ids)))
    _, group, times = np.unique(key, return_inverse=True, return_counts=True)
    total = sum(to_integers(events[f"credits_{kind.part}"]) for kind in KINDS)
    corrected: npt.NDArray[np.bool_] = late & ((times[group] > 1) | (np.asarray(total) < 0))
    return corrected


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Small numbers that are equal where the values are; null is one value."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes: npt.NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _constant_columns(profile: FocusProfile, rows: int) -> dict[str, pa.Array]:
    nothing = pa.nulls(rows, TEXT)
    texts = {**CONSTANTS, **dict.fromkeys(SELLER_COLUMNS, profile.seller), "ServiceName": profile.service}
    one = pa.repeat(pa.scalar(Decimal(1), CREDITS), rows)
    return {
        **{name: pa.repeat(pa.scalar(text, TEXT), rows) for name, text in texts.items()},
        "PricingCurrencyListUnitPrice": one,
        "PricingCurrencyContractedUnitPrice": one,
        # the ledger knows customers by their ids, and invoices are Stripe's
        **dict.fromkeys(("BillingAccountName", "InvoiceId", "InvoiceDetailId"), nothing),
    }


def _who(charges: pa.Table, profile: FocusProfile) -> dict[str, pa.Array]:
    names = profile.organization_names
    has_resource = pc.is_valid(charges["chatflow_id"])
    return {
        "BillingAccountId": charges["customer_id"].fill_null(NO_CUSTOMER_ID),
        "SubAccountId": charges["organization_id"],
        "SubAccountName": _each(charges["organization_id"], lambda name: names.get(name) or None),
        "ResourceId": charges["chatflow_id"],
        # the specification allows a name and a type only where there is an id
        "ResourceName": pc.if_else(has_resource, charges["chatflow_name"], None),
        "ResourceType": pc.if_else(has_resource, RESOURCE_TYPE, pa.scalar(None, TEXT)),
    }


def _when(charges: pa.Table, zone: ZoneInfo) -> dict[str, pa.Array]:
    """Periods begin with their first second and end before their last: `[start, end)`."""
    starts, ends = _months(_microseconds(_counted_at(charges)), zone)
    began = _microseconds(charges["timestamp"]) // _SECOND
    ended = -(-_microseconds(charges["ended_at"]) // _SECOND)
    return {
        "BillingPeriodStart": _times(starts),
        "BillingPeriodEnd": _times(ends),
        "ChargePeriodStart": _times(began * _SECOND),
        "ChargePeriodEnd": _times(np.maximum(ended, began + 1) * _SECOND),
    }


def _counted_at(charges: pa.Table) -> pa.ChunkedArray:
    """When an event counts: when it began, or when it was booked after its month was closed."""
    return pc.coalesce(charges["accounted_at"], charges["timestamp"])


def _microseconds(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return numbers


def _times(microseconds: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(microseconds, pa.int64()).cast(TIME)


def _months(moments: npt.NDArray[np.int64], zone: ZoneInfo) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First instants of the calendar month of `zone` that holds each moment, and of the next one."""
    if not len(moments):
        return moments, moments
    first, last = (
        datetime.fromtimestamp(int(edge) // _SECOND, UTC).astimezone(zone) for edge in (moments.min(), moments.max())
    )
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month + 1)
    begins = [datetime(number // 12, number % 12 + 1, 1, tzinfo=zone) for number in numbers]
    edges = np.array([int(begin.timestamp()) * _SECOND for begin in begins], dtype=np.int64)
    place = np.searchsorted(edges, moments, side="right")
    return edges[place - 1], edges[place]


def _what(charges: pa.Table, kind: npt.NDArray[np.int64], profile: FocusProfile) -> dict[str, pa.Array]:
    is_ai = pa.array(kind == 0)
    models = _each(charges["models"], lambda text: "+".join(split_models(text)) or None)
    models_of_ai = pc.if_else(is_ai, models, None)
    sku = pc.binary_join_element_wise(_word(kind, "sku"), models_of_ai, ":", null_handling="skip")
    return {
        "ChargeClass": pc.if_else(charges["is_correction"], CORRECTION, pa.scalar(None, TEXT)),
        "ChargeDescription": _description(charges, kind),
        "SkuMeter": _word(kind, "meter"),
        "SkuId": sku,
        "SkuPriceId": pc.binary_join_element_wise(sku, charges["rate_card_version"], ":"),
        "SkuPriceDetails": _json_object(
            ("x_CreditPriceUsd", _each(charges["credit_price_usd"], plain_decimal)),
            ("x_Models", _quoted(models_of_ai)),
            ("x_RateCardVersion", _quoted(charges["rate_card_version"])),
        ),
        "Tags": _json_object(
            (f"{profile.tag_prefix}environment", _quoted(charges["environment"])),
            (f"{profile.tag_prefix}models", _quoted(models)),
            *([(f"{profile.tag_prefix}user", _quoted(charges["user_id"]))] if profile.user_ids else []),
        ),
    }


def _description(charges: pa.Table, kind: npt.NDArray[np.int64]) -> pa.Array:
    """One line, whatever a chatflow is called: `Correction: AI tokens used by Support (no customer)`."""
    called = pc.coalesce(charges["chatflow_name"], charges["chatflow_id"])
    called = _each(called, lambda name: " ".join(name.split()) or None)
    by = pc.binary_join_element_wise("by", called, " ")
    nobody = pc.if_else(pc.is_null(charges["customer_id"]), NO_CUSTOMER_ID, pa.scalar(None, TEXT))
    correction = pc.if_else(charges["is_correction"], f"{CORRECTION}:", pa.scalar(None, TEXT))
    return pc.binary_join_element_wise(correction, _word(kind, "used"), by, nobody, " ", null_handling="skip")


def _how_much(charges: pa.Table, kind: npt.NDArray[np.int64], quantity: pa.Array) -> dict[str, pa.Array]:
    price = charges["credit_price_usd"]
    cost = pc.multiply(quantity, price).cast(MONEY)
    consumed = pc.choose(
        pa.array(kind),
        charges["tokens_total"].cast(pa.decimal128(19, 0)).cast(QUANTITY),
        _minutes(charges),
        charges["storage_gb"].cast(QUANTITY),
    )
    # credits for an amount nobody named, or for none: what is known to be consumed are the credits
    is_measured = pc.fill_null(pc.not_equal(consumed, pa.scalar(Decimal(0), QUANTITY)), False)
    credits_consumed = quantity.cast(CREDITS)
    return {
        "ConsumedQuantity": pc.if_else(is_measured, consumed, credits_consumed.cast(QUANTITY)),
        "ConsumedUnit": pc.if_else(is_measured, _word(kind, "unit"), CREDITS_UNIT),
        "PricingQuantity": credits_consumed,
        "PricingCurrencyEffectiveCost": credits_consumed,
        **dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), price.cast(PRICE)),
        **dict.fromkeys(("ListCost", "ContractedCost", "EffectiveCost", "BilledCost"), cost),
    }


def _minutes(charges: pa.Table) -> pa.Array:
    """Minutes of latency, half-even to twelve places.

    A row that takes an event back lasted no time by its latency; it takes back as long as the event lasted.
    """
    lasted = _microseconds(charges["ended_at"]) - _microseconds(charges["timestamp"])
    taken_back = to_integers(charges["credits_compute"]) < 0
    microseconds = np.where(taken_back, -lasted, to_integers(charges["latency_seconds"]))
    return _decimals(round_half_even(microseconds, Fraction(10**QUANTITY.scale, 60 * _SECOND)), QUANTITY)


def _decimals(unscaled: Integers, kind: pa.Decimal128Type) -> pa.Array:
    """Unscaled integers of any size as a decimal column."""
    if unscaled.dtype != object:
        return from_integers(unscaled, kind)
    return pa.array([Decimal(int(value)).scaleb(-kind.scale) for value in unscaled], kind)


def _ours(charges: pa.Table, kind: npt.NDArray[np.int64], profile: FocusProfile) -> dict[str, pa.Array]:
    own_flags = pc.fill_null(charges["flags"], "")
    all_flags = pc.binary_join_element_wise(own_flags, pc.fill_null(charges["marks"], ""), ",")
    is_ai = pa.array(kind == 0)
    margins = profile.margins
    margin = _each(charges["rate_card_version"], lambda card: margins.get(card), PRICE)
    return {
        "x_EventId": charges["id"],
        "x_EventTimestamp": charges["timestamp"],
        "x_CountedAt": _counted_at(charges),
        "x_ResourceKind": _word(kind, "part"),
        "x_Models": _each(charges["models"], lambda text: json.dumps(split_models(text), ensure_ascii=False)),
        "x_Environment": charges["environment"],
        "x_AiCredentialsOwnership": charges["ai_credentials_ownership"],
        "x_RateCardVersion": charges["rate_card_version"],
        "x_SyncStatus": charges["sync_status"],
        "x_SyncError": charges["sync_error"],
        "x_SyncedAt": charges["synced_at"],
        "x_MeterEventId": charges["meter_event_identifier"],
        "x_Flags": _each(all_flags, lambda text: ",".join(split_flags(text, "")) or None),
        "x_UserId": charges["user_id"],
        "x_SessionId": charges["session_id"],
        # an event's cost and margin are those of its AI tokens: on every row they would count more than once
        "x_ProviderCostUsd": pc.if_else(is_ai, charges["cost_usd"], None).cast(QUANTITY),
        "x_MarginMultiplier": pc.if_else(is_ai, margin, None),
    }


def _word(kind: npt.NDArray[np.int64], name: str) -> pa.Array:
    """The kinds' own words, row by row."""
    return pa.array([getattr(one, name) for one in KINDS], TEXT).take(pa.array(kind))


def _each(column: pa.ChunkedArray, change: Callable[..., object], kind: pa.DataType = TEXT) -> pa.Array:
    """`change` of every known value, called once per distinct one: names and models repeat."""
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    encoded = encoded.dictionary_encode()
    changed = pa.array([change(value) for value in encoded.dictionary.to_pylist()], kind)
    return changed.take(encoded.indices)


def _quoted(column: pa.ChunkedArray) -> pa.Array:
    """Texts as JSON strings."""
    return _each(column, lambda text: json.dumps(text, ensure_ascii=False))


def _json_object(*members: tuple[str, pa.Array]) -> pa.Array:
    """JSON objects of the members whose value (JSON text) is known; null where none is."""
    pairs = [pc.binary_join_element_wise(json.dumps(key, ensure_ascii=False), value, ":") for key, value in members]
    # begins with a text that is always known: of rows whose every piece is null, Arrow 26 returns none at all
    inside = pc.binary_join_element_wise("", *pairs, ",", null_handling="skip")
    filled = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inside, 1), "}", "")
    return pc.if_else(pc.equal(inside, ""), pa.scalar(None, TEXT), filled)
