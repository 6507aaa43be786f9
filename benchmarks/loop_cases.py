"""The workflows that benchmarks/loop.py runs in loops, and the values that they get in each iteration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

DEMO = Path(__file__).parent.parent / "examples" / "workflows" / "refine.json"
# Nodes of the larger workflow, its two ports included.
BIG_GRAPH = 50

Prompt = dict[str, dict[str, Any]]


class Case(NamedTuple):
    """A workflow, and what its iterations are given."""

    #: what ``--only`` calls it
    name: str
    #: a phrase for tables
    title: str
    #: as ``run`` takes it
    workflow: Any
    #: {unique_id: value} of what stays the same
    fixed: dict[str, Any]
    #: unique_id of the value that changes from iteration to iteration; None: nothing does
    changing: str | None
    #: its value for a number that no other iteration has
    value: Callable[[int], Any]
    #: how many nodes have to come from the server's cache in each iteration
    cached: int
    #: the greatest ratio to the bare client that is accepted
    limit: float


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def port(unique_id: str, *link: Any) -> dict[str, Any]:
    """An INPUT port, or with a link an OUTPUT port."""
    return node("DiscomfortPort", unique_id=unique_id, tags="", **({"input_data": list(link)} if link else {}))


def small_graph() -> Prompt:
    return {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("result", "2", 0)}


def big_graph(count: int = BIG_GRAPH) -> Prompt:
    """Pictures that are turned over, inverted and mixed with the one before; everything depends on the input."""
    prompt = {"1": port("image")}
    for number in range(2, count):
        before, last = [str(max(1, number - 2)), 0], [str(number - 1), 0]
        if number % 3 == 0:
            made = node("ImageInvert", image=last)
        elif number % 3 == 1:
            made = node("ImageFlip", image=last, flip_method="x-axis: vertically")
        else:
            made = node("ImageBlend", image1=last, image2=before, blend_factor=0.5, blend_mode="normal")
        prompt[str(number)] = made
    prompt[str(count)] = port("result", str(count - 1), 0)
    return prompt


def loop_variable() -> Prompt:
    """A picture that goes round, and a number that sees to it that it never comes back as it was."""
    return {
        "1": port("image"),
        "2": port("amount"),
        "3": node("ImageInvert", image=["1", 0]),
        "4": node("ImageBlend", image1=["1", 0], image2=["3", 0], blend_factor=["2", 0], blend_mode="normal"),
        "5": port("image", "4", 0),
    }


def picture(size: int, number: int = 0) -> torch.Tensor:
    """[1,size,size,3] in 0..1; another content for each number below 2**20."""
    image = torch.linspace(0.0, 0.5, size * size * 3).reshape(1, size, size, 3)
    image[0, 0, 0, 0] = number / 2**20
    return image


def cases() -> dict[str, Case]:
    """Name -> case. Pictures of 64 x 64, but for the demo's: what is measured is not the nodes' work."""
    image = torch.rand(1, 1200, 1024, 3)  # the size of the demo's photograph
    small = {"fixed": {}, "changing": "image", "value": lambda number: picture(64, number), "cached": 0}
    still = {"fixed": {"image": picture(64)}, "changing": None, "value": lambda number: None, "cached": BIG_GRAPH - 1}
    found = [
        Case("trivial", "3 nodes, changed", small_graph(), **small, limit=1.25),
        Case("nodes", f"{BIG_GRAPH} nodes, changed", big_graph(), **small, limit=1.2),
        Case("cached", f"{BIG_GRAPH} nodes, everything cached", big_graph(), **still, limit=1.25),
        Case("demo", "the demo", DEMO, {"image": image}, "amount", lambda number: 1e-4 + number * 1e-7, 0, 1.2),
    ]
    return {case.name: case for case in found}


def long_case() -> Case:
    """What runs a thousand times: everything is computed anew, and its output is the next iteration's input."""
    start = {"image": picture(64)}
    # Mixed with a very small share of its inverse, so that a thousand of them leave a picture.
    return Case("long", "loop variable", loop_variable(), start, "amount", lambda number: 1e-6 * (number + 1), 0, 0.0)
