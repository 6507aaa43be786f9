"""Segments: files of shared memory that are written again when nobody needs what is in them.

What a fresh file in shared memory costs is its pages, not its bytes: the kernel hands out and clears each one, which
takes several times as long as copying into it. A loop that saves a picture in every iteration would pay that every
time. So an object that is too large to be an entry's own file is a *segment* in the folder ``pool/``, and the key's
entry is a second hard link to it. When the entry is replaced or deleted the segment stays, and the next object of about
its size is written into the pages that are there already, through a mapping that the writer keeps.

The kernel knows the state of a segment, no process has to remember it, and none can die with it:

==============  ===========  ======================  ==================================================================
state           hard links   flock                   meaning
==============  ===========  ======================  ==================================================================
published       2            shared, by readers      a key's value
held            1            shared, by readers      no key's value any more, but somebody still has it mapped
idle            1            none                    free to be written again, or to be given back to the system
claimed         1            exclusive, by a writer  being written, or being given back
==============  ===========  ======================  ==================================================================

*Leases.* A reader opens the entry, takes a shared lock, and only then looks whether the entry still is that file; the
lock stays with the mapping, until the last tensor in it is gone (the mapping holds the open file, and the kernel drops
the lock with it, also when the process is killed). A writer only touches a segment that it has locked exclusively and
that has one link. Before it publishes, it turns its lock into a shared one and makes sure that nobody came in between:
a published file is thus locked exclusively for moments at most, and readers try again.

*Giving back.* Any process may, under an exclusive lock, cut an idle segment to length 0 and remove it. That frees the
pages although another process may still keep a mapping for writing: that one looks at the size, under a lock of its
own, before it writes.

Everything here works on Linux filesystems with hard links. Where there is no shared memory nothing is pooled: a file
on disk gains nothing by being written again.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import logging
import os
import stat
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .files import BINARY, CREATE, NOFOLLOW, Folder, KeptMap, Lock, lock_fd, on_unmapping

logger = logging.getLogger("discomfort.object_store")

# A segment may be larger than the object by this much, so that sizes that vary a little still find one.
_SLACK = 0.25
_SLACK_BYTES = 64 * 1024
# At most so many segments are tried for one object; the others get their turn with the next.
_MAX_TRIES = 16
# Mappings for writing that one process keeps; before Python 3.13 each has a file descriptor.
_MAX_KEPT_MAPS = 64
# An idle segment that nobody wrote for so long goes back to the system: in so slow a loop its speed is not missed.
IDLE_SECONDS = 60.0


class SegmentLostError(Exception):
    """Another process took the segment in the moment between two locks; write the object again, elsewhere."""


class Found(NamedTuple):
    """A segment, as it was found by somebody who looked at all of them."""

    # "published", "held" (or claimed) or "idle".
    state: str
    # When its links changed last, in seconds since the epoch: for an idle one, when it became idle.
    since: float
    name: str
    inode: int
    # Bytes of memory.
    size: int


class PoolState(NamedTuple):
    """What the pool's memory is used for, in bytes, over all processes."""

    published: int
    held: int
    idle: int

    @classmethod
    def of(cls, found: Iterable[Found]) -> PoolState:
        sizes = dict.fromkeys(cls._fields, 0)
        for one in found:
            sizes[one.state] += one.size
        return cls(**sizes)


