"""What a run did: one :class:`RunRecord` of :class:`StepRecord`, carried by the :class:`RunResult` that a run
returns.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(slots=True)  # a long run has many
class StepRecord:
    """One execution of one workflow."""

    #: zero-based iteration; inside nested loops one number per level, outermost first
    iteration: tuple[int, ...]
    #: the workflow's name: its file name, or "workflow N" for a dict
    workflow: str
    #: the server's id of the prompt
    prompt_id: str = ""
    #: seconds from the moment the prompt was handed over until its result was known
    seconds: float = 0.0
    #: seconds the server executed, by its own clock (milliseconds), without what its ports spent on saving
    server_seconds: float = 0.0
    #: seconds the OUTPUT ports spent on saving their values
    saving_seconds: float = 0.0
    #: ids of the nodes that came from the server's cache
    cached_nodes: list[str] = dataclasses.field(default_factory=list)
    #: {unique_id: digest} of what the OUTPUT ports wrote
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)
    #: {node id: {input: value}} of the seeds, and whatever else changes from execution to execution, that it ran with
    seeds: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    #: {unique_id: type} of the OUTPUT ports that delivered by reference
    references: dict[str, str] = dataclasses.field(default_factory=dict)
    #: how often it was tried; more than 1 means that the server died or hung
    attempts: int = 1


@dataclasses.dataclass
class RunRecord:
    """A whole run. Times are in seconds."""

    #: id of the context that held the run's data
    run_id: str
    #: sentence: which server, where, why
    server: str = ""
    #: seconds since the epoch
    started: float = dataclasses.field(default_factory=time.time)
    #: iterations of the outermost loop that were completed
    iterations: int = 0
    steps: list[StepRecord] = dataclasses.field(default_factory=list)
    #: what was done with seeds, and what they were drawn from; see :mod:`.seeds`
    seed_policy: str = "as_saved"
    master_seed: int = 0
    #: from the call to the result
    seconds: float = 0.0
    #: converting workflows to prompts
    conversion_seconds: float = 0.0
    #: the orchestrator's own saving and loading of values
    loading_seconds: float = 0.0
    #: the caller's own functions: conditions, per-iteration inputs, progress callbacks
    caller_seconds: float = 0.0

    @property
    def server_seconds(self) -> float:
        """Time in which the server executed nodes."""
        return sum(step.server_seconds for step in self.steps)

    @property
    def transfer_seconds(self) -> float:
        """Time spent on moving data: saving by the ports, saving and loading by the orchestrator."""
        return self.loading_seconds + sum(step.saving_seconds for step in self.steps)

    @property
    def orchestrator_seconds(self) -> float:
        """What is left: queueing, following, graph work. Conversion and the caller's functions are not in it."""
        known = self.server_seconds + self.transfer_seconds + self.conversion_seconds + self.caller_seconds
        return max(0.0, self.seconds - known)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-safe data, sums included."""
        sums = {name: getattr(self, name) for name in ("server_seconds", "transfer_seconds", "orchestrator_seconds")}
        return {**dataclasses.asdict(self), **sums}

    def summary(self) -> str:
        """Two lines for people: where it ran, and what it cost."""
        parts = {
            "server": self.server_seconds,
            "data transfer": self.transfer_seconds,
            "orchestrator": self.orchestrator_seconds,
            "conversion": self.conversion_seconds,
            "your functions": self.caller_seconds,
        }
        costs = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in parts.items())
        count = f"{self.iterations} iteration{'s' if self.iterations != 1 else ''}"
        return f"Ran on {self.server}\n{count} in {self.seconds:.2f} s: {costs}"


class RunResult(dict[str, Any]):
    """``{unique_id: value}`` of everything the run's OUTPUT ports delivered: the last value, or for collected ones the
    list of all values in the order of iterations.
    """

    def __init__(self, values: Mapping[str, Any], record: RunRecord, collected: Mapping[str, list[Any]] | None = None):
        super().__init__(values)
        #: what the run did and what it cost
        self.record = record
        #: {unique_id: [value of each iteration]} for the names given as ``collect``
        self.collected = dict(collected or {})

    @property
    def master_seed(self) -> int:
        """What the run's seeds were drawn from: given to another run, it draws the same ones."""
        return self.record.master_seed

    @property
    def seeds(self) -> list[dict[str, dict[str, Any]]]:
        """{node id: {input: value}} of the seeds that each step ran with, in the order in which they ran."""
        return [step.seeds for step in self.record.steps]
