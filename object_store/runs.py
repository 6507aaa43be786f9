"""Where runs are: roots, the user's folder in them, run folders; making, finding, sweeping and removing them."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import stat
import sys
import time
from typing import Any, NamedTuple

from . import files
from .errors import StoreCorrupt, StoreError, StoreInsecure
from .file_format import FORMAT_VERSION
from .files import BINARY, CREATE, NOFOLLOW, READ, Folder, Lock, write_all
from .memory import filesystem_type

logger = logging.getLogger("discomfort.object_store")

# Memory of each run that is kept in reserve, so that entries can be written when it is full.
BALLAST = 2**20
RUN_ID = re.compile(r"[0-9a-f]{32}")
_RUN_FOLDER = re.compile(r"(run|\.new)-[0-9a-f]{32}")


class Roots(NamedTuple):
    """Where runs live: folders of the system, in which each user has ``<name>-<uid>``."""

    # The shared-memory filesystem; None where there is none.
    ram: str | None
    disk: str
    name: str

    @property
    def home_name(self) -> str:
        return f"{self.name}-{user_name()}"


def user_name() -> str:
    if sys.platform == "win32":
        return re.sub(r"[^A-Za-z0-9_.]", "_", os.environ.get("USERNAME", "user"))
    return str(os.geteuid())


def find_roots(name: str = "discomfort", disk: str | None = None) -> Roots:
    """Return where runs live on this machine.

    Args:
        name: what the folders begin with.
        disk: folder for what memory cannot hold; None for the system's temp folder.

    The environment decides before both: DISCOMFORT_RAM_ROOT (a folder; empty or "none" for no shared memory) and
    DISCOMFORT_DISK_ROOT.
    """
    ram: str | None = os.environ.get("DISCOMFORT_RAM_ROOT")
    if ram is None:
        ram = _default_ram_root()
    elif ram.strip().lower() in ("", "none"):
        ram = None
    disk = os.environ.get("DISCOMFORT_DISK_ROOT") or disk
    if not disk:
        import tempfile

        disk = tempfile.gettempdir()
    return Roots(None if ram is None else os.path.abspath(ram), os.path.abspath(disk), name)


def _default_ram_root() -> str | None:
    path = "/dev/shm"  # noqa: S108 (the shared-memory filesystem; what is made in it is private and checked)
    if sys.platform.startswith("linux") and os.access(path, os.W_OK | os.X_OK):
        return path if filesystem_type(path) in ("tmpfs", "ramfs", "") else None
    return None


def check_run_id(run_id: str) -> str:
    """Return ``run_id`` if it is one: 32 lower-case hex digits. A run_id may come from a network or a workflow.

    Raises:
        ValueError: otherwise; no path is ever made from it.
    """
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is not a run_id: it has 32 of the digits 0-9 and a-f")
    return run_id


class Home:
    """A user's folder ``<name>-<uid>`` in a root, locked while runs in it are made or removed."""

    def __init__(self, folder: Folder, lock: Lock) -> None:
        self.folder = folder
        # None after the folder was removed.
        self._lock: Lock | None = lock

    @classmethod
    def open(cls, root: str, name: str, create: bool) -> Home | None:
        """Open and lock the folder; None if there is none and ``create`` is False."""
        path = os.path.join(root, name)
        for _ in range(100):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            try:
                folder = Folder.open_private(path)
                # Its own descriptor: closing the folder elsewhere must not end the lock. A folder cannot be
                # locked on Windows, so a file in it is.
                if folder.fd is None:
                    lock = Lock(folder.open("home.lock", os.O_RDWR | os.O_CREAT | BINARY))
                else:
                    lock = Lock(os.open(".", os.O_RDONLY, dir_fd=folder.fd))
            except FileNotFoundError:
                if create:
                    continue
                return None
            lock.acquire(wait=True)
            # Whoever held the lock before may have removed the folder.
            try:
                current = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if folder.fd is None or os.path.samestat(current, os.fstat(folder.fd)):
                return cls(folder, lock)
        raise StoreError(f"{path} is being removed as fast as it is made; another program interferes with it")

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def remove_if_empty(self) -> None:
        """Remove the folder unless another run lives in it; the lock is held on."""
        if files.IS_WINDOWS and self.folder.names() == ["home.lock"]:
            # An open file cannot be removed there: not ours, so it is closed, nor one that another process waits for.
            self._lock = None
            with contextlib.suppress(OSError):
                self.folder.unlink("home.lock")
        with contextlib.suppress(OSError):
            os.rmdir(self.folder.path)


