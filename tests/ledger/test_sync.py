"""The ledger's books on Stripe: what is written down together, and which status an event shows because of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing_core.ledger.sync import IntentUpdate, SyncStore
from billing_core.settings import Granularity
from billing_core.stripe.intents import PlanningRules, plan
from tests.factories import events_table, ledger_at
from tests.stripe_sync.push_world import use

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
ANSWERED = NOW + timedelta(seconds=1)


def minutes(number):
    return TEN + timedelta(minutes=number)


class Shelf:
    """A ledger file and its books."""

    def __init__(self, path):
        self.ledger = ledger_at(path)
        self.books = SyncStore(self.ledger.engine)

    def book(self, *rows, run="pull"):
        self.ledger.book(events_table(rows), run_id=run)

    def freeze(self, granularity=Granularity.HOUR, *, keep=True, settled_before=NOW, push="push-1", make=None):
        rules = PlanningRules("credits", "test", granularity, NOW)

        def make_plan(given):
            return plan(given.events, given.covered, given.carried, {}, given.revisions, rules)

        frozen, fresh, held = self.books.freeze(
            make or make_plan, settled_before=settled_before, push_id=push, now=NOW, keep=keep
        )
        return frozen, fresh.to_pylist(), held

    def sent(self, **changes):
        """Freeze, and let Stripe accept everything."""
        _, fresh, _ = self.freeze(**changes)
        self.answer("accepted", *[row["identifier"] for row in fresh])
        return [row["identifier"] for row in fresh]

    def answer(self, state, *identifiers, text=None, **more):
        answers = [IntentUpdate(identifier, state, ANSWERED, text=text, **more) for identifier in identifiers]
        self.books.settle(answers, push_id="push-1")

    def rows(self, query):
        return self.ledger.engine.rows(query)

    def events(self):
        """Event → (status, error, its intent's number in the order of writing)."""
        numbers = {row[0]: n for n, row in enumerate(self.rows("SELECT identifier FROM intents ORDER BY rowid"))}
        rows = self.rows("SELECT id, sync_status, sync_error, meter_event_identifier FROM events ORDER BY id")
        return {id_: (status, error, numbers.get(identifier)) for id_, status, error, identifier in rows}

    def statuses(self):
        return {id_: status for id_, (status, _, _) in self.events().items()}

    def intents(self, *names):
        return self.rows(f"SELECT {', '.join(names)} FROM intents ORDER BY rowid")

    def content(self):
        tables = [row[0] for row in self.rows("SELECT table_name FROM duckdb_tables()")]
        return {table: sorted(map(str, self.rows(f"SELECT * FROM {table}"))) for table in tables}


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path / "billing.duckdb")
    yield shelf
    shelf.ledger.engine.close()


# ── writing intents down ─────────────────────────────────────────────────────────────────────────


def test_an_intent_is_written_down_with_its_coverage_and_its_events_are_sending(shelf):
    shelf.book(use("1", minutes(5), "150.5"), use("2", minutes(6), "20"))
    frozen, fresh, held = shelf.freeze()
    assert (frozen.intents, frozen.newly_held, held) == (1, 0, 0)
    assert fresh[0]["value"] == 170
    assert shelf.intents("value", "state", "attempts", "push_id") == [(170, "open", 0, "push-1")]
    assert shelf.rows("SELECT event_id, credits::VARCHAR FROM coverage ORDER BY event_id") == [
        ("1", "150.500000"),
        ("2", "20.000000"),
    ]
    assert shelf.events() == {"1": ("sending", None, 0), "2": ("sending", None, 0)}


def test_a_plan_that_fails_leaves_the_ledger_as_it_was(shelf):
    shelf.book(use("1", minutes(5)), use("nobody's", minutes(5), customer=None))
    before = shelf.content()

    def fails(given):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shelf.freeze(make=fails)
    assert shelf.content() == before


def test_a_preview_goes_through_every_step_and_leaves_the_ledger_as_it_was(shelf):
    shelf.book(
        use("1", minutes(5)),
        use("fraction", minutes(90), "0.5", customer="cus_b"),
        use("nobody's", minutes(5), customer=None),
        use("old", NOW - timedelta(days=40)),
    )
    before = shelf.content()
    preview = shelf.freeze(keep=False)
    assert shelf.content() == before
    assert preview == shelf.freeze()
    assert shelf.content() != before


def test_a_second_planning_finds_nothing_left_to_do(shelf):
    shelf.book(use("1", minutes(5)), use("2", minutes(70)))
    shelf.sent()
    assert shelf.freeze()[:2] == (shelf.freeze()[0], [])
    assert len(shelf.intents("identifier")) == 2


