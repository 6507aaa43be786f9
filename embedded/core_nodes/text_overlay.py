"""The core node that draws text on images.

Name, inputs and results are those of ComfyUI 0.33.0; the font is Pillow's own there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .image_io import to_tensor

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from torch import Tensor

# How the text on images is set: distances as shares of a side, sizes as shares of the height.
_LINE_ADVANCE = 1.2
_MARGIN, _LEAST_FONT, _OUTLINE = 0.01, 0.02, 0.04
_LEAST_FONT_PIXELS = 10
_SHRINK = 0.9


class TextOverlay:
    """Text at the upper or lower edge of images."""

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "execute"
    CATEGORY = "text"
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


NODE_CLASS_MAPPINGS: dict[str, type] = {"TextOverlay": TextOverlay}

NODE_DISPLAY_NAME_MAPPINGS = {"TextOverlay": "Draw Text Overlay"}
