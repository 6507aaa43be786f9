"""Core nodes that cut an image into overlapping tiles, and put it together again.

Names, inputs and results are those of ComfyUI 0.33.0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

_OVERLAP = ("INT", {"default": 128, "min": 0, "max": 4096})
_SEARCH_ALIASES = ("split image", "tile image", "slice image")
# The least a tile counts at its edge.
_LOWEST_WEIGHT = 1e-5


class SplitImageToTileList:
    """An image as a list of tiles."""

    OUTPUT_IS_LIST = (True,)
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/batch"
    DESCRIPTION = "Splits an image into a batched list of tiles with a specified overlap."
    SEARCH_ALIASES = _SEARCH_ALIASES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 1024, "min": 64, "max": MAX_RESOLUTION}
        return {
            "required": {
                "image": ("IMAGE", {}),
                "tile_width": ("INT", side),
                "tile_height": ("INT", side),
                "overlap": _OVERLAP,
            }
        }

    def execute(self, image: Tensor, tile_width: int, tile_height: int, overlap: int) -> tuple[list[Tensor]]:
        """Views ``[B, h, w, C]``, row by row; the last ones are moved back to end where the image does."""
        height, width = image.shape[1:3]
        places = _places(width, height, tile_width, tile_height, overlap)
        return ([image[:, rows, columns] for rows, columns in places],)


class ImageMergeTileList:
    """An image from a list of tiles."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (False,)
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/batch"
    SEARCH_ALIASES = _SEARCH_ALIASES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 1024, "min": 64, "max": 32768}
        return {
            "required": {
                "image_list": ("IMAGE", {}),
                "final_width": ("INT", side),
                "final_height": ("INT", side),
                "overlap": _OVERLAP,
            }
        }

    def execute(
        self, image_list: list[Tensor], final_width: list[int], final_height: list[int], overlap: list[int]
    ) -> tuple[Tensor]:
        """The tiles where SplitImageToTileList took them from, mixed where they overlap.

        Args:
            image_list: the tiles ``[B, h, w, C]``, all of the first one's size or smaller; beyond the places there
                are, they are left out. Where none comes to lie, the image is black.
            final_width, final_height, overlap: those of the image that was cut.
        """
        import torch

        first = image_list[0]
        batch, tile_height, tile_width, channels = first.shape
        width, height = final_width[0], final_height[0]
        weight = _weight(first) if overlap[0] > 0 else first.new_ones((1, tile_height, tile_width, 1))
        total = first.new_zeros((batch, height, width, channels))
        weights = first.new_zeros((batch, height, width, 1))
        for tile, place in zip(image_list, _places(width, height, tile_width, tile_height, overlap[0]), strict=False):
            rows, columns = (
                slice(span.start, min(span.stop, span.start + length))
                for span, length in zip(place, tile.shape[1:3], strict=True)
            )
            inside = (slice(None), slice(rows.stop - rows.start), slice(columns.stop - columns.start))
            total[:, rows, columns] += tile[inside] * weight[inside]
            weights[:, rows, columns] += weight[inside]
        return (total / torch.where(weights == 0, 1.0, weights),)


def _places(width: int, height: int, tile_width: int, tile_height: int, overlap: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each tile, row by row."""
    rows, columns = _spans(height, tile_height, overlap), _spans(width, tile_width, overlap)
    return [(row, column) for row in rows for column in columns]


def _spans(length: int, tile: int, overlap: int) -> list[slice]:
    """Where the tiles of one direction lie: a quarter of a tile apart at least.

    Raises:
        ValueError: the tiles are so small that this is no pixel. (ComfyUI goes on without end there.)
    """
    step = round(max(tile * 0.25, tile - overlap))
    if step < 1:
        raise ValueError(f"tiles of {tile} pixels that overlap by {overlap} never reach the end; take larger tiles")
    spans = []
    for start in range(0, length, step):
        end = min(start + tile, length)
        spans.append(slice(max(0, end - tile), end))
        if end >= length:
            break
    return spans


def _weight(tile: Tensor) -> Tensor:
    """How much each pixel of a tile counts ``[1, h, w, 1]``: half a sine wave in both directions."""
    import torch

    rows, columns = (
        torch.sin(math.pi * torch.linspace(0, 1, length, device=tile.device, dtype=tile.dtype)).clamp(
            min=_LOWEST_WEIGHT
        )
        for length in tile.shape[1:3]
    )
    return (rows[:, None] * columns)[None, ..., None]


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SplitImageToTileList": SplitImageToTileList,
    "ImageMergeTileList": ImageMergeTileList,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SplitImageToTileList": "Split Image into List of Tiles",
    "ImageMergeTileList": "Merge List of Tiles to Image",
}
