"""Which meter events are written down for what is owed: whole credits, true times, nothing rounded up, nothing lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from billing_core.settings import Granularity
from billing_core.stripe import intents
from billing_core.stripe.intents import CANDIDATES, COVERED, Hold, PlanningRules, identifier_of
from billing_core.types import plain_decimal
from tests.examples import examples

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR, EVENT = Granularity.HOUR, Granularity.EVENT


def at(text):
    """`20 10:30` is 2026-11-20 10:30 UTC."""
    return datetime.fromisoformat(f"2026-11-{text.replace(' ', 'T')}+00:00")


def rules(granularity=HOUR, **changes):
    return PlanningRules(
        **{"event_name": "credits", "environment": "test", "granularity": granularity, "now": NOW, **changes}
    )


def usage(id_, time, amount, customer="cus_a", status="pending", marks=""):
    return {
        "id": id_,
        "customer_id": customer,
        "timestamp": at(time).replace(tzinfo=None),
        "sync_status": status,
        "credits_total": Decimal(amount),
        "marks": marks,
    }


def changed(id_, time, amount, customer="cus_a"):
    """Usage that changed after it was sent."""
    return usage(id_, time, amount, customer, "processed", "changed_after_sending")


def sent(event, amount, stamp, customer="cus_a"):
    """What valid intents cover of an event."""
    stamp = at(stamp).replace(tzinfo=None)
    return {"event_id": event, "customer_id": customer, "credits": Decimal(amount), "stamp": stamp}


class Periods:
    """Billing periods that change at `edges`; usage before `closed_before` can no longer be billed."""

    def __init__(self, *edges, closed_before=None):
        self._edges = [at(edge) for edge in edges]
        self._closed_before = None if closed_before is None else at(closed_before)

    def edges(self, start, end):
        return tuple(edge for edge in self._edges if start < edge < end)

    def closed(self, time):
        return "its invoice is final" if self._closed_before and time < self._closed_before else None


def plan(*rows, covered=(), carried=None, calendars=None, revisions=None, rule=None):
    return intents.plan(
        pa.Table.from_pylist(list(rows), schema=CANDIDATES),
        pa.Table.from_pylist(list(covered), schema=COVERED),
        {} if carried is None else {c: Decimal(rest) for c, rest in carried.items()},
        calendars or {},
        revisions or {},
        rule or rules(),
    )


def meter_events(found):
    """(customer, stamp, whole credits) of every intent, in order."""
    return [(row["customer_id"], f"{row['stamp']:%d %H:%M:%S}", row["value"]) for row in found.intents.to_pylist()]


def covers(found):
    """(event, customer, credits) of the intents' coverage."""
    return [(row["event_id"], row["customer_id"], plain_decimal(row["credits"])) for row in found.coverage.to_pylist()]


# ── write-offs ───────────────────────────────────────────────────────────────────────────────────


def lifted(event, written_off, amount="0", customer="cus_a"):
    """What was written off of an event, beside what is covered."""
    return {**sent(event, amount, "20 10:00", customer), "written_off": Decimal(written_off)}


def test_what_was_written_off_is_owed_no_more_and_a_later_change_owes_its_difference():
    assert plan(usage("1", "20 10:05", "150"), covered=[lifted("1", "150")]).complete == ["1"]
    assert covers(plan(usage("1", "20 10:05", "170"), covered=[lifted("1", "150")])) == [("1", "cus_a", "20")]
    assert covers(plan(changed("1", "20 10:05", "90"), covered=[lifted("1", "50", "100")])) == [("1", "cus_a", "-10")]


@profile(max_examples=examples(60), deadline=None)
@given(*[st.integers(-2000, 2000)] * 2, st.integers(0, 2000))
def test_a_write_off_takes_what_is_owed_at_most_and_never_turns_it_round(paid, written_off, used):
    rows, _ = intents.owed(
        pa.Table.from_pylist([changed("1", "20 10:05", used)], schema=CANDIDATES),
        pa.Table.from_pylist([lifted("1", written_off, paid)], schema=COVERED),
    )
    left = Decimal(sum(rows["delta"].to_pylist())) / 10**6
    before = used - paid
    assert min(before, 0) <= left <= max(before, 0)
    assert left == before or (left == 0) or before - left == written_off


