"""The progress of background work, drawn the same for every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import streamlit as st

from components.shared.notice import plain

if TYPE_CHECKING:
    from billing_core.web.jobs import JobState  # it brings the service, which the sign-in form must not wait for


class Measured(Protocol):
    """Progress that knows the part done, 0 to 1."""

    @property
    def fraction(self) -> float:
        """The part done, 0 to 1."""


M = TypeVar("M", bound=Measured)


def draw_progress(fraction: float, text: str) -> None:
    """A progress bar; a fraction beyond its ends counts as the end."""
    st.progress(min(1.0, max(0.0, fraction)), text=plain(text))


def follow(state: JobState[M, Any] | None, text: Callable[[JobState[M, Any]], str]) -> None:
    """In a fragment that repeats: draw a job's progress; once it is over, run the whole page anew."""
    if state is None or not state.is_running:
        st.rerun()
    draw_progress(state.progress.fraction, text(state))
