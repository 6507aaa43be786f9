"""What of a record is run again, and whether all that it reads is there. Asks no server, and loads no value of it.

A prompt is cut down to what its OUTPUT ports need, so that no SaveImage writes into anybody's folder again. What a step
reads is what the loaders in its prompt name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..prompt_graph import LOADER_TYPE, OUTPUT, PORT_TYPE, REFERENCE, Prompt, is_link, with_inputs
from .compare import Attempt, StepPrompts, attempts, listed, node_words
from .run_folder import RunFolderError, RunRecordFolder
from .secrets import REMOVED, is_secret_name
from .source_files import why_unusable

Json = dict[str, Any]

# ReplayError(RunFolderError)
#   MissingValuesError     the record does not hold what its steps read
#   NoSuchIterationError   the record has no such iteration


class ReplayError(RunFolderError):
    """A record cannot be run again, or not to its end: says where, and what is missing."""


class MissingValuesError(ReplayError):
    """The record does not hold all that its steps read; ``names`` are those of the values."""

    def __init__(self, message: str, names: Sequence[str]):
        self.names = list(names)
        super().__init__(message)


class NoSuchIterationError(ReplayError):
    """The record has no finished step of this iteration."""


# ------------------------------------------------------------------------------------------------------------ prompts


class Part(NamedTuple):
    """What of a step is run again."""

    prompt: Prompt
    #: {unique_id: node id} of the OUTPUT ports that deliver a value
    ports: dict[str, str]
    #: {node id: (unique_id, recorded digest)} of the loaders
    loaders: dict[str, tuple[str, str]]


def needed_part(prompt: Mapping[str, Any]) -> Part:
    """What of a step's prompt its OUTPUT ports need; ports that deliver by reference have no value. Pure."""
    ports = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs") or {}
        if node.get("class_type") == PORT_TYPE and inputs.get("mode") == OUTPUT:
            ports[str(inputs.get("unique_id")).strip()] = node_id
    needed: set[str] = set()
    pending = list(ports.values())
    while pending:
        node_id = pending.pop()
        if node_id in needed or node_id not in prompt:
            continue
        needed.add(node_id)
        pending += [str(v[0]) for v in (prompt[node_id].get("inputs") or {}).values() if is_link(v)]
    part = {node_id: node for node_id, node in prompt.items() if node_id in needed}
    loaders = {
        node_id: (str(node["inputs"].get("unique_id")), str(node["inputs"].get("content")))
        for node_id, node in part.items()
        if node.get("class_type") == LOADER_TYPE
    }
    return Part(part, ports, loaders)


def reference_count(prompt: Mapping[str, Any]) -> int:
    """How many ports deliver by reference."""
    ports = [node.get("inputs") or {} for node in prompt.values() if node.get("class_type") == PORT_TYPE]
    return sum(inputs.get("mode") == REFERENCE for inputs in ports)


def _filled(value: Any, secret: str) -> Any:
    """A node's input with a secret in the place that marks one."""
    if isinstance(value, str):
        return value.replace(REMOVED, secret)
    if isinstance(value, Mapping):
        return {key: _filled(one, secret) for key, one in value.items()}
    return [_filled(one, secret) for one in value] if isinstance(value, (list, tuple)) else value


def _lacks_secret(value: Any) -> bool:
    return not is_link(value) and REMOVED in json.dumps(value)


# ------------------------------------------------------------------------------------------------------------- values


@dataclasses.dataclass
class State:
    """The run's values at a moment."""

    #: {name: note} of what the record says that each holds; with "from": "start", "input" or "step"
    notes: dict[str, Json]
    #: names whose value is in the replay's context: the replay made it, or it was put there
    live: set[str] = dataclasses.field(default_factory=set)

    def copy(self) -> State:
        return State(dict(self.notes), set(self.live))

    def take(self, entry: Json) -> None:
        """Follow an entry of the journal: what it says that names hold now."""
        if entry["kind"] == "input":
            self.notes[entry["name"]] = {**entry["value"], "from": "input"}
            self.live.discard(entry["name"])
        elif entry["kind"] == "step":
            for name, note in entry["writes"].items():
                self.notes[name] = {**note, "from": "step"}
                self.live.discard(name)


