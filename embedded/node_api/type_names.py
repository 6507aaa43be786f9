"""The names of types in schemas, and classes that are imported when they are first asked for."""

from __future__ import annotations

import importlib
from typing import Any

ANY = "*"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"

# Names that fit every type: a link from or to them is checked by the editor, if at all.
_WILDCARDS = frozenset({ANY, MATCH_TYPE})


class TypeName(str):
    """A type's name, ``"A,B"`` meaning either.

    Unequal only to names it cannot be linked to, which is how 0.3.64 lets its V3 nodes link to ``"*"`` where a
    plain ``"*"`` fits nothing: the check of a link asks ``received != accepted`` first.
    """

    def __ne__(self, other: object) -> bool:
        if not isinstance(other, str):
            return True
        if str.__eq__(self, other) or not _WILDCARDS.isdisjoint((str(self), str(other))):
            return False
        own, others = frozenset(self.split(",")), frozenset(other.split(","))
        return not (own <= others or others <= own)


class LazyClass:
    """A class attribute that is a class of a module which takes long to import."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return getattr(importlib.import_module(self.module), self.name)


TENSOR = LazyClass("torch", "Tensor")
