"""Files of the store: what is in them (the package's docstring has the table), how they are checked and written."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .errors import StoreCorrupt
from .files import INLINE_LIMIT, write_all
from .serializer import DeviceBytes, Serialized

FORMAT_VERSION = 2
MAGIC = b"DCOB"
KIND_OBJECT = 1
KIND_STUB = 2
FLAG_RECIPE = 1
FLAG_LIST = 2
HEADER = struct.Struct("<4sHHIIIIQQQQII16sQIHH32x")
HEADER_SIZE = 128
HEADER_CRC_AT = 12
TABLE_ROW = struct.Struct("<QQ")
STUB = struct.Struct("<c32sQ")
LENGTH = struct.Struct("<Q")

ALGORITHMS = {1: "xxh3", 2: "blake2b", 3: "unique"}
# Without xxhash: hashing more than this (at about 1 GB/s) would cost more than a missed cache entry is worth.
SLOW_HASH_LIMIT = 16 * 2**20
# A piece is hashed while it is in the processor's cache.
_COPY_PIECE = 256 * 1024
# A system call wants a larger one, which is as large as a disk's cache makes its pages.
_WRITE_PIECE = 512 * 1024
# From here on copying waits for memory, and hashing what was just copied is the cheaper order; for what fits into the
# processor's cache it is the other one (measured: a tenth each).
_COPY_FIRST = 8 * 2**20
PYTHON = sys.version_info[:2]


class Header(NamedTuple):
    """The first 128 bytes of a file, see the module's docstring."""

    magic: bytes
    version: int
    kind: int
    flags: int
    header_crc: int
    meta_crc: int
    buffer_count: int
    total: int
    stream_offset: int
    stream_length: int
    data_length: int
    key_length: int
    algorithm: int
    digest: bytes
    created_ns: int
    pid: int
    python_major: int
    python_minor: int

    @property
    def digest_text(self) -> str:
        return f"{ALGORITHMS.get(self.algorithm, 'unknown')}:{self.digest.hex()}"


class HeldObject(NamedTuple):
    """An object that stays readable although its key may have been given another one."""

    key: str
    header: Header
    view: memoryview

    @property
    def is_list(self) -> bool:
        """Whether ComfyUI hands its items to nodes one by one."""
        return bool(self.header.flags & FLAG_LIST)

    @property
    def content_id(self) -> str:
        """What identifies the content, as ``WorkflowContext.digest`` tells it."""
        return f"{self.header.digest_text}/items" if self.is_list else self.header.digest_text

    def with_digest(self, digest: str) -> HeldObject | None:
        """The same content under the digest that a process with another algorithm gave it; None where the digest is
        one of this object's own algorithm, and so another content's, or none at all.
        """
        name, _, text = digest.partition(":")
        algorithm = next((number for number, known in ALGORITHMS.items() if known == name), None)
        try:
            value = bytes.fromhex(text)
        except ValueError:
            return None
        if algorithm is None or algorithm == self.header.algorithm or len(value) != 16:
            return None
        return self._replace(header=self.header._replace(algorithm=algorithm, digest=value))


class _Origin(NamedTuple):
    """What a header says of the moment of saving."""

    created_ns: int
    pid: int
    python_major: int
    python_minor: int


def _here_and_now() -> _Origin:
    return _Origin(time.time_ns(), os.getpid(), *PYTHON)


def pack_header(
    kind: int,
    flags: int,
    meta: bytes,
    key_length: int,
    buffer_count: int,
    total: int,
    stream_length: int,
    data_length: int,
    digest: tuple[int, bytes],
    origin: _Origin | None = None,
) -> bytes:
    """Return the first 128 bytes of a file. ``meta`` is key and buffer table; origin None: this process, now."""
    header = bytearray(
        HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            kind,
            flags,
            0,
            zlib.crc32(meta),
            buffer_count,
            total,
            HEADER_SIZE + len(meta),
            stream_length,
            data_length,
            key_length,
            digest[0],
            digest[1],
            *(origin or _here_and_now()),
        )
    )
    struct.pack_into("<I", header, HEADER_CRC_AT, zlib.crc32(header))
    return bytes(header)


