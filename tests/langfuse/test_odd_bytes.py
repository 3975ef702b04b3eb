"""Whatever one value of a row holds, its neighbours are read, and what is left out is flagged or named."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.langfuse.client import BrokenBody
from billing_core.langfuse.decode import DecodedPage, FactReader, read_meta
from billing_core.langfuse.pieces import BrokenJson, elements, members, shown
from billing_core.langfuse.texts import PLACEHOLDERS, present
from billing_core.values.usage_frame import MetadataNames
from tests.examples import examples

HALF = b'"hi \\ud83d"'
ODD = {
    "half an emoji": HALF,
    "the other half": b'"\\udc00 hi"',
    "bytes that are no text": b'"\xff\xfe"',
    "NUL": b'"a\\u0000b"',
    "a bare NUL": b'"a\x00b"',
    "NaN": b"NaN",
    "minus infinity": b"-Infinity",
    "5,000 digits": b"7" * 5000,
    "a huge exponent": b"1e999999",
    "an exponent without end": b"1e" + b"9" * 400,
    "a tiny exponent": b"1e-99999999999999999999",
    "3,000 levels": b'{"x":' * 3000 + b"1" + b"}" * 3000,
    "20,000 levels": b"[" * 20_000 + b"]" * 20_000,
    "half an emoji below": b'{"a":{"b":[%s]}}' % HALF,
    "no value of JSON": b"undefined",
    "yes": b"true",
    "a negative number": b"-5",
    "a number": b"12.5",
    "a number as text": b'"12"',
    "a list": b"[1,2]",
    "an object": b'{"a":1}',
    "null": b"null",
    "empty": b'""',
    "a megabyte": b'"' + b"x" * 1_100_000 + b'"',
}
KEYS = [
    "id",
    "traceId",
    "startTime",
    "endTime",
    "updatedAt",
    "projectId",
    "parentObservationId",
    "isRootObservation",
    "environment",
    "level",
    "name",
    "traceName",
    "userId",
    "sessionId",
    "model",
    "providedModelName",
    "metadata",
    "usageDetails",
    "costDetails",
    "totalCost",
    "usage",
    "calculatedTotalCost",
    "input",
    "output",
    "anything",
]
READER = FactReader(MetadataNames())
START = b'"2026-11-10T12:00:00.000Z"'
GOOD = (
    b'{"id":"good","traceId":"t","startTime":%s,"usageDetails":{"input":10},"metadata":{"customerId":"cus_1"}}' % START
)


def row(**odd: bytes) -> bytes:
    values = {"id": b'"odd"', "traceId": b'"u"', "startTime": START, "metadata": b'{"customerId":"cus_2"}', **odd}
    return b"{%s}" % b",".join(b'"%s":%s' % (key.encode(), value) for key, value in values.items())


def page(*rows: bytes, meta: bytes = b"{}") -> bytes:
    return b'{"data":[%s],"meta":%s}' % (b",".join(rows), meta)


def read(*rows: bytes) -> DecodedPage:
    return READER.observations(page(*rows))


def one(**odd: bytes) -> dict[str, object]:
    facts = read(row(**odd))
    assert facts.rejected == []
    [found] = facts.table.to_pylist()
    return found


@settings(max_examples=examples(60))
@given(st.sampled_from(KEYS), st.sampled_from(sorted(ODD)), st.booleans())
def test_an_odd_value_costs_at_most_its_row_and_is_never_silent(key: str, name: str, comes_first: bool) -> None:
    rows = [row(**{key: ODD[name]}), GOOD]
    facts = read(*(rows if comes_first else rows[::-1]))
    found = {values["trace_id"]: values for values in facts.table.to_pylist()}
    assert (found["t"]["customer_id"], found["t"]["tokens_in"]) == ("cus_1", 10)
    assert facts.rows == 2
    assert len(found) + len(facts.rejected) == 2
    for rejected in facts.rejected:
        text = f"{rejected.row}: {rejected.reason}"
        assert text.isprintable()
        assert len(text) < 600
        assert "observation odd" in text or "of trace u" in text
    json.dumps([{k: str(v) for k, v in values.items()} for values in found.values()], ensure_ascii=False).encode()
    if key in {"input", "output", "anything"}:
        assert found["u"]["customer_id"] == "cus_2"
        assert not found["u"]["incomplete"]


@pytest.mark.parametrize("name", sorted(set(ODD) - {"null", "empty", "an object", "a list", "yes", "a tiny exponent"}))
@pytest.mark.parametrize("key", ["usageDetails", "costDetails"])
def test_an_amount_that_cannot_be_read_is_bad_usage(key: str, name: str) -> None:
    value = ODD[name]
    if name in {"a number", "a number as text"} and key == "costDetails":
        return  # those are amounts
    if name == "a number as text":
        return
    found = one(**{key: b'{"input":%s,"output":2}' % value})
    assert found["bad_usage"]


UNREADABLE = [
    "half an emoji",
    "the other half",
    "bytes that are no text",
    "NUL",
    "a bare NUL",
    "NaN",
    "minus infinity",
    "5,000 digits",
    "an exponent without end",
    "3,000 levels",
    "20,000 levels",
    "no value of JSON",
    "a megabyte",
]


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_value_of_metadata_that_nobody_asks_for_costs_nothing(name: str) -> None:
    whole = b'{"a":%s,"customerId":"cus_1","organizationId":"org","storageGb":5,"userId":"u","z":%s}'
    found = one(metadata=whole % (ODD[name], ODD[name]))
    assert (found["customer_id"], found["organization_id"], found["metadata_user_id"]) == ("cus_1", "org", "u")
    assert found["storage_gb"] == 5
    assert not found["incomplete"]
    assert '"customerId":"cus_1"' in str(found["metadata"]).replace(" ", "")


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_value_of_metadata_that_cannot_be_read_costs_that_value_and_flags_the_trace(name: str) -> None:
    found = one(metadata=b'{"stripeCustomerId":%s,"customerId":"cus_1","organizationId":%s}' % (ODD[name], ODD[name]))
    assert (found["customer_id"], found["organization_id"]) == ("cus_1", None)
    assert found["incomplete"]
    assert any("organizationId" in sentence for sentence in found["problems"] or [])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", UNREADABLE)
def test_storage_that_cannot_be_read_is_bad_usage_unless_the_next_name_says_it(name: str) -> None:
    assert one(metadata=b'{"storageGb":%s}' % ODD[name])["bad_usage"]
    found = one(metadata=b'{"storageGb":%s,"storageGB":3}' % ODD[name])
    assert (found["storage_gb"], found["bad_usage"]) == (3, False)


def test_what_the_earlier_system_wrote_is_read_beside_what_cannot_be() -> None:
    found = one(metadata=b'{"billing_status":"processed","billing_details":{"note":%s,"total_credits":7}}' % HALF)
    assert (found["legacy_status"], found["legacy_total"]) == ("processed", 7)


def test_a_name_keeps_what_can_be_read_of_it_and_an_identity_does_not() -> None:
    found = one(name=HALF, userId=HALF, sessionId=HALF)
    assert (found["name"], found["user_id"], found["session_id"]) == ("hi \ufffd", None, None)
    assert found["incomplete"]


def test_a_row_whose_own_id_cannot_be_kept_is_read_under_one_that_can() -> None:
    found = one(id=b'"a\\ud83d"')
    assert found["id"] == "a\\ud83d"
    assert not found["bad_usage"]


@pytest.mark.parametrize("name", ["half an emoji", "NUL", "bytes that are no text"])
def test_a_trace_whose_id_cannot_be_kept_is_named(name: str) -> None:
    facts = read(row(traceId=ODD[name]), GOOD)
    assert facts.table["trace_id"].to_pylist() == ["t"]
    [rejected] = facts.rejected
    assert "observation odd of trace" in rejected.row


def test_an_end_that_is_no_time_flags_the_trace() -> None:
    assert one(endTime=b'"soon"')["incomplete"]
    assert not one(endTime=b"null")["incomplete"]


def test_a_legacy_trace_is_read_whatever_its_input_and_output_hold() -> None:
    for odd in ODD.values():
        record = row(id=b'"u"', timestamp=START, input=odd, output=odd)
        facts = READER.traces(page(record))
        assert (facts.rejected, facts.table["customer_id"].to_pylist()) == ([], ["cus_2"])
        whole = b'%s,"observations":[%s]}' % (record[:-1], row(input=odd))
        found = READER.whole_trace(whole)
        assert sum(len(part.table) for part in found) == 2


# -- texts -----------------------------------------------------------------------------------------------------

NOTHING = st.sampled_from([*sorted(PLACEHOLDERS), "None", "NaN", "NULL", "Undefined", "[object Object]", "", " \t\n"])
PADDING = st.sampled_from(["", " ", "\n", "\u00a0 "])


@given(NOTHING, PADDING, PADDING)
def test_what_programs_write_for_nothing_is_absent(nothing: str, before: str, after: str) -> None:
    assert present(before + nothing + after) is None


@given(st.text(min_size=1).filter(lambda text: text.strip() and present(text) is not None), PADDING, PADDING)
def test_texts_are_trimmed_and_otherwise_kept(text: str, before: str, after: str) -> None:
    assert present(before + text + after) == text.strip()


@given(NOTHING, PADDING)
def test_nothing_never_beats_a_value_under_the_next_name(nothing: str, padding: str) -> None:
    written = json.dumps(padding + nothing).encode()
    metadata = (
        b'{"stripeCustomerId":%s,"customerId":" cus_1 ","organizationId":%s,"chatflowid":%s,"chatflowId":"flow",'
        b'"aiCredentialsOwnership":%s,"userId":%s,"billing_status":%s,"storageGb":%s,"storageGB":" 2 "}'
    ) % ((written,) * 7)
    found = one(
        metadata=metadata,
        userId=written,
        sessionId=written,
        environment=written,
        name=written,
        traceName=written,
        model=written,
        providedModelName=b'" gpt-5 "',
    )
    assert (found["customer_id"], found["chatflow_id"], found["model"]) == ("cus_1", "flow", "gpt-5")
    assert found["storage_gb"] == 2
    absent = ("organization_id", "ownership", "metadata_user_id", "user_id", "session_id", "environment", "name")
    assert [found[name] for name in (*absent, "trace_name", "legacy_status")] == [None] * 9


# -- envelopes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [b"null", b"5", b'"x"', b"[]", b""])
def test_a_page_without_meta_is_no_page(meta: bytes) -> None:
    bodies = [b'{"data":[%s],"meta":%s}' % (GOOD, meta or b"null"), b'{"data":[%s]}' % GOOD]
    for body in bodies:
        with pytest.raises(BrokenBody, match="meta"):
            READER.observations(body)


@pytest.mark.parametrize(
    ("cursor", "followed"),
    [
        (b'"abc"', "abc"),
        (b"5", "5"),
        (b"0", "0"),
        (b"-1.5", "-1.5"),
        (b"1e3", "1e3"),
        (b"9" * 30, "9" * 30),
        (b"null", None),
        (b'""', None),
    ],
)
def test_a_cursor_is_followed_as_it_is_written(cursor: bytes, followed: str | None) -> None:
    assert read_meta(b'{"cursor":%s}' % cursor).cursor == followed


@pytest.mark.parametrize("cursor", [b"true", b"false", b"{}", b'["a"]', HALF, b"NaN"])
def test_a_cursor_of_another_kind_is_an_error(cursor: bytes) -> None:
    with pytest.raises(BrokenBody, match="cursor"):
        read_meta(b'{"cursor":%s}' % cursor)


@pytest.mark.parametrize("key", ["nextCursor", "next", "next_page_token", "hasMore", "endCursor"])
def test_a_next_page_under_another_name_is_not_the_end(key: str) -> None:
    with pytest.raises(BrokenBody, match=key):
        read_meta(b'{"%s":"x"}' % key.encode())
    assert read_meta(b'{"%s":null}' % key.encode()).cursor is None


@pytest.mark.parametrize("data", [b"null", b"5", b"{}", b'"x"'])
def test_data_that_is_no_list_is_no_page(data: bytes) -> None:
    with pytest.raises(BrokenBody):
        READER.observations(b'{"data":%s,"meta":{}}' % data)


# -- pieces ----------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=6))
def test_a_list_is_cut_into_its_elements(values: list[object]) -> None:
    for text in (json.dumps(values, indent=1), json.dumps(values, ensure_ascii=False)):
        assert [json.loads(piece) for piece in elements(text.encode())] == values


@given(
    st.dictionaries(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda key: "\0" not in key),
        VALUES,
        max_size=6,
    )
)
def test_an_object_is_cut_into_its_members(values: dict[str, object]) -> None:
    assert {key: json.loads(piece) for key, piece in members(json.dumps(values).encode()).items()} == values


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_refused_and_nothing_else(body: bytes) -> None:
    for cut in (elements, members):
        with suppress(BrokenJson):
            cut(b"[" + body)


def test_an_unclosed_text_of_many_quotation_marks_is_refused_at_once() -> None:
    with pytest.raises(BrokenJson):
        elements(b'["' + b'\\"' * 300_000)


@given(st.text() | st.integers() | st.just("\ud83d"))
def test_what_is_shown_is_one_printable_bounded_line(value: object) -> None:
    text = shown(value)
    assert len(text.splitlines()) <= 1
    text.encode()