def test_only_usage_that_has_settled_is_taken(shelf):
    shelf.book(use("settled", minutes(5), latency_seconds=60), use("running", minutes(5), latency_seconds=61))
    shelf.freeze(settled_before=minutes(6))
    assert shelf.statuses() == {"running": "pending", "settled": "sending"}


def test_what_the_earlier_system_billed_is_never_taken_not_even_when_it_changes(shelf):
    shelf.book(use("1", minutes(5), legacy_status="processed", legacy_total=100))
    shelf.book(use("1", minutes(5), legacy_status="processed", legacy_total=170))
    assert shelf.freeze()[0].intents == 0
    assert shelf.events() == {"1": ("processed", None, None)}


def test_excluded_usage_is_never_taken(shelf):
    shelf.book(use("1", minutes(5), environment="sdk-experiment"))
    assert (shelf.freeze()[0].intents, shelf.statuses()) == (0, {"1": "excluded"})


def test_usage_without_a_customer_is_held_once_and_counted_as_held_ever_after(shelf):
    shelf.book(use("1", minutes(5), customer=None))
    frozen, _, held = shelf.freeze()
    assert (frozen.newly_held, held) == (1, 1)
    frozen, _, held = shelf.freeze()
    assert (frozen.newly_held, held) == (0, 1)
    assert shelf.rows("SELECT cause, actor FROM holds") == [("no_customer", "push")]


def test_usage_held_for_want_of_a_customer_is_let_go_when_it_names_one(shelf):
    shelf.book(use("1", minutes(5), customer=None))
    shelf.freeze()
    shelf.book(use("1", minutes(5), customer="cus_a"))
    frozen, fresh, held = shelf.freeze()
    assert (frozen.intents, held, fresh[0]["value"]) == (1, 0, 150)


def test_pending_usage_a_rule_holds_becomes_an_error_in_words(shelf):
    shelf.book(use("old", NOW - timedelta(days=40)))
    frozen, _, held = shelf.freeze()
    assert (frozen.newly_held, held) == (1, 1)
    (status, error, intent) = shelf.events()["old"]
    assert (status, intent) == ("error", None)
    assert error == "older than 35 days: Stripe no longer accepts usage of 2026-10-11T12:00:00Z"


def test_of_sent_usage_only_the_correction_is_held(shelf):
    shelf.book(use("1", minutes(5)))
    shelf.sent()
    shelf.book(use("1", NOW - timedelta(days=40), "170"))
    frozen, _, held = shelf.freeze()
    assert (frozen.newly_held, held) == (1, 1)
    status, error, _ = shelf.events()["1"]
    assert (status, error[:18]) == ("processed", "older than 35 days")


def test_a_fraction_is_marked_as_carried_until_it_is_sent(shelf):
    shelf.book(use("1", minutes(5), "0.5"))
    shelf.freeze()
    assert shelf.rows("SELECT sync_status, marks FROM events") == [("pending", "carried")]
    shelf.book(use("2", minutes(70), "0.75"))
    shelf.sent()
    assert shelf.rows("SELECT sync_status, marks FROM events ORDER BY id") == [("processed", ""), ("processed", "")]


# ── corrections ──────────────────────────────────────────────────────────────────────────────────


def test_changed_usage_gets_a_second_intent_with_the_difference_and_the_first_stays(shelf):
    shelf.book(use("1", minutes(5), "150"))
    shelf.sent()
    shelf.book(use("1", minutes(5), "170"))
    shelf.sent()
    assert shelf.intents("revision", "value", "state") == [(1, 150, "accepted"), (2, 20, "accepted")]
    assert shelf.events() == {"1": ("processed", None, 1)}


def test_usage_that_changed_its_customer_shows_the_intent_of_the_customer_it_has_now(shelf):
    shelf.book(use("1", minutes(5), "150"))
    shelf.sent()
    shelf.book(use("1", minutes(5), "150", customer="cus_b"))
    shelf.freeze()
    assert shelf.intents("customer_id", "value") == [("cus_a", 150), ("cus_a", -150), ("cus_b", 150)]
    assert shelf.events() == {"1": ("sending", None, 2)}


@pytest.mark.parametrize("state", ["accepted", "rejected"])
@pytest.mark.parametrize("granularity", list(Granularity))
def test_usage_that_now_begins_later_than_when_it_was_sent_gets_identifiers_never_used_before(
    shelf, granularity, state
):
    shelf.book(use("1", minutes(5), "150"))
    _, fresh, _ = shelf.freeze(granularity)
    shelf.answer(state, fresh[0]["identifier"])
    shelf.book(use("1", minutes(95), "20", customer="cus_b"))
    shelf.freeze(granularity)
    shelf.book(use("1", minutes(95), "30", customer="cus_a"))
    shelf.freeze(granularity)
    identifiers = [row[0] for row in shelf.intents("identifier")]
    assert len(set(identifiers)) == len(identifiers) > 2


