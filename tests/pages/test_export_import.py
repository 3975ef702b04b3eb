"""The Export and import page and the export dialog as a script sees them; files are made in `tests/browser`."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, WarehouseError
from billing_core.exports.model import (
    Dataset,
    ExportPreview,
    ExportProgress,
    ExportRequest,
    ExportResult,
    Format,
    Grain,
)
from billing_core.exports.service import ExportService
from billing_core.imports.model import (
    FileKind,
    ImportOutcome,
    ImportPlan,
    ImportRecord,
    ImportResult,
    OrganizationEffect,
    RejectedLine,
    UndoResult,
)
from billing_core.imports.service import ImportService
from billing_core.runtime import clock
from billing_core.web import wiring
from billing_core.web.export_jobs import ExportJobs
from components.exports.state import JOB, OPEN
from components.imports.state import READING
from components.shared import sign_in
from tests.factories import ledger_at, usage_row
from tests.pages.opening import opened_at, signed_in
from tests.stand_ins import called_as

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages" / "export_import.py"
SHA = "ab" * 32
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


# ── stand-ins for the desks, which have tests of their own ───────────────────────────────────────


class Exports:
    """Previews two of three rows; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[ExportRequest, Principal]] = []
        self.rows = 3
        self.error: Exception | None = None

    def columns(self, request: ExportRequest) -> tuple[str, ...]:
        assert request.columns == ()
        return ("id", "chatflow_name", "credits_total")

    def preview(self, request: ExportRequest, principal: Principal, rows: int) -> ExportPreview:
        self.asked.append((request, principal))
        if self.error is not None:
            raise self.error
        shown = (("e1", "=1+1 *bold*", "150"), ("e2", None, "300"))[: self.rows]
        totals = {"credits_total": Decimal("1450.5") if self.rows else Decimal(0), "amount_usd": Decimal("0.05802")}
        as_of = request.params.as_of
        assert as_of is not None
        return ExportPreview(("id", "chatflow_name", "credits_total"), shown, self.rows, totals, as_of, NOW)


@dataclass
class JobState:
    is_running: bool = True
    progress: ExportProgress = field(default_factory=lambda: ExportProgress(1200, 4800, "Writing"))
    result: ExportResult | None = None
    error: str | None = None
    request: ExportRequest | None = None


class Jobs:
    """One job, `job-1`, of whoever started it."""

    def __init__(self) -> None:
        self.now = JobState()
        self.started: list[tuple[ExportRequest, str]] = []
        self.cancelled: list[str] = []
        self.refusal: Exception | None = None

    def start(self, service, principal: Principal, request: ExportRequest) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.started.append((request, principal.name))
        return "job-1"

    def state(self, job_id: str, principal: Principal) -> JobState:
        if not self.started or (job_id, principal.name) != ("job-1", self.started[-1][1]):
            raise NotFound("no such export")
        return replace(self.now, request=self.started[-1][0])

    def cancel(self, job_id: str, principal: Principal) -> None:
        self.cancelled.append(job_id)
        self.now = JobState(is_running=False, error="cancelled")

    def close(self) -> None:
        pass


def finished(rows: int = 3, **totals: Decimal) -> JobState:
    found = {"credits_total": Decimal("1450.5"), "amount_usd": Decimal("0.05802"), **totals}
    return JobState(is_running=False, result=ExportResult("usage-events.csv", rows, 1536, SHA, found, {}))


PLAN = ImportPlan(
    FileKind.USAGE_EVENTS,
    "october.csv",
    SHA,
    1536,
    4,
    ImportOutcome(2, 1, 1, (OrganizationEffect("org_<b>a</b>", 2, Decimal("300"), Decimal("0.012")),)),
    columns=("id", "*timestamp*"),
    warnings=("2 events with 300 credits are pending and would be sent",),
)


