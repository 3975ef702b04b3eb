"""How fast one may send and how long one waits."""

import pytest

from billing_core.runtime.pacing import Pace
from billing_core.stripe.limits import BURST_SECONDS, LIVE_PER_SECOND, TEST_PER_SECOND, RetryLimits


@pytest.mark.parametrize(("per_second", "stripes_limit"), [(LIVE_PER_SECOND, 1000), (TEST_PER_SECOND, 25)])
def test_no_second_ever_holds_more_calls_than_stripe_allows(per_second, stripes_limit):
    now = [100.0]
    pace = Pace(per_second, burst_seconds=BURST_SECONDS, clock=lambda: now[0])
    slots = []
    for number in range(5 * per_second):
        slots.append(now[0] + pace.reserve())
        if number == 2 * per_second:
            now[0] += 7.0  # a rest, after which nothing may be made up for
    for first in range(0, len(slots), 7):
        assert sum(slots[first] <= slot < slots[first] + 1 for slot in slots) <= stripes_limit


def test_the_pace_is_kept_up():
    pace = Pace(TEST_PER_SECOND, burst_seconds=BURST_SECONDS, clock=lambda: 100.0)
    assert [pace.reserve() for _ in range(101)][-1] == pytest.approx(5, abs=0.15)


def test_pauses_double_with_jitter_up_to_a_longest():
    patience = RetryLimits()
    for failures, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (9, 20.0), (60, 20.0)]:
        found = [patience.backoff_seconds(failures) for _ in range(50)]
        assert longest / 2 <= min(found) <= max(found) <= longest
        assert len(set(found)) > 1
