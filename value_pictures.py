"""Values as pictures: IMAGE, MASK and LATENT become PIL images, scaled down while they are read. Knows no ComfyUI.

Only the pixels that are shown are touched: of a large tensor every n-th row and column, so that a value of gigabytes
costs about as much as a small one.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

# Parts of a latent's values that are darker than black and brighter than white when it is shown.
_TAIL = 0.01


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor with elements that can be looked at."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.layout is torch.strided


def is_latent(value: Any) -> bool:
    """Whether a value is a LATENT: a dict with a tensor under "samples"."""
    return isinstance(value, Mapping) and is_tensor(value.get("samples"))


def kind_of(value: Any) -> str:
    """What a value is to eyes: "image" (float [B,H,W,C], 1, 3 or 4 channels), "mask" (float [B,H,W] or [H,W]),
    "latent", "tensor", or "other".
    """
    if is_latent(value):
        return "latent"
    if not is_tensor(value):
        return "other"
    shape = list(value.shape)
    if not value.is_floating_point() or 0 in shape:
        return "tensor"
    if len(shape) == 4 and shape[3] in (1, 3, 4):
        return "image"
    # Smaller ones are vectors and weights rather than pictures.
    return "mask" if len(shape) in (2, 3) and min(shape[-2:]) >= 8 else "tensor"


def count(value: Any) -> int:
    """How many pictures a value has; 0 where it is none."""
    kind = kind_of(value)
    if kind == "latent":
        return int(value["samples"].shape[0])
    if kind in ("image", "mask"):
        return 1 if value.dim() == 2 else int(value.shape[0])
    return 0


def to_picture(value: Any, item: int = 0, size: int = 1024) -> Image.Image | None:
    """One picture of a value, mode L, RGB or RGBA.

    Args:
        value: an IMAGE, MASK or LATENT; what is out of 0..1 is clamped, NaN is black. Of a latent three channels, or
            the means of three groups of channels, are shown as red, green and blue, each stretched.
        item: which of the batch.
        size: pixels that the longer side has at most; smaller pictures stay as they are.

    Returns:
        None where the value is no picture, or has no such item.
    """
    kind = kind_of(value)
    if not 0 <= item < count(value):
        return None
    if kind == "latent":
        return _latent(value["samples"], item, size)
    plane = value if value.dim() == 2 else value[item]
    return _from_levels(_thinned(plane.detach(), size), size)


def _thinned(plane: Any, size: int) -> Any:
    """[H,W,...] with every n-th row and column, so that about twice as many are left as are shown."""
    step = max(1, max(plane.shape[0], plane.shape[1]) // (2 * max(1, size)))
    return plane[::step, ::step]


def _from_levels(levels: Any, size: int) -> Image.Image:
    import torch
    from PIL import Image

    pixels = levels.to(device="cpu", dtype=torch.float32).nan_to_num(0.0).clamp(0, 1)
    array = (pixels * 255).round().to(torch.uint8).contiguous().numpy()
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    picture = Image.fromarray(array)
    if max(picture.size) > size:
        picture.thumbnail((size, size))
    return picture


def _latent(samples: Any, item: int, size: int) -> Image.Image | None:
    import torch

    one = samples[item].detach()
    while one.dim() > 3:  # a video's frames: the first one
        one = one[:, 0]
    if one.dim() != 3 or 0 in one.shape:
        return None
    plane = _thinned(one.permute(1, 2, 0), size).to(device="cpu", dtype=torch.float32).nan_to_num(0.0)
    if plane.shape[-1] > 4:
        plane = torch.stack([group.mean(dim=-1) for group in plane.tensor_split(3, dim=-1)], dim=-1)
    plane = plane[..., :3] if plane.shape[-1] >= 3 else plane[..., :1]
    ends = torch.tensor([_TAIL, 1 - _TAIL])
    low, high = torch.quantile(plane.reshape(-1, plane.shape[-1])[: 2**20], ends, dim=0)
    picture = _from_levels((plane - low) / (high - low).clamp(min=1e-6), size)
    # A latent has a pixel for eight by eight of the picture's: larger, it can be looked at.
    factor = max(1, min(8, size // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor)) if factor > 1 else picture


def as_jpeg(picture: Image.Image) -> bytes:
    """As a small file; what is transparent is shown on grey."""
    from PIL import Image

    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def as_png(picture: Image.Image) -> bytes:
    """As a file without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
