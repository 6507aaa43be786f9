"""``comfy_api.latest.ui``: what V3 nodes show (``NodeOutput(ui=...)``)."""

from __future__ import annotations

import os
import random
import string
import uuid
from typing import Any

from ..core_nodes.image_io import to_pillow
from .node_output import UIOutput as _UIOutput
from .options import FolderType
from .saving import AudioSaveHelper, ImageSaveHelper, SavedAudios, SavedImages, SavedResult, folder_of


def _temporary_prefix() -> str:
    """Keeps the previews of two nodes apart."""
    return "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a name, no secret


class PreviewImage(_UIOutput):
    """Images on the node, from the temp folder.

    Args:
        image: ``[B, H, W, C]``.
        animated: whether the editor plays them.
        cls: the node, for the metadata.
    """

    def __init__(self, image: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        # Fast rather than small: previews are read once.
        self.values = ImageSaveHelper.save_images(image, _temporary_prefix(), FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    """Masks ``[B, H, W]`` on the node, as grey images."""

    def __init__(self, mask: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        grey = mask.reshape((-1, *mask.shape[-2:], 1)).expand(-1, -1, -1, 3)
        super().__init__(grey, animated, cls, **kwargs)


class PreviewAudio(_UIOutput):
    """Sound on the node, from the temp folder; needs PyAV (``pip install av``)."""

    def __init__(self, audio: dict[str, Any], cls: Any = None, **kwargs: Any) -> None:
        self.values = AudioSaveHelper.save_audio(audio, _temporary_prefix(), FolderType.temp, cls)

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"audio": self.values}


class PreviewVideo(_UIOutput):
    """Video files on the node, which the node has saved."""

    def __init__(self, values: list[Any], **kwargs: Any) -> None:
        self.values = values

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"images": self.values, "animated": (True,)}


class PreviewUI3D(_UIOutput):
    """A model on the node; ``bg_image`` ``[B, H, W, C]``, if given, behind it."""

    def __init__(self, model_file: Any, camera_info: Any, **kwargs: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.bg_image_path: str | None = None
        background = kwargs.get("bg_image")
        if background is not None:
            name = f"bg_{uuid.uuid4().hex}.png"
            to_pillow(background[0]).save(os.path.join(folder_of(FolderType.temp), name), compress_level=1)
            self.bg_image_path = f"temp/{name}"

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"result": [self.model_file, self.camera_info, self.bg_image_path]}


class PreviewUI3DAdvanced(_UIOutput):
    """A model on the node, and where it stands."""

    def __init__(self, model_file: Any, camera_info: Any, model_3d_info: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.model_3d_info = model_3d_info

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"result": [self.model_file, self.camera_info, self.model_3d_info]}


class PreviewText(_UIOutput):
    """Text on the node."""

    def __init__(self, value: str, **kwargs: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        """As the client gets it."""
        return {"text": (self.value,)}


__all__ = [
    "AudioSaveHelper",
    "ImageSaveHelper",
    "PreviewAudio",
    "PreviewImage",
    "PreviewMask",
    "PreviewText",
    "PreviewUI3D",
    "PreviewUI3DAdvanced",
    "PreviewVideo",
    "SavedAudios",
    "SavedImages",
    "SavedResult",
]
