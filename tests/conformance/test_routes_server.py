"""What all routes have in common: methods, headers, sizes, other origins; the log and the editor's files."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conformance import driver
from conformance.asking import ANY, File, Row, ask, check, form, has
from conformance.differences import expected
from conformance.driver import Server

ORIGIN = "http://editor.example"


@pytest.fixture(scope="session")
def open_server(kind: str, start_server: Callable[..., Server]) -> Server:
    """A server for pages of another origin, with compressed answers and small uploads."""
    return start_server(
        kind,
        f"--enable-cors-header={ORIGIN}",
        "--enable-compress-response-body",
        "--max-upload-size=0.5",
    )


# -- methods -------------------------------------------------------------------------------------------------

GET_ROUTES = [
    *("embeddings", "models", "models/loras", "extensions", "view", "view_metadata/loras", "system_stats", "features"),
    *("object_info", "object_info/TinyAdd", "history/x", "experiment/models", "experiment/models/loras"),
    *("workflow_templates", "i18n", "userdata", "v2/userdata"),
]
POST_ROUTES = ["upload/image", "upload/mask", "interrupt", "free", "userdata/a/move/b"]
BOTH = ["prompt", "queue", "history", "settings", "settings/x", "users", "userdata/x"]


async def test_each_route_has_its_methods(server: Server) -> None:
    """405 for others, with those it has; HEAD wherever there is GET; OPTIONS always."""
    wrong = []
    for prefix in ("/", "/api/"):
        for paths, allowed in ((GET_ROUTES, {"GET", "HEAD"}), (POST_ROUTES, {"POST"}), (BOTH, {"GET", "HEAD", "POST"})):
            for path in paths:
                # A route of another method makes way for the editor's files, of which there is none of that name.
                other = "PATCH"
                answer = await ask(server, other, prefix + path)
                seen = set(answer.headers.get("Allow", "").split(","))
                if answer.status != 405 or not allowed <= seen or other in seen:
                    wrong.append((other, prefix + path, answer.status, seen))
                answer = await ask(server, "OPTIONS", prefix + path)
                if (answer.status, answer.body) != (200, b""):
                    wrong.append(("OPTIONS", prefix + path, answer.status))
                if allowed == {"GET", "HEAD"}:
                    statuses = [(await ask(server, method, prefix + path)).status for method in ("GET", "HEAD")]
                    if statuses[0] != statuses[1]:
                        wrong.append(("HEAD", prefix + path, statuses))
    assert wrong == []
    await check(
        server,
        [
            Row("OPTIONS", "/nosuch", 200, b""),
            Row("GET", "/nosuch", 404, b""),
            Row("GET", "/api/nosuch", 404, b""),
            Row("GET", "/api", 404),
            # The editor itself: the route is "/".
            Row("GET", "/api/", 200, re.compile("<html")),
            Row("GET", "//queue", 404),
            Row("GET", "/queue/", 404),
            Row("POST", "/nosuch", 405),
            Row("POST", "/api/nosuch", 405),
            Row("DELETE", "/queue", 405),
            Row("GET", "/upload/image", 404),
            Row("GET", "/api/interrupt", 404),
            Row("BREW", "/queue", 400),
            Row("GET", "/ws", 400, re.compile("No WebSocket UPGRADE hdr")),
            Row("GET", "/queue?x=%00&y=%ff", 200),
        ],
    )


# -- sizes, compression, origins ---------------------------------------------------------------------------------


async def test_uploads_have_a_largest_size(open_server: Server) -> None:
    """413 beyond --max-upload-size, in a form or not; the size is announced."""
    big = b"x" * (600 * 1024)
    fits = b"x" * (400 * 1024)
    await check(
        open_server,
        [
            Row("POST", "/upload/image", 200, body=form(image=File("fits.png", fits))),
            Row("POST", "/upload/image", 413, ANY, body=form(image=File("big.png", big))),
            Row("POST", "/upload/mask", 413, ANY, body=form(image=File("big.png", big), original_ref="{}")),
            Row("POST", "/userdata/fits", 200, body=fits),
            Row("POST", "/userdata/big", 413, re.compile("Maximum request body size 524288 exceeded"), body=big),
            Row("POST", "/prompt", 413, body=b" " * 600 * 1024 + b"{}"),
            Row("GET", "/features", 200, lambda answer: answer.json["max_upload_size"] == 524288),
            Row("GET", "/view?filename=big.png&type=input", 404),
        ],
    )


async def test_answers_are_compressed_on_request(open_server: Server) -> None:
    """JSON and text of the server's own, for clients that take gzip."""
    await ask(open_server, "POST", "/userdata/c.json", b'{"x": "' + b"y" * 2000 + b'"}')
    gzip, plain = {"Accept-Encoding": "gzip, br"}, {"Accept-Encoding": "identity"}
    compressed, same = {"Content-Encoding": "gzip"}, {"Content-Encoding": None}
    await check(
        open_server,
        [
            Row("GET", "/object_info", 200, headers=compressed, sent=gzip),
            Row("GET", "/api/queue", 200, headers=compressed, sent=gzip),
            Row("GET", "/object_info", 200, headers=same, sent=plain),
            Row("GET", "/userdata/c.json", 200, headers=same, sent=gzip),
            Row("GET", "/view?filename=fits.png&type=input", (200, 404), headers=same, sent=gzip),
            Row("POST", "/interrupt", 200, headers=same, sent=gzip),
            Row("GET", "/v2/userdata?path=..", 400, headers=compressed, sent=gzip),
        ],
    )


