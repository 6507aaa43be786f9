"""Workflow JSON, read: files, types, both shapes of links, and one level of nodes. Pure but for reading files.

`read_workflow_file` is the only function that touches the disk; every other one takes plain data, returns plain data,
and leaves what it was given as it was. Which nodes of it run, and what feeds what, is told by :mod:`.flat_graph`.

Words
-----
*workflow*  what the editor saves: ``{"nodes": [...], "links": [...], ...}``. Read here in both shapes the editor has
            written: ``version`` 0.4 (a link is ``[id, origin, origin_slot, target, target_slot, type]``) and 1 (a
            link is an object with ``id, origin_id, origin_slot, target_id, target_slot, type``), with subgraphs under
            ``definitions.subgraphs``, whose own input and output nodes have the ids -10 and -20.
*prompt*    what the server executes ("API format"): ``{node id: {"class_type": ..., "inputs": {...}}}``.
*port*      a ``DiscomfortPort`` node: where a value enters or leaves a workflow.
*flat id*   a node's id in the prompt: ``"35"`` at the root, ``"57:35"`` for node 35 inside the subgraph node 57.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    if isinstance(raw, str) and raw.startswith("COMFY_") and raw.endswith("_V3"):
        # V3's names for sockets that take the type of what is linked to them ("COMFY_MATCHTYPE_V3", ComfyUI 0.3.64).
        return ANY_TYPE
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


def subgraph_definitions(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workflow's subgraph definitions; [] where it has none."""
    return dicts_in(as_dict(workflow.get("definitions")).get("subgraphs"))


def node_words(node: Mapping[str, Any], flat_id: str, level: Level) -> str:
    kind, title = node_type(node) or "node", node.get("title")
    kind = "subgraph" if SUBGRAPH_ID.fullmatch(kind) else kind
    inside = f" in subgraph {level.definition.get('name')!r}" if level.definition else ""
    return f"{kind} #{flat_id}" + (f" {title!r}" if title and title != kind else "") + inside
