"""``discomfort context``: a look at the data of runs, from outside (see object_store/ and workflow_context.py)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .. import value_summary, workflow_context
from ..object_store import ObjectInfo, RunStore, RunSummary, Usage, look_into
from ..workflow_context import StoreClosed, StoreError, UnknownKeyError
from .output import JSON, Failure, NotFound, say, say_json, say_table, showing_warnings
from .wording import ago, command, counted, date, duration, shortened, size

_CONFIG = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration that the runs were started with; without it the default one. Its CONTEXTS_DIR_NAME decides "
    "where their data is looked for.",
)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Let what the store refuses end the command with a paragraph, and what it warns of be seen."""
    try:
        with showing_warnings():
            yield
    except BrokenPipeError:  # `| head`: click ends the program in silence
        raise
    except (UnknownKeyError, StoreClosed) as exc:
        raise NotFound(str(exc)) from exc
    except (StoreError, OSError, ValueError) as exc:
        text = str(exc)
        if isinstance(exc, OSError) and isinstance(exc, StoreError):
            text = exc.strerror or text
        raise Failure(text) from exc


@click.group()
def context() -> None:
    """Look at the data of runs: what is stored, where, how much.

    A run's data lies in shared memory and on disk, in a folder of its own, for as long as its owner lives (the script
    that runs the workflows). `list` and `show` change nothing and may be used while runs are at work; `sweep` removes
    what dead processes left.
    """


# ---- list ----


@context.command(name="list")
@_CONFIG
@JSON
def list_(config_path: Path | None, as_json: bool) -> None:
    """List the runs of this user that have data here, live and dead."""
    with _told():
        runs = workflow_context.list_contexts(config_path)
        memory = _shared_memory(config_path)
        if as_json:
            content = {"runs": [_run_json(run) for run in runs], "shared_memory": memory}
            say_json(content)
            return
        _say_runs(runs, config_path)
        say(_memory_text(memory))


def _shared_memory(config_path: Path | None) -> dict[str, Any] | None:
    """The shared-memory filesystem; None where there is none."""
    root = workflow_context.context_roots(config_path).ram
    if root is None:
        return None
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return {"path": root, "total_bytes": usage.total, "free_bytes": usage.free}


def _memory_text(memory: dict[str, Any] | None) -> str:
    if memory is None:
        return "No shared memory here: runs keep everything on disk."
    free, total = size(memory["free_bytes"]), size(memory["total_bytes"])
    return f"Shared memory {memory['path']}: {free} of {total} free."


def _run_json(run: RunSummary) -> dict[str, Any]:
    return {**run._asdict(), "state": run.state}


def _say_runs(runs: list[RunSummary], config_path: Path | None) -> None:
    if not runs:
        say(f"No run has data here ({_places(config_path)}).")
        return
    header = ("RUN", "STATE", "OWNER", "AGE", ">KEYS", ">MEMORY", ">DISK", "FOLDER")
    names = _short_ids(runs)
    say_table(header, [_run_row(run, names[run.run_id]) for run in runs])
    say("")
    for run in runs:
        if run.problem:
            say(f"{names[run.run_id] or run.path}: {run.problem}")
    dead = [run for run in runs if run.is_alive is False]
    ram, disk = sum(run.ram_bytes for run in runs), sum(run.disk_bytes for run in runs)
    count = sum(bool(run.run_id) for run in runs)
    say(f"{counted(count, 'run')}, {len(dead)} dead: {size(ram)} of memory, {size(disk)} on disk.")
    if len(dead) < count:
        say(f"What a run holds: {command('context show', config_path)} RUN")
    if dead:
        say(
            f"The owner of a dead run ended without cleaning up. The next run removes what it left, or do it now: "
            f"{command('context sweep', config_path)}"
        )


def _run_row(run: RunSummary, name: str) -> Sequence[str]:
    if not run.run_id:
        return ("-", "refused", "", "", "", "", "", run.path)
    owner = "?" if run.owner_pid is None else str(run.owner_pid)
    if run.is_alive and run.owner_pid is not None:
        command = _command_of(run.owner_pid, run.created)
        owner = shortened(f"{run.owner_pid} {' '.join(map(os.path.basename, command[:3]))}".strip(), 28)
    age = "?" if run.created is None else duration(time.time() - run.created)
    sizes = (f"{run.keys:,}", size(run.ram_bytes), size(run.disk_bytes))
    return (name, run.state, owner, age, *sizes, run.path)


