"""Forecasts, drivers of changed usage, and anomalies of organizations. For admins only. Part of `BillingService`.

An admin limited to organizations gets answers about those alone, made from nothing else. What is remembered is keyed by
scope, booking number and the moment until which usage is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from billing_core.access import Principal, Role, scope_of
from billing_core.errors import AccessDenied, BadParameter, NotFound
from billing_core.ledger import history, queries
from billing_core.ledger.anomaly_marks import AnomalyMark, AnomalyMarks
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.organizations.anomalies import ActOn, Anomaly, AnomalyReport
from billing_core.organizations.anomaly_csv import csv_document
from billing_core.organizations.anomaly_detection import LOOK_BACK, PERIOD_LENGTHS, judge
from billing_core.organizations.daily import Account, DailyHistory, DailyUsage, daily_history, day_number
from billing_core.organizations.drivers import DIMENSIONS, SLOPE_DAYS, UsageChange, slope_driver
from billing_core.organizations.forecast import Forecast, ForecastInput, NotEnough, forecast
from billing_core.organizations.limits import Limit
from billing_core.organizations.variance import Segment, Variance, averaged, split
from billing_core.runtime.clock import Clock
from billing_core.settings import Settings
from billing_core.values.decimals import EXACT, exact_sum
from billing_core.values.usage_frame import aware_in

if TYPE_CHECKING:
    from billing_core.organizations.limits_service import LimitsService

HISTORY_DAYS = 120
"""Days a forecast learns from: 17 weeks of rhythm, and nothing so old that it misleads."""

LONGEST_WINDOW = 92
"""Days judged at once; of a longer window the last ones are."""

LONGEST_NOTE = 300

REMEMBERED_HISTORIES = 4
"""Each holds every organization's days: some megabytes for hundreds of them."""

REMEMBERED = 16
REMEMBERED_FORECASTS = 2048

CSV_SPLITS = 200
"""Anomalies split per read while a CSV streams."""

DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)


Kinds = dict[tuple[str | None, str], tuple[int, Decimal]]
"""Chatflow and set of models → events and credits."""

Segments = dict[tuple[str | None, int], Kinds]
"""Organization and day number → what its events were."""


