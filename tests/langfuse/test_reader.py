"""Asking an overloaded server for less: how little it takes, and that nobody learns it twice."""

import threading

import pytest

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import QuestionTooLarge
from billing_core.langfuse.decode import DecodedPage, Meta
from billing_core.langfuse.facts import FACTS_SCHEMA
from billing_core.langfuse.reader import RangeLimits, read_part
from billing_core.langfuse.spans import DAY, MINUTE, ReadKind, ReadSlice, TimeRange, length
from billing_core.langfuse.spool import SpoolPart
from billing_core.runtime import clock

IDS = tuple(f"trace-{n}" for n in range(100))


class Server:
    """Answers only questions up to a length; remembers what it was asked."""

    page_rows = 1000

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.refused: list[TimeRange] = []
        self.answered: list[TimeRange] = []

    def read(self, piece, span, stop):
        if length(span) > self.longest:
            self.refused.append(span)
            raise QuestionTooLarge("timed out")
        self.answered.append(span)
        return DecodedPage(FACTS_SCHEMA.empty_table(), [], 0, Meta()), []


def read(server, spans, tmp_path, appetite=None, kind=ReadKind.COMPLETE):
    part = SpoolPart(tmp_path / f"{len(server.answered)}-{len(server.refused)}", ReadSlice(kind, spans), clock.now())
    read_part(server, part, threading.Event(), appetite)


def test_time_is_split_before_traces_are_asked_for_one_by_one(tmp_path):
    server = Server(5 * DAY)
    read(server, (TimeRange(0, 93 * DAY, ids=IDS),), tmp_path)
    assert {span.ids for span in server.answered} == {IDS}
    assert len(server.answered) == 32
    assert sum(length(span) for span in server.answered) == 93 * DAY


def test_what_one_question_learned_the_next_one_knows(tmp_path):
    server, appetite = Server(5 * DAY), RangeLimits()
    read(server, (TimeRange(0, 93 * DAY, ids=IDS), TimeRange(0, 93 * DAY, ids=("other",))), tmp_path, appetite)
    first = len(server.refused)
    read(server, (TimeRange(0, 93 * DAY, ids=("third",)),), tmp_path, appetite)
    assert (first, len(server.refused)) == (5, 5)


def test_a_window_is_split_down_to_a_minute(tmp_path):
    server = Server(MINUTE)
    read(server, (TimeRange(0, 180 * MINUTE),), tmp_path, kind=ReadKind.WINDOW)
    assert all(length(span) <= MINUTE for span in server.answered)
    assert sum(length(span) for span in server.answered) == 180 * MINUTE


def test_a_server_that_refuses_everything_is_given_up_on(tmp_path):
    with pytest.raises(UpstreamError, match="smallest question"):
        read(Server(0), (TimeRange(0, MINUTE),), tmp_path)
