"""Sealed objects of one run: written once, published whole, read by any process of the same user without a copy.

The model is Plasma's (create, seal, get, release, delete), without a server. An object is a file; writing it and
renaming it into place is "create, seal"; mapping it privately is "get"; dropping the last tensor that lies in the
mapping is "release". Shared memory comes first, a disk folder of the same format stands behind it. The files, not
a process, are the truth: nothing has to run, and a killed process leaves nothing that is half written.

Folders
-------
::

    <main root>/<name>-<uid>/run-<32 hex>/     0700, owner checked, never through a symbolic link
        owner.lock      the owner holds an exclusive flock on it for life; pid and start time inside are for humans
        run.json        {"format", "run_id", "disk_path", "ram_capacity", ...}: what another process needs to attach
        publish.lock    flock held for the microseconds in which an entry is replaced or deleted
        ballast         memory kept in reserve, given up page by page so that entries can be written when it is full
        objects/<name>  the key's entry: an object file, or a stub that names a segment
        seg/            files being written (``<32 hex>.tmp``, flock held by the writer), and segments
    <disk root>/<name>-<uid>/run-<same id>/    the twin on disk: owner.lock and seg/

The main root is the shared-memory filesystem (``/dev/shm``); where there is none, the disk root takes its place and
there is no twin. An entry's name is the blake2b-128 of the key in hex, so that no key can be a path; the key itself
is in the file. One directory entry is the whole truth about a key, also when its data is on disk.

File format (version 1, little endian)
--------------------------------------
::

    offset size
       0     4   magic b"DCOB"
       4     2   format version, 1
       6     2   kind: 1 object, 2 stub
       8     4   flags: bit 0 set = the value is a recipe (pass_by "ref")
      12     4   CRC-32 of these 128 bytes with this field 0
      16     4   CRC-32 of key and buffer table
      20     4   number of out-of-band buffers, n
      24     8   length of the whole file
      32     8   offset of the pickle stream = 128 + key length + 16 n
      40     8   length of the pickle stream
      48     8   bytes of data: pickle stream and buffers, without padding
      56     4   length of the key
      60     4   digest algorithm: 1 xxh3-128, 2 blake2b-128, 3 unique (no hash was taken; equals nothing else)
      64    16   digest (stub: of the object it stands for)
      80     8   time of saving, nanoseconds since the epoch
      88     4   pid of the writer
      92     4   Python version of the writer, major and minor as 16 bits each
      96    32   zero
     128         key (UTF-8, lone surrogates kept)
     ...         buffer table: n times (offset u64, length u64)
     ...         pickle stream, protocol 5
     ...         buffers: aligned to 64 below 64 KiB, else to 4096; an empty one has offset 0

A stub's "pickle stream" is 41 bytes: ``d`` (segment in the twin) or ``m`` (in the main folder), the segment's 32
hex digits, and its file length as u64. A reader checks everything above before it unpickles anything.

Files up to 64 KiB are read, larger ones are mapped ``MAP_PRIVATE``: the receiver may write into what it got, pays
only for the pages it writes, and never changes what is stored. An overwritten or deleted object lives on for those
who have it mapped, because a published file is never written again, only replaced.

What may be saved
-----------------
Anything pickle or cloudpickle can handle. The storage of a ``torch.Tensor`` goes out of band, once per storage, so
that views still share memory after loading. A tensor that uses less than half of its storage is stored alone, unless
the whole storage was met before it in the same value; the sharing between two such small views ends. Tensors on other
devices are stored from, and come back on, the CPU. Conjugate and negative views are resolved, a non-leaf tensor comes
back without history. NumPy arrays go out of band by their own means. Values that need cloudpickle (lambdas, classes of
``__main__``) need it on both sides.

The digest covers pickle stream and buffers. Equal content has an equal digest in every process, as long as it is
plain data, tensors and arrays, and all writers have xxhash. Sets, functions, and strings that are one object here
but two elsewhere beside tensors may yield different digests of equal values: harmless, a cache misses.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import mmap
import os
import pickle
import re
import stat
import struct
import sys
import threading
import time
import types
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("discomfort.object_store")

# --- errors -----------------------------------------------------------------------------------------------------
#
# StoreError
#  +-- StoreClosed           the store was shut down, here or by its owner
#  +-- StoreCorrupt          a file is not what the format says
#  +-- StoreFull             (OSError ENOSPC) neither memory nor disk can hold the object
#  +-- StoreInsecure         (PermissionError) a folder or file could have been written by somebody else
#  +-- StoreUnserializable   (TypeError) the value cannot be pickled
#  +-- StoreUnloadable       the object is whole, but this process cannot rebuild it
#  +-- UnknownKeyError       (KeyError) no such key


class StoreError(Exception):
    """Base of everything the store raises on purpose."""


class StoreClosed(StoreError, RuntimeError):
    """The store was shut down, in this process or by its owner."""


class StoreCorrupt(StoreError):
    """A file of the store is not what the format says."""


class StoreFull(StoreError, OSError):
    """Neither shared memory nor disk can hold the object; the key's previous value is still there."""


class StoreInsecure(StoreError, PermissionError):
    """A folder or file could have been written by another user, so nothing in it is read."""


class StoreUnserializable(StoreError, TypeError):
    """The value cannot be pickled."""


class StoreUnloadable(StoreError):
    """The object is whole, but this process cannot rebuild it (a class or a package is missing)."""


class UnknownKeyError(StoreError, KeyError):
    """No object is stored under the key. Unlike a bare KeyError it prints as a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


# --- constants --------------------------------------------------------------------------------------------------

FORMAT_VERSION = 1
_MAGIC = b"DCOB"
_KIND_OBJECT = 1
_KIND_STUB = 2
_FLAG_RECIPE = 1
_HEADER = struct.Struct("<4sHHIIIIQQQQII16sQIHH32x")
_HEADER_SIZE = 128
_HEADER_CRC_AT = 12
_TABLE_ROW = struct.Struct("<QQ")
_STUB = struct.Struct("<c32sQ")
_LENGTH = struct.Struct("<Q")

# Up to here a file is read, above it is mapped: a mapping costs a file descriptor and several page faults.
INLINE_LIMIT = 64 * 1024
# Smaller buffers stay in the pickle stream, where they cost a copy of at most this much.
_IN_BAND_LIMIT = 4096
# A chunk is hashed and then written while it is still in the processor's cache.
_CHUNK = 512 * 1024
# Without xxhash: hashing more than this (at about 1 GB/s) would cost more than a missed cache entry is worth.
_SLOW_HASH_LIMIT = 16 * 2**20
_BALLAST = 2**20
# RAM that has to stay free for everybody else when a large object is put into shared memory.
_RAM_RESERVE = 128 * 2**20
_LARGE = 16 * 2**20

_ALGORITHMS = {1: "xxh3", 2: "blake2b", 3: "unique"}
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG})
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RUN_FOLDER = re.compile(r"(run|\.new)-[0-9a-f]{32}")

_IS_WINDOWS = sys.platform == "win32"
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# O_NONBLOCK: opening a FIFO that somebody put in an entry's place must not hang; it means nothing for a file.
_READ = os.O_RDONLY | _NOFOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY

_PYTHON = sys.version_info[:2]
_F = TypeVar("_F", bound=Callable[..., Any])


# --- what all copies of this package in one process share ---------------------------------------------------------

SHARED_NAME = "_discomfort_shared_v1"


def shared_module() -> types.ModuleType:
    """Return the one module that every copy of this package in the process shares.

    ComfyUI may load the package as ``custom_nodes.discomfort`` or by its path while a script has it as
    ``discomfort``: three sets of module globals. What has to be one per process (the registry, and the functions
    that pickle streams name) therefore hangs in ``sys.modules`` under a fixed name.
    """
    return sys.modules.setdefault(SHARED_NAME, types.ModuleType(SHARED_NAME))


def _shared(function: _F) -> _F:
    """Decorator: pickle the function under the shared module's name, whatever this module is called here."""
    function.__module__ = SHARED_NAME
    function.__qualname__ = function.__name__
    shared: _F = vars(shared_module()).setdefault(function.__name__, function)
    return shared


