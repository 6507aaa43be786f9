"""``discomfort ports``, ``check``, ``convert`` and ``stitch``: workflows as files, before anything is run.

The work is done by workflow_graph.py, workflow_stitching.py and the connector; here is what is read, said and written.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import CONFIG, JSON, Failure, NotFound, Status, say, say_json, say_table, showing_warnings
from .wording import command, counted

if TYPE_CHECKING:
    from ..comfy_serverless import ConversionNote
    from ..run_plan import PreparedWorkflow
    from ..workflow_graph import PortInfo

Json = dict[str, Any]

_FILE = click.Path(path_type=Path)
_WORKFLOWS = click.argument("workflows", metavar="WORKFLOW...", nargs=-1, required=True, type=_FILE)
_TARGET = click.Path(dir_okay=False, path_type=Path)
_FORCE = click.option("--force", is_flag=True, help="Replace FILE if it exists. An input is never replaced.")
# What stands for standard input, as with other programs.
_STDIN = "-"
# Types of values that can be typed on a command line, and those that are read from a picture.
_TYPED, _PICTURES = frozenset({"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"}), frozenset({"IMAGE", "MASK"})


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Let what goes wrong end the command with a paragraph, and what the package warns of be seen."""
    try:
        import networkx as nx

        try:
            # Notes on conversions are printed by these commands themselves.
            with showing_warnings(but="Conversion: "):
                yield
        except nx.NetworkXUnfeasible as e:
            raise Failure(str(e)) from e
    except (BrokenPipeError, ModuleNotFoundError):  # main() knows what to say of them
        raise
    except FileNotFoundError as e:
        raise NotFound(str(e)) from e
    except (OSError, ValueError, TypeError) as e:
        raise Failure(str(e)) from e


def _read(path: Path) -> Json:
    """The workflow or prompt in a file, or on standard input.

    Raises:
        FileNotFoundError, OSError, ValueError: as `load_workflow`, which says in the message what to do.
    """
    from ..workflow_json import load_workflow

    if str(path) != _STDIN:
        return load_workflow(path, allow_prompt=True)
    try:
        content = json.loads(sys.stdin.buffer.read().decode("utf-8-sig"))
    except ValueError as e:
        raise ValueError(f"Standard input is not JSON: {e}. Pass it the .json file that the editor saved.") from e
    if not isinstance(content, dict):
        raise ValueError("Standard input is JSON, but no workflow: that is an object with a 'nodes' list.")
    try:
        return load_workflow(content, allow_prompt=True)
    except ValueError as e:
        raise ValueError(str(e).replace("The given dict", "Standard input", 1)) from e


def _say_that_it_takes_time() -> None:
    """For whoever watches: a ComfyUI that has to be started first takes its time."""
    if sys.stderr.isatty():
        say("Asking the server, which is started first if none runs ...", err=True, dim=True)


def _name(path: Path) -> str:
    return "standard input" if str(path) == _STDIN else str(path)


# ---- ports ----


@click.command()
@_WORKFLOWS
@JSON
def ports(workflows: Sequence[Path], as_json: bool) -> None:
    """List the ports of a workflow: what goes in, what comes out.

    WORKFLOW is a file that the editor saved, a prompt in API format, a PNG that ComfyUI saved, or - for standard
    input. An INPUT port takes a value, an OUTPUT port delivers one; a PASSTHRU port hands it on inside the workflow.
    Nothing is run.
    """
    with _told():
        from ..workflow_graph import discover_ports

        contents = [_read(path) for path in workflows]
        found = []
        for path, content in zip(workflows, contents, strict=True):
            try:
                found.append(discover_ports(content))
            except ValueError as e:
                raise ValueError(f"{_name(path)}: {e}") from e
        if as_json:
            listed = zip(workflows, contents, found, strict=True)
            say_json({"ports": [{"workflow": _name(p), **_port_json(c, one)} for p, c, f in listed for one in f]})
            return
        for number, (path, content, one) in enumerate(zip(workflows, contents, found, strict=True)):
            if number:
                say("")
            if len(workflows) > 1 and one:
                say(f"{_name(path)}:")
            _say_ports(content, one, _name(path))


