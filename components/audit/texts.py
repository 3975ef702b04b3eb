"""Texts of the audit view. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from billing_core.audit.service import AuditQuery
from billing_core.ledger.audit_chain import ChainReport
from billing_core.ledger.audit_log import AuditEntry
from billing_core.types import utc_text
from components.shared.formats import moment

FORM = (
    "Every push, pull, import, export, close, card, map and user change and sign-in. Entries form a chain: each hash "
    "covers the entry before it, so that no entry can be changed unnoticed."
)
LIMITED = "The audit log covers all organizations, so only admins who can see all of them have access."
NO_ENTRIES = "No entries match these filters."
SELECT_A_ROW = "Select a row to see all of it."
NOT_VERIFIED = "Not verified in this session yet."
CSV_NOTE = (
    "All entries matching these filters, with what is needed to verify the chain elsewhere. The download is logged "
    "as well."
)

CSV_PATH = "/download/audit.csv"

HASH_SHOWN = 12
LONGEST_LINE = 160
LISTED = 20
"""Entries of a list that are written out; the CSV has all of them."""

_HASH = re.compile(r"[0-9a-f]{64}")


def action_label(action: str) -> str:
    """The name of an audited action for people: `rate_card` → `rate card`."""
    return action.replace("_", " ")


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a document with the way to it: `totals.credits`."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _facts(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        for number, one in enumerate(value[:LISTED], 1):
            yield from _facts(one, f"{name} {number}")
        if len(value) > LISTED:
            yield name, f"and {len(value) - LISTED:,} more"
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_text(one) for one in value[:LISTED])
        return f"{shown} and {len(value) - LISTED:,} more" if len(value) > LISTED else shown
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def detail_facts(entry: AuditEntry) -> list[tuple[str, str]]:
    """The circumstances of an audit entry, name and value; what is no JSON any more is shown as it is."""
    try:
        document = json.loads(entry.detail)
    except ValueError:
        return [("detail", entry.detail)]
    if not isinstance(document, dict):
        return [("detail", _text(document))]
    return [(name.replace("_", " "), value) for name, value in _facts(document)]


def detail_line(entry: AuditEntry) -> str:
    """The circumstances of an audit entry in one line; hashes are shortened, and a long line is cut."""
    parts = []
    for name, value in detail_facts(entry):
        shown = _HASH.sub(lambda found: found[0][:HASH_SHOWN], value)
        if shown:
            parts.append(shown if name == "detail" else f"{name}: {shown}")
    line = " · ".join(parts)
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


def hashes_of(entry: AuditEntry) -> list[tuple[str, str]]:
    """Every hash in an audit entry, and its own two."""
    told = [(name, value) for name, value in detail_facts(entry) if _HASH.fullmatch(value)]
    return [*told, ("hash of this entry", entry.hash), ("hash of the previous entry", entry.previous_hash)]


def entry_rows(entries: Sequence[AuditEntry], zone: ZoneInfo) -> dict[str, list[str]]:
    """Columns of a table of audit entries, in the order given: newest first."""
    return {
        "Entry": [f"{entry.seq:,}" for entry in entries],
        f"When ({zone.key})": [moment(entry.happened_at, zone) for entry in entries],
        "Who": [entry.actor for entry in entries],
        "What": [action_label(entry.action) for entry in entries],
        "Details": [detail_line(entry) for entry in entries],
        "Hash": [entry.hash[:HASH_SHOWN] for entry in entries],
    }


def entry_title(entry: AuditEntry, zone: ZoneInfo) -> str:
    """The title of an audit entry: `Entry 12: close by fay, 2026-11-03 09:00:00`."""
    return f"Entry {entry.seq:,}: {action_label(entry.action)} by {entry.actor}, {moment(entry.happened_at, zone)}"


def found_text(shown: int, page: int, limit: int, total: int) -> str:
    """Which audit entries of how many are shown: `1–25 of 1,234 entries`."""
    if not total:
        return "no entries"
    first = (page - 1) * limit + 1
    return f"{first:,}–{first + shown - 1:,} of {total:,} entr{'y' if total == 1 else 'ies'}"


def chain_text(report: ChainReport, at: datetime, zone: ZoneInfo) -> str:
    """The result of verifying the audit log, and when."""
    when = f"{moment(at, zone)} ({zone.key})"
    if report.ok:
        return f"Verified up to entry {report.entries:,}, {when}: {report.says}."
    return (
        f"The audit log has been altered, {when}: {report.says}. Only entries before entry "
        f"{report.broken_at:,} are proven."
    )


def csv_address(query: AuditQuery) -> str:
    """The URL that downloads the audit entries of a filter as CSV."""
    pairs = [("actor", name) for name in query.actor] + [("action", name) for name in query.action]
    pairs += [(name, utc_text(time)) for name, time in (("from", query.start), ("to", query.end)) if time is not None]
    if query.search:
        pairs.append(("search", query.search))
    return f"{CSV_PATH}?{urlencode(pairs)}" if pairs else CSV_PATH