# --- rebuilding tensors -------------------------------------------------------------------------------------------


@_shared
def rebuild_storage(buffer: Any) -> Any:
    """Return an untyped torch storage over ``buffer`` (writable bytes), without a copy. Called by unpickling."""
    import torch

    if memoryview(buffer).nbytes == 0:
        return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


@_shared
def rebuild_same(value: Any) -> Any:
    """Return ``value``: what a storage that several objects share unpickles to. Called by unpickling."""
    return value


@_shared
def rebuild_typed_storage(storage: Any, dtype: str) -> Any:
    """Return a TypedStorage over an untyped one. Called by unpickling."""
    import torch

    typed: Any = torch.storage.TypedStorage
    return typed(wrap_storage=storage, dtype=getattr(torch, dtype), _internal=True)


@_shared
def rebuild_tensor(
    storage: Any, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool
) -> Any:
    """Return a CPU tensor over ``storage`` (None where it has no elements). Called by unpickling.

    ComfyUI runs its nodes in inference mode. A tensor made there could never be used with autograd, so it is made
    outside; in-place operations on it work in both modes.
    """
    import torch

    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return rebuild_tensor(storage, dtype, offset, shape, stride, requires_grad)
    kind = getattr(torch, dtype)
    if storage is None:
        tensor = torch.empty_strided(shape, stride, dtype=kind, device="cpu")
    else:
        tensor = torch.empty(0, dtype=kind, device="cpu")
        tensor.set_(storage, offset, shape, stride)
    return tensor.requires_grad_() if requires_grad else tensor


@_shared
def rebuild_meta_tensor(dtype: str, shape: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool) -> Any:
    """Return a tensor on the meta device: a shape without data. Called by unpickling."""
    import torch

    kind = getattr(torch, dtype)
    return torch.empty_strided(shape, stride, dtype=kind, device="meta", requires_grad=requires_grad)


# --- serializing --------------------------------------------------------------------------------------------------


class _StorageRef:
    """Stands for one storage (or one range of it) while one value is pickled; pickle's memo knows it by identity."""

    __slots__ = ("length", "start", "storage")

    def __init__(self, storage: Any, start: int, length: int) -> None:
        # Kept alive until pickling ends, or its address could be reused by another storage.
        self.storage = storage
        self.start = start
        self.length = length


