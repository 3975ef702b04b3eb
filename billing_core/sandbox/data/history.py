"""The sandbox's past: an endless seeded stream of traces, of which a dataset shows the newest part.

Every UTC day is drawn from its own random generators, seeded by (seed, day), so a sandbox started tomorrow
tells the same story about yesterday. `random.Random` is used because its streams are the same on every
Python version.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from billing_core.sandbox.data.catalog import CHATFLOWS, ORGANIZATIONS
from billing_core.sandbox.data.oddities import MAKERS
from billing_core.sandbox.data.plan import Oddity, TracePlan
from billing_core.sandbox.data.traces import TraceContext, plain_trace

DAY = 86_400_000
"""Milliseconds."""

WEEK = (1.15, 1.25, 1.25, 1.2, 1.1, 0.5, 0.55)
"""Traffic from Monday to Sunday against the mean."""

OFFICE_DAY = (
    0.25,
    0.2,
    0.15,
    0.15,
    0.2,
    0.4,
    0.9,
    1.8,
    3.0,
    3.6,
    3.7,
    3.4,
    2.9,
    3.3,
    3.6,
    3.5,
    3.0,
    2.3,
    1.6,
    1.2,
    1.0,
    0.8,
    0.6,
    0.4,
)
FREE_DAY = (
    0.8,
    0.6,
    0.5,
    0.4,
    0.4,
    0.5,
    0.6,
    0.8,
    1.1,
    1.4,
    1.6,
    1.7,
    1.7,
    1.6,
    1.6,
    1.6,
    1.7,
    1.8,
    1.9,
    2.0,
    1.9,
    1.6,
    1.3,
    1.0,
)
"""Weight of each UTC hour."""

HEADROOM = 1.03
"""Days are planned this much fuller than needed: the oldest hours are cut rather than filled up."""

FILLING = -1
"""Stands for a day in `start_times`: what fills up the oldest hours."""

ODD_SHARE = 0.06
ODDITIES = tuple(oddity for oddity in Oddity if oddity is not Oddity.PLAIN)
FIRST_MONDAY = 20_454  # days since 1970: 2026-01-05; usage per trace grows from here


def weekday(day: int) -> int:
    """0 is Monday; `day` counts from 1970-01-01, a Thursday."""
    return (day + 3) % 7


def start_times(seed: int, *, events: int, days: int, now: int) -> dict[int, list[int]]:
    """When traces start: exactly `events` times within the last `days` days before `now`, by day, oldest first.

    Only the oldest part, a tenth of the window at most, depends on `now`: it is cut short, or filled up, to
    reach the number.
    The list of a day holds `-1` for traces that belong to the day and are outside the window: their
    randomness must still be drawn for the rest of the day to stay what it is.
    """
    begin = now - days * DAY
    by_day = {day: _day_starts(seed, day, events / days) for day in range(begin // DAY, now // DAY + 1)}
    inside = sorted(start for starts in by_day.values() for start in starts if begin <= start < now)
    surplus = len(inside) - events
    if surplus < 0:
        by_day[FILLING] = _fill_up(seed, begin, min(begin + DAY, now), -surplus)
    cut = inside[surplus] if surplus > 0 else begin
    ties = inside[: max(surplus, 0)].count(cut)  # of several traces that start at the cut, so many go
    result: dict[int, list[int]] = {}
    for day, starts in by_day.items():
        kept = []
        for start in starts:
            if start == cut and ties > 0:
                ties -= 1
                kept.append(-1)
            else:
                kept.append(start if cut <= start < now else -1)
        result[day] = kept
    return result


def _day_starts(seed: int, day: int, mean: float) -> list[int]:
    random = Random(f"{seed}/{day}/starts")
    hours = OFFICE_DAY if weekday(day) < 5 else FREE_DAY
    number = mean * HEADROOM * WEEK[weekday(day)] * random.uniform(0.94, 1.06)
    count = int(number) + (random.random() < number % 1)
    picked = random.choices(range(24), weights=hours, k=count)
    return sorted(day * DAY + hour * 3_600_000 + int(random.random() * 3_600_000) for hour in picked)


def _fill_up(seed: int, begin: int, end: int, count: int) -> list[int]:
    random = Random(f"{seed}/{begin}/filling")
    return sorted(begin + int(random.random() * (end - begin)) for _ in range(count))


def plans(seed: int, *, events: int, days: int, now: int) -> Iterator[TracePlan]:
    """Every trace of the window, oldest day first."""
    for day, starts in start_times(seed, events=events, days=days, now=now).items():
        if day == FILLING:
            yield from _day_plans(Random(f"{seed}/{starts[0]}/traces"), starts[0] // DAY, starts)
        else:
            yield from _day_plans(Random(f"{seed}/{day}/traces"), day, starts)


def _day_plans(random: Random, day: int, starts: Sequence[int]) -> Iterator[TracePlan]:
    growth = max(1 + 0.02 * (day - FIRST_MONDAY) / 7, 0.2)
    shares = [o.share * (1 + 0.25 * math.sin(day / 9 + 2.1 * i)) for i, o in enumerate(ORGANIZATIONS)]
    organizations = list(accumulate(shares))
    chatflows = list(accumulate(flow.share for flow in CHATFLOWS))
    odd = day * 7  # which oddity comes next; another one first every day
    for start in starts:
        draw = random.random
        organization = ORGANIZATIONS[bisect(organizations, draw() * organizations[-1])]
        users = organization.users
        user = users[int(len(users) * draw() ** 2)]  # a few people do most of the work
        flow = CHATFLOWS[bisect(chatflows, draw() * chatflows[-1])]
        at = start if start >= 0 else day * DAY
        circumstances = TraceContext(random, at, organization, user, flow, growth)
        if draw() < ODD_SHARE:
            oddity = ODDITIES[odd % len(ODDITIES)]
            odd += 1
            plan = MAKERS[oddity](circumstances)
            plan.oddity = oddity
        else:
            plan = plain_trace(circumstances)
        if start >= 0:
            yield plan
