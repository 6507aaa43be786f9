"""The core node that fills values into a text. As ComfyUI 0.33.0."""

from __future__ import annotations

import re
import string
from typing import Any

from ..node_api import io

# Attributes that lead from a value to the code it comes from, and so to everything the server knows.
_INNER = re.compile(r"\.(_|gi_|cr_|ag_|tb_|f_)")


def _check_attributes(text: str) -> None:
    """Raises ValueError if a format asks for attributes that are nobody's business; also within formats of values."""
    for _, name, inner_format, _ in string.Formatter().parse(text):
        if name and _INNER.search(name):
            raise ValueError(
                f"{{{name}}}: attributes whose names begin with an underscore, and those of code, are not shown"
            )
        if inner_format:
            _check_attributes(inner_format)


class StringFormat(io.ComfyNode):
    """A text with ``{a}`` to ``{z}`` replaced by the linked values, in Python's format."""

    RELATIVE_PYTHON_MODULE = "comfy_extras.nodes_string"

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.Autogrow.TemplateNames(io.AnyType.Input("value"), names=list(string.ascii_lowercase), min=0)
        return io.Schema(
            node_id="StringFormat",
            display_name="Format Text",
            category="text",
            search_aliases=["string", "format"],
            description="Same as Python's string format method. Supports all of Python's format options and features.",
            inputs=[
                io.Autogrow.Input("values", template=template),
                io.String.Input("f_string", default="{a}", multiline=True),
            ],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, values: dict[str, Any], f_string: str) -> io.NodeOutput:
        """The text.

        Raises:
            KeyError: it names a value that is not linked.
            ValueError: it is no format, one the value does not have, or asks for an inner attribute of a value.
        """
        _check_attributes(f_string)
        return io.NodeOutput(f_string.format(**values))


NODE_CLASS_MAPPINGS: dict[str, type] = {"StringFormat": StringFormat}
NODE_DISPLAY_NAME_MAPPINGS = {"StringFormat": "Format Text"}
