"""Helpers of the demo: a photograph out of focus, a measure of sharpness, and a sheet with everything on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file, no window
import torch
from matplotlib import pyplot as plt
from torch.nn import functional

INK, PAPER, ACCENT, QUIET = "#1f2430", "#fbfaf7", "#d9480f", "#9aa1ad"


def out_of_focus(image: torch.Tensor) -> torch.Tensor:
    """The picture [B,H,W,C], twice as large and a little out of focus: every pixel the mean of those around it."""
    large = functional.interpolate(image.permute(0, 3, 1, 2), scale_factor=2, mode="bicubic").clamp(0, 1)
    soft = functional.avg_pool2d(functional.pad(large, (2, 2, 2, 2), mode="reflect"), kernel_size=5, stride=1)
    return soft.permute(0, 2, 3, 1).contiguous()


def sharpness(image: torch.Tensor) -> float:
    """Variance of the Laplacian of the brightness, times 1000: higher is sharper. *image*: [B,H,W,C] in 0..1."""
    gray = image.mean(dim=-1)
    middle = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return float((around - 4 * middle).var()) * 1000


def draw_contact_sheet(images: Sequence[torch.Tensor], goal: float, path: Path) -> Path:
    """Draw before and after large, every iteration small, and the curve of the sharpness; returns *path*."""
    pictures = [image[0].clamp(0, 1).numpy() for image in images]
    scores = [sharpness(image) for image in images]
    columns = min(len(pictures), 7)
    rows = -(-len(pictures) // columns)
    figure = plt.figure(figsize=(14, 9 + 1.9 * rows), facecolor=PAPER, layout="constrained")
    large, small, curve = figure.subfigures(3, 1, height_ratios=[6, 1.9 * rows, 3])
    for axes, picture, title in zip(
        large.subplots(1, 2),
        (pictures[0], pictures[-1]),
        ("before", f"after {len(pictures) - 1} iterations"),
        strict=True,
    ):
        axes.imshow(_middle(picture))
        axes.set_title(title, color=INK, fontsize=16, loc="left")
        axes.axis("off")
    for number, axes in enumerate(small.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if number < len(pictures):
            axes.imshow(_middle(pictures[number]))
            axes.set_title(f"{number}  ·  {scores[number]:.2f}", color=INK, fontsize=10)
    axes = curve.subplots()
    axes.set_facecolor(PAPER)
    axes.axhline(goal, color=QUIET, linestyle="--", linewidth=1.2)
    axes.annotate("goal", (0, goal), xytext=(2, 5), textcoords="offset points", color=QUIET)
    axes.plot(range(len(scores)), scores, color=ACCENT, marker="o", linewidth=2.2)
    axes.set_xlabel("iteration", color=INK)
    axes.set_ylabel("sharpness", color=INK)
    axes.set_xticks(range(len(scores)))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _middle(picture: Any) -> Any:
    """The upper middle of a picture [H,W,C], large enough to see what became sharp."""
    height, width = picture.shape[:2]
    return picture[height // 10 : height * 6 // 10, width // 6 : width * 5 // 6]
