"""Core nodes for masks: making, combining and growing them, from and to images, and composites through them.

Masks are float32 ``[B, H, W]`` in 0..1; a single ``[H, W]`` is taken too, where ComfyUI takes it. Images are
float32 ``[B, H, W, C]``. Names, inputs and results are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION
from .align import image_alpha_fix, repeat_to_batch_size
from .image import COLOR_OPTIONS, size_options
from .image_io import METADATA_INPUTS, PreviewImage

if TYPE_CHECKING:
    from torch import Tensor


def as_batch(mask: Tensor) -> Tensor:
    """A mask of any number of leading dimensions as ``[B, H, W]``."""
    return mask.reshape(-1, *mask.shape[-2:])


# -- making and converting ---------------------------------------------------------------------------------


class SolidMask:
    """One value everywhere."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "solid"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "value": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
                "width": ("INT", size_options()),
                "height": ("INT", size_options()),
            }
        }

    def solid(self, value: float, width: int, height: int) -> tuple[Tensor]:
        """A mask ``[1, height, width]``."""
        import torch

        return (torch.full((1, height, width), value, dtype=torch.float32),)


class MaskToImage:
    """A mask as a grey image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "mask_to_image"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def mask_to_image(self, mask: Tensor) -> tuple[Tensor]:
        """A view with three equal channels."""
        return (mask_as_image(mask),)


def mask_as_image(mask: Tensor) -> Tensor:
    """``[..., H, W]`` as ``[B, H, W, 3]``, a view that takes no memory."""
    return as_batch(mask)[..., None].expand(-1, -1, -1, 3)


class ImageToMask:
    """One channel of an image as a mask."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "image_to_mask"
    CATEGORY = "mask"

    _CHANNELS = ("red", "green", "blue", "alpha")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "channel": (list(cls._CHANNELS),)}}

    def image_to_mask(self, image: Tensor, channel: str) -> tuple[Tensor]:
        """A view of the channel; alpha is not turned round here.

        Raises:
            IndexError: the image has no alpha channel.
        """
        return (image[..., self._CHANNELS.index(channel)],)


class ImageColorToMask:
    """The pixels of one colour."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "image_to_mask"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "color": ("INT", COLOR_OPTIONS)}}

    def image_to_mask(self, image: Tensor, color: int) -> tuple[Tensor]:
        """1 where the image, rounded to 8 bits, is 0xRRGGBB, else 0."""
        import torch

        rgb = (image[..., :3].clamp(0, 1.0) * 255.0).round().to(torch.int32)
        wanted = torch.tensor([color >> shift & 0xFF for shift in (16, 8, 0)], dtype=torch.int32)
        return ((rgb == wanted.to(rgb.device)).all(-1).float(),)


# -- changing one mask -------------------------------------------------------------------------------------


class InvertMask:
    """The negative."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "invert"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def invert(self, mask: Tensor) -> tuple[Tensor]:
        """1 minus every value."""
        return (1.0 - mask,)


class CropMask:
    """A rectangle of the mask."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "crop"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK",),
                "x": ("INT", size_options(0, 0)),
                "y": ("INT", size_options(0, 0)),
                "width": ("INT", size_options()),
                "height": ("INT", size_options()),
            }
        }

    def crop(self, mask: Tensor, x: int, y: int, width: int, height: int) -> tuple[Tensor]:
        """As much of the rectangle as lies in the mask, possibly nothing."""
        return (as_batch(mask)[:, y : y + height, x : x + width],)


class FeatherMask:
    """Soft edges."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "feather"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK",),
                "left": ("INT", size_options(0, 0)),
                "top": ("INT", size_options(0, 0)),
                "right": ("INT", size_options(0, 0)),
                "bottom": ("INT", size_options(0, 0)),
            }
        }

    def feather(self, mask: Tensor, left: int, top: int, right: int, bottom: int) -> tuple[Tensor]:
        """Each edge rises linearly over that many pixels; see :func:`_feather_ramp` for the exact values."""
        masks = as_batch(mask)
        height, width = masks.shape[-2:]
        columns = _feather_ramp(width, left, right).to(masks)
        rows = _feather_ramp(height, top, bottom).to(masks)
        return (masks * columns * rows[:, None],)


def _feather_ramp(length: int, start: int, end: int) -> Tensor:
    """The factors ``[length]`` of one direction, rising over ``start`` pixels, falling over ``end``.

    ComfyUI 0.3.64 counts the far ramp from -0, so its first step (1 / end) lands on position 0, and its last
    pixel gets 2 / end. Workflows look the way they do because of it, so it is kept.
    """
    import torch

    ramp = torch.ones(length)
    start, end = min(start, length), min(end, length)
    for step in range(start):
        ramp[step] *= (step + 1) / start
    for step in range(end):
        ramp[-step] *= (step + 1) / end
    return ramp


