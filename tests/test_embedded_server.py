"""The embedded server as a process: what clients see of it, and how it starts and stops."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import types
import webbrowser
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from conformance import driver
from discomfort.embedded import launch, log_buffer
from PIL import Image

node, link, connect = driver.node, driver.link, driver.connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUM = {"1": node("TinyNumber", value=3), "2": node("TinyAdd", a=link("1"), b=4), "9": node("TinyShow", value=link("2"))}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A server with the package of tiny nodes and an LRU cache."""
    base = tmp_path_factory.mktemp("embedded")
    driver.install_pack(base)
    started = driver.Server.embedded(base, ["--cache-lru", "100"])
    try:
        yield await started.wait_until_ready()
    finally:
        started.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Any) -> AsyncIterator[Any]:
    """A client of a server that has forgotten all results."""
    async with connect(server) as connected:
        await connected.post("/free", {"free_memory": True})
        yield connected


# -- prompts -------------------------------------------------------------------------------------------------


async def test_a_prompt_is_followed_from_start_to_end(client: Any) -> None:
    """The messages of a prompt and their order, then of the same prompt again."""
    run = await client.run(SUM)
    steps = ["progress_state", "executing", "progress_state"]
    assert run.types() == [
        "status",
        "status",
        "execution_start",
        "execution_cached",
        *steps * 2,
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
        "status",
        "executing",
    ]
    assert run.ran() == ["1", "2", "9"]
    assert run.data("executed") == [
        {"node": "9", "display_node": "9", "output": {"values": [7]}, "prompt_id": run.prompt_id}
    ]
    assert run.data("progress_state")[-1]["nodes"]["9"] == {
        "value": 1.0,
        "max": 1.0,
        "state": "finished",
        "node_id": "9",
        "prompt_id": run.prompt_id,
        "display_node_id": "9",
        "parent_node_id": None,
        "real_node_id": "9",
    }
    again = await client.run(SUM)
    assert again.cached() == {"1", "2", "9"}
    assert again.types() == [
        *["status", "status", "execution_start", "execution_cached", "executed"],
        *["progress_state", "execution_success", "status", "executing"],
    ]
    assert again.shown("9") == [7]


