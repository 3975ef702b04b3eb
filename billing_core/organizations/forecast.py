"""Forecasts an organization's credits at the end of its period, from its days so far. Pure and deterministic.

The model is exponential smoothing with an additive weekday rhythm (`statsmodels`, ETS). Ranges come from a thousand
simulated futures that draw their surprises from the past's own. Floats live in here only: days come in and forecasts
leave as exact decimals of six places.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from billing_core.values.decimals import EXACT

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

FEWEST_DAYS = 21
"""Three of each weekday: fewer say nothing about a rhythm."""

FEWEST_USED_DAYS = 10

WEEK = 7
ORIGINS = 4
"""Back-tests: as many weeks at the end of the history are forecast from what came before each."""

PATHS = 1001
"""Simulated futures; with 1,001 of them the 10 %, 50 % and 90 % points are futures themselves, not between two."""

LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
"""An 80 % interval: one future in ten ends below it, one in ten above."""

SEED = 20_260_101
"""Any number does; always the same one, so that the same history gives the same forecast."""

TREND_WEEKS = 12
FEWEST_TREND_WEEKS = 6
CLEAR_TREND = 3.0
"""A slope of the weekly sums counts as a trend from three times its own standard error."""

AVERAGED_DAYS = 56

SPIKE = 10.0
"""A single day this many spreads above its weekday's median is a one-off: it must not become a level or a rhythm."""

SIX_PLACES = Decimal("0.000001")
PERCENT_PLACES = Decimal("0.0001")

Floats = npt.NDArray[np.float64]

_fitting = threading.Lock()
"""What `_without_warnings` changes, it changes for the whole process: one thread at a time."""


@dataclass(frozen=True, slots=True)
class ForecastInput:
    """Everything a forecast is computed from, as known at the moment `at`.

    days: Credits of each complete day of `zone`, consecutive, the last one being the day before `at`'s; days without
        events are 0. The first one is the organization's first day, or the first that is looked at.
    today: Credits since the midnight before `at`.
    period_start, period_end: The billing period `at` is in, aware and half open; `None` if none is known.
    used, included: Credits used in the period until `at`, and those the plan includes (`None`: not known).
    """

    at: datetime
    zone: ZoneInfo
    days: tuple[Decimal, ...]
    today: Decimal
    period_start: datetime | None
    period_end: datetime | None
    used: Decimal
    included: int | None = None

    @property
    def present_day(self) -> date:
        """The date that the moment `at` is in."""
        return self.at.astimezone(self.zone).date()

    def day(self, position: int) -> date:
        """The date of `days[position]`."""
        return self.present_day - timedelta(days=len(self.days) - position)


@dataclass(frozen=True, slots=True)
class ExpectedDay:
    """Credits expected on a day from now on, and in the period by its end, each with its 80 % interval.

    The first one is today and its `credits` hold what today has brought already; on the period's last day they are
    those until the period ends.
    """

    day: date
    low: Decimal
    credits: Decimal
    high: Decimal
    sum_low: Decimal
    sum_credits: Decimal
    sum_high: Decimal


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """When the included credits will be used up: `already`, or a day each; `None` is "not before the period ends".

    One simulated future in ten gets there by `early`, half of them by `expected`, nine in ten by `late`.
    """

    already: bool
    early: date | None = None
    expected: date | None = None
    late: date | None = None


