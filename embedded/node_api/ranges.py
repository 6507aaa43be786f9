"""A range of values chosen by the user, as an adjustment of levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# A range narrower than this is a step.
_NARROWEST = 1e-10
# The smallest exponent a middle stands for.
_SMALLEST_GAMMA = 0.001


class RangeInput:
    """Levels: what is at ``min_val`` becomes 0, at ``max_val`` 1, and at the middle 0.5.

    ``midpoint`` is the middle's place between the two, 0..1; None or 0.5: linear.
    """

    def __init__(self, min_val: float, max_val: float, midpoint: float | None = None) -> None:
        self.min_val = min_val
        self.max_val = max_val
        self.midpoint = midpoint

    @staticmethod
    def from_raw(data: Any) -> RangeInput:
        """From the widget's value, ``{"min", "max", "midpoint"}``.

        Raises:
            TypeError: it is no such thing.
        """
        if isinstance(data, RangeInput):
            return data
        if not isinstance(data, dict):
            raise TypeError(f"Cannot convert {type(data)} to RangeInput")
        middle = data.get("midpoint")
        limits = float(data.get("min", 0.0)), float(data.get("max", 1.0))
        return RangeInput(*limits, midpoint=None if middle is None else float(middle))

    def to_lut(self, size: int = 256) -> npt.NDArray[np.float64]:
        """What ``size`` values evenly from 0 to 1 become."""
        values = np.linspace(0.0, 1.0, size, dtype=np.float64)
        width = self.max_val - self.min_val
        if abs(width) < _NARROWEST:
            return (values >= self.min_val).astype(np.float64)
        values = np.clip((values - self.min_val) / width, 0.0, 1.0)
        if self.midpoint is None or self.midpoint <= 0 or self.midpoint == 0.5:
            return values
        return values ** (1.0 / max(-math.log2(self.midpoint), _SMALLEST_GAMMA))

    def __repr__(self) -> str:
        middle = "" if self.midpoint is None else f", midpoint={self.midpoint}"
        return f"RangeInput(min={self.min_val}, max={self.max_val}{middle})"
