"""What is common to all outputs of a schema."""

from __future__ import annotations

from typing import Any

from .inputs import SchemaItem
from .options import prune_dict


class Output(SchemaItem):
    """An output of a node.

    Args:
        id: None: made from its position and type.
        display_name: its name in the editor; None: the type (0.3.64; later versions prefer the id).
        tooltip: what the editor says when the mouse rests on it.
        is_output_list: the node returns a list here, whose items are handed on one by one.
    """

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    def as_dict(self) -> dict[str, Any]:
        """The output's options."""
        return prune_dict(
            {
                "display_name": self.display_name or self.id,
                "tooltip": self.tooltip,
                "is_output_list": self.is_output_list,
            }
        )

    def get_io_type(self) -> Any:
        """The type's name in /object_info."""
        return self.io_type
