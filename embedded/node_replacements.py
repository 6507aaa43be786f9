"""Nodes that took the place of others: prompts with the old ones run all the same (ComfyUI 0.29.0).

Packages register them by ``ComfyAPI().node_replacement.register(...)``; the editor asks for the list to offer the
exchange in workflows.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import node_registry
from .graph_utils import is_link

if TYPE_CHECKING:
    from .node_api.node_replacement import NodeReplace

logger = logging.getLogger("discomfort.embedded.node_replacements")


class NodeReplaceManager:
    """The replacements of a server (``PromptServer.instance.node_replace_manager``)."""

    def __init__(self) -> None:
        # class_type of the old node -> its replacements; the first one is used.
        self._replacements: dict[str, list[NodeReplace]] = {}

    def register(self, node_replace: NodeReplace) -> None:
        """Add a replacement, unless there is one of these two nodes."""
        known = self._replacements.setdefault(node_replace.old_node_id, [])
        if any(entry.new_node_id == node_replace.new_node_id for entry in known):
            logger.debug("%s is replaced by %s already", node_replace.old_node_id, node_replace.new_node_id)
            return
        known.append(node_replace)

    def get_replacement(self, old_node_id: str) -> list[NodeReplace] | None:
        """The replacements of a class_type, None if it has none."""
        return self._replacements.get(old_node_id)

    def has_replacement(self, old_node_id: str) -> bool:
        """Whether a class_type has a replacement."""
        return old_node_id in self._replacements

    def apply_replacements(self, prompt: dict[str, Any]) -> None:
        """Put the new nodes in place of old ones the server does not have, in the prompt itself.

        Inputs that are not mapped are left out, links from outputs that are not mapped stay as they are.
        """
        for node_id, node in list(prompt.items()):
            if not isinstance(node, dict) or "inputs" not in node:
                continue
            class_type = node.get("class_type")
            if class_type in node_registry.NODE_CLASS_MAPPINGS or class_type not in self._replacements:
                continue
            replacement = self._replacements[class_type][0]
            if replacement.new_node_id in node_registry.NODE_CLASS_MAPPINGS:
                prompt[node_id] = {
                    **node,
                    "class_type": replacement.new_node_id,
                    "inputs": _map_inputs(node["inputs"], replacement),
                }
                _map_outputs(prompt, node_id, replacement)

    def as_dict(self) -> dict[str, Any]:
        """The answer of GET /node_replacements."""
        return {old: [entry.as_dict() for entry in entries] for old, entries in self._replacements.items()}

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Add the route the editor asks."""

        @routes.get("/node_replacements")
        async def get_node_replacements(_: web.Request) -> web.Response:
            return web.json_response(self.as_dict())


def _map_inputs(inputs: dict[str, Any], replacement: NodeReplace) -> dict[str, Any]:
    """The new node's inputs.

    Raises:
        KeyError: the prompt's node lacks an input that is mapped.
    """
    mapped: dict[str, Any] = {}
    for entry in replacement.input_mapping or ():
        if "set_value" in entry:
            mapped[entry["new_id"]] = entry["set_value"]  # type: ignore[typeddict-item]
        elif "old_id" in entry:
            mapped[entry["new_id"]] = inputs[entry["old_id"]]
    return mapped


def _map_outputs(prompt: dict[str, Any], node_id: str, replacement: NodeReplace) -> None:
    """Let what is linked to the old node's outputs be linked to the new one's."""
    slots = {entry["old_idx"]: entry["new_idx"] for entry in replacement.output_mapping or ()}
    for node in prompt.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for value in (inputs or {}).values():
            if is_link(value) and value[0] == node_id and value[1] in slots:
                value[1] = slots[value[1]]
