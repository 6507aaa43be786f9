"""Shared memory, through which the values of a run go, and memory itself."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from .checkup import Command, Machine, Result, broken, ok, unsetting, warning

MB = 2**20
GB = 2**30
#: what a container has in /dev/shm unless somebody says otherwise
CONTAINER_SHM = 64 * MB
#: below that, a few pictures fill it
_LITTLE_SHM = 256 * MB
#: below that, no model can be loaded
_LITTLE_RAM = 2 * GB


def sized(count: float) -> str:
    from ..wording import size

    return size(count)


def look_at_shared_memory(machine: Machine) -> Result:
    from ... import workflow_context
    from ...object_store import filesystem_type

    roots = workflow_context.context_roots()
    named = os.environ.get("DISCOMFORT_RAM_ROOT")
    if roots.ram is None:
        return _without_shared_memory(named)
    problem = why_not_private(Path(roots.ram)) or why_home_is_refused(Path(roots.ram), roots.home_name)
    if problem:
        advice = [unsetting("DISCOMFORT_RAM_ROOT")] if named else []
        text = "Name a folder of yours in shared memory, or take the variable away:" if named else _home_advice(problem)
        return broken(f"{roots.ram}: {problem}", text, *advice)
    usage = shutil.disk_usage(roots.ram)
    kind = filesystem_type(roots.ram)
    judged = judge_shared_memory(usage.total, usage.free, is_container(), machine.program)
    found = f"{roots.ram}: {judged.found}"
    if judged.advice:
        return judged._replace(found=found)
    if kind not in ("tmpfs", "ramfs", "") and sys.platform.startswith("linux"):
        return warning(
            f"{found}, but it is on a disk ({kind})",
            "Values are as safe there, and slower. Name a folder in /dev/shm, or take the variable away:",
            unsetting("DISCOMFORT_RAM_ROOT"),
        )
    return ok(found)


def _without_shared_memory(named: str | None) -> Result:
    slower = "values go through files in the temp folder, which is slower to write and as quick to load"
    if named is not None:
        return ok(f"switched off by DISCOMFORT_RAM_ROOT: {slower}")
    if not sys.platform.startswith("linux"):
        return ok(f"this system has no /dev/shm: {slower}")
    return warning(
        f"/dev/shm is not there, cannot be written, or is no memory: {slower}",  # noqa: S108 - a text
        "Mount it (as root), or run the container with --shm-size=8g:",
        Command("mount -t tmpfs -o mode=1777,size=8g tmpfs /dev/shm"),
    )


def judge_shared_memory(total: int, free: int, in_container: bool, program: str = "discomfort") -> Result:
    """What its size (bytes) means. Never broken: what does not fit goes to disk."""
    found = f"{sized(free)} free of {sized(total)}"
    more = (
        [
            "Larger values go to disk, slower to write. Give the container more:",
            Command("docker run --shm-size=8g ..."),
        ]
        if in_container
        else ["Larger values go to disk, slower to write. Make it larger (as root):", _REMOUNT]
    )
    if total <= CONTAINER_SHM:
        return warning(f"{found}, as containers have without --shm-size" if in_container else found, *more)
    if free < _LITTLE_SHM:
        return warning(
            f"{found}: nearly full",
            "See what takes it; dead runs are removed by the second command:",
            Command(f"{program} context list"),
            Command(f"{program} context sweep"),
        )
    return ok(found)


_REMOUNT = Command("mount -o remount,size=8g /dev/shm")


def is_container() -> bool:
    """Whether this looks like a container."""
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return True
    try:
        with open("/proc/1/cgroup", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return any(word in text for word in ("docker", "kubepods", "containerd", "libpod", "lxc"))


def why_not_private(folder: Path) -> str:
    """Why no private, locked file can be kept in a folder; "" where it can. Makes one there and removes it."""
    from ...object_store.files import Lock

    if not folder.is_dir():
        return "there is no such folder" if not folder.exists() else "it is no folder"
    try:
        own = Path(tempfile.mkdtemp(prefix=".discomfort-doctor-", dir=folder))
    except OSError as error:
        return f"nothing can be written there: {error.strerror or error}"
    try:
        others = stat.S_IMODE(own.stat().st_mode) & 0o077
        if others and hasattr(os, "getuid"):
            return "a folder made there cannot be closed to other users (mode 0700)"
        file = own / "file"
        file.write_bytes(b"x" * 65536)
        lock = Lock(os.open(file, os.O_RDWR))
        try:
            if not lock.acquire(wait=False):
                return "a file there cannot be locked"
        finally:
            lock.release()
            del lock  # closes the file, which Windows could not remove
    except OSError as error:
        return f"it cannot be used: {error.strerror or error}"
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return ""


def why_home_is_refused(root: Path, name: str) -> str:
    """Why the folder that holds this user's runs is refused, "" where it is not, or is not there yet."""
    from ...object_store import Folder

    try:
        Folder.open_private(str(root / name))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _home_advice(problem: str) -> str:
    return "Remove what stands in its place, or set DISCOMFORT_RAM_ROOT to a folder of yours in shared memory."


def look_at_memory(machine: Machine) -> Result:
    from ...object_store import free_ram_bytes

    free = free_ram_bytes()
    if not free:
        return warning("how much is free cannot be told")
    return judge_memory(free)


def judge_memory(free: int) -> Result:
    """What the free memory (bytes, after what limits this process) means."""
    found = f"{sized(free)} free"
    if free < _LITTLE_RAM:
        return warning(
            f"{found}: too little for a model",
            "End other programs, or give the container or the virtual machine more. A server that runs out of it is "
            "ended by the system.",
        )
    return ok(found)
