"""Usage events through the one door: filters, sorting, paging, totals, scope and what they must never do."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, SettingsError
from billing_core.ledger.queries import local_quarter_hour, local_time, offsets
from billing_core.types import FLAT_FIELDS, Attribute, GetUsageEventsParams
from tests.examples import examples
from tests.factories import EVERYONE, NOON, events_table, ledger_at, model_usage, service_over, usage_row
from tests.month_close.world import MonthWorld, trace

ACME = Principal("ada", Role.ANALYST, frozenset({"org_a"}))


def ask(service, principal=EVERYONE, **params):
    return service.get_usage_events(GetUsageEventsParams.parse(params), principal)


def ids(response):
    return [event.id for event in response.events]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Forty events that differ in every column, some with unknown values."""
    rows = []
    for n in range(40):
        model = ("gpt-5", "claude-sonnet-5", "gpt-5-mini")[n % 3]
        rows.append(
            usage_row(
                id=f"id-{n:02}",
                timestamp=NOON + timedelta(hours=7 * n),
                latency_seconds=n * 1.5,
                organization_id=(None, "org_a", "org_b", "org_c")[n % 4],
                customer_id=None if n % 5 == 0 else f"cus_{n % 3}",
                user_id=None if n % 7 == 0 else f"User-{n % 6}",
                session_id=f"s-{n // 2}",
                chatflow_id=f"flow-{n % 4}",
                chatflow_name=("Support", "100% help", "a_b", None)[n % 4],
                environment=("production", "staging", "sdk-experiment")[n % 3],
                models=[model] if n % 9 else [],
                usage=[model_usage(model, input=n * 10, output=n)],
                tokens_in=n * 10,
                tokens_out=None if n % 6 == 0 else n,
                tokens_total=11 * n,
                storage_gb=None if n % 2 else Decimal(n) / 8000,
                cost_usd=None if n % 4 == 0 else Decimal(n) / 1000,
                ai_credentials_ownership=("user", None, "platform")[n % 3],
            )
        )
    path = tmp_path_factory.mktemp("mixed") / "billing.duckdb"
    service = service_over(path, rows, BILLING_TIMEZONE="Europe/Berlin")
    yield service
    service.close()


def everything(service):
    return ask(service, limit=1000).events


