"""Makes every file of this process readable by its own account only: usage, password hashes, sessions."""

from __future__ import annotations

import os

FILE, FOLDER = 0o600, 0o700
"""Modes of what is created. What was there before keeps its own."""


def keep_private() -> None:
    """From now on create files and folders for this process's own account only, libraries included."""
    os.umask(os.umask(0o077) | 0o077)
