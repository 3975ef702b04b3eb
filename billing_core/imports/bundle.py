"""Imports a bundle: a zip with `manifest.json`, checked completely before anything of it is used.

Sizes that an archive declares are not believed: what comes out is counted. Nothing is written but the few files that
can be imported, under names of our own.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from billing_core.imports.archives import DAMAGED, PIECE, opened_zip
from billing_core.imports.bounds import Unusable, shown
from billing_core.imports.detection import File, detect_file
from billing_core.imports.model import FileKind

MANIFEST = "manifest.json"

PARTS: Mapping[FileKind, tuple[str, ...]] = {
    FileKind.RATE_CARD: ("rate-card.json", "rate-card.csv"),
    FileKind.CUSTOMERS: ("customers.csv",),
    FileKind.USAGE_EVENTS: ("usage-events.parquet", "usage-events.csv", "usage-events.json"),
}
"""What is imported, in this order: prices, who pays, then usage. Of several names the first that is there is read: the
Parquet file knows more of an event than the CSV."""

MOST_MEMBERS = 100
LARGEST_MANIFEST = 16 * 1024 * 1024
LARGEST_MEMBER = 32 * 1024**3
MOST_TIMES = 200
"""A member may unpack to so many times its packed size; usage events pack about ten times smaller."""

FREE = 16 * 1024 * 1024
"""Bytes up to which the ratio says nothing."""

_NESTED = (b"PK\x03\x04", b"PK\x05\x06")


def unpack(
    file: File, folder: Path, on_bytes_read: Callable[[int], None] | None = None
) -> list[tuple[File, str | None]]:
    """The files of a bundle to import, in order; every member's hash is checked, those not imported too.

    Raises Unusable: if the archive is damaged, dangerous, or holds other files than its manifest says.
    """
    folder.mkdir(exist_ok=True)
    try:
        with opened_zip(file.path) as archive:
            members = _members(archive)
            hashes = _manifest(archive, members)
            if odd := sorted(members.keys() - hashes.keys() - {MANIFEST}):
                raise Unusable(f"holds {shown(odd[0])}, which its manifest does not name; export the bundle again")
            wanted = {name: kind for kind, names in PARTS.items() if (name := _first(names, hashes))}
            paths = {}
            for number, (name, digest) in enumerate(hashes.items()):
                if name not in members:
                    raise Unusable(f"lacks {shown(name)}, which its manifest names; export the bundle again")
                path = folder / f"member-{number}" if name in wanted else None
                if _copy(archive, members[name], path, on_bytes_read) != digest:
                    raise Unusable(f"{shown(name)} is not the file its manifest describes (SHA-256); export it again")
                if path is not None:
                    paths[name] = path
    except DAMAGED as error:
        raise Unusable(f"is a damaged zip file ({error}); export or copy it again") from None
    if not wanted:
        raise Unusable("holds nothing that can be imported: no usage events, customers or rate cards")
    found = []
    for name, kind in wanted.items():
        part, fault = detect_file(paths[name], f"{file.name}: {name}")
        if fault is None and part.kind is not kind:
            fault = f"holds {part.kind.value} where {kind.value} are expected"
        found.append((part, fault))
    return found


def _first(names: tuple[str, ...], present: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in present), None)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, once it is sure that names and declared sizes are harmless."""
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS:
        raise Unusable(f"holds {len(entries):,} files; a bundle has at most {MOST_MEMBERS}")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith("/") or ".." in parts or ":" in name or "\\" in name or len(parts) > 1:
            raise Unusable(f"holds a file named {shown(name)}; a bundle has plain names without folders")
        if name in found:
            raise Unusable(f"holds {shown(name)} twice; export the bundle again")
        if entry.flag_bits & 1:
            raise Unusable(f"{shown(name)} is encrypted; export the bundle without a password")
        if name.lower().endswith(".zip"):
            raise Unusable(f"holds {shown(name)}: a zip inside a zip is not read")
        if entry.file_size > LARGEST_MEMBER or entry.file_size > max(entry.compress_size * MOST_TIMES, FREE):
            raise Unusable(
                f"{shown(name)} says it unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, which no "
                "export does; nothing of it was unpacked"
            )
        found[name] = entry
    return found


def _manifest(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> dict[str, str]:
    """File name → SHA-256, as the manifest says."""
    if members[MANIFEST].file_size > LARGEST_MANIFEST:
        raise Unusable(f"its manifest has more than {LARGEST_MANIFEST:,} bytes")
    with archive.open(MANIFEST) as stream:
        text = stream.read(LARGEST_MANIFEST + 1)
    try:
        said: Any = json.loads(text)
        found = {str(member["file"]): str(member["sha256"]).lower() for member in said["members"]}
        count = len(said["members"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unusable('its manifest is not readable; expected {"members": [{"file": …, "sha256": …}]}') from None
    if len(found) != count:
        raise Unusable("its manifest names a file twice")
    return found


def _copy(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path | None, on_bytes_read: Callable[[int], None] | None
) -> str:
    """Unpack in pieces, to `path` if there is one; returns the SHA-256 of what came out."""
    digest, size = sha256(), 0
    with archive.open(entry) as stream, (path or Path(os.devnull)).open("wb") as out:
        while piece := stream.read(PIECE):
            if not size and piece.startswith(_NESTED):
                raise Unusable(f"{shown(entry.filename)} is a zip inside a zip, which is not read")
            size += len(piece)
            if size > entry.file_size or size > max(entry.compress_size * MOST_TIMES, FREE):
                raise Unusable(f"{shown(entry.filename)} unpacks to more than it says; nothing of it is used")
            digest.update(piece)
            out.write(piece)
            if on_bytes_read is not None:
                on_bytes_read(size)
    return digest.hexdigest()
