"""The accounts of an accounting journal, read from a setting."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from billing_core.errors import BadParameter

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,63}")


@dataclass(frozen=True, slots=True)
class JournalAccounts:
    """The accounts to book a journal on: what customers owe, and the revenue of each kind of resource."""

    receivable: str = "1200"
    ai_tokens: str = "4000"
    compute: str = "4010"
    storage: str = "4020"

    @classmethod
    def parse(cls, text: str) -> JournalAccounts:
        """The accounts from text like `receivable=1200,ai_tokens=4000,compute=4010,storage=4020`; what is not named
        keeps its default.

        Raises BadParameter: if a name is unknown or given twice, an account is no account, or receivable is also a
        revenue account.
        """
        known = tuple(field.name for field in fields(cls))
        given: dict[str, str] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            name, equals, account = (piece.strip() for piece in part.partition("="))
            if not equals or name not in known:
                raise BadParameter("accounts", part, f"NAME=ACCOUNT with a name of {', '.join(known)}")
            if name in given:
                raise BadParameter("accounts", part, f"{name} once; it already is {given[name]}")
            if not _ACCOUNT.fullmatch(account):
                raise BadParameter(
                    "accounts", part, "an account of 1 to 64 letters, digits, spaces or . _ : / -, such as 1200"
                )
            given[name] = account
        accounts = cls(**given)
        if accounts.receivable in (accounts.ai_tokens, accounts.compute, accounts.storage):
            raise BadParameter("accounts", text, "a receivable account that is not a revenue account as well")
        return accounts
