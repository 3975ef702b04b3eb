"""The wording of planted refusals: as Langfuse, Stripe and the proxies before them put it."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.responses import HTMLResponse, Response

from billing_core.sandbox.http import json_response

Kind = Literal[
    "429",
    "500_timeout",
    "422",
    "503",
    "504_html",
    "cut",
    "slow",
    "broken_json",
    "duplicate_cursor",
    "401",
    "403",
    "404_html",
    "409",
    "html",
    "reset",
    "after_success_500",
    "after_success_timeout",
    "after_success_cut",
]

PERMISSIONS = {
    "billing/meter_event": "billing_meter_event_write",
    "billing/meters": "billing_meter_read",
    "core/events": "event_read",
    "customers": "customer_read",
    "invoices": "invoice_read",
    "prices": "plan_read",
    "products": "product_read",
    "subscription": "subscription_read",
}
"""What a restricted Stripe key needs, by the beginning of the path after the version."""


def _is_stripe(path: str) -> bool:
    return not path.startswith("/api/")


def server_error(path: str) -> bytes:
    """The body of a 500."""
    if _is_stripe(path):
        return msgspec.json.encode({"error": {"type": "api_error", "message": "An unknown error occurred"}})
    return msgspec.json.encode({"message": "Timeout error", "error": "InternalServerError"})


def refusal(kind: Kind, path: str, retry_after: int) -> Response | None:
    """The answer of a fault that needs no true one; `None` for the other kinds."""
    match kind:
        case "500_timeout":
            return json_response(server_error(path), 500)
        case "422":
            return json_response({"message": "Query exceeded its limits", "error": "Request timed out"}, 422)
        case "504_html":
            return HTMLResponse("<html><head><title>504 Gateway Time-out</title></head><body></body></html>", 504)
        case "404_html":
            return HTMLResponse("<html><head><title>404 Not Found</title></head><body></body></html>", 404)
        case "html":
            return HTMLResponse("<!DOCTYPE html><html><body><h1>Please sign in to the network</h1></body></html>")
        case _:
            return _stripe(kind, path, retry_after) if _is_stripe(path) else _langfuse(kind, retry_after)


def _stripe(kind: Kind, path: str, retry_after: int) -> Response | None:
    headers = {"Request-Id": "req_test_fault"}
    match kind:
        case "429":
            error = {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}
            headers |= {"Retry-After": str(retry_after), "Stripe-Rate-Limited-Reason": "global-rate"}
        case "503":
            error = {"type": "api_error", "message": "An unknown error occurred"}
        case "401":
            error = {"type": "invalid_request_error", "message": "Invalid API Key provided."}
        case "403":
            resource = path.removeprefix("/").partition("/")[2]
            found = (permission for start, permission in PERMISSIONS.items() if resource.startswith(start))
            permission = f"rak_{next(found, 'account_read')}"
            message = (
                "The provided key does not have the required permissions for this endpoint. "
                f"Having the '{permission}' permission would allow this request to continue."
            )
            error = {"type": "invalid_request_error", "message": message}
        case "409":
            message = "Another call for this customer and meter is in flight."
            error = {"type": "invalid_request_error", "code": "too_many_concurrent_requests", "message": message}
        case _:
            return None
    return json_response({"error": error}, int(kind), headers)


def _langfuse(kind: Kind, retry_after: int) -> Response | None:
    match kind:
        case "429":
            details = {"retryAfterSeconds": retry_after, "limit": 30, "remaining": 0}
            body: dict[str, object] = {"message": "Rate limit exceeded", "code": "rate_limited", "details": details}
            limits = {"Retry-After": str(retry_after), "X-RateLimit-Limit": "30", "X-RateLimit-Remaining": "0"}
            return json_response(body, 429, limits)
        case "503":
            return json_response({"message": "Database unavailable"}, 503)
        case "401":
            text = "Invalid credentials. Confirm that you've configured the correct host."
            return json_response({"message": text}, 401)
        case "403":
            return json_response({"message": "Access denied", "error": "ForbiddenError"}, 403)
        case "409":
            return json_response({"message": "Conflict", "error": "LangfuseConflictError"}, 409)
        case _:
            return None
