"""Runs that were kept are run again: what is identical, where it differs, what is missing, what is refused.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discomfort.durable.compare import attempts, value_difference
from discomfort.durable.replay import MissingValuesError, NoSuchIterationError, ReplayError, ReplayResult, replay
from discomfort.durable.replay_plan import Plan, needed_part
from discomfort.durable.run_folder import RunFolderError, RunRecordFolder, object_name
from discomfort.durable.secrets import REMOVED
from discomfort.object_store import Folder, write_object
from kept_runs import files_of, rewrite, step, write_run
from pack_server import discomfort_fixture
from prompt_parts import executions, node, port

from discomfort import Branch, Discomfort, Loop, PerIteration, WorkflowContext

TESTS = Path(__file__).parent

on_a_server = pytest.mark.asyncio(loop_scope="module")


d = discomfort_fixture()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the run is kept."""
    return tmp_path / "run"


@pytest.fixture
def log(tmp_path: Path) -> str:
    """The file in which the pack's nodes note their executions."""
    return str(tmp_path / "executions.txt")


def picture(value: float = 0.25) -> torch.Tensor:
    return torch.full((1, 64, 64, 3), value)


def loads(log: str, name: str = "base") -> dict[str, Any]:
    """A workflow that delivers a model, by reference."""
    return {"1": node("RunTestLoadModel", name=name, log=log), "2": port("model", ["1", 0])}


def uses(log: str) -> dict[str, Any]:
    """model, image -> image: brighter by the model's strength in hundredths. What it saves nobody wants twice."""
    return {
        "1": port("model"),
        "2": port("image"),
        "3": node("RunTestUseModel", model=["1", 0], image=["2", 0], log=log),
        "4": port("image", ["3", 0]),
        "5": node("SaveImage", images=["3", 0], filename_prefix="replay"),
    }


DOUBLES = {"1": port("number"), "2": node("RunTestDouble", number=["1", 0]), "3": port("number", ["2", 0])}
SEEDS = {
    "1": node("RunTestSeeds", mode="fixed", seed=3, steps=4, noise_seed=7, sampler="euler"),
    "2": port("seeds", ["1", 0]),
}


async def again(d: Discomfort, folder: Path, iteration: int | None = None, **options: Any) -> ReplayResult:
    return await replay(d, RunRecordFolder.open(folder), iteration, **options)


# ----------------------------------------------------------------------------------------------------------- identical


@on_a_server
async def test_a_whole_run_gives_the_same_and_everything_is_computed_again(
    d: Discomfort, folder: Path, log: str
) -> None:
    """Loop variable, model by reference, per-iteration function, branch, inner loop, seeds."""
    steps = [
        loads(log),
        uses(log),
        Branch("number > 2", [Loop([DOUBLES], iterations=2)], [DOUBLES]),
        SEEDS,
    ]
    inputs = {"image": picture(), "number": PerIteration(lambda i: i + 1)}
    options: dict[str, Any] = {"seed_policy": "randomize", "master_seed": 5}
    await d.run(steps, inputs, 4, checkpoint=folder, **options)
    done = executions(log)
    before, seen = files_of(folder), []
    result = await again(d, folder, progress=lambda done, total, entry: seen.append((done, total)))
    assert result.is_identical, result.summary()
    assert (result.steps, result.values, result.identical) == (14, 14, 14)
    assert seen == [(n, 18) for n in range(1, 19)]
    assert result.cached_nodes == 0
    assert executions(log) == done
    assert result.summary() == "identical: 14 steps, 14 values"
    assert [note.split(":")[0] for note in result.notes] == [
        "4 values went by reference",
        "4 steps delivered no value",
    ]
    assert result.environment == []
    assert files_of(folder) == before
    assert json.loads(json.dumps(result.to_dict()))["is_identical"] is True


@on_a_server
async def test_what_a_cache_gives_is_not_counted_as_computed(d: Discomfort, folder: Path, log: str) -> None:
    await d.run([loads(log), uses(log)], {"image": picture()}, 2, checkpoint=folder)
    executions(log)
    result = await again(d, folder, fresh=False)
    assert result.is_identical
    assert executions(log) == []
    assert result.cached_nodes == 3
    assert "3 nodes came from the server's cache, and were not computed again" in result.notes
    assert (await again(d, folder)).cached_nodes == 0


@on_a_server
async def test_a_copied_folder_replays(d: Discomfort, folder: Path, tmp_path: Path, log: str) -> None:
    await d.run([loads(log), uses(log)], {"image": picture()}, 2, checkpoint=folder)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    assert (await again(d, copy)).is_identical


@on_a_server
async def test_a_list_stays_a_list(d: Discomfort, folder: Path) -> None:
    count = {"1": node("RunTestCount", count=3), "2": port("numbers", ["1", 0])}
    join = {"1": port("numbers"), "2": node("RunTestJoin", number=["1", 0]), "3": port("text", ["2", 0])}
    await d.run([count, join], iterations=2, checkpoint=folder, keep="all")
    assert (await again(d, folder)).is_identical
    assert (await again(d, folder, 1)).values == 2


@on_a_server
async def test_iterations_that_were_given_up_leave_no_trace(d: Discomfort, folder: Path, log: str) -> None:
    """In each iteration the loop variable is doubled, and then something may fail: that doubling does not count."""
    fails = {**uses(log), "3": node("RunTestUseModel", model=["1", 0], image=["2", 0], log=["6", 0]), "6": port("log")}
    logs = [log, "/nowhere/at all", log, log]
    tried: list[int] = []

    def decide(failure: Any) -> str:
        tried.append(failure.iteration)
        return "retry" if len(tried) == 1 else "skip"

    inputs = {"image": picture(), "number": 1, "log": PerIteration(logs)}
    result = await d.run([loads(log), DOUBLES, fails], inputs, 4, checkpoint=folder, on_error=decide)
    assert (result["number"], tried) == (8, [1, 1])
    states = [one.state for one in attempts(RunRecordFolder.open(folder).entries)]
    assert states == ["done", "retried", "skipped", "done", "done"]
    result = await again(d, folder)
    assert result.is_identical, result.differences
    assert result.values == 5 + 3


# ------------------------------------------------------------------------------------------------------------- differs


@on_a_server
async def test_another_digest_names_the_place(d: Discomfort, folder: Path) -> None:
    await d.run([DOUBLES], {"number": 1}, 4, checkpoint=folder)

    def change(entry: dict[str, Any]) -> None:
        if entry["kind"] == "step" and entry["path"] == [2]:
            entry["writes"]["number"] = {"digest": "xxh3:" + "0" * 32, "value": 9}

    rewrite(folder, change)
    result = await again(d, folder)
    assert not result.is_identical
    assert (result.values, result.identical) == (4, 3)
    (difference,) = result.differences
    assert (difference.path, difference.workflow, difference.port) == ((2,), "workflow 1", "number")
    assert difference.recorded == "xxh3:" + "0" * 32
    assert difference.most == 1.0
    assert difference.sentence() == "iteration 2, workflow 1, port 'number': 9 and 8"
    assert result.summary().startswith("differs: 1 of 4 values in 4 steps; first in iteration 2, workflow 1, port")


@on_a_server
async def test_the_cause_stands_out_among_its_effects(d: Discomfort, folder: Path, log: str) -> None:
    """A recipe's node in the recorded prompt is changed: that step differs, and those that read what it wrote."""
    await d.run([loads(log), uses(log)], {"image": picture(0.0)}, 4, checkpoint=folder, collect=["image"])

    def change(entry: dict[str, Any]) -> None:
        for changed in (entry.get("changes") or {}).values() if entry.get("path") == [1] else ():
            if changed and changed["class_type"] == "RunTestLoadModel":
                changed["inputs"]["name"] = "longer"

    rewrite(folder, change)
    result = await again(d, folder)
    assert [one.path for one in result.differences] == [(1,), (2,), (3,)]
    assert [one.read_changed for one in result.differences] == [(), ("image",), ("image",)]
    assert [one.most for one in result.differences] == pytest.approx([0.02, 0.02, 0.02])
    assert "in 12,288 of 12,288 elements" in result.differences[0].words
    assert result.differences[1].sentence().endswith("; it read a changed 'image'")


@on_a_server
async def test_another_environment_is_told(d: Discomfort, folder: Path) -> None:
    await d.run([DOUBLES], {"number": 1}, checkpoint=folder)
    rewrite(folder, lambda entry: entry["environment"].update(pytorch="1.0") if entry["kind"] == "session" else None)
    result = await again(d, folder)
    assert result.is_identical
    assert [text for text in result.environment if text.startswith("pytorch: was '1.0', is ")]


