"""Late usage of a closed month counts in the open month: when it was booked, not when it happened.

Nothing is re-dated: an event's own times stay. `accounted_at` says when it counts, and only events that came, or
changed, after their month was closed have one (CONTRACT section 4, the last line).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from billing_core.ledger.engine import Writer

INSTANT = timedelta(microseconds=1)

_CLOSED = """EXISTS (SELECT 1 FROM closes c WHERE c.reopened_at IS NULL AND {moment} >= c.start_at
             AND {moment} < c.end_at)"""

_FROZEN = """SELECT f.id FROM closed_events f JOIN closes c ON c.seq = f.close_seq AND c.reopened_at IS NULL"""


def after_closes(writer: Writer, now: datetime) -> datetime:
    """A time for entries of this transaction that lies after every close made so far.

    `now` may have been read before a close that this transaction waited for; what is written after it is not part of
    it, and has to say so.
    """
    last = writer.rows("SELECT max(closed_at) FROM closes")[0][0]
    return now if last is None else max(now, last.replace(tzinfo=UTC) + INSTANT)


def carry_over(writer: Writer, *, seq: int, now: datetime) -> None:
    """Count the events that booking number `seq` wrote in an open month, if their own is closed.

    What is carried already stays where it counts until that month is closed as well. An event that left a closed
    month, because an earlier or later beginning of it became known, counts when it began.
    """
    if not writer.rows("SELECT 1 FROM closes WHERE reopened_at IS NULL LIMIT 1"):
        return
    closed = _CLOSED.format(moment='"timestamp"')
    writer.rows(
        f"""UPDATE events SET accounted_at = CASE WHEN {closed} THEN ? ELSE "timestamp" END
            WHERE seq = ? AND (accounted_at IS NULL OR {_CLOSED.format(moment="accounted_at")})
            AND ({closed} OR id IN ({_FROZEN}))""",
        [now, seq],
    )
