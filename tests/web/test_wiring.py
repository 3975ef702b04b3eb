from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from billing_core.errors import SettingsError
from billing_core.web import wiring
from billing_core.web.wiring import Once


def test_a_thing_is_made_once_however_many_ask_at_the_same_moment():
    made = []
    start, second = Barrier(8), Event()

    def make():
        made.append("made")
        if len(made) > 1:
            second.set()
        second.wait(0.2)  # leaves the door open for anybody who does not wait
        return object()

    thing = Once(make)

    def ask(_number):
        start.wait(10)
        return thing()

    with ThreadPoolExecutor(8) as pool:
        assert len({id(found) for found in pool.map(ask, range(8))}) == 1
    assert made == ["made"]


def test_a_failure_is_not_kept(demo, monkeypatch):
    monkeypatch.setenv("BILLING_TIMEZONE", "Nowhere/Land")
    with pytest.raises(SettingsError, match="BILLING_TIMEZONE"):
        wiring.gatekeeper()
    monkeypatch.delenv("BILLING_TIMEZONE")
    assert wiring.gatekeeper() is wiring.gatekeeper()