@dataclass(frozen=True, slots=True)
class BackTest:
    """The error of earlier forecasts of the same kind: the mean of `|forecast − actual| ÷ actual` of 7-day sums.

    `error` is a share (0.09 is 9 %), `None` when no past week with usage could be forecast; `origins` counts the tests.
    """

    error: Decimal | None
    origins: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast of credits at the end of the period, with an 80 % interval; `low` is never below what is used already.

    `exhaustion` is `None` if no limit is known; `method` names the model in words; `notes` say what the forecast is
    about where that is not obvious. `days` begins with today.
    """

    asked: ForecastInput
    expected: Decimal
    low: Decimal
    high: Decimal
    exhaustion: Exhaustion | None
    days: tuple[ExpectedDay, ...]
    method: str
    history_days: int
    back_test: BackTest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotEnough:
    """The reason why no forecast can be made, in a sentence."""

    reason: str
    asked: ForecastInput | None = None


def forecast(question: ForecastInput) -> Forecast | NotEnough:
    """The forecast for an input, or what is missing for one."""
    end = question.period_end
    if end is None:
        return NotEnough("No billing period is known.", question)
    if end <= question.at:
        ended = f"{end.astimezone(question.zone):%Y-%m-%d %H:%M} {question.zone.key}"
        return NotEnough(f"The billing period that was last read ended on {ended}.", question)
    if (missing := _missing(question.days)) is not None:
        return NotEnough(missing, question)
    history = np.array([float(value) for value in question.days])
    shares = _shares_left(question, end)
    method, futures = _futures(history, len(shares))
    return _answer(question, futures * np.array(shares)[:, None], method, _back_test(history))


def _missing(days: tuple[Decimal, ...]) -> str | None:
    if len(days) < FEWEST_DAYS:
        return f"{_days(len(days))} of history; a forecast needs {FEWEST_DAYS} complete ones."
    used = sum(1 for value in days if value > 0)
    if used < FEWEST_USED_DAYS:
        return f"Usage on {_days(used)} of the last {len(days)}; a forecast needs {FEWEST_USED_DAYS} days with usage."
    return None


def _days(number: int) -> str:
    return f"{number} day" if number == 1 else f"{number} days"


def _shares_left(question: ForecastInput, end: datetime) -> list[float]:
    """Which share of each day, today being the first, lies ahead of `at` and in the period.

    The period may begin after `at`, where usage was last read some time ago. Days of 23 and 25 hours are whole days:
    instants are compared in UTC.
    """
    since, until = question.at.astimezone(UTC), end.astimezone(UTC)
    if question.period_start is not None:
        since = max(since, question.period_start.astimezone(UTC))
    shares = []
    day = question.present_day
    while (starts := _midnight(day, question.zone)) < until:
        ends = _midnight(day + timedelta(days=1), question.zone)
        shares.append(max(min(ends, until) - max(starts, since), timedelta(0)) / (ends - starts))
        day += timedelta(days=1)
    return shares


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def _answer(question: ForecastInput, coming: Floats, method: str, back_test: BackTest) -> Forecast:
    sums = np.cumsum(coming, axis=0)
    per_day = np.quantile(coming, (LOW, MIDDLE, HIGH), axis=1)
    until = np.quantile(sums, (LOW, MIDDLE, HIGH), axis=1)
    days = []
    for position in range(len(coming)):
        before = question.today if position == 0 else Decimal(0)
        held = [EXACT.add(before, _exact(value)) for value in per_day[:, position]]
        totals = [EXACT.add(question.used, _exact(value)) for value in until[:, position]]
        days.append(ExpectedDay(question.present_day + timedelta(days=position), *held, *totals))
    last = days[-1]
    return Forecast(
        asked=question,
        expected=last.sum_credits,
        low=last.sum_low,
        high=last.sum_high,
        exhaustion=_exhaustion(question, sums),
        days=tuple(days),
        method=method,
        history_days=len(question.days),
        back_test=back_test,
    )


def _exhaustion(question: ForecastInput, sums: Floats) -> Exhaustion | None:
    if question.included is None:
        return None
    left = EXACT.subtract(Decimal(question.included), question.used)
    if left <= 0:
        return Exhaustion(already=True)
    there = np.mean(sums >= float(left), axis=1)

    def day(share: float) -> date | None:
        reached = np.flatnonzero(there >= share)
        return None if not len(reached) else question.present_day + timedelta(days=int(reached[0]))

    return Exhaustion(False, day(LOW), day(MIDDLE), day(HIGH))


def _exact(value: float) -> Decimal:
    return Decimal(value).quantize(SIX_PLACES, ROUND_HALF_EVEN, context=_WIDE)


_WIDE = EXACT.copy()
_WIDE.traps = dict.fromkeys(_WIDE.traps, False)
"""As wide as the house's decimals, but a float may be rounded."""


