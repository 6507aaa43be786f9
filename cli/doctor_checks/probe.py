"""Run by an interpreter that is asked about: ``python probe.py QUESTION``. Imports the standard library only.

It may be any Python, also one that is too old for the package. QUESTION is JSON, all of it optional::

    {"versions": [distribution, ...], "imports": [module, ...], "torch": true, "nodes": folder of the package}

The answers are lines of JSON behind a mark, each printed at once, so that a crash takes only what was not told yet.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

MARK = "discomfort-doctor:"


def _tell(**facts: Any) -> None:
    sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


def _versions(names: list[str]) -> dict[str, str | None]:
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = str(metadata.version(name))
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _import(name: str) -> bool:
    _tell(importing=name)
    error = ""
    try:
        importlib.import_module(name)
    except BaseException as e:
        error = type(e).__name__ + ": " + str(e)
    _tell(**{"import": name, "error": error})
    return not error


def _torch() -> None:
    if not _import("torch"):
        return
    import torch

    facts = {"version": str(torch.__version__), "cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)}
    _tell(torch=facts)
    _tell(importing="torch.cuda")
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append([properties.name, properties.total_memory])
    elif hasattr(torch, "xpu") and torch.xpu.is_available():
        devices.append([torch.xpu.get_device_name(0), 0])
    elif hasattr(torch.backends, "mps") and torch.backends.mps.is_available():
        devices.append(["Apple GPU (MPS)", 0])
    _tell(**{"import": "torch.cuda", "error": ""})
    _tell(torch=dict(facts, devices=devices))


def _nodes(folder: str) -> None:
    """Load the package by its path, as ComfyUI does, and ask for its nodes."""
    import importlib.util

    _tell(importing="nodes")
    error, count = "", 0
    try:
        spec = importlib.util.spec_from_file_location(
            "discomfort", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["discomfort"] = package
        spec.loader.exec_module(package)
        count = len(package.NODE_CLASS_MAPPINGS)
    except BaseException as e:
        error = type(e).__name__ + ": " + str(e)
    _tell(**{"import": "nodes", "error": error})
    _tell(nodes=count)


def _main(question: dict[str, Any]) -> None:
    del sys.path[0]  # the folder of this file
    _tell(python=".".join(map(str, sys.version_info[:3])), executable=sys.executable, is_64_bit=sys.maxsize > 2**32)
    if question.get("versions"):
        _tell(versions=_versions(question["versions"]))
    for name in question.get("imports", []):
        _import(name)
    if question.get("torch"):
        _torch()
    if question.get("nodes"):
        _nodes(question["nodes"])
    _tell(done=True)
    # Not through the clean-up of libraries, some of which crash there.
    os._exit(0)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
