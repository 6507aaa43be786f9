"""What a package says of a node that took the place of another: the editor offers to exchange them."""

from __future__ import annotations

from typing import Any, TypedDict


class InputMapOldId(TypedDict):
    """An input of the new node that gets what an input of the old one had."""

    new_id: str
    old_id: str


class InputMapSetValue(TypedDict):
    """An input of the new node that gets a value."""

    new_id: str
    set_value: Any


InputMap = InputMapOldId | InputMapSetValue


class OutputMap(TypedDict):
    """An output of the new node that takes the place of one of the old node."""

    new_idx: int
    old_idx: int


class NodeReplace:
    """A replacement.

    Args:
        new_node_id, old_node_id: class types.
        old_widget_ids: the old node's widgets in order: a workflow has their values by position.
        input_mapping, output_mapping: what becomes of its inputs and outputs.
    """

    def __init__(
        self,
        new_node_id: str,
        old_node_id: str,
        old_widget_ids: list[str] | None = None,
        input_mapping: list[InputMap] | None = None,
        output_mapping: list[OutputMap] | None = None,
    ) -> None:
        self.new_node_id = new_node_id
        self.old_node_id = old_node_id
        self.old_widget_ids = old_widget_ids
        self.input_mapping: Any = input_mapping
        self.output_mapping: Any = output_mapping

    def as_dict(self) -> dict[str, Any]:
        """As GET /node_replacements has it; an empty mapping is None."""
        return {
            "new_node_id": self.new_node_id,
            "old_node_id": self.old_node_id,
            "old_widget_ids": self.old_widget_ids,
            "input_mapping": list(self.input_mapping) if self.input_mapping else None,
            "output_mapping": list(self.output_mapping) if self.output_mapping else None,
        }
