"""The folders of observed runs: written by a run's process, read by the editor's, kept for a while after the end.

``<cache folder>/runs/<run_id>/`` (mode 0700) has ``events.jsonl``, a line of JSON for everything that happened,
``thumbnails/<name>.jpg``, ``workflows/<n>.json``, and ``lock``, which the run's process holds for as long as it lives:
a run without an end whose lock is free was killed. docs/reference/editor-protocol.md has the events.

It is a cache: what has to survive is in a run's checkpoint folder. Nothing in it is fsynced, and the oldest runs go.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from ..comfy_serverless import cache_folder
from ..durable.run_folder import finite
from ..durable.secrets import blotted

log = logging.getLogger("discomfort.observing")

Json = dict[str, Any]

#: how many ended runs are kept, and how many bytes they may have
KEPT_RUNS = 100
KEPT_BYTES = 512 * 2**20

# Bytes of a run's events, beyond which only its end is written: a run of a million quick steps.
EVENTS_LIMIT = 64 * 2**20
# Seconds between two times at which a process removes old runs, and when the next one is.
_PRUNE_EVERY = 300.0
_next_prune = 0.0
# Bytes in which the last event is looked for: an end with a long error.
_TAIL = 256 * 1024

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}\.jpg")


def history_root() -> Path:
    """The folder of all observed runs of this user."""
    return cache_folder() / "runs"


class RunHead(NamedTuple):
    """An observed run in short."""

    run_id: str
    folder: Path
    #: seconds since the epoch
    started: float
    name: str
    #: "script" or "editor"
    source: str
    #: whether the process that runs it lives
    is_alive: bool
    #: its ``end`` event; None while it goes on, and for ever where it was killed
    end: Json | None
    #: its ``run`` event
    first: Json


# ------------------------------------------------------------------------------------------------------------ writing


class RunHistory:
    """The folder of one run, for its process. Its methods never raise for a full disk: the run goes on without it."""

    def __init__(self, run_id: str) -> None:
        """Make the folder. OSError: it cannot be made."""
        self.folder = history_root() / run_id
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        self._lock = filelock.FileLock(self.folder / "lock", mode=0o600, thread_local=False)
        self._lock.acquire(timeout=0)
        try:
            self._events = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            self._lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        #: bytes of events.jsonl
        self.length = 0
        #: texts that are blotted out of whatever is written: errors repeat what they were given
        self.secrets: set[str] = set()
        self._is_full = False

    def append(self, kind: str, **fields: Any) -> None:
        """Write an event."""
        if self._is_full and kind != "end":
            return
        entry = {"kind": kind, "t": round(time.time(), 3), **fields}
        line = blotted(json.dumps(finite(entry), separators=(",", ":"), default=str), self.secrets).encode() + b"\n"
        try:
            self.length += os.write(self._events, line)
        except OSError as e:
            self._give_up(f"the disk says {e.strerror}")
        if self.length > EVENTS_LIMIT:
            self._give_up("it has very many")

    def _give_up(self, reason: str) -> None:
        if not self._is_full:
            self._is_full = True
            log.warning("No more events of the run are shown in the editor: %s", reason)

    def add_thumbnail(self, name: str, picture: bytes) -> None:
        """Write a small picture, a JPEG. Called in a thread."""
        with contextlib.suppress(OSError):
            (self.folder / "thumbnails").mkdir(mode=0o700, exist_ok=True)
            (self.folder / "thumbnails" / name).write_bytes(picture)

    def add_workflow(self, number: int, workflow: Mapping[str, Any]) -> None:
        """Write one of the run's workflows, without secrets."""
        with contextlib.suppress(OSError):
            (self.folder / "workflows").mkdir(mode=0o700, exist_ok=True)
            (self.folder / "workflows" / f"{number}.json").write_text(json.dumps(workflow), encoding="utf-8")

    def close(self) -> None:
        """Let go of the folder; it stays. Idempotent."""
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
            self._lock.release()


def prune_sometimes() -> None:
    """:func:`prune`, unless this process did it just now: to weigh thousands of small pictures takes a while."""
    global _next_prune
    if time.monotonic() >= _next_prune:
        _next_prune = time.monotonic() + _PRUNE_EVERY
        prune()