def _places(config_path: Path | None) -> str:
    """Where runs are looked for."""
    roots = workflow_context.context_roots(config_path)
    folders = dict.fromkeys(root for root in (roots.ram, roots.disk) if root is not None)
    return " and ".join(os.path.join(root, roots.home_name) for root in folders)


def _short_ids(runs: Iterable[RunSummary]) -> dict[str, str]:
    """The beginning of each run_id, as long as it takes to tell them apart."""
    ids = {run.run_id for run in runs}
    length = next(n for n in range(8, 33) if len({one[:n] for one in ids}) == len(ids))
    return {one: one[:length] for one in ids}


# ---- show ----


@context.command()
@click.argument("run_id")
@click.argument("key", required=False)
@click.option(
    "--sort",
    type=click.Choice(["name", "size", "age"]),
    default="name",
    help="The order of the keys: by name, the largest first (size), or the newest first (age).",
)
@click.option("--no-load", is_flag=True, help="With KEY: say what is known of the value without loading it.")
@_CONFIG
@JSON
def show(run_id: str, key: str | None, sort: str, no_load: bool, config_path: Path | None, as_json: bool) -> None:
    """Show what a run has stored, or describe the value of one KEY.

    RUN_ID may be the beginning of a run's id that no other has. KEY is as it was printed: with its quotes where it
    has some. A run whose owner is dead can be looked at too, until somebody sweeps.

    Without KEY nothing is loaded. With KEY the value is loaded into this process: it is a pickle, so its classes are
    imported and may run code, as in the script that made it. --no-load keeps it from that.

    Exit status 3 where there is no such run or key.
    """
    with _told():
        run = _find(run_id, config_path)
        with _open(run, config_path) as store:
            if key is None:
                _show_run(run, store, sort, as_json)
            else:
                _show_key(run, store, key, not no_load, as_json)


def _find(wanted: str, config_path: Path | None) -> RunSummary:
    """The run whose id is, or begins with, what was asked for."""
    start = os.path.basename(wanted.rstrip("/")).removeprefix("run-").lower()
    if not re.fullmatch(r"[0-9a-f]{1,32}", start):
        raise click.BadParameter(
            f"{wanted!r} is no run_id: it has 32 of the digits 0-9 and a-f, or fewer if they are the beginning of one",
            param_hint="RUN_ID",
        )
    runs = [run for run in workflow_context.list_contexts(config_path) if run.run_id.startswith(start)]
    if not runs:
        raise NotFound(
            f"no run's id {'is' if len(start) == 32 else 'begins with'} {start} (looked in {_places(config_path)}). "
            f"Its owner has shut it down, or it was swept, or it is in other folders (--config, DISCOMFORT_RAM_ROOT, "
            f"DISCOMFORT_DISK_ROOT). Those that exist: {command('context list', config_path)}"
        )
    if len(runs) > 1:
        found = ", ".join(f"{run.run_id} ({run.state})" for run in runs[:20]) + (", ..." if len(runs) > 20 else "")
        raise Failure(f"{len(runs)} runs' ids begin with {start}: {found}. Give more digits")
    return runs[0]


@contextlib.contextmanager
def _open(run: RunSummary, config_path: Path | None) -> Iterator[RunStore]:
    try:
        store = look_into(run, workflow_context.context_roots(config_path))
    except FileNotFoundError:
        reason = run.problem or "it was removed at this moment, or a part of it is missing"
        raise NotFound(f"run {run.run_id} has nothing to show: {reason}") from None
    with store:
        yield store


