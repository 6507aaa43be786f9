"""Workflows joined into one, as a person would join them in the editor; and reroutes taken out. Pure."""

from __future__ import annotations

import copy
import json
import logging
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .flat_graph import (
    FlatGraph,
)
from .group_nodes import (
    expand_group_nodes,
)
from .prompt_graph import INPUT, OUTPUT
from .workflow_graph import PortInfo, data_input, discover_port_nodes, ports_of, refuse_duplicate_outputs
from .workflow_json import (
    ANY_TYPE,
    REROUTE_TYPES,
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    Level,
    Link,
    Workflow,
    WorkflowSource,
    as_dict,
    as_list,
    common_type,
    dicts_in,
    is_group_node,
    load_workflow,
    node_type,
    read_link,
    regular_workflow,
    slots_of,
    subgraph_definitions,
)

logger = logging.getLogger("discomfort.workflow_stitching")

# Where derived ids come from: the same input gives the same ids, so stitching is reproducible.
_ID_NAMESPACE = uuid.UUID("5f3b9f0e-6d0a-4d5c-9f0e-d15c0f0a7e11")
# Pixels between two stitched workflows on the editor's canvas.
_STITCH_GAP = 300
# What `extra` says of one workflow alone, and is not handed on as it is: where its canvas stood, whether it opened as
# an app, and what names nodes or links by ids that are others in the result. The pack "Use Everywhere" takes the links
# that it listed out of a workflow when it opens one, so a list with old ids would cost other links.
_OWN_EXTRA = frozenset(
    [
        "ds",
        "favoritedWidgets",
        "groupNodes",
        "linearData",
        "linearMode",
        "linkExtensions",
        "links_added_by_ue",
        "prompt",
        "reroutes",
        "ue_links",
    ]
)


# ------------------------------------------------------------------------------------------------- reroute removal


def remove_reroute_nodes(
    nodes: Sequence[Mapping[str, Any]], links: Sequence[Any]
) -> tuple[list[dict[str, Any]], list[Any], dict[Any, Any]]:
    """The nodes and links of one level without its Reroute nodes, what they joined now joined directly.

    Args:
        nodes, links: as in the workflow, links in either shape; not modified.

    Returns:
        (nodes, links, link_id_map): deep copies; a link into a node that stays keeps its id and shape and gets the
        origin at the head of its chain of reroutes. link_id_map: {id of each given link: id of the link that now
        carries its value}; a link whose value reaches no node (or that came from nowhere) is in neither. Where a
        reroute fanned out, the removed link maps to the first of those that replace it.
    """
    level = Level.of({"nodes": copy.deepcopy(list(nodes)), "links": links})
    reroutes = {node_id for node_id, node in level.nodes.items() if node_type(node) in REROUTE_TYPES}
    into = {link.target_id: link for link in level.links.values() if link.target_id in reroutes}
    kept: list[Any] = []
    id_map: dict[Any, Any] = {}
    for raw in copy.deepcopy(list(links)):
        link = read_link(raw)
        if link is None or link.target_id in reroutes:
            continue
        identity = raw["id"] if isinstance(raw, dict) else raw[0]
        head, chain = _follow_reroutes(link, into, reroutes)
        if head is not None:
            _set_origin(raw, level.nodes.get(head.origin_id), head)
            kept.append(raw)
            for passed in chain:
                id_map.setdefault(passed, identity)
    original_ids = {link.id: _raw_link_id(raw) for raw in links if (link := read_link(raw))}
    remaining = [node for node in level.node_list if str(node.get("id")) not in reroutes]
    _rebuild_slots(remaining, kept)
    return remaining, kept, {original_ids[key]: value for key, value in id_map.items()}


def _follow_reroutes(link: Link, into: Mapping[str, Link], reroutes: set[str]) -> tuple[Link | None, list[str]]:
    """The link at the head of a chain of reroutes (None: the chain starts nowhere) and the ids of all its links."""
    chain, current = [link.id], link
    while current.origin_id in reroutes:
        before = into.get(current.origin_id)
        if before is None or before.id in chain:
            return None, chain
        chain.append(before.id)
        current = before
    return current, chain


def _raw_link_id(raw: Any) -> Any:
    return raw["id"] if isinstance(raw, Mapping) else raw[0]


