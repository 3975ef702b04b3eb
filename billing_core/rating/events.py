"""From rated usage to rows of the ledger: flags, customer, sync status, and the earlier system's record.

Pure: everything that depends on settings comes in as `Policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.decimals import from_integers, to_integers
from billing_core.rating.card import LEGACY_VERSION, RateCard
from billing_core.rating.rate import CREDITS, LARGEST_COMPONENT, PRICE, rate
from billing_core.types import Flag, SyncStatus
from billing_core.usage import COST, LARGEST_COST_USD, USAGE_SCHEMA

__all__ = ["COST_USD", "EVENT_SCHEMA", "LATENCY", "NO_CUSTOMER", "Policy", "to_events"]

COST_USD = pa.decimal128(18, 12)
"""US dollars of one event: within 64 bits, so that sums over millions stay fast."""

LATENCY = pa.decimal128(18, 6)
"""Seconds."""

NO_CUSTOMER = "no customer: the trace names none and BILLING_DEFAULT_CUSTOMER_ID is not set"
_LEGACY_UNIT = 10**6
"""Recorded credits come with twelve places, ledger credits have six."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the environment decides about events (CONTRACT section 2)."""

    default_customer_id: str | None = None
    override_customer_id: bool = False
    excluded_environments: tuple[str, ...] = field(default=("langfuse-*", "sdk-experiment"))


def _field(name: str) -> pa.Field:
    return USAGE_SCHEMA.field(name)


