"""The routes behind the editor's sidebar: in a small stand-in for ComfyUI's server, and in real servers."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from discomfort.editor import registration, routes_runs
from discomfort.editor.publication import Publication
from discomfort.editor.same_origin import why_foreign
from discomfort.editor.values import summary_of
from discomfort.observing import editors, run_history
from discomfort.observing.run_history import RunHistory
from discomfort.workflow_context import WorkflowContext
from outer_server import OuterServer, outer_server_fixture
from PIL import Image

WORKFLOWS = Path(__file__).parent / "workflows"

Json = dict[str, Any]


class Server:
    """What a node pack sees of ComfyUI's server, and a client of it."""

    def __init__(self) -> None:
        self.routes = web.RouteTableDef()
        self.app = web.Application()
        self.sent: list[tuple[str, Json]] = []
        self.address: str | None = None
        self.port: int | None = None
        self.hub = registration.register_with(self)
        self.client: TestClient[Any, Any]

    def send_sync(self, event: str, data: Json, sid: str | None = None) -> None:
        self.sent.append((event, data))

    async def start(self) -> None:
        self.app.add_routes(self.routes)
        server = TestServer(self.app)
        await server.start_server()
        self.address, self.port = "0.0.0.0", server.port
        self.client = TestClient(server)

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer that must have this status."""
        async with self.client.request(method, f"/discomfort{path}", json=body, **more) as answer:
            content = await answer.json()
            assert answer.status == status, content
            return content

    async def get(self, path: str, status: int = 200) -> Any:
        return await self.ask("GET", path, status=status)

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        return await self.ask("POST", path, body, status)


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest_asyncio.fixture
async def server(own_folders: None, no_leaks: None) -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.client.close()
    editors.set_local_hub(None)
    assert not editors.find_editors()


class Run:
    """A run that goes on, and writes what runs write."""

    def __init__(self, run_id: str, **first: Any) -> None:
        self.run_id = run_id
        self.path = f"/runs/{run_id}"
        self.history = RunHistory(run_id)
        self.commands: list[Json] = []
        event: Json = {
            "run_id": run_id, "name": "refine.json", "source": "script", "iterations": 3, "workflows": [],
            "checkpoint": "", "outer_node": None,
        }  # fmt: skip
        self.history.append("run", **{**event, **first})

    def end(self) -> None:
        self.history.append("end", state="finished", seconds=1.0, iterations=3, error=None, costs={})
        self.history.close()


@pytest.fixture
def start_run(own_folders: None) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(**first: Any) -> Run:
        runs.append(Run(first.pop("run_id", uuid.uuid4().hex), **first))
        return runs[-1]

    yield start
    for run in runs:
        run.history.close()


@pytest.fixture
def values(data_roots: tuple[str, str], start_run: Callable[..., Run]) -> Iterator[tuple[Run, WorkflowContext]]:
    """A run that goes on, with its context."""
    with WorkflowContext() as context:
        yield start_run(run_id=context.run_id), context


# ------------------------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "127.0.0.1:8188"},
        {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188", "Sec-Fetch-Site": "same-origin"},
        {"Host": "comfy.example", "Origin": "https://comfy.example"},
        {"Host": "comfy.example:443", "Origin": "https://comfy.example"},
        {"Host": "[::1]:8188", "Origin": "http://[::1]:8188"},
        {"Host": "LOCALHOST:8188", "Origin": "http://localhost:8188"},
        {"Host": "127.0.0.1:8188", "Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_requests_of_the_editor_and_of_scripts_are_taken(headers: dict[str, str]) -> None:
    assert why_foreign(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:8188", "Sec-Fetch-Site": "cross-site"},
        {"Host": "127.0.0.1:8188", "Sec-Fetch-Site": "same-site"},
        {"Host": "127.0.0.1:8188", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:9999"},
        {"Host": "127.0.0.1:8188", "Origin": "null"},
        {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188.evil.example"},
        {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:99999999"},
        {"Host": "evil.example:8188", "Origin": "http://127.0.0.1:8188"},
        {"Host": "localhost:8188", "Origin": "http://127.0.0.1:8188"},
        {"Origin": "http://127.0.0.1:8188"},
    ],
    ids=str,
)
def test_requests_of_foreign_pages_are_refused(headers: dict[str, str]) -> None:
    assert why_foreign(headers) is not None


async def test_every_route_refuses_foreign_pages_before_it_does_anything(server: Server) -> None:
    checked = 0
    for route in list(server.app.router.routes()):
        path = (
            route.url_for(**dict.fromkeys(("run_id", "name", "number"), "0" * 32)).path
            if "{" in str(route.resource and route.resource.canonical)
            else str(route.resource and route.resource.canonical)
        )
        if route.method == "HEAD":
            continue
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            async with server.client.request(route.method, path, headers=headers, json={}) as answer:
                assert answer.status == 403, f"{route.method} {path}"
                assert "Access-Control-Allow-Origin" not in answer.headers
                checked += 1
    assert checked >= 30
    assert not editors.find_editors()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_post_that_a_form_could_make_is_refused(server: Server, kind: str) -> None:
    body = json.dumps({"breakpoints": ["x"]}).encode()
    found = await server.ask("POST", "/settings", None, 415, data=body, headers={"Content-Type": kind})
    assert "application/json" in found["error"]
    assert server.hub.settings()["breakpoints"] == []


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_huge_body_is_refused(server: Server, is_announced: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 2**17

    data: Any = io.BytesIO(b" " * 2**23) if is_announced else pieces()
    headers = {"Content-Type": "application/json"}
    try:
        found = await server.ask("POST", "/settings", None, 413, data=data, headers=headers)
        assert "1,048,576 bytes" in found["error"]
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass  # the server has closed while the client still wrote
    assert (await server.get("/state"))["breakpoints"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'"x"', b"\xff"])
async def test_a_body_that_is_no_json_object_is_told_so(server: Server, body: bytes) -> None:
    found = await server.ask("POST", "/settings", None, 400, data=body, headers={"Content-Type": "application/json"})
    assert "no JSON" in found["error"]


# -------------------------------------------------------------------------------------------------- state, settings


async def test_the_state_lists_runs_newest_first_with_how_they_stand(
    server: Server, start_run: Callable[..., Run], tmp_path: Path
) -> None:
    assert (await server.get("/state"))["runs"] == []
    dead = start_run(name="dead.json", started=1.0)
    dead.history.close()
    ended = start_run(name="ended.json", source="editor", outer_node={"id": "7", "title": "Loop"}, started=2.0)
    ended.end()
    live = start_run(name="live.json", checkpoint=str(tmp_path), started=3.0)
    link = server.hub.attach(live.run_id, str(live.history.folder), live.commands.append)
    link.publish({"state": "paused", "offset": 12, "iteration": 1})
    state = await server.get("/state")
    assert [run["name"] for run in state["runs"]] == ["live.json", "ended.json", "dead.json"]
    first, second, third = state["runs"]
    assert first["live"] is True
    assert first["status"]["state"] == "paused"
    assert first["checkpoint"] == str(tmp_path)
    assert first["has_report"] is False
    assert (second["live"], second["source"], second["outer_node"]["id"]) == (False, "editor", "7")
    assert second["end"]["state"] == "finished"
    assert (third["live"], third["end"], third["status"]) == (False, None, None)
    assert state["server"]["state"] == "stopped"
    assert state["version"]
    assert {"breakpoints": [], "pause_at_start": False}.items() <= state.items()
    link.close()


async def test_settings_reach_runs_and_browsers_and_what_is_left_out_stays(
    server: Server, start_run: Callable[..., Run], wait_for: Callable[..., Any]
) -> None:
    run = start_run()
    link = server.hub.attach(run.run_id, str(run.history.folder), run.commands.append)
    assert await server.post("/settings", {"breakpoints": ["a", "a", "b"]}) == {
        "breakpoints": ["a", "b"], "pause_at_start": False,
    }  # fmt: skip
    assert await server.post("/settings", {"pause_at_start": True}) == {
        "breakpoints": ["a", "b"], "pause_at_start": True,
    }  # fmt: skip
    assert run.commands[-1] == {"command": "breakpoints", "names": ["a", "b"], "pause_at_start": True}
    expected = ("discomfort.settings", {"breakpoints": ["a", "b"], "pause_at_start": True})
    await asyncio.to_thread(wait_for, lambda: expected in server.sent)
    for wrong in ({"breakpoints": "a"}, {"breakpoints": [1]}, {"breakpoints": ["x"] * 201}, {"pause_at_start": 1}):
        await server.post("/settings", wrong, 400)
    assert (await server.get("/state"))["breakpoints"] == ["a", "b"]
    link.close()


async def test_stopping_a_nested_server_that_is_not_there_is_no_error(server: Server) -> None:
    assert await server.post("/server/stop", {}) == {"stopped": False}


async def test_the_first_look_at_the_state_publishes_the_editor_and_the_end_withdraws_it(
    own_folders: None, no_leaks: None
) -> None:
    server = Server()
    await server.start()
    try:
        assert await found_by_others() == []
        await server.get("/state")
        await server.get("/state")
        ((address, token),) = await found_by_others()
        assert address == f"http://127.0.0.1:{server.port}"
        assert len(token) >= 32
    finally:
        await server.client.close()
        editors.set_local_hub(None)
    assert await found_by_others() == []


@pytest.mark.parametrize(
    ("listens_on", "is_tls", "address"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8188"),
        ("0.0.0.0", False, "http://127.0.0.1:8188"),
        ("::", False, "http://[::1]:8188"),
        ("192.168.1.5", True, "https://192.168.1.5:8188"),
        ("", True, "https://127.0.0.1:8188"),
    ],
)
def test_the_published_address_is_one_that_this_machine_can_reach(listens_on: str, is_tls: bool, address: str) -> None:
    known = {"sockname": ("10.0.0.1", 9), "sslcontext": object() if is_tls else None}
    request: Any = SimpleNamespace(transport=SimpleNamespace(get_extra_info=known.get))
    assert Publication(SimpleNamespace(address=listens_on, port=8188)).address(request) == address


async def found_by_others() -> list[list[str]]:
    """[address, token] of the editors that another process finds."""
    code = (
        "import json; from discomfort.observing.editors import find_editors\n"
        "print(json.dumps([[one.address, one.token] for one in find_editors()]))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: list[list[str]] = json.loads(output)
    return found


# ----------------------------------------------------------------------------------------------------------- events


async def test_events_are_read_on_from_an_offset(server: Server, start_run: Callable[..., Run]) -> None:
    run = start_run()
    first = await server.get(f"{run.path}/events")
    assert [event["kind"] for event in first["events"]] == ["run"]
    assert first["live"] is True
    run.history.append("iteration", path=[0], score=float("inf"))
    more = await server.get(f"{run.path}/events?offset={first['offset']}")
    assert [event["kind"] for event in more["events"]] == ["iteration"]
    assert more["offset"] == run.history.length
    run.end()
    last = await server.get(f"{run.path}/events?offset={more['offset']}")
    assert last["events"][0]["state"] == "finished"
    assert last["live"] is False
    assert await server.get(f"{run.path}/events?offset={last['offset']}") == {
        "events": [], "offset": last["offset"], "live": False, "status": None,
    }  # fmt: skip


async def test_many_events_come_in_parts(
    server: Server, start_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_runs, "_EVENTS", 1000)
    run = start_run()
    for number in range(100):
        run.history.append("iteration", path=[number])
    found: list[Json] = []
    offset, parts = 0, 0
    while True:
        answer = await server.get(f"{run.path}/events?offset={offset}")
        if answer["offset"] == offset:
            break
        found, offset, parts = [*found, *answer["events"]], answer["offset"], parts + 1
    assert [event["path"] for event in found[1:]] == [[number] for number in range(100)]
    assert parts > 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/xyz/events", 400),
        (f"/runs/{'A' * 32}/events", 400),
        (f"/runs/{'a' * 33}/events", 400),
        ("/runs/..%2F..%2Fx/events", 400),
        (f"/runs/{'a' * 32}/events", 404),
        (f"/runs/{'a' * 32}/events?offset=-1", 400),
        (f"/runs/{'a' * 32}/events?offset=1e3", 400),
        (f"/runs/{'a' * 32}/events?offset=9{'0' * 30}", 400),
        (f"/runs/{'a' * 32}/thumbnails/..%2Flock", 400),
        (f"/runs/{'a' * 32}/thumbnails/lock", 400),
        (f"/runs/{'a' * 32}/thumbnails/a.jpg", 404),
        (f"/runs/{'a' * 32}/values/x", 404),
        (f"/runs/{'a' * 32}/values/x/picture?size=99999", 400),
        (f"/runs/{'a' * 32}/values/{'x' * 1001}", 400),
        (f"/runs/{'a' * 32}/workflows/0", 404),
        (f"/runs/{'a' * 32}/stitched", 404),
        (f"/runs/{'a' * 32}/report", 404),
    ],
)
async def test_what_is_not_there_or_no_name_is_told(server: Server, path: str, status: int) -> None:
    found = await server.get(path, status)
    assert found["error"].endswith((".", "'"))


async def test_thumbnails_are_kept_by_browsers_but_not_the_news_that_there_is_none(
    server: Server, start_run: Callable[..., Run]
) -> None:
    run = start_run()
    run.history.add_thumbnail("xxh3-12.jpg", b"a picture")
    async with server.client.get(f"/discomfort{run.path}/thumbnails/xxh3-12.jpg") as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "image/jpeg", b"a picture")
        assert "immutable" in answer.headers["Cache-Control"]
    async with server.client.get(f"/discomfort{run.path}/thumbnails/later.jpg") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")


async def test_only_runs_that_have_ended_can_be_removed(server: Server, start_run: Callable[..., Run]) -> None:
    run = start_run()
    assert "goes on" in (await server.ask("DELETE", run.path, status=409))["error"]
    run.end()
    assert await server.ask("DELETE", run.path) == {}
    await server.ask("DELETE", run.path, status=404)
    assert not run.history.folder.exists()


# ----------------------------------------------------------------------------------------------------------- values


async def test_values_of_a_live_run_in_words(server: Server, values: tuple[Run, WorkflowContext]) -> None:
    run, context = values
    context.save("score", 0.5)
    context.save("count", 3)
    context.save("flag", True)
    context.save("text/with slash", "hello")
    context.save("long", "x" * 300_000)
    context.save("image", torch.full((2, 8, 8, 3), float("nan")))
    context.save("settings", {"api_key": "sk-123", "deep": [{"password": "hunter2"}], "steps": 4})
    context.save("hf_token", "hf_secret")
    context.save("model", {"type": "MODEL", "prompt": {"1": {"inputs": {"api_key": "sk-9"}}}}, pass_by="ref")
    for name, value in {"score": 0.5, "count": 3, "flag": True}.items():
        found = await server.get(f"{run.path}/values/{name}")
        assert (found["name"], found["value"], found["editable"]) == (name, value, True)
    found = await server.get(f"{run.path}/values/text%2Fwith%20slash")
    assert (found["text"], found["editable"]) == ("hello", True)
    found = await server.get(f"{run.path}/values/long")
    assert (len(found["text"]), found["editable"]) == (200_000, False)
    found = await server.get(f"{run.path}/values/image")
    assert found["summary"]["shape"] == [2, 8, 8, 3]
    assert found["summary"]["nan"] == 2 * 8 * 8 * 3
    assert (found["pictures"], found["editable"]) == (2, False)
    assert found["info"]["storage_type"] in ("ram", "disk")
    assert found["info"]["digest"] == context.digest("image")
    found = await server.get(f"{run.path}/values/model")
    assert found["summary"] == {"type": "reference", "value": "MODEL"}
    everything = json.dumps(
        [await server.get(f"{run.path}/values/{name}") for name in ("settings", "hf_token", "model")]
    )
    assert "secret" in everything
    for secret in ("sk-123", "hunter2", "hf_secret", "sk-9"):
        assert secret not in everything
    assert "no value 'nothing'" in (await server.get(f"{run.path}/values/nothing", 404))["error"]


async def test_pictures_are_made_on_demand_and_sent_again_only_when_they_are_others(
    server: Server, values: tuple[Run, WorkflowContext]
) -> None:
    run, context = values
    image = torch.zeros(2, 64, 32, 3)
    image[1] = 1.0
    context.save("image", image)
    context.save("text", "no picture")
    context.save("api_key", image)
    url = f"/discomfort{run.path}/values/image/picture"
    async with server.client.get(f"{url}?size=16&item=1") as answer:
        assert (answer.status, answer.content_type) == (200, "image/png")
        tag = answer.headers["ETag"]
        with Image.open(io.BytesIO(await answer.read())) as picture:
            assert picture.size == (8, 16)
            assert picture.getpixel((0, 0)) == (255, 255, 255)
    async with server.client.get(f"{url}?size=16&item=1", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with server.client.get(f"{url}?size=16&item=0", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 200
    context.save("image", image * 0.5)
    async with server.client.get(f"{url}?size=16&item=1", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, answer.headers["ETag"] != tag) == (200, True)
    context.save("image", torch.rand(1, 800, 800, 3))
    async with server.client.get(url) as answer:
        content = await answer.read()
        assert answer.content_type in ("image/webp", "image/png")
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (800, 800)
    assert "no number 7" in (await server.get(f"{run.path}/values/image/picture?item=7", 404))["error"]
    assert "cannot be shown" in (await server.get(f"{run.path}/values/text/picture", 404))["error"]
    assert "secret" in (await server.get(f"{run.path}/values/api_key/picture", 404))["error"]


async def test_looking_at_large_values_holds_nobody_up(
    server: Server, values: tuple[Run, WorkflowContext], strict_loop: Any
) -> None:
    run, context = values

    def fill() -> None:
        context.save("image", torch.rand(16, 1024, 1024, 3))
        for _ in range(5000):
            run.history.append("iteration", path=[0], words="x" * 200)

    await asyncio.to_thread(fill)
    await asyncio.gather(
        server.get(f"{run.path}/values/image"),
        *(server.client.get(f"/discomfort{run.path}/values/image/picture?item={item}") for item in range(8)),
        *(server.get(f"{run.path}/events") for _ in range(4)),
        server.get("/state"),
    )


async def test_values_go_with_their_run(server: Server, data_roots: Any, start_run: Callable[..., Run]) -> None:
    with WorkflowContext() as context:
        run = start_run(run_id=context.run_id)
        context.save("x", 1)
        assert (await server.get(f"{run.path}/values/x"))["value"] == 1
        assert context.is_alive()
    assert "The run is over" in (await server.get(f"{run.path}/values/x", 404))["error"]


def test_of_a_tensor_of_gigabytes_only_parts_are_looked_at() -> None:
    large = torch.zeros(40, 1024, 1024, 3)
    large[39, 1023, 1023] = 0.0
    large[:, ::2] = 1.0
    start = time.perf_counter()
    found = summary_of(large)
    assert time.perf_counter() - start < 1.0
    assert found["sampled"] is True
    assert found["shape"] == [40, 1024, 1024, 3]
    assert (found["min"], found["max"]) == (0.0, 1.0)
    assert 0.3 < found["mean"] < 0.7
    turned = summary_of(large.permute(0, 2, 1, 3))
    assert (turned["sampled"], turned["shape"]) == (True, [40, 1024, 1024, 3])
    inside = summary_of({"samples": large, "steps": 4})
    assert inside["items"][0]["value"]["sampled"] is True
    assert inside["items"][1]["value"]["value"] == 4
    assert "sampled" not in summary_of(torch.zeros(1, 8, 8, 3))


# --------------------------------------------------------------------------------------------------------- commands


async def test_commands_reach_the_run_and_an_edit_waits_for_its_answer(
    server: Server, start_run: Callable[..., Run]
) -> None:
    run = start_run()

    def obey(command: Json) -> None:
        run.commands.append(command)
        if command["command"] == "set":
            link.answer(command["id"], None if command["name"] == "score" else "There is no such value.")

    link = server.hub.attach(run.run_id, str(run.history.folder), obey)
    run.commands.clear()
    for name in ("pause", "step", "continue", "stop"):
        assert await server.post(f"{run.path}/command", {"command": name, "more": "is not handed on"}) == {}
        assert run.commands[-1] == {"command": name}
    big = 2**70
    assert (
        await server.post(f"{run.path}/command", {"command": "set", "id": "mine", "name": "score", "value": big}) == {}
    )
    assert {"name": "score", "value": big}.items() <= run.commands[-1].items()
    found = await server.post(f"{run.path}/command", {"command": "set", "name": "x", "value": "text"}, 409)
    assert found["error"] == "There is no such value."
    count = len(run.commands)
    for wrong, status in (
        ({"command": "explode"}, 400),
        ({"command": ["set"]}, 400),
        ({"command": "set", "name": 1, "value": 1}, 400),
        ({"command": "set", "name": "x", "value": {"a": 1}}, 400),
        ({"command": "set", "name": "x"}, 400),
        ({"command": "breakpoints", "names": []}, 400),
        ({"command": "set", "name": "api_key", "value": "x"}, 409),
    ):
        await server.post(f"{run.path}/command", wrong, status)
    assert len(run.commands) == count
    link.close()
    assert "it is over" in (await server.post(f"{run.path}/command", {"command": "pause"}, 409))["error"]


async def test_a_run_that_does_not_answer_an_edit_is_not_waited_for_for_ever(
    server: Server, start_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_runs, "ANSWER_TIMEOUT", 0.2)
    run = start_run()
    link = server.hub.attach(run.run_id, str(run.history.folder), run.commands.append)
    found = await server.post(f"{run.path}/command", {"command": "set", "name": "x", "value": 1}, 409)
    assert found["error"] == "The run did not answer within 0.2 seconds."
    link.answer(run.commands[-1]["id"], None)
    link.close()


# ------------------------------------------------------------------------------------------------ workflows, report


def two_workflows() -> list[Json]:
    return [json.loads((WORKFLOWS / name).read_text("utf-8")) for name in ("part_make.json", "part_use.json")]


async def test_the_runs_workflows_alone_and_as_one(server: Server, start_run: Callable[..., Run]) -> None:
    noted = [
        {"name": "part_make.json", "nodes": 3, "ports": [], "file": 0},
        {"name": "prompt.json", "nodes": 3, "ports": [], "file": None},
        {"name": "part_use.json", "nodes": 3, "ports": [], "file": 1},
    ]
    run = start_run(workflows=noted, iterations=20, condition="score < 0.9")
    for number, workflow in enumerate(two_workflows()):
        run.history.add_workflow(number, workflow)
    run.history.append("condition", path=[0], what="branch", text="flag", result=True)
    assert await server.get(f"{run.path}/workflows/0") == two_workflows()[0]
    assert "API format" in (await server.get(f"{run.path}/workflows/1", 404))["error"]
    assert await server.get(f"{run.path}/workflows/2") == two_workflows()[1]
    for wrong in ("3", "-1", "x", "..%2F0"):
        await server.get(f"{run.path}/workflows/{wrong}", 404)
    found = await server.get(f"{run.path}/stitched")
    assert len(found["workflow"]["nodes"]) >= sum(len(one["nodes"]) for one in two_workflows()) - 2
    assert len(found["notes"]) == 3
    assert "prompt.json" in found["notes"][0]
    assert "20 times, as long as this holds: score < 0.9" in found["notes"][1]
    assert "decides" in found["notes"][2]


async def test_workflows_that_cannot_be_joined_are_told(server: Server, start_run: Callable[..., Run]) -> None:
    prompt_only = start_run(workflows=[{"name": "p.json", "nodes": 1, "ports": [], "file": None}])
    assert "API format" in (await server.get(f"{prompt_only.path}/stitched", 409))["error"]
    broken = start_run(workflows=[{"name": "b.json", "nodes": 1, "ports": [], "file": 0}])
    twice = two_workflows()[0]
    twice["nodes"] = [*twice["nodes"], *({**node, "id": node["id"] + 1000} for node in twice["nodes"])]
    twice["links"] = [
        *twice["links"],
        *([one[0] + 1000, one[1] + 1000, one[2], one[3] + 1000, *one[4:]] for one in twice["links"]),
    ]
    # Two OUTPUT ports of one name.
    broken.history.add_workflow(0, twice)
    found = await server.ask("GET", f"{broken.path}/stitched", status=409)
    assert "cannot be joined" in found["error"]


async def test_the_report_is_the_one_of_the_checkpoint_and_can_do_nothing(
    server: Server, start_run: Callable[..., Run], tmp_path: Path
) -> None:
    from discomfort.durable.run_folder import RunFolder

    folder = RunFolder.create(tmp_path / "kept")
    folder.write_manifest({"name": "refine"})
    folder.append({"kind": "session", "time": 1.0})
    run = start_run(checkpoint=str(tmp_path / "kept"))
    assert (await server.get("/state"))["runs"][0]["has_report"] is True

    async def report() -> str:
        async with server.client.get(f"/discomfort{run.path}/report") as answer:
            text = await answer.text()
            assert (answer.status, answer.content_type) == (200, "text/html"), text
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("sandbox; default-src 'none'")
            assert "script" not in policy
            return text

    assert "<!DOCTYPE html>" in await report()
    (tmp_path / "kept" / "report.html").write_text("<p>written at the end", "utf-8")
    assert await report() == "<p>written at the end"
    folder.close()
    without = start_run()
    assert "checkpoint" in (await server.get(f"{without.path}/report", 404))["error"]
    lost = start_run(checkpoint=str(tmp_path / "not there"))
    assert "There is no report in" in (await server.get(f"{lost.path}/report", 404))["error"]
    relative = start_run(checkpoint="kept")
    await server.get(f"{relative.path}/report", 404)


@pytest.fixture
def comfyui_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's saved workflows, as ComfyUI tells it."""
    folder = tmp_path / "user" / "default" / "workflows"
    folder.mkdir(parents=True)
    known = SimpleNamespace(get_user_directory=lambda: str(tmp_path / "user"), base_path=str(tmp_path / "comfyui"))
    monkeypatch.setitem(sys.modules, "folder_paths", known)
    return folder


