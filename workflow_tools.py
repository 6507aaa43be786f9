"""DiscomfortWorkflowTools: ports, stitching, helpers, and ``run_sequential``, the orchestrator.

``run_sequential`` is a thin asynchronous loop over private helpers with one job each. Pure graph work lives in
:mod:`.workflow_graph`, conditions and steps in :mod:`.control_flow`, data in :mod:`.workflow_context`, the server in
:mod:`.comfy_serverless`; this file joins them.

How a value travels: the orchestrator (or an OUTPUT port in the server) saves it into the run's context under the port's
unique_id; the next prompt names the unique_id and the digest of the content; the loader node in the server maps it from
shared memory. No value passes through JSON, HTTP or the history.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import inspect
import itertools
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from . import control_flow, image_files, prompt_graph, seeds, value_codec, workflow_graph, workflow_json
from . import workflow_stitching as stitching
from .durable import plan_text
from .durable.batch_folder import BatchFolder
from .durable.checkpoint import (
    Checkpoint,
    JournalCutError,
    RecordedFailureError,
    open_run,
)
from .durable.kept_run import NoCheckpoint
from .durable.retry import Attempts, Retry, may_be_skipped, reason_of
from .durable.run_folder import RunFolderError, RunRecordFolder, sha256
from .durable.server_memory import ServerMemory
from .durable.stop_signal import StopSignal
from .nodes_internal import RUN_KEY
from .observing.observer import Observer
from .observing.run_control import RunStoppedError
from .observing.sketches import poor_sketch
from .progress_events import (
    IterationFinished,
    IterationStarted,
    NodeProgress,
    NodeStarted,
    PreviewImage,
    ProgressCallback,
    ProgressEvent,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from .run_plan import (
    MissingValueError,
    PlanCheck,
    PreflightError,
    PreparedWorkflow,
    ProtocolError,
    check_protocol,
    identity,
    nothing_to_read,
    output_nodes,
    plan_names,
    port_types,
    raise_problems,
    sources,
    unknown_nodes,
)
from .run_record import IterationFailure, RunRecord, RunResult, StepRecord, error_entry
from .run_request import RunRequest, options_note, read_request

if TYPE_CHECKING:
    import torch

    from .batch import Batch
    from .comfy_serverless import ComfyConnector, ServerEvent
    from .control_flow import ConditionSpec, Step
    from .object_store import HeldObject
    from .run_request import Items, Keep, OnError, Resume, SeedPolicy
    from .workflow_context import WorkflowContext

log = logging.getLogger("discomfort.workflow_tools")

__all__ = [
    "ContextValues",
    "DiscomfortWorkflowTools",
    "MissingValueError",
    "PreflightError",
    "PreparedWorkflow",
    "ProtocolError",
    "StaleReferenceError",
    "WorkflowExecutionError",
    "WorkflowTools",
]

Json = dict[str, Any]
WorkflowSource = str | os.PathLike[str] | Mapping[str, Any]


class WorkflowExecutionError(RuntimeError):
    """A step of a run failed. What earlier iterations produced is still in the run's context.

    The cause (a :class:`~.comfy_serverless.ConnectorError`) is ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        iteration: tuple[int, ...],
        workflow: str,
        node_id: str | None = None,
        class_type: str | None = None,
        title: str | None = None,
        server_traceback: Sequence[str] = (),
    ):
        #: zero-based; one number per nested loop, outermost first
        self.iteration = iteration
        self.workflow = workflow
        #: the node that failed, None where no single one did
        self.node_id = node_id
        self.class_type = class_type
        self.title = title
        #: the server's traceback, line by line
        self.server_traceback = list(server_traceback)
        super().__init__(message)


class StaleReferenceError(WorkflowExecutionError):
    """A value that is passed by reference cannot be made any more: what its recipe reads has changed since."""


class ContextValues(Mapping[str, Any]):
    """Read-only view of a context's values; each is loaded when it is asked for, and the time is counted."""

    def __init__(self, context: WorkflowContext, record: RunRecord):
        self._context = context
        self._record = record

    def __getitem__(self, unique_id: str) -> Any:
        started = time.perf_counter()
        try:
            return self._context.load(unique_id)
        finally:
            self._record.loading_seconds += time.perf_counter() - started

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.list_keys())

    def __len__(self) -> int:
        return len(self._context.list_keys())

    def __contains__(self, unique_id: object) -> bool:
        return unique_id in self._context


@dataclasses.dataclass
class _Run:
    """What the helpers of one run share. Nothing of it outlives the run."""

    context: WorkflowContext
    connector: ComfyConnector
    record: RunRecord
    values: ContextValues
    use_ram: bool
    listener: ProgressCallback | None
    collect: tuple[str, ...]
    per_iteration: Mapping[str, control_flow.PerIteration]
    #: {identity of the source: prepared workflow}
    prepared: dict[Any, PreparedWorkflow] = dataclasses.field(default_factory=dict)
    #: unique_ids that OUTPUT ports of this run have delivered
    produced: set[str] = dataclasses.field(default_factory=set)
    #: {identity of the source: how often it was queued}
    executions: collections.Counter[Any] = dataclasses.field(default_factory=collections.Counter)
    #: what is kept of it on disk, or nothing
    checkpoint: NoCheckpoint = dataclasses.field(init=False)
    memory: ServerMemory = dataclasses.field(init=False)
    stop: StopSignal = dataclasses.field(default_factory=StopSignal)
    #: shows the run in an editor, where one is open
    watch: Observer = dataclasses.field(init=False)
    #: None: the tools' own SERVER_ATTEMPTS and RETRY_DELAY
    retry: Retry | None = None
    on_error: OnError = "stop"
    #: {unique_id: [key under which an iteration's value is kept]}
    kept: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: what the listener raised: no iteration's fault, so that none is skipped for it
    listener_error: Exception | None = None
    #: the thread that writes collected values, None when all are written
    keeping: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.checkpoint = NoCheckpoint(self.context)
        self.memory = ServerMemory(self.connector, self.context)
        self.watch = Observer(self.context, self.record, self.save)

    @classmethod
    def of(cls, request: RunRequest, context: WorkflowContext, connector: ComfyConnector, use_ram: bool) -> _Run:
        record = RunRecord(
            context.run_id,
            connector.server_description,
            seed_policy=request.seed_policy,
            master_seed=request.master_seed or 0,
        )
        per_iteration = {k: v for k, v in request.inputs.items() if isinstance(v, control_flow.PerIteration)}
        values = ContextValues(context, record)
        run = cls(context, connector, record, values, use_ram, request.listener, request.collect, per_iteration)
        run.memory = ServerMemory(connector, context, request.max_server_ram, request.max_vram)
        run.stop = StopSignal(request.checkpoint or "")
        run.on_error, run.retry = request.on_error, request.retry
        return run

    def tell(self, event: ProgressEvent) -> None:
        """Hand an event to the listener; its time is the caller's, its errors end the run."""
        self.watch.hear(event)
        if self.listener is not None:
            started = time.perf_counter()
            try:
                self.listener(event)
            except Exception as e:
                self.listener_error = e
                raise
            self.record.caller_seconds += time.perf_counter() - started

    async def pass_gate(self, path: tuple[int, ...], before: str, reads: Sequence[str] = ()) -> None:
        """Between two steps: Ctrl-C ends the run here, and somebody at the editor's sidebar may hold it, and change
        values.
        """

        async def look() -> None:
            self.stop.check()
            await self._note_edits(path)

        self.stop.check()
        self.record.paused_seconds += await self.watch.pass_gate(path, before, reads, look)
        await self._note_edits(path)

    async def _note_edits(self, path: tuple[int, ...]) -> None:
        for name in self.watch.take_edits():
            await self.checkpoint.note_edit(path, name)

    def save(self, unique_id: str, value: Any, use_ram: bool | None = None) -> None:
        started = time.perf_counter()
        to_ram = self.use_ram if use_ram is None else use_ram
        if prompt_graph.is_recipe(value):
            self.context.save(unique_id, dict(value), use_ram=to_ram, pass_by="ref")  # noqa: S106 (no password)
        else:
            self.context.save(unique_id, value, use_ram=to_ram)
        self.record.loading_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def callers_time(self) -> Iterator[None]:
        """Count the time of a block as the caller's, but for the loading of values inside it."""
        started, loaded = time.perf_counter(), self.record.loading_seconds
        try:
            yield
        finally:
            loading = self.record.loading_seconds - loaded
            self.record.caller_seconds += time.perf_counter() - started - loading


