"""Files that items of a batch are read from: noted, and read again by a replay if they are what they were.

A batch does not copy its pictures. Its record says where each was, with size and time, and what value it was. A file
with another time may still be the same one (a folder that was copied): then its value decides.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..image_files import open_image_as_mask, open_image_as_tensor

Json = dict[str, Any]


def file_note(path: str | os.PathLike[str], looks: Mapping[str, Any], kind: str) -> Json:
    """A file as the journal has it (docs/reference/run-record.md).

    Args:
        looks: its size and time when it was read.
        kind: what it was read as, "IMAGE" or "MASK".
    """
    return {"path": os.path.abspath(os.fsdecode(path)), **looks, "type": kind}


def open_file(path: str | os.PathLike[str], kind: str) -> Any:
    """The value that a picture file is.

    Raises:
        OSError, ValueError: it is not there, or no picture.
    """
    return open_image_as_mask(path) if kind == "MASK" else open_image_as_tensor(path)


def why_unusable(note: Mapping[str, Any], digest: str) -> str | None:
    """Why a file that was noted cannot be read instead of what was read from it; None where it can. Blocks.

    Args:
        digest: of the value that it was.
    """
    path = Path(str(note.get("path", "")))
    try:
        status = path.stat()
    except (OSError, ValueError):
        return f"it was read from {path}, which is not there (any more)"
    if not stat.S_ISREG(status.st_mode):
        return f"it was read from {path}, which is no file now"
    if status.st_size == note.get("size"):
        if round(status.st_mtime, 3) == note.get("modified"):
            return None
        if _digest(path, str(note.get("type")), status.st_mtime_ns) == digest:
            return None
    return f"it was read from {path}, which has changed since"


@functools.lru_cache(maxsize=100_000)
def _digest(path: Path, kind: str, modified: int) -> str:
    """The digest of what is read from a file now; "" where that is nothing. *modified*: an answer is about one time."""
    from ..workflow_context import WorkflowContext

    try:
        value = open_file(path, kind)
    except (OSError, ValueError):
        return ""
    with WorkflowContext() as context:
        context.save("value", value)
        return context.digest("value")


__all__ = ["file_note", "open_file", "why_unusable"]
