"""Whether a prompt can run: the checks of POST /prompt and their error JSON, as in ComfyUI 0.3.64.

Validation also *changes* the prompt: constants of INT, FLOAT, STRING and BOOLEAN inputs are converted, and
``{"__value__": [...]}`` is unwrapped to its list (a bare list would be a link).
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import AsyncGenerator, Collection
from typing import Any, NamedTuple

from . import import_names, node_registry
from .graph import get_input_info, is_output_node
from .graph_utils import ExecutionBlocker
from .node_api.calls import declared_inputs, is_v3, optional_function
from .node_calls import call_over_lists, gather_inputs, gather_v3_data, wait_for_results

logger = logging.getLogger("discomfort.embedded.validation")

# Options of longer combos are not sent back with an error.
_LONGEST_LIST_IN_ERROR = 20

_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}

# Types that fit every other one.
_ANY = "*"
_MATCHED = "COMFY_MATCHTYPE_V3"

# One error: {"type", "message", "details", "extra_info"}.
Error = dict[str, Any]
# What is known of a node: valid or not, and its own errors. A node can be invalid without any: then one of
# the nodes upstream has them.
NodeVerdict = tuple[bool, list[Error], str]


class PromptVerdict(NamedTuple):
    """The result of validating a prompt; unpacks as ComfyUI's tuple."""

    # Whether at least one output node can run.
    valid: bool
    # Why none can, None when one can.
    error: Error | None
    # The output nodes that can run, in prompt order.
    outputs: list[str]
    # Node -> {"errors", "dependent_outputs", "class_type"}; also non-empty beside outputs that can run.
    node_errors: dict[str, Any]


def validate_node_input(received_type: Any, input_type: Any, strict: bool = False) -> bool:
    """Whether an output of one type may be linked to an input of another.

    Types are names, ``"A,B"`` means either; combos are lists. Compared with ``!=`` first, because packages
    make wildcards from a ``str`` whose ``__ne__`` says False.

    What later versions accept beyond 0.3.64 is accepted, too (0.8.0): a plain ``"*"``, a type that the editor matches
    to others, and a list of choices for a ``COMBO``.

    Args:
        strict: every received type must be accepted, not just one of them.
    """
    if not received_type != input_type:  # noqa: SIM202 - __ne__ and __eq__ may differ
        return True
    if isinstance(received_type, list) and input_type == "COMBO":
        return True
    if not isinstance(received_type, str) or not isinstance(input_type, str):
        return _ANY in (received_type, input_type) or _MATCHED in (received_type, input_type)
    received = {name.strip() for name in received_type.split(",")}
    accepted = {name.strip() for name in input_type.split(",")}
    if _ANY in received | accepted or _MATCHED in (received_type, input_type):
        return True
    return received <= accepted if strict else bool(received & accepted)


def full_type_name(kind: type) -> str:
    """A class's name with its module, without one for builtins: ``"KeyError"``, ``"torch.OutOfMemoryError"``.

    A class of this server goes by the name packages import its module by, as ``comfy_execution.graph.NodeInputError``.
    """
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{import_names.public_name(kind.__module__)}.{kind.__qualname__}"


