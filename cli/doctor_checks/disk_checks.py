"""The folders in which Discomfort keeps what it needs: can they be written, closed to others, and is there room?"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from .checkup import Command, Machine, Result, State, broken, ok, setting, unsetting, warning, worst
from .memory_checks import GB, MB, sized, why_home_is_refused, why_not_private

#: below that, a server may not start: its database, its log, the browser's profile
_NO_ROOM = 100 * MB
_LITTLE_ROOM = 2 * GB


def look_at_temp_folder(machine: Machine) -> Result:
    """Of nested servers, and of what runs keep on disk."""
    from ... import workflow_context
    from ...comfy_serverless import ConnectorError, servers_root

    try:
        temp = Path(tempfile.gettempdir())
    except OSError as error:
        return broken(str(error), "Name a folder of yours that can be written:", _TMPDIR)
    roots = workflow_context.context_roots()
    results = [_look_at(temp, "TMPDIR may name another folder:", [_TMPDIR])]
    try:
        root = servers_root()
        if root.parent != temp:
            results.append(ok(f"servers in {root}, because the path of a socket must be short"))
        remove_if_empty(root)
    except (ConnectorError, OSError) as error:
        results.append(broken(str(error)))
    disk = Path(roots.disk)
    if disk != temp:
        unset = [unsetting("DISCOMFORT_DISK_ROOT")] if os.environ.get("DISCOMFORT_DISK_ROOT") else []
        results.append(_look_at(disk, "Name another folder in DISCOMFORT_DISK_ROOT, or take it away:", unset))
    refused = why_home_is_refused(disk, roots.home_name)
    if refused:
        results.append(broken(refused))
    return worst(results)


_TMPDIR = setting("TMPDIR", "/path/to/a/folder/with/room")


def remove_if_empty(root: Path) -> None:
    """Asking for the folder of the servers makes it; nothing of the doctor stays."""
    with contextlib.suppress(OSError):
        root.rmdir()


def look_at_cache_folder(machine: Machine) -> Result:
    """Of conversions, and of the embedded server's input, output and models."""
    from ...comfy_serverless import cache_folder, embedded_data_folder

    places = [(cache_folder(), "XDG_CACHE_HOME")]
    if machine.choice is not None and machine.choice.kind == "embedded":
        places.append((embedded_data_folder(), "XDG_DATA_HOME"))
    results = []
    for folder, variable in places:
        advice = [setting(variable, "/path/to/a/folder/with/room")]
        there = next(one for one in (folder, *folder.parents) if one.exists())
        result = _look_at(there, f"{variable} may name another folder:", advice)
        found = f"{folder}: {result.found.partition(': ')[2]}"
        if folder == cache_folder() and result.state is State.BROKEN:
            # Converting goes on without it, every time anew.
            results.append(warning(f"{found}; conversions are not kept", *result.advice))
        else:
            results.append(result._replace(found=found))
    return worst(results)


def _look_at(folder: Path, text: str, advice: list[Command]) -> Result:
    problem = why_not_private(folder)
    if problem:
        return broken(f"{folder}: {problem}", text, *advice)
    judged = judge_room(shutil.disk_usage(folder).free)
    return judged._replace(
        found=f"{folder}: {judged.found}", advice=(*judged.advice, text, *advice) if judged.advice else ()
    )


def judge_room(free: int) -> Result:
    """What the free room (bytes) means."""
    found = f"{sized(free)} free"
    if free < _NO_ROOM:
        return broken(f"{found}: no server can be started in so little", "Free some room on this disk.")
    if free < _LITTLE_ROOM:
        return warning(f"{found}: long runs and large pictures fill that", "Free some room on this disk.")
    return ok(found)
