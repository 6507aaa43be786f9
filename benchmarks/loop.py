"""What an iteration of ``run`` costs over the bare prompt, and whether a thousand of them cost the same.

    ./dev run python benchmarks/loop.py [ITERATIONS] [--only NAME] [--json] [--quick]

It runs on the embedded server, and then on the ComfyUI that the environment variable COMFYUI_PATH names, if any. On
each, blocks of two kinds take turns:

* bare: the same prompt, posted by a minimal client (aiohttp, one websocket) that reads the history entry and does
  nothing else. Its values are in a context too; saving them is not timed, as a bare client would have them elsewhere.
* run: ``Discomfort.run``, a call for each block, its values given for each iteration or once.

Names of what is measured:

* trivial: a picture of 64 x 64 in, inverted, and out; another one each time.
* nodes: the same through 50 nodes, all of which are executed each time.
* cached: the same 50 nodes, and the same picture each time: the server executes the OUTPUT port alone.
* demo: a picture of 1024 x 1200, sharpened by another amount each time (without the demo's own functions).
* long: 1000 iterations of one run with a loop variable. The last hundred must take no longer than the first, and memory
  must not grow: of this process, of the server's (which keeps 100 results, so that its caches are full when the last
  800 begin), and in shared memory. Then the same by a bare client on the same server, to tell what that keeps itself.

Where the time of an iteration goes, after the run's record: *server*, by its own clock; *transfer*, saving and loading
values; *orchestrator*, the rest: queueing and following a prompt, and this package's own work.

--quick runs a few iterations of all, to see that it works; figures and bounds mean nothing then.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from bare_client import BareClient
from discomfort.comfy_serverless import ConnectorConfig
from discomfort.nodes_internal import RUN_KEY
from discomfort.prompt_graph import PromptTemplate, is_api_format
from discomfort.run_record import RunRecord
from discomfort.workflow_context import register_context, unregister_context
from discomfort.workflow_json import load_workflow
from footprint import Footprint, slope, take_footprint
from loop_cases import Case, cases, long_case
from measure import Goal, all_kept, goals_table, markdown, median

from discomfort import Discomfort, PerIteration, WorkflowContext

LONG = "long"
# What the servers of the long run keep of nodes' outputs: a node's result or what it shows is an entry, so that both
# caches are full after 100 iterations.
LONG_CACHE = 100
# History entries that the bare client deletes with one request, between two prompts; it is not timed.
FORGET_AFTER = 20


class Size(NamedTuple):
    """How much is run."""

    # Of each case, and how many blocks of each kind they are run in.
    iterations: int = 100
    blocks: int = 10
    # Of the long run, those that warm up not counted; the caches have to be full after a fifth of them.
    long: int = 1000
    warm_up: int = 10
    # Iterations between two looks at memory, and how many are compared at both ends.
    pause: int = 50
    ends: int = 100


QUICK = Size(iterations=4, blocks=2, long=20, warm_up=2, pause=2, ends=5)


class Parts(NamedTuple):
    """Seconds of a mean iteration of one run, and where they went; and what the run took around its iterations."""

    total: float
    server: float
    transfer: float
    around: float

    @property
    def orchestrator(self) -> float:
        return self.total - self.server - self.transfer


class Blocks(NamedTuple):
    """What was measured of one case."""

    bare: list[float]
    run: list[float]
    parts: list[Parts]


class LongRun(NamedTuple):
    """Seconds of each iteration, and [(iteration, memory)]."""

    seconds: list[float]
    footprints: list[tuple[int, Footprint]]


class Clock:
    """A loop's condition that notes when each iteration begins, and ends the loop; it costs a microsecond.

    What it does itself (``look``) is no iteration's time.
    """

    def __init__(self, iterations: int, look: Callable[[int], None] = lambda iteration: None) -> None:
        self.iterations = iterations
        self.look = look
        self.seconds: list[float] = []
        # When the first iteration began, and the last one ended.
        self.began = self.ended = 0.0
        self._last = 0.0

    def __call__(self, values: Any, iteration: int) -> bool:
        self.tick(iteration)
        return iteration < self.iterations

    def tick(self, iteration: int) -> None:
        """An iteration of this number begins now, and the one before has ended."""
        self.ended = time.perf_counter()
        if iteration:
            self.seconds.append(self.ended - self._last)
        self.look(iteration)
        self._last = time.perf_counter()
        self.began = self.began or self._last


class Bench:
    """A server, and the two ways of running a case on it."""

    def __init__(self, d: Discomfort, memory: WorkflowContext) -> None:
        self.d = d
        # What the OUTPUT ports of the bare client save into, as the runs of one Discomfort lend each other memory.
        self.memory = memory
        # Every iteration has a number, so that no value comes twice.
        self.numbers = itertools.count(1)

    @property
    def server_pid(self) -> int:
        server = self.d.Worker._server
        assert server is not None
        assert server.pid is not None
        return server.pid

    async def template(self, case: Case) -> PromptTemplate:
        content = load_workflow(case.workflow, allow_prompt=True)
        return PromptTemplate(
            content if is_api_format(content) else await self.d.Worker.get_prompt_from_workflow(content)
        )

    def values(self, case: Case, count: int) -> list[Any]:
        """New values for so many iterations."""
        return [case.value(next(self.numbers)) for _ in range(count)]

    async def bare(
        self, case: Case, template: PromptTemplate, count: int, look: Callable[[int], None] = lambda iteration: None
    ) -> list[float]:
        """Seconds of each prompt, in a context that lasts as long as the block."""
        seconds = []
        read: list[str] = []
        with self.context(case.fixed) as context:
            extra = {"extra_pnginfo": {RUN_KEY: {"run_id": context.run_id, "use_ram": True}}}
            async with BareClient(self.d.Worker.server_address) as client:
                for number, value in enumerate(self.values(case, count)):
                    look(number)
                    if case.changing is not None:
                        context.save(case.changing, value)
                    prompt = template.fill({name: context.digest(name) for name in template.inputs})
                    started = time.perf_counter()
                    entry = await client.run(prompt, extra)
                    seconds.append(time.perf_counter() - started)
                    read.append(entry["prompt"][1])
                    if len(read) == FORGET_AFTER:
                        await forget(client, read)
                look(count)
                await forget(client, read)
        return seconds

    @contextmanager
    def context(self, values: Mapping[str, Any]) -> Any:
        """A context that the server finds, with values in it."""
        with WorkflowContext(lender=self.memory) as context:
            register_context(context)
            for name, value in values.items():
                context.save(name, value)
            try:
                yield context
            finally:
                unregister_context(context.run_id)

    async def run(
        self, case: Case, count: int, look: Callable[[int], None] = lambda iteration: None
    ) -> tuple[Clock, RunRecord]:
        """One run."""
        clock = Clock(count, look)
        changing = {} if case.changing is None else {case.changing: PerIteration(self.values(case, count))}
        result = await self.d.run(
            [case.workflow],
            inputs={**case.fixed, **changing},
            iterations=count + 1,  # the clock ends it, and so is asked at the end of the last one too
            loop_condition=clock,
            progress=False,
        )
        for step in result.record.steps[2:]:
            if len(step.cached_nodes) != case.cached:
                raise SystemExit(
                    f"{case.title}: {len(step.cached_nodes)} nodes came from the server's cache instead of "
                    f"{case.cached}; what was measured is not what its name says"
                )
        return clock, result.record

    async def compare(self, case: Case, size: Size) -> Blocks:
        """Blocks of both kinds in turns; the first of each warms up, as does the first iteration of each."""
        template = await self.template(case)
        found = Blocks([], [], [])
        count = max(size.iterations // size.blocks, 1) + 1
        for block in range(size.blocks + 1):
            bare: list[float] = []
            is_bare_first = bool(block % 2)
            if is_bare_first:
                bare = await self.bare(case, template, count)
            clock, record = await self.run(case, count)
            if not is_bare_first:
                bare = await self.bare(case, template, count)
            if block:
                found.bare.extend(bare[1:])
                found.run.extend(clock.seconds[1:])
                found.parts.append(parts(clock, record))
        return found

    async def long_run(self, case: Case, size: Size) -> dict[str, LongRun]:
        """One long run, and then the same by the bare client."""
        count = size.warm_up + size.long
        found: dict[str, LongRun] = {}
        template = await self.template(case)

        def looking_into(footprints: list[tuple[int, Footprint]]) -> Callable[[int], None]:
            def look(iteration: int) -> None:
                iteration -= size.warm_up
                if iteration >= 0 and iteration % size.pause == 0:
                    footprints.append((iteration, take_footprint(self.server_pid)))

            return look

        take_footprint(self.server_pid)  # what looking itself needs is there before the first look
        footprints: list[tuple[int, Footprint]] = []
        clock, _ = await self.run(case, count, looking_into(footprints))
        found["run"] = LongRun(clock.seconds[size.warm_up :], footprints)
        footprints = []
        seconds = await self.bare(case, template, count, looking_into(footprints))
        found["bare client"] = LongRun(seconds[size.warm_up :], footprints)
        return found


async def forget(client: BareClient, prompt_ids: list[str]) -> None:
    """Delete history entries that were read, as runs do: the server's memory is compared."""
    async with client.session.post(f"{client.address}/history", json={"delete": prompt_ids}) as response:
        response.raise_for_status()
    prompt_ids.clear()


