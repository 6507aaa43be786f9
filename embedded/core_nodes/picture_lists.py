"""Core nodes that treat pictures one by one, as ComfyUI's data set nodes do: crop, resize, adjust, shuffle, arrange.

They come in two kinds. A node for one picture is called for each item of a list; of a batch it treats every image
alone. A node for a list takes all of it at once, every batch taken apart into single images ``[1, H, W, C]``. Many go
through 8-bit pixels, so values are cut off to 0..1 and rounded down to 1/255. Names, inputs and results are those of
ComfyUI 0.33.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .image_io import to_pillow, to_tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.nodes")

# A seed input; NumPy takes 32 bits of it.
SEED = ("INT", {"tooltip": "Random seed.", "default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF})
_LARGEST_SIDE = 8192


def generator_of(seed: int) -> np.random.RandomState:
    """NumPy's older generator: the one whose numbers ComfyUI's results come from, without its global state."""
    import numpy as np

    return np.random.RandomState(seed % (2**32 - 1))


def _whole_number(tooltip: str, default: int, lowest: int, largest: int, **more: Any) -> tuple[str, dict[str, Any]]:
    """An INT input."""
    return ("INT", {"tooltip": tooltip, **more, "default": default, "min": lowest, "max": largest})


class _PictureNode:
    """What all of them share."""

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("Processed images",)
    FUNCTION = "execute"
    EXPERIMENTAL = True
    # Inputs beside the images.
    _MORE_INPUTS: dict[str, tuple[str, dict[str, Any]]]
    _TOOLTIP: str

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE", {"tooltip": cls._TOOLTIP}), **cls._MORE_INPUTS}}


class _OnePicture(_PictureNode):
    """A node that treats each image alone."""

    OUTPUT_IS_LIST = (False,)
    _TOOLTIP = "Image to process."


class _PictureList(_PictureNode):
    """A node that takes a list at once and gives one."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST: tuple[bool, ...] = (True,)
    _TOOLTIP = "List of images to process."
    _MORE_INPUTS: dict[str, tuple[str, dict[str, Any]]] = {}  # noqa: RUF012 - never changed


def each(function: Callable[[Image.Image], Image.Image], images: Tensor) -> Tensor:
    """``function`` on every image of ``[B, H, W, C]``, as a batch.

    Raises:
        RuntimeError: the results differ in size, so make no batch.
    """
    import torch

    return torch.stack([to_tensor(function(to_pillow(image))) for image in images])


def singles(images: Sequence[Tensor]) -> list[Tensor]:
    """A list of batches as a list of images ``[1, H, W, C]``.

    Raises:
        ValueError: something is no batch of images.
    """
    for batch in images:
        if getattr(batch, "ndim", None) != 4:
            shape = getattr(batch, "shape", None)
            raise ValueError(
                f"Expected 4D image tensor, got {type(batch).__name__} shape {shape if shape is None else tuple(shape)}"
            )
    return [batch[index : index + 1] for batch in images for index in range(len(batch))]


# -- sizes -------------------------------------------------------------------------------------------------


class ResizeImagesByShorterEdge(_OnePicture):
    """Scale so that the shorter side has a given length."""

    DEPRECATED = True
    CATEGORY = "image/transform"
    DESCRIPTION = (
        "Resize images so that the shorter edge matches the specified dimension while preserving aspect ratio."
    )
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "shorter_edge": _whole_number("Target dimension for the shorter edge.", 512, 1, _LARGEST_SIDE)
    }

    def execute(self, images: Tensor, shorter_edge: int) -> tuple[Tensor]:
        """The other side follows, rounded down; with Pillow's Lanczos filter."""
        return (each(lambda picture: _with_edge(picture, shorter_edge, picture.width < picture.height), images),)


