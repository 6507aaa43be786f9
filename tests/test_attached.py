"""ComfyConnector on a server that runs already: API_URL names it. It is used, and never stopped.

Such servers are the scripted one of tests/fake_comfyui.py, the embedded one, and the real ComfyUI of COMFYUI_PATH where
there is one; each is started by the test as a user would start it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector

from discomfort import Discomfort
from discomfort import comfy_serverless as cs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

HERE = Path(cs.__file__).resolve().parent
BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]
ECHO = {"1": {"class_type": "Echo", "inputs": {"value": "hello"}}}
SLEEP = {"1": {"class_type": "Sleep", "inputs": {"seconds": 30}, "_meta": {"title": "A nap"}}}
PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


class RunningServer:
    """A server that somebody started by hand. ``restart()`` starts it again on its port."""

    def __init__(self, command: list[str], where: Path | None, port: int, wait_for: Callable[..., Any]):
        self.command, self.where, self.port, self.wait_for = command, where, port, wait_for
        self.process: subprocess.Popen[bytes] | None = None
        self.restart()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def restart(self) -> None:
        self.end()
        self.process = subprocess.Popen(
            self.command, cwd=self.where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def listens() -> bool:
            assert self.is_alive, "the running server has ended"
            return not cs.port_is_free("127.0.0.1", self.port)

        self.wait_for(listens, 60, "the running server")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def free_port(first_port: int) -> int:
    return next(port for port in range(first_port + 60, first_port + 90) if cs.port_is_free("127.0.0.1", port))


@pytest.fixture
def fake_server(fake_tree: Any, free_port: int, wait_for: Callable[..., Any]) -> Iterator[RunningServer]:
    server = RunningServer([sys.executable, "main.py", "--port", str(free_port)], fake_tree.path, free_port, wait_for)
    yield server
    server.end()


@pytest.fixture(params=BOTH)
def true_server(
    request: pytest.FixtureRequest, free_port: int, tmp_path: Path, wait_for: Callable[..., Any]
) -> Iterator[RunningServer]:
    """The embedded server or a real ComfyUI, with an input folder of its own: ``server.input``."""
    (tmp_path / "input").mkdir()
    options = ["--port", str(free_port), "--input-directory", str(tmp_path / "input")]
    where = None
    if request.param == "embedded":
        command = [sys.executable, "-m", "discomfort.embedded"]
    else:
        where = request.getfixturevalue("real_comfyui")
        python = next(
            (p for p in (where / "venv/bin/python", where / ".venv/bin/python") if p.exists()), sys.executable
        )
        command = [str(python), "main.py", "--cpu", "--database-url", f"sqlite:///{tmp_path}/c.db"]
        options += ["--temp-directory", str(tmp_path)]
    server = RunningServer(command + options, where, free_port, wait_for)
    server.input = tmp_path / "input"  # type: ignore[attr-defined]
    yield server
    assert server.is_alive, "the running server was ended"
    server.end()


@pytest_asyncio.fixture
async def attach(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> AsyncIterator[Callable[..., Any]]:
    """``await attach(address, KEY=value)`` creates a connector; it is killed at the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cs, "_WEBSOCKET_PATIENCE", 1.0)

    async def create(address: str, **keys: Any) -> ComfyConnector:
        keys = {"TEST_PAYLOAD_FILE": str(HERE / "test_server.json"), **keys}
        return await ComfyConnector.create(write_config(API_URL=address, **keys))

    yield create
    connector = cs._process_state().connector
    if connector is not None:
        await connector.kill_api()


async def run(connector: ComfyConnector, prompt: dict[str, Any]) -> Any:
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False)).values()
    return entry["outputs"]


async def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


# ---- what works ----


async def test_everything_that_needs_no_process_works(true_server: Any, attach: Any) -> None:
    """Running, converting with a browser, events, stats, interrupt, health; and the server outlives the connector."""
    connector = await attach(true_server.address)
    assert connector.is_attached
    assert (connector.server_address, connector.state) == (true_server.address, "ready")
    assert connector.ws_address.startswith(f"ws://127.0.0.1:{true_server.port}/ws?clientId=")
    assert "API_URL names it" in connector.server_description
    embedded = "discomfort_embedded" in (await connector.system_stats())["system"]
    assert ("Discomfort's embedded server" if embedded else "ComfyUI ") in connector.server_description
    assert connector.log_path is None
    assert (await run(connector, PICTURE))["2"]["images"]
    assert await connector._test_server()
    assert "PreviewImage" in await connector.object_info()
    assert (await connector.system_stats())["system"]
    await connector.interrupt()
    await connector.free()
    assert await connector._validate_resources()
    await connector._refresh_resources()
    await connector.kill_api()
    assert connector.state == "killed"
    assert true_server.is_alive


