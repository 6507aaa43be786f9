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
RUN_FOLDER = re.compile(r"(run|\.new)-[0-9a-f]{32}")


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
                if RUN_FOLDER.fullmatch(name):
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
