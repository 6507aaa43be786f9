"""The store keeps every value whole, private to its reader, and for nobody else; and leaves nothing behind."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import gc
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.object_store import (
    RunStore,
    StoreClosed,
    StoreCorrupt,
    StoreFull,
    StoreInsecure,
    StoreUnloadable,
    StoreUnserializable,
    UnknownKeyError,
    file_format,
    files,
    serializer,
    shared_names,
)
from PIL import Image

from discomfort import object_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="tests the POSIX paths: flock, dir_fd, SIGKILL")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
MB = 2**20


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def roots(data_roots: tuple[str, str]) -> object_store.Roots:
    """Roots of this test's own."""
    return object_store.find_roots()


@pytest.fixture
def store(roots: object_store.Roots) -> Iterator[RunStore]:
    """A store in shared memory, with a twin on disk."""
    with RunStore.create(roots) as made:
        yield made


class _OnDisk(RunStore):
    """Puts everything into the disk twin: entries are stubs."""

    def put(self, key: str, data: Any, *, use_ram: bool = False, **marks: bool) -> None:
        super().put(key, data, use_ram=False, **marks)


@pytest.fixture(params=["ram", "twin", "disk only", "like Windows"])
def any_store(
    roots: object_store.Roots, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunStore]:
    """The same contract in shared memory, in the twin behind it, where there is no shared memory at all, and by the
    means that Windows has: paths instead of descriptors, and no entry that is ever mapped.
    """
    if request.param in ("disk only", "like Windows"):
        roots = roots._replace(ram=None)
    if request.param == "like Windows":
        monkeypatch.setattr(files, "IS_WINDOWS", True)
    with (_OnDisk if request.param == "twin" else RunStore).create(roots) as made:
        yield made


def child(code: str, *args: Any, wait: bool = True, env: dict[str, str] | None = None) -> Any:
    """Run code in another Python process; its standard output, or (wait=False) the process."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, **(env or {})},
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def count_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def same(left: Any, right: Any) -> bool:
    """Bit for bit, NaN payloads included."""
    if isinstance(left, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape or left.requires_grad != right.requires_grad:
            return False
        flat = [tensor.detach().resolve_conj().resolve_neg().contiguous() for tensor in (left, right)]
        if left.numel() == 0:
            return True
        return bytes(flat[0].view(-1).view(torch.uint8).numpy()) == bytes(flat[1].view(-1).view(torch.uint8).numpy())
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return bool(type(left) is type(right) and left == right)


def files_in(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# --- what may be saved ------------------------------------------------------------------------------------------------

ATTACH = """
    import sys
    from discomfort import object_store
    store = object_store.RunStore.attach(object_store.find_roots(), sys.argv[1])
