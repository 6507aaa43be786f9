"""A run that is meant to be killed: branches and a loop in a loop, with a picture that goes round and random seeds.

    python chaos_run.py PLAN.json

The plan is a dict: ``config`` (the server's configuration file), ``checkpoint`` (the run's folder, or null), ``log``
(where its nodes note that they execute), ``result`` (where the result is written, when it is there), ``rounds`` (of ten
steps each) and ``seconds`` (that a step takes). What it is at stands on stdout, a line each. It is started again and
again, with the same plan; tests/chaos_killer.py does that.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from discomfort.durable import checkpoint as checkpoint_module
from discomfort.durable.retry import Retry
from prompt_parts import node, port

from discomfort import Branch, Discomfort, Loop, PerIteration

Json = dict[str, Any]

STEPS_PER_ROUND = 10
COLLECT = ("picture", "report")
MASTER_SEED = 4711
# A report is written so often, in seconds, that some kills come while one is. Usually it is once a minute.
REPORT_EVERY = 1.0


def workflows(log: str, seconds: float) -> dict[str, Json]:
    """The steps by name. ``step`` counts all executions, so that each has a number of its own."""

    def chaos(name: str, **more: Any) -> Json:
        inputs = {"amount": 0.05, "seed": 0, "name": name, "log": log, "seconds": seconds, **more}
        return {
            "p": port("picture"),
            "s": port("step"),
            "go": node("ChaosStep", picture=["p", 0], step=["s", 0], **inputs),
            "picture": port("picture", ["go", 0]),
            "step": port("step", ["go", 1]),
        }

    found = {name: chaos(name) for name in ("light", "dark", "inner", "left", "right", "mix")}
    found["begin"] = {
        **chaos("begin", amount=["a", 0], tint=["t", 0]),
        "a": port("amount"),
        "t": port("tint"),
        # Nothing of it ever changes: from the server's cache but for the port.
        "zero": node("ChaosAdd", number=0, by=0),
        "round": port("round", ["zero", 0]),
    }
    found["inner"] |= {
        "r": port("round"),
        "add": node("ChaosAdd", number=["r", 0], by=1),
        "round": port("round", ["add", 0]),
    }
    # What a single step of each round writes.
    found["finish"] = {**chaos("finish"), "picture": port("mask", ["go", 0]), "report": port("report", ["go", 2])}
    for name in ("left", "right"):
        found[name]["side"] = port("side", ["go", 2])
    return found


def is_light(values: Mapping[str, Any]) -> bool:
    """A branch's condition: a function of the caller's."""
    return bool(values["picture"].mean() > 0.5)


def tint(iteration: int) -> torch.Tensor:
    """A picture of its own for each round, too large for the journal."""
    return torch.full((1, 64, 64, 3), (iteration % 7) / 100)


def digest(value: Any) -> str:
    """What tells values apart, to the last bit."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().numpy().tobytes()
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()}"
    return json.dumps(value)


def say(what: str) -> None:
    print(what, flush=True)


async def run(plan: Json) -> Json:
    """The run, or what is left of it; returns what there is to compare."""
    steps = workflows(plan["log"], plan["seconds"])
    body = [
        steps["begin"],
        Branch(is_light, then=[steps["dark"]], otherwise=[steps["light"]]),
        Loop([steps["inner"], Branch("mean(picture) > 0.5", [steps["left"]], [steps["right"]])], condition="round < 3"),
        steps["mix"],
        steps["finish"],
    ]
    count = plan["rounds"] * STEPS_PER_ROUND

    def goes_on(values: Mapping[str, Any], iteration: int) -> bool:
        return bool(values["step"] < count)

    say("creating")
    async with await Discomfort.create(plan["config"]) as d:
        say("created")
        result = await d.run(
            body,
            inputs={
                "picture": torch.full((1, 64, 64, 3), 0.25),
                "step": 0,
                "round": 3,  # the inner loop would not run if no step set it
                "amount": PerIteration(lambda iteration: 0.01 * (iteration + 1)),
                "tint": PerIteration(tint),
            },
            iterations=plan["rounds"] + 5,
            loop_condition=goes_on,
            collect=COLLECT,
            seed_policy="randomize",
            master_seed=MASTER_SEED,
            checkpoint=plan["checkpoint"],
            retry=Retry(server=10_000, delay=0.05, max_delay=0.2),
            progress=lambda event: say(type(event).__name__),
        )
        say("ran")
        record = result.record
        return {
            "values": {name: digest(value) for name, value in result.items() if name not in COLLECT},
            "collected": {name: [digest(value) for value in result[name]] for name in COLLECT},
            "iterations": record.iterations,
            "steps": [[list(s.iteration), s.workflow, s.seeds, s.outputs] for s in record.steps],
            "recalled": record.recalled_steps,
        }


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(created).3f %(name)s %(levelname)s %(message)s")
    checkpoint_module._REPORT_EVERY = REPORT_EVERY
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = asyncio.run(run(plan))
    temp = Path(plan["result"] + ".new")
    temp.write_text(json.dumps(found), encoding="utf-8")
    os.replace(temp, plan["result"])
    say("done")


if __name__ == "__main__":
    main()
