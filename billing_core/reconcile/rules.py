"""The SQL of a comparison, over the registered tables `upstream`, `ledger`, `coverage`, `intents`, `holds`,
`settled`.

The engine variables `window_start`, `window_end` and `lag_since` must be set. `day` is null outside the window: such
a place is in no row.
"""

from __future__ import annotations

VIEWS = (
    """CREATE MACRO day_of(moment) AS CASE WHEN moment >= getvariable('window_start')
       AND moment < getvariable('window_end') THEN moment::DATE END""",
    """CREATE VIEW fresh AS SELECT id, customer_id AS customer, credits_total AS credits, flags,
       day_of("timestamp") AS day FROM upstream""",
    """CREATE VIEW booked AS SELECT id, customer_id AS customer, credits_total AS credits, sync_status AS status, flags,
       contains(marks, 'changed_after_sending') AS changed, contains(marks, 'carried') AS carried,
       contains(marks, 'missing_at_source') AS gone,
       contains(flags, 'legacy_billed') OR coalesce(billed_elsewhere, false) AS legacy,
       coalesce(billed_elsewhere, false) AS imported, "timestamp",
       day_of("timestamp") AS day FROM ledger""",
    """CREATE VIEW covering AS SELECT identifier, event_id, customer_id AS customer, credits, state,
       state IN ('accepted', 'confirmed') AS sent,
       day_of(stamp) AS day FROM coverage""",
    """CREATE VIEW sent_intents AS SELECT * FROM intents WHERE state IN ('accepted', 'confirmed')
       AND day_of(stamp) IS NOT NULL""",
    """CREATE VIEW held AS SELECT event_id, bool_or(cause = 'no_customer') AS nobody, bool_or(cause = 'too_old') AS old,
       bool_or(cause = 'sent_elsewhere') AS is_elsewhere
       FROM holds GROUP BY event_id""",
)

ENTRIES = """
CREATE TEMP TABLE entries (customer VARCHAR, day DATE, step VARCHAR, cause VARCHAR, credits DECIMAL(38, 6), id VARCHAR,
                           identifier VARCHAR)
"""

COVERED = """
CREATE TEMP TABLE covered AS  -- per event: what its intents cover for the customer it has now
SELECT c.event_id AS id,
       coalesce(sum(c.credits) FILTER (c.sent AND c.customer = b.customer), 0) AS sent,
       coalesce(sum(c.credits) FILTER (c.sent AND c.customer = b.customer AND c.day = b.day), 0) AS sent_here,
       coalesce(sum(c.credits) FILTER (c.state = 'sending' AND c.customer = b.customer), 0) AS unknown,
       coalesce(sum(c.credits) FILTER (c.state = 'open' AND c.customer = b.customer), 0) AS written,
       bool_or(c.sent) AS was_sent, bool_or(c.state = 'rejected') AS was_rejected,
       bool_or(c.state NOT IN ('rejected', 'void')) AS is_covered
FROM covering c LEFT JOIN booked b ON b.id = c.event_id GROUP BY c.event_id
"""

SETTLED = """
CREATE TEMP TABLE settled_parts AS  -- per event: what settlements take off what it owes the customer it has now
SELECT id, invoiced, unknown, greatest(least(rest, 0), least(greatest(rest, 0), written_off)) AS written_off FROM (
    SELECT b.id, any_value(b.credits) - coalesce(any_value(c.sent + c.unknown + c.written), 0)
               - coalesce(sum(s.credits) FILTER (NOT s.is_written_off AND s.customer_id = b.customer), 0) AS rest,
           coalesce(sum(s.credits) FILTER (NOT s.is_written_off AND NOT s.is_unknown AND s.customer_id = b.customer), 0)
               AS invoiced,
           coalesce(sum(s.credits) FILTER (s.is_unknown AND s.customer_id = b.customer), 0) AS unknown,
           coalesce(sum(s.credits) FILTER (s.is_written_off
               AND (s.credits > 0 OR s.customer_id IS NOT DISTINCT FROM b.customer)), 0) AS written_off
    FROM settled s JOIN booked b ON b.id = s.event_id LEFT JOIN covered c ON c.id = b.id GROUP BY b.id)
"""

