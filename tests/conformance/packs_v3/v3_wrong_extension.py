"""A package whose entry point returns something else."""

from __future__ import annotations


def comfy_entrypoint() -> list[int]:
    return []
