"""The ports found in a workflow's JSON, held against those of the prompt that a real frontend makes of it.

Small workflows as frontends of all ages write them, and as hands and scripts do. The frontend is that of the embedded
server; where older ones do otherwise, `workflow_json` says so.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from discomfort.comfy_serverless import ComfyConnector, UnknownNodeError

from discomfort import prompt_graph as pg
from discomfort import workflow_graph as wg
from discomfort import workflow_stitching as ws

Json = dict[str, Any]
LINK_KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
INPUT, OUTPUT = -10, -20
MUTED, BYPASSED = 2, 4

# ------------------------------------------------------------------------------------------------- building workflows


def slots(given: Sequence[str], key: str, empty: Any) -> list[Json]:
    """``"name:TYPE"`` each; ``"name:TYPE:widget"`` is a widget that was made an input."""
    found = []
    for text in given:
        name, kind, *is_widget = text.split(":")
        found.append(
            {"name": name, "type": kind, key: copy.copy(empty), **({"widget": {"name": name}} if is_widget else {})}
        )
    return found


def node(kind: str, inputs: Sequence[str] = (), outputs: Sequence[str] = (), values: Any = (), **more: Any) -> Json:
    return {
        "type": kind, "pos": [0, 0], "size": [200, 80], "flags": {}, "order": 0, "mode": 0,
        "inputs": slots(inputs, "link", None), "outputs": slots(outputs, "links", []), "properties": {},
        "widgets_values": list(values) if isinstance(values, tuple) else values, **more,
    }  # fmt: skip


def port(unique_id: Any, widgets: Sequence[str] = (), values: Any = None, **more: Any) -> Json:
    inputs = ["input_data:*", *(f"{name}:STRING:widget" for name in widgets)]
    return node("DiscomfortPort", inputs, ["output:*"], [unique_id, ""] if values is None else values, **more)


def invert(**more: Any) -> Json:
    return node("ImageInvert", ["image:IMAGE"], ["IMAGE:IMAGE"], **more)


def empty(**more: Any) -> Json:
    return node("EmptyImage", [], ["IMAGE:IMAGE"], [8, 8, 1, 0], **more)


def to_mask(**more: Any) -> Json:
    return node("ImageToMask", ["image:IMAGE"], ["MASK:MASK"], ["red"], **more)


def reroute(**more: Any) -> Json:
    return node("Reroute", [":*"], [":*"], [], **more)


def primitive(*values: Any, **more: Any) -> Json:
    made = node("PrimitiveNode", [], ["STRING:STRING"], values, **more)
    made["outputs"][0]["widget"] = {"name": "unique_id"}
    return made


class Flow:
    """Nodes of one level, and links between them."""

    def __init__(self, *nodes: Json, first_id: int = 1) -> None:
        self.nodes = [{"id": number, **copy.deepcopy(n)} for number, n in enumerate(nodes, start=first_id)]
        self.links: list[list[Any]] = []

    def link(self, origin: int, target: int, slot: int = 0, origin_slot: int = 0, kind: str = "*") -> Flow:
        by_id = {n["id"]: n for n in self.nodes}
        number = len(self.links) + 1
        if origin != INPUT:
            by_id[origin]["outputs"][origin_slot]["links"].append(number)
            kind = by_id[origin]["outputs"][origin_slot]["type"] if kind == "*" else kind
        if target != OUTPUT:
            by_id[target]["inputs"][slot]["link"] = number
        self.links.append([number, origin, origin_slot, target, slot, kind])
        return self

    def chain(self, *ids: int) -> Flow:
        for origin, target in itertools.pairwise(ids):
            self.link(origin, target)
        return self

    def done(self, *definitions: Json, **more: Any) -> Json:
        return {
            "last_node_id": len(self.nodes), "last_link_id": len(self.links), "nodes": self.nodes, "links": self.links,
            "groups": [], "config": {}, "extra": {}, "version": 0.4,
            **({"definitions": {"subgraphs": list(definitions)}} if definitions else {}), **more,
        }  # fmt: skip

    def definition(self, number: int, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Json:
        """A subgraph: ``subgraph_id(number)``."""
        links = [dict(zip(LINK_KEYS, link, strict=True)) for link in self.links]

        def border(given: Sequence[str], end: str, border_id: int) -> list[Json]:
            return [
                {
                    "id": f"bbbbbbbb-0000-4000-8000-{number:04d}{-border_id:04d}{slot:04d}", "name": text.split(":")[0],
                    "type": text.split(":")[1], "pos": [0, 0],
                    "linkIds": [i["id"] for i in links if (i[f"{end}_id"], i[f"{end}_slot"]) == (border_id, slot)],
                }
                for slot, text in enumerate(given)
            ]  # fmt: skip

        return {
            "id": subgraph_id(number), "version": 1, "revision": 0, "config": {}, "name": f"Subgraph {number}",
            "state": {"lastGroupId": 0, "lastNodeId": 90, "lastLinkId": 90, "lastRerouteId": 0},
            "inputNode": {"id": INPUT, "bounding": [0, 0, 120, 60]}, "widgets": [], "groups": [], "extra": {},
            "outputNode": {"id": OUTPUT, "bounding": [900, 0, 120, 60]}, "nodes": self.nodes, "links": links,
            "inputs": border(inputs, "origin", INPUT), "outputs": border(outputs, "target", OUTPUT),
        }  # fmt: skip


def subgraph_id(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def host(number: int, inputs: Sequence[str] = ("image:IMAGE",), outputs: Sequence[str] = ("IMAGE:IMAGE",),
         values: Any = (), **more: Any) -> Json:  # fmt: skip
    """A node of subgraph `number`."""
    return node(subgraph_id(number), inputs, outputs, values, **more)


def as_version_1(workflow: Json) -> Json:
    links = [dict(zip(LINK_KEYS, link, strict=True)) for link in workflow["links"]]
    return {**workflow, "links": links, "version": 1}


def basic(first: Json | None = None, **more: Any) -> Flow:
    """in -> invert -> out."""
    return Flow(first or port("in"), invert(), port("out"), **more).chain(1, 2, 3)


def without(workflow: Json, *keys: str, types: str = "") -> Json:
    """Without these keys of the nodes (of one type)."""
    for entry in workflow["nodes"]:
        for key in keys if types in ("", entry["type"]) else ():
            del entry[key]
    return workflow


def changed(workflow: Json, node_index: int, **keys: Any) -> Json:
    workflow["nodes"][node_index].update(keys)
    return workflow


# ------------------------------------------------------------------------------------------------------- plain levels


def with_other_ids(rename: Callable[[int], Any]) -> Json:
    workflow = basic().done()
    for entry in workflow["nodes"]:
        entry["id"] = rename(entry["id"])
    for link in workflow["links"]:
        link[1], link[3] = rename(link[1]), rename(link[3])
    return workflow


def named_by(
    *others: Json, links: Sequence[Sequence[Any]] = ((4, 1, 1),), widgets: Sequence[str] = ("unique_id",)
) -> Json:
    """The basic workflow; its first port's unique_id is an input, fed by other nodes (4 and on)."""
    flow = Flow(port("in", widgets), invert(), port("out"), *others).chain(1, 2, 3)
    for origin, target, slot in links:
        flow.link(origin, target, slot, kind="STRING")
    return flow.done()