async def validate_prompt(
    prompt_id: str, prompt: dict[str, Any], partial_execution_list: Collection[str] | None
) -> PromptVerdict:
    """Check a prompt and convert its constants in place.

    Args:
        prompt_id: for the nodes' own checks.
        prompt: node id -> {"class_type", "inputs"}.
        partial_execution_list: of the output nodes only these shall run; None: all.

    An exception of a node's own check becomes an error of that node.
    """
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node:
            return _refuse("Cannot execute because a node is missing the class_type property.", node_id)
        class_def = node_registry.NODE_CLASS_MAPPINGS.get(node["class_type"])
        if class_def is None:
            return _refuse(f"Cannot execute because node {node['class_type']} does not exist.", node_id)
        if is_output_node(class_def) and (partial_execution_list is None or node_id in partial_execution_list):
            outputs.append(node_id)
    if not outputs:
        return PromptVerdict(False, _error("prompt_no_outputs", "Prompt has no outputs", "", {}), [], {})

    checker = _Checker(prompt_id, prompt)
    good: list[str] = []
    bad: list[tuple[str, list[Error]]] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        valid, reasons, _ = await checker.check_output(output)
        if valid:
            good.append(output)
            continue
        bad.append((output, reasons))
        _log_reasons(f"Failed to validate prompt for output {output}:", reasons)
        for node_id, (node_valid, errors, _) in checker.verdicts.items():
            if not node_valid and errors:
                entry = node_errors.get(node_id)
                if entry is None:
                    class_type = prompt[node_id]["class_type"] if node_id in prompt else None
                    entry = {"errors": errors, "dependent_outputs": [], "class_type": class_type}
                    node_errors[node_id] = entry
                    _log_reasons(f"* {class_type} {node_id}:", errors)
                entry["dependent_outputs"].append(output)
        logger.error("Output will be ignored")
    if good:
        return PromptVerdict(True, None, good, node_errors)
    details = "\n".join(f"{e['message']}: {e['details']}" for _, reasons in bad for e in reasons)
    error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, {})
    return PromptVerdict(False, error, [], node_errors)


def _error(kind: str, message: str, details: str, extra_info: dict[str, Any]) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _refuse(message: str, node_id: str) -> PromptVerdict:
    """A prompt that cannot even be looked at."""
    return PromptVerdict(False, _error("invalid_prompt", message, f"Node ID '#{node_id}'", {}), [], {})


def _exception_details(exc: BaseException) -> dict[str, Any]:
    """What an error says about an exception that caused it."""
    return {
        "exception_type": full_type_name(type(exc)),
        "traceback": traceback.format_tb(exc.__traceback__),
    }


def _log_reasons(headline: str, reasons: list[Error]) -> None:
    logger.error(headline)
    for reason in reasons:
        logger.error("  - %s: %s", reason["message"], reason["details"])