@pytest_asyncio.fixture
async def reverse_proxy(true_server: Any) -> AsyncIterator[SimpleNamespace]:
    """What stands in front of servers in the wild: ``address`` is a path on IPv6; ``strangers`` are requests without
    the token.
    """
    import aiohttp
    from aiohttp import web

    strangers: list[str] = []
    kept = ("content-type", "etag", "last-modified")

    async def pass_on(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer s3cret":
            strangers.append(request.path)
            return web.Response(status=401)
        url = true_server.address + request.path_qs.removeprefix("/comfy")
        async with aiohttp.ClientSession() as session:
            if "Upgrade" in request.headers:
                socket = web.WebSocketResponse()
                await socket.prepare(request)
                async with session.ws_connect(url) as inner:
                    async for message in inner:
                        is_text = message.type == aiohttp.WSMsgType.TEXT
                        await (socket.send_str if is_text else socket.send_bytes)(message.data)
                return socket
            headers = {name: value for name, value in request.headers.items() if name.lower() in kept}
            async with session.request(request.method, url, headers=headers, data=await request.read()) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() in kept}
                return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/comfy/{path:.*}", pass_on)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "::1", true_server.port).start()
    except OSError as e:
        await runner.cleanup()
        pytest.skip(f"this machine has no IPv6: {e}")
    yield SimpleNamespace(address=f"http://[::1]:{true_server.port}/comfy/", strangers=strangers)
    await runner.cleanup()


async def test_server_behind_a_path_of_a_proxy_that_wants_a_token(reverse_proxy: Any, attach: Any) -> None:
    connector = await attach(reverse_proxy.address, API_TOKEN="s3cret")
    assert await connector._test_server()
    assert connector._events.is_connected
    assert await asyncio.to_thread(connector.upload_data, HERE / "example_workflows" / "Loop.jpg") == "Loop.jpg"
    assert not reverse_proxy.strangers
    await connector.kill_api()


async def test_uploads_go_by_http_and_land_in_the_servers_folder(true_server: Any, attach: Any, tmp_path: Path) -> None:
    connector = await attach(true_server.address)
    photo = HERE / "example_workflows" / "Loop.jpg"
    assert connector.upload_data(photo) == "Loop.jpg"
    assert (true_server.input / "Loop.jpg").read_bytes() == photo.read_bytes()
    assert connector.upload_data(photo, subfolder="a/b") == "a/b/Loop.jpg"
    assert (true_server.input / "a" / "b" / "Loop.jpg").read_bytes() == photo.read_bytes()
    # Another file of that name: nothing is overwritten unless it is asked for.
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "Loop.jpg"
    other.write_bytes(photo.read_bytes() + b"more")
    name = await asyncio.to_thread(connector.upload_data, other)
    assert name != "Loop.jpg"
    assert (true_server.input / name).read_bytes() == other.read_bytes()
    assert connector.upload_data(other, overwrite=True) == "Loop.jpg"
    assert (true_server.input / "Loop.jpg").read_bytes() == other.read_bytes()
    loaded = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a/b/Loop.jpg"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert (await run(connector, loaded))["2"]["images"]


async def test_what_cannot_work_says_so(fake_server: Any, fake_tree: Any, attach: Any, tmp_path: Path) -> None:
    connector = await attach(fake_server.address)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    with pytest.raises(cs.NotOurServerError, match="no request that uploads models"):
        connector.upload_data(file, folder_type="models", subfolder="loras")
    with pytest.raises(cs.NotOurServerError, match="no request that deletes files"):
        connector.upload_data(file, is_ephemeral=True)
    with pytest.raises(ValueError, match="must stay inside"):
        connector.upload_data(file, subfolder="../out")
    assert connector.upload_data(file, folder_type="temp", is_ephemeral=True) == "renamed model.safetensors"
    file.write_bytes(bytes(2 << 20))
    with pytest.raises(cs.ConnectorError, match=r"2 MB\) is more than the server .* takes in one upload"):
        connector.upload_data(file)
    fake_tree.behave(fail={"/upload": [500, 1]})
    with pytest.raises(cs.ConnectorError, match="status 500"):
        connector.upload_data(file)
    fake_server.end()
    with pytest.raises(cs.ServerDiedError, match=f"{fake_server.address} cannot be reached"):
        connector.upload_data(file)