class DiscomfortWorkflowTools:
    """Tools over workflows. All take a path or a dict, and never modify the dict they were given.

    Args:
        connector: server that :meth:`run_sequential` uses; None: it obtains one with ``ComfyConnector.create()``, and
            shuts it down at the end of the run if no other server of this process ran before.
        pass_by_rules: which socket types travel by reference, see :attr:`pass_by_rules`; a mapping, or the path of a
            JSON file. None: the ``pass_by_rules.json`` of this package.
    """

    #: how often a step is tried when the server dies or hangs under it
    SERVER_ATTEMPTS: ClassVar[int] = 3
    #: seconds before the second attempt; doubles
    RETRY_DELAY: ClassVar[float] = 0.5

    #: whether the memory of a run's own context is kept for the next run, until :meth:`release_memory`
    keeps_memory: bool = False

    def __init__(
        self,
        connector: ComfyConnector | None = None,
        pass_by_rules: Mapping[str, str] | str | os.PathLike[str] | None = None,
    ):
        self._connector = connector
        self._lender: WorkflowContext | None = None
        self._pass_by_rules: dict[str, str] | None = None
        if pass_by_rules is not None:
            self.pass_by_rules = pass_by_rules

    # ---- graphs: see workflow_graph for the details of each ----

    def discover_ports(self, workflow: WorkflowSource) -> list[workflow_graph.PortInfo]:
        """All DiscomfortPorts of a workflow in execution order, those in subgraphs included."""
        return workflow_graph.discover_ports(workflow)

    def discover_port_nodes(self, workflow: WorkflowSource) -> Json:
        """The ports grouped: inputs, outputs, passthrus, execution_order, nodes, links, unique_id_to_node."""
        return workflow_graph.discover_port_nodes(workflow)

    def validate_workflow(self, workflow: WorkflowSource) -> bool:
        """Whether :meth:`check_workflow` finds nothing to complain of."""
        return workflow_graph.validate_workflow(workflow)

    def check_workflow(self, workflow: WorkflowSource) -> list[str]:
        """The workflow's problems as sentences; empty where there are none."""
        return workflow_graph.check_workflow(workflow)

    def stitch_workflows(
        self, workflows: Sequence[WorkflowSource], delete_input_ports: bool = False, delete_output_ports: bool = False
    ) -> Json:
        """Join workflows: OUTPUT ports of earlier ones are wired to INPUT ports of the same unique_id in later ones."""
        return stitching.stitch_workflows(workflows, delete_input_ports, delete_output_ports)

    def remove_reroute_nodes(self, nodes: Sequence[Json], links: Sequence[Any]) -> tuple[list[Json], list[Any], Json]:
        """(nodes, links, link_id_map) without Reroute nodes."""
        return stitching.remove_reroute_nodes(nodes, links)

    # ---- values ----

    def open_image_as_tensor(self, path: str | os.PathLike[str]) -> torch.Tensor:
        """An image file as float32 [B,H,W,3] in 0..1, EXIF orientation applied."""
        return image_files.open_image_as_tensor(path)

    def open_image_as_mask(self, path: str | os.PathLike[str]) -> torch.Tensor:
        """An image file as a mask, float32 [B,H,W] in 0..1: what its alpha hides, or without alpha its brightness."""
        return image_files.open_image_as_mask(path)

    def save_comfy_image_to_disk(self, tensor: torch.Tensor, path: str | os.PathLike[str]) -> list[Path]:
        """Save [B,H,W,C] in 0..1 (clamped), one file per batch item where B > 1; returns the files."""
        return image_files.save_comfy_image_to_disk(tensor, path)

    def serialize(self, data: Any) -> Json:
        """A value as JSON-safe ``{"type", "content"}``, lossless; for export and debugging, not for run data."""
        return value_codec.serialize(data)

    def deserialize(self, data: Mapping[str, Any]) -> Any:
        """The value that :meth:`serialize` was given. Unpickles: only for data that you trust."""
        return value_codec.deserialize(data)

    @property
    def pass_by_rules(self) -> dict[str, str]:
        """{socket type: "val" | "ref"}; types that it does not name are "val".

        An OUTPUT port of a "ref" type delivers the recipe of its value instead of the value: the nodes that make it,
        which are put in the place of the INPUT ports that read it. The server's cache then hands out the model that it
        has loaded already. May be set to a mapping, or to the path of a JSON file.

        Raises:
            ValueError, FileNotFoundError: what is set is no such mapping (names the key and the value).
        """
        if self._pass_by_rules is None:
            self._pass_by_rules = _read_pass_by_rules(Path(__file__).with_name("pass_by_rules.json"))
        return dict(self._pass_by_rules)

    @pass_by_rules.setter
    def pass_by_rules(self, rules: Mapping[str, str] | str | os.PathLike[str]) -> None:
        self._pass_by_rules = _read_pass_by_rules(rules)

    # ---- the orchestrator ----

    async def run_sequential(
        self,
        workflow_paths: Sequence[Step],
        inputs: Mapping[str, Any] | None = None,
        iterations: int = 1,
        use_ram: bool = True,
        context: WorkflowContext | None = None,
        *,
        loop_condition: ConditionSpec | None = None,
        collect: Iterable[str] = (),
        progress: ProgressCallback | bool | None = None,
        seed_policy: SeedPolicy = "as_saved",
        master_seed: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: Resume = True,
        keep: Keep = "needed",
        retry: Retry | int | None = None,
        on_error: OnError = "stop",
        max_server_ram_gb: float | None = None,
        max_vram_gb: float | None = None,
        hash_models: bool = False,
    ) -> RunResult:
        """Run workflows one after the other, in a loop, with data flowing from iteration to iteration.

        Args:
            workflow_paths: steps: paths, workflow dicts (editor or API format), Branch, Loop, or their tuple and JSON
                forms (see :mod:`.control_flow`).
            inputs: {unique_id: value} for INPUT ports; a value may be a PerIteration.
            iterations: how often the steps are run at most; at least 1.
            use_ram: keep data in shared memory (where it fits) rather than on disk.
            context: holds the run's data and is left as it is; None: the run makes its own and removes it at the end.
            loop_condition: port name, expression or callable; asked before every iteration, and false ends the loop.
                Before the first one it counts as true as long as a value that it reads does not exist yet.
            collect: unique_ids of OUTPUT ports whose value of every iteration is kept, on disk, as soon as it exists.
            progress: callable that gets typed events (:mod:`.progress_events`); True or False for a bar or silence;
                None: a bar where stderr is a terminal.
            seed_policy: what becomes of seeds (widgets with "control after generate") from one queueing of a workflow
                to the next. "as_saved": what the editor would do with the saved workflow, whose first queueing uses
                the saved values. "fixed": the saved values always. "increment": they go up. "randomize": they are
                drawn each time, the first included. See :mod:`.seeds`.
            master_seed: what they are drawn from, a whole number; the same one gives the same seeds again. None: a new
                one (of a run that goes on: its own). It and all seeds are in the result's record.
            checkpoint: folder in which the run is kept: after each step its values and its record are safely on disk.
                The same call again, after whatever ended the first, goes on behind the last finished step, and ends as
                the undisturbed run would have. Functions are not called again for what is recorded. Ctrl-C ends such a
                run behind the present step, pressed twice at once. None: nothing is kept.
            resume: what to do with a run that the folder holds: True to go on if it is the same one; "force" to go on
                although plan or inputs have changed, as far as the record fits; False to move it aside and begin anew.
            keep: which values stay in the folder: "needed" (to go on, and the collected ones), or "all", so that every
                iteration can be run again by itself.
            retry: how often a step is tried: a Retry, or a number of attempts where a node fails (1: the error counts
                at once). A server that dies, hangs (STALL_TIMEOUT) or runs out of memory is freed or restarted and the
                step tried again, three times in all.
            on_error: what happens when an iteration of the outermost loop fails all the same: "stop"; "skip" it: values
                become those that it began with, and the next one runs; or a function, sync or async, that gets an
                IterationFailure and returns "stop", "skip" or "retry".
            max_server_ram_gb: GB (1024**3 bytes) of private memory that the server may have between steps; above it
                frees its memory, or is restarted, with all state kept.
            max_vram_gb: the same for what it has reserved on the GPU.
            hash_models: note the SHA-256 of model files too, not only names and sizes.

        Returns:
            ``{unique_id: value}`` of everything that OUTPUT ports delivered, with the run's record. For a port of a
            type that is passed by reference (:attr:`pass_by_rules`) the value is its recipe, a dict, which may be an
            input of another run.

        Raises:
            ValueError, FileNotFoundError, TypeError: an argument or a workflow cannot be used; nothing was queued.
            MissingValueError: an INPUT port or a condition has nothing to read; nothing was queued (or, where only
                the way through branches decides it, not this step).
            PreflightError: there are several of these problems; it has them all in a list.
            ProtocolError: the server's Discomfort nodes are missing, or another version's; nothing was queued.
            WorkflowExecutionError: a step failed; it says iteration, workflow and node.
            StaleReferenceError: one of these: a value by reference depends on a value that has changed since.
            ConnectorError: there is no server or no browser.
            RunChangedError: the folder holds another run; it names what differs. RunFolderError: it cannot be used.
            RunInterrupted: a KeyboardInterrupt; says how to go on.
            RunStoppedError: somebody has stopped it from the editor's sidebar.

        Cancelling interrupts exactly the prompt that runs, and cleans up.
        """
        request = read_request(
            workflow_paths,
            inputs,
            iterations,
            loop_condition,
            collect,
            progress,
            seed_policy,
            master_seed,
            checkpoint,
            resume,
            keep,
            retry,
            on_error,
            max_server_ram_gb,
            max_vram_gb,
            hash_models,
        )
        if not self._has_server():  # not worth starting one for what is wrong already
            raise_problems(request.problems)
        started = time.perf_counter()
        async with self._init_connector() as connector, self._setup_storage(context) as store:
            _check_server_is_near(connector)
            run = _Run.of(request, store, connector, use_ram)
            async with self._ending(run, started):
                await self._check_before(run, request)
                run.tell(RunStarted(store.run_id, request.outer.iterations or 0, connector.server_description))
                result = await self._run_plan(run, request)
        log.info("%s", run.record.summary())
        return result

    @contextlib.asynccontextmanager
    async def _ending(
        self, run: _Run, started: float, at_end: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """However the block ends: what is being written is finished, the end is noted and told; Ctrl-C says how to go
        on. *at_end* is called before that.
        """
        error: BaseException | None = None
        with run.stop:
            try:
                yield
            except asyncio.CancelledError as e:
                error = e
                if run.stop.was_cancelled():
                    error = run.stop.interrupted()
                    raise error from None
                if run.watch.was_stopped():
                    error = run.watch.stopped(run.checkpoint.path)
                    raise error from None
                raise
            except BaseException as e:
                error = e
                raise
            finally:
                if at_end is not None:
                    await at_end()
                await self._end_keeping(run)
                await self._end_checkpoint(run, error, started)
                await run.watch.end(error, run.record.costs())
                run.tell(RunFinished(run.context.run_id, run.record.iterations, error))

    def run_batch(
        self,
        workflow_paths: Sequence[Step],
        items: Items,
        *,
        input: str | None = None,
        key: Callable[[Any], str | int] | None = None,
        pattern: str = "*",
        inputs: Mapping[str, Any] | None = None,
        iterations: int = 1,
        loop_condition: ConditionSpec | None = None,
        use_ram: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: Resume = True,
        on_error: OnError = "skip",
        retry: Retry | int | None = None,
        retry_failed: bool = True,
        progress: ProgressCallback | bool | None = None,
        seed_policy: SeedPolicy = "as_saved",
        master_seed: int | None = None,
        max_server_ram_gb: float | None = None,
        max_vram_gb: float | None = None,
        hash_models: bool = False,
    ) -> Batch:
        """Run workflows on each of many items.

        Args:
            items: a folder (its picture files), a list, a dict {key: item}, an iterator or an asynchronous one. A path
                object is opened as a picture when its turn comes, for a port that takes MASK as a mask (1 minus alpha,
                or brightness); a text is a text; a dict is {port: value} for several ports at once (path objects in it
                are opened); anything else is the value of one port.
            input: the port that items go to; None: the only one that has no other value.
            key: function of an item that gives its name, by which a later call knows it again. None: the name of a
                file (below the folder), the key of a dict, else its number.
            pattern: which files of a folder; ``"**/*"`` for those of its folders too.
            inputs: {unique_id: value} that all items share.
            iterations, loop_condition: as in run_sequential, for each item.
            checkpoint: folder in which what items deliver is saved as it appears: outputs/<port>/<item>.png or .txt,
                results.csv, report.html. The same call again does the items that are not done, whose source has
                changed, or whose files have gone. None: values are only handed over.
            resume: as in run_sequential.
            on_error: as in run_sequential, for each item; "skip" here.
            retry_failed: whether items that failed in an earlier call are tried again.
            progress: as in run_sequential; an ItemFinished event has rate and time left.
            use_ram, retry, seed_policy, master_seed, max_server_ram_gb, max_vram_gb, hash_models: as in
                run_sequential. Seeds go on from item to item.

        Returns:
            A :class:`~.batch.Batch`: ``async for item in batch`` gives a BatchItem for each as it ends, ``await batch``
            the table of all. Nothing runs before that.

        Raises, on iterating:
            What run_sequential raises. An error of a single item is in its BatchItem (``on_error="skip"``).
        """
        from .batch import Batch

        options: Json = {
            "workflows": workflow_paths,
            "inputs": inputs,
            "iterations": iterations,
            "loop_condition": loop_condition,
            "use_ram": use_ram,
            "checkpoint": checkpoint,
            "resume": resume,
            "on_error": on_error,
            "retry": retry,
            "progress": progress,
            "seed_policy": seed_policy,
            "master_seed": master_seed,
            "max_server_ram_gb": max_server_ram_gb,
            "max_vram_gb": max_vram_gb,
            "hash_models": hash_models,
        }
        own: Json = {"input": input, "key": key, "pattern": pattern, "retry_failed": retry_failed}
        return Batch(self, options, items, own)

    def _read_batch_request(self, options: Mapping[str, Any]) -> RunRequest:
        """The checked arguments of a batch."""
        request = read_request(
            options["workflows"],
            options["inputs"],
            options["iterations"],
            options["loop_condition"],
            (),
            options["progress"],
            options["seed_policy"],
            options["master_seed"],
            options["checkpoint"],
            options["resume"],
            "needed",
            options["retry"],
            options["on_error"],
            options["max_server_ram_gb"],
            options["max_vram_gb"],
            options["hash_models"],
        )
        moving = [name for name, value in request.inputs.items() if isinstance(value, control_flow.PerIteration)]
        if not moving:
            return request
        problem = ValueError(
            f"inputs[{moving[0]!r}] is a PerIteration; in a batch the items are what changes: let each be a dict "
            f"{{{moving[0]!r}: value, ...}}."
        )
        return dataclasses.replace(request, problems=(*request.problems, problem))

    async def _open_batch_folder(self, run: _Run, request: RunRequest) -> None:
        """Open the folder of a batch, where it has one."""
        if request.checkpoint is None:
            if request.master_seed is None:
                run.record.master_seed = _new_seed()
            return
        manifest, names, prompts, workflows = await self._manifest(run, request, "batch")

        async def describe() -> Json:
            return await self._describe_session(run, prompts, request.hash_models)

        folder = await asyncio.to_thread(
            open_run, request.checkpoint, request.resume, run.context, manifest, names, prompts, workflows
        )
        run.checkpoint = BatchFolder(folder, run.context, describe)
        run.checkpoint.use_ram = run.use_ram
        run.record.master_seed = run.checkpoint.master_seed or 0
        run.record.checkpoint = run.checkpoint.path

    async def _check_before(self, run: _Run, request: RunRequest) -> None:
        """Prepare the workflows, and refuse what cannot work before anything is queued, all of it in one error."""
        problems = [*request.problems, *await self._prepare_all(run, request.outer)]
        plan = PlanCheck(run.prepared, {*run.context.list_keys(), *request.inputs}, request.has_gaps)
        raise_problems([*problems, *plan.problems(request.outer, request.inputs, request.collect)])

    async def _run_plan(self, run: _Run, request: RunRequest) -> RunResult:
        """Walk the plan, after the record of the run as far as there is one, and then for real."""
        while True:
            for unique_id, value in request.inputs.items():
                if unique_id not in run.per_iteration:
                    run.save(unique_id, value)
            await self._open_checkpoint(run, request)
            self._begin_watch(run, request)
            try:
                await self._run_loop(run, request.outer, ())
                if run.record.steps and not run.record.steps[-1].is_recalled:
                    await run.pass_gate((max(0, run.record.iterations - 1),), "the end")
                return await self._collect_result(run)
            except JournalCutError:
                # Nothing was done yet; what the walk has counted, it counts again.
                await run.checkpoint.close()
                run.checkpoint = NoCheckpoint(run.context)
                run.record.steps.clear()
                run.record.skipped.clear()
                run.record.iterations = 0
                run.executions.clear()
                run.produced.clear()

    def _begin_watch(self, run: _Run, request: RunRequest, total: int | None = None, unit: str = "iteration") -> None:
        """Show the run in an editor, where one is open. A batch says how many items it has."""

        def describe() -> Json:
            names = list(dict.fromkeys(one.name for one in run.prepared.values()))
            condition = request.outer.condition
            given = [name for name in request.inputs if name not in run.per_iteration and name in run.context]
            return {
                "name": ", ".join(names),
                "unit": unit,
                "iterations": (total if unit == "item" else request.outer.iterations) or 0,
                "inputs": {name: poor_sketch(run.context, name) for name in given},
                "condition": None if condition is None else _condition_text(control_flow.Condition.parse(condition)),
                "collect": list(request.collect),
                "checkpoint": run.checkpoint.path,
            }

        run.watch.begin(list(run.prepared.values()), describe)

    async def _open_checkpoint(self, run: _Run, request: RunRequest) -> None:
        """Open the run's folder, where it has one; from here on its record decides what is done already.

        Raises:
            RunChangedError, RunFolderError: it cannot be used.
        """
        if request.checkpoint is None:
            if request.master_seed is None:
                run.record.master_seed = _new_seed()
            return
        manifest, names, prompts, workflows = await self._manifest(run, request, "run")

        async def provide(name: str, iteration: int) -> Any:
            return await run.per_iteration[name].value(iteration, run.values, name=name)

        async def describe() -> Json:
            return await self._describe_session(run, prompts, request.hash_models)

        run.checkpoint = await asyncio.to_thread(
            Checkpoint.begin,
            request.checkpoint,
            request.resume,
            request.keep,
            run.context,
            manifest,
            names,
            prompts,
            workflows,
            provide,
            describe,
        )
        run.checkpoint.use_ram = run.use_ram
        run.record.master_seed = run.checkpoint.master_seed or 0
        run.record.checkpoint = run.checkpoint.path

    async def _manifest(
        self, run: _Run, request: RunRequest, kind: str
    ) -> tuple[Json, list[str], dict[str, Mapping[str, Any]], list[Json]]:
        """What a record's folder is made of: (manifest, names of the inputs, {digest: prompt}, workflows)."""
        prompts = {one.digest: one.template.prompt for one in run.prepared.values()}
        workflows = [one.recorded_workflow for one in run.prepared.values() if one.recorded_workflow is not None]
        plan: Json = {
            "loop": plan_text.loop_note(request.outer, lambda source: _workflow_note(run.prepared[identity(source)])),
            "collect": list(request.collect),
            "seed_policy": request.seed_policy,
            "master_seed": request.master_seed,
            "per_iteration": {name: plan_text.per_iteration_note(v) for name, v in sorted(run.per_iteration.items())},
        }
        if request.master_seed is None:
            plan["master_seed"] = await asyncio.to_thread(_recorded_seed, request.checkpoint or "", request.resume)
        manifest: Json = {
            "kind": kind,
            "discomfort": _version(),
            "plan": plan,
            "options": options_note(request, self._retry_of(run.retry)),
        }
        # What the run begins with: its inputs, and what it reads of a caller's context.
        read = {name for one in run.prepared.values() for name in one.inputs} | plan_names(request.outer)
        names = sorted({*request.inputs, *(name for name in read if name in run.context)} - set(run.per_iteration))
        return manifest, names, prompts, workflows

    async def _describe_session(self, run: _Run, prompts: Mapping[str, Mapping[str, Any]], hash_models: bool) -> Json:
        """What the record says of the circumstances; whatever cannot be found out does not stop a run."""
        from .durable.environment import describe_environment, describe_models

        found: Json = {"server": run.connector.server_description}
        try:
            found["environment"] = await describe_environment(run.connector)
            found["models"] = await describe_models(run.connector, prompts.values(), hash_models)
        except Exception as e:
            log.warning("What this run runs on is not in its record: %s: %s", type(e).__name__, e)
        return found

    async def _end_checkpoint(self, run: _Run, error: BaseException | None, started: float) -> None:
        """Note how the run ended, and let go of its folder. What fails here is told, and does not hide the error."""
        run.record.seconds = time.perf_counter() - started
        state = "finished" if error is None else "failed"
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, RunStoppedError)):
            state = "interrupted"
        fields: Json = {"iterations": run.record.iterations, "seconds": round(run.record.seconds, 3)}
        if error is not None:
            fields["error"] = error_entry(error)
        try:
            await run.checkpoint.finish(state, **fields)
            if isinstance(error, asyncio.CancelledError) and run.checkpoint.path:
                # In a notebook, say, where the error itself says nothing.
                log.info("The run was cancelled. The same call goes on from what is kept in %s", run.checkpoint.path)
        except RunFolderError as e:
            log.warning("%s", e)
        finally:
            run.record.recalled_steps = run.checkpoint.recalled_steps
            await run.checkpoint.close()
            run.record.checkpoint_seconds = run.checkpoint.seconds
            run.record.checkpoint_bytes = run.checkpoint.bytes_written

    async def _run_loop(self, run: _Run, loop: control_flow.Loop, path: tuple[int, ...]) -> None:
        """Run a loop's body until its iterations are used up or its condition is false."""
        outermost = not path
        total = loop.iterations or 0  # 0: unknown, a condition alone ends the loop
        for iteration in itertools.count() if loop.iterations is None else range(loop.iterations):
            here = (*path, iteration)
            if not await self._ask(run, loop.condition, here, "loop", first=iteration == 0):
                break
            run.tell(IterationStarted(run.context.run_id, iteration, total, here))
            run.watch.begin_iteration(here)
            if outermost:
                await self._run_iteration(run, loop, iteration)
                run.tell(IterationFinished(run.context.run_id, iteration, total))
            else:
                await self._run_steps(run, loop.body, here)

    async def _run_iteration(self, run: _Run, loop: control_flow.Loop, iteration: int) -> None:
        """One iteration of the outermost loop; where it fails, what ``on_error`` says."""
        changed = {name for one in run.prepared.values() for name in one.outputs} | set(run.per_iteration)
        produced, attempt = set(run.produced), 0
        while True:
            attempt += 1
            started = time.perf_counter()
            run.checkpoint.begin_iteration(iteration, changed, run.on_error != "stop")
            try:
                await self._save_per_iteration_inputs(run, iteration)
                await self._run_steps(run, loop.body, (iteration,))
                await self._keep_collected(run, iteration, started)
            except RecordedFailureError as e:
                recorded = e.entry.get("error") or {}
                failure = IterationFailure(
                    iteration, str(recorded.get("message", "")), str(recorded.get("type", "")), attempt
                )
                decision = "skip" if e.entry["state"] == "skipped" else "retry"
                await run.checkpoint.undo_iteration()
            except Exception as e:
                failure = IterationFailure.of(iteration, e, attempt)
                decision = await self._decide(run, failure)
                if decision == "stop":
                    raise
                log.warning("Iteration %d failed and is %s: %s", iteration, _DECIDED[decision], failure.message)
                await run.checkpoint.live()
                await run.checkpoint.undo_iteration()
                noted: Json = {"error": error_entry(e), "seconds": round(time.perf_counter() - started, 3)}
                await run.checkpoint.end_iteration(iteration, _DECIDED[decision], **noted)
                run.watch.note("iteration_failed", iteration=iteration, state=_DECIDED[decision], **noted)
            else:
                run.record.iterations = iteration + 1
                return
            run.produced = set(produced)
            if decision == "skip":
                run.record.skipped.append(failure)
                run.record.iterations = iteration + 1
                return

    async def _decide(self, run: _Run, failure: IterationFailure) -> str:
        """What becomes of an iteration that failed: "stop", "skip" or "retry".

        Raises:
            ValueError: the caller's function returned something else.
        """
        is_ours = failure.error is not None and failure.error is not run.listener_error
        if run.on_error == "stop" or not is_ours or not may_be_skipped(failure.error):
            return "stop"
        if isinstance(run.on_error, str):
            return run.on_error
        with run.callers_time():
            decision = run.on_error(failure)
            if inspect.isawaitable(decision):
                decision = await decision
        if decision not in ("stop", *_DECIDED):
            raise ValueError(f"on_error returned {decision!r}; it must return 'stop', 'skip' or 'retry'.")
        return str(decision)

    async def _ask(self, run: _Run, spec: Any, path: tuple[int, ...], what: str, first: bool = False) -> bool:
        """Whether a condition holds, after the record or now."""
        if spec is None:
            return True
        condition = control_flow.Condition.parse(spec)
        recorded = run.checkpoint.recall("condition", path, what=what)
        if recorded is not None:
            return bool(recorded["result"])
        await run.checkpoint.live()
        await run.pass_gate(path, f"the {what}'s condition", tuple(condition.names))
        result = await self._evaluate_condition(run, condition, path[-1], first)
        await run.checkpoint.note_condition(path, what, _condition_text(condition), result)
        run.watch.note_condition(path, what, _condition_text(condition), result)
        return result

    async def _run_steps(self, run: _Run, steps: Sequence[Any], path: tuple[int, ...]) -> None:
        for step in steps:
            if isinstance(step, control_flow.Branch):
                await self._process_branch(run, step, path)
            elif isinstance(step, control_flow.Loop):
                await self._run_loop(run, step, path)
            else:
                await self._run_workflow(run, run.prepared[identity(step)], identity(step), path)

    async def _process_branch(self, run: _Run, branch: control_flow.Branch, path: tuple[int, ...]) -> None:
        """Run ``then`` or ``otherwise``, whichever the condition says."""
        chosen = await self._ask(run, branch.condition, path, "branch")
        await self._run_steps(run, branch.then if chosen else branch.otherwise, path)

    async def _run_workflow(self, run: _Run, prepared: PreparedWorkflow, source: Any, path: tuple[int, ...]) -> None:
        """One step: inject, execute, check and note what it delivered. `source` tells workflows apart."""
        recorded = run.checkpoint.recall("step", path, workflow=prepared.name)
        if recorded is not None:
            run.executions[source] += 1
            run.record.add(StepRecord.of_entry(recorded))
            run.watch.recall_step(run.record.steps[-1])
            run.produced.update(prepared.outputs)
            return
        await run.checkpoint.live()
        await run.pass_gate(path, f"step {prepared.name}", prepared.inputs)
        run.tell(StepStarted(run.context.run_id, path, prepared.name))
        run.watch.begin_step(path, prepared.name)
        step = StepRecord(path, prepared.name)
        step.seeds = seeds.seed_values(
            prepared.controlled,
            run.record.seed_policy,
            run.record.master_seed,
            prepared.name,
            run.executions[source],
        )
        run.executions[source] += 1
        started, is_executing = time.perf_counter(), False
        try:
            prompt = self._inject_inputs(prepared, run.context, step)
            reads = {name: run.context.digest(name) for name in prepared.inputs} if run.checkpoint.path else {}
            # What it reads and overwrites, for the case that it is cut off after that and has to be repeated.
            held = [run.context.hold(name) for name in prepared.inputs if name in prepared.outputs]
            is_executing = True
            entry = await self._execute_workflow(run, prepared, prompt, step, held)
            is_executing = False
            step.seconds = time.perf_counter() - started
            self._extract_outputs(prepared, entry, step)
        except BaseException as e:
            step.seconds = time.perf_counter() - started
            run.record.add(step)
            if not isinstance(e, Exception):
                raise
            explained = self._explain(e, prepared, path) if is_executing else e
            await self._note_failure(run, step, explained)
            if explained is e:
                raise
            raise explained from e
        run.record.add(step)
        self._keep_recipes(run, prepared, prompt, step)
        step.memory = await run.memory.look()
        await run.checkpoint.note_step(step, prompt, prepared.digest, prepared.outputs, reads)
        run.produced.update(prepared.outputs)
        run.watch.end_step(step, len(prompt), list(prepared.outputs))
        run.tell(StepFinished(run.context.run_id, path, prepared.name, step.seconds))
        await self._relieve_server(run)

    async def _note_failure(self, run: _Run, step: StepRecord, error: BaseException) -> None:
        entry = step.to_entry()
        run.watch.fail_step(step, error)
        kept = {key: entry[key] for key in ("path", "workflow", "seconds", "attempts", "retries")}
        await run.checkpoint.note("step_failed", **kept, error=error_entry(error))

    async def _relieve_server(self, run: _Run) -> None:
        """Between two steps: keep the server's memory under its ceilings, at a cost that is noted."""
        started = time.perf_counter()
        for done in await run.memory.relieve():
            run.record.recycles.append(done)
            await run.checkpoint.note("recycle", durable=False, **done)
            run.watch.note("recycle", **done)
            run.record.recycle_seconds += time.perf_counter() - started
            started = time.perf_counter()

    # ---- helpers with one job each ----

    @contextlib.asynccontextmanager
    async def _setup_storage(self, context: WorkflowContext | None) -> AsyncIterator[WorkflowContext]:
        """The context that holds the run's data, registered for this process; one of our own is removed at the end."""
        from .workflow_context import WorkflowContext, register_context, unregister_context

        own = WorkflowContext(lender=self._memory_lender()) if context is None else None
        store = own or context
        assert store is not None
        register_context(store)
        try:
            yield store
        finally:
            await self._cleanup(own, unregister_context)

    def _memory_lender(self) -> WorkflowContext | None:
        """The context that holds idle memory between runs: an empty one."""
        from .workflow_context import WorkflowContext

        if self.keeps_memory and (self._lender is None or not self._lender.is_alive()):
            self._lender = WorkflowContext()
        return self._lender

    def release_memory(self) -> None:
        """Give the memory that was kept for the next run back to the system. Idempotent; a later run keeps anew."""
        lender, self._lender = self._lender, None
        if lender is not None:
            lender.shutdown()

    async def _cleanup(self, own: WorkflowContext | None, unregister: Callable[[str], Any]) -> None:
        """Remove the run's own context; values that were handed out stay readable."""
        if own is not None:
            unregister(own.run_id)
            own.shutdown()

    @contextlib.asynccontextmanager
    async def _init_connector(self) -> AsyncIterator[ComfyConnector]:
        """A ready connector: the one given, else the process's; one that was started for this run alone is killed."""
        if self._connector is not None:
            yield self._connector
            return
        from .comfy_serverless import ComfyConnector

        was_running = ComfyConnector.is_running()
        connector = await ComfyConnector.create()
        if not was_running and connector.users == 0:
            connector.ends_with_its_users = True
        connector.users += 1  # several runs at once share it: the last one ends it
        try:
            yield connector
        finally:
            connector.users -= 1
            if connector.users <= 0 and connector.ends_with_its_users:
                await connector.kill_api()

    def _has_server(self) -> bool:
        """Whether a run would find a server that exists already."""
        from .comfy_serverless import ComfyConnector

        return self._connector is not None or ComfyConnector.is_running()

    async def _prepare_all(self, run: _Run, outer: control_flow.Loop) -> list[Exception]:
        """Prepare every workflow of the plan, each once; returns what is wrong with them, and with the server's nodes.

        Raises:
            ConnectorError: there is no server or no browser to ask.
        """
        from .comfy_serverless import ConnectorError, ConversionError, ConversionTimeoutError

        started = time.perf_counter()
        problems = check_protocol(await run.connector.node_definitions(), run.connector.server_description)
        for number, source in enumerate(sources(outer.body), start=1):
            if identity(source) in run.prepared:
                continue
            name = Path(source).name if isinstance(source, (str, os.PathLike)) else f"workflow {number}"
            try:
                run.prepared[identity(source)] = await self._prepare_workflow(source, name, run.connector)
            except ConnectorError as e:
                if not isinstance(e, ConversionError) or isinstance(e, ConversionTimeoutError):
                    raise
                problems.append(e)
            except (ValueError, TypeError, OSError) as e:
                problems.append(e)
        run.record.conversion_seconds += time.perf_counter() - started
        return problems

    async def _prepare_workflow(self, source: WorkflowSource, name: str, connector: ComfyConnector) -> PreparedWorkflow:
        """Load a workflow, convert it to a prompt (a prompt stays as it is), and find its ports and seeds.

        Raises:
            FileNotFoundError, ValueError: the file cannot be used; two OUTPUT ports have one name.
            ConnectorError: the conversion failed; UnknownNodeError: the server does not have a node of it.
        """
        content = workflow_json.load_workflow(source, allow_prompt=True)
        definitions = await connector.node_definitions()
        if prompt_graph.is_api_format(content):
            workflow, prompt = None, content
            _refuse_nodes_without_type(prompt, name)
            self._refuse_unknown_nodes(prompt, definitions, name, connector.server_description, connector.failed_packs)
        else:
            workflow, prompt = content, await connector.get_prompt_from_workflow(content)
        try:
            template = prompt_graph.PromptTemplate(prompt)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from e
        ends = output_nodes(template, definitions)
        problems = prompt_graph.link_problems(prompt, ends)
        if problems:
            raise ValueError(f"{name}: {' '.join(problems)}")
        if not ends:
            raise ValueError(
                f"{name} delivers nothing: it has neither an OUTPUT port nor a node such as SaveImage or PreviewImage "
                "that is switched on, so the server would not run it. Put a port behind what it makes."
            )
        drawn = () if workflow is None else workflow_graph.discover_ports(workflow)
        return PreparedWorkflow(
            name,
            workflow,
            template,
            tuple(template.inputs),
            {unique_id: port.node_id for unique_id, port in template.outputs.items()},
            *port_types(template, definitions, drawn),
            tuple(seeds.find_controlled_widgets(prompt, definitions, workflow)),
        )

    @staticmethod
    def _refuse_unknown_nodes(
        prompt: Json, definitions: Json, name: str, server: str, failed_packs: Mapping[str, str]
    ) -> None:
        from .comfy_serverless import UnknownNodeError, tell_failed_packs

        unknown = unknown_nodes(prompt, definitions)
        if unknown:
            words = ", ".join(prompt_graph.prompt_node_words(node_id, prompt[node_id]) for node_id in unknown)
            raise UnknownNodeError(
                f"{name}: the server does not have {words} ({server}). Install the pack that has it into that ComfyUI "
                f"and restart it, or correct the prompt's class_type.{tell_failed_packs(failed_packs)}",
                unknown,
            )

    async def _save_per_iteration_inputs(self, run: _Run, iteration: int) -> None:
        for unique_id, source in run.per_iteration.items():
            if run.checkpoint.recall("input", (iteration,), name=unique_id) is not None:
                continue
            await run.checkpoint.live()
            run.stop.check()
            with run.callers_time():
                value = await source.value(iteration, run.values, name=unique_id)
            run.save(unique_id, value)
            await run.checkpoint.note_input((iteration,), unique_id, sequence=source.length is not None)
            run.watch.note_input((iteration,), unique_id)

    def _inject_inputs(
        self, prepared: PreparedWorkflow, context: WorkflowContext, step: StepRecord | None = None
    ) -> Json:
        """The prompt of one execution: INPUT ports become loaders that name the content they will find, or the nodes
        of a recipe; OUTPUT ports are told whether to save their value; seeds are those of the step.

        Raises:
            MissingValueError: a value does not exist (a branch that was not taken should have made it).
            StaleReferenceError: a recipe reads a value that has changed since it was made.
            WorkflowExecutionError: what is stored by reference is no recipe.
        """
        contents, recipes = {}, {}
        for name in prepared.inputs:
            info = context.get_storage_info(name)
            if info is None:
                raise nothing_to_read(prepared.name, name, context.list_keys())
            if info["pass_by"] == "ref":  # noqa: S105 (no password)
                recipes[name] = context.load(name)
                self._check_recipe(recipes[name], name, prepared, context, step)
            else:
                contents[name] = info["digest"]
        references = self._references(prepared, recipes)
        if step is not None:
            step.references = references
        return prepared.template.fill(contents, recipes, references, step.seeds if step is not None else {})

    def _references(self, prepared: PreparedWorkflow, recipes: Mapping[str, Json]) -> dict[str, str]:
        """{unique_id: type} of the OUTPUT ports that deliver a recipe: those of a type that is passed by reference, and
        those that hand on an input that came by reference.
        """
        rules, found = self.pass_by_rules, {}
        for name in prepared.outputs:
            kind = prepared.output_types.get(name, workflow_json.ANY_TYPE)
            came = [recipes[i]["type"] for i in prepared.handed_on.get(name, ()) if i in recipes]
            if came or rules.get(kind) == "ref":
                found[name] = came[0] if came else kind
        return found

    def _check_recipe(
        self, recipe: Json, name: str, prepared: PreparedWorkflow, context: WorkflowContext, step: StepRecord | None
    ) -> None:
        """Refuse a recipe that cannot be stitched in now; raises as `_inject_inputs`."""
        path = step.iteration if step is not None else ()
        try:
            prompt_graph.check_recipe(recipe)
        except ValueError as e:
            raise WorkflowExecutionError(
                f"{_where(prepared.name, path)}: the INPUT port {name!r} cannot use what it gets by reference: {e}.",
                iteration=path,
                workflow=prepared.name,
            ) from None
        absent = [key for key in recipe["values"] if key not in context]
        changed = [k for k, digest in recipe["values"].items() if k not in absent and context.digest(k) != digest]
        if not absent and not changed:
            return
        if absent:
            what = f"{', '.join(map(repr, absent))}, which this run does not have. Give it the same value as an input"
        else:
            what = (
                f"{', '.join(map(repr, changed))}, which has changed since. Run {recipe['workflow']} again behind the "
                "step that changes it, let that step write another name"
            )
        raise StaleReferenceError(
            f"{_where(prepared.name, path)}: the INPUT port {name!r} gets a {recipe['type']} by reference, made by "
            f"{recipe['workflow']} from {what}, or have {recipe['type']} passed by value (pass_by_rules).",
            iteration=path,
            workflow=prepared.name,
        )

    def _keep_recipes(self, run: _Run, prepared: PreparedWorkflow, prompt: Json, step: StepRecord) -> None:
        """Save the recipes of the OUTPUT ports that deliver by reference."""
        for name, kind in step.references.items():
            run.save(name, prompt_graph.make_recipe(prompt, prepared.outputs[name], kind, prepared.name))
            step.outputs[name] = run.context.digest(name)

    async def _execute_workflow(
        self,
        run: _Run,
        prepared: PreparedWorkflow,
        prompt: Json,
        step: StepRecord,
        held: Sequence[HeldObject] = (),
    ) -> Json:
        """Run a prompt; where it fails for a reason that may pass, make that pass and run it again, as often as the
        run's Retry says, each time with the loop variables that were *held* before the first.

        Returns:
            The server's history entry.
        """
        from .comfy_serverless import ConnectorError

        info: Json = {RUN_KEY: {"run_id": run.context.run_id, "use_ram": run.use_ram}}
        if prepared.workflow is not None:
            # Pictures that the run saves open in the editor, with the seeds that made them.
            info["workflow"] = seeds.workflow_with_values(prepared.workflow, prepared.controlled, step.seeds)
        is_heard = run.listener is not None or run.watch.is_active
        on_event = self._translate(run, prompt) if is_heard else None
        attempts = Attempts(self._retry_of(run.retry))
        while True:
            try:
                history = await run.connector.run_workflow(
                    prompt, use_workflow_json=False, extra_data={"extra_pnginfo": info}, on_event=on_event
                )
            except ConnectorError as e:
                await self._prepare_retry(run, prepared, step, attempts, e)
                for value in held:
                    run.context.restore(value, run.use_ram)
            else:
                ((step.prompt_id, entry),) = history.items()
                return dict(entry)

    def _retry_of(self, retry: Retry | None) -> Retry:
        return retry or Retry(server=self.SERVER_ATTEMPTS, delay=self.RETRY_DELAY)

    async def _prepare_retry(
        self, run: _Run, prepared: PreparedWorkflow, step: StepRecord, attempts: Attempts, error: Exception
    ) -> None:
        """Do what the next attempt at a step needs: wait, free memory, restart the server. Re-raises the error where it
        is none that passes, or was tried often enough.
        """
        reason = reason_of(error)
        action = attempts.next_action(reason) if reason else None
        if action is None:
            raise error
        delay = attempts.next_delay()
        text = str(error).splitlines()[0]
        step.retries.append({"reason": reason, "error": text, "action": action, "delay": delay})
        log.warning("%s; %s is run again in %.1f s", text, prepared.name, delay)
        run.stop.check()
        await asyncio.sleep(delay)
        run.stop.check()
        step.attempts += 1
        await self._act(run, action, reason or "")

    async def _act(self, run: _Run, action: str, reason: str) -> None:
        """Free the server's memory, or restart it. What fails here, the next attempt tells."""
        from .comfy_serverless import ConnectorError

        try:
            if action == "free":
                await run.connector.free(unload_models=True, free_memory=True)
                await asyncio.sleep(0.2)  # it does so when it is idle, and a prompt that came first would go first
            elif action == "restart" and reason != "died" and not run.connector.is_attached:
                # A dead one is restarted by whoever needs it next. One that is hung, or full, has to be ended first.
                await run.connector.restart(f"a step {'hung' if reason == 'hung' else 'ran out of memory'}")
        except ConnectorError as e:
            log.warning("%s", str(e).splitlines()[0])

    def _translate(self, run: _Run, prompt: Json) -> Callable[[ServerEvent], None]:
        """A listener that turns the server's events into the run's."""
        run_id = run.context.run_id

        def on_event(event: ServerEvent) -> None:
            if event.type == "executing" and event.node is not None:
                node = prompt.get(event.node) or {}
                title = (node.get("_meta") or {}).get("title", "")
                kind = node.get("class_type", "")
                # What takes the place of an INPUT port is nothing that a user has seen.
                kind = prompt_graph.PORT_TYPE if kind == prompt_graph.LOADER_TYPE else kind
                run.tell(NodeStarted(run_id, event.node, kind, title))
            elif event.type == "progress":
                value, maximum = event.data.get("value", 0), event.data.get("max", 0)
                run.tell(NodeProgress(run_id, event.node or "", value, maximum))
            elif event.type == "preview" and event.image is not None:
                run.tell(PreviewImage(run_id, event.node, event.image, event.image_format or "jpeg"))

        return on_event

    def _extract_outputs(self, prepared: PreparedWorkflow, entry: Mapping[str, Any], step: StepRecord) -> None:
        """Check that every OUTPUT port delivered in *this* execution, and note it; the values are in the context
        already.

        Raises:
            WorkflowExecutionError: a port did not execute, so the context may hold an older value under its name.
        """
        outputs = entry.get("outputs") or {}
        for unique_id, node_id in prepared.outputs.items():
            saved = ((outputs.get(node_id) or {}).get("discomfort") or [None])[0]
            if not isinstance(saved, Mapping):
                raise WorkflowExecutionError(
                    f"{_where(prepared.name, step.iteration)}: the OUTPUT port {unique_id!r} (node "
                    f"#{node_id}) delivered nothing, although the server reports success: something before it blocked "
                    "the execution.",
                    iteration=step.iteration,
                    workflow=prepared.name,
                    node_id=node_id,
                    class_type="DiscomfortPort",
                )
            step.outputs[unique_id] = str(saved.get("digest") or "")
            step.saving_seconds += float(saved.get("seconds") or 0.0)
        times = dict((entry.get("status") or {}).get("messages") or [])
        start, end = times.get("execution_start") or {}, times.get("execution_success") or {}
        if "timestamp" in start and "timestamp" in end:
            step.server_seconds = max(0.0, (end["timestamp"] - start["timestamp"]) / 1000 - step.saving_seconds)
        step.cached_nodes = list((times.get("execution_cached") or {}).get("nodes") or [])

    async def _evaluate_condition(self, run: _Run, spec: Any, iteration: int, first: bool = False) -> bool:
        """Whether a loop goes on, or a branch takes ``then``.

        Args:
            spec: a condition, None is true.
            first: before the first iteration of a loop a condition whose values do not exist yet is true.
        """
        if spec is None:
            return True
        condition = control_flow.Condition.parse(spec)
        if first and condition.missing(run.values):
            return True
        with run.callers_time():
            try:
                return await condition.holds(run.values, iteration)
            except KeyError:
                if first and condition.kind == "function":
                    return True
                raise

    async def _keep_collected(self, run: _Run, iteration: int, started: float) -> None:
        """Keep this iteration's value of every collected port: on disk, at once, under a key of its own; or, in a run
        that is kept, in its folder, where it is already.

        A thread writes while the server works on the next iteration; one iteration's values at a time, so that a slow
        disk slows the loop rather than filling the memory.
        """
        if isinstance(run.checkpoint, Checkpoint):
            if run.checkpoint.recall("iteration", (iteration,)) is None:
                collect = [name for name in run.collect if name in run.produced]
                seconds = round(time.perf_counter() - started, 3)
                await run.checkpoint.live()
                await run.checkpoint.end_iteration(iteration, "done", collect, seconds=seconds)
            return
        await self._finish_keeping(run)
        values = {}
        for unique_id in run.collect:
            if unique_id in run.produced:
                key = f"{unique_id} (iteration {iteration})"
                values[key] = run.values[unique_id]
                run.kept.setdefault(unique_id, []).append(key)

        def write() -> None:
            for key, value in values.items():
                run.context.save(key, value, use_ram=False)

        if values:
            run.keeping = asyncio.create_task(asyncio.to_thread(write))

    async def _finish_keeping(self, run: _Run) -> None:
        """Wait until collected values are written; an error of the disk ends the run here."""
        if run.keeping is not None:
            started = time.perf_counter()
            await asyncio.shield(run.keeping)  # a thread cannot be cancelled: the end of the run waits for it
            run.keeping = None
            run.record.loading_seconds += time.perf_counter() - started

    async def _end_keeping(self, run: _Run) -> None:
        """At the end of a run that failed: its context may not go before the writer of collected values is done."""
        if run.keeping is not None:
            await asyncio.wait([run.keeping])
            if not run.keeping.cancelled() and run.keeping.exception() is not None:
                log.warning("A collected value could not be kept: %s", run.keeping.exception())

    async def _collect_result(self, run: _Run) -> RunResult:
        """Values of all ports that delivered; loading maps them, so the context may go.

        The keys under which collected values were kept are the run's own and leave a caller's context with it; a run
        that fails leaves them, as they hold what earlier iterations made.
        """
        await self._finish_keeping(run)
        await run.checkpoint.restore()
        collected = {}
        for name in run.collect:
            kept = run.checkpoint.collected(name)
            collected[name] = kept if kept is not None else [run.values[key] for key in run.kept.get(name, [])]
        values = {name: run.values[name] for name in sorted(run.produced) if name not in collected}
        for keys in run.kept.values():
            for key in keys:
                run.context.delete(key)
        return RunResult({**values, **collected}, run.record, collected)

    def _explain(self, error: Exception, prepared: PreparedWorkflow, path: tuple[int, ...]) -> Exception:
        """A failure of a step as WorkflowExecutionError: iteration, workflow, and the node where one failed."""
        from .comfy_serverless import ConnectorError, NodeExecutionError

        if isinstance(error, WorkflowExecutionError):
            return error
        where = _where(prepared.name, path)
        if not isinstance(error, ConnectorError):
            return WorkflowExecutionError(f"{where}: {error}", iteration=path, workflow=prepared.name)
        return WorkflowExecutionError(
            f"{where}: {error}",
            iteration=path,
            workflow=prepared.name,
            node_id=error.node_id,
            class_type=error.class_type,
            title=error.title,
            server_traceback=error.server_traceback if isinstance(error, NodeExecutionError) else (),
        )