"""

_PLAIN = [
    None,
    True,
    0,
    2**100,
    -0.0,
    "",
    "ÄÖ\ud800",
    b"",
    bytes(100_000),
    bytearray(b"abc"),
    "x" * 100_000,
    {},
    [],
    (),
    set(),
    {"a": [1, (2, 3)], 7: {"b": None}},
    {1, 2, 3},
    frozenset("ab"),
    range(5),
    complex(1, -2),
    collections.OrderedDict(a=1),
]


@pytest.mark.parametrize("value", _PLAIN, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!r}")
def test_plain_values_come_back_equal(any_store: RunStore, value: Any) -> None:
    any_store.put("key", value)
    assert same(any_store.get("key"), value)


def _bits(dtype: torch.dtype, count: int = 4096) -> torch.Tensor:
    """All bit patterns: NaN payloads, infinities, denormals, -0.0."""
    raw = torch.frombuffer(bytearray(random.Random(1).randbytes(count * 8)), dtype=torch.uint8)
    if dtype == torch.bool:
        return raw[:count] > 127
    return raw.view(dtype)[:count].clone()


_FLOATS = "float64 float32 float16 bfloat16 complex32 complex64 complex128"
_SMALL_FLOATS = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
_INTEGERS = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64"
# What this version of torch has of them.
_DTYPES = [name for names in (_FLOATS, _SMALL_FLOATS, _INTEGERS) for name in names.split() if hasattr(torch, name)]


@pytest.mark.parametrize("name", _DTYPES)
@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
def test_every_dtype_is_bit_exact(store: RunStore, name: str) -> None:
    tensor = _bits(getattr(torch, name))
    for value in (tensor, tensor[:5], tensor[:0], tensor[3]):
        store.put("key", value)
        assert same(store.get("key"), value)


_BASE = torch.arange(2 * 3 * 40 * 50, dtype=torch.float32).reshape(2, 3, 40, 50)


@pytest.mark.parametrize(
    "tensor",
    [
        _BASE,
        torch.tensor(3.5),
        torch.empty(0),
        torch.zeros(0, 3, 64, 4),
        _BASE.permute(0, 2, 3, 1),
        _BASE.contiguous(memory_format=torch.channels_last),
        _BASE[:, :, ::2],
        _BASE[..., :40].transpose(1, 2),
        torch.arange(7.0).expand(1000, 7),
        torch.arange(11)[::2],
    ],
    ids=["plain", "0-dim", "empty", "zero-size", "permuted", "channels_last", "strided", "part", "expanded", "step"],
)
def test_layouts_keep_values_and_strides(any_store: RunStore, tensor: torch.Tensor) -> None:
    any_store.put("key", tensor)
    loaded = any_store.get("key")
    assert same(loaded, tensor)
    assert loaded.stride() == tensor.stride()
    info = any_store.info("key")
    assert info is not None
    assert info.size < tensor.untyped_storage().nbytes() + 8192


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int64])
def test_large_tensors_and_views_of_them_come_back_together(
    any_store: RunStore, dtype: torch.dtype, requires_grad: bool
) -> None:
    whole = torch.arange(200_000).to(dtype).reshape(400, 500)
    if requires_grad and dtype.is_floating_point:
        whole.requires_grad_()
    for value in ([whole, whole[100:300]], [whole[100:300], whole], [whole.T, whole], [whole]):
        any_store.put("key", value)
        loaded = any_store.get("key")
        # (A view of a tensor with gradient is no leaf, and comes back without.)
        assert all(same(left.detach(), right.detach()) for left, right in zip(loaded, value, strict=True))
        assert [tensor.stride() for tensor in loaded] == [tensor.stride() for tensor in value]
        assert len({tensor.untyped_storage().data_ptr() for tensor in loaded}) == 1
    assert any_store.get("key")[0].requires_grad == whole.requires_grad


def test_conjugate_and_negative_views_are_resolved(store: RunStore) -> None:
    value = torch.randn(64, 64, dtype=torch.complex64)
    for view in (value.conj(), value.conj().imag, torch._neg_view(value)):
        store.put("key", view)
        loaded = store.get("key")
        assert torch.equal(loaded, view.resolve_conj().resolve_neg())
        assert not loaded.is_conj()
        assert not loaded.is_neg()


def test_a_small_view_of_a_large_tensor_is_stored_alone(store: RunStore) -> None:
    large = torch.rand(1000, 5000)
    for view in (large[7], large[3:5].t(), large[:, 2], large[5].expand(1000, 5000)[:, :100]):
        store.put("key", view)
        info = store.info("key")
        assert info is not None
        assert info.size < 100_000
        assert torch.equal(store.get("key"), view)


def test_views_of_one_storage_still_share_it(store: RunStore) -> None:
    base = torch.rand(100, 100)
    store.put("key", {"base": base, "same": base, "view": base[10:90], "flat": base.view(-1), "turned": base.t()})
    info = store.info("key")
    assert info is not None
    assert info.size < 1.3 * base.numel() * 4
    loaded = store.get("key")
    assert loaded["base"] is loaded["same"]
    loaded["view"].fill_(-1)
    assert (loaded["base"][10:90] == -1).all()
    assert (loaded["turned"][:, 10:90] == -1).all()
    assert (loaded["flat"].view(100, 100)[10:90] == -1).all()
    assert (loaded["base"][:10] >= 0).all()


def test_a_part_of_what_is_stored_anyway_is_not_stored_twice(store: RunStore) -> None:
    images = torch.rand(64, 100, 100)
    store.put("key", {"images": images, "first": images[:1]})
    info = store.info("key")
    assert info is not None
    assert info.size < images.nbytes + 10_000
    loaded = store.get("key")
    loaded["first"].fill_(-1)
    assert (loaded["images"][0] == -1).all()
    assert (loaded["images"][1] >= 0).all()


def test_gradient_flags_and_parameters(store: RunStore) -> None:
    leaf = torch.rand(50, 50, requires_grad=True)
    store.put("key", [leaf, leaf * 2, torch.nn.Parameter(leaf.detach().clone()), leaf.detach()])
    first, second, parameter, plain = store.get("key")
    assert first.requires_grad
    assert first.is_leaf
    assert torch.equal(first, leaf)
    assert not second.requires_grad
    assert torch.equal(second, leaf * 2)
    assert type(parameter) is torch.nn.Parameter
    assert parameter.requires_grad
    assert not plain.requires_grad


def test_inference_mode_neither_hinders_saving_nor_taints_what_is_loaded(store: RunStore) -> None:
    with torch.inference_mode():
        store.put("key", torch.ones(100, 100))
        loaded = store.get("key")
        loaded.add_(1)
    assert not loaded.is_inference()
    loaded.requires_grad_().sum().backward()
    assert loaded.grad is not None
    assert (store.get("key") == 1).all()


class _Tagged(torch.Tensor):
    pass


@dataclasses.dataclass
class _Latent:
    samples: torch.Tensor
    meta: dict[str, Any]


@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant):UserWarning", "ignore:.*quantiz.*", "ignore:TypedStorage")
def test_special_tensors_come_back_as_what_they_are(store: RunStore) -> None:
    dense = torch.zeros(100, 100)
    dense[3, 4] = 5
    tagged = torch.ones(60, 60).as_subclass(_Tagged)
    tagged.note = "kept"
    attributed = torch.ones(60, 60)
    attributed.note = "kept too"
    meta = torch.empty(1000, 1000, 1000, device="meta", dtype=torch.bfloat16)
    quantized = torch.quantize_per_tensor(torch.rand(60, 60), 0.1, 3, torch.quint8)
    store.put("key", [dense.to_sparse(), dense.to_sparse_csr(), tagged, attributed, meta, quantized])
    coo, csr, tagged, attributed, meta, loaded = store.get("key")
    assert coo.is_sparse
    assert torch.equal(coo.to_dense(), dense)
    assert csr.layout is torch.sparse_csr
    assert torch.equal(csr.to_dense(), dense)
    assert type(tagged) is _Tagged
    assert tagged.note == "kept"
    assert (tagged == 1).all()
    assert attributed.note == "kept too"
    assert meta.is_meta
    assert meta.shape == (1000, 1000, 1000)
    assert meta.dtype == torch.bfloat16
    assert loaded.is_quantized
    assert torch.equal(loaded.int_repr(), quantized.int_repr())


def test_tensors_inside_anything_go_out_of_band(store: RunStore) -> None:
    image = torch.rand(1, 256, 256, 3)
    module = torch.nn.Sequential(torch.nn.Linear(100, 100))
    value = {
        "latent": _Latent(image, {"noise_mask": torch.rand(256, 256), "batch_index": [0]}),
        "conditioning": [[image, {"pooled_output": torch.rand(1, 2048)}]],
        "module": module,
        "storage": image.untyped_storage(),
    }
    parts = serializer.serialize(value)
    assert parts.stream_length < 16_000
    assert sum(buffer.nbytes for buffer in parts.buffers) >= image.numel() * 4 + 256 * 256 * 4 + 100 * 100 * 4
    store.put("key", value)
    loaded = store.get("key")
    assert torch.equal(loaded["latent"].samples, image)
    assert loaded["latent"].meta["batch_index"] == [0]
    assert loaded["conditioning"][0][0] is loaded["latent"].samples
    assert torch.equal(loaded["module"][0].weight, module[0].weight)
    assert loaded["storage"].data_ptr() == loaded["latent"].samples.data_ptr()


def test_arrays_and_pictures(any_store: RunStore) -> None:
    array = np.random.default_rng(0).random((100, 100))
    picture = Image.fromarray((array * 255).astype(np.uint8))
    frozen = array.copy()
    frozen.flags.writeable = False
    records = np.zeros(500, dtype=[("a", "i4"), ("b", "f8", 3)])
    arrays = [array, array.T, array[::2, ::3], frozen, records, np.array(5), np.empty((0, 3)), np.array(["a", None])]
    any_store.put("key", {"arrays": arrays, "picture": picture, "scalar": np.float32(1.5)})
    loaded = any_store.get("key")
    for before, after in zip(arrays[:-1], loaded["arrays"], strict=False):
        assert same(np.ascontiguousarray(before), np.ascontiguousarray(after))
    assert loaded["arrays"][-1].tolist() == ["a", None]
    loaded["arrays"][0] += 1
    assert not loaded["arrays"][3].flags.writeable
    assert loaded["picture"].tobytes() == picture.tobytes()
    assert loaded["picture"].mode == "L"
    assert loaded["scalar"].dtype == np.float32


def test_strided_arrays_do_not_pass_through_the_stream() -> None:
    array = np.random.default_rng(0).random((500, 500))[::2, ::2]
    assert serializer.serialize(array).stream_length < 1000


def test_lambdas_closures_and_local_classes(any_store: RunStore) -> None:
    weight = torch.full((100, 100), 3.0)

    class Local:
        def __init__(self) -> None:
            self.weight = weight

    any_store.put("key", [lambda value: value + weight, Local()])
    function, local = any_store.get("key")
    assert (function(torch.ones(100, 100)) == 4).all()
    assert type(local).__name__ == "Local"
    assert (local.weight == 3).all()


def test_values_that_contain_themselves(store: RunStore) -> None:
    value: dict[str, Any] = {"tensor": torch.rand(100, 100)}
    value["self"] = value
    store.put("key", value)
    loaded = store.get("key")
    assert loaded["self"] is loaded


def test_ten_thousand_small_tensors_cost_no_descriptors_and_little_time(store: RunStore) -> None:
    tensors = [torch.full((4,), float(index)) for index in range(10_000)]
    before, begin = count_fds(), time.perf_counter()
    store.put("key", tensors)
    loaded = store.get("key")
    assert time.perf_counter() - begin < 10
    assert count_fds() <= before + 1
    assert loaded[9999][0] == 9999


def test_bytes_of_other_devices_are_fetched_in_pieces(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU tensor goes through, with a CPU tensor in its place."""
    monkeypatch.setattr(serializer, "_reduce_storage_ref", None)

    def reduce_as_if_elsewhere(pickler: Any, ref: Any) -> Any:
        import pickle

        flat = serializer.bytes_of(ref.storage, ref.start, ref.length)
        placeholder = pickle.PickleBuffer(bytearray())
        pickler.taken.on_device[id(placeholder)] = (placeholder, serializer.DeviceBytes(flat))
        return shared_names.rebuild_storage, (placeholder,)

    monkeypatch.setattr(serializer, "_reduce_storage_ref", reduce_as_if_elsewhere)
    for count in (100, 5_000_000):
        value = {"a": torch.rand(count), "b": np.arange(10_000)}
        store.put("key", value)
        loaded = store.get("key")
        assert torch.equal(loaded["a"], value["a"])
        assert (loaded["b"] == value["b"]).all()


