"""`LangfuseProvider`: usage rows of a Langfuse project, whichever API generation its server offers."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from billing_core.errors import BadParameter, SettingsError, UpstreamError
from billing_core.langfuse.client import FIRST_BACKOFF_SECONDS, BrokenBody, LangfuseClient, NotOffered, QuestionTooLarge
from billing_core.langfuse.detect import Api, detect_api
from billing_core.langfuse.legacy import LegacySource
from billing_core.langfuse.limiter import per_second, shared_pace
from billing_core.langfuse.metrics import fetch_daily_totals
from billing_core.langfuse.partitions import Partitions
from billing_core.langfuse.pieces import BrokenJson, elements, is_readable, members, shown
from billing_core.langfuse.plan import (
    LANGFUSE_BEGAN,
    astray_slices,
    completion_slices,
    elsewhere_slices,
    expansion_slices,
    legacy_slices,
    observation_slices,
    trace_slice,
    whole_trace_slices,
)
from billing_core.langfuse.reader import LangfuseApi, read_part, read_slices
from billing_core.langfuse.reading import UpstreamRead
from billing_core.langfuse.rollup import DailyTotal, RolledPartition, Rollup
from billing_core.langfuse.spans import DAY, ReadKind, ReadSlice, TimeRange, chunk_ids, milliseconds
from billing_core.langfuse.spool import Spool, SpoolPart
from billing_core.langfuse.strays import Strays
from billing_core.langfuse.v2 import ObservationsSource
from billing_core.runtime.clock import Clock, now
from billing_core.settings import ApiChoice, Settings
from billing_core.values.usage_frame import USAGE_SCHEMA, MetadataNames, PullProgress, Window

RETENTION_TOLERANCE = timedelta(hours=1)
"""Langfuse deletes expired data in runs, not to the second."""

_CHOSEN: dict[ApiChoice, Api | None] = {ApiChoice.AUTO: None, ApiChoice.V2: "v2", ApiChoice.LEGACY: "legacy"}

Progress = Callable[[PullProgress], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Project:
    """The Langfuse project the keys belong to; its id is empty where the server does not tell.

    `retention_days` tells how far back its data goes; `None` is unlimited.
    """

    id: str
    name: str
    retention_days: int | None


class LangfuseProvider:
    """Reads usage rows of one Langfuse project. Safe to share between threads; `close` it at the end.

    host: Base URL without credentials; a base path is possible.
    api: Which API generation to read; `auto` asks the server once.
    workers: Slices read at the same time, all within one rate limit per organization.
    requests_per_minute: A limit of our own beside the server's 429s; `None` for none.
    clock: Aware now.
    """

    def __init__(
        self,
        host: str,
        public_key: str,
        secret_key: SecretStr,
        api: ApiChoice = ApiChoice.AUTO,
        metadata: MetadataNames | None = None,
        workers: int = 4,
        requests_per_minute: int | None = None,
        timeout_seconds: float = 60.0,
        *,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        clock: Clock = now,
    ) -> None:
        self._host = host.rstrip("/")
        self._public_key = public_key
        self._secret_key = secret_key
        self._names = metadata or MetadataNames()
        self._workers = workers
        self._requests_per_minute = requests_per_minute
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._client = LangfuseClient(
            host,
            public_key,
            secret_key,
            timeout_seconds=timeout_seconds,
            connections=workers + 2,
            first_backoff_seconds=first_backoff_seconds,
            clock=clock,
        )
        self._client.limiter.slow_down_to(per_second(requests_per_minute))
        self._lock = threading.RLock()
        self._api: Api | None = _CHOSEN[ApiChoice(api)]
        self._project: Project | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, metadata: MetadataNames | None = None, clock: Clock = now
    ) -> LangfuseProvider:
        """A provider of the Langfuse project that the settings name.

        Raises SettingsError: if a key is missing.
        """
        public_key, secret_key = settings.langfuse_public_key, settings.langfuse_secret_key
        if public_key is None or secret_key is None:
            missing = [
                name
                for name, key in (("LANGFUSE_PUBLIC_KEY", public_key), ("LANGFUSE_SECRET_KEY", secret_key))
                if key is None
            ]
            raise SettingsError(
                f"{' and '.join(missing)}: missing; create a key pair in the Langfuse project's settings"
            )
        return cls(settings.langfuse_host, public_key, secret_key, settings.langfuse_api, metadata, clock=clock)

    def close(self) -> None:
        """Close the connections to Langfuse."""
        self._client.close()

    # -- about the project -------------------------------------------------------------------------------------

    def project(self) -> Project:
        """The project the keys belong to, asked once; not rate limited, so it tests the keys as well.

        Raises UpstreamError: if the server cannot be reached, is no Langfuse, or refuses the keys.
        """
        with self._lock:
            if self._project is None:
                try:
                    found = self._client.get("projects", {}, _first_project)
                except NotOffered as error:
                    # A gateway may let only data routes through; whether it is a Langfuse at all, detection finds out.
                    logger.info("%s: without it traces have no links and the retention is not known", error)
                    self._project = Project("", self._host, None)
                    return self._project
                except QuestionTooLarge as error:
                    raise UpstreamError(f"{error}; try again later") from None
                organization = found.get("organization")
                owner = organization.get("id") if isinstance(organization, dict) else None
                # From here on every project and key of the organization in this process shares one pace.
                self._client.limiter = shared_pace(
                    self._client.name, str(owner or found["id"]), self._requests_per_minute
                )
                days = found.get("retentionDays")
                self._project = Project(
                    str(found["id"]),
                    shown(found.get("name") or found["id"]),
                    days if isinstance(days, int) and days else None,
                )
            return self._project

    def api(self) -> Api:
        """The API generation that is read: as configured, else detected once.

        Raises UpstreamError: if the server cannot be read or offers neither.
        """
        self.project()
        with self._lock:
            if self._api is None:
                self._api = detect_api(self._client)
            return self._api

    # -- reading -----------------------------------------------------------------------------------------------

    def read(
        self, window: Window, *, spool: Path, progress: Progress | None = None, ended_since: datetime | None = None
    ) -> UpstreamRead:
        """The usage rows of every trace with a row in the window, each trace complete.

        Pages go through `spool`: after a crash or an error the same call continues where the last one stopped. Call
        `UpstreamRead.discard` once the rows are booked.

        progress: Called on this thread, several times a second.
        ended_since: Also the traces with a row that started up to 30 days before the window and ended since then.

        Raises BadParameter: if the window begins before the project's retention: what is left there would look
        complete. UpstreamError: if Langfuse cannot be read, in one line.
        """
        project = self.project()
        self._refuse_expired(window, project)
        api = self.api()
        lane = Spool(spool, [self._host, project.id, api, self._names.model_dump_json()], self._clock)
        try:
            reading = UpstreamRead(api, lane)
            steps = _Steps(progress, self._workers, lane)
            if api == "v2":
                strays = self._read_observations(window, ended_since, steps)
                partitions = _regrouped(lane)
            else:
                partitions, strays = self._read_legacy(window, ended_since, steps, project)
            self._roll_up(window, project, reading, partitions, strays, steps)
        except NotOffered as error:
            lane.release()
            raise self._withdrawn(api, error) from None
        except BaseException:
            lane.release()
            raise
        return reading

    def read_trace(self, trace_id: str) -> pa.Table:
        """The usage row of one complete trace, in `USAGE_SCHEMA`; no row if Langfuse does not have it.

        Raises UpstreamError: if Langfuse cannot be read.
        """
        project = self.project()
        now = self._clock()
        source = self._source()
        if self.api() == "v2":
            piece = trace_slice(trace_id, now)
        else:
            [piece] = whole_trace_slices([trace_id], now, source.page_rows)
        with tempfile.TemporaryDirectory(prefix="trace-") as folder:
            part = SpoolPart(Path(folder) / "pages", piece, now)
            try:
                read_part(source, part, threading.Event())
            except NotOffered as error:
                raise self._withdrawn(self.api(), error) from None
            facts = pa.concat_tables(part.tables())
            if not len(facts):
                return USAGE_SCHEMA.empty_table()
            with Rollup(_everything(piece), self._trace_base(project), now, only_touched=False) as rollup:
                return rollup.roll(facts).table

    def absent(self, trace_ids: Iterable[str], *, saw_anything: bool = True) -> set[str]:
        """Those of the given traces that Langfuse does not have at all, each asked for by its id, whatever times its
        rows have.

        A trace with a row that cannot be read is there. `saw_anything`: whether the window's read found any row; if
        not, a server that keeps its data for the older API only is told apart.

        Raises UpstreamError: if Langfuse cannot be read.
        """
        ids = sorted(trace_ids)
        try:
            if self.api() == "legacy":
                return {trace_id for trace_id in ids if not self._has_legacy(trace_id)}
            if ids and not saw_anything and self._has_legacy(ids[0]):
                return set()
            return set(chain.from_iterable(map(self._absent_of, chunk_ids(ids))))
        except (NotOffered, QuestionTooLarge) as error:
            raise UpstreamError(f"{error}; whether traces are gone could not be found out") from None

    def _absent_of(self, ids: Sequence[str]) -> set[str]:
        span = TimeRange(LANGFUSE_BEGAN, milliseconds(self._clock()) + DAY, ids=tuple(ids))
        with tempfile.TemporaryDirectory(prefix="traces-") as folder:
            part = SpoolPart(Path(folder) / "pages", ReadSlice(ReadKind.COMPLETE, (span,)), self._clock())
            read_part(self._source(), part, threading.Event())
            if part.rejected:
                return set() if len(ids) == 1 else {gone for one in ids for gone in self._absent_of([one])}
            return set(ids) - _trace_ids([part])

    def _has_legacy(self, trace_id: str) -> bool:
        """Whether the older API has a trace's record or an observation of it."""
        try:
            self._client.get(f"traces/{quote(trace_id, safe='')}", {}, _anything)
        except NotOffered:
            pass
        except QuestionTooLarge:
            return True
        else:
            return True
        try:
            rows = self._client.get("observations", {"traceId": trace_id, "limit": "1", "page": "1"}, _rows)
        except NotOffered:
            return False
        return rows > 0

    def daily_totals(self, window: Window) -> list[DailyTotal] | None:
        """Langfuse's own sums per UTC day, for `metrics.compare_daily`; `None` if the server has none.

        Costs one call of a small quota (100 a day on the smallest plan).
        """
        if self.api() == "legacy":
            return None
        return fetch_daily_totals(self._host, self._public_key, self._secret_key, window, self._timeout_seconds)

    @staticmethod
    def _withdrawn(api: Api, error: NotOffered) -> UpstreamError:
        """Why reading ends when the server does not have what was asked for; it never means "no usage"."""
        return UpstreamError(f"{error}; the server does not offer the {api} API (any more): set LANGFUSE_API to auto")

    def _source(self) -> LangfuseApi:
        kind = ObservationsSource if self.api() == "v2" else LegacySource
        return kind(self._client, self._names)

    def _trace_base(self, project: Project) -> str | None:
        if not project.id:
            return None
        return f"{self._host}/project/{quote(project.id, safe='')}/traces/"

    def _refuse_expired(self, window: Window, project: Project) -> None:
        if project.retention_days is None:
            return
        oldest = self._clock() - timedelta(days=project.retention_days)
        if window.start < oldest - RETENTION_TOLERANCE:
            raise BadParameter(
                "from",
                f"{window.start:%Y-%m-%dT%H:%M}Z",
                f"a time since {oldest:%Y-%m-%dT%H:%M}Z: the project {project.name} keeps its data for "
                f"{project.retention_days} days, and what is older would be read incomplete",
            )

    def _read_observations(self, window: Window, ended_since: datetime | None, steps: _Steps) -> Strays:
        source = self._source()
        parts = steps.read(source, observation_slices(window, ended_since), 0.0, 0.8, "reading observations")
        ids = _trace_ids(parts)
        now = self._clock()
        outside = completion_slices(ids, window, now) + astray_slices(window, now, source.page_rows)
        completing = "completing traces that cross the window's edges"
        found = steps.read(source, outside, 0.8, 0.91, completing)
        strays = Strays.of(_trace_ids(_of_kind(found, ReadKind.ASTRAY)) - ids)
        elsewhere = steps.read(source, elsewhere_slices(strays.ids, now), 0.91, 0.93, completing)
        strays.judge(elsewhere, window, now, is_whole=not any(part.notes for part in elsewhere))
        cut = _cut_traces(parts + found + elsewhere)
        steps.read(source, expansion_slices(cut), 0.93, 0.95, "reading long metadata values in full")
        return strays

    def _read_legacy(
        self, window: Window, ended_since: datetime | None, steps: _Steps, project: Project
    ) -> tuple[Partitions, Strays]:
        source = self._source()
        now = self._clock()
        parts = steps.read(
            source,
            legacy_slices(window, ended_since, now, source.page_rows) + astray_slices(window, now, source.page_rows),
            0.0,
            0.85,
            "reading traces and observations",
        )
        partitions = _regrouped(steps.spool)
        with Rollup(window, self._trace_base(project), now, only_touched=True) as rollup:
            ids = {trace_id for facts in partitions for trace_id in rollup.incomplete(facts)}
        known = ids | _trace_ids(_of_kind(parts, ReadKind.TRACES, ReadKind.ENDED))
        strays = Strays.of(_trace_ids(_of_kind(parts, ReadKind.ASTRAY)) - known)
        doing = "reading incomplete traces whole"
        whole = steps.read(source, whole_trace_slices(ids, now, source.page_rows), 0.85, 0.93, doing)
        elsewhere = steps.read(source, whole_trace_slices(strays.ids, now, source.page_rows), 0.93, 0.95, doing)
        strays.judge(elsewhere, window, now, is_whole=True)
        partitions.add(_tables(whole + elsewhere))
        return partitions, strays

    def _roll_up(
        self,
        window: Window,
        project: Project,
        reading: UpstreamRead,
        partitions: Partitions,
        strays: Strays,
        steps: _Steps,
    ) -> None:
        daily: list[DailyTotal] = []
        rolling = Rollup(
            window,
            self._trace_base(project),
            self._clock(),
            only_touched=reading.api == "legacy",
            of_no_time=strays.ids - strays.foreign,
            foreign=strays.foreign,
        )
        with rolling as rollup:
            for number, facts in enumerate(partitions, start=1):
                rolled: RolledPartition = rollup.roll(facts)
                reading.keep(rolled.table)
                reading.observations += rolled.observations
                reading.duplicates += rolled.duplicates
                daily += rolled.daily
                steps.report(0.95 + 0.05 * number / partitions.count, "rolling up traces")
        rejected = [row for part in steps.spool.parts.values() for row in part.rejected]
        reading.observations += sum(
            len(part.rejected) for part in steps.spool.parts.values() if not part.slice.kind.is_repeat
        )
        reading.rejected = [*dict.fromkeys(rejected), *strays.rejected]
        reading.notes = list(dict.fromkeys(note for part in steps.spool.parts.values() for note in part.notes))
        reading.daily = _by_day(daily)
        partitions.remove()
        steps.report(1.0, "done")


