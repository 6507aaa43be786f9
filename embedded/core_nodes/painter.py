"""The core node for what is painted in the editor.

Name, inputs and results are those of ComfyUI 0.33.0.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import folder_paths
from .image_io import content_hash, open_picture, to_tensor
from .preview import preview_images

if TYPE_CHECKING:
    from torch import Tensor


class Painter:
    """A painting over an image or a colour, and where something was painted."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "execute"
    CATEGORY = "image"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"hidden": True, "default": 512, "socketless": True, "min": 64, "max": 4096, "step": 64}
        mask = {"widgetType": "PAINTER", "image_upload": True, "default": "", "socketless": True, "multiline": False}
        return {
            "required": {
                "mask": ("STRING", mask),
                "width": ("INT", side),
                "height": ("INT", side),
                "bg_color": ("COLOR", {"default": "#000000", "socketless": True}),
            },
            "optional": {"image": ("IMAGE", {"tooltip": "Optional base image to paint over"})},
        }

    def execute(
        self, mask: str, width: int, height: int, bg_color: str = "#000000", image: Tensor | None = None
    ) -> dict[str, Any]:
        """The painting, which is also shown on the node.

        Args:
            mask: the painting's file, a name in the input folder or annotated; empty for none. It is stretched to
                the size of what it lies on.
            width, height: in pixels, where there is no ``image``.
            bg_color: ``#rrggbb``; everything else is black.
            image: only the first one of a batch counts; RGB where something is painted.

        Returns:
            ``[1, H, W, 3]`` and the painting's alpha ``[1, H, W]``.

        Raises:
            OSError: the file is missing or no image Pillow can read.
            ValueError: the colour has other characters than hexadecimal digits.
        """
        import torch

        base = _solid(bg_color, width, height) if image is None else image[:1]
        if mask.strip():
            painting = _painting(mask, base.shape[2], base.shape[1])
            alpha = painting[..., 3:]
            result = painting[..., :3] * alpha + base.cpu() * (1.0 - alpha)
            painted = alpha[..., 0]
        else:
            result, painted = base, torch.zeros((1, *base.shape[1:3]))
        return {"ui": {"images": preview_images(result), "animated": (False,)}, "result": (result, painted)}

    @classmethod
    def IS_CHANGED(
        cls, mask: str, width: int, height: int, bg_color: str = "#000000", image: Tensor | None = None
    ) -> str:
        if not mask.strip() or not os.path.exists(folder_paths.get_annotated_filepath(mask)):
            return ""
        return content_hash(mask)


def _solid(color: str, width: int, height: int) -> Tensor:
    """An image of one colour, ``#rrggbb``, ``[1, height, width, 3]``."""
    import torch

    digits = color.lstrip("#")
    rgb = [int(digits[start : start + 2], 16) / 255.0 for start in (0, 2, 4)] if len(digits) == 6 else [0.0] * 3
    return torch.tensor(rgb, dtype=torch.float32).repeat(1, height, width, 1)


def _painting(name: str, width: int, height: int) -> Tensor:
    """A file as RGBA ``[1, height, width, 4]``."""
    from PIL import Image

    with open_picture(folder_paths.get_annotated_filepath(name)) as opened:
        picture = opened.convert("RGBA")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return to_tensor(picture)[None]


NODE_CLASS_MAPPINGS: dict[str, type] = {"Painter": Painter}

NODE_DISPLAY_NAME_MAPPINGS = {"Painter": "Painter"}
