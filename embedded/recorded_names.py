"""Names of ComfyUI that the embedded server does not have, so that node packages that import them load.

A package of many nodes usually imports model code at its top (``import comfy.sd``, ``from comfy.ldm.modules.attention
import optimized_attention``), even if most of its nodes use no model. ``comfyui_names.json`` records which names the
modules of ComfyUI have (made by ``tools/record_comfyui_names.py``; names and declarations, no code). From it this
module makes placeholders:

* a function that raises :class:`NotInEmbeddedServer` when it is called,
* a class that can be named, subclassed and asked ``isinstance``, and that raises when an object of it is made;
  node classes (``nodes.KSampler``) declare the inputs and outputs they have in ComfyUI, and their methods raise,
* a value that raises whatever is done with it, unless it is a plain constant, which is recorded with its value.

Nothing here returns a made-up result, and a name that ComfyUI does not have fails as there: ImportError or
AttributeError. What the embedded server has itself always comes before the record.

``comfyui_names_later.json`` has what a later version's modules have beyond that. It is read when a name is asked for
that the first record lacks, and it adds nothing to the modules that the embedded server has itself: packages ask those
what they can do, and a placeholder would be a wrong answer.

The files: ``{"comfyui": version, "node_types": [class_type], "modules": {module: MODULE}}``, MODULE being ``{"names":
{name: WHAT}, "package": true, "late": true}``; late are modules that ComfyUI's own start does not import, so they are
no attributes of their package until somebody does. WHAT is

* a string: a name from elsewhere, ``"torch.nn:Module"``, or a module, ``"torch:"``,
* a list of one constant (a number, text, truth value or list of such; with a second item "set": a list that is a
  set), null: a function, 0: any other value,
* an object: a class, with the keys (all optional) ``bases`` (as strings), ``members`` (name -> WHAT), ``enum`` (name ->
  value) and ``mixin`` (its second base), ``error`` (the built-in exception it derives from), and of node classes
  ``node`` (class_type), ``v3`` (true: its ``execute`` is called on the class), ``inputs`` (what INPUT_TYPES returns,
  ``{"files": folder}`` standing for the files of a model folder), ``declared`` (RETURN_TYPES, FUNCTION, CATEGORY ...).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

FILE = Path(__file__).with_name("comfyui_names.json")
LATER_FILE = Path(__file__).with_name("comfyui_names_later.json")

# The first parts of the recorded modules' names: what packages can import. The recorder reads them here.
ROOTS = frozenset(
    [
        "api_server",
        "app",
        "comfy",
        "comfy_api",
        "comfy_config",
        "comfy_execution",
        "comfy_extras",
        "cuda_malloc",
        "execution",
        "folder_paths",
        "hook_breaker_ac10a0",
        "latent_preview",
        "middleware",
        "node_helpers",
        "nodes",
        "protocol",
        "server",
        "utils",
    ]
)
# Where, in a module that is served under ComfyUI's names, those names are.
_NAMES_ATTRIBUTE = "__comfyui_names__"
_TUPLES = ("RETURN_TYPES", "RETURN_NAMES", "OUTPUT_IS_LIST", "OUTPUT_TOOLTIPS")


class NotInEmbeddedServer(RuntimeError):
    """A node used a part of ComfyUI that the embedded server has only the name of."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: the full name, ``"comfy.sd.load_lora_for_models"``.
        """
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        if self.name.partition(".")[0] in ("comfy", "comfy_extras", "nodes", "latent_preview"):
            return f"{self.name}: the embedded server runs no models. Run this node on a ComfyUI installation."
        return f"{self.name}: the embedded server does not have this part of ComfyUI. Use a ComfyUI installation."


@functools.cache
def _content() -> dict[str, Any]:
    """The file, read once."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def record() -> dict[str, dict[str, Any]]:
    """What ComfyUI's modules have, by module name."""
    modules: dict[str, dict[str, Any]] = _content()["modules"]
    return modules


@functools.cache
def later_record() -> dict[str, dict[str, Any]]:
    """What a later ComfyUI has beyond :func:`record`: new modules, and new names of those that are there."""
    modules: dict[str, dict[str, Any]] = json.loads(LATER_FILE.read_text(encoding="utf-8"))["modules"]
    return modules


def find_module(name: str) -> dict[str, Any] | None:
    """What is recorded of a module, None for one that no recorded ComfyUI has."""
    return record().get(name) or later_record().get(name)


def node_types() -> list[str]:
    """The class types of all of ComfyUI's own nodes."""
    types: list[str] = _content()["node_types"]
    return types


# Full names that the embedded server has after all -> where: "comfy.sample.prepare_noise" -> "package.module.name".
_served: dict[str, str] = {}


def serve(name: str, own_name: str) -> None:
    """Let a recorded name be something of ours; imported when it is asked for."""
    _served[name] = own_name


