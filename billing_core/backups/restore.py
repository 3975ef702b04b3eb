"""Restores a backup into a place where there is no installation yet.

Everything is read, hashed and opened under other names first; then the files take their own, the books last. Whatever
kills a restore, the same command run again ends it: files that are already there as the archive has them are left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from billing_core.backups.archive import PIECE, Archive, FileEntry, Manifest, opened_archive
from billing_core.backups.places import BOOKS, LOG, TOKENS, environment_of, places
from billing_core.errors import SettingsError
from billing_core.ledger.duckdb_engine import table_rows
from billing_core.ledger.duckdb_migrations import SCHEMA_VERSION
from billing_core.ledger.place import log_of
from billing_core.runtime.faults import naming, one_line
from billing_core.runtime.locks import try_lock
from billing_core.runtime.private_files import FILE, FOLDER
from billing_core.settings import Settings

DRAFT = ".restoring"


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore. `differs` are settings that are others here: variable, value then, value now."""

    path: Path
    bytes: int
    sha256: str
    manifest: Manifest
    placed: Mapping[str, Path]
    differs: tuple[tuple[str, str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The JSON document that `restore --json` prints."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "tables": [table.model_dump() for table in self.manifest.tables],
            "files": [{"name": name, "path": str(place)} for name, place in self.placed.items()],
            "made_at": self.manifest.made_at,
            "differs": [{"variable": name, "was": was, "is": now} for name, was, now in self.differs],
        }


def restore(settings: Settings, path: Path) -> Restored:
    """Restore a backup to the paths the settings name, if nothing else is there.

    Raises BadParameter: if the archive is none, damaged, of a later version, or not what its manifest says.
    SettingsError: if something else is in a place that it needs; nothing was changed then.
    """
    where = places(settings)
    names = (*where, *(() if TOKENS in where else (TOKENS,)))
    with opened_archive(path, names) as archive:
        manifest = archive.manifest
        if manifest.schema_version > SCHEMA_VERSION:
            raise archive.refused(f"its ledger is of a later version ({manifest.schema_version}); update the program")
        if TOKENS in {entry.name for entry in manifest.files} and TOKENS not in where:
            raise SettingsError("BILLING_API_TOKENS: not set; the backup holds API tokens, name the file for them")
        entries = {entry.name: entry for entry in manifest.files}
        placed = {name: place for name, place in where.items() if name in entries}
        _refuse_others(where, entries)
        with _held(where[BOOKS]):
            _refuse_others(where, entries)
            _put(archive, {name: entries[name] for name in placed}, placed)
        digest = _sha256(path)
        size = path.stat().st_size
    here = environment_of(settings)
    differs = tuple(
        (name, was, here[name]) for name, was in manifest.environment.items() if name in here and here[name] != was
    )
    return Restored(path, size, digest, manifest, placed, differs)


def _refuse_others(where: Mapping[str, Path], entries: Mapping[str, FileEntry]) -> None:
    for name, place in where.items():
        if os.path.lexists(place) and not (name in entries and _is_there(entries[name], place)):
            raise SettingsError(
                f"{place}: is there already; a backup is restored into an empty place only: move the file away, or "
                "name other places (BILLING_WAREHOUSE_URL, BILLING_CREDENTIALS, BILLING_API_TOKENS)"
            )


def _is_there(entry: FileEntry, place: Path) -> bool:
    return place.is_file() and place.stat().st_size == entry.bytes and _sha256(place) == entry.sha256


@contextmanager
def _held(books: Path) -> Iterator[None]:
    """Nobody else opens, makes or restores these books meanwhile."""
    books.parent.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    handle = os.open(f"{books}.lock", os.O_RDWR | os.O_CREAT, FILE)
    try:
        if not try_lock(handle, fcntl.LOCK_EX):
            raise SettingsError(f"{books}: is in use; stop what uses it, or name another place")
        yield
    finally:
        os.close(handle)


def _put(archive: Archive, entries: Mapping[str, FileEntry], placed: Mapping[str, Path]) -> None:
    """Draft every file, prove the books, then give each its name."""
    mark = secrets.token_hex(6)
    drafts = {name: place.with_name(f".{place.name}.{mark}{DRAFT}") for name, place in placed.items()}
    if LOG in drafts:
        drafts[LOG] = log_of(drafts[BOOKS])
    for place in placed.values():
        place.parent.mkdir(mode=FOLDER, parents=True, exist_ok=True)
        _remove_left_behind(place)
    try:
        for name, draft in drafts.items():
            with (
                naming(placed[name]),
                os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE), "wb") as file,
            ):
                archive.extract(entries[name], file)
                file.flush()
                os.fsync(file.fileno())
        _prove(archive, drafts[BOOKS])
        for name, draft in drafts.items():
            if not placed[name].exists():
                draft.replace(placed[name])
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _remove_left_behind(place: Path) -> None:
    """Drafts of a restore that was killed; the caller holds the books."""
    for file in place.parent.iterdir():
        if file.name.startswith(f".{place.name}.") and DRAFT in file.name:
            file.unlink(missing_ok=True)


def _prove(archive: Archive, draft: Path) -> None:
    """The books can be opened, hold the tables that were backed up, and nothing that does something when it is read."""
    try:
        with closing(duckdb.connect(str(draft), read_only=True, config={"enable_external_access": "false"})) as books:
            found = table_rows(books)
            acts = books.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall()[0][0]
    except duckdb.Error as error:
        raise archive.refused(f"its ledger cannot be opened ({one_line(str(error))})") from None
    if found != [(table.name, table.rows) for table in archive.manifest.tables] or acts:
        raise archive.refused("its ledger is not the one of its manifest")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
