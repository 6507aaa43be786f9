"""Core nodes that work on text: joining, cutting, changing, comparing, regular expressions.

Names, inputs and results are those of ComfyUI 0.3.64. Regular expressions are Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MULTILINE = ("STRING", {"multiline": True})
# The separator of several matches in one text.
_MATCH_SEPARATOR = "\n"

# Names in widgets -> what they do, in the order the editor offers them.
_CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "Starts With": str.startswith,
    "Ends With": str.endswith,
    "Equal": str.__eq__,
}


def _combo(*options: str) -> tuple[str, dict[str, Any]]:
    """A choice input."""
    return ("COMBO", {"multiselect": False, "options": list(options)})


def _switch(default: bool) -> tuple[str, dict[str, Any]]:
    """A yes/no input."""
    return ("BOOLEAN", {"default": default})


class _TextNode:
    """What all text nodes share."""

    RETURN_TYPES: tuple[str, ...] = ("STRING",)
    FUNCTION = "execute"
    CATEGORY = "utils/string"


class StringConcatenate(_TextNode):
    """Two texts joined."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        delimiter = ("STRING", {"default": "", "multiline": False})
        return {"required": {"string_a": MULTILINE, "string_b": MULTILINE, "delimiter": delimiter}}

    def execute(self, string_a: str, string_b: str, delimiter: str) -> tuple[str]:
        """``delimiter`` stands between them."""
        return (string_a + delimiter + string_b,)


class StringSubstring(_TextNode):
    """A part of a text."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": MULTILINE, "start": ("INT", {}), "end": ("INT", {})}}

    def execute(self, string: str, start: int, end: int) -> tuple[str]:
        """From ``start`` to before ``end``; numbers below 0 count from the end of the text."""
        return (string[start:end],)


class StringLength(_TextNode):
    """How many characters a text has."""

    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("length",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": MULTILINE}}

    def execute(self, string: str) -> tuple[int]:
        """Unicode characters, not bytes."""
        return (len(string),)


class CaseConverter(_TextNode):
    """Capital and small letters."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": MULTILINE, "mode": _combo(*_CASES)}}

    def execute(self, string: str, mode: str) -> tuple[str]:
        """Capitalize changes the first letter of the text, Title Case that of each word; another mode nothing."""
        return (_CASES.get(mode, str)(string),)


class StringTrim(_TextNode):
    """A text without the white space at its ends."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": MULTILINE, "mode": _combo(*_TRIMS)}}

    def execute(self, string: str, mode: str) -> tuple[str]:
        """``mode`` says at which end; another one changes nothing."""
        return (_TRIMS.get(mode, str)(string),)


class StringReplace(_TextNode):
    """Find and replace."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": MULTILINE, "find": MULTILINE, "replace": MULTILINE}}

    def execute(self, string: str, find: str, replace: str) -> tuple[str]:
        """Every ``find`` becomes ``replace``."""
        return (string.replace(find, replace),)


class StringContains(_TextNode):
    """Whether a text contains another."""

    RETURN_TYPES = ("BOOLEAN",)
    RETURN_NAMES = ("contains",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"string": MULTILINE, "substring": MULTILINE, "case_sensitive": _switch(True)},
        }

    def execute(self, string: str, substring: str, case_sensitive: bool) -> tuple[bool]:
        """Whether ``substring`` occurs anywhere."""
        string, substring = _same_case(string, substring, case_sensitive)
        return (substring in string,)


class StringCompare(_TextNode):
    """Whether a text equals, begins or ends with another."""

    RETURN_TYPES = ("BOOLEAN",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string_a": MULTILINE,
                "string_b": MULTILINE,
                "mode": _combo(*_COMPARISONS),
                "case_sensitive": _switch(True),
            }
        }

    def execute(self, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> tuple[bool]:
        """Whether ``string_a`` is, or begins or ends with, ``string_b``."""
        string_a, string_b = _same_case(string_a, string_b, case_sensitive)
        return (_COMPARISONS[mode](string_a, string_b),)


def _same_case(first: str, second: str, case_sensitive: bool) -> tuple[str, str]:
    """Both as they are, or in small letters where case does not matter."""
    return (first, second) if case_sensitive else (first.lower(), second.lower())


# -- regular expressions -----------------------------------------------------------------------------------


def _flags(case_insensitive: bool, multiline: bool, dotall: bool) -> re.RegexFlag:
    """The switches of a regular expression node as flags."""
    flags = re.RegexFlag(0)
    for is_on, flag in ((case_insensitive, re.IGNORECASE), (multiline, re.MULTILINE), (dotall, re.DOTALL)):
        if is_on:
            flags |= flag
    return flags


def _compile(pattern: str, flags: re.RegexFlag) -> re.Pattern[str] | None:
    """The compiled pattern, None for one that is no regular expression: it matches nothing."""
    try:
        return re.compile(pattern, flags)
    except re.error:
        return None


class RegexMatch(_TextNode):
    """Whether a pattern occurs in a text."""

    RETURN_TYPES = ("BOOLEAN",)
    RETURN_NAMES = ("matches",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string": MULTILINE,
                "regex_pattern": MULTILINE,
                "case_insensitive": _switch(True),
                "multiline": _switch(False),
                "dotall": _switch(False),
            }
        }

    def execute(
        self, string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool
    ) -> tuple[bool]:
        """A pattern that is no regular expression occurs nowhere."""
        pattern = _compile(regex_pattern, _flags(case_insensitive, multiline, dotall))
        return (pattern is not None and pattern.search(string) is not None,)


