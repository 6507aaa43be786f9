"""Small pictures of a run, for its report: which ones, and how they are made."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

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
    import torch
    from PIL import Image

    one = picture[0].detach()
    step = max(1, max(one.shape[0], one.shape[1]) // (2 * SIZE))
    levels = one[::step, ::step].to(device="cpu", dtype=torch.float32).nan_to_num(0.0).clamp(0, 1)
    array = (levels * 255).round().to(torch.uint8).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array[..., :3].copy())
    image.thumbnail((SIZE, SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


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
