"""Writes JSON files: `{"meta": …, "rows": […]}`, rows as the command `events --json` has them: exact numbers as text,
credits and lists as objects and lists. Whole columns become text at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.exports.arrow_text import json_strings, texts, whole
from billing_core.exports.csv_file import pieces_of, text_of
from billing_core.exports.flat_schema import FORM, JSON_TEXT, NUMBER
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.running_totals import CREDIT_COLUMNS
from billing_core.exports.source import RowSource

SEPARATOR = ",\n"
CREDITS = "credits"


def write_json(sink: HashingSink, source: RowSource, tables: Iterable[pa.Table], document: dict[str, object]) -> None:
    """Write a whole JSON file; `document` is its `meta`."""
    meta = json.dumps(document, ensure_ascii=False, sort_keys=True)
    sink.write(f'{{"meta":{meta},"rows":[\n'.encode())
    is_first = True
    for rows in json_rows(tables, source.schema):
        sink.write(rows.removeprefix(SEPARATOR.encode()) if is_first else rows)
        is_first = False
    sink.write(b"\n]}\n")


def json_rows(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[bytes]:
    """The rows of tables as JSON objects, each after a comma and a new line."""
    for table in tables:
        for piece in pieces_of(table):
            parts: list[pa.Array | str] = []
            for lead, column in _laid_out(schema):
                parts.append(lead)
                if column is not None:
                    parts.append(_values(whole(piece[column.name]), column))
            yield text_of(pc.binary_join_element_wise(*parts, ""))


def _laid_out(schema: pa.Schema) -> Iterator[tuple[str, pa.Field | None]]:
    """What stands before each value, in order; credits are an object where the first of them stands."""
    credits_there = [name for name in schema.names if name in CREDIT_COLUMNS]
    glue = SEPARATOR + "{"
    for column in schema:
        if column.name not in credits_there:
            yield f"{glue}{json.dumps(column.name)}:", column
        elif column.name == credits_there[0]:
            opening = f"{glue}{json.dumps(CREDITS)}:{{"
            for name in credits_there:
                yield f"{opening}{json.dumps(name.removeprefix('credits_'))}:", schema.field(name)
                opening = ","
            yield "}", None
        else:
            continue
        glue = ","
    yield "}", None


def _values(array: pa.Array, column: pa.Field) -> pa.Array:
    form = (column.metadata or {}).get(FORM)
    if form in {JSON_TEXT, NUMBER} or pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        text = texts(array)
    elif pa.types.is_string(array.type):
        text = json_strings(array)
    else:
        text = pc.binary_join_element_wise('"', texts(array), '"', "")
    return pc.fill_null(text, "null")
