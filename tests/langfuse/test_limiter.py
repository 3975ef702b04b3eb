"""One pace for everyone who reads the same organization."""

from __future__ import annotations

import pytest

from billing_core.langfuse.limiter import shared_pace


def test_an_organization_has_one_pace_and_the_strictest_limit_counts() -> None:
    first = shared_pace("host", "org-of-this-test", 60)
    assert shared_pace("host", "org-of-this-test", 30) is first
    assert shared_pace("other-host", "org-of-this-test") is not first
    first.reserve()
    assert first.reserve() == pytest.approx(2.0, abs=0.1)
