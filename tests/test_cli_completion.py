"""``discomfort completion``: what it prints works in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from discomfort.cli import COMMANDS, commands


def printed(shell: str) -> str:
    result = CliRunner().invoke(commands, ["completion", shell])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with the command ``discomfort``, as pip makes it; the test's own Python runs it."""
    file = tmp_path / "bin" / "discomfort"
    file.parent.mkdir()
    file.write_text(
        f"#!{sys.executable}\nimport sys\nfrom discomfort.cli import main\n"
        "status = main()\n"
        "import os\n"
        "heavy = sorted({'torch', 'aiohttp', 'numpy', 'PIL', 'playwright', 'networkx', 'rich'} & set(sys.modules))\n"
        "open(os.environ['LOADED'], 'w').write(' '.join(heavy))\n"
        "sys.exit(status)\n",
        encoding="utf-8",
    )
    file.chmod(0o755)
    return file.parent


def complete(program: Path, *words: str) -> tuple[list[str], list[str]]:
    """(what bash offers for the last of the words, heavy packages that were loaded for it)."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = 'eval "$(discomfort completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
    script += 'COMPREPLY=(); _discomfort_completion discomfort; printf "%s\\n" "${COMPREPLY[@]}"'
    loaded = program / "loaded"
    done = subprocess.run(
        [bash, "--norc", "-c", script, "bash", *words],
        env={**os.environ, "PATH": f"{program}{os.pathsep}{os.environ['PATH']}", "LOADED": str(loaded)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split(), loaded.read_text(encoding="utf-8").split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], list(COMMANDS)),
        (["r"], ["run", "replay", "report"]),
        (["con"], ["convert", "context"]),
        (["sti"], ["stitch"]),
        (["context", "s"], ["show", "sweep"]),
        (["stitch", "--ke"], ["--keep-ports"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["demo", "ref"], ["refine"]),
    ],
)
def test_bash_completes_commands_options_and_values_without_loading_much(
    program: Path, words: list[str], offered: list[str]
) -> None:
    assert complete(program, "discomfort", *words) == (offered, [])


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_theirs(shell: str) -> None:
    text = printed(shell)
    assert f"_DISCOMFORT_COMPLETE={shell}_complete" in text
    path = shutil.which(shell)
    if path is not None:
        assert subprocess.run([path, "-n"], input=text, text=True, timeout=60).returncode == 0


def test_help_says_where_it_goes_for_each_shell() -> None:
    told = CliRunner().invoke(commands, ["completion", "--help"]).stdout
    for line in ("~/.bashrc", 'eval "$(discomfort completion zsh)"', "discomfort completion fish | source"):
        assert line in told


def test_another_shell_is_status_2_and_the_known_ones_are_named() -> None:
    result = CliRunner().invoke(commands, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr
