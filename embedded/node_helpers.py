"""Small helpers under the name ``node_helpers`` that node packages import."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from .arguments import args
from .conditioning import conditioning_set_values as conditioning_set_values
from .conditioning import (
    conditioning_set_values_with_timestep_range as conditioning_set_values_with_timestep_range,
)
from .core_nodes.align import image_alpha_fix as image_alpha_fix


def hasher() -> Callable[..., Any]:
    """The hash function of ``--default-hashing-function``, as a constructor."""
    return getattr(hashlib, args.default_hashing_function)  # type: ignore[no-any-return]


def pillow(fn: Callable[[Any], Any], arg: Any) -> Any:
    """Call a Pillow function; if the image file is damaged, once more with truncated files allowed."""
    from PIL import ImageFile, UnidentifiedImageError

    try:
        return fn(arg)
    except (OSError, UnidentifiedImageError, ValueError):
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return fn(arg)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def string_to_torch_dtype(string: str) -> Any:
    """``"fp32"``, ``"fp16"`` or ``"bf16"`` as a torch.dtype, None for anything else."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(string)
