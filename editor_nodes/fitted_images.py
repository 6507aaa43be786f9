"""One image file, as an item of a batch: decoded, scaled and placed. Knows no ComfyUI.

Pixels are those of ComfyUI's LoadImage: float32 in 0..1, three channels, alpha dropped and not composited, upright as
EXIF says; the mask is 1 minus alpha. Of an animation or a file of several pages the first one counts. 16-bit greyscale
keeps its precision.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Pixels = np.ndarray[Any, np.dtype[np.float32]]

logger = logging.getLogger("discomfort.fitted_images")

PAD, CROP, STRETCH, REFUSE = SIZE_POLICIES = ("pad to fit", "crop to fill", "stretch", "error if they differ")
RESAMPLING = ("lanczos", "bicubic", "bilinear", "nearest")

#: files whose endings these formats own are not taken for images, and none is read as one: EPS would start Ghostscript,
#: the others need Windows or a plugin to show anything at all
_NO_PICTURES = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
_ORIENTATION = 0x0112


class Fitting(NamedTuple):
    """How images of several sizes become those of one batch."""

    # One of SIZE_POLICIES.
    policy: str = PAD
    # Pixels. 0: the first image's; if only one of them is 0, in proportion to the first image.
    width: int = 0
    height: int = 0
    # One of RESAMPLING.
    resampling: str = "lanczos"
    pad_colour: str = "black"


def _formats() -> tuple[str, ...]:
    """The formats that files are read as."""
    from PIL import Image

    Image.init()  # does nothing but the first time
    return tuple(name for name in Image.OPEN if name not in _NO_PICTURES)


def image_endings() -> frozenset[str]:
    """How names of image files end, lower case, with the dot: all formats that this Pillow and its plugins read."""
    from PIL import Image

    formats = set(_formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


class Unreadable(Exception):
    """Why a file is skipped."""


class Picture(NamedTuple):
    """A decoded image."""

    # Mode RGB, or F with values that belong into 0..1.
    colour: Image.Image
    # Mode L; None: opaque.
    alpha: Image.Image | None
    # Width and height that the file says, upright. The decoded image may be smaller, by a factor of 2, 4 or 8.
    size: tuple[int, int]


class _Placing(NamedTuple):
    """Which part of an image goes where."""

    # Left, top, right, bottom in the image.
    box: tuple[float, float, float, float]
    # Left, top, width, height in the batch.
    x: int
    y: int
    width: int
    height: int


def decode(path: Path, scale_of: Callable[[tuple[int, int]], float] | None = None) -> Picture:
    """Reads an image file.

    Args:
        scale_of: by how much an image of a size will be scaled. JPEGs that will be less than half as large are decoded
            at a fraction of their size, which takes a fraction of the time.

    Raises:
        Unreadable: no image, or a damaged one.
        MemoryError: too large.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_formats()) as image:
            size = None if scale_of is None else _decode_smaller(image, scale_of)
            ImageOps.exif_transpose(image, in_place=True)
            colour, alpha = _colour_and_alpha(image)
            return Picture(colour, alpha, size or colour.size)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes a decoder say: the file is reported, the rest goes on
        logger.debug("%s cannot be read", path, exc_info=True)
        raise Unreadable(_reason(path, error)) from error


def _decode_smaller(image: Image.Image, scale_of: Callable[[tuple[int, int]], float]) -> tuple[int, int] | None:
    """Lets a JPEG decoder leave out detail; what it gives is still twice as large as what will be used.

    Returns:
        The size that the image would have had, upright; None if it is decoded as it is.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    size = image.size
    is_turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    scale = scale_of(size[::-1] if is_turned else size)
    image.draft(None, (math.ceil(size[0] * scale * 2), math.ceil(size[1] * scale * 2)))
    if image.size == size:
        return None
    return size[::-1] if is_turned else size


def _colour_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    import numpy as np
    from PIL import Image

    image.load()
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image, dtype=np.float32) / np.float32(65535.0)), None
    if image.mode in ("RGB", "F") and "transparency" not in image.info:
        return image, None
    if "transparency" in image.info or {"A", "a"} & set(image.getbands()):
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return image.convert("RGB"), None


def _reason(path: Path, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        is_empty = path.exists() and path.stat().st_size == 0
        return "the file is empty" if is_empty else "not an image that Pillow can read"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def size_in_header(path: Path) -> tuple[int, int]:
    """Width and height, perhaps the other way round; (0, 0) if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=_formats()) as image:
            size: tuple[int, int] = image.size
    except Exception:  # reading it will say why
        return 0, 0
    return size