def pack_stub(
    key: bytes,
    place: bytes,
    segment: str,
    total: int,
    flags: int,
    data_length: int,
    digest: tuple[int, bytes],
    origin: _Origin | None = None,
) -> bytes:
    """Return the file that stands for an object in ``objects/`` when its data is in a segment.

    Args:
        place: ``d``: the segment is in the twin; ``m``: in the main folder's ``seg``.
        segment: its name, 32 hex digits.
        total: length of the object in it, in bytes.
    """
    body = STUB.pack(place, segment.encode(), total)
    length = HEADER_SIZE + len(key) + len(body)
    head = pack_header(KIND_STUB, flags, key, len(key), 0, length, len(body), data_length, digest, origin)
    return head + key + body


def stub_for(header: Header, key: bytes, place: bytes, segment: str) -> bytes:
    """Return the stub of an object that exists already, and whose data was copied into a segment."""
    origin = _Origin(header.created_ns, header.pid, header.python_major, header.python_minor)
    digest = header.algorithm, header.digest
    return pack_stub(key, place, segment, header.total, header.flags, header.data_length, digest, origin)


def parse_header(data: bytes | bytearray | memoryview, file_size: int) -> Header:
    """Read and check the first 128 bytes of a file.

    Raises:
        StoreCorrupt: if anything in them contradicts itself or the size of the file.
    """
    data = bytes(data[:HEADER_SIZE])
    if len(data) < HEADER_SIZE:
        raise StoreCorrupt(f"the file has {file_size} bytes, less than a header's {HEADER_SIZE}")
    header = Header._make(HEADER.unpack_from(data))
    if header.magic != MAGIC:
        raise StoreCorrupt(f"it begins with {header.magic!r}, not {MAGIC!r}")
    if header.version != FORMAT_VERSION:
        raise StoreCorrupt(f"its format version is {header.version}; this version reads {FORMAT_VERSION}")
    crc = zlib.crc32(bytes(4), zlib.crc32(data[:HEADER_CRC_AT]))
    if zlib.crc32(data[HEADER_CRC_AT + 4 : HEADER_SIZE], crc) != header.header_crc:
        raise StoreCorrupt("the checksum of its header does not match")
    meta_end = HEADER_SIZE + header.key_length + TABLE_ROW.size * header.buffer_count
    # Only a segment, which is never small, may be longer than what was written into it last.
    if header.total != file_size if file_size <= INLINE_LIMIT else header.total > file_size:
        raise StoreCorrupt(f"it should have {header.total} bytes and has {file_size}")
    if header.stream_offset != meta_end or meta_end + header.stream_length > header.total:
        raise StoreCorrupt("its parts lie outside the file")
    if header.kind not in (KIND_OBJECT, KIND_STUB):
        raise StoreCorrupt(f"its kind is {header.kind}")
    return header


def check_key(header: Header, view: memoryview, key_bytes: bytes) -> None:
    if zlib.crc32(view[HEADER_SIZE : header.stream_offset]) != header.meta_crc:
        raise StoreCorrupt("the checksum of its key and buffer table does not match")
    if view[HEADER_SIZE : HEADER_SIZE + header.key_length] != key_bytes:
        raise StoreCorrupt("it belongs to another key")


def buffers_of(header: Header, view: memoryview) -> list[memoryview]:
    """Return the out-of-band buffers as slices of the file, after checking that they lie in it."""
    buffers = []
    data_start = header.stream_offset + header.stream_length
    at = HEADER_SIZE + header.key_length
    for offset, length in TABLE_ROW.iter_unpack(view[at : header.stream_offset]):
        if length and (offset < data_start or offset + length > header.total):
            raise StoreCorrupt("one of its buffers lies outside the file")
        buffers.append(view[offset : offset + length])
    return buffers


