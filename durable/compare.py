"""What differs between two prompts, two plans, two values, two records; in sentences. Pure.

Where two things are compared, "was" is the first one and "is" the second.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..prompt_graph import LOADER_TYPE

if TYPE_CHECKING:
    from .run_folder import RunRecordFolder

Json = dict[str, Any]

_LENGTH = 120


def short(value: Any) -> str:
    """A value for a sentence."""
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."


def node_words(node_id: str, node: Any) -> str:
    """A node for a sentence: its id, class and title."""
    if not isinstance(node, Mapping):
        return f"node #{node_id}"
    kind = node.get("class_type", "?")
    title = (node.get("_meta") or {}).get("title")
    return f"node #{node_id} {kind}" + (f" ({title!r})" if title and title != kind else "")


def prompt_differences(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str] = ("was", "is")) -> list[str]:
    """Where prompt b differs from prompt a: nodes, classes, inputs. Titles do not count."""
    found = []
    for node_id in sorted({*a, *b}, key=lambda i: (len(i), i)):
        if node_id not in b:
            found.append(f"{node_words(node_id, a[node_id])} is only in the first")
        elif node_id not in a:
            found.append(f"{node_words(node_id, b[node_id])} is only in the second")
        elif a[node_id] is not b[node_id]:
            found += _node_differences(node_id, a[node_id], b[node_id], names)
    return found


def _node_differences(node_id: str, a: Any, b: Any, names: Sequence[str]) -> list[str]:
    words = node_words(node_id, b)
    if a.get("class_type") != b.get("class_type"):
        return [f"{words}: its class {names[0]} {a.get('class_type')}, {names[1]} {b.get('class_type')}"]
    left, right = a.get("inputs") or {}, b.get("inputs") or {}
    return [
        f"{words}, input {key!r}: {names[0]} {_or_nothing(left, key)}, {names[1]} {_or_nothing(right, key)}"
        for key in sorted({*left, *right})
        if left.get(key) != right.get(key) or (key in left) != (key in right)
    ]


def _or_nothing(values: Mapping[str, Any], key: str) -> str:
    return short(values[key]) if key in values else "not there"


def data_differences(a: Any, b: Any, where: str = "", names: Sequence[str] = ("was", "is")) -> list[str]:
    """Where JSON data b differs from a: the places, and what is there."""
    if a == b:
        return []
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found: list[str] = []
        for key in sorted({*a, *b}, key=str):
            place = f"{where}.{key}" if where else str(key)
            if key not in a or key not in b:
                found.append(f"{place}: {names[0]} {_or_nothing(a, key)}, {names[1]} {_or_nothing(b, key)}")
            else:
                found += data_differences(a[key], b[key], place, names)
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            text
            for index, (left, right) in enumerate(zip(a, b, strict=True))
            for text in data_differences(left, right, f"{where}[{index}]", names)
        ]
    if isinstance(a, list) and isinstance(b, list):
        return [f"{where or 'it'}: {names[0]} {len(a)} long, {names[1]} {len(b)}"]
    return [f"{where or 'it'}: {names[0]} {short(a)}, {names[1]} {short(b)}"]


def listed(sentences: Iterable[str], most: int = 12) -> str:
    """Sentences as the lines of a message, the first ones of many."""
    lines = list(sentences)
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([*(f"  - {line}" for line in lines[:most]), *more])


# ------------------------------------------------------------------------------------------------------------- values


class ValueDifference(NamedTuple):
    """How much two values differ."""

    #: the largest absolute difference of their numbers; 0.0 where they are equal, None where that cannot be said
    most: float | None
    #: for people: "0.5 and 0.7", "up to 0.0039, in 12 of 768 elements"
    words: str


def value_difference(a: Any, b: Any) -> ValueDifference:
    """How much two values differ: numbers, texts, tensors, arrays, and lists and dicts of them."""
    if hasattr(a, "shape") and hasattr(b, "shape"):
        return _array_difference(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return ValueDifference(None, f"dicts of {short(sorted(map(str, a)))} and of {short(sorted(map(str, b)))}")
        return _difference_of_parts({str(key): (a[key], b[key]) for key in a})
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return ValueDifference(None, f"{len(a)} and {len(b)} long")
        return _difference_of_parts({f"[{n}]": pair for n, pair in enumerate(zip(a, b, strict=True))})
    if isinstance(a, str) and isinstance(b, str) and a != b:
        place = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        begin = max(0, place - 20)
        return ValueDifference(
            None, f"from character {place} on: {short(a[begin : begin + 60])} and {short(b[begin : begin + 60])}"
        )
    if _is_number(a) and _is_number(b):
        if math.isnan(a) and math.isnan(b):
            return ValueDifference(0.0, "equal")
        return ValueDifference(0.0 if a == b else abs(b - a), "equal" if a == b else f"{short(a)} and {short(b)}")
    try:
        is_equal = bool(a == b)
    except Exception:  # whatever a class of somebody's makes of it
        is_equal = False
    return ValueDifference(0.0, "equal") if is_equal else ValueDifference(None, f"{short(a)} and {short(b)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference_of_parts(parts: Mapping[str, tuple[Any, Any]]) -> ValueDifference:
    most, words = 0.0, ""
    for place, (left, right) in parts.items():
        found = value_difference(left, right)
        if found.most == 0.0:
            continue
        if found.most is None:
            return ValueDifference(None, f"{place}: {found.words}")
        if found.most > most or not words or math.isnan(found.most):
            most, words = found.most, f"{place}: {found.words}"
    return ValueDifference(most, words or "equal")


def _array_difference(a: Any, b: Any) -> ValueDifference:
    import torch

    shapes = tuple(a.shape), tuple(b.shape)
    kinds = tuple(str(one.dtype).removeprefix("torch.") for one in (a, b))
    if shapes[0] != shapes[1]:
        return ValueDifference(None, f"shapes {list(shapes[0])} and {list(shapes[1])}")
    suffix = "" if kinds[0] == kinds[1] else f", as {kinds[0]} and {kinds[1]}"
    try:
        left, right = torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu()
        if left.numel() == 0:
            return ValueDifference(0.0, "equal" + suffix)
        if not (left.is_floating_point() or left.is_complex()) or left.dtype != right.dtype:
            wide = torch.complex128 if left.is_complex() or right.is_complex() else torch.float64
            left, right = left.to(wide), right.to(wide)
        same = (left == right) | (left.isnan() & right.isnan())
        count = int((~same).sum())
        if not count:
            return ValueDifference(0.0, "equal" + suffix)
        most = float((left - right).abs()[~same].max())
    except (TypeError, RuntimeError, ValueError):  # of objects, or in a format that does not subtract
        return ValueDifference(None, "other elements" + suffix)
    return ValueDifference(most, f"up to {most:.4g}, in {count:,} of {left.numel():,} elements{suffix}")


def same_algorithm(a: str, b: str) -> bool:
    """Whether two digests can be compared: a Python without xxhash digests otherwise, and "unique" equals nothing."""
    left, right = a.partition(":")[0], b.partition(":")[0]
    return left == right != "unique"


# ------------------------------------------------------------------------------------------------------- circumstances


def environment_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Where two environments (docs/reference/run-record.md) differ."""
    return data_differences(a, b)


