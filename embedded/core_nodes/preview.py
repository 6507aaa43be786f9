"""Core nodes that show something on themselves: any value as text, two images to be compared, a histogram.

Names, inputs and results are those of ComfyUI 0.3.64, and of 0.33.0 for the nodes it added.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .image_io import METADATA_INPUTS, PreviewImage

if TYPE_CHECKING:
    from torch import Tensor


class AnyType(str):
    """A type name that fits every other one: it never differs from what a link brings.

    The server compares types with ``!=``, in either order, and JSON shows the plain text ``"*"``.
    """

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    # Defining a comparison would remove the hash; equality itself stays that of text.
    __hash__ = str.__hash__


class PreviewAny:
    """Show a value on the node."""

    RETURN_TYPES = ()
    FUNCTION = "main"
    OUTPUT_NODE = True
    CATEGORY = "utils"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": (AnyType("*"), {})}}

    def main(self, source: Any = None) -> dict[str, Any]:
        """The text in the ui result ``text``."""
        return {"ui": {"text": (as_text(source),)}}


def as_text(value: Any) -> str:
    """Text and numbers as they are, other data as JSON, what JSON cannot hold as Python shows it."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return str(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        try:
            return str(value)
        except Exception:
            # A broken __str__ of somebody's class must not fail the run.
            return "source exists, but could not be serialized."


def preview_images(images: Tensor, prefix: str = "ComfyUI") -> list[dict[str, str]]:
    """Save images ``[B, H, W, C]`` in the temp folder, without metadata; what names them in a ui result."""
    saved: list[dict[str, str]] = PreviewImage().save_images(images, prefix)["ui"]["images"]
    return saved


class ImageCompare:
    """Two images on the node, a slider between them."""

    RETURN_TYPES = ()
    FUNCTION = "execute"
    OUTPUT_NODE = True
    CATEGORY = "image"
    DESCRIPTION = "Compares two images side by side with a slider."
    EXPERIMENTAL = True
    ESSENTIALS_CATEGORY = "Image Tools"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"compare_view": ("IMAGECOMPARE", {"socketless": True})},
            "optional": {"image_a": ("IMAGE", {}), "image_b": ("IMAGE", {})},
            "hidden": METADATA_INPUTS,
        }

    def execute(
        self,
        image_a: Tensor | None = None,
        image_b: Tensor | None = None,
        compare_view: Any = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """The ui result names the saved files of both, in ``a_images`` and ``b_images``."""
        return {
            "ui": {
                f"{side}_images": [] if images is None or not len(images) else preview_images(images, prefix)
                for side, images, prefix in (("a", image_a, "comfy.compare.a"), ("b", image_b, "comfy.compare.b"))
            }
        }


# How much of each colour is brightness (ITU-R BT.709).
_LUMINANCE = (0.2126, 0.7152, 0.0722)


class ImageHistogram:
    """How many pixels there are of each brightness."""

    RETURN_TYPES = ("HISTOGRAM",) * 5
    RETURN_NAMES = ("rgb", "luminance", "red", "green", "blue")
    FUNCTION = "execute"
    CATEGORY = "utilities"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {})}}

    def execute(self, image: Tensor) -> tuple[list[int], ...]:
        """Five times 256 numbers, of the first image: the colours' mean, the luminance, red, green, blue.

        Raises:
            IndexError: the image has no colours.
        """
        pixels = image[0].cpu().numpy()
        colors = [_histogram(pixels[..., channel]) for channel in range(3)]
        luminance = sum(weight * pixels[..., channel] for channel, weight in enumerate(_LUMINANCE))
        mean = [sum(counts) // 3 for counts in zip(*colors, strict=True)]
        return (mean, _histogram(luminance), *colors)


def _histogram(values: Any) -> list[int]:
    """How many values, rounded down to 1/255, there are of each."""
    import numpy as np

    counts: list[int] = np.bincount(np.clip(values * 255, 0, 255).astype(np.uint8).ravel(), minlength=256).tolist()
    return counts


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "PreviewAny": PreviewAny,
    "ImageCompare": ImageCompare,
    "ImageHistogram": ImageHistogram,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "PreviewAny": "Preview Any",
    "ImageCompare": "Compare Images",
    "ImageHistogram": "Image Histogram",
}
