"""Writes the export `bundle`, one zip: usage, organizations, customers, rate cards, reconciliation and manifests of
closed months.

Nothing in it is compressed: equal content has equal bytes, whatever library reads or wrote it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.running_totals import Value, as_text

MANIFEST = "manifest.json"

NO_TIME = (1980, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bundle: the function that writes it, its number of rows, and its metadata."""

    name: str
    rows: int | None
    totals: Mapping[str, Value]
    meta: Mapping[str, Any]
    write: Callable[[HashingSink], object]


def write_bundle(sink: HashingSink, members: Sequence[Member], meta: Mapping[str, Any]) -> None:
    """Write the members of a bundle in order, then their manifest: sizes, hashes, rows and totals of each."""
    noted = []
    with zipfile.ZipFile(cast("Any", sink), "w", zipfile.ZIP_STORED) as archive:
        for member in members:
            inner = _add(archive, member.name, member.write)
            noted.append(
                {
                    "file": member.name,
                    "rows": member.rows,
                    "bytes": inner.bytes,
                    "sha256": inner.sha256,
                    "totals": {name: as_text(value) for name, value in member.totals.items()},
                    **member.meta,
                }
            )
        text = json.dumps({**meta, "members": noted}, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        _add(archive, MANIFEST, lambda inner: inner.write(text.encode()))


def _add(archive: zipfile.ZipFile, name: str, write: Callable[[HashingSink], object]) -> HashingSink:
    entry = zipfile.ZipInfo(name, NO_TIME)
    entry.create_system, entry.external_attr = 3, READABLE
    with archive.open(entry, "w", force_zip64=True) as file:
        inner = HashingSink(cast("Any", file))
        write(inner)
    return inner
