"""``comfy_api.v0_0_1``: the oldest version of the API; without V3 nodes, as in ComfyUI."""

from __future__ import annotations

from .sync_api import create_sync_class
from .v0_0_2 import ComfyAPIAdapter_v0_0_2
from .values import Input, InputImpl, Types


class ComfyAPIAdapter_v0_0_1(ComfyAPIAdapter_v0_0_2):
    """Version 0.0.1."""

    VERSION = "0.0.1"
    STABLE = True


ComfyAPI = ComfyAPIAdapter_v0_0_1
ComfyAPISync = create_sync_class(ComfyAPIAdapter_v0_0_1)

__all__ = ["ComfyAPI", "ComfyAPIAdapter_v0_0_1", "ComfyAPISync", "Input", "InputImpl", "Types"]
