"""One run on behalf of a node of the editor: its ports checked, its progress shown on the node, its errors in words
that are of use in the editor's dialog.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import prompt_graph
from ..control_flow import PerIteration, Step
from ..workflow_json import load_workflow
from . import outer
from .run_meter import RunMeter
from .runner_sockets import blocked, workflows_of
from .running import refuse_in_nested_server, run_in_background

if TYPE_CHECKING:
    from ..discomfort import Discomfort
    from ..run_record import RunRecord, RunResult

log = logging.getLogger("discomfort.editor_nodes")

# Steps of the progress bar for each iteration.
_BAR = 100


@dataclass(frozen=True)
class NodeRun:
    """What a node wants to be run."""

    steps: Sequence[Step]
    #: {unique_id: items}; one item is the value itself
    given: Mapping[str, list[Any]]
    #: the node, and what the user calls it
    node_id: str
    title: str
    iterations: int = 1
    #: {unique_id: values that change from iteration to iteration}
    per_iteration: Mapping[str, PerIteration] = field(default_factory=dict)
    #: further arguments of run_sequential
    control: Mapping[str, Any] = field(default_factory=dict)
    #: whether this ComfyUI makes room for the nested server's models first
    free_memory_first: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    #: {unique_id: items}; of collected ports one item for each iteration
    values: Mapping[str, list[Any]]
    record: RunRecord


def workflow_path(name: str) -> Path:
    """The file of a workflow that the user named.

    Raises:
        ValueError: there is no name. FileNotFoundError: there is no such file; says where it was looked for.
    """
    # The routes' module comes with what they need; nothing of it is wanted before a node executes.
    from ..editor.workflow_files import resolve_workflow

    if not name.strip():
        raise ValueError("No workflow is named. Choose one of your saved workflows, or give the path of a file.")
    return resolve_workflow(name.strip())


def content_hash(names: Sequence[str]) -> str:
    """What changes when one of these workflow files does: for IS_CHANGED.

    Raises:
        OSError, ValueError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(hashlib.sha256(workflow_path(name).read_bytes()).digest())
    return digest.hexdigest()


def changed(names: Sequence[str]) -> Any:
    """For IS_CHANGED: an edited file runs again. NaN (equal to nothing) where one cannot be read: the run says why."""
    try:
        return content_hash(names)
    except (OSError, ValueError, TypeError):
        return float("nan")


def run_for_node(run: NodeRun) -> Outcome:
    """Run what a node wants, in the thread that executes it.

    Raises:
        RuntimeError: a workflow failed, or the server did; names workflow, iteration, node and what it said. Or this
            is a nested server.
        Exception: what run_sequential finds wrong with the plan; InterruptProcessingException of ComfyUI: the user
            cancelled, or pressed Stop in the sidebar.
    """
    # Not at the top: ComfyUI's start should not wait for what the first run needs.
    from ..comfy_serverless import ConnectorError
    from ..durable.run_folder import RunChangedError
    from ..observing.observer import outer_node
    from ..observing.run_control import RunStoppedError
    from ..workflow_tools import WorkflowExecutionError

    refuse_in_nested_server()
    meter = RunMeter(run.iterations, [_node_count(source) for source in workflows_of(run.steps)])
    if run.free_memory_first:
        outer.free_memory()
    progress = outer.Progress(run.iterations * _BAR)
    progress.update(0)
    try:
        with outer_node(run.node_id, run.title):
            outcome = run_in_background(lambda discomfort: _run(discomfort, run, meter), lambda: _show(meter, progress))
    except RunChangedError as error:
        raise RuntimeError(
            f"{error}\nIn the editor: give the node another checkpoint name for the changed run, or delete that folder."
        ) from error
    except RunStoppedError as error:
        # Somebody pressed Stop in the sidebar: no failure of the node.
        outer.cancel()
        raise RuntimeError(str(error)) from error
    except (WorkflowExecutionError, ConnectorError) as error:
        raise RuntimeError(str(error)) from error
    progress.update(progress.total)
    return outcome


def _show(meter: RunMeter, progress: outer.Progress) -> None:
    # The last part is for the end: a bar that is full while the run goes on says that it is over.
    value = min(int(meter.fraction * progress.total), int(progress.total) - 1)
    progress.update(value, preview=meter.take_preview())


def _node_count(source: Any) -> int:
    content = load_workflow(source, allow_prompt=True)
    nodes = content.get("nodes")
    return len(nodes) if isinstance(nodes, list) else len(content)


async def _run(discomfort: Discomfort, run: NodeRun, meter: RunMeter) -> Outcome:
    """In the background: the run, in a context of its own that tells lists from values that are lists."""
    from ..workflow_context import WorkflowContext

    # Memory that an earlier run has used is used again.
    context = await asyncio.to_thread(WorkflowContext, lender=discomfort.Tools._memory_lender())
    try:
        single = {name: items[0] for name, items in run.given.items() if len(items) == 1}
        for name, items in run.given.items():
            if name not in single:
                await _saved(lambda n=name, i=items: context.save(n, i, is_list=True), name)  # type: ignore[misc]
        result = await discomfort.run(
            run.steps,
            {**single, **run.per_iteration},
            run.iterations,
            context=context,
            progress=meter.on_event,
            **run.control,
        )
        return Outcome(_items(result, context.digest), result.record)
    finally:
        await asyncio.to_thread(context.shutdown)


async def _saved(save: Callable[[], None], name: str) -> None:
    try:
        await asyncio.to_thread(save)
    except TypeError as error:
        raise TypeError(f"The input {name!r} cannot be given to another server: {error}") from error


def _items(result: RunResult, digest: Callable[[str], str]) -> dict[str, list[Any]]:
    """The values as lists of items: what an OUTPUT port got item by item, ComfyUI gets item by item again."""
    found = {}
    for name, value in result.items():
        is_list = name in result.collected or digest(name).endswith("/items")
        items = list(value) if is_list else [value]
        recipe = next((item for item in items if prompt_graph.is_recipe(item)), None)
        found[name] = items if recipe is None else [blocked(_why_not_out(name, str(recipe.get("type"))))]
    return found


def _why_not_out(name: str, kind: str) -> str:
    return (
        f"The output {name!r} is a {kind}, which lives in the nested server and cannot leave it. Use it inside the "
        "workflow that is run, or run the workflows that need it in one runner node; images, latents and masks can "
        "leave."
    )
