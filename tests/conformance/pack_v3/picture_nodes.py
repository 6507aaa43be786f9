"""Nodes that make pictures and show their numbers."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io


class V3Picture(io.ComfyNode):
    """A picture whose numbers are all different: an image, its first channel as a mask, and it as a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        numbers = {"width": 3, "height": 2, "channels": 3, "batch": 1, "seed": 1}
        inputs = [io.Int.Input(name, default=value) for name, value in numbers.items()]
        return io.Schema("V3Picture", inputs=inputs, outputs=[io.Image.Output(), io.Mask.Output(), io.Latent.Output()])

    @classmethod
    def execute(cls, width: int, height: int, channels: int, batch: int, seed: int) -> io.NodeOutput:
        count = batch * height * width * channels
        values = (torch.arange(count, dtype=torch.float64) * 0.6180339887 * seed % 1.0).float()
        image = values.reshape(batch, height, width, channels)
        return io.NodeOutput(image, image[..., 0], {"samples": image.movedim(-1, 1)})


class V3Pixels(io.ComfyNode):
    """Shows a picture's shape and numbers, to four digits; of a latent also its numbering."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3Pixels", inputs=[io.AnyType.Input("picture")], is_output_node=True)

    @classmethod
    def execute(cls, picture: Any) -> io.NodeOutput:
        shown: dict[str, Any] = {}
        if isinstance(picture, dict):
            shown["batch_index"] = picture.get("batch_index")
            picture = picture["samples"]
        shown["shape"] = list(picture.shape)
        shown["values"] = [round(value, 4) for value in picture.flatten().tolist()]
        return io.NodeOutput(ui={"values": [shown]})


NODES = [V3Picture, V3Pixels]
