"""Applying a function to overlapping tiles (``tiled_scale`` in ``comfy.utils`` for node packages).

The tiles' results are blended over their overlap, as ComfyUI 0.3.64 does it: each tile weighs less towards its edges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

# How a length or position of the input becomes one of the output: a factor, or a function.
Scale: TypeAlias = float | Callable[[Any], Any]


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """How many tiles :func:`tiled_scale` takes for one picture; for progress bars."""
    return _count(width, tile_x, overlap) * _count(height, tile_y, overlap)


def _count(length: int, tile: int, overlap: int) -> int:
    """How many tiles one direction takes."""
    return 1 if length <= tile else math.ceil((length - overlap) / (tile - overlap))


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: Any = "cpu",
    pbar: Any = None,
) -> Tensor:
    """As :func:`tiled_scale_multidim`, for pictures [B, C, H, W]."""
    return tiled_scale_multidim(
        samples,
        function,
        (tile_y, tile_x),
        overlap=overlap,
        upscale_amount=upscale_amount,
        out_channels=out_channels,
        output_device=output_device,
        pbar=pbar,
    )


def tiled_scale_multidim(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile: Sequence[int] = (64, 64),
    overlap: int | Sequence[int] = 8,
    upscale_amount: Scale | Sequence[Scale] = 4,
    out_channels: int = 3,
    output_device: Any = "cpu",
    downscale: bool = False,
    index_formulas: Scale | Sequence[Scale] | None = None,
    pbar: Any = None,
) -> Tensor:
    """Apply a function that scales to tiles, and blend what it returns.

    Args:
        samples: [B, C, ...] with as many further dimensions as ``tile``.
        function: takes [1, C, ...], returns [1, out_channels, ...] scaled by ``upscale_amount``.
        tile: the largest length the function gets, per dimension.
        overlap: how many elements neighbouring tiles share, per dimension or for all.
        upscale_amount: the factor, per dimension or for all; a function takes a length and returns the new one.
        out_channels: of the result.
        output_device: where the result is put together.
        downscale: divide by ``upscale_amount`` (functions are called as they are).
        index_formulas: as ``upscale_amount``, for the positions of tiles; by default the same.
        pbar: a progress bar; each tile is one step.

    Returns:
        [B, out_channels, ...], float32.
    """
    import torch

    dims = len(tile)
    overlaps = _per_dimension(overlap, dims)
    lengths = [_scaler(amount, downscale) for amount in _per_dimension(upscale_amount, dims)]
    formulas = upscale_amount if index_formulas is None else index_formulas
    places = [_scaler(amount, downscale) for amount in _per_dimension(formulas, dims)]
    sizes = [round(scaled(size)) for scaled, size in zip(lengths, samples.shape[2:], strict=True)]
    feathers = [round(scaled(size)) for scaled, size in zip(lengths, overlaps, strict=True)]
    result = torch.empty([samples.shape[0], out_channels, *sizes], device=output_device)
    with torch.inference_mode():
        for index in range(samples.shape[0]):
            sample = samples[index : index + 1]
            if all(size <= most for size, most in zip(sample.shape[2:], tile, strict=True)):
                result[index : index + 1] = function(sample).to(output_device)
                _step(pbar)
                continue
            total = torch.zeros([1, out_channels, *sizes], device=output_device)
            weights = torch.zeros_like(total)
            for starts in itertools.product(*map(_starts, sample.shape[2:], tile, overlaps)):
                piece, target, target_weights = sample, total, weights
                corners = []
                for dim, start in enumerate(starts):
                    size = sample.shape[dim + 2]
                    at = max(0, min(size - overlaps[dim], start))
                    piece = piece.narrow(dim + 2, at, min(tile[dim], size - at))
                    corners.append(round(places[dim](at)))
                scaled_piece = function(piece).to(output_device)
                weight = _feathered(scaled_piece, feathers)
                for dim, corner in enumerate(corners):
                    length = weight.shape[dim + 2]
                    target = target.narrow(dim + 2, corner, length)
                    target_weights = target_weights.narrow(dim + 2, corner, length)
                target.add_(scaled_piece * weight)
                target_weights.add_(weight)
                _step(pbar)
            result[index : index + 1] = total / weights
    return result


def _per_dimension(value: Any, dims: int) -> Sequence[Any]:
    """One value for each dimension."""
    return value if isinstance(value, (tuple, list)) else [value] * dims


def _scaler(amount: Any, downscale: bool) -> Callable[[float], float]:
    """The function a factor stands for."""
    if callable(amount):
        return amount  # type: ignore[no-any-return]
    return (lambda value: value / amount) if downscale else (lambda value: amount * value)


def _starts(size: int, tile: int, overlap: int) -> Iterable[int]:
    """Where tiles begin in one dimension."""
    return range(0, size - overlap, tile - overlap) if size > tile else (0,)


def _feathered(piece: Tensor, feathers: Sequence[int]) -> Tensor:
    """How much each element of a tile weighs: less, linearly, towards the edges it may share."""
    import torch

    weight = torch.ones_like(piece)
    for dim, feather in enumerate(feathers, start=2):
        length = weight.shape[dim]
        if feather >= length:
            continue
        for place in range(feather):
            weight.narrow(dim, place, 1).mul_((place + 1) / feather)
            weight.narrow(dim, length - 1 - place, 1).mul_((place + 1) / feather)
    return weight


def _step(pbar: Any) -> None:
    """Tell a progress bar, if there is one."""
    if pbar is not None:
        pbar.update(1)