def _port_json(content: Json, port: PortInfo) -> Json:
    return {**port.to_dict(), "node": _node_of(content, port)}


def _node_of(content: Json, port: PortInfo) -> str:
    """The port's node as people find it: its id, its title where it has one of its own, and the subgraph it is in."""
    from ..prompt_graph import PORT_TYPE
    from ..workflow_graph import describe_node

    return describe_node(content, port.node_id).removeprefix(PORT_TYPE).strip()


def _say_ports(content: Json, found: Sequence[PortInfo], name: str) -> None:
    """A table of ports, and the command that runs them."""
    from ..prompt_graph import is_api_format

    if not found:
        say(
            f"{name} has no ports. To add one: in the editor, double-click the canvas, search for Discomfort Port, "
            "wire it, and type a name into its unique_id."
        )
        return
    has_tags = any(port.tags for port in found)
    header = ["MODE", "NAME", "TYPE", *(["TAGS"] if has_tags else []), "NODE"]
    rows = []
    for port in sorted(found, key=lambda port: ("INPUT", "OUTPUT", "PASSTHRU").index(port.mode)):
        tags = [", ".join(port.tags)] if has_tags else []
        rows.append([port.mode, port.unique_id or "(no name yet)", port.type, *tags, _node_of(content, port)])
    say_table(header, rows)
    if is_api_format(content):
        say("A prompt does not tell types; `check --on-server` looks at what fits.")
    example = _example(found, name)
    if example:
        say("")
        say(f"To run it: {example}")


def _example(found: Sequence[PortInfo], name: str) -> str:
    """The command that runs a workflow; "" where a port takes what cannot be typed."""
    entries = {port.unique_id: port.type for port in found if port.mode == "INPUT"}
    if not all(entries) or not set(entries.values()) <= _TYPED | _PICTURES or name == "standard input":
        return ""
    options = [
        f"-i {shlex.quote(entry)}={'@picture.png' if kind in _PICTURES else 'VALUE'}"
        for entry, kind in sorted(entries.items())
    ]
    return " ".join([command("run"), shlex.quote(name), *options])


# ---- check ----


@dataclasses.dataclass
class _Checked:
    """What is known of one file."""

    name: str
    # None where it could not be read.
    content: Json | None
    problems: list[str]
    notes: list[ConversionNote] = dataclasses.field(default_factory=list)


@click.command()
@_WORKFLOWS
@click.option(
    "--on-server",
    is_flag=True,
    help="Also ask the server, which is started if none runs: does it have the nodes, what does the conversion leave "
    "out, and do the ports of the workflows fit each other in the given order.",
)
@CONFIG
@JSON
def check(workflows: Sequence[Path], on_server: bool, config_path: Path | None, as_json: bool) -> None:
    """Say what is wrong with workflows, before a server does.

    WORKFLOW is a file that the editor saved, a prompt in API format, a PNG that ComfyUI saved, or - for standard
    input. Links, node ids, subgraphs and ports are looked at; nothing is run.

    Exit status 0: nothing is wrong, 4: there are problems, 3: there is no such file.
    """
    if config_path is not None and not on_server:
        raise click.UsageError("--config goes with --on-server: without it no server is asked.")
    with _told():
        _refuse_missing(workflows)
        checked = [_check_file(path) for path in workflows]
        server = asyncio.run(_ask_server(checked, config_path)) if on_server else None
        is_fine = not any(one.problems for one in checked) and not (server and server["problems"])
        if as_json:
            say_json({"files": [_checked_json(one) for one in checked], "server": server})
        else:
            _say_checked(checked, server)
    sys.exit(Status.DONE if is_fine else Status.NO)


def _refuse_missing(workflows: Sequence[Path]) -> None:
    """A file that does not exist has no problems that could be listed."""
    for path in workflows:
        if str(path) != _STDIN and not path.exists():
            _read(path)  # raises, and says what was probably meant


