"""Running a prompt: its nodes in order, with cached results, and everything the client is told of it.

Behaviour, messages and their order are ComfyUI 0.3.64's. (``execution`` for node packages.)
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from . import model_management
from .caching import CacheSet
from .graph import DynamicPrompt, ExecutionList, is_output_node
from .graph_utils import ExecutionBlocker, GraphBuilder, is_link
from .model_management import InterruptProcessingException
from .node_api.calls import optional_function, to_v1_result
from .node_calls import call_over_lists, gather_inputs, gather_v3_data, merge_outputs, wait_for_results
from .progress import WebUIProgressHandler, add_progress_handler, get_progress_state, reset_progress_state
from .prompt_queue import SENSITIVE_EXTRA_DATA_KEYS, ExecutionStatus, PromptQueue
from .validation import full_type_name, validate_prompt

if TYPE_CHECKING:
    from .node_api.hidden import V3Data
    from .server import PromptServer

__all__ = [
    "SENSITIVE_EXTRA_DATA_KEYS",
    "ChangeDetector",
    "DuplicateNodeError",
    "ExecutionBlocker",
    "ExecutionResult",
    "ExecutionStatus",
    "PromptExecutor",
    "PromptQueue",
    "validate_prompt",
]

logger = logging.getLogger("discomfort.embedded.execution")

_OUT_OF_MEMORY_TIP = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might "
    "have accidentally set the batch_size to a large number."
)

# What errors show in place of a token.
_NOT_SHOWN = "(secret)"


class ExecutionResult(Enum):
    """What came of one turn of a node."""

    SUCCESS = 0
    FAILURE = 1
    # It waits for more: a lazy input, an async call, the nodes it expanded into.
    PENDING = 2


class DuplicateNodeError(Exception):
    """A node expanded into nodes whose ids exist already."""


class NodeFailure(NamedTuple):
    """Why a prompt stopped."""

    # node_id, exception_message, exception_type, traceback, current_inputs; of an interruption only node_id
    details: dict[str, Any]
    exception: BaseException


class ChangeDetector:
    """What IS_CHANGED says about the nodes of one prompt, asked once each."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self._answers: dict[str, Any] = {}

    async def get(self, node_id: str) -> Any:
        """A node's answer: a list with one item per call, NaN if it raised, False if it has no IS_CHANGED.

        It is called with the node's constants only (None for linked inputs and for EXTRA_PNGINFO). The
        answer is also written into the prompt's node as ``is_changed``, where ComfyUI has it too: saved
        images carry it.
        """
        if node_id not in self._answers:
            self._answers[node_id] = await self._ask(node_id)
        return self._answers[node_id]

    async def _ask(self, node_id: str) -> Any:
        node = self.dynprompt.get_node(node_id)
        class_def = self.dynprompt.class_of(node_id)
        function = optional_function(class_def, "IS_CHANGED")
        if function is None:
            return False
        if "is_changed" not in node:
            values, _ = gather_inputs(node["inputs"], class_def, node_id)
            try:
                data = gather_v3_data(node["inputs"], class_def, node_id)
                calls = await call_over_lists(self.prompt_id, node_id, class_def, function, values, v3_data=data)
                answers = await wait_for_results(calls)
                node["is_changed"] = [None if isinstance(a, ExecutionBlocker) else a for a in answers]
            except Exception as exc:
                logger.warning("IS_CHANGED of node %s (%s) raised: %s", node_id, node["class_type"], exc)
                node["is_changed"] = float("nan")
        return node["is_changed"]


