"""Workflow JSON in, workflow JSON out: ports, checks, stitching, and what a prompt's ports become.

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
A group node (the predecessor of subgraphs) is taken as one opaque node: frontends disagree about the ids inside it.
(Frontend 1.27 goes by the modes of the nodes inside a muted or bypassed subgraph; its editor sets those along.)

The prompt is the authority for a run; ports found in a workflow are what a person (or a node's sockets) is shown.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Union

logger = logging.getLogger("discomfort.workflow_graph")

Workflow = dict[str, Any]
Prompt = dict[str, Any]
WorkflowSource = Union[str, "os.PathLike[str]", Mapping[str, Any]]

PORT_TYPE = "DiscomfortPort"
LOADER_TYPE = "DiscomfortDataLoader"
INPUT, OUTPUT, PASSTHRU = "INPUT", "OUTPUT", "PASSTHRU"
# LiteGraph's wildcard: fits every type.
ANY_TYPE = "*"

# LiteGraph's node modes that take a node out of the run (LGraphEventMode.NEVER, BYPASS).
_MUTED, _BYPASSED = 2, 4
# The ids every subgraph definition gives its own input and output nodes.
_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT = "-10", "-20"
# Nodes that hand their one input on: the editor's own, and the one of the widespread rgthree pack.
_REROUTE_TYPES = frozenset({"Reroute", "Reroute (rgthree)"})
# Editor-only nodes that never reach a prompt and carry no link.
_VIRTUAL_TYPES = frozenset({"Note", "MarkdownNote", "PrimitiveNode"})
_GROUP_NODE_PREFIXES = ("workflow>", "workflow/")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
# Where derived ids come from: the same input gives the same ids, so stitching is reproducible.
_ID_NAMESPACE = uuid.UUID("5f3b9f0e-6d0a-4d5c-9f0e-d15c0f0a7e11")
# Pixels between two stitched workflows on the editor's canvas.
_STITCH_GAP = 300
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


def is_api_format(obj: Any) -> bool:
    """Whether this is a prompt (``{id: {"class_type": ..., "inputs": ...}}``) rather than a workflow."""
    if not isinstance(obj, Mapping) or isinstance(obj.get("nodes"), list):
        return False
    return any(isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in obj.values())


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


def _type_name(raw: Any) -> str:
    """A slot's type as one word. LiteGraph's wildcards are 0, "" and null too; old combos list their values as type."""
    if isinstance(raw, list):
        return "COMBO"
    return raw if isinstance(raw, str) and raw else ANY_TYPE


def _common_type(names: Iterable[str]) -> str | None:
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


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; [] for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _regular(workflow: Mapping[str, Any]) -> Workflow:
    """The workflow with every part in the shape it should have, so that nothing after this need doubt it.

    What has another shape is left out here; `check_workflow` reports what matters of it. Shares what it did not change.
    """
    regular = _regular_level(workflow)
    if "definitions" in workflow:
        subgraphs = [_regular_level(d) for d in _dicts(_dict(workflow["definitions"]).get("subgraphs"))]
        regular["definitions"] = {**_dict(workflow["definitions"]), "subgraphs": subgraphs}
    extra = dict(_dict(workflow.get("extra")))
    groups = {k: v for k, v in _dict(extra.get("groupNodes")).items() if isinstance(v, dict)}
    extra["groupNodes"] = {name: {**group, "nodes": _dicts(group.get("nodes"))} for name, group in groups.items()}
    for key in ("reroutes", "linkExtensions"):
        extra[key] = [_regular_slot(item) for item in _dicts(extra.get(key))]
    regular["extra"] = extra
    return regular


def _regular_level(level: Mapping[str, Any]) -> Workflow:
    """One level of `_regular`; its own inputs and outputs are a definition's."""
    nodes = [_regular_node(n) for n in _dicts(level.get("nodes")) if isinstance(n.get("id"), (int, str))]
    regular = {**level, "nodes": nodes, "links": [raw for raw in _list(level.get("links")) if _read_link(raw)]}
    for key in ("inputs", "outputs", "reroutes"):
        if key in level:
            regular[key] = [_regular_slot(slot) for slot in _dicts(level[key])]
    for key in ("models", "widgets"):
        if key in level:
            regular[key] = _list(level[key])
    if "groups" in level:
        regular["groups"] = [g for g in _dicts(level["groups"]) if _is_box(g.get("bounding"))]
    if "state" in level:
        regular["state"] = {k: v for k, v in _dict(level["state"]).items() if isinstance(v, int)}
    return regular


def _regular_node(node: dict[str, Any]) -> dict[str, Any]:
    regular = dict(node)
    if "properties" in node:
        regular["properties"] = _dict(node["properties"])
    for side in ("inputs", "outputs"):
        # Missing is not empty: frontends then take the slots from the node's definition.
        if side in node:
            regular[side] = [_regular_slot(slot) for slot in _list(node[side])]
    if "widgets_values" in node and not isinstance(node["widgets_values"], (list, dict)):
        regular["widgets_values"] = None
    return regular


def _regular_slot(slot: Any) -> dict[str, Any]:
    regular = dict(_dict(slot))
    for key in ("links", "linkIds"):
        if key in regular:
            regular[key] = [i for i in _list(regular[key]) if isinstance(i, (int, str))]
    for key in ("link", "id", "parentId"):
        if not isinstance(regular.get(key), (int, str, type(None))):
            regular[key] = None
    return regular


def _list(value: Any) -> list[Any]:
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


def _read_link(raw: Any) -> Link | None:
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
        link = Link(str(identity), str(origin), int(origin_slot), str(target), int(target_slot), _type_name(kind))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return link if link.origin_slot >= 0 and link.target_slot >= 0 else None


