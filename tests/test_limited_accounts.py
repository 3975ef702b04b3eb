"""Accounts limited to organizations see no cost and no margin of ours, whatever they ask and in whatever file."""

from __future__ import annotations

import json
import zipfile
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied
from billing_core.exports.model import FORMATS, OF_EVERYTHING, Dataset, ExportRequest, Format, Grain, may_export
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.explore_model import COSTS, Dimension, ExploreQuestion, Metric
from tests.factories import CARD, EVERYONE, events_table, ledger_at, model_usage, service_over, usage_row
from tests.lived_in import copied, service_at

ANALYST = Principal("lim", Role.ANALYST, frozenset({"org_acme"}))
FINANCE = Principal("fay", Role.FINANCE, frozenset({"org_acme"}))
ADMIN = Principal("ada", Role.ADMIN, frozenset({"org_acme"}))
LIMITED = (ANALYST, FINANCE, ADMIN)

COST = "0.071319273137"
"""A cost whose digits occur nowhere else."""

MARGIN = Decimal("1.371371")


def params(**asked):
    return GetUsageEventsParams.parse({"limit": 1000, **asked})


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    service = service_at(copied(tmp_path_factory, tmp_path_factory.mktemp("asked")))
    yield service
    service.close()


@pytest.fixture
def costly(tmp_path):
    """One event of a model with a cost, rated by a card with a margin."""
    card = CARD.model_copy(update={"id": "card-2", "margin": MARGIN})
    usage = [model_usage("gpt-5", COST, input=1000)]
    row = usage_row(id="one", organization_id="org_acme", usage=usage, cost_usd=Decimal(COST))
    ledger = ledger_at(tmp_path / "l.duckdb")
    ledger.register_cards([card], actor="tester")
    ledger.book(events_table([row], card), run_id="seed")
    ledger.engine.close()
    service = service_over(tmp_path / "l.duckdb")
    yield service
    service.close()


@pytest.mark.parametrize("who", LIMITED, ids=lambda who: who.role.value)
def test_no_event_no_total_and_no_statistic_names_a_cost(lived_in, who):
    found = lived_in.get_usage_events(params(), who)
    assert found.events
    assert {event.cost_usd for event in found.events} == {None}
    assert found.totals.cost_usd is None
    assert found.frame["cost_usd"].isna().all()
    assert lived_in.summary(params(), who).totals.totals.cost_usd is None
    if who is ADMIN:
        statistics = lived_in.organizations.statistics(params(), who)
        assert statistics.ties_out
        assert not statistics.has_costs
        for one in statistics.to_json()["organizations"]:
            assert (one["cost_usd"], one["margin_usd"]) == (None, None)


@pytest.mark.parametrize("who", LIMITED, ids=lambda who: who.role.value)
def test_events_are_neither_sorted_nor_explored_by_cost(lived_in, who):
    with pytest.raises(AccessDenied, match="no cost or margin of ours: sort by another field"):
        lived_in.get_usage_events(params(sort="cost_usd"), who)
    for metric in COSTS:
        with pytest.raises(AccessDenied, match="another metric"):
            lived_in.explore(params(), ExploreQuestion((Dimension.MODEL,), metric), who)
    explored = lived_in.explore(params(), ExploreQuestion((Dimension.MODEL,), Metric.CREDITS), who)
    assert explored.totals.value == lived_in.get_usage_events(params(), who).totals.credits.total


def test_whoever_sees_everything_sees_costs(lived_in):
    assert lived_in.get_usage_events(params(sort="cost_usd"), EVERYONE).totals.cost_usd
    assert lived_in.organizations.statistics(params(), EVERYONE).has_costs


@pytest.mark.parametrize("who", LIMITED, ids=lambda who: who.role.value)
def test_an_explanation_says_what_the_customer_pays_and_not_what_we_do(costly, who):
    theirs = json.dumps(costly.explain("one", who).to_json(), ensure_ascii=False)
    ours = json.dumps(costly.explain("one", EVERYONE).to_json(), ensure_ascii=False)
    for said in (COST, str(MARGIN)):
        assert said in ours
        assert said not in theirs
    assert "margin" not in theirs
    # The rate with the margin in it: nothing of the arithmetic is lost.
    assert "1,000 × 137.1371 ÷ 1,000 = 137.1371" in theirs


@pytest.mark.parametrize("who", LIMITED, ids=lambda who: who.role.value)
def test_no_file_holds_a_cost_or_a_margin(costly, who, tmp_path):
    written = 0
    for dataset in may_export(who):
        for form in FORMATS[dataset] or (None,):
            for grain in (
                Grain if dataset is Dataset.USAGE_EVENTS and form in {Format.CSV, Format.XLSX} else [Grain.EVENT]
            ):
                path = tmp_path / f"{dataset}.{form}.{grain}"
                costly.exports.write(ExportRequest(dataset, form, grain=grain), who, path)
                written += 1
                for text in texts_of(path):
                    assert COST not in text
                    assert str(MARGIN) not in text
    assert written >= len(Format)
    unlimited = tmp_path / "all.csv"
    costly.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.CSV), EVERYONE, unlimited)
    assert COST in unlimited.read_text()


def texts_of(path):
    """What a file says, as text: of a zip (a bundle, XLSX) that of its members, of Parquet that of its cells."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            for name in members.namelist():
                inner = path.with_name(f"{path.name}-{name.replace('/', '_')}")
                inner.write_bytes(members.read(name))
                yield from texts_of(inner)
    elif path.read_bytes()[:4] == b"PAR1":
        from pyarrow import parquet

        yield str(parquet.read_table(path).to_pylist())
    else:
        yield path.read_text(encoding="latin-1")  # DATEV writes Windows-1252; figures read the same in each


def test_what_cannot_be_without_our_margins_is_refused(costly, tmp_path):
    for dataset in OF_EVERYTHING:
        assert dataset not in may_export(FINANCE)
        assert dataset in may_export(EVERYONE)
        with pytest.raises(AccessDenied):
            costly.exports.write(ExportRequest(dataset, Format.CSV), FINANCE, tmp_path / "refused")
    focus = ExportRequest(Dataset.USAGE_EVENTS, Format.FOCUS, internal=True)
    with pytest.raises(AccessDenied, match="our costs"):
        costly.exports.write(focus, FINANCE, tmp_path / "refused")


def test_a_bundle_says_what_it_was_made_without(costly, tmp_path):
    costly.exports.write(ExportRequest(Dataset.BUNDLE, None), FINANCE, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert "rate-card.json" not in bundle.namelist()
        left_out = json.loads(bundle.read("manifest.json"))["left_out"]
    assert any(line.startswith("rate-card.json") for line in left_out)