class Claim:
    """A segment that this process may write, and nobody else. Close it in any case."""

    __slots__ = ("_has_temp", "_is_closed", "_pool", "capacity", "fd", "is_fresh", "is_pooled", "name", "temp", "view")

    def __init__(self, pool: SegmentPool, fd: int, name: str, temp: str, capacity: int, view: memoryview | None):
        self._pool = pool
        self._is_closed = False
        # Whether there may be a file of the name ``temp``.
        self._has_temp = True
        # Open for reading and writing; the lock is on it.
        self.fd = fd
        # Its name in the pool; a fresh one has it only after publishing.
        self.name = name
        # A name of its own for the moment of publishing; a fresh segment is written under it.
        self.temp = temp
        # Bytes of the file; of a fresh one 0.
        self.capacity = capacity
        # Its memory, where it is written again; None for a fresh one, which is written with write(2): storing through a
        # new mapping costs more, and dies with SIGBUS where the filesystem is full.
        self.view = view
        self.is_fresh = view is None
        # Whether the pool has it under its name.
        self.is_pooled = not self.is_fresh

    def __del__(self) -> None:
        # An interrupt may come before whoever asked for the claim has it.
        self.close()

    def seal(self) -> None:
        """Turn the exclusive lock into a shared one: nobody may write it from now on.

        Raises:
            SegmentLostError: the kernel gives the lock up before it takes the new one, and somebody was quicker.
        """
        if not lock_fd(self.fd, wait=False, shared=True):
            raise SegmentLostError(self.name)
        status = os.fstat(self.fd)
        if status.st_nlink != 1 or (not self.is_fresh and status.st_size != self.capacity):
            raise SegmentLostError(self.name)
        # When it was used last. What is stored through a mapping does not always change a file's times.
        os.utime(self.fd)

    def publish(self, folder: Folder, name: str) -> None:
        """Make it the file ``name`` in ``folder``, in one step. Sealed before.

        Raises:
            OSError: what the filesystem says; nothing is published then.
        """
        pool = self._pool.folder
        if self.is_fresh:
            try:
                pool.link(self.temp, self.name)
                self.is_pooled = True
            except OSError as exc:
                # No hard links here, or no room for another name: the file itself becomes the entry.
                if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.ENOSPC):
                    raise
                logger.debug("%s is not kept for reuse: %s", self.temp, exc)
        else:
            pool.link(self.name, self.temp)
        pool.replace(self.temp, folder, name)
        self._has_temp = False

    def close(self) -> None:
        """Let go of it. What was not published is idle again, or, fresh, removed. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._has_temp:
                self._pool.folder.discard(self.temp)
        finally:
            self.view = None
            if self.is_pooled:
                self._pool._returned(self)
            os.close(self.fd)


class SegmentPool:
    """The segments in one folder, and the mappings that this process keeps for writing into them.

    All methods may be called from any thread and process at once.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.renew()

    def renew(self) -> None:
        """Start anew: also in a forked child, where the thread that held the lock does not exist."""
        # Reentrant: a claim that an interrupt orphaned is closed by the garbage collector, wherever that comes by.
        self._lock = threading.RLock()
        self._prefix = os.urandom(12).hex()
        self._counter = 0
        # Segments that this process knows of and has not claimed, by size: what could be free next comes first.
        self._sizes: list[int] = []
        self._names: dict[int, deque[str]] = {}
        self._known: set[str] = set()
        # Mappings for writing, by name: what was used last comes last.
        self._maps: OrderedDict[str, KeptMap] = OrderedDict()
        self._scanned_at = float("-inf")
        self._scan_pause = 1.0

    # -- writing --

    def claim(self, need: int) -> Claim | None:
        """Take an idle segment of about ``need`` bytes, or None where there is none."""
        with self._lock:
            found = self._claim_known(need)
            if found is None and time.monotonic() - self._scanned_at > self._scan_pause:
                self._learn()
                found = self._claim_known(need)
            return found

    def create(self) -> Claim:
        """Start a fresh segment: an empty file that is locked and that nobody sees as a segment yet."""
        with self._lock:
            self._counter += 1
            name = f"{self._prefix}{self._counter & 0xFFFFFFFF:08x}"
        temp = name + ".tmp"
        fd = self.folder.open(temp, CREATE)
        try:
            lock_fd(fd, wait=False)
        except BaseException:
            os.close(fd)
            raise
        return Claim(self, fd, name, temp, 0, None)

    def _claim_known(self, need: int) -> Claim | None:
        most = int(need * (1 + _SLACK)) + _SLACK_BYTES
        tries = _MAX_TRIES
        for size in self._sizes[bisect.bisect_left(self._sizes, need) : bisect.bisect_right(self._sizes, most)]:
            names = self._names[size]
            for _ in range(min(tries, len(names))):
                tries -= 1
                name = names.popleft()
                fd = self._lock_idle(name, size)
                if fd is None:
                    names.append(name)
                elif fd < 0:
                    self._forget(name, size)
                else:
                    return self._claim_locked(fd, name, size)
            if not tries:
                break
        return None

    def _lock_idle(self, name: str, size: int) -> int | None:
        """Lock a segment for writing. None: it is in use; -1: it is gone."""
        try:
            # Asked first, because even a moment's lock on a published file makes its readers wait.
            if self.folder.stat(name).st_nlink != 1:
                return None
            fd = self.folder.open(name, os.O_RDWR | NOFOLLOW | BINARY)
        except FileNotFoundError:
            return -1
        except OSError:
            # No descriptor left, or something that is no segment.
            return None
        if lock_fd(fd, wait=False):
            # Only now nobody else can change it.
            status = os.fstat(fd)
            if status.st_nlink == 1 and status.st_size == size and _is_ours(status):
                return fd
            is_gone = status.st_nlink == 0 or status.st_size != size
        else:
            is_gone = False
        os.close(fd)
        return -1 if is_gone else None

    def _claim_locked(self, fd: int, name: str, size: int) -> Claim | None:
        """Make a claim of a segment that was just locked, and taken out of the list."""
        kept = self._maps.get(name)
        if kept is None:
            try:
                kept = self._map(name, size)
            except (OSError, ValueError) as exc:
                logger.debug("segment %s cannot be mapped: %s", name, exc)
                self._names[size].append(name)
                os.close(fd)
                return None
        self._maps[name] = kept
        self._maps.move_to_end(name)
        while len(self._maps) > _MAX_KEPT_MAPS:
            self._maps.popitem(last=False)
        self._counter += 1
        temp = f"{self._prefix}{self._counter & 0xFFFFFFFF:08x}.tmp"
        return Claim(self, fd, name, temp, size, memoryview(kept))

    def _map(self, name: str, size: int) -> KeptMap:
        # A descriptor of its own: the mapping may keep a copy of it, and with the claim's it would keep its lock.
        fd = self.folder.open(name, os.O_RDWR | NOFOLLOW | BINARY)
        try:
            return KeptMap(fd, size)
        finally:
            os.close(fd)

    def _returned(self, claim: Claim) -> None:
        """A claim ends: whatever became of the segment, it may be idle some day."""
        size = claim.capacity or os.fstat(claim.fd).st_size
        with self._lock:
            self._add(claim.name, size)

    def _add(self, name: str, size: int) -> None:
        names = self._names.get(size)
        if names is None:
            names = self._names[size] = deque()
            bisect.insort(self._sizes, size)
        names.append(name)
        self._known.add(name)

    def _forget(self, name: str, size: int) -> None:
        self._known.discard(name)
        self._maps.pop(name, None)
        if not self._names[size]:
            del self._names[size]
            self._sizes.remove(size)

    def _learn(self) -> None:
        """Look for segments that other processes made: what they left idle is as good as our own.

        And forget those that were given back, or the list of all that ever were would grow for ever.
        """
        begin = time.monotonic()
        present = self.folder.names()
        for name in self._known.difference(present):
            self._maps.pop(name, None)
        self._known.intersection_update(present)
        for size in list(self._sizes):
            self._names[size] = deque(name for name in self._names[size] if name in self._known)
            if not self._names[size]:
                del self._names[size]
                self._sizes.remove(size)
        for name in present:
            if name in self._known or name.endswith(".tmp"):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = self.folder.stat(name)
                if stat.S_ISREG(status.st_mode):
                    self._add(name, status.st_size)
        self._scanned_at = time.monotonic()
        # With very many segments, look less often: never more than about 2 % of the time.
        self._scan_pause = max(1.0, 50 * (self._scanned_at - begin))

    # -- memory --

    def survey(self) -> list[Found]:
        """Look at the segments of all processes."""
        found = []
        for name in self.folder.names():
            try:
                status = self.folder.stat(name)
            except FileNotFoundError:
                continue
            if status.st_nlink > 1:
                if name.endswith(".tmp"):
                    # A second name for what is found under its own.
                    continue
                state = "published"
            else:
                state = "held" if name.endswith(".tmp") or not self._is_idle(name) else "idle"
            found.append(Found(state, status.st_ctime, name, status.st_ino, status.st_blocks * 512))
        return found

    def _is_idle(self, name: str) -> bool:
        try:
            fd = self.folder.open(name, os.O_RDWR | NOFOLLOW | BINARY)
        except OSError:
            return False
        try:
            # For this moment nobody else gets it: a writer tries the next one.
            return lock_fd(fd, wait=False)
        finally:
            os.close(fd)

    def trim(self, keep: int, max_age: float | None = None) -> PoolState:
        """Give idle segments back to the system, the oldest first, until at most ``keep`` bytes are idle.

        Args:
            keep: bytes.
            max_age: seconds; what has been idle for longer goes in any case. None: IDLE_SECONDS.

        Returns:
            What is left.
        """
        found = self.survey()
        state = PoolState.of(found)
        left = state.idle
        oldest = time.time() - (IDLE_SECONDS if max_age is None else max_age)
        # Of equal states, the oldest come first.
        for one in sorted(found):
            if one.state == "idle" and (left > keep or one.since < oldest):
                left -= self._give_back(one.name)
        return state._replace(idle=left)

    def _give_back(self, name: str) -> int:
        """Remove an idle segment; returns the bytes that were freed, 0 if somebody uses it by now."""
        try:
            fd = self.folder.open(name, os.O_RDWR | NOFOLLOW | BINARY)
        except OSError:
            return 0
        try:
            if not lock_fd(fd, wait=False):
                return 0
            status = os.fstat(fd)
            if status.st_nlink != 1 or not _is_ours(status):
                return 0
            # Frees the pages even where a process keeps a mapping; that process checks the size before it writes.
            os.ftruncate(fd, 0)
            self.folder.discard(name)
            return status.st_blocks * 512
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """A lock among all processes, for who counts memory and takes some.

        After 5 s it is done without: its holder may be stopped, and taking too much is better than waiting for ever.
        """
        lock = Lock(os.open(".", os.O_RDONLY, dir_fd=self.folder.fd))
        deadline = time.monotonic() + 5
        while not lock.acquire(wait=False) and time.monotonic() < deadline:
            time.sleep(0.001)
        try:
            yield
        finally:
            lock.release()

    def reap(self) -> None:
        """Remove the names that killed writers left in the middle of publishing."""
        for name in self.folder.names():
            if name.endswith(".tmp") and self.folder.is_abandoned(name):
                self.folder.discard(name)


