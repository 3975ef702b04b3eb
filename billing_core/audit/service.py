"""The audit log, read and proven by admins. Part of `BillingService`; nobody changes anything here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter
from billing_core.ledger.audit_chain import Anchor, ChainReport, check
from billing_core.ledger.journal import Ledger
from billing_core.types import MAXIMUM_LIMIT, utc_text
from billing_core.values.csv_cells import csv_line
from billing_core.values.usage_frame import aware_in

__all__ = ["AuditEntry", "AuditPage", "AuditQuery", "AuditService"]

COLUMNS = ("seq", "happened_at", "actor", "action", "detail", "previous_hash", "hash")
READ_AT_ONCE = 20_000
"""Entries per read while the log leaves as a file."""

WHY_EVERYTHING = "the audit log is about all of them"


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries, newest first. Filters are ANDed; several values of one are ORed.

    Attributes
    ----------
    start, end:
        Half open; times without an offset are in the reporting timezone.
    search:
        Case-blind over actor, action and detail; nothing in it is a pattern.
    page, limit:
        From 1; at most `MAXIMUM_LIMIT` entries.
    """

    actor: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    search: str | None = None
    page: int = 1
    limit: int = 25


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry: number from 1, when (aware UTC), who, what, and the circumstances as JSON text."""

    seq: int
    happened_at: datetime
    actor: str
    action: str
    detail: str
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page. `actors` and `actions` are all there are in the log, to filter by."""

    entries: tuple[AuditEntry, ...]
    total_items: int
    actors: tuple[str, ...]
    actions: tuple[str, ...]


class AuditService:
    """See the module. Thread-safe. Every call needs an admin without a limit to organizations.

    Raises
    ------
    AccessDenied
        For anybody else.
    """

    def __init__(self, ledger: Ledger, zone: ZoneInfo) -> None:
        self._ledger = ledger
        self._zone = zone

    def page(self, principal: Principal, query: AuditQuery) -> AuditPage:
        """One page of the log.

        Raises
        ------
        BadParameter
            Naming what of the query is not accepted.
        """
        _require(principal)
        where, values = self._conditions(query)
        found = f"""WITH found AS MATERIALIZED (SELECT seq FROM audit WHERE {where}),
                    shown AS (SELECT seq FROM found ORDER BY seq DESC LIMIT ? OFFSET ?)
                    SELECT (SELECT count(*) FROM found), (SELECT list(seq) FROM shown)"""
        total, shown = self._rows(found, [*values, query.limit, (query.page - 1) * query.limit])[0]
        entries = self._entries("seq IN (SELECT unnest(?)) ORDER BY seq DESC", [shown]) if shown else ()
        actors, actions = (
            tuple(row[0] for row in self._rows(f"SELECT DISTINCT {name} FROM audit ORDER BY 1"))
            for name in ("actor", "action")
        )
        return AuditPage(entries, total, actors, actions)

    def verify(self, principal: Principal) -> ChainReport:
        """Whether every entry is as it was written, and none is missing that a close or the ledger's note knows of."""
        _require(principal)
        anchors = [*self._anchors(), *self._ledger.audit_head()]
        return check(self._ledger.audit_chain(), anchors)

    def csv(self, principal: Principal, query: AuditQuery) -> Iterator[bytes]:
        """The entries of the filter as CSV, oldest first, whatever its page; enough to follow the chain elsewhere.

        That the log was taken out is an entry itself, written before the first piece and not part of it.

        Raises
        ------
        BadParameter
            As `page`.
        """
        _require(principal)
        where, values = self._conditions(query)
        newest = self._rows("SELECT coalesce(max(seq), 0) FROM audit")[0][0]
        where, values = f"({where}) AND seq <= ?", [*values, newest]
        count = self._rows(f"SELECT count(*) FROM audit WHERE {where}", values)[0][0]
        self._ledger.audit(principal.name, "export", self._told(query, count, newest))
        return _lines(self._all(where, values))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ledger.engine.rows(query, values)

    def _entries(self, rest: str, values: Sequence[Any]) -> tuple[AuditEntry, ...]:
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM audit WHERE {rest}", values)
        return tuple(AuditEntry(seq, at.replace(tzinfo=UTC), *texts) for seq, at, *texts in rows)

    def _all(self, where: str, values: Sequence[Any]) -> Iterator[AuditEntry]:
        """Entries in the order of their numbers, a few thousand at a time; of two with one number both."""
        seen = 0
        while entries := self._entries(f"{where} ORDER BY seq, hash LIMIT {READ_AT_ONCE} OFFSET ?", [*values, seen]):
            yield from entries
            seen += len(entries)

    def _anchors(self) -> list[Anchor]:
        """What the manifests of closed months, reopened ones included, know of the log."""
        anchors = []
        for period, manifest in self._rows("SELECT period, manifest FROM closes ORDER BY seq"):
            head = _head(manifest)
            if head is not None:
                anchors.append(Anchor(*head, f"the close of {period}"))
        return anchors

    def _conditions(self, query: AuditQuery) -> tuple[str, list[Any]]:
        if not 1 <= query.limit <= MAXIMUM_LIMIT:
            raise BadParameter("limit", query.limit, f"a number from 1 to {MAXIMUM_LIMIT}")
        if query.page < 1:
            raise BadParameter("page", query.page, "a number from 1")
        start, end = (None if time is None else aware_in(self._zone, time) for time in (query.start, query.end))
        if start is not None and end is not None and start >= end:
            raise BadParameter("to", end.isoformat(), f"a time after from ({start.isoformat()})")
        texts = ["TRUE"]
        values: list[Any] = []
        for condition, value in (
            ("actor IN (SELECT unnest(?))", list(query.actor) or None),
            ("action IN (SELECT unnest(?))", list(query.action) or None),
            ("happened_at >= ?", start),
            ("happened_at < ?", end),
        ):
            if value is not None:
                texts.append(condition)
                values.append(value)
        if query.search and (wanted := query.search.strip()):
            text, needles = _mentions(wanted)
            texts.append(text)
            values += needles
        return " AND ".join(texts), values

    def _told(self, query: AuditQuery, rows: int, newest: int) -> dict[str, Any]:
        head = self._rows("SELECT max(hash) FROM audit WHERE seq = ?", [newest])[0][0]
        asked = {
            "actor": list(query.actor), "action": list(query.action), "search": query.search,
            "from": None if query.start is None else utc_text(aware_in(self._zone, query.start)),
            "to": None if query.end is None else utc_text(aware_in(self._zone, query.end)),
        }  # fmt: skip
        used = {name: value for name, value in asked.items() if value}
        return {"dataset": "audit-log", "format": "csv", "filter": used, "rows": rows, "head": head}


