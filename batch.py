"""Many items through the same workflows: a folder of pictures, a list, an iterator; resumable, a bad one among them
does not end it.

::

    async for item in d.run_batch(["upscale.json"], Path("photos"), checkpoint="upscaled"):
        print(item.key, item.outputs["image"].shape)

An item is run as a run's iteration is; what it delivered is saved (durable/batch_folder.py) while the next one is on
the server, and the one after that is read from disk. A key names an item: what is done under it is not done again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import csv
import dataclasses
import io
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .durable.batch_folder import BatchFolder, load_item, source_note
from .durable.source_files import file_note, open_file
from .progress_events import ItemFinished, IterationFinished, IterationStarted, RunStarted
from .run_plan import PlanCheck, raise_problems
from .run_record import IterationFailure, error_entry

if TYPE_CHECKING:
    from .object_store import HeldObject
    from .workflow_tools import DiscomfortWorkflowTools

log = logging.getLogger("discomfort.batch")

Json = dict[str, Any]

#: suffixes of the files that a folder's items are
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


@dataclasses.dataclass
class BatchItem:
    """One item, done or failed."""

    #: its name
    key: str
    #: its place in the record, from 0
    number: int
    #: "done", "failed", or "done before": by an earlier call, which left its files in the folder
    state: str
    #: {unique_id: value} of what the OUTPUT ports delivered. Of an item that was done before it is read from the files:
    #: pictures have 8 bits then
    outputs: Mapping[str, Any]
    #: {unique_id: files}, where the batch is kept in a folder
    files: Mapping[str, list[Path]]
    #: seconds that it took
    seconds: float
    #: what went wrong; None where nothing did
    error: IterationFailure | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has outputs."""
        return self.error is None


@dataclasses.dataclass
class BatchRow:
    """An item in the table of a batch: without its values."""

    key: str
    state: str
    seconds: float
    #: {unique_id: file, or the value where it is a number or short text}
    outputs: dict[str, Any]
    error: str = ""


class _Outputs(Mapping[str, Any]):
    """Values that are read from files when they are asked for."""

    def __init__(self, folder: Any, entry: Json):
        self._folder, self._entry = folder, entry
        self._values: dict[str, Any] | None = None

    def _load(self) -> dict[str, Any]:
        if self._values is None:
            self._values = load_item(self._folder, self._entry)
        return self._values

    def __getitem__(self, name: str) -> Any:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entry["collected"])

    def __len__(self) -> int:
        return len(self._entry["collected"])


class BatchResult:
    """What became of a batch: `rows`, one for each item, in the order in which they ended."""

    def __init__(self) -> None:
        self.rows: list[BatchRow] = []
        #: seconds from the call to the end
        self.seconds = 0.0
        #: the folder, "" for none
        self.checkpoint = ""

    @property
    def failures(self) -> list[BatchRow]:
        """The items that failed."""
        return [row for row in self.rows if row.state == "failed"]

    @property
    def done(self) -> list[BatchRow]:
        """The items that have outputs."""
        return [row for row in self.rows if row.state != "failed"]

    def table(self, most: int = 50) -> str:
        """For people: the failed items, the others as far as there is room for *most* rows, and the sums."""
        shown = [*self.failures[:most], *self.done][:most]
        width = max([4, *(min(len(row.key), 40) for row in shown)])
        lines = [f"{'item':<{width}}  {'state':<11}  {'seconds':>8}  result"]
        for row in shown:
            outputs = ", ".join(f"{name}: {value}" for name, value in row.outputs.items())
            # Below the folder that the last line names; whole paths would fill the row.
            outputs = outputs.replace(str(Path(self.checkpoint, "_"))[:-1], "") if self.checkpoint else outputs
            result = row.error.splitlines()[0] if row.error else outputs
            key = row.key if len(row.key) <= 40 else f"...{row.key[-37:]}"
            lines.append(f"{key:<{width}}  {row.state:<11}  {row.seconds:>8.2f}  {result[:200]}")
        if len(self.rows) > len(shown):
            lines.append(f"... and {len(self.rows) - len(shown)} more")
        counts = collections.Counter(row.state for row in self.rows)
        sums = ", ".join(f"{counts[state]} {state}" for state in ("done", "done before", "failed") if counts[state])
        rate = f", {counts['done'] / self.seconds:.2f} items/s" if self.seconds and counts["done"] else ""
        lines.append(f"{len(self.rows)} items: {sums or 'none'}; {self.seconds:.1f} s{rate}")
        if self.checkpoint:
            lines.append(
                f"All of them: {Path(self.checkpoint) / 'results.csv'}, {Path(self.checkpoint) / 'report.html'}"
            )
        return "\n".join(lines)

    def to_csv(self) -> str:
        """All rows, as CSV: item, state, seconds, error, and a column for each output."""
        names = sorted({name for row in self.rows for name in row.outputs})
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(["item", "state", "seconds", "error", *names])
        for row in self.rows:
            values = [row.outputs.get(name, "") for name in names]
            writer.writerow([row.key, row.state, f"{row.seconds:.3f}", row.error.replace("\n", " | "), *values])
        return stream.getvalue()

    def __repr__(self) -> str:
        return f"<BatchResult {len(self.done)} done, {len(self.failures)} failed>"


