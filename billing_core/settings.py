"""The settings of the billing system, read once from environment variables and `.env` (CONTRACT section 2).

Values come from the process environment, then from a `.env` file in the working directory. A wrong value
becomes one line that names the variable, what is wrong and what is accepted; secrets are never part of it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from billing_core.errors import BadParameter, SettingsError
from billing_core.runtime.notify_addresses import NotifyAddress, addresses_in
from billing_core.values.hosts import Reach, Site, is_loopback, reach_of
from billing_core.values.journal_accounts import DatevClient, JournalAccounts

_log = logging.getLogger(__name__)

MINIMUM_COOKIE_KEY_LENGTH = 32
"""Characters; anything shorter can be guessed offline from one cookie."""

MINIMUM_COOKIE_KEY_TRIPLES = 22
"""Different runs of three characters: 32 random digits have about 30, a repeated word has few."""

MINIMUM_WEBHOOK_SECRET_LENGTH = 24
"""Characters, or bytes of the base64 form: what the Standard Webhooks scheme asks for at least."""

WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105  (the prefix of the base64 form, not a secret)

LARGEST_THRESHOLD = 1000
"""Percent of a plan's credits: ten times as much as it includes."""


class Mode(StrEnum):
    """`demo` runs on the built-in sandbox and its public accounts; `live` on real connections."""

    DEMO = "demo"
    LIVE = "live"


class ApiChoice(StrEnum):
    """Which generation of the Langfuse API to read."""

    AUTO = "auto"
    V2 = "v2"
    LEGACY = "legacy"


class Granularity(StrEnum):
    """What one Stripe meter event covers: the whole credits of a customer's UTC hour, or one usage event."""

    HOUR = "hour"
    EVENT = "event"


class MeterApi(StrEnum):
    """How meter events are sent to Stripe: one by one, or in batches (live accounts with volume only)."""

    V1 = "v1"
    V2_STREAM = "v2_stream"


