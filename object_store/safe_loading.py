"""Loading objects: all of them, or only those whose unpickling cannot do anything but make plain data.

Unpickling is code execution. A context's objects were written by this user, whom the folder's owner and mode vouch for.
A folder that was copied here from somewhere has this user as its owner too, whoever wrote what is in it: there only
numbers, texts, containers, tensors and arrays are made, by functions that do nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

from .errors import StoreError
from .file_format import HeldObject, rebuild
from .shared_names import SHARED_NAME, shared_module

# (module, name) of what a stream may name. Of NumPy's own the module moved with version 2.
_ALLOWED = frozenset(
    {
        *((SHARED_NAME, f"rebuild_{kind}") for kind in ("storage", "same", "typed_storage", "tensor", "meta_tensor")),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib._local", "PosixPath"),
        ("pathlib._local", "PurePosixPath"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_parameter"),
        *(
            ("builtins", name)
            for name in ("complex", "set", "frozenset", "bytearray", "range", "slice", "list", "dict")
        ),
        ("_codecs", "encode"),  # how older protocols write bytes; it encodes a text and does nothing else
    }
)


class UntrustedError(StoreError, PermissionError):
    """A value names something that could act when it is loaded, and whoever wrote it is not known."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UntrustedError(f"{module}.{name}")
        if module == SHARED_NAME:
            return vars(shared_module())[name]
        return super().find_class(module, name)


def _load_plain(stream: memoryview, *, buffers: Iterable[Any]) -> Any:
    return _PlainUnpickler(io.BytesIO(stream), buffers=buffers).load()


def load_object(held: HeldObject) -> Any:
    """The value of an object that only this user can have written. Raises whatever unpickling raises."""
    return rebuild(held.header, held.view)


def load_plain_object(held: HeldObject) -> Any:
    """The value of an object that anybody may have written, if it is plain data, tensors and arrays.

    Raises:
        UntrustedError: it names something else; the message says what.
    """
    try:
        return rebuild(held.header, held.view, _load_plain)
    except UntrustedError as exc:
        raise UntrustedError(
            f"the value {held.key!r} names {exc}, which is not among the plain data that is loaded from a folder "
            "whose origin is not known. If you trust whoever made it, say so."
        ) from None
