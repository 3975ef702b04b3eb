"""Texts of the what-if view. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import yaml

from billing_core.rating.card import ComputeBasis, RateCard, RateCardFile
from billing_core.rerating.model import WHY_NOT, OrganizationDelta, PlanCrossing, Rerating
from billing_core.types import plain_decimal
from billing_core.values.counts import count_of
from billing_core.values.csv_cells import csv_line
from billing_core.values.decimals import exact_sum
from components.shared.formats import (
    change,
    compact,
    count,
    exact,
    moment,
    rounded,
    short_usd,
    signed_rounded,
    signed_usd,
    usd,
)
from components.shared.metric_tiles import MetricTile

if TYPE_CHECKING:
    from billing_core.web.jobs import RerateState

NOTHING_CHANGED = "Nothing has changed, and nothing changes until somebody applies it."
NOBODY_EXCEEDS = "No customer whose plan is known exceeds what it includes."
CSV_NOTE = "Every organization with exact figures."
CARDS_NOTE = "The cards in force, as YAML: change a figure and give the changed card a new id."
FILE_NOTE = "A rate card file, YAML or JSON."
IN_FORCE_NOTE = (
    "Usage keeps the rate card it was first rated with; this re-rates all of it with the cards in force now."
)
FORM = (
    "What past usage would have cost under other rate cards, event by event. Calculating changes nothing; only "
    "applying does, and only admins can apply."
)
SETTINGS_NOTE = (
    "To see whom past usage would bill under the current settings (override, default customer, excluded "
    "environments, metadata names, organization map), use the command line: python -m billing_core rerate "
    "--settings. What was sent under other settings carries the flag policy_differs."
)
LIMITED = "Rate cards apply to all organizations, so only accounts that can see all of them have access."
READERS_NOTE = "You can calculate what cards would change. Only admins can apply them."
PERIOD_NOTE = "An event belongs to the period in which it started."
OUTDATED = "The ledger has changed since this was calculated. Calculate again to see the effect now."
HISTORY_KEPT = (
    "Each keeps its earlier figures in its history. Changes to a closed month count in the open one; closed months "
    "stay as they are."
)
WAY_BACK = (
    "Later pulls keep the new card for these events. To go back, re-rate the same period with the previous cards."
)
NOTHING_SENT = "None of it has been sent to Stripe yet, so there is nothing to correct there."
NOTHING_TO_APPLY = "Nothing was applied: the ledger already has these figures."
NO_EVENTS = "There are no events in this period."
BUSY = "Somebody is applying rate cards right now. Wait until that is done, then calculate again."

Rows = dict[str, list[str]]

NOBODY = "No organization"


# ── cards ────────────────────────────────────────────────────────────────────────────────────────


class _Plain(yaml.SafeDumper):
    """Writes decimals as people do, without quotation marks; the reader takes every value as text anyway."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _decimal(dumper: _Plain, value: Decimal) -> yaml.ScalarNode:
    text = plain_decimal(value)
    kind = "float" if "." in text else "int"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


_Plain.add_representer(Decimal, _decimal)


