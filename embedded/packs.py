"""Loading node packages: folders and .py files in the custom_nodes folders.

A package is imported under its absolute path as module name (dots replaced), as ComfyUI does, and offers its
nodes as NODE_CLASS_MAPPINGS, or by a ``comfy_entrypoint()`` (see ``node_api``). One that fails is logged with its
reason and left out; the server runs on. Core nodes cannot be replaced by packages.
"""

# ruff: noqa: ASYNC240 - packages are loaded before anything is served, one after the other

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from . import folder_paths, node_registry
from .arguments import args
from .extensions import register_extension

logger = logging.getLogger("discomfort.embedded.packs")

# The package this server is part of.
OWN_FOLDER = Path(__file__).resolve().parent.parent
_OWN_PACKAGE = __package__.rpartition(".")[0]
# A node that only it has.
_OWN_NODE = "DiscomfortPort"


class Attempt(NamedTuple):
    """The attempt to load one package."""

    # seconds it took
    duration: float
    path: str
    succeeded: bool


def load_extra_paths(file: str) -> None:
    """Add the folders of an extra_model_paths.yaml.

    Top-level sections of any name; in each, folder names with paths, one per line, relative to the section's
    ``base_path`` or else to the file; ``is_default: true`` puts them in front.

    Raises:
        OSError: the file cannot be read.
        RuntimeError: PyYAML is not installed.
        ValueError: it is not such a file.
    """
    try:
        import yaml
    except ImportError as exc:
        raise RuntimeError(f"--extra-model-paths-config {file}: reading it needs PyYAML (pip install pyyaml)") from exc
    try:
        sections = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError as exc:
        raise ValueError(f"--extra-model-paths-config {file} is no valid YAML: {exc}") from exc
    if not isinstance(sections, dict):
        raise ValueError(f"--extra-model-paths-config {file} has no sections: see extra_model_paths.yaml.example")
    for section in sections.values():
        if section:
            _add_section(dict(section), os.path.dirname(os.path.abspath(file)))


def _add_section(section: dict[str, Any], file_folder: str) -> None:
    """Add one section's folders."""
    base = os.path.expandvars(os.path.expanduser(section.pop("base_path", None) or ""))
    is_default = bool(section.pop("is_default", False))
    for name, paths in section.items():
        for path in str(paths).split("\n"):
            if path:
                full = os.path.normpath(os.path.join(file_folder, base, path))
                logger.info("Adding extra search path %s %s", name, full)
                folder_paths.add_model_folder_path(name, full, is_default)


def run_prestartup_scripts() -> None:
    """Run the packages' prestartup_script.py, before torch is imported."""
    attempts = []
    for path in find_packages():
        script = os.path.join(path, "prestartup_script.py")
        if os.path.isfile(script):
            start = time.perf_counter()
            succeeded = _run_script(script)
            attempts.append(Attempt(time.perf_counter() - start, path, succeeded))
    _log_attempts("Prestartup times for custom nodes:", "PRESTARTUP FAILED", attempts)


def _run_script(script: str) -> bool:
    try:
        _import_file(os.path.splitext(script)[0], script, register=False)
    except Exception as exc:
        logger.error("Failed to execute startup-script: %s / %s", script, exc)
        return False
    return True


async def load_packages() -> None:
    """Load all packages, and the one this server is part of."""
    core = frozenset(node_registry.NODE_CLASS_MAPPINGS)
    attempts = []
    for path in find_packages():
        start = time.perf_counter()
        succeeded = await load_package(path, core)
        attempts.append(Attempt(time.perf_counter() - start, path, succeeded))
    own = await _load_own_package(core)
    if own is not None:
        attempts.append(own)
    _log_attempts("Import times for custom nodes:", "IMPORT FAILED", attempts)


