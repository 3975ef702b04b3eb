"""The audit log, viewed and verified by admins. Part of `BillingService`; nobody changes anything here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter
from billing_core.ledger.audit_chain import Anchor, ChainReport, check
from billing_core.ledger.audit_log import COLUMNS, AuditEntry, AuditFilter, AuditLog
from billing_core.ledger.closes import CloseStore
from billing_core.ledger.journal import Ledger
from billing_core.types import MAXIMUM_LIMIT, utc_text
from billing_core.values.csv_cells import csv_line
from billing_core.values.usage_frame import aware_in

WHY_EVERYTHING = "the audit log is about all of them"


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which page of which audit entries somebody asks for, newest first. Filters are ANDed; several values of one are
    ORed.

    start, end: Half open; times without an offset are in the reporting timezone.
    search: Case-blind over actor, action and detail; nothing in it is a pattern.
    page, limit: From 1; at most `MAXIMUM_LIMIT` entries.
    """

    actor: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    search: str | None = None
    page: int = 1
    limit: int = 25


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page of audit entries. `actors` and `actions` are all there are in the log, to filter by."""

    entries: tuple[AuditEntry, ...]
    total_items: int
    actors: tuple[str, ...]
    actions: tuple[str, ...]


class AuditService:
    """What admins can do with the audit log. Thread-safe. Every call needs an admin without a limit to organizations.

    Raises AccessDenied: for anybody else.
    """

    def __init__(self, ledger: Ledger, zone: ZoneInfo) -> None:
        self._ledger = ledger
        self._log = AuditLog(ledger.engine)
        self._zone = zone

    def page(self, principal: Principal, query: AuditQuery) -> AuditPage:
        """One page of the audit entries that a query asks for.

        Raises BadParameter: naming what of the query is not accepted.
        """
        _require(principal)
        entries, total = self._log.page(self._filter(query), query.limit, (query.page - 1) * query.limit)
        return AuditPage(entries, total, self._log.values("actor"), self._log.values("action"))

    def verify(self, principal: Principal) -> ChainReport:
        """A check of the whole audit log: whether every entry is as it was written, and none is missing that a close or
        the ledger's note knows of.
        """
        _require(principal)
        anchors = [*self._anchors(), *self._ledger.audit_head()]
        return check(self._ledger.audit_chain(), anchors)

    def csv(self, principal: Principal, query: AuditQuery) -> Iterator[bytes]:
        """The audit entries of a filter as CSV, oldest first, all pages; enough to verify the log elsewhere.

        That the log was taken out is an entry itself, written before the first piece and not part of it.

        Raises BadParameter: as `page`.
        """
        _require(principal)
        newest = self._log.newest()
        chosen = replace(self._filter(query), newest=newest)
        self._ledger.audit(principal.name, "export", self._circumstances(query, self._log.count(chosen), newest))
        return _lines(self._log.every(chosen))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _anchors(self) -> list[Anchor]:
        """What the manifests of closed months, reopened ones included, know of the log."""
        anchors = []
        for period, manifest in CloseStore(self._ledger.engine).manifests():
            head = _head(manifest)
            if head is not None:
                anchors.append(Anchor(*head, f"the close of {period}"))
        return anchors

    def _filter(self, query: AuditQuery) -> AuditFilter:
        if not 1 <= query.limit <= MAXIMUM_LIMIT:
            raise BadParameter("limit", query.limit, f"a number from 1 to {MAXIMUM_LIMIT}")
        if query.page < 1:
            raise BadParameter("page", query.page, "a number from 1")
        start, end = (None if time is None else aware_in(self._zone, time) for time in (query.start, query.end))
        if start is not None and end is not None and start >= end:
            raise BadParameter("to", end.isoformat(), f"a time after from ({start.isoformat()})")
        return AuditFilter(query.actor, query.action, start, end, query.search)

    def _circumstances(self, query: AuditQuery, rows: int, newest: int) -> dict[str, Any]:
        head = self._log.hash_of(newest)
        asked = {
            "actor": list(query.actor),
            "action": list(query.action),
            "search": query.search,
            "from": None if query.start is None else utc_text(aware_in(self._zone, query.start)),
            "to": None if query.end is None else utc_text(aware_in(self._zone, query.end)),
        }
        used = {name: value for name, value in asked.items() if value}
        return {"dataset": "audit-log", "format": "csv", "filter": used, "rows": rows, "head": head}


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