def _set_origin(raw: Any, origin: Mapping[str, Any] | None, head: Link) -> None:
    """Writes the origin of `head` into a link of either shape; the id keeps the type (int or str) of the node's own."""
    origin_id = origin["id"] if origin is not None else int(head.origin_id)
    if isinstance(raw, dict):
        raw.update(origin_id=origin_id, origin_slot=head.origin_slot)
    else:
        raw[1:3] = [origin_id, head.origin_slot]


def _rebuild_slots(nodes: Iterable[dict[str, Any]], links: Iterable[Any]) -> None:
    """Makes each input's ``link`` and each output's ``links`` say what the list of links says."""
    parsed = {link.id: (link, _raw_link_id(raw)) for raw in links if (link := read_link(raw))}
    leaving: dict[tuple[str, int], list[Any]] = {}
    for link, raw_id in parsed.values():
        leaving.setdefault((link.origin_id, link.origin_slot), []).append(raw_id)
    for node in nodes:
        for slot in node.get("inputs") or []:
            if str(slot.get("link")) not in parsed:
                slot["link"] = None
        for index, slot in enumerate(node.get("outputs") or []):
            slot["links"] = leaving.get((str(node.get("id")), index), [])


# -------------------------------------------------------------------------------------------------------- stitching


def stitch_workflows(
    workflows: Sequence[WorkflowSource], delete_input_ports: bool = False, delete_output_ports: bool = False
) -> dict[str, Any]:
    """One workflow that computes what the given ones compute in sequence.

    Each OUTPUT port is wired to the INPUT ports of the same unique_id in the workflows after it, up to and including
    the next one that has an OUTPUT port of that unique_id: what a sequential run would have read. Joined ports become
    PASSTHRU ports; an OUTPUT port that nobody reads before a later one overwrites its value is left out (logged).
    Ports inside subgraphs are wired through new sockets of the subgraph; where its definition is used elsewhere too, a
    copy of it is changed. Group nodes that contain ports become subgraphs.

    Args:
        workflows: paths or dicts in the editor's format, in the order they would run; not modified.
        delete_input_ports: joined INPUT ports are taken out, their readers wired past them. Ports that stay the
            stitched workflow's own inputs are kept either way.
        delete_output_ports: the same for joined OUTPUT ports.

    Returns:
        dict with ``stitched_workflow`` (version 0.4; node, link and group ids renumbered; the parts side by side, left
        to right; subgraph definitions merged, a second one with a taken id and other content under a new id),
        ``inputs`` and ``outputs`` ({unique_id: PortInfo} of the result) and ``execution_order`` (flat ids).

    Raises:
        ValueError: no workflow; one in API format; two OUTPUT ports of one unique_id in one workflow; an OUTPUT port
            whose type does not fit the INPUT port it feeds (names both workflows and nodes); or a group node with a
            port that cannot be made a subgraph (names it).
        networkx.NetworkXUnfeasible: a cycle (names its nodes).
    """
    if isinstance(workflows, (str, os.PathLike, Mapping)):
        raise TypeError("stitch_workflows takes a list of workflows, in the order they would run; got a single one.")
    if not workflows:
        raise ValueError("stitch_workflows needs at least one workflow; the list is empty.")
    parts = [_Part.read(source, number) for number, source in enumerate(workflows, start=1)]
    editor = _Editor()
    for part in parts:
        part.added = editor.add_workflow(part.content)
    joins, overwritten = _plan_joins(parts)
    for join in joins:
        editor.connect(join.origin_id, join.target_id, join.type)
    for port_id in overwritten:
        logger.info("Stitching leaves out OUTPUT port #%s: a later workflow overwrites its value unread.", port_id)
        editor.remove_node(port_id)
    dissolved = {j.target_id for j in joins if delete_input_ports} | {j.origin_id for j in joins if delete_output_ports}
    for port_id in sorted(dissolved, key=_flat_id_key):
        editor.dissolve_node(port_id)
    return _stitch_result(editor.finish())


def _stitch_result(stitched: Workflow) -> dict[str, Any]:
    found = discover_port_nodes(stitched)
    order: dict[str, int] = {}
    for position, flat_id in enumerate(found["execution_order"]):
        order.setdefault(flat_id.split(":")[0], position)
    for node in stitched["nodes"]:
        # The frontend recomputes this; other readers of the file expect it.
        node["order"] = order.get(str(node["id"]), 0)
    return {
        "stitched_workflow": stitched,
        "inputs": found["inputs"],
        "outputs": found["outputs"],
        "execution_order": found["execution_order"],
    }


