from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing_core.types import GetUsageEventsParams
from components.usage_events.cards import cards
from tests.factories import EVERYONE, service_over, usage_row


def shown(tmp_path, **facts):
    service = service_over(
        tmp_path / "billing.duckdb", [usage_row(timestamp=datetime(2026, 11, 1, 12, tzinfo=UTC), **facts)]
    )
    try:
        events = service.get_usage_events(GetUsageEventsParams(), EVERYONE).events
    finally:
        service.close()
    return cards(events, ZoneInfo("Europe/Berlin"), {"status": ["pending", "error"]})


def test_a_card_has_status_time_credits_and_amount(tmp_path):
    html = shown(tmp_path, latency_seconds=Decimal(125))
    for text in ("pending", "2026-11-01 13:00:00", "204.17", "$0.0082"):
        assert text in html


def test_a_card_leads_to_the_explanation_in_the_same_view(tmp_path):
    assert 'href="?status=pending&amp;status=error&amp;event=a+b%26c"' in shown(tmp_path, id="a b&c")


def test_text_from_outside_is_shown_as_it_is(tmp_path):
    html = shown(tmp_path, chatflow_name="<script>", user_id='"><img src=x>')
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
