"""The ports of a list of workflows that run one after the other: what becomes the sockets of a runner node.

Pure, but for reading the files.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import networkx

from ..prompt_graph import INPUT, OUTPUT
from ..workflow_graph import PortInfo, check_workflow, discover_ports
from ..workflow_json import ANY_TYPE, common_type, load_workflow, types_compatible
from .workflow_files import resolve_workflow

Json = dict[str, Any]

# Files whose ports are kept in mind; sentences that are told of one workflow.
_KEPT = 128
_PROBLEMS = 10


class Part(NamedTuple):
    """A workflow of the list."""

    #: as the user named it
    name: str
    ports: Sequence[PortInfo]


class _File(NamedTuple):
    """What is read from a workflow's file."""

    ports: tuple[PortInfo, ...]
    problems: tuple[str, ...]
    #: of its content
    digest: str


# ------------------------------------------------------------------------------------------------------------ files


def ports_of_workflows(
    names: Sequence[str],
    then: Sequence[str] = (),
    otherwise: Sequence[str] = (),
    *,
    resolve: Callable[[str], Path] = resolve_workflow,
) -> Json:
    """The ports of workflows given by their names.

    Args:
        names: run one after the other.
        then, otherwise: the workflows of a branch behind them, of which one list runs.
        resolve: finds a file.

    Returns:
        ``inputs`` and ``outputs`` of :func:`joined_ports`; ``titles`` (of each name the file's, without ending);
        ``problems``, sentences about what is wrong with the files or their ports; ``version``, which changes when a
        file does.
    """
    version = hashlib.sha256()
    problems: list[str] = []
    read: list[list[Part]] = []
    for group in (names, then, otherwise):
        parts = []
        for name in group:
            file = _read(name, resolve)
            parts.append(Part(name, file.ports))
            problems += [one for one in file.problems if one not in problems]
            version.update(f"{name}\0{file.digest}\0".encode())
        read.append(parts)
        version.update(b"\1")
    joined = joined_ports(*read)
    return {
        "inputs": joined["inputs"],
        "outputs": joined["outputs"],
        "titles": [Path(name.strip()).stem for name in (*names, *then, *otherwise)],
        "problems": [*problems, *joined["problems"]],
        "version": version.hexdigest()[:16],
    }


def _read(name: str, resolve: Callable[[str], Path]) -> _File:
    """A workflow's file; what is wrong with it is among its problems."""
    try:
        path = resolve(name)
        stat = os.stat(path)
        return _read_file(name, str(path), stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError) as error:
        sentence = str(error) or type(error).__name__
        return _File((), (sentence,), sentence)


@functools.lru_cache(_KEPT)
def _read_file(name: str, path: str, _changed: int, _size: int) -> _File:
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        workflow = load_workflow(path, allow_prompt=True)
        ports = tuple(discover_ports(workflow))
    except networkx.NetworkXUnfeasible as error:
        return _File((), (f"{name}: {error}",), digest)
    found = [f"{name}: {problem}" for problem in check_workflow(workflow)]
    more = [f"{name}: and {len(found) - _PROBLEMS} more."] if len(found) > _PROBLEMS else []
    return _File(ports, (*found[:_PROBLEMS], *more), digest)


# ------------------------------------------------------------------------------------------------------------ ports


class _Input:
    def __init__(self) -> None:
        self.types: list[str] = []
        self.workflows: list[str] = []


class _Reading:
    """What the workflows so far want and deliver."""

    def __init__(self) -> None:
        self.inputs: dict[str, _Input] = {}
        # Name -> the types that were delivered under it, of all workflows.
        self.outputs: dict[str, list[str]] = {}
        self.problems: list[str] = []

    def read(self, parts: Iterable[Part], made: dict[str, str]) -> None:
        """Go through workflows. *made*: what is delivered by now, with its type; it is added to."""
        for part in parts:
            # A workflow reads before it delivers: a loop variable is wanted from outside at first.
            for port in _named(part, INPUT):
                if port.unique_id not in made:
                    self._want(part, port)
                elif not types_compatible(made[port.unique_id], port.type):
                    self.problems.append(
                        f"{part.name} wants {port.type} as {port.unique_id!r}, but an earlier workflow delivers "
                        f"{made[port.unique_id]} under that name."
                    )
            for port in _named(part, OUTPUT):
                made[port.unique_id] = port.type
                self.outputs.setdefault(port.unique_id, []).append(port.type)

    def _want(self, part: Part, port: PortInfo) -> None:
        wanted = self.inputs.setdefault(port.unique_id, _Input())
        wanted.types.append(port.type)
        if part.name not in wanted.workflows:
            wanted.workflows.append(part.name)


def _named(part: Part, mode: str) -> list[PortInfo]:
    """The ports of a mode that have a name; the others are problems of the workflow itself."""
    return [port for port in part.ports if port.mode == mode and port.unique_id]


def joined_ports(parts: Iterable[Part], then: Iterable[Part] = (), otherwise: Iterable[Part] = ()) -> Json:
    """What a list of workflows wants from outside, and what it delivers.

    An INPUT port that an OUTPUT port of an earlier workflow feeds is not wanted from outside. A loop variable (one name
    in and out) is in both lists. Of a branch either list may run: what one of them wants is wanted, what one of them
    delivers may be delivered.

    Returns:
        ``inputs``: [{unique_id, type, workflows (who reads it), required}], in the order of their first use;
        ``outputs``: [{unique_id, type}]; ``problems``: sentences about types that do not fit.
    """
    reading = _Reading()
    made: dict[str, str] = {}
    reading.read(parts, made)
    for branch in (then, otherwise):
        reading.read(branch, dict(made))
    inputs = []
    for name, wanted in reading.inputs.items():
        kind = common_type(wanted.types)
        if kind is None:
            kind = ANY_TYPE
            listed = ", ".join(dict.fromkeys(wanted.types))
            reading.problems.append(f"No one type fits all INPUT ports {name!r}: they want {listed}.")
        inputs.append({"unique_id": name, "type": kind, "workflows": wanted.workflows, "required": True})
    outputs = [{"unique_id": name, "type": common_type(types) or ANY_TYPE} for name, types in reading.outputs.items()]
    return {"inputs": inputs, "outputs": outputs, "problems": reading.problems}
