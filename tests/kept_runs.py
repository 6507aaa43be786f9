"""Folders of runs for tests: made by hand, or made by a run and then changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from discomfort.durable.run_folder import RunRecordFolder, canonical, sha256, to_line

Json = dict[str, Any]


def write_run(folder: Path, entries: Iterable[Json], prompts: Iterable[Json] = (), **manifest: Any) -> Path:
    """Make the folder of a run by hand; ``manifest`` are fields of its manifest beside what every one has."""
    for name in ("", "objects", "prompts"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    steps = [{"workflow": f"w{n}.json", "prompt": sha256(p), "file": None} for n, p in enumerate(prompts)]
    plan = {"loop": {"iterations": 3, "condition": None, "body": steps}, "collect": [], "master_seed": 1}
    content = {"schema": "discomfort.run", "version": 1, "kind": "run", "plan": plan, "inputs": {}, **manifest}
    (folder / "manifest.json").write_text(json.dumps(content))
    for prompt in prompts:
        (folder / "prompts" / f"{sha256(prompt)}.json").write_bytes(canonical(prompt))
    (folder / "run.jsonl").write_bytes(b"".join(map(to_line, entries)))
    return folder


def step(path: Iterable[int], prompt: Json, writes: Mapping[str, Any], **fields: Any) -> Json:
    """A step's line; ``writes`` are numbers and texts, whose digest is made up."""
    notes = {name: noted(value) for name, value in writes.items()}
    entry = {"kind": "step", "path": list(path), "workflow": "w0.json", "prompt": sha256(prompt), "changes": {}}
    return {**entry, "seeds": {}, "reads": {}, "writes": notes, **fields}


def noted(value: Any) -> Json:
    """A value as a journal has it, with a digest that is made up."""
    return {"digest": f"xxh3:{sha256(value)[:32]}", "value": value}


def rewrite(folder: Path, change: Callable[[Json], Any]) -> None:
    """Change the entries of a journal; each is handed to the function, which may change it in place."""
    entries = RunRecordFolder.open(folder).entries
    for entry in entries:
        change(entry)
    (folder / "run.jsonl").write_bytes(
        b"".join(to_line({k: v for k, v in entry.items() if k != "crc"}) for entry in entries)
    )


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """{file: (size, time of its last change)} of all that is in a folder."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found.items() if path.is_file()}
