"""What holds for whatever books: differences add up, errors never cancel, the order of rows is nobody's business."""

from dataclasses import replace
from decimal import Decimal
from random import Random

import pyarrow as pa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from billing_core.reconcile.compare import compare
from billing_core.reconcile.report import ComparisonStep, CustomerDay, Reconciliation, added, waterfall
from tests.examples import examples
from tests.reconcile.literal import NOW, WINDOW, books, counted, meter_event, usage

few = settings(max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow])

CUSTOMERS = ("cus_a", "cus_b")
MILLIONTH = Decimal("0.000001")
amounts = st.integers(0, 40_000_000).map(lambda n: str(n * MILLIONTH))
signed = st.integers(-40_000_000, 40_000_000).map(lambda n: str(n * MILLIONTH))
hours = st.integers(-2, 50)
STATES = ("open", "sending", "accepted", "confirmed", "rejected", "void")


@st.composite
def any_books(draw):
    """Books that no program would write: coverage of ghosts, wrong sums, statuses that contradict everything."""
    ids = [f"e{n}" for n in range(draw(st.integers(0, 6)))]

    def event(event_id):
        return usage(
            event_id,
            draw(amounts),
            draw(st.sampled_from([*CUSTOMERS, None])),
            draw(hours) + draw(st.sampled_from([0, 0.5])),
            sync_status=draw(st.sampled_from(["pending", "sending", "processed", "confirmed", "error", "excluded"])),
            flags=draw(st.sampled_from(["", "legacy_billed", "unpriced", "no_customer"])),
            marks=draw(st.sampled_from(["", "carried", "changed_after_sending", "changed_after_sending,carried"])),
        )

    def intent(identifier):
        covers = draw(st.dictionaries(st.sampled_from([*ids, "ghost"]), signed, max_size=3))
        facts = meter_event(
            identifier,
            draw(st.integers(-50, 50)),
            covers,
            draw(st.sampled_from(CUSTOMERS)),
            draw(hours),
            state=draw(st.sampled_from(STATES)),
            carried_before=Decimal(draw(signed)),
        )
        if draw(st.booleans()):
            facts["answered_at"] = NOW.replace(tzinfo=None)
        return facts

    holds = draw(st.dictionaries(st.sampled_from([*ids, "ghost"]), st.sampled_from(["too_old", "on_hold"]), max_size=2))
    counts = st.dictionaries(st.tuples(st.sampled_from([*CUSTOMERS, "cus_x"]), hours), signed, max_size=5)
    return books(
        [event(event_id) for event_id in ids if draw(st.booleans())],
        [intent(f"m{n}") for n in range(draw(st.integers(0, 5)))],
        draw(counts),
        [event(event_id) for event_id in ids if draw(st.booleans())],
        holds,
        stripe_unknown=frozenset(draw(st.sets(st.sampled_from(CUSTOMERS), max_size=1))),
    )


@st.composite
def sound_ledger(draw, *, states=("accepted", "confirmed", "sending", "rejected")):
    """Events and intents as a pusher writes them: rounded down per customer and hour, fractions carried on."""
    events, intents = [], []
    for customer in CUSTOMERS:
        carry, waiting = Decimal(0), {}
        for hour in sorted(draw(st.sets(st.integers(0, 47), max_size=4))):
            state = draw(st.sampled_from(states))
            fresh = {f"{customer}-{hour}-{n}": draw(amounts) for n in range(draw(st.integers(1, 3)))}
            mark = "carried" if carry + sum(map(Decimal, (waiting | fresh).values())) < 1 else ""
            status = {"rejected": "error", "sending": "sending"}.get(state, "processed")
            events += [
                usage(i, a, customer, hour, sync_status="pending" if mark else status, marks=mark)
                for i, a in fresh.items()
            ]
            waiting |= fresh
            covered = sum(map(Decimal, waiting.values()))
            if mark:
                continue
            value = int(carry + covered)
            for event in events:
                if event["id"] in waiting:
                    event |= {"sync_status": status, "marks": ""}
            intents.append(
                meter_event(f"{customer}-{hour}", value, waiting, customer, hour, state=state, carried_before=carry)
            )
            carry, waiting = carry + covered - value, {}
    return events, intents


def step_sum(row: CustomerDay, step: ComparisonStep) -> Decimal:
    return added(part.credits for part in row.parts if part.step is step)


