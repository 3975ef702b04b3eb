"""Commands about usage that is stuck: hold, release, retry, settle. Part of `billing_core.cli`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from billing_core.cli.support import (
    EXIT_SOME_FAILED,
    EXIT_UNREACHABLE,
    add_filters,
    add_json,
    add_window,
    aligned,
    open_service,
    open_stripe_service,
    os_principal,
    params_of,
    print_json,
)
from billing_core.errors import BadParameter
from billing_core.settings import Settings
from billing_core.values.counts import count_of

if TYPE_CHECKING:
    from billing_core.ledger.settlements import Settlement
    from billing_core.service import BillingService

SHOWN = 20
"""Skipped events that are printed for people; `--json` has all of them."""

KINDS = ("write-off", "invoice-item")

Command = Callable[[str, Callable[[argparse.Namespace, Settings], int], str], argparse.ArgumentParser]


def add_decision_commands(command: Command) -> None:
    """Add the commands `hold`, `release`, `retry` and `settle` to the parser."""
    says = {
        "hold": "keep events back from Stripe until somebody releases them",
        "release": "let events go that somebody, or a look at Stripe's sums, keeps back",
        "retry": "let the next push try events in error again",
    }
    for name, text in says.items():
        decision = command(name, _decide, text)
        _add_choice(decision)
        decision.add_argument("--reason", metavar="T", help="for whoever asks later, and the audit log")
        add_json(decision)
    text = "settle usage that can no longer be metered: write it off, or put it on the customer's next invoice"
    settle = command("settle", _settle, text)
    _add_choice(settle)
    settle.add_argument("--as", dest="kind", metavar="|".join(KINDS), help="what becomes of it")
    settle.add_argument("--reason", metavar="T", help="why, for the audit log and whoever asks")
    settle.add_argument("--take-back", metavar="SETTLEMENT", help="take a settlement back; needs --reason")
    settle.add_argument("--list", action="store_true", help="list every settlement, newest first")
    add_json(settle)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="events; or choose them with --cause and other filters")
    add_window(parser)
    add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; nothing is changed or sent")


def _chosen(options: argparse.Namespace, service: BillingService) -> list[str]:
    """The ids of the events a command is about.

    Raises BadParameter: if neither events nor a cause are named, both are, or the cause does not exist.
    """
    if options.ids:
        params = params_of(options)
        if params != type(params)():
            raise BadParameter("ID", options.ids[0], "either events, or --cause with filters, not both")
        return list(dict.fromkeys(options.ids))
    if not options.cause:
        raise BadParameter(options.command, "", "the ids of events, or --cause CAUSE with filters as `events` has them")
    causes = service.stripe.causes(os_principal())
    for cause in options.cause:
        if cause not in causes:
            raise BadParameter("cause", cause, "one of " + ", ".join(sorted(causes)))
    return service.event_ids(params_of(options), os_principal())


def _decide(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.stripe_sync.pipeline import Action

    with open_service(settings) as service:
        ids = _chosen(options, service)
        done = service.stripe.decide_about(
            os_principal(), Action(options.command), ids, reason=options.reason or "", dry_run=options.dry_run
        )
    document = done.to_json()
    if options.json:
        print_json(document)
    else:
        past = {"hold": "put on hold", "release": "released", "retry": "made pending"}[options.command]
        print(_summary(past, done.events, f"{document['credits']} credits", is_dry_run=options.dry_run))
        _print_skipped(document["skipped"])
    return EXIT_SOME_FAILED if done.has_failures else 0


def _summary(past: str, events: int, amount: str, *, is_dry_run: bool) -> str:
    """What was done, or would be: `written off: 3 events, 150 credits, 0.006 USD`."""
    if not events:
        return f"nothing {'would be' if is_dry_run else 'was'} {past}"
    return f"{'would be ' if is_dry_run else ''}{past}: {count_of(events, 'event')}, {amount}"


def _print_skipped(skipped: Sequence[dict[str, Any]]) -> None:
    for one in skipped[:SHOWN]:
        print(f"{one['id']}: {one['reason']}", file=sys.stderr)
    if len(skipped) > SHOWN:
        print(f"and {len(skipped) - SHOWN:,} more; see --json", file=sys.stderr)


def _settle(options: argparse.Namespace, settings: Settings) -> int:
    if options.list:
        return _list(options, settings)
    reason = " ".join((options.reason or "").split())
    if not reason:
        raise BadParameter("reason", options.reason or "", "a few words on why, which whoever asks later will read")
    if options.take_back is not None:
        return _take_back(options, settings, reason)
    if options.kind not in KINDS:
        raise BadParameter("as", options.kind or "", " or ".join(KINDS))
    from billing_core.stripe_sync.settlement_rules import SettlementKind

    kind = SettlementKind(options.kind.replace("-", "_"))
    with _service_for(settings, needs_stripe=kind is SettlementKind.INVOICE_ITEM) as service:
        ids = _chosen(options, service)
        done = service.stripe.settle(
            os_principal(),
            ids,
            kind,
            reason=reason,
            dry_run=options.dry_run,
            on_wait=lambda: print("a push is running; waiting for it", file=sys.stderr),
        )
    document = done.to_json()
    if options.json:
        print_json(document)
    else:
        _print_settled(document)
    for problem in (*done.problems, *([done.out_of_reach] if done.out_of_reach else [])):
        print(problem, file=sys.stderr)
    if done.out_of_reach is not None:
        return EXIT_UNREACHABLE
    return EXIT_SOME_FAILED if done.has_failures else 0


@contextmanager
def _service_for(settings: Settings, *, needs_stripe: bool) -> Iterator[BillingService]:
    with ExitStack() as stack:
        yield stack.enter_context(open_stripe_service(settings) if needs_stripe else open_service(settings))


def _print_settled(document: dict[str, Any]) -> None:
    from billing_core.values.money import money

    past = "written off" if document["as"] == "write-off" else "invoiced separately"
    amount = f"{document['credits']} credits, {document['amount_usd']} USD"
    print(_summary(past, document["events"], amount, is_dry_run=document["dry_run"]))
    rows = [
        (one["customer_id"], one["month"], money(one["amount"], one["currency"]), one["id"] or "–", one["state"])
        for one in document["invoice_items"]
    ]
    if rows:
        print(aligned(("customer", "month", "amount", "invoice item", "state"), rows))
    said = set(document["problems"])  # one line for each customer's month
    _print_skipped([one for one in document["skipped"] if one["reason"] not in said])


def _take_back(options: argparse.Namespace, settings: Settings, reason: str) -> int:
    with ExitStack() as stack:
        service = stack.enter_context(open_service(settings))
        if service.stripe.settlement(os_principal(), options.take_back).kind == "invoice_item":
            stack.close()
            service = stack.enter_context(open_stripe_service(settings))
        settlement, problem = service.stripe.take_back(os_principal(), options.take_back, reason=reason)
        document = service.stripe.settlement_document(settlement)
    if options.json:
        print_json(document)
    else:
        print(f"settlement {settlement.id}: {settlement.state.replace('_', ' ')}")
    if problem is not None:
        print(problem, file=sys.stderr)
    return EXIT_SOME_FAILED if problem is not None else 0


def _list(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        found = service.stripe.settlements(os_principal())
        if options.json:
            print_json({"settlements": [service.stripe.settlement_document(one) for one in found]})
            return 0
    rows = [
        (one.id, one.kind, one.customer_id or "nobody", one.month, _amount(one), one.state, one.actor, one.reason)
        for one in found
    ]
    print(aligned(("settlement", "as", "customer", "month", "amount", "state", "by", "reason"), rows))
    return 0


def _amount(one: Settlement) -> str:
    from billing_core.types import plain_decimal
    from billing_core.values.money import money

    if one.amount is None or one.currency is None:
        return f"{plain_decimal(one.amount_usd)} USD"
    return money(one.amount, one.currency)
