"""ComfyConnector on servers that work: the embedded one, and the real ComfyUI of COMFYUI_PATH where there is one.

What misbehaving peers do is in test_connector_faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import functools
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
        assert prompt == await connector.get_prompt_from_workflow(TEST_WORKFLOW)
        assert await connector.explain_conversion(str(TEST_WORKFLOW)) == []
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
    """What one server's life has converted, which the class above may have done already, the next finds on disk."""
    connector = await ComfyConnector.create(config_of(kind, request))
    await connector.get_prompt_from_workflow(json.loads(TEST_WORKFLOW.read_text()))
    await connector.kill_api()
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


# ---- conversions beside the editor's own export, with a pack that gets in the way ----

PACK = '''
class _Pass:
    CATEGORY = "tests"
    FUNCTION = "run"
    RETURN_TYPES = ("INT",)

    def run(self, **inputs):
        return (0,)


class TestsSeed(_Pass):
    @classmethod
    def INPUT_TYPES(cls):
        seed = ("INT", {"default": 0, "min": 0, "max": 2**60, "control_after_generate": True})
        return {
            "required": {
                "seed": seed,
                "steps": ("INT", {"default": 20}),
                "cfg": ("FLOAT", {"default": 8.0}),
                "sampler": (["euler", "heun"],),
                "tiled": ("BOOLEAN", {"default": False}),
            },
            "optional": {"extra": ("INT", {"forceInput": True}), "image": ("IMAGE",)},
        }


class TestsNamed(TestsSeed):
    """Its script takes values that are saved by name."""


class TestsShow(_Pass):
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 3, "forceInput": True})}}


NODE_CLASS_MAPPINGS = {"TestsSeed": TestsSeed, "TestsNamed": TestsNamed, "TestsShow": TestsShow}
WEB_DIRECTORY = "./web"
'''

# ---- packs that the configuration names ----


def number_pack(folder: Path, factor: int, more: str = "") -> Path:
    """A pack with a node Times: n * factor, shown as text."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        f"class Times:\n"
        f"    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = 'tests', 'times', (), True\n"
        f"    @classmethod\n"
        f"    def INPUT_TYPES(cls):\n"
        f"        return {{'required': {{'n': ('INT', {{}}) {more} }}}}\n"
        f"    def times(self, n, **more):\n"
        f"        return {{'ui': {{'text': [str(n * {factor})]}}}}\n"
        f"NODE_CLASS_MAPPINGS = {{'Times': Times}}\n"
    )
    return folder


async def times(connector: ComfyConnector, n: int) -> Any:
    prompt = {"1": {"class_type": "Times", "inputs": {"n": n}}}
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False)).values()
    return entry["outputs"]["1"]["text"]


@pytest.mark.parametrize("kind", BOTH)
async def test_nodes_of_named_packs_run_and_servers_do_not_mix_them(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    base = json.loads(config_of(kind, request).read_text())
    number_pack(tmp_path / "pack", 2)
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**base, "NODE_PACKS": ["pack", "broken.py"]}))
    workflow = flow([{**seed_node(1, [3, 4]), "type": "Times", "inputs": [], "outputs": []}], [])
    connector = await ComfyConnector.create(file)
    try:
        assert await times(connector, 21) == ["42"]
        assert "could not load the pack broken.py: No module named 'no_such_module_at_all'" in caplog.text
        assert (await connector.get_prompt_from_workflow(workflow))["1"]["inputs"] == {"n": 3}
        lost = flow([{**seed_node(1), "type": "Lost"}], [])
        with pytest.raises(
            cs.UnknownNodeError, match=r"could not be loaded: broken\.py \(No module named 'no_such_mod"
        ):
            await connector.get_prompt_from_workflow(lost)
    finally:
        await connector.kill_api()
    # Another pack of the same name, with a node of the same name that has one widget more.
    number_pack(tmp_path / "other" / "pack", 3, ", 'm': ('INT', {})")
    file.write_text(json.dumps({**base, "NODE_PACKS": [str(tmp_path / "other" / "pack")]}))
    connector = await ComfyConnector.create(file)
    try:
        assert (await connector.get_prompt_from_workflow(workflow))["1"]["inputs"] == {"n": 3, "m": 4}
        with pytest.raises(cs.PromptRejectedError, match="m"):
            await times(connector, 21)
    finally:
        await connector.kill_api()


async def test_running_server_cannot_be_given_packs(tmp_path: Path, no_leaks: None) -> None:
    pack = number_pack(tmp_path / "pack", 2)
    with pytest.raises(cs.ConfigError, match=r"NODE_PACKS .* runs already \(http://127\.0\.0\.1:9\)"):
        await ComfyConnector.create(cs.ConnectorConfig(API_URL="127.0.0.1:9", NODE_PACKS=[pack]))


# What packs do that may hold up a page: dialogs of the browser and of the page, while it loads and for each workflow.
PACK_SCRIPT = """
import { app } from "../../scripts/app.js";

