"""Many processes, many values, little memory, and kill -9 all the time: no wrong byte, no leak, bounded memory.

The short one runs with the other tests. The long one is asked for with ``-m soak``, or with ``DISCOMFORT_SOAK=100000``,
which also says how many values are saved and loaded (10,000 otherwise; that takes two minutes). See CONTRIBUTING.md.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
from discomfort.workflow_context import WorkflowContext, get_context

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

logger = logging.getLogger("soak")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
MB = 2**20
WORKERS = 4
# In the file of counters, which outlive who counts: the values that each worker saved and loaded, those that each
# checked, and the slot in which the test says that it is enough.
STOP = 2 * WORKERS


class Plan(NamedTuple):
    """How much of it."""

    # Saves and loads, of all workers together.
    operations: int
    # Bytes of the largest value.
    largest: int
    # Bytes of shared memory that the run may use.
    ram: int
    # Seconds from one kill to the next, at most.
    kill_every: float
    # Keys of large values, and of small ones.
    large_keys: int
    small_keys: int


# --- values that know what they are -----------------------------------------------------------------------------------


def content(seed: int, size: int) -> Any:
    """``size`` bytes that follow from a number, and are like those of no other number at any place."""
    words = np.arange(seed, seed + (size + 7) // 8, dtype=np.uint64)
    words *= np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(29)
    return words.view(np.uint8)[:size]


def check(value: Any, key: str) -> None:
    """Find any byte that is not what it was saved as."""
    seed, size = value["seed"], value["size"]
    assert value["key"] == key, f"{key} holds what was saved as {value['key']}"
    assert value["data"].nbytes == size
    expected = content(seed, size)
    if not np.array_equal(value["data"], expected):
        wrong = np.flatnonzero(value["data"] != expected)
        raise AssertionError(f"{key}: {len(wrong)} of {size} bytes are wrong, the first at {wrong[0]}")


def choose(chance: random.Random, plan: Plan) -> tuple[str, int]:
    """A key and the size of a value for it: most are small, some are of the largest size."""
    if chance.random() < 0.5:
        return f"small {chance.randrange(plan.small_keys)}", int(10 * 2000 ** chance.random())
    return f"large {chance.randrange(plan.large_keys)}", int(10 * (plan.largest / 10) ** (chance.random() ** 0.7))


# --- what a worker does -----------------------------------------------------------------------------------------------


def count_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def work(kept: dict[str, Any], run_id: str, slot: int, seed: int, plan: Plan, counters: str) -> None:
    """Save, load, check, keep and drop values until it is enough."""
    counts = np.memmap(counters, np.uint64, "r+")
    if "fds" not in kept:
        # What the first numpy operations and the first context open for good.
        content(1, 100)
        kept["counts"] = counts
        kept["fds"] = count_fds()
    context = get_context(run_id)
    chance, parent = random.Random(seed), os.getppid()
    held: list[tuple[Any, str]] = []
    # (Nobody says that it is enough where the test itself is killed.)
    while not counts[STOP] and os.getppid() == parent:
        key, size = choose(chance, plan)
        action = chance.random()
        if action < 0.5:
            number = chance.getrandbits(60)
            value = {"seed": number, "size": size, "key": key, "data": content(number, size)}
            context.save(key, value, use_ram=chance.random() < 0.8)
            del value
        elif action < 0.95:
            try:
                value = context.load(key)
            except KeyError:
                continue
            check(value, key)
            counts[WORKERS + slot] += np.uint64(1)
            if chance.random() < 0.2:
                held.append((value, key))
            del value
        else:
            context.delete(key)
            continue
        counts[slot] += np.uint64(1)
        while len(held) > 5 or (held and chance.random() < 0.1):
            value, key = held.pop(chance.randrange(len(held)))
            check(value, key)
            counts[WORKERS + slot] += np.uint64(1)
            value["data"][:] = 0x55
            del value
    for value, key in held:
        check(value, key)


def release(kept: dict[str, Any]) -> tuple[int, int]:
    """After the run: (descriptors before it, descriptors now). Attaching to a next one lets go of the last."""
    with WorkflowContext() as following:
        get_context(following.run_id).shutdown()
    gc.collect()
    return kept["fds"], count_fds()


# --- the test ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def roots(data_roots: tuple[str, str]) -> list[str]:
    """[RAM root, disk root] of this test's own."""
    return list(data_roots)


