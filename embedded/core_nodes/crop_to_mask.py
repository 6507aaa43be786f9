"""The core node that cuts out what a mask covers. As ComfyUI 0.33.0."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from .resize import common_upscale

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.nodes")

# Below this a mask's value is as good as none; above the other, in 0..255, a pixel belongs to the subject.
_LEAST_VALUE = 0.05
_SUBJECT_VALUE = 204


class ImageCropToMask:
    """The masked part of each image, centred before a background of one colour, at a given size."""

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "execute"
    CATEGORY = "image/transform"
    SEARCH_ALIASES = (
        *("crop to mask", "mask crop", "crop mask", "mask crop resize", "crop mask resize"),
        *("trellis2", "pixal3d"),
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 1024, "min": 64, "max": 4096, "step": 8}
        pad = {
            "tooltip": "Extra margin around the mask bounding box as a multiplier.",
            **{"default": 1.0, "min": 1.0, "max": 2.0, "step": 0.01},
        }
        grow = {
            "tooltip": "Grow or shrink the mask by this many pixels before cropping.",
            **{"default": 0, "min": -32, "max": 32, "step": 1},
        }
        background = {
            "tooltip": "Background color behind the masked subject.",
            **{"default": "#000000", "socketless": True},
        }
        return {
            "required": {
                "images": ("IMAGE", {}),
                "masks": ("MASK", {}),
                "width": ("INT", {"tooltip": "Output width in pixels.", **size}),
                "height": ("INT", {"tooltip": "Output height in pixels.", **size}),
                "pad_factor": ("FLOAT", pad),
                "grow_mask": ("INT", grow),
                "background": ("COLOR", background),
            }
        }

    def execute(
        self,
        images: Tensor,
        masks: Tensor,
        width: int,
        height: int,
        pad_factor: float,
        grow_mask: int,
        background: str,
    ) -> tuple[Tensor]:
        """See :func:`crop_to_mask`.

        Args:
            images: ``[B, H, W, C]``; alpha is left out.
            masks: ``[B, H, W]`` or one for all; scaled to the images' size.
            background: ``#rrggbb``; anything else is black.

        Returns:
            ``[B, height, width, 3]`` in steps of 1/255.

        Raises:
            ValueError: neither one mask nor as many as images; or a colour that is none.
        """
        import torch

        images = images[..., :3]
        if len(masks) == 1:
            masks = masks.expand(len(images), -1, -1)
        elif len(masks) != len(images):
            raise ValueError(f"Mask batch {len(masks)} does not match image batch {len(images)}")
        if masks.shape[-2:] != images.shape[1:3]:
            sizes = images.shape[2], images.shape[1]
            masks = common_upscale(masks[:, None].float(), *sizes, "bilinear", "disabled")[:, 0]
        color = torch.tensor(_rgb(background)).view(1, 3, 1, 1)
        return (
            torch.cat(
                [
                    crop_to_mask(image, mask, (width, height), pad_factor, grow_mask, color)
                    for image, mask in zip(images, masks, strict=True)
                ]
            ),
        )


def crop_to_mask(
    image: Tensor, mask: Tensor, size: tuple[int, int], pad_factor: float, grow: int, background: Tensor
) -> Tensor:
    """What a mask covers of an image, in the middle of a picture.

    Images larger than the picture are scaled down before they are cut, so that a small subject in a large image
    loses detail; that is how ComfyUI does it.

    Args:
        image: ``[H, W, 3]``.
        mask: ``[H, W]``. One whose border is covered and whose middle is not is turned round, and so is one that
            covers nothing but leaves something out.
        size: width and height of the picture.
        pad_factor: how many times the box around the subject is to be seen.
        grow: pixels that the mask grows by, negative: shrinks by.
        background: ``[1, 3, 1, 1]``.

    Returns:
        ``[1, height, width, 3]``.
    """
    width, height = size
    colors = image.movedim(-1, 0)[None].float().clamp(0, 1)
    cover = _covering(mask[None, None].float().clamp(0, 1), grow)
    colors, cover = (_at_most(max(size), part) for part in (colors, cover))
    cover, box = _box_of_subject(cover, width / height, pad_factor)
    colors, cover = box.cut(colors), box.cut(cover)
    shown = (colors * cover + background * (1.0 - cover)).clamp(0, 1)
    return common_upscale(shown, width, height, "lanczos", "disabled").movedim(1, -1)


class _Box(NamedTuple):
    """A rectangle that may reach beyond the image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, picture: Tensor) -> Tensor:
        """Its part of ``[B, C, H, W]``, 0 beyond the edges."""
        from torch.nn.functional import pad

        height, width = picture.shape[-2:]
        # What it reaches beyond the left and the top; cutting counts from there once that is added.
        before, above = max(0, -self.left), max(0, -self.top)
        padded = pad(picture, (before, max(0, self.right - width), above, max(0, self.bottom - height)))
        return padded[..., self.top + above : self.bottom + above, self.left + before : self.right + before]