const VERSION = 1;
alert("loaded");
window.addEventListener("beforeunload", (event) => {
  event.preventDefault();
  event.returnValue = "stay";
  sessionStorage.asked = Number(sessionStorage.asked ?? 0) + 1;
});

app.registerExtension({
  name: "tests.trouble",
  async setup() {
    confirm("really?");
    prompt("your name?", "nobody");
    const dialog = document.createElement("dialog");
    dialog.textContent = "First steps";
    document.body.append(dialog);
    dialog.showModal();
    app.extensionManager.toast.add({ severity: "error", summary: "An error", detail: "that stays" });
    window.print();
  },
  registerCustomNodes() {
    class Sticker extends LGraphNode {
      constructor(title) {
        super(title);
        this.isVirtualNode = true;
        this.serialize_widgets = true;
      }
    }
    LiteGraph.registerNodeType("tests/Sticker", Object.assign(Sticker, { title: "Sticker" }));
  },
  loadedGraphNode(node) {
    if (node.type === "TestsSeed" && node.title.startsWith("alert")) alert("a node is loaded");
    if (node.type === "TestsSeed" && node.title === "for ever") for (;;) {}
    if (node.type === "TestsSeed" && node.title === "versioned") node.widgets[0].value = VERSION;
  },
  nodeCreated(node) {
    if (node.comfyClass !== "TestsNamed") return;
    const configure = node.configure;
    node.configure = function (info) {
      const result = configure.apply(this, arguments);
      for (const widget of this.widgets)
        if (info.widgets_values && widget.name in info.widgets_values) widget.value = info.widgets_values[widget.name];
      return result;
    };
  },
});
"""


def seed_node(node_id: int, values: Any = (5, "randomize", 30, 7.5, "heun", True), **more: Any) -> dict[str, Any]:
    inputs = [{"name": "extra", "type": "INT", "link": None}, {"name": "image", "type": "IMAGE", "link": None}]
    outputs = [{"name": "INT", "type": "INT", "links": []}]
    values = list(values) if isinstance(values, tuple) else values
    return {
        "id": node_id, "type": "TestsSeed", "pos": [node_id * 250, 0], "size": [200, 200], "flags": {},
        "order": node_id, "mode": 0, "inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values,
        **more,
    }  # fmt: skip


def show_node(node_id: int, link: int | None, **more: Any) -> dict[str, Any]:
    return seed_node(
        node_id, (), **{"type": "TestsShow", "inputs": [{"name": "value", "type": "INT", "link": link}], **more}
    )


def flow(nodes: list[dict[str, Any]], links: list[Any], **more: Any) -> dict[str, Any]:
    """A workflow; the links' ids are entered into the outputs that they come from."""
    for link_id, origin, slot, *_ in links:
        (node,) = [n for n in nodes if n["id"] == origin]
        node["outputs"][slot]["links"].append(link_id)
    last_link = max([link[0] for link in links], default=0)
    return {
        "last_node_id": max(n["id"] for n in nodes), "last_link_id": last_link, "nodes": nodes, "links": links,
        "groups": [], "config": {}, "extra": {}, "version": 0.4, **more,
    }  # fmt: skip