@on_a_server
async def test_a_step_that_does_not_run_any_more_says_which(d: Discomfort, folder: Path, log: str) -> None:
    await d.run([DOUBLES], {"number": 1}, 2, checkpoint=folder)

    def change(entry: dict[str, Any]) -> None:
        if entry.get("path") == [1]:
            entry["changes"]["2"] = node("NoSuchNode", number=["1", 0])

    rewrite(folder, change)
    with pytest.raises(ReplayError, match="iteration 1, workflow 1: it ran when it was recorded, and does not now"):
        await again(d, folder)


# ------------------------------------------------------------------------------------------------------- one iteration


@on_a_server
async def test_one_iteration_of_a_run_that_kept_all(d: Discomfort, folder: Path, log: str) -> None:
    inputs = {"image": picture(0.0), "number": PerIteration([1, 2, 3, 4])}
    await d.run([loads(log), uses(log), DOUBLES], inputs, 4, checkpoint=folder, keep="all")
    executions(log)
    result = await again(d, folder, 2)
    assert result.is_identical
    assert (result.steps, result.values) == (2, 2)
    assert executions(log) == ["load base", "use"]
    with pytest.raises(NoSuchIterationError, match=r"no finished step of iteration 4; it has those from 0 to 3\."):
        await again(d, folder, 4)


@on_a_server
async def test_one_iteration_of_others_runs_those_before_it_or_takes_what_is_given(
    d: Discomfort, folder: Path, log: str
) -> None:
    await d.run([loads(log), uses(log)], {"image": picture(0.0)}, 4, checkpoint=folder)
    result = await again(d, folder, 2)
    assert result.is_identical
    assert result.steps == 3
    assert any("iteration 2 cannot be run alone, as its 'image' is not kept" in note for note in result.notes)
    value = picture(0.0) + torch.tensor(0.04) + torch.tensor(0.04)
    result = await again(d, folder, 2, inputs={"image": value})
    assert result.is_identical, result.summary()
    assert result.steps == 1
    result = await again(d, folder, 2, inputs={"image": value + 0.25})
    assert len(result.differences) == 1
    if result.differences[0].recorded.startswith("xxh3:"):
        assert result.differences[0].read_changed == ("image",)
        assert "what was given as 'image' is not what was recorded" in result.notes
    else:  # a ComfyUI without xxhash
        assert any("what was given as 'image' cannot be compared with what was rec" in note for note in result.notes)


# --------------------------------------------------------------------------------------------------- what is not there


@on_a_server
async def test_pictures_of_a_sequence_have_to_be_given(d: Discomfort, folder: Path, log: str) -> None:
    pictures = [picture(0.1), picture(0.2), picture(0.3)]
    await d.run([loads(log), uses(log)], {"image": PerIteration(pictures)}, 3, checkpoint=folder)
    with pytest.raises(MissingValuesError) as caught:
        await again(d, folder)
    assert caught.value.names == ["image"]
    assert "'image', which iteration 0 and 2 more reads: an item of the sequence that the run was given" in str(
        caught.value
    )
    assert "--input NAME=FILE" in str(caught.value)
    assert "keep='all'" in str(caught.value)
    assert (await again(d, folder, inputs={"image": PerIteration(pictures)})).is_identical
    assert (await again(d, folder, 1, inputs={"image": pictures[1]})).is_identical
    with pytest.raises(ReplayError, match="iteration 2, workflow 2: The input 'image' has a sequence of 2 values"):
        await again(d, folder, inputs={"image": PerIteration(pictures[:2])})
    with pytest.raises(ReplayError, match="nothing that is run again takes 'imgae'; there is 'image'"):
        await again(d, folder, inputs={"imgae": pictures[1]})


@on_a_server
async def test_pictures_of_a_function_have_to_be_given(d: Discomfort, folder: Path, log: str) -> None:
    await d.run([loads(log), uses(log)], {"image": PerIteration(lambda i: picture(i / 10))}, 3, checkpoint=folder)
    with pytest.raises(MissingValuesError, match="what it was given for the iteration is not kept"):
        await again(d, folder, 1)
    assert (await again(d, folder, inputs={"image": PerIteration(lambda i: picture(i / 10))})).is_identical


