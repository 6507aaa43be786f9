"""Running a record again: its steps in their order, as they were queued, and whether they give the same.

Not the orchestrator's walk through a plan, whose functions a record does not hold: each finished step's exact prompt is
posted once more, with the values that it read, and the digests of what its ports deliver are compared with the recorded
ones. A prompt is cut down to what its OUTPUT ports need, so that no SaveImage writes into anybody's folder again.

What a step reads is in the replay's own context, if a step of the replay made it; else it comes from the record, as an
inline value or as an object. What the record does not hold can be given. Where a step gives another value than it did,
the steps that read it run with the new one, and are told apart from the first cause.

Values are believed to be plain data, and looked at before the server gets to see them, unless the caller trusts whoever
made the folder. Prompts are run as they are: they can do what any workflow can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..control_flow import PerIteration
from ..nodes_internal import RUN_KEY
from ..object_store import StoreError, UntrustedError, load_plain_object
from ..prompt_graph import LOADER_TYPE, PORT_TYPE, Prompt, is_link, with_inputs
from .compare import environment_differences, model_differences, same_algorithm, step_words, value_difference
from .replay_plan import MissingValuesError, NoSuchIterationError, Plan, ReplayError, reference_count
from .run_folder import RunFolderError, RunRecordFolder, finite, iter_steps, sha256
from .secrets import REMOVED
from .source_files import open_file

if TYPE_CHECKING:
    from ..comfy_serverless import ComfyConnector
    from ..discomfort import Discomfort
    from ..workflow_context import WorkflowContext

log = logging.getLogger("discomfort.durable")

Json = dict[str, Any]

__all__ = ["Difference", "MissingValuesError", "NoSuchIterationError", "ReplayError", "ReplayResult", "replay"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A port that delivered another value than it did."""

    #: the iteration, zero-based; inside nested loops one number per level, outermost first
    path: tuple[int, ...]
    workflow: str
    port: str
    #: digests; ``found`` is "" where the port delivered nothing
    recorded: str
    found: str
    #: the largest absolute difference of their numbers; None where it is not known
    most: float | None = None
    #: how they differ, for people; "" where the recorded value is not kept
    words: str = ""
    #: names that the step read, and whose value had changed before
    read_changed: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Iteration, workflow and port, for a sentence."""
        return f"{step_words({'path': self.path, 'workflow': self.workflow})}, port {self.port!r}"

    def sentence(self) -> str:
        """What a person should know of it, in one line."""
        how = self.words or f"another value (recorded {self.recorded}, now {self.found})"
        because = f"; it read a changed {' and '.join(map(repr, self.read_changed))}" if self.read_changed else ""
        return f"{self.where}: {how}{because}"


@dataclasses.dataclass
class ReplayResult:
    """What a replay found. Times are in seconds."""

    #: steps that were run again, and values whose digests were compared, and were the same
    steps: int = 0
    values: int = 0
    identical: int = 0
    #: in the order of the run: the first one is the cause, or the first of its effects that is visible
    differences: list[Difference] = dataclasses.field(default_factory=list)
    #: what a person should know besides, in sentences
    notes: list[str] = dataclasses.field(default_factory=list)
    #: how what the server runs on now differs from then, in sentences: "was" then, "is" now
    environment: list[str] = dataclasses.field(default_factory=list)
    #: nodes whose results the server had kept from before the replay, so that they were not computed again
    cached_nodes: int = 0
    seconds: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether every value that was compared is the recorded one, bit for bit."""
        return not self.differences

    def summary(self) -> str:
        """The result in one sentence."""
        steps, values = (_count(n, one) for n, one in ((self.steps, "step"), (self.values, "value")))
        if self.is_identical:
            return f"identical: {steps}, {values}"
        return f"differs: {len(self.differences):,} of {values} in {steps}; first in {self.differences[0].sentence()}"

    def to_dict(self) -> Json:
        """JSON-safe data."""
        found = {"is_identical": self.is_identical, **dataclasses.asdict(self), "summary": self.summary()}
        return dict(finite(found))


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


