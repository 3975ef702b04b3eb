"""Alert rules and their firings. A firing is written down before anybody is told; every change is audited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from billing_core.ledger.deliveries import FINAL, DeliveryOutcome, DeliveryTry, insert_try
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.journal import append_audit
from billing_core.ledger.schema import utc
from billing_core.types import utc_text

_RULE = (
    "SELECT id, revision, name, content, created_at, created_by, changed_at, changed_by, muted_until, muted_by, "
    "mute_reason FROM alert_rules WHERE removed_at IS NULL"
)
_FIRING = (
    "SELECT id, rule_id, revision, subject, occasion, window_start, window_end, fired_at, fired_by, content, addresses "
    "FROM alert_firings"
)


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule as kept: `content` is the document of its terms."""

    id: str
    revision: int
    name: str
    content: Mapping[str, Any]
    created_at: datetime
    created_by: str
    changed_at: datetime
    changed_by: str
    muted_until: datetime | None = None
    muted_by: str | None = None
    mute_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FiringRow:
    """A firing of a rule, written once: what was found, when, and the keys of the receivers it is for.

    The signed webhook's key is `None`.
    """

    rule_id: str
    revision: int
    subject: str | None
    occasion: str
    window_start: datetime
    window_end: datetime
    fired_at: datetime
    fired_by: str
    content: Mapping[str, Any] = field(hash=False)
    addresses: tuple[str | None, ...] = ()
    is_covered: bool = False

    @property
    def id(self) -> str:
        """Id of the firing, computed from what makes it the same one: every check and process finds the same."""
        window = [utc_text(self.window_start), utc_text(self.window_end)]
        parts = [self.rule_id, self.revision, self.subject, self.occasion, *window]
        return f"alert_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


ToldBefore = Sequence[tuple[str | None, str, datetime, datetime]]
"""Subject, occasion and window of a rule's firings."""