def _is_ours(status: os.stat_result) -> bool:
    """Tell whether it is a file that this user made, not something that was put in a segment's place."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


# --- the pools of this process ------------------------------------------------------------------------------------
#
# One object for each folder, so that runs that share a pool also share its mappings, and kept for as long as the
# folder exists: a server attaches to one run after the other, and would map everything anew for each.

_pools: dict[tuple[int, int], SegmentPool] = {}


def pool_of(folder: Folder) -> SegmentPool | None:
    """Return this process's pool for a folder; None where the system cannot have one."""
    if folder.fd is None or not sys.platform.startswith("linux"):
        return None
    drop_dead_pools()
    status = os.fstat(folder.fd)
    return _pools.setdefault((status.st_dev, status.st_ino), SegmentPool(folder))


def drop_dead_pools() -> None:
    """Forget the pools whose folder was removed, and with them the mappings that keep memory."""
    for key, pool in list(_pools.items()):
        # (Takes no lock: this is also called when a mapping is collected.)
        if pool.folder.is_removed():
            _pools.pop(key, None)


# A server may keep a mapping for writing into a segment that it also has mapped for reading, in its cache, when the run
# ends. The run is gone then, and what frees the memory is the end of the last mapping.
on_unmapping.append(drop_dead_pools)


def renew_pools() -> None:
    """Called in a forked child."""
    for pool in list(_pools.values()):
        pool.renew()
