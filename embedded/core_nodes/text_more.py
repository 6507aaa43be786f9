"""Core nodes that later versions of ComfyUI added for text: JSON, lists of texts, text files, text on images.

Names, inputs and results are those of ComfyUI 0.29.0.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .. import folder_paths
from .image_io import METADATA_INPUTS, to_tensor
from .text import MULTILINE

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from torch import Tensor


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

    What it hands on is a list of one text as one value, not the text: so does ComfyUI 0.29.0, whose declaration of
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

    def execute(self, texts: str) -> tuple[list[str]]:
        """All of them."""
        return ([texts.lower()],)


class TextToUppercase(_OneText):
    """Capital letters."""

    def execute(self, texts: str) -> tuple[list[str]]:
        """All of them."""
        return ([texts.upper()],)


class TruncateText(_OneText):
    """The beginning of a text."""

    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "max_length": ("INT", {"tooltip": "Maximum text length.", "default": 77, "min": 1, "max": 10000})
    }

    def execute(self, texts: str, max_length: int) -> tuple[list[str]]:
        """At most ``max_length`` characters."""
        return ([texts[:max_length]],)


class AddTextPrefix(_OneText):
    """Something before a text."""

    _MORE_INPUTS = {"prefix": _line("Prefix to add.", default="")}  # noqa: RUF012 - never changed

    def execute(self, texts: str, prefix: str) -> tuple[list[str]]:
        """``prefix``, then the text."""
        return ([prefix + texts],)


class AddTextSuffix(_OneText):
    """Something behind a text."""

    _MORE_INPUTS = {"suffix": _line("Suffix to add.", default="")}  # noqa: RUF012 - never changed

    def execute(self, texts: str, suffix: str) -> tuple[list[str]]:
        """The text, then ``suffix``."""
        return ([texts + suffix],)


class ReplaceText(_OneText):
    """Find and replace."""

    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "find": _line("Text to find.", default=""),
        "replace": _line("Text to replace with.", default=""),
    }

    def execute(self, texts: str, find: str, replace: str) -> tuple[list[str]]:
        """Every ``find`` becomes ``replace``."""
        return ([texts.replace(find, replace)],)


class StripWhitespace(_OneText):
    """A text without the white space at its ends."""

    def execute(self, texts: str) -> tuple[list[str]]:
        """Both ends."""
        return ([texts.strip()],)


class MergeTextLists(_OneText):
    """A list of texts as one value."""

    INPUT_IS_LIST = True
    _TOOLTIP = "List of texts to process."

    def execute(self, texts: list[str]) -> tuple[list[list[str]]]:
        """The list within a list, as ComfyUI has it."""
        return ([texts],)


# -- files and images --------------------------------------------------------------------------------------


class SaveText(_TextNode):
    """Save a text in the output folder."""

    RETURN_NAMES = ("text",)
    OUTPUT_NODE = True
    DESCRIPTION = "Save text content to a file in the output directory."
    SEARCH_ALIASES = ("save text", "write text", "export text")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        formats = {"default": "txt", "multiselect": False, "options": ["txt", "md", "json"]}
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
            ValueError: the prefix leads out of the folder.
            OSError: the file cannot be written.
        """
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


# How the text on images is set: distances as shares of a side, sizes as shares of the height.
_LINE_ADVANCE = 1.2
_MARGIN, _LEAST_FONT, _OUTLINE = 0.01, 0.02, 0.04
_LEAST_FONT_PIXELS = 10
_SHRINK = 0.9


