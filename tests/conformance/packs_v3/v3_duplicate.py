"""A package whose second node has two inputs of one name; the first one stays."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class V3First(io.ComfyNode):
    """A good node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3First", inputs=[], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(1)


class V3Twice(io.ComfyNode):
    """A node that cannot be."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3Twice", inputs=[io.Int.Input("same"), io.Float.Input("same")])

    @classmethod
    def execute(cls, same: int) -> io.NodeOutput:
        return io.NodeOutput()


class Extension(ComfyExtension):
    """The package."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [V3First, V3Twice]


def comfy_entrypoint() -> Extension:
    return Extension()