class _Checker:
    """Validates nodes of one prompt, each once, following links upstream."""

    def __init__(self, prompt_id: str, prompt: dict[str, Any]) -> None:
        self.prompt_id = prompt_id
        self.prompt = prompt
        # Every node looked at so far.
        self.verdicts: dict[str, NodeVerdict] = {}
        # What VALIDATE_INPUTS of each class asks for.
        self._own_checks: dict[Any, _OwnCheck] = {}

    async def check_output(self, node_id: str) -> NodeVerdict:
        """An output node; an exception is its error."""
        try:
            return await self._check(node_id)
        except Exception as exc:
            reason = _error(
                "exception_during_validation",
                "Exception when validating node",
                str(exc),
                _exception_details(exc),
            )
            return self._settle(node_id, False, [reason])

    def _settle(self, node_id: str, valid: bool, errors: list[Error]) -> NodeVerdict:
        self.verdicts[node_id] = (valid, errors, node_id)
        return self.verdicts[node_id]

    async def _check(self, output: str) -> NodeVerdict:
        """A node and everything upstream of it.

        The nodes being checked are on a stack of our own: a chain may be longer than Python can recurse.

        Raises:
            Exception: whatever a malformed prompt or a node's own code leads to.
        """
        # Each node's check waits for the one after it.
        path: dict[str, AsyncGenerator[str, NodeVerdict | None]] = {}
        if output not in self.verdicts:
            path[output] = self._check_node(output)
        # What to tell the last one of them: a node's verdict, or what its check raised.
        verdict: NodeVerdict | None = None
        failure: Exception | None = None
        while path:
            node_id, check = next(reversed(path.items()))
            try:
                source = await (check.asend(verdict) if failure is None else check.athrow(failure))
            except StopAsyncIteration:
                del path[node_id]
                verdict, failure = self.verdicts[node_id], None
                continue
            except Exception as exc:
                del path[node_id]
                failure = exc
                continue
            failure = None
            if source in path and source not in self.verdicts:
                self._refuse_cycle(list(path), source)
            verdict = self.verdicts.get(source)
            if verdict is None:
                path[source] = self._check_node(source)
        if failure is not None:
            raise failure
        return self.verdicts[output]

    def _refuse_cycle(self, path: list[str], node_id: str) -> None:
        """The last node of a path is linked to an earlier one: an error of all nodes from there on.

        ComfyUI 0.3.64 goes round until Python's recursion limit; this is what later versions answer (0.20.0).
        """
        cycle = path[path.index(node_id) :]
        shown = " -> ".join(f"{member} ({self.prompt[member]['class_type']})" for member in [*cycle, node_id])
        for member in cycle:
            extra = {"node_id": member, "cycle_nodes": cycle}
            self._settle(member, False, [_error("dependency_cycle", "Dependency cycle detected", shown, extra)])

    async def _check_node(self, node_id: str) -> AsyncGenerator[str, NodeVerdict | None]:
        """Check a node, and settle it.

        Yields:
            The nodes it is linked to, one by one. Each is answered with its verdict, or by throwing in what its
            check raised.

        Raises:
            Exception: see :meth:`_check`.
        """
        inputs = self.prompt[node_id]["inputs"]
        class_def = node_registry.NODE_CLASS_MAPPINGS[self.prompt[node_id]["class_type"]]
        declared = declared_inputs(class_def, inputs)
        own_check = self._own_checks.get(class_def)
        if own_check is None:
            own_check = self._own_checks[class_def] = _OwnCheck(class_def)
        errors: list[Error] = []
        received_types: dict[str, Any] = {}
        upstream_valid = True
        for name in {**declared.get("required", {}), **declared.get("optional", {})}:
            input_type, category, options = get_input_info(class_def, name, declared)
            info = (input_type, options)
            error: Error | None = None
            if name not in inputs:
                if category == "required":
                    # Of a part of a dynamic input, "values.value0", only the last name is shown.
                    shown = name.rpartition(".")[2] if is_v3(class_def) else name
                    error = _error("required_input_missing", "Required input is missing", shown, {"input_name": name})
            elif isinstance(inputs[name], list):
                error = self._check_link(name, inputs[name], info, own_check, received_types)
                if error is None:
                    try:
                        verdict = yield inputs[name][0]
                    except Exception as exc:
                        self._blame_source(name, inputs[name], info, exc)
                        upstream_valid = False
                    else:
                        upstream_valid = upstream_valid and verdict is not None and verdict[0]
            else:
                error = _check_constant(name, inputs, info, own_check)
            if error is not None:
                errors.append(error)
        errors += await self._run_own_check(node_id, class_def, own_check, inputs, received_types)
        if node_id in self.verdicts:
            # It is part of a cycle.
            errors = [*self.verdicts[node_id][1], *errors]
        self._settle(node_id, upstream_valid and not errors, errors)

    def _check_link(
        self,
        name: str,
        link: list[Any],
        info: tuple[Any, Any],
        own_check: _OwnCheck,
        received_types: dict[str, Any],
    ) -> Error | None:
        """A linked input: its form and its type; notes the latter.

        Returns:
            The input's error, None if the node it comes from is to be looked at.
        """
        extra = {"input_name": name, "input_config": info}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _error("bad_linked_input", message, name, {**extra, "received_value": link})
        source, slot = link
        # A link to a node or slot that is not there raises here: the *linking* node is reported, as an
        # exception of the check of the node that uses it.
        source_class = node_registry.NODE_CLASS_MAPPINGS[self.prompt[source]["class_type"]]
        received_type = source_class.RETURN_TYPES[slot]
        received_types[name] = received_type
        if not own_check.takes("input_types") and not validate_node_input(received_type, info[0]):
            details = f"{name}, received_type({received_type}) mismatch input_type({info[0]})"
            message = "Return type mismatch between linked nodes"
            return _error(
                "return_type_mismatch", message, details, {**extra, "received_type": received_type, "linked_node": link}
            )
        return None

    def _blame_source(self, name: str, link: list[Any], info: tuple[Any, Any], exc: Exception) -> None:
        """The check of a linked node raised."""
        extra = {
            "input_name": name,
            "input_config": info,
            "exception_message": str(exc),
            **_exception_details(exc),
            "linked_node": link,
        }
        message = "Exception when validating inner node"
        self._settle(link[0], False, [_error("exception_during_inner_validation", message, str(exc), extra)])

    async def _run_own_check(
        self,
        node_id: str,
        class_def: Any,
        own_check: _OwnCheck,
        inputs: dict[str, Any],
        received_types: dict[str, Any],
    ) -> list[Error]:
        """The class's VALIDATE_INPUTS, with the constants it asks for (None for linked inputs).

        A result that is not True, a reason or False, is reported once for every input it was given.
        """
        if not own_check.parameters and not own_check.takes_all:
            return []
        values, _ = gather_inputs(inputs, class_def, node_id)
        values = {name: value for name, value in values.items() if own_check.chooses(name)}
        if own_check.takes("input_types"):
            values["input_types"] = [received_types]
        data = gather_v3_data(inputs, class_def, node_id)
        function = optional_function(class_def, "VALIDATE_INPUTS") or ""
        results = await call_over_lists(self.prompt_id, node_id, class_def, function, values, v3_data=data)
        results = await wait_for_results(results)
        errors = []
        for name in values:
            for result in results:
                if result is not True and not isinstance(result, ExecutionBlocker):
                    details = name if result is False else f"{name} - {result}"
                    message = "Custom validation failed for node"
                    errors.append(_error("custom_validation_failed", message, details, {"input_name": name}))
        return errors