def native_reroutes(version: float) -> Json:
    reroutes = [{"id": 1, "pos": [1, 2], "linkIds": [1]}]
    if version == 1:
        workflow = {**as_version_1(basic().done()), "reroutes": reroutes}
        workflow["links"][0]["parentId"] = 1
        return workflow
    return basic().done(extra={"reroutes": reroutes, "linkExtensions": [{"id": 1, "parentId": 1}]})


FILES: dict[str, Json] = {
    "version 0.4": basic().done(),
    "version 1": as_version_1(basic().done()),
    "no last ids": {k: v for k, v in basic().done().items() if not k.startswith("last_")},
    "pos and size as objects": {
        **basic().done(),
        "nodes": [{**n, "pos": {"0": 5, "1": 6}, "size": {"0": 99, "1": 50}} for n in basic().done()["nodes"]],
    },
    "no inputs": without(basic().done(), "inputs"),
    "no outputs": without(basic().done(), "outputs"),
    "neither": without(basic().done(), "inputs", "outputs"),
    "no inputs of ports": without(basic().done(), "inputs", types="DiscomfortPort"),
    "ids as numbers in strings": with_other_ids(str),
    "ids as words": with_other_ids(lambda i: f"n{i}"),
    "notes": Flow(port("in"), node("Note", values=["DiscomfortPort"]), node("MarkdownNote", values=["x"])).done(),
    "input with a label": changed(basic().done(), 0, title="Mine"),
    "origin does not list the link": changed(basic().done(), 0, outputs=slots(["output:*"], "links", [])),
    "origin's links are null": changed(basic().done(), 0, outputs=slots(["output:*"], "links", None)),
    "native reroutes, version 0.4": native_reroutes(0.4),
    "native reroutes, version 1": native_reroutes(1),
}

VALUES: dict[str, Json] = {
    name: basic(port(None, values=values)).done()
    for name, values in {
        "object": {"unique_id": "in", "tags": "t"}, "null": None, "empty": [], "short": ["in"], "number": [5, ""],
        "truth": [True, ""], "null in it": [None, ""], "list in it": [["a"], ""], "blanks": ["  in ", ""],
        "tags": ["in", "a, b"], "more than there are": ["in", "", 3],
    }.items()
}  # fmt: skip

