"""Nodes under new names: what packages say a class that is gone is to be replaced by.

Of ComfyUI 0.14 (``PromptServer.instance.node_replace_manager``); the editor asks for the table (GET
/node_replacements) to repair workflows, and prompts that still name an old class are repaired when they are queued.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from . import node_registry
from .graph_utils import is_link

logger = logging.getLogger("discomfort.embedded.node_replacements")


class Replacement(Protocol):
    """What a package registers (``comfy_api``'s NodeReplace, or anything with these attributes)."""

    # the class_type that is gone, and the one that takes its place
    old_node_id: str
    new_node_id: str
    # [{"new_id": input, "old_id": input} or {"new_id": input, "set_value": value}, ...]; None: no inputs
    input_mapping: Sequence[Mapping[str, Any]] | None
    # [{"old_idx": output, "new_idx": output}, ...]; None: outputs stay as they are
    output_mapping: Sequence[Mapping[str, Any]] | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        ...


class NodeReplacements:
    """The table of one server."""

    def __init__(self) -> None:
        # Old class_type -> replacements; the first one is taken.
        self._table: dict[str, list[Replacement]] = {}

    def register(self, node_replace: Replacement) -> None:
        """Add a replacement; a second one of the same two names is ignored."""
        known = self._table.setdefault(node_replace.old_node_id, [])
        if all(entry.new_node_id != node_replace.new_node_id for entry in known):
            known.append(node_replace)

    def get_replacement(self, old_node_id: str) -> list[Replacement] | None:
        """What a class may be replaced by, None if nobody has said."""
        return self._table.get(old_node_id)

    def has_replacement(self, old_node_id: str) -> bool:
        """Whether somebody has said what a class is replaced by."""
        return old_node_id in self._table

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The table as JSON: old class_type -> replacements."""
        return {old: [entry.as_dict() for entry in entries] for old, entries in self._table.items()}

    def apply_replacements(self, prompt: dict[str, Any]) -> None:
        """Replace the nodes of a prompt, in place, whose class is not there and has a replacement that is."""
        if not self._table:
            return
        for node_id, node in prompt.items():
            replacement = self._replacement_of(node)
            if replacement is not None:
                logger.info("Node %s: %s is replaced by %s", node_id, node["class_type"], replacement.new_node_id)
                prompt[node_id] = _replaced(node, replacement)
                _move_links(prompt, node_id, replacement.output_mapping or ())

    def _replacement_of(self, node: Any) -> Replacement | None:
        """What a node is to be replaced by, if it is."""
        if not isinstance(node, dict) or "class_type" not in node or "inputs" not in node:
            return None
        classes = node_registry.NODE_CLASS_MAPPINGS
        if node["class_type"] in classes:
            return None
        first = next(iter(self._table.get(node["class_type"], ())), None)
        return first if first is not None and first.new_node_id in classes else None


def _replaced(node: dict[str, Any], replacement: Replacement) -> dict[str, Any]:
    """A node of the new class with the inputs the replacement says."""
    inputs = {}
    for entry in replacement.input_mapping or ():
        if "set_value" in entry:
            inputs[entry["new_id"]] = entry["set_value"]
        elif entry.get("old_id") in node["inputs"]:
            inputs[entry["new_id"]] = node["inputs"][entry["old_id"]]
    return {**node, "class_type": replacement.new_node_id, "inputs": inputs}


def _move_links(prompt: dict[str, Any], node_id: str, output_mapping: Sequence[Mapping[str, Any]]) -> None:
    """Let the links from a node begin at its new outputs."""
    slots = {entry["old_idx"]: entry["new_idx"] for entry in output_mapping}
    for node in prompt.values():
        inputs = node.get("inputs", {}) if isinstance(node, dict) else {}
        for name, value in inputs.items():
            if is_link(value) and value[0] == node_id and value[1] in slots:
                inputs[name] = [node_id, slots[value[1]]]
