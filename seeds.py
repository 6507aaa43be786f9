"""Seeds from execution to execution: what the editor's "control after generate" does, for scripts. Pure.

In the editor a seed has a second widget behind it, which says what becomes of it after every queueing: it stays, goes
up or down by a step, or is drawn anew. That happens in the browser, so a script that queues the same prompt again and
again computes the same picture again and again. Here are the same rules (frontend 1.27 to 1.58), with two differences:
what is drawn comes from one master seed, so that a run can be repeated; and a seed that passes its largest value begins
again at the smallest, where the editor stays at the largest for ever.

A *controlled widget* is an input of a node, in the prompt a literal, that has such a second widget: whole numbers and
combos whose definition says ``control_after_generate``, whole numbers called "seed" or "noise_seed", and whatever
number or combo a PrimitiveNode of the workflow drives.

An *execution* is one queueing of a workflow in a run, counted from 0 for each workflow.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .flat_graph import (
    FlatGraph,
    Scope,
    host_input_index,
    proxied_widgets,
)
from .prompt_graph import PORT_TYPE, prompt_links
from .workflow_json import (
    REROUTE_TYPES,
    SUBGRAPH_INPUT,
    as_list,
    dicts_in,
    node_type,
    slots_of,
    subgraph_definitions,
)

#: what a run can do with controlled widgets
POLICIES = ("as_saved", "fixed", "increment", "randomize")

FIXED, INCREMENT, DECREMENT, RANDOMIZE, WRAP = "fixed", "increment", "decrement", "randomize", "increment-wrap"
_MODES = (FIXED, INCREMENT, DECREMENT, RANDOMIZE, WRAP)
# The editor's own bound for what it draws: whole numbers beyond 2**50 do not survive JavaScript's arithmetic.
_LARGEST_DRAWN = 2**50
_WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_SEED_NAMES = ("seed", "noise_seed")

#: {node id: {input: value}}
SeedValues = dict[str, dict[str, Any]]


class Place(NamedTuple):
    """Where a workflow file keeps a widget's value."""

    # Id of the subgraph definition that holds the node; None for the root.
    definition: str | None
    node_id: str
    # Index in the node's widgets_values.
    position: int


class ControlledWidget(NamedTuple):
    """A value that changes from execution to execution, or could."""

    # The inputs of the prompt that hold it; several where a PrimitiveNode drives them.
    targets: tuple[tuple[str, str], ...]
    # The value that was saved.
    saved: Any
    # What was saved about it: "fixed", "increment", "decrement", "randomize" or "increment-wrap" (combos only).
    mode: str
    # Whether policies other than "as_saved" concern it: seeds, but no width that a primitive happens to drive.
    is_seed: bool
    minimum: float = 0
    maximum: float = _LARGEST_DRAWN
    step: float = 1
    # A combo's choices, those that its filter lets pass; empty for numbers.
    choices: tuple[Any, ...] = ()
    # None where the file does not say, or where a subgraph that is used twice shares it.
    place: Place | None = None


def check_policy(policy: Any) -> str:
    """The policy, if it is one; ValueError with those that exist otherwise."""
    if policy not in POLICIES:
        raise ValueError(f"seed_policy is {policy!r}; it must be one of {', '.join(map(repr, POLICIES))}.")
    return str(policy)


# ----------------------------------------------------------------------------------------------- what is controlled


def find_controlled_widgets(
    prompt: Mapping[str, Any], definitions: Mapping[str, Any], workflow: Mapping[str, Any] | None = None
) -> list[ControlledWidget]:
    """The controlled widgets of a prompt, in its order.

    Args:
        prompt: as the frontend made it, or as it was written.
        definitions: the server's /object_info.
        workflow: the editor's JSON that the prompt was made of; None: a prompt alone says of no widget that it varies.
    """
    graph = None if workflow is None else FlatGraph(workflow)
    found: dict[Any, ControlledWidget] = {}
    for node_id, entry in prompt.items():
        definition = definitions.get(str(entry.get("class_type"))) if isinstance(entry, Mapping) else None
        if not isinstance(definition, Mapping):
            continue
        for name, spec in _input_specs(definition):
            value = (entry.get("inputs") or {}).get(name)
            if not isinstance(value, (int, float, str)) or isinstance(value, bool):
                continue
            target = (str(node_id), name)
            widget, source = _controlled(graph, target, value, spec, definition)
            if widget is None:
                continue
            if widget.is_seed and not _is_seed_name(name):
                widget = widget._replace(is_seed=widget.mode != FIXED or not _is_used_as_number(prompt, str(node_id)))
            before = found.get(source)
            targets = (*(before.targets if before else ()), target)
            found[source] = widget._replace(targets=targets, is_seed=widget.is_seed or bool(before and before.is_seed))
    return list(found.values())


