"""What stands in the table of organizations, in its footer, in the tiles, beside each other and among the movers."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.figures import MEANINGS
from components.organizations.bridge import margin_line, terms
from components.organizations.compare import chosen_organizations, comparison_rows, daily_rows
from components.organizations.figures import FIRST, KINDS, MORE, kind_of, points, short_duration
from components.organizations.movers import move_text, top_movers
from components.organizations.overview import latency_text, period_text, tie_out_text, tiles_of
from components.organizations.query import Address
from components.organizations.table import COLUMNS, DEFAULT_COLUMNS, SORT_FIELDS, change_text, footer_text, thinned
from components.shared.comparison import Comparison
from components.shared.data_grid import page_of, toggled
from components.shared.formats import percent
from components.shared.periods import Period
from tests.organizations.literal import figures, organization, statistics

NAMES = {"org_a": "Acme"}


# ── words and figures ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (None, "unknown"),
        (Decimal(0), "0 %"),
        (Decimal(1), "100 %"),
        (Decimal("0.1234"), "12.3 %"),
        (Decimal("0.00001"), "under 0.1 %"),
        (Decimal("-0.00001"), "just below 0 %"),
        (Decimal("-2.5"), "−250 %"),
        (Decimal("13.37"), "1,337 %"),
    ],
)
def test_a_share_is_a_percentage_and_an_unknown_one_is_unknown(part, text):
    assert percent(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        ("0.35", "0.35 s"),
        ("59.9", "59.9 s"),
        ("60", "1.0 min"),
        ("324", "5.4 min"),
        ("5400", "1.5 h"),
    ],
)
def test_a_duration_in_a_tile_has_one_unit(seconds, text):
    assert short_duration(None if seconds is None else Decimal(seconds)) == text


def test_every_meaning_is_the_help_of_a_figure():
    explained = " ".join(kind.meaning for kind in KINDS)
    assert [name for name, meaning in MEANINGS.items() if meaning not in explained] == []


def test_every_figure_is_a_column_to_choose_and_to_sort_by():
    columns = {column.field for column in COLUMNS}
    assert {kind.field for kind in KINDS} < columns
    assert set(DEFAULT_COLUMNS) < columns
    assert columns - {"daily"} == set(SORT_FIELDS) - {"organization"}
    assert all(column.help for column in COLUMNS)


def test_unknown_figures_are_unknown_in_cells_and_tiles():
    nothing_known = figures("1", tokens_total=None, cost_usd=None)
    for field in ("tokens_total", "cost_usd", "margin_usd", "margin_share", "latency_seconds_p95", "error_share"):
        kind = kind_of(field)
        assert kind.value(nothing_known) is None
        assert (kind.cell(None), kind.tile(None)) == ("unknown", "unknown")
        assert "unknown" in kind.exact(None)


def test_a_tile_tells_the_exact_value_and_that_of_the_period_before():
    tiles = {tile.label: tile for tile in tiles_of(MORE, figures("1234567.5"), figures("1000000"))}
    assert len(tiles) == len(MORE)
    credits_tile = tiles["Credits"]
    assert (credits_tile.value, credits_tile.exact) == ("1.23M", "1,234,567.5 credits")
    assert (credits_tile.moved, credits_tile.before) == ("+23.5 %", "1,000,000 credits")


def test_a_tile_without_a_period_before_compares_with_nothing():
    assert {tile.moved for tile in tiles_of(FIRST, figures("1"), None)} == {None}
    assert {tile.moved for tile in tiles_of(FIRST, figures("1"), figures("0"))} == {"no earlier data"}


def test_the_tile_of_unsent_credits_links_to_exactly_the_events_it_counts():
    tiles = {
        tile.label: tile.link
        for tile in tiles_of((*FIRST, *MORE), figures("5", unsynced_credits=Decimal(3)), None, {"period": "Today"})
    }
    assert tiles["Not yet in Stripe"].query == {"period": "Today", "status": ["pending", "sending", "error"]}
    assert tiles["Failed"] is None


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        ("0.392", "0.38", "+1.2 pp"),
        ("0.38", "0.392", "−1.2 pp"),
        ("0.38", "0.38", "unchanged"),
        ("0.38", "0.3800001", "less than ±0.1 pp"),
        (None, "0.38", "unknown"),
        ("0.38", None, "unknown"),
    ],
)
def test_a_share_moves_in_percentage_points(now, before, text):
    sides = [None if one is None else Decimal(one) for one in (now, before)]
    assert points(*sides) == text
    assert kind_of("margin_share").moved(*sides) == kind_of("error_share").moved(*sides) == text


def test_an_average_above_the_95th_percentile_is_explained():
    stretched = figures("1", events=20, latency_sum=Decimal(6000), latency_p95=Decimal(12))
    assert "average latency (5.0 min) is above the 95th percentile (12.0 s)" in latency_text(stretched)
    assert "above" not in latency_text(figures("1", events=20, latency_sum=Decimal(20), latency_p95=Decimal(12)))


# ── from the amount to the margin ────────────────────────────────────────────────────────────────

MONEY = st.decimals(min_value=0, max_value=10**7, places=12)


@given(MONEY, MONEY, MONEY, MONEY)
def test_amount_and_cost_lead_to_the_margin_exactly_and_as_printed(billed, unknown, ours, theirs):
    """`billed` is the amount of events of known cost, `unknown` that of others; `theirs` was paid by customers."""
    found = figures(
        "1", amount_usd=billed + unknown, known_cost_amount_usd=billed, cost_usd=ours + theirs, borne_cost_usd=ours
    )
    assert sum(value for _, value in terms(found)) == found.margin_usd == billed - ours
    left, right = margin_line(found).split(" = ")
    assert sum(_dollars(left)) == sum(_dollars(right))


def _dollars(text: str) -> list[Decimal]:
    return [
        Decimal(size.replace(",", "")) * (-1 if sign else 1)
        for sign, size in re.findall(r"(−?) ?\$([\d,]+(?:\.\d+)?)", text)
    ]


def test_a_margin_is_told_with_what_makes_it_differ_from_amount_minus_cost():
    plain = figures(
        "1", amount_usd=Decimal(12), known_cost_amount_usd=Decimal(12), cost_usd=Decimal(2), borne_cost_usd=Decimal(2)
    )
    assert margin_line(plain) == "$12.00 amount − $2.00 cost = $10.00 margin"
    bridged = replace(plain, known_cost_amount_usd=Decimal(9), borne_cost_usd=Decimal("0.5"))
    assert margin_line(bridged) == (
        "$12.00 amount − $3.00 of events with unknown cost − $2.00 cost + $1.50 of it paid with customers’ own keys "
        "= $8.50 margin"
    )
    assert "unknown" in margin_line(figures("1", amount_usd=Decimal(12)))


# ── table ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (organization("a", "5"), ""),
        (organization("a", "5", "0"), "new"),
        (organization("a", "0", "5"), "became inactive"),
        (organization("a", "6", "5"), "+20 %"),
    ],
)
def test_organizations_that_appeared_or_vanished_are_named_as_such(one, text):
    assert change_text(one) == text


@given(st.integers(0, 60), st.integers(-3, 30), st.sampled_from([5, 10, 25]))
def test_a_page_is_never_empty_while_there_are_rows(number, part, size):
    found = [organization(f"org_{n}") for n in range(number)]
    shown, some = page_of(found, part, size)
    assert len(some) <= size
    assert bool(some) == bool(found)
    assert list(some) == found[(shown - 1) * size : shown * size]


@given(st.lists(st.integers(0, 10**6), max_size=400))
def test_a_sparkline_keeps_every_credit_in_at_most_sixty_bars(daily):
    bars = thinned([Decimal(value) for value in daily])
    assert len(bars) <= 60
    assert sum(bars) == sum(daily)


def test_a_header_turns_its_order_round_and_another_starts_with_the_largest():
    assert toggled(Address(), "credits_total") == ("credits_total", True)
    assert toggled(Address(ascending=True), "credits_total") == ("credits_total", False)
    assert toggled(Address(ascending=True), "events") == ("events", False)
    assert toggled(Address(), "organization", starts_ascending=True) == ("organization", True)


def test_the_footer_adds_up_every_row_of_the_search_and_says_of_how_much():
    whole = statistics(organization("org_a", "100.5"), organization("org_b", "20"), organization(None, "3"))
    everything = footer_text(whole.organizations, whole, searched=False)
    assert everything.startswith("**All 3 rows matching this filter:** AI tokens 123.50 + Compute 0 + Storage 0 = ")
    assert "= **123.50 credits** · " in everything
    part = footer_text(whole.organizations[:1], whole, searched=True)
    assert part.startswith("**All 1 organization matching this filter:**")
    assert "**100.50 credits** of 123.50 in all" in part
    assert "Langfuse cost unknown" in part


# ── overview ─────────────────────────────────────────────────────────────────────────────────────


def test_the_period_is_said_with_its_days_its_timezone_and_what_it_is_compared_with():
    at, zone = datetime(2026, 11, 22, 23, 30, tzinfo=UTC), ZoneInfo("Europe/Berlin")
    address = Address(period=Period.LAST_7_DAYS)
    assert period_text(address, at, zone, "10 Nov 2026 – 16 Nov 2026") == (
        "17 Nov 2026 – 23 Nov 2026, days in Europe/Berlin, compared with 10 Nov 2026 – 16 Nov 2026."
    )
    assert "Choose a start date" in period_text(Address(period=Period.ALL_TIME), at, zone, "")
    assert period_text(Address(against=Comparison.NOTHING), at, zone, "").endswith("compared with nothing.")


def test_the_mark_names_the_credits_or_warns():
    assert tie_out_text(Decimal("12.5"), ties_out=True) == "✓ reconciles to Usage Events: 12.50 credits"
    assert "do not reconcile" in tie_out_text(Decimal("12.5"), ties_out=False)


# ── comparison ───────────────────────────────────────────────────────────────────────────────────


def test_only_organizations_that_are_there_are_compared_in_the_order_asked_for():
    whole = statistics(organization("org_a", "3"), organization("org_b", "2"), organization(None, "1"))
    assert [one.organization_id for one in chosen_organizations(whole, ["org_b", "foreign", "org_a"])] == [
        "org_b",
        "org_a",
    ]


def test_every_figure_of_the_compared_stands_beside_each_other():
    whole = statistics(organization("org_a", "3", "2"), organization("org_b", "1", "0"))
    shown = comparison_rows(whole.organizations, whole, NAMES)
    assert list(shown) == ["Figure", "Acme", "org_b"]
    by_figure = {name: cells for name, *cells in zip(shown["Figure"], shown["Acme"], shown["org_b"], strict=True)}
    assert by_figure["Credits"] == ["3.00", "1.00"]
    assert by_figure["Share of credits"] == ["75 %", "25 %"]
    assert by_figure["Change of credits"] == ["+50 %", "new"]
    assert by_figure["Error share"] == ["unknown", "unknown"]


def test_days_beside_each_other_start_with_the_first_of_the_period():
    some = [organization("org_a", "3", daily=["1", "2"]), organization("org_b", "1", daily=["0", "1"])]
    assert daily_rows(some, "2026-11-30", NAMES) == {
        "Day": ["2026-11-30", "2026-12-01"],
        "Acme": ["1.00", "2.00"],
        "org_b": ["0", "1.00"],
    }


# ── movers ───────────────────────────────────────────────────────────────────────────────────────


def test_percentages_of_next_to_nothing_are_no_news():
    whole = statistics(
        organization("large", "150000", "100000"),
        organization("tiny", "900", "9"),
        organization("small_but_a_thousand", "3000", "1000"),
        organization("fell", "1000", "2000"),
        organization("same", "5", "5"),
    )
    found = top_movers(whole)
    assert [move.organization_id for move in found.up] == ["large", "small_but_a_thousand", "tiny"]
    assert [move.organization_id for move in found.relative_up] == ["small_but_a_thousand", "large"]
    assert [move.organization_id for move in found.down] == ["fell"]
    assert [move.organization_id for move in found.relative_down] == ["fell"]


def test_one_percent_of_a_small_whole_is_news():
    found = top_movers(statistics(organization("a", "3", "1"), organization("b", "99", "99")))
    assert [move.organization_id for move in found.relative_up] == ["a"]


def test_the_lists_are_short_and_start_with_the_largest():
    found = top_movers(statistics(*(organization(f"o{n}", str(n), "0") for n in range(1, 9))), shown=3)
    assert [move.organization_id for move in found.up] == ["o8", "o7", "o6"]
    assert found.relative_up == ()


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (organization("a", "12", "0"), "new: +12.00 credits"),
        (organization("a", "0", "12"), "became inactive: −12.00 credits"),
        (organization("a", "12", "10"), "+2.00 credits (+20 %)"),
    ],
)
def test_a_move_is_said_in_credits_and_percent(one, text):
    (move,) = [*top_movers(statistics(one)).up, *top_movers(statistics(one)).down]
    assert move_text(move, one) == text


def test_events_without_credits_are_no_sign_of_silence():
    one = replace(organization("a", "0", "12"), now=figures("0", events=4))
    (move,) = top_movers(statistics(one)).down
    assert move_text(move, one) == "−12.00 credits (−100 %)"
