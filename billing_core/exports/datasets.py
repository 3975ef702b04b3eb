"""The data sets of exports that fit into memory: organizations, customers, reconciliation, rate cards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from billing_core.exports.event_slices import pinned
from billing_core.exports.flat_schema import AMOUNT, JSON_TEXT, field
from billing_core.exports.model import Dataset
from billing_core.exports.running_totals import TOKEN_COLUMNS, Value, compare, totals_of
from billing_core.exports.source import RowSource
from billing_core.ledger import queries, statistics
from billing_core.ledger.closes import CloseStore
from billing_core.ledger.directory import Line, lines_at
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.organizations.directory_file import COLUMNS, can_be_written
from billing_core.organizations.figures import Figures
from billing_core.organizations.rollup import Rows, roll_up
from billing_core.rating.card import RateCard, RateCardFile
from billing_core.reconcile.report import CustomerDay, Reconciliation, added
from billing_core.types import Credits, plain_decimal, utc_text
from billing_core.usage_events.totals import add_up
from billing_core.values.decimals import EXACT

CREDIT_SUM = pa.decimal128(38, 6)
USD_SUM = pa.decimal128(38, 12)
COUNTS = ("events", "chats", "messages_sent", "messages_generated", "users")

ORGANIZATIONS = pa.schema(
    [
        field("organization_id", pa.string()),
        field("name", pa.string()),
        *(field(name, pa.int64()) for name in (*COUNTS, *TOKEN_COLUMNS)),
        *(field(f"credits_{part}", CREDIT_SUM) for part in Credits.model_fields),
        field("amount_usd", AMOUNT),
        field("cost_usd", USD_SUM),
    ]
)

CUSTOMERS = pa.schema([field(name, pa.string()) for name in COLUMNS])

BOOKS = ("langfuse_credits", "ledger_credits", "sent_credits", "stripe_credits", "unexplained_credits")

RECONCILIATION = pa.schema(
    [
        field("customer_id", pa.string()),
        field("day", pa.string()),
        *(field(name, CREDIT_SUM) for name in BOOKS),
        field("causes", pa.string(), JSON_TEXT),
    ]
)

RATE = pa.decimal128(38, 12)

RATE_CARDS = pa.schema(
    [
        field("id", pa.string()),
        field("effective_from", pa.string()),
        field("effective_to", pa.string()),
        field("credit_price_usd", RATE),
        field("margin", RATE),
        field("ai", pa.string(), JSON_TEXT),
        field("compute_credits_per_minute", RATE),
        field("storage_credits_per_gb_month", RATE),
        field("compute_basis", pa.string()),
        *(field(name, pa.string(), JSON_TEXT) for name in ("exclude", "token_classes", "units")),
        field("sha256", pa.string()),
    ]
)


SCHEMAS: Mapping[Dataset, pa.Schema] = {
    Dataset.ORGANIZATIONS: ORGANIZATIONS,
    Dataset.CUSTOMERS: CUSTOMERS,
    Dataset.RECONCILIATION: RECONCILIATION,
    Dataset.RATE_CARD: RATE_CARDS,
}
"""Columns of the data sets that have one table each."""


def _source(
    schema: pa.Schema, rows: Sequence[Mapping[str, Any]], totals: Mapping[str, Value], meta: Mapping[str, Any]
) -> RowSource:
    """Rows that are all there already."""
    table = pa.Table.from_pylist(list(rows), schema=schema)

    def tables() -> Iterator[pa.Table]:
        yield table

    return RowSource(schema, table.num_rows, totals, meta, tables)


# ── organizations ────────────────────────────────────────────────────────────────────────────────


def organizations(ledger: Ledger, selection: Selection, meta: Mapping[str, Any]) -> RowSource:
    """The data set of organizations: one row per organization with events, by id; events that name none are the last
    row, without id.

    Names are today's, or of a window that lies in closed months, those at the close: such a file never changes.

    Raises WarehouseError: if the rows do not add up to what the screen shows.
    """
    selection = pinned(selection)
    figures = roll_up(
        Rows(
            sums=ledger.read_rows(statistics.sums(selection)),
            counts=ledger.read_rows(statistics.counts(selection)),
            latency=(),
            models=(),
            token_classes=(),
        )
    )
    lines = directory_lines(ledger, selection)
    rows = [
        _organization(key, figures[key], lines.get(key or "", Line()))
        for key in sorted(figures, key=lambda key: (key is None, key or ""))
    ]
    shown = add_up(ledger.read_rows(queries.totals(selection)))
    totals = totals_of(shown.totals)
    compare(_sums(rows, totals), totals, sum(row["events"] for row in rows), shown.events)
    versions = ledger.read_rows(queries.distinct_values(selection, "rate_card_version"))
    named = sorted(row["rate_card_version"] for row in versions)
    return _source(ORGANIZATIONS, rows, totals, {**meta, "rate_card_versions": named})


def _organization(key: str | None, figures: Figures, line: Line) -> dict[str, Any]:
    parts = {f"credits_{part}": getattr(figures.credits, part) for part in Credits.model_fields}
    counted = (*COUNTS, *TOKEN_COLUMNS, "amount_usd", "cost_usd")
    return {"organization_id": key, "name": line.name, **{n: getattr(figures, n) for n in counted}, **parts}


def _sums(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Value]:
    sums: dict[str, Value] = {
        name: None if name == "cost_usd" or name in TOKEN_COLUMNS else Decimal(0) for name in names
    }
    for row in rows:
        for name, before in sums.items():
            if row[name] is not None:
                sums[name] = row[name] if before is None else EXACT.add(Decimal(before), Decimal(row[name]))
    return sums


def directory_lines(ledger: Ledger, selection: Selection) -> dict[str, Line]:
    """The organization directory as it is now; for a window in closed months, as it was when the last was closed."""
    close = last_close(selection)
    at = None if close is None else CloseStore(ledger.engine).numbered(close).closed_at
    return lines_at(ledger.engine.rows, at)


def last_close(selection: Selection) -> int | None:
    """Number of the last close of the months that the window lies in; `None` if some of it is open."""
    start, end = selection.start, selection.end
    if start is None or end is None:
        return None
    within = sorted(
        (span for span in selection.snapshot.closed if span.start < end and span.end > start),
        key=lambda span: span.start,
    )
    reached = start
    for span in within:
        if span.start <= reached:
            reached = max(reached, span.end)
    return within[-1].seq if within and reached >= end else None


# ── customers ────────────────────────────────────────────────────────────────────────────────────


def customers(ledger: Ledger, selection: Selection, meta: Mapping[str, Any]) -> RowSource:
    """The data set of the customer map: names and customers of organizations, as the directory's import reads it; by
    id.

    Every organization of the selection, mapped or not, and every one in the directory that its scope holds. An id that
    no such file can hold (control characters, more than 200 characters) is left out.
    """
    lines = directory_lines(ledger, selection)
    asked = dict(selection.any_of).get("organization_id")
    named = {one for one in lines if selection.scope.holds(one) and (asked is None or one in asked)}
    everyone = ledger.read_rows(queries.distinct_values(pinned(selection), "organization_id"))
    seen = {row["organization_id"] for row in everyone}
    known = sorted(one for one in named | seen if one is not None and can_be_written(one))
    rows = [_customer(one, lines.get(one, Line())) for one in known]
    return _source(CUSTOMERS, rows, {}, {**meta, "rate_card_versions": []})


def _customer(organization_id: str, line: Line) -> dict[str, Any]:
    return {"organization_id": organization_id, "name": line.name, "customer_id": line.customer_id}


# ── reconciliation ───────────────────────────────────────────────────────────────────────────────


def reconciliation(found: Reconciliation, customers: tuple[str, ...], meta: Mapping[str, Any]) -> RowSource:
    """The data set of a reconciliation per customer and UTC day; credits that are unknown are null, never 0."""
    rows = [row for row in found.rows if not customers or row.customer_id in customers]
    said = {
        **meta,
        "window": {"from": utc_text(found.window.start), "to": utc_text(found.window.end)},
        "reconciled_at": utc_text(found.made_at),
        "problems": list(found.problems),
        "rate_card_versions": [],
    }
    totals: dict[str, Value] = {}
    for name in BOOKS:
        values = [getattr(row, name) for row in rows]
        totals[name] = None if any(value is None for value in values) else added(values)
    return _source(RECONCILIATION, [_reconciled(row) for row in rows], totals, said)


def _reconciled(row: CustomerDay) -> dict[str, Any]:
    causes = [
        {
            "cause": part.cause,
            "step": part.step,
            "credits": plain_decimal(part.credits),
            "event_ids": list(part.event_ids),
            "meter_events": list(part.meter_events),
        }
        for part in row.parts
    ]
    books = {name: getattr(row, name) for name in BOOKS}
    return {
        "customer_id": row.customer_id,
        "day": row.day.isoformat(),
        **books,
        "causes": json.dumps(causes, ensure_ascii=False),
    }


# ── rate cards ───────────────────────────────────────────────────────────────────────────────────


def rate_cards(cards: RateCardFile, ledger: Ledger, meta: Mapping[str, Any]) -> RowSource:
    """The data set of rate cards: a row per card in use, oldest first.

    In `meta`, where an import finds them: plans, and cards that apply no more but that events were rated with.
    """
    ordered = sorted(cards.cards, key=lambda card: (card.effective_from, card.id))
    plans = [plan.model_dump(mode="json") for plan in cards.plans]
    names = sorted(ledger.card_versions() - {card.id for card in ordered})
    retired = [json.loads(card.to_json()) for name in names if (card := ledger.card(name)) is not None]
    said = {**meta, "plans": plans, "rate_card_versions": [card.id for card in ordered]}
    if retired:
        said["retired_cards"] = retired
    return _source(RATE_CARDS, [_card(card) for card in ordered], {}, said)


def _card(card: RateCard) -> dict[str, Any]:
    text = json.loads(card.to_json())
    return {
        "id": card.id,
        "effective_from": text["effective_from"],
        "effective_to": text["effective_to"],
        "credit_price_usd": card.credit_price_usd,
        "margin": card.margin,
        "ai": json.dumps(text["ai"], ensure_ascii=False, sort_keys=True),
        "compute_credits_per_minute": card.compute.credits_per_minute,
        "storage_credits_per_gb_month": card.storage.credits_per_gb_month,
        "compute_basis": card.compute.basis.value,
        **{
            name: json.dumps(text[name], ensure_ascii=False, sort_keys=True) if name in text else None
            for name in ("exclude", "token_classes", "units")
        },
        "sha256": card.fingerprint(),
    }