# ── buckets ──────────────────────────────────────────────────────────────────────────────────────


def test_by_hour_one_meter_event_carries_a_customers_credits_of_one_utc_hour():
    found = plan(
        usage("1", "20 10:05", "150"),
        usage("2", "20 10:59:59.999999", "50"),
        usage("3", "20 11:00", "7"),
        usage("4", "20 10:30", "20", customer="cus_b"),
    )
    assert meter_events(found) == [
        ("cus_a", "20 10:00:00", 200),
        ("cus_a", "20 11:00:00", 7),
        ("cus_b", "20 10:00:00", 20),
    ]
    assert found.intents["events"].to_pylist() == [2, 1, 1]
    assert found.intents["source"].to_pylist()[:2] == ["hour:2026-11-20T10:00:00Z", "hour:2026-11-20T11:00:00Z"]


def test_by_event_every_usage_event_is_a_meter_event_of_its_own_second():
    found = plan(
        usage("1", "20 10:05:07.9", "150"),
        usage("2", "20 10:05:07.9", "50"),
        usage("3", "20 11:00", "7"),
        rule=rules(EVENT),
    )
    assert meter_events(found) == [
        ("cus_a", "20 10:05:07", 150),
        ("cus_a", "20 10:05:07", 50),
        ("cus_a", "20 11:00:00", 7),
    ]
    assert found.intents["source"].to_pylist() == ["event:1", "event:2", "event:3"]


def test_an_hour_is_split_where_a_billing_period_begins_inside_it():
    found = plan(
        usage("before", "20 10:05", "150"),
        usage("after", "20 10:40", "50"),
        usage("next hour", "20 11:05", "7"),
        calendars={"cus_a": Periods("20 10:17:05")},
    )
    assert meter_events(found) == [
        ("cus_a", "20 10:00:00", 150),
        ("cus_a", "20 10:17:05", 50),
        ("cus_a", "20 11:00:00", 7),
    ]


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        ("20 10:17:04.999999", "20 10:00:00"),
        ("20 10:17:05", "20 10:17:05"),
        ("20 10:17:05.000001", "20 10:17:05"),
        ("20 10:59", "20 10:17:05"),
    ],
)
def test_usage_exactly_at_the_edge_belongs_to_the_next_period_even_when_it_is_all_there_is(time, stamp):
    found = plan(usage("1", time, "150"), calendars={"cus_a": Periods("20 10:17:05")})
    assert meter_events(found) == [("cus_a", stamp, 150)]


def test_two_edges_in_one_hour_make_three_meter_events():
    found = plan(
        *(usage(minute, f"20 10:{minute}", "10") for minute in ("05", "20", "50")),
        calendars={"cus_a": Periods("20 10:15", "20 10:45")},
    )
    assert meter_events(found) == [
        ("cus_a", "20 10:00:00", 10),
        ("cus_a", "20 10:15:00", 10),
        ("cus_a", "20 10:45:00", 10),
    ]


def test_another_customers_period_splits_nothing():
    found = plan(usage("1", "20 10:05", "150"), usage("2", "20 10:40", "50"), calendars={"cus_b": Periods("20 10:17")})
    assert meter_events(found) == [("cus_a", "20 10:00:00", 200)]


# ── fractions ────────────────────────────────────────────────────────────────────────────────────


def test_fractions_are_carried_across_hours_and_days_and_never_rounded_up():
    found = plan(usage("1", "18 10:05", "10.4"), usage("2", "19 23:59", "10.4"), usage("3", "20 10:05", "10.4"))
    assert [value for _, _, value in meter_events(found)] == [10, 10, 11]
    assert [str(before) for before in found.intents["carried_before"].to_pylist()] == [
        "0.000000",
        "0.400000",
        "0.800000",
    ]


def test_fractions_are_carried_from_one_run_to_the_next():
    found = plan(usage("4", "20 11:05", "10.9"), carried={"cus_a": "0.2", "cus_b": "0.9"})
    assert meter_events(found) == [("cus_a", "20 11:00:00", 11)]
    assert found.intents["carried_before"].to_pylist() == [Decimal("0.2")]