def _check_file(path: Path) -> _Checked:
    """What is wrong with a file in itself."""
    from ..workflow_graph import check_workflow

    try:
        content = _read(path)
    except (ValueError, OSError) as e:
        return _Checked(_name(path), None, [str(e)])
    return _Checked(_name(path), content, check_workflow(content))


async def _ask_server(checked: Sequence[_Checked], config_path: Path | None) -> Json:
    """Add to each file what its conversion tells, and what does not fit the files before it.

    Returns:
        {"description", "problems"} of the server: its Discomfort nodes may be missing, or another version's.
    """
    from ..discomfort import Discomfort
    from ..run_plan import check_protocol

    _say_that_it_takes_time()
    async with await Discomfort.create(config_path) as d:
        described = d.Worker.server_description
        problems = [str(e) for e in check_protocol(await d.Worker.node_definitions(), described)]
        prepared = [await _prepare(d, one) for one in checked]
    _check_ports(checked, prepared)
    return {"description": described, "problems": problems}


async def _prepare(d: Any, one: _Checked) -> PreparedWorkflow | None:
    """A file as a run would prepare it; what is in the way becomes a problem of it."""
    from ..comfy_serverless import ConversionError, ConversionTimeoutError
    from ..prompt_graph import is_api_format

    if one.content is None:
        return None
    try:
        if not is_api_format(one.content):
            one.notes = await d.Worker.explain_conversion(one.content)
        prepared: PreparedWorkflow = await d.Tools._prepare_workflow(one.content, one.name, d.Worker)
        return prepared
    except ConversionTimeoutError:
        raise
    except ConversionError as e:
        one.problems.append(str(e).removeprefix(f"{one.name}: "))
    except (ValueError, TypeError) as e:
        if not one.problems:  # what is wrong in the file was said already, in other words
            one.problems.append(str(e).removeprefix(f"{one.name}: "))
    return None


def _check_ports(checked: Sequence[_Checked], prepared: Sequence[PreparedWorkflow | None]) -> None:
    """Find the INPUT ports that cannot take what an earlier file delivers under their name.

    What no earlier file delivers is given by the caller of the run. Behind a file that could not be prepared nothing is
    known of what its ports deliver, so nothing is said.
    """
    from ..control_flow import Loop
    from ..run_plan import PlanCheck, identity

    steps: list[Json] = []
    known: dict[Any, PreparedWorkflow] = {}
    count = 0
    for one, ready in zip(checked, prepared, strict=True):
        if ready is None or one.content is None:
            return
        steps.append(one.content)
        known[identity(one.content)] = ready
        given = {name for each in known.values() for name in each.inputs}
        found = PlanCheck(known, given).problems(Loop(body=steps, iterations=1), {})
        one.problems += [str(problem) for problem in found[count:]]
        count = len(found)


def _checked_json(one: _Checked) -> Json:
    notes = [_note_json(note) for note in one.notes]
    return {"workflow": one.name, "problems": one.problems, "notes": notes}


def _note_json(note: ConversionNote) -> Json:
    return {**dataclasses.asdict(note), "level": logging.getLevelName(note.level).lower()}


def _say_checked(checked: Sequence[_Checked], server: Json | None) -> None:
    for one in checked:
        for problem in one.problems:
            say(f"{one.name}: {problem}")
        for note in one.notes:
            say(f"{one.name}: {_note_text(note)}")
        if not one.problems:
            say(f"{one.name}: nothing is wrong")
    for problem in server["problems"] if server else ():
        say(problem)


def _note_text(note: ConversionNote) -> str:
    return f"{'warning' if note.level > logging.INFO else 'note'}: {note.text}"


# ---- convert ----


