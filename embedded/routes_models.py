"""HTTP routes that list model files. This server runs none, but packages may, and the editor asks."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from pathlib import Path
from typing import Any

from aiohttp import web

from . import folder_paths

# Bytes; a longer safetensors header is not read.
_MAX_HEADER = 1024 * 1024

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
        names = [name for name in folder_paths.folder_names_and_paths if name not in _NO_MODEL_FOLDERS]
        return web.json_response([{"name": name, "folders": folder_paths.get_folder_paths(name)} for name in names])

    @routes.get("/experiment/models/{folder}")
    async def get_model_files(request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(await asyncio.to_thread(_describe_models, folder))

    @routes.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}")
    async def get_model_preview(request: web.Request) -> web.Response:
        # Pictures beside model files are not looked for: there are no models to choose from.
        return web.Response(status=404)


def read_safetensors_header(path: str) -> dict[str, Any] | None:
    """The header of a safetensors file: 8 bytes little-endian length, then JSON. None if it is none."""
    with Path(path).open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return None
        (length,) = struct.unpack("<Q", start)
        if length > _MAX_HEADER:
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
