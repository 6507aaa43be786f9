"""DiscomfortExtenderWorkflowRunner: feed a picture through a workflow again and again, with more room each time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..control_flow import PerIteration
from ..nodes_internal import only
from . import outer
from .node_run import NodeRun, changed, run_for_node, workflow_path
from .padding import DIRECTIONS, pad_image
from .runner_sockets import FREE_MEMORY_FIRST, HIDDEN, PlanPorts, plan_ports

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Extension:
    """What the node's widgets say."""

    workflow: str
    times: int = 1
    direction: str = "none"
    pixels: int = 128
    feathering: int = 24
    image_port: str = "image"
    mask_port: str = "mask"
    free_memory_first: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Extension:
        """From the node's keyword arguments, in which every value is in a list (INPUT_IS_LIST)."""
        return cls(**{name: only(arguments[name]) for name in cls.__dataclass_fields__ if name in arguments})


def result_port(ports: PlanPorts, image_port: str) -> str:
    """The OUTPUT port that the next pass begins with: the one of the image port's name, else the only image.

    Raises:
        ValueError: there is none, or more than one.
    """
    if image_port in ports.outputs:
        return image_port
    images = [name for name, kind in ports.outputs.items() if kind in ("IMAGE", "*")]
    if len(images) == 1:
        return images[0]
    available = ", ".join(f"{name!r} ({kind})" for name, kind in ports.outputs.items()) or "none"
    raise ValueError(
        f"The workflow has {'no' if not images else 'more than one'} OUTPUT port that could be the extended image: "
        f"{available}. Call the port of the result {image_port!r}, as the one that the image goes into."
    )


class _Passes:
    """The image and the mask of each pass, made of what the pass before has delivered."""

    def __init__(self, extension: Extension, image: torch.Tensor, result: str) -> None:
        self._extension = extension
        self._image = image
        self._result = result
        # (number of the pass, its image, its mask): both ports ask for the same pass, one after the other
        self._made: tuple[int, torch.Tensor, torch.Tensor] | None = None

    async def image(self, iteration: int, values: Mapping[str, Any]) -> torch.Tensor:
        return (await self._make(iteration, values))[0]

    async def mask(self, iteration: int, values: Mapping[str, Any]) -> torch.Tensor:
        return (await self._make(iteration, values))[1]

    async def _make(self, iteration: int, values: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self._made is None or self._made[0] != iteration:
            before = self._image if iteration == 0 else values[self._result]
            one = self._extension
            # Large pictures take their time, and the loop has other runs to serve.
            padded, mask = await asyncio.to_thread(pad_image, before, one.direction, one.pixels, one.feathering)
            self._made = (iteration, padded, mask)
        return self._made[1:]


def _check_ports(ports: PlanPorts, extension: Extension, inputs: Mapping[str, Any]) -> None:
    """Refuse a workflow that wants something else than this node has to give, before a server is started for it.

    Raises:
        ValueError: names the port.
    """
    if extension.image_port not in ports.inputs:
        available = ", ".join(map(repr, ports.inputs)) or "none"
        raise ValueError(
            f"The workflow has no INPUT port {extension.image_port!r}, into which the image is to go. It has: "
            f"{available}. Set image_port to one of them."
        )
    for name, workflow in ports.required.items():
        if name not in inputs:
            raise ValueError(
                f"The INPUT port {name!r} of {workflow} has nothing to read: this node gives a workflow an image and "
                "its mask. Put the value into the workflow itself, or use the Loop Executor, which has an input for "
                "every port."
            )


def extend(
    extension: Extension, image: torch.Tensor, node_id: str, title: str
) -> tuple[str, torch.Tensor, list[torch.Tensor]]:
    """What the node does.

    Returns:
        (a summary for people, the last image, the image of every pass).

    Raises:
        ValueError: a port is missing. Else: as run_for_node.
    """
    steps = [workflow_path(extension.workflow)]
    ports = plan_ports(steps)
    result = result_port(ports, extension.image_port)
    passes = _Passes(extension, image, result)
    inputs = {extension.image_port: PerIteration(passes.image)}
    if extension.mask_port in ports.inputs:  # a workflow that paints over everything has no need of it
        inputs[extension.mask_port] = PerIteration(passes.mask)
    _check_ports(ports, extension, inputs)
    outcome = run_for_node(
        NodeRun(
            steps,
            {},
            node_id,
            title,
            iterations=extension.times,
            per_iteration=inputs,
            control={"collect": [result]},
            free_memory_first=extension.free_memory_first,
        )
    )
    images = outcome.values[result]
    return outcome.record.summary(with_server=False), images[-1], images


class DiscomfortExtenderWorkflowRunner:
    """Runs a workflow several times; each pass gets the image of the one before, with new room on one side."""

    CATEGORY = "Discomfort"
    DESCRIPTION = (
        "Runs a saved workflow several times. Each pass gets the image that the one before made, with grey room added "
        "on one side and a mask of it (1: new), as an outpainting workflow wants them; or, with direction 'none', the "
        "image as it is: for upscaling or refining in passes."
    )
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("image", "steps")
    OUTPUT_TOOLTIPS = ("What the last pass made.", "What every pass made, as a list.")
    OUTPUT_IS_LIST = (False, True)
    INPUT_IS_LIST = True
    FUNCTION = "extend_image"
    OUTPUT_NODE = True
    SEARCH_ALIASES: ClassVar[list[str]] = ["outpaint", "extend image", "infinite zoom", "uncrop", "refine in passes"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets, in the order in which saved workflows hold them."""
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The image that the first pass begins with."}),
                "workflow": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "The workflow of a pass: a saved one, or the path of a .json file. Its OUTPUT port "
                        "for the result has the name of image_port, or is its only image.",
                    },
                ),
                "times": ("INT", {"default": 1, "min": 1, "max": 1000, "tooltip": "How many passes there are."}),
                "direction": (
                    list(DIRECTIONS),
                    {"default": "none", "tooltip": "On which side each pass gets new room; none: the image as it is."},
                ),
                "pixels": (
                    "INT",
                    {
                        "default": 128,
                        "min": 1,
                        "max": 8192,
                        "tooltip": "Width (left, right) or height (up, down) of the new room, in pixels.",
                    },
                ),
                "feathering": (
                    "INT",
                    {
                        "default": 24,
                        "min": 0,
                        "max": 8192,
                        "tooltip": "Over how many pixels of the old image the mask fades out.",
                    },
                ),
                "image_port": (
                    "STRING",
                    {"default": "image", "tooltip": "Name of the INPUT port that gets the image of a pass."},
                ),
                "mask_port": (
                    "STRING",
                    {
                        "default": "mask",
                        "tooltip": "Name of the INPUT port that gets the mask. A workflow without it gets none.",
                    },
                ),
                "free_memory_first": FREE_MEMORY_FIRST,
            },
            "hidden": dict(HIDDEN),
        }

    @classmethod
    def IS_CHANGED(cls, workflow: Any = "", **_: Any) -> Any:
        """See :func:`.node_run.changed`."""
        return changed([only(workflow)])

    def extend_image(
        self, image: Any, unique_id: Any = "", prompt: Any = None, extra_pnginfo: Any = None, **arguments: Any
    ) -> dict[str, Any]:
        """Run the passes."""
        if len(image) != 1:
            raise ValueError(
                f"The input 'image' got a list of {len(image)} images; passes begin with one. Join them to a batch."
            )
        title = outer.node_title(extra_pnginfo, prompt, unique_id)
        summary, last, steps = extend(Extension.of(arguments), image[0], str(only(unique_id)), title)
        return {"ui": {"text": [summary]}, "result": (last, steps)}