EVENT_SCHEMA = pa.schema(
    [
        *(
            _field(name)
            for name in (
                "id", "project_id", "trace_base", "timestamp", "ended_at", "organization_id", "customer_id",
                "user_id", "session_id", "chatflow_id", "chatflow_name", "environment", "models", "tokens_in",
                "tokens_out", "tokens_total",
            )
        ),
        pa.field("latency_seconds", LATENCY, nullable=False),
        _field("storage_gb"),
        pa.field("cost_usd", COST_USD),
        _field("ai_credentials_ownership"),
        pa.field("credits_ai_tokens", CREDITS, nullable=False),
        pa.field("credits_compute", CREDITS, nullable=False),
        pa.field("credits_storage", CREDITS, nullable=False),
        pa.field("credits_total", CREDITS, nullable=False),
        pa.field("credit_price_usd", PRICE, nullable=False),
        pa.field("rate_card_version", pa.string(), nullable=False),
        pa.field("sync_status", pa.string(), nullable=False),
        pa.field("sync_error", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        _field("usage"),
        _field("observations"),
        _field("problems"),
        _field("metadata"),
        _field("updated_at"),
    ]
)  # fmt: skip
"""What a pull books. The ledger adds what only it knows: sequence, sync identifiers, its own marks."""


def to_events(usage: pa.Table, cards: Sequence[RateCard | None], policy: Policy) -> pa.Table:
    """Rate each row with the card beside it and decide flags and status.

    Parameters
    ----------
    usage:
        Columns of `USAGE_SCHEMA`.
    cards:
        One per row; `None` where no card was in force: such an event is unpriced with 0 credits, flagged.
    """
    rated, price, version = _rate_by_card(usage, cards)
    excluded = _matches_any(usage["environment"], policy.excluded_environments)
    legacy = pc.equal(pc.utf8_lower(usage["legacy_status"]), "processed").fill_null(False).to_numpy()
    parts = {name: to_integers(rated[name]) for name in ("credits_ai_tokens", "credits_compute", "credits_storage")}
    recorded = _recorded_parts(usage)
    use_record = legacy & recorded.present
    for name, values in zip(parts, (recorded.ai_tokens, recorded.compute, recorded.storage), strict=True):
        parts[name] = np.where(use_record, values, np.where(excluded, 0, parts[name]))
    total = parts["credits_ai_tokens"] + parts["credits_compute"] + parts["credits_storage"]

    customer = _customer(usage["customer_id"], policy)
    no_customer = customer.is_null().to_numpy(zero_copy_only=False)
    error_text = usage["legacy_error"].combine_chunks()
    failed_before = error_text.is_valid().to_numpy(zero_copy_only=False)
    status = np.select(
        [legacy, (total == 0) | excluded, no_customer, failed_before],
        [SyncStatus.PROCESSED, SyncStatus.EXCLUDED, SyncStatus.ERROR, SyncStatus.ERROR],
        SyncStatus.PENDING,
    )
    absurd_cost = pc.greater(usage["cost_usd"], Decimal(LARGEST_COST_USD)).fill_null(False).to_numpy()
    cost = pc.if_else(pa.array(absurd_cost), pa.scalar(None, COST), usage["cost_usd"]).cast(COST_USD)
    is_error = status == SyncStatus.ERROR
    sync_error = pc.if_else(
        pa.array(is_error & no_customer),
        NO_CUSTOMER,
        pc.if_else(pa.array(is_error), error_text, pa.scalar(None, pa.string())),
    )
    flagged = {
        Flag.OWN_KEY: _bools(rated["own_key"]),
        Flag.UNPRICED: _bools(rated["unpriced"]) | _bools(usage["unpriced"]),
        Flag.EXCLUDED_ENVIRONMENT: excluded,
        Flag.NO_CUSTOMER: no_customer,
        Flag.BAD_USAGE: _bools(usage["bad_usage"]) | _bools(rated["absurd"]) | absurd_cost,
        Flag.CONFLICTING_ATTRIBUTES: _bools(usage["conflicting_attributes"]),
        Flag.DOUBLE_COUNT_SUSPECT: _bools(usage["double_count_suspect"]),
        Flag.LEGACY_BILLED: legacy,
    }
    reasons = (Flag.OWN_KEY, Flag.UNPRICED, Flag.EXCLUDED_ENVIRONMENT, Flag.BAD_USAGE, Flag.LEGACY_BILLED)
    flagged[Flag.NO_USAGE] = (total == 0) & ~np.logical_or.reduce([flagged[reason] for reason in reasons])
    latency = to_integers(pc.microseconds_between(usage["timestamp"], usage["ended_at"]))
    made: dict[str, pa.Array] = {
        "customer_id": customer,
        "cost_usd": cost,
        "latency_seconds": from_integers(latency, LATENCY),
        **{name: from_integers(values, CREDITS) for name, values in parts.items()},
        "credits_total": from_integers(total, CREDITS),
        "credit_price_usd": price,
        "rate_card_version": pc.if_else(pa.array(use_record), LEGACY_VERSION, version),
        "sync_status": pa.array(status.tolist(), pa.string()),
        "sync_error": sync_error,
        "flags": _flag_lists(flagged),
    }
    columns = [made[name] if name in made else usage[name] for name in EVENT_SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)


def _rate_by_card(usage: pa.Table, cards: Sequence[RateCard | None]) -> tuple[pa.Table, pa.Array, pa.Array]:
    """Credits, price and version row for row, each distinct card applied once to its rows."""
    distinct = list({id(card): card for card in cards}.values())
    if len(distinct) == 1 and (only := distinct[0]) is not None:
        price = pa.repeat(pa.scalar(only.credit_price_usd, PRICE), usage.num_rows)
        return rate(usage, only), price, pa.repeat(pa.scalar(only.id), usage.num_rows)
    rows_of: dict[int, list[int]] = {id(card): [i for i, c in enumerate(cards) if c is card] for card in distinct}
    pieces, prices, versions, order = [], [], [], []
    for card in distinct:
        rows = rows_of[id(card)]
        part = usage.take(pa.array(rows, pa.int64()))
        order.extend(rows)
        pieces.append(_unrated(len(rows)) if card is None else rate(part, card))
        prices += [Decimal(0) if card is None else card.credit_price_usd] * len(rows)
        versions += ["none" if card is None else card.id] * len(rows)
    if not pieces:
        return _unrated(0), pa.array([], PRICE), pa.array([], pa.string())
    back = pa.array(np.argsort(np.array(order, dtype=np.int64)))
    return (
        pa.concat_tables(pieces).take(back),
        pa.array(prices, PRICE).take(back),
        pa.array(versions, pa.string()).take(back),
    )


def _unrated(rows: int) -> pa.Table:
    zeros = from_integers(np.zeros(rows, dtype=np.int64), CREDITS)
    no, yes = pa.array([False] * rows, pa.bool_()), pa.array([True] * rows, pa.bool_())
    names = [
        "credits_ai_tokens",
        "credits_compute",
        "credits_storage",
        "credits_total",
        "own_key",
        "unpriced",
        "absurd",
    ]
    return pa.table([zeros, zeros, zeros, zeros, no, yes, no], names=names)


@dataclass(frozen=True, slots=True)
class _Recorded:
    present: npt.NDArray[np.bool_]
    ai_tokens: npt.NDArray[np.int64]
    compute: npt.NDArray[np.int64]
    storage: npt.NDArray[np.int64]


def _recorded_parts(usage: pa.Table) -> _Recorded:
    """What the earlier system wrote down, in millionths of a credit.

    A record that names only a total keeps it as AI credits: the parts are not known, the sum is.
    """
    columns = {n: usage[f"legacy_{n}"] for n in ("ai_tokens", "compute", "storage", "total")}
    known = {n: column.is_valid().to_numpy() for n, column in columns.items()}
    micros = {n: _to_micros(column) for n, column in columns.items()}
    has_parts = known["ai_tokens"] | known["compute"] | known["storage"]
    only_total = ~has_parts & known["total"]
    return _Recorded(
        has_parts | only_total,
        np.where(only_total, micros["total"], micros["ai_tokens"]),
        micros["compute"],
        micros["storage"],
    )


def _to_micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    values = to_integers(column) // _LEGACY_UNIT
    return np.where((values < 0) | (values > LARGEST_COMPONENT), 0, values).astype(np.int64)


def _customer(named: pa.ChunkedArray, policy: Policy) -> pa.Array:
    column = named.combine_chunks()
    if policy.default_customer_id is None:
        return column
    default = pa.scalar(policy.default_customer_id, pa.string())
    return pa.repeat(default, len(column)) if policy.override_customer_id else column.fill_null(default)


def _matches_any(column: pa.ChunkedArray, globs: Sequence[str]) -> npt.NDArray[np.bool_]:
    encoded = column.combine_chunks().dictionary_encode()
    hit = [any(fnmatchcase(value, glob) for glob in globs) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(hit)).to_numpy(zero_copy_only=False)
    matched: npt.NDArray[np.bool_] = np.array([*hit, False], dtype=bool)[codes]
    return matched


def _bools(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    values: npt.NDArray[np.bool_] = column.to_numpy()
    return values


def _flag_lists(flagged: dict[Flag, npt.NDArray[np.bool_]]) -> pa.Array:
    """The names of the true flags of each row, in the order of CONTRACT section 4."""
    names = [flag.value for flag in flagged]
    bits = np.zeros(len(next(iter(flagged.values()))), dtype=np.int64)
    for position, mask in enumerate(flagged.values()):
        bits |= mask.astype(np.int64) << position
    patterns, codes = np.unique(bits, return_inverse=True)
    lists = [[name for position, name in enumerate(names) if pattern >> position & 1] for pattern in patterns.tolist()]
    return pa.array(lists, pa.list_(pa.string())).take(pa.array(codes))
