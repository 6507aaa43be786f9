"""Core nodes that read images from files and write them to files.

Saved PNG files carry the prompt and the workflow as text chunks, so that the editor can open a picture as the
workflow that made it; ``--disable-metadata`` leaves them out. Names, inputs, files and results are those of
ComfyUI 0.3.64.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import string
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from .. import folder_paths
from ..node_registry import MAX_RESOLUTION

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

_Result = TypeVar("_Result")

PREFIX_TOOLTIP = (
    "The prefix for the file to save. This may include formatting information such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width% to include values from nodes."
)
METADATA_INPUTS = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


# -- writing -----------------------------------------------------------------------------------------------


class SaveImage:
    """Save images as PNG files in the output folder."""

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"
    DESCRIPTION = "Saves the input images to your ComfyUI output directory."

    def __init__(self) -> None:
        # The attributes subclasses in node packages replace, under ComfyUI's names.
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""
        # zlib's, 0 (none) to 9 (smallest).
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "tooltip": PREFIX_TOOLTIP}),
            },
            "hidden": METADATA_INPUTS,
        }

    def save_images(
        self,
        images: Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One numbered file per image; the ui result lists them.

        Args:
            images: ``[B, H, W, C]``, C of 3 or 4; values outside 0..1 are cut off, the rest rounded down to
                1/255.
            filename_prefix: see :func:`folder_paths.get_save_image_path`; ``%batch_num%`` is the image's
                number.
            prompt, extra_pnginfo: written into the files.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: a file cannot be written.
        """
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir, images[0].shape[1], images[0].shape[0]
        )
        metadata = png_metadata(prompt, extra_pnginfo)
        saved = []
        for number, image in enumerate(images):
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            to_pillow(image).save(os.path.join(folder, name), pnginfo=metadata, compress_level=self.compress_level)
            saved.append({"filename": name, "subfolder": subfolder, "type": self.type})
        return {"ui": {"images": saved}}


class PreviewImage(SaveImage):
    """Save images in the temp folder, to be shown on the node."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dir = folder_paths.get_temp_directory()
        self.type = "temp"
        self.prefix_append = _random_preview_suffix()
        # Fast rather than small: previews are read once.
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}, "hidden": METADATA_INPUTS}


def _random_preview_suffix() -> str:
    """Keeps the previews of two nodes, and of two servers, apart in one folder."""
    return "_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a name, no secret


def to_pillow(image: Tensor) -> Image.Image:
    """An image ``[H, W, C]`` with 8 bits per channel, rounded down."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8))


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture with 8 bits per channel as float32 ``[H, W, C]`` in 0..1; ``[H, W]`` if it has one channel."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)


def metadata_is_disabled() -> bool:
    """Whether the server was started with ``--disable-metadata``."""
    # Looked up, not imported: ``comfy.cli_args`` exists only inside a running server.
    arguments = getattr(sys.modules.get("comfy.cli_args"), "args", None)
    return bool(getattr(arguments, "disable_metadata", False))


