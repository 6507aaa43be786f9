"""``discomfort demo``: the examples run, are listed and are copied, from wherever the package is."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from discomfort.cli import commands, demo

ROOT = Path(__file__).resolve().parent.parent


def run(*words: Any, status: int = 0) -> str:
    """What a command prints, where it should print it."""
    result = CliRunner().invoke(commands, ["demo", *map(str, words)], prog_name="discomfort")
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    return result.stderr if status in (1, 2, 3) else result.stdout


def start(folder: Path, *words: str, command: tuple[str, ...] = ("-m", "discomfort"), **environment: str) -> Any:
    """The demo in a process of its own, in a folder of its own, on the embedded server."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command, "demo", *words],
        cwd=folder,
        env={**os.environ, "COMFYUI_PATH": "embedded", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the examples."""
    folder = tmp_path / "examples"
    folder.mkdir()
    monkeypatch.setattr(demo, "EXAMPLES", folder)
    return folder


def script(folder: Path, name: str, body: str, doc: str = "Do something.") -> None:
    text = f'"""{doc}"""\n\nif __name__ == "__main__":\n    {body}\n'
    (folder / f"{name}.py").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------- list


def test_every_script_is_listed_with_its_first_line_and_modules_are_not() -> None:
    told = run("--list")
    found = json.loads(run("--list", "--json"))["examples"]
    names = [one["name"] for one in found]
    assert "refine" in names
    assert "pictures" not in names
    assert names == sorted(names)
    for one in found:
        assert one["name"] in told
        assert one["help"]
        assert Path(one["path"]).is_file()


def test_models_that_a_docstring_names_are_listed(own: Path) -> None:
    doc = "Draw a picture.\n\nIt is quick. Needs any SD 1.5\ncheckpoint in models/checkpoints. It needs no more."
    script(own, "draw", "pass", doc)
    script(own, "plain", "pass", "Do without.\n\nNo model is needed for this.")
    found = {one["name"]: one["needs"] for one in json.loads(run("--list", "--json"))["examples"]}
    assert found == {"draw": "Needs any SD 1.5 checkpoint in models/checkpoints.", "plain": ""}
    assert "Draw a picture. Needs any SD 1.5 checkpoint in models/checkpoints.\n" in run("--list")


def test_an_installation_without_examples_says_so(own: Path) -> None:
    for words in (["--list"], ["--copy", str(own / "x")], [], ["refine"]):
        assert f"not part of this installation (looked in {own})" in run(*words, status=3)


# ---------------------------------------------------------------------------------------------------------------- copy


def test_a_copy_is_complete_and_says_what_to_do_next(tmp_path: Path) -> None:
    told = run("--copy", tmp_path / "mine")
    files = {file.relative_to(tmp_path / "mine") for file in (tmp_path / "mine").rglob("*") if file.is_file()}
    examples = ROOT / "examples"
    expected = {file.relative_to(examples) for file in examples.rglob("*") if file.is_file()}
    assert files == {file for file in expected if "__pycache__" not in file.parts}
    assert Path("workflows/refine.json") in files
    for file in files:
        assert (tmp_path / "mine" / file).read_bytes() == (examples / file).read_bytes()
    assert told.startswith(f"{len(files)} files copied to {tmp_path / 'mine'}.")
    assert f"Next: cd {tmp_path / 'mine'}" in told
    # What is named there, is there; test_what_a_copy_is_told_to_do_next_works does it.
    assert re.findall(r"^ +python (\S+)$", told, re.MULTILINE) == ["zoom.py"]
    assert (tmp_path / "mine" / "zoom.py").is_file()


def test_what_a_copy_is_told_to_do_next_works(tmp_path: Path) -> None:
    """Where the package is installed with its embedded server and nothing more."""
    told = run("--copy", tmp_path / "mine")
    words = [shlex.split(line) for line in re.findall(r"^ +((?:python|discomfort) .+)$", told, re.MULTILINE)]
    assert [one[:2] for one in words] == [["python", "zoom.py"], ["discomfort", "run"]]
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')\n", encoding="utf-8")
    for one in words:
        command = [sys.executable, *(["-m", "discomfort"] if one[0] == "discomfort" else []), *one[1:]]
        done = subprocess.run(
            command,
            cwd=tmp_path / "mine",
            env={**os.environ, "COMFYUI_PATH": "embedded", "PYTHONPATH": str(stubs)},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "discomfort-results" / "zoom" / "zoom.webp").is_file()
    assert (tmp_path / "mine" / "results" / "image.png").is_file()


def test_a_second_copy_fills_in_what_is_missing(tmp_path: Path) -> None:
    first = json.loads(run("--copy", tmp_path, "--json"))
    assert first["folder"] == str(tmp_path)
    assert first["unchanged"] == []
    (tmp_path / "refine.py").unlink()
    second = json.loads(run("--copy", tmp_path, "--json"))
    assert second["copied"] == ["refine.py"]
    assert sorted([*second["unchanged"], "refine.py"]) == sorted(first["copied"])


def test_files_of_ones_own_are_named_and_nothing_is_copied(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "refine.json").write_text("mine", encoding="utf-8")
    (tmp_path / "refine.py").symlink_to("nowhere")
    told = run("--copy", tmp_path, status=1)
    assert "2 files of its own" in told
    assert "refine.py, workflows/refine.json" in told
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["refine.json", "refine.py", "workflows"]
    assert (tmp_path / "workflows" / "refine.json").read_text(encoding="utf-8") == "mine"


def test_a_folder_that_cannot_be_made_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be copied to" in run("--copy", tmp_path / "file" / "below", status=1)


# ----------------------------------------------------------------------------------------------------------------- run


def test_the_first_example_runs_in_the_current_folder(tmp_path: Path, nested: SimpleNamespace) -> None:
    process = start(tmp_path / "here")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    sheet = tmp_path / "here" / "discomfort-results" / "contact-sheet.png"
    assert sheet.is_file()
    assert str(sheet) in out
    assert not nested.processes()


@pytest.mark.parametrize("command", [("custom_nodes/my-pack",), ("-m", "custom_nodes.my_pack")], ids=["path", "module"])
def test_a_pack_of_any_name_runs_its_examples(tmp_path: Path, command: tuple[str, ...]) -> None:
    """There the package is not installed under the name that the scripts import."""
    (tmp_path / "custom_nodes").mkdir()
    for name in ("my-pack", "my_pack"):
        (tmp_path / "custom_nodes" / name).symlink_to(ROOT)
    process = start(tmp_path, "refine", command=command)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert (tmp_path / "discomfort-results" / "contact-sheet.png").is_file()


def test_ctrl_c_ends_it_with_a_word_and_status_130(
    tmp_path: Path, nested: SimpleNamespace, wait_for: Callable[..., Any]
) -> None:
    process = start(tmp_path)
    try:
        wait_for(lambda: any("embedded" in " ".join(p.cmdline()) for p in nested.processes()), 60, "the server")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.rstrip().endswith("discomfort: stopped.")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "matplotlib.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')\n", encoding="utf-8"
    )
    process = start(tmp_path / "here", PYTHONPATH=str(stubs))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("discomfort: The example refine needs the package matplotlib, which is not installed in ")
    assert err.rstrip().endswith('pip install "discomfort[demo]" installs what the examples use.')


def test_a_server_that_cannot_start_is_a_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, COMFYUI_PATH=str(tmp_path / "nowhere"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("discomfort: ")
    assert "nowhere" in err
    assert "Traceback" not in err


def test_a_script_gets_its_arguments_and_finds_what_is_beside_it(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own / "beside.py").write_text("WORD = 'beside'\n", encoding="utf-8")
    script(own, "tell", "import sys, beside, discomfort; print(beside.WORD, sys.argv[1:], discomfort.__version__)")
    before = list(sys.path), sys.argv
    told = run("tell.py", "one", "--two", "--json", "--help")
    assert told.startswith("beside ['one', '--two', '--json', '--help'] ")
    assert (list(sys.path), sys.argv) == before
    sys.modules.pop("beside")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('no checkpoint here')", 1, "discomfort: no checkpoint here\n"),
        ("open('/nowhere/at/all')", 1, "discomfort: The example bad failed: "),
        ("from discomfort.run_plan import PreflightError; raise PreflightError([])", 1, "The run was not started"),
        ("import nowhere_to_be_found", 1, "needs the package nowhere_to_be_found"),
    ],
)
def test_how_a_script_ends_is_how_the_command_ends(own: Path, body: str, status: int, said: str) -> None:
    script(own, "bad", body)
    result = CliRunner().invoke(commands, ["demo", "bad"], prog_name="discomfort")
    assert result.exit_code == status
    assert said in result.stderr


def test_a_mistake_in_a_script_shows_its_traceback(own: Path) -> None:
    script(own, "wrong", "{}['missing']")
    result = CliRunner().invoke(commands, ["demo", "wrong"])
    assert isinstance(result.exception, KeyError)


def test_an_unknown_name_is_status_3_and_the_known_ones_are_named() -> None:
    told = run("frobnicate", status=3)
    assert "no example 'frobnicate'" in told
    assert "refine" in told


@pytest.mark.parametrize(
    "words",
    [["--list", "--copy", "x"], ["--list", "refine"], ["--copy", "x", "refine"], ["--json"], ["--json", "refine"]],
)
def test_what_does_not_go_together_is_status_2(words: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert "go" in run(*words, status=2)
    assert not list(tmp_path.iterdir())