def lock_run(run: Folder, shared: bool = False) -> Lock | None:
    """Take a run's owner lock; None if its owner lives. A run without a lock file has no owner."""
    try:
        lock = Lock(run.open("owner.lock", os.O_RDWR | os.O_CREAT | NOFOLLOW | BINARY))
    except OSError:
        return None
    return lock if lock.acquire(wait=False, shared=shared) else None


def remove_tree(parent: Folder, name: str) -> None:
    """Remove a folder with all it holds, following no link; owner.lock goes last, so that it stays locked."""
    try:
        folder = Folder.open_private(name, parent)
    except FileNotFoundError:
        return
    for _ in range(20):
        for entry in sorted(folder.names(), key=lambda entry: (entry == "owner.lock", entry != "run.json")):
            if stat.S_ISDIR(_mode_of(folder, entry)):
                remove_tree(folder, entry)
            else:
                folder.discard(entry)
        try:
            parent.rmdir(name)
        except FileNotFoundError:
            return
        except OSError as exc:
            # A process that is attached was just writing into it.
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                raise
        else:
            return
    logger.warning("%s could not be removed entirely; the next start tries again", folder.path)


def _mode_of(folder: Folder, name: str) -> int:
    try:
        return folder.stat(name).st_mode
    except FileNotFoundError:
        return 0


def open_twin(path: Any, run_id: str) -> Folder | None:
    """Open the disk twin that a run.json names, if it is what it has to be: private, and of the same run."""
    if not isinstance(path, str) or not os.path.isabs(path) or os.path.basename(path) != f"run-{run_id}":
        return None
    try:
        home = Folder.open_private(os.path.dirname(path))
        return Folder.open_private(os.path.basename(path), home)
    except FileNotFoundError:
        return None


def read_run_file(run: Folder, run_id: str) -> dict[str, Any]:
    """Read and check a run's run.json.

    Raises:
        FileNotFoundError: if there is none.
        StoreCorrupt: if it is not ours to understand.
    """
    fd = run.open("run.json", READ)
    try:
        raw = os.read(fd, 65536)
    finally:
        os.close(fd)
    try:
        content = json.loads(raw)
    except ValueError as exc:
        raise StoreCorrupt(f"{run.path}/run.json is not JSON: {exc}") from exc
    if not isinstance(content, dict) or content.get("run_id") != run_id:
        raise StoreCorrupt(f"{run.path}/run.json belongs to another run")
    if content.get("format") != FORMAT_VERSION or not isinstance(content.get("ram_capacity"), int):
        raise StoreCorrupt(
            f"{run.path}/run.json has format {content.get('format')!r}; this version reads {FORMAT_VERSION}. "
            f"Both processes need the same version of this package"
        )
    return content


def sweep(roots: Roots) -> list[str]:
    """Remove what runs left behind whose owner is dead; runs whose owner lives are not touched.

    An owner holds a lock for life, and the kernel takes it back when the owner dies, however it dies. No process
    number is ever looked at: numbers are reused, and differ between containers that share a folder.

    Returns:
        The paths of the run folders that were removed.
    """
    removed: list[str] = []
    for root in dict.fromkeys((roots.ram, roots.disk)):
        if root is None:
            continue
        try:
            home = Home.open(root, roots.home_name, create=False)
        except (OSError, StoreError) as exc:
            logger.warning("nothing is swept in %s: %s", root, exc)
            continue
        if home is None:
            continue
        twins: list[str] = []
        with home:
            for name in home.folder.names():
                if _RUN_FOLDER.fullmatch(name):
                    _sweep_run(home.folder, name, removed, twins)
            home.remove_if_empty()
        for twin in twins:
            _sweep_twin(twin, removed)
    if removed:
        logger.info("removed %d run folder(s) that a dead process had left: %s", len(removed), ", ".join(removed))
    return removed


def _sweep_run(home: Folder, name: str, removed: list[str], twins: list[str]) -> None:
    """Remove one run folder if its owner is dead. Runs are made under the home's lock, which the caller holds."""
    try:
        run = Folder.open_private(name, home)
        lock = lock_run(run)
        if lock is None:
            return
        try:
            twin = read_run_file(run, name[-32:]).get("disk_path")
        except (OSError, StoreError):
            twin = None
        remove_tree(home, name)
    except (OSError, StoreError) as exc:
        logger.warning("%s is left alone: %s", os.path.join(home.path, name), exc)
        return
    removed.append(run.path)
    if isinstance(twin, str) and os.path.basename(twin) == name:
        twins.append(twin)


