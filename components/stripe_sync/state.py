"""State of the Stripe Sync page between two runs of its script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Pipeline, Problem
from billing_core.types import GetUsageEventsParams, SyncStatus
from components.shared.session import read_each_minute


@dataclass(frozen=True, slots=True)
class PipelineView:
    """The pipeline and its problems, as read for one reader at one state of the ledger; `by_status` counts events."""

    pipeline: Pipeline
    problems: tuple[Problem, ...]
    by_status: Mapping[SyncStatus, int]


def read_pipeline(service: BillingService, principal: Principal) -> PipelineView:
    """The pipeline and its problems, from a cache of one minute while the ledger is unchanged.

    Raises AccessDenied: for people who may not see every organization.
    """
    stripe = service.stripe
    return read_each_minute(
        "sync.reading",
        service,
        principal,
        lambda: PipelineView(
            stripe.pipeline(principal), tuple(stripe.problems(principal)), _by_status(service, principal)
        ),
    )


def _by_status(service: BillingService, principal: Principal) -> Mapping[SyncStatus, int]:
    """How many events of the whole ledger have each sync status."""
    return {SyncStatus(name): events for name, events in service.facets(GetUsageEventsParams(), principal, "status")}
