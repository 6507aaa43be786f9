"""Makes examples/photos/: four landscapes that are drawn, not taken, so that they belong to nobody else.

    ./dev run python tools/make_photos.py [FOLDER]

The examples and the docs use them wherever a photograph is needed. The same numbers are drawn every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "photos"
# Of the files, in pixels; they are drawn twice as large, which smooths every edge.
WIDTH, HEIGHT = 768, 512
W, H = 2 * WIDTH, 2 * HEIGHT
# Bytes of a file.
LIMIT = 80_000

Array = np.ndarray[Any, Any]

# Coordinates of every pixel: x from 0 (left) to 1.5 (right), y from 0 (top) to 1 (bottom).
Y, X = np.mgrid[0:H, 0:W].astype(np.float32) / H


def colour(text: str) -> Array:
    """ "#rrggbb" as three numbers in 0..1."""
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def smooth(low: float, high: float, value: Array) -> Array:
    """0 below *low*, 1 above *high*, and a soft step between them."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def mix(picture: Array, tint: Array, weight: Array) -> Array:
    """The picture with a colour over it; *weight* [H,W] in 0..1 says how much."""
    return np.asarray(picture + (tint - picture) * weight[..., None])


def gradient(stops: list[tuple[float, str]], along: Array) -> Array:
    """Colours [H,W,3] that go from stop to stop as *along* grows."""
    places = [place for place, _ in stops]
    tints = np.stack([colour(text) for _, text in stops])
    return np.stack([np.interp(along, places, tints[:, i]) for i in range(3)], axis=-1).astype(np.float32)


def noise(seed: int, columns: int, rows: int, octaves: int = 5) -> Array:
    """Cloudy noise [H,W] in 0..1: random grids, each twice as fine and half as strong as the one before."""
    random = np.random.default_rng(seed)
    total, strength = np.zeros((H, W), np.float32), 1.0
    for octave in range(octaves):
        grid = random.random((rows * 2**octave + 1, columns * 2**octave + 1)).astype(np.float32)
        total += strength * np.asarray(Image.fromarray(grid).resize((W, H), Image.Resampling.BICUBIC))
        strength *= 0.5
    return np.asarray((total - total.min()) / (total.max() - total.min()))


def ridge(seed: int, height: float, roughness: float, bumps: int) -> Array:
    """A line of hills [W]: the y of its upper edge, *height* at the middle, going up and down by *roughness*."""
    random = np.random.default_rng(seed)
    line, strength = np.zeros(W, np.float32), 1.0
    for octave in range(8):
        points = random.random(bumps * 2**octave + 2)
        line += strength * np.interp(np.linspace(0, len(points) - 1, W), np.arange(len(points)), points)
        strength *= 0.47
    line = (line - line.mean()) / (line.max() - line.min())
    return np.asarray(height - roughness * line)


def below(line: Array, softness: float = 0.0015) -> Array:
    """1 [H,W] below a line of hills, 0 above it."""
    return smooth(-softness, softness, Y - line[None, :])


def glow(x: float, y: float, size: float) -> Array:
    """Light [H,W] around a point, 1 there and less with the distance."""
    return np.asarray(np.exp(-np.hypot(X - x, Y - y) / size))


def stamp(draw: Callable[[ImageDraw.ImageDraw], None], blur: float = 0) -> Array:
    """A mask [H,W] in 0..1 of what *draw* draws, in pixels of the large picture."""
    image = Image.new("L", (W, H))
    draw(ImageDraw.Draw(image))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255


def trees(seed: int, line: Array, count: int, tallest: float) -> Array:
    """A mask of firs that stand on a line of hills."""
    random = np.random.default_rng(seed)

    def draw(canvas: ImageDraw.ImageDraw) -> None:
        for x in np.sort(random.random(count)) * W:
            foot = line[min(int(x), W - 1)] * H + 8
            tall = H * tallest * (0.45 + 0.55 * random.random())
            for level in range(9):  # tiers of branches, the upper ones narrower
                top, wide = foot - tall * (1 - level / 9.5), tall * (0.03 + 0.022 * level)
                canvas.polygon(
                    [(x, top - tall * 0.1), (x - wide, top + tall * 0.09), (x + wide, top + tall * 0.09)], 255
                )
            canvas.line([(x, foot - tall), (x, foot)], 255, 3)

    return stamp(draw)


