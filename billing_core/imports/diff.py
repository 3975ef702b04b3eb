"""Compares the events of an imported file with those of the ledger: the rows to book. Pure.

What a file does not say stays as the ledger has it: columns it lacks, times finer than it can write, text that a CSV
file cannot tell from another. So a file that comes back unchanged changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.imports.validation import TEXTS
from billing_core.ledger.customer_mapping import UnsentEvent, status_after_remap
from billing_core.ledger.holds import MARK_GONE
from billing_core.ledger.queries import with_utc
from billing_core.ledger.schema import FLAG_SEPARATOR, MODEL_SEPARATOR, SENT
from billing_core.rating.events import EVENT_SCHEMA, no_customer
from billing_core.rating.rate import PRICE
from billing_core.rerating.rebooking import Waiting
from billing_core.types import Flag, SyncStatus
from billing_core.values.time_columns import cut_to
from billing_core.values.usage_frame import COST, MODEL_USAGE, TOKEN_CLASSES, USAGE_LINE

BILLED = (SyncStatus.PROCESSED.value, SyncStatus.CONFIRMED.value)
"""Statuses with which a file says that Stripe has the usage."""

Mask = npt.NDArray[np.bool_]

UNSENT = (SyncStatus.PENDING.value, SyncStatus.ERROR.value)

_TIMES = ("timestamp", "ended_at", "updated_at")


@dataclass(frozen=True, slots=True)
class KnownEvents:
    """What the ledger knows about the events of an imported file.

    events: Stored events (all columns) row for row beside the file's; all null where there is none.
    waiting: What of the ledger's events waits for a person or a rule.
    covered: Ids of events that intents cover, wholly or in part: somebody's bill has them already.
    price_at: The credit price in force at a time: of records of the earlier system that are worth nothing.
    """

    events: pa.Table
    waiting: Waiting
    covered: Collection[str]
    price_at: Callable[[Any], Decimal]


@dataclass(frozen=True, slots=True)
class MergedEvents:
    """The rows an import of events would book, and their counts.

    events: `EVENT_SCHEMA`, row for row.
    is_new: Whether the ledger has no such event.
    is_lifted: Whether the file says that an event was billed that is unsent here, or of which the ledger it came from
        did not know it: it was, elsewhere.
    """

    events: pa.Table
    is_new: Mask
    is_lifted: Mask


def beside(staged: pa.Table, found: pa.Table) -> pa.Table:
    """Stored events in the order of the file's rows, null where there is none."""
    place = pc.index_in(_whole(staged["id"]), _whole(found["id"]))
    return with_utc(found).take(place)


def merge(staged: pa.Table, given: frozenset[str], known: KnownEvents, *, is_csv: bool) -> MergedEvents:
    """The rows to book for rows of a file (`STAGED`) that has the columns `given`."""
    stored = known.events
    is_new = stored["id"].is_null().to_numpy()
    made: dict[str, Any] = {name: staged[name] for name in EVENT_SCHEMA.names if name in staged.column_names}
    made["metadata"] = stored["metadata"]
    for name in ("project_id", "has_error", "updated_at"):
        if name not in given:
            made[name] = stored[name]
    for name in _TIMES:
        made[name] = _as_fine_as_known(made[name], stored[name])
    if is_csv:
        for name in (*TEXTS, "id"):
            if name in made and name in stored.column_names:
                made[name] = _as_known(made[name], stored[name])
    made["trace_base"] = pc.coalesce(_whole(made["trace_base"]), _whole(stored["trace_base"]))
    if "observations" not in given:
        made["observations"] = stored["observations"].cast(pa.int32())
    made["observations"] = pc.fill_null(_whole(made["observations"]), pa.scalar(0, pa.int32()))
    made["problems"] = _problems(made["problems"], stored["problems"], "problems" in given)
    if "active_seconds" not in given:
        same = _same(made["timestamp"], stored["timestamp"]) & _same(made["ended_at"], stored["ended_at"])
        made["active_seconds"] = pc.if_else(pa.array(same), _whole(stored["active_seconds"]), None)
    if "usage_lines" not in given:
        same = _is_same_usage(made, stored)
        made["usage_lines"] = _where(same, _whole(stored["usage_lines"]).cast(pa.list_(USAGE_LINE)))
    made["usage"] = _usage(made, stored, "usage" in given)
    made["credit_price_usd"] = _prices(made["credit_price_usd"], stored, staged["timestamp"], known.price_at)
    statuses, errors = _statuses(made, stored, known.waiting)
    lifted = _lifted(staged, statuses, stored, known.covered)
    made["sync_status"], made["sync_error"] = _of_new(made, statuses, errors, is_new)
    columns = [_cast(made[field.name], field.type) for field in EVENT_SCHEMA]
    return MergedEvents(pa.Table.from_arrays(columns, schema=EVENT_SCHEMA), is_new, lifted)


