"""Rates events that were already billed under the settings of their time: a changed setting must not change them. Pure.

The billing policy is the default customer, whether it overrides, the excluded environments and the metadata names. An
event on a bill is rated under the policy it was booked with; what the settings now would make of it is said beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.rating.card import RateCard
from billing_core.rating.events import BookedCustomer, Policy, to_events
from billing_core.rating.rate import CREDITS
from billing_core.types import Flag
from billing_core.values.usage_frame import USAGE_SCHEMA, MetadataNames

NAMED_FACTS = ("organization_id", "user_id", "chatflow_id", "chatflow_name", "ai_credentials_ownership", "storage_gb")
"""Columns that metadata names decide, besides who the trace names as customer."""

_LEGACY_FACTS = tuple(name for name in USAGE_SCHEMA.names if name.startswith("legacy_"))
_DECIDES = ("customer_id", "organization_id", "credits_ai_tokens", "credits_compute", "credits_storage")
_DECIDING_FLAGS = (Flag.EXCLUDED_ENVIRONMENT, Flag.LEGACY_BILLED)

Mask = npt.NDArray[np.bool_]
Cards = Sequence[RateCard | None]


def policy_json(policy: Policy) -> str:
    """A billing policy as text without its organization map: equal texts, equal policies."""
    return json.dumps(
        {
            "default_customer_id": policy.default_customer_id,
            "override_customer_id": policy.overrides,
            "excluded_environments": sorted(set(policy.excluded_environments)),
            "metadata": policy.names.model_dump(mode="json"),
        },
        sort_keys=True,
    )


def policy_from_json(text: str) -> Policy:
    """The billing policy from the text of `policy_json`, with an empty organization map."""
    found = json.loads(text)
    return Policy(
        found["default_customer_id"],
        found["override_customer_id"],
        tuple(found["excluded_environments"]),
        names=MetadataNames.model_validate(found["metadata"]),
    )


def fingerprint(policy: Policy) -> str:
    """Sixteen hex digits that identify a billing policy."""
    return hashlib.sha256(policy_json(policy).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """An event already billed that was booked under another policy than the one in force.

    `policy` is its fingerprint and `under` the policy itself, both `None` if an older version or an import booked it.
    `payer` is whose bill it is on; `facts` are stored `NAMED_FACTS` and `named_customer_id`.
    """

    policy: str | None
    under: Policy | None
    payer: str | None
    is_mapped: bool
    flags: frozenset[str]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReadUnderPolicy:
    """What an event already billed would be under the settings in force, while its booking stays: `NAMED_FACTS` and
    `named_customer_id`; `is_legacy`: the earlier billing system's mark of having billed it was found.
    """

    facts: Mapping[str, Any]
    is_legacy: bool


@dataclass(frozen=True, slots=True)
class Rated:
    """Rated usage, one row per row of usage.

    events: What to book: `EVENT_SCHEMA` and `POLICY_COLUMNS`. Rows that cannot be rated as they were billed are
        missing.
    now: `EVENT_SCHEMA`: what the policy in force makes of each, also of those that stay as they are.
    differs: Whether an event on a bill would be billed otherwise under the policy in force.
    at_stake: Credits that would be billed otherwise: all of them if another customer paid, else the difference.
    """

    events: pa.Table
    now: pa.Table
    differs: Mask
    at_stake: pa.Array


def rate_under(
    usage: pa.Table,
    cards: Cards,
    policy: Policy,
    booked: Mapping[str, BookedCustomer],
    on_a_bill: Mapping[str, PolicyDifference],
) -> Rated:
    """Credits for rows of `USAGE_SCHEMA` under `policy`; events in `on_a_bill` are rated under the policy they were
    booked with.

    booked: As `to_events` has it.
    on_a_bill: By id, events on a bill that were booked under another policy.
    """
    now = to_events(usage, cards, policy, booked)
    mine = fingerprint(policy)
    rows = now.num_rows
    differs = np.zeros(rows, dtype=bool)
    at_stake = pa.array([0] * rows, CREDITS)
    names = usage["customer_id"].combine_chunks()
    policies: list[str | None] = [mine] * rows
    if not on_a_bill:
        return Rated(_with_policy(now, names, policies, differs), now, differs, at_stake)
    ids = usage["id"].to_pylist()
    other = np.array([place for place, event_id in enumerate(ids) if event_id in on_a_bill], dtype=np.int64)
    kept, would, gone, stake = _others(usage, cards, policy, booked, [on_a_bill[ids[place]] for place in other], other)
    differs[other] = gone
    stays = other[gone]
    named = names.to_pylist()
    for place in stays.tolist():
        one = on_a_bill[ids[place]]
        policies[place] = one.policy
        if not _same_names(one, policy):
            named[place] = one.facts["named_customer_id"]
    booked_as = _put(now, kept, other, gone)
    now = _put(now, would, other, gone)
    at_stake = pa.array([0] * rows, CREDITS)
    if len(stays):
        values = dict(zip(stays.tolist(), stake.filter(pa.array(gone)).to_pylist(), strict=True))
        at_stake = pa.array([values.get(place, 0) for place in range(rows)], CREDITS)
    events = _with_policy(booked_as, pa.array(named, pa.string()), policies, differs)
    unratable = [place for place in stays.tolist() if _cannot_be_rated(on_a_bill[ids[place]], policy)]
    if unratable:
        keep = np.ones(rows, dtype=bool)
        keep[unratable] = False
        events = events.filter(pa.array(keep))
    return Rated(events, now, differs, at_stake)


def _same_names(one: PolicyDifference, policy: Policy) -> bool:
    return one.under is not None and one.under.names == policy.names


def _cannot_be_rated(one: PolicyDifference, policy: Policy) -> bool:
    """What the earlier system recorded is read by metadata names too: without them its record cannot be read again."""
    return Flag.LEGACY_BILLED in one.flags and not _same_names(one, policy)


def _others(
    usage: pa.Table,
    cards: Cards,
    policy: Policy,
    booked: Mapping[str, BookedCustomer],
    ones: Sequence[PolicyDifference],
    places: npt.NDArray[np.int64],
) -> tuple[pa.Table, pa.Table, Mask, pa.Array]:
    """Of the rows at `places`: as they stay, as they would be, whether that differs, and credits at stake."""
    part = usage.take(pa.array(places))
    part_cards = [cards[place] for place in places.tolist()]
    by_map = {event_id: one for event_id, one in booked.items() if one.is_mapped}
    groups: dict[Any, list[int]] = {}
    for row, one in enumerate(ones):
        key = one.policy if _same_names(one, policy) else (one.policy, Flag.EXCLUDED_ENVIRONMENT in one.flags)
        groups.setdefault(key, []).append(row)
    kept, was, would, order = [], [], [], []
    for rows in groups.values():
        some, some_cards = part.take(pa.array(rows)), [part_cards[row] for row in rows]
        first = ones[rows[0]]
        if first.under is not None and _same_names(first, policy):
            under = replace(first.under, customers=policy.customers)
            kept.append(to_events(some, some_cards, under, booked))
            was.append(to_events(some, some_cards, under))
            would.append(to_events(some, some_cards, policy))
        else:
            mine = [ones[row] for row in rows]
            excluded = _exclusion(first)
            payers = {
                event_id: BookedCustomer(one.payer, one.is_mapped)
                for event_id, one in zip(some["id"].to_pylist(), mine, strict=True)
            }
            as_it_was = to_events(_as_named_then(some, mine), some_cards, excluded, payers)
            kept.append(as_it_was)
            was.append(as_it_was)
            would.append(to_events(some, some_cards, policy, by_map))
        order += rows
    back = pa.array(np.argsort(np.array(order, dtype=np.int64)))
    kept_all, was_all, would_all = (pa.concat_tables(tables).take(back) for tables in (kept, was, would))
    differs = _differs(was_all, would_all)
    return kept_all, would_all, differs, _at_stake(was_all, would_all)


def _exclusion(one: PolicyDifference) -> Policy:
    """Nobody's policy but for what it excludes: who pays is said row by row."""
    if one.under is not None:
        return Policy(excluded_environments=one.under.excluded_environments)
    return Policy(excluded_environments=("*",) if Flag.EXCLUDED_ENVIRONMENT in one.flags else ())


