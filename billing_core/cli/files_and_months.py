"""Commands for files and months: export, import, rerate, close, verify, reopen. Part of `billing_core.cli`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_core.cli.support import (
    EXIT_SOME_FAILED,
    add_filters,
    add_json,
    add_window,
    aligned,
    open_service,
    open_stripe_service,
    os_principal,
    params_of,
    print_json,
    share_bar,
    time_of,
)
from billing_core.errors import BadParameter
from billing_core.settings import Settings
from billing_core.values.counts import count_of

if TYPE_CHECKING:
    from billing_core.exports.model import ExportProgress

SHOWN = 20
"""Rejected rows and differences that are printed for people; `--json` has more."""

COMPARED = ("old", "new", "delta", "delta_usd")
"""What `rerate` prints of an organization: credits, and US dollars of their difference."""

Command = Callable[[str, Callable[[argparse.Namespace, Settings], int], str], argparse.ArgumentParser]


def add_commands(command: Command) -> None:
    """Add the commands for files and months to the parser."""
    export = command("export", _export, "write usage, organizations, customers, rate cards or everything to a file")
    export.add_argument("--dataset", required=True, metavar="D", help="usage-events, organizations, … or bundle")
    export.add_argument(
        "--format",
        metavar="F",
        help="csv, xlsx, parquet, json, focus, journal, datev, xero or quickbooks; a bundle is a zip",
    )
    export.add_argument("--out", required=True, metavar="PATH", help="written under a temporary name, then renamed")
    export.add_argument("--grain", metavar="event|day", help="one row per event (default) or per day")
    export.add_argument("--columns", metavar="A,B", help="only these columns, in this order")
    export.add_argument("--timezone", metavar="ZONE", help="timezone of days; default BILLING_TIMEZONE")
    export.add_argument("--separator", metavar="CHARACTER", help="CSV separator: , ; | or tab")
    export.add_argument("--bom", action="store_true", help="start the CSV with a byte order mark, for spreadsheets")
    export.add_argument("--user-ids", action="store_true", help="FOCUS: with user and session ids (personal data)")
    export.add_argument("--internal", action="store_true", help="FOCUS: with our own cost and margin")
    export.add_argument("--focus-version", metavar="V", help="1.2 (default) or 1.4")
    add_window(export)
    add_filters(export)
    add_json(export)

    bring = command("import", _import, "import usage events, a rate card, a customer map or a bundle from a file")
    bring.add_argument("file", metavar="FILE")
    bring.add_argument("--dry-run", action="store_true", help="preview only; nothing is changed")
    bring.add_argument("--skip-bad-rows", action="store_true", help="import the good rows of a file that has bad ones")
    bring.add_argument("--timezone", metavar="Z", help="timezone of times without an offset, e.g. Europe/Berlin")
    add_json(bring)

    undo = command("undo-import", _undo, "undo an import, as one revision")
    undo.add_argument("import_id", metavar="IMPORT_ID")
    add_json(undo)

    rerate = command(
        "rerate",
        _rerate,
        "show what past usage would have cost under another card, or whom it would bill under the current settings",
    )
    by = rerate.add_mutually_exclusive_group(required=True)
    by.add_argument(
        "--rate-card", metavar="FILE", help="re-rate with this card instead of the one each event was rated with"
    )
    by.add_argument(
        "--settings", action="store_true", help="decide customer and exclusion by the settings in force now"
    )
    rerate.add_argument("--apply", action="store_true", help="apply the differences")
    add_window(rerate)
    add_json(rerate)

    close = command("close", _close, "freeze a month with a manifest")
    close.add_argument("period", metavar="PERIOD", help="such as 2026-10, in BILLING_TIMEZONE")
    close.add_argument(
        "--accept",
        action="append",
        nargs="+",
        default=[],
        metavar="CAUSE",
        help="close although this cause is unresolved",
    )
    close.add_argument("--reason", default="", metavar="TEXT", help="why it is accepted; recorded in the manifest")
    add_json(close)

    verify = command("verify", _verify, "prove that a closed month has not changed")
    verify.add_argument("period", metavar="PERIOD")
    add_json(verify)

    reopen = command("reopen", _reopen, "reopen a closed month")
    reopen.add_argument("period", metavar="PERIOD")
    reopen.add_argument("--reason", required=True, metavar="TEXT")
    add_json(reopen)


def _choice(kind: Any, name: str, value: str | None, default: Any = None) -> Any:
    if value is None:
        return default
    try:
        return kind(value)
    except ValueError:
        raise BadParameter(name, value, "one of " + ", ".join(kind)) from None


def _export(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.backups.places import refuse_own
    from billing_core.exports.model import Dataset, ExportRequest, Format, Grain

    dataset = _choice(Dataset, "dataset", options.dataset)
    form = _choice(Format, "format", options.format)
    if form is None and dataset is not Dataset.BUNDLE:
        raise BadParameter("format", "", "one of " + ", ".join(Format))
    path = Path(options.out)
    request = ExportRequest(
        dataset,
        None if dataset is Dataset.BUNDLE else form,
        params_of(options),
        columns=tuple(name.strip() for name in options.columns.split(",")) if options.columns else (),
        grain=_choice(Grain, "grain", options.grain, Grain.EVENT),
        timezone=options.timezone,
        separator={"tab": "\t", "\\t": "\t"}.get(options.separator or ",", options.separator or ","),
        bom=options.bom,
        parquet=path.suffix.lower() != ".csv",
        user_ids=options.user_ids,
        internal=options.internal,
        focus_version=options.focus_version or "1.2",
    )
    refuse_own(settings, path, "out")
    with open_stripe_service(settings) as service, _rows_bar() as progress:
        result = service.exports.write(request, os_principal(), path, progress=progress)
    if options.json:
        print_json(result.to_json())
    else:
        print(f"{path}: {count_of(result.rows, 'row')}, {result.bytes:,} bytes, SHA-256 {result.sha256}")
    return 0


@contextmanager
def _rows_bar() -> Iterator[Callable[[ExportProgress], None]]:
    from tqdm import tqdm

    with tqdm(unit=" rows", unit_scale=True, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:

        def show(progress: ExportProgress) -> None:
            bar.total = progress.total
            bar.n = progress.rows
            bar.set_description_str(progress.doing, refresh=True)

        yield show


def _import(options: argparse.Namespace, settings: Settings) -> int:
    path = Path(options.file)
    document: dict[str, Any] = {"rows": 0, "new": 0, "changed": 0, "unchanged": 0}
    with open_service(settings) as service:
        try:
            plan = service.imports.plan(
                path, os_principal(), skip_bad_rows=options.skip_bad_rows, timezone=options.timezone
            )
            document = plan.to_json()
            refused = not plan.can_apply
            if not options.dry_run and not refused:
                document = service.imports.apply(plan, os_principal()).to_json()
        except BadParameter as error:
            if not options.json:
                raise
            said = {"row": 0, "field": error.parameter, "reason": str(error)}
            print(f"error: {error}", file=sys.stderr)
            print_json({**document, "error": str(error), "rejected": document.get("rejected") or [said]})
            return error.exit_code
    if options.json:
        print_json(document)
    else:
        _print_import(document, applied=not options.dry_run and not refused)
    for row in document["rejected"][:SHOWN]:
        print(f"row {row['row']}: {row['field']}: {row['reason']}", file=sys.stderr)
    for warning in document.get("warnings", ()):
        print(warning, file=sys.stderr)
    if refused:
        says = "nothing was imported; correct the file, or import the good rows with --skip-bad-rows"
        print(f"error: {count_of(plan.rejected_rows, 'row')} rejected: {says}", file=sys.stderr)
        return 2
    return EXIT_SOME_FAILED if plan.rejected_rows else 0


def _print_import(document: dict[str, Any], *, applied: bool) -> None:
    print(
        f"{document['kind']}: {document['rows']:,} rows: {document['new']:,} new, {document['changed']:,} changed, "
        f"{document['unchanged']:,} unchanged, {document.get('rejected_rows', len(document['rejected'])):,} rejected"
    )
    head = ("organization", "events", "credits", "USD")
    rows = [
        (row["organization_id"] or "(none)", f"{row['events']:,}", row["credits"], row["amount_usd"])
        for row in document.get("organizations", ())
    ]
    if rows:
        print(aligned(head, rows))
    if not document["rows"] and not document["rejected"]:
        print("the file holds 0 rows: there is nothing to import")
    elif not applied:
        print("nothing was changed")


def _undo(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        document = service.imports.undo(options.import_id, os_principal()).to_json()
    if options.json:
        print_json(document)
    else:
        print(json.dumps(document, ensure_ascii=False))
    return 0


def _rerate(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.rating.card import load_rate_cards

    start, end = time_of("from", options.start), time_of("to", options.end)
    cards = None if options.settings else load_rate_cards(Path(options.rate_card), "--rate-card")
    with open_service(settings) as service, share_bar() as progress:
        rerating = service.rerating
        if cards is None:
            look = rerating.apply_settings if options.apply else rerating.under_settings
            document = look(os_principal(), start, end, progress=progress).to_json()
        else:
            do = rerating.apply if options.apply else rerating.what_if
            document = do(os_principal(), cards, start, end, progress=progress).to_json()
    for reason in document["not_rerated"]:
        print(f"{reason['reason']}: {reason['events']:,} events: {reason['says']}", file=sys.stderr)
    if options.json:
        print_json(document)
        return 0
    if options.settings:
        paid = [
            (row["customer_id"] or "(nobody)", row["old"], row["new"], row["delta"]) for row in document["customers"]
        ]
        print(aligned(("customer", "old", "new", "delta"), paid))
    head = ("organization", "events", "old", "new", "delta", "delta USD")
    rows = [
        (
            row["organization_id"] or "(none)",
            f"{row['events']:,}",
            row["old"],
            row["new"],
            row["delta"],
            row["delta_usd"],
        )
        for row in document["organizations"]
    ]
    print(aligned(head, rows))
    done = "booked" if options.apply else "would change; nothing was applied"
    print(f"{document['events']:,} events looked at, {document['delta_credits']} credits {done}")
    return 0


def _close(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.month_close.rules import NOT_OVER

    accepted = [cause for causes in options.accept for cause in causes]
    with open_stripe_service(settings) as service, share_bar() as progress:
        closing = service.months.close(
            options.period, os_principal(), accept=accepted, reason=options.reason, progress=progress
        )
    if options.json:
        print_json(closing.to_json())
    elif closing.manifest is not None:
        totals = closing.manifest["totals"]
        print(
            f"{options.period} is closed{' already' if closing.was_closed else ''}: {totals['events']:,} events, "
            f"{totals['credits_total']} credits, {totals['amount_usd']} USD"
        )
    for obstacle in closing.obstacles:
        worth = "" if obstacle.credits is None else f", {obstacle.credits:f} credits"
        print(f"{obstacle.cause}: {count_of(obstacle.events, 'event')}{worth}: {obstacle.says}", file=sys.stderr)
    causes = " ".join(sorted({one.cause for one in closing.obstacles if one.group.value != NOT_OVER}))
    if causes:
        print(f"{options.period} is not closed; to close it all the same: --accept {causes}", file=sys.stderr)
    return 0 if closing.ok else EXIT_SOME_FAILED


def _verify(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service, share_bar() as progress:
        found = service.months.verify(options.period, os_principal(), progress=progress)
    if options.json:
        print_json(found.to_json())
    elif found.ok:
        print(f"{options.period} is unchanged since it was closed; checked: {', '.join(found.checked)}")
    for difference in found.differences:
        print(f"{difference.what}: {difference.says}", file=sys.stderr)
    return 0 if found.ok else EXIT_SOME_FAILED


def _reopen(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        service.months.reopen(options.period, os_principal(), options.reason)
    if options.json:
        print_json({"period": options.period, "ok": True})
    else:
        print(f"{options.period} is open again")
    return 0
