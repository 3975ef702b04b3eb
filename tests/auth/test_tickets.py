from __future__ import annotations

from billing_core.auth.tickets import Tickets


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_is_good_once():
    tickets = Tickets()
    ticket = tickets.issue("session")
    assert tickets.redeem(ticket) == "session"
    assert tickets.redeem(ticket) is None


def test_an_invented_ticket_is_not():
    tickets = Tickets()
    tickets.issue("session")
    assert tickets.redeem("guess") is None


def test_a_ticket_is_good_for_less_than_a_minute():
    clock = Clock()
    tickets = Tickets(clock)
    in_time, late = tickets.issue("a"), tickets.issue("b")
    clock.now = 59.0
    assert tickets.redeem(in_time) == "a"
    clock.now = 60.0
    assert tickets.redeem(late) is None


def test_redeeming_one_ticket_spends_the_others_of_its_session_only():
    tickets = Tickets()
    first, second, other = tickets.issue("a"), tickets.issue("a"), tickets.issue("b")
    assert tickets.redeem(second) == "a"
    assert tickets.redeem(first) is None
    assert tickets.redeem(other) == "b"


def test_it_is_remembered_for_an_hour_that_the_cookie_was_fetched():
    clock = Clock()
    tickets = Tickets(clock)
    ticket = tickets.issue("a")
    assert not tickets.is_delivered("a")
    tickets.redeem(ticket)
    assert tickets.is_delivered("a")
    clock.now = 3600.0
    tickets.issue("b")
    assert not tickets.is_delivered("a")


def test_tickets_of_an_ended_session_are_void():
    tickets = Tickets()
    ticket = tickets.issue("a")
    tickets.void("a")
    assert tickets.redeem(ticket) is None