def mountains() -> Array:
    """Ridge behind ridge at dusk, with fog in the valleys and firs in front."""
    picture = gradient([(0, "#2b3a67"), (0.22, "#6a5a8c"), (0.4, "#d98a86"), (0.52, "#f9c58d"), (0.62, "#fde4b0")], Y)
    clouds = smooth(0.5, 0.85, noise(11, 3, 9)) * smooth(0.5, 0.1, Y)
    picture = mix(picture, colour("#f2a48f"), 0.5 * clouds)
    picture = mix(picture, colour("#fff3d0"), 0.75 * glow(0.98, 0.47, 0.16))
    picture = mix(picture, colour("#fffbe8"), smooth(0.036, 0.032, np.hypot(X - 0.98, Y - 0.47)))
    layers = [
        (21, 0.50, 0.20, 3, "#b98a9c", 0.55),
        (22, 0.57, 0.20, 4, "#8d7095", 0.6),
        (23, 0.66, 0.18, 4, "#5f5684", 0.6),
        (24, 0.76, 0.16, 5, "#3c3d69", 0.5),
        (25, 0.87, 0.12, 4, "#22284a", 0.25),
    ]
    for seed, height, roughness, bumps, tint, fog in layers:
        line = ridge(seed, height, roughness, bumps)
        body = below(line)
        depth = Y - line[None, :]
        shade = 0.08 * (noise(seed + 50, 10, 14) - 0.5)
        picture = mix(picture, colour(tint), body) + (shade * body)[..., None]
        mist = smooth(0.03, 0.2, depth) * (0.5 + 0.5 * noise(seed + 70, 3, 8))
        picture = mix(picture, colour("#f3c7ae"), fog * mist * body)
    front = ridge(29, 0.96, 0.09, 3)
    picture = mix(picture, colour("#10152b"), np.maximum(below(front), trees(30, front, 75, 0.17)))
    return picture


def sea() -> Array:
    """The sun above the sea, in the evening: clouds, and its light on the waves."""
    horizon, sun = 0.56, 0.62
    picture = gradient([(0, "#35507f"), (0.25, "#7d7ba8"), (0.42, "#e79a7b"), (0.52, "#ffc978"), (0.56, "#ffe2a0")], Y)
    clouds = smooth(0.48, 0.75, noise(41, 3, 12, 6)) * smooth(0.54, 0.25, Y)
    lit = smooth(0.9, 0.1, np.hypot(X - sun, Y - 0.5))
    picture = mix(picture, colour("#5c4a6e"), 0.55 * clouds * (1 - lit))
    picture = mix(picture, colour("#ffb38a"), 0.8 * clouds * lit)
    picture = mix(picture, colour("#ffe9b8"), 0.8 * glow(sun, 0.46, 0.12))
    picture = mix(picture, colour("#fffdf0"), smooth(0.05, 0.046, np.hypot(X - sun, Y - 0.46)))

    # Waves are noise that is squeezed towards the horizon, as perspective does.
    depth = np.clip((Y - horizon) / (1 - horizon), 1e-3, 1)
    far = np.log(depth + 0.03)
    random = np.random.default_rng(43)
    waves = np.zeros((H, W), np.float32)
    for _ in range(60):
        across, down, phase = random.normal(0, 14), random.uniform(25, 75), random.uniform(0, 6.3)
        waves += np.sin((X - 0.75) * across / (depth + 0.12) + far * down + phase)
    waves = np.asarray(waves / 8 + 0.35 * (noise(44, 24, 110, 3) - 0.5))
    water = gradient([(0, "#e9a57f"), (0.08, "#a98197"), (0.3, "#56638f"), (0.7, "#2c4069"), (1, "#1b2c50")], depth)
    water = mix(water, colour("#f2b48c"), 0.4 * smooth(0.2, 1.4, waves))
    water = mix(water, colour("#16243f"), 0.35 * smooth(0.1, 1.3, -waves))
    wide = 0.05 + 0.16 * depth
    path = np.exp(-(((X - sun) / wide) ** 2))
    water = mix(water, colour("#ffe6a8"), path * smooth(-0.1, 0.7, waves) * (0.95 - 0.35 * depth))
    water = mix(water, colour("#ffd08a"), 0.35 * path)
    picture = np.where((horizon < Y)[..., None], water, picture)
    coast = ridge(47, horizon - 0.012, 0.06, 4)
    coast = coast + 0.2 * np.linspace(-0.28, 0.9, W).clip(0, 1) ** 0.6  # sinks into the sea to the right
    picture = mix(picture, colour("#4d4468"), below(coast) * (horizon > Y))

    def boat(canvas: ImageDraw.ImageDraw) -> None:
        x, y = 0.95 * H, 0.648 * H
        canvas.polygon([(x - 46, y - 10), (x + 50, y - 10), (x + 34, y + 10), (x - 34, y + 10)], 255)
        canvas.polygon([(x + 4, y - 118), (x + 4, y - 16), (x + 48, y - 16)], 255)
        canvas.polygon([(x - 2, y - 100), (x - 2, y - 16), (x - 36, y - 16)], 255)

    picture = mix(picture, colour("#2b2440"), 0.95 * stamp(boat, 1))
    return picture


