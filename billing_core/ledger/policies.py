"""The billing policies (settings that decide who pays what) under which events were booked, and what another would
change.

A policy is written down when the first pull books under it. Events of older versions, and those that an import
brought, have none: nobody knows under which settings they were billed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from billing_core.ledger.customer_mapping import COVERED_EVENTS
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.schema import FLAG_SEPARATOR, SENT
from billing_core.rating.events import Policy
from billing_core.rating.policy import (
    NAMED_FACTS,
    PolicyDifference,
    Rated,
    ReadUnderPolicy,
    fingerprint,
    policy_from_json,
    policy_json,
)
from billing_core.types import Flag

_OTHERS = "SELECT id FROM events WHERE id IN (SELECT unnest($1)) AND policy IS DISTINCT FROM $2"

_ON_A_BILL = f"""
WITH billed AS (SELECT event_id, any_value(customer_id) AS payer, count(*) AS payers
                FROM ({COVERED_EVENTS.format(ids="SELECT unnest($1)", chosen="c.event_id, c.customer_id")})
                GROUP BY event_id)
SELECT e.id, e.policy, e.customer_id, e.flags, e.named_customer_id, {", ".join(f"e.{name}" for name in NAMED_FACTS)}
FROM events e LEFT JOIN billed b ON b.event_id = e.id
WHERE e.id IN (SELECT unnest($1)) AND (e.sync_status IN {SENT!r} OR b.event_id IS NOT NULL)
"""
"""Sent, on their way, or covered by a meter event that counts."""


def known_policies(rows: Rows) -> dict[str, Policy]:
    """Fingerprint → billing policy, of all policies events were booked under, with empty organization maps."""
    return {name: policy_from_json(content) for name, content in rows("SELECT policy, content FROM policies", [])}


def on_a_bill_under_another(rows: Rows, ids: Sequence[str], policy: Policy) -> dict[str, PolicyDifference]:
    """Those of the given events already billed that were booked under another policy than `policy`, by id."""
    others = [row[0] for row in rows(_OTHERS, [list(ids), fingerprint(policy)])]
    if not others:
        return {}
    policies = known_policies(rows)
    found = {}
    for event_id, name, payer, flag_text, named, *facts in rows(_ON_A_BILL, [others]):
        flags = frozenset(flag_text.split(FLAG_SEPARATOR))
        stored = dict(zip(NAMED_FACTS, facts, strict=True))
        found[event_id] = PolicyDifference(
            name,
            policies.get(name),
            payer,
            Flag.MAPPED_CUSTOMER in flags,
            flags,
            {**stored, "named_customer_id": named},
        )
    return found


def reread_under(rows: Rows, ids: Sequence[str], policy: Policy) -> dict[str, ReadUnderPolicy]:
    """What the last pull under `policy` read of billed events whose booking it left alone, by id."""
    query = f"""SELECT event_id, is_legacy, named_customer_id, {", ".join(NAMED_FACTS)} FROM policy_facts
                WHERE policy = $1 AND event_id IN (SELECT unnest($2))"""
    if not rows("SELECT 1 FROM policy_facts LIMIT 1", []):
        return {}
    names = ("named_customer_id", *NAMED_FACTS)
    return {
        event_id: ReadUnderPolicy(dict(zip(names, facts, strict=True)), is_legacy)
        for event_id, is_legacy, *facts in rows(query, [fingerprint(policy), list(ids)])
    }


def forget_facts(writer: Writer, ids: Sequence[str]) -> None:
    """Delete what was kept of events that are booked under the settings in force from now on."""
    writer.rows("DELETE FROM policy_facts WHERE event_id IN (SELECT unnest(?))", [list(ids)])


def remember_policy(writer: Writer, policy: Policy) -> None:
    """Store a billing policy that events are booked under from now on."""
    name = fingerprint(policy)
    if not writer.rows("SELECT 1 FROM policies WHERE policy = ?", [name]):
        writer.insert("policies", {"policy": name, "content": policy_json(policy), "first_used_at": writer.clock()})


def remember_facts(writer: Writer, usage: pa.Table, rated: Rated, policy: Policy) -> None:
    """Store what a pull read of billed events it left alone: `rerate --settings` books it from here."""
    if writer.rows("SELECT 1 FROM policy_facts LIMIT 1"):
        writer.rows("DELETE FROM policy_facts WHERE event_id IN (SELECT unnest(?))", [usage["id"].to_pylist()])
    if not rated.differs.any():
        return
    stays = pa.array(rated.differs)
    read, would = usage.filter(stays), rated.now.filter(stays)
    legacy = pa.array([Flag.LEGACY_BILLED in flags for flags in would["flags"].to_pylist()])
    columns = {
        "event_id": read["id"],
        "policy": pa.array([fingerprint(policy)] * read.num_rows),
        "named_customer_id": read["customer_id"],
        **{name: read[name] for name in NAMED_FACTS},
        "is_legacy": legacy,
    }
    writer.append("policy_facts", pa.table(columns))
