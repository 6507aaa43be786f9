"""One run: what happened, its values, its workflows and its report; and what it is told."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from aiohttp import web

from ..durable.run_folder import JOURNAL, RunFolderError, RunRecordFolder
from ..durable.secrets import is_secret_name
from ..observing import run_history
from . import values
from .answering import (
    RefusedError,
    answer,
    encode,
    encoded_answer,
    name_of,
    number_of,
    read_json,
    run_id_of,
)
from .hub import Hub, NotAttachedError

Json = dict[str, Any]

#: seconds in which a run must answer an edit
ANSWER_TIMEOUT = 5.0

# Bytes: of events in one answer; of a command, which may hold a text.
_EVENTS = 2**20
_COMMAND = 4 * 2**20
# Values that are looked at at the same time: each may read gigabytes.
_LOOKS = 2

_COMMANDS = ("pause", "step", "continue", "stop", "set")
_THUMBNAIL = re.compile(r"[A-Za-z0-9_-]{1,100}\.jpg")
# A report shows pictures that are in it, and does nothing else, whatever was written into it.
_REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# The name is that of the content: it never changes.
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


class RunRoutes:
    """Handlers of /discomfort/runs/{run_id}."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._looking: asyncio.Semaphore | None = None

    # ---- what happened ----

    async def get_events(self, request: web.Request) -> web.StreamResponse:
        """The events behind an offset."""
        run_id, offset = run_id_of(request), number_of(request, "offset", 0, 0, 2**53)
        return encoded_answer(await asyncio.to_thread(self._events, run_id, offset))

    def _events(self, run_id: str, offset: int) -> bytes:
        # The status is taken first: the events that it counts are there, then.
        status = self._hub.status_of(run_id)
        head = _head(run_id)
        try:
            events, offset = run_history.read_events(head.folder, offset, _EVENTS)
        except OSError:
            raise _no_run(run_id) from None
        live = head.is_alive
        return encode({"events": events, "offset": offset, "live": live, "status": status if live else None})

    async def get_thumbnail(self, request: web.Request) -> web.StreamResponse:
        """A small picture of a value."""
        run_id, name = run_id_of(request), request.match_info["name"]
        if not _THUMBNAIL.fullmatch(name):
            raise RefusedError(400, f"{name[:100]!r} is no name of a thumbnail.")
        content = await asyncio.to_thread(run_history.thumbnail, run_history.history_root() / run_id, name)
        if content is None:
            raise RefusedError(404, f"The run has no picture {name!r}.")
        return web.Response(body=content, content_type="image/jpeg", headers=_FOR_EVER)

    async def delete_run(self, request: web.Request) -> web.StreamResponse:
        """Forget a run that has ended."""
        run_id = run_id_of(request)
        if await asyncio.to_thread(run_history.remove_run, run_id):
            return answer({})
        head = await asyncio.to_thread(_head, run_id)
        raise RefusedError(409, f"The run {head.name or run_id} goes on: stop it first.")

    # ---- values ----

    async def get_value(self, request: web.Request) -> web.StreamResponse:
        """A value in words."""
        run_id, name = run_id_of(request), name_of(request)
        try:
            async with self._look():
                return encoded_answer(await asyncio.to_thread(lambda: encode(values.describe(run_id, name))))
        except values.NoValueError as error:
            raise RefusedError(404, str(error)) from error

    async def get_picture(self, request: web.Request) -> web.StreamResponse:
        """A value as a picture."""
        run_id, name = run_id_of(request), name_of(request)
        size = number_of(request, "size", 1024, 16, 4096)
        item = number_of(request, "item", 0, 0, 10**6)
        known = request.headers.get("If-None-Match", "")
        try:
            async with self._look():
                found = await asyncio.to_thread(values.picture, run_id, name, item, size, known)
        except values.NoValueError as error:
            raise RefusedError(404, str(error)) from error
        # Asked for again each time, but sent only when it is another one.
        headers = {"ETag": found.tag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        if not found.content:
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.content, content_type=found.type, headers=headers)

    def _look(self) -> asyncio.Semaphore:
        # Made in the loop that uses it.
        self._looking = self._looking or asyncio.Semaphore(_LOOKS)
        return self._looking

    # ---- commands ----

    async def post_command(self, request: web.Request) -> web.StreamResponse:
        """Tell a run something; of an edit, wait until it is made."""
        run_id, command = run_id_of(request), checked_command(await read_json(request, _COMMAND))
        try:
            link = self._hub.link_of(run_id)
        except NotAttachedError as error:
            raise RefusedError(409, str(error)) from error
        if command["command"] != "set":
            link.tell(command)
            return answer({})
        waiting = link.ask(command)
        try:
            problem = await asyncio.wait_for(asyncio.wrap_future(waiting), ANSWER_TIMEOUT)
        except asyncio.TimeoutError:
            raise RefusedError(409, f"The run did not answer within {ANSWER_TIMEOUT:g} seconds.") from None
        finally:
            link.forget(waiting)
        if problem is not None:
            raise RefusedError(409, problem)
        return answer({})

    # ---- workflows and report ----

    async def get_workflow(self, request: web.Request) -> web.StreamResponse:
        """One of the run's workflows, in the editor's format."""
        run_id, number = run_id_of(request), request.match_info["number"]
        return encoded_answer(await asyncio.to_thread(_workflow, run_id, number))

    async def get_stitched(self, request: web.Request) -> web.StreamResponse:
        """All of the run's workflows as one."""
        return encoded_answer(await asyncio.to_thread(_stitched, run_id_of(request)))

    async def get_report(self, request: web.Request) -> web.StreamResponse:
        """The report of the run's checkpoint folder."""
        content = await asyncio.to_thread(_report, run_id_of(request))
        return web.Response(body=content, content_type="text/html", charset="utf-8", headers=_REPORT_HEADERS)


