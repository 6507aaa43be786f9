"""What a WorkflowContext promises, the same wherever its values lie and whichever process saves or loads them.

Every test runs over each backend, and most through two real processes: the one that pytest runs in owns the context,
the other attaches to it by its run_id, as the nested server does.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
import torch
from discomfort.workflow_context import (
    UnknownRunError,
    WorkflowContext,
    get_context,
    register_context,
    unregister_context,
)

# The other process cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
MB = 2**20


class Backend(NamedTuple):
    """A place for values, and how a context is made to use it."""

    name: str
    # "ram" or "disk", as get_storage_info says.
    storage: str
    has_ram: bool = True
    max_ram_gb: float | None = None
    use_ram: bool = True


BACKENDS = [
    Backend("memory", "ram"),
    Backend("disk", "disk", use_ram=False),
    Backend("no room in memory", "disk", max_ram_gb=0),
    Backend("no shared memory", "disk", has_ram=False),
]


@pytest.fixture(autouse=True)
def roots(data_roots: tuple[str, str]) -> list[str]:
    """[RAM root, disk root] of this test's own."""
    return list(data_roots)


def left_in(*folders: str) -> list[str]:
    return [str(path) for folder in folders for path in Path(folder).rglob("*")]


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest, roots: list[str], monkeypatch: pytest.MonkeyPatch) -> Backend:
    found: Backend = request.param
    if not found.has_ram:
        monkeypatch.setenv("DISCOMFORT_RAM_ROOT", "none")
    return found


@pytest.fixture
def context(backend: Backend) -> Iterator[WorkflowContext]:
    with WorkflowContext(max_ram_gb=backend.max_ram_gb) as made:
        yield made


class Here:
    """A context as this process, its owner, uses it."""

    def __init__(self, context: WorkflowContext, backend: Backend) -> None:
        self._context = context
        self._use_ram = backend.use_ram

    def save(self, key: Any, value: Any, **options: Any) -> None:
        self._call("save", key, value, use_ram=self._use_ram, **options)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._call(name, *args, **options)

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        return getattr(self._context, name)(*args, **options)

    def run(self, function: Any, *args: Any) -> Any:
        """Let the process of this side run ``function(context, *args)``."""
        return function(self._context, *args)


class There(Here):
    """The same context as another process uses it."""

    def __init__(self, context: WorkflowContext, backend: Backend, second: Any) -> None:
        super().__init__(context, backend)
        self._second = second

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        return self.run(lambda context: getattr(context, name)(*args, **options))

    def run(self, function: Any, *args: Any) -> Any:
        run_id = self._context.run_id
        return self._second.run(lambda kept: function(get_context(run_id), *args))


class Sides(NamedTuple):
    """Who saves and who loads."""

    one: Any
    other: Any


@pytest.fixture
def here(context: WorkflowContext, backend: Backend) -> Here:
    return Here(context, backend)


@pytest.fixture
def there(context: WorkflowContext, backend: Backend, second: Any) -> There:
    return There(context, backend, second)


@pytest.fixture(params=["owner first", "other process first"])
def sides(request: pytest.FixtureRequest, here: Here, there: There) -> Sides:
    return Sides(here, there) if request.param == "owner first" else Sides(there, here)