# ── models ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A model of a history: the mean of the next week's days, and `PATHS` futures of so many days (a column each).

    Neither is cut off at 0, and one-offs are in neither.
    """

    method: str
    week: Floats
    futures: Callable[[int], Floats]


SMOOTHING = "exponential smoothing with a weekday pattern"
DAMPED = f"{SMOOTHING} and a damped trend"
AVERAGES = "averages of the same weekday over the last 8 weeks"


def _futures(history: Floats, days: int) -> tuple[str, Floats]:
    """The method in words, and simulated credits of the next days, never below 0.

    One-offs are kept out of level and rhythm and come back as often as the history had them.
    """
    flattened = _without_spikes(history)
    extra = history - flattened
    fitted = _fit(flattened)
    drawn = fitted.futures(days) + np.random.default_rng(SEED + 1).choice(extra, size=(days, PATHS))
    spikes = int(np.count_nonzero(extra))
    note = f"; {_days(spikes)} far above the usual counted as one-off" if spikes else ""
    return fitted.method + note, np.clip(drawn, 0.0, None)


def _without_spikes(history: Floats) -> Floats:
    """Single days far above their weekday brought down to its median; neighbouring ones may be a new level and stay."""
    weekdays = np.arange(len(history)) % WEEK
    usual, spread = np.empty_like(history), np.empty_like(history)
    typical = float(np.median(history[history > 0]))
    for weekday in range(WEEK):
        mine = weekdays == weekday
        usual[mine] = np.median(history[mine])
        spread[mine] = 1.4826 * np.median(np.abs(history[mine] - usual[mine]))
    is_far = history > usual + SPIKE * np.maximum(spread, 0.25 * np.maximum(usual, typical))
    has_company = np.zeros_like(is_far)
    has_company[1:] |= is_far[:-1]
    has_company[:-1] |= is_far[1:]
    return np.where(is_far & ~has_company, usual, history)


def _fit(history: Floats) -> _Fitted:
    """The richest model that the history supports and that can be fitted; which one it was is said in words."""
    wanted = [(DAMPED, True), (SMOOTHING, False)] if _has_trend(history) else [(SMOOTHING, False)]
    for method, has_trend in wanted:
        fitted = _smoothing(history, method, has_trend=has_trend)
        if fitted is not None:
            return fitted
    return _averages(history, f"{AVERAGES}, because the smoothing model did not converge")


def _has_trend(history: Floats) -> bool:
    """Whether the sums of the last weeks rise or fall clearly: their slope against its standard error."""
    weeks = min(len(history) // WEEK, TREND_WEEKS)
    if weeks < FEWEST_TREND_WEEKS:
        return False
    sums = history[len(history) - weeks * WEEK :].reshape(weeks, WEEK).sum(axis=1)
    at = np.arange(weeks) - (weeks - 1) / 2
    slope = float(at @ sums / (at @ at))
    left = sums - sums.mean() - slope * at
    error = float(np.sqrt(left @ left / (weeks - 2) / (at @ at)))
    return abs(slope) > CLEAR_TREND * error and abs(slope) > 1e-9 * abs(sums.mean())


@cache
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController  # after the libraries it looks for

    return ThreadpoolController()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The library's warnings kept quiet, and one thread for its linear algebra.

    Systems of a dozen numbers gain nothing from more threads, and on busy processors those spin and wait for each
    other: measured, seven times slower.
    """
    with _fitting, warnings.catch_warnings(), _blas().limit(limits=1):
        warnings.simplefilter("ignore")
        yield


def _smoothing(history: Floats, method: str, *, has_trend: bool) -> _Fitted | None:
    """ETS with additive error and weekdays; `None` if the library cannot fit it."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel  # type: ignore[import-untyped]  # a second to load

    scale = float(np.mean(history[history > 0]))  # the optimizer works on figures around one
    with _without_warnings():
        try:
            model = ETSModel(
                history / scale,
                error="add",
                trend="add" if has_trend else None,
                damped_trend=has_trend,
                seasonal="add",
                seasonal_periods=WEEK,
                initialization_method="heuristic",
            )
            found = model.fit(disp=False)
            ahead = np.asarray(found.forecast(WEEK), dtype=np.float64) * scale
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
        if not found.mle_retvals["converged"] or not np.all(np.isfinite(ahead)):
            return None

    def futures(days: int) -> Floats:
        with _without_warnings():
            drawn = found.simulate(
                days, anchor="end", repetitions=PATHS, random_errors="bootstrap", rng=np.random.default_rng(SEED)
            )
        return np.asarray(drawn, dtype=np.float64).reshape(days, PATHS) * scale

    return _Fitted(method, ahead, futures)


def _averages(history: Floats, method: str) -> _Fitted:
    """The plainest additive model: what this weekday was on average, and how far days were from it."""
    recent = history[-AVERAGED_DAYS:]
    place = np.arange(len(history) - len(recent), len(history)) % WEEK
    averages = np.array([recent[place == weekday].mean() for weekday in range(WEEK)])
    surprises = recent - averages[place]

    ahead = averages[np.arange(len(history), len(history) + WEEK) % WEEK]

    def futures(days: int) -> Floats:
        rhythm = np.resize(ahead, days)
        return rhythm[:, None] + np.random.default_rng(SEED).choice(surprises, size=(days, PATHS))

    return _Fitted(method, ahead, futures)


def _back_test(history: Floats) -> BackTest:
    """Forecast each of the last weeks from the days before it, and see what it became."""
    errors = []
    for week in range(1, ORIGINS + 1):
        cut = len(history) - week * WEEK
        before, actual = history[:cut], float(history[cut : cut + WEEK].sum())
        if cut < FEWEST_DAYS or np.count_nonzero(before > 0) < FEWEST_USED_DAYS or actual <= 0:
            continue
        expected = float(np.clip(_fit(_without_spikes(before)).week, 0.0, None).sum())
        errors.append(abs(expected - actual) / actual)
    if not errors:
        return BackTest(None, 0)
    share = Decimal(float(np.mean(errors))).quantize(PERCENT_PLACES, ROUND_HALF_EVEN)
    return BackTest(share, len(errors))
