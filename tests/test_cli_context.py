"""``python -m discomfort context``: what a person sees of runs from outside, and that looking changes nothing.

The commands are run as a user runs them, in processes of their own, on contexts of this and of other processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from discomfort.cli import commands
from discomfort.object_store import RunStore, StoreError, files, look_into
from discomfort.object_store.file_format import FORMAT_VERSION
from discomfort.workflow_context import WorkflowContext, context_roots, list_contexts, sweep

from discomfort import workflow_context

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="killed owners, modes and links are POSIX")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
MB = 2**20
EVIL = "\x1b[2J\x1b]0;owned\x07evil\nkey\u202e\ud800"

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def roots(data_roots: tuple[str, str]) -> tuple[str, str]:
    """[RAM root, disk root] of this test's own."""
    return data_roots


@pytest.fixture
def context() -> Iterator[WorkflowContext]:
    with WorkflowContext() as made:
        yield made


def cli(*words: str, status: int = 0) -> str:
    """Run ``python -m discomfort context ...``; return what it printed where it should print it."""
    command = [sys.executable, "-m", "discomfort", "context", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd="/")
    assert done.returncode == status, done.stdout + done.stderr
    if status == 0:
        assert done.stderr == ""
        return done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if status != 2:
        assert done.stderr.startswith("discomfort: ")
        assert done.stderr.count("\n") == 1
    return done.stderr


def cli_json(*words: str) -> Any:
    return json.loads(cli(*words, "--json"))


def inside(*words: str, status: int = 0) -> str:
    """The same in this process, where the road into the program is not what the test is about: 100 times faster."""
    result = CliRunner().invoke(commands, ["context", *words])
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, (SystemExit, type(None)))
    return result.output


_OWNER = textwrap.dedent(
    """
    import sys
    from discomfort import WorkflowContext
    context = WorkflowContext()
    context.save("ram", b"r" * 300_000)
    context.save("disk", b"d" * 500_000, use_ram=False)
    print(context.run_id, flush=True)
    sys.stdin.readline()
    """
)


def dead_run(**environment: str) -> str:
    """Let a process make a run with a value in memory and one on disk, and kill it (-9); returns the run_id."""
    pipe = subprocess.PIPE
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=pipe, stdout=pipe, text=True, cwd="/", env={**os.environ, **environment}
    )
    assert owner.stdout is not None
    run_id = owner.stdout.readline().strip()
    owner.kill()
    owner.communicate()
    assert len(run_id) == 32
    return run_id


def home(root: str) -> Path:
    return Path(root) / f"discomfort-{os.geteuid()}"


def only(found: list[Any]) -> Any:
    (one,) = found
    return one


# ---- list ----


def test_where_there_is_nothing_it_says_so(roots: tuple[str, str]) -> None:
    text = cli("list")
    assert text.startswith(f"No run has data here ({home(roots[0])} and {home(roots[1])}).\n")
    assert "Shared memory" in text
    content = cli_json("list")
    assert content["runs"] == []
    usage = shutil.disk_usage(roots[0])
    assert content["shared_memory"]["path"] == roots[0]
    assert content["shared_memory"]["total_bytes"] == usage.total


def test_live_and_dead_runs_are_told_apart_with_what_they_occupy(
    context: WorkflowContext, roots: tuple[str, str]
) -> None:
    dead_id = dead_run()
    context.save("image", torch.zeros(MB))
    context.save("other", torch.zeros(MB), use_ram=False)
    live, dead = list_contexts()
    assert (dead.run_id, dead.state, dead.is_alive, dead.keys) == (dead_id, "dead", False, 2)
    assert (live.run_id, live.state, live.is_alive, live.keys) == (context.run_id, "live", True, 2)
    assert live.owner_pid == os.getpid() != dead.owner_pid
    assert live.path == str(home(roots[0]) / f"run-{context.run_id}")
    assert live.disk_path == str(home(roots[1]) / f"run-{context.run_id}")
    assert live.format_is_known
    usage = context.get_usage()
    assert 0 < live.ram_bytes - usage["ram_usage_bytes"] <= MB  # the reserve
    assert live.disk_bytes == usage["temp_disk_usage_bytes"]
    assert 500_000 < dead.disk_bytes < 510_000
    assert (live.problem, dead.problem) == ("", "")

    lines = cli("list").splitlines()
    assert lines[0].split() == ["RUN", "STATE", "OWNER", "AGE", "KEYS", "MEMORY", "DISK", "FOLDER"]
    assert lines[1].split()[:3] == [context.run_id[:8], "live", str(os.getpid())]
    assert lines[1].endswith(f"2  5.0 MB    4.0 MB  {live.path}")
    assert lines[2].split()[:3] == [dead_id[:8], "dead", str(dead.owner_pid)]
    assert lines[4].startswith("2 runs, 1 dead: 6.")
    assert lines[5] == "What a run holds: python -m discomfort context show RUN"
    assert lines[6].endswith("python -m discomfort context sweep")
    assert lines[7].startswith(f"Shared memory {roots[0]}: ")
    for run, told in zip(list_contexts(), cli_json("list")["runs"], strict=True):
        assert told == {**run._asdict(), "state": run.state}
    sweep()


