"""The flattened graph that the server will see of a workflow: the nodes that run, and what feeds what. Pure.

What counts as a node that runs
-------------------------------
The frontend decides this when it converts a workflow to a prompt; the rules below follow what frontends 1.27 to 1.58
do (the tests hold conversions they made). Muted nodes (``mode`` 2) and everything in a muted subgraph do not exist.
Bypassed nodes (``mode`` 4) do not exist either, but a link through one continues at its input that fits. Reroutes hand
on what they are given; notes and primitives are furniture of the editor. Native reroutes on links are only drawing.
Where frontends disagree, the newest counts (1.58.1): inside a subgraph, the content of a muted or bypassed subgraph
node runs unless its own nodes are off (the editor switches those along; frontend 1.27 goes by them at the root, too).

A group node (the predecessor of subgraphs) is read as if it were a subgraph node; see `expand_group_nodes`. Its inner
nodes have the flat ids of frontend 1.27, "<group node>:<index>". Frontend 1.58 makes a subgraph of it when it loads the
file and gives other ids, so those name a node in a message and nothing else.

The prompt is the authority for a run; ports found in a workflow are what a person (or a node's sockets) is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .group_nodes import (
    expand_group_nodes,
)
from .workflow_json import (
    ANY_TYPE,
    BYPASSED,
    MUTED,
    REROUTE_TYPES,
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    VIRTUAL_TYPES,
    Level,
    Link,
    as_dict,
    as_list,
    is_off,
    node_type,
    node_words,
    regular_workflow,
    slot_index,
    slots_of,
    subgraph_definitions,
    type_name,
    types_compatible,
)


@dataclass(frozen=True)
class Scope:
    """One use of a level: the root, or the inside of one subgraph node (a definition may be used many times)."""

    level: Level
    # Ids of the subgraph nodes around this scope, outermost first.
    path: tuple[str, ...] = ()
    # The subgraph node whose inside this is, and the scope that node stands in; None for the root.
    host: dict[str, Any] | None = None
    parent: Scope | None = None
    # Subgraph ids from the root to here: one that comes again would never end.
    lineage: frozenset[str] = frozenset()

    def flat_id(self, node: Mapping[str, Any]) -> str:
        return ":".join((*self.path, str(node.get("id"))))


class Origin(NamedTuple):
    """Where a link's value is made."""

    scope: Scope
    node: dict[str, Any]
    slot: int
    # The type of the last link followed: for nodes saved without ``outputs``.
    link_type: str

    @property
    def flat_id(self) -> str:
        return self.scope.flat_id(self.node)

    @property
    def type(self) -> str:
        outputs = slots_of(self.node, "outputs")
        known = type_name(outputs[self.slot].get("type")) if self.slot < len(outputs) else ANY_TYPE
        return known if known != ANY_TYPE else self.link_type


class Connection(NamedTuple):
    """A value's way in the flattened workflow: between two nodes that run, past everything that only hands it on."""

    origin_id: str
    origin_slot: int
    target_id: str
    target_input: str
    type: str


