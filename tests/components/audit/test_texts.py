from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.audit.service import AuditQuery
from billing_core.ledger.audit_chain import ChainReport
from billing_core.ledger.audit_log import AuditEntry
from components.audit.texts import (
    LONGEST_LINE,
    action_label,
    chain_text,
    csv_address,
    detail_facts,
    detail_line,
    entry_rows,
    entry_title,
    found_text,
    hashes_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 3, 8, tzinfo=UTC)
SHA = "ab" * 32


def entry(detail: object, action: str = "rate_card") -> AuditEntry:
    text = detail if isinstance(detail, str) else json.dumps(detail)
    return AuditEntry(1234, AT, "fay", action, text, "0" * 64, "ef" * 32)


def test_an_entry_is_a_line_with_short_hashes():
    rows = entry_rows([entry({"card": "builtin-1", "sha256": SHA})], BERLIN)
    assert rows == {
        "Entry": ["1,234"],
        "When (Europe/Berlin)": ["2026-11-03 09:00:00"],
        "Who": ["fay"],
        "What": ["rate card"],
        "Details": ["card: builtin-1 · sha256: abababababab"],
        "Hash": ["efefefefefef"],
    }


def test_an_entry_says_who_did_what_and_when():
    assert entry_title(entry({}), BERLIN) == "Entry 1,234: rate card by fay, 2026-11-03 09:00:00"
    assert action_label("sign-in refused") == "sign-in refused"


def test_details_are_names_and_values_however_deep_they_stand():
    detail = {
        "counts": {"events_new": 12345, "dry": False},
        "error": None,
        "ids": ["a", "b"],
        "parts": [{"name": "cards"}, {"name": "events"}],
        "reason": "a late invoice",
    }
    assert detail_facts(entry(detail)) == [
        ("counts.events new", "12,345"),
        ("counts.dry", "no"),
        ("error", "none"),
        ("ids", "a, b"),
        ("parts 1.name", "cards"),
        ("parts 2.name", "events"),
        ("reason", "a late invoice"),
    ]


def test_what_was_told_as_a_sentence_stands_as_one():
    assert detail_line(entry({"detail": "from 10.0.0.1"})) == "from 10.0.0.1"


def test_details_that_somebody_broke_are_shown_as_they_are():
    assert detail_facts(entry("{not json")) == [("detail", "{not json")]
    assert detail_facts(entry("[1]")) == [("detail", "1")]


def test_a_list_of_thousands_is_cut_and_says_so():
    value = dict(detail_facts(entry({"ids": list(range(3000))})))["ids"]
    assert value.startswith("0, 1, 2")
    assert value.endswith("19 and 2,980 more")
    assert detail_facts(entry({"rows": [{"n": 1}] * 25}))[-1] == ("rows", "and 5 more")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_detail_can_be_shown_in_a_line_of_bounded_length(document):
    assert len(detail_line(entry(document))) <= LONGEST_LINE
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in detail_facts(entry(document)))


def test_every_hash_can_be_copied_whole():
    assert hashes_of(entry({"card": "x", "sha256": SHA})) == [
        ("sha256", SHA),
        ("hash of this entry", "ef" * 32),
        ("hash of the previous entry", "0" * 64),
    ]


@pytest.mark.parametrize(
    ("shown", "page", "total", "says"),
    [(0, 1, 0, "no entries"), (1, 1, 1, "1–1 of 1 entry"), (25, 2, 1234, "26–50 of 1,234 entries")],
)
def test_the_page_says_where_in_the_log_it_is(shown, page, total, says):
    assert found_text(shown, page, 25, total) == says


def test_the_chain_is_verified_up_to_an_entry_or_named_where_it_broke():
    whole = ChainReport(True, 1234, None, "1,234 entries, none changed")
    assert chain_text(whole, AT, BERLIN) == (
        "Verified up to entry 1,234, 2026-11-03 09:00:00 (Europe/Berlin): 1,234 entries, none changed."
    )
    broken = ChainReport(False, 6, 7, "entry 7 was changed after it was written")
    assert "Only entries before entry 7 are proven." in chain_text(broken, AT, BERLIN)


def test_the_download_asks_for_the_same_filters():
    assert csv_address(AuditQuery()) == "/download/audit.csv"
    start = datetime(2026, 10, 1, tzinfo=timezone(timedelta(hours=2)))
    query = AuditQuery(("fay", "a&b"), ("close",), start, None, "50 %", 3, 25)
    assert csv_address(query) == (
        "/download/audit.csv?actor=fay&actor=a%26b&action=close&from=2026-09-30T22%3A00%3A00.000Z&search=50+%25"
    )
