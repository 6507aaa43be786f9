"""``python -m discomfort replay``, ``diff`` and ``report``: what a person sees, and what a program gets.

Most on folders that are made by hand; one run is really made, and replayed as a newcomer would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from discomfort.cli import commands
from discomfort.durable.compare import model_differences, record_differences
from discomfort.durable.run_folder import RunRecordFolder
from kept_runs import noted, rewrite, step, write_run
from prompt_parts import node, port

from discomfort import __version__

BLUR = {
    "1": {"class_type": "DiscomfortDataLoader", "inputs": {"unique_id": "image", "content": ""}},
    "2": node("Blur", image=["1", 0], radius=2, seed=1),
    "3": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "mode": "OUTPUT", "input_data": ["2", 0]}},
}
SHARP = {**BLUR, "2": node("Blur", image=["1", 0], radius=3, seed=1)}


def run(*words: Any, status: int = 0) -> str:
    """What a command prints, where it should print it."""
    result = CliRunner().invoke(commands, list(map(str, words)))
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    if status in (1, 3):
        assert result.stdout == ""
        assert result.stderr.startswith("discomfort: ")
        return result.stderr
    return result.stdout


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """``make(name, steps=, prompt=, change=, **manifest)`` writes the folder of a run of three iterations."""

    def write(
        name: str, prompt: dict[str, Any] = BLUR, values: Any = (1, 2, 3), session: Any = None, **manifest: Any
    ) -> Path:
        entries: list[dict[str, Any]] = [
            {"kind": "session", "pid": 1, "server": "a server", "steps": 0, "environment": {}, **(session or {})}
        ]
        for number, value in enumerate(values):
            entries += [
                {"kind": "condition", "path": [number], "what": "loop", "condition": "x < 3", "result": True},
                step([number], prompt, {"image": value}, reads={"image": noted(-number)["digest"]}),
                {"kind": "iteration", "iteration": number, "state": "done", "collected": {}, "seconds": 1.0},
            ]
        entries.append({"kind": "end", "state": "finished", "iterations": len(values), "seconds": 3.0})
        (tmp_path / name).mkdir(mode=0o700)
        return write_run(tmp_path / name, entries, [prompt], inputs={"image": noted(0)}, **manifest)

    return write


def plan(prompt: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A plan with one workflow, as ``write_run`` makes it."""
    from discomfort.durable.run_folder import sha256

    body = [{"workflow": "w0.json", "prompt": sha256(prompt), "file": None}]
    loop = {"iterations": 3, "condition": None, "body": body}
    return {"loop": loop, "collect": [], "master_seed": 1, **fields}


# ---------------------------------------------------------------------------------------------------------------- diff


