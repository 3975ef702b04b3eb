"""Every figure is defined once; the documentation prints the same words the page shows as help."""

from pathlib import Path

from billing_core.organizations.figures import MEANINGS


def test_the_documentation_defines_every_figure_in_the_words_of_the_page():
    text = Path("docs/organizations.md").read_text(encoding="utf-8")
    missing = [name for name, meaning in MEANINGS.items() if f"(`{name}`) | {meaning} |" not in text]
    assert missing == []
