from __future__ import annotations

import gzip

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from billing_core.web.compression import CompressedStaticFiles, accepts_gzip
from tests.web.client import Client

SCRIPT = "const credits = '0.00004';\n" * 4_000
IMMUTABLE = "public, immutable, max-age=31536000"


class Files(StaticFiles):
    """Streamlit's files never change under their name, and say so."""

    def __init__(self, directory):
        super().__init__(directory=directory)
        self.asked = []

    async def get_response(self, path, scope):
        self.asked.append(path)
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = IMMUTABLE
        return response


@pytest.fixture
def files(tmp_path):
    (tmp_path / "index.js").write_text(SCRIPT)
    (tmp_path / "short.js").write_text("1")
    (tmp_path / "font.woff2").write_bytes(b"\0" * 5_000)
    return Files(tmp_path)


@pytest.fixture
def client(files):
    routes = [Mount("/static", files), Route("/data.js", lambda _: Response(SCRIPT, media_type="text/javascript"))]
    return Client(Starlette(routes=routes, middleware=[Middleware(CompressedStaticFiles, "/static/")]))


def raw(client, path, **headers):
    """The bytes on the wire: httpx would unpack them."""
    wire = []

    async def noted(scope, receive, send):
        async def note(message):
            wire.append(message.get("body", b""))
            await send(message)

        await client._app(scope, receive, note)

    return Client(noted).get(path, headers=headers), b"".join(wire)


def test_a_script_crosses_the_wire_compressed_and_may_be_kept_as_long_as_before(client):
    answer, wire = raw(client, "/static/index.js", **{"Accept-Encoding": "gzip, deflate, br"})
    assert answer.text == SCRIPT
    assert gzip.decompress(wire) == SCRIPT.encode()
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(wire) < len(SCRIPT) / 10
    assert answer.headers["cache-control"] == IMMUTABLE
    assert "Accept-Encoding" in answer.headers["vary"]


def test_a_script_is_read_and_compressed_once(client, files):
    answers = [client.get("/static/index.js", headers={"Accept-Encoding": "gzip"}) for _ in range(3)]
    assert files.asked == ["index.js"]
    assert {(answer.text, answer.headers["content-length"]) for answer in answers} == {
        (SCRIPT, answers[0].headers["content-length"])
    }


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.0", "*;q=0", "gzip;q=much"])
def test_a_browser_that_does_not_take_gzip_gets_the_file_as_it_is(client, accepted):
    answer, wire = raw(client, "/static/index.js", **{"Accept-Encoding": accepted})
    assert wire == SCRIPT.encode()
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("accepted", ["gzip", "GZIP;q=0.1", "br;q=1, gzip;q=0.5", "*", "deflate, *;q=0.3"])
def test_gzip_is_taken_however_a_browser_says_so(accepted):
    assert accepts_gzip(accepted)


@pytest.mark.parametrize("name", ["font.woff2", "short.js"])
def test_what_does_not_shrink_is_sent_as_it_is(client, name):
    assert "content-encoding" not in client.get(f"/static/{name}", headers={"Accept-Encoding": "gzip"}).headers


@pytest.mark.parametrize("chunks", [[], [b"const "]])
def test_what_breaks_off_because_the_browser_left_is_not_kept_for_the_next_one(files, chunks):
    leaving = True

    async def breaks_off(scope, receive, send):
        if not leaving:
            await Starlette(routes=[Mount("/static", files)])(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/javascript")]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    client = Client(CompressedStaticFiles(breaks_off, "/static/"))
    with pytest.raises(AssertionError):  # httpx's complaint that no answer came
        client.get("/static/index.js", headers={"Accept-Encoding": "gzip"})
    leaving = False
    assert client.get("/static/index.js", headers={"Accept-Encoding": "gzip"}).text == SCRIPT


def test_what_is_no_static_file_is_left_alone(client):
    assert "content-encoding" not in client.get("/data.js", headers={"Accept-Encoding": "gzip"}).headers
    assert client.get("/static/nothing.js", headers={"Accept-Encoding": "gzip"}).status_code == 404


def test_a_range_and_a_revalidation_are_answered_by_the_file_itself(client):
    part = client.get("/static/index.js", headers={"Accept-Encoding": "gzip", "Range": "bytes=0-9"})
    assert (part.status_code, part.text) == (206, SCRIPT[:10])
    etag = client.get("/static/index.js", headers={"Accept-Encoding": "gzip"}).headers["etag"]
    same = client.get("/static/index.js", headers={"Accept-Encoding": "gzip", "If-None-Match": etag})
    assert same.status_code == 304