def test_credits_given_back_in_an_hour_with_several_revisions_are_its_next_revision(shelf):
    shelf.book(use("1", minutes(5)))
    shelf.sent()
    shelf.book(use("late", minutes(30), "20"))
    shelf.sent()
    shelf.book(use("1", minutes(95), customer="cus_b"))
    shelf.freeze()
    assert shelf.intents("customer_id", "source", "revision", "value") == [
        ("cus_a", "hour:2026-11-20T10:00:00Z", 1, 150),
        ("cus_a", "hour:2026-11-20T10:00:00Z", 2, 20),
        ("cus_a", "hour:2026-11-20T10:00:00Z", 3, -150),
        ("cus_b", "hour:2026-11-20T11:00:00Z", 1, 150),
    ]


def test_late_usage_of_a_sent_hour_is_revision_2_of_that_hour(shelf):
    shelf.book(use("1", minutes(5)), use("other hour", minutes(65)))
    shelf.sent()
    shelf.book(use("late", minutes(30), "20"))
    shelf.sent()
    assert shelf.intents("source", "revision", "value") == [
        ("hour:2026-11-20T10:00:00Z", 1, 150),
        ("hour:2026-11-20T11:00:00Z", 1, 150),
        ("hour:2026-11-20T10:00:00Z", 2, 20),
    ]


def test_a_fraction_is_carried_from_one_push_to_the_next_and_a_rejected_intent_gives_its_own_back(shelf):
    shelf.book(use("1", minutes(5), "10.6"))
    shelf.sent()
    shelf.book(use("2", minutes(65), "10.6"))
    (second,) = shelf.sent()
    assert shelf.intents("value", "carried_before::VARCHAR") == [(10, "0.000000"), (11, "0.600000")]
    shelf.answer("rejected", second, text="no")
    shelf.book(use("3", minutes(5), "0.5"))
    _, fresh, _ = shelf.freeze()
    assert [row["value"] for row in fresh] == [1]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


def test_that_calls_are_about_to_be_made_is_written_down_before_them(shelf):
    shelf.book(use("1", minutes(5)))
    identifier = shelf.freeze()[1][0]["identifier"]
    shelf.books.mark_attempt([identifier], at=NOW)
    shelf.books.mark_attempt([identifier], at=NOW + timedelta(hours=1))
    names = ("state", "attempts", "first_attempt_at", "last_attempt_at", "unknown_since")
    plain = NOW.replace(tzinfo=None)
    assert shelf.intents(*names) == [("sending", 2, plain, plain + timedelta(hours=1), plain)]


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ("accepted", "processed", None),
        ("confirmed", "confirmed", None),
        ("rejected", "error", "Stripe says no"),
        ("sending", "sending", "Stripe says no"),
        ("open", "sending", "Stripe says no"),
        ("void", "pending", None),
    ],
)
def test_the_status_of_an_event_follows_from_what_became_of_its_intent(shelf, state, status, error):
    shelf.book(use("1", minutes(5)), use("2", minutes(65)))
    first, _ = [row["identifier"] for row in shelf.freeze()[1]]
    shelf.answer(state, first, text="Stripe says no")
    assert shelf.events() == {"1": (status, error, 0), "2": ("sending", None, 1)}
    delivered = state in {"accepted", "confirmed"}
    synced = shelf.rows("SELECT synced_at FROM events WHERE id = '1'")[0][0]
    assert synced == (ANSWERED.replace(tzinfo=None) if delivered else None)


def test_an_answer_about_an_older_intent_does_not_hide_the_newest_one(shelf):
    shelf.book(use("1", minutes(5), "150"))
    (first,) = shelf.sent()
    shelf.book(use("1", minutes(5), "170"))
    shelf.freeze()
    shelf.books.confirm([first], at=ANSWERED, push_id="push-2")
    assert shelf.events() == {"1": ("sending", None, 1)}


def test_an_answer_that_does_not_count_attempts_leaves_the_count_alone(shelf):
    shelf.book(use("1", minutes(5)))
    identifier = shelf.freeze()[1][0]["identifier"]
    shelf.books.mark_attempt([identifier], at=NOW)
    shelf.answer("accepted", identifier, attempts=3)
    shelf.answer("rejected", identifier, text="later")
    assert shelf.intents("state", "attempts", "answer") == [("rejected", 3, "later")]


