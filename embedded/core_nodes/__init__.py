"""The core nodes of the embedded server (table of contents): ComfyUI's nodes that need no model.

Importing this package imports no torch; each node does when it runs.
"""

from __future__ import annotations

from . import image, image_io, latent, mask, post_processing, preview, primitive

_FAMILIES = (image_io, image, post_processing, mask, latent, primitive, preview)

# class_type -> class, in the order the editor is told.
NODE_CLASS_MAPPINGS: dict[str, type] = {}
# class_type -> title in the editor; a class without one shows its class_type.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}

for _family in _FAMILIES:
    NODE_CLASS_MAPPINGS.update(_family.NODE_CLASS_MAPPINGS)
    NODE_DISPLAY_NAME_MAPPINGS.update(_family.NODE_DISPLAY_NAME_MAPPINGS)

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
