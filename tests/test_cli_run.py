"""``discomfort run``: what its options mean, what it prints and writes, and how it ends.

What needs no server is tried on the functions behind it; the rest in this process, on one warm server, but for Ctrl-C
and pipes, where the process matters.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from discomfort.cli import commands, input_values, main
from discomfort.cli.input_values import FileValues, read_file, read_inputs, read_text
from discomfort.cli.output_files import OutputFolder
from discomfort.cli.run import _as_json, _Job, _line
from discomfort.cli.running import SEED_POLICIES, Common, Plan, again, loop_condition, read_plan, say_what_starts
from discomfort.control_flow import Branch, Condition, Loop
from discomfort.run_record import RunRecord, RunResult
from discomfort.workflow_context import list_contexts
from pack_server import warm_config
from PIL import Image
from prompt_parts import executions, node, port

from discomfort import PerIteration, seeds

INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}


def mix(log: str = "") -> dict[str, Any]:
    """state -> state * 3 + by."""
    mixed = node("RunTestMix", state=["1", 0], by=["2", 0], seed=0, log=log)
    return {"1": port("state"), "2": port("by"), "3": mixed, "4": port("state", ["3", 0])}


def refuse(log: str, refused: int) -> dict[str, Any]:
    checked = node("RunTestRefuse", number=["1", 0], refused=refused, log=log)
    return {"1": port("n"), "2": checked, "3": port("seen", ["2", 0])}


def slow(log: str, seconds: float) -> dict[str, Any]:
    waited = node("RunTestSlow", number=["1", 0], seconds=seconds, log=log)
    return {"1": port("n"), "2": waited, "3": port("n", ["2", 0])}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with three pictures and a workflow that turns them round."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in (1, 2, 10):
        Image.new("RGB", (8, 6), (number, 10, 20)).save(f"photos/p{number}.png")
    write("invert.json", INVERT)
    return tmp_path


def write(name: str, content: Any) -> str:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return name


def run(*words: Any, status: int = 0, stdin: str | None = None) -> Any:
    """A click Result of `discomfort run`, with stdout and stderr."""
    result = CliRunner().invoke(commands, ["run", *map(str, words)], input=stdin)
    assert isinstance(result.exception, (SystemExit, type(None))), result.exc_info
    assert result.exit_code == status, result.output
    return result


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", "INT", 3), ("-7", "INT", -7), ("18446744073709551615", "INT", 2**64 - 1),
        ("3", "FLOAT", 3.0), (" 1e-3 ", "FLOAT", 0.001), ("yes", "BOOLEAN", True), ("0", "BOOLEAN", False),
        ("FALSE", "BOOLEAN", False), ("3", "STRING", "3"), ("true", "STRING", "true"), ("", "STRING", ""),
        ("a=b", "STRING", "a=b"), ("[1, 2]", "STRING", "[1, 2]"), ("euler", "COMBO", "euler"), ("7", "COMBO", "7"),
        ("3", "INT,FLOAT", 3), ("0.5", "INT,FLOAT", 0.5), ("3", "*", 3), ("x y", "*", "x y"), ("NaN", "*", "NaN"),
        ('"3"', "*", "3"), ("", "*", ""), ('{"a": [1]}', "MY_TYPE", {"a": [1]}), ("[" * 100_000, "*", "[" * 100_000),
    ],
)  # fmt: skip
def test_a_text_is_read_by_the_ports_type(text: str, kind: str, value: Any) -> None:
    found = read_text(text, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("n=3.5", "'n' takes INT (a whole number), and '3.5' is none"), ("n=", "and '' is none"),
        ("f=high", "'f' takes FLOAT, and 'high' is none"), ("f=inf", "'inf' is none"), ("f=[0.1, 0.2]", "is none"),
        ("b=maybe", "'b' takes BOOLEAN (true or false), and 'maybe' is none"),
        ("image=cat.png", "takes IMAGE, and no text ('cat.png'). What is in a file is given by -i image=@picture.png"),
        ("imge=@cat.png", "there is no INPUT port 'imge'. There are: 'a=b', 'api_key', 'b', 'f', 'image', 'my port'"),
        ("imge=@cat.png", "Did you mean 'image'?"), ("image", "'image' is not NAME=VALUE"), ("=3", "is not NAME=VALUE"),
        ("image=@", "names no file"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_option_port_type_and_value(option: str, says: str) -> None:
    kinds = {"n": "INT", "f": "FLOAT", "b": "BOOLEAN", "image": "IMAGE", "my port": "*", "a=b": "*", "api_key": "INT"}
    with pytest.raises(click.BadParameter) as caught:
        read_inputs([option], kinds)
    assert says in caught.value.message
    assert caught.value.param_hint == "'-i'"


def test_what_a_secret_is_stays_untold() -> None:
    with pytest.raises(click.BadParameter, match=r"takes INT .a whole number., and a secret is none"):
        read_inputs(["api_key=hunter2"], {"api_key": "INT"})


def test_names_may_be_unusual_and_values_too(here: Path) -> None:
    kinds = {"my port": "STRING", "a": "STRING", "a=b": "STRING", "größe": "INT", "t": "STRING", "u": "*"}
    found = read_inputs(["my port=x=y", "a=b=c", "größe=3", "t=@@home", "u=@@@x"], kinds)
    assert found == {"my port": "x=y", "a=b": "c", "größe": 3, "t": "@home", "u": "@@x"}
    write("ü.txt", "\ufeffzwei\nZeilen\n")
    write("n.txt", "42\n")
    write("d.json", {"a": 1})
    assert read_inputs(["t=@ü.txt", "u=@n.txt"], kinds) == {"t": "zwei\nZeilen\n", "u": "42\n"}
    assert read_inputs(["größe=@n.txt", "u=@d.json", "t=@d.json"], kinds) == {
        "größe": 42, "u": {"a": 1}, "t": '{"a": 1}',
    }  # fmt: skip
    assert read_inputs(["f=@n.json"], {"f": "FLOAT"}) if Path(write("n.json", "3")) else None
    assert read_inputs(["f=@n.json"], {"f": "FLOAT"})["f"] == 3.0


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("none.png", None, "IMAGE", "there is no file none.png"), ("x.png", "no picture", "IMAGE", "is no picture"),
        ("x.png", "no picture", "*", "neither .json nor .txt, and no picture"), ("x.json", "{", "*", "is not JSON"),
        ("x.json", "NaN", "*", "is not JSON"), ("x.json", "[1]", "INT", "the port takes INT, and '[1]' is none (in x"),
        ("x.json", '{"a": 1}', "IMAGE", "the port takes IMAGE, and"), ("x.txt", "abc", "INT", "'abc' is none (in x.t"),
        ("x.wav", "RIFF", "AUDIO", "x.wav is no .json. The port takes AUDIO"), ("x.png", "x", "LATENT", "no .latent"),
        ("x.latent", "x", "LATENT", "not in safetensors format"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told(here: Path, name: str, content: str | None, kind: str, says: str) -> None:
    if content is not None:
        write(name, content)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        read_inputs([f"port=@{name}"], {"port": kind})
    assert str(caught.value).startswith("-i port: ")


def test_no_utf8_is_no_text(here: Path) -> None:
    Path("x.txt").write_bytes(b"gr\xfc\xdfe")
    with pytest.raises(ValueError, match=r"-i t: x.txt is no text in UTF-8 \(byte 2\)"):
        read_inputs(["t=@x.txt"], {"t": "STRING"})


def test_a_mask_is_the_inverse_of_alpha_or_else_brightness(here: Path) -> None:
    """The first as ComfyUI's LoadImage gives it: the embedded node is asked."""
    from discomfort.embedded.core_nodes.image_io import _mask_of

    picture = Image.new("RGBA", (4, 3), (255, 255, 255, 255))
    picture.putpixel((1, 2), (0, 0, 0, 51))
    picture.save("alpha.png")
    mask = read_file(Path("alpha.png"), "MASK")
    assert mask.shape == (1, 3, 4)
    assert mask.dtype == torch.float32
    assert torch.equal(mask[0], _mask_of(picture))
    assert mask[0, 2, 1] == pytest.approx(0.8)
    grey = Image.new("L", (4, 3), 51)
    grey.save("grey.png")
    assert torch.equal(read_file(Path("grey.png"), "MASK"), torch.full((1, 3, 4), 51 / 255))
    Image.new("RGB", (4, 3), (255, 0, 0)).save("red.png")
    assert read_file(Path("red.png"), "MASK")[0, 0, 0] == pytest.approx(0.299)
    palette = Image.new("P", (4, 3), 0)
    palette.info["transparency"] = 0
    palette.save("palette.png", transparency=0)
    assert torch.equal(read_file(Path("palette.png"), "MASK"), torch.ones(1, 3, 4))
    # An IMAGE has no alpha, and its colours are those of the file.
    assert read_file(Path("alpha.png"), "IMAGE").shape == (1, 3, 4, 3)


