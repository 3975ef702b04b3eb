from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from billing_core.web.security import SecurityHeaders, content_security_policy, inline_script_hashes
from tests.web.client import Client


def answer(_request):
    return PlainTextResponse("hello", headers={"X-Frame-Options": "ALLOWALL"})


@pytest.fixture
def client():
    routes = [Route(path, answer) for path in ("/", "/_stcore/metrics", "/base/_stcore/metrics", "/_stcore/health")]
    return Client(Starlette(routes=routes, middleware=[Middleware(SecurityHeaders)]))


def test_every_answer_carries_the_headers_and_none_can_be_loosened_by_a_route(client):
    for path in ("/", "/nowhere", "/_stcore/metrics"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == content_security_policy((), "ws://dashboard")
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "camera=()" in headers["permissions-policy"]


def test_browsers_are_held_to_https_only_where_they_came_by_https(client):
    assert "strict-transport-security" not in client.get("/").headers
    assert "strict-transport-security" not in client.get("/", headers={"X-Forwarded-Proto": "https"}).headers
    assert client.get("https://dashboard/").headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("scheme", "host", "source"),
    [
        ("http", "127.0.0.1:8501", "ws://127.0.0.1:8501"),
        ("https", "Billing.example.", "wss://billing.example"),
        ("http", "[::1]:8501", ""),
        ("http", "a; script-src *", ""),
        ("http", "*", ""),
        ("http", "", ""),
    ],
)
def test_the_only_socket_a_page_may_open_is_its_own(client, scheme, host, source):
    policy = client.get(f"{scheme}://dashboard/", headers={"Host": host}).headers["content-security-policy"]
    (connect,) = [part for part in policy.split("; ") if part.startswith("connect-src")]
    assert connect == f"connect-src 'self' {source}".rstrip()
    assert policy.count("script-src") == 1


@pytest.mark.parametrize(
    "path", ["/_stcore/metrics", "/base/_stcore/metrics", "/_stcore/metrics/", "/_stcore//metrics"]
)
def test_streamlits_metrics_are_nobodys_business(client, path):
    for answer in (client.get(path), client.request("OPTIONS", path), client.get(path + "?families=cache")):
        assert answer.status_code == 404
        assert answer.content == b""


def test_other_addresses_of_streamlit_stay_open(client):
    assert client.get("/_stcore/health").text == "hello"


def test_only_the_inline_scripts_of_the_shell_page_may_run():
    html = "<script>window.a = 1</script><script type='module' src='x.js'></script>"
    (source,) = inline_script_hashes(html)
    assert source == "'sha256-Aif1QuaDxF56ZK3+IyoelKcjrWC+BWl5ZGfcO1AMmA4='"
    policy = content_security_policy([source])
    assert f"script-src 'self' 'wasm-unsafe-eval' {source};" in policy
    assert "'unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
    assert "script-src 'self' 'unsafe-inline'" not in policy


def test_foreign_pages_may_not_frame_the_dashboard_nor_it_talk_to_them():
    policy = content_security_policy()
    assert "frame-ancestors 'self'" in policy
    assert "default-src 'self'" in policy
    assert "http:" not in policy
    assert "https:" not in policy
