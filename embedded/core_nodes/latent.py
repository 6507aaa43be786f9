"""Core nodes for latents: making, batching, resizing, transforming and combining them.

A latent is a dict; ``samples`` is float32 ``[B, C, H, W]`` at 1/8 of the image's size (video latents have
more dimensions between C and H). It may also hold ``noise_mask`` ``[B, 1, h, w]`` and ``batch_index``, the
number of each sample in the batch it was made for, from which its noise follows. Every node returns a new
dict and changes no input. Sizes in widgets are in pixels of the image. Names, inputs and results are those of
ComfyUI 0.3.64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION
from .align import repeat_to_batch_size
from .image import CROP_METHODS, flipped_axes, quarter_turns, size_options
from .mask import as_batch, put_onto
from .post_processing import convolve, sharpening_kernel
from .resize import common_upscale, fitted

if TYPE_CHECKING:
    from torch import Tensor

Latent = dict[str, Any]

# Pixels of the image per element of a latent, in each direction.
PIXELS_PER_ELEMENT = 8
# In the order the editor offers them; the first one is the default.
UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]


def _with_samples(latent: Latent, samples: Tensor) -> tuple[Latent]:
    """A node's result: the same latent with other samples."""
    return ({**latent, "samples": samples},)


def _fitted_batch(samples: Tensor, like: Tensor) -> Tensor:
    """As :func:`fitted`, and with the batch size of ``like``."""
    return repeat_to_batch_size(fitted(samples, like), like.shape[0])


# -- making and batching -----------------------------------------------------------------------------------


class EmptyLatentImage:
    """Zeros, to be denoised from scratch."""

    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("The empty latent image batch.",)
    FUNCTION = "generate"
    CATEGORY = "latent"
    DESCRIPTION = "Create a new batch of empty latent images to be denoised via sampling."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        width = {**size_options(512, 16, 8), "tooltip": "The width of the latent images in pixels."}
        height = {**size_options(512, 16, 8), "tooltip": "The height of the latent images in pixels."}
        batch = {"default": 1, "min": 1, "max": 4096, "tooltip": "The number of latent images in the batch."}
        return {
            "required": {"width": ("INT", width), "height": ("INT", height), "batch_size": ("INT", batch)},
        }

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        """Four channels, as Stable Diffusion 1 and 2 have them."""
        import torch

        size = (height // PIXELS_PER_ELEMENT, width // PIXELS_PER_ELEMENT)
        return ({"samples": torch.zeros(batch_size, 4, *size)},)


class LatentFromBatch:
    """Some samples of a batch."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "frombatch"
    CATEGORY = "latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "batch_index": ("INT", {"default": 0, "min": 0, "max": 63}),
                "length": ("INT", {"default": 1, "min": 1, "max": 64}),
            }
        }

    def frombatch(self, samples: Latent, batch_index: int, length: int) -> tuple[Latent]:
        """``length`` samples from ``batch_index`` on, as far as there are, with their masks and numbers."""
        source = samples["samples"]
        count = source.shape[0]
        first = min(batch_index, count - 1)
        last = min(first + length, count)
        result = {**samples, "samples": source[first:last].clone()}
        numbers = samples.get("batch_index")
        result["batch_index"] = list(range(first, last)) if numbers is None else numbers[first:last]
        masks = samples.get("noise_mask")
        if masks is not None and masks.shape[0] > 1:
            masks = masks if masks.shape[0] >= count else repeat_to_batch_size(masks, count)
            result["noise_mask"] = masks[first:last].clone()
        return (result,)


class RepeatLatentBatch:
    """A batch several times over."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "repeat"
    CATEGORY = "latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"samples": ("LATENT",), "amount": ("INT", {"default": 1, "min": 1, "max": 64})},
        }

    def repeat(self, samples: Latent, amount: int) -> tuple[Latent]:
        """The whole batch ``amount`` times; every repetition gets numbers of its own, so other noise."""
        result = {**samples, "samples": _repeated(samples["samples"], amount)}
        masks = samples.get("noise_mask")
        if masks is not None and masks.shape[0] > 1:
            result["noise_mask"] = _repeated(masks, amount)
        numbers = samples.get("batch_index")
        if numbers is not None:
            span = max(numbers) - min(numbers) + 1
            result["batch_index"] = [number + turn * span for turn in range(amount) for number in numbers]
        return (result,)