def _covering(mask: Tensor, grow: int) -> Tensor:
    """A mask ``[1, 1, H, W]`` the right way round, grown, and without its faint parts."""
    import torch

    if _is_turned_round(mask[0, 0]):
        mask = 1.0 - mask
    if grow > 0:
        mask = _grown(mask, grow)
    elif grow < 0:
        mask = 1.0 - _grown(1.0 - mask, -grow)
    return torch.where(mask < _LEAST_VALUE, 0.0, mask)


def _is_turned_round(mask: Tensor) -> bool:
    """Whether a mask ``[H, W]`` covers the border and not the middle."""
    import torch

    height, width = mask.shape
    border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    middle = mask[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return bool(border.mean() > 0.5 and middle.mean() < 0.5)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """The largest value of the square around each pixel."""
    from torch.nn.functional import max_pool2d

    return max_pool2d(mask, kernel_size=2 * pixels + 1, stride=1, padding=pixels)


def _at_most(side: int, picture: Tensor) -> Tensor:
    """``[B, C, H, W]``, scaled down if its longer side is longer than that."""
    height, width = picture.shape[-2:]
    longest = max(height, width)
    if longest <= side:
        return picture
    scale = side / longest
    return common_upscale(picture, int(width * scale), int(height * scale), "lanczos", "disabled")


def _box_of_subject(mask: Tensor, aspect: float, pad_factor: float) -> tuple[Tensor, _Box]:
    """A box of given proportions around what a mask covers, all of the image if that is nothing.

    Args:
        mask: ``[1, 1, H, W]``.
        aspect: width divided by height.

    Returns:
        The mask, turned round if it covers nothing but leaves something out, and the box.
    """
    import torch

    values = (mask[0, 0].clamp(0, 1) * 255.0).to(torch.uint8)
    subject = (values > _SUBJECT_VALUE).nonzero()
    if not len(subject):
        subject = (255 - values > _SUBJECT_VALUE).nonzero()
        if not len(subject):
            logger.warning("Mask for the image is empty; a clean foreground mask is required for best quality.")
            return mask, _Box(0, 0, mask.shape[-1], mask.shape[-2])
        mask = 1.0 - mask
    (top, left), (bottom, right) = subject.amin(dim=0).tolist(), subject.amax(dim=0).tolist()
    width, height = right - left + 1, bottom - top + 1
    if width / height >= aspect:
        half_width, half_height = _half(width * pad_factor), _half(width / aspect * pad_factor)
    else:
        half_width, half_height = _half(height * aspect * pad_factor), _half(height * pad_factor)
    left, top = int((left + right) / 2 - half_width), int((top + bottom) / 2 - half_height)
    return mask, _Box(left, top, left + 2 * half_width, top + 2 * half_height)


def _half(length: float) -> int:
    """Half of a length that is rounded down to whole pixels first, rounded up."""
    return math.ceil(int(length) / 2)


def _rgb(color: str) -> tuple[float, float, float]:
    """``#rrggbb`` as three values in 0..1; a text of another length is black.

    Raises:
        ValueError: it is as long, but no number.
    """
    digits = color.lstrip("#")
    if len(digits) != 6:
        return (0.0, 0.0, 0.0)
    red, green, blue = (int(digits[start : start + 2], 16) / 255.0 for start in (0, 2, 4))
    return (red, green, blue)


NODE_CLASS_MAPPINGS: dict[str, type] = {"ImageCropToMask": ImageCropToMask}

NODE_DISPLAY_NAME_MAPPINGS = {"ImageCropToMask": "Crop Image to Mask"}
