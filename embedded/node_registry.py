"""The node classes the server knows, by the names prompts use (``nodes`` for node packages).

Packages also find ComfyUI's own node classes as attributes here (``class MySave(nodes.SaveImage)``): see
``recorded_names.py``.
"""

from __future__ import annotations

from typing import Any

from . import model_management

# The largest edge length, in pixels, that ComfyUI's size inputs allow.
MAX_RESOLUTION = 16384

# class_type -> class, core nodes first.
NODE_CLASS_MAPPINGS: dict[str, Any] = {}
# class_type -> title in the editor; a class without one shows its class_type.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
# Name in the URL /extensions/<name>/ -> folder of browser files.
EXTENSION_WEB_DIRS: dict[str, str] = {}
# Name of a loaded package (its path without .py for single files) -> its folder.
LOADED_MODULE_DIRS: dict[str, str] = {}


def interrupt_processing(value: bool = True) -> None:
    """Ask the running prompt to stop at its next check, or (False) withdraw that."""
    model_management.interrupt_current_processing(value)


def before_node_execution() -> None:
    """Called before every call of a node.

    Raises:
        InterruptProcessingException: the prompt was interrupted.
    """
    model_management.throw_exception_if_processing_interrupted()
