"""A run's plan as data: it can be kept, compared with another one, and the difference told in sentences. Pure.

Workflows are in it by the SHA-256 of their prompt, which is what is executed: where its nodes stand in the editor does
not count. Functions (conditions, per-iteration inputs) are in it by name, by a digest of their compiled code, and by
the numbers and texts that they have taken from around them; code is not compared across versions of Python.
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import control_flow
from .compare import data_differences, prompt_differences
from .run_folder import is_plain, sha256

Json = dict[str, Any]

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def steps_note(steps: Sequence[Any], workflow_note: Callable[[Any], Json]) -> list[Json]:
    """Steps as data; ``workflow_note`` gives that of a workflow, by its source."""
    notes: list[Json] = []
    for step in steps:
        if isinstance(step, control_flow.Branch):
            sides = {side: steps_note(getattr(step, side), workflow_note) for side in ("then", "otherwise")}
            notes.append({"branch": {"condition": condition_note(step.condition), **sides}})
        elif isinstance(step, control_flow.Loop):
            notes.append({"loop": loop_note(step, workflow_note)})
        else:
            notes.append(workflow_note(step))
    return notes


def loop_note(loop: control_flow.Loop, workflow_note: Callable[[Any], Json]) -> Json:
    """A loop as data."""
    return {
        "iterations": loop.iterations,
        "condition": condition_note(loop.condition),
        "body": steps_note(loop.body, workflow_note),
    }


def condition_note(condition: Any) -> Any:
    """A condition as data: its text, its constant, or its function."""
    if condition is None:
        return None
    source = control_flow.Condition.parse(condition).source
    return function_note(source) if callable(source) else source


def function_note(function: Callable[..., Any]) -> Json:
    """A function as data."""
    inner: Any = function
    while hasattr(inner, "func") and not isinstance(inner, types.FunctionType):
        inner = inner.func  # a partial
    note: Json = {
        "function": f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    }
    # The same script has another name when it is imported.
    note["function"] = note["function"].removeprefix("__main__.")
    plain = getattr(inner, "__func__", inner)
    code = getattr(plain, "__code__", None)
    if isinstance(code, types.CodeType):
        note["code"] = {_PYTHON: _code_digest(code)}
        taken = _taken_values(plain)
        if taken:
            note["values"] = taken
    return note


def _code_digest(code: types.CodeType) -> str:
    digest = hashlib.sha256(code.co_code + repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            digest.update(_code_digest(constant).encode())
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())  # their order is another one in each process
        else:
            digest.update(repr(constant).encode())
    return digest.hexdigest()[:32]


def _taken_values(function: Any) -> Json:
    """Numbers and texts in a function's closure and defaults; what can change by itself (a list) is left out."""
    code, found = function.__code__, {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    found.update(zip(names[len(names) - len(defaults) :], defaults, strict=False))
    found.update(function.__kwdefaults__ or {})
    return {name: value for name, value in found.items() if not isinstance(value, (list, dict)) and is_plain(value)}


def per_iteration_note(source: control_flow.PerIteration) -> Json:
    """A per-iteration input as data: its function; or how many values there are, and a digest of them if all are plain.

    Values that are not are compared one by one, as far as they were used, when a run goes on.
    """
    if source.length is None:
        assert callable(source.source)
        return function_note(source.source)
    note: Json = {"length": source.length}
    if isinstance(source.source, (list, tuple, range)):
        values = list(source.source)
        if is_plain(values):
            note["values"] = sha256(values)
    return note


def plan_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], old_prompt: Callable[[str], Json], new_prompt: Callable[[str], Json]
) -> list[str]:
    """What differs between the plan of a record and the one of a call, in sentences.

    Args:
        old_prompt, new_prompt: the prompt of a SHA-256.
    """
    found: list[str] = []
    workflows = list(zip(_workflows(old.get("loop")), _workflows(new.get("loop")), strict=False))
    told: set[tuple[str, str]] = set()
    for before, after in workflows:
        pair = (before["prompt"], after["prompt"])
        if pair[0] == pair[1] or pair in told:
            continue
        told.add(pair)
        details = prompt_differences(old_prompt(pair[0]), new_prompt(pair[1]))
        name = after["workflow"]
        found += [f"{name}: {text}" for text in details] or [f"{name}: titles of nodes differ"]
    with_code = _was_this_python(old)
    return found + data_differences(_comparable(old, with_code), _comparable(new, with_code))


def _workflows(note: Any) -> list[Json]:
    """The workflows of a plan, in order."""
    if isinstance(note, Mapping):
        if "prompt" in note and "workflow" in note:
            return [dict(note)]
        parts = [note[key] for key in ("branch", "loop", "then", "otherwise", "body") if key in note]
        return [one for part in parts for one in _workflows(part)]
    return [one for part in note for one in _workflows(part)] if isinstance(note, list) else []


def _was_this_python(note: Any) -> bool:
    """Whether the code of all functions of a plan was noted by this version of Python."""
    if isinstance(note, Mapping):
        if "function" in note and isinstance(note.get("code"), Mapping):
            return _PYTHON in note["code"]
        return all(map(_was_this_python, note.values()))
    return all(map(_was_this_python, note)) if isinstance(note, list) else True


def _comparable(note: Any, with_code: bool) -> Any:
    """A plan without what is told apart (prompts), and without code where that cannot be compared."""
    if isinstance(note, Mapping):
        if "prompt" in note and "workflow" in note:
            return {"workflow": note["workflow"]}
        if "function" in note and not with_code:
            return {key: value for key, value in note.items() if key != "code"}
        return {key: _comparable(value, with_code) for key, value in note.items()}
    return [_comparable(one, with_code) for one in note] if isinstance(note, list) else note
