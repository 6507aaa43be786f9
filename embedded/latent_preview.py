"""Pictures of unfinished latents (``latent_preview`` for node packages).

Without models there is nothing to preview, unless a package samples by itself: it can then turn a latent's channels
into colours. Behaviour is that of ComfyUI 0.3.64, where no model for previews is installed; arguments that later
versions added (0.29.0) are taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .arguments import LatentPreviewMethod as LatentPreviewMethod
from .arguments import args as args

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.latent_preview")


def preview_to_image(latent_image: Tensor, do_scale: bool = True) -> Image.Image:
    """An image [H, W, 3] of numbers in -1..1 as a picture; without ``do_scale`` of numbers in 0..1."""
    import torch
    from PIL import Image

    levels = ((latent_image + 1.0) / 2.0 if do_scale else latent_image).clamp(0, 1).mul(0xFF)
    return Image.fromarray(levels.to(device="cpu", dtype=torch.uint8).numpy())


class LatentPreviewer:
    """Makes pictures of latents; packages derive from it."""

    def decode_latent_to_preview(self, x0: Tensor) -> Any:
        """The picture of a latent [B, C, H, W]; None: no picture."""
        return None

    def decode_latent_to_preview_image(self, preview_format: str, x0: Tensor) -> tuple[str, Any, int]:
        """What ``ProgressBar.update_absolute`` takes as its preview."""
        return ("JPEG", self.decode_latent_to_preview(x0), args.preview_size)


class Latent2RGBPreviewer(LatentPreviewer):
    """Mixes a latent's channels into red, green and blue."""

    def __init__(
        self,
        latent_rgb_factors: Any,
        latent_rgb_factors_bias: Any = None,
        latent_rgb_factors_reshape: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """
        Args:
            latent_rgb_factors: [C, 3].
            latent_rgb_factors_bias: [3], None: 0.
            latent_rgb_factors_reshape: makes a latent one of C channels; None: it is.
        """
        import torch

        self.latent_rgb_factors_reshape = latent_rgb_factors_reshape
        self.latent_rgb_factors = torch.tensor(latent_rgb_factors, device="cpu").transpose(0, 1)
        self.latent_rgb_factors_bias: Tensor | None = None
        if latent_rgb_factors_bias is not None:
            self.latent_rgb_factors_bias = torch.tensor(latent_rgb_factors_bias, device="cpu")

    def decode_latent_to_preview(self, x0: Tensor) -> Any:
        """The picture of the batch's first latent (of its first frame, for [B, C, T, H, W])."""
        import torch

        if self.latent_rgb_factors_reshape is not None:
            x0 = self.latent_rgb_factors_reshape(x0)
        self.latent_rgb_factors = self.latent_rgb_factors.to(dtype=x0.dtype, device=x0.device)
        if self.latent_rgb_factors_bias is not None:
            self.latent_rgb_factors_bias = self.latent_rgb_factors_bias.to(dtype=x0.dtype, device=x0.device)
        first = x0[0, :, 0] if x0.ndim == 5 else x0[0]
        mixed = torch.nn.functional.linear(
            first.movedim(0, -1), self.latent_rgb_factors, bias=self.latent_rgb_factors_bias
        )
        return preview_to_image(mixed)


def get_previewer(device: Any, latent_format: Any) -> LatentPreviewer | None:
    """The previewer of ``--preview-method``, None for none (the default), or if a latent's colours are not known.

    The method that is a model gives way to colours, with a warning, as in ComfyUI where the model is missing.

    Args:
        latent_format: an object with ``latent_rgb_factors`` and ``latent_rgb_factors_bias``, either may be None, and
            perhaps ``latent_rgb_factors_reshape``.
    """
    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return None
    if args.preview_method == LatentPreviewMethod.TAESD:
        logger.warning("--preview-method taesd: the embedded server runs no models; previews are mixed of channels.")
    if latent_format.latent_rgb_factors is None:
        return None
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    return Latent2RGBPreviewer(latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias, reshape)


def prepare_callback(
    model: Any, steps: int, x0_output_dict: dict[str, Any] | None = None
) -> Callable[[int, Any, Any, int], None]:
    """What a sampler calls after each step: progress, with a preview.

    Args:
        model: an object with ``load_device`` and ``model.latent_format``.
        x0_output_dict: gets the latest denoised latent as ``"x0"``.
    """
    from .comfy_utils import ProgressBar

    previewer = get_previewer(model.load_device, model.model.latent_format)
    bar = ProgressBar(steps)

    def callback(step: int, x0: Any, x: Any, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer is not None else None
        bar.update_absolute(step + 1, total_steps, preview)

    return callback


def __getattr__(name: str) -> Any:
    if name == "MAX_PREVIEW_RESOLUTION":
        return args.preview_size
    raise AttributeError(name)