# ── filters ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("params", "keeps"),
    [
        ({"customer": "cus_1"}, lambda e: e.customer_id == "cus_1"),
        ({"customer": ["cus_1", "cus_2"]}, lambda e: e.customer_id in {"cus_1", "cus_2"}),
        ({"organization": "org_b"}, lambda e: e.organization_id == "org_b"),
        ({"user": "User-3"}, lambda e: e.user_id == "User-3"),
        ({"chatflow": "flow-2"}, lambda e: e.chatflow_id == "flow-2"),
        ({"model": "gpt-5"}, lambda e: "gpt-5" in e.models),
        ({"environment": "staging"}, lambda e: e.environment == "staging"),
        ({"status": "error"}, lambda e: e.sync_status == "error"),
        ({"status": ["error", "excluded"]}, lambda e: e.sync_status in {"error", "excluded"}),
        ({"amount_min": "0.002"}, lambda e: e.amount_usd >= Decimal("0.002")),
        ({"amount_max": "0.002"}, lambda e: e.amount_usd <= Decimal("0.002")),
        ({"search": "USER-3"}, lambda e: e.user_id == "User-3"),
        ({"search": "100% H"}, lambda e: e.chatflow_name == "100% help"),
        ({"search": "%"}, lambda e: e.chatflow_name == "100% help"),
        ({"search": "a_b"}, lambda e: e.chatflow_name == "a_b"),
        ({"search": "sonnet"}, lambda e: "claude-sonnet-5" in e.models),
        ({"search": "id-07"}, lambda e: e.id == "id-07"),
        ({"search": "s-3"}, lambda e: (e.session_id or "").startswith("s-3")),
        ({"search": "' OR 1=1 --"}, lambda e: False),
        (
            {"organization": "org_b", "status": "pending"},
            lambda e: e.organization_id == "org_b" and e.sync_status == "pending",
        ),
        ({"from": "2026-11-05T00:00:00Z"}, lambda e: e.timestamp >= datetime(2026, 11, 5, tzinfo=UTC)),
        ({"to": "2026-11-05"}, lambda e: e.timestamp < datetime(2026, 11, 4, 23, tzinfo=UTC)),
        (
            {"from": "2026-11-02T12:00", "to": "2026-11-05T12:00+01:00"},
            lambda e: datetime(2026, 11, 2, 11, tzinfo=UTC) <= e.timestamp < datetime(2026, 11, 5, 11, tzinfo=UTC),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_filter_keeps_exactly_the_rows_it_names(mixed, params, keeps):
    expected = {event.id for event in everything(mixed) if keeps(event)}
    found = ask(mixed, limit=1000, **params)
    assert set(ids(found)) == expected
    assert found.pagination.total_items == len(expected)


ATTRIBUTES = {
    "organization": "organization_id",
    "customer": "customer_id",
    "user": "user_id",
    "session": "session_id",
    "chatflow": "chatflow_id",
    "model": "models",
}


def some_of(names):
    return [frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)]


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """One event for every combination of attributes it can lack; half of them carry empty text instead of nothing."""
    rows = []
    for n, lacking in enumerate(some_of(ATTRIBUTES)):
        nothing = {name: [] if name == "models" else (None, "")[n % 2] for name in ATTRIBUTES.values()}
        facts = {ATTRIBUTES[name]: nothing[ATTRIBUTES[name]] for name in lacking}
        rows.append(usage_row(id="+".join(sorted(lacking)), **facts))
    service = service_over(tmp_path_factory.mktemp("gaps") / "billing.duckdb", rows)
    yield service
    service.close()


def test_without_several_means_without_all_of_them(gaps):
    events = some_of(ATTRIBUTES)
    for named in events:
        found = ask(gaps, without=list(named), limit=1000)
        assert set(ids(found)) == {"+".join(sorted(lacking)) for lacking in events if named <= lacking}


def test_without_goes_together_with_other_filters(gaps):
    found = ask(gaps, without=["customer", "session", "chatflow", "model"], organization="org_a", user="user-1")
    assert ids(found) == ["chatflow+customer+model+session"]
    assert ids(ask(gaps, without="organization", organization="org_a")) == []


def test_somebody_limited_to_an_organization_finds_nothing_without_one(gaps):
    assert ask(gaps, ACME, without="organization").pagination.total_items == 0
    assert ask(gaps, ACME, without="customer").pagination.total_items == 16


@pytest.mark.parametrize("named", ["flags", "", "Organization", ["customer", "name"]])
def test_without_something_else_is_refused_with_the_words_that_are_accepted(gaps, named):
    with pytest.raises(BadParameter) as refused:
        ask(gaps, without=named)
    assert str(refused.value).startswith("without: ")
    assert all(attribute in str(refused.value) for attribute in Attribute)


@pytest.mark.parametrize("text", ["", "  ", None])
def test_an_empty_search_is_no_search(mixed, text):
    assert ask(mixed, search=text).pagination.total_items == 40


@pytest.mark.parametrize("text", ["\\", "'", '"', "ß", "İ", "\x1f", "😀", "%_%", "--", "${x}", "a\nb"])
def test_any_text_can_be_searched_for(mixed, text):
    assert ask(mixed, search=text).pagination.total_items >= 0


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_id_looks_like_it_is_found_as_itself_and_nothing_else(tmp_path_factory, names):
    rows = [usage_row(id=f"t{n}", user_id=name, customer_id=name) for n, name in enumerate(names)]
    service = service_over(tmp_path_factory.mktemp("ids") / "l.duckdb", rows)
    for n, name in enumerate(names):
        assert ids(ask(service, user=name)) == [f"t{n}"]
        assert ids(ask(service, customer=[name])) == [f"t{n}"]
    service.close()


def test_totals_are_over_the_whole_filter_not_the_page(mixed):
    whole = [event for event in everything(mixed) if event.environment == "staging"]
    found = ask(mixed, environment="staging", limit=3, page=2)
    assert len(found.events) == 3
    assert found.pagination.total_items == len(whole)
    assert found.totals.credits.total == sum(event.credits.total for event in whole)
    assert found.totals.amount_usd == sum(event.amount_usd for event in whole)
    assert found.totals.tokens_in == sum(event.tokens_in for event in whole)
    assert found.totals.cost_usd == sum(event.cost_usd for event in whole if event.cost_usd is not None)


def test_an_unknown_sum_is_unknown_not_zero(tmp_path):
    unknown = {"tokens_in": None, "tokens_out": None, "tokens_total": None, "cost_usd": None, "usage": []}
    service = service_over(tmp_path / "l.duckdb", [usage_row(**unknown)])
    totals = ask(service).totals
    assert (totals.tokens_in, totals.tokens_total, totals.cost_usd) == (None, None, None)


def test_an_event_on_the_edge_belongs_to_one_window_only(mixed):
    edge = NOON + timedelta(hours=70)
    before = ask(mixed, limit=1000, to=edge.isoformat())
    after = ask(mixed, limit=1000, **{"from": edge.isoformat()})
    assert sorted(ids(before) + ids(after)) == sorted(ids(ask(mixed, limit=1000)))
    assert "id-10" in ids(after)


# ── sorting and paging ───────────────────────────────────────────────────────────────────────────


def sort_value(event, field):
    if field.startswith("credits_"):
        return getattr(event.credits, field.removeprefix("credits_"))
    value = getattr(event, field)
    if field == "models":
        return "".join(f"\x1f{name}" for name in value) + ("\x1f" if value else "")
    return ",".join(value) if isinstance(value, list) else value


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("field", FLAT_FIELDS)
def test_every_column_sorts_both_ways_unknown_last_ties_by_id(mixed, field, order):
    events = everything(mixed)
    known = sorted((e for e in events if sort_value(e, field) is not None), key=lambda e: e.id)
    known.sort(key=lambda e: sort_value(e, field), reverse=order == "desc")
    unknown = sorted((e for e in events if sort_value(e, field) is None), key=lambda e: e.id)
    assert ids(ask(mixed, sort=field, order=order, limit=1000)) == [e.id for e in known + unknown]


@pytest.mark.parametrize("field", ["timestamp", "organization_id", "credits_total", "sync_status"])
def test_pages_cover_every_row_once(mixed, field):
    pages = [ids(ask(mixed, sort=field, limit=7, page=page)) for page in range(1, 7)]
    assert sum(pages, []) == ids(ask(mixed, sort=field, limit=1000))


def test_a_page_past_the_end_is_empty_and_says_how_many_there_are(mixed):
    found = ask(mixed, page=99, limit=25)
    assert (found.events, found.pagination.total_items, found.pagination.total_pages) == ([], 40, 2)


def test_pages_of_one_state_fit_together_while_data_arrives_and_changes(tmp_path):
    path = tmp_path / "billing.duckdb"
    rows = [usage_row(id=f"old-{n}", timestamp=NOON + timedelta(minutes=n)) for n in range(10)]
    service = service_over(path, rows)
    first = ask(service, limit=4)
    as_of = first.pagination.as_of
    ledger = ledger_at(path)
    newer = [usage_row(id=f"new-{n}", timestamp=NOON + timedelta(hours=n + 1)) for n in range(5)]
    changed = usage_row(id="old-5", timestamp=NOON - timedelta(days=1), usage=[model_usage(input=9000)])
    ledger.book(events_table([*newer, changed]), run_id="later")
    ledger.engine.close()

    pinned = [ask(service, limit=4, page=page, as_of=as_of) for page in (1, 2, 3)]
    assert [i for page in pinned for i in ids(page)] == [f"old-{n}" for n in reversed(range(10))]
    assert {page.totals.credits.total for page in pinned} == {first.totals.credits.total}
    assert ask(service, limit=4).pagination.total_items == 15
    service.close()


def test_an_answer_is_never_served_stale_after_a_booking(tmp_path):
    path = tmp_path / "billing.duckdb"
    service = service_over(path, [usage_row()])
    assert ask(service).pagination.total_items == 1
    ledger = ledger_at(path)
    ledger.book(events_table([usage_row(id="trace-2")]), run_id="later")
    ledger.engine.close()
    assert ask(service).pagination.total_items == 2
    service.close()


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"sort": "credits"}, "sort"),
        ({"order": "down"}, "order"),
        ({"page": 0}, "page"),
        ({"page": "two"}, "page"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"status": "done"}, "status"),
        ({"from": "yesterday"}, "from"),
        ({"from": "1700000000"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "to"),
        ({"amount_min": "lots"}, "amount_min"),
        ({"amount_max": "NaN"}, "amount_max"),
        ({"customer": ""}, "customer"),
        ({"colour": "red"}, "colour"),
        ({"page": "9" * 20}, "page"),
        ({"as_of": -1}, "as_of"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"to": "9999-12-31T23:59:59-12:00"}, "to"),
        ({"amount_min": 5, "amount_max": 1}, "amount_max"),
        ({"amount_min": "1e400"}, "amount_min"),
        ({"search": "x" * 501}, "search"),
        ({"search": "a\0b"}, "search"),
        ({"customer": "a\0b"}, "customer"),
    ],
)
def test_a_bad_parameter_is_a_value_error_that_names_it(mixed, params, named):
    with pytest.raises(ValueError, match=named) as caught:
        ask(mixed, **params)
    assert isinstance(caught.value, BadParameter)
    assert "\n" not in str(caught.value)


