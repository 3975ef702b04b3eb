"""Rate cards: what a credit costs and how usage turns into credits, as dated, immutable data.

A file holds one card or a list of dated cards under `cards`, and beside them `plans` and `metadata`.
All numbers are exact decimals: the file is read as text, never through binary floats.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from billing_core.errors import RateCardError
from billing_core.rating.globs import first_match
from billing_core.types import parse_time
from billing_core.values.usage_frame import TOKEN_CLASSES, MetadataNames


class Basis(StrEnum):
    """What AI credits are computed from: counted tokens, or the US dollars Langfuse computed."""

    TOKENS = "tokens"
    COST = "cost"


def _utc(value: object) -> datetime:
    time = parse_time(value)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


MOST_RULES = 1_000
"""Entries of a list or mapping of a card."""

UtcDate = Annotated[datetime, BeforeValidator(_utc)]
Rate = Annotated[Decimal, Field(ge=0, allow_inf_nan=False, max_digits=18, decimal_places=12)]
Positive = Annotated[Decimal, Field(gt=0, allow_inf_nan=False, max_digits=18, decimal_places=12)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenRate(_Strict):
    """Credits per 1,000 tokens for models (exact name or glob, case-blind) and a token class (`*`: every class)."""

    model: str = "*"
    token_class: str = "*"  # noqa: S105  (a glob, not a secret)
    credits_per_1000_tokens: Rate

    @model_validator(mode="after")
    def _class_is_known(self) -> TokenRate:
        if self.token_class != "*" and self.token_class not in TOKEN_CLASSES:  # noqa: S105
            raise ValueError(f"token_class {self.token_class!r}; expected * or one of {', '.join(TOKEN_CLASSES)}")
        return self

    def prices(self, token_class: str) -> bool:
        """Whether this rate applies to tokens of a class."""
        return self.token_class in {"*", token_class}


class AiRates(_Strict):
    """The rates for AI tokens of a card. With `basis: tokens` one naming the model wins, else the first to fit."""

    basis: Basis = Basis.TOKENS
    rates: tuple[TokenRate, ...] = ()

    @model_validator(mode="after")
    def _rates_go_with_tokens(self) -> AiRates:
        if (self.basis is Basis.TOKENS) != bool(self.rates):
            raise ValueError("rates are needed with basis: tokens, and only there")
        return self

    def rate_of(self, model: str | None, token_class: str) -> TokenRate | None:
        """The rate for `token_class` tokens of `model` (`None`: not named); `None` if the card has none."""
        lines = [line for line in self.rates if line.prices(token_class)]
        place = first_match([line.model for line in lines], model or "")
        return None if place is None else lines[place]


class ComputeBasis(StrEnum):
    """Which time compute counts: from first start to last end, or only while some observation ran."""

    WALL_CLOCK = "wall_clock"
    ACTIVE = "active"


class ComputeRate(_Strict):
    """Credits per minute of the time that `basis` names."""

    credits_per_minute: Rate
    basis: ComputeBasis = ComputeBasis.WALL_CLOCK


class StorageRate(_Strict):
    """Credits per GB-month named by the trace."""

    credits_per_gb_month: Rate


Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class LeftOut(_Strict):
    """A rule for observations whose usage is not rated: all fields it names must match (exact or glob, case-blind)."""

    name: Pattern | None = None
    type: Pattern | None = None
    model: Pattern | None = None
    level: Pattern | None = None

    @model_validator(mode="after")
    def _names_something(self) -> LeftOut:
        if not self.fields():
            raise ValueError("names nothing; expected one or more of name, type, model, level")
        return self

    def fields(self) -> dict[str, str]:
        """The observation fields this rule names, each with the text or glob it must match."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


def _known_class(value: object) -> object:
    if value not in TOKEN_CLASSES:
        raise ValueError(f"unknown class {value!r}; expected one of {', '.join(TOKEN_CLASSES)}")
    return value


class Plan(_Strict):
    """A subscription plan, recognised by its Stripe price ids."""

    name: str
    credits_per_month: Annotated[int, Field(ge=0)]
    stripe_price_ids: tuple[str, ...] = ()


