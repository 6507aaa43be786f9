"""How every command speaks: lines and tables for people (rich), JSON for programs, and with which status it ends.

Whatever comes from a workflow, a run or a server may be hostile: :func:`printable` takes everything out of it that
could move the cursor or change the terminal, and :func:`say` and :func:`say_table` pass all text through it.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

#: the option of every command that starts or looks for a server
CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The configuration of the server: a comfy_serverless.json of your own.",
)
#: the option that every command has
JSON = click.option("--json", "as_json", is_flag=True, help="Print data for programs.")


class Status(enum.IntEnum):
    """Exit statuses (docs/reference/command-line.md)."""

    #: what was asked for is so
    DONE = 0
    #: it could not be done; one paragraph on standard error says why
    ERROR = 1
    #: the command line is not understood
    USAGE = 2
    #: what was asked about does not exist (the Linux Standard Base's number for "not running")
    NOT_FOUND = 3
    #: it was done, and the answer is no: runs differ, a workflow has problems, items failed, something is broken
    NO = 4
    #: Ctrl-C, as shells say it
    INTERRUPTED = 130


class Failure(click.ClickException):
    """What ends a command: one paragraph on standard error, and exit status 1.

    The error that it was *raised from* (``raise Failure(...) from error``) is told to programs, by its class and what
    it knows of the node it came from.
    """

    def __init__(self, message: str, status: Status = Status.ERROR):
        super().__init__(message)
        # click declares it for classes; here it may differ from one error to the next.
        vars(self)["exit_code"] = status

    def show(self, file: Any = None) -> None:
        click.echo(f"discomfort: {printable(self.message)}", err=True)


class NotFound(Failure):
    """What was asked about does not exist."""

    def __init__(self, message: str):
        super().__init__(message, Status.NOT_FOUND)


def tell_error(error: click.ClickException, as_json: bool) -> int:
    """Say how a command failed; returns its exit status.

    Programs get it on standard output, where they read: ``{"error": {"type", "message", "status", ...}}``, with
    ``node_id``, ``class_type`` and ``title`` of the node and ``problems``, a list, where the error has them.
    """
    error.show()
    if as_json:
        click.echo(json.dumps({"error": _error_json(error)}, indent=2))
    return int(error.exit_code)


def _error_json(error: click.ClickException) -> dict[str, Any]:
    from ..run_record import error_entry

    cause = error.__cause__ or error
    told: dict[str, Any] = {**error_entry(cause), "message": error.format_message(), "status": int(error.exit_code)}
    problems = getattr(cause, "problems", None)
    if problems:
        told["problems"] = [error_entry(one) for one in problems]
    return told


@contextlib.contextmanager
def showing_warnings(but: str | None = None) -> Iterator[None]:
    """Print what the package warns of meanwhile, on standard error; not what begins with *but*."""
    handler = _Warnings(but)
    logger = logging.getLogger("discomfort")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, but: str | None):
        super().__init__(logging.WARNING)
        self._but = but

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._but is None or not text.startswith(self._but):
            click.echo(f"discomfort: {printable(text)}", err=True)


def say_json(content: Any) -> None:
    """Print data for programs. JSON has no NaN: Python's way of writing one would stop other readers."""
    click.echo(json.dumps(content, indent=2, allow_nan=False))


def printable(text: str) -> str:
    """Text that cannot move the cursor or change the terminal: keys and types come from workflows."""
    safe = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str, err: bool = False, **style: Any) -> None:
    """Print one line; a line break within it becomes ``\\n``. *style*: what click.style takes, for terminals."""
    text = printable(line).replace("\n", "\\n")
    click.echo(click.style(text, **style) if style else text, err=err)


def say_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; a header that begins with > is that of numbers, which stand on the right.

    On a terminal, long cells are wrapped to its width; in files and pipes every row is one line.
    """
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=False, header_style="bold")
    for name in header:
        is_number = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell).replace("\n", "\\n")) for cell in row))
    # rich writes into a text, click prints it: it knows of pipes that are closed and of Windows' old consoles.
    width = None if is_terminal else 10_000
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
