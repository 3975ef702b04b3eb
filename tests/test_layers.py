"""The arrows of docs/architecture.md, checked: who may import whom, and what pages may not do."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path("billing_core")


def imports_of(file: Path) -> set[str]:
    """Modules a file names, at the top or inside a function; what only type checkers read does not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


def offenders(folder: Path, *forbidden: str) -> list[str]:
    return [
        f"{file}: {name}"
        for file in sorted(folder.rglob("*.py"))
        for name in imports_of(file)
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


def test_the_core_imports_no_streamlit():
    assert offenders(PACKAGE, "streamlit", "streamlit_authenticator", "components", "pages") == []


@pytest.mark.parametrize("room", ["ledger", "rating"])
def test_ledger_and_rating_import_no_provider(room):
    assert offenders(PACKAGE / room, "billing_core.langfuse", "billing_core.stripe", "billing_core.service") == []


@pytest.mark.parametrize("provider", ["langfuse", "stripe"])
def test_providers_import_no_ledger(provider):
    assert offenders(PACKAGE / provider, "billing_core.ledger", "billing_core.rating", "billing_core.service") == []


def test_pages_and_components_ask_no_database_and_no_server():
    for folder in (Path("pages"), Path("components")):
        assert offenders(folder, "duckdb", "ibis", "httpx", "requests", "sqlite3", "stripe", "langfuse") == []


def test_every_page_guards_itself_before_anything_else():
    for page in sorted(Path("pages").glob("*.py")):
        if page.name == "main.py":
            continue
        body = ast.parse(page.read_text(encoding="utf-8")).body
        calls = [
            ast.unparse(node)
            for node in body
            if not isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
            and not isinstance(getattr(node, "value", None), ast.Constant)  # docstrings and constants
        ]
        assert "sign_in.guard(" in calls[0], f"{page}: the first thing it does is {calls[0]}"


def test_no_pages_folder_stands_beside_the_main_script():
    """Streamlit would serve such pages by their address without running the sign-in (streamlit-stack, decision 1)."""
    assert not (Path("pages") / "pages").exists()
