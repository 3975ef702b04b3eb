"""Widgets whose state is the URL: a link shows the same again, and invalid values in the URL count as not given.

No widget is bound to it: code that changes a bound widget while it is hidden loses to the browser's older memory (see
`usage_events.state`). Each starts with what the URL says, writes there what somebody chooses, and gets a new identity
whenever anything else changed the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import streamlit as st

from components.shared.periods import Days, Period, days_of, window_of

PART = "part"
"""The page of a table; another question starts on the first one."""

SPAN, FROM_DAY, TO_DAY = "span", "from_day", "to_day"

Read: TypeAlias = Callable[[Any], Sequence[str]]


def _texts(chosen: Any) -> Sequence[str]:
    """What somebody chose as the URL has it; nothing, or an empty text, leaves it out."""
    values = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    return [text for value in values if value is not None and (text := str(value).strip())]


@dataclass(frozen=True, slots=True)
class UrlState:
    """The URL parameters `names` of one view; `view` tells its keys from those of others."""

    view: str
    names: tuple[str, ...]

    def all(self, name: str) -> list[str]:
        """Every value of a URL parameter, each once."""
        return list(dict.fromkeys(value for value in st.query_params.get_all(name) if value))

    def one(self, name: str) -> str | None:
        """The last value of a URL parameter; `None` if it is not given."""
        return next(reversed(self.all(name)), None)

    def part(self) -> int:
        """The page number of the table, from 1."""
        text = self.one(PART) or "1"
        return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1

    def key(self, name: str) -> str:
        """The key of the widget for a parameter; it changes when the URL was changed from outside."""
        state, seen, epoch = st.session_state, f"{self.view}.seen", f"{self.view}.epoch"
        if state.get(seen) != self._address():
            state[seen] = self._address()
            state[epoch] = state.get(epoch, 0) + 1
        return f"{self.view}-{name}-{state[epoch]}"

    def choose(self, name: str, key: str, read: Read = _texts) -> None:
        """Callback: write what somebody chose in the widget `key` to the URL. For callbacks."""
        self._write(name, read(st.session_state[key]))
        if name != PART:
            self._write(PART, ())
        st.session_state[f"{self.view}.seen"] = self._address()

    def _write(self, name: str, values: Sequence[str]) -> None:
        if values:
            st.query_params[name] = list(values)
        elif name in st.query_params:
            del st.query_params[name]

    def _address(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.all(name)) for name in self.names if name != PART)


def _span(url: UrlState) -> Period:
    said = url.one(SPAN)
    return Period(said) if said in list(Period) else Period.ALL_TIME


def _day(url: UrlState, name: str) -> date | None:
    try:
        return date.fromisoformat(url.one(name) or "")
    except ValueError:
        return None


def span_boxes(url: UrlState, zone: ZoneInfo) -> None:
    """Draw the choice of a period, with its days if it is a custom one. `url` names `span`, `from_day` and `to_day`."""
    span, key = _span(url), url.key(SPAN)
    st.selectbox(
        "Period",
        list(Period),
        index=list(Period).index(span),
        key=key,
        width=170,
        filter_mode=None,
        help=f"Days begin and end at midnight in {zone.key}, the reporting timezone.",
        on_change=url.choose,
        args=(SPAN, key),
    )
    if span is not Period.CUSTOM:
        return
    for name, label in ((FROM_DAY, "Start date"), (TO_DAY, "End date")):
        key = url.key(name)
        st.date_input(
            label,
            value=_day(url, name),
            key=key,
            format="YYYY-MM-DD",
            on_change=url.choose,
            args=(name, key),
            width=150,
            help="Inclusive. Leave empty for no limit.",
        )


def span_days(url: UrlState, today: date) -> Days:
    """The days of the period the URL asks for; all of them if it does not say.

    Raises
    ------
    BadParameter
        If they end before they start.
    """
    return days_of(_span(url), today, _day(url, FROM_DAY), _day(url, TO_DAY))


def span_window(url: UrlState, at: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """The period the URL asks for as a half-open window; `at` is the present. Raises as `span_days`."""
    return window_of(span_days(url, at.astimezone(zone).date()), zone)
