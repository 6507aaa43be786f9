"""Calling a node: its inputs gathered, list inputs called over, results merged per output.

Every value between nodes is a list (most of one item). A node is called once per position of its longest
input, shorter lists repeat their last item, unless it says INPUT_IS_LIST and gets the lists. As ComfyUI 0.3.64.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from . import node_registry
from .graph import DynamicPrompt, get_input_info
from .graph_utils import ExecutionBlocker, is_link
from .node_api.calls import accepts_undeclared, bind, call_data, declared_inputs, nest
from .node_context import CurrentNodeContext

if TYPE_CHECKING:
    from .node_api.hidden import V3Data


class Outputs(Protocol):
    """Where the outputs of nodes that have run are."""

    def get(self, node_id: str) -> Any: ...


def gather_inputs(
    inputs: dict[str, Any],
    class_def: Any,
    unique_id: str,
    outputs: Outputs | None = None,
    dynprompt: DynamicPrompt | None = None,
    extra_data: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], set[str]]:
    """The values a node is called with, each a list.

    Args:
        inputs: the node's inputs as the prompt has them; those the class does not declare are left out,
            also linked ones with no link to follow. An undeclared *link* is passed all the same, and to a V3
            node with ``accept_all_inputs`` everything.
        outputs: results of other nodes; None (IS_CHANGED, VALIDATE_INPUTS): linked inputs are None.
        dynprompt, extra_data: for the hidden inputs, which without them are empty, None.

    Returns:
        Values by input name, and the names of linked inputs whose value is not there (yet).
    """
    declared = declared_inputs(class_def, inputs)
    takes_all = accepts_undeclared(class_def)
    values: dict[str, Any] = {}
    missing: set[str] = set()
    for name, value in inputs.items():
        _, category, options = get_input_info(class_def, name, declared)
        if is_link(value) and not (options and options.get("rawLink")):
            source = outputs.get(value[0]) if outputs is not None else None
            if source is None or value[1] >= len(source):
                missing.add(name)
                values[name] = (None,)
            else:
                values[name] = source[value[1]]
        elif category is not None or takes_all:
            values[name] = [value]
    hidden = _hidden_values(unique_id, dynprompt, extra_data or {})
    for name, kind in declared.get("hidden", {}).items():
        # Other kinds get what the prompt supplies under their name, above.
        if isinstance(kind, str) and kind in hidden:
            values[name] = [hidden[kind]()]
    return values, missing


def gather_v3_data(
    inputs: dict[str, Any],
    class_def: Any,
    unique_id: str,
    dynprompt: DynamicPrompt | None = None,
    extra_data: dict[str, Any] | None = None,
) -> V3Data | None:
    """What a V3 node is called with beside :func:`gather_inputs`, whose arguments these are; None of a V1 node."""
    return call_data(class_def, inputs, _hidden_values(unique_id, dynprompt, extra_data or {}))


def _hidden_values(
    unique_id: str, dynprompt: DynamicPrompt | None, extra_data: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Kind of hidden input -> how to get its value."""
    return {
        "PROMPT": lambda: dynprompt.get_original_prompt() if dynprompt is not None else {},
        "DYNPROMPT": lambda: dynprompt,
        "EXTRA_PNGINFO": lambda: extra_data.get("extra_pnginfo"),
        "UNIQUE_ID": lambda: unique_id,
        "AUTH_TOKEN_COMFY_ORG": lambda: extra_data.get("auth_token_comfy_org"),
        "API_KEY_COMFY_ORG": lambda: extra_data.get("api_key_comfy_org"),
        # of later versions (0.29.0)
        "COMFY_USAGE_SOURCE": lambda: extra_data.get("comfy_usage_source"),
    }


async def call_over_lists(
    prompt_id: str,
    unique_id: str,
    obj: Any,
    function_name: str,
    values: dict[str, Any],
    *,
    allow_interrupt: bool = False,
    on_block: Callable[[ExecutionBlocker], ExecutionBlocker] | None = None,
    before_call: Callable[[int], None] | None = None,
    v3_data: V3Data | None = None,
) -> list[Any]:
    """Call a node's function for every position of its inputs.

    Args:
        obj: the node, or its class for class methods.
        allow_interrupt: look at the interruption flag before each call.
        on_block: told of a blocked value in place of a call; what it returns is the call's result.
        before_call: told the position before each call that has inputs.
        v3_data: see :func:`gather_v3_data`.

    Returns:
        A result per call. Calls of a coroutine that is not done at once are tasks, still running.

    Raises:
        InterruptProcessingException: with ``allow_interrupt``.
        Exception: whatever the node raises.
    """
    results: list[Any] = []

    async def call(arguments: dict[str, Any], index: int | None) -> None:
        if allow_interrupt:
            node_registry.before_node_execution()
        blocker = _find_blocker(arguments, as_lists)
        if blocker is not None:
            results.append(on_block(blocker) if on_block else blocker)
            return
        if before_call is not None and index is not None:
            before_call(index)
        function = bind(obj, function_name, v3_data)
        arguments = nest(arguments, v3_data)
        if not inspect.iscoroutinefunction(function):
            with CurrentNodeContext(prompt_id, unique_id, index):
                results.append(function(**arguments))
            return

        async def in_context() -> Any:
            with CurrentNodeContext(prompt_id, unique_id, index):
                return await function(**arguments)

        task = asyncio.create_task(in_context())
        # One turn of the loop: what does not really wait is done then, and needs no task.
        await asyncio.sleep(0)
        results.append(task.result() if task.done() else task)

    as_lists = bool(getattr(obj, "INPUT_IS_LIST", False))
    if as_lists:
        await call(values, 0)
    elif not any(len(value) for value in values.values()):
        # No inputs. (Or only empty lists; the missing argument is then the node's error, as in ComfyUI.)
        await call({}, None)
    else:
        for index in range(max(len(value) for value in values.values())):
            arguments = {name: value[index if index < len(value) else -1] for name, value in values.items()}
            await call(arguments, index)
    return results


def _find_blocker(arguments: dict[str, Any], as_lists: bool) -> ExecutionBlocker | None:
    """The first blocked value among a call's arguments."""
    for value in arguments.values():
        candidates = value if as_lists else (value,)
        for candidate in candidates:
            if isinstance(candidate, ExecutionBlocker):
                return candidate
    return None


async def wait_for_results(results: list[Any]) -> list[Any]:
    """The results with those of running tasks in place of the tasks.

    Raises:
        Exception: of a task, once all have ended.
    """
    running = [result for result in results if isinstance(result, asyncio.Task) and not result.done()]
    if running:
        await asyncio.wait(running)
    return [result.result() if isinstance(result, asyncio.Task) else result for result in results]


def merge_outputs(results: list[tuple[Any, ...]], obj: Any) -> list[list[Any]]:
    """The results of a node's calls as one list per output slot.

    An output in OUTPUT_IS_LIST is a list already in each result; those are joined.
    """
    is_list = getattr(obj, "OUTPUT_IS_LIST", None) or [False] * len(results[0])
    merged: list[list[Any]] = []
    for slot, joined in zip(range(len(results[0])), is_list, strict=False):
        if not joined:
            merged.append([result[slot] for result in results])
            continue
        values: list[Any] = []
        for result in results:
            if isinstance(result[slot], ExecutionBlocker):
                values.append(result[slot])
            else:
                values.extend(result[slot])
        merged.append(values)
    return merged
