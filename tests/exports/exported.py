"""A ledger with something of everything, and independent readers of what is exported from it."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq

from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.types import GetUsageEventsParams
from tests.factories import NOON, model_usage, usage_row

FORMULA = '=HYPERLINK("http://evil.test","click")'


def mixed_rows(count: int = 60) -> list[dict[str, Any]]:
    """Events of four organizations over twelve days, some without one, with unknown values, formulas and odd text."""
    rows = []
    for n in range(count):
        model = ("gpt-5", "claude-sonnet-5", 'odd "model", 1')[n % 3]
        rows.append(
            usage_row(
                id=f"id-{n:03}" if n % 11 else f"ä/{n} ?",
                timestamp=NOON + timedelta(hours=5 * n, microseconds=1234 * n),
                latency_seconds=n * 1.5,
                organization_id=(None, "org_a", "org_b", "org_c")[n % 4],
                customer_id=None if n % 5 == 0 else f"cus_{n % 3}",
                user_id=None if n % 7 == 0 else (FORMULA if n % 13 == 0 else f"User-{n % 6}"),
                session_id=f"s-{n // 2}",
                chatflow_name=("Support; line\r\ntwo", "@SUM(1)", "a,b|c\td", None)[n % 4],
                environment=("production", "staging", "sdk-experiment")[n % 3],
                models=[model] if n % 9 else [],
                usage=[model_usage(model, input=n * 10, output=n)],
                tokens_in=n * 10,
                tokens_out=None if n % 6 == 0 else n,
                tokens_total=11 * n,
                storage_gb=None if n % 2 else Decimal(n) / 8000,
                cost_usd=None if n % 4 == 0 else Decimal(n) / 10**9,
            )
        )
    return rows


def asked(
    form: Format | str | None = Format.CSV, dataset: Dataset | str = Dataset.USAGE_EVENTS, **more: Any
) -> ExportRequest:
    """A request; words of `events` are its filter, the rest are the request's own."""
    own = {name: more.pop(name) for name in list(more) if name in ExportRequest.__dataclass_fields__}
    params = GetUsageEventsParams.parse(more)
    return ExportRequest(Dataset(dataset), None if form is None else Format(form), params, **own)


def read(path: Path, form: Format | str, separator: str = ",") -> list[dict[str, Any]]:
    """A file's rows by a reader that knows nothing of the writer; cells as text, unknown as None."""
    match Format(form):
        case Format.CSV | Format.FOCUS | Format.JOURNAL:
            text = path.read_bytes().decode("utf-8-sig")
            return [
                {name: cell or None for name, cell in row.items()}
                for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
            ]
        case Format.XLSX:
            sheet = openpyxl.load_workbook(io.BytesIO(path.read_bytes()))["data"]
            head, *lines = sheet.iter_rows(values_only=True)
            return [_with_every_digit(dict(zip(head, line, strict=True))) for line in lines]
        case Format.PARQUET:
            return pq.read_table(path).to_pylist()
        case Format.JSON:
            return [_flat(row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def _with_every_digit(row: dict[str, Any]) -> dict[str, Any]:
    """A sheet's row under its plain names, with the digits of the further columns."""
    exact = {name.removesuffix("_exact"): text for name, text in row.items() if name.endswith("_exact") and text}
    plain = {name.removesuffix(" (UTC)"): cell for name, cell in row.items() if not name.endswith("_exact")}
    return {**plain, **exact}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    parts = row.pop("credits", {})
    return {**row, **{f"credits_{name}": value for name, value in parts.items()}}


def added(rows: list[dict[str, Any]], name: str) -> Decimal | None:
    """The sum of a column over its known cells."""
    values = [Decimal(str(row[name])) for row in rows if row[name] is not None]
    return sum(values, Decimal(0)) if values else None
