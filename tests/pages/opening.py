"""A page as somebody sees who opens its address."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from billing_core.web import wiring
from components.shared import after_paint

MAIN = Path(__file__).parents[2] / "pages" / "main.py"


def signed_in(name: str, page: str = "usage_events.py", /, **query: str | list[str]) -> AppTest:
    """A page that `name` is about to open; bcrypt, which takes a quarter of a second, is not asked."""
    run = AppTest.from_file(str(MAIN), default_timeout=60)
    run.session_state["sign_in.session"] = wiring.gatekeeper().sign_in(name, "any", "local", lambda *_: True)
    run.session_state[after_paint.PAINTED] = True  # no browser paints here, and timers do not run
    run._registered_pages = _pages()  # else another page is drawn first, to get to know this one
    run.switch_page(page)
    run.query_params.update(query)
    return run


def opened_at(name: str, page: str = "usage_events.py", /, **query: str | list[str]) -> AppTest:
    """A page as `name` sees it first."""
    run = signed_in(name, page, **query).run()
    assert not run.exception, run.exception
    return run


@cache
def _pages() -> dict[str, Any]:
    """The pages there are, as the form for signing in knows them already."""
    return AppTest.from_file(str(MAIN), default_timeout=60).run()._registered_pages
