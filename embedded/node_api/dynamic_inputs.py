"""Which inputs a V3 node has, given what the prompt holds, and the nested dicts its functions get.

A prompt is flat: what belongs to a dynamic input has a name with dots, ``"values.value0"``. An Autogrow becomes all
the inputs it may have, a DynamicCombo those of the chosen option, a DynamicSlot its own when it is linked. As ComfyUI
0.29.0: a DynamicCombo without a known choice is no input at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .dynamic_types import AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT
from .hidden import V3Data

# In V3Data.dynamic_paths_default_value: an Autogrow nothing is linked to is {}.
EMPTY_DICT = "empty_dict"


class _Expansion:
    """The inputs of one node as they are found."""

    def __init__(self, live_inputs: Mapping[str, Any]) -> None:
        # What the prompt has.
        self.live_inputs = live_inputs
        # Category -> name -> (type, options), as in INPUT_TYPES.
        self.declared: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        # See V3Data.
        self.paths: dict[str, str] = {}
        self.default_values: dict[str, str] = {}

    def add(self, inputs: Mapping[str, Mapping[str, Any]], prefix: tuple[str, ...] = ()) -> None:
        """Add inputs (as in INPUT_TYPES) that belong to the input ``prefix``."""
        for category, items in inputs.items():
            for name, info in items.items():
                path = (*prefix, name)
                expand = _EXPAND.get(info[0]) if isinstance(info[0], str) else None
                if expand is not None:
                    expand(self, path, category, info)
                    continue
                full_name = ".".join(path)
                self.declared[category][full_name] = info
                if prefix:
                    self.paths[full_name] = full_name

    def add_autogrow(self, path: tuple[str, ...], category: str, info: Any) -> None:
        """All inputs of an Autogrow; its own category does not matter, its template's does."""
        template = info[1]["template"]
        names = template["names"] if "names" in template else _numbered(template["prefix"], template["max"])
        of_template, repeated = next(
            (kind, item) for kind, items in template["input"].items() for item in items.values()
        )
        linked: dict[str, dict[str, Any]] = {}
        for position, name in enumerate(names):
            kind = "required" if position < template["min"] and of_template == "required" else "optional"
            full_name = ".".join((*path, name))
            self.declared[kind][full_name] = repeated
            if full_name in self.live_inputs:
                linked.setdefault(kind, {})[name] = repeated
        if not linked:
            own_name = ".".join(path)
            self.paths[own_name] = own_name
            self.default_values[own_name] = EMPTY_DICT
        self.add(linked, path)

    def add_combo(self, path: tuple[str, ...], category: str, info: Any) -> None:
        """The inputs of the option that is chosen."""
        choice = self.live_inputs.get(".".join(path))
        for option in info[1]["options"]:
            if ".".join(path) in self.live_inputs and option["key"] == choice:
                self._add_owner(path, category, info, option["inputs"])
                return

    def add_slot(self, path: tuple[str, ...], category: str, info: Any) -> None:
        """The further inputs of a socket that is linked."""
        if ".".join(path) in self.live_inputs:
            self._add_owner(path, category, info, info[1]["inputs"])

    def _add_owner(self, path: tuple[str, ...], category: str, info: Any, inputs: Mapping[str, Any]) -> None:
        """Inputs with the one they belong to, whose own value stands beside theirs under its name."""
        self.add(inputs, path)
        full_name = ".".join(path)
        self.declared[category][full_name] = info
        self.paths[full_name] = f"{full_name}.{path[-1]}"


_EXPAND: dict[str, Callable[[_Expansion, tuple[str, ...], str, Any], None]] = {
    AUTOGROW: _Expansion.add_autogrow,
    DYNAMIC_COMBO: _Expansion.add_combo,
    DYNAMIC_SLOT: _Expansion.add_slot,
}


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def get_finalized_class_inputs(
    d: Mapping[str, Any], live_inputs: Mapping[str, Any], include_hidden: bool = False
) -> tuple[dict[str, Any], dict[str, Any] | None, V3Data]:
    """The inputs a node has.

    Args:
        d: its class's INPUT_TYPES().
        live_inputs: its inputs in the prompt.
        include_hidden: leave the hidden ones in the result.

    Returns:
        The inputs, without dynamic ones; the hidden inputs or None; and how to nest the values.
    """
    hidden = d.get("hidden")
    expansion = _Expansion(live_inputs)
    expansion.add({category: items for category, items in d.items() if category != "hidden"})
    declared: dict[str, Any] = dict(expansion.declared)
    if hidden is not None and include_hidden:
        declared["hidden"] = hidden
    data: V3Data = {}
    if expansion.paths:
        data["dynamic_paths"] = expansion.paths
    if expansion.default_values:
        data["dynamic_paths_default_value"] = expansion.default_values
    return declared, hidden, data


def build_nested_inputs(values: dict[str, Any], v3_data: V3Data) -> dict[str, Any]:
    """A call's values with those of dynamic inputs in nested dicts; those that are not there are None."""
    paths = v3_data.get("dynamic_paths")
    if paths is None:
        return values
    left = dict(values)
    nested: dict[str, Any] = {}
    default_values = v3_data.get("dynamic_paths_default_value", {})
    for name, path in paths.items():
        *parents, last = path.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        value = left.pop(name, None)
        if value is None and default_values.get(name) == EMPTY_DICT:
            value = {}
        target[last] = (value, name) if v3_data.get("create_dynamic_tuple") else value
    return {**left, **nested}
