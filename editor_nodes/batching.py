"""Values of several iterations, or several pictures, as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def join_batch(name: str, values: Sequence[Any]) -> Any:
    """Images [B,H,W,C], masks [B,H,W] or latents (dicts with ``samples`` [B,C,H,W]) joined along the batch.

    Args:
        name: the port, for messages.

    Raises:
        ValueError: they differ in size, or are nothing that has a batch.
    """
    if all(isinstance(value, Mapping) and hasattr(value.get("samples"), "shape") for value in values):
        parts = [dict(value) for value in values]
        joined = {"samples": _join(name, [part["samples"] for part in parts])}
        if all(hasattr(part.get("noise_mask"), "shape") for part in parts):
            joined["noise_mask"] = _join(name, [part["noise_mask"] for part in parts])
        return joined
    if all(hasattr(value, "shape") and len(value.shape) >= 3 for value in values):
        return _join(name, values)
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise ValueError(
        f"The values of {name!r} ({kinds}) cannot be joined to a batch: that is for images, masks and latents. Set "
        "collected_as to 'list'."
    )


def _join(name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    sizes = [tuple(tensor.shape[1:]) for tensor in tensors]
    if len(set(sizes)) > 1:
        number = next(index for index, size in enumerate(sizes) if size != sizes[0])
        raise ValueError(
            f"The values of {name!r} differ in size, so they are no batch: number 0 is {_size(sizes[0])}, number "
            f"{number} is {_size(sizes[number])} (counted from 0). Set collected_as to 'list', or give all the same "
            "size in the workflow."
        )
    return torch.cat(list(tensors), dim=0)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
