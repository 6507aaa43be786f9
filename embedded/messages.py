"""What travels over the websocket, as bytes and text (``protocol`` for node packages).

Formats of ComfyUI 0.3.64. Text messages are JSON, ``{"type": event, "data": {...}}``. Binary messages start
with the event number as a big-endian uint32:

- 1 ``PREVIEW_IMAGE``: uint32 image format (1 JPEG, 2 PNG), then the image file.
- 3 ``TEXT``: uint32 length of the node id, the node id, then UTF-8 text.
- 4 ``PREVIEW_IMAGE_WITH_METADATA``: uint32 length of the JSON, the JSON, then the image file. Sent in place
  of 1 to clients that said ``supports_preview_metadata``.
"""

from __future__ import annotations

import io
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    # A preview as nodes give it: "JPEG" or "PNG", the image, the largest edge in pixels (None: as it is).
    Preview = tuple[str, Image.Image, int | None]


class BinaryEventTypes:
    """Numbers of binary events; 2 is an event inside the server only and is sent as 1."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


def encode_event(event: str | int, data: Any) -> str | bytes:
    """One message as it is sent.

    Args:
        event: a name for a text message, a number for a binary one.
        data: JSON-safe data; for binary events bytes, except a preview for UNENCODED_PREVIEW_IMAGE and
            ``(preview, metadata)`` for PREVIEW_IMAGE_WITH_METADATA.

    Raises:
        TypeError, ValueError: the data cannot be written as JSON.
        RuntimeError: bytes under a name.
    """
    if event == BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
        return encode_preview(data)
    if event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA and isinstance(data, tuple):
        return encode_preview_with_metadata(*data)
    if isinstance(data, (bytes, bytearray)):
        if not isinstance(event, int):
            raise RuntimeError(f"Binary event types must be integers, got {event}")
        return struct.pack(">I", event) + data
    return json.dumps({"type": event, "data": data})


def encode_preview(preview: Preview) -> bytes:
    """A preview as event 1."""
    image_format = 2 if preview[0] == "PNG" else 1
    return struct.pack(">II", BinaryEventTypes.PREVIEW_IMAGE, image_format) + _image_file(preview)


def encode_preview_with_metadata(preview: Preview, metadata: dict[str, Any] | None = None) -> bytes:
    """A preview as event 4; ``image_type`` is added to the metadata."""
    image_type = "image/png" if preview[0] == "PNG" else "image/jpeg"
    header = json.dumps({**(metadata or {}), "image_type": image_type}).encode()
    start = struct.pack(">II", BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, len(header))
    return start + header + _image_file(preview)


def encode_progress_text(text: str | bytes | bytearray, node_id: str) -> bytes:
    """The body of event 3: a text shown on a node."""
    node = str(node_id).encode()
    return struct.pack(">I", len(node)) + node + (text.encode() if isinstance(text, str) else bytes(text))


def _image_file(preview: Preview) -> bytes:
    """A preview's image, no larger than it asks for, in its file format."""
    from PIL import Image, ImageOps

    image_format, image, max_size = preview
    if max_size is not None:
        image = ImageOps.contain(image, (max_size, max_size), Image.Resampling.BILINEAR)
    if image_format == "JPEG" and image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, format=image_format, quality=95, compress_level=1)
    return file.getvalue()
