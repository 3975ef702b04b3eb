"""Which of some events a decision (hold, release, retry) can be made about, and why not about the others. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing_core.ledger.holds import DECIDED_BY_PEOPLE
from billing_core.ledger.settlements import OpenEvent
from billing_core.stripe_sync.pipeline import Action
from billing_core.types import SyncStatus, plain_decimal


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """What a decision changed, or would change.

    skipped: Event → why it stays as it is; those of `done_before` are as wanted already.
    """

    action: Action
    is_dry_run: bool
    events: int
    credits: Decimal
    skipped: Mapping[str, str]
    done_before: frozenset[str]

    @property
    def has_failures(self) -> bool:
        """Whether something asked for could not be done, and is not so already."""
        return bool(self.skipped.keys() - self.done_before)

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `hold`, `release` and `retry`)."""
        return {
            "action": self.action.value,
            "dry_run": self.is_dry_run,
            "events": self.events,
            "credits": plain_decimal(self.credits),
            "skipped": [{"id": event_id, "reason": reason} for event_id, reason in sorted(self.skipped.items())],
        }


def undecidable(
    action: Action, asked: Sequence[str], chosen: Collection[str], events: Iterable[OpenEvent]
) -> tuple[dict[str, str], frozenset[str]]:
    """Why no decision is made about those of the `asked` events that are not `chosen`, and which of them need none."""
    known = {one.id: one for one in events}
    skipped, done = {}, set()
    for event_id in asked:
        if event_id in chosen:
            continue
        event = known.get(event_id)
        skipped[event_id], is_done = ("no event has this id", False) if event is None else _why(action, event)
        if is_done:
            done.add(event_id)
    return skipped, frozenset(done)


def _why(action: Action, event: OpenEvent) -> tuple[str, bool]:
    """Why nothing is decided about an event, and whether it is as wanted already."""
    status, is_kept_back = event.sync_status, event.cause in DECIDED_BY_PEOPLE
    match action:
        case Action.HOLD if is_kept_back:
            return "on hold already", True
        case Action.HOLD if event.cause is not None:
            return f"held back by a rule already ({event.cause})", True
        case Action.HOLD:
            return f"not waiting to be sent: it is {status}", False
        case Action.RELEASE if event.cause is not None:
            return f"held back by a rule ({event.cause}), which nobody can release", False
        case Action.RELEASE:
            return "not on hold", status == SyncStatus.PENDING
        case Action.RETRY if status == SyncStatus.PENDING and is_kept_back:
            return "on hold: release it", False
        case Action.RETRY if status == SyncStatus.PENDING:
            return "waiting to be sent already", True
        case Action.RETRY if status == SyncStatus.ERROR:
            return "it names no customer: map its organization to one", False
        case _:
            return f"nothing to retry: it is {status}", False
