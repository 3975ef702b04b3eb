"""The explanation of an event: every step from the trace to its credits, with the arithmetic written out.

Pure; the command `explain` and the detail drawer of the page show the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from billing_core.ledger.queries import split_flags
from billing_core.ledger.settlements import Settlement
from billing_core.rating.card import LEGACY_VERSION, Basis, ComputeBasis, RateCard
from billing_core.rating.rate import OWN_KEY, KeyPrice, effective_token_rate, is_left_out, price_of_key
from billing_core.types import Flag, SyncStatus, UsageEvent, plain_decimal, utc_text
from billing_core.values.counts import count_of
from billing_core.values.money import money, rounding_of
from billing_core.values.usage_frame import TOKEN_CLASSES

Intents = Sequence[Mapping[str, Any]]
"""The intents that ever covered an event, oldest first: ledger rows with `part`, this event's credits in each, and
`counted` and `counted_at`, what Stripe's sum for the hour was when it was last read."""

FLAG_MEANINGS: dict[Flag, str] = {
    Flag.OWN_KEY: "The customer brought the key: AI tokens cost 0 credits.",
    Flag.UNPRICED: "Some usage has no price: Langfuse reports no cost for it, or the rate card has no rate.",
    Flag.EXCLUDED_ENVIRONMENT: "The Langfuse environment is not customer traffic and is not billed.",
    Flag.NO_CUSTOMER: "The trace names no Stripe customer, its organization is not mapped and there is no default.",
    Flag.BAD_USAGE: "Some usage or time is negative, implausible or unreadable; that part is not rated.",
    Flag.CONFLICTING_ATTRIBUTES: (
        "Observations of the trace contradict each other; the logical root's values were used."
    ),
    Flag.DOUBLE_COUNT_SUSPECT: (
        "An observation seems to repeat the usage of those below it, or its usage keys overlap or contradict each "
        "other; the total may be inflated."
    ),
    Flag.LEGACY_BILLED: "The earlier system billed it; it is never sent again.",
    Flag.CARRIED: "Less than a whole credit so far: it waits for more usage.",
    Flag.CHANGED_AFTER_SENDING: "It changed after it was sent; the difference is sent as a separate correction.",
    Flag.NO_USAGE: "Nothing that costs credits was used: no tokens, no time, no storage.",
    Flag.MAPPED_CUSTOMER: "The trace names no Stripe customer: the one its organization is mapped to is billed.",
    Flag.SENT_ELSEWHERE: "Stripe's count for that time differs from what this ledger sent: it waits for a decision.",
    Flag.INCOMPLETE: "Part of the trace could not be read; the figures do not include it.",
    Flag.MISSING_AT_SOURCE: "Langfuse no longer has the trace (deleted, or past its retention); the ledger keeps it.",
    Flag.POLICY_DIFFERS: "The current settings would bill it differently from how it was sent; it stays as sent.",
    Flag.UNKNOWN_USAGE: (
        "Some usage has a key that neither this program nor the rate card knows: its token class is a guess."
    ),
    Flag.WRITTEN_OFF: "Credits that could not be metered were written off: they are not charged.",
    Flag.INVOICED_SEPARATELY: "Credits that could not be metered were put on an invoice as an item of their own.",
    Flag.LATE_AFTER_CLOSE: "It arrived after its month was closed and counts in the open month.",
}


