"""Runs that are kept: they go on where they ended, refuse what has changed, and hold no secret.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from discomfort.durable.run_folder import RunRecordFolder, from_line, to_line
from discomfort.progress_events import StepFinished
from pack_server import discomfort_fixture, pack_config
from prompt_parts import executions, node, port

from discomfort import (
    Branch,
    Discomfort,
    IterationFailure,
    Loop,
    PerIteration,
    Retry,
    RunChangedError,
    RunFolderError,
    WorkflowContext,
    WorkflowExecutionError,
)

TESTS = Path(__file__).parent

in_module_loop = pytest.mark.asyncio(loop_scope="module")


d = discomfort_fixture()


@pytest.fixture
def log(tmp_path: Path) -> str:
    """The file in which the pack's nodes note their executions."""
    return str(tmp_path / "executions.txt")


def mix(log: str, name: str = "state") -> dict[str, Any]:
    """state, by -> state, with a seed that changes."""
    return {
        "1": port(name),
        "2": port("by"),
        "3": node("RunTestMix", state=["1", 0], by=["2", 0], seed=5, log=log),
        "4": port(name, ["3", 0]),
    }


def paint() -> dict[str, Any]:
    """image -> image: inverted, and turned to the other side."""
    return {
        "1": port("image"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageFlip", image=["2", 0], flip_method="x-axis: vertically"),
        "4": port("image", ["2", 0]),
    }


class StoppedError(Exception):
    """What a test ends a run with, in the place of a crash."""


def stop_after(count: int) -> Callable[[Any], None]:
    """A progress callback that ends the run behind its step number *count*."""
    left = [count]

    def listen(event: Any) -> None:
        if isinstance(event, StepFinished):
            left[0] -= 1
            if left[0] <= 0:
                raise StoppedError

    return listen


def journal(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's journal."""
    return RunRecordFolder.open(folder).entries


def entries(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in journal(folder) if entry["kind"] == kind]


def objects(folder: Path) -> int:
    return len(list((folder / "objects").iterdir()))


# ------------------------------------------------------------------------------------------------------- going on


class Night:
    """A plan with nested loops, branches, functions, seeds and pictures; equal calls have equal results."""

    def __init__(self, d: Discomfort, log: str) -> None:
        self.d = d
        self.first, self.second, self.picture = mix(log), mix(log, "other"), paint()
        self.asked: list[Any] = []

    async def run(self, **control: Any) -> Any:
        steps = [
            self.first,
            Loop(
                [Branch("state < 500000", [self.second, self.picture], [self.picture])],
                iterations=2,
                condition=lambda values: values["state"] != 17,
            ),
            Branch(lambda values, iteration: iteration % 2 == 0, [self.second]),
        ]

        def by(iteration: int, values: Any) -> int:
            self.asked.append(iteration)
            return int(values["state"]) % 7 + iteration

        return await self.d.run(
            steps,
            inputs={"state": 1, "other": 2, "image": torch.full((1, 8, 8, 3), 0.25), "by": PerIteration(by)},
            iterations=3,
            collect=["state", "image"],
            seed_policy="randomize",
            master_seed=11,
            **control,
        )


def outcome(result: Any) -> dict[str, Any]:
    """All that a run gave, to be compared."""
    values = {name: value for name, value in result.items() if name != "image"}
    images = [image.numpy().tobytes() for image in result["image"]]
    steps = [(s.iteration, s.workflow, s.outputs, s.seeds) for s in result.record.steps]
    return {"values": values, "images": images, "steps": steps, "iterations": result.record.iterations}


@in_module_loop
async def test_a_run_goes_on_behind_its_last_step_wherever_it_ended(d: Discomfort, log: str, tmp_path: Path) -> None:
    """Mid-iteration, inside the nested loop and its branches: with the same results, and nothing is done twice."""
    undisturbed = outcome(await Night(d, log).run())
    whole = executions(log)
    steps = len(undisturbed["steps"])
    assert steps > 15
    for ends in [*([n] for n in range(1, steps)), [1] * steps, [2, 3, 4]]:
        folder = tmp_path / f"run {ends[0]} {len(ends)}"
        log = f"{folder}.txt"  # part of the prompts: what other runs have done is in no cache
        for count in ends:
            with pytest.raises(StoppedError):
                await Night(d, log).run(checkpoint=folder, progress=stop_after(count))
        result = await Night(d, log).run(checkpoint=folder)
        assert outcome(result) == undisturbed
        assert result.record.recalled_steps == sum(ends)
        assert executions(log) == whole
        assert [tuple(e["path"]) for e in entries(folder, "step")] == [s[0] for s in undisturbed["steps"]]


@in_module_loop
async def test_a_finished_run_is_only_read(d: Discomfort, log: str, tmp_path: Path) -> None:
    first = await Night(d, log).run(checkpoint=tmp_path / "run")
    before = (tmp_path / "run" / "run.jsonl").read_bytes()
    executions(log)
    night = Night(d, log)
    again = await night.run(checkpoint=tmp_path / "run")
    assert outcome(again) == outcome(first)
    assert executions(log) == []
    assert night.asked == []  # its functions are not called for what is recorded
    assert (tmp_path / "run" / "run.jsonl").read_bytes() == before
    assert again.master_seed == 11


@in_module_loop
async def test_a_model_by_reference_is_there_again_when_a_run_goes_on(d: Discomfort, log: str, tmp_path: Path) -> None:
    load = {"1": node("RunTestLoadModel", name="base", log=log), "2": port("model", ["1", 0])}
    use = {
        "1": port("model"), "2": port("image"), "3": node("RunTestUseModel", model=["1", 0], image=["2", 0], log=log),
        "4": port("image", ["3", 0]),
    }  # fmt: skip
    call = {"inputs": {"image": torch.zeros(1, 2, 2, 3)}, "checkpoint": tmp_path / "run"}
    with pytest.raises(StoppedError):
        await d.run([load, use], progress=stop_after(1), **call)
    result = await d.run([load, use], **call)
    assert torch.allclose(result["image"], torch.full((1, 2, 2, 3), 0.04))
    assert result["model"]["type"] == "MODEL"
    assert executions(log).count("use") == 1


@in_module_loop
async def test_values_of_a_callers_context_are_kept_too(d: Discomfort, log: str, tmp_path: Path) -> None:
    call = {"inputs": {"by": 1}, "iterations": 3, "checkpoint": tmp_path / "run", "seed_policy": "fixed"}
    workflow = mix(log)
    with WorkflowContext() as context:
        context.save("state", 10)
        with pytest.raises(StoppedError):
            await d.run([workflow], context=context, progress=stop_after(2), **call)
        assert context.load("state") == (10 * 3 + 6) * 3 + 6
    with WorkflowContext() as context:
        context.save("state", 10)
        result = await d.run([workflow], context=context, **call)
        assert result["state"] == ((10 * 3 + 6) * 3 + 6) * 3 + 6 == context.load("state")
    assert len(executions(log)) == 3


@in_module_loop
async def test_per_iteration_values_of_a_sequence_are_taken_from_it(d: Discomfort, tmp_path: Path) -> None:
    """They are not stored a second time; the one of the iteration that was cut off is taken again."""
    pictures = [torch.full((1, 64, 64, 3), n / 8) for n in range(4)]
    keep = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("result", ["2", 0])}
    again = {"1": port("image"), "2": port("result"), "3": node("ImageBatch", image1=["1", 0], image2=["2", 0])}
    again["4"] = port("both", ["3", 0])

    async def run(pictures: Any, **control: Any) -> Any:
        inputs = {"image": PerIteration(pictures)}
        return await d.run([keep, again], inputs=inputs, iterations=4, collect=["both"], **control)

    expected = await run(pictures)
    with pytest.raises(StoppedError):
        await run(pictures, checkpoint=tmp_path / "run", progress=stop_after(3))
    with pytest.raises(RunChangedError, match="'image' has another value for iteration 1"):
        await run([picture + 0.5 for picture in pictures], checkpoint=tmp_path / "run")
    result = await run(pictures, checkpoint=tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(result["both"], expected["both"], strict=True))
    assert [e["value"].get("sequence") for e in entries(tmp_path / "run", "input")] == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------------ what is on disk


@in_module_loop
async def test_old_values_leave_the_disk_and_collected_ones_stay(d: Discomfort, tmp_path: Path) -> None:
    picture = torch.rand(1, 64, 64, 3)
    workflow = {"1": port("image"), "2": node("ImageScaleBy", image=["1", 0], upscale_method="bilinear", scale_by=1.01)}
    workflow["3"] = port("image", ["2", 0])
    for name, control, expected in (
        ("last", {}, 2),
        ("collected", {"collect": ["image"]}, 7),
        ("all", {"keep": "all"}, 7),
    ):
        await d.run([workflow], {"image": picture}, iterations=6, checkpoint=tmp_path / name, **control)
        assert objects(tmp_path / name) == expected  # the input is always there
    pictures = sorted((tmp_path / "collected" / "outputs" / "image").iterdir())
    assert [file.name for file in pictures] == [f"iteration-{n:05d}.png" for n in range(6)]
    assert not (tmp_path / "last" / "outputs" / "image").exists()
    assert (tmp_path / "last" / "report.html").read_text().startswith("<!")


@in_module_loop
async def test_files_for_people_that_a_crash_has_lost_are_written_again(
    d: Discomfort, log: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    await Night(d, log).run(checkpoint=folder)
    lost = [folder / "outputs" / "image" / "iteration-00001.png", folder / "report.html"]
    content = lost[0].read_bytes()
    for file in lost:
        file.unlink()
    (folder / "thumbnails" / "x.jpg.tmp").write_bytes(b"half")
    (folder / "outputs" / "image" / ".iteration-00002_abc.png").write_bytes(b"half")
    await Night(d, log).run(checkpoint=folder)
    assert lost[0].read_bytes() == content
    assert lost[1].exists()
    assert not [*folder.rglob("*.tmp"), *folder.glob("outputs/*/.*")]


@in_module_loop
async def test_the_journal_tells_each_step_exactly(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    workflow = mix(log)
    result = await d.run([workflow], {"state": 4, "by": 2}, iterations=2, checkpoint=folder, seed_policy="increment")
    record = RunRecordFolder.open(folder)
    steps = [entry for entry in record.entries if entry["kind"] == "step"]
    assert [step["seeds"] for step in steps] == [{"3": {"seed": 5}}, {"3": {"seed": 6}}]
    prompt = record.step_prompt(steps[1])
    assert prompt["3"]["inputs"] == {"state": ["1", 0], "by": ["2", 0], "seed": 6, "log": log}
    assert prompt["1"]["class_type"] == "DiscomfortDataLoader"
    assert prompt["1"]["inputs"]["content"] == steps[1]["reads"]["state"] == steps[0]["writes"]["state"]["digest"]
    assert steps[1]["writes"]["state"]["value"] == result["state"] == 3 * (3 * 4 + 2 + 5) + 2 + 6
    assert {"server_rss", "server_private", "orchestrator_rss", "context_ram"} <= set(steps[1]["memory"])
    session = next(entry for entry in record.entries if entry["kind"] == "session")
    assert session["environment"]["discomfort"]
    assert record.entries[-1]["kind"] == "end"
    assert record.entries[-1]["state"] == "finished"
    assert all((file.stat().st_mode & 0o077) == 0 for file in [folder, *folder.iterdir()])


# -------------------------------------------------------------------------------------------------- what has changed


@in_module_loop
async def test_a_changed_call_is_refused_and_the_difference_named(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder, workflow = tmp_path / "run", mix(log)
    limit = 10

    def call(**changes: Any) -> Any:
        given = {
            "workflow_paths": [workflow, Branch(lambda values: values["state"] > limit, [workflow])],
            "inputs": {"state": 1, "by": PerIteration([1, 2, 3, 4])},
            "iterations": 2,
            "checkpoint": folder,
            **changes,
        }
        return d.Tools.run_sequential(**given)

    expected = await call()
    before = (folder / "run.jsonl").read_bytes()
    other = mix(log)
    other["3"]["inputs"]["seed"] = 9
    for changes, words in (
        ({"iterations": 4}, "loop.iterations: was 2, is 4"),
        ({"inputs": {"state": 3, "by": PerIteration([1, 2, 3, 4])}}, r"inputs\['state'\]: was 1, is 3"),
        ({"inputs": {"state": 1, "by": PerIteration([1, 2, 3, 5])}}, "per_iteration.by.values"),
        ({"inputs": {"state": 1, "by": 1}}, "per_iteration.by: was .* is not there"),
        (
            {"inputs": {"state": 1, "by": PerIteration([1, 2, 3, 4]), "more": 1}},
            r"inputs\['more'\]: was not given",
        ),
        ({"workflow_paths": [other]}, "node #3 RunTestMix .*input 'seed': was 5, is 9"),
        ({"workflow_paths": [workflow]}, "loop.body: was 2 long, is 1"),
        (
            {"workflow_paths": [workflow, Branch(lambda values: values["state"] < limit, [workflow])]},
            "condition",
        ),
        ({"seed_policy": "fixed"}, "seed_policy: was 'as_saved', is 'fixed'"),
        ({"master_seed": 1}, "master_seed"),
        ({"collect": ["state"]}, "collect"),
        ({"loop_condition": "state > 0"}, "loop.condition"),
    ):
        with pytest.raises(RunChangedError, match=words) as caught:
            await call(**changes)
        assert "resume=False" in str(caught.value)
        assert (folder / "run.jsonl").read_bytes() == before
    limit = 11  # what a function has taken from around it counts
    with pytest.raises(RunChangedError, match="limit: was 10, is 11"):
        await call()
    limit = 10
    again = await call()
    assert again == expected


@in_module_loop
async def test_force_goes_on_as_far_as_the_record_fits(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder, workflow = tmp_path / "run", mix(log)
    await d.run([workflow], {"state": 1, "by": 1}, iterations=2, checkpoint=folder, seed_policy="fixed")
    assert len(executions(log)) == 2
    more = await d.run(
        [workflow], {"state": 1, "by": 1}, iterations=4, checkpoint=folder, seed_policy="fixed", resume="force"
    )
    assert len(executions(log)) == 2
    expected = await d.run([workflow], {"state": 1, "by": 1}, iterations=4, seed_policy="fixed")
    assert more == expected
    executions(log)
    # Fewer iterations than the record has: what is too much is put aside.
    less = await d.run(
        [workflow], {"state": 1, "by": 1}, iterations=1, checkpoint=folder, seed_policy="fixed", resume="force"
    )
    assert executions(log) == []
    assert less["state"] == 1 * 3 + 1 + 5
    assert len(entries(folder, "step")) == 1
    assert len(list(folder.glob("run.jsonl.*"))) == 1


@in_module_loop
async def test_false_begins_anew_and_moves_the_old_one_aside(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder, workflow = tmp_path / "run", mix(log)
    await d.run([workflow], {"state": 1, "by": 1}, checkpoint=folder)
    old = (folder / "run.jsonl").read_bytes()
    await d.run([workflow], {"state": 2, "by": 1}, checkpoint=folder, resume=False)
    assert len(executions(log)) == 2
    (earlier,) = (folder / "earlier").iterdir()
    assert (earlier / "run.jsonl").read_bytes() == old
    assert RunRecordFolder.open(earlier).manifest["inputs"]["state"]["value"] == 1
    assert RunRecordFolder.open(folder).manifest["inputs"]["state"]["value"] == 2


# -------------------------------------------------------------------------------------------------- damaged folders


@in_module_loop
async def test_what_a_crash_cut_off_is_not_believed(d: Discomfort, log: str, tmp_path: Path) -> None:
    """A power cut leaves any part of the last line, or garbage behind it."""
    expected = outcome(await Night(d, log).run())
    with pytest.raises(StoppedError):
        await Night(d, log).run(checkpoint=tmp_path / "run", progress=stop_after(5))
    content = (tmp_path / "run" / "run.jsonl").read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for number, rest in enumerate(
        (b'{"crc"', content[last : last + 30], b"\0" * 50, b'{"crc":"00000000","kind":"step"}\n')
    ):
        folder = tmp_path / f"cut {number}"
        shutil.copytree(tmp_path / "run", folder)
        (folder / "run.jsonl").write_bytes(content + rest)
        assert outcome(await Night(d, log).run(checkpoint=folder)) == expected
        assert RunRecordFolder.open(folder).damage is None


@in_module_loop
async def test_damage_in_the_middle_is_an_error_that_says_where(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder, expected = tmp_path / "run", outcome(await Night(d, log).run())
    await Night(d, log).run(checkpoint=folder)
    lines = (folder / "run.jsonl").read_bytes().splitlines(keepends=True)
    lines[9] = lines[9].replace(b'"path":[', b'"path":[7')
    (folder / "run.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(RunFolderError, match=r"run\.jsonl is damaged in line 10\. .*resume='force'"):
        await Night(d, log).run(checkpoint=folder)
    assert outcome(await Night(d, log).run(checkpoint=folder, resume="force")) == expected


@in_module_loop
async def test_a_value_that_is_damaged_or_gone_is_an_error_that_names_it(
    d: Discomfort, log: str, tmp_path: Path
) -> None:
    folder, expected = tmp_path / "run", outcome(await Night(d, log).run())
    with pytest.raises(StoppedError):
        await Night(d, log).run(checkpoint=folder, progress=stop_after(5))
    digest = entries(folder, "step")[-1]["writes"].get("image") or next(
        step["writes"]["image"] for step in reversed(entries(folder, "step")) if "image" in step["writes"]
    )
    file = folder / "objects" / (digest["digest"].replace(":", "-") + ".obj")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match="damaged: its checksum"):
        await Night(d, log).run(checkpoint=folder)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"(The value of 'image' is missing|collected values have gone)"):
        await Night(d, log).run(checkpoint=folder)
    assert outcome(await Night(d, log).run(checkpoint=folder, resume="force")) == expected


@in_module_loop
async def test_folders_that_cannot_be_used_are_refused_with_a_sentence(d: Discomfort, log: str, tmp_path: Path) -> None:
    async def run(folder: Any, **control: Any) -> Any:
        return await d.run([mix(log)], {"state": 1, "by": 1}, checkpoint=folder, **control)

    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        await run(tmp_path / "file")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("x")
    with pytest.raises(RunFolderError, match=r"holds cat\.png, and no run"):
        await run(tmp_path / "photos")
    assert [file.name for file in (tmp_path / "photos").iterdir() if file.name != "run.lock"] == ["cat.png"]
    await run(tmp_path / "run")
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(RunFolderError, match="could have been written by another user"):
        await run(tmp_path / "run")
    (tmp_path / "run").chmod(0o700)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(RunFolderError, match="newer version of Discomfort"):
        await run(tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        await run(tmp_path / "run")
    assert len(executions(log)) == 1
    for wrong, words in (
        ({"checkpoint": 5}, "checkpoint is 5"),
        ({"checkpoint": ""}, "checkpoint is empty"),
        ({"checkpoint": tmp_path / "a", "resume": "yes"}, "resume is 'yes'"),
        ({"checkpoint": tmp_path / "a", "keep": "some"}, "keep is 'some'"),
        ({"retry": "often"}, "retry is 'often'"),
        ({"retry": 0}, "at least 1"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"max_server_ram_gb": 0}, "max_server_ram_gb is 0"),
        ({"max_vram_gb": "8"}, "max_vram_gb is '8'"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            await d.run([mix(log)], {"state": 1, "by": 1}, **wrong)
    assert not (tmp_path / "a").exists()


@in_module_loop
async def test_one_run_at_a_time_writes_into_a_folder(
    d: Discomfort, log: str, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    slow = {"1": port("n"), "2": node("RunTestSlow", number=["1", 0], seconds=2.0, log=log), "3": port("n", ["2", 0])}
    first = asyncio.create_task(d.run([slow], {"n": 1}, checkpoint=tmp_path / "run"))
    await asyncio.to_thread(wait_for, Path(log).exists, 30, "the first step")
    with pytest.raises(RunFolderError, match=rf"being written by another process \(pid {os.getpid()}\)"):
        await d.run([slow], {"n": 1}, checkpoint=tmp_path / "run")
    assert (await first)["n"] == 1


@in_module_loop
async def test_a_full_disk_ends_the_run_and_loses_nothing(
    d: Discomfort, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses now and then, in every place, as it does when it is full; the same call goes on each time."""
    expected, folder = outcome(await Night(d, log).run()), tmp_path / "run"
    real, chance = os.fsync, random.Random(5)

    def refuse(fd: int) -> None:
        if chance.random() < 0.1:
            raise OSError(28, "No space left on device")
        real(fd)

    failures: list[str] = []
    result = None
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        while result is None and len(failures) < 100:
            try:
                result = await Night(d, log).run(checkpoint=folder)
            except RunFolderError as e:
                failures.append(str(e))
    assert len(failures) > 3
    assert all("No space left on device" in failure for failure in failures)
    assert outcome(result) == expected
    assert outcome(await Night(d, log).run(checkpoint=folder)) == expected
    assert [tuple(e["path"]) for e in entries(folder, "step")] == [s[0] for s in expected["steps"]]


# ------------------------------------------------------------------------------------------------------- bad iterations


def refuse(log: str, number: int) -> dict[str, Any]:
    """picture number -> it again, but for one that fails."""
    return {
        "1": port("n"),
        "2": node("RunTestRefuse", number=["1", 0], refused=number, log=log),
        "3": port("n seen", ["2", 0]),
    }


@in_module_loop
async def test_a_failed_iteration_is_skipped_and_leaves_no_trace(d: Discomfort, log: str, tmp_path: Path) -> None:
    """State that its first step has changed is what it was; later iterations go on from there, also after a crash."""

    async def run(log: str, **control: Any) -> Any:
        return await d.run(
            [mix(log), refuse(log, 2)],
            {"state": 1, "by": 0, "n": PerIteration(lambda i: i)},
            iterations=5,
            collect=["state", "n seen"],
            seed_policy="fixed",
            **control,
        )

    with pytest.raises(WorkflowExecutionError, match="2 is refused"):
        await run(f"{log} first")
    plain = await run(log, on_error="skip")
    whole = executions(log)
    assert plain["n seen"] == [0, 1, 3, 4]
    states = [1]
    for _ in range(4):
        states.append(states[-1] * 3 + 5)
    assert plain["state"] == states[1:]
    assert [(s.iteration, s.kind, s.attempts) for s in plain.skipped] == [(2, "WorkflowExecutionError", 1)]
    assert "2 is refused" in plain.skipped[0].message
    assert "1 iterations failed and were skipped: 2" in plain.record.summary()
    for count in range(1, 9):
        folder = tmp_path / str(count)
        log = f"{folder}.txt"
        with pytest.raises(StoppedError):
            await run(log, on_error="skip", checkpoint=folder, progress=stop_after(count))
        result = await run(log, on_error="skip", checkpoint=folder)
        assert dict(result) == dict(plain)
        assert [(s.iteration, s.kind) for s in result.skipped] == [(2, "WorkflowExecutionError")]
        assert executions(log) == whole
        again = await run(log, on_error="skip", checkpoint=folder)
        assert dict(again) == dict(plain)
        assert [s.message for s in again.skipped] == [s.message for s in result.skipped]
        assert executions(log) == []


@in_module_loop
async def test_a_function_decides_about_a_failed_iteration(d: Discomfort, log: str, tmp_path: Path) -> None:
    told: list[IterationFailure] = []

    async def decide(failure: IterationFailure) -> str:
        told.append(failure)
        return {0: "retry", 1: "skip"}.get(len(told) - 1, "stop")

    steps = [mix(log), refuse(log, 1)]
    inputs = {"state": 1, "by": 0, "n": PerIteration(lambda i: 1 if i < 2 else i)}
    with pytest.raises(WorkflowExecutionError, match="iteration 1"):
        await d.run(steps, inputs, iterations=3, on_error=decide, seed_policy="fixed", checkpoint=tmp_path / "run")
    assert [(failure.iteration, failure.attempts) for failure in told] == [(0, 1), (0, 2), (1, 1)]
    states = [e["state"] for e in entries(tmp_path / "run", "iteration")]
    assert states == ["retried", "skipped"]
    # Each attempt began with the same state.
    assert [line for line in executions(log) if line.startswith("mix")] == ["mix 1 0 5"]
    with pytest.raises(ValueError, match="on_error returned 'maybe'"):
        await d.run([refuse(log, 1)], {"n": 1}, on_error=lambda failure: "maybe")


@in_module_loop
async def test_an_input_that_cannot_be_made_is_skipped_like_any_failure(d: Discomfort, log: str) -> None:
    def open_it(iteration: int) -> int:
        if iteration == 1:
            raise FileNotFoundError("no such picture")
        return iteration

    result = await d.run(
        [refuse(log, 99)], {"n": PerIteration(open_it)}, iterations=3, on_error="skip", collect=["n seen"]
    )
    assert result["n seen"] == [0, 2]
    assert isinstance(result.skipped[0].error, FileNotFoundError)


# -------------------------------------------------------------------------------------------------------- attempts


def flaky(log: str, ways: str) -> dict[str, Any]:
    return {"1": port("n"), "2": node("RunTestFlaky", number=["1", 0], ways=ways, log=log), "3": port("n", ["2", 0])}


@in_module_loop
async def test_an_error_of_a_node_is_not_tried_again_unless_asked(d: Discomfort, log: str, tmp_path: Path) -> None:
    with pytest.raises(WorkflowExecutionError, match="this time it fails"):
        await d.run([flaky(log, "error")], {"n": 1})
    assert len(executions(log)) == 1
    result = await d.run(
        [flaky(log, "error,error")], {"n": 1}, retry=Retry(node=3, delay=0.01), checkpoint=tmp_path / "r"
    )
    assert len(executions(log)) == 3
    (step,) = result.record.steps
    assert step.attempts == 3
    assert [(r["reason"], r["action"], r["delay"]) for r in step.retries] == [
        ("error", "wait", 0.01),
        ("error", "wait", 0.02),
    ]
    assert entries(tmp_path / "r", "step")[0]["retries"] == step.retries
    with pytest.raises(WorkflowExecutionError, match="this time it fails"):
        await d.run([flaky(log, "error,error,")], {"n": 1}, retry=2, checkpoint=tmp_path / "s")
    assert entries(tmp_path / "s", "step_failed")[0]["attempts"] == 2


@in_module_loop
async def test_want_of_memory_is_met_by_freeing_and_then_by_a_fresh_server(d: Discomfort, log: str) -> None:
    result = await d.run([flaky(log, "memory,memory")], {"n": 1}, retry=Retry(delay=0.01))
    (step,) = result.record.steps
    assert [retry["action"] for retry in step.retries] == ["free", "restart"]
    processes = [line.rpartition(" ")[2] for line in executions(log)]
    assert processes[0] == processes[1] != processes[2]
    with pytest.raises(WorkflowExecutionError, match="out of memory"):
        await d.run([flaky(log, "memory,memory,memory")], {"n": 1}, retry=Retry(server=2, delay=0.01))


@in_module_loop
async def test_a_server_that_dies_in_a_step_is_replaced_and_the_step_run_again(
    d: Discomfort, log: str, tmp_path: Path
) -> None:
    result = await d.run(
        [flaky(log, "die,die")], {"n": 4}, retry=Retry(delay=0.01), checkpoint=tmp_path / "run", iterations=2
    )
    assert result["n"] == 4
    first, second = result.record.steps
    assert [(r["reason"], r["action"]) for r in first.retries] == [("died", "restart"), ("died", "restart")]
    assert second.attempts == 1
    assert len(set(executions(log))) == 3
    assert "2 times a step was run again" in result.record.summary()


# ---------------------------------------------------------------------------------------------------------- secrets


@in_module_loop
async def test_secrets_are_in_no_file_and_the_run_goes_on_all_the_same(d: Discomfort, log: str, tmp_path: Path) -> None:
    folder, key, token = tmp_path / "run", "sk-9f2a77c1d0e54b", "hf_TopSecretValue123"
    call = {
        "1": port("hf_token"),
        "2": node("RunTestSecret", api_key=key, token=["1", 0], fail=False),
        "3": port("length", ["2", 0]),
    }
    steps = [call, mix(log)]
    inputs = {"hf_token": token, "state": 1, "by": 1}
    with pytest.raises(StoppedError):
        await d.run(steps, inputs, iterations=3, checkpoint=folder, progress=stop_after(3))
    result = await d.run(steps, inputs, iterations=3, checkpoint=folder)
    assert result["length"] == len(key) + len(token)
    failing = {**call, "2": node("RunTestSecret", api_key=key, token=["1", 0], fail=True)}
    with pytest.raises(WorkflowExecutionError, match="401: the key"):
        await d.run([failing], inputs, checkpoint=tmp_path / "failed")
    for file in [*folder.rglob("*"), *(tmp_path / "failed").rglob("*")]:
        if file.is_file():
            content = file.read_bytes()
            assert key.encode() not in content, file
            assert token.encode() not in content, file
    digest = WorkflowContext
    with digest() as context:
        context.save("x", token)
        assert context.digest("x") not in (folder / "run.jsonl").read_text()


# ------------------------------------------------------------------------------------------------------------ Ctrl-C


SCRIPT = """
import asyncio, json, sys
sys.path.insert(0, {tests!r})
from discomfort import Discomfort, PerIteration
from prompt_parts import node, port

log, folder = {log!r}, {folder!r}
slow = {{"1": port("n"), "2": node("RunTestSlow", number=["1", 0], seconds={seconds}, log=log)}}
slow["3"] = port("n", ["2", 0])

async def main():
    async with await Discomfort.create({config!r}) as d:
        print("ready", flush=True)
        result = await d.run([slow], {{"n": PerIteration(range(4))}}, iterations=4, checkpoint=folder, progress=False)
        print("result", result["n"], result.record.recalled_steps, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_once_ends_behind_the_step_and_twice_at_once(
    log: str, tmp_path: Path, write_config: Callable[..., Path], presses: int, wait_for: Callable[..., Any]
) -> None:
    """And the same script, started again, goes on."""
    folder = tmp_path / "run"
    parts = {"tests": str(TESTS), "log": log, "folder": str(folder), "config": str(pack_config(write_config, tmp_path))}

    def start(seconds: float) -> subprocess.Popen[str]:
        script = textwrap.dedent(SCRIPT).format(**parts, seconds=seconds)
        return subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    process = start(30.0 if presses == 2 else 1.5)
    wait_for(lambda: Path(log).exists(), 60, "the first step")
    process.send_signal(signal.SIGINT)
    if presses == 2:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - started < 15
    assert process.returncode != 0
    assert "the step that runs is finished and recorded first" in told
    assert f"RunInterrupted: The run was stopped by Ctrl-C. Everything that is finished is in {folder}" in told
    assert [e["state"] for e in entries(folder, "end")] == ["interrupted"]
    assert executions(log) == (["begin 0", "end 0"] if presses == 1 else ["begin 0"])
    assert len(entries(folder, "step")) == (1 if presses == 1 else 0)
    if presses == 1:
        process = start(1.5)
        output, told = process.communicate(timeout=90)
        assert "result 3 1" in output, told
        assert len(executions(log)) == 6


# ------------------------------------------------------------------------------------------------------------- lines


def test_a_line_is_read_only_as_it_was_written() -> None:
    entry = {"kind": "step", "number": float("inf"), "text": 'ü "x"\n\ud800', "list": [1, {"a": None}]}
    line = to_line(entry)
    assert line.count(b"\n") == 1
    read = from_line(line)
    assert read == {**entry, "number": "inf"}
    for position in range(len(line)):
        changed = bytearray(line)
        changed[position] ^= 1
        assert from_line(bytes(changed)) != read
        assert from_line(line[:position]) is None
