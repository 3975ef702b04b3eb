"""Redirects of addresses that pages had before: links in mails, bookmarks and tickets keep working."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Match, Route
from starlette.types import Scope

MOVED: Mapping[str, str] = {"months": "month_close", "what-if": "what_if", "audit": "audit_log"}
"""Views that the page `export_import` once had, with the page that each one is now."""


class MovedViews(Route):
    """The route of `export_import` for its former views alone; Streamlit answers for the page that is left."""

    def __init__(self, base_path: str) -> None:
        async def redirect(request: Request) -> RedirectResponse:
            return RedirectResponse(f"{base_path}/{_new_address(request.url.query)}")

        super().__init__(f"{base_path}/export_import", redirect)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match unless the query asks for a view that moved."""
        match, child = super().matches(scope)
        if match is Match.NONE or _new_address(scope["query_string"].decode("latin-1")) is None:
            return Match.NONE, {}
        return match, child


def _new_address(query: str) -> str | None:
    """The page that a query's `view` is now, with the other parameters; `None` if it has not moved."""
    asked = parse_qsl(query, keep_blank_values=True)
    page = next((MOVED[value] for name, value in asked if name == "view" and value in MOVED), None)
    if page is None:
        return None
    rest = [(name, value) for name, value in asked if name != "view"]
    return page + (f"?{urlencode(rest)}" if rest else "")
