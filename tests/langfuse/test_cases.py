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


# ── a card that decides by observation, usage key and active time ────────────────────────────────

RULES = """
id: rules-1
effective_from: 2000-01-01
credit_price_usd: 0.00004
ai: {rates: [{credits_per_1000_tokens: 100}]}
compute: {credits_per_minute: 50, basis: active}
storage: {credits_per_gb_month: 500}
exclude: [{name: "agent *", type: AGENT}]
token_classes: {"*_1h_input_tokens": cache_write}
units: {web_search_requests: 10}
"""


def row(identity: str, begins: int, ends: int, **more: Any) -> dict[str, Any]:
    times = {"start": f"2026-10-10T10:{begins:02d}:00.000Z", "end": f"2026-10-10T10:{ends:02d}:00.000Z"}
    return {"trace": "t", "id": identity, **times, **more}


WORLD = {
    "mode": "v2",
    "rows": [
        row("r", 0, 0, md={"stripeCustomerId": "cus_1"}, name="session"),
        row("p", 1, 3, parent="r", name="agent run", type="AGENT", usage={"input": 2000, "output": 1000}),
        row("a", 1, 3, parent="p", model="m", usage={"input": 2000, "output": 0, "web_search_requests": 3}),
        row(
            "b", 40, 42, parent="p", model="m", usage={"promptTokens": 0, "completionTokens": 1000, "totalTokens": 1000}
        ),
    ],
}
WINDOW = ("--from", "2026-10-01T00:00:00Z", "--to", "2026-11-01T00:00:00Z")


def test_what_a_card_leaves_out_and_prices_is_rated_at_pull_explained_and_shown_by_rerate(
    langfuse: FakeLangfuse, command: Callable[..., tuple[int, Any]], tmp_path: Any
) -> None:
    """6,000 tokens and 42 minutes, searches unpriced; with the card 3,000 tokens, 3 searches and 4 minutes."""
    serve(langfuse, WORLD)
    card = tmp_path / "rules.yaml"
    card.write_text(RULES)
    assert command("pull", *WINDOW)[0] == 0
    [event] = command("events")[1]["events"]
    assert (event["credits"]["total"], event["flags"]) == ("2700", ["unpriced", "double_count_suspect"])
    _, shown = command("rerate", "--rate-card", str(card), *WINDOW)
    assert [(one["old"], one["new"]) for one in shown["organizations"]] == [("2700", "530")]
    assert command("rerate", "--rate-card", str(card), *WINDOW, "--apply")[0] == 0
    [event] = command("events")[1]["events"]
    assert (event["credits"], event["tokens_total"]) == (
        {"ai_tokens": "330", "compute": "200", "storage": "0", "total": "530"},
        6000,
    )
    again = command("pull", *WINDOW, BILLING_RATE_CARD=str(card))[1]
    assert (again["events_new"], again["events_changed"], again["events_unchanged"]) == (0, 0, 1)
    steps = {step["name"]: step["lines"] for step in command("explain", "t")[1]["steps"]}
    assert "m, web_search_requests: 3 × 10 each = 30" in steps["AI tokens"]
    assert any("left out by the card's exclude" in line for line in steps["AI tokens"])


def test_a_wrong_card_is_one_line_and_exit_2(command: Callable[..., tuple[int, Any]], tmp_path: Any) -> None:
    card = tmp_path / "wrong.yaml"
    card.write_text(RULES.replace("cache_write}", "cache_writes}"))
    code, said = command("pull", *WINDOW, BILLING_RATE_CARD=str(card))
    assert code == 2
    assert "'cache_writes': unknown class" in said["error"]