class RecordedModule(ModuleType):
    """A module that takes the names it lacks from the record."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return self._public_names()
        if not name.startswith("__"):
            for known, module_name in self._known():
                if name in known["names"]:
                    value = _make_or_serve(known["names"][name], module_name, name)
                    setattr(self, name, value)
                    return value
                submodule = f"{module_name}.{name}"
                found = find_module(submodule)
                if found is not None and not found.get("late"):
                    return importlib.import_module(submodule)
        raise AttributeError(f"module {_shown_name(self)!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._recorded()})

    def _known(self) -> Iterator[tuple[dict[str, Any], str]]:
        """What is recorded under each of its names, and the name."""
        for name in vars(self).get(_NAMES_ATTRIBUTE, ()):
            if name in record():
                yield record()[name], name
            # One of ours has a name of its own beside those of ComfyUI.
            if self.__name__ == name and name in later_record():
                yield later_record()[name], name

    def _recorded(self) -> list[str]:
        return [name for known, _ in self._known() for name in known["names"]]

    def _public_names(self) -> list[str]:
        """What ``from module import *`` takes."""
        return sorted(name for name in {*vars(self), *self._recorded()} if not name.startswith("_"))


def add_recorded_names(module: ModuleType, name: str) -> None:
    """Let a module of ours, served as ComfyUI's ``name``, take the names it lacks from the record."""
    if not isinstance(module, RecordedModule):
        module.__class__ = RecordedModule
    names = vars(module).get(_NAMES_ATTRIBUTE, ())
    if name not in names:
        setattr(module, _NAMES_ATTRIBUTE, (*names, name))
    # Some are packages in ComfyUI, whose other modules the finder knows.
    vars(module).setdefault("__path__", [])


class Finder(MetaPathFinder, Loader):
    """Imports the recorded modules that the embedded server does not have itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a recorded module, None for any other."""
        if fullname.partition(".")[0] not in ROOTS:
            return None
        known = find_module(fullname)
        return None if known is None else ModuleSpec(fullname, self, is_package=known.get("package", False))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that has nothing yet."""
        return RecordedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Let it take everything from the record."""
        add_recorded_names(module, module.__name__)


def resolve(reference: str) -> Any:
    """What a reference such as ``"torch.nn:Module"`` names.

    Raises:
        ImportError, AttributeError: there is no such thing here.
    """
    module_name, _, qualname = reference.partition(":")
    value: Any = importlib.import_module(module_name)
    for part in qualname.split(".") if qualname else ():
        value = getattr(value, part)
    return value


def _shown_name(module: ModuleType) -> str:
    """The name packages know a module by."""
    names = vars(module).get(_NAMES_ATTRIBUTE)
    return str(names[0]) if names else module.__name__


# -- placeholders --------------------------------------------------------------------------------------------


def _make_or_serve(what: Any, module: str, name: str) -> Any:
    """A module's name: ours, or what the record describes."""
    own_name = _served.get(f"{module}.{name}")
    if own_name is None:
        return _make(what, module, name)
    own_module, _, short_name = own_name.rpartition(".")
    return resolve(f"{own_module}:{short_name}")


def _make(what: Any, module: str, qualname: str) -> Any:
    """The thing a record describes."""
    if isinstance(what, str):
        return _resolve_or_placeholder(what, module, qualname)
    if isinstance(what, list):
        return _constant(what)
    if what is None:
        return _make_function(module, qualname)
    if isinstance(what, dict):
        return _make_class(what, module, qualname)
    return _Value(f"{module}.{qualname}")


def _constant(what: list[Any]) -> Any:
    """A recorded constant."""
    return set(what[0]) if what[1:] == ["set"] else what[0]


def _resolve_or_placeholder(reference: str, module: str, qualname: str) -> Any:
    """A name from elsewhere; a library that is not installed leaves a value that says so when it is used."""
    try:
        return resolve(reference)
    except (ImportError, AttributeError):
        return _Value(f"{module}.{qualname}")


def _make_function(module: str, qualname: str) -> Callable[..., Any]:
    """A function, or method, that raises."""

    def function(*_: Any, **__: Any) -> NoReturn:
        raise NotInEmbeddedServer(f"{module}.{qualname}")

    function.__module__, function.__qualname__ = module, qualname
    function.__name__ = qualname.rpartition(".")[2]
    function.__doc__ = f"Raises {NotInEmbeddedServer.__name__}: the embedded server has only the name."
    return function