# ── scope ────────────────────────────────────────────────────────────────────────────────────────


def test_a_limited_principal_sees_only_its_organizations_in_rows_totals_charts_and_facets(mixed):
    own = [event for event in everything(mixed) if event.organization_id == "org_a"]
    found = ask(mixed, ACME, limit=1000)
    assert set(ids(found)) == {event.id for event in own}
    assert found.totals.credits.total == sum(event.credits.total for event in own)
    params = GetUsageEventsParams()
    assert {s.values[0] for s in mixed.breakdown(params, ACME, "organization")} == {"org_a"}
    assert [value for value, _ in mixed.facets(params, ACME, "organization")] == ["org_a"]
    assert sum(mixed.by_hour_of_week(params, ACME).values()) == found.totals.credits.total
    assert mixed.summary(params, ACME).totals.events == len(own)
    assert mixed.csv(params, ACME) is not None
    text = b"".join(mixed.csv(params, ACME)).decode()
    assert "org_b" not in text


def test_missing_ids_never_compare_equal_and_grant_nothing(mixed):
    for organizations in (frozenset(), frozenset({""}), frozenset({"None"}), frozenset({"null"})):
        found = ask(mixed, Principal("nobody", Role.ANALYST, organizations), limit=1000)
        assert (found.events, found.pagination.total_items) == ([], 0)


