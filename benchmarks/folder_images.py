"""What loading a folder of images costs beside decoding them, and how much memory beside the batch.

    ./dev run python benchmarks/folder_images.py [--rounds 3] [--only SET] [--json FILE] [--quick]

Sets of files are made in a temporary folder, from a few pictures that are repeated. Each is read in several ways, in
random order, each time by a process of its own, whose files are in the page cache; medians are printed.

* Pillow, one thread: decodes every file to RGB and forgets it. The baseline.
* Pillow, same threads: the same with as many threads as the loader has. What scales is scaled, too.
* new memory: writes zeros into memory of the size of the batch that the system has just handed out. Nothing that gives
  a batch of this size is faster than that and decoding together.
* usual loop: what nodes usually do: one file after the other, a float32 tensor each, and one torch.cat at the end.
* loader: DiscomfortFolderImageLoader's function for a batch.

Memory is the most that the process had (VmHWM, Linux) less what it had before, and less the batch and its masks as far
as they are written to. The sum of every batch is compared with that of the usual loop, where nothing is scaled.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from discomfort.editor_nodes.fitted_images import CROP, Fitting
from discomfort.editor_nodes.folder_files import Choice, find_files
from discomfort.editor_nodes.folder_images import load_batch
from measure import Goal, all_kept, goals_table, markdown, median
from PIL import Image, ImageFilter

BASELINE, THREADED, MEMORY, LOOP, LOADER = WAYS = (
    "Pillow, one thread",
    "Pillow, same threads",
    "new memory",
    "usual loop",
    "loader",
)
MB = 1e6


class Set(NamedTuple):
    """Files of one kind."""

    count: int
    width: int
    height: int
    # How names end.
    ending: str
    # Side to which they are scaled; 0: not at all.
    side: int = 0

    def __str__(self) -> str:
        scaled = f", scaled to {self.side} x {self.side}" if self.side else ""
        return f"{self.count:,} {self.ending[1:].upper()} of {self.width} x {self.height}{scaled}"

    @property
    def batch_size(self) -> int:
        """Bytes of the images alone."""
        width, height = (self.side, self.side) if self.side else (self.width, self.height)
        return self.count * width * height * 3 * 4


SETS = {
    "small": Set(5000, 128, 128, ".jpg"),
    "large": Set(64, 1024, 1024, ".png"),
    "photos": Set(40, 4000, 3000, ".jpg", 1024),
}


class Run(NamedTuple):
    """One process that read a set in one way."""

    seconds: float
    # Bytes beside the batch; nan where the system does not tell.
    extra: float
    # Of all numbers of the batch; nan if there is none.
    total: float


def make_files(folder: Path, files: Set) -> None:
    """Pictures with edges, areas and some noise: of noise alone JPEG would make files of no usual size."""
    generator = np.random.default_rng(0)
    for index in range(files.count):
        path = folder / f"picture {index}{files.ending}"
        if index < 8:
            grid = generator.integers(0, 256, (files.height // 32 + 1, files.width // 32 + 1, 3), dtype=np.uint8)
            size = (files.width, files.height)
            picture = Image.fromarray(grid).resize(size, Image.Resampling.NEAREST)
            picture = picture.filter(ImageFilter.GaussianBlur(3))
            noise = generator.integers(0, 12, (files.height, files.width, 3), dtype=np.uint8)
            Image.fromarray(np.minimum(np.asarray(picture), 243) + noise).save(path, quality=90)
        else:
            path.write_bytes((folder / f"picture {index % 8}{files.ending}").read_bytes())


# ------------------------------------------------------------------------------------------------ in its own process


def decode(path: Path, side: int) -> Image.Image:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    return picture.resize((side, side), Image.Resampling.LANCZOS) if side else picture


def pillow(paths: list[Path], side: int) -> None:
    for path in paths:
        decode(path, side)


def pillow_with_threads(paths: list[Path], side: int) -> None:
    threads = min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first: pillow(paths[first::threads], side), range(threads)))


def new_memory(paths: list[Path], side: int) -> None:
    with Image.open(paths[0]) as image:
        width, height = (side, side) if side else image.size
    np.empty((len(paths), height, width, 3), np.float32).fill(0)


def usual_loop(paths: list[Path], side: int) -> torch.Tensor:
    images = [torch.from_numpy(np.array(decode(path, side)).astype(np.float32) / 255.0)[None] for path in paths]
    return torch.cat(images)


def loader(paths: list[Path], side: int) -> torch.Tensor:
    names = [path.name for path in paths]
    (images,) = load_batch(paths[0].parent, names, Fitting(CROP, side, side)).images
    return images


def peak() -> float:
    """The most memory that this process had since it was last set back, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024.0


