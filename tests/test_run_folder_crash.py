"""A run's folder after a crash at every single operation on the disk: no run yet, or one that goes on to the same end.

A run without a server (its steps are arithmetic) writes a folder through :class:`Checkpoint`. Before each call that
changes something on the disk three pictures are taken of the folder: what another process would find if this one died
now; what an honest disk would have after a power cut, where nothing counts but what was synced; and the first with the
journal's unsynced bytes cut off at a random place. Each is then opened, looked at, and run to its end.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from discomfort.durable.checkpoint import Checkpoint
from discomfort.durable.run_folder import MANIFEST, RunFolder, RunRecordFolder, iter_steps, sha256
from discomfort.run_record import StepRecord

from discomfort import WorkflowContext

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="tells paths of descriptors by /proc")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None

ROUNDS = 2
WORKFLOWS = ("mix", "turn")
PROMPTS = {sha256({"1": {"class_type": name}}): {"1": {"class_type": name}} for name in WORKFLOWS}
DIGESTS = dict(zip(WORKFLOWS, PROMPTS, strict=True))

#: {path in the folder: content of a file, None for a folder}
Image = dict[str, bytes | None]


# ----------------------------------------------------------------------------------------------- a run without a server


def picture(value: float) -> torch.Tensor:
    """Too large for the journal."""
    return torch.full((1, 24, 24, 3), value)


def execute(workflow: str, context: WorkflowContext) -> None:
    """What the server would do."""
    if workflow == "mix":
        context.save("picture", (context.load("picture") + context.load("tint")) / 2)
        context.save("number", context.load("number") + 1)
    else:
        context.save("picture", context.load("picture").flip(1) * 0.9)
        context.save("mask", picture(context.load("number") / 10))


WRITES = {"mix": ["picture", "number"], "turn": ["picture", "mask"]}


async def go(path: Path, done: Callable[[int], None] = lambda steps: None) -> dict[str, Any]:
    """The whole run, or what is left of it, as ``run_sequential`` asks a checkpoint; returns its result.

    Args:
        done: told how many steps are said to be done, each time one is.
    """
    plan = {
        "loop": {"iterations": ROUNDS, "condition": "number < 9", "body": []},
        "collect": ["picture"],
        "seed_policy": "fixed",
        "master_seed": 1,
        "per_iteration": {},
    }
    manifest = {"kind": "run", "plan": plan, "options": {}}

    async def describe() -> dict[str, Any]:
        return {"server": "none"}

    async def provide(name: str, iteration: int) -> Any:
        return picture(iteration / 7)

    with WorkflowContext() as context:
        context.save("picture", picture(0.5))
        context.save("number", 0)
        checkpoint = await asyncio.to_thread(
            Checkpoint.begin, str(path), True, "needed", context, manifest, ["picture", "number"], PROMPTS, [],
            provide, describe,
        )  # fmt: skip
        try:
            steps = 0
            for iteration in range(ROUNDS):
                here = (iteration,)
                if checkpoint.recall("condition", here, what="loop") is None:
                    await checkpoint.live()
                    await checkpoint.note_condition(here, "loop", "number < 9", True)
                checkpoint.begin_iteration(iteration, ["picture", "number", "mask", "tint"], False)
                # The last iteration's input is a sequence's item, the others come from a function.
                if checkpoint.recall("input", here, name="tint") is None:
                    await checkpoint.live()
                    context.save("tint", picture(iteration / 7))
                    await checkpoint.note_input(here, "tint", iteration == ROUNDS - 1)
                for workflow in WORKFLOWS:
                    if checkpoint.recall("step", here, workflow=workflow) is None:
                        await checkpoint.live()
                        execute(workflow, context)
                        base = DIGESTS[workflow]
                        await checkpoint.note_step(
                            StepRecord(here, workflow), PROMPTS[base], base, WRITES[workflow], {}
                        )
                    steps += 1
                    done(steps)
                if checkpoint.recall("iteration", here) is None:
                    await checkpoint.live()
                    await checkpoint.end_iteration(iteration, "done", ["picture"], seconds=0.1)
            await checkpoint.restore()
            names = ["picture", "number", "mask"]
            result: dict[str, Any] = {name: context.digest(name) for name in names}
            result["collected"] = [one.sum().item() for one in checkpoint.collected("picture") or []]
            result["steps"] = [[e["path"], e["workflow"], e["writes"]] for e in iter_steps(read(path))]
            await checkpoint.finish("finished")
        finally:
            await checkpoint.close()
    return result


def read(path: Path) -> list[dict[str, Any]]:
    return RunRecordFolder.open(path).entries


# ------------------------------------------------------------------------------------------------------------- pictures


class Moment(NamedTuple):
    """What there was just before a call."""

    call: str
    # Steps that were said to be done by then.
    steps: int
    # What another process finds; what was synced; the journal's bytes that were.
    present: Image
    synced: Image
    journal_synced: int


class Camera:
    """Takes pictures of a folder before each call that changes something in it.

    Follows what is synced as the strictest file system may see it: a file's content counts when the file was synced,
    its name when its folder was. Only what is there of both survives.
    """

    CALLS = ("open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "mkdir", "ftruncate", "rmdir")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moments: list[Moment] = []
        self.steps = 0
        self._lock = threading.RLock()
        self._kept: dict[bytes, bytes] = {}  # a content that is in many pictures is in memory once
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int | None]] = {}
        self._open: list[int] = []  # that no inode gets a second meaning
        self._real = {name: getattr(os, name) for name in self.CALLS}

    @contextmanager
    def running(self) -> Iterator[Camera]:
        """While this runs, pictures are taken."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.CALLS:
                patch.setattr(os, name, self._wrapped(name))
            yield self
        for fd in self._open:
            os.close(fd)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **named: Any) -> Any:
            place = self._place(name, arguments, named)
            if place is None:
                return real(*arguments, **named)
            with self._lock:
                self._take(f"{name} {place}")
                result = real(*arguments, **named)
                if name == "fsync":
                    self._note_synced(arguments[0], place)
                return result

        return call

    def _place(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str | None:
        """The path in the folder that a call is about; None: it is none of ours, or changes nothing."""
        target = arguments[0]
        if name == "open" and not (arguments[1] & (os.O_CREAT | os.O_TRUNC)):
            return None
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        else:
            fd = named.get("dir_fd", named.get("src_dir_fd"))
            parent = os.getcwd() if fd is None else os.readlink(f"/proc/self/fd/{fd}")
            path = os.path.join(parent, os.fsdecode(target))
        inside = os.path.relpath(path, self.root)
        return None if inside.startswith("..") else inside

    def _take(self, call: str) -> None:
        present = {key: self._kept.setdefault(v, v) if v is not None else None for key, v in image(self.root).items()}
        journal = self.root / "run.jsonl"
        inode = journal.stat().st_ino if journal.exists() else -1
        self.moments.append(
            Moment(call, self.steps, present, self._synced_image("."), len(self._contents.get(inode, b"")))
        )

    def _note_synced(self, fd: int, place: str) -> None:
        path = self.root / place
        if path.is_dir():
            self._names[os.path.normpath(place)] = {
                entry.name: None if entry.is_dir() else entry.inode() for entry in os.scandir(path)
            }
            return
        inode = os.fstat(fd).st_ino
        if inode not in self._contents:
            self._open.append(os.dup(fd))
        content = path.read_bytes()
        self._contents[inode] = self._kept.setdefault(content, content)

    def _synced_image(self, place: str) -> Image:
        found: Image = {}
        for name, inode in self._names.get(os.path.normpath(place), {}).items():
            path = os.path.normpath(os.path.join(place, name))
            if inode is None:
                found[path] = None
                found |= self._synced_image(path)
            else:
                found[path] = self._contents.get(inode, b"")
        return found


def image(root: Path) -> Image:
    """All that is in a folder."""
    if not root.is_dir():
        return {}
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }


def develop(taken: Image, root: Path) -> Path:
    """The folder of a picture."""
    root.mkdir(mode=0o700)
    for name, content in taken.items():
        if content is None:
            (root / name).mkdir(mode=0o700)
        else:
            (root / name).write_bytes(content)
    return root


# --------------------------------------------------------------------------------------------------------------- checks


def problems_of(path: Path, steps: int, expected: dict[str, Any]) -> list[str]:
    """What is wrong with a folder, before it goes on and after: nothing, or a sentence."""
    try:
        check_present(path, steps, expected["steps"])
        check_goes_on(path, expected)
    except Exception as e:
        return [f"{type(e).__name__}: {e}"]
    return []


def check_present(path: Path, steps: int, final: list[Any]) -> None:
    """The folder is no run yet, or has every step that was said to be done, and every value that going on needs."""
    if not RunRecordFolder.holds_run(path):
        assert steps == 0
        return
    folder = RunRecordFolder.open(path)
    folder.check_whole()
    found = [[e["path"], e["workflow"], e["writes"]] for e in iter_steps(folder.entries)]
    assert found == final[: len(found)]
    assert len(found) >= steps
    state = dict(folder.manifest["inputs"])
    kept = []
    for entry in folder.entries:
        if entry["kind"] == "step":
            state.update(entry["writes"])
        elif entry["kind"] == "input":
            state[entry["name"]] = entry["value"]
        elif entry["kind"] == "iteration":
            kept += entry["collected"].values()
    for note in [*state.values(), *folder.manifest["inputs"].values(), *kept]:
        if "sequence" not in note:
            folder.value(note)


