"""Checks of the server that live mode runs in: Streamlit's options that must not be loosened."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.errors import SettingsError
from billing_core.settings import Mode, Settings
from billing_core.values.hosts import is_loopback

HARMLESS_DETAILS = ("none", "type")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Streamlit's options that decide who gets in and what strangers can read."""

    address: str | None
    enable_cors: bool
    enable_xsrf_protection: bool
    show_error_details: str | bool
    development_mode: bool = False
    enable_agent_api: bool = False


def check_server(settings: Settings, options: ServerOptions) -> None:
    """Raise `SettingsError` for the first option with which live mode must not be reachable; demo mode takes all."""
    if settings.mode is not Mode.LIVE:
        return
    if not options.enable_cors:
        raise SettingsError("server.enableCORS: off; live mode needs it on, or any web page may talk to the dashboard")
    if not options.enable_xsrf_protection:
        raise SettingsError("server.enableXsrfProtection: off; live mode needs it on, or any web page may upload files")
    if options.development_mode:
        raise SettingsError("global.developmentMode: on; live mode needs it off, because it allows every origin")
    if options.enable_agent_api:
        raise SettingsError(
            "server.enableAgentApi: on; live mode needs it off, because it drives pages without a browser"
        )
    if str(options.show_error_details).lower() not in HARMLESS_DETAILS:
        raise SettingsError(
            f"client.showErrorDetails: {options.show_error_details!r}; live mode accepts "
            f"{' or '.join(HARMLESS_DETAILS)}, because details show code and data (the log has them)"
        )
    if settings.public_url is None and not is_loopback(options.address or "0.0.0.0"):  # noqa: S104 - the default
        raise SettingsError(
            f"server.address: {options.address or 'every address'} can be reached from other machines; set "
            "BILLING_PUBLIC_URL to the address people use, or listen on 127.0.0.1"
        )