class _Steps:
    """The phases of one read and how far they are."""

    def __init__(self, progress: Progress | None, workers: int, spool: Spool) -> None:
        self._progress = progress
        self._workers = workers
        self._rows = 0
        self.spool = spool

    def read(
        self, source: LangfuseApi, slices: Sequence[ReadSlice], begin: float, end: float, doing: str
    ) -> list[SpoolPart]:
        """Read slices as the phase between two fractions of the whole."""
        if not slices:
            return []
        before = self._rows

        def report(share: float, rows: int) -> None:
            self._rows = before + rows
            self.report(begin + (end - begin) * share, doing)

        report(0.0, 0)
        return read_slices(source, slices, self.spool, workers=self._workers, report=report)

    def report(self, fraction: float, doing: str) -> None:
        """Tell whoever watches."""
        if self._progress is not None:
            self._progress(PullProgress(min(fraction, 1.0), self._rows, doing))


def _anything(body: bytes) -> bool:
    """Whether something came; what, does not matter."""
    return bool(body)


def _rows(body: bytes) -> int:
    """How many rows a page has."""
    try:
        return len(elements(members(body).get("data", b"")))
    except BrokenJson as error:
        raise BrokenBody(str(error)) from None


def _first_project(body: bytes) -> dict[str, Any]:
    try:
        projects = json.loads(body)["data"]
        project = projects[0]
        identity, days = project["id"], project.get("retentionDays")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BrokenBody("a list with the keys' project is expected") from None
    if not isinstance(identity, (str, int)) or isinstance(identity, bool) or not is_readable(str(identity)):
        raise BrokenBody("the keys' project has no readable id")
    if not (days is None or (isinstance(days, int) and not isinstance(days, bool) and days >= 0)):
        raise BrokenBody(f"retentionDays = {shown(days)}, which is not a number of days")
    found: dict[str, Any] = project
    return found


