"""Opens zip files of strangers without trusting the sizes they claim."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from billing_core.imports.bounds import Unusable, shown

PIECE = 1 << 20
"""Bytes read at once."""

DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, KeyError)
"""What `zipfile` raises on files that are cut off, damaged or encrypted."""

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How exports and workbooks are packed; unpacking others takes as much memory as the file says."""


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file at a path; one with an absurdly long list of files is refused before the list is read.

    Raises Unusable: if it is; `zipfile` has its own errors for all else.
    """
    with _InPieces(path) as file, zipfile.ZipFile(file) as archive:
        file.is_listing = False
        if odd := [entry.filename for entry in archive.infolist() if entry.compress_type not in _PACKED]:
            raise Unusable(f"holds {shown(odd[0])}, which uses an unsupported compression; use plain zip (deflate)")
        yield archive


class _InPieces(io.FileIO):
    """A file of which nobody gets more than a piece at once, whatever the end of a zip says of its list of files."""

    is_listing = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_listing and size is not None and size > PIECE:
            raise Unusable(f"its list of files has {size:,} bytes; one that can be imported has at most {PIECE:,}")
        return super().read(PIECE if size is None or size < 0 else min(size, PIECE)) or b""
