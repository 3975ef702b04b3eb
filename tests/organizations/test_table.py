"""The table of organizations: who is found, in which order, and what the file says about them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.organizations.figures import TokensByClass
from billing_core.organizations.table import (
    CSV_COLUMNS,
    FIGURES,
    SORTS,
    distinct,
    figure,
    found,
    label,
    margin_share,
    organizations_csv,
    relative_change,
    rows,
    share,
)
from tests.organizations.literal import figures, organization, statistics

NAMES = {"org_b": "Babel & Söhne", "org_c": "acme"}


THREE = statistics(organization("org_a", "10"), organization("org_b", "30"), organization(None, "20"))


def ids(organizations) -> list[str | None]:
    return [one.organization_id for one in organizations]


# ── search ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("find", "expected"),
    [
        ("", ["org_a", "org_b", None]),
        ("  ", ["org_a", "org_b", None]),
        ("ORG_", ["org_a", "org_b"]),
        ("söHNE", ["org_b"]),
        ("no organization", [None]),
        ("%", []),
        ("org%a", []),
    ],
)
def test_a_search_looks_into_ids_and_names_whatever_the_case(find, expected):
    assert ids(found(THREE.organizations, NAMES, find)) == expected


def test_several_organizations_of_one_name_are_told_apart_by_their_ids():
    assert distinct({"org_a": "Acme", "org_b": "Babel", "org_c": "Acme"}) == {
        "org_a": "Acme (org_a)",
        "org_b": "Babel",
        "org_c": "Acme (org_c)",
    }


def test_a_name_stands_for_its_id_and_nobody_has_a_row_of_its_own():
    assert label("org_b", NAMES) == "Babel & Söhne"
    assert label("org_x", NAMES) == "org_x"
    assert label(None, NAMES) == "No organization"


# ── order ────────────────────────────────────────────────────────────────────────────────────────


def test_the_most_credits_come_first_unless_told_otherwise():
    assert ids(rows(THREE, NAMES)) == ["org_b", None, "org_a"]
    assert ids(rows(THREE, NAMES, descending=False)) == ["org_a", None, "org_b"]


def test_by_name_people_read_names_and_nobody_comes_last():
    some = statistics(
        organization("org_z", "1"), organization(None, "2"), organization("org_b", "3"), organization("org_c", "4")
    )
    assert ids(rows(some, NAMES, sort="organization", descending=False)) == ["org_c", "org_b", "org_z", None]
    assert ids(rows(some, NAMES, sort="organization")) == ["org_z", "org_b", "org_c", None]


@pytest.mark.parametrize("descending", [True, False])
def test_what_is_unknown_comes_last_in_either_direction(descending):
    some = statistics(
        organization("org_a", "1", cost_usd=None),
        organization("org_b", "2", cost_usd=Decimal(5)),
        organization("org_c", "3", cost_usd=Decimal(0)),
    )
    expected = ["org_b", "org_c"] if descending else ["org_c", "org_b"]
    assert ids(rows(some, {}, sort="cost_usd", descending=descending)) == [*expected, "org_a"]


def test_change_sorts_by_percentage_and_new_organizations_have_none():
    some = statistics(
        organization("doubled", "20", "10"), organization("halved", "50", "100"), organization("new", "70", "0")
    )
    assert ids(rows(some, {}, sort="change")) == ["doubled", "halved", "new"]
    assert relative_change(some.organizations[0]) == 1
    assert relative_change(some.organizations[1]) == Decimal("-0.5")
    assert relative_change(some.organizations[2]) is None


def test_a_sort_that_there_is_not_is_refused_by_name():
    with pytest.raises(BadParameter, match=r"^sort: "):
        rows(THREE, {}, sort="credits; DROP")
    with pytest.raises(BadParameter, match=r"^sort: "):
        organizations_csv(THREE, {}, "", "nonsense", True)


PEOPLE = st.lists(
    st.tuples(st.one_of(st.none(), st.text(max_size=5)), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 3))),
    unique_by=lambda one: one[0],
    max_size=8,
)


@given(PEOPLE, st.sampled_from(SORTS), st.booleans(), st.randoms())
def test_every_order_holds_every_row_once_whatever_order_they_came_in(people, sort, descending, random):
    held = [
        organization(key, str(total), latency_p95=None if p95 is None else Decimal(p95)) for key, total, p95 in people
    ]
    ordered = rows(statistics(*held), NAMES, sort=sort, descending=descending)
    assert sorted(ids(ordered), key=repr) == sorted(ids(held), key=repr)
    shuffled = list(held)
    random.shuffle(shuffled)
    assert rows(statistics(*shuffled), NAMES, sort=sort, descending=descending) == ordered


# ── ratios ───────────────────────────────────────────────────────────────────────────────────────


def test_a_share_of_nothing_is_unknown_and_not_zero():
    assert share(Decimal(0), Decimal(0)) is None
    assert share(Decimal(1), Decimal(3)) == Decimal("0.333333333")


def test_the_margin_is_a_part_of_the_amount_whose_cost_is_known():
    assert margin_share(figures(known_cost_amount_usd=Decimal(10), borne_cost_usd=Decimal(4))) == Decimal("0.6")
    assert margin_share(figures(known_cost_amount_usd=Decimal(10), borne_cost_usd=Decimal(15))) == Decimal("-0.5")
    assert margin_share(figures(known_cost_amount_usd=Decimal(0), borne_cost_usd=Decimal(4))) is None
    assert margin_share(figures()) is None


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


def flattened(document: dict) -> dict:
    flat = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{part}": held for part, held in value.items()}
        else:
            flat[name] = value
    return flat


def test_the_file_has_the_published_figures_under_flat_names():
    published = flattened(figures("1.5", tokens_by_class=TokensByClass(input=7)).to_json())
    assert set(CSV_COLUMNS) == {
        *published,
        "organization_id",
        "name",
        "customer_ids",
        "previous_credits_total",
        "share",
    }
    full = figures("1.5", tokens_in=9, latency_sum=Decimal("2.5"), tokens_by_class=TokensByClass(input=7))
    for name, value in flattened(full.to_json()).items():
        held = figure(full, name)
        expected = len(value) if name == "models" else value
        assert held == (Decimal(expected) if isinstance(expected, str) else expected)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_file_holds_the_rows_of_the_search_in_their_order_with_every_digit():
    some = statistics(
        organization("org_a", "1.000001", "3", models=("gpt-5", "o4"), cost_usd=None),
        replace(organization("org_b", "3.000003"), customer_ids=("cus_1", "cus_2")),
        organization("other", "7"),
    )
    lines = read("".join(organizations_csv(some, NAMES, "ORG", "credits_total", False)))
    assert [line["organization_id"] for line in lines] == ["org_a", "org_b"]
    first, second = lines
    assert (first["credits_total"], first["previous_credits_total"], first["share"]) == ("1.000001", "3", "0.090909149")
    assert first["models"] == '["gpt-5", "o4"]'
    assert first["cost_usd"] == first["name"] == first["latency_seconds_p95"] == second["previous_credits_total"] == ""
    assert (second["name"], second["customer_ids"]) == ("Babel & Söhne", '["cus_1", "cus_2"]')


def test_no_cell_of_the_file_is_a_formula_and_negative_figures_stay_numbers():
    evil = replace(
        organization("=cmd()", "1", known_cost_amount_usd=Decimal(1), borne_cost_usd=Decimal(3)), customer_ids=("@sum",)
    )
    (line,) = read("".join(organizations_csv(statistics(evil), {"=cmd()": "+1"}, "", "events", True)))
    assert (line["organization_id"], line["name"], line["customer_ids"]) == ("'=cmd()", "'+1", '["@sum"]')
    assert line["margin_usd"] == "-2"


def test_events_without_an_organization_are_a_line_of_their_own():
    lines = read("".join(organizations_csv(THREE, {}, "", "credits_total", True)))
    assert [line["organization_id"] for line in lines] == ["org_b", "", "org_a"]
    assert sum(Decimal(line["credits_total"]) for line in lines) == THREE.total.credits.total == 60


def test_every_published_figure_can_be_sorted_by():
    assert set(FIGURES) < set(SORTS)