def seeds() -> dict[str, Any]:
    """The control value behind the seed; a widget that was made an input, with a link and without."""
    nodes = [
        seed_node(1),
        seed_node(2, (6, "increment", 30, 7.5, "euler", False)),
        seed_node(3, (7, "fixed", 30, 7.5, "euler", False)),
        show_node(4, 1),
        show_node(5, 2),
        show_node(6, 4),
    ]
    widget = {"name": "steps", "type": "INT", "widget": {"name": "steps"}}
    nodes[1]["inputs"].append({**widget, "link": None})
    nodes[2]["inputs"].append({**widget, "link": 3})
    links = [[1, 1, 0, 4, 0, "INT"], [2, 2, 0, 5, 0, "INT"], [3, 1, 0, 3, 2, "INT"], [4, 3, 0, 6, 0, "INT"]]
    return flow(nodes, links)


def native_reroutes() -> dict[str, Any]:
    """Links that pass through reroute points, which are no nodes."""
    extra = {
        "reroutes": [
            {"id": 1, "pos": [300, 50], "linkIds": [1, 2]},
            {"id": 2, "parentId": 1, "pos": [350, 90], "linkIds": [2]},
        ],
        "linkExtensions": [{"id": 1, "parentId": 1}, {"id": 2, "parentId": 2}],
    }
    nodes = [seed_node(1), show_node(2, 1), show_node(3, 2)]
    return flow(nodes, [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 3, 0, "INT"]], extra=extra)


def group_node(prefix: str) -> dict[str, Any]:
    inner = [{**seed_node(0), "index": 0}, {**seed_node(1, (9, "fixed", 1, 1.5, "euler", False)), "index": 1}]
    for node in inner:
        del node["id"]
    group = {"nodes": inner, "links": [[0, 0, 1, 0, 1, "INT"]], "external": []}
    outer = seed_node(1, (4, "fixed", 11, 2.5, "heun", True, 9, "fixed", 1, 1.5, "euler", False))
    outer.update(type=f"{prefix}Pair", inputs=[], outputs=[])
    outer["outputs"] = [{"name": "INT", "type": "INT", "links": []}]  # the second one's: the first one's is inside
    return flow([outer, show_node(2, 1)], [[1, 1, 0, 2, 0, "INT"]], extra={"groupNodes": {"Pair": group}})


def switched_off() -> dict[str, Any]:
    """Muted, bypassed and unknown nodes, and one that exists in the editor only."""
    nodes = [
        seed_node(1, mode=2),
        seed_node(2, mode=4),
        seed_node(3),
        seed_node(4),
        show_node(5, 3),
        seed_node(6, type="NobodyHasThis", mode=4),
        seed_node(7, type="NobodyHasThis", mode=2),
        seed_node(8, (), type="tests/Sticker", inputs=[], outputs=[], title="Remember"),
    ]
    nodes[2]["inputs"][0]["link"] = 1  # from a muted node
    nodes[3]["inputs"][0]["link"] = 2  # through a bypassed one
    nodes[1]["inputs"][0]["link"] = 4
    nodes[5]["inputs"][0]["link"] = 5
    nodes[6]["inputs"][0]["link"] = 6
    links = [[1, 1, 0, 3, 0, "INT"], [2, 2, 0, 4, 0, "INT"], [3, 6, 0, 5, 0, "INT"], [4, 3, 0, 2, 0, "INT"]]
    return flow(nodes, [*links, [5, 4, 0, 6, 0, "INT"], [6, 3, 0, 7, 0, "INT"]])


