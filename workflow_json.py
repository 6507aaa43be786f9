"""Workflow JSON, read: files, both shapes of links, levels, and the flattened graph that the server will see.

Nothing here knows a server, a browser or a tensor. `read_workflow_file` is the only function that touches the disk;
every other function takes plain data, returns plain data, and leaves what it was given as it was.

Words
-----
*workflow*  what the editor saves: ``{"nodes": [...], "links": [...], ...}``. Read here in both shapes the editor has
            written: ``version`` 0.4 (a link is ``[id, origin, origin_slot, target, target_slot, type]``) and 1 (a
            link is an object with ``id, origin_id, origin_slot, target_id, target_slot, type``), with subgraphs under
            ``definitions.subgraphs``, whose own input and output nodes have the ids -10 and -20.
*prompt*    what the server executes ("API format"): ``{node id: {"class_type": ..., "inputs": {...}}}``.
*port*      a ``DiscomfortPort`` node: where a value enters or leaves a workflow.
*flat id*   a node's id in the prompt: ``"35"`` at the root, ``"57:35"`` for node 35 inside the subgraph node 57.

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

import copy
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Union

from .prompt_graph import PORT_TYPE, is_api_format

Workflow = dict[str, Any]
WorkflowSource = Union[str, "os.PathLike[str]", Mapping[str, Any]]

# LiteGraph's wildcard: fits every type.
ANY_TYPE = "*"
# LiteGraph's node modes that take a node out of the run (LGraphEventMode.NEVER, BYPASS).
MUTED, BYPASSED = 2, 4
# The ids every subgraph definition gives its own input and output nodes.
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = "-10", "-20"
# Nodes that hand their one input on: the editor's own, and the one of the widespread rgthree pack.
REROUTE_TYPES = frozenset({"Reroute", "Reroute (rgthree)"})
# Editor-only nodes that never reach a prompt and carry no link.
VIRTUAL_TYPES = frozenset({"Note", "MarkdownNote", "PrimitiveNode"})
GROUP_NODE_PREFIXES = ("workflow>", "workflow/")
# The slots of a port, in the order frontends keep them, and the widgets among them, in the order of its values.
PORT_INPUTS, PORT_WIDGETS = ("input_data", "unique_id", "tags"), ("unique_id", "tags")
SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


# ---------------------------------------------------------------------------------------------------------- loading


def load_workflow(workflow: WorkflowSource, allow_prompt: bool = False) -> Workflow:
    """A workflow of your own: read from a file, or deep-copied from the dict given.

    Args:
        workflow: the dict, or the path of a ``.json`` file or of a PNG that ComfyUI saved with its workflow.
        allow_prompt: True also accepts a prompt (API format); tell the two apart with `is_api_format`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the content is no workflow; the message says what it is instead, and what to do.
        TypeError: neither a path nor a dict.
    """
    if isinstance(workflow, Mapping):
        content, where = copy.deepcopy(dict(workflow)), "The given dict"
    elif isinstance(workflow, (str, os.PathLike)):
        content, where = read_workflow_file(workflow), f"The file {str(os.fspath(workflow))!r}"
    else:
        raise TypeError(
            f"A workflow is a path or a dict, not {type(workflow).__name__}. Pass the path of the .json file that the "
            "editor saved, or its parsed content."
        )
    _require_workflow(content, where, allow_prompt)
    return content


def read_workflow_file(path: str | os.PathLike[str]) -> Any:
    """The parsed JSON of a workflow file (or of a PNG's ``workflow`` text chunk), not yet checked to be a workflow.

    Raises:
        FileNotFoundError: no such file; names the path, the current directory and what was probably meant.
        ValueError: a folder, not text, or not JSON (with line and column).
    """
    if isinstance(path, str) and path.lstrip().startswith("{"):
        raise ValueError(
            "A workflow's JSON text was given where its path or its parsed dict is expected. Pass json.loads(text)."
        )
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{str(file)!r} is a folder, not a workflow file. Pass one of the .json files in it.")
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(_missing_file_message(file)) from None
    if raw.startswith(_PNG_SIGNATURE):
        return _workflow_of_png(file)
    return _parse_json(raw, file)


def _missing_file_message(file: Path) -> str:
    hint = "A relative path counts from the current directory: check it, or pass an absolute one."
    if not file.suffix and file.with_suffix(".json").is_file():
        hint = f"There is {str(file.with_suffix('.json'))!r}: did you mean that one?"
    elif file.is_absolute():
        hint = "Check the spelling; in the editor, save the workflow with Workflow > Export."
    return f"There is no workflow file {str(file)!r} (current directory: {str(Path.cwd())!r}). {hint}"


def _parse_json(raw: bytes, file: Path) -> Any:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(file)!r} is not a workflow: it is not UTF-8 text (byte {error.start}). Pass the .json file that the "
            "editor saved, or a PNG made by ComfyUI."
        ) from None
    if not text.strip():
        raise ValueError(f"{str(file)!r} is empty. Save the workflow again from the editor (Workflow > Export).")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1].strip()[:60] if text.splitlines() else ""
        raise ValueError(
            f"{str(file)!r} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}, near {line!r}. "
            "Save the workflow again from the editor (Workflow > Export)."
        ) from None


def _workflow_of_png(file: Path) -> Any:
    # ComfyUI's SaveImage puts the workflow in a tEXt chunk before the pixels, so nothing is decoded here.
    from PIL import Image

    with Image.open(file) as image:
        text = image.info.get("workflow")
    if not text:
        raise ValueError(
            f"The picture {str(file)!r} carries no workflow. Only PNGs saved by ComfyUI with metadata do; "
            "pass the .json file."
        )
    return _parse_json(str(text).encode(), file)


def _require_workflow(content: Any, where: str, allow_prompt: bool) -> None:
    again = "Save the workflow from the editor with Workflow > Export."
    if content is None:
        raise ValueError(f"{where} holds null, which is no workflow. {again}")
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} holds a JSON {_json_kind(content)}, but a workflow is an object with a 'nodes' list. {again}"
        )
    if not content:
        raise ValueError(f"{where} is an empty object: a workflow without nodes. {again}")
    if is_api_format(content):
        if allow_prompt:
            return
        raise ValueError(
            f"{where} is in API format (a prompt, what the server executes), but this needs the editor's own format, "
            "which knows links, groups and layout. Export it with Workflow > Export, not Export (API)."
        )
    if not isinstance(content.get("nodes"), list):
        keys = ", ".join(sorted(map(str, content))[:8])
        raise ValueError(f"{where} has no 'nodes' list, so it is no workflow (its keys: {keys}). {again}")


def _json_kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


# ------------------------------------------------------------------------------------------------------------ types


def types_compatible(left: str, right: str) -> bool:
    """Whether a value of one type fits the other: equal, a wildcard, or a union ("IMAGE,MASK") with a common member."""
    ours, theirs = _type_members(left), _type_members(right)
    return ANY_TYPE in ours or ANY_TYPE in theirs or bool(ours & theirs)


def _type_members(name: str) -> set[str]:
    # LiteGraph compares types without regard to case.
    return {part.strip().upper() for part in name.split(",")}


def type_name(raw: Any) -> str:
    """A slot's type as one word. LiteGraph's wildcards are 0, "" and null too; old combos list their values as type."""
    if isinstance(raw, list):
        return "COMBO"
    return raw if isinstance(raw, str) and raw else ANY_TYPE


def common_type(names: Iterable[str]) -> str | None:
    """The type that fits all of these: "*" where nothing is known, None where they contradict each other."""
    common: list[str] | None = None
    for name in names:
        if ANY_TYPE in _type_members(name):
            continue
        members = [part.strip() for part in name.split(",")]
        common = members if common is None else [m for m in common if m.upper() in _type_members(name)]
        if not common:
            return None
    return ANY_TYPE if common is None else ",".join(common)


# ------------------------------------------------------------------------------------------------ one level of nodes


def dicts_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; [] for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def regular_workflow(workflow: Mapping[str, Any]) -> Workflow:
    """The workflow with every part in the shape it should have, so that nothing after this need doubt it.

    What has another shape is left out here; `check_workflow` reports what matters of it. Shares what it did not change.
    """
    subgraphs = dicts_in(as_dict(workflow.get("definitions")).get("subgraphs"))
    names = {PORT_TYPE: list(PORT_INPUTS)}
    for definition in subgraphs:
        names[str(definition.get("id"))] = [str(s.get("name")) for s in slots_of(definition, "inputs")]
    regular = _regular_level(workflow, names)
    if "definitions" in workflow:
        levels = [_regular_level(definition, names) for definition in subgraphs]
        regular["definitions"] = {**as_dict(workflow["definitions"]), "subgraphs": levels}
    extra = dict(as_dict(workflow.get("extra")))
    groups = {k: v for k, v in as_dict(extra.get("groupNodes")).items() if isinstance(v, dict)}
    extra["groupNodes"] = {
        name: {**group, "nodes": [_regular_node(node) for node in dicts_in(group.get("nodes"))]}
        for name, group in groups.items()
    }
    for key in ("reroutes", "linkExtensions"):
        extra[key] = [_regular_slot(item) for item in dicts_in(extra.get(key))]
    regular["extra"] = extra
    return regular


def _regular_level(level: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Workflow:
    """One level of `regular_workflow`; its own inputs and outputs are a definition's.

    `names`: the inputs of those types of nodes that are known here, for a node that was saved without any.
    """
    nodes = [_regular_node(n) for n in dicts_in(level.get("nodes")) if isinstance(n.get("id"), (int, str))]
    links = [raw for raw in as_list(level.get("links")) if read_link(raw)]
    regular = {**level, "nodes": nodes, "links": links}
    for node in nodes:
        if "inputs" not in node and node_type(node) in names:
            node["inputs"] = _inputs_by_links(str(node["id"]), names[node_type(node)], links)
    for key in ("inputs", "outputs", "reroutes"):
        if key in level:
            regular[key] = [_regular_slot(slot) for slot in dicts_in(level[key])]
    for key in ("models", "widgets"):
        if key in level:
            regular[key] = as_list(level[key])
    if "groups" in level:
        regular["groups"] = [g for g in dicts_in(level["groups"]) if _is_box(g.get("bounding"))]
    if "state" in level:
        regular["state"] = {k: v for k, v in as_dict(level["state"]).items() if isinstance(v, int)}
    return regular


def _inputs_by_links(node_id: str, names: Sequence[str], links: Iterable[Any]) -> list[dict[str, Any]]:
    """The inputs of a node saved without them: frontends take them from its type, and links by their target slot."""
    slots = [{"name": name, "type": ANY_TYPE, "link": None} for name in names]
    for raw in links:
        link = read_link(raw)
        if link is not None and link.target_id == node_id and link.target_slot < len(slots):
            slots[link.target_slot].update(link=link.id, type=link.type)
    return slots


def _regular_node(node: dict[str, Any]) -> dict[str, Any]:
    regular = dict(node)
    if "properties" in node:
        regular["properties"] = as_dict(node["properties"])
    for side in ("inputs", "outputs"):
        # Missing is not empty: frontends then take the slots from the node's definition.
        if side in node:
            regular[side] = [_regular_slot(slot) for slot in as_list(node[side])]
    if "widgets_values" in node and not isinstance(node["widgets_values"], (list, dict)):
        regular["widgets_values"] = None
    return regular


def _regular_slot(slot: Any) -> dict[str, Any]:
    regular = dict(as_dict(slot))
    for key in ("links", "linkIds"):
        if key in regular:
            regular[key] = [i for i in as_list(regular[key]) if isinstance(i, (int, str))]
    for key in ("link", "id", "parentId"):
        if not isinstance(regular.get(key), (int, str, type(None))):
            regular[key] = None
    return regular


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(v, (int, float)) for v in value)


class Link(NamedTuple):
    """One link of one level, whichever of the two shapes it was saved in. Ids are strings here."""

    id: str
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int
    type: str


def read_link(raw: Any) -> Link | None:
    """The link, or None where its shape is neither of the two."""
    if isinstance(raw, Mapping):
        values = [raw.get(k) for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]
    elif isinstance(raw, (list, tuple)) and len(raw) >= 5:
        values = [*raw[:5], raw[5] if len(raw) > 5 else None]
    else:
        return None
    identity, origin, origin_slot, target, target_slot, kind = values
    if not all(isinstance(value, (int, str)) for value in (identity, origin, target)):
        return None
    try:
        link = Link(str(identity), str(origin), int(origin_slot), str(target), int(target_slot), type_name(kind))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return link if link.origin_slot >= 0 and link.target_slot >= 0 else None


def slots_of(node: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """The node's ``inputs`` or ``outputs``; an absent list is an empty one."""
    slots = node.get(side)
    return [s if isinstance(s, dict) else {} for s in slots] if isinstance(slots, list) else []


def slot_index(slots: Sequence[Mapping[str, Any]], name: Any) -> int | None:
    return next((i for i, slot in enumerate(slots) if slot.get("name") == name), None)


def node_type(node: Mapping[str, Any]) -> str:
    return str(node.get("type") or "")


def is_off(node: Mapping[str, Any]) -> bool:
    return node.get("mode") in (MUTED, BYPASSED)


def is_group_node(node: Mapping[str, Any]) -> bool:
    return node_type(node).startswith(GROUP_NODE_PREFIXES)


@dataclass
class Level:
    """The nodes and links that see each other: the root of a workflow, or one subgraph definition."""

    # As given, in order; entries that are no objects are left out.
    node_list: list[dict[str, Any]]
    # id -> node; the first of several with one id.
    nodes: dict[str, dict[str, Any]]
    links: dict[str, Link]
    # The subgraph definition this level is; None for the root.
    definition: dict[str, Any] | None = None

    @classmethod
    def of(cls, graph: Mapping[str, Any], definition: dict[str, Any] | None = None) -> Level:
        node_list = dicts_in(graph.get("nodes"))
        nodes: dict[str, dict[str, Any]] = {}
        for node in node_list:
            nodes.setdefault(str(node.get("id")), node)
        links = (read_link(raw) for raw in as_list(graph.get("links")))
        return cls(node_list, nodes, {link.id: link for link in links if link}, definition)

    @property
    def name(self) -> str:
        return (
            f"subgraph {self.definition.get('name') or self.definition.get('id')!r}"
            if self.definition
            else "the workflow"
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


def subgraph_definitions(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workflow's subgraph definitions; [] where it has none."""
    return dicts_in(as_dict(workflow.get("definitions")).get("subgraphs"))


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


def node_words(node: Mapping[str, Any], flat_id: str, level: Level) -> str:
    kind, title = node_type(node) or "node", node.get("title")
    kind = "subgraph" if SUBGRAPH_ID.fullmatch(kind) else kind
    inside = f" in subgraph {level.definition.get('name')!r}" if level.definition else ""
    return f"{kind} #{flat_id}" + (f" {title!r}" if title and title != kind else "") + inside


# ------------------------------------------------------------------------------------------------------ group nodes
#
# A group node's definition is what the editor copied when the group was made: ``{"nodes": [...], "links": [[origin,
# origin slot, target, target slot, ..., type], ...], "external": [[node, slot, type], ...], "config": {node: {"input":
# {name: {"name", "visible"}}, "output": {slot: ...}}}}``, where a node's number is its place in the list. What the
# group node shows of it outside is not saved: the frontend derives it from the types of the inner nodes. Here it is
# derived from the slots and values they were saved with. The rules are those of frontends 1.27.10 and 1.58.1, and
# tests/test_workflow_frontend.py holds them against a frontend.

# The ids of the subgraphs that stand for group nodes come from their content.
_GROUP_NAMESPACE = uuid.UUID("0d5a1c3e-6f7b-4a52-8a37-5b1f6c1f9a60")
# Behind the value of a seed stands that of a second widget: what is to become of the seed after a run.
_SEED_NAMES = frozenset({"seed", "noise_seed"})
_CONTROL_WORDS = ("fixed", "increment", "decrement", "randomize")
# Stands for a value that a list of widget values is too short for.
_NO_VALUE = object()


def group_definition(workflow: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is in a group node of a regular workflow; None for another node, or where the file does not say."""
    if not is_group_node(node):
        return None
    definition = workflow["extra"]["groupNodes"].get(node_type(node)[len(GROUP_NODE_PREFIXES[0]) :])
    return definition if isinstance(definition, dict) else None


def expand_group_nodes(workflow: Workflow, for_saving: bool = False) -> Workflow:
    """The workflow with subgraph nodes in place of the group nodes of its root.

    Each gets a definition whose nodes hold the values that the group node shows, and are numbered as in the group.
    Whether the group node is muted or bypassed does not count: frontends run its content all the same. Group nodes
    inside subgraphs and inside each other stay what they are: no frontend can convert those.

    Args:
        workflow: as `regular_workflow` returns it; not modified, and shared where nothing changes.
        for_saving: the result goes into a file: only group nodes that contain ports are replaced.

    Raises:
        ValueError: with `for_saving`, where it cannot be told which value of a group node belongs to which widget.
    """
    nodes: list[dict[str, Any]] = []
    definitions: dict[str, dict[str, Any]] = {}
    for node in workflow["nodes"]:
        definition = group_definition(workflow, node)
        if definition is None or (for_saving and not _has_port(definition)):
            nodes.append(node)
            continue
        group = _GroupNode(node, definition)
        if for_saving and group.has_unknown_values:
            raise ValueError(
                f"Group node #{node['id']} {group.name!r} contains a node some of whose widgets were turned into "
                "inputs, so it cannot be told which of its values belongs to which widget. Convert it to a subgraph in "
                "the editor and save the workflow."
            )
        subgraph = group.subgraph()
        definitions[subgraph["id"]] = subgraph
        nodes.append(group.subgraph_node(subgraph))
    if not definitions:
        return workflow
    used = {node_type(node)[len(GROUP_NODE_PREFIXES[0]) :] for node in nodes if is_group_node(node)}
    groups = {name: group for name, group in workflow["extra"]["groupNodes"].items() if name in used}
    return {
        **workflow,
        "nodes": nodes,
        "definitions": {
            **as_dict(workflow.get("definitions")),
            "subgraphs": [*subgraph_definitions(workflow), *definitions.values()],
        },
        "extra": {**workflow["extra"], "groupNodes": groups},
    }


def _has_port(definition: Mapping[str, Any]) -> bool:
    return any(node_type(node) == PORT_TYPE for node in definition["nodes"])


class _ShownSlot(NamedTuple):
    """An input or output of an inner node that a group node shows outside."""

    # Place of the inner node in the group, and of the slot in that node.
    node: int
    slot: int
    # The group node's own name for it, as far as that can be told; "" for an output.
    name: str
    type: str
    is_widget: bool


class _GroupNode:
    """One group node of a workflow, read as the subgraph it stands for."""

    def __init__(self, host: dict[str, Any], definition: Mapping[str, Any]) -> None:
        self.host = host
        self.name = node_type(host)[len(GROUP_NODE_PREFIXES[0]) :]
        # Copies, whose widget values become those that this group node shows.
        self.nodes = [_inner_node(node, index) for index, node in enumerate(definition["nodes"])]
        self._config = as_dict(definition.get("config"))
        links = [_group_link(number, raw) for number, raw in enumerate(as_list(definition.get("links")), start=1)]
        self.links = [link for link in links if link is not None and self._has_slots(link)]
        self._into = {(int(link.target_id), link.target_slot): link for link in self.links}
        self._out_of = {(int(link.origin_id), link.origin_slot): link for link in reversed(self.links)}
        self._external = {tuple(e[:2]) for e in as_list(definition.get("external")) if _is_external(e)}
        # True where it cannot be told which of the group node's values belongs to which widget of an inner node.
        self.has_unknown_values = False
        self._spread_values()
        self._inputs, self._outputs = self._shown_inputs(), self._shown_outputs()

    def _has_slots(self, link: Link) -> bool:
        origin, target = int(link.origin_id), int(link.target_id)
        return (
            max(origin, target) < len(self.nodes)
            and link.origin_slot < len(slots_of(self.nodes[origin], "outputs"))
            and link.target_slot < len(slots_of(self.nodes[target], "inputs"))
        )

    # What is shown

    def _is_shown(self, index: int) -> bool:
        """Whether the group node has inputs, outputs and widgets for an inner node at all."""
        kind = node_type(self.nodes[index])
        if kind == "PrimitiveNode":
            return (index, 0) in self._out_of
        if kind == "Reroute":
            is_between = (index, 0) in self._into and (index, 0) in self._out_of
            return not is_between or (index, 0) in self._external
        return kind not in REROUTE_TYPES and kind not in VIRTUAL_TYPES

    def _shown_inputs(self) -> list[_ShownSlot]:
        """Sockets in the order of the nodes, then widgets that had been turned into inputs; none that is linked inside.

        The names are needed only where the saved group node has other inputs than these; widgets of inner nodes that
        are no inputs take names too, and only a port's are known.
        """
        taken: dict[str, int] = {}
        sockets: list[_ShownSlot] = []
        for index in filter(self._is_shown, range(len(self.nodes))):
            for name in _plain_widgets(self.nodes[index]):
                self._shown_name(index, name, taken)
            for slot, entry in enumerate(slots_of(self.nodes[index], "inputs")):
                if entry.get("widget") or (index, slot) in self._into:
                    continue
                name = self._shown_name(index, self._socket_name(index, entry), taken)
                if self._settings(index, "input", entry.get("name")).get("visible") is not False:
                    sockets.append(_ShownSlot(index, slot, name, type_name(entry.get("type")), False))
        widgets = []
        for index, slot in self._converted_widgets():
            entry = slots_of(self.nodes[index], "inputs")[slot]
            name = self._shown_name(index, str(entry.get("name")), taken)
            widgets.append(_ShownSlot(index, slot, name, type_name(entry.get("type")), True))
        return sockets + widgets

    def _converted_widgets(self) -> list[tuple[int, int]]:
        """(node, slot) of the widgets that had been turned into inputs and get nothing inside, in the shown order."""
        found = []
        for index in filter(self._is_shown, range(len(self.nodes))):
            slots = [i for i, entry in enumerate(slots_of(self.nodes[index], "inputs")) if entry.get("widget")]
            # Frontends sort these numbers as if they were words.
            found += [(index, slot) for slot in sorted(slots, key=str) if (index, slot) not in self._into]
        return found

    def _socket_name(self, index: int, entry: Mapping[str, Any]) -> str:
        """The name of an inner node's socket; a reroute's is the type of what it feeds."""
        if node_type(self.nodes[index]) != "Reroute":
            return str(entry.get("name"))
        fed = self._out_of.get((index, 0))
        if fed is None:
            return ANY_TYPE
        return type_name(slots_of(self.nodes[int(fed.target_id)], "inputs")[fed.target_slot].get("type"))

    def _shown_name(self, index: int, name: str, taken: dict[str, int]) -> str:
        """The name that the group node gives an input, made different from those before it; notes it in `taken`."""
        node = self.nodes[index]
        labels = [entry.get("label") for entry in slots_of(node, "inputs") if entry.get("name") == name]
        shown = key = str(self._settings(index, "input", name).get("name") or next(filter(None, labels), name))
        if shown in taken:
            prefix = str(node.get("title") or node_type(node))
            shown = key = f"{prefix} {name}"
            if shown in taken:
                shown = f"{prefix} {taken[shown]} {name}"
        taken[key] = taken.get(key, 1) + 1
        return shown

    def _settings(self, index: int, side: str, key: Any) -> dict[str, Any]:
        """What its maker set for one input or output in the dialog for group nodes: ``name``, ``visible``."""
        return as_dict(as_dict(as_dict(self._config.get(str(index))).get(side)).get(str(key)))

    def _shown_outputs(self) -> list[_ShownSlot]:
        """The outputs that feed nothing inside, or something outside as well, or were made visible."""
        shown = []
        for index in filter(self._is_shown, range(len(self.nodes))):
            for slot, entry in enumerate(slots_of(self.nodes[index], "outputs")):
                is_inside = (index, slot) in self._out_of and (index, slot) not in self._external
                visible = self._settings(index, "output", slot).get("visible")
                if not is_inside if visible is None else visible:
                    shown.append(_ShownSlot(index, slot, "", type_name(entry.get("type")), False))
        return shown

    # What the widgets say

    def _spread_values(self) -> None:
        """Writes the group node's widget values into the inner nodes: what a frontend does before it converts.

        Their order is: the widgets of each node, then those that had been turned into inputs. A port's name that the
        group node has no value for is empty, whatever the definition says.
        """
        given = self.host.get("widgets_values")
        values = iter(given if isinstance(given, list) else [])
        places = {i: _WidgetPlaces.of(node) for i, node in enumerate(self.nodes) if self._is_shown(i)}
        for index, known in places.items():
            self._take_values(index, known.plain, values)
        for index, slot in self._converted_widgets():
            self._take_values(index, places[index].converted[slot], values)

    def _take_values(self, index: int, places: Sequence[int | None], values: Iterator[Any]) -> None:
        """Gives the next values to the widgets of one inner node that have these places in its ``widgets_values``."""
        node = self.nodes[index]
        own = list(as_list(node.get("widgets_values")))
        for place in places:
            value = next(values, _NO_VALUE)
            if place is None:
                self.has_unknown_values = True
            elif value is not _NO_VALUE or node_type(node) == PORT_TYPE:
                own += [None] * (place + 1 - len(own))
                own[place] = "" if value is _NO_VALUE else value
        node["widgets_values"] = own

    # The subgraph

    def subgraph(self) -> dict[str, Any]:
        """The definition of a subgraph with the same content, as the editor writes it."""
        nodes, links = copy.deepcopy(self.nodes), self._subgraph_links()
        for link in links:
            if link.target_id != SUBGRAPH_OUTPUT:
                nodes[int(link.target_id)]["inputs"][link.target_slot]["link"] = int(link.id)
            if link.origin_id != SUBGRAPH_INPUT:
                nodes[int(link.origin_id)]["outputs"][link.origin_slot]["links"].append(int(link.id))
        inputs = zip(_distinct(shown.name for shown in self._inputs), self._inputs, strict=True)
        outputs = zip(self._output_names(), self._outputs, strict=True)
        content = {
            "version": 1,
            "revision": 0,
            "state": {"lastNodeId": len(nodes), "lastLinkId": len(links), "lastGroupId": 0, "lastRerouteId": 0},
            "config": {},
            "name": self.name,
            "inputNode": {"id": int(SUBGRAPH_INPUT), "bounding": [-300, 0, 120, 60]},
            "outputNode": {"id": int(SUBGRAPH_OUTPUT), "bounding": [-300, 200, 120, 60]},
            "inputs": [self._border_slot("inputs", number, *slot, links) for number, slot in enumerate(inputs)],
            "outputs": [self._border_slot("outputs", number, *slot, links) for number, slot in enumerate(outputs)],
            "widgets": [],
            "nodes": nodes,
            "links": [_link_object(link) for link in links],
            "groups": [],
            "extra": {},
        }
        return {"id": str(uuid.uuid5(_GROUP_NAMESPACE, json.dumps(content, sort_keys=True, default=str))), **content}

    def _subgraph_links(self) -> list[Link]:
        # A primitive inside does not reach what it drives (1.58.1; 1.27 gives that the group node's value).
        inner = [link for link in self.links if not self._is("PrimitiveNode", int(link.origin_id))]
        entering = [
            Link("", SUBGRAPH_INPUT, number, str(shown.node), shown.slot, shown.type)
            for number, shown in enumerate(self._inputs)
            # Nothing arrives through a reroute that stands at the entry (both frontends).
            if not self._is("Reroute", shown.node)
        ]
        leaving = [
            Link("", str(shown.node), shown.slot, SUBGRAPH_OUTPUT, number, shown.type)
            for number, shown in enumerate(self._outputs)
        ]
        links = [*inner, *entering, *leaving]
        return [link._replace(id=str(number)) for number, link in enumerate(links, start=1)]

    def _border_slot(
        self, side: str, number: int, name: str, shown: _ShownSlot, links: Sequence[Link]
    ) -> dict[str, Any]:
        """An input or output of the subgraph."""
        if side == "inputs":
            ids = [int(i.id) for i in links if (i.origin_id, i.origin_slot) == (SUBGRAPH_INPUT, number)]
        else:
            ids = [int(i.id) for i in links if (i.target_id, i.target_slot) == (SUBGRAPH_OUTPUT, number)]
        identity = uuid.uuid5(_GROUP_NAMESPACE, f"{self.name} {side} {number}")
        return {"id": str(identity), "name": name, "type": shown.type, "linkIds": ids}

    def subgraph_node(self, subgraph: Mapping[str, Any]) -> dict[str, Any]:
        """The group node as a node of that subgraph; the values of its widgets are inside."""
        linked = self._linked_inputs()
        inputs = [
            {"name": slot["name"], "type": slot["type"], "link": linked.get(number)}
            for number, slot in enumerate(subgraph["inputs"])
        ]
        shown = slots_of(self.host, "outputs")
        links = [slot.get("links") or [] for slot in shown] + [[]] * len(subgraph["outputs"])
        outputs = [
            {"name": slot["name"], "type": slot["type"], "links": ids}
            for slot, ids in zip(subgraph["outputs"], links, strict=False)
        ]
        return {
            **self.host,
            "type": subgraph["id"],
            "title": self.host.get("title") or self.name,
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "widgets_values": [],
            "properties": {},
        }

    def _is(self, kind: str, index: int) -> bool:
        return node_type(self.nodes[index]) == kind

    def _output_names(self) -> list[str]:
        """What the saved group node calls its outputs, in their order."""
        shown = slots_of(self.host, "outputs")
        names = [str(s.get("label") or s.get("name") or f"output {i}") for i, s in enumerate(shown)]
        missing = (f"output {number}" for number in range(len(names), len(self._outputs)))
        return _distinct([*names[: len(self._outputs)], *missing])

    def _linked_inputs(self) -> dict[int, Any]:
        """{place among the shown inputs: id of the link that the saved group node has there}.

        Frontends name inputs by the types of the inner nodes, which are not known here; so sockets are matched by
        their order where there are as many as there should be. Otherwise, and for widgets, the name decides.
        """
        saved = slots_of(self.host, "inputs")
        sockets = [slot for slot in saved if not slot.get("widget")]
        expected = [number for number, shown in enumerate(self._inputs) if not shown.is_widget]
        if len(sockets) == len(self._inputs):
            # Before 1.16, widgets that had been turned into inputs were sockets like the others.
            expected = list(range(len(self._inputs)))
        found: dict[int, Any] = {}
        if len(sockets) == len(expected):
            found = {number: slot.get("link") for number, slot in zip(expected, sockets, strict=True)}
        by_name = {slot.get("name"): slot.get("link") for slot in reversed(saved)}
        return {**{i: by_name[shown.name] for i, shown in enumerate(self._inputs) if shown.name in by_name}, **found}


@dataclass(frozen=True)
class _WidgetPlaces:
    """Where an inner node's ``widgets_values`` hold what a group node shows as widgets of its own.

    None in place of a number: there is a value, but its place cannot be told.
    """

    # Of the widgets that are no inputs.
    plain: list[int | None]
    # By slot: of a widget that was turned into an input, with the one behind a seed.
    converted: dict[int, list[int | None]]

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> _WidgetPlaces:
        inputs = slots_of(node, "inputs")
        converted = {i: str(entry.get("name")) for i, entry in enumerate(inputs) if entry.get("widget")}
        values = node.get("widgets_values")
        if node_type(node) == PORT_TYPE:
            place = {name: i for i, name in enumerate(PORT_WIDGETS)}
            plain: list[int | None] = [place[name] for name in _plain_widgets(node)]
            return cls(plain, {slot: [place[n]] if n in place else [] for slot, n in converted.items()})
        if isinstance(values, dict):
            return cls([None] * max(len(values) - len(converted), 0), {slot: [None] for slot in converted})
        values = as_list(values)
        if node_type(node) == "PrimitiveNode":
            return cls(list(range(max(len(values), 1))), {})
        if not converted:
            return cls(list(range(len(values))), {})
        by_slot, place_after = cls._in_order(converted, values)
        if place_after >= len(values):
            return cls([], by_slot)
        # Only some of its widgets are inputs: how many values the others have can be told, but not which.
        counts = {slot: 2 if name in _SEED_NAMES else 1 for slot, name in converted.items()}
        plain_count = max(len(values) - sum(counts.values()), 0)
        return cls([None] * plain_count, {slot: [None] * count for slot, count in counts.items()})

    @staticmethod
    def _in_order(converted: Mapping[int, str], values: Sequence[Any]) -> tuple[dict[int, list[int | None]], int]:
        """The places if the converted widgets were all there are, and how many values that makes."""
        by_slot: dict[int, list[int | None]] = {}
        place = 0
        for slot in converted:
            by_slot[slot] = [place]
            place += 1
            if place < len(values) and _is_number(values[place - 1]) and values[place] in _CONTROL_WORDS:
                by_slot[slot].append(place)
                place += 1
        return by_slot, place


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain_widgets(node: Mapping[str, Any]) -> list[str]:
    """The widgets of an inner node that are no inputs, as far as their names are known: a port's, a primitive's."""
    inputs = [str(entry.get("name")) for entry in slots_of(node, "inputs") if entry.get("widget")]
    known = {PORT_TYPE: PORT_WIDGETS, "PrimitiveNode": ("value",)}.get(node_type(node), ())
    return [name for name in known if name not in inputs]


def _inner_node(node: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A copy of a node of a group's definition, as a node of a subgraph, with nothing linked yet."""
    inner = copy.deepcopy(dict(node))
    inner.pop("index", None)
    inner["id"] = index
    if node_type(inner) == PORT_TYPE:
        inner.setdefault("inputs", [{"name": "input_data", "type": ANY_TYPE}])
        inner.setdefault("outputs", [{"name": "output", "type": ANY_TYPE}])
    inner["inputs"] = [{**slot, "link": None} for slot in slots_of(inner, "inputs")]
    inner["outputs"] = [{**slot, "links": []} for slot in slots_of(inner, "outputs")]
    return inner


def _group_link(number: int, raw: Any) -> Link | None:
    """A link of a group's definition. One that comes from outside has no origin: None, as for any other shape."""
    link = read_link([number, *raw[:4], raw[5] if len(raw) > 5 else None]) if isinstance(raw, list) else None
    return link if link is not None and link.origin_id.isdigit() and link.target_id.isdigit() else None


def _is_external(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) >= 2 and all(isinstance(value, int) for value in entry[:2])


def _link_object(link: Link) -> dict[str, Any]:
    return {**link._asdict(), "id": int(link.id), "origin_id": int(link.origin_id), "target_id": int(link.target_id)}


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, those that come again with a number."""
    found: list[str] = []
    for name in names:
        candidates = (name if number == 1 else f"{name} {number}" for number in count(1))
        found.append(next(candidate for candidate in candidates if candidate not in found))
    return found
