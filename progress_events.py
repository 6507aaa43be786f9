"""Typed progress events of a run, and the progress bar that scripts get by default."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class ProgressEvent:
    """Base of all events."""

    run_id: str


@dataclasses.dataclass(frozen=True)
class RunStarted(ProgressEvent):
    """Everything was checked and converted; the first iteration follows."""

    iterations: int
    server: str
    #: what an iteration is called
    unit: str = "iteration"


@dataclasses.dataclass(frozen=True)
class IterationStarted(ProgressEvent):
    """``iteration`` counts from 0; inside nested loops ``path`` has one number per level."""

    iteration: int
    iterations: int
    path: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class StepStarted(ProgressEvent):
    """A workflow is about to be queued."""

    path: tuple[int, ...]
    workflow: str


@dataclasses.dataclass(frozen=True)
class NodeStarted(ProgressEvent):
    """The server began to execute a node."""

    node_id: str
    class_type: str
    title: str


@dataclasses.dataclass(frozen=True)
class NodeProgress(ProgressEvent):
    """A node reports *value* of *maximum* (a sampler's steps, say)."""

    node_id: str
    value: float
    maximum: float

    @property
    def percent(self) -> float:
        """0 to 100."""
        return 100.0 * self.value / self.maximum if self.maximum else 0.0


@dataclasses.dataclass(frozen=True)
class PreviewImage(ProgressEvent):
    """A preview from inside a node: encoded image bytes, "jpeg" or "png"."""

    node_id: str | None
    image: bytes
    image_format: str


@dataclasses.dataclass(frozen=True)
class StepFinished(ProgressEvent):
    """A workflow is done; ``seconds`` from queueing to the result."""

    path: tuple[int, ...]
    workflow: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class IterationFinished(ProgressEvent):
    """An iteration of the outermost loop is done."""

    iteration: int
    iterations: int


@dataclasses.dataclass(frozen=True)
class ItemFinished(ProgressEvent):
    """An item of a batch has ended: ``state`` is "done", "failed" or "done before" (by an earlier call)."""

    key: str
    state: str
    #: items that have ended, and those of them that failed
    ended: int
    failed: int
    #: how many there are; None where that is not known
    total: int | None
    #: items per second, of those that were run by this call
    rate: float
    #: None where that is not known
    seconds_left: float | None


@dataclasses.dataclass(frozen=True)
class RunFinished(ProgressEvent):
    """The run is over; ``error`` is None where it succeeded."""

    iterations: int
    error: BaseException | None


# It is not awaited: None, so that a type checker refuses an asynchronous function.
ProgressCallback = Callable[[ProgressEvent], None]


class TerminalBar:
    """A progress bar on stderr (tqdm): iterations of the outermost loop, the workflow and the node that runs."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._node = ""

    def __call__(self, event: ProgressEvent) -> None:
        if isinstance(event, RunStarted):
            from tqdm import tqdm

            # Refreshed by events; a run that takes milliseconds per iteration must not be slowed by its bar.
            self._bar = tqdm(
                total=event.iterations, unit=event.unit, dynamic_ncols=True, file=sys.stderr, mininterval=0.2
            )
        elif self._bar is None:
            return
        elif isinstance(event, StepStarted):
            self._bar.set_postfix_str(event.workflow, refresh=False)
        elif isinstance(event, NodeProgress):
            self._bar.set_postfix_str(f"{self._node} {event.percent:.0f} %", refresh=False)
            self._bar.update(0)
        elif isinstance(event, ItemFinished):
            if event.state == "done before":  # it says nothing about the rate
                self._bar.initial += 1
            self._bar.set_description(f"{event.failed} failed" if event.failed else None, refresh=False)
        elif isinstance(event, NodeStarted):
            self._node = event.title or event.class_type
        elif isinstance(event, IterationFinished):
            self._bar.update(1)
        elif isinstance(event, RunFinished):
            self._bar.total = max(event.iterations, 1)  # a condition may have ended it early
            self._bar.close()
            self._bar = None


def choose_listener(progress: ProgressCallback | bool | None) -> ProgressCallback | None:
    """The listener of a run: a callable as it is; True a bar; False nothing; None a bar on a terminal only.

    Raises:
        TypeError: anything else.
    """
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    if isinstance(progress, bool):
        return TerminalBar() if progress else None
    if not callable(progress):
        raise TypeError(f"progress is {progress!r}; it must be a callable taking one event, True, False or None.")
    return progress
