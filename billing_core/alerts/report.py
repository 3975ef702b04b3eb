"""The weekly summary of an organization as a message: the figures of Organization Stats, as HTML and as text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from html import escape

from billing_core.alerts.rules import week_name
from billing_core.organizations.figures import Figures, OrganizationFigures
from billing_core.values.shown import UNKNOWN, change, day_text, short_credits, short_usd

TENTH = Decimal("0.1")

_PAGE = (
    '<div style="font-family:system-ui,-apple-system,Segoe UI,sans-serif;font-size:15px;line-height:1.5;'
    'color:#1f2328;background:#ffffff;max-width:600px;padding:8px">'
)
_CELL = "padding:4px 12px 4px 0;border-bottom:1px solid #d0d7de"


@dataclass(frozen=True, slots=True)
class SummaryLine:
    """One figure of a summary: its name, and what it was in this week and in the one before."""

    label: str
    now: str
    change: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The weekly summary of one organization, for people."""

    title: str
    intro: str
    lines: tuple[SummaryLine, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The summary as plain text."""
        lines = [f"{one.label}: {one.now}{f' ({one.change})' if one.change else ''}" for one in self.lines]
        return "\n".join((self.intro, "", *lines, *(["", *self.notes] if self.notes else [])))

    def html(self, link: str | None) -> str:
        """The summary as an HTML document for mail: nothing is loaded from elsewhere."""
        head = "".join(
            f'<th style="{_CELL};text-align:{align}">{name}</th>'
            for name, align in (("Figure", "left"), ("This week", "right"), ("Against the week before", "right"))
        )
        rows = "".join(
            f'<tr><td style="{_CELL}">{escape(one.label)}</td>'
            f'<td style="{_CELL};text-align:right">{escape(one.now)}</td>'
            f'<td style="{_CELL};text-align:right">{escape(one.change)}</td></tr>'
            for one in self.lines
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        view = "" if link is None else f'<p><a href="{escape(link, quote=True)}">Open in the dashboard</a></p>'
        return (
            f"{_PAGE}<h2>{escape(self.title)}</h2><p>{escape(self.intro)}</p>"
            f'<table style="border-collapse:collapse;width:100%"><tr>{head}</tr>{rows}</table>{notes}{view}</div>'
        )


_Value = Decimal | int | None


def _number(value: _Value) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _credits(value: _Value) -> str:
    return short_credits(None if value is None else Decimal(value))


def _usd(value: _Value) -> str:
    return short_usd(None if value is None else Decimal(value))


def _seconds(value: _Value) -> str:
    return UNKNOWN if value is None else f"{Decimal(value).quantize(TENTH, ROUND_HALF_EVEN):,} s"


def _percent(value: _Value) -> str:
    return UNKNOWN if value is None else f"{(Decimal(value) * 100).quantize(TENTH, ROUND_HALF_EVEN):,} %"


_Kind = tuple[str, Callable[[Figures], _Value], Callable[[_Value], str]]

SHOWN: tuple[_Kind, ...] = (
    ("Credits", lambda one: one.credits.total, _credits),
    ("of which AI tokens", lambda one: one.credits.ai_tokens, _credits),
    ("of which compute", lambda one: one.credits.compute, _credits),
    ("of which storage", lambda one: one.credits.storage, _credits),
    ("Amount", lambda one: one.amount_usd, _usd),
    ("Events", lambda one: one.events, _number),
    ("Chats", lambda one: one.chats, _number),
    ("Users", lambda one: one.users, _number),
    ("Messages sent", lambda one: one.messages_sent, _number),
    ("Messages generated", lambda one: one.messages_generated, _number),
    ("Tokens", lambda one: one.tokens_total, _number),
    ("Average latency", lambda one: one.latency_average, _seconds),
    ("Events with an error", lambda one: one.error_share, _percent),
    ("Credits not in Stripe yet", lambda one: one.unsynced_credits, _credits),
)
COSTS: tuple[_Kind, ...] = (("Cost", lambda one: one.cost_usd, _usd), ("Margin", lambda one: one.margin_usd, _usd))
"""What an organization costs us: for whoever sees every organization."""


def summary_of(
    figures: OrganizationFigures, name: str, monday: date, zone: str, *, with_costs: bool, notes: tuple[str, ...] = ()
) -> Summary:
    """The summary of an organization's ISO week that begins on `monday`, from its figures of that week."""
    sunday = monday + timedelta(days=6)
    return Summary(
        f"{name}: week {week_name(monday)}",
        f"Usage from Monday, {day_text(monday)} to Sunday, {day_text(sunday)} ({zone}).",
        tuple(_lines(figures, SHOWN + COSTS if with_costs else SHOWN)),
        notes,
    )


def _lines(figures: OrganizationFigures, kinds: tuple[_Kind, ...]) -> Iterator[SummaryLine]:
    for label, read, write in kinds:
        now = read(figures.now)
        before = None if figures.previous is None else read(figures.previous)
        is_comparable = before is not None and now is not None and write is not _percent
        yield SummaryLine(label, write(now), change(now, before) if is_comparable else "")
