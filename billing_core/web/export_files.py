"""Routes for exports of a signed-in person: made on request, or the file of one that was made in the background."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from billing_core.access import Principal
from billing_core.errors import BadParameter, NotFound
from billing_core.exports.model import Dataset, ExportRequest, ExportResult, Format, Grain
from billing_core.web import wiring
from billing_core.web.signed_in import NO_STORE, for_signed_in, query_of
from billing_core.web.usage_api import parse_query

PIECE_BYTES = 1 << 20

SEPARATORS = {",": ",", "comma": ",", ";": ";", "semicolon": ";", "\t": "\t", "tab": "\t", "|": "|", "pipe": "|"}

_OWN = (
    "dataset",
    "format",
    "grain",
    "timezone",
    "columns",
    "separator",
    "bom",
    "parquet",
    "user_ids",
    "internal",
    "focus_version",
    "manifest",
)
"""Parameters beside the filters of `events`."""

_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zip": "application/zip",
}


async def export_download(request: Request) -> Response:
    """Route: the file of an export, made now; with `manifest=true` its manifest instead."""

    def answer(principal: Principal) -> Response:
        asked, wants_manifest = request_in(query_of(request))
        exports = wiring.service().exports
        if wants_manifest:
            return JSONResponse(exports.digest(asked, principal).to_json(), headers=NO_STORE)
        with tempfile.TemporaryDirectory(prefix="billing-download-") as folder:
            path = Path(folder) / exports.file_name(asked)
            result = exports.write(asked, principal, path)
            file = path.open("rb")  # once open it needs no name: nothing is left, however this ends
        return _file(file, result)

    return await for_signed_in(request, answer)


async def job_file(request: Request) -> Response:
    """Route: the file of a background export, for the person who started it."""

    def answer(principal: Principal) -> Response:
        path, result = wiring.export_jobs().file(request.path_params["id"], principal)
        return _file(path.open("rb"), result)

    return await for_signed_in(request, answer)


async def job_manifest(request: Request) -> Response:
    """Route: the manifest of a background export's file, for the person who started it."""

    def answer(principal: Principal) -> Response:
        _, result = wiring.export_jobs().file(request.path_params["id"], principal)
        headers = {"Content-Disposition": f'attachment; filename="{result.name}.manifest.json"', **NO_STORE}
        return JSONResponse(result.to_json(), headers=headers)

    return await for_signed_in(request, answer)


async def job_focus_metadata(request: Request) -> Response:
    """Route: the metadata file that belongs to a FOCUS file, for the person who started it."""

    def answer(principal: Principal) -> Response:
        from billing_core.exports.service import FOCUS_METADATA_SUFFIX  # brings the engine

        path, result = wiring.export_jobs().file(request.path_params["id"], principal)
        beside = path.with_name(path.name + FOCUS_METADATA_SUFFIX)
        if not beside.exists():
            raise NotFound(f"{result.name} has no metadata file: only FOCUS files have one")
        headers = {"Content-Disposition": f'attachment; filename="{beside.name}"', **NO_STORE}
        return Response(beside.read_bytes(), media_type="application/json", headers=headers)

    return await for_signed_in(request, answer)


def request_in(query: Mapping[str, list[str]]) -> tuple[ExportRequest, bool]:
    """The export request of a query string, and whether its manifest is wanted instead of the file.

    Raises BadParameter: naming the parameter.
    """
    own: dict[str, str] = {}
    for name in _OWN:
        given = query.get(name, [])
        if len(given) > 1:
            raise BadParameter(name, given, "one value")
        if given:
            own[name] = given[0]
    dataset = _one_of(Dataset, "dataset", own.get("dataset"))
    form = None if dataset is Dataset.BUNDLE and not own.get("format") else _one_of(Format, "format", own.get("format"))
    separator = own.get("separator", ",")
    if separator not in SEPARATORS:
        raise BadParameter("separator", separator, "comma, semicolon, tab or pipe")
    asked = ExportRequest(
        dataset,
        form,
        parse_query({name: values for name, values in query.items() if name not in _OWN}),
        columns=tuple(name.strip() for name in own["columns"].split(",")) if own.get("columns") else (),
        grain=_one_of(Grain, "grain", own.get("grain", Grain.EVENT.value)),
        timezone=own.get("timezone") or None,
        separator=SEPARATORS[separator],
        focus_version=own.get("focus_version", "1.2"),
        **{name: _yes(name, own.get(name)) for name in ("bom", "parquet", "user_ids", "internal")},
    )
    return asked, _yes("manifest", own.get("manifest"))


def _one_of(kind: Any, name: str, value: str | None) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise BadParameter(name, value, "one of " + ", ".join(kind)) from None


def _yes(name: str, value: str | None) -> bool:
    if value not in {None, "", "true", "false", "1", "0"}:
        raise BadParameter(name, value, "true or false")
    return value in {"true", "1"}


def _file(file: BinaryIO, result: ExportResult) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{result.name}"',
        "Content-Length": str(result.bytes),
        "X-Content-SHA256": result.sha256,
        **NO_STORE,
    }
    kind = _TYPES.get(Path(result.name).suffix, "application/octet-stream")
    return StreamingResponse(_pieces(file), media_type=kind, headers=headers)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece
