"""The editor's files, from the installed ``comfyui-frontend-package``, and what this server adds to them.

A newcomer sees templates first (``workflow_templates.py``), and behind them the editor's default workflow, which needs
models. So a script (``web/``) shows a template in its place where the nodes for it are not there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from .workflow_templates import WorkflowTemplates

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.frontend")

# This server's own scripts for the editor: their name in /extensions, and their folder.
EXTENSION_NAME = "discomfort.embedded"
EXTENSION_FOLDER = str(Path(__file__).with_name("web"))

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
    """Serve the editor's files, workflow templates, and node help where that package is installed."""
    WorkflowTemplates().add_routes(app.router)
    docs = _package_folder("comfyui_embedded_docs", "docs")
    if docs:
        app.add_routes([web.static("/docs", docs)])
    if web_root is not None and Path(web_root).is_dir():
        app.add_routes([web.static("/", web_root)])


def _package_folder(package: str, folder: str) -> str | None:
    """A folder inside an installed package, which is not imported for that; None if it is not there."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, folder)
        if path.is_dir():
            return str(path)
    return None
