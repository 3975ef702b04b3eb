"""`python -m billing_core.sandbox`: what `SandboxProcess` starts. People use `python -m billing_core sandbox`."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from billing_core.errors import BillingError
from billing_core.sandbox.data.dataset import DEFAULT_DAYS, DEFAULT_EVENTS, DEFAULT_SEED
from billing_core.sandbox.http import ApiGeneration
from billing_core.sandbox.server import run_command


def main() -> int:
    """Exit code as in CONTRACT section 3."""
    parser = argparse.ArgumentParser(prog="billing_core.sandbox", description="A local Langfuse and Stripe.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--events", type=int, default=DEFAULT_EVENTS)
    parser.add_argument("--days", type=int, default=DEFAULT_DAYS)
    parser.add_argument("--mode", choices=[mode.value for mode in ApiGeneration], default=ApiGeneration.V4.value)
    parser.add_argument("--now", type=datetime.fromisoformat)
    parser.add_argument("--taken-over", type=datetime.fromisoformat, help="an earlier system billed until then")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--stripe-journal", type=Path, help="a file in which Stripe remembers what was sent to it")
    parser.add_argument("--ends-with-parent", action="store_true")
    given = parser.parse_args()
    try:
        run_command(
            given.host,
            given.port,
            given.seed,
            given.events,
            given.days,
            given.mode,
            now=given.now,
            taken_over=given.taken_over,
            latency_seconds=given.latency,
            stripe_journal=given.stripe_journal,
            ends_with_parent=given.ends_with_parent,
        )
    except BillingError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