class ForecastService:
    """Forecasts, drivers of changed usage, and anomalies, for one principal per call. Thread-safe; one per service."""

    def __init__(self, settings: Settings, ledger: Ledger, clock: Clock, limits: LimitsService) -> None:
        self._zone = settings.zone
        self._act_on = ActOn(settings.anomaly_minimum_usd, settings.anomalies_per_day)
        self._ledger = ledger
        self._clock = clock
        self._limits = limits
        self._marks = AnomalyMarks(ledger.engine)
        self._history = lru_cache(REMEMBERED_HISTORIES)(self._read_history)
        self._judged = lru_cache(REMEMBERED)(self._judge)
        self._slope = lru_cache(REMEMBERED_FORECASTS)(self._read_slope)
        self._forecast = lru_cache(REMEMBERED_FORECASTS)(forecast)

    # ── forecast ─────────────────────────────────────────────────────────────────────────────────

    def forecast(self, principal: Principal, organization_id: str | None) -> Forecast | NotEnough:
        """The forecast of credits at the end of an organization's period, or why there is none.

        The period is its customer's at Stripe; where none is known, the calendar month of the reporting timezone, and
        the notes say so. With several customers it is about the one with the largest use. `None` asks about events
        that name no organization.

        Raises AccessDenied: unless the principal is an admin who may see the organization.
        """
        return self.forecasts(principal, (organization_id,))[organization_id]

    def forecasts(
        self, principal: Principal, organization_ids: Iterable[str | None]
    ) -> dict[str | None, Forecast | NotEnough]:
        """The forecasts of some organizations; a new one takes a twentieth of a second, an old one is cached."""
        wanted = tuple(organization_ids)
        for one in wanted:
            self._require(principal, one)
        selection = self._selection(principal, None)
        if selection is None:
            return dict.fromkeys(wanted, NotEnough("No usage is known yet."))
        limits: dict[str | None, list[Limit]] = {}
        for limit in self._limits.read(principal).rows:
            limits.setdefault(limit.organization_id, []).append(limit)
        return {one: self._forecast_of(one, _largest(limits.get(one, ())), selection) for one in wanted}

    def _forecast_of(
        self, organization_id: str | None, limit: Limit | None, selection: Selection
    ) -> Forecast | NotEnough:
        past = self._past(selection)
        notes: tuple[str, ...]
        if organization_id is None:
            question = self._month(past, None)
            notes = (f"Events without an organization have no plan: this covers the calendar month ({self._zone}).",)
        elif limit is None:
            question = self._month(past, organization_id)
            notes = (f"No billing period is known, so this covers the calendar month ({self._zone}).",)
        else:
            question, notes = self._period(past, organization_id, limit)
        answer = self._forecast(question)
        if isinstance(answer, NotEnough):
            return answer
        if past.today < self._clock().astimezone(self._zone).date():
            notes = (
                *notes,
                f"Usage is known until {past.at:%Y-%m-%d %H:%M} {self._zone.key}; the forecast starts there.",
            )
        return replace(answer, notes=notes)

    def driver(self, principal: Principal, organization_id: str | None) -> UsageChange | None:
        """The driver of an organization's change in credits between the last 14 complete days and the 14 before.

        `None` for changes under 10 %, and for organizations younger than both. Raises as `forecast`.
        """
        self._require(principal, organization_id)
        selection = self._selection(principal, None)
        return None if selection is None else self._slope(selection, organization_id)

    def history(self, principal: Principal) -> DailyHistory | None:
        """The daily usage that forecasts learn from, of everything the principal may see; `None` without any."""
        principal.require(Role.ADMIN)
        selection = self._selection(principal, None)
        return None if selection is None else self._past(selection)

    def _past(self, selection: Selection) -> DailyHistory:
        assert selection.end is not None  # noqa: S101 - `_selection` sets it
        today = (selection.end - MOMENT).astimezone(self._zone).date()
        return self._history(selection, today - timedelta(days=HISTORY_DAYS))

    def _month(self, past: DailyHistory, organization_id: str | None) -> ForecastInput:
        """The whole organization in the calendar month; nothing is known about what is included."""
        usage = past.organizations.get(organization_id)
        first = self._clock().astimezone(self._zone).date().replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        days = max(0, (past.today - first).days + 1)
        used = Decimal(0) if usage is None or not days else exact_sum(usage.credits[-days:])
        return self._question(past, usage, self._midnight(first), self._midnight(following), used, None)

    def _period(self, past: DailyHistory, organization_id: str, limit: Limit) -> tuple[ForecastInput, tuple[str, ...]]:
        """The customer's credits in its period if it serves this organization alone, else the organization's part."""
        customer = limit.customer_id
        notes: list[str] = []
        keys: list[Account]
        if limit.shared_with:
            keys = [(organization_id, customer)]
            used, included = limit.own_used, None
            notes.append(
                f"{customer} is the customer of other organizations too: this covers the credits of this organization "
                "alone and does not say when the customer's plan runs out."
            )
        else:
            keys = [key for key in past.accounts if key[1] == customer]
            used, included = limit.used, limit.included
            if (None, customer) in keys:
                notes.append(f"Credits of {customer} whose events name no organization are counted in.")
        if any(key[0] == organization_id and key[1] not in {None, customer} for key in past.accounts):
            notes.append(f"The organization has other customers too: this covers {customer} alone.")
        usage = past.together(keys)
        question = self._question(past, usage, limit.period_start, limit.period_end, used or Decimal(0), included)
        return question, tuple(notes)

    def _question(
        self,
        past: DailyHistory,
        usage: DailyUsage | None,
        start: datetime | None,
        end: datetime | None,
        used: Decimal,
        included: int | None,
    ) -> ForecastInput:
        days, today = ((), Decimal(0)) if usage is None else (usage.complete, usage.today)
        return ForecastInput(past.at, self._zone, days, today, start, end, used, included)

    def _read_slope(self, selection: Selection, organization_id: str | None) -> UsageChange | None:
        past = self._past(selection)
        usage = past.organizations.get(organization_id)
        first = past.today - timedelta(days=2 * SLOPE_DAYS)
        if usage is None or (usage.first_day > first and not usage.is_older):
            return None
        window = replace(selection, start=self._midnight(first), end=self._midnight(past.today))
        middle = self._midnight(past.today - timedelta(days=SLOPE_DAYS))
        before: dict[str, dict[str | None, Decimal]] = {name: {} for name in DIMENSIONS}
        now: dict[str, dict[str | None, Decimal]] = {name: {} for name in DIMENSIONS}
        names: dict[tuple[str, str | None], str] = {}
        for row in self._ledger.read_rows(history.slices(window, organization_id, middle)):
            dimension, value = row["dimension"], row["value"]
            if dimension == "model" and value is not None:
                value = " + ".join(queries.split_models(value)) or None
            (now if row["is_now"] else before)[dimension][value] = row["credits"]
            if row["name"]:
                names[dimension, value] = row["name"]
        slope = slope_driver(before, now)
        if slope is None:
            return None
        driver = slope.driver
        return replace(slope, driver=replace(driver, name=names.get((driver.dimension, driver.value))))

    # ── anomalies ────────────────────────────────────────────────────────────────────────────────

    def anomalies(
        self, principal: Principal, start: datetime | None, end: datetime | None, organization: str | None = None
    ) -> AnomalyReport:
        """The anomalies among the complete days of `[start, end)`: days outside an organization's usual range, ranked.

        Times without an offset are in the reporting timezone. Only days that are over, and until the end of which
        Langfuse was read, are assessed. The rows have no `split` yet: see `explained`.

        Raises AccessDenied: unless the principal is an admin who may see the organization.
        """
        principal.require(Role.ADMIN)
        if organization is not None:
            principal.require_organization(organization)
        start, end = (None if time is None else aware_in(self._zone, time) for time in (start, end))
        selection = self._selection(principal, organization)
        nothing = AnomalyReport((), (), (), None, None, 0, "No usage is known yet.")
        if selection is None:
            return nothing
        as_of = selection.snapshot.as_of
        first, last, note = self._window(selection, start, end)
        if first > last:
            return replace(nothing, as_of=as_of, note="No day of this window is over and completely read yet.")
        report = replace(self._judged(selection, first, last), note=note)
        marks = self._marks.all()
        rows = (
            replace(row, mark=marks[row.organization_id, row.day]) if (row.organization_id, row.day) in marks else row
            for row in report.rows
        )
        return replace(report, rows=tuple(rows))

    def explained(self, principal: Principal, report: AnomalyReport, rows: Sequence[Anomaly]) -> tuple[Anomaly, ...]:
        """The anomalies with their `split` into volume, price and mix: only for those shown, because it reads their
        events.

        The baseline is an average day of those the expected level came from, so it is near that level, not equal.
        """
        principal.require(Role.ADMIN)
        selection = self._selection(principal, None)
        if selection is None or not rows:
            return tuple(rows)
        days = {(row.organization_id, day_number(day)) for row in rows for day in (row.day, *row.compared)}
        window = replace(
            selection,
            snapshot=self._ledger.snapshot(report.as_of),
            start=self._midnight(min(day for row in rows for day in (row.day, *row.compared))),
            end=self._midnight(max(row.day for row in rows) + DAY),
        )
        expression = history.segments(window, self._zone, sorted({one for one, _ in days if one is not None}))
        table = self._ledger.engine.read(expression, {history.GIVEN_DAYS: history.given_days(days)})
        found: Segments = {}
        for row in table.to_pylist():
            kinds = found.setdefault((row["organization_id"], row["day"]), {})
            kinds[row["chatflow"], row["models"]] = (row["events"], row["credits"])
        return tuple(replace(row, split=_split(row, found)) for row in rows)

    def mark(
        self,
        principal: Principal,
        organization_id: str | None,
        day: date,
        note: str = "",
        *,
        credits_shown: Decimal | None = None,
    ) -> None:
        """Mark an anomaly as seen. `credits_shown` are the day's as the reader saw them, should they change meanwhile.

        Raises NotFound: if that day of that organization is no anomaly. BadParameter: for a note that is too long.
        """
        self._require(principal, organization_id)
        note = " ".join(note.split())
        if len(note) > LONGEST_NOTE:
            raise BadParameter("note", f"{note[:20]}…", f"at most {LONGEST_NOTE} characters")
        found = self._anomaly(principal, organization_id, day)
        if found is None:
            raise NotFound(
                f"{day.isoformat()} of {organization_id or 'events without an organization'} is not an anomaly; "
                "reload the page, its usage may have changed"
            )
        seen = found.credits if credits_shown is None else credits_shown
        self._marks.put((organization_id, day), AnomalyMark(seen, self._clock(), principal.name, note))

    def unmark(self, principal: Principal, organization_id: str | None, day: date) -> None:
        """Remove the mark of an anomaly. Raises `NotFound` if there is none."""
        self._require(principal, organization_id)
        if not self._marks.remove((organization_id, day), actor=principal.name):
            raise NotFound(
                f"{day.isoformat()} of {organization_id or 'events without an organization'} is not marked as seen; "
                "reload the page, somebody may have removed the mark"
            )

    def anomalies_csv(
        self, principal: Principal, start: datetime | None, end: datetime | None, organization: str | None = None
    ) -> Iterator[bytes]:
        """Every anomaly with its split as CSV, in pieces; access is checked before the first one. As `anomalies`."""
        report = self.anomalies(principal, start, end, organization)

        def pieces() -> Iterator[Sequence[Anomaly]]:
            for offset in range(0, len(report.rows), CSV_SPLITS):
                yield self.explained(principal, report, report.rows[offset : offset + CSV_SPLITS])

        return csv_document(pieces())

    def _anomaly(self, principal: Principal, organization_id: str | None, day: date) -> Anomaly | None:
        selection = self._selection(principal, organization_id)
        if selection is None or selection.end is None or self._midnight(day + DAY) > selection.end - MOMENT:
            return None
        rows = self._judged(selection, day, day).rows
        return next((row for row in rows if row.organization_id == organization_id), None)

    def _window(
        self, selection: Selection, start: datetime | None, end: datetime | None
    ) -> tuple[date, date, str | None]:
        """The first and the last day to judge: whole days of the window that are over and read."""
        assert selection.end is not None  # noqa: S101 - `_selection` sets it
        last = (selection.end - MOMENT).astimezone(self._zone).date() - DAY
        if end is not None:
            last = min(last, end.astimezone(self._zone).date() - DAY)
        longest = last - timedelta(days=LONGEST_WINDOW - 1)
        if start is None:
            return longest, last, f"The last {LONGEST_WINDOW} days are assessed."
        first = start.astimezone(self._zone).date()
        if self._midnight(first) < start:
            first += DAY
        if first < longest:
            return (
                longest,
                last,
                f"The window is longer than {LONGEST_WINDOW} days: its last {LONGEST_WINDOW} are assessed.",
            )
        return first, last, None

    def _judge(self, selection: Selection, first: date, last: date) -> AnomalyReport:
        length = (last - first).days + 1
        back = max(LOOK_BACK, 4 * length if length in PERIOD_LENGTHS else 0)
        past = self._history(selection, first - timedelta(days=back))
        return judge(past, first, last, as_of=selection.snapshot.as_of, act_on=self._act_on)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _require(self, principal: Principal, organization_id: str | None) -> None:
        principal.require(Role.ADMIN)
        if organization_id is not None:
            principal.require_organization(organization_id)
        elif principal.organizations is not None:
            raise AccessDenied(f"{principal.name} has no access to events without an organization")

    def _selection(self, principal: Principal, organization_id: str | None) -> Selection | None:
        """Events the principal may see until the moment usage is known until; `None` while there are none.

        The moment is the end of gapless reading; in a ledger that no incremental pull ever filled, the newest event.
        """
        only = () if organization_id is None else (("organization_id", (organization_id,)),)
        whole = Selection(scope_of(principal), self._ledger.snapshot(), any_of=only)
        known = self._ledger.covered_until() or self._newest(replace(whole, any_of=()))
        if known is None:
            return None
        return replace(whole, end=min(known, self._clock()) + MOMENT)

    def _newest(self, selection: Selection) -> datetime | None:
        found = self._ledger.read_rows(queries.extent(selection))[0]["last"]
        return found if found is None else found + MOMENT

    def _read_history(self, selection: Selection, first_day: date) -> DailyHistory:
        assert selection.end is not None  # noqa: S101 - `_selection` sets it
        start = self._midnight(first_day)
        rows = self._ledger.engine.read(history.per_day(replace(selection, start=start), self._zone))
        older = self._ledger.engine.read(history.pairs(replace(selection, end=start)))
        pairs = zip(older["organization_id"].to_pylist(), older["customer_id"].to_pylist(), strict=True)
        return daily_history(rows, pairs, at=(selection.end - MOMENT).astimezone(self._zone), first_day=first_day)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self._zone)


def _largest(limits: Sequence[Limit]) -> Limit | None:
    """The limit with a known period and the largest use."""
    known = [one for one in limits if one.period_end is not None and one.used is not None]
    return max(known, key=lambda one: one.used or Decimal(0), default=None)


def _split(row: Anomaly, found: Segments) -> Variance:
    """The day against an average one of those it is compared with."""
    sums: Kinds = {}
    for day in row.compared:
        for kind, (events, held) in found.get((row.organization_id, day_number(day)), {}).items():
            before = sums.get(kind, (0, Decimal(0)))
            sums[kind] = (before[0] + events, EXACT.add(before[1], held))
    actual = found.get((row.organization_id, day_number(row.day)), {})
    return split(_segments(actual), averaged(_segments(sums), len(row.compared)))


def _segments(kinds: Kinds) -> dict[Hashable, Segment]:
    return {kind: Segment(Fraction(events), Fraction(held)) for kind, (events, held) in kinds.items()}
