"""Commands that keep an installation safe: backup and restore. Part of `billing_core.cli`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from billing_core.cli.support import add_json, open_service, os_principal, print_json
from billing_core.settings import Settings
from billing_core.values.counts import count_of


def add_backup_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands `backup` and `restore` to the parser."""
    backup = command(
        "backup", _backup, "back up ledger, accounts, tokens and sessions in one archive, while everything runs"
    )
    backup.add_argument("path", metavar="PATH", help="a new file, or an earlier backup, which it replaces when done")
    add_json(backup)

    restore = command("restore", _restore, "restore a backup to where the settings say, if nothing is there yet")
    restore.add_argument("path", metavar="PATH")
    add_json(restore)


def _backup(options: argparse.Namespace, settings: Settings) -> int:
    with open_service(settings) as service:
        done = service.back_up(Path(options.path), os_principal())
    if options.json:
        print_json(done.to_json())
    else:
        rows = sum(table.rows for table in done.manifest.tables)
        print(
            f"{done.path}: {count_of(len(done.manifest.files), 'file')}, {count_of(rows, 'row')}, "
            f"{done.bytes:,} bytes, SHA-256 {done.sha256}"
        )
    return 0


def _restore(options: argparse.Namespace, settings: Settings) -> int:
    from billing_core.backups.restore import restore

    done = restore(settings, Path(options.path))
    with open_service(settings) as service:
        service.audit(os_principal().name, "restore", {"sha256": done.sha256, "made_at": done.manifest.made_at})
    if options.json:
        print_json(done.to_json())
    else:
        for name, place in done.placed.items():
            print(f"{name}: {place}")
        print(f"restored as of {done.manifest.made_at}; run `verify` for closed months, then `pull` and `push`")
    for name, was, now in done.differs:
        print(f"{name} was {was!r} where the backup was made and is {now!r} here", file=sys.stderr)
    return 0
