"""A ledger that has been lived in: closed and reopened months, late usage, corrections, holds, imports kept and undone.

It is made once per process (`template`) and copied per test, so that every question can be asked of it cheaply.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from billing_core.access import Principal, Role
from billing_core.rating.events import Policy
from billing_core.runtime.locks import exclusive
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.stripe_sync.pipeline import Action
from tests.factories import EVERYONE, model_usage, usage_row
from tests.imports.world import as_csv, line
from tests.month_close.world import Books
from tests.stripe_sync.push_world import Stripe, World, use

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
"""When it is looked at."""

ZONE = "Europe/Berlin"
FINANCE = Principal("fay", Role.FINANCE)
ACME = Principal("lim", Role.ANALYST, frozenset({"org_acme"}))
"""Sees one organization only; some of its events came from, or went to, another."""

ENVIRONMENT = {"BILLING_MODE": "live", "BILLING_TIMEZONE": ZONE}


class HeldClock(Stripe):
    """Stripe whose clock stands where the story is."""

    moment = datetime(2026, 9, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment + self.offset


def make(folder: Path) -> Path:
    """Three months of a small business, told in order; returns the ledger's path."""
    stripe = HeldClock()
    stripe.start()
    try:
        stripe.reset()
        start = int(stripe.moment.timestamp())
        stripe.switch(extra_customers=["cus_a", "cus_b", "cus_c"], anchors=dict.fromkeys(("cus_a", "cus_b"), start))
        world = World(folder, stripe, BILLING_TIMEZONE=ZONE)
        try:
            _Story(folder, world).tell()
        finally:
            world.close()
    finally:
        stripe.stop()
    return world.path


class _Story:
    def __init__(self, folder: Path, world: World) -> None:
        self.folder = folder
        self.world = world
        self.service = world.service
        self.service.months._stripe = Books(world.ledger)

    def tell(self) -> None:
        self._september()
        self._october()
        self._november()

    def _september(self) -> None:
        self._go(2026, 9, 28)
        self._book(
            _day("sep-1", 9, 3),
            _day("sep-2", 9, 9, customer_id="cus_b", organization_id="org_b"),
            _day("sep-own-key", 9, 10, ai_credentials_ownership="user"),
            _day("sep-two-models", 9, 11, **TWO_MODELS),
            _day("sep-fraction", 9, 12, amount="0.4"),
            _day("sep-moves", 9, 13),
            _day("sep-vanishing", 9, 14, "2"),
            _day("sep-first-minute", 8, 31, hour=22),
            _day("sep-last-minute", 9, 30, hour=21, minute=59),
        )
        self._push()
        self._go(2026, 10, 2)
        self._push()
        self._close("2026-09")

    def _october(self) -> None:
        self._go(2026, 10, 12)
        self._book(_day("sep-late", 9, 20), _day("sep-late-free", 9, 21, environment="langfuse-experiment"))
        self._book(_day("sep-1", 9, 3, "275"), _day("sep-moves", 9, 13, organization_id="org_b"))
        self._book(
            _day("oct-1", 10, 1),
            _day("oct-2", 10, 5, "1234.567891", customer_id="cus_b", organization_id="org_b"),
            _day("oct-nobody", 10, 6, customer_id=None),
            _day("oct-unknown-customer", 10, 6, customer_id="cus_gone"),
            _day("oct-free", 10, 7, environment="langfuse-experiment"),
            _day("oct-unpriced", 10, 8, **UNPRICED),
            _day("oct-no-organization", 10, 8, organization_id=None, user_id=None, session_id=None),
            _day("oct-held", 10, 9),
            _day("oct-both-hours", 10, 11, chatflow_id=None, chatflow_name=None, models=[]),
            _day("oct-odd", 10, 10, user_id='=cmd|"x"!A1', chatflow_name="Größe, “quoted”; %_\n2", session_id="s%_"),
        )
        preview = self.service.stripe.preview(EVERYONE, Action.HOLD, event_ids=["oct-held"])
        assert self.service.stripe.decide(EVERYONE, preview, reason="disputed") == 1
        self._push()
        self._go(2026, 10, 26)
        self._book(_day("oct-clock-back-1", 10, 25, hour=0), _day("oct-clock-back-2", 10, 25, hour=1))
        self._push()
        self._import("earlier", _line("oct-earlier", sync_status="processed"), _line("oct-brought"))
        self._import("mistake", _line("oct-mistake"), _line("oct-brought", user_id="somebody else"), undone=True)
        self._go(2026, 11, 2)
        self._push()
        self._close("2026-10")
        self.service.months.reopen("2026-10", FINANCE, "a correction was promised")
        self._book(_day("oct-1", 10, 1, "99"))
        self._push()
        self._go(2026, 11, 3)
        self._close("2026-10")

    def _november(self) -> None:
        self._go(2026, 11, 10)
        self._book(_day("oct-late", 10, 30), _day("sep-late-again", 9, 22, "33.5"), _day("sep-1", 9, 3, "250"))
        self._book(*(_day(f"nov-{day}", 11, day, f"{day}.25", customer_id="cus_a") for day in range(1, 10)))
        self._push()
        self._go(2026, 11, 20, 8)
        self._book(_day("nov-rejected", 11, 12, customer_id="cus_gone"), _day("nov-changed", 11, 13))
        self._push()
        self._book(_day("nov-changed", 11, 13, "160"), _day("nov-pending", 11, 19), _day("nov-vanished", 11, 19, "0"))
        self.world.stripe.fault("after_success_500", times=None)
        self._push()
        self.world.stripe.no_faults()
        self._book(_day("nov-newest", 11, 20, hour=7, minute=59))

    def _go(self, *moment: int) -> None:
        self.world.stripe.offset = datetime(*moment, tzinfo=UTC) - HeldClock.moment  # type: ignore[misc]

    def _book(self, *rows: dict[str, Any]) -> None:
        self.world.book(*rows, policy=Policy(None, False, ("langfuse-*",), {}))

    def _push(self) -> None:
        self.world.push()

    def _close(self, period: str) -> None:
        self.service.months._stripe.made_at = self.world.stripe.now()
        closed = self.service.months.close(period, FINANCE, accept=EVERY_CAUSE, reason="agreed")
        assert closed.ok, closed

    def _import(self, name: str, *lines: dict[str, str], undone: bool = False) -> None:
        plan = self.service.imports.plan(as_csv(self.folder / f"{name}.csv", lines), EVERYONE)
        assert not plan.rejected, plan.rejected
        result = self.service.imports.apply(plan, EVERYONE)
        if undone:
            self.service.imports.undo(result.import_ids[0], EVERYONE)


