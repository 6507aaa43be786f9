"""A package of V3 nodes. It loads in ComfyUI 0.3.64 and later.

What later versions added is left out where it is not there.
"""

from __future__ import annotations

import asyncio
import logging

from comfy_api.latest import ComfyAPI, ComfyExtension, io

from . import dynamic_nodes, picture_nodes, schema_nodes, tiny_nodes

WEB_DIRECTORY = "./web"


class TinyExtension(ComfyExtension):
    """The package."""

    async def on_load(self) -> None:
        logging.warning("tiny_v3 is told that it is loaded, in a loop: %s", asyncio.get_running_loop().is_running())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*tiny_nodes.NODES, *schema_nodes.NODES, *dynamic_nodes.NODES, *picture_nodes.NODES]


async def comfy_entrypoint() -> TinyExtension:
    if hasattr(io, "NodeReplace"):
        replacement = io.NodeReplace(
            new_node_id="V3Add",
            old_node_id="V3OldAdd",
            old_widget_ids=["x"],
            input_mapping=[{"new_id": "a", "old_id": "x"}, {"new_id": "b", "set_value": 5}],
            output_mapping=[{"new_idx": 0, "old_idx": 1}],
        )
        await ComfyAPI().node_replacement.register(replacement)
    return TinyExtension()