@dataclasses.dataclass
class _Item:
    """An item whose turn comes."""

    key: str
    source: Any
    note: Json
    #: {unique_id: value}; None where they could not be read
    values: dict[str, Any] | None = None
    error: Exception | None = None


class Batch:
    """A batch that is about to run: iterate over it, or await it. Made by ``run_batch``.

    ``async for item in batch`` gives a BatchItem for each item, in the order in which they end. ``await batch`` runs to
    the end and returns the BatchResult; without a folder nothing of the values would be left, so it needs one.
    ``async with batch:`` ends it in an orderly way where the loop is left early. It runs once.
    """

    def __init__(self, tools: DiscomfortWorkflowTools, options: Json, items: Any, batch_options: Json):
        self._tools = tools
        self._options = options
        self._items = items
        self._input: str | None = batch_options["input"]
        self._key: Callable[[Any], Any] | None = batch_options["key"]
        self._pattern: str = batch_options["pattern"]
        self._retry_failed: bool = batch_options["retry_failed"]
        self._is_begun = False
        self._slots = asyncio.Semaphore(0)
        self._producer: asyncio.Task[None] | None = None
        #: what is known so far; complete when the iteration has ended
        self.result = BatchResult()

    def __repr__(self) -> str:
        return f"<Batch {self.result!r}>"

    def table(self, most: int = 50) -> str:
        """The table of what has ended so far, see BatchResult.table."""
        return self.result.table(most)

    def __await__(self) -> Generator[Any, None, BatchResult]:
        return self._run_to_end().__await__()

    async def _run_to_end(self) -> BatchResult:
        if self._options["checkpoint"] is None:
            raise ValueError(
                "await run_batch(...) would leave nothing of what items deliver: give it a folder (checkpoint=), or "
                "iterate over it: async for item in run_batch(...)."
            )
        async for _ in self:
            pass
        return self.result

    async def __aenter__(self) -> Batch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it: what runs is interrupted, what is done stays done. Idempotent."""
        producer, self._producer = self._producer, None
        if producer is not None and not producer.done():
            producer.cancel()
            await asyncio.wait([producer])

    async def __aiter__(self) -> AsyncIterator[BatchItem]:
        if self._is_begun:
            raise RuntimeError("This batch has begun already. Call run_batch() again; what is done is not done again.")
        self._is_begun = True
        queue: asyncio.Queue[BatchItem | BaseException | None] = asyncio.Queue()
        # An item may run, and one wait for the caller: a slow caller slows the batch rather than filling the memory.
        self._slots = asyncio.Semaphore(2)
        self._producer = asyncio.create_task(self._produce(queue), name="discomfort-batch")
        try:
            while True:
                found = await queue.get()
                if found is None:
                    break
                if isinstance(found, BaseException):
                    raise found
                self._slots.release()
                yield found
        finally:
            await self.aclose()

    async def _produce(self, queue: asyncio.Queue[BatchItem | BaseException | None]) -> None:
        """Run the batch, and hand over its items; at last None, or what ended it."""
        try:
            await self._run(queue.put_nowait)
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            queue.put_nowait(e)
        else:
            queue.put_nowait(None)

    # ---- running ----

    async def _run(self, hand_over: Callable[[BatchItem], None]) -> None:
        from .workflow_tools import _check_server_is_near, _Run

        started = time.perf_counter()
        tools, request = self._tools, self._tools._read_batch_request(self._options)
        if not tools._has_server():
            raise_problems(request.problems)
        upcoming = _Upcoming(self._items, self._pattern, self._key, self._options.get("checkpoint"))
        async with tools._init_connector() as connector, tools._setup_storage(None) as store:
            _check_server_is_near(connector)
            run = _Run.of(request, store, connector, self._options["use_ram"])

            async def at_end() -> None:
                await upcoming.close()
                self.result.seconds = time.perf_counter() - started
                if isinstance(run.checkpoint, BatchFolder):
                    with contextlib.suppress(OSError):  # it can be made again from the journal
                        await asyncio.to_thread(run.checkpoint.folder.write_results, self.result.to_csv())

            async with tools._ending(run, started, at_end):
                problems = [*request.problems, *await tools._prepare_all(run, request.outer)]
                raise_problems(problems)
                self._choose_input(run, request)
                upcoming.kinds = self._picture_kinds(run)
                for name, value in request.inputs.items():
                    run.save(name, value)
                await tools._open_batch_folder(run, request)
                self.result.checkpoint = run.checkpoint.path
                if isinstance(run.checkpoint, BatchFolder):
                    run.checkpoint.total = upcoming.total
                run.tell(RunStarted(store.run_id, upcoming.total or 0, connector.server_description, "item"))
                tools._begin_watch(run, request, upcoming.total, "item")
                await _ItemRunner(self, run, request, upcoming, hand_over).run_all()
        log.info("%s", run.record.summary())

    def _choose_input(self, run: Any, request: Any) -> None:
        """Find the port that items go to, where that was not said.

        Raises:
            ValueError: there are several, or none.
        """
        if self._input is not None:
            return
        made: set[str] = set()
        wanted: list[str] = []
        for prepared in run.prepared.values():
            wanted += [name for name in prepared.inputs if name not in made and name not in request.inputs]
            made |= set(prepared.outputs)
        names = list(dict.fromkeys(wanted))
        self._input = names[0] if len(names) == 1 else None  # else items have to be dicts

    def _picture_kinds(self, run: Any) -> dict[str, str]:
        """{port: what a picture for it is opened as}, "MASK" or "IMAGE"; "" is the port that items go to."""
        wanted: dict[str, set[str]] = {}
        for prepared in run.prepared.values():
            for name, kind in prepared.input_types.items():
                wanted.setdefault(name, set()).update(one.strip() for one in kind.split(","))
        kinds = {
            name: "MASK" if "MASK" in types and "IMAGE" not in types else "IMAGE" for name, types in wanted.items()
        }
        return {**kinds, "": kinds.get(self._input or "", "IMAGE")}


class _ItemRunner:
    """Runs the items of a batch one after the other; one is saved while the next one runs."""

    def __init__(
        self, batch: Batch, run: Any, request: Any, upcoming: _Upcoming, hand_over: Callable[[BatchItem], None]
    ):
        self._batch, self._run, self._request = batch, run, request
        self._tools, self._upcoming, self._hand_over = batch._tools, upcoming, hand_over
        self._folder: BatchFolder | None = run.checkpoint if isinstance(run.checkpoint, BatchFolder) else None
        self._saving: asyncio.Task[None] | None = None
        self._is_checked = False
        self._started = time.monotonic()
        # Items that were run by this call, and those of all that failed.
        self._ran = self._failed = 0
        self._numbers = 0

    async def run_all(self) -> None:
        try:
            async for item in self._upcoming:
                await self._batch._slots.acquire()
                self._run.stop.check()
                await self._run_item(item)
            await self._finish_saving()
        finally:
            if self._saving is not None:
                await asyncio.wait([self._saving])

    async def _run_item(self, item: _Item) -> None:
        entry = self._folder.done(item.key, item.note) if self._folder else None
        if entry is not None and self._folder is not None:
            files = {name: [self._folder.folder.path / f for f in found] for name, found in entry["files"].items()}
            outputs = _Outputs(self._folder.folder, entry)
            done = BatchItem(item.key, entry["iteration"], "done before", outputs, files, entry.get("seconds", 0.0))
            self._give(done, entry["collected"])
            return
        failed = self._folder.failed(item.key, item.note) if self._folder else None
        if failed is not None and not self._batch._retry_failed:
            recorded = failed.get("error") or {}
            failure = IterationFailure(failed["iteration"], recorded.get("message", ""), recorded.get("type", ""))
            self._give(BatchItem(item.key, failed["iteration"], "failed", {}, {}, 0.0, failure), {})
            return
        number = self._folder.number_of(item.key) if self._folder else self._numbers
        self._numbers += 1
        await self._run_until_decided(item, number)

    async def _run_until_decided(self, item: _Item, number: int) -> None:
        """Run an item until it is done, skipped, or the end of the batch."""
        run, attempt = self._run, 0
        if item.values is not None:
            self._check(self._by_port(item))
        while True:
            attempt += 1
            started = time.perf_counter()
            changed = {name for one in run.prepared.values() for name in one.outputs} | set(item.values or {})
            run.checkpoint.begin_iteration(number, changed, True)
            run.produced = set()
            try:
                if item.error is not None and attempt == 1:
                    raise item.error
                await self._run_once(item, number, again=attempt > 1)
                held = {name: run.context.hold(name) for name in sorted(run.produced)}
                values = {name: run.values[name] for name in held}
            except Exception as e:
                failure = IterationFailure.of(number, e, attempt)
                decision = await self._tools._decide(run, failure)
                if decision == "stop":
                    raise
                await run.checkpoint.undo_iteration()
                if decision == "retry":
                    continue
                await self._skip(item, number, failure, time.perf_counter() - started)
                return
            await run.checkpoint.undo_iteration()
            seconds = time.perf_counter() - started
            run.record.iterations += 1
            await self._save(item, number, held, values, seconds)
            return

    async def _run_once(self, item: _Item, number: int, again: bool) -> None:
        """Put an item's values into the context, and run the workflows."""
        run = self._run
        if item.values is None or again:
            item.values = await asyncio.to_thread(_open_values, item.source, self._upcoming.kinds)
        values, files = self._by_port(item), self._files_by_port(item)
        await run.checkpoint.live()
        run.tell(IterationStarted(run.context.run_id, number, self._upcoming.total or 0, (number,)))
        run.watch.begin_iteration((number,))
        for name, value in values.items():
            run.save(name, value)
            if self._folder is not None:
                await self._folder.note_input((number,), name, sequence=True, file=files.get(name))
        # Seeds go on from item to item as they do from iteration to iteration; and as they would have without a crash.
        run.executions = collections.Counter(
            dict.fromkeys(run.prepared, number * (self._request.outer.iterations or 1))
        )
        outer = self._request.outer
        if outer.iterations == 1 and outer.condition is None:
            await self._tools._run_steps(run, outer.body, (number,))
        else:
            await self._tools._run_loop(run, outer, (number,))

    def _check(self, values: Mapping[str, Any]) -> None:
        """Refuse what is wrong with the plan, and thus with all items, when the first one is at hand.

        Raises:
            ValueError: see run_plan.
        """
        if self._is_checked:
            return
        self._is_checked = True
        plan = PlanCheck(self._run.prepared, {*self._run.context.list_keys(), *values}, self._request.has_gaps)
        raise_problems(plan.problems(self._request.outer, {**self._request.inputs, **values}, ()))

    def _by_port(self, item: _Item) -> dict[str, Any]:
        """{unique_id: value} of an item.

        Raises:
            ValueError: it is not said which port it goes to.
        """
        values = item.values or {}
        if "" not in values:
            return values
        if self._batch._input is None:
            names = sorted({name for one in self._run.prepared.values() for name in one.inputs})
            raise ValueError(
                f"It is not clear which INPUT port the items go to; there are {', '.join(map(repr, names)) or 'none'}. "
                "Say it with input='name', or let items be dicts {name: value}."
            )
        return {self._batch._input: values[""]}

    def _files_by_port(self, item: _Item) -> dict[str, Json]:
        """{unique_id: note} of the files that an item's values were read from, as they looked when it was read."""
        kinds = self._upcoming.kinds
        parts = item.source if isinstance(item.source, Mapping) else {"": item.source}
        looks = item.note.get("parts", {}) if isinstance(item.source, Mapping) else {"": item.note}
        return {
            str(name) or self._batch._input or "": file_note(path, looks[str(name)], kinds.get(str(name), "IMAGE"))
            for name, path in parts.items()
            if isinstance(path, PathLike) and looks.get(str(name))
        }

    async def _save(
        self, item: _Item, number: int, held: Mapping[str, HeldObject], values: dict[str, Any], seconds: float
    ) -> None:
        """Have the item saved and handed over, beside what comes next."""
        await self._finish_saving()

        async def save() -> None:
            files: dict[str, list[Path]] = {}
            notes: Mapping[str, Any] = {}
            if self._folder is not None:
                entry = await self._folder.save_item(
                    item.key, number, held, values, seconds=round(seconds, 3), source=item.note
                )
                files = {name: [self._folder.folder.path / f for f in found] for name, found in entry["files"].items()}
                notes = entry["collected"]
            self._give(BatchItem(item.key, number, "done", values, files, seconds), notes)

        self._saving = asyncio.create_task(save())

    async def _finish_saving(self) -> None:
        saving = self._saving
        if saving is not None:
            await asyncio.shield(saving)
            self._saving = None

    async def _skip(self, item: _Item, number: int, failure: IterationFailure, seconds: float) -> None:
        await self._finish_saving()
        log.warning("The item %r failed and is skipped: %s", item.key, failure.message)
        if self._folder is not None:
            assert failure.error is not None
            await self._folder.live()
            await self._folder.skip_item(
                item.key, number, seconds=round(seconds, 3), error=error_entry(failure.error), source=item.note
            )
        noted = {"error": {"type": failure.kind, "message": failure.message}, "seconds": round(seconds, 3)}
        self._run.watch.note("iteration_failed", iteration=number, state="skipped", **noted)
        self._run.record.skipped.append(failure)
        self._give(BatchItem(item.key, number, "failed", {}, {}, seconds, failure), {})

    def _give(self, item: BatchItem, notes: Mapping[str, Any]) -> None:
        """Note an item that has ended in the table, tell of it, and hand it over."""
        outputs: dict[str, Any] = {}
        for name in item.files or item.outputs:
            note = notes.get(name) or {}
            if item.files.get(name):
                found = item.files[name]
                outputs[name] = str(found[0]) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            elif "value" in note or name in notes:
                outputs[name] = note.get("value", note.get("digest", ""))
        for name, note in notes.items():
            if name not in outputs and "value" in note:
                outputs[name] = note["value"]
        message = item.error.message if item.error is not None else ""
        self._batch.result.rows.append(BatchRow(item.key, item.state, item.seconds, outputs, message))
        self._tell(item)
        self._hand_over(item)

    def _tell(self, item: BatchItem) -> None:
        run, total = self._run, self._upcoming.total
        self._ran += item.state != "done before"
        passed = time.monotonic() - self._started
        rate = self._ran / passed if passed > 0 else 0.0
        rows = self._batch.result.rows
        self._failed += item.state == "failed"
        left = (total - len(rows)) / rate if total is not None and rate > 0 else None
        run.tell(ItemFinished(run.context.run_id, item.key, item.state, len(rows), self._failed, total, rate, left))
        run.tell(IterationFinished(run.context.run_id, item.number, total or 0))


