"""The audit log's chain: every entry's hash covers the one before, so that nothing in between can be changed unseen.

What the chain alone cannot show is that its newest entries are gone. Anchors can: whoever wrote down the newest entry
of a moment somewhere else (the manifest of a month's close does) proves that the log once reached it. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64
"""Previous hash of the first entry."""


Row = tuple[Any, ...]
"""An entry as it is stored: seq, happened_at (UTC without an offset), actor, action, detail, previous_hash, hash."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Number and hash of an audit entry as noted outside the log; `source` says where, for people."""

    seq: int
    hash: str
    source: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The result of checking the audit log for changed or missing entries.

    entries: Read until the end, or until it broke.
    broken_at: The number of the first entry that is missing or is not as it was written; `None` if the log is whole.
    says: One sentence.
    head: Hash of the newest entry that is proven.
    """

    ok: bool
    entries: int
    broken_at: int | None
    says: str
    head: str = GENESIS


def entry_hash(seq: int, happened_at: datetime, actor: str, action: str, detail: str, previous_hash: str) -> str:
    """The hex SHA-256 of an audit entry, over a JSON list of its texts; times in UTC with microseconds."""
    at = happened_at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(json.dumps([str(seq), at, actor, action, detail, previous_hash]).encode()).hexdigest()


def check(entries: Iterable[Row], anchors: Sequence[Anchor] = ()) -> ChainReport:
    """Check the audit log from its first entry: each hash must follow from the entry and the hash before it.

    entries: All there are, in the order of their numbers; read once, one at a time.
    anchors: What other places know of entries.
    """
    count, head = 0, GENESIS
    known: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        known.setdefault(anchor.seq, []).append(anchor)
    for entry in entries:
        due = count + 1
        if (fault := _fault(entry, due, head, known.get(due, []))) is not None:
            return ChainReport(False, count, due, fault, head)
        count, head = due, entry[-1]
    beyond = min((anchor for anchor in anchors if anchor.seq > count), key=lambda one: one.seq, default=None)
    if beyond is not None:
        says = (
            f"the log ends with entry {count:,}, but {beyond.source} knows entry {beyond.seq:,}: the last are missing"
        )
        return ChainReport(False, count, count + 1, says, head)
    return ChainReport(True, count, None, f"{count:,} entries, none changed, none missing in between", head)


def _fault(entry: Row, due: int, head: str, anchors: Iterable[Anchor]) -> str | None:
    """What is wrong with the entry that should be number `due` and follow `head`; `None` if nothing is."""
    seq, happened_at, actor, action, detail, previous_hash, own_hash = entry
    if seq is None or happened_at is None:
        return f"entry {due:,} has no number or no time: nothing writes such an entry"
    if seq > due:
        return f"entry {due:,} is missing: {seq:,} follows {due - 1:,}"
    if seq < due:
        return f"entry {due:,} should follow, but {seq:,} does: a number twice, or one below 1"
    if previous_hash != head:
        return f"entry {due:,} does not follow the one before it: one of the two was replaced"
    if entry_hash(seq, happened_at.replace(tzinfo=UTC), actor, action, detail, previous_hash) != own_hash:
        return f"entry {due:,} was changed after it was written: its hash is of something else"
    for anchor in anchors:
        if anchor.hash != own_hash:
            return f"entry {due:,} is not the one that {anchor.source} knows: the log was rewritten"
    return None
