"""Record which names the modules of a ComfyUI have, for ``embedded/comfyui_names.json``.

    cd ComfyUI
    venv/bin/python /path/to/discomfort/tools/record_comfyui_names.py OUTPUT.json [--beyond OLDER.json] --cpu

With ``--beyond`` only what an older record lacks is written: ``embedded/comfyui_names_later.json``.

Node packages import names of ComfyUI's model code that the embedded server does not have. With this record it knows
which of them exist in ComfyUI, so that a package that only imports them loads, and one that imports a name ComfyUI does
not have fails as there. Recorded are names, what kind of thing each is, constants that are plain numbers, strings or
truth values, and what node classes declare (inputs, outputs, category). No code.

The format of the file is described in ``embedded/recorded_names.py``, which reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib
import inspect
import json
import os
import pkgutil
import re
import runpy
import sys
import tempfile
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

# Modules and packages of ComfyUI that node packages can import, from the module that reads the record.
READER = Path(__file__).resolve().parent.parent / "embedded" / "recorded_names.py"
ROOTS: tuple[str, ...] = tuple(sorted(runpy.run_path(str(READER))["ROOTS"]))
# What a node class declares, apart from its inputs. Descriptions and tooltips are left out, here and there: they are
# texts that somebody wrote, and the nodes are there by name only.
DECLARATIONS = (
    "RETURN_TYPES",
    "RETURN_NAMES",
    "FUNCTION",
    "CATEGORY",
    "OUTPUT_NODE",
    "OUTPUT_IS_LIST",
    "INPUT_IS_LIST",
    "DEPRECATED",
    "EXPERIMENTAL",
    "API_NODE",
)
TEXTS = ("DESCRIPTION", "OUTPUT_TOOLTIPS", "_DESCRIPTION", "_OUTPUT_TOOLTIPS")
# Put into each model folder while recording: where it shows in an input's choices, they are the folder's files.
MARKER = "@{}.safetensors"
SCALARS = (str, int, float, bool, type(None))
# Modules whose constants say something about the machine, not about ComfyUI.
OF_THE_MACHINE = ("app.logger", "comfy.model_management", "comfy.ops", "comfy.options", "cuda_malloc", "folder_paths")
# Of this the embedded server has the modules of later versions itself, see ``embedded/node_api/``.
WHOLE = "comfy_api"
# Longer texts (prompt templates, paths) are content, not names.
LONGEST_TEXT = 60
# Characters, as JSON.
LONGEST_LIST = 200


def main() -> None:
    """Record the ComfyUI in the current directory."""
    output = sys.argv.pop(1)
    older = None
    if sys.argv[1:2] == ["--beyond"]:
        older = _read_modules(sys.argv[2])
        del sys.argv[1:3]
    sys.path.insert(0, os.getcwd())
    sys.path[:] = [path for path in sys.path if path != str(Path(__file__).resolve().parent)]
    import comfy.options

    comfy.options.enable_args_parsing()
    # As main.py does: before nodes.py puts the folder comfy/ on sys.path, which has a utils.py.
    importlib.import_module("utils.extra_config")
    import folder_paths

    with tempfile.TemporaryDirectory() as models:
        for name, (_, extensions) in list(folder_paths.folder_names_and_paths.items()):
            folder = Path(models, name)
            folder.mkdir()
            folder_paths.folder_names_and_paths[name] = ([str(folder)], extensions)
            if name != "custom_nodes":
                (folder / MARKER.format(name)).touch()
        Path(models, "in").mkdir()
        folder_paths.set_input_directory(str(Path(models, "in")))
        record = _record()
    if older is not None:
        record = {"comfyui": record["comfyui"], "modules": _beyond(older, record["modules"])}
    with open(output, "w", encoding="utf-8") as file:
        json.dump(record, file, separators=(",", ":"), ensure_ascii=False)
        file.write("\n")


def _read_modules(path: str) -> dict[str, Any]:
    """The modules of a record."""
    modules: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["modules"]
    return modules


def _beyond(older: dict[str, Any], modules: dict[str, Any]) -> dict[str, Any]:
    """New modules, and the new names of those that an older record has."""
    found = {}
    for name, module in modules.items():
        if name.partition(".")[0] == WHOLE:
            continue
        known = older.get(name, {"names": {}})["names"]
        names = {key: what for key, what in module["names"].items() if key not in known}
        if name not in older:
            found[name] = {**module, "names": names}
        elif names:
            found[name] = {"names": names}
    return found


def _record() -> dict[str, Any]:
    """The whole record; see ``embedded/recorded_names.py``."""
    import server

    import nodes

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop)
    assert prompt_server is not None
    loop.run_until_complete(nodes.init_builtin_extra_nodes())
    loaded = {name for name in sys.modules if _is_ours(name)}
    _register_extras()
    _import_all()
    node_ids: dict[Any, list[str]] = {}
    for node_id, node_class in nodes.NODE_CLASS_MAPPINGS.items():
        node_ids.setdefault(_identity(node_class), []).append(node_id)
    modules = {}
    for name in sorted(name for name in sys.modules if _is_ours(name) and sys.modules[name] is not None):
        modules[name] = _describe_module(name, sys.modules[name], node_ids)
        if name not in loaded:
            modules[name]["late"] = True
    return {
        "comfyui": importlib.import_module("comfyui_version").__version__,
        "node_types": sorted(nodes.NODE_CLASS_MAPPINGS),
        "modules": modules,
    }


def _identity(cls: type) -> tuple[str, str]:
    """A class by file and name: ComfyUI imports some files of nodes twice, under their paths and under their names."""
    return re.split(r"[./\\]", cls.__module__)[-1], cls.__qualname__


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ROOTS


def _register_extras() -> None:
    """ComfyUI imports comfy_extras' files under their paths; make ``comfy_extras.nodes_x`` the same modules."""
    folder = Path("comfy_extras").resolve()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == folder and not name.startswith("comfy_extras"):
            canonical = f"comfy_extras.{Path(file).stem}"
            sys.modules.setdefault(canonical, module)
            for value in vars(module).values():
                if getattr(value, "__module__", None) == name:
                    with contextlib.suppress(AttributeError, TypeError):
                        value.__module__ = canonical


