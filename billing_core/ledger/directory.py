"""The organization directory in the ledger: names for people, and who pays for events whose trace names no customer.

Append-only: the newest row of an organization counts, and what it leaves empty there is not. Whoever changes who
pays moves the unsent events with it, in the same transaction, and the audit chain says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import ibis.expr.types as ir
import pyarrow as pa

from billing_core.errors import BadParameter
from billing_core.ledger.compiled import Question, ask
from billing_core.ledger.customer_mapping import rebill
from billing_core.ledger.engine import Engine, Rows, Writer
from billing_core.ledger.journal import append_audit
from billing_core.ledger.late_usage import after_closes
from billing_core.ledger.queries import Chosen, Selection, choose, selected
from billing_core.rating.events import Policy
from billing_core.types import Flag

Source = Literal["page", "import"]
AUDITED_AT_ONCE = 500
"""Changes in one audit entry: an import of a hundred thousand shall neither make one endless entry nor as many."""


@dataclass(frozen=True, slots=True)
class Line:
    """The directory's line of an organization: its name and its customer; `None` is none."""

    name: str | None = None
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class DirectoryChange:
    """One change of the directory: what an organization's line was and became, when (aware UTC) and by whom."""

    seq: int
    organization_id: str
    before: Line
    after: Line
    changed_at: datetime
    changed_by: str
    source: str


_HISTORY = """
SELECT seq, organization_id, lag(name) OVER one, lag(customer_id) OVER one, name, customer_id, changed_at, changed_by,
       source
FROM organization_directory WINDOW one AS (PARTITION BY organization_id ORDER BY seq)
"""
_LAST = "QUALIFY row_number() OVER (PARTITION BY organization_id ORDER BY seq DESC) = 1"
_NEWEST = f"SELECT * FROM ({_HISTORY}) {_LAST}"
_LINES_AT = f"""SELECT organization_id, name, customer_id FROM organization_directory
WHERE changed_at <= coalesce(CAST(? AS TIMESTAMP), 'infinity'::TIMESTAMP) {_LAST}"""
_PAYERS = f"SELECT organization_id, customer_id FROM organization_directory {_LAST}"


_MAPPED = f"""SELECT DISTINCT organization_id FROM events
WHERE contains(flags, '{Flag.MAPPED_CUSTOMER}') AND sync_status IN ('pending', 'error', 'excluded')"""


