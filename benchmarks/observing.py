"""What it costs to be looked at: the same loop with the sidebar's eyes on it, with nobody there, and switched off.

    ./dev run python benchmarks/observing.py [--only NAME] [--json] [--quick]

It runs on the embedded server, and then on the ComfyUI that the environment variable COMFYUI_PATH names, if any. Blocks
of three kinds take turns on the same server: *off* (``DISCOMFORT_OBSERVE=0``), *nobody* (no editor is open, as in most
scripts), and *watched* (an editor in the same process, which takes every status, as the runner nodes have it). A value
goes round in a loop and is another one each time. The first block of each kind warms up.

Names of what is measured: ``number``: a step of next to nothing, the worst case. ``1``, ``10``: a picture of so many
MB, of which the watched kind makes small pictures and figures, in a tenth of the time at most.

--quick runs a few iterations of all, to see that it works; figures mean nothing then.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from discomfort.observing import editors
from durability import Clock, changes, picture
from loop_cases import node, port
from measure import markdown, median, milliseconds
from memory_ceiling import configuration, configurations

from discomfort import Discomfort

KINDS = ("off", "nobody", "watched")


class Case(NamedTuple):
    """What is run."""

    name: str
    title: str
    #: MB of the picture; 0: a number
    megabytes: int
    blocks: int
    iterations: int


CASES = (
    Case("number", "a number", 0, 12, 60),
    Case("1", "a picture of 1 MB", 1, 10, 30),
    Case("10", "a picture of 10 MB", 10, 6, 10),
)


class Watcher:
    """An editor that takes what it is told and does nothing with it."""

    def __init__(self) -> None:
        self.statuses = 0

    def attach(self, run_id: str, folder: str, command: Callable[[dict[str, Any]], None]) -> Watcher:
        command({"command": "breakpoints", "names": [], "pause_at_start": False})
        return self

    def publish(self, status: Mapping[str, Any]) -> None:
        self.statuses += 1

    def answer(self, command_id: str, problem: str | None) -> None:
        raise AssertionError("nothing was asked")

    def close(self) -> None:
        pass


@contextmanager
def eyes(kind: str) -> Iterator[Watcher]:
    """What looks at the runs of the block."""
    watcher = Watcher()
    os.environ["DISCOMFORT_OBSERVE"] = "0" if kind == "off" else "1"
    editors.set_local_hub(watcher if kind == "watched" else None)
    try:
        yield watcher
    finally:
        editors.set_local_hub(None)
        del os.environ["DISCOMFORT_OBSERVE"]


def counts() -> dict[str, Any]:
    """A workflow that makes another number of a number."""
    return {
        "1": port("picture"),
        "2": node("ChaosAdd", number=["1", 0], by=1),
        "3": port("picture", "2", 0),
    }


async def compare(d: Discomfort, case: Case) -> dict[str, Any]:
    """All kinds in turns: seconds per iteration."""
    numbers = itertools.count(1)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    statuses = 0
    for block in range(case.blocks + 1):
        for kind in KINDS if block % 2 else reversed(KINDS):
            start: Any = next(numbers) * 10**6
            if case.megabytes:
                start = picture(case.megabytes)
                start[0, 0, 0, 1] = next(numbers)
            clock = Clock(case.iterations + 1)
            with eyes(kind) as watcher:
                result = await d.run(
                    [changes(0.0) if case.megabytes else counts()],
                    inputs={"picture": start},
                    iterations=case.iterations + 2,
                    loop_condition=clock,
                    progress=False,
                )
            if any(step.cached_nodes for step in result.record.steps):
                raise SystemExit("nodes came from the server's cache: nothing was measured")
            statuses += watcher.statuses
            if block:
                found[kind] += clock.seconds[1:]
    if not statuses:
        raise SystemExit("nobody looked: nothing was measured")
    return {**{kind: median(seconds) for kind, seconds in found.items()}, "count": len(found["off"])}


async def measure(path: str, names: list[str], folder: Path, is_quick: bool) -> dict[str, Any]:
    """Figures of one server."""
    found = {}
    async with await Discomfort.create(configuration(folder, path, CACHE_LRU=4)) as d:
        for case in CASES:
            if case.name in names:
                small = case._replace(blocks=1, iterations=3) if is_quick else case
                found[case.name] = {"title": case.title, **await compare(d, small)}
    return found


def tables(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: one table for each server."""
    written = []
    for server, cases in found.items():
        rows = [
            [
                f["title"],
                milliseconds(f["off"]),
                milliseconds(f["nobody"]),
                f"{f['nobody'] / f['off']:.3f}",
                milliseconds(f["watched"]),
                f"{f['watched'] / f['off']:.3f}",
            ]
            for f in cases.values()
        ]
        written.append(markdown([f"an iteration, {server}", "off", "nobody", "ratio", "watched", "ratio"], rows))
    return "\n\n".join(written)


def main() -> int:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=names, help="measure this alone; may be given several times")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a few iterations: does it work?")
    arguments: Any = parser.parse_args()
    found = {}
    for server, path in configurations().items():
        with tempfile.TemporaryDirectory(prefix="dc-") as folder:
            os.environ["XDG_CACHE_HOME"] = folder  # the runs' folders are in it
            found[server] = asyncio.run(measure(path, arguments.only or names, Path(folder), arguments.quick))
    if arguments.json:
        print(json.dumps({"machine": platform.platform(), "servers": found}))
    else:
        print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n{tables(found)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
