"""Rates stored events under the settings in force: who would pay, and whether it would be billed at all. Pure and
columnar.

Credits are given anew only where the settings decide about them (an environment that is excluded or not any more, a key
or storage that other metadata names say), with the card each event was rated with. The rest follows from who pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.schema import FLAG_SEPARATOR
from billing_core.rating.events import Policy, flag_sets, matches_any, payers
from billing_core.rating.policy import NAMED_FACTS, ReadUnderPolicy, fingerprint
from billing_core.rerating.model import NotRerated
from billing_core.rerating.rules import (
    NEEDED,
    PARTS,
    RERATED,
    BookedWith,
    as_booked,
    billed_by_somebody_else,
    cannot_be_priced,
    rated,
    stored_flags,
)
from billing_core.types import Flag
from billing_core.values.decimals import to_integers

SETTINGS_NEEDED = tuple(
    dict.fromkeys((*NEEDED, "id", "environment", "named_customer_id", "policy", "marks", *NAMED_FACTS))
)
"""Stored columns of events that the rule and its sums read."""

_WHO = (Flag.NO_CUSTOMER, Flag.MAPPED_CUSTOMER)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class UnderSettings:
    """Stored events as other settings have them, and row for row what they would cost (`RERATED`)."""

    events: pa.Table
    rerated: pa.Table


def under_settings(
    events: pa.Table,
    policy: Policy,
    policies: Mapping[str, Policy],
    reread: Mapping[str, ReadUnderPolicy],
    booked_with: BookedWith,
) -> UnderSettings:
    """Stored events (columns `SETTINGS_NEEDED`, or all) as `policy` would bill them.

    policies: Every policy that events were booked under, by fingerprint.
    reread: By id, what was read under `policy` of events that stayed as they were sent.
    """
    if not events.num_rows:
        return UnderSettings(events, RERATED.empty_table())
    facts, why = _facts(events, policy, policies, reread)
    now = _with_facts(events, facts)
    stays = pc.is_valid(why).to_numpy(zero_copy_only=False)
    usage = pa.table(
        {"id": now["id"], "customer_id": facts["named_customer_id"], "organization_id": now["organization_id"]}
    )
    customer, mapped = payers(usage, policy, {})
    stored = stored_flags(events["flags"])
    excluded = matches_any(now["environment"], policy.excluded_environments)
    flagged = {
        **stored,
        Flag.EXCLUDED_ENVIRONMENT: excluded,
        Flag.NO_CUSTOMER: customer.is_null().to_numpy(zero_copy_only=False),
        Flag.MAPPED_CUSTOMER: mapped,
    }
    repriced = (excluded != stored[Flag.EXCLUDED_ENVIRONMENT]) | _changed(events, now, "ai_credentials_ownership")
    repriced = (repriced | _changed(events, now, "storage_gb")) & ~stays
    now = now.set_column(now.schema.get_field_index("customer_id"), "customer_id", customer)
    now = now.set_column(now.schema.get_field_index("flags"), "flags", _texts(flagged))
    priced, unknown = _repriced(now, repriced, booked_with)
    why = pc.if_else(pa.array(unknown), NotRerated.USAGE_UNKNOWN.value, why)
    stays |= unknown
    as_they_were = as_booked(events, pa.nulls(events.num_rows, pa.string()))
    result = {name: as_they_were[name].combine_chunks() for name in RERATED.names}
    result["flags"] = now["flags"].combine_chunks()
    for name in (*PARTS, "credits_total", "flags"):
        result[name] = _put(result[name], priced[name], repriced & ~stays)
    result["flags"] = pc.if_else(pa.array(stays), events["flags"].combine_chunks(), result["flags"])
    kept = pa.array(stays)
    for name in ("customer_id", *NAMED_FACTS):
        column = pc.if_else(kept, events[name].combine_chunks(), now[name].combine_chunks())
        now = now.set_column(now.schema.get_field_index(name), name, column)
    now = now.set_column(now.schema.get_field_index("flags"), "flags", events["flags"])
    now = now.set_column(
        now.schema.get_field_index("named_customer_id"), "named_customer_id", facts["named_customer_id"]
    )
    changed = _changed(events, now, *("customer_id", *NAMED_FACTS))
    changed |= reduce(np.logical_or, [to_integers(events[name]) != to_integers(result[name]) for name in PARTS])
    changed |= pc.not_equal(events["flags"], result["flags"]).to_numpy()
    result["is_changed"] = pa.array(changed & ~stays)
    result["not_rerated"] = why
    return UnderSettings(now, pa.table([result[name] for name in RERATED.names], schema=RERATED))


def _facts(
    events: pa.Table, policy: Policy, policies: Mapping[str, Policy], reread: Mapping[str, ReadUnderPolicy]
) -> tuple[dict[str, pa.Array], pa.Array]:
    """What each trace says by the metadata names in force, as far as the ledger knows; and why an event stays.

    Whom a trace names that was booked before policies were known is not kept: the customer it was booked for counts as
    the one it names, until it is read again.
    """
    mine = fingerprint(policy)
    same_names = {name for name, one in policies.items() if one.names == policy.names} | {mine}
    ids, names = events["id"].to_pylist(), events["policy"].to_pylist()
    named, booked_for = events["named_customer_id"].to_pylist(), events["customer_id"].to_pylist()
    nobody = [bool(set(text.split(FLAG_SEPARATOR)) & set(_WHO)) for text in events["flags"].to_pylist()]
    columns: dict[str, list[Any]] = {name: events[name].to_pylist() for name in NAMED_FACTS}
    why = pc.if_else(pa.array([False] * len(ids)), "", billed_by_somebody_else(events)).to_pylist()
    for row, (event_id, name) in enumerate(zip(ids, names, strict=True)):
        found = None if name == mine else reread.get(event_id)
        if found is not None:
            named[row] = found.facts["named_customer_id"]
            for fact in NAMED_FACTS:
                columns[fact][row] = found.facts[fact]
            if found.is_legacy:
                why[row] = why[row] or NotRerated.LEGACY_BILLED.value
        elif name is None:
            named[row] = None if nobody[row] else booked_for[row]
        elif name not in same_names:
            why[row] = why[row] or NotRerated.NOT_READ.value
    facts = {name: pa.array(values, events.schema.field(name).type) for name, values in columns.items()}
    return {"named_customer_id": pa.array(named, pa.string()), **facts}, pa.array(why, pa.string())


def _with_facts(events: pa.Table, facts: Mapping[str, pa.Array]) -> pa.Table:
    for name in NAMED_FACTS:
        events = events.set_column(events.schema.get_field_index(name), name, facts[name])
    return events


def _repriced(events: pa.Table, chosen: Mask, booked_with: BookedWith) -> tuple[pa.Table, Mask]:
    """The chosen events with what the card of each gives, the others as they are; and which cannot be priced."""
    unknown = np.zeros(events.num_rows, dtype=bool)
    versions = events["rate_card_version"].to_pylist()
    pieces, order = [], []
    for version in dict.fromkeys(version for version, is_chosen in zip(versions, chosen, strict=True) if is_chosen):
        rows = np.array([row for row, one in enumerate(versions) if one == version and chosen[row]])
        if (card := booked_with(version)) is None:
            continue  # without a card nothing has a price, excluded or not
        part = events.take(pa.array(rows))
        lost = cannot_be_priced(part, card)
        unknown[rows[lost]] = True
        known = rows[~lost]
        if len(known):
            pieces.append(rated(events.take(pa.array(known)), card, booked_with))
            order.append(known)
    as_they_are = as_booked(events, pa.nulls(events.num_rows, pa.string()))
    if not pieces:
        return as_they_are, unknown
    indices = np.arange(events.num_rows)
    indices[np.concatenate(order)] = events.num_rows + np.arange(sum(map(len, order)))
    return pa.concat_tables([as_they_are, *pieces]).take(pa.array(indices)), unknown


def _texts(flagged: Mapping[Flag, Mask]) -> pa.Array:
    sets, which = flag_sets(flagged)
    return pa.array([FLAG_SEPARATOR.join(names) for names in sets], pa.string()).take(pa.array(which))


def _put(column: pa.Array, values: pa.ChunkedArray, where: Mask) -> pa.Array:
    return pc.if_else(pa.array(where), values.combine_chunks(), column)


def _changed(before: pa.Table, after: pa.Table, *names: str) -> Mask:
    changed = np.zeros(before.num_rows, dtype=bool)
    for name in names:
        one, other = before[name], after[name]
        same = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
        changed |= ~same.to_numpy()
    return changed
