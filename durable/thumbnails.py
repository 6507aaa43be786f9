"""Small pictures of a run, for its report: which ones, and how they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .. import value_pictures

# Pixels of the longer side, and how many pictures a run keeps.
SIZE = 192
LIMIT = 256


def is_picture(note: Mapping[str, Any]) -> bool:
    """Whether a value that was noted looks like an IMAGE: float [B,H,W,C] with 1, 3 or 4 channels."""
    shape = list(note.get("shape") or ())
    is_float = str(note.get("dtype", "")).startswith("float")
    return is_float and len(shape) == 4 and shape[3] in (1, 3, 4) and 0 not in shape


def file_name(digest: str) -> str:
    """The file in thumbnails/ of a picture."""
    return digest.replace(":", "-").replace("/", "-") + ".jpg"


def safe_name(name: str) -> str:
    """A port's name as that of a folder."""
    cleaned = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80]
    return cleaned or "port"


def encode(picture: Any) -> bytes:
    """The first image of an IMAGE as a small JPEG. Takes a few milliseconds."""
    found = value_pictures.to_picture(picture, 0, SIZE)
    if found is None:
        raise ValueError(f"it is no picture: {type(picture).__name__}")
    return value_pictures.as_jpeg(found)


class Chosen:
    """Which pictures are kept: all, until there are LIMIT of them; then every second, and of the next ones too."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: those that are there already, oldest first."""
        self._stride = 1
        self._names: list[str] = list(names)

    def wants(self, iteration: int) -> bool:
        """Whether a picture of this iteration is wanted."""
        return iteration % self._stride == 0

    def add(self, name: str) -> list[str]:
        """A picture was written; returns those to be removed."""
        if name not in self._names:
            self._names.append(name)
        if len(self._names) <= LIMIT:
            return []
        self._stride *= 2
        removed, self._names = self._names[1::2], self._names[0::2]
        return removed
