"""Loading node packages: folders and .py files in the custom_nodes folders.

A package is imported under its absolute path as module name (dots replaced), as ComfyUI does, and offers its
nodes as NODE_CLASS_MAPPINGS, or by a ``comfy_entrypoint()`` (see ``node_api``). One that fails is logged with its
reason and left out; the server runs on. Core nodes cannot be replaced by packages.
"""

# ruff: noqa: ASYNC240 - packages are loaded before anything is served, one after the other

from __future__ import annotations

import importlib
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

from . import folder_paths, node_registry, recorded_names
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
    except (Exception, SystemExit) as exc:
        logger.error("Failed to execute startup-script: %s / %s", script, _reason(exc))
        return False
    return True


async def load_packages() -> None:
    """Load all packages: the one ComfyUI comes with, those that are installed, and the one this server is part of."""
    paths = list(find_packages())
    core = frozenset(node_registry.NODE_CLASS_MAPPINGS)
    if paths:
        # Reads the record of ComfyUI's names, which a server without packages need not.
        core = reserved_types()
        recorded_names.complete_core_nodes(node_registry.NODE_CLASS_MAPPINGS)
    _add_shipped_package()
    attempts = []
    for path in paths:
        start = time.perf_counter()
        succeeded = await load_package(path, core)
        attempts.append(Attempt(time.perf_counter() - start, path, succeeded))
    own = await _load_own_package(core)
    if own is not None:
        attempts.append(own)
    _log_attempts("Import times for custom nodes:", "IMPORT FAILED", attempts)


def _add_shipped_package() -> None:
    """Add SaveImageWebsocket, unless packages are left out. It is no core node: another package may replace it."""
    from . import websocket_images

    if not args.disable_all_custom_nodes or websocket_images.FILE_NAME in args.whitelist_custom_nodes:
        node_registry.NODE_CLASS_MAPPINGS.update(websocket_images.NODE_CLASS_MAPPINGS)


def reserved_types() -> frozenset[str]:
    """The class types packages may not define: ComfyUI's own nodes, those that the embedded server has not too.

    There a package's ``KSampler`` is ignored, so a prompt that names one never means the package's.
    """
    return frozenset(node_registry.NODE_CLASS_MAPPINGS).union(recorded_names.node_types())


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
        Whether it could be loaded; the reason why not is logged. A package that ends the process (``sys.exit``), as
        it ends ComfyUI, is one that could not be loaded.
    """
    is_file = os.path.isfile(path)
    name = os.path.splitext(path)[0] if is_file else os.path.basename(path)
    module_name = name if is_file else path.replace(".", "_x_")
    file = path if is_file else os.path.join(path, "__init__.py")
    try:
        module = _import_file(module_name, file, register=True)
        return await _register(module, name, os.path.dirname(file), reserved)
    except (Exception, SystemExit) as exc:
        logger.warning("%s", traceback.format_exc())
        logger.warning("Cannot import %s module for custom nodes: %s", path, _reason(exc))
        return False


def _reason(exc: BaseException) -> str:
    """Why a package could not be loaded."""
    return f"it ended the process with status {exc.code}" if isinstance(exc, SystemExit) else str(exc)


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
    declared = declared_web_folder(folder) if not os.path.isabs(name) else None
    if declared is not None:
        node_registry.EXTENSION_WEB_DIRS[declared[0]] = declared[1]
    web_directory = getattr(module, "WEB_DIRECTORY", None)
    if web_directory is not None:
        web_folder = os.path.abspath(os.path.join(folder, web_directory))
        if os.path.isdir(web_folder):
            node_registry.EXTENSION_WEB_DIRS[name] = web_folder
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


def declared_web_folder(folder: str) -> tuple[str, str] | None:
    """The browser files that a package's pyproject.toml names: (the project's name, folder); None if it names none.

    They are the key ``web`` of ``[tool.comfy]``. A file that cannot be read is logged and names none.
    """
    file = Path(folder, "pyproject.toml")
    if not file.is_file():
        return None
    try:
        content = _read_toml(file)
        web = content.get("tool", {}).get("comfy", {}).get("web", "")
        name = content.get("project", {}).get("name", "")
    except (ImportError, OSError, ValueError, AttributeError) as exc:
        logger.warning("%s cannot be read, and what it says of browser files is left out: %s", file, exc)
        return None
    web_folder = os.path.join(folder, web) if web and name else ""
    if not os.path.isdir(web_folder):
        return None
    logger.info("Automatically register web folder %s for %s", web, name)
    return name, web_folder


def _read_toml(file: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ImportError: Python is older than 3.11, and tomli is not installed.
        OSError, ValueError: it cannot be read.
    """
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    content: dict[str, Any] = toml.loads(file.read_text(encoding="utf-8"))
    return content


def _log_attempts(headline: str, failed: str, attempts: list[Attempt]) -> None:
    """List the packages with the time each took."""
    if not attempts:
        return
    logger.info("\n%s", headline)
    for attempt in sorted(attempts):
        note = "" if attempt.succeeded else f" ({failed})"
        logger.info("%6.1f seconds%s: %s", attempt.duration, note, attempt.path)
    logger.info("")
