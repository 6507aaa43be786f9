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
    #: how often it was tried; more than 1 means that the server died, hung or ran out of memory, or a node failed
    attempts: int = 1
    #: what went wrong before it worked: {"reason", "error", "action", "delay"}, see docs/reference/run-record.md
    retries: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    #: memory after it, in bytes, by name (docs/reference/run-record.md); at most a second old
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    #: whether it was finished by an earlier process, and taken from the run's folder
    is_recalled: bool = False

    def to_entry(self) -> dict[str, Any]:
        """As a line of the journal has it, without what it read and wrote."""
        return {
            "kind": "step",
            "path": list(self.iteration),
            "workflow": self.workflow,
            "seeds": self.seeds,
            "references": self.references,
            "prompt_id": self.prompt_id,
            "seconds": round(self.seconds, 6),
            "server_seconds": round(self.server_seconds, 6),
            "saving_seconds": round(self.saving_seconds, 6),
            "cached": self.cached_nodes,
            "attempts": self.attempts,
            "retries": self.retries,
            "memory": self.memory,
        }

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> StepRecord:
        """The step of a journal's line."""
        step = cls(tuple(entry["path"]), entry["workflow"], is_recalled=True)
        for name in ("seeds", "references", "prompt_id", "attempts", "retries", "memory"):
            setattr(step, name, entry.get(name, getattr(step, name)))
        step.seconds = float(entry.get("seconds", 0.0))
        step.server_seconds = float(entry.get("server_seconds", 0.0))
        step.saving_seconds = float(entry.get("saving_seconds", 0.0))
        step.cached_nodes = list(entry.get("cached", ()))
        step.outputs = {name: str(note.get("digest", "")) for name, note in entry["writes"].items()}
        return step


@dataclasses.dataclass
class IterationFailure:
    """An iteration of the outermost loop (of a batch: an item) that failed."""

    #: zero-based
    iteration: int
    #: what went wrong, without a traceback
    message: str
    #: class of the error
    kind: str = ""
    #: how often the iteration was tried
    attempts: int = 1
    #: the error; None where an earlier process met it
    error: BaseException | None = None

    @classmethod
    def of(cls, iteration: int, error: BaseException, attempts: int = 1) -> IterationFailure:
        return cls(iteration, str(error), type(error).__name__, attempts, error)


def error_entry(error: BaseException) -> dict[str, Any]:
    """An error as the journal has it: its class and message, and the node that it came from."""
    found = {"type": type(error).__name__, "message": str(error)}
    for name in ("node_id", "class_type", "title"):
        value = getattr(error, name, None)
        if value is not None:
            found[name] = str(value)
    return found