def test_less_than_a_whole_credit_waits_as_carried():
    found = plan(usage("1", "20 10:05", "0.5"), usage("2", "20 11:05", "0.4"))
    assert (meter_events(found), found.carried) == ([], ["1", "2"])


def test_what_waited_is_covered_by_the_meter_event_that_completes_a_credit():
    found = plan(
        usage("1", "20 09:05", "0.5", marks="carried"),
        usage("2", "20 10:05", "0.4"),
        usage("3", "20 11:05", "0.2"),
        usage("4", "20 11:06", "3"),
    )
    assert meter_events(found) == [("cus_a", "20 11:00:00", 4)]
    assert covers(found) == [
        (id_, "cus_a", amount) for id_, amount in zip("1234", ("0.5", "0.4", "0.2", "3"), strict=True)
    ]
    assert found.carried == []


def test_a_fraction_behind_the_last_whole_credit_is_part_of_that_meter_event_and_carried_by_it():
    found = plan(usage("1", "20 10:05", "1.5"), usage("2", "20 11:05", "0.25"))
    assert meter_events(found) == [("cus_a", "20 10:00:00", 1)]
    assert (covers(found), found.carried) == ([("1", "cus_a", "1.5")], ["2"])


def test_a_rest_below_zero_is_made_up_for_before_more_is_sent():
    """An intent was rejected after its neighbour had used its fraction: -0.4 is owed to the customer."""
    found = plan(usage("1", "20 10:05", "0.3"), usage("2", "20 11:05", "5.2"), carried={"cus_a": "-0.4"})
    assert meter_events(found) == [("cus_a", "20 11:00:00", 5)]
    assert found.intents["carried_before"].to_pylist() == [Decimal("-0.4")]


def test_every_intents_credits_are_the_sum_of_its_coverage():
    found = plan(*(usage(str(n), f"20 10:{n:02}", "0.37") for n in range(10)), usage("x", "20 11:30", "0.2"))
    (row,) = found.intents.to_pylist()
    assert (row["value"], row["credits"], row["events"]) == (3, Decimal("3.7"), 10)
    assert sum(found.coverage["credits"].to_pylist()) == Decimal("3.7")
    assert found.carried == ["x"]


# ── corrections ──────────────────────────────────────────────────────────────────────────────────


def test_usage_that_grew_after_sending_owes_the_difference():
    found = plan(changed("1", "20 10:05", "170.5"), covered=[sent("1", "150", "20 10:00")])
    assert meter_events(found) == [("cus_a", "20 10:00:00", 20)]
    assert covers(found) == [("1", "cus_a", "20.5")]


def test_usage_that_shrank_after_sending_gives_credits_back():
    found = plan(changed("1", "20 10:05", "30"), covered=[sent("1", "150", "20 10:00")])
    assert meter_events(found) == [("cus_a", "20 10:00:00", -120)]


def test_a_correction_by_less_than_a_credit_waits_without_the_flag_of_unsent_usage():
    found = plan(changed("1", "20 10:05", "150.4"), covered=[sent("1", "150", "20 10:00")])
    assert (meter_events(found), found.carried) == ([], [])


def test_giving_back_a_fraction_takes_a_whole_credit_back_and_carries_the_rest():
    found = plan(changed("1", "20 10:05", "149.7"), covered=[sent("1", "150", "20 10:00")])
    assert meter_events(found) == [("cus_a", "20 10:00:00", -1)]


def test_a_correction_of_a_sent_hour_is_a_new_revision_with_an_identifier_of_its_own():
    key = ("cus_a", "hour:2026-11-20T10:00:00Z")
    first = plan(usage("1", "20 10:05", "150")).intents.to_pylist()[0]
    second = plan(usage("late", "20 10:50", "20"), revisions={key: 1}).intents.to_pylist()[0]
    assert (first["revision"], second["revision"]) == (1, 2)
    assert first["source"] == second["source"]
    assert first["identifier"] != second["identifier"]
    assert second["value"] == 20


def test_usage_that_changed_its_customer_is_taken_from_the_one_and_given_to_the_other():
    found = plan(changed("1", "20 10:05", "150", customer="cus_b"), covered=[sent("1", "150", "20 10:00")])
    assert meter_events(found) == [("cus_a", "20 10:00:00", -150), ("cus_b", "20 10:00:00", 150)]
    assert covers(found) == [("1", "cus_a", "-150"), ("1", "cus_b", "150")]