async def test_history_says_what_was_run_and_how_it_ended(client: Any) -> None:
    """An entry has the prompt, the outputs, the messages and where the outputs come from."""
    run = await client.run(SUM, prompt_id="chosen", extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    assert run.prompt_id == "chosen"
    number, prompt_id, prompt, extra_data, outputs = run.history["prompt"]
    assert (number, prompt_id, prompt, outputs) == (run.response["number"], "chosen", SUM, ["9"])
    assert extra_data["client_id"] == client.sid
    assert extra_data["extra_pnginfo"] == {"workflow": {"id": "w"}}
    assert run.history["outputs"] == {"9": {"values": [7]}}
    assert run.history["meta"] == {"9": {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}}
    status = run.history["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    assert [event for event, _ in status["messages"]] == ["execution_start", "execution_cached", "execution_success"]


async def test_a_failing_node_ends_the_prompt_with_its_traceback(client: Any) -> None:
    """execution_error, also in the history; what ran before stays cached."""
    prompt = {**SUM, "3": node("TinyFail", a=link("2"), what="value"), "9": node("TinyShow", value=link("3"))}
    run = await client.run(prompt)
    (error,) = run.data("execution_error")
    assert error["exception_message"] == "boom 7\n"
    assert error["exception_type"] == "ValueError"
    assert (error["node_id"], error["node_type"]) == ("3", "TinyFail")
    assert error["executed"] == ["1", "2"]
    assert error["current_inputs"] == {"a": [7], "what": ["value"]}
    assert 'raise ValueError(f"boom {a}")' in error["traceback"][-1]
    assert "execution_success" not in run.types()
    status = run.history["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert status["messages"][-1] == ["execution_error", error]
    assert (await client.run(SUM)).cached() == {"1", "2"}


async def test_alternating_prompts_stay_cached_with_lru(client: Any) -> None:
    """A, B, A, B: the repeats execute nothing."""
    other = {**SUM, "1": node("TinyNumber", value=5)}
    assert [len((await client.run(prompt)).ran()) for prompt in (SUM, other, SUM, other)] == [3, 3, 0, 0]


async def test_free_forgets_all_results(client: Any) -> None:
    """Also for a prompt that is queued right behind it."""
    await client.run(SUM)
    await client.post("/free", {"free_memory": True})
    assert (await client.run(SUM)).cached() == set()


async def test_is_changed_nan_executes_again(client: Any) -> None:
    """With everything behind it; a constant answer does not."""
    for how, count in (("nan", 2), ("constant", 0)):
        prompt = {"1": node("TinyChanging", how=how), "9": node("TinyShow", value=link("1"))}
        await client.run(prompt)
        assert len((await client.run(prompt)).ran()) == count


async def test_a_cached_node_shows_the_old_extra_data(client: Any) -> None:
    """extra_pnginfo reaches hidden inputs and is not part of the key; a hidden value in the prompt is."""
    prompt = {"9": node("TinyHidden", seed=1, mode="a")}
    first = await client.run(prompt, extra_data={"extra_pnginfo": {"run": 1}, "auth_token_comfy_org": "secret"})
    second = await client.run(prompt, extra_data={"extra_pnginfo": {"run": 2}})
    third = await client.run({"9": node("TinyHidden", seed=1, mode="b")}, extra_data={"extra_pnginfo": {"run": 3}})
    runs = [run.shown("9", "extra") + run.shown("9", "mode") for run in (first, second, third)]
    assert runs == [[{"run": 1}, "a"], [{"run": 1}, "a"], [{"run": 3}, "b"]]
    assert first.shown("9", "token") == ["secret"]
    assert "auth_token_comfy_org" not in first.history["prompt"][3]


async def test_async_nodes_wait_together(client: Any) -> None:
    """Four waits of 0.5 s take less than three."""
    prompt: dict[str, Any] = {str(i): node("TinyAsync", seconds=0.5, value=i, fail=False) for i in range(4)}
    prompt.update({f"s{i}": node("TinyShow", value=link(str(i))) for i in range(4)})
    start = time.monotonic()
    run = await client.run(prompt)
    assert run.history["status"]["completed"]
    assert time.monotonic() - start < 1.5


async def test_a_wrapped_link_to_nowhere_is_an_error_and_the_server_goes_on(client: Any) -> None:
    """A list that looks like a link once it is unwrapped; ComfyUI's executor thread dies of it."""
    run = await client.run({"9": node("TinyShow", value={"__value__": ["77", 0]})})
    assert run.history["status"]["status_str"] == "error"
    (error,) = run.data("execution_error")
    assert "77" in error["exception_message"]
    assert (await client.run(SUM)).shown("9") == [7]


async def test_previews_come_in_the_form_the_client_asks_for(server: Any) -> None:
    """Event 4 with metadata for those that say so, else event 1; no larger than asked for."""
    prompt = {
        "1": node("TinySteps", steps=1, seconds=0, preview=True, seed=0),
        "9": node("TinyShow", value=link("1")),
    }
    for flags, event in (({"supports_preview_metadata": True}, 4), ({}, 1)):
        async with connect(server, flags=flags) as client:
            await client.post("/free", {"free_memory": True})
            run = await client.run(prompt)
            (data,) = run.data(event)
            assert not run.data(5 - event)
            length = int.from_bytes(data[:4], "big")
            if event == 4:
                metadata = json.loads(data[4 : 4 + length])
                assert metadata["image_type"] == "image/jpeg"
                assert (metadata["node_id"], metadata["prompt_id"]) == ("1", run.prompt_id)
            else:
                assert length == 1
            with Image.open(io.BytesIO(data[4 + length * (event == 4) :])) as image:
                assert (image.format, image.size) == ("JPEG", (16, 8))


# -- who gets what -------------------------------------------------------------------------------------------


async def test_messages_go_to_the_client_that_queued(server: Any, client: Any) -> None:
    """Others see the queue's length only; without a client_id they see progress, too."""
    async with connect(server) as other:
        await client.run(SUM)
        seen = await other.receive_until("status", status={"exec_info": {"queue_remaining": 0}})
        assert {kind for kind, _ in seen} == {"status"}
        status, response = await client.queue(SUM, client_id=None)
        assert status == 200
        prompt_id = response["prompt_id"]
        # A prompt of its own, so that all messages of the one before have arrived.
        run = await other.run({"9": node("TinyShow", value="end")})
        mine = [kind for kind, data in run.messages if data.get("prompt_id") == prompt_id]
        assert set(mine) <= {"progress_state"}
        assert prompt_id in await client.get(f"/history/{prompt_id}")


async def test_a_client_that_comes_back_is_told_where_things_are(server: Any) -> None:
    """A second websocket of the same id takes over in the middle of a prompt."""
    prompt = {
        "1": node("TinySteps", steps=100000, seconds=0.01, preview=False, seed=5),
        "9": node("TinyShow", value=link("1")),
    }
    async with connect(server, sid="comes-back") as first:
        _, response = await first.queue(prompt)
        await first.receive_until("progress")
        async with connect(server, sid="comes-back") as second:
            assert (await second.receive())[1] == {"node": "1"}
            await second.receive_until("progress")
            # The first one's end does not take the second one's place away.
            await first.socket.close()
            await second.post("/interrupt", {"prompt_id": response["prompt_id"]})
            await second.receive_until("execution_interrupted", prompt_id=response["prompt_id"])
            await second.receive_until("executing", node=None, prompt_id=response["prompt_id"])


# -- interruption and queue ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TinySteps", "TinySpin"])
@pytest.mark.parametrize("by_id", [True, False])
async def test_a_running_prompt_can_be_interrupted(client: Any, kind: str, by_id: bool) -> None:
    """It ends at once, as an error whose last message is execution_interrupted; the next prompt runs."""
    inputs = {"steps": 100000, "seconds": 0.01, "preview": False} if kind == "TinySteps" else {"seconds": 60}
    prompt = {"1": node(kind, seed=time.time_ns() % 10**9, **inputs), "9": node("TinyShow", value=link("1"))}
    _, response = await client.queue(prompt)
    prompt_id = response["prompt_id"]
    await client.receive_until("executing", node="1")
    assert (await client.post("/interrupt", {"prompt_id": "another"}))[0] == 200
    start = time.monotonic()
    await client.post("/interrupt", {"prompt_id": prompt_id} if by_id else None)
    await client.receive_until("executing", node=None, prompt_id=prompt_id)
    assert time.monotonic() - start < 5
    status = (await client.get(f"/history/{prompt_id}"))[prompt_id]["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    event, data = status["messages"][-1]
    assert event == "execution_interrupted"
    assert (data["node_id"], data["node_type"]) == ("1", kind)
    assert (await client.get(f"/jobs/{prompt_id}"))["status"] == "cancelled"
    assert (await client.run(SUM)).shown("9") == [7]


async def test_an_interrupt_while_idle_does_not_stop_the_next_prompt(client: Any) -> None:
    """It is forgotten when a prompt starts."""
    await client.post("/interrupt")
    assert (await client.run(SUM)).history["status"]["completed"]


async def test_waiting_prompts_can_be_seen_moved_ahead_and_deleted(client: Any) -> None:
    """Order by number, front before all; deletion by id and of all."""
    _, running = await client.queue(
        {"1": node("TinySpin", seconds=60, seed=time.time_ns() % 10**9), "9": node("TinyShow", value=link("1"))}
    )
    await client.receive_until("executing", node="1")
    for name in ("a", "b", "c"):
        await client.queue(SUM, prompt_id=name, **({"front": True} if name == "c" else {}))
    queue = await client.get("/queue")
    assert [item[1] for item in queue["queue_running"]] == [running["prompt_id"]]
    assert [item[1] for item in queue["queue_pending"]] == ["c", "a", "b"]
    assert queue["queue_pending"][0][2] == SUM
    assert await client.get("/prompt") == {"exec_info": {"queue_remaining": 4}}
    jobs = await client.get("/api/jobs?status=in_progress,pending&limit=2")
    assert [job["status"] for job in jobs["jobs"]].count("pending") >= 1
    assert jobs["pagination"] == {"offset": 0, "limit": 2, "total": 4, "has_more": True}
    await client.post("/queue", {"delete": ["a", "unknown"]})
    assert [item[1] for item in (await client.get("/queue"))["queue_pending"]] == ["c", "b"]
    await client.post("/queue", {"clear": True})
    assert (await client.get("/queue"))["queue_pending"] == []
    await client.post("/interrupt")
    await client.receive_until("executing", node=None)
    assert await client.get("/history/a") == {}


async def test_history_can_be_paged_and_deleted(client: Any) -> None:
    """max_items takes the newest, offset counts from the oldest."""
    await client.post("/history", {"clear": True})
    for name in ("h1", "h2", "h3"):
        await client.run(SUM, prompt_id=name)
    assert list(await client.get("/history")) == ["h1", "h2", "h3"]
    assert list(await client.get("/history?max_items=2")) == ["h2", "h3"]
    assert list(await client.get("/history?max_items=1&offset=1")) == ["h2"]
    assert list(await client.get("/history?offset=2")) == ["h3"]
    await client.post("/history", {"delete": ["h2"]})
    assert list(await client.get("/api/history")) == ["h1", "h3"]


async def test_a_refused_prompt_is_not_queued(client: Any) -> None:
    """400 with the error and the nodes' errors; text that is no JSON is a 500."""
    run = await client.run({"1": node("TinyNumber", value=-1), "9": node("TinyShow", value=link("1"))})
    assert run.status == 400
    assert run.response["error"]["type"] == "prompt_outputs_failed_validation"
    (error,) = run.response["node_errors"]["1"]["errors"]
    assert error["type"] == "value_smaller_than_min"
    async with client.session.post(client.url + "/prompt", data="no JSON") as answer:
        assert answer.status == 500
    assert (await client.post("/prompt", {}))[0] == 400
    assert await client.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


# -- files ---------------------------------------------------------------------------------------------------


async def upload(client: Any, content: bytes, filename: str = "a.png", **fields: str) -> tuple[int, Any]:
    """POST /upload/image."""
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", content, filename=filename, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    async with client.session.post(client.url + "/upload/image", data=form) as answer:
        return answer.status, await answer.json() if answer.status == 200 else None


async def test_an_upload_does_not_overwrite_unless_told_to(server: Any, client: Any) -> None:
    """The same content keeps its name, another content gets another name."""
    names = [(await upload(client, content))[1]["name"] for content in (b"1", b"1", b"2", b"3", b"2")]
    assert names == ["a.png", "a.png", "a (1).png", "a (2).png", "a (1).png"]
    assert (await upload(client, b"4", overwrite="true"))[1]["name"] == "a.png"
    folder = server.base / "input"
    contents = {path.name: path.read_bytes() for path in folder.glob("a*.png")}
    assert contents == {"a.png": b"4", "a (1).png": b"2", "a (2).png": b"3"}
    _, answer = await upload(client, b"5", subfolder="deep/er", type="temp")
    assert answer == {"name": "a.png", "subfolder": "deep/er", "type": "temp"}
    assert (server.base / "temp/deep/er/a.png").read_bytes() == b"5"


@pytest.mark.parametrize(
    ("filename", "fields"),
    [("a.png", {"subfolder": "../x"}), ("../a.png", {}), ("x/../../a.png", {}), ("a.png", {"type": "user"})],
)
async def test_an_upload_cannot_leave_its_folder(client: Any, filename: str, fields: dict[str, str]) -> None:
    """400, and nothing is written."""
    assert (await upload(client, b"x", filename, **fields))[0] == 400


async def test_only_files_of_the_working_folders_can_be_viewed(server: Any, client: Any) -> None:
    """Anything else is refused or not found; pages and scripts are sent as plain data."""
    (server.base / "output/page.html").write_text("<script>")
    (server.base / "user/secret.txt").write_text("secret")
    for path, status in (
        ("/view?filename=page.html", 200),
        ("/api/view?filename=page.html", 200),
        ("/view?filename=none.png", 404),
        ("/view?filename=../user/secret.txt", 400),
        ("/view?filename=/etc/passwd", 400),
        ("/view?filename=secret.txt&subfolder=../user", 403),
        ("/view?filename=secret.txt&type=user", 400),
        ("/view?filename=secret.txt&type=input&subfolder=..%2Fuser", 403),
    ):
        async with client.session.get(client.url + path) as answer:
            assert (path, answer.status) == (path, status)
            if status == 200:
                assert answer.content_type == "application/octet-stream"


# -- packages ------------------------------------------------------------------------------------------------


async def test_a_package_is_loaded_with_its_nodes_routes_and_scripts(server: Any, client: Any) -> None:
    """Under the module name ComfyUI would use; its routes also under /api."""
    info = (await client.get("/object_info/TinyImage"))["TinyImage"]
    assert info["python_module"] == "custom_nodes.tiny"
    assert info["output_name"] == ["picture", "hole"]
    assert (info["experimental"], info["output_node"], info["category"]) == (True, False, "tiny")
    assert (await client.get("/object_info/TinyNumber"))["TinyNumber"]["display_name"] == "Tiny number"
    for prefix in ("", "/api"):
        environment = await client.get(prefix + "/tiny/environment")
        assert environment["module"] == str(server.base / "custom_nodes/tiny").replace(".", "_x_")
        assert environment["largest"] == 16384
        assert environment["temp"] == str(server.base / "temp")
        assert environment["pid"] == server.process.pid
    assert "/extensions/tiny/tiny.js" in await client.get("/extensions")
    async with client.session.get(client.url + "/extensions/tiny/tiny.js") as answer:
        assert "registerExtension" in await answer.text()
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_the_server_says_what_it_is(server: Any, client: Any) -> None:
    """ComfyUI's keys, the version it behaves as, and that it is ours."""
    system = (await client.get("/system_stats"))["system"]
    assert system["comfyui_version"] == "0.3.64"
    assert system["discomfort_embedded"] is True
    assert f"--port={server.port}" in system["argv"]


async def test_the_log_can_be_read(client: Any) -> None:
    """With what packages log and print."""
    assert "To see the GUI go to: " in await client.get("/internal/logs")
    raw = await client.get("/internal/logs/raw")
    assert {"t", "m"} == set(raw["entries"][0])


async def test_settings_and_files_of_the_user_are_kept(server: Any, client: Any) -> None:
    """In the user folder; nothing outside of it can be reached."""
    await client.post("/settings/a.b", [1, 2])
    assert await client.get("/settings/a.b") == [1, 2]
    assert json.loads((server.base / "user/default/comfy.settings.json").read_text()) == {"a.b": [1, 2]}
    await client.post("/userdata/workflows%2Fw.json", {"nodes": []})
    assert await client.get("/userdata?dir=workflows") == ["w.json"]
    assert await client.get("/userdata/workflows%2Fw.json") == {"nodes": []}
    for path in ("/userdata/..%2F..%2Fserver.log", "/userdata?dir=..%2F.."):
        async with client.session.get(client.url + path) as answer:
            assert answer.status == 403


async def test_settings_stored_at_once_are_all_kept(client: Any) -> None:
    """The editor stores each by a request of its own, and does not wait for one before it sends the next."""
    names = [f"Together.{number}" for number in range(60)]
    await asyncio.gather(*(client.post(f"/settings/{name}", name) for name in names))
    stored = await client.get("/settings")
    assert [name for name in names if stored.get(name) != name] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        # DNS rebinding: a page's own name that leads here
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 403),
        ({"Host": "evil.example"}, 403),
    ],
)
async def test_pages_of_other_sites_are_refused(server: Any, headers: dict[str, str], status: int) -> None:
    """403 for what another site's page makes the browser send."""
    filled = {name: value.format(port=server.port) for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(server.url + "/prompt", headers=filled) as answer:
        assert answer.status == status


async def test_a_link_on_another_page_may_open_the_editor(server: Any) -> None:
    """Only the page itself, which the user then sees."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with aiohttp.ClientSession() as session, session.get(server.url + "/", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_messages_of_the_executor_wake_the_loop_once() -> None:
    """What is posted before the loop has come to it is delivered with it, in order."""
    from discomfort.embedded.server import PromptServer

    class Loop:
        """Notes what it is asked to call."""

        def __init__(self) -> None:
            self.called: list[Any] = []

        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, function: Any) -> None:
            self.called.append(function)

    server, delivered = object.__new__(PromptServer), []
    server.loop, server._loop_thread = Loop(), -1  # type: ignore[assignment]
    server._posted, server._loop_is_woken = deque(), False
    server._deliver = lambda *message: delivered.append(message)  # type: ignore[method-assign,assignment]
    for number in range(3):
        server.send_encoded(str(number), "c")
    (wake,) = server.loop.called  # type: ignore[attr-defined]
    wake()
    server.send_encoded("3")
    assert len(server.loop.called) == 2  # type: ignore[attr-defined]
    server.loop.called[1]()  # type: ignore[attr-defined]
    assert delivered == [("0", "c"), ("1", "c"), ("2", "c"), ("3", None)]


# -- starting and stopping -----------------------------------------------------------------------------------


def run_to_end(*arguments: str, environment: dict[str, str] | None = None, embedded: Path | None = None) -> Any:
    """Run the server's command line until it ends by itself."""
    command = [sys.executable, str(embedded or driver.ROOT / "embedded"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}, check=False
    )


async def test_ctrl_c_ends_it_cleanly_also_in_the_middle_of_a_prompt(tmp_path: Path) -> None:
    """Status 0, no temp folder left, no traceback; though SIGINT was ignored when it started."""
    driver.install_pack(tmp_path)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = driver.Server.embedded(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    await server.wait_until_ready()
    (tmp_path / "temp/preview.png").write_bytes(b"x")
    async with connect(server) as client:
        await client.queue({"1": node("TinySpin", seconds=60, seed=0), "9": node("TinyShow", value=link("1"))})
        await client.receive_until("executing", node="1")
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        assert time.monotonic() - start < 10
    assert not (tmp_path / "temp").exists()
    assert "Stopped server" in server.log()
    assert "Traceback" not in server.log()


async def test_a_taken_port_is_an_error_before_anything_is_loaded(server: Any, tmp_path: Path) -> None:
    """Status 1, a sentence that names the port, and the folder of the other server untouched."""
    marker = server.base / "temp/marker.png"
    marker.write_bytes(b"x")
    ended = run_to_end(f"--port={server.port}", f"--base-directory={server.base}")
    assert ended.returncode == 1
    assert f"port {server.port} on 127.0.0.1 is in use" in ended.stderr
    assert "torch" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert marker.exists()


async def test_a_bad_certificate_is_an_error_before_anything_is_loaded(tmp_path: Path) -> None:
    """Status 1, and a sentence that names the files."""
    (tmp_path / "key.pem").write_text("no key")
    ended = run_to_end(
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path}",
        f"--tls-keyfile={tmp_path / 'key.pem'}",
        f"--tls-certfile={tmp_path / 'none.pem'}",
    )
    assert ended.returncode == 1
    assert f"--tls-certfile {tmp_path / 'none.pem'} are no certificate" in ended.stderr
    assert "torch" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
async def test_it_can_be_asked_by_https(tmp_path: Path) -> None:
    """With a certificate and its key, and then not by http."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True)
    files = (f"--tls-keyfile={key}", f"--tls-certfile={certificate}")
    server = driver.Server.embedded(tmp_path / "base", files)
    server.url = server.url.replace("http:", "https:")
    try:
        await server.wait_until_ready(tls=False)
        assert f"To see the GUI go to: {server.url}" in server.log()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("address", "opened"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("192.0.2.1", "192.0.2.1")],
)
async def test_the_browser_is_sent_to_where_the_server_listens(
    monkeypatch: pytest.MonkeyPatch, address: str, opened: str
) -> None:
    """What listens on all addresses is asked for on this machine's own."""
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", urls.append)
    launch._open_browser(types.SimpleNamespace(address=address, port=8188))
    assert urls == [f"http://{opened}:8188"]


async def test_a_program_that_prints_for_ever_does_not_fill_the_memory() -> None:
    """print() does not flush; of what was printed since, listeners get as much as is kept."""
    told: list[Any] = []
    tee = log_buffer._Tee(io.StringIO())
    for number in range(2 * log_buffer._CAPACITY):
        tee.write(str(number))
    log_buffer.on_entries(told.append)
    try:
        tee.flush()
        tee.flush()
    finally:
        log_buffer._listeners.remove(told.append)
    assert len(told) == 1
    assert [entry["m"] for entry in told[0]][-1] == str(2 * log_buffer._CAPACITY - 1)
    assert len(told[0]) == log_buffer._CAPACITY


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.0.2.1", "127.0.0.1,0.0.0.0", "example.com"])
async def test_listening_beyond_this_machine_needs_a_second_flag(listen: str) -> None:
    """Status 2 and a sentence that names it."""
    ended = run_to_end("--listen", listen)
    assert ended.returncode == 2
    assert "--allow-remote" in ended.stderr


async def test_cache_ram_takes_two_values_at_most() -> None:
    """Status 2 and a sentence that names them."""
    ended = run_to_end("--cache-ram", "1", "2", "3")
    assert ended.returncode == 2
    assert "--cache-ram [1.0, 2.0, 3.0]: takes at most two values" in ended.stderr


async def test_the_temp_folder_is_emptied_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    """--temp-directory gets a folder "temp" in it; files beside it stay."""
    temp = tmp_path / "t"
    (temp / "temp").mkdir(parents=True)
    (temp / "temp/old.png").write_bytes(b"x")
    (temp / "mine.txt").write_text("x")
    (tmp_path / "base/temp").mkdir(parents=True)
    (tmp_path / "base/temp/other.png").write_bytes(b"x")
    ended = run_to_end(
        "--quick-test-for-ci",
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path / 'base'}",
        f"--temp-directory={temp}",
        "--cpu",
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(p.name for p in temp.rglob("*")) == ["mine.txt"]
    assert (tmp_path / "base/temp/other.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux's")
async def test_without_a_base_directory_it_uses_a_private_folder_of_the_user(tmp_path: Path) -> None:
    """Below XDG_DATA_HOME, for the user alone; unknown flags are one warning, not an exit."""
    ended = run_to_end(
        "--quick-test-for-ci",
        "--cpu",
        "--lowvram",
        "--fast",
        "--preview-method=auto",
        "--flag-of-the-future=3",
        "--another",
        f"--port={driver.free_port()}",
        environment={"XDG_DATA_HOME": str(tmp_path / "data")},
    )
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "data/discomfort/embedded"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"input", "output", "user"} <= {path.name for path in folder.iterdir()}
    assert ended.stderr.count("Unknown arguments are ignored: --flag-of-the-future=3 --another") == 1


async def test_packages_fail_alone_and_can_be_left_out(tmp_path: Path) -> None:
    """A package that raises is named with its reason; .disabled ones and other files are not tried."""
    nodes = tmp_path / "base/custom_nodes"
    extra = tmp_path / "more/packs"
    nodes.mkdir(parents=True)
    extra.mkdir(parents=True)
    broken = nodes / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("import no_such_module\n")
    for folder, name in ((nodes, "single"), (nodes, "off.disabled"), (extra, "further")):
        text = "class N:\n  @classmethod\n  def INPUT_TYPES(cls): return {}\n"
        text += f"NODE_CLASS_MAPPINGS = {{'{name}': N}}\nprint('loaded {name}')\n"
        if name == "single":
            (folder / "single.py").write_text(text)
            continue
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
        (folder / name / "prestartup_script.py").write_text(
            f"import sys, folder_paths\nprint('before {name}', 'torch' in sys.modules)\n"
        )
    (tmp_path / "paths.yaml").write_text("any:\n  base_path: more\n  custom_nodes: |\n    packs\n    none\n")
    common = [
        "--quick-test-for-ci",
        "--cpu",
        f"--base-directory={tmp_path / 'base'}",
        f"--extra-model-paths-config={tmp_path / 'paths.yaml'}",
    ]
    ended = run_to_end(*common, f"--port={driver.free_port()}")
    assert ended.returncode == 0, ended.stderr
    assert "loaded single" in ended.stdout
    assert "loaded further" in ended.stdout
    assert "before further False" in ended.stdout
    assert "off" not in ended.stdout
    assert "No module named 'no_such_module'" in ended.stderr
    assert f"(IMPORT FAILED): {broken}" in ended.stderr
    ended = run_to_end(
        *common, f"--port={driver.free_port()}", "--disable-all-custom-nodes", "--whitelist-custom-nodes", "further"
    )
    assert "loaded further" in ended.stdout
    assert "single" not in ended.stdout
    assert "broken" not in ended.stdout
    assert "Skipping broken" in ended.stderr


async def test_it_starts_from_a_folder_of_any_name(tmp_path: Path) -> None:
    """`python <folder>/embedded` where the package's folder cannot be imported by its name."""
    (tmp_path / "not a module-1.0").symlink_to(driver.ROOT)
    ended = run_to_end(
        "--quick-test-for-ci",
        "--cpu",
        f"--port={driver.free_port()}",
        f"--base-directory={tmp_path / 'base'}",
        embedded=tmp_path / "not a module-1.0/embedded",
    )
    assert ended.returncode == 0, ended.stderr


async def test_connections_made_while_it_starts_are_answered_when_it_is_ready(tmp_path: Path) -> None:
    """The port is taken at once, so a client waits instead of being refused."""
    server = driver.Server.embedded(tmp_path)
    try:
        deadline = time.monotonic() + driver.START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", server.port), 1).close()
                break
            except OSError:
                await asyncio.sleep(0.01)
        assert "Loaded in" not in server.log()
        url, limit = server.url + "/system_stats", aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession() as session, session.get(url, timeout=limit) as answer:
            assert answer.status == 200
        assert "Loaded in" in server.log()
    finally:
        assert server.stop() == 0
