"""A ledger, a pusher that may die, and Stripe; and what has to be true of all three at any time."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

from billing_core.errors import UpstreamError
from billing_core.ingest.pull import book_rated
from billing_core.ledger.schema import IN_DOUBT, LIVE
from billing_core.organizations.directory_file import Change
from billing_core.rating.events import Policy
from billing_core.sandbox.data.catalog import ORGANIZATIONS
from billing_core.sandbox.stripe.invoices import DRAFT_SECONDS
from billing_core.sandbox.stripe.subscriptions import period_at
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.stripe_sync.pipeline import Action, Amounts, DecisionPreview
from billing_core.stripe_sync.push import PushResult
from billing_core.stripe_sync.settle import SettlementResult
from billing_core.stripe_sync.settlement_rules import SettlementKind
from tests.factories import CARD, EVERYONE, events_table, ledger_at, model_usage, usage_row, usage_table
from tests.stripe_sync.push.mortal import Crash, Fuse, MortalEngine, impatient_stripe
from tests.stripe_sync.push.stripe_server import StripeServer, at, environment_of

HOUR = timedelta(hours=1)

START = at("2026-11-15T09:40:00")
HALF_PAST, ON_THE_HOUR, FLAT = [organization.customer for organization in ORGANIZATIONS if organization.customer][:3]
"""Their billing periods end on the 15th at 10:20:30, on the 16th at midnight; the last has no metered price."""

SWITCHES = {
    "anchors": {
        HALF_PAST: int(at("2026-02-15T10:20:30").timestamp()),
        ON_THE_HOUR: int(at("2026-02-16T00:00:00").timestamp()),
    },
    "profiles": {HALF_PAST: "pro", ON_THE_HOUR: "free", FLAT: "flat_fee_only"},
    "error_sample_cap": 1000,
}

VOID = {"rejected", "void"}
STATUS_BY_STATE = {
    "open": "sending",
    "sending": "sending",
    "accepted": "processed",
    "confirmed": "confirmed",
    "rejected": "error",
}


@dataclass
class Usage:
    """An event as the test booked it last, and every time it ever had."""

    customer: str | None
    timestamp: datetime
    tokens: int
    microseconds: int
    times: set[datetime]


class World:
    """Usage is booked straight into the ledger; everything else happens as in production."""

    def __init__(self, template: Path, folder: Path, stripe: StripeServer, **environment: str) -> None:
        self.path = path = folder / "ledger.duckdb"
        self.template = template
        shutil.copyfile(template, path)
        self.stripe = stripe
        self.fuse = Fuse()
        self.environment = {
            "BILLING_MODE": "live",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{path}",
            **environment_of(stripe),
            **environment,
        }
        self.settings = load_settings(self.environment, env_file=None)
        self.usage: dict[str, Usage] = {}
        self._open()

    def _open(self) -> None:
        self.engine = MortalEngine(self.path, self.fuse)
        self.service = BillingService(
            self.settings, engine=self.engine, connect_stripe=impatient_stripe(self.fuse, self.now), clock=self.now
        )

    def now(self) -> datetime:
        """The time everywhere."""
        return self.stripe.now

    def close(self) -> None:
        """Let go of the ledger."""
        self.service.close()

    def back_up(self) -> None:
        """Keep a copy of the ledger as it is."""
        self.close()
        shutil.copyfile(self.path, self.path.with_suffix(".backup"))
        self._open()

    def restore(self) -> None:
        """Go on with the copy, or with an empty ledger if there is none, and pull everything anew."""
        self.close()
        backup = self.path.with_suffix(".backup")
        shutil.copyfile(backup if backup.exists() else self.template, self.path)
        self._open()
        self.pull_anew()

    def lose(self) -> None:
        """Go on with an empty ledger, and pull everything anew."""
        self.close()
        shutil.copyfile(self.template, self.path)
        self._open()
        self.pull_anew()

    def pull_anew(self) -> None:
        """Book all usage as it is by now."""
        for name, usage in self.usage.items():
            self.book(name, usage.customer, usage.timestamp, usage.tokens, usage.microseconds, as_pulled=True)

    # ── what happens ─────────────────────────────────────────────────────────────────────────────

    def book(
        self,
        name: str,
        customer: str | None,
        timestamp: datetime,
        tokens: int,
        microseconds: int = 0,
        *,
        as_pulled: bool = False,
    ) -> None:
        """Book an event, or what has become of it; a tenth of a credit per token, 50 credits a minute.

        `as_pulled`: with regard to the organization map, and to whose bill it is on already if it names no customer.
        """
        times = self.usage[name].times | {timestamp} if name in self.usage else {timestamp}
        self.usage[name] = Usage(customer, timestamp, tokens, microseconds, times)
        row = usage_row(
            id=name,
            customer_id=customer,
            timestamp=timestamp,
            usage=[model_usage(input=tokens)],
            latency_seconds=Decimal(microseconds) / 10**6,
        )
        if as_pulled:
            book_rated(self.service._ledger, usage_table([row]), [CARD], Policy(), run_id="test")
        else:
            self.service._ledger.book(events_table([row]), run_id="test")

    def map_to(self, customer: str | None) -> None:
        """Let somebody, or nobody, pay for the events of the one organization whose traces name no customer."""
        directory = self.service.organizations.directory
        directory.apply(EVERYONE, directory.preview(EVERYONE, [Change("org_a", None, customer or "")]))

    def push(self) -> PushResult | None:
        """Push; `None` if Stripe could not be reached for something that is needed."""
        with suppress(UpstreamError):
            return self.service.stripe.push(EVERYONE)
        return None

    def push_and_die(self, steps: int, *, after_sends: int = 0) -> bool:
        """Push until the end comes, so many steps after so many meter events were sent; whether it came."""
        self.fuse.arm(steps, after_sends)
        try:
            self.push()
        except Crash:
            return True
        finally:
            self.fuse.renew()
        return False

    def decide(self, action: Action, customer: str | None = None) -> int:
        """Retry, hold or release whatever may be (of one customer)."""
        chosen = tuple(name for name, usage in self.usage.items() if customer in {None, usage.customer})
        return self.service.stripe.decide(EVERYONE, DecisionPreview(action, Amounts(), chosen), reason="a test")

    def settle(self, kind: SettlementKind, customer: str | None = None) -> SettlementResult | None:
        """Write off, or invoice separately, whatever may be (of one customer); `None` if Stripe could not be asked."""
        chosen = [name for name, usage in self.usage.items() if customer in {None, usage.customer}]
        with suppress(UpstreamError):
            return self.service.stripe.settle(EVERYONE, chosen, kind, reason="a test")
        return None

    def take_back(self, settlement_id: str) -> None:
        """Take a settlement back, if its invoice allows and Stripe answers."""
        with suppress(UpstreamError):
            self.service.stripe.take_back(EVERYONE, settlement_id, reason="a test")

    def until_the_end(self, do: Callable[[], object], steps: int) -> bool:
        """Do something until the end comes, so many steps later; whether it came."""
        self.fuse.arm(steps)
        try:
            do()
        except Crash:
            return True
        finally:
            self.fuse.renew()
        return False

    # ── what is written down ─────────────────────────────────────────────────────────────────────

    def table(self, query: str) -> list[dict[str, Any]]:
        """Rows of the ledger with aware times."""
        columns = [row[0] for row in self.engine.rows(f"DESCRIBE {query}")]
        return [
            {n: v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for n, v in zip(columns, row, strict=True)}
            for row in self.engine.rows(query)
        ]

    def events(self) -> dict[str, dict[str, Any]]:
        """The ledger's events by id."""
        query = """SELECT id, customer_id, timestamp, ended_at, credits_total, sync_status, sync_error, marks,
                   meter_event_identifier FROM events"""
        return {row["id"]: row for row in self.table(query)}

    def intents(self) -> dict[str, dict[str, Any]]:
        """The ledger's intents by identifier."""
        rows = self.table("SELECT * FROM intents")
        assert len({row["identifier"] for row in rows}) == len(rows), "an identifier was used for two intents"
        return {row["identifier"]: row for row in rows}

    def coverage(self) -> list[dict[str, Any]]:
        """Which part of which event each intent covers."""
        return self.table("SELECT * FROM coverage")

    def held(self) -> dict[str, str]:
        """Events kept back → the cause."""
        rows = self.table("SELECT event_id, cause FROM holds WHERE released_at IS NULL")
        assert len({row["event_id"] for row in rows}) == len(rows), "an event is held twice"
        return {row["event_id"]: row["cause"] for row in rows}

    # ── what has to be true ──────────────────────────────────────────────────────────────────────

    def check_always(self) -> None:
        """After whatever happened, however it ended."""
        intents, events, coverage = self.intents(), self.events(), self.coverage()
        assert events.keys() == self.usage.keys(), "usage was lost"
        self._check_stripe_has_what_was_sent(intents)
        self._check_intents_are_made_of_usage(intents, coverage)
        self._check_statuses(events, intents)
        self.check_settlements()
        for identifier, bodies in self.stripe.bodies.items():
            assert len(bodies) == 1, f"{identifier} was sent with different bodies: {bodies}"

    def settlements(self) -> dict[str, dict[str, Any]]:
        """The ledger's settlements by id."""
        return {row["id"]: row for row in self.table("SELECT * FROM settlements")}

    def settled_parts(self) -> dict[str, list[tuple[str, str | None, Decimal]]]:
        """Event → what settlements that count settle of it: kind, customer, credits."""
        found: dict[str, list[tuple[str, str | None, Decimal]]] = defaultdict(list)
        for row in self.table(
            f"""SELECT x.event_id, s.kind, x.customer_id, x.credits FROM settlement_events x
                JOIN settlements s ON s.id = x.settlement_id WHERE s.state IN {LIVE!r}"""
        ):
            found[row["event_id"]].append((row["kind"], row["customer_id"], row["credits"]))
        return found

    def check_settlements(self) -> None:
        """Stripe has one invoice item for every settlement that says so, and no other; amounts are rounded once."""
        there = defaultdict(list)
        for item in self.stripe.account.book.items.values():
            if not item.is_deleted:
                there[item.metadata["billing_settlement"]].append(item)
        settlements = self.settlements()
        assert there.keys() <= settlements.keys(), "Stripe has an item that nobody wrote down"
        parts = defaultdict(list)
        for row in self.table("SELECT * FROM settlement_events"):
            parts[row["settlement_id"]].append(row)
        for id_, one in settlements.items():
            items = there[id_]
            assert len(items) <= 1, f"{id_} has two items"
            assert one["credits"] == sum(row["credits"] for row in parts[id_])
            assert one["amount_usd"] == sum(row["amount_usd"] for row in parts[id_])
            if one["kind"] == "write_off" or one["state"] in {"refused", "taken_back"}:
                assert not items, f"{id_} is {one['state']} and Stripe has its item"
            elif one["state"] in {"settled", "confirmed"}:
                assert [item.id for item in items] == [one["item_id"]]
            for item in items:
                assert (item.customer, item.currency) == (one["customer_id"], "usd")
                assert abs(Decimal(item.amount) / 100 - one["amount_usd"]) <= Decimal("0.005")

    def _check_stripe_has_what_was_sent(self, intents: dict[str, dict[str, Any]]) -> None:
        """Intent by intent, and in sum."""
        counts = Counter(event.identifier for event in self.stripe.received)
        assert not [identifier for identifier, count in counts.items() if count > 1], "sent twice"
        received = {event.identifier: event for event in self.stripe.received}
        assert received.keys() <= intents.keys(), "Stripe has what nobody wrote down"
        known, unknown = defaultdict(Decimal), defaultdict(Decimal)
        for identifier, intent in intents.items():
            there = received.get(identifier)
            sent = (intent["customer_id"], intent["value"], int(intent["stamp"].timestamp()))
            assert there is None or (there.customer, there.amount, there.timestamp) == sent
            counted = there is not None and there.code is None
            taken_back = there is not None and there.code is not None
            match intent["state"]:
                case "accepted" | "confirmed":
                    assert counted or taken_back, f"{identifier} never arrived and counts as {intent['state']}"
                    known[intent["customer_id"]] += intent["value"] * counted
                case "rejected" | "void":
                    assert not counted, f"{identifier} counts at Stripe and is {intent['state']}"
                case "open":
                    assert there is None, f"{identifier} was sent before that was written down"
                case "sending":
                    unknown[intent["customer_id"]] += intent["value"] * counted
        sums = {c: known[c] + unknown[c] for c in {*known, *unknown} if known[c] + unknown[c]}
        assert self.stripe.sums == sums

    def _check_intents_are_made_of_usage(
        self, intents: dict[str, dict[str, Any]], coverage: list[dict[str, Any]]
    ) -> None:
        parts, covering = defaultdict(list), defaultdict(set)
        for row in coverage:
            parts[row["identifier"]].append(row)
            covering[row["event_id"]].add(row["identifier"])
        assert parts.keys() == intents.keys()
        for identifier, intent in intents.items():
            rows = parts[identifier]
            assert sum(row["credits"] for row in rows) == intent["credits"]
            assert intent["value"] != 0
            assert intent["events"] == len(rows)
            assert {row["customer_id"] for row in rows} == {intent["customer_id"]}
            others = set().union(*(covering[row["event_id"]] for row in rows)) - {identifier}
            self._check_time(intent, rows, [intents[other] for other in others])

    def _check_time(
        self, intent: dict[str, Any], rows: Sequence[dict[str, Any]], others: Iterable[dict[str, Any]]
    ) -> None:
        """The stamp lies in the hour and the billing period of something it covers, or gives back what lay there."""
        stamp, customer = intent["stamp"], intent["customer_id"]
        returned = any(
            other["stamp"] == stamp and other["customer_id"] == customer and other["created_at"] <= intent["created_at"]
            for other in others
        )
        times = {time for row in rows for time in self.usage[row["event_id"]].times}
        near = {time for time in times if stamp <= time < stamp.replace(minute=0, second=0) + HOUR}
        assert returned or near, f"{intent['identifier']} is dated {stamp}, which is no time of {sorted(times)}"
        if not returned:
            periods = {self.period_start(customer, time) for time in near}
            assert self.period_start(customer, stamp) in periods, f"{stamp} is in another period than {near}"

    def period_start(self, customer: str, time: datetime) -> int | None:
        """When the billing period of a time began, as Stripe has it; `None` without a subscription."""
        found = self.stripe.account.subscription_of(customer)
        return None if found is None else period_at(found.anchor, int(time.timestamp())).start

    def check_nothing_came_too_late(self) -> None:
        """Stripe bills usage only while the invoice of its period is a draft."""
        for event in self.stripe.received:
            assert event.customer is not None
            found = self.stripe.account.subscription_of(event.customer)
            if found is None or len(found.profile.prices) == 1:
                continue  # no metered price: no invoice bills it
            end = period_at(found.anchor, event.timestamp).end
            assert event.received // 1000 < end + DRAFT_SECONDS, f"{event.identifier} came after its invoice was final"

    def _check_statuses(self, events: dict[str, dict[str, Any]], intents: dict[str, dict[str, Any]]) -> None:
        settled = self.settled_parts()
        for event_id, event in events.items():
            kinds = {kind for kind, _, _ in settled[event_id]}
            marks = event["marks"].split(",")
            assert ("written_off" in marks, "invoiced_separately" in marks) == (
                "write_off" in kinds,
                "invoice_item" in kinds,
            ), event
            newest = event["meter_event_identifier"]
            state = None if newest is None else intents[newest]["state"]
            status = event["sync_status"]
            told = f"{event_id} is {status} and its newest intent is {state}"
            match status:
                case "sending" | "processed" | "confirmed" if "invoice_item" in kinds and newest is None:
                    pass
                case "sending" | "processed" | "confirmed":
                    assert status == STATUS_BY_STATE.get(state or ""), told
                case "error":
                    assert state in {None, *VOID}, told
                    assert event["sync_error"], told
                case "pending":
                    assert state in {None, *VOID}, told
                case "excluded":
                    assert event["credits_total"] == 0 or "write_off" in kinds, told

    def check_quiet(self) -> None:
        """Once nothing is open any more: everything is sent, or there is a reason why not."""
        intents, events, held = self.intents(), self.events(), self.held()
        if unknown := [i for i in intents.values() if i["state"] in {"open", "sending"}]:
            self._check_nobody_can_tell(unknown)
            return
        assert not [one for one in self.settlements().values() if one["state"] in IN_DOUBT]
        settled = self.settled_parts()
        covered: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        sent: dict[str, Decimal] = defaultdict(Decimal)
        owed: dict[str, Decimal] = defaultdict(Decimal)
        for row in self.coverage():
            if intents[row["identifier"]]["state"] not in VOID:
                covered[row["event_id"]][row["customer_id"]] += row["credits"]
        for intent in intents.values():
            if intent["state"] not in VOID:
                sent[intent["customer_id"]] += intent["value"]
        for event_id, event in events.items():
            parts = {customer: part for customer, part in covered[event_id].items() if part}
            open_ones = self._still_owed(event, parts, settled[event_id])
            for customer, part in self._to_be_sent(event, parts, open_ones, held.get(event_id)).items():
                owed[customer] += part
        for customer in {*owed, *sent}:
            rest = owed[customer] - sent[customer]
            told = f"{customer} owes {owed[customer]} and was sent {sent[customer]}"
            assert rest < 1, told
            # What a rejected intent had rounded up is made up for by the next usage, not by taking back.
            assert rest >= 0 or any(i["customer_id"] == customer and i["state"] in VOID for i in intents.values()), told
        assert self.stripe.sums == {customer: total for customer, total in sent.items() if total}

    def _still_owed(
        self, event: dict[str, Any], parts: dict[str, Decimal], settled: Sequence[tuple[str, str | None, Decimal]]
    ) -> dict[str, Decimal]:
        """What each customer owes of an event that no meter event, no invoice item and no write-off covers."""
        payer, rest, lifted = event["customer_id"], defaultdict(Decimal), defaultdict(Decimal)
        if payer is not None:  # nobody owes what nobody pays for
            rest[payer] += event["credits_total"]
        for customer, part in parts.items():
            rest[customer] -= part
        for kind, customer, part in settled:
            if kind == "invoice_item":
                rest[customer] -= part
            else:
                lifted[payer if part > 0 else customer] += part
        for customer, part in lifted.items():
            owed = rest[customer]
            rest[customer] -= max(min(owed, Decimal(0)), min(max(owed, Decimal(0)), part))
        return {customer: part for customer, part in rest.items() if part and customer is not None}

    def _to_be_sent(
        self, event: dict[str, Any], parts: dict[str, Decimal], open_ones: dict[str, Decimal], held: Any
    ) -> dict[str, Decimal]:
        """What of an event its customers are to be sent by now, given what intents cover of it."""
        sums = {c: parts.get(c, Decimal(0)) + open_ones.get(c, Decimal(0)) for c in {*parts, *open_ones}}
        now = {customer: part for customer, part in sums.items() if part}
        marks, status = event["marks"].split(","), event["sync_status"]
        told = f"{event}, covered {parts}, {held}"
        if status == "error" and event["meter_event_identifier"] is None:
            assert held is not None, told
        if held is not None or status == "error":
            return parts  # the rest waits for somebody to decide
        if status == "pending":
            assert "carried" in marks, told
            assert now != parts, told
        elif "changed_after_sending" not in marks:
            assert parts == now, told
        return now

    def _check_nobody_can_tell(self, unknown: list[dict[str, Any]]) -> None:
        """An outcome stays open only if different ones of its hour explain Stripe's sum equally well."""
        arrived = {event.identifier for event in self.stripe.received if event.code is None}
        hours = defaultdict(list)
        for intent in unknown:
            hours[intent["customer_id"], intent["stamp"].replace(minute=0, second=0)].append(intent)
        for rows in hours.values():
            counted = sum(row["value"] for row in rows if row["identifier"] in arrived)
            ways = sum(
                sum(row["value"] for row in chosen) == counted
                for size in range(len(rows) + 1)
                for chosen in combinations(rows, size)
            )
            assert ways > 1, f"the outcome of {rows} can be told from Stripe's sum, and is open"

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def come_to_rest(self) -> None:
        """Everything works again; push until no outcome is open."""
        self.stripe.heal()
        self.stripe.switch(async_errors={}, summary_lag_seconds=0.0, async_error_delay_seconds=0.0)
        for _ in range(4):
            self.stripe.wait(hours=3)
            self.push()
            if not any(i["state"] in {"open", "sending"} for i in self.intents().values()):
                break
            self.stripe.wait(hours=30)
        self.stripe.wait(hours=3)
        self.push()


def template_at(path: Path) -> Path:
    """An empty ledger to copy."""
    ledger_at(path).engine.close()
    return path
