"""Making a class the description of a type: its name, and the classes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .inputs import Input as InputBase
from .outputs import Output as OutputBase
from .type_names import TypeName


class ComfyType:
    """Base of all descriptions of types (``_ComfyType`` in ComfyUI)."""

    # The Python type of values, for annotations.
    Type: Any = Any
    # The type's name.
    io_type: Any = None


class ComfyTypeI(ComfyType):
    """A type of inputs only."""

    class Input(InputBase):
        """An input of this type."""


class ComfyTypeIO(ComfyTypeI):
    """A type of inputs and outputs."""

    class Output(OutputBase):
        """An output of this type."""


def comfytype(io_type: str, **kwargs: Any) -> Callable[[Any], Any]:
    """Class decorator: the class describes the type of this name.

    The class may have ``Type`` (the Python type of values), ``Input`` and ``Output``; those it has not are made.
    It need not be derived from :class:`ComfyTypeIO`. Other keywords are ignored, as in ComfyUI.
    """

    def describe(cls: Any) -> Any:
        described = cls if issubclass(cls, ComfyType) else _derive(cls, (cls, ComfyTypeIO))
        described.io_type = TypeName(io_type)
        for name in ("Input", "Output"):
            item = getattr(described, name, None)
            if item is not None:
                # A class of its own: what is inherited belongs to another type.
                setattr(described, name, _derive(item, (item,), Parent=described))
        return described

    return describe


def Custom(io_type: str) -> Any:
    """A type of a package's own, by its name."""
    return comfytype(io_type)(type("CustomComfyType", (ComfyTypeIO,), {}))


def _derive(cls: Any, bases: tuple[Any, ...], **attributes: Any) -> Any:
    """A subclass that looks like the class itself."""
    looks = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls)(cls.__name__, bases, {**looks, **attributes})
