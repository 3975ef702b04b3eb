"""Logs start and stop of the dashboard, each in one line: what began, and why it ended."""

from __future__ import annotations

import logging
import re
import signal
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from billing_core.errors import SettingsError
from billing_core.settings import Settings
from billing_core.web import wiring

_log = logging.getLogger(__name__)


@contextmanager
def logged_lifetime(listening: str) -> Iterator[None]:
    """A context that logs the server's start, and its stop with the signal or the error that caused it."""
    signals: list[str] = []
    _note_signals(signals)
    _log.info("start: version %s, %s, listening on %s", _version(), _described(), listening)
    try:
        yield
    except BaseException as error:
        _log.error("stop: %s: %s", type(error).__name__, error)
        raise
    _log.info("stop: %s", f"signal {signals[0]}" if signals else "the server has ended")


def _note_signals(signals: list[str]) -> None:
    """Write down what arrives, and leave what happens then to the server, which restores its handlers itself.

    A terminal that is closed (SIGHUP) would end the process at once: that is made a stop like any other.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    stop_as = {number: number for number in handlers}
    if handlers[signal.SIGHUP] is signal.SIG_DFL:
        handlers[signal.SIGHUP], stop_as[signal.SIGHUP] = handlers[signal.SIGTERM], signal.SIGTERM

    def noted(received: int, frame: FrameType | None) -> None:
        number = signal.Signals(received)
        signals.append(number.name)
        handler = handlers[number]
        if callable(handler):
            handler(stop_as[number], frame)

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, noted)


def _described() -> str:
    try:
        settings = wiring.settings()
    except SettingsError as error:
        return f"settings refused ({error})"
    return f"{settings.mode} mode, ledger {_without_account(settings)}"


def _without_account(settings: Settings) -> str:
    return re.sub(r"//.*@", "//", settings.warehouse_url.partition("?")[0])


def _version() -> str:
    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])
    except (OSError, KeyError, ValueError):
        return "unknown"
