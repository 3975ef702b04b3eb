"""Cleans texts from outside: trimmed, and `None` for what programs write for "nothing"."""

from __future__ import annotations

PLACEHOLDERS = frozenset({"undefined", "null", "none", "nan", "<nil>", "(null)"})
"""What is written where a variable was empty: JavaScript's, Python's, Go's and C's words, in any case."""

REMEMBERED = 8192
"""Distinct texts remembered: names, users and sessions repeat from row to row."""


def present(text: str) -> str | None:
    """A text without white space around it; `None` if it is blank or stands for nothing (`null`, `undefined` …)."""
    text = text.strip()
    if not text:
        return None
    lower = text.casefold()
    if lower in PLACEHOLDERS or (lower.startswith("[object ") and lower.endswith("]")):
        return None
    return text


class Texts:
    """A cache of `present`; not shared between threads."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def clean(self, text: str | None) -> str | None:
        """A text without white space around it; `None` if it is blank or stands for nothing."""
        if not text:
            return None
        try:
            return self._known[text]
        except KeyError:
            pass
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        found = self._known[text] = present(text)
        return found
