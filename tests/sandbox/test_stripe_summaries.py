from __future__ import annotations

import time

import pytest
import stripe

from tests.sandbox.stripe_world import ACME, GLOBEX, METER, World, unix

DAY = {"value_grouping_window": "day"}
HOUR = {"value_grouping_window": "hour"}


@pytest.fixture
def world():
    return World()


def values(rows):
    return [row.aggregated_value for row in rows]


def test_without_grouping_there_is_one_row(world):
    for number, moment in enumerate(["2026-11-01T00:00:00", "2026-11-03T10:00:30", "2026-11-19T23:59:59"]):
        world.send(str(number), "2.5", timestamp=unix(moment))
    (row,) = world.summaries("2026-11-01", "2026-11-20")
    assert (row.aggregated_value, row.start_time, row.end_time) == (7.5, unix("2026-11-01"), unix("2026-11-20"))
    assert (row.object, row.meter, row.livemode) == ("billing.meter_event_summary", METER, False)


def test_the_start_belongs_to_a_window_and_its_end_does_not(world):
    for identifier, moment in (("start", "2026-11-01T00:00:00"), ("end", "2026-11-02T00:00:00")):
        world.send(identifier, timestamp=unix(moment))
    assert values(world.summaries("2026-11-01", "2026-11-02")) == [5]
    assert values(world.summaries("2026-11-02", "2026-11-03")) == [5]


def test_days_are_utc_days_and_empty_ones_are_left_out(world):
    for number, moment in enumerate(["2026-11-01T23:59:59", "2026-11-02T00:00:00", "2026-11-05T12:00:00"]):
        world.send(str(number), str(number + 1), timestamp=unix(moment))
    rows = world.summaries("2026-11-01", "2026-11-20", **DAY)
    assert [(row.start_time, row.aggregated_value) for row in rows] == [
        (unix("2026-11-01"), 1),
        (unix("2026-11-02"), 2),
        (unix("2026-11-05"), 3),
    ]
    assert world.summaries("2026-11-06", "2026-11-07") == []


def test_hours_are_whole_hours(world):
    for number, moment in enumerate(["2026-11-01T10:00:00", "2026-11-01T10:59:59", "2026-11-01T11:00:00"]):
        world.send(str(number), timestamp=unix(moment))
    rows = world.summaries("2026-11-01T10:00", "2026-11-01T12:00", **HOUR)
    assert [(row.start_time, row.end_time, row.aggregated_value) for row in rows] == [
        (unix("2026-11-01T10:00"), unix("2026-11-01T11:00"), 10),
        (unix("2026-11-01T11:00"), unix("2026-11-01T12:00"), 5),
    ]


@pytest.mark.parametrize(
    ("start", "end", "more", "text"),
    [
        ("2026-11-01T00:00:01", "2026-11-02", {}, "start_time: must be aligned with minute"),
        ("2026-11-01", "2026-11-02T00:00:59", {}, "end_time: must be aligned with minute"),
        ("2026-11-01T00:01", "2026-11-02", HOUR, "start_time: must be aligned with hour"),
        ("2026-11-01", "2026-11-02T01:00", DAY, "end_time: must be aligned with UTC day"),
        ("2026-11-02", "2026-11-01", {}, "must be after start_time"),
        ("2026-11-01", "2026-11-02", {"value_grouping_window": "week"}, "one of day or hour"),
        ("2026-11-01", "2026-11-02", {"customer": "cus_gone"}, "No such customer: 'cus_gone'"),
        ("2026-11-01", "2026-11-02", {"limit": 101}, "between 1 and 100"),
    ],
)
def test_a_window_off_its_boundaries_is_refused(world, start, end, more, text):
    with pytest.raises(stripe.InvalidRequestError, match=text):
        world.summaries(start, end, **more)


