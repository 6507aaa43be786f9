"""Core nodes that read whole folders of pictures, with or without captions, and write them.

A caption is a text file beside its picture, of the same name but for the ending ``.txt``. Pictures in a folder named
``<number>_<anything>`` count that many times where captions are read. Names, inputs and results are those of ComfyUI
0.3.64, and of 0.33.0 for the nodes that later versions added.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from .. import folder_paths
from .image_io import METADATA_INPUTS, in_8_bits, open_picture, to_pillow, to_tensor

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

logger = logging.getLogger("discomfort.embedded.nodes")

_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_SEARCH_FOR_LOADING = ("load folder", "load from folder", "load dataset", "load images", "import dataset")


# -- reading -----------------------------------------------------------------------------------------------


class LoadImageSetFromFolderNode:
    """The pictures of a folder as one batch."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "load_images"
    CATEGORY = "loaders"
    EXPERIMENTAL = True
    DESCRIPTION = "Loads a batch of images from a directory for training."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folders = (folder_paths.get_input_subfolders(), {"tooltip": "The folder to load images from."})
        methods = (["None", "Stretch", "Crop", "Pad"], {"default": "None"})
        return {"required": {"folder": folders}, "optional": {"resize_method": methods}}

    def load_images(self, folder: str, resize_method: str = "None") -> tuple[Tensor]:
        """RGB ``[B, H, W, 3]``, each picture brought to the size of the first one.

        Args:
            folder: below the input folder.
            resize_method: ``Stretch`` and ``Pad`` scale (they are the same in ComfyUI too), ``Crop`` takes the left
                upper corner, filled up with black, ``None`` refuses another size.

        Raises:
            ValueError: no pictures are there, or one has another size.
            OSError: the folder is missing, or a file is no picture.
        """
        import torch

        directory = _input_subfolder(folder)
        batch: list[Tensor] = []
        size: tuple[int, int] | None = None
        for path in _pictures_in(directory, os.listdir(directory)):
            picture = _rgb(path)
            size = size or picture.size
            batch.append(to_tensor(_resized(picture, size, resize_method)))
        return (torch.stack(batch),)


def _resized(picture: Image.Image, size: tuple[int, int], method: str) -> Image.Image:
    """A picture of the size of the first one, by a method of the widget."""
    from PIL import Image

    if picture.size == size:
        return picture
    if method in ("Stretch", "Pad"):
        return picture.resize(size, Image.Resampling.LANCZOS)
    if method == "Crop":
        return picture.crop((0, 0, *size))
    raise ValueError(
        "Your input image size does not match the first image in the dataset. Either select a valid resize method or "
        "use the same size for all images."
    )


class LoadImageDataSetFromFolder:
    """The pictures of a folder as a list."""

    OUTPUT_IS_LIST = (True,)
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("List of loaded images",)
    FUNCTION = "execute"
    CATEGORY = "image"
    EXPERIMENTAL = True
    DESCRIPTION = (
        "Load a dataset of images from a specified folder and return a list of images. Supported formats: PNG, JPG, "
        "JPEG, WEBP."
    )
    SEARCH_ALIASES = _SEARCH_FOR_LOADING

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"folder": _folder_input("The folder to load images from.")}}

    def execute(self, folder: str) -> tuple[list[Tensor]]:
        """RGB ``[1, H, W, 3]`` each, in the order of the file system.

        Raises:
            ValueError: no pictures are there.
            OSError: the folder is missing, or a file is no picture.
        """
        directory = _input_subfolder(folder)
        return ([to_tensor(_rgb(path))[None] for path in _pictures_in(directory, os.listdir(directory))],)


