from __future__ import annotations

import hashlib
import json

import pytest

from billing_core.access import Principal, Role
from billing_core.auth.tokens import TokenFile
from billing_core.errors import BadParameter, NotFound, SettingsError

DIGEST = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def file(tmp_path):
    return TokenFile(tmp_path / "tokens.json")


def written(tmp_path, entry) -> TokenFile:
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": [entry]}))
    return TokenFile(tmp_path / "tokens.json")


def test_an_added_token_speaks_for_its_role_and_organizations(file):
    secret = file.add("Exporter", role="finance", organizations=["org_1"])
    assert file.authenticate(f"Bearer {secret}") == Principal("token:exporter", Role.FINANCE, frozenset({"org_1"}))


def test_a_token_without_organizations_is_written_as_a_star_and_reads_all(file, tmp_path):
    secret = file.add("exporter", role="analyst")
    document = json.loads((tmp_path / "tokens.json").read_text())
    assert document == {
        "tokens": [
            {
                "name": "exporter",
                "sha256": hashlib.sha256(secret.encode()).hexdigest(),
                "role": "analyst",
                "organizations": ["*"],
            }
        ]
    }
    assert file.authenticate(f"Bearer {secret}").organizations is None


def test_the_file_never_holds_the_token_and_only_its_owner_may_read_it(file, tmp_path):
    secret = file.add("exporter", role="analyst")
    assert len(secret) == 43
    assert secret not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_an_empty_list_of_organizations_reads_nothing(tmp_path):
    file = written(tmp_path, {"name": "x", "sha256": DIGEST, "role": "analyst", "organizations": []})
    assert file.authenticate("Bearer hello") == Principal("token:x", Role.ANALYST, frozenset())


def test_a_digest_in_capitals_is_the_same_digest(tmp_path):
    file = written(tmp_path, {"name": "x", "sha256": DIGEST.upper(), "role": "analyst", "organizations": ["*"]})
    assert file.authenticate("bearer hello") is not None


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic hello", "hello", f"Bearer {DIGEST}", "Bearer \udcff"],
)
def test_anything_but_a_good_bearer_token_is_nobody(tmp_path, header):
    file = written(tmp_path, {"name": "x", "sha256": DIGEST, "role": "analyst", "organizations": ["*"]})
    assert file.authenticate(header) is None


def test_a_revoked_token_is_refused_at_once_and_others_stay(file):
    first, second = file.add("first", role="analyst"), file.add("second", role="analyst")
    file.revoke("FIRST")
    assert file.authenticate(f"Bearer {first}") is None
    assert file.authenticate(f"Bearer {second}") is not None
    assert [token.name for token in file.tokens()] == ["second"]
    with pytest.raises(NotFound, match="token 'first' is not in"):
        file.revoke("first")


def test_a_name_names_one_token(file):
    file.add("exporter", role="analyst")
    with pytest.raises(BadParameter, match="not taken yet"):
        file.add("Exporter", role="analyst")


@pytest.mark.parametrize(("role", "organizations"), [("boss", []), ("analyst", [""]), ("analyst", ["*", "org_1"])])
def test_a_bad_role_or_organization_is_refused_and_nothing_is_written(file, tmp_path, role, organizations):
    with pytest.raises(BadParameter):
        file.add("exporter", role=role, organizations=organizations)
    assert not (tmp_path / "tokens.json").exists()


def test_without_the_setting_the_api_knows_nobody_and_commands_say_what_is_missing():
    file = TokenFile(None)
    assert file.authenticate("Bearer hello") is None
    for command in (file.tokens, lambda: file.add("x", role="analyst"), lambda: file.revoke("x")):
        with pytest.raises(SettingsError, match="BILLING_API_TOKENS: not set"):
            command()


def test_a_file_that_does_not_exist_yet_knows_nobody(file):
    assert file.authenticate("Bearer hello") is None
    assert file.tokens() == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "line 1 is not readable JSON"),
        ("[]", 'expected {"tokens": [...]}'),
        ('{"tokens": ["x"]}', "token 1: expected name"),
        ('{"tokens": [{"sha256": "x"}]}', "token 1: name: expected text"),
        ('{"tokens": [{"name": "x", "sha256": "plain-secret"}]}', "sha256: expected 64 hexadecimal digits"),
        (
            json.dumps({"tokens": [{"name": "x", "sha256": DIGEST, "role": "analyst"}]}),
            "organizations: expected a list",
        ),
        (
            json.dumps({"tokens": [{"name": "x", "sha256": DIGEST, "role": "boss", "organizations": []}]}),
            "expected one of analyst, finance, admin",
        ),
        (
            json.dumps({"tokens": [{"name": "x", "sha256": DIGEST, "role": "admin", "organizations": []}] * 2}),
            "two tokens have the same name",
        ),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_fault_and_no_secret(file, tmp_path, text, fault):
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(SettingsError) as caught:
        file.authenticate("Bearer hello")
    assert fault in str(caught.value)
    assert "BILLING_API_TOKENS" in str(caught.value)
    assert "plain-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_are_told_to_the_audit_log_without_the_token(tmp_path):
    told = []
    file = TokenFile(tmp_path / "tokens.json", audit=lambda *event: told.append(event), actor="os:root")
    file.add("exporter", role="analyst", organizations=["org_1"])
    file.revoke("exporter")
    assert told == [("os:root", "token added", "exporter, analyst, org_1"), ("os:root", "token revoked", "exporter")]
