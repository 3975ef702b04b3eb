"""The accounts that may sign in: those of the file, and in demo mode the demo accounts too."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from billing_core.auth.demo import DEMO_ACCOUNTS, DEMO_HASHES, DEMO_PASSWORDS, DemoAccount
from billing_core.auth.fields import canonical_name
from billing_core.auth.passwords import COST, is_cheap
from billing_core.auth.users import User, UserFile
from billing_core.errors import SettingsError
from billing_core.settings import Mode

_DEMO_USERS: Mapping[str, User] = MappingProxyType(
    {
        account.name: User(
            account.name, account.display_name, account.password_hash, account.role, account.organizations
        )
        for account in DEMO_ACCOUNTS
    }
)


class Accounts:
    """Every account that may sign in, read anew on every call (the file is parsed only when it changed)."""

    def __init__(self, mode: Mode, file: UserFile) -> None:
        self._mode = mode
        self._file = file

    def find(self, name: str) -> User | None:
        """The account with a name, whatever its case; `None` if there is none."""
        return self.users().get(canonical_name(name))

    def users(self) -> Mapping[str, User]:
        """All accounts by name. An account of the file replaces a demo account of the same name.

        Raises SettingsError: when the file is broken; in live mode also when it holds no account, a demo password or a
        cheap hash.
        """
        users = self._file.users()
        if self._mode is Mode.DEMO:
            return {**_DEMO_USERS, **users}
        if not users:
            raise SettingsError(
                f"BILLING_CREDENTIALS: {self._file.path} holds no account; live mode needs one, create it with "
                "`python -m billing_core users add NAME --role admin`"
            )
        for user in users.values():
            if user.password_hash in DEMO_HASHES:
                raise SettingsError(
                    f"BILLING_CREDENTIALS: account {user.name!r} has a published demo password, which live mode "
                    f"refuses; change it with `python -m billing_core users set-password {user.name}`"
                )
            if is_cheap(user.password_hash):
                raise SettingsError(
                    f"BILLING_CREDENTIALS: account {user.name!r} has a bcrypt hash of cost {user.password_hash[4:6]}, "
                    f"and live mode asks for {COST} or more; set the password again with "
                    f"`python -m billing_core users set-password {user.name}`"
                )
        return users

    def may_use(self, password: str) -> bool:
        """Whether a password may be tried at all: in live mode the published demo passwords never are."""
        return self._mode is Mode.DEMO or password not in DEMO_PASSWORDS

    def shown(self) -> tuple[DemoAccount, ...]:
        """The demo accounts to print on the sign-in page: none in live mode, none that the file replaces."""
        if self._mode is Mode.LIVE:
            return ()
        replaced = self._file.users()
        return tuple(account for account in DEMO_ACCOUNTS if account.name not in replaced)