def _of_kind(parts: Iterable[SpoolPart], *kinds: ReadKind) -> list[SpoolPart]:
    return [part for part in parts if part.slice.kind in kinds]


def _tables(parts: Iterable[SpoolPart]) -> Iterator[pa.Table]:
    for part in parts:
        yield from part.tables()


def _regrouped(spool: Spool) -> Partitions:
    parts = list(spool.parts.values())
    folder = spool.work_folder / "partitions"
    partitions = Partitions(folder, sum(part.rows for part in parts))
    partitions.add(_tables(parts))
    return partitions


def _trace_ids(parts: Iterable[SpoolPart]) -> set[str]:
    ids: set[str] = set()
    for part in parts:
        for table in part.tables(["trace_id"]):
            ids.update(pc.unique(table["trace_id"]).to_pylist())
    return ids


def _cut_traces(parts: Iterable[SpoolPart]) -> dict[str, tuple[int, int]]:
    """Traces with a shortened metadata value: first and last start time (milliseconds) of such rows."""
    cut: dict[str, tuple[int, int]] = {}
    for part in parts:
        for table in part.tables(["trace_id", "cut", "start_time"]):
            rows = table.filter(table["cut"])
            times = rows["start_time"].cast(pa.int64()).to_pylist()
            for trace_id, microseconds in zip(rows["trace_id"].to_pylist(), times, strict=True):
                time = microseconds // 1000
                first, last = cut.get(trace_id, (time, time))
                cut[trace_id] = (min(first, time), max(last, time))
    return cut


def _by_day(totals: Iterable[DailyTotal]) -> list[DailyTotal]:
    """Partitions' sums added up; unknown stays unknown."""
    days: dict[Any, DailyTotal] = {}
    for total in totals:
        known = days.get(total.day, DailyTotal(total.day, 0, None, None))
        days[total.day] = DailyTotal(
            total.day,
            known.observations + total.observations,
            _sum(known.tokens, total.tokens),
            _sum(known.cost_usd, total.cost_usd),
        )
    return [days[day] for day in sorted(days)]


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other


def _everything(piece: ReadSlice) -> Window:
    began = datetime(1970, 1, 1, tzinfo=UTC)
    return Window(began + timedelta(milliseconds=piece.start), began + timedelta(milliseconds=piece.end))