async def test_answers_are_not_compressed_unless_the_server_was_told_to(server: Server) -> None:
    """Though the client takes it."""
    await check(
        server, [Row("GET", "/object_info", 200, headers={"Content-Encoding": None}, sent={"Accept-Encoding": "gzip"})]
    )


async def test_pages_of_the_allowed_origin_may_use_the_server(open_server: Server) -> None:
    """Every answer says so, the one to OPTIONS too, whatever the origin of the request."""
    methods = "POST, GET, DELETE, PUT, OPTIONS" + (", PATCH" if has(open_server, 0, 8) else "")
    headers = {
        "Access-Control-Allow-Origin": ORIGIN,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "Content-Type, Authorization",
        "Access-Control-Allow-Credentials": "true",
    }
    await check(
        open_server,
        [
            Row("GET", "/queue", 200, headers=headers, sent={"Origin": ORIGIN}),
            Row("GET", "/queue", 200, headers=headers, sent={"Origin": "http://evil.example"}),
            Row("GET", "/api/queue", 200, headers=headers),
            Row("POST", "/queue", 200, headers=headers, body={}, sent={"Origin": ORIGIN}),
            Row("OPTIONS", "/queue", 200, b"", headers, sent={"Origin": ORIGIN}),
            Row("OPTIONS", "/nosuch", 200, b"", headers),
            Row("GET", "/view", 404, headers=headers),
            Row("GET", "/", 200, headers=headers),
            Row("GET", "/nosuch", 404, headers=headers),
            # An answer that is an exception inside says nothing.
            Row("POST", "/view", 405, headers={"Access-Control-Allow-Origin": None}),
        ],
    )