def test_a_withdrawn_intents_usage_is_planned_anew_under_another_identifier(shelf):
    shelf.book(use("1", minutes(5)))
    (first,) = shelf.sent()
    shelf.answer("void", first)
    second = shelf.sent()
    assert [first] != second
    assert shelf.intents("revision", "value", "state") == [(1, 150, "void"), (2, 150, "accepted")]


def test_a_withdrawn_correction_leaves_what_was_sent_before(shelf):
    shelf.book(use("1", minutes(5), "150"))
    shelf.sent()
    shelf.book(use("1", minutes(5), "170"))
    (second,) = shelf.sent()
    shelf.answer("void", second)
    assert [row["value"] for row in shelf.freeze()[1]] == [20]


def test_usage_that_owes_nothing_more_is_processed_again(shelf):
    shelf.book(use("1", minutes(5), "150"))
    shelf.sent()
    shelf.book(use("1", minutes(5), "170"))
    (second,) = shelf.sent()
    shelf.answer("void", second)
    shelf.book(use("1", minutes(5), "150"))
    assert shelf.freeze()[1] == []
    assert shelf.statuses() == {"1": "processed"}


def test_confirmed_intents_keep_the_time_of_confirmation(shelf):
    shelf.book(use("1", minutes(5)))
    assert shelf.books.confirm(shelf.sent(), at=ANSWERED, push_id="push-1") == 1
    assert shelf.intents("state", "confirmed_at") == [("confirmed", ANSWERED.replace(tzinfo=None))]
    assert shelf.statuses() == {"1": "confirmed"}
    assert shelf.books.confirm([], at=ANSWERED, push_id="push-1") == 0


def test_every_change_people_see_makes_remembered_answers_old(shelf):
    shelf.book(use("1", minutes(5)), use("2", minutes(65)), use("3", minutes(125), customer=None))
    seen = [shelf.ledger.version()]

    def has_grown():
        seen.append(shelf.ledger.version())
        return seen[-1] > seen[-2]

    first, second = [row["identifier"] for row in shelf.freeze()[1]]
    assert has_grown()
    shelf.answer("rejected", first)
    assert has_grown()
    shelf.answer("accepted", second)
    shelf.books.confirm([second], at=ANSWERED, push_id="push-1")
    assert has_grown()
    shelf.books.retry(["1"], actor="ada", now=NOW)
    assert has_grown()
    shelf.books.hold(["1"], reason="wait", actor="ada", now=NOW)
    assert has_grown()
    shelf.books.release(["1"], actor="ada", now=NOW)
    assert has_grown()


# ── what people decide ───────────────────────────────────────────────────────────────────────────


def test_what_is_on_hold_is_not_sent_until_it_is_released(shelf):
    shelf.book(use("1", minutes(5)), use("2", minutes(6)))
    assert shelf.books.hold(["1", "unheard of"], reason="dispute", actor="ada", now=NOW) == 1
    assert shelf.events()["1"] == ("pending", "on hold by ada: dispute", None)
    shelf.sent()
    assert shelf.statuses() == {"1": "pending", "2": "processed"}
    assert shelf.books.release(["1", "2"], actor="ben", now=NOW) == 1
    assert shelf.events()["1"] == ("pending", None, None)
    assert shelf.freeze()[0].intents == 1
    assert shelf.rows("SELECT actor, released_by FROM holds") == [("ada", "ben")]


def test_only_pending_usage_can_be_put_on_hold_and_only_once(shelf):
    shelf.book(use("sent", minutes(5)), use("waiting", minutes(6), "0.5", customer="cus_b"))
    shelf.sent()
    assert shelf.books.hold(["sent", "waiting"], reason="dispute", actor="ada", now=NOW) == 1
    assert shelf.books.hold(["waiting"], reason="again", actor="ada", now=NOW) == 0


def test_a_hold_survives_a_change_of_the_usage(shelf):
    shelf.book(use("1", minutes(5)))
    shelf.books.hold(["1"], reason="dispute", actor="ada", now=NOW)
    shelf.book(use("1", minutes(5), "170"))
    assert (shelf.freeze()[0].intents, shelf.statuses()) == (0, {"1": "pending"})


def test_a_hold_by_rule_is_not_a_persons_to_release(shelf):
    shelf.book(use("1", minutes(5), customer=None))
    shelf.freeze()
    assert shelf.books.release(["1"], actor="ada", now=NOW) == 0


