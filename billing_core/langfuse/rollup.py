"""Rolls observation facts up to one row per trace: deduplicate, order, aggregate.

The work is SQL over Arrow in an in-memory DuckDB, one partition of traces at a time, so memory is bounded by the
partition and not by the pull. The rules are those of section 2 of the Langfuse notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from billing_core.langfuse.double_count import Node, Repeat, double_counted
from billing_core.langfuse.facts import NOT_ROOT, TRACE_RECORD
from billing_core.values.usage_frame import LONGEST_RUN, TOKEN_CLASSES, USAGE_SCHEMA, Window

CONFLICTS = {
    "customer": "customer_id",
    "organization": "organization_id",
    "session": "session_id",
    "chatflow": "chatflow_id",
    "aiCredentialsOwnership": "ownership",
    "storage": "storage_gb",
}
"""What must not differ inside a trace: word → column. Users come on top: `USERS`."""

USERS = """
    SELECT trace_id, coalesce(user_id, CASE WHEN NOT named THEN metadata_user_id END) AS user_id FROM (
        SELECT trace_id, user_id, metadata_user_id, bool_or(user_id IS NOT NULL) OVER (PARTITION BY trace_id) AS named
        FROM row WHERE user_id IS NOT NULL OR metadata_user_id IS NOT NULL
    )
"""
"""Whom the rows of a trace name: its own user on any row counts, and only without one what metadata says."""

CONFLICT_VALUES_SHOWN = 5

EARLIEST_START = datetime(2000, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(hours=1)
"""How far the clock of an application may be ahead of ours."""
LONGEST_NAME = 200
"""Characters of an observation's name or a usage key that are kept."""
MICROSECOND = timedelta(microseconds=1)

RECORD_COST_TOLERANCE_USD = Decimal("0.000001")
RECORD_LATENCY_TOLERANCE_SECONDS = 0.0015
"""Langfuse sums in binary floats and rounds durations to milliseconds."""


class DailyTotal(NamedTuple):
    """Sums of what was read for a UTC day: deduplicated rows by start time, synthetic roots included."""

    day: date
    observations: int
    tokens: int | None
    cost_usd: Decimal | None


class RolledPartition(NamedTuple):
    """The usage rows of one partition, one per trace. `table` is in `USAGE_SCHEMA`, ordered by timestamp and id."""

    table: pa.Table
    observations: int
    duplicates: int
    daily: list[DailyTotal]


_DUPLICATES = f"""
CREATE OR REPLACE TEMP TABLE duplicate AS
WITH several AS (
    SELECT trace_id, id FROM facts GROUP BY trace_id, id HAVING count(*) > 1
), ranked AS (
    SELECT fact, repeat, rank,
           row_number() OVER (
               PARTITION BY project_id, trace_id, id
               ORDER BY updated_at DESC NULLS LAST, expanded DESC, end_time IS NOT NULL DESC, repeat DESC,
                        end_time DESC, start_time DESC, fact
           ) AS version,
           row_number() OVER (PARTITION BY project_id, trace_id, id, repeat ORDER BY fact) AS nth
    FROM facts SEMI JOIN several USING (trace_id, id)
)
SELECT fact, version, nth > 1 AND NOT repeat AND rank <> {TRACE_RECORD} AS dropped FROM ranked
"""

# Ranking carries only the sort keys: a window over whole rows would cost half a gigabyte.
_PLACES = f"""
SELECT fact, row_number() OVER (
           ORDER BY rank, CASE WHEN rank < {NOT_ROOT} THEN start_time END,
                    CASE WHEN rank = {NOT_ROOT} THEN updated_at END DESC NULLS LAST, id
       )::INTEGER AS place
FROM facts ANTI JOIN (SELECT fact FROM duplicate WHERE version > 1) AS older USING (fact)
ORDER BY fact
"""

_RECORD = f"rank = {TRACE_RECORD}"
_SYNTHETIC = "id = 't-' || trace_id"

_IMPOSSIBLE = f"""(
    start_time < TIMESTAMPTZ '{EARLIEST_START:%Y-%m-%d} 00:00:00+00' OR start_time > $latest
    OR coalesce(end_time > $latest OR epoch_us(end_time) - epoch_us(start_time) > {LONGEST_RUN // MICROSECOND}, false)
)"""
"""A row whose times no run can have had: they count for nothing."""

