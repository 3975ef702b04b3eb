from __future__ import annotations

import logging
import signal

import pytest

from billing_core.web.lifetime import logged_lifetime


@pytest.fixture
def lines(demo, caplog):
    """What has been logged, in order."""
    caplog.set_level(logging.INFO, "billing_core.web.lifetime")
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger("billing_core.web.lifetime").addHandler(handler)
    yield found
    logging.getLogger("billing_core.web.lifetime").removeHandler(handler)


@pytest.fixture(autouse=True)
def handlers_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_signal_that_stopped_it_is_named_and_handled_as_before(lines, number):
    handled = []
    signal.signal(number, lambda received, _frame: handled.append(received))
    with logged_lifetime("127.0.0.1:8501"):
        signal.raise_signal(number)
    assert handled == [number]
    assert lines[0].startswith("start: version ")
    assert "demo mode, ledger duckdb:///" in lines[0]
    assert lines[0].endswith("listening on 127.0.0.1:8501")
    assert lines[1:] == [f"stop: signal {number.name}"]


def test_a_closed_terminal_is_a_stop_like_any_other(lines):
    handled = []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda received, _frame: handled.append(received))
    with logged_lifetime("127.0.0.1:8501"):
        signal.raise_signal(signal.SIGHUP)
    assert handled == [signal.SIGTERM]
    assert lines[1:] == ["stop: signal SIGHUP"]


def test_an_error_is_named_and_goes_on(lines):
    with pytest.raises(RuntimeError), logged_lifetime("127.0.0.1:8501"):
        raise RuntimeError("no more room")
    assert lines[1:] == ["stop: RuntimeError: no more room"]


def test_without_signal_and_error_the_server_has_ended(lines):
    with logged_lifetime("127.0.0.1:8501"):
        pass
    assert lines[1:] == ["stop: the server has ended"]


def test_refused_settings_are_named_at_the_start(lines, monkeypatch):
    monkeypatch.setenv("BILLING_LOOKBACK_HOURS", "many")
    with logged_lifetime("127.0.0.1:8501"):
        pass
    assert "settings refused (BILLING_LOOKBACK_HOURS: 'many'" in lines[0]