def parts(clock: Clock, record: RunRecord) -> Parts:
    """Where a run's time went, by its record: per iteration, but for what is around all of them."""
    iterations = len(clock.seconds)
    return Parts(
        sum(clock.seconds) / iterations,
        record.server_seconds / iterations,
        record.transfer_seconds / iterations,
        record.seconds - (clock.ended - clock.began),
    )


def configurations() -> dict[str, ConnectorConfig]:
    """Server -> configuration: the embedded one, and the ComfyUI that COMFYUI_PATH names."""
    found = {"embedded": ConnectorConfig(COMFYUI_PATH="embedded", USE_WARM_SERVER=False)}
    named = os.environ.get("COMFYUI_PATH", "")
    if named not in ("", "embedded"):
        found["ComfyUI"] = ConnectorConfig(COMFYUI_PATH=named, USE_WARM_SERVER=False)
    return found


async def measure(config: ConnectorConfig, names: Sequence[str], size: Size) -> dict[str, Any]:
    """JSON-safe figures of one server: ``server``, ``cases`` {name: ...}, ``long`` {"run", "bare client": ...}."""
    found: dict[str, Any] = {"cases": {}}
    with WorkflowContext() as memory:
        async with await Discomfort.create(config) as d:
            bench = Bench(d, memory)
            found["server"] = d.Worker.server_description
            for name, case in cases().items():
                if name in names:
                    found["cases"][name] = summary(case, await bench.compare(case, size))
    # A server of its own: neither its cache nor its memory has anything of what was before.
    if LONG in names:
        with WorkflowContext() as memory:
            async with await Discomfort.create(dataclasses.replace(config, CACHE_LRU=LONG_CACHE)) as d:
                found["server"] = d.Worker.server_description
                runs = await Bench(d, memory).long_run(long_case(), size)
                found[LONG] = {kind: long_summary(run, size) for kind, run in runs.items()}
    return found


