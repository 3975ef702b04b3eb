"""One clock: what a service does happens at the time its own clock says, and nothing else is asked for the time."""

import ast
import re
import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from billing_core.web.jobs import PullJob
from tests.exports.exported import asked
from tests.factories import EVERYONE
from tests.fixed_clock import NOW

SQL_CLOCK = re.compile(
    r"\b(current_(date|time|timestamp)|localtime(stamp)?)\b|\b(now|today|get_current_time)\(\)", re.I
)


def test_without_the_tests_it_is_as_late_as_on_the_machine():
    code = "import sys, time; sys.path.insert(0, '.')\nfrom billing_core.runtime.clock import now, seconds\n"
    code += "print(now().utcoffset(), abs(now().timestamp() - time.time()) < 60, abs(seconds() - time.time()) < 60)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0:00:00 True True\n"


def test_in_tests_it_is_the_same_time_on_every_day_in_every_process():
    code = "from billing_core.runtime.clock import now; print(now().isoformat(timespec='minutes'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == NOW.isoformat(timespec="minutes") == clock.now().isoformat(timespec="minutes")
    assert clock.now() < clock.now()


def test_what_a_service_does_happens_by_its_own_clock_alone(tmp_path, monkeypatch):
    at = NOW.replace(second=7, microsecond=0)
    month_before = f"{NOW.replace(day=1) - timedelta(days=1):%Y-%m}"

    def nobody():
        raise AssertionError("the machine was asked for the time")

    with SandboxProcess(events=150, days=40, seed=3) as sandbox:
        warehouse = f"duckdb:///{tmp_path}/billing.duckdb"
        variables = {**sandbox.environment, "BILLING_MODE": "live", "BILLING_WAREHOUSE_URL": warehouse}
        monkeypatch.setattr(clock, "_machine", nobody)
        service = BillingService(load_settings(variables, env_file=None), clock=lambda: at)
        try:
            job = PullJob()
            job.start(service, EVERYONE, first_days=40)
            job.wait()
            assert (job.state.error, job.state.started_at, job.state.ended_at) == (None, at, at)
            service.stripe.push(EVERYONE)
            service.organizations.limits.refresh(EVERYONE)
            for read in (service.organizations.limits.read, service.months.months, service.imports.imports):
                read(EVERYONE)
            params = GetUsageEventsParams(**{"from": at - timedelta(days=30), "to": at})
            service.summary(params, EVERYONE)
            service.organizations.statistics(params, EVERYONE)
            service.stripe.reconcile(EVERYONE, at - timedelta(days=3), at - timedelta(days=1))
            causes = {obstacle.cause for obstacle in service.months.checklist(month_before, EVERYONE).obstacles}
            service.months.close(month_before, EVERYONE, accept=causes, reason="made-up data")
            service.months.reopen(month_before, EVERYONE, "made-up data")
            service.exports.digest(asked("csv"), EVERYONE)
            moments = service._ledger.engine.rows(
                "SELECT happened_at FROM audit UNION SELECT booked_at FROM bookings UNION SELECT started_at FROM runs"
                " UNION SELECT ended_at FROM runs UNION SELECT closed_at FROM closes"
                " UNION SELECT started_at FROM pushes UNION SELECT answered_at FROM intents"
            )
        finally:
            service.close()
    assert {moment.replace(tzinfo=UTC) for (moment,) in moments if moment is not None} == {at}


@pytest.mark.parametrize("folder", ["billing_core", "components", "pages"])
def test_no_query_asks_the_database_for_the_time(folder):
    asking = [
        f"{file}:{node.lineno}"
        for file in sorted(Path(folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_CLOCK.search(node.value)
    ]
    assert asking == []
