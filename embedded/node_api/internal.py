"""``comfy_api.internal``: what packages that call nodes themselves use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .api_registry import ComfyAPIBase, ComfyAPIWithVersion, get_all_versions, register_versions
from .node import ComfyNodeInternal as _ComfyNodeInternal
from .node_class import (
    classproperty,
    copy_class,
    first_real_override,
    is_class,
    lock_class,
    make_locked_method_func,
    shallow_clone_class,
)
from .node_output import NodeOutputBase as _NodeOutputInternal
from .options import prune_dict

__all__ = [
    "ComfyAPIBase",
    "ComfyAPIWithVersion",
    "_ComfyNodeInternal",
    "_NodeOutputInternal",
    "as_pruned_dict",
    "classproperty",
    "copy_class",
    "first_real_override",
    "get_all_versions",
    "is_class",
    "lock_class",
    "make_locked_method_func",
    "prune_dict",
    "register_versions",
    "shallow_clone_class",
]


def as_pruned_dict(dataclass_obj: Any) -> dict[str, Any]:
    """A dataclass as a dict, without what is None."""
    return prune_dict(asdict(dataclass_obj))
