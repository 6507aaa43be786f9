"""What it costs to hand an image to the server process and to get one back, against memcpy and other ways to do it.

    ./dev run python benchmarks/store.py [--sizes 1,16,256,1024] [--rounds 7] [--json FILE]

One round trip is what a step of a run does: this process saves a float32 image; the other one, as the nested server,
loads it and reads every byte, and saves another image of the same size; this one loads that and reads every byte. Both
images change each time, and both readers' checksums are compared. All ways take turns in random order in each round, so
that a busy moment hits all of them; medians are printed, both directions together. Sizes up to 16 MB get three times as
many rounds. Absolute times say little about another machine, ratios say more.

* memcpy: ``copy_`` into memory that is in use already, both ways, in one process, one thread: the physical limit.
* pwrite: a plain file in shared memory, mapped privately by its reader: the system's price of new pages.
* context, fresh: WorkflowContext, a new context each time, so that every page is new.
* context, steady: WorkflowContext, one context, whose two keys are overwritten again and again, as in a loop.
* cloudpickle, safetensors, Arrow IPC: files in shared memory; Arrow's is mapped, and read-only.
* context, disk and pwrite, disk: as above, in the disk folder (never flushed to the device; nor does the context).
* base64: torch.save, base64, a JSON file on disk: how such data used to travel. Up to 256 MB.

Besides: writing into all of a loaded image in place against cloning it first; what the digest adds to saving; the
memory that saving takes beyond the stored object; small values. The exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import mmap
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cloudpickle
import psutil
import pyarrow
import safetensors.torch
import torch
from discomfort.object_store import filesystem_type, find_roots
from discomfort.workflow_context import WorkflowContext, get_context, register_context
from measure import Goal, all_kept, goals_table, markdown, median

MB = 2**20
# Above this, base64 takes many seconds a round and says nothing new.
BASE64_LIMIT_MB = 256
# Up to this, three times as many rounds are run; below it ratios to memcpy say nothing, so there are no goals.
SMALL_MB = 16
# What the digest costs is measured on an image of at most this size, and more than 16 MB: where there is no xxhash,
# larger values are stored without a digest, and that is what it is compared with.
DIGEST_LIMIT_MB = 256
# Round trips before "context, steady" is steady: both keys of both processes have had a few values by then.
SETTLING = 4
# Bytes that a call of pwrite gets: as fast as larger ones in memory, and on ext4 up to three times as fast as one call
# for everything.
PIECE = 512 * 1024
# Shared memory that a context of this benchmark may use, in GB: as much as is free.
NO_LIMIT_GB = 2.0**20


# -- the ways: how an image is saved and loaded; both processes use the same functions -------------------------------


class Way(NamedTuple):
    """How to save a tensor to a place, and to load it: a path, or for contexts ``run_id/key``."""

    save: Callable[[torch.Tensor, str], None]
    load: Callable[[str], torch.Tensor]


def save_raw(tensor: torch.Tensor, path: str) -> None:
    array: Any = tensor.numpy()
    raw = memoryview(array).cast("B")
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        done = 0
        while done < len(raw):
            done += os.pwrite(fd, raw[done : done + PIECE], done)
    finally:
        os.close(fd)


def load_raw(path: str) -> torch.Tensor:
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return torch.frombuffer(view, dtype=torch.float32)


def save_in_ram(tensor: torch.Tensor, place: str) -> None:
    run_id, _, key = place.partition("/")
    get_context(run_id).save(key, tensor)


def save_on_disk(tensor: torch.Tensor, place: str) -> None:
    run_id, _, key = place.partition("/")
    get_context(run_id).save(key, tensor, use_ram=False)


def load_from_context(place: str) -> torch.Tensor:
    run_id, _, key = place.partition("/")
    tensor: torch.Tensor = get_context(run_id).load(key)
    return tensor


def save_cloudpickle(tensor: torch.Tensor, path: str) -> None:
    with open(path, "wb") as file:
        cloudpickle.dump(tensor, file)


def load_cloudpickle(path: str) -> torch.Tensor:
    with open(path, "rb") as file:
        tensor: torch.Tensor = cloudpickle.load(file)
    return tensor


def save_safetensors(tensor: torch.Tensor, path: str) -> None:
    safetensors.torch.save_file({"image": tensor}, path)


def load_safetensors(path: str) -> torch.Tensor:
    tensor: torch.Tensor = safetensors.torch.load_file(path)["image"]
    return tensor


def save_arrow(tensor: torch.Tensor, path: str) -> None:
    with pyarrow.OSFile(path, "wb") as file:
        pyarrow.ipc.write_tensor(pyarrow.Tensor.from_numpy(tensor.numpy()), file)


def load_arrow(path: str) -> torch.Tensor:
    with pyarrow.memory_map(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the memory is read-only; nothing is written here
        return torch.from_numpy(pyarrow.ipc.read_tensor(file).to_numpy())


def save_base64(tensor: torch.Tensor, path: str) -> None:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    with open(path, "w", encoding="ascii") as file:
        json.dump({"type": "TORCH_TENSOR", "content": base64.b64encode(buffer.getvalue()).decode()}, file)


def load_base64(path: str) -> torch.Tensor:
    with open(path, encoding="ascii") as file:
        raw = base64.b64decode(json.load(file)["content"])
    tensor: torch.Tensor = torch.load(io.BytesIO(raw), weights_only=True)
    return tensor


RAW = Way(save_raw, load_raw)
RAM_CONTEXT = Way(save_in_ram, load_from_context)
WAYS = {
    "pwrite": RAW,
    "context, fresh": RAM_CONTEXT,
    "context, steady": RAM_CONTEXT,
    "cloudpickle": Way(save_cloudpickle, load_cloudpickle),
    "safetensors": Way(save_safetensors, load_safetensors),
    "Arrow IPC": Way(save_arrow, load_arrow),
    "pwrite, disk": RAW,
    "context, disk": Way(save_on_disk, load_from_context),
    "base64": Way(save_base64, load_base64),
}
ON_DISK = ("pwrite, disk", "context, disk", "base64")


# -- the two processes -----------------------------------------------------------------------------------------------


class Image:
    """An image of so many MB, [B,256,256,4] float32, that can be changed quickly, and knows its checksum."""

    def __init__(self, megabytes: int) -> None:
        self.tensor = torch.rand(megabytes, 256, 256, 4)
        self._words = self.tensor.view(-1).view(torch.int64)
        self._words[0] = 0
        self._base = checksum(self.tensor)

    def change(self, number: int) -> int:
        """Make it differ from all others by a number that was not used yet; returns the new checksum."""
        self._words[0] = number
        return (self._base + number + 2**63) % 2**64 - 2**63


def checksum(tensor: torch.Tensor) -> int:
    """The sum of all bytes, taken as 64-bit integers, modulo 2**64."""
    return int(tensor.view(-1).view(torch.int64).sum())


class Loaded(NamedTuple):
    """Seconds to load, seconds to read all of it for the first time, and the checksum."""

    load: float
    read: float
    sum: int


def timed_save(way: str, image: Image, place: str) -> float:
    begin = time.perf_counter()
    WAYS[way].save(image.tensor, place)
    return time.perf_counter() - begin


def timed_load(way: str, place: str) -> Loaded:
    begin = time.perf_counter()
    tensor = WAYS[way].load(place)
    loaded = time.perf_counter()
    total = checksum(tensor)
    return Loaded(loaded - begin, time.perf_counter() - loaded, total)


def serve(megabytes: int) -> None:
    """The other process: answers each line of JSON on stdin by one on stdout, until stdin ends."""
    torch.set_num_threads(1)
    image = Image(megabytes)
    for line in sys.stdin:
        question = json.loads(line)
        action, way, place = question["action"], question["way"], question["place"]
        answer: Any = None
        if action == "greet":
            greet(place)
        elif action == "save":
            total = image.change(question["number"])
            answer = [timed_save(way, image, place), total]
        else:
            answer = timed_load(way, place)
        print(json.dumps(answer), flush=True)


def greet(run_id: str) -> None:
    """Attach to a context and use it once: what only the first access costs is not measured."""
    key = f"greeting of {os.getpid()}"
    context = get_context(run_id)
    context.save(key, 0)
    context.load(key)
    context.delete(key)


class Peer:
    """The other process, as seen from this one."""

    def __init__(self, megabytes: int, *more: str) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--serve", str(megabytes), *more]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _ask(self, action: str, way: str, place: str, number: int = 0) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the other process was started without pipes")
        question = {"action": action, "way": way, "place": place, "number": number}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The other process ended while it was to {action} {way!r}; its error is above.")
        return json.loads(line)

    def greet(self, context: WorkflowContext) -> None:
        self._ask("greet", "", context.run_id)

    def save(self, way: str, place: str, number: int) -> tuple[float, int]:
        """Seconds, and the checksum of what was saved."""
        seconds, total = self._ask("save", way, place, number)
        return seconds, total

    def load(self, way: str, place: str) -> Loaded:
        return Loaded(*self._ask("load", way, place))


# -- round trips -----------------------------------------------------------------------------------------------------


class Trip(NamedTuple):
    """Seconds of a round trip: [there, back] for saving, loading, and reading what was loaded for the first time."""

    save: Sequence[float]
    load: Sequence[float]
    read: Sequence[float]

    @property
    def seconds(self) -> float:
        return sum(self.save) + sum(self.load) + sum(self.read)


class Row(NamedTuple):
    """Medians of one way at one size, in seconds; save, load and read are of one direction."""

    save: float
    load: float
    read: float
    round_trip: float


class Bench:
    """One size: the image, the contexts, the other process; a round trip for each way."""

    def __init__(self, megabytes: int, ram: str, disk: str, stack: contextlib.ExitStack) -> None:
        self.image = Image(megabytes)
        self.copy = torch.zeros_like(self.image.tensor)
        self.peer = stack.enter_context(Peer(megabytes))
        self.steady = stack.enter_context(self.new_context())
        # Folders for files in shared memory and on disk: the filesystems that contexts use.
        self._ram, self._disk = ram, disk
        self._number = 0
        # Loads whose bytes were compared.
        self.checked = 0
        # {way: [saves into shared memory, those of them that reused the memory of an earlier one]}
        self.reused = {"context, fresh": [0, 0], "context, steady": [0, 0]}
        self._seen: set[int] = set()

    def new_context(self) -> WorkflowContext:
        context = WorkflowContext(max_ram_gb=NO_LIMIT_GB)
        register_context(context)
        greet(context.run_id)
        self.peer.greet(context)
        return context

    def ways(self) -> list[str]:
        """The names of all, in an order that is another one each time."""
        names = ["memcpy", *WAYS]
        if self.image.tensor.nbytes > BASE64_LIMIT_MB * MB:
            names.remove("base64")
        return random.sample(names, len(names))

    def trip(self, way: str) -> Trip:
        if way == "memcpy":
            return self._memcpy()
        if way == "context, steady":
            return self._in_context(way, self.steady)
        if way.startswith("context"):
            with self.new_context() as context:
                trip = self._in_context(way, context)
        else:
            with tempfile.TemporaryDirectory(dir=self._disk if way in ON_DISK else self._ram) as folder:
                trip = self._there_and_back(way, os.path.join(folder, "image"), os.path.join(folder, "result"))
        # The files are gone: what was not yet written to the device never is, and disturbs nobody.
        return trip

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _there_and_back(self, way: str, there: str, back: str) -> Trip:
        expected = self.image.change(self._next_number())
        save_there = timed_save(way, self.image, there)
        loaded_there = self.peer.load(way, there)
        self._check(way, "the other process", loaded_there, expected)
        save_back, expected = self.peer.save(way, back, self._next_number())
        loaded_back = timed_load(way, back)
        self._check(way, "this process", loaded_back, expected)
        loads = (loaded_there, loaded_back)
        return Trip((save_there, save_back), [found.load for found in loads], [found.read for found in loads])

    def _check(self, way: str, who: str, found: Loaded, expected: int) -> None:
        if found.sum != expected:
            raise SystemExit(f"{way}: {who} read other bytes than were saved")
        self.checked += 1

    def _in_context(self, way: str, context: WorkflowContext) -> Trip:
        trip = self._there_and_back(way, f"{context.run_id}/image", f"{context.run_id}/result")
        for key in ("image", "result"):
            info = context.get_storage_info(key) or {}
            if way in self.reused and find_roots().ram is not None:
                self._note_memory(way, info)
        return trip

    def _note_memory(self, way: str, info: dict[str, Any]) -> None:
        if info["storage_type"] != "ram":
            raise SystemExit(f"{way}: there was no room in shared memory; try smaller --sizes")
        inode = os.stat(os.path.join(find_roots().ram or "", info["shm_name"])).st_ino
        count = self.reused[way]
        count[0] += 1
        count[1] += inode in self._seen
        self._seen.add(inode)

    def _memcpy(self) -> Trip:
        expected = self.image.change(self._next_number())
        saves, reads = [], []
        for _ in ("there", "back"):
            begin = time.perf_counter()
            self.copy.copy_(self.image.tensor)
            copied = time.perf_counter()
            found = checksum(self.copy)
            saves.append(copied - begin)
            reads.append(time.perf_counter() - copied)
            self._check("memcpy", "this process", Loaded(0, 0, found), expected)
        return Trip(saves, (0.0, 0.0), reads)


def summarize(trips: Sequence[Trip]) -> Row:
    return Row(
        median([seconds for trip in trips for seconds in trip.save]),
        median([seconds for trip in trips for seconds in trip.load]),
        median([seconds for trip in trips for seconds in trip.read]),
        median([trip.seconds for trip in trips]),
    )


# -- what else is measured -------------------------------------------------------------------------------------------


class InPlace(NamedTuple):
    """Writing into all of a loaded image in place, as a multiple of copying it first and writing into the copy."""

    #: the copy lies in memory that is new to the process, as when a cache keeps the copies before it
    new_memory: float
    #: the copy lies in memory that was in use before, as when the allocator has just got some back
    used_memory: float


class Found(NamedTuple):
    """All that was measured at one size."""

    rows: dict[str, Row]
    in_place: InPlace
    #: MB of memory that saving took beyond the stored object, {way: MB}; empty where the system does not tell
    extra_memory: dict[str, float]
    #: saving with the digest, times of saving without; None where it is not measured
    digest: float | None
    #: loads whose bytes were compared
    checked: int
    #: {way: [saves into shared memory, those of them that reused the memory of an earlier one]}
    reused: dict[str, list[int]]


def measure(megabytes: int, rounds: int, ram: str, disk: str) -> Found:
    """Measure everything at one size; the first round only warms up."""
    rounds *= 3 if megabytes <= SMALL_MB else 1
    trips: dict[str, list[Trip]] = {}
    with contextlib.ExitStack() as stack:
        bench = Bench(megabytes, ram, disk, stack)
        for _ in range(SETTLING):
            bench.trip("context, steady")
        for number in range(rounds + 1):
            for way in bench.ways():
                trip = bench.trip(way)
                if number:
                    trips.setdefault(way, []).append(trip)
        extra = dict(extra_memory(bench))
    digest = measure_digest(megabytes, rounds) if SMALL_MB < megabytes <= DIGEST_LIMIT_MB else None
    rows = {way: summarize(trips[way]) for way in ("memcpy", *WAYS) if way in trips}
    in_place = measure_in_place(bench.image, bench.copy, rounds)
    return Found(rows, in_place, extra, digest, bench.checked, bench.reused)


def extra_memory(bench: Bench) -> Iterator[tuple[str, float]]:
    """MB by which saving raises this process's resident memory at most; pages of the stored object do not count."""
    if not os.path.exists("/proc/self/clear_refs"):
        return
    with bench.new_context() as fresh, bench.new_context() as disk:
        for way, context in (("context, fresh", fresh), ("context, steady", bench.steady), ("context, disk", disk)):
            bench.image.change(bench._next_number())
            before = memory_status()
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the peak begins anew
            timed_save(way, bench.image, f"{context.run_id}/image")
            after = memory_status()
            mapped = max(0.0, after["RssShmem"] - before["RssShmem"])
            yield way, max(0.0, after["VmHWM"] - before["VmRSS"] - mapped)


