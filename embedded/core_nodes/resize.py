"""Resizing of images and latents: the methods every scaling node offers, with ComfyUI's results.

Everything here takes and returns channels-first tensors, ``[B, C, H, W]``. Methods by name:
``nearest-exact``, ``bilinear``, ``area`` and ``bicubic`` are :func:`torch.nn.functional.interpolate` with no
anti-aliasing; ``lanczos`` is Pillow's, on 8-bit values, so it is anti-aliased and rounds to 1/255;
``bislerp`` interpolates directions and lengths apart, for latents. Compared with ComfyUI 0.3.64's
``comfy.utils``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Two directions whose cosine is this near to 1 or -1 are taken as equal or opposite: no arc between them
# exists.
_PARALLEL_COSINE_MARGIN = 1e-5


def common_upscale(samples: Tensor, width: int, height: int, upscale_method: str, crop: str) -> Tensor:
    """Resize a batch of images or latents, up or down.

    Args:
        samples: ``[B, C, H, W]``, or with more dimensions between C and H (video latents: ``[B, C, T, H,
            W]``), which are kept.
        width, height: the new size, at least 1.
        upscale_method: see the module's text.
        crop: ``"center"`` cuts the longer side to the new proportions first; anything else stretches.

    Returns:
        ``[B, C, ..., height, width]`` of the same dtype.

    Raises:
        ValueError: no such method.
    """
    frames = _fold_extra_dimensions(samples)
    if crop == "center":
        frames = _crop_to_proportions(frames, width, height)
    return _unfold_extra_dimensions(_resize(frames, width, height, upscale_method), samples)


def fitted(samples: Tensor, like: Tensor) -> Tensor:
    """A batch with the height and width of another: its middle if the proportions differ, itself if nothing does.

    Args:
        samples, like: ``[B, C, ..., H, W]``, each of any batch size.
    """
    if samples.shape[1:] == like.shape[1:]:
        return samples
    return common_upscale(samples, like.shape[-1], like.shape[-2], "bilinear", "center")


def _resize(samples: Tensor, width: int, height: int, method: str) -> Tensor:
    """Resize ``[B, C, H, W]`` by a named method."""
    import torch.nn.functional as functional

    if method == "bislerp":
        return bislerp(samples, width, height)
    if method == "lanczos":
        return lanczos(samples, width, height)
    if method not in ("nearest-exact", "bilinear", "area", "bicubic"):
        known = "nearest-exact, bilinear, area, bicubic, lanczos, bislerp"
        raise ValueError(f"Unknown upscale_method {method!r}; use one of {known}")
    return functional.interpolate(samples, size=(height, width), mode=method)


def _fold_extra_dimensions(samples: Tensor) -> Tensor:
    """``[B, C, ..., H, W]`` as ``[B * ..., C, H, W]``: one image per frame."""
    if samples.ndim <= 4:
        return samples
    return samples.flatten(2, -3).movedim(2, 1).flatten(0, 1)


def _unfold_extra_dimensions(frames: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_fold_extra_dimensions`, keeping the new height and width; ``like`` is what was folded."""
    if like.ndim <= 4:
        return frames
    batched = frames.reshape(like.shape[0], -1, *frames.shape[1:]).movedim(2, 1)
    return batched.reshape(*like.shape[:-2], *frames.shape[-2:])


def _crop_to_proportions(samples: Tensor, width: int, height: int) -> Tensor:
    """Cut the side too long for ``width / height``, the same whole number of pixels at both ends."""
    old_height, old_width = samples.shape[-2:]
    old_aspect = old_width / old_height
    new_aspect = width / height
    left = top = 0
    if old_aspect > new_aspect:
        left = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        top = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return samples[..., top : old_height - top, left : old_width - left]


def lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    """Resize with Pillow's anti-aliased Lanczos filter.

    Args:
        samples: ``[B, C, H, W]`` with C of 1 to 4, values in 0..1 (others are cut off), rounded down to
            1/255.
        width, height: the new size.

    Returns:
        ``[B, C, height, width]`` in steps of 1/255, on the device and of the dtype of ``samples``.
    """
    import numpy as np
    import torch
    from PIL import Image

    resized = []
    for sample in samples.movedim(1, -1):
        pixels = np.clip(255.0 * sample.cpu().numpy(), 0, 255).astype(np.uint8)
        # Pillow wants one channel without a channel axis.
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image = image.resize((width, height), resample=Image.Resampling.LANCZOS)
        result = np.asarray(image).astype(np.float32) / 255.0
        resized.append(torch.from_numpy(result.reshape(height, width, -1)).movedim(-1, 0))
    return torch.stack(resized).to(samples.device, samples.dtype)


def bislerp(samples: Tensor, width: int, height: int) -> Tensor:
    """Resize by spherical interpolation between neighbours, first along the width, then along the height.

    A pixel's channels are one vector: its direction moves along the arc between its two neighbours', its
    length linearly. That keeps a latent's contrast where bilinear interpolation would lower it.

    Args:
        samples: ``[B, C, H, W]``, any float dtype.
        width, height: the new size.

    Returns:
        ``[B, C, height, width]``, same dtype; computed in float32.
    """
    vectors = samples.float().movedim(1, -1)
    vectors = _slerp_along(vectors, 2, width)
    vectors = _slerp_along(vectors, 1, height)
    return vectors.movedim(-1, 1).to(samples.dtype)


def _slerp_along(vectors: Tensor, dim: int, length: int) -> Tensor:
    """Resize one dimension of ``[B, H, W, C]`` to ``length`` by spherical interpolation."""
    before, after, ratio = _neighbours(vectors, vectors.shape[dim], length)
    ratio_shape = [1, 1, 1, 1]
    ratio_shape[dim] = length
    return _slerp(vectors.index_select(dim, before), vectors.index_select(dim, after), ratio.reshape(ratio_shape))


def _neighbours(like: Tensor, old_length: int, new_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each new position, the old index on either side (int64) and how far it lies between them (0..1).

    The positions are those of bilinear interpolation with half-pixel centres, clamped at both ends.
    """
    import torch
    import torch.nn.functional as functional

    index = torch.arange(old_length, dtype=torch.float32, device=like.device)
    following = (index + 1).clamp(max=old_length - 1)
    both = torch.stack((index, following)).reshape(1, 2, 1, old_length)
    positions, next_positions = functional.interpolate(both, size=(1, new_length), mode="bilinear")[0, :, 0]
    return positions.long(), next_positions.long(), positions - positions.floor()


def _slerp(start: Tensor, end: Tensor, ratio: Tensor) -> Tensor:
    """Spherical interpolation of vectors in the last dimension, from ``start`` at 0 to ``end`` at 1."""
    import torch

    start_length = torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    end_length = torch.linalg.vector_norm(end, dim=-1, keepdim=True)
    # A vector of length 0 has no direction; it stays 0.
    start_direction = torch.nan_to_num(start / start_length, nan=0.0)
    end_direction = torch.nan_to_num(end / end_length, nan=0.0)
    cosine = (start_direction * end_direction).sum(-1, keepdim=True)
    angle = torch.acos(cosine)
    direction = torch.sin((1.0 - ratio) * angle) * start_direction + torch.sin(ratio * angle) * end_direction
    arc = direction / torch.sin(angle) * (start_length * (1.0 - ratio) + end_length * ratio)
    arc = torch.where(cosine > 1 - _PARALLEL_COSINE_MARGIN, start, arc)
    return torch.where(cosine < _PARALLEL_COSINE_MARGIN - 1, start * (1.0 - ratio) + end * ratio, arc)
