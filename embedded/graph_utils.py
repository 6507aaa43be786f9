"""Links between nodes, blocked values, and building pieces of a prompt at run time.

Installed for node packages as ``comfy_execution.graph_utils``. Names, arguments and the ids of generated
nodes are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any


def is_link(value: Any) -> bool:
    """Whether a prompt's input value is a link, ``[node_id, slot]``, and not a constant.

    The slot may be a float: JSON from some clients carries ``0.0``.
    """
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))
    )


class ExecutionBlocker:
    """A value that stops what uses it: a node that gets one is not called and passes it on.

    With a ``message``, the first node stopped reports it to the client as an ``execution_error``; the prompt
    goes on and still ends in success. With None it is stopped silently.
    """

    def __init__(self, message: str | None) -> None:
        self.message = message


class _Prefix:
    """What the ids of generated nodes start with, and how many builders have asked for it."""

    def __init__(self, root: str, call_index: int, graph_index: int) -> None:
        self.root = root
        self.call_index = call_index
        self.graph_indices: Iterator[int] = itertools.count(graph_index)


# The prefix of the node call that is running. A context variable and not a class attribute, so that async
# nodes that run at once do not hand each other's ids out.
_prefix: ContextVar[_Prefix | None] = ContextVar("discomfort_graph_prefix", default=None)
# The one set last, for threads that a node has started: context variables do not reach them.
_last_prefix = _Prefix("", 0, 0)


class GraphBuilder:
    """Builds the ``expand`` part of a node's result.

    ``builder.node("ClassName", input=value)`` adds a node and returns it, ``node.out(0)`` is a link to its
    first output, ``builder.finalize()`` the finished piece of a prompt. Ids are deterministic, so a repeated
    expansion finds its cached results: ``<expanding node>.<call>.<builder of this call>.<number or name>``.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = GraphBuilder.alloc_prefix() if prefix is None else prefix
        self.nodes: dict[str, Node] = {}
        self.id_gen = 1

    @classmethod
    def set_default_prefix(cls, prefix_root: str, call_index: int, graph_index: int = 0) -> None:
        """Called by the executor before each call of a node: whose ids the next builders use."""
        global _last_prefix
        _last_prefix = _Prefix(prefix_root, call_index, graph_index)
        _prefix.set(_last_prefix)

    @classmethod
    def alloc_prefix(
        cls, root: str | None = None, call_index: int | None = None, graph_index: int | None = None
    ) -> str:
        """The next free prefix; the parts not given are those of the node being executed."""
        current = _prefix.get() or _last_prefix
        allocated = next(current.graph_indices)
        root = current.root if root is None else root
        call_index = current.call_index if call_index is None else call_index
        return f"{root}.{call_index}.{allocated if graph_index is None else graph_index}."

    def node(self, class_type: str, id: str | None = None, **kwargs: Any) -> Node:
        """Add a node with these inputs; the same explicit ``id`` twice returns the first node."""
        if id is None:
            id, self.id_gen = str(self.id_gen), self.id_gen + 1
        full_id = self.prefix + id
        if full_id not in self.nodes:
            self.nodes[full_id] = Node(full_id, class_type, kwargs)
        return self.nodes[full_id]

    def lookup_node(self, id: str) -> Node | None:
        """The node of an id (without prefix), None when there is none."""
        return self.nodes.get(self.prefix + id)

    def finalize(self) -> dict[str, dict[str, Any]]:
        """The nodes as a piece of a prompt, for ``{"expand": ...}``."""
        return {node_id: node.serialize() for node_id, node in self.nodes.items()}

    def replace_node_output(self, node_id: str, index: int, new_value: Any) -> None:
        """Put a value (None: nothing) wherever this output of a node is linked."""
        source = self.prefix + node_id
        for node in self.nodes.values():
            uses = [k for k, v in node.inputs.items() if is_link(v) and v[0] == source and v[1] == index]
            for name in uses:
                node.set_input(name, new_value)

    def remove_node(self, id: str) -> None:
        """Remove a node; links to it stay as they are."""
        del self.nodes[self.prefix + id]


class Node:
    """One node of a :class:`GraphBuilder`."""

    def __init__(self, id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id = id
        self.class_type = class_type
        self.inputs = inputs
        # The node the editor shows as busy in place of the expanding one; None: the expanding one.
        self.override_display_id: str | None = None

    def out(self, index: int) -> list[Any]:
        """A link to one of this node's outputs."""
        return [self.id, index]

    def set_input(self, key: str, value: Any) -> None:
        """Set an input; None removes it."""
        if value is None:
            self.inputs.pop(key, None)
        else:
            self.inputs[key] = value

    def get_input(self, key: str) -> Any:
        """An input's value or link, None when it is not set."""
        return self.inputs.get(key)

    def set_override_display_id(self, override_display_id: str) -> None:
        """Show another node of the prompt as busy while this one runs."""
        self.override_display_id = override_display_id

    def serialize(self) -> dict[str, Any]:
        """The node as the prompt writes it."""
        data: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        if self.override_display_id is not None:
            data["override_display_id"] = self.override_display_id
        return data


def add_graph_prefix(
    graph: dict[str, dict[str, Any]], outputs: list[Any] | tuple[Any, ...], prefix: str
) -> tuple[dict[str, dict[str, Any]], tuple[Any, ...]]:
    """Rename a prompt's nodes to ``prefix + id``, with all links inside it and in ``outputs``.

    Returns:
        The renamed copy and the renamed outputs.
    """

    def renamed(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) else value

    new_graph = {
        prefix + node_id: {
            "class_type": node["class_type"],
            "inputs": {name: renamed(value) for name, value in node.get("inputs", {}).items()},
        }
        for node_id, node in graph.items()
    }
    return new_graph, tuple(renamed(output) for output in outputs)