class AlertStore:
    """The tables `alert_rules` and `alert_firings`; callers decide who may see what."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ── rules ────────────────────────────────────────────────────────────────────────────────────

    def rules(self) -> list[RuleRow]:
        """Every rule that was not removed, oldest first."""
        return [_rule(row) for row in self._engine.rows(f"{_RULE} ORDER BY created_at, id")]

    def add(self, row: RuleRow, *, most: int) -> bool:
        """Add a rule; `False` if there are `most` already."""
        with self._engine.transaction() as writer:
            if writer.rows("SELECT count(*) FROM alert_rules WHERE removed_at IS NULL")[0][0] >= most:
                return False
            known = {"revision": row.revision, "name": row.name, "content": json.dumps(row.content, sort_keys=True)}
            made = {"created_at": row.created_at, "created_by": row.created_by}
            changed = {"changed_at": row.changed_at, "changed_by": row.changed_by}
            writer.insert("alert_rules", {"id": row.id, **known, **made, **changed})
            append_audit(writer, row.created_by, "alert_rule_added", _told(row))
        return True

    def change(self, row: RuleRow, *, was: int) -> bool:
        """Put a rule in place of its revision `was`; `False` if somebody else changed or removed it meanwhile."""
        with self._engine.transaction() as writer:
            if not _is_at(writer, row.id, was):
                return False
            values = {"id": row.id, "revision": row.revision, "name": row.name}
            content = json.dumps(row.content, sort_keys=True)
            changed = {"changed_at": row.changed_at, "changed_by": row.changed_by}
            writer.update("alert_rules", {**values, "content": content, **changed}, key="id")
            append_audit(writer, row.changed_by, "alert_rule_changed", _told(row))
        return True

    def remove(self, rule_id: str, *, actor: str, now: datetime) -> None:
        """Remove a rule; what it told stays. Nothing if it is gone already."""
        with self._engine.transaction() as writer:
            found = writer.rows("SELECT name FROM alert_rules WHERE id = ? AND removed_at IS NULL", [rule_id])
            for (name,) in found:
                writer.update("alert_rules", {"id": rule_id, "removed_at": now, "removed_by": actor}, key="id")
                append_audit(writer, actor, "alert_rule_removed", {"rule": rule_id, "name": name})

    def mute(self, rule_id: str, until: datetime | None, *, reason: str | None, actor: str) -> None:
        """Mute a rule until a moment; `None`: let it tell again. Nothing if it is gone."""
        with self._engine.transaction() as writer:
            found = writer.rows("SELECT name FROM alert_rules WHERE id = ? AND removed_at IS NULL", [rule_id])
            for (name,) in found:
                by = None if until is None else actor
                values = {"muted_until": until, "muted_by": by, "mute_reason": reason}
                writer.update("alert_rules", {"id": rule_id, **values}, key="id")
                detail = {"rule": rule_id, "name": name}
                if until is None:
                    append_audit(writer, actor, "alert_rule_unmuted", detail)
                else:
                    detail |= {"until": utc_text(until), "reason": reason}
                    append_audit(writer, actor, "alert_rule_muted", detail)

    # ── firings ──────────────────────────────────────────────────────────────────────────────────

    def claim(
        self,
        rule: RuleRow,
        choose: Callable[[ToldBefore], Sequence[FiringRow]],
        *,
        since: datetime,
        actor: str,
        now: datetime,
    ) -> list[FiringRow]:
        """Write down what is to be told, before anybody is told: in one transaction with the look at what was.

        choose: Gets what the rule told whose windows end after `since`; returns the firings to write down.

        Two processes that look at the same moment write a firing once: transactions take turns. Nothing is written
        if the rule was changed, removed or muted meanwhile.
        """
        with self._engine.transaction() as writer:
            if not _is_at(writer, rule.id, rule.revision):
                return []
            (muted_until,) = writer.rows("SELECT muted_until FROM alert_rules WHERE id = ?", [rule.id])[0]
            if muted_until is not None and now < utc(muted_until):
                return []
            told = """SELECT subject, occasion, window_start, window_end FROM alert_firings
                      WHERE rule_id = ? AND revision = ? AND window_end > ?"""
            rows = writer.rows(told, [rule.id, rule.revision, since])
            before = [(who, what, utc(start), utc(end)) for who, what, start, end in rows]
            chosen = list(choose(before))
            for one in chosen:
                _insert_firing(writer, one)
                if one.is_covered:
                    why = "summed up in one message with others"
                    insert_try(writer, DeliveryTry(one.id, 0, now, DeliveryOutcome.COVERED, error=why))
            if chosen:
                firings = [{"id": one.id, "subject": one.subject} for one in chosen[:20]]
                detail = {"rule": rule.id, "name": rule.name, "count": len(chosen), "firings": firings}
                append_audit(writer, actor, "alert_fired", detail)
        return chosen

    def firings(
        self, *, rule_ids: Sequence[str] | None = None, limit: int | None = None, id_: str | None = None
    ) -> list[FiringRow]:
        """Firings, newest first: of some rules, removed ones included, or all; or the one with an id."""
        conditions, values = ["1 = 1"], list[Any]()
        if rule_ids is not None:
            conditions.append("rule_id IN (SELECT unnest(?))")
            values.append(list(rule_ids))
        if id_ is not None:
            conditions.append("id = ?")
            values.append(id_)
        query = f"{_FIRING} WHERE {' AND '.join(conditions)} ORDER BY fired_at DESC, id"
        rows = self._engine.rows(query if limit is None else f"{query} LIMIT {limit}", values)
        return [_firing(row) for row in rows]

    def counts(self) -> dict[str, tuple[int, datetime]]:
        """Rule → how many firings it has, and when the last one was."""
        query = "SELECT rule_id, count(*), max(fired_at) FROM alert_firings GROUP BY rule_id"
        return {rule: (number, utc(last)) for rule, number, last in self._engine.rows(query)}

    def names(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Rule, removed ones included → its name and the document of its terms."""
        rows = self._engine.rows("SELECT id, name, content FROM alert_rules")
        return {id_: (name, json.loads(content)) for id_, name, content in rows}

    def undelivered(self, address: str | None, *, since: datetime) -> list[FiringRow]:
        """Firings since a moment that are still to be delivered to an address: never tried, or every try failed."""
        done = "address IS NOT DISTINCT FROM ? AND outcome IN (SELECT unnest(?)) OR outcome = ?"
        query = f"""{_FIRING} WHERE fired_at >= ? AND
                    id NOT IN (SELECT notice_id FROM webhook_attempts WHERE {done}) ORDER BY fired_at, id"""
        rows = self._engine.rows(query, [since, address, list(FINAL), DeliveryOutcome.COVERED.value])
        return [one for one in map(_firing, rows) if address in one.addresses]


def _is_at(writer: Writer, rule_id: str, revision: int) -> bool:
    found = writer.rows("SELECT revision FROM alert_rules WHERE id = ? AND removed_at IS NULL", [rule_id])
    return bool(found) and found[0][0] == revision


def _told(row: RuleRow) -> dict[str, Any]:
    return {"rule": row.id, "revision": row.revision, "name": row.name, "terms": row.content}


def _insert_firing(writer: Writer, one: FiringRow) -> None:
    writer.insert(
        "alert_firings",
        {
            "id": one.id,
            "rule_id": one.rule_id,
            "revision": one.revision,
            "subject": one.subject,
            "occasion": one.occasion,
            "window_start": one.window_start,
            "window_end": one.window_end,
            "fired_at": one.fired_at,
            "fired_by": one.fired_by,
            "content": json.dumps(one.content, ensure_ascii=False),
            "addresses": json.dumps(one.addresses),
        },
    )


def _rule(row: tuple[Any, ...]) -> RuleRow:
    id_, revision, name, content, created_at, created_by, changed_at, changed_by, until, by, reason = row
    made = (utc(created_at), created_by, utc(changed_at), changed_by)
    return RuleRow(id_, revision, name, json.loads(content), *made, until and utc(until), by, reason)


def _firing(row: tuple[Any, ...]) -> FiringRow:
    _, rule_id, revision, subject, occasion, start, end, fired_at, fired_by, content, addresses = row
    return FiringRow(
        rule_id,
        revision,
        subject,
        occasion,
        utc(start),
        utc(end),
        utc(fired_at),
        fired_by,
        json.loads(content),
        tuple(json.loads(addresses)),
    )
