"""``comfy_api.v0_0_2``: the API a package can ask for by version; the same as the newest one so far."""

from __future__ import annotations

from . import io, ui
from .api import ComfyAPI_latest
from .extension import ComfyExtension
from .sync_api import create_sync_class
from .values import Input, InputImpl, Types

IO = io
UI = ui


class ComfyAPIAdapter_v0_0_2(ComfyAPI_latest):
    """Version 0.0.2."""

    VERSION = "0.0.2"
    STABLE = False


ComfyAPI = ComfyAPIAdapter_v0_0_2
ComfyAPISync = create_sync_class(ComfyAPIAdapter_v0_0_2)

__all__ = [
    "IO",
    "UI",
    "ComfyAPI",
    "ComfyAPIAdapter_v0_0_2",
    "ComfyAPISync",
    "ComfyExtension",
    "Input",
    "InputImpl",
    "Types",
    "io",
    "ui",
]