def model_differences(a: Iterable[Mapping[str, Any]], b: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where the model files of two records differ: which there are, sizes, hashes; not when they were changed."""
    left, right = ({(str(one.get("folder")), str(one.get("name"))): one for one in models} for models in (a, b))
    found = []
    for folder, name in sorted({*left, *right}):
        before, after = left.get((folder, name)), right.get((folder, name))
        if before is None or after is None:
            found.append(f"{folder}/{name} is only in the {'second' if before is None else 'first'}")
            continue
        for key, words in (("size", "its size in bytes"), ("sha256", "its SHA-256")):
            if key in before and key in after and before[key] != after[key]:
                found.append(f"{folder}/{name}: {words} was {before[key]}, is {after[key]}")
    return found


# ------------------------------------------------------------------------------------------------------------ records


@dataclasses.dataclass
class Attempt:
    """What a journal has of one attempt at an iteration of the outermost loop, or of an item of a batch."""

    iteration: int
    entries: list[Json] = dataclasses.field(default_factory=list)
    #: how it ended: "done", "skipped", "retried"; "" where the journal ends before
    state: str = ""

    @property
    def was_undone(self) -> bool:
        """Whether it came to nothing."""
        return self.state in ("skipped", "retried")

    @property
    def steps(self) -> list[Json]:
        """The finished steps."""
        return [entry for entry in self.entries if entry["kind"] == "step"]


def attempts(entries: Iterable[Json]) -> list[Attempt]:
    """The attempts at iterations that a journal tells of, in the order in which they began.

    The end of a batch's item may be written when the next one has begun.
    """
    found: list[Attempt] = []
    going_on: dict[int, Attempt] = {}
    for entry in entries:
        kind = entry.get("kind")
        if kind not in ("condition", "input", "step", "iteration"):
            continue
        number = int(entry["iteration"] if kind == "iteration" else entry["path"][0])
        one = going_on.get(number)
        if one is None:
            one = going_on[number] = Attempt(number)
            found.append(one)
        one.entries.append(entry)
        if kind == "iteration":
            one.state = str(entry.get("state", ""))
            del going_on[number]
    return found


class StepPrompts:
    """The prompts of a record's steps; those of the workflows are read once."""

    def __init__(self, record: RunRecordFolder):
        self._record = record
        self._bases: dict[str, Json] = {}

    def base(self, digest: str) -> Json:
        """The prompt of a workflow. Raises RunFolderError where it is not there or not what was written."""
        if digest not in self._bases:
            self._bases[digest] = self._record.prompt(digest)
        return self._bases[digest]

    def of(self, step: Mapping[str, Any]) -> Json:
        """The exact prompt of a step (but for secrets); as ``RunRecordFolder.step_prompt``."""
        prompt = {**self.base(step["prompt"]), **step.get("changes", {})}
        return {node_id: node for node_id, node in prompt.items() if node is not None}


def step_words(step: Mapping[str, Any]) -> str:
    """Where a step stands, for a sentence: "iteration 3, refine.json"."""
    return f"iteration {'.'.join(map(str, step['path']))}, {step['workflow']}"


class RecordDifference(NamedTuple):
    """One thing in which two records differ."""

    #: "plan", "inputs", "seeds", "environment", "models", "iterations", "steps", "ports"; "note": what does not count
    area: str
    text: str

    @property
    def is_note(self) -> bool:
        """Whether it is told without being a difference."""
        return self.area == "note"

    @property
    def is_of_results(self) -> bool:
        """Whether it is in what the runs did, rather than in what they were told to do, or ran on."""
        return self.area in ("iterations", "steps", "ports")


# Of one kind of difference, so many sentences are told.
_MOST = 8


def record_differences(a: RunRecordFolder, b: RunRecordFolder) -> list[RecordDifference]:
    """What differs between two records of runs: what they were told to do, what they ran on, what they did.

    A bounded number of sentences, however long the runs are. No server is asked, and nothing unsafe is loaded.

    Raises:
        RunFolderError: a prompt that is needed to tell the difference is not there, or not what was written.
    """
    steps = _StepComparison(a, b)
    sessions = [_last_session(record) for record in (a, b)]
    areas = (
        ("plan", _plan_findings(a, b)),
        ("inputs", _input_findings(a, b)),
        ("seeds", steps.seed_findings()),
        ("environment", environment_differences(*(one.get("environment", {}) for one in sessions))),
        ("models", model_differences(*(one.get("models", []) for one in sessions))),
        ("iterations", _iteration_findings(a, b)),
        ("steps", steps.step_findings()),
        ("ports", steps.port_findings()),
        ("note", [*steps.notes, *_notes(a, b)]),
    )  # fmt: skip
    found = []
    for area, sentences in areas:
        found += [RecordDifference(area, text) for text in sentences[:_MOST]]
        if len(sentences) > _MOST:
            found.append(RecordDifference(area, f"and {len(sentences) - _MOST:,} more"))
    return found


def _last_session(record: RunRecordFolder) -> Json:
    return next((entry for entry in reversed(record.entries) if entry.get("kind") == "session"), {})


def _plan_findings(a: RunRecordFolder, b: RunRecordFolder) -> list[str]:
    from .plan_text import plan_differences

    # A master seed that was drawn and never used is no difference: see seed_findings.
    plans = [{k: v for k, v in one.manifest["plan"].items() if k != "master_seed"} for one in (a, b)]
    found = plan_differences(plans[0], plans[1], a.prompt, b.prompt)
    kinds = [one.manifest.get("kind") for one in (a, b)]
    return found if kinds[0] == kinds[1] else [f"it was a {kinds[0]}, is a {kinds[1]}", *found]


def _input_findings(a: RunRecordFolder, b: RunRecordFolder) -> list[str]:
    left, right = a.manifest.get("inputs", {}), b.manifest.get("inputs", {})
    found = []
    for name in sorted({*left, *right}):
        if name not in left or name not in right:
            found.append(f"{name!r} is only in the {'second' if name not in left else 'first'}")
        elif _differs(left[name], right[name]):
            found.append(f"{name!r}: {_how_notes_differ(a, left[name], b, right[name])}")
    given = [
        {(tuple(e["path"]), e["name"]): e["value"] for one in attempts(record.entries) if not one.was_undone
         for e in one.entries if e["kind"] == "input"}
        for record in (a, b)
    ]  # fmt: skip
    for name, places in _grouped(given[0], given[1]).items():
        others = [place for place in places if _differs(given[0][place], given[1][place])]
        if others:
            how = _how_notes_differ(a, given[0][others[0]], b, given[1][others[0]])
            found.append(
                f"{name!r}, of each iteration: {len(others):,} of {len(places):,} differ, first that of iteration "
                f"{others[0][0][0]}: {how}"
            )
    return found


def _grouped(a: Mapping[tuple[Any, str], Any], b: Mapping[tuple[Any, str], Any]) -> dict[str, list[tuple[Any, str]]]:
    """{name: places that both have}, in order."""
    found: dict[str, list[tuple[Any, str]]] = {}
    for place in a:
        if place in b:
            found.setdefault(place[1], []).append(place)
    return found


def _differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two values that were noted are known to differ."""
    if "digest" not in a or "digest" not in b:
        return ("secret" in a and "digest" in b) or ("digest" in a and "secret" in b)
    if same_algorithm(a["digest"], b["digest"]):
        return bool(a["digest"] != b["digest"])
    return "value" in a and "value" in b and value_difference(a["value"], b["value"]).most != 0.0


def _is_comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return (
        "digest" in a
        and "digest" in b
        and (same_algorithm(a["digest"], b["digest"]) or ("value" in a and "value" in b))
    )


def _how_notes_differ(a: RunRecordFolder, left: Mapping[str, Any], b: RunRecordFolder, right: Mapping[str, Any]) -> str:
    """How two values that were noted differ: how much, where both are at hand."""
    if "secret" in left or "secret" in right:
        return "one of them is a secret, which is not recorded"
    if a.has_value(left) and b.has_value(right):
        try:
            difference = value_difference(a.value(left), b.value(right))
        except (OSError, RuntimeError, ValueError):  # damaged, removed meanwhile, or not to be loaded: digests are left
            pass
        else:
            if difference.most != 0.0:
                return difference.words
    return f"another value (its digest was {left['digest']}, is {right['digest']})"


def _iteration_findings(a: RunRecordFolder, b: RunRecordFolder) -> list[str]:
    found = []
    both = [attempts(record.entries) for record in (a, b)]
    answers = [_answers(one) for one in both]
    for place, entry in answers[0].items():
        other = answers[1].get(place)
        if other is not None and other["result"] != entry["result"]:
            path, what, _ = place
            found.append(
                f"the condition of a {what} ({short(entry['condition'])}) was {str(entry['result']).lower()}, is "
                f"{str(other['result']).lower()} in iteration {'.'.join(map(str, path))}; the ways part there"
            )
            break
    for state, words in (("done", "iterations were finished"), ("skipped", "iterations were skipped")):
        numbers = [[one.iteration for one in side if one.state == state] for side in both]
        if numbers[0] != numbers[1]:
            found.append(f"{len(numbers[0]):,} {words} in the first, {len(numbers[1]):,} in the second")
            only = sorted({*numbers[0]} ^ {*numbers[1]})
            if state == "skipped" and only:
                found[-1] += f" (iteration {only[0]} in one of them only)"
    return found


def _answers(found: Iterable[Attempt]) -> dict[tuple[tuple[int, ...], str, int], Json]:
    """{(path, loop or branch, how often before): what a condition said}, of attempts that count."""
    times: collections.Counter[tuple[tuple[int, ...], str]] = collections.Counter()
    answers = {}
    for entry in (e for one in found if not one.was_undone for e in one.entries if e["kind"] == "condition"):
        place = (tuple(entry["path"]), str(entry["what"]))
        answers[place[0], place[1], times[place]] = entry
        times[place] += 1
    return answers


def _notes(a: RunRecordFolder, b: RunRecordFolder) -> list[str]:
    """What is worth telling and no difference."""
    found = [
        f"option {text}" for text in data_differences(a.manifest.get("options", {}), b.manifest.get("options", {}))
    ]
    for words, record in (("first", a), ("second", b)):
        if record.damage is not None:
            found.append(
                f"the journal of the {words} is damaged in line {record.damage[0]}; what follows is not compared"
            )
        end = next((e for e in reversed(record.entries) if e.get("kind") in ("end", "session")), {})
        if end.get("kind") != "end":
            found.append(f"the {words} has not ended, or was killed")
        elif end.get("state") != "finished":
            error = (end.get("error") or {}).get("message")
            found.append(
                f"the {words} {end.get('state')}" + (f": {short(str(error).splitlines()[0])}" if error else "")
            )
        environments = [e.get("environment") for e in record.entries if e.get("kind") == "session"]
        if any(one != environments[0] for one in environments):
            found.append(f"the {words} went on in another environment than it began in; the last one is compared")
    return found


# {(path, workflow, how often it ran there before): step}
_Place = tuple[tuple[int, ...], str, int]


def _counted_steps(record: RunRecordFolder) -> dict[_Place, Json]:
    """The steps whose values counted, by their places: not those of iterations that were undone."""
    times: collections.Counter[tuple[tuple[int, ...], str]] = collections.Counter()
    steps: dict[_Place, Json] = {}
    for entry in (e for one in attempts(record.entries) if not one.was_undone for e in one.steps):
        place = (tuple(entry["path"]), str(entry["workflow"]))
        steps[place[0], place[1], times[place]] = entry
        times[place] += 1
    return steps


class _StepComparison:
    """The steps of two records, side by side."""

    def __init__(self, a: RunRecordFolder, b: RunRecordFolder):
        self._records = (a, b)
        self._prompts = (StepPrompts(a), StepPrompts(b))
        self._steps = (_counted_steps(a), _counted_steps(b))
        self._pairs = [
            (step, self._steps[1][place]) for place, step in self._steps[0].items() if place in self._steps[1]
        ]
        self.notes: list[str] = []

    def seed_findings(self) -> list[str]:
        seeds = [one.manifest["plan"].get("master_seed") for one in self._records]
        master = [] if seeds[0] == seeds[1] else [f"the master seed was {seeds[0]}, is {seeds[1]}"]
        others = [(left, right) for left, right in self._pairs if left.get("seeds") != right.get("seeds")]
        if not others:
            self.notes += [f"{text}, but no step used another seed" for text in master]
            return []
        left, right = others[0]
        details = "; ".join(data_differences(left.get("seeds"), right.get("seeds"))[:3])
        count = f"{len(others):,} of {len(self._pairs):,} steps had other seeds"
        return [*master, f"{count}, first {step_words(left)}: {details}"]

    def step_findings(self) -> list[str]:
        found = []
        ways = [list(side) for side in self._steps]
        for number in range(max(map(len, ways))):
            here = [side[number] if number < len(side) else None for side in ways]
            if here[0] != here[1]:
                words = [
                    "is at its end" if place is None else f"runs {place[1]} in iteration {'.'.join(map(str, place[0]))}"
                    for place in here
                ]
                found.append(f"after {number:,} steps the ways part: the first {words[0]}, the second {words[1]}")
                break
        checked: set[tuple[str, str]] = set()
        for left, right in self._pairs:
            causes = self._causes(left, right, checked)
            if causes:
                found.insert(0, f"first difference in {step_words(left)}: {'; '.join(causes[:4])}")
                break
        return found

    def _causes(self, left: Json, right: Json, checked: set[tuple[str, str]]) -> list[str]:
        """Why a step is not the same as in the other record, what comes first first."""
        causes = self._prompt_causes(left, right, checked)
        if left.get("seeds") != right.get("seeds"):
            causes.append("its seeds differ")
        reads, others = left.get("reads", {}), right.get("reads", {})
        both = [name for name in reads if reads[name] and others.get(name)]
        changed = [n for n in both if same_algorithm(reads[n], others[n]) and reads[n] != others[n]]
        causes += [f"it reads another {name!r}" for name in changed]
        writes = [name for name, note in left["writes"].items() if _differs(note, right["writes"].get(name, {}))]
        if writes:
            names = " and ".join(map(repr, writes[:3]))
            causes.append(
                f"it wrote another {names}"
                if causes
                else f"it wrote another {names}, although prompt, seeds and what it read are the same: versions, "
                "device or models differ, or a node does not give the same twice"
            )
        return causes

    def _prompt_causes(self, left: Json, right: Json, checked: set[tuple[str, str]]) -> list[str]:
        """Where the prompts of two steps differ but for seeds and what they read."""
        if left["prompt"] == right["prompt"] and left.get("changes") == right.get("changes"):
            return []
        drawn = [
            {(node_id, name) for node_id, inputs in (step.get("seeds") or {}).items() for name in inputs}
            for step in (left, right)
        ]
        ignored = drawn[0] | drawn[1]
        if left["prompt"] == right["prompt"]:
            ids = {*left.get("changes", {}), *right.get("changes", {})}
            prompts = [p.of(s) for p, s in zip(self._prompts, (left, right), strict=True)]
            parts = [{i: prompt[i] for i in ids if i in prompt} for prompt in prompts]
        else:
            # The plan's difference, told there; here it is the cause, once.
            pair = (left["prompt"], right["prompt"])
            if pair in checked:
                return []
            checked.add(pair)
            parts = [p.of(s) for p, s in zip(self._prompts, (left, right), strict=True)]
        cleaned = [_without_data(part, ignored) for part in parts]
        return prompt_differences(cleaned[0], cleaned[1])

    def port_findings(self) -> list[str]:
        count: collections.Counter[tuple[str, str]] = collections.Counter()
        different: dict[tuple[str, str], list[tuple[Json, Json]]] = {}
        unknown = 0
        for left, right in self._pairs:
            for name, note in left["writes"].items():
                other = right["writes"].get(name)
                if other is None or "secret" in note or "secret" in other:
                    continue
                port = (str(left["workflow"]), name)
                if not _is_comparable(note, other):
                    unknown += 1
                    continue
                count[port] += 1
                if _differs(note, other):
                    different.setdefault(port, []).append((left, right))
        if unknown:
            self.notes.append(f"{unknown:,} values cannot be compared: they were digested in different ways")
        found = []
        for (workflow, name), steps in different.items():
            left, right = steps[0]
            how = _how_notes_differ(self._records[0], left["writes"][name], self._records[1], right["writes"][name])
            found.append(
                f"{name!r} of {workflow}: {len(steps):,} of {count[workflow, name]:,} differ, first in iteration "
                f"{'.'.join(map(str, left['path']))}: {how}"
            )
        return found


def _without_data(prompt: Mapping[str, Any], ignored: set[tuple[str, str]]) -> Json:
    """A prompt without the digests of what it reads, and without some inputs, given as (node id, name)."""
    cleaned: Json = {}
    for node_id, node in prompt.items():
        left_out = {name for one, name in ignored if one == node_id}
        if node.get("class_type") == LOADER_TYPE:
            left_out.add("content")
        inputs = {name: value for name, value in (node.get("inputs") or {}).items() if name not in left_out}
        cleaned[node_id] = {**node, "inputs": inputs}
    return cleaned
