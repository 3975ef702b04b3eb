"""Cases out of public bug reports, pulled over HTTP by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.langfuse.case_server import CARD, NAMES, load, serve, unmet
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, FakeLangfuse


@pytest.fixture
def command(
    langfuse: FakeLangfuse, run_command: Callable[..., tuple[int, str, str]], tmp_path: Any
) -> Callable[..., tuple[int, Any]]:
    """A command against the server over an empty ledger: its exit code and its one document."""
    environment = {
        "LANGFUSE_HOST": langfuse.url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/billing.duckdb",
    }

    def command(*words: str, **more: str) -> tuple[int, Any]:
        code, out, err = run_command(environment | more, *words, "--json")
        assert "Traceback" not in err
        return code, json.loads(out)

    return command


@pytest.mark.parametrize("name", NAMES)
def test_a_pull_makes_of_it_what_the_case_expects(
    name: str, langfuse: FakeLangfuse, command: Callable[..., tuple[int, Any]]
) -> None:
    case = load(name)
    serve(langfuse, case)
    more = {"BILLING_RATE_CARD": str(CARD)} if case.get("card") else {}
    start, end = case["window"]
    code, pulled = command("pull", "--from", start, "--to", end, **more)
    assert code in {0, 1, 3}
    if code == 3:
        assert case.get("may_refuse"), pulled
        return
    rejected = [f"{row['row']} {row['reason']}" for row in pulled["rejected"]]
    assert code == (1 if rejected else 0)
    _, page = command("events", "--limit", "100", **more)
    assert unmet(case, page["events"], rejected) == []
