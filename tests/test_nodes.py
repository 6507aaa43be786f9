"""The nodes: registration, what a port does in a run and in the plain editor, and the data loader."""

from __future__ import annotations

import json
import math
import operator
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from discomfort.comfy_serverless import NodeExecutionError
from discomfort.nodes import NODE_CLASS_MAPPINGS, DiscomfortPort
from discomfort.nodes_internal import ANY_TYPE, DiscomfortDataLoader, load_input, run_of
from discomfort.workflow_tools import DiscomfortWorkflowTools

import discomfort
from discomfort import ComfyConnector, WorkflowContext, WorkflowExecutionError

on_server = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("comfyui", marks=pytest.mark.real_comfyui)]
)
async def connector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ComfyConnector]:
    """A server that also has the tests' tiny nodes."""
    path = "embedded"
    if request.param == "comfyui":
        path = os.environ.get("COMFYUI_PATH", "")
        if path in ("", "embedded"):
            pytest.skip("COMFYUI_PATH names no ComfyUI")
    folder = tmp_path_factory.mktemp("config")
    (folder / "packs").mkdir()
    (folder / "packs" / "tiny").symlink_to(Path(__file__).parent / "conformance/pack")
    (folder / "packs.yaml").write_text(json.dumps({"tests": {"base_path": str(folder), "custom_nodes": "packs"}}))
    config = folder / "comfy_serverless.json"
    command = f"python3 main.py --extra-model-paths-config '{folder / 'packs.yaml'}'"
    config.write_text(json.dumps({"COMFYUI_PATH": path, "INITIAL_PORT": 18650, "API_COMMAND_LINE": command}))
    connector = await ComfyConnector.create(config)
    yield connector
    await connector.kill_api()


def port(unique_id: str, source: list[Any] | None = None) -> dict[str, Any]:
    inputs = {"unique_id": unique_id, "tags": "", **({"input_data": source} if source else {})}
    return {"class_type": "DiscomfortPort", "inputs": inputs}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


# ---- registration ----


def test_the_package_serves_node_mappings_and_help_pages_to_comfyui() -> None:
    assert set(discomfort.NODE_CLASS_MAPPINGS) == set(discomfort.NODE_DISPLAY_NAME_MAPPINGS)
    assert {"DiscomfortPort", "DiscomfortDataLoader"} <= set(discomfort.NODE_CLASS_MAPPINGS)
    web = Path(discomfort.__file__).parent / discomfort.WEB_DIRECTORY
    assert (web / "docs" / "DiscomfortPort.md").is_file()
    assert not hasattr(discomfort, "comfy_entrypoint")  # a V3 entry point beside the mappings would be ignored


@pytest.mark.parametrize("name", sorted(NODE_CLASS_MAPPINGS))
def test_every_node_explains_itself(name: str) -> None:
    cls: Any = NODE_CLASS_MAPPINGS[name]
    assert cls.DESCRIPTION
    assert cls.CATEGORY.startswith("Discomfort")
    assert len(cls.OUTPUT_TOOLTIPS) == len(cls.RETURN_TYPES)
    inputs = cls.INPUT_TYPES()
    for group in ("required", "optional"):
        for input_name, definition in inputs.get(group, {}).items():
            assert definition[1]["tooltip"], input_name


def test_input_names_and_order_are_those_that_saved_workflows_hold() -> None:
    inputs = DiscomfortPort.INPUT_TYPES()
    assert list(inputs["required"]) == ["unique_id", "tags"]
    assert list(inputs["optional"]) == ["input_data"]
    assert list(DiscomfortDataLoader.INPUT_TYPES()["required"]) == ["unique_id", "content"]


def test_the_any_type_is_unequal_to_no_type() -> None:
    assert operator.ne(ANY_TYPE, "IMAGE") is False
    assert operator.ne("IMAGE", ANY_TYPE) is False  # ComfyUI compares in both directions
    assert json.dumps(ANY_TYPE) == '"*"'


def test_loading_the_nodes_needs_no_torch() -> None:
    code = "import sys, discomfort.nodes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- plain functions ----


def test_a_port_passes_lists_through_outside_a_run() -> None:
    assert DiscomfortPort().process_port(["a"], [""], input_data=[1, 2], mode=[""]) == ([1, 2],)


def test_only_an_output_port_of_a_run_always_executes() -> None:
    assert math.isnan(DiscomfortPort.IS_CHANGED(mode=["OUTPUT"]))
    assert DiscomfortPort.IS_CHANGED(mode=["PASSTHRU"]) == DiscomfortPort.IS_CHANGED()


def test_a_loader_outside_a_run_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"Discomfort\.run"):
        run_of({"workflow": {}})
    with pytest.raises(RuntimeError, match=r"Discomfort\.run"):
        run_of(None)


def test_a_loader_refuses_a_value_that_was_replaced_meanwhile() -> None:
    with WorkflowContext() as context:
        context.save("a", 1)
        run = {"discomfort": {"run_id": context.run_id}}
        digest = context.digest("a")
        assert load_input(run, "a", digest) == [1]
        context.save("a", 2)
        with pytest.raises(RuntimeError, match="replaced"):
            load_input(run, "a", digest)


# ---- in a server ----


@on_server
async def test_in_the_plain_editor_a_port_hands_on_what_comes_in(connector: ComfyConnector) -> None:
    prompt = {
        "1": node("EmptyImage", width=4, height=4, batch_size=1, color=0),
        "2": port("anything", ["1", 0]),
        "3": node("PreviewImage", images=["2", 0]),
    }
    ((_, entry),) = (await connector.run_workflow(prompt, use_workflow_json=False)).items()
    assert len(entry["outputs"]["3"]["images"]) == 1


@on_server
async def test_in_the_plain_editor_an_input_port_without_a_value_skips_what_is_behind_it(
    connector: ComfyConnector,
) -> None:
    prompt = {"1": port("image"), "2": node("PreviewImage", images=["1", 0])}
    ((_, entry),) = (await connector.run_workflow(prompt, use_workflow_json=False)).items()
    assert entry["status"]["status_str"] == "success"
    assert "2" not in entry["outputs"]


@on_server
async def test_a_loader_queued_by_hand_fails_with_advice(connector: ComfyConnector) -> None:
    prompt = {"1": node("DiscomfortDataLoader", unique_id="a", content="x"), "2": node("PreviewAny", source=["1", 0])}
    with pytest.raises(NodeExecutionError, match=r"Discomfort\.run"):
        await connector.run_workflow(prompt, use_workflow_json=False)


@on_server
async def test_an_output_that_is_a_list_arrives_whole(connector: ComfyConnector) -> None:
    prompt = {"1": node("TinyCount", n=3), "2": port("numbers", ["1", 0])}
    result = await DiscomfortWorkflowTools(connector).run_sequential([prompt])
    assert result["numbers"] == [0, 1, 2]


@on_server
async def test_a_blocked_output_is_an_error_and_never_an_older_value(connector: ComfyConnector) -> None:
    with WorkflowContext() as context:
        context.save("image", torch.zeros(1))
        prompt = {"1": node("TinyBlock", message="", bare=False), "2": port("image", ["1", 0])}
        with pytest.raises(WorkflowExecutionError, match="'image'"):
            await DiscomfortWorkflowTools(connector).run_sequential([prompt], context=context)
