"""What people can do with alerts: rules, who they tell, history; `check` looks and tells. Part of `BillingService`.

Finance and admins see and change rules. An account limited to organizations makes rules that count their usage alone,
and sees those whose organizations it may all see. Where messages go is the environment's matter.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing_core.access import Principal, Role, system_principal
from billing_core.alerts.model import LONGEST_NAME, LONGEST_REASON, MOST_DAYS, Found, Kind, Mute, Rule, Terms
from billing_core.alerts.rules import in_words, iso_week_before, untold
from billing_core.alerts.watch import Watcher
from billing_core.errors import BadParameter, BillingError, NotFound, WarehouseError
from billing_core.ledger.alerts import AlertStore, FiringRow, RuleRow, ToldBefore
from billing_core.ledger.journal import Ledger
from billing_core.notify.delivery import Delivered, Message, Receiver
from billing_core.notify.outbox import Outbox
from billing_core.notify.state import GIVE_UP_AFTER, Delivery, deliveries_of, delivery_to_all
from billing_core.runtime.clock import Clock
from billing_core.runtime.faults import text_for_page
from billing_core.settings import Settings, page_link
from billing_core.types import utc_text

_log = logging.getLogger(__name__)

MOST_RULES = 200

MOST_AT_ONCE = 20
"""Alerts of one rule that a check tells one by one; the others are summed up in one message."""

LISTED = 50
"""Subjects named in such a message."""

LONGEST_MUTE = timedelta(days=366)

TOLD_SINCE = timedelta(days=366 + MOST_DAYS + 1)
"""Firings whose windows ended earlier overlap none that is looked at: pulls look back a year at most."""


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule as people see it, with how often and when last it told something."""

    rule: Rule
    firings: int
    last_fired_at: datetime | None

    def to_json(self, now: datetime) -> dict[str, Any]:
        """The rule as the command `alerts list` prints it."""
        last = None if self.last_fired_at is None else utc_text(self.last_fired_at)
        words = in_words(self.rule.terms)
        return {**self.rule.to_json(now), "watches": words, "firings": self.firings, "last_fired_at": last}


@dataclass(frozen=True, slots=True)
class Firing:
    """Something a rule told: what, when, and how far it got to each receiver.

    deliveries: Receiver's label (`None`: the signed webhook; a receiver that is no longer set has none of ours) → its
        delivery.
    """

    id: str
    rule_id: str
    rule_name: str
    kind: Kind
    subject: str | None
    start: datetime
    end: datetime
    fired_at: datetime
    title: str
    text: str
    page: str
    query: Mapping[str, Any]
    link: str | None
    value: str | None
    delivery: Delivery
    deliveries: tuple[tuple[str, Delivery], ...]

    def to_json(self) -> dict[str, Any]:
        """The firing as the commands print it."""
        return {
            "id": self.id,
            "rule": self.rule_id,
            "rule_name": self.rule_name,
            "kind": self.kind.value,
            "subject": self.subject,
            "window": {"from": utc_text(self.start), "to": utc_text(self.end)},
            "fired_at": utc_text(self.fired_at),
            "title": self.title,
            "text": self.text,
            "value": self.value,
            "link": self.link,
            "delivery": {
                "state": self.delivery.state.value,
                "tries": self.delivery.tries,
                "addresses": [
                    {
                        "address": label,
                        "state": one.state.value,
                        "tries": one.tries,
                        "error": None if one.last is None else one.last.error,
                        "next_at": None if one.next_at is None else utc_text(one.next_at),
                    }
                    for label, one in self.deliveries
                ],
            },
        }


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one look at all rules: what was told anew, what arrived, and what could not be looked at."""

    fired: tuple[str, ...] = ()
    delivery: Delivered = field(default_factory=Delivered)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rule would tell at once, before it is saved: so many of so many subjects, and the first of them."""

    now: int
    subjects: int
    titles: tuple[str, ...]

    @property
    def is_too_much(self) -> bool:
        """Whether it would tell more at once than anybody reads."""
        return self.now > MOST_AT_ONCE


