"""Core nodes that write latents to files and read them.

A file ``.latent`` is one in safetensors format with the tensors ``latent_tensor``, the samples, and
``latent_format_version_0``, empty: what it marks is that the samples are not scaled. Its metadata are the prompt and
the workflow, as JSON; ``--disable-metadata`` leaves them out. Names, inputs, files and results are those of ComfyUI
0.3.64.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .. import folder_paths
from .image_io import METADATA_INPUTS, content_hash, input_files, metadata_is_disabled
from .latent import Latent

_ENDING = ".latent"
_SAMPLES, _UNSCALED_MARK = "latent_tensor", "latent_format_version_0"
# What files from before the mark are divided by: the scale of Stable Diffusion 1.
_OLD_SCALE = 0.18215


class SaveLatent:
    """Save a latent in the output folder."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "_for_testing"

    def __init__(self) -> None:
        # The attribute subclasses in node packages replace, under ComfyUI's name.
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix = {"default": "latents/ComfyUI"}
        return {
            "required": {"samples": ("LATENT",), "filename_prefix": ("STRING", prefix)},
            "hidden": METADATA_INPUTS,
        }

    def save(
        self,
        samples: Latent,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One numbered file; the ui result names it. Only the samples are saved, not the mask.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: the file cannot be written.
        """
        import torch
        from safetensors.torch import save_file

        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, self.output_dir)
        name = f"{filename}_{counter:05}_{_ENDING}"
        tensors = {_SAMPLES: samples["samples"].contiguous(), _UNSCALED_MARK: torch.tensor([])}
        save_file(tensors, os.path.join(folder, name), metadata=_metadata(prompt, extra_pnginfo))
        return {"ui": {"latents": [{"filename": name, "subfolder": subfolder, "type": "output"}]}}


def _metadata(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> dict[str, str] | None:
    """Prompt and workflow as JSON by their names; no prompt is an empty text, as in ComfyUI."""
    if metadata_is_disabled():
        return None
    entries = {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}
    return {"prompt": "" if prompt is None else json.dumps(prompt), **entries}


class LoadLatent:
    """A latent from a file of the input folder."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "load"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latent": [sorted(name for name in input_files() if name.endswith(_ENDING))]}}

    def load(self, latent: str) -> tuple[Latent]:
        """The samples as float32.

        Args:
            latent: a name in the input folder, or annotated (``"a.latent [output]"``).

        Raises:
            OSError: the file is missing.
            SafetensorError: it is not in safetensors format.
            KeyError: it holds no latent.
        """
        from safetensors.torch import load_file

        tensors = load_file(folder_paths.get_annotated_filepath(latent), device="cpu")
        scale = 1.0 if _UNSCALED_MARK in tensors else 1.0 / _OLD_SCALE
        return ({"samples": tensors[_SAMPLES].float() * scale},)

    @classmethod
    def IS_CHANGED(cls, latent: str) -> str:
        return content_hash(latent)

    @classmethod
    def VALIDATE_INPUTS(cls, latent: str) -> bool | str:
        return folder_paths.exists_annotated_filepath(latent) or f"Invalid latent file: {latent}"


NODE_CLASS_MAPPINGS: dict[str, type] = {"SaveLatent": SaveLatent, "LoadLatent": LoadLatent}

# ComfyUI gives these no display names.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
