import logging
import secrets
from decimal import Decimal
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core import settings
from billing_core.errors import SettingsError
from billing_core.settings import Mode, load_settings, signing_key

KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-secret"}


def load(**variables):
    return load_settings(variables, env_file=None)


def test_without_anything_it_is_a_demo_with_the_published_defaults():
    found = load()
    assert found.mode is Mode.DEMO
    assert found.langfuse_host == "https://cloud.langfuse.com"
    assert found.langfuse_excluded_environments == ("langfuse-*", "sdk-experiment")
    assert found.warehouse_path.as_posix() == "data/billing.duckdb"
    assert (found.timezone, found.lookback_hours, found.settle_minutes) == ("UTC", 48, 30)
    assert found.stripe_meter_event_name == "credits"
    assert found.override_customer_id is False
    assert found.push_granularity == "hour"


def test_keys_make_it_live_and_the_mode_can_be_forced():
    assert load(**KEYS).mode is Mode.LIVE
    assert load(**KEYS, BILLING_MODE="demo").mode is Mode.DEMO
    assert load(BILLING_MODE="live").mode is Mode.LIVE


def test_either_name_of_the_host_and_of_the_stripe_key_is_read():
    assert load(LANGFUSE_BASE_URL="http://localhost:3000/").langfuse_host == "http://localhost:3000"
    assert load(LANGFUSE_HOST="http://a", LANGFUSE_BASE_URL="http://b").langfuse_host == "http://a"
    assert load(BILLING_STRIPE_SECRET_KEY="rk_1").stripe_api_key.get_secret_value() == "rk_1"


def test_a_relative_and_an_absolute_ledger():
    assert load(BILLING_WAREHOUSE_URL="duckdb:///x/y.duckdb").warehouse_path.as_posix() == "x/y.duckdb"
    assert load(BILLING_WAREHOUSE_URL="duckdb:////x/y.duckdb").warehouse_path.as_posix() == "/x/y.duckdb"


def test_an_empty_value_counts_as_absent_except_where_it_means_none():
    assert load(BILLING_TIMEZONE=" ").timezone == "UTC"
    assert load(LANGFUSE_EXCLUDED_ENVIRONMENTS="").langfuse_excluded_environments == ()


def test_a_publishable_key_is_refused_without_showing_it():
    with pytest.raises(SettingsError, match="STRIPE_API_KEY: is a publishable key; expected a restricted key") as error:
        load(STRIPE_API_KEY="pk_test_something")
    assert "something" not in str(error.value)


def test_thresholds_are_whole_percents_in_order_each_once():
    assert load().limit_thresholds == (75, 90, 100)
    assert (load().anomaly_minimum_usd, load().anomalies_per_day) == (2, 5)
    assert load().demo_events == 20_000
    assert load(BILLING_ANOMALY_MINIMUM_USD="0.50").anomaly_minimum_usd == Decimal("0.50")
    assert load(BILLING_LIMIT_THRESHOLDS="100, 50,100 ,1").limit_thresholds == (1, 50, 100)


@pytest.mark.parametrize(
    "url", ["http://localhost:9/x", "http://127.0.0.1/x", "http://[::1]:9/x", "https://h.test/?a=b"]
)
def test_a_webhook_is_reached_by_https_or_on_this_machine(url):
    assert load(BILLING_WEBHOOK_URL=url, BILLING_WEBHOOK_SECRET="s" * 24).webhook_url.get_secret_value() == url


def test_a_webhook_secret_is_its_text_or_the_bytes_of_its_base64_form():
    assert signing_key("plain-" * 4) == b"plain-" * 4
    assert signing_key("whsec_cGxhaW4=") == b"plain"


def test_globs_of_environments_are_a_comma_list():
    found = load(LANGFUSE_EXCLUDED_ENVIRONMENTS="test-*, ci")
    assert found.langfuse_excluded_environments == ("test-*", "ci")


