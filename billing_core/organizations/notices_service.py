"""Notices of reached limits: raised, delivered, shown, marked as seen. Part of `LimitsService`.

An admin limited to organizations gets what follows from those organizations' use now, and nothing of the journal: when
a notice was raised, or who saw it, would tell of others that share the customer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from billing_core.access import Principal, Role, Scope, scope_of, system_principal
from billing_core.errors import BillingError
from billing_core.ledger.directory import DirectoryStore, names_in
from billing_core.ledger.journal import Ledger
from billing_core.ledger.notices import Notice, NoticeStore, Reached
from billing_core.notify.delivery import Delivered, Message
from billing_core.notify.outbox import Outbox
from billing_core.notify.state import GIVE_UP_AFTER, Delivery, delivery_to_all
from billing_core.organizations.limits import Limit
from billing_core.organizations.limits_csv import notices_csv
from billing_core.organizations.notice_message import message_of
from billing_core.organizations.notices import facts_of, passed
from billing_core.runtime.clock import Clock
from billing_core.runtime.faults import text_for_page
from billing_core.settings import Settings, page_link
from billing_core.types import utc_text

_log = logging.getLogger(__name__)

LIMITS_VIEW = {"view": "Plans and limits"}

SHOWN_SEEN = 100
"""Notices marked as seen that are listed, the newest."""


@dataclass(frozen=True, slots=True)
class RaisedNotice:
    """A stored notice with the state of its delivery."""

    notice: Notice
    delivery: Delivery

    def to_json(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The notice as the command `notices` prints it; `names` as in the directory."""
        notice, last = self.notice, self.delivery.last
        return {
            "id": notice.id,
            **facts_of(notice, names.get(notice.organization_id or "")),
            "raised_at": utc_text(notice.raised_at),
            "delivery": {
                "state": self.delivery.state.value,
                "tries": self.delivery.tries,
                "last_at": None if last is None else utc_text(last.at),
                "status": None if last is None else last.status,
                "error": None if last is None else last.error,
                "next_at": None if self.delivery.next_at is None else utc_text(self.delivery.next_at),
            },
        }


@dataclass(frozen=True, slots=True)
class DueNotices:
    """The notices to show an admin: those nobody has seen, and the latest seen ones.

    `open` and `seen` come from the journal, newest period first, for whoever sees every organization; `reached` is
    what stands in their place for the others: thresholds that their own organizations' use has reached by now.
    `problem` says why the last look of this process failed.
    """

    open: tuple[RaisedNotice, ...] = ()
    seen: tuple[RaisedNotice, ...] = ()
    reached: tuple[Reached, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class NoticeRun:
    """The result of checking limits once: notices raised, and what became of those to be delivered."""

    raised: int = 0
    delivery: Delivered = field(default_factory=Delivered)


class NoticeService:
    """What admins can do with notices of reached limits, for one principal per call. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        limits: Callable[[Scope], list[Limit]],
        clock: Clock,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._outbox = Outbox(settings, ledger.engine, clock, pause=pause)
        self._books = NoticeStore(ledger.engine)
        self._directory = DirectoryStore(ledger.engine)
        self._problem: str | None = None

    def due_notices(self, principal: Principal) -> DueNotices:
        """The notices to show an admin; see `DueNotices`."""
        principal.require(Role.ADMIN)
        if principal.organizations is not None:
            return DueNotices(reached=tuple(passed(self._limits(scope_of(principal)), self._settings.limit_thresholds)))
        seen = self._books.seen(SHOWN_SEEN)
        return DueNotices(self._with_delivery(self._books.open()), self._with_delivery(seen), problem=self._problem)

    def csv(self, principal: Principal) -> Iterator[bytes]:
        """Every notice as CSV, all seen ones included, for whoever may see notices."""
        board = self.due_notices(principal)
        seen = () if principal.organizations is not None else self._with_delivery(self._books.seen())
        raised = [(one.notice, one.delivery) for one in (*board.open, *seen)]
        return notices_csv([*raised, *((one, None) for one in board.reached)], self._names())

    def mark_seen(self, principal: Principal, ids: Sequence[str]) -> int:
        """Mark notices as seen in the principal's name; returns how many nobody had marked yet. Audited.

        Raises AccessDenied: unless the principal is an admin who sees every organization: the mark is everybody's.
        """
        principal.require(Role.ADMIN)
        principal.require_everything("notices are marked for everybody")
        return self._books.mark_seen(ids, actor=principal.name, now=self._clock())

    def check_limits(self, actor: str) -> NoticeRun:
        """Check limits: raise the notices that are due and deliver those that wait, in the name of `actor`.

        Raises WarehouseError: if the ledger could not be read or written. What the webhook answers is no error: it is
        logged and kept.
        """
        due = passed(self._limits(scope_of(system_principal(actor))), self._settings.limit_thresholds)
        raised = self._books.raise_new(due, actor=actor, now=self._clock())
        return NoticeRun(len(raised), self._outbox.deliver(self._waiting))

    def check_limits_quietly(self, actor: str) -> NoticeRun:
        """Check limits on the occasion of other work, which must not fail with it: errors are logged and shown."""
        try:
            looked = self.check_limits(actor)
        except BillingError as error:
            self._problem = str(error)
            _log.warning("notices: %s", error)
        except Exception as error:  # noqa: BLE001 - a pull that booked everything has not failed
            self._problem = text_for_page(error, "notices")
        else:
            self._problem = None
            return looked
        return NoticeRun()

    def _waiting(self, key: str | None) -> list[Message]:
        """What still waits for a receiver; an address that is new does not get what is older than a day."""
        notices = self._books.undelivered(key)
        if key is not None and notices:
            tries = self._outbox.log.tries([one.id for one in notices])
            notices = [
                one
                for one in notices
                if self._clock() - one.raised_at < GIVE_UP_AFTER
                or any(made.address == key for made in tries.get(one.id, ()))
            ]
        names, link = self._names() if notices else {}, page_link(self._settings, "organization_stats", LIMITS_VIEW)
        return [message_of(one, names.get(one.organization_id or ""), link) for one in notices]

    def _names(self) -> dict[str, str]:
        return names_in(self._directory.newest())

    def _with_delivery(self, notices: Sequence[Notice]) -> tuple[RaisedNotice, ...]:
        tries = self._outbox.log.tries([notice.id for notice in notices])
        keys = [receiver.key for receiver in self._outbox.receivers]
        now = self._clock()
        return tuple(
            RaisedNotice(
                notice,
                delivery_to_all(
                    notice.raised_at,
                    tries.get(notice.id, ()),
                    [key for key in keys if key is None or now - notice.raised_at < GIVE_UP_AFTER],
                ),
            )
            for notice in notices
        )