def rebuild(header: Header, view: memoryview, unpickler: Callable[..., Any] = pickle.loads) -> Any:
    """Return the value of an object; its tensors and arrays lie in ``view``.

    Args:
        unpickler: called with the stream and ``buffers=``. The standard one is for what only this user can have
            written.

    Raises:
        StoreCorrupt: a buffer lies outside the file. Whatever unpickling raises.
    """
    stream = view[header.stream_offset : header.stream_offset + header.stream_length]
    return unpickler(stream, buffers=buffers_of(header, view))


class _Hasher:
    """The digest of one object: xxh3-128, blake2b-128 for what is small enough, else a value of its own."""

    __slots__ = ("_hash", "algorithm")

    def __init__(self, data_length: int) -> None:
        make = xxh3_factory()
        self._hash: Any = None
        if make is not None:
            self.algorithm, self._hash = 1, make()
        elif data_length <= SLOW_HASH_LIMIT:
            self.algorithm, self._hash = 2, hashlib.blake2b(digest_size=16)
        else:
            self.algorithm = 3

    def update(self, data: Any) -> None:
        if self._hash is not None:
            self._hash.update(data)

    def result(self) -> tuple[int, bytes]:
        return self.algorithm, os.urandom(16) if self._hash is None else self._hash.digest()


_xxh3_factory: Any = False


def xxh3_factory() -> Any:
    """Return xxhash's xxh3_128, or None where it is not installed. Looked up once."""
    global _xxh3_factory
    if _xxh3_factory is False:
        try:
            from xxhash import xxh3_128
        except ImportError:
            _xxh3_factory = None
        else:
            _xxh3_factory = xxh3_128
    return _xxh3_factory


def _start_hash(parts: Serialized, data_length: int) -> _Hasher:
    """Hash the stream, preceded by its length; the buffers follow in the same way."""
    hasher = _Hasher(data_length)
    if parts.canonical is not None:
        hasher.update(LENGTH.pack(len(parts.canonical)) + parts.canonical)
        return hasher
    hasher.update(LENGTH.pack(parts.stream_length))
    for chunk in parts.stream:
        hasher.update(chunk)
    return hasher


class _KnownDigest:
    """Stands in a hasher's place where the digest is known already."""

    __slots__ = ("_digest",)

    def __init__(self, digest: tuple[int, bytes]) -> None:
        self._digest = digest

    def update(self, data: Any) -> None:
        """Nothing has to be hashed."""

    def result(self) -> tuple[int, bytes]:
        return self._digest