@dataclass(frozen=True, slots=True)
class EventSettlement:
    """A settlement that an event is part of, with the event's `part` in credits; `is_whole`: whoever asks may see the
    rest of it too.
    """

    settlement: Settlement
    part: Decimal
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class ExplanationStep:
    """One step: a short name, what happened in a sentence, and the arithmetic or facts line by line."""

    name: str
    summary: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """The explanation of one usage event: the steps to its credits. `metadata` is the logical root's own."""

    event: UsageEvent
    steps: tuple[ExplanationStep, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `explain`)."""
        return {
            "event": self.event.model_dump(mode="json"),
            "steps": [{"name": s.name, "summary": s.summary, "lines": list(s.lines)} for s in self.steps],
            "metadata": self.metadata,
        }


def explain(
    event: UsageEvent,
    stored: Mapping[str, Any],
    revisions: Sequence[Mapping[str, Any]],
    card: RateCard | None,
    intents: Intents = (),
    closed: Sequence[tuple[str, Mapping[str, Any]]] = (),
    settlements: Sequence[EventSettlement] = (),
    *,
    with_costs: bool = True,
) -> EventExplanation:
    """The explanation of one stored event: a step per rate applied, its earlier states, closes and Stripe intents.

    stored: The event's ledger row (all stored columns).
    revisions: Its superseded rows, oldest first.
    card: The card it was rated with; `None` for credits the earlier system recorded.
    intents: The meter events it was, or is to be, sent with.
    closed: What closed months say of it: (month, frozen row), oldest close first.
    settlements: What of it was written off or invoiced separately, oldest first.
    with_costs: Whether what the models cost us, and our margin, are named. Without, a token's rate is what the customer
        pays, margin included.
    """
    steps = [
        _read(event, stored),
        _attributes(event),
        _usage(event, stored, with_costs),
        _card(event, stored, card, with_costs),
        _ai(event, stored, card, with_costs),
        _compute(event, stored, card),
        _storage(event, card),
        _total(event, stored),
        *_flags(event, stored),
        _history(stored, revisions, with_costs),
        *_closed(stored, closed),
        *_settlements(settlements, closed),
        _stripe(event, intents),
    ]
    return EventExplanation(event, tuple(steps), _metadata(stored.get("metadata")))


def _metadata(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {"unreadable": text}
    return value if isinstance(value, dict) else {"value": value}


def _read(event: UsageEvent, stored: Mapping[str, Any]) -> ExplanationStep:
    rows = stored["observations"]
    return ExplanationStep(
        "Read",
        f"Trace {event.id} of project {stored['project_id'] or 'unknown'}, {rows:,} observation{'s'[: rows != 1]}.",
        (
            f"first start {utc_text(event.timestamp)}",
            f"last end {utc_text(event.ended_at)}",
            f"latency = last end − first start = {plain_decimal(event.latency_seconds)} s",
            _ERRORS[stored["has_error"]],
        ),
    )


_ERRORS = {
    None: "errors: unknown, no level of an observation was read",
    True: "errors: at least one observation failed (level ERROR)",
    False: "errors: no observation failed",
}


def _attributes(event: UsageEvent) -> ExplanationStep:
    named = {
        "organization": event.organization_id,
        "customer": event.customer_id,
        "user": event.user_id,
        "session": event.session_id,
        "chatflow": event.chatflow_name or event.chatflow_id,
        "environment": event.environment,
        "AI credentials": event.ai_credentials_ownership or "platform (not named)",
    }
    return ExplanationStep(
        "Attribute",
        "Taken from the logical root first, then from any other row of the trace.",
        tuple(f"{name}: {value or 'unknown'}" for name, value in named.items()),
    )


def _usage(event: UsageEvent, stored: Mapping[str, Any], with_costs: bool) -> ExplanationStep:
    lines = []
    for use in stored["usage"] or ():
        tokens = ", ".join(f"{use[c]:,} {c.replace('_', ' ')}" for c in TOKEN_CLASSES if use[c])
        cost = "; cost unknown" if use["cost_usd"] is None else f"; cost {plain_decimal(use['cost_usd'])} USD"
        lines.append(f"{use['model'] or 'no model named'}: {tokens or 'no tokens'}{cost if with_costs else ''}")
    total = "unknown" if event.tokens_total is None else f"{event.tokens_total:,}"
    return ExplanationStep("Use", f"{total} tokens in all.", tuple(lines))


def _card(event: UsageEvent, stored: Mapping[str, Any], card: RateCard | None, with_costs: bool) -> ExplanationStep:
    price = plain_decimal(stored["credit_price_usd"])
    if event.rate_card_version == LEGACY_VERSION:
        return ExplanationStep(
            "Rate card", "None: the credits are those the earlier system recorded.", (f"1 credit = {price} USD",)
        )
    if card is None:
        return ExplanationStep("Rate card", "No rate card was in force at that time, so nothing could be rated.")
    basis = "counted tokens" if card.ai.basis is Basis.TOKENS else "Langfuse's cost"
    margin = (f"margin on AI = {plain_decimal(card.margin)}",) if with_costs else ()
    return ExplanationStep(
        "Rate card",
        f"{card.id}, in force from {utc_text(card.effective_from)}; AI by {basis}.",
        (f"1 credit = {price} USD", *margin),
    )


def _not_rated(event: UsageEvent, card: RateCard | None) -> str | None:
    if event.rate_card_version == LEGACY_VERSION:
        return "as the earlier system recorded"
    if Flag.EXCLUDED_ENVIRONMENT in event.flags:
        return f"0: environment {event.environment} is not billed"
    return "0: no rate card" if card is None else None


def _ai(event: UsageEvent, stored: Mapping[str, Any], card: RateCard | None, with_costs: bool) -> ExplanationStep:
    booked = event.credits.ai_tokens
    if (reason := _not_rated(event, card)) is not None or card is None:
        return ExplanationStep("AI tokens", f"{plain_decimal(booked)} credits, {reason}.")
    if (event.ai_credentials_ownership or "").lower() == OWN_KEY:
        return ExplanationStep("AI tokens", "0 credits: the customer brought the key.")
    if card.ai.basis is Basis.COST and not with_costs:
        return ExplanationStep("AI tokens", f"{plain_decimal(booked)} credits, by what the models cost.")
    if card.ai.basis is Basis.COST:
        billed = _billed_cost(event, stored, card)
        if billed is None:
            return ExplanationStep("AI tokens", f"{plain_decimal(booked)} credits: no cost is known; flagged unpriced.")
        cost, margin, price = (plain_decimal(v) for v in (billed, card.margin, card.credit_price_usd))
        text = f"{cost} USD × {margin} ÷ {price} USD per credit"
        units, exact = _lines(stored, card, with_costs)
        exact += Fraction(billed) * Fraction(card.margin) / Fraction(card.credit_price_usd)
        return _rounded("AI tokens", (text, *units), exact, booked)
    if stored.get("usage_lines") is not None:
        lines, exact = _lines(stored, card, with_costs)
        return _rounded("AI tokens", tuple(lines) or ("no tokens",), exact, booked)
    lines, exact = [], Fraction(0)
    for use in stored["usage"] or ():
        for token_class in TOKEN_CLASSES:
            tokens = use[token_class]
            if not tokens:
                continue
            found = effective_token_rate(card, use["model"], token_class)
            label = f"{use['model'] or 'no model'}, {token_class.replace('_', ' ')}"
            if found is None:
                lines.append(f"{label}: no rate for {count_of(tokens, 'token')}; not rated, flagged unpriced")
                continue
            part = tokens * Fraction(found) * Fraction(card.margin) / 1000
            exact += part
            lines.append(f"{label}: {tokens:,} × {_rate(found, card, ' ÷ 1,000', with_costs)} = {_exact_text(part)}")
    return _rounded("AI tokens", tuple(lines) or ("no tokens",), exact, booked)


def _billed_cost(event: UsageEvent, stored: Mapping[str, Any], card: RateCard) -> Decimal | None:
    """The cost of what the card does not leave out; null if none is known."""
    uses = stored.get("usage_lines")
    if not card.exclude or uses is None:
        return event.cost_usd
    costs = [use["cost_usd"] for use in uses if use["cost_usd"] is not None and not is_left_out(card, use)]
    return sum(costs, Decimal(0)) if costs else None


def _rate(rate: Decimal, card: RateCard, per: str, with_costs: bool) -> str:
    """The rate and the margin on it; without costs what the customer pays, as one figure."""
    if not with_costs:
        return f"{_exact_text(Fraction(rate) * Fraction(card.margin))}{per}"
    return f"{plain_decimal(rate)}{per}" + ("" if card.margin == 1 else f" × {plain_decimal(card.margin)}")


def _lines(stored: Mapping[str, Any], card: RateCard, with_costs: bool) -> tuple[list[str], Fraction]:
    """The arithmetic of what observations used, and the credits it comes to before rounding."""
    by_tokens = card.ai.basis is Basis.TOKENS
    summed: dict[tuple[str, str | None, KeyPrice], int] = {}
    left_out: dict[str, int] = {}
    for use in stored.get("usage_lines") or ():
        if not use["quantity"]:
            continue
        if is_left_out(card, use):
            who = " ".join(filter(None, (use["type"], use["name"]))) or "no name"
            left_out[f"{who}, {use['key']}"] = left_out.get(f"{who}, {use['key']}", 0) + use["quantity"]
            continue
        price = price_of_key(card, use["key"])
        what = use["key"] if price.token_class is None else price.token_class.replace("_", " ")
        if price.token_class is None or by_tokens:
            place = (what, use["model"], price._replace(is_known=True))
            summed[place] = summed.get(place, 0) + use["quantity"]
    lines, exact = [], Fraction(0)
    for (what, model, price), quantity in summed.items():
        label = f"{model or 'no model'}, {what}"
        per_thousand = None if price.token_class is None else effective_token_rate(card, model, price.token_class)
        if price.credits_each is not None:
            part = quantity * Fraction(price.credits_each) * Fraction(card.margin)
            rate = _rate(price.credits_each, card, " each", with_costs)
            text = f"{label}: {quantity:,} × {rate} = {_exact_text(part)}"
        elif per_thousand is not None:
            part = quantity * Fraction(per_thousand) * Fraction(card.margin) / 1000
            rate = _rate(per_thousand, card, " ÷ 1,000", with_costs)
            text = f"{label}: {quantity:,} × {rate} = {_exact_text(part)}"
        else:
            part = Fraction(0)
            unit = "units" if price.token_class is None else "tokens"
            flagged = ", flagged unpriced" if by_tokens else ""
            text = f"{label}: {quantity:,} {unit} have no rate; not rated{flagged}"
        lines.append(text)
        exact += part
    lines += [f"{who}: {quantity:,} left out by the card's exclude" for who, quantity in left_out.items()]
    return lines, exact


def _compute(event: UsageEvent, stored: Mapping[str, Any], card: RateCard | None) -> ExplanationStep:
    booked = event.credits.compute
    if (reason := _not_rated(event, card)) is not None or card is None:
        return ExplanationStep("Compute", f"{plain_decimal(booked)} credits, {reason}.")
    per_minute = card.compute.credits_per_minute
    is_active = card.compute.basis is ComputeBasis.ACTIVE
    seconds = stored.get("active_seconds") if is_active else event.latency_seconds
    if seconds is None:
        return ExplanationStep("Compute", f"{plain_decimal(booked)} credits: the active time is not known.")
    exact = Fraction(seconds) / 60 * Fraction(per_minute)
    what = " in which an observation ran" if is_active else ""
    text = f"{plain_decimal(seconds)} s{what} ÷ 60 × {plain_decimal(per_minute)} per minute"
    return _rounded("Compute", (text,), exact, booked)


def _storage(event: UsageEvent, card: RateCard | None) -> ExplanationStep:
    booked = event.credits.storage
    if (reason := _not_rated(event, card)) is not None or card is None:
        return ExplanationStep("Storage", f"{plain_decimal(booked)} credits, {reason}.")
    if event.storage_gb is None:
        return ExplanationStep("Storage", "0 credits: the trace names no storage.")
    rate = card.storage.credits_per_gb_month
    text = f"{plain_decimal(event.storage_gb)} GB-months × {plain_decimal(rate)}"
    return _rounded("Storage", (text,), Fraction(event.storage_gb) * Fraction(rate), booked)


def _exact_text(value: Fraction) -> str:
    """The exact value where decimal notation can hold it, else the beginning of it."""
    shown = (Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal(1).scaleb(-12), ROUND_HALF_EVEN)
    return plain_decimal(shown) if Fraction(shown) == value else f"{plain_decimal(shown)}…"


def _rounded(name: str, lines: tuple[str, ...], exact: Fraction, booked: Decimal) -> ExplanationStep:
    digits = (Decimal(exact.numerator) / Decimal(exact.denominator)).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    agrees = (
        "" if digits == booked else f" The card gives {plain_decimal(digits)}: part of it was not rated, see the flags."
    )
    rounding = f"= {_exact_text(exact)}, rounded once half-even to 6 places = {plain_decimal(digits)}"
    return ExplanationStep(name, f"{plain_decimal(booked)} credits.{agrees}", (*lines, rounding))


def _total(event: UsageEvent, stored: Mapping[str, Any]) -> ExplanationStep:
    c = event.credits
    parts = " + ".join(plain_decimal(part) for part in (c.ai_tokens, c.compute, c.storage))
    price = plain_decimal(stored["credit_price_usd"])
    return ExplanationStep(
        "Total",
        f"{plain_decimal(c.total)} credits, {plain_decimal(event.amount_usd)} USD.",
        (
            f"{parts} = {plain_decimal(c.total)} credits",
            f"{plain_decimal(c.total)} × {price} USD = {plain_decimal(event.amount_usd)} USD",
        ),
    )


def _flags(event: UsageEvent, stored: Mapping[str, Any]) -> list[ExplanationStep]:
    if not event.flags:
        return []
    lines = [f"{flag}: {FLAG_MEANINGS[flag]}" for flag in event.flags]
    problems = [text for text in (stored.get("problems") or "").split("\n") if text]
    return [ExplanationStep("Flags", f"{len(event.flags)} set on this event.", (*lines, *problems))]


def _history(stored: Mapping[str, Any], revisions: Sequence[Mapping[str, Any]], with_costs: bool) -> ExplanationStep:
    lines = []
    hidden = {"usage"} if with_costs else {"usage", "usage_lines", "cost_usd"}
    for old, new in pairwise([*revisions, stored]):
        changes = ", ".join(
            f"{name} {_shown(old[name], name)} → {_shown(new[name], name)}"
            for name in (old["changed_columns"] or "").split(",")
            if name in old and name not in hidden
        )
        lines.append(f"revision {new['revision']}, {_when(new['booked_at'])}: {changes}; was {old['sync_status']}")
    first = revisions[0] if revisions else stored
    return ExplanationStep(
        "Book", f"Revision {stored['revision']}, first recorded {_when(first['booked_at'])}.", tuple(lines)
    )


def _closed(stored: Mapping[str, Any], closed: Sequence[tuple[str, Mapping[str, Any]]]) -> list[ExplanationStep]:
    """Where it counts, if its month was closed."""
    counted = stored.get("accounted_at")
    lines = [
        f"{period}: {plain_decimal(row['credits_total'])} credits, {row['sync_status']} when it was closed"
        for period, row in closed
    ]
    if not closed and counted is None:
        return []
    if counted is None or any(row["revision"] == stored["revision"] for _, row in closed):
        return [ExplanationStep("Close", "Its month is closed and keeps the state it had then.", tuple(lines))]
    lines.append(f"since {_when(counted)}: the difference to {plain_decimal(stored['credits_total'])} credits")
    return [
        ExplanationStep(
            "Close",
            "It arrived or changed after its month was closed: the difference counts when it was recorded.",
            tuple(lines),
        )
    ]


_SETTLEMENT_STATES = {
    "sending": "asked for; it is not known whether Stripe has it",
    "settled": "in force",
    "confirmed": "on a final invoice",
    "refused": "refused by Stripe",
    "taking_back": "being taken back",
    "taken_back": "taken back",
}


def _settlements(
    settlements: Sequence[EventSettlement], closed: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[ExplanationStep]:
    """What was settled because no meter event can carry it."""
    if not settlements:
        return []
    lines: list[str] = []
    for one in settlements:
        lines += _settlement(one, {period for period, _ in closed})
    live = [one for one in settlements if one.settlement.counts]
    sums = {
        says: sum((one.part for one in live if one.settlement.kind == kind), Decimal(0))
        for kind, says in (("write_off", "written off"), ("invoice_item", "invoiced separately"))
    }
    said = ", ".join(f"{plain_decimal(credits_)} credits {says}" for says, credits_ in sums.items() if credits_)
    return [ExplanationStep("Settle", f"{said or 'Nothing is settled any more'}.", tuple(lines))]


def _settlement(one: EventSettlement, closed: set[str]) -> list[str]:
    settlement, part = one.settlement, plain_decimal(one.part)
    kind = "written off" if settlement.kind == "write_off" else "invoice item"
    state = _SETTLEMENT_STATES[settlement.state]
    late = f", after the close of {settlement.month}" if settlement.month in closed else ""
    lines = [f"settlement {settlement.id} ({kind}): {state}; {part} credits of this event"]
    by = f" by {settlement.actor}" if one.is_whole else ""
    lines.append(f"  {_when(settlement.made_at)}{by}{late}: {settlement.reason}")
    if one.is_whole and settlement.amount is not None and settlement.currency is not None:
        shown = money(settlement.amount, settlement.currency)
        rounding = plain_decimal(rounding_of(settlement.amount_usd, settlement.amount))
        where = "" if settlement.invoice_id is None else f", on invoice {settlement.invoice_id}"
        where += "" if settlement.invoice_status is None else f" ({settlement.invoice_status})"
        lines.append(
            f"  {settlement.customer_id} {settlement.month}: {plain_decimal(settlement.credits)} credits, "
            f"{plain_decimal(settlement.amount_usd)} USD exactly, {shown} (rounding {rounding} USD), invoice item "
            f"{settlement.item_id or 'not known yet'}{where}"
        )
        if settlement.item_id is not None:
            lines.append(f"  https://dashboard.stripe.com/customers/{settlement.customer_id}")
    if settlement.answer is not None and one.is_whole:
        lines.append(f"  {settlement.answer}")
    if settlement.taken_back_at is not None:
        who = f" by {settlement.taken_back_by}" if one.is_whole else ""
        lines.append(f"  taken back {_when(settlement.taken_back_at)}{who}: {settlement.taken_back_reason}")
    return lines


def _shown(value: Any, name: str) -> str:
    if name == "flags":
        return " ".join(split_flags(value or "", "")) or "none"
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return plain_decimal(value)
    return utc_text(value) if isinstance(value, datetime) else str(value).strip("\x1f").replace("\x1f", " + ")


def _when(value: datetime) -> str:
    return utc_text(value)


_STATUS_SENTENCES = {
    SyncStatus.PENDING: "Not sent yet.",
    SyncStatus.SENDING: "An intent is written; Stripe's answer is not known yet.",
    SyncStatus.PROCESSED: "Accepted.",
    SyncStatus.CONFIRMED: "Accepted, and Stripe's own summary agrees.",
    SyncStatus.ERROR: "Not sent.",
    SyncStatus.EXCLUDED: "Nothing to bill.",
}
_SETTLED_SENTENCES = {
    Flag.WRITTEN_OFF: "Written off: it is not charged.",
    Flag.INVOICED_SEPARATELY: "Billed by an invoice item, not by the meter.",
}


def _stripe(event: UsageEvent, intents: Intents) -> ExplanationStep:
    lines = []
    if event.sync_error:
        lines.append(event.sync_error)
    if event.meter_event_identifier and not intents:
        lines.append(f"meter event {event.meter_event_identifier}")
    for intent in intents:
        lines += _intent(intent)
    if event.synced_at:
        lines.append(f"last answer at {utc_text(event.synced_at)}")
    says = _STATUS_SENTENCES[event.sync_status]
    if event.meter_event_identifier is None and event.sync_status in {*_BILLED, SyncStatus.EXCLUDED}:
        says = next((text for flag, text in _SETTLED_SENTENCES.items() if flag in event.flags), says)
    return ExplanationStep("Stripe", f"{event.sync_status}: {says}", tuple(lines))


_BILLED = (SyncStatus.PROCESSED, SyncStatus.CONFIRMED)


_INTENT_STATES = {
    "open": "written down, not tried yet",
    "sending": "tried, the outcome is not known",
    "accepted": "accepted",
    "confirmed": "accepted, and Stripe's sum agrees",
    "rejected": "rejected",
    "void": "withdrawn: it never arrived",
}


def _intent(intent: Mapping[str, Any]) -> list[str]:
    """One meter event: what of this event it carries, how it was made up, what Stripe said."""
    kind, _, at = (intent["source"] or "").partition(":")
    where = "" if intent["customer_id"] is None else f"customer {intent['customer_id']}, "
    where += f"from {at}, " if kind == "hour" else ""
    part = plain_decimal(intent["part"])
    state = _INTENT_STATES[intent["state"]]
    head = f"meter event {intent['identifier']} ({where}revision {intent['revision']}): {state}"
    lines = [f"{head}; it carries {part} credits of this event"]
    if intent.get("credits") is not None:
        before = plain_decimal(intent["carried_before"])
        rest = intent["credits"] + intent["carried_before"] - intent["value"]
        lines.append(
            f"  {intent['events']:,} event{'s'[: intent['events'] != 1]}, {plain_decimal(intent['credits'])} credits "
            f"+ {before} carried before = {intent['value']:,} whole credits sent, {plain_decimal(rest)} carried on"
        )
    tries = f"{intent['attempts']:,} attempt{'s'[: intent['attempts'] != 1]}"
    said = f", {_when(intent['answered_at'])}" if intent["answered_at"] else ""
    request = f", request {intent['request_id']}" if intent["request_id"] else ""
    lines.append(f"  {tries}{said}{request}{': ' + intent['answer'] if intent['answer'] else ''}")
    if intent.get("counted_at") is not None:
        counted = plain_decimal(intent["counted"])
        lines.append(
            f"  Stripe counts {counted} credits for the customer in that UTC hour, read {_when(intent['counted_at'])}"
        )
    return lines