def find_packages() -> Iterator[str]:
    """The paths of the packages to load: not .disabled ones, and of a whitelist only those on it."""
    if args.disable_all_custom_nodes and not args.whitelist_custom_nodes:
        return
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        if not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if name == "__pycache__" or name.endswith(".disabled"):
                continue
            if os.path.isfile(path) and not name.endswith(".py"):
                continue
            if args.disable_all_custom_nodes and name not in args.whitelist_custom_nodes:
                logger.info("Skipping %s due to disable_all_custom_nodes and whitelist_custom_nodes", name)
                continue
            yield path


async def load_package(path: str, reserved: Collection[str] = frozenset()) -> bool:
    """Import a package and add its nodes and browser files.

    Args:
        path: a folder with an __init__.py, or a .py file.
        reserved: class types it may not define; they are left out silently, as in ComfyUI.

    Returns:
        Whether it could be loaded; the reason why not is logged.
    """
    is_file = os.path.isfile(path)
    name = os.path.splitext(path)[0] if is_file else os.path.basename(path)
    module_name = name if is_file else path.replace(".", "_x_")
    file = path if is_file else os.path.join(path, "__init__.py")
    try:
        module = _import_file(module_name, file, register=True)
        return await _register(module, name, os.path.dirname(file), reserved)
    except Exception as exc:
        logger.warning("%s", traceback.format_exc())
        logger.warning("Cannot import %s module for custom nodes: %s", path, exc)
        return False


async def _load_own_package(reserved: Collection[str]) -> Attempt | None:
    """Add the nodes of the package this server is part of, unless a custom_nodes folder had it.

    It is imported already, under whatever name this module was imported.
    """
    if _OWN_NODE in node_registry.NODE_CLASS_MAPPINGS:
        return None
    loaded = {Path(folder).resolve() for folder in node_registry.LOADED_MODULE_DIRS.values()}
    if OWN_FOLDER in loaded:
        return None
    start = time.perf_counter()
    try:
        succeeded = await _register(sys.modules[_OWN_PACKAGE], "discomfort", str(OWN_FOLDER), reserved)
    except Exception as exc:
        logger.warning("%s", traceback.format_exc())
        logger.warning("Cannot import %s module for custom nodes: %s", OWN_FOLDER, exc)
        succeeded = False
    return Attempt(time.perf_counter() - start, str(OWN_FOLDER), succeeded)


def _import_file(module_name: str, file: str, register: bool) -> ModuleType:
    """Import a file under a name; with ``register`` others can import it by that name."""
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


async def _register(module: ModuleType, name: str, folder: str, reserved: Collection[str]) -> bool:
    """Add what an imported package offers.

    Raises:
        Exception: of a package that makes its mappings when they are asked for.
    """
    short_name = os.path.basename(name)
    node_registry.LOADED_MODULE_DIRS[name] = os.path.abspath(folder)
    web_directory = getattr(module, "WEB_DIRECTORY", None)
    if web_directory is not None:
        web_folder = os.path.abspath(os.path.join(folder, web_directory))
        if os.path.isdir(web_folder):
            node_registry.EXTENSION_WEB_DIRS[short_name] = web_folder
    # A single-file package is named by its path.
    where = f"{name}.py" if os.path.isabs(name) else folder
    classes = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if classes is None and hasattr(module, "comfy_entrypoint"):
        return await register_extension(module, short_name, where, reserved)
    if classes is None:
        logger.warning(
            "Skip %s module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or comfy_entrypoint (need one).",
            where,
        )
        return False
    for class_type, node_class in classes.items():
        if class_type not in reserved:
            node_registry.NODE_CLASS_MAPPINGS[class_type] = node_class
            node_class.RELATIVE_PYTHON_MODULE = f"custom_nodes.{short_name}"
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None)
    if titles is not None:
        node_registry.NODE_DISPLAY_NAME_MAPPINGS.update(titles)
    return True


def _log_attempts(headline: str, failed: str, attempts: list[Attempt]) -> None:
    """List the packages with the time each took."""
    if not attempts:
        return
    logger.info("\n%s", headline)
    for attempt in sorted(attempts):
        note = "" if attempt.succeeded else f" ({failed})"
        logger.info("%6.1f seconds%s: %s", attempt.duration, note, attempt.path)
    logger.info("")