def _slots(node: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """The node's ``inputs`` or ``outputs``; an absent list is an empty one."""
    slots = node.get(side)
    return [s if isinstance(s, dict) else {} for s in slots] if isinstance(slots, list) else []


def _slot_index(slots: Sequence[Mapping[str, Any]], name: Any) -> int | None:
    return next((i for i, slot in enumerate(slots) if slot.get("name") == name), None)


def _node_type(node: Mapping[str, Any]) -> str:
    return str(node.get("type") or "")


def _is_off(node: Mapping[str, Any]) -> bool:
    return node.get("mode") in (_MUTED, _BYPASSED)


def _is_group_node(node: Mapping[str, Any]) -> bool:
    return _node_type(node).startswith(_GROUP_NODE_PREFIXES)


@dataclass
class _Level:
    """The nodes and links that see each other: the root of a workflow, or one subgraph definition."""

    # As given, in order; entries that are no objects are left out.
    node_list: list[dict[str, Any]]
    # id -> node; the first of several with one id.
    nodes: dict[str, dict[str, Any]]
    links: dict[str, Link]
    # The subgraph definition this level is; None for the root.
    definition: dict[str, Any] | None = None

    @classmethod
    def of(cls, graph: Mapping[str, Any], definition: dict[str, Any] | None = None) -> _Level:
        node_list = _dicts(graph.get("nodes"))
        nodes: dict[str, dict[str, Any]] = {}
        for node in node_list:
            nodes.setdefault(str(node.get("id")), node)
        links = (_read_link(raw) for raw in _list(graph.get("links")))
        return cls(node_list, nodes, {link.id: link for link in links if link}, definition)

    @property
    def name(self) -> str:
        return (
            f"subgraph {self.definition.get('name') or self.definition.get('id')!r}"
            if self.definition
            else "the workflow"
        )


@dataclass(frozen=True)
class _Scope:
    """One use of a level: the root, or the inside of one subgraph node (a definition may be used many times)."""

    level: _Level
    # Ids of the subgraph nodes around this scope, outermost first.
    path: tuple[str, ...] = ()
    # The subgraph node whose inside this is, and the scope that node stands in; None for the root.
    host: dict[str, Any] | None = None
    parent: _Scope | None = None
    # Subgraph ids from the root to here: one that comes again would never end.
    lineage: frozenset[str] = frozenset()

    def flat_id(self, node: Mapping[str, Any]) -> str:
        return ":".join((*self.path, str(node.get("id"))))


class _Origin(NamedTuple):
    """Where a link's value is made."""

    scope: _Scope
    node: dict[str, Any]
    slot: int
    # The type of the last link followed: for nodes saved without ``outputs``.
    link_type: str

    @property
    def flat_id(self) -> str:
        return self.scope.flat_id(self.node)

    @property
    def type(self) -> str:
        outputs = _slots(self.node, "outputs")
        known = _type_name(outputs[self.slot].get("type")) if self.slot < len(outputs) else ANY_TYPE
        return known if known != ANY_TYPE else self.link_type


class Connection(NamedTuple):
    """A value's way in the flattened workflow: between two nodes that run, past everything that only hands it on."""

    origin_id: str
    origin_slot: int
    target_id: str
    target_input: str
    type: str


class _FlatGraph:
    """A workflow as the server will see it: the nodes that run under their flat ids, and what feeds what."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        workflow = _regular(workflow)
        self.definitions = {str(d.get("id")): d for d in _definitions(workflow)}
        self._levels: dict[str, _Level] = {}
        self.root = _Scope(_Level.of(workflow))
        # The inside of each subgraph node, by that node's flat id.
        self._inside: dict[str, _Scope] = {}
        # Subgraphs that contain themselves, by name.
        self.endless: set[str] = set()
        # flat id -> (scope, node) for each node that runs, in the order of the file.
        self.nodes: dict[str, tuple[_Scope, dict[str, Any]]] = {}
        self._collect_nodes()
        # (flat id, input index) -> where its value comes from.
        self.origins: dict[tuple[str, int], _Origin] = {}
        # flat id -> [(flat id of a consumer, index of its input)]
        self.consumers: dict[str, list[tuple[str, int]]] = {flat_id: [] for flat_id in self.nodes}
        self._collect_connections()

    def level(self, subgraph_id: str) -> _Level:
        """The parsed level of a definition; parsed once however often it is used."""
        if subgraph_id not in self._levels:
            definition = self.definitions[subgraph_id]
            self._levels[subgraph_id] = _Level.of(definition, definition)
        return self._levels[subgraph_id]

    def _collect_nodes(self) -> None:
        pending = [(self.root, node) for node in reversed(self.root.level.node_list)]
        while pending:
            scope, node = pending.pop()
            kind = _node_type(node)
            if _is_off(node) or kind in _REROUTE_TYPES or kind in _VIRTUAL_TYPES:
                continue
            if kind in scope.lineage:
                self.endless.add(str(self.definitions[kind].get("name") or kind))
            elif kind in self.definitions:
                inside = _Scope(
                    self.level(kind), (*scope.path, str(node.get("id"))), node, scope, scope.lineage | {kind}
                )
                self._inside[scope.flat_id(node)] = inside
                pending.extend((inside, inner) for inner in reversed(inside.level.node_list))
            else:
                self.nodes.setdefault(scope.flat_id(node), (scope, node))

    def _collect_connections(self) -> None:
        for flat_id, (scope, node) in self.nodes.items():
            for index in range(len(_slots(node, "inputs"))):
                origin = self.resolve_input(scope, node, index)
                if origin is not None and origin.flat_id in self.nodes:
                    self.origins[flat_id, index] = origin
                    self.consumers[origin.flat_id].append((flat_id, index))

    def resolve_input(self, scope: _Scope, node: dict[str, Any], index: int | None) -> _Origin | None:
        """Follows the link into an input to the node that makes its value; None where nothing arrives.

        A loop over hops (reroute, bypassed node, subgraph border), so chains of any length are fine; a chain that
        bites its own tail ends at None.
        """
        seen: set[tuple[str, int]] = set()
        kind = ANY_TYPE
        through_reroute = False
        while index is not None:
            here = (scope.flat_id(node), index)
            inputs = _slots(node, "inputs")
            if here in seen or index >= len(inputs):
                return None
            seen.add(here)
            # A bypassed node must fit what finally reads the value; a reroute's own type says nothing about that.
            kind = kind if through_reroute else _type_name(inputs[index].get("type"))
            link = scope.level.links.get(str(inputs[index].get("link")))
            if link is None or inputs[index].get("link") is None:
                return None
            step = self._resolve_link(scope, link, kind)
            if step is None or isinstance(step, _Origin):
                return step
            scope, node, index = step
            through_reroute = _node_type(node) in _REROUTE_TYPES
        return None

    def _resolve_link(
        self, scope: _Scope, link: Link, kind: str
    ) -> _Origin | tuple[_Scope, dict[str, Any], int | None] | None:
        """One link back: the node that makes the value, or the (scope, node, input) where the search goes on."""
        while True:
            if link.origin_id == _SUBGRAPH_INPUT and scope.host is not None and scope.parent is not None:
                return scope.parent, scope.host, _host_input_index(scope, link.origin_slot)
            node = scope.level.nodes.get(link.origin_id)
            if node is None:
                return None
            if node.get("mode") == _BYPASSED:
                return scope, node, _bypass_input(node, link.origin_slot, kind)
            if _node_type(node) in _REROUTE_TYPES:
                return scope, node, 0
            if node.get("mode") == _MUTED or _node_type(node) in _VIRTUAL_TYPES:
                return None
            inside = self._inside.get(scope.flat_id(node))
            if inside is None:
                return _Origin(scope, node, link.origin_slot, link.type)
            inner = _subgraph_output_link(inside, node, link.origin_slot)
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
            name = str(_slots(self.nodes[target][1], "inputs")[index].get("name"))
            found.append(Connection(origin.flat_id, origin.slot, target, name, origin.type))
        return found

    def describe(self, flat_id: str) -> str:
        scope, node = self.nodes[flat_id]
        return _node_words(node, flat_id, scope.level)


def _definitions(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workflow's subgraph definitions; [] where it has none."""
    return _dicts(_dict(workflow.get("definitions")).get("subgraphs"))


def _host_input_index(scope: _Scope, slot: int) -> int | None:
    """The input of the subgraph node that feeds the definition's input `slot`.

    By name: a saved subgraph node leaves out inputs that are unlinked widgets, so its list may be the shorter one.
    """
    declared = _slots(scope.level.definition or {}, "inputs")
    if slot >= len(declared) or scope.host is None:
        return None
    return _slot_index(_slots(scope.host, "inputs"), declared[slot].get("name"))


def _subgraph_output_link(inside: _Scope, host: Mapping[str, Any], slot: int) -> Link | None:
    """The link inside a subgraph that ends at the output its node shows as `slot`."""
    declared = _slots(inside.level.definition or {}, "outputs")
    shown = _slots(host, "outputs")
    index = _slot_index(declared, shown[slot].get("name")) if slot < len(shown) else None
    index = slot if index is None else index
    if index >= len(declared):
        return None
    for link_id in declared[index].get("linkIds") or []:
        if str(link_id) in inside.level.links:
            return inside.level.links[str(link_id)]
    ends = (link for link in inside.level.links.values() if link.target_id == _SUBGRAPH_OUTPUT)
    return next((link for link in ends if link.target_slot == index), None)


def _bypass_input(node: Mapping[str, Any], slot: int, kind: str) -> int | None:
    """The input of a bypassed node that stands in for its output `slot`, for a reader of type `kind`.

    The rule of the frontend: a reader of any type gets the input of the same index (else the first); else the input
    of the same index if its type fits, else the first of exactly this type, else the first that fits.
    """
    inputs = [_type_name(i.get("type")) for i in _slots(node, "inputs")]
    outputs = [_type_name(o.get("type")) for o in _slots(node, "outputs")]
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


# ------------------------------------------------------------------------------------------------------------ ports


class PortInfo(NamedTuple):
    """A DiscomfortPort of a workflow."""

    # Flat id: "35", or "57:35" inside a subgraph.
    node_id: str
    # The name values travel under; "" where the port has none yet.
    unique_id: str
    # "INPUT" (nothing comes in), "OUTPUT" (something comes in, nothing goes out) or "PASSTHRU" (both).
    mode: str
    # The type of the value, from the other end of the links; "*" where they do not tell.
    type: str
    # The type of what comes in; "*" for an INPUT.
    input_type: str
    # The type of what its readers want; "*" for an OUTPUT.
    output_type: str
    # The port's tags, without blanks and empty ones.
    tags: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The same as a JSON-safe dict."""
        return {**self._asdict(), "tags": list(self.tags)}


def discover_ports(workflow: WorkflowSource) -> list[PortInfo]:
    """All ports of a workflow (or of a prompt, where types stay "*"), sources before readers, subgraphs included.

    Raises:
        ValueError, FileNotFoundError, TypeError: as `load_workflow`.
        networkx.NetworkXUnfeasible: the workflow has a cycle.
    """
    content = load_workflow(workflow, allow_prompt=True)
    if is_api_format(content):
        return [
            PortInfo(p.node_id, p.unique_id, p.mode, ANY_TYPE, ANY_TYPE, ANY_TYPE, p.tags)
            for p in prompt_ports(content)
        ]
    return _ports(_FlatGraph(content))


def _ports(graph: _FlatGraph, order: list[str] | None = None) -> list[PortInfo]:
    order = graph.execution_order() if order is None else order
    port_ids = [flat_id for flat_id in order if _node_type(graph.nodes[flat_id][1]) == PORT_TYPE]
    arriving = {p: _arriving_type(graph, p) for p in port_ids}
    leaving: dict[str, str] = {}
    for port_id in reversed(port_ids):
        leaving[port_id] = _common_type(_wanted_types(graph, port_id, leaving)) or ANY_TYPE
    ports: dict[str, PortInfo] = {}
    for port_id in port_ids:
        origin = _port_origin(graph, port_id)
        if origin is not None and origin.flat_id in ports:
            arriving[port_id] = ports[origin.flat_id].type
        mode = _mode(origin is not None, bool(graph.consumers[port_id]))
        kind = arriving[port_id] if arriving[port_id] != ANY_TYPE else leaving[port_id]
        unique_id, tags = _port_widgets(graph, port_id)
        ports[port_id] = PortInfo(port_id, unique_id, mode, kind, arriving[port_id], leaving[port_id], _tags(tags))
    return list(ports.values())


def _mode(has_origin: bool, has_consumer: bool) -> str:
    if not has_origin:
        return INPUT
    return PASSTHRU if has_consumer else OUTPUT


def _port_origin(graph: _FlatGraph, port_id: str) -> _Origin | None:
    index = _data_input(graph.nodes[port_id][1])
    return graph.origins.get((port_id, index)) if index is not None else None


def _data_input(node: Mapping[str, Any]) -> int | None:
    """The index of the port's input for its value (beside it there may be widgets turned into inputs)."""
    return _slot_index(_slots(node, "inputs"), "input_data")


def _arriving_type(graph: _FlatGraph, port_id: str) -> str:
    origin = _port_origin(graph, port_id)
    return ANY_TYPE if origin is None else origin.type


def _wanted_types(graph: _FlatGraph, port_id: str, leaving: Mapping[str, str]) -> list[str]:
    """What each reader of a port wants; a reader that is a port itself wants what its own readers want."""
    return [
        leaving.get(reader, _type_name(_slots(graph.nodes[reader][1], "inputs")[index].get("type")))
        for reader, index in graph.consumers[port_id]
    ]


def _tags(raw: Any) -> list[str]:
    parts = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list) else []
    return [part.strip() for part in map(str, parts) if part.strip()]