class DirectoryStore:
    """The organization directory and its history in the ledger; over the same engine as `Ledger`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self) -> dict[str, DirectoryChange]:
        """The newest directory change of every organization that ever had a line."""
        return _newest(self._engine.rows)

    def history(self, *, limit: int, organizations: Sequence[str] | None = None) -> list[DirectoryChange]:
        """Changes of the directory, newest first; of some organizations only, if named."""
        if organizations is None:
            found = self._engine.rows(f"{_HISTORY} ORDER BY seq DESC LIMIT ?", [limit])
        else:
            query = f"SELECT * FROM ({_HISTORY}) WHERE organization_id IN (SELECT unnest(?)) ORDER BY seq DESC LIMIT ?"
            found = self._engine.rows(query, [list(organizations), limit])
        return [_row(values) for values in found]

    def between(self, first: int, last: int) -> list[DirectoryChange]:
        """Changes of the directory by number, both ends included: what one import wrote."""
        query = f"SELECT * FROM ({_HISTORY}) WHERE seq BETWEEN ? AND ? ORDER BY seq"
        return [_row(values) for values in self._engine.rows(query, [first, last])]

    def change(
        self,
        lines: Mapping[str, Line],
        *,
        seen: Mapping[str, int],
        policy: Policy,
        actor: str,
        source: Source,
        now: datetime,
        file_sha256: str | None = None,
        also: Callable[[Writer], object] | None = None,
    ) -> dict[str, int]:
        """Change lines of the directory, move unsent events to the customers who pay now, and audit it: all of it or
        nothing.

        seen: The `seq` of each organization's row that the change was decided on, 0 where there was none.
        also: What belongs to the change and is written with it; the new rows, numbered without a gap, are there
            already.

        Returns
        -------
        Organization → events with something to bill that another customer pays for from now on, or nobody any more.

        Raises BadParameter: if somebody changed one of the lines since.
        """
        with self._engine.transaction() as writer:
            now = after_closes(writer, now)
            present = _newest(writer.rows)
            for organization_id in lines:
                row = present.get(organization_id)
                if row is not None and row.seq != seen[organization_id]:
                    raise BadParameter(
                        "preview",
                        organization_id,
                        f"a line that is still as it was previewed; {row.changed_by} changed it since: preview again",
                    )
            before = {one: present[one].after if one in present else Line() for one in lines}
            first = newest_line(writer.rows) + 1
            writer.append("organization_directory", _table(lines, first, actor=actor, source=source, now=now))
            run_id = f"organization map by {actor}"
            changed = payers({one: (before[one], line) for one, line in lines.items()})
            moved = rebill(writer, changed, policy, actor=actor, run_id=run_id, now=now)
            writer.advance(run_id)
            facts = {"source": source} if file_sha256 is None else {"source": source, "sha256": file_sha256}
            changes = [_audited(o, before[o], line, moved.get(o, 0)) for o, line in lines.items()]
            for start in range(0, len(changes), AUDITED_AT_ONCE):
                part = changes[start : start + AUDITED_AT_ONCE]
                append_audit(writer, actor, "organization map", {**facts, "changes": part})
            if also is not None:
                also(writer)
        return moved


def names_in(lines: Mapping[str, DirectoryChange]) -> dict[str, str]:
    """Organization → its name, from lines of the directory."""
    return {organization_id: row.after.name for organization_id, row in lines.items() if row.after.name}


def newest_line(rows: Rows) -> int:
    """Number of the newest change of the directory; 0 in an empty one."""
    return int(rows("SELECT coalesce(max(seq), 0) FROM organization_directory", [])[0][0])


def lines_at(rows: Rows, moment: datetime | None) -> dict[str, Line]:
    """Organization → its line of the directory, as it is now or as it was at a moment."""
    found = rows(_LINES_AT, [moment])
    return {organization_id: Line(name, customer_id) for organization_id, name, customer_id in found}


def mapped_customers(rows: Rows) -> dict[str, str]:
    """Organization → the customer that pays for events whose trace names none, as the directory says now."""
    return {organization_id: customer for organization_id, customer in rows(_PAYERS, []) if customer is not None}


def payers(lines: Mapping[str, tuple[Line, Line]]) -> dict[str, str | None]:
    """Organization → the customer who pays after a change of its line (before, after), where that is another one."""
    return {one: new.customer_id for one, (old, new) in lines.items() if new.customer_id != old.customer_id}


def who_pays(selection: Selection) -> Question:
    """A question: events of each organization by customer, by who named it, and whether unsent."""
    return ask(_who_pays, choose(selection))


def _who_pays(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    t = t.filter(t.organization_id.notnull())
    kinds = t.mutate(
        is_mapped=t.flags.contains(Flag.MAPPED_CUSTOMER), is_unsent=t.sync_status.isin(["pending", "error"])
    )
    grouped = kinds.group_by("organization_id", "customer_id", "is_mapped", "is_unsent", "credit_price_usd")
    return grouped.aggregate(events=kinds.count(), credits=kinds.credits_total.sum())


def follow(writer: Writer, policy: Policy, *, actor: str, run_id: str, now: datetime) -> None:
    """Book every unsent event for the customer the directory now names: some were being sent when it changed and became
    unsent again.

    Events that nobody pays for follow where there is a customer by now; `policy` says who pays where there is none.
    """
    names = dict.fromkeys(row[0] for row in writer.rows(_MAPPED))  # an organization may have changed since it was sent
    rebill(writer, {**names, **dict(writer.rows(_PAYERS))}, policy, actor=actor, run_id=run_id, now=now)


def _newest(rows: Rows) -> dict[str, DirectoryChange]:
    return {row.organization_id: row for row in map(_row, rows(_NEWEST, []))}


def _row(values: tuple[Any, ...]) -> DirectoryChange:
    seq, organization_id, old_name, old_customer, name, customer_id, at, by, source = values
    before, after = Line(old_name, old_customer), Line(name, customer_id)
    return DirectoryChange(seq, organization_id, before, after, at.replace(tzinfo=UTC), by, source)


def _table(lines: Mapping[str, Line], first: int, *, actor: str, source: Source, now: datetime) -> pa.Table:
    count = len(lines)
    return pa.table(
        {
            "seq": pa.array(range(first, first + count), pa.int64()),
            "organization_id": pa.array(list(lines), pa.string()),
            "name": pa.array([line.name for line in lines.values()], pa.string()),
            "customer_id": pa.array([line.customer_id for line in lines.values()], pa.string()),
            "changed_at": pa.array([now] * count, pa.timestamp("us", tz="UTC")),
            "changed_by": pa.array([actor] * count, pa.string()),
            "source": pa.array([source] * count, pa.string()),
        }
    )


def _audited(organization_id: str, before: Line, after: Line, events_moved: int) -> dict[str, Any]:
    """A change as the audit entry has it: old → new of what changed, and how many events it moved."""
    found: dict[str, Any] = {"organization": organization_id}
    for part in ("name", "customer_id"):
        old, new = getattr(before, part), getattr(after, part)
        if old != new:
            found[part] = [old, new]
    return {**found, "events_moved": events_moved}
