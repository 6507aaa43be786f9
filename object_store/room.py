"""Room in shared memory: how much a run may take, how much it takes, and what makes way when that is not enough.

In this order: idle segments, which nobody needs; what killed writers left; objects that nobody has used for a while,
which move to disk; and if all that is not enough, the new object itself goes to disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import NamedTuple

from . import memory
from .entries import Entries, Entry, Segment
from .errors import StoreClosed, StoreCorrupt, StoreError
from .file_format import HEADER_SIZE, Header, parse_header, stub_for
from .files import FULL_ERRNOS, INLINE_LIMIT, Folder, lock_fd, read_at, write_all
from .memory import megabytes
from .runs import BALLAST
from .segments import PoolState, SegmentPool

logger = logging.getLogger("discomfort.object_store")

# RAM that has to stay free for everybody else when a large object is put into shared memory.
_RAM_RESERVE = 128 * 2**20
_LARGE = 16 * 2**20
# What nobody has saved or loaded for so many seconds may move to disk when room is needed.
COLD_SECONDS = 10.0
# Killed writers' leftovers are looked for at most this often, in seconds.
_REAP_PAUSE = 10.0


class _Shortage(NamedTuple):
    # Bytes that are missing.
    need: int
    reason: str


class Room:
    """The shared memory of one run, as one process sees it.

    What it knows is an estimate: what was counted last, and what this process has done since. It is renewed about once
    a second, when other processes have changed something, and close to the limit before every decision.
    """

    def __init__(
        self, entries: Entries, pool: SegmentPool | None, capacity: int, idle_limit: int, disk_root: str
    ) -> None:
        """Look after the memory of a run.

        Args:
            pool: where its large objects are; None where nothing is written again.
            capacity: bytes that it may take.
            idle_limit: bytes of the pool that may lie idle.
            disk_root: where its disk folder is, for the log.
        """
        self.pool = pool
        self.capacity = capacity
        self.idle_limit = idle_limit
        self._entries = entries
        self._disk_root = disk_root
        # Bytes in shared memory: in files of entries, and in segments.
        self._small = 0
        self._large = 0
        self._state = PoolState(0, 0, 0)
        self._measured_at = float("-inf")
        self._measure_pause = 1.0
        # When segments were counted last, how long that took, and what the pool's folder looked like.
        self._counted_at = float("-inf")
        self._count_seconds = 0.0
        self._pool_seen = 0
        self._reaped_at = float("-inf")
        self._try_again_at = float("-inf")
        self._has_moved = False

    def free_bytes(self) -> int:
        """What the shared-memory filesystem can still take."""
        return self._entries.objects.free_bytes()

    def count(self, added: int, replaced: int) -> None:
        """Take note of an entry that was replaced.

        Args:
            added: bytes of new memory that were taken for it.
            replaced: length of the file that was the entry. Only a small one is free at once: a segment stays.
        """
        if added > INLINE_LIMIT and self.pool is not None:
            self._large += _pages(added)
        else:
            self._small += _pages(added)
        if replaced <= INLINE_LIMIT:
            self._small -= _pages(replaced)
        if replaced:
            self._try_again_at = float("-inf")

    def refusal(self, need: int) -> str:
        """Return why an object of that size cannot go to shared memory, or "" if it can; makes room where that helps.

        Far from the limit this costs nothing; other processes' objects are counted about once a second. Large
        objects also ask the filesystem and the system for what is really free.
        """
        if need > self.capacity:
            return f"it is larger than the {megabytes(self.capacity)} this run may use"
        if time.monotonic() - self._measured_at > self._measure_pause:
            self.measure()
        else:
            self._count_others()
        # Asked once where there is room: of a large object it reads the system's figures.
        shortage = self._shortage(need)
        if shortage is None:
            return ""
        self.measure()
        shortage = self._shortage(need)
        if shortage is None:
            return ""
        begin = time.monotonic()
        if begin >= self._try_again_at:
            shortage = self._make_room(need, shortage)
            if shortage is None:
                return ""
            # Where everything is full, looking for room takes a twentieth of the time, not all of it.
            self._try_again_at = time.monotonic() + min(1.0, 20 * (time.monotonic() - begin))
        return shortage.reason

    def _count_others(self) -> None:
        """Count the segments if other processes have made or removed some. Takes a sixth of the time at most."""
        pool = self.pool
        age = time.monotonic() - self._counted_at
        if pool is not None and age > 5 * self._count_seconds and pool.folder.changed_ns() != self._pool_seen:
            self._count_segments(pool)

    def _count_segments(self, pool: SegmentPool) -> None:
        begin = time.monotonic()
        # Before counting: what changes meanwhile is looked at again.
        self._pool_seen = pool.folder.changed_ns()
        self._large = pool.folder.sizes(True)[1]
        self._counted_at = time.monotonic()
        self._count_seconds = self._counted_at - begin

    def reserve(self, fd: int, need: int) -> str:
        """Take the memory for a fresh segment, where several processes at once could take more than there is.

        Far from the limit the memory comes with the writing, which is a little cheaper.

        Args:
            fd: the new file, still empty.

        Returns:
            Why it cannot have the memory, or "".

        Raises:
            OSError: ENOSPC where the filesystem is full.
        """
        if self.pool is None or 2 * (self._small + self._large + need) <= self.capacity:
            return ""
        while True:
            with self.pool.one_at_a_time():
                self._count_segments(self.pool)
                shortage = self._shortage(need)
                if shortage is None:
                    os.posix_fallocate(fd, 0, need)
                    return ""
            # Somebody else took what was there a moment ago.
            shortage = self._make_room(need, shortage)
            if shortage is not None:
                return shortage.reason

    def _make_room(self, need: int, shortage: _Shortage | None) -> _Shortage | None:
        """Let go of what can be done without in memory; returns what is missing all the same."""
        if shortage and self.pool is not None and self._state.idle:
            self.pool.trim(max(0, self._state.idle - shortage.need))
            self.measure()
            shortage = self._shortage(need)
        if shortage and time.monotonic() - self._reaped_at > _REAP_PAUSE:
            self.reap()
            self.measure()
            shortage = self._shortage(need)
        if shortage and self._move_cold(shortage.need):
            self.measure()
            shortage = self._shortage(need)
        return shortage

    def _shortage(self, need: int) -> _Shortage | None:
        """Return what is missing for an object of that size, as far as is known without counting; None for nothing."""
        over = self._small + self._large + need - self.capacity
        if over > 0:
            held = self._state.held
            whose = f", {megabytes(held)} of them by values that are still held" if held else ""
            used, capacity = megabytes(self._small + self._large), megabytes(self.capacity)
            return _Shortage(over, f"{used} of the {capacity} this run may use are taken{whose}")
        if need > INLINE_LIMIT:
            free = self.free_bytes()
            if need + BALLAST > free:
                reason = f"the shared-memory filesystem has only {megabytes(free)} free"
                return _Shortage(need + BALLAST - free, reason)
        if need >= _LARGE:
            free = memory.free_ram_bytes()
            if free and need + _RAM_RESERVE > free:
                reason = f"the system has only {megabytes(free)} of memory available"
                return _Shortage(need + _RAM_RESERVE - free, reason)
        return None

    # -- counting --

    def look_after(self) -> None:
        """Now and then, after saving or deleting: idle segments may have become too many, or too old."""
        if self.pool is not None and time.monotonic() - self._measured_at > self._measure_pause:
            # What was asked for is done: that the run is being closed is no error here.
            with contextlib.suppress(FileNotFoundError, StoreClosed):
                self.measure()

    def measure(self) -> None:
        """Count what all processes occupy, and give back what has been idle for long or is more than may be."""
        begin = time.monotonic()
        # Entries that have a second name are segments, and counted there.
        self._small = self._entries.objects.survey(True).unlinked + self._entries.segments[b"m"].sizes(True)[1]
        if self.pool is not None:
            self._state = self.pool.trim(self.idle_limit)
            self._count_segments(self.pool)
        self._measured_at = time.monotonic()
        # With very many keys, count less often: never more than about 2 % of the time.
        self._measure_pause = max(1.0, 50 * (self._measured_at - begin))

    def reap(self) -> None:
        """Remove what killed writers left."""
        self._reaped_at = time.monotonic()
        if self.pool is not None:
            self.pool.reap()
        self._entries.reap()

    # -- moving to disk --

    def _move_cold(self, need: int) -> bool:
        """Move objects that nobody has used for a while to disk, the coldest first, until ``need`` bytes are free.

        Nothing is lost: an entry names its data in memory until it names the copy on disk. What somebody has mapped
        stays: moving it would free nothing. Returns whether anything was moved.
        """
        disk = self._entries.segments.get(b"d")
        if disk is None:
            return False
        cold = self._find_cold()
        # Not for a part: then the new object goes to disk, and what is in memory stays there.
        if sum(size for _, _, size in cold) < need:
            return False
        moved = count = 0
        for _, name, size in cold:
            if moved >= need:
                break
            try:
                if self._move_to_disk(disk, name):
                    moved, count = moved + size, count + 1
            except StoreError as exc:
                logger.debug("%s stays in memory: %s", name, exc)
            except OSError as exc:
                if exc.errno not in FULL_ERRNOS:
                    raise
                logger.debug("the disk has no room for what could leave memory: %s", exc)
                break
        if not count:
            return False
        if not self._has_moved:
            logger.info(
                "%d value(s), %s, that nobody had used for %g s went to disk, %s, to make room in shared memory. Said "
                "once",
                count,
                megabytes(moved),
                COLD_SECONDS,
                self._disk_root,
            )
        self._has_moved = True
        if self.pool is not None:
            self.pool.trim(max(0, PoolState.of(self.pool.survey()).idle - moved))
        return True

    def _find_cold(self) -> list[tuple[float, str, int]]:
        """Return (time of last use, name, bytes) of the entries that may move, the coldest first."""
        objects, cold = self._entries.objects, []
        limit = time.time() - COLD_SECONDS
        for name in objects.names():
            with contextlib.suppress(FileNotFoundError):
                status = objects.stat(name)
                used_at = max(status.st_atime, status.st_mtime)
                if status.st_size > INLINE_LIMIT and used_at < limit:
                    cold.append((used_at, name, status.st_blocks * 512))
        return sorted(cold)

    def _move_to_disk(self, disk: Folder, name: str) -> bool:
        """Copy one object to disk and let its entry name the copy; False if somebody uses it."""
        try:
            fd, status = self._entries.open_leased(name)
        except FileNotFoundError:
            return False
        segment = Segment(disk, self._entries.new_segment())
        try:
            self._entries.check_file(status, name)
            # With our own lease given up for a moment, does anybody else have one?
            if not lock_fd(fd, wait=False) or not lock_fd(fd, wait=False, shared=True):
                return False
            header, key = self._copy_object(fd, segment)
            stub = stub_for(header, key, b"d", segment.name)
            self._entries.publish_stub(Entry(key, name), segment, stub, only_if=status)
        except FileNotFoundError:
            # Replaced or deleted meanwhile, which is as good.
            return False
        finally:
            os.close(fd)
            disk.discard(segment.name + ".tmp")
        return True

    def _copy_object(self, source: int, segment: Segment) -> tuple[Header, bytes]:
        """Copy the file of an object, without what lies behind it in a segment; returns its header and key."""
        header = parse_header(read_at(source, HEADER_SIZE, 0), os.fstat(source).st_size)
        key = read_at(source, header.key_length, HEADER_SIZE)

        def copy(target: int) -> None:
            buffer = memoryview(bytearray(2**20))
            done = 0
            while done < header.total:
                count = os.preadv(source, [buffer[: header.total - done]], done)
                if count == 0:
                    raise StoreCorrupt(f"it ends after {done} of {header.total} bytes")
                write_all(target, buffer[:count], done)
                done += count

        self._entries.write_file(segment.folder, segment.name + ".tmp", copy)
        return header, key


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096
