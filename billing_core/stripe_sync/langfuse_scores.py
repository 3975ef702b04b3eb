"""Writes the billing status of events back to Langfuse as scores on their traces. Off unless switched on. Off unless
asked for.

The ledger stays the truth: a score says in Langfuse what the ledger said when a push ended, and nothing reads it
again. So this never fails a push and never holds it up for long; what a run does not manage, a later one does.

A status is written when it differs from the one written last for that event, and remembered as soon as Langfuse has
answered. Killed in between, it is written again under the same id, which overwrites. A new reason for an error, or
a new meter event, under an unchanged status is not written. Servers up to v4.16 ignore the score's timestamp: there
a status that changes on another day stands beside the former one, the newest of them counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from billing_core.errors import BillingError
from billing_core.langfuse.scores import SCORE_NAME, ScoreWriter, StatusScore
from billing_core.ledger.engine import Engine
from billing_core.ledger.write_backs import ShownStatus, remember_shown, unshown_statuses
from billing_core.settings import Settings

MOST_EVENTS = 500
"""Events per run, oldest first: one request each on servers that take no lists."""


@dataclass(frozen=True, slots=True)
class WriteBack:
    """The result of writing statuses back, in events. `rejected` by Langfuse are not offered again before their status
    changes.

    `problem` is one line: why the run ended early, or what Langfuse says about the rejected ones.
    """

    written: int = 0
    rejected: int = 0
    problem: str | None = None


def write_back(engine: Engine, settings: Settings, *, now: datetime) -> WriteBack:
    """Write the statuses that Langfuse does not show yet; nothing if this is switched off or there are no Langfuse
    keys.

    Never raises a `BillingError`: it becomes the `problem`.
    """
    public_key, secret_key = settings.langfuse_public_key, settings.langfuse_secret_key
    if not settings.write_back or public_key is None or secret_key is None:
        return WriteBack()
    written = rejected = 0
    problem = None
    secrets = [key for key in (secret_key, settings.stripe_api_key) if key is not None]
    try:
        scores = [_score(status, secrets) for status in unshown_statuses(engine, MOST_EVENTS)]
        if not scores:
            return WriteBack()
        with ScoreWriter(settings.langfuse_host, public_key, secret_key) as writer:
            for answered in writer.write(scores):
                remember_shown(engine, {score.trace_id: score.status for score in answered.scores}, at=now)
                written += len(answered.scores) - answered.rejected
                rejected += answered.rejected
                if answered.rejected:
                    problem = f"Langfuse rejected {rejected} {SCORE_NAME} scores: {answered.reason}"
    except BillingError as error:
        problem = str(error)
    return WriteBack(written, rejected, problem)


def _score(status: ShownStatus, secrets: Iterable[SecretStr]) -> StatusScore:
    return StatusScore(
        project_id=status.project_id,
        trace_id=status.event_id,
        status=status.status,
        timestamp=status.timestamp,
        comment=_comment(status, secrets),
        environment=status.environment,
    )


def _comment(status: ShownStatus, secrets: Iterable[SecretStr]) -> str | None:
    """Where to look further: the meter event, or what went wrong."""
    if status.status != "error":
        return status.meter_event_identifier or ("billed by the earlier system" if status.is_legacy else None)
    text = status.sync_error
    for secret in secrets:  # whoever wrote the reason down should have seen to it; this leaves the house
        text = text and text.replace(secret.get_secret_value(), "***")
    return text
