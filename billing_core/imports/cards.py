"""Reads rate cards from a file: a card file as people write it, or the rows of an export. Pure but for reading the
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from billing_core.errors import RateCardError
from billing_core.imports.bounds import Unusable, shown
from billing_core.imports.detection import CARD_COLUMNS, LARGEST_DOCUMENT, File, Form, without_helpers
from billing_core.imports.model import ImportOutcome, RejectedLine
from billing_core.imports.readers import batches, json_header, json_meta, texts
from billing_core.imports.times import has_offset
from billing_core.ledger.active_cards import ImportedCards, combined
from billing_core.rating.card import CardLoader, Plan, RateCard, RateCardFile, first_fault, parse_rate_cards
from billing_core.values.counts import count_of

M = TypeVar("M", Plan, RateCard)

MOST_CARDS = 1_000
LARGEST_TABLE = 8 * 1024 * 1024
"""Characters of cards as rows."""
_RULES = ("exclude", "token_classes", "units")
"""Columns of JSON text, empty where a card has no such rules."""
_OPTIONAL = ("effective_to", "margin", "compute_basis", *_RULES, "sha256")


@dataclass(frozen=True, slots=True)
class ReadCards:
    """The rate cards read from a file, or what is wrong with it. `rows` counts cards and plans.

    `retired` cards apply to nothing new: events that come with them were rated with them.
    """

    imported: ImportedCards
    rows: int
    rejected: tuple[RejectedLine, ...] = ()
    header: tuple[str, ...] = ()
    retired: tuple[RateCard, ...] = ()


def read_cards(file: File) -> ReadCards:
    """The rate cards and plans of a file; all of them, or none and the reasons."""
    try:
        if file.form is Form.DOCUMENT:
            return _document(file)
        return _table(file)
    except Unusable as whole:
        return ReadCards(ImportedCards(()), 0, (RejectedLine(whole.row, whole.field, whole.reason),))


def decide(current: RateCardFile, read: ReadCards, named: Mapping[str, int]) -> tuple[ReadCards, ImportOutcome]:
    """What importing rate cards would do: cards and plans that are new, changed or there already.

    named: Card id → how many states of events name it, of ids that events were rated with under other content.
    """
    cards, plans = read.imported.cards, read.imported.plans
    known = {card.id: card.fingerprint() for card in current.cards}
    known_plans = {plan.name: plan for plan in current.plans}
    rejected = [*read.rejected]
    fresh = [card for card in cards if known.get(card.id) != card.fingerprint()]
    rejected += [
        RejectedLine(
            number,
            "id",
            f"{shown(card.id)} has other content than the card that rated {count_of(named[card.id], 'event')}; give "
            "the changed card a new id and its own effective_from",
        )
        for number, card in enumerate(cards, 1)
        if card.id in named
    ]
    new_plans = [plan for plan in plans if known_plans.get(plan.name) != plan]
    if not rejected:
        try:
            combined(current, [ImportedCards(tuple(fresh), tuple(new_plans))])
        except RateCardError as error:
            rejected.append(RejectedLine(0, "effective_from", str(error)))
    if rejected:
        return replace(read, rejected=tuple(rejected)), ImportOutcome()
    changed = sum(card.id in known for card in fresh) + sum(plan.name in known_plans for plan in new_plans)
    new = len(fresh) + len(new_plans) - changed
    outcome = ImportOutcome(new, changed, len(cards) + len(plans) - new - changed)
    return replace(read, imported=ImportedCards(tuple(fresh), tuple(new_plans))), outcome


def _document(file: File) -> ReadCards:
    """A card file: YAML, or JSON, which is YAML too."""
    if file.bytes > LARGEST_DOCUMENT:
        raise Unusable(f"has {file.bytes:,} bytes; a rate card file has at most {LARGEST_DOCUMENT:,}")
    text = file.path.read_text(encoding=file.encoding)
    try:
        _no_aliases(text)
        found = parse_rate_cards(text, file.name)
    except RateCardError as error:
        raise Unusable(str(error), field="rate_card") from None
    return ReadCards(ImportedCards(found.cards, found.plans), len(found.cards) + len(found.plans))


def _no_aliases(text: str) -> None:
    """Aliases can make a line of YAML stand for gigabytes, and no card needs them."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=CardLoader)):
            raise Unusable("uses YAML aliases (*name); write the values out")
    except yaml.YAMLError:
        return  # said better by whoever parses it


