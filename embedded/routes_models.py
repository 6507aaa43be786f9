"""HTTP routes that list model files. This server runs none, but packages may, and the editor asks."""

from __future__ import annotations

import asyncio
import base64
import glob
import io
import json
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from . import folder_paths

logger = logging.getLogger("discomfort.embedded.routes_models")

# Bytes; a longer safetensors header is not read.
_MAX_HEADER = 1024 * 1024
# Bytes; the same for one that may contain pictures.
_MAX_COVER_HEADER = 8 * 1024 * 1024

_NO_MODEL_FOLDERS = frozenset({"configs", "custom_nodes"})


def add_model_routes(routes: web.RouteTableDef) -> None:
    """Add /models, /embeddings, /view_metadata and /experiment/models."""

    @routes.get("/embeddings")
    async def get_embeddings(_: web.Request) -> web.Response:
        names = await asyncio.to_thread(folder_paths.get_filename_list, "embeddings")
        return web.json_response([os.path.splitext(name)[0] for name in names])

    @routes.get("/models")
    async def get_folders(_: web.Request) -> web.Response:
        return web.json_response(list(folder_paths.folder_names_and_paths))

    @routes.get("/models/{folder}")
    async def get_models(request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(await asyncio.to_thread(folder_paths.get_filename_list, folder))

    @routes.get("/view_metadata/{folder_name}")
    async def view_metadata(request: web.Request) -> web.Response:
        name = request.query.get("filename", "")
        path = folder_paths.get_full_path(request.match_info["folder_name"], name)
        if not name.endswith(".safetensors") or path is None:
            return web.Response(status=404)
        header = await asyncio.to_thread(read_safetensors_header, path)
        if not header or "__metadata__" not in header:
            return web.Response(status=404)
        return web.json_response(header["__metadata__"])

    @routes.get("/experiment/models")
    async def get_model_folders(_: web.Request) -> web.Response:
        folders = [
            # The endings are of ComfyUI 0.28.
            {"name": name, "folders": folder_paths.get_folder_paths(name), "extensions": sorted(entry[1])}
            for name, entry in folder_paths.folder_names_and_paths.items()
            if name not in _NO_MODEL_FOLDERS
        ]
        return web.json_response(folders)

    @routes.get("/experiment/models/{folder}")
    async def get_model_files(request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(await asyncio.to_thread(_describe_models, folder))

    @routes.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}")
    async def get_model_preview(request: web.Request) -> web.Response:
        match = request.match_info
        status, image = await asyncio.to_thread(_read_preview, match["folder"], match["path_index"], match["filename"])
        if image is None:
            return web.Response(status=status)
        return web.Response(body=image, content_type="image/webp")


def _read_preview(folder_name: str, path_index: str, filename: str) -> tuple[int, bytes | None]:
    """A model's picture as WEBP, or the status that says why there is none.

    Args:
        path_index: which of the folders of that name, from 0.
        filename: of the model, relative to that folder; its ending does not matter.

    Statuses are those of ComfyUI 0.28; 0.3.64 fails (500) where they are 400, and reads any folder.
    """
    if folder_name not in folder_paths.folder_names_and_paths:
        return 404, None
    if not filename or not path_index.isdecimal():
        return 400, None
    folders = folder_paths.get_folder_paths(folder_name)
    if int(path_index) >= len(folders):
        return 404, None
    folder = folders[int(path_index)]
    path = os.path.normpath(os.path.join(folder, filename))
    if not folder_paths.is_within_directory(folder, path):
        return 403, None
    picture = next(_pictures_of(path), None)
    if isinstance(picture, str) and not folder_paths.is_within_directory(folder, picture):
        return 403, None
    return (404, None) if picture is None else _encode_webp(picture)


def _pictures_of(path: str) -> Iterator[str | io.BytesIO]:
    """Where pictures of a model are: files beside it of its name (or name.preview), then those it contains."""
    stem = os.path.splitext(path)[0]
    beside = sorted(glob.glob(f"{glob.escape(stem)}.*"))
    for file in folder_paths.filter_files_content_types(beside, ["image"]):
        if os.path.splitext(file)[0] in (stem, f"{stem}.preview") and os.path.isfile(file):
            yield file
    for file in beside:
        if file.endswith(".safetensors"):
            yield from _covers_in(read_safetensors_header(file, _MAX_COVER_HEADER) or {})


def _covers_in(header: dict[str, Any]) -> Iterator[io.BytesIO]:
    """The pictures a safetensors header contains; none where they are written wrongly."""
    try:
        covers = json.loads(header.get("__metadata__", {}).get("ssmd_cover_images") or "[]")
        yield from [io.BytesIO(base64.b64decode(cover)) for cover in covers]
    except (AttributeError, TypeError, ValueError) as exc:
        logger.warning("The pictures in a model's header cannot be read: %s", exc)


def _encode_webp(picture: str | io.BytesIO) -> tuple[int, bytes | None]:
    """An image file as WEBP; 404 for what is none."""
    from PIL import Image

    file = io.BytesIO()
    try:
        with Image.open(picture) as image:
            image.save(file, format="WEBP")
    except (OSError, ValueError):
        return 404, None
    return 200, file.getvalue()


def read_safetensors_header(path: str, max_length: int = _MAX_HEADER) -> dict[str, Any] | None:
    """The header of a safetensors file: 8 bytes little-endian length, then JSON.

    None for a file that is none, or whose header is longer than ``max_length`` bytes.
    """
    with Path(path).open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return None
        (length,) = struct.unpack("<Q", start)
        if length > max_length:
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return None
    return header if isinstance(header, dict) else None


def _describe_models(folder_name: str) -> list[dict[str, Any]]:
    """The model files of a folder name, with size in bytes and times in seconds since 1970."""
    described = []
    for index, folder in enumerate(folder_paths.get_folder_paths(folder_name)):
        files, _ = folder_paths.recursive_search(folder, excluded_dir_names=[".git"])
        for name in folder_paths.filter_files_extensions(files, folder_paths.supported_pt_extensions):
            if any(part.startswith(".") for part in Path(name).parts):
                continue
            stat = os.stat(os.path.join(folder, name))
            times = {"modified": stat.st_mtime, "created": stat.st_ctime}
            described.append({"name": name, "pathIndex": index, **times, "size": stat.st_size})
    return described
