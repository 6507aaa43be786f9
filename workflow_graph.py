"""A workflow's ports and problems: what a person, or a node's sockets, is shown of it before anything runs. Pure.

What is read from the JSON, and which nodes count as running, is :mod:`.workflow_json`'s; ports of a prompt are
:mod:`.prompt_graph`'s, and the prompt is the authority for a run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .flat_graph import FlatGraph, Origin, Scope, proxied_widgets
from .group_nodes import (
    expand_group_nodes,
    group_definition,
)
from .prompt_graph import (
    INPUT,
    OUTPUT,
    PASSTHRU,
    PORT_TYPE,
    duplicate_outputs,
    is_api_format,
    port_mode,
    port_tags,
    prompt_node_words,
    prompt_ports,
    prompt_problems,
)
from .workflow_json import (
    ANY_TYPE,
    MUTED,
    PORT_WIDGETS,
    SUBGRAPH_ID,
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    Level,
    Link,
    WorkflowSource,
    as_dict,
    as_list,
    common_type,
    dicts_in,
    is_group_node,
    is_off,
    load_workflow,
    node_type,
    node_words,
    read_link,
    regular_workflow,
    slot_index,
    slots_of,
    subgraph_definitions,
    type_name,
    types_compatible,
)

# Stands for a widget value that a workflow does not hold; null is one.
_ABSENT = object()

# ------------------------------------------------------------------------------------------------------------ ports


class PortInfo(NamedTuple):
    """A DiscomfortPort of a workflow."""

    #: Flat id: "35", or "57:35" inside a subgraph.
    node_id: str
    #: The name values travel under; "" where the port has none yet.
    unique_id: str
    #: "INPUT" (nothing comes in), "OUTPUT" (something comes in, nothing goes out) or "PASSTHRU" (both).
    mode: str
    #: The type of the value, from the other end of the links; "*" where they do not tell.
    type: str
    #: The type of what comes in; "*" for an INPUT.
    input_type: str
    #: The type of what its readers want; "*" for an OUTPUT.
    output_type: str
    #: The port's tags, without blanks and empty ones.
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
    return ports_of(FlatGraph(content))


def ports_of(graph: FlatGraph, order: list[str] | None = None) -> list[PortInfo]:
    order = graph.execution_order() if order is None else order
    port_ids = [flat_id for flat_id in order if node_type(graph.nodes[flat_id][1]) == PORT_TYPE]
    arriving = {p: _arriving_type(graph, p) for p in port_ids}
    leaving: dict[str, str] = {}
    for port_id in reversed(port_ids):
        leaving[port_id] = common_type(_wanted_types(graph, port_id, leaving)) or ANY_TYPE
    ports: dict[str, PortInfo] = {}
    for port_id in port_ids:
        origin = _port_origin(graph, port_id)
        if origin is not None and origin.flat_id in ports:
            arriving[port_id] = ports[origin.flat_id].type
        mode = port_mode(origin is not None, bool(graph.consumers[port_id]))
        kind = arriving[port_id] if arriving[port_id] != ANY_TYPE else leaving[port_id]
        unique_id, tags = _port_widgets(graph, port_id)
        ports[port_id] = PortInfo(port_id, unique_id, mode, kind, arriving[port_id], leaving[port_id], port_tags(tags))
    return list(ports.values())


def _port_origin(graph: FlatGraph, port_id: str) -> Origin | None:
    index = data_input(graph.nodes[port_id][1])
    return graph.origins.get((port_id, index)) if index is not None else None


def data_input(node: Mapping[str, Any]) -> int | None:
    """The index of the port's input for its value (beside it there may be widgets turned into inputs)."""
    return slot_index(slots_of(node, "inputs"), "input_data")


def _arriving_type(graph: FlatGraph, port_id: str) -> str:
    origin = _port_origin(graph, port_id)
    return ANY_TYPE if origin is None else origin.type


def _wanted_types(graph: FlatGraph, port_id: str, leaving: Mapping[str, str]) -> list[str]:
    """What each reader of a port wants; a reader that is a port itself wants what its own readers want."""
    return [
        leaving.get(reader, type_name(slots_of(graph.nodes[reader][1], "inputs")[index].get("type")))
        for reader, index in graph.consumers[port_id]
    ]


def _port_widgets(graph: FlatGraph, port_id: str) -> tuple[str, Any]:
    """A port's unique_id and tags, also where a primitive or a subgraph's widget sets them.

    The unique_id is "" where it is no text, or comes from a node that runs: a run refuses such a port.
    """
    scope, node = graph.nodes[port_id]
    saved = node.get("widgets_values")
    values = dict(zip(PORT_WIDGETS, saved, strict=False)) if isinstance(saved, list) else saved or {}
    unique_id, tags = (_widget_value(scope, node, name, values.get(name)) for name in PORT_WIDGETS)
    is_usable = isinstance(unique_id, str) and _unique_id_origin(graph, port_id) is None
    return unique_id.strip() if is_usable else "", tags


