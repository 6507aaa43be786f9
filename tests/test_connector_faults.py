"""ComfyConnector against peers that misbehave: servers, websockets, browsers and orchestrators that die or lie.

The peer is tests/fake_comfyui.py, a real process started as a real ComfyUI is. Each test is one row of "what may go
wrong": it ends in the right answer or in an error that says what happened, the next call works, and nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
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

Start = Callable[..., Any]


def echo(value: Any = "hello") -> dict[str, Any]:
    return {"1": {"class_type": "Echo", "inputs": {"value": value}}}


def sleep(seconds: float, kind: str = "Sleep") -> dict[str, Any]:
    return {"1": {"class_type": kind, "inputs": {"seconds": seconds}}}


async def run(connector: ComfyConnector, prompt: dict[str, Any], **more: Any) -> Any:
    """Run a prompt; returns the outputs of its nodes."""
    (entry,) = (await connector.run_workflow(prompt, use_workflow_json=False, **more)).values()
    return entry["outputs"]


async def assert_works(connector: ComfyConnector) -> None:
    assert await run(connector, echo("works")) == {"1": {"text": ["works"]}}
    assert connector.state == "ready"


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


# ---- starting ----


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ({"start": "exit"}, ["exit status 1", "No module named 'frobnicate'"]),
        ({"start": "garbage"}, ["exit status 3", "dead"]),
        ({"start": "silent"}, ["did not answer within 1 s", "START_TIMEOUT", "Fake ComfyUI starts"]),
        ({"start": "mute"}, ["did not answer within 1 s", "START_TIMEOUT"]),
        ({"start": "errors"}, ["did not answer within 1 s", "START_TIMEOUT"]),
        ({"start": "nonsense"}, ["did not answer within 1 s", "START_TIMEOUT"]),
        ({"start": "lost_port"}, ["already in use"]),
    ],
    ids=lambda value: value.get("start") if isinstance(value, dict) else "",
)
async def test_failed_start_is_one_error_with_the_last_lines_and_a_repaired_server_starts_next(
    start: Start, fake_tree: Any, nested: Any, behaviour: dict[str, Any], says: list[str]
) -> None:
    fake_tree.behave(**behaviour)
    with pytest.raises(cs.ServerStartError) as caught:
        await start(START_TIMEOUT=1.0, MAX_COMFY_START_ATTEMPTS=1, STOP_TIMEOUT=0.5)
    for text in says:
        assert text in str(caught.value)
    assert len(fake_tree.starts()) == 1
    assert not ComfyConnector.is_running()
    assert cs._process_state().connector.state == "error"
    assert not nested.processes()
    assert not nested.folders()
    fake_tree.behave()
    await assert_works(await start())


async def test_slow_start_is_waited_for(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start_delay=3.0)
    await assert_works(await start())


async def test_lost_port_is_answered_by_another_one(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start="lost_port")
    connector = await start(COMFY_START_ATTEMPTS_SLEEP=0.05)
    ports = [argv[argv.index("--port") + 1] for argv in fake_tree.starts()]
    assert len(ports) == 2
    assert ports[0] != ports[1]
    assert connector.server_address.endswith(ports[1])
    await assert_works(connector)


@pytest.mark.parametrize("attempts", [1, 10])
async def test_missing_gpu_is_answered_by_cpu(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr(cs, "has_gpu", lambda: True)
    fake_tree.behave(start="needs_cpu")
    connector = await start(DEVICE="auto", MAX_COMFY_START_ATTEMPTS=attempts)
    assert ["--cpu" in argv for argv in fake_tree.starts()] == [False, True]
    await assert_works(connector)


async def test_device_gpu_never_falls_back_to_cpu(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start="needs_cpu")
    with pytest.raises(cs.ServerStartError, match="not compiled with CUDA"):
        await start(DEVICE="gpu")
    assert len(fake_tree.starts()) == 1


async def test_another_program_on_the_first_port_is_avoided_and_never_mistaken(start: Start, first_port: int) -> None:
    port = first_port + 90
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        connector = await start(INITIAL_PORT=port)
        assert connector.server_address == f"http://127.0.0.1:{port + 1}"
        await assert_works(connector)


async def test_demanded_port_that_is_taken_is_one_clear_error(start: Start, fake_tree: Any, first_port: int) -> None:
    port = first_port + 92
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(cs.ConnectorError, match=rf"Port {port} on 127.0.0.1 is taken by another program"):
            await start(API_COMMAND_LINE=f"python3 main.py --port {port}")
    assert not fake_tree.starts()
    connector = await start(API_COMMAND_LINE=f"python3 main.py --port {port}")
    assert connector.server_address == f"http://127.0.0.1:{port}"


async def test_no_free_port_is_one_clear_error(start: Start, monkeypatch: pytest.MonkeyPatch, first_port: int) -> None:
    monkeypatch.setattr(cs, "port_is_free", lambda host, port: False)
    with pytest.raises(cs.ConnectorError, match=f"No free port on 127.0.0.1 from {first_port} to {first_port + 199}"):
        await start()


async def test_program_that_cannot_be_executed(start: Start) -> None:
    with pytest.raises(cs.ServerStartError, match=r"could not be started.*no-such-python"):
        await start(API_COMMAND_LINE="/no-such-python main.py")


async def test_fixed_configuration_is_used_after_a_failed_start(start: Start, fake_tree: Any, tmp_path: Path) -> None:
    with pytest.raises(cs.ServerNotFoundError, match="No ComfyUI at"):
        await start(COMFYUI_PATH=str(tmp_path / "nowhere"))
    await assert_works(await start())


async def test_endless_line_of_output_takes_no_memory(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(flood=60_000_000)
    before = psutil.Process().memory_info().rss
    connector = await start()
    assert psutil.Process().memory_info().rss - before < 40_000_000
    await assert_works(connector)


async def test_full_disk_for_the_log_changes_nothing(start: Start, fake_tree: Any, recwarn: Any) -> None:
    fake_tree.behave(flood=30_000)
    connector = await start(LOG_FILE="/dev/full")
    await assert_works(connector)
    await connector.kill_api()


async def test_unwritable_log_folder_is_reported(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    connector = await start(LOG_FILE="/proc/nowhere/server.log")
    await assert_works(connector)
    assert "/proc/nowhere/server.log" in caplog.text


async def test_child_that_holds_the_output_open_does_not_hang_the_end(
    start: Start, fake_tree: Any, wait_for: Callable[..., Any]
) -> None:
    fake_tree.behave(leave_child=True)
    connector = await start()
    (child,) = [p for p in psutil.process_iter(["cmdline"]) if "time.sleep(20)" in " ".join(p.info["cmdline"] or [])]
    try:
        started = time.monotonic()
        await connector.kill_api()
        assert time.monotonic() - started < 5
    finally:
        child.kill()
        wait_for(lambda: not any(t.name == "discomfort-server-log" for t in threading.enumerate()))


async def test_no_room_for_the_private_folder_is_one_clear_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cs.filelock.FileLock, "acquire", full)
    with pytest.raises(cs.ConnectorError, match="No space left on device"):
        await start()


# ---- creating, killing ----


async def test_twenty_creates_at_once_give_one_server(start: Start, fake_tree: Any) -> None:
    connectors = await asyncio.gather(*(start() for _ in range(20)))
    assert len(set(map(id, connectors))) == 1
    assert len(fake_tree.starts()) == 1


async def test_twenty_creates_at_once_share_one_failure(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start="exit")
    results = await asyncio.gather(*(start() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, cs.ServerStartError) for result in results)
    assert len(fake_tree.starts()) == 1


async def test_cancelled_create_leaves_nothing(start: Start, fake_tree: Any, nested: Any) -> None:
    fake_tree.behave(start="silent")
    task = asyncio.create_task(start())
    await until(fake_tree.starts)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not nested.processes()
    assert not nested.folders()
    fake_tree.behave()
    await assert_works(await start())


async def test_one_cancelled_create_of_two_leaves_the_other_its_server(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start_delay=0.5)
    first, second = asyncio.create_task(start()), asyncio.create_task(start())
    await until(fake_tree.starts)
    first.cancel()
    connector = await second
    assert first.cancelled()
    await assert_works(connector)
    assert len(fake_tree.starts()) == 1


async def test_create_while_the_last_waiter_is_being_cancelled_starts_afresh(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(start="silent")
    first = asyncio.create_task(start())
    await until(fake_tree.starts)
    fake_tree.behave()
    first.cancel()
    await asyncio.sleep(0)  # the start is being undone now
    connector = await start()
    await assert_works(connector)


async def test_kill_twice_and_at_once(start: Start) -> None:
    connector = await start()
    await asyncio.gather(connector.kill_api(), connector.kill_api(), connector.kill_api())
    await connector.kill_api()
    assert connector.state == "killed"


async def test_kill_during_a_start_is_a_sentence_for_those_who_wait(start: Start, fake_tree: Any, nested: Any) -> None:
    fake_tree.behave(start="silent")
    task = asyncio.create_task(start())
    await until(fake_tree.starts)
    await cs._process_state().connector.kill_api()
    with pytest.raises(cs.ConnectorError, match=r"shut down by kill_api\(\)"):
        await task
    assert not nested.processes()


async def test_use_after_kill_is_a_sentence_and_create_gives_a_fresh_one(start: Start) -> None:
    connector = await start()
    await connector.kill_api()
    with pytest.raises(cs.ConnectorError, match=r"Get a fresh one with: await ComfyConnector.create\(\)"):
        await run(connector, echo())
    fresh = await start()
    assert fresh is not connector
    await assert_works(fresh)


async def test_create_during_a_kill_gives_a_fresh_one(start: Start, fake_tree: Any) -> None:
    connector = await start()
    kill = asyncio.create_task(connector.kill_api())
    await asyncio.sleep(0)
    assert connector.state == "killing"
    fresh = await start()
    assert kill.done()
    assert fresh is not connector
    await assert_works(fresh)


async def test_cancelled_kill_kills_at_once(start: Start, fake_tree: Any, nested: Any) -> None:
    fake_tree.behave(ignore_signals=True)
    connector = await start(STOP_TIMEOUT=30.0)
    kill = asyncio.create_task(connector.kill_api())
    await asyncio.sleep(0.2)
    started = time.monotonic()
    kill.cancel()
    with pytest.raises(asyncio.CancelledError):
        await kill
    assert time.monotonic() - started < 2
    assert connector.state == "killed"
    assert not nested.processes()
    assert not nested.folders()


async def test_stop_ladder_ends_a_server_that_ignores_signals(start: Start, fake_tree: Any) -> None:
    fake_tree.behave(ignore_signals=True)
    connector = await start(STOP_TIMEOUT=0.3)
    started = time.monotonic()
    await connector.kill_api()
    assert 0.5 < time.monotonic() - started < 3


async def test_kill_ends_runs_with_a_sentence(start: Start) -> None:
    connector = await start()
    task = asyncio.create_task(run(connector, sleep(30)))
    await asyncio.sleep(0.3)
    await connector.kill_api()
    with pytest.raises(cs.ConnectorError, match="shut down"):
        await task


@pytest.mark.usefixtures("no_leaks")
def test_second_event_loop_gets_a_fresh_server_and_the_old_one_is_ended(
    fake_tree: Any, write_config: Callable[..., Path], nested: Any
) -> None:
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")

    async def first() -> tuple[ComfyConnector, int | None]:
        connector = await ComfyConnector.create(config)
        await assert_works(connector)
        assert connector._server is not None
        return connector, connector._server.pid

    async def second(old: ComfyConnector) -> None:
        connector = await ComfyConnector.create(config)
        assert connector is not old
        await assert_works(connector)
        await connector.kill_api()

    old, pid = asyncio.run(first())
    asyncio.run(second(old))
    assert old.state == "killed"
    assert pid is not None
    assert not psutil.pid_exists(pid)
    gc.collect()  # an unclosed session or socket would complain now


async def test_other_threads_loop_is_told_where_the_connector_lives(start: Start) -> None:
    connector = await start()

    async def use(action: Callable[[], Any]) -> str:
        with pytest.raises(cs.ConnectorError) as caught:
            await action()
        return str(caught.value)

    for action in (ComfyConnector.create, lambda: run(connector, echo()), connector.kill_api, connector.object_info):
        message = await asyncio.to_thread(lambda action=action: asyncio.run(use(action)))
        assert "belongs to another event loop" in message
        assert "MainThread" in message
    await assert_works(connector)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_forked_child_has_its_own_server_and_leaves_the_parents_alone(
    start: Start, tmp_path: Path, first_port: int
) -> None:
    connector = await start()

    async def child(said: Any) -> None:
        for action in (run(connector, echo()), connector.kill_api()):
            with pytest.raises(cs.ConnectorError, match="which this one was forked from"):
                await action
        own = await start()
        await assert_works(own)
        said.write(own.server_address)
        await own.kill_api()

    pid = os.fork()
    if pid == 0:
        with open(tmp_path / "said", "w") as said:  # noqa: ASYNC230
            try:
                asyncio._set_running_loop(None)
                asyncio.run(child(said))
                connector._sync_cleanup()  # what would run at the interpreter's exit
            except BaseException:
                traceback.print_exc(file=said)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, pid, 0)
    assert (tmp_path / "said").read_text() == f"http://127.0.0.1:{first_port + 1}"
    await assert_works(connector)


async def test_wrong_configuration_changes_nothing_of_a_running_one(
    start: Start, write_config: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    connector = await start()
    assert await start(RUN_TIMEOUT=5.0) is connector
    assert "runs already with another configuration" in caplog.text
    with pytest.raises(cs.ConfigError):
        await ComfyConnector.create(write_config(NO_SUCH_KEY=1))
    await assert_works(connector)


async def test_fifty_lives_leave_nothing_growing(start: Start) -> None:
    """Create, run, kill: no process, file descriptor, thread or memory grows with the number of lives."""
    process = psutil.Process()
    # Servers that other tests share live as long as this process.
    others = set(process.children(recursive=True))

    async def live(times: int) -> None:
        for _ in range(times):
            connector = await start()
            await assert_works(connector)
            await connector.kill_api()

    def memory() -> int:
        gc.collect()
        # Without what the tests' own watch over the event loop remembers, which grows for its first 20 s.
        not_ours = tracemalloc.Filter(False, str(Path(__file__).with_name("conftest.py")))
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([not_ours]).traces)

    await live(5)  # what is loaded and cached once
    tracemalloc.start()
    try:
        await live(5)  # lines of code that tracemalloc and linecache remember
        held, files = memory(), process.num_fds()
        threads = {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
        await live(40)
        # Looking at all that Python holds takes its time on a slow machine; the connector is not to be blamed for it.
        asyncio.get_running_loop().slow_callback_duration = 10.0
        # Memory that Python holds, not what the system says, which depends on the allocator's luck. Libraries remember
        # the last addresses that they have parsed, up to some number: 2 kB a life.
        assert memory() - held < 40 * 5_000
    finally:
        tracemalloc.stop()
    assert process.num_fds() <= files + 1
    # asyncio's own pool may still grow to its size; nothing else may.
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")} <= threads
    assert set(process.children(recursive=True)) <= others
    ours = (ComfyConnector, cs.RuntimeFolder, cs.ServerProcess, cs.EventStream, cs.FrontendPage)
    # By type(): isinstance() asks some modules for their __class__, and they warn of it.
    left = [type(thing) for thing in gc.get_objects() if type(thing) in ours]
    assert left.count(ComfyConnector) <= 1
    assert not {cs.RuntimeFolder, cs.ServerProcess} & set(left)


# ---- running ----


@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_server_killed_before_during_and_after_a_run(start: Start, fake_tree: Any, when: str) -> None:
    connector = await start()
    await assert_works(connector)
    assert connector._server is not None
    pid = connector._server.pid
    assert pid is not None
    if when == "during":
        task = asyncio.create_task(run(connector, sleep(30)))
        await until(lambda: len(fake_tree.requests("/prompt")) == 2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(cs.ServerDiedError, match="by signal 9"):
            await asyncio.wait_for(task, 15)
    else:
        os.kill(pid, signal.SIGKILL)
        if when == "after":
            await until(lambda: connector._server is not None and not connector._server.is_alive)
    await assert_works(connector)
    assert len(fake_tree.starts()) == 2


async def test_all_runs_of_a_killed_server_end_and_one_restart_serves_the_next(start: Start, fake_tree: Any) -> None:
    connector = await start()
    tasks = [asyncio.create_task(run(connector, sleep(30))) for _ in range(5)]
    await until(lambda: len(fake_tree.requests("/prompt")) == 5)
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 15)
    assert all(isinstance(result, cs.ServerDiedError) for result in results), results
    await asyncio.gather(*(assert_works(connector) for _ in range(5)))
    assert len(fake_tree.starts()) == 2


async def test_run_of_a_dead_server_is_not_looked_for_on_its_successor(start: Start, fake_tree: Any) -> None:
    connector = await start()
    task = asyncio.create_task(run(connector, sleep(30)))
    await until(lambda: fake_tree.requests("/prompt"))
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGKILL)
    await until(lambda: connector._server is not None and not connector._server.is_alive)
    await assert_works(connector)  # restarts before the first run has looked
    with pytest.raises(cs.ServerDiedError):
        await asyncio.wait_for(task, 15)


async def test_server_that_dies_on_accepting_a_prompt(start: Start, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(accept="die")
    with pytest.raises(cs.ServerDiedError, match="by signal 9"):
        await asyncio.wait_for(run(connector, echo()), 10)
    fake_tree.behave()
    await assert_works(connector)


async def test_frozen_server_counts_as_dead_and_the_next_call_restarts_it(start: Start, fake_tree: Any) -> None:
    connector = await start(REQUEST_TIMEOUT=1.0, STOP_TIMEOUT=5.0)
    fake_tree.behave(accept="stop")
    runs = await asyncio.gather(*(run(connector, sleep(5)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, cs.ServerDiedError) for result in runs), runs
    assert "the next call restarts it" in str(runs[0])
    fake_tree.behave()
    started = time.monotonic()
    await assert_works(connector)
    assert time.monotonic() - started < 4  # a server that does not answer is not asked to stop
    assert len(fake_tree.starts()) == 2


async def test_server_that_was_stopped_and_continued_finishes_its_run(start: Start, fake_tree: Any) -> None:
    connector = await start(REQUEST_TIMEOUT=2.0)
    assert connector._server is not None
    task = asyncio.create_task(run(connector, sleep(0.5)))
    await until(lambda: fake_tree.requests("/prompt"))
    os.kill(connector._server.pid or 0, signal.SIGSTOP)
    await asyncio.sleep(1.5)
    os.kill(connector._server.pid or 0, signal.SIGCONT)
    assert await task == {"1": {"text": [0.5]}}


@pytest.mark.parametrize("path", ["/history", "/queue"])
async def test_passing_errors_of_status_500_do_not_fail_a_run(start: Start, fake_tree: Any, path: str) -> None:
    connector = await start()
    task = asyncio.create_task(run(connector, sleep(1.5)))
    await until(lambda: fake_tree.requests("/prompt"))
    fake_tree.behave(fail={path: [500, 2]})
    assert await task == {"1": {"text": [1.5]}}


async def test_status_500_on_prompt_is_reported_with_its_text(start: Start, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(fail={"/prompt": [500, 1]})
    with pytest.raises(cs.PromptRejectedError, match=r"status 500.*Internal Server Error"):
        await run(connector, echo())
    await assert_works(connector)


@pytest.mark.parametrize("kind", ["refuse", "hang", "silent"])
async def test_run_ends_without_a_websocket(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(cs, "_WEBSOCKET_PATIENCE", 1.0)
    fake_tree.behave(websocket=kind)
    connector = await start()
    assert await run(connector, echo()) == {"1": {"text": ["hello"]}}
    started = time.monotonic()
    assert await run(connector, echo(2)) == {"1": {"text": [2]}}
    assert time.monotonic() - started < 2.5  # a socket that could not be had once is not waited for again


async def test_run_ends_when_the_websocket_is_cut_after_each_kind_of_message(start: Start, fake_tree: Any) -> None:
    """Also the binary preview, and "executing" without a node ("done"), which ends a run."""
    connector = await start()
    seen: list[str] = []
    connector._events.subscribe(lambda event: seen.append(event.type))
    steps = {"1": {"class_type": "Steps", "inputs": {"value": "done"}}}
    fail = {"1": {"class_type": "Fail", "inputs": {"message": "no good"}}}
    kinds = ["status", "execution_start", "execution_cached", "progress_state", "executing", "progress", "preview"]
    for kind in [*kinds, "executed", "execution_success", "done", "execution_error", "execution_interrupted"]:
        await assert_works(connector)
        await until(lambda: connector._events.is_connected)
        fake_tree.behave(cut_after=kind)
        seen.clear()
        started = time.monotonic()
        if kind == "execution_error":
            with pytest.raises(cs.NodeExecutionError, match="no good"):
                await run(connector, fail)
        elif kind == "execution_interrupted":
            task = asyncio.create_task(run(connector, sleep(30)))
            await until(lambda: "executing" in seen)
            await connector.interrupt()
            with pytest.raises(cs.PromptInterruptedError):
                await task
        else:
            assert await run(connector, steps) == {"1": {"text": ["done"]}}
        assert time.monotonic() - started < 3, kind
        await until(lambda: "disconnected" in seen)
        last = seen[seen.index("disconnected") - 1]
        assert last == ("executing" if kind == "done" else kind)


async def test_late_history_is_waited_for(start: Start, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(history_delay=1.5)
    assert await run(connector, echo()) == {"1": {"text": ["hello"]}}


async def test_prompt_that_the_server_forgot_is_an_error(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_FORGOTTEN_AFTER", 1.0)
    connector = await start()
    fake_tree.behave(history="lost")
    with pytest.raises(cs.ServerDiedError, match="no longer knows the prompt"):
        await run(connector, echo())
    fake_tree.behave()
    await assert_works(connector)


async def test_success_without_outputs_is_believed(start: Start, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(history="empty")
    assert await run(connector, echo()) == {}


async def test_partial_acceptance_is_a_rejection_and_nothing_runs_on(start: Start, fake_tree: Any) -> None:
    connector = await start()
    fake_tree.behave(accept="partial")
    prompt = {**sleep(30), "2": {"class_type": "Echo", "inputs": {}, "_meta": {"title": "My echo"}}}
    with pytest.raises(cs.PromptRejectedError, match=r"Echo #2 \('My echo'\): Required input is missing \(value\)"):
        await run(connector, prompt)
    fake_tree.behave()
    started = time.monotonic()
    await assert_works(connector)
    assert time.monotonic() - started < 3  # the valid half does not block the queue


async def test_rejection_names_node_input_and_reason(start: Start) -> None:
    connector = await start()
    with pytest.raises(cs.PromptRejectedError, match=r"Echo #1: Required input is missing \(value\)") as caught:
        await run(connector, {"1": {"class_type": "Echo", "inputs": {}}})
    assert caught.value.node_errors["1"]["class_type"] == "Echo"
    assert caught.value.error["type"] == "prompt_outputs_failed_validation"


async def test_node_error_carries_id_class_title_and_traceback(start: Start) -> None:
    connector = await start()
    prompt = {"7": {"class_type": "Fail", "inputs": {"message": "no good"}, "_meta": {"title": "My node"}}}
    with pytest.raises(cs.NodeExecutionError) as caught:
        await run(connector, prompt)
    error = caught.value
    assert (error.node_id, error.class_type, error.title) == ("7", "Fail", "My node")
    assert (error.exception_type, error.exception_message) == ("ValueError", "no good")
    assert "Node Fail #7 ('My node') failed: ValueError: no good" in str(error)
    assert "raise ValueError(message)" in str(error)
    assert error.prompt_id
    await assert_works(connector)


async def test_interruption_from_outside_is_its_own_error(start: Start, fake_tree: Any) -> None:
    connector = await start()
    task = asyncio.create_task(run(connector, sleep(30)))
    await until(lambda: fake_tree.requests("/prompt"))
    await asyncio.sleep(0.1)
    await connector.interrupt()
    with pytest.raises(cs.PromptInterruptedError, match="at node Sleep #1"):
        await task
    await assert_works(connector)


async def test_fifty_runs_at_once_get_each_its_own_result(start: Start) -> None:
    connector = await start()
    results = await asyncio.gather(*(run(connector, echo(i)) for i in range(50)))
    assert results == [{"1": {"text": [i]}} for i in range(50)]


async def test_cancelling_a_run_interrupts_it_and_no_other(start: Start, fake_tree: Any) -> None:
    connector = await start()
    running = asyncio.create_task(run(connector, sleep(30)))
    await until(lambda: len(fake_tree.requests("/prompt")) == 1)
    waiting = [asyncio.create_task(run(connector, sleep(0.2))) for _ in range(3)]
    await until(lambda: len(fake_tree.requests("/prompt")) == 4)
    waiting[1].cancel()  # in the queue: taken out
    await asyncio.sleep(0.2)
    assert not running.done()
    running.cancel()  # running: interrupted
    results = await asyncio.wait_for(asyncio.gather(running, *waiting, return_exceptions=True), 15)
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[2], asyncio.CancelledError)
    assert results[1] == results[3] == {"1": {"text": [0.2]}}


async def test_run_cancelled_while_it_is_queued_does_not_run(start: Start, fake_tree: Any) -> None:
    connector = await start()
    await assert_works(connector)
    fake_tree.behave(delay={"/prompt": 0.5})
    task = asyncio.create_task(run(connector, sleep(30)))
    await until(lambda: len(fake_tree.requests("/prompt")) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    fake_tree.behave()
    await asyncio.sleep(0.6)
    await asyncio.wait_for(assert_works(connector), 15)  # nothing is in front of it


async def test_run_timeout_interrupts_the_prompt(start: Start) -> None:
    connector = await start(RUN_TIMEOUT=1.0)
    with pytest.raises(cs.RunTimeoutError, match="RUN_TIMEOUT"):
        await run(connector, sleep(30))
    await assert_works(connector)


async def test_stall_timeout_counts_from_the_last_event(start: Start) -> None:
    connector = await start(STALL_TIMEOUT=1.0)
    steady = {str(i): {"class_type": "Sleep", "inputs": {"seconds": 0.4}} for i in range(4)}
    assert len(await run(connector, steady)) == 4
    with pytest.raises(cs.RunTimeoutError, match="STALL_TIMEOUT"):
        await run(connector, sleep(30))
    await assert_works(connector)


async def test_prompt_that_waits_in_the_queue_is_not_stalled(start: Start) -> None:
    connector = await start(STALL_TIMEOUT=1.0)
    long = {str(i): {"class_type": "Sleep", "inputs": {"seconds": 0.5}} for i in range(4)}
    results = await asyncio.gather(run(connector, long), run(connector, echo()))
    assert results[1] == {"1": {"text": ["hello"]}}


async def test_history_entries_are_deleted_after_reading(start: Start) -> None:
    connector = await start()
    for _ in range(3):
        await run(connector, echo())
    with pytest.raises(cs.NodeExecutionError):
        await run(connector, {"1": {"class_type": "Fail", "inputs": {"message": "x"}}})
    task = asyncio.create_task(run(connector, sleep(30)))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait([task])

    async def history() -> Any:
        return await connector._request("GET", "/history")

    deadline = time.monotonic() + 5
    while await history():
        assert time.monotonic() < deadline, "entries are left in the server's history"
        await asyncio.sleep(0.05)


async def test_events_are_typed_and_outlive_a_restart(start: Start, fake_tree: Any) -> None:
    connector = await start()
    seen: list[cs.ServerEvent] = []

    async def watch() -> None:
        async for event in connector.events():
            seen.append(event)

    watcher = asyncio.create_task(watch())
    await until(lambda: connector._events.is_connected)
    await run(connector, echo())
    assert {"execution_start", "executing", "executed", "execution_success"} <= {event.type for event in seen}
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGKILL)
    await until(lambda: any(event.type == "disconnected" for event in seen))
    seen.clear()
    await assert_works(connector)
    await until(lambda: any(event.type == "executed" for event in seen))
    await connector.kill_api()
    await asyncio.wait_for(watcher, 15)


async def test_events_of_a_run_reach_its_callback_and_a_failing_callback_hurts_nobody(start: Start) -> None:
    connector = await start()
    seen: list[str] = []

    def note(event: cs.ServerEvent) -> None:
        seen.append(event.type)
        raise RuntimeError("a listener's fault")

    outputs = await asyncio.gather(run(connector, echo(1), on_event=note), run(connector, echo(2)))
    assert outputs == [{"1": {"text": [1]}}, {"1": {"text": [2]}}]
    assert seen == ["execution_start", "execution_cached", "executing", "executed", "execution_success", "executing"]


async def test_server_that_holds_much_memory_is_asked_to_empty_its_cache(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connector = await start(MAX_SERVER_MEMORY_PERCENT=50.0)
    await assert_works(connector)
    assert not fake_tree.requests("/free")
    monkeypatch.setattr(cs, "_total_memory", lambda: 1_000_000)
    await assert_works(connector)
    await until(lambda: fake_tree.requests("/free"))
    assert fake_tree.requests("/free") == ['POST /free {"unload_models": false, "free_memory": true}']
    assert "its cache is emptied" in caplog.text


async def test_resources_are_validated_and_only_what_is_broken_is_repaired(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cs, "_HEALTH_PATIENCE", 0.5)
    connector = await start(REQUEST_TIMEOUT=1.0)
    assert await connector._validate_resources()
    await assert_works(connector)
    assert await connector._validate_resources()
    await connector._refresh_resources()
    assert len(fake_tree.starts()) == 1
    fake_tree.behave(start="mute")
    assert not await connector._validate_resources()
    fake_tree.behave()
    assert await connector._validate_resources()
    fake_tree.behave(start="mute")
    refresh = asyncio.create_task(connector._refresh_resources())
    await until(lambda: len(fake_tree.starts()) == 2)
    fake_tree.behave()
    await refresh
    assert len(fake_tree.starts()) == 2
    await assert_works(connector)


# ---- converting ----


def workflow(value: Any = "hello", **node: Any) -> dict[str, Any]:
    return {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": value}, **node}], "links": []}


def converted(value: Any = "hello") -> dict[str, Any]:
    return {"1": {"class_type": "Echo", "inputs": {"value": value}, "_meta": {"title": "Echo"}}}


def browsers() -> list[psutil.Process]:
    """The browser processes of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith("--user-data-dir=") for argument in process.cmdline()):
                found.append(process)
    return found


