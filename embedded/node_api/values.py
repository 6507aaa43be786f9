"""What nodes hand to each other, as packages annotate it (``comfy_api.input``)."""

from __future__ import annotations

from typing import Any, TypedDict

from .curves import CurveInput, CurvePoint, LinearCurve, MonotoneCubicCurve
from .geometry import MESH, SPLAT, SVG, VOXEL, File3D
from .ranges import RangeInput
from .type_names import TENSOR
from .video import (
    VideoCodec,
    VideoComponents,
    VideoContainer,
    VideoFromComponents,
    VideoFromFile,
    VideoInput,
)

__all__ = [
    "MESH",
    "SPLAT",
    "SVG",
    "VOXEL",
    "AudioInput",
    "CurveInput",
    "CurvePoint",
    "File3D",
    "ImageInput",  # noqa: F822 - see __getattr__
    "Input",
    "InputImpl",
    "LatentInput",
    "LinearCurve",
    "MaskInput",  # noqa: F822
    "MonotoneCubicCurve",
    "RangeInput",
    "Types",
    "VideoCodec",
    "VideoComponents",
    "VideoContainer",
    "VideoFromComponents",
    "VideoFromFile",
    "VideoInput",
]

# Images [B, H, W, C] and masks [B, H, W]: torch is imported when one of them is asked for.
_TENSORS = ("ImageInput", "MaskInput")


def __getattr__(name: str) -> Any:
    """``ImageInput`` and ``MaskInput`` are tensors."""
    if name in _TENSORS:
        return TENSOR.__get__(None)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class AudioInput(TypedDict):
    """``waveform`` float32 [B, channels, samples] in -1..1, and its samples per second."""

    waveform: Any
    sample_rate: int


class LatentInput(TypedDict):
    """``samples`` float32 [B, C, h, w], its ``noise_mask`` and ``batch_index`` or None."""

    samples: Any
    noise_mask: Any
    batch_index: list[int] | None


class Input:
    """What nodes are given."""

    Image = TENSOR
    Mask = TENSOR
    Audio = AudioInput
    Latent = LatentInput
    Video = VideoInput


class InputImpl:
    """The classes of videos."""

    VideoFromFile = VideoFromFile
    VideoFromComponents = VideoFromComponents


class Types:
    """Parts of values."""

    VideoCodec = VideoCodec
    VideoContainer = VideoContainer
    VideoComponents = VideoComponents
    MESH = MESH
    VOXEL = VOXEL
    SPLAT = SPLAT
    File3D = File3D