def _import_all() -> None:
    """Import what ComfyUI has not imported yet; what needs further libraries stays out."""
    for root in ROOTS:
        try:
            package = importlib.import_module(root)
        except Exception as exc:
            print(f"{root}: {exc}", file=sys.stderr)
            continue
        for info in pkgutil.walk_packages(getattr(package, "__path__", ()), root + "."):
            _try_import(info.name)
        # Namespace packages inside, which pkgutil does not see.
        for base in getattr(package, "__path__", ()):
            for file in sorted(Path(base).rglob("*.py")):
                _try_import(".".join([root, *file.relative_to(base).with_suffix("").parts]).removesuffix(".__init__"))


def _try_import(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as exc:
        print(f"{name}: {type(exc).__name__} {exc}", file=sys.stderr)


def _describe_module(module_name: str, module: ModuleType, node_ids: dict[Any, list[str]]) -> dict[str, Any]:
    """Its names."""
    names = {}
    for name, value in sorted(vars(module).items()):
        if not name.startswith("__") and not (
            isinstance(value, ModuleType) and _is_ours(value.__name__) and value.__name__ == f"{module_name}.{name}"
        ):
            names[name] = _describe(value, module_name, name, node_ids)
    described: dict[str, Any] = {"names": names}
    if hasattr(module, "__path__"):
        described["package"] = True
    return described


def _describe(value: Any, module: str, name: str, node_ids: dict[Any, list[str]]) -> Any:
    """One name: a string for a reference, a list for a constant, a dict for a class, None for a function, else 0."""
    if isinstance(value, ModuleType):
        return f"{value.__name__}:"
    if _is_plain(value):
        return 0 if module in OF_THE_MACHINE else _constant(value)
    home, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if inspect.isclass(value) or inspect.isroutine(value):
        if not isinstance(home, str) or not isinstance(qualname, str) or "<" in qualname:
            return None if inspect.isroutine(value) else 0
        if (home, qualname) != (module, name):
            return f"{home}:{qualname}" if home in sys.modules and _reaches(home, qualname, value) else None
        return _describe_class(value, node_ids) if inspect.isclass(value) else None
    if module != "comfy.cli_args" and name == "args" and value is sys.modules["comfy.cli_args"].args:
        return "comfy.cli_args:args"
    if name != "annotations" and getattr(typing, name, None) is value:
        return f"typing:{name}"
    if callable(value) and inspect.isfunction(getattr(value, "__wrapped__", None)):
        return None
    return 0


def _is_plain(value: Any) -> bool:
    """Whether it is a number, text or truth value, or a list or set of such."""
    return isinstance(value, SCALARS) or (
        isinstance(value, (list, set)) and len(value) > 0 and all(isinstance(item, SCALARS) for item in value)
    )


def _constant(value: Any) -> Any:
    """A constant, unless it is a text, or too long a list, that is none of the record's business."""
    if isinstance(value, set):
        return [sorted(value), "set"]
    if isinstance(value, list):
        return [value] if len(json.dumps(value)) < LONGEST_LIST else 0
    is_content = isinstance(value, str) and (len(value) > LONGEST_TEXT or "/" in value[:1] or "\n" in value)
    return 0 if is_content else [value]


def _reaches(home: str, qualname: str, value: Any) -> bool:
    """Whether a reference leads to the value."""
    found: Any = sys.modules[home]
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is value


def _describe_class(cls: type, node_ids: dict[Any, list[str]]) -> dict[str, Any]:
    """A class: bases, members, and what a node class declares."""
    described: dict[str, Any] = {}
    if issubclass(cls, enum.Enum):
        values = {name: member.value for name, member in cls.__members__.items()}
        if all(isinstance(value, SCALARS) for value in values.values()):
            mixin = next((base.__name__ for base in cls.__mro__ if base in (str, int, float)), None)
            return {"enum": values, **({"mixin": mixin} if mixin else {})}
    # A decorator can derive a class from the one it was given, under the same name.
    wrapped = [base for base in cls.__bases__ if _identity(base) != _identity(cls)]
    bases = [f"{base.__module__}:{base.__qualname__}" for base in wrapped if _is_ours(base.__module__)]
    errors = [
        base.__name__ for base in cls.__mro__ if base.__module__ == "builtins" and issubclass(base, BaseException)
    ]
    if bases:
        described["bases"] = bases
    if errors:
        described["error"] = errors[0]
    members = {}
    for name, value in sorted(vars(cls).items()):
        if not name.startswith("__") and name not in (*DECLARATIONS, *TEXTS):
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            described_value = (
                _describe_class(value, node_ids)
                if inspect.isclass(value) and value.__qualname__ == f"{cls.__qualname__}.{name}"
                else None
                if inspect.isroutine(value)
                else _constant(value)
                if _is_plain(value)
                else 0
            )
            members[name] = described_value
    if _identity(cls) in node_ids:
        described["node"] = node_ids[_identity(cls)][0]
        if hasattr(cls, "GET_SCHEMA"):
            described["v3"] = True
    if callable(getattr(cls, "INPUT_TYPES", None)):
        members.pop("INPUT_TYPES", None)
        described.update(_describe_node(cls))
    if members:
        described["members"] = members
    return described


def _describe_node(cls: Any) -> dict[str, Any]:
    """What a node class declares."""
    try:
        inputs = _without_texts(cls.INPUT_TYPES())
        declared = {name: getattr(cls, name, None) for name in DECLARATIONS}
        declared = {name: value for name, value in declared.items() if value not in (None, False)}
        json.dumps([inputs, declared])
    except Exception as exc:
        print(f"{cls}: {type(exc).__name__} {exc}", file=sys.stderr)
        return {}
    return {"inputs": inputs, "declared": declared}


def _without_texts(value: Any) -> Any:
    """The value without tooltips, and with ``{"files": folder}`` where the marker of a folder is."""
    if isinstance(value, dict):
        return {key: _without_texts(item) for key, item in value.items() if key not in ("tooltip", "placeholder")}
    if isinstance(value, (list, tuple)):
        return [_without_texts(item) for item in value]
    if isinstance(value, str) and value.startswith("@") and value.endswith(".safetensors"):
        return {"files": value[1:].removesuffix(".safetensors")}
    return value


if __name__ == "__main__":
    main()