class _DeviceBytes:
    """The bytes of a storage that is not in the CPU's memory, fetched piece by piece while they are written."""

    __slots__ = ("nbytes", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        # uint8, one-dimensional, contiguous.
        self.tensor = tensor
        self.nbytes = tensor.numel()

    def chunks(self) -> Iterator[memoryview]:
        for start in range(0, self.nbytes, 8 * 2**20):
            piece = self.tensor[start : start + 8 * 2**20].cpu().numpy().data
            for at in range(0, len(piece), _CHUNK):
                yield piece[at : at + _CHUNK]


class _TakenBuffers:
    """The buffers that a pickler hands over. Apart from it: a pickler that held a method of its own would be a cycle,
    and keep what it has pickled alive until the garbage collector comes by.
    """

    __slots__ = ("buffers", "on_device")

    def __init__(self) -> None:
        # memoryviews of bytes, and _DeviceBytes.
        self.buffers: list[Any] = []
        # By identity of the (kept) empty buffer that stands for them in pickling.
        self.on_device: dict[int, tuple[pickle.PickleBuffer, _DeviceBytes]] = {}

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Called by the pickler with each buffer; True leaves it in the stream."""
        found = self.on_device.get(id(buffer))
        if found is not None:
            self.buffers.append(found[1])
            return False
        view = buffer.raw()
        if view.nbytes < _IN_BAND_LIMIT:
            return True
        self.buffers.append(view)
        return False


class Serialized(NamedTuple):
    """A value taken apart: the pickle stream and the buffers that belong to it, nothing copied yet."""

    # The pickle stream in pieces, as the pickler wrote it.
    stream: list[Any]
    # Bytes in the stream.
    stream_length: int
    # Out-of-band buffers: memoryviews of bytes, or _DeviceBytes.
    buffers: list[Any]
    # What is hashed instead of the stream, where the stream says more than the content does; else None.
    canonical: bytes | None


class _Sink:
    """The file that a pickler writes to: a list of pieces. Large bytes arrive as they are, uncopied."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], Any]) -> None:
        self.write = write


def _dtype_name(dtype: torch.dtype) -> str:
    # A new string every time: pickle writes a string it has seen before as a reference, so that with a common one
    # the stream (and its digest) would depend on which of the value's own strings happen to be the same object.
    return str(dtype)[6:]


def _bytes_of(storage: Any, start: int, length: int) -> Any:
    """Return the storage's bytes as a flat uint8 tensor sharing its memory."""
    import torch

    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    flat.set_(storage)
    return flat[start : start + length]


def _reduce_storage_ref(pickler: Any, ref: _StorageRef) -> Any:
    if ref.length == 0:
        return rebuild_storage, (b"",)
    flat = _bytes_of(ref.storage, ref.start, ref.length)
    if ref.storage.device.type == "cpu":
        return rebuild_storage, (pickle.PickleBuffer(flat.numpy()),)
    placeholder = pickle.PickleBuffer(bytearray())
    pickler.taken.on_device[id(placeholder)] = (placeholder, _DeviceBytes(flat))
    return rebuild_storage, (placeholder,)


def _reduce_untyped_storage(pickler: Any, storage: Any) -> Any:
    return rebuild_same, (pickler.storage_ref(storage, 0, storage.nbytes()),)


def _reduce_typed_storage(pickler: Any, typed: Any) -> Any:
    storage = typed._untyped_storage
    return rebuild_typed_storage, (
        pickler.storage_ref(storage, 0, storage.nbytes()),
        _dtype_name(typed.dtype),
    )


def _reduce_tensor(pickler: Any, tensor: torch.Tensor) -> Any:
    """Reduce a strided tensor to (storage, dtype, offset, shape, stride, requires_grad); others to torch's own way."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.__dict__:
        return NotImplemented
    requires_grad = tensor.requires_grad and tensor.is_leaf
    if tensor.is_meta:
        shape, stride = tuple(tensor.shape), tensor.stride()
        return rebuild_meta_tensor, (_dtype_name(tensor.dtype), shape, stride, requires_grad)
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.detach().resolve_conj().resolve_neg()
    numel, size = tensor.numel(), tensor.element_size()
    shape, stride, offset = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
    if numel == 0:
        return rebuild_tensor, (None, _dtype_name(tensor.dtype), 0, shape, stride, requires_grad)
    storage = tensor.untyped_storage()
    start, length = 0, storage.nbytes()
    span = (1 + sum((n - 1) * step for n, step in zip(shape, stride))) * size  # noqa: B905 (Python 3.10, hot)
    if 2 * min(numel * size, span) < length and not pickler.has_whole(storage, length):
        # It uses less than half of its storage, and nothing needs the rest so far. Its own stretch is stored, or, where
        # that has too many holes (a column of a matrix), a contiguous copy.
        if 2 * numel * size >= span:
            start, length, offset = offset * size, span, 0
        else:
            tensor = tensor.detach().contiguous()
            storage, stride, offset = tensor.untyped_storage(), tensor.stride(), 0
            length = storage.nbytes()
    ref = pickler.storage_ref(storage, start, length)
    return rebuild_tensor, (ref, _dtype_name(tensor.dtype), offset, shape, stride, requires_grad)


def _reduce_array(_pickler: Any, array: Any) -> Any:
    # A non-contiguous array would go through the stream, byte by byte; contiguous it goes out of band.
    if array.flags.forc or array.nbytes < _IN_BAND_LIMIT or array.dtype.hasobject:
        return NotImplemented
    return array.copy("C").__reduce_ex__(5)


_Reducer = Callable[[Any, Any], Any]


def _reducers() -> tuple[dict[type, _Reducer], tuple[tuple[Any, _Reducer], ...]]:
    """Return the reducers by exact type, and those that hold for subclasses too, for what is imported by now."""
    exact: dict[type, _Reducer] = {_StorageRef: _reduce_storage_ref}
    derived: list[tuple[Any, _Reducer]] = []
    torch = sys.modules.get("torch")
    typed = getattr(getattr(torch, "storage", None), "TypedStorage", None)
    if torch is not None and typed is not None and hasattr(torch, "UntypedStorage"):
        exact[torch.Tensor] = _reduce_tensor
        exact[torch.UntypedStorage] = _reduce_untyped_storage
        derived.append((torch.UntypedStorage, _reduce_untyped_storage))
        derived.append((typed, _reduce_typed_storage))
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        exact[numpy.ndarray] = _reduce_array
    return exact, tuple(derived)


def _needs_cloudpickle(what: str) -> str:
    return (
        f"{what} needs the package cloudpickle, which this Python does not have. "
        f"Install this project's requirements there: {sys.executable} -m pip install -r requirements.txt"
    )


def _make_pickler() -> Any:
    """Build the pickler class: cloudpickle's where there is one, else the standard one with clear refusals."""
    base: Any
    try:
        import cloudpickle
    except ImportError:
        base, has_cloudpickle = pickle.Pickler, False
    else:
        base, has_cloudpickle = cloudpickle.Pickler, True
    base_override = getattr(base, "reducer_override", None)

    class ObjectPickler(base):  # type: ignore[misc]
        """Pickles one value: tensors out of band, plain data flagged as such."""

        def __init__(self, chunks: list[Any], taken: _TakenBuffers) -> None:
            super().__init__(_Sink(chunks.append), protocol=5, buffer_callback=taken.take)
            self.taken = taken
            # True until an object appears that is not made of numbers, strings, lists, tuples, dicts and sets.
            self.is_plain = True
            self._refs: dict[tuple[Any, ...], _StorageRef] = {}
            self._exact, self._derived = _reducers()

        def has_whole(self, storage: Any, length: int) -> bool:
            """Tell whether all of the storage is being stored already."""
            return (storage.data_ptr(), storage.device, 0, length) in self._refs

        def storage_ref(self, storage: Any, start: int, length: int) -> _StorageRef:
            key = (storage.data_ptr() if length else id(storage), storage.device, start, length)
            ref = self._refs.get(key)
            if ref is None:
                ref = self._refs[key] = _StorageRef(storage, start, length)
            return ref

        def reducer_override(self, obj: Any) -> Any:
            self.is_plain = False
            kind = type(obj)
            reducer = self._exact.get(kind)
            if reducer is not None:
                return reducer(self, obj)
            if kind is types.FunctionType and obj.__module__ == SHARED_NAME:
                return NotImplemented
            for parent, reducer in self._derived:
                if isinstance(obj, parent):
                    return reducer(self, obj)
            if base_override is not None:
                return base_override(self, obj)
            if isinstance(obj, (types.FunctionType, type)) and obj.__module__ == "__main__":
                # By reference, as the standard pickler would, no other process could load it.
                raise pickle.PicklingError(_needs_cloudpickle(f"{obj.__qualname__}, defined in __main__,"))
            return NotImplemented

    ObjectPickler.has_cloudpickle = has_cloudpickle
    return ObjectPickler


_pickler_class: Any = None


def _canonical(data: Any, length: int) -> bytes | None:
    """Return a stream of plain data that does not tell equal strings from identical ones; None where it can't."""
    chunks: list[bytes] = []
    room = 4 * length + 1024

    def write(chunk: bytes) -> None:
        nonlocal room
        room -= len(chunk)
        if room < 0:
            # Shared lists are written out every time they occur: a value can be built that explodes.
            raise ValueError("larger than worth it")
        chunks.append(chunk)

    pickler = pickle.Pickler(_Sink(write), protocol=5)
    pickler.fast = True
    try:
        pickler.dump(data)
    except (ValueError, RecursionError):
        return None
    return b"".join(chunks)


def serialize(data: Any, key: str = "") -> Serialized:
    """Take a value apart into a pickle stream and out-of-band buffers, without copying the buffers.

    Args:
        data: any value.
        key: what the value will be stored under; only error messages use it.

    Returns:
        The parts. Its buffers refer to the value's own memory: write them before the value changes.

    Raises:
        StoreUnserializable: naming the key, and the path inside the value where pickling stops.
    """
    global _pickler_class
    if _pickler_class is None:
        _pickler_class = _make_pickler()
    chunks: list[Any] = []
    taken = _TakenBuffers()
    pickler = _pickler_class(chunks, taken)
    try:
        pickler.dump(data)
    except MemoryError:
        raise
    except Exception as exc:
        raise StoreUnserializable(_unserializable_text(data, key, exc)) from exc
    length = sum(map(len, chunks))
    canonical = None
    if pickler.is_plain and length <= INLINE_LIMIT and not taken.buffers:
        canonical = _canonical(data, length)
    return Serialized(chunks, length, taken.buffers, canonical)


def _unserializable_text(data: Any, key: str, exc: Exception) -> str:
    path, culprit = _find_culprit(data)
    where = f" at {path}" if path != "data" else ""
    text = f"cannot store {key!r}: the {type(culprit).__name__}{where} cannot be pickled ({exc})."
    if not _pickler_class.has_cloudpickle and "cloudpickle" not in text:
        text += " " + _needs_cloudpickle("If it is a function, a lambda or a local class, it")
    return text


def _find_culprit(data: Any) -> tuple[str, Any]:
    """Follow the first child that cannot be pickled alone, at most 16 levels and 1000 children. Only for messages."""
    path, tries = "data", 1000
    for _ in range(16):
        for label, child in _children(data):
            tries -= 1
            if tries < 0:
                return path, data
            try:
                _pickler_class([], _TakenBuffers()).dump(child)
            except Exception:
                path, data = path + label, child
                break
        else:
            break
    return path, data


def _children(data: Any) -> list[tuple[str, Any]]:
    if isinstance(data, dict):
        return [(f"[{key!r}]", value) for key, value in data.items()]
    if isinstance(data, (list, tuple)):
        return [(f"[{index}]", value) for index, value in enumerate(data)]
    if isinstance(data, (type, types.FunctionType, types.ModuleType)):
        return []
    return [(f".{name}", value) for name, value in getattr(data, "__dict__", {}).items()]


# --- the file format ----------------------------------------------------------------------------------------------


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
        return f"{_ALGORITHMS.get(self.algorithm, 'unknown')}:{self.digest.hex()}"


class HeldObject(NamedTuple):
    """An object that stays readable although its key may have been given another one."""

    key: str
    header: Header
    view: memoryview


def _pack_header(
    kind: int,
    flags: int,
    meta: bytes,
    key_length: int,
    buffer_count: int,
    total: int,
    stream_length: int,
    data_length: int,
    digest: tuple[int, bytes],
) -> bytes:
    header = bytearray(
        _HEADER.pack(
            _MAGIC,
            FORMAT_VERSION,
            kind,
            flags,
            0,
            zlib.crc32(meta),
            buffer_count,
            total,
            _HEADER_SIZE + len(meta),
            stream_length,
            data_length,
            key_length,
            digest[0],
            digest[1],
            time.time_ns(),
            os.getpid(),
            *_PYTHON,
        )
    )
    struct.pack_into("<I", header, _HEADER_CRC_AT, zlib.crc32(header))
    return bytes(header)


def parse_header(data: bytes | bytearray | memoryview, file_size: int) -> Header:
    """Read and check the first 128 bytes of a file.

    Raises:
        StoreCorrupt: if anything in them contradicts itself or the size of the file.
    """
    if len(data) < _HEADER_SIZE:
        raise StoreCorrupt(f"the file has {file_size} bytes, less than a header's {_HEADER_SIZE}")
    header = Header._make(_HEADER.unpack_from(data))
    if header.magic != _MAGIC:
        raise StoreCorrupt(f"it begins with {header.magic!r}, not {_MAGIC!r}")
    if header.version != FORMAT_VERSION:
        raise StoreCorrupt(f"its format version is {header.version}; this version reads {FORMAT_VERSION}")
    raw = bytearray(data[:_HEADER_SIZE])
    raw[_HEADER_CRC_AT : _HEADER_CRC_AT + 4] = b"\0\0\0\0"
    if zlib.crc32(raw) != header.header_crc:
        raise StoreCorrupt("the checksum of its header does not match")
    meta_end = _HEADER_SIZE + header.key_length + _TABLE_ROW.size * header.buffer_count
    if header.total != file_size:
        raise StoreCorrupt(f"it should have {header.total} bytes and has {file_size}")
    if header.stream_offset != meta_end or meta_end + header.stream_length > file_size:
        raise StoreCorrupt("its parts lie outside the file")
    if header.kind not in (_KIND_OBJECT, _KIND_STUB):
        raise StoreCorrupt(f"its kind is {header.kind}")
    return header


def _check_key(header: Header, view: memoryview, key_bytes: bytes) -> None:
    if zlib.crc32(view[_HEADER_SIZE : header.stream_offset]) != header.meta_crc:
        raise StoreCorrupt("the checksum of its key and buffer table does not match")
    if view[_HEADER_SIZE : _HEADER_SIZE + header.key_length] != key_bytes:
        raise StoreCorrupt("it belongs to another key")


def _buffers_of(header: Header, view: memoryview) -> list[memoryview]:
    """Return the out-of-band buffers as slices of the file, after checking that they lie in it."""
    buffers = []
    data_start = header.stream_offset + header.stream_length
    at = _HEADER_SIZE + header.key_length
    for offset, length in _TABLE_ROW.iter_unpack(view[at : header.stream_offset]):
        if length and (offset < data_start or offset + length > header.total):
            raise StoreCorrupt("one of its buffers lies outside the file")
        buffers.append(view[offset : offset + length])
    return buffers


class _Hasher:
    """The digest of one object: xxh3-128, blake2b-128 for what is small enough, else a value of its own."""

    __slots__ = ("_hash", "algorithm")

    def __init__(self, data_length: int) -> None:
        make = _xxh3()
        self._hash: Any = None
        if make is not None:
            self.algorithm, self._hash = 1, make()
        elif data_length <= _SLOW_HASH_LIMIT:
            self.algorithm, self._hash = 2, hashlib.blake2b(digest_size=16)
        else:
            self.algorithm = 3

    def update(self, data: Any) -> None:
        if self._hash is not None:
            self._hash.update(data)

    def result(self) -> tuple[int, bytes]:
        return self.algorithm, os.urandom(16) if self._hash is None else self._hash.digest()


_xxh3_factory: Any = False


def _xxh3() -> Any:
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
        hasher.update(_LENGTH.pack(len(parts.canonical)) + parts.canonical)
        return hasher
    hasher.update(_LENGTH.pack(parts.stream_length))
    for chunk in parts.stream:
        hasher.update(chunk)
    return hasher


class _Sealed:
    """One object, laid out: knows the length of its file and how to write it."""

    __slots__ = ("_flags", "_key", "_offsets", "_parts", "data_length", "digest", "total")

    def __init__(self, parts: Serialized, key_bytes: bytes, flags: int) -> None:
        self._parts = parts
        self._key = key_bytes
        self._flags = flags
        # Set by write_to and by as_bytes.
        self.digest: tuple[int, bytes] = (3, bytes(16))
        end = _HEADER_SIZE + len(key_bytes) + _TABLE_ROW.size * len(parts.buffers) + parts.stream_length
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

    def _meta(self) -> bytes:
        rows = zip(self._offsets, self._parts.buffers)  # noqa: B905 (Python 3.10, hot)
        return self._key + b"".join([_TABLE_ROW.pack(start, buffer.nbytes) for start, buffer in rows])

    def _head(self, meta: bytes) -> bytes:
        count, length = len(self._offsets), self._parts.stream_length
        return _pack_header(
            _KIND_OBJECT,
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
        body = _STUB.pack(place, segment.encode(), self.total)
        total = _HEADER_SIZE + len(self._key) + len(body)
        head = _pack_header(
            _KIND_STUB,
            self._flags,
            self._key,
            len(self._key),
            0,
            total,
            len(body),
            self.data_length,
            self.digest,
        )
        return head + self._key + body

    def write_to(self, fd: int) -> None:
        """Write the whole file. Peak memory beyond the value itself: one chunk.

        Raises:
            OSError: ENOSPC and the like; what was written until then is the caller's to remove.
        """
        parts, meta = self._parts, self._meta()
        hasher = _start_hash(parts, self.data_length)
        if self.total <= INLINE_LIMIT:
            pieces = [*parts.stream]
            at = _HEADER_SIZE + len(meta) + parts.stream_length
            for start, buffer in zip(self._offsets, parts.buffers):  # noqa: B905 (Python 3.10, hot)
                pieces.append(bytes(start - at))
                pieces.extend(self._hashed(buffer, hasher))
                at = start + buffer.nbytes
            self.digest = hasher.result()
            _write_all(fd, b"".join([self._head(meta), meta, *pieces]), 0)
            return
        _write_all(fd, meta, _HEADER_SIZE)
        at = _HEADER_SIZE + len(meta)
        for chunk in parts.stream:
            _write_all(fd, chunk, at)
            at += len(chunk)
        for start, buffer in zip(self._offsets, parts.buffers):  # noqa: B905 (Python 3.10, hot)
            at = start
            for chunk in self._hashed(buffer, hasher):
                _write_all(fd, chunk, at)
                at += len(chunk)
        self.digest = hasher.result()
        # Last, so that even a file that somebody renamed by hand is not taken for a whole one.
        _write_all(fd, self._head(meta), 0)

    @staticmethod
    def _hashed(buffer: Any, hasher: _Hasher) -> Iterator[Any]:
        hasher.update(_LENGTH.pack(buffer.nbytes))
        if isinstance(buffer, _DeviceBytes):
            chunks = buffer.chunks()
        else:
            chunks = (buffer[at : at + _CHUNK] for at in range(0, buffer.nbytes, _CHUNK))
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk


def _write_all(fd: int, data: Any, offset: int) -> None:
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


def _read_at(fd: int, count: int, offset: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    return os.pread(fd, count, offset)


def _read_copy(fd: int, size: int) -> memoryview:
    """Read a whole file into writable memory of its own."""
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size:
        if sys.platform == "win32":
            chunk = _read_at(fd, min(size - done, 2**30), done)
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


class _PrivateMap(mmap.mmap):
    """A copy-on-write mapping of a file that counts itself."""

    def __new__(cls, fd: int, size: int) -> _PrivateMap:
        if sys.version_info >= (3, 13):
            made = super().__new__(cls, fd, size, access=mmap.ACCESS_COPY, trackfd=False)
        else:
            made = super().__new__(cls, fd, size, access=mmap.ACCESS_COPY)
        _live_maps.add(id(made))
        return made

    def __del__(self, discard: Callable[[int], None] = _live_maps.discard) -> None:
        discard(id(self))


def _fd_limit() -> int:
    if sys.platform == "win32":
        return 8192
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**30 if soft == resource.RLIM_INFINITY else soft


def _view_file(fd: int, size: int, fd_limit: int) -> memoryview:
    """Return a file's bytes, writable and private to the caller: read if small, else mapped copy-on-write.

    Where mappings use file descriptors, first small and then all objects are read as the limit comes near.
    """
    count = len(_live_maps) if _MAPS_USE_FDS else 0
    if size <= INLINE_LIMIT or (2 * count > fd_limit and size < 2**20) or 10 * count > 8 * fd_limit:
        return _read_copy(fd, size)
    try:
        # Always through memoryview: closing a mapping that a view refers to raises BufferError, while tensors made
        # directly from the mapping would be left dangling.
        return memoryview(_PrivateMap(fd, size))
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENODEV):
            raise
        return _read_copy(fd, size)


# --- folders, locks, memory: what the operating system gives ------------------------------------------------------


class _Folder:
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
    def open_private(cls, name: str, parent: _Folder | None = None) -> _Folder:
        """Open a directory that only this user can write to.

        Args:
            name: a path, or a name in ``parent``.

        Raises:
            FileNotFoundError: if there is none.
            StoreInsecure: if it is a symbolic link, no directory, someone else's, or open to others.
        """
        path = name if parent is None else os.path.join(parent.path, name)
        if _IS_WINDOWS:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise StoreInsecure(errno.EPERM, f"{path} is not a folder; remove it")
            return cls(path, None)
        flags = os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW
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

    def unlink(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self.fd)

    def discard(self, name: str) -> None:
        """Remove a file if it is there and can be removed; on Windows a mapped one cannot, and waits for the sweep."""
        try:
            self.unlink(name)
        except FileNotFoundError:
            pass
        except PermissionError:
            if not _IS_WINDOWS:
                raise

    def make(self, name: str) -> _Folder:
        os.mkdir(self._at(name), 0o700, dir_fd=self.fd)
        return _Folder.open_private(name, self)

    def rmdir(self, name: str) -> None:
        os.rmdir(self._at(name), dir_fd=self.fd)

    def replace(self, name: str, target: _Folder, new_name: str) -> None:
        """Move a file over ``new_name`` in ``target``: the one step that makes a value visible."""
        if not _IS_WINDOWS:
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
        count = total = 0
        for name in self.names():
            try:
                status = self.stat(name)
            except FileNotFoundError:
                continue
            count += 1
            total += status.st_blocks * 512 if allocated and not _IS_WINDOWS else status.st_size
        return count, total

    def free_bytes(self) -> int:
        """Return what the filesystem can still take, in bytes."""
        if sys.platform == "win32":
            import shutil

            return shutil.disk_usage(self.path).free
        status = os.fstatvfs(self.fd) if self.fd is not None else os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


class _ClosedFolder:
    """What stands in a folder's place after the store was closed: every use is a StoreClosed."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __getattr__(self, _name: str) -> Any:
        raise StoreClosed(f"the context {self._run_id} has been shut down")


class _Lock:
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
        return _lock_fd(self.fd, wait, shared)

    def release(self) -> None:
        _unlock_fd(self.fd)


if sys.platform == "win32":

    def _lock_fd(fd: int, wait: bool, shared: bool = False) -> bool:
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

    def _unlock_fd(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _lock_fd(fd: int, wait: bool, shared: bool = False) -> bool:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock_fd(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _read_small_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def filesystem_type(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the filesystem ``path`` lies on ("tmpfs", "ext4"), or "" where Linux cannot tell."""
    path = os.path.realpath(path)
    best, kind = "", ""
    for line in _read_small_file(mountinfo).splitlines():
        fields, _, rest = line.partition(" - ")
        columns = fields.split()
        if len(columns) < 5 or not rest:
            continue
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), columns[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one counts.
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


def free_ram_bytes(root: str = "/") -> int:
    """Return the memory this process could still use: the machine's available RAM, or less if its cgroup says so.

    Pages of shared memory count against a container's limit, and passing that limit is not an error but the death
    of a process, so it is asked before large objects are put there.

    Args:
        root: where ``proc`` and ``sys`` are looked for (tests).
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read_small_file(os.path.join(root, "proc/meminfo")), re.MULTILINE)
    if found is None:
        try:
            import psutil
        except ImportError:
            return 0
        return int(psutil.virtual_memory().available)
    return min([int(found[1]) * 1024, *_cgroup_free(root)])


def _cgroup_free(root: str) -> list[int]:
    """Return what is left in each cgroup above this process that limits memory (versions 1 and 2)."""
    left: list[int] = []
    for line in _read_small_file(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, limit_name, usage_name = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_name, usage_name = (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            folder = os.path.join(root, base, *parts[:depth])
            limit = _read_small_file(os.path.join(folder, limit_name)).strip()
            usage = _read_small_file(os.path.join(folder, usage_name)).strip()
            if not limit.isdigit() or not usage.isdigit():
                continue
            # File pages can be dropped; those of shared memory are not on these lists.
            pages = re.findall(
                r"^(?:in)?active_file (\d+)$",
                _read_small_file(os.path.join(folder, "memory.stat")),
                re.MULTILINE,
            )
            left.append(max(0, int(limit) - int(usage) + sum(map(int, pages))))
    return left


def _megabytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MB"


# --- where the runs are -------------------------------------------------------------------------------------------


class Roots(NamedTuple):
    """Where runs live: folders of the system, in which each user has ``<name>-<uid>``."""

    # The shared-memory filesystem; None where there is none.
    ram: str | None
    disk: str
    name: str

    @property
    def home_name(self) -> str:
        return f"{self.name}-{_user()}"


def _user() -> str:
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
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is not a run_id: it has 32 of the digits 0-9 and a-f")
    return run_id


class _Home:
    """A user's folder ``<name>-<uid>`` in a root, locked while runs in it are made or removed."""

    def __init__(self, folder: _Folder, lock: _Lock) -> None:
        self.folder = folder
        # None after the folder was removed.
        self._lock: _Lock | None = lock

    @classmethod
    def open(cls, root: str, name: str, create: bool) -> _Home | None:
        """Open and lock the folder; None if there is none and ``create`` is False."""
        path = os.path.join(root, name)
        for _ in range(100):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            try:
                folder = _Folder.open_private(path)
                # Its own descriptor: closing the folder elsewhere must not end the lock. A folder cannot be
                # locked on Windows, so a file in it is.
                if folder.fd is None:
                    lock = _Lock(folder.open("home.lock", os.O_RDWR | os.O_CREAT | _BINARY))
                else:
                    lock = _Lock(os.open(".", os.O_RDONLY, dir_fd=folder.fd))
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

    def __enter__(self) -> _Home:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def remove_if_empty(self) -> None:
        """Remove the folder unless another run lives in it; the lock is held on."""
        if _IS_WINDOWS and self.folder.names() == ["home.lock"]:
            # An open file cannot be removed there: not ours, so it is closed, nor one that another process waits for.
            self._lock = None
            with contextlib.suppress(OSError):
                self.folder.unlink("home.lock")
        with contextlib.suppress(OSError):
            os.rmdir(self.folder.path)


def _lock_run(run: _Folder, shared: bool = False) -> _Lock | None:
    """Take a run's owner lock; None if its owner lives. A run without a lock file has no owner."""
    try:
        lock = _Lock(run.open("owner.lock", os.O_RDWR | os.O_CREAT | _NOFOLLOW | _BINARY))
    except OSError:
        return None
    return lock if lock.acquire(wait=False, shared=shared) else None


def _remove_tree(parent: _Folder, name: str) -> None:
    """Remove a folder with all it holds, following no link; owner.lock goes last, so that it stays locked."""
    try:
        folder = _Folder.open_private(name, parent)
    except FileNotFoundError:
        return
    for _ in range(20):
        for entry in sorted(folder.names(), key=lambda entry: (entry == "owner.lock", entry != "run.json")):
            if stat.S_ISDIR(_mode_of(folder, entry)):
                _remove_tree(folder, entry)
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


def _mode_of(folder: _Folder, name: str) -> int:
    try:
        return folder.stat(name).st_mode
    except FileNotFoundError:
        return 0


def _open_twin(path: Any, run_id: str) -> _Folder | None:
    """Open the disk twin that a run.json names, if it is what it has to be: private, and of the same run."""
    if not isinstance(path, str) or not os.path.isabs(path) or os.path.basename(path) != f"run-{run_id}":
        return None
    try:
        home = _Folder.open_private(os.path.dirname(path))
        return _Folder.open_private(os.path.basename(path), home)
    except FileNotFoundError:
        return None


def _read_run_file(run: _Folder, run_id: str) -> dict[str, Any]:
    """Read and check a run's run.json.

    Raises:
        FileNotFoundError: if there is none.
        StoreCorrupt: if it is not ours to understand.
    """
    fd = run.open("run.json", _READ)
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
            home = _Home.open(root, roots.home_name, create=False)
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


def _sweep_run(home: _Folder, name: str, removed: list[str], twins: list[str]) -> None:
    """Remove one run folder if its owner is dead. Runs are made under the home's lock, which the caller holds."""
    try:
        run = _Folder.open_private(name, home)
        lock = _lock_run(run)
        if lock is None:
            return
        try:
            twin = _read_run_file(run, name[-32:]).get("disk_path")
        except (OSError, StoreError):
            twin = None
        _remove_tree(home, name)
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
        home = _Home.open(root, home_name, create=False)
        if home is None:
            return
        with home:
            if home.folder.exists(os.path.basename(path)):
                _sweep_run(home.folder, os.path.basename(path), removed, [])
            home.remove_if_empty()
    except (OSError, StoreError) as exc:
        logger.warning("%s is left alone: %s", path, exc)


# --- the store ----------------------------------------------------------------------------------------------------


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


class Usage(NamedTuple):
    """What a run occupies, in bytes, counted over all processes that write to it."""

    ram_bytes: int
    ram_capacity: int
    disk_bytes: int
    keys: int
    ram_keys: int
    disk_keys: int
    # Objects that this process wrote to disk because memory had no room.
    disk_fallbacks: int


_stores: weakref.WeakSet[RunStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._become_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class RunStore:
    """The objects of one run, by key. Made by ``create`` (the owner) or ``attach`` (anybody else of the same user).

    All methods may be called from any thread and process at once. Each is all or nothing: interrupted or killed at
    any point, a key has its old value or its new one. A forked child may use the store and never deletes it.
    """

    def __init__(
        self, run_id: str, main: _Folder, twin: _Folder | None, in_ram: bool, ram_capacity: int, roots: Roots
    ) -> None:
        # 32 hex digits.
        self.run_id = run_id
        # Bytes that the run's objects may take in shared memory; 0 where there is none.
        self.ram_capacity = ram_capacity if in_ram else 0
        self._roots = roots
        self._in_ram = in_ram
        self._main: _Folder | None = main
        self._objects = _Folder.open_private("objects", main)
        self._segments: dict[bytes, _Folder] = {b"m": _Folder.open_private("seg", main)}
        if twin is not None:
            self._segments[b"d"] = _Folder.open_private("seg", twin)
        self._twin = twin
        # The locks that make this process the owner: of main and twin. Empty in an attached process.
        self._owner_locks: list[_Lock] = []
        self._pid = os.getpid()
        self._thread_lock = threading.Lock()
        self._publish_lock: _Lock | None = None
        self._prefix = os.urandom(12).hex()
        self._counter = 0
        self._key_names: dict[str, tuple[bytes, str]] = {}
        self._fd_limit = _fd_limit()
        # Estimate of the bytes in shared memory: what was measured last, and what this process did since.
        self._ram_used = 0
        self._measured_at = float("-inf")
        self._measure_pause = 1.0
        self._reaped_at = float("-inf")
        self._disk_fallbacks = 0
        self._ballast_is_used = False
        _stores.add(self)

    # -- opening and closing --

    @classmethod
    def create(cls, roots: Roots, run_id: str | None = None, ram_limit: int | None = None) -> RunStore:
        """Make a new run and own it, after removing what dead owners left.

        Args:
            roots: where, see find_roots.
            run_id: 32 hex digits; None for a random one.
            ram_limit: bytes its objects may take in shared memory; None for no other limit than the size of the
                shared-memory filesystem.

        Raises:
            FileExistsError: if a run of that run_id lives.
            StoreInsecure: if the user's folder there could have been written by somebody else.
            OSError: if neither root can be written.
        """
        run_id = os.urandom(16).hex() if run_id is None else check_run_id(run_id)
        sweep(roots)
        twin: _Folder | None = None
        locks: list[_Lock] = []
        ram = roots.ram
        if ram is not None:
            twin, locks = cls._make_twin(roots, run_id)
            try:
                main, main_lock = _make_run(ram, roots.home_name, run_id, ["objects", "seg"], True)
            except FileExistsError:
                _drop_run(twin, locks)
                raise
            except StoreInsecure:
                _drop_run(twin, locks)
                raise
            except OSError as exc:
                logger.warning("shared memory in %s cannot be used (%s): everything goes to disk", ram, exc)
                _drop_run(twin, locks)
                twin, locks, ram = None, [], None
        if ram is None:
            main, main_lock = _make_run(roots.disk, roots.home_name, run_id, ["objects", "seg"], False)
        locks.append(main_lock)
        capacity = 0
        if ram is not None:
            free = max(0, main.free_bytes() - _BALLAST)
            capacity = free if ram_limit is None else max(0, min(ram_limit, free))
        content = {
            "format": FORMAT_VERSION,
            "run_id": run_id,
            "main": "disk" if ram is None else "ram",
            "disk_path": None if twin is None else twin.path,
            "ram_capacity": capacity,
            "pid": os.getpid(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        fd = main.open("run.json.tmp", _CREATE)
        try:
            _write_all(fd, json.dumps(content).encode(), 0)
        finally:
            os.close(fd)
        main.replace("run.json.tmp", main, "run.json")
        store = cls(run_id, main, twin, ram is not None, capacity, roots)
        store._owner_locks = locks
        return store

    @staticmethod
    def _make_twin(roots: Roots, run_id: str) -> tuple[_Folder | None, list[_Lock]]:
        if roots.disk == roots.ram:
            return None, []
        try:
            twin, lock = _make_run(roots.disk, roots.home_name, run_id, ["seg"], False)
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
            main = None if root is None else _find_run(root, roots.home_name, run_id)
            if main is None:
                continue
            try:
                content = _read_run_file(main, run_id)
            except FileNotFoundError:
                continue
            # Shared, so that two processes that ask at the same time do not take each other for the owner.
            lock = _lock_run(main, shared=True)
            if lock is not None:
                # Nobody owns it any more: what is in it is waiting for the next sweep.
                lock.release()
                continue
            in_ram = content.get("main") == "ram"
            twin = _open_twin(content.get("disk_path"), run_id)
            try:
                store = cls(run_id, main, twin, in_ram, content["ram_capacity"], roots)
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
        if self.is_owner:
            _drop_run(main, [])
            if self._twin is not None:
                _drop_run(self._twin, [])
        # Descriptors close when the operations that use them at this moment end; later ones meet StoreClosed.
        closed: Any = _ClosedFolder(self.run_id)
        self._objects, self._twin = closed, None
        self._segments = dict.fromkeys(self._segments, closed)
        self._owner_locks = []
        self._publish_lock = None
        _stores.discard(self)

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

    def _open_main(self) -> _Folder:
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
        sealed = _Sealed(serialize(data, key), key_bytes, _FLAG_RECIPE if is_recipe else 0)
        no_ram = ""
        if use_ram and self._in_ram:
            no_ram = self._ram_refusal(sealed.total)
            if not no_ram:
                try:
                    self._write(sealed, name, b"m", key_bytes)
                except OSError as exc:
                    if exc.errno not in _FULL_ERRNOS:
                        raise
                    no_ram = f"the shared-memory filesystem is full ({_megabytes(self._ram_free())} free)"
                else:
                    return
            self._tell_fallback(key, sealed.total, no_ram)
        place = b"d" if self._in_ram else b"m"
        if place not in self._segments:
            raise self._full(key, sealed.total, no_ram or "not asked", "there is no disk folder")
        try:
            self._write(sealed, name, place, key_bytes)
        except OSError as exc:
            if exc.errno not in _FULL_ERRNOS:
                raise
            free = self._segments[place].free_bytes()
            disk = f"{self._segments[place].path} has {_megabytes(free)} free ({exc.strerror})"
            raise self._full(key, sealed.total, no_ram or "not asked", disk) from exc

    def _full(self, key: str, total: int, ram: str, disk: str) -> StoreFull:
        return StoreFull(
            errno.ENOSPC,
            f"cannot store {key!r}, {_megabytes(total)}: memory: {ram}; disk: {disk}. The previous value, if any, is "
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
            _megabytes(total),
            disk,
            note,
            reason,
        )

    def _write(self, sealed: _Sealed, name: str, place: bytes, key_bytes: bytes) -> None:
        """Write an object into the main folder (``m``) or the twin (``d``), and publish it."""
        segments = self._segments[place]
        with self._thread_lock:
            self._counter += 1
            segment = f"{self._prefix}{self._counter & 0xFFFFFFFF:08x}"
        temp = segment + ".tmp"
        try:
            self._write_file(segments, temp, sealed.write_to)
            if place == b"m" and not _IS_WINDOWS:
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

    def _write_stub(self, segments: _Folder, segment: str, name: str, key_bytes: bytes, stub: bytes) -> None:
        """Publish the written ``<segment>.tmp`` as a segment, and the stub as the key's entry."""
        folder, temp = self._segments[b"m"], segment + ".stub.tmp"
        try:
            self._write_stub_file(folder, temp, stub)
            self._publish(folder, temp, name, key_bytes, len(stub), (segments, segment + ".tmp", segment))
        except BaseException:
            # Also Ctrl-C at any point: the segment stays if its stub made it.
            folder.discard(temp)
            target = self._peek(name, key_bytes)[1]
            if target is None or target[1] != segment:
                segments.discard(segment)
            raise

    def _write_file(self, folder: _Folder, temp: str, write: Callable[[int], None]) -> None:
        fd = folder.open(temp, _CREATE)
        try:
            if not _IS_WINDOWS:
                # Tells _reap that somebody is at work here.
                _lock_fd(fd, wait=False)
            write(fd)
        finally:
            os.close(fd)

    def _write_stub_file(self, folder: _Folder, temp: str, stub: bytes) -> None:
        """Write a stub; when not even that fits into memory, give up ballast for it, page by page."""
        while True:
            try:
                self._write_file(folder, temp, lambda fd: _write_all(fd, stub, 0))
            except OSError as exc:
                folder.discard(temp)
                if exc.errno not in _FULL_ERRNOS or not self._release_ballast():
                    raise
            else:
                return

    def _publish(
        self,
        folder: _Folder,
        temp: str,
        name: str,
        key_bytes: bytes,
        size: int,
        segment: tuple[_Folder, str, str] | None = None,
    ) -> None:
        """Make a written file the key's entry, and remove the segment that the old entry named.

        Under a lock across processes: two writers that both saw the same old stub would leave the loser's segment
        behind, and _reap must not meet a segment whose stub is about to appear.
        """
        with self._thread_lock:
            lock = self._lock_publishing()
            try:
                old_size, old_segment = self._peek(name, key_bytes)
                if segment is not None:
                    segment[0].replace(segment[1], segment[0], segment[2])
                folder.replace(temp, self._objects, name)
                self._ram_used += _pages(size) - _pages(old_size)
            finally:
                lock.release()
        if old_segment is not None:
            old_segment[0].discard(old_segment[1])

    def _lock_publishing(self) -> _Lock:
        """Take the publish lock; the caller holds the thread lock, because threads share the descriptor."""
        main = self._open_main()
        if self._publish_lock is None:
            try:
                self._publish_lock = _Lock(main.open("publish.lock", os.O_RDWR | _NOFOLLOW | _BINARY))
            except FileNotFoundError as exc:
                raise self._gone() from exc
        self._publish_lock.acquire(wait=True)
        return self._publish_lock

    def _peek(self, name: str, key_bytes: bytes) -> tuple[int, tuple[_Folder, str] | None]:
        """Return the size of a key's present entry (0: none) and the segment that it names, if it is a stub."""
        try:
            size = self._objects.stat(name).st_size
        except FileNotFoundError:
            return 0, None
        if size != _HEADER_SIZE + len(key_bytes) + _STUB.size:
            # All stubs of a key are this long, so this is none.
            return size, None
        try:
            return size, self._stub_target(name)
        except (OSError, StoreError):
            # Damaged, or something else was put there: it is only being replaced.
            return size, None

    def _stub_target(self, name: str) -> tuple[_Folder, str] | None:
        fd = self._objects.open(name, _READ)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            raw = memoryview(_read_at(fd, status.st_size, 0))
        finally:
            os.close(fd)
        header = parse_header(raw, status.st_size)
        return self._segment_of(header, raw)[:2] if header.kind == _KIND_STUB else None

    def _segment_of(self, header: Header, view: memoryview) -> tuple[_Folder, str, int]:
        """Return what a stub names: folder, segment, length. Only a bare name in a folder known beforehand."""
        if header.stream_length != _STUB.size:
            raise StoreCorrupt("it is a stub of a wrong length")
        place, raw, total = _STUB.unpack_from(view, header.stream_offset)
        segment = raw.decode("ascii", "replace")
        if place not in self._segments or not _RUN_ID.fullmatch(segment):
            raise StoreCorrupt("it is a stub that names no segment of this run")
        return self._segments[place], segment, total

    # -- room in memory --

    def _ram_refusal(self, need: int) -> str:
        """Return why an object of that size cannot go to shared memory, or "" if it can.

        Far from the limit this costs nothing; other processes' objects are counted about once a second. Large
        objects also ask the filesystem and the system for what is really free.
        """
        capacity = self.ram_capacity
        if need > capacity:
            return f"it is larger than the {_megabytes(capacity)} this run may use"
        age = time.monotonic() - self._measured_at
        is_near = 2 * (self._ram_used + need) > capacity
        if age > self._measure_pause or (is_near and age > 0.1) or self._ram_used + need > capacity:
            self._measure_ram()
            if self._ram_used + need > capacity and time.monotonic() - self._reaped_at > 10:
                self._reap()
                self._measure_ram()
        if self._ram_used + need > capacity:
            return f"{_megabytes(self._ram_used)} of the {_megabytes(capacity)} this run may use are taken"
        if need > INLINE_LIMIT and need + _BALLAST > self._ram_free():
            return f"the shared-memory filesystem has only {_megabytes(self._ram_free())} free"
        if need >= _LARGE:
            free = free_ram_bytes()
            if free and need + _RAM_RESERVE > free:
                return f"the system has only {_megabytes(free)} of memory available"
        return ""

    def _ram_free(self) -> int:
        return self._objects.free_bytes()

    def _measure_ram(self) -> None:
        begin = time.monotonic()
        used = self._objects.sizes(True)[1] + self._segments[b"m"].sizes(True)[1]
        self._measured_at = time.monotonic()
        # With very many keys, count less often: never more than about 2 % of the time.
        self._measure_pause = max(1.0, 50 * (self._measured_at - begin))
        self._ram_used = used

    def _release_ballast(self) -> bool:
        """Give up a part of the memory kept in reserve; False if none is left."""
        try:
            fd = self._open_main().open("ballast", os.O_RDWR | _NOFOLLOW | _BINARY)
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
        if not self._ballast_is_used or self._ram_free() < 2 * _BALLAST:
            return
        fd = self._open_main().open("ballast", os.O_RDWR | _NOFOLLOW | _BINARY)
        try:
            _write_all(fd, bytes(_BALLAST), 0)
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
                for folder, name in self._segment_names():
                    if name.endswith(".tmp"):
                        if _is_abandoned(folder, name):
                            folder.discard(name)
                    elif name not in named:
                        folder.discard(name)
            finally:
                lock.release()

    def _segment_names(self) -> Iterator[tuple[_Folder, str]]:
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
            buffers = _buffers_of(header, view)
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
            self.put(held.key, value, use_ram=use_ram, is_recipe=bool(held.header.flags & _FLAG_RECIPE))

    def _unloadable(self, key: str, header: Header, exc: Exception) -> StoreUnloadable:
        missing = getattr(exc, "name", None) if isinstance(exc, ImportError) else None
        text = f"{key!r} is stored, but this process cannot rebuild it: {type(exc).__name__}: {exc}."
        if missing is not None and missing.partition(".")[0] == "cloudpickle":
            text += " " + _needs_cloudpickle("It")
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
                if header.kind == _KIND_OBJECT:
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

    def _open_file(self, folder: _Folder, name: str, key_bytes: bytes) -> tuple[Header, memoryview]:
        fd = self._open_checked(folder, name)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            view = _view_file(fd, status.st_size, self._fd_limit)
        finally:
            os.close(fd)
        header = parse_header(view, status.st_size)
        _check_key(header, view, key_bytes)
        return header, view

    def _open_checked(self, folder: _Folder, name: str) -> int:
        try:
            return folder.open(name, _READ)
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
        if not _IS_WINDOWS and status.st_uid != os.geteuid():
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
            fd = self._open_checked(self._objects, name)
        except FileNotFoundError:
            self._check_alive()
            return None
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            view = memoryview(_read_at(fd, _HEADER_SIZE + len(key_bytes) + _STUB.size, 0))
            header = parse_header(view, status.st_size)
            folder, file_name, size = self._objects, name, status.st_size
            if header.kind == _KIND_STUB:
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
            bool(header.flags & _FLAG_RECIPE),
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
        fd = self._open_checked(self._objects, name)
        try:
            status = os.fstat(fd)
            self._check_file(status, name)
            raw = _read_at(fd, 1024, 0)
            header = parse_header(raw, status.st_size)
            end = _HEADER_SIZE + header.key_length
            if end > len(raw):
                raw = _read_at(fd, end, 0)
        finally:
            os.close(fd)
        return raw[_HEADER_SIZE:end].decode("utf-8", "surrogatepass")

    def usage(self) -> Usage:
        """Count what the run occupies now, in all processes."""
        self._open_main()
        keys, entry_bytes = self._objects.sizes(self._in_ram)
        if not keys:
            self._check_alive()
        segment_bytes = self._segments[b"m"].sizes(self._in_ram)[1]
        disk_keys, disk_bytes = self._segments[b"d"].sizes(False) if b"d" in self._segments else (0, 0)
        if not self._in_ram:
            return Usage(0, 0, entry_bytes + segment_bytes, keys, 0, keys, self._disk_fallbacks)
        return Usage(
            entry_bytes + segment_bytes,
            self.ram_capacity,
            disk_bytes,
            keys,
            keys - disk_keys,
            disk_keys,
            self._disk_fallbacks,
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
                self._ram_used -= _pages(size)
            except FileNotFoundError:
                self._check_alive()
                return False
            finally:
                lock.release()
        if segment is not None:
            segment[0].discard(segment[1])
        self._refill_ballast()
        return True

    def _token_of(self, name: str) -> object:
        folder, file_name = self._stub_target(name) or (self._objects, name)
        fd = self._open_checked(folder, file_name)
        try:
            header = parse_header(_read_at(fd, _HEADER_SIZE, 0), os.fstat(fd).st_size)
        finally:
            os.close(fd)
        return (header.created_ns, header.pid, header.digest)


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096


def _is_abandoned(folder: _Folder, name: str) -> bool:
    """Tell whether nobody is writing the unfinished file any more."""
    try:
        if time.time() - folder.stat(name).st_mtime < 10:
            return False
        lock = _Lock(folder.open(name, os.O_RDWR | _NOFOLLOW | _BINARY))
    except OSError:
        return False
    return _IS_WINDOWS or lock.acquire(wait=False)


def _find_run(root: str, home_name: str, run_id: str) -> _Folder | None:
    """Find a run by its exact id: in the folder of the usual name, else in any private one of this user.

    The owner may use another CONTEXTS_DIR_NAME than this process.
    """
    suffix = "-" + _user()
    try:
        others = [name for name in os.listdir(root) if name.endswith(suffix) and name != home_name]
    except OSError:
        others = []
    for index, name in enumerate([home_name, *others]):
        try:
            return _Folder.open_private(f"run-{run_id}", _Folder.open_private(os.path.join(root, name)))
        except FileNotFoundError:
            continue
        except (StoreInsecure, NotADirectoryError):
            if index == 0:
                raise
    return None


def _make_run(root: str, home_name: str, run_id: str, folders: list[str], with_files: bool) -> tuple[_Folder, _Lock]:
    """Make a run folder that is locked from the first moment others can see it."""
    home = _Home.open(root, home_name, create=True)
    if home is None:
        raise FileNotFoundError(errno.ENOENT, f"{root} does not exist")
    name, young = f"run-{run_id}", f".new-{run_id}"
    with home:
        if home.folder.exists(name):
            home.remove_if_empty()
            raise FileExistsError(errno.EEXIST, f"a live context has the run_id {run_id} already, in {root}")
        try:
            run = home.folder.make(young)
            lock = _Lock(run.open("owner.lock", _CREATE))
            lock.acquire(wait=False)
            os.write(lock.fd, f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            for folder in folders:
                run.make(folder)
            if "objects" in folders:
                os.close(run.open("publish.lock", _CREATE))
            if with_files:
                fd = run.open("ballast", _CREATE)
                try:
                    _write_all(fd, bytes(_BALLAST), 0)
                finally:
                    os.close(fd)
            os.rename(
                home.folder._at(young),
                home.folder._at(name),
                src_dir_fd=home.folder.fd,
                dst_dir_fd=home.folder.fd,
            )
        except BaseException:
            _remove_tree(home.folder, young)
            home.remove_if_empty()
            raise
    run.path = os.path.join(home.folder.path, name)
    return run, lock


def _drop_run(run: _Folder | None, locks: list[_Lock]) -> None:
    """Remove a run folder that this process owns, and the user's folder around it if that was the last."""
    if run is None:
        return
    root, home_name = os.path.split(os.path.dirname(run.path))
    try:
        home = _Home.open(root, home_name, create=False)
        if home is not None:
            with home:
                _remove_tree(home.folder, os.path.basename(run.path))
                home.remove_if_empty()
    except (OSError, StoreError) as exc:
        logger.warning("%s could not be removed (%s); the next start tries again", run.path, exc)
    locks.clear()
