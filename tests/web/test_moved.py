"""Addresses that pages had before lead to where they are now."""

from __future__ import annotations

import pytest

import app
from billing_core.web.moved import MOVED
from components.shared.navigation import DESTINATIONS
from tests.web.client import Client


@pytest.fixture
def client():
    from starlette.applications import Starlette

    return Client(Starlette(routes=app.routes()), "http://localhost")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("view=months&month=2026-10", "/month_close?month=2026-10"),
        ("view=months", "/month_close"),
        ("source=file&view=what-if&page=2", "/what_if?source=file&page=2"),
        ("view=audit&what=pull&what=rate+card&find=a%26b", "/audit_log?what=pull&what=rate+card&find=a%26b"),
    ],
)
def test_a_view_that_became_a_page_is_found_there_with_its_other_parameters(client, old, new):
    answer = client.get(f"/export_import?{old}")
    assert answer.status_code == 307
    assert answer.headers["location"] == new


@pytest.mark.parametrize(
    "query", ["", "?view=import", "?view=export&dataset=bundle", "?view=nothing", "?dataset=months"]
)
def test_the_page_that_is_left_keeps_its_address(client, query):
    assert client.get(f"/export_import{query}").status_code == 404  # which Streamlit answers, behind these routes


def test_they_lead_to_pages_there_are():
    assert set(MOVED.values()) <= {one.file.removesuffix(".py") for one in DESTINATIONS}
