from __future__ import annotations

import pytest

from billing_core.access import Role
from billing_core.auth.accounts import Accounts
from billing_core.auth.demo import DEMO_ACCOUNTS
from billing_core.auth.users import UserFile
from billing_core.errors import SettingsError
from billing_core.settings import Mode


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("billing_core.auth.passwords.COST", 4)
    return UserFile(tmp_path / "credentials.yaml")


def test_demo_mode_knows_the_demo_accounts_and_those_of_the_file(file):
    file.add("ada", password="correct horse", role="finance")
    assert set(Accounts(Mode.DEMO, file).users()) == {"analyst", "finance", "admin", "analyst-acme", "ada"}


def test_live_mode_knows_those_of_the_file_only(file):
    file.add("ada", password="correct horse", role="finance")
    accounts = Accounts(Mode.LIVE, file)
    assert set(accounts.users()) == {"ada"}
    assert accounts.find("admin") is None
    assert accounts.shown() == ()


def test_an_account_of_the_file_replaces_the_demo_account_of_its_name(file):
    file.add("admin", password="correct horse", role="analyst")
    accounts = Accounts(Mode.DEMO, file)
    assert accounts.find("Admin").role is Role.ANALYST
    assert [account.name for account in accounts.shown()] == ["analyst", "finance", "analyst-acme"]


def test_live_mode_without_an_account_says_how_to_create_one(file):
    with pytest.raises(SettingsError, match=r"BILLING_CREDENTIALS: .* holds no account.*users add NAME --role admin"):
        Accounts(Mode.LIVE, file).users()


def test_live_mode_refuses_a_file_with_a_demo_hash(file):
    demo = DEMO_ACCOUNTS[2].password_hash
    file.path.write_text(f"credentials: {{usernames: {{root: {{password: '{demo}', roles: [admin]}}}}}}")
    with pytest.raises(SettingsError, match="account 'root' has a published demo password"):
        Accounts(Mode.LIVE, file).users()
    assert "root" in Accounts(Mode.DEMO, file).users()


def test_live_mode_lets_nobody_try_a_demo_password(file):
    assert not Accounts(Mode.LIVE, file).may_use("admin-demo")
    assert Accounts(Mode.DEMO, file).may_use("admin-demo")


@pytest.mark.parametrize("cost", range(4, 12))
def test_live_mode_refuses_a_hash_cheaper_than_its_own_and_says_what_to_do(tmp_path, cost):
    file = UserFile(tmp_path / "credentials.yaml")
    cheap = f"$2b${cost:02}$" + DEMO_ACCOUNTS[0].password_hash[7:]
    file.path.write_text(f"credentials: {{usernames: {{root: {{password: '{cheap}', roles: [admin]}}}}}}")
    says = rf"account 'root' has a bcrypt hash of cost {cost:02}, and live mode asks for 12.*users set-password root"
    with pytest.raises(SettingsError, match=says):
        Accounts(Mode.LIVE, file).users()
    assert "root" in Accounts(Mode.DEMO, file).users()


@pytest.mark.parametrize("cost", [12, 13, 31])
def test_a_dearer_hash_is_as_good(tmp_path, cost):
    file = UserFile(tmp_path / "credentials.yaml")
    dear = f"$2y${cost}$" + "A" * 53
    file.path.write_text(f"credentials: {{usernames: {{root: {{password: '{dear}', roles: [admin]}}}}}}")
    assert set(Accounts(Mode.LIVE, file).users()) == {"root"}
