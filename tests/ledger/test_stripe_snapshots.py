"""What was read from Stripe last."""

import pytest

from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from tests.factories import NOON, ledger_at


@pytest.fixture
def snapshots(tmp_path):
    ledger = ledger_at(tmp_path / "billing.duckdb")
    yield StripeSnapshots(ledger.engine)
    ledger.engine.close()


def test_what_was_read_from_stripe_replaces_what_was_read_before(snapshots):
    def read(id_, customer):
        return StoredObject(id_, customer, f'"{id_}"', NOON)

    snapshots.store("invoice", [read("in_1", "cus_a"), read("in_2", "cus_b")])
    snapshots.store("invoice", [read("in_3", "cus_a")], only_customer="cus_a")
    snapshots.store("customer", [read("cus_a", "cus_a")])
    assert [row.id for row in snapshots.read("invoice")] == ["in_2", "in_3"]
    assert snapshots.read("invoice", "cus_b") == [read("in_2", "cus_b")]
    snapshots.store("invoice", [])
    assert snapshots.read("invoice") == []
    assert [row.id for row in snapshots.read("customer")] == ["cus_a"]
