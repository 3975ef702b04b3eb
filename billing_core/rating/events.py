"""Turns rated usage into rows of the ledger: flags, customer, sync status, and the earlier billing system's record.

Pure: everything that depends on settings comes in as `Policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.rating.card import LEGACY_VERSION, RateCard
from billing_core.rating.rate import CREDITS, LARGEST_COMPONENT, PRICE, RATED_SCHEMA, rate
from billing_core.types import Flag, SyncStatus
from billing_core.values.decimals import Integers, from_integers, to_integers
from billing_core.values.time_columns import microseconds_between
from billing_core.values.usage_frame import COST, LARGEST_COST_USD, USAGE_SCHEMA, MetadataNames

COST_USD = pa.decimal128(18, 12)
"""US dollars of one event: within 64 bits, so that sums over millions stay fast."""

LATENCY = pa.decimal128(18, 6)
"""Seconds."""

NO_CUSTOMER = (
    "no customer: the trace names none, its organization is not mapped to one, BILLING_DEFAULT_CUSTOMER_ID is not set"
)
_FAILED_BEFORE = "; the earlier system recorded: "
"""Between the two reasons of an event that nobody pays for and that failed before as well."""

RATED_FLAGS = (
    Flag.OWN_KEY,
    Flag.UNPRICED,
    Flag.EXCLUDED_ENVIRONMENT,
    Flag.NO_CUSTOMER,
    Flag.BAD_USAGE,
    Flag.CONFLICTING_ATTRIBUTES,
    Flag.DOUBLE_COUNT_SUSPECT,
    Flag.LEGACY_BILLED,
    Flag.NO_USAGE,
    Flag.MAPPED_CUSTOMER,
    Flag.INCOMPLETE,
    Flag.UNKNOWN_USAGE,
)
"""The flags that rating gives, in the order in which they are stored: an event's text of flags is compared as it is."""

_LEGACY_UNIT = 10**6
"""Recorded credits come with twelve places, ledger credits have six."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the environment (CONTRACT section 2), the card file and the organization directory decide about events.

    `customers` is the directory's map, organization → Stripe customer; `names` says which metadata keys were read.
    Who pays for an event, first match: the default customer if it overrides everything · who the trace names · who its
    organization is mapped to · the default customer · nobody.
    """

    default_customer_id: str | None = None
    override_customer_id: bool = False
    excluded_environments: tuple[str, ...] = field(default=("langfuse-*", "sdk-experiment"))
    customers: Mapping[str, str] = field(default_factory=dict, hash=False)
    names: MetadataNames = field(default=MetadataNames())

    @property
    def overrides(self) -> bool:
        """Whether the default customer pays for every event, whatever customer it names."""
        return self.override_customer_id and self.default_customer_id is not None


@dataclass(frozen=True, slots=True)
class BookedCustomer:
    """The customer that an event already sent to Stripe was booked for, and whether the directory named it."""

    customer_id: str | None
    is_mapped: bool


def no_customer(recorded: str | None) -> str:
    """The error text of an event for which nobody pays; `recorded` is the earlier billing system's error."""
    return NO_CUSTOMER if recorded is None else f"{NO_CUSTOMER}{_FAILED_BEFORE}{recorded}"


def failed_before(sync_error: str | None) -> str | None:
    """The earlier billing system's error out of a text of `no_customer`; `None` if it has none."""
    return (sync_error or "").partition(_FAILED_BEFORE)[2] or None


def in_order(flags: Iterable[str]) -> list[str]:
    """Flags in the order they are stored."""
    given = set(flags)
    return [flag.value for flag in RATED_FLAGS if flag in given]


Mask: TypeAlias = npt.NDArray[np.bool_]


def no_usage(total: Integers, flagged: Mapping[Flag, Mask]) -> Mask:
    """Which events cost 0 credits because nothing was used: no other flag says why their `total` is 0."""
    reasons = (
        Flag.OWN_KEY,
        Flag.UNPRICED,
        Flag.EXCLUDED_ENVIRONMENT,
        Flag.BAD_USAGE,
        Flag.LEGACY_BILLED,
        Flag.INCOMPLETE,
    )
    free: Mask = (total == 0) & ~np.logical_or.reduce([flagged[reason] for reason in reasons])
    return free


