"""ComfyConnector under attack: peers that lie, callers that cancel at every step, helpers that are killed.

As in test_connector_faults.py the peer is tests/fake_comfyui.py, a real process. Whatever happens ends in the right
answer or in a ConnectorError, leaves nothing behind, and the next call works.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from discomfort.comfy_serverless import ComfyConnector

from discomfort import comfy_serverless as cs

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX"),
    pytest.mark.usefixtures("strict_loop"),
]

Start = Callable[..., Any]


def echo(value: Any = "hello") -> dict[str, Any]:
    return {"1": {"class_type": "Echo", "inputs": {"value": value}}}


def sleep(seconds: float) -> dict[str, Any]:
    return {"1": {"class_type": "Sleep", "inputs": {"seconds": seconds}}}


def workflow(value: Any = "hello", **node: Any) -> dict[str, Any]:
    return {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": value}, **node}], "links": []}


def converted(value: Any = "hello") -> dict[str, Any]:
    return {"1": {"class_type": "Echo", "inputs": {"value": value}, "_meta": {"title": "Echo"}}}


async def run(connector: ComfyConnector, prompt: dict[str, Any]) -> Any:
    """Run a prompt; returns the outputs of its nodes."""
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False)).values()
    return entry["outputs"]


async def assert_works(connector: ComfyConnector, within: float = 10.0) -> None:
    assert await asyncio.wait_for(run(connector, echo("works")), within) == {"1": {"text": ["works"]}}
    assert connector.state == "ready"


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


DEEP = "[" * 100_000


# ---- lies ----


@pytest.mark.parametrize(
    "answer", ['{"system": {"argv": 5}}', '{"system": {"argv": {}}}', "[]", "null", "5", "{", DEEP]
)
async def test_nonsense_of_a_starting_server_is_no_answer(start: Start, fake_tree: Any, answer: str) -> None:
    fake_tree.behave(lie={"/system_stats": answer})
    with pytest.raises(cs.ServerStartError, match="did not answer within 1 s"):
        await start(START_TIMEOUT=1.0, STOP_TIMEOUT=0.5)
    fake_tree.behave()
    await assert_works(await start())


FAILED = '{"PROMPT_ID": {"outputs": {}, "status": {"status_str": "error", "messages": %s}}}'


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ('{"PROMPT_ID": {}}', cs.ConnectorError, "without a reason"),
        ('{"PROMPT_ID": {"status": null}}', cs.ConnectorError, "without a reason"),
        ('{"PROMPT_ID": {"status": "error"}}', cs.ConnectorError, "cannot be read: 'error'"),
        ('{"PROMPT_ID": {"status": ["success"]}}', cs.ConnectorError, "cannot be read"),
        (FAILED % "5", cs.ConnectorError, "without a reason"),
        (FAILED % '[null, 5, [], ["execution_error"], ["execution_error", null]]', cs.ConnectorError, "without a rea"),
        (FAILED % '[["execution_error", {}]]', cs.NodeExecutionError, "failed"),
        (FAILED % '[["execution_error", {"traceback": 5, "node_id": []}]]', cs.NodeExecutionError, "failed"),
        (FAILED % '[["execution_error", {"traceback": [1, null]}]]', cs.NodeExecutionError, "failed"),
        (FAILED % '[["execution_interrupted", {}]]', cs.PromptInterruptedError, "interrupted"),
        ('{"PROMPT_ID": null}', cs.ServerDiedError, "no longer knows the prompt"),
        ('{"another": {"status": {"status_str": "success"}}}', cs.ServerDiedError, "no longer knows the prompt"),
        ("[]", cs.ServerDiedError, "has not answered"),
        (DEEP, cs.ServerDiedError, "has not answered"),
    ],
)
async def test_history_that_lies_is_an_error_of_ours_and_the_next_run_works(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch, answer: str, error: type[Exception], says: str
) -> None:
    monkeypatch.setattr(cs, "_FORGOTTEN_AFTER", 0.5)
    connector = await start(REQUEST_TIMEOUT=1.0)
    fake_tree.behave(lie={"/history": answer})
    with pytest.raises(error, match=says) as caught:
        await asyncio.wait_for(run(connector, {"1": {**echo()["1"], "_meta": "no object"}}), 10)
    assert str(caught.value)
    fake_tree.behave()
    await assert_works(connector)


async def test_queue_that_lies_for_a_while_does_not_fail_a_run(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_WEBSOCKET_PATIENCE", 0.2)
    fake_tree.behave(websocket="refuse")  # without a socket the queue is asked twice a second
    connector = await start()
    task = asyncio.create_task(run(connector, sleep(60)))
    await until(lambda: fake_tree.requests("/prompt"))
    nested = '{"queue_running": [null], "queue_pending": [[]]}'
    for answer in ("[]", "{}", "null", '{"queue_running": 5}', nested, "{", DEEP):
        fake_tree.behave(websocket="refuse", lie={"/queue": answer})
        before = len(fake_tree.requests("/queue"))
        await until(lambda before=before: len(fake_tree.requests("/queue")) > before + 1)
        assert not task.done()
    fake_tree.behave(websocket="refuse")
    await connector.interrupt()
    with pytest.raises(cs.PromptInterruptedError):
        await task


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "null",
        "{",
        DEEP,
        '{"node_errors": [1]}',
        '{"node_errors": {"1": 5}}',
        '{"node_errors": {"1": {"errors": 1}}}',
    ],
)
async def test_answer_to_a_prompt_that_cannot_be_read_is_a_rejection(start: Start, fake_tree: Any, answer: str) -> None:
    connector = await start()
    fake_tree.behave(lie={"/prompt": answer})
    with pytest.raises(cs.PromptRejectedError):
        await run(connector, {"1": {**echo()["1"], "_meta": "no object"}})
    fake_tree.behave()
    await assert_works(connector)


@pytest.mark.parametrize(
    "lie",
    [
        {"/object_info": "[]"},
        {"/object_info": "{"},
        {"/extensions": "{}"},
        {"/extensions": "null"},
        {"/object_info": DEEP},
    ],
    ids=str,
)
async def test_definitions_that_lie_are_an_error_of_ours(start: Start, fake_tree: Any, lie: dict[str, str]) -> None:
    connector = await start()
    fake_tree.behave(lie=lie)
    with pytest.raises(cs.ConnectorError):
        await connector.get_prompt_from_workflow(workflow())
    if "/object_info" in lie:
        with pytest.raises(cs.ConnectorError):
            await connector.object_info()
    fake_tree.behave()
    assert await connector.object_info()
    assert await connector.get_prompt_from_workflow(workflow()) == converted()


@pytest.mark.parametrize("kind", ["lie", "nothing"])
async def test_frontend_that_exports_no_prompt_is_a_conversion_error(start: Start, fake_tree: Any, kind: str) -> None:
    connector = await start(CONVERSION_ATTEMPTS=1)
    fake_tree.behave(frontend=kind)
    with pytest.raises(cs.ConversionError, match="cannot convert this workflow"):
        await connector.get_prompt_from_workflow(workflow())


async def test_garbage_on_the_websocket_is_ignored(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(websocket="garbage")
    connector = await start()
    seen: list[str] = []
    connector._events.subscribe(lambda event: seen.append(event.type))
    for _ in range(2):
        await assert_works(connector)
    assert "executed" in seen
    assert "disconnected" not in seen


async def test_prompt_that_the_server_gave_another_id_is_followed_and_taken_back_under_that(
    start: Start, fake_tree: Any
) -> None:
    connector = await start()
    fake_tree.behave(own_ids=True)
    assert await connector.run_workflow(echo(), use_workflow_json=False)
    (entry,) = (await connector.run_workflow(echo(2), use_workflow_json=False)).items()
    assert entry[0] == "own-1"
    assert entry[1]["outputs"] == {"1": {"text": [2]}}
    task = asyncio.create_task(run(connector, sleep(30)))
    await until(lambda: len(fake_tree.requests("/prompt")) == 3)
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    await assert_works(connector, within=3)


@pytest.mark.parametrize("path", ["/history", "/queue", "/prompt", "/object_info", "/extensions", "/system_stats"])
async def test_connection_cut_in_the_middle_of_an_answer(start: Start, fake_tree: Any, path: str) -> None:
    if path == "/system_stats":
        fake_tree.behave(close={path: 3})
    connector = await start()
    if path != "/system_stats":
        fake_tree.behave(close={path: 1})
    if path in ("/history", "/queue", "/prompt", "/system_stats"):
        assert await run(connector, sleep(1.2 if path == "/queue" else 0)) is not None
    else:
        with pytest.raises(cs.ConnectorError):
            await connector.get_prompt_from_workflow(workflow())
        assert await connector.get_prompt_from_workflow(workflow()) == converted()
    await assert_works(connector)
    assert len(fake_tree.starts()) == 1


async def test_prompt_whose_answer_came_too_late_is_taken_back(start: Start, fake_tree: Any) -> None:
    """The server has it, though nobody follows it: it must not run before the next one."""
    connector = await start(REQUEST_TIMEOUT=1.0)
    await assert_works(connector)
    fake_tree.behave(delay={"/prompt": 2.5})
    with pytest.raises(cs.ServerDiedError):
        await run(connector, sleep(30))
    fake_tree.behave()
    await asyncio.sleep(1.0)  # now it has arrived
    await assert_works(connector, within=3)
    assert len(fake_tree.starts()) == 1


async def test_huge_answers_and_prompts_are_fine(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(max_body=1 << 30)
    connector = await start()
    value = "x" * 20_000_000
    asyncio.get_running_loop().slow_callback_duration = 2.0  # 20 MB of JSON do hold the loop for a while
    outputs = await asyncio.wait_for(run(connector, echo(value)), 20)
    assert outputs["1"]["text"] == [value]
    await assert_works(connector)


@pytest.mark.parametrize("value", ["cut \ud83d", "\0", "\u2028", 1e400, float("nan"), 2**80, {"__proto__": 1}])
async def test_odd_values_of_a_workflow_are_converted_or_complained_about(start: Start, value: Any) -> None:
    connector = await start()
    with contextlib.suppress(cs.ConversionError):
        assert list(await connector.get_prompt_from_workflow(workflow(value))) == ["1"]
    assert await connector.get_prompt_from_workflow(workflow("plain")) == converted("plain")


# ---- servers that freeze ----


async def test_frozen_idle_server_is_found_out_by_a_run_and_restarted_by_the_next(start: Start, fake_tree: Any) -> None:
    connector = await start(REQUEST_TIMEOUT=1.0)
    await assert_works(connector)
    await until(lambda: fake_tree.requests("/history") and "POST" in fake_tree.requests("/history")[-1])  # really idle
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(cs.ServerDiedError):
        await run(connector, echo())
    assert time.monotonic() - started < 6
    await assert_works(connector)
    assert len(fake_tree.starts()) == 2


async def test_frozen_server_is_restarted_for_a_conversion(start: Start, fake_tree: Any) -> None:
    connector = await start(REQUEST_TIMEOUT=1.0, CONVERSION_TIMEOUT=6.0)
    assert await connector.get_prompt_from_workflow(workflow(1)) == converted(1)
    assert connector._page is not None
    await connector._page.discard_page()  # the next one asks the server
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGSTOP)
    assert await asyncio.wait_for(connector.get_prompt_from_workflow(workflow(2)), 25) == converted(2)
    assert len(fake_tree.starts()) == 2


# ---- callers that cancel ----


class Stepper(Coroutine[Any, Any, Any]):
    """A coroutine that tells each time that it waits for something."""

    def __init__(self, inner: Any, tell: Callable[[], None]):
        self.inner = inner
        self.tell = tell

    def send(self, value: Any) -> Any:
        result = self.inner.send(value)
        self.tell()
        return result

    def throw(self, *error: Any) -> Any:
        result = self.inner.throw(*error)
        self.tell()
        return result

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        return self.inner.__await__()


async def cancelled_at(step: int, work: Callable[[], Any]) -> bool:
    """Do *work* in a task and cancel it when it, or a task that it started, waits for the *step*-th time.

    Returns False when it was over before.
    """
    loop = asyncio.get_running_loop()
    count = 0
    task: Any = None

    def tell() -> None:
        nonlocal count
        count += 1
        if count == step:
            loop.call_soon(task.cancel)

    def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
        return asyncio.Task(Stepper(coroutine, tell), loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        task = loop.create_task(work())
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(None)
    if task.cancelled():
        return True
    task.result()
    return False


def growing(limit: int) -> Iterator[int]:
    """1, 2, 3, ... and then ever larger steps."""
    step = 1.0
    while step < limit:
        yield int(step)
        step = max(step + 1, step * 1.15)


async def test_create_cancelled_at_any_step_leaves_nothing_and_the_next_one_works(
    start: Start, fake_tree: Any, nested: Any
) -> None:
    done = 0
    for step in growing(2000):
        if not await cancelled_at(step, start):
            done += 1
            connector = cs._process_state().connector
            await assert_works(connector)
            await connector.kill_api()
            if done == 2:
                break
        assert not nested.processes(), step
        assert not nested.folders(), step
    assert done == 2
    await assert_works(await start())


async def test_run_cancelled_at_any_step_leaves_a_server_that_works(start: Start, fake_tree: Any) -> None:
    connector = await start()
    for step in growing(2000):
        if not await cancelled_at(step, lambda: run(connector, sleep(0.02))):
            break
        queue = await connector._get_object("/queue")
        assert queue == {"queue_running": [], "queue_pending": []}, step
        await assert_works(connector, within=3)
    assert len(fake_tree.starts()) == 1
    deadline = time.monotonic() + 5
    while await connector._get_object("/history"):
        assert time.monotonic() < deadline, "entries of cancelled runs are left"
        await asyncio.sleep(0.05)


async def test_kill_cancelled_at_any_step_leaves_nothing_and_the_next_create_works(
    start: Start, fake_tree: Any, nested: Any
) -> None:
    for step in growing(2000):
        connector = await start()
        await assert_works(connector)
        was_cancelled = await cancelled_at(step, connector.kill_api)
        assert connector.state == "killed", step
        assert not nested.processes(), step
        assert not nested.folders(), step
        if not was_cancelled:
            break


async def test_conversion_cancelled_at_any_step_leaves_a_connector_that_converts(start: Start) -> None:
    connector = await start(STORE_CONVERSIONS=False)
    for number, step in enumerate(growing(5000)):
        if number % 3 == 0:
            await connector._close_page()
        given = workflow(f"cancelled {number}")
        if not await cancelled_at(step, functools.partial(connector.get_prompt_from_workflow, given)):
            break
    assert await connector.get_prompt_from_workflow(workflow("after")) == converted("after")


async def test_run_and_create_cancelled_together_with_a_kill(start: Start, nested: Any) -> None:
    """Whatever comes first: everybody gets an answer, and nothing is left."""
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3):
        tasks = [asyncio.create_task(start()), asyncio.create_task(start())]
        await asyncio.sleep(delay)
        connector = cs._process_state().connector
        tasks.append(asyncio.create_task(connector.kill_api()))
        tasks.append(asyncio.create_task(run(connector, echo())))
        await asyncio.sleep(delay / 3)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks, timeout=10)
        assert all(task.done() for task in tasks)
        error = tasks[3].exception()
        assert error is None or isinstance(error, cs.ConnectorError)
        connector = cs._process_state().connector
        await connector.kill_api()
        assert not nested.processes()
        assert not nested.folders()


# ---- helpers that are killed ----

ORCHESTRATOR = """
import asyncio, sys
from discomfort.comfy_serverless import ComfyConnector