class GrowMask:
    """Grow or shrink by pixels."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "expand_mask"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        expand = {"default": 0, "min": -MAX_RESOLUTION, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "mask": ("MASK",),
                "expand": ("INT", expand),
                "tapered_corners": ("BOOLEAN", {"default": True}),
            }
        }

    def expand_mask(self, mask: Tensor, expand: int, tapered_corners: bool) -> tuple[Tensor]:
        """``expand`` below 0 shrinks; tapered corners grow only straight, not diagonally, in each step."""
        masks = as_batch(mask)
        # Shrinking is growing the negative; minus, unlike 1 minus, loses no precision.
        grown = _grow(-masks, -expand, tapered_corners) if expand < 0 else _grow(masks, expand, tapered_corners)
        return (-grown if expand < 0 else grown.clone(),)


def _grow(masks: Tensor, steps: int, tapered: bool) -> Tensor:
    """The maximum of each pixel and its neighbours, ``steps`` times over; what lies outside does not count."""
    import torch
    from torch.nn.functional import max_pool2d

    # Beyond this nothing can change: every pixel has reached every other one.
    for _ in range(min(steps, sum(masks.shape[-2:]))):
        if tapered:
            across = max_pool2d(masks[:, None], (1, 3), stride=1, padding=(0, 1))
            along = max_pool2d(masks[:, None], (3, 1), stride=1, padding=(1, 0))
            masks = torch.maximum(across, along)[:, 0]
        else:
            masks = max_pool2d(masks[:, None], 3, stride=1, padding=1)[:, 0]
    return masks


class ThresholdMask:
    """Black and white."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "image_to_mask"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": ("MASK",),
                "value": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def image_to_mask(self, mask: Tensor, value: float) -> tuple[Tensor]:
        """1 above ``value``, else 0."""
        return ((mask > value).float(),)


# What a mask's values are rounded to for VOID: up to each value of the first line, the one below it.
_QUAD_LIMITS = (31.0, 95.0, 191.0)
_QUAD_VALUES = (0.0, 63.0, 127.0, 255.0)


class VOIDQuadmaskPreprocess:
    """A mask in four steps, as the model VOID wants it: what is to go, both, what is affected, what stays.

    As ComfyUI 0.33.0.
    """

    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("quadmask",)
    FUNCTION = "execute"
    CATEGORY = "image/mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Dilation radius for the primary mask region (0 = no dilation)"
        dilation = {"tooltip": tooltip, "default": 0, "min": 0, "max": 50, "step": 1}
        return {"required": {"mask": ("MASK", {}), "dilate_width": ("INT", dilation)}}

    def execute(self, mask: Tensor, dilate_width: int = 0) -> tuple[Tensor]:
        """Dark is what is to go: 1 in the result.

        Args:
            mask: values in 0..1, or in 0..255 if one is above 1.
            dilate_width: how far what is to go (below 128 of 255) reaches beyond, in pixels; not for ``[H, W]``.
        """
        import torch
        from torch.nn.functional import max_pool2d

        values = mask * 255.0 if mask.max() <= 1.0 else mask
        if dilate_width > 0 and mask.ndim == 3:
            to_go = (values < 128).float()[:, None]
            reached = max_pool2d(to_go, dilate_width * 2 + 1, stride=1, padding=dilate_width)[:, 0]
            values = torch.where(reached > 0.5, 0.0, values)
        steps = torch.bucketize(values, torch.tensor(_QUAD_LIMITS).to(values))
        return ((255.0 - torch.tensor(_QUAD_VALUES).to(values)[steps]) / 255.0,)


# -- combining ---------------------------------------------------------------------------------------------


