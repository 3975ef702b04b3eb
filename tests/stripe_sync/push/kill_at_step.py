"""A push, or a settlement, in a process of its own, which may end by SIGKILL at any of its steps."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from billing_core.ledger import sync_queries
from billing_core.ledger.compiled import compiled
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.stripe.invoice_items import PATH as ITEMS
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe_sync.settlement_rules import SettlementKind
from tests.factories import EVERYONE
from tests.stripe_sync.push.mortal import METER_EVENTS, Fuse, MortalEngine, impatient_stripe
from tests.stripe_sync.push.stripe_server import at

PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["billing_core.stripe_sync.push", __name__])  # imported once

STARTING = threading.Lock()

TIME = at("2026-11-01")
for question in (
    sync_queries.candidates(TIME),
    sync_queries.covered_candidates(TIME),
    sync_queries.newest_revisions(TIME, TIME),
    sync_queries.carried_credits(),
    sync_queries.open_intents(),
    sync_queries.a_candidate(TIME),
    sync_queries.an_open_intent(),
):
    compiled(question, "duckdb")  # once, before processes are forked


def die() -> None:
    """As abruptly as a process can: nothing is flushed, rolled back or closed."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def mortal_service(
    environment: Mapping[str, str], now: datetime, kill_at: int | None, only: str
) -> Iterator[BillingService]:
    """A service that dies at a step; `kill_at` numbers them from 0: commits, and calls to paths like `only`."""
    fuse = Fuse(end=die)
    settings = load_settings(environment, env_file=None)
    service = BillingService(
        settings,
        engine=MortalEngine(settings.warehouse_path, fuse),
        connect_stripe=impatient_stripe(fuse, lambda: now, only=only, patience=RetryLimits()),
        clock=lambda: now,
    )
    if kill_at is not None:
        fuse.arm(kill_at)
    yield service
    service.close()


def push(environment: Mapping[str, str], now: datetime, kill_at: int | None, waiting: Any) -> None:
    """Push once."""
    with mortal_service(environment, now, kill_at, METER_EVENTS) as service:
        service.stripe.push(EVERYONE, on_wait=None if waiting is None else lambda: waiting.send("waiting"))


def settle(environment: Mapping[str, str], now: datetime, kill_at: int | None, ids: Sequence[str]) -> None:
    """Put events on invoices once."""
    with mortal_service(environment, now, kill_at, ITEMS) as service:
        service.stripe.settle(EVERYONE, ids, SettlementKind.INVOICE_ITEM, reason="a test")


def take_back(environment: Mapping[str, str], now: datetime, kill_at: int | None, ids: Sequence[str]) -> None:
    """Take settlements back once."""
    with mortal_service(environment, now, kill_at, ITEMS) as service:
        for one in ids:
            service.stripe.take_back(EVERYONE, one, reason="a test")


def start_push(
    environment: Mapping[str, str], now: datetime, *, kill_at: int | None = None, waiting: Any = None
) -> BaseProcess:
    """Start it. `waiting`, the end of a pipe, is written to if it has to wait for another push."""
    return start(push, environment, now, kill_at, waiting)


def start(do: Callable[..., None], environment: Mapping[str, str], *given: Any) -> BaseProcess:
    """Start a process that does one of these."""
    process = PROCESSES.Process(target=do, args=(dict(environment), *given), daemon=True)
    with STARTING:
        # A page test of the same worker may have left its script as the main module; a child would run it first.
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
    return process
