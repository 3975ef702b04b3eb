"""The command `import`: its document, its lines for people and its exit codes, in one process."""

from __future__ import annotations

import json

import pytest

from billing_core.cli.main import main
from billing_core.types import FLAT_FIELDS
from tests.imports.world import as_csv, line


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A command over an empty ledger: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/a.duckdb", "BILLING_MODE": "demo"}.items():
        monkeypatch.setenv(name, value)

    def made(*arguments):
        code = main(["import", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return made


WALL_CLOCK = {"timestamp": "2026-11-01 07:00:00", "ended_at": "2026-11-01 07:01:00"}


def test_a_time_without_an_offset_is_refused_with_a_line_that_names_column_and_option(run, tmp_path):
    file = as_csv(tmp_path / "f.csv", [line(**WALL_CLOCK)])
    code, _, said = run(file)
    assert code == 2
    assert "row 1: timestamp: '2026-11-01 07:00:00' has no offset" in said
    assert "--timezone" in said
    code, out, _ = run(file, "--timezone", "America/New_York", "--json")
    assert (code, json.loads(out)["new"]) == (0, 1)


@pytest.mark.parametrize("arguments", [("f.csv",), ("absent.csv",), (".",), ("f.csv", "--timezone", "Mars/Olympus")])
def test_rejections_are_in_the_document_on_exit_2_as_well(run, tmp_path, arguments):
    as_csv(tmp_path / "f.csv", [line(**WALL_CLOCK), line("b", tokens_in="many")])
    code, out, said = run(*arguments, "--json")
    document = json.loads(out)
    assert (code, len(said.splitlines()) > 0) == (2, True)
    assert document["rejected"]
    assert all(one.keys() == {"row", "field", "reason"} for one in document["rejected"])
    assert {"rows", "new", "changed", "unchanged"} <= document.keys()


@pytest.mark.parametrize(
    ("content", "code"), [(",".join(FLAT_FIELDS), 0), ('{"meta": {"dataset": "usage-events"}, "rows": []}', 0), ("", 2)]
)
def test_a_file_without_rows_says_so(run, tmp_path, content, code):
    (tmp_path / "f").write_text(content)
    found, out, said = run("f")
    assert found == code
    assert "0 rows" in (said if code else out)
    found, out, _ = run("f", "--json")
    assert (found, json.loads(out)["rows"]) == (code, 0)