async def test_pages_of_other_sites_are_refused(server: Server) -> None:
    """Origin against Host, where Host is this machine; the embedded server looks at more."""
    port = server.port
    own, local = f"127.0.0.1:{port}", f"localhost:{port}"
    here = expected(server, "foreign pages", comfyui=200, embedded=403)
    cross = expected(server, "foreign pages", comfyui=403 if server.version >= (0, 19) else 200, embedded=403)
    rows = []
    for sent, status in (
        ({}, 200),
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": f"https://{own}"}, 200),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": f"http://evil.example:{port}"}, 403),
        ({"Origin": f"http://127.0.0.1:{port + 1}"}, 403),
        ({"Origin": f"http://{local}"}, 403),
        ({"Origin": "null"}, here),
        ({"Origin": ""}, 200),
        ({"Host": local, "Origin": f"http://{local}"}, 200),
        ({"Host": local.upper(), "Origin": f"http://{local}"}, 200),
        ({"Host": "127.0.0.1", "Origin": f"http://{own}"}, 200),
        ({"Host": f"[::1]:{port}", "Origin": f"http://[::1]:{port}"}, 200),
        ({"Host": f"[::1]:{port}", "Origin": f"http://{own}"}, 403),
        ({"Host": "evil.example"}, here),
        ({"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}, here),
        ({"Sec-Fetch-Site": "cross-site"}, cross),
        ({"Sec-Fetch-Site": "same-site"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ):
        rows += [Row(method, "/features", status, ANY, sent=sent) for method in ("GET", "OPTIONS")]
    rows.append(Row("POST", "/queue", 403, b"", body={}, sent={"Origin": "http://evil.example"}))
    await check(server, rows)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(server.url + "/ws", headers={"Origin": "http://evil.example"})
        assert refusal.value.status == 403


# -- caching ---------------------------------------------------------------------------------------------------


async def test_what_a_browser_may_keep(server: Server) -> None:
    """Pages and scripts not at all, images for a day, missing ones for an hour; by the name in the path alone."""
    old = server.version < (0, 18)
    again = "no-cache" if old else "no-store"
    await ask(server, "POST", "/userdata/kept.png", b"x")
    await ask(server, "POST", "/userdata/kept.css", b"x")
    await ask(server, "POST", "/userdata/index.json", b"x")
    root = {"Cache-Control": "no-cache" if old else "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}
    day, hour, nothing = ({"Cache-Control": value} for value in ("public, max-age=86400", "public, max-age=3600", None))
    await check(
        server,
        [
            Row("GET", "/", 200, re.compile("<html"), {**root, "Content-Type": "text/html"}),
            Row("HEAD", "/", 200, b"", root),
            Row("GET", "/userdata/kept.png", 200, headers=day),
            Row("GET", "/userdata/nosuch.PNG", 404, headers=hour),
            Row("GET", "/userdata/nosuch.webp", 404, headers=hour),
            Row("GET", "/userdata/nosuch.gif", 404, headers=nothing),
            Row("GET", "/userdata/kept.css", 200, headers={"Cache-Control": again}),
            Row("GET", "/userdata/index.json", 200, headers={"Cache-Control": again}),
            Row("GET", "/userdata/nosuch.js", 404, headers={"Cache-Control": again}),
            Row("GET", "/features", 200, headers=nothing),
            Row("GET", "/view?filename=nosuch.png", 404, headers=nothing),
        ],
    )


async def test_the_editors_files(server: Server) -> None:
    """index.html and what it loads; templates and node help where those packages are installed."""
    page = (await ask(server, "GET", "/")).text
    script = re.search(r'src="(?:\./)?(assets/[^"]+\.js)"', page)
    assert script
    await check(
        server,
        [
            Row("GET", "/index.html", 200, page),
            Row("GET", f"/{script[1]}", 200, headers={"Content-Type": re.compile("^(text|application)/javascript")}),
            Row("GET", "/assets/nosuch.js", 404),
            Row("GET", "/assets/", 403),
            Row("GET", "/../server.py", (403, 404)),
            Row("GET", "/..%2F..%2Fetc%2Fpasswd", (403, 404)),
            Row("GET", "/api/index.html", 404),
            Row("GET", "/templates/index.json", 200, lambda answer: isinstance(answer.json, list)),
            Row("GET", "/templates/nosuch.json", 404),
            Row("GET", "/user.css", (200, 404)),
        ],
    )


# -- the log, folders --------------------------------------------------------------------------------------------


async def test_the_log_can_be_read_and_followed(server: Server) -> None:
    """The last lines as text or entries; a client that subscribes gets new ones until it unsubscribes."""
    async with driver.connect(server) as client:
        # The server keeps the last 300 lines.
        await client.post("/tiny/log", {"log": "line before"})
        await check(
            server,
            [
                Row("GET", "/internal/logs", 200, lambda answer: "line before" in answer.json),
                Row("GET", "/api/internal/logs", 404),
                Row("PATCH", "/internal/logs/subscribe", 500, body="no JSON"),
                Row("PATCH", "/internal/logs/subscribe", 500, body={"clientId": client.sid}),
                Row("POST", "/internal/logs/subscribe", 405, body={"clientId": client.sid, "enabled": True}),
            ],
        )
        raw = (await ask(server, "GET", "/internal/logs/raw")).json
        assert raw.keys() == {"entries", "size"}
        assert all(entry.keys() == {"t", "m"} for entry in raw["entries"])
        assert raw["size"].keys() == {"cols", "rows"}
        subscribe = {"clientId": client.sid, "enabled": True}
        await check(server, [Row("PATCH", "/internal/logs/subscribe", 200, b"", body=subscribe)])
        await client.post("/tiny/log", {"log": "first line"})
        assert await _next_log(client, "first line") is None
        await client.post("/tiny/log", {"print": "printed line"})
        await _next_log(client, "printed line")
        subscribe["enabled"] = False
        await check(server, [Row("PATCH", "/internal/logs/subscribe", 200, b"", body=subscribe)])
        await client.post("/tiny/log", {"log": "not followed"})
        await client.post("/tiny/send", {"event": "after", "data": {}, "sid": client.sid})
        assert "logs" not in {kind for kind, _ in await client.receive_until("after")}
        text = (await ask(server, "GET", "/internal/logs")).json
        assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6} - .*first line\n", text)
        assert "not followed" in text
        # A subscriber that has gone is forgotten.
        subscribe["enabled"] = True
        await check(server, [Row("PATCH", "/internal/logs/subscribe", 200, b"", body=subscribe)])
    await check(server, [Row("POST", "/tiny/log", 200, body={"log": "to nobody"})])


async def _next_log(client: Any, text: str) -> Any:
    """Wait until a line has come in messages about the log; returns the size that came with it."""
    lines = ""
    while text not in lines:
        *_, (_, data) = await asyncio.wait_for(client.receive_until("logs"), driver.RUN_TIMEOUT)
        assert data.keys() == {"entries", "size"}
        assert all(entry.keys() == {"t", "m"} for entry in data["entries"])
        lines += "".join(entry["m"] for entry in data["entries"])
    return data["size"]


async def test_folders_and_their_files(server: Server) -> None:
    """For the editor alone, so without /api."""
    base = server.base
    for name, age in (("old.png", 10**9), ("new.png", 2 * 10**9)):
        path = base / "temp" / name
        path.write_bytes(b"x")
        os.utime(path, (age, age))
    (base / "temp/folder").mkdir(exist_ok=True)
    mark = " [temp]" if server.version >= (0, 20) else ""

    def in_order(answer: Any) -> bool:
        wanted = [f"new.png{mark}", f"old.png{mark}"]
        return [name for name in answer.json if name in wanted] == wanted and f"folder{mark}" not in answer.json

    await check(
        server,
        [
            Row("GET", "/internal/files/temp", 200, in_order),
            Row("GET", "/internal/files/output", 200),
            Row("GET", "/internal/files/user", 400, {"error": "Invalid directory type"}),
            Row("GET", "/internal/files/..", 400),
            Row("GET", "/internal/files/", 404),
            Row("GET", "/api/internal/files/temp", 404),
            Row(
                "GET",
                "/internal/folder_paths",
                200,
                lambda answer: answer.json["loras"] == [str(base / "models/loras"), str(base / "output/loras")],
            ),
            Row("GET", "/internal/nosuch", 404),
        ],
    )
