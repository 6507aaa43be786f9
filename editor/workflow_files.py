"""Finding workflows by the names that people give them in a runner node. Blocks.

A name is an absolute path, or counts from the first of these folders that has it: the workflows that the user saved in
the editor, this package's examples, and ComfyUI's own folder.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

#: the user of a ComfyUI without --multi-user
DEFAULT_USER = "default"

EXAMPLES = Path(__file__).resolve().parent.parent / "example_workflows"

# What can hold a workflow; other files are not read, so that no message can quote them.
_ENDINGS = (".json", ".png")
# Files that are listed, and folders below each other that are looked into.
_MOST = 2000
_DEEPEST = 8


def folders(user: str = DEFAULT_USER) -> list[Path]:
    """Where names count from, in this order. Outside of a ComfyUI only the examples."""
    found = []
    comfyui: Any = sys.modules.get("folder_paths")
    if comfyui is not None and hasattr(comfyui, "get_user_directory"):
        found.append(Path(comfyui.get_user_directory(), user, "workflows"))
    found.append(EXAMPLES)
    if comfyui is not None and hasattr(comfyui, "base_path"):
        found.append(Path(comfyui.base_path))
    return found


def resolve_workflow(name: str, places: Sequence[Path] | None = None) -> Path:
    """The file of a workflow.

    Args:
        name: as the user wrote it; ".json" may be left out.
        places: the folders that it may count from; None: :func:`folders`.

    Raises:
        FileNotFoundError: there is none; says where it was looked for, and which names are similar.
        ValueError: the name is empty, or that of another kind of file.
    """
    name = name.strip()
    if not name:
        raise ValueError("No workflow is named. Choose one, or write the path of its file.")
    places = folders() if places is None else places
    written = Path(name).expanduser()
    wanted = [written] if written.suffix.lower() in _ENDINGS else [written.with_name(f"{written.name}.json")]
    for place in [Path("/")] if written.is_absolute() else places:
        for path in wanted:
            if (place / path).is_file():
                return place / path
    if written.suffix and written.suffix.lower() not in _ENDINGS and _exists(written, places):
        raise ValueError(f"{name!r} is no workflow: those are .json files, or .png files that ComfyUI saved.")
    raise FileNotFoundError(_missing(name, written, places))


def _exists(written: Path, places: Sequence[Path]) -> bool:
    return any((place / written).is_file() for place in ([Path("/")] if written.is_absolute() else places))


def _missing(name: str, written: Path, places: Sequence[Path]) -> str:
    if written.is_absolute():
        return f"There is no workflow file {name!r}."
    looked = ", ".join(str(place) for place in places) or "nowhere: there is no ComfyUI here"
    known = [one["name"] for one in list_workflows(places)]
    stems = {Path(one).stem.lower(): one for one in reversed(known)}
    close = difflib.get_close_matches(written.stem.lower(), stems, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(repr(stems[one]) for one in close)}?" if close else ""
    return f"There is no workflow {name!r}.{hint} It was looked for in: {looked}."


def list_workflows(places: Sequence[Path] | None = None) -> list[Json]:
    """The user's workflows and the examples, each with the ``name`` that :func:`resolve_workflow` takes, its
    ``path``, and ``is_example``.

    Args:
        places: as of :func:`resolve_workflow`. ComfyUI's own folder is not searched: it may hold anything.
    """
    places = folders() if places is None else places
    found: dict[str, Json] = {}
    for place in places:
        if place.name == "workflows" or place == EXAMPLES:
            for path in _json_files(place):
                name = path.relative_to(place).as_posix()
                # One of the same name in an earlier folder is what the name means.
                found.setdefault(name, {"name": name, "path": str(path), "is_example": place == EXAMPLES})
    return sorted(found.values(), key=lambda one: str(one["name"]).lower())


def _json_files(place: Path) -> Iterator[Path]:
    """The .json files below a folder, hidden ones (the editor's own lists) left out."""
    count = 0
    for folder, inner, names in os.walk(place):
        depth = len(Path(folder).relative_to(place).parts)
        inner[:] = sorted(one for one in inner if not one.startswith(".") and depth < _DEEPEST)
        for name in sorted(names):
            if name.lower().endswith(".json") and not name.startswith("."):
                count += 1
                if count > _MOST:
                    return
                yield Path(folder, name)
