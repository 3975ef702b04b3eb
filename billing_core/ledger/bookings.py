"""Booking numbers: every change of events has one, and they grow by one."""

from __future__ import annotations

from datetime import datetime

from billing_core.ledger.engine import Rows, Writer


def newest_booking(rows: Rows) -> int:
    """The newest booking number; 0 in a ledger without events."""
    return int(rows("SELECT coalesce(max(seq), 0) FROM bookings", [])[0][0])


def note_changes(writer: Writer, seq: int, *, run_id: str, now: datetime, changed: int) -> None:
    """Write down a booking that changed events and brought none."""
    booking = {"seq": seq, "booked_at": now, "run_id": run_id}
    writer.insert("bookings", {**booking, "events_new": 0, "events_changed": changed, "events_unchanged": 0})