class MaskComposite:
    """Two masks combined by arithmetic or logic."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "combine"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("MASK",),
                "source": ("MASK",),
                "x": ("INT", size_options(0, 0)),
                "y": ("INT", size_options(0, 0)),
                "operation": (["multiply", "add", "subtract", "and", "or", "xor"],),
            }
        }

    def combine(self, destination: Tensor, source: Tensor, x: int, y: int, operation: str) -> tuple[Tensor]:
        """``source`` put onto ``destination`` at ``x``, ``y``; the result is kept within 0..1.

        The batch sizes are equal, or the source's is 1.
        """
        result = as_batch(destination).clone()
        below = result[:, y : y + source.shape[-2], x : x + source.shape[-1]]
        above = as_batch(source)[:, : below.shape[-2], : below.shape[-1]]
        below.copy_(_combine_masks(below, above, operation))
        return (result.clamp(0.0, 1.0),)


def _combine_masks(below: Tensor, above: Tensor, operation: str) -> Tensor:
    """Two masks of one size combined; logic takes what rounds to 1 as true.

    Another operation, which a link can bring, leaves ``below`` as it is, as in ComfyUI.
    """
    if operation == "multiply":
        return below * above
    if operation == "add":
        return below + above
    if operation == "subtract":
        return below - above
    first, second = below.round().bool(), above.round().bool()
    if operation == "and":
        return (first & second).float()
    if operation == "or":
        return (first | second).float()
    if operation == "xor":
        return (first ^ second).float()
    return below


class ImageCompositeMasked:
    """One image put onto another through a mask."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "composite"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("IMAGE",),
                "source": ("IMAGE",),
                "x": ("INT", size_options(0, 0)),
                "y": ("INT", size_options(0, 0)),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def composite(
        self,
        destination: Tensor,
        source: Tensor,
        x: int,
        y: int,
        resize_source: bool,
        mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        """``source`` at ``x``, ``y`` where the mask is 1; the mask is stretched to the source's size."""
        destination, source = image_alpha_fix(destination, source)
        result = destination.clone().movedim(-1, 1)
        put_onto(result, source.movedim(-1, 1), x, y, mask, resize_source)
        return (result.movedim(1, -1),)


def put_onto(destination: Tensor, source: Tensor, x: int, y: int, mask: Tensor | None, resize_source: bool) -> None:
    """Mix a source into a destination, in place.

    Args:
        destination: ``[B, C, ..., H, W]``, changed.
        source: as ``destination``, of any height, width and batch size; the batch is repeated or cut.
        x, y: where the source's left upper corner goes, in elements; a part outside is left out.
        mask: ``[..., h, w]``, stretched to the source's size; None takes the whole source.
        resize_source: stretch the source to the destination's size first.
    """
    import torch
    from torch.nn.functional import interpolate

    source = source.to(destination.device)
    if resize_source:
        source = interpolate(source, size=destination.shape[-2:], mode="bilinear")
    source = repeat_to_batch_size(source, destination.shape[0])
    weight = torch.ones_like(source)
    if mask is not None:
        planes = as_batch(mask).unsqueeze(1).to(destination.device)
        weight = interpolate(planes, size=source.shape[-2:], mode="bilinear")
        weight = repeat_to_batch_size(weight, source.shape[0])
        if weight.ndim < source.ndim:
            weight = weight.unsqueeze(1)
    rows, source_rows = _overlap(destination.shape[-2], source.shape[-2], y)
    columns, source_columns = _overlap(destination.shape[-1], source.shape[-1], x)
    weight = weight[..., source_rows, source_columns]
    below = destination[..., rows, columns]
    below.copy_(weight * source[..., source_rows, source_columns] + (1 - weight) * below)


def _overlap(destination_length: int, source_length: int, offset: int) -> tuple[slice, slice]:
    """Which part of a destination a source covers, and which part of the source that is."""
    start = min(max(offset, 0), destination_length)
    end = min(max(offset + source_length, start), destination_length)
    return slice(start, end), slice(start - offset, end - offset)


# -- showing -----------------------------------------------------------------------------------------------


class MaskPreview(PreviewImage):
    """Save masks as grey images in the temp folder, to be shown on the node."""

    FUNCTION = "execute"
    CATEGORY = "mask"

    def __init__(self) -> None:
        super().__init__()
        # As small as saved images, unlike other previews.
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}, "hidden": METADATA_INPUTS}

    def execute(
        self,
        mask: Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """As :meth:`SaveImage.save_images`, of the mask as a grey image."""
        return self.save_images(mask_as_image(mask), filename_prefix, prompt, extra_pnginfo)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SolidMask": SolidMask,
    "MaskToImage": MaskToImage,
    "ImageToMask": ImageToMask,
    "ImageColorToMask": ImageColorToMask,
    "InvertMask": InvertMask,
    "CropMask": CropMask,
    "FeatherMask": FeatherMask,
    "GrowMask": GrowMask,
    "ThresholdMask": ThresholdMask,
    "VOIDQuadmaskPreprocess": VOIDQuadmaskPreprocess,
    "MaskComposite": MaskComposite,
    "ImageCompositeMasked": ImageCompositeMasked,
    "MaskPreview": MaskPreview,
}

# Nodes without an entry have none in ComfyUI either; the editor shows their class name.
NODE_DISPLAY_NAME_MAPPINGS = {
    "MaskToImage": "Convert Mask to Image",
    "ImageToMask": "Convert Image to Mask",
    "VOIDQuadmaskPreprocess": "VOID Quadmask Preprocessor",
}