def test_a_dot_env_file_is_read_and_the_process_wins(tmp_path):
    file = tmp_path / ".env"
    file.write_text("BILLING_TIMEZONE=Asia/Tokyo\nBILLING_LOOKBACK_HOURS=5\n")
    found = load_settings({"BILLING_LOOKBACK_HOURS": "7"}, env_file=file)
    assert (found.timezone, found.lookback_hours) == ("Asia/Tokyo", 7)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"BILLING_MODE": "prod"}, "BILLING_MODE: 'prod'.*'demo' or 'live'"),
        ({"BILLING_TIMEZONE": "Mars/Base"}, "BILLING_TIMEZONE.*Mars/Base.*IANA"),
        ({"BILLING_LOOKBACK_HOURS": "two"}, "BILLING_LOOKBACK_HOURS: 'two'"),
        ({"BILLING_LOOKBACK_HOURS": "-1"}, "BILLING_LOOKBACK_HOURS: '-1'"),
        ({"BILLING_SETTLE_MINUTES": "1.5"}, "BILLING_SETTLE_MINUTES: '1.5'"),
        ({"BILLING_PUSH_GRANULARITY": "day"}, "BILLING_PUSH_GRANULARITY: 'day'.*'hour' or 'event'"),
        ({"BILLING_OVERRIDE_CUSTOMER_ID": "perhaps"}, "BILLING_OVERRIDE_CUSTOMER_ID: 'perhaps'"),
        ({"BILLING_OVERRIDE_CUSTOMER_ID": "true"}, "needs BILLING_DEFAULT_CUSTOMER_ID"),
        ({"LANGFUSE_API": "v9"}, "LANGFUSE_API: 'v9'"),
        ({"LANGFUSE_HOST": "cloud"}, "LANGFUSE_HOST.*base URL"),
        ({"STRIPE_API_BASE": "ftp://x"}, "STRIPE_API_BASE.*base URL"),
        ({"BILLING_WAREHOUSE_URL": "postgres://u:secret@h/db"}, "BILLING_WAREHOUSE_URL.*postgres.*duckdb:///"),
        ({"BILLING_WAREHOUSE_URL": "duckdb:///"}, "BILLING_WAREHOUSE_URL"),
        ({"LANGFUSE_PUBLIC_KEY": "pk"}, "LANGFUSE_SECRET_KEY: missing"),
        ({"BILLING_COOKIE_KEY": "short-and-sweet"}, "BILLING_COOKIE_KEY: too weak"),
        ({"BILLING_COOKIE_KEY": "a" * 64}, "BILLING_COOKIE_KEY: too weak"),
        ({"BILLING_PUBLIC_URL": "billing.example"}, "BILLING_PUBLIC_URL: 'billing.example' is not an address people"),
        ({"BILLING_PUBLIC_URL": "https://u:pw@billing.example"}, "BILLING_PUBLIC_URL.*without user name"),
        ({"BILLING_PUBLIC_URL": "https://billing.example/?a=b"}, "BILLING_PUBLIC_URL.*query"),
        ({"BILLING_TRUSTED_PROXIES": "10.0.0.1,proxy"}, "BILLING_TRUSTED_PROXIES: 'proxy'; expected addresses or net"),
        ({"BILLING_TRUSTED_PROXIES": "10.0.0.1/8"}, "BILLING_TRUSTED_PROXIES: '10.0.0.1/8'"),
        ({"BILLING_TRUSTED_PROXIES": "0.0.0.0/0"}, "BILLING_TRUSTED_PROXIES: '0.0.0.0/0'"),
        ({"BILLING_TRUSTED_PROXIES": "*"}, "BILLING_TRUSTED_PROXIES: '[*]'"),
        ({"BILLING_LIMIT_THRESHOLDS": "75,ninety"}, "BILLING_LIMIT_THRESHOLDS: 'ninety'; expected whole percents"),
        ({"BILLING_LIMIT_THRESHOLDS": "75,,90"}, "BILLING_LIMIT_THRESHOLDS: ''; expected whole percents"),
        ({"BILLING_ANOMALY_MINIMUM_USD": "-1"}, "BILLING_ANOMALY_MINIMUM_USD"),
        ({"BILLING_ANOMALIES_PER_DAY": "0"}, "BILLING_ANOMALIES_PER_DAY"),
        ({"BILLING_DEMO_EVENTS": "0"}, "BILLING_DEMO_EVENTS"),
        ({"BILLING_LIMIT_THRESHOLDS": "0"}, "BILLING_LIMIT_THRESHOLDS: '0'.*from 1 to 1,000"),
        ({"BILLING_LIMIT_THRESHOLDS": "1001"}, "BILLING_LIMIT_THRESHOLDS: '1001'.*from 1 to 1,000"),
        ({"BILLING_LIMIT_THRESHOLDS": "87.5"}, "BILLING_LIMIT_THRESHOLDS: '87.5'.*whole percents"),
        ({"BILLING_WEBHOOK_URL": "http://example.test/tok3n"}, "BILLING_WEBHOOK_URL: is http to another machine"),
        ({"BILLING_WEBHOOK_URL": "ftp://example.test/tok3n"}, "BILLING_WEBHOOK_URL: not a web address"),
        ({"BILLING_WEBHOOK_URL": "https://[::1/tok3n"}, "BILLING_WEBHOOK_URL: not a web address"),
        ({"BILLING_WEBHOOK_URL": "https://example.test:99999/tok3n"}, "BILLING_WEBHOOK_URL: not a web address"),
        ({"BILLING_WEBHOOK_URL": "https://u:tok3n@example.test"}, "BILLING_WEBHOOK_URL: holds a user name"),
        ({"BILLING_WEBHOOK_URL": "https://example.test/tok3n"}, "BILLING_WEBHOOK_SECRET: missing"),
        ({"BILLING_WEBHOOK_SECRET": "tok3n-" * 4}, "BILLING_WEBHOOK_URL: missing"),
        ({"BILLING_WEBHOOK_SECRET": "tok3n"}, "BILLING_WEBHOOK_SECRET: too short"),
        ({"BILLING_WEBHOOK_SECRET": "whsec_dG9rM24="}, "BILLING_WEBHOOK_SECRET: too short"),
        ({"BILLING_WEBHOOK_SECRET": "whsec_tok3n tok3n tok3n tok3n"}, "BILLING_WEBHOOK_SECRET: .* is not base64"),
    ],
)
def test_a_wrong_value_is_one_line_naming_variable_fault_and_what_is_accepted(variables, says):
    with pytest.raises(SettingsError, match=says) as caught:
        load(**variables)
    text = str(caught.value)
    assert "\n" not in text
    for secret in ("u:secret", "short-and-sweet", "a" * 64, "tok3n", "dG9rM24="):
        assert secret not in text