@dataclass
class Imports:
    """Answers with `found`, whatever the file; keeps what it was asked."""

    found: ImportPlan | Exception = PLAN
    refusal: Exception | None = None
    records: list[ImportRecord] = field(default_factory=list)
    read: list[tuple[bytes, str, bool]] = field(default_factory=list)
    timezones: list[str | None] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)

    def plan(
        self, path: Path, principal, *, name=None, skip_bad_rows=False, timezone=None, progress=None
    ) -> ImportPlan:
        self.read.append((path.read_bytes(), name, skip_bad_rows))
        self.timezones.append(timezone)
        if isinstance(self.found, Exception):
            raise self.found
        read = replace(self.found, skip_bad_rows=skip_bad_rows)
        return read if read.is_whole else replace(read, outcome=ImportOutcome())  # what cannot be read is not compared

    def apply(self, plan: ImportPlan, principal, progress=None) -> ImportResult:
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(principal.name)
        self.records.insert(
            0, ImportRecord("imp_1", plan.kind, plan.file_name, plan.sha256, 2, 1, 1, 0, NOW, principal.name)
        )
        return ImportResult(plan, plan.outcome, ("imp_1",))

    def imports(self, principal, limit) -> list[ImportRecord]:
        return self.records

    def undo(self, import_id: str, principal) -> UndoResult:
        if self.refusal is not None:
            raise self.refusal
        self.undone.append(import_id)
        self.records = [replace(one, undone_at=NOW, undone_by=principal.name) for one in self.records]
        return UndoResult(import_id, FileKind.USAGE_EVENTS, 2, 1)


@pytest.fixture(autouse=True)
def booked(demo):
    rows = [
        usage_row(id=f"e{n}", timestamp=clock.now() - timedelta(hours=n), organization_id="org_acme") for n in (1, 2, 3)
    ]
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()