def _controlled(
    graph: FlatGraph | None, target: tuple[str, str], value: Any, spec: _InputSpec, definition: Mapping[str, Any]
) -> tuple[ControlledWidget | None, Any]:
    """The controlled widget that gives an input its value, or None; and what it is: the input, or a primitive."""
    node_id, name = target
    bounds: dict[str, Any] = {"minimum": spec.minimum, "maximum": spec.maximum, "step": spec.step}
    scope, node = graph.nodes.get(node_id, (None, None)) if graph else (None, None)
    if scope is not None and node is not None and _is_driven(scope, node, name):
        primitive = _primitive_behind(scope, node, name)
        # Not every frontend lets a primitive reach a widget past a reroute or a border: the prompt tells.
        reaches = primitive is not None and _primitive_saved(primitive[1])[:1] == [value]
        if primitive is not None and reaches and spec.kind in ("INT", "FLOAT", "COMBO"):
            home, driver = primitive
            mode, word = _primitive_mode(driver)
            choices = _filtered(spec.choices, word)
            widget = ControlledWidget((), value, mode, spec.is_seed, **bounds, choices=choices)
            return widget._replace(place=_place(graph, home, driver, 0)), home.flat_id(driver)
        # The editor leaves a widget alone that something else fills, a subgraph's own widget say (1.49, 1.58).
        return (ControlledWidget((), value, FIXED, True, **bounds) if spec.is_seed else None), target
    if not spec.has_control:
        return None, target
    index = _saved_index(node, name, value, definition) if node is not None else None
    mode = FIXED
    if node is not None and scope is not None and index is not None:
        mode = node["widgets_values"][index + 1]
    elif node is not None and not node.get("widgets_values"):
        mode = spec.default_mode  # the file says nothing: the editor takes every default
    place = _place(graph, scope, node, index) if index is not None and scope is not None and node is not None else None
    is_seed = spec.kind == "INT"
    return ControlledWidget((), value, mode, is_seed, **bounds, choices=spec.choices, place=place), target


class _InputSpec(NamedTuple):
    """What a node's definition says of an input."""

    name: str
    # "INT", "FLOAT", "COMBO" or another type.
    kind: str
    has_widget: bool
    has_control: bool
    default_mode: str
    minimum: float
    maximum: float
    step: float
    choices: tuple[Any, ...]

    @property
    def is_seed(self) -> bool:
        return self.has_control and self.kind == "INT"


def _input_specs(definition: Mapping[str, Any]) -> Iterator[tuple[str, _InputSpec]]:
    for side in ("required", "optional"):
        declared = (definition.get("input") or {}).get(side)
        for name, spec in declared.items() if isinstance(declared, Mapping) else ():
            if isinstance(spec, (list, tuple)) and spec:
                yield name, _input_spec(name, spec)


def _input_spec(name: str, spec: Sequence[Any]) -> _InputSpec:
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    kind = "COMBO" if isinstance(spec[0], list) else str(spec[0])
    listed = spec[0] if isinstance(spec[0], list) else as_list(options.get("options"))
    control = options.get("control_after_generate")
    # useIntWidget.ts and useComboWidget.ts of the frontend: a seed's name counts where the definition is silent.
    has_control = bool(control) if control is not None else kind == "INT" and name in _SEED_NAMES
    return _InputSpec(
        name,
        kind,
        kind in _WIDGET_TYPES and not options.get("forceInput"),
        has_control and kind in ("INT", "COMBO"),
        control if control in _MODES else RANDOMIZE,
        _number(options.get("min"), 0),
        _number(options.get("max"), _LARGEST_DRAWN),
        _number(options.get("step"), 1) or 1,
        tuple(c for c in listed if isinstance(c, (str, int, float))) if kind == "COMBO" else (),
    )


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def _is_seed_name(name: str) -> bool:
    return "seed" in name.lower()


def _is_used_as_number(prompt: Mapping[str, Any], node_id: str) -> bool:
    """Whether a number that a node like PrimitiveInt holds is a width, say: it feeds an input that no seed is."""
    return any(
        not _is_seed_name(name) and prompt[reader].get("class_type") != PORT_TYPE
        for reader, name, link in prompt_links(prompt)
        if str(link[0]) == node_id
    )


# ------------------------------------------------------------------------------------------- what the workflow says


