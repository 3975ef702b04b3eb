"""Rates stored events with another card. Pure and columnar: the rules are those of a pull, facts are never touched.

Only what follows from prices is made anew: credits, price, card version and the flags of rating. Who pays, what was
used and whether an environment is billed stay as they were booked. What somebody else billed keeps its credits,
because no push from here could ever correct that bill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.schema import FLAG_SEPARATOR, LEARNED
from billing_core.rating.card import LEGACY_VERSION, Basis, ComputeBasis, RateCard, RateCardFile
from billing_core.rating.events import RATED_FLAGS, flag_sets, no_usage
from billing_core.rating.rate import CREDITS, OWN_KEY, PRICE, rate
from billing_core.rerating.model import NotRerated
from billing_core.types import Flag
from billing_core.values.decimals import from_integers, to_integers
from billing_core.values.usage_frame import TOKEN_CLASSES

PARTS = ("credits_ai_tokens", "credits_compute", "credits_storage")

RERATED = pa.schema(
    [
        *((pa.field(name, CREDITS)) for name in (*PARTS, "credits_total")),
        pa.field("credit_price_usd", PRICE),
        pa.field("rate_card_version", pa.string()),
        pa.field("flags", pa.string()),  # as the ledger stores them
        pa.field("is_changed", pa.bool_()),
        pa.field("not_rerated", pa.string()),  # a `NotRerated`, null where the card was applied
    ]
)
"""Row for row: what an event would cost, and whether anything about it differs from what is booked."""

NEEDED = (
    "timestamp",
    "ended_at",
    "organization_id",
    "customer_id",
    "usage",
    "tokens_total",
    "storage_gb",
    "cost_usd",
    "ai_credentials_ownership",
    *PARTS,
    "credits_total",
    "credit_price_usd",
    "rate_card_version",
    "sync_status",
    "flags",
    "problems",
    "billed_elsewhere",
    *LEARNED,
)
"""Stored columns of events that re-rating and its sums read."""

Mask = npt.NDArray[np.bool_]
BookedWith = Callable[[str], RateCard | None]
"""The card of a version, as it was when events were rated with it; `None` if there was none."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

STAYS = -1
"""In place of a card: the event keeps its credits."""


