"""An answer of Explore as people see it: names, figures with units, series, and the file."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.usage_events.explore_model import (
    Dimension,
    Exploration,
    ExploreQuestion,
    ExploreRow,
    Metric,
    PeriodLength,
)
from components.shared.periods import month_before
from components.usage_events import texts
from components.usage_events.explore_chart import explore_chart
from components.usage_events.explore_panel import BARS, CODEC, EXPLORE, ExploreView, metrics_for, total_text
from components.usage_events.explore_rows import csv_bytes, series, table_rows
from tests.factories import EVERYONE
from tests.lived_in import ACME

BERLIN = ZoneInfo("Europe/Berlin")


def answer(*rows, by=(Dimension.ORGANIZATION,), metric=Metric.CREDITS, grain=None, compare=None, total="30"):
    asked = ExploreQuestion(by, metric, grain, compare)
    return Exploration(asked, "UTC", None, None, None, None, tuple(rows), ExploreRow(value=Decimal(total)), 1)


def row(*values, value="10", **more):
    return ExploreRow(values, value=None if value is None else Decimal(value), **more)


def test_a_group_without_a_value_the_rest_and_the_total_have_names():
    found = answer(row("org_a"), row(None, value="7"), row(None, value="13", others=4))
    assert table_rows(found) == {
        "Organization": ["org_a", "no organization", "4 others", "All"],
        "Credits": ["10.00", "7.00", "13.00", "30.00"],
    }


def test_an_unknown_cost_is_unknown_and_not_drawn():
    found = answer(
        row("gpt-5", value="1"), row(None, value=None), by=(Dimension.MODEL,), metric=Metric.COST_USD, total="1"
    )
    shown = table_rows(found)
    assert shown["Model"] == ["gpt-5", "no model", "All"]
    assert shown["Langfuse cost"] == ["$1.00", "unknown", "$1.00"]
    assert [list(one.rows) for one in series(found)] == [["gpt-5"]]


def test_a_comparison_stands_beside_each_figure():
    shown = table_rows(answer(row("org_a", value="15", previous=Decimal(10)), row("new"), compare="previous"))
    assert shown["Before"][:2] == ["10.00", "unknown"]
    assert shown["Change"][0] == "+50 %"


def test_over_periods_each_group_is_a_series_and_without_periods_the_second_dimension_divides_the_bars():
    over_days = answer(
        row("a", period=date(2026, 10, 1)),
        row("a", period=date(2026, 10, 2)),
        row("b", period=date(2026, 10, 1)),
        grain=PeriodLength.DAY,
    )
    assert [(one.name, one.rows) for one in series(over_days)] == [
        ("a", {"2026-10-01": 0, "2026-10-02": 1}),
        ("b", {"2026-10-01": 2}),
    ]
    divided = answer(
        row("a", "cache_read"), row("a", "input"), row("b", "input"), by=(Dimension.ORGANIZATION, Dimension.TOKEN_CLASS)
    )
    assert [(one.name, one.rows) for one in series(divided)] == [("cache read", {"a": 0}), ("input", {"a": 1, "b": 2})]


amounts = st.none() | st.decimals("-1000000", "1000000", places=6)
grains = st.sampled_from([None, *PeriodLength])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), amounts), max_size=6, unique_by=lambda one: one[0]), grains
)
def test_every_known_figure_is_drawn_once_at_its_height_and_a_click_leads_to_its_row(rows, grain):
    period = None if grain is None else date(2026, 10, 1)
    found = answer(*(row(name, value=value, period=period) for name, value in rows), grain=grain)
    figure = explore_chart(found, "light", lines=False)
    drawn = {}
    for trace in figure.data:
        heights = trace.x if grain is None else trace.y
        drawn |= {data[0]: height for data, height in zip(trace.customdata, heights, strict=True)}
    assert drawn == {number: float(value) for number, (_, value) in enumerate(rows) if value is not None}


@given(st.lists(amounts, max_size=5))
def test_the_file_has_every_digit(values):
    found = answer(*(row(f"org_{n}", value=value) for n, value in enumerate(values)))
    lines = list(csv.DictReader(io.StringIO(csv_bytes(found).decode())))
    assert [None if line["credits"] == "" else Decimal(line["credits"]) for line in lines] == values


def test_the_file_names_periods_and_what_is_compared():
    found = answer(
        row("org_a", period=date(2026, 10, 1), previous=Decimal("12.5")),
        row(None, others=3),
        grain=PeriodLength.WEEK,
        compare="previous",
    )
    assert csv_bytes(found).decode().splitlines() == [
        "organization,week,others,credits,previous,change",
        "org_a,2026-10-01,,10,12.5,-2.5",
        ",,3,10,,",
    ]


def test_whether_groups_add_up_is_said():
    assert total_text(answer(row("a"))).endswith("The groups below add up to it.")
    users = total_text(answer(row("a"), metric=Metric.USERS))
    assert users.endswith(texts.NOT_ADDITIVE[Metric.USERS])


def test_only_figures_that_can_be_told_for_the_dimensions_are_offered():
    assert metrics_for(ExploreView(), EVERYONE) == list(Metric)
    by_class = ExploreView(then=Dimension.TOKEN_CLASS)
    assert metrics_for(by_class, EVERYONE) == [Metric.CREDITS, Metric.AMOUNT_USD, Metric.TOKENS]
    by_both = ExploreView(by=Dimension.CREDIT_TYPE, then=Dimension.TOKEN_CLASS)
    assert metrics_for(by_both, EVERYONE) == [Metric.CREDITS, Metric.AMOUNT_USD]


def test_costs_are_not_offered_to_who_is_limited_to_organizations():
    assert set(Metric) - set(metrics_for(ExploreView(), ACME)) == {Metric.COST_USD, Metric.MARGIN_USD}


views = st.builds(
    ExploreView,
    view=st.sampled_from(["events", EXPLORE]),
    by=st.sampled_from(Dimension),
    then=st.sampled_from(["", *Dimension]),
    metric=st.sampled_from(Metric),
    grain=st.sampled_from(["", *PeriodLength]),
    top=st.integers(1, 1000),
    shape=st.sampled_from([BARS, "lines", "table"]),
)


@given(views)
def test_an_address_shows_the_same_again(view):
    assert CODEC.from_text(CODEC.to_text(view)) == view


@pytest.mark.parametrize(
    ("moment", "earlier"),
    [
        (datetime(2026, 3, 31, 12, tzinfo=UTC), datetime(2026, 2, 28, 12, tzinfo=UTC)),
        (datetime(2028, 3, 30, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (
            datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(2026, 11, 30, 23, 59, 59, 999999, tzinfo=UTC),
        ),
    ],
)
def test_a_month_earlier_is_the_same_day_or_the_last_of_a_shorter_month(moment, earlier):
    assert month_before(moment, ZoneInfo("UTC")) == earlier
