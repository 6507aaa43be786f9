"""What it costs to keep a run: the same loop with ``checkpoint=`` and without.

    ./dev run python benchmarks/durability.py [--folder FOLDER] [--only NAME] [--json] [--quick]

It runs on the embedded server, and then on the ComfyUI that the environment variable COMFYUI_PATH names, if any. A
picture goes round in a loop and is another one each time, so that all of it has to be written to the disk after every
step. Blocks of both kinds take turns on the same server; each kept one has a new folder (in the temporary folder, or in
FOLDER). The first block of each kind warms up, as does the first iteration of each block.

Names of what is measured: ``1``, ``100``: a picture of so many MB, and a node that only copies it. ``1-work`` and
``100-work``: the same with a node that takes half a second, which is little for a diffusion model.

Where the time goes, after the run's record: *values and journal*, what the run waits for until they are on the disk
(``record.checkpoint_seconds``). Beside it stands what the disk takes for the same bytes alone, written and synced.

--quick runs a few iterations of all, to see that it works; figures mean nothing then.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from discomfort.run_record import RunResult
from loop_cases import node, port
from measure import markdown, median, milliseconds
from memory_ceiling import configuration, configurations

from discomfort import Discomfort

WORK = 0.5  # seconds
# The server keeps no more than these results, or else hundreds of pictures of 100 MB would fill the memory.
CACHE = 4


class Case(NamedTuple):
    """What is run."""

    #: what ``--only`` calls it
    name: str
    #: a phrase for tables
    title: str
    megabytes: int
    #: that a step takes beside the copying
    seconds: float
    #: blocks of each kind, and iterations in each; one more of both warms up
    blocks: int
    iterations: int


CASES = (
    Case("1", "1 MB", 1, 0.0, 10, 10),
    Case("100", "100 MB", 100, 0.0, 6, 5),
    Case("1-work", f"1 MB, a step of {WORK:g} s", 1, WORK, 3, 6),
    Case("100-work", f"100 MB, a step of {WORK:g} s", 100, WORK, 3, 6),
)


class Clock:
    """A loop's condition that notes when each iteration begins, and ends the loop."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.times: list[float] = []

    def __call__(self, values: Any, iteration: int) -> bool:
        self.times.append(time.perf_counter())
        return iteration < self.iterations

    @property
    def seconds(self) -> list[float]:
        """Of each iteration."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def picture(megabytes: int) -> torch.Tensor:
    """A square picture of about so many MB (1e6 bytes)."""
    side = round(math.sqrt(megabytes * 10**6 / 12))
    return torch.rand(1, side, side, 3)


def changes(seconds: float) -> dict[str, Any]:
    """A workflow that makes another picture of a picture."""
    return {
        "1": port("picture"),
        "2": node("ChaosChange", picture=["1", 0], seconds=seconds),
        "3": port("picture", "2", 0),
    }


def disk_seconds(folder: Path, content: Any) -> float:
    """Seconds for writing bytes and syncing them."""
    file = folder / "plain"
    started = time.perf_counter()
    with file.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - started
    file.unlink()
    return seconds


def check(result: RunResult, start: torch.Tensor, iterations: int) -> None:
    """What was measured is what was meant: so many iterations, each executed."""
    cached = sum(len(step.cached_nodes) for step in result.record.steps)
    counted = round(float(result["picture"][0, 0, 0, 0] - start[0, 0, 0, 0]))
    if cached or counted != iterations:
        raise SystemExit(f"{counted} of {iterations} iterations counted, {cached} nodes came from the server's cache")


async def compare(d: Discomfort, case: Case, folder: Path) -> dict[str, Any]:
    """Both kinds in turns: figures per iteration."""
    start = picture(case.megabytes)
    numbers = itertools.count(1)
    content = memoryview(start.numpy()).cast("B")
    found: dict[str, list[float]] = {"plain": [], "kept": [], "checkpoint": [], "disk": []}
    written = 0
    for block in range(case.blocks + 1):
        for kind in ("plain", "kept") if block % 2 else ("kept", "plain"):
            clock = Clock(case.iterations + 1)
            start[0, 0, 0, 1] = next(numbers)  # or else the server would know the result
            place = folder / f"run{block}"
            result = await d.run(
                [changes(case.seconds)],
                inputs={"picture": start},
                iterations=case.iterations + 2,  # the clock ends it, and so is asked at the end of the last one too
                loop_condition=clock,
                checkpoint=place if kind == "kept" else None,
                progress=False,
            )
            check(result, start, case.iterations + 1)
            if block:
                found[kind] += clock.seconds[1:]
            if kind == "kept":
                shutil.rmtree(place)
                if block:
                    # Its input was written too, once.
                    found["checkpoint"].append(result.record.checkpoint_seconds / (case.iterations + 2))
                    written = result.record.checkpoint_bytes // (case.iterations + 2)
        if block:
            found["disk"].append(disk_seconds(folder, content))
    figures = {kind: median(seconds) for kind, seconds in found.items()}
    return {**figures, "ratio": figures["kept"] / figures["plain"], "bytes": written, "count": len(found["kept"])}


async def measure(path: str, names: list[str], folder: Path, is_quick: bool) -> dict[str, Any]:
    """Figures of one server."""
    found = {}
    async with await Discomfort.create(configuration(folder, path, CACHE_LRU=CACHE)) as d:
        for case in CASES:
            if case.name in names:
                small = case._replace(blocks=1, iterations=2) if is_quick else case
                found[case.name] = {"title": case.title, **await compare(d, small, folder)}
    return found


def tables(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: one table for each server."""
    head = ["without", "kept", "ratio", "more", "values and journal", "the disk alone", "written"]
    written = []
    for server, cases in found.items():
        rows = [
            [
                f["title"],
                milliseconds(f["plain"]),
                milliseconds(f["kept"]),
                f"{f['ratio']:.2f}",
                milliseconds(f["kept"] - f["plain"]),
                milliseconds(f["checkpoint"]),
                milliseconds(f["disk"]),
                f"{f['bytes'] / 1e6:.1f} MB",
            ]
            for f in cases.values()
        ]
        written.append(markdown([f"an iteration, {server}", *head], rows))
    return "\n\n".join(written)


def main() -> int:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", help="where runs are kept (default: the temporary folder)")
    parser.add_argument("--only", action="append", choices=names, help="measure this alone; may be given several times")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a few iterations: does it work?")
    arguments: Any = parser.parse_args()
    found = {}
    for server, path in configurations().items():
        with tempfile.TemporaryDirectory(prefix="dc-", dir=arguments.folder) as folder:
            found[server] = asyncio.run(measure(path, arguments.only or names, Path(folder), arguments.quick))
    if arguments.json:
        print(json.dumps({"machine": platform.platform(), "servers": found}))
    else:
        print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n{tables(found)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
