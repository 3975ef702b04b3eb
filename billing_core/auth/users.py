"""The file of sign-in accounts: YAML in the shape streamlit-authenticator reads.

    credentials:
      usernames:
        ada:
          name: Ada Lovelace
          password: $2b$12$…
          roles: [finance]
          organizations: [org_1, org_2]     # left out: every organization

Fields this program does not know (`email`, a `cookie` section …) are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from billing_core.access import Principal, Role
from billing_core.auth.audit import Audit, log_event
from billing_core.auth.fields import canonical_name, checked_name, checked_organizations, checked_role
from billing_core.auth.files import WatchedFile, rewrite
from billing_core.auth.passwords import hash_password, is_hash
from billing_core.errors import BadParameter, NotFound, SettingsError


@dataclass(frozen=True, slots=True)
class User:
    """A sign-in account. `organizations` as in `Principal`: `None` is every one."""

    name: str
    display_name: str
    password_hash: str = field(repr=False)
    role: Role
    organizations: frozenset[str] | None = None


def principal_of(user: User) -> Principal:
    """The principal of a signed-in person: name, role and organizations, without the password hash."""
    return Principal(user.name, user.role, user.organizations)


class UserFile:
    """The sign-in accounts in one file. Every change is written at once; `actor` is who the audit log names for it."""

    def __init__(self, path: Path, *, audit: Audit = log_event, actor: str = "system") -> None:
        self.path = path
        self._audit = audit
        self._actor = actor
        self._file: WatchedFile[Mapping[str, User]] = WatchedFile(path, self._parsed, MappingProxyType({}))

    def users(self) -> Mapping[str, User]:
        """All sign-in accounts by name; none without the file. `SettingsError` names what is wrong in it."""
        return self._file.content()

    def add(
        self, name: str, *, password: str, role: str, organizations: Iterable[str] = (), display_name: str | None = None
    ) -> User:
        """Create an account; without organizations it sees all of them.

        Raises BadParameter: for a name that is taken or malformed, an unknown role, a blank organization or a weak
        password.
        """
        listed = list(organizations)
        user = User(
            name=checked_name(name),
            display_name=display_name or name.strip(),
            role=checked_role(role),
            organizations=checked_organizations(listed) if listed else None,
            password_hash=hash_password(password),
        )

        def added(accounts: dict[str, Any]) -> None:
            if _key_of(accounts, user.name) is not None:
                raise BadParameter("name", user.name, "a name that is not taken yet; see `users list`")
            entry: dict[str, Any] = {
                "name": user.display_name,
                "password": user.password_hash,
                "roles": [user.role.value],
            }
            if user.organizations is not None:
                entry["organizations"] = sorted(user.organizations)
            accounts[user.name] = entry

        self._change(added)
        self._audit(self._actor, "user added", f"{user.name}, {user.role}, {_reach(user)}")
        return user

    def remove(self, name: str) -> None:
        """Delete an account; its open sessions end with their next run. `NotFound` if there is none."""

        def removed(accounts: dict[str, Any]) -> None:
            del accounts[self._existing(accounts, name)]

        self._change(removed)
        self._audit(self._actor, "user removed", canonical_name(name))

    def set_password(self, name: str, password: str) -> None:
        """Give an account a new password; its open sessions end. `NotFound` if there is none, else as `add`."""
        password_hash = hash_password(password)

        def changed(accounts: dict[str, Any]) -> None:
            accounts[self._existing(accounts, name)]["password"] = password_hash

        self._change(changed)
        self._audit(self._actor, "password set", canonical_name(name))

    def _existing(self, accounts: dict[str, Any], name: str) -> Any:
        key = _key_of(accounts, canonical_name(name))
        if key is None:
            raise NotFound(f"user {canonical_name(name)!r} is not in {self.path}; see `users list`")
        return key

    def _change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        import yaml  # here, because most starts only read

        def edited(text: str | None) -> str:
            document = {} if text is None else self._document(text)
            self._users_in(document)  # a broken file is reported, not made worse
            credentials = document.setdefault("credentials", {})
            if not credentials.get("usernames"):
                credentials["usernames"] = {}
            edit(credentials["usernames"])
            changed: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            return changed

        rewrite(self.path, edited)

    def _parsed(self, text: str) -> Mapping[str, User]:
        return MappingProxyType(self._users_in(self._document(text)))

    def _document(self, text: str) -> dict[str, Any]:
        import yaml  # here: a demo without a sign-in file never needs it

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1} " if mark else ""
            raise SettingsError(f"{self.path}: {where}is not readable YAML; correct it or restore a copy") from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise self._broken("expected credentials: at the top")
        if not isinstance(document.setdefault("credentials", {}), dict):
            raise self._broken("credentials: expected usernames: below it")
        return document

    def _users_in(self, document: dict[str, Any]) -> dict[str, User]:
        accounts = document.get("credentials", {}).get("usernames") or {}
        if not isinstance(accounts, dict):
            raise self._broken("credentials.usernames: expected one entry per account")
        users: dict[str, User] = {}
        for key, entry in accounts.items():
            user = self._user_of(str(key), entry)
            if user.name in users:
                raise self._broken(f"account {user.name!r} is listed twice; names ignore case")
            users[user.name] = user
        return users

    def _user_of(self, key: str, entry: object) -> User:
        if not isinstance(entry, dict):
            raise self._broken(f"account {key!r}: expected name, password, roles and organizations below it")
        password_hash = str(entry.get("password", ""))
        if not is_hash(password_hash):
            raise self._broken(f"account {key!r}: password is not a bcrypt hash; use `users set-password {key}`")
        roles = entry.get("roles")
        if not isinstance(roles, list) or len(roles) != 1:
            raise self._broken(f"account {key!r}: roles: expected a list with one of {', '.join(Role)}")
        organizations = entry.get("organizations")
        if organizations is not None and (not isinstance(organizations, list) or not organizations):
            # An emptied list could mean nothing or everything: neither is guessed.
            raise self._broken(f"account {key!r}: organizations: expected a list of ids, or no such line for all")
        try:
            return User(
                name=checked_name(key),
                display_name=str(entry.get("name") or key),
                password_hash=password_hash,
                role=checked_role(roles[0]),
                organizations=None if organizations is None else checked_organizations(organizations),
            )
        except BadParameter as error:
            raise self._broken(f"account {key!r}: {error}") from None

    def _broken(self, fault: str) -> SettingsError:
        return SettingsError(f"{self.path}: {fault}")


def _key_of(accounts: Mapping[Any, Any], name: str) -> Any | None:
    """The key as the file spells it: `Ada` for `ada`."""
    return next((key for key in accounts if canonical_name(str(key)) == name), None)


def _reach(user: User) -> str:
    return "all organizations" if user.organizations is None else ", ".join(sorted(user.organizations))
