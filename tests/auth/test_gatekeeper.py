from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from billing_core.access import Principal, Role
from billing_core.auth.gatekeeper import WRONG, Gatekeeper
from billing_core.auth.passwords import DUMMY_HASH
from billing_core.auth.users import UserFile
from billing_core.errors import AccessDenied, SettingsError
from billing_core.settings import load_settings

KEY = "a long and rather random cookie key 0123456789"
MEMBER = Principal("ada", Role.FINANCE, None)


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch):
    monkeypatch.setattr("billing_core.auth.passwords.COST", 4)


def settings(tmp_path, **changes):
    environment = {
        "BILLING_MODE": "live",
        "BILLING_COOKIE_KEY": KEY,
        "BILLING_CREDENTIALS": str(tmp_path / "credentials.yaml"),
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/data/billing.duckdb",
    }
    return load_settings({**environment, **changes}, env_file=None)


@pytest.fixture
def file(tmp_path):
    file = UserFile(tmp_path / "credentials.yaml")
    file.add("ada", password="correct horse", role="finance")
    return file


@pytest.fixture
def told():
    return []


@pytest.fixture
def keeper(tmp_path, file, told):
    keeper = Gatekeeper.from_settings(settings(tmp_path), audit=lambda *event: told.append(event))
    yield keeper
    keeper.close()


def refusal(keeper: Gatekeeper, name: str, password: str, address: str = "here") -> str:
    with pytest.raises(AccessDenied) as caught:
        keeper.sign_in(name, password, address)
    return str(caught.value)


def test_the_right_password_begins_a_session(keeper):
    session = keeper.sign_in(" Ada ", "correct horse", "here")
    assert keeper.principal(session) == MEMBER


def test_unknown_name_and_wrong_password_read_the_same(keeper):
    assert refusal(keeper, "ada", "wrong horse") == WRONG
    assert refusal(keeper, "nobody", "wrong horse") == WRONG


def test_unknown_names_are_hashed_as_well_and_never_accepted(keeper):
    hashes = []

    def verify(_name, _password, password_hash):
        hashes.append(password_hash)
        return True

    with pytest.raises(AccessDenied):
        keeper.sign_in("nobody", "anything at all", "here", verify)
    assert hashes == [DUMMY_HASH]


def test_a_password_bcrypt_would_cut_is_refused_before_hashing(keeper):
    def never(*_):
        raise AssertionError("hashed")

    with pytest.raises(AccessDenied, match=WRONG):
        keeper.sign_in("ada", "x" * 73, "here", never)


def test_nothing_is_hashed_or_counted_for_an_empty_form(keeper):
    for _ in range(10):
        assert refusal(keeper, "", "") == "Enter a username and a password."
    assert keeper.sign_in("ada", "correct horse", "here")


def test_the_sixth_wrong_password_waits_without_hashing_even_if_it_is_right(keeper):
    assert [refusal(keeper, "ada", "wrong horse") for _ in range(5)] == [WRONG] * 5
    assert refusal(keeper, "ada", "correct horse") == "Too many attempts. Try again in 15 minutes."


def test_two_passwords_are_checked_at_once_however_many_try(keeper):
    busy, most, turn = [], [], threading.Lock()

    def verify(_name, _password, _hash):
        with turn:
            busy.append(1)
            most.append(len(busy))
        time.sleep(0.02)
        with turn:
            busy.pop()
        return False

    def attempt(number):
        with suppress(AccessDenied):
            keeper.sign_in(f"name{number}", "wrong horse", f"10.0.0.{number}", verify)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(attempt, range(24)))
    assert len(most) == 24
    assert max(most) <= 2


def test_throttling_does_not_tell_whether_the_account_exists(keeper):
    known = [refusal(keeper, "ada", "wrong horse") for _ in range(7)]
    unknown = [refusal(keeper, "nobody", "wrong horse") for _ in range(7)]
    assert known == unknown


