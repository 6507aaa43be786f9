"""``discomfort replay``, ``diff`` and ``report``: runs that were kept in a folder (durable/).

docs/reference/run-record.md has the format.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..comfy_serverless import ConnectorError
from ..durable.run_folder import RunFolderError, RunRecordFolder, iter_steps, open_folder, write_file
from .input_values import ANY, FileValues, files_in, read_file
from .output import CONFIG, JSON, Failure, NotFound, Status, printable, say, say_json

_RUN = click.Path(path_type=Path)
# So many lines of one kind are printed for people.
_MOST = 20
# A digest of a value, a SHA-256 or a commit; so many of its digits are printed for people.
_DIGEST = re.compile(r"\b(?:(?:xxh3|blake2b|unique):[0-9a-f]{32}|[0-9a-f]{64}|[0-9a-f]{40})\b")
_DIGITS = 12


def _open(path: Path) -> RunRecordFolder:
    """The record in a folder; where there is none, the command ends with status 3."""
    folder = path.expanduser()
    if not RunRecordFolder.holds_run(folder):
        what = f"There is no run in {path}" if folder.is_dir() else f"There is no folder {path}"
        raise NotFound(f"{what}. A run's folder is what was given as checkpoint=; manifest.json is in it.")
    return RunRecordFolder.open(folder)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Let what goes wrong end the command with a paragraph."""
    from ..durable.replay import NoSuchIterationError
    from ..run_plan import PreflightError, ProtocolError

    try:
        yield
    except BrokenPipeError:  # `| head`: click ends the program in silence
        raise
    except NoSuchIterationError as e:
        raise NotFound(str(e)) from e
    except (RunFolderError, ConnectorError, OSError, ValueError, ProtocolError, PreflightError) as e:
        raise Failure(str(e)) from e


# ---- replay ----


