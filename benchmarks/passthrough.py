"""What a large value costs on its way through a whole run: one INPUT port, wired to one OUTPUT port.

    ./dev run python benchmarks/passthrough.py [--batch 64] [--rounds 5] [--iterations 3] [--cache-lru N] [--json FILE]

The value is a batch of images, [batch,1024,1024,3] float32: 805 MB for 64. Nothing is computed, so all the time goes
into moving it, and the least that could do the same is a prompt of this shape with a tiny value, posted by a client
that does nothing else, plus two memcpys of these bytes. All cases take turns in random order within one run, on one
server; medians are printed.

* same batch: what the server's cache holds from the run before.
* changed batch: one number in it differs each time. Its old value leaves the server's cache before the next (POST
  /free), because the cache keeps every batch it has seen, in memory, up to its number of entries.
* iteration, same and changed batch: further iterations of one ``run()``, each by itself. The first few of them need new
  memory, later ones write into that of the earlier ones, unless the server's cache still has it: ``--batch 16
  --iterations 12 --cache-lru 2`` shows a loop that has settled.

The bytes of every result are compared with what went in (a checksum). With COMFYUI_PATH it runs on that ComfyUI.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import random
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import torch
from bare_client import BareClient
from discomfort.comfy_serverless import ConnectorConfig
from discomfort.nodes_internal import RUN_KEY
from discomfort.object_store import find_roots
from discomfort.prompt_graph import PromptTemplate
from discomfort.workflow_context import register_context, unregister_context
from measure import markdown, median

from discomfort import Discomfort, PerIteration, WorkflowContext

LOADER, SAVER = "1", "2"
PROMPT = {
    LOADER: {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "tags": ""}},
    SAVER: {"class_type": "DiscomfortPort", "inputs": {"unique_id": "result", "tags": "", "input_data": [LOADER, 0]}},
}
# Prompts of the bare client in each round: one takes a few milliseconds.
BARE_PROMPTS = 10


class Costs(NamedTuple):
    """Seconds of one run, or of one iteration, and where they went."""

    total: float
    #: this process: saving the input into the context (iterations: all that comes before the prompt)
    saving_input: float = 0.0
    #: the server's clock (whole milliseconds), without what its OUTPUT port spent on saving
    server: float = 0.0
    #: the OUTPUT port
    saving_output: float = 0.0
    #: this process: getting hold of the result
    loading: float = 0.0
    #: the caller reads every byte of the result for the first time; not part of the total
    reading: float = 0.0

    @property
    def rest(self) -> float:
        """Queueing and following the prompt, making the context, and giving its memory back."""
        return self.total - self.saving_input - self.server - self.saving_output - self.loading


class Found(NamedTuple):
    """What was measured."""

    server: str
    #: bytes of the batch
    size: int
    #: {case: medians}
    costs: dict[str, Costs]
    #: results whose bytes were compared
    checked: int
    #: bytes by which the shared memory in use grew, everybody's
    grown: int


class Passthrough:
    """The batch, the server, and one method for each case, which returns costs."""

    def __init__(self, d: Discomfort, batch: int, iterations: int) -> None:
        self.d = d
        self.iterations = iterations
        self.batch = torch.rand(batch, 1024, 1024, 3)
        self._words = self.batch.view(-1).view(torch.int64)
        self._words[0] = 0
        self._base = checksum(self.batch)
        self._copy = torch.zeros_like(self.batch)
        self._numbers = itertools.count(1)
        self._ram = find_roots().ram
        # Bytes used in shared memory at the beginning, by everybody, and the most that was seen since.
        self.shared_at_first = self.shared_memory()
        self.shared_at_most = self.shared_at_first
        #: results whose bytes were compared
        self.checked = 0

    def shared_memory(self) -> int:
        return shutil.disk_usage(self._ram).used if self._ram is not None else 0

    def change(self, number: int | None = None) -> torch.Tensor:
        """Give the batch a content that no other one had, or that of the number."""
        self._words[0] = next(self._numbers) if number is None else number
        return self.batch

    def _check(self, result: torch.Tensor) -> float:
        """Compare a result with the batch; returns the seconds it took to read it."""
        started = time.perf_counter()
        found = checksum(result)
        seconds = time.perf_counter() - started
        if found != (self._base + int(self._words[0]) + 2**63) % 2**64 - 2**63:
            raise SystemExit("the result is not what went in")
        self.checked += 1
        return seconds

    async def bare(self, prompts: int = BARE_PROMPTS) -> list[Costs]:
        seconds = []
        template = PromptTemplate(PROMPT)
        with WorkflowContext() as context:
            register_context(context)
            async with BareClient(self.d.Worker.server_address) as client:
                for _ in range(prompts):
                    # Saving the tiny value is not timed: a bare client would have it in its prompt.
                    context.save("image", next(self._numbers))
                    prompt = template.fill({"image": context.digest("image")})
                    extra = {"extra_pnginfo": {RUN_KEY: {"run_id": context.run_id, "use_ram": True}}}
                    started = time.perf_counter()
                    await client.run(prompt, extra)
                    seconds.append(time.perf_counter() - started)
            unregister_context(context.run_id)
        return [Costs(taken) for taken in seconds]

    async def memcpy(self) -> list[Costs]:
        started = time.perf_counter()
        self._copy.copy_(self.batch)
        return [Costs(time.perf_counter() - started)]

    async def same(self) -> list[Costs]:
        self.change(0)
        await self._run(1, self.batch)  # now the server has it
        costs, cached = await self._run(1, self.batch)
        expect(LOADER in cached[0], "the server's cache to have the same batch")
        return costs

    async def changed(self) -> list[Costs]:
        costs, cached = await self._run(1, self.change())
        expect(LOADER not in cached[0], "a changed batch to be loaded")
        return costs

    async def iteration_same(self) -> list[Costs]:
        self.change(0)
        costs, cached = await self._run(self.iterations, self.batch)
        expect(all(LOADER in nodes for nodes in cached[1:]), "the server's cache to have the same batch")
        return costs[1:]  # the first one begins with the run

    async def iteration_changed(self) -> list[Costs]:
        costs, cached = await self._run(self.iterations, PerIteration(lambda iteration, values: self.change()))
        expect(not any(LOADER in nodes for nodes in cached), "a changed batch to be loaded")
        return costs[1:]

    async def _run(self, iterations: int, value: Any) -> tuple[list[Costs], list[list[str]]]:
        """Run the prompt. Returns costs and cached nodes of each iteration."""
        marks: dict[str, list[float]] = {}

        def on_progress(event: Any) -> None:
            marks.setdefault(type(event).__name__, []).append(time.perf_counter())
            self.shared_at_most = max(self.shared_at_most, self.shared_memory())

        started = time.perf_counter()
        result = await self.d.run([PROMPT], inputs={"image": value}, iterations=iterations, progress=on_progress)
        total = time.perf_counter() - started
        reading = self._check(result["result"])
        finished, steps = marks["IterationFinished"], result.record.steps
        if iterations == 1:
            loading = marks["RunFinished"][0] - finished[0]
            saving = result.record.loading_seconds - loading
            costs = [Costs(total, saving, steps[0].server_seconds, steps[0].saving_seconds, loading, reading)]
        else:
            begins = [started, *finished[:-1]]
            columns = zip(begins, marks["StepStarted"], finished, steps, strict=True)
            costs = [
                Costs(end - begin, step_begin - begin, step.server_seconds, step.saving_seconds)
                for begin, step_begin, end, step in columns
            ]
        return costs, [step.cached_nodes for step in steps]

    async def free(self) -> None:
        """Empty the server's cache; its memory is free when this returns."""
        await self.d.Worker.free(unload_models=False, free_memory=True)
        # The server may look at the request only after its next prompt (ComfyUI 0.3.64), and has done so before the
        # one after that: two tiny ones.
        await self.bare(2)


