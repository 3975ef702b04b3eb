"""A small fixed world (`NOW` lies in the past, so every row has arrived) and servers that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.server import SandboxProcess

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
WORLD = {"seed": 7, "events": 900, "days": 30}
KEYS = ("pk-lf-demo", "sk-lf-demo")
BILLING_FIELDS = "core,basic,time,model,usage,metadata,trace_context"

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def dataset() -> SandboxDataset:
    return SandboxDataset(**WORLD, now=NOW)


def _client(process: SandboxProcess) -> httpx.Client:
    return httpx.Client(base_url=process.url, auth=KEYS, timeout=30)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxProcess]:
    """Langfuse v4 and Stripe; shared, so nobody may change its rows."""
    with SandboxProcess(**WORLD, now=NOW) as process:
        yield process


@pytest.fixture
def langfuse(sandbox: SandboxProcess) -> Iterator[httpx.Client]:
    with _client(sandbox) as client:
        yield client
        client.delete("/_sandbox/faults")


@pytest.fixture(scope="session")
def v3() -> Iterator[httpx.Client]:
    with SandboxProcess(**WORLD, now=NOW, mode="v3") as process, _client(process) as client:
        yield client


@pytest.fixture
def own_langfuse() -> Iterator[httpx.Client]:
    """A server of the test's own, for tests that add rows; both APIs."""
    with SandboxProcess(**{**WORLD, "events": 60}, now=NOW, mode="dual") as process, _client(process) as client:
        yield client


@pytest.fixture(scope="session")
def call() -> Callable[..., httpx.Response]:
    """One request to an application in this process, for tests that hold its clock."""

    def request(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sandbox") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    return request


@pytest.fixture(scope="session")
def read_all() -> Callable[..., Rows]:
    """Every row of the v2 API for a question, page after page."""

    def read(client: httpx.Client, **parameters: Any) -> Rows:
        parameters = {"fields": BILLING_FIELDS, "limit": 1000, **parameters}
        rows: Rows = []
        while True:
            answer = client.get("/api/public/v2/observations", params=parameters)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            rows += page["data"]
            if "cursor" not in page["meta"]:
                return rows
            parameters["cursor"] = page["meta"]["cursor"]

    return read


@pytest.fixture(scope="session")
def all_rows(dataset: SandboxDataset) -> Rows:
    """Every row as the server keeps it, metadata whole."""
    return [msgspec.to_builtins(row.whole) for row in dataset.store().rows]


@pytest.fixture(scope="session")
def conforms() -> Callable[[str, Any], None]:
    """Fails unless a body is what Langfuse's own description says about the 200 answer of a route."""
    document = yaml.safe_load((Path(__file__).parent / "openapi_subset.yml").read_text("utf-8"))
    registry = Registry().with_resource("urn:api", Resource(document, DRAFT4))

    def check(route: str, body: Any, method: str = "get") -> None:
        assert "200" in document["paths"][route][method]["responses"]
        escaped = route.replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
        place = f"urn:api#/paths/{escaped}/{method}/responses/200/content/application~1json/schema"
        validator = OAS30Validator({"$ref": place}, registry=registry, format_checker=oas30_format_checker)
        problems = [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(body)]
        assert not problems, problems[:3]

    return check
