"""Verifies a closed month: its manifest against what the ledger says now. Each function yields differences.

Everything is recomputed from what is stored, so that an edit of the ledger's file is found and named as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from billing_core.ledger.audit_chain import Anchor, check
from billing_core.ledger.audit_log import AuditLog
from billing_core.ledger.closes import Close, CloseStore
from billing_core.ledger.journal import Ledger
from billing_core.ledger.reconciliations import reconciliations_until
from billing_core.ledger.verification import HASHED_COLUMNS, SETS_ADDED_LATER, unbooked, unsent, unsettled
from billing_core.month_close.manifest import heading
from billing_core.month_close.model import Difference, digest

GONE = "the audit log tells of a close of {} that the ledger does not hold any more"


def manifest_of(close: Close) -> dict[str, Any]:
    """The manifest of a close as a mapping; one that cannot be read any more is empty."""
    try:
        found = json.loads(close.manifest)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def in_manifest(close: Close, manifest: Mapping[str, Any], ledger: Ledger) -> Iterator[Difference]:
    """Differences between the manifest's text and its hash, the audit log and the journal of closes."""
    now = digest(close.manifest)
    if now != close.sha256:
        yield Difference("manifest", "the manifest's text was edited", close.sha256, now)
    details = AuditLog(ledger.engine).details("close")
    if close.sha256 not in {detail.get("sha256") for detail in details if detail.get("period") == close.period}:
        yield Difference("manifest", "no entry of the audit log tells of this manifest", None, close.sha256)
    for name, value in heading(close).items():
        noted = manifest.get(name)
        if noted != value:
            says = f"{name} is {value} in the ledger's journal and {noted} in the manifest"
            yield Difference("manifest", says, str(noted), str(value))


def in_entries(close: Close, manifest: Mapping[str, Any], book: CloseStore) -> Iterator[Difference]:
    """Differences in what the month was closed on: the hash of every entry set, then each event's frozen state."""
    noted = manifest.get("sets", {})
    for name, now in book.sets_of(close, manifest.get("columns", HASHED_COLUMNS)).items():
        if name not in noted and name in SETS_ADDED_LATER:
            continue
        then = noted.get(name, {})
        if then.get("sha256") != now.sha256:
            says = f"{name.replace('_', ' ')}: {then.get('entries')} entries when it was closed, {now.entries} now"
            says += "" if then.get("entries") != now.entries else ", with another content"
            yield Difference(name, says, then.get("sha256"), now.sha256)
    for one in book.tampered(close):
        yield Difference("events", one.says)


def in_bookings(ledger: Ledger) -> Iterator[Difference]:
    """Differences between the ledger and its own journals: what no booking wrote would be billed."""
    rows = ledger.engine.rows
    for says in unbooked(rows):
        yield Difference("bookings", says)
    details = AuditLog(ledger.engine).details("push")
    noted = {detail["push"]: detail["sha256"] for detail in details if {"push", "sha256"} <= detail.keys()}
    for says in unsent(rows, noted):
        yield Difference("meter events", says)
    for says in unsettled(rows):
        yield Difference("settlements", says)


def in_totals(manifest: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Differences between the sums a manifest holds and those of today."""
    for name, then in manifest.get("totals", {}).items():
        if now.get(name) != then:
            says = f"{name.replace('_', ' ')} was {then} when it was closed and is {now.get(name)}"
            yield Difference("totals", says, str(then), str(now.get(name)))


def in_cards(manifest: Mapping[str, Any], ledger: Ledger) -> Iterator[Difference]:
    """Differences between the rate cards the month was rated with and those stored now."""
    for noted in manifest.get("rate_cards", ()):
        card = ledger.card(noted["id"])
        now = None if card is None else card.fingerprint()
        if now != noted["sha256"]:
            says = f"rate card {noted['id']} {'is gone' if card is None else 'was edited'}"
            yield Difference("rate cards", says, noted["sha256"], now)


def in_journals(close: Close, manifest: Mapping[str, Any], ledger: Ledger, book: CloseStore) -> Iterator[Difference]:
    """Differences in the reconciliation a month was closed on, in the audit log, and in the close before it."""
    noted = manifest.get("stripe", {}).get("reconciliation_sha256")
    if noted not in set(map(digest, reconciliations_until(ledger.engine.rows, close.closed_at))):
        yield Difference("reconciliation", "the reconciliation it was closed on is gone or edited", noted)
    head = manifest.get("audit_head", {})
    known = [Anchor(head["seq"], head["hash"], f"the manifest of {close.period}")] if head.get("seq") else []
    known += ledger.audit_head()
    report = check(ledger.audit_chain(), known)
    if not report.ok:
        yield Difference("audit log", report.says)
    counting = {one.sha256 for one in book.all() if one.counts}
    for period, sha256 in sorted(book.audited().items()):
        if period != close.period and sha256 not in counting:
            yield Difference("other closes", GONE.format(period), sha256)
    previous = manifest.get("previous")
    if previous and previous["sha256"] not in {one.sha256 for one in book.all() if one.period == previous["period"]}:
        says = f"the close of {previous['period']} before it is gone or edited"
        yield Difference("earlier closes", says, previous["sha256"])
