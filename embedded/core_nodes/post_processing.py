"""Core nodes that change an image's look: blend, blur, sharpen, quantize.

Images are float32 ``[B, H, W, C]`` in 0..1. Names, inputs and results are those of ComfyUI 0.3.64. The blur
is one two-dimensional convolution, as there: two one-dimensional ones would be faster, but round differently,
and an image saved with 8 bits is rounded down, so a flat white area would turn to 254.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .align import image_alpha_fix
from .image import resize_image

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor


class ImageBlend:
    """One image over another, mixed by a formula."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/postprocessing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        modes = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
        return {
            "required": {
                "image1": ("IMAGE", {}),
                "image2": ("IMAGE", {}),
                "blend_factor": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
                "blend_mode": ("COMBO", {"multiselect": False, "options": modes}),
            }
        }

    def execute(self, image1: Tensor, image2: Tensor, blend_factor: float, blend_mode: str) -> tuple[Tensor]:
        """``blend_factor`` 0 is ``image1``, 1 is the blend; ``image2`` takes the size of ``image1``."""
        image1, image2 = image_alpha_fix(image1, image2)
        image2 = image2.to(image1.device)
        if image1.shape != image2.shape:
            height, width = image1.shape[1:3]
            image2 = resize_image(image2, width, height, "bicubic", "center")
        blended = blend(image1, image2, blend_mode)
        return ((image1 * (1 - blend_factor) + blended * blend_factor).clamp(0, 1),)


def blend(below: Tensor, above: Tensor, mode: str) -> Tensor:
    """Two images of one shape, mixed; the result can lie outside 0..1.

    Raises:
        ValueError: no such mode.
    """
    import torch

    if mode == "normal":
        return above
    if mode == "multiply":
        return below * above
    if mode == "screen":
        return _screen(below, above)
    if mode == "overlay":
        return torch.where(below <= 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))
    if mode == "soft_light":
        darker = below - (1 - 2 * above) * below * (1 - below)
        lighter = below + (2 * above - 1) * (_soft_light_curve(below) - below)
        return torch.where(above <= 0.5, darker, lighter)
    if mode == "difference":
        # Signed, as in ComfyUI; what is negative becomes black.
        return below - above
    raise ValueError(f"Unsupported blend mode: {mode}")


def _screen(below: Tensor, above: Tensor) -> Tensor:
    """Multiplication of the negatives."""
    return 1 - (1 - below) * (1 - above)


def _soft_light_curve(value: Tensor) -> Tensor:
    """The curve of the W3C's soft-light blend mode: a polynomial for dark values, then the square root."""
    import torch

    return torch.where(value <= 0.25, ((16 * value - 12) * value + 4) * value, torch.sqrt(value))


class ImageBlur:
    """A Gaussian blur."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/postprocessing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {}),
                "blur_radius": ("INT", {"default": 1, "min": 1, "max": 31, "step": 1}),
                "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
            }
        }

    def execute(self, image: Tensor, blur_radius: int, sigma: float) -> tuple[Tensor]:
        """``sigma`` is in units of the radius (see :func:`gaussian_kernel`); radius 0 changes nothing."""
        if blur_radius == 0:
            return (image,)
        kernel = gaussian_kernel(blur_radius * 2 + 1, sigma).to(image.device)
        return (convolve(image.movedim(-1, 1), kernel).movedim(1, -1),)


class ImageSharpen:
    """An unsharp mask: the difference to the blurred image, amplified."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/postprocessing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {}),
                "sharpen_radius": ("INT", {"default": 1, "min": 1, "max": 31, "step": 1}),
                "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.01}),
                "alpha": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 5.0, "step": 0.01}),
            }
        }

    def execute(self, image: Tensor, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Tensor]:
        """``alpha`` 0 changes nothing; the result is kept within 0..1."""
        if sharpen_radius == 0:
            return (image,)
        kernel = sharpening_kernel(sharpen_radius, sigma, alpha).to(image)
        return (convolve(image.movedim(-1, 1), kernel).movedim(1, -1).clamp(0, 1),)