def test_asking_for_a_foreign_organization_is_refused_whether_it_exists_or_not(mixed):
    for name in ("org_b", "org_that_never_was"):
        with pytest.raises(AccessDenied, match=name):
            ask(mixed, ACME, organization=name)


def test_a_foreign_event_reads_like_one_that_does_not_exist(mixed):
    foreign = next(event for event in everything(mixed) if event.organization_id == "org_b")
    with pytest.raises(NotFound) as hidden:
        mixed.explain(foreign.id, ACME)
    with pytest.raises(NotFound) as absent:
        mixed.explain("nothing", ACME)
    assert str(hidden.value).replace(foreign.id, "X") == str(absent.value).replace("nothing", "X")


def test_answers_remembered_for_one_person_are_not_served_to_another(mixed):
    ask(mixed, EVERYONE, limit=1000)
    assert {event.organization_id for event in ask(mixed, ACME, limit=1000).events} == {"org_a"}
    assert len(everything(mixed)) == 40


# ── charts ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "dimension", ["organization", "customer", "user", "chatflow", "model", "environment", "status"]
)
def test_every_breakdown_adds_up_to_the_table(mixed, dimension):
    total = ask(mixed).totals.credits
    slices = mixed.breakdown(GetUsageEventsParams(), EVERYONE, dimension)
    assert sum(s.credits.total for s in slices) == total.total
    assert sum(s.credits.ai_tokens for s in slices) == total.ai_tokens
    assert sum(s.events for s in slices) == 40


def test_days_are_days_of_the_reporting_timezone(tmp_path):
    late = usage_row(id="late", timestamp=datetime(2026, 10, 31, 23, 30, tzinfo=UTC))
    early = usage_row(id="early", timestamp=datetime(2026, 10, 31, 22, 30, tzinfo=UTC))
    service = service_over(tmp_path / "l.duckdb", [late, early], BILLING_TIMEZONE="Europe/Berlin")
    summary = service.summary(GetUsageEventsParams(), EVERYONE)
    assert [(str(day.day), day.events) for day in summary.days] == [("2026-10-31", 1), ("2026-11-01", 1)]
    heat = service.by_hour_of_week(GetUsageEventsParams(), EVERYONE)
    assert heat == {(5, 23): Decimal(150), (6, 0): Decimal(150)}
    assert summary.ties_out
    service.close()


