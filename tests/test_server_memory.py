"""Memory after each step, and ceilings: what is decided (pure), and what is done on a server that leaks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from discomfort.durable.retry import Attempts, Retry
from discomfort.durable.server_memory import GB, Ceiling, ServerMemory, device_figures, process_memory, vram_used
from pack_server import SERVERS, pack_config, server_path
from prompt_parts import node, port

from discomfort import Discomfort

TESTS = Path(__file__).parent


# --------------------------------------------------------------------------------------------------------- ceilings


def test_a_ceiling_looks_ahead() -> None:
    """What the recent steps added at most is left free; the first step, which loads things, does not count."""
    ceiling = Ceiling("server_ram", 10)
    assert [ceiling.is_near(int(gb * GB)) for gb in (1, 6, 7, 8.4)] == [False] * 4
    assert ceiling.is_near(int(8.7 * GB))  # one of the last steps added 1.4
    assert Ceiling("server_ram", None).is_near(10**15) is False


def test_a_ceiling_is_near_when_the_next_step_would_pass_it() -> None:
    ceiling = Ceiling("server_ram", 10)
    used = [1, 2, 3.5, 5, 6.5, 8]
    assert [ceiling.is_near(int(gb * GB)) for gb in used] == [False] * 6
    assert ceiling.is_near(int(9 * GB))
    ceiling.restarted()
    assert not ceiling.is_near(1 * GB)
    assert not ceiling.is_too_low(1 * GB)


def test_a_ceiling_that_a_fresh_server_is_above_is_raised_and_not_fought() -> None:
    ceiling = Ceiling("server_ram", 1)
    assert ceiling.is_near(2 * GB)
    assert not ceiling.is_too_low(2 * GB)  # it may be full of other things
    ceiling.restarted()
    assert ceiling.is_near(2 * GB)
    assert ceiling.is_too_low(2 * GB)
    ceiling.raise_to(2 * GB)
    assert not ceiling.is_near(int(2.3 * GB))
    assert ceiling.is_near(int(2.6 * GB))


class FakeConnector:
    """A server that says what its devices have, and frees what it was told to."""

    server_pid = None
    server_address = "http://127.0.0.1:1"

    def __init__(self, vram: list[float], can_restart: bool = True) -> None:
        self.vram, self.can_restart, self.done = vram, can_restart, []

    async def system_stats(self) -> Any:
        used = self.vram[0]
        device = {"type": "cuda", "vram_total": 24 * GB, "vram_free": int((24 - used) * GB)}
        return {"system": {"ram_total": 1, "ram_free": 1}, "devices": [{**device, "torch_vram_total": int(used * GB)}]}

    async def free(self, unload_models: bool, free_memory: bool) -> None:
        self.done.append("free")
        self.vram.pop(0)

    async def restart(self, reason: str) -> None:
        self.done.append("restart")
        self.vram.pop(0)


class NoContext:
    def get_usage(self) -> Any:
        return {"ram_usage_bytes": 5, "temp_disk_usage_bytes": 7}


async def test_vram_is_freed_first_and_the_server_restarted_if_that_does_not_help() -> None:
    for vram, actions in (([9.0, 1.0], ["free"]), ([9.0, 8.5, 1.0], ["free", "restart"])):
        connector = FakeConnector(list(vram))
        memory = ServerMemory(connector, NoContext(), None, 8.0)  # type: ignore[arg-type]
        (entry,) = await memory.relieve()
        assert connector.done == actions
        assert entry["what"] == "vram"
        assert entry["action"] == ("restarted" if "restart" in actions else "freed")
        assert (entry["before"], entry["after"], entry["limit"]) == (9 * GB, GB, 8 * GB)
        assert entry["seconds"] > 0
        assert await memory.relieve() == []


async def test_what_freeing_did_not_help_against_is_not_freed_again() -> None:
    connector = FakeConnector([9.0, 8.9, 1.0, 1.0])
    memory = ServerMemory(connector, NoContext(), None, 8.0)  # type: ignore[arg-type]
    await memory.relieve()
    assert await memory.relieve() == []
    connector.vram = [8.5, 1.0]
    (entry,) = await memory.relieve()
    assert connector.done == ["free", "restart", "restart"]
    assert (entry["before"], entry["after"]) == (int(8.5 * GB), GB)


async def test_a_server_of_somebody_else_is_not_restarted(caplog: pytest.LogCaptureFixture) -> None:
    connector = FakeConnector([9.0, 8.5], can_restart=False)
    memory = ServerMemory(connector, NoContext(), None, 8.0)  # type: ignore[arg-type]
    assert [entry["action"] for entry in await memory.relieve()] == ["freed"]
    assert await memory.relieve() == []
    assert connector.done == ["free"]
    assert "was not started by this process" in caplog.text


def test_figures_of_a_server_that_says_nothing_useful_are_left_out() -> None:
    assert device_figures(None) == device_figures({"devices": [3, {"type": "cpu", "vram_total": 1}]}) == {}
    two = [{"type": "cuda", "vram_total": 10, "vram_free": 4}, {"type": "cuda", "vram_total": 10, "vram_free": 5}]
    found = device_figures({"system": {"ram_total": 3, "ram_free": "?"}, "devices": two})
    assert found == {"ram_total": 3, "vram_total": 20, "vram_free": 9}
    assert vram_used(found) == 11
    assert vram_used({}) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells private memory apart")
def test_shared_memory_is_not_private() -> None:
    """A process with 64 MB of its own and 64 MB that are mapped from shared memory, and a child with 32 MB."""
    script = (
        "import mmap,os,subprocess,sys,time\n"
        "own=b'x'*(64<<20); fd=os.memfd_create('a'); os.truncate(fd,64<<20)\n"
        "shared=mmap.mmap(fd,64<<20); shared.write(own)\n"
        "code='import time; a=b\"x\"*(32<<20); print(1,flush=True); time.sleep(60)'\n"
        "child=subprocess.Popen([sys.executable,'-c',code],stdout=subprocess.PIPE); child.stdout.readline()\n"
        "print('ready',flush=True); sys.stdin.read(); child.kill()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        resident, private = process_memory(process.pid)
        assert 96 * 2**20 < private < 160 * 2**20
        assert resident > private + 60 * 2**20
    finally:
        process.communicate(b"")
    assert process_memory(process.pid) == (0, 0)


# --------------------------------------------------------------------------------------------------------- attempts


def test_attempts_are_bounded_by_kind_and_wait_longer_each_time() -> None:
    attempts = Attempts(Retry(server=4, node=2, delay=1, max_delay=3))
    assert [attempts.next_action(reason) for reason in ("memory", "error", "memory", "died")] == [
        "free",
        "wait",
        "restart",
        "restart",
    ]
    assert attempts.next_action("hung") is None
    assert attempts.next_action("error") is None
    assert [attempts.next_delay() for _ in range(4)] == [1, 2, 3, 3]


def test_a_retry_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"server": 0}, {"node": 1.5}, {"node": True}, {"delay": -1}, {"max_delay": float("inf")}):
        with pytest.raises(ValueError, match="must be"):
            Retry(**wrong)  # type: ignore[arg-type]
    assert Retry.parse(3) == Retry(node=3)
    assert Retry.parse(None) is None
    with pytest.raises(TypeError, match="retry is True"):
        Retry.parse(True)


# ------------------------------------------------------------------------------------------------- on a real server


@pytest_asyncio.fixture(params=SERVERS)
async def d(
    request: pytest.FixtureRequest, write_config: Callable[..., Path], tmp_path: Path
) -> AsyncIterator[Discomfort]:
    """A fresh server with the pack of tests/run_packs; a prompt that says nothing for four seconds hangs."""
    config = pack_config(write_config, tmp_path, server_path(request.param), STALL_TIMEOUT=4)
    async with await Discomfort.create(config) as discomfort:
        yield discomfort


async def test_a_server_that_leaks_is_kept_under_its_ceiling_with_all_state(d: Discomfort, tmp_path: Path) -> None:
    add = {
        "1": port("n"),
        "2": node("RunTestMix", state=["1", 0], by=1, seed=0, log=str(tmp_path / "log")),
        "3": node("RunTestHoard", number=["2", 0], megabytes=50),
        "4": port("n", ["3", 0]),
    }
    # So many steps that the growth is known, and then the ceiling is four of them away.
    await d.run([add], {"n": 0}, iterations=2, seed_policy="fixed")
    assert d.Worker.server_pid is not None
    base = process_memory(d.Worker.server_pid)[1] / GB
    ceiling = base + 0.25
    highest, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            pid = d.Worker.server_pid
            highest[0] = max(highest[0], process_memory(pid)[1] if pid else 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = await d.run(
            [add],
            {"n": 0},
            iterations=14,
            seed_policy="fixed",
            max_server_ram_gb=ceiling,
            checkpoint=tmp_path / "run",
        )
    finally:
        is_over.set()
        watcher.join()
    expected = 0
    for _ in range(14):
        expected = expected * 3 + 1
    assert result["n"] == expected % 1_000_000
    assert highest[0] < ceiling * GB
    assert result.record.recycles
    assert all(entry["action"] == "restarted" for entry in result.record.recycles)
    assert all(entry["after"] < entry["before"] <= entry["limit"] for entry in result.record.recycles)
    assert 0 < result.record.recycle_seconds < result.record.seconds
    assert "recycling the server" in result.record.summary()
    assert all(step.memory["server_private"] > 0 for step in result.record.steps)


async def test_a_server_that_hangs_is_restarted_and_the_step_run_again(d: Discomfort, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hangs = {
        "1": port("n"),
        "2": node("RunTestFlaky", number=["1", 0], ways="hang", log=str(log)),
        "3": port("n", ["2", 0]),
    }
    started = time.monotonic()
    result = await d.run([hangs], {"n": 3}, retry=Retry(delay=0.1))
    assert result["n"] == 3
    (step,) = result.record.steps
    assert [(retry["reason"], retry["action"]) for retry in step.retries] == [("hung", "restart")]
    assert "STALL_TIMEOUT" in step.retries[0]["error"]
    assert time.monotonic() - started < 50  # the node would sleep for 60
    assert len(set(log.read_text().splitlines())) == 2