class RegexExtract(_TextNode):
    """What a pattern matches."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string": MULTILINE,
                "regex_pattern": MULTILINE,
                "mode": _combo("First Match", "All Matches", "First Group", "All Groups"),
                "case_insensitive": _switch(True),
                "multiline": _switch(False),
                "dotall": _switch(False),
                "group_index": ("INT", {"default": 1, "min": 0, "max": 100}),
            }
        }

    def execute(
        self,
        string: str,
        regex_pattern: str,
        mode: str,
        case_insensitive: bool,
        multiline: bool,
        dotall: bool,
        group_index: int,
    ) -> tuple[str]:
        """The text of the match, several of them on lines of their own; empty where nothing matches.

        "All Matches" gives the first group of a pattern that has groups, as ComfyUI does. A group that took
        no part in its match counts as empty (ComfyUI 0.3.64 hands on None, or fails).
        """
        pattern = _compile(regex_pattern, _flags(case_insensitive, multiline, dotall))
        if pattern is None:
            return ("",)
        groups = {"First Match": 0, "All Matches": min(pattern.groups, 1)}
        groups.update({"First Group": group_index, "All Groups": group_index})
        if mode not in groups:
            return ("",)
        group = groups[mode]
        if group > pattern.groups or (mode == "All Groups" and pattern.groups == 0):
            return ("",)
        found = [match.group(group) or "" for match in pattern.finditer(string)]
        return (_MATCH_SEPARATOR.join(found[:1] if mode.startswith("First") else found),)


class RegexReplace(_TextNode):
    """Find and replace by a pattern."""

    DESCRIPTION = "Find and replace text using regex patterns."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        dotall_tooltip = (
            "When enabled, the dot (.) character will match any character including newline characters. "
            "When disabled, dots won't match newlines."
        )
        count_tooltip = (
            "Maximum number of replacements to make. Set to 0 to replace all occurrences (default). "
            "Set to 1 to replace only the first match, 2 for the first two matches, etc."
        )
        return {
            "required": {"string": MULTILINE, "regex_pattern": MULTILINE, "replace": MULTILINE},
            "optional": {
                "case_insensitive": _switch(True),
                "multiline": _switch(False),
                "dotall": ("BOOLEAN", {"tooltip": dotall_tooltip, "default": False}),
                "count": ("INT", {"tooltip": count_tooltip, "default": 0, "min": 0, "max": 100}),
            },
        }

    def execute(
        self,
        string: str,
        regex_pattern: str,
        replace: str,
        case_insensitive: bool = True,
        multiline: bool = False,
        dotall: bool = False,
        count: int = 0,
    ) -> tuple[str]:
        r"""``replace`` may name groups (``\1``); ``count`` 0 replaces all.

        Raises:
            re.error: pattern or replacement is no regular expression.
        """
        flags = _flags(case_insensitive, multiline, dotall)
        return (re.sub(regex_pattern, replace, string, count=count, flags=flags),)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "StringConcatenate": StringConcatenate,
    "StringSubstring": StringSubstring,
    "StringLength": StringLength,
    "CaseConverter": CaseConverter,
    "StringTrim": StringTrim,
    "StringReplace": StringReplace,
    "StringContains": StringContains,
    "StringCompare": StringCompare,
    "RegexMatch": RegexMatch,
    "RegexExtract": RegexExtract,
    "RegexReplace": RegexReplace,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "StringConcatenate": "Concatenate",
    "StringSubstring": "Substring",
    "StringLength": "Length",
    "CaseConverter": "Case Converter",
    "StringTrim": "Trim",
    "StringReplace": "Replace",
    "StringContains": "Contains",
    "StringCompare": "Compare",
    "RegexMatch": "Regex Match",
    "RegexExtract": "Regex Extract",
    "RegexReplace": "Regex Replace",
}
