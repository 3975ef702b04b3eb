"""Credits inside each customer's own billing period, within the reader's scope."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from threading import Thread

import ibis
import pyarrow as pa
import pytest

from billing_core.access import Scope
from billing_core.ledger.compiled import ask
from billing_core.ledger.period_usage import GIVEN, customers_and_usage, periods_table
from billing_core.ledger.queries import Selection, Snapshot
from tests.factories import NOON, ledger_at, usage_row

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
PERIODS = [("cus_a", NOON, NOON + DAY), ("cus_b", NOON + 5 * SECOND, NOON + 7 * DAY)]
EVERYTHING, ONLY_A = Scope(None), Scope(("org_a",))


@pytest.fixture
def ledger(tmp_path):
    rows = [
        usage_row(id="before", timestamp=NOON - SECOND),
        usage_row(id="first", timestamp=NOON),
        usage_row(id="last", timestamp=NOON + DAY - SECOND),
        usage_row(id="after", timestamp=NOON + DAY),
        usage_row(id="other", timestamp=NOON, organization_id="org_b"),
        usage_row(id="theirs", timestamp=NOON + 5 * SECOND, organization_id="org_b", customer_id="cus_b"),
        usage_row(id="free", timestamp=NOON, organization_id="org_c", customer_id="cus_c"),
        usage_row(id="nobody", timestamp=NOON, organization_id="org_c", customer_id=None),
        usage_row(id="loose", timestamp=NOON, organization_id=None),
    ]
    ledger = ledger_at(tmp_path / "billing.duckdb", rows)
    yield ledger
    ledger.engine.close()


def usage(ledger, scope=EVERYTHING, named_since=NOON, periods=PERIODS):
    selection = Selection(scope, Snapshot(1, 1), start=NOON - DAY)
    found = ledger.engine.read(customers_and_usage(selection, named_since), {GIVEN: periods_table(periods)}).to_pylist()
    return {(row["organization_id"], row["customer_id"]): (row["used"], row["is_named"]) for row in found}


def test_a_period_is_half_open_and_every_customer_has_its_own(ledger):
    assert usage(ledger) == {
        ("org_a", "cus_a"): (Decimal(300), True),
        ("org_b", "cus_a"): (Decimal(150), True),
        ("org_b", "cus_b"): (Decimal(150), True),
        ("org_c", "cus_c"): (None, True),
        ("org_c", None): (None, True),
        (None, "cus_a"): (Decimal(150), True),
    }


def test_a_limited_reader_gets_sums_of_his_own_events_alone(ledger):
    assert usage(ledger, ONLY_A) == {("org_a", "cus_a"): (Decimal(300), True)}
    assert usage(ledger, Scope(())) == {}


def test_pairs_that_were_not_named_lately_are_told_apart(ledger):
    found = usage(ledger, named_since=NOON + SECOND)
    assert {pair for pair, (_, is_named) in found.items() if is_named} == {("org_a", "cus_a"), ("org_b", "cus_b")}


def test_without_any_period_nothing_has_a_sum(ledger):
    assert {used for used, _ in usage(ledger, periods=[]).values()} == {None}


def numbers():
    return ibis.table({"number": "int64"}, name="numbers")


def test_tables_given_for_a_read_are_gone_after_it_and_never_meet_those_of_another(ledger):
    question = ask(numbers)
    found = {}

    def read(number):
        table = pa.table({"number": pa.array([number], pa.int64())})
        for _ in range(20):
            found.setdefault(number, set()).update(
                ledger.engine.read(question, {"numbers": table})["number"].to_pylist()
            )

    threads = [Thread(target=read, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: {1}, 2: {2}}
    with pytest.raises(Exception, match="numbers"):
        ledger.engine.read(question)