def _show_run(run: RunSummary, store: RunStore, sort: str, as_json: bool) -> None:
    usage = store.usage()
    rows = _sorted_rows(_look_at_keys(store), sort)
    if as_json:
        keys = [{"key": key, **(_info_json(info) if info else {"problem": problem})} for key, info, problem in rows]
        content = {"run": _run_json(run), "usage": usage._asdict(), "keys": keys}
        say_json(content)
        return
    say(f"Run {run.run_id}, {run.state}")
    say(f"  owner   {_owner_text(run)}")
    if run.path != run.disk_path:
        say(f"  memory  {_memory_use(run, usage)}, {run.path}")
    if run.disk_path is not None:
        say(f"  disk    {size(usage.disk_bytes)}, {run.disk_path}")
    if run.problem:
        say(f"  note    {run.problem}")
    say("")
    if not rows:
        say("Nothing is stored.")
    else:
        header = ("KEY", ">SIZE", "WHERE", "KIND", "DIGEST", "SAVED", "BY")
        say_table(header, [_key_row(*row) for row in rows])
    damaged = usage.keys - len(rows)
    if damaged > 0:
        say(f"{counted(damaged, 'more entry', 'more entries')} could not be read.")


def _memory_use(run: RunSummary, usage: Usage) -> str:
    """What the run has in shared memory, in words."""
    text = size(usage.ram_bytes)
    if run.is_alive and usage.ram_capacity:
        text += f" of the {size(usage.ram_capacity)} it may use"
    if usage.held_bytes:
        text += f" ({size(usage.held_bytes)} of it replaced values that are still in use)"
    return text + (f", {size(usage.idle_bytes)} idle" if usage.idle_bytes else "")


_Row = tuple[str, "ObjectInfo | None", str]


def _look_at_keys(store: RunStore) -> list[_Row]:
    """Key, what is known of it, and why nothing is; keys that are deleted meanwhile are left out."""
    rows: list[_Row] = []
    for key in store.list_keys():
        try:
            info = store.info(key)
        except StoreClosed:
            raise
        except (StoreError, OSError) as exc:
            rows.append((key, None, str(exc)))
        else:
            if info is not None:
                rows.append((key, info, ""))
    return rows


def _sorted_rows(rows: list[_Row], sort: str) -> list[_Row]:
    if sort == "size":
        return sorted(rows, key=lambda row: -row[1].size if row[1] else 0)
    if sort == "age":
        return sorted(rows, key=lambda row: -row[1].created_ns if row[1] else 0)
    return sorted(rows, key=lambda row: _natural(row[0]))