MODES: dict[str, Json] = {
    **{
        f"{where} has mode {mode}": changed(basic().done(), index, mode=mode)
        for mode in (1, MUTED, 3, BYPASSED)
        for index, where in enumerate(("INPUT port", "node", "OUTPUT port"))
    },
    **{
        f"{name} has mode {mode}": flow(mode).done()
        for mode in (MUTED, BYPASSED)
        for name, flow in {
            "port between node and port": lambda m: Flow(empty(), port("x", mode=m), port("out")).chain(1, 2, 3),
            "port between ports": lambda m: Flow(port("in"), port("x", mode=m), port("out")).chain(1, 2, 3),
            "port at a port": lambda m: Flow(port("in"), port("x", mode=m)).chain(1, 2),
            "reroute": lambda m: Flow(empty(), reroute(mode=m), port("out")).chain(1, 2, 3),
            "node before a reroute": lambda m: Flow(empty(mode=m), reroute(), port("out")).chain(1, 2, 3),
            "node between port and reroute": (
                lambda m: Flow(port("in"), invert(mode=m), reroute(), port("out")).chain(1, 2, 3, 4)
            ),
            "other type before a port": lambda m: Flow(port("in"), to_mask(mode=m), port("out")).chain(1, 2, 3),
            "other type before a node": (
                lambda m: Flow(port("in"), to_mask(mode=m), node("MaskToImage", ["mask:MASK"], ["IMAGE:IMAGE"]))
                .chain(1, 2, 3)
            ),
        }.items()
    },
}  # fmt: skip

REROUTES: dict[str, Json] = {
    "chain between ports": Flow(port("in"), reroute(), reroute(), port("out")).chain(1, 2, 3, 4).done(),
    "fed by nothing": Flow(reroute(), port("x"), invert()).chain(1, 2, 3).done(),
    "feeding nothing": Flow(port("in"), reroute()).chain(1, 2).done(),
}

NAMES: dict[str, Json] = {
    "an input without a link": named_by(links=()),
    "both inputs without a link": named_by(links=(), widgets=("unique_id", "tags")),
    "a primitive": named_by(primitive("other")),
    "a primitive, version 1": as_version_1(named_by(primitive("other"))),
    "a muted primitive": named_by(primitive("other", mode=MUTED)),
    "a bypassed primitive": named_by(primitive("other", mode=BYPASSED)),
    "a primitive without value": named_by(primitive()),
    "a primitive with null": named_by(primitive(None)),
    "a primitive with a number": named_by(primitive(7)),
    "a primitive behind a reroute": named_by(primitive("other"), reroute(), links=((4, 5, 0), (5, 1, 1))),
    "a primitive for two ports": named_by(
        primitive("both"), port("x", ["unique_id"]), invert(), links=((4, 1, 1), (4, 5, 1), (5, 6, 0))
    ),
    "a node that runs": named_by(node("PrimitiveString", [], ["STRING:STRING"], ["made"])),
    "a muted node": named_by(node("PrimitiveString", [], ["STRING:STRING"], ["made"], mode=MUTED)),
}

# ---------------------------------------------------------------------------------------------------------- subgraphs

IMAGE = (["image:IMAGE"], ["IMAGE:IMAGE"])


def inside(**modes: int) -> Flow:
    """image -> port -> node -> IMAGE; beside it, a port in and a port out of their own."""
    first = (port("mid", mode=modes.get("port", 0)), invert(mode=modes.get("node", 0)))
    flow = Flow(*first, port("alone in"), invert(), port("alone out"), first_id=11)
    return flow.link(INPUT, 11).link(11, 12).link(12, OUTPUT).chain(13, 14, 15)


def around(*ids: int, flow: Flow | None = None, **more: Any) -> Json:
    """root in -> subgraph -> root out, of which `ids` (1, 2, 3) are linked."""
    root = Flow(port("root in"), host(1, **more), port("root out")).chain(*ids)
    return root.done((flow or inside()).definition(1, *IMAGE))


def three_levels(modes: Sequence[int] = (0, 0, 0)) -> Json:
    """The deepest definition is used on the second level and on the third."""
    deep = Flow(invert(), port("deep in"), invert(), first_id=31).link(INPUT, 31).link(31, OUTPUT).chain(32, 33)
    mid = Flow(host(3, mode=modes[2]), port("pass"), first_id=21).link(INPUT, 21).chain(21, 22).link(22, OUTPUT)
    top = Flow(host(2, mode=modes[1]), host(3), first_id=11).link(INPUT, 11).chain(11, 12).link(12, OUTPUT)
    root = Flow(port("in"), host(1, mode=modes[0]), port("out")).chain(1, 2, 3)
    return root.done(top.definition(1, *IMAGE), mid.definition(2, *IMAGE), deep.definition(3, *IMAGE))


def at_border(*nodes: Json, links: Sequence[int], inner: Flow | None = None) -> Json:
    """A port that is all there is in a subgraph, between `nodes`."""
    flow = inner or Flow(port("border"), first_id=11).link(INPUT, 11).link(11, OUTPUT)
    return Flow(*nodes).chain(*links).done(flow.definition(1, *IMAGE))


