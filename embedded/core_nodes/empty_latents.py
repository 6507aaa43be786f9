"""Core nodes that make empty latents, in the shape each family of models wants.

A latent is a dict whose ``samples`` are zeros here; its channels and its size relative to the image (or video, or
sound) are the model's. ``downscale_ratio_...`` and ``type`` tell later nodes about that. Names, inputs and results are
those of ComfyUI 0.3.64, and of 0.33.0 for the nodes it added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..node_registry import MAX_RESOLUTION
from .image import size_options
from .latent import Latent

if TYPE_CHECKING:
    from torch import Tensor


def _zeros(*size: int) -> Tensor:
    """A tensor of zeros."""
    import torch

    return torch.zeros(size)


def _batch(limit: int = 4096) -> tuple[str, dict[str, Any]]:
    """The batch size's input."""
    return ("INT", {"default": 1, "min": 1, "max": limit})


def _explained_batch() -> tuple[str, dict[str, Any]]:
    """The same with a tooltip."""
    return ("INT", {"tooltip": "The number of latent images in the batch.", **_batch()[1]})


def _frames(length: int, frames_per_element: int) -> int:
    """How many elements a video of ``length`` frames takes: the first frame has one of its own."""
    return (length - 1) // frames_per_element + 1


class _EmptyLatent:
    """What all of them share."""

    RETURN_TYPES: tuple[str, ...] = ("LATENT",)
    FUNCTION = "generate"


# -- images ------------------------------------------------------------------------------------------------