def _repeated(batch: Tensor, amount: int) -> Tensor:
    """A batch ``amount`` times in a row."""
    return batch.repeat(amount, *[1] * (batch.ndim - 1))


class LatentBatch:
    """Two batches one after the other; the second takes the first one's size."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples1": ("LATENT", {}), "samples2": ("LATENT", {})}}

    def execute(self, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """A batch of all samples of both, each with its number."""
        import torch

        first, second = samples1["samples"], samples2["samples"]
        numbers = [
            number
            for latent in (samples1, samples2)
            for number in latent.get("batch_index", range(latent["samples"].shape[0]))
        ]
        joined = torch.cat((first, fitted(second, first)))
        return ({**samples1, "samples": joined, "batch_index": numbers},)


class LatentBatchSeedBehavior:
    """Whether the samples of a batch get different noise or the same."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        behavior = {"default": "fixed", "multiselect": False, "options": ["random", "fixed"]}
        return {"required": {"samples": ("LATENT", {}), "seed_behavior": ("COMBO", behavior)}}

    def execute(self, samples: Latent, seed_behavior: str) -> tuple[Latent]:
        """``fixed`` gives every sample the first one's number, ``random`` removes the numbers."""
        result = dict(samples)
        if seed_behavior == "random":
            result.pop("batch_index", None)
        elif seed_behavior == "fixed":
            first = samples.get("batch_index", [0])[0]
            result["batch_index"] = [first] * samples["samples"].shape[0]
        return (result,)


class SetLatentNoiseMask:
    """Where the latent is to be changed by sampling."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "set_mask"
    CATEGORY = "latent/inpaint"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "mask": ("MASK",)}}

    def set_mask(self, samples: Latent, mask: Tensor) -> tuple[Latent]:
        """The mask becomes ``noise_mask`` ``[B, 1, h, w]``, in its own size."""
        return ({**samples, "noise_mask": as_batch(mask).unsqueeze(1)},)


# -- scaling and transforming ------------------------------------------------------------------------------


class LatentUpscale:
    """Scale to a size in pixels of the image."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "upscale_method": (UPSCALE_METHODS,),
                "width": ("INT", size_options(512, 0, 8)),
                "height": ("INT", size_options(512, 0, 8)),
                "crop": (CROP_METHODS,),
            }
        }

    def upscale(self, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:
        """A width or height of 0 follows from the other one, both 0 change nothing; at least 64 each."""
        source = samples["samples"]
        old_height, old_width = source.shape[-2:]
        if width == 0 and height == 0:
            return (samples,)
        if width == 0:
            height = max(64, height)
            width = round(old_width * height / old_height)
        elif height == 0:
            width = max(64, width)
            height = round(old_height * width / old_width)
        size = (max(64, width) // PIXELS_PER_ELEMENT, max(64, height) // PIXELS_PER_ELEMENT)
        return _with_samples(samples, common_upscale(source, *size, upscale_method, crop))


class LatentUpscaleBy:
    """Scale by a factor."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "upscale_method": (UPSCALE_METHODS,),
                "scale_by": ("FLOAT", {"default": 1.5, "min": 0.01, "max": 8.0, "step": 0.01}),
            }
        }

    def upscale(self, samples: Latent, upscale_method: str, scale_by: float) -> tuple[Latent]:
        """Both sides times ``scale_by``, rounded to whole elements."""
        source = samples["samples"]
        height, width = (round(side * scale_by) for side in source.shape[-2:])
        return _with_samples(samples, common_upscale(source, width, height, upscale_method, "disabled"))


class LatentRotate:
    """Turn clockwise."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "rotate"
    CATEGORY = "latent/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "rotation": (["none", "90 degrees", "180 degrees", "270 degrees"],),
            }
        }

    def rotate(self, samples: Latent, rotation: str) -> tuple[Latent]:
        """``rotation`` is ``"none"`` or ``"<multiple of 90> degrees"``."""
        return _with_samples(samples, samples["samples"].rot90(quarter_turns(rotation), dims=(3, 2)))


