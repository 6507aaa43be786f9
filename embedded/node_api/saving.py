"""Files of images and sound that V3 nodes save and show, with the prompt and the workflow in them.

Names, files and metadata are those of ComfyUI 0.3.64. A node passes itself as ``cls``: what it is told by its hidden
inputs goes into the files, unless the server runs with ``--disable-metadata``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .. import folder_paths
from ..core_nodes.animation import comf_metadata, exif_metadata
from ..core_nodes.image_io import metadata_is_disabled, png_metadata, to_pillow
from .audio import encode
from .node_output import UIOutput
from .options import FolderType

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor


class SavedResult(dict[str, Any]):
    """A file as clients ask for it: ``{"filename", "subfolder", "type"}``."""

    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)

    @property
    def filename(self) -> str:
        """Its name."""
        return str(self["filename"])

    @property
    def subfolder(self) -> str:
        """Its folder within the server's."""
        return str(self["subfolder"])

    @property
    def type(self) -> FolderType:
        """The server's folder."""
        return FolderType(self["type"])


class SavedImages(UIOutput):
    """Images to show."""

    def __init__(self, results: list[SavedResult], is_animated: bool = False) -> None:
        self.results = results
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        animated = {"animated": (True,)} if self.is_animated else {}
        return {"images": self.results, **animated}


class SavedAudios(UIOutput):
    """Sound to play."""

    def __init__(self, results: list[SavedResult]) -> None:
        self.results = results

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"audio": self.results}


def folder_of(folder_type: FolderType) -> str:
    """The path of one of the server's folders."""
    return folder_paths.get_directory_by_type(FolderType(folder_type).value) or folder_paths.get_temp_directory()


def hidden_of(cls: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The prompt and the extra metadata a node was told; None, None of no node or one that asked for neither."""
    hidden = getattr(cls, "hidden", None)
    return (None, None) if hidden is None else (hidden.prompt, hidden.extra_pnginfo)


class ImageSaveHelper:
    """Saves images ``[B, H, W, C]`` (C of 3 or 4, values 0..1) as files; all methods are static.

    ``filename_prefix`` is what :func:`folder_paths.get_save_image_path` takes; ``cls`` the node or None.
    """

    @staticmethod
    def _convert_tensor_to_pil(image_tensor: Tensor) -> Image.Image:
        """One image ``[H, W, C]`` with 8 bits per channel."""
        return to_pillow(image_tensor)

    @staticmethod
    def _create_png_metadata(cls: Any) -> PngInfo | None:
        """The text chunks of a PNG file, None for none."""
        return None if getattr(cls, "hidden", None) is None else png_metadata(*hidden_of(cls))

    @staticmethod
    def _create_animated_png_metadata(cls: Any) -> PngInfo | None:
        """The chunks of an animated PNG file, None for none."""
        return None if getattr(cls, "hidden", None) is None else comf_metadata(*hidden_of(cls))

    @staticmethod
    def _create_webp_metadata(pil_image: Image.Image, cls: Any) -> Image.Exif:
        """The EXIF data of a WEBP file: an image's own with the prompt and workflow added."""
        exif = pil_image.getexif()
        for tag, value in exif_metadata(*hidden_of(cls)).items():
            exif[tag] = value
        return exif

    @staticmethod
    def save_images(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, compress_level: int = 4
    ) -> list[SavedResult]:
        """One numbered PNG file per image; ``compress_level`` 0 to 9. ``%batch_num%`` is the image's number.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: a file cannot be written.
        """
        folder, filename, counter, subfolder = _place(images, filename_prefix, folder_type)
        metadata = ImageSaveHelper._create_png_metadata(cls)
        results = []
        for number, image in enumerate(images):
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            to_pillow(image).save(os.path.join(folder, name), pnginfo=metadata, compress_level=compress_level)
            results.append(SavedResult(name, subfolder, folder_type))
        return results

    @staticmethod
    def get_save_images_ui(images: Any, filename_prefix: str, cls: Any, compress_level: int = 4) -> SavedImages:
        """PNG files in the output folder, to be shown."""
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))

    @staticmethod
    def save_animated_png(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, fps: float, compress_level: int
    ) -> SavedResult:
        """One animated PNG file of all images, ``fps`` a second."""
        metadata = ImageSaveHelper._create_animated_png_metadata(cls)
        return _save_animation(
            images, filename_prefix, folder_type, "png", fps, pnginfo=metadata, compress_level=compress_level
        )

    @staticmethod
    def get_save_animated_png_ui(
        images: Any, filename_prefix: str, cls: Any, fps: float, compress_level: int
    ) -> SavedImages:
        """An animated PNG file in the output folder, to be shown."""
        saved = ImageSaveHelper.save_animated_png(images, filename_prefix, FolderType.output, cls, fps, compress_level)
        return SavedImages([saved], is_animated=len(images) > 1)

    @staticmethod
    def save_animated_webp(
        images: Any,
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any,
        fps: float,
        lossless: bool,
        quality: int,
        method: int,
    ) -> SavedResult:
        """One animated WEBP file of all images; ``quality`` 0 to 100, ``method`` Pillow's effort, 0 to 6."""
        exif = ImageSaveHelper._create_webp_metadata(to_pillow(images[0]), cls)
        options = {"exif": exif, "lossless": lossless, "quality": quality, "method": method}
        return _save_animation(images, filename_prefix, folder_type, "webp", fps, **options)

    @staticmethod
    def get_save_animated_webp_ui(
        images: Any, filename_prefix: str, cls: Any, fps: float, lossless: bool, quality: int, method: int
    ) -> SavedImages:
        """An animated WEBP file in the output folder, to be shown."""
        saved = ImageSaveHelper.save_animated_webp(
            images, filename_prefix, FolderType.output, cls, fps, lossless, quality, method
        )
        return SavedImages([saved], is_animated=len(images) > 1)


