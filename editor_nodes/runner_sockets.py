"""The sockets of the nodes that run workflows: one for each port that a workflow has, whatever it is called.

ComfyUI knows the sockets of a class, and which ports there are depends on the workflow. So the class takes an optional
input of every name that begins with ``in:`` and has more outputs than anybody uses; the editor shows those that the
workflow has, and tells by the widget ``ports`` which output is which port::

    {"inputs": [{"name": "image", "type": "IMAGE"}], "outputs": [{"name": "image", "type": "IMAGE"}]}

Values are lists here: one item is the value itself, several are what ComfyUI hands to nodes one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..control_flow import Branch, Loop, Step
from ..nodes_internal import ANY_TYPE
from ..workflow_graph import discover_ports

#: how many outputs a runner node has; the editor hides those that no port has
MAX_OUTPUTS = 32

#: what the names of the inputs for ports begin with
INPUT_PREFIX = "in:"

#: what every runner node has besides its own
HIDDEN = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}

FREE_MEMORY_FIRST = (
    "BOOLEAN",
    {
        "default": False,
        "tooltip": "Take the models of this ComfyUI off the GPU before the run, so that those of the workflows have "
        "room.",
    },
)

PORTS_WIDGET = (
    "STRING",
    {
        "default": "",
        "tooltip": "Written by the editor: which ports the workflow has, in the order of this node's sockets. Leave it "
        "empty in prompts that are made by hand: outputs are then in the order in which the ports are found.",
    },
)


class PortInputs(dict[str, Any]):
    """The optional inputs of a runner node: those it is made of, and every one whose name begins with ``in:``.

    ComfyUI looks an input up here by its name; what it lists for the editor are the real entries alone.
    """

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(INPUT_PREFIX))

    def __missing__(self, name: str) -> Any:
        if not isinstance(name, str) or not name.startswith(INPUT_PREFIX):
            raise KeyError(name)
        return (ANY_TYPE, {"tooltip": f"Value of the port {name.removeprefix(INPUT_PREFIX)!r}."})


class PlanPorts(NamedTuple):
    """The ports of all workflows of a run."""

    #: {unique_id: type} of the values that can be given, in the order in which they are found
    inputs: dict[str, str]
    #: {unique_id: name of the workflow} of those that nothing else delivers before they are read
    required: dict[str, str]
    #: {unique_id: type} of the values that are delivered, in the order in which they are found
    outputs: dict[str, str]


def plan_ports(steps: Iterable[Step]) -> PlanPorts:
    """Find the ports of a run, as its first iteration meets them.

    Of a branch either side may run: what one of them reads has to be there before it, and what one of them delivers
    counts as delivered after it.

    Raises:
        FileNotFoundError, ValueError, TypeError: a workflow cannot be read; says which and why.
    """
    ports = PlanPorts({}, {}, {})
    _find_ports(steps, ports, set())
    return ports


def _find_ports(steps: Iterable[Step], found: PlanPorts, made: set[str]) -> None:
    """Add the ports of steps to what was *found*. *made*: names that have a value by then; it is added to."""
    for step in steps:
        if isinstance(step, Branch):
            sides = set(made), set(made)
            for side, names in zip((step.then, step.otherwise), sides, strict=True):
                _find_ports(side, found, names)
            made.update(*sides)
        elif isinstance(step, Loop):
            _find_ports(step.body, found, made)
        else:
            _find_in_workflow(step, found, made)


def _find_in_workflow(source: Any, found: PlanPorts, made: set[str]) -> None:
    # A workflow reads before it delivers: a loop variable has to come from somewhere at first.
    ports = [port for port in discover_ports(source) if port.unique_id]
    for port in ports:
        if port.mode == "INPUT":
            found.inputs.setdefault(port.unique_id, port.type)
            if port.unique_id not in made:
                found.required.setdefault(port.unique_id, _name(source))
    for port in ports:
        if port.mode == "OUTPUT":
            found.outputs.setdefault(port.unique_id, port.type)
            made.add(port.unique_id)


def workflows_of(steps: Iterable[Step]) -> Iterator[Any]:
    """The workflows of steps, in the order of the plan; of a branch ``then`` comes first."""
    for step in steps:
        if isinstance(step, Branch):
            yield from workflows_of((*step.then, *step.otherwise))
        elif isinstance(step, Loop):
            yield from workflows_of(step.body)
        else:
            yield step


def _name(source: Any) -> str:
    return Path(source).name if isinstance(source, (str, Path)) else "a workflow"


def given_values(arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{unique_id: items} of the inputs that are wired, from a node's keyword arguments (INPUT_IS_LIST).

    Raises:
        ValueError: an input got nothing at all.
    """
    values: dict[str, list[Any]] = {}
    for name, items in arguments.items():
        if not name.startswith(INPUT_PREFIX):
            continue
        port = name.removeprefix(INPUT_PREFIX)
        values[port] = items if isinstance(items, list) else [items]
        if not values[port]:
            raise ValueError(f"What is wired to the input {port!r} delivered an empty list, so there is no value.")
    return values


