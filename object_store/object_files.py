"""Objects outside of any run: each in a file of its own that is whole or not there, and survives a power cut.

Such a file is the object's own (``file_format.py``; its key is the one that it was held under) and 20 bytes more::

    4   b"DCX3" (xxh3-128) or b"DCB2" (blake2b-128, where this Python has no xxhash)
    16  checksum of all that stands before these 20 bytes

The digest in an object's header identifies the content, but of small plain data it is not the bytes' own; the checksum
is, so that a byte that the disk lost or changed is found before anything is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from .errors import StoreCorrupt, StoreInsecure
from .file_format import HEADER_SIZE, KIND_OBJECT, HeldObject, check_key, parse_header, xxh3_factory
from .files import CREATE, IS_WINDOWS, READ, Folder, fd_limit, view_file, write_all

TRAILER_SIZE = 20
# A piece is hashed while it is in the processor's cache.
_PIECE = 1024 * 1024


def write_object(folder: Folder, name: str, held: HeldObject) -> int:
    """Write an object into a file; it appears under its name only when all of it is on the disk.

    Its name in the folder is durable after ``folder.sync()``: one for all objects that are written together. Only one
    process may write to the folder. Blocks for as long as the disk takes.

    Returns:
        Bytes of the file.

    Raises:
        OSError: the disk refuses; what was there under the name still is.
    """
    temp = f"{name}.tmp"
    folder.discard(temp)  # of a writer that was killed
    total = held.header.total
    kind, checksum = _checksum(None)
    try:
        fd = folder.open(temp, CREATE)
        try:
            for start in range(0, total, _PIECE):
                piece = held.view[start : min(start + _PIECE, total)]
                write_all(fd, piece, start)
                checksum.update(piece)
            write_all(fd, kind + checksum.digest(), total)
            os.fsync(fd)
        finally:
            os.close(fd)
        folder.replace(temp, folder, name)
    except BaseException:
        folder.discard(temp)
        raise
    return total + TRAILER_SIZE


def read_object(folder: Folder, name: str) -> HeldObject:
    """Read an object's file: mapped privately, so that what is made of it may be written into.

    Raises:
        FileNotFoundError: there is none.
        StoreCorrupt: it is not what was written.
        StoreInsecure: it is no regular file, or of another user, or another user may write to it.
    """
    path = os.path.join(folder.path, name)
    fd = folder.open(name, READ)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise StoreInsecure(f"{path} is not a regular file; nothing in it is read")
        if not IS_WINDOWS and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
            raise StoreInsecure(f"{path} is, or can be written by, another user's; nothing in it is read")
        size = status.st_size - TRAILER_SIZE
        if size < HEADER_SIZE:
            raise StoreCorrupt(f"{path} is damaged: it has only {status.st_size} bytes")
        view = view_file(fd, status.st_size, fd_limit())
    finally:
        os.close(fd)
    trailer = bytes(view[size:])
    kind, checksum = _checksum(trailer[:4])
    for start in range(0, size, _PIECE):
        checksum.update(view[start : min(start + _PIECE, size)])
    if kind != trailer[:4] or checksum.digest() != trailer[4:]:
        raise StoreCorrupt(f"{path} is damaged: its checksum does not match what is in it")
    try:
        header = parse_header(view, size)
        key = bytes(view[HEADER_SIZE : HEADER_SIZE + header.key_length])
        check_key(header, view, key)
        if header.kind != KIND_OBJECT or header.total != size:
            raise StoreCorrupt("it holds no object")
    except StoreCorrupt as exc:
        raise StoreCorrupt(f"{path} is damaged: {exc}") from exc
    return HeldObject(key.decode("utf-8", "surrogatepass"), header, view[:size])


def _checksum(kind: bytes | None) -> tuple[bytes, Any]:
    """(kind, hash) for a file of that kind; None: for a new one."""
    factory = xxh3_factory()
    if kind == b"DCB2" or (kind is None and factory is None):
        return b"DCB2", hashlib.blake2b(digest_size=16)
    if factory is None:
        raise StoreCorrupt("to check this file the package xxhash is needed: pip install xxhash")
    return b"DCX3", factory()
