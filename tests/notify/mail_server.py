"""A mail server on a free port that keeps what it gets."""

from __future__ import annotations

import socket
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller


class MailServer:
    """`messages`: what arrived, parsed; `address` is one of Apprise's that leads here."""

    def __init__(self):
        self.messages = []

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self._port)
        self._controller.start()
        return self

    def __exit__(self, *_):
        self._controller.stop()

    @property
    def address(self):
        return f"mailto://127.0.0.1:{self._port}?from=billing@example.com&to=finance@example.com"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd calls it so
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"
