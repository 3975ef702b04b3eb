"""The command `alerts`: rules, the look at all of them, history, weekly summaries. Part of `billing_core.cli`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

from billing_core.cli.support import (
    EXIT_SOME_FAILED,
    add_json,
    aligned,
    open_service,
    os_principal,
    print_json,
    time_of,
)
from billing_core.errors import BadParameter
from billing_core.settings import Settings
from billing_core.values.counts import count_of

if TYPE_CHECKING:
    from billing_core.alerts.model import Terms
    from billing_core.alerts.service import Firing

Command = Callable[[str, Callable[[argparse.Namespace, Settings], int], str], argparse.ArgumentParser]

KINDS = "threshold, unusual, failure, unsent, deadline, summary"


def add_alerts_command(command: Command) -> None:
    """Add the command `alerts` with its actions to the parser."""
    alerts = command("alerts", _alerts, "rules that alert people: list, check (for cron), add, edit, mute, history …")
    actions = alerts.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(alerts))

    def action(name: str, run: Callable[[argparse.Namespace, Settings], int], says: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=says, description=says)
        added.set_defaults(act=run)
        add_json(added)
        return added

    action("list", _list, "list the rules")
    action("check", _check, "look at every rule and send what is new, once")
    add = action("add", _add, "add a rule; prints what it would send now")
    _add_terms(add)
    add.add_argument("--name", required=True, metavar="NAME")
    add.add_argument("--dry-run", action="store_true", help="only print what the rule would send now")
    action("recommended", _recommended, "add rules for failed work, stuck credits, deadlines and unusual usage")
    edit = action("edit", _edit, "change a rule; what is not given stays")
    edit.add_argument("rule", metavar="RULE_ID")
    _add_terms(edit)
    edit.add_argument("--name", metavar="NAME")
    remove = action("remove", _remove, "remove a rule; its history stays")
    remove.add_argument("rule", metavar="RULE_ID")
    mute = action("mute", _mute, "send no alerts of a rule until a time")
    mute.add_argument("rule", metavar="RULE_ID")
    mute.add_argument("--until", required=True, metavar="T", help="ISO 8601; without an offset in BILLING_TIMEZONE")
    mute.add_argument("--reason", required=True, metavar="WHY")
    unmute = action("unmute", _unmute, "end a mute")
    unmute.add_argument("rule", metavar="RULE_ID")
    history = action("history", _history, "list alerts, newest first, and how far they got")
    history.add_argument("--rule", metavar="RULE_ID")
    history.add_argument("--limit", metavar="N", default="100")
    action("test", _test, "send a test message to every address")
    report = action("report", _report, "print an organization's weekly summary as it would be sent")
    report.add_argument("--organization", required=True, metavar="O")
    report.add_argument("--week", metavar="YYYY-Www", help="an ISO week, e.g. 2026-W47; default: the last one")
    report.add_argument("--html", action="store_true", help="print the HTML of the mail")


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", metavar="KIND", help=KINDS)
    parser.add_argument("--by", metavar="D", help="organization (default), customer, user, chatflow or model")
    parser.add_argument("--subject", metavar="ID", help="one of them; default: each")
    parser.add_argument("--measure", metavar="M", help="amount_usd (default) or credits")
    parser.add_argument("--above", metavar="N", help="of a threshold: the amount or credits to be passed")
    parser.add_argument("--days", metavar="N", help="within so many days of BILLING_TIMEZONE; default 1")
    parser.add_argument("--hours", metavar="N", help="of unsent and deadline; default 24")
    parser.add_argument("--process", action="append", metavar="P", help="of failure: pull, push, reconcile, close")
    parser.add_argument("--anyway", action="store_true", help="save a rule that sends more than 20 alerts at once")


TERMS = ("kind", "by", "subject", "measure", "above", "days", "hours", "process")


def _terms(options: argparse.Namespace, known: dict[str, Any] | None = None) -> Terms:
    from billing_core.alerts.model import Terms

    given = {name: value for name in TERMS if (value := getattr(options, name)) is not None}
    return Terms.parse({**(known or {}), **given})


def _alerts(options: argparse.Namespace, settings: Settings) -> int:
    code: int = options.act(options, settings)
    return code


def _list(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        rules, now = service.alerts.rules(os_principal()), service.now()
        receivers = service.alerts.receivers
    found = [one.to_json(now) for one in rules]
    if options.json:
        print_json({"alerts": found, "addresses": list(receivers)})
        return 0
    head = ("rule", "name", "alerts when", "so far", "last (UTC)", "muted until (UTC)")
    rows = [
        (
            one["id"],
            one["name"],
            one["watches"],
            f"{one['firings']:,}",
            one["last_fired_at"] or "–",
            one["muted_until"] or "–",
        )
        for one in found
    ]
    print(aligned(head, rows))
    print(f"{count_of(len(rows), 'rule')}; alerts go to {', '.join(receivers) or 'nobody: set BILLING_NOTIFY_URLS'}")
    return 0


def _check(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        service.ready()
        found = service.alerts.check(os_principal())
        told = [
            one for one in service.alerts.history(os_principal(), limit=len(found.fired) or 1) if one.id in found.fired
        ]
    document = {
        "alerts": [one.to_json() for one in told],
        "delivered": found.delivery.delivered,
        "failed": list(found.delivery.failed),
        "given_up": found.delivery.given_up,
        "problems": list(found.problems),
    }
    if options.json:
        print_json(document)
    else:
        _print_firings(told)
        print(f"{count_of(len(told), 'new alert')}, {found.delivery.delivered:,} delivered now")
    for text in (*found.problems, *found.delivery.failed):
        print(text, file=sys.stderr)
    return EXIT_SOME_FAILED if found.problems or found.delivery.failed else 0


def _print_firings(firings: list[Firing]) -> None:
    head = ("at (UTC)", "rule", "alert", "delivery")
    rows = [
        (f"{one.fired_at:%Y-%m-%d %H:%M}", one.rule_name, one.title, one.delivery.state.value.replace("_", " "))
        for one in firings
    ]
    if rows:
        print(aligned(head, rows))


def _add(options: argparse.Namespace, settings: Settings) -> int:
    terms = _terms(options)
    with open_service(settings) as service:
        preview = service.alerts.preview(os_principal(), terms)
        rule = None
        if not options.dry_run:
            rule = service.alerts.add(os_principal(), options.name, terms, anyway=options.anyway)
        now = service.now()
    says = f"would send {count_of(preview.now, 'alert')} now and watches {count_of(preview.subjects, 'subject')}"
    if options.json:
        document = {} if rule is None else rule.to_json(now)
        print_json(
            {**document, "alerts_now": preview.now, "subjects": preview.subjects, "titles": list(preview.titles)}
        )
        return 0
    for title in preview.titles:
        print(title)
    print(f"nothing saved; the rule {says}" if rule is None else f"rule {rule.id} added; it {says}", file=sys.stderr)
    return 0


def _recommended(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        added = service.alerts.add_recommended(os_principal())
        document = {"alerts": [one.to_json(service.now()) for one in added]}
    return _done(options, document, f"{count_of(len(added), 'rule')} added")


def _edit(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        known = service.alerts.rule(os_principal(), options.rule)
        terms = _terms(options, known.terms.to_json())
        name = known.name if options.name is None else options.name
        rule = service.alerts.edit(os_principal(), known.id, name, terms, anyway=options.anyway)
        document = rule.to_json(service.now())
    return _done(options, document, f"rule {rule.id} changed")


def _remove(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        rule = service.alerts.remove(os_principal(), options.rule)
        document = rule.to_json(service.now())
    return _done(options, document, f"rule {rule.id} removed")


def _mute(options: argparse.Namespace, settings: Settings) -> int:
    until = time_of("until", options.until)
    with open_service(settings) as service:
        rule = service.alerts.mute(os_principal(), options.rule, until, options.reason)
        document = rule.to_json(service.now())
    return _done(options, document, f"rule {rule.id} muted until {document['muted_until']}")


def _unmute(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        rule = service.alerts.mute(os_principal(), options.rule, None)
        document = rule.to_json(service.now())
    return _done(options, document, f"rule {rule.id} is no longer muted")


def _done(options: argparse.Namespace, document: dict[str, Any], says: str) -> int:
    if options.json:
        print_json(document)
    else:
        print(says, file=sys.stderr)
    return 0


def _history(options: argparse.Namespace, settings: Settings) -> int:
    if not (options.limit.isascii() and options.limit.isdigit() and 1 <= int(options.limit[:9]) <= 10_000):
        raise BadParameter("limit", options.limit, "a number from 1 to 10,000")
    with open_service(settings) as service:
        found = service.alerts.history(os_principal(), rule_id=options.rule, limit=int(options.limit))
    if options.json:
        print_json({"alerts": [one.to_json() for one in found]})
    else:
        _print_firings(found)
        print(count_of(len(found), "alert"))
    return 0


def _test(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        found = service.alerts.test(os_principal())
    if options.json:
        print_json({"addresses": [{"address": label, "error": error} for label, error in found]})
    for label, error in found:
        if error is not None:
            print(f"{label}: {error}", file=sys.stderr)
        elif not options.json:
            print(f"{label}: delivered")
    if not found and not options.json:
        print("no address is set: see BILLING_NOTIFY_URLS", file=sys.stderr)
    return EXIT_SOME_FAILED if any(error is not None for _, error in found) else 0


def _report(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        found = service.alerts.summary(os_principal(), options.organization, _week(options.week))
    if options.json:
        print_json({"title": found.title, "text": found.text, "html": found.html, **found.facts})
    else:
        print(found.html if options.html else f"{found.title}\n\n{found.text}")
    return 0


def _week(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        found = re.fullmatch(r"(\d{4})-?W(\d{2})", text.strip().upper(), re.ASCII)
        if found is None:
            raise ValueError
        return date.fromisocalendar(int(found[1]), int(found[2]), 1)
    except ValueError:
        raise BadParameter("week", text, "an ISO week such as 2026-W47") from None
