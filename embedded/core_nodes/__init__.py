"""The core nodes of the embedded server (table of contents): ComfyUI's nodes that need no model.

Importing this package imports no torch; each node does when it runs.
"""

from __future__ import annotations

from . import (
    animation,
    batches,
    boxes,
    canny,
    color_transfer,
    compositing,
    crop_to_mask,
    datasets,
    empty_latents,
    image,
    image_io,
    latent,
    latent_batch,
    latent_io,
    logic,
    mask,
    morphology,
    numbers,
    painter,
    picture_lists,
    post_processing,
    preview,
    primitive,
    resize_image_mask,
    save_image_advanced,
    save_text,
    svg,
    text,
    text_format,
    text_json,
    text_lists,
    text_overlay,
    tiles,
    yuv,
)
from .origin import ORIGINS

_FAMILIES = (
    image_io,
    save_image_advanced,
    animation,
    svg,
    image,
    resize_image_mask,
    batches,
    picture_lists,
    tiles,
    boxes,
    crop_to_mask,
    post_processing,
    color_transfer,
    canny,
    morphology,
    yuv,
    mask,
    compositing,
    painter,
    datasets,
    latent,
    latent_batch,
    empty_latents,
    latent_io,
    primitive,
    logic,
    numbers,
    text,
    text_json,
    text_lists,
    save_text,
    text_overlay,
    text_format,
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

for _name, _origin in ORIGINS.items():
    # As ComfyUI sets it when it loads its own nodes.
    NODE_CLASS_MAPPINGS[_name].RELATIVE_PYTHON_MODULE = _origin.module  # type: ignore[attr-defined]

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "ORIGINS"]
