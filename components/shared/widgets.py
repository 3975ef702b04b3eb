"""Building blocks of page sections: tiles, tables, errors of a section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.errors import AccessDenied, BillingError, WarehouseError
from components.shared.notice import notice_of_error, plain

READERS_NOTE = "You have read-only access to this page. Only admins can push, retry, hold and release."


@contextmanager
def quiet() -> Iterator[None]:
    """A context for a section: one that cannot be read says so and leaves the others alone; a refusal of the reader
    ends the page.
    """
    try:
        yield
    except BillingError as error:
        notice_of_error(error)
        if isinstance(error, WarehouseError):
            st.caption(
                "Nothing is lost. Reload the page in a moment; if the problem persists, contact your administrator."
            )
        if isinstance(error, AccessDenied):
            st.stop()


def tile(
    place: DeltaGenerator, label: str, figure: str, details: Sequence[str], *, note: str, key: str
) -> DeltaGenerator:
    """Draw a box with a figure and its details; wraps where `st.metric` would cut off. Returns its container."""
    box = place.container(border=True, key=key, gap="xsmall", height="stretch")
    box.markdown(plain(label), help=plain(note))
    box.markdown(f"**{plain(figure)}**")
    for detail in details:
        box.caption(plain(detail))
    return box


def table(rows: Mapping[str, Sequence[str]], *, alt: str, key: str, right: Sequence[str] = (), **options: Any) -> Any:
    """Draw columns of text as a table; those of `right` are figures. Returns what somebody selected, if they may."""
    config = {name: st.column_config.TextColumn(name, alignment="right" if name in right else "left") for name in rows}
    return st.dataframe(dict(rows), hide_index=True, alt=alt, key=key, column_config=config, **options)
