"""Stand-ins for services that take only the calls their originals take: a parameter renamed there fails here."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getmembers, isroutine
from typing import Any
from unittest.mock import create_autospec

import pytest


def called_as(original: type, double: Any) -> Any:
    """`double` as `original` is called; it may have fewer methods, and has none that `original` lacks."""
    stand_in = create_autospec(original, instance=True)
    for name, method in getmembers(double, isroutine):
        if not name.startswith("_"):
            getattr(stand_in, name).side_effect = method
    return stand_in


def replace_method(monkeypatch: pytest.MonkeyPatch, original: type, name: str, double: Callable[..., Any]) -> None:
    """`double` instead of a method of `original`, called as that is; it takes `self` first."""
    monkeypatch.setattr(original, name, create_autospec(getattr(original, name), side_effect=double))
