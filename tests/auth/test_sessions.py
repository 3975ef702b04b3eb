from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from billing_core.access import Principal, Role
from billing_core.auth.sessions import SessionRegistry, id_in_cookie, signed_cookie
from billing_core.auth.store import Store
from billing_core.auth.users import User
from billing_core.errors import WarehouseError

ADA = User("ada", "Ada", "$2b$12$a", Role.FINANCE, frozenset({"org_1"}))
MINUTE = 60.0
HOUR = 60 * MINUTE
KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data" / "sessions.sqlite3")
    yield store
    store.close()


@pytest.fixture
def registry(store, clock):
    return SessionRegistry(store, clock)


def find_ada(name: str) -> User | None:
    return ADA if name == "ada" else None


def test_a_session_belongs_to_whoever_signed_in(registry):
    session = registry.create(ADA, "10.0.0.1")
    assert registry.check(session, find_ada) == Principal("ada", Role.FINANCE, frozenset({"org_1"}))


def test_an_invented_id_is_nobody(registry):
    registry.create(ADA, "10.0.0.1")
    assert registry.check("x" * 43, find_ada) is None


def test_two_sessions_have_ids_of_256_bits_that_differ(registry):
    first, second = registry.create(ADA, "a"), registry.create(ADA, "a")
    assert first != second
    assert len(first) == len(second) == 43


def test_the_file_holds_no_session_id_and_only_its_owner_may_read_it(registry, tmp_path):
    session = registry.create(ADA, "10.0.0.1")
    path = tmp_path / "data" / "sessions.sqlite3"
    assert path.stat().st_mode & 0o777 == 0o600
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"ada" in everything
    assert session.encode() not in everything


def test_a_session_nobody_used_for_an_hour_has_ended(registry, clock):
    session = registry.create(ADA, "a")
    clock.now += HOUR
    assert registry.check(session, find_ada) is None
    clock.now -= HOUR
    assert registry.check(session, find_ada) is None, "an ended session does not come back"


def test_use_keeps_a_session_alive_but_not_beyond_twelve_hours(registry, clock):
    session = registry.create(ADA, "a")
    for _ in range(23):
        clock.now += 31 * MINUTE
        assert registry.check(session, find_ada) is not None
    clock.now += 7 * MINUTE
    assert registry.check(session, find_ada) is None


def test_a_revoked_session_has_ended_and_tells_whose_it_was(registry):
    session = registry.create(ADA, "a")
    assert registry.revoke(session) == "ada"
    assert registry.check(session, find_ada) is None
    assert registry.revoke(session) is None


def test_a_deleted_account_has_no_session(registry):
    session = registry.create(ADA, "a")
    assert registry.check(session, lambda _: None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"password_hash": "$2b$12$b"},
        {"role": Role.ADMIN},
        {"role": Role.ANALYST},
        {"organizations": frozenset({"org_1", "org_2"})},
        {"organizations": frozenset()},
        {"organizations": None},
    ],
    ids=["password", "role", "other role", "more organizations", "no organization", "all organizations"],
)
def test_another_password_role_or_set_of_organizations_ends_the_session_for_good(registry, change):
    session = registry.create(ADA, "a")
    assert registry.check(session, lambda _: replace(ADA, **change)) is None
    assert registry.check(session, find_ada) is None


def test_another_display_name_does_not(registry):
    session = registry.create(ADA, "a")
    assert registry.check(session, lambda _: replace(ADA, display_name="Countess")) is not None


def test_sessions_outlive_a_restart_of_the_process(tmp_path, clock):
    first = Store(tmp_path / "s.sqlite3")
    session = SessionRegistry(first, clock).create(ADA, "a")
    first.close()
    second = Store(tmp_path / "s.sqlite3")
    assert SessionRegistry(second, clock).check(session, find_ada) is not None
    second.close()


def test_another_process_with_the_same_file_sees_the_revocation(tmp_path, clock):
    one, other = Store(tmp_path / "s.sqlite3"), Store(tmp_path / "s.sqlite3")
    session = SessionRegistry(one, clock).create(ADA, "a")
    assert SessionRegistry(other, clock).check(session, find_ada) is not None
    SessionRegistry(other, clock).revoke(session)
    assert SessionRegistry(one, clock).check(session, find_ada) is None
    one.close()
    other.close()


def test_ended_sessions_do_not_pile_up(registry, clock, tmp_path):
    for _ in range(3):
        registry.create(ADA, "a")
    clock.now += 2 * HOUR
    registry.create(ADA, "a")
    reader = sqlite3.connect(tmp_path / "data" / "sessions.sqlite3")
    assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    reader.close()


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "s.sqlite3").write_bytes(b"not a database at all, but long enough to be looked at" * 30)
    with pytest.raises(WarehouseError, match=r"the session store .*s\.sqlite3 cannot be used"):
        Store(tmp_path / "s.sqlite3")


def test_a_cookie_gives_back_its_session_id():
    assert id_in_cookie(signed_cookie("abc-_1", KEY), KEY) == "abc-_1"


@pytest.mark.parametrize("cookie", ["", ".", "abc", "abc.", "abc.def", "." + "0" * 64, "abc." + "é" * 64])
def test_a_cookie_nobody_signed_is_refused(cookie):
    assert id_in_cookie(cookie, KEY) is None


def test_a_cookie_of_another_key_or_another_id_is_refused():
    cookie = signed_cookie("abc", KEY)
    assert id_in_cookie(cookie, b"K" * 32) is None
    assert id_in_cookie("abd" + cookie[3:], KEY) is None


@pytest.mark.parametrize(
    ("back", "is_over"), [(1, False), (59, False), (61, True), (86_400, True), (400 * 86_400, True)]
)
def test_a_session_from_the_future_has_ended_for_good(registry, clock, back, is_over):
    session = registry.create(ADA, "a")
    clock.now -= back
    assert (registry.check(session, find_ada) is None) == is_over
    clock.now += back
    assert (registry.check(session, find_ada) is None) == is_over


def test_sessions_from_the_future_are_cleared_away(registry, clock, store):
    registry.create(ADA, "a")
    clock.now -= 86_400
    registry.create(ADA, "a")
    assert store.row("SELECT count(*) FROM sessions", ()) == (1,)
