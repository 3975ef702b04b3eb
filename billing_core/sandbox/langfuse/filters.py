"""The `filter` parameter of the v2 API (reference, section 1.5): conditions become a `Query`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from billing_core.sandbox.http import bad_request
from billing_core.sandbox.langfuse.store import Check, Query
from billing_core.sandbox.langfuse.wire import ATTRIBUTES, Observation, iso, mapping, milliseconds, stored_text

COLUMNS: dict[str, str] = {
    name: ATTRIBUTES[name]
    for name in (
        "id",
        "name",
        "userId",
        "sessionId",
        "type",
        "level",
        "version",
        "environment",
        "traceId",
        "traceName",
        "parentObservationId",
        "statusMessage",
        "release",
        "model",
    )
} | {"providedModelName": "model"}
"""Text columns a filter may name → attribute of the row."""

TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "contains": lambda text, part: part in text,
    "does not contain": lambda text, part: part not in text,
    "starts with": str.startswith,
    "ends with": str.endswith,
}
ORDER_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
NUMBERS: dict[str, Callable[[Observation], float | None]] = {
    "totalCost": lambda row: row.total_cost,
    "totalTokens": lambda row: mapping(row.usage_details).get("total", 0),
    "latency": lambda row: row.latency,
}


class Condition(msgspec.Struct):
    """One element of the filter."""

    type: str
    column: str
    operator: str
    value: Any = ""
    key: str = ""


def parse_conditions(text: str | None) -> list[Condition]:
    """The conditions of a `filter` parameter, all of which must hold.

    Raises Refusal: 400 if it is no JSON list of conditions.
    """
    if text is None:
        return []
    try:
        return msgspec.json.decode(text, type=list[Condition])
    except msgspec.MsgspecError as error:
        raise bad_request("filter", f"Invalid filter: {error}") from None


def equals(column: str, value: str) -> Check:
    """The row's text under `column` is exactly `value`."""
    key = COLUMNS[column]
    return lambda row: getattr(row, key) == value


def apply_conditions(query: Query, conditions: list[Condition]) -> Query:
    """`query` narrowed by every condition.

    Raises Refusal: 400 for a column, type or operator the API does not take.
    """
    for condition in conditions:
        query = _apply(query, condition)
    return query


def _apply(query: Query, condition: Condition) -> Query:
    match condition.type, condition.column:
        case ("string" | "stringOptions", column) if column in COLUMNS:
            return _apply_text(query, condition)
        case ("boolean", "isRootObservation"):
            wanted = bool(condition.value) == (condition.operator == "=")
            return _with_check(query, lambda row: row.is_root_observation == wanted)
        case ("datetime", "startTime" | "endTime"):
            return _apply_time(query, condition)
        case ("stringObject", "metadata"):
            return _with_check(query, _metadata_check(condition))
        case ("arrayOptions", "tags"):
            return _with_check(query, _tags_check(condition))
        case ("number", column) if column in NUMBERS:
            return _with_check(query, _number_check(condition))
        case ("null", column) if column in COLUMNS:
            key, is_null = COLUMNS[column], condition.operator == "is null"
            return _with_check(query, lambda row: (not getattr(row, key)) == is_null)
        case _:
            raise bad_request("filter", f"Invalid filter: {condition.type} on column {condition.column}")


def _with_check(query: Query, check: Check) -> Query:
    return replace(query, checks=(*query.checks, check))


def _unknown_operator(condition: Condition) -> Exception:
    return bad_request("filter", f"Invalid operator {condition.operator!r} for {condition.type}")


def _apply_text(query: Query, condition: Condition) -> Query:
    key = COLUMNS[condition.column]
    if condition.type == "string":
        test = TEXT_TESTS.get(condition.operator)
        if test is None:
            raise _unknown_operator(condition)
        value = str(condition.value)
        if condition.operator != "=":
            return _with_check(query, lambda row: test(getattr(row, key) or "", value))
        values = frozenset((value,))
    else:
        if condition.operator not in {"any of", "none of"} or not isinstance(condition.value, list):
            raise _unknown_operator(condition)
        values = frozenset(map(str, condition.value))
        if condition.operator == "none of":
            return _with_check(query, lambda row: getattr(row, key) not in values)
    if key == "trace_id":
        return replace(query, traces=values if query.traces is None else query.traces & values)
    return _with_check(query, lambda row: getattr(row, key) in values)


def _apply_time(query: Query, condition: Condition) -> Query:
    try:
        time = milliseconds(str(condition.value))
    except ValueError:
        raise bad_request("filter", "Invalid ISO datetime; expected an offset such as Z") from None
    test = ORDER_TESTS.get(condition.operator)
    if test is None or condition.operator == "=":
        raise _unknown_operator(condition)
    if condition.column == "endTime":
        bound = iso(time)
        return _with_check(query, lambda row: row.end_time is not None and test(row.end_time, bound))
    low, high = query.start
    edge = time + (condition.operator in {">", "<="})
    return replace(query, start=(max(low, edge), high) if ">" in condition.operator else (low, min(high, edge)))


def _metadata_check(condition: Condition) -> Check:
    test, key, value = TEXT_TESTS.get(condition.operator), condition.key, str(condition.value)
    if test is None:
        raise _unknown_operator(condition)

    def check(row: Observation) -> bool:
        metadata = mapping(row.metadata)
        return test(stored_text(metadata[key]) if key in metadata else "", value)

    return check


def _tags_check(condition: Condition) -> Check:
    wanted = set(map(str, condition.value)) if isinstance(condition.value, list) else set()
    match condition.operator:
        case "any of":
            return lambda row: bool(wanted & set(row.tags))
        case "none of":
            return lambda row: not wanted & set(row.tags)
        case "all of":
            return lambda row: wanted <= set(row.tags)
        case _:
            raise _unknown_operator(condition)


def _number_check(condition: Condition) -> Check:
    test, read, value = ORDER_TESTS.get(condition.operator), NUMBERS[condition.column], condition.value
    if test is None or not isinstance(value, (int, float)):
        raise _unknown_operator(condition)

    def check(row: Observation) -> bool:
        number = read(row)
        return number is not None and test(number, value)

    return check
