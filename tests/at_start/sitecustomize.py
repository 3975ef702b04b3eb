"""Python imports this at the start of every process that tests start, for its folder stands in PYTHONPATH."""

import os
import sys

import tests.fixed_clock  # noqa: F401

if noted_in := os.environ.get("TESTS_CONNECTIONS"):

    def note(event: str, given: tuple[object, ...]) -> None:
        """Write down whom the process connects to or looks up."""
        if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
            with open(noted_in, "a") as file:  # noqa: PTH123 - pathlib may not be imported yet
                file.write(f"{event} {given[1] if event == 'socket.connect' else given[0]}\n")

    sys.addaudithook(note)