def test_a_folder_and_one_name_several_times_are_a_value_for_each_iteration(here: Path) -> None:
    write("photos/notes.txt", "no picture")
    write("photos/._p3.png", "of another system")
    found = read_inputs(["image=@photos", "f=0.1", "f=0.2"], {"image": "IMAGE", "f": "FLOAT"})
    assert isinstance(found["image"], PerIteration)
    assert found["image"].length == 3
    reds = [round(float(found["image"].source[n][0, 0, 0, 0]) * 255) for n in range(3)]
    assert reds == [1, 2, 10]
    assert found["f"].source == [0.1, 0.2]
    mixed = read_inputs(["u=1", "u=@photos/p2.png", "u=@photos"], {"u": "*"})["u"]
    assert mixed.length == 5
    assert mixed.source[0] == 1
    assert mixed.source[1].shape == (1, 6, 8, 3)
    # Opened when its turn comes, and not before.
    os.unlink("photos/p2.png")
    with pytest.raises(ValueError, match="there is no file"):
        mixed.source[1]
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="the folder empty has no file for IMAGE"):
        read_inputs(["image=@empty"], {"image": "IMAGE"})
    with pytest.raises(IndexError, match="no file for iteration 1"):
        FileValues({0: 1, 2: 3})[1]


def test_a_latent_survives_the_way_to_a_file_and_back(here: Path) -> None:
    samples = torch.randn(1, 4, 5, 6)
    (file,) = OutputFolder(Path("out")).write("latent", {"samples": samples})
    assert file == Path("out/latent.latent")
    assert torch.equal(read_inputs([f"x=@{file}"], {"x": "LATENT"})["x"]["samples"], samples)


