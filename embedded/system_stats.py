"""GET /system_stats: versions, memory and devices."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil

from . import frontend, model_management
from .arguments import args

# The ComfyUI version whose behaviour this server has. Clients compare it, so it is a version and nothing else.
COMFYUI_VERSION = "0.3.64"


def own_version() -> str:
    """The version of Discomfort, ``"0+unknown"`` when it runs from a folder that was not installed."""
    return frontend.installed_version("discomfort") or "0+unknown"


def collect() -> dict[str, Any]:
    """ComfyUI's answer, with ``discomfort_embedded`` (True) and ``discomfort_version`` in addition.

    Memory is in bytes. On a CPU the "vram" is the machine's memory.
    """
    import torch

    memory = psutil.virtual_memory()
    device = model_management.get_torch_device()
    vram_total, torch_vram_total = model_management.get_total_memory(device, torch_total_too=True)
    vram_free, torch_vram_free = model_management.get_free_memory(device, torch_free_too=True)
    # What is installed is what is required, and of a frontend that was chosen (--front-end-root) nothing is:
    # there is nothing to warn about.
    frontend_version = None if args.front_end_root else frontend.installed_version("comfyui-frontend-package")
    templates_version = frontend.installed_version("comfyui-workflow-templates")
    return {
        "system": {
            "os": os.name,
            "ram_total": memory.total,
            "ram_free": memory.available,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": frontend_version,
            "installed_templates_version": templates_version,
            "required_templates_version": templates_version,
            "python_version": sys.version,
            "pytorch_version": torch.version.__version__,
            "embedded_python": Path(sys.executable).parent.name == "python_embeded",
            "argv": sys.argv,
            "discomfort_embedded": True,
            "discomfort_version": own_version(),
        },
        "devices": [
            {
                "name": model_management.get_torch_device_name(device),
                "type": device.type,
                "index": device.index,
                "vram_total": vram_total,
                "vram_free": vram_free,
                "torch_vram_total": torch_vram_total,
                "torch_vram_free": torch_vram_free,
            }
        ],
    }