async def replay(
    d_or_connector: Discomfort | ComfyConnector,
    record: RunRecordFolder,
    iteration: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    trust: bool = False,
    progress: Callable[[int, int, Json], None] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    fresh: bool = True,
) -> ReplayResult:
    """Run a record's finished steps again, and compare what their OUTPUT ports deliver with what they delivered.

    Writes nothing into the folder, which another process may be writing at this moment.

    Args:
        d_or_connector: a server of this machine.
        record: the run's folder.
        iteration: of the outermost loop, zero-based: only its steps, where the record holds what they read; else those
            before it are run too. None: all.
        inputs: {name: value} that the record does not hold (secrets, pictures of a sequence); a PerIteration for
            another one in each iteration. They are used instead of what it holds, but for values that the replay makes.
        trust: have values unpickled whatever they are: only for folders of people that you trust with your account.
        progress: called on the event loop after each step: (steps done, steps in all, the step's journal entry).
        secrets: {"node id.input": text} for texts that the record left out of prompts.
        fresh: have the server forget its cached results first, so that all is computed again; not done with a server
            that API_URL names, which is somebody's.

    Raises:
        MissingValuesError: the record does not hold what its steps read; names it. Nothing was queued.
        NoSuchIterationError: there is no such iteration.
        ReplayError: a secret is missing (names node and input); nothing is there to compare; a value is not plain data;
            a step does not run any more.
        RunFolderError: what is in the folder is damaged. ConnectorError: there is no server on this machine.

    Cancelling interrupts exactly the prompt that runs, and cleans up.
    """
    connector = cast("ComfyConnector", getattr(d_or_connector, "Worker", None) or d_or_connector)
    started = time.perf_counter()
    inputs = inputs or {}
    plan = await asyncio.to_thread(Plan, record, iteration, inputs, secrets or {})
    await _check_server(connector)
    if fresh and connector.log_path is not None:
        await connector.free(unload_models=False, free_memory=True)
        await asyncio.sleep(0.2)  # it does so when it is idle, and a prompt that came first would go first
    with _storage() as context:
        work = _Replay(plan, record, connector, context, inputs, trust)
        await work.run(progress)
    await work.tell_circumstances()
    work.result.seconds = time.perf_counter() - started
    return work.result


async def _check_server(connector: ComfyConnector) -> None:
    """Refuse a server that cannot read values of this machine, or has no ports."""
    from ..comfy_serverless import NotOurServerError
    from ..run_plan import check_protocol, raise_problems

    definitions = await connector.node_definitions()  # starts it
    if not connector.is_local:
        raise NotOurServerError(
            f"A replay passes values through the memory of this machine, and the server at {connector.server_address} "
            "runs on another one. Replay the record there."
        )
    raise_problems(check_protocol(definitions, connector.server_description))


@contextlib.contextmanager
def _storage() -> Iterator[WorkflowContext]:
    """A context for this replay alone."""
    from ..workflow_context import WorkflowContext, register_context

    with WorkflowContext() as context:
        register_context(context)  # shutting it down takes it out again
        yield context


def _signatures(prompt: Mapping[str, Any]) -> dict[str, str]:
    """{node id: what it computes}: its class, its values, and the signatures of what it reads."""
    found: dict[str, str] = {}
    entered: set[str] = set()
    pending = list(prompt)
    while pending:
        node_id = pending[-1]
        inputs = prompt[node_id].get("inputs") or {}
        unknown = [str(v[0]) for v in inputs.values() if is_link(v) and str(v[0]) in prompt and str(v[0]) not in found]
        if node_id in found or (unknown and node_id not in entered):
            if node_id in found:
                pending.pop()
            else:
                entered.add(node_id)
                pending += unknown
            continue
        parts = {name: [found.get(str(v[0])), v[1]] if is_link(v) else v for name, v in inputs.items()}
        found[pending.pop()] = sha256([prompt[node_id].get("class_type"), parts])
    return found


