"""State of the Stripe Sync page between two runs of its script."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Pipeline, Problem
from components.shared.session import read_each_minute


@dataclass(frozen=True, slots=True)
class PipelineView:
    """The pipeline and its problems, as read for one reader at one state of the ledger."""

    pipeline: Pipeline
    problems: tuple[Problem, ...]


def read_pipeline(service: BillingService, principal: Principal) -> PipelineView:
    """The pipeline and its problems, from a cache of one minute while the ledger is unchanged.

    Raises AccessDenied: for people who may not see every organization.
    """
    stripe = service.stripe
    return read_each_minute(
        "sync.reading",
        service,
        principal,
        lambda: PipelineView(stripe.pipeline(principal), tuple(stripe.problems(principal))),
    )