@pytest.mark.parametrize("name", ["customer", "start_time", "end_time"])
def test_customer_and_both_times_are_required(world, name):
    window = {"customer": ACME, "start_time": unix("2026-11-01"), "end_time": unix("2026-11-02")}
    del window[name]
    answer = world.http("GET", f"/v1/billing/meters/{METER}/event_summaries", params=window)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_a_page_has_ten_rows_unless_asked_for_more(world):
    for day in range(1, 20):
        world.send(str(day), timestamp=unix(f"2026-11-{day:02d}T06:00"))
    window = {"customer": ACME, "start_time": unix("2026-11-01"), "end_time": unix("2026-11-20"), **DAY}
    listing = world.stripe.v1.billing.meters.event_summaries.list
    page = listing(METER, window)
    assert (len(page.data), page.has_more) == (10, True)
    assert [row.start_time for row in page.data] == [unix(f"2026-11-{day:02d}") for day in range(19, 9, -1)]
    assert len(list(page.auto_paging_iter())) == 19
    assert len(listing(METER, {**window, "limit": 100}).data) == 19
    backwards = listing(METER, {**window, "ending_before": page.data[9].id, "limit": 4})
    assert [row.id for row in backwards.data] == [row.id for row in page.data[5:9]]


def test_an_unknown_meter_is_a_404(world):
    window = {"customer": ACME, "start_time": 0, "end_time": 60}
    with pytest.raises(stripe.InvalidRequestError) as missing:
        world.stripe.v1.billing.meters.event_summaries.list("mtr_gone", window)
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


def test_an_event_shows_up_after_the_lag(world):
    world.switch(summary_lag_seconds=90)
    world.send("one")
    assert world.used() == 0
    world.wait(seconds=89)
    assert world.used() == 0
    world.wait(seconds=1)
    assert world.used() == 5
    assert world.control("GET", "/sums") == {ACME: "5"}


def test_customers_do_not_mix(world):
    world.send("one", "5")
    world.send("two", "7", GLOBEX)
    assert (world.used(ACME), world.used(GLOBEX)) == (5, 7)


def test_decimals_stand_exactly_in_the_body(world):
    world.send("one", "0.1")
    world.send("two", "0.2")
    window = {"customer": ACME, "start_time": unix("2026-11-01"), "end_time": unix("2026-12-01")}
    answer = world.http("GET", f"/v1/billing/meters/{METER}/event_summaries", params=window)
    assert '"aggregated_value":0.3,' in answer.text


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"default_aggregation": {"formula": "count"}}, 3),
        ({"default_aggregation": {"formula": "last"}}, 4),
        ({"event_time_window": "hour"}, 2 + 4),
        ({"event_time_window": "day"}, 2),
    ],
)
def test_other_meters_aggregate_in_their_own_way(world, changes, value):
    world.switch(meters=[changes])
    for identifier, units, moment in (("a", "1", "10:10"), ("b", "4", "11:00"), ("c", "2", "10:00")):
        world.wait(seconds=1)
        world.send(identifier, units, timestamp=unix(f"2026-11-20T{moment}"))
    assert values(world.summaries("2026-11-20", "2026-11-21")) == [value]


def test_meters_are_what_the_switches_say(world):
    world.switch(meters=[{}, {"id": "mtr_old", "status": "inactive", "livemode": True}])
    meters = world.stripe.v1.billing.meters
    assert [meter.id for meter in meters.list().data] == [METER, "mtr_old"]
    assert [meter.id for meter in meters.list({"status": "inactive"}).data] == ["mtr_old"]
    assert meters.retrieve("mtr_old").livemode is True
    world.switch(meters=[{"value_settings": {"event_payload_key": "credits"}}])
    (meter,) = meters.list().data
    assert meter.value_settings.event_payload_key == "credits"
    assert meter.customer_mapping.event_payload_key == "stripe_customer_id"


def test_a_month_of_a_hundred_thousand_events_is_summed_quickly(world):
    first = unix("2026-11-01")
    history = [{"customer": ACME, "value": "3", "timestamp": first + second} for second in range(0, 1_600_000, 16)]
    assert len(world.control("POST", "/events", json=history)) == 100_000
    begin = time.process_time()
    rows = world.summaries("2026-11-01", "2026-11-20", **HOUR, limit=100)
    assert time.process_time() - begin < 5  # 0.3 s of computing: five pages, each summed anew
    assert sum(values(rows)) == 300_000
