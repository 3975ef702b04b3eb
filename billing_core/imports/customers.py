"""Reads the customer map from a table file, by the rules of the organization directory's own file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from billing_core.imports.bounds import Unusable
from billing_core.imports.detection import File, Form
from billing_core.imports.model import RejectedLine
from billing_core.imports.readers import batches, json_header, records, texts
from billing_core.organizations.directory import Directory
from billing_core.organizations.directory_file import CLEARS, LARGEST_FILE, Parsed
from billing_core.values.csv_cells import neutralised

LARGEST_MAP = LARGEST_FILE


@dataclass(frozen=True, slots=True)
class ReadMap:
    """The customer map read from a file: its changes (`Directory.parse_import`), and what is wrong with unusable
    rows.
    """

    parsed: Parsed | None
    rows: int
    rejected: tuple[RejectedLine, ...] = ()
    header: tuple[str, ...] = ()
    is_whole: bool = True


def read_map(file: File, *, skip_bad_rows: bool) -> ReadMap:
    """The customer map of a file, read as the directory does; `skip_bad_rows` leaves out rows that cannot be used."""
    try:
        lines = list(_records(file))
    except Unusable as whole:
        return ReadMap(None, 0, (RejectedLine(whole.row, whole.field, whole.reason),), is_whole=False)
    header, body = lines[0], lines[1:]
    parsed = Directory.parse_import(_csv(lines))
    rejected = tuple(RejectedLine(max(one.row - 1, 0), one.field, one.reason) for one in parsed.rejected)
    is_whole = not any(one.row == 0 or one.field == "file" for one in rejected)
    if rejected and skip_bad_rows and is_whole:
        bad = {one.row for one in rejected}
        parsed = Directory.parse_import(_csv([header, *(line for row, line in enumerate(body, 1) if row not in bad)]))
    parsed = replace(parsed, sha256=file.sha256)
    return ReadMap(parsed, len(body), rejected, tuple(header), is_whole)


def _records(file: File) -> Iterator[list[str]]:
    if file.bytes > LARGEST_MAP:
        raise Unusable(f"has {file.bytes:,} bytes; a customer map has at most {LARGEST_MAP:,}")
    if file.form is Form.DELIMITED:
        yield from (cells for _, cells in records(file))
        return
    header = json_header(file) if file.form is Form.JSON else file.header
    yield list(header)
    characters = 0
    for batch in batches(file, header):
        if batch.rejected:
            first = batch.rejected[0]
            raise Unusable(first.reason, row=first.row, field=first.field)
        for row in texts(batch.columns[name] for name in header):
            characters += sum(len(text or "") for text in row)
            if characters > LARGEST_MAP:  # a Parquet file holds what is repeated once
                raise Unusable(f"unpacks to more than {LARGEST_MAP:,} characters; a customer map has at most so many")
            yield [_cell(text or "") for text in row]


def _cell(text: str) -> str:
    """As a CSV file has it; a lone dash clears there as well."""
    return text if text == CLEARS else neutralised(text)


def _csv(lines: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()