async def test_workflows_ports_and_conditions(server: Server, comfyui_folders: Path) -> None:
    for name in ("part_make.json", "part_use.json"):
        (comfyui_folders / name).write_bytes((WORKFLOWS / name).read_bytes())
    listed = (await server.get("/workflows"))["workflows"]
    path = str(comfyui_folders / "part_make.json")
    assert {"name": "part_make.json", "path": path, "is_example": False} in listed
    found = await server.post("/ports", {"workflows": ["part_make.json", "part_use.json"], "then": [], "otherwise": []})
    assert {one["unique_id"] for one in found["outputs"]} >= {"inverted", "picture"}
    assert "inverted" not in {one["unique_id"] for one in found["inputs"]}
    asked = {"condition": "inverter", "workflows": ["part_make.json"]}
    assert "Did you mean 'inverted'?" in (await server.post("/condition", asked))["problem"]
    assert (await server.post("/condition", {**asked, "condition": "inverted"}))["problem"] is None
    assert (await server.post("/condition", {"condition": "x <"}))["problem"]
    # Where a file cannot be read, nothing can be said to be missing.
    assert (await server.post("/condition", {"condition": "x", "workflows": ["gone.json"]}))["problem"] is None
    for wrong in ({"workflows": "x"}, {"workflows": [1]}, {"workflows": ["x"] * 201}, {"workflows": ["x" * 5000]}):
        await server.post("/ports", wrong, 400)
    await server.post("/condition", {"condition": 1}, 400)


