"""The objects of one run, by key: saving, loading, room in memory, ownership."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import pickle
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import files, memory
from .errors import (
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInsecure,
    StoreUnloadable,
    UnknownKeyError,
)
from .file_format import (
    FLAG_RECIPE,
    FORMAT_VERSION,
    HEADER_SIZE,
    KIND_OBJECT,
    KIND_STUB,
    STUB,
    Header,
    HeldObject,
    Sealed,
    buffers_of,
    check_key,
    parse_header,
    stub_for,
)
from .files import (
    BINARY,
    CREATE,
    FULL_ERRNOS,
    INLINE_LIMIT,
    NOFOLLOW,
    READ,
    ClosedFolder,
    Folder,
    Lock,
    fd_limit,
    lock_fd,
    read_at,
    view_file,
    write_all,
)
from .memory import filesystem_type, megabytes
from .runs import (
    BALLAST,
    RUN_ID,
    Roots,
    check_run_id,
    drop_run,
    find_run,
    lock_run,
    make_run,
    open_twin,
    read_run_file,
    sweep,
)
from .segments import Claim, SegmentLostError, SegmentPool, drop_dead_pools, pool_of, renew_pools
from .serializer import needs_cloudpickle, serialize

logger = logging.getLogger("discomfort.object_store")

# RAM that has to stay free for everybody else when a large object is put into shared memory.
_RAM_RESERVE = 128 * 2**20
_LARGE = 16 * 2**20
# Of the memory that a run may use, this much may lie idle, waiting to be written again.
_IDLE_SHARE = 0.25
# What nobody has saved or loaded for so many seconds may move to disk when room is needed.
COLD_SECONDS = 10.0


class ObjectInfo(NamedTuple):
    """What is known of an object without loading it."""

    storage_type: str
    # Bytes of the whole file, header and padding included.
    size: int
    # Bytes of pickle stream and buffers.
    data_size: int
    is_recipe: bool
    # "xxh3:<32 hex>", "blake2b:<32 hex>" or "unique:<32 hex>".
    digest: str
    path: str
    created_ns: int
    pid: int


class _Shortage(NamedTuple):
    # Bytes that are missing.
    need: int
    reason: str


class Usage(NamedTuple):
    """What a run occupies, in bytes, counted over all processes that write to it."""

    # Of its values, and of held_bytes.
    ram_bytes: int
    ram_capacity: int
    disk_bytes: int
    keys: int
    ram_keys: int
    disk_keys: int
    # Objects that this process wrote to disk because memory had no room.
    disk_fallbacks: int
    # Bytes of values that were replaced or deleted, while somebody still has them mapped.
    held_bytes: int
    # Bytes that wait to be written again; given back to the system when memory is needed.
    idle_bytes: int


_stores: weakref.WeakSet[RunStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._become_child()
    renew_pools()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class RunStore:
    """The objects of one run, by key. Made by ``create`` (the owner) or ``attach`` (anybody else of the same user).

    All methods may be called from any thread and process at once. Each is all or nothing: interrupted or killed at
    any point, a key has its old value or its new one. A forked child may use the store and never deletes it.
    """

    def __init__(
        self,
        run_id: str,
        main: Folder,
        twin: Folder | None,
        in_ram: bool,
        ram_capacity: int,
        roots: Roots,
        lender: str | None = None,
    ) -> None:
        # 32 hex digits.
        self.run_id = run_id
        # Bytes that the run's objects may take in shared memory; 0 where there is none.
        self.ram_capacity = ram_capacity if in_ram else 0
        self._roots = roots
        self._in_ram = in_ram
        self._main: Folder | None = main
        self._objects = Folder.open_private("objects", main)
        self._segments: dict[bytes, Folder] = {b"m": Folder.open_private("seg", main)}
        if twin is not None:
            self._segments[b"d"] = Folder.open_private("seg", twin)
        self._twin = twin
        # Where large objects in shared memory are; None where there is no such memory, or no hard links.
        self._pool: SegmentPool | None = self._find_pool(lender) if in_ram else None
        # Whether who reads a large entry has to lock it. Stays true when the store is closed under a reader.
        self._has_leases = self._pool is not None
        # The locks that make this process the owner: of main and twin. Empty in an attached process.
        self._owner_locks: list[Lock] = []
        self._pid = os.getpid()
        self._thread_lock = threading.Lock()
        self._publish_lock: Lock | None = None
        self._prefix = os.urandom(12).hex()
        self._counter = 0
        self._key_names: dict[str, tuple[bytes, str]] = {}
        self._fd_limit = fd_limit()
        # Estimate of the bytes in shared memory: what was measured last, and what this process did since.
        self._ram_used = 0
        self._measured_at = float("-inf")
        self._measure_pause = 1.0
        self._held_bytes = 0
        self._idle_bytes = 0
        self._reaped_at = float("-inf")
        self._disk_fallbacks = 0
        self._objects_moved = 0
        self._ballast_is_used = False
        _stores.add(self)

    # -- opening and closing --

    @classmethod
    def create(
        cls, roots: Roots, run_id: str | None = None, ram_limit: int | None = None, lender: RunStore | None = None
    ) -> RunStore:
        """Make a new run and own it, after removing what dead owners left.

        Args:
            roots: where, see find_roots.
            run_id: 32 hex digits; None for a random one.
            ram_limit: bytes its objects may take in shared memory; None for no other limit than the size of the
                shared-memory filesystem.
            lender: a run in the same roots whose memory this one uses, and leaves there when it ends: idle memory then
                serves one run after the other. It should outlive them; what is stored does not depend on it.

        Raises:
            FileExistsError: if a run of that run_id lives.
            StoreInsecure: if the user's folder there could have been written by somebody else.
            OSError: if neither root can be written.
        """
        run_id = os.urandom(16).hex() if run_id is None else check_run_id(run_id)
        sweep(roots)
        twin: Folder | None = None
        locks: list[Lock] = []
        ram = roots.ram
        if ram is not None:
            twin, locks = cls._make_twin(roots, run_id)
            try:
                main, main_lock = make_run(ram, roots.home_name, run_id, ["objects", "seg", "pool"], True)
            except FileExistsError:
                drop_run(twin, locks)
                raise
            except StoreInsecure:
                drop_run(twin, locks)
                raise
            except OSError as exc:
                logger.warning("shared memory in %s cannot be used (%s): everything goes to disk", ram, exc)
                drop_run(twin, locks)
                twin, locks, ram = None, [], None
        if ram is None:
            main, main_lock = make_run(roots.disk, roots.home_name, run_id, ["objects", "seg"], False)
        locks.append(main_lock)
        capacity = 0
        if ram is not None:
            free = max(0, main.free_bytes() - BALLAST)
            capacity = free if ram_limit is None else max(0, min(ram_limit, free))
        lender_id = lender.run_id if lender is not None and lender._pool is not None else None
        content = {
            "format": FORMAT_VERSION,
            "run_id": run_id,
            "main": "disk" if ram is None else "ram",
            "disk_path": None if twin is None else twin.path,
            "ram_capacity": capacity,
            "lender": lender_id,
            "pid": os.getpid(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        fd = main.open("run.json.tmp", CREATE)
        try:
            write_all(fd, json.dumps(content).encode(), 0)
        finally:
            os.close(fd)
        main.replace("run.json.tmp", main, "run.json")
        store = cls(run_id, main, twin, ram is not None, capacity, roots, lender_id)
        store._owner_locks = locks
        return store

    @staticmethod
    def _make_twin(roots: Roots, run_id: str) -> tuple[Folder | None, list[Lock]]:
        if roots.disk == roots.ram:
            return None, []
        try:
            twin, lock = make_run(roots.disk, roots.home_name, run_id, ["seg"], False)
        except (FileExistsError, StoreInsecure):
            raise
        except OSError as exc:
            logger.warning("%s cannot be written (%s): memory is all this run has", roots.disk, exc)
            return None, []
        return twin, [lock]

    @classmethod
    def attach(cls, roots: Roots, run_id: str) -> RunStore:
        """Open a run that another process (or another part of this one) owns.

        Raises:
            FileNotFoundError: if there is no such run, or its owner is dead.
            StoreInsecure: if a folder of it could have been written by somebody else.
        """
        check_run_id(run_id)
        for root in dict.fromkeys((roots.ram, roots.disk)):
            main = None if root is None else find_run(root, roots.home_name, run_id)
            if main is None:
                continue
            try:
                content = read_run_file(main, run_id)
            except FileNotFoundError:
                continue
            # Shared, so that two processes that ask at the same time do not take each other for the owner.
            lock = lock_run(main, shared=True)
            if lock is not None:
                # Nobody owns it any more: what is in it is waiting for the next sweep.
                lock.release()
                continue
            in_ram = content.get("main") == "ram"
            twin = open_twin(content.get("disk_path"), run_id)
            try:
                store = cls(run_id, main, twin, in_ram, content["ram_capacity"], roots, content.get("lender"))
                # A process that attaches often replaces one that was killed.
                store._reap()
            except (FileNotFoundError, StoreClosed):
                # Shut down at this moment.
                continue
            return store
        raise FileNotFoundError(
            errno.ENOENT,
            f"there is no live context with run_id {run_id} (looked in {roots.ram or 'no shared memory'} and "
            f"{roots.disk}); its owner has shut it down or died, or uses other folders: DISCOMFORT_RAM_ROOT and "
            f"DISCOMFORT_DISK_ROOT must be the same in both processes",
        )

    def _find_pool(self, lender: str | None) -> SegmentPool | None:
        """Open the pool of the run that lends its memory; this run's own where there is none, or it is gone."""
        main = self._open_main()
        if lender is not None:
            try:
                run = Folder.open_private(f"run-{check_run_id(lender)}", self._open_home(main))
                return pool_of(Folder.open_private("pool", run))
            except FileNotFoundError:
                logger.debug("the run %s, whose memory run %s uses, is gone", lender, self.run_id)
        return pool_of(Folder.open_private("pool", main))

    @staticmethod
    def _open_home(main: Folder) -> Folder:
        return Folder.open_private(os.path.dirname(main.path))

    @property
    def is_owner(self) -> bool:
        return bool(self._owner_locks) and self._pid == os.getpid()

    @property
    def is_closed(self) -> bool:
        return self._main is None

    def is_alive(self) -> bool:
        """Tell whether the run still exists: it is neither closed here nor removed by its owner."""
        main = self._main
        return main is not None and main.exists("run.json")

    def close(self) -> None:
        """Let go of the run; the owner also removes it. Idempotent, from any thread.

        Values that were loaded stay valid. Operations that other threads are in the middle of end normally or
        with StoreClosed.
        """
        with self._thread_lock:
            main, self._main = self._main, None
        if main is None:
            return
        pool, self._pool = self._pool, None
        if self.is_owner:
            if pool is not None:
                self._return_memory(pool, main)
            drop_run(main, [])
            if self._twin is not None:
                drop_run(self._twin, [])
        # Descriptors close when the operations that use them at this moment end; later ones meet StoreClosed.
        closed: Any = ClosedFolder(self.run_id)
        self._objects, self._twin = closed, None
        self._segments = dict.fromkeys(self._segments, closed)
        self._owner_locks = []
        self._publish_lock = None
        _stores.discard(self)
        drop_dead_pools()

    def _return_memory(self, pool: SegmentPool, main: Folder) -> None:
        """Let the segments of this run become idle; what is not a lender's goes back to the system at once.

        Removing the folder alone would not free them as long as another process keeps a mapping for writing.
        """
        try:
            for name in self._objects.names():
                self._objects.discard(name)
            is_own = pool.folder.path == os.path.join(main.path, "pool")
            pool.trim(0 if is_own else int(self.ram_capacity * _IDLE_SHARE))
        except (OSError, StoreError) as exc:
            logger.debug("the segments of run %s were not given back one by one: %s", self.run_id, exc)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _become_child(self) -> None:
        """Called in a forked child: it shares the data, but neither the ownership nor the locks."""
        self._pid = os.getpid()
        # Only closes the child's descriptors; the parent still holds the locks.
        self._owner_locks = []
        self._publish_lock = None
        self._thread_lock = threading.Lock()
        self._prefix = os.urandom(12).hex()

    def _open_main(self) -> Folder:
        main = self._main
        if main is None:
            raise StoreClosed(f"the context {self.run_id} has been shut down")
        return main

    def _check_alive(self) -> None:
        """Called where nothing was found: is there nothing, or no run any more?"""
        if not self.is_alive():
            raise self._gone()

    def _gone(self) -> StoreClosed:
        return StoreClosed(f"the context {self.run_id} no longer exists: its owner has shut it down")

    def _name(self, key: str) -> tuple[bytes, str]:
        """Return the key's bytes and the name of its entry."""
        found = self._key_names.get(key)
        if found is None:
            if not isinstance(key, str):
                raise TypeError(f"a unique_id is a string, not {type(key).__name__}: {key!r}")
            raw = key.encode("utf-8", "surrogatepass")
            found = raw, hashlib.blake2b(raw, digest_size=16).hexdigest()
            if len(self._key_names) >= 4096:
                self._key_names.clear()
            self._key_names[key] = found
        return found

    # -- saving --

    def put(self, key: str, data: Any, *, use_ram: bool = True, is_recipe: bool = False) -> None:
        """Store a value. It is visible to all processes when this returns, and not a byte of it before.

        Args:
            key: any string.
            data: any value that can be pickled. Other threads must not change it meanwhile.
            use_ram: False to write to disk although there is memory.
            is_recipe: mark the value as a recipe.

        Raises:
            StoreUnserializable: if it cannot be pickled.
            StoreFull: if neither memory nor disk can hold it.
            StoreClosed: after close, and after the owner's.
            In each case the key keeps its previous value.
        """
        self._open_main()
        key_bytes, name = self._name(key)
        sealed = Sealed(serialize(data, key), key_bytes, FLAG_RECIPE if is_recipe else 0)
        no_ram = ""
        if use_ram and self._in_ram:
            no_ram = self._put_in_ram(sealed, name, key_bytes)
            if not no_ram:
                self._look_after_memory()
                return
            self._tell_fallback(key, sealed.total, no_ram)
        place = b"d" if self._in_ram else b"m"
        if place not in self._segments:
            raise self._full(key, sealed.total, no_ram or "not asked", "there is no disk folder")
        try:
            self._write(sealed, name, place, key_bytes)
        except OSError as exc:
            if exc.errno not in FULL_ERRNOS:
                raise
            free = self._segments[place].free_bytes()
            disk = f"{self._segments[place].path} has {megabytes(free)} free ({exc.strerror})"
            raise self._full(key, sealed.total, no_ram or "not asked", disk) from exc

    def _put_in_ram(self, sealed: Sealed, name: str, key_bytes: bytes) -> str:
        """Write an object into shared memory and publish it; returns why that was not possible, or ""."""
        try:
            if self._pool is not None and sealed.total > INLINE_LIMIT:
                return self._put_in_pool(self._pool, sealed, name, key_bytes)
            refusal = self._ram_refusal(sealed.total)
            if not refusal:
                self._write(sealed, name, b"m", key_bytes)
        except OSError as exc:
            if exc.errno not in FULL_ERRNOS:
                raise
            return f"the shared-memory filesystem is full ({megabytes(self._ram_free())} free)"
        else:
            return refusal

    def _put_in_pool(self, pool: SegmentPool, sealed: Sealed, name: str, key_bytes: bytes) -> str:
        """Write an object into a segment: an idle one, which needs no more memory, else a fresh one."""
        while True:
            try:
                claim = pool.claim(sealed.total)
                if claim is None:
                    refusal = self._ram_refusal(sealed.total)
                    if refusal:
                        return refusal
                    claim = pool.create()
            except FileNotFoundError as exc:
                pool = self._pool_after(pool, exc)
                continue
            try:
                if claim.view is None:
                    sealed.write_to(claim.fd)
                else:
                    sealed.write_into(claim.view)
                claim.seal()
                self._publish_claim(claim, name, key_bytes, sealed.total)
            except SegmentLostError as exc:
                logger.debug("segment %s was taken by another process", exc)
            except FileNotFoundError as exc:
                pool = self._pool_after(pool, exc)
            else:
                return ""
            finally:
                claim.close()

    def _look_after_memory(self) -> None:
        """Now and then, after saving or deleting: idle segments may have become too many, or too old."""
        if self._pool is not None and time.monotonic() - self._measured_at > self._measure_pause:
            # What was asked for is done: that the run is being closed is no error here.
            with contextlib.suppress(FileNotFoundError, StoreClosed):
                self._measure_ram()

    def _pool_after(self, gone: SegmentPool, exc: FileNotFoundError) -> SegmentPool:
        """Return the pool to use where one has vanished: a lender may end before the runs that use its memory."""
        if not self.is_alive():
            raise self._gone() from exc
        if not gone.folder.is_removed():
            raise exc
        own = pool_of(Folder.open_private("pool", self._open_main()))
        if own is None or own is gone:
            raise self._gone() from exc
        self._pool = own
        return own

    def _publish_claim(self, claim: Claim, name: str, key_bytes: bytes, size: int) -> None:
        """Make a sealed segment the key's entry."""
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                old_size, old_segment = self._peek(name, key_bytes)
                claim.publish(self._objects, name)
                self._ram_used += _pages(size) if claim.is_fresh else 0
                self._ram_used -= _own_pages(old_size)
            finally:
                lock.release()
        if old_segment is not None:
            old_segment[0].discard(old_segment[1])

    def _full(self, key: str, total: int, ram: str, disk: str) -> StoreFull:
        return StoreFull(
            errno.ENOSPC,
            f"cannot store {key!r}, {megabytes(total)}: memory: {ram}; disk: {disk}. The previous value, if any, is "
            f"still there. Free some space, raise MAX_RAM_PERCENT or MAX_RAM_GB in workflow_context.json, start a "
            f"container with --shm-size=8g, or let DISCOMFORT_DISK_ROOT name a folder on a larger disk",
        )

    def _tell_fallback(self, key: str, total: int, reason: str) -> None:
        self._disk_fallbacks += 1
        if self._disk_fallbacks > 1:
            return
        disk = self._roots.disk
        note = " (which is memory too: a tmpfs)" if filesystem_type(disk) == "tmpfs" else ""
        logger.warning(
            "%r (%s) and whatever else does not fit goes to disk, %s%s: %s. Said once. More shared memory: raise "
            "MAX_RAM_PERCENT or MAX_RAM_GB in workflow_context.json, or start a container with --shm-size=8g",
            key,
            megabytes(total),
            disk,
            note,
            reason,
        )

    def _write(self, sealed: Sealed, name: str, place: bytes, key_bytes: bytes) -> None:
        """Write an object into the main folder (``m``) or the twin (``d``), and publish it."""
        segments = self._segments[place]
        segment = self._new_segment()
        temp = segment + ".tmp"
        try:
            self._write_file(segments, temp, sealed.write_to)
            if place == b"m" and not files.IS_WINDOWS:
                self._publish(segments, temp, name, key_bytes, sealed.total)
            else:
                # The data is not in the folder of the entries, or (Windows) an entry that is mapped could not be
                # replaced: a segment of its own, and a stub that names it.
                self._write_stub(segments, segment, name, key_bytes, sealed.stub(place, segment))
        except BaseException as exc:
            segments.discard(temp)
            if isinstance(exc, FileNotFoundError) and not self.is_alive():
                raise self._gone() from exc
            raise

    def _new_segment(self) -> str:
        """Return a name for a segment that no process has used."""
        with self._thread_lock:
            self._counter += 1
            return f"{self._prefix}{self._counter & 0xFFFFFFFF:08x}"

    def _write_stub(
        self,
        segments: Folder,
        segment: str,
        name: str,
        key_bytes: bytes,
        stub: bytes,
        only_if: os.stat_result | None = None,
    ) -> None:
        """Publish the written ``<segment>.tmp`` as a segment, and the stub as the key's entry.

        Args:
            only_if: the file that the entry still has to be; FileNotFoundError if it is another by now.
        """
        folder, temp = self._segments[b"m"], segment + ".stub.tmp"
        try:
            self._write_stub_file(folder, temp, stub)
            self._publish(folder, temp, name, key_bytes, len(stub), (segments, segment + ".tmp", segment), only_if)
        except BaseException:
            # Also Ctrl-C at any point: the segment stays if its stub made it.
            folder.discard(temp)
            target = self._peek(name, key_bytes)[1]
            if target is None or target[1] != segment:
                segments.discard(segment)
            raise

    def _write_file(self, folder: Folder, temp: str, write: Callable[[int], None]) -> None:
        fd = folder.open(temp, CREATE)
        try:
            if not files.IS_WINDOWS:
                # Tells _reap that somebody is at work here.
                lock_fd(fd, wait=False)
            write(fd)
        finally:
            os.close(fd)

    def _write_stub_file(self, folder: Folder, temp: str, stub: bytes) -> None:
        """Write a stub; when not even that fits into memory, give up ballast for it, page by page."""
        while True:
            try:
                self._write_file(folder, temp, lambda fd: write_all(fd, stub, 0))
            except OSError as exc:
                folder.discard(temp)
                if exc.errno not in FULL_ERRNOS or not self._release_ballast():
                    raise
            else:
                return

    def _publish(
        self,
        folder: Folder,
        temp: str,
        name: str,
        key_bytes: bytes,
        size: int,
        segment: tuple[Folder, str, str] | None = None,
        only_if: os.stat_result | None = None,
    ) -> None:
        """Make a written file the key's entry, and remove the segment that the old entry named.

        Under a lock across processes: two writers that both saw the same old stub would leave the loser's segment
        behind, and _reap must not meet a segment whose stub is about to appear.
        """
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                if only_if is not None and not os.path.samestat(self._objects.stat(name), only_if):
                    raise FileNotFoundError(errno.ENOENT, "the entry was replaced meanwhile")
                old_size, old_segment = self._peek(name, key_bytes)
                if segment is not None:
                    segment[0].replace(segment[1], segment[0], segment[2])
                folder.replace(temp, self._objects, name)
                self._ram_used += _pages(size) - _own_pages(old_size)
            finally:
                lock.release()
        if old_segment is not None:
            old_segment[0].discard(old_segment[1])

    def _lock_publishing(self) -> Lock:
        """Take the publish lock; the caller holds the thread lock, because threads share the descriptor."""
        main = self._open_main()
        if self._publish_lock is None:
            try:
                self._publish_lock = Lock(main.open("publish.lock", os.O_RDWR | NOFOLLOW | BINARY))
            except FileNotFoundError as exc:
                raise self._gone() from exc
        self._publish_lock.acquire(wait=True)
        return self._publish_lock

    def _peek(self, name: str, key_bytes: bytes) -> tuple[int, tuple[Folder, str] | None]:
        """Return the size of a key's present entry (0: none) and the segment that it names, if it is a stub."""
        try:
            size = self._objects.stat(name).st_size
        except FileNotFoundError:
            return 0, None
        if size != HEADER_SIZE + len(key_bytes) + STUB.size:
            # All stubs of a key are this long, so this is none.
            return size, None
        try:
            return size, self._stub_target(name)
        except (OSError, StoreError):
            # Damaged, or something else was put there: it is only being replaced.
            return size, None

    def _stub_target(self, name: str) -> tuple[Folder, str] | None:
        fd = self._objects.open(name, READ)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            header = parse_header(read_at(fd, HEADER_SIZE, 0), status.st_size)
            if header.kind != KIND_STUB:
                # Not read any further: it may be large.
                return None
            raw = memoryview(read_at(fd, header.total, 0))
        finally:
            os.close(fd)
        return self._segment_of(header, raw)[:2]

    def _segment_of(self, header: Header, view: memoryview) -> tuple[Folder, str, int]:
        """Return what a stub names: folder, segment, length. Only a bare name in a folder known beforehand."""
        if header.stream_length != STUB.size:
            raise StoreCorrupt("it is a stub of a wrong length")
        place, raw, total = STUB.unpack_from(view, header.stream_offset)
        segment = raw.decode("ascii", "replace")
        if place not in self._segments or not RUN_ID.fullmatch(segment):
            raise StoreCorrupt("it is a stub that names no segment of this run")
        return self._segments[place], segment, total

    # -- room in memory --

    def _ram_refusal(self, need: int) -> str:
        """Return why an object of that size cannot go to shared memory, or "" if it can; makes room where that helps.

        Far from the limit this costs nothing; other processes' objects are counted about once a second. Large
        objects also ask the filesystem and the system for what is really free.
        """
        if need > self.ram_capacity:
            return f"it is larger than the {megabytes(self.ram_capacity)} this run may use"
        age = time.monotonic() - self._measured_at
        is_near = 2 * (self._ram_used + need) > self.ram_capacity
        if age > self._measure_pause or (is_near and age > 0.1) or self._shortage(need):
            self._measure_ram()
        shortage = self._shortage(need)
        if not shortage:
            return ""
        # First what nobody needs, then what killed writers left, then what nobody has needed for a while.
        if self._pool is not None:
            self._pool.trim(max(0, self._idle_bytes - shortage.need))
            self._measure_ram()
            shortage = self._shortage(need)
        if shortage and time.monotonic() - self._reaped_at > 10:
            self._reap()
            self._measure_ram()
            shortage = self._shortage(need)
        if shortage and self._move_cold(shortage.need):
            self._measure_ram()
            shortage = self._shortage(need)
        return "" if shortage is None else shortage.reason

    def _shortage(self, need: int) -> _Shortage | None:
        """Return what is missing for an object of that size, as far as is known without counting; None for nothing."""
        over = self._ram_used + need - self.ram_capacity
        if over > 0:
            held = f", {megabytes(self._held_bytes)} of them by values that are still held" if self._held_bytes else ""
            used, capacity = megabytes(self._ram_used), megabytes(self.ram_capacity)
            return _Shortage(over, f"{used} of the {capacity} this run may use are taken{held}")
        if need > INLINE_LIMIT:
            free = self._ram_free()
            if need + BALLAST > free:
                reason = f"the shared-memory filesystem has only {megabytes(free)} free"
                return _Shortage(need + BALLAST - free, reason)
        if need >= _LARGE:
            free = memory.free_ram_bytes()
            if free and need + _RAM_RESERVE > free:
                reason = f"the system has only {megabytes(free)} of memory available"
                return _Shortage(need + _RAM_RESERVE - free, reason)
        return None

    def _ram_free(self) -> int:
        return self._objects.free_bytes()

    def _measure_ram(self) -> None:
        """Count what all processes occupy, and give back what has been idle for long or is more than may be."""
        begin = time.monotonic()
        # Entries that are segments are counted there.
        used = self._objects.survey(True)[2] + self._segments[b"m"].sizes(True)[1]
        pool = self._pool
        if pool is not None:
            state = pool.trim(int(self.ram_capacity * _IDLE_SHARE))
            self._held_bytes, self._idle_bytes = state.held, state.idle
            used += sum(state)
        self._measured_at = time.monotonic()
        # With very many keys, count less often: never more than about 2 % of the time.
        self._measure_pause = max(1.0, 50 * (self._measured_at - begin))
        self._ram_used = used

    def _move_cold(self, need: int) -> bool:
        """Move objects that nobody has used for a while to disk, the coldest first, until ``need`` bytes are free.

        Nothing is lost: an entry names its data in memory until it names the copy on disk. What somebody has mapped
        stays: moving it would free nothing. Returns whether anything was moved.
        """
        disk = self._segments.get(b"d")
        if disk is None:
            return False
        cold: list[tuple[float, str, int]] = []
        limit = time.time() - COLD_SECONDS
        for name in self._objects.names():
            with contextlib.suppress(FileNotFoundError):
                status = self._objects.stat(name)
                used_at = max(status.st_atime, status.st_mtime)
                if status.st_size > INLINE_LIMIT and used_at < limit:
                    cold.append((used_at, name, status.st_blocks * 512))
        # Not for a part: then the new object goes to disk, and what is in memory stays there.
        if sum(size for _, _, size in cold) < need:
            return False
        moved = count = 0
        for _, name, size in sorted(cold):
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
        if count:
            if not self._objects_moved:
                logger.info(
                    "%d value(s), %s, that nobody had used for %g s went to disk, %s, to make room in shared memory. "
                    "Said once",
                    count,
                    megabytes(moved),
                    COLD_SECONDS,
                    self._roots.disk,
                )
            self._objects_moved += count
            if self._pool is not None:
                self._pool.trim(max(0, self._pool.state().idle - moved))
        return count > 0

    def _move_to_disk(self, disk: Folder, name: str) -> bool:
        """Copy one object to disk and let its entry name the copy; False if somebody uses it."""
        fd = self._open_leased(name)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            # With our own lease given up for a moment, does anybody else have one?
            if not lock_fd(fd, wait=False) or not lock_fd(fd, wait=False, shared=True):
                return False
            segment = self._new_segment()
            temp = segment + ".tmp"
            try:
                header, key_bytes = self._copy_object(fd, disk, temp)
                stub = stub_for(header, key_bytes, b"d", segment)
                self._write_stub(disk, segment, name, key_bytes, stub, only_if=status)
            except BaseException:
                disk.discard(temp)
                raise
        except FileNotFoundError:
            # Replaced or deleted meanwhile, which is as good.
            return False
        finally:
            os.close(fd)
        return True

    def _copy_object(self, source: int, disk: Folder, temp: str) -> tuple[Header, bytes]:
        """Copy the file of an object, without what lies behind it in a segment; returns its header and key."""
        size = os.fstat(source).st_size
        header = parse_header(read_at(source, HEADER_SIZE, 0), size)
        key_bytes = read_at(source, header.key_length, HEADER_SIZE)

        def copy(target: int) -> None:
            buffer = memoryview(bytearray(2**20))
            done = 0
            while done < header.total:
                count = os.preadv(source, [buffer[: header.total - done]], done)
                if count == 0:
                    raise StoreCorrupt(f"it ends after {done} of {header.total} bytes")
                write_all(target, buffer[:count], done)
                done += count

        self._write_file(disk, temp, copy)
        return header, key_bytes

    def _release_ballast(self) -> bool:
        """Give up a part of the memory kept in reserve; False if none is left."""
        try:
            fd = self._open_main().open("ballast", os.O_RDWR | NOFOLLOW | BINARY)
        except FileNotFoundError:
            return False
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                return False
            os.ftruncate(fd, max(0, size - INLINE_LIMIT))
        finally:
            os.close(fd)
        self._ballast_is_used = True
        return True

    def _refill_ballast(self) -> None:
        if not self._ballast_is_used or self._ram_free() < 2 * BALLAST:
            return
        fd = self._open_main().open("ballast", os.O_RDWR | NOFOLLOW | BINARY)
        try:
            write_all(fd, bytes(BALLAST), 0)
            self._ballast_is_used = False
        except OSError as exc:
            logger.debug("the ballast cannot be refilled yet: %s", exc)
        finally:
            os.close(fd)

    def _reap(self) -> None:
        """Remove what writers that were killed left: unfinished files, and segments no stub names.

        A writer holds a lock on the file it writes; ten seconds cover the moment between making and locking it.
        """
        self._reaped_at = time.monotonic()
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                named = self._named_segments() if any(self._segment_names()) else set()
                if self._pool is not None:
                    self._pool.reap()
                for folder, name in self._segment_names():
                    if name.endswith(".tmp"):
                        if folder.is_abandoned(name):
                            folder.discard(name)
                    elif name not in named:
                        folder.discard(name)
            finally:
                lock.release()

    def _segment_names(self) -> Iterator[tuple[Folder, str]]:
        for folder in self._segments.values():
            for name in folder.names():
                yield folder, name

    def _named_segments(self) -> set[str]:
        targets = set()
        for name in self._objects.names():
            try:
                target = self._stub_target(name)
            except (OSError, StoreError):
                continue
            if target is not None:
                targets.add(target[1])
        return targets

    # -- loading --

    def get(self, key: str) -> Any:
        """Return the value of a key. It is the caller's own: writing into it changes nothing that is stored.

        Takes constant time for tensors and arrays: what is large is mapped, not read.

        Raises:
            UnknownKeyError: a KeyError that names the key and those that exist.
            StoreUnloadable: if this process lacks something that the value needs.
            StoreCorrupt, StoreInsecure: if the file is damaged, or could be somebody else's.
        """
        return self.fetch(key)[0]

    def fetch(self, key: str) -> tuple[Any, object]:
        """Return (value, token); the token tells ``delete`` which value was meant."""
        header, view = self._open_object(key)
        return self._rebuild(key, header, view), (header.created_ns, header.pid, header.digest)

    def _rebuild(self, key: str, header: Header, view: memoryview) -> Any:
        try:
            buffers = buffers_of(header, view)
            stream = view[header.stream_offset : header.stream_offset + header.stream_length]
            return pickle.loads(stream, buffers=buffers)  # noqa: S301 (only this user can have written it)
        except StoreCorrupt as exc:
            raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
        except (MemoryError, RecursionError):
            raise
        except Exception as exc:
            raise self._unloadable(key, header, exc) from exc

    def hold(self, key: str) -> HeldObject:
        """Keep what is stored now readable, whatever is stored under the key later. Constant time: it is mapped, and
        nothing is rebuilt. UnknownKeyError where there is none.
        """
        return HeldObject(key, *self._open_object(key))

    def restore(self, held: HeldObject, *, use_ram: bool = True) -> None:
        """Store a held object under its key again, unless it is still there. Raises what get and put raise."""
        info = self.info(held.key)
        if info is None or info.digest != held.header.digest_text:
            value = self._rebuild(held.key, held.header, held.view)
            self.put(held.key, value, use_ram=use_ram, is_recipe=bool(held.header.flags & FLAG_RECIPE))

    def _unloadable(self, key: str, header: Header, exc: Exception) -> StoreUnloadable:
        missing = getattr(exc, "name", None) if isinstance(exc, ImportError) else None
        text = f"{key!r} is stored, but this process cannot rebuild it: {type(exc).__name__}: {exc}."
        if missing is not None and missing.partition(".")[0] == "cloudpickle":
            text += " " + needs_cloudpickle("It")
        elif isinstance(exc, (ImportError, AttributeError)):
            text += (
                f" It was saved by process {header.pid}, where that module or class exists; import it here as well, "
                f"or pass plain data"
            )
        return StoreUnloadable(text)

    def _open_object(self, key: str) -> tuple[Header, memoryview]:
        """Return a key's object, checked: header and the bytes of the whole file."""
        self._open_main()
        key_bytes, name = self._name(key)
        deadline = 0.0
        while True:
            try:
                header, view = self._open_file(self._objects, name, key_bytes)
                if header.kind == KIND_OBJECT:
                    return header, view
                folder, segment, _ = self._segment_of(header, view)
            except FileNotFoundError:
                raise self.unknown(key) from None
            except StoreCorrupt as exc:
                raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
            try:
                header, view = self._open_file(folder, segment, key_bytes)
            except FileNotFoundError:
                # Replaced between reading the stub and opening the segment: the entry says something new by now.
                deadline = deadline or time.monotonic() + 5
                if time.monotonic() > deadline:
                    raise StoreCorrupt(f"the object stored as {key!r} names a segment that is gone") from None
                time.sleep(0.0005)
            except StoreCorrupt as exc:
                raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
            else:
                return header, view

    def _open_file(self, folder: Folder, name: str, key_bytes: bytes) -> tuple[Header, memoryview]:
        fd = self._open_leased(name) if folder is self._objects else self._open_checked(folder, name)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            if self._has_leases and status.st_size > INLINE_LIMIT:
                # Says when it was used last, to whoever looks for what could move to disk.
                os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))
            view = view_file(fd, status.st_size, self._fd_limit)
        finally:
            os.close(fd)
        header = parse_header(view, status.st_size)
        check_key(header, view, key_bytes)
        return header, view

    def _open_leased(self, name: str) -> int:
        """Open a key's entry. A segment is not written again as long as the descriptor, or a mapping made with it, is
        open.
        """
        deadline = 0.0
        while True:
            fd = self._open_checked(self._objects, name)
            try:
                status = os.fstat(fd)
                # (A segment that was just given back has length 0, and no entry has.)
                if not self._has_leases or 0 < status.st_size <= INLINE_LIMIT or not stat.S_ISREG(status.st_mode):
                    return fd
                # Between opening and locking it may have been replaced, and written again for another key.
                if lock_fd(fd, wait=False, shared=True) and os.path.samestat(self._objects.stat(name), status):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            deadline = deadline or time.monotonic() + 5
            if time.monotonic() > deadline:
                path = os.path.join(self._objects.path, name)
                raise StoreError(
                    f"{path} has been locked for 5 s by another process, which no writer of this store does"
                )
            time.sleep(0.0002)

    def _open_checked(self, folder: Folder, name: str) -> int:
        try:
            return folder.open(name, READ)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                path = os.path.join(folder.path, name)
                raise StoreInsecure(errno.EPERM, f"{path} is a link or a device, not an object; not read") from exc
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise OSError(
                    exc.errno,
                    f"no file descriptor is left to open {name}: every large value that is held uses one. Drop values, "
                    f"or raise the limit (ulimit -n)",
                ) from exc
            raise

    def _check_file(self, status: os.stat_result, name: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise StoreInsecure(errno.EPERM, f"{name} of run {self.run_id} is not a regular file; not read")
        if not files.IS_WINDOWS and status.st_uid != os.geteuid():
            raise StoreInsecure(errno.EPERM, f"{name} of run {self.run_id} belongs to user {status.st_uid}; not read")

    def unknown(self, key: str) -> StoreError:
        """Return the error for a key that has no object: UnknownKeyError, or StoreClosed if the run is gone."""
        if not self.is_alive():
            return self._gone()
        keys = self.list_keys()
        shown = ", ".join(repr(other) for other in keys[:50]) + (", ..." if len(keys) > 50 else "")
        return UnknownKeyError(f"nothing is stored as {key!r} in context {self.run_id}; stored are: {shown or 'none'}")

    # -- looking --

    def info(self, key: str) -> ObjectInfo | None:
        """Return what is known of a key's object without loading it, or None if there is none."""
        self._open_main()
        key_bytes, name = self._name(key)
        try:
            fd = self._open_leased(name)
        except FileNotFoundError:
            self._check_alive()
            return None
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            view = memoryview(read_at(fd, HEADER_SIZE + len(key_bytes) + STUB.size, 0))
            header = parse_header(view, status.st_size)
            folder, file_name, size = self._objects, name, header.total
            if header.kind == KIND_STUB:
                folder, file_name, size = self._segment_of(header, view)
        except StoreCorrupt as exc:
            raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
        finally:
            os.close(fd)
        in_ram = self._in_ram and (folder is self._objects or folder is self._segments[b"m"])
        return ObjectInfo(
            "ram" if in_ram else "disk",
            size,
            header.data_length,
            bool(header.flags & FLAG_RECIPE),
            header.digest_text,
            os.path.join(folder.path, file_name),
            header.created_ns,
            header.pid,
        )

    def has(self, key: str) -> bool:
        self._open_main()
        if self._objects.exists(self._name(key)[1]):
            return True
        self._check_alive()
        return False

    def list_keys(self) -> list[str]:
        """Return all keys, sorted. An object that is damaged is left out, with a warning in the log."""
        self._open_main()
        keys = []
        for name in self._objects.names():
            try:
                keys.append(self._key_of(name))
            except FileNotFoundError:
                continue
            except (OSError, StoreError) as exc:
                logger.warning("%s in %s is no object: %s", name, self._objects.path, exc)
        if not keys:
            self._check_alive()
        return sorted(keys)

    def _key_of(self, name: str) -> str:
        fd = self._open_leased(name)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            raw = read_at(fd, 1024, 0)
            header = parse_header(raw, status.st_size)
            end = HEADER_SIZE + header.key_length
            if end > len(raw):
                raw = read_at(fd, end, 0)
        finally:
            os.close(fd)
        return raw[HEADER_SIZE:end].decode("utf-8", "surrogatepass")

    def usage(self) -> Usage:
        """Count what the run occupies now, in all processes."""
        self._open_main()
        keys, entry_bytes = self._objects.sizes(self._in_ram)
        if not keys:
            self._check_alive()
        segment_bytes = self._segments[b"m"].sizes(self._in_ram)[1]
        disk_keys, disk_bytes = self._segments[b"d"].sizes(False) if b"d" in self._segments else (0, 0)
        if not self._in_ram:
            return Usage(0, 0, entry_bytes + segment_bytes, keys, 0, keys, self._disk_fallbacks, 0, 0)
        pool = self._pool
        state = pool.state() if pool is not None else None
        held, idle = (state.held, state.idle) if state is not None else (0, 0)
        return Usage(
            entry_bytes + segment_bytes + held,
            self.ram_capacity,
            disk_bytes,
            keys,
            keys - disk_keys,
            disk_keys,
            self._disk_fallbacks,
            held,
            idle,
        )

    # -- deleting --

    def delete(self, key: str, token: object = None) -> bool:
        """Remove a key and its data. Processes that loaded it keep what they have.

        Args:
            key: the key.
            token: from ``fetch``: remove only the value that was fetched, not one that was stored since.

        Returns:
            Whether there was something to remove.
        """
        key_bytes, name = self._name(key)
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                if token is not None and self._token_of(name) != token:
                    return False
                size, segment = self._peek(name, key_bytes)
                self._objects.unlink(name)
                self._ram_used -= _own_pages(size)
            except FileNotFoundError:
                self._check_alive()
                return False
            finally:
                lock.release()
        if segment is not None:
            segment[0].discard(segment[1])
        self._refill_ballast()
        self._look_after_memory()
        return True

    def _token_of(self, name: str) -> object:
        folder, file_name = self._stub_target(name) or (self._objects, name)
        fd = self._open_checked(folder, file_name)
        try:
            header = parse_header(read_at(fd, HEADER_SIZE, 0), os.fstat(fd).st_size)
        finally:
            os.close(fd)
        return (header.created_ns, header.pid, header.digest)


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096


def _own_pages(size: int) -> int:
    """Return the bytes that replacing an entry frees at once: a segment stays, and may be written again."""
    return _pages(size) if size <= INLINE_LIMIT else 0