@few
@given(any_books())
def test_the_parts_of_every_row_add_up_to_the_differences_of_its_books(given_books):
    for row in compare(given_books, now=NOW).rows:
        assert step_sum(row, ComparisonStep.LANGFUSE_LEDGER) == row.langfuse_credits - row.ledger_credits
        assert step_sum(row, ComparisonStep.LEDGER_SENT) == row.ledger_credits - row.sent_credits
        if row.stripe_credits is not None:
            assert step_sum(row, ComparisonStep.SENT_STRIPE) == row.sent_credits - row.stripe_credits
            assert added(part.credits for part in row.parts) == row.langfuse_credits - row.stripe_credits
        else:
            assert step_sum(row, ComparisonStep.SENT_STRIPE) == 0


@few
@given(any_books())
def test_every_credit_of_every_book_is_in_exactly_one_row(given_books):
    found = compare(given_books, now=NOW)

    def inside(time):
        return WINDOW.start.replace(tzinfo=None) <= time < WINDOW.end.replace(tzinfo=None)

    for name, table in (("langfuse_credits", given_books.upstream), ("ledger_credits", given_books.ledger.events)):
        whole = sum((r["credits_total"] for r in table.to_pylist() if inside(r["timestamp"])), Decimal(0))
        assert added(getattr(row, name) for row in found.rows) == whole
    sent = [i for i in given_books.ledger.intents.to_pylist() if i["state"] in {"accepted", "confirmed"}]
    assert added(row.sent_credits for row in found.rows) == sum(i["value"] for i in sent)
    known = {k: v for k, v in given_books.stripe.items() if k[0] not in given_books.stripe_unknown}
    whole = sum((v for (_, hour), v in known.items() if WINDOW.start <= hour < WINDOW.end), Decimal(0))
    assert added(row.stripe_credits or Decimal(0) for row in found.rows) == whole


@few
@given(any_books(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(given_books, random: Random):
    def shuffled(table):
        order = list(range(table.num_rows))
        random.shuffle(order)
        return table.take(pa.array(order, pa.int64()))

    ledger = given_books.ledger
    mixed = replace(
        given_books,
        upstream=shuffled(given_books.upstream),
        ledger=replace(ledger, **{n: shuffled(getattr(ledger, n)) for n in ("events", "coverage", "intents", "holds")}),
        stripe=dict(random.sample(sorted(given_books.stripe.items()), len(given_books.stripe))),
    )
    assert compare(mixed, now=NOW) == compare(given_books, now=NOW)


@few
@given(any_books())
def test_the_document_says_everything_and_can_be_read_back(given_books):
    found = compare(given_books, now=NOW)
    assert Reconciliation.from_json(found.to_json()) == found


@few
@given(any_books())
def test_the_waterfall_goes_from_its_first_total_to_its_last_exactly(given_books):
    first, *steps, last = waterfall(compare(given_books, now=NOW))
    assert added([first[1], *(amount for _, amount in steps)]) == last[1]
    labels = [label for label, _ in (first, *steps, last)]
    assert len(labels) == len(set(labels))


@few
@given(sound_ledger())
def test_nothing_is_unexplained_while_stripe_counts_what_was_sent(ledger):
    found = compare(books(*ledger), now=NOW)
    assert found.unexplained_credits == 0


@few
@given(sound_ledger(states=("accepted", "confirmed")), st.data())
def test_foreign_and_lost_credits_are_unexplained_to_the_last_one_and_never_cancel(ledger, data):
    events, intents = ledger
    stripe = counted(intents)
    slots = sorted(key for key, value in stripe.items() if value > 0)
    assume(slots)
    loses = data.draw(st.sampled_from(slots))
    gains = data.draw(st.tuples(st.sampled_from(CUSTOMERS), st.integers(0, 47).map(float)).filter(lambda s: s != loses))
    lost = data.draw(st.integers(1, stripe[loses]))
    foreign = data.draw(st.one_of(st.just(lost), st.integers(1, 1000)))
    stripe = stripe | {loses: stripe[loses] - lost, gains: stripe.get(gains, 0) + foreign}
    found = compare(books(events, intents, stripe), now=NOW)
    assert found.unexplained_credits == lost + foreign
    named = [part.cause for row in found.rows for part in row.parts if part.is_unexplained]
    assert sorted(named) == ["lost_at_stripe", "not_ours"]