def promoted(values: Any, inputs: Sequence[str] = ("unique_id:STRING:widget",), proxies: Any = None,
             declared: str = "unique_id") -> Json:  # fmt: skip
    """A subgraph whose input `declared` drives the unique_id of a port, and that has a port of its own beside it."""
    flow = Flow(port("inside", ["unique_id"]), invert(), port("beside"), invert(), first_id=11)
    flow.link(INPUT, 11, 1, kind="STRING").chain(11, 12).chain(13, 14)
    properties = {} if proxies is None else {"proxyWidgets": proxies}
    root = Flow(host(1, inputs, (), values, properties=properties))
    return root.done(flow.definition(1, [f"{declared}:STRING"]))


def promoted_twice(outer: Any, middle: Any) -> Json:
    deep = Flow(port("inside", ["unique_id"]), invert(), first_id=31).link(INPUT, 31, 1, kind="STRING").chain(31, 32)
    widget = ["unique_id:STRING:widget"]
    mid = Flow(host(1, widget, (), middle), first_id=21).link(INPUT, 21, kind="STRING")
    declared = ["unique_id:STRING"]
    return Flow(host(2, widget, (), outer)).done(mid.definition(2, declared), deep.definition(1, declared))


def primitive_outside() -> Json:
    workflow = promoted(["outer"])
    made = Flow(*workflow["nodes"], primitive("other", id=2)).link(2, 1, kind="STRING")
    return made.done(*workflow["definitions"]["subgraphs"])


def two_ends(inputs: Sequence[str], outputs: Sequence[str], *links: Sequence[int]) -> Json:
    """A subgraph with the inputs A and B, each through a port to the output of its name."""
    flow = Flow(port("a"), port("b"), first_id=11).link(INPUT, 11).link(INPUT, 12, 0, 1).link(11, OUTPUT)
    flow.link(12, OUTPUT, 1)
    root = Flow(empty(), host(1, inputs, outputs), invert())
    for link in links:
        root.link(*link)
    return root.done(flow.definition(1, ["A:IMAGE", "B:IMAGE"], ["A:IMAGE", "B:IMAGE"]))


SUBGRAPHS: dict[str, Json] = {
    **{
        f"mode {mode}, {name}": around(*ids, mode=mode)
        for mode in (0, MUTED, BYPASSED)
        for name, ids in {"linked": (1, 2, 3), "fed by nothing": (2, 3), "read by nothing": (1, 2)}.items()
    },
    **{
        f"{name} inside has mode {mode}": around(1, 2, 3, flow=inside(**{name: mode}))
        for mode in (MUTED, BYPASSED)
        for name in ("port", "node")
    },
    "version 1 outside": as_version_1(around(1, 2, 3)),
    "without inputs": without(around(1, 2, 3), "inputs", types=subgraph_id(1)),
    "without outputs": without(around(1, 2, 3), "outputs", types=subgraph_id(1)),
    "input with another name": around(1, 2, 3, inputs=["other:IMAGE"]),
    "output with another name": around(1, 2, 3, outputs=["other:IMAGE"]),
    "used twice": Flow(port("in"), host(1), host(1), port("out")).chain(1, 2, 3, 4).done(
        Flow(invert(), port("own"), invert(), first_id=11).link(INPUT, 11).link(11, OUTPUT).chain(12, 13)
        .definition(1, *IMAGE)
    ),
    "definition that nothing uses": {
        **(used := around(1, 2, 3)),
        "definitions": {"subgraphs": [*used["definitions"]["subgraphs"], inside().definition(7, *IMAGE)]},
    },
    "three levels": three_levels(),
    **{
        f"three levels, mode {mode} on level {level}": three_levels([mode if i == level else 0 for i in range(3)])
        for mode in (MUTED, BYPASSED)
        for level in range(3)
    },
    "port at the border": at_border(empty(), host(1), invert(), links=(1, 2, 3)),
    "port at the border fed by nothing": at_border(host(1), invert(), links=(1, 2)),
    "port at the border read by nothing": at_border(empty(), host(1), links=(1, 2)),
    "reroutes at the border outside": at_border(
        empty(), reroute(), host(1), reroute(), invert(), links=(1, 2, 3, 4, 5)
    ),
    "reroutes at the border inside": at_border(
        empty(), host(1), invert(), links=(1, 2, 3),
        inner=Flow(reroute(), port("border"), reroute(), first_id=11)
        .link(INPUT, 11).chain(11, 12, 13).link(13, OUTPUT),
    ),
    "sockets in another order": two_ends(["B:IMAGE", "A:IMAGE"], ["B:IMAGE", "A:IMAGE"], (1, 2, 0), (2, 3, 0, 1)),
    "second sockets": two_ends(["A:IMAGE", "B:IMAGE"], ["A:IMAGE", "B:IMAGE"], (1, 2, 1), (2, 3, 0, 1)),
    "primitive inside": Flow(host(1, (), ())).done(
        Flow(port("inside", ["unique_id"]), invert(), primitive("other"), first_id=11)
        .chain(11, 12).link(13, 11, 1, kind="STRING").definition(1)
    ),
    "primitive outside": primitive_outside(),
}  # fmt: skip