def test_a_living_process_with_the_dead_owners_number_does_not_bring_a_run_to_life() -> None:
    run_id = dead_run()
    path = Path(only(list_contexts()).path, "owner.lock")
    path.write_text(f"pid {os.getpid()} since 2024-01-01 00:00:00\n")
    run = only(list_contexts())
    assert (run.is_alive, run.owner_pid, run.since) == (False, os.getpid(), "2024-01-01 00:00:00")
    assert f"process {os.getpid()}, which is dead" in cli("show", run_id)
    path.write_bytes(b"\x1b[2Jrubbish\n")
    run = only(list_contexts())
    assert (run.is_alive, run.owner_pid, run.since) == (False, None, "")
    sweep()


def test_a_run_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOMFORT_RAM_ROOT", "none")
    with WorkflowContext() as context:
        context.save("image", torch.zeros(MB))
        run = only(list_contexts())
        assert (run.ram_bytes, run.keys, run.disk_path) == (0, 1, run.path)
        assert run.disk_bytes >= 4 * MB
        assert "No shared memory here" in cli("list")
        text = cli("show", context.run_id[:9])
        assert "  memory" not in text
        assert f"  disk    4.0 MB, {run.path}\n" in text
        assert only(cli_json("show", context.run_id)["keys"])["storage_type"] == "disk"


def test_a_file_with_two_names_is_counted_once(context: WorkflowContext) -> None:
    context.save("image", torch.zeros(MB))
    run = only(list_contexts())
    (path,) = Path(run.path, "objects").iterdir()
    os.link(path, Path(run.path, "seg", "0" * 32))
    assert only(list_contexts()).ram_bytes == run.ram_bytes >= 5 * MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is written again on Linux")
def test_memory_that_is_lent_is_counted_once_where_it_is_used(context: WorkflowContext) -> None:
    with WorkflowContext(lender=context) as borrower:
        borrower.save("image", torch.zeros(MB))
        lender, other = list_contexts()
        assert lender.ram_bytes <= MB
        assert 5 * MB <= other.ram_bytes < 6 * MB
    assert 5 * MB <= only(list_contexts()).ram_bytes < 6 * MB
    assert re.search(r"\n  memory  0 B of the [0-9.]+ GB it may use, 4\.0 MB idle, ", inside("show", context.run_id))
    context.save("image", torch.zeros(MB))
    value = context.load("image")
    context.save("image", 1)
    text = inside("show", context.run_id)
    assert "(4.0 MB of it replaced values that are still in use)" in text
    del value


def test_a_twin_whose_memory_is_gone(roots: tuple[str, str]) -> None:
    """A reboot empties /dev/shm, and not the disk."""
    run_id = dead_run()
    shutil.rmtree(home(roots[0]))
    run = only(list_contexts())
    assert (run.run_id, run.is_alive, run.path, run.disk_path) == (run_id, False, run.disk_path, run.path)
    assert run.problem == "only its folder on disk is left"
    assert run.problem in cli("list")
    assert run.problem in cli("show", run_id, status=3)
    content = cli_json("sweep")
    assert content["removed"] == [run.path]
    assert content["disk_bytes"] == run.disk_bytes > 500_000


