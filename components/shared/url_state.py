"""Widgets whose state is the URL: a link shows the same again.

No widget is bound to the URL by Streamlit: code that changes a bound widget while it is hidden loses to the browser's
older memory of it. Each starts with what the URL says, writes there what somebody chooses, and gets a new identity
whenever anything else changed its parameter. A state written so can be left again by the browser's "Back".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.errors import BadParameter
from components.shared.comparison import LABELS, Comparison, ComparisonChoice
from components.shared.notice import plain
from components.shared.periods import Period, PeriodChoice
from components.shared.url_codec import Codec

S = TypeVar("S")
P = TypeVar("P", bound=PeriodChoice)
C = TypeVar("C", bound=ComparisonChoice)

LAYOUT = ("page", "columns", "charts", "more", "against", "against_from", "against_to")
"""Fields that ask nothing else: changing them keeps the page of a table and what was selected in it."""

NOTHING: Mapping[str, Any] = {}

TOLD = "url.told"
"""Session state: the URL's parameters as the browser was last told."""


def _same(chosen: Any) -> Any:
    return tuple(chosen) if isinstance(chosen, list) else chosen


class UrlState(Generic[S]):
    """The state of one view, kept in the URL, or in the session under `kept` where the URL is another page's.

    `view` tells its widgets from those of others.
    """

    def __init__(self, view: str, codec: Codec[S], *, kept: str | None = None) -> None:
        self.view, self.codec, self._kept = view, codec, kept

    def current(self) -> S:
        """The state in force."""
        if self._kept is not None:
            kept: S = st.session_state.get(self._kept, self.codec.usual)
            return kept
        return self.codec.parse(self._raw())

    def _raw(self) -> dict[str, list[str]]:
        mine = set(self.codec.parameters())
        return {name: st.query_params.get_all(name) for name in st.query_params if name in mine}

    def write(self, state: S) -> None:
        """Change the state; parameters of the URL that are not this view's stay."""
        if self._kept is not None:
            st.session_state[self._kept] = state
            return
        own, now = self._raw(), self.codec.render(state)
        if now != own:
            others = {name: st.query_params.get_all(name) for name in st.query_params if name not in own}
            st.query_params.from_dict({**others, **now})  # at once: one step of the browser's "Back"

    def change(self, **values: Any) -> None:
        """Change some fields; another question starts on the first page of the table."""
        if "page" in self.codec.values and not values.keys() <= set(LAYOUT):
            values = {"page": 1, **values}
        self.write(replace(self.current(), **values))  # type: ignore[type-var]  # a dataclass, which no type says

    def key(self, field: str) -> str:
        """The key of the widget for a field; it changes when anything but that widget changed the field."""
        seen, value = self._seen(), getattr(self.current(), field)
        if field not in seen or seen[field][0] != value:
            seen[field] = value, seen[field][1] + 1 if field in seen else 1
        return f"{self.view}-{self.codec.name(field)}-{seen[field][1]}"

    def _seen(self) -> dict[str, tuple[Any, int]]:
        seen: dict[str, tuple[Any, int]] = st.session_state.setdefault(f"{self.view}.seen", {})
        return seen

    def is_drawn(self, field: str) -> bool:
        """Whether the widget of a field stood on the page when it was last drawn."""
        return f"{self.view}-{self.codec.name(field)}-{self._seen().get(field, (None, 0))[1]}" in st.session_state

    def choose(
        self, field: str, key: str, read: Callable[[Any], Any] = _same, also: Mapping[str, Any] = NOTHING
    ) -> None:
        """Callback: write what somebody chose in the widget `key`, and what `also` changes with it."""
        self.change(**{field: read(st.session_state[key]), **also})
        seen = self._seen()
        if field in seen:
            seen[field] = getattr(self.current(), field), seen[field][1]

    def generation(self) -> int:
        """A number that changes with the question: part of the keys of grids and charts, which must then
        forget what was selected in them.
        """
        name, layout = f"{self.view}.question", {one: None for one in LAYOUT if one in self.codec.values}
        question = replace(self.current(), **layout)  # type: ignore[type-var]
        last, number = st.session_state.get(name, (question, 0))
        st.session_state[name] = last, number = question, number + (last != question)
        return int(number)

    def told(self) -> None:
        """Draw what the URL has wrong, if anything: the rest of the view is as it asks."""
        for sentence in self.codec.refused(self._raw()) if self._kept is None else ():
            st.warning(plain(f"In the address, {sentence}. The view is shown without it."), icon=":material/link_off:")

    # ── widgets of a field ───────────────────────────────────────────────────────────────────────

    def bound(self, field: str, read: Callable[[Any], Any] = _same) -> dict[str, Any]:
        """What makes a widget of Streamlit the widget of a field."""
        key = self.key(field)
        return {"key": key, "on_change": self.choose, "args": (field, key, read)}

    def selectbox(self, field: str, label: str, options: Sequence[Any], **how: Any) -> None:
        """Draw a choice of one of `options`; of the first one if the state has another."""
        value = getattr(self.current(), field)
        index = list(options).index(value) if value in options else 0
        st.selectbox(label, options, index=index, **self.bound(field), **{"filter_mode": None, **how})

    def radio(self, field: str, label: str, options: Sequence[Any], **how: Any) -> None:
        """Draw a choice of one of `options` as radio buttons: they wrap on a phone, and what is chosen can be read in
        the dark, too.
        """
        index = list(options).index(getattr(self.current(), field))
        st.radio(label, options, index=index, horizontal=True, **self.bound(field), **how)

    def multiselect(
        self, field: str, label: str, offered: Sequence[str], *, read: Callable[[Any], Any] = _same, **how: Any
    ) -> None:
        """Draw a choice of any number of values: those `offered`, and those chosen already, which may be gone."""
        chosen = how.pop("chosen", getattr(self.current(), field))
        options = [*offered, *(one for one in chosen if one not in offered)]
        how = {"select_all": False, "wrap": True, "placeholder": "Any", **how}
        st.multiselect(label, options, list(chosen), **self.bound(field, read), **how)

    def text_input(self, field: str, label: str, **how: Any) -> None:
        """Draw a box for a text."""
        st.text_input(label, getattr(self.current(), field), **self.bound(field, lambda said: said or ""), **how)

    def search_box(self, placeholder: str, *, width: int | str = 260, max_chars: int = 200, **more: Any) -> None:
        """Draw the box for the field `search`."""
        how = {"type": "search", "max_chars": max_chars, "placeholder": placeholder, "width": width, **more}
        self.text_input("search", "Search", **how)

    def toggle(self, field: str, label: str, **how: Any) -> None:
        """Draw a switch."""
        st.toggle(label, getattr(self.current(), field), **self.bound(field), **how)