def subgraph(nodes: list[dict[str, Any]], links: list[Any], **more: Any) -> dict[str, Any]:
    """A definition with one output, INT, that link 99 of its links goes to."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        "id": "3d44e000-3333-4333-8333-333333333333", "version": 1, "revision": 0, "config": {}, "name": "Inside",
        "state": {"lastGroupId": 0, "lastNodeId": 50, "lastLinkId": 100, "lastRerouteId": 0},
        "inputNode": {"id": -10, "bounding": [0, 0, 120, 60]}, "outputNode": {"id": -20, "bounding": [900, 0, 120, 60]},
        "inputs": [], "outputs": [{"id": "5e55e000-0000-4000-8000-00000000000f", "name": "INT", "type": "INT",
                                   "linkIds": [99], "pos": [0, 0]}],
        "widgets": [], "nodes": nodes, "links": [dict(zip(keys, link, strict=True)) for link in links], "groups": [],
        "extra": {}, **more,
    }  # fmt: skip


def promoted_widgets() -> dict[str, Any]:
    """A subgraph whose node has null for values of inner widgets, as older frontends save them."""
    inner = seed_node(3)
    inner["outputs"][0]["links"] = [99]
    inner["inputs"].append({"name": "cfg", "type": "FLOAT", "widget": {"name": "cfg"}, "link": 98})
    definition = subgraph(
        [inner],
        [[99, 3, 0, -20, 0, "INT"], [98, -10, 0, 3, 2, "FLOAT"]],
        inputs=[{"id": "5e55e000-0000-4000-8000-00000000000e", "name": "cfg", "type": "FLOAT", "linkIds": [98],
                 "pos": [0, 0]}],
    )  # fmt: skip
    host = seed_node(1, (None, None, None), type=definition["id"], inputs=[])
    host["properties"] = {"proxyWidgets": [["3", "seed"], ["3", "steps"], ["-1", "cfg"]]}
    return flow([host, show_node(2, 1)], [[1, 1, 0, 2, 0, "INT"]], definitions={"subgraphs": [definition]})


def named_values() -> dict[str, Any]:
    """Values saved by name: the script of the one node takes them, nobody does so for the other."""
    values = {"seed": 44, "steps": 12, "cfg": 2.5, "sampler": "heun", "tiled": True, "picture": {"of": "nothing"}}
    nodes = [seed_node(1, values, type="TestsNamed"), seed_node(2, {"steps": 12, "cfg": 8.0}), show_node(3, 1)]
    return flow([*nodes, show_node(4, 2)], [[1, 1, 0, 3, 0, "INT"], [2, 2, 0, 4, 0, "INT"]])


def damaged_values() -> dict[str, Any]:
    """A list without the control value, a short one, and none."""
    nodes = [seed_node(1, (5, 8, 7.5, "heun", True)), seed_node(2, (5, "fixed", 30)), seed_node(3, None)]
    links = [[i, i, 0, i + 3, 0, "INT"] for i in (1, 2, 3)]
    return flow([*nodes, *(show_node(i + 3, i) for i in (1, 2, 3))], links)


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "seeds": seeds,
    "native reroutes": native_reroutes,
    "group node": lambda: group_node("workflow>"),
    "old group node": lambda: group_node("workflow/"),
    "switched off": switched_off,
    "promoted widgets": promoted_widgets,
    "named values": named_values,
    "damaged values": damaged_values,
    **{name: functools.partial(load, name) for name in sorted(file.stem for file in WORKFLOWS.glob("*.json"))},
}

# What "Export (API)" of an editor page does that has nothing to do with the connector's.
EXPORT = "async (workflow) => { await app.loadGraphData(workflow); return (await app.graphToPrompt()).output; }"


@pytest.fixture(scope="class")
def pack_script(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of a pack that each kind of server gets anew; packs.yaml, which names the packs, lies beside them."""
    folder = tmp_path_factory.mktemp("packs")
    script = folder / "packs" / "trouble" / "web" / "trouble.js"
    script.parent.mkdir(parents=True)
    script.write_text(PACK_SCRIPT)
    (script.parents[1] / "__init__.py").write_text(PACK)
    (folder / "packs.yaml").write_text(json.dumps({"tests": {"base_path": str(folder), "custom_nodes": "packs"}}))
    return script


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def troubled(
    kind: str, pack_script: Path, request: pytest.FixtureRequest, write_config: Callable[..., Path], nested: Any
) -> AsyncIterator[ComfyConnector]:
    """A running connector whose server has the pack."""
    config = json.loads(config_of(kind, request).read_text())
    config["API_COMMAND_LINE"] = f"python3 main.py --extra-model-paths-config '{pack_script.parents[3] / 'packs.yaml'}'"
    connector = await ComfyConnector.create(write_config(**config))
    yield connector
    await connector.kill_api()
    assert not nested.processes()
    assert not nested.folders()


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def editor(troubled: ComfyConnector) -> AsyncIterator[Any]:
    """A page of the editor in a browser of its own, as a person opens it; it changes nothing on the server."""
    from playwright.async_api import async_playwright

    async def read_only(route: Any) -> None:
        await (route.fallback() if route.request.method in ("GET", "HEAD") else route.fulfill(json={}))

    async with async_playwright() as playwright:
        args = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=cs.installed_browser(), args=args)
        page = await browser.new_page()
        await page.route("**/*", read_only)
        await page.goto(troubled.server_address, wait_until="commit")
        await page.wait_for_function(cs._READY_JS)
        yield page
        await browser.close()


