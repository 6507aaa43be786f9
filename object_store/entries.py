"""Entries: one file for each key, read safely and replaced in one step.

An entry is the whole truth about its key. It is the object itself, or a second link to a segment in shared memory, or a
stub that names a segment on disk. Everything that changes one, by whatever process, is in this file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import files
from .errors import StoreClosed, StoreCorrupt, StoreError, StoreInsecure, UnknownKeyError
from .file_format import HEADER_SIZE, KIND_OBJECT, KIND_STUB, STUB, Header, check_key, parse_header
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
from .runs import BALLAST, RUN_ID
from .segments import Claim

logger = logging.getLogger("discomfort.object_store")


class Entry(NamedTuple):
    """The key of an object, as its file has it."""

    # The key, encoded.
    key: bytes
    # Of the file in ``objects/``.
    name: str


class Segment(NamedTuple):
    """A file that a stub names."""

    folder: Folder
    name: str

    def discard(self) -> None:
        self.folder.discard(self.name)


class Entries:
    """The entries of one run. All methods may be called from any thread and process at once."""

    def __init__(self, run_id: str, main: Folder, twin: Folder | None, has_leases: bool) -> None:
        """Open the folders of a run.

        Args:
            main: the run's folder.
            twin: its folder on disk, if it has one beside.
            has_leases: whether large entries may be segments that are written again, so that who reads one locks it.
        """
        self.run_id = run_id
        self.objects = Folder.open_private("objects", main)
        # By the letter that stubs say: ``m``: in the main folder, ``d``: in the twin.
        self.segments: dict[bytes, Folder] = {b"m": Folder.open_private("seg", main)}
        if twin is not None:
            self.segments[b"d"] = Folder.open_private("seg", twin)
        self._main: Folder | None = main
        self._has_leases = has_leases
        self._names: dict[str, Entry] = {}
        self._fd_limit = fd_limit()
        self._ballast_is_used = False
        self.become_child()

    def become_child(self) -> None:
        """Start anew in a forked child: it shares the files, but neither the locks nor the names of new segments."""
        self._thread_lock = threading.Lock()
        self._publish_lock: Lock | None = None
        self._prefix = os.urandom(12).hex()
        self._counter = 0

    def close(self) -> Folder | None:
        """Let go of the folders; returns the run's, the first time. What comes later meets StoreClosed.

        Descriptors close when the operations that use them at this moment end.
        """
        with self._thread_lock:
            main, self._main = self._main, None
        return main

    def drop_folders(self) -> None:
        """The second half of ``close``, after the owner has removed what is in them."""
        closed: Any = ClosedFolder(self.run_id)
        self.objects = closed
        self.segments = dict.fromkeys(self.segments, closed)
        self._publish_lock = None

    @property
    def is_closed(self) -> bool:
        return self._main is None

    def is_alive(self) -> bool:
        """Tell whether the run still exists: it is neither closed here nor removed by its owner."""
        main = self._main
        return main is not None and main.exists("run.json")

    def open_main(self) -> Folder:
        """Return the run's folder; StoreClosed where it was let go of."""
        main = self._main
        if main is None:
            raise StoreClosed(f"the context {self.run_id} has been shut down")
        return main

    def check_alive(self) -> None:
        """Called where nothing was found: is there nothing, or no run any more?"""
        if not self.is_alive():
            raise self.gone()

    def gone(self) -> StoreClosed:
        return StoreClosed(f"the context {self.run_id} no longer exists: its owner has shut it down")

    def of(self, key: str) -> Entry:
        """Return what a key's entry is called. No key can be a path: the name is its hash."""
        found = self._names.get(key)
        if found is None:
            if not isinstance(key, str):
                raise TypeError(f"a unique_id is a string, not {type(key).__name__}: {key!r}")
            raw = key.encode("utf-8", "surrogatepass")
            found = Entry(raw, hashlib.blake2b(raw, digest_size=16).hexdigest())
            if len(self._names) >= 4096:
                self._names.clear()
            self._names[key] = found
        return found

    # -- replacing --

    def new_segment(self) -> str:
        """Return a name for a segment that no process has used."""
        with self._thread_lock:
            self._counter += 1
            return f"{self._prefix}{self._counter & 0xFFFFFFFF:08x}"

    def write_file(self, folder: Folder, temp: str, write: Callable[[int], None]) -> None:
        """Make the new file ``temp`` and let ``write`` fill it."""
        fd = folder.open(temp, CREATE)
        try:
            if not files.IS_WINDOWS:
                # Tells reap that somebody is at work here.
                lock_fd(fd, wait=False)
            write(fd)
        finally:
            os.close(fd)

    def publish_file(self, entry: Entry, folder: Folder, temp: str, only_if: os.stat_result | None = None) -> int:
        """Make a written file the entry.

        Args:
            only_if: the file that the entry still has to be; FileNotFoundError if it is another by now.

        Returns:
            Length of the file that was the entry before, in bytes; 0 if there was none.
        """
        return self._replace(entry, lambda: folder.replace(temp, self.objects, entry.name), only_if)

    def publish_claim(self, entry: Entry, claim: Claim) -> int:
        """Make a sealed segment of shared memory the entry; returns what ``publish_file`` returns."""
        return self._replace(entry, lambda: claim.publish(self.objects, entry.name))

    def publish_stub(self, entry: Entry, segment: Segment, stub: bytes, only_if: os.stat_result | None = None) -> int:
        """Make the written ``<segment>.tmp`` a segment, and the stub that names it the entry.

        Args, returns: see publish_file.
        """
        folder, temp = self.segments[b"m"], segment.name + ".stub.tmp"

        def publish() -> None:
            segment.folder.replace(segment.name + ".tmp", segment.folder, segment.name)
            folder.replace(temp, self.objects, entry.name)

        try:
            self._write_stub_file(folder, temp, stub)
            return self._replace(entry, publish, only_if)
        except BaseException:
            # Also Ctrl-C at any point: the segment stays if its stub made it.
            folder.discard(temp)
            target = self._peek(entry)[1]
            if target is None or target.name != segment.name:
                segment.discard()
            raise

    def _replace(self, entry: Entry, publish: Callable[[], None], only_if: os.stat_result | None = None) -> int:
        """Let ``publish`` replace the entry, and remove the segment that the old one named.

        Under a lock across processes: two writers that both saw the same old stub would leave the loser's segment
        behind, and reap must not meet a segment whose stub is about to appear.
        """
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                if only_if is not None and not os.path.samestat(self.objects.stat(entry.name), only_if):
                    raise FileNotFoundError(errno.ENOENT, "the entry was replaced meanwhile")
                size, segment = self._peek(entry)
                publish()
            finally:
                lock.release()
        if segment is not None:
            segment.discard()
        return size

    def delete(self, entry: Entry, token: object = None) -> int | None:
        """Remove an entry and what it names.

        Args:
            token: from ``token_of``: remove only that value, not one that was stored since.

        Returns:
            Length of the file that was the entry; None where nothing was removed.
        """
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                if token is not None and self._stored_token(entry) != token:
                    return None
                size, segment = self._peek(entry)
                self.objects.unlink(entry.name)
            except FileNotFoundError:
                self.check_alive()
                return None
            finally:
                lock.release()
        if segment is not None:
            segment.discard()
        return size

    @staticmethod
    def token_of(header: Header) -> object:
        """What tells one value of a key from the next."""
        return header.created_ns, header.pid, header.digest

    def _stored_token(self, entry: Entry) -> object:
        folder, file_name = self._stub_target(entry.name) or (self.objects, entry.name)
        fd, status = self._open_checked(folder, file_name)
        try:
            return self.token_of(parse_header(read_at(fd, HEADER_SIZE, 0), status.st_size))
        finally:
            os.close(fd)

    def _lock_publishing(self) -> Lock:
        """Take the publish lock; the caller holds the thread lock, because threads share the descriptor."""
        main = self.open_main()
        if self._publish_lock is None:
            try:
                self._publish_lock = Lock(main.open("publish.lock", os.O_RDWR | NOFOLLOW | BINARY))
            except FileNotFoundError as exc:
                raise self.gone() from exc
        self._publish_lock.acquire(wait=True)
        return self._publish_lock

    def _peek(self, entry: Entry) -> tuple[int, Segment | None]:
        """Return the size of the present entry (0: none) and the segment that it names, if it is a stub."""
        try:
            size = self.objects.stat(entry.name).st_size
        except FileNotFoundError:
            return 0, None
        if size != HEADER_SIZE + len(entry.key) + STUB.size:
            # All stubs of a key are this long, so this is none.
            return size, None
        try:
            return size, self._stub_target(entry.name)
        except (OSError, StoreError):
            # Damaged, or something else was put there: it is only being replaced.
            return size, None

    def _stub_target(self, name: str) -> Segment | None:
        fd = self.objects.open(name, READ)
        try:
            status = os.fstat(fd)
            self.check_file(status, name)
            header = parse_header(read_at(fd, HEADER_SIZE, 0), status.st_size)
            if header.kind != KIND_STUB:
                # Not read any further: it may be large.
                return None
            raw = memoryview(read_at(fd, header.total, 0))
        finally:
            os.close(fd)
        return self.segment_of(header, raw)[0]

    def segment_of(self, header: Header, view: memoryview) -> tuple[Segment, int]:
        """Return what a stub names, and its length. Only a bare name in a folder known beforehand."""
        if header.stream_length != STUB.size:
            raise StoreCorrupt("it is a stub of a wrong length")
        place, raw, total = STUB.unpack_from(view, header.stream_offset)
        name = raw.decode("ascii", "replace")
        if place not in self.segments or not RUN_ID.fullmatch(name):
            raise StoreCorrupt("it is a stub that names no segment of this run")
        return Segment(self.segments[place], name), total

    # -- reading --

    def open_object(self, key: str) -> tuple[Header, memoryview]:
        """Return a key's object, checked: header and the bytes of the whole file, private to the caller.

        Raises:
            UnknownKeyError, StoreClosed, StoreCorrupt, StoreInsecure.
        """
        self.open_main()
        entry = self.of(key)
        deadline = 0.0
        while True:
            try:
                header, view = self._open_file(self.objects, entry.name, entry.key)
                if header.kind == KIND_OBJECT:
                    return header, view
                segment, _ = self.segment_of(header, view)
            except FileNotFoundError:
                raise self.unknown(key) from None
            except StoreCorrupt as exc:
                raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
            try:
                return self._open_file(segment.folder, segment.name, entry.key)
            except FileNotFoundError:
                # Replaced between reading the stub and opening the segment: the entry says something new by now.
                deadline = deadline or time.monotonic() + 5
                if time.monotonic() > deadline:
                    raise StoreCorrupt(f"the object stored as {key!r} names a segment that is gone") from None
                time.sleep(0.0005)
            except StoreCorrupt as exc:
                raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc

    def _open_file(self, folder: Folder, name: str, key: bytes) -> tuple[Header, memoryview]:
        if folder is self.objects:
            fd, status = self.open_leased(name)
        else:
            fd, status = self._open_checked(folder, name)
        try:
            self.check_file(status, name)
            if self._has_leases and status.st_size > INLINE_LIMIT:
                # Says when it was used last, to whoever looks for what could move to disk.
                os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))
            view = view_file(fd, status.st_size, self._fd_limit)
        finally:
            os.close(fd)
        header = parse_header(view, status.st_size)
        check_key(header, view, key)
        return header, view

    def open_leased(self, name: str) -> tuple[int, os.stat_result]:
        """Open an entry. A segment is not written again while the descriptor, or a mapping made with it, is open.

        Returns:
            The descriptor, and what the file is.
        """
        deadline = 0.0
        while True:
            fd, status = self._open_checked(self.objects, name)
            try:
                # (A segment that was just given back has length 0, and no entry has.)
                if not self._has_leases or 0 < status.st_size <= INLINE_LIMIT or not stat.S_ISREG(status.st_mode):
                    return fd, status
                # Between opening and locking it may have been replaced, and written again for another key. If it was
                # written again for this one, that is the value now; a segment's length never changes, but to 0.
                if lock_fd(fd, wait=False, shared=True) and os.path.samestat(self.objects.stat(name), status):
                    return fd, status
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            deadline = deadline or time.monotonic() + 5
            if time.monotonic() > deadline:
                path = os.path.join(self.objects.path, name)
                raise StoreError(
                    f"{path} has been locked by another process for 5 s, which no writer of this store does"
                )
            time.sleep(0.0002)

    def _open_checked(self, folder: Folder, name: str) -> tuple[int, os.stat_result]:
        try:
            fd = folder.open(name, READ)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                path = os.path.join(folder.path, name)
                raise StoreInsecure(errno.EPERM, f"{path} is a link or a device, not an object; not read") from exc
            if exc.errno == errno.EPERM:
                # What O_NOATIME is answered with for another user's file.
                path = os.path.join(folder.path, name)
                raise StoreInsecure(errno.EPERM, f"{path} belongs to another user; not read") from exc
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise OSError(
                    exc.errno,
                    f"no file descriptor is left to open {name}: every large value that is held uses one. Drop values, "
                    f"or raise the limit (ulimit -n)",
                ) from exc
            raise
        return fd, os.fstat(fd)

    def check_file(self, status: os.stat_result, name: str) -> None:
        """Refuse what could have been put there by somebody else."""
        if not stat.S_ISREG(status.st_mode):
            raise StoreInsecure(errno.EPERM, f"{name} of run {self.run_id} is not a regular file; not read")
        if not files.IS_WINDOWS and status.st_uid != os.geteuid():
            raise StoreInsecure(errno.EPERM, f"{name} of run {self.run_id} belongs to user {status.st_uid}; not read")

    def read_header(self, key: str) -> tuple[Header, Segment, int] | None:
        """Return what is known of a key's object without reading it; None where there is none.

        Returns:
            Header of the entry, the file that holds the object, and the object's length in bytes.
        """
        self.open_main()
        entry = self.of(key)
        try:
            fd, status = self.open_leased(entry.name)
        except FileNotFoundError:
            self.check_alive()
            return None
        try:
            self.check_file(status, entry.name)
            view = memoryview(read_at(fd, HEADER_SIZE + len(entry.key) + STUB.size, 0))
            header = parse_header(view, status.st_size)
            if header.kind == KIND_STUB:
                return header, *self.segment_of(header, view)
            return header, Segment(self.objects, entry.name), header.total
        except StoreCorrupt as exc:
            raise StoreCorrupt(f"the object stored as {key!r} is damaged: {exc}") from exc
        finally:
            os.close(fd)

    def has(self, key: str) -> bool:
        self.open_main()
        if self.objects.exists(self.of(key).name):
            return True
        self.check_alive()
        return False

    def list_keys(self) -> list[str]:
        """Return all keys, sorted. An object that is damaged is left out, with a warning in the log."""
        self.open_main()
        keys = []
        for name in self.objects.names():
            try:
                keys.append(self._key_of(name))
            except FileNotFoundError:
                continue
            except (OSError, StoreError) as exc:
                logger.warning("%s in %s is no object: %s", name, self.objects.path, exc)
        if not keys:
            self.check_alive()
        return sorted(keys)

    def _key_of(self, name: str) -> str:
        fd, status = self.open_leased(name)
        try:
            self.check_file(status, name)
            raw = read_at(fd, 1024, 0)
            header = parse_header(raw, status.st_size)
            end = HEADER_SIZE + header.key_length
            if end > len(raw):
                raw = read_at(fd, end, 0)
        finally:
            os.close(fd)
        return raw[HEADER_SIZE:end].decode("utf-8", "surrogatepass")

    def unknown(self, key: str) -> StoreError:
        """Return the error for a key that has no object: UnknownKeyError, or StoreClosed if the run is gone."""
        if not self.is_alive():
            return self.gone()
        keys = self.list_keys()
        shown = ", ".join(repr(other) for other in keys[:50]) + (", ..." if len(keys) > 50 else "")
        return UnknownKeyError(f"nothing is stored as {key!r} in context {self.run_id}; stored are: {shown or 'none'}")

    # -- where memory is full --

    def _write_stub_file(self, folder: Folder, temp: str, stub: bytes) -> None:
        """Write a stub; when not even that fits into memory, give up ballast for it, page by page."""
        while True:
            try:
                self.write_file(folder, temp, lambda fd: write_all(fd, stub, 0))
            except OSError as exc:
                folder.discard(temp)
                if exc.errno not in FULL_ERRNOS or not self._release_ballast():
                    raise
            else:
                return

    def _release_ballast(self) -> bool:
        """Give up a part of the memory kept in reserve; False if none is left."""
        try:
            fd = self.open_main().open("ballast", os.O_RDWR | NOFOLLOW | BINARY)
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

    def refill_ballast(self) -> None:
        """Put the reserve back, where it was used and there is room again."""
        if not self._ballast_is_used or self.objects.free_bytes() < 2 * BALLAST:
            return
        fd = self.open_main().open("ballast", os.O_RDWR | NOFOLLOW | BINARY)
        try:
            write_all(fd, bytes(BALLAST), 0)
            self._ballast_is_used = False
        except OSError as exc:
            logger.debug("the ballast cannot be refilled yet: %s", exc)
        finally:
            os.close(fd)

    # -- what killed writers left --

    def reap(self) -> None:
        """Remove what writers that were killed left: unfinished files, and segments that no stub names."""
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                named = self._named_segments() if any(self._segment_files()) else set()
                for folder, name in self._segment_files():
                    if name.endswith(".tmp"):
                        if folder.is_abandoned(name):
                            folder.discard(name)
                    elif name not in named:
                        folder.discard(name)
            finally:
                lock.release()

    def _segment_files(self) -> Iterator[tuple[Folder, str]]:
        for folder in self.segments.values():
            for name in folder.names():
                yield folder, name

    def _named_segments(self) -> set[str]:
        targets = set()
        for name in self.objects.names():
            try:
                target = self._stub_target(name)
            except (OSError, StoreError):
                continue
            if target is not None:
                targets.add(target.name)
        return targets
