"""The command line: thin commands over `BillingService` (CONTRACT section 3).

`--json` prints exactly one JSON document on standard output; everything for people goes to standard error
as soon as it is not the answer itself. Exit codes: 0 done, 1 some rows failed, 2 wrong usage, 3 unreachable.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import SecretStr

from billing_core.access import Role
from billing_core.cli.alerts import add_alerts_command
from billing_core.cli.backups import add_backup_commands
from billing_core.cli.decisions import add_decision_commands
from billing_core.cli.explore import add_explore_command
from billing_core.cli.files_and_months import add_commands
from billing_core.cli.stopping import SAYS, ReceivedSignal, Stopped, stopping
from billing_core.cli.streams import CommandOutput, Unwritten, standard_streams
from billing_core.cli.support import (
    EXIT_SOME_FAILED,
    EXIT_UNREACHABLE,
    add_filters,
    add_json,
    add_window,
    aligned,
    is_unicode,
    open_service,
    open_stripe_service,
    os_principal,
    params_of,
    print_json,
    share_bar,
    time_of,
    with_langfuse,
)
from billing_core.errors import BadParameter, BillingError, SettingsError
from billing_core.runtime.faults import explained, one_line
from billing_core.runtime.private_files import keep_private
from billing_core.settings import SECRET_VARIABLES, Settings, load_settings
from billing_core.values.counts import count_of

if TYPE_CHECKING:
    from billing_core.stripe_sync.push import PushProgress, PushResult
    from billing_core.types import UsageEventsResponse
    from billing_core.values.usage_frame import PullProgress

SHOWN_FAILURES = 20
INTERRUPTED = 130
"""What a shell reports for Ctrl-C."""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is an error like any other: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(f"{self.prog}: {message}; see `{self.prog} --help`")


class _Usage(BillingError):
    """The command line itself is wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: whatever breaks is one line, and one document under `--json`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    keep_private()
    with standard_streams() as answer, stopping() as received:
        try:
            try:
                code = _run(words)
            except Unwritten:
                raise
            except BaseException as error:  # noqa: BLE001 - the one net: nothing ends in a traceback
                code = _failed(error, words, received, answer)
            answer.flush()
        except Unwritten as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt as error:  # told to stop while the answer was written
            print(SAYS, file=sys.stderr)
            code = _stopped_with(error)
    return code


def _run(words: list[str]) -> int:
    try:
        options = _parser().parse_args(words)
    except SystemExit as over:  # --help
        return over.code if isinstance(over.code, int) else 0
    code: int = options.run(options, load_settings())
    return code


def _asks_for_json(words: Sequence[str]) -> bool:
    """Also where the command line itself is wrong; argparse takes the beginning of an option for the whole."""
    return any(len(word) > len("--") and "--json".startswith(word) for word in words)


def _failed(error: BaseException, words: Sequence[str], received: ReceivedSignal, answer: CommandOutput) -> int:
    if received.number is not None or isinstance(error, KeyboardInterrupt):  # libraries make another error of Ctrl-C
        line, text, code = SAYS, SAYS, _stopped_with(error if received.number is None else Stopped(received.number))
    else:
        if isinstance(error, UnicodeError) and (bad := [word for word in words if not is_unicode(word)]):
            error = BadParameter("argument", bad[0], "text in UTF-8")
        fault = explained(error, _secrets())
        text, code = one_line(str(fault)), fault.exit_code
        line = f"error: {text}"
    print(line, file=sys.stderr)
    if answer.is_empty and _asks_for_json(words):
        print_json({"error": text})
    return code


def _stopped_with(error: BaseException) -> int:
    return error.exit_code if isinstance(error, Stopped) else INTERRUPTED