def _flat_id_key(flat_id: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.lstrip("-").isdigit() else (1, 0, part) for part in flat_id.split(":")]


class _Added(NamedTuple):
    """What the ids of a workflow became when it was added to another."""

    # Root node id -> its new id.
    node_ids: dict[str, int]
    # Subgraph id (the old one) -> {inner node id: its new id}, for those that changed.
    inner_ids: dict[str, dict[str, int]]


@dataclass
class _Part:
    """One of the workflows to stitch."""

    # How messages call it: its file's name, or "workflow 2".
    label: str
    content: Workflow
    ports: list[PortInfo]
    graph: FlatGraph
    # What its ids became when it was added to the result.
    added: _Added = field(default_factory=lambda: _Added({}, {}))

    @classmethod
    def read(cls, source: WorkflowSource, number: int) -> _Part:
        import networkx as nx

        name = f"workflow {number}" + ("" if isinstance(source, Mapping) else f" ({Path(source).name})")
        content = regular_workflow(load_workflow(source))
        try:
            content = expand_group_nodes(content, for_saving=True)
            graph = FlatGraph(content)
            ports = ports_of(graph)
            refuse_duplicate_outputs(ports, graph)
        except (nx.NetworkXUnfeasible, ValueError) as error:
            raise type(error)(f"In {name}: {error}") from None
        return cls(name, content, ports, graph)

    def new_id(self, flat_id: str) -> str:
        """A flat id of this part in the stitched workflow."""
        ids, level = [], self.graph.root.level
        renamed: Mapping[str, Any] = self.added.node_ids
        for node_id in flat_id.split(":"):
            ids.append(str(renamed.get(node_id, node_id)))
            kind = node_type(level.nodes[node_id])
            if kind in self.graph.definitions:
                level, renamed = self.graph.level(kind), self.added.inner_ids.get(kind, {})
        return ":".join(ids)

    def words(self, port: PortInfo) -> str:
        return f"{self.graph.describe(port.node_id)} of {self.label}"


class _Join(NamedTuple):
    # Flat ids in the stitched workflow.
    origin_id: str
    target_id: str
    type: str


def _plan_joins(parts: Sequence[_Part]) -> tuple[list[_Join], list[str]]:
    """What to wire, and which OUTPUT ports nobody ever reads (flat ids in the stitched workflow)."""
    joins: list[_Join] = []
    overwritten: list[str] = []
    # unique_id -> the part and port that wrote it last.
    latest: dict[str, tuple[_Part, PortInfo]] = {}
    for part in parts:
        for port in part.ports:
            # An INPUT port that nothing reads would turn into an OUTPUT port by being wired: leave it alone.
            if port.mode == INPUT and port.unique_id in latest and part.graph.consumers[port.node_id]:
                joins.append(_checked_join(*latest[port.unique_id], part, port))
        for port in part.ports:
            if port.mode != OUTPUT or not port.unique_id:
                continue
            if port.unique_id in latest:
                before, old = latest[port.unique_id]
                if before.new_id(old.node_id) not in {join.origin_id for join in joins}:
                    overwritten.append(before.new_id(old.node_id))
            latest[port.unique_id] = (part, port)
    return joins, overwritten


def _checked_join(origin: _Part, output: PortInfo, target: _Part, entry: PortInfo) -> _Join:
    kind = common_type([output.type, entry.type])
    if kind is None:
        raise ValueError(
            f"Port {entry.unique_id!r} cannot be joined: {origin.words(output)} gives {output.type}, but "
            f"{target.words(entry)} passes it to inputs of type {entry.type}. Rename one of the two ports, or "
            "convert the value in between."
        )
    return _Join(origin.new_id(output.node_id), target.new_id(entry.node_id), kind)


