"""DiscomfortFolderImageLoader: the images of a folder, as one batch or one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from . import fitted_images, folder_files, folder_images, outer

_LARGEST = 2**31 - 1
# ComfyUI's own bound of widths and heights.
_LARGEST_SIDE = 16384


class DiscomfortFolderImageLoader:
    """The images of a folder with their masks and file names.

    All outputs are lists in ComfyUI's sense, because a class cannot have it one way or the other: the images are a list
    of one batch, or of one image per file.
    """

    CATEGORY = "Discomfort/images"
    DESCRIPTION = (
        "Loads the images of a folder: as one batch, all of one size, or as a list, each in its own size. Files that "
        "cannot be read are left out and listed. A folder in which nothing changed is not read again."
    )
    RETURN_TYPES = ("IMAGE", "MASK", "STRING", "INT", "STRING")
    RETURN_NAMES = ("images", "masks", "file_names", "count", "skipped")
    OUTPUT_TOOLTIPS = (
        "The images. batch: all in one; list: what comes behind runs once for each.",
        "1 where an image is transparent or was padded, else 0; of the size of the images.",
        "A list with the name of each image's file, relative to the folder. What comes behind runs once for each.",
        "How many images there are.",
        "The files that could not be read and why, a line each; empty if there are none.",
    )
    OUTPUT_IS_LIST = (True, True, True, True, True)
    FUNCTION = "load_folder"
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "load images from folder",
        "load image batch",
        "image directory",
        "load directory",
        "batch images",
        "dataset",
    ]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Widgets in the order in which saved workflows hold them."""
        return {
            "required": {
                "folder": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "The folder: an absolute path, one that begins with ~, or one relative to ComfyUI's "
                        "input folder. Empty: the input folder itself.",
                    },
                ),
            },
            "optional": {
                "pattern": (
                    "STRING",
                    {
                        "default": "*",
                        "tooltip": "Which files: *.png takes those of one kind, *.jpg;*.png those of two, **/* all in "
                        "subfolders, too. Upper and lower case are the same. Files that are no images are passed over.",
                    },
                ),
                "sort_by": (
                    list(folder_files.SORT_ORDERS),
                    {
                        "default": "name",
                        "tooltip": "The order. name: 2 comes before 10. name as text: 10 comes before 2. modified: the "
                        "oldest first. size: the smallest file first. random: shuffled by shuffle_seed.",
                    },
                ),
                "descending": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Turns the order round: the newest, the largest, the last first."},
                ),
                "shuffle_seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": _LARGEST,
                        "tooltip": "For the order random: the same number gives the same order of the same files.",
                    },
                ),
                "start": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": _LARGEST,
                        "tooltip": "Leaves out so many files at the beginning of the order.",
                    },
                ),
                "every": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": _LARGEST,
                        "tooltip": "Takes every n-th file only: 1 takes all, 2 the first, third, fifth...",
                    },
                ),
                "limit": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": _LARGEST,
                        "tooltip": "Takes so many files at most, after start and every. 0: all.",
                    },
                ),
                "output": (
                    list(folder_images.OUTPUTS),
                    {
                        "default": "batch",
                        "tooltip": "batch: one IMAGE with all images, all of one size. list: one IMAGE for each, with "
                        "its own size; the nodes behind run once for each.",
                    },
                ),
                "size_policy": (
                    list(fitted_images.SIZE_POLICIES),
                    {
                        "default": fitted_images.PAD,
                        "tooltip": "For a batch: what happens to images of another size. pad to fit: scaled to fit in, "
                        "bars around them. crop to fill: scaled to fill it, the middle is kept. stretch: proportions "
                        "change. error if they differ: the node stops.",
                    },
                ),
                "width": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": _LARGEST_SIDE,
                        "tooltip": "Width of a batch in pixels. 0: that of the first image, or in proportion to it if "
                        "there is a height.",
                    },
                ),
                "height": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": _LARGEST_SIDE,
                        "tooltip": "Height of a batch in pixels. 0: that of the first image, or in proportion to it if "
                        "there is a width.",
                    },
                ),
                "resampling": (
                    list(fitted_images.RESAMPLING),
                    {
                        "default": "lanczos",
                        "tooltip": "How images are scaled. lanczos is sharp; nearest mixes no colours, for pixel art "
                        "and label maps.",
                    },
                ),
                "pad_colour": (
                    "STRING",
                    {"default": "black", "tooltip": "Colour of the bars: a name, or #rrggbb."},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, pattern: Any = "*", pad_colour: Any = "black") -> bool | str:
        """What can be told without the disk, so that nothing blocks the server, and a folder may come into being while
        the prompt runs. None is a linked input.
        """
        try:
            if pattern is not None:
                folder_files.parse_pattern(pattern)
            if pad_colour is not None:
                fitted_images.parse_colour(pad_colour)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> Any:
        """The state of the chosen files. Linked inputs are None here: without folder or pattern nothing is known, and
        the node executes (NaN equals nothing); without another one all files that match are looked at.
        """
        inputs = {**_defaults(), **inputs}
        if inputs["folder"] is None or inputs["pattern"] is None:
            return float("nan")
        try:
            choice = _choice(inputs)
            if any(inputs[name] is None for name in folder_files.Choice._fields):
                choice = folder_files.Choice(choice.folder, choice.pattern)
            return folder_files.fingerprint(choice, outer.check_interrupted)
        except (OSError, ValueError):  # the node itself says it, where the editor shows it
            return float("nan")

    def load_folder(self, unique_id: str | None = None, **inputs: Any) -> tuple[list[Any], ...]:
        """The five outputs, each a list."""
        inputs = {**_defaults(), **inputs}
        choice = _choice(inputs)
        found = folder_files.find_files(choice, outer.check_interrupted)
        progress = outer.Progress(len(found.names), unique_id)
        outside = folder_images.Outside(progress.update, outer.check_interrupted)
        if inputs["output"] == "list":
            loaded = folder_images.load_list(choice.folder, found.names, outside)
        else:
            loaded = folder_images.load_batch(choice.folder, found.names, _fitting(inputs), outside)
        skipped = "\n".join([*found.problems, *loaded.skipped])
        return loaded.images, loaded.masks, loaded.file_names, [len(loaded.file_names)], [skipped]


def _defaults() -> dict[str, Any]:
    groups = DiscomfortFolderImageLoader.INPUT_TYPES()
    return {name: spec[1]["default"] for group in ("required", "optional") for name, spec in groups[group].items()}


def _choice(inputs: dict[str, Any]) -> folder_files.Choice:
    folder = folder_files.resolve_folder(inputs["folder"], _input_folder())
    others = {name: inputs[name] for name in folder_files.Choice._fields if name != "folder"}
    return folder_files.Choice(folder, **others)


def _fitting(inputs: dict[str, Any]) -> fitted_images.Fitting:
    return fitted_images.Fitting(
        inputs["size_policy"], inputs["width"], inputs["height"], inputs["resampling"], inputs["pad_colour"]
    )


def _input_folder() -> Path:
    """ComfyUI's input folder; outside one the current folder."""
    folders = sys.modules.get("folder_paths")
    return Path.cwd() if folders is None else Path(folders.get_input_directory())