class TextOverlay(_TextNode):
    """Text at the upper or lower edge of images."""

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    DESCRIPTION = "Draw text overlay on an image or batch of images."
    SEARCH_ALIASES = ("text", "label", "caption", "subtitle", "watermark", "title", "addlabel", "overlay")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {
            "tooltip": "Font size as a percentage of the image height.",
            "default": 5.0,
            "min": 0.5,
            "max": 50.0,
            "step": 0.5,
        }
        color = {"tooltip": "Color of the text.", "default": "#ffffff", "socketless": True}
        outline = {"tooltip": "Draw a black outline around the text.", "default": True}
        aligns = ["left", "center", "right"]
        return {
            "required": {
                "images": ("IMAGE", {}),
                "text": ("STRING", {"default": "", "multiline": True}),
                "font_size": ("FLOAT", size),
                "color": ("COLOR", color),
                "position": ("COMBO", {"default": "top", "multiselect": False, "options": ["top", "bottom"]}),
                "align": ("COMBO", {"default": "left", "multiselect": False, "options": aligns}),
                "outline": ("BOOLEAN", outline),
            }
        }

    def execute(
        self,
        images: Tensor,
        text: str,
        font_size: float,
        color: str,
        position: str,
        align: str,
        outline: bool,
    ) -> tuple[Tensor]:
        r"""The same text on every image ``[B, H, W, 3]``, in Pillow's own font.

        Args:
            text: ``\n`` and ``\t`` in it stand for a new line and a tabulator; of white space alone, nothing is drawn.
            font_size: in percent of the height. Text that is too high for the image becomes smaller, down to 2 % or
                10 pixels.
            color: a name or ``#rrggbb`` or another form Pillow knows, also with alpha.

        Raises:
            ValueError: the colour is unknown.
        """
        from PIL import Image, ImageColor, ImageDraw

        if not text.strip():
            return (images,)
        height, width = images.shape[1:3]
        layer = Image.new("RGBA", (width, height))
        fill = ImageColor.getrgb(color)
        block = _Block(ImageDraw.Draw(layer), text.replace("\\n", "\n").replace("\\t", "\t"), width, height, outline)
        block.fit(font_size)
        block.draw(fill if len(fill) == 4 else (*fill, 255), position, align)
        overlay = to_tensor(layer).to(images)
        alpha = overlay[..., 3:]
        return (images * (1.0 - alpha) + overlay[..., :3] * alpha,)


class _Block:
    """Text being set in an area of ``width`` * ``height`` pixels."""

    def __init__(self, draw: ImageDraw, text: str, width: int, height: int, has_outline: bool) -> None:
        self._draw, self._text, self._has_outline = draw, text, has_outline
        self._width, self._height = width, height
        self._margin = round(_MARGIN * min(width, height))

    def fit(self, percent: float) -> None:
        """Choose the largest font, from ``percent`` of the height downwards, with which the text is not too high."""
        size = max(1, round(percent / 100.0 * self._height))
        lowest = min(size, max(_LEAST_FONT_PIXELS, round(_LEAST_FONT * self._height)))
        self._set(size)
        while self._box[3] - self._box[1] > max(1, self._height - 2 * self._margin) and size > lowest:
            size = max(lowest, int(size * _SHRINK))
            self._set(size)

    def _set(self, size: int) -> None:
        """Break the text into lines in a font of ``size`` pixels, and measure it."""
        from PIL import ImageFont

        # FreeType's variant: without a size it would be the old bitmap font.
        font: Any = ImageFont.load_default(size=size)
        self._stroke = max(1, round(size * _OUTLINE)) if self._has_outline else 0
        self._lines = "\n".join(wrap(self._text, font, max(1, self._width - 2 * self._margin)))
        one = self._draw.textbbox((0, 0), "Ay", font=font, stroke_width=self._stroke)
        two = self._draw.multiline_textbbox((0, 0), "Ay\nAy", font=font, spacing=0, stroke_width=self._stroke)
        advance = (two[3] - two[1]) - (one[3] - one[1])
        self._options: dict[str, Any] = {
            "font": font,
            "spacing": round(size * _LINE_ADVANCE - advance),
            "stroke_width": self._stroke,
        }
        self._box = self._draw.multiline_textbbox((0, 0), self._lines, **self._options)

    def draw(self, fill: tuple[int, ...], position: str, align: str) -> None:
        """Draw it in a colour, flush with the margin at the ``top`` or ``bottom``."""
        anchor, x = {
            "left": ("l", float(self._margin)),
            "center": ("m", self._width / 2),
            "right": ("r", float(self._width - self._margin)),
        }[align]
        is_below = position == "bottom"
        y = self._height - self._margin - self._box[3] if is_below else self._margin - self._box[1]
        outline = (0, 0, 0, 255 if self._has_outline else 0)
        self._draw.multiline_text(
            (x, y), self._lines, fill=fill, anchor=f"{anchor}a", align=align, stroke_fill=outline, **self._options
        )


def wrap(text: str, font: FreeTypeFont, width: float) -> list[str]:
    """The lines of a text, none wider than ``width`` pixels unless it is one character; spaces in a row become one."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            rest = word
            while font.getlength(rest) > width and len(rest) > 1:
                lines += [line] if line else []
                length = _fitting_length(rest, font, width)
                lines.append(rest[:length])
                line, rest = "", rest[length:]
            longer = f"{line} {rest}" if line else rest
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = rest
            line = longer
        if line or not paragraph.split():
            lines.append(line)
    return lines


def _fitting_length(word: str, font: FreeTypeFont, width: float) -> int:
    """How many characters of a word fit, at least one."""
    length = 1
    while length < len(word) and font.getlength(word[: length + 1]) <= width:
        length += 1
    return length


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
    "TextOverlay": TextOverlay,
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
    "TextOverlay": "Draw Text Overlay",
}