def _whole(column: Any) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _cast(column: Any, kind: pa.DataType) -> Any:
    return column if column.type == kind else column.cast(kind)


def _as_fine_as_known(column: Any, stored: Any) -> Any:
    """The ledger's time where the file's is the same in milliseconds, which is all that text has."""
    same = pc.equal(_whole(column), cut_to(_whole(stored), timedelta(milliseconds=1)))
    return pc.if_else(pc.fill_null(same, False), _whole(stored), _whole(column))


def _as_known(column: Any, stored: Any) -> Any:
    """The ledger's text where it is empty, and so is the cell: a CSV file cannot tell that from none."""
    mine, theirs = _whole(stored), _whole(column)
    same = pc.and_(pc.fill_null(pc.equal(mine, ""), False), theirs.is_null())
    return pc.if_else(same, mine, theirs)


def _problems(given: Any, stored: Any, is_given: bool) -> pa.Array:
    if is_given:
        return _lists([one or [] for one in given.to_pylist()])
    return _lists([(text or "").split("\n") if text else [] for text in stored.to_pylist()])


def _lists(values: list[list[str]]) -> pa.Array:
    return pa.array(values, pa.list_(pa.string()))


_USED = ("tokens_in", "tokens_out", "tokens_total", "cost_usd")


def _usage(made: Mapping[str, Any], stored: pa.Table, is_given: bool) -> pa.Array:
    """What each model used: as the file says, as the ledger knows while tokens, models and cost agree, else derived."""
    rows = len(made["id"])
    kind = pa.list_(MODEL_USAGE)
    said = _whole(made["usage"]).cast(kind) if is_given else pa.nulls(rows, kind)
    mine = _whole(stored["usage"]).cast(kind)
    agrees = _is_same_usage(made, stored) & mine.is_valid().to_numpy(zero_copy_only=False)
    place = np.arange(rows)
    is_said = said.is_valid().to_numpy(zero_copy_only=False)
    choice = np.where(is_said, place, np.where(agrees, rows + place, 2 * rows + place))
    return pa.concat_arrays([said, mine, _derived(made)]).take(pa.array(choice))


def _is_same_usage(made: Mapping[str, Any], stored: pa.Table) -> Mask:
    """Whether the file and the ledger agree in models, tokens and cost."""
    agrees = _same(_joined(_whole(made["models"])), stored["models"])
    for name in _USED:
        agrees &= _same(made[name], stored[name])
    return agrees


def _where(kept: Mask, lists: pa.Array) -> pa.Array:
    """The lists that are kept, null in place of the others."""
    return lists.take(pa.array(np.arange(len(lists)), mask=~kept))


def _joined(models: pa.Array) -> pa.Array:
    """Models as the ledger stores them (`schema.stored`)."""
    edge = pa.scalar(MODEL_SEPARATOR)
    wrapped = pc.binary_join_element_wise(edge, pc.binary_join(models, MODEL_SEPARATOR), edge, "")
    return pc.if_else(pc.equal(pc.list_value_length(models), 0), "", wrapped)


def _same(column: Any, stored: Any) -> Mask:
    a, b = _whole(column), _whole(stored)
    both_null = pc.and_(a.is_null(), b.is_null())
    found: Mask = pc.or_(both_null, pc.fill_null(pc.equal(a, b), False)).to_numpy(zero_copy_only=False).astype(bool)
    return found


def _derived(made: Mapping[str, Any]) -> pa.Array:
    """One line of all that was used, of the model if there is only one; no line where nothing is known."""
    models = _whole(made["models"])
    is_one = pc.equal(pc.list_value_length(models), 1)
    model = pc.replace_with_mask(pa.nulls(len(models), pa.string()), is_one, models.filter(is_one).flatten())
    known = [_whole(made[name]) for name in _USED]
    used, given_out, total = (pc.fill_null(column, 0) for column in known[:3])
    other = pc.max_element_wise(pc.subtract(pc.subtract(total, used), given_out), pa.scalar(0, pa.int64()))
    nothing = pa.array(np.zeros(len(models), dtype=np.int64))
    tokens = {**dict.fromkeys(TOKEN_CLASSES, nothing), "input": used, "output": given_out, "other": other}
    lines = pa.StructArray.from_arrays(
        [model, *(tokens[name] for name in TOKEN_CLASSES), known[3].cast(COST)], fields=list(MODEL_USAGE)
    )
    has_line = np.logical_or.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in known])
    ends = np.concatenate([[0], np.cumsum(has_line)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), lines.filter(pa.array(has_line)), type=pa.list_(MODEL_USAGE))


