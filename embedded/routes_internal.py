"""HTTP routes for the editor alone, under /internal: the log, folders and their files."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

from aiohttp import web

from . import folder_paths, log_buffer

if TYPE_CHECKING:
    from .server import PromptServer


def make_internal_app(server: PromptServer) -> web.Application:
    """The application that is mounted under /internal (and, as in ComfyUI, not under /api/internal)."""
    routes = web.RouteTableDef()
    # Clients that want log lines as they come.
    subscribers: set[str] = set()
    terminal = _Terminal()

    @routes.get("/logs")
    async def get_logs(_: web.Request) -> web.Response:
        return web.json_response("".join(f"{entry['t']} - {entry['m']}" for entry in log_buffer.get_logs()))

    @routes.get("/logs/raw")
    async def get_raw_logs(_: web.Request) -> web.Response:
        return web.json_response({"entries": log_buffer.get_logs(), "size": terminal.look()})

    @routes.patch("/logs/subscribe")
    async def subscribe_logs(request: web.Request) -> web.Response:
        body = await request.json()
        if body["enabled"]:
            subscribers.add(body["clientId"])
        else:
            subscribers.discard(body["clientId"])
        return web.Response(status=200)

    @routes.get("/folder_paths")
    async def get_folder_paths(_: web.Request) -> web.Response:
        names = folder_paths.folder_names_and_paths
        return web.json_response({name: folder_paths.get_folder_paths(name) for name in names})

    @routes.get("/files/{directory_type}")
    async def get_files(request: web.Request) -> web.Response:
        directory = folder_paths.get_directory_by_type(request.match_info["directory_type"])
        if directory is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        return web.json_response(await asyncio.to_thread(_newest_first, directory))

    def send_to_subscribers(entries: list[dict[str, str]]) -> None:
        if not subscribers:
            return
        message = {"entries": entries, "size": terminal.look_for_change()}
        for client_id in list(subscribers):
            if server.has_listener(client_id):
                server.send_sync("logs", message, client_id)
            else:
                subscribers.discard(client_id)

    log_buffer.on_entries(send_to_subscribers)
    app = web.Application()
    app.add_routes(routes)
    return app


def _newest_first(directory: str) -> list[str]:
    """The names of a folder's files, the one that was changed last first."""
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.is_file()]
    files.sort(key=lambda entry: -entry.stat().st_mtime)
    return [entry.name for entry in files]


class _Terminal:
    """The size of the server's terminal, for the editor's log panel to wrap lines as it does."""

    def __init__(self) -> None:
        # As clients know it; None: nobody has been told.
        self._known: dict[str, int] | None = None

    def look(self) -> dict[str, int]:
        """The size: {"cols": ..., "rows": ...}, in characters."""
        size = shutil.get_terminal_size()
        self._known = {"cols": size.columns, "rows": size.lines}
        return self._known

    def look_for_change(self) -> dict[str, int] | None:
        """The size if it is not what clients know, else None."""
        known = self._known
        return None if self.look() == known else self._known