class _EmptyImageLatent(_EmptyLatent):
    """An empty latent of a width, a height and a batch size."""

    # Of the latent; pixels per element; the default and the lowest size and the widgets' step, in pixels.
    _CHANNELS: int
    _PIXELS_PER_ELEMENT: int
    _DEFAULT, _LOWEST, _STEP = 1024, 16, 16
    _LARGEST = MAX_RESOLUTION
    _LARGEST_BATCH = 4096

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {**size_options(cls._DEFAULT, cls._LOWEST, cls._STEP), "max": cls._LARGEST}
        return {
            "required": {"width": ("INT", size), "height": ("INT", size), "batch_size": _batch(cls._LARGEST_BATCH)},
        }

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        """Zeros ``[batch_size, C, h, w]``; the part of a side that fills no element is left out."""
        size = (height // self._PIXELS_PER_ELEMENT, width // self._PIXELS_PER_ELEMENT)
        return ({"samples": _zeros(batch_size, self._CHANNELS, *size)},)


class EmptySD3LatentImage(_EmptyImageLatent):
    """Zeros for Stable Diffusion 3 and Flux."""

    CATEGORY = "latent/sd3"
    _CHANNELS, _PIXELS_PER_ELEMENT = 16, 8


class EmptyHunyuanImageLatent(_EmptyImageLatent):
    """Zeros for Hunyuan Image."""

    CATEGORY = "latent"
    _CHANNELS, _PIXELS_PER_ELEMENT = 64, 32
    _DEFAULT, _LOWEST, _STEP = 2048, 64, 32


class EmptyChromaRadianceLatentImage(_EmptyImageLatent):
    """Zeros for Chroma Radiance, whose latents are pixels."""

    CATEGORY = "latent/chroma_radiance"
    _CHANNELS, _PIXELS_PER_ELEMENT = 3, 1


class EmptyFlux2LatentImage(_EmptyImageLatent):
    """Zeros for Flux 2."""

    CATEGORY = "model/latent/flux"
    _CHANNELS, _PIXELS_PER_ELEMENT = 128, 16


class EmptyHiDreamO1LatentImage(_EmptyImageLatent):
    """Zeros for HiDream O1, whose latents are pixels."""

    CATEGORY = "model/latent/hidream"
    DESCRIPTION = (
        "Empty pixel-space latent for HiDream-O1-Image. The model was trained at ~4 megapixels; lower resolutions go "
        "off-distribution and quality regresses noticeably. Trained resolutions: 2048x2048, 2304x1728, 1728x2304, "
        "2560x1440, 1440x2560, 2496x1664, 1664x2496, 3104x1312, 1312x3104, 2304x1792, 1792x2304."
    )
    _CHANNELS, _PIXELS_PER_ELEMENT = 3, 1
    _DEFAULT, _LOWEST, _STEP = 2048, 64, 32
    _LARGEST, _LARGEST_BATCH = 4096, 64


class EmptyQwenImageLayeredLatentImage(_EmptyLatent):
    """Zeros for Qwen Image in layers."""

    CATEGORY = "model/latent/qwen"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": ("INT", size_options(640, 16, 16)),
                "height": ("INT", size_options(640, 16, 16)),
                "layers": ("INT", size_options(3, 0)),
                "batch_size": _batch(),
            }
        }

    def generate(self, width: int, height: int, layers: int, batch_size: int = 1) -> tuple[Latent]:
        """Zeros ``[batch_size, 16, layers + 1, height / 8, width / 8]``: the whole image comes before its layers."""
        return ({"samples": _zeros(batch_size, 16, layers + 1, height // 8, width // 8)},)


class StableCascade_EmptyLatentImage(_EmptyLatent):
    """Zeros for both stages of Stable Cascade."""

    RETURN_TYPES = ("LATENT", "LATENT")
    RETURN_NAMES = ("stage_c", "stage_b")
    CATEGORY = "latent/stable_cascade"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": ("INT", size_options(1024, 256, 8)),
                "height": ("INT", size_options(1024, 256, 8)),
                "compression": ("INT", {"default": 42, "min": 4, "max": 128, "step": 1}),
                "batch_size": _batch(),
            }
        }

    def generate(self, width: int, height: int, compression: int, batch_size: int = 1) -> tuple[Latent, Latent]:
        """Zeros at 1 / ``compression`` of the size, 16 channels, and at 1/4 of it, 4 channels."""
        stage_c = _zeros(batch_size, 16, height // compression, width // compression)
        return {"samples": stage_c}, {"samples": _zeros(batch_size, 4, height // 4, width // 4)}


# -- videos ------------------------------------------------------------------------------------------------


class _EmptyVideoLatent(_EmptyLatent):
    """An empty latent of a width, a height, a number of frames and a batch size."""

    # Of the latent; pixels and frames per element; defaults, lowest values and steps of the widgets.
    _CHANNELS: int
    _PIXELS_PER_ELEMENT = 8
    _FRAMES_PER_ELEMENT: int
    _DEFAULTS: tuple[int, int, int]
    _LOWEST_SIZE, _SIZE_STEP = 16, 16
    _LOWEST_LENGTH = 1
    _LARGEST, _LONGEST, _LARGEST_BATCH = MAX_RESOLUTION, MAX_RESOLUTION, 4096

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        width, height, length = cls._DEFAULTS
        size = {"min": cls._LOWEST_SIZE, "max": cls._LARGEST, "step": cls._SIZE_STEP}
        frames = {
            "default": length,
            "min": cls._LOWEST_LENGTH,
            "max": cls._LONGEST,
            "step": cls._FRAMES_PER_ELEMENT,
        }
        return {
            "required": {
                "width": ("INT", {"default": width, **size}),
                "height": ("INT", {"default": height, **size}),
                "length": ("INT", frames),
                "batch_size": _batch(cls._LARGEST_BATCH),
            }
        }

    def generate(self, width: int, height: int, length: int, batch_size: int = 1) -> tuple[Latent]:
        """Zeros ``[batch_size, C, t, h, w]``."""
        size = (height // self._PIXELS_PER_ELEMENT, width // self._PIXELS_PER_ELEMENT)
        return ({"samples": _zeros(batch_size, self._CHANNELS, _frames(length, self._FRAMES_PER_ELEMENT), *size)},)


class EmptyHunyuanLatentVideo(_EmptyVideoLatent):
    """Zeros for Hunyuan Video and Wan."""

    CATEGORY = "latent/video"
    _CHANNELS, _FRAMES_PER_ELEMENT = 16, 4
    _DEFAULTS = (848, 480, 25)


class EmptyHunyuanVideo15Latent(EmptyHunyuanLatentVideo):
    """Zeros for Hunyuan Video 1.5."""

    CATEGORY = "model/latent/hunyuan video"
    _CHANNELS, _PIXELS_PER_ELEMENT = 32, 16

    def generate(self, width: int, height: int, length: int, batch_size: int = 1) -> tuple[Latent]:
        """As the older version's, and telling that it is smaller."""
        (latent,) = super().generate(width, height, length, batch_size)
        return ({**latent, "downscale_ratio_spacial": self._PIXELS_PER_ELEMENT},)


class EmptyMochiLatentVideo(_EmptyVideoLatent):
    """Zeros for Mochi."""

    CATEGORY = "latent/video"
    _CHANNELS, _FRAMES_PER_ELEMENT = 12, 6
    _DEFAULTS = (848, 480, 25)
    _LOWEST_LENGTH = 7


class EmptyCosmosLatentVideo(_EmptyVideoLatent):
    """Zeros for Cosmos."""

    CATEGORY = "latent/video"
    _CHANNELS, _FRAMES_PER_ELEMENT = 16, 8
    _DEFAULTS = (1280, 704, 121)


class EmptyLTXVLatentVideo(_EmptyVideoLatent):
    """Zeros for LTX Video."""

    CATEGORY = "latent/video/ltxv"
    _CHANNELS, _PIXELS_PER_ELEMENT, _FRAMES_PER_ELEMENT = 128, 32, 8
    _DEFAULTS = (768, 512, 97)
    _LOWEST_SIZE, _SIZE_STEP = 64, 32


class EmptyARVideoLatent(_EmptyVideoLatent):
    """Zeros for video models that go on frame by frame."""

    CATEGORY = "model/latent/autoregressive"
    _CHANNELS, _FRAMES_PER_ELEMENT = 16, 4
    _DEFAULTS = (832, 480, 81)
    _LARGEST, _LONGEST, _LARGEST_BATCH = 8192, 1024, 64


# -- sound and solids --------------------------------------------------------------------------------------


class _EmptySoundLatent(_EmptyLatent):
    """An empty latent of a duration and a batch size."""

    _DEFAULT_SECONDS, _STEP = 120.0, 0.1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seconds = {"default": cls._DEFAULT_SECONDS, "min": 1.0, "max": 1000.0, "step": cls._STEP}
        return {"required": {"seconds": ("FLOAT", seconds), "batch_size": _explained_batch()}}


class EmptyLatentAudio(_EmptySoundLatent):
    """Zeros for Stable Audio."""

    CATEGORY = "latent/audio"
    _DEFAULT_SECONDS = 47.6

    def generate(self, seconds: float, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 64, t]``: an even number of pieces of 2048 samples at 44100 a second."""
        length = round((seconds * 44100 / 2048) / 2) * 2
        return ({"samples": _zeros(batch_size, 64, length), "type": "audio"},)


class EmptyAceStepLatentAudio(_EmptySoundLatent):
    """Zeros for ACE-Step."""

    CATEGORY = "latent/audio"

    def generate(self, seconds: float, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 8, 16, t]``: pieces of 8 * 512 samples at 44100 a second."""
        length = int(seconds * 44100 / 512 / 8)
        return ({"samples": _zeros(batch_size, 8, 16, length), "type": "audio"},)


class EmptyAceStep15LatentAudio(_EmptySoundLatent):
    """Zeros for ACE-Step 1.5."""

    CATEGORY = "model/latent/ace"
    _STEP = 0.01

    def generate(self, seconds: float, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 64, t]``: pieces of 1920 samples at 48000 a second."""
        samples = _zeros(batch_size, 64, round(seconds * 48000 / 1920))
        return ({"samples": samples, "type": "audio", "downscale_ratio_temporal": 1764},)


class EmptyMiniMaxMusic3LatentAudio(_EmptyLatent):
    """Zeros for MiniMax Music 3."""

    CATEGORY = "model/latent/minimax music"
    DESCRIPTION = "Creates an empty MiniMax Music3 audio latent for the requested duration."
    _FRAMES_PER_SECOND, _MOST_FRAMES = 25, 9000

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        longest = cls._MOST_FRAMES / cls._FRAMES_PER_SECOND
        seconds = {"default": 120.0, "min": 0.04, "max": longest, "step": 0.04}
        return {"required": {"seconds": ("FLOAT", seconds), "batch_size": _batch()}}

    def generate(self, seconds: float, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 128, t]``: frames of 960 samples at 24000 a second as pieces of 512 at 44100."""
        frames = min(max(round(seconds * self._FRAMES_PER_SECOND), 1), self._MOST_FRAMES)
        # In ComfyUI's order: in floating point another one rounds otherwise.
        length = max(1, int(frames * 44100 / 24000 * 960 / 512))
        samples = _zeros(batch_size, 128, length)
        return ({"samples": samples, "type": "audio", "downscale_ratio_temporal": 512},)


class EmptyTrellis2LatentStructure(_EmptyLatent):
    """Zeros for the structure that TRELLIS 2 begins with."""

    CATEGORY = "model/latent/trellis"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"batch_size": _explained_batch()}}

    def generate(self, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 32, 16, 16, 16]``."""
        return ({"samples": _zeros(batch_size, 32, 16, 16, 16), "type": "trellis2"},)


class EmptyLatentHunyuan3Dv2(_EmptyLatent):
    """Zeros for Hunyuan 3D 2."""

    CATEGORY = "latent/3d"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "resolution": ("INT", {"default": 3072, "min": 1, "max": 8192}),
                "batch_size": _explained_batch(),
            }
        }

    def generate(self, resolution: int, batch_size: int) -> tuple[Latent]:
        """Zeros ``[batch_size, 64, resolution]``."""
        return ({"samples": _zeros(batch_size, 64, resolution), "type": "hunyuan3dv2"},)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "EmptySD3LatentImage": EmptySD3LatentImage,
    "EmptyHunyuanImageLatent": EmptyHunyuanImageLatent,
    "EmptyChromaRadianceLatentImage": EmptyChromaRadianceLatentImage,
    "EmptyFlux2LatentImage": EmptyFlux2LatentImage,
    "EmptyHiDreamO1LatentImage": EmptyHiDreamO1LatentImage,
    "EmptyQwenImageLayeredLatentImage": EmptyQwenImageLayeredLatentImage,
    "StableCascade_EmptyLatentImage": StableCascade_EmptyLatentImage,
    "EmptyHunyuanLatentVideo": EmptyHunyuanLatentVideo,
    "EmptyHunyuanVideo15Latent": EmptyHunyuanVideo15Latent,
    "EmptyMochiLatentVideo": EmptyMochiLatentVideo,
    "EmptyCosmosLatentVideo": EmptyCosmosLatentVideo,
    "EmptyLTXVLatentVideo": EmptyLTXVLatentVideo,
    "EmptyARVideoLatent": EmptyARVideoLatent,
    "EmptyLatentAudio": EmptyLatentAudio,
    "EmptyAceStepLatentAudio": EmptyAceStepLatentAudio,
    "EmptyAceStep1.5LatentAudio": EmptyAceStep15LatentAudio,
    "EmptyMiniMaxMusic3LatentAudio": EmptyMiniMaxMusic3LatentAudio,
    "EmptyLatentHunyuan3Dv2": EmptyLatentHunyuan3Dv2,
    "EmptyTrellis2LatentStructure": EmptyTrellis2LatentStructure,
}

# A node without an entry has none in ComfyUI either; the editor shows its class name.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "EmptyFlux2LatentImage": "Empty Flux 2 Latent",
    "EmptyHiDreamO1LatentImage": "Empty HiDream-O1 Latent Image",
    "EmptyQwenImageLayeredLatentImage": "Empty Qwen Image Layered Latent",
    "EmptyHunyuanVideo15Latent": "Empty HunyuanVideo 1.5 Latent",
    "EmptyLatentAudio": "Empty Latent Audio",
    "EmptyAceStep1.5LatentAudio": "Empty Ace Step 1.5 Latent Audio",
    "EmptyMiniMaxMusic3LatentAudio": "Empty MiniMax Music3 Latent Audio",
}
