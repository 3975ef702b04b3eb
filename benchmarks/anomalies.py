"""How many of the listed unusual days are real: those the sandbox planted, and more planted into its history.

The sandbox plants traces that last for days (`Oddity.FAR_APART`): each is a day that somebody should look at.

python -m benchmarks.anomalies PATH      (a ledger of the demo: `make run` leaves one)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from billing_core.access import system_principal
from billing_core.organizations.anomalies import FEWEST_DAYS, ActOn
from billing_core.organizations.anomaly_detection import judge
from billing_core.organizations.daily import DailyHistory, DailyUsage
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams

WHO = system_principal("bench")
ROUNDS = 40
SHARE = 0.02
"""Of an organization's days, so many are planted: less than one in six weeks."""

FACTORS = tuple(map(Decimal, (0, 3, 5, 10)))
"""An outage, and usage times three, five and ten."""

LONG = 8 * 3600
"""Seconds from which a trace is one of the sandbox's planted ones; all others are over within minutes."""

FLOORS = (0, 1, 2, 3)
"""US dollars."""

Place = tuple[str | None, date]


def planted(past: DailyHistory, random: Random) -> tuple[DailyHistory, set[Place]]:
    """The history with a few days multiplied by one of `FACTORS`, and which ones."""
    changed: dict[str | None, DailyUsage] = {}
    places: set[Place] = set()
    for organization, usage in past.organizations.items():
        factors = [
            random.choice(FACTORS) if day >= FEWEST_DAYS and random.random() < SHARE else Decimal(1)
            for day in range(len(usage.credits))
        ]
        changed[organization] = replace(
            usage, credits=_times(usage.credits, factors), amounts_usd=_times(usage.amounts_usd, factors)
        )
        places |= {(organization, usage.first_day + timedelta(days=day)) for day, by in enumerate(factors) if by != 1}
    return replace(past, organizations=changed), places


def _times(values: Sequence[Decimal], factors: Sequence[Decimal]) -> tuple[Decimal, ...]:
    return tuple(value * by for value, by in zip(values, factors, strict=True))


def of_the_sandbox(service: BillingService) -> set[Place]:
    """The days of organizations on which the sandbox planted a trace."""
    found: set[Place] = set()
    for page in range(1, 100):
        asked = GetUsageEventsParams(sort="latency_seconds", order="desc", limit=200, page=page)
        for event in service.get_usage_events(asked, WHO).events:
            if event.latency_seconds is None or event.latency_seconds < LONG:
                return found
            found.add((event.organization_id, event.timestamp.astimezone(service.settings.zone).date()))
    return found


def back_test(past: DailyHistory, there: set[Place], act_on: ActOn, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Precision: planted ÷ listed. Recall: listed ÷ planted, of those with the money that `act_on` asks for."""
    last = past.today - timedelta(days=1)
    first = min(one.first_day for one in past.organizations.values()) + timedelta(days=FEWEST_DAYS)
    listed = hits = worth = days = 0
    for number in range(rounds):
        history, places = planted(past, Random(number))
        places |= there
        report = judge(history, past.first_day, last, as_of=0, act_on=act_on)
        everything = judge(history, past.first_day, last, as_of=0).rows
        hits += sum((row.organization_id, row.day) in places for row in report.rows)
        listed += len(report.rows)
        worth += sum((row.organization_id, row.day) in places and act_on.is_large(row) for row in everything)
        days += (last - first).days + 1
    return {
        "listed": listed,
        "precision": round(hits / listed, 3) if listed else None,
        "recall": round(hits / worth, 3) if worth else None,
        "listed_per_day": round(listed / days, 2),
    }


def measure(path: Path) -> dict[str, Any]:
    """The back-test with several floors, that of the settings among them."""
    settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
    service = BillingService.from_settings(settings)
    past = service.organizations.forecasting.history(WHO)
    if past is None:
        raise SystemExit(f"{path} holds no usage")
    there, most = of_the_sandbox(service), settings.anomalies_per_day
    return {
        f"from {floor} USD": back_test(past, there, ActOn(floor, most if floor else None))
        for floor in sorted({settings.anomaly_minimum_usd, *map(Decimal, FLOORS)})
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1])), indent=2) + "\n")
