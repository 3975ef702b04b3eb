"""State of the Stripe Sync page between two runs of its script."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Pipeline, Problem

READING = "sync.reading"
"""Session state: the last look at the pipeline."""


@dataclass(frozen=True, slots=True)
class PipelineView:
    """The pipeline and its problems, as read for one reader at one state of the ledger."""

    reader: Principal
    version: int
    minute: datetime
    pipeline: Pipeline
    problems: tuple[Problem, ...]


def pipeline_reading(service: BillingService, principal: Principal, now: datetime) -> PipelineView:
    """The pipeline and its problems, from a cache of one minute while the ledger is unchanged.

    Looking goes over every event: a click elsewhere on the page must not wait for that. Minutes pass because events
    settle with time.

    Raises
    ------
    AccessDenied
        For people who may not see every organization.
    """
    version, minute = service.version(), now.replace(second=0, microsecond=0)
    kept: PipelineView | None = st.session_state.get(READING)
    if kept is not None and (kept.reader, kept.version, kept.minute) == (principal, version, minute):
        return kept
    stripe = service.stripe
    view = PipelineView(principal, version, minute, stripe.pipeline(principal), tuple(stripe.problems(principal)))
    st.session_state[READING] = view
    return view