def _port_widgets(graph: _FlatGraph, port_id: str) -> tuple[str, Any]:
    """A port's unique_id ("" for none) and tags, also where a primitive or a subgraph's widget sets them."""
    scope, node = graph.nodes[port_id]
    saved = node.get("widgets_values")
    values = dict(zip(("unique_id", "tags"), saved, strict=False)) if isinstance(saved, list) else saved or {}
    found = []
    for name in ("unique_id", "tags"):
        outer = _linked_widget_value(scope, node, name)
        found.append(values.get(name) if outer is None else outer)
    return str(found[0] or "").strip(), found[1]


def _linked_widget_value(scope: _Scope, node: dict[str, Any], name: str) -> Any:
    """The value a widget gets from a primitive, or from the subgraph node it was promoted to; None if from neither."""
    index = _slot_index(_slots(node, "inputs"), name)
    seen: set[str] = set()
    while index is not None and scope.flat_id(node) not in seen:
        seen.add(scope.flat_id(node))
        link = scope.level.links.get(str(_slots(node, "inputs")[index].get("link")))
        if link is None:
            return None
        host, parent = scope.host, scope.parent
        if link.origin_id == _SUBGRAPH_INPUT and host is not None and parent is not None:
            outer = _host_input_index(scope, link.origin_slot)
            if outer is None or _slots(host, "inputs")[outer].get("link") is None:
                return _promoted_value(scope, link.origin_slot)
            scope, node, index = parent, host, outer
            continue
        origin = scope.level.nodes.get(link.origin_id) or {}
        if _node_type(origin) in _REROUTE_TYPES and _slots(origin, "inputs"):
            node, index = origin, 0
            continue
        values = origin.get("widgets_values")
        return values[0] if _node_type(origin) == "PrimitiveNode" and isinstance(values, list) and values else None
    return None