def summary(case: Case, found: Blocks) -> dict[str, Any]:
    """Medians, in seconds: of all iterations, and of the means of the blocks for what they are made of."""
    bare, run = median(found.bare), median(found.run)
    names = ("server", "transfer", "orchestrator", "around")
    medians = {name: median([getattr(one, name) for one in found.parts]) for name in names}
    return {"title": case.title, "count": len(found.run), "bare": bare, "run": run, "ratio": run / bare, **medians}


def long_summary(run: LongRun, size: Size) -> dict[str, Any]:
    """Seconds at both ends, and for each memory bytes at both ends and bytes per iteration after the first fifth."""
    first, last = median(run.seconds[: size.ends]), median(run.seconds[-size.ends :])
    memory: dict[str, dict[str, float]] = {}
    for name in Footprint._fields:
        points = [(float(iteration), float(getattr(one, name))) for iteration, one in run.footprints]
        late = [point for point in points if point[0] >= size.long / 5]
        memory[name] = {"start": points[0][1], "end": points[-1][1], "slope": slope(late)}
    return {"count": len(run.seconds), "first": first, "last": last, "ratio": last / first, "memory": memory}


def goals(found: Mapping[str, Mapping[str, Any]]) -> list[Goal]:
    """What is promised: little over the bare prompt, the same time at the end as at the beginning, no growth."""
    bounds = []
    for server, of in found.items():
        for name, case in of["cases"].items():
            limit = cases()[name].limit
            bounds.append(Goal(f"{server}: {case['title']}, over the bare prompt", case["ratio"], limit, at_most=True))
        if LONG in of:
            run, bare = of[LONG]["run"], of[LONG]["bare client"]
            bounds.append(Goal(f"{server}: last iterations over first", run["ratio"], 1.1, at_most=True))
            growth = {name: figures["slope"] / 1000 for name, figures in run["memory"].items()}
            of_bare = max(0.0, bare["memory"]["server"]["slope"] / 1000)
            for what, measured, most in (
                ("this process", growth["orchestrator"], 2.0),
                ("the server beyond the bare client's", growth["server"] - of_bare, 2.0),
                ("shared memory", growth["shared"], 0.5),
            ):
                unit = " kB per iteration"
                bounds.append(Goal(f"{server}: growth of {what}", measured, most, at_most=True, unit=unit))
    return bounds


