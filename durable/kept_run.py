"""What every kept run writes in the same way, be it a run or a batch; and what a run does that keeps nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..prompt_graph import LOADER_TYPE
from . import thumbnails
from .run_folder import RunFolder, RunRecordFolder
from .secrets import REMOVED, is_secret_name, without_secrets

if TYPE_CHECKING:
    from ..object_store import HeldObject
    from ..run_record import StepRecord
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]
Path = tuple[int, ...]
_T = TypeVar("_T")

# Seconds between two reports while a run goes on, at least; and the longest journal that is read for one meanwhile.
_REPORT_EVERY = 60.0
_REPORT_LIMIT = 64 * 2**20


class NoCheckpoint:
    """Keeps nothing, but can undo an iteration: values are held in memory for as long as it runs."""

    #: the run's folder, "" where there is none
    path = ""
    #: finished steps that were taken from the journal
    recalled_steps = 0
    bytes_written, seconds = 0, 0.0
    #: the recorded run's, None where there is none
    master_seed: int | None = None
    #: where values are put when they are put back
    use_ram = True

    def __init__(self, context: WorkflowContext):
        self._context = context
        self._held: dict[str, HeldObject | None] = {}

    def recall(self, kind: str, path: Path, **same: Any) -> Json | None:
        """The journal's next entry, if it is of this kind, path, and has these fields; None behind its end.

        Raises:
            RecordedFailureError: the iteration was given up here.
            RunChangedError: the journal has something else here.
        """
        return None

    async def live(self) -> None:
        """From here on the run does things itself: see that its values are in the context."""

    async def restore(self) -> None:
        """See that the run's values are in the context."""

    def begin_iteration(self, iteration: int, names: Iterable[str], can_undo: bool) -> None:
        """An iteration of the outermost loop begins; *names* are those that it may change."""
        self._held = {n: self._context.hold(n) if n in self._context else None for n in names} if can_undo else {}

    async def undo_iteration(self) -> None:
        """Give the names that the iteration may have changed the values back that they had when it began."""
        for name, held in self._held.items():
            if held is None:
                self._context.delete(name)
            else:
                self._context.restore(held, self.use_ram)

    async def note_condition(self, path: Path, what: str, condition: str, result: bool) -> None:
        """A condition was asked."""

    async def note_input(self, path: Path, name: str, sequence: bool) -> None:
        """A per-iteration input was saved into the context; *sequence*: it can be had again from its sequence."""

    async def note_edit(self, path: Path, name: str) -> None:
        """Somebody has changed a value by hand. It stays so where an iteration is undone that does not write it."""

    async def note_step(
        self, step: StepRecord, prompt: Mapping[str, Any], base: str, writes: Iterable[str], reads: Mapping[str, str]
    ) -> None:
        """A step has finished. When this returns it has happened, for all time."""

    async def note(self, kind: str, durable: bool = True, **fields: Any) -> None:
        """Anything else that happened."""

    async def end_iteration(self, iteration: int, state: str, collect: Iterable[str] = (), **fields: Any) -> None:
        """An iteration of the outermost loop has ended."""

    def collected(self, name: str) -> list[Any] | None:
        """All values of a collected port; None: they are somewhere else."""
        return None

    async def finish(self, state: str, **fields: Any) -> None:
        """The run is over, one way or another."""

    async def close(self) -> None:
        """Let go of the folder."""