# ----------------------------------------------------------------------------------------------------------- items


class _Upcoming:
    """The items, each named and read while the one before is running."""

    def __init__(self, items: Any, pattern: str, key: Callable[[Any], Any] | None, checkpoint: Any):
        self._key = key
        # Where the batch's own pictures appear: they are not its items.
        self._checkpoint = Path(checkpoint).expanduser().resolve() if checkpoint else None
        self._seen: dict[str, int] = {}
        self._next: asyncio.Task[_Item | None] | None = None
        self.total: int | None = None
        #: {port: what a picture for it is opened as}, see Batch._picture_kinds
        self.kinds: dict[str, str] = {}
        self._source = self._iterate(items, pattern)

    def _iterate(self, items: Any, pattern: str) -> AsyncIterator[tuple[str | None, Any]]:
        if isinstance(items, (str, PathLike)):
            folder = Path(items).expanduser()
            files = list_pictures(folder, pattern, self._checkpoint)
            self.total = len(files)
            return _each((file.relative_to(folder).as_posix(), file) for file in files)
        if isinstance(items, Mapping):
            self.total = len(items)
            return _each((str(key), value) for key, value in items.items())
        if hasattr(items, "__len__"):
            self.total = len(items)
        if isinstance(items, AsyncIterable):
            return _each_async(items)
        if isinstance(items, (list, tuple, range)):
            names = [self._name(None, item, number) for number, item in enumerate(items)]
            for number, name in enumerate(names):
                self._claim(name, number)
            self._seen.clear()
        if isinstance(items, Iterable):
            return _each((None, item) for item in items)
        raise TypeError(
            f"items is a {type(items).__name__}; it must be a folder, a list, a dict {{key: item}}, or an iterator."
        )

    def __aiter__(self) -> _Upcoming:
        return self

    async def __anext__(self) -> _Item:
        if self._next is None:
            self._next = asyncio.create_task(self._read_next())
        item = await asyncio.shield(self._next)
        if item is None:
            self._next = None
            raise StopAsyncIteration
        self._next = asyncio.create_task(self._read_next())
        return item

    async def close(self) -> None:
        """Let go of the items' source."""
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        close = getattr(self._source, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()

    async def _read_next(self) -> _Item | None:
        try:
            named, source = await self._source.__anext__()
        except StopAsyncIteration:
            return None
        number = len(self._seen)
        key = self._name(named, source, number)
        self._claim(key, number)
        item = _Item(key, source, source_note(source))
        try:
            item.values = await asyncio.to_thread(_open_values, source, self.kinds)
        except Exception as e:  # its own fault alone; told when its turn comes
            item.error = e
        return item

    def _claim(self, key: str, number: int) -> None:
        if key in self._seen:
            raise ValueError(
                f"Items {self._seen[key]} and {number} have the same key {key!r}. A key names one item: give each its "
                "own (key=...)."
            )
        self._seen[key] = number

    def _name(self, named: str | None, source: Any, number: int) -> str:
        if self._key is not None:
            found = self._key(source)
            if not isinstance(found, (str, int)) or isinstance(found, bool) or found == "":
                raise TypeError(f"key gave {found!r} for item {number}; it must give a text or a whole number.")
            return str(found)
        if named is not None:
            return named
        return Path(source).name if isinstance(source, PathLike) else f"item-{number:06d}"


async def _each(pairs: Iterable[tuple[str | None, Any]]) -> AsyncIterator[tuple[str | None, Any]]:
    for pair in pairs:
        yield pair


async def _each_async(items: AsyncIterable[Any]) -> AsyncIterator[tuple[str | None, Any]]:
    async for item in items:
        yield None, item


def list_pictures(folder: Path, pattern: str = "*", but_not: Path | None = None) -> list[Path]:
    """The picture files of a folder that match a pattern ("**/*": those of its folders too), by name; none of those
    below *but_not*, an absolute path without links.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: no folder, or no picture in it.
    """
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {str(folder)!r} (current directory: {str(Path.cwd())!r}).")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; items is a folder of pictures, or a list of items.")
    files = sorted(f for f in folder.glob(pattern) if f.suffix.lower() in PICTURE_SUFFIXES and f.is_file())
    if but_not is not None and but_not != folder.resolve():
        files = [file for file in files if but_not not in file.resolve().parents]
    if not files:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ValueError(f"{str(folder)!r} has no pictures that match {pattern!r} ({known}).")
    return files


def _open_values(source: Any, kinds: Mapping[str, str]) -> dict[str, Any]:
    """{port: value} of an item, "" for the port that all items go to; pictures are opened by *kinds* of the ports."""
    parts = source if isinstance(source, Mapping) else {"": source}
    return {str(name): _open(value, kinds.get(str(name), "IMAGE")) for name, value in parts.items()}


def _open(value: Any, kind: str) -> Any:
    return open_file(value, kind) if isinstance(value, PathLike) else value


__all__ = ["Batch", "BatchItem", "BatchResult", "BatchRow", "list_pictures"]
