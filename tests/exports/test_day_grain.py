"""Days and months of a timezone, whatever its clocks do."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billing_core.exports.day_grain import local_days, month_windows, named_month
from billing_core.exports.event_slices import EPOCH, TimeSpan

ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "America/Havana"]
).map(ZoneInfo)
HOURS = st.lists(st.integers(380_000, 500_000), min_size=1, max_size=20, unique=True)


@given(ZONES, HOURS, st.integers(1, 100))
def test_parts_are_whole_days_that_do_not_overlap_and_hold_every_slice(zone, hours, most):
    spans = [TimeSpan(3600 * hour, 3600 * (hour + 1), 7) for hour in sorted(hours)]
    parts = local_days(zone, spans, most)
    assert sum(part.rows for part in parts) == 7 * len(spans)
    assert all(before.end <= after.start for before, after in pairwise(parts))
    for part in parts:
        for edge in (part.start, part.end):
            before, at = ((EPOCH + timedelta(seconds=edge - less)).astimezone(zone) for less in (1, 0))
            assert before.date() < at.date()
    for span in spans:
        assert any(part.start <= span.start and span.end <= part.end for part in parts)


@given(ZONES, st.integers(10**9, 2 * 10**9), st.integers(1, 10**8))
def test_months_follow_one_another_and_cover_the_time(zone, start, length):
    windows = month_windows(zone, start, start + length)
    assert windows[0][0].timestamp() <= start
    assert windows[-1][1].timestamp() >= start + length
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    assert len({named_month(zone, begin) for begin, _ in windows}) == len(windows)


def test_a_month_of_berlin_begins_an_hour_before_that_of_utc():
    at = int(datetime(2026, 10, 31, 23, 30, tzinfo=UTC).timestamp())
    ((start, end),) = month_windows(ZoneInfo("Europe/Berlin"), at, at + 1)
    assert (start, end) == (datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert named_month(ZoneInfo("Europe/Berlin"), start) == "2026-11"
