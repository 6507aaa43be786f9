"""Core nodes that make, batch, scale and transform images.

Images are float32 ``[B, H, W, C]``, C of 3 (or 4 with alpha), values in 0..1. Names, inputs and results are
those of ComfyUI 0.3.64; the methods named by FUNCTION keep ComfyUI's names too, as packages call some of them
directly.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION
from .resize import common_upscale

if TYPE_CHECKING:
    from torch import Tensor

# In the order the editor offers them; the first one is the default.
UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROP_METHODS = ["disabled", "center"]

# A colour picker: 0xRRGGBB.
COLOR_OPTIONS = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}


def size_options(default: int = 512, lowest: int = 1, step: int = 1) -> dict[str, Any]:
    """The options of an INT input in pixels."""
    return {"default": default, "min": lowest, "max": MAX_RESOLUTION, "step": step}


def resize_image(image: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """:func:`common_upscale` for channels-last images: ``[B, H, W, C]`` to ``[B, height, width, C]``."""
    return common_upscale(image.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


# -- making and batching -----------------------------------------------------------------------------------


class EmptyImage:
    """One colour everywhere."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": ("INT", size_options()),
                "height": ("INT", size_options()),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", COLOR_OPTIONS),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Tensor]:
        """``color`` is 0xRRGGBB."""
        import torch

        rgb = [(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)]
        return (torch.tensor(rgb, dtype=torch.float32).repeat(batch_size, height, width, 1),)


class ImageBatch:
    """Two batches one after the other; the second takes the first one's size."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "batch"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    def batch(self, image1: Tensor, image2: Tensor) -> tuple[Tensor]:
        """A batch of all images of both."""
        import torch

        if image1.shape[1:] != image2.shape[1:]:
            height, width = image1.shape[1:3]
            image2 = resize_image(image2, width, height, "bilinear", "center")
        return (torch.cat((image1, image2)),)


class ImageFromBatch:
    """Some images of a batch."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "frombatch"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "batch_index": ("INT", {"default": 0, "min": 0, "max": 4095}),
                "length": ("INT", {"default": 1, "min": 1, "max": 4096}),
            }
        }

    def frombatch(self, image: Tensor, batch_index: int, length: int) -> tuple[Tensor]:
        """``length`` images from ``batch_index`` on, as far as there are; beyond the end, the last one."""
        first = min(batch_index, image.shape[0] - 1)
        return (image[first : first + length].clone(),)


class RepeatImageBatch:
    """A batch several times over."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "repeat"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE",), "amount": ("INT", {"default": 1, "min": 1, "max": 4096})},
        }

    def repeat(self, image: Tensor, amount: int) -> tuple[Tensor]:
        """The whole batch ``amount`` times."""
        return (image.repeat(amount, 1, 1, 1),)


class RebatchImages:
    """Lists of batches, cut into batches of one size."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True,)
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
            }
        }

    def execute(self, images: list[Tensor], batch_size: list[int]) -> tuple[list[Tensor]]:
        """A list of batches of ``batch_size[0]`` images, the last one with the rest."""
        import torch

        singles = [batch[index : index + 1] for batch in images for index in range(batch.shape[0])]
        size = batch_size[0]
        return ([torch.cat(singles[start : start + size]) for start in range(0, len(singles), size)],)


# -- scaling -----------------------------------------------------------------------------------------------


class ImageScale:
    """Scale to a size in pixels."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (UPSCALE_METHODS,),
                "width": ("INT", size_options(lowest=0)),
                "height": ("INT", size_options(lowest=0)),
                "crop": (CROP_METHODS,),
            }
        }

    def upscale(self, image: Tensor, upscale_method: str, width: int, height: int, crop: str) -> tuple[Tensor]:
        """A width or height of 0 follows from the other one; both 0 leave the image as it is."""
        old_height, old_width = image.shape[1:3]
        if width == 0 and height == 0:
            return (image,)
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return (resize_image(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    """Scale by a factor."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (UPSCALE_METHODS,),
                "scale_by": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
            }
        }

    def upscale(self, image: Tensor, upscale_method: str, scale_by: float) -> tuple[Tensor]:
        """Both sides times ``scale_by``, rounded."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        return (resize_image(image, width, height, upscale_method),)


class ImageScaleToTotalPixels:
    """Scale to an area, keeping the proportions."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {}),
                "upscale_method": ("COMBO", {"multiselect": False, "options": UPSCALE_METHODS}),
                "megapixels": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 16.0, "step": 0.01}),
            }
        }

    def execute(self, image: Tensor, upscale_method: str, megapixels: float) -> tuple[Tensor]:
        """A megapixel is 1024 * 1024 pixels."""
        height, width = image.shape[1:3]
        scale = math.sqrt(int(megapixels * 1024 * 1024) / (width * height))
        return (resize_image(image, round(width * scale), round(height * scale), upscale_method),)