class Settings(BaseModel):
    """Every setting the environment gives, as typed values. Frozen: nothing changes it after start.

    Field names are the variables' own, in lower case and without the `BILLING_` prefix.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, populate_by_name=True, extra="forbid")

    mode: Mode
    langfuse_host: str = "https://cloud.langfuse.com"
    langfuse_public_key: str | None = None
    langfuse_secret_key: SecretStr | None = None
    langfuse_api: ApiChoice = ApiChoice.AUTO
    langfuse_excluded_environments: tuple[str, ...] = ("langfuse-*", "sdk-experiment")
    stripe_api_key: SecretStr | None = None
    stripe_api_base: str | None = None
    stripe_meter_event_name: str = "credits"
    warehouse_url: str = "duckdb:///data/billing.duckdb"
    rate_card: Path | None = None
    timezone: str = "UTC"
    default_customer_id: str | None = None
    override_customer_id: bool = False
    lookback_hours: Annotated[int, Field(ge=0, le=24 * 366)] = 48
    settle_minutes: Annotated[int, Field(ge=0, le=7 * 24 * 60)] = 30
    push_granularity: Granularity = Granularity.HOUR
    stripe_meter_api: MeterApi = MeterApi.V1
    write_back: bool = False
    credentials: Path = Path("config/credentials.yaml")
    cookie_key: SecretStr | None = None
    api_tokens: Path | None = None
    public_url: str | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    limit_thresholds: tuple[int, ...] = (75, 90, 100)
    anomaly_minimum_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] = Decimal(2)
    anomalies_per_day: Annotated[int, Field(ge=1, le=100)] = 5
    demo_events: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    webhook_url: SecretStr | None = None
    webhook_secret: SecretStr | None = None
    notify_urls: SecretStr | None = None
    seller_name: str = "Seller"
    service_name: str = "AI credits"
    journal_accounts: str = ""
    journal_tax: Annotated[str, Field(max_length=50)] = ""
    datev: str = ""

    @field_validator("langfuse_host", "stripe_api_base")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("not a base URL; expected http(s)://host[:port][/path]")
        if parts.username or parts.password:
            raise ValueError("holds a user name or password; put keys into their own variables")
        return value.rstrip("/")

    @field_validator("stripe_api_key")
    @classmethod
    def _is_no_publishable_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().startswith("pk_"):
            raise ValueError("is a publishable key; expected a restricted key, which begins with rk_")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_iana_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not an IANA timezone; expected a name such as Europe/Berlin") from None
        return value

    @field_validator("langfuse_excluded_environments", mode="before")
    @classmethod
    def _split_globs(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("warehouse_url")
    @classmethod
    def _is_warehouse_url(cls, value: str) -> str:
        scheme = urlsplit(value).scheme
        if scheme != "duckdb":
            raise ValueError(f"the engine {scheme or value!r} is not available; expected duckdb:///path/to/file")
        if not value.startswith("duckdb:///") or len(value) == len("duckdb:///"):
            raise ValueError("names no file; expected duckdb:///relative/path or duckdb:////absolute/path")
        path = value.removeprefix("duckdb:///")
        if path.strip("/").startswith(":memory:"):
            raise ValueError(f"{value!r} would be gone with the process; expected a file: duckdb:///path/to/file")
        if not path.isprintable() or not Path(path).name:
            raise ValueError(f"{value!r} names no file; expected duckdb:///path/to/file")
        return value

    @field_validator("cookie_key")
    @classmethod
    def _is_strong_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            fault = _weakness(text)
            if fault is not None:
                raise ValueError(
                    f"too weak ({fault}); expected {MINIMUM_COOKIE_KEY_LENGTH} or more random characters, for "
                    'example from `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
                )
        return value

    @field_validator("public_url")
    @classmethod
    def _is_public_url(cls, value: str | None) -> str | None:
        if value is not None and Site.of_url(value) is None:
            raise ValueError(
                f"{value!r} is not an address people can open; expected http(s)://host[:port][/path], without user "
                "name, query or fragment"
            )
        return None if value is None else value.rstrip("/")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _are_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        networks = []
        for part in filter(None, (part.strip() for part in value.split(","))):
            try:
                network = ip_network(part)
            except ValueError:
                network = None
            if network is None or network.prefixlen == 0:
                raise ValueError(
                    f"{part[:60]!r}; expected addresses or networks of proxies, separated by commas, such as "
                    "127.0.0.1,10.1.0.0/16"
                )
            networks.append(network)
        return tuple(networks)

    @field_validator("limit_thresholds", mode="before")
    @classmethod
    def _are_percents(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        accepted = f"expected whole percents from 1 to {LARGEST_THRESHOLD:,}, separated by commas, such as 75,90,100"
        found = set()
        for part in value.split(","):
            text = part.strip()
            if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= LARGEST_THRESHOLD):
                raise ValueError(f"{text[:20]!r}; {accepted}")
            found.add(int(text))
        return tuple(sorted(found))

    @field_validator("journal_accounts", "datev")
    @classmethod
    def _are_of_a_journal(cls, value: str, info: ValidationInfo) -> str:
        try:
            (DatevClient if info.field_name == "datev" else JournalAccounts).parse(value)
        except BadParameter as error:
            raise ValueError(f"{error.value!r}; expected {error.accepted}") from None
        return value

    @field_validator("webhook_url")
    @classmethod
    def _is_webhook_url(cls, value: SecretStr | None) -> SecretStr | None:
        """Its path may hold a token, so the text is never repeated."""
        if value is None:
            return None
        text = value.get_secret_value()
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urlsplit("")
        if (
            parts.scheme not in {"http", "https"}
            or not host
            or parts.fragment
            or not (text.isascii() and text.isprintable())
        ):
            raise ValueError("not a web address; expected https://host[:port][/path]")
        if parts.username or parts.password:
            raise ValueError("holds a user name or password; receivers verify the sender by the signature")
        if parts.scheme == "http" and not is_loopback(host):
            raise ValueError("is http to another machine, where anybody on the way can read it; expected https://…")
        return value

    @field_validator("notify_urls")
    @classmethod
    def _are_notify_addresses(cls, value: SecretStr | None) -> SecretStr | None:
        for number, address in enumerate(() if value is None else addresses_in(value.get_secret_value()), start=1):
            if not address.is_understood:
                raise ValueError(
                    f"address {number} is none that Apprise understands; expected addresses such as "
                    "mailtos://user:password@example.com or slack://TokenA/TokenB/TokenC, separated by commas, see "
                    "docs/alerts.md"
                )
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _is_long_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(signing_key(value.get_secret_value())) < MINIMUM_WEBHOOK_SECRET_LENGTH:
            raise ValueError(
                f"too short; expected {MINIMUM_WEBHOOK_SECRET_LENGTH} or more random characters, or "
                f"{WEBHOOK_SECRET_PREFIX} and the base64 of as many bytes, for example from "
                '`python -c "import secrets; print(secrets.token_urlsafe(32))"`'
            )
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The reporting timezone, in which days, charts and exports are cut."""
        return ZoneInfo(self.timezone)

    @property
    def notify_addresses(self) -> tuple[NotifyAddress, ...]:
        """The addresses of BILLING_NOTIFY_URLS, each once."""
        return () if self.notify_urls is None else addresses_in(self.notify_urls.get_secret_value())

    @property
    def public_site(self) -> Site | None:
        """Scheme, host and port of BILLING_PUBLIC_URL; `None` if it is not set."""
        return None if self.public_url is None else Site.of_url(self.public_url)

    @property
    def warehouse_path(self) -> Path:
        """Path of the embedded ledger's file, links resolved: every file beside it is named after it."""
        path = Path(self.warehouse_url.removeprefix("duckdb:///"))
        real = os.path.realpath(path)
        return path if real == os.path.normpath(path if path.is_absolute() else Path.cwd() / path) else Path(real)