def _prices(column: Any, stored: pa.Table, times: Any, price_at: Callable[[Any], Decimal]) -> pa.Array:
    """Records of the earlier system worth nothing do not tell their price: it is the ledger's, or the one in force."""
    prices = pc.coalesce(_whole(column), _whole(stored["credit_price_usd"]))
    if not prices.null_count:
        return prices
    at = times.to_pylist()
    return pa.array([price_at(at[i]) if p is None else p for i, p in enumerate(prices.to_pylist())], PRICE)


def _statuses(made: Mapping[str, Any], stored: pa.Table, waiting: Waiting) -> tuple[list[str | None], list[str | None]]:
    """Status and error of events the ledger has: what is on its way or sent stays, the others follow from the facts.

    It is the rule that holds when somebody else comes to pay: what only a person may lift stays.
    """
    statuses = stored["sync_status"].cast(pa.string()).to_pylist()
    errors = stored["sync_error"].to_pylist()
    unsent = [i for i, status in enumerate(statuses) if status is not None and status not in SENT]
    if not unsent:
        return statuses, errors
    had_customer, has_customer = stored["customer_id"].to_pylist(), made["customer_id"].to_pylist()
    has_credits = pc.not_equal(made["credits_total"], Decimal(0)).to_pylist()
    rejected = stored["meter_event_identifier"].is_valid().to_pylist()
    flags, ids = made["flags"].to_pylist(), stored["id"].to_pylist()
    for i in unsent:
        if Flag.EXCLUDED_ENVIRONMENT in flags[i]:
            statuses[i], errors[i] = SyncStatus.EXCLUDED.value, None
            continue
        failure = waiting.failures.get(ids[i]) if statuses[i] == SyncStatus.EXCLUDED else None
        if failure is not None:  # it was in error while it cost something, and that is not settled by its being free
            is_anybodys = had_customer[i] is not None or failure == MARK_GONE
            statuses[i], errors[i] = SyncStatus.ERROR.value, failure if is_anybodys else no_customer(failure)
        event = UnsentEvent(
            FLAG_SEPARATOR.join(flags[i]),
            statuses[i],
            errors[i],
            had_customer[i] is not None,
            has_credits[i],
            rejected[i],
            waiting.rules.get(ids[i]),
            waiting.kept_back.get(ids[i]),
        )
        now = status_after_remap(
            event, has_customer=has_customer[i] is not None, is_mapped=Flag.MAPPED_CUSTOMER in flags[i]
        )
        statuses[i], errors[i] = now.status, now.error
    return statuses, errors


def _lifted(staged: pa.Table, statuses: Sequence[str | None], stored: pa.Table, covered: Collection[str]) -> Mask:
    said = np.array([one in BILLED for one in staged["sync_status"].to_pylist()], dtype=bool)
    free = np.array([one not in covered for one in staged["id"].to_pylist()], dtype=bool)
    unsent = np.array([status in UNSENT for status in statuses], dtype=bool)
    found: Mask = said & ((unsent & free) | unknown_elsewhere(stored))
    return found


def unknown_elsewhere(stored: pa.Table) -> Mask:
    """Stored events that were being sent when they were imported: no intent here ever gets an answer for them."""
    sending = pc.equal(stored["sync_status"].cast(pa.string()), SyncStatus.SENDING.value)
    both = pc.fill_null(pc.and_(sending, stored["billed_elsewhere"]), False)
    found: Mask = np.asarray(both.to_numpy(), dtype=bool)
    return found


def _of_new(
    made: Mapping[str, Any], statuses: Sequence[str | None], errors: Sequence[str | None], is_new: Any
) -> tuple[pa.Array, pa.Array]:
    fresh = pa.array(is_new)
    return (
        pc.if_else(fresh, _whole(made["sync_status"]), pa.array(statuses, pa.string())),
        pc.if_else(fresh, _whole(made["sync_error"]), pa.array(errors, pa.string())),
    )