def night() -> Array:
    """Stars, the Milky Way and the moon over hills and a lake."""
    shore = 0.70
    picture = gradient([(0, "#050a1c"), (0.35, "#0e1b3d"), (0.6, "#223a66"), (0.72, "#41608a")], Y)
    along = (X - 0.1) * 0.72 + (0.75 - Y)  # across the band of the Milky Way
    band = np.exp(-(((along - 0.55 + 0.06 * (noise(61, 3, 3) - 0.5)) / 0.14) ** 2))
    dust = noise(62, 7, 6, 6)
    picture = mix(picture, colour("#8f8fc4"), 0.42 * band * smooth(0.2, 0.8, dust) * smooth(0.75, 0.45, Y))
    picture = mix(picture, colour("#e8c9c0"), 0.16 * band**3 * smooth(0.4, 0.9, noise(63, 9, 8, 5)))

    random = np.random.default_rng(64)
    stars = np.zeros((H, W), np.float32)
    for size, count in ((0, 2600), (1, 420), (2, 60)):
        x, y = random.integers(4, W - 4, count), random.integers(4, int(shore * H), count)
        keep = random.random(count) < 0.35 + 0.65 * band[y, x]
        for one, (px, py) in enumerate(zip(x[keep], y[keep], strict=True)):
            light = 0.45 + 0.55 * ((one * 7919) % 97) / 97
            stars[py - size : py + size + 1, px - size : px + size + 1] = light
    soft = Image.fromarray(stars * 255).convert("L").filter(ImageFilter.GaussianBlur(1.1))
    picture = picture + (1.25 * np.asarray(soft, np.float32) / 255)[..., None] * colour("#f4f2ff")

    moon = np.hypot(X - 1.18, Y - 0.2)
    picture = mix(picture, colour("#b9c6e8"), 0.55 * np.exp(-moon / 0.1))
    disc = smooth(0.056, 0.053, moon)
    seas = 0.16 * smooth(0.45, 0.7, noise(66, 26, 18, 3))
    picture = mix(picture, colour("#f6f1de"), disc) - (disc * seas)[..., None]

    for seed, height, roughness, tint in ((71, 0.60, 0.13, "#1d2f52"), (72, 0.655, 0.09, "#101d38")):
        picture = mix(picture, colour(tint), below(ridge(seed, height, roughness, 4)))
    firs = ridge(73, shore + 0.012, 0.02, 5)
    picture = mix(picture, colour("#060c1a"), np.maximum(below(firs), trees(74, firs, 130, 0.085)))

    # The lake is what is above it, upside down, darker, and moved about by ripples.
    depth = np.clip((Y - shore - 0.015) / 0.285, 0, 1)
    ripple = np.sin(Y * 330 + 5 * noise(75, 12, 40, 3)) * (0.001 + 0.006 * depth)
    source_y = np.clip((2 * (shore + 0.015) - Y) * H, 0, H - 1).astype(int)
    source_x = np.clip((X + ripple) * H, 0, W - 1).astype(int)
    lake = mix(picture[source_y, source_x], colour("#0a1630"), 0.28 + 0.3 * depth)
    shimmer = np.exp(-(((X - 1.18) / (0.02 + 0.06 * depth)) ** 2)) * smooth(
        0.1, 0.9, np.sin(Y * 420 + 9 * noise(76, 30, 70, 2))
    )
    lake = mix(lake, colour("#dfe4f2"), 0.5 * shimmer)
    return np.where((shore + 0.015 < Y)[..., None], lake, picture)


