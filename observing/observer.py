"""A run that is looked at: joins history, control and the wires to editors for one run.

The orchestrator calls an :class:`Observer` at every turn. While no editor is open it does next to nothing (it looks for
one once a second, at a step); when one appears, in this process or another, the run's folder is made, what has happened
so far is told in short, and from then on everything is. An observer never lets a run fail: what goes wrong on its side
is a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import value_pictures
from ..durable.kept_run import secret_text
from ..durable.secrets import is_secret_name, without_secrets
from ..progress_events import NodeProgress, NodeStarted, ProgressEvent
from ..prompt_graph import INPUT, OUTPUT
from ..run_record import error_entry
from ..workflow_json import ANY_TYPE
from . import sketches
from .editors import Editor, Link, find_editors, local_hub
from .link import RemoteLink
from .run_control import Gate, RunControl, RunStoppedError
from .run_history import RunHistory, prune_sometimes

if TYPE_CHECKING:
    from ..object_store import HeldObject
    from ..run_plan import PreparedWorkflow
    from ..run_record import RunRecord, StepRecord
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.observing")

Json = dict[str, Any]
Path = tuple[int, ...]

#: an environment variable: "0" keeps the runs of a process out of the editor
SWITCH = "DISCOMFORT_OBSERVE"

# Seconds between two looks for an editor, and between two words to one.
_LOOK_EVERY = 1.0
_TELL_EVERY = 0.1
# The part of a run's time that may go into looking at large values, and seconds that are spent on them at most when the
# run is held or over.
_SKETCH_SHARE = 0.1
_LAST_LOOK = 3.0
# Seconds that the first step waits for the breakpoints of an editor in another process.
_GREETING = 1.0
# Bytes of values that wait to be looked at, at most: a short loop of quick steps is looked at in full, at its end.
_WAITING_BYTES = 128 * 2**20
# After so many small pictures, one is made of every second iteration only, then of every fourth, ...
_THUMBNAILS = 1000
# Finished steps that are told of a run that was found in its middle.
_CAUGHT_UP = 1000
# Values that are shown of a held run.
_SHOWN_VALUES = 200

_outer_node: contextvars.ContextVar[Json | None] = contextvars.ContextVar("discomfort_outer_node", default=None)


@contextlib.contextmanager
def outer_node(node_id: str, title: str, name: str = "") -> Iterator[None]:
    """Runs that begin within this block are those of a node in the editor.

    Args:
        node_id: the node's id in the editor's graph. title: what it is called there.
        name: what the run is called; "" for the names of its workflows.
    """
    token = _outer_node.set({"id": node_id, "title": title, "name": name})
    try:
        yield
    finally:
        _outer_node.reset(token)


class Observer:
    """The eyes on one run. Made in the run's task; all its methods belong to the run's loop."""

    def __init__(self, context: WorkflowContext, record: RunRecord, save: Callable[[str, Any], None]) -> None:
        """`save` puts an edited value into the context."""
        self._context = context
        self._record = record
        self._save = save
        self._node = _outer_node.get()
        self._is_allowed = os.environ.get(SWITCH, "1") != "0" and not os.environ.get("DISCOMFORT_NESTED")
        self._describe: Callable[[], Json] | None = None
        self._workflows: Sequence[PreparedWorkflow] = ()
        self._history: RunHistory | None = None
        self._links: list[Link] = []
        self._met: set[Editor] = set()
        self._next_look = 0.0
        self.control = RunControl(self._changed, self._edit, self._answer)
        # Names that were edited since the last take_edits().
        self._edited: dict[str, None] = {}
        # Values that wait to be looked at, oldest first: {(path, name): held object}.
        self._unseen: dict[tuple[Path, str], HeldObject] = {}
        self._sketching: asyncio.Task[None] | None = None
        self._next_sketch = 0.0
        # Names of the small pictures that were made; of every so manieth iteration one is made.
        self._thumbnails: set[str] = set()
        self._stride = 1
        # {name: (path, digest)} of the last values that none was made of, and whether one is made of every value now.
        self._unpictured: dict[str, tuple[Path, str]] = {}
        self._wants_all = False
        self._node_now: Json | None = None
        self._percent: float | None = None
        self._iteration = 0
        self._iterations = 0
        self._paused_event: Json | None = None
        self._pauses = 0
        self._teller: asyncio.TimerHandle | None = None
        self._last_told = 0.0
        self._has_greeted = False
        self._is_over = False

    @property
    def is_active(self) -> bool:
        """Whether somebody may be looking."""
        return self._history is not None

    # ---- beginning and end ----

    def begin(self, workflows: Sequence[PreparedWorkflow], describe: Callable[[], Json]) -> None:
        """The run is about to begin. *describe* gives what its first event says: name, iterations, inputs, ..."""
        if self._describe is None:
            self.control.bind()
            self._workflows, self._describe = workflows, describe
            self._look()

    def _look(self) -> None:
        """See whether an editor is open, once a second at most."""
        now = time.monotonic()
        if not self._is_allowed or self._describe is None or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY
        try:
            hub = local_hub()
            editors = [one for one in find_editors() if one not in self._met]
            if (hub is not None and not self._met) or editors:
                self._meet(hub, editors)
        except Exception as e:
            self._is_allowed = False
            log.warning("This run is not shown in the editor: %s: %s", type(e).__name__, e)

    def _meet(self, hub: Any, editors: Sequence[Editor]) -> None:
        if self._history is None:
            self._open_history()
        assert self._history is not None
        run_id, folder = self._context.run_id, str(self._history.folder)
        here = Editor("", "", os.getpid())
        if hub is not None and here not in self._met:
            self._met.add(here)
            self._links.append(hub.attach(run_id, folder, self.control.tell))
        for editor in editors:
            self._met.add(editor)
            self._links.append(RemoteLink(editor, run_id, folder, self.control.tell, self._lost))
        self._tell_now()

    def _open_history(self) -> None:
        assert self._describe is not None
        self._history = history = RunHistory(self._context.run_id)
        notes: list[Json] = []
        for prepared in self._workflows:
            workflow = prepared.recorded_workflow
            number = len(notes) if workflow is not None else None
            if workflow is not None:
                history.add_workflow(len(notes), workflow)
            count = len(prepared.template.prompt)
            notes.append({"name": prepared.name, "nodes": count, "ports": _ports(prepared), "file": number})
            history.secrets |= without_secrets(prepared.template.prompt)[1]
        self._learn_secrets(self._context.list_keys())
        node = self._node or {}
        described = self._describe()
        self._iterations = described["iterations"]
        history.append(
            "run",
            run_id=self._context.run_id,
            started=round(self._record.started, 3),
            source="editor" if self._node else "script",
            pid=os.getpid(),
            server=self._record.server,
            workflows=notes,
            **{**described, "name": node.get("name") or described.get("name", "")},
            master_seed=self._record.master_seed,
            outer_node={"id": node["id"], "title": node["title"]} if node else None,
        )
        for step in self._record.steps[-_CAUGHT_UP:]:
            outputs = {name: {"kind": "other", "type": "", "digest": digest, "note": "made before an editor was open"}
                       for name, digest in step.outputs.items()}  # fmt: skip
            history.append("step", **_step_fields(step, 0), outputs=outputs)

    def _learn_secrets(self, names: Iterable[str]) -> None:
        """What is under a secret's name is written nowhere, not even where an error repeats it."""
        if self._history is not None:
            found = (secret_text(self._context, name) for name in names)
            self._history.secrets |= {text for text in found if text}

    def _lost(self, link: RemoteLink) -> None:
        """An editor has gone; the last one takes the pause with it, which nobody could end any more."""
        if link in self._links:
            self._links.remove(link)
        self._met.discard(link.editor)
        self._next_look = time.monotonic() + 5 * _LOOK_EVERY  # one that does not answer is not asked all the time
        if not self._links:
            self.control.release()

    async def end(self, error: BaseException | None, costs: Mapping[str, float]) -> None:
        """The run is over. Never raises, but for a cancellation."""
        self._is_over = True
        if self._history is None:
            return
        try:
            await self._finish_sketches()
        finally:
            state = "finished" if error is None else "failed"
            if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
                state = "interrupted"
            if isinstance(error, RunStoppedError):
                state = "stopped"
            self._history.append(
                "end",
                state=state,
                seconds=round(self._record.seconds, 3),
                iterations=self._record.iterations,
                error=None if error is None or state in ("interrupted", "stopped") else _error(error),
                costs={name: round(value, 4) for name, value in costs.items()},
            )
            self._say_goodbye()
            await self._close_links()
            await asyncio.to_thread(prune_sometimes)

    def _say_goodbye(self) -> None:
        if self._teller is not None:
            self._teller.cancel()
            self._teller = None
        assert self._history is not None
        # Let go of first: an editor that hears of the end sees a run that is over.
        self._history.close()
        status = self._status()
        for link in self._links:
            link.publish(status)
            link.close()

    async def _close_links(self) -> None:
        remote = [link for link in self._links if isinstance(link, RemoteLink)]
        self._links.clear()
        if remote:
            await asyncio.gather(*(link.wait_closed() for link in remote))

    def was_stopped(self) -> bool:
        """Whether a cancellation that has arrived is that of the sidebar's Stop. Then it is over with this."""
        return self.control.was_stopped()

    def stopped(self, checkpoint: str) -> RunStoppedError:
        """The error that ends a stopped run."""
        text = "The run was stopped from the editor's sidebar."
        if checkpoint:
            text += f" Everything that is finished is in {checkpoint}: the same call goes on from there."
        return RunStoppedError(text)

    # ---- what happens ----

    def hear(self, event: ProgressEvent) -> None:
        """A node began, or has come further."""
        if self._history is None:
            return
        if isinstance(event, NodeStarted):
            self._node_now = {"id": event.node_id, "title": event.title, "class_type": event.class_type}
            self._percent = None
            self._changed()
        elif isinstance(event, NodeProgress):
            self._percent = round(event.percent, 1)
            self._changed()

    def begin_iteration(self, path: Path) -> None:
        """An iteration begins."""
        self._iteration = path[0]
        self._append("iteration", path=list(path))

    def begin_step(self, path: Path, workflow: str) -> None:
        """A workflow is about to be queued."""
        self._append("step_started", path=list(path), workflow=workflow)

    def end_step(self, step: StepRecord, nodes: int, names: Sequence[str]) -> None:
        """A workflow has been run; *names* are those that it has written, *nodes* how many nodes it has."""
        self._node_now = self._percent = None
        self.control.note_written(names)
        if self._history is None:
            return
        self._learn_secrets(names)
        outputs = {name: sketches.poor_sketch(self._context, name) for name in names}
        self._append("step", **_step_fields(step, nodes), outputs=outputs)
        for name, found in outputs.items():
            is_picture = found["kind"] in ("image", "mask", "latent")
            if is_picture or (found["kind"] == "other" and "note" in found and found.get("size")):
                with contextlib.suppress(KeyError):
                    self._unseen[step.iteration, name] = self._context.hold(name)
        self._forget_older()
        self._sketch_soon()

    def recall_step(self, step: StepRecord) -> None:
        """A workflow was run by an earlier process, and its results were taken from the run's folder."""
        if self._history is not None:
            outputs = {n: {"kind": "other", "type": "", "digest": digest} for n, digest in step.outputs.items()}
            self._append("step", **_step_fields(step, 0), outputs=outputs, recalled=True)

    def fail_step(self, step: StepRecord, error: BaseException) -> None:
        """A workflow has failed."""
        self._node_now = self._percent = None
        self._append("step_failed", path=list(step.iteration), workflow=step.workflow, error=_error(error))

    def note_input(self, path: Path, name: str) -> None:
        """A per-iteration input was saved."""
        if self._history is not None:
            self._learn_secrets([name])
            self._append("input", path=list(path), name=name, value=sketches.poor_sketch(self._context, name))

    def note_condition(self, path: Path, what: str, text: str, result: bool) -> None:
        """A condition was asked."""
        self._append("condition", path=list(path), what=what, text=text, result=result)

    def note(self, kind: str, **fields: Any) -> None:
        """Anything else of docs/reference/editor-protocol.md."""
        self._append(kind, **fields)

    # ---- the gate ----

    async def pass_gate(
        self, path: Path, before: str, reads: Sequence[str], look: Callable[[], Awaitable[None]]
    ) -> float:
        """Between two steps: be held here for as long as the run is paused. *look* may raise, which ends the wait.

        Returns:
            How many seconds the run was held. Cancelling is safe.
        """
        self._look()
        if self._history is None:
            return 0.0
        gate = Gate(path, before, tuple(reads))
        # A command that came while a step ran has its turn; so does the first one of an editor, with the breakpoints.
        await self._greet()
        await asyncio.sleep(0)
        if not self.control.should_pause(gate):
            return 0.0
        started = time.perf_counter()
        await self._finish_sketches()
        self._pauses += 1
        self._paused_event = event = {
            "number": self._pauses,
            "reason": self.control.reason,
            "port": self.control.port,
            "path": list(path),
            "before": before,
            "values": self._values(),
        }
        self._append("paused", **event)
        log.info("The run is held before %s (%s)", before, self.control.reason)
        try:
            await self.control.hold(gate, look)
        finally:
            self._paused_event = None
            self._append("resumed", how=self.control.resumed_by or "stop")
        return time.perf_counter() - started

    async def _greet(self) -> None:
        """Wait a moment for the first word of editors that were just found."""
        waiting = [one for one in self._links if isinstance(one, RemoteLink) and not one.is_greeted.is_set()]
        if waiting and not self._has_greeted:
            self._has_greeted = True
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(one.is_greeted.wait() for one in waiting)), _GREETING)

    def take_edits(self) -> list[str]:
        """The names of the values that were edited since the last call."""
        edits, self._edited = self._edited, {}
        return list(edits)

    def _values(self) -> dict[str, Json]:
        """The values of the context that can be edited."""
        found = {}
        for name in self._context.list_keys():
            if is_secret_name(name) or " (iteration " in name:
                continue
            one = sketches.poor_sketch(self._context, name)
            if sketches.is_editable(one):
                # Whole: it is shown to be changed.
                found[name] = {**one, "text": self._context.load(name)} if one["kind"] == "text" else one
            if len(found) >= _SHOWN_VALUES:
                break
        return found

    def _edit(self, name: str, new: Any) -> None:
        """Save an edited value. ValueError: it cannot be; says why."""
        if is_secret_name(name):
            raise ValueError(f"{name!r} is a secret: it can be neither seen nor changed here.")
        try:
            old = self._context.load(name)
        except KeyError:
            raise ValueError(f"The run has no value {name!r}.") from None
        value = sketches.edited_value(old, new)
        before = sketches.poor_sketch(self._context, name)
        try:
            self._save(name, value)
        except (OSError, TypeError) as e:
            raise ValueError(f"{name!r} could not be saved: {e}") from e
        self._edited[name] = None
        self._append("edited", name=name, before=before, after=sketches.poor_sketch(self._context, name))
        if self._paused_event is not None:
            self._paused_event["values"] = self._values()

    # ---- large values, looked at in a thread ----

    def _forget_older(self) -> None:
        """Of values that nobody had time for yet, only so many bytes are kept in memory: the newest ones, and of each
        name the last one in any case.
        """
        size = sum(held.header.total for held in self._unseen.values())
        newest = {name: path for path, name in self._unseen}
        for path, name in list(self._unseen):
            if size <= _WAITING_BYTES:
                break
            if newest[name] != path:
                size -= self._unseen.pop((path, name)).header.total

    def _sketch_soon(self) -> None:
        if self._unseen and self._sketching is None and time.monotonic() >= self._next_sketch:
            self._sketching = asyncio.create_task(self._sketch_all())

    async def _sketch_all(self) -> None:
        started = time.monotonic()
        try:
            while self._unseen:
                (path, name), held = self._unseen.popitem()  # the newest first: it is what people look at
                found = await asyncio.to_thread(self._sketch, held, path[0])
                if found.pop("is_unpictured", False):
                    note = path, str(found["digest"])
                    self._unpictured[name] = max(note, self._unpictured.get(name, note))
                del held
                self._append("sketch", path=list(path), name=name, value=found)
        finally:
            took = time.monotonic() - started
            self._next_sketch = time.monotonic() + took / _SKETCH_SHARE
            self._sketching = None

    def _sketch(self, held: HeldObject, iteration: int) -> Json:
        """In a thread."""
        from ..object_store import load_object

        found: Json = {"kind": "other", "type": "", "digest": held.content_id, "size": held.header.data_length}
        try:
            value = load_object(held)
            found.update(sketches.sketch(value))
            is_wanted = self._wants_all or iteration % self._stride == 0
            if not is_wanted and value_pictures.count(value):
                return {**found, "is_unpictured": True}
            picture = sketches.thumbnail_of(value, held.content_id) if is_wanted else None
        except Exception as e:  # a class that only the server has
            return {**found, "note": f"not looked at: {type(e).__name__}: {str(e)[:300]}"}
        if picture is not None and self._history is not None:
            name, content = picture
            if name not in self._thumbnails:
                self._thumbnails.add(name)
                self._history.add_thumbnail(name, content)
                if len(self._thumbnails) % _THUMBNAILS == 0:
                    self._stride *= 2
            found["thumbnail"] = name
        return found

    async def _finish_sketches(self) -> None:
        """Look at what there is to see now, for some seconds at most. Never raises, but for a cancellation."""
        deadline = time.monotonic() + _LAST_LOOK
        self._wants_all = True
        await self._sketch_until(deadline)
        for name, (path, digest) in self._unpictured.items():
            if name in self._context and self._context.digest(name) == digest:
                self._unseen.setdefault((path, name), self._context.hold(name))
        self._unpictured.clear()
        await self._sketch_until(deadline)
        self._wants_all = False
        if self._is_over:
            self._unseen.clear()
            if self._sketching is not None:
                self._sketching.cancel()
                await asyncio.wait([self._sketching])

    async def _sketch_until(self, deadline: float) -> None:
        self._next_sketch = 0.0
        if self._sketching is None:
            self._sketch_soon()
        if self._sketching is not None:
            await asyncio.wait([self._sketching], timeout=max(0.0, deadline - time.monotonic()))

    # ---- telling ----

    def _append(self, kind: str, **fields: Any) -> None:
        if self._history is not None:
            self._history.append(kind, **fields)
            self._changed()

    def _status(self) -> Json:
        assert self._history is not None
        return {
            "state": "ended" if self._is_over else self.control.state,
            "offset": self._history.length,
            "node": self._node_now,
            "percent": self._percent,
            "iteration": self._iteration,
            "iterations": self._iterations,
            "paused_at": self._paused_event,
        }

    def _changed(self) -> None:
        """Tell the editors soon: ten times a second is enough for eyes."""
        if self._history is None or self._teller is not None or self._is_over:
            return
        wait = self._last_told + _TELL_EVERY - time.monotonic()
        self._teller = asyncio.get_running_loop().call_later(max(0.0, wait), self._tell_now)

    def _tell_now(self) -> None:
        self._teller = None
        self._last_told = time.monotonic()
        if self._history is not None:
            status = self._status()
            for link in self._links:
                link.publish(status)

    def _answer(self, command_id: str, problem: str | None) -> None:
        for link in self._links:
            link.answer(command_id, problem)