class LatentFlip:
    """The mirror image."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "flip"
    CATEGORY = "latent/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "flip_method": (["x-axis: vertically", "y-axis: horizontally"],),
            }
        }

    def flip(self, samples: Latent, flip_method: str) -> tuple[Latent]:
        """Around the x axis: upside down; around the y axis: left and right changed."""
        return _with_samples(samples, samples["samples"].flip(flipped_axes(flip_method, 2)))


class LatentCrop:
    """A rectangle of the latent."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "crop"
    CATEGORY = "latent/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "width": ("INT", size_options(512, 64, 8)),
                "height": ("INT", size_options(512, 64, 8)),
                "x": ("INT", size_options(0, 0, 8)),
                "y": ("INT", size_options(0, 0, 8)),
            }
        }

    def crop(self, samples: Latent, width: int, height: int, x: int, y: int) -> tuple[Latent]:
        """As much of the rectangle as lies in the latent; it begins at least 64 pixels before the end.

        In a latent smaller than that the place is counted from its end, as in ComfyUI.
        """
        source = samples["samples"]
        top = min(y // PIXELS_PER_ELEMENT, source.shape[2] - 8)
        left = min(x // PIXELS_PER_ELEMENT, source.shape[3] - 8)
        bottom, right = top + height // PIXELS_PER_ELEMENT, left + width // PIXELS_PER_ELEMENT
        return _with_samples(samples, source[:, :, top:bottom, left:right])


class LatentCut:
    """A piece of one direction."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        index = {"default": 0, "min": -MAX_RESOLUTION, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "samples": ("LATENT", {}),
                "dim": ("COMBO", {"multiselect": False, "options": ["x", "y", "t"]}),
                "index": ("INT", index),
                "amount": ("INT", size_options(1)),
            }
        }

    def execute(self, samples: Latent, dim: str, index: int, amount: int) -> tuple[Latent]:
        """``amount`` elements from ``index`` on (below 0: counted from the end), as far as there are."""
        source = samples["samples"]
        axis = source.ndim + AXES[dim]
        length = source.shape[axis]
        first = max(0, index + length) if index < 0 else min(index, length - 1)
        return _with_samples(samples, source.narrow(axis, first, min(amount, length - first)))


# Directions by their names in widgets; time comes before height in video latents.
AXES = {"x": -1, "y": -2, "t": -3}


class LatentConcat:
    """Two latents joined along one direction."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        dims = {"multiselect": False, "options": ["x", "-x", "y", "-y", "t", "-t"]}
        return {
            "required": {"samples1": ("LATENT", {}), "samples2": ("LATENT", {}), "dim": ("COMBO", dims)},
        }

    def execute(self, samples1: Latent, samples2: Latent, dim: str) -> tuple[Latent]:
        """The second one after the first, or before it where ``dim`` begins with a minus."""
        import torch

        first = samples1["samples"]
        second = repeat_to_batch_size(samples2["samples"], first.shape[0])
        pair = (second, first) if dim.startswith("-") else (first, second)
        return _with_samples(samples1, torch.cat(pair, dim=AXES[dim.lstrip("-")]))


# -- combining ---------------------------------------------------------------------------------------------


class LatentComposite:
    """One latent put onto another, with soft edges."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "composite"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples_to": ("LATENT",),
                "samples_from": ("LATENT",),
                "x": ("INT", size_options(0, 0, 8)),
                "y": ("INT", size_options(0, 0, 8)),
                "feather": ("INT", size_options(0, 0, 8)),
            }
        }

    def composite(self, samples_to: Latent, samples_from: Latent, x: int, y: int, feather: int = 0) -> tuple[Latent]:
        """``samples_from`` at ``x``, ``y``, fading over ``feather`` at the edges inside ``samples_to``."""
        result = samples_to["samples"].clone()
        top, left, steps = (value // PIXELS_PER_ELEMENT for value in (y, x, feather))
        source = samples_from["samples"]
        below = result[:, :, top : top + source.shape[2], left : left + source.shape[3]]
        above = source[:, :, : below.shape[2], : below.shape[3]]
        rows = _fade(below.shape[2], steps, top != 0, top + below.shape[2] < result.shape[2])
        columns = _fade(below.shape[3], steps, left != 0, left + below.shape[3] < result.shape[3])
        # Of a video, these are time and height; every column is alike.
        weight = (rows[:, None] * columns).to(result).reshape(len(rows), len(columns), *[1] * (result.ndim - 4))
        below.copy_(above * weight + below * (1 - weight))
        return _with_samples(samples_to, result)


def _fade(length: int, steps: int, at_start: bool, at_end: bool) -> Tensor:
    """The weights ``[length]`` of one direction: rising to 1 over ``steps`` elements at the chosen ends."""
    import torch

    weight = torch.ones(length)
    for step in range(steps):
        factor = (1.0 / steps) * (step + 1)
        if at_start:
            weight[step : step + 1] *= factor
        if at_end:
            # Beyond the beginning these count from the end again, as in ComfyUI.
            weight[length - 1 - step : length - step] *= factor
    return weight


class LatentCompositeMasked:
    """One latent put onto another through a mask."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "composite"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("LATENT",),
                "source": ("LATENT",),
                "x": ("INT", size_options(0, 0, 8)),
                "y": ("INT", size_options(0, 0, 8)),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def composite(
        self,
        destination: Latent,
        source: Latent,
        x: int,
        y: int,
        resize_source: bool,
        mask: Tensor | None = None,
    ) -> tuple[Latent]:
        """``source`` at ``x``, ``y`` where the mask is 1; the mask is stretched to the source's size."""
        result = destination["samples"].clone()
        left, top = x // PIXELS_PER_ELEMENT, y // PIXELS_PER_ELEMENT
        put_onto(result, source["samples"], left, top, mask, resize_source)
        return _with_samples(destination, result)


class LatentBlend:
    """A mixture of two latents."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "blend"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples1": ("LATENT",),
                "samples2": ("LATENT",),
                "blend_factor": ("FLOAT", {"default": 0.5, "min": 0, "max": 1, "step": 0.01}),
            }
        }

    def blend(self, samples1: Latent, samples2: Latent, blend_factor: float) -> tuple[Latent]:
        """``blend_factor`` 1 is ``samples1``, 0 is ``samples2``, which takes the size of ``samples1``."""
        first, second = samples1["samples"], samples2["samples"]
        if first.shape != second.shape:
            second = common_upscale(second, first.shape[3], first.shape[2], "bicubic", "center")
        return _with_samples(samples1, first * blend_factor + second * (1 - blend_factor))


class _TwoLatents:
    """What the sum and the difference share."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples1": ("LATENT", {}), "samples2": ("LATENT", {})}}