def _natural(name: str) -> list[tuple[int, str]]:
    """What sorts "iteration 10" behind "iteration 9"."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part.lstrip("0")), part) if index % 2 else (0, part) for index, part in enumerate(parts)]


def _key_row(key: str, info: ObjectInfo | None, problem: str) -> Sequence[str]:
    if info is None:
        return (_name(key), "", "", problem, "", "", "")
    algorithm, _, digits = info.digest.partition(":")
    return (
        _name(key),
        size(info.size),
        "memory" if info.storage_type == "ram" else "disk",
        "recipe" if info.is_recipe else "value",
        f"{algorithm}:{digits[:12]}",
        ago(info.created_ns / 1e9),
        f"pid {info.pid}",
    )


def _info_json(info: ObjectInfo) -> dict[str, Any]:
    return {**info.as_dict(), "path": info.path}


def _show_key(run: RunSummary, store: RunStore, wanted: str, is_loaded: bool, as_json: bool) -> None:
    key = _key_of(store, wanted)
    info, value = _load(store, key, is_loaded)
    summary = value_summary.summarize(value) if is_loaded else None
    if as_json:
        content = {"run_id": run.run_id, "key": key, **_info_json(info), "value": summary}
        say_json(content)
        return
    saved = info.created_ns / 1e9
    say(f"{_name(key, limit=1000)} in run {run.run_id}, {run.state}")
    say(f"  size    {size(info.size)}{', a recipe' if info.is_recipe else ''}")
    say(f"  {'memory' if info.storage_type == 'ram' else 'disk  '}  {info.path}")
    say(f"  digest  {info.digest}")
    say(f"  saved   {date(saved)}, {ago(saved)}, by {_process_text(info.pid, saved)}")
    if summary is not None:
        say("")
        for line in value_summary.as_lines(summary):
            say(line)


def _load(store: RunStore, key: str, is_loaded: bool) -> tuple[ObjectInfo, Any]:
    """What is known of a key, and the value that is known of: a run at work may replace it between the two."""
    tries = 0
    while True:
        info = store.info(key)
        if info is None:
            raise store.unknown(key)
        value = store.get(key) if is_loaded else None
        after = store.info(key)
        tries += 1
        if after is None or (after.created_ns, after.digest) == (info.created_ns, info.digest) or tries == 10:
            return info, value


def _key_of(store: RunStore, wanted: str) -> str:
    """The key that was meant: as it was typed, or as it was printed, in quotes."""
    if store.has(wanted):
        return wanted
    for key in store.list_keys():
        if repr(key) == wanted:
            return key
    raise store.unknown(wanted)


# ---- sweep ----


@context.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_CONFIG
@JSON
def sweep(dry_run: bool, config_path: Path | None, as_json: bool) -> None:
    """Remove what dead owners left, in memory and on disk.

    Runs whose owner lives are never touched. Every new run does this by itself. Exit status 0 also where there was
    nothing to remove.
    """
    with _told():
        before = workflow_context.list_contexts(config_path)
        if dry_run:
            removed = [path for run in before if run.is_alive is False for path in _folders(run)]
        else:
            removed = workflow_context.sweep(config_path)
        swept = [run for run in before if run.run_id and run.path in removed]
        ram, disk = sum(run.ram_bytes for run in swept), sum(run.disk_bytes for run in swept)
        if as_json:
            content = {"dry_run": dry_run, "removed": removed, "ram_bytes": ram, "disk_bytes": disk}
            say_json({**content, "runs": [_run_json(run) for run in swept]})
            return
        verb = "Would remove" if dry_run else "Removed"
        for run in swept:
            owner = f"its owner, pid {run.owner_pid}, is dead" if run.owner_pid is not None else "it has no owner"
            say(f"{verb} run {run.run_id}: {owner}; {counted(run.keys, 'key')}")
        for path in removed:
            say(f"  {path}")
        if removed:
            say(f"{'It would free' if dry_run else 'Freed'} {size(ram)} of memory and {size(disk)} on disk.")
        else:
            say("Nothing to remove: no dead owner left anything.")
        _say_what_stays(before, dry_run)


def _folders(run: RunSummary) -> list[str]:
    return list(dict.fromkeys(path for path in (run.path, run.disk_path) if path is not None))


def _say_what_stays(runs: list[RunSummary], dry_run: bool) -> None:
    live = sum(run.is_alive is True for run in runs)
    if live:
        say(f"{counted(live, 'run is', 'runs are')} in use and left alone.")
    for run in runs:
        # Without --dry-run the sweep itself has warned of it.
        if run.is_alive is None and dry_run:
            say(f"{run.path} would be left alone: {run.problem}")


# ---- text ----


def _name(key: str, limit: int = 48) -> str:
    """A key as it is, or as Python writes it where that could be misread; a long one without its middle."""
    is_plain = key.isprintable() and key == key.strip() != "" and key[0] not in "'\"" and "  " not in key
    text = key if is_plain else repr(key)
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def _owner_text(run: RunSummary) -> str:
    """Who made the run; its command only where that process can be it."""
    if run.owner_pid is None:
        who = "not known"
    elif run.is_alive:
        who = _process_text(run.owner_pid, run.created)
    else:
        who = f"process {run.owner_pid}" + ("" if run.is_alive is None else ", which is dead")
    return who if run.created is None else f"{who}, made {date(run.created)}, {ago(run.created)}"


def _process_text(pid: int, by: float | None = None) -> str:
    """``process 12 (python refine.py)``."""
    command = _command_of(pid, by)
    if not command:
        return f"process {pid}"
    return f"process {pid} ({' '.join([os.path.basename(command[0]), *command[1:]])[:100]})"


def _command_of(pid: int, by: float | None) -> list[str]:
    """The command of a process, one line; nothing where that began after the moment ``by``, so is another by now."""
    import psutil

    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        if by is None or process.create_time() < by + 2:
            return [" ".join(word.split()) for word in process.cmdline()]
    return []