@on_a_server
async def test_secrets_are_asked_for_by_name(d: Discomfort, folder: Path, log: str) -> None:
    passes = {"1": port("api_key"), "2": node("RunTestPass", anything=["1", 0]), "3": port("answer", ["2", 0])}
    await d.run([passes], {"api_key": "wonderland"}, checkpoint=folder)
    with pytest.raises(MissingValuesError, match="'api_key', which iteration 0 reads: its name says that it is a secr"):
        await again(d, folder)
    assert (await again(d, folder, inputs={"api_key": "wonderland"})).is_identical
    assert not (await again(d, folder, inputs={"api_key": "another"})).is_identical


@on_a_server
async def test_secrets_of_prompts_are_asked_for_by_node_and_input(d: Discomfort, folder: Path, log: str) -> None:
    await d.run([loads(log, "base"), uses(log)], {"image": picture()}, checkpoint=folder)
    changed = []

    def change(entry: dict[str, Any]) -> None:
        for node_id, one in (entry.get("changes") or {}).items():
            if one and one["class_type"] == "RunTestLoadModel":
                one["inputs"]["name"] = REMOVED
                changed.append(f"{node_id}.name")

    rewrite(folder, change)
    (place,) = changed
    with pytest.raises(ReplayError, match=f"workflow 2, node #.* input 'name': {place}\nPut each into an environment"):
        await again(d, folder)
    assert (await again(d, folder, secrets={place: "base"})).is_identical
    with pytest.raises(ReplayError, match=r"secrets: nothing that is run again takes '9\.key'"):
        await again(d, folder, secrets={place: "base", "9.key": "x"})


# --------------------------------------------------------------------------------------------------- damaged, malicious


@on_a_server
async def test_a_damaged_object_is_named(d: Discomfort, folder: Path, log: str) -> None:
    await d.run([loads(log), uses(log)], {"image": picture()}, 2, checkpoint=folder)
    digest = RunRecordFolder.open(folder).manifest["inputs"]["image"]["digest"]
    file = folder / "objects" / object_name(digest)
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{file.name} is damaged: its checksum"):
        await again(d, folder)
    file.unlink()
    with pytest.raises(MissingValuesError, match=r"'image', which iteration 0 reads: its object is not there"):
        await again(d, folder)


