"""``discomfort ports``, ``check``, ``convert`` and ``stitch``: what a person sees, and what a program gets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from discomfort.cli import commands

ROOT = Path(__file__).resolve().parent.parent
REFINE = ROOT / "examples" / "workflows" / "refine.json"
PARTS = [ROOT / "tests" / "workflows" / name for name in ("part_make.json", "part_use.json")]
IN_SUBGRAPH = ROOT / "tests" / "workflows" / "ports_only_in_subgraph.json"

# Two prompts that cannot run behind each other: the first delivers a mask as "image", the second wants a picture.
MASK = {
    "1": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image"}},
    "2": {"class_type": "ImageToMask", "inputs": {"image": ["1", 0], "channel": "red"}},
    "3": {"class_type": "DiscomfortPort", "inputs": {"unique_id": "image", "input_data": ["2", 0]}},
}


def run(*words: Any, status: int = 0, **options: Any) -> str:
    """What a command prints, where it should print it."""
    result = CliRunner().invoke(commands, list(map(str, words)), prog_name="discomfort", **options)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    if status in (1, 3):
        assert result.stdout == ""
        assert result.stderr.startswith("discomfort: ")
        assert result.stderr.count("\n") == 1  # one paragraph
        return result.stderr
    return result.stdout


def call(*words: Any, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a shell starts it: for those that start a server."""
    command = [sys.executable, "-m", "discomfort", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def changed(change: Any, source: Path = REFINE) -> dict[str, Any]:
    """A workflow of the repository, changed by a function of its nodes: {id: node}."""
    workflow: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    change({node["id"]: node for node in workflow["nodes"]})
    return workflow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


# --------------------------------------------------------------------------------------------------------------- ports


def test_ports_are_a_table_with_the_node_of_each_and_the_command_that_runs_them(folder: Path) -> None:
    write(folder / "refine.json", json.loads(REFINE.read_text(encoding="utf-8")))
    assert run("ports", "refine.json").splitlines() == [
        "MODE    NAME    TYPE   NODE",
        "INPUT   image   IMAGE  #1 'image in'",
        "INPUT   amount  FLOAT  #2 'amount in'",
        "OUTPUT  image   IMAGE  #4 'image out'",
        "",
        "To run it: discomfort run refine.json -i amount=VALUE -i image=@picture.png",
    ]


def test_ports_in_subgraphs_and_of_several_files() -> None:
    told = run("ports", *PARTS, IN_SUBGRAPH)
    assert [line for line in told.splitlines() if line.endswith(":")] == [f"{path}:" for path in (*PARTS, IN_SUBGRAPH)]
    assert "#1:40 in subgraph 'All inside'" in told


def test_tags_have_a_column_where_a_port_has_some(folder: Path) -> None:
    def tag(nodes: Any) -> None:
        nodes[1]["widgets_values"] = ["image", "photo, first"]

    told = run("ports", write(folder / "tagged.json", changed(tag)))
    assert told.splitlines()[0].split() == ["MODE", "NAME", "TYPE", "TAGS", "NODE"]
    assert "photo, first" in told


def test_ports_for_programs_say_which_file_they_are_of() -> None:
    found = json.loads(run("ports", "--json", REFINE, IN_SUBGRAPH))["ports"]
    assert [(port["workflow"], port["mode"], port["unique_id"]) for port in found] == [
        (str(REFINE), "INPUT", "image"),
        (str(REFINE), "INPUT", "amount"),
        (str(REFINE), "OUTPUT", "image"),
        (str(IN_SUBGRAPH), "INPUT", "image"),
        (str(IN_SUBGRAPH), "OUTPUT", "image"),
    ]
    assert found[0] == {
        "workflow": str(REFINE),
        "node_id": "1",
        "unique_id": "image",
        "mode": "INPUT",
        "type": "IMAGE",
        "input_type": "*",
        "output_type": "IMAGE",
        "tags": [],
        "node": "#1 'image in'",
    }


def test_ports_of_a_prompt(folder: Path) -> None:
    told = run("ports", write(folder / "mask.json", MASK))
    assert [line.split() for line in told.splitlines()[1:3]] == [
        ["INPUT", "image", "*", "#1"],
        ["OUTPUT", "image", "*", "#3"],
    ]
    assert "does not tell types" in told


def test_a_workflow_without_ports_says_how_to_add_one(folder: Path) -> None:
    file = write(folder / "plain.json", {"1": {"class_type": "EmptyImage", "inputs": {}}})
    told = run("ports", file)
    assert f"{file} has no ports." in told
    assert "Discomfort Port" in told
    assert json.loads(run("ports", file, "--json")) == {"ports": []}


def test_a_port_without_a_name_is_listed_all_the_same(folder: Path) -> None:
    def unname(nodes: Any) -> None:
        nodes[1]["widgets_values"] = ["", ""]

    told = run("ports", write(folder / "unnamed.json", changed(unname)))
    assert "(no name yet)" in told
    assert "To run it" not in told


def test_a_workflow_may_come_by_standard_input() -> None:
    told = run("ports", "-", input=REFINE.read_text(encoding="utf-8"))
    assert "#2 'amount in'" in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Standard input is not JSON"),
        ("[1]", "Standard input is JSON, but no workflow"),
        ("{}", "Standard input is an empty object"),
        ('{"a": 1}', "Standard input has no 'nodes' list"),
    ],
)
def test_what_standard_input_is_instead_is_said(content: str, said: str) -> None:
    assert said in run("ports", "-", input=content, status=1)


