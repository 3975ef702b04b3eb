"""The audit log's chain: whatever is done to an entry in between is found, and where."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.audit_chain import GENESIS, Anchor, check, entry_hash
from tests.factories import ledger_at

BEGIN = datetime(2026, 11, 1, 12, 0, 0, 5)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
WRITTEN = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=8)


def chain(written):
    """Rows as the ledger stores them, a second apart."""
    rows, previous = [], GENESIS
    for number, (actor, action, detail) in enumerate(written, 1):
        at = BEGIN + timedelta(seconds=number)
        digest = entry_hash(number, at.replace(tzinfo=UTC), actor, action, detail, previous)
        rows.append((number, at, actor, action, detail, previous, digest))
        previous = digest
    return rows


def three():
    return chain([("ann", "pull", "{}"), ("ben", "push", '{"sent": 3}'), ("ann", "close", "{}")])


def edited(row, **changes):
    names = ("seq", "happened_at", "actor", "action", "detail", "previous_hash", "hash")
    values = {**dict(zip(names, row, strict=True)), **changes}
    if changes.get("hash") == "right":
        values["hash"] = entry_hash(
            values["seq"],
            values["happened_at"].replace(tzinfo=UTC),
            *(values[n] for n in ("actor", "action", "detail", "previous_hash")),
        )
    return tuple(values.values())


def test_the_hash_of_an_entry_covers_number_time_who_what_circumstances_and_the_entry_before():
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert entry_hash(1, at, "ann", "pull", "{}", GENESIS) == (
        hashlib.sha256(
            b'["1", "2026-11-01T12:00:00.000000+00:00", "ann", "pull", "{}", "' + b"0" * 64 + b'"]'
        ).hexdigest()
    )


def test_what_the_ledger_appends_is_whole(tmp_path):
    ledger = ledger_at(tmp_path / "billing.duckdb")
    for number in range(3):
        ledger.audit("Änne", "push", {"sent": number, "at": BEGIN})
    found = check(ledger.audit_chain())
    assert (found.ok, found.entries, found.broken_at) == (True, 4, None)  # the first tells of the rate card
    assert found.head == ledger.audit_entries(1)[0]["hash"]
    ledger.engine.close()


def test_an_empty_log_is_whole():
    assert (check([]).ok, check([]).entries, check([]).head) == (True, 0, GENESIS)


@given(WRITTEN)
def test_a_log_as_it_was_written_is_whole(written):
    rows = chain(written)
    found = check(rows)
    assert (found.ok, found.entries, found.broken_at, found.head) == (True, len(rows), None, rows[-1][-1])


@given(WRITTEN, st.data())
def test_a_changed_field_of_any_entry_is_found_there(written, data):
    rows = chain(written)
    place = data.draw(st.integers(0, len(rows) - 1))
    change = data.draw(
        st.sampled_from(
            [
                {"actor": rows[place][2] + "x"},
                {"action": rows[place][3] + "x"},
                {"detail": rows[place][4] + "x"},
                {"happened_at": rows[place][1] + timedelta(microseconds=1)},
                {"hash": "0" * 64},
                {"previous_hash": "f" * 64},
                {"happened_at": None},
                {"detail": None},
            ]
        )
    )
    rows[place] = edited(rows[place], **change)
    found = check(rows)
    assert (found.ok, found.broken_at, found.entries) == (False, place + 1, place)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=2, max_size=8), st.data())
def test_an_entry_rewritten_with_its_own_new_hash_breaks_the_next_one(written, data):
    rows = chain(written)
    place = data.draw(st.integers(0, len(rows) - 2))
    rows[place] = edited(rows[place], actor=rows[place][2] + "x", hash="right")
    found = check(rows)
    assert (found.ok, found.broken_at) == (False, place + 2)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=2, max_size=8), st.data())
def test_a_missing_entry_is_found_where_it_was_unless_it_was_the_last(written, data):
    rows = chain(written)
    place = data.draw(st.integers(0, len(rows) - 2))
    del rows[place]
    found = check(rows)
    assert (found.ok, found.broken_at) == (False, place + 1)
    assert f"entry {place + 1} is missing" in found.says


@pytest.mark.parametrize("moved", ["numbers", "contents"])
def test_two_entries_that_changed_places_are_found(moved):
    first, second, third = three()
    if moved == "numbers":
        rows = [edited(second, seq=1), edited(first, seq=2), third]
    else:
        rows = [first, edited(third, seq=2), edited(second, seq=3)]
    assert check(rows).broken_at == (1 if moved == "numbers" else 2)


def test_an_entry_put_in_between_is_found():
    first, second, third = three()
    new = edited(second, actor="eve", previous_hash=first[-1], hash="right")
    assert check([first, new, second, third]).broken_at == 3
    assert check([first, new, edited(second, seq=3), edited(third, seq=4)]).broken_at == 3


@pytest.mark.parametrize("number", [None, 0, -1])
def test_an_entry_without_a_good_number_is_found(number):
    first, second, third = three()
    stray = edited(second, seq=number)
    rows = [first, second, third, stray] if number is None else [stray, first, second, third]
    assert check(rows).ok is False


def test_the_last_entries_cut_off_are_seen_by_whoever_knew_them():
    rows = three()
    close = Anchor(3, rows[2][-1], "the close of 2026-10")
    assert check(rows, [close]).ok
    assert check(rows[:2]).ok, "the chain alone cannot know"
    found = check(rows[:2], [close])
    assert (found.ok, found.broken_at, found.entries) == (False, 3, 2)
    assert found.says == "the log ends with entry 2, but the close of 2026-10 knows entry 3: the last are missing"


def test_a_log_written_anew_from_some_entry_on_is_seen_by_whoever_knew_it():
    rows = three()
    anew = chain([("ann", "pull", "{}"), ("ben", "push", '{"sent": 2}'), ("ann", "close", "{}")])
    anchors = [Anchor(1, rows[0][-1], "the close of 2026-09"), Anchor(3, rows[2][-1], "the close of 2026-10")]
    assert check(anew).ok
    found = check(anew, anchors)
    assert (found.ok, found.broken_at) == (False, 3)
    assert "the close of 2026-10" in found.says


def test_of_two_who_knew_one_entry_both_are_asked():
    rows = three()
    right, wrong = Anchor(2, rows[1][-1], "the close of 2026-10"), Anchor(2, "f" * 64, "the close of 2026-09")
    for anchors in ([right, wrong], [wrong, right]):
        assert check(rows, anchors).broken_at == 2