class LoadImageTextDataSetFromFolder:
    """The pictures of a folder and its subfolders as a list, and their captions as another."""

    OUTPUT_IS_LIST = (True, True)
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "texts")
    OUTPUT_TOOLTIPS = ("List of loaded images", "List of text captions")
    FUNCTION = "execute"
    CATEGORY = "image"
    EXPERIMENTAL = True
    DESCRIPTION = (
        "Load a dataset of pairs of images and text captions from a specified folder and return them as a list. "
        "Supported formats: PNG, JPG, JPEG, WEBP."
    )
    SEARCH_ALIASES = _SEARCH_FOR_LOADING

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"folder": _folder_input("The folder to load images and text captions from.")}}

    def execute(self, folder: str) -> tuple[list[Tensor], list[str]]:
        """A caption is stripped of the white space around it; a picture without one has an empty text.

        Raises:
            ValueError: no pictures are there.
            OSError: the folder is missing, or a file is no picture.
        """
        directory = _input_subfolder(folder)
        paths: list[str] = []
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.lower().endswith(_PICTURE_ENDINGS):
                paths.append(path)
            elif os.path.isdir(path):
                inside = [os.path.join(path, file) for file in os.listdir(path)]
                paths += [file for file in inside if file.lower().endswith(_PICTURE_ENDINGS)] * _repetitions(name)
        captions = [_caption(path) for path in paths]
        pictures = [to_tensor(_rgb(path))[None] for path in _pictures_in(directory, paths)]
        return pictures, captions


def _folder_input(tooltip: str) -> tuple[str, dict[str, Any]]:
    """A choice of the input folder's subfolders."""
    folders = folder_paths.get_input_subfolders()
    return ("COMBO", {"tooltip": tooltip, "multiselect": False, "options": folders})


def _input_subfolder(folder: str) -> str:
    """Where a folder named in a widget lies.

    Raises:
        ValueError: outside the input folder. Only a link can bring such a name; the widget offers none.
    """
    return _inside(folder_paths.get_input_directory(), folder)


def _inside(base: str, folder: str) -> str:
    """A folder below another one, absolute.

    Raises:
        ValueError: it is not below it, after following all links.
    """
    path = os.path.abspath(os.path.join(base, folder))
    if not folder_paths.is_within_directory(base, path):
        raise ValueError(f"Invalid folder name {folder!r}: resolves outside of {base}")
    return path


def _pictures_in(directory: str, names: list[str]) -> list[str]:
    """The paths of those names that are pictures'.

    Raises:
        ValueError: there are none.
    """
    paths = [os.path.join(directory, name) for name in names if name.lower().endswith(_PICTURE_ENDINGS)]
    if not paths:
        raise ValueError("No valid images found in input")
    return paths


def _repetitions(folder_name: str) -> int:
    """How often the pictures of a folder named ``<number>_<anything>`` count; else once."""
    number = folder_name.split("_")[0]
    return int(number) if number.isdigit() else 1


def _caption(picture: str) -> str:
    """The text beside a picture."""
    # As ComfyUI: every occurrence of the ending becomes .txt, also one within the name.
    path = picture.replace(os.path.splitext(picture)[1], ".txt")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _rgb(path: str) -> Image.Image:
    """The first frame of a file, without alpha; 32-bit grey is brought to 8 bits' range."""
    with open_picture(path) as opened:
        return in_8_bits(opened).convert("RGB")


# -- writing -----------------------------------------------------------------------------------------------

_SAVE_INPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "folder_name": (
        "STRING",
        {
            "tooltip": "Name of the folder to save images to (inside output directory).",
            "default": "dataset",
            "multiline": False,
        },
    ),
    "filename_prefix": (
        "STRING",
        {"tooltip": "Prefix for saved image filenames.", "advanced": True, "default": "image", "multiline": False},
    ),
    "mode": (
        "COMBO",
        {
            "tooltip": "Whether to overwrite existing files or increment filenames to avoid overwriting.",
            "default": "overwrite",
            "multiselect": False,
            "options": ["overwrite", "increment"],
        },
    ),
}
_IMAGES_TO_SAVE = ("IMAGE", {"tooltip": "List of images to save."})