def check_goes_on(path: Path, expected: dict[str, Any]) -> None:
    """It ends as it would have, and leaves what it should."""
    assert asyncio.run(go(path)) == expected
    folder = RunRecordFolder.open(path)
    for kind in ("condition", "input", "iteration", "step"):
        entries = [e for e in folder.entries if e["kind"] == kind]
        assert len(entries) == ROUNDS * (len(WORKFLOWS) if kind == "step" else 1)
    left = [str(file.relative_to(path)) for file in path.rglob("*") if file.suffix == ".tmp" or file.name[0] == "."]
    assert left == []
    assert len(os.listdir(path / "outputs" / "picture")) == ROUNDS
    assert (path / "report.html").is_file()
    objects = set(os.listdir(path / "objects"))
    # Inputs (1), collected pictures (the last of which is the present one), mask (1); tint is a sequence's item.
    assert len(objects) == 1 + ROUNDS + 1, sorted(objects)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place where syncing costs nothing: what is synced is followed by the camera."""
    with tempfile.TemporaryDirectory(prefix="discomfort-test-", dir=SHM) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def filmed(folder: Path) -> tuple[list[Moment], dict[str, Any]]:
    """A run that nobody disturbs: all of its moments, and its result."""
    root = folder / "run"
    with Camera(root).running() as camera:

        def done(steps: int) -> None:
            camera.steps = steps

        result = asyncio.run(go(root, done))
    return camera.moments, result


def test_every_kind_of_operation_was_seen(filmed: tuple[list[Moment], dict[str, Any]]) -> None:
    moments, result = filmed
    calls = {moment.call.split()[0] for moment in moments}
    assert calls >= {"open", "write", "pwrite", "fsync", "unlink", "mkdir"}
    assert calls & {"replace", "rename"}
    assert len(moments) > 100
    assert len(result["collected"]) == ROUNDS
    assert moments[-1].steps == ROUNDS * len(WORKFLOWS)
    # Nothing is said to be done that is not on the disk.
    assert all((moment.synced.get("run.jsonl") or b"").count(b'"kind":"step"') >= moment.steps for moment in moments)


@pytest.mark.parametrize("kind", ["killed", "power cut", "torn"])
def test_a_crash_at_any_operation_loses_nothing_that_was_done(
    kind: str, filmed: tuple[list[Moment], dict[str, Any]], folder: Path
) -> None:
    moments, expected = filmed
    rng = random.Random(1)
    problems: list[str] = []
    seen: set[int] = set()
    for number, moment in enumerate(moments):
        taken = dict(moment.synced if kind == "power cut" else moment.present)
        if kind == "torn":
            journal = taken.get("run.jsonl") or b""
            if len(journal) == moment.journal_synced:
                continue
            taken["run.jsonl"] = journal[: rng.randint(moment.journal_synced, len(journal))]
        key = hash(tuple(sorted(taken.items())))
        if key not in seen:
            seen.add(key)
            path = develop(taken, folder / f"{kind}{number}")
            found = problems_of(path, moment.steps, expected)
            problems += [f"{kind} before call {number}, {moment.call!r}: {one}" for one in found]
    assert not problems, "\n".join(problems)
    assert len(seen) > 5


def test_a_crash_while_a_crash_is_mended_does_no_harm_either(
    filmed: tuple[list[Moment], dict[str, Any]], folder: Path
) -> None:
    moments, expected = filmed
    rng = random.Random(2)
    problems: list[str] = []
    for first in rng.sample(range(len(moments)), 5):
        root = develop(moments[first].present, folder / f"first{first}")
        with Camera(root).running() as camera:
            asyncio.run(go(root))
        for second in rng.sample(range(len(camera.moments)), min(6, len(camera.moments))):
            path = develop(camera.moments[second].present, folder / f"second{first}-{second}")
            found = problems_of(path, moments[first].steps, expected)
            calls = f"{moments[first].call!r}, then {camera.moments[second].call!r}"
            problems += [f"killed before {calls}: {one}" for one in found]
    assert not problems, "\n".join(problems)


def test_a_folder_in_the_making_is_taken_for_a_new_run(
    filmed: tuple[list[Moment], dict[str, Any]], folder: Path
) -> None:
    """Whatever a process that died before the manifest was written has left there."""
    early = [moment for moment in filmed[0] if MANIFEST not in moment.present]
    assert len(early) > 10
    for number, moment in enumerate(early):
        RunFolder.create(develop(moment.present, folder / f"early{number}")).close()