def _ports(prepared: PreparedWorkflow) -> list[Json]:
    """The ports of a workflow, as its first event tells them."""
    found = []
    for name, ports in prepared.template.inputs.items():
        kind = prepared.input_types.get(name, ANY_TYPE)
        found += [{"unique_id": name, "mode": INPUT, "type": kind, "node_id": port.node_id} for port in ports]
    for name, node_id in prepared.outputs.items():
        kind = prepared.output_types.get(name, ANY_TYPE)
        found.append({"unique_id": name, "mode": OUTPUT, "type": kind, "node_id": node_id})
    return found


def _step_fields(step: StepRecord, nodes: int) -> Json:
    fields = step.to_entry()
    return {
        **{
            key: fields[key] for key in ("path", "workflow", "prompt_id", "seconds", "server_seconds", "saving_seconds")
        },
        "cached": len(step.cached_nodes),
        "nodes": nodes,
        "attempts": step.attempts,
        "retries": step.retries,
        "memory": step.memory,
        "seeds": step.seeds,
    }


def _error(error: BaseException) -> Json:
    """An error with the place that it came from."""
    found: Json = dict(error_entry(error))
    workflow, path = getattr(error, "workflow", None), getattr(error, "iteration", None)
    if workflow is not None:
        found["workflow"] = str(workflow)
    if isinstance(path, tuple):
        found["path"] = list(path)
    lines = getattr(error, "server_traceback", None)
    if lines:
        found["traceback"] = [str(line) for line in lines][-60:]
    return found
