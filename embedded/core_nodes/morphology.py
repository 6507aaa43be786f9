"""The core node for morphology: shapes grow, shrink, close and open.

Results are those of ComfyUI 0.3.64 with kornia 0.9, which it calls; the square kernel makes everything a moving
maximum or minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Morphology:
    """A morphological operation with a square kernel, on each channel alone."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/postprocessing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {}),
                "operation": ("COMBO", {"multiselect": False, "options": list(_OPERATIONS)}),
                "kernel_size": ("INT", {"default": 3, "min": 3, "max": 999, "step": 1}),
            }
        }

    def execute(self, image: Tensor, operation: str, kernel_size: int) -> tuple[Tensor]:
        """``kernel_size`` in pixels; what lies outside the image does not count."""
        return (_OPERATIONS[operation](image.movedim(-1, 1), kernel_size).movedim(1, -1),)


def _moving_maximum(channels: Tensor, before: int, behind: int) -> Tensor:
    """The maximum of a square around each pixel, ``before`` pixels to the left and above, ``behind`` after it."""
    from torch.nn.functional import max_pool2d, pad

    padded = pad(channels, (before, behind, before, behind), value=float("-inf"))
    size = before + 1 + behind
    # The maximum of a square is that of its rows' maxima.
    return max_pool2d(max_pool2d(padded, (1, size), stride=1), (size, 1), stride=1)


def _dilate(channels: Tensor, size: int) -> Tensor:
    """The brightest of ``size`` * ``size`` pixels; an even kernel has one more behind than before."""
    return _moving_maximum(channels, size - 1 - size // 2, size // 2)


def _erode(channels: Tensor, size: int) -> Tensor:
    """The darkest of ``size`` * ``size`` pixels; an even kernel is turned round, so opening stays in place."""
    return -_moving_maximum(-channels, size // 2, size - 1 - size // 2)


def _open(channels: Tensor, size: int) -> Tensor:
    """What is smaller than the kernel and bright vanishes."""
    return _dilate(_erode(channels, size), size)


def _close(channels: Tensor, size: int) -> Tensor:
    """What is smaller than the kernel and dark vanishes."""
    return _erode(_dilate(channels, size), size)


def _gradient(channels: Tensor, size: int) -> Tensor:
    """The edges."""
    return _dilate(channels, size) - _erode(channels, size)


def _bottom_hat(channels: Tensor, size: int) -> Tensor:
    """What closing makes vanish."""
    return _close(channels, size) - channels


def _top_hat(channels: Tensor, size: int) -> Tensor:
    """What opening makes vanish."""
    return channels - _open(channels, size)


# Names in the widget -> what they do with ``[B, C, H, W]``, in the order the editor offers them.
_OPERATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "erode": _erode,
    "dilate": _dilate,
    "open": _open,
    "close": _close,
    "gradient": _gradient,
    "bottom_hat": _bottom_hat,
    "top_hat": _top_hat,
}

NODE_CLASS_MAPPINGS: dict[str, type] = {"Morphology": Morphology}

NODE_DISPLAY_NAME_MAPPINGS = {"Morphology": "ImageMorphology"}