# Ids of inner nodes in proxies: 11 is the port whose unique_id is an input of the subgraph, 13 the one beside it.
SHOWN_WIDGETS: dict[str, Json] = {
    "named outside": promoted(["outer"]),
    "named outside, without inputs": promoted(["outer"], ()),
    "empty outside": promoted([""]),
    "no values": promoted([]),
    "null": promoted([None]),
    "values null": promoted(None),
    "values as object": promoted({"unique_id": "outer"}),
    "input with another name": promoted(["outer"], ["mine:STRING:widget"], declared="mine"),
    "listed": promoted(["outer"], proxies=[["-1", "unique_id"]]),
    "merely shown": promoted(["outer"], proxies=[["13", "unique_id"]]),
    "merely shown, no values": promoted([], proxies=[["13", "unique_id"]]),
    "listed after one that is merely shown": promoted(["a", "b"], proxies=[["13", "unique_id"], ["-1", "unique_id"]]),
    "listed before one that is merely shown": promoted(["a", "b"], proxies=[["-1", "unique_id"], ["13", "unique_id"]]),
    "listed by the inner node": promoted(["a", "b"], proxies=[["11", "unique_id"], ["13", "unique_id"]]),
    "twice": promoted_twice(["outer"], ["middle"]),
    "twice, outside null": promoted_twice([None], ["middle"]),
    "twice, nothing outside": promoted_twice([], ["middle"]),
    "twice, nothing at all": promoted_twice([], []),
}

# --------------------------------------------------------------------------------------------------------- group nodes


def group(
    *nodes: Json, links: Sequence[Sequence[int]] = (), external: Sequence[Sequence[Any]] = (), **more: Any
) -> Json:
    """A group node's definition; `links`: (origin, origin slot, target, target slot), nodes counted from 0."""
    entries = [{**copy.deepcopy(n), "index": index} for index, n in enumerate(nodes)]
    written = []
    for link in links:
        kind = entries[link[0]]["outputs"][link[1]]["type"]
        written.append([*link, link[0] + 50, kind])
    return {"nodes": entries, "links": written, "external": [list(e) for e in external], **more}


def group_node(values: Any = (), inputs: Sequence[str] = (), outputs: Sequence[str] = (), name: str = "G",
               prefix: str = "workflow>", **more: Any) -> Json:  # fmt: skip
    return node(f"{prefix}{name}", inputs, outputs, values, **more)


def with_groups(flow: Flow, **groups: Json) -> Json:
    return flow.done(extra={"groupNodes": copy.deepcopy(groups)})


WHOLE = group(port("saved in"), invert(), port("saved out"), links=[(0, 0, 1, 0), (1, 0, 2, 0)])
MIDDLE = group(invert(), port("saved"), invert(), links=[(0, 0, 1, 0), (1, 0, 2, 0)])
PORT_THEN_NODE = group(port("saved"), invert(), links=[(0, 0, 1, 0)])
NODE_THEN_PORT = group(invert(), port("saved"), links=[(0, 0, 1, 0)])
MODERN = group(
    port("saved in", ["unique_id", "tags"]), invert(), port("saved out", ["unique_id", "tags"]),
    links=[(0, 0, 1, 0), (1, 0, 2, 0)],
)  # fmt: skip
LOAD_IMAGE = node("LoadImage", [], ["IMAGE:IMAGE", "MASK:MASK"], ["example.png", "image"])
SCALE = node("ImageScaleBy", ["image:IMAGE"], ["IMAGE:IMAGE"], ["nearest-exact", 2.0])
# Both of its widgets are inputs; and one of them, so that it cannot be told which value is whose.
MODERN_SCALE = node(
    "ImageScaleBy", ["image:IMAGE", "upscale_method:COMBO:widget", "scale_by:FLOAT:widget"], ["IMAGE:IMAGE"],
    ["nearest-exact", 2.0],
)  # fmt: skip
MIXED_SCALE = node("ImageScaleBy", ["image:IMAGE", "scale_by:FLOAT:widget"], ["IMAGE:IMAGE"], ["nearest-exact", 2.0])


def whole(values: Any = ("in", "", "out", "x"), definition: Json = WHOLE, **more: Any) -> Json:
    """All ports are inside."""
    return with_groups(Flow(group_node(values, ["input_data:*"], ["output:*"], **more)), G=definition)


def between(definition: Json = MIDDLE, values: Any = ("mid", ""), inputs: Sequence[str] = ("image:IMAGE",),
            outputs: Sequence[str] = ("IMAGE:IMAGE",), **more: Any) -> Json:  # fmt: skip
    """root in -> group node -> root out."""
    flow = Flow(port("root in"), group_node(values, inputs, outputs, **more), port("root out"))
    return with_groups(flow.chain(1, 2, 3), G=definition)