# --------------------------------------------------------------------------------------------------------------- plan


def test_workflows_and_steps_are_told_apart_by_what_is_in_them(here: Path) -> None:
    Path("sub").mkdir()
    write("sub/invert.json", INVERT)
    loop = {"loop": {"body": ["invert.json"], "iterations": 2}}
    branch = ["branch", "score > threshold", ["invert.json"], []]
    for content in ([loop, branch], loop):
        plan = read_plan([write("sub/steps.txt", content), "invert.json"])
        assert isinstance(plan.steps[0], Loop)
        assert plan.steps[0].body == (Path("sub/invert.json"),)
        assert plan.steps[-1] == "invert.json"
    plan = read_plan([write("sub/steps.txt", [loop, branch])])
    assert isinstance(plan.steps[1], Branch)
    # What only a condition reads may be given, too.
    assert plan.kinds == {"image": "*", "score": "*", "threshold": "*"}
    assert plan.outputs == {"image": "*"}
    refine = Path(input_values.__file__).parents[1] / "examples/workflows/refine.json"
    plan = read_plan([str(refine)])
    assert (plan.kinds, plan.outputs, plan.prompts) == ({"image": "IMAGE", "amount": "FLOAT"}, {"image": "IMAGE"}, [])


def test_a_workflow_that_is_missing_is_status_3_and_one_that_is_none_status_1(here: Path) -> None:
    assert "There is no workflow file 'nope.json'" in run("nope.json", status=3).stderr
    # One that is not asked for by name is an error in a file.
    assert "nope.json" in run(write("steps.json", ["nope.json"]), status=1).stderr
    for content, says in (("{", "not JSON"), ("{}", "empty object"), ('"x"', "JSON string"), ("", "is empty")):
        assert says in run(write("bad.json", content), status=1).stderr
    assert "is a folder" in run("photos", status=1).stderr
    assert "carries no workflow" in run("photos/p1.png", status=1).stderr
    assert "Missing argument 'WORKFLOW...'" in run(status=2).stderr
    assert "Standard input is not JSON" in run("-", status=1, stdin="{").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-i image=@photos --until image", "--until alone may never end the loop: say with -n N"),
        ("-i image=@photos/p1.png --while image", "--while alone may never end"),
        ("--until image --while image -n 3", "two ways to say the same"),
        ("-n 0", "0 is not in the range x>=1"), ("", "The INPUT port 'image' (*) has no value: -i image=VALUE"),
        ("-i image=@photos -n 4", "'image' has 3 values, which is not enough for 4 iterations"),
        ("-i image=@photos -i image=1 -i by=1 -i by=2", "no INPUT port 'by'"),
        ("-i image=1 -n 2 --until 'image >'", "is no expression"), ("-i image=1 -n 2 --until 'image.x > 1'", "may not"),
        ("-i image=1 -n 2 --until 'scroe > 1'", "it reads 'scroe', which no OUTPUT port delivers and no -i gives"),
        ("-i image=1 --collect imgae", "no OUTPUT port 'imgae'. There are: 'image'. Did you mean 'image'?"),
        ("-i image=1 --keep-all", "needs --checkpoint"), ("-i image=1 --fresh", "--fresh is about a run that was kept"),
        ("-i image=1 --fresh --resume --checkpoint x", "contradict"), ("-i image=1 -q -v", "contradict"),
        ("-i image=1 -o invert.json", "is a file"), ("-i image=1 --seed-policy none", "is not one of"),
        ("-i image=1 --retry 0", "not in the range"), ("-i image=1 --max-vram-gb 0", "not in the range"),
    ],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense_is_status_2(here: Path, words: str, says: str) -> None:
    words = words.replace("-i image=@photos --until", "-i image=@photos/p1.png --until")
    assert says in run("invert.json", *shlex.split(words), status=2).stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "The INPUT port 'image' (*) has no value: -i image=VALUE"),
        (
            "-i imgae=1",
            "Invalid value for '-i': there is no INPUT port 'imgae'. There are: 'image'. Did you mean 'image'?",
        ),
        ("-i image=@photos -n 4", "'image' has 3 values, which is not enough for 4 iterations (-n)."),
    ],
)
def test_what_is_wrong_with_values_is_a_sentence_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, sentence: str
) -> None:
    """How the command is written would be in the way: only of a line that is not understood is it told."""
    assert run("invert.json", *shlex.split(words), status=2).stderr == f"discomfort: {sentence}\n"
    assert "Usage: " in run("invert.json", "--iteratoins", 3, status=2).stderr
    monkeypatch.setattr(sys, "argv", ["discomfort", "run", "invert.json", *shlex.split(words), "--json"])
    assert main() == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert (told["message"], told["status"]) == (sentence, 2)
    assert told["type"] in ("UsageError", "BadParameter")


