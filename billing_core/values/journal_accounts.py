"""The accounts, tax and client of a bookkeeping journal, read from settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing_core.errors import BadParameter

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,63}")
_NUMBER_AND_NAME = re.compile(r"([0-9]+) +(\S.*)")

NAMES: Mapping[str, str] = {
    "receivable": "Accounts receivable",
    "ai_tokens": "AI token revenue",
    "compute": "Compute revenue",
    "storage": "Storage revenue",
    "rounding": "Rounding differences",
    "write_off": "Bad debt",
    "clearing": "Clearing",
}
"""What an account is called if its setting says a number only."""


@dataclass(frozen=True, slots=True)
class JournalAccounts:
    """The accounts to book a journal on: a number, a name, or a number and a name (`1200 Trade receivables`).

    receivable: What customers owe. ai_tokens, compute, storage: the revenue of each kind of credits.
    rounding: What rounding to cents leaves over. write_off: usage that customers need not pay.
    clearing: Between the two sides of a booking, where a format has no booking of more than two accounts (DATEV).
    """

    receivable: str = "1200"
    ai_tokens: str = "4000"
    compute: str = "4010"
    storage: str = "4020"
    rounding: str = "4990"
    write_off: str = "6930"
    clearing: str = "1370"

    def number(self, entry: str) -> str:
        """The account's number, or its name if it has no number."""
        text: str = getattr(self, entry)
        found = _NUMBER_AND_NAME.fullmatch(text)
        return text if found is None else found[1]

    def name(self, entry: str) -> str:
        """The account's name, by which QuickBooks knows it; the usual one if the setting says a number only."""
        text: str = getattr(self, entry)
        found = _NUMBER_AND_NAME.fullmatch(text)
        if found is not None:
            return found[2]
        return NAMES[entry] if text.isdigit() else text

    @classmethod
    def parse(cls, text: str) -> JournalAccounts:
        """The accounts from text like `receivable=1200 Trade receivables,ai_tokens=4000`; what is not named keeps its
        default.

        Raises BadParameter: if a name is unknown or given twice, an account is no account, or receivable is also a
        revenue account.
        """
        given = _named(text, tuple(field.name for field in fields(cls)), "accounts", "ACCOUNT")
        for name, account in given.items():
            if not _ACCOUNT.fullmatch(account):
                raise BadParameter(
                    "accounts",
                    f"{name}={account}",
                    "an account of 1 to 64 letters, digits, spaces or . _ : / -, such as 1200",
                )
        accounts = cls(**given)
        if accounts.receivable in (accounts.ai_tokens, accounts.compute, accounts.storage):
            raise BadParameter("accounts", text, "a receivable account that is not a revenue account as well")
        return accounts


class DatevClient(BaseModel):
    """Whose books a DATEV file is for: numbers of the tax consultant and of the client, as DATEV gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consultant: Annotated[int, Field(ge=1001, le=9_999_999)] = 1001
    client: Annotated[int, Field(ge=1, le=99_999)] = 1
    fiscal_year_month: Annotated[int, Field(ge=1, le=12)] = 1
    account_length: Annotated[int, Field(ge=4, le=8)] = 4

    @classmethod
    def parse(cls, text: str) -> DatevClient:
        """The client from text like `consultant=29098,client=55003,fiscal_year_month=1,account_length=4`.

        Raises BadParameter: naming what is wrong.
        """
        given = _named(text, tuple(cls.model_fields), "datev", "NUMBER")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            says = "consultant 1001 to 9999999, client 1 to 99999, fiscal_year_month 1 to 12, account_length 4 to 8"
            raise BadParameter("datev", f"{name}={given.get(name)}", says) from None


def _named(text: str, known: tuple[str, ...], parameter: str, what: str) -> dict[str, str]:
    """The values of `NAME=VALUE,NAME=VALUE`; raises `BadParameter` if a name is unknown or given twice."""
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in known:
            raise BadParameter(parameter, part, f"NAME={what} with a name of {', '.join(known)}")
        if name in given:
            raise BadParameter(parameter, part, f"{name} once; it already is {given[name]}")
        given[name] = value
    return given
