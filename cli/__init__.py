"""The command line: ``python -m discomfort`` (or ``discomfort`` where the package is installed).

A table of contents: each group of commands has a file of its own. Nothing here does any work; the commands call what
the package offers to programs too.

Exit status: 0 when what was asked for is so, 1 after an error (one paragraph on standard error), 2 for a command line
that is not understood, 3 where what was asked about does not exist: ``server status`` finds no server, ``context show``
no such run or key, ``replay``, ``diff`` and ``report`` no run in the folder; 4 where ``replay`` or ``diff`` finds a
difference. ``--json`` prints data for programs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import __version__
from ..comfy_serverless import ConnectorError
from .context import context
from .runs import diff, replay, report
from .server import server


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="discomfort")
def commands() -> None:
    """Run ComfyUI from code: loops, conditions and state around your workflows."""


commands.add_command(server)
commands.add_command(context)
commands.add_command(replay)
commands.add_command(diff)
commands.add_command(report)


def program() -> str:
    """How this program was called, for usage texts and hints that can be copied."""
    package = getattr(sys.modules["__main__"], "__package__", None)
    called = Path(sys.argv[0])
    if package:
        return f"python -m {package}"
    if called.stem == "discomfort" and called.is_file() and called.suffix != ".py":
        return "discomfort"
    return f"python {sys.argv[0]}"


def main() -> int:
    """Run the command line of this process; returns the exit status (or raises SystemExit with it)."""
    try:
        commands(prog_name=program())
    except ConnectorError as e:
        print(f"discomfort: {e}", file=sys.stderr)
        return 1
    return 0