def with_settings(definition: Json, **settings: Json) -> Json:
    return {**copy.deepcopy(definition), "config": {key.lstrip("_"): value for key, value in settings.items()}}


def name_clashes(titles: Sequence[str]) -> Json:
    """Inputs and outputs of one name: the group node puts the titles of the inner nodes before them."""
    inner = [invert(), invert(), port("a"), port("b"), port("c")]
    inner = [{**n, **({"title": t} if t else {})} for n, t in zip(inner, titles, strict=True)]
    definition = group(*inner, links=[(0, 0, 2, 0), (1, 0, 3, 0)])
    second = f"{titles[1] or 'ImageInvert'} image"
    outputs = ["output:*", f"{titles[3] or 'DiscomfortPort'} output:*", "x output:*"]
    values = ["a!", "", "b!", "", "c!", ""]
    made = group_node(values, ["image:IMAGE", f"{second}:IMAGE", "input_data:*"], outputs)
    flow = Flow(empty(), made, port("root out")).link(1, 2, 1).link(2, 3, 0, 1)
    return with_groups(flow, G=definition)


def widgets_outside(linked: bool, values: Sequence[Any] = ("tag", "name")) -> Json:
    """The unique_id had been made an input before the group was made."""
    definition = group(port("saved", ["unique_id"]), invert(), links=[(0, 0, 1, 0)])
    inputs = ["input_data:*", "unique_id:STRING:widget"]
    flow = Flow(group_node(list(values), inputs, ["IMAGE:IMAGE"]), primitive("other"))
    if linked:
        flow.link(2, 1, 1, kind="STRING")
    return with_groups(flow, G=definition)


def primitive_in_group(title: str | None = None, is_linked: bool = True) -> Json:
    made = primitive("saved primitive", **({"title": title} if title else {}))
    links = [(1, 0, 2, 0), *([(0, 0, 1, 1)] if is_linked else [])]
    definition = group(made, port("saved port", ["unique_id"] if is_linked else []), invert(), links=links)
    return whole(["from the group node", "tag"], definition)