class _Replay:
    """One replay: goes through a plan."""

    def __init__(
        self,
        plan: Plan,
        record: RunRecordFolder,
        connector: ComfyConnector,
        context: WorkflowContext,
        inputs: Mapping[str, Any],
        trust: bool,
    ):
        self._plan = plan
        self._record = record
        self._connector = connector
        self._context = context
        self._inputs = inputs
        self._trust = trust
        self._state = plan.state.copy()
        # Signatures of all nodes that the replay has queued so far.
        self._queued: set[str] = set()
        # Names of given values that are not the recorded ones, and of those of which nobody can say.
        self._given_changed: set[str] = set()
        self._given_unknown: set[str] = set()
        # Paths of files that are unchanged, and another value is read from them.
        self._read_otherwise: set[str] = set()
        # Steps with nothing to compare, ports by reference, values whose digests cannot be compared.
        self._idle_steps = self._by_reference = self._incomparable = 0
        self._first_different: Json | None = None
        self.result = ReplayResult(notes=list(plan.notes))

    async def run(self, progress: Callable[[int, int, Json], None] | None) -> None:
        """Run the plan's attempts, and undo those that the run undid."""
        total, done = sum(len(one.steps) for one in self._plan.attempts), 0
        for one in self._plan.attempts:
            before = self._state.copy() if self._plan.is_restored(one) else None
            held = [self._context.hold(name) for name in self._state.live] if before else []
            for entry in one.entries:
                if entry["kind"] != "step":
                    self._state.take(entry)
                    continue
                await self._run_step(entry)
                done += 1
                if progress is not None:
                    progress(done, total, entry)
            if before is not None:
                for value in held:
                    self._context.restore(value)
                self._state = before

    async def _run_step(self, step: Json) -> None:
        part = self._plan.part(step)
        self._by_reference += reference_count(self._plan.prompts.of(step))
        if not part.ports:
            self._idle_steps += 1
            self._state.take(step)
            return
        changed = []
        prompt = dict(part.prompt)
        for node_id, (name, content) in part.loaders.items():
            await self._provide(name, content, step)
            found = self._context.digest(name)
            if content not in (found, REMOVED) and same_algorithm(content, found):
                changed.append(name)
            prompt[node_id] = with_inputs(prompt[node_id], {"content": found})
        entry = await self._execute(prompt, step)
        self._note_cached(prompt, entry)
        self._state.take(step)
        self.result.steps += 1
        for name, node_id in part.ports.items():
            saved = ((entry.get("outputs") or {}).get(node_id) or {}).get("discomfort") or [None]
            await self._compare(step, name, saved[0], tuple(dict.fromkeys(changed)))

    async def _execute(self, prompt: Prompt, step: Json) -> Json:
        """The server's history entry of a prompt."""
        from ..comfy_serverless import ConnectorError

        info = {RUN_KEY: {"run_id": self._context.run_id, "use_ram": True}}
        try:
            history = await self._connector.run_workflow(
                prompt, use_workflow_json=False, extra_data={"extra_pnginfo": info}
            )
        except ConnectorError as e:
            raise ReplayError(f"{step_words(step)}: it ran when it was recorded, and does not now: {e}") from e
        ((_, entry),) = history.items()
        return dict(entry)

    async def _provide(self, name: str, content: str, step: Json) -> None:
        """See that a value that a step reads is in the context.

        Raises:
            ReplayError, RunFolderError: it cannot be had.
        """
        note = self._state.notes.get(name)
        if name in self._state.live:
            if self._context.digest(name) == content or (note or {}).get("digest") == content or content == REMOVED:
                return
        elif name in self._inputs:
            await self._give(name, content, step)
            return
        # Where the record says of a name something else than its reader read, the reader is right: something that the
        # journal has no line for gave it back a former value.
        if note is None or note.get("digest") != content:
            note = self._plan.find(content) or note
        if note is not None and "file" in note and note.get("digest") == content and not self._record.has_value(note):
            await asyncio.to_thread(self._read, name, note, step)
            self._state.live.add(name)
            return
        if note is None or not self._record.has_value(note):
            if name in self._state.live:
                return
            raise ReplayError(f"{step_words(step)}: {name!r} is not in the record {self._record.path} any more.")
        await asyncio.to_thread(self._adopt, name, note, step)
        self._state.live.add(name)

    async def _give(self, name: str, content: str, step: Json) -> None:
        """Put a value that the caller gave into the context."""
        value = self._inputs[name]
        if isinstance(value, PerIteration):
            try:
                value = await value.value(step["path"][0], {}, name=name)
            except IndexError as e:
                raise ReplayError(f"{step_words(step)}: {e}") from e
        await asyncio.to_thread(self._context.save, name, value)
        self._state.live.add(name)
        found = self._context.digest(name)
        if content not in (found, REMOVED):
            (self._given_changed if same_algorithm(content, found) else self._given_unknown).add(name)

    def _read(self, name: str, note: Json, step: Json) -> None:
        """Put a value into the context that the batch had read from a file."""
        file = note["file"]
        try:
            self._context.save(name, open_file(file["path"], str(file.get("type"))))
        except (OSError, ValueError) as e:
            raise ReplayError(f"{step_words(step)} reads {name!r}, which the batch was given as a file: {e}") from e
        found = self._context.digest(name)
        if found != note["digest"]:
            is_known = same_algorithm(found, note["digest"])
            (self._read_otherwise if is_known else self._given_unknown).add(file["path"] if is_known else name)

    def _adopt(self, name: str, note: Json, step: Json) -> None:
        """Put a recorded value into the context, where the server will unpickle it."""
        if "value" in note:
            self._context.save(name, note["value"])
        else:
            try:
                held = self._record.held(note)
                if not self._trust:
                    load_plain_object(held)
            except UntrustedError as e:
                raise ReplayError(
                    f"{step_words(step)} reads {name!r}, and {e} In the command line that is --trust, in Python "
                    "trust=True. Nothing of it was loaded."
                ) from e
            except FileNotFoundError as e:
                raise ReplayError(f"{step_words(step)} reads {name!r}: {e}") from e
            except RunFolderError:
                raise
            except Exception as e:  # whatever a stream of unknown origin leads to
                raise ReplayError(
                    f"{step_words(step)} reads {name!r}, which cannot be loaded: {type(e).__name__}: {e}"
                ) from e
            self._context.adopt(name, held)
        found = self._context.digest(name)
        if same_algorithm(found, note["digest"]) and found != note["digest"]:
            raise RunFolderError(
                f"The value of {name!r} in {self._record.path} is not what was recorded: its digest is {found}, not "
                f"{note['digest']}."
            )

    def _note_cached(self, prompt: Prompt, entry: Mapping[str, Any]) -> None:
        """Count the nodes that came from the server's cache and were not computed in this replay."""
        signatures = _signatures(prompt)
        messages = dict((entry.get("status") or {}).get("messages") or [])
        for node_id in (messages.get("execution_cached") or {}).get("nodes") or []:
            node = prompt.get(str(node_id)) or {}
            if node.get("class_type") in (None, LOADER_TYPE, PORT_TYPE):  # nothing is computed there
                continue
            self.result.cached_nodes += signatures[str(node_id)] not in self._queued
        self._queued.update(signatures.values())

    async def _compare(self, step: Json, name: str, saved: Any, changed: tuple[str, ...]) -> None:
        """Compare what a port delivered with what it had delivered."""
        note = step["writes"].get(name, {})
        recorded = str(note.get("digest", ""))
        if not isinstance(saved, Mapping):
            self.result.values += 1
            words = "it delivered nothing: something before it blocked the execution"
            self._add(step, Difference(tuple(step["path"]), step["workflow"], name, recorded, "", None, words, changed))
            return
        self._state.live.add(name)
        found = str(saved.get("digest") or self._context.digest(name))
        if not recorded:  # a secret
            return
        is_same, most, words = found == recorded, None, ""
        if not is_same:
            most, words = await asyncio.to_thread(self._how_much, name, note)
            if not same_algorithm(found, recorded):
                if not words:
                    self._incomparable += 1
                    return
                is_same = most == 0.0
        self.result.values += 1
        self.result.identical += is_same
        if not is_same:
            if most == 0.0:
                words = "equal, but not bit for bit"
            path = tuple(step["path"])
            self._add(step, Difference(path, step["workflow"], name, recorded, found, most, words, changed))

    def _how_much(self, name: str, note: Json) -> tuple[float | None, str]:
        """How much a value differs from the recorded one; (None, "") where that is not at hand."""
        if not self._record.has_value(note):
            return None, ""
        try:
            return value_difference(self._record.value(note, self._trust), self._context.load(name))
        except (OSError, RunFolderError, StoreError) as e:
            log.debug("Not compared in detail: %s", e)
            return None, ""

    def _add(self, step: Json, difference: Difference) -> None:
        self.result.differences.append(difference)
        self._first_different = self._first_different or step

    # ---- telling ----

    async def tell_circumstances(self) -> None:
        """Note what a person should know besides the differences."""
        notes = self.result.notes
        if self._by_reference:
            ports = _count(self._by_reference, "value")
            notes.append(f"{ports} went by reference: a recipe, made again by the steps that used it, and not compared")
        if self._idle_steps:
            notes.append(f"{_count(self._idle_steps, 'step')} delivered no value: not run again")
        if self._incomparable:
            values = _count(self._incomparable, "value")
            notes.append(f"{values} cannot be compared: digested in different ways, and not kept")
        changed = "is not what was recorded"
        unknown = (
            "cannot be compared with what was recorded: one of the two Pythons has no xxhash and digests otherwise"
        )
        for given, words in ((self._given_changed, changed), (self._given_unknown, unknown)):
            if given:
                notes.append(f"what was given as {' and '.join(map(repr, sorted(given)))} {words}")
        if self._read_otherwise:
            files = _count(len(self._read_otherwise), "file")
            notes.append(
                f"from {files} another value is read than then, though size and time are the same (another version of "
                f"Pillow reads other pixels), first {min(self._read_otherwise)}"
            )
        if self.result.cached_nodes:
            nodes = _count(self.result.cached_nodes, "node")
            notes.append(f"{nodes} came from the server's cache, and were not computed again")
        self.result.environment = await self._environment_differences()

    async def _environment_differences(self) -> list[str]:
        """How what the server runs on differs from what it was when the first differing step, or the last, was run."""
        from .environment import describe_environment, describe_models

        session: Json = {}
        for entry in self._record.entries:
            if entry.get("kind") == "session":
                session = entry
            if entry is self._first_different:
                break
        if "environment" not in session:
            return []
        try:
            found = environment_differences(session["environment"], await describe_environment(self._connector))
            prompts = [
                self._plan.prompts.base(d) for d in {step["prompt"] for step in iter_steps(self._record.entries)}
            ]
            models = await describe_models(self._connector, prompts)
        except Exception as e:
            log.warning("What the server runs on now could not be found out: %s: %s", type(e).__name__, e)
            return []
        return found + model_differences(session.get("models", []), models)