def test_header_days_and_previous_period(mixed):
    params = GetUsageEventsParams.parse({"from": "2026-11-05", "to": "2026-11-09"})
    summary = mixed.summary(params, EVERYONE)
    before = ask(mixed, limit=1000, **{"from": "2026-11-01", "to": "2026-11-05"})
    assert summary.ties_out
    assert summary.previous.events == before.pagination.total_items
    assert summary.previous.totals == before.totals
    unsynced = {"pending", "sending", "error"}
    inside = ask(mixed, limit=1000, **{"from": "2026-11-05", "to": "2026-11-09"}).events
    assert summary.totals.unsynced_credits == sum(e.credits.total for e in inside if e.sync_status in unsynced)
    assert summary.totals.errors == sum(e.sync_status == "error" for e in inside)


@given(
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"]
    ),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    st.integers(1, 800),
)
@settings(max_examples=examples(200))
def test_offsets_follow_the_zone_exactly_through_every_change(name, start, days):
    zone = ZoneInfo(name)
    start = start.replace(tzinfo=UTC)
    end = start + timedelta(days=days)
    steps = offsets(zone, start, end)
    for moment in (start + (end - start) * k / 97 for k in range(97)):
        offset = next(offset for until, offset in steps if moment < until)
        assert offset == moment.astimezone(zone).utcoffset()


def test_one_offset_needs_no_case():
    import ibis

    column = ibis.table({"q": "int32"}, name="t").q
    zone = ZoneInfo("Asia/Kolkata")
    expression = local_quarter_hour(column, local_time(zone, NOON, NOON + timedelta(days=400)))
    assert "CASE" not in str(ibis.to_sql(expression, dialect="duckdb"))


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1, max_size=6))
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_row_page_chart_and_csv_tell_the_same_credits(tmp_path_factory, usage):
    rows = [
        usage_row(id=f"t{n}", latency_seconds=ms / 1000, usage=[model_usage(input=tokens)])
        for n, (tokens, ms) in enumerate(usage)
    ]
    service = service_over(tmp_path_factory.mktemp("p") / "l.duckdb", rows)
    page = ask(service, limit=1000)
    total = sum(event.credits.total for event in page.events)
    lines = b"".join(service.csv(GetUsageEventsParams(), EVERYONE)).decode().splitlines()
    column = FLAT_FIELDS.index("credits_total")
    assert page.totals.credits.total == total
    assert sum(day.totals.credits.total for day in service.summary(GetUsageEventsParams(), EVERYONE).days) == total
    assert sum(s.credits.total for s in service.breakdown(GetUsageEventsParams(), EVERYONE, "user")) == total
    assert len(lines) == len(rows) + 1
    if len(rows) == 1:
        assert Decimal(lines[1].split(",")[column]) == total
    service.close()


# ── explanation and lint ────────────────────────────────────────────────────────────────────────────


def test_the_passport_prints_each_conversion_with_its_arithmetic(tmp_path):
    service = service_over(tmp_path / "l.duckdb", [usage_row(storage_gb=Decimal("0.5"))])
    explanation = service.explain("trace-1", EVERYONE)
    lines = [line for step in explanation.steps for line in step.lines]
    assert "gpt-5, input: 600 × 100 ÷ 1,000 = 60" in lines
    assert "60 s ÷ 60 × 50 per minute" in lines
    assert "0.5 GB-months × 500" in lines
    assert "100 + 50 + 250 = 400 credits" in lines
    assert "400 × 0.00004 USD = 0.016 USD" in lines
    assert any("rounded once half-even to 6 places" in line for line in lines)
    service.close()


@pytest.mark.parametrize(
    ("has_error", "says"),
    [
        (True, "errors: at least one observation failed (level ERROR)"),
        (False, "errors: no observation failed"),
        (None, "errors: unknown, no level of an observation was read"),
    ],
)
def test_the_passport_says_whether_an_observation_failed(tmp_path, has_error, says):
    service = service_over(tmp_path / "l.duckdb", [usage_row(has_error=has_error)])
    assert service.explain("trace-1", EVERYONE).steps[0].lines[-1] == says
    service.close()


def test_the_passport_names_an_error_that_was_told_later(tmp_path):
    path = tmp_path / "l.duckdb"
    service = service_over(path, [usage_row(has_error=False)])
    ledger = ledger_at(path)
    ledger.book(events_table([usage_row(has_error=True)]), run_id="second")
    ledger.engine.close()
    book = next(step for step in service.explain("trace-1", EVERYONE).steps if step.name == "Book")
    assert "has_error no → yes" in book.lines[0]
    service.close()


