"""Core nodes that cut batches and videos of latents anew: rebatching, trimming, replacing frames.

A latent is as in :mod:`.latent`; those of videos are ``[B, C, T, H, W]``. Names, inputs and results are those of
ComfyUI 0.3.64, and of 0.33.0 for the nodes it added.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ..node_registry import MAX_RESOLUTION
from .image import size_options
from .latent import AXES, PIXELS_PER_ELEMENT, Latent

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.nodes")


# -- batches -----------------------------------------------------------------------------------------------


class RebatchLatents:
    """Lists of batches, cut into batches of one size."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True,)
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "latents": ("LATENT", {}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
            }
        }

    def execute(self, latents: list[Latent], batch_size: list[int]) -> tuple[list[Latent]]:
        """A list of latents of ``batch_size[0]`` samples each, the last of each size with the rest.

        Latents of another height or width begin a new batch; of what is left of the ones before, at most
        ``batch_size[0]`` samples are kept. Every sample has its number in ``batch_index``, counted over all latents
        where its own has none. ``noise_mask`` is there only where it is not all 1.
        """
        size = batch_size[0]
        results: list[Latent] = []
        pending: _Samples | None = None
        count = 0
        for latent in latents:
            following = _numbered_and_masked(latent, count)
            count += len(following.numbers)
            if pending is None:
                pending = following
            elif pending.samples.shape[-2:] != following.samples.shape[-2:]:
                results.append(_as_latent(pending.cut(0, size)))
                pending = following
            else:
                pending = pending.joined(following)
            # As in ComfyUI exactly one full batch stays pending.
            if len(pending.samples) > size:
                whole = len(pending.samples) // size
                results += [_as_latent(pending.cut(start * size, size)) for start in range(whole)]
                rest = pending.cut(whole * size, size)
                pending = rest if len(rest.samples) else None
        if pending is not None:
            results.append(_as_latent(pending.cut(0, size)))
        return (results,)


class _Samples(NamedTuple):
    """Samples of one size with their masks ``[B, 1, h, w]`` and numbers."""

    samples: Tensor
    masks: Tensor
    numbers: list[int]

    def cut(self, start: int, length: int) -> _Samples:
        """``length`` of them from ``start`` on, as far as there are."""
        part = slice(start, start + length)
        return _Samples(self.samples[part], self.masks[part], self.numbers[part])

    def joined(self, other: _Samples) -> _Samples:
        """These and then the others."""
        import torch

        return _Samples(
            torch.cat((self.samples, other.samples)),
            torch.cat((self.masks, other.masks)),
            self.numbers + other.numbers,
        )


