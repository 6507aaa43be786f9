"""``discomfort demo``: the examples that come with the package, to run and to copy.

They are in examples/ beside the package's own files, in a clone and in an installed package alike: scripts, the
workflows and photographs that they use, and modules that they share.
"""

from __future__ import annotations

import ast
import filecmp
import importlib.metadata
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from .output import JSON, Failure, NotFound, Status, say, say_json, say_table
from .wording import command, counted

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: what runs without a name: the loop of the first page
FIRST = "refine"
#: what a copy is tried with: an example, and a command, that need nothing but the package and its server
_NEXT = "zoom"
_NEXT_RUN = "run workflows/refine.json -i image=@photos/meadow.jpg -i amount=0.05 -n 5 -o results"
# What the examples import beside the package itself; all of it comes with this extra.
_EXTRA = 'pip install "discomfort[demo]"'
_OF_EXTRA = frozenset({"matplotlib", "torch", "PIL", "numpy"})


class Example(NamedTuple):
    """A script that can be run."""

    name: str
    # The first line of its docstring.
    help: str
    # The sentence of its docstring that says which models it needs; "" where it needs none.
    needs: str
    path: Path


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the names that begin so."""
    try:
        return [name for name in examples() if name.startswith(incomplete)]
    except NotFound:
        return []


# What stands behind NAME is the script's own, options too.
@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name", required=False, shell_complete=_complete)
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT...]")
@click.option("--list", "is_list", is_flag=True, help="List the examples.")
@click.option(
    "--copy",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy all examples, with their workflows and photographs, to FOLDER. Files there are never replaced.",
)
@JSON
def demo(name: str | None, arguments: Sequence[str], is_list: bool, folder: Path | None, as_json: bool) -> None:
    """Run an example, or copy the examples to try them.

    Without NAME it is `refine`: a photograph is sharpened in a loop until it is sharp enough. Results go to
    discomfort-results in the current folder. A server is started if none runs; where there is no ComfyUI it is the
    embedded one, which comes with the package. What stands behind NAME is handed on to the script, options too.
    """
    if is_list and folder is not None:
        raise click.UsageError("--list and --copy do not go together.")
    if (is_list or folder is not None) and name is not None:
        raise click.UsageError("NAME does not go with --list and --copy, which are about all examples.")
    if as_json and not is_list and folder is None:
        raise click.UsageError("--json goes with --list and --copy: an example prints what it likes.")
    if is_list:
        _list(as_json)
    elif folder is not None:
        _copy(folder.expanduser(), as_json)
    else:
        _run(_find(name or FIRST), arguments)


# ---- what there is ----


def examples() -> dict[str, Example]:
    """The examples by name, in alphabetical order.

    Raises:
        NotFound: they are not part of this installation.
    """
    found = {path.stem: one for path in sorted(EXAMPLES.glob("*.py")) if (one := _read(path)) is not None}
    if not found:
        raise NotFound(
            f"The examples are not part of this installation (looked in {EXAMPLES}). They are in the folder examples "
            "of the project's repository."
        )
    return found


def _read(path: Path) -> Example | None:
    """What a script says of itself; None for a module that others import."""
    code = ast.parse(path.read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in code.body):
        return None
    text = ast.get_docstring(code) or ""
    first, _, rest = text.partition("\n")
    needs = next(filter(_tells_of_models, re.split(r"(?<=[.!?])\s+", rest.strip())), "")
    return Example(path.stem, first, " ".join(needs.split()), path)


def _tells_of_models(sentence: str) -> bool:
    return (
        re.search(r"\bneeds (?!no\b)[^,;]*\b(?:checkpoint|model)s?\b", sentence, re.IGNORECASE | re.DOTALL) is not None
    )


def _find(name: str) -> Example:
    there = examples()
    found = there.get(name.removesuffix(".py"))
    if found is None:
        raise NotFound(
            f"There is no example {name!r}. There are: {', '.join(there)}. `{command('demo --list')}` says more."
        )
    return found


def _list(as_json: bool) -> None:
    found = list(examples().values())
    if as_json:
        say_json({"examples": [{**one._asdict(), "path": str(one.path)} for one in found]})
        return
    say_table(["NAME", "WHAT IT DOES"], [[one.name, f"{one.help} {one.needs}".rstrip()] for one in found])
    say("")
    say(f"Run one: {command('demo')} NAME")
    say(f"Copy all of them, to read and change: {command('demo')} --copy FOLDER")


# ---- run ----


def _run(example: Example, arguments: Sequence[str]) -> None:
    """Run a script as `python SCRIPT ARGUMENTS...` would, in this process, with errors for people."""
    package = __package__.rpartition(".")[0]
    # However this package was found, `from discomfort import ...` in the script means this one.
    sys.modules.setdefault("discomfort", sys.modules[package])
    before = sys.argv, list(sys.path)
    sys.argv = [str(example.path), *arguments]
    sys.path.insert(0, str(example.path.parent))
    try:
        runpy.run_path(str(example.path), run_name="__main__")
    except ModuleNotFoundError as e:
        raise _missing(example, e) from e
    except BrokenPipeError:  # `| head`: main() ends the program in silence
        raise
    except SystemExit as e:
        if isinstance(e.code, str):
            raise Failure(e.code) from e
        raise
    except KeyboardInterrupt as e:
        raise Failure(str(e) or "stopped.", Status.INTERRUPTED) from e
    except Exception as e:
        if not _is_for_people(e):
            raise
        raise Failure(f"The example {example.name} failed: {e}") from e
    finally:
        sys.argv, sys.path[:] = before


def _is_for_people(error: Exception) -> bool:
    """Whether an error says in its text what is wrong and what to do; a mistake in a script shows its traceback.

    What a module that was not even loaded defines was not raised.
    """
    modules = {
        "object_store": ["StoreError"],
        "run_plan": ["PreflightError", "ProtocolError", "MissingValueError", "PortTypeError"],
        "durable.run_folder": ["RunFolderError"],
        "observing.run_control": ["RunStoppedError"],
        "workflow_tools": ["WorkflowExecutionError"],
    }
    package = __package__.rpartition(".")[0]
    loaded = [(sys.modules.get(f"{package}.{name}"), names) for name, names in modules.items()]
    kinds = [getattr(module, name) for module, names in loaded if module is not None for name in names]
    return isinstance(error, (OSError, *kinds))


def _missing(example: Example, error: ModuleNotFoundError) -> Failure:
    name = (error.name or "").partition(".")[0]
    if name in _OF_EXTRA:
        advice = f"{_EXTRA} installs what the examples use."
    else:
        advice = f"`{command('doctor')}` says what is missing, and how to install it."
    return Failure(
        f"The example {example.name} needs the package {name}, which is not installed in {sys.executable}. {advice}"
    )


# ---- copy ----


def _files() -> Iterator[Path]:
    """The files of the examples, relative to their folder."""
    for path in sorted(EXAMPLES.rglob("*")):
        relative = path.relative_to(EXAMPLES)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in relative.parts):
            yield relative


def _copy(folder: Path, as_json: bool) -> None:
    """Copy the examples; nothing at all where a file there is another one."""
    examples()  # says where there are none
    files = list(_files())
    try:
        differing = [file for file in files if _differs(folder / file, EXAMPLES / file)]
        new = [file for file in files if not (folder / file).exists()]
        if not differing:
            for file in new:
                _copy_file(EXAMPLES / file, folder / file)
    except OSError as e:
        raise Failure(f"The examples cannot be copied to {folder}: {e}") from e
    if differing:
        raise Failure(
            f"{folder} has {counted(len(differing), 'file')} of its own under the names of examples: "
            f"{', '.join(file.as_posix() for file in differing)}. Nothing was copied. Name another folder, or move "
            "them away."
        )
    if as_json:
        copied, unchanged = ([file.as_posix() for file in files if (file in new) is is_new] for is_new in (True, False))
        say_json({"folder": str(folder.resolve()), "copied": copied, "unchanged": unchanged})
        return
    already = f"; {len(files) - len(new)} were there already" if len(new) < len(files) else ""
    say(f"{counted(len(new), 'file')} copied to {folder}{already}.")
    say("")
    say(f"Next: cd {shlex.quote(str(folder))}")
    say(f"      python {_NEXT}.py")
    _say_how_to_install()
    say("")
    say("The workflows are in the folder workflows: open them in ComfyUI, or run them from the shell, too:")
    say(f"      {command(_NEXT_RUN)}")


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file in one step, so that Ctrl-C leaves no half of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    young = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(source, young)
        young.replace(target)
    finally:
        young.unlink(missing_ok=True)


def _say_how_to_install() -> None:
    """The scripts import the package by its name, which a pack in custom_nodes does not have."""
    try:
        importlib.metadata.version("discomfort")
    except importlib.metadata.PackageNotFoundError:
        package = EXAMPLES.parent
        say(f"First install the package, which the scripts import: pip install {shlex.quote(str(package))}")


def _differs(target: Path, source: Path) -> bool:
    """Whether something else is where a file is to be copied to."""
    if not target.exists():
        return target.is_symlink()
    return not target.is_file() or not filecmp.cmp(target, source, shallow=False)
