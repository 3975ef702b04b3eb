"""How many examples Hypothesis tries: two fifths of what a test names, ten times that by HYPOTHESIS_PROFILE=nightly."""

from __future__ import annotations

import os
from fractions import Fraction

from hypothesis import settings

TIMES = {"ci": Fraction(2, 5), "nightly": Fraction(10)}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

FEWEST = 3


def examples(usual: int, profile: str = PROFILE) -> int:
    """What the profile makes of a number of examples."""
    return max(FEWEST, int(usual * TIMES[profile]))


for _name in TIMES:  # how fast something is, is measured in benchmarks/, not here: no deadline
    settings.register_profile(_name, deadline=None, max_examples=examples(100, _name))
settings.load_profile(PROFILE)
