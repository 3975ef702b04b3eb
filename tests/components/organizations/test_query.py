"""The address of the Organization Stats page: what a link carries, and where its links lead."""

from __future__ import annotations

from datetime import UTC, date, datetime
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.organizations.table import SORTS
from components.organizations.query import (
    CODEC,
    PAGE_SIZES,
    Address,
    OrganizationView,
    csv_address,
    events_of,
    of_day,
    question,
)
from components.shared.comparison import Comparison
from components.shared.periods import Period

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # already the 23rd in Berlin

IDS = st.text(min_size=1, max_size=6)
ADDRESSES = st.builds(
    Address,
    view=st.sampled_from(OrganizationView),
    period=st.sampled_from(Period),
    first_day=st.none() | st.dates(date(1970, 1, 2)),
    last_day=st.none() | st.dates(date(1970, 1, 2)),
    search=st.text(max_size=5),
    sort=st.sampled_from(SORTS),
    ascending=st.booleans(),
    page=st.integers(1, 1000),
    rows=st.sampled_from(PAGE_SIZES),
    columns=st.lists(IDS, unique=True, max_size=3).map(tuple),
    compare=st.lists(IDS, unique=True, max_size=6).map(tuple),
    against=st.sampled_from(Comparison),
    against_from=st.none() | st.dates(),
    against_to=st.none() | st.dates(),
    only=st.lists(IDS, unique=True, max_size=3).map(tuple),
    open=st.none() | IDS,
    open_none=st.booleans(),
)


@given(ADDRESSES)
def test_every_view_can_be_shared_by_its_address(address):
    assert CODEC.parse(CODEC.render(address)) == address


def test_what_is_usual_does_not_stand_in_the_address():
    assert CODEC.render(Address()) == {}
    assert CODEC.render(Address(view=OrganizationView.CHARTS, ascending=True, compare=("a", "b"))) == {
        "view": ["Charts"],
        "up": ["1"],
        "compare": ["a", "b"],
    }


@pytest.mark.parametrize(
    "query",
    [
        {"view": ["Nonsense"]},
        {"span": ["Someday"]},
        {"from_day": ["2026-13-01"]},
        {"by": ["x; DROP"]},
        {"part": ["-3"]},
        {"part": ["0"]},
        {"part": ["99999999999999999999"]},
        {"part": ["²"]},
        {"size": ["7"]},
        {"size": ["abc"]},
        {"up": ["maybe"]},
        {"open": [""]},
        {"open_none": ["0"]},
        {"compare": [""]},
        {"part": []},
        {"period": ["All time"], "page": ["4"]},
    ],
)
def test_nonsense_in_the_address_counts_as_not_said(query):
    assert CODEC.parse(query) == Address()


def test_no_more_than_six_organizations_are_compared_and_none_twice():
    parsed = CODEC.parse({"compare": ["a", "a", *"bcdefgh"]})
    assert parsed.compare == tuple("abcdef")


def test_an_organization_opens_in_the_same_period_and_its_way_back_leads_where_one_was():
    here = Address(view=OrganizationView.CHARTS, period=Period.LAST_MONTH, search="acme", page=3)
    there = here.opening("org_a")
    assert CODEC.render(there) == {**CODEC.render(here), "open": ["org_a"]}
    assert there.is_open
    assert there.closed() == here
    nobody = there.opening(None)
    assert CODEC.render(nobody) == {**CODEC.render(here), "open_none": ["1"]}
    assert nobody.is_open


def test_the_question_is_about_days_of_the_reporting_timezone_and_one_state_of_the_ledger():
    params = question(Address(), at=AT, zone=BERLIN, as_of=7)
    assert params.from_.astimezone(UTC) == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert params.to.astimezone(UTC) == datetime(2026, 11, 23, 23, tzinfo=UTC)
    assert params.as_of == 7


def test_days_that_end_before_they_start_are_refused():
    address = Address(period=Period.CUSTOM, first_day=date(2026, 2, 1), last_day=date(2026, 1, 1))
    with pytest.raises(BadParameter, match=r"^End date must be "):
        question(address, at=AT, zone=BERLIN, as_of=1)


def test_links_to_usage_events_ask_for_the_same_period_and_organization():
    custom = Address(period=Period.CUSTOM, first_day=date(2026, 11, 1), last_day=date(2026, 11, 5))
    assert events_of(Address()) == {"period": "Last 30 days"}
    assert events_of(custom, "org_a") == {
        "period": "Custom",
        "first_day": "2026-11-01",
        "last_day": "2026-11-05",
        "organization": "org_a",
    }
    assert events_of(Address(), nobody=True) == {"period": "Last 30 days", "without": "organization"}
    assert of_day(events_of(Address(), "org_a"), "2026-11-03") == {
        "period": "Custom",
        "first_day": "2026-11-03",
        "last_day": "2026-11-03",
        "organization": "org_a",
    }


def test_the_download_asks_for_the_rows_of_the_table():
    address = Address(search="a & b", sort="events", ascending=True)
    url = urlsplit(csv_address(address, question(address, at=AT, zone=BERLIN, as_of=7), "previous"))
    assert url.path == "/download/organizations.csv"
    assert parse_qs(url.query) == {
        "from": ["2026-10-24T22:00:00.000Z"],
        "to": ["2026-11-23T23:00:00.000Z"],
        "as_of": ["7"],
        "find": ["a & b"],
        "sort": ["events"],
        "order": ["asc"],
        "compare": ["previous"],
    }