@pytest.fixture(autouse=True)
def exports():
    stand_in = Exports()
    wiring.service().exports = called_as(ExportService, stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def imports():
    stand_in = Imports()
    wiring.service().imports = called_as(ImportService, stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def jobs(monkeypatch):
    stand_in = Jobs()
    monkeypatch.setattr(wiring, "export_jobs", wiring.Once(lambda: called_as(ExportJobs, stand_in)))
    return stand_in


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def opened(name: str = "admin", **query: str | list[str]) -> AppTest:
    """The page as `name` sees it after opening this address."""
    return opened_at(name, "export_import.py", **query)


def texts(run: AppTest) -> str:
    """Everything that can be read, without Markdown's escapes."""
    kinds = ("title", "header", "caption", "markdown", "text", "info", "warning", "error", "success", "code")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def keys(run: AppTest) -> set[str]:
    return {button.key for button in run.button}


def box(run: AppTest, label: str):
    return next(one for one in (*run.selectbox, *run.toggle, *run.multiselect, *run.text_input) if one.label == label)


def labels(run: AppTest) -> set[str]:
    return {one.label for one in (*run.selectbox, *run.toggle, *run.multiselect)}


def links(run: AppTest) -> dict[str, str]:
    return {one.proto.label: one.proto.url for one in run.get("link_button")}


def frame(run: AppTest, column: str):
    return next(one.value for one in run.dataframe if column in one.value.columns)


# ── who sees what ────────────────────────────────────────────────────────────────────────────────


def test_analysts_are_offered_usage_events_and_nothing_else():
    run = opened("analyst", view="import", dataset="organizations")
    assert list(box(run, "Data set").options) == ["Usage events"]
    assert not run.tabs
    assert not run.file_uploader
    assert "Earlier imports" not in texts(run)


def test_only_admins_are_offered_imports():
    finance, admin = opened("finance", view="import"), opened("admin", view="import")
    assert not finance.tabs
    assert "You need the admin role to import." in texts(finance)
    assert len(box(finance, "Data set").options) == 6
    assert not finance.file_uploader
    assert [tab.label for tab in admin.tabs] == ["Export", "Import"]
    assert admin.file_uploader


def test_a_part_that_nobody_offers_is_named_and_the_export_shown():
    run = opened("admin", view="months!")
    assert "view: 'months!' is not accepted" in texts(run)
    assert box(run, "Data set")


def test_an_admin_limited_to_organizations_is_told_that_imports_are_not_for_them(monkeypatch):
    monkeypatch.setattr(sign_in, "_principal", lambda: Principal("admin-a", Role.ADMIN, frozenset({"org_a"})))
    run = opened(view="import")
    assert "Imports are for admins who may see every organization." in texts(run)
    assert not run.file_uploader


def test_without_a_session_the_page_shows_nothing():
    run = AppTest.from_file(str(PAGE), default_timeout=30).run()
    assert not run.title
    assert not run.dataframe


def test_everything_that_runs_on_its_own_asks_first_who_is_reading():
    """Fragments and dialogs run without `main.py`; a role taken away must count at once."""
    alone: dict[str, str] = {}
    for path in sorted(one for room in ("exports", "imports") for one in (ROOT / "components" / room).glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
            name, called = ast.unparse(call.args[0]), ast.unparse(call.func)
            if (called == "st.fragment" or called.startswith("st.dialog(")) and name in functions:
                body = functions[name].body[isinstance(functions[name].body[0], ast.Expr) :]
                alone[f"{path.parent.name}.{path.stem}.{name}"] = ast.unparse(body[0]).removeprefix("principal = ")
    assert alone == {
        "exports.panel._panel": "sign_in.guard()",
        "exports.job._watch": "sign_in.guard()",
        "imports.panel._confirm": "sign_in.guard(Role.ADMIN)",
        "imports.log._confirm": "sign_in.guard(Role.ADMIN)",
    }


# ── the export panel ─────────────────────────────────────────────────────────────────────────────


def test_first_rows_and_totals_stand_there_before_anything_is_written(exports, jobs):
    run = opened("finance")
    assert "**Preview:** 3 rows · 1,450.5 credits · $0.06" in texts(run)
    assert list(frame(run, "id")["chatflow_name"]) == ["=1+1 *bold*", ""]
    assert "The first 2; 1 more row in the file." in texts(run)
    assert run.button(key="export-page-start").label == "Export 3 rows"
    assert jobs.started == []
    (request, principal) = exports.asked[0]
    assert (request.dataset, request.format, request.grain) == (Dataset.USAGE_EVENTS, Format.CSV, Grain.EVENT)
    assert principal.name == "finance"


def test_what_is_chosen_stands_in_the_address_and_an_address_is_a_choice(exports):
    run = opened(
        "finance", dataset="organizations", span="Last month", organization=["org_a", "org_b"], zone="Asia/Tokyo"
    )
    request = exports.asked[-1][0]
    assert (request.dataset, request.params.organization) == (Dataset.ORGANIZATIONS, ("org_a", "org_b"))
    assert request.timezone == "Asia/Tokyo"
    assert request.params.from_.utcoffset() == timedelta(hours=9)
    box(run, "Format").set_value(Format.XLSX).run()
    assert run.query_params["format"] == "xlsx"
    assert exports.asked[-1][0].format is Format.XLSX
    box(run, "Data set").set_value(Dataset.USAGE_EVENTS).run()
    assert "dataset" not in run.query_params
    assert run.query_params["organization"] == ["org_a", "org_b"]


def test_each_format_offers_what_it_has():
    assert {"Separator", "Byte order mark", "One row per", "Columns"} <= labels(opened())
    focus = labels(opened(format="focus"))
    assert {"FOCUS version", "As Parquet", "User and session ids", "Our cost and margin"} <= focus
    assert not {"Separator", "One row per", "Columns"} & focus
    bundle = labels(opened(dataset="bundle"))
    assert "Format" not in bundle
    cards = labels(opened(dataset="rate-card"))
    assert not {"Period", "Timezone", "Organization"} & cards


def test_columns_are_kept_in_the_order_they_were_chosen(exports):
    run = opened(field=["credits_total", "id", "gone"])
    assert exports.asked[-1][0].columns == ("credits_total", "id")
    box(run, "Data set").set_value(Dataset.ORGANIZATIONS).run()
    assert exports.asked[-1][0].columns == ()


def test_the_same_question_is_asked_once(exports):
    run = opened()
    run.run()
    assert len(exports.asked) == 1


def test_no_event_is_nothing_to_export_and_the_way_out_is_offered(exports):
    exports.rows = 0
    run = opened(user="nobody")
    assert "No events match. Widen the period or remove filters." in texts(run)
    assert run.button(key="export-page-start").disabled
    run.button(key="export-page-reset").click().run()
    assert run.query_params == {"span": "All time"}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (AccessDenied("finance may see some organizations only; ask somebody else"), "ask somebody else"),
        (WarehouseError("the ledger is locked"), "Nothing is lost. Try again in a moment"),
    ],
)
def test_what_cannot_be_previewed_says_why_and_is_not_exported(exports, error, says):
    exports.error = error
    run = opened("finance")
    assert says in texts(run)
    assert "export-page-start" not in keys(run)


def test_what_was_typed_wrong_is_named():
    run = opened(span="Custom", from_day="2026-02-02", to_day="2026-02-01")
    assert "End date must be on or after the start date: 2026-02-01 is before" in texts(run)
    assert box(run, "Period").value == "Custom"


def test_books_that_were_never_compared_have_no_preview_but_can_be_exported(exports, jobs):
    exports.error = NotFound("this window has not been reconciled yet; the export does that first")
    run = opened(dataset="reconciliation", span="Last month")
    assert "This window has not been reconciled yet" in texts(run)
    start = run.button(key="export-page-start")
    assert (start.label, start.disabled) == ("Export", False)
    run.button(key="export-page-newest").click().run()
    assert run.query_params == {"dataset": "reconciliation", "span": "All time"}
    exports.error = NotFound("nothing has been reconciled yet; name a window, or reconcile first")
    run.run()
    assert "export-page-start" not in keys(run)


def test_a_bundle_lists_its_files_and_is_worth_having_without_any_event(exports):
    assert "The files of the bundle." in texts(opened(dataset="bundle"))
    exports.rows = 0
    assert not opened(dataset="bundle", span="Today").button(key="export-page-start").disabled


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


def started(jobs: Jobs, now: JobState, name: str = "admin") -> AppTest:
    run = opened(name)
    jobs.now = now
    run.button(key="export-page-start").click().run()
    return run


def test_an_export_holds_the_state_the_preview_counted(exports, jobs):
    started(jobs, JobState(), "finance")
    ((request, name),) = jobs.started
    assert (request.params.as_of, name) == (wiring.service().version(), "finance")
    assert request == exports.asked[-1][0]


def test_a_running_export_shows_how_far_it_is_and_can_be_stopped(jobs):
    run = started(jobs, JobState())
    assert run.get("progress")[0].proto.text.replace("\\", "") == "Writing: 1,200 of 4,800 rows"
    assert run.button(key="export-page-start").disabled
    assert not links(run)
    run.button(key="export-page-cancel").click().run()
    assert jobs.cancelled == ["job-1"]
    assert "No file was written: cancelled" in texts(run)
    assert not run.button(key="export-page-start").disabled


def test_a_finished_file_ties_out_with_its_preview_and_can_be_fetched(jobs):
    run = started(jobs, finished())
    shown = texts(run)
    assert "usage-events.csv is ready: 3 rows, 1.5 KiB" in shown
    assert "✓ The file's totals equal the preview's." in shown
    assert SHA in shown
    totals = frame(run, "File")
    assert list(totals["Preview"]) == list(totals["File"]) == ["3", "1,450.5", "0.05802"]
    assert links(run) == {
        "Download the file": "/download/exports/job-1",
        "Manifest": "/download/exports/job-1.manifest.json",
    }
    run.button(key="export-page-put-away").click().run()
    assert not links(run)


def frames(run: AppTest) -> list[str | None]:
    return [one.key for one in run.get("component_instance")]


def test_a_finished_file_is_downloaded_without_a_further_click(jobs):
    run = started(jobs, finished())
    assert "export-page-download" in frames(run)


def test_a_file_does_not_stand_under_other_choices(jobs):
    run = started(jobs, finished())
    box = next(one for one in run.selectbox if one.label == "Format")
    box.set_value("json").run()
    (fold,) = [one for one in run.expander if "usage-events.csv" in one.label]
    assert fold.label.replace("\\", "") == "A file of other choices: usage-events.csv"
    assert "export-page-download" not in frames(run)


def test_a_file_that_differs_from_its_preview_is_called_out(jobs):
    shown = texts(started(jobs, finished(credits_total=Decimal("1450.4"))))
    assert "The file differs from its preview in Credits. Do not use it" in shown
    assert "✓" not in shown


def test_an_export_that_cannot_begin_says_why(jobs):
    jobs.refusal = BadParameter("export", "a fourth", "three at a time; put one away first")
    assert "three at a time; put one away first" in texts(started(jobs, JobState()))


def test_a_file_that_is_gone_is_forgotten(jobs):
    run = started(jobs, finished())
    jobs.started.clear()
    run.run()
    assert not links(run)
    assert JOB.key not in run.session_state


# ── the dialog ───────────────────────────────────────────────────────────────────────────────────


def test_every_page_opens_the_panel_and_usage_events_hands_over_its_filter(exports):
    run = signed_in("finance")
    run.query_params["period"] = "Last 7 days"
    run.query_params["organization"] = ["org_acme"]
    run.query_params["search"] = "e1"
    run.run()
    run.button(key="user-menu-export").click().run()
    assert not run.exception, run.exception
    request = exports.asked[-1][0]
    assert (request.params.organization, request.params.search) == (("org_acme",), "e1")
    assert (request.params.to - request.params.from_).days == 7
    assert run.query_params["period"] == "Last 7 days"
    assert run.button(key="export-dialog-start").label == "Export 3 rows"


def test_the_dialog_of_another_page_knows_no_filter_and_leaves_its_address_alone(exports):
    run = opened_at("admin")
    run.switch_page("stripe_sync.py").run()
    run.button(key="user-menu-export").click().run()
    assert exports.asked[-1][0].params.organization == ()
    next(one for one in run.selectbox if one.key.startswith("export-dialog-format")).set_value(Format.JSON).run()
    assert exports.asked[-1][0].format is Format.JSON
    assert run.query_params == {}


def test_a_fault_in_the_dialog_leaves_the_page_behind_it_alone(exports):
    exports.error = AccessDenied("not for you")
    run = opened_at("admin")
    run.button(key="user-menu-export").click().run()
    assert "not for you" in texts(run)
    assert "Usage Events" in texts(run)
    assert OPEN.key in run.session_state


# ── import ───────────────────────────────────────────────────────────────────────────────────────


def uploaded(run: AppTest | None = None, data: bytes = b"id\ne1\n", name: str = "october.csv") -> AppTest:
    run = run or opened(view="import")
    run.file_uploader[0].upload(name, data, "text/csv").run()
    assert not run.exception, run.exception
    return run


def test_a_file_is_shown_with_what_it_would_do_before_anything_changes(imports):
    run = uploaded()
    shown = texts(run)
    assert imports.read == [(b"id\ne1\n", "october.csv", False)]
    assert "**october.csv: usage events, 4 rows, 1.5 KiB**" in shown
    assert [(one.label, one.value) for one in run.metric] == [
        ("New", "2"),
        ("Changed", "1"),
        ("Unchanged", "1"),
        ("Rejected", "0"),
    ]
    assert "2 events with 300 credits are pending and would be sent" in shown
    assert "Totals change by +2 events, +300 credits, +$0.01 across 1 organization." in shown
    assert list(frame(run, "Amount (USD)")["Organization"]) == ["org_<b>a</b>"]
    assert "2 columns: id, *timestamp*" in shown
    assert imports.applied == []


def test_nothing_is_imported_without_a_confirmation_and_then_exactly_once(imports):
    run = uploaded()
    run.button(key="import-apply").click().run()
    assert imports.applied == []
    confirm = run.button(key="import-confirm")
    assert confirm.label == "Import 2 new and 1 changed events"
    confirm.click().run()
    assert imports.applied == ["admin"]
    assert "Imported october.csv: 2 new, 1 changed, 1 unchanged. It can be undone below." in texts(run)
    assert "import-apply" not in keys(run)
    assert list(frame(run, "SHA-256")["File"]) == ["october.csv"]


def test_a_confirmation_can_be_left(imports):
    run = uploaded()
    run.button(key="import-apply").click().run()
    run.button(key="import-cancel").click().run()
    assert "import-confirm" not in keys(run)
    assert "import-apply" in keys(run)
    assert imports.applied == []


def test_a_plan_that_no_longer_holds_is_refused_and_stays_to_be_previewed_again(imports):
    imports.refusal = BadParameter("plan", "october.csv", "a plan of the ledger as it is; preview again")
    run = uploaded()
    run.button(key="import-apply").click().run()
    run.button(key="import-confirm").click().run()
    assert "Not imported, nothing has changed: plan: 'october.csv' is not accepted" in texts(run)
    assert "import-apply" in keys(run)


def test_whose_times_those_without_an_offset_are_is_asked_and_nothing_is_chosen_beforehand(imports):
    imports.found = replace(
        PLAN, without_offset=2, rejected_rows=1, rejected=(RejectedLine(1, "timestamp", "no offset"),)
    )
    run = uploaded()
    (asked,) = (box for box in run.selectbox if box.label.startswith("2 times in this file have no UTC offset"))
    assert (asked.value, imports.timezones) == (None, [None])
    asked.set_value("America/New_York").run()
    assert imports.timezones == [None, "America/New_York"]
    run.button(key="import-skip").click().run()
    assert imports.timezones[-1] == "America/New_York"
    uploaded(run, b"other", "november.csv")
    assert imports.timezones[-1] is None


def test_rejected_rows_are_named_and_may_be_left_out_on_purpose(imports):
    imports.found = replace(
        PLAN, rejected_rows=1200, rejected=(RejectedLine(3, "credits_total", "'=SUM(A1)' is no number"),)
    )
    run = uploaded()
    assert [one.value for one in run.metric] == ["2", "1", "1", "1,200"]
    assert "1,200 rows are rejected. Nothing is imported until they are corrected" in texts(run)
    assert list(frame(run, "Reason")["Reason"]) == ["'=SUM(A1)' is no number"]
    assert "and 1,199 more rows; the CSV lists the first 1" in texts(run)
    assert "import-apply" not in keys(run)
    run.button(key="import-skip").click().run()
    assert imports.read[-1] == (b"id\ne1\n", "october.csv", True)
    assert "import-apply" in keys(run)
    assert "import-skip" not in keys(run)


def test_a_file_that_is_not_whole_is_never_imported(imports):
    imports.found = replace(
        PLAN, is_whole=False, rejected_rows=1, rejected=(RejectedLine(0, "", "the file is cut off"),)
    )
    run = uploaded()
    assert "This file cannot be used; nothing is imported." in texts(run)
    assert [(one.label, one.value) for one in run.metric] == [("Rejected", "1")]
    assert list(frame(run, "Reason")["Row"]) == ["file"]
    assert not {"import-apply", "import-skip"} & keys(run)


def test_a_file_that_cannot_be_read_says_why_and_can_be_put_away(imports):
    imports.found = BadParameter("file", "october.csv", "at most 256 MB of JSON; use CSV or Parquet")
    run = uploaded()
    assert "use CSV or Parquet" in texts(run)
    run.button(key="import-discard").click().run()
    assert "use CSV or Parquet" not in texts(run)


def test_what_is_there_already_is_nothing_to_import(imports):
    imports.found = replace(PLAN, outcome=ImportOutcome(0, 0, 4))
    run = uploaded()
    assert "Everything in this file is already in the ledger" in texts(run)
    assert "import-apply" not in keys(run)


def test_a_bundle_is_shown_file_by_file(imports):
    card = replace(PLAN, kind=FileKind.RATE_CARD, file_name="rate-card.json", outcome=ImportOutcome(1))
    imports.found = replace(PLAN, kind=FileKind.BUNDLE, parts=(card, PLAN))
    rows = frame(uploaded(), "Kind")
    assert list(rows["File"]) == ["rate-card.json", "october.csv"]
    assert list(rows["Kind"]) == ["rate cards", "usage events"]


def test_another_file_takes_the_place_of_the_one_before(imports):
    run = uploaded()
    imports.found = replace(PLAN, file_name="november.csv")
    uploaded(run, b"other", "november.csv")
    assert imports.read[-1] == (b"other", "november.csv", False)
    assert "october.csv" not in texts(run)


def test_a_ledger_that_moved_on_is_said_and_looked_at_again(imports):
    run = uploaded()
    path = wiring.settings().warehouse_path
    wiring.service().close()
    ledger_at(path, [usage_row(id="later", timestamp=clock.now())]).engine.close()
    run.run()
    assert "The ledger has changed since this" in texts(run)
    run.button(key="import-again").click().run()
    assert len(imports.read) == 2
    assert "The ledger has changed since this" not in texts(run)


def test_an_import_is_undone_after_saying_what_that_takes_back(imports):
    run = uploaded()
    run.button(key="import-apply").click().run()
    run.button(key="import-confirm").click().run()
    run.selectbox(key="import-undo-choice").set_value("imp_1").run()
    run.button(key="import-undo").click().run()
    assert "2 events added by it would be removed and 1 event it changed would be restored." in texts(run)
    assert imports.undone == []
    run.button(key="import-undo-confirm").click().run()
    assert imports.undone == ["imp_1"]
    assert "Undone october.csv: 2 events removed, 1 event restored." in texts(run)
    assert list(frame(run, "Undone")["Undone"]) == ["2026-11-01 12:00:00 by admin"]
    assert "import-undo" not in keys(run)


def test_an_undo_that_is_refused_says_why(imports):
    imports.records = [ImportRecord("imp_1", FileKind.USAGE_EVENTS, "october.csv", SHA, 2, 1, 1, 0, NOW, "admin")]
    imports.refusal = BadParameter("import", "imp_1", "one of which nothing was sent; 2 events were")
    run = opened(view="import")
    run.selectbox(key="import-undo-choice").set_value("imp_1").run()
    run.button(key="import-undo").click().run()
    run.button(key="import-undo-confirm").click().run()
    assert "Not undone, nothing has changed: import: 'imp_1' is not accepted" in texts(run)


def test_an_empty_list_of_imports_says_so():
    run = opened(view="import")
    assert "Nothing has been imported yet." in texts(run)
    assert "import-undo" not in keys(run)


def test_the_uploaded_file_goes_with_what_holds_it(tmp_path):
    from io import BytesIO

    from components.imports.state import Spooled

    taken = Spooled("october.csv", BytesIO(b"rows"))
    path = taken.path
    assert path.read_bytes() == b"rows"
    assert path.stat().st_mode & 0o077 == 0
    del taken
    assert not path.exists()
    assert READING.get() is None