def test_a_twin_whose_memory_is_elsewhere_lives(
    roots: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("DISCOMFORT_RAM_ROOT", str(tmp_path / "other"))
        context = WorkflowContext()
    with context:
        run = only(list_contexts())
        assert run.is_alive
        assert "another memory folder" in run.problem
        assert sweep() == []


def test_a_twin_on_another_disk_is_counted_and_swept_with_its_run(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    run_id = dead_run(DISCOMFORT_DISK_ROOT=str(other))
    run = only(list_contexts())
    assert run.disk_path == str(home(str(other)) / f"run-{run_id}")
    assert 500_000 < run.disk_bytes < 510_000
    would = cli_json("sweep", "--dry-run")
    did = cli_json("sweep")
    assert sorted(would["removed"]) == sorted(did["removed"]) == sorted([run.path, run.disk_path])
    assert list(other.iterdir()) == []


def test_runs_of_another_folder_name_are_found_with_their_configuration(tmp_path: Path) -> None:
    config = tmp_path / "my config.json"
    config.write_text(json.dumps({"CONTEXTS_DIR_NAME": "elsewhere"}))
    with WorkflowContext(config) as context:
        assert list_contexts() == []
        assert json.loads(inside("list", "--json"))["runs"] == []
        assert only(cli_json("list", "--config", str(config))["runs"])["run_id"] == context.run_id
        text = inside("show", context.run_id, status=3)
        assert "(--config, " in text
        text = cli("show", "0" * 32, "--config", str(config), status=3)
        assert text.endswith(f"context list --config '{config}'\n")
        assert context.run_id in inside("show", context.run_id, "--config", str(config))
    assert "does not exist" in cli("list", "--config", str(tmp_path / "missing.json"), status=1)
    config.write_text("{")
    assert "is not JSON" in inside("sweep", "--config", str(config), status=1)


# ---- looking changes nothing ----


def everything(*folders: str) -> dict[str, Any]:
    """All that could have changed: names, modes, times and contents."""
    found = {}
    for path in (path for folder in folders for path in [Path(folder), *Path(folder).rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and status.st_size < 2 * MB else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ino, status.st_size, content)
    return found


def test_looking_changes_nothing(context: WorkflowContext, roots: tuple[str, str]) -> None:
    dead_id = dead_run()
    # A file that a killed writer left long ago, which whoever attaches removes; a run without its lock file.
    unfinished = home(roots[0]) / f"run-{context.run_id}" / "seg" / f"{'0' * 32}.tmp"
    unfinished.touch()
    os.utime(unfinished, (0, 0))
    (home(roots[0]) / f"run-{dead_id}" / "owner.lock").unlink()
    (home(roots[0]) / (".new-" + "1" * 32)).mkdir(mode=0o700)
    context.save("image", torch.zeros(MB))
    before = everything(*roots)
    assert len(cli_json("list")["runs"]) == 3
    inside("show", context.run_id)
    cli("show", context.run_id, "image")
    inside("show", dead_id, "disk")
    assert len(cli_json("sweep", "--dry-run")["removed"]) == 3
    assert everything(*roots) == before
    assert len(sweep()) == 3  # at once: no lock was kept


def test_the_lock_of_a_run_that_is_being_made_is_left_to_its_owner(
    roots: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a run takes its lock without waiting: a lock of ours at that moment would leave it without one."""
    made = WorkflowContext()
    locked = []

    def spy(fd: int, wait: bool, shared: bool = False, lock: Any = files.lock_fd) -> bool:
        locked.append((os.fstat(fd).st_ino, wait, shared))
        return bool(lock(fd, wait, shared))

    folder = home(roots[0]) / (".new-" + "1" * 32)
    folder.mkdir(mode=0o700)
    (folder / "owner.lock").touch(mode=0o600)
    with made:
        with monkeypatch.context() as patch:
            patch.setattr(files, "lock_fd", spy)
            found = {run.run_id: run for run in list_contexts()}
        assert found["1" * 32].is_alive is False  # nobody has the lock of the user's folder: it was left
        assert (folder / "owner.lock").stat().st_ino not in {inode for inode, _, _ in locked}
        assert {(wait, shared) for _, wait, shared in locked} == {(False, True)}
        lock = files.Lock(os.open(home(roots[0]), os.O_RDONLY))
        assert lock.acquire(wait=False)  # as while a run is made
        found = {run.run_id: run for run in list_contexts()}
        lock.release()
        assert (found["1" * 32].is_alive, found[made.run_id].is_alive) == (True, True)
        assert sweep() == [str(folder)]


def test_a_run_that_is_made_between_two_looks_is_there_whole_or_not_at_all(
    context: WorkflowContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Any] = []

    def names(folder: files.Folder, real: Any = files.Folder.names) -> list[str]:
        found: list[str] = real(folder)
        if not others and os.path.basename(folder.path).startswith("discomfort-"):
            others.append("is being made")
            others[:] = [WorkflowContext()]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(files.Folder, "names", names)
        runs = list_contexts()
    with others[0] as other:
        assert {run.run_id for run in runs} <= {context.run_id, other.run_id}
        assert {(run.is_alive, run.problem, run.path == run.disk_path) for run in runs} == {(True, "", False)}


def test_a_run_that_is_removed_while_its_lock_is_asked_for_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkflowContext()
    real = files.Lock.acquire

    def acquire(lock: files.Lock, wait: bool, shared: bool = False) -> bool:
        if shared:
            # Between opening the owner's lock file and asking for the lock.
            context.shutdown()
        return real(lock, wait, shared)

    with monkeypatch.context() as patch:
        patch.setattr(files.Lock, "acquire", acquire)
        assert list_contexts() == []


def test_runs_that_come_and_go_meanwhile_are_no_errors_and_are_not_harmed() -> None:
    """Threads make, fill and end runs as fast as they can, while others list them and look into them."""
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            for _ in range(60):
                with WorkflowContext() as context:
                    context.save("a", 1)
                    context.save("b", b"b" * 100_000, use_ram=False)
                    assert context.is_alive()
                    assert context.load("a") == 1
                    context.delete("a")
        except BaseException as exc:
            errors.append(exc)

    def look() -> None:
        looks = 0
        try:
            while not done.is_set() or not looks:
                looks += 1
                for run in list_contexts():
                    # Threads that hold the lock of the user's folder may make it look unfinished, never dead.
                    assert run.is_alive is True, run
                    gone = contextlib.suppress(FileNotFoundError, StoreError)
                    with gone, look_into(run, context_roots()) as store:
                        assert set(store.list_keys()) <= {"a", "b"}
        except BaseException as exc:
            errors.append(exc)

    workers = [threading.Thread(target=work) for _ in range(2)]
    watchers = [threading.Thread(target=look) for _ in range(2)]
    for thread in [*workers, *watchers]:
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    for thread in watchers:
        thread.join()
    assert errors == []


def test_a_run_that_vanishes_between_list_and_show(monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkflowContext()
    run = only(cli_json("list")["runs"])
    context.shutdown()
    assert context.run_id in cli("show", run["run_id"], status=3)

    # And between the two steps of one command.
    context = WorkflowContext()
    found = list_contexts()

    def list_and_lose(config_path: Any = None) -> Any:
        context.shutdown()
        return found

    monkeypatch.setattr(workflow_context, "list_contexts", list_and_lose)
    text = inside("show", context.run_id, status=3)
    assert f"run {context.run_id} has nothing to show: it was removed at this moment" in text


# ---- what is refused ----


def test_a_users_folder_that_others_can_write_to_is_refused_and_told(roots: tuple[str, str]) -> None:
    run_id = dead_run()
    home(roots[0]).chmod(0o777)
    refused, twin = list_contexts()
    assert (refused.run_id, refused.path, refused.is_alive) == ("", str(home(roots[0])), None)
    assert (twin.run_id, twin.is_alive) == (run_id, False)
    text = cli("list")
    assert "\n-         refused" in text
    assert f"{home(roots[0])} is open to other users (mode 0777)" in text
    assert "1 run, 1 dead" in text
    cli("show", run_id, status=3)
    content = cli_json("sweep", "--dry-run")
    assert content["removed"] == [twin.path]
    done = subprocess.run(
        [sys.executable, "-m", "discomfort", "context", "sweep"], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0
    assert f"discomfort: nothing is swept in {roots[0]}" in done.stderr
    assert "Removed run" in done.stdout
    home(roots[0]).chmod(0o700)
    sweep()


def left_run() -> Path:
    """The folder of a run that nobody owns, with one value: the copy of a live one."""
    run_id = os.urandom(16).hex()
    with WorkflowContext() as context:
        context.save("key", 1)
        path = Path(list_contexts()[-1].path)
        copy = Path(f"{path.parent} of another")
        shutil.copytree(path, copy)
        content = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**content, "run_id": run_id, "disk_path": None}))
    path.parent.mkdir(mode=0o700)
    return copy.rename(path.with_name(f"run-{run_id}"))


def put_in_run_file(text: str) -> Callable[[Path], Any]:
    return lambda run: (run / "run.json").write_text(text)


def make_other_format(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "format": "\x1b[2J"}))


def make_link(name: str) -> Callable[[Path], Any]:
    """Put a symbolic link in the place of a file of the run, or of its folder."""

    def harm(run: Path) -> None:
        path = run / name if name else run
        target = path.with_name("target")
        path.rename(target)
        path.symlink_to(target)

    return harm


@pytest.mark.parametrize(
    ("harm", "is_alive", "problem", "status"),
    [
        (lambda run: run.chmod(0o777), None, "open to other users (mode 0777)", 1),
        pytest.param(
            *(lambda run: os.chown(run, 65534, -1), None, "belongs to user 65534", 1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away"),
        ),
        (make_link(""), None, "not a real folder", 1),
        (make_link("objects"), None, "not a real folder", 1),
        (make_link("owner.lock"), None, "whether its owner lives cannot be told", 0),
        (make_link("run.json"), False, "it cannot be read", 1),
        (put_in_run_file("{"), False, "is not JSON", 1),
        (put_in_run_file("\x00" * 70_000), False, "is not JSON", 1),
        (put_in_run_file('{"run_id": "\\u001b[2J"}'), False, "belongs to another run", 1),
        (make_other_format, False, f"has format '\\x1b[2J'; this version reads {FORMAT_VERSION}", 1),
        (lambda run: (run / "run.json").unlink(), False, "it was never finished", 3),
        (lambda run: shutil.rmtree(run / "objects"), False, "", 3),
        (lambda run: (run / "owner.lock").unlink(), False, "", 0),
    ],
    ids=str.split(
        "0777 stranger's link linked-objects linked-lock linked-run.json no-JSON zeros another's format no-run.json "
        "no-objects no-lock"
    ),
)
def test_a_folder_that_is_not_what_it_should_be_is_named_and_hurts_nothing(
    roots: tuple[str, str], harm: Callable[[Path], Any], is_alive: bool | None, problem: str, status: int
) -> None:
    path = left_run()
    assert only(list_contexts())[:5] == (path.name[4:], str(path), None, False, os.getpid())
    harm(path)
    run = only(list_contexts())
    assert (run.run_id, run.path, run.is_alive) == (path.name[4:], str(path), is_alive)
    assert problem in run.problem
    assert bool(run.problem) == bool(problem)
    assert run.problem in inside("list")
    text = inside("show", path.name, status=status)
    assert "\x1b" not in text
    if status == 1:
        assert text.startswith("discomfort: ")
        assert text.count("\n") == 1
    shutil.rmtree(home(roots[0]))


def test_refused_folders_do_not_hide_the_others(context: WorkflowContext, roots: tuple[str, str]) -> None:
    path = home(roots[0]) / f"run-{'1' * 32}"
    path.mkdir()
    path.chmod(0o777)
    context.save("key", 1)
    text = cli("list")
    assert f"\n{'1' * 8}  unknown  ?" in text
    assert f"\n{'1' * 8}: {path} is open to other users (mode 0777)" in text
    assert f"\n{context.run_id[:8]}  live" in text
    assert "2 runs, 0 dead" in text
    assert f"{path} is open to other users" in cli("show", "1" * 32, status=1)
    text = cli("sweep", "--dry-run")
    assert text.startswith("Nothing to remove")
    assert "1 run is in use and left alone." in text
    assert f"{path} would be left alone: " in text
    path.rmdir()


def test_a_damaged_object_is_told_and_the_others_are_shown(context: WorkflowContext) -> None:
    context.save("good", 1)
    context.save("bad", 2)
    info = context.get_storage_info("bad")
    assert info is not None
    path = Path(only(list_contexts()).path) / "objects" / os.path.basename(info["shm_name"])
    path.write_bytes(b"\x1b" * 200)
    command = [sys.executable, "-m", "discomfort", "context", "show", context.run_id]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0
    assert done.stderr.startswith(f"discomfort: {path.name} in {path.parent} is no object: ")
    assert "\ngood " in done.stdout
    assert done.stdout.endswith("1 more entry could not be read.\n")
    assert "\x1b" not in done.stdout + done.stderr
    assert "'bad' is damaged" in cli("show", context.run_id, "bad", status=1)


# ---- show ----


def test_show_lists_what_is_stored(context: WorkflowContext) -> None:
    context.save("latent", {"samples": torch.zeros(1, 4, 64, 64)})
    context.save("archive", torch.zeros(MB), use_ram=False)
    context.save("model", {"class_type": "CheckpointLoaderSimple"}, pass_by="ref")
    run = only(list_contexts())
    content = cli_json("show", context.run_id)
    assert content["run"]["run_id"] == context.run_id
    assert content["usage"]["ram_bytes"] == context.get_usage()["ram_usage_bytes"]
    assert content["usage"]["ram_capacity"] == context.get_usage()["ram_capacity_bytes"]
    assert [one["key"] for one in content["keys"]] == ["archive", "latent", "model"]
    for one in content["keys"]:
        info = context.get_storage_info(one["key"])
        assert info is not None
        assert {name: one[name] for name in info if name in one} == {n: v for n, v in info.items() if n in one}
        assert {"storage_type", "size", "pass_by", "digest", "created", "pid"} <= one.keys()

    lines = cli("show", context.run_id[:7], "--sort", "size").splitlines()
    assert lines[0] == f"Run {context.run_id}, live"
    assert lines[1].startswith(f"  owner   process {os.getpid()} (")
    assert re.fullmatch(rf"  memory  7\d\.0 KB of the [0-9.]+ GB it may use, {run.path}", lines[2])
    assert lines[3] == f"  disk    4.0 MB, {run.disk_path}"
    assert lines[5].split() == ["KEY", "SIZE", "WHERE", "KIND", "DIGEST", "SAVED", "BY"]
    assert [line.split()[0] for line in lines[6:]] == ["archive", "latent", "model"]
    digest = context.digest("archive")[:17]
    assert lines[6].split()[:6] == ["archive", "4.0", "MB", "disk", "value", digest]
    assert lines[6].endswith(f" ago  pid {os.getpid()}")
    assert lines[8].split()[3:5] == ["memory", "recipe"]
    by_age = json.loads(inside("show", context.run_id, "--sort", "age", "--json"))["keys"]
    assert [one["key"] for one in by_age] == ["model", "archive", "latent"]


def test_keys_with_numbers_are_sorted_as_people_do(context: WorkflowContext) -> None:
    keys = ["2", "10", "image", "image 1", "image 2", "image 2b", "image 9", "image 10", "image 010b"]
    for key in reversed(keys):
        context.save(key, 1)
    content = json.loads(inside("show", context.run_id, "--json"))
    assert [one["key"] for one in content["keys"]] == [*keys[:7], "image 010b", "image 10"]


def test_a_value_that_is_replaced_meanwhile_is_told_with_what_is_its_own(
    context: WorkflowContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.save("key", "old")
    replaced: list[str] = []

    def get(store: RunStore, key: str, real: Any = RunStore.get) -> Any:
        value = real(store, key)
        if not replaced:
            replaced.append(key)
            context.save(key, "new")
        return value

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "get", get)
        content = json.loads(inside("show", context.run_id, "key", "--json"))
    assert (content["value"]["value"], content["digest"]) == ("new", context.digest("key"))


def test_a_run_id_may_be_its_beginning_or_its_folder() -> None:
    ids = ["ab" + "0" * 30, "ab1" + "0" * 29]
    with WorkflowContext(run_id=ids[0]) as first, WorkflowContext(run_id=ids[1]):
        text = cli("show", "ab", status=1)
        assert all(f"{one} (live)" in text for one in ids)
        assert f"Run {ids[1]}, live" in cli("show", "AB1")
        assert f"Run {ids[0]}, live" in inside("show", only([r.path for r in list_contexts() if r.run_id == ids[0]]))
        assert "Nothing is stored.\n" in inside("show", ids[0])
        for unknown in ("abc", first.run_id[::-1]):
            text = inside("show", unknown, status=3)
            assert f"{unknown} (looked in" in text
            assert "context list" in text
        for impossible in ("xyz", "", "../run", "0" * 33):
            assert "is no run_id" in inside("show", impossible, status=2)
        # Told apart in the list too.
        assert {line.split()[0] for line in inside("list").splitlines()[1:3]} == {"ab000000", "ab100000"}
    ids = ["c" * 30 + "00", "c" * 30 + "01"]
    with WorkflowContext(run_id=ids[0]), WorkflowContext(run_id=ids[1]):
        assert all(f"{one}  live" in inside("list") for one in ids)


class Marker:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled_unless_a_key_is_named(context: WorkflowContext, tmp_path: Path) -> None:
    marker = tmp_path / "was unpickled"
    context.save("marker", Marker(marker))
    inside("list")
    inside("show", context.run_id)
    text = inside("show", context.run_id, "marker", "--no-load")
    assert f"  digest  {context.digest('marker')}\n" in text
    assert json.loads(inside("show", context.run_id, "marker", "--no-load", "--json"))["value"] is None
    assert not marker.exists()
    assert cli("show", context.run_id, "marker").endswith("\n\nNone\n")
    assert marker.exists()


def test_a_value_is_described(context: WorkflowContext) -> None:
    mask = torch.full((512, 512), 0.25)
    mask[0, :3] = float("nan")
    latent = {"samples": torch.arange(4.0).reshape(1, 4, 1, 1), "noise_mask": mask, "batch_index": [0, 1]}
    context.save("latent", latent)
    text = cli("show", context.run_id, "latent")
    head, _, body = text.partition("\n\n")
    assert body.splitlines() == [
        "dict of 3 items",
        "  'samples': tensor float32 [1, 4, 1, 1]  min 0, max 3, mean 1.5",
        "  'noise_mask': tensor float32 [512, 512]  min 0.25, max 0.25, mean 0.25, 3 NaN",
        "  'batch_index': list of 2 items: 0, 1",
    ]
    assert head.startswith(f"latent in run {context.run_id}, live\n  size    1.0 MB\n  memory  {only_path(context)}")
    assert f"by process {os.getpid()} (" in head
    content = json.loads(inside("show", context.run_id, "latent", "--json"))
    assert (content["run_id"], content["key"], content["storage_type"]) == (context.run_id, "latent", "ram")
    assert content["value"]["items"][1]["value"]["nan"] == 3


def only_path(context: WorkflowContext) -> str:
    return only([run.path for run in list_contexts() if run.run_id == context.run_id])


def test_what_a_dead_owner_left_can_be_looked_at() -> None:
    run_id = dead_run()
    text = cli("show", run_id)
    assert text.startswith(f"Run {run_id}, dead\n")
    assert "which is dead" in text
    assert cli("show", run_id, "disk").endswith(f"\nbytes {'64' * 32}... (500,000 bytes)\n")
    sweep()


def test_a_value_that_cannot_be_rebuilt_is_a_paragraph(context: WorkflowContext, tmp_path: Path) -> None:
    (tmp_path / "unknown_module.py").write_text("class Thing: pass")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        import unknown_module  # type: ignore[import-not-found]

        context.save("thing", unknown_module.Thing())
        patch.delitem(sys.modules, "unknown_module")
    assert "this process cannot rebuild it" in cli("show", context.run_id, "thing", status=1)
    assert "digest" in cli("show", context.run_id, "thing", "--no-load")


def test_an_unknown_key_is_status_3_and_the_others_are_named(context: WorkflowContext) -> None:
    context.save("image", 1)
    assert "'imgae'" in cli("show", context.run_id, "imgae", status=3)
    assert "'image'" in inside("show", context.run_id, "imgae", "--no-load", status=3)


# ---- hostile names ----


def test_keys_cannot_write_to_the_terminal(context: WorkflowContext) -> None:
    context.save(EVIL, {EVIL: EVIL, "type": type("\x1b]0;type\x07", (), {})})
    context.save(" spaces ", 1)
    context.save("'quoted'", 2)
    context.save("", 3)
    context.save("ключ", 4)
    context.save("long" * 1000, 5)
    text = cli("show", context.run_id)
    rows = text.splitlines()[6:]
    assert len(rows) == 6
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert [row for row in rows if row.startswith(repr(EVIL))]
    assert [row for row in rows if row.startswith("ключ ")]
    assert [row for row in rows if row.startswith("longlong") and "longlo..." in row]
    assert max(map(len, rows)) < 140
    assert {one["key"] for one in json.loads(inside("show", context.run_id, "--json"))["keys"]} == set(
        context.list_keys()
    )
    # As it was printed it can be asked for, also where it has quotes of its own.
    text = cli("show", context.run_id, repr(EVIL))
    assert text.startswith(f"{EVIL!r} in run ")
    assert f"\n  {EVIL!r}: str {EVIL!r}\n" in text
    assert r"\x1b]0;type\x07" in text
    assert "\x1b" not in text
    assert inside("show", context.run_id, "''").endswith("\nint 3\n")
    assert inside("show", context.run_id, "'quoted'").endswith("\nint 2\n")
    assert inside("show", context.run_id, repr("'quoted'")).endswith("\nint 2\n")
    assert repr(EVIL) in inside("show", context.run_id, "\x1b", status=3)


def test_a_terminal_without_unicode_gets_escapes(context: WorkflowContext, monkeypatch: pytest.MonkeyPatch) -> None:
    context.save("ключ", "значение")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "\\u043a\\u043b\\u044e\\u0447 " in cli("show", context.run_id)


# ---- sweep ----


def test_sweep_removes_what_dead_owners_left_and_says_what(context: WorkflowContext, roots: tuple[str, str]) -> None:
    context.save("key", 1)
    run_id = dead_run()
    dead = only([run for run in list_contexts() if run.is_alive is False])
    text = cli("sweep", "--dry-run")
    assert f"Would remove run {run_id}: its owner, pid {dead.owner_pid}, is dead; 2 keys\n" in text
    sizes = f"{dead.ram_bytes / MB:.1f} MB of memory and {dead.disk_bytes / 1024:.1f} KB on disk.\n"
    assert f"It would free {sizes}" in text
    assert len(list_contexts()) == 2
    text = cli("sweep")
    assert text.splitlines() == [
        f"Removed run {run_id}: its owner, pid {dead.owner_pid}, is dead; 2 keys",
        f"  {dead.path}",
        f"  {dead.disk_path}",
        f"Freed {sizes.strip()}",
        "1 run is in use and left alone.",
    ]
    assert not os.path.exists(dead.path)
    assert context.load("key") == 1
    assert cli("sweep") == "Nothing to remove: no dead owner left anything.\n1 run is in use and left alone.\n"
    assert cli_json("sweep") == {"dry_run": False, "removed": [], "ram_bytes": 0, "disk_bytes": 0, "runs": []}


def test_sweep_counts_what_it_frees(roots: tuple[str, str]) -> None:
    dead_run()
    dead = only(list_contexts())
    content = cli_json("sweep")
    assert content["removed"] == [dead.path, dead.disk_path]
    assert (content["ram_bytes"], content["disk_bytes"]) == (dead.ram_bytes, dead.disk_bytes)
    assert only(content["runs"])["run_id"] == dead.run_id
    assert dead.ram_bytes >= MB + 300_000
    assert list_contexts() == []


# ---- the command line ----


@pytest.mark.parametrize("command", ["list", "show", "sweep"])
def test_looking_needs_neither_torch_nor_numpy(context: WorkflowContext, command: str) -> None:
    context.save("image", torch.zeros(MB))
    context.save("array", np.zeros(10))
    code = (
        "import sys\n"
        "sys.argv = ['discomfort', 'context', *sys.argv[1:]]\n"
        "from discomfort.cli import main\n"
        "print(main(), [name for name in ('torch', 'playwright', 'numpy') if name in sys.modules])\n"
    )
    words = [command, *([context.run_id] if command == "show" else [])]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd="/")
    assert done.stdout.endswith("\n0 []\n"), done.stdout + done.stderr


def test_a_reader_that_stops_reading_is_no_error(context: WorkflowContext) -> None:
    """``| head``"""
    for number in range(2000):
        context.save(f"{number} {'x' * 40}", number)
    command = f"{sys.executable} -m discomfort context show {context.run_id} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd="/")
    assert done.stdout == f"Run {context.run_id}, live\n"
    assert done.stderr == ""


def test_the_help_names_the_commands() -> None:
    text = inside("--help")
    assert all(f"\n  {name} " in text for name in ("list", "show", "sweep"))
