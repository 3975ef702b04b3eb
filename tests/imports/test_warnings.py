"""What an import warns of is what the next push then plans, and nothing else."""

from __future__ import annotations

import csv
from decimal import Decimal

import pytest

from billing_core.exports.model import Dataset, ExportRequest, Format
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import at, use

SENT, WAITS, EARLIER = "sent", "waits", "earlier"
RENAMED = {"chatflow_name": "Another name"}
GROWN = {"credits_storage": "160", "credits_total": "160", "amount_usd": "0.0064", "storage_gb": "0.32"}
MOVED = {"customer_id": "cus_b"}
NAMES = {
    "change what they cost or who pays: the next push sends Stripe": "corrected",
    "change what they cost or who pays: the next push sends them": "rebilled",
}


@pytest.fixture
def file(world, tmp_path):
    """An export of an event that was sent, one that waits, and one that the earlier system billed."""
    world.book(use(SENT, at(0, 10)), use(EARLIER, at(0, 10), legacy_status="processed"))
    world.push()
    world.book(use(WAITS, at(1, 10)))
    path = tmp_path / "usage.csv"
    world.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.CSV), EVERYONE, path)
    return path


def change(path, event_id, changes):
    with path.open(newline="", encoding="utf-8-sig") as source:
        rows = list(csv.DictReader(source))
    for row in rows:
        if row["id"] == event_id:
            row.update(changes)
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def planned(world):
    """What a push would send: customer and value of each request."""
    requests = world.push(dry_run=True).requests
    return sorted(
        (r["body"]["payload"]["stripe_customer_id"], Decimal(r["body"]["payload"]["value"])) for r in requests
    )


@pytest.mark.parametrize("event_id", [SENT, WAITS, EARLIER])
@pytest.mark.parametrize("changes", [RENAMED, GROWN, MOVED], ids=["renamed", "grown", "moved"])
def test_the_import_warns_of_what_the_next_push_then_plans(world, file, event_id, changes):
    before = planned(world)
    change(file, event_id, changes)
    plan = world.service.imports.plan(file, EVERYONE)
    assert plan.can_apply, plan.rejected
    warned = {word for text in plan.warnings for start, word in NAMES.items() if start in text}
    world.service.imports.apply(plan, EVERYONE)
    after = planned(world)
    assert (before != after) == bool(warned)
    assert warned <= {"corrected" if event_id == SENT else "rebilled"}
    if warned and changes is GROWN:
        assert sum(value for _, value in after) - sum(value for _, value in before) == 10
