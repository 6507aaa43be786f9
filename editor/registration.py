"""Puts the editor's side of Discomfort into the ComfyUI that has loaded this package."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from ..observing.editors import set_local_hub
from .hub import Hub
from .publication import Publication
from .routes import add_routes

log = logging.getLogger("discomfort.editor")

# Set on ComfyUI's server object: this package may be loaded twice, from two folders, and routes may be there once only.
_MARK = "_discomfort_editor"


def register() -> bool:
    """Add the routes, and let runs of this process find the hub. Called when the package is loaded.

    Returns:
        Whether it was done: not outside of a ComfyUI, not in a nested server of Discomfort's, and not twice.
    """
    module: Any = sys.modules.get("server")
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is None or os.environ.get("DISCOMFORT_NESTED") or hasattr(server, _MARK):
        return False
    register_with(server)
    return True


def register_with(server: Any) -> Hub:
    """Add the routes to a server that has ComfyUI's ``routes``, ``app`` and ``send_sync``."""
    hub = Hub(server.send_sync)
    publication = Publication(server)
    link = add_routes(server.routes, hub, publication)

    async def close(_: Any) -> None:
        """Let go of runs: a paused one of a script goes on by itself."""
        await link.close()
        publication.withdraw()
        hub.close()

    server.app.on_shutdown.append(close)
    set_local_hub(hub)
    setattr(server, _MARK, hub)
    log.debug("The editor's routes are added")
    return hub
