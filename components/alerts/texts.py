"""Texts of the Alerts page. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from billing_core.alerts.model import Kind, Measure, Mute, Process, Rule
from billing_core.alerts.rules import PROCESS_WORDS, in_words
from billing_core.alerts.service import MOST_AT_ONCE, RECOMMENDED, Firing, ListedRule, Preview
from billing_core.notify.state import Delivery, DeliveryState
from billing_core.usage_events.explore_model import Dimension
from billing_core.values.counts import count_of
from components.shared.formats import day_text, moment

FORM = (
    "Rules that alert people when usage or money needs attention. They are checked after every pull, and by the "
    "command “alerts check”, which cron should run."
)
NO_ADDRESS = (
    "Alerts are listed here, but sent to nobody: no address is set. Set BILLING_NOTIFY_URLS (mail, Slack, Teams, "
    "webhooks …); docs/alerts.md says how."
)
NO_RULES = "There are no rules yet."
NO_HISTORY = "There have been no alerts yet."
LIMITED = "You see the rules that count your organizations only. Rules that you add count your organizations only."
SELECT_A_RULE = "Select a rule to change, mute or remove it."
SELECT_AN_ALERT = "Select an alert to see its text, its view and how far it got."
TEST_NOTE = "Sends a test message to every address."
CHECK_NOTE = "Checks every rule now and sends what is new."
MUTE_NOTE = "A muted rule sends nothing. If it still applies afterwards, its alerts are sent then."
MUTE_NEEDS_REASON = "A mute needs a reason."
REMOVE_NOTE = "The rule sends nothing any more. Its alerts stay in the history."
SUBJECT_NOTE = "Leave empty to watch each one separately."
DAYS_NOTE = "Whole days of the reporting timezone, today included. 1 is today alone."
ANYWAY = "Save it anyway"
CALCULATING = "Checking what this rule would send now…"
NAME_EXAMPLE = "For example: Large customers"

KIND_WORDS: Mapping[Kind, str] = {
    Kind.THRESHOLD: "Usage above a limit",
    Kind.UNUSUAL: "Unusual usage",
    Kind.FAILURE: "Failed work",
    Kind.UNSENT: "Credits not sent to Stripe",
    Kind.DEADLINE: "A deadline at Stripe",
    Kind.SUMMARY: "Weekly summary",
}
KIND_NOTES: Mapping[Kind, str] = {
    Kind.THRESHOLD: "Alerts when usage within some days is above an amount or a number of credits.",
    Kind.UNUSUAL: "Alerts when a day that is over has many more or fewer credits than such days usually have.",
    Kind.FAILURE: "Alerts once a day while pulls or pushes fail, and for each reconciliation or close that fails.",
    Kind.UNSENT: "Alerts once a day while credits wait for Stripe longer than this.",
    Kind.DEADLINE: (
        "Alerts once a day when time runs out: Stripe accepts usage for 35 days and until its invoice is final."
    ),
    Kind.SUMMARY: "Sends each organization's figures of the last week (Monday to Sunday) once.",
}
BY_WORDS: Mapping[Dimension, str] = {
    Dimension.ORGANIZATION: "Organization",
    Dimension.CUSTOMER: "Customer",
    Dimension.USER: "User",
    Dimension.CHATFLOW: "Chatflow",
    Dimension.MODEL: "Model",
}
MEASURE_WORDS: Mapping[Measure, str] = {Measure.AMOUNT_USD: "US dollars", Measure.CREDITS: "Credits"}


def recommended_text() -> str:
    """What the recommended rules are."""
    return "; ".join(in_words(terms) for terms in RECOMMENDED.values())


def process_text(process: Process) -> str:
    """Work that can fail, for a list: `Month close`."""
    word = PROCESS_WORDS[process]
    return word[:1].upper() + word[1:]


def receivers_text(labels: Sequence[str]) -> str:
    """Where alerts go: `Alerts go to: mailto://smt…, signed webhook`"""
    return f"Alerts go to: {', '.join(labels)}"


def rule_rows(rules: Sequence[ListedRule], zone: ZoneInfo, now: datetime) -> dict[str, list[str]]:
    """Rules as a table."""
    return {
        "Name": [one.rule.name for one in rules],
        "Alerts when": [in_words(one.rule.terms) for one in rules],
        "State": [state_text(one.rule, now) for one in rules],
        "Alerts": [f"{one.firings:,}" for one in rules],
        f"Last ({zone.key})": [
            "never" if one.last_fired_at is None else moment(one.last_fired_at, zone) for one in rules
        ],
    }


def state_text(rule: Rule, now: datetime) -> str:
    """Whether a rule alerts people: `on` or `muted`."""
    return "muted" if rule.is_muted(now) else "on"


def mute_text(mute: Mute, zone: ZoneInfo) -> str:
    """Who muted a rule until when, and why."""
    return f"Muted until {moment(mute.until, zone)[:16]} {zone.key} by {mute.by}: {mute.reason}"


def made_text(rule: Rule, zone: ZoneInfo) -> str:
    """Who made and changed a rule, and when."""
    text = f"Added by {rule.created_by} on {day_text(rule.created_at.astimezone(zone).date())}"
    if rule.changed_at == rule.created_at and rule.changed_by == rule.created_by:
        return f"{text}."
    return f"{text}, changed by {rule.changed_by} on {day_text(rule.changed_at.astimezone(zone).date())}."


def scope_text(rule: Rule) -> str | None:
    """Whose usage a limited rule counts."""
    organizations = rule.terms.organizations
    return None if organizations is None else f"Counts the usage of {', '.join(organizations) or 'nobody'} only."


def preview_text(preview: Preview, kind: Kind, by: Dimension) -> str:
    """What a rule would send at once."""
    if kind is Kind.SUMMARY:
        return "The first summaries are sent after the current week."
    if kind not in {Kind.THRESHOLD, Kind.UNUSUAL}:
        return f"It would send {count_of(preview.now, 'alert')} now."
    watched = count_of(preview.subjects, str(by))
    return f"It would send {count_of(preview.now, 'alert')} now. It watches {watched}."


def too_much_text(preview: Preview) -> str:
    """What happens to a rule that matches nearly everything."""
    return (
        f"That is a lot at once: {MOST_AT_ONCE} would be sent one by one and the other "
        f"{preview.now - MOST_AT_ONCE:,} summed up in one message. A higher limit sends less."
    )


STATE_WORDS: Mapping[DeliveryState, str] = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.WAITING: "waiting to be sent",
    DeliveryState.FAILED: "failed",
    DeliveryState.GIVEN_UP: "given up",
    DeliveryState.COVERED: "summed up",
    DeliveryState.NOT_SENT: "no address was set",
}


def firing_rows(found: Sequence[Firing], zone: ZoneInfo) -> dict[str, list[str]]:
    """Alerts as a table."""
    return {
        "Alert": [one.title for one in found],
        "Delivery": [STATE_WORDS[one.delivery.state] for one in found],
        f"Time ({zone.key})": [moment(one.fired_at, zone) for one in found],
        "Rule": [one.rule_name for one in found],
    }


def delivery_rows(found: Sequence[tuple[str, Delivery]], zone: ZoneInfo) -> dict[str, list[str]]:
    """How far an alert got to each address."""
    return {
        "Address": [label for label, _ in found],
        "Delivery": [STATE_WORDS[one.state] for _, one in found],
        "Tries": [f"{one.tries:,}" for _, one in found],
        f"Last ({zone.key})": ["–" if one.last is None else moment(one.last.at, zone) for _, one in found],
        "Why": ["" if one.last is None else one.last.error or "" for _, one in found],
        f"Next try ({zone.key})": ["–" if one.next_at is None else moment(one.next_at, zone) for _, one in found],
    }


def test_text(found: Sequence[tuple[str, str | None]]) -> str:
    """What became of a test message."""
    failed = [f"{label}: {error}" for label, error in found if error is not None]
    if not failed:
        return f"The test message reached {'the address' if len(found) == 1 else f'all {len(found):,} addresses'}."
    reached = len(found) - len(failed)
    return f"The test message reached {reached:,} of {len(found):,} addresses. {'; '.join(failed)}."


def check_text(fired: int, delivered: int, problems: Sequence[str]) -> str:
    """What a check did."""
    text = f"{count_of(fired, 'new alert')}, {count_of(delivered, 'message')} delivered."
    return f"{text} {'; '.join(problems)}" if problems else text
