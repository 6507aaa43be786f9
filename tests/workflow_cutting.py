"""Cuts a workflow in two that hand values on by ports, and tells whether two prompts compute the same. Pure.

Written for test_templates.py. What it does is the reverse of stitching, and shares no code with it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import networkx as nx

PORT = "DiscomfortPort"
MUTED, BYPASSED = 2, 4


class RootLink(NamedTuple):
    """A link of a workflow's root level."""

    id: Any
    origin: Any
    slot: int
    target: Any
    target_slot: int
    type: str


class Cut(NamedTuple):
    """A workflow in two: run in sequence they do what it did."""

    first: dict[str, Any]
    second: dict[str, Any]
    # The links that were cut; each value goes by a port of its own, or several by one.
    links: list[RootLink]


def cut_workflow(workflow: Mapping[str, Any], rng: random.Random) -> Cut | None:
    """Cuts a workflow (version 0.4) at random, so that no link leads back from the second to the first.

    At random the readers of one output in the second share a port, or have one each. None: there is nothing to cut.
    """
    links = _root_links(workflow)
    first_ids = _first_half(workflow, links, rng)
    if first_ids is None:
        return None
    crossing = [link for link in links if link.origin in first_ids and link.target not in first_ids]
    first, second = (_half(workflow, ids, links) for ids in (first_ids, _ids(workflow) - first_ids))
    second["groups"] = []  # all groups stay with the first
    names: dict[Any, str] = {}
    is_shared = rng.random() < 0.5
    for link in crossing:
        key = (link.origin, link.slot) if is_shared else link.id
        if key not in names:
            names[key] = f"cut {len(names) + 1}"
            _add_output_port(first, names[key], link)
        _add_input_port(second, names[key], link)
    return Cut(first, second, crossing)


def _ids(workflow: Mapping[str, Any]) -> set[Any]:
    return {node["id"] for node in workflow["nodes"]}


def _root_links(workflow: Mapping[str, Any]) -> list[RootLink]:
    """The links that an input names; others, and links from nowhere, mean nothing to a frontend."""
    saved = {raw[0]: raw for raw in workflow["links"]}
    found = []
    for node in workflow["nodes"]:
        for index, slot in enumerate(node.get("inputs") or []):
            raw = saved.get(slot.get("link"))
            if raw is not None and raw[1] in _ids(workflow):
                found.append(RootLink(raw[0], raw[1], raw[2], node["id"], index, raw[5]))
    return found


def _first_half(workflow: Mapping[str, Any], links: list[RootLink], rng: random.Random) -> set[Any] | None:
    """The node ids of the first half: a beginning of a random topological order."""
    graph: nx.DiGraph[Any] = nx.DiGraph()
    graph.add_nodes_from(node["id"] for node in workflow["nodes"])
    whole = _uncuttable(workflow, links)
    for link in links:
        graph.add_edge(link.origin, link.target)
        if link.origin in whole:
            graph.add_edge(link.target, link.origin)  # in one strongly connected component: never apart
    pieces = nx.condensation(graph)
    order = _random_order(pieces, rng)
    # A cut that cuts links tells more than one between two unconnected parts.
    cuts = [n for n in range(1, len(order)) if any(pieces.out_degree(piece) for piece in order[:n])]
    if not cuts:
        return None
    return {node for piece in order[: rng.choice(cuts)] for node in pieces.nodes[piece]["members"]}


def _uncuttable(workflow: Mapping[str, Any], links: list[RootLink]) -> set[Any]:
    """Nodes whose outputs may not be cut, since what they give depends on the reader: a primitive is the widget that it
    drives, and a bypassed node hands on the input that fits the reader. A muted one gives nothing. Nor what a reroute
    has of those.
    """
    kinds = {node["id"]: node for node in workflow["nodes"]}
    found = {i for i, n in kinds.items() if n["type"] == "PrimitiveNode" or n.get("mode") in (MUTED, BYPASSED)}
    grown = True
    while grown:
        more = {link.target for link in links if link.origin in found and kinds[link.target]["type"] == "Reroute"}
        grown = not more <= found
        found |= more
    # A reroute that nothing comes into has nothing to hand on either.
    fed = {link.target for link in links}
    return found | {i for i, n in kinds.items() if n["type"] == "Reroute" and i not in fed}


def _random_order(graph: nx.DiGraph[Any], rng: random.Random) -> list[Any]:
    waiting = {node: graph.in_degree(node) for node in graph}
    ready = sorted(node for node, count in waiting.items() if not count)
    order = []
    while ready:
        order.append(ready.pop(rng.randrange(len(ready))))
        for after in graph.successors(order[-1]):
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return order


def _half(workflow: Mapping[str, Any], ids: set[Any], links: list[RootLink]) -> dict[str, Any]:
    """Some nodes of a workflow, with the links among them and all else that it has."""
    half = copy.deepcopy(dict(workflow))
    kept = {link.id for link in links if {link.origin, link.target} <= ids}
    half["nodes"] = [node for node in half["nodes"] if node["id"] in ids]
    half["links"] = [link for link in half["links"] if link[0] in kept]
    for node in half["nodes"]:
        for slot in node.get("inputs") or []:
            slot["link"] = slot["link"] if slot.get("link") in kept else None
        for slot in node.get("outputs") or []:
            slot["links"] = [i for i in slot.get("links") or [] if i in kept]
    return half


