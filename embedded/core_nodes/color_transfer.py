"""The core node that gives images the colours of others. As ComfyUI 0.33.0.

``reinhard_lab`` matches mean and deviation of each channel of CIE L*a*b* (Reinhard et al., 2001), ``mkl_lab`` mean and
covariance of all three by the linear map that moves colours the least (Pitie and Kokaram, 2007), ``histogram`` the
distribution of each channel of RGB in 256 steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..node_api import io

if TYPE_CHECKING:
    from torch import Tensor

# Deviations below this count as this.
_EPSILON = 1e-6
# Steps of a histogram.
_BINS = 256

# CIE XYZ of the sRGB primaries, and of the white they make (D65); what is below the limit is linear in L*a*b*.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_RGB_OF_XYZ = (
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.0415559265582928),
    (0.0556466391351772, -0.2040413383665112, 1.0573110696453443),
)
_WHITE = (0.95047, 1.0, 1.08883)
_LAB_LIMIT = 0.008856

# An image ``[H, W, C]`` and a strength -> the image in other colours.
Recolouring = Callable[["Tensor", float], "Tensor"]


# -- colour spaces -----------------------------------------------------------------------------------------------


def rgb_to_lab(image: Tensor) -> Tensor:
    """sRGB ``[H, W, 3]`` in 0..1 as L*a*b* ``[3, H * W]``, L in 0..100."""
    import torch

    rgb = image.float().reshape(-1, 3).T
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear.new_tensor(_XYZ_OF_RGB) @ linear / linear.new_tensor(_WHITE)[:, None]
    f = torch.where(xyz > _LAB_LIMIT, xyz.clamp_min(_LAB_LIMIT) ** (1 / 3), 7.787 * xyz + 4.0 / 29.0)
    return torch.stack((116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])))


def lab_to_rgb(lab: Tensor) -> Tensor:
    """L*a*b* ``[3, pixels]`` as sRGB ``[3, pixels]`` in 0..1; colours sRGB does not have are cut off."""
    import torch

    fy = (lab[0] + 16.0) / 116.0
    f = torch.stack((lab[1] / 500.0 + fy, fy, (fy - lab[2] / 200.0).clamp_min(0.0)))
    xyz = torch.where(f > 0.2068966, f**3, (f - 4.0 / 29.0) / 7.787) * f.new_tensor(_WHITE)[:, None]
    linear = f.new_tensor(_RGB_OF_XYZ) @ xyz
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0.0, 1.0)


# -- statistics --------------------------------------------------------------------------------------------------


def _statistics(images: Tensor, deviations: bool) -> tuple[Tensor, Tensor]:
    """The mean ``[3, 1]`` of all pixels in L*a*b*, and their deviations ``[3, 1]`` or their covariance ``[3, 3]``.

    Images are looked at one by one, twice: all of a video in floats may not fit into memory.
    """
    mean: Any = sum(rgb_to_lab(image).mean(1, keepdim=True) for image in images) / len(images)
    spread: Any = 0
    for image in images:
        centred = rgb_to_lab(image) - mean
        spread = spread + ((centred**2).mean(1, keepdim=True) if deviations else centred @ centred.T / centred.shape[1])
    spread = spread / len(images)
    return mean, spread.sqrt().clamp_min(_EPSILON) if deviations else spread


def _least_map(source: Tensor, target: Tensor) -> Tensor:
    """The linear map ``[3, 3]`` that turns one covariance into the other and moves colours the least."""
    import torch

    values, vectors = torch.linalg.eigh(source)
    roots = values.clamp_min(0).sqrt().clamp_min(_EPSILON)
    scaled = vectors * roots
    values, inner = torch.linalg.eigh(scaled.T @ target @ scaled)
    middle = (inner * values.clamp_min(0).sqrt()) @ inner.T
    unscaled = vectors / roots
    least: Tensor = unscaled @ middle @ unscaled.T
    return least


def _distribution(images: Tensor) -> Tensor:
    """What part of all pixels is at or below each step: ``[3, 256]``, by channel of RGB."""
    import torch

    counts: Any = 0
    for image in images:
        steps = _steps(image)
        counts = counts + torch.zeros(steps.shape[0], _BINS).scatter_add_(1, steps, torch.ones(steps.shape))
    shares: Tensor = counts.cumsum(1)
    return shares / shares[:, -1:]


def _steps(image: Tensor) -> Tensor:
    """The step 0..255 of each value, ``[C, H * W]``."""
    flat = image.float().movedim(-1, 0).reshape(image.shape[-1], -1)
    return (flat * (_BINS - 1)).long().clamp(0, _BINS - 1)


# -- transforms --------------------------------------------------------------------------------------------------


def _measure(images: Tensor, method: str) -> Any:
    """What a method has to know of images ``[B, H, W, C]``: of those to be like others, and of the others."""
    return _distribution(images) if method == "histogram" else _statistics(images, method == "reinhard_lab")


def _recolouring(source: Any, target: Any, method: str) -> Recolouring:
    """Colours like the source's as colours like the target's.

    Args:
        source, target: see :func:`_measure`.
    """
    import torch

    if method == "histogram":
        found = torch.searchsorted(target, source)
        table = found.clamp_max(_BINS - 1).float() / (_BINS - 1)
        return lambda image, strength: _recolour_histogram(image, table, strength)
    (source_mean, source_spread), (target_mean, target_spread) = source, target
    if method == "reinhard_lab":
        scale = target_spread / source_spread
        return lambda image, strength: _recolour_lab(
            image, lambda lab: (lab - source_mean) * scale + target_mean, strength
        )
    matrix = _least_map(source_spread, target_spread)
    return lambda image, strength: _recolour_lab(
        image, lambda lab: matrix @ (lab - source_mean) + target_mean, strength
    )


def _recolour_lab(image: Tensor, transform: Callable[[Tensor], Tensor], strength: float) -> Tensor:
    """An image ``[H, W, 3]`` with its colours in L*a*b*, ``[3, H * W]``, moved by ``strength``."""
    import torch

    lab = rgb_to_lab(image)
    moved = transform(lab)
    mixed = moved if strength == 1.0 else torch.lerp(lab, moved, strength)
    return lab_to_rgb(mixed).T.reshape(image.shape)


def _recolour_histogram(image: Tensor, table: Tensor, strength: float) -> Tensor:
    """An image ``[H, W, C]`` with each value replaced by that of its step in a table ``[C, 256]``."""
    import torch

    matched = table.gather(1, _steps(image)).T.reshape(image.shape)
    mixed = matched if strength == 1.0 else torch.lerp(image.float(), matched, strength)
    return mixed.clamp(0.0, 1.0)


class ColorTransfer(io.ComfyNode):
    """Images with the colours of others."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_post_processing"

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = [
            "color match",
            "color grading",
            "color correction",
            "match colors",
            "color transform",
            "mkl",
            "reinhard",
            "histogram",
        ]
        index = io.Int.Input(
            "target_index",
            default=0,
            min=0,
            max=10000,
            tooltip="Frame index used as the source baseline for computing the transform to image_ref",
        )
        statistics: dict[str, list[Any]] = {"per_frame": [], "uniform": [], "target_frame": [index]}
        return io.Schema(
            node_id="ColorTransfer",
            display_name="Transfer Color",
            category="image/filters",
            description="Match the colors of one image to another using various algorithms.",
            search_aliases=aliases,
            inputs=[
                io.Image.Input("image_target", tooltip="Image(s) to apply the color transform to."),
                io.Image.Input("image_ref", tooltip="Reference image(s) to match colors to."),
                io.Combo.Input("method", options=["reinhard_lab", "mkl_lab", "histogram"]),
                io.DynamicCombo.Input(
                    "source_stats",
                    tooltip=(
                        "per_frame: each frame matched to image_ref individually. uniform: pool stats across all "
                        "source frames as baseline, match to image_ref. target_frame: use one chosen frame as the "
                        "baseline for the transform to image_ref, applied uniformly to all frames (preserves "
                        "relative differences)"
                    ),
                    options=[io.DynamicCombo.Option(key, inputs) for key, inputs in statistics.items()],
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls, image_target: Tensor, image_ref: Tensor, method: str, source_stats: dict[str, Any], strength: float = 1.0
    ) -> io.NodeOutput:
        """``[B, H, W, C]``; a strength of 0 changes nothing, above 1 overdoes it.

        Raises:
            ValueError: the images are not RGB; of ``histogram``: they have not equally many channels.
        """
        import torch

        from ..comfy_utils import ProgressBar

        if strength == 0 or image_ref is None:
            return io.NodeOutput(image_target)
        _check_channels(image_target, image_ref, method)
        chosen, last = source_stats["source_stats"], len(image_target) - 1
        recolourings: Iterable[Recolouring]
        if chosen == "per_frame":
            # Frames beyond those there are to be like are like the last one.
            targets = [_measure(image[None], method) for image in image_ref[: len(image_target)]]
            recolourings = (
                _recolouring(_measure(image[None], method), targets[min(number, len(targets) - 1)], method)
                for number, image in enumerate(image_target)
            )
        else:
            index = min(source_stats.get("target_index", 0), last)
            source = image_target[index : index + 1] if chosen == "target_frame" else image_target
            recolouring = _recolouring(_measure(source, method), _measure(image_ref, method), method)
            recolourings = itertools.repeat(recolouring)
        bar = ProgressBar(len(image_target))
        recoloured = []
        for image, recolour in zip(image_target, recolourings, strict=False):
            recoloured.append(recolour(image, strength))
            bar.update(1)
        return io.NodeOutput(torch.stack(recoloured))


def _check_channels(target: Tensor, reference: Tensor, method: str) -> None:
    """Raises ValueError if a method cannot take the images' channels."""
    channels = target.shape[-1], reference.shape[-1]
    if method == "histogram" and channels[0] != channels[1]:
        raise ValueError(f"image_target has {channels[0]} channels and image_ref {channels[1]}; use equally many.")
    if method != "histogram" and channels != (3, 3):
        raise ValueError(
            f"{method} takes RGB images, but image_target has {channels[0]} channels and image_ref {channels[1]}. "
            "Remove alpha first."
        )


NODE_CLASS_MAPPINGS: dict[str, type] = {"ColorTransfer": ColorTransfer}
NODE_DISPLAY_NAME_MAPPINGS = {"ColorTransfer": "Transfer Color"}
