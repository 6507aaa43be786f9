"""Which editors are open on this machine: an editor says so in a file, and runs look for such files.

``<servers' folder>/editor-<pid>/editor.json`` (folder 0700, file 0600) has the editor's address and a token; the lock
beside it is held for as long as the editor lives, which is what the other folders there do (comfy_serverless.py has
the rules, and sweeps dead ones). Whoever cannot read the file cannot talk to the editor's ``/discomfort/link``.

A run in the editor's own process needs no wire: the process has a *hub*, found by :func:`local_hub`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import filelock

from ..comfy_serverless import ConnectorError, make_locked_folder, remove_locked_folder, servers_root
from ..object_store import shared_module

Json = dict[str, Any]


class Link(Protocol):
    """A run's wire to one editor."""

    def publish(self, status: Mapping[str, Any]) -> None:
        """Say how the run stands. From any thread."""

    def answer(self, command_id: str, problem: str | None) -> None:
        """Answer a command. From any thread."""

    def close(self) -> None:
        """The run is over. Idempotent."""


class Hub(Protocol):
    """What an editor's process has: the place where its runs and those of scripts come together."""

    def attach(self, run_id: str, folder: str, command: Callable[[Json], None]) -> Link:
        """A run begins. *command* may be called from any thread, and does not block."""


def set_local_hub(hub: Hub | None) -> None:
    """Let the runs of this process find the editor that lives in it."""
    vars(shared_module())["editor_hub"] = hub


def local_hub() -> Hub | None:
    """The hub of the editor in this process; None where there is none."""
    return cast("Hub | None", vars(shared_module()).get("editor_hub"))


class Editor(NamedTuple):
    """An editor in another process."""

    #: "http://127.0.0.1:8188"
    address: str
    token: str
    pid: int


class PublishedEditor:
    """What this process said of its editor; withdrawn at its end."""

    def __init__(self, address: str) -> None:
        #: what a run has to show
        self.token = secrets.token_urlsafe(32)
        self.address = address
        self._folder = servers_root() / f"editor-{os.getpid()}"
        self._lock: filelock.BaseFileLock | None = make_locked_folder(self._folder)
        try:
            self._write({"address": address, "token": self.token, "pid": os.getpid()})
        except BaseException:
            self.withdraw()
            raise

    def _write(self, note: Json) -> None:
        # Written aside and renamed: nobody reads half of it.
        fd = os.open(self._folder / ".editor.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(note, file)
        os.replace(self._folder / ".editor.json", self._folder / "editor.json")

    def withdraw(self) -> None:
        """The editor ends. Idempotent; never raises."""
        lock, self._lock = self._lock, None
        if lock is not None:
            remove_locked_folder(self._folder, lock)


def publish_editor(address: str) -> PublishedEditor:
    """Say that this process has an editor at this address.

    Raises:
        OSError, ConnectorError: the folder cannot be made, or is not this user's alone.
    """
    return PublishedEditor(address)


def find_editors() -> list[Editor]:
    """The editors of this user that live, but for this process's own. Takes microseconds where there is none."""
    root = _root()
    found = []
    for name in _names(root):
        note = _note(root / name)
        if note is not None and note.pid != os.getpid() and _is_alive(root / name):
            found.append(note)
    return found


def _root() -> Path:
    # Not servers_root(), which makes the folder: whoever looks leaves nothing behind.
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    root = Path(tempfile.gettempdir()) / f"discomfort-servers-{user}"
    return root if root.exists() else Path("/tmp") / root.name  # noqa: S108 - checked by servers_root()


def _names(root: Path) -> list[str]:
    with contextlib.suppress(OSError, ConnectorError):
        names = [entry.name for entry in os.scandir(root) if entry.name.startswith("editor-")]
        if names and servers_root() == root:  # raises where another user could have made it
            return names
    return []


def _note(folder: Path) -> Editor | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads((folder / "editor.json").read_text(encoding="utf-8"))
        return Editor(str(note["address"]), str(note["token"]), int(note["pid"]))
    return None


def _is_alive(folder: Path) -> bool:
    """Whether the editor holds its lock. Nothing is made where there is none."""
    file = folder / "owner.lock"
    if not file.exists():
        return False
    lock = filelock.FileLock(file, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
