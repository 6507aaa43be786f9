"""The objects of one run, by key: saving, loading, room in memory, ownership."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import weakref
from typing import Any, NamedTuple

from . import files
from .entries import Entries, Entry, Segment
from .errors import StoreClosed, StoreCorrupt, StoreError, StoreFull, StoreInsecure, StoreUnloadable
from .file_format import FLAG_LIST, FLAG_RECIPE, FORMAT_VERSION, Header, HeldObject, Sealed, rebuild
from .files import CREATE, FULL_ERRNOS, INLINE_LIMIT, Folder, Lock, write_all
from .memory import filesystem_type, megabytes
from .room import Room
from .runs import (
    BALLAST,
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
from .segments import PoolState, SegmentLostError, SegmentPool, drop_dead_pools, pool_of, renew_pools
from .serializer import needs_cloudpickle, serialize

logger = logging.getLogger("discomfort.object_store")


class ObjectInfo(NamedTuple):
    """What is known of an object without loading it."""

    storage_type: str
    # Bytes of the whole file, header and padding included.
    size: int
    # Bytes of pickle stream and buffers.
    data_size: int
    is_recipe: bool
    # whether ComfyUI hands the items of the list to nodes one by one
    is_list: bool
    # "xxh3:<32 hex>", "blake2b:<32 hex>" or "unique:<32 hex>".
    digest: str
    path: str
    created_ns: int
    pid: int

    @property
    def content_id(self) -> str:
        """The digest; of a list whose items go one by one another one than of the same list as a whole."""
        return f"{self.digest}/items" if self.is_list else self.digest

    def as_dict(self) -> dict[str, Any]:
        """What is known, without where it is, in the words of ``WorkflowContext.get_storage_info``."""
        return {
            "storage_type": self.storage_type,
            "size": self.size,
            "data_size": self.data_size,
            "pass_by": "ref" if self.is_recipe else "val",
            **({"is_list": True} if self.is_list else {}),
            "digest": self.content_id,
            "created": self.created_ns / 1e9,
            "pid": self.pid,
        }


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


# Of the memory that a run may use, this much may lie idle, waiting to be written again.
_IDLE_SHARE = 0.25

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
        idle_limit: int | None = None,
    ) -> None:
        # 32 hex digits.
        self.run_id = run_id
        # Bytes that the run's objects may take in shared memory; 0 where there is none.
        self.ram_capacity = ram_capacity if in_ram else 0
        self._roots = roots
        self._in_ram = in_ram
        self._twin = twin
        pool = self._find_pool(main, lender) if in_ram else None
        self._entries = Entries(run_id, main, twin, has_leases=pool is not None)
        idle_limit = int(self.ram_capacity * _IDLE_SHARE) if idle_limit is None else idle_limit
        self._room = Room(self._entries, pool, self.ram_capacity, idle_limit, roots.disk)
        # The locks that make this process the owner: of main and twin. Empty in an attached process.
        self._owner_locks: list[Lock] = []
        self._pid = os.getpid()
        self._disk_fallbacks = 0
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
            except (FileExistsError, StoreInsecure):
                drop_run(twin, locks)
                raise
            except OSError as exc:
                logger.warning("shared memory in %s cannot be used (%s): everything goes to disk", ram, exc)
                drop_run(twin, locks)
                twin, locks, ram = None, [], None
        if ram is None:
            main, main_lock = make_run(roots.disk, roots.home_name, run_id, ["objects", "seg"], False)
        locks.append(main_lock)
        try:
            return cls._finish(roots, run_id, main, twin, locks, ram is not None, ram_limit, lender)
        except BaseException:
            drop_run(main, [])
            drop_run(twin, locks)
            raise

    @classmethod
    def _finish(
        cls,
        roots: Roots,
        run_id: str,
        main: Folder,
        twin: Folder | None,
        locks: list[Lock],
        in_ram: bool,
        ram_limit: int | None,
        lender: RunStore | None,
    ) -> RunStore:
        """Write down what others need to attach to a run whose folders are made, and open it as its owner."""
        capacity = 0
        if in_ram:
            # What lies idle at the lender's is as good as free.
            free = max(0, main.free_bytes() - BALLAST) + (0 if lender is None else lender.idle_bytes())
            capacity = free if ram_limit is None else max(0, min(ram_limit, free))
        lender_id, idle_limit = None, None
        if lender is not None and lender._room.pool is not None:
            lender_id, idle_limit = lender.run_id, lender._room.idle_limit
        content = {
            "format": FORMAT_VERSION,
            "run_id": run_id,
            "main": "ram" if in_ram else "disk",
            "disk_path": None if twin is None else twin.path,
            "ram_capacity": capacity,
            "lender": lender_id,
            "idle_limit": idle_limit,
            "pid": os.getpid(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        fd = main.open("run.json.tmp", CREATE)
        try:
            write_all(fd, json.dumps(content).encode(), 0)
        finally:
            os.close(fd)
        main.replace("run.json.tmp", main, "run.json")
        store = cls(run_id, main, twin, in_ram, capacity, roots, lender_id, idle_limit)
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
                lender, idle_limit = content.get("lender"), content.get("idle_limit")
                store = cls(run_id, main, twin, in_ram, content["ram_capacity"], roots, lender, idle_limit)
                # A process that attaches often replaces one that was killed.
                store._room.reap()
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

    @property
    def is_owner(self) -> bool:
        return bool(self._owner_locks) and self._pid == os.getpid()

    @property
    def is_closed(self) -> bool:
        return self._entries.is_closed

    def is_alive(self) -> bool:
        """Tell whether the run still exists: it is neither closed here nor removed by its owner."""
        return self._entries.is_alive()

    @staticmethod
    def _find_pool(main: Folder, lender: str | None) -> SegmentPool | None:
        """Open the pool of the run that lends its memory; this run's own where there is none, or it is gone."""
        if lender is not None:
            try:
                home = Folder.open_private(os.path.dirname(main.path))
                run = Folder.open_private(f"run-{check_run_id(lender)}", home)
                return pool_of(Folder.open_private("pool", run))
            except FileNotFoundError:
                logger.debug("the run %s, whose memory %s uses, is gone", lender, main.path)
        return pool_of(Folder.open_private("pool", main))

    def close(self) -> None:
        """Let go of the run; the owner also removes it. Idempotent, from any thread.

        Values that were loaded stay valid. Operations that other threads are in the middle of end normally or
        with StoreClosed.
        """
        main = self._entries.close()
        if main is None:
            return
        pool, self._room.pool = self._room.pool, None
        if self.is_owner:
            if pool is not None:
                self._return_memory(pool, main)
            drop_run(main, [])
            if self._twin is not None:
                drop_run(self._twin, [])
        self._twin = None
        self._entries.drop_folders()
        self._owner_locks = []
        _stores.discard(self)
        drop_dead_pools()

    def _return_memory(self, pool: SegmentPool, main: Folder) -> None:
        """Let the segments of this run become idle; what is not a lender's goes back to the system at once.

        Removing the folder alone would not free them as long as another process keeps a mapping for writing.
        """
        objects = self._entries.objects
        try:
            for name in objects.names():
                objects.discard(name)
            is_own = pool.folder.path == os.path.join(main.path, "pool")
            pool.trim(0 if is_own else self._room.idle_limit)
        except (OSError, StoreError) as exc:
            logger.debug("the segments of run %s were not given back one by one: %s", self.run_id, exc)

    def _become_child(self) -> None:
        """Called in a forked child: it shares the data, but neither the ownership nor the locks."""
        self._pid = os.getpid()
        # Only closes the child's descriptors; the parent still holds the locks.
        self._owner_locks = []
        self._entries.become_child()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- saving --

    def put(self, key: str, data: Any, *, use_ram: bool = True, is_recipe: bool = False, is_list: bool = False) -> None:
        """Store a value. It is visible to all processes when this returns, and not a byte of it before.

        Args:
            key: any string.
            data: any value that can be pickled. Other threads must not change it meanwhile.
            use_ram: False to write to disk although there is memory.
            is_recipe: mark the value as a recipe.
            is_list: mark it as a list whose items ComfyUI hands to nodes one by one.

        Raises:
            StoreUnserializable: if it cannot be pickled.
            StoreFull: if neither memory nor disk can hold it.
            StoreClosed: after close, and after the owner's.
            In each case the key keeps its previous value.
        """
        self._entries.open_main()
        entry = self._entries.of(key)
        flags = (FLAG_RECIPE if is_recipe else 0) | (FLAG_LIST if is_list else 0)
        self._store(entry, Sealed(serialize(data, key), entry.key, flags), use_ram)

    def put_held(self, key: str, held: HeldObject, *, use_ram: bool = True) -> None:
        """Store a copy of a held object, of this run or another or of a file, under a key. Nothing is unpickled, so
        that it works for what this process could not load.

        Raises:
            StoreCorrupt: the object contradicts itself. StoreFull, StoreClosed: as ``put``.
        """
        self._entries.open_main()
        entry = self._entries.of(key)
        self._store(entry, Sealed.copy_of(held, entry.key), use_ram)

    def _store(self, entry: Entry, sealed: Sealed, use_ram: bool) -> None:
        """Write an object where there is room, and publish it."""
        key = entry.key.decode("utf-8", "surrogatepass")
        no_ram = ""
        if use_ram and self._in_ram:
            no_ram = self._put_in_ram(entry, sealed)
            if not no_ram:
                self._room.look_after()
                return
            self._tell_fallback(key, sealed.total, no_ram)
        place = b"d" if self._in_ram else b"m"
        disk = self._entries.segments.get(place)
        if disk is None:
            raise self._full(key, sealed.total, no_ram or "not asked", "there is no disk folder")
        try:
            self._write(entry, sealed, place)
        except OSError as exc:
            if exc.errno not in FULL_ERRNOS:
                raise
            why = f"{disk.path} has {megabytes(disk.free_bytes())} free ({exc.strerror})"
            raise self._full(key, sealed.total, no_ram or "not asked", why) from exc

    def _put_in_ram(self, entry: Entry, sealed: Sealed) -> str:
        """Write an object into shared memory and publish it; returns why that was not possible, or ""."""
        try:
            pool = self._room.pool
            if pool is not None and sealed.total > INLINE_LIMIT:
                return self._put_in_pool(pool, entry, sealed)
            refusal = self._room.refusal(sealed.total)
            if not refusal:
                self._write(entry, sealed, b"m")
        except OSError as exc:
            if exc.errno not in FULL_ERRNOS:
                raise
            return f"the shared-memory filesystem is full ({megabytes(self._room.free_bytes())} free)"
        else:
            return refusal

    def _put_in_pool(self, pool: SegmentPool, entry: Entry, sealed: Sealed) -> str:
        """Write an object into a segment: an idle one, which needs no more memory, else a fresh one."""
        while True:
            try:
                claim = pool.claim(sealed.total)
                if claim is None:
                    refusal = self._room.refusal(sealed.total)
                    if refusal:
                        return refusal
                    claim = pool.create()
            except FileNotFoundError as exc:
                pool = self._pool_after(pool, exc)
                continue
            try:
                if claim.view is None:
                    refusal = self._room.reserve(claim.fd, sealed.total)
                    if refusal:
                        return refusal
                    sealed.write_to(claim.fd)
                else:
                    sealed.write_into(claim.view)
                claim.seal()
                replaced = self._entries.publish_claim(entry, claim)
                self._room.count(sealed.total if claim.is_fresh else 0, replaced)
            except SegmentLostError as exc:
                logger.debug("segment %s was taken by another process", exc)
            except FileNotFoundError as exc:
                pool = self._pool_after(pool, exc)
            else:
                return ""
            finally:
                claim.close()

    def _pool_after(self, gone: SegmentPool, exc: FileNotFoundError) -> SegmentPool:
        """Return the pool to use where one has vanished: a lender may end before the runs that use its memory."""
        if not self.is_alive():
            raise self._entries.gone() from exc
        if not gone.folder.is_removed():
            raise exc
        own = pool_of(Folder.open_private("pool", self._entries.open_main()))
        if own is None or own is gone:
            raise self._entries.gone() from exc
        self._room.pool = own
        return own

    def _write(self, entry: Entry, sealed: Sealed, place: bytes) -> None:
        """Write an object into the main folder (``m``) or the twin (``d``), and publish it."""
        entries = self._entries
        segment = Segment(entries.segments[place], entries.new_segment())
        temp = segment.name + ".tmp"
        try:
            entries.write_file(segment.folder, temp, sealed.write_to)
            if place == b"m" and not files.IS_WINDOWS:
                size, replaced = sealed.total, entries.publish_file(entry, segment.folder, temp)
            else:
                # The data is not in the folder of the entries, or (Windows) an entry that is mapped could not be
                # replaced: a segment of its own, and a stub that names it.
                stub = sealed.stub(place, segment.name)
                size, replaced = len(stub), entries.publish_stub(entry, segment, stub)
        except BaseException as exc:
            segment.folder.discard(temp)
            if isinstance(exc, FileNotFoundError) and not self.is_alive():
                raise entries.gone() from exc
            raise
        self._room.count(size, replaced)

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
        header, view = self._entries.open_object(key)
        return self._rebuild(key, header, view), self._entries.token_of(header)

    def hold(self, key: str) -> HeldObject:
        """Keep what is stored now readable, whatever is stored under the key later. Constant time: it is mapped, and
        nothing is rebuilt. UnknownKeyError where there is none.
        """
        return HeldObject(key, *self._entries.open_object(key))

    def _rebuild(self, key: str, header: Header, view: memoryview) -> Any:
        try:
            return rebuild(header, view)
        except StoreCorrupt as exc:
            raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
        except (MemoryError, RecursionError):
            raise
        except Exception as exc:
            raise self._unloadable(key, header, exc) from exc

    def restore(self, held: HeldObject, *, use_ram: bool = True) -> None:
        """Store a held object under its key again, unless it is still there. Raises what put_held raises."""
        info = self.info(held.key)
        if info is None or (info.digest, info.is_list) != (held.header.digest_text, held.is_list):
            self.put_held(held.key, held, use_ram=use_ram)

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

    # -- looking --

    def info(self, key: str) -> ObjectInfo | None:
        """Return what is known of a key's object without loading it, or None if there is none."""
        found = self._entries.read_header(key)
        if found is None:
            return None
        header, (folder, name), size = found
        entries = self._entries
        in_ram = self._in_ram and (folder is entries.objects or folder is entries.segments[b"m"])
        return ObjectInfo(
            "ram" if in_ram else "disk",
            size,
            header.data_length,
            bool(header.flags & FLAG_RECIPE),
            bool(header.flags & FLAG_LIST),
            header.digest_text,
            os.path.join(folder.path, name),
            header.created_ns,
            header.pid,
        )

    def has(self, key: str) -> bool:
        """Tell whether anything is stored under a key."""
        return self._entries.has(key)

    def list_keys(self) -> list[str]:
        """Return all keys, sorted. An object that is damaged is left out, with a warning in the log."""
        return self._entries.list_keys()

    def unknown(self, key: str) -> StoreError:
        """Return the error for a key that has no object: UnknownKeyError, or StoreClosed if the run is gone."""
        return self._entries.unknown(key)

    def idle_bytes(self) -> int:
        """Count the memory that waits to be written again."""
        pool = self._room.pool
        return 0 if pool is None else PoolState.of(pool.survey()).idle

    def usage(self) -> Usage:
        """Count what the run occupies now, in all processes."""
        entries = self._entries
        entries.open_main()
        survey = entries.objects.survey(self._in_ram)
        keys = survey.files
        if not keys:
            entries.check_alive()
        segment_bytes = entries.segments[b"m"].sizes(self._in_ram)[1]
        twin = entries.segments.get(b"d")
        disk_keys, disk_bytes = (0, 0) if twin is None else twin.sizes(False)
        if not self._in_ram:
            return Usage(0, 0, survey.total + segment_bytes, keys, 0, keys, self._disk_fallbacks, 0, 0)
        pool, linked = self._room.pool, dict(survey.linked)
        found = [] if pool is None else pool.survey()
        for one in found:
            # Replaced between the two looks.
            if one.state != "published":
                linked.pop(one.inode, None)
        _, held, idle = PoolState.of(found)
        ram_bytes = survey.unlinked + sum(linked.values()) + segment_bytes + held
        in_ram = keys - disk_keys
        return Usage(
            ram_bytes, self.ram_capacity, disk_bytes, keys, in_ram, disk_keys, self._disk_fallbacks, held, idle
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
        replaced = self._entries.delete(self._entries.of(key), token)
        if replaced is None:
            return False
        self._room.count(0, replaced)
        self._entries.refill_ballast()
        self._room.look_after()
        return True