class _Editor:
    """Builds one workflow (version 0.4) out of others, and changes it as a person would in the editor.

    Everything it holds is its own copy.
    """

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.definitions: dict[str, dict[str, Any]] = {}
        # Subgraph id -> the definition as it came, and what its inner ids became.
        self._sources: dict[str, tuple[dict[str, Any], dict[str, int]]] = {}
        # Flat id of a subgraph node whose definition was copied for it alone -> what the inner ids became.
        self._copied: dict[str, dict[str, int]] = {}
        self.reroutes: list[dict[str, Any]] = []
        self.link_parents: dict[int, int] = {}
        self.models: list[Any] = []
        self._last_node = self._last_link = self._last_group = self._last_reroute = 0
        # All node ids in use, at the root and inside definitions. They are kept apart because newer frontends renumber
        # an inner node whose id is used elsewhere, and flat ids would then not be those found here.
        self._used_ids: set[str] = set()
        # Right edge and top edge of what is on the canvas; None while it is empty.
        self._right: float | None = None
        self._top = 0.0

    # Adding a workflow

    def add_workflow(self, source: Workflow) -> _Added:
        """Adds a copy of a whole workflow, right of what is there."""
        content = copy.deepcopy(source)
        inner_ids = self._add_definitions(content)
        self._add_group_nodes(content)
        level = Level.of(content)
        node_ids = {node_id: self._next_node_id() for node_id in level.nodes}
        links, link_ids = self._renumbered_links(level, node_ids)
        reroutes = self._renumbered_reroutes(content, link_ids)
        nodes = [self._renumbered_node(node, node_ids, link_ids) for node in level.nodes.values()]
        _rebuild_slots(nodes, links)
        groups = [self._renumbered_group(g) for g in content.get("groups") or [] if isinstance(g, dict)]
        self._place(nodes, groups, reroutes)
        self.nodes += nodes
        self.links += links
        self.groups += groups
        self.reroutes += reroutes
        self.models += [m for m in content.get("models") or [] if m not in self.models]
        self._add_extra(content)
        self._add_app(content, node_ids)
        return _Added(node_ids, inner_ids)

    def _next_node_id(self) -> int:
        self._last_node += 1
        self._used_ids.add(str(self._last_node))
        return self._last_node

    def _renumbered_links(self, level: Level, node_ids: Mapping[str, int]) -> tuple[list[list[Any]], dict[str, int]]:
        """The level's links, as lists, under new ids; those that lead nowhere, or that no input knows, are dropped."""
        links, link_ids = [], {}
        for node_id, node in level.nodes.items():
            for index, slot in enumerate(slots_of(node, "inputs")):
                link = level.links.get(str(slot.get("link"))) if slot.get("link") is not None else None
                if link is None or link.id in link_ids or link.origin_id not in node_ids:
                    continue
                self._last_link += 1
                link_ids[link.id] = self._last_link
                ends = (node_ids[link.origin_id], link.origin_slot, node_ids[node_id], index)
                links.append([self._last_link, *ends, link.type])
        return links, link_ids

    def _renumbered_node(
        self, node: dict[str, Any], node_ids: Mapping[str, int], link_ids: Mapping[str, int]
    ) -> dict[str, Any]:
        node["id"] = node_ids[str(node.get("id"))]
        for slot in node.get("inputs") or []:
            slot["link"] = link_ids.get(str(slot["link"])) if slot.get("link") is not None else None
        return node

    def _renumbered_group(self, group: dict[str, Any]) -> dict[str, Any]:
        self._last_group += 1
        return {**group, "id": self._last_group}

    def _renumbered_reroutes(self, content: Workflow, link_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """The native reroutes of the root level (kept in ``extra`` by version 0.4), as far as links still pass them."""
        extra = as_dict(content.get("extra"))
        found = content.get("reroutes") or extra.get("reroutes") or []
        new_ids: dict[Any, int] = {}
        for reroute in found:
            reroute["linkIds"] = [link_ids[str(i)] for i in reroute.get("linkIds") or [] if str(i) in link_ids]
            if reroute["linkIds"]:
                self._last_reroute += 1
                new_ids[reroute.get("id")] = self._last_reroute
        # Version 0.4 says in a list of its own which reroute a link passes last, version 1 in the link.
        holders = [*extra.get("linkExtensions", []), *dicts_in(content.get("links"))]
        parents = {str(h.get("id")): h["parentId"] for h in holders if isinstance(h.get("parentId"), (int, str))}
        self.link_parents |= {link_ids[i]: new_ids[p] for i, p in parents.items() if i in link_ids and p in new_ids}
        kept = [r for r in found if r.get("id") in new_ids]
        for reroute in kept:
            reroute.pop("floating", None)
            parent = new_ids.get(reroute.pop("parentId", None))
            reroute.update(id=new_ids[reroute.get("id")], **({"parentId": parent} if parent else {}))
        return kept

    def _place(self, nodes: list[dict[str, Any]], groups: list[dict[str, Any]], reroutes: list[dict[str, Any]]) -> None:
        """Moves a workflow right of those already there, tops aligned. The first one stays where it is."""
        boxes = [_box(n.get("pos"), n.get("size")) for n in nodes]
        boxes += [_box(g.get("bounding", [])[:2], g.get("bounding", [])[2:]) for g in groups]
        if not boxes:
            return
        left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
        right = max(b[0] + b[2] for b in boxes)
        if self._right is None:
            self._top, dx, dy = top, 0.0, 0.0
        else:
            dx, dy = self._right + _STITCH_GAP - left, self._top - top
        for item in (*nodes, *reroutes):
            x, y = _pair(item.get("pos"))
            item["pos"] = [x + dx, y + dy]
        for group in groups:
            x, y, width, height = _box(group.get("bounding", [])[:2], group.get("bounding", [])[2:])
            group["bounding"] = [x + dx, y + dy, width, height]
        self._right = right + dx

    def _add_extra(self, content: Workflow) -> None:
        for key, value in as_dict(content.get("extra")).items():
            if key not in _OWN_EXTRA:
                self.extra.setdefault(key, value)

    def _add_app(self, content: Workflow, node_ids: Mapping[str, int]) -> None:
        """Adds what the workflow shows as an app: inputs [node, widget, ...], and output nodes.

        A node is named by its id, or as frontend 1.47 does: "<workflow id>:<node id>:<widget>".
        """
        app = as_dict(as_dict(content.get("extra")).get("linearData"))
        own = f"{content.get('id')}:"

        def new_id(named: Any) -> int | None:
            text = str(named)
            return node_ids.get(text.removeprefix(own).partition(":")[0] if text.startswith(own) else text)

        shown = [entry for entry in as_list(app.get("inputs")) if isinstance(entry, list) and entry]
        inputs = [[new_id(entry[0]), *entry[1:]] for entry in shown if new_id(entry[0]) is not None]
        outputs = [found for named in as_list(app.get("outputs")) if (found := new_id(named)) is not None]
        if inputs or outputs:
            merged = self.extra.setdefault("linearData", {"inputs": [], "outputs": []})
            merged["inputs"] += inputs
            merged["outputs"] += outputs

    def _add_definitions(self, content: Workflow) -> dict[str, dict[str, int]]:
        """Merges subgraph definitions; one whose id other content has gets a new id, and so do all that use it.

        Returns {subgraph id as it was: {inner node id: its new id}}.
        """
        found = {str(d.get("id")): d for d in subgraph_definitions(content)}
        clashing = {i for i, d in found.items() if i in self._sources and self._sources[i][0] != d}
        grown = True
        while grown:
            users = {i for i, d in found.items() if any(node_type(n) in clashing for n in Level.of(d).node_list)}
            grown = not users <= clashing
            clashing |= users
        inner_ids = {}
        new_kinds = {}
        for identity, definition in found.items():
            new_kinds[identity] = _derived_id(definition) if identity in clashing else identity
            inner_ids[identity] = self._add_definition(new_kinds[identity], definition)
        hosts = [n for d in (content, *found.values()) for n in Level.of(d).node_list if node_type(n) in found]
        for host in hosts:
            _renumber_proxies(host, inner_ids[node_type(host)])
            host["type"] = new_kinds[node_type(host)]
        return inner_ids

    def _add_definition(self, identity: str, definition: dict[str, Any]) -> dict[str, int]:
        """Adds a definition under an id, unless it is there; returns what its inner ids became."""
        if identity not in self._sources:
            source = copy.deepcopy(definition)
            inner_ids = self._renumber_inside(definition)
            definition["id"] = identity
            self._sources[identity] = (source, inner_ids)
            self.definitions[identity] = definition
        return self._sources[identity][1]

    def _renumber_inside(self, definition: dict[str, Any]) -> dict[str, int]:
        """Gives the nodes of a definition ids nobody uses; returns those that changed, as {old: new}."""
        nodes = Level.of(definition).node_list
        numbers = [n["id"] for n in nodes if isinstance(n.get("id"), int)]
        self._last_node = max([self._last_node, *numbers])
        taken = [str(n.get("id")) for n in nodes if str(n.get("id")) in self._used_ids]
        new_ids = {node_id: self._next_node_id() for node_id in taken}
        self._used_ids |= {str(n.get("id")) for n in nodes}
        _renumber_definition(definition, new_ids)
        return new_ids

    def _add_group_nodes(self, content: Workflow) -> None:
        """Merges group node definitions by name; a taken name with other content gets a number."""
        extra = content.get("extra")
        groups = extra.get("groupNodes") if isinstance(extra, dict) else None
        if not isinstance(groups, dict) or not groups:
            return
        merged = self.extra.setdefault("groupNodes", {})
        for name, definition in groups.items():
            new_name, number = name, 1
            while new_name in merged and merged[new_name] != definition:
                number += 1
                new_name = f"{name} ({number})"
            merged[new_name] = definition
            for node in content.get("nodes") or []:
                if isinstance(node, dict) and is_group_node(node) and node_type(node)[len("workflow>") :] == name:
                    node["type"] = node_type(node)[: len("workflow>")] + new_name

    # Changing what was added

    def connect(self, origin_id: str, target_id: str, kind: str) -> None:
        """Links the output of one port to the input of another; both by flat id, in subgraphs or not."""
        origin, origin_slot = self._reachable_output(origin_id, kind)
        target, target_slot = self._reachable_input(target_id, kind)
        self._last_link += 1
        self.links.append([self._last_link, origin["id"], origin_slot, target["id"], target_slot, kind])
        target["inputs"][target_slot]["link"] = self._last_link
        outputs = origin["outputs"][origin_slot]
        outputs["links"] = [*(outputs.get("links") or []), self._last_link]

    def remove_node(self, flat_id: str) -> None:
        """Takes a node that nothing reads out, with the links into it."""
        holder, node = self._own_node(flat_id)
        self._drop_links(holder, {str(slot.get("link")) for slot in slots_of(node, "inputs")})
        holder["nodes"].remove(node)

    def dissolve_node(self, flat_id: str) -> None:
        """Takes a port out and wires what read it to what it read."""
        holder, node = self._own_node(flat_id)
        level = Level.of(holder)
        index = data_input(node)
        head = level.links.get(str(slots_of(node, "inputs")[index].get("link"))) if index is not None else None
        node_id = str(node["id"])
        if head is not None:
            origin = level.nodes.get(head.origin_id)
            for raw in holder["links"]:
                link = read_link(raw)
                if link is not None and link.origin_id == node_id:
                    _set_origin(raw, origin, head)
                    self._note_new_link(holder, origin, head, _raw_link_id(raw))
        self._drop_links(holder, {str(slot.get("link")) for slot in slots_of(node, "inputs")})
        holder["nodes"].remove(node)

    def _note_new_link(self, holder: Workflow, origin: dict[str, Any] | None, head: Link, link_id: Any) -> None:
        """Adds a link's id to the output it now comes from (or, from outside a subgraph, to the subgraph's input)."""
        if origin is None:
            slots = holder["inputs"] if head.origin_id == SUBGRAPH_INPUT else []
            key = "linkIds"
        else:
            slots, key = origin.get("outputs") or [], "links"
        if head.origin_slot < len(slots):
            slots[head.origin_slot][key] = [*(slots[head.origin_slot].get(key) or []), link_id]

    def _drop_links(self, holder: Workflow, ids: set[str]) -> None:
        holder["links"][:] = [raw for raw in holder["links"] if str(_raw_link_id(raw)) not in ids]
        for node in holder["nodes"]:
            for slot in node.get("outputs") or []:
                slot["links"] = [i for i in slot.get("links") or [] if str(i) not in ids]
        for slot in (*slots_of(holder, "inputs"), *slots_of(holder, "outputs")):
            slot["linkIds"] = [i for i in slot.get("linkIds") or [] if str(i) not in ids]

    def _own_node(self, flat_id: str) -> tuple[Workflow, dict[str, Any]]:
        """A node and the level (root or definition) that holds it, made safe to change for this one use of it."""
        *hosts, last = flat_id.split(":")
        holder, path = self._root(), ""
        for host_id in hosts:
            host = _node_of(holder, self._current_id(path, host_id))
            path = f"{path}:{host['id']}" if path else str(host["id"])
            holder = self._own_definition(host, path)
        return holder, _node_of(holder, self._current_id(path, last))

    def _current_id(self, path: str, node_id: str) -> str:
        """The id a node has now inside the subgraph node `path`, if its definition was copied since."""
        return str(self._copied.get(path, {}).get(node_id, node_id))

    def _root(self) -> Workflow:
        return {"nodes": self.nodes, "links": self.links}

    def _own_definition(self, host: dict[str, Any], path: str) -> dict[str, Any]:
        """The definition of a subgraph node; a copy of its own, with ids of its own, where other nodes use it too."""
        kind = node_type(host)
        holders: list[Any] = [self._root(), *self.definitions.values()]
        users = sum(node_type(n) == kind for holder in holders for n in holder.get("nodes") or [])
        if users > 1:
            own = copy.deepcopy(self.definitions[kind])
            own["id"] = host["type"] = _derived_id({"copy of": kind, "for": path})
            self._copied[path] = self._renumber_inside(own)
            _renumber_proxies(host, self._copied[path])
            self.definitions[own["id"]] = own
        return self.definitions[node_type(host)]

    def _reachable_output(self, flat_id: str, kind: str) -> tuple[dict[str, Any], int]:
        """The root node and output slot that give a port's value, through new subgraph outputs where it lies deeper."""
        *hosts, _ = flat_id.split(":")
        holder, node = self._own_node(flat_id)
        slot = 0
        if not node.get("outputs"):
            node["outputs"] = [{"name": "output", "type": ANY_TYPE, "links": []}]
        for depth in range(len(hosts), 0, -1):
            outside, host = self._own_node(":".join(hosts[:depth]))
            index = len(holder.setdefault("outputs", []))
            link_id = _add_inner_link(holder, (node["id"], slot), (int(SUBGRAPH_OUTPUT), index), kind)
            node["outputs"][slot]["links"] = [*(node["outputs"][slot].get("links") or []), link_id]
            name = _declare(holder, "outputs", kind, link_id)
            shown = host.setdefault("outputs", [])
            # Frontends match the outputs of a subgraph node by position: those it was saved without come before.
            missing = holder["outputs"][len(shown) : index]
            shown += [{"name": o.get("name"), "type": o.get("type", ANY_TYPE), "links": []} for o in missing]
            shown.append({"name": name, "type": kind, "links": []})
            holder, node, slot = outside, host, len(shown) - 1
        return node, slot

    def _reachable_input(self, flat_id: str, kind: str) -> tuple[dict[str, Any], int]:
        """The root node and input slot that feed a port, through new subgraph inputs where it lies deeper."""
        *hosts, _ = flat_id.split(":")
        holder, node = self._own_node(flat_id)
        index = data_input(node)
        if index is None:
            node.setdefault("inputs", []).append({"name": "input_data", "type": ANY_TYPE, "link": None})
            index = len(node["inputs"]) - 1
        if node["inputs"][index].get("link") is not None:
            # A link from a muted node: nothing arrives by it, and the new one takes its place.
            self._drop_links(holder, {str(node["inputs"][index]["link"])})
        for depth in range(len(hosts), 0, -1):
            outside, host = self._own_node(":".join(hosts[:depth]))
            slot = len(holder.setdefault("inputs", []))
            link_id = _add_inner_link(holder, (int(SUBGRAPH_INPUT), slot), (node["id"], index), kind)
            node["inputs"][index]["link"] = link_id
            name = _declare(holder, "inputs", kind, link_id)
            host.setdefault("inputs", []).append({"name": name, "type": kind, "link": None})
            holder, node, index = outside, host, len(host["inputs"]) - 1
        return node, index

    def finish(self) -> Workflow:
        """The workflow built so far."""
        alive = {link[0] for link in self.links}
        for reroute in self.reroutes:
            reroute["linkIds"] = [i for i in reroute["linkIds"] if i in alive]
        kept = [r for r in self.reroutes if r["linkIds"]]
        parents = [{"id": i, "parentId": p} for i, p in self.link_parents.items() if i in alive]
        if kept:
            self.extra.update(reroutes=kept, linkExtensions=parents)
        used = self._used_definitions()
        text = json.dumps([self.nodes, self.links], sort_keys=True, default=str)
        return {
            "id": str(uuid.uuid5(_ID_NAMESPACE, text)),
            "revision": 0,
            "last_node_id": self._last_node,
            "last_link_id": self._last_link,
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            **({"definitions": {"subgraphs": used}} if used else {}),
            **({"models": self.models} if self.models else {}),
            "config": {},
            "extra": self.extra,
            "version": 0.4,
        }

    def _used_definitions(self) -> list[dict[str, Any]]:
        pending, used = list(self.nodes), set()
        while pending:
            kind = node_type(pending.pop())
            if kind in self.definitions and kind not in used:
                used.add(kind)
                pending += self.definitions[kind].get("nodes") or []
        return [d for i, d in self.definitions.items() if i in used]


def _derived_id(content: Mapping[str, Any]) -> str:
    """A UUID made from content: stitching the same again gives the same ids, and equal content is recognised."""
    return str(uuid.uuid5(_ID_NAMESPACE, json.dumps(content, sort_keys=True, default=str)))


def _renumber_definition(definition: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    """Writes new node ids into a definition: its nodes, the ends of its links, its exposed widgets."""
    for node in Level.of(definition).node_list:
        node["id"] = new_ids.get(str(node.get("id")), node.get("id"))
    for raw in definition.get("links") or []:
        ends: tuple[Any, Any] = ("origin_id", "target_id") if isinstance(raw, dict) else (1, 3)
        for end in ends:
            raw[end] = new_ids.get(str(raw[end]), raw[end])
    for widget in definition.get("widgets") or []:
        if isinstance(widget, dict) and str(widget.get("id")) in new_ids:
            widget["id"] = new_ids[str(widget["id"])]


def _renumber_proxies(host: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    """Writes new inner node ids into what a subgraph node shows of its inside.

    That is widgets, [[node id, widget], ...], those of them that frontend 1.47 could not find (and keeps for later),
    and the pictures of nodes.
    """
    properties = as_dict(host.get("properties"))
    lost = [entry.get("originalEntry") for entry in dicts_in(properties.get("proxyWidgetErrorQuarantine"))]
    for proxy in (*as_list(properties.get("proxyWidgets")), *lost):
        if isinstance(proxy, list) and proxy and str(proxy[0]) in new_ids:
            proxy[0] = str(new_ids[str(proxy[0])])
    for preview in dicts_in(properties.get("previewExposures")):
        if str(preview.get("sourceNodeId")) in new_ids:
            preview["sourceNodeId"] = str(new_ids[str(preview["sourceNodeId"])])


def _node_of(holder: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    return next(n for n in holder["nodes"] if str(n.get("id")) == node_id)


def _add_inner_link(holder: dict[str, Any], origin: tuple[Any, int], target: tuple[Any, int], kind: str) -> int:
    """Adds a link inside a subgraph definition (always objects there); returns its id."""
    links = holder.setdefault("links", [])
    state = holder.setdefault("state", {})
    known = [int(link.id) for raw in links if (link := read_link(raw)) and link.id.isdigit()]
    state["lastLinkId"] = max([int(state.get("lastLinkId") or 0), *known]) + 1
    ends = {"origin_id": origin[0], "origin_slot": origin[1], "target_id": target[0], "target_slot": target[1]}
    links.append({"id": state["lastLinkId"], **ends, "type": kind})
    return int(state["lastLinkId"])


def _declare(definition: dict[str, Any], side: str, kind: str, link_id: int) -> str:
    """Adds an input or output to a subgraph definition; returns its name, which no other there has."""
    taken = {slot.get("name") for slot in definition[side]}
    name = next(n for i in range(len(taken) + 1) if (n := f"port_{i + 1}") not in taken)
    identity = str(uuid.uuid5(_ID_NAMESPACE, f"{definition.get('id')} {side} {name}"))
    definition[side].append({"id": identity, "name": name, "type": kind, "linkIds": [link_id]})
    return name


def _pair(raw: Any) -> tuple[float, float]:
    """Two numbers from ``[x, y]`` or ``{"0": x, "1": y}``; older files have both."""
    values = [raw.get("0"), raw.get("1")] if isinstance(raw, Mapping) else as_list(raw)
    numbers = [float(v) if isinstance(v, (int, float)) else 0.0 for v in [*values, 0, 0][:2]]
    return numbers[0], numbers[1]


def _box(position: Any, size: Any) -> tuple[float, float, float, float]:
    """(x, y, width, height); the default size of a node where none was saved."""
    return (*_pair(position), *(_pair(size) if size else (210.0, 100.0)))