@click.command()
@click.argument("run", type=_RUN)
@click.option("--iteration", type=click.IntRange(min=0), metavar="K", help="Only iteration K, counted from 0.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="A value that the record does not hold: a picture, a .json or a .txt. A folder, or several of these options "
    "for one name, are a value for each iteration. Pictures of a batch are read where they were, if they are the same.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NODE.INPUT=VARIABLE",
    help="A text that was left out of the record, in an environment variable.",
)
@click.option("--trust", is_flag=True, help="Load values that are more than plain data. Only what your own runs wrote.")
@CONFIG
@click.option("-v", "--verbose", is_flag=True, help="Tell also of an identical one what it runs on now.")
@JSON
def replay(
    run: Path,
    iteration: int | None,
    inputs: Sequence[str],
    secrets: Sequence[str],
    trust: bool,
    config_path: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run a recorded run again, and say whether it gives the same.

    RUN is the folder that a run was kept in (checkpoint=...). Its steps are queued as they were, with the values that
    they read, and what their ports deliver is compared bit for bit. Nothing is written into RUN, and no node that saves
    pictures runs unless a port needs it. Its prompts are run as they are: replay only what you would run.

    Exit status 0: identical, 4: it differs, 3: no such run or iteration.
    """
    with _told():
        record = _open(run)
        values, texts = _read_inputs(inputs, record), _read_secrets(secrets)
        result = asyncio.run(_replay(record, iteration, values, texts, trust, config_path, as_json))
        if as_json:
            say_json(result.to_dict())
            sys.exit(0 if result.is_identical else Status.NO)
        for difference in result.differences[:_MOST]:
            say(_brief(difference.sentence()))
        _say_rest(len(result.differences), "differing value")
        for note in result.notes:
            say(f"note: {note}")
        if verbose or not result.is_identical:
            for text in result.environment[:_MOST]:
                say(f"it runs on something else now: {_brief(text)}")
            _say_rest(len(result.environment), "difference of what it runs on")
            if verbose and not result.environment:
                say("it runs on the same versions, packs, devices and models as then, as far as is known")
        say(_brief(result.summary()))
    sys.exit(0 if result.is_identical else Status.NO)


def _brief(text: str) -> str:
    """A sentence with the first digits of its digests, as far as they tell them apart; --json has all digits."""

    def first(digest: str) -> str:
        return digest[: digest.find(":") + 1 + _DIGITS]

    digests = set(_DIGEST.findall(text))
    if len({first(digest) for digest in digests}) < len(digests):
        return text
    return _DIGEST.sub(lambda found: f"{first(found[0])}...", text)


def _say_rest(count: int, what: str) -> None:
    if count > _MOST:
        say(f"... and {count - _MOST:,} more {what}{'s' if count - _MOST > 1 else ''} (--json has all)")


async def _replay(
    record: RunRecordFolder,
    iteration: int | None,
    inputs: Mapping[str, Any],
    secrets: Mapping[str, str],
    trust: bool,
    config_path: Path | None,
    is_quiet: bool,
) -> Any:
    from ..discomfort import Discomfort
    from ..durable.replay import replay
    from ..durable.replay_plan import Plan

    Plan(record, iteration, inputs, secrets)  # not worth starting a server for what cannot be replayed
    with _progress(is_quiet) as progress:
        async with await Discomfort.create(config_path) as d:
            return await replay(d, record, iteration, inputs, trust, progress, secrets=secrets)


@contextlib.contextmanager
def _progress(is_quiet: bool) -> Iterator[Any]:
    """What a replay tells of its steps: a bar where somebody watches."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, step: Mapping[str, Any]) -> None:
            bar.total = total
            bar.set_description(printable(str(step["workflow"])).replace("\n", " "), refresh=False)
            bar.update(done - bar.n)

        yield progress


def _read_inputs(options: Sequence[str], record: RunRecordFolder) -> dict[str, Any]:
    """The values of --input, by name; a PerIteration where there are several files for one."""
    from ..control_flow import PerIteration

    files: dict[str, list[Path]] = {}
    for option in options:
        name, is_there, file = option.partition("=")
        if not name or not is_there or not file:
            raise click.BadParameter(f"{option!r} is not NAME=FILE", param_hint="--input")
        files.setdefault(name, []).append(Path(file).expanduser())
    items = {e["iteration"]: str(e["item"]) for e in record.entries if e.get("kind") == "iteration" and "item" in e}
    masks = {e["name"] for e in record.entries if e.get("kind") == "input" and _was_read_as_mask(e["value"])}
    values: dict[str, Any] = {}
    for name, paths in files.items():
        kind = "MASK" if name in masks else ANY
        if len(paths) > 1:
            values[name] = PerIteration(FileValues(dict(enumerate(paths)), kind))
        elif paths[0].is_dir():
            values[name] = PerIteration(FileValues(_files_in(paths[0], items), kind))
        else:
            values[name] = read_file(paths[0], kind)
    return values


def _was_read_as_mask(note: Mapping[str, Any]) -> bool:
    return (note.get("file") or {}).get("type") == "MASK"


def _files_in(folder: Path, items: Mapping[int, str]) -> dict[int, Path]:
    """The files in a folder by the iterations that they are for: those of a batch by the names of its items, others in
    the order in which `run` takes them.
    """
    if not items:
        return dict(enumerate(files_in(folder)))
    names = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {number: names[item] for number, item in items.items() if item in names}


def _read_secrets(options: Sequence[str]) -> dict[str, str]:
    """The texts of --secret, by node and input."""
    found = {}
    for option in options:
        place, is_there, variable = option.rpartition("=")
        if not is_there or "." not in place or not variable:
            raise click.BadParameter(f"{option!r} is not NODE.INPUT=VARIABLE", param_hint="--secret")
        if variable not in os.environ:
            raise ValueError(f"--secret {option}: there is no environment variable {variable}.")
        found[place] = os.environ[variable]
    return found


# ---- diff ----


@click.command()
@click.argument("run_a", type=_RUN)
@click.argument("run_b", type=_RUN)
@JSON
def diff(run_a: Path, run_b: Path, as_json: bool) -> None:
    """Say what differs between two recorded runs, and where it begins.

    What they were told to do (plan, inputs, seeds), what they ran on (environment, models) and what they did (ways
    taken, steps, values). "was" is RUN_A, "is" is RUN_B. Nothing is run, and what is compared may still be going on.

    Exit status 0: they are the same, 4: they differ, 3: there is no such run.
    """
    from ..durable.compare import record_differences

    with _told():
        records = _open(run_a), _open(run_b)
        found = record_differences(*records)
        real = [one for one in found if not one.is_note]
        results_differ = any(one.is_of_results for one in real)
        counts = [_step_counts(record) for record in records]
        if as_json:
            content = {
                "same": not real,
                "results_differ": results_differ,
                "differences": [one._asdict() for one in real],
                "notes": [one.text for one in found if one.is_note],
                "steps": [steps for steps, _ in counts],
                "values": [values for _, values in counts],
            }
            say_json(content)
            sys.exit(Status.NO if real else 0)
        for one in found:
            say(f"{one.area}: {_brief(one.text)}")
        if not real:
            say(f"same: {counts[0][0]:,} steps, {counts[0][1]:,} values")
        else:
            areas = ", ".join(dict.fromkeys(one.area for one in real))
            say(f"differs: {areas}" + ("" if results_differ else "; what they did is the same"))
    sys.exit(Status.NO if real else 0)


def _step_counts(record: RunRecordFolder) -> tuple[int, int]:
    """(finished steps, values that they wrote)."""
    steps = list(iter_steps(record.entries))
    return len(steps), sum(len(step["writes"]) for step in steps)


# ---- report ----


@click.command()
@click.argument("run", type=_RUN)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there instead of RUN/report.html."
)
@JSON
def report(run: Path, output: Path | None, as_json: bool) -> None:
    """Write the report of a recorded run, one HTML page, and print its path.

    The run may be going on; exit status 3 where there is none.
    """
    from ..durable.report import build_report

    with _told():
        record = _open(run)
        page = build_report(record).encode("utf-8", "xmlcharrefreplace")
        target = record.path / "report.html" if output is None else output.expanduser()
        try:
            _write(target, page)
        except OSError as e:
            advice = "" if output else " --output FILE writes it somewhere else."
            raise Failure(f"The report cannot be written to {target}: {e}.{advice}") from e
        if as_json:
            say_json({"report": str(target.resolve())})
        else:
            click.echo(target.resolve())


def _write(target: Path, content: bytes) -> None:
    """Write a file in one step. The run that goes on may be writing the same one: each has its own temporary file."""
    young = f"{target.name}.{os.getpid()}.tmp"
    try:
        folder = open_folder(target.parent)
    except RunFolderError:  # others may write there, as into /tmp: a page for people may lie there
        target.write_bytes(content)
        return
    write_file(folder, young, content)
    try:
        folder.replace(young, folder, target.name)
    except BaseException:
        folder.discard(young)
        raise
    folder.sync()
