"""Addresses of Apprise: understood or refused in one line, never shown, sent to within bounded time."""

from __future__ import annotations

import json
import logging
import re
import socket
from pathlib import Path

import pytest

from billing_core.errors import SettingsError
from billing_core.runtime import notify_addresses
from billing_core.runtime.notify_addresses import addresses_in
from billing_core.settings import load_settings
from tests.notify.mail_server import MailServer
from tests.notify.receiver import Receiver

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"


def load(**environment):
    return load_settings({"BILLING_MODE": "demo", **environment}, env_file=None)


def json_address(receiver):
    return receiver.url.replace("http://", "json://user:hunter2@")


@pytest.fixture
def receiver():
    with Receiver(b"") as running:
        yield running


def test_a_list_is_split_where_the_next_address_begins():
    first, second = "mailto://u:p@example.com?to=a@b.c,d@e.f", "json://example.com/x,y"
    found = load(BILLING_NOTIFY_URLS=f" {first}, {second},{first},").notify_addresses
    assert [one.url for one in found] == [first, second]


@pytest.mark.parametrize("wrong", ["hunter2", "nope://hunter2", "slack://hunter2", "json://a.de, hunter2://x"])
def test_an_address_that_is_not_understood_is_one_line_without_it(wrong):
    with pytest.raises(SettingsError) as raised:
        load(BILLING_NOTIFY_URLS=wrong)
    assert str(raised.value).startswith("BILLING_NOTIFY_URLS: address ")
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_address_is_shown_as_its_scheme_and_the_beginning_of_its_host():
    urls = ("mailtos://ada:hunter2@mail.example.com?to=x@y.z", SLACK, "json://127.0.0.1:80/token", "json://[bad")
    found = [address for url in urls for address in addresses_in(url)]
    assert [one.label for one in found] == ["mailtos://mai…", "slack://…", "json://127…", "json://…"]
    shown = "".join((repr(found), *(str(one) + one.key for one in found)))
    assert not any(secret in shown for secret in ("hunter2", "token", "TIiajk", "ada", "x@y.z"))


def test_a_message_arrives_as_json_and_as_mail(receiver):
    with MailServer() as mail:
        (web,), (post,) = addresses_in(json_address(receiver)), addresses_in(mail.address)
        assert web.send("Größe passed", "one\ntwo").is_delivered
        assert post.send("Größe passed", "one", "<p><b>one</b></p>").is_delivered
    ((_, body, _),), (arrived,) = receiver.calls, mail.messages
    told = json.loads(body)
    assert (told["title"], told["message"]) == ("Größe passed", "one\ntwo")
    assert (arrived["subject"], arrived["to"]) == ("Größe passed", "finance@example.com")
    assert "<b>one</b>" in arrived.get_body(("html",)).get_content()


def test_who_refuses_is_named_by_status_and_nothing_else_is_said(receiver, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    receiver.answers[:] = [500]
    (address,) = addresses_in(json_address(receiver))
    found = address.send("a", "b")
    assert (found.is_delivered, found.status, found.error) == (False, 500, "the receiver answered 500")
    said = caplog.text + "".join(capsys.readouterr())
    assert not any(secret in said for secret in ("hunter2", "in-the-address", "TIiajk"))


def test_who_hangs_or_is_not_there_costs_bounded_time(receiver, monkeypatch):
    monkeypatch.setattr(notify_addresses, "TIMEOUT_SECONDS", 0.1)
    receiver.answers[:] = ["hang"]
    (address,) = addresses_in(json_address(receiver))
    assert address.send("a", "b").error == "no answer within 0.1 seconds"
    monkeypatch.setattr(notify_addresses, "TIMEOUT_SECONDS", 10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (address,) = addresses_in(f"json://127.0.0.1:{free.getsockname()[1]}/token")
    assert address.send("a", "b").error == "it could not be reached, or did not answer"


def test_the_addresses_that_the_documentation_shows_are_understood():
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    shown = re.findall(r"`([a-z]+://[^`]*/?[^`]+)`", text.split("## Rules")[0].split("An address is a secret")[0])
    assert len(shown) == 4
    assert [one for one in shown if not addresses_in(one)[0].is_understood] == []