GROUPS: dict[str, Json] = {
    "all inside": whole(),
    "old prefix": whole(prefix="workflow/"),
    "too few values": whole(["in"]),
    "no values": whole([]),
    "values null": whole(None),
    "values as object": whole({"unique_id": "in", "tags": ""}),
    "every widget is an input": whole(definition=MODERN),
    "every widget is an input, too few values": whole(["in"], MODERN),
    "between": between(),
    "between, version 1": as_version_1(between()),
    "port at the entry": between(PORT_THEN_NODE, inputs=["input_data:*"]),
    "port at the entry, fed by nothing": with_groups(
        Flow(group_node(["x", ""], ["input_data:*"], ["IMAGE:IMAGE"]), invert()).chain(1, 2), G=PORT_THEN_NODE
    ),
    "port at the exit": between(NODE_THEN_PORT, outputs=["output:*"]),
    "port at the exit, read by nothing": with_groups(
        Flow(empty(), group_node(["x", ""], ["image:IMAGE"], ["output:*"])).chain(1, 2), G=NODE_THEN_PORT
    ),
    "read inside and outside": with_groups(
        Flow(group_node(["a", "", "b", ""], ["input_data:*"], ["IMAGE:IMAGE", "output:*"]), port("c")).chain(1, 2),
        G={**WHOLE, "external": [[1, 0, "IMAGE"]]},
    ),
    "two of one": with_groups(
        Flow(
            group_node(["a", "", "b", ""], ["input_data:*"], ["output:*"]),
            group_node(["c", "", "d", ""], ["input_data:*"], ["output:*"]),
        ).chain(1, 2),
        G=WHOLE,
    ),
    "one into another": with_groups(
        Flow(
            group_node(["a", ""], ["input_data:*"], ["IMAGE:IMAGE"], "A"),
            group_node(["b", ""], ["image:IMAGE"], ["output:*"], "B"),
        ).chain(1, 2),
        A=PORT_THEN_NODE,
        B=NODE_THEN_PORT,
    ),
    "renamed sockets": between(
        with_settings(MIDDLE, _0={"input": {"image": {"name": "picture"}}}, _2={"output": {"0": {"name": "result"}}}),
        inputs=["picture:IMAGE"], outputs=["result:IMAGE"],
    ),
    "label": between(
        group(node("ImageInvert", ["image:IMAGE"], ["IMAGE:IMAGE"]) | {"inputs": [
            {"name": "image", "type": "IMAGE", "link": None, "label": "picture"}
        ]}, port("saved"), invert(), links=[(0, 0, 1, 0), (1, 0, 2, 0)]),
        inputs=["picture:IMAGE"],
    ),
    "unknown name of an input": between(inputs=["something:IMAGE"]),
    "hidden widget": between(with_settings(MIDDLE, _1={"input": {"unique_id": {"visible": False}}})),
    "hidden input, shown output": with_groups(
        Flow(group_node(["mid", ""], [], ["output:*", "IMAGE:IMAGE"]), port("root out")).chain(1, 2),
        G=with_settings(
            MIDDLE, _0={"input": {"image": {"visible": False}}}, _1={"output": {"0": {"visible": True}}}
        ),
    ),
    "names clash": name_clashes(["", "", "", "", ""]),
    "names clash, with titles": name_clashes(["One", "Two", "Three", "Four", "Five"]),
    "name of an unknown widget clashes": with_groups(
        Flow(
            empty(),
            group_node(
                ["example.png", "image", "a", ""], ["ImageInvert image:IMAGE"],
                ["IMAGE:IMAGE", "MASK:MASK", "output:*"],
            ),
        ).chain(1, 2),
        G=group(LOAD_IMAGE, invert(), port("saved"), links=[(1, 0, 2, 0)]),
    ),
    "values of other nodes before": with_groups(
        Flow(group_node([16, 16, 1, 5, "area", 0.5, "a", ""], [], ["output:*"])),
        G=group(empty(), SCALE, port("saved"), links=[(0, 0, 1, 0), (1, 0, 2, 0)]),
    ),
    "values of a modern node before": with_groups(
        Flow(group_node(["a", "", "area", 0.5], ["image:IMAGE"], ["output:*"])),
        G=group(MODERN_SCALE, port("saved"), links=[(0, 0, 1, 0)]),
    ),
    "values of a mixed node before": with_groups(
        Flow(group_node(["area", "a", "", 0.5], ["image:IMAGE"], ["output:*"])),
        G=group(MIXED_SCALE, port("saved"), links=[(0, 0, 1, 0)]),
    ),
    "a reroute at the entry": between(
        group(reroute(), port("saved"), invert(), links=[(0, 0, 1, 0), (1, 0, 2, 0)]), inputs=["*:*"]
    ),
    "a reroute at the exit": with_groups(
        Flow(group_node(["mid", ""], ["input_data:*"], ["IMAGE:IMAGE"]), port("root out")).chain(1, 2),
        G=group(port("saved"), invert(), reroute(), links=[(0, 0, 1, 0), (1, 0, 2, 0)]),
    ),
    "a reroute in between": between(
        group(invert(), reroute(), port("saved"), invert(), links=[(0, 0, 1, 0), (1, 0, 2, 0), (2, 0, 3, 0)])
    ),
    "a reroute as a pipe": between(
        group(reroute(), port("saved"), invert(), links=[(1, 0, 2, 0)], external=[(0, 0, "IMAGE")]),
        inputs=["IMAGE:IMAGE"],
    ),
    "reroutes outside": with_groups(
        Flow(empty(), reroute(), group_node(["x", ""], ["image:IMAGE"], ["output:*"]), reroute(), invert())
        .chain(1, 2, 3, 4, 5),
        G=NODE_THEN_PORT,
    ),
    "a note": whole(
        ["a", ""], group(node("Note", values=["hello"]), port("saved"), invert(), links=[(1, 0, 2, 0)])
    ),
    "a primitive that drives nothing": primitive_in_group(is_linked=False),
    "a primitive": primitive_in_group(),
    "a primitive with a title": primitive_in_group("Name"),
    "the unique_id is an input": widgets_outside(False),
    "the unique_id is an input, too few values": widgets_outside(False, ["tag"]),
    "the unique_id is an input with a primitive": widgets_outside(True),
    **{
        f"{where} has mode {mode}": between(copy.deepcopy(MIDDLE) | {
            "nodes": [{**n, "mode": mode if i == index else 0} for i, n in enumerate(MIDDLE["nodes"])]
        })
        for mode in (MUTED, BYPASSED)
        for index, where in enumerate(("node inside", "port inside"))
    },
    **{f"has mode {mode}": between(mode=mode) for mode in (MUTED, BYPASSED)},
    "a link that came from outside": between({**MIDDLE, "links": [*MIDDLE["links"], [None, 0, 0, 0, 7, "IMAGE"]]}),
}  # fmt: skip

CASES: dict[str, Json] = {
    f"{family}: {name}": workflow
    for family, workflows in {
        "file": FILES, "values": VALUES, "modes": MODES, "reroutes": REROUTES, "unique_id from": NAMES,
        "subgraph": SUBGRAPHS, "widgets of a subgraph": SHOWN_WIDGETS, "group node": GROUPS,
    }.items()
    for name, workflow in workflows.items()
}  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- tests


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connector(embedded_config: Path) -> AsyncIterator[ComfyConnector]:
    """One server and one browser for all."""
    connector = await ComfyConnector.create(embedded_config)
    yield connector
    await connector.kill_api()


