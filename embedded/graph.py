"""A prompt that can grow while it runs, and the order its nodes run in (``comfy_execution.graph``).

The order is ComfyUI 0.3.64's: among the nodes that are ready, an output node or an async node goes first,
then what an output node waits for, so that the user sees results early.
"""

from __future__ import annotations

import asyncio
import bisect
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from . import node_registry
from .graph_utils import ExecutionBlocker, is_link

__all__ = [
    "DependencyCycleError",
    "DynamicPrompt",
    "ExecutionBlocker",
    "ExecutionList",
    "NodeInputError",
    "NodeNotFoundError",
    "get_input_info",
    "is_output_node",
]


class DependencyCycleError(Exception):
    """Nodes wait for each other."""


class NodeInputError(Exception):
    """A node asked for an input that is not a link."""


class NodeNotFoundError(Exception):
    """A prompt has no node of this id."""


class DynamicPrompt:
    """The client's prompt and the nodes that were added to it while it ran."""

    def __init__(self, original_prompt: dict[str, Any]) -> None:
        self.original_prompt = original_prompt
        # Added nodes; and per added node, the node that added it and the node shown as busy for it.
        self.ephemeral_prompt: dict[str, Any] = {}
        self.ephemeral_parents: dict[str, str] = {}
        self.ephemeral_display: dict[str, str] = {}

    def get_node(self, node_id: str) -> Any:
        """A node, of the client's or added.

        Raises:
            NodeNotFoundError: there is none.
        """
        for nodes in (self.ephemeral_prompt, self.original_prompt):
            if node_id in nodes:
                return nodes[node_id]
        raise NodeNotFoundError(f"Node {node_id} not found")

    def has_node(self, node_id: str) -> bool:
        """Whether there is a node of this id."""
        return node_id in self.original_prompt or node_id in self.ephemeral_prompt

    def add_ephemeral_node(self, node_id: str, node_info: dict[str, Any], parent_id: str, display_id: str) -> None:
        """Add a node that ``parent_id`` expanded into."""
        self.ephemeral_prompt[node_id] = node_info
        self.ephemeral_parents[node_id] = parent_id
        self.ephemeral_display[node_id] = display_id

    def get_real_node_id(self, node_id: str) -> str:
        """The client's node that a node comes from."""
        while node_id in self.ephemeral_parents:
            node_id = self.ephemeral_parents[node_id]
        return node_id

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node that added a node, None for the client's nodes."""
        return self.ephemeral_parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node the editor shows as busy for a node."""
        while node_id in self.ephemeral_display:
            node_id = self.ephemeral_display[node_id]
        return node_id

    def all_node_ids(self) -> set[str]:
        """All ids, the client's and added ones."""
        return set(self.original_prompt) | set(self.ephemeral_prompt)

    def get_original_prompt(self) -> dict[str, Any]:
        """The client's prompt."""
        return self.original_prompt

    def class_of(self, node_id: str) -> Any:
        """The class of a node (KeyError: no such class_type)."""
        return node_registry.NODE_CLASS_MAPPINGS[self.get_node(node_id)["class_type"]]


def get_input_info(
    class_def: Any, input_name: str, valid_inputs: dict[str, Any] | None = None
) -> tuple[Any, str, dict[str, Any]] | tuple[None, None, None]:
    """What a class says about one of its inputs.

    Args:
        valid_inputs: the class's INPUT_TYPES(), if it is at hand.

    Returns:
        Type (a name, or the list of a combo), category ("required", "optional", "hidden") and options;
        three times None for an input the class does not have.
    """
    valid_inputs = valid_inputs or class_def.INPUT_TYPES()
    for category in ("required", "optional", "hidden"):
        # Asked with ``in`` and ``[]``, not get(): packages accept inputs of any name by a dict of their own that
        # has just these two.
        if category in valid_inputs and input_name in valid_inputs[category]:
            info = valid_inputs[category][input_name]
            if info is None:
                break
            return info[0], category, info[1] if len(info) > 1 else {}
    return None, None, None


def is_output_node(class_def: Any) -> bool:
    """Whether nodes of a class deliver results: only those, and what they need, are run."""
    return getattr(class_def, "OUTPUT_NODE", False) is True


class OutputCache(Protocol):
    """What the scheduler asks a cache: whether a node's outputs are there already."""

    def get(self, node_id: str) -> Any: ...