class RateCard(_Strict):
    """One version of the prices, in force for `effective_from` ≤ event time < `effective_to` (UTC).

    `margin` is a factor on AI credits, applied once before rounding; compute and storage rates are
    selling prices already. `exclude` names observations whose usage is not rated; `token_classes` gives usage keys a
    token class, `units` a price in credits each (exact names or globs, case-blind, in any spelling).
    """

    id: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
    effective_from: UtcDate
    effective_to: UtcDate | None = None
    credit_price_usd: Positive
    margin: Positive = Decimal(1)
    ai: AiRates
    compute: ComputeRate
    storage: StorageRate
    exclude: Annotated[tuple[LeftOut, ...], Field(max_length=MOST_RULES)] = ()
    token_classes: Annotated[
        dict[Pattern, Annotated[str, BeforeValidator(_known_class)]], Field(max_length=MOST_RULES)
    ] = {}
    units: Annotated[dict[Pattern, Rate], Field(max_length=MOST_RULES)] = {}

    @property
    def reads_lines(self) -> bool:
        """Whether the card needs usage per observation and usage key, not per trace."""
        return bool(self.exclude or self.token_classes or self.units)

    @model_validator(mode="after")
    def _a_key_is_tokens_or_units(self) -> RateCard:
        for key in self.token_classes.keys() & self.units.keys():
            raise ValueError(f"{key!r} is in token_classes and in units; expected it in one of them")
        return self

    @model_validator(mode="after")
    def _dates_are_ordered(self) -> RateCard:
        if self.effective_to is not None and self.effective_to <= self.effective_from:
            raise ValueError("effective_to must be after effective_from")
        if self.id == LEGACY_VERSION:
            raise ValueError(f"the id {LEGACY_VERSION!r} is reserved for credits of the earlier system")
        return self

    def to_json(self) -> str:
        """The card as canonical text: equal cards, equal text."""
        values = self.model_dump(mode="python")
        values["exclude"] = [line.fields() for line in self.exclude]
        # What a card does not use is left out: cards from before it existed keep their text and their hash.
        for name in ("exclude", "token_classes", "units"):
            if not values[name]:
                del values[name]
        if self.compute.basis is ComputeBasis.WALL_CLOCK:
            del values["compute"]["basis"]
        return json.dumps(_canonical(values), sort_keys=True, separators=(",", ":"))

    def fingerprint(self) -> str:
        """SHA-256 of the card's canonical text: shows whether a card with the same id was changed."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


LEGACY_VERSION = "legacy"
"""Card version of events whose credits the earlier system recorded."""


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return value.isoformat() if isinstance(value, datetime) else value


class RateCardFile(_Strict):
    """A rate card file: cards by date, plans, and the names of the metadata keys to read."""

    cards: tuple[RateCard, ...]
    plans: tuple[Plan, ...] = ()
    metadata: MetadataNames = MetadataNames()

    @model_validator(mode="before")
    @classmethod
    def _one_card_may_stand_alone(cls, value: Any) -> Any:
        if isinstance(value, dict) and "cards" not in value:
            shared = {key: value[key] for key in ("plans", "metadata") if key in value}
            return {"cards": [{k: v for k, v in value.items() if k not in shared}], **shared}
        return value

    @model_validator(mode="after")
    def _cards_do_not_overlap(self) -> RateCardFile:
        if not self.cards:
            raise ValueError("holds no card")
        ids = [card.id for card in self.cards]
        if len(set(ids)) < len(ids):
            raise ValueError(f"card ids must differ; got {', '.join(ids)}")
        ordered = sorted(self.cards, key=lambda card: card.effective_from)
        for earlier, later in itertools.pairwise(ordered):
            if earlier.effective_from == later.effective_from or (
                earlier.effective_to is not None and earlier.effective_to > later.effective_from
            ):
                raise ValueError(f"cards {earlier.id} and {later.id} are both in force at {later.effective_from}")
        return self

    def in_force(self, at: datetime) -> RateCard | None:
        """The card for an event at `at`, `None` if there is none; an open end lasts until the next card begins."""
        best: RateCard | None = None
        for card in self.cards:
            begun = card.effective_from <= at
            if begun and (best is None or card.effective_from > best.effective_from):
                best = card
        return None if best is None or (best.effective_to is not None and at >= best.effective_to) else best

    def by_id(self, card_id: str) -> RateCard | None:
        """The card with that id; `None` if this file does not hold it."""
        return next((card for card in self.cards if card.id == card_id), None)


DEEPEST = 20
"""Levels of a card file; a card needs five."""


class _TooDeep(yaml.YAMLError):
    """Said while the text is read: the time that brackets in brackets take grows with more than their square."""


class CardLoader(yaml.BaseLoader):
    """A YAML loader of texts, lists and mappings only, nested no deeper than a card may be."""

    def fetch_more_tokens(self) -> None:
        if self.flow_level + len(self.indents) > DEEPEST:
            raise _TooDeep
        super().fetch_more_tokens()


def parse_rate_cards(text: str, source: str) -> RateCardFile:
    """The cards of a YAML (or JSON) text; `source` names it in errors.

    Raises RateCardError: one line naming the source, the key, the value and what is accepted.
    """
    try:
        document = yaml.load(text, Loader=CardLoader)  # noqa: S506  (it builds text only)
    except _TooDeep:
        raise RateCardError(f"rate card {source}: is nested too deeply; see docs/rate-cards.md") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise RateCardError(f"rate card {source}: not readable as YAML{line}; see docs/rate-cards.md") from None
    if not isinstance(document, dict):
        raise RateCardError(f"rate card {source}: expected a mapping with id, ai, compute, storage or a list of cards")
    try:
        return RateCardFile.model_validate(document)
    except ValidationError as error:
        raise RateCardError(f"rate card {source}: {first_fault(error)}; see docs/rate-cards.md") from None


def first_fault(error: ValidationError) -> str:
    """The first error in a rate card, in one line: where, the value, and what is accepted."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    value = first.get("input")
    shown = f" = {value!r}" if isinstance(value, (str, int)) and first["type"] != "missing" else ""
    return f"{place}{shown}: {str(first['msg']).removeprefix('Value error, ')}".removeprefix(": ")


@cache
def builtin_cards() -> RateCardFile:
    """The built-in rate card of CONTRACT section 6."""
    return parse_rate_cards(
        files("billing_core.rating").joinpath("builtin.yaml").read_text(encoding="utf-8"), "built-in"
    )


def load_rate_cards(path: Path | None, named: str = "BILLING_RATE_CARD") -> RateCardFile:
    """The rate cards of a file, or the built-in ones without a path. `named` is what said which file, for errors.

    Raises RateCardError: one line naming the file, the key, the value and what is accepted.
    """
    if path is None:
        return builtin_cards()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RateCardError(f"{named}: {path} cannot be read ({reason}); expected a YAML file") from None
    return parse_rate_cards(text, str(path))


def card_from_json(text: str) -> RateCard:
    """A rate card from the text the ledger stores (`RateCard.to_json`)."""
    return RateCard.model_validate(json.loads(text))