# ------------------------------------------------------------------------------------------------------------- link


async def connect(server: Server, token: str | None = None) -> aiohttp.ClientWebSocketResponse:
    await server.get("/state")
    token = published(server) if token is None else token
    return await server.client.ws_connect("/discomfort/link", headers={"Authorization": f"Bearer {token}"})


def published(server: Server) -> str:
    """The token that this process has published, read as another process reads it."""
    (note,) = editors.servers_root().glob("editor-*/editor.json")
    return str(json.loads(note.read_text("utf-8"))["token"])


async def test_a_script_talks_through_the_link(
    server: Server, start_run: Callable[..., Run], wait_for: Callable[..., Any]
) -> None:
    await server.post("/settings", {"breakpoints": ["image"]})
    run = start_run()
    socket = await connect(server)
    await socket.send_json({"type": "attach", "run_id": run.run_id, "folder": str(run.history.folder)})
    assert await socket.receive_json(timeout=5) == {
        "command": "breakpoints", "names": ["image"], "pause_at_start": False,
    }  # fmt: skip
    await socket.send_json({"type": "status", "state": "paused", "offset": 5, "paused_at": {"reason": "step"}})
    await asyncio.to_thread(
        wait_for,
        lambda: any(e == "discomfort.run" and d["run_id"] == run.run_id and d["offset"] == 5 for e, d in server.sent),
    )
    edit = asyncio.create_task(server.post(f"{run.path}/command", {"command": "set", "name": "x", "value": 1}, 409))
    command = await socket.receive_json(timeout=5)
    await socket.send_json({"type": "answer", "id": command["id"], "problem": "no"})
    assert (await edit)["error"] == "no"
    await server.post(f"{run.path}/command", {"command": "continue"})
    assert await socket.receive_json(timeout=5) == {"command": "continue"}
    await socket.close()
    await asyncio.to_thread(wait_for, lambda: not server.hub.is_attached(run.run_id))


