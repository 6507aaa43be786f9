"""The plan of a run: its workflows, prepared, and everything that is wrong with it, found before anything is queued.

A run that would fail in its fifth step, an hour from now, is refused at once, with all its problems in one list.
Pure: what a workflow is converted to, and which nodes the server has, is found elsewhere and handed in.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import control_flow
from .durable.run_folder import sha256
from .durable.secrets import without_secrets, workflow_without
from .nodes_internal import PROTOCOL_VERSION
from .prompt_graph import INPUT, LOADER_TYPE, OUTPUT, PORT_TYPE, Prompt, PromptTemplate, is_link, is_recipe
from .seeds import ControlledWidget
from .workflow_json import ANY_TYPE, common_type, type_name, types_compatible

log = logging.getLogger("discomfort.run_plan")

# Types of which no value is a text or a number.
_OBJECT_TYPES = frozenset(
    {"IMAGE", "MASK", "LATENT", "CONDITIONING", "MODEL", "CLIP", "VAE", "CONTROL_NET", "CLIP_VISION", "AUDIO", "VIDEO"}
)
# Types that ports may convert between on purpose: a FLOAT that feeds an INT, a STRING that feeds a COMBO.
_PLAIN_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", ANY_TYPE})


# ----------------------------------------------------------------------------------------------------------- errors


class PreflightError(ValueError):
    """A run was refused before anything was queued, for several reasons; with a single one, that error is raised."""

    def __init__(self, problems: Sequence[Exception]):
        #: the errors, in the order of the steps; each is of the class that it would have been raised with alone
        self.problems = tuple(problems)
        lines = "\n".join(f"{number}. {problem}" for number, problem in enumerate(self.problems, start=1))
        super().__init__(f"The run was not started; it has {len(self.problems)} problems:\n{lines}")


class MissingValueError(ValueError, KeyError):
    """A port or a condition has nothing to read under its name."""

    def __str__(self) -> str:  # KeyError would show the sentence in quotes
        return str(self.args[0])


class PortTypeError(ValueError):
    """An OUTPUT port delivers a type that the INPUT port of its name, in a later workflow, cannot take."""


class ProtocolError(RuntimeError):
    """The Discomfort nodes in the server are of another version than the script."""


def raise_problems(problems: Sequence[Exception]) -> None:
    """Raise what there is: nothing, the one error as it is, or all of them as one.

    Raises:
        MissingValueError: all of several problems are of that kind.
        PreflightError: several of different kinds.
    """
    unique = list({(type(p), str(p)): p for p in problems}.values())
    if len(unique) == 1:
        raise unique[0]
    if unique and all(isinstance(problem, MissingValueError) for problem in unique):
        raise MissingValueError("\n".join(str(problem) for problem in unique))
    if unique:
        raise PreflightError(unique)


# --------------------------------------------------------------------------------------------------------- workflows


@dataclass(frozen=True)
class PreparedWorkflow:
    """A workflow that is ready to be run any number of times."""

    name: str
    #: the editor's JSON, None where the workflow came as a prompt
    workflow: dict[str, Any] | None
    #: the prompt, analysed once; filled with the digests of an iteration's inputs
    template: PromptTemplate
    #: unique_ids of the INPUT ports
    inputs: tuple[str, ...]
    #: {unique_id: node id} of the OUTPUT ports
    outputs: Mapping[str, str]
    #: {unique_id: type} of INPUT ports: what their readers want, "*" where that says nothing
    input_types: Mapping[str, str] = field(default_factory=dict)
    #: {unique_id: type} of OUTPUT ports: what their sources make, "*" where that says nothing
    output_types: Mapping[str, str] = field(default_factory=dict)
    #: {unique_id of an OUTPUT port: unique_ids of the INPUT ports of which it hands one on, and whose type it has; only
    #: where its own type is "*"}
    handed_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: seeds and other values that change from execution to execution
    controlled: tuple[ControlledWidget, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the prompt, without secrets: what identifies it in a record."""
        return sha256(without_secrets(self.template.prompt)[0])

    @functools.cached_property
    def recorded_workflow(self) -> dict[str, Any] | None:
        """The editor's JSON without secrets, for a record."""
        return workflow_without(self.workflow, without_secrets(self.template.prompt)[1])  # type: ignore[no-any-return]


