from datetime import UTC, date, datetime
from decimal import Decimal
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import pytest

from billing_core.errors import BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.web.usage_api import parse_query
from components.shared.periods import Period
from components.usage_events.query import Chip, Filters, Paging, chips, csv_query, names_of, question

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # already the 23rd in Berlin


def asked(filters: Filters, **more) -> GetUsageEventsParams:
    return question(filters, at=AT, zone=BERLIN, as_of=7, **more)


def test_the_default_question_is_the_newest_of_the_last_30_days():
    params = asked(Filters(), paging=Paging())
    assert params.from_.astimezone(UTC) == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert params.to.astimezone(UTC) == datetime(2026, 11, 23, 23, tzinfo=UTC)
    assert (params.sort, params.order, params.page, params.limit, params.as_of) == ("timestamp", "desc", 1, 25, 7)
    assert params.search is None


def test_today_is_today_on_the_clocks_of_the_reporting_timezone():
    params = asked(Filters(period=Period.TODAY))
    assert params.from_.astimezone(UTC) == datetime(2026, 11, 22, 23, tzinfo=UTC)


@pytest.mark.parametrize("typed", ["1234.5", "$1,234.5", " 1234.50 "])
def test_amounts_may_be_typed_as_people_write_dollars(typed):
    assert asked(Filters(amount_min=typed)).amount_min == Decimal("1234.5")


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        (Filters(amount_min="much"), "amount_min"),
        (Filters(status=("lost",)), "status"),
        (Filters(without=("wings",)), "without"),
        (Filters(period=Period.CUSTOM, first_day=date(2026, 2, 1), last_day=date(2026, 1, 1)), "End date"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(filters, name):
    with pytest.raises(BadParameter, match=f"^{name}"):
        asked(filters)


def test_every_filter_but_the_period_has_a_chip_that_removes_it():
    filters = Filters(user=("u1", "u2"), without=("organization",), amount_max="$5", search=" gpt ")
    assert chips(filters) == [
        Chip("User: u1", "user", "u1"),
        Chip("User: u2", "user", "u2"),
        Chip("Without organization", "without", "organization"),
        Chip("Amount to $5", "amount_max"),
        Chip("Search: gpt", "search"),
    ]


def test_the_download_asks_for_exactly_the_events_of_the_page():
    filters = Filters(
        period=Period.LAST_7_DAYS,
        organization=("org & co", "org_b"),
        status=("error",),
        model=("gpt-5",),
        without=("customer", "session"),
        amount_min="0.00001",
        amount_max="10",
        search="50% off?",
    )
    shown = asked(filters, paging=Paging(sort="amount_usd", order="asc", page=3, limit=50))
    downloaded = parse_query(parse_qs(csv_query(shown)))
    everything_but_the_page = {"sort": "timestamp", "order": "desc", "page": 1, "limit": 25}
    assert downloaded == shown.model_copy(update=everything_but_the_page)


def test_a_download_without_filters_names_only_the_state_of_the_ledger():
    assert csv_query(asked(Filters(period=Period.ALL_TIME))) == "as_of=7"


def test_chatflows_are_listed_by_name_with_the_id_where_it_is_wanted_or_needed():
    found = [("f1", "Support"), ("f2", "Search"), ("f3", "Search"), ("f4", None)]
    assert names_of(found) == {"f1": "Support", "f2": "Search (f2)", "f3": "Search (f3)"}
    assert names_of(found, with_ids=True)["f1"] == "Support (f1)"
