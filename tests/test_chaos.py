"""A run that is killed at bad moments ends as if nobody had; a server that leaks stays under its ceiling.

The long versions are benchmarks/chaos.py and benchmarks/memory_ceiling.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos_killer import SHORT, Chaos
from discomfort.durable.server_memory import GB, process_memory
from prompt_parts import node, port

from discomfort import Discomfort

TESTS = Path(__file__).parent
SERVERS = ["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody is killed like this on Windows")


def path_of(server: str) -> str:
    """COMFYUI_PATH of a server."""
    if server == "embedded":
        return server
    path = os.environ.get("COMFYUI_PATH", "")
    if path in ("", "embedded"):
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    return str(Path(path).expanduser().resolve())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", SERVERS)
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_nobody_disturbed(
    server: str, private_folders: Path, first_port: int
) -> None:
    order = SHORT if server == "embedded" else SHORT[:4]
    config = {"COMFYUI_PATH": path_of(server), "DEVICE": "cpu", "INITIAL_PORT": first_port}
    with Chaos(private_folders, config, rounds=3, seed=5) as chaos:
        expected = chaos.undisturbed()
        outcome = chaos.disturb(len(order), order)
        assert chaos.check(expected) == []
        assert len(outcome.kills) == len(order)


# -------------------------------------------------------------------------------------------------- a server that leaks

LEAK = 50  # MB
ROOM = 0.3  # GB above what the server has at first: six leaks, and then it has to go


class Watcher(threading.Thread):
    """Looks every 50 ms at the private memory of a test's servers, old and new ones together.

    Made before the first one is started: what this process has started until then is other tests'.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0
        self._is_over = threading.Event()
        self._others = {child.pid for child in psutil.Process().children()}

    def look(self) -> int:
        with contextlib.suppress(psutil.Error):
            pids = {child.pid for child in psutil.Process().children()} - self._others
            return sum(process_memory(pid)[1] for pid in pids)
        return 0

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            self.highest = max(self.highest, self.look())

    def end(self) -> int:
        self._is_over.set()
        self.join()
        return self.highest


@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.usefixtures("no_leaks", "data_roots")
async def test_a_server_that_leaks_is_never_seen_above_its_ceiling(
    server: str, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    packs = tmp_path / "packs.yaml"
    packs.write_text(json.dumps({"custom_nodes": {"base_path": str(TESTS), "custom_nodes": "run_packs"}}))
    command = f"python3 main.py --extra-model-paths-config '{packs}'"

    def leaks(megabytes: int) -> dict[str, Any]:
        leak = node("ChaosLeak", number=["1", 0], megabytes=megabytes)
        return {"1": port("number"), "2": leak, "3": port("number", ["2", 0])}

    config = write_config(COMFYUI_PATH=path_of(server), DEVICE="cpu", API_COMMAND_LINE=command)
    watcher = Watcher()
    async with await Discomfort.create(config) as d:
        await d.run([leaks(0)], inputs={"number": 1}, progress=False)
        before = watcher.look()
        ceiling = before / GB + ROOM
        watcher.start()
        result = await d.run(
            [leaks(LEAK)],
            inputs={"number": 0},
            iterations=14,
            max_server_ram_gb=ceiling,
            checkpoint=tmp_path / "run",
            progress=False,
        )
        highest = watcher.end()
    assert result["number"] == 14
    assert before + 3 * LEAK * 10**6 < highest <= ceiling * GB
    restarts = [one for one in result.record.recycles if one["action"] == "restarted"]
    assert len(restarts) >= 2
    assert all(one["what"] == "server_ram" and one["after"] < one["before"] <= one["limit"] for one in restarts)
    assert result.record.recycle_seconds > 0
    journal = [json.loads(line) for line in (tmp_path / "run" / "run.jsonl").read_text().splitlines()]
    assert sum(entry["kind"] == "recycle" for entry in journal) == len(result.record.recycles)
    assert sum(entry["kind"] == "step" for entry in journal) == 14
