"""The embedded ledger's schema, as numbered changes: the newest number is the schema this program knows.

A change that was released is never edited; the next one changes what it made. Those a ledger lacks are made in one
transaction when it is opened, which a new ledger goes through from the first on.
"""

from __future__ import annotations

from collections.abc import Iterator

_FACTS = """
    id VARCHAR, project_id VARCHAR, trace_base VARCHAR, "timestamp" TIMESTAMP, ended_at TIMESTAMP,
    organization_id VARCHAR, customer_id VARCHAR, user_id VARCHAR, session_id VARCHAR, chatflow_id VARCHAR,
    chatflow_name VARCHAR, environment VARCHAR, models VARCHAR, tokens_in BIGINT, tokens_out BIGINT,
    tokens_total BIGINT, latency_seconds DECIMAL(18,6), storage_gb DECIMAL(24,12), cost_usd DECIMAL(18,12),
    ai_credentials_ownership VARCHAR, credits_ai_tokens DECIMAL(18,6), credits_compute DECIMAL(18,6),
    credits_storage DECIMAL(18,6), credits_total DECIMAL(18,6), credit_price_usd DECIMAL(18,12),
    rate_card_version VARCHAR, sync_status ENUM('confirmed', 'error', 'excluded', 'pending', 'processed',
    'sending'), sync_error VARCHAR, flags VARCHAR, usage STRUCT(model VARCHAR, input BIGINT, output BIGINT,
    cache_read BIGINT, cache_write BIGINT, reasoning BIGINT, other BIGINT, cost_usd DECIMAL(24,12))[],
    observations BIGINT, problems VARCHAR, metadata VARCHAR
"""
_OWN = "quarter_hour INTEGER, meter_event_identifier VARCHAR, synced_at TIMESTAMP, marks VARCHAR, "
_OWN += "seq BIGINT, revision BIGINT, booked_at TIMESTAMP, run_id VARCHAR"
_SUPERSEDED = "superseded_seq BIGINT, superseded_at TIMESTAMP, changed_columns VARCHAR"

_FIRST = (
    f"CREATE TABLE events ({_FACTS}, {_OWN})",
    f"CREATE TABLE event_revisions ({_FACTS}, {_OWN}, {_SUPERSEDED})",
    """
    CREATE TABLE audit (
        seq BIGINT, happened_at TIMESTAMP, actor VARCHAR, action VARCHAR, detail VARCHAR, previous_hash VARCHAR,
        hash VARCHAR
    )
    """,
    """
    CREATE TABLE bookings (
        seq BIGINT, booked_at TIMESTAMP, run_id VARCHAR, events_new BIGINT, events_changed BIGINT,
        events_unchanged BIGINT
    )
    """,
    """
    CREATE TABLE meta (
        name VARCHAR, value VARCHAR
    )
    """,
    """
    CREATE TABLE rate_cards (
        card_id VARCHAR, fingerprint VARCHAR, content VARCHAR, registered_at TIMESTAMP
    )
    """,
    """
    CREATE TABLE runs (
        run_id VARCHAR, started_at TIMESTAMP, ended_at TIMESTAMP, actor VARCHAR, api VARCHAR,
        window_start TIMESTAMP, window_end TIMESTAMP, incremental BOOLEAN, observations BIGINT,
        duplicates BIGINT, events_new BIGINT, events_changed BIGINT, events_unchanged BIGINT, rejected BIGINT,
        outcome VARCHAR, error VARCHAR
    )
    """,
)