def test_secrets_never_show_in_the_settings_themselves():
    hook = {"BILLING_WEBHOOK_URL": "https://h.test/tok3n", "BILLING_WEBHOOK_SECRET": "hook-secret-of-24-letters"}
    text = repr(load(**KEYS, STRIPE_API_KEY="rk_live_1", BILLING_COOKIE_KEY="0123456789abcdefghijklmnopqrstuv", **hook))
    for secret in ("sk-lf-secret", "rk_live_1", "0123456789abcdef", "tok3n", "hook-secret"):
        assert secret not in text


def test_the_public_address_keeps_its_path_and_proxies_are_networks():
    found = load(
        BILLING_PUBLIC_URL="https://Billing.example/team/", BILLING_TRUSTED_PROXIES="127.0.0.1, 10.1.0.0/16,::1"
    )
    assert found.public_url == "https://Billing.example/team"
    assert str(found.public_site) == "https://billing.example"
    assert found.trusted_proxies == tuple(map(ip_network, ("127.0.0.1", "10.1.0.0/16", "::1")))
    assert load().trusted_proxies == ()
    assert load().public_site is None


@pytest.mark.parametrize(
    "key",
    ["abc" * 12, "0123456789abcdef" * 2, "passwordpasswordpasswordpassword!", "correct-horse-" * 3 + "x", "ab" * 40],
)
def test_a_cookie_key_that_repeats_itself_is_refused_and_not_shown(key):
    with pytest.raises(SettingsError, match=r"BILLING_COOKIE_KEY: too weak \(it repeats itself\)") as caught:
        load(BILLING_COOKIE_KEY=key)
    assert key[:6] not in str(caught.value)


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=40), st.integers(0, 15))
def test_whatever_is_repeated_to_fill_a_cookie_key_is_found(unit, rest):
    key = unit * (32 // len(unit) + 2) + unit[:rest]
    assert settings._weakness(key) is not None


@pytest.mark.parametrize(
    "make", [secrets.token_hex, secrets.token_urlsafe, lambda n: str(secrets.randbelow(10**32) + 10**32)]
)
def test_random_cookie_keys_of_any_alphabet_are_taken(make):
    keys = [make(32) for _ in range(200)]
    assert [key for key in keys if len(set(key)) >= 8 and settings._weakness(key)] == []


PUBLIC = [
    "HTTP://8.8.8.8",
    "http://langfuse.example.com",
    "http://8.8.8.8:3000",
    "http://[2001:4860:4860::8888]",
    "http://134744072",
    "http://0x8080808",
]
PRIVATE = [
    "http://langfuse-web:3000",
    "http://10.1.2.3",
    "http://192.168.0.9:3000/x",
    "http://[fd00::1]",
    "http://lf.internal",
    "http://172.31.9.9",
    "http://169.254.1.1",
]
HERE = ["http://127.0.0.1:3000", "http://localhost", "http://[::1]:9", "http://127.9.9.9", "http://a.localhost"]


@pytest.fixture
def warnings(caplog):
    settings._warn_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("url", PUBLIC)
@pytest.mark.parametrize("name", ["LANGFUSE_HOST", "LANGFUSE_BASE_URL", "STRIPE_API_BASE"])
def test_in_live_mode_keys_do_not_cross_the_internet_in_plain_text(name, url):
    with pytest.raises(SettingsError, match=f"{name}: .*plain text over the internet; expected https://"):
        load(**KEYS, STRIPE_API_KEY="rk_1", **{name: url})


@pytest.mark.parametrize("url", PRIVATE)
def test_inside_a_private_network_one_warning_names_both(url, warnings):
    for _ in range(2):
        load(**KEYS, STRIPE_API_KEY="rk_1", LANGFUSE_HOST=url, STRIPE_API_BASE=url)
    (warning,) = warnings()
    assert f"LANGFUSE_HOST '{url}', STRIPE_API_BASE '{url}'" in warning


@pytest.mark.parametrize("url", [*HERE, "https://langfuse.example.com"])
def test_on_this_machine_and_over_https_nothing_is_said(url, warnings):
    load(**KEYS, STRIPE_API_KEY="rk_1", LANGFUSE_HOST=url, STRIPE_API_BASE=url)
    assert warnings() == []


@pytest.mark.parametrize(
    ("url", "warned"), [("http://billing.example", 1), ("https://b.example", 0), ("http://[::1]:9", 0)]
)
def test_a_public_address_without_tls_is_one_warning_in_live_mode(url, warned, warnings):
    for mode in ("live", "live", "demo"):
        load(BILLING_MODE=mode, BILLING_PUBLIC_URL=url)
    assert [text[:18] for text in warnings()] == ["BILLING_PUBLIC_URL"] * warned


def test_without_a_key_or_in_demo_mode_nothing_travels():
    assert load(STRIPE_API_BASE=PUBLIC[0], BILLING_MODE="live").stripe_api_base == PUBLIC[0]
    assert load(**KEYS, BILLING_MODE="demo", LANGFUSE_HOST=PUBLIC[0]).mode is Mode.DEMO
