"""Small functions that ComfyUI keeps in modules of their own, of which packages use nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# A file that ComfyUI asks users to install from; this server's requirements are its package's.
requirements_path = Path(__file__).resolve().parent.parent / "requirements.txt"


def get_missing_requirements_message() -> str:
    """What to do about missing libraries (``utils.install_util``)."""
    return f"Please install what is missing by running:\n{sys.executable} -m pip install 'discomfort[embedded]'"


def merge_json_recursive(base: Any, update: Any) -> Any:
    """Two JSON values as one: objects key by key, lists one behind the other, else the second (``utils.json_util``)."""
    if isinstance(base, dict) and isinstance(update, dict):
        merged = dict(base)
        for key, value in update.items():
            merged[key] = merge_json_recursive(merged[key], value) if key in merged else value
        return merged
    if isinstance(base, list) and isinstance(update, list):
        return base + update
    return update


def enable_args_parsing(enable: bool = True) -> None:
    """Whether ``comfy.cli_args`` reads the command line (``comfy.options``): it has done so when packages load."""


def do_nothing_with_models(*_: Any, **__: Any) -> None:
    """There are no models to clean up (``comfy.sample.cleanup_additional_models``)."""


def composite(
    destination: Tensor,
    source: Tensor,
    x: int,
    y: int,
    mask: Tensor | None = None,
    multiplier: int = 8,
    resize_source: bool = False,
) -> Tensor:
    """Mix a source into a destination, in place (``comfy_extras.nodes_mask``).

    Args:
        destination: ``[B, C, ..., H, W]``, changed and returned.
        source: as ``destination``, of any height, width and batch size.
        x, y: where the source's left upper corner goes, in pixels.
        mask: ``[..., h, w]``, 1 where the source is taken; None: everywhere.
        multiplier: pixels per element of the two: 8 for latents, 1 for images.
        resize_source: stretch the source to the destination's size first.
    """
    from .core_nodes.mask import put_onto

    put_onto(destination, source, x // multiplier, y // multiplier, mask, resize_source)
    return destination


def gaussian_kernel(kernel_size: int, sigma: float, device: Any = None) -> Tensor:
    """A square Gaussian of sum 1, float32 ``[kernel_size, kernel_size]`` (``comfy_extras.nodes_post_processing``)."""
    from .core_nodes.post_processing import gaussian_kernel as kernel

    return kernel(kernel_size, sigma).to(device)
