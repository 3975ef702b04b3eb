"""Who is shown which pages, under which names; and what the user menu offers."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from billing_core.access import Role
from billing_core.web import wiring
from components.shared.navigation import DESTINATIONS
from tests.factories import ledger_at, usage_row
from tests.pages.opening import MAIN, opened_at

EVERYBODY_SEES = {"Usage": ["Usage Events"], "Data": ["Export and import"]}

SHOWN = {
    "analyst": EVERYBODY_SEES,
    "analyst-acme": EVERYBODY_SEES,
    "finance": {**EVERYBODY_SEES, "Billing": ["Stripe Sync", "Month close", "What-if", "Alerts"]},
    "admin": {
        "Usage": ["Usage Events", "Organization Stats"],
        "Billing": ["Stripe Sync", "Month close", "What-if", "Alerts"],
        "Data": ["Export and import"],
        "Admin": ["Audit log"],
    },
}


@pytest.fixture(autouse=True)
def ledger(demo):
    ledger_at(wiring.settings().warehouse_path, [usage_row()]).engine.close()


@pytest.fixture
def tabs(monkeypatch):
    """Titles that the browser's tab was given; the last run's is last."""
    told = []
    set_page_config = st.set_page_config

    def configure(**config):
        if "page_title" in config:
            told.append(config["page_title"])
        set_page_config(**config)

    monkeypatch.setattr(st, "set_page_config", configure)
    return told


def shown(run: AppTest) -> dict[str, list[str]]:
    """The links in the sidebar, under their headings."""
    found: dict[str, list[str]] = {}
    for part in run.sidebar:
        if part.type == "caption":
            found[part.value] = heading = []
        elif part.type == "page_link":
            heading.append(part.proto.label)
    return {heading: links for heading, links in found.items() if links}


@pytest.mark.parametrize("name", SHOWN)
def test_people_are_shown_the_pages_for_their_role_under_headings(name):
    assert shown(opened_at(name, "export_import.py")) == SHOWN[name]


def test_nobody_is_shown_a_page_before_signing_in_and_every_address_is_known(tabs):
    run = AppTest.from_file(str(MAIN), default_timeout=60).run()
    assert shown(run) == {}
    assert tabs == ["Billing"]
    assert {page["url_pathname"] for page in run._registered_pages.values()} == {
        "",
        *(one.file.removesuffix(".py") for one in DESTINATIONS[1:]),
    }


@pytest.mark.parametrize("page", DESTINATIONS, ids=lambda page: page.file)
def test_a_page_has_its_name_in_the_navigation_as_title_and_in_the_tab(tabs, page):
    run = opened_at("admin", page.file)
    assert [title.value for title in run.title] == [page.title]
    assert tabs[-1] == f"{page.title} · Billing"


@pytest.mark.parametrize(
    ("role", "file"), [(role, one.file) for one in DESTINATIONS for role in Role if role not in one.roles]
)
def test_a_page_refuses_the_roles_that_are_not_shown_its_link(role, file):
    run = opened_at(role.value, file)
    assert not run.title
    (error,) = run.error
    assert error.value.startswith("You need the ")


# ── the user menu ────────────────────────────────────────────────────────────────────────────────


def test_the_user_menu_names_the_person_and_what_they_may_see():
    run = opened_at("analyst-acme", "export_import.py")
    assert r"analyst\-acme · role analyst · only org\_acme" in [caption.value for caption in run.sidebar.caption]
    assert [button.label for button in run.sidebar.button] == ["Export…", "Help", "Sign out"]


def test_help_describes_the_pages_of_the_reader_and_closes_the_menu():
    run = opened_at("finance", "export_import.py")
    run.button(key="user-menu-help").click().run()
    assert not run.exception, run.exception
    text = "\n".join(part.value for part in run.markdown)
    for page in DESTINATIONS:
        assert (page.purpose in text) == (Role.FINANCE in page.roles)
    assert run.session_state["user-menu.turn"] == 1
    assert "Enter, Space" in text
    assert "docs/glossary.md" in text