def flag_sets(flagged: Mapping[Flag, Mask]) -> tuple[list[list[str]], npt.NDArray[np.int64]]:
    """Every combination of flags that occurs, in stored order, and which of them each row has."""
    names = [flag.value for flag in RATED_FLAGS]
    bits = np.zeros(len(next(iter(flagged.values()))), dtype=np.int64)
    for position, flag in enumerate(RATED_FLAGS):
        bits |= flagged[flag].astype(np.int64) << position
    patterns, which = np.unique(bits, return_inverse=True)
    sets = [[name for position, name in enumerate(names) if pattern >> position & 1] for pattern in patterns.tolist()]
    return sets, which.astype(np.int64)


def _field(name: str) -> pa.Field:
    return USAGE_SCHEMA.field(name)


EVENT_SCHEMA = pa.schema(
    [
        *(
            _field(name)
            for name in (
                "id",
                "project_id",
                "trace_base",
                "timestamp",
                "ended_at",
                "organization_id",
                "customer_id",
                "user_id",
                "session_id",
                "chatflow_id",
                "chatflow_name",
                "environment",
                "models",
                "tokens_in",
                "tokens_out",
                "tokens_total",
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
        _field("has_error"),
        _field("problems"),
        _field("metadata"),
        _field("updated_at"),
        _field("active_seconds"),
        _field("usage_lines"),
    ]
)
"""What a pull books. The ledger adds what only it knows: sequence, sync identifiers, its own marks."""


def to_events(
    usage: pa.Table,
    cards: Sequence[RateCard | None],
    policy: Policy,
    booked: Mapping[str, BookedCustomer] | None = None,
) -> pa.Table:
    """Ledger rows from usage rated with the given cards: who pays, flags and status are decided here.

    usage: Columns of `USAGE_SCHEMA`.
    cards: One per row; `None` where no card was in force: such an event is unpriced with 0 credits, flagged.
    booked: By id, events that are on a bill already: one that names no customer stays with whom it was booked for.
    """
    absurd_cost = pc.greater(usage["cost_usd"], Decimal(LARGEST_COST_USD)).fill_null(False).to_numpy()
    cost = pc.if_else(pa.array(absurd_cost), pa.scalar(None, COST), usage["cost_usd"]).cast(COST_USD)
    usage = usage.set_column(usage.schema.get_field_index("cost_usd"), "cost_usd", cost)
    rated, price, version = _rate_by_card(usage, cards)
    excluded = matches_any(usage["environment"], policy.excluded_environments)
    legacy = pc.equal(pc.utf8_lower(usage["legacy_status"]), "processed").fill_null(False).to_numpy()
    parts = {name: to_integers(rated[name]) for name in ("credits_ai_tokens", "credits_compute", "credits_storage")}
    recorded = _recorded_parts(usage)
    use_record = legacy & recorded.present
    for name, values in zip(parts, (recorded.ai_tokens, recorded.compute, recorded.storage), strict=True):
        parts[name] = np.where(use_record, values, np.where(excluded, 0, parts[name]))
    total = parts["credits_ai_tokens"] + parts["credits_compute"] + parts["credits_storage"]

    customer, mapped = payers(usage, policy, booked or {})
    nobody = customer.is_null().to_numpy(zero_copy_only=False)
    recorded_error = usage["legacy_error"].combine_chunks()
    has_failed = recorded_error.is_valid().to_numpy(zero_copy_only=False)
    status = np.select(
        [legacy, (total == 0) | excluded, nobody, has_failed],
        [SyncStatus.PROCESSED, SyncStatus.EXCLUDED, SyncStatus.ERROR, SyncStatus.ERROR],
        SyncStatus.PENDING,
    )
    is_error = status == SyncStatus.ERROR
    unpayable = pc.coalesce(pc.binary_join_element_wise(NO_CUSTOMER, recorded_error, _FAILED_BEFORE), NO_CUSTOMER)
    sync_error = pc.if_else(
        pa.array(is_error & nobody),
        unpayable,
        pc.if_else(pa.array(is_error), recorded_error, pa.scalar(None, pa.string())),
    )
    flagged = {
        Flag.OWN_KEY: _bools(rated["own_key"]),
        Flag.UNPRICED: _bools(rated["unpriced"]) | _bools(rated["usage_unpriced"]),
        Flag.EXCLUDED_ENVIRONMENT: excluded,
        Flag.NO_CUSTOMER: nobody,
        Flag.BAD_USAGE: _bools(usage["bad_usage"]) | _bools(rated["absurd"]) | absurd_cost,
        Flag.CONFLICTING_ATTRIBUTES: _bools(usage["conflicting_attributes"]),
        Flag.DOUBLE_COUNT_SUSPECT: _bools(rated["double_count_suspect"]),
        Flag.LEGACY_BILLED: legacy,
        Flag.MAPPED_CUSTOMER: mapped,
        Flag.INCOMPLETE: _bools(pc.fill_null(usage["incomplete"], False)),
        Flag.UNKNOWN_USAGE: _bools(rated["unknown_usage"]),
    }
    flagged[Flag.NO_USAGE] = no_usage(total, flagged)
    flag_lists, which = flag_sets(flagged)
    latency = to_integers(microseconds_between(usage["timestamp"], usage["ended_at"]))
    made: dict[str, pa.Array] = {
        "customer_id": customer,
        "latency_seconds": from_integers(latency, LATENCY),
        **{name: from_integers(values, CREDITS) for name, values in parts.items()},
        "credits_total": from_integers(total, CREDITS),
        "credit_price_usd": price,
        "rate_card_version": pc.if_else(pa.array(use_record), LEGACY_VERSION, version),
        "sync_status": pa.array(status.tolist(), pa.string()),
        "sync_error": sync_error,
        "flags": pa.array(flag_lists, pa.list_(pa.string())).take(pa.array(which)),
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
        pieces.append(_unrated(part) if card is None else rate(part, card))
        prices += [Decimal(0) if card is None else card.credit_price_usd] * len(rows)
        versions += ["none" if card is None else card.id] * len(rows)
    if not pieces:
        return _unrated(usage), pa.array([], PRICE), pa.array([], pa.string())
    back = pa.array(np.argsort(np.array(order, dtype=np.int64)))
    return (
        pa.concat_tables(pieces).take(back),
        pa.array(prices, PRICE).take(back),
        pa.array(versions, pa.string()).take(back),
    )


def _unrated(part: pa.Table) -> pa.Table:
    """Without a card nothing has a price; what is known about the usage itself stays."""
    zeros = from_integers(np.zeros(part.num_rows, dtype=np.int64), CREDITS)
    no, yes = pa.array([False] * part.num_rows, pa.bool_()), pa.array([True] * part.num_rows, pa.bool_())
    facts = {"usage_unpriced": part["unpriced"], "double_count_suspect": part["double_count_suspect"], "unpriced": yes}
    columns = [facts.get(field.name, zeros if pa.types.is_decimal(field.type) else no) for field in RATED_SCHEMA]
    return pa.Table.from_arrays(columns, schema=RATED_SCHEMA)


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


def payers(
    usage: pa.Table, policy: Policy, booked: Mapping[str, BookedCustomer]
) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """The customer who pays for each row, and whether the directory or its booking says so."""
    named = usage["customer_id"].combine_chunks()
    default = pa.scalar(policy.default_customer_id, pa.string())
    if policy.overrides:
        return pa.repeat(default, len(named)), np.zeros(len(named), dtype=bool)
    organizations = usage["organization_id"].combine_chunks().dictionary_encode()
    mapped_to = pa.array([policy.customers.get(one) for one in organizations.dictionary.to_pylist()], pa.string())
    unnamed = named.is_null()
    entry = pc.if_else(unnamed, mapped_to.take(organizations.indices), pa.scalar(None, pa.string()))
    payer, mapped = pc.coalesce(named, entry, default), entry.is_valid()
    place = pc.index_in(usage["id"].combine_chunks(), pa.array(list(booked), pa.string()))
    stays = pc.and_(unnamed, place.is_valid())
    held = pa.array([one.customer_id for one in booked.values()], pa.string()).take(place)
    held_by_map = pa.array([one.is_mapped for one in booked.values()], pa.bool_()).take(place)
    mapped = pc.if_else(stays, held_by_map, mapped)
    return pc.if_else(stays, held, payer), mapped.to_numpy(zero_copy_only=False)


def matches_any(column: pa.ChunkedArray, globs: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which texts of a column match one of the globs; a null matches none."""
    encoded = column.combine_chunks().dictionary_encode()
    hit = [any(fnmatchcase(value, glob) for glob in globs) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(hit)).to_numpy(zero_copy_only=False)
    matched: npt.NDArray[np.bool_] = np.array([*hit, False], dtype=bool)[codes]
    return matched


def _bools(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    values: npt.NDArray[np.bool_] = column.to_numpy()
    return values
