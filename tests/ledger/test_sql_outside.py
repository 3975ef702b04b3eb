"""SQL over the ledger's tables, and expressions over them, are written in `billing_core/ledger/` alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEDGER = ROOT / "billing_core" / "ledger"
NEWEST = max((Path(__file__).parent / "schemas").glob("*.sql"), key=lambda path: int(path.stem))
TABLES = frozenset(re.findall(r'^CREATE TABLE "?(\w+)"?\(', NEWEST.read_text(), re.MULTILINE))

OVER_OTHER_TABLES = frozenset({"langfuse/rollup.py", "imports/stage.py", "reconcile/compare.py", "reconcile/rules.py"})
"""They ask a DuckDB of their own in memory, some of whose tables are called like the ledger's."""

NAMES_A_TABLE = re.compile(rf'\b(?:FROM|JOIN|INTO|UPDATE|TABLE)\s+"?({"|".join(sorted(TABLES))})\b')
WRITES = frozenset({"append", "append_from", "amend", "insert", "update"})
"""Methods of `ledger.engine.Writer` that take a table's name first."""


def faults(source: str) -> Iterator[str]:
    """What of a module belongs into the ledger."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=str(text)) if found := NAMES_A_TABLE.search(text):
                yield f"line {node.lineno}: SQL over {found[1]}"
            case ast.Call(func=ast.Attribute(attr=name), args=[ast.Constant(value=str(table)), _, *_]) if (
                name in WRITES and table in TABLES
            ):
                yield f"line {node.lineno}: {name} to {table}"
            case ast.ImportFrom(module="billing_core.ledger.schema", names=names):
                yield from (f"line {node.lineno}: {one.name}" for one in names if one.name.endswith("_table"))
            case ast.ImportFrom(module="billing_core.ledger.compiled", names=names):
                yield from (f"line {node.lineno}: {one.name}" for one in names if one.name != "Question")


def test_the_ledgers_tables_are_named_in_the_ledger_alone():
    rooms = (path for top in ("billing_core", "components", "pages") for path in (ROOT / top).rglob("*.py"))
    outside = {path for path in rooms if LEDGER not in path.parents}
    outside -= {ROOT / "billing_core" / path for path in OVER_OTHER_TABLES}
    found = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in sorted(outside)}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        'rows("SELECT id FROM events WHERE id = ?", ids)',
        'rows(f"UPDATE holds SET released_by = {actor!r}")',
        'rows("""SELECT 1\n FROM coverage c\n JOIN\n intents i USING (identifier)""")',
        'writer.rows("INSERT INTO event_revisions SELECT 1")',
        'writer.amend("events", rows, key="id")',
        "from billing_core.ledger.schema import SENT, events_table",
        "def late():\n    from billing_core.ledger.compiled import Question, ask",
    ],
)
def test_such_a_module_is_found(source):
    assert list(faults(source))


def test_the_tables_are_those_of_the_newest_schema():
    assert {"events", "event_revisions", "closed_events", "intents", "coverage", "holds", "audit", "imports"} <= TABLES
