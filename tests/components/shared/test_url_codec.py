"""What a link or a saved view carries: the whole state of a page, and what is wrong with it in words."""

from __future__ import annotations

from dataclasses import fields
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.types import CreditType, PipelineStage
from components.audit import panel as audit
from components.exports import query as exports
from components.organizations import anomalies, limit_table
from components.organizations import query as organizations
from components.shared.comparison import Comparison
from components.shared.periods import Period
from components.usage_events.columns import COLUMNS, SORT_FIELDS
from components.usage_events.query import FACETS
from components.usage_events.state import CODEC, PAGE_SIZES, EventsView
from components.what_if import state as what_if

CODECS = [
    CODEC,
    exports.CODEC,
    organizations.CODEC,
    *(module.URL.codec for module in (audit, anomalies, limit_table, what_if)),
]

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
several = st.lists(words, max_size=3, unique=True).map(tuple)
views = st.builds(
    EventsView,
    period=st.sampled_from(Period),
    first_day=st.none() | st.dates(),
    last_day=st.none() | st.dates(),
    **{facet.key: several for facet in FACETS},
    without=several,
    cause=several,
    held=st.none() | st.booleans(),
    stage=st.lists(st.sampled_from(PipelineStage), unique=True).map(tuple),
    credit_type=st.lists(st.sampled_from(CreditType), unique=True).map(tuple),
    amount_min=st.just("") | words,
    amount_max=st.just("") | words,
    search=st.just("") | words,
    against=st.sampled_from(Comparison),
    against_from=st.none() | st.dates(),
    against_to=st.none() | st.dates(),
    sort=st.sampled_from(SORT_FIELDS),
    ascending=st.booleans(),
    page=st.integers(1, 10**8),
    rows=st.sampled_from(PAGE_SIZES),
    columns=st.lists(st.sampled_from([column.field for column in COLUMNS]), unique=True).map(tuple),
    charts=st.booleans(),
)


@given(views)
def test_a_query_string_says_exactly_what_is_seen(view):
    assert CODEC.from_text(CODEC.to_text(view)) == view


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec.usual).__name__)
def test_every_field_of_a_state_stands_in_its_url_under_a_name_of_its_own(codec):
    names = codec.parameters()
    assert set(codec.values) == {field.name for field in fields(codec.usual)}
    assert len(names) == len(set(names))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec.usual).__name__)
def test_the_usual_state_has_an_empty_query_string(codec):
    assert codec.to_text(codec.usual) == ""
    assert codec.from_text("") == codec.usual
    assert codec.refused({name: [""] for name in codec.parameters()}) == []


def test_what_an_address_has_wrong_is_named_and_the_rest_is_kept():
    query = {"rows": ["7"], "first_day": ["2026-13-01"], "page": ["-3"], "organization": ["org_a"], "utm": ["x"]}
    assert CODEC.parse(query) == EventsView(organization=("org_a",))
    assert CODEC.refused(query) == [
        "first_day: '2026-13-01' is not accepted; expected a day such as 2026-10-31",
        "page: '-3' is not accepted; expected a whole number from 1 to 100,000,000",
        "rows: '7' is not accepted; expected one of: 5, 10, 25, 50, 100",
    ]


def test_columns_stand_in_the_address_by_their_headers_and_none_of_them_is_not_the_usual_ones():
    view = EventsView(columns=("timestamp", "id"), sort="id")
    assert CODEC.to_text(view) == "sort=Event+id&columns=Time&columns=Event+id"
    assert CODEC.to_text(EventsView(columns=())) == "columns="
    assert CODEC.from_text("columns=") == EventsView(columns=())


def test_days_are_written_as_iso_8601():
    view = EventsView(period=Period.CUSTOM, first_day=date(2026, 10, 1), ascending=True)
    assert CODEC.to_text(view) == "period=Custom&first_day=2026-10-01&order=Ascending"
