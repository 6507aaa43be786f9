"""Group nodes, the predecessor of subgraphs, read as the subgraphs they stand for. Pure.

A group node's definition is what the editor copied when the group was made: ``{"nodes": [...], "links": [[origin,
origin slot, target, target slot, ..., type], ...], "external": [[node, slot, type], ...], "config": {node: {"input":
{name: {"name", "visible"}}, "output": {slot: ...}}}}``, where a node's number is its place in the list. What the
group node shows of it outside is not saved: the frontend derives it from the types of the inner nodes. Here it is
derived from the slots and values they were saved with. The rules are those of frontends 1.27.10 and 1.58.1, and
tests/test_workflow_frontend.py holds them against a frontend.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from .prompt_graph import PORT_TYPE
from .workflow_json import (
    ANY_TYPE,
    GROUP_NODE_PREFIXES,
    PORT_WIDGETS,
    REROUTE_TYPES,
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    VIRTUAL_TYPES,
    Link,
    Workflow,
    as_dict,
    as_list,
    is_group_node,
    node_type,
    read_link,
    slots_of,
    subgraph_definitions,
    type_name,
)

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
