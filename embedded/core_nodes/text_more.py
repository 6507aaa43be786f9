"""Core nodes that later versions of ComfyUI added for text: JSON, lists of texts, text files.

Names, inputs and results are those of ComfyUI 0.33.0.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .. import folder_paths
from .image_io import METADATA_INPUTS
from .text import MULTILINE


class _TextNode:
    """What all of them share."""

    RETURN_TYPES: tuple[str, ...] = ("STRING",)
    FUNCTION = "execute"
    CATEGORY = "text"


# -- JSON --------------------------------------------------------------------------------------------------


class JsonExtractString(_TextNode):
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


class _AsJson(_TextNode):
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


# -- texts one by one --------------------------------------------------------------------------------------


class _OneText(_TextNode):
    """A node for each item of a list of texts.

    What it hands on is a list of one text as one value, not the text: so does ComfyUI 0.33.0, whose declaration of
    the output is neither yes nor no.
    """

    RETURN_NAMES = ("texts",)
    OUTPUT_IS_LIST = (None,)
    OUTPUT_TOOLTIPS = ("Processed texts",)
    EXPERIMENTAL = True
    _TOOLTIP = "Text to process."
    # Inputs beside the texts.
    _MORE_INPUTS: dict[str, tuple[str, dict[str, Any]]] = {}  # noqa: RUF012 - never changed

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"texts": _line(cls._TOOLTIP), **cls._MORE_INPUTS}}


def _line(tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """An input of one line of text."""
    return ("STRING", {"tooltip": tooltip, **more, "multiline": False})


class TextToLowercase(_OneText):
    """Small letters."""

    DEPRECATED = True
    DESCRIPTION = "Convert text to lowercase."
    SEARCH_ALIASES = ("lowercase",)

    def execute(self, texts: str) -> tuple[list[str]]:
        """All of them."""
        return ([texts.lower()],)


class TextToUppercase(_OneText):
    """Capital letters."""

    DEPRECATED = True
    DESCRIPTION = "Convert text to uppercase."
    SEARCH_ALIASES = ("uppercase",)

    def execute(self, texts: str) -> tuple[list[str]]:
        """All of them."""
        return ([texts.upper()],)


class TruncateText(_OneText):
    """The beginning of a text."""

    DESCRIPTION = "Truncate text to a maximum length."
    SEARCH_ALIASES = ("truncate", "cut", "shorten")
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "max_length": ("INT", {"tooltip": "Maximum text length.", "default": 77, "min": 1, "max": 10000})
    }

    def execute(self, texts: str, max_length: int) -> tuple[list[str]]:
        """At most ``max_length`` characters."""
        return ([texts[:max_length]],)


class AddTextPrefix(_OneText):
    """Something before a text."""

    DEPRECATED = True
    DESCRIPTION = "Add a prefix to all texts."
    _MORE_INPUTS = {"prefix": _line("Prefix to add.", default="")}  # noqa: RUF012 - never changed

    def execute(self, texts: str, prefix: str) -> tuple[list[str]]:
        """``prefix``, then the text."""
        return ([prefix + texts],)


class AddTextSuffix(_OneText):
    """Something behind a text."""

    DEPRECATED = True
    DESCRIPTION = "Add a suffix to all texts."
    _MORE_INPUTS = {"suffix": _line("Suffix to add.", default="")}  # noqa: RUF012 - never changed

    def execute(self, texts: str, suffix: str) -> tuple[list[str]]:
        """The text, then ``suffix``."""
        return ([texts + suffix],)


class ReplaceText(_OneText):
    """Find and replace."""

    DEPRECATED = True
    DESCRIPTION = "Replace text in all texts."
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "find": _line("Text to find.", default=""),
        "replace": _line("Text to replace with.", default=""),
    }

    def execute(self, texts: str, find: str, replace: str) -> tuple[list[str]]:
        """Every ``find`` becomes ``replace``."""
        return ([texts.replace(find, replace)],)


class StripWhitespace(_OneText):
    """A text without the white space at its ends."""

    DEPRECATED = True
    DESCRIPTION = "Strip leading and trailing whitespace from all texts."

    def execute(self, texts: str) -> tuple[list[str]]:
        """Both ends."""
        return ([texts.strip()],)


class MergeTextLists(_OneText):
    """A list of texts as one value."""

    DEPRECATED = True
    DESCRIPTION = "Concatenate multiple text lists into one."
    INPUT_IS_LIST = True
    _TOOLTIP = "List of texts to process."

    def execute(self, texts: list[str]) -> tuple[list[list[str]]]:
        """The list within a list, as ComfyUI has it."""
        return ([texts],)


# -- files -------------------------------------------------------------------------------------------------


class SaveText(_TextNode):
    """Save a text in the output folder."""

    RETURN_NAMES = ("text",)
    OUTPUT_NODE = True
    DESCRIPTION = "Save text content to a file in the output directory."
    SEARCH_ALIASES = ("save text", "write text", "export text")
    # Also the endings of the files.
    _FORMATS = ("txt", "csv", "md", "json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        formats = {"default": "txt", "multiselect": False, "options": list(cls._FORMATS)}
        return {
            "required": {
                "text": ("STRING", {"forceInput": True, "multiline": False}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "multiline": False}),
                "format": ("COMBO", formats),
            },
            "hidden": METADATA_INPUTS,
        }

    def execute(
        self, text: str, filename_prefix: str, format: str, prompt: Any = None, extra_pnginfo: Any = None
    ) -> dict[str, Any]:
        """One numbered file in UTF-8, which the ui result names, and the text itself; JSON is indented.

        Raises:
            ValueError: the prefix leads out of the folder, or the format is none of the choices (which a link can
                bring past the validation).
            OSError: the file cannot be written.
        """
        if format not in self._FORMATS:
            raise ValueError(f"Unsupported text format: {format!r}")
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), 1, 1
        )
        name = f"{filename}_{counter:05}.{format}"
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(_indented(text) if format == "json" else text)
        saved = {"filename": name, "subfolder": subfolder, "type": "output"}
        return {"ui": {"text": (text,), "files": [saved]}, "result": (text,)}


def _indented(text: str) -> str:
    """JSON over several lines; what is no JSON as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except json.JSONDecodeError:
        return text


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "JsonExtractString": JsonExtractString,
    "ConvertDictionaryToString": ConvertDictionaryToString,
    "ConvertArrayToString": ConvertArrayToString,
    "TextToLowercase": TextToLowercase,
    "TextToUppercase": TextToUppercase,
    "TruncateText": TruncateText,
    "AddTextPrefix": AddTextPrefix,
    "AddTextSuffix": AddTextSuffix,
    "ReplaceText": ReplaceText,
    "StripWhitespace": StripWhitespace,
    "MergeTextLists": MergeTextLists,
    "SaveText": SaveText,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "JsonExtractString": "Extract Text from JSON",
    "ConvertDictionaryToString": "Convert Dictionary to String",
    "ConvertArrayToString": "Convert Array to String",
    "TextToLowercase": "Convert Text to Lowercase (DEPRECATED)",
    "TextToUppercase": "Convert Text to Uppercase (DEPRECATED)",
    "TruncateText": "Truncate Text",
    "AddTextPrefix": "Add Text Prefix (DEPRECATED)",
    "AddTextSuffix": "Add Text Suffix (DEPRECATED)",
    "ReplaceText": "Replace Text (DEPRECATED)",
    "StripWhitespace": "Strip Whitespace (DEPRECATED)",
    "MergeTextLists": "Merge Text Lists (DEPRECATED)",
    "SaveText": "Save Text",
}