class ImageScaleToMaxDimension:
    """Scale so that the longer side has a given length, keeping the proportions."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # ComfyUI lists bilinear twice here.
        methods = ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (methods,),
                "largest_size": ("INT", size_options(lowest=0)),
            }
        }

    def upscale(self, image: Tensor, upscale_method: str, largest_size: int) -> tuple[Tensor]:
        """The longer side becomes ``largest_size``, the other one follows, rounded."""
        height, width = image.shape[1:3]
        longer = max(height, width)
        # The quotient first: it decides which way a half is rounded.
        new_width, new_height = (round(side / longer * largest_size) for side in (width, height))
        return (resize_image(image, new_width, new_height, upscale_method),)


class ResizeAndPadImage:
    """Scale to fit into a size and fill up the rest with black or white."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "resize_and_pad"
    CATEGORY = "image/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "target_width": ("INT", size_options()),
                "target_height": ("INT", size_options()),
                "padding_color": (["white", "black"],),
                "interpolation": (["area", "bicubic", "nearest-exact", "bilinear", "lanczos"],),
            }
        }

    def resize_and_pad(
        self, image: Tensor, target_width: int, target_height: int, padding_color: str, interpolation: str
    ) -> tuple[Tensor]:
        """The image keeps its proportions and lies in the middle."""
        batch, height, width, channels = image.shape
        scale = min(target_width / width, target_height / height)
        resized = resize_image(image, int(width * scale), int(height * scale), interpolation)
        fill = 0.0 if padding_color == "black" else 1.0
        padded = image.new_full((batch, target_height, target_width, channels), fill)
        top, left = (target_height - resized.shape[1]) // 2, (target_width - resized.shape[2]) // 2
        padded[:, top : top + resized.shape[1], left : left + resized.shape[2]] = resized
        return (padded,)


# Widths and heights that Flux Kontext was trained with; the widths in turn are its heights.
_KONTEXT_SIDES = (672, 688, 720, 752, 800, 832, 880, 944, 1024, 1104, 1184, 1248, 1328, 1392, 1456, 1504, 1568)


class FluxKontextImageScale:
    """Scale to a size Flux Kontext was trained with."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "This node resizes the image to one that is more optimal for flux kontext."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {})}}

    def execute(self, image: Tensor) -> tuple[Tensor]:
        """The size whose proportions are nearest, about a megapixel; what is too long is cut off at both ends."""
        aspect = image.shape[2] / image.shape[1]
        sizes = zip(_KONTEXT_SIDES, reversed(_KONTEXT_SIDES), strict=True)
        width, height = min(sizes, key=lambda size: (abs(aspect - size[0] / size[1]), size))
        return (resize_image(image, width, height, "lanczos", "center"),)


# -- transforming ------------------------------------------------------------------------------------------


class ImageInvert:
    """The negative."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def invert(self, image: Tensor) -> tuple[Tensor]:
        """1 minus every value, alpha included."""
        return (1.0 - image,)


class ImageCrop:
    """A rectangle of the image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "crop"
    CATEGORY = "image/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "width": ("INT", size_options()),
                "height": ("INT", size_options()),
                "x": ("INT", size_options(0, 0)),
                "y": ("INT", size_options(0, 0)),
            }
        }

    def crop(self, image: Tensor, width: int, height: int, x: int, y: int) -> tuple[Tensor]:
        """As much of the rectangle as lies in the image; at least its last row and column."""
        left, top = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
        return (image[:, top : top + height, left : left + width, :],)


class ImageFlip:
    """The mirror image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "flip"
    CATEGORY = "image/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "flip_method": (["x-axis: vertically", "y-axis: horizontally"],),
            }
        }

    def flip(self, image: Tensor, flip_method: str) -> tuple[Tensor]:
        """Around the x axis: upside down; around the y axis: left and right changed."""
        return (image.flip(flipped_axes(flip_method, 1)),)


class ImageRotate:
    """Turn clockwise."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "rotate"
    CATEGORY = "image/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "rotation": (["none", "90 degrees", "180 degrees", "270 degrees"],),
            }
        }

    def rotate(self, image: Tensor, rotation: str) -> tuple[Tensor]:
        """``rotation`` is ``"none"`` or ``"<multiple of 90> degrees"``."""
        return (image.rot90(quarter_turns(rotation), dims=(2, 1)),)


def flipped_axes(flip_method: str, height_axis: int) -> list[int]:
    """The dimensions that a flip widget's value turns round; none for another value, which a link can bring."""
    return {"x": [height_axis], "y": [height_axis + 1]}.get(flip_method[:1], [])


