"""The filters of the Usage Events page, as a question to the service and as URL parameters. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from billing_core.stripe_sync.pipeline import title_of
from billing_core.types import CreditType, GetUsageEventsParams, PipelineStage, plain_decimal, utc_text
from components.shared.colours import CREDIT_PARTS, STAGE_MARKS
from components.shared.formats import middle_cut
from components.shared.periods import PeriodChoice
from components.shared.url_codec import PERIOD_VALUES, flag, several, several_of, text


@dataclass(frozen=True, slots=True)
class Facet:
    """A filter with a list of values: its name in the URL and in `GetUsageEventsParams`, and its label."""

    key: str
    label: str


FACETS = (
    Facet("organization", "Organization"),
    Facet("customer", "Customer"),
    Facet("user", "User"),
    Facet("chatflow", "Chatflow"),
    Facet("model", "Model"),
    Facet("environment", "Environment"),
    Facet("status", "Sync status"),
)

CREDIT_TYPES: Mapping[str, str] = {part.field: part.label for part in CREDIT_PARTS}
"""Labels of the types of credits."""

WITHOUT = "without"
"""The filter for what events lack: its name in the URL and in `GetUsageEventsParams`."""


HELD: Mapping[bool | None, str] = {None: "Any", True: "Held back", False: "Not held back"}
"""The choices of the filter for what is held back from Stripe."""


@dataclass(frozen=True)
class Filters(PeriodChoice):
    """Everything chosen in the filter bar. `amount_min` and `amount_max` are US dollars as typed."""

    organization: tuple[str, ...] = ()
    customer: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    chatflow: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    held: bool | None = None
    stage: tuple[str, ...] = ()
    credit_type: tuple[str, ...] = ()
    amount_min: str = ""
    amount_max: str = ""
    search: str = ""


OTHERS = ("cause", "held", "stage", "credit_type")
"""Filters that go to the service as they are."""

PANEL_FIELDS = (*(facet.key for facet in FACETS), WITHOUT, *OTHERS, "amount_min", "amount_max")
"""Filters that stand in the "Filters" panel."""

FILTER_VALUES = {
    **PERIOD_VALUES,
    **{facet.key: several() for facet in FACETS},
    WITHOUT: several(),
    "cause": several(),
    "held": flag("true", "false"),
    "stage": several_of(PipelineStage),
    "credit_type": several_of(CreditType),
    "amount_min": text(),
    "amount_max": text(),
    "search": text(),
}
"""How filters stand in a URL."""


def as_changes(filters: Filters) -> dict[str, Any]:
    """The filters as changes of a state that holds more."""
    return {name: getattr(filters, name) for name in FILTER_VALUES}


def filters_of(view: Filters) -> Filters:
    """The filters alone of a state that holds more."""
    return Filters(**as_changes(view))


@dataclass(frozen=True, slots=True)
class Paging:
    """Page, page size and order of the table; the defaults are the newest 25."""

    sort: str = "timestamp"
    order: str = "desc"
    page: int = 1
    limit: int = 25


@dataclass(frozen=True, slots=True)
class Chip:
    """One active filter as shown: its text and which value of which widget it removes. `whole` is that value where the
    text shows a name for it, or only its ends.
    """

    text: str
    key: str
    value: str | None = None
    whole: str = ""


def question(
    filters: Filters, *, at: datetime, zone: ZoneInfo, as_of: int, paging: Paging | None = None
) -> GetUsageEventsParams:
    """The filters as parameters. `at` is the present, `as_of` the booking number the view is pinned to.

    Raises BadParameter: naming what was typed wrong.
    """
    start, end = filters.window(at, zone)
    values: dict[str, Any] = {
        "from": start,
        "to": end,
        **{facet.key: getattr(filters, facet.key) for facet in FACETS},
        WITHOUT: filters.without,
        **{name: getattr(filters, name) for name in OTHERS},
        "amount_min": _amount(filters.amount_min),
        "amount_max": _amount(filters.amount_max),
        "as_of": as_of,
    }
    if filters.search.strip():
        values["search"] = filters.search.strip()
    if paging is not None:
        values |= {"sort": paging.sort, "order": paging.order, "page": paging.page, "limit": paging.limit}
    return GetUsageEventsParams.parse(values)


def _amount(text: str) -> str | None:
    """As typed, without the signs people put around dollars."""
    return text.strip().removeprefix("$").replace(",", "") or None


NO_NAMES: Mapping[str, str] = {}

LONGEST_VALUE = 40
"""Characters of a filter's value on its chip; the hover text has it whole."""


def chips(filters: Filters, chatflows: Mapping[str, str] = NO_NAMES) -> list[Chip]:
    """Every active filter but the period, which is always in sight; `chatflows` are names by id."""
    found = []
    for facet in FACETS:
        for value in getattr(filters, facet.key):
            shown = middle_cut(chatflows.get(value, value) if facet.key == "chatflow" else value, LONGEST_VALUE)
            found.append(Chip(f"{facet.label}: {shown}", facet.key, value, "" if shown == value else value))
    found += [Chip(f"Without {name}", WITHOUT, name) for name in filters.without]
    found += [Chip(f"Cause: {title_of(cause)}", "cause", cause, cause) for cause in filters.cause]
    if filters.held is not None:
        found.append(Chip(HELD[filters.held], "held"))
    found += [Chip(f"Stage: {STAGE_MARKS[PipelineStage(stage)].word}", "stage", stage) for stage in filters.stage]
    found += [Chip(f"Credits for {CREDIT_TYPES[kind]}", "credit_type", kind) for kind in filters.credit_type]
    if filters.amount_min.strip():
        found.append(Chip(f"Amount from ${filters.amount_min.strip().removeprefix('$')}", "amount_min"))
    if filters.amount_max.strip():
        found.append(Chip(f"Amount to ${filters.amount_max.strip().removeprefix('$')}", "amount_max"))
    if filters.search.strip():
        found.append(Chip(f"Search: {filters.search.strip()}", "search"))
    return found


def names_of(found: Iterable[tuple[str | None, str | None]], *, with_ids: bool = False) -> dict[str, str]:
    """Names of chatflows by id; each has its id behind it, if wanted, or if several have the name."""
    names = {chatflow: name for chatflow, name in reversed(list(found)) if chatflow and name}
    counts = Counter(names.values())
    return {
        chatflow: f"{name} ({chatflow})" if with_ids or counts[name] > 1 else name for chatflow, name in names.items()
    }


def csv_query(params: GetUsageEventsParams) -> str:
    """The query string that downloads exactly the events of `params`: whole answer, same state of the ledger."""
    pairs: list[tuple[str, str]] = []
    for name, time in (("from", params.from_), ("to", params.to)):
        if time is not None:
            pairs.append((name, utc_text(time)))
    for facet in FACETS:
        pairs += [(facet.key, str(value)) for value in getattr(params, facet.key)]
    pairs += [(WITHOUT, str(attribute)) for attribute in params.without]
    pairs += [("cause", cause) for cause in params.cause]
    pairs += [("credit_type", str(kind)) for kind in params.credit_type]
    pairs += [("stage", str(stage)) for stage in params.stage]
    if params.held is not None:
        pairs.append(("held", str(params.held).lower()))
    for name, amount in (("amount_min", params.amount_min), ("amount_max", params.amount_max)):
        if amount is not None:
            pairs.append((name, plain_decimal(amount)))
    if params.search is not None:
        pairs.append(("search", params.search))
    if params.as_of is not None:
        pairs.append(("as_of", str(params.as_of)))
    return urlencode(pairs)
