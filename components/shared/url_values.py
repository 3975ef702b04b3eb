"""Values of URL parameters, read and written. Pure: what the URL has wrong is `None`, and counts as not given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def written(value: Any) -> list[str]:
    """A value as a URL parameter has it: several for a tuple, `1` for yes."""
    if isinstance(value, tuple):
        return list(value)
    return ["1" if value is True else str(value)]


def parsed(kind: Callable[[str], Any]) -> Callable[[Sequence[str]], Any]:
    """A reader of the last value of a parameter; what `kind` refuses by a `ValueError` is `None`."""

    def read(values: Sequence[str]) -> Any:
        try:
            return kind(values[-1])
        except ValueError:
            return None

    return read


def texts(values: Sequence[str]) -> tuple[str, ...]:
    """Every value of a parameter once, without empty ones."""
    return tuple(dict.fromkeys(value for value in values if value))


def is_yes(values: Sequence[str]) -> bool:
    """Whether the last value of a parameter is `1`."""
    return values[-1] == "1"
