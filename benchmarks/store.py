"""What it costs to hand an image from the script to the server process, as ratios to memcpy of the same bytes.

Run it: ``python benchmarks/store.py [--sizes 1,16,256,1024] [--rounds 7] [--json FILE]``. One process saves, another
loads and reads every byte, as orchestrator and nested server do. All methods take turns in random order within one
run, so that a busy moment hits all of them; medians are printed. Absolute times say little about another machine,
ratios say more.

Methods: ``memcpy`` (both sides warm: the physical limit), ``pwrite`` (a fresh file in the same filesystem: what the
kernel asks for new pages), ``context ram`` and ``context disk`` (WorkflowContext), ``cloudpickle`` (a file in shared
memory), and ``base64`` (torch.save in base64 in a JSON file on disk: how such data used to travel).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
import torch
from discomfort.workflow_context import WorkflowContext, get_context

MB = 2**20
# Above this, base64 takes many seconds a round and says nothing new.
BASE64_LIMIT_MB = 256


class Sample(NamedTuple):
    """Seconds: to save in one process; to load, and then to read all of it, in the other (None: not applicable)."""

    save: float
    load: float | None = None
    read: float | None = None


def load_base64(path: str) -> torch.Tensor:
    with open(path, encoding="ascii") as file:
        raw = base64.b64decode(json.load(file)["content"])
    tensor: torch.Tensor = torch.load(io.BytesIO(raw), weights_only=True)
    return tensor


def load_cloudpickle(path: str) -> torch.Tensor:
    with open(path, "rb") as file:
        tensor: torch.Tensor = cloudpickle.load(file)
    return tensor


LOADERS: dict[str, Callable[[str], torch.Tensor]] = {
    "context": lambda name: get_context(name).load("image"),
    "cloudpickle": load_cloudpickle,
    "base64": load_base64,
}


def serve() -> None:
    """The other process: for each line [loader, name] on stdin, print [seconds to load, seconds to read, sum]."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        loader, name = json.loads(line)
        begin = time.perf_counter()
        tensor = LOADERS[loader](name)
        loaded = time.perf_counter()
        total = float(tensor.view(-1).view(torch.int64).sum())
        print(json.dumps([loaded - begin, time.perf_counter() - loaded, total]), flush=True)
        del tensor