def equal(left: Any, right: Any) -> bool:
    """Bit for bit, types included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        if (left.dtype, left.shape, left.stride()) != (right.dtype, right.shape, right.stride()):
            return False
        return left.numel() == 0 or bytes(raw(left)) == bytes(raw(right))
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def raw(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()


# --- saving and loading -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Latent:
    samples: torch.Tensor
    noise_mask: torch.Tensor
    batch_index: list[int]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Latent) and equal(list(vars(self).values()), list(vars(other).values()))


_IMAGE = torch.rand(2, 64, 48, 3)
VALUES = {
    "nothing": None,
    "number": 0.1,
    "large number": 2**200,
    "text": "a cat\0\ud800",
    "bytes": bytes(range(256)) * 1000,
    "image": _IMAGE,
    "channels first": _IMAGE.permute(0, 3, 1, 2),
    "half": _IMAGE.to(torch.bfloat16),
    "float8": _IMAGE.to(torch.float8_e4m3fn),
    "complex": torch.view_as_complex(_IMAGE[..., :2].contiguous()),
    "mask": _IMAGE > 0.5,
    "one number": torch.tensor(3.5),
    "no pixels": torch.zeros(0, 3, 64, 4),
    "expanded": torch.arange(7.0).expand(1000, 7),
    "array": np.arange(100_000, dtype=np.uint16),
    "latent": {"samples": torch.rand(1, 4, 64, 64), "noise_mask": torch.rand(1, 64, 64), "batch_index": [0]},
    "conditioning": [[torch.rand(1, 77, 768), {"pooled_output": torch.rand(1, 768), "strength": 0.5}]],
    "dataclass": Latent(torch.rand(1, 4, 64, 64), torch.rand(64, 64), [0, 1]),
    "empty": [{}, [], (), set(), "", b""],
}


def test_a_value_saved_by_one_process_is_loaded_by_the_other(sides: Sides) -> None:
    for key, value in VALUES.items():
        sides.one.save(key, value)
    for key, value in VALUES.items():
        assert equal(sides.other.load(key), value), key
        assert equal(sides.one.load(key), value), key


def test_functions_and_classes_travel_too(sides: Sides) -> None:
    weight = torch.full((100, 100), 3.0)
    sides.one.save("function", lambda value: value + weight)
    sides.one.save("class", Latent)
    assert (sides.other.load("function")(torch.ones(100, 100)) == 4).all()
    assert sides.other.load("class")(1, 2, [3]).batch_index == [3]


def test_what_is_one_object_in_a_value_is_one_object_after_loading(sides: Sides) -> None:
    use_ram = sides.one._use_ram

    def save(context: WorkflowContext) -> None:
        base = torch.arange(10_000.0)
        value: dict[str, Any] = {"base": base, "same": base, "overlapping": [base[:7000], base[2000:]]}
        value["itself"] = value
        context.save("key", value, use_ram=use_ram)

    sides.one.run(save)

    def look(context: WorkflowContext) -> tuple[bool, bool, list[float]]:
        loaded = context.load("key")
        loaded["base"][2000:7000] = -1
        first, second = loaded["overlapping"]
        return (
            loaded["itself"] is loaded,
            loaded["base"] is loaded["same"],
            [float(first[0]), float(first[2000:].max()), float(second[:5000].max()), float(second[5000])],
        )

    assert sides.other.run(look) == (True, True, [0, -1, -1, 7000])


def test_saving_replaces_whatever_was_there(sides: Sides) -> None:
    for value in [torch.rand(300_000), 5, {"recipe": "soon"}, torch.rand(10), bytes(200_000), None]:
        sides.one.save("key", value)
        assert equal(sides.other.load("key"), value)
        sides.other.save("key", [value])
        assert equal(sides.one.load("key"), [value])
    assert sides.one.list_keys() == ["key"]


def test_the_saved_value_does_not_follow_its_source(here: Here, there: There) -> None:
    source = {"tensor": torch.zeros(100_000), "list": [1]}
    here.save("key", source)
    source["tensor"].fill_(5)
    source["list"].append(2)
    assert equal(there.load("key"), {"tensor": torch.zeros(100_000), "list": [1]})


def _files(folder: str) -> dict[str, int]:
    return {str(path): zlib.crc32(path.read_bytes()) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [10, 10_000, 1_000_000])
def test_writing_in_place_changes_only_the_writers_copy(sides: Sides, roots: list[str], count: int) -> None:
    sides.one.save("key", torch.zeros(count))
    before = [_files(folder) for folder in roots]

    def write(context: WorkflowContext) -> list[float]:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mine, other = context.load("key"), context.load("key")
            mine.add_(7)
            mine.numpy()[0] = 9
            return [float(mine[0]), float(mine[-1]), float(other.abs().max()), float(context.load("key").abs().max())]

    assert sides.other.run(write) == [9, 7, 0, 0]
    assert sides.one.run(write) == [9, 7, 0, 0]
    assert [_files(folder) for folder in roots] == before


def test_old_values_stay_while_their_key_is_overwritten_a_hundred_times(sides: Sides) -> None:
    def load(context: WorkflowContext) -> None:
        vars(context).setdefault("held_by_the_test", []).append(context.load("key"))

    def look(context: WorkflowContext) -> list[bool]:
        kept = vars(context).pop("held_by_the_test")
        return [bool((tensor == number).all()) for number, tensor in enumerate(kept)]

    for number in range(100):
        sides.one.save("key", torch.full((20_000,), float(number)))
        sides.other.run(load)
    sides.one.delete("key")
    assert sides.other.run(look) == [True] * 100


def test_a_mapping_cannot_be_closed_under_a_value(sides: Sides) -> None:
    """Whatever finds it: an explicit close() is an error, not a crash at the next access."""
    sides.one.save("key", torch.arange(1_000_000))

    def close_all(context: WorkflowContext) -> tuple[int, int]:
        import mmap

        tensor = context.load("key")
        refused = 0
        for found in gc.get_objects():
            if mmap.mmap in type(found).__mro__ and found.size() >= 8_000_000:
                try:
                    found.close()
                except BufferError:
                    refused += 1
        return refused, int(tensor.sum())

    refused, total = sides.other.run(close_all)
    assert refused >= 1
    assert total == 1_000_000 * 999_999 // 2


# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_reader_sees_each_value_whole_and_never_an_older_one_again(
    here: Here, there: There, second: Any, context: WorkflowContext
) -> None:
    run_id, use_ram = context.run_id, here._use_ram

    def write(kept: dict[str, Any]) -> None:
        writer = get_context(run_id)
        for number in range(1, 301):
            size = (10, 70_000, 400_000)[number % 3]
            writer.save("key", (number, np.full(size, number % 256, np.uint8)), use_ram=use_ram)

    here.save("key", (0, np.zeros(0, np.uint8)))
    second.begin(write)
    last = 0
    while last < 300:
        number, data = here.load("key")
        assert number >= last
        assert len(data) == ((10, 70_000, 400_000)[number % 3] if number else 0)
        assert (data == number % 256).all()
        last = number
    second.end()


def test_threads_of_both_processes_share_a_context(
    context: WorkflowContext, backend: Backend, second: Any, here: Here
) -> None:
    run_id, use_ram = context.run_id, backend.use_ram

    def work(kept: Any, seeds: range) -> list[str]:
        import random

        shared = get_context(run_id)
        problems: list[str] = []

        def one(seed: int) -> None:
            chance = random.Random(seed)
            try:
                for _ in range(60):
                    number, key = chance.randrange(256), f"key{chance.randrange(3)}"
                    size = chance.choice((10, 5000, 200_000))
                    shared.save(key, np.full(size, number, np.uint8), use_ram=use_ram)
                    if len(set(shared.load(f"key{chance.randrange(3)}").tolist())) != 1:
                        problems.append("a torn value")
                    shared.list_keys()
                    shared.get_storage_info(key)
                    shared.get_usage()
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return problems

    for key in ("key0", "key1", "key2"):
        here.save(key, np.zeros(1, np.uint8))
    register_context(context)
    second.begin(work, range(3))
    assert work(None, range(3, 6)) == []
    assert second.end() == []
    assert context.list_keys() == ["key0", "key1", "key2"]
    if backend.storage == "disk":
        assert context.get_usage()["ram_keys_count"] == 0


class _Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


def test_what_is_refused_changes_nothing(sides: Sides) -> None:
    sides.one.save("key", "before")
    used = sides.one.get_usage()

    def save_what_cannot_be_pickled(context: WorkflowContext) -> None:
        context.save("key", [torch.rand(100_000), {"deep": _Refuses()}])

    for save, error, message in (
        (lambda: sides.one.run(save_what_cannot_be_pickled), TypeError, r"'key'.*data\[1\]\['deep'\]"),
        (lambda: sides.one.save("key", [1], pass_by="ref"), TypeError, r"'key'.*recipe is a dict, not list"),
        (lambda: sides.one.save("key", {}, pass_by="copy"), ValueError, r"'copy'.*'val' and 'ref'"),
    ):
        with pytest.raises(error, match=message):
            save()
        assert sides.other.load("key") == "before"
    for key in (7, None, b"key"):
        with pytest.raises(TypeError, match="string"):
            sides.one.save(key, 1)
    assert sides.one.list_keys() == sides.other.list_keys() == ["key"]
    after = sides.one.get_usage()
    assert {**after, "disk_fallbacks": 0} == {**used, "disk_fallbacks": 0}


# --- keys -------------------------------------------------------------------------------------------------------------

KEYS = ["", "/", "../x", "k" * 3000, "\u00e9", "e\u0301", "A", "a", "nul\0", "new\nline", ".", "..", "\ud800", "con"]


def test_any_string_is_a_key_in_both_processes(sides: Sides) -> None:
    for number, key in enumerate(KEYS):
        sides.one.save(key, number)
    assert sides.one.list_keys() == sides.other.list_keys() == sorted(KEYS)
    assert [sides.other.load(key) for key in KEYS] == list(range(len(KEYS)))
    for key in KEYS:
        assert sides.other.delete(key)
        assert not sides.one.delete(key)
    assert sides.one.list_keys() == sides.other.list_keys() == []


def test_a_missing_key_is_a_sentence_that_lists_the_others(sides: Sides, tmp_path: Path) -> None:
    sides.one.save("image", 1)
    target = str(tmp_path / "file")
    for use in (
        lambda: sides.other.load("imgae"),
        lambda: sides.other.digest("imgae"),
        lambda: sides.other.hold("imgae"),
        lambda: sides.other.export_data("imgae", target),
    ):
        with pytest.raises(KeyError) as caught:
            use()
        assert "'imgae'" in str(caught.value)
        assert "'image'" in str(caught.value)
    assert sides.other.get_storage_info("imgae") is None
    assert not sides.other.delete("imgae")
    assert not os.path.exists(target)


def test_a_deleted_key_is_gone_for_both(sides: Sides) -> None:
    for value in (1, torch.rand(300_000)):
        sides.one.save("key", value)
        assert sides.one.run(lambda context: ("key" in context, "other" in context, 7 in context)) == (
            True,
            False,
            False,
        )
        assert sides.other.delete("key")
        assert not sides.one.run(lambda context: "key" in context)
        for side in sides:
            with pytest.raises(KeyError, match="'key'"):
                side.load("key")


# --- what is told of a value ------------------------------------------------------------------------------------------


def test_storage_info_says_where_a_value_is_to_both(sides: Sides, backend: Backend, roots: list[str]) -> None:
    sides.one.save("image", torch.zeros(100_000))
    sides.one.save("recipe", {"class_type": "CheckpointLoaderSimple"}, pass_by="ref")
    info, recipe = sides.other.get_storage_info("image"), sides.other.get_storage_info("recipe")
    assert info == sides.one.get_storage_info("image")
    where = "shm_name" if backend.storage == "ram" else "path"
    known = {"storage_type", "size", "data_size", "pass_by", "digest", "created", "pid"}
    assert set(info) == set(recipe) == {*known, where}
    assert (info["storage_type"], info["pass_by"], recipe["pass_by"]) == (backend.storage, "val", "ref")
    path = os.path.join(roots[0], info["shm_name"]) if backend.storage == "ram" else info["path"]
    assert os.path.getsize(path) >= info["size"] >= info["data_size"] >= 400_000
    assert info["pid"] == sides.one.run(lambda context: os.getpid())
    assert info["digest"] == sides.one.digest("image") == sides.other.digest("image")


def test_a_recipe_is_a_dict_and_says_so_until_it_is_replaced(sides: Sides) -> None:
    recipe = {"class_type": "LoraLoader", "inputs": {"model": ["1", 0]}}
    sides.one.save("model", recipe, pass_by="ref")
    assert sides.other.load("model") == recipe
    assert sides.other.get_storage_info("model")["pass_by"] == "ref"
    sides.other.save("model", recipe)
    assert sides.one.get_storage_info("model")["pass_by"] == "val"


def test_a_list_of_items_is_another_value_than_the_same_list(sides: Sides) -> None:
    """It says so to both, until it is replaced; its content is the same list."""
    sides.one.save("whole", [1, 2])
    sides.one.save("items", [1, 2], is_list=True)
    assert sides.other.load("items") == sides.other.load("whole") == [1, 2]
    assert sides.other.digest("items") == f"{sides.other.digest('whole')}/items"
    info = sides.other.get_storage_info("items")
    assert (info["is_list"], info["digest"]) == (True, sides.one.digest("items"))
    sides.other.save("items", [1, 2])
    assert sides.one.digest("items") == sides.one.digest("whole")
    assert "is_list" not in sides.one.get_storage_info("items")


def test_a_list_of_items_is_a_list(context: WorkflowContext) -> None:
    with pytest.raises(TypeError, match="'x' is saved with is_list: it is a tuple, not a list"):
        context.save("x", (1, 2), is_list=True)
    assert "x" not in context


def test_what_was_held_of_a_list_comes_back_as_one(context: WorkflowContext) -> None:
    context.save("x", [1, 2], is_list=True)
    before = context.digest("x")
    held = context.hold("x")
    for other in ([3], [1, 2]):  # another list, and the same one as a whole
        context.save("x", other)
        context.restore(held)
        assert context.digest("x") == before


USAGE_KEYS = {
    "ram_usage_bytes",
    "ram_capacity_bytes",
    "ram_usage_gb",
    "ram_capacity_gb",
    "temp_disk_usage_bytes",
    "temp_disk_usage_mb",
    "stored_keys_count",
}


def test_usage_counts_what_all_processes_store(sides: Sides, backend: Backend) -> None:
    empty = sides.one.get_usage()
    assert set(empty) >= USAGE_KEYS
    assert (empty["ram_capacity_bytes"] > 0) == (backend.has_ram and backend.max_ram_gb is None)
    assert empty["ram_usage_bytes"] == empty["temp_disk_usage_bytes"] == empty["stored_keys_count"] == 0
    sides.one.save("one", np.zeros(MB, np.uint8))
    sides.other.save("two", np.zeros(2 * MB, np.uint8))
    for side in sides:
        usage = side.get_usage()
        counted = usage["ram_usage_bytes"] if backend.storage == "ram" else usage["temp_disk_usage_bytes"]
        assert 3 * MB <= counted < 3 * MB + 40_000
        if backend.storage == "ram":
            assert usage["temp_disk_usage_bytes"] == 0
        else:
            # At most the entries, one page each.
            assert usage["ram_usage_bytes"] <= 2 * 4096
        assert usage["ram_usage_gb"] == usage["ram_usage_bytes"] / 2**30
        assert usage["ram_capacity_gb"] == usage["ram_capacity_bytes"] / 2**30
        assert usage["temp_disk_usage_mb"] == usage["temp_disk_usage_bytes"] / 2**20
        assert usage["stored_keys_count"] == 2
        assert usage["ram_capacity_bytes"] == empty["ram_capacity_bytes"]
    sides.one.delete("two")
    sides.other.delete("one")
    usage = sides.one.get_usage()
    assert usage["ram_usage_bytes"] == usage["temp_disk_usage_bytes"] == usage["stored_keys_count"] == 0


@pytest.mark.parametrize("backend", BACKENDS[:1], ids=["memory"], indirect=True)
def test_processes_that_save_in_turn_stay_within_the_runs_memory(
    backend: Backend, second: Any, roots: list[str]
) -> None:
    with WorkflowContext(max_ram_gb=2 / 1024) as context:
        here, there = Here(context, backend), There(context, backend, second)
        for number in range(30):
            (here, there)[number % 2].save(f"key{number}", np.full(300_000, number, np.uint8))
            usage = context.get_usage()
            assert usage["ram_usage_bytes"] <= usage["ram_capacity_bytes"] == 2 * MB
        assert usage["ram_keys_count"] > 3
        assert all((there.load(f"key{number}") == number).all() for number in range(30))


def test_equal_content_has_one_digest_wherever_it_is_saved(sides: Sides) -> None:
    values: list[Any] = [torch.arange(100_000.0), {"a": ["x", 1.5, None]}, np.arange(30)[::3], bytes(100_000)]
    values.append({"array": np.ones(10, np.float32), "score": np.float32(2)})
    digests = []
    for value in values:
        sides.one.save("key", value)
        digests.append(sides.one.digest("key"))
        sides.other.save("its copy", sides.other.load("key"))
        assert sides.one.digest("its copy") == sides.other.digest("key") == digests[-1]
    assert len(set(digests)) == len(values)
    sides.one.save("key", torch.arange(100_000.0).add_(1e-3))
    assert sides.other.digest("key") not in digests


# --- export -----------------------------------------------------------------------------------------------------------


def test_export_moves_a_value_into_a_file(sides: Sides, tmp_path: Path) -> None:
    value = {"image": torch.rand(50, 500), "function": lambda: 5}
    sides.one.save("key", value)
    target = tmp_path / "new" / "folder" / "result.pkl"
    sides.other.export_data("key", target)
    for side in sides:
        assert side.list_keys() == []
    usage = sides.one.get_usage()
    assert usage["ram_usage_bytes"] == usage["temp_disk_usage_bytes"] == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["result.pkl"]
    loaded = pickle.loads(target.read_bytes())
    assert torch.equal(loaded["image"], value["image"])
    assert loaded["function"]() == 5


def test_export_replaces_only_when_told_to(sides: Sides, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("precious")
    sides.one.save("key", 1)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        sides.other.export_data("key", target)
    assert target.read_text() == "precious"
    assert sides.one.load("key") == 1
    sides.other.export_data("key", str(target), overwrite=True)
    assert cloudpickle.loads(target.read_bytes()) == 1
    assert sides.one.list_keys() == []


def test_a_refused_export_keeps_the_value_and_leaves_no_file(sides: Sides, tmp_path: Path) -> None:
    sides.one.save("key", 1)
    sides.one.save("model", {}, pass_by="ref")
    (tmp_path / "file").write_text("in the way")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match="file"):
        sides.other.export_data("key", tmp_path / "file" / "below")
    with pytest.raises(TypeError, match="'model' is a recipe"):
        sides.other.export_data("model", tmp_path / "recipe")
    assert sorted(os.listdir(tmp_path)) == before
    assert sides.one.list_keys() == ["key", "model"]
    assert sides.one.load("key") == 1


# --- attaching, the registry, the end of a run ------------------------------------------------------------------------


def test_a_process_attaches_once_and_owns_nothing(context: WorkflowContext, here: Here, there: There) -> None:
    here.save("key", 5)

    def look(attached: WorkflowContext) -> tuple[str, bool, bool, str]:
        direct = WorkflowContext(run_id=attached.run_id, create=False)
        assert direct.load("key") == 5
        assert not direct.is_owner
        direct.shutdown()
        return attached.run_id, get_context(attached.run_id) is attached, attached.is_owner, repr(attached)

    assert there.run(look) == (context.run_id, True, False, f"<WorkflowContext {context.run_id} (attached)>")
    assert context.is_owner
    assert context.is_alive()


def test_a_run_id_is_taken_for_as_long_as_its_context_lives(context: WorkflowContext, there: There) -> None:
    def take(attached: WorkflowContext) -> None:
        WorkflowContext(run_id=attached.run_id)

    with pytest.raises(FileExistsError, match=context.run_id):
        there.run(take)
    with pytest.raises(FileExistsError, match=context.run_id):
        take(context)


def test_letting_go_in_one_process_changes_nothing_in_the_other(here: Here, there: There) -> None:
    here.save("key", torch.arange(100_000))

    def let_go(attached: WorkflowContext) -> int:
        value = attached.load("key")
        attached.shutdown()
        attached.shutdown()
        with pytest.raises(RuntimeError, match=attached.run_id):
            attached.load("key")
        again = get_context(attached.run_id)
        assert again is not attached
        unregister_context(again.run_id)
        unregister_context(again.run_id)
        another = get_context(attached.run_id)
        assert another is not again
        register_context(again)
        assert get_context(attached.run_id) is again
        another.shutdown()
        return int(value.add_(1)[-1]) + int(again.load("key")[-1])

    assert there.run(let_go) == 100_000 + 99_999
    assert here.load("key")[-1] == 99_999
    there.save("key", "saved after all that")
    assert here.load("key") == "saved after all that"


def test_after_the_owners_shutdown_nothing_is_left_but_what_was_loaded(
    backend: Backend, roots: list[str], second: Any
) -> None:
    with WorkflowContext(max_ram_gb=backend.max_ram_gb) as context:
        here, there = Here(context, backend), There(context, backend, second)
        here.save("key", torch.arange(100_000))
        there.save("small", [1])
        mine = here.load("key")
        run_id = context.run_id

        def load(kept: dict[str, Any]) -> None:
            kept["context"] = get_context(run_id)
            kept["value"] = kept["context"].load("key")

        second.run(load)
    assert left_in(*roots) == []

    def use(kept: dict[str, Any]) -> int:
        ended, value = kept.pop("context"), kept.pop("value")
        for attempt in (
            lambda: ended.load("key"),
            lambda: ended.load("small"),
            lambda: ended.save("key", 1),
            lambda: ended.save("key", bytes(200_000)),
            lambda: ended.save("key", bytes(200_000), use_ram=False),
            lambda: ended.delete("key"),
            ended.list_keys,
            ended.get_usage,
            lambda: ended.get_storage_info("key"),
        ):
            with pytest.raises(RuntimeError, match=run_id):
                attempt()
        with pytest.raises(KeyError, match=run_id) as caught:
            get_context(run_id)
        assert isinstance(caught.value, UnknownRunError)
        with pytest.raises(FileNotFoundError, match=run_id):
            WorkflowContext(run_id=run_id, create=False)
        return int(value.add_(1)[-1])

    assert second.run(use) == 100_000
    assert use({"context": context, "value": mine}) == 100_000
    context.shutdown()
    assert left_in(*roots) == []


def test_an_unknown_run_id_is_named_in_every_process(second: Any) -> None:
    def ask(kept: dict[str, Any], run_id: Any) -> None:
        get_context(run_id)

    for run_id in ("0" * 32, "../../etc/passwd", "", "G" * 32, None, 5):
        with pytest.raises(KeyError) as caught:
            second.run(ask, run_id)
        assert isinstance(caught.value, UnknownRunError)
        assert repr(run_id) in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS[:2], ids=["memory", "disk"], indirect=True)
def test_a_killed_process_leaves_the_context_to_the_others(context: WorkflowContext, here: Here, there: There) -> None:
    """It had values mapped, and one that it had saved; the next one goes on with all of them."""
    here.save("key", torch.arange(1_000_000))

    def use(attached: WorkflowContext) -> None:
        vars(attached)["kept"] = attached.load("key").add_(1)

    there.run(use)
    there.save("from the other", torch.arange(1_000_000))
    there._second.kill()
    assert here.load("key")[-1] == here.load("from the other")[-1] == there.load("from the other")[-1] == 999_999
    here.delete("key")
    here.delete("from the other")
    usage = context.get_usage()
    assert usage["ram_usage_bytes"] == usage["temp_disk_usage_bytes"] == 0
