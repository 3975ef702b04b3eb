"""Sign-in, sessions and sign-out of the dashboard."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import TypeAlias

from billing_core.access import Principal
from billing_core.auth.accounts import Accounts
from billing_core.auth.audit import THROTTLED, Audit, log_event
from billing_core.auth.demo import DemoAccount
from billing_core.auth.fields import canonical_name
from billing_core.auth.passwords import DUMMY_HASH, fits_bcrypt, matches
from billing_core.auth.sessions import SessionRegistry, id_in_cookie, signed_cookie
from billing_core.auth.store import Store
from billing_core.auth.throttle import Throttle, wait_text
from billing_core.auth.tickets import Tickets
from billing_core.auth.users import User, UserFile
from billing_core.errors import AccessDenied, SettingsError
from billing_core.settings import Mode, Settings

Verify: TypeAlias = Callable[[str, str, str], bool]
"""`verify(name, password, password_hash)`: the dashboard passes streamlit-authenticator's check."""

WRONG = "Incorrect username or password."
"""One sentence for an unknown name and a wrong password."""


CHECKS_AT_ONCE = threading.BoundedSemaphore(2)
"""Passwords being checked at the same time: each takes a processor for about 0.3 s, and pages want one too."""


def by_bcrypt(_name: str, password: str, password_hash: str) -> bool:
    """Whether a password has this bcrypt hash: the check for tests and for callers without a Streamlit page."""
    return matches(password, password_hash)


class Gatekeeper:
    """Signs people in and out and knows their sessions. Create it with `from_settings`; all methods may be called from
    any thread.

    Every method may raise `SettingsError` (the sign-in file is broken) and `WarehouseError` (the session store is).
    """

    def __init__(
        self, *, mode: Mode, accounts: Accounts, store: Store, cookie_key: bytes, audit: Audit = log_event
    ) -> None:
        self.mode = mode
        self._accounts = accounts
        self._store = store
        self._sessions = SessionRegistry(store)
        self._throttle = Throttle(store)
        self._tickets = Tickets()
        self._cookie_key = cookie_key
        self._audit = audit

    @classmethod
    def from_settings(cls, settings: Settings, *, audit: Audit = log_event) -> Gatekeeper:
        """The gatekeeper for the accounts and session store the settings name.

        In demo mode cookie key and sessions are this process's own; in live mode sessions lie beside the warehouse and
        outlive a restart.

        Raises SettingsError: in live mode without BILLING_COOKIE_KEY or with demo credentials, in any mode for a broken
        file.
        """
        accounts = Accounts(settings.mode, UserFile(settings.credentials, audit=audit))
        if settings.cookie_key is not None:
            key = settings.cookie_key.get_secret_value().encode()
        elif settings.mode is Mode.DEMO:
            key = secrets.token_bytes(32)
        else:
            raise SettingsError(
                "BILLING_COOKIE_KEY: not set; live mode needs 32 or more random characters, for example from "
                '`python -c "import secrets; print(secrets.token_urlsafe(32))"`'
            )
        accounts.users()  # says now what is wrong with the file
        store = Store(None if settings.mode is Mode.DEMO else settings.warehouse_path.parent / "sessions.sqlite3")
        return cls(mode=settings.mode, accounts=accounts, store=store, cookie_key=key, audit=audit)

    def close(self) -> None:
        """Close the session store; nothing else may be called afterwards."""
        self._store.close()

    def check(self) -> None:
        """Raise `SettingsError` if nobody could sign in with the accounts there are."""
        self._accounts.users()

    def demo_accounts(self) -> tuple[DemoAccount, ...]:
        """The demo accounts to print on the sign-in page; none in live mode."""
        return self._accounts.shown()

    def user(self, name: str) -> User | None:
        """The account with a name; `None` if there is none."""
        return self._accounts.find(name)

    def sign_in(self, name: str, password: str, address: str, verify: Verify = by_bcrypt) -> str:
        """Check name and password, begin a session and return its id.

        Raises AccessDenied: with the sentence for the person: wrong, or too many attempts and when to try again. It
        never says whether the account exists, and both take the same time.
        """
        name = canonical_name(name)
        if not name or not password:
            raise AccessDenied("Enter a username and a password.")
        user = self._accounts.find(name)
        who = name if user else "unknown name"
        wait = self._throttle.begin(name, address)
        if wait > 0:
            self._audit(who, THROTTLED, f"from {address}")
            raise AccessDenied(wait_text(wait))
        password_hash = user.password_hash if user else DUMMY_HASH
        tried = fits_bcrypt(password) and self._accounts.may_use(password)
        with CHECKS_AT_ONCE:
            right = tried and verify(name, password, password_hash)
        if user is None or not right:
            self._audit(who, "sign-in refused", f"from {address}")
            raise AccessDenied(WRONG)
        self._throttle.succeed(name, address)
        session_id = self._sessions.create(user, address)
        self._audit(user.name, "sign-in", f"from {address}")
        return session_id

    def principal(self, session_id: str) -> Principal | None:
        """The person a session belongs to now; `None` when it has ended."""
        return self._sessions.check(session_id, self._accounts.find)

    def sign_out(self, session_id: str) -> None:
        """End a session in every tab and for every copy of its cookie."""
        name = self._sessions.revoke(session_id)
        self._tickets.void(session_id)
        if name is not None:
            self._audit(name, "sign-out", "by the person")

    def ticket(self, session_id: str) -> str:
        """A one-time ticket with which the browser fetches its session cookie."""
        return self._tickets.issue(session_id)

    def cookie_for(self, ticket: str) -> str | None:
        """The session cookie's value for a valid ticket of a session that still runs; `None` for any other."""
        session_id = self._tickets.redeem(ticket)
        if session_id is None or self.principal(session_id) is None:
            return None
        return signed_cookie(session_id, self._cookie_key)

    def has_fetched_cookie(self, session_id: str) -> bool:
        """Whether the browser used a ticket of this session (within the last hour)."""
        return self._tickets.is_delivered(session_id)

    def session_in(self, cookie: str | None) -> str | None:
        """The session id in a cookie this dashboard signed; whether the session still runs, `principal` says."""
        return None if cookie is None else id_in_cookie(cookie, self._cookie_key)