def test_saving_keeps_nothing_of_the_value_alive(store: RunStore) -> None:
    gc.disable()
    try:
        array, tensor = np.ones(10_000), torch.ones(10_000)
        gone = [weakref.ref(array), weakref.ref(tensor)]
        store.put("key", [array, tensor])
        del array, tensor
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


# --- errors in what is saved ------------------------------------------------------------------------------------------


class _Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


@pytest.mark.parametrize("culprit", [threading.Lock(), (n for n in range(3)), _Refuses()], ids=["lock", "gen", "own"])
def test_what_cannot_be_pickled_is_named_with_its_place(store: RunStore, culprit: Any) -> None:
    store.put("key", "before")
    before = count_fds()
    with pytest.raises(StoreUnserializable, match=r"'key'.*data\['list'\]\[1\]\.held") as caught:
        store.put("key", {"fine": torch.rand(100, 100), "list": [0, types.SimpleNamespace(held=culprit)]})
    del caught
    gc.collect()
    assert store.get("key") == "before"
    assert count_fds() == before
    assert store.usage().keys == 1
    store.put("key", "after")


def test_a_value_may_save_others_while_it_is_pickled(store: RunStore) -> None:
    class Nosy:
        def __reduce__(self) -> Any:
            store.put("other", "saved on the way")
            return int, (7,)

    store.put("key", Nosy())
    assert store.get("key") == 7
    assert store.get("other") == "saved on the way"


def test_a_class_the_reader_lacks_is_a_clear_error_and_harms_nothing(store: RunStore) -> None:
    child(
        ATTACH
        + """
    import types
    module = sys.modules["only_here"] = types.ModuleType("only_here")
    class Thing: pass
    Thing.__module__, Thing.__qualname__ = "only_here", "Thing"
    module.Thing = Thing
    store.put("key", Thing())
    """,
        store.run_id,
    )
    with pytest.raises(StoreUnloadable, match=r"'key'.*only_here"):
        store.get("key")
    assert store.list_keys() == ["key"]


def test_classes_of_main_travel_by_value(store: RunStore) -> None:
    child(
        ATTACH
        + """
    class Thing:
        def __init__(self): self.value = 5
        def double(self): return 2 * self.value
    store.put("key", Thing())
    """,
        store.run_id,
    )
    assert store.get("key").double() == 10


_WITHOUT = """
    import sys
    for name in {names!r}: sys.modules[name] = None
"""


def test_without_cloudpickle_data_works_and_the_rest_says_what_to_install(store: RunStore) -> None:
    store.put("lambda", lambda: 3)
    out = child(
        _WITHOUT.format(names=["cloudpickle"])
        + ATTACH
        + """
    import numpy
    store.put("data", {"a": numpy.ones(10000), "b": [1, "x"]})
    print(store.get("data")["a"].sum())
    class Thing: pass
    for value in (lambda: 3, Thing()):
        try: store.put("bad", {"x": [value]})
        except object_store.StoreUnserializable as exc: print(exc)
    try: store.get("lambda")
    except object_store.StoreUnloadable as exc: print(exc)
    """,
        store.run_id,
    )
    lines = out.splitlines()
    assert lines[0] == "10000.0"
    assert len(lines) == 4
    assert all("pip install -r requirements.txt" in line and sys.executable in line for line in lines[1:])
    assert "data['x'][0]" in lines[1]
    assert "Thing" in lines[2]
    assert (store.get("data")["a"] == 1).all()


def test_without_xxhash_small_values_are_hashed_otherwise_and_large_ones_are_unique(store: RunStore) -> None:
    out = child(
        _WITHOUT.format(names=["xxhash"])
        + ATTACH
        + """
    for key, value in (("a", 1), ("b", 1), ("c", bytes(17 << 20)), ("d", bytes(17 << 20))):
        store.put(key, value)
        print(store.info(key).digest)
    """,
        store.run_id,
    )
    first, second, third, fourth = out.split()
    assert first == second
    assert first.startswith("blake2b:")
    assert third != fourth
    assert third.startswith("unique:")
    assert store.get("a") == 1
    assert len(store.get("c")) == 17 << 20


# --- digests ----------------------------------------------------------------------------------------------------------

_SAME_EVERYWHERE = """
    import json, numpy, torch
    def dynamic(text): return "".join(list(text))
    values = {
        "text": dynamic("a cat"),
        "json": json.loads('{"a": ["x", "x", {"x": 1.5}], "b": null}'),
        "tensor": torch.arange(100000.0).reshape(100, 1000),
        "small": torch.arange(10),
        "latent": {"samples": torch.ones(1, 4, 64, 64), "batch_index": [0]},
        "array": numpy.arange(5000.0),
        "sparse": torch.eye(64).to_sparse(),
    }
    for key, value in values.items(): store.put(key, value)
    print(json.dumps({key: store.info(key).digest for key in values}))
"""


def test_equal_content_has_equal_digests_in_every_process_and_run(roots: object_store.Roots) -> None:
    outs = []
    with RunStore.create(roots) as one, RunStore.create(roots) as two:
        outs.append(child(ATTACH + _SAME_EVERYWHERE, one.run_id, env={"PYTHONHASHSEED": "1"}))
        outs.append(child(ATTACH + _SAME_EVERYWHERE, two.run_id, env={"PYTHONHASHSEED": "2"}))
        digests = json.loads(outs[0])
        assert digests == json.loads(outs[1])
        assert len(set(digests.values())) == len(digests)
        text = "x"
        again = {
            "json": {"a": [text, text, {text: 1.5}], "b": None},
            "tensor": torch.arange(100000.0).reshape(100, 1000),
            "latent": {"samples": torch.ones(1, 4, 64, 64), "batch_index": [0]},
        }
        for key, value in again.items():
            one.put(key, value)
        for key in digests:
            # What was loaded and saved again is still the same; where it lies does not matter.
            two.put(key, one.get(key), use_ram=key != "tensor")
            for store in (one, two):
                info = store.info(key)
                assert info is not None
                assert info.digest == digests[key], key


