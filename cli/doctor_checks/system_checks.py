"""The system: what it is, and the limits that it sets for programs."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from .checkup import Command, Machine, Result, ok, warning
from .memory_checks import GB, is_container, sized

# Before Python 3.13 every value above 64 KB that is loaded keeps a file open; a browser has about 200.
_FEW_FILES = 1024
# A browser and a server have about 300 processes and threads.
_FEW_PROCESSES = 1000
# A browser reserves far more addresses than memory.
_FEW_ADDRESSES = 64 * GB


def look_at_system(machine: Machine) -> Result:
    text = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count() or '?'} processors"
    machine.versions["platform"] = platform.platform()
    if sys.platform == "win32":
        return ok(f"{text}; values go through files, and locks and ends of programs are Windows' own")
    if sys.platform == "darwin":
        return ok(f"{text}; there is no /dev/shm, so values go through files in the temp folder")
    if is_wsl():
        if str(Path.cwd()).startswith("/mnt/"):
            return warning(
                f"{text}, in the Windows Subsystem for Linux; the current folder is on Windows' disk",
                "Files below /mnt are slow, and cannot be closed to other users. Keep ComfyUI and results below:",
                Command("cd ~"),
            )
        return ok(f"{text}, in the Windows Subsystem for Linux")
    return ok(text + (", in a container" if is_container() else ""))


def is_wsl() -> bool:
    return "microsoft" in platform.release().lower()


def look_at_limits(machine: Machine) -> Result:
    """Of open files, processes and addresses."""
    if sys.platform == "win32":
        return ok("this system has none that matter")
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    infinite = resource.RLIM_INFINITY
    # The limit of processes does not hold for root; that of the container does.
    processes = infinite if os.geteuid() == 0 else resource.getrlimit(resource.RLIMIT_NPROC)[0]
    counts = [count for count in (processes, _container_processes()) if count not in (infinite, None)]
    return judge_limits(
        None if files == infinite else files,
        min((count for count in counts if count is not None), default=None),
        None if addresses == infinite else addresses,
    )


def _container_processes() -> int | None:
    """How many processes and threads the control group may have; None for no limit."""
    try:
        text = Path("/sys/fs/cgroup/pids.max").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def judge_limits(files: int | None, processes: int | None, addresses: int | None) -> Result:
    """What the limits mean: of open files, of processes with threads, of addresses in bytes; None for none."""
    found = f"{_number(files)} open files, {_number(processes)} processes"
    advice: list[str] = []
    if files is not None and files < _FEW_FILES:
        advice += [
            f"{files} open files are few: a loaded value keeps one. Before the script starts:",
            Command("ulimit -n 4096"),
        ]
    if processes is not None and processes < _FEW_PROCESSES:
        advice.append(
            f"{processes} processes and threads are few for a server and a browser. Raise `ulimit -u`, or --pids-limit "
            "of the container."
        )
    if addresses is not None and addresses < _FEW_ADDRESSES:
        found += f", {sized(addresses)} of addresses"
        advice += [
            "A browser reserves more addresses than that. Before the script starts:",
            Command("ulimit -v unlimited"),
        ]
    return warning(found, *advice) if advice else ok(found)


def _number(limit: int | None) -> str:
    return "any number of" if limit is None else f"{limit:,}"
