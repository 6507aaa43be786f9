"""Looking at runs from outside, alive or dead, without becoming a part of them."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Any, NamedTuple

from .errors import StoreError, StoreInsecure
from .files import READ, Folder, Lock
from .runs import RUN_FOLDER, Roots, open_twin, read_run_file
from .store import RunStore


class RunSummary(NamedTuple):
    """What can be told of a run from its folders, without opening any of its objects."""

    #: 32 hex digits; "" for a user's whole folder that is refused.
    run_id: str
    #: Its main folder; where only the one on disk is left, that.
    path: str
    #: Its folder on disk: the twin, or ``path`` where everything is on disk; None where it has none.
    disk_path: str | None
    #: Whether its owner holds its lock; None where that cannot be told (see ``problem``).
    is_alive: bool | None
    #: What the owner wrote down, for humans: its process number, which may mean another process by now (or in this
    #: container), and local time. None and "" where it could not be read.
    owner_pid: int | None
    since: str
    #: When it was made, seconds since the epoch.
    created: float | None
    #: Whether this version of the package can read it.
    format_is_known: bool
    #: Bytes that its files take in shared memory (pages; with the reserve of a MiB that every run has, and with memory
    #: that is idle or only held by readers) and on disk.
    ram_bytes: int
    disk_bytes: int
    #: How many objects it has.
    keys: int
    #: Why it is refused or cannot be read, or what else is special about it; "" if nothing is.
    problem: str

    @property
    def state(self) -> str:
        """``live``, ``dead``, or ``unknown``."""
        if self.is_alive is None:
            return "unknown"
        return "live" if self.is_alive else "dead"


class _Part(NamedTuple):
    """One folder of a run, main or twin, as it was found."""

    summary: RunSummary
    # The twin that its run.json names; None for a twin, and where there is none.
    named_twin: Any
    is_main: bool


def list_runs(roots: Roots) -> list[RunSummary]:
    """Return the runs of this user, live and dead, oldest first. Nothing is made, changed or waited for.

    Whether an owner lives is asked of its lock, as everywhere, with a shared lock that is let go of at once. A run
    that ends meanwhile is left out, or told as far as it was there. Folders that are refused (a link, somebody
    else's, open to others) are in the list, with the reason in ``problem``; nothing in them is read.

    Raises:
        Nothing of its own: what cannot be read is a ``problem``.
    """
    refused: list[RunSummary] = []
    parts: dict[str, list[_Part]] = {}
    # Runs are made twin first and removed main first: whoever looks at the disk first sees no main without its twin.
    for root in dict.fromkeys((roots.disk, roots.ram)):
        if root is None:
            continue
        try:
            home = Folder.open_private(os.path.join(root, roots.home_name))
            names = home.names()
        except FileNotFoundError:
            continue
        except OSError as exc:
            refused.append(_refused("", os.path.join(root, roots.home_name), exc))
            continue
        for name in filter(RUN_FOLDER.fullmatch, names):
            part = _look_at_part(home, name, root == roots.ram)
            if part is not None:
                parts.setdefault(part.summary.run_id, []).append(part)
    runs = [run for found in parts.values() for run in _join(found)]
    return refused + sorted(runs, key=lambda run: (run.created or 0.0, run.run_id))


def _refused(run_id: str, path: str, exc: Exception) -> RunSummary:
    return RunSummary(run_id, path, None, None, None, "", None, False, 0, 0, 0, _reason(exc))


def _reason(exc: Exception) -> str:
    """An error as a sentence, without its number."""
    return str((isinstance(exc, OSError) and exc.strerror) or exc)


def _look_at_part(home: Folder, name: str, is_in_ram: bool) -> _Part | None:
    """Look at one folder; None if it is gone by now."""
    run_id = name[-32:]
    for current in dict.fromkeys((name, f"run-{run_id}")):
        # A run that was being made when the folder was listed has its name by now.
        try:
            return _look_at_folder(home, current, is_in_ram)
        except FileNotFoundError:
            continue
        except (OSError, StoreError) as exc:
            path = os.path.join(home.path, current)
            return _Part(_refused(run_id, path, exc), None, True)
    return None


def _look_at_folder(home: Folder, name: str, is_in_ram: bool) -> _Part:
    run = Folder.open_private(name, home)
    run_id = name[-32:]
    problem = ""
    is_alive: bool | None
    try:
        is_alive = _is_being_changed(home, name) if name.startswith(".new-") else _has_owner(home, name, run)
    except FileNotFoundError:
        raise
    except OSError as exc:
        is_alive, problem = None, f"whether its owner lives cannot be told: {_reason(exc)}"
    pid, since = _read_owner(run)
    has_objects = run.exists("objects")
    is_main = has_objects or run.exists("run.json")
    content: dict[str, Any] | None = None
    try:
        content = read_run_file(run, run_id)
    except FileNotFoundError:
        if has_objects:
            problem = problem or ("it is being made, or ends" if is_alive else "it was never finished")
    except (OSError, StoreError) as exc:
        problem = problem or f"it cannot be read: {_reason(exc)}"
    if content is not None:
        is_in_ram = content.get("main") == "ram"
    size = _bytes_in(run, is_in_ram, set())
    keys = len(Folder.open_private("objects", run).names()) if has_objects else 0
    summary = RunSummary(
        run_id,
        run.path,
        None if is_in_ram else run.path,
        is_alive,
        pid,
        since,
        _made_at(run),
        content is not None,
        size if is_in_ram else 0,
        0 if is_in_ram else size,
        keys,
        problem,
    )
    return _Part(summary, None if content is None else content.get("disk_path"), is_main)


def _has_owner(home: Folder, name: str, run: Folder) -> bool:
    """Tell whether a run's owner lives, without making the file that lock_run would make.

    Only for folders that have their final name: those are locked from the first moment others can see them.

    Raises:
        FileNotFoundError: if the run is just being removed; its lock file goes last.
    """
    try:
        lock = Lock(run.open("owner.lock", READ))
    except FileNotFoundError:
        if _is_being_changed(home, name):
            raise
        return False
    if not lock.acquire(wait=False, shared=True):
        return True
    lock.release()
    if os.fstat(lock.fd).st_nlink == 0:
        # It was removed after it was opened: that is why nobody holds it.
        raise FileNotFoundError(errno.ENOENT, "the run was removed", run.path)
    return False


def _is_being_changed(home: Folder, name: str) -> bool:
    """Tell whether somebody is making or removing the folder now, or has left it half made or half removed.

    Its owner.lock is not touched: a lock on it at this moment would keep a new owner from getting it. Runs are made
    and removed under the home's lock, so where that is free nobody does.

    Raises:
        FileNotFoundError: if it was just finished or removed.
    """
    try:
        fd = home.open("home.lock", READ) if home.fd is None else os.open(".", os.O_RDONLY, dir_fd=home.fd)
    except FileNotFoundError:
        return False
    lock = Lock(fd)
    if not lock.acquire(wait=False, shared=True):
        return True
    try:
        home.stat(name)
    finally:
        lock.release()
    return False


def _read_owner(run: Folder) -> tuple[int | None, str]:
    """Return what the owner wrote into its lock file: process number and time."""
    try:
        fd = run.open("owner.lock", READ)
        try:
            text = os.read(fd, 200).decode("ascii", "replace")
        finally:
            os.close(fd)
    except OSError:
        # Also Windows, where a locked file cannot be read.
        return None, ""
    found = re.match(r"pid (\d{1,10})(?: since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d))?", text)
    return (int(found[1]), found[2] or "") if found else (None, "")


def _made_at(run: Folder) -> float | None:
    """Return when a run was made: its lock file is written once, then."""
    for name in ("owner.lock", "seg"):
        try:
            return run.stat(name).st_mtime
        except OSError:
            continue
    return None


# Files of a few bytes that are no data of the run.
_BOOKKEEPING = frozenset({"owner.lock", "publish.lock", "run.json"})


def _bytes_in(folder: Folder, is_in_ram: bool, seen: set[tuple[int, int]]) -> int:
    """Return what the files in a folder and below take: pages in memory, lengths on disk, which allocates late."""
    is_pool = os.path.basename(folder.path) == "pool"
    total = 0
    for name in folder.names():
        if name in _BOOKKEEPING:
            continue
        try:
            status = folder.stat(name)
            if stat.S_ISDIR(status.st_mode):
                total += _bytes_in(Folder.open_private(name, folder), is_in_ram, seen)
                continue
        except (OSError, StoreError):
            # Gone by now, or a folder that is nobody's business; it is not counted.
            continue
        # A segment with two names is the value of a key, perhaps of another run: it is counted there, and once.
        if (status.st_dev, status.st_ino) not in seen and not (is_pool and status.st_nlink > 1):
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512 if is_in_ram and hasattr(status, "st_blocks") else status.st_size
    return total


def _join(parts: list[_Part]) -> list[RunSummary]:
    """Make one summary of the folders of one run."""
    twins = [part.summary for part in parts if not part.is_main]
    runs = []
    for part in parts:
        if not part.is_main:
            continue
        run = part.summary
        twin = twins.pop() if twins and run.disk_path is None else _look_at_twin(part)
        if twin is not None:
            run = run._replace(disk_path=twin.path, disk_bytes=run.disk_bytes + twin.disk_bytes)
        runs.append(run)
    for twin in twins:
        if twin.is_alive:
            text = "only its folder on disk is here: it is being made, or ends, or its owner has another memory folder"
        else:
            text = "only its folder on disk is left"
        runs.append(twin._replace(problem=twin.problem or text))
    return runs


def _look_at_twin(part: _Part) -> RunSummary | None:
    """Look at a twin on a disk that is not this process's own disk root."""
    try:
        twin = open_twin(part.named_twin, part.summary.run_id)
        if twin is None:
            return None
        return part.summary._replace(path=twin.path, disk_bytes=_bytes_in(twin, False, set()))
    except (OSError, StoreError):
        # Refused, as it is when somebody attaches.
        return None


def look_into(run: RunSummary, roots: Roots) -> RunStore:
    """Open a run from ``list_runs`` for reading.

    Unlike ``RunStore.attach`` it also opens what a dead owner left, and it tidies nothing up. Use what it returns for
    reading only; closing it removes nothing. Folders and files are checked as everywhere.

    Raises:
        FileNotFoundError: if it is gone by now, or not yet finished.
        StoreInsecure: if a folder of it is refused.
        StoreCorrupt: if this version cannot read it.
    """
    if not run.run_id:
        raise StoreInsecure(run.problem)
    home = Folder.open_private(os.path.dirname(run.path))
    main = Folder.open_private(os.path.basename(run.path), home)
    content = read_run_file(main, run.run_id)
    twin = open_twin(content.get("disk_path"), run.run_id)
    is_in_ram = content.get("main") == "ram"
    return RunStore(run.run_id, main, twin, is_in_ram, content["ram_capacity"], roots, content.get("lender"))