class Evil:
    """A value that does something when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@on_a_server
async def test_a_malicious_object_is_refused_and_does_nothing(d: Discomfort, folder: Path, tmp_path: Path) -> None:
    passes = {"1": port("thing"), "2": node("RunTestPass", anything=["1", 0]), "3": port("answer", ["2", 0])}
    await d.run([passes], {"thing": 5}, checkpoint=folder)
    marker = tmp_path / "executed"
    with WorkflowContext() as context:
        context.save("thing", Evil(str(marker)))
        held = context.hold("thing")
        digest = context.digest("thing")
        objects = Folder(str(folder / "objects"), os.open(folder / "objects", os.O_RDONLY))
        write_object(objects, object_name(digest), held)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"]["thing"] = {"digest": digest, "object": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def change(entry: dict[str, Any]) -> None:
        for one in (entry.get("changes") or {}).values():
            if one and one["class_type"] == "DiscomfortDataLoader":
                one["inputs"]["content"] = digest

    rewrite(folder, change)
    with pytest.raises(ReplayError, match=r"reads 'thing', and the value 'thing' names .*mkdir.*--trust.*trust=True"):
        await again(d, folder)
    assert not marker.exists()
    await again(d, folder, trust=True)
    assert marker.exists()  # or it would not have shown anything


@on_a_server
async def test_what_is_more_than_plain_data_needs_trust(d: Discomfort, folder: Path) -> None:
    passes = {"1": port("thing"), "2": node("RunTestPass", anything=["1", 0]), "3": port("answer", ["2", 0])}
    await d.run([passes], {"thing": Fraction(1, 3)}, checkpoint=folder)
    with pytest.raises(ReplayError, match=r"iteration 0, workflow 1 reads 'thing', and .*Fraction"):
        await again(d, folder)
    assert (await again(d, folder, trust=True)).is_identical


# ---------------------------------------------------------------------------------------------------------------- pure


def test_only_what_ports_need_is_run() -> None:
    prompt = {
        "1": {"class_type": "DiscomfortDataLoader", "inputs": {"unique_id": "image", "content": "xxh3:1"}},
        "2": node("Blur", image=["1", 0]),
        "3": {"class_type": "DiscomfortPort", "inputs": {"unique_id": " o ", "mode": "OUTPUT", "input_data": ["2", 0]}},
        "4": node("SaveImage", images=["2", 0]),
        "5": node("Load"),
        "6": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "model", "mode": "REF", "input_data": ["5", 0]}},
    }  # fmt: skip
    part = needed_part(prompt)
    assert list(part.prompt) == ["1", "2", "3"]
    assert part.ports == {"o": "3"}
    assert part.loaders == {"1": ("image", "xxh3:1")}


def test_a_record_without_anything_to_compare_is_no_identical_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [])
    with pytest.raises(ReplayError, match="no step has finished"):
        Plan(RunRecordFolder.open(folder), None, {}, {})
    prompt = {"1": node("SaveImage")}
    write_run(tmp_path, [step([0], prompt, {})], [prompt])
    with pytest.raises(ReplayError, match="no port delivers a value"):
        Plan(RunRecordFolder.open(folder), None, {}, {})


def test_items_of_a_batch_begin_anew_and_may_end_late() -> None:
    entries: list[dict[str, Any]] = [
        {"kind": "input", "path": [0], "name": "x"},
        {"kind": "step", "path": [0]},
        {"kind": "input", "path": [1], "name": "x"},
        {"kind": "iteration", "iteration": 0, "state": "done"},
        {"kind": "step", "path": [1]},
        {"kind": "iteration", "iteration": 1, "state": "skipped"},
        {"kind": "step", "path": [1]},
    ]
    found = attempts(entries)
    assert [(one.iteration, one.state, len(one.steps)) for one in found] == [
        (0, "done", 1),
        (1, "skipped", 1),
        (1, "", 1),
    ]


def test_a_damaged_journal_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    prompt = {"1": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "x", "mode": "OUTPUT"}}}
    folder = write_run(tmp_path, [step([n], prompt, {"x": n}) for n in range(5)], [prompt])
    lines = (folder / "run.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"step", b"stop")
    (folder / "run.jsonl").write_bytes(b"".join(lines))
    plan = Plan(RunRecordFolder.open(folder), None, {}, {})
    assert len(plan.attempts) == 3
    assert plan.notes == ["the journal is damaged in line 4; what stands behind it is not replayed"]


NAN = float("nan")


@pytest.mark.parametrize(
    ("a", "b", "most", "words"),
    [
        (1, 3, 2, "1 and 3"),
        (NAN, NAN, 0.0, "equal"),
        ("a text", "a test", None, "from character 4 on: 'a text' and 'a test'"),
        (torch.zeros(2, 2), torch.tensor([[0, 0], [0, 0.5]]), 0.5, "up to 0.5, in 1 of 4 elements"),
        (torch.zeros(2), torch.zeros(3), None, "shapes [2] and [3]"),
        (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.0]), 0.0, "equal"),
        (torch.tensor([True]), torch.tensor([False]), 1.0, "up to 1, in 1 of 1 elements"),
        (torch.tensor([255], dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8), 255.0, "up to 255, in 1 of 1 elem"),
        (np.zeros(2), np.ones(2), 1.0, "up to 1, in 2 of 2 elements"),
        (torch.zeros(1), torch.zeros(1, dtype=torch.float16), 0.0, "equal, as float32 and float16"),
        ({"samples": torch.zeros(1)}, {"samples": torch.ones(1)}, 1.0, "samples: up to 1, in 1 of 1 elements"),
        ({"a": 1}, {"b": 1}, None, "dicts of ['a'] and of ['b']"),
        ([1, 2, 3], [1, 4, 9], 6, "[2]: 3 and 9"),
        ([1], [1, 2], None, "1 and 2 long"),
        ([1, "x"], [2, "y"], None, "[1]: from character 0 on: 'x' and 'y'"),
        (None, 0, None, "None and 0"),
        (np.array(["x"], dtype=object), np.array(["y"], dtype=object), None, "other elements"),
    ],
)  # fmt: skip
def test_how_much_values_differ(a: Any, b: Any, most: float | None, words: str) -> None:
    found = value_difference(a, b)
    assert found.most == most
    assert found.words.startswith(words)


def test_a_result_is_data() -> None:
    assert set(dataclasses.asdict(ReplayResult())) <= set(ReplayResult().to_dict())
