from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from billing_core.access import Principal, Role
from billing_core.auth.passwords import matches
from billing_core.auth.users import UserFile, principal_of
from billing_core.errors import BadParameter, NotFound, SettingsError
from tests.bound_by_modes import run_bound

HASH = "$2b$12$rsNuu09sWNXXvtcB7xacYOTOag3YH2sJQESHXTucPiiKvrRF33L1i"


def accounts(**entries: str) -> str:
    """A sign-in file as people write it."""
    return "\n".join(["credentials:", "  usernames:", *(f"    {name}: {entry}" for name, entry in entries.items())])


ADMIN = f"{{password: '{HASH}', roles: [admin]}}"
ANALYST = f"{{password: '{HASH}', roles: [analyst]}}"


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch):
    monkeypatch.setattr("billing_core.auth.passwords.COST", 4)


@pytest.fixture
def file(tmp_path):
    return UserFile(tmp_path / "config" / "credentials.yaml")


def written(file: UserFile, text: str) -> UserFile:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_text(text, encoding="utf-8")
    return file


def test_a_file_that_does_not_exist_holds_no_account(file):
    assert dict(file.users()) == {}


def test_an_added_account_can_be_read_back_with_its_role_and_organizations(file):
    file.add("Ada.L", password="correct horse", role="finance", organizations=["org_2", "org_1"])
    user = file.users()["ada.l"]
    assert (user.name, user.display_name, user.role) == ("ada.l", "Ada.L", Role.FINANCE)
    assert user.organizations == {"org_1", "org_2"}
    assert matches("correct horse", user.password_hash)


def test_an_account_without_organizations_sees_all_of_them(file):
    user = file.add("ada", password="correct horse", role="admin")
    assert principal_of(user) == Principal("ada", Role.ADMIN, None)
    assert "organizations" not in file.path.read_text()


def test_the_file_has_the_shape_streamlit_authenticator_reads_and_only_its_owner_may(file):
    file.add("ada", password="correct horse", role="admin", organizations=["org_1"])
    entry = yaml.safe_load(file.path.read_text())["credentials"]["usernames"]["ada"]
    assert entry == {"name": "ada", "password": entry["password"], "roles": ["admin"], "organizations": ["org_1"]}
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_fields_of_others_survive_a_change(file):
    written(file, "cookie: {name: x}\n" + accounts(Ada=ADMIN.replace("{", "{email: a@b.c, ")))
    file.set_password("ada", "another horse")
    document = yaml.safe_load(file.path.read_text())
    assert document["cookie"] == {"name": "x"}
    assert document["credentials"]["usernames"]["Ada"]["email"] == "a@b.c"
    assert matches("another horse", file.users()["ada"].password_hash)


def test_a_name_is_taken_whatever_its_case(file):
    file.add("ada", password="correct horse", role="admin")
    with pytest.raises(BadParameter, match="name that is not taken"):
        file.add("ADA", password="correct horse", role="admin")


@pytest.mark.parametrize("name", ["", "two words", "a/b", "ünal", ".hidden", "x" * 65, "a\nb"])
def test_a_malformed_name_is_refused(file, name):
    with pytest.raises(BadParameter, match=r"letters, digits and \. _ -"):
        file.add(name, password="correct horse", role="admin")


def test_an_unknown_role_is_refused_and_the_roles_are_named(file):
    with pytest.raises(BadParameter, match="role: 'boss' is not accepted; expected one of analyst, finance, admin"):
        file.add("ada", password="correct horse", role="boss")


def test_a_blank_organization_is_refused_rather_than_matching_events_without_one(file):
    with pytest.raises(BadParameter, match="organization: ' ' is not accepted"):
        file.add("ada", password="correct horse", role="admin", organizations=["org_1", " "])
    assert not file.path.exists()


def test_a_removed_account_is_gone_and_removing_it_again_says_so(file):
    file.add("ada", password="correct horse", role="admin")
    file.remove("Ada")
    assert dict(file.users()) == {}
    with pytest.raises(NotFound, match="user 'ada' is not in"):
        file.remove("ada")


def test_setting_the_password_of_nobody_says_so(file):
    with pytest.raises(NotFound, match="users list"):
        file.set_password("ada", "correct horse")


def test_a_change_by_hand_is_seen_at_once(file):
    written(file, accounts(ada=ADMIN))
    assert file.users()["ada"].role is Role.ADMIN
    written(file, accounts(ada=ANALYST))
    assert file.users()["ada"].role is Role.ANALYST