def scale_for(size: tuple[int, int], target: tuple[int, int], policy: str) -> float:
    """By how much an image is scaled; where the two directions differ, the larger one."""
    factors = (target[0] / size[0], target[1] / size[1])
    return min(factors) if policy == PAD else max(factors)


def _placing(size: tuple[int, int], target: tuple[int, int], policy: str) -> _Placing:
    """Where an image of a size goes in a frame of the target's size."""
    scale = scale_for(size, target, policy)
    if policy == CROP:
        width, height = (min(side, goal / scale) for side, goal in zip(size, target, strict=True))
        left, top = (size[0] - width) / 2, (size[1] - height) / 2
        if scale == 1:  # pixels stay what they are
            left, top = math.floor(left), math.floor(top)
        return _Placing((left, top, left + width, top + height), 0, 0, *target)
    whole = (0, 0, *size)
    if policy == PAD:
        width, height = (min(goal, max(1, round(side * scale))) for side, goal in zip(size, target, strict=True))
        return _Placing(whole, (target[0] - width) // 2, (target[1] - height) // 2, width, height)
    return _Placing(whole, 0, 0, *target)


def _resized(image: Image.Image, size: tuple[int, int], placing: _Placing, resampling: str) -> Image.Image:
    """The part of an image that is shown, in the size in which it is.

    Args:
        size: what the box of *placing* refers to.
    """
    from PIL import Image

    target = (placing.width, placing.height)
    left, top, right, bottom = placing.box
    if image.size == size and (right - left, bottom - top) == target and left == int(left) and top == int(top):
        return image if image.size == target else image.crop((int(left), int(top), int(right), int(bottom)))
    x, y = image.width / size[0], image.height / size[1]
    box = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
    return image.resize(target, Image.Resampling[resampling.upper()], box=box)


def write(colour: Image.Image, alpha: Image.Image | None, pixels: Pixels, mask: Pixels) -> None:
    """Into [H,W,3] and [H,W] of its size; a mask of an image without alpha is left as it is, zeros."""
    import numpy as np

    if colour.mode == "F":
        pixels[...] = np.clip(np.asarray(colour), 0.0, 1.0)[..., None]
    else:
        np.divide(np.asarray(colour), np.float32(255.0), out=pixels)
    if alpha is not None:
        np.divide(np.asarray(alpha), np.float32(255.0), out=mask)
        np.subtract(np.float32(1.0), mask, out=mask)


def write_fitted(picture: Picture, fitting: Fitting, colour: Sequence[float], pixels: Pixels, mask: Pixels) -> None:
    """Into [H,W,3] and [H,W] of another size; bars have the colour, and 1 in the mask: there is no picture."""
    target = (pixels.shape[1], pixels.shape[0])
    place = _placing(picture.size, target, fitting.policy)
    image = _resized(picture.colour, picture.size, place, fitting.resampling)
    alpha = picture.alpha and _resized(picture.alpha, picture.size, place, fitting.resampling)
    right, bottom = place.x + place.width, place.y + place.height
    for rows, columns in (
        (slice(0, place.y), slice(None)),
        (slice(bottom, None), slice(None)),
        (slice(place.y, bottom), slice(0, place.x)),
        (slice(place.y, bottom), slice(right, None)),
    ):
        pixels[rows, columns] = colour
        mask[rows, columns] = 1.0
    write(image, alpha, pixels[place.y : bottom, place.x : right], mask[place.y : bottom, place.x : right])


def parse_colour(text: str) -> tuple[float, float, float]:
    """Red, green and blue in 0..1 of a colour as CSS writes it.

    Raises:
        ValueError: none.
    """
    from PIL import ImageColor

    try:
        levels = ImageColor.getrgb(text.strip())
    except ValueError:
        raise ValueError(
            f"pad_colour: {text!r} is no colour. Write #ffffff, white, rgb(255, 255, 255) or hsl(0, 0%, 100%)."
        ) from None
    return levels[0] / 255, levels[1] / 255, levels[2] / 255


def check_words(fitting: Fitting) -> None:
    """Raises ValueError for a policy or a resampling that does not exist."""
    for what, word, known in (
        ("size_policy", fitting.policy, SIZE_POLICIES),
        ("resampling", fitting.resampling, RESAMPLING),
    ):
        if word not in known:
            raise ValueError(f"{what}: {word!r} is none of {', '.join(known)}.")
