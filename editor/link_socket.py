"""The wire by which runs of scripts come to this editor: a websocket, for whoever has the token that was published."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from typing import Any

import aiohttp
from aiohttp import web

from ..observing.run_history import history_root
from .answering import RefusedError
from .hub import Hub, Link
from .publication import Publication

log = logging.getLogger("discomfort.editor")

Json = dict[str, Any]

# Seconds between two signs of life, and until a client must have said who it is.
_HEARTBEAT = 20.0
_HELLO = 10.0
# Bytes of a message: a status of a paused run has the beginnings of its texts.
_MESSAGE = 4 * 2**20
# Commands that wait until a slow client takes them; then the wire is cut.
_COMMANDS = 1000

_RUN_ID = re.compile(r"[0-9a-f]{32}")


class _RubbishError(ValueError):
    """The client said something that is no message; the text is the reason it is told."""


class LinkSocket:
    """Handler of /discomfort/link."""

    def __init__(self, hub: Hub, publication: Publication) -> None:
        self._hub = hub
        self._publication = publication
        self._sockets: set[web.WebSocketResponse] = set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Talk to a run until it, or the wire, ends."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        # No browser can send this header with a websocket, so no page can come this way.
        if kind.lower() != "bearer" or not self._publication.knows(token.strip()):
            raise RefusedError(401, "The token is not the one that this editor has published.")
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT, max_msg_size=_MESSAGE)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await self._talk(socket)
        except _RubbishError as error:
            log.warning("A run's connection is closed: %s", error)
            await socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:120])
        except (ConnectionError, asyncio.TimeoutError) as error:
            log.debug("A run's connection has broken: %r", error)
        finally:
            self._sockets.discard(socket)
            await socket.close()
        return socket

    async def close(self, _: Any = None) -> None:
        """The server goes down."""
        for socket in list(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=b"the editor's server stops")

    async def _talk(self, socket: web.WebSocketResponse) -> None:
        try:
            hello = await asyncio.wait_for(_receive(socket), _HELLO)
        except asyncio.TimeoutError:
            raise _RubbishError(f"nothing was said for {_HELLO:g} seconds") from None
        if hello is None:
            return
        run_id, folder = await asyncio.to_thread(_checked_hello, hello)
        commands: asyncio.Queue[Json] = asyncio.Queue(_COMMANDS)
        writing = asyncio.create_task(_write(socket, commands), name="discomfort-editor-commands")
        loop = asyncio.get_running_loop()

        def tell(command: Json) -> None:
            loop.call_soon_threadsafe(_put, commands, command, writing)

        link = self._hub.attach(run_id, folder, tell)
        try:
            await _read(socket, link)
        finally:
            # First: this task may have been cancelled with its connection, and then nothing more is waited for.
            link.close()
            writing.cancel()
            await asyncio.wait([writing])


def _put(commands: asyncio.Queue[Json], command: Json, writing: asyncio.Task[None]) -> None:
    try:
        commands.put_nowait(command)
    except asyncio.QueueFull:
        log.warning("A run takes no commands; its connection is closed")
        writing.cancel()


async def _write(socket: web.WebSocketResponse, commands: asyncio.Queue[Json]) -> None:
    """Send commands, one after the other; however this ends, the wire ends too."""
    try:
        while True:
            await socket.send_json(await commands.get())
    except ConnectionError:
        log.debug("A command could not be sent: the connection is closed")
    finally:
        await asyncio.shield(socket.close())


async def _read(socket: web.WebSocketResponse, link: Link) -> None:
    """Hand on what a run says, until it is silent for ever."""
    while (message := await _receive(socket)) is not None:
        kind = message.get("type")
        if kind == "status":
            link.publish(message)
        elif kind == "answer":
            problem = message.get("problem")
            link.answer(str(message.get("id")), None if problem is None else str(problem))
        else:
            raise _RubbishError(f"{str(kind)[:40]!r} is no type of message")


async def _receive(socket: web.WebSocketResponse) -> Json | None:
    """The next message; None at the end of the wire. _RubbishError: it is none."""
    message = await socket.receive()
    if message.type != aiohttp.WSMsgType.TEXT:
        if message.type == aiohttp.WSMsgType.BINARY:
            raise _RubbishError("messages are texts of JSON")
        return None
    try:
        content = json.loads(message.data)
    except (ValueError, RecursionError):
        raise _RubbishError("a message is no JSON") from None
    if not isinstance(content, dict):
        raise _RubbishError("a message is a JSON object")
    return content


def _checked_hello(hello: Json) -> tuple[str, str]:
    """(run, folder) of the first message. _RubbishError: it names none, or a folder that is not the run's. Blocks."""
    run_id, folder = hello.get("run_id"), hello.get("folder")
    if hello.get("type") != "attach" or not isinstance(run_id, str) or not isinstance(folder, str):
        raise _RubbishError("the first message is {type: attach, run_id, folder}")
    if not _RUN_ID.fullmatch(run_id):
        raise _RubbishError("run_id is no run's id: those have 32 hex digits")
    own = history_root() / run_id
    if os.path.realpath(folder) != os.path.realpath(own):
        raise _RubbishError(f"the run's folder is not the one that this editor reads, {own}")
    return run_id, str(own)
