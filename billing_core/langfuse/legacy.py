"""Reads the legacy API of self-hosted v3: `/traces` and `/observations`, page by page, joined by trace id later.

Paging is by offset over an order without a tiebreak, so windows are short and closed, a span counts only when
complete, and its count is compared at the end. Prompts and answers ride along unavoidably; they are skipped in the
decoder and never stored.
"""

from __future__ import annotations

import json
import logging
import threading
from urllib.parse import quote

import pyarrow as pa

from billing_core.langfuse.client import BrokenBody, LangfuseClient, NotOffered, QuestionTooLarge
from billing_core.langfuse.decode import DecodedPage, FactReader, Meta
from billing_core.langfuse.facts import FACTS_SCHEMA
from billing_core.langfuse.spans import MINUTE, ReadKind, ReadSlice, TimeRange, api_time
from billing_core.values.usage_frame import MetadataNames, RejectedRow

logger = logging.getLogger(__name__)

PAGE_ROWS = 100
"""The API's maximum; more is a 400."""

TRACE_FIELDS = "core,io,metrics"
"""Metadata rides with `io`; `metrics` gives the sums to compare with."""

MOST_ITEMS = 2_000
"""A span with more is split: deep offsets overload the server's ClickHouse."""

RECOUNTS = 3
"""How often a span that changed while it was paged is read again."""


class LegacySource:
    """Reads time ranges of trace records, observations or whole traces; safe to share between threads."""

    page_rows = PAGE_ROWS

    def __init__(self, client: LangfuseClient, names: MetadataNames) -> None:
        self._client = client
        self._facts = FactReader(names)

    def read(self, piece: ReadSlice, span: TimeRange, stop: threading.Event) -> tuple[DecodedPage, list[TimeRange]]:
        """All rows of a time range; nothing is left to read after it."""
        if piece.kind is ReadKind.WHOLE:
            return self._whole_trace(span, stop), []
        for _ in range(RECOUNTS):
            facts, steady = self._pages(piece, span, stop)
            if steady:
                break
            logger.warning("legacy paging: the count of %s changed while reading, reading it again", piece.kind)
        return facts, []

    def _pages(self, piece: ReadSlice, span: TimeRange, stop: threading.Event) -> tuple[DecodedPage, bool]:
        """All pages of a span, and whether its count stayed the same from the first to the last."""
        repeat = piece.kind.is_repeat
        pages: list[DecodedPage] = []
        read = self._facts.traces if piece.kind is ReadKind.TRACES else self._facts.observations
        while True:
            number = len(pages) + 1

            def decode(body: bytes, number: int = number) -> DecodedPage:
                facts = read(body, repeat=repeat)
                check_counts(facts.meta, number, facts.rows, span.limit)
                return facts

            facts = self._client.get(
                "traces" if piece.kind is ReadKind.TRACES else "observations",
                self._params(piece, span, number),
                decode,
                stop=stop,
            )
            pages.append(facts)
            total = facts.meta.total_items
            if len(pages) == 1 and (total or 0) > MOST_ITEMS and span.end - span.start >= 2 * MINUTE:
                raise QuestionTooLarge(f"{total} items in one window")
            if number >= (facts.meta.total_pages or 0):
                return _joined(pages), total == pages[0].meta.total_items

    @staticmethod
    def _params(piece: ReadSlice, span: TimeRange, page: int) -> dict[str, str]:
        params = {"page": str(page), "limit": str(span.limit)}
        if piece.kind is ReadKind.TRACES:
            params |= {
                "fromTimestamp": api_time(span.start),
                "toTimestamp": api_time(span.end),
                "orderBy": "timestamp.asc",
                "fields": TRACE_FIELDS,
            }
            return params
        params |= {"fromStartTime": api_time(span.start), "toStartTime": api_time(span.end)}
        if span.ids:
            params["traceId"] = span.ids[0]
        if piece.ended_since is not None:
            condition = {
                "type": "datetime",
                "column": "endTime",
                "operator": ">=",
                "value": api_time(piece.ended_since),
            }
            params["filter"] = json.dumps([condition], separators=(",", ":"))
        return params

    def _whole_trace(self, span: TimeRange, stop: threading.Event) -> DecodedPage:
        """One trace with all its observations; nothing if it is gone."""
        try:
            return _joined(
                self._client.get(f"traces/{quote(span.ids[0], safe='')}", {}, self._facts.whole_trace, stop=stop)
            )
        except NotOffered:
            return _joined([])
        except QuestionTooLarge:
            # The record is usually known from the list already; its observations come in pages instead.
            return self._pages(ReadSlice(ReadKind.WHOLE, (span,)), span, stop)[0]


def check_counts(meta: Meta, page: int, rows: int, limit: int) -> None:
    """Refuse a page whose counts contradict each other: which page is the last cannot be known then.

    `totalItems` counts before duplicates are dropped, so a page may have fewer rows than it says, never more.

    Raises BrokenBody: naming the counts.
    """
    items, pages = meta.total_items, meta.total_pages
    if items is None or pages is None:
        raise BrokenBody("a page without totalItems and totalPages, which say whether more follow")
    counts = f"page {meta.page or page} of {pages}, {rows} of {items} rows, {limit} per page"
    if meta.page not in {None, page}:
        raise BrokenBody(f"page {meta.page} where page {page} was asked for")
    if rows > min(limit, items) or items > pages * limit or (rows == 0 and page < pages):
        raise BrokenBody(f"counts that contradict each other ({counts})")


def _joined(pages: list[DecodedPage]) -> DecodedPage:
    rejected: list[RejectedRow] = [row for page in pages for row in page.rejected]
    table = pa.concat_tables([FACTS_SCHEMA.empty_table(), *(page.table for page in pages)])
    return DecodedPage(table, rejected, sum(page.rows for page in pages), Meta())
