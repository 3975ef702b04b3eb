"""The organization map in the ledger: what a change moves, what stays where it was sent, and what is written down."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.ingest.pull import book_rated
from billing_core.ledger.customer_mapping import MovedEvents, booked_on_a_bill, moved_by
from billing_core.ledger.directory import DirectoryStore, Line, follow, mapped_customers
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.journal import Ledger
from billing_core.ledger.sync import IntentUpdate, SyncStore
from billing_core.rating.events import NO_CUSTOMER, Policy, to_events
from billing_core.settings import Granularity
from billing_core.stripe.intents import PlanningRules, plan
from tests.examples import examples
from tests.factories import CARD, ledger_at, usage_table
from tests.stripe_sync.push_world import use

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=365)
RULES = PlanningRules("credits", "test", Granularity.HOUR, NOW)


class Books:
    """A ledger that is pulled into, pushed from, and whose map is changed."""

    def __init__(self, path, policy=None):
        self.ledger = Ledger(DuckDBEngine(path))
        self.engine = self.ledger.engine
        self.sync = SyncStore(self.engine)
        self.directory = DirectoryStore(self.engine)
        self.policy = policy or Policy()
        self.pushes = 0

    def close(self):
        self.engine.close()

    def pull(self, *rows):
        usage = usage_table(rows)
        return book_rated(self.ledger, usage, [CARD] * len(rows), self.policy, run_id="pull")[1]

    def map(self, organization="org_a", customer="cus_m", name=None, **more):
        lines = {organization: Line(name, customer)}
        seen = {one: row.seq for one, row in self.directory.newest().items()}
        facts = {"policy": self.policy, "actor": "anna", "source": "page", "now": NOW, **more}
        return self.directory.change(lines, seen={organization: 0, **seen}, **facts)

    def freeze(self, *, settled_before=NOW):
        """What a push writes down before it sends; the new intents' identifiers."""
        self.pushes += 1
        push_id = f"push-{self.pushes}"

        def make_plan(found):
            return plan(found.events, found.covered, found.carried, {}, found.revisions, RULES)

        def prepare(writer):
            follow(writer, self.policy, actor="push", run_id=push_id, now=NOW)

        _, intents, _ = self.sync.freeze(
            make_plan, settled_before=settled_before, push_id=push_id, now=NOW, prepare=prepare
        )
        return intents["identifier"].to_pylist()

    def answer(self, state, identifiers):
        answers = [IntentUpdate(identifier, state, NOW, text="No such customer") for identifier in identifiers]
        self.sync.settle(answers, push_id="answers")

    def push(self, state="accepted"):
        self.answer(state, self.freeze())

    def event(self, id_="1"):
        """Customer, flags, status, error."""
        query = "SELECT customer_id, flags, sync_status, sync_error FROM events WHERE id = ?"
        return self.engine.rows(query, [id_])[0]

    def holds(self):
        """Active holds: event → cause."""
        return dict(self.engine.rows("SELECT event_id, cause FROM holds WHERE released_at IS NULL"))

    def billed(self):
        """(event, customer) → credits that intents that count cover."""
        query = """SELECT c.event_id, c.customer_id, sum(c.credits) FROM coverage c JOIN intents i USING (identifier)
                   WHERE i.state NOT IN ('rejected', 'void') GROUP BY ALL HAVING sum(c.credits) <> 0"""
        return {(event, customer): part for event, customer, part in self.engine.rows(query)}


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger_at(path).engine.close()
    made = Books(path)
    yield made
    made.close()


def nobodys(id_="1", amount="150", **facts):
    """A trace of org_a that names no customer."""
    return use(id_, TEN + timedelta(minutes=5), amount, None, **facts)


def under(books, **policy):
    books.policy = Policy(**policy)
    return books


# ── what a change moves ──────────────────────────────────────────────────────────────────────────


def test_events_that_nobody_pays_for_become_billable_as_soon_as_their_organization_is_mapped(books):
    books.pull(nobodys(), nobodys("2"), nobodys("3", organization_id="org_b"), nobodys("4", organization_id=None))
    assert books.event() == (None, "no_customer", "error", NO_CUSTOMER)
    assert books.map() == {"org_a": 2}
    assert books.event() == ("cus_m", "mapped_customer", "pending", None)
    assert books.event("3") == books.event("4") == (None, "no_customer", "error", NO_CUSTOMER)


def test_an_event_whose_trace_names_a_customer_is_none_of_the_maps_business(books):
    books.pull(use("1", TEN, customer="cus_t"))
    assert books.map() == {}
    assert books.event() == ("cus_t", "", "pending", None)


