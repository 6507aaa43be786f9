"""Core nodes between JSON and text. Names, inputs and results are those of ComfyUI 0.33.0."""

from __future__ import annotations

import json
from typing import Any

from .text import MULTILINE


class _JsonNode:
    """What all of them share."""

    RETURN_TYPES: tuple[str, ...] = ("STRING",)
    FUNCTION = "execute"
    CATEGORY = "text"


class JsonExtractString(_JsonNode):
    """A value of a JSON object."""

    SEARCH_ALIASES = ("json", "extract json", "parse json", "json value", "read json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"json_string": MULTILINE, "key": ("STRING", {"multiline": False})}}

    def execute(self, json_string: str, key: str) -> tuple[str]:
        """As Python shows it; empty for null, where there is no such key, and for what is no JSON object."""
        try:
            data = json.loads(json_string)
        except (json.JSONDecodeError, TypeError):
            return ("",)
        value = data.get(key) if isinstance(data, dict) else None
        return ("" if value is None else str(value),)


class _AsJson(_JsonNode):
    """What the conversions to JSON share."""

    _INDENT = (
        "INT",
        {
            "tooltip": "Spaces per indent level. 0 produces compact single-line string.",
            "default": 2,
            "min": 0,
            "max": 8,
        },
    )


class ConvertDictionaryToString(_AsJson):
    """A dictionary as JSON."""

    SEARCH_ALIASES = ("json", "dict to json", "stringify", "serialize", "dict to string")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"dictionary": ("DICT", {}), "indent": cls._INDENT}}

    def execute(self, dictionary: Any, indent: int = 2) -> tuple[str]:
        """See :func:`_as_json`."""
        return (_as_json(dictionary, indent),)


class ConvertArrayToString(_AsJson):
    """A list as JSON."""

    SEARCH_ALIASES = ("json", "list to json", "stringify", "serialize", "list to string", "array to json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"array": ("ARRAY", {}), "indent": cls._INDENT}}

    def execute(self, array: Any, indent: int = 2) -> tuple[str]:
        """See :func:`_as_json`."""
        return (_as_json(array, indent),)


def _as_json(value: Any, indent: int) -> str:
    """JSON on one line (``indent`` 0) or over several.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    return json.dumps(value, ensure_ascii=False, indent=indent or None)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "JsonExtractString": JsonExtractString,
    "ConvertDictionaryToString": ConvertDictionaryToString,
    "ConvertArrayToString": ConvertArrayToString,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "JsonExtractString": "Extract Text from JSON",
    "ConvertDictionaryToString": "Convert Dictionary to String",
    "ConvertArrayToString": "Convert Array to String",
}
