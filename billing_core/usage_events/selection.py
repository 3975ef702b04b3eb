"""Turns request parameters and a principal into a `Selection` of events; the principal's scope is always part of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing_core.access import Principal, scope_of
from billing_core.errors import BadParameter
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection, extent
from billing_core.types import PREVIOUS, Attribute, GetUsageEventsParams, parse_time
from billing_core.values.usage_frame import HOUR, aware_in, hour_of, window_in

_COLUMNS = {
    Attribute.ORGANIZATION: "organization_id",
    Attribute.CUSTOMER: "customer_id",
    Attribute.USER: "user_id",
    Attribute.SESSION: "session_id",
    Attribute.CHATFLOW: "chatflow_id",
    Attribute.MODEL: "models",
    Attribute.ENVIRONMENT: "environment",
}


def select(ledger: Ledger, zone: ZoneInfo, params: GetUsageEventsParams, principal: Principal) -> Selection:
    """The events `params` ask for, as far as `principal` may see them; times without an offset are in `zone`.

    Raises BadParameter: if the window holds nothing. AccessDenied: if `params.organization` names one outside the
    principal's.
    """
    for organization in params.organization:
        principal.require_organization(organization)
    start = None if params.from_ is None else aware_in(zone, params.from_)
    end = None if params.to is None else aware_in(zone, params.to)
    if start is not None and end is not None:
        window_in(zone, start, end)  # refuses what holds nothing
    named = {
        "customer_id": params.customer,
        "organization_id": params.organization,
        "user_id": params.user,
        "chatflow_id": params.chatflow,
        "environment": params.environment,
        "sync_status": tuple(status.value for status in params.status),
    }
    return Selection(
        scope_of(principal),
        ledger.snapshot(params.as_of),
        None if start is None else start.astimezone(UTC),
        None if end is None else end.astimezone(UTC),
        tuple((column, values) for column, values in named.items() if values),
        params.model,
        params.amount_min,
        params.amount_max,
        params.search,
        tuple(_COLUMNS[attribute] for attribute in params.without),
        params.cause,
        params.held,
        tuple(stage.value for stage in params.stage),
        tuple(f"credits_{kind}" for kind in params.credit_type),
    )


def period_before(selection: Selection, now: datetime, zone: ZoneInfo) -> Selection | None:
    """The same selection over the equally long period before; `None` where the period has no beginning.

    It is as long on the clock of `zone`: whole days are compared with whole days, across a change of clocks as well. Of
    a period that is not over, as much as has passed of this one, to the hour: half a day compared with a whole one
    would always look like a fall.
    """
    if selection.start is None:
        return None
    hour = hour_of(now) + HOUR
    end = hour if selection.end is None else selection.end
    length = _local(end, zone) - _local(selection.start, zone)
    first, last = (_utc(_local(time, zone) - length, zone) for time in (selection.start, min(end, hour)))
    if length <= timedelta() or first >= last:  # an hour that is there twice, or not at all
        length = end - selection.start
        first, last = selection.start - length, min(end, hour) - length
    return replace(selection, start=first, end=last)


def compared_with(selection: Selection, compare: str | None, now: datetime, zone: ZoneInfo) -> Selection | None:
    """The same selection over what it is compared with: the period before (`previous`), or a window `FROM..TO`; `None`
    where that is nothing, as the period before one that has no beginning.

    Raises BadParameter: if `compare` is neither.
    """
    if compare is None:
        return None
    if compare == PREVIOUS:
        return period_before(selection, now, zone)
    first, _, last = compare.partition("..")
    try:
        window = window_in(zone, parse_time(first), parse_time(last))
    except ValueError:
        raise BadParameter(
            "compare", compare, "previous, or FROM..TO such as 2026-10-01..2026-11-01, TO after FROM"
        ) from None
    return replace(selection, start=window.start, end=window.end)


def _local(time: datetime, zone: ZoneInfo) -> datetime:
    return time.astimezone(zone).replace(tzinfo=None)


def _utc(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)


def bounds_of(ledger: Ledger, selection: Selection) -> tuple[datetime, datetime] | None:
    """Times that contain every event of a selection: its window, or what the ledger holds; `None`: no events."""
    if selection.start is not None and selection.end is not None:
        return selection.start, selection.end
    found = ledger.read_rows(extent(selection))[0]
    if found["first"] is None:
        return None
    return found["first"], found["last"] + timedelta(microseconds=1)