def test_usage_that_lost_its_customer_is_given_back():
    found = plan(changed("1", "20 10:05", "150", customer=None), covered=[sent("1", "150", "20 10:00")])
    assert meter_events(found) == [("cus_a", "20 10:00:00", -150)]


def test_credits_are_given_back_in_the_hour_they_were_sent_for():
    found = plan(changed("1", "20 11:30", "150", customer="cus_b"), covered=[sent("1", "150", "20 09:00")])
    assert meter_events(found) == [("cus_a", "20 09:00:00", -150), ("cus_b", "20 11:00:00", 150)]


def test_pending_usage_that_is_covered_already_is_complete():
    found = plan(usage("1", "20 10:05", "150"), covered=[sent("1", "150", "20 10:00")])
    assert (meter_events(found), found.complete, found.carried) == ([], ["1"], [])


# ── what may not be sent ─────────────────────────────────────────────────────────────────────────


def test_usage_of_an_hour_older_than_35_days_is_held_with_the_reason():
    now = at("20 12:00") + timedelta(days=35)
    found = plan(usage("old", "20 11:59", "150"), usage("new", "20 12:00", "20"), rule=rules(now=now))
    assert meter_events(found) == [("cus_a", "20 12:00:00", 20)]
    assert found.holds == [
        Hold("old", "too_old", "older than 35 days: Stripe no longer accepts usage of 2026-11-20T11:00:00Z")
    ]


def test_by_event_each_usage_event_is_too_old_by_its_own_second():
    now = at("20 11:30") + timedelta(days=35)
    found = plan(usage("old", "20 11:29:59", "150"), usage("new", "20 11:30", "20"), rule=rules(EVENT, now=now))
    assert meter_events(found) == [("cus_a", "20 11:30:00", 20)]
    assert [hold.event_id for hold in found.holds] == ["old"]


def test_usage_of_a_closed_period_is_held_and_the_rest_goes_on():
    found = plan(
        usage("late", "20 10:05", "150"),
        usage("open", "20 10:20", "20"),
        usage("other", "20 10:05", "7", "cus_b"),
        calendars={"cus_a": Periods("20 10:17", closed_before="20 10:17")},
    )
    assert meter_events(found) == [("cus_a", "20 10:17:00", 20), ("cus_b", "20 10:00:00", 7)]
    assert found.holds == [Hold("late", "closed_period", "its invoice is final")]


def test_a_correction_of_a_closed_period_is_held_too():
    found = plan(
        changed("1", "20 10:05", "170"),
        covered=[sent("1", "150", "20 10:00")],
        calendars={"cus_a": Periods(closed_before="20 11:00")},
    )
    assert (meter_events(found), [hold.cause for hold in found.holds]) == ([], ["closed_period"])


def test_a_fraction_that_waited_in_time_is_carried_on_after_its_period_closed():
    found = plan(
        usage("1", "20 09:05", "0.6", marks="carried"),
        usage("2", "20 11:05", "0.6"),
        calendars={"cus_a": Periods("20 10:00", closed_before="20 10:00")},
    )
    assert (meter_events(found), found.holds) == ([("cus_a", "20 11:00:00", 1)], [])


def test_waiting_fractions_that_grew_to_whole_credits_are_new_usage_of_a_closed_period():
    found = plan(
        usage("1", "20 09:05", "500.6", marks="carried"), calendars={"cus_a": Periods(closed_before="20 10:00")}
    )
    assert (meter_events(found), [hold.cause for hold in found.holds]) == ([], ["closed_period"])


def test_usage_without_a_customer_is_never_planned():
    found = plan(usage("1", "20 10:05", "150", customer=None))
    assert (meter_events(found), found.holds, found.carried) == ([], [], [])


def test_no_usage_makes_no_plan():
    found = plan()
    assert (found.intents.num_rows, found.coverage.num_rows, found.holds) == (0, 0, [])


# ── identifiers ──────────────────────────────────────────────────────────────────────────────────


