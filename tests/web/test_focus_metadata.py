"""The metadata file of a FOCUS export that was made in the background."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from billing_core.auth.gatekeeper import Gatekeeper
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME
from billing_core.web.export_files import job_focus_metadata
from tests.factories import ledger_at, usage_row
from tests.web.client import Client


@pytest.fixture
def client(demo):
    ledger_at(wiring.settings().warehouse_path, [usage_row()]).engine.close()
    return Client(Starlette(routes=[Route("/{id}.json", job_focus_metadata)]))


def exported(gatekeeper: Gatekeeper, session: str, form: Format) -> str:
    """The id of a finished export of the person of that session."""
    principal = gatekeeper.principal(session)
    assert principal is not None
    job_id = wiring.export_jobs().start(wiring.service(), principal, ExportRequest(Dataset.USAGE_EVENTS, form))
    wiring.export_jobs().wait(job_id, principal, 30)
    return job_id


def test_it_is_given_to_the_person_of_the_export_and_to_nobody_else(client):
    gatekeeper = wiring.gatekeeper()
    mine, other = (gatekeeper.sign_in(name, "any", "local", lambda *_: True) for name in ("finance", "analyst"))
    focus, table = exported(gatekeeper, mine, Format.FOCUS), exported(gatekeeper, mine, Format.CSV)

    def ask(job_id: str, session: str):
        cookie = gatekeeper.cookie_for(gatekeeper.ticket(session))
        return client.get(f"/{job_id}.json", headers={"Cookie": f"{COOKIE_NAME}={cookie}"})

    answer = ask(focus, mine)
    assert answer.status_code == 200
    assert "focus-metadata.json" in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"
    assert "1.2" in answer.text
    assert ask(focus, other).status_code == 404
    assert ask(table, mine).status_code == 404
    assert client.get(f"/{focus}.json").status_code == 401