def checksum(tensor: torch.Tensor) -> int:
    """The sum of all bytes, taken as 64-bit integers, modulo 2**64."""
    return int(tensor.view(-1).view(torch.int64).sum())


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"expected {what}; what was measured is not what its name says")


def middle(costs: list[Costs]) -> Costs:
    return Costs(*(median(column) for column in zip(*costs, strict=True)))


def table(found: dict[str, Costs], base: float) -> str:
    """A Markdown table, milliseconds."""
    rows = []
    for name, costs in found.items():
        if name in ("bare", "memcpy"):
            continue
        parts = [costs.saving_input, costs.server, costs.saving_output, costs.loading, costs.rest]
        reading = f"{costs.reading * 1e3:.0f}" if costs.reading else ""
        cells = [f"{costs.total * 1e3:.0f}", f"**{costs.total / base:.2f}**", *(f"{part * 1e3:.1f}" for part in parts)]
        rows.append([name, *cells, reading])
    head = ["ms", "total", "ratio", "saving the input", "server", "saving the output", "loading", "rest", "first read"]
    return markdown(head, rows)


async def measure(batch: int, rounds: int, iterations: int, cache_lru: int) -> Found:
    """Run all cases, in random order in each round."""
    costs: dict[str, list[Costs]] = {}
    async with await Discomfort.create(ConnectorConfig(USE_WARM_SERVER=False, CACHE_LRU=cache_lru)) as d:
        bench = Passthrough(d, batch, iterations)
        cases: dict[str, Callable[[], Any]] = {
            "bare": bench.bare,
            "memcpy": bench.memcpy,
            "same batch": bench.same,
            "changed batch": bench.changed,
            "iteration, same batch": bench.iteration_same,
            "iteration, changed batch": bench.iteration_changed,
        }
        for number in range(rounds + 1):  # the first round warms up
            for name in random.sample(list(cases), len(cases)):
                taken = await cases[name]()
                await bench.free()
                if number:
                    costs.setdefault(name, []).extend(taken)
        medians = {name: middle(costs[name]) for name in cases}
        grown = bench.shared_at_most - bench.shared_at_first
        return Found(d.Worker.server_description, bench.batch.nbytes, medians, bench.checked, grown)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64, help="images in the batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=3, help="iterations of a loop, 2 at least (%(default)s)")
    parser.add_argument(
        "--cache-lru",
        type=int,
        default=ConnectorConfig().CACHE_LRU,
        metavar="N",
        help="results that the server's cache holds (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON too")
    arguments: Any = parser.parse_args()
    if arguments.iterations < 2:
        parser.error("--iterations has to be 2 at least: the first one is the run's own beginning")
    # The batch, its copy, one value in the context for each iteration (the server's cache has them), two results.
    kept = min(arguments.iterations, arguments.cache_lru + 2)
    need = arguments.batch * 1024 * 1024 * 3 * 4 * (kept + 4)
    free = psutil.virtual_memory().available
    if need > free:
        parser.error(f"this needs {need / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are available: lower --batch")
    torch.set_num_threads(1)
    found = asyncio.run(measure(arguments.batch, arguments.rounds, arguments.iterations, arguments.cache_lru))
    bare, memcpy = found.costs["bare"].total, found.costs["memcpy"].total
    base = bare + 2 * memcpy
    print(f"\n{found.server}. {platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"\nBaseline: {bare * 1e3:.1f} ms, a bare client's prompt with a tiny value, and two memcpys of ", end="")
    print(f"{found.size / 1e6:.0f} MB, {memcpy * 1e3:.1f} ms each: {base * 1e3:.1f} ms\n\n{table(found.costs, base)}\n")
    print(f"The bytes of {found.checked} results were compared. ", end="")
    print(f"Shared memory grew by {found.grown / 1e9:.1f} GB at most.")
    if arguments.json:
        data = {
            name: {**one._asdict(), "rest": one.rest, "ratio": one.total / base} for name, one in found.costs.items()
        }
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"server": found.server, "bytes": found.size, "baseline": base, "seconds": data}, file, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
