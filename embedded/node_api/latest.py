"""``comfy_api.latest``: what V3 packages import."""

from __future__ import annotations

from . import io, ui
from .api import ComfyAPI_latest
from .extension import ComfyExtension
from .sync_api import create_sync_class
from .values import MESH as MESH
from .values import SPLAT as SPLAT
from .values import VOXEL as VOXEL
from .values import File3D as File3D
from .values import Input, InputImpl, Types

ComfyAPI = ComfyAPI_latest
ComfyAPISync = create_sync_class(ComfyAPI_latest)

# The namespaces' other names; the last one is 0.3.64's.
IO = io
UI = ui
comfy_io = io

__all__ = [
    "IO",
    "UI",
    "ComfyAPI",
    "ComfyAPISync",
    "ComfyAPI_latest",
    "ComfyExtension",
    "Input",
    "InputImpl",
    "Types",
    "comfy_io",
    "io",
    "ui",
]