def checked_command(content: Json) -> Json:
    """A command as it is handed to a run: what belongs to it, and nothing else. RefusedError: it is none."""
    command = content.get("command")
    if command not in _COMMANDS:
        raise RefusedError(400, f"{str(command)[:40]!r} is no command; there are: {', '.join(_COMMANDS)}.")
    if command != "set":
        return {"command": command}
    name, value = content.get("name"), content.get("value")
    if not isinstance(name, str) or not isinstance(value, (str, int, float)):
        raise RefusedError(400, "An edit has a 'name', and a 'value' that is a text, a number, or true or false.")
    if is_secret_name(name):
        raise RefusedError(409, f"The name {name!r} says that it is a secret: it cannot be changed here.")
    return {"command": command, "name": name, "value": value}


def _head(run_id: str) -> run_history.RunHead:
    head = run_history.find_run(run_id)
    if head is None:
        raise _no_run(run_id)
    return head


def _no_run(run_id: str) -> RefusedError:
    return RefusedError(404, f"There is no run {run_id}: it was removed, or never seen by an editor.")


def _workflow(run_id: str, number: str) -> bytes:
    found = run_history.workflows(_head(run_id).folder)
    if not re.fullmatch(r"\d{1,6}", number) or int(number) >= len(found):
        raise RefusedError(
            404, f"The run has {len(found)} workflows, counted from 0; there is no number {number[:40]}."
        )
    workflow = found[int(number)]
    if workflow is None:
        raise RefusedError(404, "This workflow was given in API format, which the editor cannot show.")
    return encode(workflow)


def _stitched(run_id: str) -> bytes:
    # Not at the top, like the report below: ComfyUI's start is not to wait for what the first look needs.
    from .stitching import CannotStitchError, stitched_run

    try:
        return encode(stitched_run(_head(run_id)))
    except CannotStitchError as error:
        raise RefusedError(409, str(error)) from error


def _report(run_id: str) -> bytes:
    """The report as it was written at the end of the run, or a fresh one where things have happened since."""
    from ..durable.report import build_report

    checkpoint = str(_head(run_id).first.get("checkpoint") or "")
    folder = Path(checkpoint)
    if not checkpoint or not folder.is_absolute():
        raise RefusedError(404, 'Only runs with a checkpoint folder have a report: run(..., checkpoint="folder").')
    try:
        written = folder / "report.html"
        if written.is_file() and os.stat(written).st_mtime_ns >= os.stat(folder / JOURNAL).st_mtime_ns:
            return written.read_bytes()
        return build_report(RunRecordFolder.open(folder)).encode()
    except (OSError, RunFolderError) as error:
        raise RefusedError(404, f"There is no report in {checkpoint}: {error}") from error
