"""Core nodes for images with transparency: joining and splitting alpha, Porter-Duff compositing.

A mask is 1 minus alpha: 1 is transparent. Names, inputs and results are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .image import resize_image
from .mask import as_batch

if TYPE_CHECKING:
    from torch import Tensor


class SplitImageWithAlpha:
    """Colours and transparency apart."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "execute"
    CATEGORY = "mask/compositing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {})}}

    def execute(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """RGB, and 1 minus alpha: zeros where the image has none."""
        import torch

        alpha = image[..., 3] if image.shape[-1] > 3 else torch.ones_like(image[..., 0])
        return (image[..., :3], 1.0 - alpha)


class JoinImageWithAlpha:
    """Colours and transparency in one image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "mask/compositing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {}), "alpha": ("MASK", {})}}

    def execute(self, image: Tensor, alpha: Tensor) -> tuple[Tensor]:
        """RGBA ``[B, H, W, 4]``, B of the smaller batch; ``alpha`` is a mask, stretched to the image's size."""
        import torch
        from torch.nn.functional import interpolate

        count = min(len(image), len(alpha))
        planes = as_batch(alpha).unsqueeze(1)
        opacity = 1.0 - interpolate(planes, size=image.shape[1:3], mode="bilinear").movedim(1, -1)
        return (torch.cat((image[:count, ..., :3], opacity[:count]), dim=-1),)


class PorterDuffImageComposite:
    """Two images with transparency, combined by one of the Porter-Duff or blending rules."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "execute"
    CATEGORY = "mask/compositing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        mode = {"default": "DST", "multiselect": False, "options": list(_RULES)}
        return {
            "required": {
                "source": ("IMAGE", {}),
                "source_alpha": ("MASK", {}),
                "destination": ("IMAGE", {}),
                "destination_alpha": ("MASK", {}),
                "mode": ("COMBO", mode),
            }
        }

    def execute(
        self, source: Tensor, source_alpha: Tensor, destination: Tensor, destination_alpha: Tensor, mode: str
    ) -> tuple[Tensor, Tensor]:
        """Everything takes the size of ``destination``, and the smallest batch size.

        Returns:
            The image, not premultiplied, in 0..1, and its mask.

        Raises:
            ValueError: the images differ in their channels.
        """
        import torch

        if source.shape[-1] != destination.shape[-1]:
            raise ValueError(
                f"PorterDuffImageComposite needs images with the same channels, the source has "
                f"{source.shape[-1]}, the destination {destination.shape[-1]}"
            )
        count = min(map(len, (source, source_alpha, destination, destination_alpha)))
        dst = destination[:count]
        src = _fitted(source[:count], dst)
        src_alpha = 1 - _fitted(source_alpha[:count, ..., None], dst)
        dst_alpha = 1 - _fitted(destination_alpha[:count, ..., None], dst)
        image, alpha = _RULES[mode](src * src_alpha, src_alpha, dst * dst_alpha, dst_alpha)
        image = torch.where(alpha > 1e-5, image / alpha, torch.zeros_like(image)).clamp(0, 1)
        return (image, 1 - alpha.squeeze(-1))


def _fitted(image: Tensor, like: Tensor) -> Tensor:
    """``image`` with the height and width of ``like`` (the middle of it, if the proportions differ)."""
    if image.shape[1:3] == like.shape[1:3]:
        return image
    return resize_image(image, like.shape[2], like.shape[1], "bicubic", "center")


# -- the rules ---------------------------------------------------------------------------------------------
# Each takes the premultiplied source, its alpha, the premultiplied destination, its alpha, all
# ``[B, H, W, C or 1]``, and returns the premultiplied result and its alpha.


def _coverage(sa: Tensor, da: Tensor) -> Tensor:
    """The alpha of two layers on top of each other."""
    return sa + da - sa * da


def _blended(s: Tensor, sa: Tensor, d: Tensor, da: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Both layers where only one is, ``shared`` where both are."""
    return (1 - da) * s + (1 - sa) * d + shared, _coverage(sa, da)


def _add(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return (s + d).clamp(0, 1), (sa + da).clamp(0, 1)


def _clear(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return d * 0, da * 0


def _darken(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return _blended(s, sa, d, da, s.minimum(d))


def _dst(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return d, da


def _dst_atop(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return sa * d + (1 - da) * s, sa


def _dst_in(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return d * sa, sa * da


def _dst_out(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - sa) * d, (1 - sa) * da


def _dst_over(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return d + (1 - da) * s, da + (1 - da) * sa


def _lighten(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return _blended(s, sa, d, da, s.maximum(d))


def _multiply(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return s * d, sa * da


def _overlay(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    # Without the parts where only one layer is, as in ComfyUI.
    shared = torch.where(2 * d < da, 2 * s * d, sa * da - 2 * (da - s) * (sa - d))
    return shared, _coverage(sa, da)


def _screen(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return s + d - s * d, _coverage(sa, da)


def _src(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return s, sa


def _src_atop(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return da * s + (1 - sa) * d, da


def _src_in(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return s * da, sa * da


def _src_out(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - da) * s, (1 - da) * sa


def _src_over(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return s + (1 - sa) * d, sa + (1 - sa) * da


def _xor(s: Tensor, sa: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - da) * s + (1 - sa) * d, (1 - da) * sa + (1 - sa) * da


_RULES = {
    "ADD": _add,
    "CLEAR": _clear,
    "DARKEN": _darken,
    "DST": _dst,
    "DST_ATOP": _dst_atop,
    "DST_IN": _dst_in,
    "DST_OUT": _dst_out,
    "DST_OVER": _dst_over,
    "LIGHTEN": _lighten,
    "MULTIPLY": _multiply,
    "OVERLAY": _overlay,
    "SCREEN": _screen,
    "SRC": _src,
    "SRC_ATOP": _src_atop,
    "SRC_IN": _src_in,
    "SRC_OUT": _src_out,
    "SRC_OVER": _src_over,
    "XOR": _xor,
}

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SplitImageWithAlpha": SplitImageWithAlpha,
    "JoinImageWithAlpha": JoinImageWithAlpha,
    "PorterDuffImageComposite": PorterDuffImageComposite,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SplitImageWithAlpha": "Split Image with Alpha",
    "JoinImageWithAlpha": "Join Image with Alpha",
    "PorterDuffImageComposite": "Porter-Duff Image Composite",
}
