"""An import in a process of its own, which ends by SIGKILL at one of its steps."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from billing_core.ledger import duckdb_engine
from billing_core.service import BillingService
from billing_core.settings import load_settings
from tests.factories import EVERYONE

STEPS = ("book", "insert", "commit", "after")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: str) -> None:
    """Die in the middle of booking, before the record, before the commit is asked for, or right after it."""
    writer, engine = duckdb_engine._Writer, duckdb_engine.DuckDBEngine
    if step in {"book", "insert"}:
        done = getattr(writer, step)

        def then_die(self, *values, **more):  # type: ignore[no-untyped-def]
            found = done(self, *values, **more)
            if step == "book" or values[0] == "imports":
                die()
            return found

        setattr(writer, step, then_die)
    elif step == "commit":
        from billing_core.imports import history as import_records

        keep = import_records.append_audit
        import_records.append_audit = lambda *values: (keep(*values), die())
    else:
        transaction = engine.transaction
        from contextlib import contextmanager

        @contextmanager
        def committed(self):  # type: ignore[no-untyped-def]
            with transaction(self) as found:
                yield found
            die()

        engine.transaction = committed  # type: ignore[method-assign]


def main(ledger: str, path: str, step: str) -> None:
    variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{ledger}", "BILLING_MODE": "live"}
    service = BillingService(load_settings(variables, env_file=None))
    plan = service.imports.plan(Path(path), EVERYONE)
    arm(step)
    service.imports.apply(plan, EVERYONE)


if __name__ == "__main__":
    main(*sys.argv[1:])