def test_unsent_events_move_with_the_map_and_lose_their_customer_with_it(books):
    books.pull(nobodys())
    books.map(customer="cus_m")
    assert books.map(customer="cus_n") == {"org_a": 1}
    assert books.event() == ("cus_n", "mapped_customer", "pending", None)
    assert books.map(customer=None) == {"org_a": 1}
    assert books.event() == (None, "no_customer", "error", NO_CUSTOMER)


def test_without_an_entry_the_default_customer_pays(books):
    books.pull(nobodys())
    books.map()
    under(books, default_customer_id="cus_d").map(customer=None)
    assert books.event() == ("cus_d", "", "pending", None)


def test_a_default_customer_that_overrides_everything_leaves_the_map_without_effect(books):
    books.pull(nobodys())
    under(books, default_customer_id="cus_d", override_customer_id=True)
    assert books.map() == {}
    assert books.event() == (None, "no_customer", "error", NO_CUSTOMER)


def test_events_worth_nothing_get_their_customer_too_and_are_counted_nowhere(books):
    books.pull(nobodys(environment="sdk-experiment"))
    assert books.map() == {}
    assert books.event() == ("cus_m", "excluded_environment,mapped_customer", "excluded", None)


def test_what_the_earlier_system_billed_stays_as_it_is(books):
    books.pull(nobodys(legacy_status="processed"))
    books.map()
    assert books.event() == (None, "no_customer,legacy_billed", "processed", None)
    assert books.pull(nobodys(legacy_status="processed")).changed == 0


def test_what_failed_in_the_earlier_system_waits_for_a_person_whoever_pays(books):
    books.pull(nobodys(legacy_error="card declined"))
    assert books.event()[3] == f"{NO_CUSTOMER}; the earlier system recorded: card declined"
    books.push()
    assert books.holds() == {"1": "no_customer"}
    books.map()
    assert books.event()[2:] == ("error", "card declined")
    books.push()
    assert books.holds() == {"1": "failed_before"}
    books.map(customer="cus_n")
    assert (books.event()[2:], books.holds()) == (("error", "card declined"), {"1": "failed_before"})
    books.map(customer=None)
    assert (books.event()[2:], books.holds()) == (
        ("error", f"{NO_CUSTOMER}; the earlier system recorded: card declined"),
        {},
    )


def test_what_a_person_retried_stays_retried(books):
    books.pull(nobodys(legacy_error="card declined"))
    books.map()
    books.sync.retry(["1"], actor="ben", now=NOW)
    books.map(customer="cus_n")
    assert books.event()[2:] == ("pending", None)


def test_the_hold_for_want_of_a_customer_ends_with_the_want(books):
    books.pull(nobodys())
    books.push()
    assert books.holds() == {"1": "no_customer"}
    books.map()
    assert books.holds() == {}
    assert books.engine.rows("SELECT released_by FROM holds") == [("anna",)]


def test_what_a_person_keeps_back_stays_kept_back_and_says_so(books):
    books.pull(nobodys())
    books.map()
    books.sync.hold(["1"], reason="under review", actor="ben", now=NOW)
    books.map(customer=None)
    books.map(customer="cus_n")
    assert books.event() == ("cus_n", "mapped_customer", "pending", "on hold by ben: under review")
    assert books.holds() == {"1": "on_hold"}
    assert books.freeze() == []


def test_too_old_for_one_customer_is_looked_at_anew_for_the_next(books):
    books.pull(use("1", NOW - timedelta(days=40), customer=None))
    books.map()
    books.push()
    assert (books.event()[2], books.holds()) == ("error", {"1": "too_old"})
    books.map(customer="cus_n")
    assert (books.event()[2], books.holds()) == ("pending", {})
    books.push()
    assert (books.event()[2], books.holds()) == ("error", {"1": "too_old"})


def test_a_customer_that_stripe_refused_is_corrected_by_the_map(books):
    books.pull(nobodys())
    books.map(customer="cus_wrong")
    books.push("rejected")
    assert books.event()[2] == "error"
    books.map(customer="cus_right")
    assert books.event() == ("cus_right", "mapped_customer", "pending", None)
    books.push()
    assert books.billed() == {("1", "cus_right"): 150}


# ── what is on a bill stays there ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["open", "accepted"])
def test_what_is_on_its_way_or_sent_stays_with_its_customer(books, state):
    books.pull(nobodys())
    books.map()
    sent = books.freeze()
    if state == "accepted":
        books.answer(state, sent)
    before = books.event()
    assert books.map(customer="cus_n") == {}
    assert books.pull(nobodys()).changed == 0
    assert books.event() == before
    assert before[0] == "cus_m"