def meadow() -> Array:
    """Rows of tulips up to the horizon, a white sky, a mill far away."""
    horizon = 0.42
    picture = gradient([(0, "#4f93d2"), (0.25, "#8fc0e8"), (0.42, "#dcebf2")], Y)
    clouds = smooth(0.52, 0.8, noise(81, 4, 9, 6)) * smooth(0.44, 0.3, Y)
    under = smooth(0.5, 0.8, np.roll(noise(81, 4, 9, 6), -24, axis=0))
    picture = mix(picture, colour("#ffffff"), 0.92 * clouds)
    picture = mix(picture, colour("#b7c9dc"), 0.35 * clouds * under)
    for seed, height, tint in ((83, 0.405, "#9db8c4"), (84, 0.417, "#7fa088")):
        picture = mix(picture, colour(tint), below(ridge(seed, height, 0.03, 6)))

    depth = np.clip(Y - horizon, 1e-4, 1)
    row = (X - 0.82) / depth * 1.15 + 0.4  # rows of equal width that meet at one point of the horizon
    number, place = np.floor(row), row - np.floor(row)
    far = 0.04 / (depth + 0.04)
    soil = gradient([(0, "#5b7a3a"), (1, "#3f5d2a")], np.clip(depth * 2, 0, 1))
    field = soil - 0.05 * (noise(85, 60, 80, 3) - 0.5)[..., None]
    tints = [colour(t) for t in ("#e0325a", "#ffb52e", "#f36f9b", "#a23bb0", "#fff0e4", "#f2552c")]
    petals = np.stack([tints[i] for i in range(6)])[(number.astype(int) * 5 + 60) % 6]
    bed = smooth(0.05, 0.14, place) * smooth(0.80, 0.71, place)
    field = (
        field
        + (petals * (0.8 + 0.35 * noise(86, 20, 24, 4)[..., None]) - field) * (bed * (0.75 + 0.2 * far))[..., None]
    )

    # Blossoms, each smaller the farther away it stands; the farthest ones first.
    random = np.random.default_rng(87)
    image = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    distances = np.concatenate([0.012 / random.uniform(0.05, 1, 12000), random.uniform(0.09, 0.64, 6500)])
    for d in np.sort(distances):
        x, y = random.random() * W, (horizon + d) * H
        where = (x / H - 0.82) / d * 1.15 + 0.4
        if not 0.06 < where - np.floor(where) < 0.79:
            continue
        size = 0.6 + 20 * d
        petal = tints[(int(np.floor(where)) * 5 + 60) % 6] * (0.72 + 0.38 * random.random())
        light, dark = (tuple(int(255 * min(1.0, v * f)) for v in petal) for f in (1.12, 0.72))
        canvas.line([(x, y), (x, y + 2.6 * size)], (58, 104, 44), max(1, int(size / 5)))
        canvas.ellipse([x - size, y - 1.5 * size, x + size, y + size], dark)
        canvas.ellipse([x - 0.95 * size, y - 1.5 * size, x + 0.35 * size, y + 0.8 * size], light)
    field = np.asarray(image, np.float32) / 255
    field = mix(field, colour("#cfdcd8"), 0.55 * far**2)
    picture = np.where((horizon < Y)[..., None], field, picture)

    def mill(canvas: ImageDraw.ImageDraw) -> None:
        x, y = 0.36 * H, horizon * H
        canvas.polygon([(x - 26, y + 6), (x + 26, y + 6), (x + 15, y - 84), (x - 15, y - 84)], 255)
        canvas.pieslice([x - 18, y - 106, x + 18, y - 66], 180, 360, 255)
        for turn in range(4):
            angle = np.pi * (turn / 2 + 0.16)
            dx, dy = np.cos(angle), np.sin(angle)
            tip = (x + 74 * dx, y - 90 + 74 * dy)
            canvas.line([(x, y - 90), tip], 255, 4)
            start = (x + 22 * dx, y - 90 + 22 * dy)
            side = (-12 * dy, 12 * dx)
            canvas.polygon(
                [start, tip, (tip[0] + side[0], tip[1] + side[1]), (start[0] + side[0], start[1] + side[1])], 150
            )

    return mix(picture, colour("#54423f"), 0.9 * stamp(mill, 0.8))


PHOTOS: dict[str, Callable[[], Array]] = {"meadow": meadow, "mountains": mountains, "night": night, "sea": sea}


def finish(picture: Array, seed: int) -> Image.Image:
    """What a camera adds: darker corners and a little grain; and the size of the file."""
    picture = picture * (1 - 0.16 * smooth(0.55, 1.0, np.hypot(X - 0.75, Y - 0.5)))[..., None]
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    small = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), np.float32)
    grain = np.random.default_rng(seed).normal(0, 1.6, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(small + grain, 0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    """As good as fits into the limit."""
    for quality in range(90, 30, -3):
        image.save(path, "JPEG", quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= LIMIT:
            return


def main(folder: Path) -> None:
    """Draw all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, draw) in enumerate(PHOTOS.items()):
        save(finish(draw(), seed), folder / f"{name}.jpg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
