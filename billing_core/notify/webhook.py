"""The signed webhook: messages by the Standard Webhooks scheme (standardwebhooks.com).

Nothing of an answer but its status is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import TYPE_CHECKING

from billing_core.notify.delivery import Message, Response
from billing_core.settings import Settings, signing_key

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 5.0
"""To connect, to send and to answer, each."""


def signature_of(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header of a message: version 1, HMAC-SHA256 over id, Unix time and body."""
    content = f"{notice_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def body_of(message: Message) -> bytes:
    """The JSON document of a message that is sent to the webhook; exact numbers as text."""
    return json.dumps(message.document, ensure_ascii=False, separators=(",", ":")).encode()


class Webhook:
    """The webhook that messages are sent to; a signed message follows no redirect."""

    key: str | None = None
    label: str | None = None

    def __init__(self, url: str, key: bytes, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._signing_key = key
        self._timeout = timeout_seconds

    @classmethod
    def from_settings(cls, settings: Settings) -> Webhook | None:
        """The webhook of the settings; `None` without one."""
        if settings.webhook_url is None or settings.webhook_secret is None:
            return None
        return cls(settings.webhook_url.get_secret_value(), signing_key(settings.webhook_secret.get_secret_value()))

    def send(self, message: Message, at: datetime) -> Response:
        """Send one message to the webhook, without a retry."""
        import httpx  # here: only this needs it

        body = body_of(message)
        timestamp = int(at.timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": "billing-dashboard",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_of(self._signing_key, message.id, timestamp, body),
        }
        try:
            with (
                httpx.Client(timeout=self._timeout, follow_redirects=False) as http,
                http.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                return Response(response.status_code, is_delivered=200 <= response.status_code < 300)
        except httpx.HTTPError as error:
            return Response(None, self._why(error))

    def _why(self, error: httpx.HTTPError) -> str:
        """In our own words: the library's may name the address."""
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout:g} seconds"
        if isinstance(error, httpx.ConnectError):
            return "its certificate is not trusted" if "CERTIFICATE" in str(error) else "it could not be reached"
        return "the connection broke before there was an answer"
