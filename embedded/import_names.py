"""The module names node packages import, each served by a module of this server.

Packages say ``import folder_paths`` or ``from comfy.utils import ProgressBar``. A name that is not here raises
the usual ModuleNotFoundError in the package, which then fails alone, with that as its reason.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from . import system_stats

# Name packages use -> module of this package. In two steps, because some must not be imported before torch is
# about to be: see launch.py.
_EARLY = {
    "folder_paths": "folder_paths",
    "comfy.cli_args": "arguments",
}
_LATE = {
    "nodes": "node_registry",
    "server": "server",
    "execution": "execution",
    "protocol": "messages",
    "node_helpers": "node_helpers",
    "comfy.utils": "comfy_utils",
    "comfy.model_management": "model_management",
    "comfy.comfy_types": "comfy_types",
    "comfy.comfy_types.node_typing": "comfy_types",
    "comfy_execution.graph": "graph",
    "comfy_execution.graph_utils": "graph_utils",
    "comfy_execution.caching": "caching",
    "comfy_execution.validation": "validation",
    "comfy_execution.progress": "progress",
    "comfy_execution.utils": "node_context",
}


def install_early() -> None:
    """Install what prestartup scripts import."""
    _install(_EARLY)


def install_late() -> None:
    """Install the rest. Imports the whole server."""
    _install(_LATE)
    version = ModuleType("comfyui_version")
    version.__dict__["__version__"] = system_stats.COMFYUI_VERSION
    sys.modules["comfyui_version"] = version


def public_name(module_name: str) -> str:
    """The name packages import a module of this server by, or the module's own where there is none."""
    package, _, own_name = module_name.rpartition(".")
    if package == __package__:
        for name, served_by in {**_EARLY, **_LATE}.items():
            if served_by == own_name:
                return name
    return module_name


def _install(names: dict[str, str]) -> None:
    """Put modules into sys.modules under the names packages use, with parents to hold them."""
    for name, own_name in names.items():
        module = importlib.import_module(f".{own_name}", __package__)
        sys.modules[name] = module
        parent_name, _, short_name = name.rpartition(".")
        if parent_name:
            setattr(_parent(parent_name), short_name, module)


def _parent(name: str) -> ModuleType:
    """The package of a dotted name: an empty one, in which nothing else can be found."""
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
    return sys.modules[name]
