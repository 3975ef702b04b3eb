"""Explore: what stands behind a figure are exactly its events, and where no filter selects them, that is said."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.types import CreditType
from billing_core.usage_events.explore_model import (
    METRICS_OF_PARTS,
    Dimension,
    ExploreQuestion,
    ExploreRow,
    Metric,
    PeriodLength,
)
from components.shared.periods import Period
from components.usage_events import texts
from components.usage_events.explore_links import filters_behind, unlinked, why_not
from components.usage_events.query import Filters, question
from tests.examples import examples
from tests.factories import EVERYONE, model_usage, service_over, usage_row

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 20, tzinfo=UTC)
CLOCKS_GO_BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)
OCTOBER = Filters(period=Period.CUSTOM, first_day=date(2026, 10, 3), last_day=date(2026, 10, 30))
BYS = [
    (Dimension.ORGANIZATION, Dimension.ENVIRONMENT),
    (Dimension.USER,),
    (Dimension.MODEL, Dimension.CHATFLOW),
    (Dimension.CREDIT_TYPE, Dimension.MODEL),
    (Dimension.TOKEN_CLASS, Dimension.CREDIT_TYPE),
]
WHOLE = frozenset(Dimension) - {Dimension.MODEL, Dimension.TOKEN_CLASS, Dimension.CREDIT_TYPE}


def invented(seed: int, number: int = 40) -> list[dict]:
    """Usage around a change of clocks: any field may be missing, models are shared, costs unknown."""
    chance = Random(seed)
    return [_trace(chance, f"t{place}") for place in range(number)]


def _trace(chance: Random, name: str) -> dict:
    models = chance.choice([["gpt-5"], ["claude"], ["claude", "gpt-5"], []])
    used = [
        model_usage(
            one, chance.choice([None, "0.01", "0.002"]), input=chance.randrange(900), cache_read=chance.choice([0, 7])
        )
        for one in models
    ]
    tokens = sum(one["input"] + one["cache_read"] for one in used)
    costs = [one["cost_usd"] for one in used if one["cost_usd"] is not None]
    return usage_row(
        id=name,
        timestamp=CLOCKS_GO_BACK + timedelta(minutes=chance.choice([-61, -1, 0, 59, 61, *range(-30000, 30000, 977)])),
        organization_id=chance.choice(["org_a", "org_b", None, ""]),
        customer_id=chance.choice(["cus_a", None]),
        user_id=chance.choice(["u1", "u2", "", None]),
        chatflow_id=chance.choice(["flow-1", None]),
        environment=chance.choice(["production", "", None, "langfuse-experiment"]),
        ai_credentials_ownership=chance.choice([None, "user"]),
        models=models,
        usage=used,
        cost_usd=sum(costs) if costs else None,
        tokens_in=tokens,
        tokens_out=0,
        tokens_total=tokens,
        latency_seconds=chance.choice([0, 1, 60]),
        storage_gb=chance.choice([None, Decimal("0.2")]),
    )


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("links")
    made = [
        service_over(folder / str(seed) / "l.duckdb", invented(seed), BILLING_TIMEZONE=BERLIN.key) for seed in (1, 2)
    ]
    yield made
    for service in made:
        service.close()


def asked(service, filters, exploration):
    return service.explore(question(filters, at=NOW, zone=BERLIN, as_of=service.version()), exploration, EVERYONE)


def listed(service, filters):
    return service.get_usage_events(question(filters, at=NOW, zone=BERLIN, as_of=service.version()), EVERYONE)


@st.composite
def questions(draw):
    by = draw(st.sampled_from(BYS))
    metric = draw(st.sampled_from([one for one in Metric if all(one in METRICS_OF_PARTS.get(d, Metric) for d in by)]))
    return ExploreQuestion(by, metric, draw(st.sampled_from([None, *PeriodLength])))


filters = st.builds(
    Filters,
    period=st.just(Period.CUSTOM),
    first_day=st.sampled_from([None, date(2026, 10, 14), date(2026, 10, 25)]),
    last_day=st.sampled_from([None, date(2026, 10, 25), date(2026, 11, 3)]),
    organization=st.sampled_from([("org_a",), ("org_a", "org_b")]),
)
filters |= st.builds(
    Filters,
    period=st.just(Period.ALL_TIME),
    model=st.just(("gpt-5",)),
    credit_type=st.just(("ai_tokens", "storage")),
    without=st.just(("customer",)),
)
filters |= st.just(Filters(period=Period.ALL_TIME))


@settings(max_examples=examples(12))
@given(st.integers(0, 1), questions(), filters)
def test_the_events_behind_a_figure_make_exactly_that_figure(ledgers, place, exploration, chosen):
    service = ledgers[place]
    found = asked(service, chosen, exploration)
    again = ExploreQuestion(exploration.by, exploration.metric)
    for row in found.rows:
        if why_not(found, row, chosen):
            assert not set(exploration.by) <= WHOLE
            continue
        behind = filters_behind(found, row, chosen)
        shown = asked(service, behind, again)
        same = next(one for one in shown.rows if one.values == row.values)
        assert (same.value, same.p95) == (row.value, row.p95)
        if set(exploration.by) <= WHOLE:
            assert [one.values for one in shown.rows] == [row.values]
            assert shown.totals.value == row.value


def test_a_bar_of_the_day_on_which_clocks_go_back_shows_its_25_hours(ledgers):
    service = ledgers[0]
    found = asked(service, OCTOBER, ExploreQuestion((Dimension.ORGANIZATION,), Metric.EVENTS, PeriodLength.DAY))
    row = next(one for one in found.rows if one.period == date(2026, 10, 25))
    behind = filters_behind(found, row, OCTOBER)
    times = [event.timestamp for event in listed(service, behind).events]
    assert len(times) == row.value
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert all(start <= one < start + timedelta(hours=25) for one in times)
    assert (behind.period, behind.first_day, behind.last_day) == (Period.CUSTOM, row.period, row.period)


@pytest.mark.parametrize(
    ("grain", "days"),
    [
        (PeriodLength.WEEK, (date(2026, 10, 3), date(2026, 10, 4))),
        (PeriodLength.MONTH, (date(2026, 10, 3), date(2026, 10, 30))),
    ],
)
def test_a_period_that_the_window_cuts_is_cut_behind_its_bar_too(ledgers, grain, days):
    found = asked(ledgers[0], OCTOBER, ExploreQuestion((Dimension.STATUS,), Metric.EVENTS, grain))
    behind = filters_behind(found, found.rows[0], OCTOBER)
    assert (behind.first_day, behind.last_day) == days


@pytest.mark.parametrize("kind", CreditType)
def test_behind_a_type_of_credits_stand_the_events_that_have_it(ledgers, kind):
    found = asked(ledgers[0], Filters(period=Period.ALL_TIME), ExploreQuestion((Dimension.CREDIT_TYPE,)))
    row = next(one for one in found.rows if one.values == (kind,))
    shown = listed(ledgers[0], filters_behind(found, row, Filters(period=Period.ALL_TIME)))
    assert getattr(shown.totals.credits, kind) == row.value
    assert all(getattr(event.credits, kind) for event in shown.events)


def test_the_total_leads_to_all_events_and_the_rest_says_why_it_leads_nowhere(ledgers):
    found = asked(ledgers[0], OCTOBER, ExploreQuestion((Dimension.USER,), top=1))
    assert filters_behind(found, found.totals, OCTOBER) == OCTOBER
    assert unlinked(found, OCTOBER) == [texts.NO_LINK_REST]


@pytest.mark.parametrize(
    ("by", "metric", "chosen", "why"),
    [
        ((Dimension.MODEL,), Metric.CREDITS, {}, [texts.NO_LINK_NO_MODEL]),
        ((Dimension.MODEL,), Metric.EVENTS, {}, []),
        ((Dimension.TOKEN_CLASS,), Metric.TOKENS, {}, [texts.NO_LINK_OF_CLASS]),
        ((Dimension.MODEL, Dimension.ORGANIZATION), Metric.EVENTS, {"model": ("gpt-5",)}, [texts.NO_LINK_BOTH]),
    ],
)
def test_a_part_of_events_that_no_filter_selects_has_no_link_and_a_word_why(ledgers, by, metric, chosen, why):
    narrowed = Filters(period=Period.ALL_TIME, **chosen)
    assert unlinked(asked(ledgers[0], narrowed, ExploreQuestion(by, metric)), narrowed) == why


def test_what_events_lack_is_added_to_what_the_filter_lacks_already(ledgers):
    chosen = Filters(period=Period.ALL_TIME, without=("customer",))
    found = asked(ledgers[0], chosen, ExploreQuestion((Dimension.ENVIRONMENT,)))
    assert filters_behind(found, ExploreRow((None,)), chosen).without == ("customer", "environment")
