"""What the operating system gives: files that are written whole, private mappings, private folders, locks."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import StoreClosed, StoreCorrupt, StoreInsecure

if TYPE_CHECKING:
    from typing_extensions import Self

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


# Read as ``files.IS_WINDOWS``: tests set it, to run the means that Windows has elsewhere.
IS_WINDOWS = sys.platform == "win32"
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)
# O_NONBLOCK: opening a FIFO that somebody put in an entry's place must not hang; it means nothing for a file.
# O_NOATIME: a file's access time says when its value was loaded last, not when somebody looked at its header.
READ = os.O_RDONLY | NOFOLLOW | BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOATIME", 0)
# Up to here a file is read, above it is mapped: a mapping costs a file descriptor and several page faults.
INLINE_LIMIT = 64 * 1024
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG})
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW | BINARY


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write all of ``data`` at ``offset``. One write moves at most 2 GiB, and less when the filesystem fills up."""
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        written = os.write(fd, data)
    else:
        written = os.pwrite(fd, data, offset)
    length = len(data)
    while written < length:
        rest = memoryview(data)[written:]
        if sys.platform == "win32":
            count = os.write(fd, rest)
        else:
            count = os.pwrite(fd, rest, offset + written)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += count


def read_at(fd: int, count: int, offset: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    return os.pread(fd, count, offset)


def read_copy(fd: int, size: int) -> memoryview:
    """Read a whole file into writable memory of its own."""
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size:
        if sys.platform == "win32":
            chunk = read_at(fd, min(size - done, 2**30), done)
            view[done : done + len(chunk)] = chunk
            count = len(chunk)
        else:
            count = os.preadv(fd, [view[done:]], done) if hasattr(os, "preadv") else os.readv(fd, [view[done:]])
        if count == 0:
            raise StoreCorrupt(f"it ends after {done} of {size} bytes")
        done += count
    return view


# Before Python 3.13 every mapping keeps a file descriptor.
_MAPS_USE_FDS = sys.version_info < (3, 13)
# The mappings that live, by identity: adding and discarding are single steps, also when the garbage collector runs.
_live_maps: set[int] = set()
# Called when a mapping is collected, in whatever thread that happens: must be quick and take no lock.
on_unmapping: list[Callable[[], None]] = []


class _CountedMap(mmap.mmap):
    """A mapping that counts itself."""

    def __new__(cls, fd: int, size: int, **options: int) -> Self:
        if sys.version_info >= (3, 13):
            made = super().__new__(cls, fd, size, trackfd=False, **options)
        else:
            made = super().__new__(cls, fd, size, **options)
        _live_maps.add(id(made))
        return made

    def __del__(
        self,
        discard: Callable[[int], None] = _live_maps.discard,
        hooks: list[Callable[[], None]] = on_unmapping,
    ) -> None:
        discard(id(self))
        for hook in hooks:
            hook()


class PrivateMap(_CountedMap):
    """A copy-on-write mapping of a file. It keeps the open file, and with it the locks that its descriptor holds."""

    def __new__(cls, fd: int, size: int) -> Self:
        return super().__new__(cls, fd, size, access=mmap.ACCESS_COPY)


class KeptMap(_CountedMap):
    """A mapping for writing into a file of shared memory all of whose pages exist: storing into it cannot fail."""

    def __new__(cls, fd: int, size: int) -> Self:
        # Populated at once: page by page it would take several times as long.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        return super().__new__(cls, fd, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def fd_limit() -> int:
    if sys.platform == "win32":
        return 8192
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**30 if soft == resource.RLIM_INFINITY else soft


def view_file(fd: int, size: int, fd_limit: int) -> memoryview:
    """Return a file's bytes, writable and private to the caller: read if small, else mapped copy-on-write.

    Where mappings use file descriptors, first small and then all objects are read as the limit comes near.
    """
    count = len(_live_maps) if _MAPS_USE_FDS else 0
    if size <= INLINE_LIMIT or (2 * count > fd_limit and size < 2**20) or 10 * count > 8 * fd_limit:
        return read_copy(fd, size)
    try:
        # Always through memoryview: closing a mapping that a view refers to raises BufferError, while tensors made
        # directly from the mapping would be left dangling.
        return memoryview(PrivateMap(fd, size))
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENODEV):
            raise
        return read_copy(fd, size)


class FolderSurvey(NamedTuple):
    """What is in a folder: how many files, their bytes, and those among them that have another name as well."""

    files: int
    total: int
    # {inode: bytes}
    linked: dict[int, int]

    @property
    def unlinked(self) -> int:
        """Bytes of the files that have no other name."""
        return self.total - sum(self.linked.values())