#: the name that the seeds use for the class in short
WorkflowTools = DiscomfortWorkflowTools


def _check_server_is_near(connector: ComfyConnector) -> None:
    """Refuse a server on another machine before anything is queued: every port of it would fail.

    Raises:
        NotOurServerError: says what can be done with such a server.
    """
    if not connector.is_local:
        from .comfy_serverless import NotOurServerError

        raise NotOurServerError(
            f"run() passes values through the memory of this machine, and the server at {connector.server_address} "
            "runs on another one. Run this script there, or use the connector alone: upload_data() and run_workflow() "
            "work with any server."
        )


def _refuse_nodes_without_type(prompt: Json, name: str) -> None:
    wrong = [i for i, node in prompt.items() if not (isinstance(node, Mapping) and node.get("class_type"))]
    if wrong:
        raise ValueError(f"{name}: no class_type in what the prompt has as {', '.join(map(repr, wrong))}.")


def _new_seed() -> int:
    return int.from_bytes(os.urandom(6), "big")  # short enough to be typed again


def _recorded_seed(folder: str, resume: Resume) -> int:
    """The master seed of the run that goes on in a folder; a new one where none does."""
    if resume is not False and RunRecordFolder.holds_run(folder):
        seed = RunRecordFolder.open(folder).manifest["plan"].get("master_seed")
        if isinstance(seed, int):
            return seed
    return _new_seed()


