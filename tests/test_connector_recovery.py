"""ComfyConnector recovers: faults of servers that work, the embedded one and the real ComfyUI of COMFYUI_PATH.

Faults that only a scripted server can have are in test_connector_faults.py and test_connector_attacks.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector

from discomfort import comfy_serverless as cs

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX"),
    pytest.mark.usefixtures("strict_loop"),
]

TESTS = Path(__file__).resolve().parent
BOTH = ["embedded", pytest.param("real", marks=pytest.mark.real_comfyui)]
# Long enough to be killed, stopped or interrupted in: a chain of blurs.
LONG = 40


def picture(color: int, size: int = 16) -> dict[str, Any]:
    """A prompt: a picture of one colour."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def blurs(count: int, color: int, size: int = 1024) -> dict[str, Any]:
    """A prompt that computes for a while, node by node."""
    prompt = picture(color, size)
    last = "1"
    for i in range(10, 10 + count):
        prompt[str(i)] = {"class_type": "ImageBlur", "inputs": {"image": [last, 0], "blur_radius": 31, "sigma": 10.0}}
        last = str(i)
    prompt["2"]["inputs"]["images"] = [last, 0]
    return prompt


def tiny(name: str, **inputs: Any) -> dict[str, Any]:
    """A prompt: one node of the tests' own package, and one that shows what it gives."""
    return {
        "1": {"class_type": name, "inputs": inputs},
        "2": {"class_type": "TinyShow", "inputs": {"value": ["1", 0]}},
    }


async def run(connector: ComfyConnector, prompt: dict[str, Any], **more: Any) -> Any:
    """Run a prompt; returns its history entry."""
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False, **more)).values()
    return entry


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


async def ended(connector: ComfyConnector, nested: Any) -> None:
    await connector.kill_api()
    assert not nested.processes()
    assert not nested.folders()


class Colors:
    """Colours that no prompt had before: what is cached cannot be disturbed."""

    last = 0

    @classmethod
    def fresh(cls) -> int:
        cls.last += 1
        return cls.last


# ---- the server and the browser ----


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def shared(
    kind: str, request: pytest.FixtureRequest, write_config: Callable[..., Path], nested: Any
) -> AsyncIterator[ComfyConnector]:
    """A connector that the tests of a class share; whatever one does to it, the next one finds it working."""
    place = "embedded" if kind == "embedded" else str(request.getfixturevalue("real_comfyui"))
    keys = {"COMFYUI_PATH": place, "DEVICE": "cpu", "STORE_CONVERSIONS": False, "REQUEST_TIMEOUT": 3.0}
    connector = await ComfyConnector.create(write_config(**keys))
    yield connector
    await ended(connector, nested)