def test_rejected_usage_that_is_retried_is_planned_anew(shelf):
    shelf.book(use("1", minutes(5)), use("fine", minutes(65)))
    first, second = [row["identifier"] for row in shelf.freeze()[1]]
    shelf.answer("rejected", first, text="no such customer")
    shelf.answer("accepted", second)
    assert shelf.freeze()[0].intents == 0
    assert shelf.books.retry(["1", "fine"], actor="ada", now=NOW) == 1
    assert shelf.statuses() == {"1": "pending", "fine": "processed"}
    assert [(row["revision"], row["value"]) for row in shelf.freeze()[1]] == [(2, 150)]


def test_usage_without_a_customer_cannot_be_retried(shelf):
    shelf.book(use("1", minutes(5), customer=None))
    assert (shelf.books.retry(["1"], actor="ada", now=NOW), shelf.statuses()) == (0, {"1": "error"})


def test_rejected_usage_that_changed_is_sent_whole(shelf):
    shelf.book(use("1", minutes(5), customer="cus_typo"))
    (first,) = [row["identifier"] for row in shelf.freeze()[1]]
    shelf.answer("rejected", first)
    shelf.book(use("1", minutes(5), "170"))
    assert [(row["customer_id"], row["value"]) for row in shelf.freeze()[1]] == [("cus_a", 170)]


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def test_open_intents_are_those_whose_end_is_not_known_oldest_first(shelf):
    shelf.book(*(use(str(n), minutes(60 * n)) for n in range(5)))
    identifiers = [row["identifier"] for row in shelf.freeze(settled_before=NOW + timedelta(days=1))[1]]
    for state, identifier in zip(("accepted", "sending", "rejected", "void"), identifiers, strict=False):
        shelf.answer(state, identifier)
    assert shelf.books.open_intents()["identifier"].to_pylist() == [identifiers[1], identifiers[4]]
    assert shelf.books.anything_to_send(NOW)


def test_there_is_nothing_to_send_when_all_is_sent_and_the_rest_unsettled(shelf):
    shelf.book(use("1", minutes(5)))
    shelf.sent()
    shelf.book(use("running", minutes(90), latency_seconds=7200))
    assert not shelf.books.anything_to_send(NOW)


def test_customers_to_confirm_and_to_resolve_come_with_the_span_of_their_intents(shelf):
    shelf.book(*(use(str(n), minutes(60 * n)) for n in (0, 1, 2)), use("b", minutes(5), customer="cus_b"))
    one, two, three, b = [row["identifier"] for row in shelf.freeze(settled_before=NOW + timedelta(days=1))[1]]
    shelf.answer("accepted", one, three)
    shelf.answer("sending", two, unknown_since=NOW - timedelta(hours=21))
    shelf.answer("sending", b, unknown_since=NOW)
    assert shelf.books.unconfirmed_customers() == [("cus_a", TEN, minutes(120))]
    assert shelf.books.unknown_customers(NOW - timedelta(hours=20)) == [("cus_a", minutes(60), minutes(60))]


def test_intents_of_a_time_leave_out_what_counts_for_nothing(shelf):
    shelf.book(*(use(str(n), minutes(60 * n)) for n in range(4)))
    one, two, three, four = [row["identifier"] for row in shelf.freeze(settled_before=NOW + timedelta(days=1))[1]]
    shelf.answer("accepted", one, four)
    shelf.answer("rejected", two)
    shelf.answer("void", three)
    found = shelf.books.intents_at("cus_a", TEN, minutes(180))
    assert [(row["identifier"], row["value"], row["stamp"]) for row in found] == [(one, 150, TEN)]


def test_the_intents_of_an_event_are_told_oldest_first_with_its_own_part(shelf):
    shelf.book(use("1", minutes(5), "150"), use("2", minutes(6), "50"))
    shelf.sent()
    shelf.book(use("1", minutes(5), "170"))
    shelf.sent()
    found = shelf.books.intents_of_event("1")
    assert [(row["value"], str(row["part"])) for row in found] == [(200, "150.000000"), (20, "20.000000")]
    assert found[0]["answered_at"] == ANSWERED


def test_values_states_and_the_list_of_a_push_are_about_the_intents_named(shelf):
    shelf.book(use("1", minutes(5)), use("2", minutes(65), "20"))
    identifiers = shelf.sent()
    assert shelf.books.values_of(identifiers) == 170
    assert shelf.books.values_of([]) == 0
    assert shelf.books.states_of([*identifiers, "not ours"]) == dict.fromkeys(identifiers, "accepted")
    assert shelf.books.identifiers_of("push-1") == sorted(identifiers)
    assert shelf.books.identifiers_of("push-2") == []
