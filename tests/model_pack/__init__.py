"""A pack that stands in for the nodes that need models, where the examples run on the embedded server.

Names, inputs and outputs are those of ComfyUI; what they compute is cheap, the same every time, and can be told from
each other: a text makes a colour, a seed a pattern. Every load of a checkpoint is noted in the file that
MODEL_PACK_LOG names. It is beside tests/run_packs, not in it: other tests count on these nodes being unknown.
"""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch.nn import functional

import nodes

SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m"]
SCHEDULERS = ["normal", "karras", "simple"]


class Model:
    """What a loader gives: a name, and a lock that no pickle takes across a process border."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()


def note(line: str) -> None:
    """Add a line to the log of the test."""
    if log := os.environ.get("MODEL_PACK_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def colour(text: str) -> torch.Tensor:
    """Three numbers in 0..1 for a text."""
    digest = zlib.crc32(text.encode())
    return torch.tensor([digest & 255, digest >> 8 & 255, digest >> 16 & 255]) / 255


class CheckpointLoaderSimple:
    """A checkpoint, of which only the name is read."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load_checkpoint(self, ckpt_name: str) -> tuple[Model, Model, Model]:
        note(f"load {ckpt_name}")
        return Model(ckpt_name), Model(f"clip of {ckpt_name}"), Model(f"vae of {ckpt_name}")


class CLIPTextEncode:
    """A text as conditioning: its colour."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"multiline": True, "dynamicPrompts": True})
        return {"required": {"text": text, "clip": ("CLIP",)}}

    def encode(self, text: str, clip: Model) -> tuple[list[Any]]:
        return ([[colour(text).reshape(1, 1, 3), {}]],)


class KSampler:
    """Noise of the seed, drawn towards the colour of the text; a progress event for each step."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "sampling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}),
                "sampler_name": (SAMPLERS,),
                "scheduler": (SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def sample(
        self,
        model: Model,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list[Any],
        negative: list[Any],
        latent_image: dict[str, Any],
        denoise: float,
    ) -> tuple[dict[str, Any]]:
        from comfy.utils import ProgressBar

        note(f"sample {model.name}")
        bar = ProgressBar(steps)
        samples = torch.rand(latent_image["samples"].shape, generator=torch.Generator().manual_seed(seed))
        samples[:, :3] = (samples[:, :3] + 3 * positive[0][0].reshape(1, 3, 1, 1)) / 4
        for _ in range(steps):
            bar.update(1)
        return ({**latent_image, "samples": samples},)


class VAEDecode:
    """Three channels of the latent, eight times as large."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    def decode(self, samples: dict[str, Any], vae: Model) -> tuple[torch.Tensor]:
        return (functional.interpolate(samples["samples"][:, :3], scale_factor=8).movedim(1, -1).contiguous(),)


class UpscaleModelLoader:
    """An upscale model, of which only the name is read."""

    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "load_model"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model_name": (folder_paths.get_filename_list("upscale_models"),)}}

    def load_model(self, model_name: str) -> tuple[Model]:
        note(f"load {model_name}")
        return (Model(model_name),)


class ImageUpscaleWithModel:
    """The picture twice as large."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"upscale_model": ("UPSCALE_MODEL",), "image": ("IMAGE",)}}

    def upscale(self, upscale_model: Model, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (functional.interpolate(image.movedim(-1, 1), scale_factor=2).movedim(1, -1).contiguous(),)


# The embedded server keeps ComfyUI's names for ComfyUI's nodes, so that a pack's own KSampler is passed over. This pack
# stands in for them, and says so. On a ComfyUI it changes nothing.
for node in (CheckpointLoaderSimple, CLIPTextEncode, KSampler, VAEDecode, UpscaleModelLoader, ImageUpscaleWithModel):
    nodes.NODE_CLASS_MAPPINGS.setdefault(node.__name__, node)

NODE_CLASS_MAPPINGS: dict[str, type] = {}