def test_the_same_twice(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b", plan=plan(BLUR, master_seed=2), options={"keep": "all"})
    assert run("diff", a, a) == "same: 3 steps, 3 values\n"
    assert run("diff", a, b).splitlines() == [
        "note: the master seed was 1, is 2, but no step used another seed",
        "note: option keep: was not there, is 'all'",
        "same: 3 steps, 3 values",
    ]
    found = json.loads(run("diff", a, b, "--json"))
    assert (found["same"], found["differences"], found["steps"], found["values"]) == (True, [], [3, 3], [3, 3])


def test_another_workflow_is_named_by_node_and_input_and_its_values_are_shown(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b", SHARP, (1, 5, 6))
    assert run("diff", a, b, status=4).splitlines() == [
        "plan: w0.json: node #2 Blur ('my Blur'), input 'radius': was 2, is 3",
        "steps: first difference in iteration 0, w0.json: node #2 Blur ('my Blur'), input 'radius': was 2, is 3",
        "ports: 'image' of w0.json: 2 of 3 differ, first in iteration 1: 2 and 5",
        "differs: plan, steps, ports",
    ]
    found = json.loads(run("diff", a, b, "--json", status=4))
    assert (found["same"], found["results_differ"]) == (False, True)
    assert [one["area"] for one in found["differences"]] == ["plan", "steps", "ports"]


def test_what_nobody_changed_is_blamed_on_the_circumstances(make: Callable[..., Path]) -> None:
    old = {"environment": {"pytorch": "2.1", "packs": {"p": {"commit": "a"}}}, "models": [
        {"folder": "vae", "name": "x", "size": 5}]}  # fmt: skip
    new = {"environment": {"pytorch": "2.2", "packs": {"p": {"commit": "b"}}}, "models": [
        {"folder": "vae", "name": "x", "size": 6}]}  # fmt: skip
    a, b = make("a", session=old), make("b", values=(1, 2, 4), session=new)
    assert run("diff", a, b, status=4).splitlines() == [
        "environment: packs.p.commit: was 'a', is 'b'",
        "environment: pytorch: was '2.1', is '2.2'",
        "models: vae/x: its size in bytes was 5, is 6",
        "steps: first difference in iteration 2, w0.json: it wrote another 'image', although prompt, seeds and what it "
        "read are the same: versions, device or models differ, or a node does not give the same twice",
        "ports: 'image' of w0.json: 1 of 3 differ, first in iteration 2: 3 and 4",
        "differs: environment, models, steps, ports",
    ]
    c = make("c", session=new)
    assert run("diff", a, c, status=4).splitlines()[-1] == "differs: environment, models; what they did is the same"


def test_seeds_inputs_conditions_and_ways(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b", plan=plan(BLUR, master_seed=9))

    def change(entry: dict[str, Any]) -> None:
        if entry["kind"] == "step":
            seed = 10 + entry["path"][0]
            entry["seeds"] = {"2": {"seed": seed}}
            entry["changes"] = {"2": {**BLUR["2"], "inputs": {**BLUR["2"]["inputs"], "seed": seed}}}
        if entry.get("path") == [2] and entry["kind"] == "condition":
            entry["result"] = False
        if entry["kind"] == "iteration" and entry["iteration"] == 1:
            entry["state"] = "skipped"

    rewrite(b, change)
    manifest = json.loads((b / "manifest.json").read_text())
    manifest["inputs"] = {"image": noted(7), "other": {"secret": True}}
    (b / "manifest.json").write_text(json.dumps(manifest))
    lines = run("diff", a, b, status=4).splitlines()
    assert lines[:2] == ["inputs: 'image': 0 and 7", "inputs: 'other' is only in the second"]
    assert lines[2] == "seeds: the master seed was 1, is 9"
    assert lines[3] == (
        "seeds: 2 of 2 steps had other seeds, first iteration 0, w0.json: 2: was not there, is {'seed': 10}"
    )
    assert (
        "iterations: the condition of a loop ('x < 3') was true, is false in iteration 2; the ways part there" in lines
    )
    assert "iterations: 3 iterations were finished in the first, 2 in the second" in lines
    assert "steps: first difference in iteration 0, w0.json: its seeds differ" in lines
    way = "after 1 steps the ways part: the first runs w0.json in iteration 1, the second runs w0.json in iteration 2"
    assert f"steps: {way}" in lines


def test_per_iteration_inputs_are_counted(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b")
    for folder, factor in ((a, 1), (b, 2)):
        found = RunRecordFolder.open(folder)
        entries = []
        for entry in found.entries:
            entry.pop("crc", None)
            if entry["kind"] == "condition":
                number = entry["path"][0]
                entries.append({"kind": "input", "path": [number], "name": "n", "value": noted(number * factor)})
            entries.append(entry)
        write_run(folder, entries, [BLUR], inputs={"image": noted(0)})
    assert run("diff", a, b, status=4).splitlines() == [
        "inputs: 'n', of each iteration: 2 of 3 differ, first that of iteration 1: 1 and 2",
        "differs: inputs; what they did is the same",
    ]


def test_people_see_the_first_digits_of_digests_and_programs_all(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b")
    digests = [f"xxh3:{letter}0123456789abcdef0123456789abcde" for letter in "ab"]
    sums = [letter * 64 for letter in "cd"]
    for folder, digest, total in ((a, digests[0], sums[0]), (b, digests[1], sums[1])):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["inputs"] = {"image": {"digest": digest}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        model = {"folder": "vae", "name": "x", "sha256": total}
        more = {"models": [model], "environment": {"discomfort_commit": total[:40]}}
        rewrite(folder, lambda e, more=more: e.update(more) if e["kind"] == "session" else None)
    assert run("diff", a, b, status=4).splitlines()[:3] == [
        "inputs: 'image': another value (its digest was xxh3:a0123456789a..., is xxh3:b0123456789a...)",
        "environment: discomfort_commit: was 'cccccccccccc...', is 'dddddddddddd...'",
        "models: vae/x: its SHA-256 was cccccccccccc..., is dddddddddddd...",
    ]
    told = run("diff", a, b, "--json", status=4)
    assert all(one in told for one in (*digests, *sums))


def test_digests_that_begin_alike_are_printed_as_a_whole(make: Callable[..., Path]) -> None:
    a, b = make("a"), make("b")
    digests = [f"xxh3:0123456789abcdef0123456789abcde{letter}" for letter in "ab"]
    for folder, digest in zip((a, b), digests, strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["inputs"] = {"image": {"digest": digest}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert f"(its digest was {digests[0]}, is {digests[1]})" in run("diff", a, b, status=4)


def test_what_is_still_going_on_or_failed_or_damaged_is_told(make: Callable[..., Path]) -> None:
    a, b, c = make("a"), make("b"), make("c")
    rewrite(b, lambda e: e.update(state="failed", error={"message": "no\nmemory"}) if e["kind"] == "end" else None)
    lines = (c / "run.jsonl").read_bytes().splitlines(keepends=True)
    (c / "run.jsonl").write_bytes(b"".join([*lines[:5], b"rubbish\n", *lines[6:]]))
    assert "note: the second failed: 'no'\n" in run("diff", a, b)
    text = run("diff", a, c, status=4)
    assert "note: the journal of the second is damaged in line 6; what follows is not compared" in text
    assert "note: the second has not ended, or was killed" in text


def test_ten_thousand_steps_take_seconds_and_few_sentences(make: Callable[..., Path]) -> None:
    a = RunRecordFolder.open(make("a", values=range(10_000)))
    b = RunRecordFolder.open(make("b", SHARP, values=range(1, 10_001)))
    started = time.process_time()
    found = record_differences(a, b)
    assert time.process_time() - started < 10
    assert len(found) < 20
    assert "10,000 of 10,000 differ" in "".join(one.text for one in found)


def test_only_hashes_and_sizes_of_models_count() -> None:
    old = [{"folder": "vae", "name": "x", "size": 1, "modified": 1.0, "sha256": "a"}, {"folder": "vae", "name": "y"}]
    new = [{"folder": "vae", "name": "x", "size": 1, "modified": 2.0}, {"folder": "loras", "name": "y"}]
    assert model_differences(old, new) == ["loras/y is only in the second", "vae/y is only in the first"]


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("command", [["replay"], ["diff"], ["report"]])
def test_no_such_run_is_status_3(make: Callable[..., Path], tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    more = [make("a")] if command == ["diff"] else []
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    assert run(*command, missing, *more, status=3).startswith(
        f"discomfort: There is no folder {missing}. A run's folder"
    )
    assert run(*command, *more, empty, status=3).startswith(
        f"discomfort: There is no run in {empty}. A run's folder is"
    )


@pytest.mark.parametrize("command", [["replay"], ["diff"], ["report"]])
def test_what_is_no_manifest_is_status_1(make: Callable[..., Path], command: list[str]) -> None:
    folder = make("a")
    words = [*command, folder, *([folder] if command == ["diff"] else [])]
    (folder / "manifest.json").write_text('{"schema": "discomfort.run", "version": 99}')
    assert "newer version of Discomfort" in run(*words, status=1)
    (folder / "manifest.json").write_text("{")
    assert "cannot be read" in run(*words, status=1)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_a_folder_that_others_can_write_to_is_refused(make: Callable[..., Path]) -> None:
    folder = make("a")
    folder.chmod(0o777)
    assert f"chmod 700 {folder}" in run("report", folder, status=1)


def test_a_replay_that_cannot_be_starts_no_server(make: Callable[..., Path], tmp_path: Path) -> None:
    """Where one was started, there would be no configuration for it."""
    folder = make("a")
    options = ["--config", tmp_path / "none.json"]
    assert "no finished step of iteration 7; it has those from 0 to 2" in run(
        "replay", folder, "--iteration", 7, *options, status=3
    )
    (tmp_path / "x.txt").write_text("x")
    text = run("replay", folder, "--input", f"x={tmp_path / 'x.txt'}", *options, status=1)
    assert "nothing that is run again takes 'x'; there is 'image'" in text
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"] = {"image": {"digest": "xxh3:1", "object": 5}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    text = run("replay", folder, *options, status=1)
    assert "'image', which iteration 0 reads: its object is not there (any more)" in text
    assert "--input NAME=FILE" in text


def test_inputs_and_secrets_are_checked(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make("a")
    (tmp_path / "wrong.json").write_text("{")
    (tmp_path / "wrong.png").write_text("no picture")
    for option, text, status in (
        ("image", "'image' is not NAME=FILE", 2),
        (f"image={tmp_path / 'none.png'}", "there is no file", 1),
        (f"image={tmp_path / 'wrong.json'}", "is not JSON", 1),
        (f"image={tmp_path / 'wrong.png'}", "and no picture", 1),
    ):
        result = CliRunner().invoke(commands, ["replay", str(folder), "--input", option])
        assert (result.exit_code, text in result.stderr) == (status, True), result.output
    assert "no environment variable NOT_SET" in run("replay", folder, "--secret", "2.key=NOT_SET", status=1)
    assert CliRunner().invoke(commands, ["replay", str(folder), "--secret", "key"]).exit_code == 2


# -------------------------------------------------------------------------------------------------------------- report


def test_the_report_is_written_into_the_run_or_elsewhere(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make("a")
    assert run("report", folder) == f"{folder / 'report.html'}\n"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert not list(folder.glob("*.tmp"))
    other = tmp_path / "page.html"
    assert run("report", folder, "--output", other) == f"{other}\n"
    assert other.read_text(encoding="utf-8").count("<html") == 1
    assert "cannot be written" in run("report", folder, "--output", tmp_path / "no" / "such" / "x.html", status=1)


# ---------------------------------------------------------------------------------------------------------- a real run

SCRIPT = """
import asyncio, sys
from discomfort import Discomfort, PerIteration

async def main():
    async with await Discomfort.create(sys.argv[2]) as d:
        await d.run([WORKFLOW], {"image": PerIteration([d.Tools.open_image_as_tensor(p) for p in sys.argv[3:]])},
                    2, checkpoint=sys.argv[1], progress=False)

asyncio.run(main())
"""
INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("inverted", ["2", 0])}


def test_a_run_is_made_and_replayed_in_other_processes(
    tmp_path: Path, embedded_config: Path, write_config: Callable[..., Path]
) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (40 * number, 10, 10)).save(pictures / f"{number}.png")
    folder = tmp_path / "run"

    def python(*words: Any, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    script = textwrap.dedent(SCRIPT).replace("WORKFLOW", repr(INVERT))
    python("-c", script, folder, embedded_config, *sorted(pictures.iterdir()))
    replay = ["-m", "discomfort", "replay", folder, "--config", embedded_config]
    refused = python(*replay, status=1)
    assert "'image', which iteration 0 and 1 more reads: an item of the sequence" in refused.stderr
    assert refused.stdout == ""
    done = python(*replay, "--input", f"image={pictures}")
    assert done.stdout == "identical: 2 steps, 2 values\n"
    assert done.stderr == ""
    done = python(*replay, "--input", f"image={pictures / '0.png'}", "--json", status=4)
    result = json.loads(done.stdout)
    assert (result["is_identical"], result["steps"], result["identical"]) == (False, 2, 1)
    assert result["differences"][0]["path"] == [1]
    assert result["differences"][0]["read_changed"] == ["image"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["discomfort"] == __version__