def _secrets() -> list[str]:
    """Values that no line may repeat."""
    try:
        settings = load_settings()
    except Exception:  # noqa: BLE001 - the fault itself may be theirs
        return [os.environ[name] for name in SECRET_VARIABLES if os.environ.get(name)]
    values = (getattr(settings, name) for name in Settings.model_fields)
    secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    return [*secrets, *(address.url for address in settings.notify_addresses)]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="billing_core", description="Langfuse usage, rated into credits, kept in a ledger.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[Any, Settings], int], says: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=says, description=says)
        added.set_defaults(run=run)
        return added

    pull = command("pull", _pull, "read usage from Langfuse and rate it into the ledger")
    add_window(pull)
    add_json(pull)

    events = command("events", _events, "list one page of usage events, as the dashboard shows it")
    add_window(events)
    add_filters(events)
    events.add_argument("--sort", metavar="FIELD")
    events.add_argument("--order", metavar="asc|desc")
    events.add_argument("--page", metavar="N")
    events.add_argument("--limit", metavar="N")
    events.add_argument(
        "--as-of", metavar="N", help="pagination.as_of of an earlier page, so that pages are consistent"
    )
    add_json(events)

    add_explore_command(command)

    push = command("push", _push, "send unsent, settled credits to Stripe as meter events, exactly once")
    push.add_argument("--dry-run", action="store_true", help="print the exact requests; nothing is sent or stored")
    add_json(push)

    add_decision_commands(command)

    reconcile = command("reconcile", _reconcile, "compare Langfuse, ledger and Stripe per customer and UTC day")
    add_window(reconcile)
    reconcile.add_argument("--only-differences", action="store_true", help="leave out days on which all sources agree")
    add_json(reconcile)

    stats = command("stats", _stats, "show organization statistics: credits, cost, chats, users, latency, errors")
    add_window(stats)
    stats.add_argument("--organization", action="append", metavar="O", help="repeat to match any of several")
    add_json(stats)

    notices = command("notices", _notices, "raise, deliver and list notices of reached limits")
    add_json(notices)

    add_alerts_command(command)

    status = command("status", _status, "show plan, subscription, period and upcoming invoice of a Stripe customer")
    status.add_argument("customer_id", metavar="CUSTOMER_ID")
    add_json(status)

    explain = command("explain", _explain, "explain how an event's credits came about, step by step")
    explain.add_argument("event_id", metavar="EVENT_ID")
    add_json(explain)

    lint = command("lint", _lint, "find events to check: tokens without a price, odd credits, implausible latency")
    add_window(lint)
    add_filters(lint)
    add_json(lint)

    add_commands(command)
    add_backup_commands(command)

    _add_accounts(commands, "users", _users, "manage sign-in accounts", ("list", "remove", "set-password"))
    _add_accounts(commands, "tokens", _tokens, "manage HTTP API tokens", ("list", "revoke"))

    sandbox = command("sandbox", _sandbox, "run a local stand-in for Langfuse and Stripe")
    sandbox.add_argument("--host", default="127.0.0.1")
    sandbox.add_argument("--port", type=int, default=8700)
    sandbox.add_argument("--seed", type=int, default=1)
    sandbox.add_argument("--events", type=int, default=20_000)
    sandbox.add_argument("--days", type=int, default=30)
    sandbox.add_argument("--mode", choices=("v4", "v3", "dual"), default="v4", help="which Langfuse APIs it offers")

    bench = command("bench", _bench, "measure the benchmark table of docs/benchmarks.md")
    bench.add_argument("--events", type=int, default=1_000_000)
    add_json(bench)
    return parser


def _add_accounts(
    commands: Any, name: str, run: Callable[[Any, Settings], int], says: str, verbs: tuple[str, ...]
) -> None:
    parser = commands.add_parser(name, help=says, description=says)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    add = actions.add_parser("add")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", required=True, metavar="|".join(Role))
    add.add_argument("--organization", action="append", default=[], metavar="O", help="limit to it; repeatable")
    add_json(add)
    for verb in verbs:
        action = actions.add_parser(verb)
        if verb != "list":
            action.add_argument("name", metavar="NAME")
        add_json(action)