@pytest.mark.parametrize(
    "header", [None, "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x", "Bearer é"]
)
async def test_the_link_is_for_those_who_have_the_token(server: Server, header: str | None) -> None:
    await server.get("/state")
    headers = {} if header is None else {"Authorization": header.format(token=published(server))}
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await server.client.ws_connect("/discomfort/link", headers=headers)
    assert error.value.status == 401


async def test_before_anything_is_published_no_token_is_right(server: Server) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await server.client.ws_connect("/discomfort/link", headers={"Authorization": "Bearer "})
    assert error.value.status == 401


HELLO = {"type": "attach", "run_id": "a" * 32}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("rubbish", None),
        ("[]", None),
        ("[" * 100_000, None),
        (b"\x00\x01", None),
        ({"type": "status"}, None),
        ({**HELLO, "run_id": "../x", "folder": "{own}"}, None),
        ({**HELLO, "folder": "/etc"}, None),
        ({**HELLO, "folder": "{root}"}, None),
        ({**HELLO, "folder": 1}, None),
        ({**HELLO, "folder": "{own}"}, {"type": "explode"}),
        ({**HELLO, "folder": "{own}"}, b"\x00"),
    ],
    ids=str,
)
async def test_who_says_rubbish_is_told_why_and_disconnected(server: Server, first: Any, then: Any) -> None:
    socket = await connect(server)
    root = run_history.history_root()
    for message in (first, then):
        if isinstance(message, bytes):
            await socket.send_bytes(message)
        elif message is not None:
            text = message if isinstance(message, str) else json.dumps(message)
            await socket.send_str(text.replace("{own}", str(root / HELLO["run_id"])).replace("{root}", str(root)))
    while (received := await socket.receive(timeout=10)).type == aiohttp.WSMsgType.TEXT:
        pass
    assert received.type == aiohttp.WSMsgType.CLOSE
    assert received.data == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert received.extra
    await socket.close()
    assert not server.hub.is_attached(HELLO["run_id"])