class Bench:
    """One size: the image, the context, the other process, and a method for each way to hand the image over."""

    def __init__(self, megabytes: int, context: WorkflowContext, folder: str) -> None:
        self.image = torch.rand(megabytes * MB // 4)
        self.sum = float(self.image.view(torch.int64).sum())
        self.copy = torch.zeros_like(self.image)
        self.context = context
        self.folder = folder
        # In the context's own folder, so that it is the same filesystem.
        context.save("where", 0)
        info = context.get_storage_info("where") or {}
        ram_root = os.environ.get("DISCOMFORT_RAM_ROOT", "/dev/shm")  # noqa: S108
        self.shm = os.path.join(ram_root, f"discomfort-bench-{os.getpid()}") if "shm_name" in info else folder + "/raw"
        command = [sys.executable, os.path.abspath(__file__), "--serve"]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        self.server.communicate()

    def methods(self) -> dict[str, Callable[[], Sample]]:
        found = {
            "memcpy": self.memcpy,
            "pwrite": self.pwrite,
            "context ram": lambda: self.in_context(use_ram=True),
            "context disk": lambda: self.in_context(use_ram=False),
            "cloudpickle": self.cloudpickle,
        }
        if self.image.nbytes <= BASE64_LIMIT_MB * MB:
            found["base64"] = self.base64
        return found

    def ask(self, loader: str, name: str) -> tuple[float, float]:
        """Let the other process load and read; checks that it got the right bytes."""
        if self.server.stdin is None or self.server.stdout is None:
            raise RuntimeError("the server process was started without pipes")
        self.server.stdin.write(json.dumps([loader, name]) + "\n")
        self.server.stdin.flush()
        load, read, total = json.loads(self.server.stdout.readline())
        if total != self.sum:
            raise AssertionError(f"{loader}: the other process read other bytes")
        return load, read

    def memcpy(self) -> Sample:
        begin = time.perf_counter()
        self.copy.copy_(self.image)
        return Sample(time.perf_counter() - begin)

    def pwrite(self) -> Sample:
        array: Any = self.image.numpy()
        raw = memoryview(array).cast("B")
        begin = time.perf_counter()
        fd = os.open(self.shm, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            done = 0
            while done < len(raw):
                done += os.pwrite(fd, raw[done:], done)
        finally:
            os.close(fd)
        seconds = time.perf_counter() - begin
        os.unlink(self.shm)
        return Sample(seconds)

    def in_context(self, use_ram: bool) -> Sample:
        begin = time.perf_counter()
        self.context.save("image", self.image, use_ram=use_ram)
        seconds = time.perf_counter() - begin
        sample = Sample(seconds, *self.ask("context", self.context.run_id))
        # Every save pays for new memory: none is left over from the one before.
        self.context.delete("image")
        return sample

    def cloudpickle(self) -> Sample:
        begin = time.perf_counter()
        with open(self.shm, "wb") as file:
            cloudpickle.dump(self.image, file)
        seconds = time.perf_counter() - begin
        try:
            return Sample(seconds, *self.ask("cloudpickle", self.shm))
        finally:
            os.unlink(self.shm)

    def base64(self) -> Sample:
        path = os.path.join(self.folder, "image.json")
        begin = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(self.image, buffer)
        with open(path, "w", encoding="ascii") as file:
            json.dump({"type": "TORCH_TENSOR", "content": base64.b64encode(buffer.getvalue()).decode()}, file)
        seconds = time.perf_counter() - begin
        try:
            return Sample(seconds, *self.ask("base64", path))
        finally:
            os.unlink(path)


def measure(megabytes: int, rounds: int, context: WorkflowContext, folder: str) -> dict[str, Sample]:
    """Return the medians of each method; the first round only warms up."""
    bench = Bench(megabytes, context, folder)
    samples: dict[str, list[Sample]] = {}
    try:
        for number in range(rounds + 1):
            methods = list(bench.methods().items())
            random.shuffle(methods)
            for name, method in methods:
                sample = method()
                if number:
                    samples.setdefault(name, []).append(sample)
    finally:
        bench.close()
    return {name: _median(found) for name, found in samples.items()}


def _median(samples: list[Sample]) -> Sample:
    columns: list[Any] = list(zip(*samples, strict=True))
    medians: list[Any] = [None if column[0] is None else statistics.median(column) for column in columns]
    return Sample(*medians)


def small_values(context: WorkflowContext, count: int = 2000) -> dict[str, float]:
    """Return microseconds to save and to load a small dict."""
    results = {}
    value = {"score": 0.5, "iteration": 7, "prompt": "a cat"}
    for name, step in (("save", lambda: context.save("small", value)), ("load", lambda: context.load("small"))):
        rounds = []
        for _ in range(7):
            begin = time.perf_counter()
            for _ in range(count // 7):
                step()
            rounds.append((time.perf_counter() - begin) / (count // 7) * 1e6)
        results[name] = statistics.median(rounds)
    return results


def table(results: dict[int, dict[str, Sample]]) -> str:
    """Return a Markdown table: save ms (ratio: memcpy time / save time), load ms, first full read ms."""
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    order = ["memcpy", "pwrite", "context ram", "context disk", "cloudpickle", "base64"]
    lines = ["| method | " + " | ".join(f"{size} MB" for size in results) + " |", "|---" * (len(results) + 1) + "|"]
    for name in sorted(names, key=order.index):
        cells = []
        for found in results.values():
            sample = found.get(name)
            if sample is None:
                cells.append("-")
                continue
            text = f"{sample.save * 1e3:.2f} ({found['memcpy'].save / sample.save:.2f})"
            if sample.load is not None and sample.read is not None:
                text += f" / {sample.load * 1e3:.2f} / {sample.read * 1e3:.2f}"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(found: dict[str, Sample]) -> dict[str, float]:
    """Return what the goals are about; each is better the larger it is."""
    ram = found["context ram"]
    result = {"save vs pwrite": found["pwrite"].save / ram.save, "save vs memcpy": found["memcpy"].save / ram.save}
    old = found.get("base64")
    if old is not None and old.load is not None and ram.load is not None:
        result["save vs base64"] = old.save / ram.save
        result["load vs base64"] = old.load / ram.load
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="1,16,256,1024", help="sizes in MB, comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per size (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.serve:
        serve()
        return
    torch.set_num_threads(1)
    results: dict[int, dict[str, Sample]] = {}
    with tempfile.TemporaryDirectory() as folder, WorkflowContext() as context:
        for megabytes in map(int, arguments.sizes.split(",")):
            results[megabytes] = measure(megabytes, arguments.rounds, context, folder)
        small = small_values(context)
    goals = {size: ratios(found) for size, found in results.items()}
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs"
    )
    print("\nsave ms (as a fraction of memcpy's speed) / load ms / first full read ms\n")
    print(table(results))
    for size, found in goals.items():
        print(f"\n{size} MB: " + ", ".join(f"{name} {value:.2f}x" for name, value in found.items()))
    print(f"\nsmall dict: save {small['save']:.1f} us, load {small['load']:.1f} us")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            tables = {size: {name: s._asdict() for name, s in found.items()} for size, found in results.items()}
            json.dump({"seconds": tables, "ratios": goals, "small_microseconds": small}, file, indent=2)


if __name__ == "__main__":
    main()
