"""``discomfort batch``: the same workflows on each of many items, from a shell."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .input_values import (
    ANY,
    check_value,
    choose_files,
    in_order,
    read_file,
    read_inputs,
    read_text,
    standard_input,
    suffixes_of,
)
from .output import Failure, Status, printable, say_json
from .running import (
    Common,
    Plan,
    first_options,
    last_options,
    loop_condition,
    read_plan,
    refuse_missing,
    refuse_unknown,
    say_what_starts,
    told,
)

if TYPE_CHECKING:
    from ..batch import BatchResult

Json = dict[str, Any]

_KEYS = ("name", "stem", "path", "number")
_GLOB = frozenset("*?[")


@click.command()
@first_options
@click.option(
    "--items",
    "sources",
    multiple=True,
    required=True,
    metavar="ITEMS",
    help="What to run on: a folder, a file, a pattern in quotes ('photos/*.png'), @LIST.txt (an item in each line), "
    "@LIST.json or .jsonl, or @- for lines on standard input. Repeatable.",
)
@click.option("--pattern", default="*", metavar="GLOB", help="Which files of a folder; '**/*' for its folders too.")
@click.option("--input-port", metavar="NAME", help="The port that items go to; needed if several have no other value.")
@click.option(
    "--key",
    type=click.Choice(_KEYS),
    default="name",
    help="What an item is known by, and its results are named after: the file's name (below the folder), the same "
    "without its ending, the path as given, or a number.",
)
@click.option(
    "-o",
    "--output",
    "--checkpoint",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    required=True,
    help="The folder for results, which is also the record of what is done: outputs/PORT/ITEM.png, results.csv, "
    "report.html. The same command again does what is not done yet. --output and --checkpoint are the same.",
)
@click.option(
    "--retry-failed/--no-retry-failed", default=True, help="Whether items that failed before are tried again."
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    help="What an item that fails does: be passed over, or end the batch.",
)
@last_options
def batch(
    sources: Sequence[str],
    pattern: str,
    input_port: str | None,
    key: str,
    folder: Path,
    retry_failed: bool,
    on_error: str,
    **common: Any,
) -> None:
    """Run workflows on each of many items, resumably.

    WORKFLOW is as in `run`. An item is a picture for a port that takes IMAGE or MASK; a line or a .txt file for STRING;
    a number for INT and FLOAT. In @LIST.json it is a value, or an object {port: value} for several ports; an object of
    such items names them. Paths in a list count from the list's folder. Values of -i are the same for all items, and
    so are -n, --until and --while: they are about the loop on one item.

    Each item that fails is told, and a table at the end has all. With --json: {"items": [{"item", "state", "seconds",
    "outputs", "error"}], "done", "done_before", "failed", "seconds", "folder", "results", "report"}.

    Exit status 0: all items are done, 1: the batch cannot be, 2: the command line is not understood, 3: there is no
    such WORKFLOW, 4: items failed, 130: Ctrl-C.
    """
    from ..control_flow import PerIteration

    options = Common(**common)
    options.check(has_folder=True)
    with told(options.quiet, options.verbose):
        options.check_bound(options.iterations)
        conditions = [text for text in (options.until, options.while_) if text is not None]
        plan = _read_plan(options, conditions)
        values = read_inputs(options.inputs, plan.kinds)
        for name in (name for name, value in values.items() if isinstance(value, PerIteration)):
            raise click.UsageError(f"-i {name}: in a batch the items are what changes: give it one value, or --items.")
        if input_port is not None:
            refuse_unknown([input_port], plan.wanted, "INPUT port that needs a value", "--input-port")
        port = input_port or _only([name for name in plan.wanted if name not in values])
        items = _Items(port, plan.kinds, key, pattern).read(sources)
        given = {*values, *([port] if port else []), *items.names}
        refuse_missing(plan, given)
        control = {
            **options.control(),
            "iterations": options.iterations or 1,
            "loop_condition": loop_condition(plan, options.until, options.while_, given),
            "checkpoint": folder,
            "retry_failed": retry_failed,
            "on_error": on_error,
            "input": port,
        }

        def read(kinds: dict[str, str]) -> tuple[Json, Json]:
            return read_inputs(options.inputs, kinds), _Items(port, kinds, key, pattern).read(sources).found

        say_what_starts(options)
        is_unknown = plan.has_unknown(list(given))
        result = asyncio.run(_run(options, plan, (values, items.found), read if is_unknown else None, control))
        _say_result(options, result)
    sys.exit(Status.NO if result.failures else Status.DONE)


def _read_plan(options: Common, conditions: Sequence[str]) -> Plan:
    """The plan; where a shell has spread a pattern of pictures over WORKFLOW..., that is said."""
    from ..batch import PICTURE_SUFFIXES

    try:
        return read_plan(options.workflows, conditions)
    except ValueError as e:
        pictures = [word for word in options.workflows if Path(word).suffix.lower() in PICTURE_SUFFIXES]
        if pictures and str(pictures[0]) in str(e):
            raise ValueError(f"{e} If it is an item: --items takes one; put patterns into quotes.") from e
        raise


def _only(names: Sequence[str]) -> str | None:
    """The port that items go to, where that was not said; None where there are several, or none."""
    return names[0] if len(names) == 1 else None


async def _run(
    options: Common,
    plan: Plan,
    found: tuple[Json, Json],
    read: Callable[[dict[str, str]], tuple[Json, Json]] | None,
    control: Json,
) -> BatchResult:
    """
    Args:
        found: values and items, as far as they can be read without a server.
        read: reads them again by the types that a server tells; None where it could not tell more.
    """
    from ..discomfort import Discomfort

    async with await Discomfort.create(options.config_path) as d:
        values, items = found if read is None else read(await plan.kinds_on(d))
        result: BatchResult = await d.run_batch(plan.steps, items, inputs=values, **control)
        return result


def _say_result(options: Common, result: BatchResult) -> None:
    folder = Path(result.checkpoint)
    if not options.as_json:
        for line in result.table().splitlines():
            click.echo(printable(line))
        return
    states = [row.state for row in result.rows]
    rows = [
        {"item": r.key, "state": r.state, "seconds": r.seconds, "outputs": r.outputs, "error": r.error or None}
        for r in result.rows
    ]
    say_json(
        {
            "items": rows,
            **{state.replace(" ", "_"): states.count(state) for state in ("done", "done before", "failed")},
            "seconds": result.seconds,
            "folder": str(folder),
            "results": str(folder / "results.csv"),
            "report": str(folder / "report.html"),
        }
    )


# --------------------------------------------------------------------------------------------------------------- items


class _Items:
    """The items of a batch, by their keys. A picture is a path, which is opened when its turn comes."""

    def __init__(self, port: str | None, kinds: dict[str, str], key: str, pattern: str):
        self._port, self._kinds, self._key, self._pattern = port, kinds, key, pattern
        #: {key: item}
        self.found: Json = {}
        #: names that items give values to
        self.names: set[str] = set()

    def read(self, sources: Sequence[str]) -> _Items:
        """
        Raises:
            click.UsageError: it is not said which port items go to, or two have one key.
            ValueError: there are none, or one cannot be read.
        """
        for source in sources:
            if source.startswith("@"):
                self._read_list(source[1:])
                continue
            place = Path(source).expanduser()
            if place.is_dir():
                for file in self._files_in(place):
                    self._add_file(file, file.relative_to(place).as_posix())
            elif place.exists():
                self._add_file(place, place.name)
            else:
                for file in _matching(source):
                    self._add_file(file, file.name)
        return self

    def _files_in(self, folder: Path) -> list[Path]:
        found = choose_files(folder.glob(self._pattern), self._kind())
        if not found:
            known = ", ".join(sorted(suffixes_of(self._kind())))
            raise ValueError(f"--items: {folder} has no file that matches {self._pattern!r} ({known}).")
        return found

    def _kind(self) -> str:
        """The type of the port that items go to.

        Raises:
            click.UsageError: it is not clear which one that is.
        """
        if self._port is None:
            names = ", ".join(map(repr, self._kinds)) or "none"
            raise click.UsageError(
                f"It is not clear which INPUT port the items go to; there are {names}. Say it with --input-port NAME; "
                "-i gives the others their values."
            )
        return self._kinds.get(self._port, ANY)

    def _add_file(self, file: Path, name: str) -> None:
        keys = {"name": name, "stem": str(Path(name).with_suffix("").as_posix()), "path": file.as_posix()}
        self._add(keys.get(self._key), _of_file(file, self._kind(), f"--items {file}"))

    def _add(self, key: str | None, item: Any) -> None:
        """*key*: None for a number."""
        key = f"item-{len(self.found):06d}" if key is None else key
        if key in self.found:
            hint = "--key path tells them apart" if self._key != "path" else "each may be given once"
            raise click.UsageError(f"Two items have the key {key!r}: {hint}.")
        self.found[key] = item
        self.names |= set(item) if isinstance(item, dict) else set()

    # ---- lists ----

    def _read_list(self, name: str) -> None:
        file = Path(name).expanduser()
        if name != "-" and not file.is_file():
            raise ValueError(f"--items: there is no file {file}, which is to have a list of items.")
        where, folder = ("--items @-", Path()) if name == "-" else (f"--items @{file}", file.parent)
        text = standard_input("--items") if name == "-" else read_file(file, "STRING", where)
        before = len(self.found)
        try:
            if file.suffix.lower() == ".json":
                self._add_json(json.loads(text), folder, where)
            else:
                is_json = file.suffix.lower() == ".jsonl"
                for number, line in enumerate(text.splitlines(), start=1):
                    if line.strip():
                        place = f"{where}, line {number}"
                        value = json.loads(line) if is_json else line.strip()
                        self._add_value(None, value, folder, place, is_text=not is_json)
        except json.JSONDecodeError as e:
            raise ValueError(f"{where} is not JSON: {e}") from e
        if len(self.found) == before:
            raise ValueError(f"{where} has no items.")

    def _add_json(self, content: Any, folder: Path, where: str) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                self._add_value(key, value, folder, f"{where}, {key!r}")
        elif isinstance(content, list):
            for number, value in enumerate(content):
                self._add_value(None, value, folder, f"{where}[{number}]")
        else:
            raise ValueError(f"{where} is a JSON {type(content).__name__}; a list of items, or an object, is wanted.")

    def _add_value(self, key: str | None, value: Any, folder: Path, where: str, is_text: bool = False) -> None:
        from ..prompt_graph import is_recipe

        if isinstance(value, dict) and not is_recipe(value):
            refuse_unknown(value, self._kinds, "INPUT port", where)
            item: Any = {n: _of_value(v, self._kinds[n], folder, f"{where}, {n!r}") for n, v in value.items()}
        else:
            item = _of_value(value, self._kind(), folder, where, is_text)
        if key is None and isinstance(item, Path) and self._key != "number":
            name = item.name if self._key == "name" else item.stem if self._key == "stem" else str(value)
            key = name
        self._add(key, item)


def _of_file(file: Path, kind: str, where: str) -> Any:
    """The item that a file is: pictures stay paths, which are opened by the port's type.

    Raises:
        ValueError: the file has no value of this type.
    """
    from ..batch import PICTURE_SUFFIXES

    members = set(kind.split(","))
    if members & {"IMAGE", "MASK"} or (ANY in members and file.suffix.lower() in PICTURE_SUFFIXES):
        return file
    if "LATENT" in members:
        raise ValueError(
            f"{where}: items of a batch are pictures for IMAGE and MASK, texts, numbers and JSON; the port takes "
            f"{kind}. Let a node of the workflow make it of a picture, or give it to all items with -i."
        )
    return read_file(file, kind, where)


def _of_value(value: Any, kind: str, folder: Path, where: str, is_text: bool = False) -> Any:
    """The item that a value of a list is: a text for a port that takes files is a path."""
    members = set(kind.split(","))
    if isinstance(value, str) and members & {"IMAGE", "MASK", "LATENT"}:
        file = folder / Path(value).expanduser()
        if not file.is_file():
            raise ValueError(f"{where}: there is no file {file}.")
        return _of_file(file, kind, where)
    try:
        return read_text(value, kind) if is_text else check_value(value, kind)
    except ValueError as e:
        raise ValueError(f"{where}: the port {e}") from e


def _matching(pattern: str) -> Iterable[Path]:
    """The files that a pattern of the whole path names.

    Raises:
        Failure: there are none.
    """
    import glob

    found = [Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)]
    files = in_order(file for file in found if file.is_file())
    if not files:
        what = "no file matches" if _GLOB & set(pattern) else "there is no folder or file"
        raise Failure(f"--items: {what} {pattern} (current directory: {Path.cwd()}).")
    return files