def test_different_content_has_different_digests(store: RunStore) -> None:
    tensor = torch.zeros(100_000)
    changed = tensor.clone()
    changed[77_777] = 1e-30
    values = [
        tensor,
        changed,
        tensor.reshape(100, 1000),
        tensor.to(torch.int32),
        0,
        0.0,
        False,
        -0.0,
        "",
        b"",
        [1, 2],
        (1, 2),
        [tensor[:10], 0],
        ["ab", "c"],
        ["a", "bc"],
    ]
    digests = []
    for value in values:
        store.put("key", value)
        info = store.info("key")
        assert info is not None
        digests.append(info.digest)
    assert len(set(digests)) == len(values)


def test_a_digest_is_readable_without_loading(store: RunStore) -> None:
    store.put("key", torch.rand(10_000_000))
    begin = time.perf_counter()
    for _ in range(100):
        store.info("key")
    assert time.perf_counter() - begin < 0.1


# --- what is loaded is private ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 10_000, 1_000_000])
def test_writing_in_place_changes_only_the_writer(any_store: RunStore, count: int) -> None:
    any_store.put("key", torch.zeros(count))
    info = any_store.info("key")
    assert info is not None
    before = zlib.crc32(Path(info.path).read_bytes())
    mine, other = any_store.get("key"), any_store.get("key")
    mine.add_(7)
    mine.numpy()[0] = 9
    assert mine[0] == 9
    assert mine[-1] == 7
    assert (other == 0).all()
    assert (any_store.get("key") == 0).all()
    assert zlib.crc32(Path(info.path).read_bytes()) == before


def test_the_saved_value_does_not_follow_its_source(any_store: RunStore) -> None:
    source = torch.zeros(100_000)
    any_store.put("key", source)
    source.fill_(5)
    assert (any_store.get("key") == 0).all()


def test_overwriting_hurts_nobody_who_has_the_old_value(any_store: RunStore) -> None:
    held = []
    for number in range(100):
        any_store.put("key", torch.full((50_000,), float(number)))
        held.append(any_store.get("key"))
    assert any_store.delete("key")
    for number, tensor in enumerate(held):
        assert (tensor == number).all()


def test_a_slice_keeps_its_data_and_the_last_one_releases_the_descriptor(store: RunStore) -> None:
    store.put("key", torch.arange(1_000_000))
    before = count_fds()
    part = store.get("key")[500_000:500_010]
    store.delete("key")
    gc.collect()
    assert part.tolist() == list(range(500_000, 500_010))
    del part
    gc.collect()
    assert count_fds() == before


def test_a_mapping_cannot_be_closed_under_a_tensor(store: RunStore) -> None:
    store.put("key", torch.arange(1_000_000))
    tensor = store.get("key")
    info = store.info("key")
    assert info is not None
    fd = os.open(info.path, os.O_RDONLY)
    view = files.view_file(fd, info.size, 2**20)
    os.close(fd)
    array = np.frombuffer(view, np.uint8)
    with pytest.raises(BufferError):
        view.obj.close()
    assert array[-1] == 0
    assert tensor[-1] == 999_999


def test_values_stay_valid_after_close(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as store:
        store.put("key", torch.arange(1_000_000))
        store.put("disk", torch.arange(1_000_000), use_ram=False)
        loaded = [store.get("key"), store.get("disk")]
    for tensor in loaded:
        tensor.add_(1)
        assert tensor[-1] == 1_000_000


def test_five_thousand_live_tensors_fit_into_few_descriptors(store: RunStore) -> None:
    store.put("key", np.ones(20_000))
    out = child(
        """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    """
        + ATTACH
        + """
    import numpy
    held = [store.get("key") for _ in range(5000)]
    store.put("other", 1)
    print(sum(int(array[-1]) for array in held), store.get("other"))
    """,
        store.run_id,
    )
    assert out.split() == ["5000", "1"]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_any_string_is_a_key(any_store: RunStore) -> None:
    keys = [
        "",
        "/",
        "../x",
        "k" * 3000,
        "\u00e9",
        "e\u0301",
        "A",
        "a",
        "nul\0",
        "new\nline",
        ".",
        "..",
        "\ud800",
        "con",
    ]
    for number, key in enumerate(keys):
        any_store.put(key, number)
    assert any_store.list_keys() == sorted(keys)
    assert [any_store.get(key) for key in keys] == list(range(len(keys)))
    assert all(any_store.delete(key) for key in keys)
    assert any_store.list_keys() == []
    assert not any_store.delete("a")
    with pytest.raises(TypeError, match="string"):
        any_store.put(7, "value")  # type: ignore[arg-type]


def test_a_missing_key_is_named_with_those_that_exist(any_store: RunStore) -> None:
    any_store.put("image", 1)
    with pytest.raises(UnknownKeyError, match=r"'imgae'.*stored are: 'image'"):
        any_store.get("imgae")
    assert any_store.info("imgae") is None


def test_info_and_usage(any_store: RunStore) -> None:
    any_store.put("key", np.zeros(MB, np.uint8), is_recipe=True)
    any_store.put("small", 1)
    info, usage = any_store.info("key"), any_store.usage()
    assert info is not None
    assert info.is_recipe
    assert info.pid == os.getpid()
    assert os.path.getsize(info.path) == info.size >= info.data_size >= MB
    assert info.storage_type == ("ram" if type(any_store) is RunStore and any_store._in_ram else "disk")
    small = any_store.info("small")
    assert small is not None
    assert not small.is_recipe
    assert small.storage_type == info.storage_type
    assert usage.keys == 2 == usage.ram_keys + usage.disk_keys
    assert (usage.ram_bytes if info.storage_type == "ram" else usage.disk_bytes) >= MB
    any_store.delete("key")
    any_store.delete("small")
    assert any_store.usage()[0] == any_store.usage().disk_bytes == any_store.usage().keys == 0


def test_moving_between_the_tiers_leaves_nothing_behind(store: RunStore) -> None:
    for number in range(20):
        store.put("key", np.full(200_000, number), use_ram=number % 3 == 0)
        assert store.get("key")[0] == number
        assert store.usage().keys == 1
        assert store.usage().disk_keys == (number % 3 > 0)
    store.put("key", 1)
    assert store.usage().disk_bytes == 0
    assert store.usage().ram_bytes == 4096


# --- capacity ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_goes_to_disk_with_one_line(
    roots: object_store.Roots, caplog: pytest.LogCaptureFixture
) -> None:
    with RunStore.create(roots, ram_limit=3 * MB) as store:
        for number in range(5):
            store.put(f"key{number}", np.full(MB, number, np.uint8))
        usage = store.usage()
        assert (usage.ram_keys, usage.disk_keys, usage.disk_fallbacks) == (2, 3, 3)
        assert usage.ram_bytes <= usage.ram_capacity == 3 * MB
        assert [int(store.get(f"key{number}")[-1]) for number in range(5)] == list(range(5))
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert "'key2'" in lines[0]
        assert "--shm-size" in lines[0]
        store.delete("key0")
        store.put("key5", np.zeros(MB, np.uint8))
        info = store.info("key5")
        assert info is not None
        assert info.storage_type == "ram"


