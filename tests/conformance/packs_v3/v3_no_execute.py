"""A package with a node that has nothing to run."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class V3Nothing(io.ComfyNode):
    """A node without execute."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("V3Nothing")


class Extension(ComfyExtension):
    """The package."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [V3Nothing]


async def comfy_entrypoint() -> Extension:
    return Extension()