async def main():
    connector = await ComfyConnector.create(sys.argv[1])
    workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": 1}}], "links": []}
    await connector.get_prompt_from_workflow(workflow)
    for line in sys.stdin:
        await connector.run_workflow({"1": {"class_type": "Echo", "inputs": {"value": line}}}, False)
        print("done", flush=True)

asyncio.run(main())
"""


class Orchestrator:
    """A script that runs a prompt whenever it is told to."""

    def __init__(self, config: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", ORCHESTRATOR, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", self.process.communicate()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.communicate()


@pytest.fixture
def orchestrator(
    fake_tree: Any, write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> Iterator[Orchestrator]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    orchestrator = Orchestrator(write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu"))
    orchestrator.run()
    yield orchestrator
    orchestrator.kill()


def guards(nested: Any) -> list[psutil.Process]:
    return [process for process in nested.processes() if "-I" in process.cmdline()]


def test_killed_guard_is_replaced_by_the_next_run_and_does_its_predecessors_work(
    orchestrator: Orchestrator, nested: Any, wait_for: Callable[..., Any]
) -> None:
    for _ in range(2):
        (old,) = guards(nested)
        old.kill()
        wait_for(lambda old=old: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE)
        orchestrator.run()
        (new,) = guards(nested)
        assert new.pid != old.pid
    orchestrator.kill()
    wait_for(lambda: not nested.processes() and not nested.folders(), 5, "the end of what it left")


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("moment", ["make_locked_folder", "replace", "mkdir"])
def test_orchestrator_killed_while_it_makes_its_folder_leaves_nothing(
    nested: Any, wait_for: Callable[..., Any], moment: str
) -> None:
    """Before the folder exists, while it has its hidden name, and as soon as it has its own."""
    target = {"make_locked_folder": "cs.make_locked_folder", "replace": "os.replace", "mkdir": "pathlib.Path.mkdir"}
    script = (
        "import os, pathlib, signal, sys\n"
        "from discomfort import comfy_serverless as cs\n"
        "cs.servers_root()\n"
        "folder = cs.RuntimeFolder()\n"
        "def die(*args, **more):\n"
        "    if sys.argv[1] != 'mkdir' or folder.path.exists():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args, **more)\n"
        f"real, {target[moment]} = {target[moment]}, die\n"
        "folder.open()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, moment], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    root = Path(os.environ["TMPDIR"]) / f"discomfort-servers-{os.getuid()}"
    wait_for(lambda: not root.exists() and not nested.processes(), 5, "the end of what it left")


def test_sigterm_to_an_orchestrator_leaves_nothing(
    orchestrator: Orchestrator, nested: Any, wait_for: Callable[..., Any]
) -> None:
    orchestrator.kill(signal.SIGTERM)
    wait_for(lambda: not nested.processes() and not nested.folders(), 5, "the end of what it left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_to_everything_at_once_leaves_nothing(
    orchestrator: Orchestrator, nested: Any, wait_for: Callable[..., Any], number: int
) -> None:
    """As a service manager, a closed terminal or the end of a container does; the guards first."""
    everything = [*guards(nested), *nested.processes(), psutil.Process(orchestrator.process.pid)]
    for process in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    orchestrator.process.communicate()
    wait_for(lambda: not nested.processes() and not nested.folders(), 5, "the end of what it left")


@pytest.mark.usefixtures("no_leaks")
def test_server_outlives_the_thread_that_started_it(
    fake_tree: Any, write_config: Callable[..., Path], nested: Any
) -> None:
    """Its threads come and go: a parent-death signal, which Linux ties to a thread, would end it with one of them."""
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connector = await ComfyConnector.create(config)
        await loop.shutdown_default_executor()  # ends the threads, one of which has started server and guard
        assert not any(thread.name.startswith("asyncio_") for thread in threading.enumerate())
        loop._default_executor, loop._executor_shutdown_called = None, False  # type: ignore[attr-defined]
        await asyncio.sleep(1.2)  # the guard looks twice a second
        await assert_works(connector)
        assert len(fake_tree.starts()) == 1
        await connector.kill_api()

    asyncio.run(main())


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.usefixtures("no_leaks")
def test_connector_made_in_a_threads_loop_that_has_ended(
    fake_tree: Any, write_config: Callable[..., Path], is_closed: bool
) -> None:
    """Also where the thread's loop was never closed, so that nothing told the connector of its end."""
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    made: list[ComfyConnector] = []
    loop = asyncio.new_event_loop()

    async def make() -> None:
        made.append(await ComfyConnector.create(config))
        await assert_works(made[0])

    async def use() -> None:
        with pytest.raises(
            cs.ConnectorError, match=r"event loop of this ComfyConnector has ended|shut down by kill_api"
        ):
            await run(made[0], echo())
        connector = await ComfyConnector.create(config)
        assert connector is not made[0]
        await assert_works(connector)
        await connector.kill_api()

    def clean() -> None:
        """End a loop as asyncio.run() does."""
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def in_thread() -> None:
        loop.run_until_complete(make())
        if is_closed:
            clean()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    asyncio.run(use())
    assert made[0].state == "killed"
    if not is_closed:
        clean()


