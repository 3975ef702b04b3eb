"""Error notices: what a person reads when something is wrong, with outside text shown as it is."""

from __future__ import annotations

import logging
import re
import secrets

import streamlit as st

from billing_core.errors import BillingError

_log = logging.getLogger("billing_core.dashboard")

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: str) -> str:
    """A text as Markdown that shows exactly that text: names and values from outside are never markup."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def notice_of_error(error: BillingError) -> None:
    """Draw an expected error as the one line it carries."""
    st.error(plain(str(error)), icon=":material/error:")


def report_script_error(error: Exception) -> bool:
    """Streamlit's hook for uncaught errors of a script: a sentence for the person, the whole trace for the log.

    Returns `True`, which keeps Streamlit from drawing its own box. Both sides carry the same reference number.
    """
    if isinstance(error, BillingError):
        notice_of_error(error)
        return True
    reference = secrets.token_hex(4).upper()
    _log.error("reference %s: uncaught error in a page", reference, exc_info=error)
    st.error(
        f"Something went wrong here, and it has been recorded as **{reference}**. Try again; if it happens again, "
        "give this reference to your administrator.",
        icon=":material/error:",
    )
    return True
