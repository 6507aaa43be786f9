"""HTTP routes about what the editor keeps on the server: settings, workflows and other files of its users.

Files are in ``<user folder>/<user>/``; without ``--multi-user`` the one user is ``default``. No path a client
sends leads out of there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from . import folder_paths
from .arguments import args
from .routes_files import Refused, download_headers

logger = logging.getLogger("discomfort.embedded.routes_users")

_SETTINGS_FILE = "comfy.settings.json"
# A user's own styles for the editor.
_OWN_STYLES = "user.css"

# Answers a request whose body has been read.
Handler = Callable[[web.Request, bytes], web.StreamResponse]


class Settings:
    """The editor's settings of each user (``user_manager.settings`` for packages)."""

    def __init__(self, user_data: UserData) -> None:
        self._user_data = user_data
        # Held from reading to writing: the editor stores several settings at once, each by a request of its own.
        self._changing = threading.Lock()

    def get_settings(self, request: web.Request) -> dict[str, Any]:
        """All settings of the user who makes a request; empty where there are none, or the file is damaged.

        Raises:
            web.HTTPUnauthorized: there is no such user.
        """
        settings = _read_json(self._path(request), {})
        return settings if isinstance(settings, dict) else {}

    def save_settings(self, request: web.Request, settings: dict[str, Any]) -> None:
        """Put these in place of all settings; raises as :meth:`get_settings`."""
        _write_json(self._path(request), settings)

    def change_settings(self, request: web.Request, changes: dict[str, Any]) -> None:
        """Set some settings, and leave the others; raises as :meth:`get_settings`. Any thread."""
        with self._changing:
            self.save_settings(request, {**self.get_settings(request), **changes})

    def _path(self, request: web.Request) -> str:
        try:
            path = self._user_data.get_request_user_filepath(request, _SETTINGS_FILE)
        except KeyError as exc:
            raise web.HTTPUnauthorized() from exc
        # The name is ours, so it cannot lead out.
        return str(path)