@dataclass(frozen=True, slots=True)
class CardCalendar:
    """Which card of a file is in force when: between two neighbouring edges it is always the same one.

    `edges` are microseconds since 1970, ascending; `cards` has one place more, the first before every edge.
    """

    edges: npt.NDArray[np.int64]
    cards: tuple[RateCard | None, ...]

    @classmethod
    def of(cls, file: RateCardFile) -> CardCalendar:
        """The calendar that agrees with `file.in_force` at any time."""
        ends = {card.effective_to for card in file.cards if card.effective_to is not None}
        edges = sorted({card.effective_from for card in file.cards} | ends)
        numbers = np.array([(edge - EPOCH) // MICROSECOND for edge in edges], dtype=np.int64)
        return cls(numbers, (None, *(file.in_force(edge) for edge in edges)))

    def places(self, times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The index in `cards` of the card in force at each of the stored times (UTC, microseconds)."""
        numbers = to_integers(times.cast(pa.int64()))
        return np.searchsorted(self.edges, numbers, side="right").astype(np.int64)


def rerate(events: pa.Table, calendar: CardCalendar, booked_with: BookedWith) -> pa.Table:
    """Rate stored events (columns `NEEDED`) with the card that the calendar has for each.

    Returns
    -------
    pyarrow.Table
        `RERATED`, row for row.
    """
    billed = billed_by_somebody_else(events)
    places = np.where(pc.is_valid(billed).to_numpy(zero_copy_only=False), STAYS, calendar.places(events["timestamp"]))
    pieces, order = [], []
    for place in np.unique(places).tolist():
        rows = np.flatnonzero(places == place)
        part = events if len(rows) == events.num_rows else events.take(pa.array(rows))
        card = None if place == STAYS else calendar.cards[place]
        if card is not None:
            pieces.append(_by_card(part, card, booked_with))
        else:
            why = pc.fill_null(billed.take(pa.array(rows)), NotRerated.NO_CARD.value)
            pieces.append(as_booked(part, why))
        order.append(rows)
    if not pieces:
        return RERATED.empty_table()
    if len(pieces) == 1:
        return pieces[0]
    back = np.argsort(np.concatenate(order))
    return pa.concat_tables(pieces).take(pa.array(back))


def billed_by_somebody_else(events: pa.Table) -> pa.Array:
    """The reason why an event was billed by another system, null where it was not."""
    recorded = pc.equal(events["rate_card_version"], LEGACY_VERSION).to_numpy()
    legacy = pa.array(recorded | _has_flag(events["flags"], Flag.LEGACY_BILLED))
    elsewhere = pc.fill_null(events["billed_elsewhere"], False).combine_chunks()
    found = pc.if_else(elsewhere, NotRerated.BILLED_ELSEWHERE.value, pa.scalar(None, pa.string()))
    return pc.if_else(legacy, NotRerated.LEGACY_BILLED.value, found)


def as_booked(part: pa.Table, why: pa.Array) -> pa.Table:
    """The result for events that keep the credits and customer they have, with the reason."""
    unchanged = pa.array(np.zeros(part.num_rows, dtype=bool))
    columns = [part[name] for name in RERATED.names if name not in {"is_changed", "not_rerated"}]
    return pa.Table.from_arrays([*columns, unchanged, why], schema=RERATED)


def _by_card(part: pa.Table, card: RateCard, booked_with: BookedWith) -> pa.Table:
    """Events under `card`, but for those of which it cannot price what is known."""
    unread = _is_unread(part, card)
    unknown = cannot_be_priced(part, card)
    if not unknown.any():
        return rated(part, card, booked_with)
    stays, goes = np.flatnonzero(unknown), np.flatnonzero(~unknown)
    reasons = np.where(unread[stays], NotRerated.LINES_UNKNOWN.value, NotRerated.USAGE_UNKNOWN.value)
    why = pa.array(reasons.tolist(), pa.string())
    pieces = [as_booked(part.take(pa.array(stays)), why), rated(part.take(pa.array(goes)), card, booked_with)]
    return pa.concat_tables(pieces).take(pa.array(np.argsort(np.concatenate([stays, goes]))))


def _is_unread(part: pa.Table, card: RateCard) -> Mask:
    """Events read before single observations and active time were kept, where the card decides by them."""
    unread: Mask = np.zeros(part.num_rows, dtype=bool)
    if card.reads_lines:
        used = (to_integers(part["tokens_total"]) > 0) | part["cost_usd"].is_valid().to_numpy()
        unread |= used & part["usage_lines"].is_null().to_numpy()
    if card.compute.basis is ComputeBasis.ACTIVE and card.compute.credits_per_minute:
        unread |= part["active_seconds"].is_null().to_numpy() & (
            part["timestamp"].to_numpy() < part["ended_at"].to_numpy()
        )
    return unread


def cannot_be_priced(part: pa.Table, card: RateCard) -> Mask:
    """Which events lack facts that the card's rates need."""
    return _is_unknown(part, card) | _is_unread(part, card)


def _is_unknown(part: pa.Table, card: RateCard) -> Mask:
    """Tokens that stand on no model's line (an import may know no more) cannot be priced by model and class."""
    if card.ai.basis is not Basis.TOKENS:
        return np.zeros(part.num_rows, dtype=bool)
    without_lines = to_integers(pc.list_value_length(part["usage"])) == 0
    free = _is_own_key(part) | _has_flag(part["flags"], Flag.EXCLUDED_ENVIRONMENT)
    unknown: Mask = (to_integers(part["tokens_total"]) > 0) & without_lines & ~free
    return unknown


def rated(part: pa.Table, card: RateCard, booked_with: BookedWith) -> pa.Table:
    """The result for events under `card`, as `RERATED`; whether an environment is billed is as their flags say."""
    stored = stored_flags(part["flags"])
    unpriced, bad_usage = _of_the_usage(part, stored, booked_with)
    suspect = stored[Flag.DOUBLE_COUNT_SUSPECT] | _has_line(part, "repeats")
    facts = part.append_column("unpriced", pa.array(unpriced))
    given = rate(facts.append_column("double_count_suspect", pa.array(suspect)), card)
    excluded = stored[Flag.EXCLUDED_ENVIRONMENT]
    parts = [np.where(excluded, 0, to_integers(given[name])).astype(np.int64) for name in PARTS]
    total = parts[0] + parts[1] + parts[2]
    flagged = {
        **stored,
        Flag.OWN_KEY: given["own_key"].to_numpy(),
        Flag.UNPRICED: given["usage_unpriced"].to_numpy() | given["unpriced"].to_numpy(),
        Flag.DOUBLE_COUNT_SUSPECT: given["double_count_suspect"].to_numpy(),
        Flag.UNKNOWN_USAGE: given["unknown_usage"].to_numpy(),
        Flag.BAD_USAGE: bad_usage | given["absurd"].to_numpy(),
    }
    flagged[Flag.NO_USAGE] = no_usage(total, flagged)
    sets, which = flag_sets(flagged)
    flags = pa.array([FLAG_SEPARATOR.join(names) for names in sets]).take(pa.array(which))
    changed = ~pc.and_(
        pc.equal(part["credit_price_usd"], pa.scalar(card.credit_price_usd, PRICE)),
        pc.and_(pc.equal(part["rate_card_version"], card.id), pc.equal(part["flags"], flags)),
    ).to_numpy()
    for name, new in zip(PARTS, parts, strict=True):
        changed |= to_integers(part[name]) != new
    rows = part.num_rows
    columns = [
        *(from_integers(new, CREDITS) for new in (*parts, total)),
        pa.repeat(pa.scalar(card.credit_price_usd, PRICE), rows),
        pa.repeat(pa.scalar(card.id), rows),
        flags,
        pa.array(changed),
        pa.nulls(rows, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=RERATED)


def _of_the_usage(part: pa.Table, stored: dict[Flag, Mask], booked_with: BookedWith) -> tuple[Mask, Mask]:
    """What `unpriced` and `bad_usage` say about the usage itself, whatever the card.

    The ledger keeps both only as flags, which may as well come from the card the event was booked with. So that card
    is asked again: what it does not explain came with the usage. Where both may be true, the usage decides: a model's
    tokens without any cost, and sentences that name what is wrong.
    """
    unpriced, bad = np.zeros((2, part.num_rows), dtype=bool)
    unpriced |= _has_line(part, "unpriced")
    rows = np.flatnonzero(stored[Flag.UNPRICED] | stored[Flag.BAD_USAGE])
    if not len(rows):
        return unpriced, bad
    doubtful = part.take(pa.array(rows))
    card_unpriced, card_absurd = _by_own_card(doubtful, booked_with)
    troubled = pc.not_equal(pc.fill_null(doubtful["problems"], ""), "").to_numpy()
    unpriced[rows] |= (
        stored[Flag.UNPRICED][rows]
        & (~card_unpriced | _has_line_without_cost(doubtful))
        & doubtful["usage_lines"].is_null().to_numpy()
    )
    bad[rows] = stored[Flag.BAD_USAGE][rows] & (~card_absurd | troubled)
    return unpriced, bad


def _by_own_card(part: pa.Table, booked_with: BookedWith) -> tuple[Mask, Mask]:
    """What each event's own card has no price for, and what it finds absurd. Without a card nothing has a price."""
    unpriced, absurd = np.ones(part.num_rows, dtype=bool), np.zeros(part.num_rows, dtype=bool)
    plain = part.append_column("unpriced", pa.array(absurd)).append_column("double_count_suspect", pa.array(absurd))
    versions = part["rate_card_version"].combine_chunks().dictionary_encode()
    for code, version in enumerate(versions.dictionary.to_pylist()):
        if (card := booked_with(version)) is not None:
            rows = np.flatnonzero(versions.indices.to_numpy() == code)
            given = rate(plain.take(pa.array(rows)), card)
            unpriced[rows], absurd[rows] = given["unpriced"].to_numpy(), given["absurd"].to_numpy()
    return unpriced, absurd


def _has_line(part: pa.Table, name: str) -> Mask:
    """Of which events some line, as far as lines are known, has that true."""
    lists = part["usage_lines"].combine_chunks()
    marked = pc.list_flatten(lists).field(name).fill_null(False).to_numpy(zero_copy_only=False)
    of_event = pc.list_parent_indices(lists).to_numpy()
    found: Mask = np.bincount(of_event[marked], minlength=part.num_rows) > 0
    return found


def _has_line_without_cost(part: pa.Table) -> Mask:
    lists = part["usage"].combine_chunks()
    lines = pc.list_flatten(lists)
    has_tokens = np.logical_or.reduce([to_integers(lines.field(name)) > 0 for name in TOKEN_CLASSES])
    without = has_tokens & lines.field("cost_usd").is_null().to_numpy(zero_copy_only=False)
    of_event = pc.list_parent_indices(lists).to_numpy()
    found: Mask = np.bincount(of_event[without], minlength=part.num_rows) > 0
    return found


def _is_own_key(part: pa.Table) -> Mask:
    own: Mask = pc.equal(pc.utf8_lower(part["ai_credentials_ownership"]), OWN_KEY).fill_null(False).to_numpy()
    return own


def stored_flags(column: pa.ChunkedArray) -> dict[Flag, Mask]:
    """For each flag of rating, which rows of stored flags have it."""
    encoded = column.combine_chunks().dictionary_encode()
    sets = [text.split(FLAG_SEPARATOR) for text in encoded.dictionary.to_pylist()]
    code = encoded.indices.to_numpy()
    return {flag: np.array([flag in names for names in sets], dtype=bool)[code] for flag in RATED_FLAGS}


def _has_flag(column: pa.ChunkedArray, flag: Flag) -> Mask:
    return stored_flags(column)[flag]
