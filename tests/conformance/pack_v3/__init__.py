"""A package of V3 nodes. It loads in ComfyUI 0.3.64 and later.

What later versions added is left out where it is not there.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import dynamic_nodes, picture_nodes, schema_nodes, tiny_nodes

WEB_DIRECTORY = "./web"


class TinyExtension(ComfyExtension):
    """The package."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*tiny_nodes.NODES, *schema_nodes.NODES, *dynamic_nodes.NODES, *picture_nodes.NODES]


async def comfy_entrypoint() -> TinyExtension:
    return TinyExtension()
