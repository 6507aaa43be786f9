"""HTTP routes to what node packages bring for the editor: scripts, translations, example workflows, subgraphs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from . import folder_paths, node_registry
from .small_names import merge_json_recursive

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.routes_packs")

# Names packages give the folder of their example workflows.
_EXAMPLE_FOLDERS = ("example_workflows", "example", "examples", "workflow", "workflows")
# Translation files beside main.json; each becomes a key of its own.
_EXTRA_LOCALES = ("nodeDefs", "commands", "settings")


def add_pack_routes(server: PromptServer) -> None:
    """Add /extensions, /workflow_templates, /i18n and /global_subgraphs."""
    routes = server.routes

    @routes.get("/extensions")
    async def get_extensions(_: web.Request) -> web.Response:
        urls = await asyncio.to_thread(list_extensions, server.web_root, node_registry.EXTENSION_WEB_DIRS)
        return web.json_response(urls)

    @routes.get("/workflow_templates")
    async def get_workflow_templates(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(list_workflow_templates))

    @routes.get("/i18n")
    async def get_i18n(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(read_all_translations))

    @routes.get("/global_subgraphs")
    async def get_global_subgraphs(_: web.Request) -> web.Response:
        found = await asyncio.to_thread(lambda: list(_subgraphs()))
        return web.json_response({key: entry for key, entry, _ in found})

    @routes.get("/global_subgraphs/{id}")
    async def get_global_subgraph(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(_read_subgraph, request.match_info["id"]))


def add_pack_statics(app: web.Application, web_folders: Mapping[str, str], loaded_folders: Mapping[str, str]) -> None:
    """Serve the packages' browser files and example workflows.

    Args:
        web_folders: name in the URL -> folder.
        loaded_folders: name of a package -> its folder.
    """
    for name, folder in web_folders.items():
        # Packages add to the table themselves, too, and aiohttp refuses what is no folder with an error.
        if os.path.isdir(folder):
            app.add_routes([web.static("/extensions/" + quote(name), folder)])
        else:
            logger.warning("The browser files of %s are left out: %s is no folder", name, folder)
    for name, folder in loaded_folders.items():
        for example_folder in _EXAMPLE_FOLDERS:
            path = Path(folder, example_folder)
            # A single-file package is named by its path, which is not part of a URL.
            if path.is_dir() and not os.path.isabs(name):
                app.add_routes([web.static("/api/workflow_templates/" + quote(name), path)])


def list_extensions(web_root: str | None, web_folders: Mapping[str, str]) -> list[str]:
    """The URLs of all scripts the editor is to load: its own, then the packages'."""
    urls = []
    if web_root is not None:
        root = Path(web_root)
        urls = ["/" + file.relative_to(root).as_posix() for file in sorted(root.glob("extensions/**/*.js"))]
    for name, folder in web_folders.items():
        for file in sorted(Path(folder).glob("**/*.js")):
            urls.append(f"/extensions/{quote(name)}/{file.relative_to(folder).as_posix()}")
    return urls


def list_workflow_templates() -> dict[str, list[str]]:
    """The packages' example workflows: folder name -> file names without ending."""
    templates: dict[str, list[str]] = {}
    for name, folder in _packages():
        for example_folder in _EXAMPLE_FOLDERS:
            for file in sorted(Path(folder, example_folder).glob("*.json")):
                templates.setdefault(name, []).append(file.stem)
    return templates


def read_all_translations() -> dict[str, Any]:
    """The translations of all packages as one, by language."""
    translations: dict[str, Any] = {}
    for _name, folder in _packages():
        translations = merge_json_recursive(translations, read_translations(Path(folder, "locales")))
    return translations


def read_translations(locales: Path) -> dict[str, Any]:
    """A package's translations: language -> content of main.json, with the extra files as keys."""
    translations: dict[str, Any] = {}
    for language in sorted(path for path in locales.glob("*") if path.is_dir()):
        texts = _read_json(language / "main.json")
        for name in _EXTRA_LOCALES:
            extra = _read_json(language / f"{name}.json")
            if extra:
                texts[name] = extra
        if texts:
            translations[language.name] = texts
    return translations


def _packages() -> Iterator[tuple[str, str]]:
    """Name and folder of the packages that are folders; as in ComfyUI of all that are installed, loaded or not."""
    installed = set()
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for path in sorted(Path(folder).glob("*")):
            if path.is_dir() and not path.name.startswith("."):
                installed.add(path.name)
                yield path.name, str(path)
    # This project's own package need not be in one of those folders.
    for name, folder in node_registry.LOADED_MODULE_DIRS.items():
        if not os.path.isabs(name) and name not in installed:
            yield name, folder


def _subgraphs() -> Iterator[tuple[str, dict[str, Any], Path]]:
    """The packages' subgraph blueprints: id, description, file."""
    for name, folder in _packages():
        for file in sorted(Path(folder, "subgraphs").glob("*.json")):
            key = hashlib.sha256(f"custom_node{file.as_posix()}".encode()).hexdigest()
            info = {"node_pack": f"custom_nodes.{name}"}
            yield key, {"source": "custom_node", "name": file.stem, "info": info}, file


def _read_subgraph(key: str) -> dict[str, Any] | None:
    """A subgraph blueprint with its content, None if there is none of this id."""
    for found, entry, file in _subgraphs():
        if found == key:
            return {**entry, "data": file.read_text(encoding="utf-8")}
    return None


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object, empty if the file is not there or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        logger.error("%s is no valid JSON and is left out", file)
        return {}
    return content if isinstance(content, dict) else {}
