"""Looks for what rules watch. Reads only; the figures are those that pages show for the same window and filter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing_core.access import Principal, Role
from billing_core.alerts.model import Found, Kind, Measure, Process, Rule, Terms
from billing_core.alerts.report import summary_of
from billing_core.alerts.rules import (
    DAY,
    PROCESS_WORDS,
    SUBJECT_WORDS,
    USUAL,
    day_window,
    iso_week_before,
    largest_first,
    measured,
    passing,
    shown,
    week_name,
)
from billing_core.errors import NotFound
from billing_core.ingest.service import PullService
from billing_core.ledger.audit_log import AuditLog
from billing_core.ledger.directory import DirectoryStore, names_in
from billing_core.ledger.journal import Ledger
from billing_core.ledger.pipeline_queries import unsent
from billing_core.ledger.push_log import PushLog
from billing_core.ledger.reconciliations import newest_reconciliation
from billing_core.organizations.anomalies import ActOn, Anomaly
from billing_core.organizations.anomaly_detection import LOOK_BACK, judge
from billing_core.organizations.daily import DailyHistory, DailyUsage
from billing_core.organizations.figures import OrganizationFigures
from billing_core.organizations.service import OrganizationService
from billing_core.runtime.clock import Clock
from billing_core.settings import Settings, page_link
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.types import GetUsageEventsParams, PipelineStage, plain_decimal, utc_text
from billing_core.usage_events.explore_model import Dimension, ExploreQuestion, Metric, PeriodLength
from billing_core.usage_events.service import UsageEventsService
from billing_core.values.shown import day_text

LOOKED_AT = 50
"""Runs of a process looked at for the beginning of its failures."""

WAIT_FOR_USAGE = timedelta(days=1)
"""How long after a week the summary waits for Langfuse to be read to its end."""

USAGE_PAGE, STRIPE_PAGE, MONTH_PAGE, STATISTICS_PAGE = "", "stripe_sync", "month_close", "organization_stats"

ZERO = Decimal(0)


class Watcher:
    """Finds what a rule watches, for the account that made it. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        events: UsageEventsService,
        organizations: OrganizationService,
        stripe: StripeSyncService,
        pulls: PullService,
        clock: Clock,
    ) -> None:
        self._settings, self._ledger, self._events = settings, ledger, events
        self._organizations, self._stripe, self._pulls, self._clock = organizations, stripe, pulls, clock
        self._zone = settings.zone

    def find(self, rule: Rule) -> list[Found]:
        """What the rule finds now, newest window and largest first; it may have been told before."""
        finders: Mapping[Kind, Callable[[Rule], Iterator[Found]]] = {
            Kind.THRESHOLD: self._thresholds,
            Kind.UNUSUAL: self._unusual,
            Kind.FAILURE: self._failures,
            Kind.UNSENT: self._unsent,
            Kind.DEADLINE: self._deadlines,
            Kind.SUMMARY: self._summaries,
        }
        return largest_first(finders[rule.terms.kind](rule))

    def subjects(self, terms: Terms) -> int:
        """How many subjects with usage in the last 92 days the terms could be about."""
        if terms.subject is not None or terms.kind not in {Kind.THRESHOLD, Kind.UNUSUAL}:
            return 1
        today = self._today()
        params = self._params(terms, today - 91 * DAY, today)
        found = self._events.explore(params, ExploreQuestion((terms.by,)), _reader(terms))
        return sum(row.values[0] is not None for row in found.rows)

    def summary(self, terms: Terms, organization_id: str, monday: date) -> Found:
        """The weekly summary of one organization, whether it is due or not.

        Raises NotFound: if it had no usage in that week.
        """
        found = [one for one in self._figures(terms, monday) if one.organization_id == organization_id]
        if not found:
            raise NotFound(f"{organization_id!r} has no usage in week {week_name(monday)}")
        return self._summary(terms, found[0], monday, ())

    # ── usage ────────────────────────────────────────────────────────────────────────────────────

    def _today(self) -> date:
        return self._clock().astimezone(self._zone).date()

    def _first_watched(self, rule: Rule, today: date) -> date:
        """The first day that may end a window: late usage counts as long as pulls look for it, and no day before the
        rule.
        """
        look_back = -(-self._settings.lookback_hours // 24)
        return min(today, max(rule.changed_at.astimezone(self._zone).date(), today - look_back * DAY))

    def _params(self, terms: Terms, first: date, last: date) -> GetUsageEventsParams:
        start, end = day_window(first, last, self._zone)
        subject = {} if terms.subject is None else {terms.by.value: (terms.subject,)}
        return GetUsageEventsParams.parse({"from": start, "to": end, **subject})

    def _per_day(self, terms: Terms, metric: Metric, first: date, last: date) -> dict[str, dict[date, Decimal]]:
        """Subject → day → its usage; of a model, its own parts of events. What names no subject is left out."""
        question = ExploreQuestion((terms.by,), metric, PeriodLength.DAY)
        found: dict[str, dict[date, Decimal]] = {}
        for row in self._events.explore(self._params(terms, first, last), question, _reader(terms)).rows:
            (subject,) = row.values
            if subject is None or row.period is None or row.value is None or terms.subject not in (None, subject):
                continue
            found.setdefault(subject, {})[row.period] = row.value
        return found

    def _named(self, terms: Terms, subject: str) -> str:
        name = self._names().get(subject) if terms.by is Dimension.ORGANIZATION else None
        return subject if name is None else f"{name} ({subject})"

    def _names(self) -> dict[str, str]:
        return names_in(DirectoryStore(self._ledger.engine).newest())

    def _view(self, terms: Terms, subject: str, first: date, last: date) -> dict[str, Any]:
        """URL parameters of the view with exactly the usage that counted."""
        query: dict[str, Any] = {"period": "Custom", "first_day": first.isoformat(), "last_day": last.isoformat()}
        query[terms.by.value] = subject
        if terms.by is Dimension.MODEL:  # an event with several models counts in parts
            query |= {"view": "explore", "by": "model", "metric": terms.measure.value}
        if terms.organizations is not None and terms.by is not Dimension.ORGANIZATION:
            query["organization"] = list(terms.organizations)
        return query

    def _thresholds(self, rule: Rule) -> Iterator[Found]:
        terms, today = rule.terms, self._today()
        first = self._first_watched(rule, today)
        limit = terms.above or ZERO
        usage = self._per_day(terms, Metric(terms.measure.value), first - (terms.days - 1) * DAY, today)
        for subject, per_day in usage.items():
            for last, total in passing(per_day, terms.days, limit, first, today):
                yield self._passed(terms, subject, last, total, limit, is_over=last < today)

    def _passed(
        self, terms: Terms, subject: str, last: date, total: Decimal, limit: Decimal, *, is_over: bool
    ) -> Found:
        first = last - (terms.days - 1) * DAY
        start, end = day_window(first, last, self._zone)
        who, what = self._named(terms, subject), measured(total, terms.measure)
        when = f"on {day_text(last)}" if terms.days == 1 else f"from {day_text(first)} to {day_text(last)}"
        so_far = "" if is_over else " so far"
        text = (
            f"{SUBJECT_WORDS[terms.by]} {who} used {what} {when} ({self._zone.key}){so_far}. "
            f"The limit is {measured(limit, terms.measure)}."
        )
        span = "in a day" if terms.days == 1 else f"in {terms.days} days"
        return Found(
            subject,
            start,
            end,
            f"{who} used {shown(total, terms.measure, above=limit)} {span}, more than {measured(limit, terms.measure)}",
            text,
            USAGE_PAGE,
            self._view(terms, subject, first, last),
            total,
            facts={"by": terms.by.value, "measure": terms.measure.value, "limit": plain_decimal(limit)},
        )

    # ── the usual range ──────────────────────────────────────────────────────────────────────────

    def _unusual(self, rule: Rule) -> Iterator[Found]:
        terms, today = rule.terms, self._today()
        first = self._first_watched(rule, today) - DAY  # the newest day that is over is yesterday
        first = max(first, rule.changed_at.astimezone(self._zone).date())
        start, end = day_window(min(first, today), today, self._zone)
        only = terms.subject if terms.by is Dimension.ORGANIZATION else None
        report = self._organizations.forecasting.anomalies(_reader(terms), start, end, only)
        if report.first_day is None or report.last_day is None:
            return
        rows: Sequence[Anomaly] = report.rows
        if terms.by is not Dimension.ORGANIZATION:
            rows = self._judged(terms, report.first_day, report.last_day, report.as_of)
        for row in rows:
            if row.organization_id is not None and not row.is_seen:
                yield self._anomaly(terms, row)

    def _judged(self, terms: Terms, first: date, last: date, as_of: int) -> Sequence[Anomaly]:
        """The same check as of organizations, for users, models and so on: their days in place of an organization's."""
        begin = first - timedelta(days=LOOK_BACK)
        held = self._per_day(terms, Metric.CREDITS, begin, last)
        dollars = self._per_day(terms, Metric.AMOUNT_USD, begin, last)
        series: dict[str | None, DailyUsage] = {
            subject: _series(days, dollars.get(subject, {}), last) for subject, days in held.items()
        }
        at = datetime.combine(last, datetime.max.time(), self._zone)
        act_on = ActOn(self._settings.anomaly_minimum_usd, self._settings.anomalies_per_day)
        return judge(DailyHistory(at, begin, last, series, {}), first, last, as_of=as_of, act_on=act_on).rows

    def _anomaly(self, terms: Terms, row: Anomaly) -> Found:
        subject, usual = row.organization_id or "", row.expected
        start, end = day_window(row.day, row.day, self._zone)
        credits_, low, high = (measured(one, Measure.CREDITS) for one in (row.credits, usual.low, usual.high))
        whose = f"of the same weekday in {len(usual.sample)} weeks" if usual.is_weekday else "of the days before"
        who, day = self._named(terms, subject), day_text(row.day)
        how_many = "many" if row.credits > usual.high else "few"
        text = (
            f"{SUBJECT_WORDS[terms.by]} {who} used {credits_} on {day} ({self._zone.key}). The usual range {whose} is "
            f"{low} to {high}. {USUAL}"
        )
        return Found(
            subject,
            start,
            end,
            f"{who} used {shown(row.credits, Measure.CREDITS)} on {day}, unusually {how_many}",
            text,
            USAGE_PAGE,
            self._view(replace(terms, measure=Measure.CREDITS), subject, row.day, row.day),
            row.credits_at_stake,
            facts={
                "by": terms.by.value,
                "credits": plain_decimal(row.credits),
                "low": plain_decimal(usual.low),
                "high": plain_decimal(usual.high),
            },
        )

    # ── work that failed ─────────────────────────────────────────────────────────────────────────

    def _failures(self, rule: Rule) -> Iterator[Found]:
        finders: Mapping[Process, Callable[[datetime], tuple[str, datetime, str] | None]] = {
            Process.PULL: self._failed_pull,
            Process.PUSH: self._failed_push,
            Process.RECONCILE: self._failed_reconciliation,
            Process.CLOSE: self._failed_close,
        }
        for process in rule.terms.processes:
            failed = finders[process](rule.changed_at)
            if failed is None:
                continue
            occasion, at, why = failed
            day = at.astimezone(self._zone).date()
            start, end = day_window(day, day, self._zone)
            word = PROCESS_WORDS[process]
            page = {Process.PULL: USAGE_PAGE, Process.CLOSE: MONTH_PAGE}.get(process, STRIPE_PAGE)
            text = f"The {word} of {at.astimezone(self._zone):%Y-%m-%d %H:%M} {self._zone.key} failed: {why}"
            yield Found(process.value, start, end, f"A {word} failed", text, page, occasion=occasion)

    def _failed_pull(self, _since: datetime) -> tuple[str, datetime, str] | None:
        """The newest pull, if it failed or was stopped; told once a day as long as pulls fail."""
        runs = [(run.run_id, run.started_at, run.outcome, run.error) for run in self._ledger.last_runs(LOOKED_AT)]
        return self._failing(runs, "pull_failed", is_running=self._pulls.freshness().running)

    def _failed_push(self, _since: datetime) -> tuple[str, datetime, str] | None:
        """The newest push, as of pulls."""
        newest = PushLog(self._ledger.engine).newest(LOOKED_AT)
        runs = [(run.push_id, run.started_at, run.outcome, run.error) for run in newest]
        return self._failing(runs, "push_failed", is_running=self._stripe.is_pushing())

    def _failing(
        self, runs: Sequence[tuple[str, datetime, str, str | None]], action: str, *, is_running: bool
    ) -> tuple[str, datetime, str] | None:
        """`action` is how the audit log calls those that failed before they had a line in their own log."""
        early = AuditLog(self._ledger.engine).newest_of(action, limit=LOOKED_AT)
        failed_early = [(str(one.seq), one.happened_at, "failed", json.loads(one.detail).get("why")) for one in early]
        runs = sorted([*runs, *failed_early], key=lambda run: run[1], reverse=True)[:LOOKED_AT]
        if is_running and runs and runs[0][2] == "running":
            runs = runs[1:]
        failed = []
        for run in runs:
            if run[2] not in {"failed", "running"}:
                break
            failed.append(run)
        if not failed:
            return None
        _, at, outcome, error = failed[0]
        since_when = "" if len(failed) == 1 else f" ({len(failed)} times in a row)"
        why = (error or "it failed") if outcome == "failed" else "it was stopped before it finished"
        first = "" if len(failed) == LOOKED_AT else failed[-1][0]  # beyond that nobody knows when it began
        return first, at, f"{why}{since_when}"

    def _failed_reconciliation(self, since: datetime) -> tuple[str, datetime, str] | None:
        """The newest reconciliation, if it failed, could not read a source, or left credits unexplained; told once."""
        if (failed := self._newest_failed("reconcile", since)) is not None:
            return failed
        document = newest_reconciliation(self._ledger.engine.rows)
        found = {} if document is None else json.loads(document)
        made_at = datetime.fromisoformat(found["made_at"]) if found.get("made_at") else None
        if made_at is None or made_at < since:
            return None
        unexplained = found.get("unexplained_credits")
        if found.get("problems"):
            return utc_text(made_at), made_at, str(found["problems"][0])
        if unexplained is not None and Decimal(unexplained) != 0:
            return utc_text(made_at), made_at, f"{measured(Decimal(unexplained), Measure.CREDITS)} are unexplained"
        return None

    def _failed_close(self, since: datetime) -> tuple[str, datetime, str] | None:
        """The newest close of a month that was refused or failed; told once."""
        return self._newest_failed("close", since)

    def _newest_failed(self, action: str, since: datetime) -> tuple[str, datetime, str] | None:
        """The newest of some work, if the audit log has it as failed."""
        for entry in AuditLog(self._ledger.engine).newest_of(action, f"{action}_failed"):
            if entry.action != action and entry.happened_at >= since:
                detail = json.loads(entry.detail)
                period = f"{detail['period']}: " if "period" in detail else ""
                return str(entry.seq), entry.happened_at, f"{period}{detail.get('why')}"
        return None

    # ── the way to Stripe ────────────────────────────────────────────────────────────────────────

    def _this_day(self) -> tuple[datetime, datetime]:
        today = self._today()
        return day_window(today, today, self._zone)

    def _unsent(self, rule: Rule) -> Iterator[Found]:
        """Once a day, while there are any."""
        now = self._clock()
        (row,) = self._ledger.read_rows(unsent(now - timedelta(hours=rule.terms.hours)))
        if not row["events"]:
            return
        start, end = self._this_day()
        held, hours = measured(row["credits"], Measure.CREDITS), rule.terms.hours
        oldest: datetime = row["oldest"].replace(tzinfo=UTC).astimezone(self._zone)
        text = (
            f"{held} of {row['events']:,} events are not in Stripe after more than {hours:,} hours; the oldest began "
            f"{oldest:%Y-%m-%d %H:%M} {self._zone.key}. Stripe Sync says why, and what to do."
        )
        yield Found(
            None, start, end, f"{held} unsent for more than {hours:,} hours", text, STRIPE_PAGE, {}, row["credits"]
        )

    def _deadlines(self, rule: Rule) -> Iterator[Found]:
        """What Stripe Sync says needs action, if its time runs out; once a day."""
        now, principal = self._clock(), _reader(rule.terms)
        start, end = self._this_day()
        until = now + timedelta(hours=rule.terms.hours)
        for problem in self._stripe.problems(principal):
            if problem.due is not None and problem.due.at <= until:
                due, why = problem.due, f"{problem.title}: {problem.what_to_do}"
                yield self._deadline(problem.cause, due.at, due.customer_id, problem.amounts.credits, why, start, end)
        pipeline, final = self._stripe.pipeline(principal), self._stripe.next_deadline(principal)
        (row,) = self._ledger.read_rows(unsent(now, only_pending=True))
        ends = [] if pipeline.due is None else [(pipeline.due.at, pipeline.due.customer_id)]
        if final is not None and final.finalizes_at > now:
            ends.append((final.finalizes_at, final.customer_id))
        if row["events"] and ends and min(ends)[0] <= until:
            at, customer = min(ends, key=lambda one: one[0])
            why = "Nothing but a push is missing for it."
            yield self._deadline(PipelineStage.PENDING, at, customer, row["credits"], why, start, end)

    def _deadline(
        self, cause: str, at: datetime, customer: str | None, held: Decimal, why: str, start: datetime, end: datetime
    ) -> Found:
        when = f"{at.astimezone(self._zone):%Y-%m-%d %H:%M} {self._zone.key}"
        ends = (
            "Stripe accepts nothing older than 35 days"
            if customer is None
            else f"the draft invoice of {customer} becomes final"
        )
        text = f"{measured(held, Measure.CREDITS)} are not in Stripe, and at {when} {ends}. {why}"
        return Found(cause, start, end, f"Usage must reach Stripe by {when}", text, STRIPE_PAGE, {}, held)

    # ── weekly summaries ─────────────────────────────────────────────────────────────────────────

    def _summaries(self, rule: Rule) -> Iterator[Found]:
        """One for each organization with usage in the last ISO week that is over, and has been read to its end."""
        monday = iso_week_before(self._today())
        _, end = day_window(monday, monday + 6 * DAY, self._zone)
        if end <= rule.created_at:
            return
        notes: tuple[str, ...] = ()
        read = self._ledger.covered_until()
        if read is not None and read < end:
            if self._clock() < end + WAIT_FOR_USAGE:
                return
            notes = (f"Langfuse was read until {read.astimezone(self._zone):%Y-%m-%d %H:%M}: the week is incomplete.",)
        for figures in self._figures(rule.terms, monday):
            yield self._summary(rule.terms, figures, monday, notes)

    def _figures(self, terms: Terms, monday: date) -> Iterator[OrganizationFigures]:
        """Those of Organization Stats for the week."""
        statistics = self._organizations.statistics(self._params(terms, monday, monday + 6 * DAY), _reader(terms))
        for one in statistics.organizations:
            if one.organization_id is not None and one.now.events and terms.subject in (None, one.organization_id):
                yield one

    def _summary(self, terms: Terms, figures: OrganizationFigures, monday: date, notes: tuple[str, ...]) -> Found:
        organization, sunday = figures.organization_id or "", monday + 6 * DAY
        name = self._names().get(organization) or organization
        start, end = day_window(monday, sunday, self._zone)
        sees_costs = _reader(terms).sees_costs
        summary = summary_of(figures, name, monday, self._zone.key, with_costs=sees_costs, notes=notes)
        query = {"period": "Custom", "first_day": monday.isoformat(), "last_day": sunday.isoformat()}
        query["organization"] = organization
        return Found(
            organization,
            start,
            end,
            summary.title,
            summary.text,
            USAGE_PAGE,
            query,
            figures.now.credits.total,
            html=summary.html(page_link(self._settings, USAGE_PAGE, query)),
            facts={
                "week": week_name(monday),
                "credits": plain_decimal(figures.now.credits.total),
                "amount_usd": plain_decimal(figures.now.amount_usd),
                "events": figures.now.events,
            },
        )


def _reader(terms: Terms) -> Principal:
    """Whose eyes a rule looks with: it counts what the account that made it may see."""
    return Principal("alerts", Role.ADMIN, None if terms.organizations is None else frozenset(terms.organizations))


def _series(held: Mapping[date, Decimal], dollars: Mapping[date, Decimal], last: date) -> DailyUsage:
    first = min(held)
    days = [first + DAY * number for number in range((last - first).days + 1)]
    credits_, amounts = (tuple(one.get(day, ZERO) for day in days) for one in (held, dollars))
    return DailyUsage(first, False, credits_, amounts)
