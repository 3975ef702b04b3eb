"""Makes a backup: the ledger as of one moment, with accounts, tokens and sessions of that moment."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from billing_core.access import Principal, Role
from billing_core.backups.archive import MANIFEST, PIECE, FileEntry, Manifest, TableEntry, is_backup
from billing_core.backups.places import BOOKS, LOG, SESSIONS, environment_of, places, refuse_own
from billing_core.errors import BadParameter, NotFound, WarehouseError
from billing_core.exports.atomic_file import replacing
from billing_core.exports.hashing_file import HashingSink
from billing_core.ledger.duckdb_migrations import SCHEMA_VERSION
from billing_core.ledger.engine import Engine
from billing_core.ledger.journal import Ledger
from billing_core.ledger.place import is_missing
from billing_core.settings import Settings

PLAIN_FILE = 0o100600 << 16
BUSY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class BackedUp:
    """The result of a backup: path, size, hash, tables."""

    path: Path
    bytes: int
    sha256: str
    manifest: Manifest
    problem: str | None = None
    """Why it is not in the audit log: a ledger on a full disk can still be backed up."""

    def to_json(self) -> dict[str, Any]:
        """The JSON document that `backup --json` prints."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "tables": [table.model_dump() for table in self.manifest.tables],
            "files": [file.model_dump() for file in self.manifest.files],
            "made_at": self.manifest.made_at,
        }


def back_up(settings: Settings, ledger: Ledger, principal: Principal, path: Path, now: datetime) -> BackedUp:
    """Write ledger, accounts, tokens and sessions into one archive at `path`, in place of an earlier backup or of
    nothing.

    Raises BadParameter: if anything but a backup is at `path`, or no file can be written there. NotFound: if there are
    no books. AccessDenied: for anybody but an admin who sees everything.
    """
    principal.require(Role.ADMIN)
    principal.require_everything("a backup holds everything")
    refuse_own(settings, path, "path")
    where = places(settings)
    if path.is_file() and path.stat().st_size and not is_backup(path, tuple(where)):
        raise BadParameter("path", str(path), "a new name, or that of an earlier backup; this file is something else")
    if is_missing(settings.warehouse_path):
        raise NotFound(f"there is no ledger at {settings.warehouse_path}; check BILLING_WAREHOUSE_URL")
    with replacing(path, "path") as file:
        sink = HashingSink(file)
        manifest = _write(sink, settings, ledger.engine, principal.name, now)
    done = BackedUp(path, sink.bytes, sink.sha256, manifest)
    try:
        ledger.audit(principal.name, "backup", {"file": path.name, "sha256": done.sha256, "bytes": done.bytes})
    except WarehouseError as error:
        return replace(done, problem=f"the backup is whole, but the audit log does not name it: {error}")
    return done


def _write(sink: HashingSink, settings: Settings, engine: Engine, actor: str, now: datetime) -> Manifest:
    where = places(settings)
    files: list[FileEntry] = []
    with zipfile.ZipFile(cast("Any", sink), "w", zipfile.ZIP_STORED) as archive:
        with engine.still() as still:
            for name, place in where.items():
                if name == SESSIONS and place.exists():
                    files.append(_add(archive, name, now, _all_of(_sessions(place))))
                elif place.exists() and (name != LOG or place.stat().st_size):
                    files.append(_add(archive, name, now, _copy_of(place)))
        manifest = Manifest(
            made_at=now.isoformat(),
            made_by=actor,
            schema_version=SCHEMA_VERSION,
            environment=environment_of(settings),
            files=files,
            tables=[TableEntry(name=name, rows=rows) for name, rows in still.tables],
        )
        text = json.dumps(manifest.model_dump(), ensure_ascii=True, indent=1) + "\n"
        _add(archive, MANIFEST, now, _all_of(text.encode()))
    if BOOKS not in {file.name for file in files}:
        raise NotFound(f"there is no ledger at {settings.warehouse_path}; check BILLING_WAREHOUSE_URL")
    return manifest


Write = Callable[[HashingSink], object]


def _all_of(content: bytes) -> Write:
    return lambda inner: inner.write(content)


def _copy_of(place: Path) -> Write:
    def copy(inner: HashingSink) -> None:
        with place.open("rb") as source:
            while piece := source.read(PIECE):
                inner.write(piece)

    return copy


def _add(archive: zipfile.ZipFile, name: str, now: datetime, write: Write) -> FileEntry:
    entry = zipfile.ZipInfo(name, (max(now.year, 1980), now.month, now.day, now.hour, now.minute, now.second))
    entry.create_system, entry.external_attr = 3, PLAIN_FILE
    with archive.open(entry, "w", force_zip64=True) as file:
        inner = HashingSink(cast("Any", file))
        write(inner)
    return FileEntry(name=name, bytes=inner.bytes, sha256=inner.sha256)


def _sessions(place: Path) -> bytes:
    """The session store as of one moment, whoever writes to it."""
    with closing(sqlite3.connect(place, timeout=BUSY_SECONDS)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        return copy.serialize()
