"""The clock of the tests: one moment, the same on every day, in this process and in those it starts.

Importing this sets it. TESTS_NOW names another moment than the plain one: see `make test-dates`.
"""

from __future__ import annotations

import itertools
import os
from datetime import datetime, timedelta
from pathlib import Path

from billing_core import clock

__all__ = ["NOW"]

ROOT = Path(__file__).parents[1]

NOW = datetime.fromisoformat(os.environ.setdefault("TESTS_NOW", "2026-11-18T10:30:00+00:00"))

TICK = timedelta(microseconds=1)
"""Each look at the clock is so much later than the one before: no two are equal, and the whole suite takes seconds."""

_looks = itertools.count()

clock._machine = lambda: NOW + next(_looks) * TICK

os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT / "tests" / "at_start"), str(ROOT)))
