"""A run's values are found by its run_id in every process, survive what they should, and are gone when it ends.

What holds for every value and both backends is in test_context_contract.py.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from discomfort.object_store import memory
from discomfort.workflow_context import (
    WorkflowContext,
    get_context,
    register_context,
    sweep,
    unregister_context,
)

import discomfort
from discomfort import workflow_context

PACKAGE = os.path.dirname(os.path.abspath(discomfort.__file__ or ""))
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture(autouse=True)
def roots(data_roots: tuple[str, str]) -> tuple[str, str]:
    """[RAM root, disk root] of this test's own."""
    return data_roots


def left_in(*folders: str) -> list[str]:
    return [str(path) for folder in folders for path in Path(folder).rglob("*")]


@pytest.fixture
def context() -> Iterator[WorkflowContext]:
    with WorkflowContext() as made:
        yield made


def start(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd="/")


def run(code: str, *args: str) -> str:
    process = start(code, *args)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_exported_file_needs_nothing_of_this_project(context: WorkflowContext, tmp_path: Path) -> None:
    context.save("key", torch.arange(5000))
    context.export_data("key", tmp_path / "tensor.pkl")
    code = """
    import pickle, sys
    tensor = pickle.load(open(sys.argv[1], "rb"))
    print(int(tensor.sum()), any(name in sys.modules for name in ("discomfort", "_discomfort_shared_v1")))
    """
    assert run(code, str(tmp_path / "tensor.pkl")).split() == [str(5000 * 4999 // 2), "False"]


def test_a_failed_export_keeps_the_value_and_leaves_no_file(
    context: WorkflowContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.save("key", 1)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        context.export_data("key", tmp_path / "file" / "below")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="No space"):
        context.export_data("key", tmp_path / "out" / "result")
    monkeypatch.undo()
    assert os.listdir(tmp_path / "out") == []
    assert context.load("key") == 1


def test_a_value_stored_during_the_export_stays(
    context: WorkflowContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.save("key", "old")
    real = os.fsync

    def save_meanwhile(fd: int) -> None:
        context.save("key", "new")
        real(fd)

    monkeypatch.setattr(os, "fsync", save_meanwhile)
    context.export_data("key", tmp_path / "file")
    assert cloudpickle.loads((tmp_path / "file").read_bytes()) == "old"
    assert context.load("key") == "new"


# --- attaching and the registry ---------------------------------------------------------------------------------------

_NODE = """
    import sys
    from discomfort.workflow_context import get_context
    context = get_context(sys.argv[1])
"""


def test_attaching_needs_a_run_id_that_lives() -> None:
    with pytest.raises(FileNotFoundError, match="1" * 32):
        WorkflowContext(run_id="1" * 32, create=False)
    with pytest.raises(ValueError, match="run_id"):
        WorkflowContext(create=False)
    with pytest.raises(ValueError, match="not a run_id"):
        WorkflowContext(run_id="../x", create=False)
    with pytest.raises(ValueError, match="not a run_id"):
        WorkflowContext(run_id="../x")
    with WorkflowContext(run_id="2" * 32) as context:
        assert context.run_id == "2" * 32
        with pytest.raises(FileExistsError, match="2" * 32):
            WorkflowContext(run_id="2" * 32)


def test_the_registry_returns_what_was_registered(context: WorkflowContext) -> None:
    register_context(context)
    assert get_context(context.run_id) is context
    unregister_context(context.run_id)
    unregister_context(context.run_id)
    other = get_context(context.run_id)
    assert other is not context
    assert not other.is_owner
    other.shutdown()
    assert "context" not in context.list_keys()


def test_shutdown_takes_a_context_out_of_the_registry() -> None:
    context = WorkflowContext()
    register_context(context)
    context.shutdown()
    with pytest.raises(KeyError):
        get_context(context.run_id)


def test_contexts_whose_owner_is_gone_do_not_pile_up() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        owner = WorkflowContext()
        assert not get_context(owner.run_id).is_owner
        owner.shutdown()
        with pytest.raises(KeyError):
            get_context(owner.run_id)
    del owner
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_threads_that_ask_at_once_get_one_context(context: WorkflowContext) -> None:
    found: list[WorkflowContext] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(get_context(context.run_id))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    found[0].shutdown()


def _load_as(name: str) -> Any:
    """Load the package's context module once more, as ComfyUI does: under another name, from its path."""
    package = importlib.util.spec_from_file_location(name, os.path.join(PACKAGE, "__init__.py"))
    assert package is not None
    module = importlib.util.module_from_spec(package)
    module.__path__ = [PACKAGE]
    sys.modules[name] = module
    try:
        return importlib.import_module(f"{name}.workflow_context")
    finally:
        for found in [found for found in sys.modules if found == name or found.startswith(name + ".")]:
            del sys.modules[found]


def test_copies_of_the_package_share_registry_and_values(context: WorkflowContext) -> None:
    copy = _load_as("custom_nodes_x_discomfort")
    assert copy is not workflow_context
    assert copy.WorkflowContext is not WorkflowContext
    register_context(context)
    assert copy.get_context(context.run_id) is context
    attached = copy.WorkflowContext(run_id=context.run_id, create=False)
    attached.save("tensor", torch.arange(100_000))
    assert context.load("tensor")[-1] == 99_999
    context.save("tensor", torch.zeros(3))
    assert attached.load("tensor").tolist() == [0, 0, 0]
    attached.shutdown()


def test_a_process_that_loads_the_package_under_another_name_reads_the_same_tensors(context: WorkflowContext) -> None:
    context.save("tensor", torch.arange(100_000))
    code = """
    import importlib, sys, types
    package = sys.modules["custom_nodes.discomfort"] = types.ModuleType("custom_nodes.discomfort")
    package.__path__ = [sys.argv[2]]
    sys.modules["custom_nodes"] = types.ModuleType("custom_nodes")
    context = importlib.import_module("custom_nodes.discomfort.workflow_context").get_context(sys.argv[1])
    context.save("back", context.load("tensor") + 1)
    print(any(name.startswith("discomfort") for name in sys.modules))
    """
    assert run(code, context.run_id, PACKAGE) == "False\n"
    assert context.load("back")[-1] == 100_000


# --- ends of a run ----------------------------------------------------------------------------------------------------


def test_with_shuts_down_after_an_exception_too(roots: tuple[str, str]) -> None:
    with pytest.raises(ZeroDivisionError), WorkflowContext() as context:
        context.save("key", 1 / 0)
    assert left_in(*roots) == []


def test_a_collected_context_cleans_up(roots: tuple[str, str]) -> None:
    context = WorkflowContext()
    context.save("key", 1)
    del context
    gc.collect()
    assert left_in(*roots) == []


def test_concurrent_shutdowns(roots: tuple[str, str]) -> None:
    context = WorkflowContext()
    context.save("key", 1)
    threads = [threading.Thread(target=context.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.shutdown()
    assert left_in(*roots) == []


_OWNER = """
    import sys
    from discomfort.workflow_context import WorkflowContext, register_context
    context = WorkflowContext()
    register_context(context)
    context.save("ram", bytes(100_000))
    context.save("disk", bytes(100_000), use_ram=False)
    print(context.run_id, flush=True)
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0", "keep = [context]; keep.append(keep)"])
def test_an_exit_without_shutdown_leaves_nothing(roots: tuple[str, str], end: str) -> None:
    start(_OWNER + "    " + end).communicate()
    assert left_in(*roots) == []


def test_ctrl_c_leaves_nothing(roots: tuple[str, str]) -> None:
    owner = start(_OWNER + "    sys.stdin.readline()")
    assert owner.stdout is not None
    owner.stdout.readline()
    assert left_in(*roots) != []
    owner.send_signal(signal.SIGINT)
    owner.communicate()
    assert owner.returncode != 0
    assert left_in(*roots) == []


def test_what_a_killed_owner_left_is_swept_at_the_next_start(roots: tuple[str, str]) -> None:
    owner = start(_OWNER + "    sys.stdin.readline()")
    assert owner.stdout is not None
    dead_id = owner.stdout.readline().strip()
    attached = get_context(dead_id)
    owner.kill()
    owner.communicate()
    assert left_in(*roots) != []
    with WorkflowContext() as context:
        assert [path for path in left_in(*roots) if dead_id in path] == []
        context.save("key", 1)
        assert sweep() == []
        assert context.load("key") == 1
    with pytest.raises(RuntimeError, match=dead_id):
        attached.load("ram")
    attached.shutdown()


def test_sweep_says_what_it_removed(roots: tuple[str, str]) -> None:
    owner = start(_OWNER + "    sys.stdin.readline()")
    assert owner.stdout is not None
    dead_id = owner.stdout.readline().strip()
    assert sweep() == []
    owner.kill()
    owner.communicate()
    removed = sweep()
    assert sorted(map(os.path.basename, removed)) == [f"run-{dead_id}"] * 2
    assert left_in(*roots) == []


def test_a_forked_child_leaves_the_run_to_its_owner(context: WorkflowContext) -> None:
    register_context(context)
    context.save("key", 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            get_context(context.run_id).save("child", 2)
            context.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert context.load("child") == 2


# --- configuration ----------------------------------------------------------------------------------------------------


def _write(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_the_shipped_configuration_is_the_default() -> None:
    assert workflow_context.load_config() == workflow_context.ContextConfig()


@pytest.mark.parametrize(
    ("config", "argument", "expected"),
    [
        ({"MAX_RAM_PERCENT": 10}, None, 1000),
        ({"MAX_RAM_PERCENT": 10, "MAX_RAM_GB": 5 / 2**30}, None, 1000),
        ({"MAX_RAM_PERCENT": None, "MAX_RAM_GB": 5 / 2**30}, None, 5),
        ({"MAX_RAM_PERCENT": None, "MAX_RAM_GB": 1}, None, 10_000),
        ({"MAX_RAM_PERCENT": None, "MAX_RAM_GB": None}, None, 10_000),
        ({}, None, 5000),
        ({"MAX_RAM_PERCENT": 10}, 7 / 2**30, 7),
        ({"MAX_RAM_PERCENT": 0}, None, 0),
    ],
)
def test_percent_wins_over_gb_and_the_argument_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], argument: float | None, expected: int
) -> None:
    monkeypatch.setattr(memory, "free_ram_bytes", lambda: 10_000)
    path = _write(tmp_path / "config.json", **config)
    with WorkflowContext(path, max_ram_gb=argument) as context:
        assert context.get_usage()["ram_capacity_bytes"] == expected


def test_no_ram_at_all_puts_everything_on_disk(caplog: pytest.LogCaptureFixture) -> None:
    with WorkflowContext(max_ram_gb=0) as context:
        for key in "abc":
            context.save(key, torch.ones(10))
            info = context.get_storage_info(key)
            assert info is not None
            assert info["storage_type"] == "disk"
            assert torch.equal(context.load(key), torch.ones(10))
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"MAX_RAM": 1}, "unknown key 'MAX_RAM'; known are MAX_RAM_PERCENT"),
        ({"MAX_RAM_PERCENT": 101}, "MAX_RAM_PERCENT is 101; allowed are numbers from 0 to 100"),
        ({"MAX_RAM_PERCENT": "half"}, "MAX_RAM_PERCENT is 'half'"),
        ({"MAX_RAM_GB": -1}, "MAX_RAM_GB is -1; allowed are numbers of at least 0"),
        ({"MAX_RAM_GB": True}, "MAX_RAM_GB is True"),
        ({"CONTEXTS_DIR_NAME": "../x"}, "CONTEXTS_DIR_NAME is '../x'"),
        ({"CONTEXTS_DIR_NAME": ""}, "CONTEXTS_DIR_NAME is ''"),
        ({"CONTEXTS_DIR_NAME": "a b"}, "CONTEXTS_DIR_NAME is 'a b'"),
        ({"CONTEXTS_DIR_NAME": 5}, "CONTEXTS_DIR_NAME is 5"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_configuration_is_named_with_what_is_allowed(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "config.json", **content)
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        WorkflowContext(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("use_ram", [True, False])
@pytest.mark.parametrize("small", [True, False])
def test_a_held_value_is_restored_whatever_was_saved_meanwhile(use_ram: bool, small: bool) -> None:
    value = {"a": 1} if small else torch.arange(3_000_000)
    with WorkflowContext() as context:
        context.save("key", value, use_ram=use_ram)
        digest, held = context.digest("key"), context.hold("key")
        context.restore(held)
        assert context.digest("key") == digest  # it was still there
        for other in (torch.zeros(5_000_000), "short"):
            context.save("key", other, use_ram=use_ram)
        context.restore(held, use_ram=use_ram)
        assert context.digest("key") == digest
        loaded = context.load("key")
        assert loaded == value if small else torch.equal(loaded, value)
        context.delete("key")
        context.restore(held)
        assert context.digest("key") == digest
        with pytest.raises(KeyError, match="nowhere"):
            context.hold("nowhere")
        context.save("recipe", {"nodes": {}}, pass_by="ref")
        recipe = context.hold("recipe")
        context.delete("recipe")
        context.restore(recipe)
        info = context.get_storage_info("recipe")
        assert info is not None
        assert info["pass_by"] == "ref"


def test_a_configuration_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        WorkflowContext(tmp_path / "nowhere.json")
    for text in ("{", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            WorkflowContext(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="max_ram_gb is -1"):
        WorkflowContext(max_ram_gb=-1)


def test_another_folder_name_and_disk_root_reach_the_other_process(
    tmp_path: Path, roots: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nested server knows only the run_id, not the owner's configuration."""
    monkeypatch.setenv("DISCOMFORT_DISK_ROOT", "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = _write(tmp_path / "config.json", CONTEXTS_DIR_NAME=str(elsewhere / "mine"))
    with WorkflowContext(path) as context:
        context.save("key", "value", use_ram=False)
        assert os.listdir(roots[0]) == os.listdir(elsewhere) == [f"mine-{os.geteuid()}"]
        assert run(_NODE + "    print(context.load('key'))", context.run_id) == "value\n"
    assert left_in(str(elsewhere)) == []


def test_the_usual_places_are_shared_memory_and_the_temp_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISCOMFORT_RAM_ROOT")
    monkeypatch.delenv("DISCOMFORT_DISK_ROOT")
    with WorkflowContext() as context:
        context.save("ram", 1)
        context.save("disk", 1, use_ram=False)
        paths = [
            info["path"] if info["storage_type"] == "disk" else os.path.join("/dev/shm", info["shm_name"])
            for key in context.list_keys()
            if (info := context.get_storage_info(key)) is not None
        ]
        assert paths[0].startswith(tempfile.gettempdir())
        assert all(map(os.path.exists, paths))
    assert not any(map(os.path.exists, paths))