@pytest.mark.parametrize("kind", BOTH)
async def test_runs_pass_values_to_a_server_that_was_running_before(
    kind: str, request: pytest.FixtureRequest, free_port: int, tmp_path: Path, wait_for: Any, write_config: Any
) -> None:
    """A user's own ComfyUI that has Discomfort as a custom node: here the one of a connector of another process."""
    import torch

    keys = {"INITIAL_PORT": free_port, "DEVICE": "cpu", "COMFYUI_PATH": "embedded"}
    if kind == "real":
        keys["COMFYUI_PATH"] = str(request.getfixturevalue("real_comfyui"))
    ready = tmp_path / "ready"
    code = (
        "import asyncio, pathlib, sys\n"
        "from discomfort import ComfyConnector\n"
        "async def main():\n"
        "    connector = await ComfyConnector.create(sys.argv[1])\n"
        "    young = pathlib.Path(sys.argv[2] + '.young')\n"
        "    young.write_text(connector.server_address)\n"
        "    young.rename(sys.argv[2])\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(write_config(**keys)), str(ready)]
    owner = await asyncio.to_thread(subprocess.Popen, command)
    try:
        await asyncio.to_thread(wait_for, ready.exists, 60)
        async with await Discomfort.create(write_config(API_URL=ready.read_text())) as d:
            assert d.Worker.is_attached
            inputs = {"image": torch.full((1, 8, 8, 3), 0.25), "amount": 0.5}
            result = await d.run([HERE / "tests" / "workflows" / "loop_image.json"], inputs=inputs)
            assert result["image"].mean().item() == pytest.approx(0.75)
            assert result["image"].shape == (1, 4, 4, 3)
    finally:
        owner.terminate()
        owner.wait()


async def test_run_refuses_a_server_on_another_machine_before_anything_is_queued(
    fake_server: Any, fake_tree: Any, write_config: Any, no_leaks: None
) -> None:
    async with await Discomfort.create(write_config(API_URL=fake_server.address)) as d:
        assert d.Worker.is_local
        d.Worker._server.is_local = False  # type: ignore[union-attr]
        with pytest.raises(cs.NotOurServerError, match="through the memory of this machine"):
            await d.run([ECHO])
    assert not fake_tree.requests("/prompt")


async def test_history_of_others_is_left_alone(fake_server: Any, attach: Any, wait_for: Any) -> None:
    import aiohttp

    connector = await attach(fake_server.address)
    async with aiohttp.ClientSession(fake_server.address) as other:
        await other.post("/prompt", json={"prompt": ECHO, "prompt_id": "theirs", "client_id": "them"})
        await run(connector, ECHO)
        deadline = time.monotonic() + 10
        while set(history := await (await other.get("/history")).json()) != {"theirs"}:
            assert time.monotonic() < deadline, f"the history is {list(history)}"
            await asyncio.sleep(0.05)


async def test_nothing_of_ours_stays_on_a_server_that_goes_on(fake_server: Any, fake_tree: Any, attach: Any) -> None:
    """What was read is deleted from its history at once, what runs is interrupted, what waits is taken out."""
    import aiohttp

    connector = await attach(fake_server.address)
    await run(connector, ECHO)
    napping = [asyncio.create_task(run(connector, SLEEP)) for _ in range(3)]
    await until(lambda: len(fake_tree.requests("/prompt")) == 4)
    await connector.kill_api()
    for nap in napping:
        with pytest.raises(cs.ServerDiedError, match="shut down by kill_api"):
            await nap
    async with aiohttp.ClientSession(fake_server.address) as other:
        assert await (await other.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
        assert await (await other.get("/history")).json() == {}


async def test_old_server_that_chooses_prompt_ids_itself(fake_server: Any, fake_tree: Any, attach: Any) -> None:
    fake_tree.behave(own_ids=True)
    connector = await attach(fake_server.address)
    assert list(await connector.run_workflow(ECHO, use_workflow_json=False)) == ["own-0"]
    results = await asyncio.gather(
        *(
            connector.run_workflow({"1": {"class_type": "Echo", "inputs": {"value": i}}}, use_workflow_json=False)
            for i in range(5)
        )
    )
    values = [next(iter(history.values()))["outputs"]["1"]["text"] for history in results]
    assert values == [[i] for i in range(5)]
    running = asyncio.create_task(run(connector, SLEEP))
    await until(lambda: len(fake_tree.requests("/prompt")) == 7)
    waiting = asyncio.create_task(run(connector, ECHO))
    await until(lambda: len(fake_tree.requests("/prompt")) == 8)
    waiting.cancel()  # such a server knows no interrupt by id: it would stop the one that runs
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert not fake_tree.requests("/interrupt")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert await run(connector, ECHO)  # not after thirty seconds: the nap was interrupted


# ---- finding it ----


class NoComfyUI(http.server.BaseHTTPRequestHandler):
    """Some other program that speaks HTTP."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(self.server.text)  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (200, b"<html>hello</html>", "not as a ComfyUI"),
        (200, b'["list"]', "not as a ComfyUI"),
        (200, b'{"system": 1}', "not as a ComfyUI"),
        (404, b"", "status 404, as no ComfyUI does"),
        (401, b"", "It wants a token: set API_TOKEN"),
        (403, b"", "It wants a token: set API_TOKEN"),
    ],
)
async def test_another_program_at_the_address_is_told_apart(
    attach: Any, free_port: int, status: int, text: bytes, says: str
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port), NoComfyUI)
    server.status, server.text = status, text  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(cs.ServerNotFoundError, match=says):
            await attach(f"127.0.0.1:{free_port}")
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def test_nobody_there_is_one_clear_error_and_a_started_server_is_used_next(
    attach: Any, fake_tree: Any, free_port: int, wait_for: Any
) -> None:
    with pytest.raises(cs.ServerNotFoundError) as caught:
        await attach(f"http://127.0.0.1:{free_port}")
    for part in (
        f"http://127.0.0.1:{free_port}",
        "API_URL",
        "cannot be reached: Connection refused.",
        "start it there",
        "host alone",
    ):
        assert part in str(caught.value)
    server = await asyncio.to_thread(
        RunningServer, [sys.executable, "main.py", "--port", str(free_port)], fake_tree.path, free_port, wait_for
    )
    try:
        assert await run(await attach(f"http://127.0.0.1:{free_port}"), ECHO)
    finally:
        server.end()


async def test_silent_server_is_given_up(
    attach: Any, fake_server: Any, fake_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_HEALTH_PATIENCE", 0.2)
    fake_tree.behave(start="mute")
    with pytest.raises(cs.ServerNotFoundError, match=r"did not answer within 0\.4 s"):
        await attach(fake_server.address)


async def test_host_that_is_not_this_machine_needs_a_port(attach: Any) -> None:
    # 192.0.2.0/24 is kept for documentation (RFC 5737): nobody's address.
    with pytest.raises(cs.ConfigError, match=r"no address of this machine.*give its port: http://192\.0\.2\.7:8188"):
        await attach("192.0.2.7", COMFYUI_PATH="embedded")


async def test_server_that_the_code_runs_in_is_refused(
    attach: Any, fake_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that queued a prompt on its own server would wait for itself."""
    inside = SimpleNamespace(PromptServer=SimpleNamespace(instance=SimpleNamespace(port=fake_server.port)))
    monkeypatch.setitem(sys.modules, "server", inside)  # type: ignore[arg-type]
    with pytest.raises(cs.ConnectorError, match="the server that this code runs in"):
        await attach(fake_server.address)


# ---- tokens ----


async def test_token_reaches_http_websocket_page_and_uploads_and_no_log(
    fake_server: Any, fake_tree: Any, attach: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake_tree.behave(token="s3cret")
    with caplog.at_level(logging.DEBUG):
        connector = await attach(fake_server.address, API_TOKEN="s3cret")
        assert await run(connector, ECHO)
        assert connector._events.is_connected
        workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": "x"}}], "links": []}
        assert (await connector.get_prompt_from_workflow(workflow))["1"]["inputs"] == {"value": "x"}
        assert connector.upload_data(HERE / "test_server.json") == "renamed test_server.json"
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(connector.config)


async def test_token_comes_from_the_environment_too_and_a_wrong_one_is_told(
    fake_server: Any, fake_tree: Any, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tree.behave(token="s3cret")
    monkeypatch.setenv("DISCOMFORT_API_TOKEN", "wrong")
    with pytest.raises(cs.ServerNotFoundError, match=r"status 401\. The token was refused") as caught:
        await attach(fake_server.address)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("DISCOMFORT_API_TOKEN", "s3cret")
    assert await run(await attach(fake_server.address), ECHO)


@pytest.mark.parametrize("token", ["two words", "two\nlines", "schlüssel"])
async def test_token_that_cannot_be_sent_is_told_and_not_shown(
    fake_server: Any, attach: Any, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("DISCOMFORT_API_TOKEN", token)
    with pytest.raises(cs.ConfigError, match="DISCOMFORT_API_TOKEN has a space or a character") as caught:
        await attach(fake_server.address)
    assert token not in str(caught.value)


async def test_nested_server_never_sees_the_token(fake_tree: Any, attach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOMFORT_API_TOKEN", "s3cret")
    connector = await attach("127.0.0.1", COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    assert not connector.is_attached
    assert connector._headers() == {}
    assert connector._server is not None
    if sys.platform == "linux":
        assert "DISCOMFORT_API_TOKEN" not in psutil.Process(connector._server.pid).environ()


@pytest.mark.parametrize(("address", "warns"), [("http://192.0.2.7:1", True), ("https://192.0.2.7:1", False)])
async def test_token_over_an_open_network_is_warned_of(
    attach: Any, address: str, warns: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_HEALTH_PATIENCE", 0.05)
    with pytest.raises(cs.ServerNotFoundError):
        await attach(address, API_TOKEN="s3cret")
    assert ("unencrypted" in caplog.text) is warns


class Thief(http.server.BaseHTTPRequestHandler):
    """A program at another address that a request may be sent to; it remembers what came."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        self.send_response(404)
        self.end_headers()

    do_POST = do_HEAD = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def thief() -> Iterator[Any]:
    """``thief.seen``: (path, Authorization) of every request; ``thief.address``."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Thief)
    server.seen = []  # type: ignore[attr-defined]
    server.address = f"http://localhost:{server.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


async def test_redirect_of_the_server_is_told(fake_server: Any, fake_tree: Any, attach: Any, thief: Any) -> None:
    """As of http to https, or to a login: POSTs would become GETs, and secrets go where nobody sent them."""
    fake_tree.behave(redirect={"/system_stats": thief.address})
    with pytest.raises(cs.ServerNotFoundError, match=r"sends elsewhere, to http://localhost:.* set API_URL to"):
        await attach(fake_server.address)
    assert not thief.seen


async def test_redirects_take_neither_token_nor_content_elsewhere(
    fake_server: Any, fake_tree: Any, attach: Any, thief: Any
) -> None:
    paths = ["/ws", "/prompt", "/", "/extensions", "/upload/image", "/object_info"]
    fake_tree.behave(token="s3cret", redirect=dict.fromkeys(paths, thief.address))
    connector = await attach(fake_server.address, API_TOKEN="s3cret")
    assert not await connector._ensure_fresh_websocket()
    with pytest.raises(cs.ConnectorError, match="POST /prompt"):
        await run(connector, ECHO)
    with pytest.raises(cs.ConnectorError, match="sends elsewhere"):
        await connector.object_info()
    with pytest.raises(cs.ConnectorError, match="upload of"):
        connector.upload_data(HERE / "test_server.json")
    assert not thief.seen


async def test_page_takes_the_token_nowhere_else(fake_server: Any, fake_tree: Any, attach: Any, thief: Any) -> None:
    """A browser follows redirects by itself, with all headers that it was given."""

    def workflow(value: str) -> Any:
        return {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": value}}], "links": []}

    fake_tree.behave(token="s3cret")
    connector = await attach(fake_server.address, API_TOKEN="s3cret", CONVERSION_ATTEMPTS=1)
    assert await connector.get_prompt_from_workflow(workflow("first"))
    await connector._page.discard_page()
    fake_tree.behave(token="s3cret", redirect={"/": thief.address})
    with pytest.raises(cs.ConversionError):
        await connector.get_prompt_from_workflow(workflow("second"))
    assert not thief.seen


async def test_page_is_loaded_without_the_proxy_of_the_environment(
    fake_server: Any, attach: Any, thief: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all requests are; a browser would use it for whatever is not this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", thief.address)
    connector = await attach(fake_server.address)
    await connector._init_playwright()
    context = await connector._page._browser.new_context()
    page = await context.new_page()
    with contextlib.suppress(Exception):
        await page.goto("http://192.0.2.7:1/", timeout=2000)
    assert not thief.seen


# ---- faults ----


async def test_restarted_server_is_used_on(fake_server: Any, fake_tree: Any, attach: Any) -> None:
    """Kept connections are dead, the websocket was cut, and it may have other nodes now."""
    connector = await attach(fake_server.address)
    workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": "x"}}], "links": []}
    assert await connector.run_workflow(workflow)
    asked = len(fake_tree.requests("/object_info"))
    await asyncio.to_thread(fake_server.restart)
    assert await run(connector, ECHO)
    assert await connector.get_prompt_from_workflow(workflow)
    assert len(fake_tree.requests("/object_info")) > asked
    assert connector.state == "ready"
    fake_server.end()


async def test_server_killed_during_a_run_is_an_error_that_knows_the_prompt_and_the_node(
    fake_server: Any, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_REFUSED_PATIENCE", 0.5)
    connector = await attach(fake_server.address)
    seen: list[Any] = []
    running = asyncio.create_task(
        connector.run_workflow(SLEEP, use_workflow_json=False, on_event=lambda event: seen.append(event.node))
    )
    await until(lambda: "1" in seen)
    fake_server.process.send_signal(signal.SIGKILL)
    with pytest.raises(cs.ServerDiedError) as caught:
        await running
    assert "cannot restart it" in str(caught.value)
    assert "It was executing Sleep #1 ('A nap')." in str(caught.value)
    assert (caught.value.node_id, caught.value.class_type, caught.value.title) == ("1", "Sleep", "A nap")
    assert caught.value.prompt_id
    await asyncio.to_thread(fake_server.restart)
    assert await run(connector, ECHO)
    fake_server.end()


async def test_dead_server_is_reported_by_the_health_check_and_by_repair(
    fake_server: Any, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = await attach(fake_server.address)
    fake_server.end()
    assert await connector._broken_resources() == ["http"]
    with pytest.raises(cs.ServerDiedError, match="cannot be reached"):
        await run(connector, ECHO)
    with pytest.raises(cs.ServerNotFoundError, match="cannot be reached"):
        await connector._refresh_resources()
    assert connector.state == "error"
    await asyncio.to_thread(fake_server.restart)
    assert await run(connector, ECHO)
    assert connector.state == "ready"
    fake_server.end()


@pytest.mark.parametrize("websocket", [None, "refuse"])
async def test_lost_answer_to_a_prompt_does_not_run_it_twice(
    fake_server: Any, fake_tree: Any, attach: Any, websocket: str | None
) -> None:
    fake_tree.behave(lose_answer={"/prompt": 1}, websocket=websocket)
    connector = await attach(fake_server.address)
    assert await run(connector, ECHO) == {"1": {"text": ["hello"]}}
    assert len(fake_tree.requests("/prompt")) == 1


async def test_cancelled_run_is_interrupted_and_kill_leaves_other_runs_alone(fake_server: Any, attach: Any) -> None:
    import aiohttp

    connector = await attach(fake_server.address)
    running = asyncio.create_task(run(connector, SLEEP))
    async with aiohttp.ClientSession(fake_server.address) as other:

        async def queue() -> Any:
            return await (await other.get("/queue")).json()

        deadline = time.monotonic() + 10
        while not (await queue())["queue_running"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        deadline = time.monotonic() + 10
        while (await queue())["queue_running"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await other.post("/prompt", json={"prompt": SLEEP, "prompt_id": "theirs", "client_id": "them"})
        await connector.kill_api()
        left = await queue()
        assert [item[1] for item in left["queue_running"] + left["queue_pending"]] == ["theirs"]


def test_script_that_forgets_to_kill_leaves_the_server_alone(
    fake_server: Any, tmp_path: Path, write_config: Callable[..., Path], no_leaks: None
) -> None:
    """At interpreter exit, too, only what was started here is ended."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio, sys\n"
        "from discomfort import ComfyConnector\n"
        "async def main():\n"
        "    connector = await ComfyConnector.create(sys.argv[1])\n"
        f"    print(await connector.run_workflow({json.dumps(ECHO)}, use_workflow_json=False))\n"
        "asyncio.run(main())\n"
    )
    config = str(write_config(API_URL=fake_server.address))
    done = subprocess.run([sys.executable, str(script), config], capture_output=True, text=True, timeout=60)
    assert "hello" in done.stdout, done.stderr
    assert done.stderr == ""
    assert fake_server.is_alive
