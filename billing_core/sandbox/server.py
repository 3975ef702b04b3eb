"""Running the sandbox: in this process, or as a child that never outlives its parent."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import IO, NoReturn, Self

import uvicorn

from billing_core.errors import SettingsError, UpstreamError
from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.catalog import LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY, STRIPE_KEY
from billing_core.sandbox.data.dataset import DEFAULT_DAYS, DEFAULT_EVENTS, DEFAULT_SEED, SandboxDataset
from billing_core.sandbox.http import ApiGeneration

PARENT_CHECK_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""Between the wish to end and the end, whatever a request is still doing."""


def environment_for(url: str) -> dict[str, str]:
    """The variables that make every client of the dashboard talk to the sandbox at `url`."""
    return {
        "LANGFUSE_HOST": url,
        "LANGFUSE_PUBLIC_KEY": LANGFUSE_PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": LANGFUSE_SECRET_KEY,
        "STRIPE_API_KEY": STRIPE_KEY,
        "STRIPE_API_BASE": url,
    }


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens()


def serve(
    host: str,
    port: int,
    dataset: SandboxDataset,
    *,
    mode: ApiGeneration | str = ApiGeneration.V4,
    latency_seconds: float = 0.0,
    stripe_journal: Path | None = None,
    ready: Callable[[str], None] | None = None,
    ends_with_parent: bool = False,
) -> None:
    """Serve until interrupted. Port 0 takes a free one; `ready` gets the URL once requests are accepted.

    The data is generated after that, in a thread; the first requests wait for it. `ends_with_parent` ends the
    process when its standard input closes or its parent dies.

    Raises SettingsError: if the address cannot be listened on, or the journal not be used.
    """
    app = create_app(dataset, mode=mode, latency_seconds=latency_seconds, stripe_journal=stripe_journal)
    listener = _listen(host, port)
    shown_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{shown_host}:{listener.getsockname()[1]}"

    def listens() -> None:
        if ready is not None:
            ready(url)
        Thread(target=dataset.store, name="sandbox-data", daemon=True).start()

    config = uvicorn.Config(
        app, lifespan="off", log_level="critical", access_log=False, timeout_graceful_shutdown=int(GRACE_SECONDS)
    )
    server = _Server(config, listens)
    if ends_with_parent:
        _end_with_parent(server)
    with listener, suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers without delay only over sockets that name their protocol
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise SettingsError(
            f"port {port} on {host} cannot be listened on ({error}); choose another port, or 0 for a free one"
        ) from None
    listener.listen(1024)
    return listener


def _end_with_parent(server: uvicorn.Server) -> None:
    """End when standard input closes (the parent held its other end) or the process is adopted by another parent."""
    parent = os.getppid()

    def end() -> None:
        server.should_exit = True
        time.sleep(GRACE_SECONDS)
        os._exit(0)

    def watch_input() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # not through the buffer, whose lock would hang the interpreter's end
            pass
        end()

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        end()

    for watch in (watch_input, watch_parent):
        Thread(target=watch, daemon=True).start()


def run_command(
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = DEFAULT_SEED,
    events: int = DEFAULT_EVENTS,
    days: int = DEFAULT_DAYS,
    mode: ApiGeneration | str = ApiGeneration.V4,
    *,
    now: datetime | None = None,
    taken_over: datetime | None = None,
    latency_seconds: float = 0.0,
    stripe_journal: Path | None = None,
    ends_with_parent: bool = False,
) -> None:
    """The `sandbox` command: prints the environment to use, one `export NAME=value` per line, and serves till Ctrl-C.

    Raises SettingsError: for an address, a number, a mode or a journal that cannot be used.
    """

    def announce(url: str) -> None:
        for name, value in environment_for(url).items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.flush()

    try:
        dataset = SandboxDataset(seed, events, days, now=now, taken_over=taken_over)
        chosen = ApiGeneration(mode)
    except ValueError as error:
        raise SettingsError(f"sandbox: {error}") from None
    serve(
        host,
        port,
        dataset,
        mode=chosen,
        latency_seconds=latency_seconds,
        stripe_journal=stripe_journal,
        ready=announce,
        ends_with_parent=ends_with_parent,
    )


class SandboxProcess:
    """The sandbox as a child process on a free port of this machine; a context manager.

    It ends with `stop`, with the `with` block, and with this process, however that ends. With `stripe_journal`, a
    file, Stripe's face remembers from one start to the next what was sent to it.

    url: Base URL of both APIs, without a slash at the end.
    environment: The variables for the clients. `BILLING_MODE` is not among them.
    """

    def __init__(
        self,
        *,
        seed: int = DEFAULT_SEED,
        events: int = DEFAULT_EVENTS,
        days: int = DEFAULT_DAYS,
        mode: ApiGeneration | str = ApiGeneration.V4,
        now: datetime | None = None,
        taken_over: datetime | None = None,
        latency_seconds: float = 0.0,
        stripe_journal: Path | None = None,
        start_seconds: float = 30.0,
    ) -> None:
        self.url = ""
        self.environment: dict[str, str] = {}
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[str] | None = None
        options: dict[str, object] = {
            "seed": seed,
            "events": events,
            "days": days,
            "mode": ApiGeneration(mode),
            "latency": latency_seconds,
        }
        if now is not None:
            options["now"] = now.isoformat()
        if taken_over is not None:
            options["taken-over"] = taken_over.isoformat()
        if stripe_journal is not None:
            options["stripe-journal"] = stripe_journal.absolute()
        self._command = [sys.executable, "-m", "billing_core.sandbox", "--ends-with-parent"]
        self._command += [f"--{name}={value}" for name, value in options.items()]

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Start the child and wait until it accepts requests.

        Raises UpstreamError: if it ends, or stays silent for `start_seconds`.
        """
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent; the child ends when the parent has
        )
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        lines: Queue[str] = Queue()
        Thread(target=_pass_on, args=(self._process.stdout, lines), daemon=True).start()
        expected = environment_for("")
        deadline = time.monotonic() + self._start_seconds
        while len(self.environment) < len(expected):
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                self._give_up(f"did not listen within {self._start_seconds:g} s")
            if not line:  # it closed its output, so it is ending
                self._give_up(f"ended with code {self._process.wait(GRACE_SECONDS)}")
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = shlex.split(value)[0]
        self.url = self.environment["LANGFUSE_HOST"]
        return self

    def _give_up(self, what: str) -> NoReturn:
        self.stop()
        raise UpstreamError(f"the sandbox {what}; `python -m billing_core sandbox` shows what is wrong")

    def stop(self) -> None:
        """End the child and wait for its end; does nothing if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _pass_on(source: IO[str], lines: Queue[str]) -> None:
    """Lines of the child; an empty one says that it closed its output."""
    for line in source:
        lines.put(line.strip())
    lines.put("")