def _promoted_value(scope: _Scope, slot: int) -> Any:
    """What a subgraph node's own widget says for the definition's input `slot`; None: the inner value counts.

    Its ``widgets_values`` follow ``properties.proxyWidgets`` where that lists the input (node id "-1"), else the
    definition's inputs that drive widgets, in their order. Frontend 1.58 may save null for "as inside".
    """
    host, level = scope.host or {}, scope.level
    values = host.get("widgets_values")
    declared = _slots(level.definition or {}, "inputs")
    if not isinstance(values, list) or slot >= len(declared):
        return None
    proxies = (host.get("properties") or {}).get("proxyWidgets") or []
    entry = ["-1", declared[slot].get("name")]
    if any(list(proxy)[:1] == ["-1"] for proxy in proxies):
        index = next((i for i, proxy in enumerate(proxies) if list(proxy)[:2] == entry), None)
    else:
        driving = [i for i in range(len(declared)) if _drives_widget(level, i)]
        index = driving.index(slot) if slot in driving else None
    return values[index] if index is not None and index < len(values) else None


def _drives_widget(level: _Level, slot: int) -> bool:
    for link in level.links.values():
        if link.origin_id == _SUBGRAPH_INPUT and link.origin_slot == slot:
            inputs = _slots(level.nodes.get(link.target_id, {}), "inputs")
            if link.target_slot < len(inputs) and inputs[link.target_slot].get("widget"):
                return True
    return False


def discover_port_nodes(workflow: WorkflowSource) -> dict[str, Any]:
    """A workflow's ports, grouped, with the flattened graph they stand in.

    Returns:
        dict with ``inputs``, ``outputs``, ``passthrus`` ({unique_id: PortInfo}; of several INPUT ports of one
        unique_id the first), ``execution_order`` (flat ids of all nodes that run), ``nodes`` ({flat id: node}),
        ``links`` (list of `Connection`), ``unique_id_to_node`` ({unique_id: flat id of its first port}).

    Raises: as `discover_ports`, and ValueError where two OUTPUT ports have one unique_id.
    """
    content = load_workflow(workflow)
    graph = _FlatGraph(content)
    order = graph.execution_order()
    ports = _ports(graph, order)
    _refuse_duplicate_outputs(ports, graph)
    grouped: dict[str, Any] = {
        key: {p.unique_id: p for p in reversed(ports) if p.mode == mode}
        for key, mode in (("inputs", INPUT), ("outputs", OUTPUT), ("passthrus", PASSTHRU))
    }
    return {
        **{key: dict(reversed(found.items())) for key, found in grouped.items()},
        "execution_order": order,
        "nodes": {flat_id: node for flat_id, (_, node) in graph.nodes.items()},
        "links": graph.connections(),
        "unique_id_to_node": {p.unique_id: p.node_id for p in reversed(ports)},
    }


def _refuse_duplicate_outputs(ports: Iterable[PortInfo], graph: _FlatGraph) -> None:
    problems = _duplicate_outputs([(p.unique_id, p.mode, graph.describe(p.node_id)) for p in ports])
    if problems:
        raise ValueError(" ".join(problems))


def _duplicate_outputs(ports: Iterable[tuple[str, str, str]]) -> list[str]:
    """Sentences about unique_ids that more than one OUTPUT port has. `ports`: (unique_id, mode, words for the node)."""
    holders: dict[str, list[str]] = {}
    for unique_id, mode, words in ports:
        if mode == OUTPUT and unique_id:
            holders.setdefault(unique_id, []).append(words)
    return [
        f"The OUTPUT ports {' and '.join(words)} have the same unique_id {unique_id!r}, so one value would overwrite "
        "the other: give each its own."
        for unique_id, words in holders.items()
        if len(words) > 1
    ]


# ----------------------------------------------------------------------------------------------------------- checks


