"""The list of runs, the settings of the sidebar, and the nested server that the runner nodes keep."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from pathlib import Path
from typing import Any

from aiohttp import web

from ..durable.run_folder import RunRecordFolder
from ..observing import run_history
from .answering import RefusedError, answer, encode, encoded_answer, read_json, texts_of
from .hub import Hub
from .publication import Publication

log = logging.getLogger("discomfort.editor")

Json = dict[str, Any]

# Characters of a port's name, and how many breakpoints there may be.
_NAME, _BREAKPOINTS = 1000, 200

_NO_SERVER = {"state": "stopped", "description": "", "idle_timeout": 0.0}


class StateRoutes:
    """Handlers of /discomfort/state, /discomfort/settings and /discomfort/server/stop."""

    def __init__(self, hub: Hub, publication: Publication) -> None:
        self._hub = hub
        self._publication = publication

    async def get_state(self, request: web.Request) -> web.StreamResponse:
        """Everything that the sidebar's list shows. Whoever asks is a browser: from now on scripts come here."""
        await self._publication.publish(request)
        return encoded_answer(await asyncio.to_thread(self._state))

    def _state(self) -> bytes:
        """The body of the answer. Blocks: reads two lines of every run."""
        runs = [run_entry(head, self._hub.status_of(head.run_id)) for head in run_history.list_runs()]
        return encode({"runs": runs, **self._hub.settings(), "server": _server_status(), "version": _version()})

    async def post_settings(self, request: web.Request) -> web.StreamResponse:
        """Set breakpoints and whether runs pause at their start; what is left out stays."""
        content = await read_json(request)
        names = texts_of(content, "breakpoints", _BREAKPOINTS, _NAME) if "breakpoints" in content else None
        pauses = content.get("pause_at_start")
        if pauses is not None and not isinstance(pauses, bool):
            raise RefusedError(400, "'pause_at_start' is true or false.")
        return answer(self._hub.change_settings(names, pauses))

    async def post_server_stop(self, request: web.Request) -> web.StreamResponse:
        """Stop the nested server; with ``stopped``: whether there was one."""
        await read_json(request)
        running = importlib.import_module("..editor_nodes.running", __package__)
        try:
            was_there = await asyncio.to_thread(running.stop_server)
        except (RuntimeError, TimeoutError) as error:
            raise RefusedError(409, str(error)) from error
        return answer({"stopped": bool(was_there)})


def run_entry(head: run_history.RunHead, status: Json | None) -> Json:
    """A run in the list."""
    checkpoint = str(head.first.get("checkpoint") or "")
    return {
        "run_id": head.run_id,
        "name": head.name,
        "source": head.source,
        "started": head.started,
        "live": head.is_alive,
        "status": status if head.is_alive else None,
        "end": head.end,
        "iterations": head.first.get("iterations") or 0,
        "checkpoint": checkpoint,
        "has_report": _has_report(checkpoint),
        "outer_node": head.first.get("outer_node"),
    }


def _has_report(checkpoint: str) -> bool:
    try:
        return Path(checkpoint).is_absolute() and RunRecordFolder.holds_run(checkpoint)
    except (OSError, ValueError):  # a drive that is gone
        return False


def _server_status() -> Json:
    """What the runner nodes say of their server."""
    running = importlib.import_module("..editor_nodes.running", __package__)
    status = running.server_status()
    return (
        {**_NO_SERVER, **status} if isinstance(status, dict) and not inspect.iscoroutine(status) else dict(_NO_SERVER)
    )


def _version() -> str:
    return str(importlib.import_module("..", __package__).__version__)
