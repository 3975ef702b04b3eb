"""Texts of the Organization Stats page. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from billing_core.notify.state import Delivery, DeliveryState
from billing_core.organizations.anomalies import Anomaly, AnomalyReport, PeriodAnomaly
from billing_core.organizations.drivers import SLOPE_DAYS, UsageChange
from billing_core.organizations.forecast import BackTest, Exhaustion, Forecast
from billing_core.organizations.limits import Limit
from billing_core.organizations.table import label
from billing_core.stripe_sync.customer_status import NO_SUBSCRIPTION
from billing_core.stripe_sync.pipeline import Amounts
from billing_core.values.counts import count_of
from components.organizations.formats import amount, cut, signed_amount
from components.shared.formats import UNKNOWN, ago, cut_percent, day_text, exact, moment, percent, short_credits
from components.stripe_sync.texts import amounts_text

if TYPE_CHECKING:
    from billing_core.organizations.directory import Applied, DirectoryEntry, DirectoryPreview, PreviewLine

ANOMALIES_NOTE = (
    "The usual range of a day comes from the same weekday of the 8 weeks before (from the last 28 days while there "
    "are fewer than 4 of them): the median, give or take the largest of 3.5 robust standard deviations, a quarter of "
    "the median and 1,000 credits. The deviation is the distance from the median. Small ones, in US dollars, are "
    "counted but not listed, and of one day the largest ones only."
)
SPLIT_NOTE = (
    "Volume: more or fewer events. Price: the same kind of event cost more or less (tokens, latency, rate card). "
    "Mix: other chatflows or models than usual. They add up to the difference from the average of the compared days."
)
PERIODS_NOTE = "The whole period compared with up to 4 previous periods of equal length, by the same rule as for days."
NOTHING_UNUSUAL = "No assessed day needs a look."
NONE_IN_SELECTION = "No unusual days in this selection. Choose All to see every one."
ANOMALIES_HINT = "Select rows to read what happened, to go to their events, and to mark them as seen."
ANOMALIES_CSV_NOTE = "Every anomaly with exact figures, seen or not."
MARK_NOTE = "Shown with the mark and recorded in the audit log."
NO_EVENTS_OF_THESE = "No usage events of these organizations in this period."
OPEN_HINT = "Click a bar to open its organization."
TREEMAP_HINT = "Click an area to drill down as far as its models; the bar above leads back."
USER_HINT = "Click a bar to see that user's events."
ACTIVE_USERS_HINT = "Click a day to see its events. The same user id in two organizations counts as two users."
DIRECTORY_NOTE = (
    "An event is billed to the customer its trace names; if it names none, to the customer its organization is "
    "mapped to here; otherwise to the default customer. Usage already sent stays with the customer it was sent to."
)
NOT_FOUND = "No organization matches this search."
NOTHING_CHANGED = "Nothing has changed yet."
ALL_ASSIGNED = "All unsent events have a customer assigned."
SAME_CUSTOMER = "The billed customer stays the same."
FROM_NOW_ON = "No unsent events move. New events that name no customer are billed this way from now on."
WITHOUT_DEFAULT = "Without a default customer they wait until one is assigned."
DIRECTORY_READ_ONLY = "Read-only: customers are assigned by admins who can see every organization."
DIRECTORY_CSV_NOTE = "The whole map, in the format the upload reads."
BILLED_FOR = "Billed for this organization's events that name no customer. "
NO_HISTORY = "Nobody has changed anything yet."
CUSTOMERS_NEVER_READ = "Stripe's customers have not been read yet; the view Plans and limits reads them."
UPLOAD_NOTE = (
    "A CSV with the columns organization_id, name and customer_id; one of the last two may be missing. An empty cell "
    "leaves the value as it is, a single - clears it. The download above has this format."
)
FORECAST_NOTE = (
    "A thousand futures are simulated from past days. The expected total is their median; the interval leaves out "
    "the lowest and the highest tenth. Plans people have are not taken into account."
)
USED_NOTE = "Credits of the period so far, exact."
RUNS_OUT_NOTE = "The day on which half of the simulated futures have used up what the plan includes."
BACK_TEST_NOTE = "Each of the last weeks is forecast from the days before it and compared with actual usage."
BULLET_LEGEND = (
    "Bar: used, its part over the plan in orange. Solid line: the plan. Dotted lines: thresholds of notices."
)
NO_CUSTOMER_KNOWN = (
    "No Stripe customer is known for this organization: no event within 90 days names one, and the directory has none."
)
PERIOD_NOTE = "The subscription's current period, not the calendar month."
SHARE_NOTE = "Percent of the credits included, cut to two decimals."
ORGANIZATIONS_NOTE = "The organizations the customer pays for; “Open” leads to the first."
EXPECTED_NOTE = "Credits at the period's end, with the 80 % interval."
RUNS_OUT_COLUMN = "When the included credits are used up."
ERROR_COLUMN = "How far forecasts of past weeks were off, on average."
CUSTOMERS_EVENTS = "The customer's usage events of the period."
OWN_PAGE = "The organization's own page."
READING_PLANS = ":material/sync: Reading plans from Stripe…"
NO_LIMITS = "No organization has had an event in the last 90 days or is in the directory."
LIMITS_CSV_NOTE = "All rows with exact figures, whatever the search."
RELATIVE_NOTE = (
    "Percentage changes are listed for organizations that had at least 1 % of all credits, or 1,000 credits, in the "
    "period before."
)
MORE_FIGURES = "More figures"
MORE_OF_ALL = "More figures, comparison and top movers"
SHOW_EVENTS = "Show events"
SHOW_CUSTOMERS = "Show all"
SHOW_PLANS = "Read plans"
AT_RISK = "Customers at risk"
AT_RISK_NOTE = (
    "Customers that have used at least {threshold} % of the credits their plan includes in its current period."
)
PLANS_NOT_READ = "unknown, because plans have not been read from Stripe yet"
OF_UNKNOWN_COST = "of events with unknown cost"
OWN_KEYS = "of it paid with customers’ own keys"
MARGIN_UNKNOWN = "The margin is unknown: Langfuse reports no cost for these events."
LATENCY_EVEN = "Latency is taken from the first start to the last end of a trace."
LATENCY_STRETCHED = (
    "The average latency ({average}) is above the 95th percentile ({p95}): fewer than one trace in twenty takes so "
    "long that it raises the average of all."
)
LONGEST_FIRST = "Longest traces first"
NO_MOVERS = "No organization's credits changed."
NO_THRESHOLD = "No threshold has been reached in the current periods."
SELECT_NOTICES = "Select customers in the table first."
LOWER_NOTICES = "Lower thresholds and earlier periods of these customers ({number:,})"
NOTICES_CSV_NOTE = "Every notice, open and seen, with exact figures."
NO_EVENTS_IN_PERIOD = "No usage events in this period. Choose a longer one, or refresh from Langfuse."
QUIET = "It had no events in this period or the one it is compared with."
EVENTS_HINT = "Click a bar to see its events."
MODELS_HINT = "Sets of models that traces used together. Click a bar of a single model to see its events."
BECAME_INACTIVE = "It became inactive: it had events in the period before, but none in this one."
DAY_HINT = "Click a bar to see its day's events."
INVOICES_LIMITED = (
    "Invoices belong to customers, not organizations; only accounts that see all organizations can view them."
)
NO_STRIPE_CUSTOMER = "No event of this period names a Stripe customer."
NOT_BILLED = "Not billed to any customer in this period."
SHARE_OF_ALL = "Share of all organizations' credits."
PER_DAY = "Over the days of the period."
CHANGE_NOTE = "In credits, against what the period is compared with."
BEFORE_NOTE = "Credits of what the period is compared with."
CUSTOMERS_NOTE = "Stripe customers that the organization's events are billed to; sorted by how many there are."
TABLE_CSV_NOTE = "Every row of this table with exact figures, in this order."


def anomaly_word(row: Anomaly | PeriodAnomaly) -> str:
    """The kind of an anomaly in two words."""
    if row.credits == 0:
        return "no usage"
    return "more than usual" if row.credits > row.expected.level else "less than usual"


def mark_text(row: Anomaly) -> str:
    """Whether somebody has seen an anomaly, and who."""
    if row.mark is None:
        return "new"
    return f"changed since seen by {row.mark.seen_by}" if row.has_changed else f"seen by {row.mark.seen_by}"


def summary_text(report: AnomalyReport, zone: ZoneInfo) -> str:
    """How many anomalies there are, of which days, and how many nobody has seen."""
    if report.first_day is None or report.last_day is None:
        return report.note or ""
    days = f"{day_text(report.first_day)} – {day_text(report.last_day)}, complete days in {zone.key}"
    found = (
        f"{count_of(len(report.rows), 'unusual day')}, {report.unseen:,} not seen" if report.rows else "no unusual day"
    )
    minor = f"{count_of(report.minor, 'smaller deviation')} not listed." if report.minor else None
    return " ".join(text for text in (f"{found}. Days assessed: {days}.", minor, report.note) if text)


def story(row: Anomaly, names: Mapping[str, str], zone: ZoneInfo) -> list[str]:
    """An anomaly in sentences: what happened, what was usual, what the difference is made of, who has seen it."""
    expected = row.expected
    compared = (
        f"the same weekday of the {count_of(len(row.compared), 'week')} before"
        if expected.is_weekday
        else f"the {count_of(len(row.compared), 'day')} before"
    )
    used = f"{label(row.organization_id, names)} used {amount(row.credits)} credits on {day_text(row.day)}."
    usual = (
        f"By {compared}, {amount(expected.low)} to {amount(expected.high)} is usual; the median is "
        f"{amount(expected.level)}."
    )
    told = [f"{used} {usual}"]
    if row.split is not None:
        parts = ", ".join(f"{name} {signed_amount(getattr(row.split, name))}" for name in ("volume", "price", "mix"))
        told.append(
            f"Compared with an average of those days ({amount(row.split.baseline)} credits) the "
            f"difference is {signed_amount(row.split.difference)}: {parts}."
        )
    if row.mark is not None:
        then = f"Seen by {row.mark.seen_by} at {moment(row.mark.seen_at, zone)} {zone.key}"
        if row.has_changed:
            then += f", when it was {amount(row.mark.credits)} credits"
        told.append(f"{then}: {row.mark.note}" if row.mark.note else f"{then}.")
    return told


def unbilled_text(entries: Sequence[DirectoryEntry]) -> str:
    """How much is not billed because no customer is named, in a sentence."""
    open_ones = [entry for entry in entries if entry.at_stake.events]
    if not open_ones:
        return ALL_ASSIGNED
    total = sum((entry.at_stake for entry in open_ones), Amounts())
    who = "1 organization has" if len(open_ones) == 1 else f"{len(open_ones):,} organizations have"
    return f"{who} unsent events with no customer assigned: {amounts_text(total)} unbilled."


def moved_text(step: PreviewLine) -> str:
    """What happens to an organization's unsent events when its line changes."""
    if not step.changes_customer:
        return SAME_CUSTOMER
    moved = step.moved
    if not moved.events:
        return FROM_NOW_ON
    what = amounts_text(Amounts(moved.events, moved.credits, moved.amount_usd))
    old, new = step.before.customer_id, step.after.customer_id
    if new is None:
        return f"Removed from {old}: {what}. {WITHOUT_DEFAULT}"
    if old is None:
        return f"Becomes billable to {new}: {what}."
    return f"Moves from {old} to {new}: {what}."