def test_sent_usage_that_grew_is_corrected_for_the_customer_it_was_sent_to(books):
    books.pull(nobodys())
    books.map()
    books.push()
    books.map(customer=None)
    assert books.pull(nobodys(amount="200")).changed == 1
    assert books.event()[:3] == ("cus_m", "mapped_customer", "processed")
    books.push()
    assert books.billed() == {("1", "cus_m"): 200}


def test_usage_whose_correction_was_rejected_stays_with_the_customer_whose_bill_has_the_rest(books):
    books.pull(nobodys())
    books.map()
    books.push()
    books.pull(nobodys(amount="200"))
    books.push("rejected")
    assert books.event() == ("cus_m", "mapped_customer", "error", "No such customer")
    assert books.map(customer="cus_n") == {}
    assert books.pull(nobodys(amount="210")).changed == 1
    books.push()
    assert books.billed() == {("1", "cus_m"): 210}


def test_usage_sent_to_the_default_customer_does_not_move_when_its_organization_is_mapped(books):
    under(books, default_customer_id="cus_d").pull(nobodys())
    books.push()
    books.map()
    assert books.pull(nobodys()).changed == 0
    assert books.event()[0] == "cus_d"


def test_usage_sent_to_the_customer_its_trace_named_stays_there_when_a_pull_finds_none_named_any_more(books):
    books.pull(use("1", TEN + timedelta(minutes=5), customer="cus_t"))
    books.push()
    books.map()
    assert books.pull(nobodys()).changed == 0
    assert books.event()[:2] == ("cus_t", "")


def test_usage_stays_where_it_was_sent_although_one_reading_named_another_customer_in_between(books):
    books.pull(nobodys())
    books.map()
    books.push()
    books.pull(use("1", TEN + timedelta(minutes=5), "150", "cus_t"))
    books.pull(nobodys())
    assert books.event()[:2] == ("cus_m", "mapped_customer")
    books.push()
    assert books.billed() == {("1", "cus_m"): 150}


@pytest.mark.parametrize("organization", ["org_b", None])
def test_rejected_usage_whose_organization_changed_is_not_billed_to_the_former_ones_customer(books, organization):
    books.pull(nobodys())
    books.map()
    identifiers = books.freeze()
    books.answer("accepted", identifiers)
    books.pull(nobodys(organization_id=organization))
    books.answer("rejected", identifiers)
    books.sync.retry(["1"], actor="ben", now=NOW)
    books.push()
    assert books.billed() == {}
    assert books.event()[:3] == (None, "no_customer", "error")


def test_what_failed_in_the_earlier_system_waits_for_a_person_however_its_organization_is_mapped(books):
    failed = {"legacy_error": "card declined"}
    books.pull(nobodys(organization_id=None, **failed))
    books.push()
    books.map(organization="org_b")
    books.pull(nobodys(organization_id="org_b", **failed))
    books.push()
    assert books.holds() == {"1": "failed_before"}
    books.map(organization="org_b", customer="cus_n")
    books.push()
    assert books.billed() == {}
    assert books.event() == ("cus_n", "mapped_customer", "error", "card declined")


def test_a_fraction_that_moves_to_another_customer_waits_there_anew(books):
    books.pull(nobodys(amount="0.6"))
    books.map()
    books.push()
    assert books.engine.rows("SELECT marks FROM events") == [("carried",)]
    books.map(customer="cus_n")
    assert books.engine.rows("SELECT marks FROM events") == [("",)]


def test_unsent_usage_of_the_default_customer_moves_when_it_is_read_again(books):
    under(books, default_customer_id="cus_d").pull(nobodys())
    assert books.map() == {}
    assert books.pull(nobodys()).changed == 1
    assert books.event() == ("cus_m", "mapped_customer", "pending", None)


def test_a_trace_that_names_a_customer_by_now_is_billed_to_that_one_even_after_sending(books):
    books.pull(nobodys())
    books.map()
    books.push()
    books.pull(use("1", TEN + timedelta(minutes=5), customer="cus_t"))
    books.push()
    assert books.billed() == {("1", "cus_t"): 150}


@pytest.mark.parametrize("state", ["rejected", "void"])
def test_what_comes_back_unsent_after_a_change_follows_the_map_with_the_next_push(books, state):
    books.pull(nobodys())
    books.map(customer="cus_m")
    written = books.freeze()
    books.map(customer="cus_n")
    books.answer(state, written)
    books.push()
    books.sync.retry(["1"], actor="ben", now=NOW)
    books.push()
    assert books.billed() == {("1", "cus_n"): 150}


