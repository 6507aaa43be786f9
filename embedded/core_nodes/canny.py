"""The core node that finds edges.

The steps are those of the operator kornia 0.9 calls ``canny``, which ComfyUI 0.3.64 calls: grey, a blur, the gradient,
its ridges, two thresholds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .yuv import LUMA

if TYPE_CHECKING:
    from torch import Tensor

# The blur before the gradient, in pixels.
_BLUR_RADIUS, _BLUR_SIGMA = 2, 1.0
# Keeps a gradient's length away from 0.
_EPSILON = 1e-6
# The neighbour in each of the eight directions as (rows down, columns right), from right clockwise by 45 degrees.
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
# Towards these (right and down) a pixel is on a ridge also if its neighbour is as high: of two equal ones, the left or
# upper one stays.
_TIES_ALLOWED = (0, 2)

_THRESHOLD_RANGE = {"min": 0.01, "max": 0.99, "step": 0.01}


class Canny:
    """The edges of an image, white on black."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/preprocessors"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {}),
                "low_threshold": ("FLOAT", {"default": 0.4, **_THRESHOLD_RANGE}),
                "high_threshold": ("FLOAT", {"default": 0.8, **_THRESHOLD_RANGE}),
            }
        }

    def execute(self, image: Tensor, low_threshold: float, high_threshold: float) -> tuple[Tensor]:
        """Edges stronger than ``high_threshold``, and those above ``low_threshold`` that touch them.

        Args:
            image: RGB ``[B, H, W, 3]`` or grey ``[B, H, W, 1]``, more than 2 pixels a side.
            low_threshold, high_threshold: lengths of the Sobel gradient; black beside white is about 2.6.

        Returns:
            ``[B, H, W, 3]`` of 0 and 1.

        Raises:
            ValueError: the image has an alpha channel, or ``low_threshold`` is larger than ``high_threshold`` or not
                above 0.
            RuntimeError: the image is too small for the blur.
        """
        if image.shape[-1] not in (1, 3):
            raise ValueError(f"Canny takes RGB or grey images, this one has {image.shape[-1]} channels")
        if not 0 < low_threshold <= high_threshold:
            raise ValueError(
                f"low_threshold ({low_threshold}) must be above 0 and not larger than high_threshold ({high_threshold})"
            )
        down, right = _gradient(_blurred(_grey(image)))
        edges = _connected(_ridges(down, right), low_threshold, high_threshold)
        return (edges.float()[..., None].repeat(1, 1, 1, 3),)

    # The name ComfyUI keeps for packages that call the node.
    detect_edge = execute


def _grey(image: Tensor) -> Tensor:
    """An image's brightness ``[B, 1, H, W]``."""
    channels = image.movedim(-1, 0)
    if len(channels) == 1:
        return channels[0][:, None]
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, channels, strict=True))
    grey: Tensor = red + green + blue
    return grey[:, None]


def _blurred(grey: Tensor) -> Tensor:
    """A Gaussian blur of ``[B, 1, H, W]``, the edges mirrored."""
    import torch
    from torch.nn.functional import conv2d, pad

    distance = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=grey.device, dtype=grey.dtype)
    kernel = torch.exp(-distance.square() / (2 * _BLUR_SIGMA**2))
    kernel = kernel / kernel.sum()
    padded = pad(grey, (_BLUR_RADIUS,) * 4, mode="reflect")
    blurred: Tensor = conv2d(conv2d(padded, kernel.reshape(1, 1, 1, -1)), kernel.reshape(1, 1, -1, 1))
    return blurred


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """The Sobel gradient of ``[B, 1, H, W]``, downwards and to the right, ``[B, H, W]`` each."""
    import torch
    from torch.nn.functional import conv2d, pad

    right = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(grey)
    both = conv2d(pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack((right.T, right))[:, None])
    return both[:, 0], both[:, 1]


def _ridges(down: Tensor, right: Tensor) -> Tensor:
    """The gradient's length ``[B, H, W]`` where it is the largest in its own direction, else 0."""
    import torch
    from torch.nn.functional import pad

    height, width = down.shape[-2:]
    lengths = torch.sqrt(pad(right, (1, 1, 1, 1)).square() + pad(down, (1, 1, 1, 1)).square() + _EPSILON)
    length = lengths[:, 1:-1, 1:-1]
    around = torch.stack(
        [lengths[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _DIRECTIONS],
    )
    direction = (torch.atan2(down, right) * (4 / math.pi)).round().long()
    is_ridge = length > math.sqrt(_EPSILON)
    for turn in (0, 4):
        towards = (direction + turn) % 8
        neighbour = around.gather(0, towards[None])[0]
        tie_allowed = (towards == _TIES_ALLOWED[0]) | (towards == _TIES_ALLOWED[1])
        is_ridge &= (length > neighbour) | (tie_allowed & (length == neighbour))
    return length * is_ridge


def _connected(strength: Tensor, low: float, high: float) -> Tensor:
    """Where ``[B, H, W]`` is above ``high``, or above ``low`` and connected with that, diagonals included."""
    from torch.nn.functional import max_pool2d

    edges, candidates = strength > high, strength > low
    count = -1
    # Every round reaches one pixel further.
    while count != (count := int(edges.sum())):
        reached = max_pool2d(edges[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
        edges = edges | (reached & candidates)
    return edges


NODE_CLASS_MAPPINGS: dict[str, type] = {"Canny": Canny}

# ComfyUI gives it no display name.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