class ResizeImagesByLongerEdge(_OnePicture):
    """Scale so that the longer side has a given length."""

    DEPRECATED = True
    CATEGORY = "image/transform"
    DESCRIPTION = "Resize images so that the longer edge matches the specified dimension while preserving aspect ratio."
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "longer_edge": _whole_number("Target dimension for the longer edge.", 1024, 1, _LARGEST_SIDE)
    }

    def execute(self, images: Tensor, longer_edge: int) -> tuple[Tensor]:
        """The other side follows, rounded down; with Pillow's Lanczos filter."""
        return (each(lambda picture: _with_edge(picture, longer_edge, picture.width > picture.height), images),)


def _with_edge(picture: Image.Image, length: int, is_width: bool) -> Image.Image:
    """The picture scaled so that its width, or else its height, is ``length``."""
    from PIL import Image

    if is_width:
        size = (length, int(picture.height * (length / picture.width)))
    else:
        size = (int(picture.width * (length / picture.height)), length)
    return picture.resize(size, Image.Resampling.LANCZOS)


class CenterCropImages(_OnePicture):
    """The middle of an image."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Center crop an image to the specified dimensions."
    SEARCH_ALIASES = ("crop", "cut", "trim")
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "width": _whole_number("Crop width.", 512, 1, _LARGEST_SIDE),
        "height": _whole_number("Crop height.", 512, 1, _LARGEST_SIDE),
    }

    def execute(self, images: Tensor, width: int, height: int) -> tuple[Tensor]:
        """At most the whole image."""

        def crop(picture: Image.Image) -> Image.Image:
            left, top = max(0, (picture.width - width) // 2), max(0, (picture.height - height) // 2)
            return _cropped(picture, left, top, width, height)

        return (each(crop, images),)


class RandomCropImages(_OnePicture):
    """A piece of an image, somewhere."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Randomly crop an image to the specified dimensions."
    SEARCH_ALIASES = ("crop", "cut", "trim")
    _MORE_INPUTS = {**CenterCropImages._MORE_INPUTS, "seed": SEED}  # noqa: RUF012 - never changed

    def execute(self, images: Tensor, width: int, height: int, seed: int) -> tuple[Tensor]:
        """At most the whole image; the same place in images of one size."""

        def crop(picture: Image.Image) -> Image.Image:
            generator = generator_of(seed)
            # Nothing is drawn for a direction without a choice: it would change the other one's number.
            left, top = (
                int(generator.randint(0, free + 1)) if free > 0 else 0
                for free in (picture.width - width, picture.height - height)
            )
            return _cropped(picture, left, top, width, height)

        return (each(crop, images),)


def _cropped(picture: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    """As much of the rectangle as lies in the picture."""
    return picture.crop((left, top, min(picture.width, left + width), min(picture.height, top + height)))


# -- colours -----------------------------------------------------------------------------------------------


class NormalizeImages(_OnePicture):
    """Colours moved and stretched, as models want them."""

    CATEGORY = "image/color"
    DESCRIPTION = "Normalize images using mean and standard deviation."
    SEARCH_ALIASES = ("normalize", "normalize colors")
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "mean": (
            "FLOAT",
            {"tooltip": "Mean value for normalization.", "advanced": True, "default": 0.5, "min": 0.0, "max": 1.0},
        ),
        "std": (
            "FLOAT",
            {
                "tooltip": "Standard deviation for normalization.",
                "advanced": True,
                "default": 0.5,
                "min": 0.001,
                "max": 1.0,
            },
        ),
    }

    def execute(self, images: Tensor, mean: float, std: float) -> tuple[Tensor]:
        """``(images - mean) / std``: with the defaults, 0..1 becomes -1..1."""
        return ((images - mean) / std,)