def test_a_pull_that_began_before_a_change_books_by_the_map_as_it_is_by_now(books):
    pulling = Policy(customers={"org_a": "cus_before"})
    books.map(customer="cus_m")
    book_rated(books.ledger, usage_table([nobodys()]), [CARD], pulling, run_id="pull")
    assert books.event()[0] == "cus_m"


def test_only_traces_that_name_no_customer_are_looked_up():
    def asked(*_):
        raise AssertionError("no look-up is needed")

    assert booked_on_a_bill(asked, usage_table([use("1", TEN, customer="cus_t")])) == {}


# ── what is written down ─────────────────────────────────────────────────────────────────────────


def test_a_moved_event_keeps_what_it_was_as_a_revision_and_its_credits(books):
    books.pull(nobodys())
    before = books.ledger.version()
    books.map()
    kept = books.engine.rows(
        "SELECT customer_id, flags, credits_total, revision, changed_columns, superseded_seq FROM event_revisions"
    )
    assert kept == [(None, "no_customer", Decimal(150), 1, "customer_id,flags", before + 1)]
    query = "SELECT customer_id, credits_total, revision, seq, run_id FROM events"
    assert books.engine.rows(query) == [("cus_m", Decimal(150), 2, before + 1, "organization map by anna")]
    booking = books.engine.rows("SELECT events_new, events_changed FROM bookings WHERE seq = ?", [before + 1])
    assert booking == [(0, 1)]


def test_every_change_is_in_the_audit_chain_with_old_new_and_what_it_moved(books):
    books.pull(nobodys())
    books.map(customer="cus_m", name="Acme")
    books.map(customer="cus_n", name="Acme", source="import", file_sha256="ab12")
    newest, first = books.ledger.audit_entries(2)
    assert (first["actor"], first["action"]) == ("anna", "organization map")
    assert json.loads(first["detail"]) == {
        "source": "page",
        "changes": [
            {"organization": "org_a", "name": [None, "Acme"], "customer_id": [None, "cus_m"], "events_moved": 1}
        ],
    }
    assert json.loads(newest["detail"]) == {
        "source": "import",
        "sha256": "ab12",
        "changes": [{"organization": "org_a", "customer_id": ["cus_m", "cus_n"], "events_moved": 1}],
    }
    assert newest["previous_hash"] == first["hash"]


def test_a_name_alone_moves_nothing_but_is_seen_at_once(books):
    books.pull(nobodys())
    before = books.ledger.version()
    assert books.map(customer=None, name="Acme") == {}
    assert books.ledger.version() > before
    assert books.event() == (None, "no_customer", "error", NO_CUSTOMER)


def test_the_newest_line_of_an_organization_counts_and_an_empty_one_is_none(books):
    books.map(name="Acme", customer="cus_m")
    books.map(name="Acme Ltd", customer=None)
    books.map("org_b", "cus_b")
    assert {one: row.after for one, row in books.directory.newest().items()} == {
        "org_a": Line("Acme Ltd", None),
        "org_b": Line(None, "cus_b"),
    }
    assert mapped_customers(books.engine.rows) == {"org_b": "cus_b"}
    history = books.directory.history(limit=10)
    assert [(row.organization_id, row.before, row.after) for row in history] == [
        ("org_b", Line(), Line(None, "cus_b")),
        ("org_a", Line("Acme", "cus_m"), Line("Acme Ltd", None)),
        ("org_a", Line(), Line("Acme", "cus_m")),
    ]
    assert (history[0].changed_by, history[0].changed_at, history[0].source) == ("anna", NOW, "page")
    assert [row.organization_id for row in books.directory.history(limit=10, organizations=["org_b"])] == ["org_b"]


def test_a_line_somebody_changed_meanwhile_is_not_written_over(books):
    books.map(customer="cus_m")
    with pytest.raises(BadParameter, match=r"org_a.*anna changed it since: preview again"):
        books.directory.change(
            {"org_b": Line(None, "cus_b"), "org_a": Line(None, "cus_n")},
            seen={"org_a": 0, "org_b": 0},
            policy=Policy(),
            actor="ben",
            source="page",
            now=NOW,
        )
    assert mapped_customers(books.engine.rows) == {"org_a": "cus_m"}