class LatentAdd(_TwoLatents):
    """The sum of two latents."""

    def execute(self, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """``samples2`` takes the size and batch size of ``samples1``."""
        first = samples1["samples"]
        return _with_samples(samples1, first + _fitted_batch(samples2["samples"], first))


class LatentSubtract(_TwoLatents):
    """The difference of two latents."""

    def execute(self, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """``samples2`` takes the size and batch size of ``samples1``."""
        first = samples1["samples"]
        return _with_samples(samples1, first - _fitted_batch(samples2["samples"], first))


class LatentMultiply:
    """A latent times a number."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        multiplier = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01}
        return {"required": {"samples": ("LATENT", {}), "multiplier": ("FLOAT", multiplier)}}

    def execute(self, samples: Latent, multiplier: float) -> tuple[Latent]:
        """Every value times ``multiplier``."""
        return _with_samples(samples, samples["samples"] * multiplier)


class LatentInterpolate:
    """A mixture of two latents that keeps their strength: directions and lengths are mixed apart."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples1": ("LATENT", {}),
                "samples2": ("LATENT", {}),
                "ratio": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def execute(self, samples1: Latent, samples2: Latent, ratio: float) -> tuple[Latent]:
        """``ratio`` 1 is ``samples1``, 0 is ``samples2``, fitted to the size and batch size of ``samples1``.

        Also right for batches, where ComfyUI 0.3.64 fails or mixes up batch and channels.
        """
        first = samples1["samples"]
        direction1, length1 = _direction_and_length(first)
        direction2, length2 = _direction_and_length(_fitted_batch(samples2["samples"], first))
        direction, _ = _direction_and_length(direction1 * ratio + direction2 * (1.0 - ratio))
        return _with_samples(samples1, direction * (length1 * ratio + length2 * (1.0 - ratio)))


def _direction_and_length(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Each element's channels as a vector of length 1 (0 for zeros), and its length ``[B, 1, ...]``."""
    import torch

    length = _length(samples)
    return torch.nan_to_num(samples / length), length


def _length(samples: Tensor) -> Tensor:
    """The length of each element's channels as a vector, ``[B, 1, ...]``."""
    import torch

    length: Tensor = torch.linalg.vector_norm(samples, dim=1, keepdim=True)
    return length


# -- operations --------------------------------------------------------------------------------------------

# What a LATENT_OPERATION link carries: called with the keyword ``latent``, and others it may ignore.
Operation = Callable[..., Any]


class LatentApplyOperation:
    """Apply an operation to a latent."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced/operations"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT", {}), "operation": ("LATENT_OPERATION", {})}}

    def execute(self, samples: Latent, operation: Operation) -> tuple[Latent]:
        """The operation's result on ``samples``."""
        return _with_samples(samples, operation(latent=samples["samples"]))


class LatentOperationTonemapReinhard:
    """An operation that compresses strong values."""

    RETURN_TYPES = ("LATENT_OPERATION",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced/operations"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        multiplier = {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.01}
        return {"required": {"multiplier": ("FLOAT", multiplier)}}

    def execute(self, multiplier: float) -> tuple[Operation]:
        """Lengths approach ``multiplier`` times the batch entry's mean plus 5 standard deviations."""

        def tonemap(latent: Tensor, **_others: Any) -> Tensor:
            length = _length(latent) + 1e-10
            mean = length.mean(dim=(1, 2, 3), keepdim=True)
            top = (length.std(dim=(1, 2, 3), keepdim=True) * 5 + mean) * multiplier
            relative = length / top
            return latent / length * (relative / (relative + 1.0) * top)

        return (tonemap,)


class LatentOperationSharpen:
    """An operation that sharpens."""

    RETURN_TYPES = ("LATENT_OPERATION",)
    FUNCTION = "execute"
    CATEGORY = "latent/advanced/operations"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "sharpen_radius": ("INT", {"default": 9, "min": 1, "max": 31, "step": 1}),
                "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
                "alpha": ("FLOAT", {"default": 0.1, "min": 0.0, "max": 5.0, "step": 0.01}),
            }
        }

    def execute(self, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Operation]:
        """As ImageSharpen, on the directions of the elements; their lengths stay."""
        kernel = sharpening_kernel(sharpen_radius, sigma, alpha)

        def sharpen(latent: Tensor, **_others: Any) -> Tensor:
            length = _length(latent) + 1e-6
            return length * convolve(latent / length, kernel.to(latent))

        return (sharpen,)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "EmptyLatentImage": EmptyLatentImage,
    "LatentFromBatch": LatentFromBatch,
    "RepeatLatentBatch": RepeatLatentBatch,
    "LatentBatch": LatentBatch,
    "LatentBatchSeedBehavior": LatentBatchSeedBehavior,
    "SetLatentNoiseMask": SetLatentNoiseMask,
    "LatentUpscale": LatentUpscale,
    "LatentUpscaleBy": LatentUpscaleBy,
    "LatentRotate": LatentRotate,
    "LatentFlip": LatentFlip,
    "LatentCrop": LatentCrop,
    "LatentCut": LatentCut,
    "LatentConcat": LatentConcat,
    "LatentComposite": LatentComposite,
    "LatentCompositeMasked": LatentCompositeMasked,
    "LatentBlend": LatentBlend,
    "LatentAdd": LatentAdd,
    "LatentSubtract": LatentSubtract,
    "LatentMultiply": LatentMultiply,
    "LatentInterpolate": LatentInterpolate,
    "LatentApplyOperation": LatentApplyOperation,
    "LatentOperationTonemapReinhard": LatentOperationTonemapReinhard,
    "LatentOperationSharpen": LatentOperationSharpen,
}

# Nodes without an entry have none in ComfyUI either; the editor shows their class name.
NODE_DISPLAY_NAME_MAPPINGS = {
    "EmptyLatentImage": "Empty Latent Image",
    "LatentFromBatch": "Latent From Batch",
    "RepeatLatentBatch": "Repeat Latent Batch",
    "SetLatentNoiseMask": "Set Latent Noise Mask",
    "LatentUpscale": "Upscale Latent",
    "LatentUpscaleBy": "Upscale Latent By",
    "LatentRotate": "Rotate Latent",
    "LatentFlip": "Flip Latent",
    "LatentCrop": "Crop Latent",
    "LatentComposite": "Latent Composite",
    "LatentBlend": "Latent Blend",
}
