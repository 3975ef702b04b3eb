"""What pages must do; who may import whom is said in pyproject.toml and checked by import-linter (`make check`)."""

import ast
from pathlib import Path


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
