from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from billing_core.sandbox.data.dataset import SandboxDataset


@pytest.mark.parametrize(
    ("events", "days", "now"),
    [
        (900, 30, datetime(2026, 3, 10, 15, 30, tzinfo=UTC)),
        (900, 30, datetime(2026, 3, 10, tzinfo=UTC)),
        (900, 30, datetime(2026, 3, 8, 23, 59, 59, 999000, tzinfo=UTC)),
        (500, 1, datetime(2026, 3, 9, 0, 0, 10, tzinfo=UTC)),
        (37, 365, datetime(2027, 8, 1, 12, tzinfo=UTC)),
        (1, 30, datetime(2026, 3, 10, 3, tzinfo=UTC)),
    ],
)
def test_exactly_as_many_traces_as_asked_start_within_the_last_days(events, days, now):
    truth = SandboxDataset(3, events, days, now=now).truth()

    assert len(truth) == events
    assert all(now - timedelta(days=days) <= trace.timestamp < now for trace in truth.values())


def test_two_builds_serve_the_same_bytes_and_another_seed_serves_others(now):
    def text(seed):
        return msgspec.json.encode(SandboxDataset(seed, 50, now=now).store().rows)

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_tomorrow_tells_the_same_about_the_past(now):
    def rows(moment):
        dataset = SandboxDataset(7, 600, now=moment)
        return {msgspec.json.encode(row.shown) for row in dataset.store().rows}, dataset.truth()

    (today, truth_today), (tomorrow, truth_tomorrow) = rows(now), rows(now + timedelta(days=1))

    settled = now - timedelta(days=28)  # what both windows hold, but for the oldest hours, which are cut to size
    known = {id_: trace for id_, trace in truth_today.items() if trace.timestamp >= settled}
    assert len(known) > 500
    assert known.items() <= truth_tomorrow.items()
    assert {text for text in today if any(id_.encode() in text for id_ in list(known)[:40])} <= tomorrow
    assert all(
        trace.timestamp >= now for id_, trace in truth_tomorrow.items() - known.items() if id_ not in truth_today
    )


def test_weekends_are_quieter_and_organizations_differ_widely_in_size(now):
    truth = SandboxDataset(7, 4000, 28, now=now).truth().values()

    days = Counter(trace.timestamp.date() for trace in truth)
    weekday = [n for day, n in days.items() if day.weekday() < 5]
    weekend = [n for day, n in days.items() if day.weekday() >= 5]
    assert max(weekend) < sum(weekday) / len(weekday) * 0.7
    sizes = sorted(Counter(trace.organization_id for trace in truth if trace.organization_id).values())
    assert len(sizes) == 12
    assert sizes[-1] > 8 * sizes[0]


@pytest.mark.parametrize(("name", "arguments"), [("events", {"events": 0}), ("days", {"days": 0})])
def test_a_dataset_needs_positive_numbers(name, arguments):
    with pytest.raises(ValueError, match=f"{name}: 0 is not accepted"):
        SandboxDataset(**arguments)
