"""What an iteration of the demo costs over the server's own work.

    ./dev run python benchmarks/loop.py [ITERATIONS] [--json]

Blocks of three kinds take turns in one run, on one server, and every prompt has a changed input, so nothing is cached:

* bare: the demo's prompt, posted by a minimal client (aiohttp, one websocket) that reads the history entry and does
  nothing else. What it takes is the server's own time plus the protocol's.
* run: ``Discomfort.run`` with the same workflow, its values through the context, as in the demo, without the demo's own
  functions (its measure of sharpness is the user's work, not ours).
* server: what the server itself says it needed for the prompts of ``run`` (its clock, from start to success).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import torch
from bare_client import BareClient
from discomfort.comfy_serverless import ConnectorConfig
from discomfort.nodes_internal import RUN_KEY
from discomfort.prompt_graph import PromptTemplate
from discomfort.workflow_context import register_context, unregister_context
from measure import median, report

from discomfort import Discomfort, PerIteration, WorkflowContext

WORKFLOW = Path(__file__).parent.parent / "examples" / "refine.json"


async def bare_block(
    d: Discomfort, template: PromptTemplate, image: torch.Tensor, amounts: list[float], memory: WorkflowContext
) -> list[float]:
    seconds = []
    # What the port saves goes into memory that was used before, as it does in the runs of one Discomfort.
    with WorkflowContext(lender=memory) as context:
        register_context(context)
        context.save("image", image)
        async with BareClient(d.Worker.server_address) as client:
            for amount in amounts:
                # Saving the changed value is not timed: a bare client would have it in its prompt.
                context.save("amount", amount)
                prompt = template.fill({name: context.digest(name) for name in ("image", "amount")})
                extra = {"extra_pnginfo": {RUN_KEY: {"run_id": context.run_id, "use_ram": True}}}
                started = time.perf_counter()
                await client.run(prompt, extra)
                seconds.append(time.perf_counter() - started)
        unregister_context(context.run_id)
    return seconds


async def main() -> int:
    with WorkflowContext() as memory:
        return await compare(memory)


async def compare(memory: WorkflowContext) -> int:
    """Run both kinds of blocks; *memory* lends the bare ones what the runs of a Discomfort lend each other."""
    iterations = next((int(a) for a in sys.argv[1:] if a.isdigit()), 100)
    blocks = 10
    size = max(iterations // blocks, 1)
    image = torch.rand(1, 1200, 1024, 3)  # the size of the demo's photograph
    counter = iter(range(10**6))
    bare: list[float] = []
    whole: list[float] = []
    server: list[float] = []

    def amounts() -> list[float]:
        return [1e-4 + next(counter) * 1e-7 for _ in range(size)]

    async with await Discomfort.create(ConnectorConfig(USE_WARM_SERVER=False)) as d:
        prompt = await d.Worker.get_prompt_from_workflow(json.loads(WORKFLOW.read_text()))
        template = PromptTemplate(prompt)
        for block in range(blocks + 1):
            bare_seconds = await bare_block(d, template, image, amounts(), memory)
            marks = [time.perf_counter()]
            result = await d.run(
                [WORKFLOW],
                inputs={"image": image, "amount": PerIteration(amounts())},
                iterations=size,
                progress=lambda event, marks=marks: (
                    marks.append(time.perf_counter()) if type(event).__name__ == "IterationFinished" else None
                ),
            )
            if block == 0:
                continue  # warm-up
            bare += bare_seconds
            # The first iteration of a run begins before its first mark: preparation is counted by the run, not here.
            whole += [b - a for a, b in itertools.pairwise(marks[1:])]
            server += [step.server_seconds + step.saving_seconds for step in result.record.steps[1:]]
        title = d.Worker.server_description
    base = median(bare)
    rows: list[tuple[str, float, float | None]] = [
        ("bare client, one prompt", base, 1.0),
        ("run, one iteration", median(whole), median(whole) / base),
        ("server's own clock", median(server), median(server) / base),
        ("run over server's own clock", median(whole), median(whole) / median(server)),
    ]
    # The server's own time is what it needs for the same prompt as seen from outside; its clock counts whole
    # milliseconds of the execution alone, without the queue and the protocol that any client pays for.
    limits = {"run, one iteration": 1.2}
    return 0 if report(f"One iteration of the demo ({len(whole)} measured). {title}", rows, limits) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