def said(notes: list[cs.ConversionNote]) -> set[tuple[str, str, str | None]]:
    return {(note.kind, note.node_id, note.input) for note in notes}


# What is said of each case, as (kind, node id, input); of all others nothing.
NOTES: dict[str, set[tuple[str, str, str | None]]] = {
    "switched off": {
        ("muted", "1", None),
        ("bypassed", "2", None),
        ("link_off", "3", "extra"),
        ("bypassed", "6", None),
        ("muted", "7", None),
        ("editor_only", "8", None),
    },
    "promoted widgets": {("null_replaced", "1:3", name) for name in ("seed", "steps", "cfg")},
    "named values": {("value_not_used", "2", "steps")},
    "damaged values": {
        ("wrong_value", "1", "cfg"),
        ("wrong_value", "1", "sampler"),
        *(("default_used", "2", name) for name in ("cfg", "sampler", "tiled")),
        *(("default_used", "3", name) for name in ("seed", "steps", "cfg", "sampler", "tiled")),
    },
    "modes_and_reroutes": {
        ("bypassed", "4", None),
        ("bypassed", "5", None),
        ("muted", "8", None),
        ("muted", "9", None),
        ("link_off", "10", "input_data"),
    },
    "nested_subgraphs": {("bypassed", "3", None), ("muted", "4", None), ("link_lost", "6", "images")},
}


