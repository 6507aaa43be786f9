"""A package of tiny nodes for the embedded server's tests. It also loads in ComfyUI, to compare the two."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from typing import Any

import comfy.model_management
import torch
from aiohttp import web
from comfy.utils import ProgressBar
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder
from PIL import Image
from server import PromptServer

from . import execution_nodes, protocol, tensors
from .execution_nodes import ANY

WEB_DIRECTORY = "./web"

# Node id -> how often it was called since the server started.
CALLS: dict[str, int] = {}


def _count(node_id: str) -> None:
    CALLS[node_id] = CALLS.get(node_id, 0) + 1


@PromptServer.instance.routes.get("/tiny/calls")
async def get_calls(_: web.Request) -> web.Response:
    """The number of calls of each TinyAdd."""
    return web.json_response(CALLS)


@PromptServer.instance.routes.get("/tiny/environment")
async def get_environment(_: web.Request) -> web.Response:
    """What the package sees of the server."""
    import folder_paths

    import nodes

    return web.json_response(
        {
            "module": __name__,
            "largest": nodes.MAX_RESOLUTION,
            "temp": folder_paths.get_temp_directory(),
            "has_preview": hasattr(nodes, "PreviewImage"),
            "inference": torch.is_inference_mode_enabled(),
            "pid": os.getpid(),
        }
    )


class _Tiny:
    CATEGORY = "tiny"
    FUNCTION = "run"
    RETURN_TYPES: tuple[Any, ...] = ("INT",)


class TinyNumber(_Tiny):
    """A number in a range."""

    DESCRIPTION = "A number"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"value": ("INT", {"default": 1, "min": 0, "max": 100})},
            "optional": {"note": ("STRING", {"default": ""}), "scale": ("FLOAT", {"default": 1.0})},
        }

    def run(self, value: int, note: str = "", scale: float = 1.0) -> tuple[int]:
        return (int(value * scale),)


class TinyAdd(_Tiny):
    """The sum of two numbers; counts its calls."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"a": ("INT", {}), "b": ("INT", {})},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def run(self, a: int, b: int, node_id: str) -> tuple[int]:
        _count(node_id)
        return (a + b,)


class TinyShow(_Tiny):
    """Shows a value."""

    OUTPUT_NODE = True
    RETURN_TYPES = (ANY,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (ANY, {})}}

    def run(self, value: Any) -> dict[str, Any]:
        shown = value if value is None or isinstance(value, (int, float, str, list, dict)) else str(value)
        return {"ui": {"values": [shown]}, "result": (value,)}


class TinyFail(_Tiny):
    """Raises."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {}), "what": (["value", "memory", "none"], {})}}

    def run(self, a: int, what: str) -> Any:
        if what == "memory":
            raise torch.cuda.OutOfMemoryError("no more")
        if what == "none":
            return None
        raise ValueError(f"boom {a}")


class TinySteps(_Tiny):
    """Takes its time, with progress and, if asked for, previews."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "steps": ("INT", {"default": 3, "min": 1, "max": 100000}),
                "seconds": ("FLOAT", {"default": 0.0}),
                "preview": ("BOOLEAN", {"default": False}),
                "seed": ("INT", {"default": 0}),
            }
        }

    def run(self, steps: int, seconds: float, preview: bool, seed: int) -> tuple[int]:
        bar = ProgressBar(steps)
        for step in range(steps):
            time.sleep(seconds)
            image = ("JPEG", Image.new("RGB", (32, 16), (200, 10, 10)), 16) if preview else None
            bar.update_absolute(step + 1, steps, image)
        return (steps,)


class TinySpin(_Tiny):
    """Waits until it is interrupted, without a progress bar."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seconds": ("FLOAT", {"default": 10.0}), "seed": ("INT", {"default": 0})}}

    def run(self, seconds: float, seed: int) -> tuple[int]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.005)
        return (0,)


class TinyChanging(_Tiny):
    """Says how it has changed."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"how": (["nan", "math.nan", "constant", "raise"], {})},
            "hidden": {"extra": "EXTRA_PNGINFO", "node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, how: str, extra: Any = None, node_id: Any = None) -> Any:
        if how == "raise":
            raise RuntimeError("cannot say")
        # "constant" would change with extra_pnginfo if it could be seen here.
        return {"nan": float("nan"), "math.nan": math.nan, "constant": f"same {extra}"}[how]

    def run(self, how: str, extra: Any = None, node_id: Any = None) -> tuple[int]:
        _count(node_id)
        return (CALLS[node_id],)


class TinyUnique(_Tiny):
    """Never shares its result with another node."""

    NOT_IDEMPOTENT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def run(self, value: int) -> tuple[int]:
        return (value,)


class TinyCount(_Tiny):
    """The numbers below n, as a list."""

    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}}

    def run(self, n: int) -> tuple[list[int]]:
        return (list(range(n)),)