def _numbered_and_masked(latent: Latent, first_number: int) -> _Samples:
    """A latent's samples; without masks of its own they get white ones of the image's size."""
    import torch

    samples = latent["samples"]
    count = samples.shape[0]
    masks = latent.get("noise_mask")
    if masks is None:
        height, width = (side * PIXELS_PER_ELEMENT for side in samples.shape[2:4])
        masks = torch.ones((count, 1, height, width))
    if masks.shape[0] < count:
        masks = masks.repeat((count - 1) // masks.shape[0] + 1, 1, 1, 1)[:count]
    return _Samples(samples, masks, latent.get("batch_index", list(range(first_number, first_number + count))))


def _as_latent(batch: _Samples) -> Latent:
    """A latent of some samples, without masks that change nothing."""
    latent: Latent = {"samples": batch.samples, "noise_mask": batch.masks, "batch_index": batch.numbers}
    if batch.masks.mean() == 1.0:
        del latent["noise_mask"]
    return latent


class LatentCutToBatch:
    """One latent cut into slices, as a batch."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "model/latent/advanced"
    SEARCH_ALIASES = ("slice to batch", "split latent", "tile latent")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT", {}),
                "dim": ("COMBO", {"multiselect": False, "options": ["t", "x", "y"]}),
                "slice_size": ("INT", size_options(1)),
            }
        }

    def execute(self, samples: Latent, dim: str, slice_size: int) -> tuple[Latent]:
        """Slices of ``slice_size`` elements along ``dim``, what is left over at the end is dropped.

        A latent without the dimension, and one of no more than one slice, stays whole.
        """
        source = samples["samples"]
        axis = source.ndim + AXES[dim]
        if axis < 2:
            return (samples,)
        slices = source.movedim(axis, 1)
        size = min(slice_size, slices.shape[1])
        slices = slices[:, : slices.shape[1] // size * size]
        batch = slices.reshape(-1, size, *slices.shape[2:]).movedim(1, axis)
        return ({**samples, "samples": batch},)


# -- videos ------------------------------------------------------------------------------------------------


class TrimVideoLatent:
    """A video without its beginning."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "latent/video"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        amount = {"default": 0, "min": 0, "max": 99999}
        return {"required": {"samples": ("LATENT", {}), "trim_amount": ("INT", amount)}}

    def execute(self, samples: Latent, trim_amount: int) -> tuple[Latent]:
        """The first ``trim_amount`` elements of time are left out."""
        return ({**samples, "samples": samples["samples"][:, :, trim_amount:]},)


class ReplaceVideoLatentFrames:
    """Some frames of a video replaced by another's."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "model/latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        index = {
            "tooltip": "The starting latent frame index in the destination latent where the source latent frames will "
            "be placed. Negative values count from the end.",
            "default": 0,
            "min": -MAX_RESOLUTION,
            "max": MAX_RESOLUTION,
            "step": 1,
        }
        source_tooltip = (
            "The source latent providing frames to insert into the destination latent. If not provided, the "
            "destination latent is returned unchanged."
        )
        return {
            "required": {
                "destination": ("LATENT", {"tooltip": "The destination latent where frames will be replaced."}),
                "index": ("INT", index),
            },
            "optional": {"source": ("LATENT", {"tooltip": source_tooltip})},
        }

    def execute(self, destination: Latent, index: int, source: Latent | None = None) -> tuple[Latent]:
        """``destination`` with the frames of ``source`` from ``index`` on, and all else that ``source`` holds.

        Where they do not fit, ``destination`` is returned as it is, with a warning in the log.
        """
        if source is None:
            return (destination,)
        frames, count = source["samples"], destination["samples"].shape[2]
        first = index + count if index < 0 else index
        if first + frames.shape[2] > count:
            logger.warning(
                "ReplaceVideoLatentFrames: %d frames at %d do not fit into %d, so nothing is replaced",
                frames.shape[2],
                first,
                count,
            )
            return (destination,)
        result = destination["samples"].clone()
        result[:, :, first : first + frames.shape[2]] = frames
        return ({**source, "samples": result},)


# How far the beginning's brightness and contrast may move, down and up.
_MEAN_REACH = (0.3, 0.35)
_DEVIATION_REACH = (0.35, 0.5)


class NormalizeVideoLatentStart:
    """The beginning of a video with the brightness and contrast of what follows."""

    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    FUNCTION = "execute"
    CATEGORY = "model/conditioning"
    DESCRIPTION = (
        "Normalizes the initial frames of a video latent to match the mean and standard deviation of subsequent "
        "reference frames. Helps reduce differences between the starting frames and the rest of the video."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        start_tooltip = "Number of latent frames to normalize, counted from the start"
        reference_tooltip = "Number of latent frames after the start frames to use as reference"
        return {
            "required": {
                "latent": ("LATENT", {}),
                "start_frame_count": ("INT", {"tooltip": start_tooltip, **size_options(4)}),
                "reference_frame_count": ("INT", {"tooltip": reference_tooltip, **size_options(5)}),
            }
        }

    def execute(self, latent: Latent, start_frame_count: int, reference_frame_count: int) -> tuple[Latent]:
        """Each of the first frames gets the mean and deviation of the reference, as far as it may move."""
        samples = latent["samples"]
        if samples.shape[2] <= 1:
            return (latent,)
        count = min(reference_frame_count, samples.shape[2] - 1)
        result = samples.clone()
        start = result[:, :, :start_frame_count]
        start.copy_(_normalized(start, samples[:, :, start_frame_count : start_frame_count + count]))
        return ({**latent, "samples": result},)


def _normalized(frames: Tensor, reference: Tensor) -> Tensor:
    """Each frame ``[B, C, 1, H, W]`` of ``frames`` with the mean and deviation of all of ``reference``."""
    mean, deviation = (measure(dim=(1, 3, 4), keepdim=True) for measure in (frames.mean, frames.std))
    new_mean = reference.mean().clamp(mean - _MEAN_REACH[0], mean + _MEAN_REACH[1])
    new_deviation = reference.std().clamp(deviation - _DEVIATION_REACH[0], deviation + _DEVIATION_REACH[1])
    return (frames - mean) / (deviation + 1e-8) * new_deviation + new_mean


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "RebatchLatents": RebatchLatents,
    "LatentCutToBatch": LatentCutToBatch,
    "TrimVideoLatent": TrimVideoLatent,
    "ReplaceVideoLatentFrames": ReplaceVideoLatentFrames,
    "NormalizeVideoLatentStart": NormalizeVideoLatentStart,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "RebatchLatents": "Rebatch Latents",
    "ReplaceVideoLatentFrames": "Replace Video Latent Frames",
}
