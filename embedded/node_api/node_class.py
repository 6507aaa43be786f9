"""The copies of node classes that V3 nodes run on: what one call sets is not there in the next.

A V3 node has no instance that keeps anything. Each call gets a class derived from the node's, with the hidden values
of that call, whose attributes cannot be set.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

# An attribute of the copies made here, to tell them from classes somebody wrote.
COPY_MARK = "_discomfort_is_copy"


def is_class(obj: Any) -> bool:
    """Whether something is a class."""
    return isinstance(obj, type)


class classproperty:
    """A read-only attribute of a class that is computed."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        self.f = f

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return self.f(owner)


def copy_class(cls: Any) -> Any:
    """A subclass that looks like the class; None of None."""
    if cls is None:
        return None
    return type(cls)(cls.__name__, (cls,), {**_looks(cls), "__qualname__": cls.__qualname__})


def shallow_clone_class(cls: Any, new_name: str | None = None) -> Any:
    """A subclass of another name, on which attributes can be set without changing the class."""
    return type(cls)(new_name or f"{cls.__name__}Clone", (cls,), _looks(cls))


def lock_class(cls: Any) -> Any:
    """A subclass of the same name, of which and of whose instances no attribute can be set.

    Setting one raises AttributeError, with ComfyUI's message.
    """

    class LockedMeta(type(cls)):  # type: ignore[misc]
        def __setattr__(cls, name: str, value: Any) -> None:
            raise AttributeError(f"Cannot modify class attribute '{name}' on locked class '{cls.__name__}'")

    def refuse(self: Any, name: str, value: Any) -> None:
        raise AttributeError(f"Cannot set attribute '{name}' on immutable instance of {type(self).__name__}")

    return LockedMeta(cls.__name__, (cls,), {**_looks(cls), "__setattr__": refuse})


def _looks(cls: Any) -> dict[str, Any]:
    """What a copy has in common with the class, beside what it inherits."""
    return {"__module__": cls.__module__, "__doc__": cls.__doc__, COPY_MARK: True}


def make_locked_method_func(type_obj: Any, func: str, class_clone: Any) -> Callable[..., Any]:
    """A class method of a node, to be called on a locked copy of its clone; a coroutine function if it is one.

    Args:
        type_obj: the node's class.
        func: the method's name.
        class_clone: see ``PREPARE_CLASS_CLONE``.
    """
    method = getattr(type_obj, func)
    # A static method has no class to be given.
    bound = functools.partial(method.__func__, lock_class(class_clone)) if hasattr(method, "__func__") else method
    if not inspect.iscoroutinefunction(method):
        return bound

    async def call(**inputs: Any) -> Any:
        return await bound(**inputs)

    return call


def first_real_override(cls: Any, name: str, *, base: Any = None) -> Callable[..., Any] | None:
    """A class's own method of this name, None if it has only the one of ``base``.

    Args:
        base: where the placeholder is; None: what ``cls.GET_BASE_CLASS()`` says.

    Raises:
        ValueError: neither is there.
    """
    if base is None:
        if not hasattr(cls, "GET_BASE_CLASS"):
            raise ValueError(
                "base is required if cls does not have a GET_BASE_CLASS; is this a valid ComfyNode subclass?"
            )
        base = cls.GET_BASE_CLASS()
    if not hasattr(base, name):
        return None
    for kind in cls.__mro__:
        if kind is base:
            return None
        if name in kind.__dict__:
            found: Callable[..., Any] = getattr(cls, name)
            return found
    return None