class TinyJoin(_Tiny):
    """All values of its inputs, as text."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"values": (ANY, {}), "mark": ("STRING", {})}, "hidden": {"node_id": "UNIQUE_ID"}}

    def run(self, values: list[Any], mark: list[str], node_id: list[str]) -> tuple[str]:
        return (f"{values} {mark} {node_id}",)


class TinyLazy(_Tiny):
    """One of two inputs; the other is not computed."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "second": ("BOOLEAN", {}),
                "a": ("INT", {"lazy": True}),
                "b": ("INT", {"lazy": True}),
            }
        }

    def check_lazy_status(self, second: bool, a: Any, b: Any) -> list[str]:
        wanted, value = ("b", b) if second else ("a", a)
        return [wanted] if value is None else []

    def run(self, second: bool, a: Any, b: Any) -> tuple[int]:
        return (b if second else a,)


class TinyAsync(_Tiny):
    """Waits without holding up other nodes."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seconds": ("FLOAT", {}), "value": ("INT", {}), "fail": ("BOOLEAN", {"default": False})}}

    async def run(self, seconds: float, value: int, fail: bool) -> tuple[int]:
        await asyncio.sleep(seconds)
        if fail:
            raise ValueError("async boom")
        return (value,)


class TinyBlock(_Tiny):
    """Blocks what follows."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"message": ("STRING", {"default": ""}), "bare": ("BOOLEAN", {"default": False})}}

    def run(self, message: str, bare: bool) -> Any:
        blocker = ExecutionBlocker(message or None)
        return blocker if bare else (blocker,)


class TinyExpand(_Tiny):
    """n + (n - 1) + ... + 0, by expanding into itself."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"n": ("INT", {})}}

    def run(self, n: int) -> Any:
        if n <= 0:
            return (0,)
        graph = GraphBuilder()
        rest = graph.node("TinyExpand", n=n - 1)
        total = graph.node("TinyAdd", a=rest.out(0), b=n)
        graph.node("TinyShow", id="show", value=total.out(0))
        return {"result": (total.out(0),), "expand": graph.finalize()}


class TinyChecked(_Tiny):
    """Checks its own input."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"max": 5}), "other": ("INT", {"max": 5})}}

    @classmethod
    def VALIDATE_INPUTS(cls, value: int) -> Any:
        if value == 13:
            raise RuntimeError("thirteen")
        return True if value < 10 else False if value < 20 else f"{value} is too much"

    def run(self, value: int, other: int) -> tuple[int]:
        return (value,)


class TinyTyped(_Tiny):
    """Checks the types of what is linked to it."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict[str, str]) -> Any:
        return True if input_types.get("value") in ("INT", "STRING") else f"not {input_types}"

    def run(self, value: Any) -> tuple[Any]:
        return (value,)


class TinyText(_Tiny):
    """A text from a choice."""

    RETURN_TYPES = ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"choice": (["one", "two"], {}), "long": ([str(i) for i in range(30)], {})}}

    def run(self, choice: str, long: str) -> tuple[str]:
        return (choice + long,)


class TinyHidden(_Tiny):
    """Shows its hidden inputs, one of a kind of its own."""

    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"seed": ("INT", {"default": 0})},
            "hidden": {
                "prompt": "PROMPT",
                "extra": "EXTRA_PNGINFO",
                "node_id": "UNIQUE_ID",
                "dynprompt": "DYNPROMPT",
                "token": "AUTH_TOKEN_COMFY_ORG",
                "mode": "TINY_MODE",
            },
        }

    def run(self, seed: int, mode: str = "unset", **hidden: Any) -> dict[str, Any]:
        return {
            "ui": {
                "prompt": [sorted(hidden["prompt"])],
                "extra": [hidden["extra"]],
                "node_id": [hidden["node_id"]],
                "dynprompt": [hidden["dynprompt"].get_node(hidden["node_id"])["class_type"]],
                "token": [hidden["token"]],
                "mode": [mode],
            }
        }


class TinyImage(_Tiny):
    """An image [B, H, W, 3] of one grey."""

    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("picture", "hole")
    OUTPUT_TOOLTIPS = ("an image", "a mask")
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"size": ("INT", {"default": 8}), "grey": ("FLOAT", {"default": 0.5})}}

    def run(self, size: int, grey: float) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((1, size, size, 3), grey), torch.zeros((1, size, size))


_CLASSES = [value for value in vars(sys.modules[__name__]).values() if isinstance(value, type)]
NODE_CLASS_MAPPINGS = {c.__name__: c for c in _CLASSES if issubclass(c, _Tiny) and c is not _Tiny}
NODE_CLASS_MAPPINGS.update(execution_nodes.NODE_CLASS_MAPPINGS)
NODE_CLASS_MAPPINGS.update(protocol.NODE_CLASS_MAPPINGS | tensors.NODE_CLASS_MAPPINGS)
NODE_DISPLAY_NAME_MAPPINGS = {"TinyNumber": "Tiny number"}
