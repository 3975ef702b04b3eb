"""What an import warns of is what the next push then sends, and nothing else."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.imports.events import ImportComparison
from billing_core.imports.warnings import warnings_of
from tests.examples import examples
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import World, at, use

SENT = {"sent-1": "150", "sent-2": "7.4", "sent-3": "30"}
WAIT = {"waits-1": "20.3", "waits-2": "160"}
EARLIER = {"earlier": "150"}
CUSTOMERS = ("cus_a", "cus_b")


@pytest.fixture(scope="module")
def made(tmp_path_factory, stripe_server):
    """A ledger with events that were sent, that wait, and that the earlier system billed; and its export."""
    stripe_server.reset()
    folder = tmp_path_factory.mktemp("warned")
    world = World(folder, stripe_server)
    earlier = (use(name, at(0, 10), amount, legacy_status="processed") for name, amount in EARLIER.items())
    world.book(*(use(name, at(0, 10), amount) for name, amount in SENT.items()), *earlier)
    world.push()
    world.book(*(use(name, at(1, 10), amount) for name, amount in WAIT.items()))
    file = folder / "usage.csv"
    world.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.CSV), EVERYONE, file)
    world.close()
    return world.path, file, stripe_server


AMOUNTS = st.sampled_from(["0.6", "7.4", "20.3", "30", "150", "151", "200.5"])
CHANGE = st.fixed_dictionaries(
    {}, optional={"amount": AMOUNTS, "customer_id": st.sampled_from(CUSTOMERS), "chatflow_name": st.just("Renamed")}
)
EXISTING = [*SENT, *WAIT, *EARLIER]


def write(source, target, changes, new, billed):
    """The export with other amounts, customers and names, with new rows, and with some billed by somebody else."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    pattern = rows["waits-1"]
    for number, amount in enumerate(new):
        name = f"new-{number}"
        rows[name] = {**pattern, **cost(amount), "id": name, "trace_url": ""}
    for name, change in changes.items():
        change = dict(change)
        rows[name].update({**cost(change.pop("amount")), **change} if "amount" in change else change)
    for name in billed:
        rows[name]["sync_status"] = "processed"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, pattern)
        writer.writeheader()
        writer.writerows(rows.values())
    return rows


def cost(amount):
    credits_ = Decimal(amount)
    return {
        "credits_storage": amount,
        "credits_total": amount,
        "amount_usd": str(credits_ * Decimal("0.00004")),
        "storage_gb": str(credits_ / 500),
    }


def to_send(world):
    """What a push would send: credits by customer."""
    sums = defaultdict(int)
    for request in world.push(dry_run=True).requests:
        payload = request["body"]["payload"]
        sums[payload["stripe_customer_id"]] += int(payload["value"])
    return {customer: value for customer, value in sums.items() if value}


def said(warnings):
    """How many events each kind of warning is about."""
    kinds = {
        "corrected": r"([\d,]+) events? that (?:was|were) sent from here change",
        "rebilled": r"([\d,]+) events? that waits? here change",
        "pending": r"([\d,]+) events? with .* pending in the file",
        "lifted": r"([\d,]+) events? that (?:is|are) not sent here",
    }
    return {kind: int(m[1]) for kind, text in kinds.items() for one in warnings if (m := re.match(text, one))}


@settings(max_examples=examples(15), derandomize=True, phases=[Phase.generate])
@given(
    changes=st.dictionaries(st.sampled_from(EXISTING), CHANGE, max_size=4),
    new=st.lists(AMOUNTS, max_size=2),
    billed=st.sets(st.sampled_from(list(WAIT)), max_size=1),
)
def test_the_import_warns_of_what_the_next_push_then_sends(made, changes, new, billed):
    path, source, stripe = made
    with TemporaryDirectory() as folder:
        world = World(Path(folder), stripe)
        world.close()
        shutil.copyfile(path, world.path)
        world.service = world._service()
        try:
            before = to_send(world)
            rows = write(source, Path(folder) / "changed.csv", changes, new, billed)
            plan = world.service.imports.plan(Path(folder) / "changed.csv", EVERYONE)
            assert plan.can_apply, plan.rejected
            world.service.imports.apply(plan, EVERYONE)
            after = to_send(world)
        finally:
            world.close()
    booked = SENT | WAIT
    is_other = {
        name
        for name, amount in booked.items()
        if (Decimal(rows[name]["credits_total"]), rows[name]["customer_id"]) != (Decimal(amount), "cus_a")
    }
    expected = Counter(
        corrected=len(is_other & set(SENT)),
        rebilled=len(is_other & set(WAIT) - billed),
        pending=len(new),
        lifted=len(billed),
    )
    assert said(plan.warnings) == +expected
    owed = defaultdict(Decimal)
    for name, row in rows.items():
        if name not in EARLIER and name not in billed:
            owed[row["customer_id"]] += Decimal(row["credits_total"])
    sent = {"cus_a": int(sum(map(Decimal, SENT.values())))}
    wanted = {customer: int(owed[customer]) - sent.get(customer, 0) for customer in CUSTOMERS}
    assert after == {customer: value for customer, value in wanted.items() if value}
    if not +expected:
        assert after == before


@given(st.integers(1, 3), st.integers(1, 3))
def test_one_event_is_told_of_as_one_and_more_as_more(count, other):
    found = ImportComparison()
    found.pending, found.pending_credits, found.lifted, found.corrected = count, Decimal(other), other, count
    found.rebilled, found.in_closed = other, count

    class Staged:
        without_offset = other

    for text in warnings_of(Staged(), found, ZoneInfo("UTC"), None):
        number, noun = re.match(r"(\d+) (?:new or changed )?(\w+)", text).groups()
        is_one = number == "1"
        assert noun.endswith("s") != is_one, text
        assert bool(re.search(r"\b(are|have|were|they|them|wait|lie|change) ", text)) != is_one, text
        assert not re.search(r"\b1 credits", text)
