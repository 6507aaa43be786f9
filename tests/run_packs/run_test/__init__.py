"""A pack of nodes for tests of whole runs: they can be counted, seeded, blocked, and hold what nobody can pickle."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from comfy_execution.graph import ExecutionBlocker


def count(log: str, word: str) -> None:
    """Note an execution in a file, one line each."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{word}\n")


class Model:
    """What a loader gives: a strength, and a lock that no pickle takes across a process border."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.lock = threading.Lock()


class RunTestLoadModel:
    """Loads a "model", slowly in real life; counts."""

    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {"default": ""}), "log": ("STRING", {"default": ""})}}

    def load(self, name: str, log: str) -> tuple[Model, str, float]:
        count(log, f"load {name}")
        return Model(float(len(name))), f"clip of {name}", len(name) / 2


class RunTestPatchModel:
    """A LoRA, say: another model made of one."""

    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model": ("MODEL",), "by": ("FLOAT", {"default": 1.0}), "log": ("STRING", {"default": ""})}
        }

    def patch(self, model: Model, by: float, log: str) -> tuple[Model]:
        count(log, f"patch {by}")
        return (Model(model.strength + by),)


class RunTestUseModel:
    """Brightens an image by the model's strength in hundredths; counts."""

    CATEGORY = "tests"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "use"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "image": ("IMAGE",), "log": ("STRING", {"default": ""})}}

    def use(self, model: Model, image: torch.Tensor, log: str) -> tuple[torch.Tensor]:
        count(log, "use")
        return (image + model.strength / 100,)


class RunTestStrength:
    """The strength of a model, as a number."""

    CATEGORY = "tests"
    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "strength"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "vae": ("VAE",)}}

    def strength(self, model: Model, vae: float) -> tuple[float]:
        return (model.strength + vae,)


class RunTestSeeds:
    """Two seeds and a sampler, as text: what a run set them to."""

    CATEGORY = "tests"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "seeds"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seed = ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True})
        return {
            "required": {
                "mode": (["fixed", "random"],),
                "seed": seed,
                "steps": ("INT", {"default": 4, "min": 1, "max": 100}),
                "noise_seed": ("INT", {"default": 7, "min": 0, "max": 9}),
                "sampler": (["euler", "heun", "dpm"],),
            }
        }

    def seeds(self, mode: str, seed: int, steps: int, noise_seed: int, sampler: str) -> tuple[str]:
        return (f"{seed} {noise_seed} {steps} {sampler} {mode}",)


class RunTestCount:
    """Numbers from 0, handed on one by one."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "numbers"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"count": ("INT", {"default": 3, "min": 0, "max": 100})}}

    def numbers(self, count: int) -> tuple[list[int]]:
        return (list(range(count)),)


class RunTestDouble:
    """Twice a number; called once for each that comes."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "double"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("INT", {"default": 1, "min": -1000, "max": 1000})}}

    def double(self, number: int) -> tuple[int]:
        return (2 * number,)


class RunTestJoin:
    """All that comes, as one text."""

    CATEGORY = "tests"
    RETURN_TYPES = ("STRING",)
    INPUT_IS_LIST = True
    FUNCTION = "join"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("INT", {"default": 1})}}

    def join(self, number: list[int]) -> tuple[str]:
        return (" ".join(map(str, number)),)


class AnyType(str):
    """Fits every socket."""

    def __ne__(self, other: object) -> bool:
        return False

    __eq__ = str.__eq__
    __hash__ = str.__hash__


class RunTestPass:
    """Hands on whatever comes, of a type that its definition does not tell."""

    CATEGORY = "tests"
    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "hand_on"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"anything": (AnyType("*"),)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Any) -> bool:
        return True

    def hand_on(self, anything: Any) -> tuple[Any]:
        return (anything,)


class RunTestBlock:
    """Keeps everything behind it from executing."""

    CATEGORY = "tests"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "block"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def block(self, image: torch.Tensor) -> tuple[Any]:
        return (ExecutionBlocker(None),)


class RunTestMix:
    """state * 3 + by + seed, as a whole number below a million; counts."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        number = ("INT", {"default": 0, "min": 0, "max": 2**53})
        seed = ("INT", {"default": 5, "min": 0, "max": 2**32, "control_after_generate": True})
        return {"required": {"state": number, "by": number, "seed": seed, "log": ("STRING", {"default": ""})}}

    def mix(self, state: int, by: int, seed: int, log: str) -> tuple[int]:
        count(log, f"mix {state} {by} {seed}")
        return ((state * 3 + by + seed) % 1_000_000,)


class RunTestRefuse:
    """Hands a number on, and fails for one of them."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "check"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        number = ("INT", {"default": 0, "min": 0, "max": 2**53})
        return {"required": {"number": number, "refused": number, "log": ("STRING", {"default": ""})}}

    def check(self, number: int, refused: int, log: str) -> tuple[int]:
        count(log, f"check {number}")
        if number == refused:
            raise ValueError(f"{number} is refused")
        return (number,)


class RunTestFlaky:
    """Hands a number on; the first executions that the log has of it fail, each in its own way."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "try_it"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"default": ""})
        return {"required": {"number": ("INT", {"default": 0}), "ways": text, "log": text}}

    def try_it(self, number: int, ways: str, log: str) -> tuple[int]:
        """ways: "error", "memory", "die" or "hang", separated by commas, for the executions in their order."""
        file = Path(log)
        done = len(file.read_text().splitlines()) if file.exists() else 0
        count(log, f"try {number} in process {os.getpid()}")
        way = dict(enumerate(filter(None, ways.split(",")))).get(done, "")
        if way == "error":
            raise ValueError("this time it fails")
        if way == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if way == "die":
            # Not before the answer to the queueing is out: one that is lost, the connector queues again by itself.
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "hang":
            time.sleep(60)  # no interrupt gets through
        return (number,)


class RunTestSlow:
    """Takes its time, and hands a number on; counts when it begins and when it ends."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "wait"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"default": ""})
        return {"required": {"number": ("INT", {"default": 0}), "seconds": ("FLOAT", {"default": 0.1}), "log": text}}

    def wait(self, number: int, seconds: float, log: str) -> tuple[int]:
        from comfy.model_management import throw_exception_if_processing_interrupted

        count(log, f"begin {number}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            throw_exception_if_processing_interrupted()
        count(log, f"end {number}")
        return (number,)


class RunTestHoard:
    """Leaks: keeps so many megabytes for ever, and hands a number on."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "hoard"
    KEPT: ClassVar[list[bytes]] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("INT", {"default": 0}), "megabytes": ("INT", {"default": 50})}}

    def hoard(self, number: int, megabytes: int) -> tuple[int]:
        self.KEPT.append(b"x" * (megabytes * 2**20))
        return (number,)


class RunTestSecret:
    """Takes a key, as a node that calls a service would, and says how long it is."""

    CATEGORY = "tests"
    RETURN_TYPES = ("INT",)
    FUNCTION = "use"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"default": ""})
        return {"required": {"api_key": text, "token": text, "fail": ("BOOLEAN", {"default": False})}}

    def use(self, api_key: str, token: str, fail: bool) -> tuple[int]:
        if fail:
            raise ValueError(f"401: the key {api_key} is unknown")
        return (len(api_key) + len(token),)


NODE_CLASS_MAPPINGS = {name: kind for name, kind in list(globals().items()) if name.startswith("RunTest")}