def _unique_id_origin(graph: FlatGraph, port_id: str) -> Origin | None:
    """The node that runs and makes a port's unique_id, which nothing can know before the run; None for none."""
    index = slot_index(slots_of(graph.nodes[port_id][1], "inputs"), "unique_id")
    return None if index is None else graph.origins.get((port_id, index))


def _widget_value(scope: Scope, node: dict[str, Any], name: str, own: Any) -> Any:
    """What the widget `name` of a node says, which was saved with the value `own`.

    A primitive beside it says it; else the outermost subgraph node that shows the widget (a null there means `own`).
    A primitive outside of the subgraph does not reach the widget (1.58.1), and nor does one behind a Reroute.
    """
    start, value = scope, own
    while True:
        index = slot_index(slots_of(node, "inputs"), name)
        link = scope.level.links.get(str(slots_of(node, "inputs")[index].get("link"))) if index is not None else None
        if link is not None and link.origin_id != SUBGRAPH_INPUT:
            return _primitive_value(scope.level, link, value) if scope is start else own
        host, parent = scope.host, scope.parent
        if host is None or parent is None:
            return value
        if link is None:
            shown, outer = _proxied_value(host, node, name), name
        else:
            declared = slots_of(scope.level.definition or {}, "inputs")
            shown = _promoted_value(scope, link.origin_slot)
            outer = str(declared[link.origin_slot].get("name")) if link.origin_slot < len(declared) else ""
        if link is None and shown is _ABSENT:
            return value
        if shown is not _ABSENT:
            value = own if shown is None else shown
        scope, node, name = parent, host, outer


def _primitive_value(level: Level, link: Link, otherwise: Any) -> Any:
    """The value of the primitive that a link comes from, also of a muted one; what comes from elsewhere is no value."""
    origin = level.nodes.get(link.origin_id) or {}
    values = origin.get("widgets_values")
    return values[0] if node_type(origin) == "PrimitiveNode" and isinstance(values, list) and values else otherwise


def _value_at(host: Mapping[str, Any], index: int | None) -> Any:
    values = host.get("widgets_values")
    return values[index] if index is not None and isinstance(values, list) and index < len(values) else _ABSENT


def _proxied_value(host: Mapping[str, Any], node: Mapping[str, Any], name: str) -> Any:
    """What a subgraph node's own widget says for a widget inside it that it merely shows; `_ABSENT` for nothing."""
    entry = [str(node.get("id")), name]
    return _value_at(host, next((i for i, proxy in enumerate(proxied_widgets(host)) if proxy == entry), None))


def _promoted_value(scope: Scope, slot: int) -> Any:
    """What a subgraph node's own widget says for the definition's input `slot`; `_ABSENT` for nothing.

    Its ``widgets_values`` follow ``properties.proxyWidgets`` where that lists the input (by the node id "-1", or by
    the widget that the input drives), else the definition's inputs that drive widgets, in their order. Frontend 1.58
    may save null for "as inside".
    """
    host, level = scope.host or {}, scope.level
    declared = slots_of(level.definition or {}, "inputs")
    if slot >= len(declared):
        return _ABSENT
    proxies = proxied_widgets(host)
    entries = [["-1", declared[slot].get("name")], *_driven_widgets(level, slot)]
    listed = next((i for i, proxy in enumerate(proxies) if proxy in entries), None)
    if listed is not None or any(proxy[0] == "-1" for proxy in proxies):
        return _value_at(host, listed)
    driving = [i for i in range(len(declared)) if _driven_widgets(level, i)]
    return _value_at(host, driving.index(slot) if slot in driving else None)


def _driven_widgets(level: Level, slot: int) -> list[list[Any]]:
    """The widgets that a definition's input drives: [[node id, name], ...]."""
    found = []
    for link in level.links.values():
        if link.origin_id == SUBGRAPH_INPUT and link.origin_slot == slot:
            inputs = slots_of(level.nodes.get(link.target_id, {}), "inputs")
            if link.target_slot < len(inputs) and inputs[link.target_slot].get("widget"):
                found.append([link.target_id, inputs[link.target_slot].get("name")])
    return found


def discover_port_nodes(workflow: WorkflowSource) -> dict[str, Any]:
    """A workflow's ports, grouped, with the flattened graph they stand in.

    Returns:
        dict with ``inputs``, ``outputs``, ``passthrus`` ({unique_id: PortInfo}; of several INPUT ports of one
        unique_id the first), ``execution_order`` (flat ids of all nodes that run), ``nodes`` ({flat id: node}),
        ``links`` (list of `Connection`), ``unique_id_to_node`` ({unique_id: flat id of its first port}).

    Raises: as `discover_ports`, and ValueError where two OUTPUT ports have one unique_id.
    """
    content = load_workflow(workflow)
    graph = FlatGraph(content)
    order = graph.execution_order()
    ports = ports_of(graph, order)
    refuse_duplicate_outputs(ports, graph)
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


