"""The editor's files, from the installed ``comfyui-frontend-package``, and what makes it useful without models.

What a newcomer sees first is the editor's template browser, or its default workflow. Both need models, or a package
of templates; so this server brings a few templates that run on it (``templates/``), and a script that shows one of them
instead of the default workflow where the nodes of that are not there (``web/``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.frontend")

# This server's own scripts for the editor: their name in /extensions, and their folder.
EXTENSION_NAME = "discomfort.embedded"
EXTENSION_FOLDER = str(Path(__file__).with_name("web"))

# Workflows that need no models: index.json as in the package comfyui-workflow-templates, <name>.json, <name>-1.webp.
_OWN_TEMPLATES = Path(__file__).with_name("templates")
# What newer editors ask for beside them, and newer packages have: logos of model makers, how the search weighs.
_LISTS = frozenset({"index_logo.json", "fuse_options.json"})

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
    _add_templates(app, _package_folder("comfyui_workflow_templates", "templates"))
    docs = _package_folder("comfyui_embedded_docs", "docs")
    if docs:
        app.add_routes([web.static("/docs", docs)])
    if web_root is not None and Path(web_root).is_dir():
        app.add_routes([web.static("/", web_root)])


def _add_templates(app: web.Application, installed: str | None) -> None:
    """Serve this server's templates under /templates, and those of the installed package behind them.

    Args:
        installed: the package's folder, None without it.
    """

    async def get_index(request: web.Request) -> web.Response:
        return web.json_response(list_templates(installed, request.match_info["language"]))

    # "index.json", and "index.fr.json" for another language of the editor.
    app.router.add_get(r"/templates/index{language:(\.[\w-]+)?}.json", get_index)
    for file in sorted(_OWN_TEMPLATES.iterdir()):
        if file.name not in _LISTS or not (installed and Path(installed, file.name).is_file()):
            app.router.add_get(f"/templates/{file.name}", _file_handler(file))
    if installed:
        app.add_routes([web.static("/templates", installed)])


def _file_handler(file: Path) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    """A handler that answers with a file."""

    async def handle(_: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    return handle


def list_templates(installed: str | None, language: str = "") -> list[dict[str, Any]]:
    """The categories of workflow templates: this server's own come first, then those of the installed package.

    A category both have becomes one: the editor opens "Getting Started" for a newcomer, and there is only one of it.

    Args:
        installed: the package's folder, None without it.
        language: ``".fr"`` for French; the package's English list where it has none of that language.
    """
    categories = _read_categories(_OWN_TEMPLATES / "index.json")
    if installed:
        files = (Path(installed, f"index{language}.json"), Path(installed, "index.json"))
        for category in next((_read_categories(file) for file in files if file.is_file()), []):
            same = next((own for own in categories if own["title"] == category.get("title")), None)
            if same is None:
                categories.append(category)
            else:
                same["templates"] += category["templates"]
    return categories


def _read_categories(file: Path) -> list[dict[str, Any]]:
    """The content of an index.json."""
    categories: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return categories


def _package_folder(package: str, folder: str) -> str | None:
    """A folder inside an installed package, which is not imported for that; None if it is not there."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, folder)
        if path.is_dir():
            return str(path)
    return None