@click.command()
@click.argument("workflow", type=_FILE)
@click.option("-o", "--output", metavar="FILE", type=_TARGET, help="Write it to FILE instead of printing it.")
@_FORCE
@CONFIG
@JSON
def convert(workflow: Path, output: Path | None, force: bool, config_path: Path | None, as_json: bool) -> None:
    """Make the API prompt of an editor workflow, as the editor would.

    WORKFLOW is a file that the editor saved, a PNG that ComfyUI saved, or - for standard input. The prompt is what
    Export (API) in the editor gives; the server's own frontend makes it, so a server is started if none runs. What it
    leaves out or changes is told on standard error.
    """
    with _told():
        from ..prompt_graph import is_api_format

        if output is not None:
            _check_target(output, [workflow], force)
        content = _read(workflow)
        if is_api_format(content):
            raise ValueError(
                f"{_name(workflow)} is a prompt in API format already: there is nothing to convert. "
                f"`{command('run')}` and `{command('check')}` take it as it is."
            )
        prompt, notes = asyncio.run(_convert(content, config_path))
        if output is not None:
            _write(output, prompt)
        if as_json:
            where = None if output is None else str(output.resolve())
            say_json({"prompt": prompt, "notes": [_note_json(note) for note in notes], "file": where})
            return
        for note in notes:
            say(_note_text(note), err=True)
        if output is None:
            click.echo(json.dumps(prompt, indent=2))
        else:
            say(f"{output}: a prompt of {counted(len(prompt), 'node')}")


async def _convert(content: Json, config_path: Path | None) -> tuple[Json, list[ConversionNote]]:
    from ..discomfort import Discomfort

    _say_that_it_takes_time()
    async with await Discomfort.create(config_path) as d:
        return await d.Worker.get_prompt_from_workflow(content), await d.Worker.explain_conversion(content)


# ---- stitch ----


@click.command()
@_WORKFLOWS
@click.option("-o", "--output", metavar="FILE", type=_TARGET, required=True, help="The file to write.")
@click.option("--keep-ports", is_flag=True, help="Leave the joined ports in the workflow, where they only pass on.")
@_FORCE
@JSON
def stitch(workflows: Sequence[Path], output: Path, keep_ports: bool, force: bool, as_json: bool) -> None:
    """Make one workflow of several, joined at their ports.

    WORKFLOW is a file that the editor saved; the order is the one they would run in. Each OUTPUT port is wired to the
    INPUT ports of its name in the workflows behind it. What is written is a workflow for the editor, and its ports are
    listed. Nothing is run.
    """
    with _told():
        from ..workflow_graph import discover_ports
        from ..workflow_stitching import stitch_workflows

        _check_target(output, workflows, force)
        sources = [_read(path) if str(path) == _STDIN else path for path in workflows]
        joined = stitch_workflows(sources, delete_input_ports=not keep_ports, delete_output_ports=not keep_ports)
        content = joined["stitched_workflow"]
        found = discover_ports(content)
        _write(output, content)
        if as_json:
            say_json({"file": str(output.resolve()), "ports": [_port_json(content, port) for port in found]})
            return
        say(f"{output}: {counted(len(content['nodes']), 'node')} from {counted(len(workflows), 'workflow')}")
        say("")
        _say_ports(content, found, str(output))


# ---- files ----


def _check_target(target: Path, inputs: Sequence[Path], force: bool) -> None:
    """Refuse to write over an input, or over any file that is not to be replaced.

    Raises:
        ValueError: it says which, and what to do.
    """
    if any(str(path) != _STDIN and path.exists() and target.exists() and path.samefile(target) for path in inputs):
        raise ValueError(f"{target} is one of the files to read, and is not written over. Give --output another name.")
    if target.is_file() and not force:
        raise ValueError(f"{target} exists. Replace it with --force, or give --output another name.")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"There is no folder {target.absolute().parent}, where {target.name} is to be written.")


def _write(target: Path, content: Json) -> None:
    """Write JSON in one step: whoever reads the file meets all of it, or the one before."""
    data = (json.dumps(content, indent=2) + "\n").encode()
    target = target.resolve()  # a link stays one
    if target.exists() and not target.is_file():  # /dev/stdout, or a pipe
        target.write_bytes(data)
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}_", suffix=".tmp", dir=target.parent)
    young = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0o022)  # there is no way to read it without setting it
        os.umask(mask)
        young.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~mask)
        young.replace(target)
    except BaseException:
        young.unlink(missing_ok=True)
        raise
