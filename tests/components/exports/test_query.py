from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter
from billing_core.exports.model import Dataset, Format, Grain, may_export
from billing_core.exports.request import checked, concerning
from billing_core.types import GetUsageEventsParams
from components.exports.query import (
    CODEC,
    FOCUS_VERSIONS,
    Choice,
    Separator,
    days,
    facets_of,
    has,
    request_of,
    timezones,
)
from components.shared.periods import Period
from components.usage_events.query import FACETS, Filters, as_changes, question

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # already the 23rd in Berlin

LAST_MONTH = Choice(period=Period.LAST_MONTH)


def asked(choice: Choice, as_of: int = 7):
    return request_of(choice, at=AT, reporting=BERLIN, as_of=as_of)


# ── the address ──────────────────────────────────────────────────────────────────────────────────

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
several = st.lists(words, max_size=3, unique=True).map(tuple)


choices = st.builds(
    Choice,
    period=st.sampled_from(Period),
    first_day=st.none() | st.dates(),
    last_day=st.none() | st.dates(),
    **{facet.key: several for facet in FACETS},
    without=several,
    amount_min=st.just("") | words,
    amount_max=st.just("") | words,
    search=st.just("") | words,
    dataset=st.sampled_from(Dataset),
    format=st.sampled_from(Format),
    columns=several,
    grain=st.sampled_from(Grain),
    timezone=st.just("") | st.sampled_from(timezones()),
    separator=st.sampled_from(Separator),
    bom=st.booleans(),
    parquet=st.booleans(),
    user_ids=st.booleans(),
    internal=st.booleans(),
    focus_version=st.sampled_from(FOCUS_VERSIONS),
)


@given(choices)
def test_an_address_says_exactly_what_was_chosen(choice):
    assert CODEC.parse(CODEC.render(choice)) == choice


def test_what_is_usual_is_not_in_the_address():
    assert CODEC.render(Choice()) == {}
    assert CODEC.render(replace(LAST_MONTH, format=Format.FOCUS, bom=True)) == {
        "format": ["focus"],
        "bom": ["1"],
        "span": ["Last month"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": ["everything"]},
        {"format": ["doc"]},
        {"span": ["Next year"]},
        {"from_day": ["tomorrow"]},
        {"zone": ["Moon/Base"]},
        {"zone": ["../etc/passwd"]},
        {"focus": ["9"]},
        {"bom": ["yes"]},
        {"page": ["7"]},
    ],
)
def test_what_an_address_has_wrong_counts_as_not_said(wrong):
    assert CODEC.parse(wrong) == Choice()


# ── who and what ─────────────────────────────────────────────────────────────────────────────────


def test_analysts_take_usage_events_along_and_nothing_else():
    analyst, finance, admin = (Principal("p", role) for role in Role)
    assert may_export(analyst) == (Dataset.USAGE_EVENTS,)
    assert may_export(finance) == may_export(admin) == tuple(Dataset)


@pytest.mark.parametrize(
    ("dataset", "format_", "form"),
    [
        (Dataset.USAGE_EVENTS, Format.JOURNAL, Format.JOURNAL),
        (Dataset.CUSTOMERS, Format.XLSX, Format.XLSX),
        (Dataset.CUSTOMERS, Format.FOCUS, Format.CSV),
        (Dataset.BUNDLE, Format.XLSX, None),
    ],
)
def test_a_format_the_data_set_has_not_gives_way_to_its_first(dataset, format_, form):
    assert Choice(dataset=dataset, format=format_).form is form


# ── the request ──────────────────────────────────────────────────────────────────────────────────


def test_last_month_is_that_of_the_reporting_timezone():
    request = asked(LAST_MONTH, as_of=7)
    assert request.params.from_.astimezone(UTC) == datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert request.params.to.astimezone(UTC) == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert (request.params.as_of, request.timezone) == (7, None)
    assert str(days(LAST_MONTH, AT, BERLIN)) == "1 Oct 2026 – 31 Oct 2026"


def test_another_timezone_moves_the_days_and_is_named():
    today = Choice(period=Period.TODAY, timezone="UTC")
    request = asked(today)
    assert request.params.from_ == datetime(2026, 11, 22, tzinfo=UTC)
    assert request.timezone == "UTC"
    assert str(days(today, AT, BERLIN)) == "22 Nov 2026"