def _factor(tooltip: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The one input of the adjustments."""
    return {"factor": ("FLOAT", {"tooltip": tooltip, "default": 1.0, "min": 0.0, "max": 2.0})}


class AdjustBrightness(_OnePicture):
    """Darker or brighter."""

    CATEGORY = "image/adjustments"
    DESCRIPTION = "Adjust the brightness of an image."
    SEARCH_ALIASES = ("brightness",)
    _MORE_INPUTS = _factor("Brightness factor. 1.0 = no change, <1.0 = darker, >1.0 = brighter.")

    def execute(self, images: Tensor, factor: float) -> tuple[Tensor]:
        """Every value times ``factor``, kept within 0..1."""
        return ((images * factor).clamp(0.0, 1.0),)


class AdjustContrast(_OnePicture):
    """Less or more contrast."""

    CATEGORY = "image/adjustments"
    DESCRIPTION = "Adjust the contrast of an image."
    SEARCH_ALIASES = ("contrast",)
    _MORE_INPUTS = _factor("Contrast factor. 1.0 = no change, <1.0 = less contrast, >1.0 = more contrast.")

    def execute(self, images: Tensor, factor: float) -> tuple[Tensor]:
        """Every value's distance to 0.5 times ``factor``, kept within 0..1."""
        return (((images - 0.5) * factor + 0.5).clamp(0.0, 1.0),)


# -- lists -------------------------------------------------------------------------------------------------


class ShuffleDataset(_PictureList):
    """A list in another order."""

    CATEGORY = "image/batch"
    DESCRIPTION = "Randomly shuffle the order of images in a list."
    SEARCH_ALIASES = ("shuffle", "randomize", "mix")
    _MORE_INPUTS = {"seed": SEED}  # noqa: RUF012 - never changed

    def execute(self, images: list[Tensor], seed: list[int]) -> tuple[list[Tensor]]:
        """The same order for a seed and a number of images everywhere."""
        pictures = singles(images)
        return ([pictures[index] for index in generator_of(seed[0]).permutation(len(pictures))],)


class ShuffleImageTextDataset:
    """A list of images and one of texts, in the same other order."""

    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True, True)
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "texts")
    OUTPUT_TOOLTIPS = ("Shuffled images", "Shuffled texts")
    FUNCTION = "execute"
    CATEGORY = "image/batch"
    DESCRIPTION = "Randomly shuffle the order of pairs of image-text in a list."
    SEARCH_ALIASES = ("shuffle", "randomize", "mix")
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        texts = {"tooltip": "List of texts to shuffle.", "forceInput": True, "multiline": False}
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "List of images to shuffle."}),
                "texts": ("STRING", texts),
                "seed": SEED,
            }
        }

    def execute(self, images: list[Tensor], texts: list[str], seed: list[int]) -> tuple[list[Tensor], list[str]]:
        """Items of both lists stay together; batches stay whole.

        Raises:
            IndexError: there are fewer texts than images.
        """
        order = generator_of(seed[0]).permutation(len(images))
        return [images[index] for index in order], [texts[index] for index in order]


class ImageDeduplication(_PictureList):
    """A list without images that look like an earlier one."""

    CATEGORY = "image/batch"
    DESCRIPTION = "Remove duplicate or very similar images from a list."
    SEARCH_ALIASES = ("deduplicate", "remove duplicates", "similarity filter")
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "similarity_threshold": (
            "FLOAT",
            {
                "tooltip": "Similarity threshold (0-1). Higher means more similar. Images above this threshold are "
                "considered duplicates.",
                "advanced": True,
                "default": 0.95,
                "min": 0.0,
                "max": 1.0,
            },
        )
    }

    def execute(self, images: list[Tensor], similarity_threshold: list[float]) -> tuple[list[Tensor]]:
        """Similarity is how many of 64 bits agree: which of 8 * 8 pixels are brighter than their mean."""
        pictures = singles(images)
        kept: list[tuple[Tensor, list[bool]]] = []
        for picture in pictures:
            bits = _brightness_bits(to_pillow(picture[0]))
            if not any(_similarity(bits, others) >= similarity_threshold[0] for _, others in kept):
                kept.append((picture, bits))
        logger.info("Deduplication: kept %d of %d images", len(kept), len(pictures))
        return ([picture for picture, _ in kept],)