def check_workflow(workflow: WorkflowSource) -> list[str]:
    """What is wrong with a workflow (or prompt), one sentence each; [] if nothing is.

    A file that is missing or is no workflow is a problem like any other, so this never raises for its content.
    """
    try:
        content = load_workflow(workflow, allow_prompt=True)
    except (ValueError, OSError, TypeError) as error:
        return [str(error)]
    if is_api_format(content):
        return _prompt_problems(content)
    regular = _regular(content)
    known = {str(d.get("id")) for d in _definitions(regular)}
    levels = [_Level.of(regular), *(_Level.of(d, d) for d in _definitions(regular))]
    problems: list[str] = []
    for level, raw in zip(levels, [content, *_definitions(content)], strict=True):
        problems += [*_node_problems(level, raw), *_link_problems(level, raw), *_input_problems(level)]
        problems += _unknown_subgraphs(level, known)
    return [*problems, *_group_node_problems(regular), *_graph_problems(_FlatGraph(regular))]


def validate_workflow(workflow: WorkflowSource) -> bool:
    """Whether `check_workflow` finds nothing wrong."""
    return not check_workflow(workflow)


def _node_problems(level: _Level, raw: Mapping[str, Any]) -> Iterator[str]:
    for entry in _list(raw.get("nodes")):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), (int, str)) or not entry.get("type"):
            yield f"In {level.name} there is a node without id or type: {json.dumps(entry, default=str)[:80]}."
            continue
        for side in ("inputs", "outputs"):
            if entry.get(side) is not None and _dicts(entry[side]) != entry[side]:
                words = _node_words(entry, str(entry["id"]), level)
                yield f"The {side} of {words} are no list of objects: {json.dumps(entry[side], default=str)[:60]}."
    ids = Counter(str(node.get("id")) for node in level.node_list)
    for node_id, count in ids.items():
        if count > 1:
            types = " and ".join(_node_type(n) for n in level.node_list if str(n.get("id")) == node_id)
            yield (
                f"In {level.name} the node id {node_id} is used {count} times ({types}): frontends would lose or "
                "renumber one."
            )


def _link_problems(level: _Level, raw: Mapping[str, Any]) -> Iterator[str]:
    links = [_read_link(entry) for entry in _list(raw.get("links"))]
    if None in links:
        yield f"In {level.name} a link has neither of the two known shapes (6-item list, or object with origin_id...)."
    for link_id, count in Counter(link.id for link in links if link).items():
        if count > 1:
            yield f"In {level.name} the link id {link_id} is used {count} times."
    borders = (_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT) if level.definition is not None else ()
    for link in level.links.values():
        for end, node_id in (("comes from", link.origin_id), ("goes to", link.target_id)):
            if node_id not in level.nodes and node_id not in borders:
                yield f"In {level.name} link {link.id} {end} node {node_id}, which does not exist."


def _input_problems(level: _Level) -> Iterator[str]:
    for node in level.node_list:
        for slot in _slots(node, "inputs"):
            if slot.get("link") is None:
                continue
            link = level.links.get(str(slot["link"]))
            words = f"Input {slot.get('name')!r} of {_node_words(node, str(node.get('id')), level)}"
            if link is None:
                yield f"{words} names link {slot['link']}, which does not exist."
                continue
            outputs = _slots(level.nodes.get(link.origin_id, {}), "outputs")
            if outputs and link.origin_slot >= len(outputs):
                yield f"{words} reads output {link.origin_slot} of node {link.origin_id}, which has {len(outputs)}."
            elif outputs:
                made, wanted = _type_name(outputs[link.origin_slot].get("type")), _type_name(slot.get("type"))
                if not _link_fits(level.nodes[link.origin_id], made, wanted):
                    yield f"{words} wants {wanted}, but node {link.origin_id} gives it {made}."


def _link_fits(origin: Mapping[str, Any], made: str, wanted: str) -> bool:
    # A primitive's output is whatever widget it drives, and a combo takes the text of one of its values.
    return types_compatible(made, wanted) or _node_type(origin) == "PrimitiveNode" or wanted == "COMBO"


def _unknown_subgraphs(level: _Level, known: set[str]) -> Iterator[str]:
    for node in level.node_list:
        kind = _node_type(node)
        if _UUID.fullmatch(kind) and kind not in known:
            yield (
                f"Node #{node.get('id')} in {level.name} is a subgraph whose definition {kind} is not in the file: "
                "open the workflow in the editor it was made in and save it again."
            )


def _group_node_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for name, definition in content["extra"]["groupNodes"].items():
        if any(_node_type(node) == PORT_TYPE for node in definition["nodes"]):
            yield (
                f"The group node {name!r} contains a port, which cannot be found there (frontends number the nodes "
                "inside a group node differently): convert it to a subgraph."
            )


def _graph_problems(graph: _FlatGraph) -> Iterator[str]:
    import networkx as nx

    for name in sorted(graph.endless):
        yield f"The subgraph {name!r} contains itself."
    try:
        ports = _ports(graph)
    except nx.NetworkXUnfeasible as error:
        yield str(error)
        return
    yield from _duplicate_outputs([(p.unique_id, p.mode, graph.describe(p.node_id)) for p in ports])
    for port in ports:
        if not port.unique_id:
            yield f"The {port.mode} port {graph.describe(port.node_id)} has no unique_id: type a name into it."
        wanted = _wanted_types(graph, port.node_id, {p.node_id: p.output_type for p in ports})
        if _common_type([port.input_type, *wanted]) is None:
            readers = ", ".join(dict.fromkeys(wanted))
            source = "" if port.input_type == ANY_TYPE else f" from a source of type {port.input_type}"
            words = f"The port {graph.describe(port.node_id)} ({port.unique_id!r})"
            yield f"{words} feeds inputs of types {readers}{source}: no value fits all."


# ------------------------------------------------------------------------------------------------- words about nodes


def describe_node(content: Mapping[str, Any], node_id: str | int) -> str:
    """A node in words for a message: ``KSampler #3 'My title'``, ``... in subgraph 'Upscale'`` for "57:35".

    Args:
        content: the workflow or prompt, as a dict.
        node_id: its id, flat ("57:35") inside subgraphs.
    """
    flat_id = str(node_id)
    if is_api_format(content):
        entry = content.get(flat_id)
        return (
            _prompt_node_words(flat_id, entry) if isinstance(entry, Mapping) else f"node #{flat_id} (not in the prompt)"
        )
    found = _find_node(content, flat_id)
    return _node_words(found[1], flat_id, found[0]) if found else f"node #{flat_id} (not in the workflow)"