def _add_output_port(half: dict[str, Any], name: str, link: RootLink) -> None:
    port = _port(half, name, after=_node(half, link.origin))
    _link(half, _node(half, link.origin), link.slot, port, 0, link.type)


def _add_input_port(half: dict[str, Any], name: str, link: RootLink) -> None:
    known = [n for n in half["nodes"] if n["type"] == PORT and n["widgets_values"] == [name, "cut"]]
    port = known[0] if known else _port(half, name, after=None)
    _link(half, port, 0, _node(half, link.target), link.target_slot, link.type)


def _node(half: Mapping[str, Any], node_id: Any) -> dict[str, Any]:
    return next(node for node in half["nodes"] if node["id"] == node_id)


def _port(half: dict[str, Any], name: str, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """A new port, as an editor saves it: right of a node, or (None) on the left of everything, in a column."""
    ports = sum(node["type"] == PORT for node in half["nodes"])
    boxes = [(_pair(node["pos"]), _pair(node["size"])) for node in half["nodes"] if node["type"] != PORT]
    if after is None:
        x, y = min(pos[0] for pos, _ in boxes) - 300, min(pos[1] for pos, _ in boxes) + 160 * ports
    else:
        x, y = max(pos[0] + size[0] for pos, size in boxes) + 80, min(pos[1] for pos, _ in boxes) + 160 * ports
    half["last_node_id"] = max([half["last_node_id"], *(n["id"] for n in half["nodes"])]) + 1
    widgets = [{"name": n, "type": "STRING", "link": None, "widget": {"name": n}} for n in ("unique_id", "tags")]
    port = {
        "id": half["last_node_id"],
        "type": PORT,
        "pos": [x, y],
        "size": [220, 90],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": "input_data", "type": "*", "link": None}, *widgets],
        "outputs": [{"name": "output", "type": "*", "links": []}],
        "properties": {"Node name for S&R": PORT},
        "widgets_values": [name, "cut"],
    }
    half["nodes"].append(port)
    return port


def _pair(raw: Any) -> tuple[float, float]:
    return (raw["0"], raw["1"]) if isinstance(raw, dict) else (raw[0], raw[1])


def _link(half: dict[str, Any], origin: Any, slot: int, target: Any, target_slot: int, kind: str) -> None:
    half["last_link_id"] = max([half["last_link_id"], *(link[0] for link in half["links"])]) + 1
    half["links"].append([half["last_link_id"], origin["id"], slot, target["id"], target_slot, kind])
    origin["outputs"][slot]["links"].append(half["last_link_id"])
    target["inputs"][target_slot]["link"] = half["last_link_id"]


# ------------------------------------------------------------------------------------------- what a prompt computes


def meaning(prompt: Mapping[str, Any]) -> Counter[str]:
    """What a prompt computes, whatever its node ids are: a hash for each node, of its type, its values, and the hashes
    of the nodes that its links come from. Equal prompts have equal ones, and only they.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(prompt)
    graph.add_edges_from((origin, node_id) for node_id, _, (origin, _) in _links_of(prompt))
    hashes: dict[str, str] = {}
    for node_id in nx.topological_sort(graph):
        if node_id not in prompt:
            hashes[node_id] = f"missing {node_id}"
            continue
        entry = prompt[node_id]
        inputs = {n: [hashes[v[0]], v[1]] if is_link(v) else {"value": v} for n, v in entry["inputs"].items()}
        text = json.dumps([entry["class_type"], inputs], sort_keys=True)
        hashes[node_id] = hashlib.sha256(text.encode()).hexdigest()
    return Counter(hashes[node_id] for node_id in prompt)


def is_link(value: Any) -> bool:
    """Whether an input of a prompt is [node id, slot]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def _links_of(prompt: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    for node_id, entry in prompt.items():
        for name, value in entry["inputs"].items():
            if is_link(value):
                yield node_id, name, value


def without_ports(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt with every port taken out, its readers reading what it read. A port that has nothing, but is read,
    stays.
    """
    sources = {i: e["inputs"].get("input_data") for i, e in prompt.items() if e["class_type"] == PORT}
    read = {origin for _, _, (origin, _) in _links_of(prompt)}
    gone = {i for i, source in sources.items() if is_link(source) or i not in read}

    def past_ports(value: Any) -> Any:
        while is_link(value) and value[0] in gone:
            value = sources[value[0]]
        return value

    return {
        node_id: {**entry, "inputs": {name: past_ports(value) for name, value in entry["inputs"].items()}}
        for node_id, entry in prompt.items()
        if node_id not in gone
    }


def ports_in(prompt: Mapping[str, Any]) -> list[str]:
    """The unique_ids of a prompt's ports."""
    return sorted(str(e["inputs"].get("unique_id")) for e in prompt.values() if e["class_type"] == PORT)


def difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    """Words about what two prompts do not have in common: for messages of failed tests, in the order of the links."""
    wanted, have = meaning(expected), meaning(got)
    if wanted == have:
        return ""
    ours = Counter(_shape(e) for e in expected.values())
    theirs = Counter(_shape(e) for e in got.values())
    missing, more = list((ours - theirs).elements()), list((theirs - ours).elements())
    return f"{len(expected)} nodes became {len(got)}; missing: {missing[:3]}; instead: {more[:3]}"


def _shape(entry: Mapping[str, Any]) -> str:
    inputs = {name: "a link" if is_link(value) else value for name, value in entry["inputs"].items()}
    return json.dumps([entry["class_type"], inputs], sort_keys=True)
