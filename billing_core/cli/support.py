"""Helpers of several commands of `billing_core.cli`: arguments, principal, open services, tables and progress bars."""

from __future__ import annotations

import argparse
import codecs
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from billing_core.access import Principal, system_principal
from billing_core.errors import BadParameter
from billing_core.settings import Mode, Settings

if TYPE_CHECKING:
    from billing_core.service import BillingService

FILTERS = ("customer", "organization", "user", "chatflow", "model", "environment", "status")


EXIT_UNREACHABLE = 3


EXIT_SOME_FAILED = 1


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_window(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="start", metavar="T", help="ISO 8601; without an offset in BILLING_TIMEZONE")
    parser.add_argument("--to", dest="end", metavar="T", help="exclusive")


def add_filters(parser: argparse.ArgumentParser) -> None:
    for name in FILTERS:
        parser.add_argument(f"--{name}", action="append", metavar="VALUE", help="repeat to match any of several")
    parser.add_argument(
        "--without",
        action="append",
        metavar="NAME",
        help="events without this field, an organization for example; repeat for events missing all of several",
    )
    parser.add_argument(
        "--cause",
        action="append",
        metavar="CAUSE",
        help="why events are not in Stripe, in the words of Stripe Sync, e.g. too_old; repeat to match any of several",
    )
    parser.add_argument(
        "--held",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="only events held back from Stripe; --no-held: only the others",
    )
    parser.add_argument(
        "--stage",
        action="append",
        metavar="STAGE",
        help="events that Stripe Sync counts in this stage, e.g. billed_before; repeat to match any of several",
    )
    parser.add_argument(
        "--credit-type",
        action="append",
        metavar="TYPE",
        help="events with credits for ai_tokens, compute or storage; repeat to match any of several",
    )
    parser.add_argument("--amount-min", metavar="USD")
    parser.add_argument("--amount-max", metavar="USD")
    parser.add_argument("--search", metavar="TEXT")


def os_principal() -> Principal:
    """The principal of a command, which may read the whole ledger; the audit log names the system's user."""
    return system_principal(f"os:{_os_user()}")


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return f"uid {os.getuid()}"


@contextmanager
def open_service(settings: Settings) -> Iterator[BillingService]:
    from billing_core.service import BillingService

    service = BillingService.from_settings(settings)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def with_langfuse(settings: Settings) -> Iterator[Settings]:
    """A context with settings that have a Langfuse to read: in demo mode the sandbox, started for this command."""
    if settings.mode is Mode.LIVE:
        yield settings
        return
    from billing_core.demo import demo_sandbox

    with demo_sandbox(settings) as connected:
        yield connected


def time_of(name: str, text: str | None) -> datetime | None:
    from billing_core.types import parse_time

    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise BadParameter(name, text, str(error).removeprefix("expected ")) from None


@contextmanager
def open_stripe_service(settings: Settings) -> Iterator[BillingService]:
    """A context with a service that has a Stripe to talk to: in demo mode the sandbox, started for this command."""
    from billing_core.service import BillingService

    with ExitStack() as stack:
        if settings.mode is Mode.LIVE:
            service = BillingService.from_settings(settings)
        else:
            from billing_core.demo import DemoSandbox

            demo = stack.enter_context(closing(DemoSandbox()))
            service = BillingService.from_settings(settings, connect=demo.langfuse, connect_stripe=demo.stripe)
        stack.enter_context(closing(service))
        yield service


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as lines of text, each column as wide as its longest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
    return "\n".join(lines)


@contextmanager
def share_bar() -> Iterator[Callable[[float, str], None]]:
    """A progress bar for a share of the work (0 to 1), on standard error and only for people."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm(total=1.0, bar_format=form, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:

        def show(share: float, doing: str) -> None:
            bar.n = min(share, 1.0)
            bar.set_description_str(doing, refresh=True)

        yield show


def params_of(options: argparse.Namespace) -> Any:
    from billing_core.types import GetUsageEventsParams

    values = {"from": options.start, "to": options.end}
    names = (
        *FILTERS,
        "without",
        "cause",
        "held",
        "stage",
        "credit_type",
        "amount_min",
        "amount_max",
        "search",
        "sort",
        "order",
        "page",
        "limit",
        "as_of",
    )
    values.update({name: getattr(options, name, None) for name in names})
    return GetUsageEventsParams.parse({name: value for name, value in values.items() if value is not None})


def print_json(document: Any) -> None:
    """Print a JSON document in UTF-8, or escaped where the terminal or the text cannot be UTF-8."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    if codecs.lookup(encoding).name != "utf-8" or not is_unicode(text):
        text = json.dumps(document, indent=2)
    print(text)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
