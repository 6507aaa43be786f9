"""How much memory there is, and what a path lies on."""

from __future__ import annotations

import os
import re


def _read_small_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def filesystem_type(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the filesystem ``path`` lies on ("tmpfs", "ext4"), or "" where Linux cannot tell."""
    path = os.path.realpath(path)
    best, kind = "", ""
    for line in _read_small_file(mountinfo).splitlines():
        fields, _, rest = line.partition(" - ")
        columns = fields.split()
        if len(columns) < 5 or not rest:
            continue
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), columns[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one counts.
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


def free_ram_bytes(root: str = "/") -> int:
    """Return the memory this process could still use: the machine's available RAM, or less if its cgroup says so.

    Pages of shared memory count against a container's limit, and passing that limit is not an error but the death
    of a process, so it is asked before large objects are put there.

    Args:
        root: where ``proc`` and ``sys`` are looked for (tests).
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read_small_file(os.path.join(root, "proc/meminfo")), re.MULTILINE)
    if found is None:
        try:
            import psutil
        except ImportError:
            return 0
        return int(psutil.virtual_memory().available)
    return min([int(found[1]) * 1024, *_cgroup_free(root)])


def _cgroup_free(root: str) -> list[int]:
    """Return what is left in each cgroup above this process that limits memory (versions 1 and 2)."""
    left: list[int] = []
    for line in _read_small_file(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, limit_name, usage_name = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_name, usage_name = (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            folder = os.path.join(root, base, *parts[:depth])
            limit = _read_small_file(os.path.join(folder, limit_name)).strip()
            usage = _read_small_file(os.path.join(folder, usage_name)).strip()
            if not limit.isdigit() or not usage.isdigit():
                continue
            # File pages can be dropped; those of shared memory are not on these lists.
            pages = re.findall(
                r"^(?:in)?active_file (\d+)$",
                _read_small_file(os.path.join(folder, "memory.stat")),
                re.MULTILINE,
            )
            left.append(max(0, int(limit) - int(usage) + sum(map(int, pages))))
    return left


def megabytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MB"
