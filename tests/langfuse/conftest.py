"""A scripted Langfuse and a provider that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from billing_core.langfuse.provider import LangfuseProvider
from billing_core.langfuse.reading import UpstreamRead
from billing_core.values.usage_frame import USAGE_SCHEMA, Window
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, FakeLangfuse

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def langfuse() -> Iterator[FakeLangfuse]:
    server = FakeLangfuse()
    yield server
    server.close()


@pytest.fixture
def connect(langfuse: FakeLangfuse) -> Iterator[Callable[..., LangfuseProvider]]:
    """Make a provider for the scripted server; retries are quick."""
    providers: list[LangfuseProvider] = []

    def connect(**options: Any) -> LangfuseProvider:
        options = {"first_backoff_seconds": 0.001, "clock": lambda: NOW, "timeout_seconds": 5.0} | options
        provider = LangfuseProvider(langfuse.url, PUBLIC_KEY, SecretStr(SECRET_KEY), **options)
        providers.append(provider)
        return provider

    yield connect
    for provider in providers:
        provider.close()


@pytest.fixture
def read(connect: Callable[..., LangfuseProvider], tmp_path: Path) -> Callable[..., UpstreamRead]:
    """Read a window given as two ISO times."""

    def read(start: str, end: str, *, provider: LangfuseProvider | None = None, **options: Any) -> UpstreamRead:
        window = Window(datetime.fromisoformat(start), datetime.fromisoformat(end))
        return (provider or connect()).read(window, spool=tmp_path / "spool", **options)

    return read


@pytest.fixture
def events() -> Callable[[UpstreamRead], dict[str, dict[str, Any]]]:
    """Trace id → usage row."""

    def events(reading: UpstreamRead) -> dict[str, dict[str, Any]]:
        tables = [USAGE_SCHEMA.empty_table(), *reading.batches()]
        return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}

    return events
