"""A package that offers a V3 node as V1 packages do: nothing is wrong with that."""

from __future__ import annotations

from comfy_api.latest import io


class V3Mapped(io.ComfyNode):
    """A node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3OtherName", inputs=[io.Int.Input("a")], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, a: int) -> io.NodeOutput:
        return io.NodeOutput(a * 2)


NODE_CLASS_MAPPINGS = {"V3Mapped": V3Mapped}
NODE_DISPLAY_NAME_MAPPINGS = {"V3Mapped": "Mapped"}
