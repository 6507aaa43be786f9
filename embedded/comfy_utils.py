"""Progress bars and image scaling for nodes (``comfy.utils`` for node packages)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .messages import Preview

# Called by every ProgressBar: (value, total, preview, node_id=...). Set by the server, read by packages.
PROGRESS_BAR_HOOK: Callable[..., None] | None = None
PROGRESS_BAR_ENABLED = True


def set_progress_bar_global_hook(function: Callable[..., None] | None) -> None:
    """Set what progress bars made from now on call."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


def set_progress_bar_enabled(enabled: bool) -> None:
    """Whether packages should show bars of their own on the terminal."""
    global PROGRESS_BAR_ENABLED
    PROGRESS_BAR_ENABLED = enabled


class ProgressBar:
    """A node's progress in the editor. Each update is also a point at which the prompt can be interrupted."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        """
        Args:
            total: the value that means done.
            node_id: by default the node that is running.
        """
        self.total = total
        self.current: float = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Preview | None = None) -> None:
        """Go to a value.

        Args:
            preview: ("JPEG" or "PNG", PIL image, largest edge in pixels or None).

        Raises:
            InterruptProcessingException: the prompt was interrupted.
        """
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: float) -> None:
        """Go forward by a value; raises as :meth:`update_absolute`."""
        self.update_absolute(self.current + value)


def common_upscale(samples: torch.Tensor, width: int, height: int, upscale_method: str, crop: str) -> torch.Tensor:
    """Scale a batch of images or latents.

    Args:
        samples: [B, C, H, W], or with further dimensions between C and H.
        width, height: the new size.
        upscale_method: "nearest-exact", "bilinear", "area", "bicubic" or "lanczos" (images only).
        crop: "center" cuts off what does not fit the new aspect ratio; "disabled" stretches.

    Raises:
        NotImplementedError: "bislerp", which is for model latents.
    """
    import torch

    if upscale_method == "bislerp":
        raise NotImplementedError("the embedded server has no bislerp scaling; use bilinear or bicubic")
    leading, channels = samples.shape[0], samples.shape[1]
    middle = samples.shape[2:-2]
    flat = samples
    if middle:
        flat = samples.reshape(leading, channels, -1, *samples.shape[-2:]).movedim(2, 1)
        flat = flat.reshape(-1, channels, *samples.shape[-2:])
    if crop == "center":
        flat = _crop_to_aspect(flat, width, height)
    if upscale_method == "lanczos":
        flat = _scale_lanczos(flat, width, height)
    else:
        flat = torch.nn.functional.interpolate(flat, size=(height, width), mode=upscale_method)
    if not middle:
        return flat
    flat = flat.reshape(leading, -1, channels, height, width).movedim(2, 1)
    return flat.reshape(leading, channels, *middle, height, width)


def _crop_to_aspect(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The middle of [B, C, H, W] that has the aspect ratio of width to height."""
    old_height, old_width = samples.shape[-2:]
    old_aspect, new_aspect = old_width / old_height, width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return samples[..., y : old_height - y, x : old_width - x]


def _scale_lanczos(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Scale [B, C, H, W] images in 0..1 with Pillow, which works on 8 bits per channel."""
    import numpy as np
    import torch
    from PIL import Image

    scaled = []
    for image in samples:
        pixels = np.clip(255.0 * image.movedim(0, -1).cpu().numpy(), 0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
        tensor = torch.from_numpy(resized / 255.0)
        scaled.append(tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.movedim(-1, 0))
    return torch.stack(scaled).to(samples.device, samples.dtype)


def load_torch_file(ckpt: str, *_: Any, **__: Any) -> Any:
    """There are no models here.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(f"the embedded server loads no models, so not {ckpt}; use a ComfyUI installation")