@pytest.mark.parametrize("name", ["ports", "check", "convert"])
def test_a_file_that_does_not_exist_is_status_3_and_the_likely_one_is_named(folder: Path, name: str) -> None:
    write(folder / "refine.json", MASK)
    assert "did you mean that one?" in run(name, "refine", status=3)


def test_hostile_names_cannot_change_the_terminal(folder: Path) -> None:
    def attack(nodes: Any) -> None:
        nodes[1]["widgets_values"] = ["a\x1b[2Jb\nc", ""]
        nodes[1]["title"] = "\x1b]0;owned\x07"

    file = write(folder / "hostile.json", changed(attack))
    for told in (run("ports", file), run("check", file)):
        assert "\x1b" not in told
        assert "\x07" not in told
    assert len(run("ports", file).splitlines()) == len(run("ports", REFINE).splitlines())


# --------------------------------------------------------------------------------------------------------------- check


def test_nothing_wrong_is_said_of_each_file() -> None:
    assert run("check", *PARTS) == "".join(f"{path}: nothing is wrong\n" for path in PARTS)


def test_problems_are_sentences_with_the_file_before_them_and_status_4(folder: Path) -> None:
    def break_it(nodes: Any) -> None:
        nodes[1]["widgets_values"] = ["", ""]
        nodes[3]["inputs"][0]["link"] = 777

    file = write(folder / "broken.json", changed(break_it))
    told = run("check", file, REFINE, status=4).splitlines()
    assert len(told) >= 3
    assert all(line.startswith(f"{file}: ") for line in told[:-1])
    assert any("names link 777, which does not exist" in line for line in told)
    assert any("has no unique_id" in line for line in told)
    assert told[-1] == f"{REFINE}: nothing is wrong"


def test_a_file_that_is_no_workflow_is_a_problem_like_any_other(folder: Path) -> None:
    (folder / "note.json").write_text("hello", encoding="utf-8")
    assert "is not JSON" in run("check", "note.json", status=4)


def test_problems_for_programs(folder: Path) -> None:
    broken = write(folder / "broken.json", {"2": {"class_type": "Blur", "inputs": {"image": ["9", 0]}}})
    told = json.loads(run("check", broken, REFINE, "--json", status=4))
    first, second = told["files"]
    assert first["workflow"] == str(broken)
    assert first["problems"] == ["Input 'image' of Blur #2 reads node 9, which does not exist."]
    assert second == {"workflow": str(REFINE), "problems": [], "notes": []}
    assert told["server"] is None


def test_a_configuration_without_a_server_is_a_misunderstanding() -> None:
    result = CliRunner().invoke(commands, ["check", str(REFINE), "--config", "x.json"])
    assert result.exit_code == 2
    assert "--config goes with --on-server" in result.stderr


def test_the_server_knows_nodes_notes_and_what_fits(folder: Path, embedded_config: Path) -> None:
    """All at once, as each start of a server takes seconds."""

    def rename(nodes: Any) -> None:
        nodes[3]["type"] = "NoSuchNode"

    def mute(nodes: Any) -> None:
        nodes[2]["mode"] = 2

    write(folder / "mask.json", MASK)
    write(folder / "refine.json", json.loads(REFINE.read_text(encoding="utf-8")))
    write(folder / "muted.json", changed(mute))
    write(folder / "unknown.json", changed(rename))
    files = ["refine.json", "mask.json", "refine.json", "muted.json", "unknown.json", "refine.json"]
    done = call("check", "--on-server", "--config", embedded_config, "--json", *files, cwd=folder, status=4)
    told = json.loads(done.stdout)
    assert "embedded server" in told["server"]["description"]
    assert told["server"]["problems"] == []
    first, mask, again, muted, unknown, last = told["files"]
    assert first["problems"] == mask["problems"] == []  # what no file delivers is given by the caller
    (mismatch,) = again["problems"]
    assert "INPUT port 'image'" in mismatch
    assert "MASK (from mask.json)" in mismatch
    assert {"muted"} <= {note["kind"] for note in muted["notes"]}
    assert {note["level"] for note in muted["notes"]} <= {"info", "warning"}
    (problem,) = unknown["problems"]
    assert "NoSuchNode #3" in problem
    assert last["problems"] == []  # nothing is known of what unknown.json would deliver
    # Notes are printed once, and not as warnings of the log besides.
    assert done.stderr == ""


# ------------------------------------------------------------------------------------------------------------- convert