def check_given(ports: PlanPorts, given: Iterable[str]) -> None:
    """Refuse a run whose ports have nothing to read, before a server is started for it.

    Raises:
        ValueError: names the ports that are missing, or the input that is no port any more.
    """
    names = set(given)
    for name in sorted(names - set(ports.inputs)):
        raise ValueError(
            f"This node has the input {name!r}, but the workflow has no INPUT port of that name (any more). It has: "
            f"{_listed(ports.inputs)}. Press Refresh on the node, or take the wire off."
        )
    missing = [f"{name!r} (of {workflow})" for name, workflow in ports.required.items() if name not in names]
    if missing:
        raise ValueError(
            f"Nothing is wired to the input{'s' if len(missing) > 1 else ''} {', '.join(missing)}. Connect a value to "
            "each; if the node shows no such input, press Refresh on it."
        )


def output_names(widget: str, ports: PlanPorts) -> list[str]:
    """The port that each output stands for, in order.

    Args:
        widget: the value of ``ports``; "" means the order in which ports are found.

    Raises:
        ValueError: it is no such JSON; it names a port that the workflows do not have; or there are too many.
    """
    names = list(ports.outputs)
    if widget.strip():
        names = _names_in(widget)
        for name in names:
            if name not in ports.outputs:
                raise ValueError(
                    f"This node has the output {name!r}, but the workflow has no OUTPUT port of that name (any more). "
                    f"It has: {_listed(ports.outputs)}. Press Refresh on the node."
                )
    if len(names) > MAX_OUTPUTS:
        raise ValueError(
            f"The workflows have {len(names)} OUTPUT ports; a node can show {MAX_OUTPUTS}. Remove those that nothing "
            "reads, or join values into fewer ports."
        )
    return names


def _names_in(widget: str) -> list[str]:
    try:
        outputs = json.loads(widget)["outputs"]
        names = [entry["name"] for entry in outputs]
    except (ValueError, KeyError, TypeError):
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"The widget 'ports' is {widget[:100]!r}; it must be JSON such as "
            '{"outputs": [{"name": "image", "type": "IMAGE"}]}, or empty. Press Refresh on the node.'
        )
    return names


def output_sockets(values: Mapping[str, list[Any]], names: Sequence[str]) -> tuple[list[Any], ...]:
    """What the node returns: the items of each output, in the order of its sockets.

    An output that has no port (any more) stops whatever is wired to it with a sentence, and nothing else.
    """
    sockets = [values[name] for name in names]
    if len(sockets) < MAX_OUTPUTS:
        free = blocked("This output stands for no port of the workflow. Press Refresh on the runner node.")
        sockets += [[free]] * (MAX_OUTPUTS - len(sockets))
    return tuple(sockets)


def blocked(reason: str) -> Any:
    """A value that makes the execution of what is wired to it fail with a sentence, and harms nothing otherwise."""
    from comfy_execution.graph import ExecutionBlocker  # exists inside a server only

    return ExecutionBlocker(reason)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
