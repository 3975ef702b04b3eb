"""What the session of one reader keeps between two runs of a page and does not put into the URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from components.shared.outcome import remember_outcome

if TYPE_CHECKING:
    from billing_core.web.jobs import Job

T = TypeVar("T")


@dataclass(frozen=True)
class Kept(Generic[T]):
    """A value kept under `key`: what was read, or what a dialog is open for."""

    key: str

    def get(self) -> T | None:
        """The value; `None` while there is none."""
        value: T | None = st.session_state.get(self.key)
        return value

    def put(self, value: T) -> None:
        """Keep a value. For callbacks too: a dialog is then open with the next run."""
        st.session_state[self.key] = value

    def drop(self) -> None:
        """Forget the value. For callbacks too: a dialog is then closed."""
        st.session_state.pop(self.key, None)


@dataclass(frozen=True, slots=True)
class _Read:
    reader: Principal
    version: int
    minute: datetime
    found: Any


def read_each_minute(key: str, service: BillingService, principal: Principal, read: Callable[[], T]) -> T:
    """What `read` gives, from a cache of one minute while the ledger is unchanged.

    What goes over every event is not read again for a click elsewhere on the page. Minutes pass because events settle
    with time.
    """
    version, minute = service.version(), service.now().replace(second=0, microsecond=0)
    kept: _Read | None = st.session_state.get(key)
    if kept is None or (kept.reader, kept.version, kept.minute) != (principal, version, minute):
        kept = st.session_state[key] = _Read(principal, version, minute, read())
    found: T = kept.found
    return found


@dataclass(frozen=True, slots=True)
class AwaitedJob:
    """The background job that this session started and waits for; `said` is where outcomes are told, `busy` the text
    for somebody who was too late.
    """

    key: str
    job: Callable[[], Job[Any, Any]]
    said: str
    busy: str

    def begin(self, has_started: bool) -> None:
        """Store that this session waits for the job just started; tells the person if somebody else was faster."""
        state = self.job().state
        if not has_started or state is None:
            remember_outcome(self.said, self.busy, is_done=False)
        else:
            st.session_state[self.key] = state.number

    def is_over(self) -> bool:
        """Whether the job has ended since this was last asked."""
        state = self.job().state
        if state is None or state.is_running or st.session_state.get(self.key) != state.number:
            return False
        del st.session_state[self.key]
        return True