_TIMES = f"""
    coalesce(min(start_time) FILTER (NOT {_RECORD} AND NOT impossible), min(start_time) FILTER (NOT {_RECORD}),
             min(start_time)) AS first_start,
    coalesce(max(greatest(start_time, end_time)) FILTER (NOT {_RECORD}), max(start_time)) AS own_end,
    coalesce(min(start_time) FILTER (NOT {_RECORD}), min(start_time)) AS own_start,
    coalesce(bool_or(impossible) FILTER (NOT {_RECORD}), false) AS mistimed,
    max(record_cost) AS record_cost, max(record_latency) AS record_latency,
    max(updated_at) AS updated_at,
    bool_or({_RECORD}) AS has_record, count(*) FILTER (NOT ({_SYNTHETIC})) AS observations,
    bool_or(failed) FILTER (NOT ({_SYNTHETIC})) AS has_error
"""

_DIFFERENCES = f"""
    has_record AND abs(record_cost - coalesce(cost_usd, 0)) > {RECORD_COST_TOLERANCE_USD} AS cost_differs,
    has_record AND observations > 0 AND
        abs(record_latency - (epoch_us(own_end) - epoch_us(own_start)) / 1e6) > {RECORD_LATENCY_TOLERANCE_SECONDS}
        AS latency_differs
"""


_BARE = "observations = 0 AND (record_cost IS NULL OR record_latency IS NULL OR record_latency > 0)"
"""A record without observations that does not itself say that there are none: they lie elsewhere."""


def _firsts(*columns: str) -> str:
    """Per trace, the value of the first row that has one."""
    return ",\n".join(f"    arg_min({column}, place) AS {column}" for column in columns)


_TRACES = f"""
CREATE OR REPLACE TEMP TABLE trace AS
WITH summed AS (
SELECT trace_id,
{_TIMES},
{
    _firsts(
        "project_id",
        "organization_id",
        "customer_id",
        "user_id",
        "metadata_user_id",
        "session_id",
        "chatflow_id",
        "chatflow_name",
        "trace_name",
        "environment",
        "ownership",
        "storage_gb",
        "legacy_status",
        "legacy_error",
        "legacy_ai_tokens",
        "legacy_compute",
        "legacy_storage",
        "legacy_total",
        "metadata",
    )
},
    arg_min(name, place) FILTER (rank < {NOT_ROOT}) AS root_name,
    list_sort(list(DISTINCT model) FILTER (model IS NOT NULL)) AS models,
    sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out, sum(tokens_total) AS tokens_total,
    sum(cost_usd) AS cost_usd,
    bool_or(unpriced) AS unpriced, bool_or(bad_usage) AS bad_usage, bool_or(overlap) AS overlap,
    flatten(list(problems) FILTER (problems IS NOT NULL)) AS problems,
    bool_or(incomplete) AS incomplete,
    {" OR ".join(f"coalesce(min({column}) <> max({column}), false)" for column in CONFLICTS.values())}
        OR coalesce(min(user_id) <> max(user_id), count(user_id) = 0 AND min(metadata_user_id) <> max(metadata_user_id),
                    false) AS conflicting
FROM (SELECT *, {_IMPOSSIBLE} AS impossible FROM row) GROUP BY trace_id
)
SELECT *, {_DIFFERENCES}, CASE WHEN mistimed THEN first_start ELSE own_end END AS last_end FROM summed
"""

_MODELS = f"""
CREATE OR REPLACE TEMP TABLE model_usage AS
WITH summed AS (
    SELECT trace_id, model, {", ".join(f"sum(tokens_{name})::BIGINT AS {name}" for name in TOKEN_CLASSES)},
           sum(cost_usd)::DECIMAL(24, 12) AS cost_usd
    FROM row WHERE tokens_total IS NOT NULL OR cost_usd IS NOT NULL
    GROUP BY trace_id, model
)
SELECT trace_id, list(
    struct_pack(model, {", ".join(TOKEN_CLASSES)}, cost_usd) ORDER BY model NULLS FIRST
) AS usage
FROM summed GROUP BY trace_id
"""

