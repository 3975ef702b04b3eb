"""Demo mode: the built-in sandbox in place of real connections.

A command runs the sandbox while it reads; the dashboard keeps one for as long as it lives.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from billing_core.errors import SettingsError
from billing_core.runtime.clock import now
from billing_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider
    from billing_core.rating.card import RateCardFile
    from billing_core.stripe.provider import StripeProvider

DEMO_DAYS = 60
"""Two months, so that every figure of the last 30 days has a period before to be compared with."""


@contextmanager
def demo_sandbox(settings: Settings) -> Iterator[Settings]:
    """Run the sandbox as a child process; yields `settings` connected to it.

    What its Stripe was sent lies beside the ledger: the next sandbox over the same ledger still knows it.
    """
    from billing_core.sandbox.server import SandboxProcess

    path = settings.warehouse_path
    journal = path.with_name(path.name + ".demo-stripe")
    since = _first_start(path.with_name(path.name + ".demo-since"))
    with SandboxProcess(
        events=settings.demo_events, days=DEMO_DAYS, stripe_journal=journal, taken_over=since
    ) as sandbox:
        yield connected(settings, sandbox.environment)


def _first_start(file: Path) -> datetime:
    """When the demo over this ledger began: what came before its billing periods, an earlier system billed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or not file.stat().st_size:  # a full disk leaves it empty
        file.write_text(now().isoformat(timespec="seconds"), encoding="ascii")
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{file}: {text[:40]!r} is not a time; delete the file") from None


def connected(settings: Settings, environment: dict[str, str]) -> Settings:
    """A copy of `settings` with the connections of `environment` (LANGFUSE_…, STRIPE_…) and nothing else changed."""
    found = load_settings({**environment, "BILLING_MODE": settings.mode.value}, env_file=None)
    names = ("langfuse_host", "langfuse_public_key", "langfuse_secret_key", "stripe_api_key", "stripe_api_base")
    return settings.model_copy(update={name: getattr(found, name) for name in names})


class DemoSandbox:
    """Makes providers that talk to the sandbox, which starts with the first of them and ends with the process."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._running = ExitStack()
        self._connected: Settings | None = None

    def langfuse(self, settings: Settings, cards: RateCardFile) -> LangfuseProvider:
        """A provider that reads the sandbox's traces."""
        from billing_core.langfuse.provider import LangfuseProvider  # only pulls need its HTTP stack

        return LangfuseProvider.from_settings(self._settings(settings), cards.metadata)

    def stripe(self, settings: Settings) -> StripeProvider:
        """A provider of the sandbox's Stripe account."""
        from billing_core.stripe.provider import StripeProvider  # only pushes need the SDK

        return StripeProvider.from_settings(self._settings(settings))

    def _settings(self, settings: Settings) -> Settings:
        with self._turn:
            if self._connected is None:
                self._connected = self._running.enter_context(demo_sandbox(settings))
            return self._connected

    def close(self) -> None:
        """Stop the sandbox process, if it was ever started."""
        with self._turn:
            self._running.close()
            self._connected = None