def test_live_mode_refuses_a_demo_password_whatever_hash_it_has(keeper, file):
    import bcrypt

    rehashed = bcrypt.hashpw(b"admin-demo", bcrypt.gensalt(4)).decode()
    file.path.write_text(f"credentials: {{usernames: {{eve: {{password: '{rehashed}', roles: [admin]}}}}}}")
    assert refusal(keeper, "eve", "admin-demo") == WRONG


def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(keeper):
    session = keeper.sign_in("ada", "correct horse", "here")
    cookie = keeper.cookie_for(keeper.ticket(session))
    assert keeper.session_in(cookie) == session
    keeper.sign_out(session)
    assert keeper.principal(keeper.session_in(cookie)) is None


def test_a_ticket_gives_the_cookie_once_and_never_for_an_ended_session(keeper):
    session = keeper.sign_in("ada", "correct horse", "here")
    ticket = keeper.ticket(session)
    assert not keeper.has_fetched_cookie(session)
    assert keeper.cookie_for(ticket) is not None
    assert keeper.has_fetched_cookie(session)
    assert keeper.cookie_for(ticket) is None
    late = keeper.ticket(session)
    keeper.sign_out(session)
    assert keeper.cookie_for(late) is None


def test_a_removed_account_loses_its_session_with_the_next_look(keeper, file):
    session = keeper.sign_in("ada", "correct horse", "here")
    file.add("bob", password="correct horse", role="admin")
    assert keeper.principal(session) == MEMBER
    file.remove("ada")
    assert keeper.principal(session) is None


def test_a_new_password_ends_the_session_and_works_at_once(keeper, file):
    session = keeper.sign_in("ada", "correct horse", "here")
    file.set_password("ada", "another horse")
    assert keeper.principal(session) is None
    assert keeper.principal(keeper.sign_in("ada", "another horse", "here")) == MEMBER


def test_events_are_told_and_names_nobody_has_are_not_repeated(keeper, told):
    refusal(keeper, "my secret password", "x")
    for _ in range(6):
        refusal(keeper, "ada", "wrong horse")
    keeper.sign_out(keeper.sign_in("ada", "correct horse", "there"))
    assert told == [
        ("unknown name", "sign-in refused", "from here"),
        *[("ada", "sign-in refused", "from here")] * 5,
        ("ada", "sign-in throttled", "from here"),
        ("ada", "sign-in", "from there"),
        ("ada", "sign-out", "by the person"),
    ]


def test_live_mode_needs_a_cookie_key(tmp_path, file):
    with pytest.raises(SettingsError, match="BILLING_COOKIE_KEY: not set"):
        Gatekeeper.from_settings(settings(tmp_path, BILLING_COOKIE_KEY=""))


def test_live_sessions_lie_beside_the_warehouse(keeper, tmp_path):
    assert (tmp_path / "data" / "sessions.sqlite3").exists()


def test_demo_mode_needs_nothing_and_leaves_nothing_behind(tmp_path):
    keeper = Gatekeeper.from_settings(settings(tmp_path, BILLING_MODE="demo", BILLING_COOKIE_KEY=""))
    session = keeper.sign_in("analyst-acme", "acme-demo", "here")
    assert keeper.principal(session) == Principal("analyst-acme", Role.ANALYST, frozenset({"org_acme"}))
    assert list(tmp_path.iterdir()) == []
    keeper.close()


def test_two_demo_processes_do_not_accept_each_others_cookies(tmp_path):
    one, other = (
        Gatekeeper.from_settings(settings(tmp_path, BILLING_MODE="demo", BILLING_COOKIE_KEY="")) for _ in "12"
    )
    cookie = one.cookie_for(one.ticket(one.sign_in("admin", "admin-demo", "here")))
    assert other.session_in(cookie) is None
    one.close()
    other.close()


def test_importing_sign_in_imports_nothing_heavy():
    heavy = "streamlit", "streamlit_authenticator", "pandas", "plotly", "duckdb", "ibis", "stripe", "langfuse", "yaml"
    code = f"import billing_core.auth, billing_core.web.wiring, sys; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
