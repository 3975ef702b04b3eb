"""Reads the observations API (`/v2/observations`, Langfuse Cloud and self-hosted v4): one cursor page per request."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import BrokenBody, LangfuseClient
from billing_core.langfuse.decode import DecodedPage, FactReader
from billing_core.langfuse.spans import ReadKind, ReadSlice, TimeRange, api_time
from billing_core.values.usage_frame import MetadataNames

logger = logging.getLogger(__name__)

FIELDS = "core,basic,time,model,usage,metadata,trace_context"
"""Everything a bill needs; never `io` (prompts and answers). The server silently drops misspelt groups."""

PAGE_ROWS = 1000
"""The API's maximum; quotas count requests, not rows."""

MOST_EMPTY_PAGES = 20
"""An empty page with a cursor should not happen; it is followed, but not for ever."""


class ObservationsSource:
    """Reads time ranges of observations; safe to share between threads."""

    page_rows = PAGE_ROWS

    def __init__(self, client: LangfuseClient, names: MetadataNames) -> None:
        self._client = client
        self._facts = FactReader(names)

    def read(self, piece: ReadSlice, span: TimeRange, stop: threading.Event) -> tuple[DecodedPage, list[TimeRange]]:
        """One page of observations, and what is left of the time range after it."""
        for _ in range(MOST_EMPTY_PAGES):
            facts = self._page(piece, span, stop)
            if facts.meta.cursor is None:
                return facts, []
            after = replace(span, cursor=facts.meta.cursor, newest=facts.newest_left)
            if facts.rows:
                return facts, [after]
            if after.cursor == span.cursor:
                break
            logger.warning("Langfuse sent an empty page with a cursor; following it")
            span = after
        raise UpstreamError(
            "Langfuse keeps sending empty pages that each name a next one; its rows cannot be read completely. "
            "Report this to the server's operator"
        )

    def _page(self, piece: ReadSlice, span: TimeRange, stop: threading.Event) -> DecodedPage:
        expanded = piece.kind is ReadKind.EXPAND

        def decode(body: bytes) -> DecodedPage:
            facts = self._facts.observations(body, expanded=expanded, repeat=piece.kind.is_repeat)
            if facts.meta.cursor is None and (facts.meta.total_pages or 0) > (facts.meta.page or 1):
                raise BrokenBody("a page that names further pages and no cursor")
            return facts

        return self._client.get(
            "v2/observations",
            self._params(piece, span, ",".join(self._facts.metadata.keys) if expanded else None),
            decode,
            stop=stop,
        )

    @staticmethod
    def _params(piece: ReadSlice, span: TimeRange, expand: str | None) -> dict[str, str]:
        """Every parameter is sent with every page: the cursor is only a position."""
        params = {
            "fields": FIELDS,
            "limit": str(span.limit),
            "fromStartTime": api_time(span.start),
            "toStartTime": api_time(span.end),
        }
        conditions: list[dict[str, object]] = []
        if span.ids:
            conditions.append(
                {"type": "stringOptions", "column": "traceId", "operator": "any of", "value": list(span.ids)}
            )
        if piece.ended_since is not None:
            conditions.append(
                {"type": "datetime", "column": "endTime", "operator": ">=", "value": api_time(piece.ended_since)}
            )
        if conditions:
            params["filter"] = json.dumps(conditions, separators=(",", ":"))
        if expand:
            params["expandMetadata"] = expand
        if span.cursor is not None:
            params["cursor"] = span.cursor
        return params
