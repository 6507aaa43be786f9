"""Nodes that runs put into prompts by themselves, and the plain functions behind all nodes.

Data reaches a node by name only: the prompt holds a port's ``unique_id`` and the digest of its content; the id of the
run comes in ``extra_pnginfo`` (under the key "discomfort"), which ComfyUI does not count as input when it looks into
its cache (measured on 0.3.64). So an unchanged value leaves everything behind it cached, in later iterations and later
runs.
"""

from __future__ import annotations

import time
from typing import Any, cast

#: what a script and the nodes in its server must agree on: names of nodes and inputs, modes of ports, and what
#: ``extra_pnginfo`` says. 1: ports by value. 2: ports by reference, lists item by item.
PROTOCOL_VERSION = 2

#: key of ``extra_pnginfo`` under which a run tells its nodes about itself: {"run_id": str, "use_ram": bool}
RUN_KEY = "discomfort"


class AnyType(str):
    """The type "*" that fits every socket: ComfyUI compares socket types with ``!=``, in both directions (0.3.64)."""

    def __ne__(self, other: object) -> bool:
        return False

    # Defining __ne__ alone keeps str's __eq__ and __hash__ only if they are named.
    __eq__ = str.__eq__
    __hash__ = str.__hash__


ANY_TYPE = AnyType("*")


def only(value: Any) -> Any:
    """The one value of an input that ComfyUI wrapped in a list (INPUT_IS_LIST); a plain value as it is."""
    return value[0] if isinstance(value, list) and value else value


def block_execution() -> Any:
    """A value that silently keeps everything behind it from executing (ComfyUI's ExecutionBlocker)."""
    from comfy_execution.graph import ExecutionBlocker  # exists inside a server only

    return ExecutionBlocker(None)


def run_of(extra_pnginfo: Any) -> dict[str, Any]:
    """What the run said about itself.

    Raises:
        RuntimeError: the prompt was not queued by a run of Discomfort.
    """
    run = extra_pnginfo.get(RUN_KEY) if isinstance(extra_pnginfo, dict) else None
    if not isinstance(run, dict) or "run_id" not in run:
        raise RuntimeError(
            "This node belongs to a run of Discomfort, but the prompt names no run (extra_pnginfo['discomfort']). It "
            "was probably queued by hand; run the workflow with Discomfort.run() instead."
        )
    return cast("dict[str, Any]", run)


def save_output(extra_pnginfo: Any, unique_id: str, values: list[Any]) -> dict[str, Any]:
    """Save what arrived at an OUTPUT port into the run's context.

    Args:
        values: what arrived; one value is saved as itself, several (an output that is a list in ComfyUI) as a list that
            the next workflow gets item by item again.

    Returns:
        What was written, JSON-safe: unique_id, digest, size in bytes, storage_type, and the seconds it took.

    Raises:
        TypeError: it cannot be pickled; says where, and what to do.
        OSError: neither memory nor disk can hold it.
    """
    from .workflow_context import get_context

    started = time.perf_counter()
    run = run_of(extra_pnginfo)
    context = get_context(run["run_id"])
    is_list = len(values) != 1
    data = values if is_list else values[0]
    try:
        context.save(unique_id, data, use_ram=bool(run.get("use_ram", True)), is_list=is_list)
    except TypeError as e:
        raise TypeError(
            f"{e}. What lives in the server alone, a model say, travels by reference: name the type of port "
            f"{unique_id!r} in pass_by_rules.json."
        ) from e
    info = context.get_storage_info(unique_id) or {}
    written = {k: info.get(k) for k in ("digest", "size", "storage_type")}
    return {"unique_id": unique_id, **written, "seconds": time.perf_counter() - started}


def load_input(extra_pnginfo: Any, unique_id: str, content: str) -> list[Any]:
    """Load the value of an INPUT port from the run's context, as the list of items that ComfyUI hands to nodes: one,
    unless an OUTPUT port saved a list of several.

    Raises:
        RuntimeError: the context holds another value by now than the one the prompt was made for: handing it out would
            put it into ComfyUI's cache under the digest of the old one.
    """
    from .workflow_context import get_context

    context = get_context(run_of(extra_pnginfo)["run_id"])
    found = context.digest(unique_id)
    if found != content:
        raise RuntimeError(
            f"The value of {unique_id!r} was replaced after this prompt was queued (digest {found}, expected "
            f"{content}). Do not save into a context under a key that a run in progress reads."
        )
    value = context.load(unique_id)
    return value if content.endswith("/items") else [value]


class DiscomfortDataLoader:
    """Hands a value of the run's context to the graph. Runs put it where a workflow has an INPUT port."""

    CATEGORY = "Discomfort/internal"
    DESCRIPTION = "Put into prompts by Discomfort in place of INPUT ports; there is no reason to place it by hand."
    RETURN_TYPES = (ANY_TYPE,)
    RETURN_NAMES = ("output",)
    OUTPUT_TOOLTIPS = ("The value that the run holds under this name.",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "load_data"
    EXPERIMENTAL = True  # editors mark it, so that nobody takes it for a node of theirs

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The name, and the digest of the content: the digest is what makes ComfyUI's cache right."""
        return {
            "required": {
                "unique_id": ("STRING", {"default": "", "tooltip": "Name of the value in the run's context."}),
                "content": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "Digest of the value: equal digests are cached.",
                        # Scripts read it from /object_info before they queue anything.
                        "discomfort_protocol": PROTOCOL_VERSION,
                    },
                ),
            },
            "hidden": {"extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def load_data(self, unique_id: str, content: str, extra_pnginfo: Any = None) -> tuple[list[Any]]:
        """The value's items, as the only output."""
        return (load_input(extra_pnginfo, unique_id, content),)