def refuse_duplicate_outputs(ports: Iterable[PortInfo], graph: FlatGraph) -> None:
    problems = duplicate_outputs([(p.unique_id, p.mode, graph.describe(p.node_id)) for p in ports])
    if problems:
        raise ValueError(" ".join(problems))


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
        return prompt_problems(content)
    regular = regular_workflow(content)
    known = {str(d.get("id")) for d in subgraph_definitions(regular)}
    levels = [Level.of(regular), *(Level.of(d, d) for d in subgraph_definitions(regular))]
    problems: list[str] = []
    for level, raw in zip(levels, [content, *subgraph_definitions(content)], strict=True):
        problems += [*_node_problems(level, raw), *_link_problems(level, raw), *_input_problems(level)]
        problems += _unknown_subgraphs(level, known)
    problems += [problem for level in levels for problem in _group_node_problems(level, regular)]
    return [*problems, *_graph_problems(FlatGraph(regular))]


def validate_workflow(workflow: WorkflowSource) -> bool:
    """Whether `check_workflow` finds nothing wrong."""
    return not check_workflow(workflow)


def _node_problems(level: Level, raw: Mapping[str, Any]) -> Iterator[str]:
    for entry in as_list(raw.get("nodes")):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), (int, str)) or not entry.get("type"):
            yield f"In {level.name} there is a node without id or type: {json.dumps(entry, default=str)[:80]}."
            continue
        for side in ("inputs", "outputs"):
            if entry.get(side) is not None and dicts_in(entry[side]) != entry[side]:
                words = node_words(entry, str(entry["id"]), level)
                yield f"The {side} of {words} are no list of objects: {json.dumps(entry[side], default=str)[:60]}."
    ids = Counter(str(node.get("id")) for node in level.node_list)
    for node_id, count in ids.items():
        if count > 1:
            types = " and ".join(node_type(n) for n in level.node_list if str(n.get("id")) == node_id)
            yield (
                f"In {level.name} the node id {node_id} is used {count} times ({types}): frontends would lose or "
                "renumber one."
            )


def _link_problems(level: Level, raw: Mapping[str, Any]) -> Iterator[str]:
    links = [read_link(entry) for entry in as_list(raw.get("links"))]
    if None in links:
        yield f"In {level.name} a link has neither of the two known shapes (6-item list, or object with origin_id...)."
    for link_id, count in Counter(link.id for link in links if link).items():
        if count > 1:
            yield f"In {level.name} the link id {link_id} is used {count} times."
    borders = (SUBGRAPH_INPUT, SUBGRAPH_OUTPUT) if level.definition is not None else ()
    for link in level.links.values():
        for end, node_id in (("comes from", link.origin_id), ("goes to", link.target_id)):
            if node_id in level.nodes or node_id in borders:
                continue
            # Editors leave a link to nowhere inside a subgraph out without a word, and official templates have some.
            if level.definition is None or end == "comes from":
                yield f"In {level.name} link {link.id} {end} node {node_id}, which does not exist."


def _input_problems(level: Level) -> Iterator[str]:
    for node in level.node_list:
        for slot in slots_of(node, "inputs"):
            if slot.get("link") is None:
                continue
            link = level.links.get(str(slot["link"]))
            words = f"Input {slot.get('name')!r} of {node_words(node, str(node.get('id')), level)}"
            if link is None:
                yield f"{words} names link {slot['link']}, which does not exist."
                continue
            outputs = slots_of(level.nodes.get(link.origin_id, {}), "outputs")
            if outputs and link.origin_slot >= len(outputs):
                yield f"{words} reads output {link.origin_slot} of node {link.origin_id}, which has {len(outputs)}."
            elif outputs:
                made, wanted = type_name(outputs[link.origin_slot].get("type")), type_name(slot.get("type"))
                if not _link_fits(level.nodes[link.origin_id], made, wanted):
                    yield f"{words} wants {wanted}, but node {link.origin_id} gives it {made}."


def _link_fits(origin: Mapping[str, Any], made: str, wanted: str) -> bool:
    # A primitive's output is whatever widget it drives, and a combo takes the text of one of its values.
    return types_compatible(made, wanted) or node_type(origin) == "PrimitiveNode" or wanted == "COMBO"


def _unknown_subgraphs(level: Level, known: set[str]) -> Iterator[str]:
    for node in level.node_list:
        kind = node_type(node)
        if SUBGRAPH_ID.fullmatch(kind) and kind not in known:
            yield (
                f"Node #{node.get('id')} in {level.name} is a subgraph whose definition {kind} is not in the file: "
                "open the workflow in the editor it was made in and save it again."
            )


