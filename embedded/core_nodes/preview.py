"""The core node that shows any value as text."""

from __future__ import annotations

import json
from typing import Any


class AnyType(str):
    """A type name that fits every other one: it never differs from what a link brings.

    The server compares types with ``!=``, in either order, and JSON shows the plain text ``"*"``.
    """

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    # Defining a comparison would remove the hash; equality itself stays that of text.
    __hash__ = str.__hash__


class PreviewAny:
    """Show a value on the node."""

    RETURN_TYPES = ()
    FUNCTION = "main"
    OUTPUT_NODE = True
    CATEGORY = "utils"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": (AnyType("*"), {})}}

    def main(self, source: Any = None) -> dict[str, Any]:
        """The text in the ui result ``text``."""
        return {"ui": {"text": (as_text(source),)}}


def as_text(value: Any) -> str:
    """Text and numbers as they are, other data as JSON, what JSON cannot hold as Python shows it."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return str(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        try:
            return str(value)
        except Exception:
            # A broken __str__ of somebody's class must not fail the run.
            return "source exists, but could not be serialized."


NODE_CLASS_MAPPINGS: dict[str, type] = {"PreviewAny": PreviewAny}

NODE_DISPLAY_NAME_MAPPINGS = {"PreviewAny": "Preview Any"}
