"""Addresses that tests name and nobody serves."""

CLOSED_PORT = 9
"""The port nobody listens on: a connection is refused at once."""

UNREACHABLE = f"http://127.0.0.1:{CLOSED_PORT}"
"""An address of this machine at which nothing answers."""