def test_the_reporting_timezone_chosen_by_name_is_still_the_reporting_one():
    assert asked(replace(LAST_MONTH, timezone="Europe/Berlin")) == asked(LAST_MONTH)


def test_filters_of_usage_events_are_asked_as_that_page_asks_them():
    narrowed = Choice(
        period=Period.ALL_TIME,
        organization=("a", "b"),
        status=("error",),
        without=("customer",),
        amount_min="$1,000",
        search=" gpt ",
    )
    params = asked(narrowed).params
    assert params == GetUsageEventsParams.parse(
        {
            "organization": ("a", "b"),
            "status": "error",
            "without": "customer",
            "amount_min": "1000",
            "search": "gpt",
            "as_of": 7,
        }
    )
    assert params.amount_min == Decimal(1000)


EVERY_FILTER = Filters(
    period=Period.LAST_MONTH,
    **{facet.key: ("pending",) for facet in FACETS},
    without=("session",),
    amount_min="1",
    amount_max="2",
    search="gpt",
)


@pytest.mark.parametrize("dataset", Dataset)
def test_rows_are_chosen_by_exactly_what_the_export_desk_accepts(dataset):
    choice = Choice(dataset=dataset, timezone="Asia/Tokyo", **as_changes(EVERY_FILTER))
    params = asked(choice).params
    everything = question(EVERY_FILTER, at=AT, zone=ZoneInfo("Asia/Tokyo"), as_of=7)
    assert params == concerning(dataset, everything)
    assert checked(asked(choice)) == asked(choice)


def test_rate_cards_and_the_map_have_no_days_and_so_no_timezone():
    for dataset in (Dataset.RATE_CARD, Dataset.CUSTOMERS):
        assert asked(Choice(dataset=dataset, timezone="Asia/Tokyo", **as_changes(EVERY_FILTER))).timezone is None


def test_only_filters_that_mean_something_are_offered():
    assert facets_of(Choice()) == FACETS
    assert [facet.key for facet in facets_of(Choice(dataset=Dataset.CUSTOMERS))] == ["organization"]
    assert [facet.key for facet in facets_of(Choice(dataset=Dataset.RECONCILIATION))] == ["customer"]
    assert facets_of(Choice(dataset=Dataset.RATE_CARD)) == ()
    assert not has(Choice(dataset=Dataset.RATE_CARD), "filters")


@given(choices)
def test_whatever_is_chosen_is_something_the_export_desk_knows(choice):
    try:
        request = asked(choice)
    except BadParameter:
        return  # typed wrong, and said so
    assert checked(request) == request


def test_options_of_one_format_never_reach_another():
    everything = Choice(
        format=Format.FOCUS,
        columns=("id",),
        grain=Grain.DAY,
        separator=Separator.TAB,
        bom=True,
        parquet=True,
        user_ids=True,
        internal=True,
        focus_version="1.4",
    )
    focus = asked(everything)
    assert (focus.parquet, focus.user_ids, focus.internal, focus.focus_version) == (True, True, True, "1.4")
    assert (focus.columns, focus.grain, focus.separator, focus.bom) == ((), Grain.EVENT, ",", False)
    csv = asked(replace(everything, format=Format.CSV))
    assert (csv.columns, csv.grain, csv.separator, csv.bom) == (("id",), Grain.DAY, "\t", True)
    assert (csv.parquet, csv.user_ids, csv.internal, csv.focus_version) == (False, False, False, "1.2")


def test_only_usage_events_have_a_grain():
    assert has(Choice(), "grain")
    assert not has(Choice(dataset=Dataset.ORGANIZATIONS), "grain")
    assert not has(Choice(format=Format.JOURNAL), "grain")


def test_what_cannot_be_asked_is_refused_by_name():
    backwards = Choice(period=Period.CUSTOM, first_day=date(2026, 2, 1), last_day=date(2026, 1, 1))
    with pytest.raises(BadParameter, match=r"^End date must be "):
        asked(backwards)
    with pytest.raises(BadParameter, match=r"^amount_min: "):
        asked(Choice(amount_min="much"))