class FlatGraph:
    """A workflow as the server will see it: the nodes that run under their flat ids, and what feeds what."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        workflow = expand_group_nodes(regular_workflow(workflow))
        self.definitions = {str(d.get("id")): d for d in subgraph_definitions(workflow)}
        self._levels: dict[str, Level] = {}
        self.root = Scope(Level.of(workflow))
        # The inside of each subgraph node, by that node's flat id.
        self._inside: dict[str, Scope] = {}
        # Subgraphs that contain themselves, by name.
        self.endless: set[str] = set()
        # flat id -> (scope, node) for each node that runs, in the order of the file.
        self.nodes: dict[str, tuple[Scope, dict[str, Any]]] = {}
        self._collect_nodes()
        # (flat id, input index) -> where its value comes from.
        self.origins: dict[tuple[str, int], Origin] = {}
        # flat id -> [(flat id of a consumer, index of its input)]
        self.consumers: dict[str, list[tuple[str, int]]] = {flat_id: [] for flat_id in self.nodes}
        self._collect_connections()

    def level(self, subgraph_id: str) -> Level:
        """The parsed level of a definition; parsed once however often it is used."""
        if subgraph_id not in self._levels:
            definition = self.definitions[subgraph_id]
            self._levels[subgraph_id] = Level.of(definition, definition)
        return self._levels[subgraph_id]

    def _collect_nodes(self) -> None:
        pending = [(self.root, node) for node in reversed(self.root.level.node_list)]
        while pending:
            scope, node = pending.pop()
            kind = node_type(node)
            # Inside a subgraph, frontends go by the modes of the nodes in a subgraph node, not by its own (1.58.1).
            is_left_out = is_off(node) and not (scope.path and kind in self.definitions)
            if is_left_out or kind in REROUTE_TYPES or kind in VIRTUAL_TYPES:
                continue
            if kind in scope.lineage:
                self.endless.add(str(self.definitions[kind].get("name") or kind))
            elif kind in self.definitions:
                inside = Scope(
                    self.level(kind), (*scope.path, str(node.get("id"))), node, scope, scope.lineage | {kind}
                )
                self._inside[scope.flat_id(node)] = inside
                pending.extend((inside, inner) for inner in reversed(inside.level.node_list))
            else:
                self.nodes.setdefault(scope.flat_id(node), (scope, node))

    def _collect_connections(self) -> None:
        for flat_id, (scope, node) in self.nodes.items():
            for index in range(len(slots_of(node, "inputs"))):
                origin = self.resolve_input(scope, node, index)
                if origin is not None and origin.flat_id in self.nodes:
                    self.origins[flat_id, index] = origin
                    self.consumers[origin.flat_id].append((flat_id, index))

    def resolve_input(self, scope: Scope, node: dict[str, Any], index: int | None) -> Origin | None:
        """Follows the link into an input to the node that makes its value; None where nothing arrives.

        A loop over hops (reroute, bypassed node, subgraph border), so chains of any length are fine; a chain that
        bites its own tail ends at None.
        """
        seen: set[tuple[str, int]] = set()
        kind = ANY_TYPE
        through_reroute = False
        while index is not None:
            here = (scope.flat_id(node), index)
            inputs = slots_of(node, "inputs")
            if here in seen or index >= len(inputs):
                return None
            seen.add(here)
            # A bypassed node must fit what finally reads the value; a reroute's own type says nothing about that.
            kind = kind if through_reroute else type_name(inputs[index].get("type"))
            link = scope.level.links.get(str(inputs[index].get("link")))
            if link is None or inputs[index].get("link") is None:
                return None
            step = self._resolve_link(scope, link, kind)
            if step is None or isinstance(step, Origin):
                return step
            scope, node, index = step
            through_reroute = node_type(node) in REROUTE_TYPES
        return None

    def _resolve_link(
        self, scope: Scope, link: Link, kind: str
    ) -> Origin | tuple[Scope, dict[str, Any], int | None] | None:
        """One link back: the node that makes the value, or the (scope, node, input) where the search goes on."""
        while True:
            if link.origin_id == SUBGRAPH_INPUT and scope.host is not None and scope.parent is not None:
                return scope.parent, scope.host, host_input_index(scope, link.origin_slot)
            node = scope.level.nodes.get(link.origin_id)
            if node is None:
                return None
            if node.get("mode") == BYPASSED:
                return scope, node, _bypass_input(node, link.origin_slot, kind)
            if node.get("mode") == MUTED or node_type(node) in VIRTUAL_TYPES:
                return None
            if node_type(node) in REROUTE_TYPES:
                return scope, node, 0
            inside = self._inside.get(scope.flat_id(node))
            if inside is None:
                return Origin(scope, node, link.origin_slot, link.type)
            inner = _subgraph_output_link(inside, link.origin_slot)
            if inner is None:
                return None
            scope, link = inside, inner

    def execution_order(self) -> list[str]:
        """Flat ids, sources before what reads them; nodes that do not depend on each other stay in the file's order.

        Raises:
            networkx.NetworkXUnfeasible: the workflow has a cycle; the message names its nodes.
        """
        import networkx as nx

        position = {flat_id: i for i, flat_id in enumerate(self.nodes)}
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((origin.flat_id, target) for (target, _), origin in self.origins.items())
        try:
            return list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))
        except nx.NetworkXUnfeasible:
            names = " -> ".join(self.describe(edge[0]) for edge in nx.find_cycle(graph))
            raise nx.NetworkXUnfeasible(
                f"The workflow has a cycle, so it cannot be run: {names} -> back again."
            ) from None

    def connections(self) -> list[Connection]:
        found = []
        for (target, index), origin in self.origins.items():
            name = str(slots_of(self.nodes[target][1], "inputs")[index].get("name"))
            found.append(Connection(origin.flat_id, origin.slot, target, name, origin.type))
        return found

    def describe(self, flat_id: str) -> str:
        scope, node = self.nodes[flat_id]
        return node_words(node, flat_id, scope.level)


def host_input_index(scope: Scope, slot: int) -> int | None:
    """The input of the subgraph node that feeds the definition's input `slot`.

    By name: a saved subgraph node leaves out inputs that are unlinked widgets, so its list may be the shorter one. By
    position only where the input there has a name that the definition does not know (the definition was changed).
    """
    declared = [slot.get("name") for slot in slots_of(scope.level.definition or {}, "inputs")]
    if slot >= len(declared) or scope.host is None:
        return None
    shown = slots_of(scope.host, "inputs")
    index = slot_index(shown, declared[slot])
    if index is None and slot < len(shown) and shown[slot].get("name") not in declared:
        return slot
    return index


def _subgraph_output_link(inside: Scope, slot: int) -> Link | None:
    """The link inside a subgraph that ends at its output `slot`: by position, whatever its node calls it outside."""
    declared = slots_of(inside.level.definition or {}, "outputs")
    if slot >= len(declared):
        return None
    for link_id in declared[slot].get("linkIds") or []:
        if str(link_id) in inside.level.links:
            return inside.level.links[str(link_id)]
    ends = (link for link in inside.level.links.values() if link.target_id == SUBGRAPH_OUTPUT)
    return next((link for link in ends if link.target_slot == slot), None)


def _bypass_input(node: Mapping[str, Any], slot: int, kind: str) -> int | None:
    """The input of a bypassed node that stands in for its output `slot`, for a reader of type `kind`.

    The rule of the frontend: a reader of any type gets the input of the same index (else the first); else the input
    of the same index if its type fits, else the first of exactly this type, else the first that fits.
    """
    inputs = [type_name(i.get("type")) for i in slots_of(node, "inputs")]
    outputs = [type_name(o.get("type")) for o in slots_of(node, "outputs")]
    made = outputs[slot] if slot < len(outputs) else ANY_TYPE
    if not inputs:
        return None
    if kind == ANY_TYPE:
        return slot if slot < len(inputs) else 0
    fits = [i for i, name in enumerate(inputs) if types_compatible(name, made) and types_compatible(name, kind)]
    exact = [i for i, name in enumerate(inputs) if name == kind]
    if slot in fits:
        return slot
    return next(iter(exact + fits), None)


def proxied_widgets(host: Mapping[str, Any]) -> list[list[Any]]:
    """The inner widgets that a subgraph node shows: [[inner node id, or "-1" for an input of its own, name], ...]."""
    return [
        [str(proxy[0]), proxy[1]]
        for proxy in as_list(as_dict(host.get("properties")).get("proxyWidgets"))
        if isinstance(proxy, list) and len(proxy) >= 2
    ]
