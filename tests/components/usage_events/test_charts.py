"""What the figures say: exact numbers in the hover text, names as they are, clicks that know what they stand for."""

from datetime import date
from decimal import Decimal

import pytest

from billing_core.types import Credits, Totals
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.ranking import Ranking
from billing_core.usage_events.totals import DayTotals, Sums
from components.shared.colours import CREDIT_PARTS
from components.usage_events import charts
from components.usage_events.chart_panel import TOPS, clickable, tie_out_text
from components.usage_events.credit_rows import credits_before, day_rows


def held(ai: str, compute: str = "0", storage: str = "0") -> Credits:
    parts = [Decimal(part) for part in (ai, compute, storage)]
    return Credits(ai_tokens=parts[0], compute=parts[1], storage=parts[2], total=sum(parts, Decimal(0)))


def day(number: int, whole: Credits) -> DayTotals:
    totals = Totals(
        credits=whole, amount_usd=Decimal(0), cost_usd=None, tokens_in=None, tokens_out=None, tokens_total=None
    )
    return DayTotals(totals=totals, events=1, unsynced_credits=Decimal(0), errors=0, day=date(2026, 11, number))


DAYS = [day(1, held("100", "50", "1")), day(2, held("0.000001"))]
SLICES = (
    BreakdownRow(("flow-1", "Support <b>"), 3, held("90")),
    BreakdownRow(("flow-2", None), 2, held("9")),
    BreakdownRow((None, None), 1, held("1")),
)


def test_days_are_stacked_by_type_and_a_click_carries_the_day():
    figure = charts.credits_per_day(DAYS, "Europe/Berlin", "light")
    assert [(bar.name, list(bar.y)) for bar in figure.data] == [
        ("AI tokens", [100.0, 0.000001]),
        ("Compute", [50.0, 0.0]),
        ("Storage", [1.0, 0.0]),
    ]
    assert figure.data[0].customdata[1] == ["2026-11-02", "<0.01"]
    assert figure.layout.xaxis.title.text == "Day (Europe/Berlin)"
    assert figure.layout.yaxis.title.text == "Credits"


def test_what_is_compared_with_is_a_line_over_days_and_a_mark_over_bars():
    figure = charts.credits_per_day(DAYS, "UTC", "light", earlier=[day(3, held("7"))])
    line = figure.data[-1]
    assert (line.name, list(line.x), list(line.y)) == ("Before", ["2026-11-03"], [7.0])
    marks = charts.top(Ranking(SLICES, None), "light", before=[Decimal(4), None, Decimal(0)]).data[-1]
    assert (list(marks.x), list(marks.y)) == ([4.0, 0.0], [0, 2])


def test_the_table_of_days_has_every_day_of_either_window():
    whole = Sums(DAYS[0].totals, 1, Decimal(0), 0)
    rows = day_rows(Summary(whole, (DAYS[0],), whole, True, (None, None), (day(1, held("75.5")), day(2, held("1")))))
    assert rows["Day"] == ["2026-11-01", "2026-11-02"]
    assert (rows["Before"], rows["Change"]) == (["75.50", "1.00"], ["+100 %", "−100 %"])
    assert (rows["Total credits"], rows["Events"]) == (["151.00", "0"], ["1", "0"])


def test_the_rows_of_a_ranking_are_compared_one_by_one_and_the_rest_with_the_rest():
    ranked = Ranking(SLICES[:2], BreakdownRow((), 5, held("50")))
    then = [BreakdownRow(("flow-2", None), 2, held("4")), BreakdownRow(("gone", None), 1, held("10"))]
    assert credits_before(then, ranked, Decimal(14)) == [0, 4, 10]


def test_a_type_has_the_same_colour_in_every_chart():
    for theme in ("light", "dark"):
        expected = [part.shade.on(theme) for part in CREDIT_PARTS]
        per_day = charts.credits_per_day(DAYS, "UTC", theme)
        top = charts.top(Ranking(SLICES, None), theme)
        assert [bar.marker.color for bar in per_day.data] == expected
        assert [bar.marker.color for bar in top.data] == expected


def test_a_bar_shows_its_name_literally_and_carries_its_id():
    bars = charts.top(Ranking(SLICES, None), "light")
    assert list(bars.layout.yaxis.ticktext) == ["Support &lt;b&gt;", "flow-2", "unknown"]
    assert [data[0] for data in bars.data[0].customdata] == ["flow-1", "flow-2", None]
    assert bars.data[0].customdata[0][1:] == ["90.00", "Support &lt;b&gt;", "3", 0]


def test_a_long_name_is_cut_beside_the_bar_and_whole_in_its_hover_text():
    name = "a very long name of a chatflow that nobody reads to its end"
    bars = charts.top(Ranking((BreakdownRow(("id", name), 1, held("1")),), None), "light")
    assert bars.layout.yaxis.ticktext[0] == "a very long name of a chatf…"
    assert bars.data[0].customdata[0][2] == name


def test_the_heat_map_has_a_row_per_weekday_and_leaves_hours_without_events_empty():
    heat = charts.hour_of_week({(0, 8): Decimal("5"), (6, 23): Decimal("2.5")}, "Europe/Berlin", "dark").data[0]
    assert list(heat.y) == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert (heat.z[0][8], heat.z[6][23], heat.z[3][3]) == (5.0, 2.5, None)
    assert (heat.zmin, heat.zmax) == (0, 5.0)


@pytest.mark.parametrize(
    ("top", "value", "may"),
    [("Models", "gpt-5", True), ("Models", "gpt-5 + o4", False), ("Users", "a + b", True), ("Users", None, False)],
)
def test_a_bar_of_several_models_or_of_the_unknown_sets_no_filter(top, value, may):
    assert clickable(TOPS[top], value) is may


def test_the_tie_out_mark_names_the_sum_or_what_does_not_agree():
    total = Decimal("8231255.81")
    assert tie_out_text(total, []) == "✓ charts, table and header agree: 8,231,255.81 credits"
    assert "8,231,255.81 credits: share by type, hour and weekday." in tie_out_text(
        total, ["share by type", "hour and weekday"]
    )