def _is_driven(scope: Scope, node: Mapping[str, Any], name: str) -> bool:
    """Whether a widget gets its value from elsewhere: by a link, or from the subgraph node that shows it."""
    slots = [slot for slot in slots_of(node, "inputs") if slot.get("name") == name]
    if slots and slots[0].get("link") is not None:
        return True
    return scope.host is not None and [str(node.get("id")), name] in proxied_widgets(scope.host)


def _primitive_behind(scope: Scope, node: dict[str, Any], name: str) -> tuple[Scope, dict[str, Any]] | None:
    """The PrimitiveNode that drives a widget, across reroutes and subgraph borders, and where it stands."""
    index = next((i for i, slot in enumerate(slots_of(node, "inputs")) if slot.get("name") == name), None)
    passed: set[tuple[str, int]] = set()
    while index is not None and (scope.flat_id(node), index) not in passed:
        passed.add((scope.flat_id(node), index))
        inputs = slots_of(node, "inputs")
        link = scope.level.links.get(str(inputs[index].get("link"))) if index < len(inputs) else None
        if link is None:
            return None
        if link.origin_id == SUBGRAPH_INPUT and scope.host is not None and scope.parent is not None:
            index, node, scope = host_input_index(scope, link.origin_slot), scope.host, scope.parent
            continue
        origin = scope.level.nodes.get(link.origin_id) or {}
        if node_type(origin) == "PrimitiveNode":
            return scope, origin
        if node_type(origin) not in REROUTE_TYPES:
            return None
        node, index = origin, 0
    return None


def _primitive_saved(primitive: Mapping[str, Any]) -> list[Any]:
    saved = primitive.get("widgets_values")
    return saved if isinstance(saved, list) else []


def _primitive_mode(primitive: Mapping[str, Any]) -> tuple[str, str]:
    """What a PrimitiveNode's file says: its mode ("fixed" where it is silent), and its filter of choices."""
    saved = _primitive_saved(primitive)
    mode = saved[1] if len(saved) > 1 and saved[1] in _MODES else FIXED
    return mode, saved[2] if len(saved) > 2 and isinstance(saved[2], str) else ""


def _filtered(choices: tuple[Any, ...], word: str) -> tuple[Any, ...]:
    """The choices that contain a word, or match it where it is written /like this/; all where none would be left."""
    if not word or not choices:
        return choices
    if len(word) > 2 and word.startswith("/") and word.endswith("/"):
        try:
            pattern = re.compile(word[1:-1])
        except re.error:
            return choices
        kept = tuple(c for c in choices if pattern.search(str(c)))
    else:
        kept = tuple(c for c in choices if word.lower() in str(c).lower())
    return kept or choices


def _saved_index(node: Mapping[str, Any], name: str, value: Any, definition: Mapping[str, Any]) -> int | None:
    """Where a node's file has the value of a controlled widget; its mode stands behind it. None where that is unclear.

    The file is a bare list of values in the order of the definition. Where a pack or another version put something
    else into it, the places are recognised by what stands in them.
    """
    saved = node.get("widgets_values")
    if not isinstance(saved, list):
        return None
    expected = _expected_index(name, definition)
    if expected + 1 < len(saved) and saved[expected + 1] in _MODES and _could_be_value(saved[expected]):
        return expected
    controlled = [spec for _, spec in _input_specs(definition) if spec.has_control]
    places = [i for i in range(len(saved) - 1) if saved[i + 1] in _MODES and _could_be_value(saved[i])]
    if len(places) == len(controlled):
        return places[[spec.name for spec in controlled].index(name)]
    return next((i for i in places if saved[i] == value), None)


def _expected_index(name: str, definition: Mapping[str, Any]) -> int:
    """Where a file of this very definition has an input's value: a place for each widget, and one for each control."""
    index = 0
    for other, spec in _input_specs(definition):
        if other == name:
            break
        if spec.has_widget:
            index += 2 if spec.has_control else 1
    return index


