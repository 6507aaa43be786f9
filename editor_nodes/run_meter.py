"""How far a run is, as one number that never goes back: from its events to a node's progress bar."""

from __future__ import annotations

import threading

from ..progress_events import (
    IterationFinished,
    IterationStarted,
    NodeProgress,
    NodeStarted,
    PreviewImage,
    ProgressEvent,
    StepFinished,
    StepStarted,
)


class RunMeter:
    """Takes the events of a run in one thread, and tells its state in another. It keeps no events: a run of any length
    needs the same memory, and of previews the last one counts.

    An iteration is one part of the whole, a step an equal part of its iteration, a node an equal part of its step. How
    many of them there are is not known for sure (a branch, a cached node), so each part is filled at its end at the
    latest and never overfilled before.
    """

    def __init__(self, iterations: int, nodes_of_steps: list[int]) -> None:
        """
        Args:
            iterations: how many there are at most; at least 1.
            nodes_of_steps: the number of nodes of each workflow of an iteration, in the order of the plan.
        """
        self._iterations = iterations
        self._nodes = nodes_of_steps or [1]
        self._lock = threading.Lock()
        self._iteration = 0
        # steps and nodes that were begun: of this iteration, of this step
        self._steps = 0
        self._started = 0
        self._node_part = 0.0
        self._fraction = 0.0
        self._preview: bytes | None = None

    def on_event(self, event: ProgressEvent) -> None:
        """A listener for run_sequential."""
        with self._lock:
            if isinstance(event, PreviewImage):
                self._preview = event.image
                return
            if isinstance(event, IterationStarted) and len(event.path) == 1:
                self._iteration, self._steps, self._started, self._node_part = event.iteration, 0, 0, 0.0
            elif isinstance(event, IterationFinished):
                self._iteration, self._steps, self._started, self._node_part = event.iteration + 1, 0, 0, 0.0
            elif isinstance(event, StepStarted):
                self._steps, self._started, self._node_part = self._steps + 1, 0, 0.0
            elif isinstance(event, StepFinished):
                self._started, self._node_part = self._step_nodes() + 1, 0.0
            elif isinstance(event, NodeStarted):
                self._started, self._node_part = self._started + 1, 0.0
            elif isinstance(event, NodeProgress):
                self._node_part = event.percent / 100
            self._fraction = max(self._fraction, min(1.0, self._now()))

    def _step_nodes(self) -> int:
        return max(1, self._nodes[min(max(self._steps, 1), len(self._nodes)) - 1])

    def _now(self) -> float:
        nodes = max(0, self._started - 1) + min(1.0, self._node_part)
        step = min(1.0, nodes / self._step_nodes())
        steps = min(1.0, (max(0, self._steps - 1) + step) / len(self._nodes))
        return (self._iteration + steps) / self._iterations

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        with self._lock:
            return self._fraction

    def take_preview(self) -> bytes | None:
        """The latest preview, once."""
        with self._lock:
            preview, self._preview = self._preview, None
            return preview
