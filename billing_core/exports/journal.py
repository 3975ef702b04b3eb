"""Turns one month's sums into double-entry journal lines for an accounting program. Pure and exact.

A customer's organization owes (receivable, debit) what its credits cost; each kind of resource earns (revenue, credit)
its part. A month that took back more than it used has the sides swapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from billing_core.values.journal_accounts import JournalAccounts

NO_ORGANIZATION = "(none)"
"""Stands for usage that names no organization; a real name is percent-encoded in references, so none reads like it."""

KINDS = ("ai_tokens", "compute", "storage")
"""What revenue is told apart by, in the order of lines."""

_NO_AMOUNT = Decimal(0)


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of an accounting journal: US dollars as debit or credit, the other empty; fields are columns."""

    period: str
    account: str
    organization: str
    debit: Decimal | None
    credit: Decimal | None
    reference: str


JOURNAL_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(JournalLine))
"""Column names of a journal file, in their order."""


def journal_rows(sums: Iterable[Mapping[str, Any]], accounts: JournalAccounts, period: str) -> list[JournalLine]:
    """The journal lines of one calendar month (`2026-10`, of the zone the sums were cut in).

    `sums` are rows of that month with `organization_id`, `credit_price_usd` and `credits_ai_tokens`, `credits_compute`,
    `credits_storage`, any number per organization (one per price, status or day: they are added up). Amounts are US
    dollars, credits × price, not rounded: debits equal credits exactly, and receivables equal `amount_usd` of the same
    events. Lines of nothing are left out. Organizations come in order of their ids, usage without one last.
    """
    from billing_core.values.decimals import (
        EXACT,  # brings numpy and Arrow, which reading the settings must not wait for
    )

    revenue: dict[str | None, dict[str, Decimal]] = {}
    for row in sums:
        kinds = revenue.setdefault(row["organization_id"] or None, dict.fromkeys(KINDS, _NO_AMOUNT))
        for kind in KINDS:
            credits_of_kind = row[f"credits_{kind}"]
            if credits_of_kind is not None:
                kinds[kind] = EXACT.add(kinds[kind], EXACT.multiply(credits_of_kind, row["credit_price_usd"]))
    lines = []
    for organization in sorted(revenue, key=lambda name: (name is None, name or "")):
        earned = revenue[organization]
        owed = EXACT.add(EXACT.add(earned["ai_tokens"], earned["compute"]), earned["storage"])
        lines.append(_line(accounts, period, organization, "receivable", owed))
        lines += [_line(accounts, period, organization, kind, earned[kind].copy_negate()) for kind in KINDS]
    return [line for line in lines if line.debit or line.credit]


def _line(accounts: JournalAccounts, period: str, organization: str | None, entry: str, debit: Decimal) -> JournalLine:
    """`debit` US dollars on the account of `entry`; less than nothing is the same on the other side."""
    reference = f"{period}/{NO_ORGANIZATION if organization is None else quote(organization, safe='')}/{entry}"
    return JournalLine(
        period=period,
        account=getattr(accounts, entry),
        organization=NO_ORGANIZATION if organization is None else organization,
        debit=debit if debit > 0 else None,
        credit=debit.copy_negate() if debit < 0 else None,
        reference=reference,
    )
