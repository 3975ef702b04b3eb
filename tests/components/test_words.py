"""What people read uses the trade's words and none of the private ones listed here, which once stood on screens."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

TERMS = """active user, anomaly, back-test, chat, deviation, forecast, issue, manifest, margin, notice,
not yet in Stripe, own key, pace, plan, reconciles to, resolve, rounding carried forward, settled, stage, threshold,
unbilled, unexplained, usual range"""
"""Words of the screens that a controller may not know in this sense."""

INSTEAD = {
    r"ti(e|es|ed|ing) out": "reconciles to",
    r"lasts on": "in progress",
    r"put away": "Dismiss",
    r"work(s|ed|ing)? (it )?out": "Calculate",
    r"(stands?|stood) against": "blocks",
    r"(nobody|somebody|who) pays": "the billed customer, no customer assigned",
    r"at stake": "unbilled, deviation",
    r"the middle": "the median",
    r"anew": "again, re-read",
    r"settled? (them|it|by hand|or accepted)": "resolve",
    r"unsynced": "not yet in Stripe",
    r"fractions? (of a credit )?carried|carried fractions?": "rounding carried forward",
    r"is not right": "incorrect",
    r"has the role": "needs the … role",
    r"looking ahead": "forecasting",
    r"went silent": "became inactive",
    r"not judged|judged days?": "not assessed, assessed days",
    r"rhythm|that fades": "weekly pattern, damped",
    r"8 of 10 times|eight in ten": "80 % interval",
    r"mended": "corrected",
    r"(is|are|was|were) booked": "in the ledger, recorded, counted",
    r"for ever": "no longer changes",
    r"in spite of": "despite",
    r"the logical root was believed|was believed": "was used",
    r"corrections? owed|on balance": "corrections due, net",
    r"stands? (in|on|beside|behind) the": "is in the",
    r"tell whoever": "contact your administrator",
    r"once more": "again",
    r"is no (csv|json|cell|number|time|file|text|anomaly)": "is not a",
}
"""What stands for each in its place."""

FORBIDDEN = re.compile("|".join(rf"\b(?:{words})\b" for words in INSTEAD), re.IGNORECASE)

BREAK_IN_A_TEXT = re.compile(r'"\s*f?"')


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Each text of a module with its line: no docstrings, no single lower-case words, which are keys; values as `…`."""
    tree = ast.parse(source)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(map(id, node.values))
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def found(source: str) -> list[str]:
    if not FORBIDDEN.search(BREAK_IN_A_TEXT.sub("", source)):
        return []  # most modules: parsing all of them would take seconds
    told = [(line, text) for line, text in texts(source) if " " in text or not text.islower()]
    return [f"{line}: {text}" for line, text in told if FORBIDDEN.search(text)]


def test_no_screen_file_or_command_uses_a_private_word():
    rooms = [ROOT / room for room in ("components", "pages", "billing_core")]
    modules = [
        path for room in rooms for path in room.rglob("*.py") if ROOT / "billing_core/sandbox" not in path.parents
    ]
    faults = [
        f"{path.relative_to(ROOT)}:{fault}" for path in sorted(modules) for fault in found(path.read_text("utf-8"))
    ]
    assert not faults, "\n".join(["say it in the trade's words, see INSTEAD:", *faults])


def test_a_word_is_found_across_a_break_and_not_in_a_docstring():
    assert found('x = (\n    f"{a} ties "\n    "out with {b}"\n)') == ["2: … ties out with {b}"]
    assert not found('"""Ties out with the ledger."""')


def test_the_terms_of_the_screens_stand_in_the_glossary():
    glossary = (ROOT / "docs/glossary.md").read_text("utf-8")
    missing = [term for term in re.split(r",\s+", TERMS) if f"**{term}" not in glossary]
    assert not missing