def test_standard_input_is_read_by_one(here: Path) -> None:
    write("two.json", {"1": port("a"), "2": port("b"), "3": port("c", ["1", 0])})
    for words, says in (
        (["two.json", "-i", "a=@-", "-i", "b=@-"], "-i a and -i b both want it"),
        (["-", "-i", "image=@-"], "WORKFLOW and -i image both want it"),
    ):
        assert says in run(*words, status=2, stdin=json.dumps(INVERT)).stderr


def test_a_command_line_to_go_on_with_tells_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "w.json", "-i", "api_key=hunter2", "-i", "hf_token=@key.txt", "--fresh", "-i", "text=a b"]
    monkeypatch.setattr(sys, "argv", ["discomfort", *words])
    with click.Context(commands, info_name="discomfort") as root, click.Context(commands, root, "run") as context:
        context.command = click.Command("run")
        assert again() == "discomfort run w.json -i api_key=... -i hf_token=@key.txt -i 'text=a b'"


def test_a_file_that_is_no_value_is_status_1(here: Path) -> None:
    assert "-i image: there is no file no.png" in run("invert.json", "-i", "image=@no.png", status=1).stderr


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="who may write anywhere is not refused")
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(here: Path) -> None:
    Path("closed").mkdir(mode=0o500)
    assert "Nothing can be written into closed" in run("invert.json", "-i", "image=1", "-o", "closed", status=1).stderr