_LINES = f"""
CREATE OR REPLACE TEMP TABLE line AS
WITH used AS (
    SELECT row.trace_id, model, left(name, {LONGEST_NAME}) AS name, type, level,
           overlap OR repeating.id IS NOT NULL AS repeats, unpriced, usage_keys, usage_counts, cost_usd
    FROM row LEFT JOIN repeating ON repeating.trace_id = row.trace_id AND repeating.id = row.id
    WHERE len(usage_keys) > 0 OR cost_usd IS NOT NULL
), counted AS (
    SELECT * EXCLUDE (usage_keys, usage_counts, cost_usd), left(unnest(usage_keys), {LONGEST_NAME}) AS key,
           unnest(usage_counts) AS quantity, NULL::DECIMAL(24, 12) AS cost_usd FROM used
    UNION ALL BY NAME
    SELECT * EXCLUDE (usage_keys, usage_counts, cost_usd), NULL AS key, NULL AS quantity, cost_usd FROM used
    WHERE cost_usd IS NOT NULL
), summed AS (
    SELECT trace_id, model, name, type, level, key, sum(quantity)::BIGINT AS quantity,
           sum(cost_usd)::DECIMAL(24, 12) AS cost_usd, repeats, unpriced
    FROM counted GROUP BY ALL
)
SELECT trace_id, list(
    struct_pack(model, name, type, level, key, quantity, cost_usd, repeats, unpriced)
    ORDER BY model NULLS FIRST, type NULLS FIRST, name NULLS FIRST, level NULLS FIRST, key NULLS FIRST,
             repeats, unpriced
) AS usage_lines
FROM summed GROUP BY trace_id
"""

_ACTIVE = f"""
CREATE OR REPLACE TEMP TABLE active AS
WITH ran AS (
    SELECT trace_id, epoch_us(start_time) AS began, epoch_us(end_time) AS ended
    FROM row WHERE NOT {_RECORD} AND end_time > start_time
), beside AS (
    SELECT trace_id, ended, greatest(began, coalesce(max(ended) OVER (
        PARTITION BY trace_id ORDER BY began, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), began)) AS began
    FROM ran
)
SELECT trace_id, sum(greatest(ended - began, 0))::BIGINT AS microseconds FROM beside GROUP BY trace_id
"""
"""The union of the times in which observations ran: what an earlier one covers does not count again."""

_EVENTS = f"""
SELECT trace_id AS id, project_id, $trace_base::VARCHAR AS trace_base, first_start AS timestamp, last_end AS ended_at,
       organization_id, customer_id, coalesce(user_id, metadata_user_id) AS user_id, session_id, chatflow_id,
       coalesce(chatflow_name, trace_name, root_name) AS chatflow_name,
       environment, ownership AS ai_credentials_ownership, coalesce(models, []) AS models,
       tokens_in::BIGINT AS tokens_in, tokens_out::BIGINT AS tokens_out, tokens_total::BIGINT AS tokens_total,
       coalesce(usage, []) AS usage, storage_gb, cost_usd::DECIMAL(24, 12) AS cost_usd,
       observations::INTEGER AS observations, has_error, unpriced, bad_usage OR mistimed AS bad_usage,
       conflicting AS conflicting_attributes,
       overlap OR doubled IS NOT NULL AS double_count_suspect,
       list_sort(list_distinct(list_concat(
           list_concat(coalesce(problems, []), coalesce(doubled, [])), coalesce(more, [])
       ))) AS problems,
       {", ".join(name for name in USAGE_SCHEMA.names if name.startswith("legacy_"))}, metadata,
       updated_at, incomplete OR coalesce(cost_differs AND observations = 0, false) AS incomplete,
       CASE WHEN mistimed THEN 0 ELSE (coalesce(microseconds, 0) / 1000000::DECIMAL(18, 6)) END::DECIMAL(18, 6)
           AS active_seconds,
       coalesce(usage_lines, []) AS usage_lines
FROM trace
LEFT JOIN line USING (trace_id)
LEFT JOIN active USING (trace_id)
LEFT JOIN model_usage USING (trace_id)
LEFT JOIN doubled USING (trace_id)
LEFT JOIN more USING (trace_id)
ORDER BY timestamp, id
"""

_CANDIDATES = """
WITH valued AS (
    SELECT trace_id, id FROM row WHERE cost_usd > 0 OR tokens_total > 0
), suspects AS (
    SELECT DISTINCT trace_id FROM valued
    SEMI JOIN (SELECT trace_id, parent_id AS id FROM row WHERE parent_id IS NOT NULL) AS parents USING (trace_id, id)
), several AS (
    SELECT trace_id FROM valued SEMI JOIN suspects USING (trace_id) GROUP BY trace_id HAVING count(*) > 1
)
SELECT trace_id, id, parent_id, cost_usd, tokens_total FROM row SEMI JOIN several USING (trace_id)
"""
"""Only traces in which something with usage stands above something else; normally almost none."""

