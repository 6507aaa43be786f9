"""How the executor calls V3 nodes: what is different from V1 nodes, in one place.

Each function takes V1 classes too and then does what has always been done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .dynamic_inputs import build_nested_inputs, get_finalized_class_inputs
from .hidden import Hidden, V3Data
from .node import ComfyNodeInternal
from .node_class import first_real_override, make_locked_method_func
from .node_output import NodeOutput

# V1's names of the optional functions -> V3's.
_V3_NAMES = {"IS_CHANGED": "fingerprint_inputs", "VALIDATE_INPUTS": "validate_inputs"}


def is_v3(node: Any) -> bool:
    """Whether a node or its class is V3."""
    return isinstance(node, ComfyNodeInternal) or (isinstance(node, type) and issubclass(node, ComfyNodeInternal))


def optional_function(node: Any, v1_name: str) -> str | None:
    """The name of a function a node need not have, None if it has none.

    Args:
        node: the node or its class.
        v1_name: ``IS_CHANGED``, ``VALIDATE_INPUTS`` or ``check_lazy_status``.
    """
    if is_v3(node):
        name = _V3_NAMES.get(v1_name, v1_name)
        node_class = node if isinstance(node, type) else type(node)
        if first_real_override(node_class, name) is not None:
            return name
        if v1_name == "check_lazy_status":
            # The base class has one, which only counts when it is overridden.
            return None
    return v1_name if getattr(node, v1_name, None) is not None else None


def declared_inputs(class_def: Any, inputs: Mapping[str, Any]) -> Any:
    """What a node declares, given its inputs in the prompt: INPUT_TYPES(), of V3 nodes with dynamic inputs expanded
    and without hidden ones, which they do not get as arguments."""
    declared = class_def.INPUT_TYPES()
    return get_finalized_class_inputs(declared, inputs)[0] if is_v3(class_def) else declared


def accepts_undeclared(class_def: Any) -> bool:
    """Whether constants the class does not declare are passed all the same."""
    return is_v3(class_def) and bool(class_def.ACCEPT_ALL_INPUTS)


def call_data(
    class_def: Any, inputs: Mapping[str, Any], hidden_values: Mapping[str, Callable[[], Any]]
) -> V3Data | None:
    """What a call of a V3 node needs beside its values; None for V1 nodes.

    Args:
        inputs: the node's, in the prompt.
        hidden_values: kind ("UNIQUE_ID" ...) -> how to get it.
    """
    if not is_v3(class_def):
        return None
    _, hidden, data = get_finalized_class_inputs(class_def.INPUT_TYPES(), inputs)
    known = (kind for kind in Hidden if kind.name in (hidden or {}) and kind.value in hidden_values)
    data["hidden_inputs"] = {kind: hidden_values[kind.value]() for kind in known}
    return data


def bind(node: Any, function_name: str, data: V3Data | None) -> Callable[..., Any]:
    """A node's function, to be called with its values by name; of V3 nodes on a locked copy of the class."""
    if not is_v3(node):
        function: Callable[..., Any] = getattr(node, function_name)
        return function
    node_class: Any = node if isinstance(node, type) else type(node)
    node_class.VALIDATE_CLASS()
    return make_locked_method_func(node_class, function_name, node_class.PREPARE_CLASS_CLONE(data))


def nest(values: dict[str, Any], data: V3Data | None) -> dict[str, Any]:
    """A call's values as the function takes them: those of dynamic inputs in nested dicts."""
    return values if data is None else build_nested_inputs(values, data)


def to_v1_result(returned: Any, class_def: Any) -> Any:
    """What a node returned, as a V1 node would have."""
    return returned.as_v1(len(class_def.RETURN_TYPES)) if isinstance(returned, NodeOutput) else returned