class PromptExecutor:
    """Runs prompts one after the other in the calling thread, keeping results between them."""

    def __init__(
        self,
        server: PromptServer,
        cache_lru: int = 0,
        cache_none: bool = False,
        cache_ram: tuple[float, float] | None = None,
    ) -> None:
        """
        Args:
            server: gets the messages, and knows the running node.
            cache_lru: keep this many node results; 0: those of the last prompt.
            cache_none: keep none.
            cache_ram: keep all while so many GiB of memory are free; see :class:`caching.RamCache`.
        """
        self.server = server
        self._cache_lru = cache_lru
        self._cache_none = cache_none
        self._cache_ram = cache_ram
        # Of the last prompt: whether it ended well, its messages, and what goes into the history.
        self.success = True
        self.status_messages: list[tuple[str, dict[str, Any]]] = []
        self.history_result: dict[str, Any] = {"outputs": {}, "meta": {}}
        self.reset()

    def reset(self) -> None:
        """Forget all results (POST /free)."""
        self.caches = CacheSet(self._cache_lru, self._cache_none, self._cache_ram)
        self.status_messages = []
        self.success = True

    def execute(
        self,
        prompt: dict[str, Any],
        prompt_id: str,
        extra_data: dict[str, Any] | None = None,
        execute_outputs: Sequence[str] = (),
    ) -> None:
        """Run a validated prompt; afterwards see :attr:`success` and the attributes beside it.

        Args:
            prompt: node id -> {"class_type", "inputs"}.
            extra_data: ``client_id`` gets the messages, ``extra_pnginfo`` reaches hidden inputs.
            execute_outputs: the output nodes to run.

        What nodes raise ends the prompt and is reported; it does not come out of here.
        """
        asyncio.run(self.execute_async(prompt, prompt_id, extra_data or {}, execute_outputs))

    async def execute_async(
        self,
        prompt: dict[str, Any],
        prompt_id: str,
        extra_data: dict[str, Any],
        execute_outputs: Sequence[str],
    ) -> None:
        """As :meth:`execute`."""
        import torch

        self.server.client_id = extra_data.get("client_id")
        self.success, self.status_messages = True, []
        self.history_result = {"outputs": {}, "meta": {}}
        self.add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)
        with torch.inference_mode():
            dynprompt = DynamicPrompt(prompt)
            reset_progress_state(prompt_id, dynprompt)
            add_progress_handler(WebUIProgressHandler(self.server))
            await self.caches.set_prompt(dynprompt, ChangeDetector(prompt_id, dynprompt).get)
            cached = [node_id for node_id in prompt if self.caches.outputs.get(node_id) is not None]
            self.add_message("execution_cached", {"nodes": cached, "prompt_id": prompt_id}, broadcast=False)
            run = _PromptRun(self.server, self.caches, dynprompt, prompt_id, extra_data)
            try:
                failure = await run.run(execute_outputs)
            finally:
                await run.cancel_calls()
            if failure is None:
                run.resend_intermediate_outputs()
                self.add_message("execution_success", {"prompt_id": prompt_id}, broadcast=False)
            else:
                self.success = False
                self._report_failure(run, failure)
            self.history_result = self._collect_ui()
            self.server.last_node_id = None

    def add_message(self, event: str, data: dict[str, Any], broadcast: bool) -> None:
        """Keep a message for the history and send it.

        Args:
            broadcast: to everybody if the prompt named no client; otherwise it is then sent to nobody.
        """
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.status_messages.append((event, data))
        if self.server.client_id is not None or broadcast:
            self.server.send_sync(event, data, self.server.client_id)

    def _report_failure(self, run: _PromptRun, failure: NodeFailure) -> None:
        """The message that ends a prompt early."""
        node_id = failure.details["node_id"]
        message = {
            "prompt_id": run.prompt_id,
            "node_id": node_id,
            "node_type": run.dynprompt.original_prompt[node_id]["class_type"],
            "executed": list(run.executed),
        }
        if isinstance(failure.exception, InterruptProcessingException):
            self.add_message("execution_interrupted", message, broadcast=True)
            return
        for key in ("exception_message", "exception_type", "traceback", "current_inputs"):
            message[key] = failure.details[key]
        message["current_outputs"] = run.known_before
        self.add_message("execution_error", message, broadcast=False)

    def _collect_ui(self) -> dict[str, Any]:
        """What the prompt's nodes show, cached ones included."""
        shown = {node_id: self.caches.ui.get(node_id) for node_id in self.caches.ui.all_node_ids()}
        return {
            "outputs": {node_id: entry["output"] for node_id, entry in shown.items() if entry is not None},
            "meta": {node_id: entry["meta"] for node_id, entry in shown.items() if entry is not None},
        }