def gaussian_kernel(kernel_size: int, sigma: float) -> Tensor:
    """A square Gaussian of sum 1, float32 ``[kernel_size, kernel_size]``.

    The kernel spans -1 to 1 whatever its size, so ``sigma`` 1.0 is one radius, not one pixel.
    """
    import torch

    axis = torch.linspace(-1, 1, kernel_size)
    distance = torch.sqrt(axis[:, None] * axis[:, None] + axis * axis)
    weight = torch.exp(-(distance * distance) / (2.0 * sigma * sigma))
    return weight / weight.sum()


def sharpening_kernel(radius: int, sigma: float, alpha: float) -> Tensor:
    """A kernel of sum 1 that subtracts ``10 * alpha`` times a Gaussian, float32 ``[2 * radius + 1] * 2``."""
    kernel = gaussian_kernel(radius * 2 + 1, sigma) * -(alpha * 10)
    kernel[radius, radius] += 1.0 - kernel.sum()
    return kernel


def convolve(channels_first: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of ``[B, C, H, W]`` with one odd square kernel, the edges mirrored; same shape.

    Raises:
        RuntimeError: the image is not larger than the kernel's radius, so its edge cannot be mirrored.
    """
    import torch.nn.functional as functional

    radius = kernel.shape[-1] // 2
    channels = channels_first.shape[1]
    padded = functional.pad(channels_first, (radius,) * 4, "reflect")
    return functional.conv2d(padded, kernel.repeat(channels, 1, 1).unsqueeze(1), groups=channels)


class ImageQuantize:
    """Fewer colours, with or without dithering."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/postprocessing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        dithers = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
        return {
            "required": {
                "image": ("IMAGE", {}),
                "colors": ("INT", {"default": 256, "min": 1, "max": 256, "step": 1}),
                "dither": ("COMBO", {"multiselect": False, "options": dithers}),
            }
        }

    def execute(self, image: Tensor, colors: int, dither: str) -> tuple[Tensor]:
        """Each image gets its own palette of at most ``colors`` colours; RGB only.

        Raises:
            ValueError: the image has an alpha channel.
        """
        import numpy as np
        import torch
        from PIL import Image

        if image.shape[-1] != 3:
            raise ValueError(f"ImageQuantize takes RGB images, this one has {image.shape[-1]} channels")
        result = torch.zeros_like(image)
        for index, pixels in enumerate((image * 255).to(torch.uint8).cpu().numpy()):
            quantized = _quantize(Image.fromarray(pixels), colors, dither)
            result[index] = torch.from_numpy(np.array(quantized.convert("RGB"))).float() / 255
        return (result,)


def _quantize(image: Image.Image, colors: int, dither: str) -> Image.Image:
    """One RGB image reduced to a palette made for it."""
    from PIL import Image

    # Pillow dithers only with a given palette: https://github.com/python-pillow/Pillow/issues/5836
    palette = image.quantize(colors=colors)
    if dither == "floyd-steinberg":
        return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if dither.startswith("bayer"):
        image = _add_bayer_pattern(image, len(palette.getpalette() or ()) // 3, int(dither.split("-")[-1]))
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _add_bayer_pattern(image: Image.Image, num_colors: int, order: int) -> Image.Image:
    """The image with a pattern of ``order`` * ``order`` pixels added, stronger for fewer colours."""
    import numpy as np
    from PIL import Image

    pattern = 2 * 256 / num_colors * _bayer_matrix(int(math.log2(order))) + 0.5
    height, width = image.height, image.width
    tiled = np.tile(pattern, (math.ceil(height / order), math.ceil(width / order)))[:height, :width, None]
    dithered = (np.asarray(image) + tiled).astype(np.float32)
    return Image.fromarray(np.clip(dithered, 0, 255).astype(np.uint8))


def _bayer_matrix(level: int) -> np.ndarray[Any, Any]:
    """The Bayer matrix of ``2**level`` pixels a side, centred on 0, values within -0.5..0.5."""
    import numpy as np

    if level == 0:
        return np.zeros((1, 1))
    cells = 4**level
    quarter = cells * _bayer_matrix(level - 1)
    halves = ((quarter - 1.5, quarter + 0.5), (quarter + 1.5, quarter - 0.5))
    matrix: np.ndarray[Any, Any] = np.vstack([np.hstack(half) for half in halves]) / cells
    return matrix


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "ImageBlend": ImageBlend,
    "ImageBlur": ImageBlur,
    "ImageSharpen": ImageSharpen,
    "ImageQuantize": ImageQuantize,
}

# ComfyUI gives these no display names.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