def save_label(step: PreviewLine) -> str:
    """The label of the button that saves one organization's line, with its effect."""
    return f"Save and move {count_of(step.moved.events, 'event')}" if step.moved.events else "Save"


def import_text(preview: DirectoryPreview) -> str:
    """What importing a directory file would do, in a sentence."""
    new = sum(step.is_new for step in preview.steps)
    counts = f"{new:,} new, {len(preview.steps) - new:,} changed, {preview.unchanged:,} unchanged"
    moved = preview.moved
    if not moved.events:
        return f"{counts}. No unsent events move."
    what = amounts_text(Amounts(moved.events, moved.credits, moved.amount_usd))
    return f"{counts}. The billed customer changes for {what}."


def applied_text(applied: Applied) -> str:
    """The result of changing the directory, in a sentence."""
    lines = count_of(applied.lines, "organization")
    if not applied.events_moved:
        return f"Saved {lines}. No unsent events moved."
    return f"Saved {lines}. {count_of(applied.events_moved, 'unsent event')} moved; the next push plans them again."


LONGEST_NAME = 60
"""Characters of a name inside a sentence."""


def interval_text(found: Forecast) -> str:
    """The 80 % interval of the sum at the period's end, in words."""
    if found.low == found.high:
        return "no day of the history differed from the weekly pattern"
    return f"80 % likely between {short_credits(found.low)} and {short_credits(found.high)}"


