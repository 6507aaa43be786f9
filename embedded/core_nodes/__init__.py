"""The core nodes of the embedded server (table of contents): ComfyUI's nodes that need no model.

Importing this package imports no torch; each node does when it runs.
"""

from __future__ import annotations

from . import (
    animation,
    compositing,
    image,
    image_io,
    latent,
    mask,
    morphology,
    post_processing,
    preview,
    primitive,
    text,
    yuv,
)

_FAMILIES = (
    image_io,
    animation,
    image,
    post_processing,
    morphology,
    yuv,
    mask,
    compositing,
    latent,
    primitive,
    text,
    preview,
)

# class_type -> class, in the order the editor is told.
NODE_CLASS_MAPPINGS: dict[str, type] = {
    name: node_class for family in _FAMILIES for name, node_class in family.NODE_CLASS_MAPPINGS.items()
}
# class_type -> title in the editor; a class without one shows its class_type.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    name: title for family in _FAMILIES for name, title in family.NODE_DISPLAY_NAME_MAPPINGS.items()
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
