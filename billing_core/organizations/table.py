"""The rows of the organizations table: searched, sorted, and as CSV. Pure and exact.

The page and the download share it, so a file holds exactly the rows that the page shows, in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from billing_core.errors import BadParameter
from billing_core.organizations.figures import Figures, OrganizationFigures, Statistics
from billing_core.types import Credits
from billing_core.values.usage_frame import TOKEN_CLASSES

NOBODY = "No organization"
"""What the row of events without an organization is called."""

Value = Decimal | int | None

SHARE_PLACES = Decimal("0.000000001")
"""Shares and changes are ratios, which have no last digit: nine decimal places, half-even."""


def _credits(part: str) -> Callable[[Figures], Value]:
    return lambda figures: getattr(figures.credits, part)


def _tokens(kind: str) -> Callable[[Figures], Value]:
    return lambda figures: getattr(figures.tokens_by_class, kind)


def _plain(name: str) -> Callable[[Figures], Value]:
    return lambda figures: getattr(figures, name)


FIGURES: Mapping[str, Callable[[Figures], Value]] = {
    **{name: _plain(name) for name in ("events", "chats", "messages_sent", "messages_generated", "users", "chatflows")},
    "models": lambda figures: len(figures.models),
    **{name: _plain(name) for name in ("tokens_in", "tokens_out", "tokens_total")},
    **{f"tokens_{kind}": _tokens(kind) for kind in TOKEN_CLASSES},
    **{f"credits_{part}": _credits(part) for part in Credits.model_fields},
    **{name: _plain(name) for name in ("amount_usd", "cost_usd", "margin_usd")},
    "latency_seconds_average": _plain("latency_average"),
    "latency_seconds_p95": _plain("latency_p95"),
    **{name: _plain(name) for name in ("error_share", "unsynced_credits", "failed_credits")},
}
"""The published figures of `Figures.to_json` with flat names, as exact numbers; `models` is how many there are."""


def figure(figures: Figures, field: str) -> Value:
    """One published figure by its flat name; `None` is unknown."""
    return FIGURES[field](figures)


def label(organization_id: str | None, names: Mapping[str, str]) -> str:
    """An organization for people: its name where there is one, else the id."""
    return NOBODY if organization_id is None else names.get(organization_id) or organization_id


def label_with_id(one: str, names: Mapping[str, str]) -> str:
    """`Name (id)` where there is a name, else the id: for choices in which the id decides, as in the directory."""
    return f"{names[one]} ({one})" if one in names else one


def distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Names that tell organizations apart: one that several have is followed by the id, `Acme (org_a)`."""
    times = Counter(names.values())
    return {one: name if times[name] == 1 else label_with_id(one, names) for one, name in names.items()}


def share(credits_total: Decimal, whole: Decimal) -> Decimal | None:
    """An organization's share of all credits, from 0 to 1, to nine places; unknown where there are none at all."""
    return None if not whole else (credits_total / whole).quantize(SHARE_PLACES, ROUND_HALF_EVEN)


def margin_share(figures: Figures) -> Decimal | None:
    """The margin as a share of the amount whose cost is known, to nine places; unknown without such an amount."""
    margin, amount = figures.margin_usd, figures.known_cost_amount_usd
    return None if margin is None or not amount else (margin / amount).quantize(SHARE_PLACES, ROUND_HALF_EVEN)


def relative_change(one: OrganizationFigures) -> Decimal | None:
    """The change of an organization's credits relative to before (1: doubled); `None` without credits then."""
    before = None if one.previous is None else one.previous.credits.total
    return None if not before else ((one.now.credits.total - before) / before).quantize(SHARE_PLACES, ROUND_HALF_EVEN)


DEFAULT_SORT = "credits_total"

BY_NAME = "organization"
"""The sort by name, or by id where there is no name."""

ROW_SORTS: Mapping[str, Callable[[OrganizationFigures], Value]] = {
    "share": lambda one: one.now.credits.total,
    "before": lambda one: None if one.previous is None else one.previous.credits.total,
    "change": relative_change,
    "margin_share": lambda one: margin_share(one.now),
    "customers": lambda one: len(one.customer_ids),
}
"""What rows can be sorted by beside the published figures."""

SORTS: tuple[str, ...] = (BY_NAME, *FIGURES, *ROW_SORTS)
"""Everything the table can be sorted by."""


def found(
    organizations: Iterable[OrganizationFigures], names: Mapping[str, str], find: str
) -> list[OrganizationFigures]:
    """The organizations whose id or name contains `find`, whatever the case; `%` and `_` are ordinary characters."""
    needle = " ".join(find.split()).casefold()
    return [
        one
        for one in organizations
        if needle in f"{label(one.organization_id, names)}\n{one.organization_id or ''}".casefold()
    ]


def rows(
    statistics: Statistics,
    names: Mapping[str, str],
    *,
    find: str = "",
    sort: str = DEFAULT_SORT,
    descending: bool = True,
) -> list[OrganizationFigures]:
    """The rows of the organizations table in a total order: the sort's value, unknown ones last, then most credits,
    then the id.

    Raises BadParameter: if the table cannot be sorted by `sort`.
    """
    if sort not in SORTS:
        raise BadParameter("sort", sort, "one of " + ", ".join(SORTS))
    ordered = found(statistics.organizations, names, find)
    ordered.sort(key=lambda one: (one.organization_id is None, one.organization_id or ""))
    ordered.sort(key=lambda one: one.now.credits.total, reverse=True)
    if sort == BY_NAME:
        ordered.sort(key=lambda one: label(one.organization_id, names).casefold(), reverse=descending)
        ordered.sort(key=lambda one: one.organization_id is None)  # nobody's row is no name to be sorted by
        return ordered
    value = ROW_SORTS.get(sort) or (lambda one: FIGURES[sort](one.now))
    known = [(held, one) for one in ordered if (held := value(one)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=descending)
    return [one for _, one in known] + [one for one in ordered if value(one) is None]


CSV_COLUMNS: tuple[str, ...] = ("organization_id", "name", "customer_ids", *FIGURES, "previous_credits_total", "share")
"""Header of the download; `customer_ids` and `models` are JSON lists, `share` is the part of everybody's credits."""


def organizations_csv(
    statistics: Statistics, names: Mapping[str, str], find: str, sort: str, descending: bool
) -> Iterable[str]:
    """The rows of the organizations table as CSV, line by line: exact figures, unknown ones empty, no cell a formula.

    Raises BadParameter: if the table cannot be sorted by `sort`; before the first line.
    """
    chosen = rows(statistics, names, find=find, sort=sort, descending=descending)
    return _lines(chosen, names, statistics.total.credits.total)


def _lines(chosen: Sequence[OrganizationFigures], names: Mapping[str, str], whole: Decimal) -> Iterable[str]:
    from billing_core.values.csv_cells import csv_line  # brings Arrow, which only the file needs

    yield csv_line(CSV_COLUMNS)
    for one in chosen:
        figures = {name: value(one.now) for name, value in FIGURES.items()} | {"models": list(one.now.models)}
        yield csv_line(
            (
                one.organization_id,
                None if one.organization_id is None else names.get(one.organization_id),
                list(one.customer_ids),
                *figures.values(),
                None if one.previous is None else one.previous.credits.total,
                share(one.now.credits.total, whole),
            )
        )