def period_text(found: Forecast, zone: ZoneInfo) -> str:
    """When the period ends, in the reporting timezone."""
    return f"The period ends at {moment(found.asked.period_end, zone)[:16]} {zone.key}."


def exhaustion_text(exhaustion: Exhaustion | None, included: int | None) -> tuple[str, str]:
    """When the included credits will be used up, as a headline and a sentence."""
    if exhaustion is None or included is None:
        return UNKNOWN, "No plan limit is known."
    limit = f"{included:,} included credits"
    if exhaustion.already:
        return "already", f"The {limit} are used up."
    if exhaustion.early is None:
        return "not in this period", f"The {limit} last until the period ends."
    early = day_text(exhaustion.early)
    if exhaustion.expected is None:
        return "probably not", f"The {limit} probably last; with high usage they run out on {early}."
    late = "not before the period ends" if exhaustion.late is None else f"as late as {day_text(exhaustion.late)}"
    return day_text(exhaustion.expected), f"The {limit} may run out as early as {early}, or {late}."


def error_text(tested: BackTest) -> str:
    """The error of earlier forecasts of this kind, in words."""
    if tested.error is None:
        return "There is not enough history to back-test this forecast, so its error is unknown."
    return (
        f"In back-tests 7-day sums were off by {percent(tested.error)} on average ({count_of(tested.origins, 'test')})."
    )


