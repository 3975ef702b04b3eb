"""Reads several slices at once: threads write pages into the spool, the calling thread reports progress."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import QuestionTooLarge
from billing_core.langfuse.decode import NOTHING, DecodedPage
from billing_core.langfuse.limiter import ReadStopped
from billing_core.langfuse.spans import DAY, HOUR, REACH, ReadKind, ReadSlice, TimeRange, halved, length, nearer, shrink
from billing_core.langfuse.spool import Spool, SpoolPart

logger = logging.getLogger(__name__)

REPORT_EVERY_SECONDS = 0.2

NO_LIMIT = 2**62

MOST_ASTRAY_PAGES = 5
"""So many pages of rows dated outside any time of use are read at most: normally there is none."""

NOT_FURTHER = (
    f"rows of the window's traces dated more than {REACH // DAY} days before or after it were not looked for: "
    "Langfuse found the question too heavy"
)
NO_LOST_STARTS = "not all rows dated before 2020 were looked for: there are too many, or Langfuse refused the question"
NO_FUTURE = "not all rows dated in the future were looked for: there are too many, or Langfuse refused the question"
"""What a reading says of rows that it may have missed."""


class LangfuseApi(Protocol):
    """One generation of Langfuse's API."""

    @property
    def page_rows(self) -> int:
        """The most rows that a page of this API may have."""

    def read(self, piece: ReadSlice, span: TimeRange, stop: threading.Event) -> tuple[DecodedPage, list[TimeRange]]:
        """One page of a time range and what is left of it; raises `QuestionTooLarge` when less must be asked for."""


def read_slices(
    source: LangfuseApi,
    slices: Sequence[ReadSlice],
    spool: Spool,
    *,
    workers: int,
    report: Callable[[float, int], None],
) -> list[SpoolPart]:
    """Read all slices into the spool; `report` gets the share done (0 to 1) and the rows read, on this thread.

    Raises UpstreamError: from the first slice that fails; the others stop at their next page, and all pages stay in the
    spool.
    """
    parts = [spool.part(piece) for piece in slices]
    stop = threading.Event()
    appetite = RangeLimits()
    with ThreadPoolExecutor(max_workers=max(workers, 1), thread_name_prefix="langfuse") as pool:
        try:
            open_parts: set[Future[None]] = {
                pool.submit(read_part, source, part, stop, appetite) for part in parts if part.remaining
            }
            while open_parts:
                done, open_parts = wait(open_parts, timeout=REPORT_EVERY_SECONDS, return_when=FIRST_COMPLETED)
                for finished in done:
                    finished.result()
                report(_share_done(parts), sum(part.rows for part in parts))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    report(1.0, sum(part.rows for part in parts))
    return parts


class RangeLimits:
    """The longest time range a server answers, per kind of read: what one slice learned, none asks again.

    A refusal costs the server's whole time limit, so that learning it anew for every group of traces would take hours.
    """

    def __init__(self) -> None:
        self._longest: dict[ReadKind, int] = {}

    def longest(self, kind: ReadKind) -> int:
        """The milliseconds that may be asked for at once."""
        return self._longest.get(kind, NO_LIMIT)

    def learn(self, kind: ReadKind, refused: TimeRange, smaller: Sequence[TimeRange]) -> None:
        """Store that a time range was refused and a smaller one answered."""
        if smaller and length(smaller[0]) < length(refused):
            self._longest[kind] = min(self.longest(kind), max(map(length, smaller)))


def read_part(source: LangfuseApi, part: SpoolPart, stop: threading.Event, appetite: RangeLimits | None = None) -> None:
    """Read one slice into the spool, newest first, asking for less when the server is overloaded."""
    appetite = appetite or RangeLimits()
    stack = list(part.remaining)
    answered: set[TimeRange] = set()
    while stack:
        if stop.is_set():
            raise ReadStopped
        span = stack.pop()
        if span.cursor is None and length(span) > appetite.longest(part.slice.kind):
            if (rest := nearer(part.slice.kind, span)) is not None:
                stack.append(rest)
                part.note(NOT_FURTHER)
                continue
            if halves := halved(span):
                stack += halves
                continue
        try:
            facts, following = source.read(part.slice, span, stop)
        except (QuestionTooLarge, UpstreamError) as reason:
            if part.slice.kind is ReadKind.ASTRAY:
                stack += _less_astray(part, span, reason)
                part.write(NOTHING, stack)
            elif isinstance(reason, UpstreamError):
                raise
            else:
                stack += _less(part, span, reason, appetite)
            continue
        answered.add(_position(span))
        if any(_position(after) in answered for after in following):
            following = _start_over(span, following)
        if part.slice.kind is ReadKind.ASTRAY and following and len(answered) >= MOST_ASTRAY_PAGES:
            part.note(NO_LOST_STARTS if span.start == 0 else NO_FUTURE)
            following = []
        stack += following
        part.write(facts, stack)


def _less(part: SpoolPart, span: TimeRange, reason: Exception, appetite: RangeLimits) -> Sequence[TimeRange]:
    """What to ask after a refusal. Other rows of traces far from the window are given up, which the part notes."""
    if (rest := nearer(part.slice.kind, span)) is not None:
        logger.warning("rows of traces far from the window: %s", reason)
        appetite.learn(part.slice.kind, span, [replace(rest, newest=None)])
        part.note(NOT_FURTHER)
        return [rest]
    smaller = shrink(span)
    appetite.learn(part.slice.kind, span, smaller)
    if not smaller:
        raise UpstreamError(
            f"{reason}, even for the smallest question; the server is overloaded, run this again later: "
            "it continues where it stopped"
        ) from None
    logger.info("asking for less: %s", reason)
    return smaller


def _less_astray(part: SpoolPart, span: TimeRange, reason: Exception) -> list[TimeRange]:
    """What to ask after a refusal of times at which nothing was used: a server may refuse them for good, and is noted.

    Half a century cannot be asked for in pieces: the hour in which lost starts are dated has to do. A fault of another
    kind shows in the window's own questions.
    """
    logger.warning("rows dated outside any time of use: %s", reason)
    part.note(NO_LOST_STARTS if span.start == 0 else NO_FUTURE)
    is_too_large = isinstance(reason, QuestionTooLarge)
    return [replace(span, end=span.start + HOUR)] if is_too_large and span.start == 0 and length(span) > HOUR else []


def _position(span: TimeRange) -> TimeRange:
    """What makes two questions the same question."""
    return replace(span, newest=None)


def _start_over(span: TimeRange, following: Sequence[TimeRange]) -> list[TimeRange]:
    """The server gave a cursor it gave before: ask for what is left without one, in smaller pieces."""
    logger.warning("Langfuse repeated a cursor; asking for the rest of the window without it")
    again: list[TimeRange] = []
    for after in following:
        rest = replace(after, cursor=None, newest=None, end=min(after.newest or span.end, span.end))
        smaller = shrink(rest)
        if not smaller:
            raise UpstreamError(
                "Langfuse keeps answering with the same cursor, even for the smallest window; "
                "its rows cannot be read completely. Report this to the server's operator"
            )
        again += smaller
    return again


def _share_done(parts: Sequence[SpoolPart]) -> float:
    total = sum(_size(span) for part in parts for span in part.slice.spans)
    left = sum(_size(span) for part in parts for span in part.remaining)
    return min(max(1 - left / total, 0.0), 1.0) if total else 1.0


def _size(span: TimeRange) -> int:
    return ((span.newest or span.end) - span.start) * max(len(span.ids), 1)
