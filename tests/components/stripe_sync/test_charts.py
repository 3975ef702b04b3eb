"""Figures of the Stripe Sync page: what they draw is what the tables say, and outside text stays text."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart, Reconciliation, waterfall
from billing_core.stripe_sync.pipeline import Amounts, Pipeline
from billing_core.types import PipelineStage
from billing_core.values.usage_frame import Window
from components.shared.colours import STAGE_MARKS
from components.stripe_sync.charts import heat_map, stage_bar, used_bar, waterfall_figure
from components.stripe_sync.marks import CAUSE_WORDS, STAGE_SHADES, cause_words
from components.stripe_sync.rows import Measure, heat_grid

MONDAY = date(2026, 11, 16)
START = datetime(2026, 11, 16, tzinfo=UTC)
LOST = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, Decimal(5))
LATE = DifferencePart(ComparisonStep.LEDGER_SENT, Cause.LATE, Decimal("2.5"))


def row(customer, books, *parts, day=MONDAY) -> CustomerDay:
    return CustomerDay(customer, day, *(None if value is None else Decimal(value) for value in books), parts)


def found(*rows: CustomerDay) -> Reconciliation:
    return Reconciliation(Window(START, START + timedelta(days=2)), START, rows)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_bar_holds_every_credit_once(theme):
    stages = dict.fromkeys(PipelineStage, Amounts()) | {
        PipelineStage.PENDING: Amounts(2, Decimal("10.5"), Decimal(1)),
        PipelineStage.HELD: Amounts(1, Decimal(4), Decimal(1)),
    }
    figure = stage_bar(Pipeline(stages, Amounts(), (), None), theme)
    assert [(part.name, part.x[0]) for part in figure.data] == [("pending", 10.5), ("held", 4.0)]
    assert figure.layout.xaxis.range == (0, 14.5)


def test_every_stage_has_a_mark_and_a_colour_and_every_cause_its_words():
    assert set(STAGE_MARKS) == set(STAGE_SHADES) == set(PipelineStage)
    assert set(CAUSE_WORDS) == set(Cause) | {"contradiction"}
    assert cause_words("late −").label == "Late (−)"


def test_the_map_marks_what_is_unexplained_and_what_is_unknown():
    rows = [
        row("cus_a", ("10", "10", "10", "5"), LOST),
        row("cus_b", ("3", "3", "3", None)),
        row("cus_c", ("1", "1", "1", "1"), day=MONDAY + timedelta(days=1)),
    ]
    heat, cells = heat_map(heat_grid(found(*rows), Measure.LANGFUSE_STRIPE), Measure.LANGFUSE_STRIPE, "light").data
    places = [tuple(place) for place in cells.customdata]
    marks = dict(zip(places, (mark for line in heat.text for mark in line), strict=True))
    assert marks["cus_a", "2026-11-16"] == "!"
    assert marks["cus_b", "2026-11-16"] == "?"
    assert marks["cus_c", "2026-11-17"] == ""
    shades = dict(zip(places, (shade for line in heat.z for shade in line), strict=True))
    assert shades["cus_a", "2026-11-16"] > 0
    assert shades["cus_b", "2026-11-16"] == 0
    assert shades["cus_a", "2026-11-17"] is None


def test_the_two_directions_of_a_difference_have_opposite_colours_around_nothing():
    rows = [row("cus_a", ("10", "10", "0", "0")), row("cus_b", ("0", "0", "0", "10"))]
    heat = heat_map(heat_grid(found(*rows), Measure.LANGFUSE_STRIPE), Measure.LANGFUSE_STRIPE, "dark").data[0]
    first, second = heat.z[0][0], heat.z[1][0]
    assert first == -second
    assert (heat.zmin, heat.zmid, heat.zmax) == (-abs(first), 0, abs(first))


def test_pointing_at_a_cell_tells_every_book():
    rows = [row("cus_a", ("10.000001", "10.000001", "10", "5"), LOST)]
    cells = heat_map(heat_grid(found(*rows), Measure.LANGFUSE_STRIPE), Measure.LANGFUSE_STRIPE, "light").data[1]
    assert cells.hovertext[0] == (
        "cus_a, 2026-11-16 (UTC)<br>Langfuse − Stripe: +5 credits<br>"
        "Langfuse 10 · ledger 10 · sent 10 · Stripe 5<br>unexplained 5"
    )
    assert cells.hovertext[1] == "cus_a, 2026-11-17 (UTC)<br>no activity"


def test_a_customer_id_from_outside_stays_text():
    rows = [row("<b>evil</b>", ("1", "1", "1", "1"))]
    figure = heat_map(heat_grid(found(*rows), Measure.LANGFUSE_STRIPE), Measure.LANGFUSE_STRIPE, "light")
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;evil&lt;/b&gt;",)
    assert "<b>evil" not in figure.data[1].hovertext[0]


def test_the_waterfall_walks_from_the_first_book_to_the_last():
    steps = waterfall(found(row("cus_a", ("12.5", "12.5", "10", "5"), LATE, LOST)))
    (bars,) = waterfall_figure(steps, "light").data
    assert bars.measure == ("absolute", "relative", "relative", "total")
    assert bars.x == (12.5, -2.5, -5.0, 5.0)
    assert sum(bars.x[:-1]) == bars.x[-1]
    assert [one[1] for one in bars.customdata] == ["12.5", "−2.5", "−5", "5"]


@pytest.mark.parametrize(
    ("used", "parts"), [(Decimal(30), [30, 70, 0]), (Decimal(100), [100, 0, 0]), (Decimal("130.5"), [100, 0, 30.5])]
)
def test_use_beyond_the_plan_is_a_part_of_its_own(used, parts):
    figure = used_bar(used, 100, "light")
    assert [bar.x[0] for bar in figure.data] == parts
    assert figure.layout.shapes[0].x0 == 100
