"""Shows an expected error on a page: the sentence, a way out, and no further figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from billing_core.errors import AccessDenied, BadParameter, BillingError, WarehouseError
from components.shared import texts as shared_texts
from components.shared.notice import notice_of_error
from components.usage_events import texts
from components.usage_events.state import reset_filters


@contextmanager
def stop_on_error() -> Iterator[None]:
    """Turn a `BillingError` of the block into a notice with what to do next, and stop the run there."""
    try:
        yield
    except BillingError as error:
        notice_of_error(error)
        if isinstance(error, (BadParameter, AccessDenied)):
            st.caption(texts.CORRECT_THE_FILTER)
            st.button("Reset all filters", icon=":material/restart_alt:", on_click=reset_filters, key="remedy-reset")
        elif isinstance(error, WarehouseError):
            st.caption(shared_texts.TRY_AGAIN)
            st.button("Try again", icon=":material/refresh:", key="remedy-again")
        st.stop()
