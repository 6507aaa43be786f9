"""Combining and marking conditioning (``nodes.ConditioningCombine`` and others for node packages).

Conditioning is ``[[tensor, options], ...]``: text as numbers, float32 ``[B, tokens, channels]``, and a dict of what is
said about it. Text encoders make it, which are models; packages have other ways, and call these classes, which need
none. They are no nodes of prompts: no node of the embedded server makes conditioning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .node_registry import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.conditioning")

Conditioning = list[Any]

# What two entries for neighbouring steps keep between them: the step at their border is one's alone.
_GAP = 1e-5

_CONDITIONING = ("CONDITIONING",)
_STRENGTH = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01})


def _pixels(default: int, smallest: int) -> tuple[str, dict[str, int]]:
    """A length that is a multiple of a latent's 8 pixels."""
    return ("INT", {"default": default, "min": smallest, "max": MAX_RESOLUTION, "step": 8})


def _share(default: float, smallest: float = 0) -> tuple[str, dict[str, float]]:
    """A part of 1."""
    return ("FLOAT", {"default": default, "min": smallest, "max": 1.0, "step": 0.01})


def _only_first(conditioning: Conditioning, node: str) -> tuple[Tensor, dict[str, Any]]:
    """The first entry; that there are more is logged."""
    if len(conditioning) > 1:
        logger.warning("%s: conditioning_from has more than one entry; only the first is applied.", node)
    return conditioning[0][0], conditioning[0][1]


def conditioning_set_values(
    conditioning: list[Any], values: Mapping[str, Any] | None = None, append: bool = False
) -> list[Any]:
    """A copy of conditioning, ``[[tensor, options], ...]``, with some options set (or added to)."""
    result = []
    for tensor, options in conditioning:
        options = dict(options)
        for key, value in (values or {}).items():
            old = options.get(key) if append else None
            options[key] = value if old is None else old + value
        result.append([tensor, options])
    return result


def conditioning_set_values_with_timestep_range(
    conditioning: list[Any],
    values: Mapping[str, Any] | None = None,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> list[Any]:
    """Conditioning with some options set for a part of the sampling, 0 to 1 (ComfyUI 0.29.0).

    Each entry becomes up to three: before the part and behind it as it was, in it with the options. An entry that
    ends before the part or begins behind it stays. The conditioning itself is returned if the part ends before it
    begins, which is logged.
    """
    if start_percent > end_percent:
        logger.warning("start_percent (%s) must be <= end_percent (%s)", start_percent, end_percent)
        return conditioning
    result: list[Any] = []
    for entry in conditioning:
        begin, end = entry[1].get("start_percent", 0.0), entry[1].get("end_percent", 1.0)
        first, last = max(start_percent, begin), min(end_percent, end)
        if first >= last:
            result.append(entry)
            continue
        parts: list[tuple[float, float, Mapping[str, Any]]] = [(first, last, values or {})]
        if first > begin:
            parts.insert(0, (begin, first - _GAP, {}))
        if last < end:
            parts.append((last + _GAP, end, {}))
        for start, stop, options in parts:
            result += conditioning_set_values([entry], {**options, "start_percent": start, "end_percent": stop})
    return result


class ConditioningCombine:
    """Two conditionings, both of which count."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "combine"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_1": _CONDITIONING, "conditioning_2": _CONDITIONING}}

    def combine(self, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:
        """The entries of both."""
        return (conditioning_1 + conditioning_2,)


class ConditioningAverage:
    """A conditioning mixed with another."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "addWeighted"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_to": _CONDITIONING,
                "conditioning_from": _CONDITIONING,
                "conditioning_to_strength": _share(1.0, 0.0),
            }
        }

    def addWeighted(
        self, conditioning_to: Conditioning, conditioning_from: Conditioning, conditioning_to_strength: float
    ) -> tuple[Conditioning]:
        """Strength 1 is all ``conditioning_to``, 0 all the first entry of ``conditioning_from``, cut or filled."""
        import torch

        source, source_options = _only_first(conditioning_from, "ConditioningAverage")
        source_pooled = source_options.get("pooled_output")
        strength = conditioning_to_strength
        result = []
        for target, target_options in conditioning_to:
            part = source[:, : target.shape[1]]
            missing = target.shape[1] - part.shape[1]
            if missing > 0:
                part = torch.cat([part, torch.zeros((1, missing, target.shape[2]))], dim=1)
            options = dict(target_options)
            if source_pooled is not None:
                pooled = options.get("pooled_output", source_pooled)
                mixed = None if pooled is None else pooled * strength + source_pooled * (1.0 - strength)
                options["pooled_output"] = source_pooled if mixed is None else mixed
            result.append([target * strength + part * (1.0 - strength), options])
        return (result,)