class UserData:
    """The users and their files (``PromptServer.instance.user_manager`` for packages)."""

    def __init__(self) -> None:
        self.settings = Settings(self)
        # User id -> name.
        self.users: dict[str, str] = {"default": "default"}
        # Held from looking for a name to writing it down.
        self._adding = threading.Lock()
        if args.multi_user:
            self.users = _read_json(self.get_users_file(), {})

    # -- paths ---------------------------------------------------------------------------------------------

    def get_request_user_id(self, request: web.Request) -> str:
        """Who makes a request (KeyError: a user that is not there)."""
        user = request.headers.get("comfy-user", "default") if args.multi_user else "default"
        # Packages keep things in folders with the prefix, as if those were users.
        is_system = args.multi_user and user.startswith(folder_paths.SYSTEM_USER_PREFIX)
        if is_system or user not in self.users:
            raise KeyError(f"Unknown user: {user}")
        return user

    def get_request_user_filepath(
        self, request: web.Request, file: str | None, type: str = "userdata", create_dir: bool = True
    ) -> str | None:
        """The path of a user's file.

        Args:
            file: relative to the user's folder, possibly URL-encoded; None: that folder.
            create_dir: create the folder the file is in.

        Returns:
            None if the path leads out of the user's folder.

        Raises:
            KeyError: a user that is not there.
        """
        if type != "userdata":
            raise KeyError(f"Unknown filepath type: {type}")
        folder = folder_paths.get_public_user_directory(self.get_request_user_id(request))
        if folder is None:
            return None
        root = os.path.abspath(folder)
        path = root if file is None else os.path.abspath(os.path.join(root, unquote(file)))
        if os.path.commonpath((root, path)) != root:
            return None
        if create_dir:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def get_users_file(self) -> str:
        """Where the names of several users are kept."""
        return os.path.join(folder_paths.get_user_directory(), "users.json")

    def add_user(self, name: str) -> str:
        """Add a user; returns the id, which is also the name of the folder.

        Raises:
            ValueError: there is no such name, or it is one that packages keep things under.
        """
        name = name.strip()
        if not name:
            raise ValueError("username not provided")
        start = re.sub(r"[^a-zA-Z0-9\-_]+", "-", name)
        if start.startswith(folder_paths.SYSTEM_USER_PREFIX):
            raise ValueError("System User prefix not allowed")
        user_id = f"{start}_{uuid.uuid4()}"
        self.users[user_id] = name
        _write_json(self.get_users_file(), self.users)
        return user_id

    # -- routes --------------------------------------------------------------------------------------------

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Add /settings, /users, /userdata and /v2/userdata."""
        routes.get("/settings")(_in_thread(self._get_settings))
        routes.post("/settings")(_in_thread(self._post_settings))
        routes.get("/settings/{id}")(_in_thread(self._get_setting))
        routes.post("/settings/{id}")(_in_thread(self._post_setting))
        routes.get("/users")(_in_thread(self._get_users))
        routes.post("/users")(_in_thread(self._post_users))
        routes.get("/userdata")(_in_thread(self._list_files))
        routes.get("/v2/userdata")(_in_thread(self._list_entries))
        routes.get("/userdata/{file}")(_in_thread(self._get_file))
        routes.post("/userdata/{file}")(_in_thread(self._post_file))
        routes.delete("/userdata/{file}")(_in_thread(self._delete_file))
        routes.post("/userdata/{file}/move/{dest}")(_in_thread(self._move_file))

    def _get_settings(self, request: web.Request, body: bytes) -> web.Response:
        return web.json_response(self.settings.get_settings(request))

    def _post_settings(self, request: web.Request, body: bytes) -> web.Response:
        self.settings.change_settings(request, json.loads(body))
        return web.Response(status=200)

    def _get_setting(self, request: web.Request, body: bytes) -> web.Response:
        return web.json_response(self.settings.get_settings(request).get(request.match_info["id"]))

    def _post_setting(self, request: web.Request, body: bytes) -> web.Response:
        self.settings.change_settings(request, {request.match_info["id"]: json.loads(body)})
        return web.Response(status=200)

    def _get_users(self, request: web.Request, body: bytes) -> web.Response:
        if args.multi_user:
            return web.json_response({"storage": "server", "users": self.users})
        folder = self.get_request_user_filepath(request, None, create_dir=False)
        return web.json_response({"storage": "server", "migrated": os.path.exists(str(folder))})

    def _post_users(self, request: web.Request, body: bytes) -> web.Response:
        name = json.loads(body)["username"]
        with self._adding:
            if name in self.users.values():
                return web.json_response({"error": "Duplicate username."}, status=400)
            try:
                return web.json_response(self.add_user(name))
            except ValueError as exc:
                return web.json_response({"error": str(exc)}, status=400)

    def _list_files(self, request: web.Request, body: bytes) -> web.Response:
        """The files of a folder: as relative paths, as paths with their parts, or with size and times."""
        directory = request.query.get("dir", "")
        if not directory:
            return web.Response(status=400, text="Directory not provided")
        path = self.get_request_user_filepath(request, directory)
        if not path:
            return web.Response(status=403, text="Invalid directory")
        if not os.path.exists(path):
            return web.Response(status=404, text="Directory not found")
        # A file has no files below it.
        files = sorted(_files_in(path, recurse=_flag(request, "recurse"))) if os.path.isdir(path) else []
        listing: list[Any] = [_relative(file, path) for file in files]
        if _flag(request, "full_info"):
            listing = [describe_file(file, path) for file in files]
        elif _flag(request, "split"):
            listing = [[name, *name.split("/")] for name in listing]
        return web.json_response(listing)

    def _list_entries(self, request: web.Request, body: bytes) -> web.Response:
        """Everything below a folder, folders first."""
        try:
            base = str(self.get_request_user_filepath(request, None, create_dir=False))
            path = self.get_request_user_filepath(request, request.query.get("path") or None, create_dir=False)
        except KeyError:
            return web.Response(status=403, text="Invalid user specified in request")
        if not path:
            return web.Response(status=400, text="Invalid path requested")
        if not os.path.exists(path):
            if path == base:
                return web.json_response([])
            return web.Response(status=404, text="Requested path not found")
        if not os.path.isdir(path):
            return web.Response(status=400, text="Requested path is not a directory")
        entries: list[dict[str, Any]] = []
        for folder, folders, files in os.walk(path):
            for name in folders:
                where = _relative(os.path.join(folder, name), base)
                entries.append({"name": name, "path": where, "type": "directory"})
            for name in files:
                file = os.path.join(folder, name)
                entry = {"name": name, "path": _relative(file, base), "type": "file"}
                stat = os.stat(file)
                entries.append({**entry, "size": stat.st_size, "modified": stat.st_mtime})
        entries.sort(key=lambda entry: (entry["type"] != "directory", entry["name"].lower()))
        return web.json_response(entries)

    def _get_file(self, request: web.Request, body: bytes) -> web.StreamResponse:
        path = self._requested_path(request, must_exist=True)
        headers = download_headers(path)
        if path == self.get_request_user_filepath(request, _OWN_STYLES, create_dir=False):
            # The editor links it as its style sheet (ComfyUI 0.30; 0.28 let no editor read it).
            headers.update({"Content-Type": "text/css", "Content-Disposition": "inline"})
        else:
            # Nothing else here is to be looked at in a browser (ComfyUI 0.28).
            headers["Content-Disposition"] = "attachment"
        return web.FileResponse(path, headers=headers)

    def _post_file(self, request: web.Request, body: bytes) -> web.Response:
        path = self._requested_path(request)
        if request.query.get("overwrite") == "false" and os.path.exists(path):
            return web.Response(status=409, text="File already exists")
        try:
            Path(path).write_bytes(body)
        except OSError as exc:
            logger.warning("Error saving file %r: %s", path, exc)
            reason = 'Invalid filename. Please avoid special characters like :\\/*?"<>|'
            return web.Response(status=400, reason=reason)
        return self._describe(request, path)

    def _delete_file(self, request: web.Request, body: bytes) -> web.Response:
        os.remove(self._requested_path(request, must_exist=True))
        return web.Response(status=204)

    def _move_file(self, request: web.Request, body: bytes) -> web.Response:
        source = self._requested_path(request, must_exist=True)
        destination = self._requested_path(request, parameter="dest")
        if request.query.get("overwrite") == "false" and os.path.exists(destination):
            return web.Response(status=409, text="File already exists")
        logger.info("moving %r -> %r", source, destination)
        shutil.move(source, destination)
        return self._describe(request, destination)

    def _requested_path(self, request: web.Request, must_exist: bool = False, parameter: str = "file") -> str:
        """The path a URL names; refuses with 400, 403 or 404."""
        file = request.match_info.get(parameter)
        if not file:
            raise Refused(400)
        path = self.get_request_user_filepath(request, file)
        if not path:
            raise Refused(403)
        if must_exist and not os.path.exists(path):
            raise Refused(404)
        return path

    def _describe(self, request: web.Request, path: str) -> web.Response:
        """The answer after a file was written or moved."""
        root = str(self.get_request_user_filepath(request, None))
        if _flag(request, "full_info"):
            return web.json_response(describe_file(path, root))
        return web.json_response(os.path.relpath(path, root))


def _in_thread(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that works on files, made one that does not hold up the event loop."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await asyncio.to_thread(handler, request, await request.read())
        except Refused as refusal:
            return web.Response(status=refusal.status)

    return handle


def describe_file(path: str, relative_to: str) -> dict[str, Any]:
    """A file as the editor's lists have it; times in seconds since 1970, size in bytes."""
    stat = os.stat(path)
    return {
        "path": _relative(path, relative_to),
        "size": stat.st_size,
        "modified": stat.st_mtime,
        "created": stat.st_ctime,
    }


def _files_in(folder: str, recurse: bool) -> Iterator[str]:
    """The files of a folder; hidden ones (a dot in front) and hidden folders are left out."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry.path
        elif recurse and entry.is_dir():
            yield from _files_in(entry.path, recurse)


def _relative(path: str, to: str) -> str:
    return os.path.relpath(path, to).replace(os.sep, "/")


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _read_json(path: str, default: Any) -> Any:
    """A JSON file's content, the default if it is not there or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError:
        logger.error("%s is no valid JSON and is taken as empty", path)
        return default


def _write_json(path: str, data: Any) -> None:
    """Write a JSON file in one step: a crash leaves the old one or the new one."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    Path(temporary).write_text(json.dumps(data, indent=4), encoding="utf-8")
    os.replace(temporary, path)
