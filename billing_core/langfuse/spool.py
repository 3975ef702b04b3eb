"""Keeps pages on disk between reading and roll-up: memory stays flat and a killed read loses at most one page.

Layout: `SPOOL/<identity>/<lane>/<slice key>/00000.arrow …`. Each page names, in its own metadata, what was still to
read after it, so a page and the position behind it become durable in one rename. A lane belongs to one process at
a time; a second reader takes the next lane instead of waiting.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from billing_core.langfuse.decode import DecodedPage
from billing_core.langfuse.facts import FACTS_SCHEMA
from billing_core.langfuse.spans import ReadSlice, TimeRange, milliseconds
from billing_core.runtime.clock import Clock
from billing_core.runtime.faults import naming
from billing_core.values.usage_frame import RejectedRow

REUSED_FOR = timedelta(hours=6)
"""A slice begun longer ago is read anew: late rows and corrections have come since."""

QUIET_AFTER = timedelta(hours=48)
"""A slice is reused only if its end lay this far back when it was read: younger data still moves."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_INFO = b"page"


class SpoolPart:
    """The spooled pages of one slice. One thread writes it."""

    def __init__(self, folder: Path, piece: ReadSlice, now: datetime) -> None:
        self.slice = piece
        self.rows = 0
        self.rejected: list[RejectedRow] = []
        self.notes: list[str] = []
        self.remaining: list[TimeRange] = list(piece.spans)
        self._folder = folder
        self._begun = now
        self._pages = 0
        if folder.is_dir() and not self._resume(now):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def _resume(self, now: datetime) -> bool:
        """Take over an earlier run's pages; false if they must not be used."""
        state: dict[str, Any] = {}
        rows, rejected, begun = 0, [], None
        files = sorted(self._folder.glob("*.arrow"))
        for path in files:
            try:
                with pa.OSFile(str(path)) as file:
                    state = json.loads(pa.ipc.open_file(file).schema.metadata[_INFO])
            except (pa.ArrowInvalid, OSError, KeyError, ValueError):
                return False
            begun = begun or datetime.fromisoformat(state["begun"])
            rows += state["rows"]
            rejected += [RejectedRow(*row) for row in state["rejected"]]
        if begun is None:
            return True
        is_fresh = timedelta(0) <= now - begun <= REUSED_FOR
        is_quiet = self.slice.end <= milliseconds(begun - QUIET_AFTER)
        if not (is_fresh and is_quiet):
            return False
        self.rows, self.rejected, self._begun, self._pages = rows, rejected, begun, len(files)
        self.remaining = [TimeRange.from_json(span) for span in state["remaining"]]
        self.notes = state.get("notes", [])
        return True

    def note(self, sentence: str) -> None:
        """Note what is left out of the requests from here on; stored with the next page."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def write(self, facts: DecodedPage, remaining: Sequence[TimeRange]) -> None:
        """Store a page together with what is left to read after it; an empty page is stored only as the last."""
        self.remaining = list(remaining)
        if not facts.rows and remaining:
            return
        info = {
            "begun": self._begun.isoformat(),
            "rows": facts.rows,
            "rejected": [[row.row, row.reason] for row in facts.rejected],
            "remaining": [span.as_json() for span in remaining],
            "notes": self.notes,
        }
        path = self._folder / f"{self._pages:06d}.arrow"
        draft = path.with_suffix(".tmp")
        schema = FACTS_SCHEMA.with_metadata({_INFO: json.dumps(info).encode()})
        with (
            naming(path),
            pa.OSFile(str(draft), "wb") as file,
            pa.ipc.new_file(file, schema, options=_OPTIONS) as writer,
        ):
            writer.write_table(facts.table)
        draft.replace(path)
        self._pages += 1
        self.rows += facts.rows
        self.rejected += facts.rejected

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The stored pages, one at a time, with all columns or only some."""
        fields = None if columns is None else [FACTS_SCHEMA.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        for path in sorted(self._folder.glob("*.arrow")):
            with pa.memory_map(str(path)) as file:
                yield pa.ipc.open_file(file, options=options).read_all().replace_schema_metadata(None)


class Spool:
    """The folder for one read's pages, locked until `release` or `discard`.

    root: The spool folder; created if missing.
    identity: Everything that makes pages interchangeable: host, project, API, metadata names. Hashed, never shown.
    clock: Aware now.
    """

    def __init__(self, root: Path, identity: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        text = json.dumps([*identity, FACTS_SCHEMA.to_string(show_schema_metadata=False)])
        home = root / hashlib.sha256(text.encode()).hexdigest()[:24]
        self._lane, self._lock = _take_lane(home)
        self.parts: dict[str, SpoolPart] = {}
        self._drop_leftovers()

    @property
    def work_folder(self) -> Path:
        """A folder for partitions and results; emptied at the start of a read."""
        return self._lane / "work"

    def part(self, piece: ReadSlice) -> SpoolPart:
        """The spooled pages of a slice, continued where an earlier run stopped if they are fresh enough."""
        part = SpoolPart(self._lane / piece.key, piece, self._clock())
        self.parts[piece.key] = part
        return part

    def release(self) -> None:
        """Unlock the folder for the next read, pages included."""
        if not self._lock.closed:
            self._lock.close()

    def discard(self) -> None:
        """Delete the folder's pages: they were booked, or are not wanted."""
        if self._lock.closed:
            return
        for folder in self._lane.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
        self.release()

    def _drop_leftovers(self) -> None:
        """Pages that no later run may reuse, and another run's work in progress."""
        os.utime(self._lock.fileno())
        fresh = os.fstat(self._lock.fileno()).st_mtime  # folders carry times of the file system's clock, maybe another
        oldest = fresh - REUSED_FOR.total_seconds()
        for folder in self._lane.iterdir():
            if folder.is_dir() and (folder.name == "work" or folder.stat().st_mtime < oldest):
                shutil.rmtree(folder, ignore_errors=True)


def _take_lane(home: Path) -> tuple[Path, IO[bytes]]:
    """The first lane nobody holds. The operating system frees the lock when its process dies."""
    number = 0
    while True:
        lane = home / str(number)
        lane.mkdir(parents=True, exist_ok=True)
        lock = (lane / "lock").open("ab")
        if _lock(lock):
            return lane, lock
        lock.close()
        number += 1


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
