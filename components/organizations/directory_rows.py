"""Tables of the organization directory, and its search. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from components.shared.formats import count, moment, rounded, short_usd

if TYPE_CHECKING:
    from billing_core.ledger.directory import DirectoryChange, Line
    from billing_core.organizations.directory import DirectoryEntry, PreviewLine
    from billing_core.organizations.directory_file import RejectedDirectoryRow

Rows = dict[str, list[str]]

NONE = "none"
"""What stands for a name or a customer that is not there: the directory knows it to be so."""


def fits(entry: DirectoryEntry, text: str) -> bool:
    """Whether a search text finds an organization: case-blind in its id, name and customers."""
    wanted = text.strip().casefold()
    said = (entry.organization_id, entry.name or "", entry.customer_id or "", *entry.named_customers)
    return any(wanted in one.casefold() for one in said)


def entry_rows(entries: Sequence[DirectoryEntry]) -> Rows:
    """The table of organizations with what the directory and their events say."""
    return {
        "Organization": [entry.organization_id for entry in entries],
        "Name": [entry.name or NONE for entry in entries],
        "Mapped to": [entry.customer_id or NONE for entry in entries],
        "Named by its traces": [", ".join(entry.named_customers) or NONE for entry in entries],
        "Unbilled events": [count(entry.at_stake.events) for entry in entries],
        "Unbilled credits": [rounded(entry.at_stake.credits) for entry in entries],
        "Unbilled amount": [short_usd(entry.at_stake.amount_usd) for entry in entries],
    }


def step_rows(steps: Sequence[PreviewLine]) -> Rows:
    """The changes of a directory import as a table, line by line."""
    return {
        "Organization": [step.organization_id for step in steps],
        "Name": [_arrow(step.before.name, step.after.name) for step in steps],
        "Customer": [_arrow(step.before.customer_id, step.after.customer_id) for step in steps],
        "Events": [count(step.moved.events) for step in steps],
        "Credits": [rounded(step.moved.credits) for step in steps],
        "Amount": [short_usd(step.moved.amount_usd) for step in steps],
        "Warnings": [" ".join(step.warnings) for step in steps],
    }


def rejected_rows(rejected: Sequence[RejectedDirectoryRow]) -> Rows:
    """The rows of a directory file that cannot be used, as a table."""
    return {
        "Row": [count(one.row) for one in rejected],
        "Field": [one.field for one in rejected],
        "Reason": [one.reason for one in rejected],
    }


def history_rows(rows: Sequence[DirectoryChange], zone: ZoneInfo) -> Rows:
    """The changes of the directory as a table: when, who, what it was and became."""
    return {
        f"Changed ({zone.key})": [moment(row.changed_at, zone) for row in rows],
        "By": [row.changed_by for row in rows],
        "From": [row.source for row in rows],
        "Organization": [row.organization_id for row in rows],
        "Name": [_history(row.before, row.after, "name") for row in rows],
        "Customer": [_history(row.before, row.after, "customer_id") for row in rows],
    }


def _arrow(old: str | None, new: str | None) -> str:
    return new or NONE if old == new else f"{old or NONE} → {new or NONE}"


def _history(before: Line, after: Line, part: str) -> str:
    return _arrow(getattr(before, part), getattr(after, part))
