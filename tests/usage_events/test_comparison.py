"""Header figures beside those of what they are compared with: the same sums as that window has by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing_core.errors import BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.values.decimals import exact_sum
from tests.factories import EVERYONE, service_over, usage_row

START = datetime(2026, 10, 1, tzinfo=UTC)
OCTOBER = {"from": "2026-10-15", "to": "2026-11-01"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    rows = [
        usage_row(id=f"t{n}", timestamp=START + timedelta(hours=13 * n), organization_id=f"org_{n % 3}")
        for n in range(60)
    ]
    made = service_over(tmp_path_factory.mktemp("compared") / "l.duckdb", rows, BILLING_TIMEZONE="Europe/Berlin")
    yield made
    made.close()


def summary(service, compare="previous", **window):
    return service.summary(GetUsageEventsParams.parse(window or OCTOBER), EVERYONE, compare)


@pytest.mark.parametrize("compare", ["previous", "2026-10-01..2026-10-18", "2026-09-01..2026-10-01"])
def test_a_window_is_compared_with_the_sums_that_the_other_has_by_itself(service, compare):
    found = summary(service, compare)
    start, end = found.previous_window
    alone = summary(service, None, **{"from": start.isoformat(), "to": end.isoformat()})
    assert found.previous == alone.totals
    assert [day.totals for day in found.previous_days] == [day.totals for day in alone.days]
    stats = service.organizations.statistics(GetUsageEventsParams.parse(OCTOBER), EVERYONE, compare)
    assert stats.previous_total.credits == alone.totals.totals.credits


def test_days_are_compared_in_their_order_across_a_change_of_clocks(service):
    found = summary(service, "2026-10-01..2026-10-18")
    alone = summary(service, None, **{"from": "2026-10-01", "to": "2026-10-18"})
    assert [day.day - timedelta(days=14) for day in found.previous_days] == [day.day for day in alone.days]


def test_days_beyond_the_last_of_the_window_are_in_the_sum_and_not_among_its_days(service):
    found = summary(service, "2026-10-01..2026-10-20")
    assert max(day.day for day in found.previous_days).isoformat() <= "2026-10-31"
    assert exact_sum(day.totals.credits.total for day in found.previous_days) < found.previous.totals.credits.total


def test_what_has_no_first_day_is_compared_in_sum_only(service):
    found = summary(service, "2026-10-01..2026-10-18", to="2026-11-01")
    assert (found.previous.events > 0, found.previous_days) == (True, ())


def test_nothing_is_compared_with_nothing(service):
    for found in (summary(service, None), summary(service, to="2026-11-01")):
        assert (found.previous, found.previous_window, found.previous_days) == (None, None, ())


def test_a_window_that_cannot_be_read_is_refused(service):
    with pytest.raises(BadParameter, match=r"FROM\.\.TO"):
        summary(service, "2026-10-18..2026-10-01")
