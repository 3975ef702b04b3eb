"""Writes sign-in events into the ledger's audit log, in the background."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor, wait

from billing_core.auth.audit import THROTTLED, Audit, log_event
from billing_core.errors import BillingError

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a closing process waits for the last entries."""


class AuditTrail:
    """Logs every sign-in event and writes it to the ledger in the order of their coming, without making anybody wait.

    The warehouse may be busy for minutes with somebody's pull; signing in is not. Throttled attempts are logged
    only: an unknown visitor could fill the ledger with them.
    """

    def __init__(self, write: Audit) -> None:
        self._write = write
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit")

    def __call__(self, who: str, what: str, detail: str) -> None:
        log_event(who, what, detail)
        if what != THROTTLED:
            self._writer.submit(self._written, who, what, detail)

    def drain(self) -> None:
        """Wait until every event logged so far is written."""
        wait([self._writer.submit(_nothing)], DRAIN_SECONDS)

    def _written(self, who: str, what: str, detail: str) -> None:
        try:
            self._write(who, what, detail)
        except BillingError as error:
            _log.error("%s of %s is missing in the ledger's audit log: %s", what, who, error)
        except Exception:  # noqa: BLE001 - nobody waits for this thread to see it fail
            _log.exception("%s of %s is missing in the ledger's audit log", what, who)


def _nothing() -> None:
    """The last in the queue: once it ran, everything before it did."""