def png_metadata(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> PngInfo | None:
    """The text chunks of a saved PNG, as JSON: ``prompt``, and each entry of ``extra_pnginfo``."""
    from PIL.PngImagePlugin import PngInfo

    if metadata_is_disabled():
        return None
    metadata = PngInfo()
    for name, text in metadata_texts(prompt, extra_pnginfo):
        metadata.add_text(name, text)
    return metadata


def metadata_texts(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What a file says of how it was made: names, which may occur twice, and JSON."""
    values = [] if prompt is None else [("prompt", prompt)]
    return [(name, json.dumps(value)) for name, value in [*values, *(extra_pnginfo or {}).items()]]


# -- reading -----------------------------------------------------------------------------------------------


def input_files() -> list[str]:
    """The names of the files (not folders) in the input folder, unsorted."""
    with os.scandir(folder_paths.get_input_directory()) as entries:
        return [entry.name for entry in entries if entry.is_file()]


def content_hash(annotated_name: str) -> str:
    """SHA-256 of an input file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(folder_paths.get_annotated_filepath(annotated_name), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _FileInput:
    """What nodes with an image file widget share: its change is the file's, and the file must exist."""

    @classmethod
    def IS_CHANGED(cls, image: str, **_others: Any) -> str:
        return content_hash(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        return folder_paths.exists_annotated_filepath(image) or f"Invalid image file: {image}"


class LoadImage(_FileInput):
    """An image file as an image and a mask."""

    RETURN_TYPES: tuple[str, ...] = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = sorted(folder_paths.filter_files_content_types(input_files(), ["image"]))
        return {"required": {"image": (files, {"image_upload": True})}}

    def load_image(self, image: str) -> tuple[Tensor, Tensor]:
        """Every frame of a file.

        Args:
            image: a name in the input folder, or annotated (``"a.png [output]"``).

        Returns:
            RGB float32 ``[B, H, W, 3]`` and the mask ``[B, H, W]``: 1 minus alpha, or 64 * 64 zeros where a
            frame has no alpha. Frames of another size than the first one are left out; of an MPO file (a
            camera's main picture with smaller ones) only the first frame counts.

        Raises:
            OSError: the file is missing or no image Pillow can read.
        """
        import torch

        frames: list[tuple[Tensor, Tensor]] = []
        with _open_image(image) as opened:
            for frame in _upright_frames(opened):
                rgb = frame.convert("RGB")
                if frames and (rgb.height, rgb.width) != frames[0][0].shape[1:3]:
                    continue
                frames.append((to_tensor(rgb)[None], _mask_of(frame)[None]))
                if opened.format == "MPO":
                    break
        images, masks = zip(*frames, strict=True)
        return torch.cat(images), torch.cat(masks)


class LoadImageMask(_FileInput):
    """One channel of an image file as a mask."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_image"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": (sorted(input_files()), {"image_upload": True}),
                "channel": (["alpha", "red", "green", "blue"],),
            }
        }

    def load_image(self, image: str, channel: str) -> tuple[Tensor]:
        """The first frame's channel ``[1, H, W]`` in 0..1; alpha is turned round, so opaque is 0.

        Raises:
            OSError: the file is missing or no image Pillow can read.
        """
        with _open_image(image) as opened:
            frame = _upright(opened)
        if frame.getbands() != ("R", "G", "B", "A"):
            frame = frame.convert("RGBA")
        values = to_tensor(frame.getchannel(channel[0].upper()))
        return ((1.0 - values if channel == "alpha" else values)[None],)


class LoadImageOutput(LoadImage):
    """An image file of the output folder."""

    DESCRIPTION = (
        "Load an image from the output folder. When the refresh button is clicked, the node will update the "
        "image list and automatically select the first image, allowing for easy iteration."
    )
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # The editor fetches the list itself, newest file first.
        options = {
            "image_upload": True,
            "image_folder": "output",
            "remote": {
                "route": "/internal/files/output",
                "refresh_button": True,
                "control_after_refresh": "first",
            },
        }
        return {"required": {"image": ("COMBO", options)}}


class WebcamCapture(LoadImage):
    """A picture the editor has taken with the webcam and uploaded."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "load_capture"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 0, "min": 0, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "image": ("WEBCAM", {}),
                "width": ("INT", side),
                "height": ("INT", side),
                "capture_on_queue": ("BOOLEAN", {"default": True}),
            }
        }

    def load_capture(
        self, image: str, width: int = 0, height: int = 0, capture_on_queue: bool = True
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`LoadImage.load_image`; the other inputs are the editor's.

        As in ComfyUI the mask is returned too, though the node has no output for it.
        """
        return self.load_image(folder_paths.get_annotated_filepath(image))


def open_picture(path: str) -> Image.Image:
    """The image file, its pixels still unread; to be closed."""
    from PIL import Image

    return _read_tolerantly(Image.open, path)


def _open_image(annotated_name: str) -> Image.Image:
    """The image file of a widget's name, as :func:`open_picture`."""
    return open_picture(folder_paths.get_annotated_filepath(annotated_name))


def _read_tolerantly(function: Callable[[Any], _Result], argument: Any) -> _Result:
    """``function(argument)``; if a damaged file fails it, again with the pixels there are."""
    from PIL import ImageFile

    try:
        return function(argument)
    except (OSError, ValueError):
        previous = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return function(argument)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = previous


def _upright_frames(opened: Image.Image) -> Iterable[Image.Image]:
    """Every frame of a file, turned as its EXIF data says."""
    from PIL import ImageSequence

    for frame in ImageSequence.Iterator(opened):
        yield _upright(frame)


def _upright(frame: Image.Image) -> Image.Image:
    """A copy of a frame turned as its EXIF data says; 32-bit grey is brought to 8 bits' range."""
    from PIL import ImageOps

    return in_8_bits(_read_tolerantly(ImageOps.exif_transpose, frame))


def in_8_bits(picture: Image.Image) -> Image.Image:
    """32-bit grey, as files of 16 bits have it, brought to the range of 8 bits; any other picture as it is."""
    return picture.point(lambda value: value * (1 / 255)) if picture.mode == "I" else picture


def _mask_of(frame: Image.Image) -> Tensor:
    """1 minus a frame's alpha ``[H, W]``, or zeros ``[64, 64]`` without one."""
    import torch

    if "A" in frame.getbands():
        return 1.0 - to_tensor(frame.getchannel("A"))
    if frame.mode == "P" and "transparency" in frame.info:
        return 1.0 - to_tensor(frame.convert("RGBA").getchannel("A"))
    return torch.zeros((64, 64), dtype=torch.float32)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "LoadImage": LoadImage,
    "LoadImageMask": LoadImageMask,
    "LoadImageOutput": LoadImageOutput,
    "WebcamCapture": WebcamCapture,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "LoadImage": "Load Image",
    "LoadImageMask": "Load Image (as Mask)",
    "LoadImageOutput": "Load Image (from Outputs)",
    "WebcamCapture": "Webcam Capture",
}
