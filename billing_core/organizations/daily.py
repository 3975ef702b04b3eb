"""Turns the engine's rows into series of credits per day for each organization. Exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from billing_core.usage_events.totals import EPOCH
from billing_core.values.decimals import EXACT

Account = tuple[str | None, str | None]
"""An organization and a customer its events are billed to; `None` is "none named"."""


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """Credits and US dollars per day, consecutive, without gaps; the last day is the one that is not over.

    `first_day` is the first one with an event, or the first looked at if there were events before (`is_older`).
    """

    first_day: date
    is_older: bool
    credits: tuple[Decimal, ...]
    amounts_usd: tuple[Decimal, ...]

    @property
    def complete(self) -> tuple[Decimal, ...]:
        """Credits of complete days: those that are over, from the first of usage, or of reading it, on."""
        return self.credits[:-1] if self.is_older else self.credits[1:-1]

    @property
    def today(self) -> Decimal:
        """Credits so far of the present day, which is not over."""
        return self.credits[-1]


@dataclass(frozen=True, slots=True)
class DailyHistory:
    """Daily usage of every account since `first_day`, known until the moment `at`; `today` is the day `at` is in.

    Organizations and accounts without an event since `first_day` are absent.
    """

    at: datetime
    first_day: date
    today: date
    organizations: Mapping[str | None, DailyUsage]
    accounts: Mapping[Account, DailyUsage]

    def together(self, keys: Iterable[Account]) -> DailyUsage | None:
        """The summed series of some accounts; `None` if none of them is known."""
        parts = [self.accounts[key] for key in keys if key in self.accounts]
        if len(parts) < 2:
            return parts[0] if parts else None
        days: _Days = {}
        for part in parts:
            first = day_number(part.first_day)
            for place, (held, dollars) in enumerate(zip(part.credits, part.amounts_usd, strict=True)):
                _add(days, first + place, held, dollars)
        is_older = any(part.is_older for part in parts)
        return _usage(days, day_number(self.first_day), day_number(self.today), is_older=is_older)


_Days = dict[int, tuple[Decimal, Decimal]]
"""Day number → credits and US dollars."""


def daily_history(rows: pa.Table, older: Iterable[Account], *, at: datetime, first_day: date) -> DailyHistory:
    """The daily history from rows of `ledger.history.per_day`; `older` are the accounts with events before `first_day`.

    `at` is aware, in the reporting timezone.
    """
    accounts: dict[Account, _Days] = {}
    names = ("organization_id", "customer_id", "credit_price_usd", "day", "credits")
    for organization, customer, price, day, held in zip(*(rows[name].to_pylist() for name in names), strict=True):
        _add(accounts.setdefault((organization, customer), {}), day, held, EXACT.multiply(held, price))
    known = set(older)
    first, last = day_number(first_day), day_number(at.date())
    series = {key: _usage(days, first, last, is_older=key in known) for key, days in accounts.items()}
    return DailyHistory(at, first_day, at.date(), _per_organization(accounts, series, known, first, last), series)


def _per_organization(
    accounts: Mapping[Account, _Days], series: Mapping[Account, DailyUsage], known: set[Account], first: int, last: int
) -> dict[str | None, DailyUsage]:
    """An organization with one customer has that account's series; with several, their sum."""
    members: dict[str | None, list[Account]] = {}
    for key in {**accounts, **dict.fromkeys(known)}:
        members.setdefault(key[0], []).append(key)
    found: dict[str | None, DailyUsage] = {}
    for organization, keys in members.items():
        used = [key for key in keys if key in accounts]
        if len(keys) == 1 and used:
            found[organization] = series[used[0]]
        elif used:
            days: _Days = {}
            for key in used:
                for day, (held, dollars) in accounts[key].items():
                    _add(days, day, held, dollars)
            found[organization] = _usage(days, first, last, is_older=any(key in known for key in keys))
    return found


def _add(days: _Days, day: int, held: Decimal, dollars: Decimal) -> None:
    before = days.get(day)
    days[day] = (held, dollars) if before is None else (EXACT.add(before[0], held), EXACT.add(before[1], dollars))


def _usage(days: _Days, first: int, last: int, *, is_older: bool) -> DailyUsage:
    begins = first if is_older else min(days)
    nothing = (Decimal(0), Decimal(0))
    cells = [days.get(day, nothing) for day in range(begins, last + 1)]
    return DailyUsage(
        EPOCH + timedelta(days=begins),
        is_older,
        tuple(held for held, _ in cells),
        tuple(dollars for _, dollars in cells),
    )


def day_number(day: date) -> int:
    """A date as the number of days since 1970-01-01."""
    return (day - EPOCH).days