def _table(file: File) -> ReadCards:
    header = json_header(file) if file.form is Form.JSON else file.header
    columns = without_helpers(header)
    if faults := tuple(_header_faults(columns)):
        return ReadCards(ImportedCards(()), 0, faults, header)
    cards: list[RateCard] = []
    rejected: list[RejectedLine] = []
    rows = characters = 0
    for batch in batches(file, header):
        rejected += batch.rejected
        rows += len(batch.numbers) + len(batch.rejected)
        if rows > MOST_CARDS:
            raise Unusable(f"holds more than {MOST_CARDS:,} cards")
        cells = texts(batch.columns[name] for name in columns)
        for number, values in zip(batch.numbers, cells, strict=True):
            characters += sum(len(text or "") for text in values)
            if characters > LARGEST_TABLE:
                raise Unusable(
                    f"unpacks to more than {LARGEST_TABLE:,} characters; rate cards are never that long", row=number
                )
            row = dict(zip(columns, values, strict=True))
            try:
                card = _card(row)
            except _Wrong as wrong:
                rejected.append(RejectedLine(number, wrong.field, wrong.reason))
                continue
            if card.id in {one.id for one in cards}:
                rejected.append(RejectedLine(number, "id", f"{shown(card.id)} is there already; every card once"))
            cards.append(card)
    if file.form is not Form.JSON:
        return ReadCards(ImportedCards(tuple(cards)), rows, tuple(rejected), header)
    plans, no_plans = _from_meta(file, "plans", Plan)
    retired, no_cards = _from_meta(file, "retired_cards", RateCard)
    faults = (*no_plans, *no_cards, *rejected)
    return ReadCards(ImportedCards(tuple(cards), plans), rows + len(plans), faults, header, retired)


class _Wrong(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def _header_faults(header: tuple[str, ...]) -> Iterator[RejectedLine]:
    for name in CARD_COLUMNS:
        if name not in header and name not in _OPTIONAL:
            yield RejectedLine(0, name, "the column is missing")
    for name in dict.fromkeys(header):
        if name not in CARD_COLUMNS:
            yield RejectedLine(0, shown(name), "no such column; expected " + ", ".join(CARD_COLUMNS))
        elif header.count(name) > 1:
            yield RejectedLine(0, name, f"the column is there {header.count(name)} times; keep one of them")


def _card(row: Mapping[str, str | None]) -> RateCard:
    """A row as a card; the hash in it, if there is one, must be the card's own."""
    for name in ("effective_from", "effective_to"):
        if _is_wall_clock(row.get(name)):
            raise _Wrong(
                name, f"{shown(row[name])} is a time of day without an offset; expected a day (in UTC) or an offset"
            )
    rules = {name: _rule_of_json(name, row.get(name)) for name in ("ai", *_RULES) if name == "ai" or row.get(name)}
    fields: dict[str, Any] = {
        "id": row["id"],
        "effective_from": row["effective_from"],
        "effective_to": row.get("effective_to") or None,
        "credit_price_usd": row["credit_price_usd"],
        "margin": row.get("margin") or "1",
        "compute": {
            "credits_per_minute": row["compute_credits_per_minute"],
            **({"basis": row["compute_basis"]} if row.get("compute_basis") else {}),
        },
        "storage": {"credits_per_gb_month": row["storage_credits_per_gb_month"]},
        **rules,
    }
    try:
        card = RateCard.model_validate(fields)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0]) if error.errors()[0]["loc"] else "row"
        raise _Wrong(name, first_fault(error)) from None
    except RecursionError:
        raise _Wrong("ai", "is nested too deeply") from None
    if (digest := row.get("sha256")) and digest != card.fingerprint():
        raise _Wrong(
            "sha256", "is not the hash of this card: a value was changed; leave the cell empty if that is meant"
        )
    return card


def _is_wall_clock(text: str | None) -> bool:
    """Whether a text is a time of day that does not say how far it is from UTC. A day alone is one in UTC."""
    try:
        return text is not None and ":" in text and not has_offset(text)
    except ValueError:
        return False


def _rule_of_json(name: str, text: str | None) -> Any:
    try:
        return json.loads(text or "", parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        raise _Wrong(name, f"{shown(text)} is not accepted; expected the JSON text of an export") from None


def _from_meta(file: File, name: str, kind: type[M]) -> tuple[tuple[M, ...], tuple[RejectedLine, ...]]:
    """What an export says of plans or retired cards, in its `meta`."""
    meta = json_meta(file).get("meta")
    said = meta.get(name) if isinstance(meta, dict) else None
    try:
        return tuple(kind.model_validate(one) for one in said or ()), ()
    except (ValidationError, TypeError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else "expected a list"
        return (), (RejectedLine(0, name, reason),)