def test_an_output_folder_below_a_file_is_refused_before_anything_runs(here: Path) -> None:
    text = run("invert.json", "-i", "image=1", "-o", "invert.json/x", "--config", "none.json", status=1).stderr
    assert "Nothing can be written into invert.json/x" in text


def test_which_server_is_started_is_told_unless_one_is_there(
    here: Path, config: Path, embedded_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = dict.fromkeys(field.name for field in dataclasses.fields(Common))
    for path, quiet, says in (
        (embedded_config, False, "Starting Discomfort's embedded server (COMFYUI_PATH"), (embedded_config, True, ""),
        (config, False, ""),
    ):  # fmt: skip
        say_what_starts(Common(**{**common, "config_path": path, "quiet": quiet}))  # type: ignore[arg-type]
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(says)
        assert bool(told.err) == bool(says)


def test_errors_are_json_where_data_is_asked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, status, kind in (
        (["nope.json"], 3, "FileNotFoundError"),
        (["invert.json"], 2, "UsageError"),
        (["invert.json", "-i", "image=@no.png"], 1, "ValueError"),
    ):
        monkeypatch.setattr(sys, "argv", ["discomfort", "run", "--json", *words])
        assert main() == status
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["status"], error["type"]) == (status, kind)


async def test_until_is_asked_behind_an_iteration() -> None:
    plan = Plan([], {"image": "*"}, {"score": "FLOAT", "my port": "*", "mask": "MASK"})

    async def ends(text: str, iteration: int, **values: Any) -> bool:
        condition = Condition.parse(loop_condition(plan, text, None, ["goal"]) or "")
        return not await condition.holds({name.replace("_", " "): one for name, one in values.items()}, iteration)

    assert not await ends("score > 0.9", 0, score=1.0)
    assert await ends("score > 0.9", 1, score=1.0)
    assert not await ends("score > goal", 1, score=0.5, goal=0.5)
    assert await ends("iteration >= 3 or score > 1", 3, score=0)
    assert not await ends("iteration >= 3", 2)
    for value, is_true in ((1, True), (0, False), ("", False), ("x", True), (None, False), (torch.zeros(2, 2), False)):
        assert await ends("score", 1, score=value) == is_true
        assert await ends("my port", 1, my_port=value) == is_true
    assert await ends("mask", 1, mask=torch.eye(3)[None])
    assert await ends("mask", 1, mask={"samples": torch.ones(1, 4, 2, 2)})


def test_while_is_the_condition_itself() -> None:
    assert loop_condition(Plan([], {}, {"score": "*"}), None, "score < 1") == "score < 1"
    assert loop_condition(Plan([]), None, None) is None


def test_names_of_ports_are_completed(here: Path) -> None:
    write("sets.json", {**INVERT, "4": port("In\tvert"), "5": node("ImageInvert", image=["4", 0])})

    def complete(*words: str, incomplete: str = "") -> list[str]:
        shell = ShellComplete(commands, {}, "discomfort", "_DISCOMFORT_COMPLETE")
        return [item.value for item in shell.get_completions(["run", *words], incomplete)]

    assert complete("invert.json", "-i") == ["image="]
    assert complete("invert.json", "-n", "3", "--collect", incomplete="im") == ["image"]
    assert complete("invert.json", "-i", incomplete="x") == []
    assert complete("-i") == complete("nope.json", "-i") == complete("photos", "--collect") == []
    assert "image=" in complete("sets.json", "--input")


def test_the_table_of_seed_policies_is_that_of_seeds() -> None:
    assert seeds.POLICIES == SEED_POLICIES


def test_help_needs_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, discomfort.cli.run, discomfort.cli.batch\n"
        "print([m for m in ('torch', 'PIL', 'numpy', 'aiohttp', 'networkx') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


# --------------------------------------------------------------------------------------------------------------- files


