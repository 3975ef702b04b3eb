"""The archive of a backup: a zip file of stored members, each with its hash in the manifest, which comes last.

Nothing in it is compressed, so that it is never larger on disk than in its file; members have fixed names, so that
no name leads anywhere else.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing_core.backups.places import BOOKS
from billing_core.errors import BadParameter
from billing_core.imports.archives import opened_zip
from billing_core.imports.bounds import Unusable

MANIFEST = "manifest.json"
FORMAT, VERSION = "billing-backup", 1

LARGEST_MANIFEST = 1 << 20
PIECE = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class FileEntry(_Part):
    """A file in a backup archive, with its size and hash."""

    name: str
    bytes: int = Field(ge=0)
    sha256: str


class TableEntry(_Part):
    """A table of the ledger in a backup, and how many rows it has."""

    name: str
    rows: int = Field(ge=0)


class Manifest(_Part):
    """The manifest of a backup: what the archive holds, and what it was made of."""

    format: str = FORMAT
    version: int = VERSION
    made_at: str
    made_by: str
    schema_version: int
    environment: dict[str, str]
    files: list[FileEntry]
    tables: list[TableEntry]


class Archive:
    """An open backup archive whose list of members agrees with its manifest."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, names: tuple[str, ...]) -> None:
        self._path = path
        self._archive = archive
        members = archive.infolist()
        self.manifest = self._read_manifest(members)
        noted = {entry.name: entry.bytes for entry in self.manifest.files}
        found = {member.filename: member.file_size for member in members if member.filename != MANIFEST}
        if len(members) != len(found) + 1 or noted != found or len(noted) != len(self.manifest.files):
            raise self.refused("its members are not those of its manifest")
        if unknown := set(found) - set(names):
            raise self.refused(f"it holds {sorted(unknown)[0]!r}, which this program does not know")
        if BOOKS not in found:
            raise self.refused("it contains no ledger")
        for member in members:
            is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 0x1
            if not is_plain or member.file_size != member.compress_size or (member.external_attr >> 28) not in {0, 8}:
                raise self.refused(f"its member {member.filename!r} is not a plain stored file")
        if sum(found.values()) > path.stat().st_size:
            raise self.refused("its members are larger than the whole")

    def extract(self, entry: FileEntry, target: IO[bytes]) -> None:
        """Copy a member of the archive to a file; its hash must be that of the manifest."""
        digest = hashlib.sha256()
        for piece in self._pieces(entry.name):
            digest.update(piece)
            target.write(piece)
        if digest.hexdigest() != entry.sha256:
            raise self.refused(f"its member {entry.name!r} is not what was backed up")

    def _pieces(self, name: str) -> Iterator[bytes]:
        with self._damage_named(), self._archive.open(name) as stream:
            while piece := stream.read(PIECE):
                yield piece

    def refused(self, why: str) -> BadParameter:
        """The error that says why the archive cannot be restored."""
        return BadParameter("path", str(self._path), f"a backup as `backup` makes it; {why}")

    def _read_manifest(self, members: list[zipfile.ZipInfo]) -> Manifest:
        entry = next((member for member in members if member.filename == MANIFEST), None)
        if entry is None or entry.file_size > LARGEST_MANIFEST or entry.compress_type != zipfile.ZIP_STORED:
            raise self.refused(f"it has no {MANIFEST} of a backup")
        with self._damage_named(), self._archive.open(entry) as stream:
            text = stream.read(LARGEST_MANIFEST)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise self.refused(f"its {MANIFEST} is not that of a backup")
        if not isinstance(version := document.get("version"), int) or version > VERSION:
            raise self.refused(f"it was written by a later version ({version!r}); update the program")
        try:
            return Manifest.model_validate(document)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
            raise self.refused(f"its {MANIFEST} is damaged at {where!r}") from None

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
            if isinstance(error, BadParameter):
                raise
            raise self.refused(f"it is damaged ({error}); copy it again") from None


@contextmanager
def opened_archive(path: Path, names: tuple[str, ...]) -> Iterator[Archive]:
    """The backup at a path, opened and checked; it may have members of `names` only.

    Raises BadParameter: if it is none, is damaged, or was made by a later version.
    """
    refused: Callable[[str], BadParameter] = lambda why: BadParameter("path", str(path), f"a backup; {why}")  # noqa: E731
    with ExitStack() as stack:
        try:
            if not path.is_file():
                raise refused("there is no such file" if not path.exists() else "this is not a file")
            opened = Archive(path, stack.enter_context(opened_zip(path)), names)
        except Unusable as fault:
            raise refused(fault.reason) from None
        except (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error) as error:
            raise refused(f"it is not a zip file, or is damaged ({error}); copy it again") from None
        except OSError as error:
            raise refused(f"it cannot be read ({error.strerror or error})") from None
        yield opened


def is_backup(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file is a backup, so that a newer one may replace it."""
    try:
        with opened_archive(path, names):
            return True
    except BadParameter:
        return False
