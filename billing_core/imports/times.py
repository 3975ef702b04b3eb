"""Reads times in imported files: an instant, or the reason why it is ambiguous. Pure. Nothing is guessed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

_NAMED_UTC = re.compile(r"\s*(UTC|GMT)\Z", re.IGNORECASE)

_WALL_CLOCK = r"^\s*(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?)\s*$"
"""A date and a time of day without an offset, as spreadsheets show it."""


class Unclear(ValueError):
    """A time in a file is ambiguous; the text says why, and what to write instead."""


def has_offset(text: str) -> bool:
    """Whether the text of a readable time says its offset from UTC."""
    return _parsed(text).tzinfo is not None


def instant_of(text: str, zone: ZoneInfo | None) -> datetime:
    """The instant (aware UTC) that a text names; times without an offset are local times of `zone`. Times without an
    offset are of `zone`'s wall clock.

    Raises Unclear: if there is no offset and no zone, or if the wall clock of the zone showed this time twice or never.
    ValueError: if it is no ISO 8601 time.
    """
    time = _parsed(text)
    if time.tzinfo is not None:
        return time.astimezone(UTC)
    if zone is None:
        raise Unclear(
            "has no offset, so its exact time is unknown; name its timezone (--timezone Europe/Berlin), or "
            f"write the offset: {time.isoformat(sep='T', timespec='seconds')}Z"
        )
    first, second = (time.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first.astimezone(UTC)
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time:
        raise Unclear(f"does not exist in {zone.key}: clocks were set forward there; write it with its offset")
    raise Unclear(
        f"occurs twice in {zone.key}, where clocks were set back; write it with its offset: {first.isoformat()} or "
        f"{second.isoformat()}"
    )


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(_NAMED_UTC.sub("+00:00", text.strip()))


def as_utc(column: pa.Array) -> pa.Array:
    """A column of times as UTC where its name says so: those without an offset get one."""
    return pc.replace_substring_regex(column, _WALL_CLOCK, r"\1Z")