def card_text(cards: RateCardFile) -> str:
    """Cards as the YAML somebody would write, to start from."""
    document = cards.model_dump(mode="python", exclude_none=True, exclude={"metadata"})
    for card in document["cards"]:
        card["ai"]["basis"] = card["ai"]["basis"].value
        card["compute"]["basis"] = card["compute"]["basis"].value
        if card["compute"]["basis"] == ComputeBasis.WALL_CLOCK:
            del card["compute"]["basis"]
        for name in ("exclude", "token_classes", "units"):
            if not card[name]:
                del card[name]
        for name in ("effective_from", "effective_to"):
            if name in card:
                card[name] = card[name].isoformat()
    listed = {name: _lists(value) for name, value in document.items() if value}
    text: str = yaml.dump(listed, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    return text


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(one) for name, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


def cards_line(cards: RateCardFile, zone: ZoneInfo) -> str:
    """The cards in one line: `builtin-1: from 1970-01-01 00:00:00 (UTC), 1 credit = $0.00004, margin 1`; of several
    cards each.
    """
    lines = []
    for card in cards.cards:
        until = "" if card.effective_to is None else f" to {moment(card.effective_to, zone)}"
        lines.append(
            f"{card.id}: from {moment(card.effective_from, zone)}{until} ({zone.key}), "
            f"1 credit = {usd(card.credit_price_usd)}, margin {exact(card.margin)}{_rules(card)}"
        )
    return "; ".join(lines)


def _rules(card: RateCard) -> str:
    """What a card says beyond prices: `, compute by active time, leaves out 2 kinds of observations`."""
    said = {
        "compute by active time": card.compute.basis is ComputeBasis.ACTIVE,
        f"leaves out {count_of(len(card.exclude), 'kind')} of observations": card.exclude,
        f"maps {count_of(len(card.token_classes), 'usage key')}": card.token_classes,
        f"prices {count_of(len(card.units), 'other unit')}": card.units,
    }
    return "".join(f", {text}" for text, is_said in said.items() if is_said)


# ── the answer ───────────────────────────────────────────────────────────────────────────────────


def window_text(found: Rerating, zone: ZoneInfo) -> str:
    """Which events were re-rated, in words."""
    if found.start is None and found.end is None:
        return f"{count_of(found.events, 'event')} of all time"
    begin = "the beginning" if found.start is None else moment(found.start, zone)
    end = "now" if found.end is None else moment(found.end, zone)
    return f"{count_of(found.events, 'event')} that began from {begin} to {end} ({zone.key}, the end excluded)"


def sums(found: Rerating) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Old and new credits, old and new US dollars, over all organizations."""
    rows = found.organizations
    return (
        exact_sum(row.old for row in rows),
        exact_sum(row.new for row in rows),
        exact_sum(row.old_usd for row in rows),
        exact_sum(row.new_usd for row in rows),
    )


def tiles(found: Rerating) -> list[MetricTile]:
    """The header figures of a re-rating as tiles."""
    old, new, old_usd, new_usd = sums(found)
    up, money = found.delta_credits, found.delta_usd
    return [
        MetricTile(
            "Would change",
            compact(found.events_changed),
            count_of(found.events_changed, "event"),
            "Credits, price, card or flags would differ.",
        ),
        MetricTile("Old credits", compact(old), exact(old), "What the ledger has now."),
        MetricTile("New credits", compact(new), exact(new), "Under the other cards."),
        MetricTile(
            "Difference",
            _with_sign(compact(up), up),
            f"{signed_rounded(up)} credits, {change(new, old)}",
            "New minus old, in credits.",
        ),
        MetricTile(
            "Difference in USD",
            _with_sign(compact(money, prefix="$"), money),
            f"{signed_usd(money)}, {change(new_usd, old_usd)}",
            "New minus old.",
        ),
    ]


def _with_sign(text: str, value: Decimal) -> str:
    return f"+{text}" if value > 0 else text


def verdict_text(found: Rerating) -> str:
    """The result of a re-rating in a sentence."""
    what = "changed" if found.applied else "would change"
    if not found.events:
        return NO_EVENTS
    if not found.events_changed:
        return f"No event {what}: these cards give the same figures as the ledger."
    return (
        f"{count(found.events_changed)} of {count_of(found.events, 'event')} {what}: "
        f"{signed_rounded(found.delta_credits)} credits, {signed_usd(found.delta_usd)}."
    )


def total_line(found: Rerating) -> str:
    """The last line of the table: the sum over all organizations."""
    old, new, old_usd, new_usd = sums(found)
    return (
        f"All {count_of(len(found.organizations), 'organization')}: {rounded(old)} credits ({short_usd(old_usd)}) now, "
        f"{rounded(new)} ({short_usd(new_usd)}) under these cards, difference {signed_rounded(found.delta_credits)} "
        f"({signed_usd(found.delta_usd)})."
    )


def tie_text(found: Rerating, shown_credits: Decimal) -> str:
    """Whether the old credits equal those that Usage Events shows for the same period, in words."""
    old = sums(found)[0]
    if old == shown_credits:
        return "✓ The old credits reconcile to Usage Events for this period."
    return (
        f"Usage Events shows {rounded(shown_credits)} credits for this period: there, late usage of a closed month "
        "counts in the month that was open. Here every event counts in its own month."
    )


def organization_rows(rows: Sequence[OrganizationDelta]) -> Rows:
    """The change per organization as a table, in the order given: the largest difference first."""
    return {
        "Organization": [row.organization_id or NOBODY for row in rows],
        "Events": [count(row.events) for row in rows],
        "Changed": [count(row.events_changed) for row in rows],
        "Old credits": [rounded(row.old) for row in rows],
        "New credits": [rounded(row.new) for row in rows],
        "Difference": [signed_rounded(row.delta) for row in rows],
        "Old (USD)": [short_usd(row.old_usd) for row in rows],
        "New (USD)": [short_usd(row.new_usd) for row in rows],
        "Difference (USD)": [signed_usd(row.delta_usd) for row in rows],
    }


_ARROWS = {"up": "▲ reaches its plan's limit", "down": "▼ stays within its plan's limit"}


def crossing_rows(rows: Sequence[PlanCrossing], zone: ZoneInfo) -> Rows:
    """A table of customers whose use of their current period would pass what their plan includes, or no longer."""
    return {
        "Customer": [row.customer_id for row in rows],
        "Organizations": [", ".join(row.organizations) for row in rows],
        "Plan": [row.plan or "unnamed" for row in rows],
        "What happens": [_ARROWS[row.direction] for row in rows],
        "Included": [rounded(row.included) for row in rows],
        "Used now": [rounded(row.old_used) for row in rows],
        "Used then": [rounded(row.new_used) for row in rows],
        f"Period ends ({zone.key})": [moment(row.period_end, zone) for row in rows],
    }


def unknown_plans_text(found: Rerating) -> str | None:
    """For how many customers it is unknown whether they pass their plan's limit; `None` if for none."""
    unknown = found.plan_limits_unknown
    if not unknown:
        return None
    return f"For {count_of(unknown, 'customer')} with a difference, the plan or its usage is unknown."


def to_send_text(found: Rerating) -> str:
    """What the next push would send, or give back, because of a re-rating."""
    owed = found.to_send
    if not owed.events:
        return NOTHING_SENT
    whom = f"{count_of(owed.events, 'event')} of {count_of(owed.customers, 'customer')}"
    were = "were sent already" if owed.events != 1 else "was sent already"
    what = (
        f"give back {rounded(-owed.credits)} credits net"
        if owed.credits < 0
        else f"send {rounded(owed.credits)} more credits net"
    )
    return f"{whom} {were}: the next push would {what}, where their billing periods are still open."


def kept_rows(found: Rerating) -> Rows:
    """A table of how many events keep their credits whatever the cards say, by reason."""
    return {
        "Reason": [WHY_NOT[reason] for reason in found.not_rerated],
        "Events": [count(events) for events in found.not_rerated.values()],
    }


def version_rows(found: Rerating) -> Rows:
    """A table of how many events name which card."""
    return {
        "Rate card": [row.version for row in found.card_versions],
        "Events now": [count(row.old_events) for row in found.card_versions],
        "Events then": [count(row.new_events) for row in found.card_versions],
    }


CSV_COLUMNS = ("organization_id", "events", "events_changed", "old", "new", "delta", "old_usd", "new_usd", "delta_usd")
"""As `rerate --json` names them."""


def csv_lines(found: Rerating) -> bytes:
    """The table of organizations as CSV with exact figures; no cell that a spreadsheet would run."""
    rows = [[getattr(row, name) for name in CSV_COLUMNS] for row in found.organizations]
    lines: list[Sequence[object]] = [CSV_COLUMNS, *rows]
    return "".join(map(csv_line, lines)).encode()


# ── applying ─────────────────────────────────────────────────────────────────────────────────────


def apply_sentences(found: Rerating) -> list[str]:
    """What applying a re-rating means, in sentences."""
    figures = f"{signed_rounded(found.delta_credits)} credits, {signed_usd(found.delta_usd)}"
    events = count_of(found.events_changed, "event")
    return [f"{events} would get new figures: {figures}.", HISTORY_KEPT, to_send_text(found), WAY_BACK]


def confirms(typed: str, found: Rerating) -> bool:
    """Whether somebody typed how many events change, with or without separators."""
    return typed.strip().replace(",", "").replace(" ", "") == str(found.events_changed)


def progress_text(state: RerateState) -> str:
    """The progress of applying a re-rating: `Re-rating by ada: booked 120,000 events`."""
    return f"Re-rating by {state.started_by}: {state.progress.doing}"


def applied_text(found: Rerating, at: datetime, zone: ZoneInfo) -> str:
    """The result of applying a re-rating, in a sentence."""
    if not found.events_changed:
        return NOTHING_TO_APPLY
    return (
        f"Applied {moment(at, zone)}: {count_of(found.events_changed, 'event')}, {signed_rounded(found.delta_credits)} "
        "credits, "
        f"{signed_usd(found.delta_usd)}. {to_send_text(found)}"
    )