class _PromptRun:
    """One prompt being run."""

    def __init__(
        self,
        server: PromptServer,
        caches: CacheSet,
        dynprompt: DynamicPrompt,
        prompt_id: str,
        extra_data: dict[str, Any],
    ) -> None:
        self.server = server
        self.caches = caches
        self.dynprompt = dynprompt
        self.prompt_id = prompt_id
        self.extra_data = extra_data
        self.todo = ExecutionList(dynprompt, caches.outputs)
        # The nodes whose results were kept before it started, or could have been; errors list them.
        self.known_before = caches.outputs.all_node_ids()
        # Nodes that have run (not: came from the cache), in order.
        self.executed: dict[str, None] = {}
        # Node -> results and tasks of its calls, while tasks are running.
        self._calls: dict[str, list[Any]] = {}
        # Node -> its results, while the nodes it expanded into run: (expanded?, result with links).
        self._expansions: dict[str, list[tuple[bool, Any]]] = {}
        # What the node whose turn it is was called with, to be shown with an error.
        self._values: dict[str, Any] = {}
        # Tasks that wait for calls; kept, as the loop holds tasks weakly.
        self._watchers: set[asyncio.Task[None]] = set()

    async def run(self, outputs: Sequence[str]) -> NodeFailure | None:
        """Run these output nodes and what they need, until done or the first failure."""
        for node_id in outputs:
            self.todo.add_node(node_id)
        while not self.todo.is_empty():
            staged, details, cycle = await self.todo.stage_node_execution()
            if staged is None:
                return NodeFailure(details, cycle) if details is not None and cycle is not None else None
            result, failure = await self._turn(staged)
            if failure is not None:
                return failure
            if result is ExecutionResult.PENDING:
                self.todo.unstage_node_execution()
            else:
                self.todo.complete_node_execution()
            self.caches.relieve_memory(self._still_needed)
        return None

    def _still_needed(self) -> set[str]:
        """The nodes whose results a node that is still to be run, or to be finished, is linked to."""
        inputs = [
            value for node_id in self.todo.pending for value in self.dynprompt.get_node(node_id)["inputs"].values()
        ]
        results = [value for items in self._expansions.values() for _, result in items for value in result or ()]
        return {value[0] for value in inputs + results if is_link(value)}

    def resend_intermediate_outputs(self) -> None:
        """Show again what nodes show that are no output nodes and were not run (``has_intermediate_output``, 0.29.0).

        Output nodes have done so when it was their turn; these had none, as nothing needed them to run.
        """
        for node_id in self.caches.ui.all_node_ids():
            # Nodes that a cached one had expanded into are not part of this prompt.
            if node_id in self.executed or not self.dynprompt.has_node(node_id):
                continue
            shows = getattr(self.dynprompt.class_of(node_id), "HAS_INTERMEDIATE_OUTPUT", False)
            if shows and self.caches.outputs.get(node_id) is not None:
                self._send_executed(node_id, (self.caches.ui.get(node_id) or {}).get("output"))

    async def cancel_calls(self) -> None:
        """End async calls that are still running after a failure, and wait for that."""
        tasks = [r for calls in self._calls.values() for r in calls if isinstance(r, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._watchers, return_exceptions=True)

    async def _turn(self, node_id: str) -> tuple[ExecutionResult, NodeFailure | None]:
        """One turn of a node, with failures of it turned into their report."""
        if self.caches.outputs.get(node_id) is not None:
            self._resend_cached(node_id)
            return ExecutionResult.SUCCESS, None
        try:
            finished = await self._advance(node_id)
        except InterruptProcessingException as exc:
            logger.info("Processing interrupted")
            details = {"node_id": self.dynprompt.get_real_node_id(node_id)}
            return ExecutionResult.FAILURE, NodeFailure(details, exc)
        except Exception as exc:
            return ExecutionResult.FAILURE, self._describe_failure(node_id, exc)
        finally:
            # Not kept for a later turn: an error of that one is shown without them, as in ComfyUI.
            self._values = {}
        if not finished:
            return ExecutionResult.PENDING, None
        get_progress_state().finish_progress(node_id)
        self.executed[node_id] = None
        return ExecutionResult.SUCCESS, None

    def _resend_cached(self, node_id: str) -> None:
        """A cached output node shows again what it showed when it ran."""
        entry = self.caches.ui.get(node_id) or {}
        self._send_executed(node_id, entry.get("output"))
        get_progress_state().finish_progress(node_id)

    async def _advance(self, node_id: str) -> bool:
        """Start a node, or go on with one that waited.

        Returns:
            Whether its outputs are there now.
        """
        class_def = self.dynprompt.class_of(node_id)
        if node_id in self._expansions:
            results = [self._follow_links(*item) for item in self._expansions.pop(node_id)]
            self.caches.outputs.set(node_id, merge_outputs(results, class_def))
            return True
        if node_id in self._calls:
            calls = self._calls.pop(node_id)
            results = [call.result() if isinstance(call, asyncio.Task) else call for call in calls]
        else:
            started = await self._start(node_id, class_def)
            if started is None:
                return False
            results = started
        returned = _Returned(results, class_def)
        if returned.ui:
            self._show(node_id, returned.ui)
        if returned.expands:
            await self._expand(node_id, returned.graphs)
            return False
        self.caches.outputs.set(node_id, merge_outputs(returned.results, class_def) if returned.results else [])
        return True

    async def _start(self, node_id: str, class_def: Any) -> list[Any] | None:
        """Call a node with its inputs.

        Returns:
            The results, None when it waits for lazy inputs or for async calls.
        """
        get_progress_state().start_progress(node_id)
        inputs = self.dynprompt.get_node(node_id)["inputs"]
        values, missing = gather_inputs(
            inputs, class_def, node_id, self.caches.outputs, self.dynprompt, self.extra_data
        )
        self._values = values
        if self.server.client_id is not None:
            self.server.last_node_id = self.dynprompt.get_display_node_id(node_id)
            self._send("executing", {"node": node_id, "display_node": self.server.last_node_id})
        obj = self.caches.objects.get(node_id)
        if obj is None:
            obj = class_def()
            self.caches.objects.set(node_id, obj)
        v3_data = gather_v3_data(inputs, class_def, node_id, self.dynprompt, self.extra_data)
        if optional_function(obj, "check_lazy_status") is not None:
            wanted = await self._ask_for_lazy_inputs(node_id, obj, values, missing, v3_data)
            for name in wanted:
                self.todo.make_input_strong_link(node_id, name)
            if wanted:
                return None
        calls = await call_over_lists(
            self.prompt_id,
            node_id,
            obj,
            obj.FUNCTION,
            values,
            allow_interrupt=True,
            on_block=lambda blocker: self._report_block(node_id, blocker),
            before_call=lambda index: GraphBuilder.set_default_prefix(node_id, index, 0),
            v3_data=v3_data,
        )
        tasks = [call for call in calls if isinstance(call, asyncio.Task) and not call.done()]
        if not tasks:
            return [call.result() if isinstance(call, asyncio.Task) else call for call in calls]
        self._calls[node_id] = calls
        unblock = self.todo.add_external_block(node_id)
        watcher = asyncio.create_task(_call_when_done(tasks, unblock))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return None

    async def _ask_for_lazy_inputs(
        self, node_id: str, obj: Any, values: dict[str, Any], missing: set[str], v3_data: V3Data | None
    ) -> list[str]:
        """The inputs a node now says it needs and does not have."""
        if v3_data is not None:
            v3_data = {**v3_data, "create_dynamic_tuple": True}
        calls = await call_over_lists(
            self.prompt_id, node_id, obj, "check_lazy_status", values, allow_interrupt=True, v3_data=v3_data
        )
        answers = await wait_for_results(calls)
        names = dict.fromkeys(name for answer in answers if isinstance(answer, list) for name in answer)
        return [n for n in names if isinstance(n, str) and (n not in values or n in missing)]

    def _report_block(self, node_id: str, blocker: ExecutionBlocker) -> ExecutionBlocker:
        """A node was not called because of a blocked value: say so once, then block silently."""
        if blocker.message is None:
            return blocker
        message = {
            "prompt_id": self.prompt_id,
            "node_id": node_id,
            "node_type": self.dynprompt.get_node(node_id)["class_type"],
            "executed": list(self.executed),
            "exception_message": f"Execution Blocked: {blocker.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self.server.send_sync("execution_error", message, self.server.client_id)
        return ExecutionBlocker(None)

    # -- results -------------------------------------------------------------------------------------------

    def _show(self, node_id: str, ui: dict[str, Any]) -> None:
        """Keep what a node shows, and send it."""
        meta = {
            "node_id": node_id,
            "display_node": self.dynprompt.get_display_node_id(node_id),
            "parent_node": self.dynprompt.get_parent_node_id(node_id),
            "real_node_id": self.dynprompt.get_real_node_id(node_id),
        }
        self.caches.ui.set(node_id, {"meta": meta, "output": ui})
        self._send_executed(node_id, ui)

    async def _expand(self, node_id: str, graphs: list[tuple[dict[str, Any] | None, Any]]) -> None:
        """Add the nodes a node has expanded into, and let it wait for the outputs it takes from them."""
        added: list[str] = []
        outputs: list[str] = []
        links: list[list[Any]] = []
        for graph, result in graphs:
            if graph is None:
                continue
            for new_id in graph:
                if self.dynprompt.has_node(new_id):
                    raise DuplicateNodeError(
                        f"Attempt to add duplicate node {new_id}. Ensure node ids are unique and "
                        "deterministic or use graph_utils.GraphBuilder."
                    )
            for new_id, node in graph.items():
                self.dynprompt.add_ephemeral_node(new_id, node, node_id, node.get("override_display_id", node_id))
                added.append(new_id)
                if is_output_node(self.dynprompt.class_of(new_id)):
                    outputs.append(new_id)
            # An expansion without "result" fails here, with the TypeError it has in ComfyUI.
            links += [result[slot] for slot in range(len(result)) if is_link(result[slot])]
        for cache in self.caches.all:
            (await cache.ensure_subcache_for(node_id, added)).clean_unused()
        for new_id in outputs:
            self.todo.add_node(new_id)
        for source, slot in links:
            self.todo.add_strong_link(source, slot, node_id)
        self._expansions[node_id] = [(graph is not None, result) for graph, result in graphs]

    def _follow_links(self, expanded: bool, result: Any) -> tuple[Any, ...]:
        """An expanding node's result with the values its links lead to in place of the links."""
        if not expanded:
            return tuple(result)
        values: list[Any] = []
        for value in result:
            if is_link(value):
                values.extend(self.caches.outputs.get(value[0])[value[1]])
            else:
                values.append(value)
        return tuple(values)

    # -- messages ------------------------------------------------------------------------------------------

    def _send_executed(self, node_id: str, ui: dict[str, Any] | None) -> None:
        display_id = self.dynprompt.get_display_node_id(node_id)
        self._send("executed", {"node": node_id, "display_node": display_id, "output": ui})

    def _send(self, event: str, data: dict[str, Any]) -> None:
        """To the prompt's client, if it named one."""
        if self.server.client_id is not None:
            self.server.send_sync(event, {**data, "prompt_id": self.prompt_id}, self.server.client_id)

    def _describe_failure(self, node_id: str, exc: Exception) -> NodeFailure:
        """An exception of a node, for the log and for the client."""
        logger.error("!!! Exception during processing !!! %s", exc)
        logger.error("%s", "".join(traceback.format_exception(type(exc), exc, exc.__traceback__)))
        tip = ""
        if isinstance(exc, model_management.OOM_EXCEPTION):
            tip = _OUT_OF_MEMORY_TIP
            logger.error("Got an OOM, unloading all loaded models.")
            model_management.unload_all_models()
        details = {
            "node_id": self.dynprompt.get_real_node_id(node_id),
            "exception_message": f"{exc}\n{tip}",
            "exception_type": full_type_name(type(exc)),
            "traceback": traceback.format_tb(exc.__traceback__),
            "current_inputs": {name: [self._shown(v) for v in items] for name, items in self._values.items()},
        }
        return NodeFailure(details, exc)

    def _shown(self, value: Any) -> Any:
        """A value as an error shows it: itself if JSON has it, else its str(); no token, as the history keeps it."""
        if isinstance(value, str):
            secrets = [self.extra_data.get(key) for key in SENSITIVE_EXTRA_DATA_KEYS]
            return _NOT_SHOWN if value and value in secrets else value
        return value if value is None or isinstance(value, (int, float, bool)) else str(value)


class _Returned:
    """The results of a node's calls, taken apart.

    A result is a tuple of outputs, an ExecutionBlocker, or a dict of ``ui``, ``result`` and ``expand``.
    """

    def __init__(self, returns: list[Any], class_def: Any) -> None:
        # Tuples of outputs, of the calls that did not expand.
        self.results: list[Any] = []
        # Per call with a result: (graph to expand into or None, outputs, which may be links into it).
        self.graphs: list[tuple[dict[str, Any] | None, Any]] = []
        self.expands = False
        uis: list[dict[str, Any]] = []
        for value in (to_v1_result(returned, class_def) for returned in returns):
            graph = None
            if isinstance(value, dict):
                if "ui" in value:
                    uis.append(value["ui"])
                if "expand" not in value and "result" not in value:
                    continue
                graph, value = value.get("expand"), value.get("result")
            if isinstance(value, ExecutionBlocker):
                value = (value,) * len(class_def.RETURN_TYPES)
            self.graphs.append((graph, value))
            if graph is None:
                self.results.append(value)
            else:
                self.expands = True
        # Lists under the same name are joined over the calls.
        self.ui: dict[str, Any] = {name: [item for ui in uis for item in ui[name]] for name in uis[0]} if uis else {}


async def _call_when_done(tasks: list[asyncio.Task[Any]], callback: Any) -> None:
    """Call back when all tasks have ended, however."""
    await asyncio.wait(tasks)
    callback()
