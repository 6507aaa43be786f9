"""The core node that saves drawings.

A drawing link (SVG) carries an object whose ``data`` is a list of open files, each one SVG text in UTF-8. Names,
inputs and files are those of ComfyUI 0.3.64.
"""

from __future__ import annotations

import json
import os
import re
from io import BytesIO
from typing import Any

from .. import folder_paths
from .image_io import METADATA_INPUTS, PREFIX_TOOLTIP


class SVG:
    """Drawings, as links between nodes carry them."""

    def __init__(self, data: list[BytesIO]) -> None:
        # One drawing each, UTF-8 text.
        self.data = data

    def combine(self, other: SVG) -> SVG:
        """These drawings and then the others."""
        return SVG(self.data + other.data)

    @staticmethod
    def combine_all(svgs: list[SVG]) -> SVG:
        """The drawings of all."""
        return SVG([drawing for svg in svgs for drawing in svg.data])


class SaveSVGNode:
    """Save drawings as SVG files in the output folder."""

    RETURN_TYPES = ()
    FUNCTION = "save_svg"
    OUTPUT_NODE = True
    CATEGORY = "image/save"
    DESCRIPTION = "Save SVG files on disk."

    def __init__(self) -> None:
        # The attributes subclasses in node packages replace, under ComfyUI's names.
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = {"default": "svg/ComfyUI", "tooltip": PREFIX_TOOLTIP}
        return {
            "required": {"svg": ("SVG",), "filename_prefix": ("STRING", prefix)},
            "hidden": METADATA_INPUTS,
        }

    def save_svg(
        self,
        svg: SVG,
        filename_prefix: str = "svg/ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One numbered file per drawing; the ui result lists them.

        ``prompt`` and ``extra_pnginfo`` are written into the files whatever ``--disable-metadata`` says, as in
        ComfyUI.

        Raises:
            ValueError: the prefix leads out of the folder.
            UnicodeDecodeError: a drawing is not UTF-8.
            OSError: a file cannot be written.
        """
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir
        )
        metadata = {**({} if prompt is None else {"prompt": prompt}), **(extra_pnginfo or {})}
        saved = []
        for number, drawing in enumerate(svg.data):
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}_.svg"
            drawing.seek(0)
            text = drawing.read().decode("utf-8")
            with open(os.path.join(folder, name), "wb") as file:
                file.write(_with_metadata(text, metadata).encode("utf-8"))
            saved.append({"filename": name, "subfolder": subfolder, "type": self.type})
        return {"ui": {"images": saved}}


def _with_metadata(text: str, metadata: dict[str, Any]) -> str:
    """A drawing with an element ``metadata`` behind each ``<svg>`` tag: JSON, white space as ComfyUI has it."""
    if not metadata:
        return text
    data = json.dumps(metadata, indent=2)
    indent = " " * 12
    element = f"  <metadata>\n{indent}    <![CDATA[\n{indent}{data}\n{indent}    ]]>\n{indent}</metadata>\n{indent}"
    return re.sub(r"<svg[^>]*>", lambda tag: f"{tag.group()}\n{element}", text)


NODE_CLASS_MAPPINGS: dict[str, type] = {"SaveSVGNode": SaveSVGNode}

# ComfyUI gives it no display name.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