_STRIPE = (
    "ALTER TABLE events RENAME TO former_events",
    "ALTER TABLE event_revisions RENAME TO former_revisions",
    f"CREATE TABLE events ({_FACTS}, updated_at TIMESTAMP, {_OWN})",
    f"CREATE TABLE event_revisions ({_FACTS}, updated_at TIMESTAMP, {_OWN}, {_SUPERSEDED})",
    "INSERT INTO events BY NAME SELECT * FROM former_events",
    "INSERT INTO event_revisions BY NAME SELECT * FROM former_revisions",
    "DROP TABLE former_events",
    "DROP TABLE former_revisions",
    """
    CREATE TABLE coverage (
        identifier VARCHAR, event_id VARCHAR, customer_id VARCHAR, credits DECIMAL(18,6)
    )
    """,
    """
    CREATE TABLE holds (
        event_id VARCHAR, cause VARCHAR, reason VARCHAR, actor VARCHAR, held_at TIMESTAMP,
        released_at TIMESTAMP, released_by VARCHAR
    )
    """,
    """
    CREATE TABLE intents (
        identifier VARCHAR, event_name VARCHAR, customer_id VARCHAR, source VARCHAR, revision BIGINT,
        stamp TIMESTAMP, credits DECIMAL(18,6), carried_before DECIMAL(18,6), value BIGINT, events BIGINT,
        state VARCHAR, created_at TIMESTAMP, attempts BIGINT, first_attempt_at TIMESTAMP,
        last_attempt_at TIMESTAMP, unknown_since TIMESTAMP, answered_at TIMESTAMP, answer VARCHAR, code VARCHAR,
        request_id VARCHAR, confirmed_at TIMESTAMP, push_id VARCHAR
    )
    """,
    """
    CREATE TABLE pushes (
        push_id VARCHAR, started_at TIMESTAMP, ended_at TIMESTAMP, actor VARCHAR, outcome VARCHAR,
        result VARCHAR, error VARCHAR
    )
    """,
    """
    CREATE TABLE reconciliations (
        id VARCHAR, made_at TIMESTAMP, actor VARCHAR, window_start TIMESTAMP, window_end TIMESTAMP,
        result VARCHAR
    )
    """,
    """
    CREATE TABLE stripe_objects (
        kind VARCHAR, id VARCHAR, customer_id VARCHAR, content VARCHAR, read_at TIMESTAMP
    )
    """,
    """
    CREATE TABLE write_backs (
        event_id VARCHAR, status VARCHAR, written_at TIMESTAMP
    )
    """,
)
"""`updated_at` stands before the ledger's own columns, so both tables are written anew."""

_ORGANIZATIONS = (
    "ALTER TABLE events ADD COLUMN has_error BOOLEAN",
    "ALTER TABLE event_revisions ADD COLUMN has_error BOOLEAN",
    """
    CREATE TABLE anomaly_marks (
        organization_id VARCHAR, day VARCHAR, credits DECIMAL(38,6), seen_at TIMESTAMP, seen_by VARCHAR,
        note VARCHAR
    )
    """,
    """
    CREATE TABLE limit_notices (
        id VARCHAR, organization_id VARCHAR, customer_id VARCHAR, plan VARCHAR, threshold BIGINT,
        period_start TIMESTAMP, period_end TIMESTAMP, included BIGINT, used DECIMAL(38,6), raised_at TIMESTAMP,
        seen_at TIMESTAMP, seen_by VARCHAR
    )
    """,
    """
    CREATE TABLE organization_directory (
        seq BIGINT, organization_id VARCHAR, name VARCHAR, customer_id VARCHAR, changed_at TIMESTAMP,
        changed_by VARCHAR, source VARCHAR
    )
    """,
    """
    CREATE TABLE webhook_attempts (
        notice_id VARCHAR, attempt BIGINT, attempted_at TIMESTAMP, outcome VARCHAR, status BIGINT, error VARCHAR
    )
    """,
)

_CLOSES = (
    "ALTER TABLE events ADD COLUMN accounted_at TIMESTAMP",
    "ALTER TABLE events ADD COLUMN billed_elsewhere BOOLEAN",
    "ALTER TABLE event_revisions ADD COLUMN accounted_at TIMESTAMP",
    "ALTER TABLE event_revisions ADD COLUMN billed_elsewhere BOOLEAN",
    f"""
    CREATE TABLE closed_events (
        {_FACTS}, updated_at TIMESTAMP, {_OWN},
        has_error BOOLEAN, accounted_at TIMESTAMP, billed_elsewhere BOOLEAN, close_seq BIGINT, moment TIMESTAMP,
        is_reversal BOOLEAN
    )
    """,
    """
    CREATE TABLE closes (
        seq BIGINT, period VARCHAR, timezone VARCHAR, start_at TIMESTAMP, end_at TIMESTAMP, closed_at TIMESTAMP,
        closed_by VARCHAR, manifest VARCHAR, sha256 VARCHAR, reopened_seq BIGINT, reopened_at TIMESTAMP,
        reopened_by VARCHAR, reopen_reason VARCHAR
    )
    """,
    """
    CREATE TABLE imported_cards (
        import_id VARCHAR, content VARCHAR, imported_at TIMESTAMP, imported_by VARCHAR, undone_at TIMESTAMP
    )
    """,
    """
    CREATE TABLE imports (
        id VARCHAR, kind VARCHAR, file_name VARCHAR, sha256 VARCHAR, seq BIGINT, imported_at TIMESTAMP,
        imported_by VARCHAR, result VARCHAR, undone_seq BIGINT, undone_at TIMESTAMP, undone_by VARCHAR
    )
    """,
)

_SENT_ELSEWHERE = (
    """
    CREATE TABLE sent_elsewhere (
        customer_id VARCHAR, hour TIMESTAMP, counted DECIMAL(18,6), delivered DECIMAL(18,6), found_at TIMESTAMP,
        released_at TIMESTAMP, released_by VARCHAR
    )
    """,
)

