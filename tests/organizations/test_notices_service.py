"""Notices: raised once, whoever looks and however often; delivered; seen by somebody; silent about others."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, WarehouseError
from billing_core.ingest.pull import PullResult
from billing_core.values.usage_frame import Window
from tests.factories import EVERYONE, NOON
from tests.notify.receiver import Receiver
from tests.stripe_sync.push_world import at, use

ONLY_A = Principal("ada", Role.ADMIN, frozenset({"org_a"}))
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FREE = {"cus_a": "free", "cus_b": "free"}


@pytest.fixture
def receiver():
    from billing_core.settings import signing_key

    with Receiver(signing_key(SECRET)) as running:
        yield running


@pytest.fixture
def world(world, stripe):
    """Customers A and B on the Free plan: 10,000 credits a month; Stripe was read."""
    stripe.switch(profiles=FREE)
    world.service.organizations.limits.refresh(EVERYONE)
    return world


def connected(world, receiver):
    world.reopen(BILLING_WEBHOOK_URL=receiver.url, BILLING_WEBHOOK_SECRET=SECRET)
    desk(world)._outbox._pause = lambda seconds: None


def desk(world):
    return world.service.organizations.limits.notices


def raised(world):
    return [(one.notice.customer_id, one.notice.threshold) for one in desk(world).due_notices(EVERYONE).open]


def test_a_threshold_is_raised_when_the_last_credit_reaches_it_and_then_never_again(world):
    world.book(use("1", at(0), "7499.999999"))
    assert desk(world).check_limits("cron").raised == 0
    world.book(use("2", at(0), "0.000001"))
    assert [desk(world).check_limits("cron").raised for _ in range(3)] == [1, 0, 0]
    assert raised(world) == [("cus_a", 75)]
    world.book(use("3", at(0), "2000"))
    assert desk(world).check_limits("cron").raised == 1
    assert raised(world) == [("cus_a", 90), ("cus_a", 75)]


def test_a_new_period_has_new_notices(world, stripe):
    stripe.switch(anchors={"cus_a": int((stripe.now() - timedelta(days=25)).timestamp())})
    limits = world.service.organizations.limits
    limits.refresh(EVERYONE)
    world.book(use("1", at(0), "9500"))
    desk(world).check_limits("cron")
    (row,) = limits.of(EVERYONE, "org_a")
    world.wait(seconds=(row.period_end - stripe.now()).total_seconds() + 60)
    world.book(use("2", row.period_end + timedelta(seconds=1), "8000"))
    assert desk(world).check_limits("cron").raised == 0
    limits.refresh(EVERYONE)
    found = [(one.notice.threshold, one.notice.period_start) for one in desk(world).due_notices(EVERYONE).open]
    assert found == [(75, row.period_end), (90, row.period_start), (75, row.period_start)]


def test_the_thresholds_are_the_settings(world):
    world.reopen(BILLING_LIMIT_THRESHOLDS="150,20")
    world.book(use("1", at(0), "15000"))
    desk(world).check_limits("cron")
    assert raised(world) == [("cus_a", 150), ("cus_a", 20)]


def test_unknown_plans_and_customers_without_one_raise_nothing(world, stripe):
    stripe.switch(profiles={"cus_a": "unknown_price", "cus_b": "no_subscription", "cus_c": "canceled"})
    world.service.organizations.limits.refresh(EVERYONE)
    world.book(*(use(c, at(0), "900000", customer=f"cus_{c}") for c in "abc"))
    assert desk(world).check_limits("cron").raised == 0


def test_a_change_of_plan_is_another_limit_with_notices_of_its_own(world, stripe):
    world.book(use("1", at(0), "10000"))
    assert desk(world).check_limits("cron").raised == 3
    stripe.switch(profiles={"cus_a": "pro"})
    world.service.organizations.limits.refresh(EVERYONE)
    world.book(use("2", at(0), "370000"))
    assert desk(world).check_limits("cron").raised == 1
    assert {(one.notice.plan, one.notice.included) for one in desk(world).due_notices(EVERYONE).open} == {
        ("Free", 10_000),
        ("Pro", 500_000),
    }


def test_every_raised_notice_is_in_the_audit_log_with_who_gave_the_occasion(world):
    world.book(use("1", at(0), "9000.5"))
    desk(world).check_limits("os:cron")
    entries = [entry for entry in world.ledger.audit_entries() if entry["action"] == "limit_notice"]
    assert [entry["actor"] for entry in entries] == ["os:cron", "os:cron"]
    told = json.loads(entries[0]["detail"])
    assert (told["customer"], told["threshold"], told["used"], told["included"]) == ("cus_a", 90, "9000.5", 10_000)


def test_many_looks_at_once_raise_a_notice_once(world):
    world.book(use("1", at(0), "10000"))
    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda number: desk(world).check_limits(f"thread {number}").raised, range(6)))
    assert sum(counts) == 3
    assert raised(world) == [("cus_a", 100), ("cus_a", 90), ("cus_a", 75)]


RAISE = """
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.notices import NoticeStore, Reached
start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
found = [Reached("org_a", f"cus_{n}", "Free", 75, start, end, 10, Decimal(8)) for n in range(20)]
books = NoticeStore(DuckDBEngine(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
print(sum(len(books.raise_new([one], actor="process", now=start)) for one in found))
"""


def test_two_processes_at_once_raise_a_notice_once(world):
    world.close()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RAISE, world.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(counts) == 20
    assert world.rows("SELECT count(*), count(DISTINCT id) FROM limit_notices") == [(20, 20)]


# ── seen ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_admin_marks_notices_as_seen_once_and_that_is_audited(world):
    world.book(use("1", at(0), "9500"))
    desk(world).check_limits("cron")
    ninety, seventy_five = (one.notice.id for one in desk(world).due_notices(EVERYONE).open)
    assert desk(world).mark_seen(EVERYONE, [ninety]) == 1
    assert desk(world).mark_seen(Principal("bob", Role.ADMIN), [ninety, seventy_five, "limit_of_nobody"]) == 1
    board = desk(world).due_notices(EVERYONE)
    assert board.open == ()
    assert {(one.notice.threshold, one.notice.seen_by) for one in board.seen} == {(90, "tester"), (75, "bob")}
    entries = [entry for entry in world.ledger.audit_entries() if entry["action"] == "limit_notices_seen"]
    assert [json.loads(entry["detail"])["ids"] for entry in entries] == [[seventy_five], [ninety]]


def test_a_notice_marked_as_seen_is_not_raised_again(world):
    world.book(use("1", at(0), "9500"))
    desk(world).check_limits("cron")
    desk(world).mark_seen(EVERYONE, [one.notice.id for one in desk(world).due_notices(EVERYONE).open])
    assert desk(world).check_limits("cron").raised == 0
    assert desk(world).due_notices(EVERYONE).open == ()


# ── limited admins ───────────────────────────────────────────────────────────────────────────────


def test_a_limited_admin_reads_what_his_own_organizations_reached_and_nothing_of_others(world):
    world.book(use("1", at(0), "7600"), use("2", at(1), "2400", organization_id="org_b"))
    desk(world).check_limits("cron")
    board = desk(world).due_notices(ONLY_A)
    assert [(one.customer_id, one.threshold, one.used) for one in board.reached] == [("cus_a", 75, 7600)]
    assert (board.open, board.seen, board.problem) == ((), (), None)


def test_a_limited_admins_board_does_not_change_with_what_others_use_or_mark(world):
    world.book(use("1", at(0), "7600"))
    before = desk(world).due_notices(ONLY_A)
    world.book(
        use("2", at(1), "2400", organization_id="org_b"),
        use("3", at(1), "9999", customer="cus_b", organization_id="org_b"),
    )
    desk(world).check_limits("cron")
    desk(world).mark_seen(EVERYONE, [one.notice.id for one in desk(world).due_notices(EVERYONE).open])
    assert desk(world).due_notices(ONLY_A) == before


def test_a_limited_admin_marks_nothing(world):
    world.book(use("1", at(0), "7600"))
    desk(world).check_limits("cron")
    with pytest.raises(AccessDenied, match="notices are marked for everybody"):
        desk(world).mark_seen(ONLY_A, [one.notice.id for one in desk(world).due_notices(EVERYONE).open])
    assert len(desk(world).due_notices(EVERYONE).open) == 1


# ── webhook ──────────────────────────────────────────────────────────────────────────────────────


def test_of_several_thresholds_at_the_first_look_only_the_highest_is_sent(world, receiver):
    connected(world, receiver)
    world.book(use("1", at(0), "9500"))
    looked = desk(world).check_limits("cron")
    assert (looked.raised, looked.delivery.delivered) == (2, 1)
    assert [document["data"]["threshold"] for document in receiver.verified()] == [90]
    states = {one.notice.threshold: one.delivery.state.value for one in desk(world).due_notices(EVERYONE).open}
    assert states == {90: "delivered", 75: "covered"}
    world.book(use("2", at(0), "600"))
    desk(world).check_limits("cron")
    assert [document["data"]["threshold"] for document in receiver.verified()] == [90, 100]


def test_what_failed_is_tried_again_by_a_later_look_under_the_same_id(world, receiver):
    receiver.answers[:] = [500, 500, 500]
    connected(world, receiver)
    world.book(use("1", at(0), "7600"))
    assert len(desk(world).check_limits("cron").delivery.failed) == 1
    (one,) = desk(world).due_notices(EVERYONE).open
    assert (one.delivery.state.value, one.delivery.tries, one.delivery.last.status) == ("failed", 3, 500)
    assert one.delivery.next_at - one.delivery.last.at == timedelta(minutes=5)
    world.wait(minutes=6)
    assert desk(world).check_limits("cron").delivery.delivered == 1
    assert len(set(receiver.ids())) == 1


def test_looks_at_the_same_moment_send_a_notice_once(world, receiver):
    world.book(use("1", at(0), "7600"))
    desk(world).check_limits("cron")
    connected(world, receiver)
    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(lambda number: desk(world).check_limits(f"thread {number}").delivery.delivered, range(6)))
    assert (sum(sent), len(receiver.calls)) == (1, 1)


def test_the_name_of_the_organization_is_the_directorys(world, receiver):
    connected(world, receiver)
    with world.ledger.engine.transaction() as writer:
        writer.insert(
            "organization_directory",
            {
                "seq": 1,
                "organization_id": "org_a",
                "name": "Acme",
                "changed_at": NOON,
                "changed_by": "x",
                "source": "page",
            },
        )
    world.book(use("1", at(0), "7600"))
    desk(world).check_limits("cron")
    assert receiver.verified()[0]["data"]["organization_name"] == "Acme"


def test_without_a_webhook_nothing_is_sent_and_a_notice_says_so(world):
    world.book(use("1", at(0), "7600"))
    desk(world).check_limits("cron")
    assert desk(world).due_notices(EVERYONE).open[0].delivery.state.value == "not_sent"


# ── on the occasion of a pull ────────────────────────────────────────────────────────────────────


def pull(world, monkeypatch):
    """A pull whose reading is somebody else's matter."""
    service = world.service
    monkeypatch.setattr(service.pulls, "_connect", lambda *_: SimpleNamespace(close=lambda: None))
    done = PullResult("v2", Window(NOON, NOON + timedelta(hours=1)), observations=0)
    monkeypatch.setattr(service.pulls, "_pull", lambda *_: done)
    assert service.pull(Principal("ann", Role.ANALYST)) is done


def test_every_pull_raises_what_is_due_whoever_asked_for_it(world, monkeypatch):
    world.book(use("1", at(0), "7600"))
    pull(world, monkeypatch)
    assert raised(world) == [("cus_a", 75)]


@pytest.mark.parametrize("fault", [WarehouseError("the ledger is locked"), RuntimeError("broken")])
def test_a_look_that_fails_is_logged_and_shown_and_the_pull_is_done(world, monkeypatch, caplog, fault):
    def fails(*_, **__):
        raise fault

    monkeypatch.setattr(desk(world)._books, "raise_new", fails)
    pull(world, monkeypatch)
    assert "notices: " in caplog.text
    assert desk(world).due_notices(EVERYONE).problem in {
        "the ledger is locked",
        "Something unexpected went wrong; the log has the details.",
    }
    monkeypatch.undo()
    desk(world).check_limits_quietly("cron")
    assert desk(world).due_notices(EVERYONE).problem is None


def test_a_webhook_that_fails_does_not_make_a_pull_fail(world, receiver, monkeypatch):
    receiver.answers[:] = [500, 500, 500]
    connected(world, receiver)
    world.book(use("1", at(0), "7600"))
    pull(world, monkeypatch)
    assert desk(world).due_notices(EVERYONE).open[0].delivery.state.value == "failed"
