"""What a package's ``comfy_entrypoint()`` returns."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .node import ComfyNode


class ComfyExtension(ABC):
    """A package of V3 nodes."""

    async def on_load(self) -> None:  # noqa: B027 - nothing to do unless a package has something
        """Called once, before the nodes are asked for."""

    @abstractmethod
    async def get_node_list(self) -> list[type[ComfyNode]]:
        """The classes of its nodes."""
