"""The command line is there under every name by which the package can be called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import discomfort

CLONE = Path(discomfort.__file__).resolve().parent


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
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
