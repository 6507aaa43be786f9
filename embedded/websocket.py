"""GET /ws: one client's connection."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from .arguments import args

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.websocket")

# What may wait for a client that does not read: messages, and their characters or bytes in all. One more, and it is
# disconnected. A single message may be as large as it likes.
_MAX_WAITING = 20_000
_MAX_WAITING_SIZE = 64 * 1024 * 1024
# Seconds a closing handshake may take.
_CLOSE_TIMEOUT = 1.0


def server_features() -> dict[str, Any]:
    """What the server says it can do (GET /features, and in reply to a client's ``feature_flags``)."""
    return {
        "supports_preview_metadata": True,
        "max_upload_size": args.max_upload_size * 1024 * 1024,
        # Said by later versions (0.14): GET /node_replacements is there, routes below /assets and /tags are not.
        "node_replacements": True,
        "assets": False,
    }


class Client:
    """A websocket with an outbox, so that a client that reads slowly, or not at all, holds up nobody else."""

    def __init__(self, sid: str, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None) -> None:
        # The id the client gave itself, or was given.
        self.sid = sid
        self.socket = socket
        # What the socket sends through; aiohttp has none when the client has gone already.
        self._transport = transport
        self._outbox: deque[str | bytes] = deque()
        # The sum of the messages' lengths.
        self._waiting_size = 0
        self._has_mail = asyncio.Event()
        self._writer = asyncio.create_task(self._write())

    def post(self, message: str | bytes) -> None:
        """Send a message, after those posted before. Loop thread only; does not wait."""
        if self._writer.done():
            return
        size = self._waiting_size + len(message)
        if self._outbox and (len(self._outbox) >= _MAX_WAITING or size > _MAX_WAITING_SIZE):
            self._disconnect()
            return
        self._outbox.append(message)
        self._waiting_size = size
        self._has_mail.set()

    async def close(self) -> None:
        """End the connection. Safe to call twice."""
        self._writer.cancel()
        try:
            await asyncio.wait_for(self.socket.close(), _CLOSE_TIMEOUT)
        except (asyncio.TimeoutError, ConnectionError):
            logger.debug("Client %s did not say goodbye", self.sid)

    def _disconnect(self) -> None:
        """Drop the connection and all that waits for it; there is no goodbye to one that does not read."""
        logger.warning("Client %s does not read its %d messages: disconnected", self.sid, len(self._outbox))
        self._writer.cancel()
        self._outbox.clear()
        self._waiting_size = 0
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    async def _write(self) -> None:
        """Send what is posted until the connection ends."""
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            while self._outbox:
                message = self._outbox.popleft()
                self._waiting_size -= len(message)
                try:
                    if isinstance(message, str):
                        await self.socket.send_str(message)
                    else:
                        await self.socket.send_bytes(message)
                except (ConnectionError, RuntimeError) as exc:
                    # RuntimeError is what older aiohttp raises for a closed websocket.
                    logger.debug("Client %s is gone: %s", self.sid, exc)
                    return


def add_websocket_route(server: PromptServer) -> None:
    """Add GET /ws."""

    @server.routes.get("/ws")
    async def open_websocket(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = Client(request.query.get("clientId", "") or uuid.uuid4().hex, socket, request.transport)
        server.add_client(client)
        try:
            server.send_sync("status", {"status": server.get_queue_info(), "sid": client.sid}, client.sid)
            # The client of the running prompt has come back.
            if server.client_id == client.sid and server.last_node_id is not None:
                server.send_sync("executing", {"node": server.last_node_id}, client.sid)
            await _listen(server, client)
        finally:
            server.remove_client(client)
            await client.close()
        return socket


async def _listen(server: PromptServer, client: Client) -> None:
    """Read until the client closes. Only a first message counts: its feature flags."""
    first = True
    async for message in client.socket:
        if message.type == WSMsgType.ERROR:
            logger.warning("websocket closed with exception %s", client.socket.exception())
        if message.type != WSMsgType.TEXT or not first:
            continue
        try:
            data = json.loads(message.data)
            if data.get("type") == "feature_flags":
                server.sockets_metadata[client.sid]["feature_flags"] = data.get("data", {})
                server.send_sync("feature_flags", server_features(), client.sid)
            first = False
        except (json.JSONDecodeError, AttributeError, KeyError):
            logger.warning("Client %s sent something that is not understood: %.200r", client.sid, message.data)
