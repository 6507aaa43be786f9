"""Core nodes that split an image into brightness and colour, and join them again.

The conversion is the one kornia calls YCbCr (ITU-R BT.601, full range, colour centred on 0.5). Results are those of
ComfyUI 0.3.64 with kornia 0.9, which it calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# How much of red, green and blue is brightness (ITU-R BT.601); they add up to 1.
LUMA = (0.299, 0.587, 0.114)
_RED, _GREEN, _BLUE = LUMA
# What the differences of blue and red to the brightness are scaled by, to fit into 0..1.
_BLUENESS, _REDNESS = 0.564, 0.713


class ImageRGBToYUV:
    """An image as brightness and two colour differences."""

    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("Y", "U", "V")
    FUNCTION = "execute"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {})}}

    def execute(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three grey images, views with equal channels; 0.5 is no colour.

        Raises:
            ValueError: the image is not RGB.
        """
        if image.shape[-1] != 3:
            raise ValueError(f"ImageRGBToYUV takes RGB images, this one has {image.shape[-1]} channels")
        red, green, blue = (image[..., channel : channel + 1] for channel in range(3))
        luma = _RED * red + _GREEN * green + _BLUE * blue
        parts = (luma, (blue - luma) * _BLUENESS + 0.5, (red - luma) * _REDNESS + 0.5)
        luma, blueness, redness = (part.expand_as(image) for part in parts)
        return (luma, blueness, redness)


class ImageYUVToRGB:
    """An image from brightness and two colour differences."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"Y": ("IMAGE", {}), "U": ("IMAGE", {}), "V": ("IMAGE", {})}}

    def execute(self, Y: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor]:
        """The mean of each input's channels counts; the result is kept within 0..1."""
        import torch

        luma, blueness, redness = (part.mean(dim=-1) for part in (Y, U, V))
        red_difference, blue_difference = (redness - 0.5) / _REDNESS, (blueness - 0.5) / _BLUENESS
        # What red and blue have more than the brightness, green has less, by their shares.
        green_difference = -(_RED * red_difference + _BLUE * blue_difference) / _GREEN
        differences = torch.stack((red_difference, green_difference, blue_difference), dim=-1)
        return ((luma[..., None] + differences).clamp(0, 1),)


NODE_CLASS_MAPPINGS: dict[str, type] = {"ImageRGBToYUV": ImageRGBToYUV, "ImageYUVToRGB": ImageYUVToRGB}

# ComfyUI gives these no display names.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
