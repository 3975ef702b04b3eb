"""Where a file's bytes go: counted and hashed on the way, kept or not."""

from __future__ import annotations

import hashlib
from typing import BinaryIO


class HashingSink:
    """A file to write to from beginning to end. Without a target the bytes are hashed only.

    It offers no way back and no position: zip files are written the same whether they are kept or not.
    """

    closed = False

    def __init__(self, target: BinaryIO | None = None) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of everything so far, in hex."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """It is what a sink is for."""
        return True

    def write(self, data: bytes) -> int:
        """Take all of `data`."""
        view = memoryview(data)
        self._hash.update(view)
        self.bytes += view.nbytes
        if self._target is not None:
            self._target.write(view)
        return view.nbytes

    def flush(self) -> None:
        """Nothing waits here; the target is made durable by whoever opened it."""

    def close(self) -> None:
        """Whoever opened the target closes it."""