# What on_error may say besides "stop", and what the iteration then is.
_DECIDED = {"skip": "skipped", "retry": "retried"}


def _workflow_note(prepared: PreparedWorkflow) -> Json:
    """A workflow in a recorded plan."""
    file = None if prepared.recorded_workflow is None else sha256(prepared.recorded_workflow)
    return {"workflow": prepared.name, "prompt": prepared.digest, "file": file}


def _condition_text(condition: control_flow.Condition) -> str:
    source = condition.source
    return str(plan_text.function_note(source)["function"]) if callable(source) else str(source)


def _version() -> str:
    from . import __version__

    return __version__


def _read_pass_by_rules(source: Mapping[str, str] | str | os.PathLike[str]) -> dict[str, str]:
    """Checked rules, from a mapping or a JSON file.

    Raises:
        FileNotFoundError: no such file. ValueError: it names key and value.
    """
    where = "pass_by_rules"
    if not isinstance(source, Mapping):
        where = f"pass_by_rules ({os.fspath(source)})"
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as e:
            raise ValueError(f"{where} is not JSON: {e}") from None
    if not isinstance(source, Mapping):
        raise ValueError(f'{where} must be an object such as {{"MODEL": "ref"}}, not {type(source).__name__}.')
    for kind, rule in source.items():
        if not isinstance(kind, str) or rule not in ("val", "ref"):
            raise ValueError(f"{where}: {kind!r} is {rule!r}; allowed are 'val' and 'ref', for the name of a type.")
    return dict(source)


def _where(workflow: str, path: tuple[int, ...]) -> str:
    return f"{workflow}, iteration {'.'.join(map(str, path))}"