LANGFUSE_LEDGER = """
WITH differing AS (
    SELECT coalesce(f.id, b.id) AS id, f.customer AS f_customer, f.day AS f_day, f.credits AS f_credits,
           b.customer AS b_customer, b.day AS b_day, b.credits AS b_credits, f.id IS NULL AND b.gone AS is_missing,
           b.status IN ('sending', 'processed', 'confirmed')
               AND NOT b.imported
               AND NOT (b.legacy AND coalesce(contains(f.flags, 'legacy_billed'), false)) AS on_its_way,
           contains(f.flags, 'policy_differs') AS differs
    FROM fresh f FULL JOIN booked b ON b.id = f.id
    WHERE f.id IS NULL OR b.id IS NULL OR f.credits <> b.credits OR f.customer IS DISTINCT FROM b.customer
       OR f.day IS DISTINCT FROM b.day
), caused AS (
    SELECT d.*, CASE WHEN coalesce(d.is_missing, false) THEN 'missing_at_source'
                     WHEN coalesce(d.differs, false) THEN 'policy_differs'
                     WHEN coalesce(d.on_its_way, false) OR coalesce(c.is_covered, false) THEN 'changed_after_sending'
                     ELSE 'late' END AS cause
    FROM differing d LEFT JOIN covered c ON c.id = d.id
), sides AS (
    SELECT f_customer AS customer, f_day AS day, cause, f_credits AS credits, id FROM caused
    UNION ALL SELECT b_customer, b_day, cause, -b_credits, id FROM caused
)
INSERT INTO entries
SELECT customer, day, 'langfuse_ledger', cause, sum(credits), id, NULL FROM sides WHERE day IS NOT NULL
GROUP BY customer, day, cause, id HAVING sum(credits) <> 0
"""

LEDGER_SENT = """
CREATE TEMP TABLE unsent AS  -- events of which the sent intents of their own row cover more or less than they are worth
SELECT b.id, b.customer, b.day, b.credits - coalesce(c.sent, 0) AS missing,
       coalesce(c.sent, 0) - coalesce(c.sent_here, 0) AS elsewhere,
       CASE WHEN b.legacy THEN 0 ELSE coalesce(c.unknown, 0) END + coalesce(s.unknown, 0) AS unknown,
       coalesce(s.invoiced, 0) AS invoiced, coalesce(s.written_off, 0) AS written_off,
       CASE WHEN b.legacy THEN 0 ELSE coalesce(c.written, 0) END AS written,
       CASE WHEN b.legacy THEN 'legacy_billed'
            WHEN b.customer IS NULL OR h.nobody THEN 'no_customer'
            WHEN h.old THEN 'too_old'
            WHEN h.is_elsewhere THEN 'sent_elsewhere'
            WHEN h.event_id IS NOT NULL THEN 'held'
            WHEN b.status = 'error' AND coalesce(c.was_rejected, false) THEN 'rejected'
            WHEN b.status = 'error' THEN 'held'
            WHEN b.changed OR coalesce(c.was_sent, false) OR s.id IS NOT NULL THEN 'changed_after_sending'
            WHEN b.carried THEN 'carried_fraction'
            WHEN b.status = 'pending' THEN 'late' END AS cause,  -- a status that no intent bears out has none
       CASE WHEN b.changed OR abs(elsewhere) >= 1 THEN 'changed_after_sending' ELSE 'carried_fraction' END AS moved
FROM booked b LEFT JOIN covered c ON c.id = b.id LEFT JOIN held h ON h.event_id = b.id
     LEFT JOIN settled_parts s ON s.id = b.id
WHERE b.day IS NOT NULL AND (b.credits <> coalesce(c.sent, 0) OR coalesce(c.sent, 0) <> coalesce(c.sent_here, 0));

CREATE TEMP TABLE strangers AS  -- events in a row's intents that are not of that row
SELECT c.customer, c.day, c.event_id AS id, sum(c.credits) AS credits,
       CASE WHEN any_value(b.id) IS NULL THEN NULL
            WHEN NOT bool_or(coalesce(c.customer = b.customer, false)) OR any_value(b.changed)
              OR abs(sum(c.credits)) >= 1 THEN 'changed_after_sending' ELSE 'carried_fraction' END AS cause
FROM covering c LEFT JOIN booked b ON b.id = c.event_id
WHERE c.sent AND c.day IS NOT NULL AND NOT coalesce(c.customer = b.customer AND c.day = b.day, false)
GROUP BY c.customer, c.day, c.event_id HAVING sum(c.credits) <> 0;

CREATE TEMP TABLE rounded AS  -- per sent intent: rounding down, and whether it is what it says it is
SELECT i.customer_id AS customer, i.stamp::DATE AS day, i.identifier, i.credits - i.value AS fraction,
       i.credits + i.carried_before - i.value BETWEEN 0 AND 0.999999 AS sound,
       coalesce(c.credits, 0) - i.credits AS uncovered
FROM sent_intents i
LEFT JOIN (SELECT identifier, sum(credits) AS credits FROM coverage GROUP BY ALL) c USING (identifier);

INSERT INTO entries
SELECT customer, day, 'ledger_sent', cause, credits, id, identifier FROM (
    SELECT customer, day, 'unknown_outcome' AS cause, unknown AS credits, id, NULL AS identifier FROM unsent
    UNION ALL SELECT customer, day, 'late', written, id, NULL FROM unsent
    UNION ALL SELECT customer, day, 'invoiced_separately', invoiced, id, NULL FROM unsent
    UNION ALL SELECT customer, day, 'written_off', written_off, id, NULL FROM unsent
    UNION ALL SELECT customer, day, cause, missing - unknown - written - invoiced - written_off, id, NULL FROM unsent
    UNION ALL SELECT customer, day, moved, elsewhere, id, NULL FROM unsent
    UNION ALL SELECT customer, day, cause, -credits, id, NULL FROM strangers
    UNION ALL SELECT customer, day, CASE WHEN sound THEN 'carried_fraction' END, fraction, NULL,
              CASE WHEN NOT sound THEN identifier END FROM rounded
    UNION ALL SELECT customer, day, NULL, uncovered, NULL, identifier FROM rounded
) WHERE credits <> 0;

INSERT INTO entries  -- worth nothing, but people ask where they are
SELECT customer, day, 'ledger_sent', CASE WHEN contains(flags, 'unpriced') THEN 'unpriced' ELSE 'excluded' END, 0,
       id, NULL
FROM booked WHERE day IS NOT NULL
AND ((status = 'excluded' AND id NOT IN (SELECT id FROM settled_parts)) OR contains(flags, 'unpriced'))
"""

