"""Draws the icon and the banner of the Comfy Registry: a loop through three ports.

``./dev run python tools/make_icon.py`` writes docs/images/icon.png (400 x 400) and docs/images/banner.png (1680 x 720,
21:9). The same pixels every time: no random numbers, and no fonts but the one that comes with Pillow.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

BACKGROUND = (27, 30, 38)
GRID = (37, 41, 51)
WIRE = (236, 178, 92)
PORTS = ((122, 190, 255), (236, 178, 92), (134, 214, 160))
TEXT = (240, 240, 236)
FAINT = (160, 166, 178)

# Everything is drawn this many times larger and made smaller at the end, for smooth edges.
SCALE = 4


def draw_loop(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    """A ring of wire, open at its right side with an arrow head, and three ports on it.

    Args:
        x, y: The ring's centre.
        radius: Of the ring; its wire is a seventh of that wide.
    """
    width = radius / 7
    first, last = 20, 322  # degrees, clockwise from three o'clock
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.arc(box, first, last, fill=WIRE, width=round(width))
    # The wire lies within the box; its middle is half of its width further in.
    middle = radius - width / 2
    angle = math.radians(last)
    tip = (x + middle * math.cos(angle), y + middle * math.sin(angle))
    along = (-math.sin(angle), math.cos(angle))
    across = (math.cos(angle), math.sin(angle))
    size = width * 1.7
    draw.polygon(
        [
            (tip[0] + along[0] * size * 1.5, tip[1] + along[1] * size * 1.5),
            (tip[0] + across[0] * size, tip[1] + across[1] * size),
            (tip[0] - across[0] * size, tip[1] - across[1] * size),
        ],
        fill=WIRE,
    )
    for degrees, colour in zip((first, 125, 232), PORTS, strict=True):
        turn = math.radians(degrees)
        spot = (x + middle * math.cos(turn), y + middle * math.sin(turn))
        for size, fill in ((radius / 4.2, BACKGROUND), (radius / 5.6, colour), (radius / 14, BACKGROUND)):
            draw.ellipse((spot[0] - size, spot[1] - size, spot[0] + size, spot[1] + size), fill=fill)


def icon(side: int = 400) -> Image.Image:
    """The icon: the loop on a dark square with round corners."""
    large = side * SCALE
    picture = Image.new("RGBA", (large, large), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, large - 1, large - 1), radius=large * 0.18, fill=BACKGROUND)
    draw_loop(draw, large * 0.5, large * 0.5, large * 0.31)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def banner(width: int = 1680) -> Image.Image:
    """The banner: the loop, the name and what it does, on the grid of an editor."""
    height = width * 9 // 21
    large = (width * SCALE, height * SCALE)
    picture = Image.new("RGB", large, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    step = large[1] // 12
    for x in range(step, large[0], step):
        draw.line((x, 0, x, large[1]), fill=GRID, width=SCALE)
    for y in range(step, large[1], step):
        draw.line((0, y, large[0], y), fill=GRID, width=SCALE)
    draw_loop(draw, large[0] * 0.2, large[1] * 0.5, large[1] * 0.27)
    left = large[0] * 0.36
    draw.text((left, large[1] * 0.42), "Discomfort", fill=TEXT, font=_font(large[1] * 0.2), anchor="lm")
    lines = "ComfyUI workflows from Python:\nloops, decisions and state"
    draw.text((left, large[1] * 0.565), lines, fill=FAINT, font=_font(large[1] * 0.07), spacing=large[1] * 0.028)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, in pixels."""
    return ImageFont.load_default(size)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, picture in (("icon.png", icon()), ("banner.png", banner())):
        # A palette makes the file a third as large; the icon keeps its transparent corners.
        picture.quantize(128, method=Image.Quantize.FASTOCTREE).save(IMAGES / name, optimize=True)
        print(f"{IMAGES / name}: {picture.width} x {picture.height}, {(IMAGES / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
