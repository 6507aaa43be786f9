"""Loading node packages of the V3 API: a module with ``comfy_entrypoint()`` instead of NODE_CLASS_MAPPINGS.

The function, or coroutine function, returns a ``ComfyExtension``, which lists the classes of its nodes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from types import ModuleType
from typing import Any

from . import node_registry
from .node_api.extension import ComfyExtension

logger = logging.getLogger("discomfort.embedded.extensions")


async def register_extension(module: ModuleType, short_name: str, where: str, reserved: Collection[str]) -> bool:
    """Add the V3 nodes of a package. As in ComfyUI, the nodes before one whose schema is wrong stay.

    Args:
        short_name: its name in ``python_module``.
        where: its path, for the log.
        reserved: class types it may not define; they are left out silently.

    Returns:
        Whether it could be loaded; the reason why not is logged.
    """
    entrypoint = module.comfy_entrypoint
    if not callable(entrypoint):
        logger.warning("comfy_entrypoint in %s is not callable, skipping.", where)
        return False
    try:
        extension = entrypoint()
        if inspect.isawaitable(extension):
            extension = await extension
        if not isinstance(extension, ComfyExtension):
            logger.warning("comfy_entrypoint in %s did not return a ComfyExtension, skipping.", where)
            return False
        await extension.on_load()
        node_classes = await extension.get_node_list()
        if not isinstance(node_classes, list):
            logger.warning("comfy_entrypoint in %s did not return a list of nodes, skipping.", where)
            return False
        for node_class in node_classes:
            _add_v3_node(node_class, short_name, reserved)
    except Exception as exc:
        logger.warning("Error while calling comfy_entrypoint in %s: %s", where, exc, exc_info=True)
        return False
    return True


def _add_v3_node(node_class: Any, short_name: str, reserved: Collection[str]) -> None:
    """Add one V3 node.

    Raises:
        Exception: its schema is wrong, or it has none.
    """
    schema = node_class.GET_SCHEMA()
    if schema.node_id not in reserved:
        node_registry.NODE_CLASS_MAPPINGS[schema.node_id] = node_class
        node_class.RELATIVE_PYTHON_MODULE = f"custom_nodes.{short_name}"
    if schema.display_name is not None:
        node_registry.NODE_DISPLAY_NAME_MAPPINGS[schema.node_id] = schema.display_name