def _brightness_bits(picture: Image.Image) -> list[bool]:
    """Which of a picture's 8 * 8 parts are brighter than the mean of all."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(picture.resize((8, 8), Image.Resampling.LANCZOS).convert("L"), dtype=np.float64).ravel()
    return [bool(bit) for bit in grey > grey.sum() / grey.size]


def _similarity(first: list[bool], second: list[bool]) -> float:
    """The share of equal bits; 1 of none at all."""
    return 1.0 - sum(one != other for one, other in zip(first, second, strict=True)) / len(first)


class ImageGrid(_PictureList):
    """All images of a list in rows and columns."""

    OUTPUT_IS_LIST = (False,)
    CATEGORY = "image/batch"
    DESCRIPTION = "Arrange multiple images into a grid layout."
    SEARCH_ALIASES = ("grid", "collage", "combine")
    _MORE_INPUTS = {  # noqa: RUF012 - never changed
        "columns": _whole_number("Number of columns in the grid.", 4, 1, 20),
        "cell_width": _whole_number("Width of each cell in the grid.", 256, 32, 2048, advanced=True),
        "cell_height": _whole_number("Height of each cell in the grid.", 256, 32, 2048, advanced=True),
        "padding": _whole_number("Padding between images.", 4, 0, 50, advanced=True),
    }

    def execute(
        self,
        images: list[Tensor],
        columns: list[int],
        cell_width: list[int],
        cell_height: list[int],
        padding: list[int],
    ) -> tuple[Tensor]:
        """One image ``[1, H, W, 3]``, black between the cells; every picture is stretched to its cell.

        Raises:
            ValueError: the list is empty.
        """
        from PIL import Image

        pictures = singles(images)
        if not pictures:
            raise ValueError("Cannot create grid from empty image list")
        across, cell, gap = columns[0], (cell_width[0], cell_height[0]), padding[0]
        down = -(-len(pictures) // across)
        size = (across * (cell[0] + gap) - gap, down * (cell[1] + gap) - gap)
        grid = Image.new("RGB", size)
        for index, picture in enumerate(pictures):
            row, column = divmod(index, across)
            resized = to_pillow(picture[0]).resize(cell, Image.Resampling.LANCZOS)
            grid.paste(resized, (column * (cell[0] + gap), row * (cell[1] + gap)))
        return (to_tensor(grid)[None],)


class MergeImageLists(_PictureList):
    """A list of images, taken apart."""

    DEPRECATED = True
    CATEGORY = "image/batch"
    DESCRIPTION = "Concatenate multiple image lists into one."
    SEARCH_ALIASES = ("list", "merge list", "make list")

    def execute(self, images: list[Tensor]) -> tuple[list[Tensor]]:
        """Every image of every batch."""
        return (singles(images),)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "ResizeImagesByShorterEdge": ResizeImagesByShorterEdge,
    "ResizeImagesByLongerEdge": ResizeImagesByLongerEdge,
    "CenterCropImages": CenterCropImages,
    "RandomCropImages": RandomCropImages,
    "NormalizeImages": NormalizeImages,
    "AdjustBrightness": AdjustBrightness,
    "AdjustContrast": AdjustContrast,
    "ShuffleDataset": ShuffleDataset,
    "ShuffleImageTextDataset": ShuffleImageTextDataset,
    "ImageDeduplication": ImageDeduplication,
    "ImageGrid": ImageGrid,
    "MergeImageLists": MergeImageLists,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ResizeImagesByShorterEdge": "Resize Images by Shorter Edge (DEPRECATED)",
    "ResizeImagesByLongerEdge": "Resize Images by Longer Edge (DEPRECATED)",
    "CenterCropImages": "Crop Image (Center)",
    "RandomCropImages": "Crop Image (Random)",
    "NormalizeImages": "Normalize Image Colors",
    "AdjustBrightness": "Adjust Brightness",
    "AdjustContrast": "Adjust Contrast",
    "ShuffleDataset": "Shuffle Images List",
    "ShuffleImageTextDataset": "Shuffle Pairs of Image-Text",
    "ImageDeduplication": "Deduplicate Images",
    "ImageGrid": "Make Image Grid",
    "MergeImageLists": "Merge Image Lists (DEPRECATED)",
}
