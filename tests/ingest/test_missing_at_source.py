"""A trace that Langfuse no longer has is marked when its window is read again; nothing else changes."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE, events_table, usage_row
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, Answer, FakeLangfuse, observation

START, END = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 11, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
FLAG = "missing_at_source"


@pytest.fixture(params=["v2", "legacy"])
def langfuse(request):
    server = FakeLangfuse()
    server.offers_v2, server.offers_legacy = request.param == "v2", request.param == "legacy"
    yield server
    server.close()


@pytest.fixture
def service(langfuse, tmp_path):
    environment = {
        "LANGFUSE_HOST": langfuse.url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/billing.duckdb",
    }
    service = BillingService(load_settings(environment, env_file=None), clock=lambda: NOW)
    yield service
    service.close()


@pytest.fixture
def pull(service) -> Callable[[], int]:
    return lambda: service.pull(EVERYONE, start=START, end=END).to_json()[FLAG]


def hold(langfuse, *traces, start="2026-10-10T10:00:00.000Z"):
    """Make the server hold these traces and no other."""
    tokens = {"usageDetails": {"input": 1000}, "metadata": {"customerId": "cus_1"}}
    langfuse.rows = [observation("o", trace, start, start, **tokens) for trace in traces]
    langfuse.traces = [{"id": trace, "timestamp": start, "metadata": {}, "latency": 0} for trace in traces]


def shown(service):
    """Event → whether it is marked, its credits and its status."""
    page = service.get_usage_events(GetUsageEventsParams(), EVERYONE)
    return {e.id: (FLAG in e.flags, e.credits.total, e.sync_status) for e in page.events}


def marked(service):
    return sorted(event for event, (is_marked, _, _) in shown(service).items() if is_marked)


def test_a_deleted_trace_is_marked_counted_and_otherwise_left_alone(langfuse, service, pull):
    hold(langfuse, "kept", "deleted")
    assert pull() == 0
    before, version = shown(service), service.version()
    hold(langfuse, "kept")
    assert pull() == 1
    assert marked(service) == ["deleted"]
    assert {e: values[1:] for e, values in shown(service).items()} == {e: values[1:] for e, values in before.items()}
    assert service.version() > version
    version = service.version()
    assert pull() == 1
    assert service.version() == version


def test_a_trace_that_comes_back_loses_the_mark(langfuse, service, pull):
    hold(langfuse, "kept", "deleted")
    pull()
    hold(langfuse, "kept")
    pull()
    hold(langfuse, "kept", "deleted")
    assert pull() == 0
    assert marked(service) == []


def test_when_everything_is_gone_everything_is_marked(langfuse, service, pull):
    hold(langfuse, "one", "two")
    pull()
    hold(langfuse)
    assert pull() == 2


def test_a_trace_whose_rows_moved_is_there(langfuse, service, pull):
    hold(langfuse, "moved")
    pull()
    hold(langfuse, "moved", start="2026-09-20T10:00:00.000Z")
    assert pull() == 0
    assert marked(service) == []


def test_a_trace_whose_rows_cannot_be_read_any_more_is_there(langfuse, service, pull):
    hold(langfuse, "odd", "deleted")
    pull()
    hold(langfuse, "odd")
    langfuse.rows[0]["startTime"] = "2026-10-10T10:00:00.000Z"
    langfuse.rows[0]["id"] = ""
    langfuse.traces = []
    assert pull() == 1
    assert marked(service) == ["deleted"]


def test_what_other_projects_and_imports_brought_is_not_missing_here(langfuse, service, pull):
    of = {"timestamp": datetime(2026, 10, 10, tzinfo=UTC)}
    ledger = service._ledger
    ledger.register_cards(service.rate_cards().cards, actor="test")
    for event, project, run in (("other", "p2", "run"), ("none", None, "run"), ("imported", "p1", "import:1")):
        ledger.book(events_table([usage_row(id=event, project_id=project, **of)]), run_id=run)
    assert pull() == 0
    assert marked(service) == []


def test_a_window_that_could_not_be_read_marks_nothing(langfuse, service, pull):
    hold(langfuse, "kept")
    pull()
    hold(langfuse)
    langfuse.answer_when(lambda r: r.path in {"v2/observations", "observations"}, Answer(403, {"message": "suspended"}))
    with pytest.raises(Exception, match="suspended"):
        pull()
    assert marked(service) == []


def test_a_trace_outside_the_window_that_is_read_is_not_asked_for(langfuse, service, pull):
    hold(langfuse, "earlier", start="2026-09-10T10:00:00.000Z")
    service.pull(EVERYONE, start=datetime(2026, 9, 10, tzinfo=UTC), end=datetime(2026, 9, 11, tzinfo=UTC))
    hold(langfuse)
    assert pull() == 0
    assert marked(service) == []


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
def test_a_server_that_keeps_its_data_for_the_older_api_has_lost_nothing(langfuse, service, pull):
    hold(langfuse, "kept")
    pull()
    traces, langfuse.rows = langfuse.traces, []
    langfuse.traces, langfuse.offers_legacy = traces, True
    assert service.pull(EVERYONE, start=START, end=END).api in {"v2", "legacy"}
    assert marked(service) == []