async def test_a_server_that_stops_lets_go_of_scripts(own_folders: None, start_run: Callable[..., Run]) -> None:
    server = Server()
    await server.start()
    run = start_run()
    socket = await connect(server)
    await socket.send_json({"type": "attach", "run_id": run.run_id, "folder": str(run.history.folder)})
    await socket.receive_json(timeout=5)
    closing = asyncio.create_task(server.client.server.close())
    received = await socket.receive(timeout=10)
    assert received.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert received.data == aiohttp.WSCloseCode.GOING_AWAY
    await closing
    await server.client.close()
    editors.set_local_hub(None)


# ----------------------------------------------------------------------------------------------------- registration


def test_nothing_is_registered_outside_of_comfyui_in_a_nested_server_or_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server", raising=False)
    assert registration.register() is False
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace())
    assert registration.register() is False
    instance = SimpleNamespace(routes=web.RouteTableDef(), app=web.Application(), send_sync=lambda *_: None)
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance)))
    monkeypatch.setenv("DISCOMFORT_NESTED", "1")
    assert registration.register() is False
    monkeypatch.delenv("DISCOMFORT_NESTED")
    try:
        assert registration.register() is True
        count = len(instance.routes)
        assert count >= 16
        assert registration.register() is False
        assert len(instance.routes) == count
        assert editors.local_hub() is not None
    finally:
        editors.set_local_hub(None)


