"""Runs node calls in a real ComfyUI and saves their results (started by test_core_nodes.py, not a test itself).

    <ComfyUI>/venv/bin/python run_real_nodes.py CALLS.pt RESULTS.pt [OPTION...]      in the ComfyUI folder

OPTIONs are ComfyUI's own, such as --disable-metadata.

CALLS.pt is a dict: ``input``, ``output`` and ``temp`` are folders for ComfyUI's files; ``calls`` is a list of
``(class_type, inputs)``. An input ``{"$node": (class_type, inputs)}`` is the first result of that call, ``{"$svg":
[text]}`` a link with drawings. RESULTS.pt is a dict: ``version``, and ``results``, a list of dicts with ``outputs``, a
list, and ``ui``, each where the node gives it; with ``error``, the name of the exception, and ``message``; or with
``missing`` for a class this ComfyUI does not have.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import types

calls_path, results_path, *options = sys.argv[1:]
sys.argv = ["main.py", "--cpu", *options]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

# First, as in main.py: importing ``nodes`` puts a folder with another ``utils`` in front.
import utils.extra_config  # noqa: E402, F401, I001

import comfyui_version  # noqa: E402
import folder_paths  # noqa: E402
import nodes  # noqa: E402
import torch  # noqa: E402


def call(class_type: str, inputs: dict) -> dict:
    """The result of one node."""
    node_class = nodes.NODE_CLASS_MAPPINGS[class_type]
    inputs = {name: resolve(value) for name, value in inputs.items()}
    if hasattr(node_class, "define_schema"):
        return call_v3(node_class, inputs)
    output = getattr(node_class(), node_class.FUNCTION)(**inputs)
    if not isinstance(output, dict):
        return {"outputs": list(output)}
    return {"ui": output["ui"], **({"outputs": list(output["result"])} if "result" in output else {})}


def call_v3(node_class: type, inputs: dict) -> dict:
    """The result of a node of the newer kind, which finds hidden inputs in an attribute."""
    hidden = {name: inputs.pop(name, None) for name in ("prompt", "extra_pnginfo", "unique_id")}
    prepared = type(node_class.__name__, (node_class,), {"hidden": types.SimpleNamespace(**hidden)})
    output = prepared.execute(**inputs)
    result = {"outputs": list(output.args)} if output.args or output.ui is None else {}
    if output.ui is None:
        return result
    ui = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
    # Through JSON: enumerations become plain text.
    return {**result, "ui": json.loads(json.dumps(ui))}


def resolve(value: object) -> object:
    """An input, or what it stands for."""
    if isinstance(value, dict) and "$node" in value:
        return call(*value["$node"])["outputs"][0]
    if isinstance(value, dict) and "$svg" in value:
        from comfy_extras import nodes_images

        # Later versions call the class of the type by that name; what the node wants is the data.
        drawings = [io.BytesIO(text.encode()) for text in value["$svg"]]
        return types.SimpleNamespace(data=drawings) if not callable(nodes_images.SVG) else nodes_images.SVG(drawings)
    return value


def storable(value: object) -> object:
    """A result without what only this ComfyUI can load again."""
    if isinstance(value, dict):
        return {key: storable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)) else None


def call_or_error(class_type: str, inputs: dict) -> dict:
    """The result of one node, or what went wrong."""
    if class_type not in nodes.NODE_CLASS_MAPPINGS:
        return {"missing": True}
    try:
        return storable(call(class_type, inputs))
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


job = torch.load(calls_path, weights_only=True)
folder_paths.set_input_directory(job["input"])
folder_paths.set_output_directory(job["output"])
folder_paths.set_temp_directory(job["temp"])
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
with torch.inference_mode():
    results = [call_or_error(*one) for one in job["calls"]]
torch.save({"version": comfyui_version.__version__, "results": results}, results_path)