class ConditioningConcat:
    """A conditioning with the tokens of another behind its own."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "concat"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_to": _CONDITIONING, "conditioning_from": _CONDITIONING}}

    def concat(self, conditioning_to: Conditioning, conditioning_from: Conditioning) -> tuple[Conditioning]:
        """Each entry gets the tokens of the first entry of ``conditioning_from``."""
        import torch

        source, _ = _only_first(conditioning_from, "ConditioningConcat")
        return ([[torch.cat((target, source), 1), dict(options)] for target, options in conditioning_to],)


class ConditioningSetArea:
    """A conditioning for a rectangle of the picture, in pixels."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": _CONDITIONING,
                "width": _pixels(64, 64),
                "height": _pixels(64, 64),
                "x": _pixels(0, 0),
                "y": _pixels(0, 0),
                "strength": _STRENGTH,
            }
        }

    def append(
        self, conditioning: Conditioning, width: int, height: int, x: int, y: int, strength: float
    ) -> tuple[Conditioning]:
        """The area is noted in elements of a latent, (height, width, y, x)."""
        area = tuple(length // 8 for length in (height, width, y, x))
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (conditioning_set_values(conditioning, values),)


class ConditioningSetAreaPercentage:
    """A conditioning for a rectangle of the picture, in parts of its size."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": _CONDITIONING,
                "width": _share(1.0),
                "height": _share(1.0),
                "x": _share(0),
                "y": _share(0),
                "strength": _STRENGTH,
            }
        }

    def append(
        self, conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float
    ) -> tuple[Conditioning]:
        """The area is noted as ("percentage", height, width, y, x)."""
        area = ("percentage", height, width, y, x)
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (conditioning_set_values(conditioning, values),)


class ConditioningSetAreaStrength:
    """How much a conditioning counts."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": _CONDITIONING, "strength": _STRENGTH}}

    def append(self, conditioning: Conditioning, strength: float) -> tuple[Conditioning]:
        """Notes the strength."""
        return (conditioning_set_values(conditioning, {"strength": strength}),)


class ConditioningSetMask:
    """A conditioning for the masked part of the picture."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": _CONDITIONING,
                "mask": ("MASK",),
                "strength": _STRENGTH,
                "set_cond_area": (["default", "mask bounds"],),
            }
        }

    def append(
        self, conditioning: Conditioning, mask: Tensor, set_cond_area: str, strength: float
    ) -> tuple[Conditioning]:
        """Notes the mask, ``[B, H, W]``, its strength, and whether only its bounds are computed."""
        mask = mask.unsqueeze(0) if mask.ndim < 3 else mask
        bounds = set_cond_area != "default"
        values = {"mask": mask, "set_area_to_bounds": bounds, "mask_strength": strength}
        return (conditioning_set_values(conditioning, values),)


class ConditioningZeroOut:
    """A conditioning that says nothing."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "zero_out"
    CATEGORY = "advanced/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": _CONDITIONING}}

    def zero_out(self, conditioning: Conditioning) -> tuple[Conditioning]:
        """The same shapes and options, all numbers 0."""
        import torch

        result = []
        for tensor, options in conditioning:
            emptied = dict(options)
            for name in ("pooled_output", "conditioning_lyrics"):
                if emptied.get(name) is not None:
                    emptied[name] = torch.zeros_like(emptied[name])
            result.append([torch.zeros_like(tensor), emptied])
        return (result,)


class ConditioningSetTimestepRange:
    """A conditioning for a part of the sampling."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "set_range"
    CATEGORY = "advanced/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": _CONDITIONING,
                "start": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.001}),
                "end": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.001}),
            }
        }

    def set_range(self, conditioning: Conditioning, start: float, end: float) -> tuple[Conditioning]:
        """From and to which part of the steps, 0 to 1."""
        return (conditioning_set_values(conditioning, {"start_percent": start, "end_percent": end}),)