def _find_node(workflow: Mapping[str, Any], flat_id: str) -> tuple[_Level, dict[str, Any]] | None:
    """The node of a flat id and its level, whether it runs or not."""
    definitions = {str(d.get("id")): d for d in _definitions(workflow)}
    level = _Level.of(workflow)
    *hosts, last = flat_id.split(":")
    for host_id in hosts:
        definition = definitions.get(_node_type(level.nodes.get(host_id, {})))
        if definition is None:
            return None
        level = _Level.of(definition, definition)
    return (level, level.nodes[last]) if last in level.nodes else None


def _node_words(node: Mapping[str, Any], flat_id: str, level: _Level) -> str:
    kind, title = _node_type(node) or "node", node.get("title")
    kind = "subgraph" if _UUID.fullmatch(kind) else kind
    inside = f" in subgraph {level.definition.get('name')!r}" if level.definition else ""
    return f"{kind} #{flat_id}" + (f" {title!r}" if title and title != kind else "") + inside


def _prompt_node_words(node_id: str, entry: Mapping[str, Any]) -> str:
    kind = entry.get("class_type") or "node"
    meta = entry.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return f"{kind} #{node_id}" + (f" {title!r}" if title and title != kind else "")


def node_types(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """{type: [flat ids]} of the nodes that run, in a workflow or prompt. What a server must know to run it.

    The nodes inside a group node count under the group node's id.
    """
    found: dict[str, list[str]] = {}
    if is_api_format(content):
        for node_id, entry in content.items():
            if isinstance(entry, Mapping) and isinstance(entry.get("class_type"), str):
                found.setdefault(entry["class_type"], []).append(str(node_id))
        return found
    for flat_id, (_, node) in _FlatGraph(content).nodes.items():
        for kind in _types_in(content, node):
            found.setdefault(kind, []).append(flat_id)
    return found


def _types_in(workflow: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    kind = _node_type(node)
    groups = _dict(_dict(workflow.get("extra")).get("groupNodes"))
    if not _is_group_node(node) or not groups:
        return [kind]
    inner = _dicts(_dict(groups.get(kind[len(_GROUP_NODE_PREFIXES[0]) :])).get("nodes"))
    skipped = _REROUTE_TYPES | _VIRTUAL_TYPES
    return list(dict.fromkeys(_node_type(n) for n in inner if _node_type(n) not in skipped))


def known_pack(workflow: Mapping[str, Any], node_id: str | int) -> str | None:
    """The pack a workflow says a node is from ("comfyui-kjnodes 1.0.6", "owner/repository"); None if it is silent."""
    found = _find_node(workflow, str(node_id))
    properties = _dict(found[1].get("properties")) if found else {}
    name = properties.get("cnr_id") or properties.get("aux_id")
    return " ".join(str(part) for part in (name, properties.get("ver")) if part) if name else None


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
    level = _Level.of({"nodes": copy.deepcopy(list(nodes)), "links": links})
    reroutes = {node_id for node_id, node in level.nodes.items() if _node_type(node) in _REROUTE_TYPES}
    into = {link.target_id: link for link in level.links.values() if link.target_id in reroutes}
    kept: list[Any] = []
    id_map: dict[Any, Any] = {}
    for raw in copy.deepcopy(list(links)):
        link = _read_link(raw)
        if link is None or link.target_id in reroutes:
            continue
        identity = raw["id"] if isinstance(raw, dict) else raw[0]
        head, chain = _follow_reroutes(link, into, reroutes)
        if head is not None:
            _set_origin(raw, level.nodes.get(head.origin_id), head)
            kept.append(raw)
            for passed in chain:
                id_map.setdefault(passed, identity)
    original_ids = {link.id: _raw_link_id(raw) for raw in links if (link := _read_link(raw))}
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
    parsed = {link.id: (link, _raw_link_id(raw)) for raw in links if (link := _read_link(raw))}
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
    copy of it is changed.

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
        ValueError: no workflow; one in API format; two OUTPUT ports of one unique_id in one workflow; or an OUTPUT port
            whose type does not fit the INPUT port it feeds (names both workflows and nodes).
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
    graph: _FlatGraph
    # What its ids became when it was added to the result.
    added: _Added = field(default_factory=lambda: _Added({}, {}))

    @classmethod
    def read(cls, source: WorkflowSource, number: int) -> _Part:
        import networkx as nx

        name = f"workflow {number}" + ("" if isinstance(source, Mapping) else f" ({Path(source).name})")
        content = _regular(load_workflow(source))
        graph = _FlatGraph(content)
        try:
            ports = _ports(graph)
            _refuse_duplicate_outputs(ports, graph)
        except (nx.NetworkXUnfeasible, ValueError) as error:
            raise type(error)(f"In {name}: {error}") from None
        return cls(name, content, ports, graph)

    def new_id(self, flat_id: str) -> str:
        """A flat id of this part in the stitched workflow."""
        ids, level = [], self.graph.root.level
        renamed: Mapping[str, Any] = self.added.node_ids
        for node_id in flat_id.split(":"):
            ids.append(str(renamed.get(node_id, node_id)))
            kind = _node_type(level.nodes[node_id])
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
    kind = _common_type([output.type, entry.type])
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
        level = _Level.of(content)
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
        return _Added(node_ids, inner_ids)

    def _next_node_id(self) -> int:
        self._last_node += 1
        self._used_ids.add(str(self._last_node))
        return self._last_node

    def _renumbered_links(self, level: _Level, node_ids: Mapping[str, int]) -> tuple[list[list[Any]], dict[str, int]]:
        """The level's links, as lists, under new ids; those that lead nowhere, or that no input knows, are dropped."""
        links, link_ids = [], {}
        for node_id, node in level.nodes.items():
            for index, slot in enumerate(_slots(node, "inputs")):
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
        extra = _dict(content.get("extra"))
        found = content.get("reroutes") or extra.get("reroutes") or []
        new_ids: dict[Any, int] = {}
        for reroute in found:
            reroute["linkIds"] = [link_ids[str(i)] for i in reroute.get("linkIds") or [] if str(i) in link_ids]
            if reroute["linkIds"]:
                self._last_reroute += 1
                new_ids[reroute.get("id")] = self._last_reroute
        # Version 0.4 says in a list of its own which reroute a link passes last, version 1 in the link.
        holders = [*extra.get("linkExtensions", []), *_dicts(content.get("links"))]
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
        skipped = ("ds", "reroutes", "linkExtensions", "groupNodes")
        extra = content.get("extra")
        for key, value in extra.items() if isinstance(extra, dict) else ():
            if key not in skipped:
                self.extra.setdefault(key, value)

    def _add_definitions(self, content: Workflow) -> dict[str, dict[str, int]]:
        """Merges subgraph definitions; one whose id other content has gets a new id, and so do all that use it.

        Returns {subgraph id as it was: {inner node id: its new id}}.
        """
        found = {str(d.get("id")): d for d in _definitions(content)}
        clashing = {i for i, d in found.items() if i in self._sources and self._sources[i][0] != d}
        grown = True
        while grown:
            users = {i for i, d in found.items() if any(_node_type(n) in clashing for n in _Level.of(d).node_list)}
            grown = not users <= clashing
            clashing |= users
        inner_ids = {}
        new_kinds = {}
        for identity, definition in found.items():
            new_kinds[identity] = _derived_id(definition) if identity in clashing else identity
            inner_ids[identity] = self._add_definition(new_kinds[identity], definition)
        hosts = [n for d in (content, *found.values()) for n in _Level.of(d).node_list if _node_type(n) in found]
        for host in hosts:
            _renumber_proxies(host, inner_ids[_node_type(host)])
            host["type"] = new_kinds[_node_type(host)]
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
        nodes = _Level.of(definition).node_list
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
                if isinstance(node, dict) and _is_group_node(node) and _node_type(node)[len("workflow>") :] == name:
                    node["type"] = _node_type(node)[: len("workflow>")] + new_name

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
        self._drop_links(holder, {str(slot.get("link")) for slot in _slots(node, "inputs")})
        holder["nodes"].remove(node)

    def dissolve_node(self, flat_id: str) -> None:
        """Takes a port out and wires what read it to what it read."""
        holder, node = self._own_node(flat_id)
        level = _Level.of(holder)
        index = _data_input(node)
        head = level.links.get(str(_slots(node, "inputs")[index].get("link"))) if index is not None else None
        node_id = str(node["id"])
        if head is not None:
            origin = level.nodes.get(head.origin_id)
            for raw in holder["links"]:
                link = _read_link(raw)
                if link is not None and link.origin_id == node_id:
                    _set_origin(raw, origin, head)
                    self._note_new_link(holder, origin, head, _raw_link_id(raw))
        self._drop_links(holder, {str(slot.get("link")) for slot in _slots(node, "inputs")})
        holder["nodes"].remove(node)

    def _note_new_link(self, holder: Workflow, origin: dict[str, Any] | None, head: Link, link_id: Any) -> None:
        """Adds a link's id to the output it now comes from (or, from outside a subgraph, to the subgraph's input)."""
        if origin is None:
            slots = holder["inputs"] if head.origin_id == _SUBGRAPH_INPUT else []
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
        for slot in (*_slots(holder, "inputs"), *_slots(holder, "outputs")):
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
        kind = _node_type(host)
        holders: list[Any] = [self._root(), *self.definitions.values()]
        users = sum(_node_type(n) == kind for holder in holders for n in holder.get("nodes") or [])
        if users > 1:
            own = copy.deepcopy(self.definitions[kind])
            own["id"] = host["type"] = _derived_id({"copy of": kind, "for": path})
            self._copied[path] = self._renumber_inside(own)
            _renumber_proxies(host, self._copied[path])
            self.definitions[own["id"]] = own
        return self.definitions[_node_type(host)]

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
            link_id = _add_inner_link(holder, (node["id"], slot), (int(_SUBGRAPH_OUTPUT), index), kind)
            node["outputs"][slot]["links"] = [*(node["outputs"][slot].get("links") or []), link_id]
            name = _declare(holder, "outputs", kind, link_id)
            host.setdefault("outputs", []).append({"name": name, "type": kind, "links": []})
            holder, node, slot = outside, host, len(host["outputs"]) - 1
        return node, slot

    def _reachable_input(self, flat_id: str, kind: str) -> tuple[dict[str, Any], int]:
        """The root node and input slot that feed a port, through new subgraph inputs where it lies deeper."""
        *hosts, _ = flat_id.split(":")
        holder, node = self._own_node(flat_id)
        index = _data_input(node)
        if index is None:
            node.setdefault("inputs", []).append({"name": "input_data", "type": ANY_TYPE, "link": None})
            index = len(node["inputs"]) - 1
        if node["inputs"][index].get("link") is not None:
            # A link from a muted node: nothing arrives by it, and the new one takes its place.
            self._drop_links(holder, {str(node["inputs"][index]["link"])})
        for depth in range(len(hosts), 0, -1):
            outside, host = self._own_node(":".join(hosts[:depth]))
            slot = len(holder.setdefault("inputs", []))
            link_id = _add_inner_link(holder, (int(_SUBGRAPH_INPUT), slot), (node["id"], index), kind)
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
            kind = _node_type(pending.pop())
            if kind in self.definitions and kind not in used:
                used.add(kind)
                pending += self.definitions[kind].get("nodes") or []
        return [d for i, d in self.definitions.items() if i in used]


def _derived_id(content: Mapping[str, Any]) -> str:
    """A UUID made from content: stitching the same again gives the same ids, and equal content is recognised."""
    return str(uuid.uuid5(_ID_NAMESPACE, json.dumps(content, sort_keys=True, default=str)))


def _renumber_definition(definition: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    """Writes new node ids into a definition: its nodes, the ends of its links, its exposed widgets."""
    for node in _Level.of(definition).node_list:
        node["id"] = new_ids.get(str(node.get("id")), node.get("id"))
    for raw in definition.get("links") or []:
        ends: tuple[Any, Any] = ("origin_id", "target_id") if isinstance(raw, dict) else (1, 3)
        for end in ends:
            raw[end] = new_ids.get(str(raw[end]), raw[end])
    for widget in definition.get("widgets") or []:
        if isinstance(widget, dict) and str(widget.get("id")) in new_ids:
            widget["id"] = new_ids[str(widget["id"])]


def _renumber_proxies(host: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    """Writes new inner node ids into the list of inner widgets a subgraph node shows: [[node id, widget], ...]."""
    properties = host.get("properties")
    proxies = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    for proxy in proxies if isinstance(proxies, list) else ():
        if isinstance(proxy, list) and proxy and str(proxy[0]) in new_ids:
            proxy[0] = str(new_ids[str(proxy[0])])


def _node_of(holder: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    return next(n for n in holder["nodes"] if str(n.get("id")) == node_id)


def _add_inner_link(holder: dict[str, Any], origin: tuple[Any, int], target: tuple[Any, int], kind: str) -> int:
    """Adds a link inside a subgraph definition (always objects there); returns its id."""
    links = holder.setdefault("links", [])
    state = holder.setdefault("state", {})
    known = [int(link.id) for raw in links if (link := _read_link(raw)) and link.id.isdigit()]
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
    values = [raw.get("0"), raw.get("1")] if isinstance(raw, Mapping) else _list(raw)
    numbers = [float(v) if isinstance(v, (int, float)) else 0.0 for v in [*values, 0, 0][:2]]
    return numbers[0], numbers[1]


def _box(position: Any, size: Any) -> tuple[float, float, float, float]:
    """(x, y, width, height); the default size of a node where none was saved."""
    return (*_pair(position), *(_pair(size) if size else (210.0, 100.0)))


# ---------------------------------------------------------------------------------------------------------- prompts


class PromptPort(NamedTuple):
    """A DiscomfortPort of a prompt: what a run goes by."""

    # Flat id: the key in the prompt.
    node_id: str
    unique_id: str
    # "INPUT", "OUTPUT" or "PASSTHRU", as in PortInfo; a port linked to nothing is an INPUT.
    mode: str
    tags: list[str]


def prompt_ports(prompt: Mapping[str, Any]) -> list[PromptPort]:
    """The ports of a prompt, in the prompt's order.

    Raises:
        ValueError: a port's unique_id is missing, empty or comes by a link (names the node); or two OUTPUT ports have
            the same (names both).
    """
    linked = {str(value[0]) for _, _, value in _prompt_links(prompt)}
    ports = []
    for node_id, entry in prompt.items():
        if isinstance(entry, Mapping) and entry.get("class_type") == PORT_TYPE:
            inputs = entry.get("inputs") or {}
            mode = _mode(_is_link(inputs.get("input_data")), str(node_id) in linked)
            ports.append(
                PromptPort(str(node_id), _literal_unique_id(str(node_id), entry), mode, _tags(inputs.get("tags")))
            )
    problems = _duplicate_outputs(
        [(p.unique_id, p.mode, _prompt_node_words(p.node_id, prompt[p.node_id])) for p in ports]
    )
    if problems:
        raise ValueError(" ".join(problems))
    return ports


def _literal_unique_id(node_id: str, entry: Mapping[str, Any]) -> str:
    raw: Any = (entry.get("inputs") or {}).get("unique_id")
    if _is_link(raw):
        raise ValueError(
            f"The unique_id of {_prompt_node_words(node_id, entry)} comes from node {raw[0]}, but ports are matched "
            "before the workflow runs: type the name into the port."
        )
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(
            f"{_prompt_node_words(node_id, entry)} has no unique_id (it is {raw!r}): type a name into the port."
        )
    return raw.strip()


def _is_link(value: Any) -> bool:
    """The server's own rule: a node id and a slot number in a list (an array widget is {"__value__": [...]})."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return isinstance(value[0], (str, int)) and isinstance(value[1], int) and not isinstance(value[0], bool)


def _prompt_links(prompt: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(node id, input name, [origin id, slot]) for each link of a prompt."""
    for node_id, entry in prompt.items():
        inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if _is_link(value):
                yield str(node_id), str(name), value


def _prompt_problems(prompt: Mapping[str, Any]) -> list[str]:
    problems = [
        f"Node #{node_id} of the prompt has no class_type."
        for node_id, entry in prompt.items()
        if not (isinstance(entry, Mapping) and entry.get("class_type"))
    ]
    problems += [
        f"Input {name!r} of {_prompt_node_words(node_id, prompt[node_id])} reads node {value[0]}, which does not exist."
        for node_id, name, value in _prompt_links(prompt)
        if str(value[0]) not in prompt
    ]
    try:
        prompt_ports(prompt)
    except ValueError as error:
        problems.append(str(error))
    return problems


class PromptTemplate:
    """A prompt analysed once, to be filled for every iteration at the cost of one dict copy.

    `fill` shares the nodes that stay the same between the prompts it returns: treat them as read-only.
    """

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        """Raises ValueError as `prompt_ports`. The prompt is not modified, and must not be afterwards."""
        # All ports, in the prompt's order.
        self.ports: list[PromptPort] = prompt_ports(prompt)
        # unique_id -> the ports of that name (several INPUT ports may share one value).
        self.inputs: dict[str, list[PromptPort]] = {}
        # unique_id -> the port.
        self.outputs: dict[str, PromptPort] = {}
        self._base: Prompt = dict(prompt)
        for port in self.ports:
            if port.mode == INPUT:
                self.inputs.setdefault(port.unique_id, []).append(port)
                continue
            if port.mode == OUTPUT:
                self.outputs[port.unique_id] = port
            node = prompt[port.node_id]
            inputs = {**node["inputs"], "unique_id": port.unique_id, "mode": port.mode}
            self._base[port.node_id] = {**node, "inputs": inputs}

    def fill(self, contents: Mapping[str, str]) -> Prompt:
        """A prompt whose INPUT ports load their values.

        Args:
            contents: {unique_id: id of the value's content}, for at least every INPUT port. It becomes part of what the
                server caches by, so equal content must have an equal id, and other content another.

        Raises:
            KeyError: an INPUT port has no content; names port, node and what there is.
        """
        filled = dict(self._base)
        for unique_id, ports in self.inputs.items():
            if unique_id not in contents:
                words = " and ".join(_prompt_node_words(p.node_id, self._base[p.node_id]) for p in ports)
                known = ", ".join(sorted(contents)) or "none"
                raise KeyError(f"INPUT port {unique_id!r} ({words}) has no value; there are values for: {known}.")
            for port in ports:
                filled[port.node_id] = _loader(self._base[port.node_id], unique_id, contents[unique_id])
        return filled


def _loader(port_node: Mapping[str, Any], unique_id: str, content: str) -> dict[str, Any]:
    node: dict[str, Any] = {"class_type": LOADER_TYPE, "inputs": {"unique_id": unique_id, "content": content}}
    if "_meta" in port_node:
        node["_meta"] = port_node["_meta"]
    return node


def inject_loaders(prompt: Mapping[str, Any], contents: Mapping[str, str]) -> Prompt:
    """`PromptTemplate(prompt).fill(contents)`: for a prompt that is run once."""
    return PromptTemplate(prompt).fill(contents)