def prune() -> None:
    """Remove the oldest ended runs beyond the limits. Called in a thread; never raises."""
    with contextlib.suppress(OSError):
        kept, size = 0, 0
        for folder in _folders():
            if _is_alive(folder):
                continue
            kept += 1
            size += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if kept > KEPT_RUNS or size > KEPT_BYTES:
                shutil.rmtree(folder, ignore_errors=True)


def remove_run(run_id: str) -> bool:
    """Remove an ended run; False where there is none, or it goes on."""
    folder = _folder_of(run_id)
    if folder is None or _is_alive(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


# ------------------------------------------------------------------------------------------------------------ reading


def list_runs(limit: int = KEPT_RUNS) -> list[RunHead]:
    """The observed runs, newest first. Reads two lines of each; blocks."""
    found = []
    for folder in _folders():
        head = _head(folder)
        if head is not None:
            found.append(head)
        if len(found) >= limit:
            break
    return found


def find_run(run_id: str) -> RunHead | None:
    """The run of this id; None where it was not observed. Blocks."""
    folder = _folder_of(run_id)
    return None if folder is None else _head(folder)


def read_events(folder: Path, offset: int = 0, limit: int = 4 * 2**20) -> tuple[list[Json], int]:
    """The events behind the first *offset* bytes, whole lines of *limit* bytes at most (but one line at least), and the
    offset of what follows. Blocks.
    """
    with open(folder / "events.jsonl", "rb") as file:
        file.seek(max(0, offset))
        content = file.read(limit)
        if content and b"\n" not in content:
            content += file.readline()
    end = content.rfind(b"\n") + 1
    events = []
    for line in content[:end].splitlines():
        entry = _parsed(line)
        if entry is not None:
            events.append(entry)
    return events, max(0, offset) + end


def thumbnail(folder: Path, name: str) -> bytes | None:
    """A small picture; None where there is none of this name. Blocks."""
    if not _FILE_NAME.fullmatch(name):
        return None
    with contextlib.suppress(OSError):
        return (folder / "thumbnails" / name).read_bytes()
    return None


def workflows(folder: Path) -> list[Json | None]:
    """The run's workflows as the editor has them, in the order of their first use; None for what came as a prompt."""
    first = _first(folder) or {}
    found: list[Json | None] = []
    for note in first.get("workflows") or []:
        number = note.get("file")
        content = None
        if isinstance(number, int):
            with contextlib.suppress(OSError, ValueError):
                content = json.loads((folder / "workflows" / f"{number}.json").read_text(encoding="utf-8"))
        found.append(content)
    return found


def _folders() -> list[Path]:
    """All folders, newest first."""
    dated = []
    with contextlib.suppress(OSError):
        for folder in history_root().iterdir():
            if _RUN_ID.fullmatch(folder.name) and not folder.is_symlink():
                dated.append((_started(folder), folder))
    return [folder for _, folder in sorted(dated, key=lambda pair: (-pair[0], pair[1].name))]


def _started(folder: Path) -> float:
    # Not the age of a file: looking whether a lock is held touches it. A folder without events is just being made.
    first = _first(folder)
    return time.time() if first is None else float(first.get("started") or first.get("t") or 0.0)


def _folder_of(run_id: str) -> Path | None:
    if not _RUN_ID.fullmatch(run_id):
        return None
    folder = history_root() / run_id
    return folder if (folder / "events.jsonl").is_file() else None


def _head(folder: Path) -> RunHead | None:
    first = _first(folder)
    if first is None:
        return None
    end = next((entry for entry in _last(folder) if entry.get("kind") == "end"), None)
    return RunHead(
        folder.name,
        folder,
        float(first.get("started") or first.get("t") or 0.0),
        str(first.get("name") or ""),
        str(first.get("source") or "script"),
        end is None and _is_alive(folder),
        end,
        first,
    )


def _first(folder: Path) -> Json | None:
    with contextlib.suppress(OSError), open(folder / "events.jsonl", "rb") as file:
        return _parsed(file.readline())
    return None


def _last(folder: Path) -> Iterator[Json]:
    """The last events, the very last one first."""
    with contextlib.suppress(OSError):
        with open(folder / "events.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
        for line in reversed(lines[-50:]):
            entry = _parsed(line)
            if entry is not None:
                yield entry


def _is_alive(folder: Path) -> bool:
    """Whether the run's process holds its lock. A lock in this very process counts too: it is another object."""
    lock = filelock.FileLock(folder / "lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    return False


def _parsed(line: bytes) -> Json | None:
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return entry
    return None
