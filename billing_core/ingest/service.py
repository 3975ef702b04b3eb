"""Pulls as people start them, and how current the ledger is. Part of `BillingService`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from billing_core.access import Principal
from billing_core.errors import BadParameter
from billing_core.ingest.pull import FIRST_PULL_DAYS, PullResult, incremental_window, pull, within_retention
from billing_core.ledger.journal import Ledger, PullRun
from billing_core.rating.card import RateCardFile
from billing_core.rating.events import Policy
from billing_core.runtime.clock import Clock
from billing_core.runtime.locks import exclusive, is_held
from billing_core.settings import Settings
from billing_core.values.counts import count_of
from billing_core.values.usage_frame import PullProgress, window_in

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider

Progress = Callable[[PullProgress], None]
ConnectLangfuse = Callable[[Settings, RateCardFile], "LangfuseProvider"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the ledger is. `problem` says in a sentence why the data may be partial."""

    last_success: PullRun | None
    running: bool
    problem: str | None


class PullService:
    """Pulls of Langfuse into the ledger, one at a time per ledger."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Callable[[], RateCardFile],
        policy: Callable[[], Policy],
        connect: ConnectLangfuse,
        after_pull: Callable[[Principal], None],
        clock: Clock,
    ) -> None:
        self._settings, self._ledger, self._cards, self._policy = settings, ledger, cards, policy
        self._connect, self._after_pull, self._clock = connect, after_pull, clock

    def pull(
        self,
        principal: Principal,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        first_days: int = FIRST_PULL_DAYS,
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> PullResult:
        """Read Langfuse into the ledger; without a window incrementally. One pull at a time per ledger.

        The first incremental pull reads the last `first_days` days. Afterwards notices of reached limits are raised
        and delivered; what goes wrong there is logged and does not make the pull fail.

        Raises UpstreamError, WarehouseError: if a side could not be reached; what was booked stays, the next pull goes
        on from there.
        """
        if start is None and end is not None:
            raise BadParameter("from", None, "a time, when --to is given")
        provider = self._connect(self._settings, self._cards())
        try:
            with (
                exclusive(self._lock, on_wait=on_wait),
                self._ledger.failure_audited(principal.name, "pull_failed", {}, log=lambda: self._ledger.last_runs(1)),
            ):
                self._ledger.claim(self._settings.mode)
                result = self._pull(provider, principal, start, end, first_days, progress)
        finally:
            provider.close()
        self._after_pull(principal)
        return result

    def _pull(
        self,
        provider: LangfuseProvider,
        principal: Principal,
        start: datetime | None,
        end: datetime | None,
        first_days: int,
        progress: Progress | None,
    ) -> PullResult:
        now = self._clock()
        covered = None
        if start is None:
            covered = self._ledger.covered_until()
            lookback = timedelta(hours=self._settings.lookback_hours)
            window = incremental_window(covered, now=now, lookback=lookback, first_days=first_days)
            window = within_retention(window, provider.project().retention_days, now=now)
        else:
            window = window_in(self._settings.zone, start, end or now)
        return pull(
            provider,
            self._ledger,
            self._cards(),
            self._policy(),
            window,
            actor=principal.name,
            spool=self._spool,
            incremental=start is None,
            ended_since=None if covered is None else window.start,
            progress=progress,
        )

    def freshness(self) -> Freshness:
        """How current the ledger is: when Langfuse was read to the end, whether a pull runs, what failed."""
        runs = self._ledger.last_runs()
        running = is_held(self._lock)
        success = next((run for run in runs if run.outcome in {"done", "partial"}), None)
        return Freshness(success, running, _problem(runs, running))

    @property
    def _lock(self) -> Path:
        path = self._settings.warehouse_path
        return path.with_name(path.name + ".pull")

    @property
    def _spool(self) -> Path:
        path = self._settings.warehouse_path
        return path.with_name(path.name + ".spool")


def _problem(runs: list[PullRun], running: bool) -> str | None:
    """Why the newest run leaves the ledger incomplete, if it does."""
    if not runs:
        return None
    newest = runs[0]
    if newest.outcome == "failed":
        return newest.error or "it failed"
    if newest.outcome == "running" and not running:
        return "it was stopped before it finished"
    if newest.outcome == "partial":
        return f"{count_of(newest.rejected, 'row')} could not be read"
    return None
