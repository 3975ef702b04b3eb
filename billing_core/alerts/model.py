"""Alerts: what a rule watches (`Terms`), a rule as kept (`Rule`), what it found (`Found`), and what was told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeVar

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter
from billing_core.types import plain_decimal, utc_text
from billing_core.usage_events.explore_model import Dimension

MOST_DAYS = 92
"""Of a rolling window."""

MOST_HOURS = 35 * 24
"""Stripe accepts no usage that is older."""

LARGEST_LIMIT = Decimal(10) ** 12
LONGEST_NAME = 80
LONGEST_SUBJECT = 300
LONGEST_REASON = 300


class Kind(StrEnum):
    """What a rule watches."""

    THRESHOLD = "threshold"
    UNUSUAL = "unusual"
    FAILURE = "failure"
    UNSENT = "unsent"
    DEADLINE = "deadline"
    SUMMARY = "summary"


OF_USAGE = frozenset({Kind.THRESHOLD, Kind.UNUSUAL, Kind.SUMMARY})
"""Kinds that can be limited to organizations; the others are about the whole ledger."""

WATCHED = (Dimension.ORGANIZATION, Dimension.CUSTOMER, Dimension.USER, Dimension.CHATFLOW, Dimension.MODEL)
"""Whose usage a rule can watch."""


class Measure(StrEnum):
    """What a threshold is in."""

    AMOUNT_USD = "amount_usd"
    CREDITS = "credits"


class Process(StrEnum):
    """Work that can fail."""

    PULL = "pull"
    PUSH = "push"
    RECONCILE = "reconcile"
    CLOSE = "close"


_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule watches. Parts that its kind does not need have their default.

    by, subject: Whose usage: one `subject`, or, if `None`, each one there is.
    measure, above, days: A threshold in US dollars or credits, passed within so many days of the reporting timezone,
        the last one included.
    hours: How long credits may stay unsent, or how long before a deadline to tell.
    processes: Whose failures count.
    organizations: Whose events count; `None`: everybody's. It follows from the account that made the rule.
    """

    kind: Kind
    by: Dimension = Dimension.ORGANIZATION
    subject: str | None = None
    measure: Measure = Measure.AMOUNT_USD
    above: Decimal | None = None
    days: int = 1
    hours: int = 24
    processes: tuple[Process, ...] = tuple(Process)
    organizations: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Terms:
        """Terms from outside input: `kind`, `by`, `subject`, `measure`, `above`, `days`, `hours`, `process` (a list).

        Raises BadParameter: naming the first wrong one and what is accepted.
        """
        given = {name: value for name, value in values.items() if value not in (None, "", (), [])}
        kind = _word("kind", given.get("kind"), Kind)
        by = _word("by", given.get("by", Dimension.ORGANIZATION), Dimension)
        if by not in WATCHED or (kind is Kind.SUMMARY and by is not Dimension.ORGANIZATION):
            offered = WATCHED if kind is not Kind.SUMMARY else (Dimension.ORGANIZATION,)
            raise BadParameter("by", str(by), f"one of {', '.join(offered)}")
        subject = given.get("subject")
        if subject is not None:
            subject = str(subject).strip()
            if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
                raise BadParameter("subject", subject[:40], f"the id of one {by}, or nothing for each of them")
        return cls(
            kind,
            by,
            subject if kind in OF_USAGE else None,
            _word("measure", given.get("measure", Measure.AMOUNT_USD), Measure),
            _limit(given.get("above")) if kind is Kind.THRESHOLD else None,
            _whole("days", given.get("days", 1), MOST_DAYS),
            _whole("hours", given.get("hours", 24), MOST_HOURS),
            tuple(dict.fromkeys(_word("process", one, Process) for one in given.get("process", tuple(Process)))),
        )

    def of(self, principal: Principal) -> Terms:
        """These terms as a rule of somebody: it counts what they may see.

        Raises AccessDenied: if they watch the whole ledger, or somebody else's organization, without the right to.
        """
        principal.require(Role.ADMIN, Role.FINANCE)
        if self.kind not in OF_USAGE:
            principal.require_everything("this kind of rule watches the whole ledger")
        if self.by is Dimension.ORGANIZATION and self.subject is not None:
            principal.require_organization(self.subject)
        found = principal.organizations
        return replace(self, organizations=None if found is None else tuple(sorted(one for one in found if one)))

    def to_json(self) -> dict[str, Any]:
        """The terms as kept and published: those its kind has; exact numbers as text."""
        by = {"by": self.by.value, "subject": self.subject}
        own: dict[Kind, dict[str, Any]] = {
            Kind.THRESHOLD: {
                **by,
                "measure": self.measure.value,
                "above": None if self.above is None else plain_decimal(self.above),
                "days": self.days,
            },
            Kind.UNUSUAL: by,
            Kind.SUMMARY: by,
            Kind.FAILURE: {"process": [one.value for one in self.processes]},
            Kind.UNSENT: {"hours": self.hours},
            Kind.DEADLINE: {"hours": self.hours},
        }
        organizations = None if self.organizations is None else list(self.organizations)
        return {"kind": self.kind.value, **own[self.kind], "organizations": organizations}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Terms:
        """The terms that `to_json` made a document of."""
        organizations = document.get("organizations")
        return replace(cls.parse(document), organizations=None if organizations is None else tuple(organizations))


