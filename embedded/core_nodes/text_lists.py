"""Core nodes for each text of a list, and for a list as a whole.

Names, inputs and results are those of ComfyUI 0.33.0. Most are deprecated there, in favour of those in ``text.py``.
"""

from __future__ import annotations

from typing import Any


class _OneText:
    """A node for each item of a list of texts.

    What it hands on is a list of one text as one value, not the text: so does ComfyUI 0.33.0, whose declaration of
    the output is neither yes nor no.
    """

    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("texts",)
    FUNCTION = "execute"
    CATEGORY = "text"
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


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "TextToLowercase": TextToLowercase,
    "TextToUppercase": TextToUppercase,
    "TruncateText": TruncateText,
    "AddTextPrefix": AddTextPrefix,
    "AddTextSuffix": AddTextSuffix,
    "ReplaceText": ReplaceText,
    "StripWhitespace": StripWhitespace,
    "MergeTextLists": MergeTextLists,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "TextToLowercase": "Convert Text to Lowercase (DEPRECATED)",
    "TextToUppercase": "Convert Text to Uppercase (DEPRECATED)",
    "TruncateText": "Truncate Text",
    "AddTextPrefix": "Add Text Prefix (DEPRECATED)",
    "AddTextSuffix": "Add Text Suffix (DEPRECATED)",
    "ReplaceText": "Replace Text (DEPRECATED)",
    "StripWhitespace": "Strip Whitespace (DEPRECATED)",
    "MergeTextLists": "Merge Text Lists (DEPRECATED)",
}
