"""The command line: ``python -m discomfort`` (or ``discomfort`` where the package is installed).

A table of contents: each command has its place in a file of its own, which is loaded when it is called. So ``--help``
is there at once, and ``doctor`` also where a package is missing that another command needs. Nothing here does any
work; the commands call what the package offers to programs too. Exit statuses and what ``--json`` prints: output.py,
and docs/reference/command-line.md for users.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from .. import __version__
from .output import Failure, Status, tell_error


class _Place(NamedTuple):
    """Where a command is, and the line about it in --help (the first one of its own help; a test compares)."""

    module: str
    name: str
    help: str


#: in the order of --help
COMMANDS = {
    "run": _Place(".run", "run", "Run workflows, in a loop if you like."),
    "batch": _Place(".batch", "batch", "Run workflows on each of many items, resumably."),
    "ports": _Place(".workflows", "ports", "List the ports of a workflow: what goes in, what comes out."),
    "check": _Place(".workflows", "check", "Say what is wrong with workflows, before a server does."),
    "convert": _Place(".workflows", "convert", "Make the API prompt of an editor workflow, as the editor would."),
    "stitch": _Place(".workflows", "stitch", "Make one workflow of several, joined at their ports."),
    "replay": _Place(".runs", "replay", "Run a recorded run again, and say whether it gives the same."),
    "diff": _Place(".runs", "diff", "Say what differs between two recorded runs, and where it begins."),
    "report": _Place(".runs", "report", "Write the report of a recorded run, one HTML page, and print its path."),
    "context": _Place(".context", "context", "Look at the data of runs: what is stored, where, how much."),
    "server": _Place(".server", "server", "Keep a ComfyUI server warm between scripts."),
    "doctor": _Place(".doctor", "doctor", "Look at this machine: what is there, what is missing, what to do."),
    "demo": _Place(".demo", "demo", "Run an example, or copy the examples to try them."),
    "completion": _Place(".completion", "completion", "Print what makes your shell complete these commands."),
}


class _Commands(click.Group):
    """The commands of the table, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        try:
            command = getattr(importlib.import_module(place.module, __name__), place.name)
        except ModuleNotFoundError as error:
            raise _missing(cmd_name, error) from error
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may stand next on the command line, from the table: no command is loaded for it."""
        names = [
            CompletionItem(name, help=place.help) for name, place in COMMANDS.items() if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="discomfort")
def commands() -> None:
    """Run ComfyUI from code: loops, conditions and state around your workflows."""


def program() -> str:
    """How this program was called, for usage texts and hints that can be copied."""
    package = getattr(sys.modules["__main__"], "__package__", None)
    called = Path(sys.argv[0])
    if package:
        return f"python -m {package}"
    if called.stem == "discomfort" and called.is_file() and called.suffix != ".py":
        return "discomfort"
    return f"python {sys.argv[0]}"


def _missing(what: str, error: ModuleNotFoundError) -> Failure:
    return Failure(
        f"{what} needs the package {error.name}, which is not installed in {sys.executable}. "
        f"`{program()} doctor` says what is missing, and how to install it."
    )


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    as_json = "--json" in sys.argv
    try:
        status = commands.main(prog_name=program(), standalone_mode=False)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        click.echo(ended.code, err=True)
        return int(Status.ERROR)
    except click.ClickException as error:
        return tell_error(error, as_json)
    except (click.Abort, KeyboardInterrupt) as error:
        told = str(error) or str(error.__cause__ or "")  # that of a run which is kept says how it goes on
        if told:
            click.echo(f"discomfort: {told}", err=True)
        return int(Status.INTERRUPTED)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # `| head`: nobody reads any more. What Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Status.ERROR)
    except ModuleNotFoundError as error:  # of what a command imports when it is at work
        if not error.name or error.name.startswith(f"{__package__}."):
            raise
        failure = _missing("This", error)
        failure.__cause__ = error
        return tell_error(failure, as_json)
    except RuntimeError as error:
        if not _is_of_the_connector(error):
            raise
        failure = Failure(str(error))
        failure.__cause__ = error
        return tell_error(failure, as_json)
    return int(status) if isinstance(status, int) else 0


def _is_of_the_connector(error: RuntimeError) -> bool:
    """Whether it is a ConnectorError: a sentence for people. The module may not be there (see doctor)."""
    module = sys.modules.get(f"{__package__.rpartition('.')[0]}.comfy_serverless")
    return module is not None and isinstance(error, module.ConnectorError)
