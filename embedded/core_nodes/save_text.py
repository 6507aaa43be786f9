"""The core node that saves texts. As ComfyUI 0.33.0."""

from __future__ import annotations

import json
import os
from typing import Any

from .. import folder_paths
from .image_io import METADATA_INPUTS


class SaveText:
    """Save a text in the output folder."""

    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    FUNCTION = "execute"
    CATEGORY = "text"
    OUTPUT_NODE = True
    DESCRIPTION = "Save text content to a file in the output directory."
    SEARCH_ALIASES = ("save text", "write text", "export text")
    # Also the endings of the files.
    _FORMATS = ("txt", "csv", "md", "json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        formats = {"default": "txt", "multiselect": False, "options": list(cls._FORMATS)}
        return {
            "required": {
                "text": ("STRING", {"forceInput": True, "multiline": False}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "multiline": False}),
                "format": ("COMBO", formats),
            },
            "hidden": METADATA_INPUTS,
        }

    def execute(
        self, text: str, filename_prefix: str, format: str, prompt: Any = None, extra_pnginfo: Any = None
    ) -> dict[str, Any]:
        """One numbered file in UTF-8, which the ui result names, and the text itself; JSON is indented.

        Raises:
            ValueError: the prefix leads out of the folder, or the format is none of the choices (which a link can
                bring past the validation).
            OSError: the file cannot be written.
        """
        if format not in self._FORMATS:
            raise ValueError(f"Unsupported text format: {format!r}")
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), 1, 1
        )
        name = f"{filename}_{counter:05}.{format}"
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(_indented(text) if format == "json" else text)
        saved = {"filename": name, "subfolder": subfolder, "type": "output"}
        return {"ui": {"text": (text,), "files": [saved]}, "result": (text,)}


def _indented(text: str) -> str:
    """JSON over several lines; what is no JSON as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except json.JSONDecodeError:
        return text


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "SaveText": SaveText,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SaveText": "Save Text",
}