@pytest.fixture
def make_worker(start_second: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    made = []

    def make() -> Any:
        made.append(start_second())
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


def memory_of(pid: int) -> dict[str, int]:
    """The kernel's figures for a process, in bytes: RssAnon is its own memory, RssShmem what it shares."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Rss", "VmRSS"))}


def soak(plan: Plan, roots: list[str], make_worker: Callable[[], Any], folder: Path) -> dict[str, Any]:
    chance = random.Random(1)
    counters = folder / "counters"
    counters.write_bytes(bytes(8 * (STOP + 1)))
    counts = np.memmap(counters, np.uint64, "r+")
    report = {"kills": 0, "most ram": 0, "most disk": 0, "most anonymous": 0, "most rss": 0}
    with WorkflowContext(max_ram_gb=plan.ram / 2**30) as context:

        def start(slot: int) -> Any:
            worker = make_worker()
            worker.begin(work, context.run_id, slot, chance.getrandbits(32), plan, str(counters))
            return worker

        def look() -> None:
            usage = context.get_usage()
            report["most ram"] = max(report["most ram"], usage["ram_usage_bytes"] + usage["ram_idle_bytes"])
            report["most disk"] = max(report["most disk"], usage["temp_disk_usage_bytes"])
            for worker in workers:
                memory = memory_of(worker.pid)
                report["most anonymous"] = max(report["most anonymous"], memory.get("RssAnon", 0))
                report["most rss"] = max(report["most rss"], memory.get("VmRSS", 0))

        workers = [start(slot) for slot in range(WORKERS)]
        last, moved_at = 0, time.monotonic()
        while counts[:WORKERS].sum() < plan.operations:
            next_kill = time.monotonic() + plan.kill_every * chance.random()
            while time.monotonic() < next_kill:
                look()
                time.sleep(0.01)
            for slot in (slot for slot in range(WORKERS) if workers[slot].has_answered):
                # Only a worker that found something wrong answers before it is told to stop.
                workers[slot].end()
            slot = chance.randrange(WORKERS)
            workers[slot].kill()
            report["kills"] += 1
            workers[slot] = start(slot)
            if (done := int(counts[:WORKERS].sum())) > last:
                last, moved_at = done, time.monotonic()
            assert time.monotonic() - moved_at < 60, f"nobody has saved or loaded anything for a minute, after {last}"
        counts[STOP] = 1
        for worker in workers:
            worker.end()
        look()
        report["operations"], report["checks"] = int(counts[:WORKERS].sum()), int(counts[WORKERS:STOP].sum())
        check_that_only_live_keys_are_left(context, roots)
    for worker in workers:
        before, after = worker.run(release)
        assert after == before, f"a worker had {before} descriptors, and has {after}"
        worker.stop()
    logger.info("%s", report)
    assert report["operations"] >= plan.operations
    assert report["checks"] > plan.operations / 4
    assert report["kills"] >= 3
    # What is on disk has an entry of a page in memory.
    assert 0 < report["most ram"] <= plan.ram + 4096 * (plan.large_keys + plan.small_keys)
    assert report["most disk"] > 0
    # A value, what it is compared with, and the comparison; what it holds and could write into lies in mappings.
    own = 4 * plan.largest + 128 * MB
    assert report["most anonymous"] < own
    assert report["most rss"] < own + 7 * plan.largest + plan.ram
    return report


def check_that_only_live_keys_are_left(context: WorkflowContext, roots: list[str]) -> None:
    """What killed workers were writing goes with the next process that attaches, and nothing else is there."""
    # Ten seconds later; nobody writes any more.
    for root in roots:
        for path in Path(root).rglob("*.tmp"):
            os.utime(path, (0, 0))
    WorkflowContext(run_id=context.run_id, create=False).shutdown()
    assert [str(path) for root in roots for path in Path(root).rglob("*.tmp")] == []
    infos = []
    for key in context.list_keys():
        value, info = context.load(key), context.get_storage_info(key)
        check(value, key)
        assert info is not None
        infos.append(info)
        del value
    usage = context.get_usage()
    assert usage["ram_held_bytes"] == 0
    assert usage["stored_keys_count"] == len(infos)
    in_ram = [info["size"] for info in infos if info["storage_type"] == "ram"]
    on_disk = [info["size"] for info in infos if info["storage_type"] == "disk"]
    assert usage["temp_disk_usage_bytes"] == sum(on_disk)
    # Whole pages, and what a segment may be larger than what is in it; an entry for what is on disk.
    most = sum(size * 1.25 + 70_000 if size > 65_536 else size + 4096 for size in in_ram) + 4096 * len(on_disk)
    assert usage["ram_usage_bytes"] <= most
    for key in context.list_keys():
        context.delete(key)
    usage = context.get_usage()
    assert usage["ram_usage_bytes"] == usage["temp_disk_usage_bytes"] == usage["stored_keys_count"] == 0
    assert usage["ram_idle_bytes"] <= usage["ram_capacity_bytes"]


def test_values_survive_kills_in_a_short_soak(roots: list[str], make_worker: Callable[[], Any], tmp_path: Path) -> None:
    plan = Plan(operations=2500, largest=4 * MB, ram=12 * MB, kill_every=0.25, large_keys=6, small_keys=40)
    soak(plan, roots, make_worker, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_values_survive_kills_in_a_long_soak(roots: list[str], make_worker: Callable[[], Any], tmp_path: Path) -> None:
    operations = int(os.environ.get("DISCOMFORT_SOAK") or 10_000)
    plan = Plan(operations, largest=64 * MB, ram=200 * MB, kill_every=2.0, large_keys=12, small_keys=2000)
    soak(plan, roots, make_worker, tmp_path)
