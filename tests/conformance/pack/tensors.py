"""Latents and images with values to look at."""

from __future__ import annotations

from typing import Any

import torch


class TinyLatent:
    """A latent [B, 1, 1, 2] of these numbers, two for each item of the batch."""

    CATEGORY = "tiny"
    FUNCTION = "run"
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"numbers": ("STRING", {"default": "3 4"})}}

    def run(self, numbers: str) -> tuple[dict[str, torch.Tensor]]:
        values = [float(number) for number in numbers.split()]
        return ({"samples": torch.tensor(values).reshape(-1, 1, 1, 2)},)


class TinyTensor:
    """Shows the shape of a latent or an image, and its first numbers, rounded."""

    CATEGORY = "tiny"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"latent": ("LATENT",), "image": ("IMAGE",)}}

    def run(self, latent: Any = None, image: Any = None) -> dict[str, Any]:
        tensor = image if latent is None else latent["samples"]
        numbers = [round(float(number), 3) for number in tensor.flatten()[:8]]
        return {"ui": {"shape": list(tensor.shape), "numbers": numbers}}


NODE_CLASS_MAPPINGS = {"TinyLatent": TinyLatent, "TinyTensor": TinyTensor}
