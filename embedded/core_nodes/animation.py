"""Core nodes that save a batch of images as one animated file in the output folder.

Files and metadata are those of ComfyUI 0.3.64, so its editor can open them as the workflow that made them.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .. import folder_paths
from .image_io import METADATA_INPUTS, metadata_is_disabled, to_pillow

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

# EXIF tags that carry metadata in WEBP files: the camera's model, and from its maker downwards.
_EXIF_MODEL, _EXIF_MAKE = 0x0110, 0x010F

_FPS = ("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01})


class _SaveAnimation:
    """What both formats share."""

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image/animation"

    def __init__(self) -> None:
        # The attributes subclasses in node packages replace, under ComfyUI's names.
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""

    def _save(
        self, images: Tensor, filename_prefix: str, ending: str, fps: float, is_animated: bool, **options: Any
    ) -> dict[str, Any]:
        """Write one file of all images, ``options`` going to Pillow; the ui result names it."""
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir, images[0].shape[1], images[0].shape[0]
        )
        name = f"{filename}_{counter:05}_.{ending}"
        first, *others = (to_pillow(image) for image in images)
        path = os.path.join(folder, name)
        # Pillow wants whole milliseconds per image.
        first.save(path, save_all=True, append_images=others, duration=int(1000.0 / fps), **options)
        saved = {"filename": name, "subfolder": subfolder, "type": self.type}
        return {"ui": {"images": [saved], "animated": (is_animated,)}}


class SaveAnimatedWEBP(_SaveAnimation):
    """Save images as one animated WEBP file."""

    # Names in the widget -> Pillow's effort, 0 to 6. A class attribute in ComfyUI too.
    methods = {"default": 4, "fastest": 0, "slowest": 6}  # noqa: RUF012

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
                "fps": _FPS,
                "lossless": ("BOOLEAN", {"default": True}),
                "quality": ("INT", {"default": 80, "min": 0, "max": 100}),
                "method": (list(cls.methods),),
            },
            "hidden": METADATA_INPUTS,
        }

    def save_images(
        self,
        images: Tensor,
        fps: float,
        filename_prefix: str,
        lossless: bool,
        quality: int,
        method: str,
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """``images`` ``[B, H, W, C]`` at ``fps`` images a second.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: the file cannot be written.
        """
        exif = exif_metadata(prompt, extra_pnginfo)
        effort = self.methods[method]
        return self._save(
            images,
            filename_prefix,
            "webp",
            fps,
            len(images) != 1,
            exif=exif,
            lossless=lossless,
            quality=quality,
            method=effort,
        )


class SaveAnimatedPNG(_SaveAnimation):
    """Save images as one animated PNG file."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
                "fps": _FPS,
                "compress_level": ("INT", {"default": 4, "min": 0, "max": 9}),
            },
            "hidden": METADATA_INPUTS,
        }

    def save_images(
        self,
        images: Tensor,
        fps: float,
        compress_level: int,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """``images`` ``[B, H, W, C]`` at ``fps`` images a second.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: the file cannot be written.
        """
        metadata = comf_metadata(prompt, extra_pnginfo)
        return self._save(images, filename_prefix, "png", fps, True, pnginfo=metadata, compress_level=compress_level)


def exif_metadata(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> Image.Exif:
    """Each entry as ``name:JSON`` in an EXIF tag of its own: WEBP has no text chunks."""
    from PIL import Image

    exif = Image.Exif()
    if metadata_is_disabled():
        return exif
    if prompt is not None:
        exif[_EXIF_MODEL] = f"prompt:{json.dumps(prompt)}"
    for number, (key, value) in enumerate((extra_pnginfo or {}).items()):
        exif[_EXIF_MAKE - number] = f"{key}:{json.dumps(value)}"
    return exif


def comf_metadata(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> PngInfo | None:
    """Each entry in a chunk ``comf``: its name, a zero byte, JSON; behind the pixels, where Pillow keeps them."""
    from PIL.PngImagePlugin import PngInfo

    if metadata_is_disabled():
        return None
    metadata = PngInfo()
    entries = {**({} if prompt is None else {"prompt": prompt}), **(extra_pnginfo or {})}
    for key, value in entries.items():
        metadata.add(b"comf", f"{key}\0{json.dumps(value)}".encode("latin-1"), after_idat=True)
    return metadata


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SaveAnimatedWEBP": SaveAnimatedWEBP,
    "SaveAnimatedPNG": SaveAnimatedPNG,
}

# A node without an entry has none in ComfyUI either; the editor shows its class name.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
