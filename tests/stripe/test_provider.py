"""Reading from Stripe: the meter, customers, subscriptions, invoices, what is counted, what was rejected later."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import stripe as sdk

from billing_core.errors import BadParameter, NotFound, SettingsError, UpstreamError
from billing_core.runtime import clock
from billing_core.settings import load_settings
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import Customer, ErrorReport, InvoiceLine, ReportedError, SummaryBucket
from billing_core.stripe.provider import StripeProvider
from tests.addresses import UNREACHABLE
from tests.stripe import objects
from tests.stripe.fake import KEY, FakeStripe, Reply, error, html, nobody_listening, page, patience_with, stripe_that


def at(*moment):
    return datetime(*moment, tzinfo=UTC)


def reading(answer, read, **provider):
    """What `read` gives for a Stripe that always answers `answer`, and what was asked."""
    with stripe_that(answer if callable(answer) else lambda asked: answer) as fake:
        return read(fake.provider(**provider)), fake.asked


def refused(answer, read, kind=UpstreamError, **provider):
    with pytest.raises(kind) as caught:
        reading(answer, read, **provider)
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    return text


class TestConnecting:
    def test_without_a_key_the_variable_is_named(self):
        with pytest.raises(SettingsError, match="STRIPE_API_KEY: not set"):
            StripeProvider.from_settings(load_settings({"BILLING_MODE": "live"}, env_file=None))

    @pytest.mark.parametrize("key", ["rk_test_a b", "rk_test_ü", "rk_test\x07"])
    def test_a_key_that_cannot_be_one_is_refused_without_showing_it(self, key):
        with pytest.raises(SettingsError) as caught, stripe_that(lambda asked: page()) as fake:
            fake.provider(key=key)
        assert key not in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "is_live"),
        [("rk_live_1", True), ("sk_live_1", True), ("rk_test_1", False), ("sk_test_1", False), ("sandbox", None)],
    )
    def test_the_key_says_whether_it_is_live(self, key, is_live):
        with stripe_that(lambda asked: page()) as fake:
            assert fake.provider(key=key).is_live is is_live

    def test_every_host_of_the_sdk_is_the_base_that_was_set(self):
        with stripe_that(lambda asked: page()) as fake:
            hosts = fake.provider()._connection._client._requestor._options.base_addresses
        assert set(hosts) == {"api", "meter_events", "files", "connect"}
        assert set(hosts.values()) == {fake.base}

    def test_no_telemetry_is_sent(self):
        with stripe_that(lambda asked: page()) as fake:
            provider = fake.provider()
            provider.customers()
            provider.customers()
        assert sdk.enable_telemetry is False
        assert not [asked for asked in fake.asked if "x-stripe-client-telemetry" in asked.headers]

    @pytest.mark.parametrize(
        ("key", "base", "sink", "per_second"),
        [
            ("rk_live_1", None, "v1", 900),
            ("rk_test_1", None, "v1", 20),
            ("odd", None, "v1", 20),
            ("rk_live_1", None, "v2_stream", 90),
            ("rk_live_1", UNREACHABLE, "v1", None),
        ],
    )
    def test_only_stripe_itself_is_sent_at_a_pace_of_our_own(self, key, base, sink, per_second):
        environment = {"BILLING_MODE": "live", "STRIPE_API_KEY": key} | (
            {} if base is None else {"STRIPE_API_BASE": base}
        )
        made = StripeProvider.from_settings(load_settings(environment, env_file=None)).sink(sink)
        assert made._pace._interval == pytest.approx(0 if per_second is None else 1 / per_second)

    def test_a_netrc_entry_never_replaces_the_key(self, tmp_path, monkeypatch):
        netrc = tmp_path / ".netrc"
        netrc.write_text("default login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        _, asked = reading(page(), lambda p: p.customers())
        assert asked[0].headers["authorization"] == f"Bearer {KEY}"


class TestPreflight:
    def test_a_meter_that_sums_credits_per_customer_is_accepted(self):
        meters = page(objects.meter(), objects.meter(id="mtr_2", event_name="other"))
        meter, _ = reading(meters, lambda p: p.preflight())
        assert (meter.id, meter.livemode) == ("mtr_1", False)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"status": "inactive"}, "it is inactive"),
            ({"default_aggregation": {"formula": "last"}}, "aggregates by last"),
            ({"event_time_window": "hour"}, "overwrite each other"),
            ({"value_settings": {"event_payload_key": "tokens"}}, "expected stripe_customer_id and value"),
            ({"customer_mapping": {"event_payload_key": "who"}}, "it reads who and value"),
        ],
    )
    def test_a_meter_that_would_miscount_is_refused_in_words(self, changes, says):
        assert says in refused(page(objects.meter(**changes)), lambda p: p.preflight(), SettingsError)

    def test_no_meter_and_two_meters_are_refused(self):
        assert "no meter" in refused(page(), lambda p: p.preflight(), SettingsError)
        two = page(objects.meter(), objects.meter(id="mtr_2"))
        assert "2 meters" in refused(two, lambda p: p.preflight(), SettingsError)

    def test_a_retired_meter_of_the_same_name_does_not_matter(self):
        both = page(objects.meter(id="mtr_0", status="inactive"), objects.meter())
        assert reading(both, lambda p: p.preflight())[0].id == "mtr_1"

    def test_a_meter_on_the_second_page_is_found(self):
        def answer(asked):
            is_first = "starting_after" not in asked.query
            return page(objects.meter(id="mtr_0", event_name="x"), has_more=True) if is_first else page(objects.meter())

        meter, asked = reading(answer, lambda p: p.preflight())
        assert meter.id == "mtr_1"
        assert [a.query for a in asked] == [{"limit": "100"}, {"limit": "100", "starting_after": "mtr_0"}]

    @pytest.mark.parametrize(("key", "livemode"), [("rk_live_secret", False), ("rk_test_secret", True)])
    def test_a_key_of_the_other_mode_is_refused(self, key, livemode):
        text = refused(page(objects.meter(livemode=livemode)), lambda p: p.preflight(), SettingsError, key=key)
        assert text.startswith(f"STRIPE_API_KEY: a {'test' if livemode else 'live'} key, but the meter")
        assert "secret" not in text

    def test_absent_optional_fields_are_taken_as_the_defaults(self):
        bare = objects.meter()
        for name in ("livemode", "event_time_window", "customer_mapping", "value_settings"):
            del bare[name]
        meter, _ = reading(page(bare), lambda p: p.preflight())
        assert (meter.livemode, meter.event_time_window, meter.customer_key) == (None, None, "stripe_customer_id")

    def test_a_missing_permission_is_named_as_stripe_names_it(self):
        words = "The provided key does not have the required permissions: rak_billing_meter_read"
        text = refused(error(403, words), lambda p: p.preflight())
        assert text == (
            f"Stripe: reading the meters failed (HTTP 403, request req_1): {words}; "
            "give the restricted key in STRIPE_API_KEY this permission"
        )


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("reply", "says"),
        [
            (
                error(401, "Invalid API Key provided"),
                "HTTP 401, request req_1): Invalid API Key provided; check STRIPE_",
            ),
            (error(401, f"Invalid API Key: {KEY}"), "Invalid API Key: ***"),
            (html(200), "HTTP 200, request req_1): the answer is not what Stripe's API sends (text/html)"),
            (html(404), "HTTP 404"),
            (Reply(body=b'{"data": ['), "not what Stripe's API sends (application/json)"),
            (Reply(body=b"[]"), "not what Stripe's API sends"),
            (Reply(body={"data": ["text"]}), "not a list of objects"),
            (Reply(body={"object": "list"}), "not a list of objects"),
            (Reply(301, b"", {"Location": "/moved"}), "it redirects to /moved, which is not followed"),
            (Reply(hang=True), "no answer): it did not answer in time"),
            (Reply(reset=True), "no answer): it broke the connection"),
            (error(500, "oh\nno"), "HTTP 500, request req_1): oh no"),
            (page({"object": "customer"}), "customer without id: id is missing"),
        ],
    )
    def test_is_one_line_that_names_what_was_read(self, reply, says):
        text = refused(reply, lambda p: p.customers(), patience=patience_with(reply))
        assert text.startswith("Stripe: reading customers failed")
        assert says in text

    def test_a_closed_port_says_that_nothing_was_reached(self):
        with nobody_listening() as base:
            provider = FakeStripe(lambda asked: page(), base).provider()
            with pytest.raises(UpstreamError, match=r"no answer\): it could not be reached .*check the network"):
                provider.customers()

    @pytest.mark.parametrize(
        "fault", [error(500), error(503), error(409), html(200), Reply(reset=True), Reply(hang=True)]
    )
    def test_what_may_pass_is_asked_three_times(self, fault):
        replies = iter([fault, fault, page({"id": "cus_1"})])
        customers, _ = reading(lambda asked: next(replies), lambda p: p.customers(), patience=patience_with(fault))
        assert [c.id for c in customers] == ["cus_1"]

    @pytest.mark.parametrize("fault", [error(400), error(401), error(403), error(404)])
    def test_what_will_not_pass_is_asked_once(self, fault):
        asked = []

        def answer(request):
            asked.append(request)
            return fault

        refused(answer, lambda p: p.customers())
        assert len(asked) == 1

    def test_stripes_own_opinion_about_repeating_counts(self):
        replies = iter([error(400, headers={"Stripe-Should-Retry": "true"}), page()])
        assert len(reading(lambda asked: next(replies), lambda p: p.customers())[1]) == 2
        replies = iter([error(500, headers={"Stripe-Should-Retry": "false"})])
        refused(lambda asked: next(replies), lambda p: p.customers())

    def test_a_rate_limit_is_obeyed_also_in_the_middle_of_the_pages(self):
        limit = error(429, headers={"Retry-After": "0.05"})
        replies = iter([page({"id": "cus_1"}, has_more=True), limit, limit, page({"id": "cus_2"})])
        customers, asked = reading(lambda asked: next(replies), lambda p: p.customers())
        assert ([c.id for c in customers], len(asked)) == (["cus_1", "cus_2"], 4)

    @pytest.mark.parametrize("after", ["60", "Sun, 01 Jan 2090 00:00:00 GMT"])
    def test_a_rate_limit_that_takes_too_long_is_named(self, after):
        limit = error(
            429, "Too many requests", headers={"Retry-After": after, "Stripe-Rate-Limited-Reason": "global-rate"}
        )
        text = refused(limit, lambda p: p.customers(), patience=RetryLimits())
        assert "HTTP 429" in text
        assert "rate limit global-rate: Too many requests" in text

    def test_pages_that_go_nowhere_end(self):
        endless = page({"id": "cus_1"}, has_more=True)
        assert "does not say where the next one begins" in refused(endless, lambda p: p.customers())
        assert reading(page(has_more=True), lambda p: p.customers())[0] == []

    def test_every_get_is_counted_also_the_repeated_ones(self):
        replies = iter([error(500), page({"id": "cus_1"}, has_more=True), page({"id": "cus_2"})])

        def read(provider):
            provider.customers()
            return provider.calls

        assert reading(lambda asked: next(replies), read)[0] == 3


class TestCustomers:
    def test_are_read_in_pages_of_a_hundred(self):
        found, asked = reading(page({"id": "cus_1", "name": "Acme", "email": "a@b.example"}), lambda p: p.customers())
        assert found == [Customer("cus_1", "Acme", "a@b.example")]
        assert asked[0].query == {"limit": "100"}

    def test_a_deleted_one_is_a_stub(self):
        stub = Reply(body={"id": "cus_1", "object": "customer", "deleted": True})
        assert reading(stub, lambda p: p.customer("cus_1"))[0] == Customer("cus_1", None, None, is_deleted=True)

    def test_an_unknown_one_is_none_but_an_unreadable_one_is_an_error(self):
        missing = error(404, "No such customer", code="resource_missing", param="id")
        assert reading(missing, lambda p: p.customer("cus_9"))[0] is None
        assert "the customer 'cus_9'" in refused(error(500), lambda p: p.customer("cus_9"))
        refused(html(404), lambda p: p.customer("cus_9"))

    @pytest.mark.parametrize("odd", ["", ".", ".."])
    def test_an_id_that_is_no_id_asks_nothing(self, odd):
        assert reading(error(500), lambda p: p.customer(odd)) == (None, [])

    def test_an_id_cannot_leave_its_place_in_the_address(self):
        _, asked = reading(Reply(body={"id": "x"}), lambda p: p.customer("a/../b?c=d"))
        assert asked[0].path == "/v1/customers/a%2F..%2Fb%3Fc%3Dd"


class TestSubscriptions:
    def test_of_every_status_are_read_with_periods_of_their_items(self):
        flat = objects.item("si_2", "price_seat", None, current_period_end=objects.seconds(2027, 1, 3))
        (found,), asked = reading(
            page(objects.subscription(items=[objects.item(), flat])), lambda p: p.subscriptions("cus_1")
        )
        assert asked[0].query == {"status": "all", "customer": "cus_1", "limit": "100"}
        assert (found.id, found.customer_id, found.status) == ("sub_1", "cus_1", "active")
        assert found.started_at == at(2026, 1, 3, 8, 15, 30)
        assert [i.meter_id for i in found.items] == ["mtr_1", None]
        assert (found.items[0].period_start, found.items[1].period_end) == (at(2026, 11, 3, 8, 15, 30), at(2027, 1, 3))

    def test_of_all_customers_are_one_sweep(self):
        _, asked = reading(page(), lambda p: p.subscriptions())
        assert [a.query for a in asked] == [{"status": "all", "limit": "100"}]

    def test_further_items_are_read_to_the_end(self):
        def answer(asked):
            if asked.path == "/v1/subscriptions":
                return page(objects.subscription(items=[objects.item("si_1")], has_more=True))
            if asked.query.get("starting_after") == "si_2":
                return page(objects.item("si_3"))
            return page(objects.item("si_1"), objects.item("si_2"), has_more=True)

        (found,), asked = reading(answer, lambda p: p.subscriptions())
        assert [i.id for i in found.items] == ["si_1", "si_2", "si_3"]
        assert asked[1].query == {"subscription": "sub_1", "limit": "100"}

    def test_a_status_stripe_invented_later_is_kept(self):
        (found,), _ = reading(page(objects.subscription(status="hibernating")), lambda p: p.subscriptions())
        assert found.status == "hibernating"

    def test_references_may_be_expanded_and_optional_fields_absent(self):
        raw = objects.subscription(customer={"id": "cus_7", "object": "customer"})
        del raw["trial_end"], raw["ended_at"], raw["start_date"], raw["cancel_at"]
        raw["items"]["data"][0]["price"] = {"id": "price_1", "product": {"id": "prod_7"}}
        (found,), _ = reading(page(raw), lambda p: p.subscriptions())
        assert (found.customer_id, found.started_at, found.items[0].product_id) == ("cus_7", None, "prod_7")
        assert found.items[0].meter_id is None

    def test_an_announced_cancellation_ends_with_the_period(self):
        (found,), _ = reading(page(objects.subscription(cancel_at_period_end=True)), lambda p: p.subscriptions())
        assert found.cancel_at == at(2026, 12, 3, 8, 15, 30)

    def test_a_customer_stripe_does_not_know_is_named(self):
        missing = error(400, "No such customer: 'cus_9'", code="resource_missing", param="customer")
        assert "'cus_9'" in refused(missing, lambda p: p.subscriptions("cus_9"), NotFound)
        assert "'cus_9'" in refused(missing, lambda p: p.invoices(customer_id="cus_9"), NotFound)
        assert "'cus_9'" in refused(missing, lambda p: p.upcoming("cus_9", "sub_1"), NotFound)


class TestInvoices:
    def test_name_their_deadline_subscription_and_exact_quantities(self):
        (found,), asked = reading(page(objects.invoice()), lambda p: p.invoices("draft", "cus_1", at(2026, 10, 1)))
        assert asked[0].query == {
            "status": "draft",
            "customer": "cus_1",
            "created": {"gte": str(objects.seconds(2026, 10, 1))},
            "limit": "100",
        }
        assert (found.id, found.subscription_id, found.status) == ("in_1", "sub_1", "draft")
        assert found.finalizes_at == at(2026, 11, 3, 1)
        assert found.lines == (
            InvoiceLine("Credits", "price_pro", Decimal("1500.250000000001"), 6, at(2026, 10, 3), at(2026, 11, 3)),
        )

    def test_of_every_status_are_asked_without_one(self):
        assert reading(page(), lambda p: p.invoices())[1][0].query == {"limit": "100"}

    def test_further_lines_are_read_to_the_end(self):
        def answer(asked):
            if asked.path == "/v1/invoices":
                return page(objects.invoice(has_more=True))
            return page(*(objects.line(f"il_{n}") for n in range(3)))

        (found,), asked = reading(answer, lambda p: p.invoices())
        assert (len(found.lines), asked[1].path) == (3, "/v1/invoices/in_1/lines")

    def test_a_quantity_without_decimals_is_taken_as_it_is(self):
        (found,), _ = reading(page(objects.invoice(lines=[objects.line(quantity=None)])), lambda p: p.invoices())
        assert found.lines[0].quantity == 1500

    def test_a_time_without_offset_is_refused(self):
        refused(page(), lambda p: p.invoices(created_since=datetime(2026, 1, 1)), BadParameter)


class TestTheUpcomingInvoice:
    def test_is_a_preview_without_an_id(self):
        preview = Reply(body=objects.invoice("upcoming_in_1", automatically_finalizes_at=None))
        found, asked = reading(preview, lambda p: p.upcoming("cus_1", "sub_1"))
        assert (asked[0].method, asked[0].path) == ("POST", "/v1/invoices/create_preview")
        assert asked[0].body == {"customer": "cus_1", "subscription": "sub_1"}
        assert (found.id, found.amount_due, found.currency, len(found.lines)) == (None, 6, "usd", 1)

    def test_is_none_if_stripe_says_there_is_none(self):
        none = error(404, "No upcoming invoices for customer", code="invoice_upcoming_none")
        assert reading(none, lambda p: p.upcoming("cus_1", "sub_1"))[0] is None

    def test_that_cannot_be_read_is_an_error_and_not_none(self):
        refused(error(500), lambda p: p.upcoming("cus_1", "sub_1"))
        refused(error(400, "odd"), lambda p: p.upcoming("cus_1", "sub_1"))


class TestSummaries:
    def test_are_asked_for_in_pages_of_a_hundred_and_exact(self):
        start = objects.seconds(2026, 11, 1)
        body = (
            json.dumps(
                {
                    "object": "list",
                    "has_more": False,
                    "url": "/",
                    "data": [objects.summary(start, 7), objects.summary(start + 3600, "EXACT")],
                }
            )
            .replace('"EXACT"', "9007199254740993.25")
            .encode()
        )
        found, asked = reading(
            Reply(body=body), lambda p: p.summaries("mtr_1", "cus_1", at(2026, 11, 1), at(2026, 11, 2), "hour")
        )
        assert asked[0].path == "/v1/billing/meters/mtr_1/event_summaries"
        assert asked[0].query == {
            "customer": "cus_1",
            "start_time": str(start),
            "end_time": str(start + 86400),
            "value_grouping_window": "hour",
            "limit": "100",
        }
        assert found == [
            SummaryBucket(at(2026, 11, 1), at(2026, 11, 1, 1), Decimal(7)),
            SummaryBucket(at(2026, 11, 1, 1), at(2026, 11, 1, 2), Decimal("9007199254740993.25")),
        ]

    @pytest.mark.parametrize(
        ("start", "end", "grouping", "says"),
        [
            (at(2026, 11, 1, 0, 0, 1), at(2026, 11, 2), None, "start: .* a whole minute"),
            (at(2026, 11, 1), at(2026, 11, 2, 0, 0, 0, 1), None, "end: .* a whole minute"),
            (at(2026, 11, 1, 0, 1), at(2026, 11, 2), "hour", "start: .* a whole hour"),
            (at(2026, 11, 1), at(2026, 11, 2, 1), "day", "end: .* midnight"),
            (datetime(2026, 11, 1), at(2026, 11, 2), "day", "start: .* offset"),
            (at(2026, 11, 2), at(2026, 11, 2), "day", "end: .* after start"),
            (datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=1))), at(2026, 11, 2), "day", "start: .* midnight"),
        ],
    )
    def test_off_the_grid_are_refused_before_asking(self, start, end, grouping, says):
        with stripe_that(lambda asked: page()) as fake, pytest.raises(BadParameter, match=says):
            fake.provider().summaries("mtr_1", "cus_1", start, end, grouping)
        assert fake.asked == []

    @pytest.mark.parametrize("param", ["customer", None])
    def test_of_an_unknown_customer_are_not_found_which_is_not_zero(self, param):
        details = {"code": "resource_missing"} | ({} if param is None else {"param": param})
        missing = error(404, "No such customer: 'cus_9'", **details)
        refused(missing, lambda p: p.summaries("mtr_1", "cus_9", at(2026, 11, 1), at(2026, 11, 2)), NotFound)

    def test_of_a_missing_meter_are_an_error_of_the_setup(self):
        missing = error(404, "No such meter: 'mtr_1'", code="resource_missing", param="id")
        assert "No such meter" in refused(
            missing, lambda p: p.summaries("mtr_1", "cus_1", at(2026, 11, 1), at(2026, 11, 2))
        )

    @pytest.mark.parametrize("value", ["many", None, True])
    def test_that_are_no_number_are_an_error_and_never_zero(self, value):
        row = objects.summary(objects.seconds(2026, 11, 1), value)
        refused(page(row), lambda p: p.summaries("mtr_1", "cus_1", at(2026, 11, 1), at(2026, 11, 2)))

    def test_not_a_number_is_not_a_number(self):
        body = json.dumps({"data": [objects.summary(0, float("nan"))], "has_more": False}).encode()
        refused(Reply(body=body), lambda p: p.summaries("mtr_1", "cus_1", at(2026, 11, 1), at(2026, 11, 2)))


def events_page(*rows, following=None):
    return Reply(body={"data": list(rows), "next_page_url": following, "previous_page_url": None})


class TestErrorReports:
    def since(self):
        return clock.now().replace(microsecond=250_000) - timedelta(hours=1)

    def test_are_polled_by_type_and_time(self):
        since = self.since()
        found, asked = reading(events_page(objects.report()), lambda p: p.error_reports(since))
        assert asked[0].path == "/v2/core/events"
        assert asked[0].query == {
            "types": ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"],
            "created": {"gte": since.isoformat(timespec="milliseconds").replace("+00:00", "Z")},
            "limit": "100",
        }
        assert found == [
            ErrorReport(
                "evt_1",
                "v1.billing.meter.error_report_triggered",
                at(2026, 11, 22, 10, 0, 0, 123_000),
                (ReportedError("meter_event_customer_not_found", 1, "No such customer", ("abc",)),),
            )
        ]

    @pytest.mark.parametrize("base", ["", "https://api.stripe.com"])
    def test_of_further_pages_are_asked_from_the_configured_host_only(self, base):
        def answer(asked):
            if "page" in asked.query:
                return events_page(objects.report("evt_2"))
            return events_page(objects.report("evt_1"), following=f"{base}/v2/core/events?page=abc&limit=100")

        found, asked = reading(answer, lambda p: p.error_reports(self.since()))
        assert [report.id for report in found] == ["evt_1", "evt_2"]
        assert asked[1].query == {"page": "abc", "limit": "100"}

    def test_in_a_circle_end(self):
        circle = events_page(objects.report(), following="/v2/core/events?page=abc")
        assert "round in a circle" in refused(circle, lambda p: p.error_reports(self.since()))

    def test_without_data_are_fetched_one_by_one(self):
        thin = {key: value for key, value in objects.report().items() if key != "data"}

        def answer(asked):
            return Reply(body=objects.report()) if asked.path == "/v2/core/events/evt_1" else events_page(thin)

        (found,), asked = reading(answer, lambda p: p.error_reports(self.since()))
        assert (found.errors[0].identifiers, len(asked)) == (("abc",), 2)

    def test_older_than_thirty_days_are_not_asked_for(self):
        _, asked = reading(events_page(), lambda p: p.error_reports(at(2020, 1, 1)))
        asked_from = datetime.fromisoformat(asked[0].query["created"]["gte"])
        assert timedelta(0) <= asked_from - (clock.now() - timedelta(days=30)) + timedelta(minutes=1)

    def test_come_once_each_and_oldest_first(self):
        late = objects.report("evt_0", created="2026-11-22T11:00:00Z")
        found, _ = reading(
            events_page(late, objects.report(), objects.report()), lambda p: p.error_reports(self.since())
        )
        assert [report.id for report in found] == ["evt_1", "evt_0"]

    def test_that_cannot_be_read_are_an_error_so_that_the_caller_can_say_unknown(self):
        refused(error(500), lambda p: p.error_reports(self.since()))
        refused(error(403, "needs rak_event_read"), lambda p: p.error_reports(self.since()))
        thin = {key: value for key, value in objects.report().items() if key != "data"}
        refused(
            lambda asked: error(500) if "evt_1" in asked.path else events_page(thin),
            lambda p: p.error_reports(self.since()),
        )


def test_the_sandbox_has_a_usable_meter(sandbox):
    settings = load_settings({"BILLING_MODE": "live", **sandbox.environment}, env_file=None)
    assert StripeProvider.from_settings(settings).preflight().event_name == "credits"
