"""Rolling windows of whole days, what is told once, and what a rule may watch: for every input."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.alerts.model import Found, Kind, Terms
from billing_core.alerts.rules import day_window, in_words, iso_week_before, overlaps, passing, untold, week_name
from billing_core.errors import AccessDenied, BadParameter

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 10, 1)
ONE = timedelta(days=1)

usage = st.dictionaries(
    st.integers(0, 40).map(lambda number: FIRST + number * ONE), st.decimals(-50, 100, places=6), max_size=20
)


@given(usage, st.integers(1, 10), st.decimals(0, 200, places=6), st.integers(0, 20), st.integers(0, 20))
def test_a_window_passes_if_its_own_days_and_no_others_are_above_the_limit(per_day, days, above, begin, length):
    first = FIRST + (10 + begin) * ONE
    last = first + length * ONE
    expected = [
        (end, total)
        for number in range(length, -1, -1)
        if (end := first + number * ONE)
        and (total := sum((v for d, v in per_day.items() if end - days * ONE < d <= end), Decimal(0))) > above
    ]
    assert list(passing(per_day, days, above, first, last)) == expected


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 10, 25), 25), (date(2026, 3, 29), 23), (date(2026, 11, 1), 24)])
def test_a_day_is_as_long_as_the_clocks_of_the_timezone_say(day, hours):
    start, end = day_window(day, day, BERLIN)
    assert end.astimezone(UTC) - start.astimezone(UTC) == timedelta(hours=hours)
    assert overlaps((start, end), day_window(day, day + ONE, BERLIN))
    assert not overlaps((start, end), day_window(day + ONE, day + ONE, BERLIN))


def found(subject, first, days):
    start, end = day_window(FIRST + first * ONE, FIRST + (first + days - 1) * ONE, BERLIN)
    return Found(subject, start, end, "title", "text", "")


windows = st.lists(st.builds(found, st.sampled_from(["a", "b", None]), st.integers(0, 30), st.integers(1, 9)))


@given(windows, windows)
def test_of_one_subject_no_two_windows_that_are_told_overlap_and_nothing_else_is_held_back(before, now):
    told = [(one.subject, one.occasion, one.start, one.end) for one in untold(before, ())]
    taken = untold(now, told)
    spans = [*told, *((one.subject, one.occasion, one.start, one.end) for one in taken)]
    for number, (subject, _, start, end) in enumerate(spans):
        assert not any(s == subject and overlaps((start, end), (b, e)) for s, _, b, e in spans[:number])
    for one in now:
        if one not in taken:
            assert any(s == one.subject and overlaps((one.start, one.end), (b, e)) for s, _, b, e in spans)
    again = [(one.subject, one.occasion, one.start, one.end) for one in taken]
    assert untold(now, [*told, *again]) == []


@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["threshold", "unusual", "failure", "unsent", "deadline"])},
        optional={
            "by": st.sampled_from(["organization", "customer", "user", "chatflow", "model"]),
            "subject": st.sampled_from(["org_a", "x"]),
            "measure": st.sampled_from(["amount_usd", "credits"]),
            "days": st.integers(1, 92),
            "hours": st.integers(1, 840),
            "process": st.lists(st.sampled_from(["pull", "push", "reconcile", "close"]), min_size=1),
        },
    )
)
def test_terms_are_kept_as_they_were_said(values):
    terms = Terms.parse({**values, "above": "12.50"})
    assert Terms.from_json(terms.to_json()).to_json() == terms.to_json()
    assert in_words(terms)[0].isupper()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({}, "kind: None"),
        ({"kind": "loud"}, "kind: 'loud'"),
        ({"kind": "threshold"}, "above: None"),
        ({"kind": "threshold", "above": "NaN"}, "above: 'NaN'"),
        ({"kind": "threshold", "above": "-1"}, "above: '-1'"),
        ({"kind": "threshold", "above": "1e99"}, "above: '1e99'"),
        ({"kind": "threshold", "above": "1", "days": "93"}, "days: '93'"),
        ({"kind": "threshold", "above": "1", "days": "٣"}, "days: '٣'"),
        ({"kind": "threshold", "above": "1", "by": "status"}, "by: 'status'"),
        ({"kind": "summary", "by": "user"}, "by: 'user'"),
        ({"kind": "unsent", "hours": "0"}, "hours: '0'"),
        ({"kind": "failure", "process": ["push", "lunch"]}, "process: 'lunch'"),
        ({"kind": "unusual", "subject": "a\nb"}, "subject: 'a\\nb'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(wrong, named):
    with pytest.raises(BadParameter) as raised:
        Terms.parse(wrong)
    assert str(raised.value).startswith(named)
    assert "expected " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_rule_of_a_limited_account_counts_its_organizations_and_never_the_whole_ledger():
    ada = Principal("ada", Role.FINANCE, frozenset({"org_b", "org_a"}))
    assert Terms.parse({"kind": "threshold", "above": 1}).of(ada).organizations == ("org_a", "org_b")
    for kind in ("failure", "unsent", "deadline"):
        with pytest.raises(AccessDenied):
            Terms(Kind(kind)).of(ada)
    with pytest.raises(AccessDenied):
        Terms.parse({"kind": "threshold", "above": 1, "subject": "org_c"}).of(ada)
    with pytest.raises(AccessDenied):
        Terms(Kind.UNSENT).of(Principal("ann", Role.ANALYST))


def test_the_last_week_that_is_over_has_its_iso_name():
    assert week_name(iso_week_before(date(2026, 11, 22))) == "2026-W46"  # a Sunday: its own week is not over
    assert week_name(iso_week_before(date(2026, 11, 23))) == "2026-W47"
    assert week_name(iso_week_before(date(2027, 1, 5))) == "2026-W53"