class _Missing(NamedTuple):
    """A value that a step reads and nobody has."""

    name: str
    iteration: int
    why: str


class Plan:
    """The attempts at iterations that are run again, and what is known before them.

    Raises:
        MissingValuesError, NoSuchIterationError, ReplayError: as :func:`.replay.replay`, before it queues anything.
        RunFolderError: what is in the folder is damaged.
    """

    def __init__(
        self, record: RunRecordFolder, iteration: int | None, inputs: Mapping[str, Any], secrets: Mapping[str, str]
    ):
        """Blocks."""
        self._record = record
        self._inputs = inputs
        self._secrets = secrets
        self._start = {name: {**note, "from": "start"} for name, note in record.manifest.get("inputs", {}).items()}
        # Ids of nodes in which no secret is missing.
        self._without_secrets: set[int] = set()
        self.prompts = StepPrompts(record)
        #: what a person should know of it, in sentences
        self.notes: list[str] = []
        #: the run's values before the first attempt
        self.state = State(dict(self._start))
        #: in order
        self.attempts = self._choose(iteration)

    def _choose(self, iteration: int | None) -> list[Attempt]:
        found = attempts(self._record.entries)
        if self._record.damage is not None:
            self.notes.append(
                f"the journal is damaged in line {self._record.damage[0]}; what stands behind it is not replayed"
            )
        chosen = found if iteration is None else self._attempts_of(found, iteration)
        self._check_secrets(chosen)
        if not any(needed_part(self.prompts.of(step)).ports for one in chosen for step in one.steps):
            raise ReplayError(
                f"There is nothing to compare in {self._record.path}: "
                + ("no step has finished." if not any(one.steps for one in chosen) else "no port delivers a value.")
            )
        if iteration is None:
            self._refuse_missing(self._missing(chosen), "all that its steps read")
        return chosen

    def _attempts_of(self, found: list[Attempt], iteration: int) -> list[Attempt]:
        """The attempts at an iteration, or those before it too, where it cannot be run alone."""
        numbers = [n for n, one in enumerate(found) if one.iteration == iteration and one.steps]
        if not numbers:
            known = sorted({one.iteration for one in found if one.steps})
            has = f"it has those from {known[0]} to {known[-1]}" if known else "no step has finished"
            raise NoSuchIterationError(f"{self._record.path} has no finished step of iteration {iteration}; {has}.")
        before, own = found[: numbers[0]], found[numbers[0] : numbers[-1] + 1]
        state = State(dict(self._start))
        for one in before:
            ahead = state.copy()
            for entry in one.entries:
                ahead.take(entry)
            state = state if self.is_restored(one) else ahead
        self.state = state
        missing = self._missing(own)
        if not missing:
            return own
        self.state = State(dict(self._start))
        # A value that was given for this iteration is none to begin with.
        if not before or any(not is_secret_name(name) for name in self._inputs) or self._missing(before + own):
            self._refuse_missing(missing, f"all that iteration {iteration} reads")
        names = " and ".join(sorted({repr(one.name) for one in missing}))
        self.notes.append(
            f"iteration {iteration} cannot be run alone, as its {names} is not kept (a run with keep='all' keeps "
            f"everything): those before it were run too"
        )
        return before + own

    def _missing(self, chosen: Iterable[Attempt]) -> list[_Missing]:
        """The values that steps would read and nobody has, as the replay would go."""
        missing = []
        state = self.state.copy()
        for one in chosen:
            before = state.copy()
            for entry in one.entries:
                if entry["kind"] == "step":
                    part = needed_part(self.prompts.of(entry))
                    for name, content in part.loaders.values():
                        why = None if name in state.live else self._why_missing(state, name, content)
                        if why is not None:
                            missing.append(_Missing(name, one.iteration, why))
                    state.take(entry)
                    state.live |= set(part.ports)
                else:
                    state.take(entry)
            if self.is_restored(one):
                state = before
        return missing

    def is_restored(self, attempt: Attempt) -> bool:
        """Whether values became again what they had been before an attempt: each item of a batch begins anew."""
        return attempt.was_undone or self._record.manifest.get("kind") == "batch"

    def _why_missing(self, state: State, name: str, content: str) -> str | None:
        """Why a value cannot be had; None where it can."""
        note = state.notes.get(name)
        if name in self._inputs or self.find(content) is not None:
            return None
        if note is None:
            return "the record does not say what it is"
        if "secret" in note or content == REMOVED:
            return "its name says that it is a secret, and secrets are never recorded"
        if self._record.has_value(note):
            return None
        if "file" in note and note.get("digest") == content:
            return why_unusable(note["file"], content)
        if "sequence" in note:
            return "an item of the sequence that the run was given; those are not kept"
        if note["from"] == "input":
            return "what it was given for the iteration is not kept"
        if note["from"] == "step":
            return "what an earlier step wrote is not kept"
        return "its object is not there (any more)"

    def find(self, content: str) -> Json | None:
        """A note of a value that has this digest and is there; None for none."""
        if content == REMOVED:
            return None
        known = [note for note in self._start.values() if note.get("digest") == content]
        candidates = [*known, {"digest": content, "object": 0, "from": "start"}]
        return next((note for note in candidates if self._record.has_value(note)), None)

    def _refuse_missing(self, missing: Sequence[_Missing], what: str) -> None:
        if not missing:
            return
        groups: dict[tuple[str, str], list[int]] = {}
        for one in missing:
            numbers = groups.setdefault((one.name, one.why), [])
            numbers += [] if one.iteration in numbers[-1:] else [one.iteration]
        lines = []
        for (name, why), numbers in groups.items():
            more = f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else ""
            lines.append(f"{name!r}, which iteration {numbers[0]}{more} reads: {why}")
        names = sorted({name for name, _ in groups})
        raise MissingValuesError(
            f"{self._record.path} does not hold {what}:\n{listed(lines)}\nGive what is missing with --input NAME=FILE "
            "(a picture, .json or .txt; a folder for a file of each iteration), in Python with inputs={name: value}. A "
            "run that is made with keep='all' keeps everything but secrets.",
            names,
        )

    def _check_secrets(self, chosen: Iterable[Attempt]) -> None:
        """Refuse prompts in which a secret is missing, and given values that nothing takes.

        Raises:
            ReplayError: names workflow, node and input.
        """
        lines: dict[str, str] = {}
        places: set[str] = set()
        names: set[str] = set()
        for step in (step for one in chosen for step in one.steps):
            part = needed_part(self.prompts.of(step))
            names.update(name for name, _ in part.loaders.values())
            for node_id, node in part.prompt.items():
                for name in self._unfilled(node):
                    place = f"{node_id}.{name}"
                    places.add(place)
                    if place not in self._secrets:
                        words = f"{step['workflow']}, {node_words(node_id, node)}, input {name!r}: {place}"
                        lines.setdefault(place, words)
        if lines:
            first = next(iter(lines))
            raise ReplayError(
                f"Secrets are not in the record {self._record.path}, and its prompts need some:\n"
                f"{listed(lines.values())}\nPut each into an environment variable, and name it: --secret "
                f"{first}=VARIABLE (in Python secrets={{{first!r}: text}})."
            )
        for what, given, known in (("inputs", self._inputs, names), ("secrets", self._secrets, places)):
            unknown = sorted(set(given) - known)
            if unknown:
                raise ReplayError(
                    f"{what}: nothing that is run again takes {' or '.join(map(repr, unknown))}; there is "
                    f"{', '.join(map(repr, sorted(known))) or 'nothing to give'}."
                )

    def _unfilled(self, node: Mapping[str, Any]) -> list[str]:
        """The inputs of a node in which a secret is missing; a loader's digest is none."""
        # Most steps share most of their nodes, which stay as long as the record does.
        if id(node) in self._without_secrets or node.get("class_type") == LOADER_TYPE:
            return []
        found = [name for name, value in (node.get("inputs") or {}).items() if _lacks_secret(value)]
        if not found:
            self._without_secrets.add(id(node))
        return found

    def part(self, step: Json) -> Part:
        """What of a step is run again, with the secrets that were given."""
        part = needed_part(self.prompts.of(step))
        if not self._secrets:
            return part
        prompt = dict(part.prompt)
        for node_id, node in part.prompt.items():
            given = {
                name: _filled(node["inputs"][name], self._secrets[f"{node_id}.{name}"]) for name in self._unfilled(node)
            }
            if given:
                prompt[node_id] = with_inputs(node, given)
        return part._replace(prompt=prompt)
