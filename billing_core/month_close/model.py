"""The data classes of a month's close: state, checklist, result, verification. Light: pages import it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.errors import BadParameter
from billing_core.month_close.rules import AcceptedObstacle, Obstacle
from billing_core.types import Credits
from billing_core.values.usage_frame import Window, month_window

FROZEN_SETTINGS = ("seller_name", "service_name", "journal_accounts")
"""Settings that exports are made with: for a closed month those count that its manifest names."""

_PERIOD = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class MonthState(StrEnum):
    """The state of a month: still running, over and open, closed, or reopened."""

    OPEN = "open"
    """It lasts on."""
    OVER = "over"
    """It is over and may be closed."""
    CLOSED = "closed"
    REOPENED = "reopened"


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the reporting timezone with the sums of what counts in it. Times are aware UTC, US dollars exact.

    `late_events` and `late_credits` are carried over from closed months: part of the figures beside them.
    """

    period: str
    window: Window
    state: MonthState
    events: int
    credits: Credits
    amount_usd: Decimal
    late_events: int = 0
    late_credits: Decimal = Decimal(0)
    closed_at: datetime | None = None
    closed_by: str | None = None
    sha256: str | None = None
    timezone: str | None = None
    reopened_at: datetime | None = None
    reopened_by: str | None = None
    reopen_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Checklist:
    """The result of the checks before a close: `obstacles` prevent it, `notes` do not but are worth knowing."""

    period: str
    window: Window
    obstacles: tuple[Obstacle, ...]
    notes: tuple[str, ...]
    version: int
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class Closing:
    """The result of a close: the manifest if the month is closed now, else the obstacles."""

    manifest: Mapping[str, Any] | None
    obstacles: tuple[Obstacle, ...] = ()
    exceptions: tuple[AcceptedObstacle, ...] = ()
    was_closed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the month is closed now."""
        return self.manifest is not None

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `close`)."""
        return {
            "manifest": None if self.manifest is None else dict(self.manifest),
            "ok": self.ok,
            "differences": [obstacle.to_json() for obstacle in self.obstacles],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between a closed month and its manifest."""

    what: str
    says: str
    expected: str | None = None
    found: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The difference as `verify --json` has it."""
        return {"what": self.what, "says": self.says, "expected": self.expected, "found": self.found}


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a closed month: whether everything is as its manifest says."""

    manifest: Mapping[str, Any]
    differences: tuple[Difference, ...]
    checked: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether nothing of the closed month changed since."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `verify`)."""
        return {
            "manifest": dict(self.manifest),
            "ok": self.ok,
            "checked": list(self.checked),
            "differences": [one.to_json() for one in self.differences],
        }


def window_of(period: str, zone: ZoneInfo) -> Window:
    """The window of the month `2026-10` in a timezone, as aware UTC instants.

    Raises BadParameter: if `period` is no month.
    """
    found = _PERIOD.fullmatch(period)
    if found is None or not 1970 <= int(found[1]) < 2200:
        raise BadParameter("period", period, "a month such as 2026-10")
    return month_window(period, zone)


def canonical(manifest: Mapping[str, Any]) -> str:
    """The manifest as canonical text, which is hashed: equal manifests, equal text."""
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    """The SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
