"""The module names node packages import, each served by a module of this server.

Packages say ``import folder_paths`` or ``from comfy.utils import ProgressBar``. What the embedded server has itself is
listed here; of what else ComfyUI has, packages get the names (see ``recorded_names.py``). A name ComfyUI does not have
raises the usual error in the package, which then fails alone, with that as its reason.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from . import folder_paths, recorded_names

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
    "comfy.samplers": "samplers",
    "latent_preview": "latent_preview",
}
# Single names of modules that are recorded otherwise.
_SINGLE = {
    "comfy.k_diffusion.sampling.append_zero": "samplers.append_zero",
    "comfy.k_diffusion.sampling.get_sigmas_exponential": "samplers.get_sigmas_exponential",
    "comfy.k_diffusion.sampling.get_sigmas_karras": "samplers.get_sigmas_karras",
    "comfy.k_diffusion.sampling.get_sigmas_polyexponential": "samplers.get_sigmas_polyexponential",
    "comfy.k_diffusion.sampling.get_sigmas_vp": "samplers.get_sigmas_vp",
    "comfy.options.enable_args_parsing": "small_names.enable_args_parsing",
    "comfy.sample.cleanup_additional_models": "small_names.do_nothing_with_models",
    "comfy.sample.prepare_noise": "samplers.prepare_noise",
    "comfy.sampler_helpers.prepare_mask": "samplers.prepare_mask",
    "comfy.sd1_clip.escape_important": "prompt_weights.escape_important",
    "comfy.sd1_clip.parse_parentheses": "prompt_weights.parse_parentheses",
    "comfy.sd1_clip.token_weights": "prompt_weights.token_weights",
    "comfy.sd1_clip.unescape_important": "prompt_weights.unescape_important",
    "comfy_extras.nodes_mask.composite": "small_names.composite",
    "comfy_extras.nodes_post_processing.gaussian_kernel": "small_names.gaussian_kernel",
    "nodes.ConditioningAverage": "conditioning.ConditioningAverage",
    "nodes.ConditioningCombine": "conditioning.ConditioningCombine",
    "nodes.ConditioningConcat": "conditioning.ConditioningConcat",
    "nodes.ConditioningSetArea": "conditioning.ConditioningSetArea",
    "nodes.ConditioningSetAreaPercentage": "conditioning.ConditioningSetAreaPercentage",
    "nodes.ConditioningSetAreaStrength": "conditioning.ConditioningSetAreaStrength",
    "nodes.ConditioningSetMask": "conditioning.ConditioningSetMask",
    "nodes.ConditioningSetTimestepRange": "conditioning.ConditioningSetTimestepRange",
    "nodes.ConditioningZeroOut": "conditioning.ConditioningZeroOut",
    "utils.extra_config.load_extra_path_config": "packs.load_extra_paths",
    "utils.install_util.get_missing_requirements_message": "small_names.get_missing_requirements_message",
    "utils.install_util.requirements_path": "small_names.requirements_path",
    "utils.json_util.merge_json_recursive": "small_names.merge_json_recursive",
}
# Modules at the top level that ComfyUI has imported before packages are: ``import utils`` in a package finds them, not
# a folder of that name on sys.path.
_AT_THE_TOP = ("app", "comfy", "comfy_config", "comfy_execution", "comfy_extras", "cuda_malloc", "middleware", "utils")


def install_early() -> None:
    """Install what prestartup scripts import."""
    recorded_names.install_finder()
    _install(_EARLY)


def install_late() -> None:
    """Install the rest. Imports the whole server."""
    for name, own_name in _SINGLE.items():
        recorded_names.serve(name, f"{__package__}.{own_name}")
    for name in _AT_THE_TOP:
        recorded_names.import_recorded(name)
    _install(_LATE)
    # Packages import each other as ``custom_nodes.<folder>``.
    packs = ModuleType("custom_nodes")
    packs.__path__ = folder_paths.get_folder_paths("custom_nodes")
    sys.modules["custom_nodes"] = packs
    # Not at the top: it needs the HTTP library, which is to be imported while torch is.
    from .system_stats import COMFYUI_VERSION

    version = ModuleType("comfyui_version")
    version.__dict__["__version__"] = COMFYUI_VERSION
    sys.modules["comfyui_version"] = version
    from .node_api.module_names import NAMES

    _install(NAMES)


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
        recorded_names.add_recorded_names(module, name)
        sys.modules[name] = module
        if "." not in name:
            # Packages take its folder for ComfyUI's, and keep files there.
            module.__file__ = os.path.join(folder_paths.base_path, f"{name}.py")
        parent_name, _, short_name = name.rpartition(".")
        if parent_name:
            setattr(recorded_names.import_recorded(parent_name), short_name, module)