def port_types(
    template: PromptTemplate, definitions: Mapping[str, Any], drawn: Iterable[Any] = ()
) -> tuple[dict[str, str], dict[str, str], dict[str, tuple[str, ...]]]:
    """(input_types, output_types, handed_on) of a prompt, as in `PreparedWorkflow`.

    Args:
        definitions: the server's /object_info, the authority on types.
        drawn: the PortInfo of the workflow's ports; they tell where a node's definition says "*".
    """
    inputs = {
        name: common_type(_wanted_type(template.prompt, reader, definitions) for reader in template.readers(name))
        or ANY_TYPE
        for name in template.inputs
    }
    outputs, handed_on = {}, {}
    drawn_types = {(port.mode, port.unique_id): port.type for port in drawn}
    for name, port in template.outputs.items():
        outputs[name], handed_on[name] = _made_type(template, template.origin(port.node_id), definitions)
        # A port that hands an INPUT port on through nothing has the type of what is given, whatever else reads it.
        if outputs[name] == ANY_TYPE and template.input_at(template.origin(port.node_id)) is None:
            outputs[name] = drawn_types.get((OUTPUT, name), ANY_TYPE)
    for name, kind in inputs.items():
        inputs[name] = drawn_types.get((INPUT, name), ANY_TYPE) if kind == ANY_TYPE else kind
    return inputs, outputs, {name: names for name, names in handed_on.items() if names and outputs[name] == ANY_TYPE}


def _wanted_type(prompt: Mapping[str, Any], reader: tuple[str, str], definitions: Mapping[str, Any]) -> str:
    node_id, name = reader
    declared = (definitions.get(str(prompt[node_id].get("class_type"))) or {}).get("input") or {}
    for side in ("required", "optional"):
        spec = (declared.get(side) or {}).get(name)
        if isinstance(spec, (list, tuple)) and spec:
            return type_name(spec[0])
    return ANY_TYPE


