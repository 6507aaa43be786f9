"""HTTP routes about image files: uploading them and looking at them.

No name a client sends leads out of the folder it is for: such requests are refused with 400 or 403.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import mimetypes
import os
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from . import folder_paths

logger = logging.getLogger("discomfort.embedded.routes_files")

_PLAIN_DATA = "application/octet-stream"
_DRAWING = "image/svg+xml"


class Refused(Exception):
    """A request that is answered with a status and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


def add_file_routes(routes: web.RouteTableDef) -> None:
    """Add /upload/image, /upload/mask and /view."""

    @routes.post("/upload/image")
    async def upload_image(request: web.Request) -> web.Response:
        return await _upload(request, with_mask=False)

    @routes.post("/upload/mask")
    async def upload_mask(request: web.Request) -> web.Response:
        return await _upload(request, with_mask=True)

    @routes.get("/view")
    async def view_image(request: web.Request) -> web.StreamResponse:
        try:
            return await _view(request)
        except Refused as refusal:
            return web.Response(status=refusal.status)


# -- uploading -----------------------------------------------------------------------------------------------


class _Upload(NamedTuple):
    """A form of /upload/*."""

    # the image file's content, and the name it shall have
    content: bytes
    filename: str
    # "input", "temp" or "output", and the folder below it
    type: str
    subfolder: str
    overwrite: bool
    # of /upload/mask: the image whose transparency the uploaded one brings
    original_ref: dict[str, Any] | None


async def _upload(request: web.Request, with_mask: bool) -> web.Response:
    """Store a file; answers with the name it got, which a client must use from then on."""
    form = await request.post()
    image = form.get("image")
    if not isinstance(image, web.FileField) or not image.filename:
        return web.Response(status=400)
    try:
        upload = _Upload(
            content=await asyncio.to_thread(image.file.read),
            filename=image.filename,
            type=str(form.get("type") or "input"),
            subfolder=str(form.get("subfolder", "")),
            overwrite=form.get("overwrite") in ("true", "1"),
            original_ref=_parse_reference(form.get("original_ref")) if with_mask else None,
        )
        name = await asyncio.to_thread(_store, upload)
    except Refused as refusal:
        return web.Response(status=refusal.status)
    return web.json_response({"name": name, "subfolder": upload.subfolder, "type": upload.type})


def _parse_reference(text: Any) -> dict[str, Any]:
    """A form's ``original_ref``: JSON with at least a filename.

    Raises:
        Refused: 400 for anything else.
    """
    try:
        reference = json.loads(text)
    except (TypeError, ValueError):
        raise Refused(400) from None
    if not isinstance(reference, dict) or not isinstance(reference.get("filename"), str):
        raise Refused(400)
    return reference


def _store(upload: _Upload) -> str:
    """Write an uploaded file.

    Returns:
        Its name: as wished if that is free, overwritten, or the same content is there under it already;
        else ``"name (1).png"`` and so on.

    Raises:
        Refused: 400 for an unknown type or a name that leads out of its folder.
    """
    root = folder_paths.get_directory_by_type(upload.type)
    if root is None:
        raise Refused(400)
    root = os.path.abspath(root)
    folder = os.path.join(root, os.path.normpath(upload.subfolder))
    path = os.path.abspath(os.path.join(folder, upload.filename))
    if not is_inside(path, root):
        raise Refused(400)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    filename = upload.filename
    if not upload.overwrite:
        stem, ending = os.path.splitext(filename)
        count = 0
        while os.path.exists(path):
            if _has_content(path, upload.content):
                return filename
            count += 1
            filename = f"{stem} ({count}){ending}"
            path = os.path.join(folder, filename)
    content: bytes | None = upload.content
    if upload.original_ref is not None:
        content = _apply_mask(upload.original_ref, upload.content, os.path.splitext(filename)[1])
    if content is not None:
        Path(path).write_bytes(content)
    return filename


def _has_content(path: str, content: bytes) -> bool:
    """Whether a file has exactly this content."""
    if os.path.getsize(path) != len(content):
        return False
    return hashlib.sha256(Path(path).read_bytes()).digest() == hashlib.sha256(content).digest()


