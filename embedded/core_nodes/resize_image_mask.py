"""The core node that resizes images and masks in all ways. As ComfyUI 0.33.0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..node_api import io
from ..node_registry import MAX_RESOLUTION
from .resize import common_upscale

if TYPE_CHECKING:
    from torch import Tensor

# Width and height in pixels.
Size = tuple[int, int]

_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


def _edge(name: str, tooltip: str) -> Any:
    """A length in pixels."""
    return io.Int.Input(name, default=512, min=0, max=MAX_RESOLUTION, step=1, tooltip=tooltip)


def _crop() -> Any:
    """What to do with other proportions."""
    tooltip = (
        "How to handle aspect ratio mismatch: 'disabled' stretches to fit, 'center' crops to maintain aspect ratio."
    )
    return io.Combo.Input("crop", options=["disabled", "center"], default="center", tooltip=tooltip)


def _options() -> list[Any]:
    """The ways to say a size, each with what it needs."""
    zero = "Set to 0 to auto-calculate from {} while preserving aspect ratio."
    inputs: dict[str, list[Any]] = {
        "scale dimensions": [
            _edge("width", f"Target width in pixels. {zero.format('height')}"),
            _edge("height", f"Target height in pixels. {zero.format('width')}"),
            _crop(),
        ],
        "scale by multiplier": [
            io.Float.Input(
                "multiplier",
                default=1.00,
                min=0.01,
                max=8.0,
                step=0.01,
                tooltip="Scale factor (e.g., 2.0 doubles size, 0.5 halves size).",
            )
        ],
        "scale longer dimension": [
            _edge("longer_size", "The longer edge will be resized to this value. Aspect ratio is preserved.")
        ],
        "scale shorter dimension": [
            _edge("shorter_size", "The shorter edge will be resized to this value. Aspect ratio is preserved.")
        ],
        "scale width": [_edge("width", "Target width in pixels. Height auto-adjusts to preserve aspect ratio.")],
        "scale height": [_edge("height", "Target height in pixels. Width auto-adjusts to preserve aspect ratio.")],
        "scale total pixels": [
            io.Float.Input(
                "megapixels",
                default=1.0,
                min=0.01,
                max=16.0,
                step=0.01,
                tooltip="Target total megapixels (e.g., 1.0 \u2248 1024\u00d71024). Aspect ratio is preserved.",
            )
        ],
        "match size": [
            io.MultiType.Input(
                "match",
                [io.Image, io.Mask],
                tooltip="Resize input to match the dimensions of this reference image or mask.",
            ),
            _crop(),
        ],
        "scale to multiple": [
            io.Int.Input(
                "multiple",
                default=8,
                min=1,
                max=MAX_RESOLUTION,
                step=1,
                tooltip=(
                    "Resize so width and height are divisible by this number. Useful for latent alignment "
                    "(e.g., 8 or 64)."
                ),
            )
        ],
    }
    return [io.DynamicCombo.Option(key, items) for key, items in inputs.items()]


# The ways that scale to edges, of which 0 is none.
_BY_EDGES = ("scale dimensions", "scale width", "scale height")


# -- sizes -------------------------------------------------------------------------------------------------------


def _by_edges(size: Size, width: int, height: int) -> Size:
    """These lengths, one of which may be 0: by the proportions."""
    if width == 0:
        return max(1, round(size[0] * height / size[1])), height
    if height == 0:
        return width, max(1, round(size[1] * width / size[0]))
    return width, height


def _by_one_edge(size: Size, length: int, longer: bool) -> Size:
    """The longer or shorter edge of this length, the other by the proportions."""
    width, height = size
    if width == height:
        return length, length
    if (width > height) is longer:
        return length, round(height / width * length)
    return round(width / height * length), length


def _by_area(size: Size, megapixels: float) -> Size:
    """The same proportions with this many times 1024 * 1024 pixels."""
    scale = math.sqrt(int(megapixels * 1024 * 1024) / (size[0] * size[1]))
    return round(size[0] * scale), round(size[1] * scale)


_SIZES: dict[str, Callable[[Size, dict[str, Any]], Size]] = {
    "scale by multiplier": lambda size, chosen: (
        round(size[0] * chosen["multiplier"]),
        round(size[1] * chosen["multiplier"]),
    ),
    "scale dimensions": lambda size, chosen: _by_edges(size, chosen["width"], chosen["height"]),
    "scale width": lambda size, chosen: _by_edges(size, chosen["width"], 0),
    "scale height": lambda size, chosen: _by_edges(size, 0, chosen["height"]),
    "scale longer dimension": lambda size, chosen: _by_one_edge(size, chosen["longer_size"], True),
    "scale shorter dimension": lambda size, chosen: _by_one_edge(size, chosen["shorter_size"], False),
    "scale total pixels": lambda size, chosen: _by_area(size, chosen["megapixels"]),
    "match size": lambda size, chosen: _size_of(_channels_first(chosen["match"])),
}


def _channels_first(picture: Tensor) -> Tensor:
    """An image ``[B, H, W, C]`` or a mask ``[B, H, W]`` as ``[B, C, H, W]``."""
    return picture.movedim(-1, 1) if picture.ndim == 4 else picture.unsqueeze(1)


def _size_of(samples: Tensor) -> Size:
    """Of ``[B, C, H, W]``."""
    return samples.shape[-1], samples.shape[-2]


def _cover_multiple(samples: Tensor, multiple: int, method: str) -> Tensor:
    """Scaled to just cover the next smaller multiples, and cut to them from the middle; as it is if that is 0."""
    size = _size_of(samples)
    target = size[0] // multiple * multiple, size[1] // multiple * multiple
    if 0 in target or target == size:
        return samples
    scales = target[0] / size[0], target[1] / size[1]
    if scales[0] >= scales[1]:
        covering = target[0], max(math.ceil(size[1] * scales[0]), target[1])
    else:
        covering = max(math.ceil(size[0] * scales[1]), target[0]), target[1]
    scaled = common_upscale(samples, *covering, method, "disabled")
    left, top = ((c - t) // 2 for c, t in zip(covering, target, strict=True))
    return scaled[..., top : top + target[1], left : left + target[0]]


class ResizeImageMaskNode(io.ComfyNode):
    """An image or a mask in another size."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_post_processing"

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("input_type", [io.Image, io.Mask])
        aliases = [
            "resize",
            "resize image",
            "resize mask",
            "scale",
            "scale image",
            "scale mask",
            "image resize",
            "change size",
            "dimensions",
            "shrink",
            "enlarge",
        ]
        return io.Schema(
            node_id="ResizeImageMaskNode",
            display_name="Resize Image/Mask",
            description="Resize an image or mask using various scaling methods.",
            category="image/transform",
            search_aliases=aliases,
            inputs=[
                io.MatchType.Input("input", template=template),
                io.DynamicCombo.Input(
                    "resize_type",
                    tooltip=("Select how to resize: by exact dimensions, scale factor, matching another image, etc."),
                    options=_options(),
                ),
                io.Combo.Input(
                    "scale_method",
                    options=_METHODS,
                    default="area",
                    tooltip=(
                        "Interpolation algorithm. 'area' is best for downscaling, 'lanczos' for upscaling, "
                        "'nearest-exact' for pixel art."
                    ),
                ),
            ],
            outputs=[io.MatchType.Output(template=template, display_name="resized")],
        )

    @classmethod
    def execute(cls, input: Tensor, scale_method: str, resize_type: dict[str, Any]) -> io.NodeOutput:
        """Of the same kind as the input, ``[B, H, W, C]`` or ``[B, H, W]``.

        Raises:
            ValueError: no such way.
            RuntimeError: the new size is empty.
        """
        way = resize_type["resize_type"]
        samples = _channels_first(input)
        if way == "scale to multiple":
            resized = _cover_multiple(samples, resize_type["multiple"], scale_method)
        elif way not in _SIZES:
            raise ValueError(f"Unsupported resize type: {way}")
        elif way in _BY_EDGES and not (resize_type.get("width") or resize_type.get("height")):
            # Nothing to scale to. (Scaled to its own size, a picture would lose what 8 bits do not hold: lanczos.)
            resized = samples
        else:
            size = _SIZES[way](_size_of(samples), resize_type)
            resized = common_upscale(samples, *size, scale_method, resize_type.get("crop", "disabled"))
        return io.NodeOutput(resized.movedim(1, -1) if input.ndim == 4 else resized.squeeze(1))


NODE_CLASS_MAPPINGS: dict[str, type] = {"ResizeImageMaskNode": ResizeImageMaskNode}
NODE_DISPLAY_NAME_MAPPINGS = {"ResizeImageMaskNode": "Resize Image/Mask"}
