"""Help says what the documentation says, and names documents that are there."""

from __future__ import annotations

import re
from pathlib import Path

from components.help import texts

ROOT = Path(__file__).parents[3]


def test_terms_mean_what_the_glossary_says():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    glossary = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, re.MULTILINE))
    assert {term: glossary.get(term) for term in texts.TERMS} == texts.TERMS


def test_every_document_named_exists():
    assert [name for name in texts.DOCUMENTS if not (ROOT / name).is_file()] == []
