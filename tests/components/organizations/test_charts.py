"""Figures of the Organization Stats page: each credit is drawn once, names are text, clicks know what they mean."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.service import ActiveUsers
from billing_core.types import Credits
from billing_core.usage_events.model import BreakdownRow
from billing_core.usage_events.ranking import Ranking
from components.organizations.chart_panel import limited_to, tree_rows, trend_rows, user_query, user_rows
from components.organizations.charts import (
    active_users_figure,
    daily_lines,
    every_day,
    moving_average,
    organization_tree,
    trend_bars,
    trend_of,
    user_name,
)
from components.organizations.page import RANKS, events_query
from components.usage_events.charts import top
from tests.organizations.literal import organization, statistics

NAMES = {"org_a": "Acme <b>"}
MONTH = {"period": "Last 30 days"}


def held(total: str) -> Credits:
    amount = Decimal(total)
    return Credits(ai_tokens=amount, compute=Decimal(0), storage=Decimal(0), total=amount)


SOME = (
    organization("org_a", "6", daily=["1", "5"]),
    organization(None, "4", daily=["4", "0"]),
    organization("org_b", "3.000001", daily=["3", "0.000001"]),
    organization("org_c", "1", daily=["0", "1"]),
)


# ── trend ────────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_organizations_are_stacked_and_all_others_are_the_exact_rest():
    trend = trend_of(SOME, "2026-11-01", shown=2)
    assert trend.days == ("2026-11-01", "2026-11-02")
    assert [(line.organization_id, line.is_others) for line in trend.lines] == [
        ("org_a", False),
        (None, False),
        (None, True),
    ]
    assert trend.lines[2].daily == (Decimal(3), Decimal("1.000001"))
    assert trend_rows(trend, NAMES) == {
        "Day": ["2026-11-01", "2026-11-02"],
        "Acme <b>": ["1.00", "5.00"],
        "No organization": ["4.00", "0"],
        "all others": ["3.00", "1.00"],
        "Total credits": ["8.00", "6.00"],
    }


AMOUNTS = st.decimals(0, 1000, places=6)


@given(st.integers(1, 5).flatmap(lambda days: st.lists(st.lists(AMOUNTS, min_size=days, max_size=days), max_size=12)))
def test_no_credit_is_lost_however_many_organizations_there_are(organizations):
    some = [
        organization(f"o{n}", str(sum(daily)), daily=list(map(str, daily))) for n, daily in enumerate(organizations)
    ]
    trend = trend_of(some, "2026-11-01", shown=3)
    assert sum(sum(line.daily) for line in trend.lines) == sum(sum(daily) for daily in organizations)
    assert len(trend.lines) <= 4


def test_a_bar_knows_its_organization_and_that_of_all_others_leads_nowhere():
    figure = trend_bars(trend_of(SOME, "2026-11-01", shown=2), NAMES, "Europe/Berlin", "light")
    assert [bar.customdata[0][0] for bar in figure.data] == [0, 1, "others"]
    assert [bar.name for bar in figure.data] == ["Acme &lt;b&gt;", "No organization", "all others"]
    assert figure.data[1].customdata[0] == [1, "2026-11-01", "4.00", "No organization"]
    assert figure.layout.xaxis.title.text == "Day (Europe/Berlin)"
    assert len({bar.marker.color for bar in figure.data}) == 3


def test_compared_lines_differ_in_colour_and_in_dashes():
    for theme in ("light", "dark"):
        lines = daily_lines(SOME, "2026-11-01", NAMES, "UTC", theme).data
        assert len({line.line.color for line in lines}) == len({line.line.dash for line in lines}) == len(SOME)
        assert list(lines[0].y) == [1.0, 5.0]


# ── tree ─────────────────────────────────────────────────────────────────────────────────────────

SLICES = (
    BreakdownRow(("org_a", "flow-1", "Support", "gpt-5"), 2, held("60")),
    BreakdownRow(("org_a", "flow-1", "Support", "o4"), 1, held("20")),
    BreakdownRow(("org_a", "flow-2", None, "o4"), 1, held("9")),
    BreakdownRow((None, "flow-1", "Support", ""), 1, held("1")),
)


def test_models_lie_in_their_chatflow_and_chatflows_in_their_organization():
    tree = organization_tree(SLICES, BreakdownRow((), 5, held("10")), NAMES, "light").data[0]
    held_credits = [one[0] for one in tree.customdata]
    named = dict(zip(tree.ids, zip(tree.labels, tree.parents, tree.values, held_credits, strict=True), strict=True))
    paths = []
    for identity in tree.ids:
        path, at = [], identity
        while at:
            path.insert(0, named[at][0])
            at = named[at][1]
        paths.append((" / ".join(path[1:]), *named[identity][2:]))
    assert paths == [
        ("", 0, ""),
        ("Acme &lt;b&gt;", 0, "89.00"),
        ("Acme &lt;b&gt; / Support", 0, "80.00"),
        ("Acme &lt;b&gt; / Support / gpt-5", 60, "60.00"),
        ("Acme &lt;b&gt; / Support / o4", 20, "20.00"),
        ("Acme &lt;b&gt; / flow-2", 0, "9.00"),
        ("Acme &lt;b&gt; / flow-2 / o4", 9, "9.00"),
        ("No organization", 0, "1.00"),
        ("No organization / Support", 0, "1.00"),
        ("No organization / Support / unknown", 1, "1.00"),
        ("all others", 10, "10.00"),
    ]
    assert sum(tree.values) == 100
    assert tree.customdata[1][1] == "89 %"


def test_the_table_of_the_tree_has_a_row_per_area():
    shown = tree_rows(Ranking(SLICES, BreakdownRow((), 5, held("10"))), NAMES)
    assert shown["Organization"] == ["Acme <b>"] * 3 + ["No organization", "all others"]
    assert shown["Chatflow"] == ["Support", "Support", "flow-2", "Support", ""]
    assert shown["Model"] == ["gpt-5", "o4", "o4", "unknown", ""]
    assert shown["Total credits"] == ["60.00", "20.00", "9.00", "1.00", "10.00"]


# ── users ────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_user_id_under_two_organizations_is_two_users():
    slices = (
        BreakdownRow(("org_a", "ann"), 3, held("5")),
        BreakdownRow((None, "ann"), 1, held("2")),
        BreakdownRow(("x", None), 1, held("1")),
    )
    called = [user_name(one, NAMES) for one in slices]
    assert called == ["ann · Acme <b>", "ann · No organization", "unknown · x"]
    bars = top(Ranking(slices, None), "light", called)
    assert bars.layout.yaxis.ticktext[0] == "ann · Acme &lt;b&gt;"
    assert [data[4] for data in bars.data[0].customdata] == [0, 1, 2]
    shown = user_rows(Ranking(slices, None), NAMES)
    assert shown["User"] == ["ann", "ann", "unknown"]
    assert shown["Organization"] == ["Acme <b>", "No organization", "x"]


def test_a_user_leads_to_the_events_of_that_user_in_that_organization():
    assert user_query({**MONTH, "organization": ("org_a", "x")}, "x", "ann") == {
        **MONTH,
        "organization": "x",
        "user": "ann",
    }
    assert user_query(MONTH, None, "ann") == {**MONTH, "user": "ann", "without": ["organization"]}
    assert user_query(MONTH, "x", None) == {**MONTH, "organization": "x", "without": ["user"]}


def test_a_bar_of_an_organization_leads_to_its_events_with_that_value():
    users, chatflows, models = RANKS
    mine = {**MONTH, "organization": "org_a"}
    assert events_query(mine, users, "ann") == {**mine, "user": "ann"}
    assert events_query(mine, models, "gpt-5 + o4") is None
    assert events_query(mine, models, "gpt-5") == {**mine, "model": "gpt-5"}
    assert events_query(mine, users, None) == {**mine, "without": ["user"]}
    nobody = {**MONTH, "without": "organization"}
    assert events_query(nobody, chatflows, None) == {**MONTH, "without": ["organization", "chatflow"]}


def test_days_on_which_nobody_was_active_are_zero():
    found = [ActiveUsers(date(2026, 11, 1), 3, 3), ActiveUsers(date(2026, 11, 4), 2, 0)]
    assert [one.active for one in every_day(found)] == [3, 0, 0, 2]
    assert every_day([]) == []


def test_the_average_of_seven_days_begins_on_the_seventh():
    assert moving_average([7] * 6) == [None] * 6
    assert moving_average([1, 2, 3, 4, 5, 6, 7, 14]) == [None] * 6 + [Decimal(4), Decimal(41) / 7]


def test_active_users_are_drawn_with_new_ones_and_the_average():
    found = [ActiveUsers(date(2026, 11, n), n, 1) for n in range(1, 9)]
    active, new, average = active_users_figure(found, "UTC", "dark").data
    assert list(active.y) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(new.y) == {1}
    assert list(average.y) == [None] * 6 + [4.0, 5.0]
    assert average.customdata[7] == ["2026-11-08", "5"]


# ── the choice of organizations ──────────────────────────────────────────────────────────────────


def test_charts_of_organizations_that_are_not_there_are_charts_of_nothing():
    whole = statistics(*SOME)
    assert limited_to(whole, [])[1] == []
    assert len(limited_to(whole, [])[0]) == 4
    assert limited_to(whole, ["org_b", "foreign"])[1] == ["org_b"]
    assert limited_to(whole, ["foreign"]) == ([], [])
