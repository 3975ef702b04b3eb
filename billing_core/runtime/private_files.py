"""What this product writes is for its own account only: usage of customers, hashes of passwords, sessions."""

from __future__ import annotations

import os

FILE, FOLDER = 0o600, 0o700
"""Modes of what is created. What was there before keeps its own."""


def keep_private() -> None:
    """From now on this process creates files and folders for its own account only, libraries included."""
    os.umask(os.umask(0o077) | 0o077)
