"""The wire from a run to an editor in another process: a websocket to its ``/discomfort/link``.

What the run says (how it stands) is worth nothing a moment later, so only the newest is kept while the wire is slow.
A wire that cannot be made, or breaks, costs the run nothing: it is told, and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .editors import Editor

log = logging.getLogger("discomfort.observing")

Json = dict[str, Any]

# Seconds: until a wire must be there, between two signs of life, and for the last words of a run.
_CONNECT = 5.0
_HEARTBEAT = 20.0
_FAREWELL = 2.0
# Bytes of a command: an edited text.
_LARGEST = 16 * 2**20


class RemoteLink:
    """A wire to one editor, kept by a task of the run's loop. Made, used and closed in that loop."""

    def __init__(
        self,
        editor: Editor,
        run_id: str,
        folder: str,
        command: Callable[[Json], None],
        on_closed: Callable[[RemoteLink], None],
    ) -> None:
        """`on_closed` is called when the wire has broken, or could not be made; not after :meth:`close`."""
        self.editor = editor
        self._command = command
        self._on_closed = on_closed
        self._hello = {"type": "attach", "run_id": run_id, "folder": folder}
        self._status: Json | None = None
        self._answers: deque[Json] = deque()
        self._is_wanted = asyncio.Event()
        self._is_closing = False
        #: set when the editor has said its first word (what the breakpoints are), or never will
        self.is_greeted = asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name="discomfort-editor-link")

    def publish(self, status: Mapping[str, Any]) -> None:
        self._status = dict(status)
        self._is_wanted.set()

    def answer(self, command_id: str, problem: str | None) -> None:
        self._answers.append({"type": "answer", "id": command_id, "problem": problem})
        self._is_wanted.set()

    def close(self) -> None:
        self._is_closing = True
        self._is_wanted.set()

    async def wait_closed(self) -> None:
        """Give the last words a moment to be sent. Never raises, but for a cancellation, which ends the wire."""
        done, _ = await asyncio.wait([self._task], timeout=_FAREWELL)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        try:
            await self._talk()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as e:
            log.debug("The wire to the editor at %s has ended: %s", self.editor.address, e)
        finally:
            self.is_greeted.set()
            if not self._is_closing:
                self._on_closed(self)

    async def _talk(self) -> None:
        headers = {"Authorization": f"Bearer {self.editor.token}"}
        url = f"{self.editor.address}/discomfort/link"
        # No proxy of the environment is asked: the editor is on this machine.
        async with aiohttp.ClientSession(headers=headers, trust_env=False) as session:
            connecting = session.ws_connect(
                url, heartbeat=_HEARTBEAT, max_msg_size=_LARGEST, ssl=_tls(self.editor.address)
            )
            socket = await asyncio.wait_for(connecting, _CONNECT)
            async with socket:
                await socket.send_json(self._hello)
                reading = asyncio.create_task(self._read(socket))
                writing = asyncio.create_task(self._write(socket))
                try:
                    await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (reading, writing):
                        task.cancel()
                    await asyncio.wait([reading, writing])
                for task in (reading, writing):
                    if not task.cancelled():
                        task.result()

    async def _read(self, socket: Any) -> None:
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                with contextlib.suppress(ValueError):
                    command = json.loads(message.data)
                    if isinstance(command, dict):
                        self._command(command)
                        self.is_greeted.set()

    async def _write(self, socket: Any) -> None:
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            while self._answers:
                await socket.send_json(self._answers.popleft())
            status, self._status = self._status, None
            if status is not None:
                await socket.send_json({"type": "status", **status})
            if self._is_closing and self._status is None:
                return


def _tls(address: str) -> ssl.SSLContext | bool:
    """An editor on this machine may have a certificate that nobody has signed; the token is what it is known by."""
    parts = urlsplit(address)
    if parts.scheme != "https" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return True
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