# ---- full disks ----


@pytest.fixture
def full_disk(private_folders: Path) -> Iterator[Path]:
    """A real file system with room for 64 KiB, which is full. (Its path is short, as a TMPDIR's should be.)"""
    folder = private_folders / "full"
    folder.mkdir(exist_ok=True)
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("a small file system can only be mounted by root, on Linux")
    options = ["-t", "tmpfs", "-o", "size=64k,mode=0700"]
    if subprocess.run(["mount", *options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_full_disk_for_log_and_conversions_costs_only_them(
    start: Start, fake_tree: Any, full_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(full_disk))
    fake_tree.behave(flood=300_000)
    connector = await start(LOG_FILE=str(full_disk / "server.log"))
    await assert_works(connector)
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert "Conversion not kept on disk" in caplog.text
    assert connector._server is not None
    assert "To see the GUI" in "\n".join(connector._server.log_tail)


async def test_full_disk_for_the_private_folder_is_one_clear_error(
    start: Start, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (full_disk / "filler").write_bytes(b"")  # nothing can be made, not even a folder, where the inodes are gone
    subprocess.run(["mount", "-o", "remount,nr_inodes=3", str(full_disk)], check=True)  # noqa: ASYNC221
    with monkeypatch.context() as patch:
        patch.setattr(cs.tempfile, "tempdir", str(full_disk))
        with pytest.raises(cs.ConnectorError, match=r"No space left on device.*TMPDIR may name"):
            await start()
        assert set(os.listdir(full_disk)) <= {"filler", f"discomfort-servers-{os.getuid()}"}
        assert not list(full_disk.glob("discomfort-servers-*/*"))  # noqa: ASYNC240
    await assert_works(await start())


async def test_upload_to_a_full_disk_leaves_no_half_file(start: Start, full_disk: Path, tmp_path: Path) -> None:
    connector = await start(API_COMMAND_LINE=f"python3 main.py --input-directory {full_disk}")
    (tmp_path / "big.bin").write_bytes(b"x" * 100_000)
    with pytest.raises(OSError, match="No space left on device"):
        connector.upload_data(tmp_path / "big.bin")
    assert os.listdir(full_disk) == ["filler"]
    await assert_works(connector)


# ---- Windows ----


class Kernel32:
    """Windows' kernel32, as far as job objects go: answers like it, and notes what it was asked."""

    def __init__(self, fails: str = ""):
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for name, answer in (
            ("CreateJobObjectW", 0x1_0000_0007), ("OpenProcess", 0x1_0000_0009), ("SetInformationJobObject", 1),
            ("AssignProcessToJobObject", 1), ("CloseHandle", 1),
        ):  # fmt: skip
            setattr(self, name, self.function(name, 0 if name == fails else answer))

    def function(self, name: str, answer: int) -> Any:
        def call(*args: Any) -> int:
            self.calls.append((name, tuple(getattr(arg, "value", arg) for arg in args)))
            return answer

        return call

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args in self.calls if called == name]


@pytest.mark.skipif(sys.maxsize < 2**32, reason="sizes of 64-bit systems")
def test_job_object_ends_the_server_with_its_owner_on_windows() -> None:
    """What is asked of Windows; that it does it is not tested, for want of a Windows machine."""
    kernel32 = Kernel32()
    job = cs._tie_to_this_process(1234, kernel32)
    assert job == 0x1_0000_0007  # a handle is as wide as a pointer
    assert kernel32.called("OpenProcess") == [(0x0101, False, 1234)]
    ((asked, kind, limits, size),) = kernel32.called("SetInformationJobObject")
    assert (asked, kind, size) == (job, 9, 144)
    limits = limits._obj
    assert ctypes.sizeof(limits) == 144
    assert bytes(limits)[16:20] == (0x2000).to_bytes(4, "little")  # LimitFlags: KILL_ON_JOB_CLOSE
    assert bytes(limits)[:16] + bytes(limits)[20:] == bytes(140)
    assert kernel32.called("AssignProcessToJobObject") == [(job, 0x1_0000_0009)]
    assert kernel32.called("CloseHandle") == [(0x1_0000_0009,)]  # the job's stays open
    cs._close_job(job, kernel32)
    assert kernel32.called("CloseHandle")[1:] == [(job,)]


@pytest.mark.parametrize(
    "function", ["CreateJobObjectW", "OpenProcess", "SetInformationJobObject", "AssignProcessToJobObject"]
)
def test_job_object_that_cannot_be_had_is_a_warning_and_no_handle_is_left(
    function: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernel32 = Kernel32(fails=function)
    assert cs._tie_to_this_process(1234, kernel32) is None
    assert "Process 1234 would outlive this one" in caplog.text
    opened = {args[0] for args in kernel32.called("CloseHandle")}
    assert opened == {0x1_0000_0007, 0x1_0000_0009} - {
        {"CreateJobObjectW": 0x1_0000_0007, "OpenProcess": 0x1_0000_0009}.get(function, 0)
    }


async def test_job_objects_are_for_windows_only(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("called on another system than Windows")

    monkeypatch.setattr(cs, "_tie_to_this_process", refuse)
    monkeypatch.setattr(cs, "_close_job", refuse)
    connector = await start()
    await assert_works(connector)
    await connector.kill_api()
