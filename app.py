"""The ASGI application of the dashboard: `streamlit run app.py` serves it, `uvicorn app:app` as well.

Start-up does nothing but this: settings are read and engines opened when somebody needs them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import BaseRoute, Route

from billing_core.runtime.private_files import keep_private
from billing_core.web import wiring
from billing_core.web.compression import CompressedStaticFiles
from billing_core.web.cookies import COOKIE_NAME, COOKIE_PATH, clear_cookie, set_cookie
from billing_core.web.door import Door
from billing_core.web.downloads import download_routes
from billing_core.web.export_files import export_download, job_file, job_focus_metadata, job_manifest
from billing_core.web.forwarded import take_peers_as_they_are
from billing_core.web.health import healthz, readyz
from billing_core.web.lifetime import logged_lifetime
from billing_core.web.live_rules import ServerOptions
from billing_core.web.moved import MovedViews
from billing_core.web.security import SecurityHeaders, inline_script_hashes
from billing_core.web.sockets import limit_uvicorn_messages
from billing_core.web.upload_guard import UploadGuard
from billing_core.web.usage_api import explore, usage_events
from components.shared.notice import report_script_error

keep_private()
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("billing_core").setLevel(logging.INFO)

GET_READY_AFTER_SECONDS = 1.5
"""The sign-in form comes first: on a small machine everything else would slow it down."""

BASE_PATH = "/" + path if (path := st.get_option("server.baseUrlPath").strip("/")) else ""


def server_options() -> ServerOptions:
    """Streamlit's options of this server that live mode checks."""
    return ServerOptions(
        address=st.get_option("server.address"),
        enable_cors=st.get_option("server.enableCORS"),
        enable_xsrf_protection=st.get_option("server.enableXsrfProtection"),
        show_error_details=st.get_option("client.showErrorDetails"),
        development_mode=st.get_option("global.developmentMode"),
        enable_agent_api=st.get_option("server.enableAgentApi"),
    )


async def no_such_address(_request: Request) -> JSONResponse:
    """Answer 404 to unknown addresses under `/api`: Streamlit would answer with its page, which a program must not take
    for an answer.
    """
    return JSONResponse({"error": "no such address; see the documentation of the HTTP API"}, status_code=404)


async def default_page(request: Request) -> RedirectResponse:
    """Redirect to `/`, the address of Usage Events: Streamlit knows the default page under that only."""
    return RedirectResponse(f"{BASE_PATH}/" + (f"?{request.url.query}" if request.url.query else ""))


def routes() -> list[BaseRoute]:
    """The HTTP routes beside Streamlit's: health, usage, downloads. Machines ask for health and usage and know no base
    path.
    """
    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/api/billing/usage/events", usage_events),
        Route("/api/billing/explore", explore),
        Route("/api/{path:path}", no_such_address),
        *download_routes(BASE_PATH),
        Route(f"{BASE_PATH}/download/export", export_download),
        Route(f"{BASE_PATH}/download/exports/{{id}}.manifest.json", job_manifest),
        Route(f"{BASE_PATH}/download/exports/{{id}}.focus-metadata.json", job_focus_metadata),
        Route(f"{BASE_PATH}/download/exports/{{id}}", job_file),
        Route(f"{BASE_PATH}/usage_events", default_page),
        MovedViews(BASE_PATH),
        Route(f"{BASE_PATH}{COOKIE_PATH}/clear", clear_cookie),
        Route(f"{BASE_PATH}{COOKIE_PATH}/{{ticket}}", set_cookie),
    ]


def get_ready() -> None:
    """Prepare in the background what the first person would wait for: imports, then data."""
    for module in (
        "pandas",
        "plotly.graph_objects",
        "components.usage_events.chart_panel",
        "components.usage_events.table",
        "components.organizations.overview",
        "components.organizations.chart_panel",
        "components.exports.panel",
    ):
        import_module(module)
    wiring.get_ready()


def listening() -> str:
    """The address this process listens on, as far as Streamlit's options say."""
    if "uvicorn" in Path(sys.argv[0]).parts[-2:]:
        return "what uvicorn was told"
    return f"{st.get_option('server.address') or 'every address'}:{st.get_option('server.port')}"


@asynccontextmanager
async def lifespan(_app: st.App) -> AsyncIterator[None]:
    """Start and stop of the server: opens nothing, prepares for people a moment later, closes everything at the end."""
    timer = threading.Timer(GET_READY_AFTER_SECONDS, get_ready)
    timer.daemon = True
    timer.start()
    with logged_lifetime(listening()):
        yield
    timer.cancel()
    await run_in_threadpool(wiring.close)


async def is_signed_in(cookie: str | None) -> bool:
    """Whether a browser's cookie belongs to a session that still runs."""
    return cookie is not None and await run_in_threadpool(wiring.principal_of_cookie, cookie) is not None


def shell_page() -> str:
    """The HTML of Streamlit's one page."""
    return (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")


take_peers_as_they_are()
limit_uvicorn_messages()
wiring.serve_with(server_options())

MIDDLEWARE = [
    Middleware(Door, wiring.door_rules, wiring.sockets, is_signed_in, COOKIE_NAME),
    Middleware(SecurityHeaders, inline_script_hashes(shell_page())),
    Middleware(UploadGuard),
    Middleware(CompressedStaticFiles, f"{BASE_PATH}/static/"),
]

app = st.App(
    "pages/main.py", lifespan=lifespan, routes=routes(), middleware=MIDDLEWARE, on_script_error=report_script_error
)
