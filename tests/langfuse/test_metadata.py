"""Billing facts out of metadata."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from billing_core.langfuse.metadata import MetadataFacts, MetadataReader
from billing_core.values.usage_frame import MetadataNames


def facts(metadata: Any, names: MetadataNames | None = None) -> MetadataFacts:
    return MetadataReader(names or MetadataNames()).read(json.dumps(metadata).encode())


@pytest.mark.parametrize(
    ("value", "text"),
    [("cus_1", "cus_1"), (12345, "12345"), (True, "true"), ("007", "007"), ("", None), (" ", None), (None, None)],
)
def test_ids_are_text_whatever_the_wire_made_of_them(value: Any, text: str | None) -> None:
    assert facts({"customerId": value}).customer_id == text


def test_the_first_present_name_wins() -> None:
    assert facts({"customerId": "b", "stripeCustomerId": "a"}).customer_id == "a"
    assert facts({"customerId": "b", "stripeCustomerId": ""}).customer_id == "b"


@pytest.mark.parametrize(
    "metadata",
    [
        {"billing_details": {"breakdown": {"ai_tokens": {"base_credits": 1.5}}, "total_credits": 2}},
        {"billing_details.breakdown.ai_tokens.base_credits": 1.5, "billing_details.total_credits": "2"},
        {"billing_details": {"breakdown.ai_tokens": {"base_credits": "1.5"}, "total_credits": 2}},
        {"billing_details.breakdown": {"ai_tokens.base_credits": 1.5}, "billing_details": {"total_credits": 2}},
        {"billing_details": '{"breakdown":{"ai_tokens":{"base_credits":1.5}},"total_credits":2}'},
    ],
)
def test_dotted_and_nested_metadata_read_the_same(metadata: dict[str, Any]) -> None:
    found = facts(metadata)
    assert (found.legacy_ai_tokens, found.legacy_total) == (Decimal("1.5"), Decimal(2))
    assert not found.problems


def test_a_configured_name_may_contain_dots() -> None:
    names = MetadataNames(organization=("tenant.org.id",))
    for metadata in ({"tenant": {"org": {"id": 7}}}, {"tenant.org.id": 7}, {"tenant.org": {"id": 7}}):
        assert facts(metadata, names).organization_id == "7"


def test_an_object_where_one_value_is_expected_is_ignored_and_named() -> None:
    found = facts({"organizationId": {"id": 1}, "customerId": ["a"]})
    assert (found.organization_id, found.customer_id) == (None, None)
    assert found.problems == (
        "metadata customerId is a list where one value is expected; ignored",
        "metadata organizationId is an object where one value is expected; ignored",
    )


@pytest.mark.parametrize(("value", "storage"), [(2, "2"), ("2.5", "2.5"), (0, "0"), (1.1, "1.1")])
def test_storage_is_an_exact_number(value: Any, storage: str) -> None:
    assert facts({"storageGb": value}).storage_gb == Decimal(storage)


@pytest.mark.parametrize("value", [-1, "a lot", "1_0", 10**9, "NaN", "Infinity", True])
def test_unreadable_storage_is_flagged(value: Any) -> None:
    found = facts({"storageGB": value})
    assert (found.storage_gb, found.bad) == (None, True)
    assert "storageGB" in found.problems[0]


def test_unreadable_legacy_credits_are_named_but_not_bad_usage() -> None:
    found = facts({"billing_details.total_credits": "lots"})
    assert (found.legacy_total, found.bad) == (None, False)
    assert "billing_details.total_credits" in found.problems[0]


def test_a_value_of_200_characters_may_be_cut() -> None:
    assert not facts({"customerId": "x" * 199}).cut
    assert facts({"customerId": "x" * 200}).cut
    assert facts({"customerId": "é" * 100}).cut  # the server may count bytes
    assert facts({"billing_details": '{"total_credits": 1, "note": "' + "x" * 171}).cut
    assert not facts({"note": "x" * 900}).cut


@pytest.mark.parametrize("metadata", [None, "text", [1], 5, {}])
def test_metadata_that_is_no_object_holds_nothing(metadata: Any) -> None:
    assert facts(metadata) == MetadataFacts()


def test_expansion_names_every_top_level_key_that_may_hold_a_fact() -> None:
    keys = MetadataReader(MetadataNames(customer=("a.b",))).keys
    assert {"a", "a.b", "organizationId", "billing_details", "billing_details.total_credits"} <= set(keys)
