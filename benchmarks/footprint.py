"""What a run takes of memory while it goes on: this process, the server's, and what both have in shared memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import psutil
from discomfort.object_store import find_roots, list_runs


class Footprint(NamedTuple):
    """Bytes at one moment."""

    #: resident, of this process
    orchestrator: int
    #: resident, of the server's process and its children
    server: int
    #: in shared memory, of the runs that this process owns, with what lies idle there
    shared: int


def take_footprint(server_pid: int) -> Footprint:
    """Look at all three; takes milliseconds."""
    server = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(server_pid)
        server = sum(_resident(one) for one in [process, *process.children(recursive=True)])
    runs = [run for run in list_runs(find_roots()) if run.owner_pid == os.getpid()]
    return Footprint(_resident(psutil.Process()), server, sum(run.ram_bytes for run in runs))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least squares' slope through (x, y); nan for fewer than two points."""
    if len(points) < 2:
        return float("nan")
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / sum((x - middle_x) ** 2 for x, _ in points)