def test_the_same_fact_has_the_same_identifier_whoever_computes_it_and_whenever():
    a = plan(usage("1", "20 10:05", "150")).intents.to_pylist()[0]
    later = rules(now=NOW + timedelta(hours=9))
    b = plan(usage("1", "20 10:05", "150"), rule=later).intents.to_pylist()[0]
    assert a == b
    # Frozen for ever: another one would make Stripe count twice what it has already.
    assert a["identifier"] == "usage_74b2ce0ab21aae719acec7d650fe508f0da17ae9e347f38afe49718d6668107d"


@pytest.mark.parametrize(
    "other",
    [
        (rules(environment="live"), "cus_a", "hour:2026-11-20T10:00:00Z", 1),
        (rules(event_name="tokens"), "cus_a", "hour:2026-11-20T10:00:00Z", 1),
        (rules(), "cus_b", "hour:2026-11-20T10:00:00Z", 1),
        (rules(), "cus_a", "hour:2026-11-20T11:00:00Z", 1),
        (rules(), "cus_a", "hour:2026-11-20T10:00:00Z", 2),
    ],
    ids=["environment", "event name", "customer", "hour", "revision"],
)
def test_an_identifier_tells_apart_everything_that_makes_a_fact(other):
    assert identifier_of(*other) != identifier_of(rules(), "cus_a", "hour:2026-11-20T10:00:00Z", 1)


@pytest.mark.parametrize("customer", ["cus_a", "c" * 5_000, "cus_ü ☃"])
def test_an_identifier_fits_stripes_hundred_characters_whatever_goes_in(customer):
    found = identifier_of(rules(event_name="n" * 100), customer, "event:" + "x" * 500, 10**9)
    assert (len(found), found.isascii()) == (70, True)


# ── what holds for any usage ─────────────────────────────────────────────────────────────────────

CREDITS = st.decimals(min_value=0, max_value=3, places=6, allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.tuples(st.integers(0, 72 * 60), st.sampled_from(["cus_a", "cus_b"]), CREDITS, st.integers(0, 3)), max_size=24
)
GRANULARITIES = st.sampled_from([HOUR, EVENT])
NEAR_EDGES = st.integers(500, 520) | st.integers(1435, 1445) | st.integers(3490, 3505)
"""Minutes since the 17th, around 08:30:15, midnight and, two days later, 10:17:05."""


class Books:
    """What the ledger keeps between runs, in its simplest form."""

    def __init__(self, granularity):
        self.rule = rules(granularity)
        self.now = {}
        self.status = {}
        self.intents = []
        self.coverage = []

    def run(self):
        held = {}
        for row in self.coverage:
            stamp = next(i["stamp"] for i in self.intents if i["identifier"] == row["identifier"])
            key = row["event_id"], row["customer_id"]
            amount, newest = held.get(key, (Decimal(0), stamp))
            held[key] = amount + row["credits"], max(newest, stamp)
        rows = [
            {**row, "sync_status": self.status[id_], "marks": "changed_after_sending"} for id_, row in self.now.items()
        ]
        covered = [
            {"event_id": e, "customer_id": c, "credits": amount, "stamp": stamp}
            for (e, c), (amount, stamp) in held.items()
        ]
        revisions = {}
        for row in self.intents:
            key = row["customer_id"], row["source"]
            revisions[key] = max(revisions.get(key, 0), row["revision"])
        carried = {c: self.covered(c) - self.sent(c) for c in ("cus_a", "cus_b")}
        found = plan(*rows, covered=covered, carried=carried, revisions=revisions, rule=self.rule)
        self.intents += found.intents.to_pylist()
        self.coverage += found.coverage.to_pylist()
        self.status.update(dict.fromkeys(found.coverage["event_id"].to_pylist(), "processed"))
        return found

    def use(self, id_, minutes, customer, amount):
        row = usage(id_, "17 00:00", "0", customer)
        row["timestamp"] += timedelta(minutes=minutes)
        self.now[id_] = {**row, "credits_total": amount}
        self.status.setdefault(id_, "pending")

    def sent(self, customer):
        return sum((row["value"] for row in self.intents if row["customer_id"] == customer), 0)

    def covered(self, customer):
        return sum((row["credits"] for row in self.intents if row["customer_id"] == customer), Decimal(0))

    def owed(self, customer):
        return sum((row["credits_total"] for row in self.now.values() if row["customer_id"] == customer), Decimal(0))


