"""Runs node calls in a real ComfyUI and saves their results (started by test_core_nodes.py, not a test itself).

    <ComfyUI>/venv/bin/python run_real_nodes.py CALLS.pt RESULTS.pt      with the ComfyUI folder as working folder

CALLS.pt is a dict: ``input``, ``output`` and ``temp`` are folders for ComfyUI's files; ``calls`` is a list of
``(class_type, inputs)``. An input ``{"$node": (class_type, inputs)}`` is the first result of that call.
RESULTS.pt is a dict: ``version``, and ``results``, a list of ``{"outputs": [...]}``, ``{"ui": {...}}`` or
``{"error": text}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import types

calls_path, results_path = sys.argv[1:3]
sys.argv = ["main.py", "--cpu"]
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
    return {"ui": output["ui"]} if isinstance(output, dict) else {"outputs": list(output)}


def call_v3(node_class: type, inputs: dict) -> dict:
    """The result of a node of the newer kind, which finds hidden inputs in an attribute."""
    hidden = {name: inputs.pop(name, None) for name in ("prompt", "extra_pnginfo", "unique_id")}
    prepared = type(node_class.__name__, (node_class,), {"hidden": types.SimpleNamespace(**hidden)})
    output = prepared.execute(**inputs)
    if output.ui is None:
        return {"outputs": list(output.args)}
    ui = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
    # Through JSON: enumerations become plain text.
    return {"ui": json.loads(json.dumps(ui))}


def resolve(value: object) -> object:
    """An input, or the result of the node it stands for."""
    if isinstance(value, dict) and "$node" in value:
        return call(*value["$node"])["outputs"][0]
    return value


def call_or_error(class_type: str, inputs: dict) -> dict:
    """The result of one node, or what went wrong."""
    try:
        return call(class_type, inputs)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


job = torch.load(calls_path, weights_only=True)
folder_paths.set_input_directory(job["input"])
folder_paths.set_output_directory(job["output"])
folder_paths.set_temp_directory(job["temp"])
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
with torch.inference_mode():
    results = [call_or_error(*one) for one in job["calls"]]
torch.save({"version": comfyui_version.__version__, "results": results}, results_path)