class Folder:
    """A directory, held open: names are looked up in it and nowhere else, whatever happens to its path.

    The descriptor closes when the last user drops the object, never earlier: an operation that runs while another
    thread shuts the store down can thus never meet a descriptor number that means something else by now. On Windows,
    which has no such descriptors, it is a path.
    """

    __slots__ = ("__weakref__", "fd", "path")

    def __init__(self, path: str, fd: int | None) -> None:
        self.path = path
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd is not None:
            close(self.fd)

    @classmethod
    def open_private(cls, name: str, parent: Folder | None = None) -> Folder:
        """Open a directory that only this user can write to.

        Args:
            name: a path, or a name in ``parent``.

        Raises:
            FileNotFoundError: if there is none.
            StoreInsecure: if it is a symbolic link, no directory, someone else's, or open to others.
        """
        path = name if parent is None else os.path.join(parent.path, name)
        if IS_WINDOWS:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise StoreInsecure(errno.EPERM, f"{path} is not a folder; remove it")
            return cls(path, None)
        flags = os.O_RDONLY | os.O_DIRECTORY | NOFOLLOW
        try:
            fd = os.open(name, flags, dir_fd=None if parent is None else parent.fd)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise StoreInsecure(errno.EPERM, f"{path} is not a real folder (a link or a file); remove it") from exc
            raise
        folder = cls(path, fd)
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise StoreInsecure(
                errno.EPERM, f"{path} belongs to user {status.st_uid}, not {os.geteuid()}; nothing in it is read"
            )
        if status.st_mode & 0o077:
            raise StoreInsecure(
                errno.EPERM,
                f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}), so they may have "
                f"written there; remove it, or chmod 700 it if you know what is in it",
            )
        return folder

    def _at(self, name: str) -> str:
        return name if self.fd is not None else os.path.join(self.path, name)

    def open(self, name: str, flags: int) -> int:
        """Open a file; a new one gets mode 0600."""
        return os.open(self._at(name), flags, 0o600, dir_fd=self.fd)

    def stat(self, name: str) -> os.stat_result:
        return os.stat(self._at(name), dir_fd=self.fd, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def changed_ns(self) -> int:
        """When a name in it was made, replaced or removed last, in nanoseconds since the epoch."""
        return (os.fstat(self.fd) if self.fd is not None else os.stat(self.path)).st_mtime_ns

    def is_removed(self) -> bool:
        """Tell whether the folder itself was removed, although it is held open."""
        return os.fstat(self.fd).st_nlink == 0 if self.fd is not None else not os.path.isdir(self.path)

    def unlink(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self.fd)

    def discard(self, name: str) -> None:
        """Remove a file if it is there and can be removed; on Windows a mapped one cannot, and waits for the sweep."""
        try:
            self.unlink(name)
        except FileNotFoundError:
            pass
        except PermissionError:
            if not IS_WINDOWS:
                raise

    def make(self, name: str) -> Folder:
        os.mkdir(self._at(name), 0o700, dir_fd=self.fd)
        return Folder.open_private(name, self)

    def rmdir(self, name: str) -> None:
        os.rmdir(self._at(name), dir_fd=self.fd)

    def link(self, name: str, new_name: str) -> None:
        """Give a file of this folder a second name in it."""
        os.link(self._at(name), self._at(new_name), src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def is_abandoned(self, name: str) -> bool:
        """Tell whether nobody is writing an unfinished file any more: its writer holds a lock on it.

        Ten seconds cover the moment between making and locking it.
        """
        try:
            if time.time() - self.stat(name).st_mtime < 10:
                return False
            lock = Lock(self.open(name, os.O_RDWR | NOFOLLOW | BINARY))
        except OSError:
            return False
        return IS_WINDOWS or lock.acquire(wait=False)

    def replace(self, name: str, target: Folder, new_name: str) -> None:
        """Move a file over ``new_name`` in ``target``: the one step that makes a value visible."""
        if not IS_WINDOWS:
            os.replace(name, new_name, src_dir_fd=self.fd, dst_dir_fd=target.fd)
            return
        deadline = time.monotonic() + 5
        while True:
            try:
                os.replace(self._at(name), target._at(new_name))
            except PermissionError:
                # A reader has the entry open for the microseconds of a load.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            else:
                return

    def names(self) -> list[str]:
        """List the directory, through a descriptor of its own: the position in it is shared by all who share one."""
        if self.fd is None:
            return os.listdir(self.path)
        fd = os.open(".", os.O_RDONLY, dir_fd=self.fd)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def sizes(self, allocated: bool) -> tuple[int, int]:
        """Return (number of files, their bytes): as allocated in memory, or by length (a disk allocates late)."""
        count, total, _ = self.survey(allocated)
        return count, total

    def survey(self, allocated: bool) -> FolderSurvey:
        """Look at all files of the folder, once; for ``allocated`` see ``sizes``."""
        count = total = 0
        linked: dict[int, int] = {}
        for name in self.names():
            try:
                status = self.stat(name)
            except FileNotFoundError:
                continue
            size = status.st_blocks * 512 if allocated and not IS_WINDOWS else status.st_size
            count += 1
            total += size
            if status.st_nlink > 1:
                linked[status.st_ino] = size
        return FolderSurvey(count, total, linked)

    def sync(self) -> None:
        """Have the disk keep the folder's names, not only what is in its files. Windows does so by itself."""
        if self.fd is not None:
            os.fsync(self.fd)

    def free_bytes(self) -> int:
        """Return what the filesystem can still take, in bytes."""
        if sys.platform == "win32":
            import shutil

            return shutil.disk_usage(self.path).free
        status = os.fstatvfs(self.fd) if self.fd is not None else os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


class ClosedFolder:
    """What stands in a folder's place after the store was closed: every use is a StoreClosed."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __getattr__(self, _name: str) -> Any:
        raise StoreClosed(f"the context {self._run_id} has been shut down")


class Lock:
    """An advisory lock on a file, or on a folder. It goes when the process dies, however it dies.

    A second open of the same file is another holder, also within one process.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)

    def acquire(self, wait: bool, shared: bool = False) -> bool:
        """Take the lock, waiting for it or not; shared locks stand beside each other. False: somebody has it."""
        return lock_fd(self.fd, wait, shared)

    def release(self) -> None:
        unlock_fd(self.fd)


if sys.platform == "win32":

    def lock_fd(fd: int, wait: bool, shared: bool = False) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        while True:
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
                time.sleep(0.001)
            else:
                return True

    def unlock_fd(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def lock_fd(fd: int, wait: bool, shared: bool = False) -> bool:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_fd(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