def _could_be_value(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _place(graph: FlatGraph | None, scope: Scope, node: Mapping[str, Any], index: int) -> Place | None:
    definition = scope.level.definition
    if definition is None:
        return Place(None, str(node.get("id")), index)
    identity = str(definition.get("id"))
    if graph is None:
        return None
    levels = [graph.root.level.node_list, *(dicts_in(d.get("nodes")) for d in graph.definitions.values())]
    uses = sum(node_type(other) == identity for level in levels for other in level)
    return Place(identity, str(node.get("id")), index) if uses == 1 else None


# ------------------------------------------------------------------------------------------------------------ values


def seed_values(
    widgets: Iterable[ControlledWidget], policy: str, master_seed: int, workflow: str, execution: int
) -> SeedValues:
    """{node id: {input: value}} of all controlled widgets, for one execution.

    Args:
        policy: one of `POLICIES`. "as_saved": as the editor would, whose first queueing uses the saved values; "fixed":
            the saved values always; "increment" and "randomize": all seeds go up, or are drawn from the first execution
            on, whatever was saved of them, and everything else goes as saved.
        master_seed: what draws come from: equal arguments give equal values, in every process and version.
        workflow: its name in the run.
        execution: how often the run queued the workflow before.
    """
    values: SeedValues = {}
    for widget in widgets:
        value = _value(widget, policy, f"{master_seed}|{workflow}|{widget.targets[0]}", execution)
        for node_id, name in widget.targets:
            values.setdefault(node_id, {})[name] = value
    return values


def _value(widget: ControlledWidget, policy: str, key: str, execution: int) -> Any:
    is_overruled = policy != "as_saved" and (widget.is_seed or policy == FIXED)
    mode = policy if is_overruled else widget.mode
    # The editor's control is one *after* generating; who asks for random seeds means all of them.
    if mode == FIXED or (execution == 0 and not (is_overruled and mode == RANDOMIZE)):
        return widget.saved
    if widget.choices:
        return _choice(widget, mode, key, execution)
    if not isinstance(widget.saved, (int, float)):
        return widget.saved
    if mode == RANDOMIZE:
        return _drawn_number(widget, key, execution)
    moved = widget.saved + (execution if mode != DECREMENT else -execution) * widget.step
    if not widget.is_seed:
        return _like(widget, min(max(moved, widget.minimum), widget.maximum))
    count = int(widget.maximum) - int(widget.minimum) + 1
    return int(widget.minimum) + (int(moved) - int(widget.minimum)) % count


def _choice(widget: ControlledWidget, mode: str, key: str, execution: int) -> Any:
    count = len(widget.choices)
    if mode == RANDOMIZE:
        return widget.choices[_draw(key, execution) % count]
    at = widget.choices.index(widget.saved) if widget.saved in widget.choices else -1
    at += execution if mode != DECREMENT else -execution
    return widget.choices[at % count if mode == WRAP else max(0, min(count - 1, at))]


def _drawn_number(widget: ControlledWidget, key: str, execution: int) -> float:
    # Never below 0, though a PrimitiveInt could be: a negative seed is refused by half of the nodes that read one.
    low = max(widget.minimum, 0) if widget.is_seed else max(widget.minimum, -_LARGEST_DRAWN)
    high = min(widget.maximum, _LARGEST_DRAWN)
    steps = int((high - low) / widget.step)
    return _like(widget, low + _draw(key, execution) % (max(steps, 0) + 1) * widget.step)


def _draw(key: str, execution: int) -> int:
    digest = hashlib.blake2b(f"{key}|{execution}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "big")


def _like(widget: ControlledWidget, value: float) -> float:
    """A number of the saved one's type, without the dust of floating point."""
    return int(value) if isinstance(widget.saved, int) else round(value, 10)


def workflow_with_values(
    workflow: Mapping[str, Any], widgets: Iterable[ControlledWidget], values: SeedValues
) -> Mapping[str, Any]:
    """The workflow as the editor would save it with these values; it shares what is the same, and is not modified.

    Pictures carry their workflow; one that is opened again should show the seeds that it was made with.
    """
    changes: dict[str | None, dict[str, list[tuple[int, Any]]]] = {}
    known = {None, *(str(d.get("id")) for d in subgraph_definitions(workflow))}
    for widget in widgets:
        node_id, name = widget.targets[0]
        value = values.get(node_id, {}).get(name, widget.saved)
        if widget.place is not None and widget.place.definition in known and value != widget.saved:
            level = changes.setdefault(widget.place.definition, {})
            level.setdefault(widget.place.node_id, []).append((widget.place.position, value))
    if not changes:
        return workflow
    changed = {**workflow, "nodes": _with_widgets(workflow["nodes"], changes.get(None, {}))}
    if set(changes) - {None}:
        subgraphs = [
            {**d, "nodes": _with_widgets(d["nodes"], changes[str(d["id"])])} if str(d.get("id")) in changes else d
            for d in workflow["definitions"]["subgraphs"]
        ]
        changed["definitions"] = {**workflow["definitions"], "subgraphs": subgraphs}
    return changed


def _with_widgets(nodes: Sequence[Any], changes: Mapping[str, list[tuple[int, Any]]]) -> list[Any]:
    result = []
    for node in nodes:
        wanted = changes.get(str(node.get("id"))) if isinstance(node, Mapping) else None
        if wanted:
            saved = copy.copy(node["widgets_values"])
            for index, value in wanted:
                saved[index] = value
            node = {**node, "widgets_values": saved}
        result.append(node)
    return result