def _place(images: Any, filename_prefix: str, folder_type: FolderType) -> tuple[str, str, int, str]:
    """Folder, name, first number and subfolder of the files of a batch."""
    height, width = images[0].shape[0], images[0].shape[1]
    folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
        filename_prefix, folder_of(folder_type), width, height
    )
    return folder, filename, counter, subfolder


def _save_animation(
    images: Any, filename_prefix: str, folder_type: FolderType, ending: str, fps: float, **options: Any
) -> SavedResult:
    """One file of all images, ``options`` going to Pillow."""
    folder, filename, counter, subfolder = _place(images, filename_prefix, folder_type)
    first, *others = (to_pillow(image) for image in images)
    name = f"{filename}_{counter:05}_.{ending}"
    path = os.path.join(folder, name)
    # Pillow wants whole milliseconds per image.
    first.save(path, save_all=True, append_images=others, duration=int(1000.0 / fps), **options)
    return SavedResult(name, subfolder, folder_type)


class AudioSaveHelper:
    """Saves sound as files; needs PyAV (``pip install av``)."""

    @staticmethod
    def save_audio(
        audio: dict[str, Any],
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any,
        format: str = "flac",
        quality: str = "128k",
    ) -> list[SavedResult]:
        """One numbered file per sound of a batch.

        Args:
            audio: ``waveform`` float32 [B, channels, samples], ``sample_rate``.
            format: "flac", "mp3" or "opus"; of the last, the sample rate becomes the next one Opus has.
            quality: of the last two, "64k" to "320k"; for MP3 also "V0".

        Raises:
            RuntimeError: PyAV is not installed, or torchaudio where the sample rate has to change.
            ValueError: the prefix leads out of the folder; another format.
        """
        if format not in ("flac", "mp3", "opus"):
            raise ValueError(f"Unsupported audio format: {format!r}")
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_of(folder_type)
        )
        prompt, extra_pnginfo = (None, None) if metadata_is_disabled() else hidden_of(cls)
        metadata = {} if prompt is None else {"prompt": json.dumps(prompt)}
        metadata.update({name: json.dumps(value) for name, value in (extra_pnginfo or {}).items()})
        results = []
        for number, waveform in enumerate(audio["waveform"].cpu()):
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}_.{format}"
            content = encode(waveform, audio["sample_rate"], format, quality, metadata)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
            results.append(SavedResult(name, subfolder, folder_type))
        return results

    @staticmethod
    def get_save_audio_ui(
        audio: dict[str, Any], filename_prefix: str, cls: Any, format: str = "flac", quality: str = "128k"
    ) -> SavedAudios:
        """Files in the output folder, to be played."""
        return SavedAudios(AudioSaveHelper.save_audio(audio, filename_prefix, FolderType.output, cls, format, quality))