_WITH_USAGE = ("events", "event_revisions", "closed_events")
_LINE = (
    "STRUCT(model VARCHAR, name VARCHAR, type VARCHAR, level VARCHAR, key VARCHAR, "
    "quantity BIGINT, cost_usd DECIMAL(24,12), repeats BOOLEAN, unpriced BOOLEAN)[]"
)
_POLICIES = (
    *(f"ALTER TABLE {table} ADD COLUMN named_customer_id VARCHAR" for table in _WITH_USAGE),
    *(f"ALTER TABLE {table} ADD COLUMN policy VARCHAR" for table in _WITH_USAGE),
    *(f"ALTER TABLE {table} ADD COLUMN active_seconds DECIMAL(18,6)" for table in _WITH_USAGE),
    *(f"ALTER TABLE {table} ADD COLUMN usage_lines {_LINE}" for table in _WITH_USAGE),
    """
    CREATE TABLE policies (
        policy VARCHAR, content VARCHAR, first_used_at TIMESTAMP
    )
    """,
    """
    CREATE TABLE policy_facts (
        event_id VARCHAR, policy VARCHAR, named_customer_id VARCHAR, organization_id VARCHAR, user_id VARCHAR,
        chatflow_id VARCHAR, chatflow_name VARCHAR, ai_credentials_ownership VARCHAR, storage_gb DECIMAL(24,12),
        is_legacy BOOLEAN
    )
    """,
)

_SAVED_VIEWS = (
    """
    CREATE TABLE saved_views (
        id VARCHAR, owner VARCHAR, name VARCHAR, page VARCHAR, query VARCHAR, shared_with VARCHAR, changed_at TIMESTAMP
    )
    """,
    """
    CREATE TABLE start_views (
        person VARCHAR, view_id VARCHAR
    )
    """,
)

_ALERTS = (
    "ALTER TABLE webhook_attempts ADD COLUMN address VARCHAR",
    """
    CREATE TABLE alert_rules (
        id VARCHAR, revision BIGINT, name VARCHAR, content VARCHAR, created_at TIMESTAMP, created_by VARCHAR,
        changed_at TIMESTAMP, changed_by VARCHAR, muted_until TIMESTAMP, muted_by VARCHAR, mute_reason VARCHAR,
        removed_at TIMESTAMP, removed_by VARCHAR
    )
    """,
    """
    CREATE TABLE alert_firings (
        id VARCHAR, rule_id VARCHAR, revision BIGINT, subject VARCHAR, occasion VARCHAR, window_start TIMESTAMP,
        window_end TIMESTAMP, fired_at TIMESTAMP, fired_by VARCHAR, content VARCHAR, addresses VARCHAR
    )
    """,
)

_SETTLEMENTS = (
    """
    CREATE TABLE settlements (
        id VARCHAR, kind VARCHAR, customer_id VARCHAR, month VARCHAR, timezone VARCHAR, state VARCHAR,
        idempotency_key VARCHAR, credits DECIMAL(38,6), amount_usd DECIMAL(38,18), amount BIGINT, currency VARCHAR,
        item_id VARCHAR, invoice_id VARCHAR, invoice_status VARCHAR, reason VARCHAR, actor VARCHAR, made_at TIMESTAMP,
        unknown_since TIMESTAMP, answered_at TIMESTAMP, answer VARCHAR, request_id VARCHAR, checked_at TIMESTAMP,
        taken_back_at TIMESTAMP, taken_back_by VARCHAR, taken_back_reason VARCHAR
    )
    """,
    """
    CREATE TABLE settlement_events (
        settlement_id VARCHAR, event_id VARCHAR, customer_id VARCHAR, credits DECIMAL(18,6), amount_usd DECIMAL(38,18),
        stamp TIMESTAMP, revision BIGINT, sync_status VARCHAR, sync_error VARCHAR, meter_event_identifier VARCHAR,
        synced_at TIMESTAMP, held_cause VARCHAR, held_reason VARCHAR, held_by VARCHAR
    )
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST,
    _STRIPE,
    _ORGANIZATIONS,
    _CLOSES,
    _SENT_ELSEWHERE,
    _POLICIES,
    _SAVED_VIEWS,
    _ALERTS,
    _SETTLEMENTS,
)
"""Statements of each change; the first makes schema 1."""

SCHEMA_VERSION = len(MIGRATIONS)


def statements_since(version: int) -> Iterator[str]:
    """The SQL that brings a ledger of schema `version` (0: a new file) to `SCHEMA_VERSION`, number included."""
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        yield from statements
        yield "DELETE FROM meta WHERE name = 'schema_version'"
        yield f"INSERT INTO meta VALUES ('schema_version', '{number}')"
