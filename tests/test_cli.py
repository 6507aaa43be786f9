"""The command line is there under every name by which the package can be called."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from discomfort.cli import COMMANDS, commands

import discomfort

CLONE = Path(discomfort.__file__).resolve().parent


def run(command: list[str], cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(extra)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A ComfyUI folder with the pack under a name of the user's choice."""
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "my-discomfort").symlink_to(CLONE)
    (tmp_path / "custom_nodes" / "my_discomfort").symlink_to(CLONE)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["-m", "discomfort"], "python -m discomfort"),
        (["custom_nodes/my-discomfort"], "python custom_nodes/my-discomfort"),
        (["-m", "custom_nodes.my_discomfort"], "python -m custom_nodes.my_discomfort"),
    ],
)
def test_usage_names_the_way_it_was_called(tree: Path, command: list[str], called: str) -> None:
    done = run([*command, "--help"], tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {called} [OPTIONS] COMMAND")
    assert "server" in done.stdout
    assert run([*command, "--version"], tree).stdout == f"discomfort, version {discomfort.__version__}\n"


def test_in_a_clone_too(tmp_path: Path) -> None:
    """There Python finds the front door, discomfort.py, before the package."""
    done = run(["-m", "discomfort", "server", "status"], CLONE)
    assert (done.returncode, done.stdout) == (3, "No warm server runs.\n"), done.stderr


def test_unknown_command_is_status_2_with_usage(tmp_path: Path) -> None:
    done = run(["-m", "discomfort", "frobnicate"], tmp_path)
    assert done.returncode == 2
    assert "No such command 'frobnicate'" in done.stderr


def test_it_needs_neither_torch_nor_a_browser(tmp_path: Path) -> None:
    """What is asked of a machine in trouble must not need what may be the trouble."""
    code = (
        "import sys\n"
        "sys.argv = ['discomfort', 'server', 'status']\n"
        "from discomfort.cli import main\n"
        "print(main(), [name for name in ('torch', 'playwright', 'numpy') if name in sys.modules])\n"
    )
    assert run(["-c", code], tmp_path).stdout == "No warm server runs.\n3 []\n"


# --------------------------------------------------------------------------------------------- what all have in common


def load(name: str) -> click.Command:
    """A command of the table."""
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    return command


def with_subcommands(name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and what is below it, but for what is not meant for people."""
    pending = [(name, load(name))]
    while pending:
        path, command = pending.pop()
        if command.hidden:
            continue
        yield path, command
        if isinstance(command, click.Group):
            pending += [(f"{path} {below}", one) for below, one in command.commands.items()]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_of_commands_is_the_first_of_the_commands_own_help(name: str) -> None:
    command = load(name)
    assert (command.help or "").splitlines()[0] == COMMANDS[name].help
    assert command.name == name
    assert COMMANDS[name].help in " ".join(CliRunner().invoke(commands, ["--help"]).stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(name: str) -> None:
    for path, command in with_subcommands(name):
        assert (command.help or "").strip(), f"{path} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                words = (parameter.help or "").strip()
                assert words, f"{path} {parameter.opts[0]} has no help"
                assert words.endswith((".", ")")), f"{path} {parameter.opts[0]}: {words!r} is no sentence"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))
def test_every_command_prints_data_for_programs(name: str) -> None:
    """But for `completion`: what it prints is a program already."""
    for path, command in with_subcommands(name):
        if not isinstance(command, click.Group):
            assert any("--json" in parameter.opts for parameter in command.params), path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_nothing_but_click(name: str, tmp_path: Path) -> None:
    """`COMMAND --help` imports none of what a broken machine may lack."""
    code = (
        "import sys\n"
        f"sys.argv = ['discomfort', {name!r}, '--help']\n"
        "from discomfort.cli import main\n"
        "status = main()\n"
        "print(status, [one for one in ('torch', 'numpy', 'PIL', 'playwright') if one in sys.modules])\n"
    )
    done = run(["-c", code], tmp_path)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["frobnicate", "--json"], ["ports", "--json"], ["ports", "x", "--frobnicate", "--json"]]
)
def test_an_error_of_usage_is_one_document_for_programs(words: list[str], tmp_path: Path) -> None:
    done = run(["-m", "discomfort", *words], tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == told["error"]["status"] == 2
    assert told["error"]["message"] in done.stderr
    assert told["error"]["type"]


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (["ports", "nowhere.json"], 3, "FileNotFoundError"),
        (["replay", "nowhere"], 3, "NotFound"),
        (["context", "show", "0123"], 3, "NotFound"),
        (["convert", "text.json"], 1, "ValueError"),
        (["server", "start", "--config", "nowhere.json"], 1, "ConfigError"),
    ],
)
def test_an_error_is_one_document_for_programs(words: list[str], status: int, kind: str, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello", encoding="utf-8")
    done = run(["-m", "discomfort", *words, "--json"], tmp_path)
    told = json.loads(done.stdout)
    assert set(told) == {"error"}
    assert told["error"]["status"] == done.returncode == status
    assert told["error"]["type"] == kind
    assert f"discomfort: {told['error']['message']}" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_reads_any_more_and_it_ends_in_silence(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    workflow = CLONE / "tests" / "workflows" / "loop_image.json"
    files = " ".join([str(workflow)] * 300)  # more than a pipe holds
    for option in ("", "--json"):
        script = f"{sys.executable} -m discomfort ports {files} {option} | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run([bash, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        line, status = done.stdout.splitlines()
        assert line == ("{" if option else f"{workflow}:")
        assert status in "01"  # a document that was written whole before the reader went was written


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("networkx", ["ports", "refine.json"]),
        ("networkx", ["check", "refine.json"]),
        ("networkx", ["stitch", "refine.json", "-o", "out.json"]),
        ("networkx", ["run", "refine.json", "-i", "amount=1"]),
        ("aiohttp", ["server", "status"]),
        ("aiohttp", ["replay", "folder"]),
    ],
)
def test_a_package_that_is_missing_is_named_with_what_to_do(package: str, words: list[str], tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    raising = f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
    (stubs / f"{package}.py").write_text(raising, encoding="utf-8")
    shutil.copy(CLONE / "examples" / "workflows" / "refine.json", tmp_path)
    done = run(["-m", "discomfort", *words], tmp_path, PYTHONPATH=str(stubs))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("discomfort: ")
    assert f"needs the package {package}, which is not installed in {sys.executable}" in done.stderr
    assert "`python -m discomfort doctor`" in done.stderr
    assert done.stderr.count("\n") == 1
    help_text = run(["-m", "discomfort", "--help"], tmp_path, PYTHONPATH=str(stubs))
    assert help_text.returncode == 0
    assert COMMANDS["ports"].help in help_text.stdout


def test_every_module_of_the_table_exists() -> None:
    """A module of our own that is missing would be told as a package to install."""
    for place in COMMANDS.values():
        importlib.import_module(place.module, "discomfort.cli")