def test_a_prompt_is_what_export_api_gives_and_can_be_used(folder: Path, embedded_config: Path) -> None:
    def mute(nodes: Any) -> None:
        nodes[2]["mode"] = 2

    muted = write(folder / "muted.json", changed(mute))
    printed = call("convert", "--config", embedded_config, muted, cwd=folder)
    prompt = json.loads(printed.stdout)
    assert {node["class_type"] for node in prompt.values()} == {"DiscomfortPort", "ImageSharpen"}
    assert "2" not in prompt
    assert "note: " in printed.stderr
    assert "muted" in printed.stderr
    written = call("convert", "--config", embedded_config, muted, "-o", "prompt.json", "--json", cwd=folder)
    told = json.loads(written.stdout)
    assert told["prompt"] == prompt == json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
    assert told["file"] == str(folder / "prompt.json")
    assert "muted" in {note["kind"] for note in told["notes"]}
    assert "#1 'image in'" in run("ports", "prompt.json")


def test_a_prompt_is_not_converted_again(folder: Path) -> None:
    write(folder / "mask.json", MASK)
    assert "mask.json is a prompt in API format already" in run("convert", "mask.json", status=1)
    assert "standard input is a prompt" in run("convert", "-", input=json.dumps(MASK), status=1)


# -------------------------------------------------------------------------------------------------------------- stitch


def test_workflows_become_one_whose_ports_are_listed(folder: Path) -> None:
    told = run("stitch", *PARTS, "-o", "whole.json")
    assert told.startswith("whole.json: ")
    assert "from 2 workflows" in told
    listed = told.split("\n\n", 1)[1]
    assert listed == run("ports", "whole.json")
    assert run("check", "whole.json") == "whole.json: nothing is wrong\n"
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE((folder / "whole.json").stat().st_mode) == 0o666 & ~umask
    assert [file.name for file in folder.iterdir()] == ["whole.json"]


def test_joined_ports_stay_only_where_that_is_asked_for(folder: Path) -> None:
    run("stitch", *PARTS, "-o", "without.json")
    run("stitch", *PARTS, "-o", "with.json", "--keep-ports")
    modes = [
        {port["mode"] for port in json.loads(run("ports", "--json", name))["ports"]}
        for name in ("without.json", "with.json")
    ]
    assert modes[0] == modes[1] - {"PASSTHRU"}
    assert "PASSTHRU" in modes[1]


def test_the_result_for_programs(folder: Path) -> None:
    told = json.loads(run("stitch", *PARTS, "-o", "whole.json", "--json"))
    assert told["file"] == str(folder / "whole.json")
    assert {port["mode"] for port in told["ports"]} == {"INPUT", "OUTPUT"}


def test_a_file_is_replaced_only_with_force_and_an_input_never(folder: Path) -> None:
    write(folder / "mine.json", {"keep": "me"})
    assert "mine.json exists. Replace it with --force" in run("stitch", *PARTS, "-o", "mine.json", status=1)
    assert json.loads((folder / "mine.json").read_text(encoding="utf-8")) == {"keep": "me"}
    (folder / "mine.json").chmod(0o600)
    run("stitch", *PARTS, "-o", "mine.json", "--force")
    assert "nodes" in json.loads((folder / "mine.json").read_text(encoding="utf-8"))
    assert stat.S_IMODE((folder / "mine.json").stat().st_mode) == 0o600
    before = (folder / "mine.json").read_bytes()
    (folder / "same.json").symlink_to("mine.json")
    for name in ("mine.json", "same.json"):
        told = run("stitch", PARTS[0], "mine.json", "-o", name, "--force", status=1)
        assert "is one of the files to read" in told
    assert (folder / "mine.json").read_bytes() == before


def test_a_folder_that_does_not_exist_is_named(folder: Path) -> None:
    assert "There is no folder" in run("stitch", *PARTS, "-o", "nowhere/whole.json", status=1)


def test_what_cannot_be_joined_is_said_and_nothing_is_written(folder: Path) -> None:
    write(folder / "mask.json", MASK)
    told = run("stitch", REFINE, "mask.json", "-o", "whole.json", status=1)
    assert "API format" in told

    def tie(nodes: Any) -> None:
        nodes[4]["type"] = nodes[3]["type"]  # no port any more: its output feeds the sharpening, which feeds it

    loop = changed(tie)
    link = max(entry[0] for entry in loop["links"]) + 1
    sharpen = next(node for node in loop["nodes"] if node["id"] == 3)
    sharpen["inputs"][0]["link"] = link
    loop["links"] = [entry for entry in loop["links"] if entry[3:5] != [3, 0]] + [[link, 4, 0, 3, 0, "IMAGE"]]
    write(folder / "cycle.json", loop)
    told = run("stitch", "cycle.json", REFINE, "-o", "whole.json", status=1)
    assert "cycle" in told
    assert not (folder / "whole.json").exists()


def test_a_stop_while_writing_leaves_the_old_file_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "whole.json", {"old": True})

    def stop(self: Path, target: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    result = CliRunner().invoke(commands, ["stitch", *map(str, PARTS), "-o", "whole.json", "--force"])
    assert result.exit_code != 0
    assert [file.name for file in folder.iterdir()] == ["whole.json"]
    assert json.loads((folder / "whole.json").read_text(encoding="utf-8")) == {"old": True}