PARTS = """
SELECT customer, day, step, cause, sum(credits) AS credits,
       coalesce(list_sort(list(DISTINCT id) FILTER (id IS NOT NULL)), []) AS event_ids,
       coalesce(list_sort(list(DISTINCT identifier) FILTER (identifier IS NOT NULL)), []) AS meter_events
FROM entries
GROUP BY customer, day, step, cause, CASE WHEN cause = 'carried_fraction' THEN 0 ELSE sign(credits) END
"""

SUMS = """
SELECT customer, day, sum(langfuse), sum(ledger) FROM (
    SELECT customer, day, credits AS langfuse, 0::DECIMAL(18, 6) AS ledger FROM fresh WHERE day IS NOT NULL
    UNION ALL SELECT customer, day, 0::DECIMAL(18, 6), credits FROM booked WHERE day IS NOT NULL
) GROUP BY customer, day
"""

SENT = """
SELECT customer_id, date_trunc('hour', stamp), sum(value)::DECIMAL(38, 0) FROM sent_intents GROUP BY ALL
"""

HOUR_INTENTS = """
SELECT i.customer_id, date_trunc('hour', i.stamp), i.identifier, any_value(i.value), any_value(i.state) = 'sending',
       any_value(i.state = 'accepted' AND coalesce(i.answered_at >= getvariable('lag_since'), false)),
       list(c.event_id) FILTER (c.event_id IS NOT NULL)
FROM intents i JOIN differing d ON d.customer = i.customer_id AND d.hour = date_trunc('hour', i.stamp)
LEFT JOIN coverage c ON c.identifier = i.identifier
WHERE i.state IN ('accepted', 'confirmed', 'sending') GROUP BY ALL
"""

HOUR_LEGACY = """
SELECT b.customer, date_trunc('hour', b."timestamp"), b.id, b.credits
FROM booked b JOIN differing d ON d.customer = b.customer AND d.hour = date_trunc('hour', b."timestamp")
WHERE b.legacy AND b.day IS NOT NULL
"""

HOUR_KEPT_BACK = """
SELECT b.customer, date_trunc('hour', b."timestamp"), b.id, b.credits - coalesce(c.sent, 0)
FROM booked b JOIN differing d ON d.customer = b.customer AND d.hour = date_trunc('hour', b."timestamp")
JOIN held h ON h.event_id = b.id AND h.is_elsewhere LEFT JOIN covered c ON c.id = b.id
WHERE b.credits <> coalesce(c.sent, 0)
UNION ALL  -- what its former customer is to get back
SELECT d.customer, d.hour, c.event_id, -sum(c.credits)
FROM coverage c JOIN differing d ON d.customer = c.customer_id AND d.hour = date_trunc('hour', c.stamp)
JOIN held h ON h.event_id = c.event_id AND h.is_elsewhere JOIN booked b ON b.id = c.event_id
WHERE c.state IN ('accepted', 'confirmed') AND c.customer_id IS DISTINCT FROM b.customer GROUP BY ALL
"""