_DAILY = f"""
SELECT epoch_us(start_time) // 86400000000 AS day, count(*), sum(tokens_total)::BIGINT, sum(cost_usd)
FROM row WHERE NOT {_RECORD} AND start_time >= $start AND start_time < $end
GROUP BY day ORDER BY day
"""

_TOUCHED = """
SELECT * FROM arriving WHERE trace_id IN (
    SELECT trace_id FROM arriving WHERE repeat OR (start_time >= $start AND start_time < $end)
    UNION ALL SELECT trace_id FROM of_no_time
)
"""

_NOT_FOREIGN = "SELECT * FROM arriving WHERE trace_id NOT IN (SELECT trace_id FROM foreign_trace)"

_READ = f"SELECT count(*) FROM facts WHERE NOT repeat AND rank <> {TRACE_RECORD}"

_PROBLEM_LISTS = pa.schema([pa.field("trace_id", pa.string()), pa.field("sentences", pa.list_(pa.string()))])


class Rollup:
    """Rolls up partitions one after the other; a context manager around its in-memory engine.

    window: What was asked for; days are counted inside it.
    trace_base: The address of a trace without its id.
    read_at: Aware: when the rows were read. Nothing in them can have happened later.
    only_touched: Book only traces with a row inside the window or read on purpose. The legacy reader looks beyond the
        window's edges, where it also sees traces that were not asked for.
    of_no_time: Traces that are booked without a row inside the window: all their rows lie outside any time of use.
    foreign: Traces of which only such rows were seen here, while others lie in another window: not booked.
    """

    def __init__(
        self,
        window: Window,
        trace_base: str | None,
        read_at: datetime,
        *,
        only_touched: bool,
        of_no_time: Collection[str] = (),
        foreign: Collection[str] = (),
    ) -> None:
        self._window = window
        self._read_at = read_at
        self._trace_base = trace_base
        self._only_touched = only_touched
        self._engine = duckdb.connect(":memory:")
        self._engine.execute("SET TimeZone = 'UTC'")
        self._engine.register("of_no_time", _ids(of_no_time))
        self._engine.register("foreign_trace", _ids(foreign))
        self._has_foreign = bool(foreign)

    def __enter__(self) -> Rollup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()

    def roll(self, facts: pa.Table) -> RolledPartition:
        """The usage rows of one partition of whole traces."""
        self._load(facts)
        self._engine.execute(_MODELS)
        repeats = double_counted(Node(*row) for row in self._engine.execute(_CANDIDATES).fetchall())
        self._put_repeating(repeats)
        self._engine.execute(_LINES)
        self._engine.execute(_ACTIVE)
        self._put("doubled", {trace_id: [one.sentence for one in rows] for trace_id, rows in repeats.items()})
        self._put("more", self._conflicts_and_differences())
        table = self._engine.execute(_EVENTS, {"trace_base": self._trace_base}).to_arrow_table()
        [(rows,)] = self._engine.execute(_READ).fetchall()
        [(dropped,)] = self._engine.execute("SELECT count(*) FROM duplicate WHERE dropped").fetchall()
        daily = self._engine.execute(_DAILY, self._bounds()).fetchall()
        return RolledPartition(
            table.cast(USAGE_SCHEMA),
            rows,
            dropped,
            [DailyTotal(date(1970, 1, 1) + timedelta(days=day), *rest) for day, *rest in daily],
        )

    def incomplete(self, facts: pa.Table) -> list[str]:
        """Ids of legacy traces to read whole: those without a record, or whose record's sums differ."""
        self._load(facts)
        found = self._engine.execute(
            f"SELECT trace_id FROM trace WHERE NOT has_record OR cost_differs OR latency_differs OR {_BARE} "
            "ORDER BY trace_id"
        )
        return [trace_id for (trace_id,) in found.fetchall()]

    def _limits(self) -> dict[str, datetime]:
        return {"latest": self._read_at.astimezone(UTC) + CLOCKS_DIFFER}

    def _bounds(self) -> dict[str, datetime]:
        return {"start": self._window.start.astimezone(UTC), "end": self._window.end.astimezone(UTC)}

    def _load(self, facts: pa.Table) -> None:
        """Make `facts` (every row, numbered), `row` (the newest of each, in order of precedence) and `trace`.

        The first two are views of Arrow data: copying whole rows into the engine would cost more than all queries.
        """
        if self._only_touched:
            facts = self._selected(facts, _TOUCHED, self._bounds())
        if self._has_foreign:
            facts = self._selected(facts, _NOT_FOREIGN, {})
        self._engine.register("facts", facts.append_column("fact", pa.array(np.arange(len(facts), dtype=np.int32))))
        self._engine.execute(_DUPLICATES)
        places = self._engine.execute(_PLACES).to_arrow_table()
        kept = facts if len(places) == len(facts) else facts.take(places["fact"])
        self._engine.register("row", kept.append_column("place", places["place"]))
        self._engine.execute(_TRACES, self._limits())

    def _selected(self, facts: pa.Table, query: str, bounds: dict[str, datetime]) -> pa.Table:
        self._engine.register("arriving", facts)
        selected: pa.Table = self._engine.execute(query, bounds).to_arrow_table()
        self._engine.unregister("arriving")
        return selected

    def _conflicts_and_differences(self) -> dict[str, list[str]]:
        sentences: dict[str, list[str]] = defaultdict(list)
        for word, column in [*CONFLICTS.items(), ("user", "user_id")]:
            rows = f"({USERS})" if word == "user" else "row"
            found = self._engine.execute(
                f"SELECT trace_id, list_sort(list(DISTINCT {column}::VARCHAR)) FROM {rows} "
                f"SEMI JOIN (SELECT trace_id FROM trace WHERE conflicting) AS torn USING (trace_id) "
                f"WHERE {column} IS NOT NULL GROUP BY trace_id HAVING count(DISTINCT {column}) > 1"
            )
            for trace_id, values in found.fetchall():
                sentences[trace_id].append(_conflict(word, values))
        mistimed = self._engine.execute(
            f"SELECT trace_id, count(*), min_by(id, id), min_by(start_time::VARCHAR, id), "
            f"min_by(end_time::VARCHAR, id) FROM row "
            f"SEMI JOIN (SELECT trace_id FROM trace WHERE mistimed) AS odd USING (trace_id) "
            f"WHERE NOT {_RECORD} AND {_IMPOSSIBLE} GROUP BY trace_id",
            self._limits(),
        )
        for trace_id, count, identity, start, end in mistimed.fetchall():
            sentences[trace_id].append(_mistimed(count, identity, start, end))
        differing = self._engine.execute(
            "SELECT trace_id, cost_differs, record_cost, cost_usd, latency_differs, record_latency, "
            "(epoch_us(own_end) - epoch_us(own_start)) / 1e6 FROM trace WHERE cost_differs OR latency_differs"
        )
        for trace_id, cost_differs, cost, own_cost, latency_differs, latency, own_latency in differing.fetchall():
            if cost_differs:
                own = _plain(own_cost or Decimal(0))
                sentences[trace_id].append(
                    f"Langfuse's trace names {_plain(cost)} USD, its observations sum to {own} USD"
                )
            if latency_differs:
                sentences[trace_id].append(
                    f"Langfuse's trace names {latency:g} s, its observations span {own_latency:g} s"
                )
        return sentences

    def _put(self, name: str, sentences: Mapping[str, Sequence[str]]) -> None:
        table = pa.table([list(sentences), list(sentences.values())], schema=_PROBLEM_LISTS)
        self._engine.register("arriving", table)
        self._engine.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT trace_id, sentences AS {name} FROM arriving"
        )
        self._engine.unregister("arriving")

    def _put_repeating(self, repeats: Mapping[str, Sequence[Repeat]]) -> None:
        pairs = [(trace_id, one.id) for trace_id, rows in repeats.items() for one in rows]
        schema = pa.schema([("trace_id", pa.string()), ("id", pa.string())])
        table = pa.table([[trace for trace, _ in pairs], [identity for _, identity in pairs]], schema=schema)
        self._engine.register("repeating", table)


def _ids(trace_ids: Collection[str]) -> pa.Table:
    return pa.table([sorted(trace_ids)], schema=pa.schema([("trace_id", pa.string())]))


def _mistimed(count: int, identity: str, start: str, end: str | None) -> str:
    lasting = "without an end" if end is None else f"to {end}"
    more = f" (and {count - 1:,} more)" if count > 1 else ""
    return (
        f"observation {identity}{more} ran from {start} {lasting}, which no run can have: "
        "the trace's latency is not known, compute is not rated"
    )


def _conflict(word: str, values: Sequence[str]) -> str:
    shown = ", ".join(repr(value) for value in values[:CONFLICT_VALUES_SHOWN])
    more = f" and {len(values) - CONFLICT_VALUES_SHOWN} more" if len(values) > CONFLICT_VALUES_SHOWN else ""
    return f"{word} differs within the trace: {shown}{more}; the logical root's counts, else the latest"


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