def floor(amount):
    return int(amount.to_integral_value(ROUND_FLOOR))


@profile(max_examples=examples(60))
@given(ROWS, GRANULARITIES)
def test_what_is_sent_is_the_rounded_down_sum_of_what_is_owed_for_any_split_into_runs(rows, granularity):
    books = Books(granularity)
    for turn in range(4):
        for number, (minutes, customer, amount, run) in enumerate(rows):
            if run == turn:
                books.use(f"e{number}", minutes, customer, amount)
        books.run()
        for customer in ("cus_a", "cus_b"):
            assert books.sent(customer) == floor(books.owed(customer))
    identifiers = [row["identifier"] for row in books.intents]
    assert len(set(identifiers)) == len(identifiers)
    assert 0 not in [row["value"] for row in books.intents]


@profile(max_examples=examples(60))
@given(ROWS, st.lists(st.tuples(st.integers(0, 23), CREDITS, st.sampled_from(["cus_a", "cus_b"]))), GRANULARITIES)
def test_sent_never_exceeds_owed_and_is_short_by_less_than_a_credit_however_usage_changes(rows, changes, granularity):
    books = Books(granularity)
    for number, (minutes, customer, amount, _) in enumerate(rows):
        books.use(f"e{number}", minutes, customer, amount)
    books.run()
    for number, amount, customer in changes:
        if f"e{number}" in books.now:
            books.use(f"e{number}", rows[number][0], customer, amount)
            books.run()
    for customer in ("cus_a", "cus_b"):
        assert 0 <= books.owed(customer) - books.sent(customer) < 1


@profile(max_examples=examples(40))
@given(ROWS, GRANULARITIES, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, granularity, chance):
    given_rows = []
    for number, (minutes, customer, amount, _) in enumerate(rows):
        row = usage(f"e{number}", "17 00:00", "0", customer)
        given_rows.append({**row, "timestamp": row["timestamp"] + timedelta(minutes=minutes), "credits_total": amount})
    calendars = {"cus_a": Periods("18 10:17:05", closed_before="17 06:00")}
    found = plan(*given_rows, calendars=calendars, rule=rules(granularity))
    chance.shuffle(given_rows)
    again = plan(*given_rows, calendars=calendars, rule=rules(granularity))
    assert again.intents.equals(found.intents)
    assert again.coverage.equals(found.coverage)
    assert (again.carried, again.holds) == (found.carried, found.holds)


@profile(max_examples=examples(40))
@given(st.lists(st.tuples(NEAR_EDGES, st.sampled_from(["cus_a", "cus_b"]), CREDITS), min_size=1, max_size=8))
def test_by_hour_no_meter_event_straddles_a_period_or_leaves_its_hour(rows):
    given_rows = []
    for number, (minutes, customer, amount) in enumerate(rows):
        row = usage(f"e{number}", "17 00:00", "0", customer)
        given_rows.append(
            {**row, "timestamp": row["timestamp"] + timedelta(minutes=minutes), "credits_total": amount + 1}
        )
    edges = [at("17 08:30:15"), at("18 00:00"), at("19 10:17:05")]
    found = plan(
        *given_rows, calendars={c: Periods("17 08:30:15", "18 00:00", "19 10:17:05") for c in ("cus_a", "cus_b")}
    )
    times = {row["id"]: row["timestamp"].replace(tzinfo=UTC) for row in given_rows}
    stamps = {row["identifier"]: row["stamp"].replace(tzinfo=UTC) for row in found.intents.to_pylist()}
    for row in found.coverage.to_pylist():
        time, stamp = times[row["event_id"]], stamps[row["identifier"]]
        assert stamp <= time
        assert time - stamp < timedelta(hours=1)
        assert stamp.replace(minute=0, second=0) == time.replace(minute=0, second=0)
        assert not any(stamp < edge <= time for edge in edges)


def test_by_hour_a_customers_meter_events_follow_each_other_in_time():
    found = plan(*(usage(str(n), f"20 {n % 10:02}:30", "2") for n in range(30)))
    stamps = found.intents["stamp"].to_pylist()
    assert all(earlier < later for earlier, later in pairwise(stamps))
