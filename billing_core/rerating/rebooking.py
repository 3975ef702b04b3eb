"""Builds the rows to book from stored events and their new credits, with the status of each afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.customer_mapping import UnsentEvent, status_after_remap
from billing_core.ledger.engine import Rows
from billing_core.ledger.holds import MARK_GONE, active_holds, failures_while_charged
from billing_core.ledger.queries import split_models, with_utc
from billing_core.ledger.schema import FLAG_SEPARATOR, SENT
from billing_core.rating.events import EVENT_SCHEMA, failed_before, no_customer
from billing_core.rerating.rules import RERATED
from billing_core.types import Flag, SyncStatus

Kind = tuple[str, str, str | None, bool, bool, bool, str | None, str | None, bool]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Events that wait for a person, or for a rule, before they may be sent, by event id.

    rules: The cause of an active hold by a rule.
    kept_back: The reason of an active hold by a person.
    failures: Why an event that is free now was in error while it cost something: that it was free does not settle it.
    """

    rules: Mapping[str, str]
    kept_back: Mapping[str, str]
    failures: Mapping[str, str]


def waiting_now(rows: Rows) -> Waiting:
    """The events that wait for a person or a rule, as it is inside a transaction, of which `rows` reads."""
    holds = active_holds(rows)
    failures = {
        event_id: error if has_customer or error == MARK_GONE else failed_before(error)
        for event_id, error, has_customer in failures_while_charged(rows)
    }
    return Waiting(
        rules={event_id: rule for event_id, rule, _ in holds if rule is not None},
        kept_back={event_id: reason for event_id, _, reason in holds if reason is not None},
        failures={event_id: error for event_id, error in failures.items() if error is not None},
    )


def to_book(
    events: pa.Table, rerated: pa.Table, waiting: Waiting, payers_before: pa.ChunkedArray | None = None
) -> pa.Table:
    """The rows to book (`EVENT_SCHEMA`): stored events (all columns) with the credits, price, card and flags of
    `rerated`.

    Facts go back as they are. An event that was sent keeps its status; how an unsent one stands follows from its new
    credits, by the rule that holds when somebody else comes to pay: what only a person may lift stays.
    `payers_before` are the stored customers where `events` have those that pay from now on.
    """
    status, error = _statuses(
        events, rerated, waiting, events["customer_id"] if payers_before is None else payers_before
    )
    priced = {name: rerated[name] for name in RERATED.names if name in EVENT_SCHEMA.names}
    made = {
        **priced,
        "models": _lists(events["models"], split_models),
        "flags": _lists(rerated["flags"], lambda text: [flag for flag in text.split(FLAG_SEPARATOR) if flag]),
        "problems": _lists(events["problems"], lambda text: [line for line in text.split("\n") if line]),
        "sync_status": status,
        "sync_error": error,
    }
    facts = with_utc(events)
    columns = [
        _cast(made[field.name] if field.name in made else facts[field.name], field.type) for field in EVENT_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)


def _cast(column: Any, kind: pa.DataType) -> Any:
    return column if column.type == kind else column.cast(kind)


def _lists(column: pa.ChunkedArray, split: Callable[[str], list[str]]) -> pa.Array:
    """Delimited text as lists; few texts are distinct."""
    encoded = column.combine_chunks().fill_null("").dictionary_encode()
    lists = [split(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(encoded.indices)


def _statuses(
    events: pa.Table, rerated: pa.Table, waiting: Waiting, payers_before: pa.ChunkedArray
) -> tuple[pa.Array, pa.Array]:
    """Status and error of each event from now on."""
    statuses = events["sync_status"].cast(pa.string()).to_pylist()
    errors = events["sync_error"].to_pylist()
    had_customer = pc.is_valid(payers_before).to_pylist()
    has_customer = pc.is_valid(events["customer_id"]).to_pylist()
    was_rejected = pc.is_valid(events["meter_event_identifier"]).to_pylist()
    has_credits = pc.not_equal(rerated["credits_total"], 0).to_pylist()
    flags = rerated["flags"].to_pylist()
    known: dict[Kind, tuple[str, str | None]] = {}
    for place, event_id in enumerate(events["id"].to_pylist()):
        status, error = statuses[place], errors[place]
        if status in SENT:
            continue
        if status == SyncStatus.EXCLUDED and (failure := waiting.failures.get(event_id)) is not None:
            status = SyncStatus.ERROR.value
            error = failure if had_customer[place] or failure == MARK_GONE else no_customer(failure)
        kind = (
            flags[place],
            status,
            error,
            had_customer[place],
            has_credits[place],
            was_rejected[place],
            waiting.rules.get(event_id),
            waiting.kept_back.get(event_id),
            has_customer[place],
        )
        if kind not in known:
            known[kind] = _decided(kind)
        statuses[place], errors[place] = known[kind]
    return pa.array(statuses, pa.string()), pa.array(errors, pa.string())


def _decided(kind: Kind) -> tuple[str, str | None]:
    flags, status, error, had_customer, has_credits, was_rejected, rule, kept_back, has_customer = kind
    event = UnsentEvent(flags, status, error, had_customer, has_credits, was_rejected, rule, kept_back)
    now = status_after_remap(
        event, has_customer=has_customer, is_mapped=Flag.MAPPED_CUSTOMER in event.flags.split(FLAG_SEPARATOR)
    )
    return now.status, now.error
