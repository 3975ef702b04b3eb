from decimal import Decimal
from zoneinfo import ZoneInfo

from billing_core.types import FLAT_FIELDS
from components.shared.colours import CREDIT_PARTS, STATUS_MARKS
from components.usage_events.columns import COLUMNS, DEFAULT_COLUMNS, SORT_FIELDS, cells, column_of
from tests.factories import service_over, usage_row

BERLIN = ZoneInfo("Europe/Berlin")


def shown(tmp_path, **facts):
    from billing_core.types import GetUsageEventsParams
    from tests.factories import EVERYONE

    service = service_over(tmp_path / "billing.duckdb", [usage_row(**facts)])
    try:
        events = service.get_usage_events(GetUsageEventsParams(), EVERYONE).events
    finally:
        service.close()
    return {field: texts[0] for field, texts in cells(events, list(COLUMNS), BERLIN).items()}


def test_every_published_field_has_a_column_and_can_be_sorted_by():
    assert {column.field for column in COLUMNS} == set(FLAT_FIELDS)
    assert set(SORT_FIELDS) == set(FLAT_FIELDS)


def test_the_columns_that_an_analyst_needs_come_first():
    assert [column_of(field).label for field in DEFAULT_COLUMNS] == [
        "Status",
        "Time",
        "Organization",
        "Chatflow",
        "User",
        "Tokens",
        "Credits",
        "Amount",
    ]


def test_ids_and_addresses_are_cut_in_the_middle(tmp_path):
    row = shown(tmp_path, user_id="frances.fischer@analytics.tyrell.example", id="t-" + "0123456789" * 3)
    assert row["user_id"] == "frances.fisc…ell.example"
    assert row["id"] == "t-0123456789…90123456789"[:24]


def test_an_event_reads_as_people_write_it(tmp_path):
    row = shown(tmp_path, latency_seconds=125, tokens_in=1_234_567)
    assert row["timestamp"] == "2026-11-01 13:00:00"
    assert row["latency_seconds"] == "2 min 05 s"
    assert row["tokens_in"] == "1,234,567"
    assert row["credits_ai_tokens"] == "100.00"
    assert row["credits_compute"] == "104.17"
    assert row["amount_usd"] == "$0.0082"
    assert row["sync_status"] == "pending"


def test_whose_event_it_is_and_what_it_used_says_unknown_and_other_missing_names_stay_blank(tmp_path):
    row = shown(tmp_path, tokens_out=None, cost_usd=None, organization_id=None, models=[], chatflow_name=None)
    assert (row["tokens_out"], row["cost_usd"]) == ("unknown", "unknown")
    assert (row["organization_id"], row["models"]) == ("unknown", "")
    assert row["chatflow_name"] == "flow-1"


def test_the_smallest_amount_is_not_shown_as_nothing(tmp_path):
    row = shown(tmp_path, latency_seconds=Decimal("0.000002"), usage=[], tokens_in=0, tokens_out=0, tokens_total=0)
    assert row["credits_total"] == "<0.01"
    assert row["amount_usd"] == "<$0.0001"


def test_every_status_has_a_colour_an_icon_and_its_word():
    assert [mark.word for mark in STATUS_MARKS.values()] == [status.value for status in STATUS_MARKS]
    assert len({mark.icon for mark in STATUS_MARKS.values()}) == len(STATUS_MARKS)
    assert len({mark.colour for mark in STATUS_MARKS.values()}) == len(STATUS_MARKS)
    assert column_of("sync_status").label == "Status"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_badges_are_readable_and_chart_colours_stand_out_in_both_themes():
    for mark in STATUS_MARKS.values():
        assert contrast(mark.colour, "#FFFFFF") >= 4.5, mark.word
    for part in CREDIT_PARTS:
        assert contrast(part.shade.light, "#FFFFFF") >= 3, part.label
        assert contrast(part.shade.dark, "#11171E") >= 3, part.label
