from __future__ import annotations

import pytest

from billing_core.auth.demo import DEMO_ACCOUNTS, DEMO_PASSWORDS
from billing_core.auth.passwords import DUMMY_HASH, fits_bcrypt, hash_password, is_hash, matches
from billing_core.errors import BadParameter

GOOD = "correct horse battery"


@pytest.fixture(scope="module")
def good_hash() -> str:
    return hash_password(GOOD)


def test_a_password_matches_its_own_hash_and_no_other_password_does(good_hash):
    assert matches(GOOD, good_hash)
    assert not matches(GOOD + "!", good_hash)


def test_hashes_are_bcrypt_of_cost_12(good_hash):
    assert good_hash.startswith("$2b$12$")
    assert is_hash(good_hash)


def test_a_plain_password_is_not_taken_for_a_hash():
    assert not is_hash("analyst-demo")
    assert not is_hash("$2b$12$tooshort")


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short 7", "at least 8 characters"),
        ("x" * 73, "at most 72 bytes"),
        ("é" * 37, "at most 72 bytes"),
        ("with a nul \x00 inside", "at most 72 bytes"),
        (" blank around ", "neither begins nor ends with a blank"),
        ("finance-demo", "not one of the published demo passwords"),
    ],
)
def test_a_weak_password_is_refused_with_a_reason_and_without_being_repeated(password, reason):
    with pytest.raises(BadParameter) as caught:
        hash_password(password)
    assert reason in str(caught.value)
    assert password.strip() not in str(caught.value)


def test_72_bytes_are_hashed_and_73_are_not_even_compared():
    assert fits_bcrypt("x" * 72)
    assert not fits_bcrypt("x" * 73)
    assert not matches("x" * 73, DUMMY_HASH)


def test_text_that_cannot_be_utf_8_is_refused_and_does_not_raise():
    assert not fits_bcrypt("broken \udcff surrogate")


def test_nobody_has_the_dummy_hash():
    assert is_hash(DUMMY_HASH)
    assert DUMMY_HASH not in {account.password_hash for account in DEMO_ACCOUNTS}


@pytest.mark.parametrize("account", DEMO_ACCOUNTS, ids=lambda account: account.name)
def test_the_stored_hash_of_a_demo_account_is_that_of_its_printed_password(account):
    assert matches(account.password, account.password_hash)


def test_the_demo_has_the_four_published_accounts_and_one_is_limited():
    assert [account.name for account in DEMO_ACCOUNTS] == ["analyst", "finance", "admin", "analyst-acme"]
    assert [account.organizations for account in DEMO_ACCOUNTS] == [None, None, None, frozenset({"org_acme"})]
    assert len(DEMO_PASSWORDS) == 4
