"""Every error a person may meet, each carrying the sentence they should read.

The text names the thing, the value, what is accepted and what to do next; it never holds a secret.
`exit_code` is what the command line ends with (CONTRACT section 3).
"""

from __future__ import annotations

from typing import ClassVar


class BillingError(Exception):
    """Base class of all expected errors; `str(error)` is one line fit for a person."""

    exit_code: ClassVar[int] = 2


class SettingsError(BillingError):
    """An environment variable or an input file is wrong."""


class RateCardError(BillingError):
    """A rate card file cannot be used, or contradicts one that events were already rated with."""


class BadParameter(BillingError, ValueError):
    """A parameter of a request (filter, sort, page, time) is wrong; the text names it and what is accepted.

    parameter: The name the caller used, as in CONTRACT section 3.
    """

    def __init__(self, parameter: str, value: object, accepted: str) -> None:
        super().__init__(f"{parameter}: {value!r} is not accepted; expected {accepted}")
        self.parameter = parameter
        self.value = value
        self.accepted = accepted


class AccessDenied(BillingError):
    """The principal may not see or do what was asked. The text never says whether the thing exists."""


class NotFound(BillingError):
    """What was named does not exist, or the principal may not see it: the two read the same."""


class UpstreamError(BillingError):
    """Langfuse or Stripe could not be reached, or refused."""

    exit_code = 3


class WarehouseError(BillingError):
    """The ledger could not be opened, read or written."""

    exit_code = 3
