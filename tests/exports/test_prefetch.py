"""Work ahead comes in order, is bounded, and says what went wrong where it belongs."""

import threading

import pytest

from billing_core.exports.prefetch import ahead


def test_answers_come_in_the_order_of_the_calls_whichever_is_made_first():
    second_is_made = threading.Event()

    def first():
        assert second_is_made.wait(30)
        return 1

    def second():
        second_is_made.set()
        return 2

    assert list(ahead([first, second, lambda: 3])) == [1, 2, 3]


def test_no_more_is_begun_than_was_asked_for():
    begun = []
    coming = ahead([lambda n=n: begun.append(n) for n in range(20)], workers=2)
    next(coming)
    next(coming)
    coming.close()
    assert len(begun) <= 4


def test_an_answer_that_fails_is_said_where_it_is_used():
    def fails():
        raise OSError("the disk is gone")

    coming = ahead([lambda: "first", fails, lambda: "third"])
    assert next(coming) == "first"
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)


def test_nothing_to_do_gives_nothing():
    assert list(ahead([])) == []