def _sweep_twin(path: str, removed: list[str]) -> None:
    """Remove the disk twin of a run that was swept. It may lie elsewhere than this process's own disk root."""
    root, home_name = os.path.split(os.path.dirname(path))
    try:
        home = Home.open(root, home_name, create=False)
        if home is None:
            return
        with home:
            if home.folder.exists(os.path.basename(path)):
                _sweep_run(home.folder, os.path.basename(path), removed, [])
            home.remove_if_empty()
    except (OSError, StoreError) as exc:
        logger.warning("%s is left alone: %s", path, exc)


def find_run(root: str, home_name: str, run_id: str) -> Folder | None:
    """Find a run by its exact id: in the folder of the usual name, else in any private one of this user.

    The owner may use another CONTEXTS_DIR_NAME than this process.
    """
    suffix = "-" + user_name()
    try:
        others = [name for name in os.listdir(root) if name.endswith(suffix) and name != home_name]
    except OSError:
        others = []
    for index, name in enumerate([home_name, *others]):
        try:
            return Folder.open_private(f"run-{run_id}", Folder.open_private(os.path.join(root, name)))
        except FileNotFoundError:
            continue
        except (StoreInsecure, NotADirectoryError):
            if index == 0:
                raise
    return None


def make_run(root: str, home_name: str, run_id: str, folders: list[str], with_files: bool) -> tuple[Folder, Lock]:
    """Make a run folder that is locked from the first moment others can see it."""
    home = Home.open(root, home_name, create=True)
    if home is None:
        raise FileNotFoundError(errno.ENOENT, f"{root} does not exist")
    name, young = f"run-{run_id}", f".new-{run_id}"
    with home:
        if home.folder.exists(name):
            home.remove_if_empty()
            raise FileExistsError(errno.EEXIST, f"a live context has the run_id {run_id} already, in {root}")
        try:
            run = home.folder.make(young)
            lock = Lock(run.open("owner.lock", CREATE))
            lock.acquire(wait=False)
            os.write(lock.fd, f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            for folder in folders:
                run.make(folder)
            if "objects" in folders:
                os.close(run.open("publish.lock", CREATE))
            if with_files:
                fd = run.open("ballast", CREATE)
                try:
                    write_all(fd, bytes(BALLAST), 0)
                finally:
                    os.close(fd)
            os.rename(
                home.folder._at(young),
                home.folder._at(name),
                src_dir_fd=home.folder.fd,
                dst_dir_fd=home.folder.fd,
            )
        except BaseException:
            remove_tree(home.folder, young)
            home.remove_if_empty()
            raise
    run.path = os.path.join(home.folder.path, name)
    return run, lock


def drop_run(run: Folder | None, locks: list[Lock]) -> None:
    """Remove a run folder that this process owns, and the user's folder around it if that was the last."""
    if run is None:
        return
    root, home_name = os.path.split(os.path.dirname(run.path))
    try:
        home = Home.open(root, home_name, create=False)
        if home is not None:
            with home:
                remove_tree(home.folder, os.path.basename(run.path))
                home.remove_if_empty()
    except (OSError, StoreError) as exc:
        logger.warning("%s could not be removed (%s); the next start tries again", run.path, exc)
    locks.clear()


class RunSummary(NamedTuple):
    """What can be told of a run from its folders, without opening any of its objects."""

    # 32 hex digits; "" for a user's whole folder that is refused.
    run_id: str
    # Its main folder; where only the one on disk is left, that.
    path: str
    # Its folder on disk: the twin, or ``path`` where everything is on disk; None where it has none.
    disk_path: str | None
    # Whether its owner holds its lock; None where that cannot be told (see ``problem``).
    is_alive: bool | None
    # What the owner wrote down, for humans: its process number, which may mean another process by now (or in this
    # container), and local time. None and "" where it could not be read.
    owner_pid: int | None
    since: str
    # When it was made, seconds since the epoch.
    created: float | None
    # Whether this version of the package can read it.
    format_is_known: bool
    # Bytes that its files take in shared memory (pages; with the reserve of a MiB that every run has, and with memory
    # that is idle or only held by readers) and on disk.
    ram_bytes: int
    disk_bytes: int
    # How many objects it has.
    keys: int
    # Why it is refused or cannot be read, or what else is special about it; "" if nothing is.
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
        for name in filter(_RUN_FOLDER.fullmatch, names):
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