class _PlaceholderClass(ABCMeta):
    """The class of classes that stand for ComfyUI's. Also of those packages derive from them."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not getattr(cls, "_comfyui_makes_objects", False):
            raise NotInEmbeddedServer(str(getattr(cls, "_comfyui_name", cls.__name__)))
        return super().__call__(*args, **kwargs)


def _make_class(what: dict[str, Any], module: str, qualname: str) -> Any:
    """A class that can be named and derived from."""
    name = qualname.rpartition(".")[2]
    if "enum" in what:
        mixin = {"str": str, "int": int, "float": float}.get(what.get("mixin", ""))
        members = list(what["enum"].items())
        return Enum(name, members, module=module, qualname=qualname, **({"type": mixin} if mixin else {}))
    if "error" in what:
        bases = [resolve(base) for base in what.get("bases", ())] or [getattr(__import__("builtins"), what["error"])]
        return type(name, tuple(bases), {"__module__": module, "__qualname__": qualname})
    if "node" in what:
        own = _own_node(what["node"])
        if own is not None:
            return own
    namespace: dict[str, Any] = {"__module__": module, "__qualname__": qualname}
    namespace["_comfyui_name"] = f"{module}.{qualname}"
    for member, described in what.get("members", {}).items():
        namespace[member] = _make(described, module, f"{qualname}.{member}")
    if "inputs" in what:
        namespace.update(_declarations(what))
    bases = [base for base in map(_base, what.get("bases", ())) if base is not None]
    return _PlaceholderClass(name, tuple(bases), namespace)


def _base(reference: str) -> type | None:
    """A base class; None for what is no class here."""
    base = resolve(reference)
    return base if isinstance(base, type) else None


def _own_node(class_type: str) -> Any:
    """The embedded server's own node of this type, None if it has none."""
    from . import core_nodes

    return core_nodes.NODE_CLASS_MAPPINGS.get(class_type)


def _node_classes() -> Iterator[tuple[str, dict[str, Any]]]:
    """ComfyUI's own node classes: class_type, what is recorded of the class."""
    for module in record().values():
        for what in module["names"].values():
            if isinstance(what, dict) and "node" in what:
                yield what["node"], what


def complete_core_nodes(classes: Mapping[str, Any]) -> None:
    """Give our core nodes what packages find on ComfyUI's: lists of choices, and ``execute`` to be called on the class.

    Args:
        classes: by class_type.
    """
    for class_type, what in _node_classes():
        own = classes.get(class_type)
        if own is None:
            continue
        for name, described in what.get("members", {}).items():
            if isinstance(described, list) and not name.startswith("_") and not hasattr(own, name):
                setattr(own, name, _constant(described))
        function = vars(own).get("execute")
        if what.get("v3") and inspect.isfunction(function):
            own.execute = _OnClassOrObject(function)


class _OnClassOrObject:
    """A method that, called on its class, gets a fresh object."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        return self._function.__get__(owner() if instance is None else instance, owner)


def _declarations(what: dict[str, Any]) -> dict[str, Any]:
    """What a node class declares. Its objects can be made, because packages call ``super().__init__()``."""
    declared = {key: tuple(value) if key in _TUPLES else value for key, value in what["declared"].items()}

    def input_types(_: type) -> dict[str, Any]:
        return _expand_inputs(what["inputs"])

    def missing_attribute(self: Any, name: str) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}: it derives from "
            f"{type(self)._comfyui_name}, of which the embedded server has only the declarations"
        )

    return {
        **declared,
        "INPUT_TYPES": classmethod(input_types),
        "_comfyui_makes_objects": True,
        "__getattr__": missing_attribute,
    }


def _expand_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """A fresh copy of what INPUT_TYPES returns, with the files there are now."""
    expanded: dict[str, Any] = {}
    for category, entries in inputs.items():
        expanded[category] = {
            name: tuple(_with_files(part) for part in entry) if isinstance(entry, list) else entry
            for name, entry in entries.items()
        }
    return expanded


def _with_files(value: Any) -> Any:
    """A copy in which ``{"files": folder}`` has become the folder's files."""
    from . import folder_paths

    if isinstance(value, dict):
        return {key: _with_files(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    for item in value:
        if isinstance(item, dict) and list(item) == ["files"]:
            items.extend(folder_paths.get_filename_list(item["files"]))
        else:
            items.append(_with_files(item))
    return items


class _Value:
    """Stands for a value; whatever is done with it raises."""

    def __init__(self, name: str) -> None:
        self.__dict__["_comfyui_name"] = name

    def __repr__(self) -> str:
        return f"<{self.__dict__['_comfyui_name']}, of which the embedded server has only the name>"

    def __getattr__(self, name: str) -> Any:
        # What Python itself asks for (copy, pickle, inspect) may be absent.
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotInEmbeddedServer(f"{self.__dict__['_comfyui_name']}")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotInEmbeddedServer(f"{self.__dict__['_comfyui_name']}")

    __call__ = __iter__ = __len__ = __bool__ = __contains__ = __getitem__ = __setitem__ = __delitem__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = __or__ = __and__ = _refuse
    __ror__ = __neg__ = __pow__ = __mod__ = __floordiv__ = __matmul__ = _refuse
    __enter__ = __exit__ = __setattr__ = _refuse

    def __eq__(self, other: object) -> bool:
        # Itself it is; whether the value is equal to anything else, nobody knows.
        return self is other or self._refuse()

    __hash__ = object.__hash__


def import_recorded(name: str) -> ModuleType:
    """Import a recorded module, even where something else of its name could be imported. Does not read the record."""
    if name not in sys.modules:
        module = module_from_spec(ModuleSpec(name, Finder(), is_package=True))
        add_recorded_names(module, name)
        sys.modules[name] = module
    return sys.modules[name]


def install_finder() -> None:
    """Let the recorded modules be imported. After everything else, so that what is installed is found first."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
