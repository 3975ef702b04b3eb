"""Every question that can be asked, over a ledger that was lived in and over an empty one: answered, and adding up."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.audit.service import AuditQuery
from billing_core.errors import AccessDenied, NotFound
from billing_core.exports.model import FORMATS, Dataset, ExportRequest, Format, Grain
from billing_core.ledger.queries import DIMENSIONS
from billing_core.rating.card import builtin_cards
from billing_core.stripe_sync.pipeline import Action
from billing_core.types import FLAT_FIELDS, Attribute, GetUsageEventsParams, PipelineStage, SyncStatus
from tests.examples import examples
from tests.factories import EVERYONE, ledger_at
from tests.lived_in import ACME, FINANCE, WINDOWS, copied, service_at

EMPTY, LIVED_IN = "empty", "lived in"
WHO = {"everyone": EVERYONE, "one organization": ACME, "nobody's": Principal("no", Role.ANALYST, frozenset({"org_x"}))}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """A service over each kind of ledger; these tests only ask."""
    folder = tmp_path_factory.mktemp("asked")
    ledger_at(folder / "empty" / "billing.duckdb").engine.close()
    made = {
        EMPTY: service_at(folder / "empty" / "billing.duckdb"),
        LIVED_IN: service_at(copied(tmp_path_factory, folder)),
    }
    yield made
    for service in made.values():
        service.close()


@pytest.fixture(params=[EMPTY, LIVED_IN])
def service(services, request):
    return services[request.param]


@pytest.fixture
def lived_in(services):
    return services[LIVED_IN]


def ask(service, who=EVERYONE, **asked):
    return service.get_usage_events(GetUsageEventsParams.parse({"limit": 1000, **asked}), who)


def rows(service, who=EVERYONE, **asked):
    return ask(service, who, **asked).events


def whole(service, who, **asked):
    """Credits of the rows of a question, after checking that its totals say the same."""
    found = ask(service, who, **asked)
    credits_ = sum((event.credits.total for event in found.events), Decimal(0))
    assert found.totals.credits.total == credits_
    assert found.totals.amount_usd == sum((event.amount_usd for event in found.events), Decimal(0))
    assert found.pagination.total_items == len(found.events)
    return credits_


# ── what the ledger is ───────────────────────────────────────────────────────────────────────────


def test_it_has_all_that_happens_to_a_ledger(lived_in):
    found = rows(lived_in)
    assert {event.sync_status for event in found} == set(SyncStatus)
    flags = {flag.value for event in found for flag in event.flags}
    assert {"late_after_close", "changed_after_sending", "own_key", "unpriced", "no_customer", "no_usage"} <= flags
    assert max(Counter(event.id for event in found).values()) >= 3
    assert [month.state.value for month in lived_in.months.months(FINANCE)] == ["open", "closed", "closed"]
    assert {one.undone_at is None for one in lived_in.imports.imports(EVERYONE)} == {True, False}
    stages = lived_in.stripe.pipeline(EVERYONE).stages
    happened = {stage for stage, amounts in stages.items() if amounts.events}
    assert happened == set(PipelineStage) - {
        PipelineStage.BILLED_BEFORE,
        PipelineStage.SETTLED,
    }  # there was no system before


# ── events ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sort", FLAT_FIELDS)
def test_events_are_sorted_by_every_field_both_ways_and_pages_hold_each_row_once(lived_in, sort):
    for order in ("asc", "desc"):
        asked = {"sort": sort, "order": order}
        everything = [event.model_dump_json() for event in rows(lived_in, **asked)]
        paged = [event for page in (1, 2, 3) for event in rows(lived_in, **asked, limit=19, page=page)]
        assert [event.model_dump_json() for event in paged] == everything


def test_an_empty_ledger_is_sorted_too(services):
    for sort in FLAT_FIELDS:
        assert rows(services[EMPTY], sort=sort) == []


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("window", WINDOWS)
def test_rows_totals_days_breakdowns_and_heat_map_add_up_to_the_same(service, window, who):
    params, principal = GetUsageEventsParams.parse(WINDOWS[window]), WHO[who]
    credits_ = whole(service, principal, **WINDOWS[window])
    summary = service.summary(params, principal)
    assert summary.ties_out
    assert summary.totals.totals.credits.total == credits_
    assert sum((day.totals.credits.total for day in summary.days), Decimal(0)) == credits_
    assert sum(service.by_hour_of_week(params, principal).values(), Decimal(0)) == credits_
    for dimension in DIMENSIONS:
        slices = service.breakdown(params, principal, dimension)
        assert sum((one.credits.total for one in slices), Decimal(0)) == credits_, dimension
        assert sum(one.events for one in slices) == summary.totals.events
    pairs = service.breakdown(params, principal, "organization", "model")
    assert sum((one.credits.total for one in pairs), Decimal(0)) == credits_


def test_a_limited_account_sees_the_rows_of_its_organization_and_no_other(lived_in):
    seen = rows(lived_in, organization="org_acme")
    mine = [event.model_copy(update={"cost_usd": None}).model_dump_json() for event in seen]  # no costs
    assert [event.model_dump_json() for event in rows(lived_in, ACME)] == mine
    assert mine
    assert rows(lived_in, WHO["nobody's"]) == []


@pytest.mark.parametrize("window", ["everything", "across a close"])
def test_every_facet_is_a_filter_that_shows_as_many_rows_as_it_says(service, window):
    params = GetUsageEventsParams.parse(WINDOWS[window])
    for dimension in ("organization", "customer", "user", "chatflow", "model", "environment", "status"):
        for value, events in service.facets(params, EVERYONE, dimension):
            assert ask(service, **WINDOWS[window], **{dimension: value}).pagination.total_items == events
            whole(service, EVERYONE, **WINDOWS[window], **{dimension: value})


def test_filters_that_exclude_each_other_and_lacks_divide_the_whole(service):
    everything = whole(service, EVERYONE)
    by_status = [whole(service, EVERYONE, status=status) for status in SyncStatus]
    assert sum(by_status, Decimal(0)) == everything
    for lacking in Attribute:
        whole(service, EVERYONE, without=lacking)
    for search in ("oct", "%", "_", "“quoted”", "größe", "nothing like it", "\\", "'"):
        whole(service, EVERYONE, search=search)
    for bounds in ({"amount_min": "0"}, {"amount_max": "0"}, {"amount_min": "-1", "amount_max": "0.001"}):
        whole(service, EVERYONE, **bounds)


QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "organization": st.sampled_from(["org_acme", "org_b", "none"]),
        "customer": st.sampled_from(["cus_a", "cus_b", "cus_gone"]),
        "status": st.lists(st.sampled_from(sorted(SyncStatus)), min_size=1, max_size=3),
        "without": st.sampled_from(sorted(Attribute)),
        "search": st.sampled_from(["late", "a", "_", "sep-1", "gpt"]),
        "amount_min": st.sampled_from(["0", "0.001", "-0.01"]),
        "from": st.datetimes(datetime(2026, 8, 30), datetime(2026, 11, 21)).map(lambda at: at.isoformat()),
        "sort": st.sampled_from(FLAT_FIELDS),
        "order": st.sampled_from(["asc", "desc"]),
    },
)


@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=QUESTIONS, who=st.sampled_from(sorted(WHO)), age=st.integers(0, 60))
def test_any_question_about_any_state_of_the_ledger_is_answered_and_adds_up(lived_in, asked, who, age):
    if WHO[who].organizations is not None:  # who asks for another organization is refused, or for an order by cost
        asked = {name: value for name, value in asked.items() if name != "organization" and value != "cost_usd"}
    as_of = max(0, lived_in.version() - age)
    found = whole(lived_in, WHO[who], as_of=as_of, **asked)
    question = {name: value for name, value in asked.items() if name not in {"sort", "order"}}
    summary = lived_in.summary(GetUsageEventsParams.parse({**question, "as_of": as_of}), WHO[who])
    assert summary.ties_out
    assert summary.totals.totals.credits.total == found


def test_every_event_is_explained_and_its_steps_end_where_the_row_does(lived_in):
    for event in {event.id: event for event in rows(lived_in)}.values():
        explanation = lived_in.explain(event.id, EVERYONE)
        assert json.dumps(explanation.to_json(), default=str)
    mine = {event.id for event in rows(lived_in, ACME)}
    hidden = {event.id for event in rows(lived_in)} - mine
    assert hidden
    for event_id in hidden:
        with pytest.raises(NotFound):
            lived_in.explain(event_id, ACME)


def test_lint_and_the_download_read_the_whole_ledger(service):
    params = GetUsageEventsParams()
    assert all(finding.event_id for finding in service.lint(params, EVERYONE))
    lines = b"".join(service.csv(params, EVERYONE)).decode().splitlines()
    assert len(lines) >= 1 + ask(service).pagination.total_items


# ── files ────────────────────────────────────────────────────────────────────────────────────────

TABLES = (Format.CSV, Format.XLSX, Format.PARQUET, Format.JSON)
FILES = [
    (dataset, form, grain)
    for dataset, forms in FORMATS.items()
    if dataset not in {Dataset.RECONCILIATION, Dataset.BUNDLE}  # they read Langfuse and Stripe anew
    for form in forms
    for grain in (Grain if dataset is Dataset.USAGE_EVENTS and form in TABLES else (Grain.EVENT,))
]


@pytest.mark.parametrize("window", ["everything", "across a close"])
@pytest.mark.parametrize(("dataset", "form", "grain"), FILES)
def test_every_data_set_leaves_in_every_form_with_the_totals_of_the_screen(
    service, tmp_path, dataset, form, grain, window
):
    params = GetUsageEventsParams.parse(WINDOWS[window])
    request = ExportRequest(dataset, form, params, grain=grain)
    path = tmp_path / f"file.{form}"
    result = service.exports.write(request, EVERYONE, path)
    assert path.stat().st_size == result.bytes
    if dataset is Dataset.USAGE_EVENTS and form in TABLES:
        assert Decimal(result.to_json()["totals"]["credits"]["total"]) == whole(service, EVERYONE, **WINDOWS[window])
    if form is Format.XLSX:
        assert zipfile.ZipFile(io.BytesIO(path.read_bytes())).testzip() is None


# ── organizations, Stripe, months, log ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("window", WINDOWS)
def test_organization_statistics_add_up_to_the_events(service, window):
    params = GetUsageEventsParams.parse(WINDOWS[window])
    for principal in (EVERYONE, Principal("adm", Role.ADMIN, frozenset({"org_acme"}))):
        found = service.organizations.statistics(params, principal)
        credits_ = whole(service, principal, **WINDOWS[window])
        assert sum((one.now.credits.total for one in found.organizations), Decimal(0)) == credits_
        assert found.total.credits.total == credits_
        service.organizations.active_users(params, principal)


def test_limits_notices_forecasts_and_anomalies_are_answered(service):
    desk = service.organizations
    desk.limits.read(EVERYONE)
    b"".join(desk.limits.csv(EVERYONE))
    desk.limits.notices.due_notices(EVERYONE)
    for organization in (None, "org_acme", "org_b", "unknown"):
        desk.forecasting.forecast(EVERYONE, organization)
        desk.forecasting.driver(EVERYONE, organization)
    desk.directory.entries(EVERYONE)


def test_stages_of_the_pipeline_hold_every_event_once_and_each_problem_has_its_events(lived_in):
    pipeline = lived_in.stripe.pipeline(EVERYONE)
    assert pipeline.total.events == lived_in._ledger.engine.rows("SELECT count(*) FROM events")[0][0]
    stuck = pipeline.stages[PipelineStage.ERROR].events + pipeline.stages[PipelineStage.HELD].events
    problems = lived_in.stripe.problems(EVERYONE)
    assert sum(one.amounts.events for one in problems if one.cause != "correction_held") == stuck
    for problem in problems:
        for action in problem.actions:
            lived_in.stripe.preview(EVERYONE, action, cause=problem.cause)


def test_stripe_and_month_questions_are_answered_on_any_ledger(service):
    for ask_ in (service.stripe.pipeline, service.stripe.problems, service.stripe.next_deadline, service.stripe.pushes):
        ask_(EVERYONE)
    for action in Action:
        service.stripe.preview(EVERYONE, action)
    assert service.stripe.last_reconciliation(EVERYONE) is None or service is not None
    service.months.months(FINANCE)
    service.freshness()
    service.runs()
    service.trail.page(EVERYONE, AuditQuery())
    assert service.trail.verify(EVERYONE).broken_at is None


def test_closed_months_are_proven_still(lived_in):
    for period in ("2026-09", "2026-10"):
        assert lived_in.months.verify(period, FINANCE).differences == ()


def test_a_card_that_charges_the_same_changes_nothing_of_what_has_a_card(service):
    found = service.rerating.what_if(EVERYONE, builtin_cards())
    assert {one.delta for one in found.organizations} <= {Decimal(0)}


def test_limited_accounts_are_refused_what_is_about_everything(lived_in):
    for ask_ in (lived_in.stripe.pipeline, lived_in.stripe.problems, lived_in.months.months):
        with pytest.raises(AccessDenied):
            ask_(ACME)
