"""The clock of the tests: one moment, the same on every day, in this process and in those it starts.

Importing this sets it. TESTS_NOW names another moment than the plain one: see `make test-dates`.
"""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from billing_core.runtime import clock

ROOT = Path(__file__).parents[1]

NOW = datetime.fromisoformat(os.environ.setdefault("TESTS_NOW", "2026-11-18T10:30:00+00:00"))

AWKWARD = {
    "the last minute of a month": datetime(2026, 11, 30, 23, 59, tzinfo=UTC),
    "the first minute of a month": datetime(2026, 12, 1, tzinfo=UTC),
    "the last minute of a year": datetime(2026, 12, 31, 23, 59, tzinfo=UTC),
    "the first minute of a year": datetime(2027, 1, 1, tzinfo=UTC),
    "clocks go forward in New York": datetime(2027, 3, 14, 7, tzinfo=UTC),
    "clocks go forward in Berlin": datetime(2027, 3, 28, 1, tzinfo=UTC),
    "clocks go back in Berlin": datetime(2027, 10, 31, 0, 30, tzinfo=UTC),
    "clocks go back in New York": datetime(2027, 11, 7, 5, 30, tzinfo=UTC),
    "a leap day": datetime(2028, 2, 29, 12, tzinfo=UTC),
}
"""Moments at which programs about dates go wrong. Where clocks go back, the hour that comes twice has begun."""

TICK = timedelta(microseconds=1)
"""Each look at the clock is so much later than the one before: no two are equal, and the whole suite takes seconds."""

_looks = itertools.count()

clock._machine = lambda: NOW + next(_looks) * TICK

os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT / "tests" / "at_start"), str(ROOT)))


if __name__ == "__main__":
    print(*(moment.isoformat() for moment in AWKWARD.values()))  # noqa: T201 - for the Makefile
