from __future__ import annotations

import logging
import re

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.errors import SettingsError
from components.shared.notice import plain

pytestmark = pytest.mark.usefixtures("packages_scanned_once")


def test_names_from_outside_are_never_markup():
    assert plain("**bold** [a](http://x) :red[y] <b> $x$ a_b") == (
        r"\*\*bold\*\* \[a\]\(http\:\/\/x\) \:red\[y\] \<b\> \$x\$ a\_b"
    )
    assert plain("two\nlines") == "two lines"
    assert plain("Größe 10 €") == "Größe 10 €"


def shown_for(error: Exception) -> str:
    def script(error):
        from components.shared.notice import report_script_error

        assert report_script_error(error) is True

    run = AppTest.from_function(script, args=(error,)).run()
    assert not run.exception
    (box,) = run.error
    return box.value


def test_an_expected_error_is_the_one_line_it_carries():
    assert shown_for(SettingsError("BILLING_MODE: expected demo or live")) == r"BILLING\_MODE\: expected demo or live"


def test_an_unexpected_error_is_a_reference_for_the_person_and_a_trace_for_the_log(caplog):
    with caplog.at_level(logging.ERROR):
        text = shown_for(ZeroDivisionError("division by a customer's secret"))
    reference = re.search(r"\*\*([0-9A-F]{8})\*\*", text).group(1)
    assert "secret" not in text
    assert "ZeroDivisionError" not in text
    (record,) = [record for record in caplog.records if reference in record.getMessage()]
    assert record.exc_info[0] is ZeroDivisionError
