from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.auth.store import Store
from billing_core.auth.throttle import IN_ALL, PER_ADDRESS, SHARED_ADDRESS, WINDOW_SECONDS, Throttle, wait_text

MINUTE = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    store = Store(None)
    yield Throttle(store, clock)
    store.close()


def test_the_sixth_attempt_of_a_name_at_an_address_waits(throttle):
    assert [throttle.begin("ada", "here") for _ in range(5)] == [0.0] * 5
    assert throttle.begin("ada", "here") == 15 * MINUTE


def test_a_waiting_name_may_still_try_elsewhere_and_others_may_try_here(throttle):
    for _ in range(6):
        throttle.begin("ada", "here")
    assert throttle.begin("ada", "elsewhere") == 0
    assert throttle.begin("bob", "here") == 0


def test_the_wait_ends_when_the_oldest_failure_is_15_minutes_old_and_refused_attempts_do_not_prolong_it(
    throttle, clock
):
    for _ in range(5):
        throttle.begin("ada", "here")
        clock.now += MINUTE
    for _ in range(10):
        assert throttle.begin("ada", "here") == pytest.approx(15 * MINUTE - (clock.now - 1_700_000_000.0))
        clock.now += MINUTE - 1
    clock.now = 1_700_000_000.0 + 15 * MINUTE
    assert throttle.begin("ada", "here") == 0


def test_spelling_the_name_otherwise_does_not_help(throttle):
    for name in ("ada", "ADA", " ada", "Ada ", "aDa"):
        throttle.begin(name, "here")
    assert throttle.begin("ada", "here") > 0


def test_success_forgets_the_failures_of_that_name_at_that_address_only(throttle):
    for _ in range(5):
        throttle.begin("ada", "here")
        throttle.begin("bob", "here")
    throttle.succeed("ada", "here")
    assert throttle.begin("ada", "here") == 0
    assert throttle.begin("bob", "here") > 0


def test_a_name_attacked_from_many_addresses_waits_after_20(throttle):
    assert [throttle.begin("ada", f"bot{number}") for number in range(20)] == [0.0] * 20
    assert throttle.begin("ada", "bot20") > 0


def test_strangers_cannot_keep_somebody_from_their_own_desk(throttle):
    throttle.begin("ada", "desk")
    throttle.succeed("ada", "desk")
    for number in range(30):
        throttle.begin("ada", f"bot{number}")
    assert throttle.begin("ada", "desk") == 0
    assert throttle.begin("ada", "train") > 0


def test_an_address_that_tries_many_names_waits_after_50(throttle):
    assert [throttle.begin(f"name{number}", "bot") for number in range(50)] == [0.0] * 50
    assert throttle.begin("ada", "bot") > 0
    assert throttle.begin("ada", "here") == 0


def test_one_desk_that_fails_locks_out_nobody_who_signs_in_behind_the_same_proxy(throttle):
    throttle.begin("ada", "proxy")
    throttle.succeed("ada", "proxy")
    for number in range(PER_ADDRESS + 10):
        throttle.begin(f"name{number}", "proxy")
    assert throttle.begin("ada", "proxy") == 0
    assert throttle.begin("newcomer", "proxy") > 0


def test_behind_an_unknown_proxy_on_this_machine_no_number_of_names_locks_out_a_newcomer_before_the_limit_for_all(
    throttle,
):
    for number in range(IN_ALL):
        assert throttle.begin(f"name{number}", SHARED_ADDRESS) == 0
    assert throttle.begin("newcomer", SHARED_ADDRESS) > 0


def test_all_failures_together_have_a_limit_that_spares_those_who_signed_in_where_they_are(throttle):
    throttle.begin("ada", "desk")
    throttle.succeed("ada", "desk")
    tried = sum(throttle.begin(f"name{number}", f"bot{number}") == 0 for number in range(IN_ALL + 50))
    assert tried == IN_ALL
    assert throttle.begin("ada", "train") > 0
    assert [throttle.begin("ada", "desk") for _ in range(5)] == [0] * 5
    assert throttle.begin("ada", "desk") > 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ada", "bob", "cyd"]),
            st.sampled_from([SHARED_ADDRESS, "10.0.0.1", "10.0.0.2", "2001:db8::1"]),
            st.floats(-3 * 86_400, 86_400),
        ),
        max_size=60,
    )
)
def test_however_the_clock_is_set_nobody_waits_longer_than_the_window(attempts):
    store, clock = Store(None), Clock()
    throttle = Throttle(store, clock)
    for name, address, step in attempts:
        clock.now += step
        assert 0 <= throttle.begin(name, address) <= WINDOW_SECONDS
    clock.now += WINDOW_SECONDS
    assert throttle.begin("ada", SHARED_ADDRESS) == 0
    store.close()


def test_a_clock_set_back_forgives_nothing_either(throttle, clock):
    for _ in range(5):
        throttle.begin("ada", "here")
    clock.now -= 86_400
    assert throttle.begin("ada", "here") == 15 * MINUTE
    clock.now += 15 * MINUTE
    assert throttle.begin("ada", "here") == 0


def test_this_machine_is_one_place_by_whichever_of_its_addresses(throttle):
    for address in ("127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.9", SHARED_ADDRESS):
        assert throttle.begin("ada", address) == 0
    assert throttle.begin("ada", "127.3.3.3") > 0


def test_an_ipv6_host_is_one_place_whichever_of_its_addresses_it_uses(throttle):
    for number in range(5):
        throttle.begin("ada", f"2001:db8:0:1:{number:x}::{number:x}")
    assert throttle.begin("ada", "2001:DB8::1:ffff:0:0:9") > 0
    assert throttle.begin("ada", "2001:db8:0:2::1") == 0
    for _ in range(5):
        throttle.begin("bob", "1.2.3.4")
    assert throttle.begin("bob", "::ffff:1.2.3.4") > 0


def test_attempts_at_the_same_moment_are_counted_one_by_one(throttle):
    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(lambda _: throttle.begin("ada", "here"), range(40)))
    assert sum(wait == 0 for wait in waits) == 5


def test_a_restart_forgives_nothing(tmp_path, clock):
    for _ in range(5):
        store = Store(tmp_path / "s.sqlite3")
        Throttle(store, clock).begin("ada", "here")
        store.close()
    store = Store(tmp_path / "s.sqlite3")
    assert Throttle(store, clock).begin("ada", "here") > 0
    store.close()


def test_a_password_typed_as_a_name_is_not_kept(tmp_path, clock):
    store = Store(tmp_path / "s.sqlite3")
    Throttle(store, clock).begin("my secret password", "here")
    store.close()
    assert all(b"my secret" not in file.read_bytes() for file in tmp_path.iterdir())


def test_the_message_says_when_to_try_again():
    assert wait_text(1) == "Too many attempts. Try again in 1 minute."
    assert wait_text(61) == "Too many attempts. Try again in 2 minutes."
    assert wait_text(900) == "Too many attempts. Try again in 15 minutes."
