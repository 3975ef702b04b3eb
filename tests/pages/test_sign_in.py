"""The door as a script sees it; what needs a browser (cookies, tabs, addresses) is in `tests/browser`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.auth.users import UserFile
from billing_core.web import wiring

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests" / "browser" / "probe" / "pages" / "main.py"


def opened() -> AppTest:
    return AppTest.from_file(str(PROBE), default_timeout=30).run()


def sign_in(run: AppTest, name: str, password: str) -> AppTest:
    run.text_input(key="sign_in.username").input(name)
    run.text_input(key="sign_in.password").input(password)
    run.button[0].click().run()
    return run


def titles(run: AppTest) -> list[str]:
    return [title.value for title in run.title]


def test_an_anonymous_visitor_sees_the_form_and_nothing_else():
    run = opened()
    assert not run.exception
    assert titles(run) == ["Billing"]
    assert [field.label for field in run.text_input] == ["Username", "Password"]
    assert [button.label for button in run.button] == ["Sign in"]


def test_password_managers_recognise_the_fields():
    name, password = opened().text_input
    assert name.proto.autocomplete == "username"
    assert password.proto.autocomplete == "current-password"


def test_the_demo_form_lists_the_demo_accounts_with_their_passwords():
    (table,) = [element.value for element in opened().markdown]
    for row in (
        "| analyst | analyst-demo | everything |",
        "| finance | finance-demo | everything |",
        "| admin | admin-demo | everything |",
        "| analyst-acme | acme-demo | org_acme |",
    ):
        assert row in table


def test_live_mode_lists_no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("BILLING_MODE", "live")
    monkeypatch.setenv("BILLING_COOKIE_KEY", "0123456789 abcdefghijklmnopqrstuvwxyz")
    monkeypatch.setattr("billing_core.auth.passwords.COST", 4)
    UserFile(tmp_path / "config" / "credentials.yaml").add("ada", password="correct horse", role="finance")
    run = opened()
    assert not run.exception
    assert [element.value for element in run.markdown] == []
    assert titles(sign_in(run, "ada", "correct horse")) == ["Probe"]


def test_the_same_run_that_checks_the_password_shows_the_page():
    run = sign_in(opened(), "Analyst-Acme", "acme-demo")
    assert not run.exception
    assert titles(run) == ["Probe"]
    assert run.sidebar.caption[0].value == r"analyst\-acme · role analyst · only org\_acme"
    assert any("Demo" in text.value for text in run.sidebar.markdown)


def test_the_library_leaves_nothing_behind_that_a_page_could_trust():
    run = sign_in(opened(), "admin", "admin-demo")
    for key in ("authentication_status", "username", "roles", "name", "sign_in.password"):
        assert key not in run.session_state or not run.session_state[key]


def test_a_wrong_password_and_an_unknown_name_read_the_same_and_keep_the_name():
    messages = []
    for name in ("finance", "nobody"):
        run = sign_in(opened(), name, "wrong horse")
        assert titles(run) == ["Billing"]
        assert run.text_input(key="sign_in.username").value == name
        assert run.text_input(key="sign_in.password").value == ""
        messages.append([warning.value for warning in run.warning])
    assert messages[0] == messages[1] == [[r"Incorrect username or password\."]][0]


def test_signing_out_forgets_everything_of_the_session():
    run = sign_in(opened(), "finance", "finance-demo")
    run.session_state["filter of finance"] = "secret"
    run.button(key="sign-out").click().run()
    assert titles(run) == ["Billing"]
    assert [warning.value for warning in run.warning] == [r"You are signed out\."]
    assert "filter of finance" not in run.session_state


@pytest.mark.parametrize("change", ["demoted", "removed", "other password", "other organizations"])
def test_whoever_is_changed_while_signed_in_has_to_sign_in_again(tmp_path, monkeypatch, change):
    monkeypatch.setattr("billing_core.auth.passwords.COST", 4)
    file = UserFile(tmp_path / "config" / "credentials.yaml")
    file.add("ada", password="correct horse", role="finance")
    run = sign_in(opened(), "ada", "correct horse")
    run.session_state["filter of ada"] = "secret"
    assert titles(run.run()) == ["Probe"]
    text = file.path.read_text()
    if change == "removed":
        file.remove("ada")
    elif change == "other password":
        file.set_password("ada", "another horse")
    elif change == "demoted":
        file.path.write_text(text.replace("- finance", "- analyst"))
    else:
        file.path.write_text(text.rstrip() + "\n      organizations: [org_1]\n")
    run.run()
    assert titles(run) == ["Billing"]
    assert [warning.value for warning in run.warning] == [r"Your session has ended\. Sign in again to continue\."]
    assert "filter of ada" not in run.session_state


def test_a_page_run_by_itself_refuses_without_a_session():
    run = AppTest.from_file(str(PROBE.parent / "open.py"), default_timeout=30).run()
    assert titles(run) == []
    assert [info.value for info in run.info] == [
        "Your session has ended. Sign in again to continue. Reload the page to see the sign-in form."
    ]


def test_a_page_for_finance_refuses_an_analyst_in_one_calm_line():
    run = sign_in(opened(), "analyst", "analyst-demo")
    run.switch_page("finance_only.py").run()
    assert titles(run) == []
    assert [error.value for error in run.error] == [r"You need the finance or admin role to view this page\."]


def test_a_wrong_setting_is_one_line_instead_of_the_form(monkeypatch):
    monkeypatch.setenv("BILLING_LOOKBACK_HOURS", "many")
    run = opened()
    assert not run.exception
    assert run.error[0].value.startswith(r"BILLING\_LOOKBACK\_HOURS\:")
    assert list(run.text_input) == []


def test_a_sign_in_file_that_breaks_while_people_work_is_one_line_until_it_is_corrected(tmp_path):
    run = sign_in(opened(), "finance", "finance-demo")
    file = tmp_path / "config" / "credentials.yaml"
    file.parent.mkdir()
    file.write_text("credentials: [")
    run.run()
    assert not run.exception
    assert titles(run) == []
    assert "is not readable YAML" in run.error[0].value
    file.unlink()
    assert titles(run.run()) == ["Probe"]


def test_navigation_comes_first_and_every_page_of_the_dashboard_calls_guard_first():
    main = (ROOT / "pages" / "main.py").read_text()
    assert main.index("st.navigation(") < main.index("sign_in.enter()") < main.index("page.run()")
    pages = [path for path in (ROOT / "pages").glob("*.py") if path.name != "main.py"]
    assert pages
    for page in pages:
        assert "sign_in.guard(" in page.read_text(), f"{page.name} does not guard itself"


def test_no_folder_of_pages_lies_beside_a_script_that_streamlit_is_started_with():
    assert (ROOT / "pages" / "main.py").is_file()
    assert not (ROOT / "pages" / "pages").exists()


HEAVY = {"pandas", "numpy", "pyarrow", "plotly", "duckdb", "ibis", "stripe", "langfuse", "streamlit_authenticator"}


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # without the tests' clock
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=plain
    )
    return set(answer.stdout.split())


def test_the_form_is_drawn_without_loading_what_only_pages_need():
    form = "import app\nfrom components.shared import sign_in\nsign_in.wiring.gatekeeper().demo_accounts()"
    more = loaded_by(form) - loaded_by("import streamlit")  # which loads a little of Plotly itself
    assert "billing_core" in more
    assert more.isdisjoint(HEAVY)


def test_signing_in_asks_streamlit_authenticator(monkeypatch):
    from streamlit_authenticator.controllers import AuthenticationController

    asked = []
    genuine = AuthenticationController.login

    def login(self, username=None, password=None, **more):
        asked.append(username)
        return genuine(self, username, password, **more)

    monkeypatch.setattr(AuthenticationController, "login", login)
    sign_in(opened(), "finance", "finance-demo")
    assert asked == ["finance"]
    assert wiring.gatekeeper().mode == "demo"
