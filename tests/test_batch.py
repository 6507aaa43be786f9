"""Batches: many items, each by its name; resumable, saved as they go, and not ended by a bad one.

On the embedded server, and on the ComfyUI that COMFYUI_PATH names.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from discomfort.batch import BatchItem, BatchResult, BatchRow, list_pictures
from discomfort.durable.replay import MissingValuesError, replay
from discomfort.durable.run_folder import RunRecordFolder
from discomfort.progress_events import ItemFinished, StepFinished
from pack_server import discomfort_fixture
from PIL import Image
from prompt_parts import executions, node, port

from discomfort import Discomfort, PerIteration, PreflightError, Retry, RunChangedError, WorkflowExecutionError

TESTS = Path(__file__).parent

pytestmark = pytest.mark.asyncio(loop_scope="module")


d = discomfort_fixture()


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "executions.txt")


INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}


def number(log: str, refused: int = 10**6) -> dict[str, Any]:
    """n -> n seen, but one of them fails."""
    checked = node("RunTestRefuse", number=["1", 0], refused=refused, log=log)
    return {"1": port("n"), "2": checked, "3": port("n seen", ["2", 0])}


@pytest.fixture
def photos(tmp_path: Path, d: Discomfort) -> Path:
    """Five pictures of levels that PNG keeps, and a text."""
    folder = tmp_path / "photos"
    for index in range(5):
        d.Tools.save_comfy_image_to_disk(torch.full((1, 6, 8, 3), index * 51 / 255), folder / f"p{index}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


async def gather(batch: Any) -> list[BatchItem]:
    return [item async for item in batch]


# ------------------------------------------------------------------------------------------------------------ items


async def test_a_folder_of_pictures(d: Discomfort, photos: Path) -> None:
    items = await gather(d.run_batch([INVERT], photos))
    assert [(item.key, item.number, item.state) for item in items] == [(f"p{n}.png", n, "done") for n in range(5)]
    for index, item in enumerate(items):
        assert torch.allclose(item.outputs["image"], torch.full((1, 6, 8, 3), 1 - index * 51 / 255), atol=1e-6)
        assert item.files == {}
        assert item.seconds > 0


async def test_items_come_as_lists_dicts_iterators_and_asynchronous_ones(d: Discomfort, log: str, photos: Path) -> None:
    def generate() -> Iterator[int]:
        yield from (1, 2)

    async def later() -> AsyncIterator[int]:
        for value in (1, 2):
            await asyncio.sleep(0)
            yield value

    for items in ([1, 2], generate(), later(), range(1, 3), [{"n": 1}, {"n": 2}]):
        found = await gather(d.run_batch([number(log)], items))
        assert [(item.key, item.outputs["n seen"]) for item in found] == [("item-000000", 1), ("item-000001", 2)]
    found = await gather(d.run_batch([number(log)], {"first": 1, "second": {"n": 2}}))
    assert [(item.key, item.outputs["n seen"]) for item in found] == [("first", 1), ("second", 2)]
    found = await gather(d.run_batch([number(log)], [7, 8], key=lambda n: f"number {n}"))
    assert [item.key for item in found] == ["number 7", "number 8"]
    # A path object is a picture, a text is a text.
    join = {"1": port("text"), "2": port("text", ["1", 0])}
    (item,) = await gather(d.run_batch([join], ["photos/cat.png"]))
    assert item.outputs["text"] == "photos/cat.png"
    (item,) = await gather(d.run_batch([INVERT], [photos / "p0.png"]))
    assert item.key == "p0.png"
    assert item.outputs["image"].shape == (1, 6, 8, 3)


async def test_items_do_not_see_each_other(d: Discomfort, log: str) -> None:
    """What one leaves under a name is gone when the next begins; what all share is as it was given."""
    mix = {"1": port("state"), "2": port("by")}
    mix["3"] = node("RunTestMix", state=["1", 0], by=["2", 0], seed=0, log=log)
    mix["4"] = port("state", ["3", 0])
    items = await gather(
        d.run_batch([mix], [1, 2, 3], input="by", inputs={"state": 10}, iterations=2, seed_policy="fixed")
    )
    assert [item.outputs["state"] for item in items] == [(30 + by) * 3 + by for by in (1, 2, 3)]


# -------------------------------------------------------------------------------------------------------- in a folder


async def test_a_batch_is_saved_as_it_goes_and_done_once(d: Discomfort, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = await d.run_batch([INVERT], photos, checkpoint=folder)
    assert isinstance(result, BatchResult)
    assert [row.state for row in result.rows] == ["done"] * 5
    saved = folder / "outputs" / "image" / "p2.png"
    assert torch.allclose(d.Tools.open_image_as_tensor(saved), torch.full((1, 6, 8, 3), 1 - 102 / 255))
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["item"], row["state"], row["image"]) for row in rows][2] == ("p2.png", "done", str(saved))
    assert (folder / "report.html").exists()
    steps = len([e for e in RunRecordFolder.open(folder).entries if e["kind"] == "step"])

    again = await gather(d.run_batch([INVERT], photos, checkpoint=folder))
    assert [item.state for item in again] == ["done before"] * 5
    assert torch.allclose(again[2].outputs["image"], torch.full((1, 6, 8, 3), 1 - 102 / 255))
    assert again[2].files == {"image": [saved]}

    # What is new, what has changed, and what has gone is done; nothing else.
    d.Tools.save_comfy_image_to_disk(torch.zeros(1, 6, 8, 3), photos / "a new one.png")
    d.Tools.save_comfy_image_to_disk(torch.ones(1, 6, 9, 3), photos / "p1.png")
    saved.unlink()
    third = await d.run_batch([INVERT], photos, checkpoint=folder)
    assert {row.key: row.state for row in third.rows} == {
        "a new one.png": "done", "p0.png": "done before", "p1.png": "done", "p2.png": "done",
        "p3.png": "done before", "p4.png": "done before",
    }  # fmt: skip
    assert saved.exists()
    assert len([e for e in RunRecordFolder.open(folder).entries if e["kind"] == "step"]) == steps + 3
    assert "6 items: 3 done, 3 done before" in third.table()


async def test_a_killed_batch_goes_on_with_the_same_seeds(d: Discomfort, log: str, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def listen(event: Any) -> None:
        if isinstance(event, StepFinished) and event.path[0] == 2:
            raise StoppedError

    def make(log: str) -> dict[str, Any]:
        mix = {"1": port("n"), "3": node("RunTestMix", state=["1", 0], by=0, seed=5, log=log), "4": port("r", ["3", 0])}
        return mix

    whole = await gather(d.run_batch([make(log)], range(5), seed_policy="randomize", master_seed=3))
    expected = [item.outputs["r"] for item in whole]
    assert len(set(expected)) == 5
    log, folder = f"{log} 2", tmp_path / "out"
    call = {"seed_policy": "randomize", "master_seed": 3, "checkpoint": folder}
    with pytest.raises(StoppedError):
        await d.run_batch([make(log)], range(5), progress=listen, **call)
    assert len(executions(log)) == 3
    items = await gather(d.run_batch([make(log)], range(5), **call))
    assert [item.outputs["r"] for item in items] == expected
    assert [item.state for item in items] == ["done before"] * 2 + ["done"] * 3
    assert len(executions(log)) <= 3  # what was not recorded
    with pytest.raises(RunChangedError, match="master_seed"):
        await d.run_batch([make(log)], range(5), **{**call, "master_seed": 4})
    fresh = await d.run_batch([make(log)], range(5), **call, resume=False)
    assert [row.state for row in fresh.rows] == ["done"] * 5


async def test_every_kind_of_output_comes_back_from_the_folder(d: Discomfort, tmp_path: Path) -> None:
    """Pictures, several at once, masks, numbers, texts and latents."""
    prompt = {
        "1": port("image"),
        "2": node("ImageToMask", image=["1", 0], channel="red"),
        "3": port("mask", ["2", 0]),
        "4": node("RepeatImageBatch", image=["1", 0], amount=3),
        "5": port("three", ["4", 0]),
        "6": node("EmptyLatentImage", width=16, height=16, batch_size=1),
        "7": port("latent", ["6", 0]),
        "8": node("RunTestCount", count=2),
        "9": node("RunTestJoin", number=["8", 0]),
        "10": port("text/of it", ["9", 0]),
        "11": node("PrimitiveFloat", value=0.1),
        "12": port("number", ["11", 0]),
    }
    picture = torch.full((1, 4, 6, 3), 51 / 255)
    items = {"a/b.png": {"image": picture}, "a_b": {"image": picture}, "ä: ?*": {"image": picture}}
    first = await gather(d.run_batch([prompt], items, checkpoint=tmp_path / "out"))
    again = await gather(d.run_batch([prompt], items, checkpoint=tmp_path / "out"))
    assert [item.state for item in again] == ["done before"] * 3
    for before, after in zip(first, again, strict=True):
        assert set(after.outputs) == set(before.outputs)
        for name in ("mask", "three"):
            assert after.outputs[name].shape == before.outputs[name].shape
            assert torch.allclose(after.outputs[name], before.outputs[name])
        assert torch.equal(after.outputs["latent"]["samples"], before.outputs["latent"]["samples"])
        assert after.outputs["text/of it"] == "0 1"
        assert after.outputs["number"] == 0.1
        assert after.files == before.files
        assert len(after.files["three"]) == 3
    files = [file for item in first for names in item.files.values() for file in names]
    assert len(set(files)) == len(files) == 3 * 5
    assert all(tmp_path / "out" / "outputs" in file.parents for file in files)


async def test_secret_parts_of_items_are_not_kept(d: Discomfort, tmp_path: Path) -> None:
    call = {"1": port("api_key"), "2": node("RunTestSecret", api_key=["1", 0], token="", fail=False)}
    call["3"] = port("length", ["2", 0])
    secrets = ["sk-secret-one-111", "sk-secret-two-2222"]
    items = [{"api_key": secret} for secret in secrets]
    failing = {**call, "2": node("RunTestSecret", api_key=["1", 0], token="", fail=True)}
    told = await d.run_batch([failing], items, checkpoint=tmp_path / "out" / "failed")
    assert len(told.failures) == 2
    found = await gather(d.run_batch([call], items, checkpoint=tmp_path / "out" / "done"))
    assert [item.outputs["length"] for item in found] == [17, 18]
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or not any(secret.encode() in file.read_bytes() for secret in secrets), file


# ------------------------------------------------------------------------------------------------------- bad items


async def test_a_bad_item_is_listed_and_the_others_are_done(
    d: Discomfort, photos: Path, log: str, tmp_path: Path
) -> None:
    (photos / "p1.png").write_bytes(b"no picture at all")
    result = await d.run_batch([INVERT], photos, checkpoint=tmp_path / "out")
    assert [row.key for row in result.failures] == ["p1.png"]
    assert len(result.done) == 4
    assert "not an image" in result.failures[0].error
    assert result.table().splitlines()[1].startswith("p1.png")

    items = await gather(d.run_batch([number(log, refused=2)], range(4)))
    assert [item.state for item in items] == ["done", "done", "failed", "done"]
    assert not items[2].is_done
    assert items[2].error is not None
    assert "2 is refused" in items[2].error.message

    # In a later call they are tried again, or only listed.
    executions(log)
    call = {"checkpoint": tmp_path / "numbers"}
    await d.run_batch([number(log, refused=2)], range(4), **call)
    listed = await d.run_batch([number(log, refused=2)], range(4), **call, retry_failed=False)
    assert [row.state for row in listed.rows] == ["done before", "done before", "failed", "done before"]
    before = len(executions(log))
    tried = await d.run_batch([number(log, refused=2)], range(4), **call)
    assert [row.state for row in tried.rows] == ["done before", "done before", "failed", "done before"]
    assert executions(log) == ["check 2"]
    assert before


async def test_stop_and_functions_decide_about_a_bad_item(d: Discomfort, log: str) -> None:
    batch = d.run_batch([number(log, refused=1)], range(4), on_error="stop")
    with pytest.raises(WorkflowExecutionError, match="1 is refused"):
        await gather(batch)
    assert [row.key for row in batch.result.rows] == ["item-000000"]
    asked = []

    def decide(failure: Any) -> str:
        asked.append((failure.iteration, failure.attempts))
        return "retry" if failure.attempts < 3 else "skip"

    items = await gather(d.run_batch([number(log, refused=1)], range(3), on_error=decide))
    assert [item.state for item in items] == ["done", "failed", "done"]
    assert asked == [(1, 1), (1, 2), (1, 3)]


async def test_a_server_that_dies_costs_no_item(d: Discomfort, log: str) -> None:
    dying = {"1": port("n"), "2": node("RunTestFlaky", number=["1", 0], ways=",die", log=log), "3": port("m", ["2", 0])}
    # The second execution that the log has dies.
    dying["2"]["inputs"]["ways"] = "none,die"
    items = await gather(d.run_batch([dying], [5, 6, 7], retry=Retry(delay=0.01)))
    assert [item.outputs["m"] for item in items] == [5, 6, 7]


# --------------------------------------------------------------------------------------------- what cannot work at all


async def test_what_is_wrong_with_all_items_ends_the_batch_before_the_first(
    d: Discomfort, log: str, tmp_path: Path, photos: Path
) -> None:
    two = {**number(log), "4": port("more"), "5": port("out", ["4", 0])}
    with pytest.raises(ValueError, match="which INPUT port the items go to; there are 'more', 'n'"):
        await gather(d.run_batch([two], [1, 2]))
    with pytest.raises(ValueError, match="'more' of workflow 1 has no value"):
        await gather(d.run_batch([two], [1, 2], input="n"))
    with pytest.raises(ValueError, match="would leave nothing"):
        await d.run_batch([number(log)], [1, 2])
    with pytest.raises(ValueError, match="the items are what changes"):
        await gather(d.run_batch([number(log)], [1], inputs={"n": PerIteration([1])}))
    with pytest.raises(ValueError, match="the same key 'x'"):
        await gather(d.run_batch([number(log)], [1, 2], key=lambda n: "x"))
    with pytest.raises(TypeError, match=r"key gave None for item 0"):
        await gather(d.run_batch([number(log)], [1, 2], key=lambda n: None))
    with pytest.raises(TypeError, match="items is a int"):
        await gather(d.run_batch([number(log)], 5))
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        await gather(d.run_batch([INVERT], tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="is a file"):
        await gather(d.run_batch([INVERT], photos / "p0.png"))
    with pytest.raises(ValueError, match=r"has no pictures that match '\*\.gif'"):
        await gather(d.run_batch([INVERT], photos, pattern="*.gif"))
    with pytest.raises((PreflightError, ValueError), match="iterations is 0"):
        await gather(d.run_batch([number(log)], [1], iterations=0))
    assert executions(log) == []
    batch = d.run_batch([number(log)], [1])
    await gather(batch)
    with pytest.raises(RuntimeError, match="has begun already"):
        await gather(batch)


# --------------------------------------------------------------------------------------------------- while it runs


async def test_progress_tells_rate_and_time_left(d: Discomfort, log: str) -> None:
    events: list[ItemFinished] = []

    def listen(event: Any) -> None:
        if isinstance(event, ItemFinished):
            events.append(event)

    await gather(d.run_batch([number(log, refused=1)], range(4), progress=listen))
    assert [(e.key, e.state, e.ended, e.failed, e.total) for e in events] == [
        (f"item-{n:06d}", "failed" if n == 1 else "done", n + 1, min(n, 1), 4) for n in range(4)
    ]
    assert all(event.rate > 0 for event in events)
    assert events[-1].seconds_left == 0
    assert events[0].seconds_left is not None
    assert events[0].seconds_left > 0
    events.clear()
    await gather(d.run_batch([number(log)], iter([1, 2]), progress=listen))
    assert [(event.total, event.seconds_left) for event in events] == [(None, None)] * 2


async def test_leaving_early_ends_it_and_what_is_done_stays_done(d: Discomfort, log: str, tmp_path: Path) -> None:
    def slow(log: str) -> dict[str, Any]:
        wait = node("RunTestSlow", number=["1", 0], seconds=0.2, log=log)
        return {"1": port("n"), "2": wait, "3": port("m", ["2", 0])}

    async with d.run_batch([slow(log)], range(50), checkpoint=tmp_path / "out") as batch:
        async for item in batch:
            if item.number == 2:
                break
    done = {e["item"] for e in RunRecordFolder.open(tmp_path / "out").entries if e["kind"] == "iteration"}
    assert {"item-000000", "item-000001", "item-000002"} <= done
    assert len(done) < 8
    # The server is free for others.
    (item,) = await gather(d.run_batch([number(log)], [5]))
    assert item.outputs["n seen"] == 5


async def test_a_slow_caller_does_not_let_results_pile_up(d: Discomfort, log: str) -> None:
    produced = []

    def generate() -> Iterator[int]:
        for value in range(12):
            produced.append(value)
            yield value

    ahead = []
    async for item in d.run_batch([number(log)], generate()):
        await asyncio.sleep(0.1)
        ahead.append(len(produced) - item.number)
    assert max(ahead) <= 5  # one runs, one waits, one is read ahead


async def test_cancelling_interrupts_the_item_that_runs(d: Discomfort, log: str, wait_for: Callable[..., Any]) -> None:
    slow = {"1": port("n"), "2": node("RunTestSlow", number=["1", 0], seconds=30.0, log=log), "3": port("m", ["2", 0])}
    task = asyncio.create_task(gather(d.run_batch([slow], [1, 2])))
    await asyncio.to_thread(wait_for, Path(log).exists, 30, "the first item")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (item,) = await gather(d.run_batch([number(log)], [5]))
    assert item.is_done
    assert executions(log)[:1] == ["begin 1"]


# ------------------------------------------------------------------------------------------------------------ tables


async def test_the_table_has_the_failures_first_and_says_how_many_it_leaves_out() -> None:
    result = BatchResult()
    result.rows = [BatchRow(f"item {n}", "done", 1.0, {"image": f"{n}.png"}) for n in range(100)]
    result.rows.insert(50, BatchRow('the, bad "one"', "failed", 0.5, {}, "first line\nsecond line"))
    result.seconds = 50.0
    lines = result.table(most=10).splitlines()
    assert lines[1].startswith('the, bad "one"')
    assert "first line" in lines[1]
    assert "second line" not in lines[1]
    assert lines[-2:] == ["... and 91 more", "101 items: 100 done, 1 failed; 50.0 s, 2.00 items/s"]
    rows = list(csv.reader(result.to_csv().splitlines()))
    assert rows[0] == ["item", "state", "seconds", "error", "image"]
    assert rows[51] == ['the, bad "one"', "failed", "0.500", "first line | second line", ""]
    assert len(rows) == 102


async def test_the_table_names_files_below_the_folder_that_its_last_line_names(tmp_path: Path) -> None:
    result = BatchResult()
    result.checkpoint = str(tmp_path)
    result.rows = [BatchRow("a", "done", 1.0, {"image": str(tmp_path / "outputs" / "image" / "a.png")})]
    lines = result.table().splitlines()
    assert lines[1].endswith(f"image: {Path('outputs', 'image', 'a.png')}")
    assert lines[-1].startswith(f"All of them: {tmp_path / 'results.csv'}")


async def test_a_batch_in_the_folder_of_its_items_does_not_take_its_own_pictures_for_items(
    d: Discomfort, tmp_path: Path
) -> None:
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    workflow = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}
    call = {"checkpoint": tmp_path / "inverted", "pattern": "**/*"}
    await d.run_batch([workflow], tmp_path, **call)
    again = await d.run_batch([workflow], tmp_path, **call)
    assert [(row.key, row.state) for row in again.rows] == [("0.png", "done before"), ("1.png", "done before")]


async def test_a_folders_folders_are_seen_with_the_pattern(tmp_path: Path, d: Discomfort) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", "sub/d.txt"):
        file = tmp_path / "x" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    assert [f.name for f in list_pictures(tmp_path / "x")] == ["a.JPG", "b.png"]
    assert [f.name for f in list_pictures(tmp_path / "x", "**/*")] == ["a.JPG", "b.png", "c.png"]
    shutil.rmtree(tmp_path / "x")


# ---- masks, and files that are read again ----


MASKED = {
    "1": port("mask"),
    "2": node("InvertMask", mask=["1", 0]),
    "3": node("MaskToImage", mask=["2", 0]),
    "4": port("image", ["3", 0]),
}


async def test_items_for_a_mask_are_opened_as_masks(d: Discomfort, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 6), (200, 10, 10, 51)).save(tmp_path / "a.png")
    items = await gather(d.run_batch([MASKED], [tmp_path / "a.png"]))
    assert items[0].error is None, items[0].error
    assert torch.allclose(items[0].outputs["image"], torch.full((1, 6, 8, 3), 0.2), atol=1e-6)
    both = {**INVERT, **{f"1{key}": moved(value) for key, value in MASKED.items()}}
    both["14"] = port("mask image", ["13", 0])
    pair = {"image": tmp_path / "a.png", "mask": tmp_path / "a.png"}
    items = await gather(d.run_batch([both], [pair], checkpoint=tmp_path / "out"))
    assert items[0].error is None, items[0].error
    assert torch.allclose(items[0].outputs["mask image"], torch.full((1, 6, 8, 3), 0.2), atol=1e-6)
    assert items[0].outputs["image"].shape == (1, 6, 8, 3)
    notes = {e["name"]: e["value"]["file"] for e in entries(tmp_path / "out", "input")}
    assert {name: note["type"] for name, note in notes.items()} == {"image": "IMAGE", "mask": "MASK"}
    result = await replay(d, RunRecordFolder.open(tmp_path / "out"))
    assert (result.is_identical, result.values) == (True, 2), result.summary()


def moved(part: dict[str, Any]) -> dict[str, Any]:
    """A node of a prompt whose ids all got a 1 in front."""
    inputs = {k: [f"1{v[0]}", v[1]] if isinstance(v, list) else v for k, v in part["inputs"].items()}
    return {**part, "inputs": inputs}


def entries(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in RunRecordFolder.open(folder).entries if entry["kind"] == kind]


async def test_a_replay_reads_pictures_where_they_were_and_asks_for_those_that_are_not_the_same(
    d: Discomfort, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    await d.run_batch([INVERT], Path("photos"), checkpoint=folder)
    monkeypatch.chdir("/")
    files = [entry["value"]["file"] for entry in entries(folder, "input")]
    status = (photos / "p0.png").stat()
    looks = {"size": status.st_size, "modified": round(status.st_mtime, 3), "type": "IMAGE"}
    assert files[0] == {"path": str(photos / "p0.png"), **looks}
    result = await replay(d, RunRecordFolder.open(folder))
    assert (result.is_identical, result.steps, result.notes) == (True, 5, []), result.summary()

    os.utime(photos / "p0.png", (1, 1))  # copied, say: the picture is the same
    result = await replay(d, RunRecordFolder.open(folder))
    assert (result.is_identical, result.steps) == (True, 5), result.summary()

    (photos / "p1.png").unlink()
    with pytest.raises(MissingValuesError) as caught:
        await replay(d, RunRecordFolder.open(folder))
    assert caught.value.names == ["image"]
    text = str(caught.value)
    assert f"'image', which iteration 1 reads: it was read from {photos / 'p1.png'}, which is not there" in text
    assert "p0.png" not in text
    assert "p3.png" not in text
    result = await replay(d, RunRecordFolder.open(folder), iteration=3)
    assert (result.is_identical, result.steps) == (True, 1)
    given = PerIteration([torch.full((1, 6, 8, 3), index * 51 / 255) for index in range(5)])
    result = await replay(d, RunRecordFolder.open(folder), inputs={"image": given})
    assert (result.is_identical, result.steps) == (True, 5), result.summary()


def of_one_size(photos: Path) -> None:
    """Make all pictures files of the same size."""
    for file in photos.glob("*.png"):
        file.write_bytes(file.read_bytes().ljust(200, b"\0"))


async def test_a_picture_that_has_changed_is_named(d: Discomfort, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    of_one_size(photos)
    await d.run_batch([INVERT], photos, checkpoint=folder)
    content = (photos / "p2.png").read_bytes()
    for new in (content + b"more", (photos / "p3.png").read_bytes()):
        (photos / "p2.png").write_bytes(new)
        os.utime(photos / "p2.png", (2, 2))
        with pytest.raises(
            MissingValuesError, match=r"p2\.png, which has changed since\nGive what is missing with --i"
        ):
            await replay(d, RunRecordFolder.open(folder))


async def test_a_picture_that_looks_the_same_and_is_another_is_told(
    d: Discomfort, photos: Path, tmp_path: Path
) -> None:
    """As another version of the library that reads pictures may do."""
    folder = tmp_path / "out"
    of_one_size(photos)
    await d.run_batch([INVERT], photos, checkpoint=folder)
    status = (photos / "p2.png").stat()
    (photos / "p2.png").write_bytes((photos / "p3.png").read_bytes())
    os.utime(photos / "p2.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (photos / "p2.png").stat().st_size == status.st_size
    result = await replay(d, RunRecordFolder.open(folder))
    assert [difference.path for difference in result.differences] == [(2,)]
    assert result.differences[0].read_changed == ("image",)
    assert any("from 1 file another value is read than then" in n and "p2.png" in n for n in result.notes)