EVERY_CAUSE = ("unsettled", "unsent", "error", "unexplained")

TWO_MODELS = {
    "models": ["claude-sonnet-4-5", "gpt-5"],
    "usage": [model_usage("claude-sonnet-4-5", "0.02", input=10, output=990), model_usage("gpt-5", None, input=7)],
    "tokens_in": 17,
    "tokens_out": 990,
    "tokens_total": 1007,
    "latency_seconds": 61,
    "cost_usd": Decimal("0.02"),
}

UNPRICED = {
    "models": ["private-model"],
    "usage": [model_usage("private-model", None, input=500)],
    "cost_usd": None,
    "tokens_in": 500,
    "tokens_out": 0,
    "tokens_total": 500,
    "unpriced": True,
    "has_error": True,
}


def _day(id_: str, month: int, day: int, amount: str = "150", hour: int = 12, minute: int = 0, **facts: Any) -> Any:
    """Usage of that day of 2026 (UTC): of tokens and time if `facts` name a model's, else of storage alone."""
    time = datetime(2026, month, day, hour, minute, tzinfo=UTC)
    facts = {"organization_id": "org_acme", **facts}
    if "usage" in facts or "ai_credentials_ownership" in facts:
        metadata = {} if (owner := facts.pop("ai_credentials_ownership", None)) is None else {"ownership": owner}
        return usage_row(id=id_, timestamp=time, **{**facts, **_owned(metadata)})
    return use(id_, time, amount, facts.pop("customer_id", "cus_a"), **facts)


def _owned(metadata: dict[str, str]) -> dict[str, Any]:
    return {"ai_credentials_ownership": metadata["ownership"]} if metadata else {}


def _line(id_: str, **cells: str) -> dict[str, str]:
    times = {"timestamp": "2026-10-15T12:00:00.000Z", "ended_at": "2026-10-15T12:01:00.000Z"}
    return line(id_, **{**times, "organization_id": "org_acme", **cells})


def template(factory: Any) -> Path:
    """The ledger, made by the first test of all processes that asks for it."""
    shared = Path(factory.getbasetemp())
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / "lived-in.duckdb"
    with exclusive(shared / "lived-in.lock"):
        if not made.exists():
            make(factory.mktemp("lived-in")).rename(made)
    return made


def copied(factory: Any, folder: Path) -> Path:
    """A copy of the ledger for one test."""
    target = folder / "billing.duckdb"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template(factory), target)
    return target


def service_at(path: Path, **environment: str) -> BillingService:
    """A service over a ledger file whose clock stands at `NOW`."""
    variables = {**ENVIRONMENT, "BILLING_WAREHOUSE_URL": f"duckdb:///{path}", **environment}
    return BillingService(load_settings(variables, env_file=None), clock=lambda: NOW)


WINDOWS: dict[str, dict[str, str]] = {
    "everything": {},
    "closed month": {"from": "2026-10-01", "to": "2026-11-01"},
    "part of a closed month": {"from": "2026-10-09T06:00:00", "to": "2026-10-26"},
    "open month": {"from": "2026-11-01", "to": "2026-12-01"},
    "across a close": {"from": "2026-09-15", "to": "2026-11-15T12:30:00"},
    "before anything": {"from": "2020-01-01", "to": "2020-02-01"},
    "open end": {"from": "2026-10-10"},
}
