"""How many examples Hypothesis tries: HYPOTHESIS_PROFILE=nightly tries ten times as many as `ci`, the usual profile."""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = {"ci": 1, "nightly": 10}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")


def examples(usual: int) -> int:
    """Where a test names a number of its own: that many, or what the profile makes of it."""
    return usual * TIMES[PROFILE]


for _name, _times in TIMES.items():  # how fast something is, is measured in benchmarks/, not here: no deadline
    settings.register_profile(_name, deadline=None, max_examples=100 * _times)
settings.load_profile(PROFILE)
