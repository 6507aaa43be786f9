"""``discomfort run``: workflows, once or in a loop, from a shell."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .input_values import read_inputs
from .output import Status, say, say_json
from .output_files import OutputFolder, as_picture
from .running import (
    Common,
    Plan,
    complete_outputs,
    first_options,
    last_options,
    loop_condition,
    read_plan,
    refuse_missing,
    refuse_unknown,
    say_what_starts,
    told,
)
from .wording import counted, shortened

if TYPE_CHECKING:
    from ..run_record import RunResult

Json = dict[str, Any]

# So many characters of a text, and so many skipped iterations, are printed for people.
_TEXT, _MOST = 200, 20


@click.command()
@first_options
@click.option(
    "--collect",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_outputs,
    help="Keep the value that this OUTPUT port has in each iteration, not only the last one. Repeatable.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write what OUTPUT ports deliver into files there. Files of the same names are replaced.",
)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the run in this folder: after a crash or Ctrl-C the same command goes on behind the last finished step.",
)
@click.option("--keep-all", is_flag=True, help="Keep the values of all steps there, so that each can be replayed.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    help="What an iteration that fails does: end the run, or be passed over.",
)
@last_options
def run(
    collect: Sequence[str],
    output: Path | None,
    checkpoint: Path | None,
    keep_all: bool,
    on_error: str,
    **common: Any,
) -> None:
    """Run workflows, in a loop if you like.

    WORKFLOW is a file that the editor saved, a prompt in API format, a PNG that ComfyUI saved, a file of steps (JSON:
    a list, a loop, a branch), or - for standard input. Several run one after the other, and an OUTPUT port feeds the
    INPUT ports of its name: in later workflows, and in the next iteration.

    A folder (-i image=@photos), or -i several times for one name, is a value for each iteration; there are as many
    iterations then, unless -n says less. In EXPR stand names of ports, numbers, comparisons, and functions such as
    mean(image); `iteration` is how many are finished.

    What OUTPUT ports deliver is printed on standard output, a line each, or with -o the files that it was written to.
    With --json: {"outputs": {name: {"type", "value" or figures}}, "files": {name: [path]}, "record": {...}}; of a
    collected port {"type": "collected", "iterations": [number], "values": [...]}.

    Exit status 0: done, 1: a step failed, or the run cannot be, 2: the command line is not understood, 3: there is no
    such WORKFLOW, 4: done, but iterations were skipped, 130: Ctrl-C.
    """
    options = Common(**common)
    options.check(has_folder=checkpoint is not None)
    if keep_all and checkpoint is None:
        raise click.UsageError("--keep-all is about a run that is kept: it needs --checkpoint DIR.")
    with told(options.quiet, options.verbose):
        job = _Job.read(options, tuple(dict.fromkeys(collect)), output)
        job.control.update(checkpoint=checkpoint, keep="all" if keep_all else "needed", on_error=on_error)
        say_what_starts(options)
        result = asyncio.run(job.run())
        _say_result(job, result)
    sys.exit(Status.NO if result.skipped else Status.DONE)


@dataclasses.dataclass
class _Job:
    """A run that was asked for."""

    options: Common
    plan: Plan
    values: Json
    iterations: int
    collect: tuple[str, ...]
    folder: OutputFolder | None
    #: further arguments of Discomfort.run()
    control: Json
    #: {name: files} of what was written
    files: dict[str, list[Path]] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, options: Common, collect: tuple[str, ...], output: Path | None) -> _Job:
        """The run that the options mean; all that can be wrong without a server is found here."""
        conditions = [text for text in (options.until, options.while_) if text is not None]
        plan = read_plan(options.workflows, conditions)
        refuse_unknown(collect, plan.outputs, "OUTPUT port", "--collect")
        values = read_inputs(options.inputs, plan.kinds)
        refuse_missing(plan, values)
        condition = loop_condition(plan, options.until, options.while_, values)
        iterations = _iterations(options, values)
        folder = OutputFolder(output) if output is not None else None
        if folder is not None:
            folder.prepare()
        return cls(
            options, plan, values, iterations, collect, folder, {**options.control(), "loop_condition": condition}
        )

    async def run(self) -> RunResult:
        from ..discomfort import Discomfort
        from ..workflow_context import WorkflowContext

        async with await Discomfort.create(self.options.config_path) as d:
            if self.plan.has_unknown(list(self.values)):
                self.values = read_inputs(self.options.inputs, await self.plan.kinds_on(d))
            # A context of its own outlives a run that fails, with what was collected until then.
            with WorkflowContext() as context:
                try:
                    result: RunResult = await d.run(
                        self.plan.steps, self.values, self.iterations, context=context, collect=self.collect,
                        **self.control,
                    )  # fmt: skip
                except BaseException:
                    self._rescue(context)
                    raise
                await self._write(result)
                return result

    async def _write(self, result: RunResult) -> None:
        """Write what was delivered, one value at a time."""
        if self.folder is None:
            return
        for name, value in result.items():
            if name not in result.collected:
                self.files[name] = await asyncio.to_thread(self.folder.write, name, value)
                continue
            self.files[name] = []
            for iteration, one in zip(iterations_of(result, name), value, strict=True):
                self.files[name] += await asyncio.to_thread(self.folder.write_iteration, name, iteration, one)
            left = self.folder.earlier(name, set(self.files[name]))
            if left and not self.options.quiet:
                files = counted(len(left), "file")
                say(f"discomfort: {left[0].parent} also has {files} of an earlier run, {left[0].name} first", err=True)

    def _rescue(self, context: Any) -> None:
        """Write what was collected by a run that has failed; one with a checkpoint has it in its folder."""
        if self.folder is None:
            return
        for key in sorted(context.list_keys()):
            found = re.fullmatch(r"(.*) \(iteration (\d+)\)", key, re.DOTALL)
            if found is not None and found[1] in self.collect:
                self.files.setdefault(found[1], [])
                self.files[found[1]] += self.folder.write_iteration(found[1], int(found[2]), context.load(key))
        for name, files in self.files.items():
            if files:
                iterations = counted(len(files), "file")
                say(f"discomfort: {name!r} of the iterations before that: {iterations} in {files[0].parent}", err=True)


def _iterations(options: Common, values: Mapping[str, Any]) -> int:
    """How often the steps run.

    Raises:
        click.UsageError: that cannot be known, or there are not enough values for it.
    """
    from ..control_flow import PerIteration

    lengths = {n: v.length for n, v in values.items() if isinstance(v, PerIteration) and v.length is not None}
    counts = set(lengths.values())
    listed = ", ".join(f"{name!r} has {counted(length, 'value')}" for name, length in lengths.items())
    if options.iterations is None and len(counts) > 1:
        raise click.UsageError(f"{listed}: say with -n how many iterations there are.")
    options.check_bound(options.iterations or next(iter(counts), None))
    has_condition = options.until is not None or options.while_ is not None
    if options.iterations is not None and counts and min(counts) < options.iterations and not has_condition:
        raise click.UsageError(f"{listed}, which is not enough for {counted(options.iterations, 'iteration')} (-n).")
    return options.iterations or next(iter(counts), 1)


def iterations_of(result: RunResult, name: str) -> list[int]:
    """The iterations that a collected port's values are of: those that were not skipped, from the first one in which it
    delivered (behind a branch, that may be a later one).
    """
    skipped = {failure.iteration for failure in result.skipped}
    done = [number for number in range(result.record.iterations) if number not in skipped]
    count = len(result.collected[name])
    return done[len(done) - count :]


# ------------------------------------------------------------------------------------------------------------- telling


def _say_result(job: _Job, result: RunResult) -> None:
    if job.options.as_json:
        say_json(_as_json(job, result))
    else:
        for name in result:
            say(f"{name}: {_line(job, result, name)}")
    if job.options.quiet:
        for failure in result.skipped[:_MOST]:
            text = shortened(failure.message.partition("\n")[0], _TEXT)
            say(f"discomfort: iteration {failure.iteration} was skipped: {text}", err=True)
        return
    if not result:
        say("No OUTPUT port delivered anything.", err=True)
    if job.folder is None and not job.options.as_json and _has_pictures(result, job.control["checkpoint"] is not None):
        say("Pictures were not saved; -o DIR writes them into files.", err=True)
    for line in result.record.summary().splitlines():
        say(line, err=True)


def _has_pictures(result: RunResult, is_kept: bool) -> bool:
    """Whether there are pictures in no file; *is_kept*: those of collected ports are in the run's folder."""
    values = [value for name, value in result.items() if name not in result.collected]
    if not is_kept:
        values += [one for found in result.collected.values() for one in found]
    return any(as_picture(one) is not None for one in values)