def period_boxes(
    url: UrlState[P], zone: ZoneInfo | None = None, *, label_visibility: Literal["visible", "collapsed"] = "visible"
) -> None:
    """Draw the choice of a period, with its days if it is a custom one; `zone` is named as that of the days."""

    def chosen(key: str) -> None:
        is_custom = st.session_state[key] == Period.CUSTOM
        url.choose("period", key, also={} if is_custom else {"first_day": None, "last_day": None})

    key, is_labelled = url.key("period"), label_visibility == "visible"
    note = None if zone is None else f"Days begin and end at midnight in {zone.key}, the reporting timezone."
    st.selectbox(
        "Period",
        list(Period),
        index=list(Period).index(url.current().period),
        key=key,
        width=150,
        filter_mode=None,
        help=note if is_labelled else None,
        label_visibility=label_visibility,
        on_change=chosen,
        args=(key,),
    )
    if url.current().period is Period.CUSTOM:
        note = "First and last day, both inclusive. Leave empty for no limit." if is_labelled else None
        _days_box(url, "Days", ("first_day", "last_day"), help=note, label_visibility=label_visibility)


def comparison_boxes(
    url: UrlState[C],
    window: tuple[datetime | None, datetime | None],
    zone: ZoneInfo,
    *,
    label_visibility: Literal["visible", "collapsed"] = "visible",
) -> None:
    """Draw the choice of what a window is compared with, and beside it what is wrong with it, if anything."""

    def chosen(key: str) -> None:
        is_days = st.session_state[key] == Comparison.DAYS
        url.choose("against", key, also={} if is_days else {"against_from": None, "against_to": None})

    key, choices = url.key("against"), list(Comparison)
    st.selectbox(
        "Compare with",
        choices,
        index=choices.index(url.current().against),
        format_func=LABELS.__getitem__,
        key=key,
        width=180,
        filter_mode=None,
        label_visibility=label_visibility,
        on_change=chosen,
        args=(key,),
    )
    if url.current().against is Comparison.DAYS:
        fields = ("against_from", "against_to")
        _days_box(url, "Days to compare with", fields, label_visibility=label_visibility)
    try:
        url.current().asked(window, zone)
    except BadParameter as wrong:
        st.caption(f":red[{plain(str(wrong))}]", width="content")


def compare_of(choice: ComparisonChoice, window: tuple[datetime | None, datetime | None], zone: ZoneInfo) -> str | None:
    """What the service is asked to compare with: nothing where the choice is wrong, which is told beside it."""
    try:
        return choice.asked(window, zone)
    except BadParameter:
        return None


def _days_box(url: UrlState[Any], label: str, fields: tuple[str, str], **how: Any) -> None:
    """Draw both days in one control: its calendar cannot end before it starts."""
    first, last = (getattr(url.current(), field) for field in fields)
    key = "-".join(map(url.key, fields))
    is_open = first is None or (last is not None and last < first)  # neither has a place in the calendar

    def chosen() -> None:
        days = st.session_state[key]
        if len(days) != 1:  # one alone is the first of the two to be
            url.change(**dict(zip(fields, days or (None, None), strict=True)))

    st.date_input(
        label,
        [] if is_open else [day for day in (first, last) if day is not None],
        format="YYYY-MM-DD",
        width=230,
        key=key,
        on_change=chosen,
        **how,
    )


def sync_address() -> None:
    """Once per run: write the address to the browser, which does not show it after a link from the page to itself.

    The browser ignores what it shows already.
    """
    said = {name: st.query_params.get_all(name) for name in st.query_params}
    if st.session_state.get(TOLD, said) != said:
        if said:
            name, values = next(iter(said.items()))
            st.query_params[name] = values  # any parameter sends them all
        else:
            st.query_params.clear()
    st.session_state[TOLD] = said
