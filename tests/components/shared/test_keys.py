"""The key that lists the keys: pressed once, asked for once."""

from __future__ import annotations

import pytest

from components.shared import keys


@pytest.mark.parametrize(
    ("told", "asked"),
    [([0, 0], [False, False]), ([0, 5, 5], [False, True, False]), ([5, 0, 5, 9], [True, False, False, True])],
)
def test_pressing_it_once_asks_once_also_where_the_browser_forgets(monkeypatch, told, asked):
    monkeypatch.setattr(keys.st, "session_state", {})
    said = iter(told)
    monkeypatch.setattr(keys, "draw_frame", lambda _folder, **_given: next(said))
    assert [keys.asks_for_keys() for _ in told] == asked