def _pull(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.types import plain_decimal

    start, end = time_of("from", options.start), time_of("to", options.end)
    with with_langfuse(settings) as connected, open_service(connected) as service, _progress_bar() as progress:
        result = service.pull(
            os_principal(),
            start=start,
            end=end,
            progress=progress,
            on_wait=lambda: print("another pull is running; waiting for it", file=sys.stderr),
        )
    if options.json:
        print_json(result.to_json())
    else:
        print(
            f"{result.api}: {count_of(result.observations, 'observation')} "
            f"({count_of(result.duplicates, 'duplicate')}) from "
            f"{result.window.start:%Y-%m-%d %H:%M} to {result.window.end:%Y-%m-%d %H:%M} UTC\n"
            f"events: {result.counts.new:,} new, {result.counts.changed:,} changed, "
            f"{result.counts.unchanged:,} unchanged; {result.unpriced:,} unpriced, {result.excluded:,} excluded"
        )
        if result.missing_at_source:
            print(f"no longer in Langfuse: {count_of(result.missing_at_source, 'event')}; the ledger keeps them")
    for row in result.rejected:
        print(f"not read: {row.row}: {row.reason}", file=sys.stderr)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if result.policy_differs:
        print(
            f"policy_differs: {result.policy_differs:,} sent events ({plain_decimal(result.policy_differs_credits)} "
            "credits) would be billed differently under the current settings and stay as sent; `rerate --settings` "
            "shows whom and how much, `--apply` books it",
            file=sys.stderr,
        )
    return EXIT_SOME_FAILED if result.rejected or result.policy_differs else 0


@contextmanager
def _progress_bar() -> Iterator[Callable[[PullProgress], None]]:
    """Share of the window read, rows, rate and remaining time, on standard error and only for people."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=1.0, bar_format=form, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:

        def show(progress: PullProgress) -> None:
            bar.n = min(progress.fraction, 1.0)
            bar.set_description_str(progress.doing, refresh=False)
            rate = progress.observations / max(bar.format_dict["elapsed"], 0.001)
            bar.set_postfix_str(f"{count_of(progress.observations, 'row')}, {rate:,.0f} rows/s", refresh=True)

        yield show


def _push(options: argparse.Namespace, settings: Settings) -> int:
    with open_stripe_service(settings) as service, _push_bar() as progress:
        result = service.stripe.push(
            os_principal(),
            dry_run=options.dry_run,
            progress=progress,
            on_wait=lambda: print("another push is running; waiting for it", file=sys.stderr),
        )
    if options.json:
        print_json(result.to_json())
    else:
        _print_push(result)
    for text in (*result.failures[:SHOWN_FAILURES], *result.problems):
        print(text, file=sys.stderr)
    if (rest := result.rejected + result.newly_held - len(result.failures[:SHOWN_FAILURES])) > 0:
        print(f"and {rest:,} more; `events --status error`", file=sys.stderr)
    if options.dry_run:
        return 0
    if result.rejected or result.newly_held:
        return EXIT_SOME_FAILED
    return EXIT_UNREACHABLE if result.unknown or result.waiting else 0


def _print_push(result: PushResult) -> None:
    if result.is_dry_run:
        for request in result.requests:
            print(json.dumps(request, ensure_ascii=False))
        print(f"{count_of(len(result.requests), 'request')} would be made; nothing was sent or stored", file=sys.stderr)
        return
    print(
        f"{count_of(result.intents, 'meter event')}: {result.sent:,} sent, {result.duplicates:,} there already, "
        f"{result.rejected:,} rejected, {result.unknown:,} with unknown outcome, {result.waiting:,} not tried\n"
        f"{count_of(result.credits_sent, 'credit')} delivered; {count_of(result.held, 'event')} held, "
        f"{result.newly_held:,} of them newly"
        + (f", {result.held_corrections:,} of them only for a correction" if result.held_corrections else "")
        + f"; {count_of(result.confirmed, 'meter event')} confirmed"
    )


@contextmanager
def _push_bar() -> Iterator[Callable[[PushProgress], None]]:
    """Meter events answered, credits and remaining time, on standard error and only for people."""
    from tqdm import tqdm

    with tqdm(unit=" meter events", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:

        def show(progress: PushProgress) -> None:
            bar.total = progress.total
            bar.n = progress.done
            bar.set_postfix_str(count_of(progress.credits_sent, "credit"), refresh=True)

        yield show


def _reconcile(options: argparse.Namespace, settings: Settings) -> int:
    start, end = time_of("from", options.start), time_of("to", options.end)
    if start is None or end is None:
        raise _Usage("reconcile: --from and --to are needed, e.g. --from 2026-11-01 --to 2026-12-01")
    with open_stripe_service(settings) as service, share_bar() as progress:
        found = service.stripe.reconcile(os_principal(), start, end, progress=progress)
    document = (found.only_differences() if options.only_differences else found).to_json()
    if options.json:
        print_json(document)
    else:
        _print_reconciliation(document)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    return 0 if found.is_complete else EXIT_UNREACHABLE


def _print_reconciliation(document: dict[str, Any]) -> None:
    books = ("langfuse_credits", "ledger_credits", "sent_credits", "stripe_credits")
    head = ("customer", "day (UTC)", "Langfuse", "ledger", "sent", "Stripe", "causes")
    rows = [
        (
            row["customer_id"] or "nobody",
            row["day"],
            *("unknown" if row[b] is None else row[b] for b in books),
            ", ".join(f"{cause['cause']} {cause['credits']}" for cause in row["causes"]),
        )
        for row in document["rows"]
    ]
    print(aligned(head, rows))
    for finding in document["findings"]:
        print(f"{finding['kind']}: {finding['customer_id']}: {finding['credits']} credits")
    print(f"{count_of(len(rows), 'row')}, {document['unexplained_credits'] or 'unknown'} credits unexplained")


def _notices(options: argparse.Namespace, settings: Settings) -> int:
    with open_stripe_service(settings) as service:
        limits, principal = service.organizations.limits, os_principal()
        code = 0
        if limits.read(principal).is_outdated:
            try:
                service.stripe.read_plans(principal)
            except BillingError as error:  # what was read before still serves
                code = error.exit_code
        looked = limits.notices.check_limits(principal.name)
        board, reading = limits.notices.due_notices(principal), limits.read(principal)
        names = service.organizations.directory.names(principal)
        if reading.problem is not None:
            code = code or (EXIT_UNREACHABLE if service.stripe.is_connected else SettingsError.exit_code)
    document = {
        "raised": looked.raised,
        "delivered": looked.delivery.delivered,
        "failed": list(looked.delivery.failed),
        "given_up": looked.delivery.given_up,
        "notices": [raised.to_json(names) for raised in board.open],
        "plans_read_at": None if reading.read_at is None else reading.read_at.isoformat(),
        "problem": reading.problem,
    }
    if options.json:
        print_json(document)
    else:
        _print_notices(document)
    for text in (*looked.delivery.failed, *([reading.problem] if reading.problem else [])):
        print(text, file=sys.stderr)
    return EXIT_SOME_FAILED if looked.delivery.failed else code


def _print_notices(document: dict[str, Any]) -> None:
    head = ("organization", "customer", "plan", "reached", "used", "of", "period until (UTC)", "webhook")
    rows = [
        (
            notice["organization_name"] or notice["organization_id"] or "(none)",
            notice["customer_id"],
            notice["plan"] or "unknown",
            f"{notice['threshold']} %",
            notice["credits"]["used"],
            notice["credits"]["included"],
            notice["period"]["end"],
            notice["delivery"]["state"],
        )
        for notice in document["notices"]
    ]
    print(aligned(head, rows))
    print(f"{len(rows):,} open notices, {document['raised']:,} raised now, {document['delivered']:,} delivered now")


def _status(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.stripe_sync.customer_status import UNKNOWN

    with open_stripe_service(settings) as service:
        status = service.stripe.status(os_principal(), options.customer_id)
    document = status.to_json()
    if options.json:
        print_json(document)
    else:
        period, counts, upcoming = document["period"], document["credits"], document["upcoming_invoice"]
        print(
            f"{status.customer_id}: {status.state}\nplan: {status.plan or 'unknown'}\n"
            f"period: {period['start'] or 'unknown'} to {period['end'] or 'unknown'}\n"
            f"credits: {counts['used'] or 'unknown'} used of {counts['included'] or 'unknown'}\n"
            f"upcoming invoice: {_money(upcoming)}\nread at {document['read_at'] or 'never'}"
        )
    if status.problem:
        print(status.problem, file=sys.stderr)
    return EXIT_UNREACHABLE if status.state == UNKNOWN else 0


def _money(upcoming: dict[str, Any] | None) -> str:
    if upcoming is None or upcoming["amount_due"] is None:
        return "unknown"
    return f"{upcoming['amount_due']:,} {upcoming['currency'] or ''} (in the currency's smallest unit)"


def _events(options: argparse.Namespace, settings: Settings) -> int:
    params = params_of(options)
    with open_service(settings) as service:
        response = service.get_usage_events(params, os_principal())
        if service.version() == 0:
            where = settings.warehouse_path
            print(f"the ledger {where} is empty: run `pull`, or check BILLING_WAREHOUSE_URL", file=sys.stderr)
    if options.json:
        print_json(response.to_json())
    else:
        print(_table(response))
    return 0


def _table(response: UsageEventsResponse) -> str:
    """A page of events for people: the columns that fit a terminal."""
    from billing_core.types import plain_decimal, utc_text

    head = ("time (UTC)", "event", "organization", "customer", "credits", "USD", "status")
    rows = [
        (
            utc_text(e.timestamp),
            e.id,
            e.organization_id or "–",
            e.customer_id or "–",
            plain_decimal(e.credits.total),
            plain_decimal(e.amount_usd),
            str(e.sync_status),
        )
        for e in response.events
    ]
    p, t = response.pagination, response.totals
    total = f"{plain_decimal(t.credits.total)} credits, {plain_decimal(t.amount_usd)} USD"
    return "\n".join(
        (aligned(head, rows), f"page {p.page} of {p.total_pages:,}; {count_of(p.total_items, 'event')}, {total}")
    )


def _stats(options: argparse.Namespace, settings: Settings) -> int:
    params = params_of(options)
    with open_service(settings) as service:
        document = service.organizations.statistics(params, os_principal()).to_json()
    if options.json:
        print_json(document)
    else:
        _print_statistics(document)
    return 0


def _print_statistics(document: dict[str, Any]) -> None:
    """A line per organization and one for all of them: the figures that fit a terminal."""
    fields = ("events", "chats", "users", "messages_sent", "messages_generated", "tokens_total")
    head = ("organization", *fields, "credits", "USD", "cost USD", "not in Stripe")
    rows = [
        (
            row.get("organization_id", "all") or "(none)",
            *("unknown" if row[f] is None else f"{row[f]:,}" for f in fields),
            row["credits"]["total"],
            row["amount_usd"],
            row["cost_usd"] or "unknown",
            row["unsynced_credits"],
        )
        for row in (*document["organizations"], document["totals"])
    ]
    print(aligned(head, rows))


def _explain(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        explanation = service.explain(options.event_id, os_principal())
    if options.json:
        print_json(explanation.to_json())
        return 0
    print(f"event {explanation.event.id}")
    for step in explanation.steps:
        print(f"\n{step.name}: {step.summary}")
        for line in step.lines:
            print(f"  {line}")
    return 0


def _lint(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        findings = list(service.lint(params_of(options), os_principal()))
    if options.json:
        print_json({"findings": [{"event_id": f.event_id, "rule": f.rule, "says": f.says} for f in findings]})
    else:
        for finding in findings:
            print(f"{finding.event_id}: {finding.rule}: {finding.says}")
        print(count_of(len(findings), "finding"), file=sys.stderr)
    return EXIT_SOME_FAILED if findings else 0


@contextmanager
def _audited(settings: Settings, action: str) -> Iterator[Callable[[str, str, str], None]]:
    """Account and token changes land in the ledger's audit log; where that cannot be written, nothing is changed."""
    if action == "list":
        yield lambda *_: None
        return
    with open_service(settings) as service:
        service.ready()
        yield lambda who, what, detail: service.audit(who, what, {"detail": detail})


def _users(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.auth.users import UserFile

    done: dict[str, Any] = {"ok": True}
    with _audited(settings, options.action) as audit:
        users = UserFile(settings.credentials, audit=audit, actor=os_principal().name)
        match options.action:
            case "add":
                users.add(options.name, password=_new_password(), role=options.role, organizations=options.organization)
                done["user"] = options.name
            case "remove":
                users.remove(options.name)
                done["user"] = options.name
            case "set-password":
                users.set_password(options.name, _new_password())
                done["user"] = options.name
            case _:
                done = {"users": [_reach(u.name, u.role, u.organizations) for u in users.users().values()]}
    return _account_answer(options, done, done.get("users"), options.name if "user" in done else "")


def _tokens(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.auth.tokens import TokenFile

    with _audited(settings, options.action) as audit:
        tokens = TokenFile(settings.api_tokens, audit=audit, actor=os_principal().name)
        match options.action:
            case "add":
                secret = tokens.add(options.name, role=options.role, organizations=options.organization)
                if options.json:
                    print_json({"token": secret, "name": options.name})
                else:
                    print(secret)
                    print("this token is shown once; the file keeps only its hash", file=sys.stderr)
                return 0
            case "revoke":
                tokens.revoke(options.name)
                return _account_answer(options, {"ok": True, "token_name": options.name}, None, options.name)
            case _:
                listed = [_reach(t.name, t.role, t.organizations) for t in tokens.tokens()]
                return _account_answer(options, {"tokens": listed}, listed, "")


def _reach(name: str, role: Role, organizations: frozenset[str] | None) -> dict[str, Any]:
    return {
        "name": name,
        "role": role.value,
        "organizations": ["*"] if organizations is None else sorted(organizations),
    }


def _account_answer(
    options: argparse.Namespace, document: dict[str, Any], listed: list[dict[str, Any]] | None, name: str
) -> int:
    if options.json:
        print_json(document)
    elif listed is None:
        print(f"{options.command} {options.action}: {name} done", file=sys.stderr)
    else:
        for row in listed:
            print(f"{row['name']}\t{row['role']}\t{', '.join(row['organizations'])}")
    return 0


def _new_password() -> str:
    """From a prompt, twice, or the first line of standard input: never from an argument."""
    if sys.stdin is None:
        raise _Usage("the password is read from a prompt or standard input, which is closed")
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise _Usage("the two passwords differ; nothing was changed")
    return password


def _sandbox(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.sandbox.server import run_command

    del settings
    run_command(
        host=options.host,
        port=options.port,
        seed=options.seed,
        events=options.events,
        days=options.days,
        mode=options.mode,
    )
    return 0


def _bench(options: argparse.Namespace, settings: Settings) -> int:
    del settings
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks").is_dir():
        raise _Usage("bench: the benchmarks folder is not beside billing_core; run it from a clone of the repository")
    sys.path.insert(0, str(root))
    missing = [package for package in ("psutil", "playwright") if find_spec(package) is None]
    if missing:
        raise _Usage(
            f"bench: {' and '.join(missing)} not installed; run `make bench`, or "
            "`pip install -r requirements-dev.txt` first"
        )
    from benchmarks.table import run_all

    figures = run_all(events=options.events)
    if options.json:
        print_json(figures)
    else:
        from benchmarks.table import as_text

        print(as_text(figures))
    return 0
