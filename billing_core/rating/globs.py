"""Matches names against the names and globs of a rate card: exact names first, then the first glob. Case-blind."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache


def first_match(patterns: Sequence[str], *spellings: str) -> int | None:
    """Index of the pattern that matches one of the spellings: an exact one, else the first glob; `None` if none does.

    A name may itself hold `*`, `?` or brackets (`claude-sonnet-4-5[1m]`): written out, it means itself.
    """
    names = [text.lower() for text in spellings]
    for place, pattern in enumerate(patterns):
        if pattern.lower() in names:
            return place
    return next((place for place, one in enumerate(patterns) if any(fits(one, name) for name in names)), None)


@lru_cache(maxsize=65536)
def fits(pattern: str, text: str) -> bool:
    """Whether a text equals a pattern or matches it as a glob.

    Without `*` and `?` it is a name, brackets and all; in a glob they are a set of characters, or only themselves.
    """
    glob, name = pattern.lower(), text.lower()
    if "*" not in glob and "?" not in glob:
        return glob == name
    return glob == name or fnmatchcase(name, glob) or fnmatchcase(name, glob.replace("[", "[[]"))
