"""A file object that counts and hashes the bytes written to it."""

from __future__ import annotations

import hashlib
from typing import BinaryIO


class HashingSink:
    """A write-only file that counts and hashes its bytes; without a target they are not kept. Without a target the
    bytes are hashed only.

    It offers no way back and no position: zip files are written the same whether they are kept or not.
    """

    closed = False

    def __init__(self, target: BinaryIO | None = None) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of everything written so far."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Always true: this file is for writing."""
        return True

    def write(self, data: bytes) -> int:
        """Count, hash and write all of `data`."""
        view = memoryview(data)
        self._hash.update(view)
        self.bytes += view.nbytes
        if self._target is not None:
            self._target.write(view)
        return view.nbytes

    def flush(self) -> None:
        """Does nothing: the target is made durable by whoever opened it."""

    def close(self) -> None:
        """Does nothing: the target is closed by whoever opened it."""