class ExecutionList:
    """The nodes still to be run, and what each waits for.

    Used by one task: ``node = (await stage_node_execution())[0]``, run it, then either
    ``complete_node_execution()``, or ``unstage_node_execution()`` when it turned out to wait for more.
    """

    def __init__(self, dynprompt: DynamicPrompt, output_cache: OutputCache) -> None:
        self.dynprompt = dynprompt
        self.output_cache = output_cache
        # Node to be run -> the nodes it waits for; in the order they were added, which breaks ties.
        self.pending: dict[str, set[str]] = {}
        # Node to be run -> the nodes that wait for it, in order.
        self.waiting: dict[str, dict[str, None]] = {}
        # Node -> number of things outside the graph (async calls) it waits for.
        self.external: dict[str, int] = {}
        self.staged_node_id: str | None = None
        self._unblocked = asyncio.Event()
        # How many nodes were added; node to be run -> its number, and back.
        self._added = 0
        self._number: dict[str, int] = {}
        self._numbered: dict[int, str] = {}
        # Numbers of the nodes that wait for nothing, sorted: kept up to date, because looking through all nodes at
        # each step would cost the square of their number. And of those among them that come first anyway.
        self._ready: list[int] = []
        self._ready_first: list[int] = []
        # Class -> (is an output node, is to be run as soon as it is ready).
        self._kinds: dict[Any, tuple[bool, bool]] = {}

    # -- building ------------------------------------------------------------------------------------------

    def is_cached(self, node_id: str) -> bool:
        """Whether a node's outputs are there, so nothing needs to wait for it."""
        return self.output_cache.get(node_id) is not None

    def is_empty(self) -> bool:
        """Whether everything has been run."""
        return not self.pending

    def add_node(
        self, node_unique_id: str, include_lazy: bool = False, subgraph_nodes: Collection[str] | None = None
    ) -> None:
        """Add a node and all it needs. Lazy inputs are left out until their node asks for them.

        Args:
            include_lazy: follow lazy inputs too.
            subgraph_nodes: follow only links from these nodes.
        """
        stack, links = [node_unique_id], []
        while stack:
            node_id = stack.pop()
            if node_id in self.pending:
                continue
            self.pending[node_id] = set()
            self.waiting[node_id] = {}
            self._number[node_id], self._numbered[self._added] = self._added, node_id
            self._added += 1
            self._note_readiness(node_id)
            class_def = self.dynprompt.class_of(node_id)
            for name, value in self.dynprompt.get_node(node_id)["inputs"].items():
                if not is_link(value) or (subgraph_nodes is not None and value[0] not in subgraph_nodes):
                    continue
                _, _, options = get_input_info(class_def, name)
                # Of a hidden input the options are a letter.
                lazy = bool(options and "lazy" in options and options["lazy"])
                if (include_lazy or not lazy) and not self.is_cached(value[0]):
                    stack.append(value[0])
                    links.append((value[0], value[1], node_id))
        for link in links:
            self.add_strong_link(*link)

    def add_strong_link(self, from_node_id: str, from_socket: int, to_node_id: str) -> None:
        """Let a node wait for another one, which is added if its outputs are not there yet."""
        if not self.is_cached(from_node_id):
            self.add_node(from_node_id)
            self.waiting[from_node_id][to_node_id] = None
            self.pending[to_node_id].add(from_node_id)
            self._note_readiness(to_node_id)

    def make_input_strong_link(self, to_node_id: str, to_input: str) -> None:
        """Let a node wait for one of its lazy inputs.

        Raises:
            NodeInputError: the node has no such input, or it is a constant.
        """
        inputs = self.dynprompt.get_node(to_node_id)["inputs"]
        if to_input not in inputs:
            raise NodeInputError(
                f"Node {to_node_id} says it needs input {to_input}, but there is no input to that node at all"
            )
        if not is_link(inputs[to_input]):
            raise NodeInputError(f"Node {to_node_id} says it needs input {to_input}, but that value is a constant")
        source, slot = inputs[to_input]
        self.add_strong_link(source, slot, to_node_id)

    def add_external_block(self, node_id: str) -> Callable[[], None]:
        """Let a pending node wait for something outside the graph; call the result when it is there."""
        self.external[node_id] = self.external.get(node_id, 0) + 1
        self._note_readiness(node_id)

        def unblock() -> None:
            self.external[node_id] -= 1
            if not self.external[node_id]:
                del self.external[node_id]
            self._note_readiness(node_id)
            self._unblocked.set()

        return unblock

    # -- running -------------------------------------------------------------------------------------------

    async def stage_node_execution(
        self,
    ) -> tuple[str | None, dict[str, Any] | None, DependencyCycleError | None]:
        """The next node to run, after waiting for async calls if nothing else is ready.

        Returns:
            ``(node_id, None, None)``; ``(None, None, None)`` when all are done; with nodes left that wait
            for each other ``(None, details, error)``, the details as an ``execution_error`` has them.
        """
        if self.staged_node_id is not None:
            raise RuntimeError(f"node {self.staged_node_id} is staged already")
        if self.is_empty():
            return None, None, None
        while not self._ready and self.external:
            await self._unblocked.wait()
            self._unblocked.clear()
        if not self._ready:
            return None, *self._describe_cycle()
        self.staged_node_id = self._pick_node()
        return self.staged_node_id, None, None

    def unstage_node_execution(self) -> None:
        """Put the staged node back: it waits for more now."""
        self.staged_node_id = None

    def complete_node_execution(self) -> None:
        """The staged node has been run; what waited for it alone is ready."""
        node_id = self.staged_node_id
        if node_id is None:
            raise RuntimeError("no node is staged")
        self.staged_node_id = None
        del self.pending[node_id]
        self._note_readiness(node_id)
        del self._numbered[self._number.pop(node_id)]
        for waiting_id in self.waiting.pop(node_id):
            self.pending[waiting_id].discard(node_id)
            self._note_readiness(waiting_id)

    def _note_readiness(self, node_id: str) -> None:
        """Bring the lists of ready nodes up to date, after something about a node has changed."""
        if node_id not in self._number:
            return
        number = self._number[node_id]
        ready = node_id in self.pending and not self.pending[node_id] and node_id not in self.external
        lists = [self._ready]
        if self._kind(node_id)[1]:
            lists.append(self._ready_first)
        for numbers in lists:
            place = bisect.bisect_left(numbers, number)
            present = place < len(numbers) and numbers[place] == number
            if ready and not present:
                numbers.insert(place, number)
            elif present and not ready:
                del numbers[place]

    def _pick_node(self) -> str:
        """The ready node that shows the user something soonest.

        Output nodes, and async nodes (the earlier they start the more runs at once); then what such a node
        waits for (VAEDecode before a preview), then what is two steps away (the loader before that).
        """
        if self._ready_first:
            return self._numbered[self._ready_first[0]]
        ready = [self._numbered[number] for number in self._ready]

        def first(candidates: Iterable[str]) -> str | None:
            return next(iter(candidates), None)

        return (
            first(n for n in ready if any(self._is_output(w) for w in self.waiting[n]))
            or first(n for n in ready if any(self._is_output(v) for w in self.waiting[n] for v in self.waiting[w]))
            or ready[0]
        )

    def _is_output(self, node_id: str) -> bool:
        return self._kind(node_id)[0]

    def _kind(self, node_id: str) -> tuple[bool, bool]:
        """Whether a node is an output node, and whether it is to be run as soon as it is ready."""
        class_def = self.dynprompt.class_of(node_id)
        if class_def not in self._kinds:
            output = is_output_node(class_def)
            first = output or inspect.iscoroutinefunction(getattr(class_def, class_def.FUNCTION))
            self._kinds[class_def] = (output, first)
        return self._kinds[class_def]

    def _describe_cycle(self) -> tuple[dict[str, Any], DependencyCycleError]:
        """The error of nodes that wait for each other.

        Cycles of the client's nodes are mostly found before; the node to blame is then the one that was
        expanded into the cycle.
        """
        cycle = self._nodes_in_cycle()
        shown = (self.dynprompt.get_display_node_id(node_id) for node_id in cycle)
        blamed = next((d for d, n in zip(shown, cycle, strict=True) if d != n), cycle[0])
        error = DependencyCycleError("Dependency cycle detected")
        details = {
            "node_id": blamed,
            "exception_message": str(error),
            "exception_type": "graph.DependencyCycleError",
            "traceback": [],
            "current_inputs": [],
        }
        return details, error

    def _nodes_in_cycle(self) -> list[str]:
        """The pending nodes without, again and again, those that wait for nothing: cycles, and what waits for them."""
        left = {node_id: set(needed) for node_id, needed in self.pending.items()}
        while outside := [node_id for node_id, needed in left.items() if not needed]:
            for node_id in outside:
                del left[node_id]
            for needed in left.values():
                needed.difference_update(outside)
        return list(left)
