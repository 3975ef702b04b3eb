"""Demo mode: the built-in sandbox in place of real connections.

A command runs the sandbox while it reads; the dashboard keeps one for as long as it lives.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from billing_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider
    from billing_core.rating.card import RateCardFile

__all__ = ["DEMO_DAYS", "DEMO_EVENTS", "DemoLangfuse", "demo_sandbox"]

DEMO_EVENTS = 20_000
DEMO_DAYS = 60
"""Two months, so that every figure of the last 30 days has a period before to be compared with."""


@contextmanager
def demo_sandbox(settings: Settings) -> Iterator[Settings]:
    """Run the sandbox as a child process; yields `settings` connected to it."""
    from billing_core.sandbox import SandboxProcess

    with SandboxProcess(events=DEMO_EVENTS, days=DEMO_DAYS) as sandbox:
        yield connected(settings, sandbox.environment)


def connected(settings: Settings, environment: dict[str, str]) -> Settings:
    """`settings` with the connections of `environment` (LANGFUSE_…, STRIPE_…) and nothing else changed."""
    found = load_settings({**environment, "BILLING_MODE": settings.mode.value}, env_file=None)
    names = ("langfuse_host", "langfuse_public_key", "langfuse_secret_key", "stripe_api_key", "stripe_api_base")
    return settings.model_copy(update={name: getattr(found, name) for name in names})


class DemoLangfuse:
    """Makes providers that read the sandbox, which starts with the first of them and ends with the process."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._running = ExitStack()
        self._connected: Settings | None = None

    def __call__(self, settings: Settings, cards: RateCardFile) -> LangfuseProvider:
        from billing_core.langfuse.provider import LangfuseProvider  # only pulls need its HTTP stack

        with self._turn:
            if self._connected is None:
                self._connected = self._running.enter_context(demo_sandbox(settings))
            return LangfuseProvider.from_settings(self._connected, cards.metadata)

    def close(self) -> None:
        """Stop the sandbox, if it ever started."""
        with self._turn:
            self._running.close()
            self._connected = None
