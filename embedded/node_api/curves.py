"""Functions of 0..1 drawn by the user, through points."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger("discomfort.embedded.node_api")

CurvePoint = tuple[float, float]
_Floats = npt.NDArray[np.float64]


class CurveInput(ABC):
    """A curve."""

    @property
    @abstractmethod
    def points(self) -> list[CurvePoint]:
        """The points it goes through."""

    @abstractmethod
    def interp(self, x: float) -> float:
        """Its value at ``x``."""

    def interp_array(self, xs: Any) -> Any:
        """Its values at all of these."""
        return np.array([self.interp(float(x)) for x in xs], dtype=np.float64)

    def to_lut(self, size: int = 256) -> Any:
        """Its values at ``size`` places evenly from 0 to 1."""
        return self.interp_array(np.linspace(0.0, 1.0, size))

    @staticmethod
    def from_raw(data: Any) -> CurveInput:
        """From the widget's value, ``{"points", "interpolation"}``, or just points.

        An interpolation that is not known is the smooth one.
        """
        if isinstance(data, CurveInput):
            return data
        raw, kind = (data["points"], data.get("interpolation")) if isinstance(data, dict) else (data, None)
        points = [(float(x), float(y)) for x, y in raw]
        if kind == "linear":
            return LinearCurve(points)
        if kind not in (None, "monotone_cubic"):
            logger.warning("Unknown curve interpolation %r, falling back to monotone_cubic", kind)
        return MonotoneCubicCurve(points)


class _PointCurve(CurveInput):
    """A curve through points, level outside of them; 0 without any."""

    def __init__(self, control_points: list[CurvePoint]) -> None:
        self._points = sorted(((float(x), float(y)) for x, y in control_points), key=lambda point: point[0])
        self._xs = np.array([x for x, _ in self._points], dtype=np.float64)
        self._ys = np.array([y for _, y in self._points], dtype=np.float64)

    @property
    def points(self) -> list[CurvePoint]:
        """The points it goes through, by x."""
        return list(self._points)

    def interp(self, x: float) -> float:
        """Its value at ``x``."""
        return float(self.interp_array(np.array([x]))[0])

    def interp_array(self, xs: Any) -> Any:
        """Its values at all of these."""
        xs = np.asarray(xs, dtype=np.float64)
        if len(self._points) < 2:
            return np.full_like(xs, self._ys[0] if self._points else 0.0)
        return self._between(xs)

    @abstractmethod
    def _between(self, xs: _Floats) -> _Floats:
        """The values, of a curve of two points or more."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(points={self._points})"


class LinearCurve(_PointCurve):
    """Straight lines."""

    def _between(self, xs: _Floats) -> _Floats:
        values: _Floats = np.interp(xs, self._xs, self._ys)
        return values


class MonotoneCubicCurve(_PointCurve):
    """A smooth curve that rises where the points rise and falls where they fall (Fritsch and Carlson, 1980)."""

    def __init__(self, control_points: list[CurvePoint]) -> None:
        super().__init__(control_points)
        self._slopes = self._slopes_at_points()

    def _slopes_at_points(self) -> _Floats:
        """The mean of the slopes on both sides, 0 where they turn, and held within a circle of radius 3."""
        if len(self._points) < 2:
            return np.zeros(len(self._points))
        widths, heights = np.diff(self._xs), np.diff(self._ys)
        secants = np.divide(heights, widths, out=np.zeros_like(heights), where=widths != 0)
        slopes = np.concatenate((secants[:1], (secants[:-1] + secants[1:]) / 2, secants[-1:]))
        slopes[1:-1][secants[:-1] * secants[1:] <= 0] = 0.0
        for left, secant in enumerate(secants):
            pair = slopes[left : left + 2]
            if secant == 0:
                pair[:] = 0.0
                continue
            steepness = float(np.hypot(*(pair / secant)))
            if steepness > 3:
                pair *= 3 / steepness
        return slopes

    def _between(self, xs: _Floats) -> _Floats:
        """Cubic Hermite splines."""
        right = np.searchsorted(self._xs, xs, side="right").clip(1, len(self._xs) - 1)
        left = right - 1
        width = self._xs[right] - self._xs[left]
        t = np.divide(xs - self._xs[left], width, out=np.zeros_like(xs), where=width != 0)
        t2, t3 = t**2, t**3
        values = (
            (2 * t3 - 3 * t2 + 1) * self._ys[left]
            + (t3 - 2 * t2 + t) * width * self._slopes[left]
            + (3 * t2 - 2 * t3) * self._ys[right]
            + (t3 - t2) * width * self._slopes[right]
        )
        values = np.where(xs <= self._xs[0], self._ys[0], values)
        level: _Floats = np.where(xs >= self._xs[-1], self._ys[-1], values)
        return level
