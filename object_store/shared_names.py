"""What all copies of this package in one process share, and what pickle streams name.

The functions below are called by unpickling. They are part of the file format: streams name them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


SHARED_NAME = "_discomfort_shared_v1"


def shared_module() -> types.ModuleType:
    """Return the one module that every copy of this package in the process shares.

    ComfyUI may load the package as ``custom_nodes.discomfort`` or by its path while a script has it as
    ``discomfort``: three sets of module globals. What has to be one per process (the registry, and the functions
    that pickle streams name) therefore hangs in ``sys.modules`` under a fixed name.
    """
    return sys.modules.setdefault(SHARED_NAME, types.ModuleType(SHARED_NAME))


def _shared(function: _F) -> _F:
    """Decorator: pickle the function under the shared module's name, whatever this module is called here."""
    function.__module__ = SHARED_NAME
    function.__qualname__ = function.__name__
    shared: _F = vars(shared_module()).setdefault(function.__name__, function)
    return shared


@_shared
def rebuild_storage(buffer: Any) -> Any:
    """Return an untyped torch storage over ``buffer`` (writable bytes), without a copy. Called by unpickling."""
    import torch

    if memoryview(buffer).nbytes == 0:
        return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


@_shared
def rebuild_same(value: Any) -> Any:
    """Return ``value``: what a storage that several objects share unpickles to. Called by unpickling."""
    return value


@_shared
def rebuild_typed_storage(storage: Any, dtype: str) -> Any:
    """Return a TypedStorage over an untyped one. Called by unpickling."""
    import torch

    typed: Any = torch.storage.TypedStorage
    return typed(wrap_storage=storage, dtype=getattr(torch, dtype), _internal=True)


@_shared
def rebuild_tensor(
    storage: Any, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool
) -> Any:
    """Return a CPU tensor over ``storage`` (None where it has no elements). Called by unpickling.

    ComfyUI runs its nodes in inference mode. A tensor made there could never be used with autograd, so it is made
    outside; in-place operations on it work in both modes.
    """
    import torch

    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return rebuild_tensor(storage, dtype, offset, shape, stride, requires_grad)
    kind = getattr(torch, dtype)
    if storage is None:
        tensor = torch.empty_strided(shape, stride, dtype=kind, device="cpu")
    else:
        tensor = torch.empty(0, dtype=kind, device="cpu")
        tensor.set_(storage, offset, shape, stride)
    return tensor.requires_grad_() if requires_grad else tensor


@_shared
def rebuild_meta_tensor(dtype: str, shape: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool) -> Any:
    """Return a tensor on the meta device: a shape without data. Called by unpickling."""
    import torch

    kind = getattr(torch, dtype)
    return torch.empty_strided(shape, stride, dtype=kind, device="meta", requires_grad=requires_grad)