def tables(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as Markdown."""
    written = []
    for server, of in found.items():
        written.append(of["server"])
        if of["cases"]:
            head = ["ms per iteration", "bare client", "run", "ratio", "server", "transfer", "orchestrator"]
            rows = []
            for case in of["cases"].values():
                shown = [f"{case[name] * 1000:.2f}" for name in ("server", "transfer", "orchestrator", "around")]
                ratio = f"**{case['ratio']:.2f}**"
                rows.append([case["title"], f"{case['bare'] * 1e3:.2f}", f"{case['run'] * 1e3:.2f}", ratio, *shown])
            written.append(markdown([*head, "around a run"], rows))
        if LONG in of:
            rows = []
            for kind, run in of[LONG].items():
                rows.append([f"{kind}: ms per iteration", *(f"{run[end] * 1e3:.2f}" for end in ("first", "last"))])
                rows[-1].append(f"ratio **{run['ratio']:.2f}**")
                for name, memory in run["memory"].items():
                    ends = [f"{memory[end] / 1e6:.1f}" for end in ("start", "end")]
                    rows.append([f"{kind}: MB, {name}", *ends, f"{memory['slope'] / 1e3:+.2f} kB per iteration"])
            count = of[LONG]["run"]["count"]
            written.append(markdown([f"{count} iterations, {server}", "start", "end", ""], rows))
    return "\n\n".join(written)


def main() -> int:
    names = [*cases(), LONG]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("iterations", nargs="?", type=int, help="of each kind and case (default: 100); long has 1000")
    parser.add_argument("--only", action="append", choices=names, help="measure this alone; may be given several times")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a few iterations, and no bounds: does it work?")
    arguments: Any = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    if arguments.iterations is not None:
        size = size._replace(iterations=max(arguments.iterations, 1))
    found = {
        server: asyncio.run(measure(config, arguments.only or names, size))
        for server, config in configurations().items()
    }
    bounds = [] if arguments.quick else goals(found)
    if arguments.json:
        judged = [{**goal._asdict(), "is_kept": goal.is_kept} for goal in bounds]
        print(json.dumps({"machine": platform.platform(), "servers": found, "goals": judged}))
    else:
        print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n\n{tables(found)}")
        if bounds:
            print(f"\n{goals_table(bounds)}")
    return 0 if all_kept(bounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
