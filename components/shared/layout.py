"""Widths of a page, which no option of Streamlit's has."""

from __future__ import annotations

import streamlit as st

WIDE = """<style>
.stMainBlockContainer { padding-inline: clamp(1rem, 2vw, 2rem); }
@media (max-width: 600px) { [data-testid="stMetricValue"] { font-size: 1.75rem; } }
</style>"""
"""On a phone, figures of two tiles beside each other are written whole."""


def wide() -> None:
    """Let a page use the width of the window: a table beside margins of 80 pixels would scroll sideways."""
    st.html(WIDE)
