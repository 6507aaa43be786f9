"""``comfy_api.version_list``: the versions of the API, the newest first."""

from __future__ import annotations

from .api import ComfyAPI_latest
from .api_registry import ComfyAPIBase, ComfyAPIWithVersion, register_versions
from .v0_0_1 import ComfyAPIAdapter_v0_0_1
from .v0_0_2 import ComfyAPIAdapter_v0_0_2

supported_versions: list[type[ComfyAPIBase]] = [ComfyAPI_latest, ComfyAPIAdapter_v0_0_2, ComfyAPIAdapter_v0_0_1]

register_versions([ComfyAPIWithVersion(kind.VERSION, kind) for kind in supported_versions])
