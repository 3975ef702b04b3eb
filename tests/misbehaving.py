"""A server on a bare socket that answers badly: byte by byte, without an end, packed a thousandfold."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Talk = Callable[[socket.socket], None]

BOMB = gzip.compress(b" " * 20_000_000)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip_body(connection: socket.socket) -> None:
    """A header at once and then a byte now and then, for ever."""
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\n \r\n")
        time.sleep(0.05)


def drip_header(connection: socket.socket) -> None:
    """A header that never ends."""
    connection.sendall(HEAD + b"X-Long: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def without_end(connection: socket.socket) -> None:
    """A body without an end, as fast as it is read."""
    connection.sendall(HEAD + b"Connection: close\r\n\r\n")
    while True:
        connection.sendall(b" " * 65_536)


def bomb(connection: socket.socket) -> None:
    """Little that unpacks to much."""
    body = BOMB
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def bombs_in_a_bomb(connection: socket.socket) -> None:
    """Packed twice, which nobody asked for."""
    body = gzip.compress(gzip.compress(b" " * 1_000_000))
    connection.sendall(HEAD + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def lie(connection: socket.socket) -> None:
    """Plain text that says it is packed."""
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 11\r\n\r\n" + b'{"data":[]}')


def cut_short(connection: socket.socket) -> None:
    """A packed body that ends in the middle."""
    body = gzip.compress(b'{"data":[]}' * 100)[:-12]
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def broken_chunks(connection: socket.socket) -> None:
    """A chunk that is announced and does not come."""
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{")


@contextmanager
def serving(talk: Talk) -> Iterator[str]:
    """The address of a server that reads a request and then talks; every connection gets the same."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65_536)
            talk(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()