def _made_type(
    template: PromptTemplate, origin: tuple[str, int] | None, definitions: Mapping[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """(type of an output, INPUT ports that it may hand on).

    A node whose output says "*" (a switch, say) has the type of what comes into those of its inputs that say "*", too.
    """
    kinds: list[str] = []
    names: list[str] = []
    pending, passed = [origin], set()
    while pending:
        place = pending.pop()
        if place is None or place in passed:
            continue
        passed.add(place)
        name = template.input_at(place)
        if name is not None:
            names.append(name)
            continue
        node = template.prompt.get(place[0]) or {}
        made = (definitions.get(str(node.get("class_type"))) or {}).get("output") or []
        kind = type_name(made[place[1]]) if 0 <= place[1] < len(made) else ANY_TYPE
        if kind != ANY_TYPE:
            kinds.append(kind)
            continue
        links = {i: value for i, value in (node.get("inputs") or {}).items() if is_link(value)}
        wild = [i for i in links if _wanted_type(template.prompt, (place[0], i), definitions) == ANY_TYPE]
        pending += [template.origin_of_link(links[i]) for i in wild]
    return common_type(kinds) or ANY_TYPE, tuple(dict.fromkeys(names))


def identity(source: Any) -> Any:
    """What makes two steps the same workflow: equal paths, or the same dict object."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)


def sources(steps: Sequence[Any]) -> Iterator[Any]:
    """Every workflow of a plan, in order, those inside branches and loops included."""
    for step in steps:
        if isinstance(step, control_flow.Branch):
            yield from sources(step.then)
            yield from sources(step.otherwise)
        elif isinstance(step, control_flow.Loop):
            yield from sources(step.body)
        else:
            yield step


# ------------------------------------------------------------------------------------------------------------ checks


def unknown_nodes(prompt: Prompt, definitions: Mapping[str, Any]) -> dict[str, str]:
    """{node id: node type} of a prompt's nodes that the server does not have."""
    kinds = {i: str(node.get("class_type")) for i, node in prompt.items() if isinstance(node, Mapping)}
    return {node_id: kind for node_id, kind in kinds.items() if kind not in definitions}


def output_nodes(template: PromptTemplate, definitions: Mapping[str, Any]) -> list[str]:
    """The ids of what makes the server execute a prompt: OUTPUT ports, nodes such as SaveImage."""
    entries = {port.node_id for ports in template.inputs.values() for port in ports}
    return [
        node_id
        for node_id, node in template.prompt.items()
        if node_id not in entries and (definitions.get(str(node.get("class_type"))) or {}).get("output_node")
    ]


def check_protocol(definitions: Mapping[str, Any], server: str) -> list[Exception]:
    """Problems of the Discomfort nodes in the server: they must be there, and of this script's version.

    A tree may hold another copy of the package than the one that a script imports.
    """
    missing = [kind for kind in (PORT_TYPE, LOADER_TYPE) if kind not in definitions]
    if missing:
        return [
            ProtocolError(
                f"The server has no nodes of Discomfort ({', '.join(missing)}), so no port can work ({server}). Put "
                "this package into its custom_nodes folder, or remove what keeps it from being loaded (its log "
                "tells)."
            )
        ]
    content = ((definitions[LOADER_TYPE].get("input") or {}).get("required") or {}).get("content") or []
    options = content[1] if len(content) > 1 and isinstance(content[1], Mapping) else {}
    version = options.get("discomfort_protocol", 1)
    if version == PROTOCOL_VERSION:
        return []
    where = definitions[LOADER_TYPE].get("python_module", "unknown")
    return [
        ProtocolError(
            f"The Discomfort nodes in the server ({server}; loaded as {where!r}) speak protocol {version}, this script "
            f"speaks {PROTOCOL_VERSION}: they are two copies of the package. Update the older one, or remove the "
            "copy in custom_nodes, and restart the server."
        )
    ]


class PlanCheck:
    """Walks a plan as its first iteration would, and notes what it could not do. Make one, then call `problems`."""

    def __init__(
        self, prepared: Mapping[Any, PreparedWorkflow], available: Iterable[str], has_gaps: bool = False
    ) -> None:
        """`available`: names that have a value before the first step. `has_gaps`: steps were left out of the plan
        because they have problems of their own.
        """
        self._prepared = prepared
        # Whether something unknown came before, which may deliver any value: a step or workflow that is left out.
        self._has_gaps = has_gaps
        self._found: list[Exception] = []
        # Whether loops are walked for the second time, where they read what their end wrote.
        self._is_again = False
        # Names that something reads.
        self._used: set[str] = set()
        # Values that are given, as long as no step has written another one.
        self._given: dict[str, Any] = {}
        # name -> {(type, workflow)} of what may have written it last; nothing is known of a given value's type.
        self._available: dict[str, set[tuple[str, str]]] = {name: {(ANY_TYPE, "")} for name in available}

    def problems(
        self,
        outer: control_flow.Loop,
        inputs: Mapping[str, Any],
        collect: Sequence[str] = (),
    ) -> list[Exception]:
        """All problems of the plan; and a warning in the log for every input that nothing reads.

        MissingValueError: a port or condition reads a name that nothing writes before. PortTypeError: it is of a type
        that cannot be taken. ValueError: a collected name that no OUTPUT port delivers, or a per-iteration input with
        too few values.
        """
        self._given = {k: v for k, v in inputs.items() if not isinstance(v, control_flow.PerIteration)}
        self._walk_loop(outer)
        self._used |= condition_names(outer.condition)
        self._check_condition(outer.condition, "loop_condition")
        # A model that comes by reference is made anew from these.
        self._used |= {name for value in inputs.values() if is_recipe(value) for name in value.get("values") or ()}
        for name in inputs:
            if name not in self._used and not self._has_gaps:
                log.warning("The input %r is used by no INPUT port and no condition of this run", name)
        self._check_lengths(outer, inputs)
        delivered = {name for prepared in self._prepared.values() for name in prepared.outputs}
        for name in collect:
            if name not in delivered and not self._has_gaps:
                self._found.append(
                    ValueError(
                        f"collect names {name!r}, which no OUTPUT port delivers. There are: {listed(delivered)}."
                    )
                )
        return self._found

    def _check_lengths(self, outer: control_flow.Loop, inputs: Mapping[str, Any]) -> None:
        for name, source in inputs.items():
            length = source.length if isinstance(source, control_flow.PerIteration) else None
            # With a condition the loop may end before the values are used up.
            if outer.condition is None and length is not None and length < (outer.iterations or 0):
                self._found.append(
                    ValueError(
                        f"The input {name!r} has {length} values (PerIteration) for {outer.iterations} iterations. "
                        f"Give it more values, or run {length} iterations."
                    )
                )

    def _walk(self, steps: Sequence[Any]) -> None:
        for step in steps:
            if isinstance(step, control_flow.Branch):
                self._check_condition(step.condition, "The condition of a branch", now=True)
                self._walk_branch(step)
            elif isinstance(step, control_flow.Loop):
                self._walk_loop(step)
                self._check_condition(step.condition, "The condition of a loop")
            elif identity(step) in self._prepared:
                self._enter(self._prepared[identity(step)])
            else:
                self._has_gaps = True

    def _walk_loop(self, loop: control_flow.Loop) -> None:
        self._walk(loop.body)
        if loop.iterations != 1 and not self._is_again:
            self._is_again = True
            self._walk(loop.body)
            self._is_again = False

    def _walk_branch(self, branch: control_flow.Branch) -> None:
        before = self._available
        self._available = {name: set(writers) for name, writers in before.items()}
        self._walk(branch.then)
        then, self._available = self._available, {name: set(writers) for name, writers in before.items()}
        self._walk(branch.otherwise)
        # Whichever runs; a value that is missing then is found at its step.
        for name, writers in then.items():
            self._available.setdefault(name, set()).update(writers)

    def _check_condition(self, condition: Any, what: str, now: bool = False) -> None:
        """Note names that a condition reads in vain: at its turn (`now`), or after everything ran once."""
        if condition is None:
            return
        condition = control_flow.Condition.parse(condition)  # parsed already; this tells the type
        self._used |= condition_names(condition)
        for name in () if self._has_gaps else sorted(condition.missing(self._available)):
            ending = "does not exist" if now else "nothing in the run delivers"
            self._found.append(
                MissingValueError(
                    f"{what}, {condition.source!r}, reads {name!r}, which {ending}. There are: "
                    f"{listed(self._available)}."
                )
            )

    def _enter(self, prepared: PreparedWorkflow) -> None:
        for name in prepared.inputs:
            self._used.add(name)
            if name in self._given:
                self._check_given(prepared, name)
            elif name in self._available:
                self._check_type(prepared, name)
            elif not self._has_gaps:
                self._found.append(nothing_to_read(prepared.name, name, self._available))
        for name in prepared.outputs:
            self._given.pop(name, None)
            self._available[name] = {(prepared.output_types.get(name, ANY_TYPE), prepared.name)}

    def _check_given(self, prepared: PreparedWorkflow, name: str) -> None:
        """Refuse the recipe of another type; warn of a text or number where a picture is wanted, say.

        Only warn, as the node has the last word on what it takes; its own error seldom says what was meant.
        """
        value, wanted = self._given[name], prepared.input_types.get(name, ANY_TYPE)
        where = f"the INPUT port {name!r} of {prepared.name} feeds inputs of type {wanted}"
        if is_recipe(value):
            if not types_compatible(str(value.get("type")), wanted):
                self._found.append(PortTypeError(f"inputs[{name!r}] is the recipe of a {value['type']}, but {where}."))
        elif wanted in _OBJECT_TYPES and (value is None or isinstance(value, (str, bytes, os.PathLike, int, float))):
            hint = " A picture file is opened by d.Tools.open_image_as_tensor(path)." if wanted == "IMAGE" else ""
            log.warning("inputs[%r] is %.80r (%s), but %s.%s", name, value, type(value).__name__, where, hint)

    def _check_type(self, prepared: PreparedWorkflow, name: str) -> None:
        wanted = prepared.input_types.get(name, ANY_TYPE)
        writers = self._available[name]
        if any(_may_feed(made, wanted) for made, _ in writers):
            return
        made = " or ".join(sorted(f"{made} (from {workflow})" for made, workflow in writers))
        self._found.append(
            PortTypeError(
                f"The INPUT port {name!r} of {prepared.name} feeds inputs of type {wanted}, but the OUTPUT port of "
                f"that name gives {made}. Rename one of the two, or convert the value in between."
            )
        )


def _may_feed(made: str, wanted: str) -> bool:
    if types_compatible(made, wanted):
        return True
    return {made, wanted} <= _PLAIN_TYPES


def condition_names(condition: Any) -> set[str]:
    """The names that a condition may read; its whole text may be a port's name, too."""
    return {*condition.names, str(condition.source)} if condition is not None else set()


def plan_names(step: Any) -> set[str]:
    """The names that the conditions of a step, and of all steps in it, may read."""
    if isinstance(step, control_flow.Loop):
        parts = step.body
    elif isinstance(step, control_flow.Branch):
        parts = (*step.then, *step.otherwise)
    else:
        return set()
    condition = None if step.condition is None else control_flow.Condition.parse(step.condition)
    own = condition_names(condition) if condition is not None and condition.kind != "function" else set()
    return own.union(*map(plan_names, parts))


def listed(names: Iterable[str]) -> str:
    """Names for a message: quoted, sorted, "none" where there are none."""
    return ", ".join(sorted(map(repr, names))) or "none"


def nothing_to_read(workflow: str, name: str, available: Iterable[str]) -> MissingValueError:
    """The error about an INPUT port without a value."""
    return MissingValueError(
        f"The INPUT port {name!r} of {workflow} has no value. Give it with inputs={{{name!r}: ...}}, or let an earlier "
        f"step deliver it through an OUTPUT port of that name. There are: {listed(available)}."
    )
