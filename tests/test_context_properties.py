"""Whatever is saved comes back bit for bit, private and with a digest of its own: random values, keys and histories.

The values are hypothesis's: they are the same in every run, so that the suite is as deterministic as the others.
``DISCOMFORT_FUZZ=5000`` makes them new ones, and that many for each test (see CONTRIBUTING.md).
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.workflow_context import WorkflowContext
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

# Said by PyTorch once in each process, at the first conjugate view that is resolved.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
FUZZ = int(os.environ.get("DISCOMFORT_FUZZ", "0"))
# Also without a database: what failed once would be tried first the next time, and the run no longer the same.
steady = settings(
    deadline=None,
    derandomize=not FUZZ,
    database=None,
    print_blob=bool(FUZZ),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def examples(count: int) -> settings:
    return settings(steady, max_examples=FUZZ or count)


@pytest.fixture(scope="module", autouse=True)
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """[RAM root, disk root] of this module's own."""
    ram, disk = tempfile.mkdtemp(prefix="discomfort-test-", dir=SHM), str(tmp_path_factory.mktemp("disk"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOMFORT_RAM_ROOT", ram)
        patch.setenv("DISCOMFORT_DISK_ROOT", disk)
        yield [ram, disk]
    gc.collect()
    left = left_in(ram, disk)
    shutil.rmtree(ram, ignore_errors=True)
    assert left == []


def left_in(*folders: str) -> list[str]:
    return [str(path) for folder in folders for path in Path(folder).rglob("*")]


@pytest.fixture(scope="module")
def context(roots: list[str]) -> Iterator[WorkflowContext]:
    with WorkflowContext(max_ram_gb=0.25) as made:
        yield made


# --- what two values have to have in common ---------------------------------------------------------------------------


def storage_bytes(tensor: torch.Tensor) -> Any:
    """The bytes of a tensor's whole storage as a NumPy array: by no kernel, which some dtypes do not have."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()


def bits(tensor: torch.Tensor) -> bytes:
    """A tensor's elements in order, as raw bytes."""
    if tensor.numel() == 0:
        return b""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    size = tensor.element_size()
    words = storage_bytes(tensor)[tensor.storage_offset() * size :]
    strides = tuple(step * size for step in tensor.stride())
    array = np.lib.stride_tricks.as_strided(words.view("u1"), (*tensor.shape, size), (*strides, 1))
    return array.tobytes()


def form(value: Any) -> Any:
    """Say all of a value that has to survive, as something hashable: two values with equal forms are the same value,
    NaNs, signs of zero and types included.
    """
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return kind, str(value.dtype), tuple(value.shape), value.requires_grad, bits(value)
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            # Field by field: what is between them is undefined.
            return kind, value.shape, tuple((name, form(value[name])) for name in value.dtype.names)
        return kind, value.dtype.str, value.shape, form(value.tolist()) if value.dtype.hasobject else value.tobytes("C")
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if isinstance(value, complex):
        return kind, struct.pack("<dd", value.real, value.imag)
    if isinstance(value, float):
        return kind, struct.pack("<d", value)
    if isinstance(value, dict):
        return kind, tuple((form(key), form(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(form, value))
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(map(form, value))
    if isinstance(value, bytearray):
        return kind, bytes(value)
    if dataclasses.is_dataclass(value):
        return kind, tuple((field.name, form(getattr(value, field.name))) for field in dataclasses.fields(value))
    return kind, value


def same(left: Any, right: Any) -> bool:
    return bool(form(left) == form(right))


def parts(value: Any) -> Iterator[Any]:
    """All that can be written into in a value, in the order of a walk, each as often as it occurs."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from parts(item)
    elif isinstance(value, (list, tuple)):
        if isinstance(value, list):
            yield value
        for item in value:
            yield from parts(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))
    elif isinstance(value, (torch.Tensor, np.ndarray, bytearray, set)):
        yield value


def pattern_of_sharing(value: Any) -> list[int]:
    """For each part of a value the number of the place at which the same object occurs first."""
    first: dict[int, int] = {}
    found = list(parts(value))
    return [first.setdefault(id(part), number) for number, part in enumerate(found)]


def overwrite(value: Any) -> None:
    """Write into everything that can be written into, in place."""
    for part in list(parts(value)):
        if isinstance(part, torch.Tensor):
            if part.numel():
                storage_bytes(part)[...] ^= 0xFF
        elif isinstance(part, np.ndarray):
            if part.size and part.flags.writeable:
                part[...] = np.zeros((), part.dtype)
                raw = part.view() if part.dtype.hasobject else part
                if raw.flags.forc and not part.dtype.hasobject:
                    raw.reshape(-1, order="A").view("u1")[...] = 0xA5
        elif isinstance(part, dict):
            part["written in place"] = part
        elif isinstance(part, list):
            part.append("written in place")
        elif isinstance(part, set):
            part.add("written in place")
        elif isinstance(part, bytearray):
            part += b"!"
        else:
            part.samples = "written in place"


# --- values -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Latent:
    """As nodes hand them on: named fields, tensors among them."""

    samples: Any
    note: Any = None


# All that this version of torch has, but for the quantized ones, which are no dtype of a plain tensor.
DTYPES = sorted(
    {kind for kind in vars(torch).values() if isinstance(kind, torch.dtype) and not str(kind).startswith("torch.q")},
    key=str,
)
_WITH_NEGATIVE = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.complex64)


def random_tensor(dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    """All bit patterns: NaN payloads, infinities, denormals, -0.0."""
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.frombuffer(bytearray(random.Random(seed).randbytes(max(1, count) * size)), dtype=torch.uint8)
    return (raw > 127 if dtype == torch.bool else raw.view(dtype))[:count]


@st.composite
def tensors(draw: st.DrawFn, most: int = 40_000) -> torch.Tensor:
    """A tensor of any dtype, shape and strides: a window onto a storage that may be larger, at any place in it."""
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**32))
    shape = draw(st.lists(st.integers(0, 6), max_size=4))
    if shape and draw(st.booleans()):
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(100, 3000))
    while math.prod(shape) > most:
        shape[shape.index(max(shape))] //= 2
    layout = draw(st.sampled_from(["plain", "turned", "stepped", "part", "expanded", "strided", "negative"]))
    count = math.prod(shape)
    if layout == "turned":
        order = draw(st.permutations(range(len(shape))))
        return random_tensor(dtype, count, seed).reshape([shape[axis] for axis in order]).permute(
            sorted(range(len(shape)), key=order.__getitem__)
        )  # fmt: skip
    if layout == "stepped":
        steps = [draw(st.integers(1, 3)) for _ in shape]
        large = [length * step for length, step in zip(shape, steps, strict=True)]
        window = tuple(slice(None, None, step) for step in steps)
        return random_tensor(dtype, math.prod(large), seed).reshape(large)[window]
    if layout == "part":
        before, after = draw(st.integers(0, 5000)), draw(st.integers(0, 5000))
        return random_tensor(dtype, before + count + after, seed)[before : before + count].reshape(shape)
    if layout == "expanded":
        kept = [draw(st.booleans()) for _ in shape]
        small = [length if keep else min(1, length) for length, keep in zip(shape, kept, strict=True)]
        return random_tensor(dtype, math.prod(small), seed).reshape(small).expand(shape)
    if layout == "strided":
        strides = [draw(st.integers(0, 7)) for _ in shape]
        offset = draw(st.integers(0, 100))
        span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if count else 0
        return random_tensor(dtype, offset + span + draw(st.integers(0, 100)), seed).as_strided(shape, strides, offset)
    tensor = random_tensor(dtype, count, seed).reshape(shape)
    if layout == "negative" and dtype in _WITH_NEGATIVE:
        if dtype.is_complex:
            return draw(st.sampled_from([tensor.conj(), torch._neg_view(tensor)]))
        return torch._neg_view(tensor)
    if dtype.is_floating_point and dtype.itemsize > 1 and layout == "plain":
        return tensor.requires_grad_(draw(st.booleans()))
    return tensor


_CODES = "? b B h H i I l L e f d g F D G S7 U3 M8[s] m8[ns] >i4 >f8"
_RECORD = np.dtype([("a", "<i4"), ("b", ">f8", (3,)), ("c", [("d", "u1"), ("e", "S5")])])


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """A NumPy array of any dtype, order and strides; also one of objects."""
    kind: Any = draw(st.sampled_from([*_CODES.split(), _RECORD, "record", "O"]))
    shape = draw(st.lists(st.integers(0, 6), max_size=3))
    if shape and draw(st.booleans()):
        shape[0] = draw(st.integers(100, 2000))
    count = math.prod(shape)
    if kind == "O":
        array = np.empty(count, object)
        array[:] = [None if number % 2 else "x" for number in range(count)]
        return array.reshape(shape)
    dtype = np.dtype([("x", "f4"), ("y", "i8")], align=True) if kind == "record" else np.dtype(kind)
    raw = random.Random(draw(st.integers(0, 2**32))).randbytes(max(1, count) * dtype.itemsize)
    if dtype.kind == "U":
        array = np.array([chr(65 + byte % 26) * (byte % 4) for byte in raw[:count]], dtype)
    elif dtype.kind == "b":
        array = np.frombuffer(raw, "u1")[:count] > 127
    else:
        array = np.frombuffer(bytearray(raw), dtype)[:count]
    array = array.reshape(shape, order=draw(st.sampled_from("CF")))
    layout = draw(st.sampled_from(["plain", "turned", "stepped", "backwards", "frozen", "scalar"]))
    if kind == "record" and layout not in ("plain", "frozen"):
        # NumPy leaves what is between the fields undefined when it copies elements one by one.
        return array
    if layout == "turned":
        return array.T
    if layout == "stepped":
        return array[(slice(None, None, 2),) * array.ndim]
    if layout == "backwards":
        return array[(slice(None, None, -1),) * array.ndim]
    if layout == "scalar" and array.size:
        return array.reshape(-1)[0]
    array.flags.writeable = layout != "frozen"
    return array


def _scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(allow_nan=True),
        st.text(st.characters(), max_size=40),
        st.binary(max_size=40),
        st.sampled_from([-0.0, math.nan, -math.nan, math.inf, 2**100, "", b"", (), "a cat", bytes(70_000), "y" * 5000]),
    )


def _hashables() -> st.SearchStrategy[Any]:
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10), st.binary(max_size=10))
    return st.one_of(scalars, st.tuples(scalars, scalars))


@st.composite
def values(draw: st.DrawFn, has_sets: bool = True) -> Any:
    """Nested values in which the same objects occur at several places."""
    leaves = [_scalars(), tensors(), arrays(), st.binary(max_size=9).map(bytearray)]
    if has_sets:
        leaves += [st.sets(_hashables(), max_size=5), st.frozensets(_hashables(), max_size=5)]
    pool: list[Any] = draw(st.lists(st.one_of(leaves), min_size=1, max_size=5))
    for _ in range(draw(st.integers(0, 4))):
        old = st.sampled_from(range(len(pool)))
        made = draw(
            st.one_of(
                st.lists(old, max_size=4),
                st.lists(old, max_size=3).map(tuple),
                st.dictionaries(_hashables(), old, max_size=4),
                st.builds(Latent, old, st.none() | old),
            )
        )
        pool.append(_with_members(made, pool))
    return pool[-1]


def _with_members(made: Any, pool: list[Any]) -> Any:
    """Put the objects in the place of their numbers: hypothesis itself would put copies there."""
    if isinstance(made, Latent):
        return Latent(pool[made.samples], None if made.note is None else pool[made.note])
    if isinstance(made, dict):
        return {key: pool[number] for key, number in made.items()}
    return type(made)(pool[number] for number in made)


# --- properties -------------------------------------------------------------------------------------------------------


@examples(120)
@given(value=values(), use_ram=st.booleans())
def test_every_value_comes_back_bit_for_bit(context: WorkflowContext, value: Any, use_ram: bool) -> None:
    before = form(value)
    context.save("key", value, use_ram=use_ram)
    assert form(value) == before, "saving changed what was saved"
    loaded = context.load("key")
    assert form(loaded) == before
    assert pattern_of_sharing(loaded) == pattern_of_sharing(value)


@examples(250)
@given(tensor=tensors())
def test_every_tensor_comes_back_with_its_strides_or_contiguous(context: WorkflowContext, tensor: torch.Tensor) -> None:
    context.save("tensor", tensor)
    loaded = context.load("tensor")
    assert same(loaded, tensor)
    assert loaded.stride() == tensor.stride() or loaded.is_contiguous()
    info = context.get_storage_info("tensor")
    assert info is not None
    # Never more than twice the elements, nor more than what it is a window onto.
    assert info["data_size"] < min(2 * tensor.nbytes, tensor.untyped_storage().nbytes()) + 10_000


@examples(80)
@given(value=values(), use_ram=st.booleans())
def test_what_was_loaded_is_the_callers_own(context: WorkflowContext, value: Any, use_ram: bool) -> None:
    before = form(value)
    context.save("key", value, use_ram=use_ram)
    mine, other = context.load("key"), context.load("key")
    overwrite(mine)
    assert form(other) == before
    assert form(context.load("key")) == before
    assert form(value) == before
    overwrite(value)
    assert form(context.load("key")) == before


@examples(60)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), length=st.integers(1, 9000), seed=st.integers(0, 2**32))
def test_views_that_overlap_still_share_their_memory(
    context: WorkflowContext, data: st.DataObject, dtype: torch.dtype, length: int, seed: int
) -> None:
    """As long as each is more than half of what they are views onto."""
    base = random_tensor(dtype, length, seed)
    windows = []
    for _ in range(data.draw(st.integers(2, 3))):
        start = data.draw(st.integers(0, (length - 1) // 2))
        windows.append(base[start : data.draw(st.integers(start + (length + 1) // 2, length))])
    context.save("key", windows)
    loaded = context.load("key")
    assert same(loaded, windows)
    for written in (windows, loaded):
        view = written[0]
        raw = storage_bytes(view)
        size, at = view.element_size(), view.storage_offset()
        raw[at * size : (at + len(view)) * size] = 1
    assert same(loaded, windows)


@examples(120)
@given(value=values(has_sets=False), use_ram=st.booleans())
def test_equal_content_has_an_equal_digest(context: WorkflowContext, value: Any, use_ram: bool) -> None:
    """Sets are excepted: the order of their elements is not part of the content, but of the bytes."""
    context.save("key", value, use_ram=use_ram)
    digest = context.digest("key")
    context.save("other key", value)
    assert context.digest("other key") == digest
    found = [part for part in parts(value) if isinstance(part, np.ndarray)]
    # NumPy's copies can always be written, keep the order of their source, and leave out what is between fields.
    if all(part.flags.writeable and part.flags.forc and not part.dtype.isalignedstruct for part in found):
        context.save("other key", copy.deepcopy(value))
        assert context.digest("other key") == digest
    context.save("again", context.load("key"), use_ram=not use_ram)
    assert context.digest("again") == digest


@examples(150)
@given(one=values(), two=values())
def test_different_content_has_a_different_digest(context: WorkflowContext, one: Any, two: Any) -> None:
    assume(not same(one, two))
    context.save("one", one)
    context.save("two", two)
    assert context.digest("one") != context.digest("two")


@examples(60)
@given(tensor=tensors(), data=st.data())
def test_one_bit_makes_another_digest(context: WorkflowContext, tensor: torch.Tensor, data: st.DataObject) -> None:
    assume(tensor.numel() and tensor.dtype != torch.bool)
    other = copy.deepcopy(tensor.detach())
    context.save("one", other)
    place = tuple(data.draw(st.integers(0, length - 1)) for length in other.shape)
    at = other.storage_offset() + sum(index * step for index, step in zip(place, other.stride(), strict=True))
    at = at * other.element_size() + data.draw(st.integers(0, other.element_size() - 1))
    storage_bytes(other)[at] ^= 1 << data.draw(st.integers(0, 7))
    context.save("two", other)
    assert context.digest("one") != context.digest("two")


@examples(40)
@given(keys=st.lists(st.text(st.characters(), max_size=60), unique=True, max_size=12), use_ram=st.booleans())
def test_every_string_is_a_key_of_its_own(keys: list[str], use_ram: bool) -> None:
    with WorkflowContext() as owner, WorkflowContext(run_id=owner.run_id, create=False) as attached:
        for number, key in enumerate(keys):
            owner.save(key, number, use_ram=use_ram)
        assert attached.list_keys() == sorted(keys)
        assert [attached.load(key) for key in keys] == list(range(len(keys)))
        for key in keys:
            assert key in attached
            assert attached.delete(key)
            assert key not in owner
        assert owner.list_keys() == []


# --- histories --------------------------------------------------------------------------------------------------------


class History(RuleBasedStateMachine):
    """Two attached contexts and little memory, beside a plain dict that says what has to be in them."""

    # Bytes of memory, of which a few values take all.
    CAPACITY = 2**20
    held = Bundle("held")
    objects = Bundle("objects")

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[WorkflowContext] = []
        # key -> the value's number, by which its content is known.
        self.model: dict[str, int] = {}
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.model = {}
        owner = WorkflowContext(max_ram_gb=self.CAPACITY / 2**30)
        self.contexts = [owner, WorkflowContext(run_id=owner.run_id, create=False)]

    @staticmethod
    def value(number: int) -> Any:
        """A value's content follows from its number; some are numbers, others tensors of up to 400 KB."""
        size = (0, 3, 500, 5000, 30_000, 100_000)[number % 6]
        if size == 0:
            return {"number": number}
        return torch.arange(number, number + size, dtype=torch.float32)

    def check(self, value: Any, number: int) -> None:
        expected = self.value(number)
        assert torch.equal(value, expected) if isinstance(expected, torch.Tensor) else value == expected

    @rule(who=st.integers(0, 1), key=st.sampled_from("abcdef"), kind=st.integers(0, 5), use_ram=st.booleans())
    def save(self, who: int, key: str, kind: int, use_ram: bool) -> None:
        self.count += 1
        number = 6 * self.count + kind
        self.contexts[who].save(key, self.value(number), use_ram=use_ram)
        self.model[key] = number

    @rule(who=st.integers(0, 1), key=st.sampled_from("abcdef"))
    def delete(self, who: int, key: str) -> None:
        assert self.contexts[who].delete(key) is (key in self.model)
        self.model.pop(key, None)

    @rule(target=held, who=st.integers(0, 1), key=st.sampled_from("abcdef"))
    def load(self, who: int, key: str) -> Any:
        if key not in self.model:
            with pytest.raises(KeyError, match=key):
                self.contexts[who].load(key)
            return None
        value = self.contexts[who].load(key)
        self.check(value, self.model[key])
        return value, self.model[key]

    @rule(holding=held)
    def look_at_an_old_value(self, holding: Any) -> None:
        if holding is not None:
            self.check(*holding)

    @rule(holding=consumes(held))
    def write_into_an_old_value_and_drop_it(self, holding: Any) -> None:
        if holding is not None:
            self.check(*holding)
            overwrite(holding[0])

    @rule(target=objects, who=st.integers(0, 1), key=st.sampled_from("abcdef"))
    def hold(self, who: int, key: str) -> Any:
        if key not in self.model:
            return None
        return self.contexts[who].hold(key), key, self.model[key]

    @rule(who=st.integers(0, 1), holding=consumes(objects), use_ram=st.booleans())
    def restore(self, who: int, holding: Any, use_ram: bool) -> None:
        if holding is not None:
            kept, key, number = holding
            self.contexts[who].restore(kept, use_ram=use_ram)
            self.model[key] = number

    @rule()
    def detach_and_attach(self) -> None:
        owner, attached = self.contexts
        attached.shutdown()
        self.contexts[1] = WorkflowContext(run_id=owner.run_id, create=False)

    @rule()
    def end_the_run_and_begin_another(self) -> None:
        owner, attached = self.contexts
        owner.shutdown()
        for ended in self.contexts:
            with pytest.raises(RuntimeError, match=owner.run_id):
                ended.get_usage()
        attached.shutdown()
        self.begin()

    @invariant()
    def both_see_the_same_and_memory_has_its_limit(self) -> None:
        if not self.contexts:
            return
        for context in self.contexts:
            assert context.list_keys() == sorted(self.model)
            usage = context.get_usage()
            assert usage["ram_capacity_bytes"] == self.CAPACITY
            # What is on disk has an entry of a page.
            assert usage["ram_usage_bytes"] <= self.CAPACITY + 4096 * usage["disk_keys_count"]
            assert usage["stored_keys_count"] == len(self.model) == usage["ram_keys_count"] + usage["disk_keys_count"]
            if not self.model:
                assert usage["temp_disk_usage_bytes"] == 0
        for key in self.model:
            assert self.contexts[0].digest(key) == self.contexts[1].digest(key)

    def teardown(self) -> None:
        for key, number in self.model.items():
            for context in self.contexts:
                self.check(context.load(key), number)
        for context in reversed(self.contexts):
            context.shutdown()
        roots = [os.environ["DISCOMFORT_RAM_ROOT"], os.environ["DISCOMFORT_DISK_ROOT"]]
        assert [path for path in left_in(*roots) if self.contexts[0].run_id in path] == []


def test_every_history_is_that_of_a_dict() -> None:
    run_state_machine_as_test(
        History,
        # Shrinking a history takes minutes: only where somebody looks for faults. Explaining it takes longer still.
        settings=settings(
            steady,
            max_examples=FUZZ or 25,
            stateful_step_count=40,
            phases=[Phase.explicit, Phase.generate, Phase.shrink] if FUZZ else [Phase.explicit, Phase.generate],
        ),
    )
