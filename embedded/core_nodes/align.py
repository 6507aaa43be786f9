"""Making two tensors fit each other: batch sizes and alpha channels.

Nodes that combine two images or latents accept different batch sizes and RGB beside RGBA. Behaviour of
ComfyUI 0.3.64's ``comfy.utils.repeat_to_batch_size`` and ``node_helpers.image_alpha_fix``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def repeat_to_batch_size(tensor: Tensor, batch_size: int, dim: int = 0) -> Tensor:
    """``tensor`` with ``batch_size`` entries along ``dim``: cut off, or repeated from its beginning.

    Returns:
        A view where it is cut or already fits, else a copy.
    """
    if tensor.shape[dim] < batch_size:
        repeats = [1] * tensor.ndim
        repeats[dim] = math.ceil(batch_size / tensor.shape[dim])
        tensor = tensor.repeat(repeats)
    return tensor.narrow(dim, 0, batch_size)


def image_alpha_fix(destination: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Give the source of a combination the channels of its destination.

    Args:
        destination, source: ``[..., C]``, RGB or RGBA.

    Returns:
        The destination as it is, and the source: without alpha if the destination has none, with an opaque
            one if only the destination has one. (There ComfyUI 0.3.64 extends the destination instead, and
            then fails; later versions do it as here.) Beside a grey source ``[..., 1]``, which stands for every
            channel, the destination gets an opaque channel more, as in ComfyUI 0.3.64.
    """
    import torch

    missing = destination.shape[-1] - source.shape[-1]
    if missing > 0 and source.shape[-1] == 1:
        return torch.nn.functional.pad(destination, (0, 1), value=1.0), source
    if missing > 0:
        return destination, torch.nn.functional.pad(source, (0, missing), value=1.0)
    return destination, source[..., : destination.shape[-1]]
