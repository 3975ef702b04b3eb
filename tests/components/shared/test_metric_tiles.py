from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from components.shared.metric_tiles import SPARKLINE_PIXELS, sparkline

amounts = st.floats(-1e12, 1e12, allow_nan=False)


def bars(points):
    """Of each bar its upper and lower edge, in pixels below the top."""
    found = re.findall(r"height:([\d.]+)px;margin-top:([\d.]+)px", sparkline(points))
    return [(float(top), float(top) + float(height)) for height, top in found]


@given(st.lists(amounts, min_size=1, max_size=40))
def test_a_sparkline_has_a_bar_per_point_within_its_height(points):
    drawn = bars(points)
    assert len(drawn) == len(points)
    assert all(-0.1 <= top <= bottom <= SPARKLINE_PIXELS + 0.15 for top, bottom in drawn)


@given(st.lists(amounts, min_size=2, max_size=10))
def test_of_two_bars_the_higher_figure_reaches_higher(points):
    for (one, (one_top, one_bottom)), (other, (other_top, other_bottom)) in zip(
        zip(points, bars(points), strict=True), list(zip(points, bars(points), strict=True))[1:], strict=False
    ):
        if one >= other >= 0:
            assert one_top <= other_top
        if one <= other <= 0:
            assert one_bottom >= other_bottom


def test_a_correction_hangs_below_the_line_that_usage_stands_on():
    assert bars([3.0, -1.0]) == [(0.0, 21.0), (21.0, 28.0)]


def test_a_period_without_credits_is_a_flat_line():
    assert bars([0.0, 0.0]) == [(0.0, 0.0), (0.0, 0.0)]