@pytest.mark.asyncio(loop_scope="class")
class TestRecovery:
    """Kills and freezes on a server of each kind."""

    @pytest_asyncio.fixture(loop_scope="class")
    async def connector(self, shared: ComfyConnector) -> AsyncIterator[ComfyConnector]:
        yield shared
        assert (await run(shared, picture(Colors.fresh())))["outputs"]["2"]["images"]
        assert shared.state == "ready"

    def pid(self, connector: ComfyConnector) -> int:
        assert connector._server is not None
        return connector._server.pid or 0

    async def begin(self, connector: ComfyConnector) -> asyncio.Task[Any]:
        """A run whose first node is being executed."""
        seen: list[str] = []
        prompt = blurs(LONG, Colors.fresh())
        task = asyncio.create_task(run(connector, prompt, on_event=lambda event: seen.append(event.type)))
        await until(lambda: "executing" in seen)
        return task

    async def test_hundred_runs_at_once_get_each_its_own_result(self, connector: ComfyConnector) -> None:
        colors = [Colors.fresh() for _ in range(100)]
        entries = await asyncio.gather(*(run(connector, picture(color)) for color in colors))
        assert [entry["prompt"][2]["1"]["inputs"]["color"] for entry in entries] == colors
        assert len({entry["outputs"]["2"]["images"][0]["filename"] for entry in entries}) == 100
        assert len({entry["prompt"][1] for entry in entries}) == 100

    async def test_server_stopped_and_continued_finishes_its_run(self, connector: ComfyConnector) -> None:
        pid = self.pid(connector)
        seen: list[str] = []
        prompt = blurs(6, Colors.fresh(), size=512)
        task = asyncio.create_task(run(connector, prompt, on_event=lambda event: seen.append(event.type)))
        await until(lambda: "executing" in seen)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.5)
            assert not task.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await asyncio.wait_for(task, 60))["outputs"]["2"]["images"]
        assert self.pid(connector) == pid

    @pytest.mark.parametrize("when", ["before", "during", "after"])
    async def test_server_killed_before_during_and_after_a_run(self, connector: ComfyConnector, when: str) -> None:
        pid = self.pid(connector)
        if when == "during":
            task = await self.begin(connector)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(cs.ServerDiedError, match="by signal 9"):
                await asyncio.wait_for(task, 15)
        elif when == "after":
            await run(connector, picture(Colors.fresh()))
            os.kill(pid, signal.SIGKILL)
            await until(lambda: connector._server is not None and not connector._server.is_alive)
        else:
            os.kill(pid, signal.SIGKILL)
        assert (await run(connector, picture(Colors.fresh())))["outputs"]
        assert self.pid(connector) != pid

    async def test_frozen_server_is_given_up_and_the_next_call_restarts_it(
        self, connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = self.pid(connector)
        task = await self.begin(connector)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(cs.ServerDiedError, match="has not answered for"):
            await asyncio.wait_for(task, 40)
        assert (await run(connector, picture(Colors.fresh())))["outputs"]
        assert self.pid(connector) != pid

    @pytest.mark.parametrize("what", ["browser", "page"])
    async def test_browser_or_page_killed_during_a_conversion(self, connector: ComfyConnector, what: str) -> None:
        workflow = json.loads((TESTS.parent / "test_server.json").read_text())
        workflow["nodes"][0]["widgets_values"] = [64, 64, 1, Colors.fresh()]
        expected = await connector.get_prompt_from_workflow(workflow)
        workflow["nodes"][0]["widgets_values"] = [64, 64, 1, Colors.fresh()]  # not in the store
        expected["1"]["inputs"]["color"] = Colors.last
        assert connector._page is not None
        await connector._page.discard_page()  # the next conversion loads it, which takes seconds
        task = asyncio.create_task(connector.get_prompt_from_workflow(workflow))
        await until(lambda: connector._page is not None and connector._page._page is not None)
        await asyncio.sleep(0.2)
        assert not task.done()
        for process in browsers():
            with contextlib.suppress(psutil.NoSuchProcess):
                if what == "browser" or "--type=renderer" in process.cmdline():
                    process.kill()
        assert await asyncio.wait_for(task, 60) == expected


# ---- the websocket and the nodes ----


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def proxied(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    write_config: Callable[..., Path],
    nested: Any,
) -> AsyncIterator[tuple[ComfyConnector, Any]]:
    """(connector, the program between it and its server, which can cut the websocket)."""
    spec = importlib.util.spec_from_file_location("cutting_proxy", TESTS / "cutting_proxy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    packs = tmp_path_factory.mktemp("packs")
    shutil.copytree(TESTS / "conformance/pack", packs / "embedded_pack")
    path = tmp_path_factory.mktemp("proxied") / "tree"
    if kind == "embedded":
        flags = "--port --disable-auto-launch --temp-directory --database-url --cache-lru --cpu"
        flags = " ".join(f'"{flag}"' for flag in flags.split())
        tree = module.ProxiedTree(path, [sys.executable, "-m", "discomfort.embedded"], None, flags, packs)
    else:
        real: Path = request.getfixturevalue("real_comfyui")
        python, _ = cs._interpreter_for(real, cs.ConnectorConfig())
        flags = (real / "comfy" / "cli_args.py").read_text()
        tree = module.ProxiedTree(path, [python, "main.py"], real, flags, packs)
    connector = await ComfyConnector.create(write_config(COMFYUI_PATH=str(path), DEVICE="cpu"))
    yield connector, tree
    await ended(connector, nested)


@pytest.mark.asyncio(loop_scope="class")
class TestMessages:
    """What a run makes of lost messages and of nodes that fail, on a server of each kind."""

    KINDS = (
        "status", "execution_start", "execution_cached", "progress_state", "executing", "progress", "preview",
        "executed", "execution_success", "done",
    )  # fmt: skip

    @pytest_asyncio.fixture(loop_scope="class")
    async def connector(self, proxied: tuple[ComfyConnector, Any]) -> AsyncIterator[ComfyConnector]:
        connector = proxied[0]
        await connector._ensure_fresh_websocket()
        await until(lambda: connector._events.is_connected)
        yield connector
        proxied[1].cut_after("")
        assert await run(connector, tiny("TinySteps", steps=1, seconds=0, preview=False, seed=Colors.fresh()))
        assert connector.state == "ready"

    @pytest.fixture
    def tree(self, proxied: tuple[ComfyConnector, Any]) -> Any:
        return proxied[1]

    @pytest.mark.parametrize("kind_of_message", KINDS)
    async def test_run_ends_when_the_websocket_is_cut_after_each_kind_of_message(
        self, connector: ComfyConnector, tree: Any, kind_of_message: str
    ) -> None:
        seen: list[str] = []
        unsubscribe = connector._events.subscribe(lambda event: seen.append(event.type))
        tree.cut_after(kind_of_message)
        started = time.monotonic()
        entry = await run(connector, tiny("TinySteps", steps=2, seconds=0.05, preview=True, seed=Colors.fresh()))
        assert entry["status"]["status_str"] == "success"
        assert entry["outputs"]["2"]
        assert time.monotonic() - started < 5
        await until(lambda: "disconnected" in seen)
        last = seen[seen.index("disconnected") - 1]
        assert last == {"done": "executing"}.get(kind_of_message, kind_of_message)
        await until(lambda: connector._events.is_connected)
        unsubscribe()

    async def test_node_error_is_told_although_its_message_cut_the_websocket(
        self, connector: ComfyConnector, tree: Any
    ) -> None:
        tree.cut_after("execution_error")
        with pytest.raises(cs.NodeExecutionError, match="Node TinyFail #1 failed: ValueError: boom"):
            await asyncio.wait_for(run(connector, tiny("TinyFail", a=Colors.fresh(), what="value")), 15)
        await until(lambda: connector._events.is_connected)

    async def test_interruption_is_told_although_its_message_cut_the_websocket(
        self, connector: ComfyConnector, tree: Any
    ) -> None:
        seen: list[str] = []
        tree.cut_after("execution_interrupted")
        spin = tiny("TinySpin", seconds=30.0, seed=Colors.fresh())
        task = asyncio.create_task(run(connector, spin, on_event=lambda event: seen.append(event.type)))
        await until(lambda: "executing" in seen)
        await connector.interrupt()
        with pytest.raises(cs.PromptInterruptedError, match="at node TinySpin #1"):
            await asyncio.wait_for(task, 15)
        await until(lambda: connector._events.is_connected)

    async def test_cancelled_run_is_interrupted(self, connector: ComfyConnector) -> None:
        seen: list[str] = []
        spin = tiny("TinySpin", seconds=30.0, seed=Colors.fresh())
        task = asyncio.create_task(run(connector, spin, on_event=lambda event: seen.append(event.type)))
        await until(lambda: "executing" in seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline = time.monotonic() + 5
        while await connector._get_object("/queue") != {"queue_running": [], "queue_pending": []}:
            assert time.monotonic() < deadline, "the prompt runs on"
            await asyncio.sleep(0.05)

    async def test_node_out_of_memory_is_its_own_error(self, connector: ComfyConnector) -> None:
        with pytest.raises(cs.OutOfMemoryError) as caught:
            await run(connector, tiny("TinyFail", a=Colors.fresh(), what="memory"))
        assert (caught.value.node_id, caught.value.class_type) == ("1", "TinyFail")
        assert caught.value.exception_type.endswith("OutOfMemoryError")


# ---- orchestrators that die ----

LIFE = """
import asyncio, sys
from discomfort.comfy_serverless import ComfyConnector

config, workflow = sys.argv[1:]

def picture(size):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": size}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 10.0}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }

async def main():
    print("starting", flush=True)
    connector = await ComfyConnector.create(config)
    print("ready", flush=True)
    await connector.run_workflow(picture(64), False)
    print("converting", flush=True)
    await connector.get_prompt_from_workflow(__import__("json").load(open(workflow)))
    print("running", flush=True)
    for size in range(1024, 4096):
        await connector.run_workflow(picture(size), False)

asyncio.run(main())
"""


@pytest.mark.usefixtures("no_leaks")
def test_killed_orchestrator_leaves_nothing_for_longer_than_five_seconds(
    kind: str, request: pytest.FixtureRequest, write_config: Callable[..., Path], left_of_killed: Callable[..., str]
) -> None:
    """One kill in each part of a life, two lives at once."""
    place = "embedded" if kind == "embedded" else str(request.getfixturevalue("real_comfyui"))
    config = write_config(COMFYUI_PATH=place, DEVICE="cpu", STORE_CONVERSIONS=False)

    def life(part: str) -> str:
        return left_of_killed([LIFE, str(config), str(TESTS.parent / "test_server.json")], part, 0.5)

    with ThreadPoolExecutor(2) as pool:
        assert not [left for left in pool.map(life, ("starting", "ready", "converting", "running")) if left]
