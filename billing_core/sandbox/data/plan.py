"""What the generator intends: a trace, its rows as they will be served, and what a correct reader must find."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.sandbox.data.catalog import Model

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Oddity(StrEnum):
    """What is strange about a trace; every kind is something Langfuse really serves (reference, sections 1 and 2)."""

    PLAIN = "plain"
    DUPLICATE = "duplicate"  # an older version of a row, with the same start
    MOVED_DUPLICATE = "moved_duplicate"  # an older version with another start: usually on another page
    FAR_APART = "far_apart"  # hours or days between the rows
    ACROSS_MIDNIGHT = "across_midnight"  # rows on both sides of a UTC day's edge
    COST_WITHOUT_TOTAL = "cost_without_total"
    UNPRICED = "unpriced"
    NUMERIC_CUSTOMER = "numeric_customer"
    LONG_NAME = "long_name"  # a metadata value beyond 200 characters
    NESTED_METADATA = "nested_metadata"
    SYNTHETIC_ROOT = "synthetic_root"
    EMPTY_TRACE = "empty_trace"  # nothing but a synthetic root
    EVALUATOR = "evaluator"
    EXPERIMENT = "experiment"
    NEGATIVE_USAGE = "negative_usage"
    ABSURD_USAGE = "absurd_usage"
    BAD_STORAGE = "bad_storage"
    TOTAL_ONLY = "total_only"
    LEGACY_DOTTED = "legacy_dotted"  # billed by the earlier system, recorded under dotted keys
    LEGACY_NESTED = "legacy_nested"  # the same as one object, too long to arrive uncut
    LEGACY_ERROR = "legacy_error"
    CONFLICTING_USERS = "conflicting_users"
    DOUBLE_COUNT = "double_count"  # a parent repeats its children's usage
    LATE = "late"  # a row that is written minutes to hours after it started
    UNFINISHED = "unfinished"  # a row without an end
    APP_ROOT = "app_root"  # the logical root hangs under a span of another system
    NO_ORGANIZATION = "no_organization"


@dataclass(slots=True)
class ObservationData:
    """One observation as served. Times are milliseconds since 1970, costs USD × 10⁻¹²."""

    id: str
    parent: str | None
    type: str
    name: str
    start: int
    end: int | None
    written: int
    """Server write time of this version; the row is invisible before."""
    carries: bool
    """Whether the row has its own copy of the trace's attributes."""
    model: Model | None = None
    first_token: int | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)
    is_root: bool = False
    user: str | None = None
    """The row's own user where it differs from the trace's."""
    level: str = "DEFAULT"
    status: str = ""
    """The status message: why it failed."""
    version: int = 0
    """0 is the version that counts; others are leftovers."""


@dataclass(slots=True)
class TracePlan:
    """One trace: attributes, rows, and the running sums a correct reader must arrive at.

    `tokens_in`, `tokens_out`, `tokens_other` and `cost` are added up where usage is invented, not read back from
    the rows.
    """

    trace_id: str
    rows: list[ObservationData]
    organization: str | None
    customer: str | None
    user: str | None
    session: str | None
    chatflow_id: str | None
    chatflow_name: str | None
    name: str
    environment: str
    metadata: dict[str, Any]
    user_in_metadata: bool = False
    ownership: str | None = None
    storage_gb: str | None = None
    oddity: Oddity = Oddity.PLAIN
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_other: int | None = None
    cost: int | None = None
    flags: frozenset[str] = frozenset()
    legacy_status: str | None = None
    legacy_error: str | None = None
    legacy_credits: tuple[str, str, str, str] | None = None
    """AI tokens, compute, storage, total as the earlier system recorded them."""


@dataclass(frozen=True, slots=True)
class ExpectedEvent:
    """What a correct reader finds for one trace once all its rows have arrived. `None` means unknown.

    `observations` counts neither synthetic roots nor leftover versions; `rows` counts every row served.
    `flags` is the subset of `unpriced`, `bad_usage`, `conflicting_attributes` and `double_count_suspect`. A conflict
    of attributes cannot be seen through the v3 API, whose traces have one record and whose observations have none.
    `has_error` is unknown where there is nothing but a synthetic root.
    """

    id: str
    oddity: Oddity
    timestamp: datetime
    ended_at: datetime
    complete_at: datetime
    organization_id: str | None
    customer_id: str | None
    user_id: str | None
    session_id: str | None
    chatflow_id: str | None
    chatflow_name: str | None
    environment: str
    ai_credentials_ownership: str | None
    models: tuple[str, ...]
    tokens_in: int | None
    tokens_out: int | None
    tokens_total: int | None
    cost_usd: Decimal | None
    storage_gb: Decimal | None
    observations: int
    has_error: bool | None
    rows: int
    flags: frozenset[str]
    legacy_status: str | None
    legacy_error: str | None
    legacy_credits: tuple[Decimal, Decimal, Decimal, Decimal] | None


def moment(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as an aware UTC time, exactly."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def truth_of(plan: TracePlan) -> ExpectedEvent:
    """The published form of the plan's intent."""
    counted = [row for row in plan.rows if row.version == 0]
    real = [row for row in counted if not row.id.startswith("t-")]
    parts = [part for part in (plan.tokens_in, plan.tokens_out, plan.tokens_other) if part is not None]
    return ExpectedEvent(
        id=plan.trace_id,
        oddity=plan.oddity,
        timestamp=moment(min(row.start for row in counted)),
        ended_at=moment(max(row.start if row.end is None else row.end for row in counted)),
        complete_at=moment(max(row.written for row in plan.rows)),
        organization_id=plan.organization,
        customer_id=plan.customer,
        user_id=plan.user,
        session_id=plan.session,
        chatflow_id=plan.chatflow_id,
        chatflow_name=plan.chatflow_name or plan.name,
        environment=plan.environment,
        ai_credentials_ownership=plan.ownership,
        models=tuple(sorted({row.model.name for row in counted if row.model is not None})),
        tokens_in=plan.tokens_in,
        tokens_out=plan.tokens_out,
        tokens_total=sum(parts) if parts else None,
        cost_usd=None if plan.cost is None else Decimal(plan.cost).scaleb(-12),
        storage_gb=None if plan.storage_gb is None else Decimal(plan.storage_gb),
        observations=len(real),
        has_error=any(row.level == "ERROR" for row in real) if real else None,
        rows=len(plan.rows),
        flags=plan.flags,
        legacy_status=plan.legacy_status,
        legacy_error=plan.legacy_error,
        legacy_credits=None if plan.legacy_credits is None else tuple(map(Decimal, plan.legacy_credits)),  # type: ignore[arg-type]
    )