RECOMMENDED: Mapping[str, Terms] = {
    "Failed work": Terms(Kind.FAILURE),
    "Stuck credits": Terms(Kind.UNSENT, hours=24),
    "Deadlines at Stripe": Terms(Kind.DEADLINE, hours=72),
    "Unusual usage": Terms(Kind.UNUSUAL),
}
"""Name → terms of the rules that every ledger needs."""

WEBHOOK_LABEL = "signed webhook"
FORMER_LABEL = "an address that is no longer set"


class AlertService:
    """Rules, firings and their delivery, for one principal per call. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        watcher: Watcher,
        clock: Clock,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._ledger, self._watcher, self._clock = settings, ledger, watcher, clock
        self._store = AlertStore(ledger.engine)
        self._outbox = Outbox(settings, ledger.engine, clock, pause=pause)

    # ── rules ────────────────────────────────────────────────────────────────────────────────────

    def rules(self, principal: Principal) -> list[ListedRule]:
        """The rules that a person may see, oldest first."""
        _require(principal)
        counts = self._store.counts()
        found = [rule for rule in map(_rule, self._store.rules()) if _sees(principal, rule.terms)]
        return [ListedRule(rule, *counts.get(rule.id, (0, None))) for rule in found]

    def rule(self, principal: Principal, rule_id: str) -> Rule:
        """One rule.

        Raises NotFound: if there is none, or the principal may not see it.
        """
        found = next((one.rule for one in self.rules(principal) if one.rule.id == rule_id), None)
        if found is None:
            raise NotFound(f"alert rule {rule_id!r} is not there; `alerts list` names those that are")
        return found

    def preview(self, principal: Principal, terms: Terms) -> Preview:
        """What a rule with these terms would tell at once.

        Raises AccessDenied: if the principal may not make such a rule.
        """
        own = terms.of(principal)
        now = self._clock()
        rule = Rule("preview", 1, "", own, now, principal.name, now, principal.name)
        found = untold(self._watcher.find(rule), ())
        return Preview(len(found), self._watcher.subjects(own), tuple(one.title for one in found[:MOST_AT_ONCE]))

    def add(self, principal: Principal, name: str, terms: Terms, *, anyway: bool = False) -> Rule:
        """Add a rule.

        Raises BadParameter: for a name that is not accepted; or, unless `anyway`, if it would tell more than 20 things
            at once. AccessDenied: if the principal may not make such a rule.
        """
        own, name = terms.of(principal), _name(name)
        if not anyway:
            self._refuse_too_much(principal, terms)
        now, who = self._clock(), principal.name
        rule = Rule(uuid.uuid4().hex[:12], 1, name, own, now, who, now, who)
        if not self._store.add(_row(rule), most=MOST_RULES):
            raise BadParameter("name", name, f"at most {MOST_RULES} rules; remove one first")
        return rule

    def add_recommended(self, principal: Principal) -> list[Rule]:
        """Add the rules that every ledger needs, those of `RECOMMENDED` whose terms no rule has yet.

        Raises AccessDenied: unless the principal is in finance or an admin, and sees everything.
        """
        _require(principal)
        principal.require_everything("these rules watch the whole ledger")
        known = [one.rule.terms for one in self.rules(principal)]
        return [self.add(principal, name, terms) for name, terms in RECOMMENDED.items() if terms not in known]

    def edit(self, principal: Principal, rule_id: str, name: str, terms: Terms, *, anyway: bool = False) -> Rule:
        """Change a rule. With other terms it starts anew: what it told before does not hold it back.

        Raises as `add`; NotFound: if there is no such rule, or somebody else changed it meanwhile.
        """
        known, own, name = self.rule(principal, rule_id), terms.of(principal), _name(name)
        own = replace(own, organizations=known.terms.organizations)  # whose usage counts stays
        is_same = own == known.terms
        if not anyway and not is_same:
            self._refuse_too_much(principal, terms)
        now = known.changed_at if is_same else self._clock()
        revision = known.revision + (not is_same)
        rule = replace(known, revision=revision, name=name, terms=own, changed_at=now, changed_by=principal.name)
        if not self._store.change(_row(rule), was=known.revision):
            raise NotFound(f"alert rule {rule_id!r} was changed or removed meanwhile; reload and try again")
        return rule

    def remove(self, principal: Principal, rule_id: str) -> Rule:
        """Remove a rule; its history stays.

        Raises NotFound: if there is none, or the principal may not see it.
        """
        rule = self.rule(principal, rule_id)
        self._store.remove(rule.id, actor=principal.name, now=self._clock())
        return rule

    def mute(self, principal: Principal, rule_id: str, until: datetime | None, reason: str = "") -> Rule:
        """Mute a rule until a moment, with a reason; `None`: let it tell again. What still holds then is told.

        Raises BadParameter: without a reason, or if the moment is past or more than a year away. NotFound: as `rule`.
        """
        rule, text, now = self.rule(principal, rule_id), " ".join(reason.split())[:LONGEST_REASON], self._clock()
        if until is not None:
            if until.tzinfo is None:
                until = until.replace(tzinfo=self._settings.zone)
            if not now < until <= now + LONGEST_MUTE:
                raise BadParameter("until", until.isoformat(), "a time within the next year")
            if not text:
                raise BadParameter("reason", reason, "a few words on why the rule is muted")
        self._store.mute(rule.id, until, reason=text or None, actor=principal.name)
        return replace(rule, mute=None if until is None else Mute(until, principal.name, text))

    def _refuse_too_much(self, principal: Principal, terms: Terms) -> None:
        preview = self.preview(principal, terms)
        if preview.is_too_much and terms.kind is not Kind.SUMMARY:
            raise BadParameter(
                "rule",
                in_words(terms),
                f"one that sends less at once: it would send {preview.now:,} alerts about {preview.subjects:,} "
                f"{terms.by}s now; raise its limit, or save it anyway",
            )

    # ── history ──────────────────────────────────────────────────────────────────────────────────

    def history(self, principal: Principal, *, rule_id: str | None = None, limit: int | None = 100) -> list[Firing]:
        """What rules told, newest first, removed rules included, as far as the principal may see them."""
        _require(principal)
        names = self._store.names()
        seen = [
            id_
            for id_, (_, content) in names.items()
            if rule_id in (None, id_) and _sees(principal, Terms.from_json(content))
        ]
        rows = self._store.firings(rule_ids=seen, limit=limit)
        tries = self._outbox.log.tries([row.id for row in rows])
        labels = {one.key: one.label or WEBHOOK_LABEL for one in self._outbox.receivers}
        found = []
        for row in rows:
            name, content = names[row.rule_id]
            made = tries.get(row.id, ())
            each = deliveries_of(row.fired_at, made, row.addresses)
            found.append(
                Firing(
                    row.id,
                    row.rule_id,
                    name,
                    Kind(content["kind"]),
                    row.subject,
                    row.window_start,
                    row.window_end,
                    row.fired_at,
                    row.content["title"],
                    row.content["text"],
                    row.content["page"],
                    row.content["query"],
                    page_link(self._settings, row.content["page"], row.content["query"]),
                    row.content.get("value"),
                    delivery_to_all(row.fired_at, made, row.addresses),
                    tuple((labels.get(key, FORMER_LABEL), one) for key, one in each.items()),
                )
            )
        return found

    # ── looking and telling ──────────────────────────────────────────────────────────────────────

    def check(self, principal: Principal) -> Check:
        """Look at every rule, write down what is to be told, and tell it. What one rule cannot read leaves the others.

        Raises AccessDenied: unless the principal sees everything. WarehouseError: if the ledger cannot be used.
        """
        _require(principal)
        principal.require_everything("a check looks at everybody's rules")
        fired, problems = list[str](), list[str]()
        for row in self._store.rules():
            rule = _rule(row)
            if rule.is_muted(self._clock()):
                continue
            try:
                fired += [one.id for one in self._claim(row, rule, principal.name)]
            except WarehouseError:
                raise
            except BillingError as error:
                problems.append(f"rule {rule.name} ({rule.id}): {error}")
        return Check(tuple(fired), self._outbox.deliver(self._waiting), tuple(problems))

    def check_quietly(self, actor: str) -> None:
        """Check on the occasion of a pull, which must not fail with it: errors are logged. Nothing without a receiver:
        what nobody would be told now is left to the next check.
        """
        if not self.receivers:
            return
        try:
            found = self.check(system_principal(actor))
        except BillingError as error:
            _log.warning("alerts: %s", error)
        except Exception as error:  # noqa: BLE001 - a pull that booked everything has not failed
            _log.warning("alerts: %s", text_for_page(error, "alerts"))
        else:
            for problem in found.problems:
                _log.warning("alerts: %s", problem)

    @property
    def receivers(self) -> tuple[str, ...]:
        """Where messages go, by label; empty if nothing is set."""
        return tuple(one.label or WEBHOOK_LABEL for one in self._outbox.receivers)

    def test(self, principal: Principal) -> list[tuple[str, str | None]]:
        """Send a test message to every receiver: its label, and what went wrong (`None`: it arrived). Audited.

        Raises AccessDenied: unless the principal is in finance or an admin, and sees everything.
        """
        _require(principal)
        principal.require_everything("a test message goes to everybody's addresses")
        now = self._clock()
        text = f"{principal.name} sent this to see whether alerts arrive. There is nothing to do."
        document = {"type": "alert.test", "timestamp": utc_text(now), "data": {"sent_by": principal.name}}
        message = Message(f"test_{uuid.uuid4().hex}", now, "test", "Test of billing alerts", text, document)

        def send(receiver: Receiver) -> tuple[str, str | None]:
            response = receiver.send(message, self._clock())
            return receiver.label or WEBHOOK_LABEL, None if response.is_delivered else response.text

        receivers = self._outbox.receivers
        with ThreadPoolExecutor(max(1, len(receivers)), thread_name_prefix="notify") as pool:
            found = list(pool.map(send, receivers))
        detail = {"receivers": len(found), "failed": sum(error is not None for _, error in found)}
        self._ledger.audit(principal.name, "alert_test", detail)
        return found

    def summary(self, principal: Principal, organization_id: str, monday: date | None = None) -> Found:
        """The weekly summary of an organization as it would be sent, of the ISO week that begins on `monday` (`None`:
        the last one that is over). Whoever is limited to organizations sees no cost and no margin.

        Raises NotFound: if the organization had no usage in that week. AccessDenied: if the principal may not see it.
        """
        _require(principal)
        principal.require_organization(organization_id)
        today = self._clock().astimezone(self._settings.zone).date()
        terms = Terms(Kind.SUMMARY, subject=organization_id).of(principal)
        return self._watcher.summary(terms, organization_id, iso_week_before(today) if monday is None else monday)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _claim(self, row: RuleRow, rule: Rule, actor: str) -> Sequence[FiringRow]:
        found = self._watcher.find(rule)
        if not found:
            return ()
        now = self._clock()
        addresses = tuple(one.key for one in self._outbox.receivers)

        def choose(told: ToldBefore) -> list[FiringRow]:
            chosen = untold(found, told)
            own = chosen if rule.terms.kind is Kind.SUMMARY else chosen[:MOST_AT_ONCE]
            rest = chosen[len(own) :]
            firings = [_firing(rule, one, now, actor, addresses) for one in own]
            firings += [_firing(rule, one, now, actor, (), is_covered=True) for one in rest]
            if rest:
                firings.append(_firing(rule, _summed_up(rule, rest, now), now, actor, addresses))
            return firings

        return self._store.claim(row, choose, since=now - TOLD_SINCE, actor=actor, now=now)

    def _waiting(self, key: str | None) -> list[Message]:
        rows = self._store.undelivered(key, since=self._clock() - 2 * GIVE_UP_AFTER)
        names = self._store.names() if rows else {}
        return [self._message(row, *names[row.rule_id]) for row in rows]

    def _message(self, row: FiringRow, rule_name: str, terms: Mapping[str, Any]) -> Message:
        content = row.content
        link = page_link(self._settings, content["page"], content["query"])
        is_summary = terms["kind"] == Kind.SUMMARY
        lines = [content["text"], *([] if is_summary else [f"Rule: {rule_name}"]), *([f"View: {link}"] if link else [])]
        data = {
            "rule": row.rule_id,
            "rule_name": rule_name,
            "kind": terms["kind"],
            "subject": row.subject,
            "window": {"from": utc_text(row.window_start), "to": utc_text(row.window_end)},
            "title": content["title"],
            "text": content["text"],
            "value": content.get("value"),
            "link": link,
            **content.get("facts", {}),
        }
        document = {"type": "alert.fired", "timestamp": utc_text(row.fired_at), "data": data}
        named = f"{rule_name}: {content['title']} ({row.id})"
        return Message(row.id, row.fired_at, named, content["title"], "\n".join(lines), document, content.get("html"))


def _require(principal: Principal) -> None:
    principal.require(Role.ADMIN, Role.FINANCE)


def _sees(principal: Principal, terms: Terms) -> bool:
    """Whether a principal may see a rule: all of whose usage it counts is theirs to see."""
    if principal.organizations is None:
        return True
    return terms.organizations is not None and set(terms.organizations) <= principal.organizations


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadParameter("name", name[:40], f"1 to {LONGEST_NAME} printable characters")
    return name


def _summed_up(rule: Rule, rest: Iterable[Found], now: datetime) -> Found:
    """One message for what is too much to tell one by one."""
    found = list(rest)
    listed = "\n".join(f"- {one.title}" for one in found[:LISTED])
    more = f"\nand {len(found) - LISTED:,} more" if len(found) > LISTED else ""
    moment = now.astimezone(UTC)
    return Found(
        None,
        moment,
        moment + timedelta(microseconds=1),
        f"{len(found):,} more of {rule.name}",
        f"The first {MOST_AT_ONCE} were sent one by one; these were found at the same time:\n{listed}{more}",
        "alerts",
        {"rule": rule.id},
        Decimal(len(found)),
        occasion="more",
    )


def _firing(
    rule: Rule, one: Found, now: datetime, actor: str, addresses: tuple[str | None, ...], *, is_covered: bool = False
) -> FiringRow:
    return FiringRow(
        rule.id,
        rule.revision,
        one.subject,
        one.occasion,
        one.start.astimezone(UTC),
        one.end.astimezone(UTC),
        now,
        actor,
        one.to_json(),
        addresses,
        is_covered,
    )


def _rule(row: RuleRow) -> Rule:
    mute = None
    if row.muted_until is not None:
        mute = Mute(row.muted_until, row.muted_by or "", row.mute_reason or "")
    terms = Terms.from_json(row.content)
    made = (row.created_at, row.created_by, row.changed_at, row.changed_by)
    return Rule(row.id, row.revision, row.name, terms, *made, mute)


def _row(rule: Rule) -> RuleRow:
    made = (rule.created_at, rule.created_by, rule.changed_at, rule.changed_by)
    return RuleRow(rule.id, rule.revision, rule.name, rule.terms.to_json(), *made)