def _line(job: _Job, result: RunResult, name: str) -> str:
    """What is said of a port: the files, or the value in a few words."""
    files = job.files.get(name, [])
    if files:
        many = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"{files[0]}{many}"
    value = result[name]
    if name not in result.collected:
        words = in_words(value)
    else:
        words = f"{counted(len(value), 'value')}"
        if value:
            is_short = all(isinstance(one, (bool, int, float, str)) for one in value)
            words += f": {', '.join(map(in_words, value))}" if is_short else f", the last one {in_words(value[-1])}"
        words = shortened(words, _TEXT)
    is_empty = name in result.collected and not value
    return f"{words} (there is no file format for it)" if job.folder is not None and not is_empty else words


def in_words(value: Any) -> str:
    """A value in one line: numbers and short texts as they are, everything else by type, shape and figures."""
    from ..prompt_graph import is_recipe
    from ..value_summary import as_lines, summarize

    if isinstance(value, str):
        return value if len(value) <= _TEXT else f"{value[:_TEXT]}... ({len(value):,} characters)"
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    if is_recipe(value):
        return f"{value.get('type')}, by reference"
    return as_lines(summarize(value))[0]


def _as_json(job: _Job, result: RunResult) -> Json:
    from ..durable.run_folder import finite

    outputs: Json = {name: _value_json(value) for name, value in result.items() if name not in result.collected}
    for name, values in result.collected.items():
        listed = [_value_json(one) for one in values]
        outputs[name] = {"type": "collected", "iterations": iterations_of(result, name), "values": listed}
    files = {name: [str(file.resolve()) for file in found] for name, found in job.files.items()}
    content: Json = finite(
        {"outputs": outputs, "files": files, "record": {**result.record.to_dict(), "costs": result.record.costs()}}
    )
    return content


def _value_json(value: Any) -> Json:
    """A value for programs: its type, and itself where JSON holds it, else figures (value_summary.summarize)."""
    from ..durable.run_folder import is_plain
    from ..value_summary import summarize

    return {"type": type(value).__name__, "value": value} if is_plain(value) else summarize(value)
