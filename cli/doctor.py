"""``discomfort doctor``: what is wrong with this machine, and what to do. The checks are in doctor_checks/.

It must work where nothing else does: with the standard library and click alone. So nothing of the package is imported
here that needs more, and the layout is its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path

import click

from .. import __version__
from .doctor_checks import CHECKS
from .doctor_checks.checkup import PACKAGE, Check, Command, Finding, Machine, State, examine, select
from .doctor_checks.programs import end_all
from .output import CONFIG, JSON, Status, printable, say, say_json
from .wording import counted

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red", State.SKIPPED: "bright_black"}
# Columns at which the name, what was found, and a command begin.
_NAME = 9
_FOUND = _NAME + max(len(check.name) for check in CHECKS) + 2
_COMMAND = _NAME + 4


@click.command()
@click.option("--quick", is_flag=True, help="Leave out the real start of a server, the last four checks.")
@click.option(
    "--only",
    "keys",
    multiple=True,
    type=click.Choice([check.key for check in CHECKS]),
    metavar="CHECK",
    help="Only this check and those it rests on; may be given several times. Checks: "
    f"{', '.join(check.key for check in CHECKS)}.",
)
@click.option("--part", type=click.Choice(["browser", "start"]), hidden=True)
@click.option("--without-browser", is_flag=True, hidden=True)
@CONFIG
@JSON
def doctor(
    quick: bool, keys: tuple[str, ...], part: str | None, without_browser: bool, config_path: Path | None, as_json: bool
) -> int:
    """Look at this machine: what is there, what is missing, what to do.

    At the end a server is really started and stopped again, away from any ComfyUI that runs, and a workflow is
    converted and run on it. Nothing is installed or changed. Exit status 4 where something is broken.
    """
    if part is not None:
        from .doctor_checks.parts import run_part

        run_part(part, config_path, not without_browser)
        return Status.DONE
    machine = Machine(config_path, str(click.get_current_context().find_root().info_name))
    machine.versions["discomfort"] = __version__
    screen = _Screen(is_silent=as_json)
    screen.begin()
    findings = []
    try:
        for finding in examine(machine, select(CHECKS, keys, quick), screen.announce):
            findings.append(finding)
            screen.show(finding)
    finally:
        end_all()
    if as_json:
        say_json({"checks": [finding.as_json() for finding in findings], "versions": machine.versions})
    else:
        screen.conclude(findings)
    is_broken = any(finding.result.state is State.BROKEN for finding in findings)
    return Status.NO if is_broken else Status.DONE


class _Screen:
    """The lines for people: one for each check, as soon as it is done, with what to do below it."""

    def __init__(self, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._is_terminal = sys.stdout.isatty() and not is_silent
        self._has_colours = self._is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        # In files and pipes a line may have any length.
        self._width = max(60, shutil.get_terminal_size().columns) if self._is_terminal else 0

    def begin(self) -> None:
        self._say(f"Discomfort {__version__} in {PACKAGE}", bold=True)
        self._say("")

    def announce(self, check: Check) -> None:
        """Say what is looked at now, where that can be taken away again."""
        if self._has_colours:
            click.echo(f"{'...':{_NAME}}{check.name}", nl=False)

    def show(self, finding: Finding) -> None:
        if self._has_colours:
            click.echo("\r\x1b[K", nl=False)
        state, result = finding.result.state, finding.result
        first, *more = self._wrapped(result.found, _FOUND)
        name = finding.check.name
        self._say(f"{self._styled(state)}{name:{_FOUND - _NAME}}{first}".rstrip())
        for line in more:
            self._say(" " * _FOUND + line)
        for advice in result.advice:
            if isinstance(advice, Command):
                # In one line, whatever its length: so it can be copied.
                self._say(" " * _COMMAND + _plain(advice), bold=True)
            else:
                for line in self._wrapped(advice, _NAME):
                    self._say(" " * _NAME + line)

    def _styled(self, state: State) -> str:
        word = f"{state.value:{_NAME}}"
        if not self._has_colours:
            return word
        return click.style(word, fg=_COLOURS[state], bold=state is State.BROKEN)

    def _wrapped(self, text: str, indent: int) -> list[str]:
        """A text as lines; on a terminal none is longer than it is wide."""
        lines = []
        for line in text.splitlines() or [""]:
            room = max(30, self._width - indent)
            wrapped = textwrap.wrap(_plain(line), room, break_long_words=False, break_on_hyphens=False)
            lines += (wrapped or [""]) if self._width else [_plain(line)]
        return lines

    def _say(self, line: str, bold: bool = False) -> None:
        if not self._is_silent:
            click.echo(click.style(line, bold=True) if bold and self._has_colours else line)

    def conclude(self, findings: list[Finding]) -> None:
        states = [finding.result.state for finding in findings]
        number, warnings = states.count(State.BROKEN), states.count(State.WARNING)
        self._say("")
        if number:
            more = f", and {counted(warnings, 'warning')}" if warnings else ""
            say(f"{counted(number, 'thing is', 'things are')} broken{more}. What to do is below each.")
        elif warnings:
            say(f"Nothing is broken; {counted(warnings, 'warning')}.")
        else:
            say("Nothing is broken.")


def _plain(text: str) -> str:
    """One line of others' words, which cannot change the terminal."""
    return printable(text).replace("\n", "\\n")
