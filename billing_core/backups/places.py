"""Which files belong to an installation, and their names in a backup archive."""

from __future__ import annotations

from pathlib import Path

from billing_core.errors import BadParameter
from billing_core.ledger.place import log_of
from billing_core.settings import VARIABLES, Settings

BOOKS, LOG = "books.duckdb", "books.duckdb.wal"
SESSIONS = "sessions.sqlite3"
ACCOUNTS, TOKENS = "credentials.yaml", "tokens.json"
DEMO_STRIPE, DEMO_SINCE = "demo-stripe", "demo-since"

BESIDE = (
    ".wal",
    ".lock",
    ".waiting",
    ".pull",
    ".push",
    ".webhook",
    ".close",
    ".new",
    ".tmp",
    ".spool",
    ".reconcile-spool",
    ".demo-stripe",
    ".demo-since",
    "-wal",
    "-shm",
)
"""What lies beside the files of an installation, named after them."""

NOTED = (
    "mode",
    "langfuse_host",
    "langfuse_excluded_environments",
    "stripe_api_base",
    "stripe_meter_event_name",
    "stripe_meter_api",
    "push_granularity",
    "timezone",
    "default_customer_id",
    "override_customer_id",
)
"""Settings under which books were kept; none is secret."""


def places(settings: Settings) -> dict[str, Path]:
    """The path of each member of a backup archive; the books last: with them an installation is whole."""
    books = settings.warehouse_path
    found = {ACCOUNTS: settings.credentials, SESSIONS: books.with_name("sessions.sqlite3")}
    if settings.api_tokens is not None:
        found[TOKENS] = settings.api_tokens
    for name in (DEMO_STRIPE, DEMO_SINCE):
        found[name] = books.with_name(f"{books.name}.{name}")
    return {**found, LOG: log_of(books), BOOKS: books}


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment variables of the settings with their values, as text."""
    return {VARIABLES[name][0]: _text(getattr(settings, name)) for name in NOTED}


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)


def refuse_own(settings: Settings, path: Path, parameter: str) -> None:
    """Raise `BadParameter` if a file written to a path would replace one of the installation's own."""
    own = (*places(settings).values(), Path(".env"))
    names = {place.resolve().with_name(place.resolve().name + beside) for place in own for beside in ("", *BESIDE)}
    if path.resolve() in names:
        raise BadParameter(parameter, str(path), "another name; this one belongs to the ledger, accounts or settings")
