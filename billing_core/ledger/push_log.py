"""The log of pushes, and the meter that the ledger is bound to: tables `pushes` and `meta`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing_core.errors import SettingsError
from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import utc


@dataclass(frozen=True, slots=True)
class PushRun:
    """One push in the push log; `outcome`: running, done, failed."""

    push_id: str
    started_at: datetime
    ended_at: datetime | None
    actor: str
    outcome: str
    result: Mapping[str, Any]
    error: str | None


class PushLog:
    """The log of pushes and the bound meter, in the ledger; over the same engine as `Ledger`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def bind(self, meter_id: str, livemode: bool | None, *, keep: bool) -> None:
        """Bind the ledger to one meter of one account on the first push; with `keep` false only check it.

        Raises SettingsError: if it was pushed to another: what was sent there would count as sent here.
        """
        value = json.dumps({"meter": meter_id, "livemode": livemode})
        with self.engine.transaction() as writer:
            found = writer.rows("SELECT value FROM meta WHERE name = 'stripe_meter'")
            if not found and keep:
                writer.insert("meta", {"name": "stripe_meter", "value": value})
            elif found and found[0][0] != value:
                was = json.loads(found[0][0])
                raise SettingsError(
                    f"STRIPE_API_KEY: this ledger was pushed to the meter {was['meter']} (livemode {was['livemode']}) "
                    f"and this key leads to {meter_id} (livemode {livemode}): another account or mode. Use the key it "
                    "was pushed with, or another BILLING_WAREHOUSE_URL"
                )

    def bound_meter(self) -> str | None:
        """The id of the meter the ledger is bound to; `None` before the first push."""
        rows = self.engine.rows("SELECT value FROM meta WHERE name = 'stripe_meter'")
        return json.loads(rows[0][0])["meter"] if rows else None

    def start(self, push_id: str, *, actor: str, now: datetime) -> None:
        """Start a line in the push log; one that never ends was killed."""
        with self.engine.transaction() as writer:
            writer.insert(
                "pushes", {"push_id": push_id, "started_at": now, "actor": actor, "outcome": "running", "result": "{}"}
            )

    def end(self, push_id: str, *, now: datetime, outcome: str, result: str, error: str | None) -> None:
        """End a line of the push log; `result` is its document as JSON text."""
        values = {"push_id": push_id, "ended_at": now, "outcome": outcome, "result": result, "error": error}
        with self.engine.transaction() as writer:
            writer.update("pushes", values, key="push_id")

    def newest(self, limit: int = 20) -> list[PushRun]:
        """The newest pushes of the push log, newest first."""
        query = """SELECT push_id, started_at, ended_at, actor, outcome, result, error FROM pushes
                   ORDER BY started_at DESC LIMIT ?"""
        return [
            PushRun(row[0], utc(row[1]), row[2] and utc(row[2]), row[3], row[4], json.loads(row[5]), row[6])
            for row in self.engine.rows(query, [limit])
        ]
