"""Pausing a run and going on: what a debugger does to a program, done to a run between two of its steps.

A run passes a *gate* before every condition, before every step and at its end. At a gate it is held while it is paused;
what happens meanwhile (an edit, a breakpoint) is the command of somebody who looks at it. Nothing here does I/O; all of
it happens in the run's event loop, into which :meth:`RunControl.tell` brings commands from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


class RunStoppedError(RuntimeError):
    """The run was stopped from the editor's sidebar. With a checkpoint the same call goes on behind its last step."""


@dataclass(frozen=True)
class Gate:
    """A place between two steps."""

    path: tuple[int, ...]
    #: what comes next: "step refine.json", "the loop condition", "the end"
    before: str
    #: names of the values that it reads
    reads: tuple[str, ...] = ()


@dataclass
class RunControl:
    """The state of a run under control: runs, is about to pause, or is paused at a gate. Useful once it is bound."""

    #: called after every change of the state
    on_change: Callable[[], None] = lambda: None
    #: saves an edited value; raises ValueError with a sentence where it cannot be
    edit: Callable[[str, Any], None] = lambda name, value: None
    #: tells the answer to a command that has an id: (id, problem or None)
    answer: Callable[[str, str | None], None] = lambda command_id, problem: None

    #: where the run is held; None while it runs
    paused_at: Gate | None = None
    #: why: "pause", "step", "breakpoint" or "start"
    reason: str = ""
    #: the port of the breakpoint
    port: str = ""
    #: how the last pause ended: "continue", "step", "stop", "editor gone"
    resumed_by: str = ""
    is_stopped: bool = False

    _breakpoints: frozenset[str] = frozenset()
    _wants_pause: bool = False
    _is_stepping: bool = False
    _pauses_at_start: bool = False
    _has_begun: bool = False
    # Ports that were written since the run was held last, and those whose breakpoint was hit since the last step.
    _written: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._may_go_on = asyncio.Event()

    def bind(self) -> None:
        """The task that calls this is the run's: `stop` cancels it, and commands are obeyed in its loop."""
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()

    @property
    def state(self) -> str:
        """ "running", "pausing", "paused" or "stopping"."""
        if self.is_stopped:
            return "stopping"
        if self.paused_at is not None:
            return "paused"
        return "pausing" if self._wants_pause else "running"

    # ---- from outside ----

    def tell(self, command: Mapping[str, Any]) -> None:
        """Obey a command of docs/reference/editor-protocol.md. From any thread; what is no command is ignored."""
        loop = self._loop
        if loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(self._obey, dict(command))

    def _obey(self, command: Json) -> None:
        name = command.get("command")
        if name == "pause":
            self._wants_pause = self.paused_at is None
        elif name in ("continue", "step"):
            self._is_stepping = name == "step"
            self._wants_pause = False
            self._go_on(str(name))
        elif name == "stop":
            self._stop()
        elif name == "set":
            self._set(command)
        elif name == "breakpoints":
            names = command.get("names") or ()
            self._breakpoints = frozenset(name for name in names if isinstance(name, str))
            self._pauses_at_start = bool(command.get("pause_at_start"))
        self.on_change()

    def release(self) -> None:
        """Nobody looks any more: go on, and pause at nothing. In the run's loop."""
        self._breakpoints, self._pauses_at_start = frozenset(), False
        self._wants_pause = self._is_stepping = False
        self._go_on("editor gone")

    def _go_on(self, how: str) -> None:
        if self.paused_at is not None and not self._may_go_on.is_set():
            self.resumed_by = how
            self._may_go_on.set()

    def _stop(self) -> None:
        if self.is_stopped or self._task is None:
            return
        self.is_stopped = True
        self.resumed_by = "stop"
        self._task.cancel()

    def _set(self, command: Json) -> None:
        problem = None
        if self.paused_at is None:
            problem = "Values can be changed while the run is paused."
        else:
            try:
                self.edit(str(command.get("name")), command.get("value"))
            except ValueError as e:
                problem = str(e)
        self.answer(str(command.get("id") or ""), problem)

    def was_stopped(self) -> bool:
        """Whether a cancellation that has arrived is that of `stop`. Then it is over with this."""
        if not self.is_stopped or self._task is None:
            return False
        uncancel = getattr(self._task, "uncancel", None)  # Python 3.11
        if uncancel is not None:
            uncancel()
        return True

    # ---- from the run ----

    def note_written(self, names: Iterable[str]) -> None:
        """A step has finished, and delivered these."""
        self._written.update(names)
        self._seen.clear()
        if self._is_stepping:
            self._wants_pause = True

    def should_pause(self, gate: Gate) -> bool:
        """Whether the run is to be held at this gate; then `reason` and `port` say why."""
        hit = next((n for n in sorted(self._breakpoints - self._seen) if n in self._written or n in gate.reads), "")
        is_start, self._has_begun = not self._has_begun, True
        if self._wants_pause:
            self.reason, self.port = ("step" if self._is_stepping else "pause"), ""
        elif hit:
            self.reason, self.port = "breakpoint", hit
        elif is_start and self._pauses_at_start:
            self.reason, self.port = "start", ""
        else:
            return False
        # Between two steps there may be several gates: of one breakpoint the run is held once there.
        self._seen |= {n for n in self._breakpoints if n in self._written or n in gate.reads}
        self._written.clear()
        return True

    async def hold(self, gate: Gate, look: Callable[[], Awaitable[None]]) -> None:
        """Stay at a gate until somebody lets the run go on. *look* is called twice a second, and may raise.

        Cancelling is safe: it is how a held run is stopped.
        """
        self._may_go_on.clear()
        self._wants_pause = self._is_stepping = False
        self.paused_at, self.resumed_by = gate, ""
        try:
            self.on_change()
            while not self._may_go_on.is_set():
                await look()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._may_go_on.wait(), 0.5)
        finally:
            self.paused_at = None
            self.on_change()