def _apply_mask(original_ref: dict[str, Any], mask: bytes, ending: str) -> bytes | None:
    """The original image with the transparency of an uploaded one; a PNG has the original's texts.

    Args:
        original_ref: filename (possibly annotated), subfolder and type, as in ``executed`` messages.
        mask: an image file of the same size.
        ending: of the new file's name, which says its format.

    Returns:
        The file's content; None if there is no original, or it is not one a client may name. ComfyUI answers such
        an upload as if it had been stored, and so does this server: the editor takes any error for a lost image.

    Raises:
        OSError, ValueError: the two do not fit together, or the format has no transparency.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    try:
        path = find_file(
            original_ref["filename"],
            str(original_ref.get("type", "output")),
            str(original_ref.get("subfolder", "")),
            keep_folders=True,
        )
    except Refused:
        path = ""
    if not os.path.isfile(path):
        logger.warning("A mask was uploaded for %r, which is not there: nothing is stored", original_ref)
        return None
    with Image.open(path) as original, Image.open(io.BytesIO(mask)) as masked:
        texts = PngInfo()
        for key, text in getattr(original, "text", {}).items():
            texts.add_text(key, text)
        result = original.convert("RGBA")
        result.putalpha(masked.convert("RGBA").getchannel("A"))
    file = io.BytesIO()
    image_format = Image.registered_extensions().get(ending.lower())
    result.save(file, format=image_format, compress_level=4, pnginfo=texts)
    return file.getvalue()


# -- finding -------------------------------------------------------------------------------------------------


def find_file(name: str, type_name: str, subfolder: str, keep_folders: bool = False) -> str:
    """The path a client's reference to a file means; it need not exist.

    Args:
        name: a file name, possibly annotated (``"x.png [output]"``, which wins over ``type_name``).
        type_name: "input", "output" or "temp".
        subfolder: below that folder.
        keep_folders: let the name have folders of its own.

    Raises:
        Refused: 400 for a bad name or type, 403 for a subfolder that leads out.
    """
    filename, root = folder_paths.annotated_filepath(name)
    if not filename or filename[0] == "/" or ".." in filename:
        raise Refused(400)
    root = root or folder_paths.get_directory_by_type(type_name)
    if root is None:
        raise Refused(400)
    root = os.path.abspath(root)
    folder = os.path.join(root, subfolder)
    if not is_inside(folder, root):
        raise Refused(403)
    path = os.path.join(folder, filename if keep_folders else os.path.basename(filename))
    if not is_inside(path, root):
        raise Refused(400)
    return path


def find_existing_file(name: str, type_name: str, subfolder: str) -> str:
    """As :func:`find_file`, but Refused (404) if there is no such file."""
    path = find_file(name, type_name, subfolder)
    if not os.path.isfile(path):
        raise Refused(404)
    return path


def is_inside(path: str, root: str) -> bool:
    """Whether a path is a folder or something below it, after resolving ``..`` but not links."""
    try:
        return os.path.commonpath((root, os.path.abspath(path))) == root
    except ValueError:  # different drives on Windows, or a NUL character
        return False


# -- viewing -------------------------------------------------------------------------------------------------


async def _view(request: web.Request) -> web.StreamResponse:
    """GET /view: a file, smaller as a preview, or one of its channels."""
    query = request.query
    if "filename" not in query:
        return web.Response(status=404)
    path = find_existing_file(query["filename"], query.get("type", "output"), query.get("subfolder", ""))
    name = os.path.basename(path)
    disposition = f'filename="{_quotable(name)}"'
    channel = query.get("channel", "")
    if "preview" in query:
        body, content_type = await asyncio.to_thread(_encode_preview, path, query["preview"], channel)
    elif channel in ("rgb", "a"):
        body = await asyncio.to_thread(_encode_channel, path, channel)
        content_type = "image/png"
    else:
        return web.FileResponse(path, headers=view_headers(path, disposition, request.headers.get("Sec-Fetch-Dest")))
    return web.Response(body=body, content_type=content_type, headers={"Content-Disposition": disposition})


def view_headers(path: str, disposition: str, destination: str | None) -> dict[str, str]:
    """As :func:`download_headers`; but a drawing that a page shows in an ``<img>`` is sent as one.

    There a browser runs nothing of an SVG file and follows none of its references. As ComfyUI since 0.30.

    Args:
        destination: the request's ``Sec-Fetch-Dest``, which only the browser itself can set.
    """
    headers = download_headers(path, disposition)
    content_type = mimetypes.guess_type(path)[0]
    if not folder_paths.is_dangerous_content_type(content_type):
        return headers
    if destination == "image" and content_type == _DRAWING:
        headers.update({"Content-Type": _DRAWING, "Content-Disposition": disposition})
    # What a cache has for the one destination must not be taken for the other.
    return {**headers, "Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}


def download_headers(path: str, disposition: str = "") -> dict[str, str]:
    """The headers a client's file is sent with, so that no browser runs it as a page of this server.

    Args:
        disposition: what is said about the file beside that it is to be saved, if it is of such a kind.

    What ComfyUI does since 0.28: 0.3.64 did it for fewer kinds of files.
    """
    content_type = mimetypes.guess_type(path)[0] or _PLAIN_DATA
    if folder_paths.is_dangerous_content_type(content_type):
        content_type = _PLAIN_DATA
        disposition = "; ".join(filter(None, ("attachment", disposition)))
    headers = {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}
    return {**headers, "Content-Disposition": disposition} if disposition else headers


def _quotable(name: str) -> str:
    """A name as it is written between the quotes of a header (RFC 6266)."""
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _encode_preview(path: str, wish: str, channel: str) -> tuple[bytes, str]:
    """An image in a small file.

    Args:
        wish: ``"webp;90"``: "webp" or "jpeg", and the quality; what has transparency to keep is webp.

    Returns:
        The file's content and its type.
    """
    from PIL import Image

    parts = wish.split(";")
    image_format = parts[0] if parts[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(parts[-1]) if parts[-1].isdecimal() else 90
    file = io.BytesIO()
    with Image.open(path) as image:
        flat = image_format == "jpeg" or channel == "rgb"
        (image.convert("RGB") if flat else image).save(file, format=image_format, quality=quality)
    return file.getvalue(), f"image/{image_format}"


def _encode_channel(path: str, channel: str) -> bytes:
    """An image's colours without transparency ("rgb"), or its transparency alone ("a"), as PNG."""
    from PIL import Image

    file = io.BytesIO()
    with Image.open(path) as image:
        if channel == "rgb":
            result = image.convert("RGB")
        else:
            alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
            result = Image.new("RGBA", image.size)
            result.putalpha(alpha)
    result.save(file, format="PNG")
    return file.getvalue()
