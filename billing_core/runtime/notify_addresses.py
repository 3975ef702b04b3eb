"""Addresses that messages are sent to through Apprise: mail, Slack, Teams, webhooks and more. Each is a secret.

An address holds tokens and passwords, so it is shown as its scheme and the beginning of its host, and stored as a slow
hash. Nothing that Apprise says is shown or logged: its lines may name the address.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import apprise

TIMEOUT_SECONDS = 10.0
"""For one message to one address, from its name being looked up to the last answer."""

HOSTS_ARE_PUBLIC = frozenset({"form", "forms", "json", "jsons", "mailto", "mailtos", "ntfy", "ntfys", "xml", "xmls"})
"""Schemes with a host in the place of the host; elsewhere a token may stand there."""

SHOWN_CHARACTERS = 3

HASH_ROUNDS = 100_000
"""Of PBKDF2: a short password in an address cannot be guessed from its key in the ledger."""

_NEXT = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_STATUS = re.compile(r"\berror=(\d{3})\b")


@dataclass(frozen=True, slots=True)
class SendResult:
    """How one attempt to send a message ended: delivered, or an HTTP status if the receiver named one, and why."""

    is_delivered: bool
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class NotifyAddress:
    """One address, `url`, which is a secret. `key` stands for it in the ledger, `label` on screens."""

    url: str

    def __repr__(self) -> str:
        return f"NotifyAddress({self.label})"

    @property
    def key(self) -> str:
        """A hash of the address: the same in every process."""
        return _key(self.url)

    @property
    def label(self) -> str:
        """The scheme and the beginning of the host: `mailto://smt…`; the scheme alone where the host is a token."""
        scheme = self.url.partition("://")[0].lower()
        if scheme not in HOSTS_ARE_PUBLIC:
            return f"{scheme}://…"
        try:
            host = urlsplit(self.url).hostname or ""
        except ValueError:
            host = ""
        return f"{scheme}://{host[:SHOWN_CHARACTERS]}…"

    @property
    def is_understood(self) -> bool:
        """Whether Apprise knows the scheme, and the address has what it needs."""
        return _service(self.url) is not None

    def send(self, title: str, text: str, html: str | None = None) -> SendResult:
        """Send one message, without a retry, within bounded time; `html` where the receiver can show it."""
        found: list[SendResult] = []
        _service(self.url)  # reads a hundred plugins the first time: not on the message's time
        thread = threading.Thread(
            target=lambda: found.append(self._send(title, text, html)), daemon=True, name=f"notify {self.label}"
        )
        thread.start()
        thread.join(TIMEOUT_SECONDS)
        if not found:
            return SendResult(False, error=f"no answer within {TIMEOUT_SECONDS:g} seconds")
        return found[0]

    def _send(self, title: str, text: str, html: str | None) -> SendResult:
        from apprise import Apprise, NotifyFormat

        try:
            sender, service = Apprise(), _service(self.url)  # anew: one that is used again waits between messages
            if service is None:
                return SendResult(False, error="Apprise does not understand the address")
            sender.add(service)
            body_format = NotifyFormat.TEXT if html is None else NotifyFormat.HTML
            result = sender.notify(body=html or text, title=title, body_format=body_format)
        except Exception as error:  # noqa: BLE001 - a plugin of a hundred; its words may name the address
            return SendResult(False, error=f"it could not be sent ({type(error).__name__})")
        if result:
            return SendResult(True)
        said = [entry.message for service_result in result for attempt in service_result for entry in attempt]
        return _failure(said)


def _failure(said: list[str]) -> SendResult:
    """In our own words, of Apprise's: they may name the address."""
    statuses = [int(found[1]) for line in said if (found := _STATUS.search(line))]
    if statuses:
        return SendResult(False, statuses[-1], f"the receiver answered {statuses[-1]}")
    if any("onnection error" in line for line in said):
        return SendResult(False, error="it could not be reached, or did not answer")
    return SendResult(False, error="the receiver did not take it")


def addresses_in(text: str) -> tuple[NotifyAddress, ...]:
    """The addresses of a comma list, each once; a comma inside an address is not followed by another scheme."""
    return tuple(NotifyAddress(part) for part in dict.fromkeys(_NEXT.split(text.strip(" \t\r\n,"))) if part)


@cache
def _key(url: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", url.encode(), b"notify address", HASH_ROUNDS).hex()[:16]


def _service(url: str) -> apprise.NotifyBase | None:
    _keep_quiet()
    from apprise import Apprise, AppriseAsset, PersistentStoreMode

    asset = AppriseAsset(app_id="Billing", app_desc="Billing dashboard", storage_mode=PersistentStoreMode.MEMORY)
    return Apprise.instantiate(url, asset=asset, suppress_exceptions=True)


@cache
def _keep_quiet() -> None:
    """Load Apprise without its warnings to its own developers, and drop what it logs.

    Lines in which the libraries below it name hosts and paths are for debugging only: they are dropped as well.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from apprise import Apprise

        Apprise.instantiate("json://localhost")  # loads every plugin
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())

    for name in ("urllib3.connectionpool", "urllib3.util.retry", "requests_oauthlib.oauth1_auth"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.WARNING)
