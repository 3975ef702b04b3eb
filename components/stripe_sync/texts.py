"""Texts of the Stripe Sync page. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from billing_core.stripe_sync.pipeline import Action, Amounts, DecisionPreview, DueBy, RetryOutlook, title_of
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.values.counts import count_of
from components.shared.formats import ago, cut_percent, exact, minor_units, moment, rounded, short_usd, usd
from components.stripe_sync.marks import ACTION_WORDS

if TYPE_CHECKING:
    from billing_core.ledger.push_log import PushRun
    from billing_core.ledger.settlements import Settlement
    from billing_core.reconcile.report import Reconciliation
    from billing_core.stripe_sync.customer_status import CustomerStatus
    from billing_core.stripe_sync.push import PushResult
    from billing_core.stripe_sync.service import Deadline
    from billing_core.stripe_sync.settle import SettlementResult
    from billing_core.web.jobs import PushState, ReconcileState


NEVER_READ = "Not read from Stripe yet. Press “Read from Stripe”."
NO_EARLIER_READING = "There is no earlier reading."
INVOICE_NOTE = "A preview: usage in it is provisional until it finalizes."
AMOUNT_DUE_NOTE = "Amount due as Stripe previews it, in the invoice's currency."
NO_SUBSCRIPTION = "Stripe has no subscription for this customer: its usage is not invoiced."
READS = "Stripe was read {reads:,} times this month (UTC); small accounts are allowed {allowed:,}."
NEVER_PUSHED = "Nothing has been pushed from this ledger yet."
NO_STRIPE = (
    "Not connected to Stripe. Set STRIPE_API_KEY to push, to look up customers and to compare with Stripe; "
    "everything the ledger knows can be read all the same."
)
CORRECTIONS_NOTE = (
    "The difference between what sent events come to now and what was sent for them; the next push sends it. Not "
    "included in the stages."
)
OLDEST_NOTE = "Start of the oldest event that is pending or sending. Stripe accepts nothing older than 35 days."
DEADLINE_NOTE = "When the next draft invoice becomes final: usage of its period cannot be billed afterwards."
LAST_PUSH_NOTE = "When it started. The push log below lists earlier ones."
ROUNDING_NOTE = (
    "Stripe is sent whole credits only. The rest is carried forward to the customer's next meter event; it is "
    "negative while a rejected meter event has not been sent again."
)
NOTHING_UNSENT = "Nothing is pending or sending."
NOTHING_NEEDS_ACTION = "Nothing needs action: no event is held or in error, and no usage waits for a push."
PUSH_DUE = "Usage waits for a push"
PUSH_WHAT = "Nothing keeps it back. Preview a push, then send it."
PUSH_OLD = (
    "Nothing keeps it back, but some of it is older than the 35 days Stripe accepts: a push puts that on hold and "
    "sends the rest. Preview a push to see how much."
)
NAME_CUSTOMERS = "Assign customers"
SHOW_EVENTS = "Show events"
HOLD_NOTE = "No push sends them until somebody releases them. Events pulled later are not held."
HOLD_REASON_NEEDED = "A hold needs a reason."
PROBLEMS_CSV_NOTE = "Every group with exact figures."
CALCULATING_RETRY = "Calculating what the next push would send of these…"
HOLD_REASON_NOTE = "Shown on every event and recorded in the audit log."
NO_KEY = "Without a Stripe key there is nothing to push to: set STRIPE_API_KEY and restart the dashboard."
PUSH_RUNNING = "A push is running."
CALCULATING_PUSH = "Calculating what a push would send…"
PREVIEW_OUTDATED = "The ledger has changed since this preview. Preview again to see what a push would send now."
PUSH_ELSEWHERE = "A push, or a preview of one, is running elsewhere. This page updates by itself."
RECONCILE_NOTE = "Langfuse (re-read), ledger, sent and Stripe, per customer and UTC day; Stripe counts in UTC."
NEVER_RECONCILED = "Nothing has been reconciled yet. Choose the days and press “Reconcile”."
UNEXPLAINED_NOTE = (
    "Differences with no explanation on this side: credits lost at Stripe plus credits another system sent. Absolute "
    "amounts are added up, so opposite differences never cancel out."
)
DAILY_SUMS_NOTE = "Langfuse's sums minus those of the rows. What the ledger could not read or rate shows up here too."
NOBODY_ACTIVE = "No customer had activity in any source on these days."
HEAT_MAP_HINT = (
    "Orange: the first source has more. Blue: the second. “!” marks unexplained credits, “?” an unknown one. Click a "
    "cell to look at it."
)
WATERFALL_HINT = "The first source plus the steps equals the last source, exactly."
ALL_AGREE = "All sources agree for every customer and day."
DIFFERENCE_NOTE = "Credits in the first source minus those in the second."
RECONCILE_CSV_NOTE = "Every row of the last reconciliation with exact figures."
END_DATE_NEEDED = "Choose the end date as well."

HOUR_MINUTES, DAY_MINUTES = 60, 24 * 60


def credits_and_money(held: Decimal | int, amount_usd: Decimal) -> str:
    """Credits with their amount: `1,234.5 credits ($0.05)`; one credit is `1 credit`."""
    return f"{rounded(Decimal(held))} credit{'' if held == 1 else 's'} ({short_usd(amount_usd)})"


def amounts_text(amounts: Amounts) -> str:
    """Events with credits and amount: `12 events, 1,234.5 credits ($0.05)`."""
    return f"{count_of(amounts.events, 'event')}, {credits_and_money(amounts.credits, amounts.amount_usd)}"


def in_words(then: datetime, now: datetime) -> str:
    """How far a time lies ahead: `in 5 min`, `in 3 h`, `in 4 days`, `now`."""
    minutes = int((then - now).total_seconds() // 60)
    if minutes < 1:
        return "now"
    if minutes < HOUR_MINUTES:
        return f"in {minutes} min"
    if minutes < 2 * DAY_MINUTES:
        return f"in {minutes // HOUR_MINUTES} h"
    return f"in {minutes // DAY_MINUTES:,} days"


def due_text(due: DueBy, now: datetime) -> str:
    """In which time something has to be sent, and why: `due in 3 days: 35-day limit`."""
    why = "35-day limit" if due.customer_id is None else f"invoice of {due.customer_id} becomes final"
    return f"due {in_words(due.at, now)}: {why}"


def deadline_text(deadline: Deadline | None, now: datetime, zone: ZoneInfo) -> str:
    """Which draft invoice finalizes next, and when that was read."""
    if deadline is None:
        return "No draft invoice is due to finalize. Drafts are read with every push."
    read = "" if deadline.read_at is None else f" Read {ago(deadline.read_at, now)}."
    return (
        f"The draft invoice of {deadline.customer_id} finalizes at {moment(deadline.finalizes_at, zone)} {zone.key}; "
        f"unsent usage of its period must arrive before then.{read}"
    )


# ── push ─────────────────────────────────────────────────────────────────────────────────────────


def push_preview_text(result: PushResult, whole_credits: int, price_usd: Decimal) -> str:
    """What a push would send, in one sentence."""
    held = f" {held}." if (held := held_text(result.to_json(), "would be held")) else ""
    if not result.requests:
        return f"Nothing to send: no settled usage amounts to a whole credit.{held}"
    return (
        f"A push would send {count_of(len(result.requests), 'meter event')} with "
        f"{credits_and_money(whole_credits, whole_credits * price_usd)} at {usd(price_usd)} per credit.{held}"
    )


def held_text(result: Mapping[str, Any], verb: str = "held") -> str:
    """Events a push document holds: `755 events held (248 newly; 5 of them only for a correction)`, or empty."""
    held, newly, corrections = (result.get(key, 0) for key in ("held", "newly_held", "held_corrections"))
    if not held:
        return ""
    notes = [f"{newly:,} newly" if newly else "none newly"]
    if corrections:
        notes.append(f"{corrections:,} of them only for a correction")
    return f"{count_of(held, 'event')} {verb} ({'; '.join(notes)})"


def push_progress_text(state: PushState, now: datetime) -> str:
    """The progress of a push: `Push by ada: 120 of 4,000 meter events answered, 50 per second, 1,234,567 credits
    delivered`.
    """
    progress, rate = state.progress, state.per_second(state.progress.done, now)
    if not progress.total:
        return f"Push by {state.started_by}: {progress.doing}"
    parts = [f"{progress.done:,} of {count_of(progress.total, 'meter event')} answered"]
    if rate is not None:
        parts.append(f"{rate:,.0f} per second")
    parts.append(f"{rounded(progress.credits_sent)} credits delivered")
    return f"Push by {state.started_by}: {', '.join(parts)}"


_COUNTED = (
    ("sent", "sent"),
    ("duplicates", "delivered before"),
    ("rejected", "rejected"),
    ("unknown", "without an answer"),
    ("waiting", "not tried"),
    ("confirmed", "confirmed by Stripe's summaries"),
)


def verdict_text(result: Mapping[str, Any]) -> str:
    """The counts of a push document (CONTRACT section 3), zeros left out, with the credits delivered."""
    counts = [f"{result[key]:,} {word}" for key, word in _COUNTED if result.get(key)]
    said = [", ".join(counts) if counts else "nothing to send", held_text(result)]
    if counts:
        said.append(f"{rounded(Decimal(result.get('credits_sent', '0')))} credits delivered")
    return "; ".join(filter(None, said))


def push_outcome_text(state: PushState, now: datetime) -> str:
    """How the last push of this process ended."""
    when = ago(state.ended_at or now, now)
    if state.error is not None:
        return f"The push by {state.started_by} stopped {when}: {state.error}"
    document = {} if state.result is None else state.result.to_json()
    return f"The push by {state.started_by} ended {when}: {verdict_text(document)}."


def outcome_word(run: PushRun, *, is_pushing: bool) -> str:
    """How a push ended, in one word: `done`, `failed`, `running`; one that never ended and does not run was
    `interrupted`.
    """
    return "interrupted" if run.outcome == "running" and not is_pushing else run.outcome


def last_push_text(run: PushRun | None, now: datetime, *, is_pushing: bool) -> str:
    """The newest push of the log, in words."""
    if run is None:
        return NEVER_PUSHED
    match outcome_word(run, is_pushing=is_pushing):
        case "running":
            return f"Running: started {ago(run.started_at, now)}, by {run.actor}."
        case "interrupted":
            return (
                f"Interrupted: started {ago(run.started_at, now)} by {run.actor}. The next push continues from there."
            )
        case "failed":
            return f"Failed {ago(run.ended_at or run.started_at, now)} by {run.actor}: {run.error or 'no reason kept'}"
        case _:
            return (
                f"{ago(run.ended_at or run.started_at, now).capitalize()} by {run.actor}: {verdict_text(run.result)}."
            )


# ── decisions ────────────────────────────────────────────────────────────────────────────────────


def outlook_text(outlook: RetryOutlook) -> str:
    """What the next push would do with retried events, in one sentence for each part."""
    sent, said = outlook.sent, []
    if sent.events:
        said.append(f"The next push would send {sent.events:,} of these events: {_sum_text(sent)}.")
    else:
        said.append("The next push would send none of these.")
    if outlook.waiting.events:
        said.append(f"{_sum_text(outlook.waiting, events=True)} would wait: not settled, or less than a whole credit.")
    for cause, amounts in outlook.held.items():
        said.append(f"{_sum_text(amounts, events=True)} would be held again: {title_of(cause)}.")
    return " ".join(said)


def _sum_text(amounts: Amounts, *, events: bool = False) -> str:
    what = credits_and_money(amounts.credits, amounts.amount_usd)
    return f"{count_of(amounts.events, 'event')} with {what}" if events else what


def decision_text(preview: DecisionPreview, count: int) -> str:
    """What a decision did: fewer events than shown mean that the others had changed by then."""
    done = ACTION_WORDS[preview.action].done
    told = f"{count_of(count, 'event')} {'is' if count == 1 else 'are'} {done}."
    if preview.action is Action.RETRY and count == preview.amounts.events:
        return told
    if count == preview.amounts.events:
        return f"{told[:-1]}: {credits_and_money(preview.amounts.credits, preview.amounts.amount_usd)}."
    changed = count_of(preview.amounts.events - count, "event")
    kept = "stays as it is" if preview.amounts.events - count == 1 else "stay as they are"
    return f"{told} {changed} had changed since the preview and {kept}."


def decision_button(action: Action, touched: Amounts, sent: Amounts | None = None) -> str:
    """The label of the button that makes a decision: `Retry 12 events: 1,234.5 credits ($0.05)`; of a retry the credits
    to be `sent`.
    """
    amounts = touched if sent is None else sent
    return f"{ACTION_WORDS[action].verb} {count_of(touched.events, 'event')}: {_sum_text(amounts)}"


# ── settlements ──────────────────────────────────────────────────────────────────────────────────

SETTLEMENT_WORDS = {SettlementKind.WRITE_OFF: "Written off", SettlementKind.INVOICE_ITEM: "Invoice item"}
SETTLEMENT_MEANINGS = {
    SettlementKind.WRITE_OFF: "It is not charged. Nothing is sent to Stripe.",
    SettlementKind.INVOICE_ITEM: "One item per customer and month on the customer's next invoice.",
}
CUSTOMERS_EXAMPLE = "Customer ids, separated by commas"
SETTLEMENT_REASON_NEEDED = "A settlement needs a reason."
CALCULATING_SETTLEMENT = "Calculating what this settles…"
SETTLEMENTS_NOTE = "Usage that could not be metered, and what became of it."
TAKE_BACK_NOTE = (
    "Its events are stuck again, as they were. An invoice item can be taken back while it is pending or its invoice is "
    "a draft."
)

_SETTLEMENT_STATES = {
    "sending": "outcome not known",
    "settled": "in force",
    "confirmed": "on a final invoice",
    "refused": "refused by Stripe",
    "taking_back": "being taken back",
    "taken_back": "taken back",
}


def settlement_state(settlement: Settlement) -> str:
    """The state of a settlement for people: `in force`, `taken back: wrong month`."""
    says = _SETTLEMENT_STATES[settlement.state]
    why = settlement.taken_back_reason if settlement.state == "taken_back" else settlement.answer
    return f"{says}: {why}" if why and settlement.state in {"taken_back", "refused"} else says


def settlement_amount(settlement: Settlement) -> str:
    """What a settlement is over: an item in its currency, a write-off in exact US dollars."""
    if settlement.amount is None or settlement.currency is None:
        return f"{exact(settlement.amount_usd)} USD"
    return minor_units(settlement.amount, settlement.currency)


def settlement_label(settlement: Settlement) -> str:
    """A settlement in one line: `2026-10, cus_acme, 12.34 USD, invoice item`."""
    kind = SETTLEMENT_WORDS[SettlementKind(settlement.kind)].lower()
    return f"{settlement.month}, {settlement.customer_id or 'nobody'}, {settlement_amount(settlement)}, {kind}"


def settlement_preview_text(result: SettlementResult) -> str:
    """What settling would do, in one sentence."""
    if not result.event_ids:
        return "Nothing of this can be settled this way."
    return f"This settles {_settled_sum(result)}."


def _settled_sum(result: SettlementResult) -> str:
    return f"{count_of(len(result.event_ids), 'event')}, {credits_and_money(result.credits, result.amount_usd)}"


def settlement_button(result: SettlementResult) -> str:
    """The label of the button that settles: `Write off 12 events: 1,234.5 credits ($0.05)`."""
    events = count_of(len(result.event_ids), "event")
    if result.kind is SettlementKind.WRITE_OFF:
        return f"Write off {events}: {credits_and_money(result.credits, result.amount_usd)}"
    return f"Invoice {events}: {count_of(len(result.items), 'item')}, {short_usd(result.amount_usd)}"


def skipped_text(count: int, reason: str) -> str:
    """Why some events are left out: `3 events left out: nobody to invoice`."""
    return f"{count_of(count, 'event')} left out: {reason}"


def settlement_text(done: SettlementResult) -> str:
    """What settling did, with what went wrong."""
    word = "written off" if done.kind is SettlementKind.WRITE_OFF else "invoiced separately"
    said = f"{_settled_sum(done)}, {word}." if done.event_ids else "Nothing was settled."
    problems = [*done.problems, *([done.out_of_reach] if done.out_of_reach else [])]
    return " ".join([said, *(f"{problem}." for problem in problems)])


def taken_back_text(settlement: Settlement) -> str:
    """What taking a settlement back did."""
    if settlement.state == "taken_back":
        return f"Taken back: {settlement_label(settlement)}. Its events are stuck again."
    return f"Nothing to take back: it is {_SETTLEMENT_STATES[settlement.state]}."


# ── reconciliation ───────────────────────────────────────────────────────────────────────────────


def reconcile_progress_text(state: ReconcileState) -> str:
    """The progress of a reconciliation: who started it and what is done now."""
    return f"Reconciliation by {state.started_by}: {state.progress.doing}"


def unexplained_text(found: Reconciliation) -> str:
    """The result of a reconciliation, in words as well as in a number."""
    unexplained = found.unexplained_credits
    if unexplained:
        return f"{rounded(unexplained)} credits are unexplained: see the rows marked “!” below."
    if found.problems:
        return "0 unexplained credits, as far as the sources could be read: see below what is missing."
    return "0 unexplained credits: every difference has its cause."


# ── customers ────────────────────────────────────────────────────────────────────────────────────


def used_text(status: CustomerStatus) -> str:
    """Credits used of a plan: `612,000 of 500,000 credits used: 122.4 %, 112,000 over the plan`, as far as it is
    known.
    """
    if status.used is None:
        return "Credits used: unknown"
    if not status.included:
        return f"{rounded(status.used)} credits used; how many are included is unknown"
    share = cut_percent(status.used * 100 / Decimal(status.included))
    over = status.used - status.included
    beyond = f", {rounded(over)} over the plan" if over > 0 else ""
    return f"{rounded(status.used)} of {rounded(status.included)} credits used: {share}{beyond}"
