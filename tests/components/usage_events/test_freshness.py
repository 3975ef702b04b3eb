from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from billing_core.access import Principal, Role
from billing_core.ingest.pull import PullResult
from billing_core.ingest.service import Freshness
from billing_core.ledger.engine import BookingCounts
from billing_core.ledger.journal import PullRun
from billing_core.values.usage_frame import PullProgress, Window
from billing_core.web.jobs import JobState
from components.usage_events.freshness import outcome_text, partial_text, progress_text, stamp

NOW = datetime(2026, 11, 22, 14, 8, tzinfo=UTC)
READ_AT = NOW - timedelta(minutes=3)
ALL = Principal("ada", Role.ANALYST)
LIMITED = Principal("ada", Role.ANALYST, frozenset({"org_a"}))


def run(end=READ_AT):
    window = Window(end - timedelta(days=2), end)
    return PullRun("r", READ_AT, READ_AT, "ada", "v2", window, True, 9, 0, BookingCounts(), 0, "done", None)


def state(**more):
    return JobState(1, "ada", NOW - timedelta(seconds=10), PullProgress(0.4, 1234, "day 3 of 30"), **more)


def test_the_stamp_says_when_langfuse_was_read_and_up_to_when():
    assert stamp(run(), NOW, ZoneInfo("UTC")) == "Langfuse read 3 min ago, up to 14:05 UTC"
    assert stamp(run(), NOW, ZoneInfo("Europe/Berlin")).endswith("up to 15:05 Europe/Berlin")


def test_the_stamp_never_promises_more_than_was_read():
    assert stamp(run(end=NOW + timedelta(days=1)), NOW, ZoneInfo("UTC")).endswith("up to 14:05 UTC")
    assert stamp(run(end=NOW - timedelta(days=4)), NOW, ZoneInfo("UTC")).endswith("up to 2026-11-18 14:08 UTC")
    assert stamp(None, NOW, ZoneInfo("UTC")) == "Langfuse has not been read yet"


def test_a_refresh_that_found_nothing_says_so():
    result = PullResult("v2", Window(READ_AT, NOW), counts=BookingCounts(0, 0, 100))
    assert outcome_text(state(result=result), ALL) == "Langfuse has been read: nothing new."


def test_nothing_is_counted_before_the_first_row():
    waiting = JobState(1, "ada", NOW, PullProgress(0.0, 0, "connecting"))
    assert progress_text(waiting, ALL, NOW) == "Reading Langfuse: connecting"


def test_partial_data_is_said_with_its_reason():
    assert partial_text(Freshness(run(), False, None), ALL) is None
    text = partial_text(Freshness(run(), False, "1,204 rows could not be read"), ALL)
    assert text == "Data is partial: 1,204 rows could not be read. Refresh to try again."


def test_progress_names_rows_and_rate():
    assert progress_text(state(), ALL, NOW) == "Reading Langfuse: day 3 of 30, 1,234 observations, 123 per second"


def test_the_end_is_told_with_what_it_brought():
    result = PullResult("v2", Window(READ_AT, NOW), counts=BookingCounts(12, 3, 100))
    assert outcome_text(state(result=result), ALL) == "Langfuse has been read: 12 new events, 3 changed."
    assert outcome_text(state(error="429 Too Many"), ALL) == "Langfuse could not be read: 429 Too Many"


def test_the_end_tells_what_is_missing_and_what_was_not_looked_for():
    result = PullResult("v2", Window(READ_AT, NOW), missing_at_source=2, notes=("not all rows were looked for",))
    assert outcome_text(state(result=result), ALL) == (
        "Langfuse has been read: nothing new. 2 events from that time are no longer in Langfuse. "
        "Not all rows were looked for."
    )
    assert outcome_text(state(result=result), LIMITED) == "Langfuse has been read."


@pytest.mark.parametrize(
    "text",
    [
        partial_text(Freshness(run(), False, "1,204 rows of org_b could not be read"), LIMITED),
        progress_text(state(), LIMITED, NOW),
        outcome_text(state(error="1,204 rows of org_b"), LIMITED),
        outcome_text(state(result=PullResult("v2", Window(READ_AT, NOW), counts=BookingCounts(1204, 3, 1))), LIMITED),
    ],
)
def test_limited_people_never_see_counts_over_other_organizations(text):
    assert not any(character.isdigit() for character in text)
    assert "org_b" not in text
