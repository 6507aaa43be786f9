"""Core nodes that join any number of images, masks or latents into one batch. As ComfyUI 0.33.0.

The first one gives the size; the others are cut to its proportions and scaled to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..node_api import io
from .resize import fitted

if TYPE_CHECKING:
    from torch import Tensor

# The most that can be joined at once.
_MOST = 50


def _schema(node_id: str, title: str, category: str, kind: Any, name: str, **more: Any) -> io.Schema:
    """A node that joins values of one type."""
    template = io.Autogrow.TemplatePrefix(kind.Input(name), prefix=name, min=1, max=_MOST)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category=category,
        inputs=[io.Autogrow.Input(f"{name}s", template=template)],
        outputs=[kind.Output()],
        **more,
    )


class BatchImagesNode(io.ComfyNode):
    """Images as one batch."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_post_processing"

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = ["batch", "image batch", "batch images", "combine images", "merge images", "stack images"]
        return _schema(
            "BatchImagesNode",
            "Batch Images",
            "image/batch",
            io.Image,
            "image",
            search_aliases=aliases,
            essentials_category="Image Tools",
        )

    @classmethod
    def execute(cls, images: dict[str, Tensor]) -> io.NodeOutput:
        """``[B, H, W, C]`` with the most channels of any; images with fewer get one more, opaque."""
        import torch

        channels = max(image.shape[-1] for image in images.values())
        padded = [
            image if image.shape[-1] == channels else torch.nn.functional.pad(image, (0, 1), value=1.0)
            for image in images.values()
        ]
        first, *others = (image.movedim(-1, 1) for image in padded)
        batch = torch.cat([first, *(fitted(image, first) for image in others)])
        return io.NodeOutput(batch.movedim(1, -1))


class BatchMasksNode(io.ComfyNode):
    """Masks as one batch."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_post_processing"

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = ["combine masks", "stack masks", "merge masks"]
        return _schema("BatchMasksNode", "Batch Masks", "image/mask", io.Mask, "mask", search_aliases=aliases)

    @classmethod
    def execute(cls, masks: dict[str, Tensor]) -> io.NodeOutput:
        """``[B, H, W]``."""
        import torch

        first, *others = (mask.unsqueeze(1) for mask in masks.values())
        return io.NodeOutput(torch.cat([first, *(fitted(mask, first) for mask in others)]).squeeze(1))


class BatchLatentsNode(io.ComfyNode):
    """Latents as one batch."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_post_processing"

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = ["combine latents", "stack latents", "merge latents"]
        category = "model/latent/batch"
        return _schema("BatchLatentsNode", "Batch Latents", category, io.Latent, "latent", search_aliases=aliases)

    @classmethod
    def execute(cls, latents: dict[str, dict[str, Any]]) -> io.NodeOutput:
        """The first latent with the samples of all, and their numbers: their own, or counted from 0 in each."""
        import torch

        given = list(latents.values())
        first = given[0]["samples"]
        samples = torch.cat([fitted(latent["samples"], first) for latent in given])
        numbers = [
            number for latent in given for number in latent.get("batch_index", range(latent["samples"].shape[0]))
        ]
        return io.NodeOutput({**given[0], "samples": samples, "batch_index": numbers})


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "BatchImagesNode": BatchImagesNode,
    "BatchMasksNode": BatchMasksNode,
    "BatchLatentsNode": BatchLatentsNode,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "BatchImagesNode": "Batch Images",
    "BatchMasksNode": "Batch Masks",
    "BatchLatentsNode": "Batch Latents",
}