def memory_status() -> dict[str, float]:
    """VmRSS, VmHWM and RssShmem of this process, in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        pairs = (line.split(":") for line in file)
        return {name: int(rest.split()[0]) / 1024 for name, rest in pairs if name in ("VmRSS", "VmHWM", "RssShmem")}


def measure_in_place(image: Image, copy: torch.Tensor, rounds: int) -> InPlace:
    """Measure what copy on write costs; *copy* is used for the copies in memory that was in use before."""

    def in_place(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.add_(1)

    def in_new_memory(tensor: torch.Tensor) -> torch.Tensor:
        pages = mmap.mmap(-1, tensor.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(memoryview(pages), dtype=tensor.dtype).view(tensor.shape).copy_(tensor).add_(1)

    def in_used_memory(tensor: torch.Tensor) -> torch.Tensor:
        return copy.copy_(tensor).add_(1)

    seconds: dict[Callable[[torch.Tensor], torch.Tensor], list[float]] = {}
    with WorkflowContext(max_ram_gb=NO_LIMIT_GB) as context:
        context.save("image", image.tensor)
        for number in range(rounds + 1):
            for change in random.sample([in_place, in_new_memory, in_used_memory], 3):
                tensor = context.load("image")
                begin = time.perf_counter()
                changed = change(tensor)
                del tensor, changed  # until the memory is given back
                if number:
                    seconds.setdefault(change, []).append(time.perf_counter() - begin)
    middle = {change: median(taken) for change, taken in seconds.items()}
    return InPlace(middle[in_place] / middle[in_new_memory], middle[in_place] / middle[in_used_memory])


def measure_digest(megabytes: int, rounds: int) -> float:
    """Saving as a multiple of saving without the digest, in a steady context: the same without the package xxhash."""
    seconds: dict[str, list[float]] = {"xxh3": [], "unique": []}
    with contextlib.ExitStack() as stack:
        writers: list[tuple[str, Peer, WorkflowContext]] = []
        for kind, more in (("xxh3", ()), ("unique", ("--without-xxhash",))):
            peer = stack.enter_context(Peer(megabytes, *more))
            context = stack.enter_context(WorkflowContext(max_ram_gb=NO_LIMIT_GB))
            peer.greet(context)
            writers.append((kind, peer, context))
        for number in range(SETTLING + rounds):
            for kind, peer, context in random.sample(writers, 2):
                taken, _ = peer.save("context, steady", f"{context.run_id}/image", number + 1)
                if not context.digest("image").startswith(kind):
                    raise SystemExit(f"expected a digest of the kind {kind}, got {context.digest('image')}")
                if number >= SETTLING:
                    seconds[kind].append(taken)
    return median(seconds["xxh3"]) / median(seconds["unique"])


def small_values(count: int = 2000) -> dict[str, float]:
    """Microseconds to save and to load a small dict."""
    results = {}
    value = {"score": 0.5, "iteration": 7, "prompt": "a cat"}
    with WorkflowContext() as context:
        for name, step in (("save", lambda: context.save("small", value)), ("load", lambda: context.load("small"))):
            rounds = []
            for _ in range(7):
                begin = time.perf_counter()
                for _ in range(count // 7):
                    step()
                rounds.append((time.perf_counter() - begin) / (count // 7) * 1e6)
            results[name] = median(rounds)
    return results


# -- the report ------------------------------------------------------------------------------------------------------


def table(rows: dict[str, Row]) -> str:
    """A Markdown table of one size."""
    base = rows["memcpy"]
    cells = []
    for way, row in rows.items():
        cells.append(
            [
                way,
                f"{row.save * 1e3:.2f}",
                f"{base.save / row.save:.2f}",
                "" if way == "memcpy" else f"{row.load * 1e3:.2f}",
                f"{row.read * 1e3:.2f}",
                f"{row.round_trip * 1e3:.2f}",
                f"{row.round_trip / base.round_trip:.2f}",
            ]
        )
    head = ["way", "save ms", "memcpy's speed", "load ms", "first read ms", "round trip ms", "times memcpy"]
    return markdown(head, cells)


# Share of memcpy's speed at which a steady save has to write, by MB.
STEADY_SAVE = {16: 0.6, 256: 0.75, 1024: 0.35}


def goals(results: dict[int, Found], small: dict[str, float]) -> list[Goal]:
    """What the store has to reach; figures that this run did not measure are None."""
    found: list[Goal] = []
    for megabytes, result in results.items():
        if megabytes < SMALL_MB:
            continue
        found += goals_of_size(megabytes, result)
    for way in ("context, fresh", "context, steady", "context, disk"):
        loads = [results[size].rows[way].load if size in results else None for size in (SMALL_MB, 1024)]
        ratio = None if None in loads else loads[1] / loads[0]
        found.append(Goal(f"{way}: load, 1024 MB over 16 MB", ratio, 2, at_most=True))
        slowest = max(result.rows[way].load for result in results.values()) * 1e3
        found.append(Goal(f"{way}: load, slowest size", slowest, 2, at_most=True, unit=" ms"))
    found.append(Goal("small value: save", small["save"], 40, at_most=True, unit=" us"))
    found.append(Goal("small value: load", small["load"], 20, at_most=True, unit=" us"))
    extra = [most for result in results.values() for most in result.extra_memory.values()]
    found.append(Goal("memory while saving, any size", max(extra, default=None), 64, at_most=True, unit=" MB"))
    return found


def goals_of_size(megabytes: int, result: Found) -> list[Goal]:
    rows = result.rows
    memcpy, raw, raw_disk = rows["memcpy"], rows["pwrite"], rows["pwrite, disk"]
    fresh, steady, disk = rows["context, fresh"], rows["context, steady"], rows["context, disk"]
    size = f"{megabytes} MB:"
    found = []
    if megabytes in STEADY_SAVE:
        speed = memcpy.save / steady.save
        found.append(Goal(f"{size} steady save, speed over memcpy", speed, STEADY_SAVE[megabytes]))
    found += [
        Goal(f"{size} fresh save, speed over pwrite", raw.save / fresh.save, 0.85),
        Goal(f"{size} steady save, speed over fresh", fresh.save / steady.save, 3),
        Goal(f"{size} fresh load and read, speed over a mapped file", _load_and_read(raw, fresh), 0.9),
        Goal(f"{size} steady load and read, speed over a mapped file", _load_and_read(raw, steady), 0.9),
        Goal(f"{size} disk save, speed over pwrite", raw_disk.save / disk.save, 0.7),
        Goal(f"{size} writing in place, over cloning first", result.in_place.new_memory, 1.15, at_most=True),
    ]
    if megabytes == BASE64_LIMIT_MB:
        old = rows["base64"]
        found += [
            Goal(f"{size} fresh save, speed over base64", old.save / fresh.save, 8),
            Goal(f"{size} steady save, speed over base64", old.save / steady.save, 60),
            Goal(f"{size} load, speed over base64", old.load / max(fresh.load, steady.load), 1000),
        ]
    if megabytes == DIGEST_LIMIT_MB:
        found.append(Goal(f"{size} steady save, over the same without digest", result.digest, 1.25, at_most=True))
    return found


def _load_and_read(raw: Row, row: Row) -> float:
    return (raw.load + raw.read) / (row.load + row.read)


def lacking_memory(megabytes: int) -> str:
    """Why a size cannot be measured here, or ""."""
    # Two images here, one there, four segments of the steady context, two of a fresh one.
    need, free = 9 * megabytes * MB + 512 * MB, psutil.virtual_memory().available
    return f"it needs {need / 2**30:.1f} GB of memory, {free / 2**30:.1f} GB are available" if need > free else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="1,16,256,1024", help="sizes in MB, comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each size (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--without-xxhash", action="store_true", help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.without_xxhash:
        sys.modules["xxhash"] = None  # type: ignore[assignment]  # importing it fails from now on
    if arguments.serve:
        serve(arguments.serve)
        return 0
    torch.set_num_threads(1)
    roots = find_roots()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs"
    )
    print(
        f"memory: {roots.ram} ({filesystem_type(roots.ram or '')}), disk: {roots.disk} ({filesystem_type(roots.disk)})"
    )
    results: dict[int, Found] = {}
    folders = {"ram": roots.ram or roots.disk, "disk": roots.disk}
    with contextlib.ExitStack() as stack:
        for name, parent in folders.items():
            folder = tempfile.TemporaryDirectory(dir=parent, prefix="discomfort-bench-")
            folders[name] = stack.enter_context(folder)
        for megabytes in map(int, arguments.sizes.split(",")):
            why = lacking_memory(megabytes)
            if why:
                print(f"\n{megabytes} MB: left out, {why}")
                continue
            results[megabytes] = found = measure(megabytes, arguments.rounds, **folders)
            print(f"\n### {megabytes} MB\n\n{table(found.rows)}\n", flush=True)
            reused = [f"{way}: {count} of {saves}" for way, (saves, count) in found.reused.items()]
            print(f"Saves into the memory of an earlier one: {'; '.join(reused)}. ", end="")
            print(f"The bytes of {found.checked} loads were compared.")
            new, used = found.in_place
            print(
                f"Writing into all of a loaded image in place takes {new:.2f} times as long as cloning it first, ",
                end="",
            )
            print(f"{used:.2f} times where the clone finds memory that the process has used before.", flush=True)
    if not results:
        print("No size could be measured.")
        return 1
    small = small_values()
    aims = goals(results, small)
    print(f"\nSmall dict: save {small['save']:.1f} us, load {small['load']:.1f} us\n\n{goals_table(aims)}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(as_data(results, small, aims), file, indent=2)
    return 0 if all_kept(aims) else 1


def as_data(results: dict[int, Found], small: dict[str, float], aims: Sequence[Goal]) -> dict[str, Any]:
    sizes = {
        size: {
            **found._asdict(),
            "rows": {way: row._asdict() for way, row in found.rows.items()},
            "in_place": found.in_place._asdict(),
        }
        for size, found in results.items()
    }
    return {
        "machine": platform.platform(),
        "sizes": sizes,
        "small_microseconds": small,
        "goals": [{**goal._asdict(), "is_kept": goal.is_kept} for goal in aims],
    }


if __name__ == "__main__":
    raise SystemExit(main())
