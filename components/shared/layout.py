"""Widths of a page, which no option of Streamlit's has."""

from __future__ import annotations

import streamlit as st

WIDE = "<style>.stMainBlockContainer { padding-inline: clamp(1rem, 2vw, 2rem); }</style>"


def wide() -> None:
    """Let a page use the width of the window: a table beside margins of 80 pixels would scroll sideways."""
    st.html(WIDE)
