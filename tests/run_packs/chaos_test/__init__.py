"""A pack of nodes for runs that are killed, measured, or that fill the memory: steps that are noted, leaks."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

SEED = ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True})
NUMBER = ("INT", {"default": 0, "min": 0, "max": 2**31})
FRACTION = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1e9})

# What a node that leaks never lets go of.
_leaked: list[bytearray] = []


def note(log: str, token: str) -> None:
    """Add a line to a file: token, seconds since the epoch, process. One write, so that lines never mix."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{token} {time.time():.6f} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


class ChaosStep:
    """Mixes a picture with a random one of another brightness; notes that it did, and takes its time."""

    CATEGORY = "tests"
    RETURN_TYPES = ("IMAGE", "INT", "STRING")
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "picture": ("IMAGE",),
            "step": NUMBER,
            "amount": FRACTION,
            "seed": SEED,
            "name": ("STRING", {"default": ""}),
            "log": ("STRING", {"default": ""}),
            "seconds": FRACTION,
        }
        return {"required": required, "optional": {"tint": ("IMAGE",)}}

    def go(
        self,
        picture: torch.Tensor,
        step: int,
        amount: float,
        seed: int,
        name: str,
        log: str,
        seconds: float,
        tint: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, int, str]:
        note(log, f"{step} {name}")
        random = torch.Generator().manual_seed(seed)
        brightness = torch.rand(1, generator=random)
        mixed = 0.5 * picture + 0.5 * brightness + amount * torch.rand(picture.shape, generator=random)
        if tint is not None:
            mixed = mixed + tint
        time.sleep(seconds)
        return mixed.clamp(0.0, 1.0), step + 1, f"{name} {step} {seed}"


class ChaosAdd:
    """The sum of two whole numbers."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": NUMBER, "by": NUMBER}}

    def add(self, number: int, by: int) -> tuple[int]:
        return (number + by,)


class ChaosLeak:
    """Counts, and leaks so many MB that are really used."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "leak"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": NUMBER, "megabytes": NUMBER}}

    def leak(self, number: int, megabytes: int) -> tuple[int]:
        # Filled with something: pages of zeros need not exist.
        _leaked.append(bytearray(b"\x01") * (megabytes * 10**6))
        return (number + 1,)


class ChaosChange:
    """Another picture of the same size: one value of it is another. Takes its time."""

    CATEGORY = "tests"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "change"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"picture": ("IMAGE",), "seconds": FRACTION}}

    def change(self, picture: torch.Tensor, seconds: float) -> tuple[torch.Tensor]:
        changed = picture.clone()
        changed[0, 0, 0, 0] += 1
        time.sleep(seconds)
        return (changed,)


NODE_CLASS_MAPPINGS = {name: kind for name, kind in list(globals().items()) if name.startswith("Chaos")}
