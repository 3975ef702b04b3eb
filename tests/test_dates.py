"""Usage around awkward moments, in the reporting timezones people have: no day and no month loses or repeats any."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.types import GetUsageEventsParams
from components.shared.periods import Period, days_of, window_of
from tests.factories import EVERYONE, service_over, usage_row
from tests.fixed_clock import AWKWARD
from tests.month_close.world import FINANCE, MonthWorld

ZONES = ("UTC", "Europe/Berlin", "America/New_York")
STEP = timedelta(minutes=30)

awkward = pytest.mark.parametrize("now", AWKWARD.values(), ids=AWKWARD)
everywhere = pytest.mark.parametrize("zone", ZONES)


def around(now, steps=110):
    """An event every half hour for two days up to `now`, and those a microsecond beside it."""
    moments = [now - n * STEP for n in range(steps)]
    return [*moments, now - timedelta(microseconds=1), now + timedelta(microseconds=1)]


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A service per moment and timezone whose ledger holds the usage around it."""
    made = {}

    def service(now, zone):
        if (now, zone) not in made:
            path = tmp_path_factory.mktemp("dates") / "billing.duckdb"
            rows = [usage_row(id=f"t{n}", timestamp=at) for n, at in enumerate(around(now))]
            made[now, zone] = service_over(path, rows, BILLING_TIMEZONE=zone)
            made[now, zone]._clock = lambda: now
        return made[now, zone]

    yield service
    for one in made.values():
        one.close()


@awkward
@everywhere
def test_a_named_period_is_made_of_whole_days_of_the_timezone_and_the_present_is_in_it(now, zone):
    here = ZoneInfo(zone)
    today = now.astimezone(here).date()
    windows = {
        period: window_of(days_of(period, today), here)
        for period in Period
        if period not in {Period.ALL_TIME, Period.CUSTOM}
    }
    for period, (start, end) in windows.items():
        assert (start.hour, start.minute, end.hour, end.minute) == (0, 0, 0, 0)
        if period not in {Period.YESTERDAY, Period.LAST_MONTH}:
            assert start <= now < end
    assert windows[Period.YESTERDAY][1] == windows[Period.TODAY][0]
    assert windows[Period.LAST_MONTH][1] == windows[Period.THIS_MONTH][0]
    start, end = windows[Period.TODAY]
    assert end.astimezone(UTC) - start.astimezone(UTC) in {timedelta(hours=hours) for hours in (23, 24, 25)}


@awkward
@everywhere
def test_every_event_is_on_the_day_the_timezone_says_and_the_days_add_up(books, now, zone):
    service, here = books(now, zone), ZoneInfo(zone)
    expected = {}
    for at in around(now):
        day = at.astimezone(here).date()
        expected[day] = expected.get(day, 0) + 1
    first, last = min(expected), max(expected)
    start = datetime.combine(first, datetime.min.time(), here)
    end = datetime.combine(last + timedelta(days=1), datetime.min.time(), here)
    found = service.summary(GetUsageEventsParams(**{"from": start, "to": end}), EVERYONE)
    assert {day.day: day.events for day in found.days} == expected
    assert found.ties_out
    assert found.totals.events == sum(expected.values())


@awkward
@everywhere
def test_two_windows_that_touch_share_no_event_and_lose_none(books, now, zone):
    service = books(now, zone)

    def credits_of(start, end):
        params = GetUsageEventsParams(**{"from": start, "to": end})
        found = service.get_usage_events(params, EVERYONE)
        return found.pagination.total_items, found.totals.credits.total

    early, late = now - 110 * STEP, now + STEP
    parts = [credits_of(early, now), credits_of(now, late)]
    assert tuple(map(sum, zip(*parts, strict=True))) == credits_of(early, late)
    assert [events for events, _ in parts] == [110, 2]


@awkward
@everywhere
def test_the_month_that_is_over_takes_every_event_up_to_its_last_microsecond(tmp_path, now, zone):
    here, tick = ZoneInfo(zone), timedelta(microseconds=1)
    edge = now.astimezone(here).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = (edge - timedelta(days=1)).replace(day=1)
    inside = [before, before + timedelta(days=9, hours=2, minutes=30), edge.astimezone(UTC) - tick]
    outside = [before.astimezone(UTC) - tick, edge]
    rows = [usage_row(id=f"in{n}", timestamp=at.astimezone(UTC)) for n, at in enumerate(inside)]
    rows += [usage_row(id=f"out{n}", timestamp=at.astimezone(UTC)) for n, at in enumerate(outside)]
    world = MonthWorld(tmp_path / "billing.duckdb", rows, BILLING_TIMEZONE=zone)
    world.now = max(now, edge.astimezone(UTC) + timedelta(days=1))
    world.books.made_at = world.now
    try:
        period = f"{before:%Y-%m}"
        closed = world.months.close(period, FINANCE)
        assert closed.manifest["totals"]["events"] == len(inside)
        assert Decimal(closed.manifest["totals"]["credits_total"]) == 150 * len(inside)
        assert world.verify(period) == []
    finally:
        world.service.close()
