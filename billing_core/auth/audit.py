"""Where sign-in events are written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

Audit: TypeAlias = Callable[[str, str, str], None]
"""`audit(who, what, detail)`: the account, what happened (`sign-in`, `sign-in refused`, …) and the circumstances.

A name that belongs to no account is never passed on: people type their password into the wrong field.
"""

THROTTLED = "sign-in throttled"
"""The one event anybody can cause without limit."""

_log = logging.getLogger(__name__)


def log_event(who: str, what: str, detail: str) -> None:
    """Write a sign-in event to the process log, one line: the default."""
    _log.info("%s: %s (%s)", what, who, detail)
