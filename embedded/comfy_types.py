"""Names for types in node declarations (``comfy.comfy_types`` for node packages)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, ClassVar, TypedDict


class StrEnum(str, Enum):
    """An enum whose members are strings (the standard library's is newer than Python 3.10)."""

    def __str__(self) -> str:
        return str(self.value)


class IO(StrEnum):
    """Types of inputs and outputs. ``ANY`` is equal to everything where types are compared by ``!=``."""

    STRING = "STRING"
    IMAGE = "IMAGE"
    MASK = "MASK"
    LATENT = "LATENT"
    BOOLEAN = "BOOLEAN"
    INT = "INT"
    FLOAT = "FLOAT"
    COMBO = "COMBO"
    CONDITIONING = "CONDITIONING"
    SAMPLER = "SAMPLER"
    SIGMAS = "SIGMAS"
    GUIDER = "GUIDER"
    NOISE = "NOISE"
    CLIP = "CLIP"
    CONTROL_NET = "CONTROL_NET"
    VAE = "VAE"
    MODEL = "MODEL"
    LORA_MODEL = "LORA_MODEL"
    LOSS_MAP = "LOSS_MAP"
    CLIP_VISION = "CLIP_VISION"
    CLIP_VISION_OUTPUT = "CLIP_VISION_OUTPUT"
    STYLE_MODEL = "STYLE_MODEL"
    GLIGEN = "GLIGEN"
    UPSCALE_MODEL = "UPSCALE_MODEL"
    AUDIO = "AUDIO"
    WEBCAM = "WEBCAM"
    POINT = "POINT"
    FACE_ANALYSIS = "FACE_ANALYSIS"
    BBOX = "BBOX"
    SEGS = "SEGS"
    VIDEO = "VIDEO"
    ANY = "*"
    NUMBER = "FLOAT,INT"
    PRIMITIVE = "STRING,FLOAT,INT,BOOLEAN"

    def __ne__(self, value: object) -> bool:
        if self.value == "*" or value == "*":
            return False
        if not isinstance(value, str):
            return True
        mine = {name.strip() for name in self.value.split(",")}
        theirs = {name.strip() for name in value.split(",")}
        return not (theirs <= mine or mine <= theirs)

    __hash__ = str.__hash__


class InputTypeDict(TypedDict, total=False):
    """What INPUT_TYPES returns: category -> input name -> (type, options)."""

    required: dict[str, Any]
    optional: dict[str, Any]
    hidden: dict[str, Any]


# Options of one input: default, min, max, step, tooltip, lazy and so on.
InputTypeOptions = dict[str, Any]


class FileLocator(TypedDict):
    """A file the editor can show."""

    filename: str
    subfolder: str
    # "input", "output" or "temp"
    type: str


class ComfyNodeABC(ABC):
    """What a node class has; packages may derive from it."""

    DESCRIPTION: ClassVar[str]
    CATEGORY: ClassVar[str]
    EXPERIMENTAL: ClassVar[bool]
    DEPRECATED: ClassVar[bool]
    FUNCTION: ClassVar[str]
    RETURN_TYPES: ClassVar[tuple[Any, ...]]

    @classmethod
    @abstractmethod
    def INPUT_TYPES(cls) -> InputTypeDict:
        """The inputs."""
        return {"required": {}}


class CheckLazyMixin:
    """Asks for every lazy input that is linked and not there yet."""

    def check_lazy_status(self, **kwargs: Any) -> list[str]:
        """The names of those inputs."""
        return [name for name, value in kwargs.items() if value is None]