class _OwnCheck:
    """What a class's VALIDATE_INPUTS asks for: inputs it names are left to it by the general checks."""

    def __init__(self, class_def: Any) -> None:
        name = optional_function(class_def, "VALIDATE_INPUTS")
        spec = inspect.getfullargspec(getattr(class_def, name)) if name is not None else None
        self.parameters: list[str] = spec.args if spec else []
        # Whether it takes **kwargs.
        self.takes_all = spec is not None and spec.varkw is not None

    def takes(self, name: str) -> bool:
        """Whether a parameter of this name is declared."""
        return name in self.parameters

    def chooses(self, name: str) -> bool:
        """Whether it is given this input."""
        return self.takes_all or name in self.parameters


def _check_constant(name: str, inputs: dict[str, Any], info: tuple[Any, Any], own_check: _OwnCheck) -> Error | None:
    """A constant input: converted in place, then held against the range or list of its declaration."""
    input_type, options = info
    value = inputs[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        # Compared one by one: a combo's type is a list, and packages' own str classes may not hash.
        convert = next((c for kind, c in _CONVERSIONS.items() if input_type == kind), None)
        if convert is not None:
            value = inputs[name] = convert(value)
    except Exception as exc:
        return _error(
            "invalid_input_type",
            f"Failed to convert an input value to a {input_type} value",
            f"{name}, {value}, {exc}",
            {
                "input_name": name,
                "input_config": info,
                "received_value": value,
                "exception_message": str(exc),
            },
        )
    if own_check.chooses(name):
        return None
    extra = {"input_name": name, "input_config": info, "received_value": value}
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return _error("value_smaller_than_min", message, name, extra)
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return _error("value_bigger_than_max", message, name, extra)
    choices = _choices_of(input_type, options)
    if choices is None:
        return None
    # Several of them in a list, of a combo that takes several.
    chosen = value if isinstance(value, list) and options.get("multiselect") else [value]
    wrong = [item for item in chosen if item not in choices]
    if wrong:
        named = ", ".join(map(repr, wrong)) if chosen is value else f"'{value}'"
        shown = str(choices)
        if len(choices) > _LONGEST_LIST_IN_ERROR:
            shown = f"(list of length {len(choices)})"
            extra["input_config"] = None
        return _error("value_not_in_list", "Value not in list", f"{name}: {named} not in {shown}", extra)
    return None


def _choices_of(input_type: Any, options: dict[str, Any]) -> list[Any] | None:
    """What a combo offers, in the old form (the type is the list) or the new one; None for other inputs."""
    if isinstance(input_type, list):
        return input_type
    if input_type == "COMBO" and isinstance(options.get("options"), list):
        return list(options["options"])
    return None
