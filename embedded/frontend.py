"""The editor's files, from the installed ``comfyui-frontend-package``."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.frontend")

_TEMPLATES_PACKAGE = "comfyui_workflow_templates"

_NO_FRONTEND = (
    "<!doctype html><title>Discomfort</title><p>The server runs, but there is no editor: install "
    "<code>comfyui-frontend-package</code> into the server's Python environment, or start it with "
    "<code>--front-end-root FOLDER</code>."
)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_web_root(chosen: str | None) -> str | None:
    """The folder of the editor's files: the one chosen, else that of the installed package, else None."""
    if chosen is not None:
        if not Path(chosen, "index.html").is_file():
            logger.warning("--front-end-root %s has no index.html", chosen)
        return str(Path(chosen).absolute())
    return _package_folder("comfyui_frontend_package", "static")


def add_root_route(server: PromptServer) -> None:
    """Add GET /: the editor, never cached, so that an update is seen."""

    @server.routes.get("/")
    async def get_root(_: web.Request) -> web.StreamResponse:
        response: web.StreamResponse
        if server.web_root is not None:
            response = web.FileResponse(Path(server.web_root, "index.html"))
        else:
            response = web.Response(text=_NO_FRONTEND, content_type="text/html", status=404)
        response.headers.update({"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"})
        return response


def add_statics(app: web.Application, web_root: str | None) -> None:
    """Serve the editor's files, and workflow templates and node help where those packages are installed."""
    templates = _package_folder(_TEMPLATES_PACKAGE, "templates")
    if templates:
        app.add_routes([web.static("/templates", templates)])
    elif importlib.util.find_spec(_TEMPLATES_PACKAGE):
        app.router.add_get("/templates/{path:.*}", _TemplateFiles().get_file)
    else:
        # The editor asks for the list whether or not there is one.
        app.router.add_get("/templates/index.json", _no_templates)
    docs = _package_folder("comfyui_embedded_docs", "docs")
    if docs:
        app.add_routes([web.static("/docs", docs)])
    if web_root is not None and Path(web_root).is_dir():
        app.add_routes([web.static("/", web_root)])


class _TemplateFiles:
    """The files of ``comfyui-workflow-templates`` since 0.3, which are spread over several packages."""

    def __init__(self) -> None:
        # Name in the URL -> path; None until somebody has asked for one.
        self._paths: dict[str, str] | None = None
        self._lock = threading.Lock()

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        """GET /templates/{path}."""
        path = await asyncio.to_thread(self._find, request.match_info["path"])
        return web.FileResponse(path) if path is not None else web.Response(status=404)

    def _find(self, name: str) -> str | None:
        """The path of a file, None if there is none of this name."""
        with self._lock:
            if self._paths is None:
                self._paths = dict(self._list())
            return self._paths.get(name)

    def _list(self) -> Iterator[tuple[str, str]]:
        """Name and path of every file that is installed."""
        package = importlib.import_module(_TEMPLATES_PACKAGE)
        for template in package.iter_templates():
            for asset in template.assets:
                try:
                    yield asset.filename, package.get_asset_path(template.template_id, asset.filename)
                except FileNotFoundError as exc:
                    # Pictures are in packages of their own, which need not all be there.
                    logger.debug("A workflow template lacks a file: %s", exc)


async def _no_templates(_: web.Request) -> web.Response:
    return web.json_response([])


def _package_folder(package: str, folder: str) -> str | None:
    """A folder inside an installed package, which is not imported for that; None if it is not there."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, folder)
        if path.is_dir():
            return str(path)
    return None
