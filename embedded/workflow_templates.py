"""Workflow templates: what the editor offers a newcomer first.

The editor's own ones are a package (``comfyui-workflow-templates``), and most need models. This server brings a few
that run on it (``templates/``: index.json in the package's format, <name>.json, <name>-1.webp); those of the package,
where it is installed, come behind.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

logger = logging.getLogger("discomfort.embedded.workflow_templates")

PACKAGE = "comfyui_workflow_templates"
_OWN_FOLDER = Path(__file__).with_name("templates")
# Lists beside index.json that the package's replace: logos of model makers, how the search weighs.
_REPLACED = frozenset({"index_logo.json", "fuse_options.json"})


class WorkflowTemplates:
    """The files below /templates. Safe to use from several threads."""

    def __init__(self) -> None:
        # Name in the URL -> path, of this server's files and of the package's; None until somebody has asked.
        self._own: dict[str, Path] | None = None
        self._installed: dict[str, Path] = {}
        self._lock = threading.Lock()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add GET /templates/..."""
        # "index.json", and "index.fr.json" for another language of the editor.
        router.add_get(r"/templates/index{language:(\.[\w-]+)?}.json", self._get_index)
        router.add_get("/templates/{name:.*}", self._get_file)

    async def _get_index(self, request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(self.list_categories, request.match_info["language"]))

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        path = await asyncio.to_thread(self.find, request.match_info["name"])
        return web.FileResponse(path) if path is not None else web.Response(status=404)

    def find(self, name: str) -> Path | None:
        """A file by its name, None if there is none. A template of this server is the one of its name."""
        own, installed = self._files()
        found = installed.get(name) if name in _REPLACED else None
        return found or own.get(name) or installed.get(name)

    def list_categories(self, language: str = "") -> list[dict[str, Any]]:
        """The content of index.json: this server's categories, then those of the installed package.

        A category both have becomes one: the editor opens "Getting Started" for a newcomer, and there is only one.

        Args:
            language: ``".fr"`` for French; the package's English list where it has none of that language.
        """
        own, installed = self._files()
        categories = _read_categories(own["index.json"])
        file = installed.get(f"index{language}.json") or installed.get("index.json")
        for category in _read_categories(file) if file else []:
            same = next((own for own in categories if own["title"] == category.get("title")), None)
            if same is None:
                categories.append(category)
            else:
                same["templates"] += category["templates"]
        return categories

    def _files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """This server's files and the package's."""
        with self._lock:
            if self._own is None:
                self._installed = dict(_installed_files())
                self._own = dict(_files_below(_OWN_FOLDER))
            return self._own, self._installed


def _read_categories(file: Path) -> list[dict[str, Any]]:
    """The content of an index.json."""
    categories: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return categories


def _installed_files() -> Iterator[tuple[str, Path]]:
    """Name in the URL and path of all files of the package; nothing without it.

    Until 0.2 they lie in one folder, since 0.3 they are spread over several packages.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        return
    folders = [Path(location, "templates") for location in spec.submodule_search_locations or []]
    if any(folder.is_dir() for folder in folders):
        for folder in folders:
            yield from _files_below(folder)
        return
    package = importlib.import_module(PACKAGE)
    for template in package.iter_templates():
        for asset in template.assets:
            try:
                yield asset.filename, Path(package.get_asset_path(template.template_id, asset.filename))
            except FileNotFoundError as exc:
                # Pictures are in packages of their own, which need not all be there.
                logger.debug("A workflow template lacks a file: %s", exc)


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name relative to a folder, and path, of all files in it."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path