def measure_here(way: str, folder: Path, side: int) -> Run:
    """Read the files of a folder, as the only thing that this process does."""
    functions: dict[str, Callable[[list[Path], int], Any]] = {
        BASELINE: pillow,
        THREADED: pillow_with_threads,
        MEMORY: new_memory,
        LOOP: usual_loop,
        LOADER: loader,
    }
    paths = [folder / name for name in find_files(Choice(folder)).names]
    functions[way](paths[:2], side)  # everything is imported now
    before = float("nan")
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back
        before = float(psutil.Process().memory_info().rss)
    started = time.perf_counter()
    batch = functions[way](paths, side)
    seconds = time.perf_counter() - started
    if batch is None:
        return Run(seconds, peak() - before if before == before else before, float("nan"))
    extra = peak() - before - batch.nbytes if before == before else before
    return Run(seconds, extra, float(batch.sum(dtype=torch.float64)))


# -------------------------------------------------------------------------------------------------------- all of it


def measure(files: Set, rounds: int) -> dict[str, list[Run]]:
    """All ways, in random order in each round."""
    found: dict[str, list[Run]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="discomfort-bench-") as folder:
        make_files(Path(folder), files)
        for _ in range(rounds):
            for way in random.sample(WAYS, len(WAYS)):
                words = [sys.executable, __file__, "--child", way, folder, str(files.side)]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found[way].append(Run(*json.loads(done.stdout)))
    totals = {way: {run.total for run in found[way]} for way in (LOOP, LOADER)}
    if not files.side and (len(totals[LOOP]) != 1 or totals[LOOP] != totals[LOADER]):
        raise SystemExit(f"the loader's pixels are not those of the loop: {totals}")
    return found


def table(found: dict[str, list[Run]]) -> str:
    """Markdown: seconds, ratios, memory."""
    seconds = {way: median([run.seconds for run in runs]) for way, runs in found.items()}
    bases = [seconds[BASELINE], seconds[THREADED], seconds[THREADED] + seconds[MEMORY]]
    rows = []
    for way, runs in found.items():
        ratios = [f"{seconds[way] / base:.2f}" for base in bases]
        extra = "" if way == MEMORY else f"{max(run.extra for run in runs) / MB:.0f}"
        rows.append([way, f"{seconds[way]:.2f}", *ratios, extra])
    head = ["way", "s", f"times {BASELINE}", f"times {THREADED}", f"times that and {MEMORY}", "MB beside the batch"]
    return markdown(head, rows)


def goals(name: str, found: dict[str, list[Run]]) -> list[Goal]:
    """What the loader has to keep."""
    seconds = {way: median([run.seconds for run in runs]) for way, runs in found.items()}
    extra = max(run.extra for run in found[LOADER])
    return [
        Goal(
            f"{name}: loader over {THREADED} and {MEMORY}",
            seconds[LOADER] / (seconds[THREADED] + seconds[MEMORY]),
            1.5,
            at_most=True,
        ),
        Goal(
            f"{name}: memory beside the batch",
            None if extra != extra else extra / MB,
            400 if name == "photos" else 100,
            at_most=True,
            unit=" MB",
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way (default: %(default)s)")
    parser.add_argument("--only", choices=SETS, help="this set of files alone")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, one round: does it work?")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.child:
        way, folder, side = arguments.child
        print(json.dumps(measure_here(way, Path(folder), int(side))))
        return 0
    sets = {name: files for name, files in SETS.items() if arguments.only in (None, name)}
    if arguments.quick:
        arguments.rounds = 1
        sets = {name: files._replace(count=files.count // 10) for name, files in sets.items()}
    # The usual loop has its batch twice.
    need = max(files.batch_size for files in sets.values()) * 2
    free = psutil.virtual_memory().available
    if need > free:
        parser.error(f"this needs {need / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are available: use --quick")
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    results, aims = {}, []
    for name, files in sets.items():
        results[name] = found = measure(files, arguments.rounds)
        aims += goals(name, found)
        print(f"\n{files}, a batch of {files.batch_size / MB:,.0f} MB:\n\n{table(found)}", flush=True)
    print(f"\n{goals_table(aims)}")
    if arguments.json:
        data = {
            name: {way: [run._asdict() for run in runs] for way, runs in found.items()}
            for name, found in results.items()
        }
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": platform.platform(), "sets": data}, file, indent=2)
    # Of a few files on a busy machine the figures mean nothing: then it only says whether it works.
    return 0 if arguments.quick or all_kept(aims) else 1


if __name__ == "__main__":
    raise SystemExit(main())
