"""Values, taken apart: a pickle stream and the buffers of tensors and arrays, out of band and not copied.

Knows nothing of files; does no I/O.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import StoreUnserializable
from .shared_names import (
    SHARED_NAME,
    rebuild_meta_tensor,
    rebuild_same,
    rebuild_storage,
    rebuild_tensor,
    rebuild_typed_storage,
)

if TYPE_CHECKING:
    import torch

# Smaller buffers stay in the pickle stream, where they cost a copy of at most this much.
IN_BAND_LIMIT = 4096
# Bytes that are fetched from another device at a time: few round trips, little memory.
_DEVICE_PIECE = 8 * 2**20
# From here on dense tensors take a short cut.
_SHORT_CUT = 64 * 1024
# Plain data is given a canonical form up to this many bytes.
_CANONICAL_LIMIT = 64 * 1024


class _StorageRef:
    """Stands for one storage (or one range of it) while one value is pickled; pickle's memo knows it by identity."""

    __slots__ = ("dense", "length", "start", "storage")

    def __init__(self, storage: Any, start: int, length: int) -> None:
        # Kept alive until pickling ends, or its address could be reused by another storage.
        self.storage = storage
        # A tensor that is all of the storage, in order, and that NumPy can look at; None where there was none.
        self.dense: Any = None
        self.start = start
        self.length = length


class DeviceBytes:
    """The bytes of a storage that is not in the CPU's memory, fetched piece by piece while they are written."""

    __slots__ = ("nbytes", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        # uint8, one-dimensional, contiguous.
        self.tensor = tensor
        self.nbytes = tensor.numel()

    def chunks(self) -> Iterator[memoryview]:
        """Fetch the bytes, through memory of a piece's size."""
        for start in range(0, self.nbytes, _DEVICE_PIECE):
            yield self.tensor[start : start + _DEVICE_PIECE].cpu().numpy().data

    def copy_to(self, target: memoryview) -> Iterator[memoryview]:
        """Fetch the bytes straight into ``target``, which is as long; yields each piece of it that is complete."""
        import torch

        for start in range(0, self.nbytes, _DEVICE_PIECE):
            piece = target[start : start + _DEVICE_PIECE]
            torch.frombuffer(piece, dtype=torch.uint8).copy_(self.tensor[start : start + _DEVICE_PIECE])
            yield piece


class _TakenBuffers:
    """The buffers that a pickler hands over. Apart from it: a pickler that held a method of its own would be a cycle,
    and keep what it has pickled alive until the garbage collector comes by.
    """

    __slots__ = ("buffers", "on_device")

    def __init__(self) -> None:
        # memoryviews of bytes, and DeviceBytes.
        self.buffers: list[Any] = []
        # By identity of the (kept) empty buffer that stands for them in pickling.
        self.on_device: dict[int, tuple[pickle.PickleBuffer, DeviceBytes]] = {}

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Called by the pickler with each buffer; True leaves it in the stream."""
        found = self.on_device.get(id(buffer))
        if found is not None:
            self.buffers.append(found[1])
            return False
        view = buffer.raw()
        if view.nbytes < IN_BAND_LIMIT:
            return True
        self.buffers.append(view)
        return False


class Serialized(NamedTuple):
    """A value taken apart: the pickle stream and the buffers that belong to it, nothing copied yet."""

    # The pickle stream in pieces, as the pickler wrote it.
    stream: list[Any]
    # Bytes in the stream.
    stream_length: int
    # Out-of-band buffers: memoryviews of bytes, or DeviceBytes.
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


def bytes_of(storage: Any, start: int, length: int) -> Any:
    """Return the storage's bytes as a flat uint8 tensor sharing its memory."""
    import torch

    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    flat.set_(storage)
    return flat[start : start + length]


def _reduce_storage_ref(pickler: Any, ref: _StorageRef) -> Any:
    if ref.length == 0:
        return rebuild_storage, (b"",)
    if ref.dense is not None:
        return rebuild_storage, (pickle.PickleBuffer(ref.dense.numpy()),)
    flat = bytes_of(ref.storage, ref.start, ref.length)
    if ref.storage.device.type == "cpu":
        return rebuild_storage, (pickle.PickleBuffer(flat.numpy()),)
    placeholder = pickle.PickleBuffer(bytearray())
    pickler.taken.on_device[id(placeholder)] = (placeholder, DeviceBytes(flat))
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
            # As words: some dtypes (uint4, float8) have no kernel for copying, or (complex32) one that warns.
            word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(size, tensor.dtype)
            copied = tensor.detach().view(word).contiguous()
            storage, stride, offset = copied.untyped_storage(), copied.stride(), 0
            length = storage.nbytes()
    ref = pickler.storage_ref(storage, start, length)
    if length >= _SHORT_CUT and numel * size == length and tensor.is_contiguous() and _is_for_numpy(tensor):
        # The common case, a picture by itself, with as few of torch's operations as possible: when the processor's
        # cache is full of pictures, each costs as much as moving a hundred kilobytes.
        ref.dense = tensor.detach() if tensor.requires_grad else tensor
    return rebuild_tensor, (ref, _dtype_name(tensor.dtype), offset, shape, stride, requires_grad)


def _is_for_numpy(tensor: torch.Tensor) -> bool:
    """Tell whether NumPy can look at a tensor's memory."""
    import torch

    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float16, torch.uint8, torch.int64)


def _reduce_array(_pickler: Any, array: Any) -> Any:
    if array.dtype.hasobject:
        return NotImplemented
    # Of one dtype there may be several objects: an array that was loaded has another one than NumPy's scalars. Pickle
    # writes an object that it has seen before as a reference, so that the digest would tell them apart.
    common = sys.modules["numpy"].dtype(array.dtype.str)
    found = array.view(common) if common == array.dtype and common is not array.dtype else array
    # A non-contiguous array would go through the stream, byte by byte; contiguous it goes out of band. Small ones too:
    # they come back contiguous, and have to have the same digest when they are saved again.
    if not found.flags.forc:
        found = found.copy("C")
    return NotImplemented if found is array else found.__reduce_ex__(5)


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


def needs_cloudpickle(what: str) -> str:
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
                raise pickle.PicklingError(needs_cloudpickle(f"{obj.__qualname__}, defined in __main__,"))
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
    if pickler.is_plain and length <= _CANONICAL_LIMIT and not taken.buffers:
        canonical = _canonical(data, length)
    return Serialized(chunks, length, taken.buffers, canonical)


def _unserializable_text(data: Any, key: str, exc: Exception) -> str:
    path, culprit = _find_culprit(data)
    where = f" at {path}" if path != "data" else ""
    text = f"cannot store {key!r}: the {type(culprit).__name__}{where} cannot be pickled ({exc})."
    if not _pickler_class.has_cloudpickle and "cloudpickle" not in text:
        text += " " + needs_cloudpickle("If it is a function, a lambda or a local class, it")
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
