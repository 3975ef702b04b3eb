"""Tokens for the HTTP API, kept in a JSON file that holds only their SHA-256 (CONTRACT section 5)."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from billing_core.access import Principal, Role
from billing_core.auth.audit import Audit, log_event
from billing_core.auth.fields import (
    ALL_ORGANIZATIONS,
    canonical_name,
    checked_name,
    checked_organizations,
    checked_role,
)
from billing_core.auth.files import WatchedFile, rewrite
from billing_core.errors import BadParameter, NotFound, SettingsError


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret. `organizations` as in `Principal`: `None` is every one, empty is none."""

    name: str
    sha256: str = field(repr=False)
    role: Role
    organizations: frozenset[str] | None


class TokenFile:
    """The API tokens of one file, read anew when it changes. `path` is `None` where BILLING_API_TOKENS is not set."""

    def __init__(self, path: Path | None, *, audit: Audit = log_event, actor: str = "system") -> None:
        self._path = path
        self._audit = audit
        self._actor = actor
        self._file: WatchedFile[tuple[Token, ...]] | None = (
            None if path is None else WatchedFile(path, self._parsed, ())
        )

    def authenticate(self, authorization: str | None) -> Principal | None:
        """The principal an `Authorization` header speaks for; `None` without a valid token.

        Raises SettingsError: when the tokens file is broken.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        if self._file is None or scheme.lower() != "bearer" or not secret.strip():
            return None
        digest = _digest(secret.strip())
        found: Token | None = None
        for token in self._file.content():  # all of them: the time taken names no token
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return None if found is None else Principal(f"token:{found.name}", found.role, found.organizations)

    def tokens(self) -> tuple[Token, ...]:
        """All API tokens in the order of the file; `SettingsError` without a file setting or when it is broken."""
        self._needed()
        return () if self._file is None else self._file.content()

    def add(self, name: str, *, role: str, organizations: Iterable[str] = ()) -> str:
        """Create an API token and return its secret, which is shown this once; without organizations it reads all.

        Raises BadParameter: for a name that is taken or malformed, an unknown role or a blank organization.
        SettingsError: without BILLING_API_TOKENS, or when the file is broken.
        """
        good_name, good_role = checked_name(name), checked_role(role)
        listed = list(organizations) or [ALL_ORGANIZATIONS]
        reach = checked_organizations(listed)
        secret = secrets.token_urlsafe(32)

        def added(entries: list[dict[str, Any]]) -> None:
            if any(canonical_name(str(entry["name"])) == good_name for entry in entries):
                raise BadParameter("name", good_name, "a name that is not taken yet; see `tokens list`")
            entries.append(
                {
                    "name": good_name,
                    "sha256": _digest(secret),
                    "role": good_role.value,
                    "organizations": [ALL_ORGANIZATIONS] if reach is None else sorted(reach),
                }
            )

        self._change(added)
        self._audit(self._actor, "token added", f"{good_name}, {good_role}, {', '.join(listed)}")
        return secret

    def revoke(self, name: str) -> None:
        """Delete an API token, which is refused from then on. `NotFound` if there is none of this name."""
        wanted = canonical_name(name)

        def revoked(entries: list[dict[str, Any]]) -> None:
            kept = [entry for entry in entries if canonical_name(str(entry["name"])) != wanted]
            if len(kept) == len(entries):
                raise NotFound(f"token {wanted!r} is not in {self._path}; see `tokens list`")
            entries[:] = kept

        self._change(revoked)
        self._audit(self._actor, "token revoked", wanted)

    def _change(self, edit: Callable[[list[dict[str, Any]]], None]) -> None:
        def edited(text: str | None) -> str:
            document = {"tokens": []} if text is None else self._document(text)
            self._tokens_in(document)  # a broken file is reported, not made worse
            edit(document["tokens"])
            return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

        rewrite(self._needed(), edited)

    def _needed(self) -> Path:
        if self._path is None:
            raise SettingsError("BILLING_API_TOKENS: not set; name the file that shall hold the hashed API tokens")
        return self._path

    def _parsed(self, text: str) -> tuple[Token, ...]:
        return self._tokens_in(self._document(text))

    def _document(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise self._broken(f"line {error.lineno} is not readable JSON; correct it or restore a copy") from None
        if not isinstance(document, dict) or not isinstance(document.get("tokens"), list):
            raise self._broken('expected {"tokens": [...]}')
        return document

    def _tokens_in(self, document: dict[str, Any]) -> tuple[Token, ...]:
        tokens = tuple(self._token_of(number, entry) for number, entry in enumerate(document["tokens"], start=1))
        if len({token.name for token in tokens}) != len(tokens):
            raise self._broken("two tokens have the same name; names ignore case")
        return tokens

    def _token_of(self, number: int, entry: object) -> Token:
        if not isinstance(entry, dict):
            raise self._broken(f"token {number}: expected name, sha256, role and organizations")
        name = entry.get("name")
        digest = str(entry.get("sha256", "")).lower()
        organizations = entry.get("organizations")
        if not isinstance(name, str) or not name.strip():
            raise self._broken(f"token {number}: name: expected text")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise self._broken(f"token {name!r}: sha256: expected 64 hexadecimal digits")
        if not isinstance(organizations, list):
            raise self._broken(f'token {name!r}: organizations: expected a list of ids, or ["*"] for all')
        try:
            # Files come from elsewhere too: any name that can be told apart will do.
            return Token(
                canonical_name(name), digest, checked_role(entry.get("role")), checked_organizations(organizations)
            )
        except BadParameter as error:
            raise self._broken(f"token {name!r}: {error}") from None

    def _broken(self, fault: str) -> SettingsError:
        return SettingsError(f"BILLING_API_TOKENS: {self._path}: {fault}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