# Of a run's steps, so many are kept in memory; older ones count in its sums alone.
STEPS_IN_MEMORY = 10_000


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
    #: the steps, in order; of more than 10,000 the last ones (a run with a checkpoint has all in its folder)
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
    #: the folder that the run is kept in, "" for none
    checkpoint: str = ""
    #: steps that earlier processes finished, and that were taken from there
    recalled_steps: int = 0
    #: making steps safe: writing values and journal to disk
    checkpoint_seconds: float = 0.0
    #: bytes that were written there
    checkpoint_bytes: int = 0
    #: iterations of the outermost loop that failed and were passed over
    skipped: list[IterationFailure] = dataclasses.field(default_factory=list)
    #: what was done because memory went over a ceiling, see docs/reference/run-record.md
    recycles: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    #: waiting for the server to be freed or restarted for that
    recycle_seconds: float = 0.0
    #: held by somebody at the editor's sidebar
    paused_seconds: float = 0.0
    #: steps that are not in `steps` any more, and what they count for
    dropped_steps: int = 0
    dropped_server_seconds: float = 0.0
    dropped_saving_seconds: float = 0.0

    def add(self, step: StepRecord) -> None:
        """Note a step. What a run of any length keeps in memory is bounded."""
        self.steps.append(step)
        if len(self.steps) > STEPS_IN_MEMORY + STEPS_IN_MEMORY // 10:
            dropped = self.steps[:-STEPS_IN_MEMORY]
            del self.steps[:-STEPS_IN_MEMORY]
            self.dropped_steps += len(dropped)
            self.dropped_server_seconds += sum(one.server_seconds for one in dropped if not one.is_recalled)
            self.dropped_saving_seconds += sum(one.saving_seconds for one in dropped if not one.is_recalled)

    @property
    def retries(self) -> int:
        """How often a step was tried again."""
        return sum(step.attempts - 1 for step in self.steps)

    @property
    def server_seconds(self) -> float:
        """Time in which the server executed nodes, for this process."""
        return self.dropped_server_seconds + sum(s.server_seconds for s in self.steps if not s.is_recalled)

    @property
    def transfer_seconds(self) -> float:
        """Time spent on moving data: saving by the ports, saving and loading by the orchestrator."""
        saving = self.dropped_saving_seconds + sum(s.saving_seconds for s in self.steps if not s.is_recalled)
        return self.loading_seconds + saving

    @property
    def orchestrator_seconds(self) -> float:
        """What is left: queueing, following, graph work. Conversion and the caller's functions are not in it."""
        known = self.server_seconds + self.transfer_seconds + self.conversion_seconds + self.caller_seconds
        known += self.checkpoint_seconds + self.recycle_seconds + self.paused_seconds
        return max(0.0, self.seconds - known)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-safe data, sums included."""
        names = ("server_seconds", "transfer_seconds", "orchestrator_seconds")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["steps"] = [dataclasses.asdict(step) for step in self.steps]
        fields["skipped"] = [
            {"iteration": one.iteration, "message": one.message, "kind": one.kind, "attempts": one.attempts}
            for one in self.skipped
        ]
        return {**fields, **{name: getattr(self, name) for name in names}}

    def costs(self) -> dict[str, float]:
        """{what: seconds} of the run's time, in words for people."""
        parts = {
            "server": self.server_seconds,
            "data transfer": self.transfer_seconds,
            "orchestrator": self.orchestrator_seconds,
            "conversion": self.conversion_seconds,
            "your functions": self.caller_seconds,
        }
        if self.checkpoint:
            parts["checkpoint"] = self.checkpoint_seconds
        if self.recycles:
            parts["recycling the server"] = self.recycle_seconds
        if self.paused_seconds:
            parts["paused"] = self.paused_seconds
        return parts

    def summary(self, with_server: bool = True) -> str:
        """Lines for people: where it ran (unless that goes without saying), what it cost, and what went wrong."""
        costs = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.costs().items())
        count = f"{self.iterations} iteration{'s' if self.iterations != 1 else ''}"
        lines = [f"Ran on {self.server}"] if with_server else []
        lines.append(f"{count} in {self.seconds:.2f} s: {costs}")
        if self.recalled_steps:
            lines.append(f"{self.recalled_steps} steps had been finished before, and were taken from {self.checkpoint}")
        if self.retries:
            lines.append(f"{self.retries} times a step was run again")
        if self.skipped:
            listed = ", ".join(str(one.iteration) for one in self.skipped[:20])
            lines.append(f"{len(self.skipped)} iterations failed and were skipped: {listed}")
        return "\n".join(lines)


class NotDeliveredError(KeyError):
    """No OUTPUT port of the run has delivered anything under a name."""

    def __str__(self) -> str:  # KeyError would show the sentence in quotes
        return str(self.args[0])


class RunResult(dict[str, Any]):
    """``{unique_id: value}`` of everything the run's OUTPUT ports delivered: the last value, or for collected ones the
    list of all values in the order of iterations. A name that none delivered is a KeyError that says what there is.
    """

    def __init__(self, values: Mapping[str, Any], record: RunRecord, collected: Mapping[str, list[Any]] | None = None):
        super().__init__(values)
        #: what the run did and what it cost
        self.record = record
        #: {unique_id: [value of each iteration]} for the names given as ``collect``
        self.collected = dict(collected or {})

    def __missing__(self, name: Any) -> Any:
        """
        Raises:
            NotDeliveredError: always.
        """
        there = f"There is {', '.join(map(repr, sorted(self)))}." if self else "No port delivered anything."
        why = "A branch that was not taken, or a loop that never began, delivers nothing."
        if not self.record.iterations:
            why = "The run had no iteration: its condition was false before the first one."
        elif len(self.record.skipped) == self.record.iterations:
            why = "All of the run's iterations failed and were skipped (result.skipped)."
        raise NotDeliveredError(f"The run has delivered no {name!r}. {there} {why}")

    @property
    def master_seed(self) -> int:
        """What the run's seeds were drawn from: given to another run, it draws the same ones."""
        return self.record.master_seed

    @property
    def skipped(self) -> list[IterationFailure]:
        """The iterations that failed and were passed over (``on_error``); collected lists have no value for them."""
        return self.record.skipped

    @property
    def seeds(self) -> list[dict[str, dict[str, Any]]]:
        """{node id: {input: value}} of the seeds that each step ran with, in the order in which they ran."""
        return [step.seeds for step in self.record.steps]