def _as_named_then(usage: pa.Table, ones: Sequence[PolicyDifference]) -> pa.Table:
    """Usage as it reads with the metadata names it was booked with, as far as the ledger remembers."""
    rows = len(ones)
    columns: dict[str, pa.Array] = {
        "customer_id": pa.nulls(rows, pa.string()),
        **{name: pa.nulls(rows, USAGE_SCHEMA.field(name).type) for name in _LEGACY_FACTS},
        **{name: pa.array([one.facts[name] for one in ones], USAGE_SCHEMA.field(name).type) for name in NAMED_FACTS},
        **{
            flag.value: pa.array([flag in one.flags for one in ones])
            for flag in (Flag.CONFLICTING_ATTRIBUTES, Flag.BAD_USAGE, Flag.INCOMPLETE)
        },
    }
    for name, column in columns.items():
        usage = usage.set_column(usage.schema.get_field_index(name), name, column)
    return usage


def _differs(was: pa.Table, would: pa.Table) -> Mask:
    """Whether somebody else would pay, or something else."""
    found = np.zeros(was.num_rows, dtype=bool)
    for name in _DECIDES:
        one, other = was[name], would[name]
        same = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other))).to_numpy()
        found |= ~same
    for flag in _DECIDING_FLAGS:
        found |= _flagged(was, flag) != _flagged(would, flag)
    return found


def _flagged(events: pa.Table, flag: Flag) -> Mask:
    joined = pc.binary_join(events["flags"], ",")
    mask: Mask = pc.match_substring(joined, flag.value).to_numpy()
    return mask


def _at_stake(was: pa.Table, would: pa.Table) -> pa.Array:
    same_payer = pc.fill_null(pc.equal(was["customer_id"], would["customer_id"]), False)
    difference = pc.abs(pc.subtract(would["credits_total"], was["credits_total"]))
    whole = pc.max_element_wise(was["credits_total"], would["credits_total"])
    return pc.if_else(same_payer, difference, whole).cast(CREDITS).combine_chunks()


def _put(events: pa.Table, some: pa.Table, places: npt.NDArray[np.int64], chosen: Mask) -> pa.Table:
    """`events` with the chosen rows of `some` in their places."""
    if not chosen.any():
        return events
    indices = np.arange(events.num_rows)
    indices[places[chosen]] = events.num_rows + np.flatnonzero(chosen)
    return pa.concat_tables([events, some]).take(pa.array(indices))


def _with_policy(events: pa.Table, named: pa.Array, policies: Sequence[str | None], differs: Mask) -> pa.Table:
    events = events.append_column("named_customer_id", pa.array(named, pa.string()))
    events = events.append_column("policy", pa.array(policies, pa.string()))
    return events.append_column("policy_differs", pa.array(differs))
