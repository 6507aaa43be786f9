"""Saying on this machine that an editor is open here, so that runs of scripts come to it.

It is said when a browser first asks for the list of runs: before that nobody looks, and the server may not listen yet.
"""

from __future__ import annotations

import asyncio
import atexit
import hmac
import logging
import time
from typing import Any

from aiohttp import web

from ..observing.editors import PublishedEditor, publish_editor

log = logging.getLogger("discomfort.editor")

# Seconds until it is tried again where it failed.
_RETRY = 30.0

# What a server that listens everywhere is reached by from this machine.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on here


class Publication:
    """What this process has said of its editor."""

    def __init__(self, server: Any) -> None:
        """
        Args:
            server: ComfyUI's PromptServer; its ``address`` and ``port`` are there when it listens.
        """
        self._server = server
        self._published: PublishedEditor | None = None
        self._lock: asyncio.Lock | None = None
        self._retry_at = 0.0

    async def publish(self, request: web.Request) -> None:
        """Say it, unless it is said. Never raises: without it runs of scripts are not seen here, and that is all.

        Args:
            request: of a browser; tells whether this server talks by https.
        """
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._published is not None or time.monotonic() < self._retry_at:
                return
            address = self.address(request)
            try:
                self._published = await asyncio.to_thread(publish_editor, address)
            except (OSError, RuntimeError) as error:
                self._retry_at = time.monotonic() + _RETRY
                log.warning("Runs of scripts are not shown in this editor: it cannot be published (%s)", error)
                return
            # A server that is killed leaves its folder, which the next one sweeps.
            atexit.register(self.withdraw)
            log.info("Runs of scripts on this machine are shown in the editor at %s", address)

    def address(self, request: web.Request) -> str:
        """Where this server is reached from this machine."""
        own = request.transport.get_extra_info("sockname") if request.transport is not None else None
        listens_on = getattr(self._server, "address", None)
        host = str(listens_on if listens_on is not None else own[0] if own else "")
        port = getattr(self._server, "port", None) or (own[1] if own else 0)
        host = _LOOPBACK.get(host, host)
        is_secure = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
        return f"{'https' if is_secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def knows(self, token: str) -> bool:
        """Whether this is the token that was published. Takes the same time however wrong it is."""
        return self._published is not None and hmac.compare_digest(token.encode(), self._published.token.encode())

    def withdraw(self) -> None:
        """The editor ends. Idempotent."""
        published, self._published = self._published, None
        if published is not None:
            atexit.unregister(self.withdraw)
            published.withdraw()
