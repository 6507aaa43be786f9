"""ComfyConnector on servers that work: the embedded one, and the real ComfyUI of COMFYUI_PATH where there is one.

What misbehaving peers do is in test_connector_faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector
from PIL import Image

from discomfort import comfy_serverless as cs

HERE = Path(cs.__file__).resolve().parent
WORKFLOWS = HERE / "tests" / "workflows"
TEST_WORKFLOW = HERE / "test_server.json"

BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]


def config_of(kind: str, request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue("embedded_config" if kind == "embedded" else "real_config")
    return path


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text())
    return content


def picture(color: int, size: int = 64) -> dict[str, Any]:
    """A prompt: a picture of one colour."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def blurs(count: int, size: int, color: int) -> dict[str, Any]:
    """A prompt that computes for a while, node by node."""
    prompt = picture(color, size)
    last = "1"
    for i in range(10, 10 + count):
        inputs = {"image": [last, 0], "blur_radius": 31, "sigma": 10.0}
        prompt[str(i)] = {"class_type": "ImageBlur", "inputs": inputs}
        last = str(i)
    prompt["2"]["inputs"]["images"] = [last, 0]
    return prompt


def without_meta(prompt: dict[str, Any]) -> dict[str, Any]:
    """Titles are for people; they change with the display names of nodes."""
    return {node_id: {k: v for k, v in node.items() if k != "_meta"} for node_id, node in prompt.items()}


async def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


def browsers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith("--user-data-dir=") for argument in process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="class", params=BOTH)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def connector(kind: str, request: pytest.FixtureRequest, nested: Any) -> AsyncIterator[ComfyConnector]:
    """A running connector that the tests of a class share."""
    connector = await ComfyConnector.create(config_of(kind, request))
    yield connector
    await connector.kill_api()
    assert not nested.processes()
    assert not nested.folders()


def settings_file(connector: ComfyConnector) -> Path:
    assert connector._choice is not None
    return connector._choice.data_folder / "user" / "default" / "comfy.settings.json"