def test_names_of_ports_cannot_lead_out_of_the_folder(here: Path) -> None:
    folder = OutputFolder(Path("out/deep"))
    names = ["../../evil", "/etc/passwd", "a b", "a_b", "A_B", "..", "", "x" * 300, "größe", "a\0b", "image.png"]
    files = [file for name in names for file in folder.write(name, name)]
    files += folder.write_iteration("../../evil", 3, 1.5)
    assert len({str(file).lower() for file in files}) == len(names) + 1
    assert all(Path("out/deep") in file.parents and ".." not in file.parts for file in files)
    assert [file.read_text() for file in files[:-1]] == names
    assert files[-1] == Path("out/deep/evil/iteration-00003.json")
    assert [str(file) for file in folder.write("a b", 1)] == ["out/deep/a_b.json"]


def test_each_value_has_its_file(here: Path) -> None:
    folder = OutputFolder(Path("out"))
    many = torch.rand(2, 4, 5, 3)
    assert [f.name for f in folder.write("image", many)] == ["image_00001.png", "image_00002.png"]
    assert [f.name for f in folder.write("mask", torch.rand(1, 4, 5))] == ["mask.png"]
    assert json.loads(folder.write("score", 0.5)[0].read_text()) == 0.5
    assert json.loads(folder.write("model", {"discomfort_recipe": 1})[0].read_text()) == {"discomfort_recipe": 1}
    for value in (float("nan"), torch.rand(3), {"samples": {1, 2}}, object()):
        assert folder.write("x", value) == []
    text = "zeile\r\n\ud800"
    assert folder.write("text", text)[0].read_bytes() == text.encode("utf-8", "surrogatepass")
    assert not [file for file in Path("out").iterdir() if file.name.startswith(".")]


def test_what_has_no_file_is_told_all_the_same(here: Path) -> None:
    options = Common(**{**dict.fromkeys(field.name for field in dataclasses.fields(Common)), "quiet": True})  # type: ignore[arg-type]
    job = _Job(options, Plan([]), {}, 1, (), OutputFolder(Path("out")), {}, {})
    result = RunResult(
        {"sigmas": torch.tensor([1.0, 0.0]), "nan": float("nan"), "none": []}, RunRecord("x"), {"none": []}
    )
    assert _line(job, result, "sigmas") == "tensor float32 [2]  min 0, max 1, mean 0.5 (there is no file format for it)"
    assert _line(job, result, "nan") == "nan (there is no file format for it)"
    assert _line(job, result, "none") == "0 values"
    content = _as_json(job, result)
    assert content["outputs"]["nan"] == {"type": "float", "value": "nan"}
    assert content["outputs"]["none"] == {"type": "collected", "iterations": [], "values": []}
    assert content["outputs"]["sigmas"]["shape"] == [2]
    json.dumps(content, allow_nan=False)


# -------------------------------------------------------------------------------------------------------------- server