def _group_node_problems(level: Level, workflow: Mapping[str, Any]) -> Iterator[str]:
    for node in level.node_list:
        if not is_group_node(node):
            continue
        words = f"The group node {node_words(node, str(node.get('id')), level)}"
        group = group_definition(workflow, node)
        if group is None:
            yield f"{words} has no definition in the file: save it again in the editor it was made in."
        elif level.definition is not None:
            yield f"{words} cannot be run inside a subgraph: convert it to a subgraph."
        elif any(is_group_node(inner) for inner in group["nodes"]):
            yield f"{words} contains a group node, which cannot be run: convert both to subgraphs."
        elif is_off(node):
            state = "muted" if node.get("mode") == MUTED else "bypassed"
            yield f"{words} is {state}, but frontends run its content all the same: convert it to a subgraph."
        elif _has_driven_port(group):
            yield (
                f"In {words[0].lower()}{words[1:]} a primitive names a port, which newer frontends ignore: type the "
                "name into the port, or convert the group node to a subgraph."
            )


def _has_driven_port(group: Mapping[str, Any]) -> bool:
    """Whether a primitive in a group drives the unique_id of a port in it."""
    nodes = dict(enumerate(group["nodes"]))
    for raw in as_list(group.get("links")):
        origin, _, target, slot, *_ = [*as_list(raw), None, None, None, None]
        origin, target = (nodes.get(i, {}) if isinstance(i, int) else {} for i in (origin, target))
        inputs = slots_of(target, "inputs")
        if node_type(origin) == "PrimitiveNode" and node_type(target) == PORT_TYPE:
            return isinstance(slot, int) and slot < len(inputs) and inputs[slot].get("name") == "unique_id"
    return False


def _graph_problems(graph: FlatGraph) -> Iterator[str]:
    import networkx as nx

    for name in sorted(graph.endless):
        yield f"The subgraph {name!r} contains itself."
    try:
        ports = ports_of(graph)
    except nx.NetworkXUnfeasible as error:
        yield str(error)
        return
    yield from duplicate_outputs([(p.unique_id, p.mode, graph.describe(p.node_id)) for p in ports])
    for port in ports:
        maker = _unique_id_origin(graph, port.node_id)
        if maker is not None:
            yield (
                f"The unique_id of the {port.mode} port {graph.describe(port.node_id)} comes from "
                f"{graph.describe(maker.flat_id)}, but ports are matched before the workflow runs: type the name into "
                "the port."
            )
        elif not port.unique_id:
            yield f"The {port.mode} port {graph.describe(port.node_id)} has no unique_id: type a name into it."
        wanted = _wanted_types(graph, port.node_id, {p.node_id: p.output_type for p in ports})
        if common_type([port.input_type, *wanted]) is None:
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
            prompt_node_words(flat_id, entry) if isinstance(entry, Mapping) else f"node #{flat_id} (not in the prompt)"
        )
    found = _find_node(content, flat_id)
    return node_words(found[1], flat_id, found[0]) if found else f"node #{flat_id} (not in the workflow)"


def _find_node(workflow: Mapping[str, Any], flat_id: str) -> tuple[Level, dict[str, Any]] | None:
    """The node of a flat id and its level, whether it runs or not."""
    *hosts, last = flat_id.split(":")
    if hosts:
        workflow = expand_group_nodes(regular_workflow(workflow))
    definitions = {str(d.get("id")): d for d in subgraph_definitions(workflow)}
    level = Level.of(workflow)
    for host_id in hosts:
        definition = definitions.get(node_type(level.nodes.get(host_id, {})))
        if definition is None:
            return None
        level = Level.of(definition, definition)
    return (level, level.nodes[last]) if last in level.nodes else None


def node_types(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """{type: [flat ids]} of the nodes that run, in a workflow or prompt. What a server must know to run it."""
    found: dict[str, list[str]] = {}
    if is_api_format(content):
        for node_id, entry in content.items():
            if isinstance(entry, Mapping) and isinstance(entry.get("class_type"), str):
                found.setdefault(entry["class_type"], []).append(str(node_id))
        return found
    for flat_id, (_, node) in FlatGraph(content).nodes.items():
        found.setdefault(node_type(node), []).append(flat_id)
    return found


def known_pack(workflow: Mapping[str, Any], node_id: str | int) -> str | None:
    """The pack a workflow says a node is from ("comfyui-kjnodes 1.0.6", "owner/repository"); None if it is silent."""
    found = _find_node(workflow, str(node_id))
    properties = as_dict(found[1].get("properties")) if found else {}
    name = properties.get("cnr_id") or properties.get("aux_id")
    return " ".join(str(part) for part in (name, properties.get("ver")) if part) if name else None