class SaveImageDataSetToFolder:
    """Save a list of images as PNG files in a folder, without metadata."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ()
    FUNCTION = "execute"
    OUTPUT_NODE = True
    CATEGORY = "image"
    EXPERIMENTAL = True
    DEPRECATED = True
    DESCRIPTION = "Save a dataset of images to a specified folder. Supported formats: PNG."
    SEARCH_ALIASES = ("save folder", "save to folder", "save dataset", "save images", "export dataset")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": _IMAGES_TO_SAVE, **_SAVE_INPUTS}, "hidden": METADATA_INPUTS}

    def execute(
        self,
        images: list[Tensor],
        folder_name: list[str],
        filename_prefix: list[str],
        mode: list[str],
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> tuple[()]:
        """See :func:`save_pictures`."""
        save_pictures(images, folder_name[0], filename_prefix[0], mode[0])
        return ()


class SaveImageTextDataSetToFolder:
    """Save a list of images as PNG files in a folder, each with its caption in a text file beside it."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ()
    FUNCTION = "execute"
    OUTPUT_NODE = True
    CATEGORY = "image"
    EXPERIMENTAL = True
    DESCRIPTION = (
        "Save a dataset of pairs of images and text captions to a specified folder. Images are saved as PNG files and "
        "captions are saved as TXT files with the same filename_prefix."
    )
    SEARCH_ALIASES = ("save folder", "save to folder", "save dataset", "save images", "save text", "export dataset")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        texts = {"tooltip": "List of text captions to save.", "forceInput": True, "multiline": False}
        return {
            "required": {"images": _IMAGES_TO_SAVE, **_SAVE_INPUTS},
            "optional": {"texts": ("STRING", texts)},
            "hidden": METADATA_INPUTS,
        }

    def execute(
        self,
        images: list[Tensor],
        folder_name: list[str],
        filename_prefix: list[str],
        mode: list[str],
        texts: list[str] | None = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> tuple[()]:
        """As :func:`save_pictures`; images beyond the texts get no caption."""
        for path, caption in zip(
            save_pictures(images, folder_name[0], filename_prefix[0], mode[0]), texts or (), strict=False
        ):
            folder, name = os.path.split(path)
            # As ComfyUI: every ".png" of the name becomes .txt.
            with open(os.path.join(folder, name.replace(".png", ".txt")), "w", encoding="utf-8") as file:
                file.write(caption)
        return ()


def save_pictures(images: list[Tensor], folder_name: str, prefix: str, mode: str) -> list[str]:
    """Write images as PNG files into a folder below the output folder.

    Args:
        images: ``[1, H, W, C]`` or ``[H, W, C]`` each; ``[C, H, W]`` is turned round.
        prefix: of the names. ``<prefix>_<number:05>.png``, or with the mode ``increment``
            ``<prefix>_<counter:05>_<number:05>.png``, its counter the first free one.
        mode: ``overwrite`` or ``increment``.

    Returns:
        The files' paths.

    Raises:
        ValueError: the folder lies outside the output folder, or the prefix leads out of it. (ComfyUI 0.33.0 writes
            wherever a prefix leads, if the mode is ``overwrite``.)
        TypeError: an image is a batch of several.
        OSError: a file cannot be written.
    """
    output = folder_paths.get_output_directory()
    directory = _inside(output, folder_name)
    os.makedirs(directory, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        name = f"{prefix}_{number:05d}.png"
        if mode != "overwrite":
            _, _, counter, _, filled_in = folder_paths.get_save_image_path(prefix, directory)
            name = f"{filled_in}_{counter:05}_{number:05d}.png"
        path = os.path.join(directory, name)
        if not folder_paths.is_within_directory(output, path):
            raise ValueError(f"Invalid filename prefix {prefix!r}: resolves outside of {output}")
        to_pillow(_channels_last(image)).save(path)
        paths.append(path)
    logger.info("Saved %d images to %s", len(paths), directory)
    return paths


def _channels_last(image: Tensor) -> Tensor:
    """One image ``[H, W, C]``."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    is_channels_first = image.ndim == 3 and image.shape[0] in (1, 3, 4) and min(image.shape[1:]) > 4
    return image.permute(1, 2, 0) if is_channels_first else image


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "LoadImageSetFromFolderNode": LoadImageSetFromFolderNode,
    "LoadImageDataSetFromFolder": LoadImageDataSetFromFolder,
    "LoadImageTextDataSetFromFolder": LoadImageTextDataSetFromFolder,
    "SaveImageDataSetToFolder": SaveImageDataSetToFolder,
    "SaveImageTextDataSetToFolder": SaveImageTextDataSetToFolder,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadImageSetFromFolderNode": "Load Image Dataset from Folder",
    "LoadImageDataSetFromFolder": "Load Image (from Folder)",
    "LoadImageTextDataSetFromFolder": "Load Image-Text (from Folder)",
    "SaveImageDataSetToFolder": "Save Image (to Folder) (DEPRECATED)",
    "SaveImageTextDataSetToFolder": "Save Image-Text (to Folder)",
}