def _mentions(wanted: str) -> tuple[str, list[str]]:
    """The condition that an entry mentions a text, case-blind, and its values.

    The circumstances are JSON: a text in them may be written with numbers in place of letters beyond ASCII, and those
    of small letters are not those of capitals. So it is looked for as it is and as JSON writes it.
    """
    if "\0" in wanted:
        raise BadParameter("search", wanted, "text without NUL characters, which nothing stored has")
    written = {json.dumps(form)[1:-1].lower() for form in (wanted, wanted.lower(), wanted.upper())} | {wanted.lower()}
    needles = [("actor", wanted), ("action", wanted), *(("detail", form) for form in sorted(written))]
    text = " OR ".join(f"contains(lower({column}), lower(?))" for column, _ in needles)
    return f"({text})", [value for _, value in needles]


def _require(principal: Principal) -> None:
    principal.require(Role.ADMIN)
    principal.require_everything(WHY_EVERYTHING)


def _head(manifest: str | None) -> tuple[int, str] | None:
    """`audit_head` of a manifest, if it names one; a manifest that is no JSON is for `verify` of the month to find."""
    try:
        head = json.loads(manifest or "{}")["audit_head"]
        seq, known = int(head["seq"]), str(head["hash"])
    except (KeyError, TypeError, ValueError):
        return None
    return (seq, known) if seq > 0 else None


def _lines(entries: Iterator[AuditEntry]) -> Iterator[bytes]:
    yield csv_line(COLUMNS).encode()
    for entry in entries:
        at = entry.happened_at.isoformat(timespec="microseconds")  # as the hash has it
        values = (entry.seq, at, entry.actor, entry.action, entry.detail, entry.previous_hash, entry.hash)
        yield csv_line(values).encode()
