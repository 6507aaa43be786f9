"""``ComfyAPI``: what running nodes and packages ask of the server."""

from __future__ import annotations

from typing import Any

from ..arguments import args
from ..node_context import get_executing_context
from ..progress import get_progress_state
from .api_registry import ComfyAPIBase
from .node_replacement import NodeReplace
from .singleton import ProxiedSingleton


class ComfyAPI_latest(ComfyAPIBase):
    """The newest version of the API. ``ComfyAPI()`` is always the same object."""

    VERSION = "latest"
    STABLE = False

    def __init__(self) -> None:
        self.node_replacement = self.NodeReplacement()
        self.execution = self.Execution()

    class NodeReplacement(ProxiedSingleton):
        """Nodes that took the place of others."""

        async def register(self, node_replace: NodeReplace) -> None:
            """Offer a replacement: prompts with the old node run the new one."""
            from ..server import PromptServer

            PromptServer.instance.node_replace_manager.register(node_replace)

    class Execution(ProxiedSingleton):
        """The prompt that is running."""

        async def set_progress(
            self,
            value: float,
            max_value: float,
            node_id: str | None = None,
            preview_image: Any = None,
            ignore_size_limit: bool = False,
        ) -> None:
            """Tell the client how far a node is.

            Args:
                value: of ``max_value``.
                node_id: None: the node that calls this.
                preview_image: a Pillow image, or float32 [H, W, C] or [B, H, W, C] in 0..1, of which the first is
                    shown.
                ignore_size_limit: send the preview as large as it is.

            Raises:
                ValueError: no ``node_id``, and no node is running.
            """
            context = get_executing_context()
            if node_id is None:
                if context is None:
                    raise ValueError("node_id must be provided if not in executing context")
                node_id = context.node_id
            preview = None if preview_image is None else _to_preview(preview_image, ignore_size_limit)
            get_progress_state().update_progress(node_id, value, max_value, preview)


def _to_preview(image: Any, ignore_size_limit: bool) -> Any:
    """An image as the server sends it: format, Pillow image, and ``--preview-size`` in pixels or None for no limit."""
    import numpy as np
    import torch
    from PIL import Image

    if isinstance(image, torch.Tensor):
        first = image[0] if image.ndim == 4 else image
        image = Image.fromarray((first.cpu().numpy() * 255).astype(np.uint8))
    return image.format or "JPEG", image, None if ignore_size_limit else args.preview_size