@pytest.mark.usefixtures("strict_loop")
@pytest.mark.asyncio(loop_scope="class")
class TestRunningServer:
    """One server, one browser, many uses."""

    async def test_it_says_what_it_is(self, connector: ComfyConnector, kind: str, first_port: int) -> None:
        assert connector.state == "ready"
        assert ComfyConnector.is_running()
        assert await ComfyConnector.create() is connector
        port = int(connector.server_address.rpartition(":")[2])
        assert connector.server_address == f"http://127.0.0.1:{port}"
        assert connector.ws_address == f"ws://127.0.0.1:{port}/ws?clientId={connector.client_id}"
        assert first_port <= port < first_port + 200
        name = "embedded server" if kind == "embedded" else "ComfyUI 0."
        assert name in connector.server_description
        assert "COMFYUI_PATH in the configuration" in connector.server_description
        assert connector.server_address in repr(connector)

    async def test_no_browser_and_no_websocket_before_they_are_needed(self, connector: ComfyConnector) -> None:
        assert not browsers()
        assert not connector._events.is_wanted

    async def test_first_conversion_on_a_fresh_profile_leaves_the_users_settings_alone(
        self, connector: ComfyConnector
    ) -> None:
        """Tutorial and update dialogs do not block it; the frontend writes nothing."""
        file = settings_file(connector)
        before = file.read_bytes() if file.exists() else None
        assert connector._choice is not None
        prompt = await connector.get_prompt_from_workflow(json.loads(TEST_WORKFLOW.read_text()))
        assert {k: node["class_type"] for k, node in prompt.items()} == {"1": "EmptyImage", "2": "PreviewImage"}
        assert prompt["1"]["inputs"] == {"width": 64, "height": 64, "batch_size": 1, "color": 0}
        assert prompt["2"]["inputs"] == {"images": ["1", 0]}
        assert (file.read_bytes() if file.exists() else None) == before

    async def test_workflow_runs_from_a_dict_a_path_and_a_text(self, connector: ComfyConnector) -> None:
        text = TEST_WORKFLOW.read_text()
        for payload in (json.loads(text), str(TEST_WORKFLOW), TEST_WORKFLOW, text):
            history = await connector.run_workflow(payload)
            ((prompt_id, entry),) = history.items()
            assert entry["status"]["status_str"] == "success"
            assert entry["prompt"][1] == prompt_id
            assert entry["prompt"][3]["extra_pnginfo"]["workflow"] == json.loads(text)
            assert len(entry["outputs"]["2"]["images"]) == 1

    async def test_built_in_test_passes(self, connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch) -> None:
        # The tests' configuration lies in a folder of its own.
        monkeypatch.setattr(connector, "config", cs.ConnectorConfig())
        assert await connector._test_server()

    async def test_results_lie_in_the_private_temp_folder(self, connector: ComfyConnector) -> None:
        (entry,) = (await connector.run_workflow(picture(0xFF8000), use_workflow_json=False)).values()
        (image,) = entry["outputs"]["2"]["images"]
        assert image["type"] == "temp"
        assert connector._folder is not None
        with Image.open(connector._folder.temp_directory / image["subfolder"] / image["filename"]) as saved:
            assert saved.convert("RGB").getpixel((3, 3)) == (255, 128, 0)

    @pytest.mark.parametrize("name", ["modes_and_reroutes", "nested_subgraphs", "links_as_objects", "loop_image"])
    async def test_conversions_are_the_editors_own(self, connector: ComfyConnector, kind: str, name: str) -> None:
        """Muted, bypassed, reroutes, primitives, nested subgraphs; recorded with frontend 1.58.1."""
        prompt = await connector.get_prompt_from_workflow(load(name))
        expected = json.loads((WORKFLOWS / "prompts" / f"{name}.json").read_text())
        if kind == "embedded":
            assert without_meta(prompt) == without_meta(expected)
            return
        # Another frontend may have other inner ids, and 1.27.10 ignores that a subgraph is muted or bypassed.
        assert {node["class_type"] for node in prompt.values()} == {node["class_type"] for node in expected.values()}
        links = [v for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list)]
        assert links
        assert all(node_id in prompt for node_id, _ in links)

    async def test_conversions_do_not_depend_on_those_before(
        self, connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Nothing:
            def get(self, key: str) -> None:
                return None

            def put(self, key: str, prompt: Any) -> None:
                return None

        monkeypatch.setattr(connector, "_store", Nothing())
        a, b = load("nested_subgraphs"), load("modes_and_reroutes")
        given = json.dumps([a, b])
        first = [await connector.get_prompt_from_workflow(w) for w in (a, b)]
        for _ in range(2):
            assert [await connector.get_prompt_from_workflow(w) for w in (a, b)] == first
        together = await asyncio.gather(*(connector.get_prompt_from_workflow(w) for w in (b, a, b, a)))
        assert together == [first[1], first[0], first[1], first[0]]
        assert json.dumps([a, b]) == given

    async def test_random_seeds_are_not_touched(self, connector: ComfyConnector) -> None:
        workflow = json.loads(TEST_WORKFLOW.read_text())
        workflow["nodes"][0]["widgets_values"] = [64, 64, 1, 7]
        workflow["extra"]["ds"] = {"offset": [0, 0], "scale": 1.5}
        prompt = await connector.get_prompt_from_workflow(workflow)
        assert prompt["1"]["inputs"]["color"] == 7

    async def test_unknown_node_is_named(self, connector: ComfyConnector, kind: str) -> None:
        workflow = json.loads(TEST_WORKFLOW.read_text())
        workflow["nodes"][0].update(type="FancyNode", title="My fancy", properties={"cnr_id": "fancy-pack"})
        with pytest.raises(cs.UnknownNodeError) as caught:
            await connector.run_workflow(workflow)
        assert "FancyNode #1 ('My fancy') from the pack 'fancy-pack'" in str(caught.value)
        assert ("embedded server" if kind == "embedded" else "This ComfyUI") in str(caught.value)

    async def test_prompt_given_as_workflow_and_the_other_way_round(self, connector: ComfyConnector) -> None:
        with pytest.raises(cs.ConversionError, match="use_workflow_json=False"):
            await connector.run_workflow(picture(1))
        with pytest.raises(cs.PromptRejectedError, match="use_workflow_json=True"):
            await connector.run_workflow(str(TEST_WORKFLOW), use_workflow_json=False)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"1": {"class_type": "NoSuchNode", "inputs": {}}}, ["NoSuchNode"]),
            ({"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": 0}}}, ["batch_size"]),
            (
                {"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 8, "batch_size": 1, "color": 0}}},
                ["EmptyImage #1", "width", "smaller than min"],
            ),
            ({"2": {"class_type": "PreviewImage", "inputs": {}, "_meta": {"title": "My view"}}}, ["My view", "images"]),
            ({"2": {"class_type": "PreviewImage", "inputs": {"images": ["9", 0]}}}, ["PreviewImage #2"]),
        ],
        ids=["type", "missing", "range", "title", "link"],
    )
    async def test_refused_prompt_says_why(
        self, connector: ComfyConnector, change: dict[str, Any], says: list[str]
    ) -> None:
        with pytest.raises(cs.PromptRejectedError) as caught:
            await connector.run_workflow({**picture(1), **change}, use_workflow_json=False)
        for text in says:
            assert text in str(caught.value)

    async def test_prompt_without_outputs_is_refused_with_advice(self, connector: ComfyConnector) -> None:
        for prompt in ({}, {"1": picture(1)["1"]}):
            with pytest.raises(cs.PromptRejectedError, match="needs a node that delivers something"):
                await connector.run_workflow(prompt, use_workflow_json=False)

    async def test_node_error_carries_everything_and_the_next_run_works(
        self, connector: ComfyConnector, tmp_path: Path
    ) -> None:
        (tmp_path / "broken-test-picture.png").write_bytes(b"no picture")
        connector.upload_data(tmp_path / "broken-test-picture.png", is_ephemeral=True)
        prompt = {
            "5": {
                "class_type": "LoadImage",
                "inputs": {"image": "broken-test-picture.png"},
                "_meta": {"title": "My picture"},
            },
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
        }
        with pytest.raises(cs.NodeExecutionError) as caught:
            await connector.run_workflow(prompt, use_workflow_json=False)
        error = caught.value
        assert (error.node_id, error.class_type, error.title) == ("5", "LoadImage", "My picture")
        assert error.exception_type.endswith("UnidentifiedImageError")
        assert any("load_image" in line for line in error.server_traceback)
        assert "Node LoadImage #5 ('My picture') failed" in str(error)
        (entry,) = (await connector.run_workflow(picture(2), use_workflow_json=False)).values()
        assert entry["outputs"]

    async def test_uploaded_picture_is_loaded(self, connector: ComfyConnector, tmp_path: Path) -> None:
        Image.new("RGB", (20, 10), (10, 20, 30)).save(tmp_path / "uploaded-test-picture.png")
        connector.upload_data(tmp_path / "uploaded-test-picture.png", subfolder="test-sub", is_ephemeral=True)
        prompt = {
            "5": {"class_type": "LoadImage", "inputs": {"image": "test-sub/uploaded-test-picture.png"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
        }
        (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False)).values()
        (image,) = entry["outputs"]["2"]["images"]
        address = f"{connector.server_address}/view"
        async with aiohttp.ClientSession() as session, session.get(address, params=image) as response:
            (tmp_path / "seen.png").write_bytes(await response.read())
        with Image.open(tmp_path / "seen.png") as seen:
            assert (seen.size, seen.convert("RGB").getpixel((1, 1))) == ((20, 10), (10, 20, 30))

    async def test_many_runs_at_once_get_each_its_own_result(self, connector: ComfyConnector) -> None:
        colors = [i * 5000 for i in range(1, 51)]
        runs = (connector.run_workflow(picture(c, 16), use_workflow_json=False) for c in colors)
        names = set()
        for color, history in zip(colors, await asyncio.gather(*runs), strict=True):
            (entry,) = history.values()
            assert entry["prompt"][2]["1"]["inputs"]["color"] == color
            names.add(entry["outputs"]["2"]["images"][0]["filename"])
        assert len(names) == len(colors)

    async def test_alternating_prompts_stay_cached(self, connector: ComfyConnector) -> None:
        a, b = picture(101), picture(102)
        for prompt in (a, b):
            await connector.run_workflow(prompt, use_workflow_json=False)
        for prompt in (a, b, a, b):
            seen: list[cs.ServerEvent] = []
            history = await connector.run_workflow(prompt, use_workflow_json=False, on_event=seen.append)
            (cached,) = [event for event in seen if event.type == "execution_cached"]
            assert sorted(cached.data["nodes"]) == ["1", "2"]
            (entry,) = history.values()
            assert entry["outputs"]["2"]["images"]  # a run that was entirely cached has its outputs all the same

    async def test_events_of_a_run(self, connector: ComfyConnector) -> None:
        seen: list[cs.ServerEvent] = []
        await connector.run_workflow(picture(0x123456), use_workflow_json=False, on_event=seen.append)
        types = [event.type for event in seen]
        assert types[:2] == ["execution_start", "execution_cached"]
        assert types[-1] == "executing"
        assert seen[-1].node is None
        assert {event.node for event in seen if event.type == "executed"} == {"2"}

    async def test_all_events_can_be_watched(self, connector: ComfyConnector) -> None:
        seen: list[str] = []

        async def watch() -> None:
            async for event in connector.events():
                seen.append(event.type)

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0.1)
        await connector.run_workflow(picture(0x123457), use_workflow_json=False)
        await until(lambda: "execution_success" in seen)
        watcher.cancel()
        await asyncio.wait([watcher])

    async def test_cancelled_run_is_interrupted_and_the_one_behind_it_is_not(self, connector: ComfyConnector) -> None:
        seen: list[cs.ServerEvent] = []
        long = blurs(40, 1024, color=77)
        task = asyncio.create_task(connector.run_workflow(long, use_workflow_json=False, on_event=seen.append))
        await until(lambda: any(event.type == "executing" for event in seen))
        waiting = asyncio.create_task(connector.run_workflow(picture(78), use_workflow_json=False))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (entry,) = (await waiting).values()
        assert entry["outputs"]["2"]["images"]
        assert time.monotonic() - started < 10
        queue = await connector._get_object("/queue")
        assert queue == {"queue_running": [], "queue_pending": []}

    async def test_interruption_from_outside_is_its_own_error(self, connector: ComfyConnector) -> None:
        seen: list[cs.ServerEvent] = []
        run = connector.run_workflow(blurs(40, 1024, color=79), use_workflow_json=False, on_event=seen.append)
        task = asyncio.create_task(run)
        await until(lambda: any(event.type == "executing" for event in seen))
        await connector.interrupt()
        with pytest.raises(cs.PromptInterruptedError, match="at node"):
            await task

    async def test_history_stays_empty(self, connector: ComfyConnector) -> None:
        await connector.run_workflow(picture(80), use_workflow_json=False)
        deadline = time.monotonic() + 10
        while await connector._get_object("/history"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    async def test_asking_the_server(self, connector: ComfyConnector) -> None:
        assert {"EmptyImage", "DiscomfortPort", "DiscomfortDataLoader"} <= set(await connector.object_info())
        assert (await connector.system_stats())["system"]["argv"]
        await connector.free()
        await connector.interrupt()
        assert await connector._validate_resources()

    async def test_output_of_the_server_is_kept_in_its_own_file(
        self, connector: ComfyConnector, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert connector.log_path is not None
        assert "To see the GUI" in connector.log_path.read_text()
        with caplog.at_level("DEBUG", "discomfort"):
            await connector.run_workflow(picture(81), use_workflow_json=False)
        assert not [r for r in caplog.records if r.name.startswith("discomfort") and r.levelname != "DEBUG"]

    async def test_killed_browser_and_killed_server_come_back(self, connector: ComfyConnector) -> None:
        for process in browsers():
            process.kill()
        prompt = await connector.get_prompt_from_workflow(load("part_make"))
        assert connector._server is not None
        os.kill(connector._server.pid or 0, signal.SIGKILL)
        assert await connector.get_prompt_from_workflow(load("part_make")) == prompt
        (entry,) = (await connector.run_workflow(picture(82), use_workflow_json=False)).values()
        assert entry["outputs"]
        assert connector.state == "ready"


@pytest.mark.usefixtures("strict_loop")
@pytest.mark.parametrize("kind", BOTH)
async def test_ephemeral_uploads_and_the_private_folder_end_with_the_server(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, no_leaks: None
) -> None:
    connector = await ComfyConnector.create(config_of(kind, request))
    (tmp_path / "ephemeral-test.txt").write_text("x")
    paths = [
        Path(connector.upload_data(tmp_path / "ephemeral-test.txt", folder_type, is_ephemeral=True))
        for folder_type in ("input", "output", "temp")
    ]
    assert all(path.exists() for path in paths)
    await connector.kill_api()
    assert not any(path.exists() for path in paths)


@pytest.mark.usefixtures("strict_loop")
@pytest.mark.parametrize("kind", BOTH)
async def test_conversions_of_an_earlier_process_need_no_browser(
    kind: str, request: pytest.FixtureRequest, no_leaks: None
) -> None:
    """The class above has converted this workflow, on another server and another port."""
    connector = await ComfyConnector.create(config_of(kind, request))
    history = await connector.run_workflow(str(TEST_WORKFLOW))
    assert not browsers()
    (entry,) = history.values()
    assert entry["outputs"]["2"]["images"]
    await connector.kill_api()


# ---- the user's own server ----


def ask(port: int, path: str) -> Any:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return response.read()


def post(port: int, path: str, body: Any) -> Any:
    import urllib.request

    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


@contextlib.contextmanager
def users_own_server(
    kind: str, request: pytest.FixtureRequest, port: int, tmp_path: Path, wait_for: Callable[..., Any]
) -> Iterator[Path]:
    """A server that the user started by hand from the same tree; yields the folder of its data."""
    if kind == "embedded":
        data = cs.embedded_data_folder()
        command = [sys.executable, "-m", "discomfort.embedded", "--port", str(port)]
        where = None
    else:
        data = request.getfixturevalue("real_comfyui")
        python = next((p for p in (data / "venv/bin/python", data / ".venv/bin/python") if p.exists()), sys.executable)
        # Its temp folder is elsewhere, because starting it empties the one that a server of the person who runs these
        # tests may be using.
        command = [str(python), "main.py", "--cpu", "--port", str(port), "--temp-directory", str(tmp_path)]
        command += ["--database-url", f"sqlite:///{tmp_path}/users.db"]
        where = data
    with open(tmp_path / "users.log", "wb") as output:
        process = subprocess.Popen(command, cwd=where, stdout=output, stderr=subprocess.STDOUT)
    try:

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "users.log").read_text()
            with contextlib.suppress(OSError):
                return bool(ask(port, "/system_stats"))
            return False

        wait_for(answers, 60, "the user's own server")
        yield data
        assert process.poll() is None, "the user's own server has ended"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", BOTH)
async def test_users_own_server_of_the_same_tree_is_untouched(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    write_config: Callable[..., Path],
    wait_for: Callable[..., Any],
    first_port: int,
    no_leaks: None,
) -> None:
    """Its port, previews, history and database, and what lies in the tree's temp folder."""
    port = next(port for port in range(first_port + 30, first_port + 60) if cs.port_is_free("127.0.0.1", port))
    with users_own_server(kind, request, port, tmp_path, wait_for) as data:
        prompt_id = json.loads(post(port, "/prompt", {"prompt": picture(5)}))["prompt_id"]
        history = await asyncio.to_thread(wait_for, lambda: json.loads(ask(port, f"/history/{prompt_id}")))
        (image,) = history[prompt_id]["outputs"]["2"]["images"]
        view = f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
        seen = ask(port, view)
        had_temp = (data / "temp").exists()
        (data / "temp").mkdir(exist_ok=True)
        marker = data / "temp" / "discomfort-test-marker.txt"
        marker.write_text("the user's")
        kept = {file: hashlib.sha256(file.read_bytes()).digest() for file in (data / "user").glob("**/*.*")}
        try:
            keys = {"COMFYUI_PATH": "embedded" if kind == "embedded" else str(data), "DEVICE": "cpu"}
            connector = await ComfyConnector.create(write_config(INITIAL_PORT=port, **keys))
            assert int(connector.server_address.rpartition(":")[2]) > port
            await connector.run_workflow(picture(5), use_workflow_json=False)
            await connector.get_prompt_from_workflow(load("part_use"))
            await connector.kill_api()
            assert marker.read_text() == "the user's"
        finally:
            marker.unlink(missing_ok=True)
            if not had_temp:
                (data / "temp").rmdir()
        assert ask(port, view) == seen
        assert json.loads(ask(port, "/history")) == history
        assert json.loads(ask(port, "/queue")) == {"queue_running": [], "queue_pending": []}
        for file, digest in kept.items():
            assert hashlib.sha256(file.read_bytes()).digest() == digest, f"{file} has changed"
