"""Which nodes run again when one input of five changes, and what alternating workflows cost: no times, only what ran.

    ./dev run python benchmarks/caching.py

Told by the server's own messages (execution_cached), on the server that the configuration names.
docs/concepts/cache.md has the tables; a test holds them against what the embedded server says.
"""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from discomfort.comfy_serverless import ConnectorConfig
from measure import markdown

from discomfort import Discomfort, RunResult

INPUTS = ("a", "b", "c", "d", "amount")


def port(unique_id: str, source: str = "") -> dict[str, Any]:
    """A DiscomfortPort of a prompt."""
    inputs: dict[str, Any] = {"unique_id": unique_id, "tags": ""}
    return {"class_type": "DiscomfortPort", "inputs": {**inputs, **({"input_data": [source, 0]} if source else {})}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """Any other node of a prompt; text of one of its inputs names the node it reads."""
    return {"class_type": class_type, "inputs": inputs}


#: five inputs, and five nodes that each read one of them first
FIVE = {
    **{f"port {name}": port(name) for name in INPUTS},
    "blur a": node("ImageBlur", image=["port a", 0], blur_radius=1, sigma=1.0),
    "blend b in": node("ImageBlend", image1=["blur a", 0], image2=["port b", 0], blend_factor=0.5, blend_mode="normal"),
    "invert c": node("ImageInvert", image=["port c", 0]),
    "mix": node(
        "ImageBlend",
        image1=["blend b in", 0],
        image2=["invert c", 0],
        blend_factor=["port amount", 0],
        blend_mode="normal",
    ),
    "blend d in": node("ImageBlend", image1=["mix", 0], image2=["port d", 0], blend_factor=0.5, blend_mode="multiply"),
    "port result": port("result", "blend d in"),
}
WORKERS = [name for name in FIVE if not name.startswith("port ")]

#: what stands for a model: a node that takes its time, whose output travels by reference; and its reader
RULES = {"IMAGE": "ref"}


def model(color: int) -> dict[str, Any]:
    """A workflow that loads the "model" of a color."""
    return {
        "load": node("EmptyImage", width=8, height=8, batch_size=1, color=color),
        "port model": port("model", "load"),
    }


USE = {
    "port model": port("model"),
    "port x": port("x"),
    "use": node("ImageBlend", image1=["port x", 0], image2=["port model", 0], blend_factor=0.5, blend_mode="normal"),
    "mean": node("ImageToMask", image=["use", 0], channel="red"),
    "port y": port("y", "mean"),
}


def executed(result: RunResult, step: int, names: list[str]) -> list[str]:
    """Those of the named nodes that a step did not take from the cache."""
    cached = set(result.record.steps[step].cached_nodes)
    return [name for name in names if name not in cached]


def picture(seed: int) -> torch.Tensor:
    """A small picture; the same for the same seed."""
    return torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(seed))


async def one_of_five(d: Discomfort) -> list[list[str]]:
    """Rows: what changed, which nodes ran, which came from the cache."""
    values: dict[str, Any] = {name: picture(i) for i, name in enumerate(INPUTS)}
    values["amount"] = 0.25
    rows = []
    for changed in ("(first run)", "nothing", *INPUTS, "nothing, in another run"):
        if changed in INPUTS:
            values[changed] = 0.75 if changed == "amount" else picture(10 + INPUTS.index(changed))
        result = await d.run([FIVE], values)
        ran = executed(result, 0, WORKERS)
        rows.append([changed, ", ".join(ran) or "none", ", ".join(n for n in WORKERS if n not in ran) or "none"])
    return rows


async def alternating(d: Discomfort) -> list[list[str]]:
    """Rows: the workflows in turn, and whether each had to load its model."""
    rules, d.Tools.pass_by_rules = d.Tools.pass_by_rules, RULES
    try:
        rows = []
        for turn in range(1, 4):
            for name, color in (("A", 0x111111), ("B", 0x222222)):
                result = await d.run([model(color), USE], {"x": picture(0)})
                loaded = executed(result, 0, ["load"])
                rows.append(
                    [
                        f"{turn}",
                        name,
                        "yes" if loaded else "no, cached",
                        ", ".join(executed(result, 1, ["use", "mean"])) or "none",
                    ]
                )
        return rows
    finally:
        d.Tools.pass_by_rules = rules


async def tables(d: Discomfort) -> tuple[str, str]:
    """Both tables as Markdown."""
    five = markdown(["what changed since the run before", "ran", "from the cache"], await one_of_five(d))
    turns = markdown(["turn", "workflow", "loads its model", "of its other nodes ran"], await alternating(d))
    return five, turns


async def main() -> int:
    async with await Discomfort.create(ConnectorConfig(USE_WARM_SERVER=False)) as d:
        five, turns = await tables(d)
        print(f"Server: {d.Worker.server_description}\n\n{five}\n\n{turns}")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