def driver_text(slope: UsageChange | None) -> str:
    """What drives a change of credits, in one sentence."""
    days = f"the last {SLOPE_DAYS} complete days"
    if slope is None:
        return f"No change of 10 % or more in {days} compared with the {SLOPE_DAYS} before."
    driver = slope.driver
    kind = driver.dimension
    named = f"events without a {kind}" if driver.value is None else f"{kind} {_named(driver.name, driver.value)}"
    moved = "rose" if slope.change > 0 else "fell"
    size = "from nothing" if slope.relative is None else f"by {percent(abs(slope.relative))}"
    return (
        f"Credits of {days} {moved} {size} compared with the {SLOPE_DAYS} before, from "
        f"{short_credits(slope.before)} to {short_credits(slope.now)}. Main driver: {named}, {percent(slope.share)} of "
        "the change."
    )


def _named(name: str | None, value: str) -> str:
    return f"{_short(name)} ({_short(value)})" if name and name != value else _short(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


LIMITS_NOTE = (
    "Credits of the customer's events in the subscription's current period, of those the plan includes. The plan is "
    "recognised by the price ids of the rate card."
)


NO_PLAN = "no subscription"


NO_CUSTOMER = "no customer"


NAMED = 5
"""Organizations of a shared customer that are named."""


def plan_text(limit: Limit) -> str:
    """The name of a limit's plan; a customer without subscription has none, anything else without a name is unknown."""
    if limit.plan is not None:
        return limit.plan
    if limit.customer_id is None:
        return NO_CUSTOMER
    return NO_PLAN if limit.state == NO_SUBSCRIPTION else UNKNOWN


def subscription_text(limit: Limit) -> str:
    """Stripe's subscription status in words."""
    return "" if limit.customer_id is None else state_words(limit.state)


def state_words(state: str) -> str:
    return NO_PLAN if state == NO_SUBSCRIPTION else state.replace("_", " ")


def used_text(limit: Limit) -> str:
    """Credits used and included: `9,500.5 of 10,000`; `unknown` for a side that is."""
    return "" if limit.is_without else f"{cut(limit.used)} of {exact(limit.included)}"


def share_text(limit: Limit) -> str:
    """Credits used as a sentence: `9,500.5 of 10,000 credits used: 95 %`, with what lies beyond the plan."""
    if limit.is_without:
        return "There is no live subscription: no credits are included, and usage is not invoiced."
    if limit.used is None or limit.included is None:
        return f"{cut(limit.used)} credits used of {exact(limit.included)} included"
    over = limit.used - limit.included
    beyond = f", {cut(over)} over the plan" if over > 0 else ""
    share = f": {cut_percent(limit.percent_used)}" if limit.included else ""
    return f"{cut(limit.used)} of {exact(limit.included)} credits used{share}{beyond}"


def organizations_text(limit: Limit, names: Mapping[str, str]) -> str:
    """The organizations that a customer pays for, the first few by name."""
    found = limit.sharing or (limit.organization_id,)
    named = ", ".join(label(one, names) for one in found[:NAMED])
    return f"{named} and {len(found) - NAMED:,} more" if len(found) > NAMED else named


def shared_text(limit: Limit, names: Mapping[str, str]) -> str:
    """The other organizations of the same customer, the first few by name."""
    others = limit.shared_with
    named = ", ".join(label(other, names) for other in others[:NAMED])
    return f"{named} and {len(others) - NAMED:,} more" if len(others) > NAMED else named


def age_text(read_at: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """How old the plans read from Stripe are."""
    if read_at is None:
        return "Plans have not been read from Stripe yet."
    return f"Plans read from Stripe {ago(read_at, now)} ({moment(read_at, zone)} {zone.key})."


def runs_out_text(forecast: Forecast) -> str:
    """When included credits run out: `already`, `28 Nov 2026 (26 Nov 2026 – 1 Dec 2026)`, `not in this period`."""
    out = forecast.exhaustion
    if out is None:
        return ""
    headline, _ = exhaustion_text(out, forecast.asked.included)
    if out.already or out.early is None:
        return headline
    return f"{headline} ({day_text(out.early)} – {'later' if out.late is None else day_text(out.late)})"


def delivery_text(delivery: Delivery, zone: ZoneInfo) -> str:
    """How far a notice got to its receivers, in a few words."""
    last = delivery.last
    why = "" if last is None or last.error is None else f": {last.error}"
    match delivery.state:
        case DeliveryState.DELIVERED:
            return f"delivered {moment(None if last is None else last.at, zone)}"
        case DeliveryState.FAILED:
            return f"failed after {_tries(delivery)}{why}; next try from {moment(delivery.next_at, zone)}"
        case DeliveryState.GIVEN_UP:
            return f"given up after {_tries(delivery)}{why}"
        case DeliveryState.COVERED:
            return "" if last is None else last.error or "covered by a higher one"
        case DeliveryState.WAITING:
            return "waiting to be sent"
        case DeliveryState.NOT_SENT:
            return "no address is set"


def _tries(delivery: Delivery) -> str:
    return "1 try" if delivery.tries == 1 else f"{delivery.tries:,} tries"
