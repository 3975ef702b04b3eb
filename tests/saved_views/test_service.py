"""Saved views: whose they are, who may open them, and on which the dashboard opens."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound
from billing_core.ledger.audit_log import AuditFilter, AuditLog
from billing_core.saved_views.service import QUERY_CHARACTERS, VIEWS_PER_PERSON, SavedViewService
from tests.examples import examples
from tests.factories import NOON, ledger_at

ADA = Principal("ada", Role.ANALYST)
BEN = Principal("ben", Role.ANALYST)
FAY = Principal("fay", Role.FINANCE)
ROOT = Principal("root", Role.ADMIN)


@pytest.fixture
def ledger(tmp_path):
    return ledger_at(tmp_path / "billing.duckdb")


@pytest.fixture
def views(ledger):
    times = iter(NOON + timedelta(seconds=n) for n in range(10_000))
    return SavedViewService(ledger, lambda: next(times))


def save(views, who=ADA, name="Errors of October", query="period=October&status=error", page="usage_events", role=None):
    return views.save(who, page=page, name=name, query=query, shared_with=role)


def names(views, who, page=None):
    return [view.name for view in views.views(who, page)]


def entries(ledger):
    return [(one.actor, one.action) for one in AuditLog(ledger.engine).every(AuditFilter())]


def test_a_view_is_its_owners_until_it_is_shared(views):
    save(views)
    assert names(views, ADA) == ["Errors of October"]
    assert names(views, BEN) == names(views, ROOT) == []
    save(views, role=Role.ANALYST)
    assert names(views, BEN) == ["Errors of October"]
    assert names(views, FAY) == names(views, ROOT) == []


def test_one_saved_under_the_same_name_takes_the_place_of_the_earlier_one_and_keeps_its_id(views):
    first = save(views)
    second = save(views, name="  Errors   of October ", query="status=error")
    (found,) = views.views(ADA)
    assert found == second
    assert (second.id, second.query) == (first.id, "status=error")
    save(views, page="stripe_sync")
    save(views, BEN)
    assert len(views.views(ADA)) == 2


def test_ones_own_views_come_first_then_those_shared_by_name(views):
    for who, name in ((BEN, "a"), (ADA, "z"), (ADA, "B"), (BEN, "c")):
        save(views, who, name, role=Role.ANALYST)
    save(views, ADA, "of Stripe", page="stripe_sync")
    assert names(views, ADA, "usage_events") == ["B", "z", "a", "c"]
    assert names(views, ADA, "stripe_sync") == ["of Stripe"]


def test_only_its_owner_or_an_admin_who_sees_it_deletes_a_view(views):
    private = save(views)
    shared = save(views, name="shared", role=Role.ANALYST)
    of_admins = save(views, ADA, "for admins", role=Role.ADMIN)
    with pytest.raises(AccessDenied, match="belongs to ada"):
        views.delete(BEN, shared.id)
    for who in (BEN, ROOT):
        with pytest.raises(NotFound):
            views.delete(who, private.id)
    views.delete(ROOT, of_admins.id)
    views.delete(ADA, private.id)
    assert names(views, ADA) == ["shared"]
    with pytest.raises(NotFound):
        views.delete(ADA, private.id)


def test_the_dashboard_opens_on_the_chosen_view_as_long_as_it_may_be_opened(views):
    shared = save(views, role=Role.ANALYST)
    views.set_start(BEN, shared.id)
    assert views.start(BEN) == shared
    assert views.start(ADA) is None
    with pytest.raises(NotFound):
        views.set_start(FAY, shared.id)
    save(views, role=None)
    assert views.start(BEN) is None
    save(views, role=Role.ANALYST)
    assert views.start(BEN).id == shared.id
    views.delete(ADA, shared.id)
    assert views.start(BEN) is None
    views.set_start(BEN, None)


def test_every_change_is_in_the_audit_log_once(views, ledger):
    before = entries(ledger)
    view = save(views)
    views.set_start(ADA, view.id)
    views.set_start(ADA, view.id)
    views.delete(ADA, view.id)
    assert entries(ledger)[len(before) :] == [
        ("ada", "view_saved"),
        ("ada", "start_view_chosen"),
        ("ada", "view_deleted"),
    ]


@pytest.mark.parametrize(
    ("how", "parameter"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 61}, "name"),
        ({"name": "tab\u0000"}, "name"),
        ({"page": "../etc"}, "page"),
        ({"page": ""}, "page"),
        ({"query": "x" * (QUERY_CHARACTERS + 1)}, "query"),
        ({"query": "a=\nb"}, "query"),
        ({"query": "a=ä"}, "query"),
    ],
)
def test_what_is_not_accepted_is_named_and_nothing_is_saved(views, how, parameter):
    with pytest.raises(BadParameter) as refused:
        save(views, **how)
    assert refused.value.parameter == parameter
    assert views.views(ADA) == []


def test_nobody_fills_the_ledger_with_views(views, monkeypatch):
    monkeypatch.setattr("billing_core.saved_views.service.VIEWS_PER_PERSON", 3)
    for number in range(3):
        save(views, name=str(number))
    with pytest.raises(BadParameter, match="delete one first"):
        save(views, name="one more")
    save(views, name="1", query="changed=1")
    save(views, BEN)
    assert VIEWS_PER_PERSON >= 100


@settings(max_examples=examples(15))
@given(data=st.data())
def test_whatever_is_saved_each_person_sees_what_is_theirs_or_shared_with_their_role(data, tmp_path_factory):
    views = SavedViewService(ledger_at(tmp_path_factory.mktemp("views") / "billing.duckdb"), lambda: NOON)
    people = [ADA, BEN, FAY, ROOT]
    expected = {}
    for _ in range(data.draw(st.integers(0, 8))):
        who = data.draw(st.sampled_from(people))
        name, page = data.draw(st.sampled_from("ab")), data.draw(st.sampled_from(["usage_events", "stripe_sync"]))
        role = data.draw(st.sampled_from([None, *Role]))
        expected[who.name, page, name] = save(views, who, name, page=page, role=role)
    for who in people:
        seen = {key for key, view in expected.items() if view.owner == who.name or view.shared_with is who.role}
        assert {(view.owner, view.page, view.name) for view in views.views(who)} == seen