def stored_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").glob("discomfort/conversions/*"))


def page_loads(tree: Any) -> int:
    """How often a page was loaded from the server; the connector itself asks for it too, once a start, with others."""
    requests = tree.requests("/")
    return requests.count("GET /") - requests.count("GET /extensions")


def crash_pages() -> None:
    for process in browsers():
        if "--type=renderer" in process.cmdline():
            process.kill()


async def test_stored_conversion_needs_no_browser_also_in_another_life(start: Start) -> None:
    connector = await start()
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert browsers()
    await connector.kill_api()
    connector = await start()
    prompt = await connector.get_prompt_from_workflow(workflow())
    assert prompt == converted()
    prompt["1"]["inputs"]["value"] = "the caller's own"
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert not browsers()
    assert await connector.get_prompt_from_workflow(workflow("changed")) == converted("changed")
    assert browsers()


async def test_changed_script_of_a_pack_is_converted_anew(
    start: Start, fake_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extensions keep their names when they change; the frontend's own are told by index.html."""
    a, b, core = "/extensions/pack/a.js", "/extensions/pack/sub folder/b.js", "/extensions/core/fake.js"
    lives: list[tuple[dict[str, Any], bool]] = [
        ({"scripts": {a: 1, b: 1}}, True),
        ({"scripts": {b: 1, a: 1}}, False),
        ({"scripts": {a: 1, b: 2}}, True),
        # A server that does not answer such requests: the names alone count.
        ({"scripts": {a: 1}, "script_status": 302}, True),
        ({"scripts": {a: 2}, "script_status": 500}, False),
        ({"scripts": {a: 3}, "delay": {a: 30}}, False),
    ]
    for behaviour, is_new in lives:
        fake_tree.behave(**behaviour)
        connector = await start()
        if "delay" in behaviour:
            monkeypatch.setattr(cs, "_HEALTH_PATIENCE", 0.5)
        assert await connector.get_prompt_from_workflow(workflow()) == converted()
        assert bool(browsers()) is is_new, behaviour
        await connector.get_prompt_from_workflow(workflow())
        await connector.kill_api()
    asked = [line for line in fake_tree.requests("/extensions/") if line.startswith("HEAD")]
    assert len(asked) == 2 + 2 + 2 + 1 + 1 + 1  # once a start
    assert not any(core in line for line in asked)


async def test_damaged_store_costs_only_a_conversion(start: Start, tmp_path: Path) -> None:
    connector = await start()
    await connector.get_prompt_from_workflow(workflow())
    await connector.kill_api()
    (file,) = stored_files(tmp_path)
    file.write_text('{"1": {"class_')
    connector = await start()
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert json.loads(file.read_text())["prompt"] == converted()


async def test_store_that_cannot_be_written_costs_only_a_conversion(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    connector = await start()
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert "Conversion not kept on disk" in caplog.text


async def test_volatile_conversions_and_those_not_wanted_are_not_stored(start: Start, tmp_path: Path) -> None:
    connector = await start()
    for value in ("%date:yyyy%_picture", "a {red|blue} house"):
        assert await connector.get_prompt_from_workflow(workflow(value)) == converted(value)
    await connector.kill_api()
    connector = await start(STORE_CONVERSIONS=False)
    assert await connector.get_prompt_from_workflow(workflow()) == converted()
    assert not stored_files(tmp_path)


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def shared(
    make_fake_tree: Callable[[], Any], write_config: Callable[..., Path], nested: Any
) -> AsyncIterator[tuple[ComfyConnector, Any]]:
    """(connector, its fake tree) for all tests of a class."""
    tree = make_fake_tree()
    connector = await ComfyConnector.create(
        write_config(COMFYUI_PATH=str(tree.path), DEVICE="cpu", STORE_CONVERSIONS=False, CONVERSION_TIMEOUT=20.0)
    )
    yield connector, tree
    await connector.kill_api()
    assert not nested.processes()
    assert not nested.folders()


@pytest.mark.asyncio(loop_scope="class")
class TestConversions:
    """What goes wrong in the browser, on one server; every test leaves a connector that converts."""

    numbers = itertools.count(1000)

    @pytest_asyncio.fixture(loop_scope="class")
    async def connector(self, shared: tuple[ComfyConnector, Any]) -> AsyncIterator[ComfyConnector]:
        yield shared[0]
        shared[1].behave()
        await self.assert_converts(shared[0])

    @pytest.fixture
    def tree(self, shared: tuple[ComfyConnector, Any]) -> Any:
        return shared[1]

    @pytest.fixture
    def configure(self, connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """``configure(KEY=value)`` changes the configuration for one test."""

        def change(**keys: Any) -> None:
            monkeypatch.setattr(connector, "config", dataclasses.replace(connector.config, **keys))
            if connector._page is not None:
                monkeypatch.setattr(connector._page, "config", connector.config)

        return change

    async def assert_converts(self, connector: ComfyConnector) -> None:
        """A conversion that no store knows, within seconds."""
        number = next(self.numbers)
        prompt = await asyncio.wait_for(connector.get_prompt_from_workflow(workflow(number)), 15)
        assert prompt == converted(number)

    async def begin(self, connector: ComfyConnector, tree: Any, **behaviour: Any) -> asyncio.Task[Any]:
        """A conversion that has come to where the frontend does not go on, of a server that is good again."""
        tree.behave(**behaviour)
        if connector._page is not None:
            await connector._page.discard_page()
        before = page_loads(tree)
        task = asyncio.create_task(connector.get_prompt_from_workflow(workflow(next(self.numbers))))
        await until(lambda: page_loads(tree) > before)
        if behaviour.get("frontend") == "hang":
            await until(lambda: connector._page is not None and connector._page._conversions)
        tree.behave()
        return task

    async def test_browser_killed_between_conversions(self, connector: ComfyConnector) -> None:
        await self.assert_converts(connector)
        for process in browsers():
            process.kill()
        await self.assert_converts(connector)

    async def test_browser_and_its_driver_killed_between_conversions(self, connector: ComfyConnector) -> None:
        await self.assert_converts(connector)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TMPDIR", "").endswith("/b"):
                    process.kill()
        await self.assert_converts(connector)

    async def test_browser_killed_during_a_conversion(self, connector: ComfyConnector, tree: Any) -> None:
        task = await self.begin(connector, tree, frontend="hang")
        for process in browsers():
            process.kill()
        assert await asyncio.wait_for(task, 10)

    async def test_other_browsers_are_never_touched(self, connector: ComfyConnector, tmp_path: Path) -> None:
        """When ours hangs and is killed: neither a browser of the user's, nor one that this program started itself."""
        await self.assert_converts(connector)
        (mine,) = [process for process in browsers() if not any("--type=" in word for word in process.cmdline())]
        script = "import time; print(flush=True); time.sleep(60)"
        command = ["chrome", "-c", script, "--headless", f"--user-data-dir={tmp_path}"]
        others = [
            subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE, env=environment)  # noqa: ASYNC220
            for environment in (None, {**os.environ, "TMPDIR": str(tmp_path)})
        ]
        try:
            for other in others:
                assert other.stdout is not None
                await asyncio.to_thread(other.stdout.readline)
            mine.suspend()  # it cannot be asked to close
            assert connector._page is not None
            await asyncio.to_thread(connector._page.kill_now)
            assert not mine.is_running() or mine.status() == psutil.STATUS_ZOMBIE
            await self.assert_converts(connector)
            assert [other.poll() for other in others] == [None, None]
        finally:
            for other in others:
                other.kill()
                other.communicate()

    async def test_browser_whose_end_is_not_yet_known_is_replaced(self, connector: ComfyConnector) -> None:
        """Playwright says the same twice, and still believes that its browser is connected."""
        await self.assert_converts(connector)
        page = connector._page
        assert page is not None
        await page.discard_page()

        class Gone:
            """A browser of Playwright's that was killed, before Playwright has noticed."""

            def is_connected(self) -> bool:
                return True

            async def new_context(self, **options: Any) -> None:
                raise RuntimeError("Target page, context or browser has been closed")

            async def close(self) -> None:
                await browser.close()

        browser, page._browser = page._browser, Gone()
        await self.assert_converts(connector)
        assert connector._page is not page

    async def test_page_that_crashes_during_a_conversion(self, connector: ComfyConnector, tree: Any) -> None:
        task = await self.begin(connector, tree, frontend="hang")
        crash_pages()
        assert await asyncio.wait_for(task, 10)

    async def test_page_that_crashes_while_it_is_loaded(self, connector: ComfyConnector, tree: Any) -> None:
        task = await self.begin(connector, tree, frontend="never")
        crash_pages()
        assert await asyncio.wait_for(task, 10)

    async def test_page_that_crashed_between_conversions(self, connector: ComfyConnector) -> None:
        await self.assert_converts(connector)
        crash_pages()
        await self.assert_converts(connector)

    @pytest.mark.parametrize(("kind", "attempts"), [("never", 1), ("hang", 3)])
    async def test_frontend_that_takes_too_long_is_a_timeout_after_the_attempts(
        self,
        connector: ComfyConnector,
        tree: Any,
        configure: Callable[..., None],
        kind: str,
        attempts: int,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await self.assert_converts(connector)
        configure(CONVERSION_TIMEOUT=1.5, CONVERSION_ATTEMPTS=attempts)
        tree.behave(frontend=kind)
        assert connector._page is not None
        await connector._page.discard_page()
        before = page_loads(tree)
        with pytest.raises(cs.ConversionTimeoutError, match=r"longer than 1\.5 s \(CONVERSION_TIMEOUT\)"):
            await connector.get_prompt_from_workflow(workflow(next(self.numbers)))
        assert caplog.text.count("Conversion attempt") == attempts
        # On a busy machine a browser may need all of its time to start, and then loads no page.
        assert 1 <= page_loads(tree) - before <= attempts
        assert not browsers()  # what hung is not used again

    async def test_no_step_of_a_conversion_has_a_limit_of_its_own(self, connector: ComfyConnector) -> None:
        """Playwright's default of 30 s would end a cold first load before CONVERSION_TIMEOUT does."""
        await self.assert_converts(connector)
        assert connector._page is not None
        assert connector._page._page._impl_obj._timeout_settings.timeout(None) == 0

    @pytest.mark.parametrize(
        ("kind", "says"),
        [
            ("refuse", "the frontend refused to load it"),
            ("throw", "TypeError: this workflow is beyond me"),
            ("drop", "the frontend loaded 0 of its 1 nodes"),
        ],
    )
    async def test_what_the_frontend_says_against_a_workflow_is_told(
        self, connector: ComfyConnector, tree: Any, kind: str, says: str
    ) -> None:
        await self.assert_converts(connector)
        tree.behave(frontend=kind)
        assert connector._page is not None
        await connector._page.discard_page()
        with pytest.raises(cs.ConversionError) as caught:
            await connector.get_prompt_from_workflow(workflow(next(self.numbers)))
        assert says in str(caught.value)

    async def test_dialog_at_start_does_not_block(self, connector: ComfyConnector, tree: Any) -> None:
        await connector._restart_browser()
        tree.behave(frontend="dialog")
        await self.assert_converts(connector)

    async def test_unknown_node_is_named_with_title_and_pack(self, connector: ComfyConnector) -> None:
        node = {"type": "FancyNode", "title": "My fancy", "properties": {"cnr_id": "fancy-pack"}}
        with pytest.raises(cs.UnknownNodeError) as caught:
            await connector.get_prompt_from_workflow(workflow(**node))
        assert "FancyNode #1 ('My fancy') from the pack 'fancy-pack'" in str(caught.value)
        assert caught.value.unknown == {"1": "FancyNode"}

    async def test_concurrent_conversions_get_each_its_own(self, connector: ComfyConnector) -> None:
        prompts = await asyncio.gather(*(connector.get_prompt_from_workflow(workflow(i % 7)) for i in range(20)))
        assert prompts == [converted(i % 7) for i in range(20)]

    async def test_page_is_loaded_anew_after_so_many_conversions(
        self, connector: ComfyConnector, tree: Any, configure: Callable[..., None]
    ) -> None:
        await connector._restart_browser()
        configure(CONVERSIONS_PER_PAGE=2)
        before = page_loads(tree)
        for _ in range(5):
            await self.assert_converts(connector)
        assert page_loads(tree) - before == 3

    async def test_idle_browser_is_closed_and_comes_back(
        self, connector: ComfyConnector, configure: Callable[..., None]
    ) -> None:
        configure(BROWSER_IDLE_TIMEOUT=0.3)
        await self.assert_converts(connector)
        assert browsers()
        await until(lambda: not browsers())
        assert connector._page is None

    @pytest.mark.parametrize("moment", [0.05, 0.3, 0.6])
    async def test_conversion_cancelled_at_any_moment_leaves_the_next_one_working(
        self, connector: ComfyConnector, moment: float
    ) -> None:
        await connector._close_page()
        task = asyncio.create_task(connector.get_prompt_from_workflow(workflow(next(self.numbers))))
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        await self.assert_converts(connector)

    async def test_server_killed_during_a_conversion_is_restarted_for_it(
        self, connector: ComfyConnector, tree: Any
    ) -> None:
        task = await self.begin(connector, tree, frontend="never")
        assert connector._server is not None
        os.kill(connector._server.pid or 0, signal.SIGKILL)
        assert await asyncio.wait_for(task, 15)


@pytest.mark.parametrize(
    ("behaviour", "moment"),
    [({"frontend": "hang"}, 0.05), ({"frontend": "hang"}, 0.4), ({"delay": {"/object_info": 30}}, 0.1)],
    ids=["early", "late", "while-it-asks-the-server"],
)
async def test_kill_during_a_conversion_is_a_sentence(
    start: Start, fake_tree: Any, behaviour: dict[str, Any], moment: float
) -> None:
    connector = await start()
    fake_tree.behave(**behaviour)
    task = asyncio.create_task(connector.get_prompt_from_workflow(workflow()))
    await asyncio.sleep(moment)
    await connector.kill_api()
    assert not browsers()
    with pytest.raises(cs.ConnectorError, match="shut down"):
        await asyncio.wait_for(task, 15)


async def test_cancelled_kill_leaves_no_browser(start: Start) -> None:
    connector = await start()
    await connector.get_prompt_from_workflow(workflow())
    for _ in range(3):
        kill = asyncio.create_task(connector.kill_api())
        await asyncio.sleep(0.02)
        kill.cancel()
        await asyncio.wait([kill])
    assert connector.state == "killed"
    assert not browsers()


async def test_no_browser_at_all_is_one_clear_paragraph(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cs, "installed_browser", lambda: None)
    monkeypatch.delenv("DISCOMFORT_BROWSER", raising=False)  # ./dev sets it
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))
    connector = await start(AUTO_INSTALL_BROWSER=False)
    with pytest.raises(cs.BrowserError) as caught:
        await connector.get_prompt_from_workflow(workflow())
    message = str(caught.value)
    assert "\n" not in message
    for text in ("No browser could be started", "playwright install", "API format need no browser"):
        assert text in message
    assert "Tried: ." not in message
    await assert_works(connector)


async def test_browser_that_cannot_be_downloaded_says_so(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cs, "installed_browser", lambda: None)
    monkeypatch.delenv("DISCOMFORT_BROWSER", raising=False)  # ./dev sets it
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:9")
    connector = await start()
    with pytest.raises(cs.BrowserError, match=r"playwright install chromium: .*rror"):
        await connector.get_prompt_from_workflow(workflow())


@pytest.mark.parametrize("source", ["BROWSER_PATH", "DISCOMFORT_BROWSER"])
async def test_named_browser_that_does_not_exist_is_complained_about(
    start: Start, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "DISCOMFORT_BROWSER":
        monkeypatch.setenv(source, "/no/such/browser")
    connector = await start(**({source: "/no/such/browser"} if source == "BROWSER_PATH" else {}))
    with pytest.raises(cs.BrowserError, match=rf"{source} \(/no/such/browser\)") as caught:
        await connector.get_prompt_from_workflow(workflow())
    assert "playwright install chromium:" not in str(caught.value)  # a named browser is never replaced


@pytest.mark.usefixtures("no_leaks")
def test_loop_that_ends_with_an_open_browser_leaves_nothing(
    fake_tree: Any, write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")

    async def main() -> ComfyConnector:
        connector = await ComfyConnector.create(config)
        await connector.get_prompt_from_workflow(workflow())
        return connector

    connector = asyncio.run(main())
    assert connector.state == "killed"
    assert not browsers()


# ---- orchestrators that die ----

ORCHESTRATOR = """
import asyncio, json, sys, time
from discomfort.comfy_serverless import ComfyConnector

config, moment = sys.argv[1:]

def say(word):
    print(word, flush=True)

async def main():
    if moment == "starting":
        say("go")
    connector = await ComfyConnector.create(config)
    if moment == "browser":
        await connector.get_prompt_from_workflow({"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": 1}}],
                                                  "links": []})
    if moment != "starting":
        connector.upload_data(config, is_ephemeral=True)
        asyncio.get_running_loop().call_later(0.3, say, "go")
    try:
        await connector.run_workflow({"1": {"class_type": "Sleep", "inputs": {"seconds": 60}}}, False)
    finally:
        if moment == "tidy":
            await connector.kill_api()

asyncio.run(main())
"""


@contextlib.contextmanager
def orchestrator(config: Path, moment: str) -> Iterator[subprocess.Popen[str]]:
    """A script that starts a nested server, and has said that it is at the *moment*."""
    process = subprocess.Popen(
        [sys.executable, "-c", ORCHESTRATOR, str(config), moment],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def uploads(tree: Any) -> list[str]:
    """The files in the tree's input folder."""
    folder = tree.path / "input"
    return os.listdir(folder) if folder.exists() else []


@pytest.mark.parametrize("moment", ["starting", "browser", "running"])
@pytest.mark.usefixtures("no_leaks")
def test_killed_orchestrator_leaves_nothing_for_longer_than_five_seconds(
    fake_tree: Any, write_config: Callable[..., Path], nested: Any, wait_for: Callable[..., Any], moment: str
) -> None:
    fake_tree.behave(ignore_signals=True, start_delay=0.5 if moment == "starting" else 0)
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    with orchestrator(config, moment) as process:
        if moment == "starting":
            wait_for(fake_tree.starts)
        assert nested.processes()
        assert uploads(fake_tree) == ([] if moment == "starting" else [config.name])
        process.kill()
        wait_for(lambda: not nested.processes() and not nested.folders(), 5, "the end of what it left")
        assert not uploads(fake_tree)


LIFE = """
import asyncio, sys
from discomfort.comfy_serverless import ComfyConnector

async def main():
    print("starting", flush=True)
    connector = await ComfyConnector.create(sys.argv[1])
    print("ready", flush=True)
    await connector.run_workflow({"1": {"class_type": "Echo", "inputs": {"value": 1}}}, False)
    print("converting", flush=True)
    workflow = {"nodes": [{"id": 1, "type": "Echo", "widgets_values": {"value": 1}}], "links": []}
    await connector.get_prompt_from_workflow(workflow)
    print("running", flush=True)
    await connector.run_workflow({"1": {"class_type": "Sleep", "inputs": {"seconds": 60}}}, False)

asyncio.run(main())
"""


@pytest.mark.usefixtures("no_leaks")
def test_orchestrator_killed_at_twenty_random_moments_leaves_nothing_for_five_seconds(
    fake_tree: Any, write_config: Callable[..., Path], left_of_killed: Callable[..., str]
) -> None:
    """Twenty kills, five in each part of a life, up to 0.6 s after its begin; four lives go on at once."""
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu", STORE_CONVERSIONS=False)

    def life(number: int) -> str:
        part = ("starting", "ready", "converting", "running")[number % 4]
        return left_of_killed([LIFE, str(config)], part, random.uniform(0, 0.6))

    with ThreadPoolExecutor(4) as pool:
        assert not [left for left in pool.map(life, range(20)) if left]


async def test_next_start_sweeps_what_a_killed_orchestrator_and_its_killed_guard_left(
    start: Start, fake_tree: Any, write_config: Callable[..., Path], nested: Any, first_port: int
) -> None:
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")

    def crash() -> set[int]:
        """What a killed orchestrator and its killed guard leave: pids."""
        with orchestrator(config, "browser") as process:
            guards = [p for p in nested.processes() if "-I" in p.cmdline()]
            assert len(guards) == 1
            process.send_signal(signal.SIGSTOP)  # it must not see its guard die
            guards[0].kill()
            process.kill()
        return {p.pid for p in nested.processes()}

    old = await asyncio.to_thread(crash)
    assert old
    assert nested.folders()
    assert uploads(fake_tree)
    connector = await start()
    assert not uploads(fake_tree)
    assert not old & {p.pid for p in await asyncio.to_thread(nested.processes)}
    assert {Path(folder).name for folder in nested.folders()} == {
        connector._folder.path.name if connector._folder else "", f"port-{first_port}.lock"
    }  # fmt: skip


async def test_running_servers_of_others_are_never_swept(
    start: Start, fake_tree: Any, write_config: Callable[..., Path], nested: Any, first_port: int
) -> None:
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    with contextlib.ExitStack() as stack:
        process = await asyncio.to_thread(stack.enter_context, orchestrator(config, "running"))
        theirs = {p.pid for p in await asyncio.to_thread(nested.processes)}
        connector = await start()
        await assert_works(connector)
        assert connector.server_address == f"http://127.0.0.1:{first_port + 1}"
        await connector.kill_api()
        assert theirs <= {p.pid for p in await asyncio.to_thread(nested.processes)}
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.communicate, timeout=10)


@pytest.mark.parametrize("moment", ["starting", "running", "tidy", "browser"])
@pytest.mark.usefixtures("no_leaks")
def test_ctrl_c_ends_everything(fake_tree: Any, write_config: Callable[..., Path], nested: Any, moment: str) -> None:
    fake_tree.behave(start_delay=1.0 if moment == "starting" else 0)
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    with orchestrator(config, moment) as process:
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the browser gets it too
        output, errors = process.communicate(timeout=10)
    assert not output
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    for complaint in ("never retrieved", "Unclosed", "was destroyed", "exception ignored"):
        assert complaint.lower() not in errors.lower()
    assert not nested.processes()
    assert not nested.folders()


@pytest.mark.usefixtures("no_leaks")
async def test_script_that_forgets_to_kill_leaves_nothing(
    fake_tree: Any, write_config: Callable[..., Path], nested: Any
) -> None:
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    script = (
        "import asyncio, sys\n"
        "from discomfort.comfy_serverless import ComfyConnector\n"
        "async def main():\n"
        "    c = await ComfyConnector.create(sys.argv[1])\n"
        "    await c.run_workflow({'1': {'class_type': 'Echo', 'inputs': {'value': 1}}}, False)\n"
    )
    ends = {
        "asyncio.run": "asyncio.run(main())\n",
        "a loop by hand": "asyncio.new_event_loop().run_until_complete(main())\n",
        "sys.exit": "    sys.exit(0)\nasyncio.run(main())\n",
    }
    for name, end in ends.items():
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-X", "dev", "-c", script + end, str(config)],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if name != "a loop by hand":  # that loop is never closed, which Python itself complains of
            assert done.stderr == ""
        assert not nested.processes(), name
        assert not nested.folders(), name


@pytest.mark.usefixtures("no_leaks")
def test_two_processes_that_start_at_once_take_two_ports(
    fake_tree: Any, write_config: Callable[..., Path], nested: Any
) -> None:
    config = write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu")
    command = [sys.executable, "-c", ORCHESTRATOR, str(config), "running"]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
        ports = [argv[argv.index("--port") + 1] for argv in fake_tree.starts()]
        assert len(set(ports)) == len(processes), ports
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.communicate(timeout=10)
    assert not nested.processes()


# ---- the event loop ----


async def test_nothing_blocks_the_event_loop(start: Start, fake_tree: Any, strict_loop: Any) -> None:
    """What every test of this file checks (see strict_loop in conftest.py), for all that may block in one life: start,
    first run, browser, conversion, many runs, restart of a dead server, stop of one that ignores signals.
    """
    assert asyncio.get_running_loop().get_debug()
    assert asyncio.get_running_loop().slow_callback_duration == 0.1
    connector = await start(STOP_TIMEOUT=0.3)
    await assert_works(connector)
    await connector.get_prompt_from_workflow(workflow())
    await asyncio.gather(*(run(connector, echo(i)) for i in range(20)))
    assert connector._server is not None
    os.kill(connector._server.pid or 0, signal.SIGKILL)
    fake_tree.behave(ignore_signals=True)
    await assert_works(connector)
    await connector.kill_api()
    assert not strict_loop.texts


async def test_what_blocks_the_event_loop_is_noticed(strict_loop: Any) -> None:
    time.sleep(0.3)  # noqa: ASYNC251 - what must not go unseen
    await asyncio.sleep(0)
    asyncio.get_running_loop().create_future().set_exception(ValueError("nobody retrieves me"))
    await asyncio.sleep(0)
    gc.collect()
    found, strict_loop.texts = strict_loop.texts, []
    assert len(found) == 2
    assert "seconds" in found[0]
    assert "nobody retrieves me" in found[1]


async def test_loading_the_browsers_library_does_not_block_the_event_loop(
    fake_tree: Any, write_config: Callable[..., Path], no_leaks: None
) -> None:
    """It is loaded once, therefore in a process of its own, and timed against its loading there."""
    script = """
import asyncio, sys, time
from discomfort.comfy_serverless import ComfyConnector

async def main():
    connector = await ComfyConnector.create(sys.argv[1])
    assert "playwright.async_api" not in sys.modules
    gaps, last = [], time.perf_counter()
    async def tick():
        nonlocal last
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
    ticker = asyncio.create_task(tick())
    await connector._init_playwright()
    ticker.cancel()
    assert "playwright.async_api" in sys.modules
    await connector.kill_api()
    print(max(gaps))

asyncio.run(main())
"""
    config = str(write_config(COMFYUI_PATH=str(fake_tree.path), DEVICE="cpu"))
    begin = "import time; t = time.perf_counter(); import playwright.async_api; print(time.perf_counter() - t)"
    for _ in range(3):  # on a busy machine anything may hold up a loop
        loading = await asyncio.to_thread(_output_of, [sys.executable, "-c", begin])
        longest = await asyncio.to_thread(_output_of, [sys.executable, "-c", script, config])
        if float(longest) < float(loading) / 2:
            return
    raise AssertionError(f"the loop stood still for {longest} s; loading takes {loading} s")


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