@pytest.mark.asyncio(loop_scope="class")
class TestConversionsBesideTheEditor:
    """The prompts are those of an editor page, and what the frontend left out is told."""

    @pytest.mark.parametrize("case", CASES)
    async def test_conversion_is_the_editors_own_export_and_its_losses_are_told(
        self, troubled: ComfyConnector, editor: Any, kind: str, case: str
    ) -> None:
        workflow = CASES[case]()
        exported = await editor.evaluate(EXPORT, workflow)
        prompt = await troubled.get_prompt_from_workflow(workflow)
        notes = await troubled.explain_conversion(workflow)
        # The one thing that differs: nulls in subgraphs, and they are told.
        replaced = {(note.node_id, note.input) for note in notes if note.kind == "null_replaced"}
        nulls = {(i, name) for i, node in exported.items() for name, v in node["inputs"].items() if v is None}
        assert replaced == {(node_id, name) for node_id, name in nulls if ":" in node_id}
        for node_id, name in replaced:
            exported[node_id]["inputs"][name] = prompt[node_id]["inputs"][name]
            assert prompt[node_id]["inputs"][name] == {"seed": 5, "steps": 30, "cfg": 7.5}[name]
        assert prompt == exported
        assert all(node["class_type"] in troubled._frontend[1] for node in prompt.values())  # type: ignore[index]
        if kind == "embedded":
            assert said(notes) == NOTES.get(case, set())
        elif case == "nested_subgraphs":  # older frontends execute what is in a subgraph that is muted or bypassed
            told = said(notes)
            runs = {i.partition(":")[0] for i in prompt} & {"3", "4"}
            assert {i for i, mode in (("3", "bypassed"), ("4", "muted")) if (mode, i, None) in told} == {
                "3",
                "4",
            } - runs
            assert {i for note, i, _ in told if note == "runs_although_off"} == runs
        elif case not in ("promoted widgets", "named values"):
            assert said(notes) == NOTES.get(case, set())

    async def test_unknown_nodes_are_named_wherever_they_are(self, troubled: ComfyConnector, editor: Any) -> None:
        """The editor exports them without a class_type; in subgraphs some frontends give them another number, too."""
        definition = subgraph([seed_node(3, type="NobodyHasThis", title="My fancy")], [[99, 3, 0, -20, 0, "INT"]])
        other = {**copy.deepcopy(definition), "id": "3d44e000-4444-4444-8444-333333333333"}
        hosts = [seed_node(i, (), type=d["id"], inputs=[]) for i, d in ((1, definition), (2, other))]
        links = [[1, 1, 0, 4, 0, "INT"], [2, 2, 0, 5, 0, "INT"]]
        workflow = flow(
            [*hosts, show_node(4, 1), show_node(5, 2), seed_node(6, type="NobodyHasThis", title="My fancy")],
            links,
            definitions={"subgraphs": [definition, other]},
        )
        exported = await editor.evaluate(EXPORT, workflow)
        unknown = {node_id for node_id, node in exported.items() if node.get("class_type") is None}
        with pytest.raises(cs.UnknownNodeError) as caught:
            await troubled.get_prompt_from_workflow(workflow)
        assert len(unknown) == 3
        assert caught.value.unknown == dict.fromkeys(unknown, "NobodyHasThis")
        assert str(caught.value).count("('My fancy')") == 3

    async def test_dialogs_toasts_and_popups_do_not_block(
        self, troubled: ComfyConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await troubled._restart_browser()
        monkeypatch.setattr(troubled, "config", dataclasses.replace(troubled.config, CONVERSIONS_PER_PAGE=1))
        assert troubled._page is not None
        monkeypatch.setattr(troubled._page, "config", troubled.config)
        for number in range(2):
            workflow = flow([seed_node(1, (number, "fixed", 8, 1.0, "heun", False), title=f"alert {time.time()}")], [])
            begun = time.monotonic()
            prompt = await troubled.get_prompt_from_workflow(workflow)
            assert prompt["1"]["inputs"]["seed"] == number
            assert time.monotonic() - begun < 20
            page = troubled._page._page
            # All that the pack opens is there; somebody has clicked, so that the page may ask whether to leave it.
            assert await page.evaluate("document.querySelectorAll('dialog[open]').length") == 1
            await page.mouse.click(5, 5)
        assert await page.evaluate("sessionStorage.asked") == "1"

    async def test_each_note_is_logged_once_for_a_workflow_whatever_its_values(
        self, troubled: ComfyConnector, caplog: pytest.LogCaptureFixture
    ) -> None:
        def logged() -> list[tuple[int, str]]:
            lines = [(r.levelno, r.getMessage()) for r in caplog.records if r.getMessage().startswith("Conversion: ")]
            caplog.clear()
            return lines

        caplog.set_level("INFO", "discomfort")
        nodes = [seed_node(1, mode=2), seed_node(2), show_node(3, 1)]
        workflow = flow(nodes, [[1, 1, 0, 3, 0, "INT"]])
        await troubled.get_prompt_from_workflow(workflow)
        assert logged() == [
            (20, "Conversion: TestsSeed #1 is muted: it is left out, as if it did not exist."),
            (
                30,
                "Conversion: TestsShow #3 loses the link to its input 'value': it comes from TestsSeed #1, which is "
                "muted.",
            ),
        ]
        await troubled.get_prompt_from_workflow(workflow)  # from the store
        for seed in (71, 72):  # as a loop may do
            workflow["nodes"][1]["widgets_values"][0] = seed
            prompt = await troubled.get_prompt_from_workflow(workflow)
            assert prompt["2"]["inputs"]["seed"] == seed
        assert not logged()
        workflow["nodes"][1]["mode"] = 4
        await troubled.get_prompt_from_workflow(workflow)
        assert len(logged()) == 3  # another workflow

    async def test_notes_are_kept_with_a_stored_conversion_and_told_once_in_each_life(
        self, troubled: ComfyConnector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workflow = CASES["switched off"]()
        notes = await troubled.explain_conversion(workflow)
        assert notes
        # A later process begins with nothing in memory, and nothing said.
        monkeypatch.setattr(troubled, "_store", cs.ConversionStore(on_disk=True))
        monkeypatch.setattr(troubled, "_reported", set())
        await troubled._close_page()
        caplog.set_level("INFO", "discomfort")
        for _ in range(2):
            assert await troubled.explain_conversion(workflow) == notes
            await troubled.get_prompt_from_workflow(workflow)
        assert not browsers_of(troubled)
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Conversion: ")]
        assert lines == [f"Conversion: {note.text}" for note in notes]
        assert json.loads(json.dumps([dataclasses.asdict(note) for note in notes]))[0]["node_id"] == notes[0].node_id

    async def test_page_that_hangs_is_a_timeout_and_the_next_conversion_has_a_fresh_browser(
        self, troubled: ComfyConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await troubled.get_prompt_from_workflow(flow([seed_node(1, title=f"warm {time.time()}")], []))
        before = {process.pid for process in browsers_of(troubled)}
        assert before
        with monkeypatch.context() as patch:
            short = dataclasses.replace(troubled.config, CONVERSION_TIMEOUT=1.0, CONVERSION_ATTEMPTS=2)
            patch.setattr(troubled, "config", short)
            begun = time.monotonic()
            with pytest.raises(cs.ConversionTimeoutError, match="longer than 1 s"):
                await troubled.get_prompt_from_workflow(flow([seed_node(1, title="for ever")], []))
            took = time.monotonic() - begun
        assert 2 <= took < 20
        assert not browsers_of(troubled)
        prompt = await troubled.get_prompt_from_workflow(flow([seed_node(1, title=f"after {time.time()}")], []))
        assert prompt["1"]["inputs"]["seed"] == 5
        assert not before & {process.pid for process in browsers_of(troubled)}

    async def test_changed_script_of_a_pack_is_seen_after_a_restart(
        self, troubled: ComfyConnector, pack_script: Path
    ) -> None:
        async def seed() -> int:
            number: int = (await troubled.get_prompt_from_workflow(workflow))["1"]["inputs"]["seed"]
            return number

        async def restart() -> None:
            assert troubled._server is not None
            os.kill(troubled._server.pid or 0, signal.SIGKILL)
            await until(lambda: troubled._server is None or not troubled._server.is_alive)

        workflow = flow([seed_node(1, title="versioned")], [])
        assert await seed() == 1
        await restart()
        assert await seed() == 1
        assert not browsers_of(troubled)  # the store had it
        await asyncio.to_thread(pack_script.write_text, PACK_SCRIPT.replace("VERSION = 1", "VERSION = 2"))
        await restart()
        assert await seed() == 2
        assert browsers_of(troubled)


def browsers_of(connector: ComfyConnector) -> list[psutil.Process]:
    """The connector's browser processes; a test may have a browser of its own beside them."""
    assert connector._folder is not None
    temp_folder = str(connector._folder.path / "b")
    return [p for p in browsers() if any(temp_folder in argument for argument in p.cmdline())]
