"""The arguments of a run, checked, each by itself. Pure but for the choice of a progress bar, which looks at stderr."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from . import control_flow, prompt_graph, seeds
from .durable import plan_text
from .durable.checkpoint import check_checkpoint
from .durable.retry import Retry
from .durable.server_memory import check_ceiling
from .progress_events import ProgressCallback, choose_listener
from .run_record import IterationFailure

Json = dict[str, Any]

# What may be written as an argument of a run, for type checkers and editors. The checks below refuse the rest.
SeedPolicy = Literal["as_saved", "fixed", "increment", "randomize"]
Resume = bool | Literal["force"]
Keep = Literal["needed", "all"]
Decision = Literal["stop", "skip", "retry"]
OnError = Literal["stop", "skip"] | Callable[[IterationFailure], Decision | Awaitable[Decision]]
#: of a batch: a folder, a mapping {key: item}, a list, or an iterator
Items = str | os.PathLike[str] | Mapping[Any, Any] | Iterable[Any] | AsyncIterable[Any]


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """The arguments of a run, checked."""

    outer: control_flow.Loop
    inputs: Mapping[str, Any]
    collect: tuple[str, ...]
    listener: ProgressCallback | None
    seed_policy: SeedPolicy
    #: None: a new one, or that of the run that goes on
    master_seed: int | None
    #: the folder that the run is kept in, None for none
    checkpoint: str | None
    resume: Resume
    keep: Keep
    retry: Retry | None
    on_error: OnError
    #: GB
    max_server_ram: float | None
    max_vram: float | None
    #: whether the contents of model files are digested for the record
    hash_models: bool
    #: what is wrong with them; in the place of what cannot be used is a default
    problems: tuple[Exception, ...]
    #: whether steps or inputs were left out for that
    has_gaps: bool


def read_request(
    workflow_paths: Sequence[control_flow.Step],
    inputs: Mapping[str, Any] | None,
    iterations: int,
    loop_condition: control_flow.ConditionSpec | None,
    collect: Iterable[str],
    progress: ProgressCallback | bool | None,
    seed_policy: SeedPolicy,
    master_seed: int | None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: Resume = True,
    keep: Keep = "needed",
    retry: Retry | int | None = None,
    on_error: OnError = "stop",
    max_server_ram_gb: float | None = None,
    max_vram_gb: float | None = None,
    hash_models: bool = False,
) -> RunRequest:
    """Check the arguments of a run, each by itself; what is wrong is noted, not raised."""
    problems: list[Exception] = []
    noted = functools.partial(_noted, problems)
    steps = control_flow.parse_steps(workflow_paths, problems=problems)
    has_gaps = bool(problems)
    condition = None if loop_condition is None else noted(control_flow.Condition.parse, loop_condition)
    checked = noted(_check_inputs, inputs)
    return RunRequest(
        control_flow.Loop(body=steps, iterations=noted(_check_iterations, iterations) or 1, condition=condition),
        checked or {},
        noted(_check_collect, collect) or (),
        noted(choose_listener, progress),
        noted(seeds.check_policy, seed_policy) or "fixed",
        noted(_check_master_seed, master_seed),
        noted(check_checkpoint, checkpoint, resume, keep),
        resume,
        keep,
        noted(Retry.parse, retry),
        noted(_check_on_error, on_error) or "stop",
        noted(check_ceiling, "max_server_ram_gb", max_server_ram_gb),
        noted(check_ceiling, "max_vram_gb", max_vram_gb),
        bool(hash_models),
        tuple(problems),
        has_gaps or checked is None,
    )


def _check_iterations(iterations: Any) -> int:
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"iterations is {iterations!r}; it must be a whole number of at least 1.")
    return iterations


def _check_collect(collect: Any) -> tuple[str, ...]:
    if isinstance(collect, str):
        raise TypeError(f"collect is the text {collect!r}; it must be a list of names, such as [{collect!r}].")
    return tuple(collect)


def _check_inputs(inputs: Any) -> dict[str, Any]:
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(f"inputs is a {type(inputs).__name__}; it must be a dict {{unique_id: value}}.")
    for name, value in (inputs or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"inputs has the name {name!r}; names are texts, the unique_ids of ports.")
        if prompt_graph.is_recipe(value):
            try:
                prompt_graph.check_recipe(value)
            except ValueError as e:
                raise ValueError(f"inputs[{name!r}] cannot be used: {e}.") from None
    return dict(inputs or {})


def _check_master_seed(seed: Any) -> int | None:
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise TypeError(f"master_seed is {seed!r}; it must be a whole number, or None for a new one.")
    return seed


def _check_on_error(on_error: Any) -> Any:
    if on_error in ("stop", "skip") or (callable(on_error) and not isinstance(on_error, type)):
        return on_error
    raise ValueError(f"on_error is {on_error!r}; it must be 'stop', 'skip' or a function of an IterationFailure.")


def _noted(problems: list[Exception], function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; None where it refuses its argument, which is noted."""
    try:
        return function(*arguments)
    except (ValueError, TypeError) as e:
        problems.append(e)
        return None


def options_note(request: RunRequest, retry: Retry) -> Json:
    """What a record's manifest says of what does not change results."""
    on_error = request.on_error if isinstance(request.on_error, str) else plan_text.function_note(request.on_error)
    return {
        "keep": request.keep,
        "on_error": on_error,
        "retry": dataclasses.asdict(retry),
        "max_server_ram_gb": request.max_server_ram,
        "max_vram_gb": request.max_vram,
    }
