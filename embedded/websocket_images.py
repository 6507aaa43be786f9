"""SaveImageWebsocket: full-size images as previews, for clients that want no files.

ComfyUI has the node not among its core nodes but as a package of one file that comes with it
(``custom_nodes/websocket_image_save.py``), which ``script_examples/websockets_api_example_ws_images.py`` uses.
A package of that name in the user's custom_nodes takes its place.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .comfy_utils import ProgressBar
from .core_nodes.image_io import to_pillow

if TYPE_CHECKING:
    from torch import Tensor

# Under which it can be left out (--disable-all-custom-nodes) and allowed (--whitelist-custom-nodes).
FILE_NAME = "websocket_image_save.py"


class SaveImageWebsocket:
    """Send images [B, H, W, C] over the websocket: each as event 1 (or 4), a PNG of its own size without metadata."""

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "api/image"
    RELATIVE_PYTHON_MODULE = "custom_nodes.websocket_image_save"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}}

    def save_images(self, images: Tensor) -> dict[str, Any]:
        """One step of the progress for each image; there is no result, and nothing in the history.

        Raises:
            InterruptProcessingException: the prompt was interrupted.
        """
        count = images.shape[0]
        progress = ProgressBar(count)
        for step, image in enumerate(images):
            progress.update_absolute(step, count, ("PNG", to_pillow(image), None))
        return {}

    @classmethod
    def IS_CHANGED(cls, images: Any) -> float:
        """Every client wants its images, though another has just had them."""
        return time.time()


NODE_CLASS_MAPPINGS = {"SaveImageWebsocket": SaveImageWebsocket}