def _word(parameter: str, value: Any, words: type[_Word]) -> _Word:
    text = str(value or "").strip().lower().replace("-", "_")
    try:
        return words(text)
    except ValueError:
        raise BadParameter(parameter, value, f"one of {', '.join(words)}") from None


def _limit(value: Any) -> Decimal:
    try:
        limit = Decimal(str(value).strip())
    except InvalidOperation:
        limit = Decimal("NaN")
    if not limit.is_finite() or not 0 <= limit <= LARGEST_LIMIT:
        raise BadParameter("above", value, "an amount from 0, such as 100 or 99.50")
    return limit


def _whole(parameter: str, value: Any, most: int) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise BadParameter(parameter, value, f"a whole number from 1 to {most:,}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Mute:
    """Until when a rule tells nobody anything, who said so, and why."""

    until: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as kept. `revision` grows when its terms change: what it found before does not hold the new one back."""

    id: str
    revision: int
    name: str
    terms: Terms
    created_at: datetime
    created_by: str
    changed_at: datetime
    changed_by: str
    mute: Mute | None = None

    def is_muted(self, now: datetime) -> bool:
        """Whether the rule tells nobody anything now."""
        return self.mute is not None and now < self.mute.until

    def to_json(self, now: datetime) -> dict[str, Any]:
        """The rule as the command `alerts list` prints it."""
        muted = self.mute if self.is_muted(now) else None
        return {
            "id": self.id,
            "name": self.name,
            **self.terms.to_json(),
            "created_at": utc_text(self.created_at),
            "created_by": self.created_by,
            "changed_at": utc_text(self.changed_at),
            "changed_by": self.changed_by,
            "muted_until": None if muted is None else utc_text(muted.until),
            "muted_by": None if muted is None else muted.by,
            "mute_reason": None if muted is None else muted.reason,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """Something a rule found and people are to be told once.

    subject: Who or what it is about; `None`: the ledger.
    start, end: The window it was found in, half open, aware UTC. With `occasion` it makes out what "once" means: of one
        rule, subject and occasion, windows that are told of never overlap.
    value: What was measured, in the rule's measure; sorts, largest first.
    page, query: The view of the dashboard that shows it.
    """

    subject: str | None
    start: datetime
    end: datetime
    title: str
    text: str
    page: str
    query: Mapping[str, Any] = field(default_factory=dict)
    value: Decimal | None = None
    occasion: str = ""
    html: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is kept of it beside the columns of a firing."""
        return {
            "title": self.title,
            "text": self.text,
            "page": self.page,
            "query": dict(self.query),
            "value": None if self.value is None else plain_decimal(self.value),
            "html": self.html,
            "facts": dict(self.facts),
        }