class KeptRun(NoCheckpoint):
    """Writes into a run's folder: one thing at a time in a thread, and beside it what is only for people."""

    def __init__(self, folder: RunFolder, context: WorkflowContext, describe: Callable[[], Awaitable[Json]]):
        """`describe` says what the run runs on, for the session's line."""
        super().__init__(context)
        self.folder = folder
        self.path = str(folder.path)
        self.master_seed = folder.manifest["plan"].get("master_seed")
        self._describe = describe
        self._has_session = False
        self._thread: asyncio.Future[Any] | None = None
        self._for_people: asyncio.Task[None] | None = None
        self._thumbnails = thumbnails.Chosen(folder.thumbnails())
        self._next_thumbnails = 0.0
        self._next_report = time.monotonic() + _REPORT_EVERY
        # {digest: prompt} of the workflows
        self._bases: dict[str, Json] = {}

    async def _begin_session(self, **fields: Any) -> None:
        """Write the line that says that this process writes from here on, once."""
        if not self._has_session:
            self._has_session = True
            details = await self._describe()
            await self._in_thread(self.folder.append, {"kind": "session", "pid": os.getpid(), **fields, **details})

    async def note_condition(self, path: Path, what: str, condition: str, result: bool) -> None:
        entry = {"kind": "condition", "path": list(path), "what": what, "condition": condition, "result": result}
        await self._in_thread(self.folder.append, entry, False)

    async def note(self, kind: str, durable: bool = True, **fields: Any) -> None:
        await self._in_thread(self.folder.append, {"kind": kind, **fields}, durable)

    def _learn_secret(self, name: str) -> bool:
        """Whether a name is a secret's; its value is blotted out of whatever is written from now on."""
        if not is_secret_name(name):
            return False
        text = secret_text(self._context, name)
        self.folder.secrets |= {text} if text else set()
        return True

    def _step_entry(
        self,
        step: StepRecord,
        prompt: Mapping[str, Any],
        base: str,
        notes: Mapping[str, Json],
        reads: Mapping[str, str],
    ) -> Json:
        """The line of a finished step."""
        if base not in self._bases:
            self._bases[base] = self.folder.prompt(base)
        return {
            **step.to_entry(),
            "prompt": base,
            "changes": changes_of(self._bases[base], prompt),
            "reads": {name: None if is_secret_name(name) else digest for name, digest in reads.items()},
            "writes": notes,
        }

    async def close(self) -> None:
        """Wait for what is being written, and let go of the folder. May be called while the run is being cancelled."""
        for task in (self._thread, self._for_people):
            if task is not None:
                await asyncio.wait([task])
        self.bytes_written, self.seconds = self.folder.bytes_written, self.folder.seconds
        self.folder.close()

    async def _in_thread(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run what blocks. A cancelled caller leaves it running: ``close`` waits for it."""
        while self._thread is not None and not self._thread.done():
            await asyncio.wait([self._thread])
        return await asyncio.shield(self._start(function, *arguments))

    def _start(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        """Begin what blocks; nothing else may be running. The next one waits for it."""
        self._thread = task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody waits any more
        return task

    # ---- for people ----

    async def _show(self, notes: Mapping[str, Json], iteration: int) -> None:
        """Have small pictures made of the pictures that a step delivered; a bounded number of them."""
        names = [name for name, note in notes.items() if thumbnails.is_picture(note)]
        await self._show_pictures({notes[name]["digest"]: self._context.load(name) for name in names}, iteration)

    async def _show_pictures(self, pictures: Mapping[str, Any], iteration: int) -> None:
        """The same for pictures that are at hand, by their digests."""
        is_time = time.monotonic() >= self._next_thumbnails
        if pictures and is_time and self._thumbnails.wants(iteration):
            await self._later(self._write_thumbnails, pictures)

    def _write_thumbnails(self, values: Mapping[str, Any]) -> None:
        started = time.monotonic()
        for digest, value in values.items():
            name = thumbnails.file_name(digest)
            self.folder.keep_file("thumbnails", name, thumbnails.encode(value))
            for old in self._thumbnails.add(name):
                (self.folder.path / "thumbnails" / old).unlink(missing_ok=True)
        # A twentieth of the run's time at most: a loop of quick steps has no need of them all.
        self._next_thumbnails = time.monotonic() + 20 * (time.monotonic() - started)

    def _is_report_due(self) -> bool:
        return time.monotonic() >= self._next_report and self.folder.journal_length < _REPORT_LIMIT

    def _write_report(self) -> None:
        from .report import build_report

        started = time.monotonic()
        self.folder.write_report(build_report(RunRecordFolder.open(self.folder.path)))
        took = time.monotonic() - started
        self._next_report = time.monotonic() + max(_REPORT_EVERY, 50 * took)

    async def _later(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have a thread write something for people; one at a time, so that a slow disk slows the run rather than
        filling the memory. What goes wrong is a line in the log: the run's own record does not depend on it.
        """
        if self._for_people is not None:
            await asyncio.wait([self._for_people])

        async def guarded() -> None:
            try:
                await asyncio.to_thread(function, *arguments)
            except Exception as e:
                log.warning("Something for people could not be written into %s: %s: %s", self.path, type(e).__name__, e)

        self._for_people = asyncio.create_task(guarded())


def secret_text(context: WorkflowContext, name: str) -> str | None:
    if not is_secret_name(name) or name not in context:
        return None
    value = context.load(name)
    return value if isinstance(value, str) else None


def changes_of(base: Mapping[str, Any], prompt: Mapping[str, Any]) -> Json:
    """{node id: node, None for one that is not there} that makes *prompt*, without its secrets, of *base*."""
    clean, _ = without_secrets(prompt)
    changes: Json = {node_id: None for node_id in base if node_id not in clean}
    for node_id, node in clean.items():
        if base.get(node_id) != node:
            changes[node_id] = _without_secret_content(node)
    return changes


def _without_secret_content(node: Any) -> Any:
    inputs = node.get("inputs") or {}
    if node.get("class_type") == LOADER_TYPE and is_secret_name(inputs.get("unique_id")):
        return {**node, "inputs": {**inputs, "content": REMOVED}}
    return node