def quarter_turns(rotation: str) -> int:
    """How many times 90 degrees a rotation widget says."""
    return 0 if rotation == "none" else int(rotation.split()[0]) // 90


class ImagePadForOutpaint:
    """Grey around the image, and a mask of what is new, to be filled by inpainting."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "expand_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "left": ("INT", size_options(0, 0, 8)),
                "top": ("INT", size_options(0, 0, 8)),
                "right": ("INT", size_options(0, 0, 8)),
                "bottom": ("INT", size_options(0, 0, 8)),
                "feathering": ("INT", size_options(40, 0)),
            }
        }

    def expand_image(
        self, image: Tensor, left: int, top: int, right: int, bottom: int, feathering: int
    ) -> tuple[Tensor, Tensor]:
        """The mask ``[1, H, W]`` is 1 outside and falls to 0 within ``feathering`` pixels inside a new edge."""
        import torch

        batch, height, width, channels = image.shape
        rows, columns = slice(top, top + height), slice(left, left + width)
        size = (height + top + bottom, width + left + right)
        padded = torch.full((batch, *size, channels), 0.5, dtype=torch.float32)
        padded[:, rows, columns] = image
        mask = torch.ones((1, *size), dtype=torch.float32)
        mask[:, rows, columns] = 0.0
        # An image narrower than both feathered edges is not feathered at all.
        if 0 < feathering * 2 < min(height, width):
            edges = torch.minimum(
                _distance_to_new_edge(height, top, bottom)[:, None],
                _distance_to_new_edge(width, left, right)[None, :],
            )
            mask[:, rows, columns] = ((feathering - edges).clamp(min=0) / feathering) ** 2
        return (padded, mask)


def _distance_to_new_edge(length: int, before: int, after: int) -> Tensor:
    """float64 ``[length]``: pixels to the nearer end of a side, of the ends that something was added to."""
    import torch

    position = torch.arange(length, dtype=torch.float64)
    far = torch.full_like(position, length)
    return torch.minimum(position if before else far, length - position if after else far)


class ImageStitch:
    """Two images side by side."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "stitch"
    CATEGORY = "image/transform"
    DESCRIPTION = """
Stitches image2 to image1 in the specified direction.
If image2 is not provided, returns image1 unchanged.
Optional spacing can be added between images.
"""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": ("IMAGE",),
                "direction": (["right", "down", "left", "up"], {"default": "right"}),
                "match_image_size": ("BOOLEAN", {"default": True}),
                "spacing_width": ("INT", {"default": 0, "min": 0, "max": 1024, "step": 2}),
                "spacing_color": (["white", "black", "red", "green", "blue"], {"default": "white"}),
            },
            "optional": {"image2": ("IMAGE",)},
        }

    def stitch(
        self,
        image1: Tensor,
        direction: str,
        match_image_size: bool,
        spacing_width: int,
        spacing_color: str,
        image2: Tensor | None = None,
    ) -> tuple[Tensor]:
        """``image2`` lies in ``direction`` of ``image1``, scaled to its side or centred beside it."""
        import torch

        if image2 is None:
            return (image1,)
        horizontal = direction in ("left", "right")
        image1, image2 = _same_batch(image1, image2)
        if match_image_size:
            image2 = _match_side(image2, image1, horizontal)
        else:
            # Black and white fill up the shorter image too; a colour leaves it black there.
            fill = 1.0 if spacing_color == "white" else 0.0
            image1, image2 = _center_to_same_side(image1, image2, 1 if horizontal else 2, fill)
        image1, image2 = _same_channels(image1, image2)
        parts = [image2, image1] if direction in ("left", "up") else [image1, image2]
        if spacing_width > 0:
            parts.insert(1, _spacing(image1, horizontal, spacing_width + spacing_width % 2, spacing_color))
        return (torch.cat(parts, dim=2 if horizontal else 1),)


_SPACING_COLORS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