def page_link(settings: Settings, page: str, query: Mapping[str, Any]) -> str | None:
    """The address of a page of the dashboard with URL parameters; `None` unless BILLING_PUBLIC_URL is set."""
    if settings.public_url is None:
        return None
    asked = urlencode(query, doseq=True)
    return f"{settings.public_url}/{page}{f'?{asked}' if asked else ''}"


def signing_key(secret: str) -> bytes:
    """The bytes that webhooks are signed with: the secret's text, or what the base64 after `whsec_` decodes to.

    Raises ValueError: if what follows `whsec_` is no base64; the text is not repeated.
    """
    if not secret.startswith(WEBHOOK_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(WEBHOOK_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {WEBHOOK_SECRET_PREFIX} is not base64; copy the secret again") from None


def _weakness(key: str) -> str | None:
    """Why a cookie key can be guessed, `None` if nothing speaks against it."""
    length = len(key)
    if length < MINIMUM_COOKIE_KEY_LENGTH:
        return f"{length} characters"
    triples = {key[start : start + 3] for start in range(length - 2)}
    repeats = any(key[:-period] == key[period:] for period in range(1, length // 2 + 1))
    if len(set(key)) < 8 or repeats or len(triples) < MINIMUM_COOKIE_KEY_TRIPLES:
        return "it repeats itself"
    return None


_OTHER_NAMES = {
    "langfuse_host": ("LANGFUSE_HOST", "LANGFUSE_BASE_URL"),
    "stripe_api_key": ("STRIPE_API_KEY", "BILLING_STRIPE_SECRET_KEY"),
    "stripe_meter_api": ("BILLING_STRIPE_METER_API",),
}

VARIABLES: dict[str, tuple[str, ...]] = {
    name: _OTHER_NAMES.get(
        name, (name.upper() if name.startswith(("langfuse_", "stripe_")) else f"BILLING_{name.upper()}",)
    )
    for name in Settings.model_fields
}
"""Setting → the variables that may set it; the first one present wins."""

SECRET_VARIABLES = tuple(
    name
    for setting, names in VARIABLES.items()
    for name in names
    if Settings.model_fields[setting].annotation == SecretStr | None
)

KEPT_WHEN_EMPTY = {"langfuse_excluded_environments"}
"""Settings whose empty value means something (exclude nothing); elsewhere empty counts as absent."""


def load_settings(environment: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from `environment` (default: the process's) and `env_file`.

    Raises SettingsError: with one line for the first wrong variable; the command line ends with exit code 2.
    """
    values: dict[str, str] = {}
    if env_file is not None:
        values.update(_of_file(env_file))
    values.update(os.environ if environment is None else environment)

    found: dict[str, str] = {}
    source: dict[str, str] = {}
    for setting, names in VARIABLES.items():
        for name in names:
            text = values.get(name)
            if text is not None and (text.strip() or setting in KEPT_WHEN_EMPTY):
                found[setting], source[setting] = text.strip(), name
                break

    has_keys = "langfuse_public_key" in found and "langfuse_secret_key" in found
    found.setdefault("mode", Mode.LIVE if has_keys else Mode.DEMO)
    try:
        settings = Settings.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = str(first["loc"][0])
        raise SettingsError(f"{source.get(setting, VARIABLES[setting][0])}: {_fault(first, setting)}") from None
    _check_together(settings)
    if settings.mode is Mode.LIVE:
        _check_transport(settings, source)
    return settings


def _of_file(path: Path) -> dict[str, str]:
    try:
        if not path.is_file():
            return {}
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeError:
        raise SettingsError(f"{path}: is not text in UTF-8") from None


def _fault(error: Mapping[str, Any], setting: str) -> str:
    """What is wrong and what is accepted. Our own checks name the value where that is safe; the others get it here."""
    text = str(error["msg"])
    if error["type"] == "value_error":
        return text.removeprefix("Value error, ")
    is_secret = Settings.model_fields[setting].annotation == SecretStr | None
    return ("" if is_secret else f"{error['input']!r}; ") + text.replace("Input should be", "expected")


def _check_together(settings: Settings) -> None:
    """Rules over more than one variable."""
    if settings.override_customer_id and settings.default_customer_id is None:
        raise SettingsError(
            "BILLING_OVERRIDE_CUSTOMER_ID: true needs BILLING_DEFAULT_CUSTOMER_ID, the customer to bill everything to"
        )
    if (settings.langfuse_public_key is None) != (settings.langfuse_secret_key is None):
        missing = "LANGFUSE_PUBLIC_KEY" if settings.langfuse_public_key is None else "LANGFUSE_SECRET_KEY"
        raise SettingsError(f"{missing}: missing; both Langfuse keys are needed, or neither for demo mode")
    if (settings.webhook_url is None) != (settings.webhook_secret is None):
        missing = "BILLING_WEBHOOK_URL" if settings.webhook_url is None else "BILLING_WEBHOOK_SECRET"
        raise SettingsError(f"{missing}: missing; the webhook needs its address and its secret, or neither")


def _check_transport(settings: Settings, source: Mapping[str, str]) -> None:
    """In plain text keys do not cross the internet; anything else that leaves this machine is one warning."""
    private = []
    for setting, url, key in (
        ("langfuse_host", settings.langfuse_host, settings.langfuse_secret_key),
        ("stripe_api_base", settings.stripe_api_base, settings.stripe_api_key),
    ):
        if key is None or url is None or urlsplit(url).scheme != "http":
            continue
        variable = source.get(setting, VARIABLES[setting][0])
        match reach_of(urlsplit(url).hostname or ""):
            case Reach.PUBLIC:
                raise SettingsError(
                    f"{variable}: {url!r} would carry the key in plain text over the internet; expected https://… "
                    "(http:// is for this machine and private networks)"
                )
            case Reach.PRIVATE:
                private.append(f"{variable} {url!r}")
    public = settings.public_site
    if public is not None and public.scheme == "http" and not is_loopback(public.host):
        _warn_once(f"BILLING_PUBLIC_URL {str(public)!r}: passwords travel in plain text; https:// is safer")
    if private:
        _warn_once(f"keys travel in plain text inside the private network: {', '.join(private)}; https:// is safer")


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)