def test_an_unchanged_file_is_not_parsed_again(file):
    written(file, accounts(ada=ADMIN))
    assert file.users() is file.users()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("credentials: [", "line 1 is not readable YAML"),
        ("- a list", "expected credentials: at the top"),
        ("credentials: 5", "expected usernames: below it"),
        ("credentials: {usernames: [ada]}", "expected one entry per account"),
        (accounts(ada="hello"), "account 'ada': expected name, password, roles"),
        (accounts(ada="{password: secret, roles: [admin]}"), "account 'ada': password is not a bcrypt hash"),
        (accounts(ada=f"{{password: '{HASH}'}}"), "account 'ada': roles: expected a list with one of"),
        (accounts(ada=ADMIN.replace("admin", "admin, analyst")), "account 'ada': roles: expected a list with one of"),
        (accounts(ada=ADMIN.replace("admin", "boss")), "expected one of analyst, finance, admin"),
        (accounts(ada=ADMIN.replace("]", "], organizations: []")), "expected a list of ids, or no such line for all"),
        (accounts(ada=ADMIN.replace("]", "], organizations: ['']")), "organization: '' is not accepted"),
        (accounts(ada=ADMIN, ADA=ADMIN), "account 'ada' is listed twice"),
    ],
)
def test_a_broken_file_is_one_line_that_names_file_and_fault_and_no_secret(file, text, fault):
    written(file, text)
    with pytest.raises(SettingsError) as caught:
        file.users()
    message = str(caught.value)
    assert fault in message
    assert str(file.path) in message
    assert "\n" not in message
    assert "secret" not in message
    assert HASH not in message


def test_a_broken_file_is_not_overwritten_by_adding_to_it(file):
    written(file, "credentials: [")
    with pytest.raises(SettingsError):
        file.add("ada", password="correct horse", role="admin")
    assert file.path.read_text() == "credentials: ["


def test_a_file_that_is_not_text_is_said_to_be_so(file):
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(b"\xff\xfe\x00credentials")
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        file.users()


def test_a_byte_order_mark_does_not_matter(file):
    written(file, "\ufeff" + accounts(ada=ADMIN))
    assert list(file.users()) == ["ada"]


READ = """
import sys
from pathlib import Path
from billing_core.auth.users import UserFile
from billing_core.errors import SettingsError
try:
    UserFile(Path(sys.argv[1])).users()
except SettingsError as error:
    print(error)
"""


def test_a_file_that_may_not_be_read_is_said_to_be_so(file):
    written(file, "credentials: {}").path.chmod(0)
    done = run_bound(READ, str(file.path))
    assert "cannot be read" in done.stdout, done.stderr


def test_a_failed_write_leaves_the_old_file_and_no_draft(file, monkeypatch):
    file.add("ada", password="correct horse", role="admin")
    before = file.path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match="cannot be written: No space left on device"):
        file.add("bob", password="correct horse", role="admin")
    assert file.path.read_text() == before
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["credentials.yaml", "credentials.yaml.lock"]


ADD = """
import sys
from pathlib import Path
from billing_core.auth.users import UserFile
UserFile(Path(sys.argv[1])).add(sys.argv[2], password="correct horse", role="analyst")
"""


def test_processes_that_add_accounts_at_once_lose_none(file):
    adding = [
        subprocess.Popen([sys.executable, "-c", ADD, str(file.path), f"user{n}"], cwd=Path(__file__).parents[2])
        for n in range(6)
    ]
    assert [process.wait(60) for process in adding] == [0] * 6
    assert sorted(file.users()) == [f"user{number}" for number in range(6)]


def test_changes_are_told_to_the_audit_log_without_passwords(tmp_path):
    told = []
    file = UserFile(tmp_path / "c.yaml", audit=lambda *event: told.append(event), actor="os:root")
    file.add("ada", password="correct horse", role="admin", organizations=["org_1"])
    file.set_password("ada", "another horse")
    file.remove("ada")
    assert told == [
        ("os:root", "user added", "ada, admin, org_1"),
        ("os:root", "password set", "ada"),
        ("os:root", "user removed", "ada"),
    ]


def test_an_account_prints_without_its_hash(file):
    assert "$2b$" not in repr(file.add("ada", password="correct horse", role="admin"))