def _same_batch(image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the larger batch size; the last image of the smaller batch is repeated."""
    import torch

    size = max(image1.shape[0], image2.shape[0])

    def filled_up(image: Tensor) -> Tensor:
        return torch.cat((image, image[-1:].expand(size - image.shape[0], -1, -1, -1)))

    return filled_up(image1), filled_up(image2)


def _match_side(image: Tensor, other: Tensor, horizontal: bool) -> Tensor:
    """``image`` scaled to the height (side by side) or width (above each other) of ``other``."""
    height, width = image.shape[1:3]
    aspect = width / height
    other_height, other_width = other.shape[1:3]
    if horizontal:
        return resize_image(image, int(other_height * aspect), other_height, "lanczos")
    return resize_image(image, other_width, int(other_width / aspect), "lanczos")


def _center_to_same_side(image1: Tensor, image2: Tensor, dim: int, fill: float) -> tuple[Tensor, Tensor]:
    """Both with the larger of their sizes along ``dim``, the smaller one in the middle of ``fill``."""
    import torch

    size = max(image1.shape[dim], image2.shape[dim])

    def centered(image: Tensor) -> Tensor:
        missing = size - image.shape[dim]
        ends = (missing // 2, missing - missing // 2)
        # functional.pad counts from the last dimension: channels, columns, rows.
        padding = (0, 0, *ends) if dim == 2 else (0, 0, 0, 0, *ends)
        return torch.nn.functional.pad(image, padding, value=fill)

    return centered(image1), centered(image2)


def _same_channels(image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the larger number of channels, the added ones 1 (opaque)."""
    import torch

    channels = max(image1.shape[-1], image2.shape[-1])

    def filled_up(image: Tensor) -> Tensor:
        return torch.nn.functional.pad(image, (0, channels - image.shape[-1]), value=1.0)

    return filled_up(image1), filled_up(image2)


def _spacing(like: Tensor, horizontal: bool, width: int, color: str) -> Tensor:
    """A strip of one opaque colour, as long as the side of ``like`` it is put beside."""
    import torch

    batch, height, image_width, channels = like.shape
    size = (height, width) if horizontal else (width, image_width)
    pixel = torch.tensor((*_SPACING_COLORS[color], 1.0)[:channels], device=like.device)
    return pixel.repeat(batch, *size, 1)


class ImageAddNoise:
    """Normal noise from a seed, added to the image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "repeat"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seed_options = {
            "default": 0,
            "min": 0,
            "max": 0xFFFFFFFFFFFFFFFF,
            "control_after_generate": True,
            "tooltip": "The random seed used for creating the noise.",
        }
        return {
            "required": {
                "image": ("IMAGE",),
                "seed": ("INT", seed_options),
                "strength": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def repeat(self, image: Tensor, seed: int, strength: float) -> tuple[Tensor]:
        """Noise of standard deviation ``strength``, the same for a seed everywhere; kept within 0..1."""
        import torch

        generator = torch.Generator(device="cpu").manual_seed(seed)
        noise = torch.randn(image.size(), generator=generator, device="cpu").to(image)
        return (torch.clip(image + strength * noise, min=0.0, max=1.0),)


class GetImageSize:
    """The size of an image as numbers, also shown on the node."""

    RETURN_TYPES = ("INT", "INT", "INT")
    RETURN_NAMES = ("width", "height", "batch_size")
    FUNCTION = "get_size"
    CATEGORY = "image"
    DESCRIPTION = "Returns width and height of the image, and passes it through unchanged."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def get_size(self, image: Tensor, unique_id: str | None = None) -> tuple[int, int, int]:
        """Width and height in pixels, number of images."""
        batch_size, height, width = image.shape[:3]
        if unique_id:
            _show_on_node(f"width: {width}, height: {height}\n batch size: {batch_size}", unique_id)
        return width, height, batch_size


def _show_on_node(text: str, node_id: str) -> None:
    """Send a text to be shown on a node in the editor; does nothing where no server runs."""
    # Looked up, not imported: ``server`` exists only inside a running server.
    prompt_server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance = getattr(prompt_server, "instance", None)
    if instance is not None:
        instance.send_progress_text(text, node_id)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "EmptyImage": EmptyImage,
    "ImageBatch": ImageBatch,
    "ImageFromBatch": ImageFromBatch,
    "RepeatImageBatch": RepeatImageBatch,
    "RebatchImages": RebatchImages,
    "ImageScale": ImageScale,
    "ImageScaleBy": ImageScaleBy,
    "ImageScaleToTotalPixels": ImageScaleToTotalPixels,
    "ImageScaleToMaxDimension": ImageScaleToMaxDimension,
    "ResizeAndPadImage": ResizeAndPadImage,
    "FluxKontextImageScale": FluxKontextImageScale,
    "ImageInvert": ImageInvert,
    "ImageCrop": ImageCrop,
    "ImageFlip": ImageFlip,
    "ImageRotate": ImageRotate,
    "ImagePadForOutpaint": ImagePadForOutpaint,
    "ImageStitch": ImageStitch,
    "ImageAddNoise": ImageAddNoise,
    "GetImageSize": GetImageSize,
}

# A node without an entry has none in ComfyUI either; the editor shows its class name.
NODE_DISPLAY_NAME_MAPPINGS = {
    "RebatchImages": "Rebatch Images",
    "ImageScale": "Upscale Image",
    "ImageScaleBy": "Upscale Image By",
    "ImageInvert": "Invert Image",
    "ImageBatch": "Batch Images",
    "ImageCrop": "Image Crop",
    "ImageStitch": "Image Stitch",
    "GetImageSize": "Get Image Size",
    "ImagePadForOutpaint": "Pad Image for Outpainting",
}