# ----------------------------------------------------------------------------------------------------- real servers

outer = outer_server_fixture()


def test_the_routes_are_there_in_a_server_that_loads_the_pack(outer: OuterServer) -> None:
    for prefix in ("", "/api"):
        state = outer.get(f"{prefix}/discomfort/state")
        assert {"runs", "breakpoints", "pause_at_start", "server", "version"} <= set(state)
    status, answer = outer.request("GET", "/discomfort/runs/x/events")
    assert status == 400
    assert "no run's id" in answer["error"]
    status, _ = outer.request("GET", "/discomfort/state", headers={"Sec-Fetch-Site": "cross-site"})
    assert status == 403
    status, _ = outer.request("POST", "/discomfort/settings", {}, {"Origin": "http://evil.example"})
    assert status == 403


def test_saved_workflows_are_listed_and_their_ports_found(outer: OuterServer) -> None:
    (outer.workflows_folder / "make.json").write_bytes((WORKFLOWS / "part_make.json").read_bytes())
    assert "make.json" in [one["name"] for one in outer.get("/discomfort/workflows")["workflows"]]
    found = outer.post("/discomfort/ports", {"workflows": ["make"]})
    assert "inverted" in [one["unique_id"] for one in found["outputs"]]


def test_a_run_of_this_process_finds_the_editor_and_is_seen_in_it(
    outer: OuterServer, wait_for: Callable[..., Any]
) -> None:
    """What the observer of a run does, by hand: find the editor, attach, say how the run stands, obey."""
    outer.get("/discomfort/state")
    editor = next(one for one in editors.find_editors() if one.pid == outer.process.pid)
    assert editor.address == outer.url

    async def talk() -> None:
        run = Run(uuid.uuid4().hex)
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {editor.token}"}) as session,
                session.ws_connect(f"{editor.address}/discomfort/link") as socket,
                session.ws_connect(f"{outer.url}/ws?clientId={run.run_id}") as browser,
            ):
                await socket.send_json({"type": "attach", "run_id": run.run_id, "folder": str(run.history.folder)})
                assert (await socket.receive_json(timeout=10))["command"] == "breakpoints"
                await socket.send_json({"type": "status", "state": "running", "offset": run.history.length})
                while (message := await browser.receive_json(timeout=10))["type"] != "discomfort.run":
                    pass
                assert message["data"]["run_id"] == run.run_id
                state = await asyncio.to_thread(outer.get, "/discomfort/state")
                (entry,) = [one for one in state["runs"] if one["run_id"] == run.run_id]
                assert (entry["live"], entry["status"]["state"]) == (True, "running")
                await asyncio.to_thread(outer.post, f"/discomfort{run.path}/command", {"command": "pause"})
                assert await socket.receive_json(timeout=10) == {"command": "pause"}
        finally:
            run.end()

    asyncio.run(talk())