def test_other_processes_objects_count(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=3 * MB) as store:
        child(ATTACH + "    store.put('theirs', bytes(2 << 20))", store.run_id)
        store._room._measured_at = float("-inf")
        store.put("mine", bytes(2 * MB))
        info = store.info("mine")
        assert info is not None
        assert info.storage_type == "disk"


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Mounts real tmpfs filesystems of a few MB."""
    mounted: list[str] = []

    def mount(megabytes: int) -> str:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount a small tmpfs")
        path = tmp_path / f"tmpfs{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this machine does not let us mount a tmpfs: {done.stderr.strip()}")
        mounted.append(str(path))
        return str(path)

    try:
        yield mount
        left = {path: os.listdir(path) for path in mounted}
    finally:
        # Errors that a test caught hold frames, and these hold open folders.
        gc.collect()
        for path in mounted:
            subprocess.run(["umount", path], check=True)
    assert not any(left.values()), left


def _free(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def test_a_tmpfs_of_64_mb_takes_what_fits_and_the_disk_the_rest(
    roots: object_store.Roots, small_tmpfs: Callable[[int], str]
) -> None:
    """A Docker container's /dev/shm: never SIGBUS, never a part of an object."""
    ram = small_tmpfs(64)
    with RunStore.create(roots._replace(ram=ram)) as store:
        free = _free(ram)
        value = np.random.default_rng(0).random(100 * MB // 8)
        store.put("large", value)
        info = store.info("large")
        assert info is not None
        assert info.storage_type == "disk"
        assert free - _free(ram) <= 8192
        assert (store.get("large") == value).all()
        store.put("fits", value[: 20 * MB // 8])
        info = store.info("fits")
        assert info is not None
        assert info.storage_type == "ram"


def test_memory_that_fills_up_while_writing_leaves_no_part(
    roots: object_store.Roots, small_tmpfs: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A competitor takes the space between our look and our write."""
    ram = small_tmpfs(8)
    with RunStore.create(roots._replace(ram=ram)) as store:
        store.put("key", "before")
        monkeypatch.setattr(store._room, "refusal", lambda need: "")
        store.put("key", bytes(20 * MB))
        info = store.info("key")
        assert info is not None
        assert info.storage_type == "disk"
        assert len(store.get("key")) == 20 * MB
        assert store.usage().ram_bytes == 4096


_COMPETITOR = """
    import os, sys
    path = sys.argv[1] + "/filler"
    print("ready", flush=True)
    while True:
        with open(path, "wb", buffering=0) as file:
            try:
                while file.write(bytes(262144)):
                    pass
            except OSError:
                pass
        os.unlink(path)
"""


def test_another_program_that_fills_and_frees_the_memory_all_the_time_costs_no_value(
    roots: object_store.Roots, small_tmpfs: Callable[[int], str]
) -> None:
    """Wherever it takes the last page, before, during or after our writing: a value is whole, in memory or on disk.
    Only where it is quick enough to take even what we kept in reserve, saving is refused, and the old value stays.
    """
    ram = small_tmpfs(24)
    with RunStore.create(roots._replace(ram=ram)) as store:
        competitor = child(_COMPETITOR, ram, wait=False)
        model: dict[str, tuple[int, int]] = {}
        places: collections.Counter[str] = collections.Counter()
        try:
            assert competitor.stdout.readline() == "ready\n"
            for number in range(600):
                size, key = (100, 70_000, 5_000_000)[number % 3], f"key{number % 4}"
                try:
                    store.put(key, np.full(size, number % 256, np.uint8))
                    model[key] = size, number % 256
                except StoreFull:
                    places["refused"] += 1
                if key in model:
                    loaded, info = store.get(key), store.info(key)
                    assert len(loaded) == model[key][0]
                    assert (loaded == model[key][1]).all()
                    assert info is not None
                    places[info.storage_type] += 1
                    del loaded
        finally:
            stop(competitor)
            competitor.stdout.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(ram, "filler"))
        assert places["ram"]
        assert places["disk"]
        assert places["refused"] < 300
        for key in store.list_keys():
            store.delete(key)
        assert store.usage().ram_bytes == store.usage().disk_bytes == 0


def _fill(path: str) -> None:
    """Write until nothing more fits, not even a byte."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(65536)):
            pass
    assert _free(os.path.dirname(path)) == 0


def test_a_full_memory_still_takes_the_entries_of_what_goes_to_disk(
    roots: object_store.Roots, small_tmpfs: Callable[[int], str]
) -> None:
    ram = small_tmpfs(4)
    with RunStore.create(roots._replace(ram=ram)) as store:
        store.put("key", "before")
        filler = os.path.join(ram, "filler")
        _fill(filler)
        for number in range(20):
            store.put(f"key{number}", [number])
        assert [store.get(f"key{number}") for number in range(20)] == [[number] for number in range(20)]
        os.unlink(filler)
        store.delete("key0")
        assert os.path.getsize(os.path.join(store._entries.open_main().path, "ballast")) == MB


def test_when_memory_and_disk_are_full_the_old_value_stays(
    roots: object_store.Roots, small_tmpfs: Callable[[int], str]
) -> None:
    ram, disk = small_tmpfs(4), small_tmpfs(4)
    with RunStore.create(roots._replace(ram=ram, disk=disk)) as store:
        store.put("key", "before")
        free = _free(disk)
        with pytest.raises(StoreFull, match=r"'key', 30\.0 MB.*memory: .*disk: .*free.*--shm-size") as caught:
            store.put("key", bytes(30 * MB))
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == errno.ENOSPC
        assert store.get("key") == "before"
        assert _free(disk) == free
        store.put("small", bytes(MB))
        assert store.delete("key")
        assert store.list_keys() == ["small"]


def test_short_writes_are_continued(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, memoryview(data)[: len(data) // 3 + 1], at))
    value = np.random.default_rng(0).random(100_000)
    store.put("key", value)
    monkeypatch.undo()
    assert (store.get("key") == value).all()


def test_objects_of_more_than_4_gib(store: RunStore) -> None:
    if "DISCOMFORT_SLOW_TESTS" not in os.environ:
        pytest.skip("writes 4.5 GB; set DISCOMFORT_SLOW_TESTS=1")
    value = {"a": np.zeros(2**32 + 4096, np.uint8), "b": np.arange(1000)}
    value["a"][-1] = 7
    store.put("key", value)
    loaded = store.get("key")
    assert loaded["a"][-1] == 7
    assert len(loaded["a"]) == 2**32 + 4096
    assert (loaded["b"] == value["b"]).all()


def test_peak_memory_of_a_save_is_the_value_itself(store: RunStore) -> None:
    out = child(
        ATTACH
        + """
    import numpy, resource
    store.put("first", numpy.ones(100000))
    value = numpy.ones(25_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.put("key", {"value": value})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """,
        store.run_id,
    )
    assert int(out) * 1024 < 64 * MB


def test_free_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:   8000000 kB\n")
    assert object_store.free_ram_bytes(str(tmp_path)) == 8_000_000 * 1024
    write("proc/self/cgroup", "0::/a/b\n")
    write("sys/fs/cgroup/a/memory.max", "1000000\n")
    write("sys/fs/cgroup/a/memory.current", "900000\n")
    write("sys/fs/cgroup/a/memory.stat", "anon 5\nactive_file 20000\ninactive_file 30000\n")
    write("sys/fs/cgroup/a/b/memory.max", "max\n")
    assert object_store.free_ram_bytes(str(tmp_path)) == 150_000
    write("proc/self/cgroup", "5:cpu:/x\n4:memory:/old\n")
    write("sys/fs/cgroup/memory/old/memory.limit_in_bytes", "700000\n")
    write("sys/fs/cgroup/memory/old/memory.usage_in_bytes", "650000\n")
    assert object_store.free_ram_bytes(str(tmp_path)) == 50_000


def test_the_filesystem_of_a_path_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw\n"
        "3 1 0:3 / /mnt/a\\040b rw - xfs /dev/b rw\n"
    )
    answers = [object_store.filesystem_type(path, str(mounts)) for path in ("/dev/shm/x", "/mnt/a b/c", "/dev/shmx")]
    assert answers == ["tmpfs", "xfs", "ext4"]


# --- several processes ------------------------------------------------------------------------------------------------

_HAMMER = (
    ATTACH
    + """
    number = 0
    print("ready", flush=True)
    while True:
        number += 1
        size = (100, 70_000, 3_000_000)[number % 3]
        store.put(f"key{number % 5}", (number, bytes([number % 256]) * size), use_ram=number % 4 > 0)
"""
)


def test_a_writer_killed_at_any_moment_leaves_only_whole_values(store: RunStore) -> None:
    random_delay = random.Random(0)
    for _ in range(12):
        writer = child(_HAMMER, store.run_id, wait=False)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(random_delay.random() * 0.1)
        stop(writer)
        for key in store.list_keys():
            number, data = store.get(key)
            assert len(data) == (100, 70_000, 3_000_000)[number % 3]
            assert set(data) == {number % 256}
    store.put("alive", 1)
    # What the writers were writing is removed when the next process attaches; ten seconds are past by then.
    segments = [folder.path for folder in store._entries.segments.values()]
    for folder in segments:
        for name in os.listdir(folder):
            if name.endswith(".tmp"):
                os.utime(os.path.join(folder, name), (0, 0))
    RunStore.attach(store._roots, store.run_id).close()
    usage = store.usage()
    assert [name for folder in segments for name in os.listdir(folder) if name.endswith(".tmp")] == []
    assert len(os.listdir(segments[1])) == usage.disk_keys
    assert all(store.info(key) for key in store.list_keys())


def test_a_file_that_is_being_written_is_not_taken_for_abandoned(store: RunStore) -> None:
    folder = store._entries.segments[b"m"]

    def write(fd: int) -> None:
        os.utime(fd, (0, 0))
        store._room.reap()
        assert folder.exists("0" * 32 + ".tmp")

    store._entries.write_file(folder, "0" * 32 + ".tmp", write)
    store._room.reap()
    assert not folder.exists("0" * 32 + ".tmp")


def test_two_writers_of_one_key_one_wins_whole_and_nothing_is_orphaned(store: RunStore) -> None:
    code = (
        ATTACH
        + """
    for number in range(400):
        store.put("key", (sys.argv[2], bytes(sys.argv[2], "ascii") * 70_000), use_ram=sys.argv[2] == "r")
    """
    )
    writers = [child(code, store.run_id, name, wait=False) for name in "rdd"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if "key" in store.list_keys():
            name, data = store.get("key")
            assert data == bytes(name, "ascii") * 70_000
            seen.add(name)
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    usage = store.usage()
    assert seen
    assert usage.keys == 1
    assert files_in(store._entries.segments[b"d"].path + "/..").count("owner.lock") == 1
    assert len(os.listdir(store._entries.segments[b"d"].path)) == usage.disk_keys
    store.delete("key")
    assert store.usage().disk_bytes == 0
    assert os.listdir(store._entries.segments[b"m"].path) == []


def test_threads_share_a_store(store: RunStore) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(150):
                number = chance.randrange(256)
                key = f"key{chance.randrange(4)}"
                store.put(key, np.full(chance.choice((10, 20_000)), number), use_ram=chance.random() < 0.7)
                assert len(set(store.get(key).tolist())) == 1
                store.list_keys()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.usage().disk_keys == len(os.listdir(store._entries.segments[b"d"].path))


def test_closing_under_working_threads_ends_them_cleanly(roots: object_store.Roots) -> None:
    for _ in range(5):
        store = RunStore.create(roots)
        store.put("key", np.ones(50_000))
        ends: list[type] = []

        def work(store: RunStore = store, ends: list[type] = ends) -> None:
            try:
                while True:
                    store.put("key", np.ones(50_000))
                    store.get("key")
            except BaseException as exc:
                ends.append(type(exc))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        store.close()
        for thread in threads:
            thread.join()
        assert ends == [StoreClosed] * 3


# --- owners, the living and the dead ----------------------------------------------------------------------------------

_OWNER = """
    import sys
    from discomfort import object_store
    store = object_store.RunStore.create(object_store.find_roots())
    store.put("ram", bytes(200_000))
    store.put("disk", bytes(200_000), use_ram=False)
    print(store.run_id, flush=True)
"""


def test_a_killed_owner_is_swept_by_the_next_and_a_living_one_is_left_alone(roots: object_store.Roots) -> None:
    killed = child(_OWNER + "    sys.stdin.read()", wait=False)
    dead_id = killed.stdout.readline().strip()
    with RunStore.create(roots) as sibling:
        sibling.put("key", "alive")
        stop(killed)
        homes = [os.path.join(root, roots.home_name) for root in (roots.ram, roots.disk) if root]
        dead = [os.path.join(home, f"run-{dead_id}") for home in homes]
        assert all(map(os.path.isdir, dead))
        with pytest.raises(FileNotFoundError, match=dead_id):
            RunStore.attach(roots, dead_id)
        assert sorted(object_store.sweep(roots)) == sorted(dead)
        assert not any(map(os.path.exists, dead))
        assert sibling.get("key") == "alive"
        assert object_store.sweep(roots) == []
    assert not any(map(os.path.exists, homes))


def test_a_new_owner_sweeps_and_may_take_a_dead_run_id(roots: object_store.Roots) -> None:
    run_id = child(_OWNER + "    import os; os._exit(1) if len(sys.argv) > 1 else os.kill(os.getpid(), 9)", wait=False)
    dead_id = run_id.stdout.readline().strip()
    run_id.communicate()
    with RunStore.create(roots, dead_id) as store:
        assert store.list_keys() == []
        with pytest.raises(FileExistsError, match=dead_id):
            RunStore.create(roots, dead_id)
        assert store.is_alive()


def test_the_process_number_in_the_lock_file_means_nothing(roots: object_store.Roots) -> None:
    """A dead owner whose pid belongs to a living process by now is still dead."""
    owner = child(_OWNER + "    sys.stdin.read()", wait=False)
    dead_id = owner.stdout.readline().strip()
    stop(owner)
    assert roots.ram is not None
    Path(roots.ram, roots.home_name, f"run-{dead_id}", "owner.lock").write_text(f"pid {os.getpid()}\n")
    assert len(object_store.sweep(roots)) == 2


def test_a_run_that_was_being_made_is_swept(roots: object_store.Roots) -> None:
    assert roots.ram is not None
    young = Path(roots.ram, roots.home_name, ".new-" + "1" * 32)
    young.mkdir(parents=True, mode=0o700)
    young.parent.chmod(0o700)
    assert object_store.sweep(roots) == [str(young)]


def test_a_twin_whose_memory_is_gone_is_swept(roots: object_store.Roots) -> None:
    """A reboot empties /dev/shm, and not the disk."""
    owner = child(_OWNER + "    sys.stdin.read()", wait=False)
    owner.stdout.readline()
    stop(owner)
    assert roots.ram is not None
    shutil.rmtree(os.path.join(roots.ram, roots.home_name))
    assert len(object_store.sweep(roots)) == 1


def test_a_twin_on_another_disk_is_swept_with_its_run(roots: object_store.Roots, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    owner = child(_OWNER + "    sys.stdin.read()", wait=False, env={"DISCOMFORT_DISK_ROOT": str(other)})
    owner.stdout.readline()
    stop(owner)
    assert len(object_store.sweep(roots)) == 2
    assert list(other.iterdir()) == []


def test_attaching_reads_no_data(roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunStore.create(roots) as store:
        store.put("in memory", np.zeros(8 * MB, np.uint8))
        store.put("on disk", np.zeros(8 * MB, np.uint8), use_ram=False)
        sizes: list[int] = []
        real = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, count, at: sizes.append(count) or real(fd, count, at))
        RunStore.attach(roots, store.run_id).close()
        assert sizes
        assert max(sizes) < 4096


def test_an_attached_process_only_detaches(store: RunStore) -> None:
    store.put("key", 5)
    out = child(ATTACH + "    print(store.get('key'), store.is_owner); store.close(); store.close()", store.run_id)
    assert out.split() == ["5", "False"]
    assert store.get("key") == 5


def test_after_the_owner_closed_an_attached_store_says_so(roots: object_store.Roots) -> None:
    owner = RunStore.create(roots)
    owner.put("key", 1)
    attached = RunStore.attach(roots, owner.run_id)
    owner.close()
    owner.close()
    for use in (
        lambda: attached.get("key"),
        lambda: attached.put("key", 1),
        lambda: attached.put("key", 1, use_ram=False),
        lambda: attached.delete("key"),
        lambda: owner.put("key", 1),
        lambda: owner.get("key"),
        owner.list_keys,
        owner.usage,
    ):
        with pytest.raises(StoreClosed, match=owner.run_id):
            use()
    assert not attached.is_alive()
    attached.close()


def test_closing_returns_all_descriptors(roots: object_store.Roots) -> None:
    gc.collect()
    before = count_fds()
    stores = []
    for _ in range(3):
        owner = RunStore.create(roots)
        owner.put("key", 1)
        attached = RunStore.attach(roots, owner.run_id)
        attached.get("key")
        attached.close()
        owner.close()
        stores += [owner, attached]
    assert count_fds() == before


def test_a_forked_child_uses_the_store_and_never_deletes_it(store: RunStore) -> None:
    store.put("key", np.arange(50_000))
    held = store.get("key")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            held += 1
            store.put("child", int(held[0]))
            store.put("disk", bytes(100_000), use_ram=False)
            owned = store.is_owner
            store.close()
            code = 1 if owned else 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.is_owner
    assert store.get("child") == 1
    assert held[0] == 0
    assert (store.get("key") == np.arange(50_000)).all()


def test_a_forked_child_that_outlives_the_owner_does_not_keep_the_run(roots: object_store.Roots) -> None:
    owner = child(
        _OWNER
        + """
    import os, signal
    pid = os.fork()
    if pid == 0:
        print(os.getpid(), flush=True)
        os.close(1); os.close(2)
        while True: signal.pause()
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
    """,
        wait=False,
    )
    owner.stdout.readline()
    orphan = int(owner.stdout.readline())
    try:
        owner.stdin.write("die\n")
        owner.stdin.flush()
        owner.wait()
        assert len(object_store.sweep(roots)) == 2
    finally:
        os.kill(orphan, signal.SIGKILL)
        owner.communicate()


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100_000], ids=["read", "mapped"])
def test_damage_to_any_byte_of_the_header_is_noticed(store: RunStore, size: int) -> None:
    store.put("key", np.ones(size, np.uint8))
    info = store.info("key")
    assert info is not None
    path = Path(info.path)
    whole = path.read_bytes()
    meta_end = struct.unpack_from("<Q", whole, 32)[0]
    for at in range(meta_end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(StoreCorrupt, match="'key'"):
            store.get("key")
    for length in (0, 1, 127, 128, meta_end, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreCorrupt, match="'key'"):
            store.get("key")
    path.write_bytes(whole + b"x")
    if size > 65536:
        # A segment may be longer than what was written into it last.
        assert same(store.get("key"), np.ones(size, np.uint8))
        return
    with pytest.raises(StoreCorrupt, match="'key'"):
        store.get("key")
    path.write_bytes(whole)
    assert len(store.get("key")) == size


def _forge(whole: bytes, **fields: int) -> bytes:
    """Change header fields and make the checksums right again: an attacker, not an accident."""
    header = file_format.Header._make(file_format.HEADER.unpack_from(whole))._replace(**fields)  # type: ignore[arg-type]
    end = 128 + header.key_length + 16 * min(header.buffer_count, 100)
    header = header._replace(meta_crc=zlib.crc32(whole[128:end]), header_crc=0)
    raw = bytearray(file_format.HEADER.pack(*header))
    struct.pack_into("<I", raw, 12, zlib.crc32(raw))
    return bytes(raw) + whole[128:]


def test_impossible_headers_are_refused_without_giant_allocations(store: RunStore) -> None:
    store.put("key", np.ones(100_000, np.uint8))
    info = store.info("key")
    assert info is not None
    path = Path(info.path)
    whole = path.read_bytes()
    for fields in (
        {"buffer_count": 2**32 - 1},
        {"buffer_count": 5},
        {"key_length": 2**32 - 1},
        {"key_length": 0},
        {"total": 2**63},
        {"stream_length": 2**63},
        {"stream_offset": 0},
        {"kind": 7},
        {"kind": 2},
        {"version": 3},
    ):
        path.write_bytes(_forge(whole, **fields))
        with pytest.raises(StoreCorrupt, match="'key'"):
            store.get("key")
    table = 128 + len("key")
    for row in (struct.pack("<QQ", 2**60, 10), struct.pack("<QQ", 0, 100_000), struct.pack("<QQ", 4096, 2**40)):
        path.write_bytes(_forge(whole[:table] + row + whole[table + 16 :]))
        with pytest.raises(StoreCorrupt, match="'key'"):
            store.get("key")
    store.put("key", "replaced")
    assert store.get("key") == "replaced"


def test_a_stub_names_only_segments_of_its_run(store: RunStore) -> None:
    store.put("key", "value", use_ram=False)
    entry = Path(store._entries.objects.path, os.listdir(store._entries.objects.path)[0])
    whole = entry.read_bytes()
    for target in (b"../../../../etc/passwd".ljust(32, b"x"), b"/" * 32, b"\xff" * 32):
        entry.write_bytes(_forge(whole[:-40] + target + whole[-8:]))
        with pytest.raises(StoreCorrupt, match="no segment"):
            store.get("key")
    entry.write_bytes(whole)
    assert store.get("key") == "value"


def test_damaged_entries_are_left_out_of_the_list(store: RunStore, caplog: pytest.LogCaptureFixture) -> None:
    store.put("good", 1)
    Path(store._entries.objects.path, "f" * 32).write_bytes(b"rubbish")
    assert store.list_keys() == ["good"]
    assert "f" * 32 in caplog.text


# --- hostile folders --------------------------------------------------------------------------------------------------


def test_a_home_that_others_could_have_prepared_is_refused(roots: object_store.Roots, tmp_path: Path) -> None:
    assert roots.ram is not None
    home = Path(roots.ram, roots.home_name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    home.symlink_to(elsewhere)
    with pytest.raises(StoreInsecure, match="link"):
        RunStore.create(roots)
    home.unlink()
    home.write_text("a file")
    with pytest.raises(StoreInsecure, match="not a real folder"):
        RunStore.create(roots)
    home.unlink()
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(StoreInsecure, match="chmod 700"):
        RunStore.create(roots)
    assert list(home.iterdir()) == []
    assert list(elsewhere.iterdir()) == []
    home.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_read(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as store:
        store.put("key", 1)
        info = store.info("key")
        assert info is not None
        os.chown(info.path, 12345, -1)
        with pytest.raises(StoreInsecure, match="12345"):
            store.get("key")
        assert store.list_keys() == []
        main = store._entries.open_main().path
        os.chown(main, 12345, -1)
        with pytest.raises(StoreInsecure, match="12345"):
            RunStore.attach(roots, store.run_id)
        os.chown(main, 0, -1)


def test_links_and_fifos_in_an_entrys_place_are_not_read(store: RunStore, tmp_path: Path) -> None:
    store.put("key", 1)
    info = store.info("key")
    assert info is not None
    target = tmp_path / "target"
    shutil.move(info.path, target)
    os.symlink(target, info.path)
    with pytest.raises(StoreInsecure, match="link"):
        store.get("key")
    os.unlink(info.path)
    os.mkfifo(info.path)
    with pytest.raises(StoreInsecure, match="regular"):
        store.get("key")
    store.put("key", 2)
    assert store.get("key") == 2


def test_sweeping_follows_no_link_and_no_foreign_path(roots: object_store.Roots, tmp_path: Path) -> None:
    """run.json of a dead run may name anything; removed is only a private folder of the same run."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("keep")
    owner = child(_OWNER + "    sys.stdin.read()", wait=False)
    dead_id = owner.stdout.readline().strip()
    stop(owner)
    assert roots.ram is not None
    run = Path(roots.ram, roots.home_name, f"run-{dead_id}")
    (run / "objects" / "link").symlink_to(precious)
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "disk_path": str(precious)}))
    (run.parent / f"run-{'2' * 32}").symlink_to(precious)
    object_store.sweep(roots)
    assert (precious / "file").read_text() == "keep"
    assert not run.exists()
    (run.parent / f"run-{'2' * 32}").unlink()
    run.parent.rmdir()


def test_attaching_refuses_a_twin_that_is_not_private(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as store:
        twin = os.path.dirname(store._entries.segments[b"d"].path)
        os.chmod(twin, 0o777)
        with pytest.raises(StoreInsecure, match="chmod 700"):
            RunStore.attach(roots, store.run_id)
        os.chmod(twin, 0o700)
        RunStore.attach(roots, store.run_id).close()


@pytest.mark.parametrize("run_id", ["", "x", "../../etc", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n", None, 7])
def test_a_run_id_is_checked_before_a_path_is_made_of_it(roots: object_store.Roots, run_id: Any) -> None:
    with pytest.raises(ValueError, match="run_id"):
        RunStore.attach(roots, run_id)


def test_folders_and_files_are_closed_to_others(store: RunStore) -> None:
    previous = os.umask(0)
    try:
        store.put("key", bytes(100_000))
        store.put("disk", bytes(100_000), use_ram=False)
    finally:
        os.umask(previous)
    for root in (store._roots.ram, store._roots.disk):
        for path in Path(str(root), store._roots.home_name).rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


# --- roots ------------------------------------------------------------------------------------------------------------


def test_without_shared_memory_everything_is_on_disk(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISCOMFORT_RAM_ROOT", "none")
    found = object_store.find_roots()
    assert found.ram is None
    with RunStore.create(found) as store:
        store.put("key", np.ones(100_000))
        usage = store.usage()
        assert usage.ram_capacity == 0
        assert usage.disk_keys == 1
        assert usage.disk_bytes >= 800_000
        assert (RunStore.attach(found, store.run_id).get("key") == 1).all()
    assert caplog.text == ""


def test_a_memory_root_that_cannot_be_used_is_said_and_done_without(
    roots: object_store.Roots, caplog: pytest.LogCaptureFixture
) -> None:
    with RunStore.create(roots._replace(ram="/nonexistent/folder")) as store:
        store.put("key", 1)
        info = store.info("key")
        assert info is not None
        assert info.storage_type == "disk"
    assert "/nonexistent/folder" in caplog.text


def test_both_processes_find_the_disk_twin_though_their_temp_folders_differ(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("key", "on disk", use_ram=False)
    other = tmp_path / "other"
    other.mkdir()
    out = child(
        ATTACH + "    print(store.get('key')); store.put('back', 1, use_ram=False)",
        store.run_id,
        env={"DISCOMFORT_DISK_ROOT": "", "TMPDIR": str(other)},
    )
    assert out == "on disk\n"
    assert store.get("back") == 1
    assert list(other.iterdir()) == []


# --- what importing loads ---------------------------------------------------------------------------------------------


def test_importing_the_module_loads_nothing_heavy() -> None:
    out = child(
        """
    import sys
    import discomfort.object_store, discomfort.workflow_context
    print([name for name in ("torch", "numpy", "cloudpickle", "xxhash", "PIL", "psutil") if name in sys.modules])
    """
    )
    assert out == "[]\n"


def test_the_limit_of_open_files_is_known() -> None:
    assert files.fd_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