@pytest.fixture(scope="module")
def config(write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a server that stays for all tests here."""
    with warm_config(write_config, tmp_path_factory.mktemp("packs")) as path:
        yield path


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "executions.txt")


def test_a_loop_until_it_is_good_kept_collected_and_written(here: Path, config: Path, log: str) -> None:
    command = [write("mix.json", mix(log)), "-i", "state=1", "-i", "by=0", "-n", 20, "--until", "state > 20"]
    command += ["--collect", "state", "--checkpoint", "tonight", "-o", "results", "--config", config]
    done = run(*command)
    assert done.stdout == "state: results/state/iteration-00000.json and 2 more\n"
    assert "3 iterations in" in done.stderr
    values = [json.loads(Path(f"results/state/iteration-0000{n}.json").read_text()) for n in range(3)]
    assert values == [3, 9, 27]
    assert len(executions(log)) == 3
    # The same again does nothing, and gives the same.
    content = json.loads(run(*command, "--json", "-q").stdout)
    assert executions(log) == []
    assert list(content) == ["outputs", "files", "record"]
    assert content["outputs"]["state"] == {
        "type": "collected", "iterations": [0, 1, 2], "values": [{"type": "int", "value": n} for n in (3, 9, 27)],
    }  # fmt: skip
    assert content["files"]["state"][2] == str(here / "results/state/iteration-00002.json")
    assert content["record"]["recalled_steps"] == 3
    assert set(content["record"]["costs"]) >= {"server", "checkpoint"}
    # Another one is refused in words of the command line, unless it is wanted.
    changed = ["by=9" if word == "by=0" else word for word in command]
    text = run(*changed, status=1).stderr
    assert "is another one than this command asks for:\n  - inputs['by']: was 0, is 9\n" in text
    assert "--resume-changed" in text
    assert "resume=" not in text
    done = run(*changed, "--fresh")
    assert "results/state also has 1 file of an earlier run, iteration-00002.json first" in done.stderr
    assert len(executions(log)) == 2
    assert list(Path("tonight/earlier").iterdir())


def test_values_are_printed_and_pictures_are_not(here: Path, config: Path) -> None:
    text = {"1": port("prompt"), "2": node("StringConcatenate", string_a=["1", 0], string_b="!", delimiter="")}
    text["3"] = port("my caption", ["2", 0])
    words = ["invert.json", write("text.json", text), "-i", "image=@photos/p1.png", "--config", config]
    # A prompt does not say that "3" is a text there, but the server does; what it is asked, it is asked once.
    done = run(*words, "-i", "prompt=3")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("image: tensor float32 [1, 6, 8, 3]  min 0.9")
    assert lines[1] == "my caption: 3!"
    assert "Pictures were not saved; -o DIR writes them into files." in done.stderr
    quiet = run(*words, "-i", "prompt=@-", "-q", stdin="two\nlines")
    assert quiet.stdout.splitlines()[1] == "my caption: two\\nlines!"
    assert quiet.stderr == ""
    many = run(*words, "-i", "prompt=a", "-i", "prompt=b", "--collect", "my caption", "-q").stdout
    assert many.splitlines()[1] == "my caption: 2 values: a!, b!"
    content = json.loads(run(*words, "-i", f"prompt={'x' * 500}", "--json").stdout)
    assert content["outputs"]["my caption"] == {"type": "str", "value": "x" * 500 + "!"}
    assert content["outputs"]["image"]["shape"] == [1, 6, 8, 3]
    told = run(*words, "-i", "prompt=x", "-v").stderr
    assert "iteration" in told
    assert len(told.splitlines()) > 3


def test_pictures_are_written_and_given_back(here: Path, config: Path) -> None:
    done = run("invert.json", "-i", "image=@photos", "--collect", "image", "-o", "out", "-q", "--config", config)
    assert done.stdout == "image: out/image/iteration-00000.png and 2 more\n"
    with Image.open("out/image/iteration-00002.png") as picture:
        assert picture.getpixel((0, 0)) == (245, 245, 235)  # of p10.png, the last one
    again = run("-", "-i", "image=@out/image/iteration-00002.png", "-o", "out", "-q", "--config", config,
                stdin=json.dumps(INVERT))  # fmt: skip
    assert again.stdout == "image: out/image.png\n"
    assert Path("out/image.png").read_bytes() != b""
    with Image.open("out/image.png") as picture:
        assert picture.getpixel((0, 0)) == (10, 10, 20)


def test_a_model_comes_by_reference_and_goes_back(here: Path, config: Path, log: str) -> None:
    write("load.json", {"1": node("RunTestLoadModel", name="m", log=log), "2": port("model", ["1", 0])})
    used = node("RunTestUseModel", model=["1", 0], image=["2", 0], log=log)
    uses = {"1": port("model"), "2": port("image"), "3": used}
    write("use.json", {**uses, "4": port("image", ["3", 0])})
    assert run("load.json", "-q", "--config", config).stdout == "model: MODEL, by reference\n"
    assert run("load.json", "-o", "out", "-q", "--config", config).stdout == "model: out/model.json\n"
    run("use.json", "-i", "model=@out/model.json", "-i", "image=@photos/p1.png", "-q", "--config", config)
    text = run("use.json", "-i", "model=m", "-i", "image=@photos/p1.png", "--config", config, status=2).stderr
    assert "the INPUT port 'model' takes MODEL, and no text ('m')" in text


def test_a_failed_iteration_ends_the_run_or_is_skipped(here: Path, config: Path, log: str) -> None:
    numbers = [word for n in range(4) for word in ("-i", f"n={n}")]
    command = [write("refuse.json", refuse(log, 2)), *numbers, "--collect", "seen", "-o", "out", "--config", config]
    stopped = run(*command, status=1)
    assert "2 is refused" in stopped.stderr
    assert "\n-v shows the server's traceback." in stopped.stderr
    assert "in _turn" not in stopped.stderr
    assert "in _turn" in run(*command, "-v", status=1).stderr
    assert stopped.stdout == ""
    # What was collected until then is not lost.
    assert "'seen' of the iterations before that: 2 files in out/seen" in stopped.stderr
    assert sorted(file.name for file in Path("out/seen").iterdir()) == ["iteration-00000.json", "iteration-00001.json"]
    skipped = run(*command, "--on-error", "skip", "-q", status=4)
    assert skipped.stdout == "seen: out/seen/iteration-00000.json and 2 more\n"
    assert "iteration 2 was skipped: " in skipped.stderr
    # Files have the numbers of their iterations.
    assert json.loads(Path("out/seen/iteration-00003.json").read_text()) == 3
    assert not Path("out/seen/iteration-00002.json").exists()
    content = json.loads(run(*command, "--on-error", "skip", "--json", status=4).stdout)
    assert content["outputs"]["seen"]["iterations"] == [0, 1, 3]
    assert content["record"]["skipped"][0]["iteration"] == 2


def test_all_problems_of_a_plan_are_listed(
    here: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("bad.json", {**INVERT, "7": node("NoSuchNode"), "8": port("x", ["7", 0])})
    write("worse.json", {"1": port("image"), "2": node("LatentFlip", samples=["1", 0]), "3": port("y", ["2", 0])})
    words = ["run", "invert.json", "bad.json", "worse.json", "-i", "image=@photos/p1.png", "--config", str(config)]
    monkeypatch.setattr(sys, "argv", ["discomfort", *words, "--json"])
    assert main() == 1
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["type"] == "PreflightError"
    assert len(error["problems"]) == captured.err.count("\n") - 1 == 2
    assert "NoSuchNode" in captured.err


def test_a_kept_run_that_is_stopped_by_ctrl_c_says_how_to_go_on(
    here: Path, config: Path, log: str, wait_for: Callable[..., Any]
) -> None:
    numbers = [word for n in range(4) for word in ("-i", f"n={n}")]
    words = [write("slow.json", slow(log, 0.5)), *numbers, "--checkpoint", "my run", "--config", config]
    command = [sys.executable, "-m", "discomfort", "run", *map(str, words), "--fresh"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: Path(log).exists(), 60, "the first step")
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), told
    assert "Traceback" not in told
    hint = told.rpartition("To go on: ")[2].strip()
    assert shlex.split(hint) == ["python", "-m", "discomfort", "run", *map(str, words)]
    executions(log)
    assert run(*words, "-q").stdout == "n: 3\n"
    assert "begin 0" not in Path(log).read_text()
    assert executions(log)[-2:] == ["begin 3", "end 3"]


def test_ctrl_c_without_a_folder_interrupts_and_leaves_nothing(
    here: Path, config: Path, log: str, wait_for: Callable[..., Any]
) -> None:
    words = [write("slow.json", slow(log, 60)), "-i", "n=7", "--json", "--config", config]
    command = [sys.executable, "-m", "discomfort", "run", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: Path(log).exists(), 60, "the step")
    assert [found for found in list_contexts() if found.owner_pid == process.pid]
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert told.startswith("discomfort: Stopped by Ctrl-C.")
    assert json.loads(out)["error"]["status"] == 130
    assert [found for found in list_contexts() if found.owner_pid == process.pid] == []


def test_nobody_reads_what_it_prints(here: Path, config: Path) -> None:
    """`discomfort run ... | head -0`: it ends in silence."""
    command = [sys.executable, "-m", "discomfort", "run", "invert.json", "-i", "image=@photos/p1.png", "-q"]
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen([*command, "--config", str(config)], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")
