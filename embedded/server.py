"""The server object: its clients, what is sent to them, and the web application (``server`` for packages).

``PromptServer.instance`` is what node packages use: ``routes`` to add HTTP routes while they are imported,
``send_sync`` to talk to clients, ``prompt_queue``, ``client_id``, ``last_node_id``, ``app``, ``loop``.
Every route is also served under ``/api``, except ``/internal``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp
from aiohttp import web

from . import frontend, middleware, node_registry
from .arguments import args
from .messages import (
    BinaryEventTypes,
    encode_event,
    encode_preview,
    encode_preview_with_metadata,
    encode_progress_text,
)
from .node_replacements import NodeReplacements
from .prompt_queue import PromptQueue
from .routes_files import add_file_routes
from .routes_internal import make_internal_app
from .routes_models import add_model_routes
from .routes_packs import add_pack_routes, add_pack_statics
from .routes_prompts import add_prompt_routes
from .routes_users import UserData
from .websocket import Client, add_websocket_route

if TYPE_CHECKING:
    import ssl

    from .messages import Preview

__all__ = ["BinaryEventTypes", "PromptServer"]

logger = logging.getLogger("discomfort.embedded.server")

# Seconds that requests being answered get when the server stops.
_STOP_TIMEOUT = 1.0
# Bytes in front of a binary message that say which event it is.
_EVENT_SIZE = 4
# The methods that ComfyUI sends every message through, in the event loop.
_COROUTINES = ("send", "send_json", "send_bytes", "send_image", "send_image_with_metadata")


class PromptServer:
    """One server. Made in the thread of its event loop, before node packages are imported."""

    # The server of this process; packages reach it here.
    instance: ClassVar[PromptServer]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        PromptServer.instance = self
        self.loop = loop
        self._loop_thread = threading.get_ident()
        self.prompt_queue = PromptQueue(self.queue_updated)
        # The next prompt's place in the queue.
        self.number = 0
        # Client id -> websocket, and -> what the client said about itself. Packages look into both.
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.sockets_metadata: dict[str, dict[str, Any]] = {}
        self._clients: dict[str, Client] = {}
        # Messages of other threads with the client they are for, and whether the loop knows of them.
        self._posted: deque[tuple[str | bytes, str | None]] = deque()
        self._loop_is_woken = False
        # Messages that go through coroutines, and the task that sends them while there are some.
        self._unsent: deque[tuple[str | int, Any, str | None]] = deque()
        self._sender: asyncio.Task[None] | None = None
        # The client of the running or last prompt, None if it named none.
        self.client_id: str | None = None
        # The node being run, None between prompts; the running or last prompt.
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.on_prompt_handlers: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self.node_replace_manager = NodeReplacements()
        self.supports = ["custom_nodes_from_web"]
        self.web_root = frontend.find_web_root(args.front_end_root)
        logger.info("[Prompt Server] web root: %s", self.web_root)
        # For packages that ask other servers; None until start().
        self.client_session: aiohttp.ClientSession | None = None
        # Set when the first address is being listened on.
        self.address: str | None = None
        self.port: int | None = None
        self.user_manager = UserData()
        self.app = web.Application(
            client_max_size=round(args.max_upload_size * 1024 * 1024), middlewares=middleware.choose()
        )
        # Packages add to these while they are imported.
        self.routes = web.RouteTableDef()
        self._runner: web.AppRunner | None = None
        add_websocket_route(self)
        frontend.add_root_route(self)
        add_file_routes(self.routes)
        add_prompt_routes(self)
        add_model_routes(self.routes)
        add_pack_routes(self)

    # -- prompts -------------------------------------------------------------------------------------------

    def get_queue_info(self) -> dict[str, Any]:
        """What ``status`` messages and GET /prompt say."""
        return {"exec_info": {"queue_remaining": self.prompt_queue.get_tasks_remaining()}}

    def queue_updated(self) -> None:
        """Tell everybody how many prompts are left. Any thread."""
        self.send_sync("status", {"status": self.get_queue_info()})

    def add_on_prompt_handler(self, handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Let a package see, and change, the body of every POST /prompt before it is validated."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """The body of a POST /prompt after all handlers; one that raises is logged and skipped."""
        for handler in self.on_prompt_handlers:
            try:
                json_data = handler(json_data)
            except Exception:
                logger.warning("An on_prompt handler raised:\n%s", traceback.format_exc())
        return json_data

    # -- messages ------------------------------------------------------------------------------------------

    def send_sync(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """Send a message. Any thread; does not wait; messages of one thread keep their order.

        Args:
            event, data: see :func:`messages.encode_event`. The data is written down now: later changes to
                it are not sent.
            sid: the client; None: all. A client that is not there misses the message.
        """
        if not self._is_replaced(_COROUTINES):
            self._send_now(event, data, sid)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._send_by_coroutines, event, data, sid)

    def wants_data(self) -> bool:
        """Whether a package has put a method of its own in the place of one that sends: it gets each message's data."""
        return self._is_replaced(("send_sync", *_COROUTINES))

    def _is_replaced(self, names: Iterable[str]) -> bool:
        return any(getattr(getattr(self, name), "__func__", None) is not _OWN_SENDERS[name] for name in names)

    def _send_by_coroutines(self, event: str | int, data: Any, sid: str | None) -> None:
        """Send as ComfyUI does, one message after the other through :meth:`send`. Loop thread only."""
        self._unsent.append((event, data, sid))
        if self._sender is None:
            self._sender = self.loop.create_task(self._send_unsent())

    async def _send_unsent(self) -> None:
        while self._unsent:
            event, data, sid = self._unsent.popleft()
            try:
                await self.send(event, data, sid)
            except Exception:
                logger.exception("A %r message could not be sent", event)
        self._sender = None

    def _send_now(self, event: str | int, data: Any, sid: str | None) -> None:
        """Write a message down and send it. Any thread."""
        if not self.has_listener(sid):
            return
        try:
            message = encode_event(event, data)
        except Exception:
            logger.exception("A %r message cannot be written and is not sent", event)
            return
        self.send_encoded(message, sid)

    def send_encoded(self, message: str | bytes, sid: str | None = None) -> None:
        """Send a message that is already as it goes over the wire. Any thread."""
        if threading.get_ident() == self._loop_thread:
            self._deliver(message, sid)
            return
        # A closed loop: the server is going down.
        if self.loop.is_closed():
            return
        self._posted.append((message, sid))
        # Waking the loop costs far more than a message, so it is not done again for what it will find anyway.
        if not self._loop_is_woken:
            self._loop_is_woken = True
            self.loop.call_soon_threadsafe(self._deliver_posted)

    # Packages call these; and where one puts a method of its own in the place of one of them, all messages go through
    # them, as in ComfyUI.

    async def send(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """Send a message, by the one of the following that is for its kind."""
        if event == BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
            await self.send_image(data, sid=sid)
        elif event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA and isinstance(data, tuple):
            preview, metadata = data
            await self.send_image_with_metadata(preview, metadata, sid=sid)
        elif isinstance(data, (bytes, bytearray)):
            await self.send_bytes(event, data, sid)
        else:
            await self.send_json(event, data, sid)

    async def send_json(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """Send a text message."""
        self._send_now(event, data, sid)

    async def send_bytes(self, event: str | int, data: bytes | bytearray, sid: str | None = None) -> None:
        """Send a binary message."""
        self._send_now(event, bytes(data), sid)

    async def send_image(self, image_data: Preview, sid: str | None = None) -> None:
        """Send a preview as event 1."""
        await self.send_bytes(BinaryEventTypes.PREVIEW_IMAGE, encode_preview(image_data)[_EVENT_SIZE:], sid=sid)

    async def send_image_with_metadata(
        self, image_data: Preview, metadata: dict[str, Any] | None = None, sid: str | None = None
    ) -> None:
        """Send a preview as event 4."""
        message = encode_preview_with_metadata(image_data, metadata)
        await self.send_bytes(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, message[_EVENT_SIZE:], sid=sid)

    def encode_bytes(self, event: int, data: bytes) -> bytearray:
        """A binary message as it goes over the wire, for packages that send it themselves.

        Raises:
            RuntimeError: the event is no number.
        """
        if not isinstance(event, int):
            raise RuntimeError(f"Binary event types must be integers, got {event}")
        return bytearray(event.to_bytes(4, "big") + data)

    def send_progress_text(self, text: str | bytes, node_id: str, sid: str | None = None) -> None:
        """Show a text on a node. Any thread."""
        self.send_sync(BinaryEventTypes.TEXT, encode_progress_text(text, node_id), sid)

    def has_listener(self, sid: str | None) -> bool:
        """Whether a message to this client (None: all) would reach anybody."""
        return bool(self._clients) if sid is None else sid in self._clients

    def client_takes_metadata(self) -> bool:
        """Whether the client of the running prompt wants previews as event 4."""
        flags = self.sockets_metadata.get(self.client_id or "", {}).get("feature_flags")
        # A client may have said anything.
        return isinstance(flags, dict) and flags.get("supports_preview_metadata") is True

    def add_client(self, client: Client) -> None:
        """A websocket has opened. A second one of the same id takes its place."""
        self._clients[client.sid] = client
        self.sockets[client.sid] = client.socket
        self.sockets_metadata[client.sid] = {"feature_flags": {}}

    def remove_client(self, client: Client) -> None:
        """A websocket has closed; nothing happens if another one of its id is open by now."""
        if self._clients.get(client.sid) is client:
            for table in (self._clients, self.sockets, self.sockets_metadata):
                table.pop(client.sid, None)

    def _deliver_posted(self) -> None:
        """Deliver what other threads have posted. Loop thread only."""
        # First: whatever is posted from now on wakes the loop again, or is found below.
        self._loop_is_woken = False
        while self._posted:
            self._deliver(*self._posted.popleft())

    def _deliver(self, message: str | bytes, sid: str | None) -> None:
        """Put a message into the outboxes it is for. Loop thread only."""
        if sid is None:
            for client in list(self._clients.values()):
                client.post(message)
        elif sid in self._clients:
            self._clients[sid].post(message)

    # -- web -----------------------------------------------------------------------------------------------

    def add_routes(self) -> None:
        """Build the application. Called once, after packages have added their routes."""
        # After those of packages, which, as in ComfyUI, may take the place of these.
        self.user_manager.add_routes(self.routes)
        self.app.add_subapp("/internal", make_internal_app(self))
        routes = without_repeats(self.routes)
        for route in routes:
            # Static folders of packages are served as they are.
            if isinstance(route, web.RouteDef):
                web.RouteDef(route.method, "/api" + route.path, route.handler, route.kwargs).register(self.app.router)
        self.app.add_routes(routes)
        node_registry.EXTENSION_WEB_DIRS[frontend.EXTENSION_NAME] = frontend.EXTENSION_FOLDER
        add_pack_statics(self.app, node_registry.EXTENSION_WEB_DIRS, node_registry.LOADED_MODULE_DIRS)
        # Last: it matches everything.
        frontend.add_statics(self.app, self.web_root)

    async def start(self, sockets: list[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Answer requests on listening sockets, with ``tls`` by https."""
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_TIMEOUT)
        await self._runner.setup()
        self.client_session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        for listening in sockets:
            await web.SockSite(self._runner, listening, ssl_context=tls).start()
            address, port = listening.getsockname()[:2]
            if self.address is None:
                self.address, self.port = address, port
            if not args.dont_print_server:
                shown = f"[{address}]" if ":" in address else address
                logger.info("To see the GUI go to: %s://%s:%s", "https" if tls else "http", shown, port)

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))
        if self.client_session is not None:
            await self.client_session.close()
        if self._runner is not None:
            await self._runner.cleanup()


# As they are before packages are loaded.
_OWN_SENDERS = {name: vars(PromptServer)[name] for name in ("send_sync", *_COROUTINES)}


def without_repeats(routes: Iterable[web.AbstractRouteDef]) -> list[web.AbstractRouteDef]:
    """The routes without those that say method and path of an earlier one again.

    The first answers anyway, and aiohttp refuses some of the others with an error, which ends ComfyUI.
    """
    kept: list[web.AbstractRouteDef] = []
    seen: set[tuple[str, str]] = set()
    for route in routes:
        if isinstance(route, web.RouteDef):
            key = (route.method, route.path)
            if key in seen:
                module = getattr(route.handler, "__module__", None)
                logger.warning("%s %s exists already; the one of %s is never called", *key, module)
                continue
            seen.add(key)
        kept.append(route)
    return kept
