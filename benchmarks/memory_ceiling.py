"""Whether ``max_server_ram_gb`` keeps a server whose nodes leak under its ceiling, and what that costs.

    ./dev run python benchmarks/memory_ceiling.py [ITERATIONS] [--ceiling GB] [--leak MB] [--json] [--quick]

It runs on the embedded server, and then on the ComfyUI that the environment variable COMFYUI_PATH names, if any. A node
leaks 50 MB (1e6 bytes each) in every one of 300 iterations; the ceiling is 2 GB (1024**3 bytes each). A thread of this
process looks every 50 ms at the private memory of all processes that it has started, old servers that are going
and new ones that are coming included, and nothing that it sees may be above the ceiling. A loop variable counts the
iterations: it has to be right although the server is another one again and again.

--quick runs a few iterations, with a ceiling that is near from the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from discomfort.durable.server_memory import GB, process_memory
from loop_cases import node, port
from measure import Goal, all_kept, goals_table, markdown

from discomfort import Discomfort

PACKS = Path(__file__).resolve().parent.parent / "tests"
# Seconds between two looks.
PAUSE = 0.05
# With --quick the ceiling is so much above what the server has at first.
QUICK_ROOM = 0.35


class Watcher(threading.Thread):
    """Looks at the private memory of this process's children and theirs."""

    def __init__(self) -> None:
        super().__init__(name="memory-watcher", daemon=True)
        #: bytes, at most
        self.highest = 0
        self.looks = 0
        self._is_over = threading.Event()

    @staticmethod
    def look() -> int:
        """Bytes, now."""
        with contextlib.suppress(psutil.Error):
            return sum(process_memory(child.pid)[1] for child in psutil.Process().children())
        return 0

    def run(self) -> None:
        while not self._is_over.wait(PAUSE):
            self.highest = max(self.highest, self.look())
            self.looks += 1

    def end(self) -> None:
        self._is_over.set()
        self.join()


def leaks(megabytes: int) -> dict[str, Any]:
    """A workflow that counts and leaks."""
    return {
        "1": port("number"),
        "2": node("ChaosLeak", number=["1", 0], megabytes=megabytes),
        "3": port("number", "2", 0),
    }


def configuration(folder: Path, path: str, **keys: Any) -> Path:
    """A configuration file of a server with the pack of tests/run_packs."""
    packs = folder / "packs.yaml"
    packs.write_text(json.dumps({"custom_nodes": {"base_path": str(PACKS), "custom_nodes": "run_packs"}}))
    command = f"python3 main.py --extra-model-paths-config '{packs}'"
    file = folder / "comfy_serverless.json"
    place = {"COMFYUI_PATH": path, "DEVICE": "cpu", "INITIAL_PORT": 28500, "API_COMMAND_LINE": command}
    file.write_text(json.dumps({**place, **keys}))
    return file


def configurations() -> dict[str, str]:
    """{title: COMFYUI_PATH} of the servers to run on."""
    found = {"embedded": "embedded"}
    path = os.environ.get("COMFYUI_PATH", "")
    if path not in ("", "embedded"):
        found["comfyui"] = str(Path(path).expanduser().resolve())
    return found


async def measure(path: str, iterations: int, megabytes: int, ceiling: float | None) -> dict[str, Any]:
    """Figures of one server."""
    with tempfile.TemporaryDirectory(prefix="dc-") as folder:
        async with await Discomfort.create(configuration(Path(folder), path)) as d:
            # A first run loads what all others use.
            await d.run([leaks(0)], inputs={"number": 1}, progress=False)
            base = Watcher.look()
            ceiling = ceiling or base / GB + QUICK_ROOM
            watcher = Watcher()
            watcher.start()
            started = time.perf_counter()
            try:
                result = await d.run(
                    [leaks(megabytes)],
                    inputs={"number": 0},
                    iterations=iterations,
                    max_server_ram_gb=ceiling,
                    progress=False,
                )
            finally:
                watcher.end()
            seconds = time.perf_counter() - started
        record = result.record
        return {
            "iterations": iterations,
            "counted": result["number"],
            "leaked": iterations * megabytes * 10**6,
            "ceiling": int(ceiling * GB),
            "base": base,
            "highest": watcher.highest,
            "looks": watcher.looks,
            "freed": sum(one["action"] == "freed" for one in record.recycles),
            "restarted": sum(one["action"] == "restarted" for one in record.recycles),
            "recycle_seconds": record.recycle_seconds,
            "seconds": seconds,
        }


def tables(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""

    def cells(what: str, text: Any) -> list[str]:
        return [what, *(text(figures) for figures in found.values())]

    rows = [
        cells("iterations", lambda f: f"{f['iterations']}"),
        cells("leaked in all", lambda f: f"{f['leaked'] / GB:.1f} GB"),
        cells("the server's memory at first", lambda f: f"{f['base'] / GB:.2f} GB"),
        cells("the ceiling", lambda f: f"{f['ceiling'] / GB:.2f} GB"),
        cells("the most that was seen", lambda f: f"{f['highest'] / GB:.2f} GB in {f['looks']} looks"),
        cells("the server was restarted", lambda f: f"{f['restarted']} times"),
        cells("and only freed", lambda f: f"{f['freed']} times"),
        cells("seconds in all", lambda f: f"{f['seconds']:.1f}"),
        cells("of these for recycling", lambda f: f"{f['recycle_seconds']:.1f}"),
        cells("a recycling", lambda f: f"{f['recycle_seconds'] / max(f['restarted'] + f['freed'], 1):.1f} s"),
    ]
    return markdown(["", *found], rows)


def goals(found: dict[str, dict[str, Any]]) -> list[Goal]:
    """The ceiling is kept, and the result is right."""
    judged = []
    for server, f in found.items():
        judged.append(
            Goal(f"{server}: the most that was seen", f["highest"] / GB, round(f["ceiling"] / GB, 3), True, " GB")
        )
        judged.append(Goal(f"{server}: iterations that count", float(f["counted"]), float(f["iterations"])))
    return judged


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("iterations", nargs="?", type=int, default=300, help="default: 300")
    parser.add_argument("--ceiling", type=float, default=2.0, help="GB (default: 2)")
    parser.add_argument("--leak", type=int, default=50, help="MB in each iteration (default: 50)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a dozen iterations with a low ceiling: does it work?")
    arguments: Any = parser.parse_args()
    iterations = 12 if arguments.quick else arguments.iterations
    ceiling = None if arguments.quick else arguments.ceiling
    found = {
        server: asyncio.run(measure(path, iterations, arguments.leak, ceiling))
        for server, path in configurations().items()
    }
    judged = goals(found)
    if arguments.json:
        bounds = [{**goal._asdict(), "is_kept": goal.is_kept} for goal in judged]
        print(json.dumps({"machine": platform.platform(), "servers": found, "goals": bounds}))
    else:
        print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n{tables(found)}")
        print(f"\n{goals_table(judged)}")
    return 0 if all_kept(judged) else 1


if __name__ == "__main__":
    raise SystemExit(main())