def test_many_changes_are_audited_in_portions(books):
    lines = {f"org_{number}": Line(f"Name {number}") for number in range(1_001)}
    books.directory.change(
        lines, seen=dict.fromkeys(lines, 0), policy=Policy(), actor="anna", source="import", now=NOW, file_sha256="ab"
    )
    entries = [entry for entry in books.ledger.audit_entries() if entry["action"] == "organization map"]
    assert [len(json.loads(entry["detail"])["changes"]) for entry in entries] == [1, 500, 500]


def test_what_a_change_would_move_is_known_before_it_is_made(books):
    books.pull(
        nobodys(),
        use("2", NOW - timedelta(days=40), "20.5", None),
        nobodys("3", environment="sdk-experiment"),
        use("4", TEN, customer="cus_t"),
    )
    found = moved_by(books.engine.rows, {"org_a": "cus_m"}, Policy(), old_before=NOW - timedelta(days=35))
    assert found == {"org_a": MovedEvents(2, Decimal("170.5"), Decimal("0.00682"), 1)}
    assert books.map() == {"org_a": 2}


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────

TRACES = (
    nobodys("plain", "150"),
    nobodys("small", "0.4"),
    nobodys("other", "33.5", organization_id="org_b"),
    nobodys("own", "12", legacy_error="card declined"),
    nobodys("test", environment="sdk-experiment"),
    nobodys("legacy", legacy_status="processed"),
    use("named", TEN + timedelta(minutes=5), "7", "cus_t"),
    nobodys("homeless", organization_id=None),
)
STEPS = st.one_of(
    st.tuples(st.just("map"), st.sampled_from(["org_a", "org_b"]), st.sampled_from(["cus_m", "cus_n", "cus_t", None])),
    st.tuples(st.just("pull"), st.sets(st.integers(0, len(TRACES) - 1), min_size=1)),
    st.tuples(st.just("push"), st.sampled_from(["accepted", "accepted", "rejected", "void", "open"])),
    st.just(("retry",)),
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("directory") / "empty.duckdb"
    ledger_at(path).engine.close()
    return path


@pytest.mark.slow
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=9), default=st.sampled_from([None, None, "cus_d"]))
@example(  # came back after two changes of the map
    steps=[("map", "org_a", "cus_m"), ("push", "open"), ("map", "org_a", "cus_n"), ("push", "void")], default=None
)
def test_whatever_happens_unsent_events_are_what_a_fresh_rating_makes_of_them(empty, tmp_path, steps, default):
    path = tmp_path / "billing.duckdb"
    path.unlink(missing_ok=True)
    shutil.copyfile(empty, path)
    books = Books(path, Policy(default_customer_id=default))
    try:
        books.pull(*TRACES)
        on_bills: dict[tuple[str, str], Decimal] = {}
        for name, *how in steps:
            match name:
                case "map":
                    books.map(*how)
                case "pull":
                    books.pull(*(TRACES[number] for number in sorted(how[0])))
                case "push":
                    books.freeze()
                    if how[0] != "open":  # an earlier push may have left some open
                        books.answer(how[0], books.sync.open_intents()["identifier"].to_pylist())
                case "retry":
                    books.sync.retry([row["id"] for row in TRACES], actor="ben", now=NOW)
            present = books.billed()
            if name in {"map", "pull"}:
                assert present == on_bills, "something moved from one bill to another"
            on_bills = present
        check_books(books)
    finally:
        books.close()


def check_books(books):
    """Sent once and to one customer; unsent events as a fresh rating under the map as it is by now."""
    if books.policy.default_customer_id is not None:  # its unsent events follow the map when they are read again
        books.pull(*TRACES)
    books.freeze(settled_before=LONG_AGO)
    policy = Policy(books.policy.default_customer_id, customers=mapped_customers(books.engine.rows))
    fresh = {row["id"]: row for row in to_events(usage_table(TRACES), [CARD] * len(TRACES), policy).to_pylist()}
    billed = books.billed()
    query = "SELECT id, customer_id, flags, credits_total, sync_status, meter_event_identifier FROM events"
    for id_, customer, flags, credits_total, status, identifier in books.engine.rows(query):
        rated = fresh[id_]
        assert credits_total == rated["credits_total"]
        on_bill = {c: part for (event, c), part in billed.items() if event == id_}
        if on_bill:
            assert on_bill == {customer: credits_total}
        elif status not in {"sending", "processed", "confirmed"}:
            assert (customer, flags) == (rated["customer_id"], ",".join(rated["flags"]))
            was_tried = identifier is not None or id_ == "own"  # rejected, or retried by a person
            assert status == rated["sync_status"] or was_tried