def test_the_passport_tells_what_changed_between_revisions(tmp_path):
    path = tmp_path / "l.duckdb"
    service = service_over(path, [usage_row()])
    ledger = ledger_at(path)
    ledger.book(events_table([usage_row(tokens_in=700, usage=[model_usage(input=700, output=400)])]), run_id="second")
    ledger.engine.close()
    book = next(step for step in service.explain("trace-1", EVERYONE).steps if step.name == "Book")
    assert "tokens_in 600 → 700" in book.lines[0]
    assert "credits_total 150 → 160" in book.lines[0]
    service.close()


def test_lint_reports_tokens_without_a_price_odd_credits_and_implausible_latency(tmp_path):
    path = tmp_path / "l.duckdb"
    rows = [
        usage_row(id="fine"),
        usage_row(id="unpriced", unpriced=True),
        usage_row(id="endless", latency_seconds=200_000),
        usage_row(id="tampered"),
    ]
    service = service_over(path, rows)
    ledger = ledger_at(path)
    with ledger.engine.transaction() as writer:
        writer.update("events", {"id": "tampered", "credits_compute": Decimal(7)}, key="id")
    ledger.engine.close()
    found = {(finding.event_id, finding.rule) for finding in service.lint(GetUsageEventsParams(), EVERYONE)}
    assert found == {("unpriced", "unpriced"), ("endless", "latency"), ("tampered", "credits")}
    service.close()


# ── csv ──────────────────────────────────────────────────────────────────────────────────────────


def test_csv_cells_that_look_like_formulas_are_neutralised(tmp_path):
    rows = [
        usage_row(user_id='=HYPERLINK("http://evil","x")', chatflow_name="+1", session_id="-2", organization_id="@SUM")
    ]
    service = service_over(tmp_path / "l.duckdb", rows)
    text = b"".join(service.csv(GetUsageEventsParams(), EVERYONE)).decode()
    assert '"\'=HYPERLINK(""http://evil"",""x"")"' in text
    assert ",'+1," in text
    assert ",'-2," in text
    assert ",'@SUM," in text
    service.close()


def test_csv_has_the_flat_names_and_exact_numbers(tmp_path):
    service = service_over(tmp_path / "l.duckdb", [usage_row(cost_usd=Decimal("0.0000001"))])
    header, line = b"".join(service.csv(GetUsageEventsParams(), EVERYONE)).decode().splitlines()
    assert tuple(header.split(",")) == FLAT_FIELDS
    assert ",0.0000001," in line
    assert "2026-11-01T12:00:00.000Z" in line
    assert '"[""gpt-5""]"' in line
    service.close()


# ── modes ────────────────────────────────────────────────────────────────────────────────────────


def test_a_dashboard_in_demo_mode_refuses_a_ledger_with_live_data(tmp_path):
    path = tmp_path / "l.duckdb"
    live = service_over(path, [usage_row()])
    live._ledger.claim(live.settings.mode)
    live.close()
    demo = service_over(path, BILLING_MODE="demo")
    with pytest.raises(SettingsError, match="live data"):
        demo.check_mode()
    demo.close()


def test_trace_links_escape_odd_ids(tmp_path):
    service = service_over(tmp_path / "l.duckdb", [usage_row(id="a/b c?")])
    assert ask(service).events[0].trace_url == "http://langfuse.test/project/project/traces/a%2Fb%20c%3F"
    service.close()


def test_whoever_changes_an_answer_does_not_change_the_next_ones(mixed):
    everything = GetUsageEventsParams()
    for ask_again in (
        lambda: mixed.breakdown(everything, EVERYONE, "organization"),
        lambda: mixed.facets(everything, EVERYONE, "user"),
        lambda: mixed.by_hour_of_week(everything, EVERYONE),
    ):
        ask_again().clear()
        assert ask_again()


def test_the_passport_says_what_a_closed_month_says_and_where_the_rest_counts(tmp_path):
    world = MonthWorld(tmp_path / "billing.duckdb", [trace("a"), trace("b", 6)])
    try:
        world.close()
        world.book(trace("a", latency_seconds=120))
        steps = {name: {s.name: s for s in world.service.explain(name, EVERYONE).steps} for name in ("a", "b")}
        assert steps["b"]["Close"].lines == ("2026-10: 150 credits, processed when it was closed",)
        assert steps["a"]["Close"].lines[0] == "2026-10: 150 credits, processed when it was closed"
        assert steps["a"]["Close"].lines[1].endswith("the difference to 200 credits")
    finally:
        world.service.close()