def ports_of_prompt(prompt: Mapping[str, Json]) -> Counter[tuple[Any, ...]]:
    """(unique_id, mode, tags) of each; "" for a unique_id that a run would refuse."""
    named = copy.deepcopy(dict(prompt))
    nameless = "nameless "
    for node_id, entry in named.items():
        unique_id = entry["inputs"].get("unique_id")
        if entry["class_type"] == "DiscomfortPort" and not (isinstance(unique_id, str) and unique_id.strip()):
            entry["inputs"]["unique_id"] = f"{nameless}{node_id}"
    return Counter(
        ("" if p.unique_id.startswith(nameless) else p.unique_id, p.mode, *p.tags) for p in pg.prompt_ports(named)
    )


def ports_of_workflow(workflow: Json) -> Counter[tuple[Any, ...]]:
    return Counter((p.unique_id, p.mode, *p.tags) for p in wg.discover_ports(workflow))


def plain_nodes(prompt: Mapping[str, Json]) -> Counter[str]:
    """What the nodes are that are no ports, with the values of their widgets."""

    def values(entry: Json) -> list[tuple[str, Any]]:
        # "upload" is a button; it reaches the prompt from a group node only.
        return sorted((k, v) for k, v in entry["inputs"].items() if k != "upload" and not isinstance(v, list))

    return Counter(
        str((entry["class_type"], values(entry)))
        for entry in prompt.values()
        if entry["class_type"] != "DiscomfortPort"
    )


@pytest.mark.asyncio(loop_scope="module")
class TestFrontend:
    @pytest.mark.parametrize("name", CASES)
    async def test_the_ports_are_those_of_the_conversion(self, connector: ComfyConnector, name: str) -> None:
        workflow = CASES[name]
        before = copy.deepcopy(workflow)
        found = ports_of_workflow(workflow)
        assert found == ports_of_prompt(await connector.get_prompt_from_workflow(workflow))
        # A port without a usable name is a problem that is told before the run.
        problems = [p for p in wg.check_workflow(workflow) if "has no unique_id" in p or "comes from" in p]
        assert len(problems) == sum(count for port, count in found.items() if not port[0])
        assert workflow == before

    @pytest.mark.parametrize(
        ("name", "delete"),
        [
            *((name, True) for name in GROUPS if "mixed" not in name and "mode" not in name and "value" not in name),
            *((name, False) for name in ("all inside", "two of one", "every widget is an input")),
        ],
    )
    async def test_stitched_group_nodes_are_subgraphs_that_the_frontend_reads(
        self, connector: ComfyConnector, name: str, delete: bool
    ) -> None:
        """Before and after it stand workflows that write and read the ports in it."""
        ports = [p for p in wg.discover_ports(GROUPS[name]) if p.unique_id]
        writers = Flow(*(n for p in ports if p.mode == "INPUT" for n in (empty(), port(p.unique_id))))
        readers = Flow(*(n for p in ports if p.mode == "OUTPUT" for n in (port(p.unique_id), invert())))
        for flow in (writers, readers):
            for number in range(1, len(flow.nodes), 2):
                flow.link(number, number + 1)
        parts = [writers.done(), GROUPS[name], readers.done()]
        result = ws.stitch_workflows(parts, delete_input_ports=delete, delete_output_ports=delete)
        assert "groupNodes" not in result["stitched_workflow"]["extra"]
        prompt = await connector.get_prompt_from_workflow(result["stitched_workflow"])
        assert ports_of_workflow(result["stitched_workflow"]) == ports_of_prompt(prompt)
        found = wg.discover_port_nodes(result["stitched_workflow"])["links"]
        links = {(c.target_id, c.target_input, c.origin_id) for c in found}
        assert links == {
            (node_id, key, value[0])
            for node_id, entry in prompt.items()
            for key, value in entry["inputs"].items()
            if isinstance(value, list)
        }
        # All that was in the group node is there, with the same values.
        alone = await connector.get_prompt_from_workflow(GROUPS[name])
        assert plain_nodes(alone) <= plain_nodes(prompt)

    async def test_a_group_node_that_frontends_cannot_convert_is_a_problem(self, connector: ComfyConnector) -> None:
        inner = Flow(group_node(["a", "", "b", ""], ["input_data:*"], ["output:*"], id=11))
        nested = group(group_node(["a", ""], ["input_data:*"], ["IMAGE:IMAGE"], "A"), port("x"), links=[(0, 0, 1, 0)])
        for workflow, words in (
            (Flow(group_node(name="Lost"), port("x")).done(), "has no definition"),
            (Flow(host(1, (), ())).done(inner.definition(1), extra={"groupNodes": {"G": WHOLE}}), "inside a subgraph"),
            (with_groups(Flow(group_node(["a", "", "b", ""])), A=PORT_THEN_NODE, G=nested), "contains a group node"),
        ):
            assert [words in problem for problem in wg.check_workflow(workflow)] == [True]
            with pytest.raises(UnknownNodeError):
                await connector.get_prompt_from_workflow(workflow)
