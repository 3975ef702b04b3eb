"""The command `explore`: usage grouped by anything. Part of `billing_core.cli`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_core.cli.support import (
    add_filters,
    add_json,
    add_window,
    aligned,
    open_service,
    os_principal,
    params_of,
    print_json,
)
from billing_core.settings import Settings
from billing_core.values.counts import count_of

if TYPE_CHECKING:
    from billing_core.usage_events.explore_model import Exploration, ExploreRow

Command = Callable[[str, Callable[[argparse.Namespace, Settings], int], str], argparse.ArgumentParser]

DIMENSIONS = "organization, customer, user, chatflow, model, environment, status, token_class, credit_type"
METRICS = "credits (default), amount_usd, cost_usd, margin_usd, events, tokens, users, latency"
ASKED = ("by", "metric", "grain", "compare", "top")


def add_explore_command(command: Command) -> None:
    """Add the command `explore` to the parser."""
    explore = command("explore", _explore, "usage grouped by one or two dimensions, in periods, compared")
    explore.add_argument("--by", required=True, metavar="D[,D2]", help=DIMENSIONS)
    explore.add_argument("--metric", metavar="M", help=METRICS)
    explore.add_argument("--grain", metavar="day|week|month", help="a row per period of BILLING_TIMEZONE; ISO weeks")
    explore.add_argument(
        "--compare", metavar="previous|FROM..TO", help="with the equally long period before, or with another window"
    )
    explore.add_argument("--top", metavar="N", help="the N largest groups, the others as one row (default: all)")
    add_window(explore)
    add_filters(explore)
    add_json(explore)


def _explore(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.usage_events.explore_model import ExploreQuestion

    question = ExploreQuestion.parse({name: getattr(options, name) for name in ASKED})
    params = params_of(options)
    with open_service(settings) as service:
        found = service.explore(params, question, os_principal())
    if options.json:
        print_json(found.to_json())
    else:
        print(_table(found))
    return 0


def _table(found: Exploration) -> str:
    """The groups for people: a line per row, one for all of them, and what to know about the figures."""
    from billing_core.usage_events.explore_model import COSTS, KEY_OF, Metric

    asked = found.question
    head = [*asked.by, *([asked.grain] if asked.grain else []), KEY_OF.get(asked.metric, str(asked.metric))]
    head += ["p95_seconds"] if asked.metric is Metric.LATENCY else []
    head += ["previous", "change"] if asked.compare else []

    def figures(row: ExploreRow) -> list[str]:
        shown = [row.value, *([row.p95] if asked.metric is Metric.LATENCY else [])]
        compared = [row.previous, row.change] if asked.compare else []
        return [*(_number(one) for one in shown), *("–" if one is None else _number(one) for one in compared)]

    lines = []
    for row in found.rows:
        names = [value or f"no {one.replace('_', ' ')}" for one, value in zip(asked.by, row.values, strict=True)]
        if row.others is not None:
            names = [count_of(row.others, "other"), *[""] * (len(asked.by) - 1)]
        period = [] if asked.grain is None or row.period is None else [row.period.isoformat()]
        lines.append([*names, *period, *figures(row)])
    blank = [""] * (len(asked.by) - 1 + bool(asked.grain))
    lines.append(["total", *blank, *figures(found.totals)])
    notes = [] if asked.is_additive else ["the rows do not add up to the total, which is over all events of the filter"]
    if asked.metric in COSTS and found.totals.unknown_cost_amount_usd:
        notes.append(f"the cost of usage worth {_number(found.totals.unknown_cost_amount_usd)} USD is unknown")
    if asked.grain:
        notes.append(f"{asked.grain}s of {found.zone}")
    return "\n".join([aligned(head, lines), *notes])


def _number(value: Decimal | None) -> str:
    from billing_core.types import plain_decimal

    return "unknown" if value is None else plain_decimal(value)