class Sealed:
    """One object, laid out: knows the length of its file and how to write it.

    ``known_digest``: of content that was sealed before, and is copied here; None: it is hashed while it is written.
    """

    __slots__ = ("_flags", "_key", "_known_digest", "_offsets", "_parts", "data_length", "digest", "total")

    def __init__(
        self, parts: Serialized, key_bytes: bytes, flags: int, known_digest: tuple[int, bytes] | None = None
    ) -> None:
        self._parts = parts
        self._key = key_bytes
        self._flags = flags
        self._known_digest = known_digest
        # Set by write_to and by as_bytes.
        self.digest: tuple[int, bytes] = (3, bytes(16))
        end = HEADER_SIZE + len(key_bytes) + TABLE_ROW.size * len(parts.buffers) + parts.stream_length
        self.data_length = parts.stream_length
        self._offsets: list[int] = []
        for buffer in parts.buffers:
            length = buffer.nbytes
            align = 64 if length < INLINE_LIMIT else 4096
            start = -(-end // align) * align
            self._offsets.append(start)
            end = start + length
            self.data_length += length
        self.total = end

    @classmethod
    def copy_of(cls, held: HeldObject, key_bytes: bytes) -> Sealed:
        """The same content under another key, or in another place. Nothing is unpickled.

        Raises:
            StoreCorrupt: the object contradicts itself.
        """
        header, view = held.header, held.view
        stream = view[header.stream_offset : header.stream_offset + header.stream_length]
        parts = Serialized([stream], header.stream_length, buffers_of(header, view), None)
        return cls(parts, key_bytes, header.flags, (header.algorithm, header.digest))

    def _hasher(self) -> _Hasher | _KnownDigest:
        if self._known_digest is not None:
            return _KnownDigest(self._known_digest)
        return _start_hash(self._parts, self.data_length)

    def _meta(self) -> bytes:
        rows = zip(self._offsets, self._parts.buffers)  # noqa: B905 (Python 3.10, hot)
        return self._key + b"".join([TABLE_ROW.pack(start, buffer.nbytes) for start, buffer in rows])

    def _head(self, meta: bytes) -> bytes:
        count, length = len(self._offsets), self._parts.stream_length
        return pack_header(
            KIND_OBJECT,
            self._flags,
            meta,
            len(self._key),
            count,
            self.total,
            length,
            self.data_length,
            self.digest,
        )

    def stub(self, place: bytes, segment: str) -> bytes:
        """Return the file that stands for this object in ``objects/`` when its data is in a segment."""
        return pack_stub(self._key, place, segment, self.total, self._flags, self.data_length, self.digest)

    def write_to(self, fd: int) -> None:
        """Write the whole file. Peak memory beyond the value itself: one chunk.

        Raises:
            OSError: ENOSPC and the like; what was written until then is the caller's to remove.
        """
        if self.total > INLINE_LIMIT:
            self._write(lambda data, at: write_all(fd, data, at), None, _WRITE_PIECE)
            return
        parts, meta = self._parts, self._meta()
        hasher = self._hasher()
        pieces = [*parts.stream]
        at = HEADER_SIZE + len(meta) + parts.stream_length
        for start, buffer in zip(self._offsets, parts.buffers):  # noqa: B905 (Python 3.10, hot)
            pieces.append(bytes(start - at))
            pieces.extend(self._hashed(buffer, hasher, start, _COPY_PIECE))
            at = start + buffer.nbytes
        self.digest = hasher.result()
        write_all(fd, b"".join([self._head(meta), meta, *pieces]), 0)

    def write_into(self, view: memoryview) -> None:
        """Write the whole file into memory that is at least as long, what is behind it stays."""

        def store(data: Any, at: int) -> None:
            view[at : at + len(data)] = data

        self._write(store, view, _COPY_PIECE)

    def _write(self, put: Callable[[Any, int], None], view: memoryview | None, piece: int) -> None:
        """Hand all parts and their places to ``put``, buffers in pieces of ``piece`` bytes; ``view`` is the memory it
        writes to, if it is memory.
        """
        parts, meta = self._parts, self._meta()
        hasher = self._hasher()
        put(meta, HEADER_SIZE)
        at = HEADER_SIZE + len(meta)
        for chunk in parts.stream:
            put(chunk, at)
            at += len(chunk)
        for start, buffer in zip(self._offsets, parts.buffers):  # noqa: B905 (Python 3.10, hot)
            if view is not None and isinstance(buffer, DeviceBytes):
                # One copy instead of two.
                hasher.update(LENGTH.pack(buffer.nbytes))
                for fetched in buffer.copy_to(view[start : start + buffer.nbytes]):
                    hasher.update(fetched)
                continue
            at = start
            for chunk in self._hashed(buffer, hasher, start, piece):
                put(chunk, at)
                at += len(chunk)
        self.digest = hasher.result()
        # Last, so that even a file that somebody renamed by hand is not taken for a whole one.
        put(self._head(meta), 0)

    @staticmethod
    def _hashed(buffer: Any, hasher: _Hasher | _KnownDigest, start: int, piece: int) -> Iterator[Any]:
        """Yield the bytes of a buffer that begins at ``start`` in the file, in pieces that begin at multiples of
        ``piece`` there: a disk's cache then has large pages for them, which are read (and mapped) in half the time.
        """
        hasher.update(LENGTH.pack(buffer.nbytes))
        if isinstance(buffer, DeviceBytes):
            chunks = buffer.chunks()
        else:
            first = piece - start % piece
            ends = [*range(first, buffer.nbytes, piece), buffer.nbytes]
            chunks = (buffer[at:end] for at, end in zip([0, *ends], ends))  # noqa: B905 (Python 3.10, hot)
        if buffer.nbytes >= _COPY_FIRST:
            for chunk in chunks:
                yield chunk
                # By now it was written, and is still in the processor's cache.
                hasher.update(chunk)
            return
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk
